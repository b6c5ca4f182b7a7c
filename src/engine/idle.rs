//! What background work is left, and waiting until none is.

use std::time::Duration;

use super::Engine;
use crate::error::Result;
use crate::options::Maintenance;
use crate::planted::{Planted, planted};

/// Background work that is left, as [`crate::Stats::background`] tells it. Work that is not due yet
/// does not count: keys that have not expired, and waste below its ceiling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Background {
    /// Full segments that are not sealed yet.
    pub sealing: u64,
    /// Entries of the expiry queue that are due, unless `clock_jumped`. May include keys that were
    /// overwritten since.
    pub sweeping: u64,
    /// Dropped namespaces whose keys are still in memory.
    pub emptying: u64,
    /// Namespaces with changes that wait to be merged into their key order; 1 at least while a
    /// thread removes keys from memory or merges.
    pub merging: u64,
    /// Whether compaction is running, or has found something worth a run. False if it is paused.
    pub compacting: bool,
    /// Whether the wall clock has jumped forward, so that for a while nothing that has expired
    /// leaves memory or disk.
    pub clock_jumped: bool,
}

impl Background {
    /// Whether nothing is left. A jump of the clock does not count: what waits for it is not due.
    pub fn is_idle(&self) -> bool {
        let jumped = self.clock_jumped;
        *self
            == Background {
                clock_jumped: jumped,
                ..Background::default()
            }
    }
}

impl Engine {
    /// What is left now.
    pub(crate) fn background(&self) -> Background {
        let settled_ms = self.context.time.settled_ms(self.context.grace_ms());
        let namespaces = &self.state.namespaces;
        let is_busy = u64::from(self.housekeeping.is_busy());
        Background {
            sealing: self.log.sealing() as u64,
            sweeping: settled_ms.map_or(0, |now_ms| self.state.due_before(now_ms)),
            emptying: namespaces.dropped().len() as u64,
            merging: is_busy.max(namespaces.changed() as u64),
            compacting: self.compactor.is_behind() && !planted(Planted::IdleTooEarly),
            clock_jumped: settled_ms.is_none(),
        }
    }

    /// Waits until nothing is left, and returns whether that is so. Without background threads,
    /// does the work itself.
    pub(crate) fn wait_idle(&self, timeout: Duration) -> Result<bool> {
        self.context.check_open()?;
        // A checkpoint under way counts as work.
        self.check_not_in_progress()?;
        let is_idle = match self.context.options.maintenance {
            Maintenance::Manual => self.work_until_idle(timeout)?,
            Maintenance::Background => {
                let mut last = None;
                self.context.rounds.wait_until(timeout, || {
                    // Closing ends the threads.
                    self.context.is_closed() || self.is_idle_or_wakes(&mut last)
                })
            }
        };
        self.context.check_open()?;
        Ok(is_idle)
    }

    /// Whether nothing is left; otherwise wakes the threads that have work, unless their last round
    /// has changed nothing: then they try again in their own time.
    fn is_idle_or_wakes(&self, last: &mut Option<Background>) -> bool {
        let left = self.background();
        if left.is_idle() {
            return true;
        }
        if last.replace(left) != Some(left) {
            self.context.maintenance_wake.wake();
            if left.compacting {
                self.context.compaction_wake.wake();
            }
        }
        false
    }

    fn work_until_idle(&self, timeout: Duration) -> Result<bool> {
        let started_ms = self.context.time.monotonic_ms();
        let mut last = None;
        loop {
            self.maintain()?;
            self.compactor.compact_if_worthwhile()?;
            let left = self.background();
            let passed_ms = self.context.time.monotonic_ms().saturating_sub(started_ms);
            // A round that changes nothing would do so again.
            if left.is_idle() || last.replace(left) == Some(left) || u128::from(passed_ms) >= timeout.as_millis() {
                return Ok(left.is_idle());
            }
        }
    }
}
