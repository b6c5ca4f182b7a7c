//! Storage that fails: what is refused, what goes on, and that nothing acknowledged is lost.

mod common;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use common::{DIRECTORY, class, file_names, keys, manual, open, text};
use embercask::storage::{
    CutPolicy, Fault, FaultKind, FaultStorage, Map, MemStorage, Operation, Storage, StorageFile, StorageLock,
};
use embercask::{Condition, Durability, Error, ErrorKind, Maintenance, Namespace, ReadMode, Result, Store};

const FAILED: FaultKind = FaultKind::Error(io::ErrorKind::Other);

/// A store on a disk that can be made to fail, with one key in it.
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

/// Reads go on, and every kind of write is refused and says what to do.
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

/// B20: the sync works again at once, but what it would say is not to be trusted.
#[test]
fn after_a_failed_sync_writes_are_refused_until_the_store_is_opened_again() {
    for read_mode in [ReadMode::Map, ReadMode::Pread] {
        let disk = MemStorage::new();
        let faults = FaultStorage::new(Arc::new(disk.clone()));
        let options = || manual(Arc::new(faults.clone())).read_mode(read_mode);
        let store = options().open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        namespace.put("key", "old").unwrap();
        faults.inject(on_segments(FaultKind::FailedSync, Operation::Sync));
        assert_eq!(kind(namespace.put("unsure", "1")), ErrorKind::Io);
        poisoned(&store, &namespace);
        assert_eq!(kind(store.close()), ErrorKind::Poisoned);
        // The handle that is left keeps nobody out.
        let store = options().open(DIRECTORY).unwrap();
        let namespace = store.open_namespace("N").unwrap();
        assert_eq!(text(&namespace, "key").as_deref(), Some("old"));
        namespace.put("key", "new").unwrap();
        let seen = keys(&namespace);
        let cut = open(&disk.power_cut(&CutPolicy::LoseUnsynced));
        let namespace = cut.open_namespace("N").unwrap();
        assert_eq!(text(&namespace, "key").as_deref(), Some("new"));
        assert_eq!(keys(&namespace), seen);
    }
}

#[test]
fn a_failed_sync_is_told_to_everybody_who_waited_for_it() {
    let (_disk, faults, store, namespace) = world();
    faults.inject(on_segments(FaultKind::FailedSync, Operation::Sync).repeated());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let namespace = namespace.clone();
            scope.spawn(move || {
                for n in 0..20 {
                    let error = namespace.put(format!("{thread} {n}"), "1").unwrap_err();
                    assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::Poisoned), "{error}");
                }
            });
        }
    });
    faults.clear();
    assert_eq!(kind(namespace.put("other", "1")), ErrorKind::Poisoned);
    assert!(store.stats().poisoned.is_some());
}

#[test]
fn a_failed_sync_of_the_directory_poisons_too() {
    let (disk, faults, store, namespace) = world();
    faults.inject(
        Fault::new(FaultKind::FailedSync)
            .on(Operation::SyncDirectory)
            .at(faults.steps() + 1),
    );
    let error = (0..20)
        .find_map(|n| namespace.put(format!("filler {n}"), [7; 1_000]).err())
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::Io);
    // It fails for the new segment, which is not needed, or for the manifest that lists it, which is.
    let acknowledged = keys(&namespace);
    drop((store, namespace));
    let store = open(&disk);
    assert_eq!(keys(&store.open_namespace("N").unwrap()), acknowledged);
}

/// Numbers that must be as they were once everything of a failed write has been taken back.
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

/// B23: nothing, a part, or all but the last byte gets to the disk before the write fails.
#[test]
fn a_write_that_failed_halfway_is_taken_back_and_the_next_one_works() {
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
            let batch = store
                .batch()
                .put(n, "new", [7; 300])
                .delete(n, "key")
                .put(n, "other", "1");
            batch.put(n, "new", [7; 100]).delete(n, "absent").commit().map(drop)
        }),
    ];
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
                    // The part was the whole.
                    Ok(()) if part >= Some(70) => continue,
                    result => assert_eq!(kind(result), ErrorKind::Io, "{context}"),
                }
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
                assert_eq!(keys(&killed), ["key"], "{context}: what is on disk was taken back, too");
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
        assert_eq!(keys(&namespace), ["buffered"], "they were acknowledged");
    }
    // Somebody else's failure takes back what that one wrote, and nothing more.
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
        // Sealing is nobody's write: it is done later, and what went wrong is in the stats.
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

