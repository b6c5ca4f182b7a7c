//! One run of compaction.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::pick::shadow_floor;
use super::{CompactionReport, Pace};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::format::record::{Kind, Record};
use crate::index::namespaces::SYSTEM_NAMESPACE;
use crate::location::Location;
use crate::log::segment_writer::{SegmentWriter, sealed_entries};
use crate::planted::{Planted, planted};
use crate::segment::scan::{End, Scanner};
use crate::segment::{SealedSegment, Segment};
use crate::state::HashedKey;

/// Index entries moved under one taking of the writer lock.
const MOVES_STEP: usize = 64;
/// Bytes copied between two looks at throttle and cancellation.
const THROTTLE_BYTES: u64 = 1 << 20;

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Copy,
    /// An expired put, written as a tombstone.
    Bury,
    /// An expired put that is copied, since it has not been expired for long.
    Linger,
    /// A shadow that hides nothing outside the inputs: it goes, and with it all older shadows of its key among them.
    Spent,
    /// A newer record of the key stands elsewhere.
    Gone,
}

/// A record that is carried on.
struct Survivor {
    sequence: u64,
    input: usize,
    offset: u64,
    fate: Fate,
}

/// What a run has found in its inputs.
struct Findings {
    survivors: Vec<Survivor>,
    /// Of several shadows of a key only the newest is carried on.
    newest_shadow: HashMap<(u32, Vec<u8>), u64>,
    /// Whether shadows that go are of interest as well: only an expired put that is copied needs to know of those.
    some_expire: bool,
}

/// The rules of one run.
pub(super) struct Rules {
    /// Shadows up to this sequence hide nothing outside the inputs.
    shadow_floor: u64,
    /// As above, for records of dropped namespaces.
    namespace_shadow_floor: u64,
    /// Up to this time what has expired may be dropped; None if nothing may.
    horizon: Option<u64>,
}

impl Engine {
    /// Replaces these segments by as few as hold what is left of them. The caller holds
    /// `compaction.running`.
    pub(super) fn rewrite(&self, inputs: &[SealedSegment], pace: Pace) -> Result<CompactionReport> {
        self.check_run(pace)?;
        let done_before = self.compaction.progress().done_bytes;
        self.housekeeping.sweep_expired();
        let guard = self.log.lock();
        if guard.tail.is_recovering() {
            // Until then the log's end is not where the manifest says.
            return Err(Error::NoSpace {
                path: self.context.path().to_owned(),
            });
        }
        let rollbacks = guard.tail.rollbacks;
        drop(guard);
        let rules = self.rules(inputs);
        let mut output = SegmentWriter::new(&self.log);
        if let Err(error) = self.copy_survivors(inputs, &rules, pace, &mut output) {
            output.discard();
            return Err(error);
        }
        let finished = output.finish()?;
        let (outputs, moves) = (finished.segments, finished.moves);
        // Both until the indexes lead into the outputs alone: whoever had the index of an input meanwhile would be taken for it.
        let _output_ids = finished.ids;
        let _input_ids = self.log.manifest.hold_ids(inputs.iter().map(|input| input.id()));
        if planted(Planted::UnlinkBeforePublish) {
            inputs.iter().for_each(|input| self.log.files.remove(input.id()));
        }
        let durable = match planted(Planted::PublishUndurable) {
            true => Ok(()),
            false => self.log.sync(),
        };
        let published = durable.and_then(|()| self.publish(inputs, &outputs, rollbacks));
        if let Err(error) = published {
            if self.log.lock().poisoned().is_none() {
                outputs.iter().for_each(|segment| self.log.files.remove(segment.id()));
            }
            return Err(error);
        }
        outputs
            .iter()
            .for_each(|segment| self.state.segments.set(segment.clone()));
        for step in moves.chunks(MOVES_STEP) {
            let mut guard = self.log.lock();
            if !planted(Planted::ForgetPending) {
                guard.tail.forward(step);
            }
            self.state.relocate(&guard.tail.right, step);
        }
        // Nothing points into the inputs any more; oldest first, as the shadows of the oldest lie in later ones.
        for input in inputs {
            self.state.segments.remove(input.index());
            self.log.files.remove(input.id());
            self.compaction.left_out.forget(input.id());
        }
        let read_bytes: u64 = inputs.iter().map(|segment| segment.summary().data_end).sum();
        let written_bytes: u64 = outputs.iter().map(|segment| segment.data_end()).sum();
        let reclaimed_bytes = read_bytes.saturating_sub(written_bytes);
        let report = CompactionReport {
            runs: 1,
            read_bytes,
            written_bytes,
            reclaimed_bytes,
        };
        self.compaction.note(&report);
        // What was dropped need not be copied.
        self.compaction
            .go_on((done_before + read_bytes).saturating_sub(self.compaction.progress().done_bytes));
        Ok(report)
    }

