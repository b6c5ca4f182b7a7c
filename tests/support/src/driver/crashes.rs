//! Ends a store and opens it again: closed, killed or cut off, between operations and within them.

use std::sync::Arc;

use embercask::storage::{CutPolicy, MemStorage};
use embercask::{Error, Result};

use super::plan::Stage;
use super::transactions::Intruded;
use super::{DIRECTORY, Driver, faults_over, look, open, open_to_read};
use crate::model::{Promise, State};
use crate::ops::{Crash, Doing, Relapse, Settings, Upkeep};
use crate::way::{Prepared, Way};

/// Of this many crashes, one store is opened for reading before it is recovered.
const READ_EVERY: usize = 4;

pub(super) fn after(disk: &MemStorage, crash: &Crash) -> MemStorage {
    match crash {
        Crash::Kill => disk.crash_process(),
        Crash::PowerCut(policy) => disk.power_cut(policy),
    }
}

pub(super) fn survived_by(crash: &Crash) -> Promise {
    match crash {
        Crash::Kill => Promise::Kill,
        // Everything survives, so this is no worse than a kill.
        Crash::PowerCut(CutPolicy::KeepAll) => Promise::Kill,
        Crash::PowerCut(_) => Promise::PowerCut,
    }
}

impl Driver {
    pub(super) fn reopen(&mut self, way: Way, settings: &Settings) {
        // The store opens at the highest time seen, and sweeps then.
        let unswept = self.state().keys() != self.state().visible_keys(self.highest) || self.dropped_keys > 0;
        let (before, wall_shifted) = (self.store.stats(), self.wall_shifted);
        let dropped_some = !self.stale.is_empty();
        self.check_snapshots();
        self.store.clone().close().unwrap();
        self.snapshots_are_closed();
        self.watchers_are_closed();
        assert!(matches!(self.store.sync(), Ok(()) | Err(Error::Closed)));
        assert!(matches!(self.store.namespaces(), Err(Error::Closed)));
        self.acknowledge(Promise::PowerCut);
        // Everything is durable after a clean close, except perhaps the names of hints.
        let power_cut = self.step.is_multiple_of(2) && self.observer.may_lose_power();
        let disk = if power_cut {
            self.disk.power_cut(&CutPolicy::LoseUnsynced)
        } else {
            self.disk.crash_process()
        };
        let prepared = way.prepare(&disk, DIRECTORY);
        self.begin(disk, settings)
            .unwrap_or_else(|error| panic!("opening after a clean close: {error}"));
        let report = self.store.recovery_report();
        let index_file_used = report.index_file_used;
        assert!(report.clean && !report.created, "{report:?}");
        if power_cut {
            prepared.assert_no_more_used(report);
            let sources = report.hints_used + report.hints_rebuilt;
            assert!(index_file_used || sources == report.segments, "{report:?}");
        } else {
            match way {
                // Keys of a dropped namespace may remain in the indexes; then no index file is
                // written.
                Way::IndexFile if dropped_some => prepared.assert_all_used(report),
                Way::Hints | Way::Mixed(_) if report.segments < 2 => prepared.assert_all_used(report),
                _ => prepared.assert_taken(report),
            }
            let missing = report.segments - prepared.hints;
            assert_eq!(
                report.hints_rebuilt, missing,
                "wrong number of hints rebuilt: {report:?}"
            );
        }
        self.history.now_mut().sweep(self.now);
        if !unswept {
            let after = self.store.stats();
            for segment in &after.segments {
                let same = before
                    .segments
                    .iter()
                    .find(|other| other.id == segment.id)
                    .map(|other| {
                        let mut other = *other;
                        other.sealed = true;
                        if !index_file_used || wall_shifted {
                            // Without the index file, and if the clock caused it to be rebuilt, a
                            // record that expired and was then overwritten counts as overwritten.
                            other.expired_bytes = other.expired_bytes.min(segment.expired_bytes);
                        }
                        other
                    });
                assert_eq!(
                    Some(*segment),
                    same,
                    "counters differ from a recount; before: {before:?}"
                );
            }
        }
        self.check_exact_counts();
    }