/// A closing that failed leaves something to be written, synced or sealed. Whoever has kept a handle must not do it in a directory that
/// somebody else has by now.
#[test]
fn a_handle_left_over_from_a_failed_close_leaves_the_directory_to_the_next() {
    for operation in [Operation::Write, Operation::Sync, Operation::Create, Operation::Rename] {
        for skipped in 0..4 {
            let (disk, faults, store, namespace) = world();
            let left_over = store.clone();
            namespace
                .put_with("buffered", "1", class(Durability::Buffered))
                .unwrap();
            for _ in 0..skipped {
                faults.inject(Fault::new(FaultKind::ShortWrite { bytes: 1_000 }).on(Operation::Write));
            }
            faults.inject(Fault::new(FAILED).on(operation).repeated());
            if store.close().is_ok() {
                continue;
            }
            faults.clear();
            let next = open(&disk);
            let next_namespace = next.open_namespace("N").unwrap();
            let operations = disk.operation_count();
            let _ = left_over.compact();
            let _ = left_over.maintain();
            let _ = left_over.compact_subset(u64::MAX);
            let _ = left_over.flush();
            let _ = left_over.sync();
            let _ = namespace.put("key", "lost");
            let _ = left_over.drop_namespace("N");
            drop((left_over, namespace));
            assert_eq!(
                disk.operation_count(),
                operations,
                "{operation:?}: the disk was touched"
            );
            assert_eq!(text(&next_namespace, "key").as_deref(), Some("old"));
            next_namespace.put("key", "new").unwrap();
            next.close().unwrap();
            assert_eq!(
                text(&open(&disk).open_namespace("N").unwrap(), "key").as_deref(),
                Some("new")
            );
        }
    }
}

// A full disk.

const SEGMENT_BYTES: u64 = 64 << 10;

/// A store whose disk is full, what was acknowledged, and how many keys that is.
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

#[track_caller]
fn holds(namespace: &Namespace, expected: &BTreeMap<String, Vec<u8>>) {
    let listed = namespace.list().with_values().into_iter().map(|entry| {
        let entry = entry.unwrap();
        (entry.key_str().unwrap().to_owned(), entry.value().unwrap().to_vec())
    });
    assert!(listed.collect::<BTreeMap<_, _>>() == *expected, "other content");
    for (key, value) in expected {
        assert!(
            namespace.get(key).unwrap().is_some_and(|found| found == *value),
            "{key}"
        );
    }
}

/// A store on a disk that is full, one acknowledged write of class `Buffered` not written out.
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
        let batch = store
            .batch()
            .put(&namespace, "00001", [7; 1_000])
            .delete(&namespace, "00002");
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

/// The way out that the error names: delete, compact, go on. No file is removed by hand, no byte added.
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
                    .unwrap_or_else(|error| panic!("delete of {key}: {error}")),
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

