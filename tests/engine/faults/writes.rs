//! A failed write: it is rolled back completely, and the next one works.

use std::sync::Arc;

use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{Condition, Durability, ErrorKind, Namespace, Result, Store};

use crate::faults::{FAILED, kind, on_segments, world};
use test_support::{DIRECTORY, at_least, class, keys, manual, open, text};

/// Numbers that must be unchanged once a failed write was rolled back.
fn counts(store: &Store) -> (u64, u64, u64, u64, u64) {
    let stats = store.stats();
    (
        stats.keys,
        stats.live_bytes,
        stats.dead_bytes,
        stats.tombstone_bytes,
        stats.pending_bytes,
    )
}

/// B23: nothing, a part, or all but the last byte is written before the write fails.
#[test]
fn a_write_that_failed_halfway_is_rolled_back_and_the_next_one_works() {
    type Write = fn(&Store, &Namespace) -> Result<()>;
    let writes: [(&str, Write); 6] = [
        ("put of a new key", |_, n| n.put("new", [7; 500]).map(drop)),
        ("overwrite", |_, n| n.put("key", [7; 500]).map(drop)),
        ("overwrite with expiry and metadata", |_, n| {
            let ttl = std::time::Duration::from_secs(100);
            n.put_with("key", [7; 500], embercask::PutOptions::new().ttl(ttl).metadata("m"))
                .map(drop)
        }),
        ("delete", |_, n| n.delete("key").map(drop)),
        ("conditional put", |_, n| {
            n.put_if("new", [7; 500], Condition::Absent).map(drop)
        }),
        ("batch", |store, n| {
            let mut batch = store.batch();
            batch.put(n, "new", [7; 300]).delete(n, "key").put(n, "other", "1");
            batch.put(n, "new", [7; 100]).delete(n, "absent").commit().map(drop)
        }),
    ];
    let mut failed = 0;
    for (name, write) in writes {
        for durability in [Durability::Os, Durability::Sync] {
            for part in [None, Some(0), Some(1), Some(8), Some(24), Some(70), Some(100_000)] {
                let disk = MemStorage::new();
                let faults = FaultStorage::new(Arc::new(disk.clone()));
                let store = manual(Arc::new(faults.clone()))
                    .durability(durability)
                    .open(DIRECTORY)
                    .unwrap();
                let namespace = store.namespace("N").unwrap();
                namespace.put("key", "old").unwrap();
                store.maintain().unwrap();
                let before = counts(&store);
                if let Some(bytes) = part {
                    faults.inject(on_segments(FaultKind::ShortWrite { bytes }, Operation::Write));
                }
                if part != Some(0) {
                    let step = faults.steps() + u64::from(part.is_some());
                    faults.inject(on_segments(FAILED, Operation::Write).at(step));
                }
                let context = format!("{name}, {durability:?}, after {part:?} bytes");
                match write(&store, &namespace) {
                    // The part was the whole write.
                    Ok(()) if part >= Some(70) => continue,
                    result => assert_eq!(kind(result), ErrorKind::Io, "{context}"),
                }
                failed += 1;
                store.maintain().unwrap();
                assert_eq!(counts(&store), before, "{context}");
                assert_eq!(keys(&namespace), ["key"], "{context}");
                let value = namespace.get("key").unwrap().unwrap();
                assert_eq!(
                    (value.as_bytes(), value.expiry_ms(), value.metadata()),
                    (&b"old"[..], None, None),
                    "{context}"
                );
                assert!(
                    !namespace.contains("new").unwrap() && !namespace.contains("other").unwrap(),
                    "{context}"
                );
                let killed = open(&disk.crash_process()).open_namespace("N").unwrap();
                assert_eq!(keys(&killed), ["key"], "{context}: the roll-back on disk is incomplete");
                namespace.put("later", "1").unwrap();
                write(&store, &namespace).unwrap();
                let written = keys(&namespace);
                let killed = open(&disk.crash_process()).open_namespace("N").unwrap();
                assert_eq!(keys(&killed), written, "{context}");
                drop((store, namespace));
                let store = open(&disk);
                assert!(store.recovery_report().clean, "{context}");
                assert_eq!(keys(&store.open_namespace("N").unwrap()), written, "{context}");
            }
        }
    }
    at_least(60, failed, "writes failed halfway");
}