    /// Opens the store on this disk.
    pub(super) fn begin(&mut self, disk: MemStorage, settings: &Settings) -> Result<()> {
        self.snapshots.clear();
        self.watchers.clear();
        self.handles.clear();
        self.stale.clear();
        // At another time, opening would go by the wall clock alone and show expired keys that are
        // still on disk. `tests/crash/time` covers that.
        self.now = self.highest;
        self.clock.set_wall(self.now);
        self.wall_shifted = false;
        self.dropped_keys = 0;
        self.settings = settings.clone();
        self.disk = disk;
        self.faults = faults_over(self.observer.storage(&self.disk));
        self.store = open(&self.faults, &self.clock, settings)?;
        self.meet_namespaces()
    }

    /// Attempts an operation while the machine may stop.
    pub(super) fn attempt(&mut self, doing: &Doing) {
        match doing {
            Doing::Write(write) => {
                let plan = self.plan(write);
                let (plan, done) = self.perform_planned(write, plan);
                if !self.faults.is_stopped() {
                    self.settle_write(write, plan, done);
                    return;
                }
                let is_acknowledged = plan.outcome.agrees(&done);
                assert!(is_acknowledged || done.is_err(), "{write:?} returned {done:?}");
                if plan.stages.len() > 1 {
                    self.visited.note("writes of several steps cut off");
                }
                // Each stage happened completely or not at all. Sequences may be unreadable; they
                // are not compared across a crash.
                for Stage { state, promise } in plan.stages {
                    self.history.push(state);
                    if is_acknowledged && self.intruded != Intruded::Failed {
                        self.history.acknowledge(promise);
                    }
                }
                // What they have been told may go with the crash.
                self.watchers.clear();
            }
            Doing::Upkeep(upkeep) => match (self.perform_upkeep(upkeep), upkeep) {
                (Ok(()), Upkeep::Flush | Upkeep::Maintain) => self.history.acknowledge(Promise::Kill),
                (Ok(()), Upkeep::Sync | Upkeep::Close) => self.history.acknowledge(Promise::PowerCut),
                (Ok(()), _) => {}
                (Err(error), _) => assert!(self.faults.is_stopped(), "{upkeep:?}: {error}"),
            },
        }
    }

    /// Crashes the store, and opens it, in the given way, from what the crash left.
    pub(super) fn crash(&mut self, crash: &Crash, relapses: &[Relapse], way: Way, settings: &Settings) -> Prepared {
        if !self.snapshots.is_empty() {
            self.visited.note("crashes with snapshots held");
        }
        let mut disk = after(&self.disk, crash);
        // That process is dead; closing its store on drop would only take time.
        self.faults.stop_at(self.faults.steps());
        let mut survived = survived_by(crash);
        for relapse in relapses {
            let prepared = way.prepare(&disk, DIRECTORY);
            let faults = faults_over(Arc::new(disk.clone()));
            faults.stop_at(relapse.calls);
            self.now = self.highest;
            self.clock.set_wall(self.now);
            let opened = open(&faults, &self.clock, settings);
            match &opened {
                Err(error) => assert!(faults.is_stopped(), "opening after {crash:?}: {error}"),
                Ok(store) if !faults.is_stopped() => {
                    prepared.assert_no_more_used(store.recovery_report());
                    let found = look(store).unwrap();
                    self.settle_crash(survived, &found);
                    survived = Promise::Kill;
                }
                Ok(_) => {}
            }
            disk = after(&disk, &relapse.crash);
            faults.stop_at(faults.steps());
            survived = survived.max(survived_by(&relapse.crash));
        }
        let prepared = way.prepare(&disk, DIRECTORY);
        let read = self.step.is_multiple_of(READ_EVERY).then(|| {
            self.clock.set_wall(self.highest);
            let reader = open_to_read(&disk, &self.clock, settings);
            let reader = reader.unwrap_or_else(|error| panic!("reading after {crash:?}: {error}"));
            self.visited.note("crashes read before the next opening");
            look(&reader).unwrap()
        });
        self.begin(disk, settings)
            .unwrap_or_else(|error| panic!("opening after {crash:?} and {relapses:?}: {error}"));
        prepared.assert_no_more_used(self.store.recovery_report());
        let found = look(&self.store).unwrap();
        if let Some(read) = read {
            let (read, found) = (format!("{read:?}"), format!("{found:?}"));
            assert_eq!(read, found, "a store that is only read shows what opening it finds");
        }
        self.settle_crash(survived, &found);
        self.last_sequence = self.store.stats().last_sequence;
        self.check_exact_counts();
        prepared
    }

    pub(super) fn settle_crash(&mut self, survived: Promise, found: &State) {
        if let Err(error) = self.history.settle(survived, found, self.now) {
            panic!("{error}");
        }
    }
}
