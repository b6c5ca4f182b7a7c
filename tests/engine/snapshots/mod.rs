//! Snapshots: the store of one moment, whatever happens after it.

mod against_model;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use embercask::storage::{CutPolicy, Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{Durability, ErrorKind, Namespace, PutOptions, ReadMode, Snapshot, Store};
use test_support::StopOnDrop;
use test_support::hooked::Hooked;
use test_support::{class, manual, open, until};

fn fill(namespace: &Namespace, tag: &str, count: usize) {
    for number in 0..count {
        namespace
            .put(
                format!("key {number:03}"),
                format!("{tag} {number} {}", "x".repeat(100)),
            )
            .unwrap();
    }
}

/// What a snapshot shows of a namespace.
fn shown(snapshot: &Snapshot, namespace: &Namespace) -> Vec<(String, Vec<u8>)> {
    let list = snapshot.list(namespace).unwrap().with_values().page_size(7);
    let entries = list.into_iter().map(|entry| {
        let entry = entry.unwrap();
        let value = entry.value().unwrap().to_vec();
        (entry.key_str().unwrap().to_owned(), value)
    });
    entries.collect()
}

#[test]
fn a_snapshot_shows_its_moment_after_overwrites_deletes_and_compaction() {
    for mode in [ReadMode::Map, ReadMode::Pread] {
        let disk = MemStorage::new();
        let store = manual(Arc::new(disk.clone())).read_mode(mode).open("/store").unwrap();
        let namespace = store.namespace("N").unwrap();
        fill(&namespace, "old", 100);
        let snapshot = store.snapshot().unwrap();
        let before = shown(&snapshot, &namespace);
        assert_eq!(before.len(), 100);
        fill(&namespace, "new", 50);
        for number in 50..75 {
            namespace.delete(format!("key {number:03}")).unwrap();
        }
        fill(&namespace, "newer", 20);
        namespace.put("later", "x").unwrap();
        store.maintain().unwrap();
        store.compact().unwrap();
        assert!(store.stats().compaction.runs > 0);
        assert_eq!(shown(&snapshot, &namespace), before, "{mode:?}");
        assert_eq!(snapshot.count(&namespace).unwrap(), 100);
        assert!(!snapshot.contains(&namespace, "later").unwrap());
        let keys: Vec<_> = before.iter().map(|(key, _)| key).collect();
        let values = snapshot.get_many(&namespace, &keys).unwrap();
        for ((_, before), value) in before.iter().zip(values) {
            assert_eq!(*value.unwrap(), **before);
        }
        assert_eq!(namespace.count().unwrap(), 76);
        assert_eq!(&namespace.get("key 000").unwrap().unwrap()[..5], b"newer");
    }
}

#[test]
fn what_is_kept_for_snapshots_is_told_and_given_back() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    fill(&namespace, "old", 100);
    assert_eq!(store.stats().snapshots.open, 0);
    let first = store.snapshot().unwrap();
    let second = store.snapshot().unwrap();
    let another = second.clone();
    fill(&namespace, "new", 60);
    fill(&namespace, "newer", 60);
    namespace.delete("key 099").unwrap();
    store.maintain().unwrap();
    store.compact().unwrap();
    let stats = store.stats();
    assert_eq!(stats.snapshots.open, 2);
    // Each record once, although two snapshots need it; and none that no snapshot has seen.
    assert_eq!(stats.snapshots.kept_records, 61);
    assert!(stats.snapshots.memory_bytes > 61 * 40);
    assert!(stats.snapshots.disk_bytes > 61 * 100);
    assert!(stats.space.pinned_bytes >= stats.snapshots.disk_bytes);
    let infos = store.snapshots().unwrap();
    assert_eq!(infos.len(), 2);
    assert_eq!(infos[0].sequence, first.sequence());
    assert_eq!(first.sequence(), second.sequence());
    drop((first, second));
    assert_eq!(store.stats().snapshots.open, 1);
    assert_eq!(another.count(&namespace).unwrap(), 100);
    // A listing holds what it reads.
    let list = another.list(&namespace).unwrap();
    drop(another);
    assert_eq!(store.stats().snapshots.open, 1);
    assert_eq!(list.count().unwrap(), 100);
    drop(list);
    let stats = store.stats();
    assert_eq!(stats.snapshots, Default::default());
    assert_eq!(stats.space.pinned_bytes, 0);
    assert!(store.snapshots().unwrap().is_empty());
}

