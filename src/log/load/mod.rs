//! Building the indexes from segments when a store is opened.
//!
//! Segments are read in parallel and in any order: the keydir keeps, of each key, the record with the highest sequence, of
//! whatever kind. When all are in, shadows (tombstones, and puts that have expired) are taken out again: they have done
//! their work. Then the sorted offsets of all segments are merged into the key orders, which is the part of `orders`.

mod orders;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::{Engine, WARM_UP};
use crate::error::{Error, Result};
use crate::format::hint::{Hint, Offsets};
use crate::format::record::{Kind, Record};
use crate::format::{Damage, hint_file};
use crate::index::expiry::ExpiryQueue;
use crate::index::keydir::{Keydir, Relation};
use crate::index::namespaces::{SYSTEM_NAMESPACE, decode_entry};
use crate::location::Location;
use crate::options::Progress;
use crate::parallel::in_parallel;
use crate::planted::{Planted, planted};
use crate::segment::{ReadError, Segment};
use crate::sync::lock;

/// Groups of [`WARM_UP`] records after which progress is reported.
const PROGRESS_GROUPS: usize = 16;

/// A segment and its records in key order.
pub(super) struct Source {
    pub(super) segment: Arc<Segment>,
    offsets: Offsets,
    /// What the hint says of headers and keys; None if the offsets were made from the segment just now.
    keys_crc: Option<u32>,
}

/// What was found while loading.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) keys: u64,
    pub(super) hints_used: u64,
    /// Segments whose hints were missing or did not fit.
    pub(super) scanned: Vec<u64>,
}

/// Expiry and bytes of a put that has expired.
type Expired = (u64, u64);

/// What one segment contributes.
#[derive(Default)]
struct Contribution {
    /// Of each listed record.
    hashes: Vec<u64>,
    /// Tombstones and expired puts, with expiry and bytes of the latter.
    shadows: Vec<(u64, Location, Option<Expired>)>,
    /// Puts that will expire.
    expiring: Vec<(u64, Location)>,
}

impl Loaded {
    /// Nothing was read of the segments.
    pub(super) fn of_index_file(keys: u64) -> Loaded {
        Loaded {
            keys,
            ..Loaded::default()
        }
    }
}

impl Source {
    /// The offsets of a segment that was scanned.
    pub(super) fn scanned(segment: Arc<Segment>, offsets: Offsets) -> Source {
        Source {
            segment,
            offsets,
            keys_crc: None,
        }
    }
}

impl Engine {
    /// Fills the indexes. `known` are sources that need no hint.
    pub(super) fn load(&mut self, segments: &[Arc<Segment>], known: Vec<Source>) -> Result<Loaded> {
        let total_bytes = segments.iter().map(|segment| segment.data_end()).sum();
        let progress = LoadProgress {
            done: AtomicU64::new(0),
            total_bytes,
        };
        let mut distrusted = Vec::new();
        let mut known: HashMap<u64, Source> = known.into_iter().map(|source| (source.segment.id(), source)).collect();
        loop {
            let kept = std::mem::take(&mut known);
            let sources = self.sources(segments, kept, &distrusted)?;
            self.keydir = Keydir::with_capacity(sources.iter().map(|source| source.offsets.len()).sum());
            *lock(&self.expiry) = ExpiryQueue::default();
            let mut wrong_hints = Vec::new();
            let mut contributions = Vec::new();
            let names = self.load_names(&sources, &mut wrong_hints)?;
            if wrong_hints.is_empty() {
                let results = in_parallel(&sources, |source| self.load_segment(source, &names, &progress))?;
                for (source, result) in sources.iter().zip(results) {
                    match result {
                        Some(contribution) => contributions.push(contribution),
                        None => wrong_hints.push(source.segment.id()),
                    }
                }
            }
            if !wrong_hints.is_empty() {
                // A hint that lists other keys than the segment has: begin again without it.
                distrusted.extend(wrong_hints);
                known = sources
                    .into_iter()
                    .filter(|source| source.keys_crc.is_none())
                    .map(|source| (source.segment.id(), source))
                    .collect();
                progress.done.store(0, Ordering::Relaxed);
                continue;
            }
            for (hash, location, expired) in contributions.iter().flat_map(|contribution| &contribution.shadows) {
                if self.keydir.remove(*hash, *location)
                    && let Some((expiry, bytes)) = expired
                    && let Some(segment) = self.segments.get(location.segment_index())
                {
                    segment.counters.add_expired(*expiry, *bytes);
                }
            }
            let mut queue = lock(&self.expiry);
            for (expiry, location) in contributions.iter().flat_map(|contribution| &contribution.expiring) {
                queue.push(*expiry, *location);
            }
            drop(queue);
            self.load_orders(&sources, &contributions, names)?;
            let scanned = sources
                .iter()
                .filter(|source| source.keys_crc.is_none())
                .map(|source| source.segment.id());
            return Ok(Loaded {
                keys: self.keydir.len(),
                hints_used: sources.iter().filter(|source| source.keys_crc.is_some()).count() as u64,
                scanned: scanned.collect(),
            });
        }
    }