#[test]
fn a_full_disk_with_the_stores_own_threads_hangs_nobody() {
    let (disk, store, namespace, mut acknowledged) = full_disk(Maintenance::Background);
    let written = std::thread::scope(|scope| {
        let write = |thread: usize| {
            let namespace = &namespace;
            // The threads may find room that nobody else has seen; then a put fits after all.
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
        assert!(namespace.delete(&key).unwrap());
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
        // From not a byte to just too few.
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
                namespace.delete(format!("more {n}")).ok();
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

// Opening.

/// How a store was left, its disk, and what it holds.
type Found = (&'static str, MemStorage, BTreeMap<String, Vec<u8>>);

/// Stores as they may be found: closed, and killed with several segments that have no seal.
fn found() -> [Found; 2] {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    let mut content = BTreeMap::new();
    for n in 0..60 {
        let (key, value) = (format!("{:02}", n % 25), vec![n as u8; 200]);
        let durability = if n < 40 { Durability::Sync } else { Durability::Buffered };
        namespace.put_with(&key, &value, class(durability)).unwrap();
        content.insert(key, value);
    }
    store.flush().unwrap();
    let killed = disk.crash_process();
    store.close().unwrap();
    [("closed", disk, content.clone()), ("killed", killed, content)]
}

/// Files in a directory that are no part of an open or closed store.
fn junk(disk: &MemStorage, store: &Store) -> Vec<PathBuf> {
    let live: Vec<_> = store
        .stats()
        .segments
        .iter()
        .map(|segment| format!("{:016x}", segment.id))
        .collect();
    let own = ["LOCK", "MANIFEST", "RESERVE"];
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

/// B9 and B31: whatever call fails while opening, the answer is all of the content or an error of the right kind, and the next
/// opening finds everything, and no debris.
#[test]
fn opening_fails_cleanly_at_every_step_and_then_works() {
    for (name, found, content) in found() {
        for read_mode in [ReadMode::Map, ReadMode::Pread] {
            for fault in [
                FAILED,
                FaultKind::Full,
                FaultKind::Error(io::ErrorKind::PermissionDenied),
            ] {
                let mut failures = 0;
                for step in 0.. {
                    let disk = found.crash_process();
                    let faults = FaultStorage::new(Arc::new(disk.clone()));
                    faults.inject(Fault::new(fault).at(step));
                    let options = || manual(Arc::new(faults.clone())).read_mode(read_mode);
                    let context = format!("{name}, {read_mode:?}, {fault:?} at step {step}");
                    let opened = options().open(DIRECTORY);
                    let done = faults.steps() <= step;
                    faults.clear();
                    match opened {
                        Ok(store) => holds(&store.open_namespace("N").unwrap(), &content),
                        Err(error) => {
                            failures += 1;
                            assert!(
                                matches!(error.kind(), ErrorKind::Io | ErrorKind::NoSpace),
                                "{context}: {error}"
                            );
                        }
                    }
                    let store = options()
                        .open(DIRECTORY)
                        .unwrap_or_else(|error| panic!("{context}: {error}"));
                    let namespace = store.open_namespace("N").unwrap();
                    holds(&namespace, &content);
                    assert!(junk(&disk, &store).is_empty(), "{context}: {:?}", junk(&disk, &store));
                    namespace.put("new", "1").unwrap();
                    let cut = open(&disk.power_cut(&CutPolicy::LoseUnsynced));
                    assert_eq!(
                        cut.open_namespace("N").unwrap().count().unwrap(),
                        content.len() as u64 + 1,
                        "{context}"
                    );
                    if done {
                        break;
                    }
                }
                assert!(failures > 0 || fault == FaultKind::Full, "{name}: nothing ever failed");
            }
        }
    }
}

#[test]
fn creating_fails_cleanly_at_every_step_and_then_works() {
    for fault in [FAILED, FaultKind::Full, FaultKind::FailedSync] {
        for step in 0.. {
            let disk = MemStorage::new();
            let faults = FaultStorage::new(Arc::new(disk.clone()));
            faults.inject(Fault::new(fault).at(step));
            let first = manual(Arc::new(faults.clone())).open("/a/b/store");
            if let Err(error) = &first {
                assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::NoSpace), "{error}");
            }
            drop(first);
            let done = faults.steps() <= step;
            faults.clear();
            let store = manual(Arc::new(faults)).open("/a/b/store").unwrap();
            store.namespace("N").unwrap().put("key", "1").unwrap();
            let cut = disk.power_cut(&CutPolicy::LoseUnsynced);
            let store = manual(Arc::new(cut)).open("/a/b/store").unwrap();
            assert_eq!(
                text(&store.open_namespace("N").unwrap(), "key").as_deref(),
                Some("1"),
                "step {step}"
            );
            if done {
                break;
            }
        }
    }
}

/// B9: a disk that fails the reads is not an end of the log.
#[test]
fn a_read_error_while_recovering_is_an_io_error_and_not_a_lost_tail() {
    for (name, found, content) in found() {
        for (read_mode, operation) in [
            (ReadMode::Pread, Operation::Read),
            (ReadMode::Map, Operation::Map),
            (ReadMode::Map, Operation::OpenRead),
        ] {
            let faults = FaultStorage::new(Arc::new(found.crash_process()));
            faults.inject(on_segments(FAILED, operation).repeated());
            let options = || manual(Arc::new(faults.clone())).read_mode(read_mode);
            let error = options().open(DIRECTORY).unwrap_err();
            assert!(matches!(error, Error::Io { .. }), "{name}: {error:?}");
            assert!(error.to_string().contains(".segment"), "names the file: {error}");
            faults.clear();
            holds(
                &options().open(DIRECTORY).unwrap().open_namespace("N").unwrap(),
                &content,
            );
        }
    }
}

// Everything, everywhere.

/// What may be read of a key: one value, or one of two after a write that failed.
type Allowed = BTreeMap<String, Vec<Option<String>>>;

fn allow(allowed: &mut Allowed, key: &str, value: Option<&str>, result: &Result<()>) {
    let known = allowed.entry(key.to_owned()).or_insert_with(|| vec![None]);
    if result.is_ok() {
        known.clear();
    }
    known.push(value.map(str::to_owned));
}

#[track_caller]
fn check(namespace: &Namespace, allowed: &Allowed, context: &str) {
    for (key, values) in allowed {
        let found = text(namespace, key);
        assert!(
            values.contains(&found),
            "{context}: {key} is {found:?}, not any of {values:?}"
        );
        assert_eq!(namespace.contains(key).unwrap(), found.is_some(), "{context}: {key}");
    }
    assert_eq!(text(namespace, "a"), text(namespace, "b"), "{context}: half a batch");
    let listed = keys(namespace);
    let there: Vec<_> = allowed
        .keys()
        .filter(|key| text(namespace, key).is_some())
        .cloned()
        .collect();
    assert_eq!(listed, there, "{context}");
    assert_eq!(namespace.count().unwrap(), there.len() as u64, "{context}");
}

/// Writes of all kinds, over several segments and compactions; returns what may be read afterwards.
fn work(store: &Store, namespace: &Namespace) -> Allowed {
    let mut allowed = Allowed::new();
    for n in 0..40 {
        let value = format!("{n} {}", "x".repeat(300));
        let key = format!("key {}", n % 6);
        let result = match n % 10 {
            9 => {
                let result = store.compact().map(drop);
                assert!(
                    !matches!(&result, Err(error) if error.kind() == ErrorKind::Corruption),
                    "{result:?}"
                );
                continue;
            }
            5 => {
                let result = store
                    .batch()
                    .put(namespace, "a", &value)
                    .put(namespace, "b", &value)
                    .commit()
                    .map(drop);
                allow(&mut allowed, "a", Some(&value), &result);
                allow(&mut allowed, "b", Some(&value), &result);
                result
            }
            7 => {
                let result = namespace.delete(&key).map(drop);
                allow(&mut allowed, &key, None, &result);
                result
            }
            _ => {
                let durability = if n % 4 == 0 { Durability::Os } else { Durability::Sync };
                let result = namespace.put_with(&key, &value, class(durability)).map(drop);
                allow(&mut allowed, &key, Some(&value), &result);
                result
            }
        };
        if let Err(error) = result {
            let kinds = [ErrorKind::Io, ErrorKind::NoSpace, ErrorKind::Poisoned];
            assert!(kinds.contains(&error.kind()), "{error}");
        }
        check(namespace, &allowed, "at work");
    }
    allowed
}

#[test]
fn one_failure_anywhere_loses_nothing_acknowledged() {
    for fault in [
        FAILED,
        FaultKind::Full,
        FaultKind::FailedSync,
        FaultKind::ShortWrite { bytes: 30 },
    ] {
        for step in 0.. {
            let (disk, faults, store, namespace) = world();
            namespace.delete("key").unwrap();
            let begin = faults.steps();
            faults.inject(Fault::new(fault).at(begin + step));
            let allowed = work(&store, &namespace);
            let done = faults.steps() <= begin + step;
            faults.clear();
            let context = format!("{fault:?} at step {step}");
            check(&namespace, &allowed, &context);
            let killed = disk.crash_process();
            check(
                &open(&killed).open_namespace("N").unwrap(),
                &allowed,
                &format!("{context}, killed"),
            );
            let fine = store.stats().poisoned.is_none();
            let seen: Vec<_> = allowed.keys().map(|key| text(&namespace, key)).collect();
            let closed = store.close();
            assert_eq!(closed.is_ok(), fine, "{context}: {closed:?}");
            let store = open(&disk);
            let namespace = store.open_namespace("N").unwrap();
            check(&namespace, &allowed, &format!("{context}, reopened"));
            if fine {
                let found: Vec<_> = allowed.keys().map(|key| text(&namespace, key)).collect();
                assert_eq!(found, seen, "{context}: a close that went well changes nothing");
            }
            assert!(junk(&disk, &store).is_empty(), "{context}: {:?}", junk(&disk, &store));
            if done {
                break;
            }
        }
    }
}

// Threads.

/// Asked before a call; its error is the call's.
type Hook = Arc<dyn Fn(Operation, &Path) -> io::Result<()> + Send + Sync>;

/// A storage that asks before each call that creates or writes a file.
struct Hooked {
    inner: MemStorage,
    hook: Hook,
}

struct HookedFile {
    path: PathBuf,
    inner: Arc<dyn StorageFile>,
    hook: Hook,
}

impl std::fmt::Debug for Hooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooked")
    }
}

impl std::fmt::Debug for HookedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HookedFile")
    }
}

