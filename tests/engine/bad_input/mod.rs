//! Wrong calls and wrong directories: each is refused with a message that says what to do, and
//! nothing changes.

mod conditions;
mod directories;
mod in_use;
mod limits;
mod listings;
mod namespaces;
mod options;
mod order;

use std::sync::Arc;

use embercask::storage::MemStorage;
use embercask::{Error, ErrorKind, Limits, ManualClock, Namespace, Result, Store};

use test_support::{DIRECTORY, keys, manual, text};

const NOW_MS: u64 = 2_000_000_000_000;

/// A store with these limits and one key.
fn limited(limits: Limits) -> (Store, Namespace) {
    let store = manual(Arc::new(MemStorage::new()))
        .limits(limits)
        .clock(ManualClock::new(NOW_MS))
        .segment_bytes(1 << 20)
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "value").unwrap();
    (store, namespace)
}

/// Asserts that it was refused with this kind and a message that contains all of these texts.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind, says: &[&str]) -> Error {
    let error = result.expect_err("must be refused");
    assert_eq!(error.kind(), kind, "{error}");
    for part in says {
        assert!(error.to_string().contains(part), "{error:?} says: {error}\nnot: {part}");
    }
    error
}

#[track_caller]
fn invalid<T: std::fmt::Debug>(result: Result<T>, says: &[&str]) {
    refused(result, ErrorKind::InvalidInput, says);
}

/// Only the one key exists, and the store works.
#[track_caller]
fn unharmed(store: &Store, namespace: &Namespace) {
    assert_eq!(keys(namespace), ["key"]);
    assert_eq!(text(namespace, "key").as_deref(), Some("value"));
    assert_eq!(store.stats().poisoned, None);
    namespace.put("another", "1").unwrap();
    assert!(namespace.delete("another").unwrap().existed);
}

/// Contents of all files.
fn contents(disk: &MemStorage) -> Vec<(String, Vec<u8>)> {
    let files = disk.files(DIRECTORY);
    files
        .iter()
        .map(|path| (path.display().to_string(), disk.read_file(path).unwrap()))
        .collect()
}
