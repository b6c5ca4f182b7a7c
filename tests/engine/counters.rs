//! The counters of live and dead bytes, which decide what is compacted, never drift: after any
//! operations they equal a recount from the log.

use std::sync::Arc;
use std::time::Duration;

use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{Durability, ErrorKind, ManualClock, Namespace, NamespaceStats, PutOptions, SegmentStats, Store};
use test_support::way::Way;
use test_support::{DIRECTORY, Rng, class, manual, rng};

const START_MS: u64 = 1_700_000_000_000;

/// Makes one random change; returns whether it failed, which only an injected full disk may cause.
fn change(store: &Store, namespaces: &[Namespace], clock: &ManualClock, faults: &FaultStorage, rng: &mut Rng) -> bool {
    let namespace = &namespaces[rng.below(namespaces.len() as u64) as usize];
    let key = format!("key {}", rng.below(30));
    let value = vec![b'v'; rng.below(300) as usize];
    let durability = [Durability::Buffered, Durability::Os, Durability::Sync][rng.below(3) as usize];
    let lifetime = PutOptions::new().ttl(Duration::from_millis(1 + rng.below(20)));
    // A failed write is rolled back, and so are its counters.
    let fails = rng.below(12) == 0;
    if fails {
        faults.inject(Fault::new(FaultKind::Full).on(Operation::Write).path(".segment"));
    }
    let struck_before = faults.struck();
    let result = match rng.below(12) {
        0..4 => namespace.put_with(&key, &value, class(durability)).map(drop),
        4..6 => namespace
            .put_with(&key, &value, lifetime.durability(durability))
            .map(drop),
        6..8 => namespace.delete_with(&key, None, Some(durability)).map(drop),
        8 => store
            .batch()
            .put(namespace, &key, &value)
            .delete(namespace, "key 1")
            .put(&namespaces[0], &key, "again")
            .put(namespace, &key, "and again")
            .durability(durability)
            .commit()
            .map(drop),
        9 => namespace.set_metadata(&key, Some(b"metadata")).map(drop),
        10 => store.compact_subset(rng.next()).map(drop),
        _ => {
            clock.advance(rng.below(8));
            store.maintain()
        }
    };
    faults.clear();
    if let Err(error) = &result {
        let struck = faults.struck() > struck_before;
        assert!(
            struck && error.kind() == ErrorKind::NoSpace,
            "struck {struck}: {error:?}"
        );
    }
    result.is_err()
}

/// The counters per segment and in total. Expired bytes are counted as dead, since compaction does
/// not always know why a record is dead.
fn counted(store: &Store) -> (Vec<SegmentStats>, [u64; 7]) {
    let mut stats = store.stats();
    for segment in &mut stats.segments {
        assert!(segment.expired_bytes <= segment.dead_bytes);
        segment.expired_bytes = 0;
    }
    let sums = [
        stats.keys,
        stats.namespaces,
        stats.live_bytes,
        stats.dead_bytes,
        stats.tombstone_bytes,
        stats.segment_bytes,
        stats.expired_not_swept,
    ];
    (stats.segments, sums)
}

/// What each namespace holds. The live bytes are those of the segments, without the records of the
/// namespaces themselves.
fn held(store: &Store) -> Vec<NamespaceStats> {
    let (stats, namespaces) = (store.stats(), store.namespace_stats().unwrap());
    let live_bytes: u64 = namespaces.iter().map(|namespace| namespace.live_bytes).sum();
    let names = (stats.live_bytes - live_bytes) / stats.namespaces;
    assert!((40..80).contains(&names), "{names} bytes for each name");
    namespaces
}

/// B34. The recount reads hints, records or both; every fourth time the counters come out of the
/// index file instead, as they were stored.
#[test]
fn counters_equal_a_recount_although_writes_fail_and_are_rolled_back() {
    let mut rng = rng();
    let clock = ManualClock::new(START_MS);
    let mut disk = MemStorage::seeded(rng.next());
    let mut failed = 0;
    for round in 0..60 {
        let faults = FaultStorage::new(Arc::new(disk.clone()));
        let store = manual(Arc::new(faults.clone()))
            .clock(clock.clone())
            .expiry_grace(Duration::from_millis(rng.below(20)))
            .open(DIRECTORY)
            .unwrap();
        let namespaces = ["A", "B"].map(|name| store.namespace(name).unwrap());
        for _ in 0..80 {
            failed += u32::from(change(&store, &namespaces, &clock, &faults, &mut rng));
        }
        if rng.below(8) == 0 {
            store.drop_namespace("B").unwrap();
        }
        // At least two segments, so that the hint of one of them can be missing.
        for n in 0..3 {
            namespaces[0].put(format!("filler {n}"), [7; 3_000]).unwrap();
        }
        // The sweep removes expired records from the indexes here; the recount skips them anyway.
        store.maintain().unwrap();
        let held_before = held(&store);
        store.clone().close().unwrap();
        let before = counted(&store);
        drop((store, namespaces));
        let way = [Way::Records, Way::Mixed(rng.next()), Way::Hints, Way::IndexFile][round % 4];
        let prepared = way.prepare(&disk, DIRECTORY);
        let recounted = manual(Arc::new(disk.clone()))
            .clock(clock.clone())
            .open(DIRECTORY)
            .unwrap();
        prepared.assert_taken(recounted.recovery_report());
        assert_eq!(
            counted(&recounted),
            before,
            "round {round}, {way:?}: the recount differs from the counters"
        );
        assert_eq!(held(&recounted), held_before, "round {round}, {way:?}");
        let mut listed = 0;
        for info in held_before {
            let namespace = recounted.open_namespace(&info.name).unwrap();
            assert_eq!(namespace.id(), info.id);
            assert_eq!(namespace.count().unwrap(), info.keys, "round {round}: {info:?}");
            assert_eq!(namespace.stats().unwrap(), info);
            listed += info.keys;
        }
        assert_eq!(
            recounted.stats().keys,
            listed,
            "round {round}: the counters differ from the listing"
        );
        recounted.close().unwrap();
        disk = disk.crash_process();
    }
    assert!(failed > 50, "only {failed} writes failed");
}
