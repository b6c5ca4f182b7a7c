//! Looking keys up, without a lock.

use std::convert::Infallible;

use super::glance::Glance;
use super::{Current, State};
use crate::clock::Now;
use crate::error::{Error, Result};
use crate::format::Damage;
use crate::format::record::{Header, Record};
use crate::index::keydir::Keydir;
use crate::index::namespaces::{NamespaceState, SYSTEM_NAMESPACE, decode_number};
use crate::index::order::KeyFlags;
use crate::location::Location;
use crate::planted::{Planted, planted};
use crate::segment::{ReadError, Segment, Value};
use crate::sync::yield_now;

/// Retries of a read that races with compaction. Each needs another segment to vanish in between,
/// so this many mean that index and log disagree.
const READ_ATTEMPTS_MAX: u32 = 10_000;

/// A key to look up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HashedKey<'a> {
    pub(crate) namespace: u32,
    pub(crate) key: &'a [u8],
    pub(crate) hash: u64,
}

/// Result of a look-up by hash.
#[derive(Debug)]
pub(crate) enum Lookup {
    Absent,
    Found(Location),
    /// No slot leads to a record of the key, and this one leads to a damaged record: of the key, or
    /// of another key whose hash has the same tag.
    Damaged(Location, Error),
}

impl<'a> HashedKey<'a> {
    /// Whether this is a record of the key.
    #[inline]
    pub(super) fn is_of(&self, record: &Record<'_>) -> bool {
        record.header.namespace == self.namespace && record.key() == self.key
    }
}

