//! State shown by recovery stays, and everything that recovery builds on is on the disk.

use std::sync::Arc;

use embercask::storage::{CutPolicy, Fault, FaultKind, MemStorage, Operation};
use embercask::{Durability, Error, ErrorKind, Namespace, Result, Store};

use crate::known_bugs::{after_crashes, stepped};
use test_support::{DIRECTORY, class, manual, open};

/// Number of sequential puts that the store shows: all up to that number, none after it.
fn count_of_prefix(store: &Store, written: usize) -> usize {
    let namespace = store.open_namespace("N").unwrap();
    let there: Vec<bool> = (0..written)
        .map(|n| namespace.contains(format!("{n:03}")).unwrap())
        .collect();
    let count = there.iter().take_while(|there| **there).count();
    assert!(there.iter().skip(count).all(|there| !there), "a hole: {there:?}");
    for n in 0..count {
        let value = namespace.get(format!("{n:03}")).unwrap().unwrap();
        assert_eq!(value.as_bytes(), format!("value {n} ").repeat(20).as_bytes());
    }
    count
}

fn put_numbered(namespace: &Namespace, n: usize, durability: Durability) -> Result<u64> {
    namespace.put_with(format!("{n:03}"), format!("value {n} ").repeat(20), class(durability))
}

/// The disk of a killed store: the first puts are durable, the later ones are in the page cache,
/// over several segments.
fn with_unsynced_tail() -> (MemStorage, usize, usize) {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    let (durable, written) = (6, 40);
    for n in 0..durable {
        put_numbered(&namespace, n, Durability::Sync).unwrap();
    }
    for n in durable..written {
        put_numbered(&namespace, n, Durability::Buffered).unwrap();
    }
    store.flush().unwrap();
    (disk.crash_process(), durable, written)
}

/// B30
#[test]
fn recovery_can_be_cut_off_at_any_step_again_and_again() {
    let (disk, durable, written) = with_unsynced_tail();
    let open_stopped = |disk: &MemStorage, step: u64| {
        let faults = stepped(disk);
        faults.stop_at(step);
        drop(manual(Arc::new(faults.clone())).open(DIRECTORY));
        faults.is_stopped()
    };
    let check = |disk: &MemStorage, at_least: usize, what: &str| {
        let store = manual(Arc::new(disk.clone()))
            .open(DIRECTORY)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let seen = count_of_prefix(&store, written);
        assert!(
            (at_least..=written).contains(&seen),
            "{what}: {seen} puts of at least {at_least}"
        );
        // State once seen stays.
        let later = open(&disk.power_cut(&CutPolicy::LoseUnsynced));
        assert_eq!(count_of_prefix(&later, written), seen, "{what}, and a power cut later");
    };
    let mut last = 0;
    for step in 0.. {
        let first = disk.crash_process();
        let stopped = open_stopped(&first, step);
        check(&first.crash_process(), written, &format!("step {step}, a kill"));
        for (crash, cut) in after_crashes(&first, 3) {
            check(&cut, durable, &format!("step {step}, {crash}"));
        }
        // A third of all pairs, different ones for each first step.
        for again in (step % 3..30).step_by(3) {
            let second = first.crash_process();
            if !open_stopped(&second, again) {
                break;
            }
            check(
                &second.crash_process(),
                written,
                &format!("steps {step} and {again}, kills"),
            );
            let policy = CutPolicy::Random {
                seed: step * 31 + again,
                grain: 512,
            };
            check(
                &second.power_cut(&policy),
                durable,
                &format!("steps {step} and {again}, a power cut"),
            );
        }
        last = step;
        if !stopped {
            break;
        }
    }
    assert!(last > 8, "only {last} steps");
}

/// B38
#[test]
fn what_was_seen_after_a_kill_survives_a_power_cut_after_the_next_sync() {
    let (killed, _, written) = with_unsynced_tail();
    let store = open(&killed);
    assert_eq!(count_of_prefix(&store, written), written);
    store.open_namespace("N").unwrap().put("later", "v").unwrap();
    for (crash, disk) in after_crashes(&killed, 20) {
        let store = open(&disk);
        assert_eq!(count_of_prefix(&store, written), written, "after {crash}");
        assert!(
            store.open_namespace("N").unwrap().contains("later").unwrap(),
            "after {crash}"
        );
    }
}

