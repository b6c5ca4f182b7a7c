//! What reading several keys at one moment costs, and what it costs others.
//!
//! `cargo bench --bench moments` prints one line a figure:
//!
//! * gets and puts beside one batch of two million puts of 50 bytes: the slowest;
//! * `get_many` of 20,000 keys and a page of 1,000 keys, alone and beside a stream of batches;
//! * a snapshot held over a million overwrites: its memory, gets of the store and of the snapshot, and a
//!   count of the snapshot;
//! * transactions a second that add to one of many counters, on two threads, by the number of counters.
//!
//! `-- --test` runs little of each, to see that it works.

#[allow(dead_code, reason = "no bench uses all of it")]
mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{directory, filled, mix, random_key, value};
use embercask::{Durability, Namespace, Result, Store, Transaction, TransactionOptions};

/// How much is done.
struct Size {
    batch: u64,
    keys: u64,
    time: Duration,
    rounds: u32,
}

const WHOLE: Size = Size {
    batch: 2_000_000,
    keys: 1_000_000,
    time: Duration::from_secs(2),
    rounds: 5,
};

const LITTLE: Size = Size {
    batch: 10_000,
    keys: 30_000,
    time: Duration::from_millis(50),
    rounds: 1,
};

fn main() {
    let mut size = &WHOLE;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--test" => size = &LITTLE,
            // Passed by Cargo.
            "--bench" => {}
            _ => panic!("{argument} is not --test"),
        }
    }
    beside_a_batch(size);
    beside_batches(size);
    over_a_snapshot(size);
    transactions(size);
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// The slowest of these operations until `done`, and how many there were.
fn slowest(done: &AtomicBool, mut operation: impl FnMut(u64)) -> (Duration, u64) {
    let (mut slowest, mut count) = (Duration::ZERO, 0);
    while !done.load(Ordering::Acquire) {
        let begun = Instant::now();
        operation(count);
        slowest = slowest.max(begun.elapsed());
        count += 1;
    }
    (slowest, count)
}

fn beside_a_batch(size: &Size) {
    let directory = directory();
    let (store, namespace) = filled(directory.path(), size.keys, random_key);
    for (what, writes) in [("get", false), ("put", true)] {
        let mut batch = store.batch();
        batch.durability(Durability::Os);
        for number in 0..size.batch {
            batch.put(&namespace, random_key(number), [number as u8; 50]);
        }
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let beside = scope.spawn(|| {
                slowest(&done, |number| {
                    let key = random_key(mix(number) % size.keys);
                    match writes {
                        true => drop(namespace.put(key, value(number))),
                        false => drop(namespace.get(key).expect("a get")),
                    }
                })
            });
            let begun = Instant::now();
            batch.commit().expect("a batch");
            let took = begun.elapsed();
            done.store(true, Ordering::Release);
            let (slowest, count) = beside.join().expect("a thread");
            println!(
                "{what} beside a batch of {} puts, committed in {:.0} ms: slowest {:.0} us of {count}",
                size.batch,
                took.as_secs_f64() * 1e3,
                micros(slowest)
            );
        });
    }
}

/// The median time of reading.
fn reading(size: &Size, mut read: impl FnMut()) -> Duration {
    let begun = Instant::now();
    let mut times = Vec::new();
    while begun.elapsed() < size.time || times.is_empty() {
        let begun = Instant::now();
        read();
        times.push(begun.elapsed());
    }
    median(times)
}

fn beside_batches(size: &Size) {
    let directory = directory();
    let (store, namespace) = filled(directory.path(), size.keys, random_key);
    let keys: Vec<_> = (0..20_000).map(|number| random_key(mix(number) % size.keys)).collect();
    let many = || drop(namespace.get_many(&keys).expect("values"));
    let page = || drop(namespace.list().start(random_key(7)).page().expect("a page"));
    let alone = [reading(size, many), reading(size, page)];
    for records in [10, 100, 1000] {
        let done = AtomicBool::new(false);
        let batches = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut batch = store.batch();
                batch.durability(Durability::Buffered);
                for number in 0.. {
                    for record in 0..records {
                        let key = random_key(mix(number * records + record) % size.keys);
                        batch.put(&namespace, key, value(number));
                    }
                    batch.commit().expect("a batch");
                    batches.fetch_add(1, Ordering::Relaxed);
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            let beside = [reading(size, many), reading(size, page)];
            done.store(true, Ordering::Relaxed);
            for (what, alone, beside) in [
                ("get_many of 20,000", alone[0], beside[0]),
                ("a page of 1,000", alone[1], beside[1]),
            ] {
                println!(
                    "{what} beside batches of {records}: {:.0} us, alone {:.0} us: {:.2} x",
                    micros(beside),
                    micros(alone),
                    beside.as_secs_f64() / alone.as_secs_f64()
                );
            }
        });
    }
}

