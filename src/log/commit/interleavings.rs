//! Interleavings of a few writers over a simple device, as many as shuttle reaches.

use std::sync::Arc;

use shuttle::thread;

use super::*;
use crate::sync::{Mutex, MutexGuard};

/// Sequences appended, in order, and how many can no longer be rolled back.
#[derive(Debug, Default)]
struct Records {
    appended: Vec<u64>,
    acknowledged: usize,
    written: usize,
    /// How many are in the ring, or were.
    copied: usize,
}

/// What has reached the device.
#[derive(Debug, Default)]
struct Disk {
    written: Vec<u64>,
    synced: usize,
    /// Which write-outs fail, counted from 0.
    failing: Vec<usize>,
    write_outs: usize,
    /// Write-outs and syncs in progress: at most one of each.
    writing: usize,
    syncing: usize,
    /// Places of records: which record was last copied there, by its place in the log, which its
    /// checksum would tell. Empty if there is no ring.
    ring: Vec<Option<(usize, u64)>>,
    /// What takes long of the next roll-back has been done.
    is_prepared: bool,
}

impl Disk {
    /// What is found after a kill.
    fn recovered(&self) -> Vec<u64> {
        let mut found = self.written.clone();
        while let Some(Some((place, sequence))) = self.ring.get(found.len() % self.ring.len().max(1))
            && *place == found.len()
        {
            found.push(*sequence);
        }
        found
    }
}

#[derive(Debug, Default)]
struct Device(Mutex<Disk>);

impl Device {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }
}

impl Environment for Device {
    type Tail = Records;
    type Pending = Vec<u64>;
    type Unsynced = usize;

    fn pending_bytes(&self, tail: &Records) -> u64 {
        (tail.appended.len() - tail.written) as u64
    }

    fn pending(&self, tail: &Records) -> Option<Vec<u64>> {
        let pending = tail.appended.get(tail.written..)?;
        (!pending.is_empty()).then(|| pending.to_vec())
    }

    fn write(&self, pending: &Vec<u64>) -> Result<()> {
        let mut disk = self.disk();
        disk.writing += 1;
        assert_eq!(disk.writing, 1, "two leaders write at once");
        let number = disk.write_outs;
        disk.write_outs += 1;
        drop(disk);
        thread::yield_now();
        let mut disk = self.disk();
        disk.writing -= 1;
        if disk.failing.contains(&number) {
            return Err(Error::Cancelled);
        }
        disk.written.extend(pending);
        Ok(())
    }

    fn written(&self, tail: &mut Records, pending: &Vec<u64>, newer: Option<u64>) {
        tail.written += pending.len();
        assert_eq!(tail.appended.get(tail.written).copied(), newer);
    }

    fn keep(&self, tail: &mut Records, is_writing: bool) -> Option<bool> {
        let mut disk = self.disk();
        let (length, pending) = (disk.ring.len(), tail.appended.len() - tail.written);
        if pending > length || (pending > length / 2 && !is_writing) {
            return None;
        }
        for place in tail.copied.max(tail.written)..tail.appended.len() {
            disk.ring[place % length] = Some((place, tail.appended[place]));
        }
        tail.copied = tail.appended.len();
        Some(false)
    }

    fn acknowledge(&self, tail: &mut Records) {
        tail.acknowledged = tail.appended.len();
    }

    fn would_roll_back(&self, tail: &Records) -> bool {
        tail.acknowledged.max(tail.written) < tail.appended.len()
    }

    fn prepare_roll_back(&self, _: &mut Vec<u64>) {
        thread::yield_now();
        self.disk().is_prepared = true;
    }

    fn roll_back(
        &self,
        tail: &mut Records,
        pending: Vec<u64>,
        written_sequence: u64,
        _: &Error,
    ) -> Result<Option<u64>> {
        let begun = tail.appended.get(tail.written..).unwrap_or_default();
        assert!(
            begun.starts_with(&pending),
            "it was written out or rolled back by another"
        );
        let keep = tail.acknowledged.max(tail.written);
        let is_prepared = std::mem::take(&mut self.disk().is_prepared);
        if keep == tail.appended.len() {
            return Ok(None);
        }
        assert!(
            is_prepared,
            "the long part of a roll-back is left to the holder of the lock"
        );
        tail.appended.truncate(keep);
        Ok(Some(tail.appended.last().copied().unwrap_or(written_sequence)))
    }

    fn unsynced(&self, tail: &Records) -> usize {
        tail.written
    }

