use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::storage::{Call, Fault, FaultKind, FaultStorage, Interposed, Interposer, MemStorage, Operation};
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
    // Another writer has not learnt yet how it ended, so failures are kept for it.
    let waiting = {
        let mut guard = store.engine().lock_writer();
        let sequence = guard.next_sequence;
        guard.waiters.arrive(sequence)
    };
    faults.inject(Fault::new(FaultKind::Error(std::io::ErrorKind::Other)).on(Operation::Write));
    let error = namespace
        .put_with("taken back", "2", class(Durability::Os))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    store.flush().unwrap();
    assert_eq!(store.engine().lock_writer().pending_bytes(), 0);
    assert!(namespace.contains("kept").unwrap());
    assert!(!namespace.contains("taken back").unwrap());
    store.engine().lock_writer().waiters.leave(waiting);
}

#[test]
fn failures_of_others_do_not_pile_up_while_one_writer_waits() {
    let (faults, store, namespace) = faulty();
    let waiting = {
        let mut guard = store.engine().lock_writer();
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
    let mut guard = store.engine().lock_writer();
    assert!(guard.waiters.failure_of(&waiting).is_none());
    assert_eq!(guard.waiters.places(), 2);
    guard.waiters.leave(waiting);
}

/// Makes one sync, and keeps its answer back until it may go.
#[derive(Debug, Default)]
struct SlowSync(AtomicU8);

impl SlowSync {
    const WANTED: u8 = 1;
    const SYNCED: u8 = 2;
    const MAY_GO: u8 = 3;

    fn wait_for(&self, state: u8) {
        while self.0.load(Ordering::SeqCst) < state {
            std::thread::yield_now();
        }
    }
}

impl Interposer for SlowSync {
    fn around(&self, call: &Call<'_>, make: &mut dyn FnMut() -> std::io::Result<()>) -> std::io::Result<()> {
        make()?;
        let is_it = call.operation == Operation::Sync && call.path.extension().is_some_and(|name| name == "segment");
        let (wanted, synced) = (SlowSync::WANTED, SlowSync::SYNCED);
        let is_wanted = |state: &AtomicU8| state.compare_exchange(wanted, synced, Ordering::SeqCst, Ordering::SeqCst);
        if is_it && is_wanted(&self.0).is_ok() {
            self.wait_for(SlowSync::MAY_GO);
        }
        Ok(())
    }
}

#[test]
fn a_sync_counts_for_nothing_that_was_written_while_it_was_under_way() {
    let slow = Arc::new(SlowSync::default());
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .storage(Arc::new(Interposed::over(Arc::new(MemStorage::new()), slow.clone())))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    slow.0.store(SlowSync::WANTED, Ordering::SeqCst);
    let late = std::thread::scope(|scope| {
        let early = scope.spawn(|| namespace.put("early", "1"));
        slow.wait_for(SlowSync::SYNCED);
        let written_out = PutOptions::new().durability(Durability::Os);
        let late = namespace.put_with("late", "2", written_out);
        slow.0.store(SlowSync::MAY_GO, Ordering::SeqCst);
        let early = early.join().unwrap().unwrap();
        assert!(early < *late.as_ref().unwrap());
        late.unwrap()
    });
    assert!(store.stats().durable_sequence < late);
    store.sync().unwrap();
    assert!(store.stats().durable_sequence >= late);
}