/// The time of one of many gets of keys in no order.
fn gets(size: &Size, get: impl Fn(&[u8])) -> Duration {
    let rounds = (0..size.rounds).map(|round| {
        let begun = Instant::now();
        let count = size.keys.min(500_000);
        for number in 0..count {
            get(&random_key(mix(number + u64::from(round)) % size.keys));
        }
        begun.elapsed() / count as u32
    });
    median(rounds.collect())
}

fn over_a_snapshot(size: &Size) {
    let directory = directory();
    let (store, namespace) = filled(directory.path(), size.keys, random_key);
    let of_store = |key: &[u8]| drop(namespace.get(key).expect("a get"));
    let before = gets(size, of_store);
    let snapshot = store.snapshot().expect("a snapshot");
    let unchanged = gets(size, |key| drop(snapshot.get(&namespace, key).expect("a get")));
    let overwrite = || {
        let begun = Instant::now();
        for number in 0..size.keys {
            namespace.put(random_key(number), value(number + 1)).expect("a put");
        }
        begun.elapsed() / size.keys as u32
    };
    let first = overwrite();
    let held = store.stats().snapshots;
    let second = overwrite();
    let (beside, replaced) = (
        gets(size, of_store),
        gets(size, |key| drop(snapshot.get(&namespace, key).expect("a get"))),
    );
    let begun = Instant::now();
    assert_eq!(snapshot.count(&namespace).expect("a count"), size.keys);
    println!(
        "a snapshot over {} overwrites: {:.0} bytes of memory a record (estimated), {} MiB of disk; a count takes {:.1} ms",
        size.keys,
        held.memory_bytes as f64 / held.kept_records as f64,
        held.disk_bytes >> 20,
        begun.elapsed().as_secs_f64() * 1e3
    );
    let begun = Instant::now();
    drop(snapshot);
    println!(
        "gets: {:.2} us before, {:.2} beside it; of the snapshot {:.2} and, all replaced, {:.2}; dropped in {:.1} ms",
        micros(before),
        micros(beside),
        micros(unchanged),
        micros(replaced),
        begun.elapsed().as_secs_f64() * 1e3
    );
    let without = overwrite();
    println!(
        "overwrites: {:.2} us, the first of each key beside a snapshot {:.2}, later ones {:.2}",
        micros(without),
        micros(first),
        micros(second)
    );
}

fn add_one(transaction: &mut Transaction, counters: &Namespace, key: &str) -> Result<()> {
    let old = transaction.get(counters, key)?;
    let old = old.map_or(0, |value| {
        u64::from_le_bytes(value[..].try_into().expect("eight bytes"))
    });
    transaction.put(counters, key, (old + 1).to_le_bytes())
}

fn transactions(size: &Size) {
    for (conflict, counters) in [("no", 1_000_000), ("some", 1_000), ("heavy", 2)] {
        let directory = directory();
        let store = Store::options()
            .durability(Durability::Os)
            .open(directory.path())
            .expect("a store");
        let namespace = store.namespace("counters").expect("a namespace");
        let (commits, attempts) = (AtomicU64::new(0), AtomicU64::new(0));
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (store, namespace, commits, attempts) = (&store, &namespace, &commits, &attempts);
                scope.spawn(move || {
                    let options = TransactionOptions::new().attempts(u32::MAX);
                    for number in 0.. {
                        let key = format!("{}", mix(number * 2 + thread) % counters);
                        let run = |transaction: &mut Transaction| add_one(transaction, namespace, &key);
                        let committed = store.transaction_with(&options, run).expect("a transaction");
                        commits.fetch_add(1, Ordering::Relaxed);
                        attempts.fetch_add(u64::from(committed.attempts), Ordering::Relaxed);
                        if begun.elapsed() > size.time {
                            break;
                        }
                    }
                });
            }
        });
        let commits = commits.into_inner();
        let sum: u64 = (namespace.list().with_values().into_iter())
            .map(|entry| {
                let entry = entry.expect("an entry");
                u64::from_le_bytes(entry.value().expect("a value")[..].try_into().expect("eight bytes"))
            })
            .sum();
        assert_eq!(sum, commits, "an addition was lost");
        println!(
            "transactions, {conflict} conflict: {:.0} a second, {:.3} attempts each",
            commits as f64 / begun.elapsed().as_secs_f64(),
            attempts.into_inner() as f64 / commits as f64
        );
    }
}
