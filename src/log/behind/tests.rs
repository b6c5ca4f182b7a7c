use std::sync::Arc;

use super::*;
use crate::clock::Clock;
use crate::engine::Engine;
use crate::storage::{CutPolicy, Fault, FaultKind, FaultStorage, MemStorage, Operation};
use crate::{Durability, Maintenance, ManualClock, Namespace, Options, PutOptions, Store};

const INTERVAL_MS: u64 = 1_000;

/// A store that is at rest.
fn opened(faults: &FaultStorage) -> (ManualClock, Store, Namespace) {
    let clock = ManualClock::new(1_700_000_000_000);
    let store = options(faults, &clock).open("/store").unwrap();
    let namespace = store.namespace("N").unwrap();
    (clock, store, namespace)
}

fn options(faults: &FaultStorage, clock: &ManualClock) -> Options {
    Store::options()
        .segment_bytes(4096)
        .maintenance(Maintenance::Manual)
        .sync_interval(Some(Duration::from_millis(INTERVAL_MS)))
        .clock(clock.clone())
        .storage(Arc::new(faults.clone()))
}

fn faults() -> FaultStorage {
    FaultStorage::new(Arc::new(MemStorage::new()))
}

fn class(durability: Durability) -> PutOptions {
    PutOptions::new().durability(durability)
}

/// Checks what the log knows of these puts, each with its sequence and time.
fn check(engine: &Engine, puts: &[(u64, u64)]) {
    let guard = engine.log.lock();
    let is_unsynced = |sequence: u64| sequence > guard.durable_sequence;
    let oldest = puts.iter().find(|(sequence, _)| is_unsynced(*sequence));
    match guard.tail.behind.since_ms {
        None => assert_eq!(guard.last_sequence, guard.durable_sequence),
        Some(since_ms) => assert!(oldest.is_none_or(|(_, time_ms)| since_ms <= *time_ms)),
    }
}

/// In whatever order things happen, no unsynced record is taken for younger than it is, and
/// maintenance leaves none that is older than the interval.
#[test]
fn no_record_is_taken_for_younger_than_it_is() {
    let mut rng = 1u64;
    let mut random = |below: u64| {
        rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (rng >> 33) % below
    };
    let faults = faults();
    let (clock, store, namespace) = opened(&faults);
    let engine = store.engine();
    let (mut puts, mut by_time) = (Vec::new(), 0);
    for n in 0..20_000 {
        clock.advance(random(150));
        match random(24) {
            0 => store.sync().unwrap(),
            1 => store.flush().unwrap(),
            2 => engine.log.seal_all().unwrap(),
            3 => engine.log.retire_active().unwrap(),
            4 => {
                faults.inject(Fault::new(FaultKind::Full).on(Operation::Write).path(".segment"));
                let _ = namespace.put_with("key", [7; 100], class(Durability::Os));
                faults.clear();
            }
            5..9 => {
                let (syncs, now_ms) = (store.stats().syncs, clock.monotonic_ms());
                store.maintain().unwrap();
                by_time += u64::from(store.stats().syncs > syncs);
                let durable = store.stats().durable_sequence;
                let is_late = |(sequence, time): &(u64, u64)| *sequence > durable && time + INTERVAL_MS <= now_ms;
                assert!(!puts.iter().any(is_late), "step {n}");
            }
            class_of => {
                let durability = match class_of {
                    9 => Durability::Sync,
                    10..17 => Durability::Os,
                    _ => Durability::Buffered,
                };
                let put = namespace.put_with(format!("{}", n % 50), vec![7; random(300) as usize], class(durability));
                puts.push((put.unwrap(), clock.monotonic_ms()));
            }
        }
        let durable = store.stats().durable_sequence;
        puts.retain(|(sequence, _)| *sequence > durable);
        check(engine, &puts);
    }
    assert!(by_time > 200, "{by_time} syncs by time");
}