impl Hooked {
    fn file(&self, path: &Path, inner: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        Arc::new(HookedFile {
            path: path.to_owned(),
            inner,
            hook: self.hook.clone(),
        })
    }
}

impl Storage for Hooked {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.inner.create_directory(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        self.inner.list(directory)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        (self.hook)(Operation::Create, path)?;
        Ok(self.file(path, self.inner.create(path)?))
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn StorageFile>> {
        Ok(self.file(path, self.inner.open(path, write)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_directory(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.hard_link(from, to)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.inner.sync_directory(directory)
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn StorageLock>> {
        self.inner.lock(path, owner)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }
}

impl StorageFile for HookedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        (self.hook)(Operation::Write, &self.path)?;
        self.inner.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.inner.set_len(length)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn map(&self, length: u64) -> io::Result<Map> {
        self.inner.map(length)
    }
}

/// B24: the worker dies at its work. Everybody who writes is told, nobody waits for it, and the store can be opened again.
#[test]
fn a_background_thread_that_panics_poisons_the_store_and_hangs_nobody() {
    let disk = MemStorage::new();
    let armed = Arc::new(AtomicBool::new(false));
    let hook_armed = armed.clone();
    let hook = move |operation: Operation, path: &Path| {
        let in_worker = std::thread::current()
            .name()
            .is_some_and(|name| name.starts_with("embercask-"));
        let strikes = operation == Operation::Create && path.extension().is_some_and(|end| end == "hint");
        assert!(
            !(in_worker && strikes && hook_armed.load(Ordering::Relaxed)),
            "injected panic"
        );
        Ok(())
    };
    let storage = Hooked {
        inner: disk.clone(),
        hook: Arc::new(hook),
    };
    let store = manual(Arc::new(storage))
        .maintenance(Maintenance::Background)
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "old").unwrap();
    armed.store(true, Ordering::Relaxed);
    let acknowledged: usize = std::thread::scope(|scope| {
        let write = |thread: usize| {
            let namespace = &namespace;
            // The worker needs a moment to get there; writes fail from then on, or the test does not end.
            move || {
                (0..)
                    .find(|n| namespace.put(format!("{thread} {n}"), [7; 500]).is_err())
                    .unwrap()
            }
        };
        let writers: Vec<_> = (0..4).map(|thread| scope.spawn(write(thread))).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    });
    poisoned(&store, &namespace);
    assert!(store.stats().poisoned.unwrap().contains("panicked"));
    assert_eq!(kind(store.close()), ErrorKind::Poisoned);
    let store = open(&disk);
    let namespace = store.open_namespace("N").unwrap();
    assert!(
        namespace.count().unwrap() > acknowledged as u64,
        "{acknowledged} and the first"
    );
    namespace.put("key", "new").unwrap();
    store.close().unwrap();
}

#[test]
fn failures_in_the_background_are_kept_for_the_stats_and_hang_nobody() {
    for (kind, operation) in [
        (FAILED, Operation::Create),
        (FAILED, Operation::Rename),
        (FaultKind::FailedSync, Operation::Sync),
    ] {
        let disk = MemStorage::new();
        let faults = FaultStorage::new(Arc::new(disk.clone()));
        let options = manual(Arc::new(faults.clone())).maintenance(Maintenance::Background);
        let store = options.open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        faults.inject(Fault::new(kind).on(operation).repeated());
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (store, namespace) = (&store, &namespace);
                scope.spawn(move || {
                    for n in 0..200 {
                        let durability = [Durability::Buffered, Durability::Os, Durability::Sync][n % 3];
                        let result = namespace.put_with(format!("{thread} {n}"), [7; 100], class(durability));
                        if n % 50 == 0 && result.is_err() {
                            let _ = (store.flush(), store.sync(), store.compact());
                        }
                    }
                });
            }
        });
        let seen = keys(&namespace);
        let _ = store.close();
        faults.clear();
        let store = open(&disk);
        let found = keys(&store.open_namespace("N").unwrap());
        assert!(
            found.iter().all(|key| seen.contains(key)),
            "{operation:?}: nothing is invented"
        );
    }
}