    /// Finds the key order of each segment: known already, from its hint, or by scanning it.
    fn sources(
        &self,
        segments: &[Arc<Segment>],
        known: HashMap<u64, Source>,
        distrusted: &[u64],
    ) -> Result<Vec<Source>> {
        let known = Mutex::new(known);
        in_parallel(segments, |segment| {
            if let Some(source) = lock(&known).remove(&segment.id()) {
                return Ok(source);
            }
            if !distrusted.contains(&segment.id())
                && let Some(hint) = self.read_hint(segment)?
            {
                return Ok(Source {
                    segment: segment.clone(),
                    keys_crc: Some(hint.keys_crc),
                    offsets: hint.offsets,
                });
            }
            self.scan(segment)
        })
    }

    /// The hint of a segment; None if it is missing, damaged, or another segment's.
    pub(in crate::log) fn read_hint(&self, segment: &Segment) -> Result<Option<Hint>> {
        let name = hint_file(segment.id());
        let Some(summary) = segment.summary else {
            return Ok(None);
        };
        let bytes = match self.context.directory.read(&name, Hint::len_max(&summary)) {
            Ok(bytes) => bytes,
            Err(error) => match error.kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => {
                    return Ok(None);
                }
                _ => return Err(Error::io("read", &self.context.directory.path_of(&name), error)),
            },
        };
        Ok(Hint::decode(&bytes).ok().filter(|hint| {
            planted(Planted::TrustHint)
                || hint.store_id == segment.header.store_id
                    && hint.segment_id == segment.id()
                    && hint.data_end == summary.data_end
                    && hint.records_crc == summary.records_crc
        }))
    }

    /// Reads a whole segment that no longer grows, everything in it checked.
    fn scan(&self, segment: &Arc<Segment>) -> Result<Source> {
        let (offsets, _) = self.sort_records(segment)?;
        Ok(Source::scanned(segment.clone(), offsets))
    }

    /// The namespaces that exist: of each number the newest record counts. Hints that lead to no record are added to
    /// `wrong_hints`; if the segment itself is at fault, the scan that follows will say so.
    fn load_names(&self, sources: &[Source], wrong_hints: &mut Vec<u64>) -> Result<HashMap<u32, (u128, String)>> {
        let mut newest: HashMap<u32, (u64, Option<(u128, String)>)> = HashMap::new();
        for source in sources {
            let mut scratch = Vec::new();
            for offset in source.offsets.iter() {
                match read_name(&source.segment, offset, &mut scratch) {
                    Ok(Some((number, sequence, entry))) => {
                        let known = newest.entry(number).or_default();
                        if sequence >= known.0 || planted(Planted::NameInAnyOrder) {
                            *known = (sequence, entry);
                        }
                    }
                    Ok(None) => break,
                    Err(ReadError::Damage(_)) if source.keys_crc.is_some() => {
                        wrong_hints.push(source.segment.id());
                        break;
                    }
                    Err(error) => return Err(self.context.read_error(source.segment.id(), offset, error)),
                }
            }
        }
        let highest = newest.keys().max().copied().unwrap_or(0);
        self.next_namespace
            .fetch_max(highest.saturating_add(1), Ordering::AcqRel);
        Ok(newest
            .into_iter()
            .filter_map(|(number, (_, entry))| Some((number, entry?)))
            .collect())
    }

    /// Enters the records of one segment into the keydir. None if its hint turns out to be of other keys.
    fn load_segment(
        &self,
        source: &Source,
        names: &HashMap<u32, (u128, String)>,
        progress: &LoadProgress,
    ) -> Result<Option<Contribution>> {
        let segment = &source.segment;
        // The order of keys leads all over the segment.
        segment.read_ahead();
        let now = self.context.time.now();
        let mut contribution = Contribution {
            hashes: Vec::with_capacity(source.offsets.len()),
            ..Contribution::default()
        };
        let mut keys = crate::segment::scan::KeysCrc::default();
        let (mut scratch, mut other_scratch) = (Vec::new(), Vec::new());
        let mut offsets = source.offsets.iter();
        for number in 0.. {
            // The order of keys leads all over the segment and the keydir; so what is needed is touched some time before.
            let group: Vec<_> = offsets.by_ref().take(WARM_UP).collect();
            if group.is_empty() {
                break;
            }
            if number % PROGRESS_GROUPS == 0 {
                self.report_progress(progress, 0);
            }
            segment.touch_all(&group);
            let mut entries = Vec::with_capacity(group.len());
            for offset in group {
                let stored = match segment.stored(offset, &mut scratch) {
                    Ok(stored) => stored,
                    Err(ReadError::Damage(_)) if source.keys_crc.is_some() => return Ok(None),
                    Err(error) => return Err(self.context.read_error(segment.id(), offset, error)),
                };
                let record = match Record::parse(stored, segment.place(offset)) {
                    Ok(record) if record.header.kind.has_key() => record,
                    // If the segment itself is at fault, the scan that follows will say so.
                    _ if source.keys_crc.is_some() => return Ok(None),
                    Ok(_) => {
                        return Err(self
                            .context
                            .read_error(segment.id(), offset, Damage::Field("record kind").into()));
                    }
                    Err(damage) => return Err(self.context.read_error(segment.id(), offset, damage.into())),
                };
                let header = record.header;
                if source.keys_crc.is_some() {
                    keys.add(stored.get(..header.header_len()).unwrap_or_default(), record.key());
                }
                let hash = self.hash(header.namespace, record.key());
                contribution.hashes.push(hash);
                entries.push((offset, hash, header));
            }
            let hashes: Vec<_> = entries.iter().map(|(_, hash, _)| *hash).collect();
            self.warm_up(&hashes);
            for (offset, hash, header) in entries {
                let is_dropped = header.namespace != SYSTEM_NAMESPACE && !names.contains_key(&header.namespace);
                if is_dropped && !planted(Planted::LoadDropped) {
                    continue;
                }
                if header.kind == Kind::Tombstone && planted(Planted::IgnoreTombstones) {
                    continue;
                }
                let location = segment.location(offset);
                self.enter(segment, location, hash, [&mut scratch, &mut other_scratch])?;
                if let Some(expiry) = header.expiry.filter(|_| now.is_expired(header.expiry, header.sequence)) {
                    segment.counters.note_expired(expiry);
                    let expired = (expiry, header.record_len());
                    contribution.shadows.push((hash, location, Some(expired)));
                } else if header.kind == Kind::Tombstone {
                    contribution.shadows.push((hash, location, None));
                } else if let Some(expiry) = header.expiry.filter(|_| !planted(Planted::ForgetLoadedExpiry)) {
                    contribution.expiring.push((expiry, location));
                }
            }
        }
        if source.keys_crc.is_some_and(|expected| expected != keys.value()) && !planted(Planted::TrustHint) {
            return Ok(None);
        }
        self.report_progress(progress, segment.data_end());
        Ok(Some(contribution))
    }

    /// Enters the record at this location into the keydir, unless a newer one of its key is there.
    fn enter(
        &self,
        segment: &Segment,
        location: Location,
        hash: u64,
        [scratch, other_scratch]: [&mut Vec<u8>; 2],
    ) -> Result<()> {
        let fail = |segment: &Segment, location: Location, error| {
            self.context.read_error(segment.id(), location.offset(), error)
        };
        let _ = self.keydir.upsert(hash, location, |other| {
            let Some(other_segment) = self.segments.get(other.segment_index()) else {
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
        })?;
        Ok(())
    }

    fn report_progress(&self, progress: &LoadProgress, bytes: u64) {
        let done_bytes = progress.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(callback) = &self.context.options.progress {
            callback(Progress {
                done_bytes,
                total_bytes: progress.total_bytes,
            });
        }
    }
}

/// Number, sequence, and stable id and name of a namespace that is put; None behind the store's own keyspace, which
/// comes first in the order of the keys.
type Named = Option<(u32, u64, Option<(u128, String)>)>;

fn read_name(segment: &Segment, offset: u64, scratch: &mut Vec<u8>) -> Result<Named, ReadError> {
    let record = segment.record(offset, scratch)?;
    if record.header.namespace != SYSTEM_NAMESPACE {
        return Ok(None);
    }
    record.check_body()?;
    let (number, entry) = match record.header.kind {
        Kind::Put => {
            let (number, id, name) = decode_entry(record.key(), record.value())?;
            (number, Some((id, name.to_owned())))
        }
        _ => {
            let key = record.key().try_into();
            let key = key.map_err(|_| Damage::Field("namespace record"))?;
            (u32::from_be_bytes(key), None)
        }
    };
    Ok(Some((number, record.header.sequence, entry)))
}

struct LoadProgress {
    done: AtomicU64,
    total_bytes: u64,
}
