//! Operations on a failing disk: each one happens completely or not at all, and reads keep working.

use std::sync::Arc;

use embercask::storage::{Fault, FaultKind, Operation};
use embercask::{Error, ErrorKind, ManualClock, Result};

use super::crashes::{after, survived_by};
use super::plan::Stage;
use super::transactions::Intruded;
use super::{DIRECTORY, Driver, faults_over, look, open};
use crate::model::{Promise, describe};
use crate::ops::{Crash, Doing, Failure, Hold, Settings, Upkeep, Write};
use crate::way::Way;

pub(super) fn fault(failure: Failure) -> Fault {
    let on = |operation| Fault::new(FaultKind::Error(std::io::ErrorKind::Other)).on(operation);
    match failure {
        Failure::Write => on(Operation::Write),
        Failure::ShortWrite(bytes) => Fault::new(FaultKind::ShortWrite { bytes }),
        Failure::Sync => on(Operation::Sync),
        Failure::SyncThatLoses => Fault::new(FaultKind::FailedSync).on(Operation::Sync),
        Failure::DirectorySync => on(Operation::SyncDirectory),
        Failure::Create => on(Operation::Create),
        Failure::Rename => on(Operation::Rename),
        Failure::Remove => on(Operation::Remove),
        Failure::SetLen => on(Operation::SetLen),
        Failure::Full => Fault::new(FaultKind::Full).repeated(),
    }
}

/// Whether this error is allowed on a failing disk.
pub(super) fn is_failure(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::NoSpace | ErrorKind::Poisoned)
}

impl Driver {
    /// Attempts an operation while a storage call may fail. Whatever the outcome, reads keep
    /// working and show the state before or after it.
    pub(super) fn fail(&mut self, doing: &Doing) {
        let before = self.state().clone();
        let after_sequence = self.last_sequence;
        let (mut log, mut possible) = (Vec::new(), vec![before.clone()]);
        let failed = match doing {
            Doing::Write(write) => {
                let plan = self.plan(write);
                let (plan, done) = self.perform_planned(write, plan);
                log = plan.log;
                let is_acknowledged = plan.outcome.agrees(&done);
                // A success is compared across the crash, without sequences.
                for Stage { state, promise } in plan.stages {
                    // Each stage happened completely or not at all.
                    possible.push(state.clone());
                    self.history.push(state);
                    if is_acknowledged && self.intruded != Intruded::Failed {
                        self.history.acknowledge(promise);
                    }
                }
                match done {
                    Ok(done) if !is_acknowledged => panic!("{write:?} returned {done:?}, expected {:?}", plan.outcome),
                    Err(error) if !is_acknowledged => Some(error),
                    _ => None,
                }
            }
            Doing::Upkeep(upkeep) => {
                let result = self.perform_upkeep(upkeep);
                match (&result, upkeep) {
                    (Ok(()), Upkeep::Flush | Upkeep::Maintain) => self.history.acknowledge(Promise::Kill),
                    (Ok(()), Upkeep::Sync | Upkeep::Close) => self.history.acknowledge(Promise::PowerCut),
                    _ => {}
                }
                result.err()
            }
        };
        if let Some(error) = &failed {
            assert!(is_failure(error), "{doing:?}: {error:?}");
        }
        if matches!(doing, Doing::Upkeep(Upkeep::Close)) {
            return;
        }
        let found = look(&self.store).unwrap_or_else(|error| panic!("reading after {doing:?} failed: {error}"));
        let is_certain = failed.is_none() && self.intruded != Intruded::Failed;
        let now = self.now;
        if is_certain {
            possible.drain(..possible.len() - 1);
        }
        let shown: Vec<_> = possible.iter().filter(|state| state.looks_like(&found, now)).collect();
        assert!(
            !shown.is_empty(),
            "{doing:?}, which returned {failed:?}, was applied in part"
        );
        if failed.is_some() {
            self.visited.note("operations that failed");
        }
        // Of what was rolled back nothing is told.
        let is_rolled_back = failed.is_some() && possible[1..].iter().all(|state| !state.looks_like(&found, now));
        if !is_rolled_back {
            self.expect_told(&log, after_sequence, is_certain);
        }
        match doing {
            Doing::Write(_) if failed.is_some() => self.forget_watchers_without(&found),
            Doing::Write(write) => self.expect_drop(write),
            Doing::Upkeep(_) => {}
        }
        self.snapshots_outlive_failure();
        self.check_snapshots();
        self.take_all_events();
    }

