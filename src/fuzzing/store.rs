//! A small store of known content with one file replaced, and listings with arbitrary cursors.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::format::manifest_decode;
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::segment::Summary;
use crate::format::{INDEX_FILE, MANIFEST_FILE, segment_file};
use crate::storage::MemStorage;
use crate::testing::input::Input;
use crate::testing::repair;
use crate::{Error, List, Maintenance, ManualClock, Namespace, PutOptions, ReadMode, RecoveryReport, Result, Store};

const DIRECTORY: &str = "/store";
const NOW_MS: u64 = 1_700_000_000_000;

pub(super) type Listing = BTreeMap<(String, Vec<u8>), Vec<u8>>;

/// A closed store: its files, its content, and every pair of key and value ever written to it.
pub(super) struct Prepared {
    files: Vec<(PathBuf, Vec<u8>)>,
    pub(super) manifest: Manifest,
    pub(super) listing: Listing,
    written: Vec<(Vec<u8>, Vec<u8>)>,
}

fn open(disk: &MemStorage, mode: ReadMode) -> Result<Store> {
    Store::options()
        .segment_bytes(4096)
        .maintenance(Maintenance::Manual)
        .read_mode(mode)
        .clock(ManualClock::new(NOW_MS))
        .storage(Arc::new(disk.clone()))
        .open(DIRECTORY)
}

fn listing(store: &Store) -> Result<Listing> {
    let mut listing = Listing::new();
    for info in store.namespaces()? {
        for entry in store.open_namespace(&info.name)?.list().with_values() {
            let entry = entry?;
            let value = entry.value().expect("asked for values").to_vec();
            listing.insert((info.name.clone(), entry.key().to_vec()), value);
        }
    }
    Ok(listing)
}

pub(super) fn prepared() -> &'static Prepared {
    static PREPARED: OnceLock<Prepared> = OnceLock::new();
    PREPARED.get_or_init(|| {
        let disk = MemStorage::new();
        let mut written = Vec::new();
        let mut shown = Listing::new();
        // Two lives, each with its own segment: overwritten, deleted and expired records are in the
        // first.
        for life in 0..2 {
            let store = open(&disk, ReadMode::Map).unwrap();
            let (a, b) = (store.namespace("a").unwrap(), store.namespace("b").unwrap());
            for n in (0..8).filter(|n| life == 0 || n % 2 == 0) {
                let (key, value) = (format!("key {n}"), format!("value {n} of life {life}"));
                let namespace = if n % 4 < 2 { &a } else { &b };
                let options = match n {
                    3 => PutOptions::new().metadata("metadata"),
                    4 if life == 0 => PutOptions::new().expires_at_ms(NOW_MS + 1),
                    5 => PutOptions::new().expires_at_ms(u64::MAX),
                    _ => PutOptions::new(),
                };
                namespace.put_with(&key, &value, options).unwrap();
                written.push((key.into_bytes(), value.into_bytes()));
            }
            a.delete("key 1").unwrap();
            shown = listing(&store).unwrap();
            store.close().unwrap();
        }
        let read = |path: PathBuf| {
            let bytes = disk.read_file(&path).unwrap();
            (path, bytes)
        };
        let manifest = disk.read_file(Path::new(DIRECTORY).join(MANIFEST_FILE)).unwrap();
        Prepared {
            files: disk.files(DIRECTORY).into_iter().map(read).collect(),
            manifest: Manifest::decode(&manifest).unwrap(),
            listing: shown,
            written,
        }
    })
}

impl Prepared {
    /// The store with other content in the file of this name.
    pub(super) fn with(&self, name: &str, content: &[u8]) -> MemStorage {
        let disk = MemStorage::new();
        crate::storage::Storage::create_directory(&disk, Path::new(DIRECTORY)).unwrap();
        let replaced = Path::new(DIRECTORY).join(name);
        for (path, bytes) in self.files.iter().filter(|(path, _)| *path != replaced) {
            disk.write_file(path, bytes).unwrap();
        }
        disk.write_file(replaced, content).unwrap();
        disk
    }

    /// The same, without the index file, which would make opening skip all other files.
    pub(super) fn with_log(&self, name: &str, content: &[u8]) -> MemStorage {
        let disk = self.with(name, content);
        remove_index_file(&disk);
        disk
    }

