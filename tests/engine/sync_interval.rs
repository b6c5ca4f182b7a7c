//! What a power cut may take at most: what was written within the sync interval.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embercask::storage::{CutPolicy, Fault, FaultKind, FaultStorage, MemStorage, Operation, Storage};
use embercask::{Durability, ErrorKind, Maintenance, ManualClock, Namespace, Options, Store};
use test_support::hooked::Hooked;
use test_support::{DIRECTORY, StopOnDrop, class, ending, keys, manual, open, rng, text, until};

const NOW_MS: u64 = 1_700_000_000_000;
const INTERVAL_MS: u64 = 1_000;

fn options(storage: Arc<dyn Storage>, clock: &ManualClock) -> Options {
    manual(storage)
        .segment_bytes(64 << 10)
        .clock(clock.clone())
        .sync_interval(Some(Duration::from_millis(INTERVAL_MS)))
}

/// A store with one namespace, at rest: both are durable, and nothing is left to be synced.
fn at_rest(storage: Arc<dyn Storage>) -> (ManualClock, Store, Namespace) {
    let clock = ManualClock::new(NOW_MS);
    let store = options(storage, &clock).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    come_to_rest(&clock, &store);
    (clock, store, namespace)
}

/// The sync of what was written, then that of the mark.
fn come_to_rest(clock: &ManualClock, store: &Store) {
    for _ in 0..2 {
        clock.advance(INTERVAL_MS);
        store.maintain().unwrap();
    }
    let stats = store.stats();
    assert_eq!(stats.durable_sequence, stats.last_sequence, "not at rest");
}

/// What is found after a power cut that loses everything unsynced.
fn after_power_cut(disk: &MemStorage) -> Vec<String> {
    let store = open(&disk.power_cut(&CutPolicy::LoseUnsynced));
    keys(&store.open_namespace("N").unwrap())
}

#[test]
fn what_was_written_before_the_interval_began_survives_a_power_cut() {
    for durability in [Durability::Os, Durability::Buffered] {
        let disk = MemStorage::new();
        let (clock, store, namespace) = at_rest(Arc::new(disk.clone()));
        namespace.put_with("first", "1", class(durability)).unwrap();
        clock.advance(INTERVAL_MS / 2);
        namespace.put_with("second", "1", class(durability)).unwrap();
        clock.advance(INTERVAL_MS / 2 - 1);
        let syncs = store.stats().syncs;
        store.maintain().unwrap();
        assert_eq!(store.stats().syncs, syncs, "synced before the interval was over");
        // If they were there, the rest would prove nothing.
        assert!(after_power_cut(&disk).is_empty(), "this disk loses unsynced writes");
        clock.advance(1);
        store.maintain().unwrap();
        assert!(store.stats().syncs > syncs);
        assert_eq!(after_power_cut(&disk), ["first", "second"], "{durability:?}");
        // The interval of the next write begins with it, not with the last sync.
        clock.advance(INTERVAL_MS * 10);
        store.maintain().unwrap();
        namespace.put_with("third", "1", class(durability)).unwrap();
        store.maintain().unwrap();
        assert_eq!(after_power_cut(&disk).len(), 2, "{durability:?}");
        clock.advance(INTERVAL_MS);
        store.maintain().unwrap();
        assert_eq!(after_power_cut(&disk).len(), 3, "{durability:?}");
    }
}

/// Promise 2 holds as well: with what the interval has made durable, a prefix of all writes.
#[test]
fn a_power_cut_leaves_a_prefix_with_all_that_the_interval_covers() {
    let mut rng = rng();
    let (mut lost, mut covered_by_time) = (0, 0);
    for _ in 0..6 {
        let mut rng = rng.split();
        let disk = MemStorage::seeded(rng.next());
        let clock = ManualClock::new(NOW_MS);
        let options = options(Arc::new(disk.clone()), &clock).segment_bytes(4096);
        let store = options.open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        // The number of the last write by class `Sync`, and of each write its time.
        let (mut synced, mut times) = (0, Vec::new());
        for n in 1..=120 {
            clock.advance(rng.below(200));
            let durability = match rng.below(20) {
                0 => Durability::Sync,
                1..10 => Durability::Os,
                _ => Durability::Buffered,
            };
            let length = 1 + rng.below(300) as usize;
            let key = format!("{n:03}");
            namespace.put_with(&key, vec![7; length], class(durability)).unwrap();
            times.push(NOW_MS.max(store.now_ms()));
            if durability == Durability::Sync {
                synced = n;
            }
            store.maintain().unwrap();
            let covered = times.partition_point(|time| time + INTERVAL_MS <= store.now_ms());
            covered_by_time += u64::from(covered > synced);
            let seed = rng.next();
            let cut = disk.power_cut(&CutPolicy::Random { seed, grain: 512 });
            let found = keys(&open(&cut).open_namespace("N").unwrap());
            let prefix: Vec<_> = (1..=found.len()).map(|n| format!("{n:03}")).collect();
            assert_eq!(found, prefix, "a hole, after {n} writes");
            let least = synced.max(covered);
            assert!(found.len() >= least, "{} of {least} after {n} writes", found.len());
            lost += u64::from(found.len() < n);
        }
    }
    assert!(lost > 100 && covered_by_time > 100, "{lost}, {covered_by_time}");
}

