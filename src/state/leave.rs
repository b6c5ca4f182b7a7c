//! Keys that leave the indexes by themselves: they have expired, or their namespace was dropped.
//!
//! Their records may be cold, and reading one may take as long as the device does. So they are read
//! before the writer lock is taken; under it nothing is read from the device, unless a batch is
//! being settled that has replaced the record. What was read may be out of date by then:
//!
//! * **The key may have been written, or its record moved.** Then the keydir no longer points at
//!   the location that was read, and nothing is removed. A key of a dropped namespace stays in its
//!   key order, so that it is found again.
//! * **The location may lead to another record**, if the one that was read has been rolled back. A
//!   record of a sealed segment never is. One of a segment that still grows is in memory, and is
//!   read again under the lock. Nothing of a dropped namespace is rolled back: all of it was
//!   written out before the drop was, and it takes no writes since.
//! * **The segment may be another one**, since indexes of segments are used again. So ids are
//!   compared, too.
//! * **The clock may have been set back.** So whether a record has expired is decided under the
//!   lock, by a time that was read under it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::read::Lookup;
use super::{Current, HashedKey, State};
use crate::clock::Now;
use crate::error::Result;
use crate::format::record::Header;
use crate::index::expiry::Entry;
use crate::index::namespaces::{NamespaceState, SYSTEM_NAMESPACE};
use crate::index::order::Change;
use crate::location::Location;
use crate::planted::{Planted, planted};
use crate::segment::{ReadError, Segment};
use crate::sync::{ChangeRight, lock};

/// Delay before a record that could not be read is tried again.
pub(super) const RETRY_MS: u64 = 10_000;

/// A record from the expiry queue, as it was read.
pub(crate) struct Due {
    location: Location,
    found: Found,
}

/// What reading a record from the expiry queue has found.
enum Found {
    /// Nothing that could expire. Either the segment is gone, and the queue has another entry if
    /// the record was moved; or the record is damaged, and stays: a reader of its key must get an
    /// error.
    Nothing,
    /// The system failed the read.
    Unreadable,
    Record {
        segment_id: u64,
        /// Whether the segment was not sealed yet.
        grows: bool,
        header: Header,
        hash: u64,
        key: Box<[u8]>,
        /// None if the namespace was dropped and its keys have left.
        namespace: Option<Arc<NamespaceState>>,
    },
}

/// A key that has left the indexes since it expired.
#[derive(Debug)]
pub(crate) struct Expired {
    pub(crate) namespace: u32,
    pub(crate) key: Box<[u8]>,
    /// Sequence of the put.
    pub(crate) sequence: u64,
}

/// A key of a dropped namespace, and the record that the keydir points at for it.
pub(crate) struct Dropped<'a> {
    key: HashedKey<'a>,
    /// With the id of the segment; None if that is gone.
    current: Option<(Current, Option<u64>)>,
}

impl Due {
    pub(crate) fn location(&self) -> Location {
        self.location
    }
}

impl State {
    /// Reads the records of these entries, for [`State::expire`].
    pub(crate) fn read_due(&self, entries: &[Entry]) -> Vec<Due> {
        entries
            .iter()
            .map(|(_, location)| self.read_one_due(*location))
            .collect()
    }

    fn read_one_due(&self, location: Location) -> Due {
        // Borrowed: counting references would disturb readers of the segment.
        let segment = self.segments.load(location.segment_index());
        let segment = segment.as_ref().and_then(|segment| segment.as_deref());
        let found = segment.map_or(Found::Nothing, |segment| self.find_due(segment, location));
        Due { location, found }
    }

    fn find_due(&self, segment: &Segment, location: Location) -> Found {
        let mut scratch = Vec::new();
        let (header, key) = match segment.record(location.offset(), &mut scratch) {
            Ok(record) => (record.header, Box::from(record.key())),
            Err(ReadError::Damage(_)) => return Found::Nothing,
            Err(ReadError::Io(_)) => return Found::Unreadable,
        };
        if header.namespace == SYSTEM_NAMESPACE {
            return Found::Nothing;
        }
        let hash = self.hash(header.namespace, &key);
        // Only for the slot, so that it is in the processor's cache under the lock.
        std::hint::black_box(self.keydir.holds(hash, location));
        Found::Record {
            segment_id: segment.id(),
            grows: segment.summary.is_none(),
            header,
            hash,
            key,
            namespace: self.namespaces.by_number(header.namespace),
        }
    }