    /// The content of the file of this name.
    pub(super) fn file(&self, name: &str) -> &[u8] {
        let path = Path::new(DIRECTORY).join(name);
        let (_, bytes) = self.files.iter().find(|(file, _)| *file == path).unwrap();
        bytes
    }

    /// The store's first segment.
    pub(super) fn segment(&self) -> (u64, Summary, &[u8]) {
        let entry = &self.manifest.segments[0];
        let SegmentState::Sealed(summary) = entry.state else {
            panic!("after a close everything is sealed");
        };
        (entry.id, summary, self.file(&segment_file(entry.id)))
    }

    /// Asserts that all content shown was once written.
    pub(super) fn check_written(&self, shown: &Listing) {
        for ((name, key), value) in shown {
            let known = self
                .written
                .iter()
                .any(|(written_key, written)| written_key == key && written == value);
            assert!(known, "{name}/{} was never written", key.escape_ascii());
        }
    }
}

/// Removes the index file, so that opening reads the log: hints or records.
pub(super) fn remove_index_file(disk: &MemStorage) {
    let path = Path::new(DIRECTORY).join(INDEX_FILE);
    if disk.files(DIRECTORY).contains(&path) {
        disk.remove_file(path).unwrap();
    }
}

/// The content of the store.
pub(super) fn shown(disk: &MemStorage, mode: ReadMode) -> Result<Listing> {
    opened(disk, mode).map(|(shown, _)| shown)
}

/// Opens the store and returns its content and the recovery report. Reported damage is a valid
/// outcome too; any other error panics.
pub(super) fn opened(disk: &MemStorage, mode: ReadMode) -> Result<(Listing, RecoveryReport)> {
    let shown = open(disk, mode).and_then(|store| {
        let (shown, report) = (listing(&store)?, store.recovery_report().clone());
        store.close()?;
        Ok((shown, report))
    });
    if let Err(error) = &shown {
        assert!(
            matches!(error, Error::Corruption { .. } | Error::NewerFormat { .. }),
            "not an error that names the damage: {error}"
        );
    }
    shown
}

/// A manifest, alone and in a store: the store opens or reports the damage, and never shows content
/// that was not written.
pub fn manifest_load(data: &[u8]) {
    manifest_decode(data);
    let mut input = Input::new(data);
    let mode = input.u8();
    input.bytes(6);
    let mut bytes = input.rest().to_vec();
    let prepared = prepared();
    if mode & 4 != 0 && bytes.len() >= 28 {
        bytes[12..28].copy_from_slice(&prepared.manifest.store_id);
    }
    if mode & 8 != 0 {
        adopt_summaries(&mut bytes, &prepared.manifest);
    }
    match mode & 3 {
        0 => {}
        1 => repair::manifest_envelope(&mut bytes),
        _ => repair::manifest(&mut bytes),
    }
    let disk = prepared.with_log(MANIFEST_FILE, &bytes);
    let read_mode = if mode & 16 == 0 { ReadMode::Map } else { ReadMode::Pread };
    if let Ok(listing) = shown(&disk, read_mode) {
        prepared.check_written(&listing);
        // Once from the index file that closing has left, and once from the log.
        for _ in 0..2 {
            assert_eq!(
                shown(&disk, read_mode).unwrap(),
                listing,
                "opened again, it shows something else"
            );
            remove_index_file(&disk);
        }
    }
}

/// Gives the sealed segments that the manifest lists under known ids their true summaries.
fn adopt_summaries(bytes: &mut [u8], truth: &Manifest) {
    let mut at = 64;
    while let Some(entry) = bytes.get_mut(at..) {
        let Some((id, rest)) = entry.split_first_chunk_mut::<8>() else {
            return;
        };
        let known = truth.segments.iter().find(|known| known.id.to_le_bytes() == *id);
        at += match rest.split_first_mut() {
            Some((2 | 3, summary)) => {
                if let (Some(SegmentState::Sealed(known)), Some(summary)) =
                    (known.map(|known| known.state), summary.first_chunk_mut())
                {
                    *summary = known.encode();
                }
                85
            }
            _ => 9,
        };
    }
}

/// Keys of the store for listings.
const LISTED: [&str; 7] = ["a", "ab", "abc", "b", "ba", "user-1", "user-2"];

/// A listing of those keys, and what it was asked for.
struct Asked {
    list: List,
    lower: Bound<&'static str>,
    upper: Bound<&'static str>,
    prefix: &'static str,
    reverse: bool,
}

