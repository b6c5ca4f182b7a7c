//! The newest record wins, whatever compaction does meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embercask::storage::{MemStorage, Operation};
use embercask::{Durability, ManualClock, Namespace, PutOptions, Store};

use crate::known_bugs::{START_MS, after_crashes, next_segment, open_at};
use test_support::hooked::Hooked;
use test_support::way::Way;
use test_support::{DIRECTORY, class, manual, open};

/// B3
#[test]
fn the_newest_record_wins_whatever_file_it_lies_in() {
    let clock = ManualClock::new(START_MS);
    type Change = fn(&Namespace);
    let changes: [(Change, Option<&[u8]>); 3] = [
        (
            |namespace| assert!(namespace.put("k", "new").unwrap() > 0),
            Some(b"new"),
        ),
        (|namespace| assert!(namespace.delete("k").unwrap().existed), None),
        (
            |namespace| {
                let ttl = PutOptions::new().ttl(Duration::from_millis(1));
                assert!(namespace.put_with("k", "short", ttl).unwrap() > 0);
            },
            None,
        ),
    ];
    for (change, expected) in changes {
        let disk = MemStorage::new();
        let store = open_at(&disk, &clock);
        let namespace = store.namespace("N").unwrap();
        namespace.put("k", "old").unwrap();
        next_segment(&namespace, "a");
        // The active segment already exists when the old value is copied into one with a higher id.
        let active = store.stats().segments.last().unwrap().id;
        store.compact_subset(1).unwrap();
        let copy = store.stats().segments.last().unwrap().id;
        assert!(copy > active);
        change(&namespace);
        clock.advance(10);
        let look = |store: &Store| {
            let value = store.open_namespace("N").unwrap().get("k").unwrap();
            value.map(|value| value.to_vec())
        };
        for (crash, disk) in after_crashes(&disk, 4) {
            assert_eq!(look(&open_at(&disk, &clock)).as_deref(), expected, "after {crash}");
        }
        store.close().unwrap();
        for way in Way::ALL {
            let prepared = way.prepare(&disk, DIRECTORY);
            let store = open_at(&disk, &clock);
            prepared.assert_taken(store.recovery_report());
            assert_eq!(look(&store).as_deref(), expected, "opened by {way:?}");
        }
        let options = || manual(Arc::new(disk.clone())).clock(clock.clone());
        embercask::salvage(DIRECTORY, "/saved", options()).unwrap();
        let saved = options().open("/saved").unwrap().open_namespace("N").unwrap();
        let value = saved.get("k").unwrap().map(|value| value.to_vec());
        assert_eq!(value.as_deref(), expected, "salvaged");
    }
}

#[test]
fn a_namespace_has_the_name_that_it_was_given_last_whatever_file_that_lies_in() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("first name").unwrap();
    next_segment(&namespace, "a");
    let active = store.stats().segments.last().unwrap().id;
    store.compact_subset(1).unwrap();
    assert!(store.stats().segments.last().unwrap().id > active);
    store.rename_namespace("first name", "second name").unwrap();
    drop(namespace);
    store.close().unwrap();
    for way in Way::ALL {
        let prepared = way.prepare(&disk, DIRECTORY);
        let store = open(&disk);
        prepared.assert_taken(store.recovery_report());
        let names = store.namespaces().unwrap().into_iter().map(|info| info.name);
        assert_eq!(names.collect::<Vec<_>>(), ["second name"], "opened by {way:?}");
    }
}

/// Calls back before each change of names, except for changes made during the callback.
#[derive(Default)]
struct Between {
    calls: AtomicU64,
    busy: AtomicBool,
    hook: Mutex<Option<Hook>>,
}

type Hook = Box<dyn FnMut(u64) + Send>;

impl Between {
    fn call(&self) {
        if self.busy.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Some(hook) = self.hook.lock().unwrap().as_mut() {
            hook(self.calls.fetch_add(1, Ordering::SeqCst));
        }
        self.busy.store(false, Ordering::SeqCst);
    }
}

/// B4, at every point of a compaction at which something else can happen, one at a time.
#[test]
fn compaction_never_puts_an_old_record_over_a_newer_one() {
    let mut last = 0;
    for at in 0.. {
        let disk = MemStorage::new();
        let between = Arc::new(Between::default());
        let asked = between.clone();
        let storage = Hooked::over(&disk, move |operation, _| {
            if !matches!(operation, Operation::Write | Operation::Sync) {
                asked.call();
            }
            Ok(())
        });
        let store = manual(storage).open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        for key in ["put", "deleted", "expiring", "left"] {
            namespace.put(key, "old").unwrap();
            namespace.put("overwritten", key).unwrap();
        }
        next_segment(&namespace, "a");
        let writer = namespace.clone();
        *between.hook.lock().unwrap() = Some(Box::new(move |call| {
            if call == at {
                writer.put_with("put", "new", class(Durability::Buffered)).unwrap();
                writer.delete_with("deleted", None, Some(Durability::Buffered)).unwrap();
                writer
                    .put_with(
                        "expiring",
                        "new",
                        class(Durability::Buffered).ttl(Duration::from_secs(3600)),
                    )
                    .unwrap();
                writer.put_with("created", "new", class(Durability::Buffered)).unwrap();
            }
        }));
        store.compact_subset(u64::MAX).unwrap();
        *between.hook.lock().unwrap() = None;
        let reached = between.calls.load(Ordering::SeqCst) > at;
        let check = |namespace: &Namespace| {
            let (put, created) = if reached {
                (&b"new"[..], Some(&b"new"[..]))
            } else {
                (&b"old"[..], None)
            };
            let get = |key: &str| namespace.get(key).unwrap().map(|value| value.to_vec());
            assert_eq!(get("put").as_deref(), Some(put), "at call {at}");
            assert_eq!(get("expiring").as_deref(), Some(put), "at call {at}");
            assert_eq!(get("deleted").is_some(), !reached, "at call {at}");
            assert_eq!(get("created").as_deref(), created, "at call {at}");
            assert_eq!(get("left").as_deref(), Some(&b"old"[..]), "at call {at}");
        };
        check(&namespace);
        store.compact().unwrap();
        check(&namespace);
        store.close().unwrap();
        check(&open(&disk).open_namespace("N").unwrap());
        last = at;
        if !reached {
            break;
        }
    }
    assert!(last >= 5, "only {last} points");
}
