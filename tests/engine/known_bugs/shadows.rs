//! Compaction keeps records that hide older values as long as any exist.

use std::time::Duration;

use embercask::storage::MemStorage;
use embercask::{Error, ManualClock, Namespace, PutOptions, Store};

use crate::known_bugs::{START_MS, next_segment, open_at};
use test_support::DIRECTORY;
use test_support::way::Way;

/// A closed store of several segments, in which `hide` hid the first value of the key `k`.
fn with_hidden_value(clock: &ManualClock, hide: impl Fn(&Namespace)) -> MemStorage {
    let disk = MemStorage::new();
    hide_value(&disk, clock, hide).close().unwrap();
    clock.advance(60_000);
    disk
}

/// The same, still open.
fn hide_value(disk: &MemStorage, clock: &ManualClock, hide: impl Fn(&Namespace)) -> Store {
    let store = open_at(disk, clock);
    let namespace = store.namespace("N").unwrap();
    namespace.put("k", "old").unwrap();
    next_segment(&namespace, "a");
    namespace.put("other", "1").unwrap();
    next_segment(&namespace, "b");
    hide(&namespace);
    next_segment(&namespace, "c");
    namespace.put("other", "2").unwrap();
    store
}

/// B1: while the store was open all the time it is known when the values died, and a tombstone may
/// go earlier than after opening.
#[test]
fn a_tombstone_stays_in_a_store_that_was_open_all_the_time() {
    let mut subsets = 0;
    for (first, second) in (0..32u64).flat_map(|first| (0..32u64).map(move |second| (first, second))) {
        if (first * 5 + second) % 4 != 0 {
            continue;
        }
        let (disk, clock) = (MemStorage::new(), ManualClock::new(START_MS));
        let store = hide_value(&disk, &clock, |namespace| {
            assert!(namespace.delete("k").unwrap().existed)
        });
        store.compact_subset(first).unwrap();
        store.compact_subset(second).unwrap();
        let namespace = open_at(&disk.crash_process(), &clock).open_namespace("N").unwrap();
        assert!(namespace.get("k").unwrap().is_none(), "{first:b}, then {second:b}");
        subsets += 1;
    }
    assert_eq!(subsets, 256);
}

/// Compacts every subset of the segments, then every subset of the result; `k` must stay gone, even
/// when the store is opened by records or hints, and in the end no trace of it is left.
fn stays_hidden_whatever_is_compacted(disk: &MemStorage, clock: &ManualClock) {
    let segments = open_at(&disk.crash_process(), clock).stats().segments.len();
    assert!(segments >= 4, "{segments} segments");
    let masks = 1u64 << segments;
    for (first, second) in (0..masks).flat_map(|first| (0..masks).map(move |second| (first, second))) {
        // There are many pairs; a fixed quarter of them covers every first and every second subset.
        if (first * 5 + second) % 4 != 0 {
            continue;
        }
        let disk = disk.crash_process();
        let store = open_at(&disk, clock);
        let check = |store: &Store, when: &str| {
            let namespace = store.open_namespace("N").unwrap();
            assert!(
                namespace.get("k").unwrap().is_none(),
                "{first:b}, then {second:b}: there again {when}"
            );
            assert_eq!(namespace.get("other").unwrap().unwrap(), *b"2");
        };
        store.compact_subset(first).unwrap();
        check(&store, "after the first");
        store.compact_subset(second).unwrap();
        check(&store, "after the second");
        store.close().unwrap();
        let way = if first.is_multiple_of(2) {
            Way::Records
        } else {
            Way::Hints
        };
        let prepared = way.prepare(&disk, DIRECTORY);
        let store = open_at(&disk, clock);
        prepared.assert_taken(store.recovery_report());
        check(&store, "after opening again");
        store.compact().unwrap();
        check(&store, "after compacting all");
        let stats = store.stats();
        assert_eq!(
            (stats.dead_bytes, stats.tombstone_bytes),
            (0, 0),
            "{first:b}, then {second:b}"
        );
    }
}

/// B1
#[test]
fn a_tombstone_stays_until_what_it_hides_is_gone() {
    let clock = ManualClock::new(START_MS);
    let disk = with_hidden_value(&clock, |namespace| assert!(namespace.delete("k").unwrap().existed));
    stays_hidden_whatever_is_compacted(&disk, &clock);
}

/// B2
#[test]
fn an_expired_put_does_not_uncover_the_value_below_it() {
    let clock = ManualClock::new(START_MS);
    let ttl = PutOptions::new().ttl(Duration::from_secs(5));
    let disk = with_hidden_value(&clock, |namespace| {
        assert!(namespace.put_with("k", "new", ttl.clone()).unwrap() > 0)
    });
    stays_hidden_whatever_is_compacted(&disk, &clock);
}

/// B1 and B2, of a whole namespace.
#[test]
fn a_dropped_namespace_stays_dropped_whatever_is_compacted() {
    let clock = ManualClock::new(START_MS);
    let disk = MemStorage::new();
    let store = open_at(&disk, &clock);
    let (dropped, kept) = (store.namespace("DROPPED").unwrap(), store.namespace("N").unwrap());
    dropped.put("k", "old").unwrap();
    next_segment(&kept, "a");
    dropped.put("other", "1").unwrap();
    next_segment(&kept, "b");
    store.drop_namespace("DROPPED").unwrap();
    next_segment(&kept, "c");
    kept.put("other", "2").unwrap();
    store.close().unwrap();
    let gone = |store: &Store| matches!(store.open_namespace("DROPPED"), Err(Error::NamespaceNotFound { .. }));
    for (first, second) in (0..16).flat_map(|first| (0..16).map(move |second| (first, second))) {
        let disk = disk.crash_process();
        // Keys of the namespace may remain in the indexes; then no index file is written.
        let reopened = |n: u64| {
            let way = if n.is_multiple_of(2) { Way::Hints } else { Way::Records };
            let prepared = way.prepare(&disk, DIRECTORY);
            let store = open_at(&disk, &clock);
            prepared.assert_taken(store.recovery_report());
            store
        };
        for mask in [first, second] {
            let store = reopened(first + mask / 2);
            store.compact_subset(mask).unwrap();
            store.close().unwrap();
        }
        let store = reopened(first / 2 + second);
        assert!(gone(&store), "{first:b}, then {second:b}");
        let again = store.create_namespace("DROPPED").unwrap();
        assert_eq!(again.count().unwrap(), 0, "{first:b}, then {second:b}");
    }
}
