//! Threads that write, read, list, compact, drop and close at once. What each of them may see is checked against what was
//! acknowledged before it looked. Bounded by numbers of operations, not by time; the order is the scheduler's, everything else comes
//! from a seed.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use common::{DIRECTORY, Rng, class, rng, text};
use embercask::storage::{CutPolicy, MemStorage};
use embercask::{Condition, Durability, Error, ErrorKind, Namespace, Options, ReadMode, Store};

const SEGMENT_BYTES: u64 = 16 << 10;

/// Keys that each plain writer goes round.
const KEYS: usize = 4;
const WRITERS: usize = 3;
const BATCHERS: usize = 2;
const STEADY: usize = 150;

/// What was acknowledged so far.
#[derive(Default)]
struct Acknowledged {
    /// Newest number of each key of each writer.
    plain: [[AtomicU64; KEYS]; WRITERS],
    /// Newest number of each batcher.
    batched: [AtomicU64; BATCHERS],
    done: AtomicBool,
}

/// What takes part.
struct Storm {
    store: Store,
    first: Namespace,
    second: Namespace,
    acknowledged: Acknowledged,
    operations: u64,
}

fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(*value.first_chunk().expect("a number is in each value"))
}

/// A number, and as much after it as makes segments fill up; all of it made from the number.
fn value_of(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(2 + number as usize % 40)
}

/// The number of a value, the rest of which is as it was written.
#[track_caller]
fn intact(value: &[u8]) -> u64 {
    let number = number(value);
    assert_eq!(value, value_of(number), "a value that nobody wrote");
    number
}

fn random_class(rng: &mut Rng) -> Durability {
    match rng.below(60) {
        0 => Durability::Sync,
        1..20 => Durability::Os,
        _ => Durability::Buffered,
    }
}

impl Storm {
    fn plain_key(writer: usize, key: usize) -> String {
        format!("plain {writer} {key}")
    }

    fn write_plain(&self, writer: usize, mut rng: Rng) {
        for n in 1..=self.operations {
            let key = n as usize % KEYS;
            let options = class(random_class(&mut rng));
            self.first
                .put_with(Self::plain_key(writer, key), value_of(n), options)
                .unwrap();
            self.acknowledged.plain[writer][key].store(n, Ordering::SeqCst);
        }
    }

    /// The same number under two keys of one namespace and one of another.
    fn write_batches(&self, batcher: usize, mut rng: Rng) {
        for n in 1..=self.operations {
            let value = value_of(n);
            let batch = self.store.batch().put(&self.first, format!("pair {batcher} a"), &value);
            let batch = batch.put(&self.second, format!("pair {batcher} b"), &value);
            let batch = batch.put(&self.first, format!("pair {batcher} c"), &value);
            batch.durability(random_class(&mut rng)).commit().unwrap();
            self.acknowledged.batched[batcher].store(n, Ordering::SeqCst);
        }
    }

    /// Keys that come, go and expire between those that stay, which are overwritten, too.
    fn churn(&self, mut rng: Rng) {
        for n in 1..=self.operations {
            let steady = rng.below(STEADY as u64);
            let options = class(Durability::Buffered);
            let fleeting = format!("steady {steady:03} {}", rng.below(3));
            match rng.below(4) {
                0 => drop(
                    self.first
                        .put_with(format!("steady {steady:03}"), value_of(n), options)
                        .unwrap(),
                ),
                1 => drop(self.first.put_with(&fleeting, value_of(n), options).unwrap()),
                2 => {
                    let options = options.ttl(Duration::from_millis(1 + rng.below(5)));
                    self.first.put_with(&fleeting, value_of(n), options).unwrap();
                }
                _ => drop(
                    self.first
                        .delete_with(&fleeting, None, Some(Durability::Buffered))
                        .unwrap(),
                ),
            }
        }
    }