/// The write of a namespace's record fails while somebody else is about to write: the record must not stay in the log behind what
/// the other is told. Creating the namespace again must not make two of them.
#[test]
fn a_namespace_whose_creation_failed_can_be_created_again_and_is_one() {
    let disk = MemStorage::new();
    let (armed, (reached, at_write), (go_on, may_go_on)) =
        (Arc::new(AtomicBool::new(false)), mpsc::channel(), mpsc::channel::<()>());
    let may_go_on = std::sync::Mutex::new(may_go_on);
    let hook_armed = armed.clone();
    let hook = move |operation: Operation, path: &Path| {
        let strikes = operation == Operation::Write && path.extension().is_some_and(|end| end == "segment");
        if strikes && hook_armed.swap(false, Ordering::SeqCst) {
            reached.send(()).unwrap();
            may_go_on.lock().unwrap().recv().unwrap();
            return Err(io::Error::other("injected"));
        }
        Ok(())
    };
    let storage = Hooked {
        inner: disk.clone(),
        hook: Arc::new(hook),
    };
    let store = manual(Arc::new(storage)).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "old").unwrap();
    for rename in [false, true] {
        armed.store(true, Ordering::SeqCst);
        std::thread::scope(|scope| {
            let store = &store;
            let failing = scope.spawn(move || {
                if rename {
                    store.rename_namespace("N", "renamed")
                } else {
                    store.create_namespace("created").map(drop)
                }
            });
            at_write.recv().unwrap();
            let buffered = scope.spawn(|| namespace.put_with("buffered", "1", class(Durability::Buffered)));
            go_on.send(()).unwrap();
            assert_eq!(kind(failing.join().unwrap()), ErrorKind::Io);
            buffered.join().unwrap().unwrap();
        });
        // Whoever asks again gets one, whether the failed attempt counts or not.
        let names = || {
            store
                .namespaces()
                .unwrap()
                .into_iter()
                .map(|info| info.name)
                .collect::<Vec<_>>()
        };
        if rename {
            let renamed = store.namespace("renamed").unwrap();
            renamed.put("in renamed", "1").unwrap();
        } else {
            store.namespace("created").unwrap().put("in created", "1").unwrap();
        }
        let known = names();
        let killed = open(&disk.crash_process());
        let found: Vec<_> = killed.namespaces().unwrap().into_iter().map(|info| info.name).collect();
        assert_eq!(found, known, "rename {rename}");
        let (name, key) = if rename {
            ("renamed", "in renamed")
        } else {
            ("created", "in created")
        };
        assert_eq!(
            text(&killed.open_namespace(name).unwrap(), key).as_deref(),
            Some("1"),
            "rename {rename}"
        );
    }
}

