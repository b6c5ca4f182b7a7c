//! Concurrent changes that depend on the value: none is lost, none is done twice.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};

use embercask::storage::MemStorage;
use embercask::{Condition, Durability, Error, PutOptions, Update, Value};

use crate::concurrency::small;
use test_support::{DIRECTORY, StopOnDrop, text, until};

#[test]
fn threads_that_increment_one_number_lose_nothing() {
    const THREADS: i64 = 8;
    const INCREMENTS: i64 = 200;
    let store = small(&MemStorage::new())
        .durability(Durability::Os)
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    let begin = Barrier::new(THREADS as usize);
    let sums = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                begin.wait();
                for _ in 0..INCREMENTS {
                    let sum = namespace.increment("n", 1).unwrap();
                    assert!(sums.lock().unwrap().insert(sum), "two increments gave {sum}");
                }
            });
        }
    });
    assert_eq!(text(&namespace, "n"), Some((THREADS * INCREMENTS).to_string()));
    assert_eq!(sums.into_inner().unwrap().last(), Some(&(THREADS * INCREMENTS)));
}

#[test]
fn of_many_who_take_a_key_exactly_one_gets_it() {
    const THREADS: usize = 4;
    const KEYS: usize = 300;
    let store = small(&MemStorage::new())
        .durability(Durability::Buffered)
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    for key in 0..KEYS {
        namespace.put(key.to_string(), "value").unwrap();
    }
    let begin = Barrier::new(THREADS);
    let taken: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    begin.wait();
                    let keys = 0..KEYS;
                    keys.filter(|key| namespace.take(key.to_string()).unwrap().is_some())
                        .count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(taken, KEYS);
    assert_eq!(namespace.count().unwrap(), 0);
}

#[test]
fn conditions_on_a_value_hold_at_the_moment_of_the_write() {
    const ROUNDS: usize = 2_000;
    let store = small(&MemStorage::new())
        .durability(Durability::Buffered)
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    // Two threads move the state round and round; each may only do its own step.
    let step = |from: &'static str, to: &str, how: usize| {
        let is_from = |old: Option<&Value>| old.map_or("", |old| old.as_str().unwrap()) == from;
        match how % 2 {
            0 => namespace
                .put_when("state", to, &PutOptions::new(), is_from)
                .map(|_| true),
            _ => namespace
                .update("state", |old| match is_from(old) {
                    true => Update::Put(to.as_bytes().to_vec(), PutOptions::new()),
                    false => Update::Keep,
                })
                .map(|updated| updated.sequence.is_some()),
        }
    };
    namespace.put("state", "a").unwrap();
    std::thread::scope(|scope| {
        for (from, to) in [("a", "b"), ("b", "a")] {
            let (step, namespace) = (&step, &namespace);
            scope.spawn(move || {
                let mut done = 0;
                while done < ROUNDS {
                    match step(from, to, done) {
                        Ok(true) => {
                            done += 1;
                            // No thread may take this step back but the other thread.
                            namespace.increment(format!("from {from}"), 1).unwrap();
                        }
                        Ok(false) | Err(Error::Conflict { .. }) => std::thread::yield_now(),
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    assert_eq!(text(&namespace, "state").as_deref(), Some("a"));
    for from in ["from a", "from b"] {
        assert_eq!(text(&namespace, from), Some(ROUNDS.to_string()));
    }
}

#[test]
fn each_element_of_a_queue_goes_to_exactly_one_of_its_consumers() {
    const PRODUCERS: u64 = 2;
    const CONSUMERS: usize = 4;
    const ELEMENTS: u64 = 400;
    let store = small(&MemStorage::new())
        .durability(Durability::Buffered)
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("other", "").unwrap();
    let produced = AtomicU64::new(0);
    let (popped, expected) = std::thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let (namespace, produced) = (&namespace, &produced);
            scope.spawn(move || {
                for n in 0..ELEMENTS {
                    let key = format!("jobs/{n:04}-{producer}");
                    namespace.put(&key, &key).unwrap();
                    produced.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let consumers: Vec<_> = (0..CONSUMERS)
            .map(|consumer| {
                let (namespace, produced) = (&namespace, &produced);
                scope.spawn(move || {
                    let mut popped = Vec::new();
                    loop {
                        let all = produced.load(Ordering::SeqCst) == PRODUCERS * ELEMENTS;
                        let found = match consumer % 2 {
                            0 => namespace.pop_first("jobs/"),
                            _ => namespace.pop_last("jobs/"),
                        };
                        match found.unwrap() {
                            Some((key, value)) => {
                                assert_eq!(value, key, "the value of another key");
                                popped.push(key);
                            }
                            None if all => return popped,
                            None => std::thread::yield_now(),
                        }
                    }
                })
            })
            .collect();
        let popped: Vec<_> = consumers
            .into_iter()
            .flat_map(|consumer| consumer.join().unwrap())
            .collect();
        let keys = (0..ELEMENTS).flat_map(|n| (0..PRODUCERS).map(move |producer| (n, producer)));
        let expected: BTreeSet<_> = keys
            .map(|(n, producer)| format!("jobs/{n:04}-{producer}").into_bytes())
            .collect();
        (popped, expected)
    });
    assert_eq!(popped.len(), expected.len());
    assert_eq!(popped.into_iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!(text(&namespace, "other").as_deref(), Some(""));
}

#[test]
fn a_queue_that_is_only_overwritten_is_never_found_empty() {
    const POPS: usize = 300;
    let store = small(&MemStorage::new())
        .durability(Durability::Buffered)
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    let (wanted, stopped) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // One key, put once before each pop and overwritten again and again meanwhile.
            while !stopped.load(Ordering::SeqCst) {
                match wanted.load(Ordering::SeqCst) % 2 {
                    0 => drop(namespace.put("key", "value").unwrap()),
                    _ => match namespace.put_if("key", "value", Condition::Present) {
                        Ok(_) | Err(Error::Conflict { .. }) => {}
                        Err(error) => panic!("{error}"),
                    },
                }
            }
        });
        let _stop = StopOnDrop(&stopped);
        for _ in 0..POPS {
            // Seen by a listing: a get may see it a moment earlier.
            until("the key is put", || namespace.count().unwrap() == 1);
            // From here on the key is not put again once it is gone.
            wanted.fetch_add(1, Ordering::SeqCst);
            assert!(
                namespace.pop_first("").unwrap().is_some(),
                "the key was there all the time"
            );
            wanted.fetch_add(1, Ordering::SeqCst);
        }
    });
}
