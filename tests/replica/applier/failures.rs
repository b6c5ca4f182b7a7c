//! A disk that fails once, at every step of applying. Some failures leave it open whether an entry
//! was written; none may be applied twice for that, or left out.

use std::io::ErrorKind;
use std::sync::Arc;

use embercask::storage::{Fault, FaultKind, FaultStorage};
use embercask_replica::applier::Applier;
use embercask_replica::content::digest;
use test_support::at_least;

use super::draw::Log;
use super::kills::random_log;
use super::node::{Node, start_synced};

/// What fails, and how many entries are applied at a time.
const FAILURES: [(FaultKind, usize); 5] = [
    (FaultKind::Error(ErrorKind::Other), 1),
    (FaultKind::Error(ErrorKind::Other), 4),
    (FaultKind::Full, 2),
    (FaultKind::ShortWrite { bytes: 7 }, 3),
    (FaultKind::FailedSync, 1),
];

/// Goes on after each error. The store is opened again where it refuses for good.
fn apply_to_the_end(storage: &FaultStorage, log: &Log, group: usize) -> Applier {
    let mut applier = None;
    let mut refusals = 0;
    loop {
        let current = applier.get_or_insert_with(|| open_after_failing(storage));
        let position = usize::try_from(current.state().position).unwrap();
        let end = log.deliveries.len().min(position + group);
        if position == end {
            return applier.unwrap();
        }
        let progress = current.apply(&log.deliveries[position..end]);
        let moved = usize::try_from(current.state().position).unwrap() - position;
        assert_eq!(moved, progress.applied.len(), "an entry was applied and not told");
        match progress.stopped {
            None => refusals = 0,
            Some(error) => {
                refusals += 1;
                assert!(refusals < 10, "{error}");
                if refusals % 3 == 0 {
                    applier = None;
                }
            }
        }
    }
}

fn open_after_failing(storage: &FaultStorage) -> Applier {
    let storage = Arc::new(storage.clone());
    start_synced(storage.clone()).unwrap_or_else(|_| start_synced(storage).unwrap())
}

#[test]
fn a_disk_that_fails_at_any_step_changes_nothing_in_the_end() {
    let log = random_log(2, 16);
    let mut whole = Node::new();
    whole.apply(&log.deliveries);
    let expected = whole.content();
    let mut struck = 0;
    for (kind, group) in FAILURES {
        for step in 0.. {
            let faults = FaultStorage::new(Node::new().disk).counting_mutating_steps_only();
            faults.inject(Fault::new(kind).at(step));
            drop(apply_to_the_end(&faults, &log, group));
            let applier = open_after_failing(&faults);
            let content = digest(applier.store(), applier.state().log_ms()).unwrap();
            assert_eq!(content, expected, "{kind:?} at step {step}, groups of {group}");
            if faults.struck() == 0 {
                break;
            }
            struck += 1;
        }
    }
    at_least(100, struck, "failures");
}