#[test]
fn while_nothing_is_unsynced_nothing_is_synced() {
    let disk = MemStorage::new();
    let (clock, store, namespace) = at_rest(Arc::new(disk.clone()));
    let stays_at_rest = |what: &str| {
        let (syncs, written) = (store.stats().syncs, store.stats().written_bytes);
        for _ in 0..5 {
            clock.advance(INTERVAL_MS * 100);
            store.maintain().unwrap();
        }
        let stats = store.stats();
        assert_eq!((stats.syncs, stats.written_bytes), (syncs, written), "{what}");
    };
    stays_at_rest("at first");
    namespace.put_with("os", "1", class(Durability::Os)).unwrap();
    come_to_rest(&clock, &store);
    stays_at_rest("after a write of class Os and its mark");
    namespace.put("sync", "1").unwrap();
    stays_at_rest("after a write of class Sync");
    assert!(!namespace.delete("absent").unwrap().existed);
    stays_at_rest("after a delete of nothing");
    namespace.put_with("os", "2", class(Durability::Os)).unwrap();
    store.sync().unwrap();
    stays_at_rest("after a sync");
    namespace.put_with("os", "3", class(Durability::Os)).unwrap();
    store.compact().unwrap();
    come_to_rest(&clock, &store);
    stays_at_rest("after a compaction");
    // Reads, and a store that has only been opened.
    drop(disk);
    assert_eq!(text(&namespace, "os").as_deref(), Some("3"));
    drop((store, namespace));
}

/// At most one sync per interval, however much is written, beside those that writers wait for.
#[test]
fn the_interval_costs_one_sync_each_time_it_is_over() {
    let (clock, store, namespace) = at_rest(Arc::new(MemStorage::new()));
    let before = store.stats().syncs;
    const INTERVALS: u64 = 20;
    for n in 0..INTERVALS * 10 {
        namespace
            .put_with(
                "key",
                "value",
                class([Durability::Os, Durability::Buffered][n as usize % 2]),
            )
            .unwrap();
        clock.advance(INTERVAL_MS / 10);
        store.maintain().unwrap();
    }
    let syncs = store.stats().syncs - before;
    assert!((INTERVALS - 1..=INTERVALS).contains(&syncs), "{syncs} syncs");
    // Writers who sync more often than that leave nothing to do.
    let before = store.stats().syncs;
    for _ in 0..50 {
        namespace.put_with("os", "value", class(Durability::Os)).unwrap();
        namespace.put("sync", "value").unwrap();
        clock.advance(INTERVAL_MS / 2);
        store.maintain().unwrap();
    }
    assert_eq!(store.stats().syncs - before, 50);
}

#[test]
fn without_an_interval_only_much_is_synced() {
    let disk = MemStorage::new();
    let clock = ManualClock::new(NOW_MS);
    let options = options(Arc::new(disk.clone()), &clock).sync_interval(None);
    let store = options.segment_bytes(64 << 20).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put_with("key", "1", class(Durability::Os)).unwrap();
    let syncs = store.stats().syncs;
    clock.advance(365 * 24 * 3600 * 1000);
    store.maintain().unwrap();
    assert_eq!(store.stats().syncs, syncs);
    for n in 0..16 {
        namespace
            .put_with(format!("much {n}"), vec![7; 1 << 20], class(Durability::Os))
            .unwrap();
    }
    store.maintain().unwrap();
    // Those of full segments, and one more.
    assert!(store.stats().syncs > syncs, "{} syncs", store.stats().syncs);
    assert_eq!(after_power_cut(&disk).len(), 17);
}

/// The wall clock may be set to whatever time: the interval goes by the other.
#[test]
fn a_jump_of_the_wall_clock_neither_hastens_nor_delays_the_sync() {
    for wall_ms in [0, NOW_MS - 3_600_000, NOW_MS + 3_600_000, u64::MAX] {
        let disk = MemStorage::new();
        let (clock, store, namespace) = at_rest(Arc::new(disk.clone()));
        namespace.put_with("key", "1", class(Durability::Os)).unwrap();
        let syncs = store.stats().syncs;
        clock.set_wall(wall_ms);
        store.maintain().unwrap();
        assert_eq!(store.stats().syncs, syncs, "{wall_ms}");
        clock.advance(INTERVAL_MS);
        store.maintain().unwrap();
        assert_eq!(after_power_cut(&disk), ["key"], "{wall_ms}");
    }
}