impl State {
    /// Has the processor load the slot that a write of this hash begins with, to be changed. For a
    /// caller that does something else before.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        self.keydir.prefetch(hash);
    }

    /// A key, with its hash.
    #[inline]
    pub(crate) fn hashed<'a>(&self, namespace: u32, key: &'a [u8]) -> HashedKey<'a> {
        let hash = self.hash(namespace, key);
        HashedKey { namespace, key, hash }
    }

    /// The newest value of the key, if it is there and has not expired.
    #[inline]
    pub(crate) fn get(&self, namespace: &NamespaceState, key: &[u8]) -> Result<Option<Value>> {
        self.get_hashed(&self.hashed(namespace.number, key), None)
    }

    /// As [`State::get`], with the hash known and perhaps the time.
    #[inline]
    pub(super) fn get_hashed(&self, key: &HashedKey<'_>, now: Option<&Now>) -> Result<Option<Value>> {
        if self.is_changing()
            && let Some(of_group) = self.find_in_group(key, u64::MAX)
        {
            return self.value_in_group(key, &of_group, now);
        }
        let read = |segment: &Segment, offset| segment.value(offset, |record| key.is_of(record)).ok().flatten();
        let found = match self.glance(key, read) {
            Glance::Absent => return Ok(None),
            Glance::Found(_, value) => Some(value),
            Glance::Unsure => self.find_record(key, |segment, offset, is_of| segment.value(offset, is_of))?,
        };
        Ok(self.unless_expired(found, now))
    }

    /// The value, unless it has expired now, or at this time.
    #[inline]
    pub(super) fn unless_expired(&self, found: Option<Value>, now: Option<&Now>) -> Option<Value> {
        let (expiry, sequence) = match &found {
            Some(value) if value.expiry_ms().is_some() => (value.expiry_ms(), value.sequence()),
            _ => return found,
        };
        let is_expired = |now: &Now| now.is_expired(expiry, sequence);
        let is_expired = now.map_or_else(|| is_expired(&self.context.time.now()), is_expired);
        found.filter(|_| !is_expired || planted(Planted::ShowExpired))
    }

    /// What `read` makes of the newest record of the key, expired or not. It is given places to
    /// read at, and a test whether a record there is the key's.
    pub(super) fn find_record<T>(
        &self,
        key: &HashedKey<'_>,
        mut read: impl FnMut(&Segment, u64, &mut dyn FnMut(&Record<'_>) -> bool) -> Result<Option<T>, ReadError>,
    ) -> Result<Option<T>> {
        let mut found = None;
        self.without_strangers(key, || {
            self.find(key.hash, |segment, offset| {
                let mut checked = Ok(false);
                found = read(segment, offset, &mut |record| {
                    checked = self.leads_to(key, record);
                    matches!(checked, Ok(true))
                })?;
                Ok(checked?)
            })
        })?;
        Ok(found)
    }

    /// Location and header of the newest record of the key, expired or not. The value is neither
    /// read nor checked.
    #[inline]
    pub(crate) fn find_header(&self, key: &HashedKey<'_>) -> Result<Option<(Location, Header)>> {
        if self.is_changing()
            && let Some(found) = self.find_in_group(key, u64::MAX)
        {
            let segment = found.segment();
            let mut scratch = Vec::new();
            let record = segment
                .record(found.offset(), &mut scratch)
                .map_err(|error| self.error_in_group(key, &found, error))?;
            let header = record.header;
            return Ok(header.kind.is_put().then(|| (segment.location(found.offset()), header)));
        }
        let mut header = None;
        let location = self.without_strangers(key, || {
            let (lookup, found) = self.look_up(key);
            header = found;
            lookup
        })?;
        Ok(location.zip(header))
    }

    /// As [`State::find_header`]; returns the header if the record was found.
    #[inline]
    pub(super) fn look_up(&self, key: &HashedKey<'_>) -> (Result<Lookup>, Option<Header>) {
        match self.glance_at_header(key) {
            Glance::Absent => (Ok(Lookup::Absent), None),
            Glance::Found(location, header) => (Ok(Lookup::Found(location)), Some(header)),
            Glance::Unsure => self.look_closer(key),
        }
    }

    #[inline]
    fn glance_at_header(&self, key: &HashedKey<'_>) -> Glance<Header> {
        self.glance(key, |segment, offset| {
            let record = segment.record_in_memory(offset)?;
            key.is_of(&record).then_some(record.header)
        })
    }

    #[cold]
    fn look_closer(&self, key: &HashedKey<'_>) -> (Result<Lookup>, Option<Header>) {
        let mut header = None;
        let mut scratch = Vec::new();
        let lookup = self.find(key.hash, |segment, offset| {
            let record = segment.record(offset, &mut scratch)?;
            let same = self.leads_to(key, &record)?;
            header = same.then_some(record.header);
            Ok(same)
        });
        (lookup, header)
    }

    /// The record that the keydir points at for a key, for a writer about to replace it. A damaged
    /// one is an error only if its content `matters`. Settles the key before. The caller holds the
    /// writer lock, and not the change lock.
    #[inline]
    pub(crate) fn current(&self, key: &HashedKey<'_>, matters: bool) -> Result<Option<Current>> {
        if self.is_changing() {
            self.settle_key(key)?;
        }
        self.standing(key, matters)
    }

    /// As [`State::current`], of the keydir alone: groups may have newer records.
    #[inline]
    pub(crate) fn standing(&self, key: &HashedKey<'_>, matters: bool) -> Result<Option<Current>> {
        match self.glance_at_header(key) {
            Glance::Absent => Ok(None),
            Glance::Found(location, header) => Ok(Some(Current::new(location, header))),
            Glance::Unsure => self.standing_closer(key, matters),
        }
    }

    #[cold]
    fn standing_closer(&self, key: &HashedKey<'_>, matters: bool) -> Result<Option<Current>> {
        let (lookup, header) = self.look_closer(key);
        match lookup? {
            Lookup::Absent => Ok(None),
            Lookup::Found(location) => Ok(header.map(|header| Current::new(location, header))),
            Lookup::Damaged(_, error) if planted(Planted::DamagedHeaderBlocks) => Err(error),
            Lookup::Damaged(location, error) => match self.flags_of(key) {
                // The slot belongs to another key; this one gets its own.
                None => Ok(None),
                Some(_) if matters => Err(error),
                Some(flags) => {
                    let segment = self.segments.get(location.segment_index());
                    let mut scratch = Vec::new();
                    // Perhaps only the key is damaged, and the header is sound.
                    let record = segment
                        .as_ref()
                        .and_then(|segment| segment.record(location.offset(), &mut scratch).ok());
                    let length = record.map_or(0, |record| record.header.record_len());
                    Ok(Some(Current::damaged(location, flags, length)))
                }
            },
        }
    }

    /// The value of the record that a writer has found for a key. The caller holds the writer lock,
    /// so neither the record nor its segment is replaced meanwhile.
    pub(crate) fn value_of(&self, key: &HashedKey<'_>, current: &Current) -> Result<Value> {
        let (index, offset) = (current.location.segment_index(), current.location.offset());
        let lost = || Error::damage(self.context.path(), 0, Damage::Mismatch("the index"));
        let segment = self.segments.get(index).ok_or_else(lost)?;
        match segment.value(offset, |record| key.is_of(record)) {
            Ok(value) => value.ok_or_else(lost),
            Err(error) => Err(self.context.read_error(segment.id(), offset, error).of_key(key.key)),
        }
    }

    /// Runs `look`, and returns damage as an error only if the damaged record is the key's own, not
    /// another key's. The error names the key. The calling thread must not hold the change lock.
    #[inline]
    fn without_strangers(
        &self,
        key: &HashedKey<'_>,
        mut look: impl FnMut() -> Result<Lookup>,
    ) -> Result<Option<Location>> {
        let mut lookup = look();
        if let Ok(Lookup::Damaged(..)) = lookup {
            if self.flags_of(key).is_none() || planted(Planted::DamageIsAbsence) {
                return Ok(None);
            }
            // A key that was absent may have been put between the two look-ups: then the damaged
            // record is another key's. While nothing changes, index and key order agree.
            let unchanging = self.lock_changes();
            lookup = look();
            let is_absent = matches!(lookup, Ok(Lookup::Damaged(..))) && self.flags_of(key).is_none();
            drop(unchanging);
            if is_absent {
                return Ok(None);
            }
        }
        let error = match lookup {
            Ok(Lookup::Absent) => return Ok(None),
            Ok(Lookup::Found(location)) => return Ok(Some(location)),
            Ok(Lookup::Damaged(_, error)) | Err(error) => error,
        };
        Err(match key.namespace {
            // Keys of the system namespace are numbers that mean nothing to users.
            SYSTEM_NAMESPACE => error,
            _ => error.of_key(key.key),
        })
    }

    /// The key order's flags of a key; None if the key is absent. Tells whose slot leads to a
    /// damaged record: if the key is present and has no other slot, the record is the key's. Costs
    /// a merge of the changes queued for the key order.
    fn flags_of(&self, key: &HashedKey<'_>) -> Option<KeyFlags> {
        if key.namespace == SYSTEM_NAMESPACE {
            let number = decode_number(key.key).ok()?;
            let state = self.namespaces.by_number(number)?;
            return (!state.is_dropped()).then_some(KeyFlags::NONE);
        }
        self.namespaces.by_number(key.namespace)?.order.flags(key.key)
    }

    /// Whether this record is of the key. Damage if it is of a key that the index would not have
    /// led here from: then the stored key is not the one written, and calling the key absent would
    /// hide that.
    fn leads_to(&self, key: &HashedKey<'_>, record: &Record<'_>) -> Result<bool, Damage> {
        if key.is_of(record) {
            return Ok(true);
        }
        let other = self.hash(record.header.namespace, record.key());
        if Keydir::same_slot(key.hash, other) {
            Ok(false)
        } else {
            Err(Damage::OtherKey)
        }
    }

    /// Finds the location that `confirm` accepts, and looks again when a segment is replaced
    /// meanwhile. An unreadable record hides no other key: other slots with the same tag are tried
    /// too.
    #[inline]
    pub(super) fn find(
        &self,
        hash: u64,
        mut confirm: impl FnMut(&Segment, u64) -> Result<bool, ReadError>,
    ) -> Result<Lookup> {
        let mut suspects: Vec<Location> = Vec::new();
        for attempt in 0..READ_ATTEMPTS_MAX {
            let mut is_gone = false;
            let mut failed: Vec<Failed> = Vec::new();
            let Ok(found) = self.keydir.find(hash, |location| {
                let answer = match self.segments.load(location.segment_index()).as_deref() {
                    Some(Some(segment)) => confirm(segment, location.offset()).unwrap_or_else(|error| {
                        failed.push((location, segment.id(), error));
                        false
                    }),
                    // The segment has been removed: look again.
                    _ => {
                        is_gone = true;
                        false
                    }
                };
                Ok::<_, Infallible>(answer)
            });
            if let Some(location) = found {
                return Ok(Lookup::Found(location));
            }
            if failed.is_empty() && !is_gone {
                return Ok(Lookup::Absent);
            }
            if !is_gone && let Some(answer) = self.believed(hash, failed, &mut suspects) {
                return answer;
            }
            if attempt > 100 {
                yield_now();
            }
        }
        Err(Error::damage(self.context.path(), 0, Damage::Mismatch("the index")))
    }

    /// The result of failed reads; None if they must be repeated, since what they read was replaced
    /// meanwhile.
    fn believed(&self, hash: u64, mut failed: Vec<Failed>, suspects: &mut Vec<Location>) -> Option<Result<Lookup>> {
        // Only records still in the index count as errors.
        let is_indexed = |(location, id, _): &Failed| {
            let segment = self.segments.get(location.segment_index());
            segment.is_some_and(|segment| segment.id() == *id) && self.keydir.holds(hash, *location)
        };
        if !failed.iter().all(is_indexed) {
            return None;
        }
        // A failed write may have been rolled back before the record was read, and another write
        // may have taken its place before the index was checked: so damage must be seen twice.
        let is_seen_twice = failed.iter().map(|(location, _, _)| location).eq(&*suspects);
        *suspects = failed.iter().map(|(location, _, _)| *location).collect();
        let is_failure = |(_, _, error): &Failed| matches!(error, ReadError::Io(_));
        let first = failed.iter().position(is_failure).or(is_seen_twice.then_some(0))?;
        let (location, id, error) = failed.swap_remove(first);
        let is_failure = matches!(error, ReadError::Io(_));
        let error = self.context.read_error(id, location.offset(), error);
        Some(if is_failure {
            Err(error)
        } else {
            Ok(Lookup::Damaged(location, error))
        })
    }
}

/// A location, the id of its segment, and why the record there could not be read.
type Failed = (Location, u64, ReadError);
