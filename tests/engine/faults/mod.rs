//! Failing storage: what is refused, what keeps working, and that nothing acknowledged is lost.

mod anywhere;
mod closing;
mod full_disk;
#[cfg(target_os = "linux")]
mod left_behind;
mod opening;
mod syncs;
mod threads;
mod writes;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{Durability, ErrorKind, Namespace, Result, Store};

use test_support::{DIRECTORY, class, keys, manual, text};

const FAILED: FaultKind = FaultKind::Error(io::ErrorKind::Other);

/// A store with one key, on a disk with fault injection.
fn world() -> (MemStorage, FaultStorage, Store, Namespace) {
    let disk = MemStorage::new();
    let faults = FaultStorage::new(Arc::new(disk.clone()));
    let store = manual(Arc::new(faults.clone())).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "old").unwrap();
    (disk, faults, store, namespace)
}

fn on_segments(kind: FaultKind, operation: Operation) -> Fault {
    Fault::new(kind).on(operation).path(".segment")
}

#[track_caller]
fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.expect_err("must fail").kind()
}

/// Reads keep working; every kind of write is refused with an error that says what to do.
#[track_caller]
fn poisoned(store: &Store, namespace: &Namespace) {
    assert_eq!(text(namespace, "key").as_deref(), Some("old"));
    assert!(namespace.contains("key").unwrap());
    assert!(namespace.count().unwrap() >= 1);
    assert!(!keys(namespace).is_empty());
    assert!(store.stats().poisoned.is_some());
    let error = namespace.put("other", "1").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Poisoned);
    assert!(error.to_string().contains("close and open the store again"), "{error}");
    assert_eq!(
        kind(namespace.put_with("other", "1", class(Durability::Buffered))),
        ErrorKind::Poisoned
    );
    assert_eq!(kind(namespace.delete("key")), ErrorKind::Poisoned);
    assert_eq!(
        kind(store.batch().put(namespace, "other", "1").commit()),
        ErrorKind::Poisoned
    );
    assert_eq!(kind(store.namespace("M")), ErrorKind::Poisoned);
    assert_eq!(kind(store.drop_namespace("N")), ErrorKind::Poisoned);
    assert_eq!(kind(store.flush()), ErrorKind::Poisoned);
    assert_eq!(kind(store.sync()), ErrorKind::Poisoned);
    assert!(!namespace.contains("other").unwrap());
}

#[track_caller]
fn holds(namespace: &Namespace, expected: &BTreeMap<String, Vec<u8>>) {
    let listed = namespace.list().with_values().into_iter().map(|entry| {
        let entry = entry.unwrap();
        (entry.key_str().unwrap().to_owned(), entry.value().unwrap().to_vec())
    });
    assert!(listed.collect::<BTreeMap<_, _>>() == *expected, "the content differs");
    for (key, value) in expected {
        assert!(
            namespace.get(key).unwrap().is_some_and(|found| found == *value),
            "{key}"
        );
    }
}

/// Files in a directory that do not belong to an open or closed store.
fn junk(disk: &MemStorage, store: &Store) -> Vec<PathBuf> {
    let live: Vec<_> = store
        .stats()
        .segments
        .iter()
        .map(|segment| format!("{:016x}", segment.id))
        .collect();
    let own = ["INDEX", "LOCK", "MANIFEST", "RESERVE"];
    let files = disk.files(DIRECTORY).into_iter();
    let is_junk = |path: &PathBuf| {
        let (name, stem) = (
            path.file_name().unwrap().to_string_lossy(),
            path.file_stem().unwrap().to_string_lossy(),
        );
        !own.contains(&&*name) && !live.contains(&stem.into_owned())
    };
    files.filter(is_junk).collect()
}
