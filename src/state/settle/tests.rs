use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::storage::{Call, Interposed, Interposer, MemStorage, Operation};
use crate::testing::until;
use crate::{Durability, Maintenance, ManualClock, Namespace, PutOptions, Snapshot, Store, Value};

mod against_model;

const START_MS: u64 = 1_700_000_000_000;

fn open(storage: Arc<dyn crate::storage::Storage>) -> (ManualClock, Store) {
    let clock = ManualClock::new(START_MS);
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .clock(clock.clone())
        .expiry_grace(Duration::ZERO)
        .segment_bytes(256 << 10)
        .storage(storage)
        .open("/store")
        .unwrap();
    (clock, store)
}

/// Runs `then` between two holds of the change lock, when a large batch is being settled.
fn between_turns(state: &State, then: impl Fn() + Send + Sync + 'static) {
    let is_inside = Mutex::new(());
    *lock(&state.between_turns) = Some(Arc::new(move || {
        // What is done may settle, too.
        if let Ok(_inside) = is_inside.try_lock() {
            then();
        }
    }));
}

/// Does something at the next write to a file, which may fail then.
#[derive(Default)]
struct AtWrite {
    then: Mutex<Option<Then>>,
}

type Then = Box<dyn FnOnce() -> std::io::Result<()> + Send>;

impl std::fmt::Debug for AtWrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AtWrite").finish_non_exhaustive()
    }
}

impl Interposer for AtWrite {
    fn around(&self, call: &Call<'_>, make: &mut dyn FnMut() -> std::io::Result<()>) -> std::io::Result<()> {
        let then = match call.operation {
            Operation::Write => lock(&self.then).take(),
            _ => None,
        };
        then.map_or(Ok(()), |then| then())?;
        make()
    }
}

/// That all but the last of these keys have the value "old" in the snapshot.
fn assert_sees_old(snapshot: &Snapshot, namespace: &Namespace, keys: [&str; 5]) {
    let old = [true, true, true, true, false];
    let is_old = |value: &Option<Value>| value.as_ref().is_some_and(|value| **value == *b"old");
    let many = snapshot.get_many(namespace, &keys).unwrap();
    assert!(many.iter().map(is_old).eq(old));
    let single = keys.map(|key| snapshot.get(namespace, key).unwrap());
    assert!(single.iter().map(is_old).eq(old));
    assert_eq!(snapshot.count(namespace).unwrap(), 4);
}

#[test]
fn a_batch_that_fails_takes_back_what_was_settled_of_it_and_written_after_it() {
    let at_write = Arc::new(AtWrite::default());
    let storage = Interposed::over(Arc::new(MemStorage::new()), at_write.clone());
    let (_, store) = open(Arc::new(storage));
    let namespace = store.namespace("N").unwrap();
    for key in ["a", "b", "c", "d"] {
        namespace.put(key, "old").unwrap();
    }
    let all = ["a", "b", "c", "d", "new"];
    let shown = |namespace: &Namespace| {
        let keys: Vec<_> = all.map(|key| namespace.get_text(key).unwrap()).into();
        (keys, namespace.count().unwrap(), namespace.stats().unwrap())
    };
    let before = shown(&namespace);
    // What began before is settled, and sees none of this at any moment.
    let snapshot = store.snapshot().unwrap();
    let (store_then, snapshot_then) = (namespace.clone(), snapshot.clone());
    assert_sees_old(&snapshot, &namespace, all);
    let state = &store.engine().state;
    let counts = || {
        state
            .segments
            .all()
            .iter()
            .map(|segment| segment.counters.get().live_bytes)
            .sum::<u64>()
    };
    let (live, os) = (counts(), PutOptions::new().durability(Durability::Os));
    let writers = Arc::new(Mutex::new(Vec::new()));
    let (started, writer) = (writers.clone(), namespace.clone());
    *lock(&at_write.then) = Some(Box::new(move || {
        assert_eq!(writer.get_text("a").unwrap().as_deref(), Some("batch"));
        let threads: [&'static str; 3] = ["a", "b", "new"];
        for key in threads {
            let (own, options) = (writer.clone(), os.clone());
            lock(&started).push(std::thread::spawn(move || own.put_with(key, "later", options)));
            until("the write after it", || {
                writer.get_text(key).unwrap().as_deref() == Some("later")
            });
        }
        assert_sees_old(&snapshot_then, &store_then, all);
        Err(std::io::Error::other("as planned"))
    }));
    let mut batch = store.batch();
    batch
        .put(&namespace, "a", "batch")
        .delete(&namespace, "b")
        .put(&namespace, "c", "first");
    batch
        .delete(&namespace, "c")
        .put(&namespace, "c", "last")
        .put(&namespace, "new", "batch");
    for number in 0..10 {
        batch.put(&namespace, format!("more {number}"), "batch");
    }
    batch.commit().unwrap_err();
    for writer in std::mem::take(&mut *lock(&writers)) {
        // Each was rolled back, or written again after it.
        assert!(writer.join().unwrap().is_err());
    }
    assert_sees_old(&snapshot, &namespace, all);
    assert_eq!(shown(&namespace), before);
    assert_eq!(counts(), live);
    assert!(!state.is_changing() && state.group.load().is_none());
    // All of its room is free again.
    batch.commit().unwrap();
    assert_eq!(namespace.get_text("c").unwrap().as_deref(), Some("last"));
    assert_eq!(namespace.count().unwrap(), 14);
}

/// A large batch of puts under "a", "b" and others.
fn large(store: &Store, namespace: &Namespace) -> crate::Batch {
    let mut batch = store.batch();
    for key in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
        batch.put(namespace, key, "batch");
    }
    batch
}

