use super::*;
use crate::log::slow_call::SlowCall;
use crate::storage::{Fault, FaultKind, FaultStorage, Interposed, MemStorage, Operation, Storage};
use crate::testing::{Task, until};
use crate::{Durability, ErrorKind, Maintenance, Namespace, PutOptions, Store};

fn opened(storage: impl Storage + 'static) -> (Store, Namespace) {
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .segment_bytes(4096)
        .storage(Arc::new(storage))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    (store, namespace)
}

fn active_id(store: &Store) -> u64 {
    let guard = store.engine().log.lock();
    guard.tail.active.as_ref().unwrap().segment.id()
}

fn prepared_id(store: &Store) -> Option<u64> {
    let guard = store.engine().log.lock();
    guard.tail.prepared.as_ref().map(|next| next.header.segment_id)
}

#[test]
fn the_next_segment_is_prepared_in_time_and_only_one() {
    let (store, namespace) = opened(MemStorage::new());
    let log = &store.engine().log;
    namespace.put("key", [7; 100]).unwrap();
    let listed = log.manifest.current();
    log.prepare_ahead().unwrap();
    assert_eq!(log.manifest.current(), listed, "the first segment is hardly begun");
    namespace.put("key", [7; 2500]).unwrap();
    log.prepare_ahead().unwrap();
    let prepared = prepared_id(&store).unwrap();
    let listed = log.manifest.current();
    log.prepare_ahead().unwrap();
    assert_eq!(log.manifest.current(), listed, "one is prepared already");
    namespace.put("key", [7; 2000]).unwrap();
    assert_eq!((active_id(&store), prepared_id(&store)), (prepared, None));
    log.prepare_ahead().unwrap();
    assert!(prepared_id(&store).is_some(), "who has filled one fills another");
}

#[test]
fn the_memory_of_a_sealed_segment_is_used_again_and_goes_back_when_the_store_is_maintained() {
    let (store, namespace) = opened(MemStorage::new());
    let log = &store.engine().log;
    let is_used_again = || log.lock().tail.active.as_ref().unwrap().committed_ms.is_some();
    for _ in 0..8 {
        namespace.put("key", [7; 2500]).unwrap();
    }
    assert!(is_used_again());
    // Not before its time.
    log.shrink(u64::MAX);
    assert!(is_used_again());
    store.maintain().unwrap();
    assert!(!is_used_again());
    assert_eq!(&*namespace.get("key").unwrap().unwrap(), [7; 2500]);
    namespace.put("key", [8; 900]).unwrap();
    assert_eq!(&*namespace.get("key").unwrap().unwrap(), [8; 900]);
}

#[test]
fn a_record_too_large_for_the_prepared_segment_leaves_it_to_others() {
    let (store, namespace) = opened(MemStorage::new());
    namespace.put("key", [7; 2500]).unwrap();
    store.engine().log.prepare_ahead().unwrap();
    let prepared = prepared_id(&store).unwrap();
    namespace.put("key", [7; 10_000]).unwrap();
    assert_eq!(prepared_id(&store), Some(prepared));
    assert_ne!(active_id(&store), prepared);
    namespace.put("key", [7; 1000]).unwrap();
    assert_eq!((active_id(&store), prepared_id(&store)), (prepared, None));
}

#[test]
fn a_segment_prepared_while_the_store_is_closed_is_removed_again() {
    let (slow, disk) = (SlowCall::new(Operation::Create), MemStorage::new());
    let (store, namespace) = opened(Interposed::over(Arc::new(disk.clone()), slow.clone()));
    namespace.put("key", [7; 2500]).unwrap();
    let log = &store.engine().log;
    let listed = log.manifest.current().segments;
    slow.set(SlowCall::WANTED);
    std::thread::scope(|scope| {
        let prepare = scope.spawn(|| log.prepare_ahead());
        slow.wait_for(SlowCall::MADE);
        log.refuse_writes();
        slow.set(SlowCall::MAY_GO);
        prepare.join().unwrap().unwrap();
    });
    assert_eq!(prepared_id(&store), None);
    assert_eq!(log.manifest.current().segments, listed);
    let segments = disk.files("/store").into_iter();
    let segments = segments.filter(|path| path.extension().is_some_and(|name| name == "segment"));
    assert_eq!(segments.count(), listed.len());
}

