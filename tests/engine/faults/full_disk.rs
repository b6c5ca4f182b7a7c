//! A full disk: puts are refused, deletes and compaction make room, and nothing acknowledged is
//! lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use embercask::storage::{CutPolicy, FaultStorage, MemStorage, Operation};
use embercask::{Durability, ErrorKind, Maintenance, Namespace, Store};

use crate::faults::{FAILED, holds, kind, on_segments};
use test_support::{DIRECTORY, at_least, class, manual, open};

const SEGMENT_BYTES: u64 = 64 << 10;

/// A store on a full disk, with the acknowledged content.
fn full_disk(maintenance: Maintenance) -> (MemStorage, Store, Namespace, BTreeMap<String, Vec<u8>>) {
    let disk = MemStorage::new();
    let options = manual(Arc::new(disk.clone()))
        .segment_bytes(SEGMENT_BYTES)
        .maintenance(maintenance);
    let store = options.open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    disk.set_capacity(Some(1 << 20));
    let mut acknowledged = BTreeMap::new();
    for n in 0.. {
        let (key, value) = (format!("{n:05}"), vec![n as u8; 1_000]);
        match namespace.put(&key, &value) {
            Ok(_) => acknowledged.insert(key, value),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                assert!(error.to_string().contains("delete keys or compact"), "{error}");
                break;
            }
        };
    }
    assert!(acknowledged.len() > 500, "{}", acknowledged.len());
    (disk, store, namespace, acknowledged)
}

/// A store on a full disk, with an acknowledged write of class `Buffered` that is not written out.
fn full_disk_with_a_pending_write() -> (MemStorage, Store, Namespace) {
    let disk = MemStorage::new();
    let store = manual(Arc::new(disk.clone())).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    for n in 0..100 {
        namespace.put(format!("{}", n % 10), [1; 1_000]).unwrap();
    }
    namespace
        .put_with("pending", "value", class(Durability::Buffered))
        .unwrap();
    disk.set_capacity(Some(disk.used()));
    (disk, store, namespace)
}

#[test]
fn closing_on_a_full_disk_writes_out_what_was_acknowledged() {
    let (disk, store, namespace) = full_disk_with_a_pending_write();
    drop(namespace);
    store.close().unwrap();
    let store = manual(Arc::new(disk)).open(DIRECTORY).unwrap();
    assert!(store.recovery_report().clean);
    let namespace = store.open_namespace("N").unwrap();
    assert!(namespace.get("pending").unwrap().is_some());
}

#[test]
fn on_a_full_disk_compaction_works_although_writes_are_pending() {
    let (disk, store, namespace) = full_disk_with_a_pending_write();
    let before = disk.used();
    store.compact().unwrap();
    assert!(disk.used() < before);
    assert!(namespace.get("pending").unwrap().is_some());
}

#[test]
fn on_a_full_disk_puts_are_refused_and_work_again_once_there_is_room() {
    let (disk, store, namespace, mut acknowledged) = full_disk(Maintenance::Manual);
    for attempt in 0..20 {
        assert_eq!(
            kind(namespace.put(format!("more {attempt}"), [7; 1_000])),
            ErrorKind::NoSpace
        );
        assert_eq!(kind(namespace.put("00001", [7; 1_000])), ErrorKind::NoSpace);
        let mut batch = store.batch();
        batch.put(&namespace, "00001", [7; 1_000]).delete(&namespace, "00002");
        assert_eq!(kind(batch.commit()), ErrorKind::NoSpace);
    }
    holds(&namespace, &acknowledged);
    assert_eq!(store.stats().poisoned, None);
    assert!(store.stats().disk_full);
    disk.set_capacity(None);
    for n in 0..100 {
        let (key, value) = (format!("new {n}"), vec![1; 1_000]);
        namespace.put(&key, &value).unwrap();
        acknowledged.insert(key, value);
    }
    assert!(!store.stats().disk_full);
    holds(&namespace, &acknowledged);
    let cut = disk.power_cut(&CutPolicy::LoseUnsynced);
    holds(&open(&cut).open_namespace("N").unwrap(), &acknowledged);
    store.close().unwrap();
    holds(&open(&disk).open_namespace("N").unwrap(), &acknowledged);
}

