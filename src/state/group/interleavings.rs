//! Interleavings of readers, writers and the settling of a batch, explored by shuttle:
//! `RUSTFLAGS="--cfg shuttle" cargo test --lib state::group`.
//!
//! Threads may switch at every load and store of the epoch, of a record's mark as settled and of a
//! slot, and at the locks of the writers, of changes and of the keydir. What is not covered:
//! shuttle's atomics are sequentially consistent, so the memory orderings rest on the argument in
//! the parent module; and `ArcSwap` is not instrumented, so loading and publishing a group are
//! single steps.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::sync::Arc;

use shuttle::thread;

use super::AT_ONCE_MAX;
use crate::storage::MemStorage;
use crate::{Durability, Maintenance, Namespace, Snapshot, Store};

/// Schedules tried per kind.
const SCHEDULES: usize = 300;

/// Context switches that a priority schedule inserts.
const DEPTH: usize = 4;

/// Runs a scenario under many schedules. A failure prints the schedule, which `shuttle::replay`
/// repeats.
fn explore(scenario: fn()) {
    shuttle::check_random(scenario, SCHEDULES);
    shuttle::check_pct(scenario, SCHEDULES, DEPTH);
}

fn open() -> (Store, Namespace) {
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .durability(Durability::Buffered)
        .segment_bytes(1 << 20)
        .storage(Arc::new(MemStorage::new()))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    for key in ["a", "b", "c"] {
        namespace.put(key, "0").unwrap();
    }
    (store, namespace)
}

/// Puts this value under "a" and "c", deletes "b", and more, as one batch.
fn commit(store: &Store, namespace: &Namespace, value: &str, is_large: bool) {
    let mut batch = store.batch();
    batch.put(namespace, "a", value).delete(namespace, "b");
    for number in 0..if is_large { AT_ONCE_MAX } else { 0 } {
        batch.put(namespace, format!("more {number}"), value);
    }
    batch.put(namespace, "c", value);
    batch.commit().unwrap();
}

/// The values of "a", "b" and "c", in one look.
fn look(namespace: &Namespace) -> [Option<u64>; 3] {
    let found = namespace.get_many(&["a", "b", "c"]).unwrap();
    let number = |value: crate::Value| value.as_str().unwrap().parse().unwrap();
    found
        .into_iter()
        .map(|value| value.map(number))
        .collect::<Vec<_>>()
        .try_into()
        .unwrap()
}

fn get(namespace: &Namespace, key: &str) -> Option<u64> {
    namespace
        .get(key)
        .unwrap()
        .map(|value| value.as_str().unwrap().parse().unwrap())
}

#[test]
fn a_large_batch_is_seen_as_a_whole_and_stays_seen() {
    explore(|| {
        let (store, namespace) = open();
        let writer = thread::spawn({
            let (store, namespace) = (store.clone(), namespace.clone());
            move || commit(&store, &namespace, "1", true)
        });
        let mut seen = false;
        for _ in 0..2 {
            let whole = look(&namespace);
            assert!(
                whole == [Some(0), Some(0), Some(0)] || whole == [Some(1), None, Some(1)],
                "{whole:?}"
            );
            assert!(!seen || whole[0] == Some(1), "it has gone again");
            seen |= whole[0] == Some(1);
            for (key, after) in [("c", Some(1)), ("b", None), ("a", Some(1))] {
                let found = get(&namespace, key);
                assert!(!seen || found == after, "{key} has gone back to {found:?}");
                seen |= found == after;
            }
        }
        writer.join().unwrap();
        assert_eq!(look(&namespace), [Some(1), None, Some(1)]);
    });
}

#[test]
fn what_is_written_after_a_batch_that_is_being_settled_stays() {
    explore(|| {
        let (store, namespace) = open();
        let writer = thread::spawn({
            let (store, namespace) = (store.clone(), namespace.clone());
            move || commit(&store, &namespace, "1", true)
        });
        let other = thread::spawn({
            let (store, namespace) = (store.clone(), namespace.clone());
            move || {
                while get(&namespace, "c") != Some(1) {
                    thread::yield_now();
                }
                namespace.put("c", "2").unwrap();
                assert_eq!(get(&namespace, "c"), Some(2));
                assert!(namespace.delete("a").unwrap().existed);
                assert_eq!(get(&namespace, "a"), None);
                commit(&store, &namespace, "3", false);
                assert_eq!(look(&namespace), [Some(3), None, Some(3)]);
                namespace.put("b", "4").unwrap();
            }
        });
        let mut last = None;
        for _ in 0..3 {
            let found = get(&namespace, "c");
            assert!(found >= last, "{found:?} after {last:?}");
            last = found;
        }
        writer.join().unwrap();
        other.join().unwrap();
        assert_eq!(look(&namespace), [Some(3), Some(4), Some(3)]);
        assert_eq!(namespace.count().unwrap(), 3 + AT_ONCE_MAX as u64);
    });
}

#[test]
fn a_snapshot_taken_while_a_batch_is_being_settled_shows_one_moment() {
    explore(|| {
        let (store, namespace) = open();
        let writer = thread::spawn({
            let (store, namespace) = (store.clone(), namespace.clone());
            move || {
                commit(&store, &namespace, "1", true);
                namespace.put("b", "2").unwrap();
            }
        });
        let snapshot = store.snapshot().unwrap();
        let read = |snapshot: &Snapshot, key: &str| {
            let value = snapshot.get(&namespace, key).unwrap();
            value.map(|value| value.as_str().unwrap().parse::<u64>().unwrap())
        };
        let first = ["a", "b", "c"].map(|key| read(&snapshot, key));
        let whole = match first {
            [Some(0), Some(0), Some(0)] => true,
            [Some(1), None | Some(2), Some(1)] => true,
            _ => false,
        };
        assert!(whole, "{first:?}");
        writer.join().unwrap();
        assert_eq!(["a", "b", "c"].map(|key| read(&snapshot, key)), first);
        assert_eq!(look(&namespace), [Some(1), Some(2), Some(1)]);
    });
}

#[test]
fn a_batch_published_over_another_is_seen_as_a_whole_by_others_too() {
    explore(|| {
        let (store, namespace) = open();
        let large = thread::spawn({
            let (store, namespace) = (store.clone(), namespace.clone());
            move || commit(&store, &namespace, "1", true)
        });
        let small = thread::spawn({
            let (store, namespace) = (store.clone(), namespace.clone());
            move || {
                while get(&namespace, "c") != Some(1) {
                    thread::yield_now();
                }
                commit(&store, &namespace, "2", false);
            }
        });
        for _ in 0..3 {
            let seen = look(&namespace);
            let whole = [
                [Some(0), Some(0), Some(0)],
                [Some(1), None, Some(1)],
                [Some(2), None, Some(2)],
            ];
            assert!(whole.contains(&seen), "{seen:?}");
        }
        large.join().unwrap();
        small.join().unwrap();
        assert_eq!(look(&namespace), [Some(2), None, Some(2)]);
    });
}
