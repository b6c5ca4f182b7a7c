use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::format::RESERVE_FILE;
use crate::log::slow_call::SlowCall;
use crate::storage::{Fault, FaultKind, FaultStorage, Interposed, MemStorage, Operation};
use crate::testing::{Task, until};
use crate::{Durability, Maintenance, Namespace, PutOptions, Store};

fn faulty() -> (FaultStorage, Store, Namespace) {
    let faults = FaultStorage::new(Arc::new(MemStorage::new()));
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .storage(Arc::new(faults.clone()))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    (faults, store, namespace)
}

#[test]
fn what_stayed_pending_behind_a_failed_write_is_flushed_although_the_failure_is_still_to_be_told() {
    let (faults, store, namespace) = faulty();
    let class = |durability| PutOptions::new().durability(durability);
    namespace.put_with("kept", "1", class(Durability::Buffered)).unwrap();
    // Another writer has not collected its outcome yet, so failures are kept for it.
    let waiting = {
        let mut guard = store.engine().log.lock();
        let sequence = guard.next_sequence;
        guard.waiters.arrive(sequence)
    };
    faults.inject(Fault::new(FaultKind::Error(std::io::ErrorKind::Other)).on(Operation::Write));
    let error = namespace
        .put_with("rolled back", "2", class(Durability::Os))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    store.flush().unwrap();
    assert_eq!(store.engine().log.lock().tail.pending_bytes(), 0);
    assert!(namespace.contains("kept").unwrap());
    assert!(!namespace.contains("rolled back").unwrap());
    store.engine().log.lock().waiters.leave(waiting);
}

#[test]
fn failures_of_others_do_not_pile_up_while_one_writer_waits() {
    let (faults, store, namespace) = faulty();
    let waiting = {
        let mut guard = store.engine().log.lock();
        let sequence = guard.last_sequence;
        guard.waiters.arrive(sequence)
    };
    faults.inject(
        Fault::new(FaultKind::Error(std::io::ErrorKind::Other))
            .on(Operation::Write)
            .repeated(),
    );
    for _ in 0..3_000 {
        namespace.put("key", "value").unwrap_err();
    }
    let mut guard = store.engine().log.lock();
    assert!(guard.waiters.failure_of(&waiting).is_none());
    assert_eq!(guard.waiters.places(), 2);
    guard.waiters.leave(waiting);
}

#[test]
fn a_sync_counts_for_nothing_that_was_written_while_it_was_under_way() {
    let slow = SlowCall::new(Operation::Sync);
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .storage(Arc::new(Interposed::over(Arc::new(MemStorage::new()), slow.clone())))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    slow.set(SlowCall::WANTED);
    let late = std::thread::scope(|scope| {
        let early = scope.spawn(|| namespace.put("early", "1"));
        slow.wait_for(SlowCall::MADE);
        let written_out = PutOptions::new().durability(Durability::Os);
        let late = namespace.put_with("late", "2", written_out);
        slow.set(SlowCall::MAY_GO);
        let early = early.join().unwrap().unwrap();
        assert!(early < *late.as_ref().unwrap());
        late.unwrap()
    });
    assert!(store.stats().durable_sequence < late);
    store.sync().unwrap();
    assert!(store.stats().durable_sequence >= late);
}

/// A second record is appended while the first is being written out. The success of the first must
/// keep the undo entry of the second.
#[test]
fn what_is_appended_beside_a_write_out_can_be_rolled_back_after_it() {
    let slow = SlowCall::new(Operation::Write);
    let faults = FaultStorage::new(Arc::new(MemStorage::new()));
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .durability(Durability::Os)
        .storage(Arc::new(Interposed::over(Arc::new(faults.clone()), slow.clone())))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("second", "0").unwrap();
    let appended = || store.engine().log.lock().last_sequence;
    let before = appended();
    slow.set(SlowCall::WANTED);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| namespace.put("first", "1"));
        slow.wait_for(SlowCall::MADE);
        let second = scope.spawn(|| namespace.put("second", "2"));
        until("the second is appended", || appended() == before + 2);
        faults.inject(Fault::new(FaultKind::Error(std::io::ErrorKind::Other)).on(Operation::Write));
        slow.set(SlowCall::MAY_GO);
        first.join().unwrap().unwrap();
        assert_eq!(second.join().unwrap().unwrap_err().kind(), ErrorKind::Io);
    });
    assert_eq!(namespace.get_text("first").unwrap().as_deref(), Some("1"));
    assert_eq!(namespace.get_text("second").unwrap().as_deref(), Some("0"));
}