    fn read(&self, mut rng: Rng) {
        let mut plain = [[0; KEYS]; WRITERS];
        let mut batched = [0; BATCHERS];
        for _ in 0..self.operations {
            if rng.below(2) == 0 {
                let (writer, key) = (rng.below(WRITERS as u64) as usize, rng.below(KEYS as u64) as usize);
                let least = plain[writer][key].max(self.acknowledged.plain[writer][key].load(Ordering::SeqCst));
                let name = Self::plain_key(writer, key);
                if rng.below(8) == 0 {
                    assert!(least == 0 || self.first.contains(&name).unwrap(), "{name} is missing");
                    continue;
                }
                let found = self.first.get(&name).unwrap().map_or(0, |value| intact(&value));
                assert!(found >= least, "{name} went back to {found} from {least}");
                plain[writer][key] = found;
                continue;
            }
            let batcher = rng.below(BATCHERS as u64) as usize;
            let seen = &mut batched[batcher];
            let least = (*seen).max(self.acknowledged.batched[batcher].load(Ordering::SeqCst));
            let [a, b, c] = ["a", "b", "c"].map(|key| format!("pair {batcher} {key}"));
            let get = |namespace: &Namespace, key: &str| namespace.get(key).unwrap().map_or(0, |value| intact(&value));
            match rng.below(4) {
                0 => {
                    let first = get(&self.first, &a);
                    let second = get(&self.second, &b);
                    assert!(
                        least <= first && first <= second,
                        "half a batch: {least}, {first}, then {second}"
                    );
                    *seen = second;
                }
                1 => {
                    let first = get(&self.second, &b);
                    let second = get(&self.first, &c);
                    assert!(
                        least <= first && first <= second,
                        "half a batch: {least}, {first}, then {second}"
                    );
                    *seen = second;
                }
                2 => {
                    let found = self.first.get_many(&[&a, &c]).unwrap();
                    let [first, second] = [0, 1].map(|n| found[n].as_ref().map_or(0, |value| intact(value)));
                    assert!(
                        first == second && least <= first,
                        "half a batch: {least}, {first} and {second}"
                    );
                    *seen = first;
                }
                _ => {
                    let list = self.first.list().prefix(format!("pair {batcher} ")).with_values();
                    let list = if rng.below(2) == 0 { list.reverse() } else { list };
                    let page = list.page().unwrap();
                    let found: Vec<_> = page.iter().map(|entry| intact(entry.value().unwrap())).collect();
                    assert!(
                        found.is_empty() && least == 0 || found.len() == 2,
                        "half a batch: {found:?}"
                    );
                    assert!(
                        found.iter().all(|n| *n == found[0] && *n >= least),
                        "half a batch: {least}, {found:?}"
                    );
                    *seen = found.first().copied().unwrap_or(0);
                }
            }
        }
    }

    fn list(&self, mut rng: Rng) {
        let expected: Vec<_> = (0..STEADY).map(|n| format!("steady {n:03}")).collect();
        for _ in 0..self.operations / 20 {
            let (reverse, with_values) = (rng.below(2) == 0, rng.below(3) == 0);
            let mut list = self.first.list().prefix("steady ").limit(1 + rng.below(40) as usize);
            if reverse {
                list = list.reverse();
            }
            if with_values {
                list = list.with_values();
            }
            let mut keys = Vec::new();
            for entry in list {
                let entry = entry.unwrap();
                if with_values {
                    intact(entry.value().unwrap());
                }
                keys.push(entry.key_str().unwrap().to_owned());
            }
            if reverse {
                keys.reverse();
            }
            assert!(keys.is_sorted_by(|a, b| a < b), "out of order, or twice");
            keys.retain(|key| key.len() == "steady 000".len());
            assert_eq!(keys, expected, "each key that stays comes once");
            let count = self.first.list().prefix("steady ").count().unwrap() as usize;
            assert!((STEADY..=STEADY * 4).contains(&count), "{count}");
        }
    }

    fn maintain(&self, mut rng: Rng) {
        while !self.acknowledged.done.load(Ordering::SeqCst) {
            match rng.below(8) {
                0 => drop(self.store.compact().unwrap()),
                1 => drop(self.store.compact_if_worthwhile().unwrap()),
                2 => drop(self.store.compact_subset(rng.next()).unwrap()),
                3 => self.store.maintain().unwrap(),
                4 => self.store.flush().unwrap(),
                5 => self.store.sync().unwrap(),
                6 => {
                    let stats = self.store.stats();
                    assert_eq!((stats.poisoned, stats.background_error), (None, None));
                }
                _ => std::thread::yield_now(),
            }
        }
    }