#[test]
fn the_thread_sleeps_until_the_interval_is_over_and_without_end_while_nothing_is_unsynced() {
    let (clock, store, namespace) = opened(&faults());
    let log = &store.engine().log;
    let at_rest = || {
        for _ in 0..2 {
            clock.advance(INTERVAL_MS);
            log.sync_behind().unwrap();
        }
        assert_eq!(log.sleep_before_sync(), IDLE);
    };
    at_rest();
    // The first record wakes the thread; if it did not, this would wait for an hour.
    namespace.put_with("key", "1", class(Durability::Buffered)).unwrap();
    assert!(!log.lock().tail.behind.is_asleep);
    store.engine().context.sync_wake.wait(IDLE);
    assert_eq!(log.sleep_before_sync(), LOOK_EVERY);
    clock.advance(INTERVAL_MS - 7);
    assert_eq!(log.sleep_before_sync(), Duration::from_millis(7));
    clock.advance(7);
    assert_eq!(log.sleep_before_sync(), Duration::from_millis(1));
    log.sync_behind().unwrap();
    // The mark.
    assert_eq!(log.sleep_before_sync(), LOOK_EVERY);
    at_rest();
    // Nothing to sync is left once it was rolled back, or made durable by others.
    namespace.put("key", "2").unwrap();
    assert_eq!(log.sleep_before_sync(), IDLE);
    store.clone().close().unwrap();
    assert_eq!(log.sleep_before_sync(), IDLE);
}

#[test]
fn one_mark_follows_a_sync_in_the_background_and_none_follows_that_mark() {
    let (clock, store, namespace) = opened(&faults());
    let log = &store.engine().log;
    let sequences = || {
        let guard = log.lock();
        (guard.last_sequence, guard.durable_sequence)
    };
    let put = namespace.put_with("key", "1", class(Durability::Os)).unwrap();
    clock.advance(INTERVAL_MS);
    log.sync_behind().unwrap();
    assert_eq!(sequences(), (put + 1, put), "a mark, not synced yet");
    assert_eq!(log.lock().tail.pending_bytes(), 0, "the mark is written out");
    for _ in 0..3 {
        clock.advance(INTERVAL_MS);
        log.sync_behind().unwrap();
        assert_eq!(sequences(), (put + 1, put + 1));
    }
    // Nor is the next write preceded by another one.
    assert_eq!(namespace.put("key", "2").unwrap(), put + 2);
    assert_eq!(namespace.put("key", "3").unwrap(), put + 4, "a mark of the put before");
}

#[test]
fn a_mark_that_cannot_be_written_out_costs_nothing_else() {
    let disk = MemStorage::new();
    let faults = FaultStorage::new(Arc::new(disk.clone()));
    let (clock, store, namespace) = opened(&faults);
    let put = namespace.put_with("key", "1", class(Durability::Os)).unwrap();
    clock.advance(INTERVAL_MS);
    faults.inject(Fault::new(FaultKind::Full).on(Operation::Write).path(".segment"));
    store.maintain().unwrap();
    faults.clear();
    let stats = store.stats();
    assert_eq!((stats.last_sequence, stats.durable_sequence), (put, put));
    assert!(stats.background_error.is_some() && stats.poisoned.is_none());
    let cut = disk.power_cut(&CutPolicy::LoseUnsynced);
    let found = Store::options().storage(Arc::new(cut)).open("/store").unwrap();
    assert!(found.open_namespace("N").unwrap().contains("key").unwrap());
    // The next write sets it again.
    assert_eq!(
        namespace.put("other", "1").unwrap(),
        put + 3,
        "after the mark that was rolled back and its successor"
    );
}

#[test]
fn a_sync_moves_the_time_from_which_records_are_not_durable_only_as_far_as_it_covers() {
    let after = |whole_ms, is_all| {
        let mut behind = Behind {
            since_ms: Some(3),
            ..Behind::default()
        };
        let began = Beginning {
            written_bytes: 5,
            whole_ms,
        };
        behind.synced(&began, is_all);
        assert_eq!(behind.synced_bytes, 5);
        behind.since_ms
    };
    assert_eq!(after(Some(10), false), Some(10));
    assert_eq!(after(Some(2), false), Some(3));
    assert_eq!(after(None, false), Some(3));
    assert_eq!(after(None, true), None);
    assert_eq!(after(Some(10), true), None);
}