#[test]
fn snapshots_tell_how_long_they_have_been_held() {
    let clock = embercask::ManualClock::new(1_000_000);
    let store = manual(Arc::new(MemStorage::new()))
        .clock(clock.clone())
        .open("/store")
        .unwrap();
    let first = store.snapshot().unwrap();
    clock.advance(2_000);
    let second = store.snapshot().unwrap();
    clock.advance(3_000);
    assert_eq!((first.age().as_secs(), second.age().as_secs()), (5, 3));
    let ages: Vec<_> = store
        .snapshots()
        .unwrap()
        .iter()
        .map(|info| info.age.as_secs())
        .collect();
    assert_eq!(ages, [5, 3]);
    assert_eq!(store.stats().snapshots.oldest.as_secs(), 5);
    drop(first);
    assert_eq!(store.stats().snapshots.oldest.as_secs(), 3);
}

#[test]
fn compaction_gives_back_as_much_beside_a_snapshot() {
    let [with, without] = [true, false].map(|held| {
        let disk = MemStorage::new();
        let store = open(&disk);
        let namespace = store.namespace("N").unwrap();
        fill(&namespace, "old", 100);
        let snapshot = held.then(|| store.snapshot().unwrap());
        fill(&namespace, "new", 80);
        for number in 80..100 {
            namespace.delete(format!("key {number:03}")).unwrap();
        }
        store.maintain().unwrap();
        store.compact().unwrap();
        let stats = store.stats();
        drop(snapshot);
        (
            stats.compaction,
            stats.segment_bytes,
            stats.dead_bytes,
            stats.tombstone_bytes,
        )
    });
    assert_eq!(with, without);
}

#[test]
fn a_snapshot_shows_nothing_that_a_failed_write_takes_back() {
    let faults = FaultStorage::new(Arc::new(MemStorage::new()));
    let store = manual(Arc::new(faults.clone())).open("/store").unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "old").unwrap();
    namespace.put("other", "old").unwrap();
    // Acknowledged, so nothing takes it back.
    namespace.put_with("other", "new", class(Durability::Buffered)).unwrap();
    faults.inject(
        Fault::new(FaultKind::Error(std::io::ErrorKind::StorageFull))
            .on(Operation::Write)
            .repeated(),
    );
    let refused = namespace.put_with("key", "new", class(Durability::Os)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoSpace);
    let snapshot = store.snapshot().unwrap();
    faults.clear();
    for _ in 0..2 {
        assert_eq!(snapshot.get(&namespace, "key").unwrap().unwrap(), *b"old");
        assert_eq!(snapshot.get(&namespace, "other").unwrap().unwrap(), *b"new");
        namespace.put("key", "newer").unwrap();
        namespace.delete("other").unwrap();
    }
}

#[test]
fn keys_go_on_expiring_in_a_snapshot() {
    let clock = embercask::ManualClock::new(1_000_000);
    let store = manual(Arc::new(MemStorage::new()))
        .clock(clock.clone())
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    for (key, seconds) in [("soon", 60), ("late", 3600)] {
        let lifetime = PutOptions::new().ttl(std::time::Duration::from_secs(seconds));
        namespace.put_with(key, "value", lifetime).unwrap();
    }
    let snapshot = store.snapshot().unwrap();
    assert_eq!(snapshot.count(&namespace).unwrap(), 2);
    clock.advance(120_000);
    assert!(snapshot.get(&namespace, "soon").unwrap().is_none());
    assert_eq!(shown(&snapshot, &namespace).len(), 1);
    store.maintain().unwrap();
    namespace.delete("late").unwrap();
    assert_eq!(shown(&snapshot, &namespace).len(), 1);
    clock.advance(3_600_000);
    assert!(shown(&snapshot, &namespace).is_empty());
    assert_eq!(snapshot.count(&namespace).unwrap(), 0);
}

