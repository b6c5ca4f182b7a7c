//! What compaction does with segments that it cannot read.
//!
//! Such a segment is left in place: compacting it would lose its live records, and readers of those
//! that are damaged must get an error. The other segments are compacted without it. Once it has no
//! live records and hides nothing, it is dropped like any other, without being read.

use std::collections::HashMap;
use std::sync::Mutex;

use super::{CompactionReport, Compactor, Pace};
use crate::error::{Error, Result};
use crate::log::reserve::ReservePart;
use crate::planted::{Planted, planted};
use crate::segment::SealedSegment;
use crate::sync::lock;

/// A segment that the device failed to read is retried in the background after this time.
const RETRY_MS: u64 = 60_000;

/// Segments that compaction leaves in place, since they could not be read.
#[derive(Debug, Default)]
pub(super) struct LeftOut(Mutex<HashMap<u64, Cause>>);

/// Why a segment is left out, and until when.
#[derive(Debug)]
struct Cause {
    error: Error,
    /// On the monotonic clock; None for permanently.
    until_ms: Option<u64>,
}

impl LeftOut {
    fn insert(&self, id: u64, cause: Cause) {
        lock(&self.0).insert(id, cause);
    }

    fn holds(&self, id: u64, now_ms: u64) -> bool {
        let left_out = lock(&self.0);
        let cause = left_out.get(&id);
        cause.is_some_and(|cause| cause.until_ms.is_none_or(|until_ms| now_ms < until_ms))
    }

    /// Forgets a segment that is gone.
    pub(super) fn forget(&self, id: u64) {
        lock(&self.0).remove(&id);
    }

    /// Retries segments the device failed to read, which may work again. Damage is permanent.
    pub(super) fn try_unreadable_again(&self) {
        lock(&self.0).retain(|_, cause| cause.until_ms.is_none());
    }

    fn error(&self, id: u64) -> Option<Error> {
        lock(&self.0).get(&id).map(|cause| cause.error.clone())
    }
}

impl Compactor {
    /// Whether compaction leaves this segment out, having failed to read it, or because scrubbing
    /// has found it damaged.
    pub(super) fn is_left_out(&self, id: u64) -> bool {
        self.left_out.holds(id, self.context.time.monotonic_ms()) || self.scrub.damage(id).is_some()
    }

    /// Leaves a segment out of later runs, if this is an error of reading it.
    pub(super) fn leave_out(&self, input: &SealedSegment, error: &Error) {
        if !error.is_unreadable() {
            return;
        }
        let until_ms = match error {
            Error::Corruption { .. } => None,
            _ => Some(self.context.time.monotonic_ms().saturating_add(RETRY_MS)),
        };
        let error = error.clone();
        self.left_out.insert(input.id(), Cause { error, until_ms });
    }

    /// Replaces the readable ones of these segments. The others are left out from then on, and
    /// their errors are added to the list.
    pub(super) fn run_sound(
        &self,
        inputs: &mut Vec<SealedSegment>,
        pace: Pace,
        damaged: &mut Vec<Error>,
    ) -> Result<CompactionReport> {
        loop {
            let result = self.log.reserve.run(ReservePart::Whole, || self.run(inputs, pace));
            let Err(error) = result else { return result };
            if !error.is_unreadable() || planted(Planted::StopAtDamage) {
                return Err(error);
            }
            let known = damaged.len();
            inputs.retain(|input| {
                let is_left_out = self.is_left_out(input.id());
                damaged.extend(self.left_out.error(input.id()).filter(|_| is_left_out));
                !is_left_out
            });
            if damaged.len() == known {
                return Err(error);
            }
            if inputs.is_empty() {
                return Ok(CompactionReport::default());
            }
        }
    }

    /// Drops the damaged segments that have no live records and hide nothing. They get a separate
    /// run: together with others they might have to be read.
    pub(super) fn drop_dead_damaged(&self, pace: Pace) -> Result<CompactionReport> {
        let dead = self.dead_damaged();
        if dead.is_empty() || planted(Planted::KeepDamagedForGood) {
            return Ok(CompactionReport::default());
        }
        self.control.plan(&dead);
        match self.log.reserve.run(ReservePart::Whole, || self.run(&dead, pace)) {
            // Meanwhile a record died elsewhere that one of them hides. Their damage was reported
            // before.
            Err(error) if error.is_unreadable() => Ok(CompactionReport::default()),
            result => result,
        }
    }

    /// The largest set of damaged segments that can be dropped together without being read. One may
    /// hide dead records of another in the set, so this starts with all of them, and removes those
    /// that fail the rules until none does.
    fn dead_damaged(&self) -> Vec<SealedSegment> {
        let damaged = self.state.segments.all().into_iter();
        let damaged = damaged.filter(|segment| self.is_left_out(segment.id()));
        let mut dead: Vec<_> = damaged.filter_map(SealedSegment::of).collect();
        dead.sort_by_key(|segment| segment.counters.get().min_sequence);
        while !dead.is_empty() {
            let rules = self.rules(&dead);
            let before = dead.len();
            dead.retain(|segment| rules.let_go_unread(segment));
            if dead.len() == before {
                break;
            }
        }
        dead
    }

    /// Adds the damage that a compaction met to its result.
    pub(super) fn with_damage(&self, done: Result<CompactionReport>, damaged: Vec<Error>) -> Result<CompactionReport> {
        let Some(damage) = Error::together(damaged) else {
            return done;
        };
        match done {
            Ok(_) => Err(damage),
            Err(error) => {
                // The damage is met only once, so it is reported here.
                self.context.events.note_background_error(&damage);
                Err(error)
            }
        }
    }
}
