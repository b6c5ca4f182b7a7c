use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::index::expiry::ExpiryQueue;
use crate::state::leave::RETRY_MS;
use crate::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
use crate::{Maintenance, ManualClock, Namespace, PutOptions, ReadMode, Store};

fn clocked() -> (ManualClock, Store, Namespace) {
    let clock = ManualClock::new(1_000_000);
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .clock(clock.clone())
        .storage(Arc::new(MemStorage::new()))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    (clock, store, namespace)
}

#[test]
fn a_put_between_finding_an_expired_key_and_forgetting_it_stays() {
    let (clock, store, namespace) = clocked();
    let second = PutOptions::new().ttl(Duration::from_secs(1));
    for key in ["renewed", "deleted", "left alone"] {
        namespace.put_with(key, "old", second.clone()).unwrap();
    }
    clock.advance(1000);
    let engine = store.engine();
    let now = engine.context.time.now();
    let due = engine.state.read_due(&engine.state.take_due(now.wall_ms()));
    assert_eq!(due.len(), 3);
    // The sweep has found them expired, and has yet to take the writer lock.
    namespace.put("renewed", "new").unwrap();
    namespace.delete("deleted").unwrap();
    namespace.put_with("deleted", "again", second).unwrap();
    let writer = engine.log.lock();
    assert!(
        due.iter()
            .all(|due| engine.state.expire(&engine.state.lock_changes(), due, &now).is_none())
    );
    drop(writer);
    assert_eq!(namespace.get_text("renewed").unwrap().as_deref(), Some("new"));
    assert_eq!(namespace.get_text("deleted").unwrap().as_deref(), Some("again"));
    assert!(namespace.get("left alone").unwrap().is_none());
    assert_eq!(store.stats().expired, 1);
    let live: u64 = store.stats().segments.iter().map(|segment| segment.live_records).sum();
    // The namespace has a record of its own.
    assert_eq!(live, 3);
}

/// The sweep waited for the lock while the clock was set back.
#[test]
fn a_sweep_that_read_the_clock_before_it_was_set_back_leaves_what_was_put_since() {
    let (clock, store, namespace) = clocked();
    let second = PutOptions::new().ttl(Duration::from_secs(1));
    namespace.put_with("old", "1", second.clone()).unwrap();
    clock.set_wall(1_900_000);
    let engine = store.engine();
    let due_ms = engine.context.time.now().wall_ms();
    clock.set_wall(1_000_500);
    namespace.put_with("new", "1", second).unwrap();
    let due = engine.state.read_due(&engine.state.take_due(due_ms));
    assert_eq!(due.len(), 2);
    let writer = engine.log.lock();
    let now = engine.context.time.now();
    let left: Vec<_> = due
        .iter()
        .map(|due| engine.state.expire(&engine.state.lock_changes(), due, &now))
        .collect();
    drop(writer);
    assert_eq!(left, [None, Some(1_001_500)]);
    assert_eq!(namespace.get_text("new").unwrap().as_deref(), Some("1"));
    assert!(namespace.get("old").unwrap().is_none());
}

/// C14. A sweep or a cleaning in another thread has taken these entries out of the queue.
#[test]
fn an_index_file_written_while_entries_are_taken_out_of_the_expiry_queue_has_them() {
    type Take = fn(&mut ExpiryQueue) -> usize;
    let takes: [Take; 2] = [
        |queue| queue.take_due(u64::MAX, STEP).len(),
        |queue| queue.take_all().len(),
    ];
    for take in takes {
        let (disk, clock) = (MemStorage::new(), ManualClock::new(1_000_000));
        let open = |disk: &MemStorage| {
            Store::options()
                .maintenance(Maintenance::Manual)
                .clock(clock.clone())
                .storage(Arc::new(disk.clone()))
                .open("/store")
                .unwrap()
        };
        let store = open(&disk);
        let namespace = store.namespace("N").unwrap();
        for n in 0..STEP {
            let second = PutOptions::new().ttl(Duration::from_secs(1));
            namespace.put_with(format!("{n}"), "1", second).unwrap();
        }
        let before = store.stats();
        assert_eq!(take(&mut lock(&store.engine().state.expiry)), STEP);
        clock.advance(1000);
        let stats = store.stats();
        assert_eq!(stats.expired_not_swept, STEP as u64);
        assert!(stats.expiry_queue_bytes >= before.expiry_queue_bytes);
        store.close().unwrap();
        let store = open(&disk);
        assert!(store.recovery_report().index_file_used);
        store.maintain().unwrap();
        assert_eq!(store.stats().keys, 0, "they have left memory");
    }
}