#[test]
fn a_namespace_that_is_dropped_or_renamed_later_stays_in_the_snapshot() {
    let store = open(&MemStorage::new());
    let (dropped, renamed) = (store.namespace("dropped").unwrap(), store.namespace("renamed").unwrap());
    let gone = store.namespace("gone before").unwrap();
    fill(&dropped, "old", 30);
    fill(&renamed, "old", 3);
    store.drop_namespace("gone before").unwrap();
    let snapshot = store.snapshot().unwrap();
    store.drop_namespace("dropped").unwrap();
    store.rename_namespace("renamed", "another").unwrap();
    let again = store.namespace("dropped").unwrap();
    again.put("key 001", "of another").unwrap();
    for _ in 0..2 {
        assert_eq!(shown(&snapshot, &dropped).len(), 30);
        assert_eq!(snapshot.count(&dropped).unwrap(), 30);
        assert_eq!(&snapshot.get(&dropped, "key 007").unwrap().unwrap()[..5], b"old 7");
        assert_eq!(snapshot.count(&again).unwrap(), 0);
        let names: Vec<_> = snapshot
            .namespaces()
            .unwrap()
            .into_iter()
            .map(|info| info.name)
            .collect();
        assert_eq!(names, ["dropped", "renamed"]);
        let found = snapshot.open_namespace("dropped").unwrap();
        assert_eq!(found.id(), dropped.id());
        assert_eq!(snapshot.count(&found).unwrap(), 30);
        // Removes the keys of the dropped one from the indexes.
        store.maintain().unwrap();
        store.compact().unwrap();
    }
    assert_eq!(snapshot.count(&gone).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(
        snapshot.open_namespace("another").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(dropped.count().unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_snapshot_is_of_one_store_and_ends_with_it() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    fill(&namespace, "old", 3);
    let another = open(&MemStorage::new());
    let snapshot = store.snapshot().unwrap();
    let stranger = another.namespace("N").unwrap();
    assert_eq!(
        snapshot.get(&stranger, "key 000").unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert_eq!(snapshot.list(&stranger).unwrap_err().kind(), ErrorKind::InvalidInput);
    let list = snapshot.list(&namespace).unwrap();
    drop((namespace, store));
    // Closed with its last handle, although the snapshot is held; so it can be opened again.
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    assert_eq!(list.page().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(snapshot.namespaces().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(snapshot.open_namespace("N").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(
        snapshot.get(&namespace, "key 000").unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert_eq!(namespace.count().unwrap(), 3);
}

fn read_call_by_call(disk: &MemStorage) -> Store {
    let options = manual(Arc::new(disk.clone())).read_mode(ReadMode::Pread);
    options.open("/store").unwrap()
}

#[test]
fn files_that_are_read_call_by_call_stay_open_for_a_snapshot_when_compaction_removes_them() {
    let disk = MemStorage::new();
    let store = read_call_by_call(&disk);
    let namespace = store.namespace("N").unwrap();
    let keys: Vec<_> = (0..2500).map(|number| format!("key {number:04}")).collect();
    for key in &keys {
        namespace.put(key, format!("old {key} {}", "x".repeat(100))).unwrap();
    }
    store.maintain().unwrap();
    let segments = store.stats().segments.len();
    assert!(segments > 90, "{segments}");
    let snapshot = store.snapshot().unwrap();
    for key in &keys {
        namespace.put(key, "new").unwrap();
    }
    store.maintain().unwrap();
    store.compact().unwrap();
    assert!(store.stats().segments.len() < segments / 2);
    for key in &keys {
        let value = snapshot.get(&namespace, key).unwrap().unwrap();
        assert!(value.starts_with(format!("old {key}").as_bytes()), "{key}");
    }
    assert!(store.stats().space.pinned_bytes >= 2500 * 100);
}

#[test]
fn damage_of_what_came_later_concerns_no_snapshot() {
    let disk = MemStorage::new();
    let store = read_call_by_call(&disk);
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "old").unwrap();
    namespace.put("another", "old").unwrap();
    let snapshot = store.snapshot().unwrap();
    namespace.put("key", "new").unwrap();
    store.sync().unwrap();
    // Only in memory as long as the segment grows.
    fill(&namespace, "fill", 40);
    store.maintain().unwrap();
    let first = test_support::ending(&disk, ".segment").remove(0);
    let bytes = disk.read_file(&first).unwrap();
    let at = |text: &[u8]| bytes.windows(text.len()).position(|window| window == text).unwrap() as u64;
    disk.flip_bit(&first, at(b"keynew") * 8).unwrap();
    assert_eq!(namespace.get("key").unwrap_err().kind(), ErrorKind::Corruption);
    assert_eq!(snapshot.get(&namespace, "key").unwrap().unwrap(), *b"old");
    assert_eq!(shown(&snapshot, &namespace).len(), 2);
    disk.flip_bit(&first, at(b"keyold") * 8).unwrap();
    assert_eq!(
        snapshot.get(&namespace, "key").unwrap_err().kind(),
        ErrorKind::Corruption
    );
    assert_eq!(snapshot.get(&namespace, "another").unwrap().unwrap(), *b"old");
    let entries: Vec<_> = snapshot.list(&namespace).unwrap().with_values().into_iter().collect();
    assert_eq!(entries.iter().filter(|entry| entry.is_err()).count(), 1);
    assert_eq!(entries.len(), 2);
}

/// Batches that keep a sum, compaction, and threads that check it in snapshots.
#[test]
fn snapshots_beside_writers_and_compaction_are_of_one_moment() {
    let store = Store::options()
        .segment_bytes(16 << 10)
        .durability(Durability::Buffered)
        .storage(Arc::new(MemStorage::new()))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("accounts").unwrap();
    let key = |number: u64| format!("account {number:02}");
    for number in 0..20 {
        namespace.put(key(number), 100u64.to_le_bytes()).unwrap();
    }
    let sum = |snapshot: &Snapshot| -> u64 {
        let entries = shown(snapshot, &namespace);
        assert!(entries.len() <= 20);
        entries
            .iter()
            .map(|(_, value)| u64::from_le_bytes(value.as_slice().try_into().unwrap()))
            .sum()
    };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&done);
        scope.spawn(|| {
            let mut rng = test_support::rng();
            while !done.load(Ordering::Relaxed) {
                let (from, to) = (key(rng.below(20)), key(rng.below(20)));
                let balance = |key: &str| {
                    let value = namespace.get(key).unwrap();
                    value.map_or(0, |value| u64::from_le_bytes(value[..].try_into().unwrap()))
                };
                let (had, has) = (balance(&from), balance(&to));
                if from == to || had == 0 {
                    continue;
                }
                let amount = 1 + rng.below(had);
                let mut batch = store.batch();
                batch.put(&namespace, &to, (has + amount).to_le_bytes());
                match had - amount {
                    0 => batch.delete(&namespace, &from),
                    left => batch.put(&namespace, &from, left.to_le_bytes()),
                };
                batch.commit().unwrap();
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                store.compact().unwrap();
            }
        });
        for _ in 0..300 {
            let snapshot = store.snapshot().unwrap();
            let held = store.snapshot().unwrap();
            assert_eq!(sum(&snapshot), 2000);
            let before = shown(&held, &namespace);
            assert_eq!(sum(&snapshot), 2000);
            assert_eq!(shown(&held, &namespace), before);
        }
    });
    assert_eq!(store.stats().snapshots.kept_records, 0);
}

/// A write that is under way when the snapshot is made, and fails then.
#[test]
fn a_snapshot_waits_for_what_may_still_be_rolled_back() {
    const IN_WRITE: u8 = 1;
    const MAKING: u8 = 2;
    const MADE: u8 = 3;
    let (disk, steps) = (MemStorage::new(), Arc::new(AtomicU8::new(0)));
    let of_hook = steps.clone();
    let failing = Arc::new(AtomicBool::new(false));
    let fails = failing.clone();
    let storage = Hooked::over(&disk, move |operation, path| {
        let is_segment = path.extension().is_some_and(|name| name == "segment");
        if operation == Operation::Write && is_segment && fails.swap(false, Ordering::AcqRel) {
            of_hook.store(IN_WRITE, Ordering::Release);
            until("the snapshot is being made", || {
                of_hook.load(Ordering::Acquire) >= MAKING
            });
            // One that does not wait is made by then.
            let mut turns = 0;
            while turns < 10_000 && of_hook.load(Ordering::Acquire) != MADE {
                turns += 1;
                std::thread::yield_now();
            }
            return Err(std::io::ErrorKind::Other.into());
        }
        Ok(())
    });
    let store = manual(storage).open("/store").unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "old").unwrap();
    failing.store(true, Ordering::Release);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| namespace.put_with("key", "new", class(Durability::Os)));
        until("the write is under way", || steps.load(Ordering::Acquire) == IN_WRITE);
        assert_eq!(namespace.get("key").unwrap().unwrap(), *b"new");
        let making = scope.spawn(|| {
            steps.store(MAKING, Ordering::Release);
            let snapshot = store.snapshot().unwrap();
            let value = snapshot.get(&namespace, "key").unwrap().unwrap();
            steps.store(MADE, Ordering::Release);
            (snapshot, value)
        });
        assert_eq!(writing.join().unwrap().unwrap_err().kind(), ErrorKind::Io);
        let (snapshot, value) = making.join().unwrap();
        assert_eq!(value, *b"old");
        assert_eq!(snapshot.get(&namespace, "key").unwrap().unwrap(), *b"old");
        namespace.put("key", "newer").unwrap();
        assert_eq!(snapshot.get(&namespace, "key").unwrap().unwrap(), *b"old");
    });
}