    fn sync(&self, _: &usize) -> Result<()> {
        let mut disk = self.disk();
        disk.syncing += 1;
        assert_eq!(disk.syncing, 1, "two leaders sync at once");
        // Later writes may not be synced.
        let written = disk.written.len();
        drop(disk);
        thread::yield_now();
        let mut disk = self.disk();
        disk.syncing -= 1;
        disk.synced = written;
        Ok(())
    }

    fn check_synced(&self, _: &Records) -> Result<()> {
        Ok(())
    }

    fn synced(&self, _: &mut Records, unsynced: usize, _: bool) {
        assert!(unsynced <= self.disk().synced);
    }

    fn check_device(&self) -> Result<()> {
        Ok(())
    }

    fn wake_flusher(&self) {}
}

/// Appends one record, and waits for it.
fn put(commit: &GroupCommit<Device>, durability: Durability) -> (u64, Result<()>) {
    let mut guard = commit.lock();
    let sequence = guard.take_sequence();
    guard.tail.appended.push(sequence);
    if durability == Durability::Buffered {
        assert!(commit.acknowledge(guard).is_none());
        return (sequence, Ok(()));
    }
    if durability == Durability::Os {
        match commit.keep(guard) {
            None => return (sequence, Ok(())),
            Some(back) => guard = back,
        }
    }
    (sequence, commit.wait_for(guard, durability, sequence))
}

/// Runs writers of these classes concurrently, over a device that fails these write-outs, without a
/// ring and with one that has room for this many records.
fn explore(classes: &'static [Durability], failing: &'static [usize]) {
    for ring in [0, 2, 8] {
        explore_with(ring, classes, failing);
    }
}

fn explore_with(ring: usize, classes: &'static [Durability], failing: &'static [usize]) {
    let scenario = move || {
        let device = Device::default();
        device.disk().failing = failing.to_vec();
        device.disk().ring = vec![None; ring];
        let lock = Arc::new(CommitLock::new(Records::default()));
        let commit = Arc::new(GroupCommit::new(lock, device));
        let writers: Vec<_> = classes
            .iter()
            .map(|class| {
                let commit = commit.clone();
                thread::spawn(move || {
                    let (sequence, ended) = put(&commit, *class);
                    let disk = commit.environment.disk();
                    let is_in = |written: &[u64]| written.contains(&sequence);
                    match (class, &ended) {
                        (Durability::Sync, Ok(())) => assert!(is_in(&disk.written[..disk.synced])),
                        (Durability::Os, Ok(())) => assert!(is_in(&disk.recovered())),
                        (Durability::Buffered, ended) => assert!(ended.is_ok()),
                        // Rolled back, or still pending behind one that was acknowledged.
                        (_, Err(Error::Cancelled | Error::Pending { .. })) => assert!(!failing.is_empty()),
                        (_, Err(error)) => panic!("{error}"),
                    }
                    drop(disk);
                    (sequence, *class, ended)
                })
            })
            .collect();
        let ended: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        let guard = commit.lock();
        let disk = commit.environment.disk();
        assert_eq!(
            disk.written,
            guard.tail.appended[..guard.tail.written],
            "in order, and each once"
        );
        let recovered = disk.recovered();
        assert!(
            guard.tail.appended.starts_with(&recovered),
            "{recovered:?} of {guard:?}"
        );
        for (sequence, class, ended) in ended {
            if class != Durability::Buffered && ended.is_ok() {
                assert!(recovered.contains(&sequence), "{sequence} would be lost by a kill");
            }
            let is_there = guard.tail.appended.contains(&sequence);
            assert_eq!(
                is_there,
                !matches!(ended, Err(Error::Cancelled)),
                "{sequence}: {ended:?}"
            );
        }
        assert!(guard.waiters.is_empty(), "a ticket was never handed back");
    };
    shuttle::check_random(scenario, 400);
    shuttle::check_pct(scenario, 400, 3);
}

const OS: Durability = Durability::Os;
const SYNC: Durability = Durability::Sync;
const BUFFERED: Durability = Durability::Buffered;

#[test]
fn what_is_acknowledged_is_on_the_device_and_leaders_take_turns() {
    explore(&[SYNC, SYNC, SYNC], &[]);
    explore(&[SYNC, OS, BUFFERED], &[]);
}

#[test]
fn a_failed_write_out_takes_back_what_no_call_was_told_of_and_nothing_else() {
    explore(&[OS, OS, OS], &[0]);
    explore(&[SYNC, OS, SYNC], &[1]);
    explore(&[OS, BUFFERED, SYNC], &[0]);
    explore(&[BUFFERED, OS, BUFFERED, SYNC], &[0, 1]);
}
