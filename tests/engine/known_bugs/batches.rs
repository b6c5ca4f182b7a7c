//! Batches are atomic.

use std::sync::Arc;

use embercask::Durability;
use embercask::storage::MemStorage;

use crate::known_bugs::{after_crashes, stepped};
use test_support::{DIRECTORY, at_least, class, ending, manual, open, written};

/// B33
#[test]
fn a_crash_inside_a_batch_leaves_all_of_it_or_nothing() {
    for durability in [Durability::Sync, Durability::Os, Durability::Buffered] {
        let (mut last, mut whole, mut none) = (0, 0, 0);
        for step in 0.. {
            let disk = MemStorage::new();
            let faults = stepped(&disk);
            let store = manual(Arc::new(faults.clone())).open(DIRECTORY).unwrap();
            let (one, two) = (store.namespace("ONE").unwrap(), store.namespace("TWO").unwrap());
            one.put("before", "there").unwrap();
            one.put("deleted", "there").unwrap();
            faults.stop_at(faults.steps() + step);
            let mut batch = store.batch();
            batch.durability(durability).delete(&one, "deleted");
            for n in 0..6 {
                batch.put(if n % 2 == 0 { &one } else { &two }, format!("{n}"), vec![b'v'; 450]);
            }
            let committed = batch.commit();
            // A later write, so that what follows a torn batch could be mistaken for valid.
            let after = one.put_with("after", "there", class(Durability::Os));
            let stopped = faults.is_stopped();
            assert_eq!(after.is_err(), stopped, "{durability:?}, step {step}: {after:?}");
            assert!(stopped || committed.is_ok(), "{committed:?}");
            for (crash, disk) in after_crashes(&disk, 60) {
                let store = open(&disk);
                let (one, two) = (
                    store.open_namespace("ONE").unwrap(),
                    store.open_namespace("TWO").unwrap(),
                );
                let what = format!("{durability:?}, step {step}, {crash}");
                assert!(one.contains("before").unwrap(), "{what}");
                let (puts, deleted) = (
                    one.count().unwrap() + two.count().unwrap() - 1,
                    !one.contains("deleted").unwrap(),
                );
                let after = u64::from(one.contains("after").unwrap());
                assert!(
                    after == 0 || deleted,
                    "{what}: the write after the batch is there without it"
                );
                assert_eq!(puts, if deleted { 6 + after } else { 1 }, "{what}: part of a batch");
                *(if deleted { &mut whole } else { &mut none }) += 1;
                if committed.is_ok() && durability == Durability::Sync {
                    assert!(deleted, "{what}: the batch was acknowledged");
                }
            }
            last = step;
            if !stopped {
                break;
            }
        }
        at_least(1, last, &format!("steps of a batch, {durability:?}"));
        at_least(2, whole, "crashes that left the whole batch");
        at_least(60, none, "crashes that left none of it");
    }
}

/// B33
#[test]
fn a_batch_that_is_cut_anywhere_is_not_there_at_all() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    namespace.put("deleted", "there").unwrap();
    let segment = ending(&disk, ".segment").remove(0);
    let before = written(&disk, &segment).len();
    let mut batch = store.batch();
    batch.durability(Durability::Os).delete(&namespace, "deleted");
    batch
        .put(&namespace, "one", [b'1'; 100])
        .put(&namespace, "two", "2")
        .commit()
        .unwrap();
    let after = written(&disk, &segment).len();
    assert!(after > before + 150);
    for length in before..=after {
        let cut = disk.crash_process();
        cut.truncate(&segment, length as u64).unwrap();
        let namespace = open(&cut).open_namespace("N").unwrap();
        let there = ["deleted", "one", "two"].map(|key| namespace.contains(key).unwrap());
        assert_eq!(
            there,
            if length < after {
                [true, false, false]
            } else {
                [false, true, true]
            },
            "cut at {length}"
        );
    }
}
