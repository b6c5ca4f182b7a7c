//! What compaction does about segments that it cannot read.
//!
//! Such a segment is left where it is: what is live in it would be lost with it, or is lost
//! already, and a reader of it must be told. The others are compacted without it. Once nothing in
//! it is live, and nothing in it hides anything, it goes as any other would, without being read.

use std::collections::HashMap;
use std::sync::Mutex;

use super::{CompactionReport, Compactor, Pace};
use crate::error::{Error, Result};
use crate::log::reserve::ReservePart;
use crate::planted::{Planted, planted};
use crate::segment::SealedSegment;
use crate::sync::lock;

/// After so long a segment that the device did not give out is tried again in the background.
const RETRY_MS: u64 = 60_000;

/// Segments that compaction leaves where they are, since they could not be read.
#[derive(Debug, Default)]
pub(super) struct LeftOut(Mutex<HashMap<u64, Cause>>);

/// Why, and for how long.
#[derive(Debug)]
struct Cause {
    error: Error,
    /// On the monotonic clock; for good if None.
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

    /// The segment is gone.
    pub(super) fn forget(&self, id: u64) {
        lock(&self.0).remove(&id);
    }

    /// Damage stays; a device, or what stands between, may have come to itself again.
    pub(super) fn try_unreadable_again(&self) {
        lock(&self.0).retain(|_, cause| cause.until_ms.is_none());
    }

    fn error(&self, id: u64) -> Option<Error> {
        lock(&self.0).get(&id).map(|cause| cause.error.clone())
    }
}

impl Compactor {
    /// Whether compaction has met damage in this segment.
    pub(super) fn is_left_out(&self, id: u64) -> bool {
        self.left_out.holds(id, self.context.time.monotonic_ms())
    }

    /// Has the runs that follow leave a segment out, if this is an error of reading it.
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

    /// Replaces those of these segments that can be read. The others are left out from then on, and
    /// what is wrong with them is added to the list.
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

    /// Drops the damaged segments in which nothing is live and nothing hides anything, in a run of
    /// their own: beside others they might have to be read.
    pub(super) fn drop_dead_damaged(&self, pace: Pace) -> Result<CompactionReport> {
        let dead = self.dead_damaged();
        if dead.is_empty() || planted(Planted::KeepDamagedForGood) {
            return Ok(CompactionReport::default());
        }
        self.control.plan(&dead);
        match self.log.reserve.run(ReservePart::Whole, || self.run(&dead, pace)) {
            // Something has died elsewhere meanwhile that one of them hides. That they are damaged was told before.
            Err(error) if error.is_unreadable() => Ok(CompactionReport::default()),
            result => result,
        }
    }

    /// The most damaged segments that can go together without being read. One may hide what is dead
    /// in another one of them, so all are supposed to go at first, and those of which that is
    /// not true are taken out until it is true of the rest.
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

    /// The end of a compaction that met this damage.
    pub(super) fn with_damage(&self, done: Result<CompactionReport>, damaged: Vec<Error>) -> Result<CompactionReport> {
        let Some(damage) = Error::together(damaged) else {
            return done;
        };
        match done {
            Ok(_) => Err(damage),
            Err(error) => {
                // It is not met a second time, so this is where it can be told.
                self.context.events.note_background_error(&damage);
                Err(error)
            }
        }
    }
}
