//! The first reading of the inputs of a run: decides about each record, and copies the survivors.

use super::fate::{Fate, fate};
use super::merge::{Decision, Decisions, Loaded, Merge, Step};
use super::run::Run;
use crate::error::{Error, Result};
use crate::format::record::Record;
use crate::log::segment_writer::{Finished, SegmentWriter};
use crate::planted::{Planted, planted};
use crate::segment::SealedSegment;
use crate::segment::scan::{Found, Scanner};

/// Bytes read or copied between checks of throttle and cancellation.
const THROTTLE_BYTES: u64 = 1 << 20;
/// Time between two looks at how far a run is behind the writers.
const DEBT_MS: u64 = 50;
/// Bits of [`Lingering`], a power of two.
const LINGERING_BITS: usize = 1 << 23;

/// The keys of expired puts that a run copies, by hash. May hold others as well: a shadow that is
/// kept for one of those does no harm.
#[derive(Default)]
struct Lingering(Vec<u64>);

impl Lingering {
    fn insert(&mut self, hash: u64) {
        self.0.resize(LINGERING_BITS / 64, 0);
        if let Some(word) = self.0.get_mut(Self::word(hash)) {
            *word |= 1 << (hash % 64);
        }
    }

    fn may_hold(&self, hash: u64) -> bool {
        let word = self.0.get(Self::word(hash));
        word.is_some_and(|word| word >> (hash % 64) & 1 == 1)
    }

    fn word(hash: u64) -> usize {
        (hash / 64) as usize % (LINGERING_BITS / 64)
    }
}

/// What a run has written.
pub(super) struct Copied {
    pub(super) decisions: Decisions,
    pub(super) kept: Finished,
    /// The expired puts that may not be dropped yet.
    pub(super) lingering: Finished,
}

/// A run while it copies.
struct Copying<'a> {
    run: &'a Run<'a>,
    kept: SegmentWriter<'a>,
    lingering: SegmentWriter<'a>,
    lingering_keys: Lingering,
    decisions: Decisions,
    /// Bytes read and bytes written, and both at the last check of the pace.
    read: u64,
    read_checked: u64,
    copied: u64,
    copied_checked: u64,
    since_ms: u64,
    debt_at_ms: u64,
}

impl Run<'_> {
    /// Writes new segments with the survivors.
    pub(super) fn copy(&self, loaded: &[Loaded<'_>]) -> Result<Copied> {
        let log = &self.compactor.log;
        let since_ms = self.compactor.context.time.monotonic_ms();
        let mut copying = Copying {
            run: self,
            kept: SegmentWriter::new(log, self.begun_at),
            lingering: SegmentWriter::new(log, self.dying_after),
            lingering_keys: Lingering::default(),
            decisions: Decisions::default(),
            read: 0,
            read_checked: 0,
            copied: 0,
            copied_checked: 0,
            since_ms,
            debt_at_ms: since_ms,
        };
        match copying.copy_all(Merge::new(loaded)) {
            Ok(()) => copying.finish(),
            Err(error) => {
                copying.kept.discard();
                copying.lingering.discard();
                Err(error)
            }
        }
    }
}

impl Copying<'_> {
    /// Copies the survivors, in order of sequence.
    fn copy_all<'b>(&mut self, mut merge: Merge<'b, Scanner<'b>>) -> Result<()> {
        let compactor = self.run.compactor;
        let mut damaged = None;
        while let Some(step) = merge.next() {
            let (input, found) = match step {
                Step::Record(loaded, found) => (loaded.input, found),
                Step::Damaged { .. } if planted(Planted::CompactBesideDamage) => continue,
                Step::Damaged { input, offset, damage } => {
                    let error = Error::damage(&compactor.context.segment_path(input.input.id()), offset, damage);
                    if planted(Planted::StopAtDamage) {
                        return Err(error);
                    }
                    compactor.leave_out(input.input, &error);
                    damaged.get_or_insert(error);
                    continue;
                }
            };
            // The others are read to the end, so that the run is retried at most once.
            if damaged.is_none() {
                self.copy_record(input, &found)?;
            }
            self.read += found.record.header.record_len();
            self.keep_pace()?;
        }
        match damaged {
            Some(error) => Err(error),
            // The remainder counts too: a run of small segments may copy less than one step in
            // total.
            None => compactor.keep_pace(self.copied, self.since_ms, self.run.pace),
        }
    }

    fn copy_record(&mut self, input: &SealedSegment, found: &Found<'_>) -> Result<()> {
        let compactor = self.run.compactor;
        let Record { header, .. } = &found.record;
        let key = compactor.state.hashed(header.namespace, found.record.key());
        let mut facts = compactor.facts(&key, input.location(found.offset), header, &self.run.rules)?;
        // All older records of the key in the inputs have been decided about.
        facts.hides_nothing &= !self.lingering_keys.may_hold(key.hash);
        let decision = match fate(&facts) {
            Fate::Copy => {
                self.kept.copy(&found.record)?;
                Decision::Copied
            }
            Fate::Linger => {
                self.lingering.copy(&found.record)?;
                self.lingering_keys.insert(key.hash);
                Decision::CopiedExpired
            }
            Fate::Bury => {
                self.kept.tombstone(header.namespace, key.key, header.sequence)?;
                Decision::Buried
            }
            Fate::Spent | Fate::Gone => Decision::Dropped,
        };
        if decision != Decision::Dropped {
            self.copied += header.record_len();
        }
        self.decisions.push(decision);
        Ok(())
    }

    /// Now and then counts progress, waits for the rate limit, and checks whether the run must
    /// stop.
    fn keep_pace(&mut self) -> Result<()> {
        let compactor = self.run.compactor;
        if self.read - self.read_checked > THROTTLE_BYTES {
            compactor.control.go_on(self.read - self.read_checked);
            self.read_checked = self.read;
            compactor.check_run(self.run.pace)?;
            let now_ms = compactor.context.time.monotonic_ms();
            if now_ms.saturating_sub(self.debt_at_ms) >= DEBT_MS {
                self.debt_at_ms = now_ms;
                compactor.update_debt();
            }
        }
        if self.copied - self.copied_checked > THROTTLE_BYTES {
            self.copied_checked = self.copied;
            compactor.keep_pace(self.copied, self.since_ms, self.run.pace)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<Copied> {
        let log = &self.run.compactor.log;
        let kept = match self.kept.finish() {
            Ok(kept) => kept,
            Err(error) => {
                self.lingering.discard();
                return Err(error);
            }
        };
        match self.lingering.finish() {
            Ok(lingering) => Ok(Copied {
                decisions: self.decisions,
                kept,
                lingering,
            }),
            Err(error) => {
                kept.segments.iter().for_each(|segment| log.files.remove(segment.id()));
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_that_lingers_is_remembered_and_hardly_any_other() {
        let mut lingering = Lingering::default();
        assert!(!lingering.may_hold(0));
        let hashes = [0, 1, 64, 65, 1 << 22, u64::MAX, 0x1234_5678_9abc_def0];
        for hash in hashes {
            lingering.insert(hash);
        }
        assert!(hashes.into_iter().all(|hash| lingering.may_hold(hash)));
        for other in [2, 63, 66, 128, 129, 1 << 21, (1 << 22) + 1, u64::MAX - 1] {
            assert!(!lingering.may_hold(other), "{other}");
        }
    }
}
