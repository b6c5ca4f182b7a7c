//! Deleting many keys beside others that write.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use embercask::storage::MemStorage;
use embercask::{Durability, Namespace, Store};

use crate::concurrency::{intact, small, value_of};
use test_support::{DIRECTORY, StopOnDrop, rng, until};

const ROUNDS: u64 = 10;
/// Keys that are there before the call and that no other thread touches.
const PERMANENT: u64 = 300;
/// Keys of a batch under each prefix: so many that it enters the indexes while others write.
const OF_BATCH: u64 = 300;
/// Batches that put keys of the prefix while it is deleted; with more, the call might never end.
const BATCHES_MEANWHILE: u64 = 12;
/// Names of kept keys that each writer goes round.
const KEPT: u64 = 4;
/// Writes that each writer begins after the call.
const AFTER: u64 = 5;
/// Next to the prefix on both sides.
const BESIDE: [&str; 4] = ["gone", "gone.", "gone0", "h"];

fn of_batch(batch: u64) -> impl Iterator<Item = String> {
    (0..OF_BATCH).map(move |number| format!("gone/{number:03} batch {batch}"))
}

/// What the threads share.
struct Work<'a> {
    store: &'a Store,
    namespace: &'a Namespace,
    /// Acknowledged writes.
    written: AtomicU64,
    is_deleted: AtomicBool,
    stop: AtomicBool,
}

impl Work<'_> {
    /// Writes with rising numbers, until some of them were begun after the prefix was deleted. The
    /// function is told which were. Returns how many there were, and how many of them before.
    fn write(&self, write: impl Fn(u64, bool)) -> (u64, u64) {
        let (mut number, mut before) = (0, None);
        while before.is_none_or(|before| number < before + AFTER) && !self.stop.load(Ordering::SeqCst) {
            if before.is_none() && self.is_deleted.load(Ordering::SeqCst) {
                before = Some(number);
            }
            write(number, before.is_some());
            number += 1;
            self.written.fetch_add(1, Ordering::SeqCst);
        }
        (number, before.unwrap_or(number))
    }

    fn write_batch(&self, number: u64, is_after: bool) {
        let value = value_of(number);
        let mut batch = self.store.batch();
        if is_after || number < BATCHES_MEANWHILE {
            for key in of_batch(number) {
                batch.put(self.namespace, key, &value);
            }
        }
        for key in 0..OF_BATCH {
            batch.put(self.namespace, format!("kept/{} {key:03}", number % KEPT), &value);
        }
        batch.commit().unwrap();
    }

    fn put(&self, number: u64, is_after: bool) {
        let key = match is_after {
            true => format!("gone/put {number}"),
            false => format!("gone/{:03} put", number % PERMANENT),
        };
        self.namespace.put(key, value_of(number)).unwrap();
        let key = format!("kept/put {}", number % KEPT);
        self.namespace.put(key, value_of(number)).unwrap();
    }
}

/// The numbers in all keys with this prefix.
fn numbers(namespace: &Namespace, prefix: &str) -> BTreeMap<String, u64> {
    let entries = namespace.list().prefix(prefix).with_values().into_iter().map(|entry| {
        let entry = entry.unwrap();
        (entry.key_str().unwrap().to_owned(), intact(entry.value().unwrap()))
    });
    entries.collect()
}

#[test]
fn a_prefix_deleted_beside_writers_loses_what_was_there_and_nothing_else() {
    let mut rng = rng();
    for _ in 0..ROUNDS {
        let store = small(&MemStorage::new())
            .durability(Durability::Buffered)
            .open(DIRECTORY)
            .unwrap();
        let namespace = store.namespace("N").unwrap();
        let permanent: Vec<_> = (0..PERMANENT).map(|n| format!("gone/{n:03}")).collect();
        for key in permanent.iter().map(String::as_str).chain(BESIDE) {
            namespace.put(key, value_of(0)).unwrap();
        }
        let (seen, batch_keys) = (rng.below(6), 1 + rng.below(100) as usize);
        let work = Work {
            store: &store,
            namespace: &namespace,
            written: AtomicU64::new(0),
            is_deleted: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        };
        let ((batches, batches_before), (puts, puts_before)) = std::thread::scope(|scope| {
            let _stop = StopOnDrop(&work.stop);
            let batches = scope.spawn(|| work.write(|number, is_after| work.write_batch(number, is_after)));
            let puts = scope.spawn(|| work.write(|number, is_after| work.put(number, is_after)));
            // Seen, though it may not be acknowledged yet.
            let first = of_batch(seen).next().unwrap();
            until("the batch is seen", || namespace.contains(&first).unwrap());
            let delete = namespace.delete_prefix("gone/").batch_keys(batch_keys);
            let delete = delete.on_progress(|_| {
                let before = work.written.load(Ordering::SeqCst);
                until("another write", || work.written.load(Ordering::SeqCst) > before);
                true
            });
            let deleted = delete.run().unwrap();
            assert!(deleted.count >= PERMANENT + OF_BATCH * (seen + 1), "{deleted:?}");
            let are_gone = || {
                let left = numbers(&namespace, "gone/");
                let gone = permanent.iter().cloned().chain((0..=seen).flat_map(of_batch));
                for key in gone {
                    assert!(!left.contains_key(&key), "{key} is listed");
                    assert!(!namespace.contains(&key).unwrap(), "{key} is there");
                }
            };
            are_gone();
            work.is_deleted.store(true, Ordering::SeqCst);
            let numbers = (batches.join().unwrap(), puts.join().unwrap());
            are_gone();
            numbers
        });
        // What was begun after the call stays.
        let left = numbers(&namespace, "gone/");
        let put = (puts_before..puts).map(|number| (format!("gone/put {number}"), number));
        let after = (batches_before..batches).flat_map(|number| of_batch(number).map(move |key| (key, number)));
        for (key, number) in put.chain(after) {
            assert_eq!(left.get(&key), Some(&number), "{key}");
        }
        // So does what has another prefix.
        let mut expected = BTreeMap::new();
        for number in 0..batches {
            expected.extend((0..OF_BATCH).map(|key| (format!("kept/{} {key:03}", number % KEPT), number)));
        }
        expected.extend((0..puts).map(|number| (format!("kept/put {}", number % KEPT), number)));
        assert_eq!(numbers(&namespace, "kept/"), expected);
        for key in BESIDE {
            assert!(namespace.contains(key).unwrap(), "{key} is missing");
        }
    }
}
