//! A writer that does something between any two calls that a reader makes.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use embercask::storage::{Call, Interposed, Interposer, MemStorage, Operation, Storage};
use embercask::{Durability, Namespace, Options, ReadMode, Store};

use super::{put, reading};
use test_support::{DIRECTORY, class, open, text};

/// Runs a step before some of the calls.
pub(crate) struct Between {
    pub(crate) calls: AtomicU64,
    step: Box<dyn Fn(u64, Operation) + Send + Sync>,
    pub(crate) mutating: Mutex<Vec<Operation>>,
}

impl std::fmt::Debug for Between {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Between")
    }
}

impl Interposer for Between {
    fn around(&self, call: &Call<'_>, make: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        if call.operation.mutates() || matches!(call.operation, Operation::OpenWrite | Operation::CheckJournal) {
            self.mutating.lock().unwrap().push(call.operation);
        }
        (self.step)(self.calls.fetch_add(1, Ordering::AcqRel), call.operation);
        make()
    }
}

fn between(disk: &MemStorage, step: impl Fn(u64, Operation) + Send + Sync + 'static) -> (Arc<Between>, Options) {
    let (between, storage) = between_calls(disk, step);
    (between, reading(storage))
}

/// A storage over this disk that runs a step before each call, and counts the calls.
pub(crate) fn between_calls(
    disk: &MemStorage,
    step: impl Fn(u64, Operation) + Send + Sync + 'static,
) -> (Arc<Between>, Arc<dyn Storage>) {
    let between = Arc::new(Between {
        calls: AtomicU64::new(0),
        step: Box::new(step),
        mutating: Mutex::default(),
    });
    let storage = Interposed::over(Arc::new(disk.clone()), between.clone());
    (between, Arc::new(storage))
}

/// What a writer does: a batch that fills most of a segment, and at times more.
pub(crate) struct Writer {
    pub(crate) store: Store,
    pub(crate) namespace: Namespace,
    number: AtomicU64,
}

impl Writer {
    pub(crate) fn new(disk: &MemStorage) -> Writer {
        let store = open(disk);
        let namespace = store.namespace("N").unwrap();
        let writer = Writer {
            store,
            namespace,
            number: AtomicU64::new(0),
        };
        (0..5).for_each(|_| writer.step());
        writer
    }

    pub(crate) fn step(&self) {
        let number = self.number.load(Ordering::Acquire) + 1;
        let value = format!("{number:08}").repeat(50);
        let mut batch = self.store.batch();
        batch
            .put(&self.namespace, "a", &value)
            .delete(&self.namespace, format!("old {}", number - 1));
        batch
            .put(&self.namespace, format!("old {number}"), "v")
            .put(&self.namespace, "b", &value);
        batch.durability(Durability::Sync).commit().unwrap();
        self.number.store(number, Ordering::Release);
        if number.is_multiple_of(3) {
            self.store.compact().unwrap();
        }
    }
}

/// At least this batch is there, and it is whole.
fn check(store: &Store, least: u64, context: &str) {
    let namespace = store.open_namespace("N").unwrap();
    let found = namespace.get_many(&["a", "b"]).unwrap();
    let [Some(a), Some(b)] = &found[..] else {
        panic!("{context}: {found:?}")
    };
    assert!(a == b, "{context}: half of a batch");
    let number: u64 = a.as_str().unwrap()[..8].parse().unwrap();
    assert!(
        number >= least,
        "{context}: {number} is shown, and {least} was acknowledged before"
    );
    assert_eq!(
        text(&namespace, &format!("old {number}")).as_deref(),
        Some("v"),
        "{context}"
    );
    assert_eq!(namespace.count().unwrap(), 3, "{context}");
}

