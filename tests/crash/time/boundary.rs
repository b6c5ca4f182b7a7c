//! The millisecond at which a key expires, for cases that `tests/engine/expiry.rs` does not cover.

use std::sync::Arc;

use embercask::storage::{CutPolicy, MemStorage};
use embercask::{Condition, ErrorKind, ManualClock, Namespace, PutOptions, Result, Store, salvage};

use crate::time::START_MS;
use test_support::{DIRECTORY, manual};

/// Whether the condition of this write held.
fn held<T>(result: Result<T>) -> bool {
    match result {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::Conflict => false,
        Err(error) => panic!("{error}"),
    }
}

type Question = fn(&Store, &Namespace, &str, u64) -> bool;

/// Ways to check whether a key exists, beyond those of `tests/engine/expiry.rs`: those that need
/// the sequence of its last write, and those that return its expiry. Some change the key, so each
/// has its own.
const QUESTIONS: [(&str, Question); 10] = [
    ("get", |_, n, key, _| n.get(key).unwrap().is_some()),
    ("contains", |_, n, key, _| n.contains(key).unwrap()),
    ("expiry of get_many", |_, n, key, _| {
        n.get_many(&[key]).unwrap()[0]
            .as_ref()
            .is_some_and(|value| value.expiry_ms().is_some())
    }),
    ("expiry of list", |_, n, key, _| {
        let mut found = n.list().prefix(key).into_iter();
        found.any(|entry| entry.unwrap().expiry_ms().is_some())
    }),
    ("expiry of list with values", |_, n, key, _| {
        let mut found = n.list().prefix(key).with_values().into_iter();
        found.any(|entry| entry.unwrap().value().unwrap().expiry_ms().is_some())
    }),
    ("count of a listing", |_, n, key, _| {
        n.list().prefix(key).count().unwrap() == 1
    }),
    ("put_if sequence", |_, n, key, sequence| {
        held(n.put_if(key, "2", Condition::Sequence(sequence)))
    }),
    ("delete_if sequence", |_, n, key, sequence| {
        held(n.delete_if(key, Condition::Sequence(sequence)))
    }),
    ("batch put if sequence", |store, n, key, sequence| {
        let put = PutOptions::new().condition(Condition::Sequence(sequence));
        held(store.batch().put_with(n, key, "2", put).commit())
    }),
    ("batch delete if sequence", |store, n, key, sequence| {
        held(store.batch().delete_if(n, key, Condition::Sequence(sequence)).commit())
    }),
];

/// Turns a store in use into one obtained in another way, at the clock's time.
type Place = fn(&MemStorage, &ManualClock, Store) -> Store;

fn open_at(disk: &MemStorage, clock: &ManualClock, directory: &str) -> Store {
    manual(Arc::new(disk.clone()))
        .clock(clock.clone())
        .open(directory)
        .unwrap()
}

const PLACES: [(&str, Place); 7] = [
    ("in use", |_, _, store| store),
    ("swept", |_, _, store| {
        store.maintain().unwrap();
        store
    }),
    ("killed and recovered", |disk, clock, _store| {
        open_at(&disk.crash_process(), clock, DIRECTORY)
    }),
    (
        "killed, recovered, without power and opened again",
        |disk, clock, _store| {
            let disk = disk.crash_process();
            drop(open_at(&disk, clock, DIRECTORY));
            open_at(&disk.power_cut(&CutPolicy::LoseUnsynced), clock, DIRECTORY)
        },
    ),
    ("checkpoint", |disk, clock, store| {
        store.checkpoint("/copy").unwrap();
        open_at(disk, clock, "/copy")
    }),
    ("compacted, then salvaged", |disk, clock, store| {
        store.compact().unwrap();
        store.close().unwrap();
        salvage(DIRECTORY, "/out", manual(Arc::new(disk.clone())).clock(clock.clone())).unwrap();
        open_at(disk, clock, "/out")
    }),
    ("killed, then salvaged", |disk, clock, _store| {
        let disk = disk.crash_process();
        salvage(DIRECTORY, "/out", manual(Arc::new(disk.clone())).clock(clock.clone())).unwrap();
        open_at(&disk, clock, "/out")
    }),
];

