//! Waiting until no background work is left.

use std::sync::Arc;
use std::time::Duration;

use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{ErrorKind, Maintenance, ManualClock, Namespace, PutOptions, Store};

use crate::public_interface::{buffered, intact, small_segments, worth_a_run};
use test_support::{DIRECTORY, until};

const NOW_MS: u64 = 2_000_000_000_000;
/// Longer than any of it takes: a test that needs it fails by it.
const PATIENCE: Duration = Duration::from_secs(100);

fn opened(maintenance: Maintenance, rate: Option<u64>) -> (Store, Namespace, ManualClock) {
    let clock = ManualClock::new(NOW_MS);
    let options = small_segments(Arc::new(MemStorage::new())).clock(clock.clone());
    let options = options.maintenance(maintenance).compaction_bytes_per_second(rate);
    let store = options.open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    (store, namespace, clock)
}

/// Puts keys that expire after a second.
fn put_expiring(namespace: &Namespace, keys: usize) {
    for key in 0..keys {
        let options = buffered().ttl(Duration::from_secs(1));
        namespace.put_with(format!("expiring {key}"), "", options).unwrap();
    }
}

#[test]
fn what_is_left_is_told_and_done_once_it_is_waited_for() {
    let (store, namespace, clock) = opened(Maintenance::Manual, None);
    worth_a_run(&namespace);
    put_expiring(&namespace, 100);
    let dropped = store.namespace("dropped").unwrap();
    for key in 0..100 {
        dropped.put_with(key.to_string(), "", buffered()).unwrap();
    }
    store.drop_namespace("dropped").unwrap();
    clock.advance(1000);
    let left = store.stats().background;
    assert_eq!((left.sweeping, left.emptying, left.clock_jumped), (100, 1, false));
    assert!(left.merging > 0 && left.compacting && !left.is_idle(), "{left:?}");
    assert!(store.wait_idle(PATIENCE).unwrap());
    let stats = store.stats();
    assert!(stats.background.is_idle(), "{:?}", stats.background);
    assert_eq!(
        (stats.expired_not_swept, stats.expired, stats.space.owed_bytes),
        (0, 100, 0)
    );
    assert!(stats.compaction.runs > 0);
    intact(&namespace);
}

#[test]
fn a_full_segment_counts_until_it_is_sealed() {
    let faults = FaultStorage::new(Arc::new(MemStorage::new()));
    let store = small_segments(Arc::new(faults.clone())).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put_with("key", [7; 1000], buffered()).unwrap();
    // No sealed segment can be opened to be mapped, so sealing fails each time.
    let fault = Fault::new(FaultKind::Error(std::io::ErrorKind::Other));
    faults.inject(fault.on(Operation::OpenRead).path(".segment").repeated());
    for key in 0..40 {
        let _ = namespace.put_with(key.to_string(), [7; 1000], buffered());
    }
    assert!(store.stats().background.sealing > 0);
    assert!(store.wait_idle(PATIENCE).is_err());
    faults.clear();
    assert!(store.wait_idle(PATIENCE).unwrap());
    assert_eq!(store.stats().background.sealing, 0);
}

#[test]
fn threads_that_have_work_are_waited_for() {
    let (store, namespace, clock) = opened(Maintenance::Background, None);
    for _ in 0..5 {
        worth_a_run(&namespace);
        put_expiring(&namespace, 500);
        let dropped = store.namespace("dropped").unwrap();
        for key in 0..500 {
            dropped.put_with(key.to_string(), "", buffered()).unwrap();
        }
        store.drop_namespace("dropped").unwrap();
        clock.advance(1000);
        assert!(store.wait_idle(PATIENCE).unwrap(), "{:?}", store.stats().background);
        let stats = store.stats();
        assert_eq!((stats.expired_not_swept, stats.space.owed_bytes), (0, 0));
    }
    intact(&namespace);
}

#[test]
fn a_wait_ends_with_its_time_with_a_pause_or_with_the_store() {
    // The clock of the rate limit stands still, so the run never ends by itself.
    let (store, namespace, _clock) = opened(Maintenance::Background, Some(1));
    worth_a_run(&namespace);
    until("the compaction is due", || store.stats().background.compacting);
    assert!(!store.wait_idle(Duration::from_millis(20)).unwrap());
    assert!(!store.wait_idle(Duration::ZERO).unwrap());
    assert!(store.stats().background.compacting);
    // It is not waited for once it is paused.
    store.pause_compaction();
    assert!(store.wait_idle(PATIENCE).unwrap());
    store.resume_compaction();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| store.wait_idle(PATIENCE));
        store.clone().close().unwrap();
        assert_eq!(waiting.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    });
    assert_eq!(store.wait_idle(PATIENCE).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn the_pause_after_a_jump_of_the_clock_is_told_and_not_waited_for() {
    let (store, namespace, clock) = opened(Maintenance::Manual, None);
    let options = PutOptions::new().ttl(Duration::from_secs(1));
    namespace.put_with("key", "value", options).unwrap();
    store.maintain().unwrap();
    clock.set_wall(NOW_MS + 1_000_000);
    assert!(store.wait_idle(PATIENCE).unwrap());
    let stats = store.stats();
    assert!(stats.background.clock_jumped && stats.background.is_idle());
    assert_eq!((stats.background.sweeping, stats.expired_not_swept), (0, 1));
}