#[test]
fn nothing_leaves_the_indexes_of_a_store_that_was_closed() {
    let (clock, store, namespace) = clocked();
    let second = PutOptions::new().ttl(Duration::from_secs(1));
    namespace.put_with("key", "1", second).unwrap();
    store.namespace("DROPPED").unwrap().put("key", "1").unwrap();
    store.drop_namespace("DROPPED").unwrap();
    let other = store.clone();
    store.close().unwrap();
    clock.advance(1000);
    let engine = other.engine();
    engine.housekeeping.sweep_expired();
    engine.housekeeping.clean_expiry_queue();
    engine.housekeeping.empty_dropped_namespaces().unwrap();
    engine.housekeeping.merge_orders();
    assert_eq!((other.stats().expired, engine.state.keydir.len()), (0, 3));
}

#[test]
fn a_read_that_fails_in_a_sweep_does_not_keep_the_key_in_memory_for_good() {
    let clock = ManualClock::new(1_000_000);
    let faulty = FaultStorage::new(Arc::new(MemStorage::new()));
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .read_mode(ReadMode::Pread)
        .clock(clock.clone())
        .storage(Arc::new(faulty.clone()))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    let second = PutOptions::new().ttl(Duration::from_secs(1));
    namespace.put_with("key", "value", second).unwrap();
    store.end_segment();
    clock.advance(1000);
    faulty.inject(
        Fault::new(FaultKind::Error(std::io::ErrorKind::Other))
            .on(Operation::Read)
            .repeated(),
    );
    store.engine().housekeeping.sweep_expired();
    assert!(faulty.struck() > 0);
    assert_eq!(store.stats().expired, 0);
    faulty.clear();
    clock.advance(RETRY_MS);
    store.engine().housekeeping.sweep_expired();
    assert_eq!(store.stats().expired, 1);
}

#[test]
fn what_expires_leaves_memory_though_it_was_put_before_the_store_was_opened() {
    for index_file in [false, true] {
        let (disk, clock) = (MemStorage::new(), ManualClock::new(1_000_000));
        let open = || {
            Store::options()
                .maintenance(Maintenance::Manual)
                .clock(clock.clone())
                .index_file(index_file)
                .storage(Arc::new(disk.clone()))
                .open("/store")
                .unwrap()
        };
        let store = open();
        let second = PutOptions::new().ttl(Duration::from_secs(1));
        store.namespace("N").unwrap().put_with("key", "1", second).unwrap();
        store.close().unwrap();
        let store = open();
        assert_eq!(store.recovery_report().index_file_used, index_file);
        assert_eq!(store.stats().keys, 1);
        clock.advance(1000);
        store.maintain().unwrap();
        assert_eq!(store.stats().keys, 0, "index file: {index_file}");
    }
}

#[test]
fn what_a_dropped_namespace_held_is_in_no_index_after_the_next_opening() {
    let disk = MemStorage::new();
    let open = || {
        Store::options()
            .maintenance(Maintenance::Manual)
            .index_file(false)
            .storage(Arc::new(disk.clone()))
            .open("/store")
            .unwrap()
    };
    let store = open();
    store.namespace("DROPPED").unwrap().put("key", "1").unwrap();
    store.namespace("N").unwrap().put("key", "1").unwrap();
    store.drop_namespace("DROPPED").unwrap();
    store.close().unwrap();
    let store = open();
    // The other key, and the record of its namespace.
    let live: u64 = store.stats().segments.iter().map(|segment| segment.live_records).sum();
    assert_eq!((store.stats().keys, live), (1, 2));
}

#[test]
fn entries_of_records_that_were_overwritten_leave_the_expiry_queue_once_there_are_many() {
    let (_clock, store, namespace) = clocked();
    let options = || PutOptions::new().ttl(Duration::from_secs(1));
    let put = |count: usize, options: &dyn Fn() -> PutOptions| {
        let keys = (0..count).map(|key| format!("{key}"));
        let mut batch = store.batch();
        for key in keys {
            batch.put_with(&namespace, key, "1", options());
        }
        batch.commit().unwrap();
    };
    put(5_000, &options);
    put(4_000, &PutOptions::new);
    let engine = store.engine();
    let entries = || lock(&engine.state.expiry).entries().count();
    assert_eq!(entries(), 5_000);
    engine.housekeeping.clean_expiry_queue();
    assert_eq!(entries(), 1_000);
}

#[test]
fn an_index_file_tells_which_namespaces_have_keys_that_expire() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(1_000_000));
    let open = || {
        let options = Store::options().maintenance(Maintenance::Manual).clock(clock.clone());
        options.storage(Arc::new(disk.clone())).open("/store").unwrap()
    };
    let store = open();
    let second = PutOptions::new().ttl(Duration::from_secs(1));
    store.namespace("M").unwrap().put_with("key", "1", second).unwrap();
    store.namespace("N").unwrap().put("key", "1").unwrap();
    store.close().unwrap();
    let store = open();
    assert!(store.recovery_report().index_file_used);
    clock.advance(1000);
    let of = |name: &str| store.open_namespace(name).unwrap();
    assert_eq!(["M", "N"].map(|name| of(name).count().unwrap()), [0, 1]);
    assert_eq!(["M", "N"].map(|name| of(name).state.has_expiring()), [true, false]);
}
