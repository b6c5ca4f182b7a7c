//! Bugs of other engines, each as a test that fails if the protection is removed. Comments name the
//! row of `docs/known-bugs.md`, which also lists those tested elsewhere.

mod batches;
mod creation;
mod cut_compaction;
mod damage;
mod directory;
mod expiry;
mod hot_keys;
mod listings;
mod numbers;
mod order;
mod pending;
mod recovery;
mod shadows;
mod values;

use std::sync::Arc;
use std::time::Duration;

use embercask::storage::{CutPolicy, FaultStorage, MemStorage};
use embercask::{Durability, ManualClock, Namespace, Store};

use test_support::{DIRECTORY, class, manual};

const START_MS: u64 = 1_700_000_000_000;

fn open_at(disk: &MemStorage, clock: &ManualClock) -> Store {
    manual(Arc::new(disk.clone()))
        .clock(clock.clone())
        .expiry_grace(Duration::ZERO)
        .open(DIRECTORY)
        .unwrap()
}

/// A storage that counts only modifying calls as steps.
fn stepped(disk: &MemStorage) -> FaultStorage {
    FaultStorage::new(Arc::new(disk.clone())).counting_mutating_steps_only()
}

/// Fills the active segment, so that the next record goes to another one.
fn next_segment(namespace: &Namespace, filler: &str) {
    let before = namespace.store().stats().segments.len();
    for n in 0.. {
        namespace
            .put_with(format!("{filler}-{n}"), [b'x'; 900], class(Durability::Os))
            .unwrap();
        if namespace.store().stats().segments.len() > before {
            return;
        }
    }
}

/// Disks that a power cut or a kill may leave.
fn after_crashes(disk: &MemStorage, seeds: u64) -> Vec<(String, MemStorage)> {
    let random = (0..seeds).map(|seed| CutPolicy::Random {
        seed,
        grain: if seed % 4 == 3 { 4096 } else { 512 },
    });
    let mut disks: Vec<_> = [CutPolicy::LoseUnsynced, CutPolicy::KeepAll]
        .into_iter()
        .chain(random)
        .map(|policy| (format!("{policy:?}"), disk.power_cut(&policy)))
        .collect();
    disks.push(("a kill".to_owned(), disk.crash_process()));
    disks
}
