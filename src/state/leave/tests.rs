use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::storage::{Call, Fault, FaultKind, FaultStorage, Interposed, Interposer, MemStorage, Operation};
use crate::{ErrorKind, Maintenance, ManualClock, Namespace, PutOptions, ReadMode, Store};

/// A store that reads its sealed segments from the disk.
fn open(storage: Arc<dyn crate::storage::Storage>) -> (ManualClock, Store, Namespace) {
    let clock = ManualClock::new(1_000_000);
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .read_mode(ReadMode::Pread)
        .clock(clock.clone())
        .storage(storage)
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    (clock, store, namespace)
}

fn seconds(seconds: u64) -> PutOptions {
    PutOptions::new().ttl(Duration::from_secs(seconds))
}

/// Live puts of all segments, and their bytes.
fn live(store: &Store) -> (u64, u64) {
    let stats = store.stats();
    let records: u64 = stats.segments.iter().map(|segment| segment.live_records).sum();
    (records, stats.live_bytes)
}

#[test]
fn nothing_is_read_from_the_device_under_the_writer_lock() {
    let faults = FaultStorage::new(Arc::new(MemStorage::new()));
    let (clock, store, namespace) = open(Arc::new(faults.clone()));
    let own_record = live(&store);
    let dropped = store.namespace("DROPPED").unwrap();
    for key in 0..10 {
        namespace.put_with(format!("{key}"), "1", seconds(1)).unwrap();
        dropped.put(format!("{key}"), "1").unwrap();
    }
    store.end_segment();
    clock.advance(1000);
    store.drop_namespace("DROPPED").unwrap();
    let state = &store.engine().state;
    let due = state.read_due(&state.take_due(store.now_ms()));
    let keys = state.some_keys(&dropped.state);
    let (doomed, read) = state.read_all_dropped(&dropped.state, &keys);
    read.unwrap();
    assert_eq!((due.len(), doomed.len()), (10, 10));
    faults.inject(
        Fault::new(FaultKind::Error(std::io::ErrorKind::Other))
            .on(Operation::Read)
            .repeated(),
    );
    let writer = store.engine().log.lock();
    let now = store.engine().context.time.now();
    for due in &due {
        assert_eq!(state.expire(&state.lock_changes(), due, &now), None);
    }
    for doomed in &doomed {
        state.remove_dropped(&state.lock_changes(), &dropped.state, doomed);
    }
    drop(writer);
    assert_eq!(faults.struck(), 0, "reads under the lock");
    faults.clear();
    assert_eq!((store.stats().keys, store.stats().expired), (0, 10));
    assert_eq!(live(&store), own_record);
}

/// Runs a callback in the next write of a segment, and fails it.
#[derive(Default)]
struct FailedWrite(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl std::fmt::Debug for FailedWrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FailedWrite")
    }
}

impl Interposer for FailedWrite {
    fn around(&self, call: &Call<'_>, make: &mut dyn FnMut() -> std::io::Result<()>) -> std::io::Result<()> {
        let is_of_segment = call.path.extension().is_some_and(|name| name == "segment");
        if call.operation == Operation::Write
            && is_of_segment
            && let Some(then) = lock(&self.0).take()
        {
            then();
            return Err(std::io::ErrorKind::Other.into());
        }
        make()
    }
}

