//! Operations on a failing disk: each one happens completely or not at all, and reads keep working.

use std::sync::Arc;

use embercask::storage::{Fault, FaultKind, Operation};
use embercask::{Error, ErrorKind, ManualClock, Result};

use super::crashes::{after, survived_by};
use super::plan::Plan;
use super::{DIRECTORY, Driver, faults_over, look, open};
use crate::model::{Promise, describe};
use crate::ops::{Crash, Doing, Failure, Settings, Upkeep, Write};
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
        let failed = match doing {
            Doing::Write(write) => {
                let plan = self.plan(write);
                match (plan, self.perform(write)) {
                    (Plan::Change { state, .. }, Err(error)) => {
                        // It happened completely or not at all.
                        self.history.push(state);
                        Some(error)
                    }
                    // A success is compared across the crash, without sequences.
                    (Plan::Change { state, promise, .. }, Ok(_)) => {
                        self.history.push(state);
                        self.history.acknowledge(promise);
                        None
                    }
                    (_, Err(error)) => Some(error).filter(is_failure),
                    (plan, Ok(done)) => panic!("{write:?} returned {done:?}, expected {plan:?}"),
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
        let (now, after) = (self.now, self.state());
        assert!(
            after.looks_like(&found, now) || (failed.is_some() && before.looks_like(&found, now)),
            "{doing:?}, which returned {failed:?}, was applied in part"
        );
    }

    /// Attempts a write. A failed write happened completely or not at all, and a crash may reverse
    /// which of the two.
    pub fn try_write(&mut self, write: &Write) -> Result<()> {
        self.step += 1;
        let plan = self.plan(write);
        let done = self.perform(write);
        self.observer.calm(true);
        let result = match (plan, done) {
            (plan, Err(error)) if is_failure(&error) => {
                let found =
                    look(&self.store).unwrap_or_else(|other| panic!("reading after {write:?}, {error}: {other}"));
                let happened = matches!(&plan, Plan::Change { state, .. } if state.looks_like(&found, self.now));
                assert!(
                    happened || self.state().looks_like(&found, self.now),
                    "{write:?} failed: {error}; the store shows\n{}\nafter\n{}",
                    describe(&found, self.now),
                    describe(self.state(), self.now)
                );
                if let Plan::Change { state, .. } = plan {
                    self.history.push(state);
                }
                self.history.push(found);
                self.last_sequence = self.last_sequence.max(self.store.stats().last_sequence);
                self.handles.clear();
                self.meet_namespaces().unwrap();
                Err(error)
            }
            (plan, done) => {
                self.settle_write(write, plan, done);
                Ok(())
            }
        };
        self.observer.calm(false);
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
    pub fn check_shown(&self) {
        self.observer.calm(true);
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
