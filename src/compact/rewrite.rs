//! One run of compaction.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::CompactionReport;
use super::pick::shadow_floor;
use crate::error::{Error, Result};
use crate::format::record::{Kind, Record};
use crate::index::keydir::Location;
use crate::index::namespaces::SYSTEM_NAMESPACE;
use crate::log::output::{Move, OutputWriter, sealed_entries};
use crate::log::{Engine, lock};
use crate::segment::Segment;
use crate::segment::scan::{End, Scanner};

/// Index entries moved under one taking of the writer lock.
const MOVES_STEP: usize = 64;
/// Bytes copied between two looks at throttle and cancellation.
const THROTTLE_BYTES: u64 = 1 << 20;

/// What becomes of a record that is carried on.
#[derive(Clone, Copy)]
enum Fate {
    Copy,
    /// An expired put, written as a tombstone.
    Bury,
}

/// A record that is carried on.
struct Survivor {
    sequence: u64,
    input: usize,
    offset: u64,
    fate: Fate,
}

/// The rules of one run.
struct Rules {
    /// Shadows up to this sequence hide nothing outside the inputs.
    shadow_floor: u64,
    /// As above, for records of dropped namespaces.
    namespace_shadow_floor: u64,
    /// Up to this time what has expired may be dropped; None if nothing may.
    horizon: Option<u64>,
    now_ms: u64,
}

impl Engine {
    /// Replaces these segments, all of them sealed, by as few as hold what is left of them. The caller holds
    /// `compaction.running`.
    pub(super) fn rewrite(&self, inputs: &[Arc<Segment>], throttled: bool) -> Result<CompactionReport> {
        debug_assert!(
            inputs.iter().all(|segment| segment.summary.is_some()),
            "only sealed segments are compacted"
        );
        self.throttle(0, throttled)?;
        self.sweep_expired();
        let guard = self.lock_writer();
        if guard.is_recovering() {
            // Until then the log's end is not where the manifest says.
            return Err(Error::NoSpace {
                path: self.directory.clone(),
            });
        }
        let rollbacks = guard.rollbacks;
        drop(guard);
        let rules = self.rules(inputs);
        let mut output = OutputWriter::new(self);
        if let Err(error) = self.copy_survivors(inputs, &rules, throttled, &mut output) {
            output.discard();
            return Err(error);
        }
        let (outputs, moves, _) = output.finish()?;
        let published = self.sync().and_then(|()| self.publish(inputs, &outputs, rollbacks));
        if let Err(error) = published {
            if self.lock_writer().poisoned().is_none() {
                outputs
                    .iter()
                    .for_each(|segment| self.remove_segment_files(segment.id()));
            }
            return Err(error);
        }
        outputs.iter().for_each(|segment| self.segments.set(segment.clone()));
        for step in moves.chunks(MOVES_STEP) {
            let mut guard = self.lock_writer();
            guard.forward(step);
            self.apply_moves(step);
        }
        // Nothing points into the inputs any more; oldest first, as the shadows of the oldest lie in later ones.
        for input in inputs {
            self.segments.remove(input.index());
            self.remove_segment_files(input.id());
        }
        let bytes = |segments: &[Arc<Segment>]| segments.iter().map(|segment| segment.data_end()).sum::<u64>();
        let (read_bytes, written_bytes) = (bytes(inputs), bytes(&outputs));
        let reclaimed_bytes = read_bytes.saturating_sub(written_bytes);
        let report = CompactionReport {
            runs: 1,
            read_bytes,
            written_bytes,
            reclaimed_bytes,
        };
        self.compaction.note(&report);
        Ok(report)
    }

    fn rules(&self, inputs: &[Arc<Segment>]) -> Rules {
        let inside: HashSet<u64> = inputs.iter().map(|segment| segment.id()).collect();
        // While keys of dropped namespaces are still counted as live, the counters say nothing of what their shadow hides.
        let dropping = !self.namespaces.dropped().is_empty();
        let all = self.segments.all();
        let shadow_floor = shadow_floor(all.iter().filter(|segment| !inside.contains(&segment.id())));
        Rules {
            shadow_floor,
            namespace_shadow_floor: if dropping { 0 } else { shadow_floor },
            horizon: self.time.drop_horizon(self.grace_ms()),
            now_ms: self.time.now_ms(),
        }
    }