/// The remedy that the error names: delete, compact, continue. No file is removed by hand, no byte
/// added.
#[test]
fn on_a_full_disk_deleting_and_compacting_makes_room() {
    for pattern in [2, 3, 10] {
        let (disk, store, namespace, mut acknowledged) = full_disk(Maintenance::Manual);
        let doomed: Vec<_> = acknowledged
            .keys()
            .enumerate()
            .filter(|(n, _)| n % pattern != 0)
            .map(|(_, key)| key.clone())
            .collect();
        let doomed: Vec<_> = doomed.into_iter().take(400).collect();
        for key in &doomed {
            assert!(
                namespace
                    .delete(key)
                    .unwrap_or_else(|error| panic!("delete of {key}: {error}"))
                    .existed,
                "{key}"
            );
            acknowledged.remove(key);
        }
        holds(&namespace, &acknowledged);
        let report = store.compact().unwrap();
        assert!(report.reclaimed_bytes > 300_000, "{report:?}");
        holds(&namespace, &acknowledged);
        for n in 0..200 {
            let (key, value) = (format!("new {n}"), vec![1; 1_000]);
            namespace.put(&key, &value).unwrap();
            acknowledged.insert(key, value);
        }
        holds(&namespace, &acknowledged);
        store.close().unwrap();
        holds(&open(&disk).open_namespace("N").unwrap(), &acknowledged);
    }
}

#[test]
fn on_a_full_disk_dropping_a_namespace_makes_room() {
    let (disk, store, namespace, acknowledged) = full_disk(Maintenance::Manual);
    store.drop_namespace("N").unwrap();
    assert_eq!(kind(namespace.get("00001")), ErrorKind::NotFound);
    store.compact().unwrap();
    let namespace = store.namespace("M").unwrap();
    for (key, value) in &acknowledged {
        namespace.put(key, value).unwrap();
    }
    store.close().unwrap();
    let store = open(&disk);
    assert_eq!(store.namespaces().unwrap().len(), 1);
    holds(&store.open_namespace("M").unwrap(), &acknowledged);
}

/// Deletes from all segments until refused; the space they freed can still be reclaimed.
#[test]
fn deletes_leave_enough_of_the_reserve_for_the_compaction_that_they_need() {
    let disk = MemStorage::new();
    let store = manual(Arc::new(disk.clone()))
        .segment_bytes(256 << 10)
        .durability(Durability::Os)
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    disk.set_capacity(Some(4 << 20));
    // Small values, so that their tombstones need more than the reserve.
    let mut count = 0;
    let full = loop {
        match namespace.put(format!("{count:05}"), [b'v'; 250]) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), ErrorKind::NoSpace, "{full}");
    // They would compact themselves.
    store.pause_compaction();
    at_least(10_000, count, "puts that fit");
    let mut deleted = 0;
    let refused = (0..count).filter(|n| n % 10 != 0).find_map(|n| {
        let result = namespace.delete(format!("{n:05}"));
        deleted += u64::from(result.is_ok());
        result.err()
    });
    let refused = refused.expect("deletes must not use up the reserve");
    assert_eq!(refused.kind(), ErrorKind::NoSpace, "{refused}");
    // As many as fit in the part of the reserve that is for them.
    at_least(1_000, deleted, "deletes before they were refused");
    let report = store.compact().unwrap();
    assert!(report.reclaimed_bytes > 256 << 10, "{report:?}");
    namespace.put("again", "1").unwrap();
}

