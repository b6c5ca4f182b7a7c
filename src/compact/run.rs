//! One run of compaction: reads its inputs, copies the survivors, makes the log durable, publishes
//! one manifest with the outputs in place of the inputs, moves the index entries that still point
//! into the inputs, and only then unlinks the inputs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::fate::{Facts, Fate, fate};
use super::rules::{Rules, has_shadows};
use super::{CompactionReport, Compactor, Pace};
use crate::error::{Error, Result};
use crate::format::record::Record;
use crate::index::namespaces::SYSTEM_NAMESPACE;
use crate::location::Location;
use crate::log::segment_writer::{Finished, SegmentWriter, sealed_entries};
use crate::planted::{Planted, planted};
use crate::segment::scan::{End, Found, Scanner};
use crate::segment::{ReadError, SealedSegment, Segment};
use crate::state::HashedKey;

/// Index entries moved per hold of the writer lock.
const MOVES_STEP: usize = 64;
/// Bytes copied between checks of throttle and cancellation.
const THROTTLE_BYTES: u64 = 1 << 20;

/// See the module. The caller holds `Control::running`.
pub(super) struct Run<'a> {
    compactor: &'a Compactor,
    inputs: &'a [SealedSegment],
    pace: Pace,
    rules: Rules,
    /// Number of roll-backs when the run began.
    rollbacks: u64,
}

/// A record that is kept.
struct Survivor {
    sequence: u64,
    input: usize,
    offset: u64,
    fate: Fate,
}

/// What a run found in its inputs.
#[derive(Default)]
struct Findings {
    survivors: Vec<Survivor>,
    /// Of several shadows of a key only the newest is kept.
    newest_shadow: HashMap<(u32, Vec<u8>), u64>,
    /// Whether dropped shadows must be recorded too: only an expired put that is copied depends on
    /// them.
    some_expire: bool,
}

impl Compactor {
    /// Replaces these segments by as few as hold their survivors.
    pub(super) fn run(&self, inputs: &[SealedSegment], pace: Pace) -> Result<CompactionReport> {
        self.check_run(pace)?;
        let done_before = self.control.progress().done_bytes;
        self.housekeeping.sweep_expired();
        let guard = self.log.lock();
        if guard.tail.is_recovering() {
            // Until recovery finishes, the log does not end where the manifest says.
            return Err(Error::NoSpace {
                path: self.context.path().to_owned(),
            });
        }
        let rollbacks = guard.tail.rollbacks;
        drop(guard);
        let run = Run {
            compactor: self,
            inputs,
            pace,
            rules: self.rules(inputs),
            rollbacks,
        };
        let report = run.finish(run.copy()?)?;
        self.control.note(&report);
        // Bytes of dropped records need no copying.
        let done = self.control.progress().done_bytes;
        self.control
            .go_on((done_before + report.read_bytes).saturating_sub(done));
        Ok(report)
    }

    /// The facts about a record. Facts that no longer matter are not looked up.
    pub(super) fn facts(&self, location: Location, record: &Record<'_>, rules: &Rules) -> Result<Facts> {
        let header = record.header;
        let key = self.state.hashed(header.namespace, record.key());
        let mut facts = Facts {
            is_put: header.kind.is_put(),
            ..Facts::default()
        };
        facts.is_live = facts.is_put && self.state.points_at(key.hash, location);
        if facts.is_live {
            return Ok(facts);
        }
        facts.is_dropped = header.namespace != SYSTEM_NAMESPACE
            && self
                .state
                .namespaces
                .by_number(header.namespace)
                .is_none_or(|namespace| namespace.is_dropped());
        // The time is taken after reading the keydir: a sweep may have removed the entry since the
        // run began, and a record it found expired must not be taken for overwritten here.
        facts.is_expired = facts.is_put && self.context.time.now().is_expired(header.expiry, header.sequence);
        if facts.is_dropped || !facts.is_shadow() {
            return Ok(facts);
        }
        // A newer record of the key is in the log, and will be durable before this one is dropped.
        facts.is_replaced = self.is_put(&key)?;
        facts.hides_nothing = rules.hides_nothing(&header);
        facts.is_past_grace = rules.is_past_grace(&header);
        Ok(facts)
    }