#[test]
fn a_record_that_was_rolled_back_since_it_was_read_is_not_taken_for_the_one_in_its_place() {
    let fails = Arc::new(FailedWrite::default());
    let disk: Arc<dyn crate::storage::Storage> = Arc::new(MemStorage::new());
    let (clock, store, namespace) = open(Arc::new(Interposed::over(disk, fails.clone())));
    let read = Arc::new(Mutex::new(Vec::new()));
    // The record expires while it is written out, and the sweep reads it.
    let act = {
        let (clock, engine, read) = (clock.clone(), store.engine().clone(), read.clone());
        move || {
            clock.advance(1000);
            let entries = engine.state.take_due(engine.context.time.now().wall_ms());
            *lock(&read) = engine.state.read_due(&entries);
        }
    };
    *lock(&fails.0) = Some(Box::new(act));
    let error = namespace.put_with("key", "old", seconds(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    namespace.put_with("key", "new", seconds(60)).unwrap();
    let state = &store.engine().state;
    let due = std::mem::take(&mut *lock(&read));
    let found = state
        .find_header(&state.hashed(namespace.state.number, b"key"))
        .unwrap();
    assert_eq!(
        (due.len(), Some(due[0].location())),
        (1, found.map(|(location, _)| location))
    );
    let before = live(&store);
    let writer = store.engine().log.lock();
    let now = store.engine().context.time.now();
    let again = state.expire(&state.lock_changes(), &due[0], &now);
    drop(writer);
    assert_eq!(again, Some(store.now_ms() + 60_000));
    assert_eq!(namespace.get_text("key").unwrap().as_deref(), Some("new"));
    assert_eq!((live(&store), store.stats().expired), (before, 0));
}

/// The sweep has taken the record out already; rolling it back must not count it once more.
#[test]
fn a_record_that_was_swept_before_it_was_rolled_back_is_counted_out_once() {
    for replaces in [false, true] {
        let fails = Arc::new(FailedWrite::default());
        let disk: Arc<dyn crate::storage::Storage> = Arc::new(MemStorage::new());
        let (clock, store, namespace) = open(Arc::new(Interposed::over(disk, fails.clone())));
        namespace.put("other", "value").unwrap();
        if replaces {
            namespace.put("key", "for ever").unwrap();
        }
        let before = (live(&store), namespace.stats().unwrap());
        let act = {
            let (clock, engine) = (clock.clone(), store.engine().clone());
            move || {
                clock.advance(1000);
                engine.housekeeping.sweep_expired();
                assert_eq!(engine.context.events.expired.load(Ordering::Relaxed), 1);
            }
        };
        *lock(&fails.0) = Some(Box::new(act));
        namespace.put_with("key", "for a second", seconds(1)).unwrap_err();
        assert_eq!((live(&store), namespace.stats().unwrap()), before);
        let found = namespace.get_text("key").unwrap();
        assert_eq!(found.as_deref(), replaces.then_some("for ever"));
    }
}

#[test]
fn keys_that_compaction_moves_between_reading_and_removing_leave_all_the_same() {
    let (clock, store, namespace) = open(Arc::new(MemStorage::new()));
    let own_record = live(&store);
    let dropped = store.namespace("DROPPED").unwrap();
    for key in 0..10 {
        namespace.put_with(format!("{key}"), "1", seconds(1)).unwrap();
        dropped.put(format!("{key}"), "1").unwrap();
        dropped.put(format!("dead {key}"), "1").unwrap();
        dropped.delete(format!("dead {key}")).unwrap();
    }
    store.end_segment();
    store.drop_namespace("DROPPED").unwrap();
    let state = &store.engine().state;
    let due_ms = store.now_ms() + 1000;
    let due = state.read_due(&state.take_due(due_ms));
    let keys = state.some_keys(&dropped.state);
    let (doomed, read) = state.read_all_dropped(&dropped.state, &keys);
    read.unwrap();
    assert_eq!((due.len(), doomed.len()), (10, 10));
    let report = store.compact_subset(1).unwrap();
    assert!(report.written_bytes > 0, "the records were copied");
    clock.advance(1000);
    let now = store.engine().context.time.now();
    let writer = store.engine().log.lock();
    for due in &due {
        assert_eq!(state.expire(&state.lock_changes(), due, &now), None);
    }
    for doomed in &doomed {
        state.remove_dropped(&state.lock_changes(), &dropped.state, doomed);
    }
    drop(writer);
    state.end_take(Some(Vec::new()));
    assert_eq!(store.stats().keys, 20, "all are elsewhere");
    store.maintain().unwrap();
    assert_eq!((store.stats().keys, store.stats().expired), (0, 10));
    assert_eq!(live(&store), own_record);
}

#[test]
fn a_read_that_fails_in_a_drop_is_told_and_what_was_read_before_leaves() {
    let faults = FaultStorage::new(Arc::new(MemStorage::new()));
    let (_, store, _) = open(Arc::new(faults.clone()));
    let dropped = store.namespace("DROPPED").unwrap();
    for key in 0..10 {
        dropped.put(format!("{key}"), "1").unwrap();
    }
    store.end_segment();
    store.drop_namespace("DROPPED").unwrap();
    let housekeeping = &store.engine().housekeeping;
    faults.inject(
        Fault::new(FaultKind::Error(std::io::ErrorKind::Other))
            .on(Operation::Read)
            .at(faults.steps() + 4),
    );
    let error = housekeeping.empty_dropped_namespaces().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let left = store.engine().state.some_keys(&dropped.state).len();
    assert!((1..10).contains(&left), "{left}");
    housekeeping.empty_dropped_namespaces().unwrap();
    assert_eq!(store.stats().keys, 0);
}

#[test]
fn a_key_whose_overwriting_failed_leaves_memory_though_a_sweep_came_between() {
    let fails = Arc::new(FailedWrite::default());
    let disk: Arc<dyn crate::storage::Storage> = Arc::new(MemStorage::new());
    let (clock, store, namespace) = open(Arc::new(Interposed::over(disk, fails.clone())));
    namespace.put("plain", "old").unwrap();
    namespace.put_with("key", "old", seconds(1)).unwrap();
    let fail = |then: Box<dyn FnOnce() + Send>, key: &str| {
        *lock(&fails.0) = Some(then);
        assert_eq!(namespace.put(key, "new").unwrap_err().kind(), ErrorKind::Io);
    };
    fail(Box::new(|| ()), "plain");
    assert_eq!(store.stats().expired_not_swept, 0, "a plain key is not due");
    // Meanwhile the index leads to the new record, so the sweep forgets that the old one expires.
    let sweep = {
        let (clock, engine) = (clock.clone(), store.engine().clone());
        move || {
            clock.advance(1000);
            engine.housekeeping.sweep_expired();
        }
    };
    fail(Box::new(sweep), "key");
    assert_eq!((store.stats().keys, store.stats().expired), (2, 0));
    store.engine().housekeeping.sweep_expired();
    assert_eq!((store.stats().keys, store.stats().expired), (1, 1));
    assert_eq!(namespace.get_text("plain").unwrap().as_deref(), Some("old"));
}