#[test]
fn a_full_disk_with_the_stores_own_threads_hangs_nobody() {
    let (disk, store, namespace, mut acknowledged) = full_disk(Maintenance::Background);
    let written = std::thread::scope(|scope| {
        let write = |thread: usize| {
            let namespace = &namespace;
            // Background threads may free space that was invisible to others; then a put fits after
            // all.
            let put = move |n| {
                let key = format!("more {thread} {n}");
                match namespace.put(&key, [7; 1_000]) {
                    Ok(_) => Some((key, vec![7; 1_000])),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                        None
                    }
                }
            };
            move || (0..50).filter_map(put).collect::<Vec<_>>()
        };
        let writers: Vec<_> = (0..4).map(|thread| scope.spawn(write(thread))).collect();
        writers
            .into_iter()
            .flat_map(|writer| writer.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert!(written.len() < 100, "the disk was not full");
    acknowledged.extend(written);
    holds(&namespace, &acknowledged);
    for n in 0..100 {
        let key = format!("{n:05}");
        assert!(namespace.delete(&key).unwrap().existed);
        acknowledged.remove(&key);
    }
    disk.set_capacity(None);
    namespace.put("new", [1; 10]).unwrap();
    acknowledged.insert("new".to_owned(), vec![1; 10]);
    store.close().unwrap();
    holds(&open(&disk).open_namespace("N").unwrap(), &acknowledged);
}

#[test]
fn a_killed_store_opens_on_a_full_disk_and_shows_everything() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    let mut acknowledged = BTreeMap::new();
    for n in 0..100 {
        let (key, value) = (format!("{n:05}"), vec![n as u8; 300]);
        namespace.put_with(&key, &value, class(Durability::Os)).unwrap();
        acknowledged.insert(key, value);
    }
    for reserve in [true, false] {
        let killed = disk.crash_process();
        if !reserve {
            killed.remove_file(format!("{DIRECTORY}/RESERVE")).unwrap();
        }
        // From no space at all to slightly too little.
        for room in [0, 100, 1_000, 4_000, 8_000] {
            let killed = killed.crash_process();
            killed.set_capacity(Some(killed.used() + room));
            let store = open(&killed);
            let namespace = store.open_namespace("N").unwrap();
            holds(&namespace, &acknowledged);
            let full = (0..40)
                .find_map(|n| namespace.put(format!("more {n}"), [7; 1_000]).err())
                .unwrap();
            assert_eq!(full.kind(), ErrorKind::NoSpace, "{full}");
            for n in 0..40 {
                if let Err(error) = namespace.delete(format!("more {n}")) {
                    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                }
            }
            killed.set_capacity(None);
            for n in 0..40 {
                namespace.delete(format!("more {n}")).unwrap();
            }
            holds(&namespace, &acknowledged);
            namespace.put("new", "1").unwrap();
            namespace.delete("new").unwrap();
            holds(
                &open(&killed.power_cut(&CutPolicy::LoseUnsynced))
                    .open_namespace("N")
                    .unwrap(),
                &acknowledged,
            );
            store.close().unwrap();
            holds(&open(&killed).open_namespace("N").unwrap(), &acknowledged);
        }
    }
}

/// Too many open files when the first write finishes the recovery: nothing changes, and the next
/// write finishes it.
#[test]
fn a_recovery_that_a_full_disk_put_off_and_that_cannot_open_a_file_is_tried_again() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    let mut acknowledged = BTreeMap::new();
    for n in 0..6 {
        let (key, value) = (format!("{n:05}"), vec![n as u8; 300]);
        // The first ones are durable in place and marked; the others must be rewritten.
        let durability = if n < 3 { Durability::Sync } else { Durability::Os };
        namespace.put_with(&key, &value, class(durability)).unwrap();
        acknowledged.insert(key, value);
    }
    let killed = disk.crash_process();
    killed.remove_file(format!("{DIRECTORY}/RESERVE")).unwrap();
    killed.set_capacity(Some(killed.used()));
    let faults = FaultStorage::new(Arc::new(killed.clone()));
    let store = manual(Arc::new(faults.clone())).open(DIRECTORY).unwrap();
    let namespace = store.open_namespace("N").unwrap();
    killed.set_capacity(None);
    faults.inject(on_segments(FAILED, Operation::OpenRead));
    assert_eq!(kind(namespace.put("new", "1")), ErrorKind::Io);
    assert_eq!(faults.struck(), 1);
    holds(&namespace, &acknowledged);
    namespace.put("new", "1").unwrap();
    acknowledged.insert("new".to_owned(), b"1".to_vec());
    holds(&namespace, &acknowledged);
    let report = store.verify().unwrap();
    assert!(report.is_sound(), "{report:?}");
    store.compact().unwrap();
    store.close().unwrap();
    holds(&open(&killed).open_namespace("N").unwrap(), &acknowledged);
}
