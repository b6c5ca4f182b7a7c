//! Compaction: giving back the disk space of records that nothing points at any more.
//!
//! A run takes sealed segments (no others are within its reach), copies what is live in them into new segments, makes
//! the log durable, lets one manifest put the outputs in the place of the inputs, moves the index entries that still point
//! into the inputs, and only then unlinks these.
//!
//! Invariants:
//!
//! * A put is left out only if a newer record of its key is on the device, or if it has expired.
//! * A shadow (a tombstone, or an expired put, which is written as a tombstone) is left out only if no other segment can hold
//!   an older record of its key: every other segment that reaches below the shadow's sequence holds nothing but live puts, and
//!   a record that is shadowed is never live. Else it is carried on under its own sequence.
//! * What a decision rests on is durable before the manifest changes; if a failed write took any record back meanwhile,
//!   the run is given up.
//! * An index entry is moved only if it still points at the record that was copied.
//! * Damage costs the segment it lies in, and that only as long as anything in it is live: the run goes on without it, and all damage is
//!   told in the end.

mod damage;
mod pacing;
mod pick;
mod rewrite;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::log::reserve::ReservePart;
use crate::options::Progress;
use crate::planted::{Planted, planted};
use crate::segment::SealedSegment;
use crate::sync::lock;

/// How a run goes about its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Somebody waits for it.
    Forced,
    /// In the background, at full speed.
    Hurried,
    /// In the background, no faster than the options say, unless waste is far above its ceiling or a call waits for the run to end.
    Throttled,
}

/// Whether and how compaction runs.
#[derive(Debug, Default)]
pub(crate) struct Control {
    /// Held by the one who compacts, or who must not be disturbed by it.
    pub(crate) running: Mutex<()>,
    paused: AtomicBool,
    cancelled: AtomicBool,
    /// How many calls wait for the compaction under way to end.
    waiting: AtomicU64,
    /// A compaction began, and has not found anything to do yet.
    begun: AtomicBool,
    left_out: damage::LeftOut,
    runs: AtomicU64,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    reclaimed_bytes: AtomicU64,
    /// Of the segments chosen since the last compaction that had anything to do began: bytes replaced, and bytes in all.
    done_bytes: AtomicU64,
    total_bytes: AtomicU64,
}

/// What compaction did: one run, or all since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionReport {
    /// Runs, each of some segments at once.
    pub runs: u64,
    /// Bytes of the segments that were replaced.
    pub read_bytes: u64,
    /// Bytes of the segments that replaced them.
    pub written_bytes: u64,
    /// The difference: disk space that came back.
    pub reclaimed_bytes: u64,
}

impl CompactionReport {
    fn add(&mut self, run: CompactionReport) {
        self.runs += run.runs;
        self.read_bytes += run.read_bytes;
        self.written_bytes += run.written_bytes;
        self.reclaimed_bytes += run.reclaimed_bytes;
    }

    /// Whether there are other files now and nothing else: doing it again would do the same again.
    fn changed_nothing(&self) -> bool {
        self.reclaimed_bytes == 0 && self.read_bytes == self.written_bytes
    }
}

impl Control {
    /// Background compaction begins nothing new until resumed, and its run under way is given up.
    pub(crate) fn pause(&self) {
        self.paused.store(true, Ordering::Release);
    }

    pub(crate) fn resume(&self) {
        self.paused.store(false, Ordering::Release);
    }

    /// Gives up the run under way, if there is one.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    fn check_cancelled(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Acquire) && !planted(Planted::IgnoreCancel) {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }

    /// Takes the lock `running` for a call that must not wait at the pace of the background: a throttled run under way goes on at
    /// full speed from now on.
    pub(crate) fn lock_at_once(&self) -> MutexGuard<'_, ()> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let running = lock(&self.running);
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        running
    }

    fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// A compaction begins. The background begins one twice a second and mostly finds nothing to do, so the progress of the last one
    /// stays until there is something.
    fn begin(&self) {
        self.cancelled.store(false, Ordering::Release);
        self.begun.store(true, Ordering::Relaxed);
    }

    /// These segments are to be replaced.
    fn plan(&self, inputs: &[SealedSegment]) {
        if self.begun.swap(false, Ordering::Relaxed) {
            self.total_bytes.store(0, Ordering::Relaxed);
            self.done_bytes.store(0, Ordering::Relaxed);
        }
        let bytes = inputs.iter().map(|segment| segment.summary().data_end).sum();
        self.total_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many more bytes are done.
    fn go_on(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn progress(&self) -> Progress {
        let total_bytes = self.total_bytes.load(Ordering::Relaxed);
        Progress {
            done_bytes: self.done_bytes.load(Ordering::Relaxed).min(total_bytes),
            total_bytes,
        }
    }

    fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire) && !planted(Planted::IgnorePause)
    }

    fn note(&self, run: &CompactionReport) {
        self.runs.fetch_add(run.runs, Ordering::Relaxed);
        self.read_bytes.fetch_add(run.read_bytes, Ordering::Relaxed);
        self.written_bytes.fetch_add(run.written_bytes, Ordering::Relaxed);
        self.reclaimed_bytes.fetch_add(run.reclaimed_bytes, Ordering::Relaxed);
    }

    /// All runs since the store was opened.
    pub(crate) fn totals(&self) -> CompactionReport {
        CompactionReport {
            runs: self.runs.load(Ordering::Relaxed),
            read_bytes: self.read_bytes.load(Ordering::Relaxed),
            written_bytes: self.written_bytes.load(Ordering::Relaxed),
            reclaimed_bytes: self.reclaimed_bytes.load(Ordering::Relaxed),
        }
    }
}

