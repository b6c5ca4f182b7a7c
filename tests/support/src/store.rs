//! Stores for tests: options without background work, what a store shows, and its files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use embercask::storage::{MemStorage, Storage};
use embercask::{Durability, Error, Maintenance, Namespace, Options, PutOptions, Store};

/// Directory of the tests' stores on a simulated disk.
pub const DIRECTORY: &str = "/store";

/// Small segments, so that rotation, sealing and compaction happen all the time; no background
/// threads. No sync interval either: what a test shows must not depend on how long it takes.
pub fn manual(storage: Arc<dyn Storage>) -> Options {
    Store::options()
        .segment_bytes(4096)
        .maintenance(Maintenance::Manual)
        .sync_interval(None)
        .storage(storage)
}

/// Opens or creates the store on this disk.
#[track_caller]
pub fn open(disk: &MemStorage) -> Store {
    manual(Arc::new(disk.clone())).open(DIRECTORY).unwrap()
}

pub fn class(durability: Durability) -> PutOptions {
    PutOptions::new().durability(durability)
}

/// The value of a key as text.
#[track_caller]
pub fn text(namespace: &Namespace, key: &str) -> Option<String> {
    namespace.get_text(key).unwrap()
}

/// All keys, in listing order.
#[track_caller]
pub fn keys(namespace: &Namespace) -> Vec<String> {
    namespace
        .list()
        .page_size(7)
        .into_iter()
        .map(|entry| entry.unwrap().key_str().unwrap().to_owned())
        .collect()
}

/// Sorted names of the files in a store's directory on a real disk.
pub fn file_names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Sorted files of the store on this disk whose names end with `end`.
pub fn ending(disk: &MemStorage, end: &str) -> Vec<PathBuf> {
    disk.files(DIRECTORY)
        .into_iter()
        .filter(|path| path.to_string_lossy().ends_with(end))
        .collect()
}

/// The bytes of a segment that have been written to: its file may be longer, by zeros. No last byte
/// of a record may be a zero, but for the padding.
pub fn written(disk: &MemStorage, segment: impl AsRef<Path>) -> Vec<u8> {
    let mut bytes = disk.read_file(segment).expect("the segment");
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(used.next_multiple_of(8));
    bytes
}

/// Asserts that the error names a file on this disk and an offset in it.
#[track_caller]
pub fn is_corruption(error: &Error, disk: &MemStorage, context: &str) {
    let Error::Corruption { path, offset, .. } = error else {
        panic!("{context}: {error:?}")
    };
    let length = disk.read_file(path).map_or(0, |bytes| bytes.len() as u64);
    assert!(*offset <= length, "{context}: {error}");
    let says = format!("{} at offset {offset}", path.display());
    assert!(error.to_string().ends_with(&says), "{context}: {error}");
}