    /// Whether a put of this key is known to be in the log. If only a damaged record could tell, it
    /// is not known: a shadow is then kept as long as it may hide anything, as if the key were
    /// absent.
    fn is_put(&self, key: &HashedKey<'_>) -> Result<bool> {
        match self.state.find_header(key) {
            Ok(found) => Ok(found.is_some()),
            Err(error) if error.is_unreadable() && !planted(Planted::FailOnDoubt) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Run<'_> {
    /// Writes new segments with the survivors.
    fn copy(&self) -> Result<Finished> {
        let mut output = SegmentWriter::new(&self.compactor.log);
        let copied = self
            .look()
            .and_then(|findings| self.copy_survivors(findings, &mut output));
        match copied {
            Ok(()) => output.finish(),
            Err(error) => {
                output.discard();
                Err(error)
            }
        }
    }

    /// Decides about every record of the inputs.
    fn look(&self) -> Result<Findings> {
        let unread = self.unread();
        let mut findings = Findings {
            some_expire: self.some_expire(&unread),
            ..Findings::default()
        };
        let mut unreadable = None;
        let read = self.inputs.iter().zip(&unread).enumerate();
        for (index, (input, _)) in read.filter(|(_, (_, unread))| !**unread) {
            match self.look_through(index, input, &mut findings) {
                // All inputs are read, so that the run is retried at most once.
                Err(error) if error.is_unreadable() && !planted(Planted::StopAtDamage) => {
                    self.compactor.leave_out(input, &error);
                    unreadable.get_or_insert(error);
                }
                result => result?,
            }
        }
        match unreadable {
            Some(error) => Err(error),
            None => Ok(findings),
        }
    }

    /// Which inputs need not be read, because they have no live records and hide nothing.
    fn unread(&self) -> Vec<bool> {
        let let_go = |input| self.rules.let_go_unread(input);
        let mut unread: Vec<bool> = self.inputs.iter().map(let_go).collect();
        if self.some_expire(&unread) {
            // An expired put that is copied may be older than a shadow in an unread input.
            for (unread, input) in unread.iter_mut().zip(self.inputs) {
                *unread &= !has_shadows(input);
            }
        }
        unread
    }

    /// Whether any input that is read has puts with an expiry.
    fn some_expire(&self, unread: &[bool]) -> bool {
        let mut inputs = self.inputs.iter().zip(unread);
        inputs.any(|(input, unread)| !unread && input.summary().expiring > 0)
    }

    /// Reads and checks a whole input, and decides about each record.
    fn look_through(&self, index: usize, input: &SealedSegment, findings: &mut Findings) -> Result<()> {
        let compactor = self.compactor;
        let mut scratch = Vec::new();
        let bytes = input
            .all_bytes(&mut scratch)
            .map_err(|error| compactor.context.read_error(input.id(), 0, error))?;
        let mut scanner = Scanner::new(bytes, input.header);
        let mut looked_at = 0;
        let end = loop {
            let found = match scanner.next() {
                Ok(found) => found,
                Err(end) => break end,
            };
            if found.offset - looked_at > THROTTLE_BYTES {
                // Reading is half of the work.
                compactor.control.go_on((found.offset - looked_at) / 2);
                looked_at = found.offset;
                compactor.check_run(self.pace)?;
            }
            let location = input.location(found.offset);
            let fate = fate(&compactor.facts(location, &found.record, &self.rules)?);
            findings.add(index, &found, fate);
        };
        match end {
            End::Damaged { .. } if planted(Planted::CompactBesideDamage) => Ok(()),
            End::Damaged { offset, damage } => {
                let path = compactor.context.segment_path(input.id());
                Err(Error::damage(&path, offset, damage))
            }
            _ => Ok(()),
        }
    }

    /// Copies the survivors, in order of sequence.
    fn copy_survivors(&self, findings: Findings, output: &mut SegmentWriter<'_>) -> Result<()> {
        let compactor = self.compactor;
        let mut survivors = findings.survivors;
        survivors.sort_unstable_by_key(|survivor| survivor.sequence);
        let mut scratch = Vec::new();
        let since_ms = compactor.context.time.monotonic_ms();
        let (mut copied, mut paced) = (0, 0);
        for survivor in survivors {
            let Some(input) = self.inputs.get(survivor.input) else {
                continue;
            };
            let fail = |error: ReadError| {
                let error = compactor.context.read_error(input.id(), survivor.offset, error);
                compactor.leave_out(input, &error);
                error
            };
            let record = input.record(survivor.offset, &mut scratch).map_err(fail)?;
            record.check_body().map_err(|damage| fail(damage.into()))?;
            let (header, key) = (record.header, record.key());
            let is_shadow = header.kind.is_tombstone() || matches!(survivor.fate, Fate::Bury | Fate::Linger);
            let newest = findings.newest_shadow.get(&(header.namespace, key.to_vec()));
            if is_shadow && newest.is_some_and(|newest| *newest > header.sequence) {
                continue;
            }
            match survivor.fate {
                Fate::Copy | Fate::Linger => {
                    let hash = compactor.state.hash(header.namespace, key);
                    output.copy(input.location(survivor.offset), &record, hash)?;
                }
                Fate::Bury => output.tombstone(header.namespace, key, header.sequence)?,
                Fate::Spent | Fate::Gone => {}
            }
            copied += header.record_len();
            if copied - paced > THROTTLE_BYTES {
                compactor.control.go_on((copied - paced) / 2);
                compactor.keep_pace(copied, since_ms, self.pace)?;
                paced = copied;
            }
        }
        // The remainder counts too: a run of small segments may copy less than one step in total.
        compactor.keep_pace(copied, since_ms, self.pace)
    }

    /// Replaces the inputs by the outputs.
    fn finish(&self, finished: Finished) -> Result<CompactionReport> {
        let (compactor, inputs) = (self.compactor, self.inputs);
        let (log, state) = (&compactor.log, &compactor.state);
        let (outputs, moves) = (finished.segments, finished.moves);
        // Both are held until the indexes point only into the outputs: a segment that reused the
        // index of an input meanwhile would be taken for it.
        let _output_ids = finished.ids;
        let _input_ids = log.manifest.hold_ids(inputs.iter().map(|input| input.id()));
        if planted(Planted::UnlinkBeforePublish) {
            inputs.iter().for_each(|input| log.files.remove(input.id()));
        }
        let durable = match planted(Planted::PublishUndurable) {
            true => Ok(()),
            false => log.sync(),
        };
        if let Err(error) = durable.and_then(|()| self.publish(&outputs)) {
            if log.lock().poisoned().is_none() {
                outputs.iter().for_each(|segment| log.files.remove(segment.id()));
            }
            return Err(error);
        }
        outputs.iter().for_each(|segment| state.segments.set(segment.clone()));
        for step in moves.chunks(MOVES_STEP) {
            let mut guard = log.lock();
            if !planted(Planted::ForgetPending) {
                guard.tail.forward(step);
            }
            state.relocate(&guard.tail.right, step);
        }
        // Nothing points into the inputs any more. Oldest first, since the shadows of the oldest
        // are in later ones.
        for input in inputs {
            state.segments.remove(input.index());
            log.files.remove(input.id());
            compactor.left_out.forget(input.id());
        }
        let read_bytes: u64 = inputs.iter().map(|segment| segment.summary().data_end).sum();
        let written_bytes: u64 = outputs.iter().map(|segment| segment.data_end()).sum();
        Ok(CompactionReport {
            runs: 1,
            read_bytes,
            written_bytes,
            reclaimed_bytes: read_bytes.saturating_sub(written_bytes),
        })
    }

    /// Publishes a manifest that lists the outputs instead of the inputs.
    fn publish(&self, outputs: &[Arc<Segment>]) -> Result<()> {
        let log = &self.compactor.log;
        if log.lock().tail.rollbacks != self.rollbacks && !planted(Planted::SkipRollbackCheck) {
            // A decision may depend on a record that was rolled back.
            return Err(Error::Cancelled);
        }
        let inside: HashSet<u64> = self.inputs.iter().map(|segment| segment.id()).collect();
        log.update_manifest(|manifest| {
            manifest.segments.retain(|entry| !inside.contains(&entry.id));
            manifest.segments.extend(sealed_entries(outputs));
        })
    }
}

impl Findings {
    /// Records the fate of a record of this input.
    fn add(&mut self, input: usize, found: &Found<'_>, fate: Fate) {
        let record = &found.record;
        let sequence = record.header.sequence;
        let is_shadow = match fate {
            Fate::Copy => record.header.kind.is_tombstone(),
            Fate::Bury | Fate::Linger => true,
            Fate::Spent => self.some_expire,
            Fate::Gone => false,
        };
        if is_shadow {
            let key = (record.header.namespace, record.key().to_vec());
            let newest = self.newest_shadow.entry(key).or_default();
            *newest = sequence.max(*newest);
        }
        if !matches!(fate, Fate::Spent | Fate::Gone) {
            self.survivors.push(Survivor {
                sequence,
                input,
                offset: found.offset,
                fate,
            });
        }
    }
}

#[cfg(test)]
mod tests;