/// Runs of a forced compaction after which it is good: one for the waste, one for what that uncovered, and then some.
const FORCED_ROUNDS_MAX: usize = 4;

impl Engine {
    /// Compacts as long as there is enough waste. Called in the background.
    pub(crate) fn compact_if_worthwhile(&self) -> Result<CompactionReport> {
        self.context.check_open()?;
        if self.compaction.is_paused() {
            return Ok(CompactionReport::default());
        }
        let _running = lock(&self.compaction.running);
        // Closing holds that lock to the end: who gets it afterwards must leave the directory alone.
        self.context.check_open()?;
        self.compaction.begin();
        let mut damaged = Vec::new();
        let done = self.compact_while_worthwhile(&mut damaged);
        self.with_damage(done, damaged)
    }

    fn compact_while_worthwhile(&self, damaged: &mut Vec<Error>) -> Result<CompactionReport> {
        let mut report = CompactionReport::default();
        loop {
            report.add(self.drop_dead_damaged(Pace::Hurried)?);
            let Some(pick) = self.pick() else { return Ok(report) };
            self.compaction.plan(&pick.inputs);
            let known = damaged.len();
            let run = self.rewrite_as_space_allows(pick.inputs, pick.pace, damaged)?;
            report.add(run);
            // What turned out to be damaged is not picked again; there may be more to do without it.
            let met_damage = damaged.len() > known;
            if run.changed_nothing() && !met_damage {
                return Ok(report);
            }
        }
    }

    /// Gives back all space that can be given back now. Damage does not keep the rest from it, and is told in the end.
    pub(crate) fn compact_all(&self) -> Result<CompactionReport> {
        self.context.check_open()?;
        self.log.reserve.run(ReservePart::Whole, || self.log.retire_active())?;
        self.log.seal_all()?;
        self.housekeeping.empty_dropped_namespaces()?;
        let _running = self.compaction.lock_at_once();
        self.context.check_open()?;
        self.compaction.begin();
        self.compaction.left_out.try_unreadable_again();
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
            groups.iter().for_each(|group| self.compaction.plan(group));
            for group in groups {
                let run = self.rewrite_as_space_allows(group, Pace::Forced, damaged)?;
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

    /// Replaces all of these segments at once, or, if the disk is too full for that, one after the other: the one with the
    /// least in it first, so that each makes room for the next. Takes them over, since the space of a segment does not come
    /// back while anybody holds it. What turns out to be damaged stays, and is added to the list.
    fn rewrite_as_space_allows(
        &self,
        mut inputs: Vec<SealedSegment>,
        pace: Pace,
        damaged: &mut Vec<Error>,
    ) -> Result<CompactionReport> {
        let mut full = match self.rewrite_sound(&mut inputs, pace, damaged) {
            Err(error) if error.is_no_space() && inputs.len() > 1 => error,
            result => return result,
        };
        let mut report = CompactionReport::default();
        inputs.retain(|segment| segment.counters.get().is_wasteful());
        inputs.sort_by_key(|segment| segment.counters.get().live_bytes);
        for input in inputs {
            match self.rewrite_sound(&mut vec![input], pace, damaged) {
                Ok(run) => report.add(run),
                Err(error) if error.is_no_space() => full = error,
                Err(error) => return Err(error),
            }
        }
        // What did not fit now may do so in the next round.
        if report.reclaimed_bytes > 0 {
            Ok(report)
        } else {
            Err(full)
        }
    }

    /// Compacts exactly the sealed segments whose position, by age, is set in this mask: lets tests choose any subset.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn compact_subset(&self, mask: u64) -> Result<CompactionReport> {
        self.context.check_open()?;
        self.log.seal_all()?;
        let _running = lock(&self.compaction.running);
        self.context.check_open()?;
        self.compaction.begin();
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
            .run(ReservePart::Whole, || self.rewrite(&chosen, Pace::Forced))
    }
}

#[cfg(test)]
mod tests;
