//! One run of compaction: reads its inputs in order of sequence, copies the survivors, makes the
//! log durable, publishes one manifest with the outputs in place of the inputs, moves the index
//! entries that still point into the inputs, and only then unlinks the inputs.
//!
//! Its memory does not depend on the number of records: two bits for each, and some MiB. Only in
//! [`ReadMode::Pread`](crate::ReadMode::Pread) the inputs are in memory too.
//!
//! Expired puts that may not be dropped yet get outputs of their own. They are dead, so while they
//! are on disk no newer shadow may go; the records beside them would keep them there for long.

use std::collections::HashSet;
use std::ops::Deref;
use std::sync::Arc;

use super::copy::Copied;
use super::fate::Facts;
use super::merge::Loaded;
use super::relocate::Places;
use super::rules::{Rules, has_shadows, shadow_floor};
use super::{CompactionReport, Compactor, Pace};
use crate::error::{Error, Result};
use crate::format::record::Header;
use crate::index::namespaces::SYSTEM_NAMESPACE;
use crate::location::Location;
use crate::log::segment_writer::{Finished, sealed_entries};
use crate::planted::{Planted, planted};
use crate::report::Level;
use crate::segment::{SealedSegment, Segment};
use crate::state::HashedKey;

/// See the module. The caller holds `Control::running`.
pub(super) struct Run<'a> {
    pub(super) compactor: &'a Compactor,
    inputs: &'a [SealedSegment],
    pub(super) pace: Pace,
    pub(super) rules: Rules,
    /// Number of roll-backs when the run began.
    rollbacks: u64,
    /// Every later record has a higher sequence.
    pub(super) begun_at: u64,
    /// No put of the inputs that is dead died at or before this sequence.
    pub(super) dying_after: u64,
}

impl Compactor {
    /// Replaces these segments by as few as hold their survivors.
    pub(super) fn run(&self, inputs: &[SealedSegment], pace: Pace) -> Result<CompactionReport> {
        self.check_run(pace)?;
        let done_before = self.control.progress().done_bytes;
        let report = self.begin(inputs, pace)?.execute()?;
        self.control.note(&report);
        self.context.events.report.note(Level::Debug, || {
            let (read, written) = (report.read_bytes, report.written_bytes);
            format!(
                "compacted {read} bytes of segments to {written}: {}",
                self.context.path().display()
            )
        });
        // Bytes of dropped records need no copying.
        let done = self.control.progress().done_bytes;
        self.control
            .go_on((done_before + report.read_bytes).saturating_sub(done));
        Ok(report)
    }

    fn begin<'a>(&'a self, inputs: &'a [SealedSegment], pace: Pace) -> Result<Run<'a>> {
        self.housekeeping.sweep_expired();
        let guard = self.log.lock();
        if guard.tail.is_recovering() {
            // Until recovery finishes, the log does not end where the manifest says.
            return Err(Error::NoSpace {
                path: self.context.path().to_owned(),
            });
        }
        let begun_at = match planted(Planted::BeginUnsettled) {
            true => guard.next_sequence - 1,
            false => self.state.settled_up_to(guard.next_sequence - 1),
        };
        let rollbacks = guard.tail.rollbacks;
        drop(guard);
        Ok(Run {
            compactor: self,
            inputs,
            pace,
            rules: self.rules(inputs),
            rollbacks,
            begun_at,
            dying_after: shadow_floor(inputs.iter().map(Deref::deref)).min(begun_at),
        })
    }

    /// The facts about a record of this key. Facts that no longer matter are not looked up.
    pub(super) fn facts(
        &self,
        key: &HashedKey<'_>,
        location: Location,
        header: &Header,
        rules: &Rules,
    ) -> Result<Facts> {
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
        facts.is_replaced = self.is_put(key)?;
        facts.hides_nothing = rules.hides_nothing(header);
        facts.is_past_grace = rules.is_past_grace(header);
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
    fn execute(&self) -> Result<CompactionReport> {
        let mut scratch = vec![Vec::new(); self.inputs.len()];
        let loaded = self.load(&mut scratch)?;
        let copied = self.copy(&loaded)?;
        self.finish(&loaded, copied)
    }

    /// The inputs that must be read.
    fn load<'b>(&'b self, scratch: &'b mut [Vec<u8>]) -> Result<Vec<Loaded<'b>>> {
        let compactor = self.compactor;
        let mut loaded = Vec::new();
        let mut unreadable = None;
        for ((input, unread), scratch) in self.inputs.iter().zip(self.unread()).zip(scratch) {
            if unread {
                continue;
            }
            match input.all_bytes(scratch) {
                Ok(bytes) => loaded.push(Loaded { input, bytes }),
                Err(error) => {
                    let error = compactor.context.read_error(input.id(), 0, error);
                    if planted(Planted::StopAtDamage) {
                        return Err(error);
                    }
                    compactor.leave_out(input, &error);
                    unreadable.get_or_insert(error);
                }
            }
        }
        match unreadable {
            Some(error) => Err(error),
            None => Ok(loaded),
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

    /// Replaces the inputs by the outputs.
    fn finish(&self, loaded: &[Loaded<'_>], copied: Copied) -> Result<CompactionReport> {
        let (compactor, inputs) = (self.compactor, self.inputs);
        let (log, state) = (&compactor.log, &compactor.state);
        // Both are held until the indexes point only into the outputs: a segment that reused the
        // index of an input meanwhile would be taken for it.
        let Copied {
            decisions,
            kept:
                Finished {
                    segments: kept,
                    ids: _kept_ids,
                    ..
                },
            lingering:
                Finished {
                    segments: lingering,
                    ids: _lingering_ids,
                    ..
                },
        } = copied;
        let _input_ids = log.manifest.hold_ids(inputs.iter().map(|input| input.id()));
        let outputs: Vec<_> = kept.iter().chain(&lingering).cloned().collect();
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
        self.relocate(loaded, &decisions, Places::of(&kept), Places::of(&lingering))?;
        // Nothing points into the inputs any more. Oldest first, since the shadows of the oldest
        // are in later ones.
        for input in inputs {
            log.note_unlinked(input);
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

#[cfg(test)]
mod tests;