    pub(super) fn rules(&self, inputs: &[SealedSegment]) -> Rules {
        let inside: HashSet<u64> = inputs.iter().map(|segment| segment.id()).collect();
        // While keys of dropped namespaces are still counted as live, the counters say nothing of what their shadow hides.
        let dropping = self.state.namespaces.any_dropped();
        let all = self.state.segments.all();
        let shadow_floor = shadow_floor(all.iter().filter(|segment| !inside.contains(&segment.id())));
        Rules {
            shadow_floor,
            namespace_shadow_floor: if dropping { 0 } else { shadow_floor },
            horizon: self.context.time.drop_horizon(self.context.grace_ms()),
        }
    }

    fn copy_survivors(
        &self,
        inputs: &[SealedSegment],
        rules: &Rules,
        pace: Pace,
        output: &mut SegmentWriter<'_>,
    ) -> Result<()> {
        let unread = self.unread(inputs, rules);
        let some_expire = inputs
            .iter()
            .zip(&unread)
            .any(|(input, unread)| !unread && input.summary().expiring > 0);
        let mut findings = Findings {
            survivors: Vec::new(),
            newest_shadow: HashMap::new(),
            some_expire,
        };
        let mut unreadable = None;
        for (index, (input, _)) in inputs
            .iter()
            .zip(&unread)
            .enumerate()
            .filter(|(_, (_, unread))| !**unread)
        {
            match self.look_through(index, input, rules, pace, &mut findings) {
                // All inputs are looked through, so that the run need be begun again but once.
                Err(error) if error.is_unreadable() && !planted(Planted::StopAtDamage) => {
                    self.leave_out(input, &error);
                    unreadable.get_or_insert(error);
                }
                result => result?,
            }
        }
        if let Some(error) = unreadable {
            return Err(error);
        }
        let Findings {
            mut survivors,
            newest_shadow,
            ..
        } = findings;
        survivors.sort_unstable_by_key(|survivor| survivor.sequence);
        let mut scratch = Vec::new();
        let since_ms = self.context.time.monotonic_ms();
        let (mut copied, mut paced) = (0, 0);
        for survivor in survivors {
            let Some(input) = inputs.get(survivor.input) else {
                continue;
            };
            let fail = |error| {
                let error = self.context.read_error(input.id(), survivor.offset, error);
                self.leave_out(input, &error);
                error
            };
            let record = input.record(survivor.offset, &mut scratch).map_err(fail)?;
            record.check_body().map_err(|damage| fail(damage.into()))?;
            let (header, key) = (record.header, record.key());
            let shadow = header.kind == Kind::Tombstone || matches!(survivor.fate, Fate::Bury | Fate::Linger);
            if shadow
                && newest_shadow
                    .get(&(header.namespace, key.to_vec()))
                    .is_some_and(|newest| *newest > header.sequence)
            {
                continue;
            }
            match survivor.fate {
                Fate::Copy | Fate::Linger => {
                    output.copy(
                        input.location(survivor.offset),
                        &record,
                        self.state.hash(header.namespace, key),
                    )?;
                }
                Fate::Bury => output.tombstone(header.namespace, key, header.sequence)?,
                Fate::Spent | Fate::Gone => {}
            }
            copied += header.record_len();
            if copied - paced > THROTTLE_BYTES {
                self.compaction.go_on((copied - paced) / 2);
                self.keep_pace(copied, since_ms, pace)?;
                paced = copied;
            }
        }
        // The rest counts too: runs of small segments copy less than that altogether.
        self.keep_pace(copied, since_ms, pace)
    }

    /// Reads an input whole, everything in it checked, and decides about each record.
    fn look_through(
        &self,
        index: usize,
        input: &SealedSegment,
        rules: &Rules,
        pace: Pace,
        findings: &mut Findings,
    ) -> Result<()> {
        let mut scratch = Vec::new();
        let bytes = input
            .all_bytes(&mut scratch)
            .map_err(|error| self.context.read_error(input.id(), 0, error))?;
        let mut scanner = Scanner::new(bytes, input.header);
        let mut looked_at = 0;
        let end = loop {
            let found = match scanner.next() {
                Ok(found) => found,
                Err(end) => break end,
            };
            let record = &found.record;
            if found.offset - looked_at > THROTTLE_BYTES {
                // Reading is half of the work.
                self.compaction.go_on((found.offset - looked_at) / 2);
                looked_at = found.offset;
                self.check_run(pace)?;
            }
            let fate = self.fate(input.location(found.offset), record, rules)?;
            let sequence = record.header.sequence;
            let is_shadow = match fate {
                Fate::Copy => record.header.kind == Kind::Tombstone,
                Fate::Bury | Fate::Linger => true,
                Fate::Spent => findings.some_expire,
                Fate::Gone => false,
            };
            if is_shadow {
                let key = (record.header.namespace, record.key().to_vec());
                let newest = findings.newest_shadow.entry(key).or_default();
                *newest = sequence.max(*newest);
            }
            if !matches!(fate, Fate::Spent | Fate::Gone) {
                findings.survivors.push(Survivor {
                    sequence,
                    input: index,
                    offset: found.offset,
                    fate,
                });
            }
        };
        match end {
            End::Damaged { .. } if planted(Planted::CompactBesideDamage) => Ok(()),
            End::Damaged { offset, damage } => {
                Err(Error::damage(&self.context.segment_path(input.id()), offset, damage))
            }
            _ => Ok(()),
        }
    }