/// A record written out earlier does not get the error of a later failed write, even if that one
/// poisons the store.
#[test]
fn a_failure_that_poisons_is_not_told_of_a_record_that_was_written_before() {
    let (faults, store, namespace) = faulty();
    namespace.put("key", "1").unwrap();
    let waiting = {
        let mut guard = store.engine().log.lock();
        let sequence = guard.written_sequence;
        guard.waiters.arrive(sequence)
    };
    for operation in [Operation::Write, Operation::SetLen] {
        faults.inject(Fault::new(FaultKind::Error(std::io::ErrorKind::Other)).on(operation));
    }
    namespace.put("key", "2").unwrap_err();
    let mut guard = store.engine().log.lock();
    assert!(guard.poisoned().is_some());
    assert!(guard.waiters.failure_of(&waiting).is_none());
    guard.waiters.leave(waiting);
}

#[test]
fn a_holder_of_the_lock_is_told_that_others_wait_for_it() {
    let lock = super::CommitLock::new(());
    std::thread::scope(|scope| {
        let held = lock.lock();
        assert!(!lock.is_wanted());
        let waiter = scope.spawn(|| drop(lock.lock()));
        until("another thread waits", || lock.is_wanted());
        drop(held);
        waiter.join().unwrap();
        assert!(!lock.is_wanted());
    });
}

fn buffered() -> PutOptions {
    PutOptions::new().durability(Durability::Buffered)
}

#[test]
fn buffered_writes_stay_in_memory_until_there_are_many() {
    let (_, store, namespace) = faulty();
    let engine = store.engine();
    let pending = || engine.log.lock().tail.pending_bytes();
    store.flush().unwrap();
    namespace.put_with("key", vec![7; 200 << 10], buffered()).unwrap();
    assert!(pending() > 200 << 10);
    assert!(!engine.context.flush_wake.is_requested());
    namespace.put_with("key", vec![7; 100 << 10], buffered()).unwrap();
    namespace.put_with("key", "value", buffered()).unwrap();
    assert!(pending() > 300 << 10);
    assert!(engine.context.flush_wake.is_requested());
    // No thread flushes in this mode, so the writers do before it takes too much memory.
    for _ in 0..60 {
        namespace.put_with("key", vec![7; 100 << 10], buffered()).unwrap();
        assert!(pending() < 5 << 20);
    }
}

#[test]
fn nothing_is_written_out_twice() {
    let (_, store, namespace) = faulty();
    namespace.put_with("key", "value", buffered()).unwrap();
    store.flush().unwrap();
    let written = store.stats();
    store.flush().unwrap();
    store.engine().log.retire_active().unwrap();
    assert_eq!(store.stats().write_outs, written.write_outs);
}

#[test]
fn a_writer_whose_record_can_no_longer_be_written_is_not_told_that_it_is_pending() {
    for durability in [Durability::Os, Durability::Sync] {
        let (_, store, namespace) = faulty();
        let log = &store.engine().log;
        let sequence = namespace.put_with("key", "value", buffered()).unwrap();
        let mut guard = log.lock();
        log.poison(&mut guard, &Error::invalid("a reason"));
        let error = log.commit(guard, durability, sequence).unwrap_err();
        assert!(matches!(error, Error::Poisoned { .. }), "{error:?}");
    }
}