/// The process ends at every step of a compaction beside a snapshot.
#[test]
fn a_crash_while_a_snapshot_is_held_brings_nothing_back() {
    for step in 0.. {
        let disk = MemStorage::new();
        let faults = FaultStorage::new(Arc::new(disk.clone()));
        let store = manual(Arc::new(faults.clone())).open("/store").unwrap();
        let namespace = store.namespace("N").unwrap();
        fill(&namespace, "old", 60);
        let snapshot = store.snapshot().unwrap();
        fill(&namespace, "new", 30);
        for number in 30..60 {
            namespace.delete(format!("key {number:03}")).unwrap();
        }
        store.sync().unwrap();
        faults.stop_at(faults.steps() + step);
        let compacted = store.compact();
        let ended = !faults.is_stopped();
        for disk in [disk.crash_process(), disk.power_cut(&CutPolicy::LoseUnsynced)] {
            let store = open(&disk);
            let namespace = store.open_namespace("N").unwrap();
            assert_eq!(namespace.count().unwrap(), 30, "step {step}");
            for entry in namespace.list().with_values() {
                assert_eq!(&entry.unwrap().value().unwrap()[..3], b"new", "step {step}");
            }
        }
        drop(snapshot);
        if ended {
            compacted.unwrap();
            assert!(step > 15, "only {step} steps");
            return;
        }
    }
}