// What stays behind. Real files, and what the system says of this process.

/// Open files and maps of this process that lie in this directory.
#[cfg(target_os = "linux")]
fn open_in(directory: &Path) -> Vec<String> {
    let directory = directory.canonicalize().unwrap().display().to_string();
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let descriptors =
        descriptors.filter_map(|entry| Some(std::fs::read_link(entry.ok()?.path()).ok()?.display().to_string()));
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let maps = maps.lines().map(str::to_owned).collect::<Vec<_>>().into_iter();
    descriptors
        .chain(maps)
        .filter(|path| path.contains(&directory))
        .collect()
}

/// B25.
#[test]
#[cfg(target_os = "linux")]
fn opening_and_closing_leaks_no_file_and_no_map() {
    for read_mode in [ReadMode::Map, ReadMode::Pread] {
        let directory = tempfile::tempdir().unwrap();
        for n in 0..100 {
            let options = Store::options()
                .segment_bytes(4096)
                .read_mode(read_mode)
                .durability(Durability::Os);
            let store = options.open(directory.path()).unwrap();
            let namespace = store.namespace("N").unwrap();
            namespace.put(format!("{}", n % 10), [7; 1_500]).unwrap();
            if n % 20 == 19 {
                store.compact().unwrap();
            }
            // Both ways to end: told to, and dropped.
            if n % 2 == 0 {
                store.close().unwrap()
            } else {
                drop(store)
            }
            drop(namespace);
            assert_eq!(open_in(directory.path()), [""; 0], "after {n} times");
        }
        // One that cannot be opened leaves nothing open either.
        let manifest = directory.path().join("MANIFEST");
        std::fs::write(&manifest, "damaged").unwrap();
        for _ in 0..10 {
            Store::open(directory.path()).unwrap_err();
        }
        assert_eq!(open_in(directory.path()), [""; 0]);
    }
}