#[test]
fn a_record_that_was_written_is_synced_although_later_ones_cannot_be_written() {
    let (faults, store, namespace) = faulty();
    let written = namespace
        .put_with("written", "1", PutOptions::new().durability(Durability::Os))
        .unwrap();
    namespace.put_with("pending", "2", buffered()).unwrap();
    faults.inject(Fault::new(FaultKind::Error(std::io::ErrorKind::Other)).on(Operation::Write));
    let log = &store.engine().log;
    log.commit(log.lock(), Durability::Sync, written).unwrap();
    assert!(store.stats().durable_sequence >= written);
    assert!(log.lock().tail.pending_bytes() > 0);
}

/// C11: the sync of another file may have been told of the same failure, or another program may
/// have removed the file.
#[test]
fn a_sync_is_not_trusted_if_something_has_happened_meanwhile() {
    for is_removed in [false, true] {
        let slow = SlowCall::new(Operation::Sync);
        let disk = MemStorage::new();
        let faults = FaultStorage::new(Arc::new(disk.clone()));
        let store = Store::options()
            .maintenance(Maintenance::Manual)
            .storage(Arc::new(Interposed::over(Arc::new(faults.clone()), slow.clone())))
            .open("/store")
            .unwrap();
        let namespace = store.namespace("N").unwrap();
        let durable = store.stats().durable_sequence;
        let context = &store.engine().context;
        slow.set(SlowCall::WANTED);
        std::thread::scope(|scope| {
            let put = scope.spawn(|| namespace.put("key", "value"));
            slow.wait_for(SlowCall::MADE);
            if is_removed {
                disk.remove_file(context.segment_path(1)).unwrap();
            } else {
                let failure = Fault::new(FaultKind::Error(std::io::ErrorKind::Other));
                faults.inject(failure.on(Operation::Sync).path(RESERVE_FILE));
                let reserve = context.directory.open_file(RESERVE_FILE, true).unwrap();
                reserve.sync().unwrap_err();
            }
            slow.set(SlowCall::MAY_GO);
            put.join().unwrap().unwrap_err();
        });
        assert_eq!(store.engine().log.lock().durable_sequence, durable);
        assert_eq!(namespace.put("key", "value").unwrap_err().kind(), ErrorKind::Poisoned);
    }
}

/// Another process may have the directory once a failed close has returned.
#[test]
fn a_log_that_is_stopped_waits_for_who_is_at_the_device_and_lets_nobody_else_there() {
    for (operation, durability) in [(Operation::Write, Durability::Os), (Operation::Sync, Durability::Sync)] {
        let slow = SlowCall::new(operation);
        let store = Store::options()
            .maintenance(Maintenance::Manual)
            .storage(Arc::new(Interposed::over(Arc::new(MemStorage::new()), slow.clone())))
            .open("/store")
            .unwrap();
        let namespace = store.namespace("N").unwrap();
        let log = &store.engine().log;
        slow.set(SlowCall::WANTED);
        std::thread::scope(|scope| {
            let options = PutOptions::new().durability(durability);
            let put = scope.spawn(|| namespace.put_with("key", "value", options));
            slow.wait_for(SlowCall::MADE);
            let (tell, told) = std::sync::mpsc::channel();
            let stop = scope.spawn(move || {
                tell.send(Task::current()).unwrap();
                log.stop(&Error::Closed);
            });
            let task = told.recv().unwrap();
            until("stopping waits, or is done", || task.waits() || stop.is_finished());
            let has_waited = !stop.is_finished();
            slow.set(SlowCall::MAY_GO);
            assert!(has_waited, "{operation:?}");
            stop.join().unwrap();
            put.join().unwrap().unwrap();
        });
        assert_eq!(store.flush().unwrap_err().kind(), ErrorKind::Poisoned);
        assert_eq!(store.sync().unwrap_err().kind(), ErrorKind::Poisoned);
    }
}