/// A put comes while the sync runs: the sync does not cover it, so its own interval counts.
#[test]
fn what_is_written_during_a_sync_is_synced_an_interval_later() {
    for durability in [Durability::Os, Durability::Buffered] {
        let disk = MemStorage::new();
        let writer = Arc::new(Mutex::new(None::<Namespace>));
        let hook_writer = writer.clone();
        let hook = move |operation: Operation, path: &Path| {
            if operation == Operation::Sync && path.extension().is_some_and(|end| end == "segment") {
                // Once.
                let writer = hook_writer.lock().unwrap().take();
                if let Some(namespace) = writer {
                    namespace.put_with("during", "1", class(durability)).unwrap();
                }
            }
            Ok(())
        };
        let (clock, store, namespace) = at_rest(Hooked::over(&disk, hook));
        namespace.put_with("before", "1", class(Durability::Os)).unwrap();
        *writer.lock().unwrap() = Some(namespace.clone());
        clock.advance(INTERVAL_MS);
        store.maintain().unwrap();
        assert!(namespace.contains("during").unwrap(), "the hook did not run");
        let syncs = store.stats().syncs;
        clock.advance(INTERVAL_MS - 1);
        store.maintain().unwrap();
        assert_eq!(store.stats().syncs, syncs, "{durability:?}: synced too early");
        clock.advance(1);
        store.maintain().unwrap();
        assert_eq!(after_power_cut(&disk), ["before", "during"], "{durability:?}");
    }
}

fn active(disk: &MemStorage) -> PathBuf {
    ending(disk, ".segment").pop().unwrap()
}

/// Opens the store after a bit of this value was flipped.
fn opened_damaged(disk: &MemStorage, value: &[u8]) -> embercask::Result<Store> {
    let disk = disk.crash_process();
    let path = active(&disk);
    let bytes = disk.read_file(&path).unwrap();
    let at = bytes.windows(value.len()).position(|window| window == value).unwrap();
    disk.flip_bit(&path, at as u64 * 8).unwrap();
    manual(Arc::new(disk)).open(DIRECTORY)
}

#[test]
fn damage_to_what_the_interval_has_synced_is_corruption_although_nothing_was_written_since() {
    for durability in [Durability::Os, Durability::Buffered] {
        let disk = MemStorage::new();
        let (clock, store, namespace) = at_rest(Arc::new(disk.clone()));
        let value = [b'v'; 100];
        namespace.put_with("key", value, class(durability)).unwrap();
        store.flush().unwrap();
        // Nothing says that it was durable, so it may be torn.
        let torn = opened_damaged(&disk, &value).unwrap();
        assert!(!torn.open_namespace("N").unwrap().contains("key").unwrap());
        clock.advance(INTERVAL_MS);
        store.maintain().unwrap();
        let error = opened_damaged(&disk, &value).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{durability:?}, after a kill");
        // The mark itself is durable an interval later.
        clock.advance(INTERVAL_MS);
        store.maintain().unwrap();
        let cut = disk.power_cut(&CutPolicy::LoseUnsynced);
        let error = opened_damaged(&cut, &value).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{durability:?}, after a power cut");
    }
}

/// The sync may end at any fill of the segment: there is always room for the mark.
#[test]
fn a_full_segment_has_room_for_the_mark() {
    for length in (1..400).step_by(7) {
        let disk = MemStorage::new();
        let clock = ManualClock::new(NOW_MS);
        let options = options(Arc::new(disk.clone()), &clock).segment_bytes(4096);
        let store = options.open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        for n in 0..30u8 {
            let value = vec![100 + n; length + 16];
            namespace
                .put_with(format!("{n}"), &value, class(Durability::Os))
                .unwrap();
            clock.advance(INTERVAL_MS);
            store.maintain().unwrap();
            let error = opened_damaged(&disk, &value).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corruption, "{length} bytes, write {n}");
        }
    }
}