#[test]
fn a_failed_write_whose_rest_cannot_be_cut_off_poisons() {
    let (disk, faults, store, namespace) = world();
    faults.inject(on_segments(FaultKind::ShortWrite { bytes: 10 }, Operation::Write));
    faults.inject(on_segments(FAILED, Operation::Write).at(faults.steps() + 1));
    faults.inject(on_segments(FAILED, Operation::SetLen));
    assert_eq!(kind(namespace.put("unsure", "1")), ErrorKind::Io);
    assert_eq!(kind(namespace.put("other", "1")), ErrorKind::Poisoned);
    assert!(store.stats().poisoned.unwrap().contains("cut back"));
    assert_eq!(text(&namespace, "key").as_deref(), Some("old"));
    drop((store, namespace));
    let store = open(&disk);
    let namespace = store.open_namespace("N").unwrap();
    assert_eq!(text(&namespace, "key").as_deref(), Some("old"));
    namespace.put("other", "1").unwrap();
    assert_eq!(
        keys(&open(&disk.crash_process()).open_namespace("N").unwrap()),
        keys(&namespace)
    );
}

#[test]
fn buffered_writes_that_could_not_be_flushed_stay_and_are_flushed_later() {
    let (disk, faults, store, namespace) = world();
    namespace
        .put_with("buffered", "1", class(Durability::Buffered))
        .unwrap();
    namespace.delete_with("key", None, Some(Durability::Buffered)).unwrap();
    for _ in 0..3 {
        faults.inject(on_segments(FaultKind::ShortWrite { bytes: 20 }, Operation::Write));
        faults.inject(on_segments(FAILED, Operation::Write).at(faults.steps() + 1));
        assert_eq!(kind(store.flush()), ErrorKind::Io);
        assert_eq!(keys(&namespace), ["buffered"], "acknowledged writes are missing");
    }
    // The failure of another write rolls back only that write.
    faults.inject(on_segments(FAILED, Operation::Write));
    assert_eq!(kind(namespace.put("buffered", "2")), ErrorKind::Io);
    assert_eq!(text(&namespace, "buffered").as_deref(), Some("1"));
    namespace.put("later", "1").unwrap();
    let killed = open(&disk.crash_process()).open_namespace("N").unwrap();
    assert_eq!(keys(&killed), ["buffered", "later"]);
    assert_eq!(text(&killed, "buffered").as_deref(), Some("1"));
}

#[test]
fn too_many_open_files_fail_one_write_and_not_the_next() {
    for operation in [Operation::Create, Operation::OpenRead, Operation::Write] {
        let (disk, faults, store, namespace) = world();
        let mut failures = 0;
        for n in 0..60 {
            if n % 7 == 0 {
                faults.inject(Fault::new(FAILED).on(operation));
            }
            let key = format!("{n:02}");
            match namespace.put(&key, [7; 1_000]) {
                Ok(_) => assert!(namespace.contains(&key).unwrap()),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
                    assert!(!namespace.contains(&key).unwrap(), "{key}");
                    namespace.put(&key, [7; 1_000]).unwrap();
                    failures += 1;
                }
            }
        }
        at_least(4, faults.struck(), &format!("failed calls, {operation:?}"));
        // Sealing belongs to no write: it is done later, and its error is in the stats.
        assert!(
            failures > 0 || store.stats().background_error.is_some(),
            "{operation:?}"
        );
        faults.clear();
        store.maintain().unwrap();
        let written = keys(&namespace);
        assert_eq!(written.len(), 61);
        store.close().unwrap();
        let store = open(&disk);
        assert!(store.recovery_report().clean);
        assert_eq!(keys(&store.open_namespace("N").unwrap()), written);
    }
}
