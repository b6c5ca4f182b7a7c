use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::storage::{Call, Fault, FaultKind, FaultStorage, Interposed, Interposer, MemStorage, Operation};
use crate::testing::until;
use crate::{Durability, ErrorKind, Maintenance, Namespace, PutOptions, Store};

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
        .put_with("taken back", "2", class(Durability::Os))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    store.flush().unwrap();
    assert_eq!(store.engine().log.lock().tail.pending_bytes(), 0);
    assert!(namespace.contains("kept").unwrap());
    assert!(!namespace.contains("taken back").unwrap());
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

/// Makes one sync or one write of a segment, and holds its return until released.
#[derive(Debug)]
struct SlowCall {
    operation: Operation,
    state: AtomicU8,
}

impl SlowCall {
    const WANTED: u8 = 1;
    const MADE: u8 = 2;
    const MAY_GO: u8 = 3;

    fn new(operation: Operation) -> Arc<SlowCall> {
        Arc::new(SlowCall {
            operation,
            state: AtomicU8::new(0),
        })
    }

    fn set(&self, state: u8) {
        self.state.store(state, Ordering::SeqCst);
    }

    fn wait_for(&self, state: u8) {
        while self.state.load(Ordering::SeqCst) < state {
            std::thread::yield_now();
        }
    }
}

impl Interposer for SlowCall {
    fn around(&self, call: &Call<'_>, make: &mut dyn FnMut() -> std::io::Result<()>) -> std::io::Result<()> {
        make()?;
        let is_it = call.operation == self.operation && call.path.extension().is_some_and(|name| name == "segment");
        let (wanted, made) = (SlowCall::WANTED, SlowCall::MADE);
        let is_wanted = |state: &AtomicU8| state.compare_exchange(wanted, made, Ordering::SeqCst, Ordering::SeqCst);
        if is_it && is_wanted(&self.state).is_ok() {
            self.wait_for(SlowCall::MAY_GO);
        }
        Ok(())
    }
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
fn what_is_appended_beside_a_write_out_can_be_taken_back_after_it() {
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