    /// What stands when nobody writes any more.
    fn check_end(&self, store: &Store) {
        let (first, second) = (
            store.open_namespace("first").unwrap(),
            store.open_namespace("second").unwrap(),
        );
        for (writer, keys) in self.acknowledged.plain.iter().enumerate() {
            for (key, acknowledged) in keys.iter().enumerate() {
                let value = first.get(Self::plain_key(writer, key)).unwrap().unwrap();
                assert_eq!(intact(&value), acknowledged.load(Ordering::SeqCst));
            }
        }
        for batcher in 0..BATCHERS {
            for (namespace, key) in [(&first, "a"), (&second, "b"), (&first, "c")] {
                let value = namespace.get(format!("pair {batcher} {key}")).unwrap().unwrap();
                assert_eq!(intact(&value), self.operations);
            }
        }
        assert_eq!(second.count().unwrap(), BATCHERS as u64);
    }
}

fn storm(options: &dyn Fn() -> Options, directory: &Path, operations: u64) {
    let mut rng = rng();
    let store = options().open(directory).unwrap();
    let storm = Storm {
        first: store.namespace("first").unwrap(),
        second: store.namespace("second").unwrap(),
        store,
        acknowledged: Acknowledged::default(),
        operations,
    };
    for n in 0..STEADY {
        storm
            .first
            .put_with(format!("steady {n:03}"), value_of(0), class(Durability::Buffered))
            .unwrap();
    }
    std::thread::scope(|scope| {
        let storm = &storm;
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            let rng = rng.split();
            writers.push(scope.spawn(move || storm.write_plain(writer, rng)));
        }
        for batcher in 0..BATCHERS {
            let rng = rng.split();
            writers.push(scope.spawn(move || storm.write_batches(batcher, rng)));
        }
        let churn_rng = rng.split();
        writers.push(scope.spawn(move || storm.churn(churn_rng)));
        for _ in 0..3 {
            let rng = rng.split();
            scope.spawn(move || storm.read(rng));
        }
        for _ in 0..2 {
            let rng = rng.split();
            scope.spawn(move || storm.list(rng));
        }
        for _ in 0..2 {
            let rng = rng.split();
            scope.spawn(move || storm.maintain(rng));
        }
        let results: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        // Whatever happened to the writers, those who wait for them must not go on for ever.
        storm.acknowledged.done.store(true, Ordering::SeqCst);
        results.into_iter().for_each(|result| result.unwrap());
    });
    let stats = storm.store.stats();
    assert!(stats.compaction.runs > 0, "{stats:?}");
    storm.check_end(&storm.store);
    storm.store.clone().close().unwrap();
    let store = options().open(directory).unwrap();
    storm.check_end(&store);
    let listed = store
        .namespaces()
        .unwrap()
        .iter()
        .map(|info| store.open_namespace(&info.name).unwrap().count().unwrap())
        .sum::<u64>();
    store.maintain().unwrap();
    assert!(store.stats().keys <= listed, "no key is left that nobody can see");
    store.close().unwrap();
}

#[test]
fn everything_at_once_on_a_real_disk() {
    for read_mode in [ReadMode::Map, ReadMode::Pread] {
        let directory = tempfile::tempdir().unwrap();
        let options = || Store::options().segment_bytes(SEGMENT_BYTES).read_mode(read_mode);
        storm(&options, directory.path(), 1_500);
    }
}

#[test]
fn everything_at_once_on_a_simulated_disk() {
    let disk = MemStorage::new();
    let options = || {
        let options = Store::options()
            .segment_bytes(SEGMENT_BYTES)
            .storage(Arc::new(disk.clone()));
        options.flush_interval(Duration::from_millis(1)).waste_ceiling(1.1)
    };
    storm(&options, Path::new(DIRECTORY), 2_000);
}

fn small(disk: &MemStorage) -> Options {
    Store::options()
        .segment_bytes(SEGMENT_BYTES)
        .storage(Arc::new(disk.clone()))
}

