//! The directory tree that the tour stores, and the files in it.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use indicatif::{HumanBytes, HumanCount};

use crate::{Result, ensure};

/// Larger files are skipped. It is the limit of Workers KV for values.
const FILE_BYTES_MAX: u64 = 25 << 20;
/// Most bytes stored of a tree that was not given on the command line.
const UNASKED_BYTES_MAX: u64 = 1 << 30;

/// A directory tree.
pub(crate) struct Source {
    root: PathBuf,
    pub(crate) description: String,
    /// Names in the root to skip.
    excluded: &'static [&'static str],
    bytes_max: u64,
}

/// A file as it was when it was found.
#[derive(Debug)]
pub(crate) struct SourceFile {
    path: PathBuf,
    /// Path below the root, with `/` between the parts.
    pub(crate) key: Vec<u8>,
    pub(crate) bytes: u64,
    pub(crate) modified_ms: u64,
}

impl Source {
    /// The requested tree; without one the sources that cargo has unpacked, or this repository.
    pub(crate) fn choose(asked: Option<PathBuf>) -> Result<Source> {
        if let Some(root) = asked {
            ensure(root.is_dir(), || format!("{} is not a directory", root.display()))?;
            let description = format!("the files below {}", root.display());
            return Ok(Source {
                root,
                description,
                excluded: &[],
                bytes_max: u64::MAX,
            });
        }
        if let Some(root) = unpacked_by_cargo() {
            let description = "the sources that cargo has unpacked on this machine".to_owned();
            return Ok(Source {
                root,
                description,
                excluded: &[],
                bytes_max: UNASKED_BYTES_MAX,
            });
        }
        let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let description = "this repository".to_owned();
        Ok(Source {
            root,
            description,
            excluded: &["target", ".git"],
            bytes_max: UNASKED_BYTES_MAX,
        })
    }

    /// Every regular file of the tree, by key, except those below `store`. Symbolic links are not
    /// followed. Prints how many files are skipped as too large or unreadable.
    pub(crate) fn files(&self, store: &Path) -> Result<Vec<SourceFile>> {
        let mut found = Vec::new();
        let (mut large, mut unreadable) = (0, 0);
        let mut directories = vec![(self.root.clone(), Vec::new())];
        while let Some((directory, prefix)) = directories.pop() {
            let Ok(entries) = fs::read_dir(&directory) else {
                unreadable += 1;
                continue;
            };
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name();
                if prefix.is_empty() && self.excluded.iter().any(|excluded| name == *excluded) {
                    continue;
                }
                let path = entry.path();
                let key = [prefix.as_slice(), name.as_encoded_bytes()].concat();
                match entry.metadata() {
                    Ok(metadata) if metadata.is_dir() && path.canonicalize().is_ok_and(|path| path != store) => {
                        directories.push((path, [key.as_slice(), b"/"].concat()));
                    }
                    Ok(metadata) if metadata.is_file() && metadata.len() > FILE_BYTES_MAX => large += 1,
                    Ok(metadata) if metadata.is_file() => found.push(SourceFile::new(path, key, &metadata)),
                    Ok(_) => {}
                    Err(_) => unreadable += 1,
                }
            }
        }
        found.sort_by(|one, other| one.key.cmp(&other.key));
        ensure(!found.is_empty(), || {
            format!("there are no files below {}", self.root.display())
        })?;
        say_skipped(large, &format!("larger than {}", HumanBytes(FILE_BYTES_MAX)));
        say_skipped(unreadable, "or directories that cannot be read");
        self.cut(&mut found);
        Ok(found)
    }

    fn cut(&self, found: &mut Vec<SourceFile>) {
        let mut bytes = 0;
        let fitting = found.iter().take_while(|file| {
            bytes += file.bytes;
            bytes <= self.bytes_max
        });
        let kept = fitting.count();
        say_skipped(
            found.len() - kept,
            &format!("beyond the first {}", HumanBytes(self.bytes_max)),
        );
        found.truncate(kept);
    }
}

fn say_skipped(files: usize, which: &str) {
    if files > 0 {
        println!("  skipped: {} files {which}", HumanCount(files as u64));
    }
}

/// Directory of the package registry with the most unpacked packages.
fn unpacked_by_cargo() -> Option<PathBuf> {
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))?;
    let registries = fs::read_dir(cargo_home.join("registry").join("src")).ok()?;
    let packages = |path: &PathBuf| fs::read_dir(path).map_or(0, Iterator::count);
    let largest = registries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .max_by_key(packages)?;
    (packages(&largest) > 0).then_some(largest)
}

impl SourceFile {
    fn new(path: PathBuf, key: Vec<u8>, metadata: &Metadata) -> SourceFile {
        SourceFile {
            path,
            key,
            bytes: metadata.len(),
            modified_ms: modified_ms(metadata),
        }
    }

    /// Content of the file; `None` if it is no longer readable or has changed since it was found.
    pub(crate) fn read(&self) -> Option<Vec<u8>> {
        let read = || -> io::Result<(Vec<u8>, Metadata)> { Ok((fs::read(&self.path)?, fs::metadata(&self.path)?)) };
        let (content, metadata) = read().ok()?;
        let same = content.len() as u64 == self.bytes && modified_ms(&metadata) == self.modified_ms;
        same.then_some(content)
    }
}

/// Time of the last modification, in milliseconds since the epoch; 0 if the file system does not
/// report it.
fn modified_ms(metadata: &Metadata) -> u64 {
    let modified = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    modified.map_or(0, |since| since.as_millis() as u64)
}
