//! Compaction: reclaiming the disk space of records that nothing points at any more.
//!
//! `pick` chooses among the sealed segments (no others can be compacted), `fate` decides about each
//! record in them, `run` replaces them by new segments with the survivors, `pacing` slows the
//! background down, and `damage` works around segments that cannot be read.
//!
//! Invariants:
//!
//! * A put is dropped only if a newer record of its key is on the device, or if it has expired.
//! * A shadow (a tombstone, or an expired put, which is written as a tombstone) is dropped only if
//!   no other segment can hold an older record of its key: every other segment that reaches below
//!   the shadow's sequence holds only live puts, and a shadowed record is never live. Otherwise it
//!   is kept under its own sequence.
//! * Records that a decision depends on are durable before the manifest changes; if a failed write
//!   rolled any record back meanwhile, the run is cancelled.
//! * An index entry is moved only if it still points at the record that was copied.
//! * Damage affects only its own segment, and only until that has no live records: the run
//!   continues without it, and all damage is reported at the end.

mod account;
mod control;
mod copy;
mod damage;
mod fate;
mod merge;
mod pacing;
mod pick;
mod relocate;
mod rules;
mod run;

use std::sync::Arc;

pub use self::control::CompactionReport;
use self::control::Control;
use self::damage::LeftOut;
use self::pacing::Debt;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::housekeeping::Housekeeping;
use crate::log::Log;
use crate::log::reserve::ReservePart;
use crate::scrub::Scrub;
use crate::segment::SealedSegment;
use crate::state::State;

/// The pace of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// A call waits for it.
    Forced,
    /// In the background, at full speed.
    Hurried,
    /// In the background, no faster than the options say, unless waste is far above its ceiling or
    /// a call waits for the run to end.
    Throttled,
}

/// Compacts the segments of an open store.
#[derive(Debug)]
pub(crate) struct Compactor {
    context: Arc<Context>,
    state: Arc<State>,
    log: Arc<Log>,
    housekeeping: Arc<Housekeeping>,
    scrub: Arc<Scrub>,
    pub(crate) control: Control,
    pub(crate) debt: Debt,
    left_out: LeftOut,
}

/// Most rounds of a forced compaction: one for the waste, one for what that uncovers, and some
/// spare.
const FORCED_ROUNDS_MAX: usize = 4;

impl Compactor {
    pub(crate) fn new(
        context: Arc<Context>,
        state: Arc<State>,
        log: Arc<Log>,
        housekeeping: Arc<Housekeeping>,
        scrub: Arc<Scrub>,
    ) -> Compactor {
        Compactor {
            context,
            state,
            log,
            housekeeping,
            scrub,
            control: Control::default(),
            debt: Debt::default(),
            left_out: LeftOut::default(),
        }
    }

    /// Compacts as long as there is enough waste. Called in the background.
    pub(crate) fn compact_if_worthwhile(&self) -> Result<CompactionReport> {
        self.context.check_open()?;
        if self.control.is_paused() {
            self.debt.clear();
            return Ok(CompactionReport::default());
        }
        let _running = self.control.lock()?;
        // Closing holds that lock to the end: after it the directory must not be touched.
        self.context.check_open()?;
        self.control.begin();
        let mut damaged = Vec::new();
        let done = self.compact_while_worthwhile(&mut damaged);
        self.with_damage(done, damaged)
    }

    fn compact_while_worthwhile(&self, damaged: &mut Vec<Error>) -> Result<CompactionReport> {
        let mut report = CompactionReport::default();
        // Each run for tombstones elsewhere ends what one segment hides at least.
        let mut unpinning_left = 2 * self.state.segments.all().len();
        let mut may_end_active = true;
        loop {
            report.add(self.drop_dead_damaged(Pace::Hurried)?);
            let Some(pick) = self.pick() else {
                if may_end_active && self.needs_the_active_segment() {
                    may_end_active = false;
                    self.end_active()?;
                    continue;
                }
                return Ok(report);
            };
            self.control.plan(&pick.inputs);
            let (known, inputs) = (damaged.len(), pick::ids(&pick.inputs));
            let run = self.run_as_space_allows(pick.inputs, pick.pace, damaged)?;
            report.add(run);
            if run.reclaimed_bytes > 0 && self.log.reserve.is_full() {
                // If it cannot be restored yet, the disk stays full.
                let _ = self.log.reserve.restore();
            }
            // Damaged segments are not picked again; there may be more to do without them.
            let met_damage = damaged.len() > known;
            let may_unpin = pick.unpins && unpinning_left > 0;
            if run.changed_nothing() && !met_damage && !may_unpin {
                self.control.note_fruitless(inputs);
                return Ok(report);
            }
            unpinning_left -= usize::from(may_unpin);
        }
    }

    /// Whether a compaction is running, or the background has something to compact.
    pub(crate) fn is_behind(&self) -> bool {
        if self.control.is_running() {
            return true;
        }
        let is_due = |inputs: Vec<u64>| !self.control.was_fruitless(&inputs);
        !self.control.is_paused() && self.next_inputs().is_some_and(is_due)
    }