// Conditions.

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
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..INCREMENTS {
                    loop {
                        let value = namespace.get("counter").unwrap().unwrap();
                        let next = value.as_str().unwrap().parse::<u64>().unwrap() + 1;
                        let condition = Condition::Sequence(value.sequence());
                        match namespace.put_if("counter", next.to_string(), condition) {
                            Ok(sequence) => break assert!(sequence > value.sequence()),
                            // Somebody was faster, and the conflict says with what.
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
                        let unchanged =
                            |sequence| embercask::PutOptions::new().condition(Condition::Sequence(sequence));
                        let batch = store.batch();
                        let batch =
                            batch.put_with(&left, "balance", (less - 1).to_string(), unchanged(from.sequence()));
                        let batch = batch.put_with(&right, "balance", (more + 1).to_string(), unchanged(to.sequence()));
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
                    // In every other round the key has been there, and is gone.
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
            "and what it wrote stands"
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
            // As long as the others go on, and at least so often.
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

// Group commit.

/// Whoever was told Ok is on the device, whoever of the others led.
#[test]
fn eight_sync_writers_share_syncs_and_each_is_durable_when_told_so() {
    const THREADS: usize = 8;
    let disk = MemStorage::new();
    let store = small(&disk).segment_bytes(4096).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    let acknowledged: Vec<AtomicU64> = (0..THREADS).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        let writers: Vec<_> = acknowledged
            .iter()
            .enumerate()
            .map(|(thread, acknowledged)| {
                let (store, namespace) = (&store, &namespace);
                scope.spawn(move || {
                    for n in 1..=150 {
                        let sequence = namespace.put(format!("{thread}"), value_of(n)).unwrap();
                        assert!(store.stats().durable_sequence >= sequence);
                        acknowledged.store(n, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let mut cuts = 0;
        while cuts < 3 || writers.iter().any(|writer| !writer.is_finished()) {
            cuts += 1;
            let least: Vec<_> = acknowledged
                .iter()
                .map(|newest| newest.load(Ordering::SeqCst))
                .collect();
            let cut = disk.power_cut(&CutPolicy::LoseUnsynced);
            let store = common::open(&cut);
            let namespace = store.open_namespace("N").unwrap();
            for (thread, least) in least.iter().enumerate() {
                let found = namespace
                    .get(format!("{thread}"))
                    .unwrap()
                    .map_or(0, |value| intact(&value));
                assert!(
                    found >= *least,
                    "{least} of thread {thread} was acknowledged, {found} is there"
                );
            }
        }
    });
    let stats = store.stats();
    assert_eq!((stats.poisoned, stats.background_error), (None, None));
}

// The end of a store, and of a namespace.

/// Works in every way until it is told that it cannot go on; returns how.
fn work_until_refused(
    store: &Store,
    namespace: &Namespace,
    thread: usize,
    count: &AtomicUsize,
    mut rng: Rng,
) -> (u64, Error) {
    let mut newest = 0;
    for n in 1.. {
        count.fetch_add(1, Ordering::SeqCst);
        let key = format!("{thread}");
        let result = match rng.below(8) {
            0 => namespace.get(&key).map(drop),
            1 => namespace.list().limit(3).page().map(drop),
            2 => namespace.count().map(drop),
            3 if thread == 0 => store.compact().map(drop),
            3 if thread == 1 => store.maintain(),
            4 => namespace.set_metadata(&key, Some(b"m")).map(drop),
            _ => {
                let put = namespace.put_with(&key, value_of(n), class(random_class(&mut rng)));
                put.map(|_| newest = n)
            }
        };
        match result {
            Ok(()) => {}
            Err(error) => return (newest, error),
        }
    }
    unreachable!("numbers end")
}

#[test]
fn closing_beside_others_at_work_ends_them_all_and_loses_nothing_acknowledged() {
    let mut rng = rng();
    for round in 0..12 {
        let disk = MemStorage::new();
        let store = small(&disk).segment_bytes(4096).open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        let count = AtomicUsize::new(0);
        let limit = rng.below(600) as usize;
        let ended: Vec<(u64, Error)> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..6)
                .map(|thread| {
                    let rng = rng.split();
                    let (store, namespace, count) = (&store, &namespace, &count);
                    scope.spawn(move || work_until_refused(store, namespace, thread, count, rng))
                })
                .collect();
            while count.load(Ordering::SeqCst) < limit {
                std::thread::yield_now();
            }
            // Two at once: one does it, the other one finds it done.
            let other = scope.spawn(|| store.clone().close());
            store.clone().close().unwrap();
            other.join().unwrap().unwrap();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        for (thread, (_, error)) in ended.iter().enumerate() {
            assert_eq!(
                error.kind(),
                ErrorKind::Closed,
                "round {round}, thread {thread}: {error}"
            );
        }
        // The next one finds all of it, although handles are left.
        let next = small(&disk).open(DIRECTORY).unwrap();
        assert!(
            next.recovery_report().clean,
            "round {round}: {:?}",
            next.recovery_report()
        );
        let next_namespace = next.open_namespace("N").unwrap();
        for (thread, (newest, _)) in ended.iter().enumerate() {
            let found = next_namespace
                .get(format!("{thread}"))
                .unwrap()
                .map_or(0, |value| intact(&value));
            // The last one may have been done though it was refused.
            assert!(
                found >= *newest,
                "round {round}, thread {thread}: {found}, {newest} was acknowledged"
            );
        }
    }
}

#[test]
fn dropping_a_namespace_beside_its_writers_leaves_nothing_of_it_and_no_half_of_a_batch() {
    let mut rng = rng();
    let disk = MemStorage::new();
    let store = small(&disk).segment_bytes(4096).open(DIRECTORY).unwrap();
    let stays = store.namespace("stays").unwrap();
    for round in 0..15 {
        let doomed = store.namespace("doomed").unwrap();
        assert_eq!(doomed.count().unwrap(), 0, "round {round}: nothing came back");
        let count = AtomicUsize::new(0);
        let limit = 1 + rng.below(300) as usize;
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|thread| {
                    let mut rng = rng.split();
                    let (store, stays, doomed, count) = (&store, &stays, &doomed, &count);
                    scope.spawn(move || {
                        let mirror = format!("{round} {thread}");
                        for n in 1.. {
                            count.fetch_add(1, Ordering::SeqCst);
                            let durability = random_class(&mut rng);
                            let batch = store.batch().put(stays, &mirror, value_of(n));
                            let batch = batch.put(doomed, format!("{thread} {}", n % 20), value_of(n));
                            let result = batch.durability(durability).commit();
                            let result = result.and_then(|_| doomed.put_with(&mirror, value_of(n), class(durability)));
                            let Err(error) = result else { continue };
                            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
                            let found = stays.get(&mirror).unwrap().map_or(0, |value| intact(&value));
                            // Refused as a whole: by its second half, or before the put after it.
                            assert!(found == n || found == n - 1, "{found} of {n}");
                            return;
                        }
                    })
                })
                .collect();
            let lister = scope.spawn(|| {
                loop {
                    let mut keys = BTreeSet::new();
                    for entry in doomed.list().limit(5).with_values() {
                        match entry {
                            Ok(entry) => assert!(keys.insert(entry.key().to_vec()), "a key came twice"),
                            Err(error) => return error.kind(),
                        }
                    }
                }
            });
            while count.load(Ordering::SeqCst) < limit {
                std::thread::yield_now();
            }
            store.drop_namespace("doomed").unwrap();
            workers.into_iter().for_each(|worker| worker.join().unwrap());
            assert_eq!(lister.join().unwrap(), ErrorKind::NotFound);
        });
        assert_eq!(store.namespaces().unwrap().len(), 1);
        match round % 3 {
            0 => drop(store.compact().unwrap()),
            1 => store.maintain().unwrap(),
            _ => {}
        }
        let killed = common::open(&disk.crash_process());
        assert_eq!(killed.namespaces().unwrap().len(), 1, "round {round}");
        assert_eq!(killed.namespace("doomed").unwrap().count().unwrap(), 0, "round {round}");
    }
    store.maintain().unwrap();
    assert_eq!(store.stats().keys, stays.count().unwrap(), "its keys have left memory");
}

#[test]
fn creating_a_namespace_at_once_makes_one() {
    let store = small(&MemStorage::new()).open(DIRECTORY).unwrap();
    for round in 0..20 {
        let name = format!("{round}");
        let ids: BTreeSet<u128> = std::thread::scope(|scope| {
            let creators: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| store.namespace(&name).unwrap().id()))
                .collect();
            creators.into_iter().map(|creator| creator.join().unwrap()).collect()
        });
        assert_eq!(ids.len(), 1, "round {round}");
    }
    assert_eq!(store.namespaces().unwrap().len(), 20);
}

/// The last handle may go anywhere, also while the store's own threads are at work.
#[test]
fn dropping_the_last_handle_in_any_thread_closes_the_store() {
    let disk = MemStorage::new();
    for round in 0..20u64 {
        let store = small(&disk).segment_bytes(4096).open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        drop(store);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let namespace = namespace.clone();
                scope.spawn(move || {
                    for n in 0..20 {
                        let key = format!("{thread} {n}");
                        namespace
                            .put_with(key, value_of(round), class(Durability::Buffered))
                            .unwrap();
                    }
                });
            }
            drop(namespace);
        });
        let next = small(&disk).open(DIRECTORY).unwrap();
        assert!(next.recovery_report().clean);
        let namespace = next.open_namespace("N").unwrap();
        assert_eq!(namespace.count().unwrap(), 80);
        assert_eq!(intact(&namespace.get("3 19").unwrap().unwrap()), round);
    }
}
