//! A power cut, as far as a test can simulate one: from a copy of what a killed process left,
//! removes what that process had not reported as durable.
//!
//! Of each file, everything from some 512-byte boundary after its last sync may be missing, and any
//! block of 512 bytes there may be zeros. Of the changes to names since the last sync of the
//! directory, the later ones may be missing: the replacement of a manifest, and files created after
//! it. The simulated disk of other tests loses more; this one tests the real file system and real
//! threads.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;
use std::path::Path;

use test_support::Rng;

const MANIFEST: &str = "MANIFEST";
const BLOCK_BYTES: u64 = 512;

/// Durable lengths and names of files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Durable {
    lengths: BTreeMap<String, u64>,
    /// Renames that began and are not known to be done.
    renames: BTreeMap<String, String>,
    created: Vec<String>,
    /// The names covered by the running sync of the directory.
    syncing: BTreeSet<String>,
    renamed_since_sync: bool,
}

impl Durable {
    /// Everything in the directory.
    pub(crate) fn all(directory: &Path) -> Durable {
        let entries = std::fs::read_dir(directory).into_iter().flatten().map(|entry| {
            let entry = entry.expect("an entry");
            let length = entry.metadata().expect("its length").len();
            (entry.file_name().into_string().expect("a name in ASCII"), length)
        });
        Durable {
            lengths: entries.collect(),
            ..Durable::default()
        }
    }

    /// Processes a report; false if it is of another kind.
    pub(crate) fn hear(&mut self, report: &str) -> bool {
        let words: Vec<&str> = report.split(' ').collect();
        match words[..] {
            ["N", name] => {
                self.created.push(name.to_owned());
                self.lengths.insert(name.to_owned(), 0);
            }
            ["D", name, length] => {
                let length = length.parse().expect("a length");
                self.lengths.insert(name.to_owned(), length);
            }
            ["R", from, to] => {
                // The first manifest replaces none, so no older state is possible.
                self.renamed_since_sync |= self.lengths.contains_key(to);
                self.renames.insert(from.to_owned(), to.to_owned());
            }
            ["r", from] => self.renamed(from),
            ["s"] => self.syncing = self.created.iter().cloned().collect(),
            ["S"] => {
                let syncing = std::mem::take(&mut self.syncing);
                self.created.retain(|name| !syncing.contains(name));
                self.renamed_since_sync = false;
            }
            _ => return false,
        }
        true
    }

    fn renamed(&mut self, from: &str) {
        if let Some(to) = self.renames.remove(from) {
            let length = self.lengths.remove(from).unwrap_or(0);
            self.lengths.insert(to, length);
        }
    }

    /// After the kill, the directory shows which of the begun renames were done.
    pub(crate) fn settle(&mut self, directory: &Path) {
        let unknown: Vec<String> = self.renames.keys().cloned().collect();
        for from in unknown {
            if !directory.join(&from).exists() {
                self.renamed(&from);
            }
        }
        self.renames.clear();
    }

    /// Begins the next process; only its own changes to names may be lost.
    pub(crate) fn begin(&mut self) {
        self.created.clear();
        self.syncing.clear();
        self.renamed_since_sync = false;
    }

    /// Cuts the files in a directory as the process left it, and returns a description. `replaced`
    /// is the manifest as of the last sync of the directory.
    pub(crate) fn cut(&self, directory: &Path, replaced: &Path, rng: &mut Rng) -> String {
        let mut done = String::new();
        let mut lengths: BTreeMap<&str, u64> = self.lengths.iter().map(|(name, length)| (&name[..], *length)).collect();
        let mut created = &self.created[..];
        if self.renamed_since_sync {
            // Files created before the manifest was replaced stay, unless the replacement is lost
            // too.
            if rng.below(2) == 0 {
                let before = std::fs::read(replaced).expect("the manifest that was replaced");
                std::fs::write(directory.join(MANIFEST), &before).expect("a file");
                lengths.insert(MANIFEST, before.len() as u64);
                done += " with the manifest before;";
            } else {
                created = &[];
            }
        }
        let kept = rng.below(created.len() as u64 + 1) as usize;
        for name in &created[kept..] {
            if std::fs::remove_file(directory.join(name)).is_ok() {
                done += &format!(" without {name};");
            }
        }
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("a name in ASCII");
            if ["LOCK", "RESERVE"].contains(&name.as_str()) {
                continue;
            }
            let found = entry.metadata().expect("its length").len();
            let durable = lengths.get(&name[..]).copied().unwrap_or(0);
            if durable < found {
                done += &cut_file(&entry.path(), durable, found, rng);
            }
        }
        done
    }
}

/// Cuts one file at a block boundary, and zeroes some of the remaining blocks.
fn cut_file(path: &Path, durable: u64, found: u64, rng: &mut Rng) -> String {
    let first = durable.next_multiple_of(BLOCK_BYTES);
    let borders = (found.saturating_sub(first)) / BLOCK_BYTES + 1;
    let end = match rng.below(3) {
        0 => durable,
        1 => found,
        _ => (first + rng.below(borders) * BLOCK_BYTES).min(found),
    };
    let file = std::fs::File::options().write(true).open(path).expect("a file");
    file.set_len(end).expect("a file can be cut");
    let mut lost = 0;
    if rng.below(2) == 0 {
        let mut offset = durable;
        while offset < end {
            let next = (offset + 1).next_multiple_of(BLOCK_BYTES).min(end);
            if rng.below(3) == 0 {
                let zeros = vec![0; (next - offset) as usize];
                file.write_all_at(&zeros, offset).expect("a file can be written");
                lost += 1;
            }
            offset = next;
        }
    }
    let name = path.file_name().unwrap_or_default().display();
    format!(" {name} durable to {durable}, of {found} cut to {end}, {lost} blocks lost;")
}