impl Asked {
    fn of(namespace: &Namespace, mode: u8, input: &mut Input<'_>) -> Asked {
        let (low, high) = (input.choose(&LISTED), input.choose(&LISTED));
        let mut list = namespace.list().page_size(1 + input.below(3));
        let (mut lower, mut upper, mut prefix) = (Bound::Unbounded, Bound::Unbounded, "");
        if mode & 1 != 0 {
            prefix = &low[..1];
            list = list.prefix(prefix);
        }
        match mode >> 1 & 3 {
            1 => {
                lower = Bound::Included(low);
                list = list.start(low);
            }
            2 => {
                lower = Bound::Excluded(low);
                list = list.start_after(low);
            }
            _ => {}
        }
        if mode & 8 != 0 {
            upper = Bound::Excluded(high);
            list = list.end(high);
        }
        let reverse = mode & 16 != 0;
        if reverse {
            list = list.reverse();
        }
        Asked {
            list,
            lower,
            upper,
            prefix,
            reverse,
        }
    }

    /// The keys that it lists behind this one.
    fn expected_behind(&self, after: &[u8]) -> Vec<&'static str> {
        let in_bounds = |key: &&&str| {
            let goes_on = if self.reverse {
                key.as_bytes() < after
            } else {
                key.as_bytes() > after
            };
            let low = match self.lower {
                Bound::Included(low) => ***key >= *low,
                Bound::Excluded(low) => ***key > *low,
                Bound::Unbounded => true,
            };
            let high = !matches!(self.upper, Bound::Excluded(high) if ***key >= *high);
            goes_on && low && high && key.starts_with(self.prefix)
        };
        let mut expected: Vec<&str> = LISTED.iter().filter(in_bounds).copied().collect();
        if self.reverse {
            expected.reverse();
        }
        expected
    }

    /// The cursor belongs to no other listing, and is refused if a character of it is wrong.
    fn check_cursor(&self, namespace: &Namespace, text: &str) {
        let other = if self.reverse {
            namespace.list()
        } else {
            namespace.list().reverse()
        };
        assert!(
            matches!(other.cursor(text).page(), Err(Error::InvalidCursor)),
            "accepted by a listing that it does not belong to"
        );
        for index in [0, text.len() / 2, text.len() - 1] {
            let mut wrong = text.as_bytes().to_vec();
            wrong[index] = if wrong[index] == b'A' { b'B' } else { b'A' };
            let wrong = String::from_utf8(wrong).expect("a cursor is ASCII");
            assert!(
                self.list.decode_cursor(&wrong).is_err(),
                "{wrong} is accepted as {text} is"
            );
        }
    }
}

/// An arbitrary cursor of a listing: either it is refused, or the listing resumes exactly behind
/// its key.
pub fn cursor(data: &[u8]) {
    static STORE: OnceLock<Store> = OnceLock::new();
    let store = STORE.get_or_init(|| {
        let store = open(&MemStorage::new(), ReadMode::Map).unwrap();
        let namespace = store.create_namespace_with_id("listed", 7).unwrap();
        for key in LISTED {
            namespace.put(key, "v").unwrap();
        }
        store
    });
    let namespace = store.open_namespace("listed").unwrap();
    let mut input = Input::new(data);
    let mode = input.u8();
    let asked = Asked::of(&namespace, mode, &mut input);
    let list = &asked.list;
    // The input as it is, or the cursor that this listing would return for that key.
    let text = if mode & 32 == 0 {
        String::from_utf8_lossy(input.rest()).into_owned()
    } else {
        list.encode_cursor(input.rest())
    };
    if text.is_empty() {
        return;
    }
    let page = list.clone().cursor(text.clone()).page();
    let Ok(after) = list.decode_cursor(&text) else {
        assert!(matches!(page, Err(Error::InvalidCursor)), "{page:?}");
        return;
    };
    assert_eq!(list.encode_cursor(&after), text, "two cursors for the same place");
    asked.check_cursor(&namespace, &text);
    // All pages from there on.
    let mut found = Vec::new();
    let mut page = page.expect("a cursor of this listing");
    loop {
        found.extend(page.iter().map(|entry| entry.key_str().unwrap().to_owned()));
        match page.cursor() {
            Some(next) => page = list.clone().cursor(next).page().unwrap(),
            None => break,
        }
    }
    assert_eq!(found, asked.expected_behind(&after));
}
