//! A crash at any step of a compaction loses nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use embercask::storage::MemStorage;
use embercask::{Durability, ManualClock, PutOptions, Store};

use crate::known_bugs::{START_MS, after_crashes, next_segment, open_at, stepped};
use test_support::{DIRECTORY, at_least, class, manual};

type Content = BTreeMap<(String, Vec<u8>), Vec<u8>>;

/// All keys of all namespaces.
fn content(store: &Store) -> Content {
    let mut content = Content::new();
    for info in store.namespaces().unwrap() {
        for entry in store.open_namespace(&info.name).unwrap().list().with_values() {
            let entry = entry.unwrap();
            content.insert(
                (info.name.clone(), entry.key().to_vec()),
                entry.value().unwrap().to_vec(),
            );
        }
    }
    content
}

/// A closed store with every kind of record that compaction treats specially.
fn with_waste(clock: &ManualClock) -> (MemStorage, Content) {
    let disk = MemStorage::new();
    let store = open_at(&disk, clock);
    let (one, two) = (store.namespace("N").unwrap(), store.namespace("DROPPED").unwrap());
    for round in 0..4 {
        for key in ["a", "b", "gone", "expired"] {
            one.put(key, format!("{key} {round}")).unwrap();
        }
        two.put("x", "y").unwrap();
        next_segment(&one, "filler");
    }
    one.delete("gone").unwrap();
    one.put_with(
        "expired",
        "for a moment",
        PutOptions::new().ttl(Duration::from_millis(5)),
    )
    .unwrap();
    store.drop_namespace("DROPPED").unwrap();
    store.batch().put(&one, "a", "last").delete(&one, "b").commit().unwrap();
    clock.advance(10);
    let content = content(&store);
    store.close().unwrap();
    (disk, content)
}

/// B6
#[test]
fn a_crash_at_any_step_of_a_compaction_changes_nothing() {
    let clock = ManualClock::new(START_MS);
    let (disk, expected) = with_waste(&clock);
    let mut last = 0;
    for step in 0.. {
        let disk = disk.crash_process();
        let faults = stepped(&disk);
        let store = manual(Arc::new(faults.clone()))
            .clock(clock.clone())
            .expiry_grace(Duration::ZERO)
            .open(DIRECTORY)
            .unwrap();
        faults.stop_at(faults.steps() + step);
        let compacted = store.compact();
        for (crash, disk) in after_crashes(&disk, 6) {
            let store = open_at(&disk, &clock);
            assert_eq!(content(&store), expected, "step {step}, {crash}");
            store.compact().unwrap();
            assert_eq!(content(&store), expected, "step {step}, {crash}, compacted");
            let stats = store.stats();
            assert_eq!(
                (stats.dead_bytes, stats.tombstone_bytes),
                (0, 0),
                "step {step}, {crash}"
            );
            store.close().unwrap();
            assert_eq!(
                content(&open_at(&disk, &clock)),
                expected,
                "step {step}, {crash}, opened again"
            );
        }
        last = step;
        if !faults.is_stopped() {
            compacted.unwrap();
            break;
        }
    }
    assert!(last > 15, "only {last} steps");
}

/// B4 and B6: compaction drops an old record because of a newer one that is only in the page cache.
#[test]
fn what_compaction_relies_on_is_durable_before_the_old_records_go() {
    let clock = ManualClock::new(START_MS);
    let disk = MemStorage::new();
    let store = open_at(&disk, &clock);
    let namespace = store.namespace("N").unwrap();
    namespace.put("k", "old").unwrap();
    namespace.put("d", "old").unwrap();
    next_segment(&namespace, "filler");
    store.close().unwrap();
    let (mut last, mut old, mut new) = (0, 0, 0);
    for step in 0.. {
        let disk = disk.crash_process();
        let faults = stepped(&disk);
        let store = manual(Arc::new(faults.clone()))
            .clock(clock.clone())
            .open(DIRECTORY)
            .unwrap();
        let namespace = store.open_namespace("N").unwrap();
        namespace.put_with("k", "new", class(Durability::Os)).unwrap();
        namespace.delete_with("d", None, Some(Durability::Os)).unwrap();
        faults.stop_at(faults.steps() + step);
        let compacted = store.compact_subset(u64::MAX);
        for (crash, disk) in after_crashes(&disk, 10) {
            let namespace = open_at(&disk, &clock).open_namespace("N").unwrap();
            let k = namespace.get("k").unwrap();
            let k = k.unwrap_or_else(|| panic!("step {step}, {crash}: both values are lost"));
            assert!(k == *b"old" || k == *b"new", "step {step}, {crash}");
            *(if k == *b"old" { &mut old } else { &mut new }) += 1;
            let deleted = !namespace.contains("d").unwrap();
            assert!(!deleted || k == *b"new", "step {step}, {crash}: a hole");
        }
        last = step;
        if !faults.is_stopped() {
            compacted.unwrap();
            break;
        }
    }
    assert!(last >= 8, "only {last} steps");
    at_least(10, old, "crashes that left the old value");
    at_least(10, new, "crashes that left the new one");
}