#[test]
fn a_segment_is_sealed_after_what_it_has_is_settled() {
    let (_, store) = open(Arc::new(MemStorage::new()));
    let namespace = store.namespace("N").unwrap();
    let (state, other) = (store.engine().state.clone(), store.clone());
    between_turns(&state, move || {
        other.end_segment();
        let state = &other.engine().state;
        let all_live = state
            .segments
            .all()
            .into_iter()
            .filter(|segment| segment.summary.is_some());
        all_live.for_each(|segment| assert_eq!(segment.counters.get().dead_puts(), 0));
        other.compact_subset(u64::MAX).unwrap();
    });
    large(&store, &namespace).commit().unwrap();
    *lock(&state.between_turns) = None;
    assert_eq!(namespace.count().unwrap(), 10);
    assert_eq!(namespace.get_text("j").unwrap().as_deref(), Some("batch"));
    store.verify().unwrap();
}

#[test]
fn a_place_found_while_a_batch_is_settled_is_not_used_after_it() {
    let (_, store) = open(Arc::new(MemStorage::new()));
    let namespace = store.namespace("N").unwrap();
    namespace.put("j", "old").unwrap();
    let state = store.engine().state.clone();
    let hash = state.hash(namespace.state.number, b"j");
    let found = Arc::new(Mutex::new(None));
    let (keep, own) = (found.clone(), state.clone());
    between_turns(&state, move || {
        // The last record is settled last.
        lock(&keep).get_or_insert_with(|| own.warm_up(&[hash], None));
    });
    large(&store, &namespace).commit().unwrap();
    *lock(&state.between_turns) = None;
    let candidates = lock(&found).take().unwrap();
    let (key, now) = (
        state.hashed(namespace.state.number, b"j"),
        store.engine().context.time.now(),
    );
    let value = state.get_warm(&key, candidates[0].as_ref(), &now).unwrap().unwrap();
    assert_eq!(value.as_str().unwrap(), "batch");
}

#[test]
fn a_view_of_a_batch_that_is_being_settled_shows_all_of_it() {
    let (_, store) = open(Arc::new(MemStorage::new()));
    let namespace = store.namespace("N").unwrap();
    let keys: Vec<_> = ('a'..='j').map(String::from).collect();
    for key in &keys {
        namespace.put(key, "old").unwrap();
    }
    let (looks, state) = (Arc::new(Mutex::new(0)), store.engine().state.clone());
    assert!(store.snapshot().unwrap().view().is_settled());
    let (counted, other, its_namespace) = (looks.clone(), store.clone(), namespace.clone());
    between_turns(&state, move || {
        let snapshot = other.snapshot().unwrap();
        assert_eq!(snapshot.view().is_settled(), !other.engine().state.is_changing());
        for value in snapshot.get_many(&its_namespace, &keys).unwrap() {
            assert_eq!(value.unwrap().as_str().unwrap(), "batch");
        }
        for entry in snapshot.list(&its_namespace).unwrap().with_values() {
            assert_eq!(entry.unwrap().value().unwrap().as_str().unwrap(), "batch");
        }
        *lock(&counted) += 1;
    });
    large(&store, &namespace).commit().unwrap();
    *lock(&state.between_turns) = None;
    assert!(*lock(&looks) > 1, "{looks:?}");
}

