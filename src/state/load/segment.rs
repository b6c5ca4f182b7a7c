//! Entering the records of one segment into the keydir.

use super::{Contribution, DeadRecords, LoadProgress, Names, Source, State};
use crate::clock::Now;
use crate::error::Result;
use crate::format::Damage;
use crate::format::record::{Header, Record};
use crate::index::keydir::{Relation, Upsert};
use crate::index::namespaces::SYSTEM_NAMESPACE;
use crate::location::Location;
use crate::planted::{Planted, planted};
use crate::segment::scan::KeysCrc;
use crate::segment::{ReadError, Segment};
use crate::state::WARM_UP;
use crate::sync::ChangeRight;

/// Groups of [`WARM_UP`] records after which progress is reported.
const PROGRESS_GROUPS: usize = 16;

/// Shared by the loading threads.
pub(super) struct Loading<'a> {
    pub(super) state: &'a State,
    pub(super) right: &'a ChangeRight,
    pub(super) names: &'a Names,
    /// Filled with every record that the keydir does not point at in the end.
    pub(super) dead: &'a DeadRecords,
    pub(super) progress: &'a LoadProgress,
}

/// Offset, hash and header of a record.
type Listed = (u64, u64, Header);

/// Buffers for two records that are compared.
type Scratch = [Vec<u8>; 2];

/// Working state of loading one segment.
struct Progress {
    now: Now,
    keys: KeysCrc,
    contribution: Contribution,
    scratch: Scratch,
    /// The namespace of the last record, and whether it stands.
    last: (u32, bool),
}

impl Progress {
    /// Whether a namespace stands. Most records are of the same one as the record before.
    #[inline]
    fn stands(&mut self, namespace: u32, names: &Names) -> bool {
        if self.last.0 != namespace {
            self.last = (namespace, names.contains_key(&namespace));
        }
        self.last.1
    }
}

