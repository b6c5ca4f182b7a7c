//! Everything at once, with correct results throughout.

mod moments;
mod readers;
mod writers;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use embercask::storage::MemStorage;
use embercask::{Durability, Namespace, Options, ReadMode, Store};

use crate::concurrency::{SEGMENT_BYTES, intact, value_of};
use test_support::{DIRECTORY, Rng, class, rng};

/// Number of keys that each plain writer cycles through.
const KEYS: usize = 4;
const WRITERS: usize = 3;
const BATCHERS: usize = 2;
const STEADY: usize = 150;
/// Number of keys that large batches fill.
const FILLED: u64 = 300;
const TRANSACTORS: usize = 2;
/// Number of keys in which transactions sum up.
const SUMS: u64 = 3;

/// What was acknowledged so far.
#[derive(Default)]
struct Acknowledged {
    /// Newest number of each key of each writer.
    plain: [[AtomicU64; KEYS]; WRITERS],
    /// Newest number of each batcher.
    batched: [AtomicU64; BATCHERS],
    /// Number of transactions.
    sum: AtomicU64,
    done: AtomicBool,
}

/// The shared state of all threads.
struct Storm {
    store: Store,
    first: Namespace,
    second: Namespace,
    acknowledged: Acknowledged,
    operations: u64,
}

impl Storm {
    fn plain_key(writer: usize, key: usize) -> String {
        format!("plain {writer} {key}")
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

    /// The final content after all writers have ended.
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
        self.check_sums(&first, &second);
        assert_eq!(second.list().prefix("pair ").count().unwrap(), BATCHERS as u64);
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
        for _ in 0..TRANSACTORS {
            let rng = rng.split();
            writers.push(scope.spawn(move || storm.transact(rng)));
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
        let snapshot_rng = rng.split();
        scope.spawn(move || storm.take_snapshots(snapshot_rng));
        for _ in 0..2 {
            let rng = rng.split();
            scope.spawn(move || storm.maintain(rng));
        }
        let results: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        // Even if writers failed, threads that wait for them must end.
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
    assert!(store.stats().keys <= listed, "the index has keys that no listing shows");
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