/// B25: nothing that was compacted away stays on disk, under its name or without one, once nobody reads it.
#[test]
#[cfg(target_os = "linux")]
fn compacted_segments_leave_the_directory_at_once_and_the_disk_with_their_last_reader() {
    for read_mode in [ReadMode::Map, ReadMode::Pread] {
        let directory = tempfile::tempdir().unwrap();
        let options = Store::options()
            .segment_bytes(4096)
            .read_mode(read_mode)
            .maintenance(Maintenance::Manual);
        let store = options.durability(Durability::Os).open(directory.path()).unwrap();
        let namespace = store.namespace("N").unwrap();
        namespace.put("kept", "value").unwrap();
        namespace.put("filler", [7; 4_000]).unwrap();
        store.maintain().unwrap();
        let value = namespace.get("kept").unwrap().unwrap();
        for n in 0..200 {
            namespace.put(format!("{}", n % 5), [n; 500]).unwrap();
        }
        namespace.delete("kept").unwrap();
        store.compact().unwrap();
        let segments = store.stats().segments;
        let mut expected = vec!["LOCK".to_owned(), "MANIFEST".to_owned(), "RESERVE".to_owned()];
        expected.extend(
            segments
                .iter()
                .flat_map(|segment| ["hint", "segment"].map(|end| format!("{:016x}.{end}", segment.id))),
        );
        expected.sort();
        assert_eq!(file_names(directory.path()), expected);
        let deleted = |open: Vec<String>| open.into_iter().filter(|path| path.contains("(deleted)")).count();
        if read_mode == ReadMode::Map {
            assert!(deleted(open_in(directory.path())) > 0, "a value keeps what it lies in");
        }
        assert_eq!(value, "value");
        drop(value);
        assert_eq!(deleted(open_in(directory.path())), 0, "{:?}", open_in(directory.path()));
    }
}

/// Deletes all over the place, until they are refused: what they have freed can still be given back.
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
    let mut count = 0;
    while namespace.put(format!("{count:05}"), [b'v'; 2_000]).is_ok() {
        count += 1;
    }
    assert!(count > 1_000, "{count}");
    for n in (0..count).filter(|n| n % 10 != 0) {
        if let Err(error) = namespace.delete(format!("{n:05}")) {
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            break;
        }
    }
    let report = store.compact().unwrap();
    assert!(report.reclaimed_bytes > 256 << 10, "{report:?}");
    namespace.put("again", "1").unwrap();
}