    /// Removes the key of this record from the indexes if the record has expired and is still the
    /// newest of its key. Otherwise returns the time to check again, if there is one.
    pub(crate) fn expire(&self, right: &ChangeRight, due: &Due, now: &Now) -> Option<u64> {
        let again;
        let mut found = &due.found;
        if let Found::Record { grows, .. } = found
            && (*grows && !planted(Planted::TrustRolledBack) || planted(Planted::ReadUnderLock))
        {
            again = self.read_one_due(due.location).found;
            found = &again;
        }
        let (segment_id, header, hash, key, namespace) = match found {
            Found::Nothing => return None,
            Found::Unreadable => return Some(now.wall_ms().saturating_add(RETRY_MS)),
            Found::Record {
                segment_id,
                header,
                hash,
                key,
                namespace,
                ..
            } => (Some(*segment_id), header, *hash, key, namespace),
        };
        if !now.is_expired(header.expiry, header.sequence) {
            return header.expiry;
        }
        if self.is_changing()
            && self
                .settle_key_at_once(
                    right,
                    &HashedKey {
                        namespace: header.namespace,
                        key,
                        hash,
                    },
                )
                .is_err()
        {
            return Some(now.wall_ms().saturating_add(RETRY_MS));
        }
        let (location, segment_id) = match planted(Planted::SweepBlindly) {
            true => match self.look_up(&self.hashed(header.namespace, key)).0 {
                Ok(Lookup::Found(newest)) => (newest, self.segment_id(newest)),
                _ => (due.location, segment_id),
            },
            false => (due.location, segment_id),
        };
        let segment = self.segments.load(location.segment_index())?;
        let segment = segment.as_deref().filter(|segment| Some(segment.id()) == segment_id)?;
        self.keep_leaving(right, &(hash, Current::new(location, *header)), || {
            namespace.as_deref().map(|namespace| (namespace, &**key))
        });
        self.note_leaving(right);
        if self.keydir.remove(hash, location) {
            let length = header.record_len();
            segment.counters.die(right, length, self.newest.load(Ordering::Relaxed));
            segment.counters.add_expired(right, header.expiry.unwrap_or(0), length);
            self.context.events.expired.fetch_add(1, Ordering::Relaxed);
            if let Some(list) = &mut *lock(&self.expired) {
                list.push(Expired {
                    namespace: header.namespace,
                    key: key.clone(),
                    sequence: header.sequence,
                });
            }
            if let Some(namespace) = namespace {
                namespace.change_live_bytes(right, length, 0);
                self.namespaces.change_order(namespace, [Change::Remove(key)]);
            }
        }
        None
    }

    /// Begins or ends to note what expires, for [`State::take_expired`].
    pub(crate) fn note_expired(&self, noted: bool) {
        *lock(&self.expired) = noted.then(Vec::new);
    }

    /// What has expired since the last call, if that is noted.
    pub(crate) fn take_expired(&self) -> Vec<Expired> {
        lock(&self.expired).as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Keeps a record for the views if it is about to leave: if the keydir points at it.
    fn keep_leaving<'a>(
        &self,
        right: &ChangeRight,
        (hash, current): &(u64, Current),
        leaves: impl Fn() -> Option<(&'a NamespaceState, &'a [u8])>,
    ) {
        if !self.has_views() || !self.keydir.holds(*hash, current.location) {
            return;
        }
        let leaves = leaves();
        // A dropped namespace is not seen since, and what has expired stays so.
        let dropped_at = leaves.and_then(|(namespace, _)| namespace.dropped_at());
        let until = dropped_at.unwrap_or_else(|| self.after_all_views());
        if let Some((namespace, _)) = leaves {
            namespace.note_order_change(right, until);
        }
        self.keep(right, (*hash, current), until, leaves);
    }

    /// The id of the segment at this location; None if it is gone.
    fn segment_id(&self, location: Location) -> Option<u64> {
        let segment = self.segments.load(location.segment_index())?;
        segment.as_deref().map(Segment::id)
    }

    /// Reads the record of a key of a dropped namespace, for [`State::remove_dropped`].
    pub(crate) fn read_dropped<'a>(&self, namespace: &NamespaceState, key: &'a [u8]) -> Result<Dropped<'a>> {
        let key = self.hashed(namespace.number, key);
        let current = self.current(&key, false)?;
        let current = current.map(|current| (current, self.segment_id(current.location)));
        Ok(Dropped { key, current })
    }

    /// Removes a key of a dropped namespace, unless its record has moved since it was read. The
    /// slot of a damaged record is removed too: no user can ask for it any more.
    pub(crate) fn remove_dropped(&self, right: &ChangeRight, namespace: &NamespaceState, dropped: &Dropped<'_>) {
        if planted(Planted::ReadUnderLock) {
            drop(self.look_up(&dropped.key));
        }
        if let Some((current, segment_id)) = &dropped.current {
            let location = current.location;
            let is_there = segment_id.is_some() && self.segment_id(location) == *segment_id;
            if is_there {
                let leaves = || Some((namespace, dropped.key.key));
                self.keep_leaving(right, &(dropped.key.hash, *current), leaves);
                self.note_leaving(right);
            }
            if is_there && self.keydir.remove(dropped.key.hash, location) {
                // The record that dropped the namespace came some time before.
                self.die(right, current, 0);
                if current.expiry().is_some() {
                    lock(&self.expiry).note_stale();
                }
            } else if !planted(Planted::ForgetMoved) {
                return;
            }
        }
        self.namespaces
            .change_order(namespace, [Change::Remove(dropped.key.key)]);
    }
}

#[cfg(test)]
mod tests;
