//! Concurrent conditional writes: each condition holds at the moment of its write.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use embercask::storage::MemStorage;
use embercask::{Condition, Durability, Error, ErrorKind, PutOptions};

use crate::concurrency::{intact, small, value_of};
use test_support::{DIRECTORY, text};

#[test]
fn counting_by_sequence_loses_no_increment() {
    const THREADS: u64 = 6;
    const INCREMENTS: u64 = 150;
    let store = small(&MemStorage::new())
        .durability(Durability::Os)
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("counter", "0").unwrap();
    let begin = Barrier::new(THREADS as usize);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                begin.wait();
                for _ in 0..INCREMENTS {
                    loop {
                        let value = namespace.get("counter").unwrap().unwrap();
                        let next = value.as_str().unwrap().parse::<u64>().unwrap() + 1;
                        // Lets another thread write between the read and the write.
                        std::thread::yield_now();
                        let condition = Condition::Sequence(value.sequence());
                        match namespace.put_if("counter", next.to_string(), condition) {
                            Ok(sequence) => break assert!(sequence > value.sequence()),
                            // Another thread was faster, and the conflict returns its sequence.
                            Err(Error::Conflict { found: Some(found) }) => assert!(found > value.sequence()),
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(text(&namespace, "counter"), Some((THREADS * INCREMENTS).to_string()));
}

#[test]
fn moving_between_two_keys_in_batches_keeps_their_sum() {
    let store = small(&MemStorage::new())
        .durability(Durability::Buffered)
        .open(DIRECTORY)
        .unwrap();
    let (left, right) = (store.namespace("left").unwrap(), store.namespace("right").unwrap());
    store
        .batch()
        .put(&left, "balance", "1000")
        .put(&right, "balance", "0")
        .commit()
        .unwrap();
    let (moved, transfers) = (AtomicU64::new(0), 120);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..transfers {
                    loop {
                        let (from, to) = (
                            left.get("balance").unwrap().unwrap(),
                            right.get("balance").unwrap().unwrap(),
                        );
                        let [less, more] = [&from, &to].map(|value| value.as_str().unwrap().parse::<u64>().unwrap());
                        let unchanged = |sequence| PutOptions::new().condition(Condition::Sequence(sequence));
                        let mut batch = store.batch();
                        batch.put_with(&left, "balance", (less - 1).to_string(), unchanged(from.sequence()));
                        batch.put_with(&right, "balance", (more + 1).to_string(), unchanged(to.sequence()));
                        match batch.commit() {
                            Ok(_) => {
                                moved.fetch_add(1, Ordering::SeqCst);
                                break;
                            }
                            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(moved.into_inner(), 480);
    assert_eq!(text(&left, "balance").as_deref(), Some("520"));
    assert_eq!(text(&right, "balance").as_deref(), Some("480"));
}

#[test]
fn of_many_who_put_an_absent_key_exactly_one_wins() {
    const THREADS: usize = 6;
    let store = small(&MemStorage::new()).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    let barrier = Barrier::new(THREADS);
    let winners: Vec<AtomicUsize> = (0..100).map(|_| AtomicUsize::new(0)).collect();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (namespace, barrier, winners) = (&namespace, &barrier, &winners);
            scope.spawn(move || {
                for (round, winner) in winners.iter().enumerate() {
                    let key = format!("{round}");
                    // In every other round the key existed before and was deleted.
                    if round % 2 == 0 && thread == 0 {
                        namespace.put(&key, "before").unwrap();
                        namespace.delete(&key).unwrap();
                    }
                    barrier.wait();
                    match namespace.put_if(&key, thread.to_string(), Condition::Absent) {
                        Ok(_) => drop(winner.fetch_add(1 + thread * 100, Ordering::SeqCst)),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
                    }
                }
            });
        }
    });
    for (round, winner) in winners.iter().enumerate() {
        let winner = winner.load(Ordering::SeqCst);
        assert_eq!(winner % 100, 1, "round {round}");
        assert_eq!(
            text(&namespace, &format!("{round}")),
            Some((winner / 100).to_string()),
            "the winner's write was overwritten"
        );
    }
}

#[test]
fn changes_of_metadata_and_expiry_beside_writers_lose_no_value() {
    let store = small(&MemStorage::new())
        .durability(Durability::Buffered)
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", value_of(0)).unwrap();
    let (newest, changers_done) = (AtomicU64::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let changers_done = &changers_done;
        scope.spawn(|| {
            // As long as the other threads run, and at least this many times.
            for n in 1.. {
                namespace.put("key", value_of(n)).unwrap();
                newest.store(n, Ordering::SeqCst);
                if n >= 300 && changers_done.load(Ordering::SeqCst) == 2 {
                    break;
                }
            }
        });
        for thread in 0..2 {
            let namespace = &namespace;
            scope.spawn(move || {
                let mut least = 0;
                for _ in 0..150 {
                    let changed = if thread == 0 {
                        namespace.set_metadata("key", Some(b"m"))
                    } else {
                        namespace.set_ttl("key", Duration::from_secs(1000))
                    };
                    assert!(changed.unwrap());
                    let found = intact(&namespace.get("key").unwrap().unwrap());
                    assert!(found >= least, "an older value was written back");
                    least = found;
                }
                changers_done.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    assert_eq!(intact(&namespace.get("key").unwrap().unwrap()), newest.into_inner());
}