    /// Which inputs need not even be read, because nothing in them is live and nothing in them hides anything.
    fn unread(&self, inputs: &[SealedSegment], rules: &Rules) -> Vec<bool> {
        let mut unread: Vec<bool> = inputs.iter().map(|input| rules.let_go_unread(input)).collect();
        let some_expire = inputs
            .iter()
            .zip(&unread)
            .any(|(input, unread)| !unread && input.summary().expiring > 0);
        if some_expire {
            // An expired put that is copied may be older than a shadow in one that would go unread.
            for (unread, input) in unread.iter_mut().zip(inputs) {
                *unread &= !has_shadows(input);
            }
        }
        unread
    }

    /// Whether a record is carried on, and as what.
    fn fate(&self, location: Location, record: &Record<'_>, rules: &Rules) -> Result<Fate> {
        let header = record.header;
        let key = self.state.hashed(header.namespace, record.key());
        if header.kind == Kind::Put && self.state.points_at(key.hash, location) {
            return Ok(Fate::Copy);
        }
        let dropped = header.namespace != SYSTEM_NAMESPACE
            && self
                .state
                .namespaces
                .by_number(header.namespace)
                .is_none_or(|namespace| namespace.is_dropped());
        if dropped {
            // The namespace's own shadow covers all its records.
            return Ok(Fate::Gone);
        }
        // The time is taken after the look at the keydir: a sweep may have removed the entry since the run began, and what
        // it took for expired must not be taken for overwritten here.
        let shadow =
            header.kind == Kind::Tombstone || self.context.time.now().is_expired(header.expiry, header.sequence);
        if !shadow || self.is_put(&key)? {
            // A newer record of the key is in the log, and will be durable before this one goes.
            return Ok(Fate::Gone);
        }
        let floor = if header.namespace == SYSTEM_NAMESPACE {
            rules.namespace_shadow_floor
        } else {
            rules.shadow_floor
        };
        let hides_nothing = header.sequence <= floor || planted(Planted::DropShadowEarly);
        if header.kind == Kind::Tombstone {
            return Ok(if hides_nothing { Fate::Spent } else { Fate::Copy });
        }
        // It is expired and has left the indexes, but perhaps only a moment ago.
        let long_ago = rules
            .horizon
            .is_some_and(|horizon| header.expiry.is_some_and(|expiry| expiry <= horizon))
            || planted(Planted::IgnoreGrace);
        let hides_nothing = hides_nothing || planted(Planted::DropExpiredShadow);
        Ok(match (long_ago, hides_nothing) {
            (false, _) => Fate::Linger,
            (true, false) => Fate::Bury,
            (true, true) => Fate::Spent,
        })
    }

    /// Whether a put of this key is known to stand in the log. If only a damaged record could tell, it is not known: then a shadow
    /// is carried on for as long as it may hide anything, as that of a key that is absent.
    fn is_put(&self, key: &HashedKey<'_>) -> Result<bool> {
        match self.state.find_header(key) {
            Ok(found) => Ok(found.is_some()),
            Err(error) if error.is_unreadable() && !planted(Planted::FailOnDoubt) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lets the manifest put the outputs in the place of the inputs.
    fn publish(&self, inputs: &[SealedSegment], outputs: &[Arc<Segment>], rollbacks: u64) -> Result<()> {
        let guard = self.log.lock();
        if guard.tail.rollbacks != rollbacks && !planted(Planted::SkipRollbackCheck) {
            // A decision may rest on a record that was taken back.
            return Err(Error::Cancelled);
        }
        drop(guard);
        let inside: HashSet<u64> = inputs.iter().map(|segment| segment.id()).collect();
        self.log.update_manifest(|manifest| {
            manifest.segments.retain(|entry| !inside.contains(&entry.id));
            manifest.segments.extend(sealed_entries(outputs));
        })
    }
}

impl Rules {
    /// Whether a segment among the inputs need not be read: nothing in it is live, nothing in it hides anything outside the inputs,
    /// and nothing in it has expired only just now.
    pub(super) fn let_go_unread(&self, input: &SealedSegment) -> bool {
        let (summary, counts) = (input.summary(), input.counters.get());
        let hides_nothing =
            !has_shadows(input) || summary.max_sequence <= self.shadow_floor.min(self.namespace_shadow_floor);
        let expired_long_ago =
            summary.expiring == 0 || self.horizon.is_some_and(|horizon| counts.latest_expired <= horizon);
        counts.live_puts == 0 && (hides_nothing && expired_long_ago || planted(Planted::DropUnread))
    }
}

/// Whether anything in this segment hides, or may hide once expired, an older record.
fn has_shadows(segment: &SealedSegment) -> bool {
    let summary = segment.summary();
    summary.tombstones > 0 || summary.expiring > 0
}

#[cfg(test)]
mod tests;