/// A put that is copied while the delete of its key is published and not settled must not come back
/// once that is compacted away.
#[test]
fn a_copy_of_what_a_batch_deletes_is_not_taken_for_younger_than_the_batch() {
    let disk = MemStorage::new();
    let at_write = Arc::new(AtWrite::default());
    let open = || {
        Store::options()
            .maintenance(Maintenance::Manual)
            .index_file(false)
            .storage(Arc::new(Interposed::over(Arc::new(disk.clone()), at_write.clone())))
            .open("/store")
            .unwrap()
    };
    let store = open();
    let namespace = store.namespace("N").unwrap();
    namespace.put("j", "old").unwrap();
    namespace.put("stays", "value").unwrap();
    store.end_segment();
    let state = store.engine().state.clone();
    let (own, other, number) = (state.clone(), store.clone(), namespace.state.number);
    let (writes, is_done) = (at_write.clone(), std::sync::atomic::AtomicBool::new(false));
    between_turns(&state, move || {
        if is_done.swap(true, std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        // The copies are made, and then the last key is settled before the index follows: the first
        // write is that of the new segment's header, the second has the records.
        let (state, again) = (own.clone(), writes.clone());
        let settle = move || {
            let key = state.hashed(number, b"j");
            state.settle_key(&key).unwrap();
            Ok(())
        };
        *lock(&writes.then) = Some(Box::new(move || {
            *lock(&again.then) = Some(Box::new(settle));
            Ok(())
        }));
        other.compact_subset(1).unwrap();
        assert!(lock(&writes.then).is_none());
    });
    // Of the copies only the last key's dies: deaths of others would be told apart by their time.
    let mut batch = large(&store, &namespace);
    batch.delete(&namespace, "j");
    batch.commit().unwrap();
    *lock(&state.between_turns) = None;
    assert_eq!(namespace.count().unwrap(), 10);
    store.end_segment();
    // Only the segment with the tombstone.
    let all = state.segments.all();
    let has_tombstone = |segment: &Arc<Segment>| segment.counters.get().tombstones > 0;
    let place = all.iter().position(has_tombstone).unwrap();
    store.compact_subset(1 << place).unwrap();
    store.close().unwrap();
    let store = open();
    let namespace = store.namespace("N").unwrap();
    assert!(namespace.get("j").unwrap().is_none(), "a deleted key has come back");
    assert_eq!(namespace.count().unwrap(), 10);
}

#[test]
fn a_batch_of_a_namespace_with_a_limit_is_in_the_indexes_before_others_write_and_no_reader_waits_for_that() {
    let (_, store) = open(Arc::new(MemStorage::new()));
    let namespace = store.namespace("N").unwrap();
    let state = store.engine().state.clone();
    let (turns, has_written) = (Arc::new(Mutex::new(0)), Arc::new(AtomicBool::new(false)));
    let (counted, written) = (turns.clone(), has_written.clone());
    let looks_at = namespace.clone();
    between_turns(&state, move || {
        *lock(&counted) += 1;
        assert!(!written.load(Ordering::Acquire), "another has written");
        let keys = ["a", "j"];
        std::thread::scope(|scope| {
            let look = scope.spawn(|| looks_at.get_many(&keys).unwrap());
            let values = look.join().unwrap();
            assert!(values.iter().flatten().all(|value| value.as_str().unwrap() == "batch"));
            assert_eq!(looks_at.list().limit(20).count().unwrap(), 10);
        });
    });
    large(&store, &namespace).commit().unwrap();
    assert!(*lock(&turns) > 1, "a large batch is settled in turns");
    *lock(&turns) = 0;
    namespace.set_max_bytes(Some(10_000));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            until("the batch is being settled", || *lock(&turns) > 0);
            namespace.put("z", "another").unwrap();
            has_written.store(true, Ordering::Release);
        });
        large(&store, &namespace).commit().unwrap();
        assert!(*lock(&turns) > 1);
        *lock(&state.between_turns) = None;
        writer.join().unwrap();
    });
    namespace.delete("z").unwrap();
    // What it leaves is known, so the next one is refused by it.
    namespace.set_max_bytes(Some(namespace.live_bytes()));
    let mut batch = store.batch();
    for number in 0..10 {
        batch.put(&namespace, format!("more {number}"), "batch");
    }
    let refused = batch.commit().unwrap_err();
    assert!(matches!(refused, crate::Error::NamespaceFull { .. }), "{refused:?}");
    assert_eq!(namespace.count().unwrap(), 10);
}

/// Freeing what a large batch took in memory takes milliseconds.
#[test]
fn a_large_batch_is_not_freed_by_the_reader_that_has_it_last() {
    let (_, store) = open(Arc::new(MemStorage::new()));
    let namespace = store.namespace("N").unwrap();
    let state = store.engine().state.clone();
    let read = Arc::new(Mutex::new(None));
    let (keep, own) = (read.clone(), state.clone());
    between_turns(&state, move || {
        let published = own.group.load_full();
        *lock(&keep) = published.or_else(|| lock(&keep).take());
    });
    large(&store, &namespace).commit().unwrap();
    *lock(&state.between_turns) = None;
    let held = lock(&read).take().unwrap();
    assert!(state.group.load().is_none());
    assert_eq!(Arc::strong_count(&held), 2, "the store keeps it as well");
    drop(held);
    assert_eq!(lock(&state.withdrawn).len(), 1);
    state.shrink();
    assert!(lock(&state.withdrawn).is_empty());
}