    /// Attempts a write. A failed write happened completely or not at all, and a crash may reverse
    /// which of the two.
    pub fn try_write(&mut self, write: &Write) -> Result<()> {
        self.step += 1;
        let after_sequence = self.last_sequence;
        let plan = self.plan(write);
        let (plan, done) = self.perform_planned(write, plan);
        self.observer.calm(true);
        let has_failed = match &done {
            Ok(_) => self.intruded == Intruded::Failed,
            Err(error) => is_failure(error),
        };
        let result = if has_failed {
            let found = look(&self.store).unwrap_or_else(|other| panic!("reading after {write:?}, {done:?}: {other}"));
            let happened = plan.stages.iter().any(|stage| stage.state.looks_like(&found, self.now));
            assert!(
                happened || self.state().looks_like(&found, self.now),
                "{write:?} returned {done:?}; the store shows\n{}\nafter\n{}",
                describe(&found, self.now),
                describe(self.state(), self.now)
            );
            for stage in plan.stages {
                self.history.push(stage.state);
            }
            self.forget_watchers_without(&found);
            self.history.push(found);
            if happened {
                self.expect_told(&plan.log, after_sequence, false);
            }
            self.last_sequence = self.last_sequence.max(self.store.stats().last_sequence);
            self.handles.clear();
            self.meet_namespaces().unwrap();
            done.map(drop)
        } else {
            self.settle_write(write, plan, done);
            Ok(())
        };
        self.observer.calm(false);
        result
    }

    /// Attempts to take or drop a snapshot or watcher.
    pub fn try_hold(&mut self, hold: &Hold) -> Result<()> {
        self.step += 1;
        // What is dropped is read before.
        let is_calm = !matches!(hold, Hold::Snapshot);
        self.observer.calm(is_calm);
        let result = self.hold(hold);
        self.observer.calm(false);
        if let Err(error) = &result {
            assert!(is_failure(error), "{hold:?}: {error}");
        }
        result
    }

    /// Attempts an upkeep operation, which changes nothing visible whether it fails or not.
    pub fn try_upkeep(&mut self, upkeep: &Upkeep) -> Result<()> {
        let result = self.perform_upkeep(upkeep);
        match (&result, upkeep) {
            (Ok(()), Upkeep::Flush | Upkeep::Maintain) => self.history.acknowledge(Promise::Kill),
            (Ok(()), Upkeep::Sync | Upkeep::Close) => self.history.acknowledge(Promise::PowerCut),
            (Ok(()), _) => {}
            (Err(error), _) => assert!(is_failure(error), "{upkeep:?}: {error}"),
        }
        result
    }

    /// Drops the store, closed or not, and opens it again, on a healthy disk if that fails on this
    /// one.
    pub fn try_reopen(&mut self, way: Way, settings: &Settings) -> Result<()> {
        let disk = self.disk.crash_process();
        let prepared = way.prepare(&disk, DIRECTORY);
        let mut result = self.begin(disk, settings);
        self.observer.calm(true);
        if let Err(error) = &result {
            assert!(is_failure(error), "opening: {error}");
            self.begin(self.disk.crash_process(), settings)
                .unwrap_or_else(|second| panic!("opening again after {error}: {second}"));
        } else {
            prepared.assert_no_more_used(self.store.recovery_report());
        }
        // Even if the store opened, opening a namespace may fail.
        result = result.and_then(|()| self.meet_namespaces());
        let found = look(&self.store).unwrap();
        self.settle_crash(Promise::Kill, &found);
        self.last_sequence = self.store.stats().last_sequence;
        self.observer.calm(false);
        result
    }

    /// The store shows what the model says, no matter what else fails.
    pub fn check_shown(&mut self) {
        self.observer.calm(true);
        self.check_snapshots();
        self.take_all_events();
        let found = look(&self.store).unwrap_or_else(|error| panic!("reading: {error}"));
        assert!(
            self.state().looks_like(&found, self.now),
            "the store shows\n{}\ninstead of\n{}",
            describe(&found, self.now),
            describe(self.state(), self.now)
        );
        self.observer.calm(false);
    }

    /// Whether a crash now would leave everything promised, undamaged.
    pub fn outlives(&self, crash: &Crash) -> Result<(), String> {
        let disk = after(&self.disk, crash);
        let clock = ManualClock::new(self.highest);
        let store = open(&faults_over(Arc::new(disk)), &clock, &self.settings);
        let store = store.map_err(|error| format!("opening after {crash:?}: {error}"))?;
        let found = look(&store).map_err(|error| format!("reading after {crash:?}: {error}"))?;
        let mut history = self.history.clone();
        history
            .settle(survived_by(crash), &found, self.highest)
            .map_err(|error| format!("after {crash:?}: {error}"))?;
        match store.verify() {
            Ok(report) if report.is_sound() => Ok(()),
            Ok(report) => Err(format!("damage after {crash:?}: {:?}", report.damaged)),
            Err(error) => Err(format!("verify after {crash:?}: {error}")),
        }
    }
}