impl Loading<'_> {
    /// Enters the records of one segment into the keydir. None if its hint turns out to list other
    /// keys.
    pub(super) fn load(&self, source: &Source) -> Result<Option<Contribution>> {
        let (state, segment) = (self.state, &source.segment);
        // Key order jumps around the segment, so all of it is read ahead.
        segment.read_ahead();
        let tables = state.keydir.tables();
        let mut progress = Progress {
            now: state.context.time.now(),
            keys: KeysCrc::default(),
            contribution: Contribution::default(),
            scratch: Scratch::default(),
            last: (SYSTEM_NAMESPACE, true),
        };
        let mut offsets = source.offsets.iter();
        for number in 0.. {
            // Key order jumps around the segment and the keydir, so memory is touched some time
            // before it is needed.
            let group: Vec<_> = offsets.by_ref().take(WARM_UP).collect();
            if group.is_empty() {
                break;
            }
            if number % PROGRESS_GROUPS == 0 {
                state.report_progress(self.progress, 0);
            }
            segment.prefetch(group.iter().copied());
            let mut entries = Vec::with_capacity(group.len());
            for offset in group {
                let Some(entry) = self.listed(source, offset, &mut progress)? else {
                    return Ok(None);
                };
                entries.push(entry);
            }
            // The slots, and then the records of the same keys, if there are any.
            for (_, hash, _) in &entries {
                tables.prefetch(*hash);
                state.keydir.prefetch_shard(*hash);
            }
            for location in entries.iter().filter_map(|(_, hash, _)| tables.first(*hash)) {
                if let Some(Some(other)) = state.segments.load(location.segment_index()).as_deref() {
                    other.prefetch([location.offset()]);
                }
            }
            for entry in &entries {
                self.enter(segment, entry, &mut progress)?;
            }
        }
        if source
            .keys_crc
            .is_some_and(|expected| expected != progress.keys.value())
            && !planted(Planted::TrustHint)
        {
            return Ok(None);
        }
        state.report_progress(self.progress, segment.data_end());
        Ok(Some(progress.contribution))
    }

    /// The record that a source lists at this offset. None if its hint does not point to a record;
    /// if the segment itself is at fault, the scan that follows will report it.
    fn listed(&self, source: &Source, offset: u64, progress: &mut Progress) -> Result<Option<Listed>> {
        let Progress { keys, scratch, .. } = progress;
        let [scratch, _] = scratch;
        let (state, segment) = (self.state, &source.segment);
        let fail = |error| Err(state.context.read_error(segment.id(), offset, error));
        let stored = match segment.stored(offset, scratch) {
            Ok(stored) => stored,
            Err(ReadError::Damage(_)) if source.is_hinted() => return Ok(None),
            Err(error) => return fail(error),
        };
        let record = match Record::parse(stored, segment.place(offset)) {
            Ok(record) if record.header.kind.has_key() => record,
            _ if source.is_hinted() => return Ok(None),
            Ok(_) => return fail(Damage::Field("record kind").into()),
            Err(damage) => return fail(damage.into()),
        };
        let header = record.header;
        if source.is_hinted() {
            keys.add(
                stored
                    .get(..header.header_len() + record.key().len())
                    .unwrap_or_default(),
            );
        }
        Ok(Some((offset, state.hash(header.namespace, record.key()), header)))
    }

    /// Enters a record, and adds to the contribution.
    fn enter(&self, segment: &Segment, (offset, hash, header): &Listed, progress: &mut Progress) -> Result<()> {
        let location = segment.location(*offset);
        let is_dropped = !progress.stands(header.namespace, self.names);
        if (is_dropped && !planted(Planted::LoadDropped))
            || (header.kind.is_tombstone() && planted(Planted::IgnoreTombstones))
        {
            self.dead.add(location);
            return Ok(());
        }
        match self.upsert(segment, location, *hash, &mut progress.scratch)? {
            Upsert::Inserted => {}
            Upsert::Replaced(_) | Upsert::Kept(_) if planted(Planted::ListReplaced) => {}
            Upsert::Replaced(older) => self.dead.add(older),
            // The same record, if a hint lists it twice.
            Upsert::Kept(newer) if newer == location => {}
            Upsert::Kept(_) => self.dead.add(location),
        }
        let (now, contribution) = (&progress.now, &mut progress.contribution);
        if let Some(expiry) = header.expiry.filter(|_| now.is_expired(header.expiry, header.sequence)) {
            segment.counters.note_expired(self.right, expiry);
            let expired = (expiry, header.record_len());
            contribution.shadows.push((*hash, location, Some(expired)));
            // A shadow hides older records until all are loaded, and is then removed.
            self.dead.add(location);
        } else if header.kind.is_tombstone() {
            contribution.shadows.push((*hash, location, None));
            self.dead.add(location);
        } else if let Some(expiry) = header.expiry.filter(|_| !planted(Planted::ForgetLoadedExpiry)) {
            contribution.expiring.push((expiry, location));
        }
        Ok(())
    }

    /// Points the keydir at this record, unless it points at a newer one of the same key.
    fn upsert(
        &self,
        segment: &Segment,
        location: Location,
        hash: u64,
        [scratch, other_scratch]: &mut Scratch,
    ) -> Result<Upsert> {
        let state = self.state;
        let fail = |segment: &Segment, location: Location, error| {
            state.context.read_error(segment.id(), location.offset(), error)
        };
        state.keydir.upsert(hash, location, |other| {
            let Some(other_segment) = state.segments.get(other.segment_index()) else {
                return Ok(Relation::OtherKey);
            };
            let record = segment
                .record(location.offset(), scratch)
                .map_err(|error| fail(segment, location, error))?;
            let other_record = other_segment
                .record(other.offset(), other_scratch)
                .map_err(|error| fail(&other_segment, other, error))?;
            let (header, other_header) = (record.header, other_record.header);
            Ok(
                if other_header.namespace != header.namespace || other_record.key() != record.key() {
                    Relation::OtherKey
                } else if other_header.sequence < header.sequence || planted(Planted::LoadInAnyOrder) {
                    Relation::SameKeyOlder
                } else {
                    Relation::SameKeyNewer
                },
            )
        })
    }
}

#[cfg(test)]
mod tests;