/// B39
#[test]
fn what_a_failed_sync_left_in_the_page_cache_alone_is_not_built_upon() {
    let mut failures = 0;
    for step in 0.. {
        let disk = MemStorage::new();
        let faults = stepped(&disk);
        let store = manual(Arc::new(faults.clone())).open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        let at = faults.steps() + step;
        faults.inject(Fault::new(FaultKind::FailedSync).on(Operation::Sync).at(at));
        let mut acknowledged = 0;
        let mut failed = None;
        for n in 0..40 {
            let durability = if n % 7 == 6 { Durability::Sync } else { Durability::Os };
            let put = || put_numbered(&namespace, n, durability);
            // The state of the disk is unknown, so nothing more is accepted.
            match put().or_else(|_| put()) {
                Ok(_) if failed.is_none() => acknowledged = n + 1,
                Ok(_) => panic!("step {step}: put {n} was accepted after a failure: {failed:?}"),
                Err(Error::Poisoned { cause }) => failed = failed.or(Some(cause)),
                Err(error) => panic!("step {step}: put {n}: {error}"),
            }
        }
        let ended = store
            .maintain()
            .and_then(|()| store.compact())
            .and_then(|_| store.close());
        let over = faults.steps() <= at;
        assert_eq!(ended.is_err(), faults.struck() > 0, "step {step}: {ended:?}");
        if let Err(error) = ended {
            let kinds = [ErrorKind::Io, ErrorKind::Poisoned];
            assert!(kinds.contains(&error.kind()), "step {step}: {error}");
        }
        // In place, as if the process had restarted: the page cache shows data that the failed sync
        // lost.
        let again = disk.crash_process();
        let store = manual(Arc::new(again.clone()))
            .open(DIRECTORY)
            .unwrap_or_else(|error| panic!("step {step}: {error}"));
        let seen = count_of_prefix(&store, 40);
        assert!(seen >= acknowledged, "step {step}: {seen} of {acknowledged}");
        store.open_namespace("N").unwrap().put("later", "v").unwrap();
        for (crash, disk) in after_crashes(&again, 6) {
            let store = manual(Arc::new(disk))
                .open(DIRECTORY)
                .unwrap_or_else(|error| panic!("step {step}, {crash}: {error}"));
            assert_eq!(count_of_prefix(&store, 40), seen, "step {step}, {crash}");
            assert!(
                store.open_namespace("N").unwrap().contains("later").unwrap(),
                "step {step}, {crash}"
            );
        }
        if over {
            break;
        }
        failures += 1;
    }
    assert!(failures > 20, "only {failures} steps");
}

/// B40
#[test]
fn whatever_sectors_a_power_cut_leaves_the_store_opens_and_shows_a_prefix() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    let (durable, written) = (5, 60);
    for n in 0..written {
        let durability = match n {
            4 => Durability::Sync,
            n if n % 3 == 0 => Durability::Os,
            _ => Durability::Buffered,
        };
        // Nothing is sealed meanwhile, since that would sync.
        put_numbered(&namespace, n, if n < durable { Durability::Sync } else { durability }).unwrap();
    }
    let mut counts = std::collections::BTreeSet::new();
    for seed in 0..400 {
        let cut = disk.power_cut(&CutPolicy::Random { seed, grain: 512 });
        let store = manual(Arc::new(cut.clone()))
            .open(DIRECTORY)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let seen = count_of_prefix(&store, written);
        assert!(seen >= durable, "seed {seed}: {seen} puts");
        counts.insert(seen);
        drop(store);
        assert_eq!(count_of_prefix(&open(&cut), written), seen, "seed {seed}, opened again");
    }
    assert!(counts.len() > 2, "the cuts did not differ: {counts:?}");
}