#[test]
fn conditions_on_sequences_and_every_way_to_come_by_a_store_agree_on_the_millisecond() {
    let expiry = START_MS + 5_000;
    for (place, come_by) in PLACES {
        for (early_ms, there) in [(1, true), (0, false)] {
            // The store is obtained while every key exists, or at the very moment of expiry.
            for moves_first in [false, true] {
                for older in [false, true] {
                    let (disk, clock) = (MemStorage::new(), ManualClock::new(START_MS));
                    let store = open_at(&disk, &clock, DIRECTORY);
                    let namespace = store.namespace("N").unwrap();
                    namespace.put("stays", "1").unwrap();
                    let mut sequences = Vec::new();
                    for (name, _) in QUESTIONS {
                        // The older value must not reappear.
                        if older {
                            namespace.put(format!("{name}/key"), "older").unwrap();
                        }
                        let put = PutOptions::new().expires_at_ms(expiry).metadata("m");
                        sequences.push(namespace.put_with(format!("{name}/key"), "1", put).unwrap());
                    }
                    drop(namespace);
                    if moves_first {
                        clock.advance(5_000 - early_ms);
                    }
                    let store = come_by(&disk, &clock, store);
                    let namespace = store.open_namespace("N").unwrap();
                    // Salvage assigns new sequences. Absent keys have none, not even their last
                    // one.
                    for ((name, _), sequence) in QUESTIONS.iter().zip(&mut sequences) {
                        let found = namespace.get(format!("{name}/key")).unwrap();
                        *sequence = found.map_or(*sequence, |value| value.sequence());
                    }
                    if !moves_first {
                        clock.advance(5_000 - early_ms);
                    }
                    let context = format!("{place}, {early_ms} ms before, moved first {moves_first}, older {older}");
                    let expected = if there { 1 + QUESTIONS.len() as u64 } else { 1 };
                    assert_eq!(namespace.count().unwrap(), expected, "{context}");
                    assert!(store.verify().unwrap().is_sound(), "{context}");
                    for ((name, question), sequence) in QUESTIONS.iter().zip(sequences) {
                        let answer = question(&store, &namespace, &format!("{name}/key"), sequence);
                        assert_eq!(answer, there, "{name}, {context}");
                    }
                }
            }
        }
    }
}

/// The boundaries for sweep, verify, salvage and compaction.
#[test]
fn sweep_salvage_and_compaction_take_what_is_over_and_not_a_millisecond_earlier() {
    const GRACE_MS: u64 = 10_000;
    let (disk, clock) = (MemStorage::new(), ManualClock::new(START_MS));
    let store = open_at(&disk, &clock, DIRECTORY);
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "older").unwrap();
    namespace
        .put_with("key", "value", PutOptions::new().expires_at_ms(START_MS + 5_000))
        .unwrap();
    let salvaged = |to: &str| {
        let disk = disk.crash_process();
        let report = salvage(DIRECTORY, to, manual(Arc::new(disk.clone())).clock(clock.clone())).unwrap();
        (report.keys, report.expired)
    };
    // Whether the put reappears after the clock is set back and the store is opened.
    let survives = |how: &str| {
        let back = ManualClock::new(START_MS);
        let store = open_at(&disk.crash_process(), &back, DIRECTORY);
        let found = store.open_namespace("N").unwrap().get_text("key").unwrap();
        assert_ne!(found.as_deref(), Some("older"), "{how}");
        found.is_some()
    };
    clock.advance(4_999);
    store.maintain().unwrap();
    assert_eq!((store.stats().expired, store.stats().keys), (0, 1), "swept early");
    assert_eq!(salvaged("/before"), (1, 0));
    clock.advance(1);
    assert_eq!(salvaged("/at"), (0, 1));
    assert_eq!(store.stats().expired_not_swept, 1);
    store.maintain().unwrap();
    assert_eq!((store.stats().expired, store.stats().keys), (1, 0), "not swept");
    store.compact().unwrap();
    clock.advance(GRACE_MS - 1);
    store.compact().unwrap();
    assert!(survives("within the grace"), "dropped before the grace was over");
    clock.advance(1);
    store.compact().unwrap();
    assert!(!survives("after the grace"), "not dropped");
    assert!(store.verify().unwrap().is_sound());
}