#[test]
fn opening_and_refreshing_succeed_whatever_the_writer_does_between_any_two_calls() {
    for mode in [ReadMode::Map, ReadMode::Pread] {
        for at in 0.. {
            let disk = MemStorage::new();
            let writer = Arc::new(Writer::new(&disk));
            let (from, steps) = (Arc::new(AtomicU64::new(at)), 7);
            let (stepping, from_call) = (writer.clone(), from.clone());
            // Several steps at one place: a compaction is among them, and so are new segments.
            let (between, options) = between(&disk, move |call, _| {
                if call == from_call.load(Ordering::Acquire) {
                    (0..steps).for_each(|_| stepping.step());
                }
            });
            let context = format!("{mode:?}, call {at}");
            let least = writer.number.load(Ordering::Acquire);
            let store = options
                .read_mode(mode)
                .open(DIRECTORY)
                .unwrap_or_else(|error| panic!("{context}: {error}"));
            check(&store, least, &context);
            let calls = between.calls.load(Ordering::Acquire);
            // The same in a refresh.
            writer.step();
            from.store(calls + at, Ordering::Release);
            let least = writer.number.load(Ordering::Acquire);
            store
                .refresh()
                .unwrap_or_else(|error| panic!("{context}, refresh: {error}"));
            check(&store, least, &format!("{context}, refreshed"));
            assert_eq!(*between.mutating.lock().unwrap(), []);
            if at > calls {
                assert!(calls > 10, "{calls}");
                break;
            }
        }
    }
}

#[test]
fn a_writer_that_is_busy_at_each_of_the_first_calls_is_waited_out() {
    for mode in [ReadMode::Map, ReadMode::Pread] {
        let disk = MemStorage::new();
        let writer = Arc::new(Writer::new(&disk));
        let stepping = writer.clone();
        let (between, options) = between(&disk, move |call, _| {
            if call < 200 {
                stepping.step();
            }
        });
        let least = writer.number.load(Ordering::Acquire);
        let store = options.read_mode(mode).open(DIRECTORY).unwrap();
        check(&store, least, &format!("{mode:?}"));
        assert_eq!(*between.mutating.lock().unwrap(), []);
    }
}

/// Files that vanish, and never come back under another manifest: the loss is found, and the wait
/// is bounded.
#[test]
fn a_listed_file_that_is_gone_for_good_is_damage() {
    let disk = MemStorage::new();
    let writer = Writer::new(&disk);
    writer.store.close().unwrap();
    let (_, options) = between(&disk, |_, _| {});
    options.clone().open(DIRECTORY).unwrap();
    let lost = test_support::ending(&disk, ".segment").remove(0);
    disk.remove_file(&lost).unwrap();
    let error = options.open(DIRECTORY).unwrap_err();
    assert_eq!(error.kind(), embercask::ErrorKind::Corruption, "{error}");
}

#[test]
fn a_reader_makes_no_call_that_changes_anything() {
    for closed in [false, true] {
        let disk = MemStorage::new();
        let writer = Writer::new(&disk);
        let written = writer.namespace.clone();
        if closed {
            writer.store.clone().close().unwrap();
        }
        let before = super::contents(&disk);
        let (between, options) = between(&disk, |_, _| {});
        let store = options.index_file(closed).open(DIRECTORY).unwrap();
        check(&store, 5, "opened");
        store.refresh().unwrap();
        store.stats();
        assert_eq!(super::contents(&disk), before);
        if !closed {
            put(&written, "another", "value");
            assert!(store.refresh().unwrap().changed);
            written
                .put_with("pending", "value", class(Durability::Buffered))
                .unwrap();
        }
        drop(store);
        assert_eq!(*between.mutating.lock().unwrap(), []);
    }
}

/// Recovery copies what is not known to be durable, and cuts the segments that it was in.
#[test]
fn a_recovery_between_any_two_calls_takes_nothing_from_what_is_shown() {
    let prepared = MemStorage::new();
    let writer = open(&prepared);
    let namespace = writer.namespace("N").unwrap();
    namespace.put("durable", "value").unwrap();
    for n in 0..3 {
        // The second one behind a mark that tells of the first.
        namespace
            .put_with(format!("{n}"), "value", class(Durability::Sync))
            .unwrap();
    }
    put(&namespace, "only written", "value");
    for at in 0.. {
        let disk = prepared.crash_process();
        let recovering = disk.clone();
        let (between, options) = between(&disk, move |call, _| {
            if call == at {
                let store = open(&recovering);
                assert!(store.recovery_report().rewritten_bytes > 0);
            }
        });
        let store = options
            .open(DIRECTORY)
            .unwrap_or_else(|error| panic!("call {at}: {error}"));
        let shown = test_support::keys(&store.open_namespace("N").unwrap());
        assert_eq!(shown, ["0", "1", "2", "durable", "only written"], "call {at}");
        if at > between.calls.load(Ordering::Acquire) {
            break;
        }
    }
}