    fn copy_survivors(
        &self,
        inputs: &[Arc<Segment>],
        rules: &Rules,
        throttled: bool,
        output: &mut OutputWriter<'_>,
    ) -> Result<()> {
        let mut survivors = Vec::new();
        // Of several shadows of a key only the newest is carried on.
        let mut newest_shadow: HashMap<(u32, Vec<u8>), u64> = HashMap::new();
        for (index, input) in inputs.iter().enumerate() {
            if self.can_go_unread(input, rules) {
                continue;
            }
            let mut scratch = Vec::new();
            let bytes = input
                .all_bytes(&mut scratch)
                .map_err(|error| self.read_error(input.id(), 0, error))?;
            let mut scanner = Scanner::new(bytes, input.header);
            let mut looked_at = 0;
            let end = loop {
                let found = match scanner.next() {
                    Ok(found) => found,
                    Err(end) => break end,
                };
                let record = &found.record;
                if found.offset - looked_at > THROTTLE_BYTES {
                    looked_at = found.offset;
                    self.throttle(0, throttled)?;
                }
                if let Some(fate) = self.fate(input.location(found.offset), record, rules)? {
                    let sequence = record.header.sequence;
                    if record.header.kind == Kind::Tombstone || matches!(fate, Fate::Bury) {
                        let key = (record.header.namespace, record.key().to_vec());
                        let newest = newest_shadow.entry(key).or_default();
                        *newest = sequence.max(*newest);
                    }
                    survivors.push(Survivor {
                        sequence,
                        input: index,
                        offset: found.offset,
                        fate,
                    });
                }
            };
            if let End::Damaged { offset, damage } = end {
                lock(&self.compaction.damaged).insert(input.id());
                return Err(Error::damage(&self.segment_path(input.id()), offset, damage));
            }
        }
        survivors.sort_unstable_by_key(|survivor| survivor.sequence);
        let mut scratch = Vec::new();
        let mut copied = 0;
        for survivor in survivors {
            let Some(input) = inputs.get(survivor.input) else {
                continue;
            };
            let fail = |error| self.read_error(input.id(), survivor.offset, error);
            let record = input.record(survivor.offset, &mut scratch).map_err(fail)?;
            record.check_body().map_err(|damage| fail(damage.into()))?;
            let (header, key) = (record.header, record.key());
            let shadow = header.kind == Kind::Tombstone || matches!(survivor.fate, Fate::Bury);
            if shadow
                && newest_shadow
                    .get(&(header.namespace, key.to_vec()))
                    .is_some_and(|newest| *newest > header.sequence)
            {
                continue;
            }
            match survivor.fate {
                Fate::Copy => {
                    output.copy(
                        input.location(survivor.offset),
                        &record,
                        self.hash(header.namespace, key),
                    )?;
                }
                Fate::Bury => output.tombstone(header.namespace, key, header.sequence)?,
            }
            copied += header.record_len();
            if copied > THROTTLE_BYTES {
                self.throttle(copied, throttled)?;
                copied = 0;
            }
        }
        Ok(())
    }

    /// Whether nothing in this segment is live and nothing in it hides anything: then it need not even be read.
    fn can_go_unread(&self, input: &Segment, rules: &Rules) -> bool {
        let (Some(summary), counts) = (input.summary, input.counters.get()) else {
            return false;
        };
        let hides_nothing = (summary.tombstones == 0 && summary.expiring == 0)
            || summary.max_sequence <= rules.shadow_floor.min(rules.namespace_shadow_floor);
        let expired_long_ago =
            summary.expiring == 0 || rules.horizon.is_some_and(|horizon| counts.latest_expired <= horizon);
        counts.live_puts == 0 && hides_nothing && expired_long_ago
    }

    /// Whether a record is carried on, and as what.
    fn fate(&self, location: Location, record: &Record<'_>, rules: &Rules) -> Result<Option<Fate>> {
        let (header, key) = (record.header, record.key());
        let hash = self.hash(header.namespace, key);
        if header.kind == Kind::Put && self.keydir.holds(hash, location) {
            return Ok(Some(Fate::Copy));
        }
        let dropped = header.namespace != SYSTEM_NAMESPACE
            && self
                .namespaces
                .by_number(header.namespace)
                .is_none_or(|namespace| namespace.is_dropped());
        if dropped {
            // The namespace's own shadow covers all its records.
            return Ok(None);
        }
        let shadow = header.kind == Kind::Tombstone
            || header
                .expiry
                .is_some_and(|expiry| crate::clock::is_expired(Some(expiry), rules.now_ms));
        if !shadow || self.find_header(header.namespace, key, hash)?.is_some() {
            // A newer record of the key is in the log, and will be durable before this one goes.
            return Ok(None);
        }
        let floor = if header.namespace == SYSTEM_NAMESPACE {
            rules.namespace_shadow_floor
        } else {
            rules.shadow_floor
        };
        let hides_nothing = header.sequence <= floor;
        if header.kind == Kind::Tombstone {
            return Ok((!hides_nothing).then_some(Fate::Copy));
        }
        // It is expired and has left the indexes, but perhaps only a moment ago.
        let long_ago = rules
            .horizon
            .is_some_and(|horizon| header.expiry.is_some_and(|expiry| expiry <= horizon));
        Ok(match (long_ago, hides_nothing) {
            (false, _) => Some(Fate::Copy),
            (true, false) => Some(Fate::Bury),
            (true, true) => None,
        })
    }

    /// Lets the manifest put the outputs in the place of the inputs.
    fn publish(&self, inputs: &[Arc<Segment>], outputs: &[Arc<Segment>], rollbacks: u64) -> Result<()> {
        let guard = self.lock_writer();
        if guard.rollbacks != rollbacks {
            // A decision may rest on a record that was taken back.
            return Err(Error::Cancelled);
        }
        drop(guard);
        let inside: HashSet<u64> = inputs.iter().map(|segment| segment.id()).collect();
        self.update_manifest(|manifest| {
            manifest.segments.retain(|entry| !inside.contains(&entry.id));
            manifest.segments.extend(sealed_entries(outputs));
        })
    }

    /// Lets index entries that still point at what was copied point at the copies. The caller holds the writer lock.
    pub(crate) fn apply_moves(&self, moves: &[Move]) {
        for step in moves {
            if !self.keydir.replace(step.hash, step.from, step.to) {
                // If it has expired, its new segment must know until when to keep it, as the old one did.
                if let (Some(expiry), Some(to)) = (step.expiry, self.segments.get(step.to.segment_index()))
                    && crate::clock::is_expired(step.expiry, self.time.now_ms())
                {
                    to.counters.note_expired(expiry);
                }
                continue;
            }
            if let Some(from) = self.segments.get(step.from.segment_index()) {
                from.counters.remove_live(step.length);
            }
            if let Some(to) = self.segments.get(step.to.segment_index()) {
                to.counters.add_live(step.length);
            }
            if let Some(expiry) = step.expiry {
                lock(&self.expiry).push(expiry, step.to);
            }
        }
    }
}