    /// Makes room on a full disk for a delete: compacts what frees the most. Returns whether it
    /// freed anything. Blocks while another compaction is running.
    pub(crate) fn make_room(&self) -> bool {
        let made = || -> Result<bool> {
            self.context.check_open()?;
            if self.control.is_paused() {
                return Ok(false);
            }
            self.housekeeping.empty_dropped_namespaces()?;
            let _running = self.control.lock_at_once()?;
            self.context.check_open()?;
            self.control.begin();
            if self.free_some()? {
                return Ok(true);
            }
            self.end_active()?;
            self.free_some()
        };
        // The caller reports an error of its own.
        made().unwrap_or(false)
    }

    /// Whether the disk is full and the active segment has some of what was deleted: enough that
    /// ending it now and then does not leave many small segments.
    fn needs_the_active_segment(&self) -> bool {
        if !self.is_full() {
            return false;
        }
        let mut waste = 0;
        self.state.segments.for_each(|segment| {
            let counts = segment.counters.get();
            let grows = segment.summary.is_none();
            waste += (counts.dead_bytes() + counts.tombstone_bytes) * u64::from(grows);
        });
        waste > self.log.segment_bytes() / 32
    }

    /// Seals the active segment, so that it can be compacted.
    fn end_active(&self) -> Result<()> {
        self.log.reserve.run(ReservePart::Whole, || self.log.retire_active())?;
        self.log.seal_all()
    }

    /// One run, as on a full disk; or several, if the first ones only let later ones free
    /// something.
    fn free_some(&self) -> Result<bool> {
        for _ in 0..=self.state.segments.all().len() {
            let Some(pick) = self.pick_when_full() else { break };
            self.control.plan(&pick.inputs);
            let mut damaged = Vec::new();
            let run = self.run_as_space_allows(pick.inputs, pick.pace, &mut damaged);
            // Damage is met only once, and the delete that makes room does not report it.
            let met_damage = !damaged.is_empty();
            if let Some(damage) = Error::together(damaged) {
                self.context.events.note_background_error(&damage);
            }
            if run?.reclaimed_bytes > 0 {
                return Ok(true);
            }
            if !pick.unpins && !met_damage {
                break;
            }
        }
        Ok(false)
    }

    /// Reclaims all space that can be reclaimed now. Damage does not stop the rest, and is reported
    /// at the end.
    pub(crate) fn compact_all(&self) -> Result<CompactionReport> {
        self.context.check_open()?;
        self.end_active()?;
        self.housekeeping.empty_dropped_namespaces()?;
        let _running = self.control.lock_at_once()?;
        self.context.check_open()?;
        self.control.begin();
        self.left_out.try_unreadable_again();
        let mut damaged = Vec::new();
        let done = self.compact_rounds(&mut damaged);
        self.with_damage(done, damaged)
    }

    fn compact_rounds(&self, damaged: &mut Vec<Error>) -> Result<CompactionReport> {
        let mut report = CompactionReport::default();
        for _ in 0..FORCED_ROUNDS_MAX {
            report.add(self.drop_dead_damaged(Pace::Forced)?);
            let groups = self.pick_all();
            let (mut gained, known) = (false, damaged.len());
            groups.iter().for_each(|group| self.control.plan(group));
            for group in groups {
                let run = self.run_as_space_allows(group, Pace::Forced, damaged)?;
                gained |= run.reclaimed_bytes > 0;
                report.add(run);
            }
            if !gained && damaged.len() == known {
                break;
            }
        }
        report.add(self.drop_dead_damaged(Pace::Forced)?);
        Ok(report)
    }

    /// Replaces all of these segments at once, or, if the disk is too full for that, one after the
    /// other: the one with the fewest live bytes first, so that each makes room for the next. Takes
    /// ownership, since a segment's space is not freed while anything holds it. Damaged segments
    /// stay, and their errors are added to the list.
    fn run_as_space_allows(
        &self,
        mut inputs: Vec<SealedSegment>,
        pace: Pace,
        damaged: &mut Vec<Error>,
    ) -> Result<CompactionReport> {
        let mut full = match self.run_sound(&mut inputs, pace, damaged) {
            Err(error) if error.is_no_space() && inputs.len() > 1 => error,
            result => return result,
        };
        let mut report = CompactionReport::default();
        inputs.retain(|segment| segment.counters.get().is_wasteful());
        inputs.sort_by_key(|segment| segment.counters.get().live_bytes);
        for input in inputs {
            match self.run_sound(&mut vec![input], pace, damaged) {
                Ok(run) => report.add(run),
                Err(error) if error.is_no_space() => full = error,
                Err(error) => return Err(error),
            }
        }
        // What did not fit now may fit in the next round.
        if report.reclaimed_bytes > 0 {
            Ok(report)
        } else {
            Err(full)
        }
    }

    /// Compacts exactly the sealed segments whose position, by age, is set in this mask, so that
    /// tests can choose any subset.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn compact_subset(&self, mask: u64) -> Result<CompactionReport> {
        self.context.check_open()?;
        self.log.seal_all()?;
        let _running = self.control.lock()?;
        self.context.check_open()?;
        self.control.begin();
        let sealed = self.state.segments.all().into_iter().filter_map(SealedSegment::of);
        let chosen: Vec<_> = sealed
            .enumerate()
            .filter(|(index, _)| mask >> (index % 64) & 1 == 1)
            .map(|(_, segment)| segment)
            .collect();
        if chosen.is_empty() {
            return Ok(CompactionReport::default());
        }
        self.log
            .reserve
            .run(ReservePart::Whole, || self.run(&chosen, Pace::Forced))
    }
}

#[cfg(test)]
mod tests;
