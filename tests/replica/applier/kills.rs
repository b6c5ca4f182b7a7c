//! A replica that is killed at every step of applying, with and without a power cut.

use std::sync::Arc;

use embercask::Durability;
use embercask::storage::{CutPolicy, FaultStorage, MemStorage};
use embercask_replica::content::digest;
use test_support::at_least;

use super::draw::{CHUNK, Log, log};
use super::node::{Node, start, start_in};

/// SplitMix64.
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

pub fn random_log(mut seed: u64, entries: usize) -> Log {
    let chunks: Vec<[u8; CHUNK]> = (0..entries)
        .map(|_| std::array::from_fn(|_| random(&mut seed) as u8))
        .collect();
    log(&chunks)
}

/// Applies a log in groups on this storage until that stops. True if it did not.
fn applies(storage: &FaultStorage, log: &Log, group: usize) -> bool {
    let Ok(mut applier) = start(Arc::new(storage.clone())) else {
        return false;
    };
    loop {
        let position = usize::try_from(applier.state().position).unwrap();
        let end = log.deliveries.len().min(position + group);
        if position == end {
            return true;
        }
        if applier.apply(&log.deliveries[position..end]).stopped.is_some() {
            return false;
        }
    }
}

/// The disk of a node that was killed at this step of applying; none if it came to the end.
fn killed_at(step: u64, log: &Log, group: usize) -> Option<Arc<MemStorage>> {
    let disk = Node::new().disk;
    let faults = FaultStorage::new(disk.clone()).counting_mutating_steps_only();
    faults.stop_at(step);
    (!applies(&faults, log, group)).then_some(disk)
}

/// A new node is seeded from a checkpoint of another, which goes on meanwhile.
#[test]
fn a_checkpoint_of_a_replica_goes_on_from_its_position() {
    let log = random_log(9, 60);
    let mut whole = Node::new();
    let (first, second) = log.deliveries.split_at(30);
    whole.apply(first);
    whole.applier().store().checkpoint("/copy").unwrap();
    whole.apply(second);
    let mut copy = start_in(whole.disk.clone(), "/copy", Durability::Os).unwrap();
    assert_eq!(copy.state().position, 30);
    let progress = copy.apply(second);
    assert!(progress.stopped.is_none(), "{:?}", progress.stopped);
    let content = digest(copy.store(), copy.state().log_ms()).unwrap();
    assert_eq!(content, whole.content());
}

#[test]
fn a_replica_killed_at_any_step_ends_as_one_that_never_was() {
    let mut kills = 0;
    for seed in 0..3 {
        let log = random_log(seed, 24);
        let mut whole = Node::new();
        whole.apply(&log.deliveries);
        let expected = whole.content();
        for group in [1, 5] {
            for step in 0.. {
                let Some(disk) = killed_at(step, &log, group) else {
                    break;
                };
                for after in [disk.crash_process(), disk.power_cut(&CutPolicy::LoseUnsynced)] {
                    let mut node = Node::on(after);
                    let position = node.position();
                    node.apply(&log.deliveries[position..]);
                    let which = format!("seed {seed}, groups of {group}, killed at step {step}, from {position}");
                    assert_eq!(node.content(), expected, "{which}");
                    kills += 1;
                }
            }
        }
    }
    at_least(100, kills, "kills");
}