#[test]
fn a_sync_that_fails_in_the_background_poisons_the_store() {
    let failing = || {
        Fault::new(FaultKind::Error(std::io::ErrorKind::Other))
            .on(Operation::Sync)
            .path(".segment")
    };
    let disk = MemStorage::new();
    let faults = FaultStorage::new(Arc::new(disk.clone()));
    let (clock, store, namespace) = at_rest(Arc::new(faults.clone()));
    namespace.put_with("key", "1", class(Durability::Os)).unwrap();
    clock.advance(INTERVAL_MS);
    faults.inject(failing());
    store.maintain().unwrap_err();
    faults.clear();
    let refused = namespace.put_with("later", "1", class(Durability::Os)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Poisoned);
    assert_eq!(text(&namespace, "key").as_deref(), Some("1"));
    // The same by the store's own thread.
    let faults = FaultStorage::new(Arc::new(MemStorage::new()));
    let clock = ManualClock::new(NOW_MS);
    let store = options(Arc::new(faults.clone()), &clock)
        .maintenance(Maintenance::Background)
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put_with("key", "1", class(Durability::Os)).unwrap();
    faults.inject(failing());
    clock.advance(INTERVAL_MS);
    until("the store is poisoned", || store.stats().poisoned.is_some());
    until("the failure is told", || store.stats().background_error.is_some());
    assert_eq!(store.close().unwrap_err().kind(), ErrorKind::Poisoned);
}

/// The disk is full, and pending records cannot be written out. What was written before is synced
/// all the same.
#[test]
fn records_that_do_not_fit_on_the_disk_do_not_keep_others_from_being_synced() {
    let disk = MemStorage::new();
    let faults = FaultStorage::new(Arc::new(disk.clone()));
    let (clock, store, namespace) = at_rest(Arc::new(faults.clone()));
    namespace.put_with("os", "1", class(Durability::Os)).unwrap();
    namespace
        .put_with("buffered", "1", class(Durability::Buffered))
        .unwrap();
    clock.advance(INTERVAL_MS);
    faults.inject(
        Fault::new(FaultKind::Full)
            .on(Operation::Write)
            .path(".segment")
            .repeated(),
    );
    assert_eq!(store.maintain().unwrap_err().kind(), ErrorKind::NoSpace);
    assert_eq!(after_power_cut(&disk), ["os"]);
    faults.clear();
    store.maintain().unwrap();
    assert_eq!(after_power_cut(&disk), ["buffered", "os"]);
}

/// On the real clock, without any call.
#[test]
fn a_store_with_threads_is_synced_without_a_call() {
    // 1 ns counts as 1 ms.
    for interval in [
        Duration::from_nanos(1),
        Duration::from_millis(30),
        Duration::from_millis(700),
    ] {
        for durability in [Durability::Os, Durability::Buffered] {
            let disk = MemStorage::new();
            let store = manual(Arc::new(disk.clone()))
                .maintenance(Maintenance::Background)
                .flush_interval(Duration::MAX)
                .sync_interval(Some(interval))
                .open(DIRECTORY)
                .unwrap();
            let namespace = store.namespace("N").unwrap();
            // Twice: the second write finds the thread asleep.
            for key in ["a", "b"] {
                namespace.put_with(key, "1", class(durability)).unwrap();
                let written = store.stats().last_sequence;
                until("the write is synced", || store.stats().durable_sequence >= written);
                assert!(
                    after_power_cut(&disk).contains(&key.to_owned()),
                    "{interval:?}, {durability:?}"
                );
                until("the mark is synced, and the store at rest", || {
                    let stats = store.stats();
                    stats.last_sequence > written && stats.durable_sequence == stats.last_sequence
                });
            }
        }
    }
}

/// Other maintenance hangs: sealing in the one thread, and so compaction in another.
#[test]
fn no_other_maintenance_holds_the_sync_up() {
    let disk = MemStorage::new();
    let (let_go, hangs) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (hook_let_go, hook_hangs) = (let_go.clone(), hangs.clone());
    let hook = move |operation: Operation, path: &Path| {
        if operation == Operation::Create && path.extension().is_some_and(|end| end == "hint") {
            hook_hangs.fetch_add(1, Ordering::SeqCst);
            while !hook_let_go.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
        }
        Ok(())
    };
    let clock = ManualClock::new(NOW_MS);
    let store = options(Hooked::over(&disk, hook), &clock)
        .maintenance(Maintenance::Background)
        .segment_bytes(4096)
        .open(DIRECTORY)
        .unwrap();
    let _let_go = StopOnDrop(&let_go);
    let namespace = store.namespace("N").unwrap();
    for n in 0..2 {
        namespace
            .put_with(format!("fill {n}"), [7; 3_000], class(Durability::Os))
            .unwrap();
    }
    until("sealing hangs", || hangs.load(Ordering::SeqCst) > 0);
    namespace.put_with("key", "1", class(Durability::Os)).unwrap();
    let written = store.stats().last_sequence;
    clock.advance(INTERVAL_MS);
    until("the write is synced", || store.stats().durable_sequence >= written);
    assert!(after_power_cut(&disk).contains(&"key".to_owned()));
}
