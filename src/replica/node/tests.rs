use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use embercask::Store;

use super::*;
use crate::clock::LogClock;
use crate::entry::{Conditions, Lifetime};
use crate::log::Bounds;
use crate::simulated::{SimulatedConnection, SimulatedLog};
use crate::state::{Misfit, State};

fn start(log: &Arc<SimulatedLog>) -> Arc<Node> {
    let (store, clock) = seed();
    start_on(log, &store, &clock)
}

fn seed() -> (Store, LogClock) {
    let clock = LogClock::new();
    let store = Store::options().clock(clock.clone()).open_in_memory().unwrap();
    Applier::init(&store, 1).unwrap();
    (store, clock)
}

fn start_on(log: &Arc<SimulatedLog>, store: &Store, clock: &LogClock) -> Arc<Node> {
    let applier = Applier::open(store.clone(), clock.clone(), |_, _, _| 0).unwrap();
    let log = Arc::new(SimulatedConnection::new(log.clone()));
    let runtime = tokio::runtime::Handle::current();
    Node::start(&runtime, applier, log, NodeSettings::new().unwrap())
}

fn put() -> Vec<Operation> {
    vec![Operation::Put {
        namespace: 11,
        key: Bytes::from_static(b"key"),
        value: Bytes::new(),
        metadata: None,
        lifetime: Lifetime::Forever,
        conditions: Conditions::default(),
    }]
}

fn bounds(last: u64) -> Bounds {
    Bounds {
        first: 1,
        last,
        entries: last,
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_falls_behind_is_stale_although_entries_come() {
    let at = |position| State {
        position,
        ..State::new(1)
    };
    let progress = Progress::new(&at(0), Duration::from_secs(10));
    progress.set_doing(Doing::Following);
    for second in 1..=12 {
        tokio::time::advance(Duration::from_secs(1)).await;
        progress.set_log(bounds(100 * second), None);
        progress.applied(&at(5 * second));
    }
    let status = progress.status();
    assert_eq!(status.age, Duration::from_secs(11));
    let why = status.not_ready.unwrap();
    assert!(why.contains("11 s behind") && why.contains("60 of 1200"), "{why}");

    // What the log held first is applied, and what it held next is not yet stale.
    progress.applied(&at(100));
    progress.set_log(bounds(1200), None);
    tokio::time::advance(Duration::from_secs(2)).await;
    progress.applied(&at(1000));
    let status = progress.status();
    assert_eq!((status.age, status.not_ready), (Duration::from_secs(2), None));
    progress.applied(&at(1200));
    assert_eq!(progress.status().age, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_recreated_log_is_refused_and_not_written_to() {
    let log = SimulatedLog::new(1, 1_800_000_000_000);
    let (store, clock) = seed();
    let node = start_on(&log, &store, &clock);
    for _ in 0..20 {
        node.write(put()).await.unwrap();
    }
    node.stop().await;
    let position = node.position();

    // Of the same cluster, and longer.
    let recreated = SimulatedLog::new(2, 1_800_000_000_000);
    let other = start(&recreated);
    while other.position() < position + 5 {
        other.write(put()).await.unwrap();
    }
    other.stop().await;
    let last = recreated.holds().last;
    let node = start_on(&recreated, &store, &clock);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(node.write(put()).await, Err(WriteError::TimedOut));
    assert_eq!((node.position(), recreated.holds().last), (position, last));
    let status = node.status();
    assert_eq!((status.gaps, status.failed, status.refused), (0, 0, 0));
    let why = status.not_ready.unwrap();
    assert!(why.contains("another entry"), "{why}");
    node.stop().await;

    let node = start_on(&log, &store, &clock);
    node.write(put()).await.unwrap();
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_has_lost_entries_is_not_written_to() {
    let log = SimulatedLog::new(1, 1_800_000_000_000);
    let node = start(&log);
    for _ in 0..20 {
        node.write(put()).await.unwrap();
    }
    let position = node.position();
    log.shorten(6);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(node.write(put()).await, Err(WriteError::TimedOut));
    let last = log.holds().last;
    assert!(last < 10, "{last}");
    let misfit = node.status().misfit.unwrap();
    assert_eq!(misfit, Misfit::Ahead { last, position });
    node.stop().await;
}