#[test]
fn a_segment_grows_until_a_leader_has_written_it_out() {
    let slow = SlowCall::new(Operation::Write);
    let (store, namespace) = opened(Interposed::over(Arc::new(MemStorage::new()), slow.clone()));
    let first_id = active_id(&store);
    let options = || PutOptions::new().durability(Durability::Os);
    slow.set(SlowCall::WANTED);
    let during = std::thread::scope(|scope| {
        let first = scope.spawn(|| namespace.put_with("first", "1", options()));
        slow.wait_for(SlowCall::MADE);
        let (tell, told) = std::sync::mpsc::channel();
        let (namespace, options) = (&namespace, &options);
        let second = scope.spawn(move || {
            tell.send(Task::current()).unwrap();
            namespace.put_with("second", [7; 4000], options())
        });
        let task = told.recv().unwrap();
        until("the second waits, or is done", || task.waits() || second.is_finished());
        let during = active_id(&store);
        slow.set(SlowCall::MAY_GO);
        first.join().unwrap().unwrap();
        second.join().unwrap().unwrap();
        during
    });
    assert_eq!(during, first_id);
    assert_ne!(active_id(&store), first_id);
    assert_eq!(namespace.get("first").unwrap().unwrap(), b"1");
}

#[test]
fn a_segment_ends_where_32_bits_no_longer_hold_its_sequences() {
    let (store, namespace) = opened(MemStorage::new());
    let log = &store.engine().log;
    let first_id = active_id(&store);
    log.lock().next_sequence = 3 << 29;
    namespace.put("key", "1").unwrap();
    assert_eq!(active_id(&store), first_id);
    log.lock().next_sequence = 1 << 32;
    namespace.put("key", "2").unwrap();
    assert_ne!(active_id(&store), first_id);
    assert_eq!(namespace.get("key").unwrap().unwrap(), b"2");
}

#[test]
fn files_left_over_are_passed_over_but_not_without_end() {
    let disk = MemStorage::new();
    let faults = FaultStorage::new(Arc::new(disk.clone()));
    let (store, namespace) = opened(faults.clone());
    let next = active_id(&store) + 1;
    disk.create(format!("/store/{}", segment_file(next))).unwrap();
    namespace.put("key", [7; 4000]).unwrap();
    assert_eq!(active_id(&store), next + 1);
    for _ in 0..2 * LEFT_OVER_MAX {
        let exists = FaultKind::Error(std::io::ErrorKind::AlreadyExists);
        faults.inject(Fault::new(exists).on(Operation::Create).path(".segment"));
    }
    assert_eq!(namespace.put("key", [8; 4000]).unwrap_err().kind(), ErrorKind::Io);
    faults.clear();
    namespace.put("key", [9; 4000]).unwrap();
}

/// The memory of one segment is enough for the next.
#[test]
fn a_writer_that_outruns_sealing_seals_one_segment_and_leaves_the_others_to_the_thread() {
    // Manual, so that nothing is sealed meanwhile; buffered, since other writes then seal
    // themselves.
    let (store, namespace) = opened(MemStorage::new());
    let log = &store.engine().log;
    let waiting = || log.lock().tail.sealing.len();
    let put = || {
        let options = PutOptions::new().durability(Durability::Buffered);
        namespace.put_with("key", [7; 3000], options).unwrap();
    };
    log.seal_all().unwrap();
    while waiting() < SEALING_MAX {
        put();
        assert_eq!(log.unsealed.load(Ordering::Relaxed), waiting());
        assert!(!log.is_sealing_behind(), "there is no thread to wait for");
    }
    for _ in 0..3 {
        put();
        assert_eq!(waiting(), SEALING_MAX);
    }
    log.seal_all().unwrap();
    assert_eq!((waiting(), log.unsealed.load(Ordering::Relaxed)), (0, 0));
    log.retire_active().unwrap();
    assert_eq!((waiting(), log.unsealed.load(Ordering::Relaxed)), (1, 1));
}

#[test]
fn with_a_thread_that_seals_writers_wait_for_it_once_two_segments_do() {
    // Nothing is rotated or sealed in it, so the number stays as it is set.
    let options = Store::options().storage(Arc::new(MemStorage::new()));
    let store = options.open("/store").unwrap();
    let log = &store.engine().log;
    for (unsealed, is_behind) in [(0, false), (1, false), (2, true), (3, true)] {
        log.unsealed.store(unsealed, Ordering::Relaxed);
        assert_eq!(log.is_sealing_behind(), is_behind, "{unsealed}");
    }
}
