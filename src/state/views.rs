//! Views: moments of the past that can still be read, and the records kept for them.
//!
//! A moment is a sequence S: a view of it shows each key as the newest record up to S left it. What
//! the keydir points at serves as long as it is that old. A record that leaves the keydir is kept
//! here, before it leaves, if a view needs it; so a reader that asks the keydir first, and then
//! here, misses nothing.
//!
//! Invariants:
//!
//! * **A view is registered under the change lock**, between two changes. So each later change has
//!   a higher sequence than its S, and each earlier one is in the keydir.
//! * **Kept before it leaves**: the functions of `change` and `leave` call [`State::keep`] before
//!   they take a location out of the keydir. A record is needed if a view's S is at or after its
//!   sequence, and before that of what replaced it.
//! * **Nothing else knows of what is kept**: no counter, no rule of compaction. It holds the segment
//!   objects that the records are in, and with them their maps or files, after compaction has
//!   removed them. A crash forgets all of it.
//! * **Records that move keep their sequence**, so compaction of a record that the keydir points at
//!   concerns no view.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Current, State};
use crate::index::namespaces::NamespaceState;
use crate::index::order::bounded::is_empty;
use crate::planted::{Planted, planted};
use crate::segment::Segment;
use crate::sync::ChangeRight;

/// Below this number of records it does not pay to look for those that no view needs.
const CLEANING_MIN: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Views {
    /// Sequence of the newest view plus one; 0 if there is none. What a writer looks at; stored
    /// under the lock of `inner`.
    newest_plus_one: AtomicU64,
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Number of views of each moment.
    moments: BTreeMap<u64, usize>,
    kept: Kept,
    /// Length of `kept` at which it is cleaned when a view ends.
    clean_at: usize,
}

/// The records.
#[derive(Debug, Default)]
struct Kept {
    /// By hash and sequence.
    records: BTreeMap<(u64, u64), Record>,
    /// Keys that have left the key order of their namespace, and the sequence of what removed them
    /// last.
    gone: BTreeMap<u32, BTreeMap<Box<[u8]>, u64>>,
    /// The segments that the records are in, by id.
    segments: HashMap<u64, Pin>,
}

/// A kept record.
#[derive(Clone, Copy, Debug)]
struct Record {
    /// Sequence of what replaced it.
    until: u64,
    segment_id: u64,
    offset: u64,
}

#[derive(Debug)]
struct Pin {
    segment: Arc<Segment>,
    records: usize,
}

/// What views hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Records that were replaced and are kept.
    pub(crate) records: u64,
    /// Memory for them, in bytes, estimated.
    pub(crate) memory_bytes: u64,
    /// Bytes of files of theirs that the store itself no longer needs.
    pub(crate) disk_bytes: u64,
}

impl Inner {
    /// Whether a view sees what was written at `from` and replaced at `until`.
    fn is_needed(&self, from: u64, until: u64) -> bool {
        from < until && self.moments.range(from..until).next().is_some()
    }

    /// Drops what no view needs, if that may be much. Returns it: freeing it takes long.
    fn clean(&mut self) -> Kept {
        if self.moments.is_empty() {
            self.clean_at = 0;
            return std::mem::take(&mut self.kept);
        }
        if self.kept.len() < self.clean_at.max(CLEANING_MIN) {
            return Kept::default();
        }
        let mut kept = std::mem::take(&mut self.kept);
        let mut released = Vec::new();
        kept.records.retain(|(_, from), record| {
            let needed = self.is_needed(*from, record.until);
            if !needed {
                released.push(record.segment_id);
            }
            needed
        });
        for id in released {
            kept.unpin(id);
        }
        let oldest = self.moments.keys().next().copied().unwrap_or(u64::MAX);
        kept.gone.retain(|_, keys| {
            keys.retain(|_, until| oldest < *until);
            !keys.is_empty()
        });
        self.clean_at = kept.len() * 2;
        self.kept = kept;
        Kept::default()
    }
}

impl Kept {
    fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether any record of this hash is kept.
    fn has(&self, hash: u64) -> bool {
        self.records.range((hash, 0)..=(hash, u64::MAX)).next().is_some()
    }

    fn insert(&mut self, hash: u64, from: u64, record: Record, segment: &Arc<Segment>) {
        let standing = self.records.insert((hash, from), record);
        // Rolled back and replaced again, it is the same record.
        if standing.is_none_or(|standing| standing.segment_id != record.segment_id) {
            self.pin(segment);
            if let Some(standing) = standing {
                self.unpin(standing.segment_id);
            }
        }
    }

    fn pin(&mut self, segment: &Arc<Segment>) {
        let pin = self.segments.entry(segment.id()).or_insert_with(|| {
            segment.hold_file(true);
            Pin {
                segment: segment.clone(),
                records: 0,
            }
        });
        pin.records += 1;
    }

    fn unpin(&mut self, id: u64) {
        let Some(pin) = self.segments.get_mut(&id) else { return };
        pin.records -= 1;
        if pin.records == 0
            && let Some(pin) = self.segments.remove(&id)
        {
            pin.segment.hold_file(false);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        for pin in self.segments.values() {
            pin.segment.hold_file(false);
        }
    }
}

impl Views {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores what writers look at.
    fn note_newest(&self, inner: &Inner) {
        let newest = inner.moments.keys().next_back().map_or(0, |sequence| sequence + 1);
        self.newest_plus_one.store(newest, Ordering::Relaxed);
    }

    /// Adds a view of this moment, the present one.
    pub(super) fn begin(&self, _: &ChangeRight, sequence: u64) {
        let mut inner = self.write();
        *inner.moments.entry(sequence).or_insert(0) += 1;
        self.note_newest(&inner);
    }

    /// Removes a view of this moment.
    pub(super) fn end(&self, sequence: u64) {
        let mut inner = self.write();
        if let Some(views) = inner.moments.get_mut(&sequence) {
            *views -= 1;
            if *views == 0 {
                inner.moments.remove(&sequence);
            }
        }
        self.note_newest(&inner);
        let released = inner.clean();
        drop(inner);
        drop(released);
    }

    /// Whether a view may see a record of this sequence. The caller holds the change lock.
    #[inline]
    fn may_see(&self, sequence: u64) -> bool {
        sequence < self.newest_plus_one.load(Ordering::Relaxed)
    }

    /// The kept records of keys with this hash that a view of this moment may see, the newest
    /// first, and their segments.
    pub(super) fn of_hash(&self, hash: u64, sequence: u64) -> Vec<(Arc<Segment>, u64)> {
        let inner = self.read();
        let records = inner.kept.records.range((hash, 0)..=(hash, sequence)).rev();
        let visible = records.filter(|(_, record)| sequence < record.until || planted(Planted::ForgetReplaced));
        let found = visible.filter_map(|(_, record)| {
            let pin = inner.kept.segments.get(&record.segment_id)?;
            Some((pin.segment.clone(), record.offset))
        });
        found.collect()
    }

    /// At most `limit` keys between the bounds that have left the key order of this namespace and
    /// that a view of this moment may see.
    pub(super) fn gone(
        &self,
        namespace: u32,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        (sequence, limit): (u64, usize),
    ) -> Vec<Box<[u8]>> {
        if is_empty(bounds) {
            return Vec::new();
        }
        let inner = self.read();
        let Some(keys) = inner.kept.gone.get(&namespace) else {
            return Vec::new();
        };
        let keys = keys.range::<[u8], _>(bounds);
        let seen = keys.filter(|(_, until)| sequence < **until);
        let seen = seen.map(|(key, _)| key.clone());
        if reverse {
            seen.rev().take(limit).collect()
        } else {
            seen.take(limit).collect()
        }
    }
}

impl State {
    /// Keeps the record that is about to leave the keydir, if a view needs it. It was written over
    /// at sequence `until`. `leaves` is the key if it leaves the key order, too.
    #[inline]
    pub(super) fn keep(
        &self,
        right: &ChangeRight,
        (hash, current): (u64, &Current),
        until: u64,
        leaves: Option<(&NamespaceState, &[u8])>,
    ) {
        let from = current.header().map_or(0, |header| header.sequence);
        // A key that leaves the key order may have been kept by an older record.
        let concerns_views = self.views.may_see(from) || (leaves.is_some() && self.has_views());
        if concerns_views && !planted(Planted::KeepNothing) {
            self.keep_for_views(right, (hash, current), (from, until), leaves);
        }
    }

    #[cold]
    fn keep_for_views(
        &self,
        _: &ChangeRight,
        (hash, current): (u64, &Current),
        (from, until): (u64, u64),
        leaves: Option<(&NamespaceState, &[u8])>,
    ) {
        let location = current.location;
        let Some(segment) = self.segments.get(location.segment_index()) else {
            return;
        };
        let mut inner = self.views.write();
        if inner.is_needed(from, until) {
            let record = Record {
                until,
                segment_id: segment.id(),
                offset: location.offset(),
            };
            inner.kept.insert(hash, from, record, &segment);
        }
        if let Some((namespace, key)) = leaves
            && inner.kept.has(hash)
        {
            let gone = inner.kept.gone.entry(namespace.number).or_default();
            gone.insert(key.into(), until);
        }
    }

    /// Whether there are views. The caller holds the change lock.
    #[inline]
    pub(super) fn has_views(&self) -> bool {
        self.views.may_see(0)
    }

    /// A sequence after that of every view and every record.
    pub(super) fn after_all_views(&self) -> u64 {
        let newest = self.newest.load(Ordering::Relaxed) + 1;
        newest.max(self.views.newest_plus_one.load(Ordering::Relaxed))
    }

    /// Replaces the object of a segment by another of the same segment.
    pub(crate) fn replace_segment(&self, segment: Arc<Segment>) {
        self.segments.set(segment.clone());
        if self.views.newest_plus_one.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut inner = self.views.write();
        if let Some(pin) = inner.kept.segments.get_mut(&segment.id()) {
            segment.hold_file(true);
            let old = std::mem::replace(&mut pin.segment, segment);
            drop(inner);
            old.hold_file(false);
        }
    }

    /// What views hold.
    pub(crate) fn held_by_views(&self) -> Held {
        /// Keys and values of two maps, and what their nodes leave unused.
        const RECORD_BYTES: u64 = 56;
        const GONE_BYTES: u64 = 64;
        let inner = self.views.read();
        let kept = &inner.kept;
        let gone = kept.gone.values().flatten();
        let is_removed = |segment: &Segment| {
            let standing = self.segments.get(segment.index());
            standing.is_none_or(|standing| standing.id() != segment.id())
        };
        let removed = kept.segments.values().filter(|pin| is_removed(&pin.segment));
        Held {
            records: kept.len() as u64,
            memory_bytes: kept.len() as u64 * RECORD_BYTES
                + gone.map(|(key, _)| key.len() as u64 + GONE_BYTES).sum::<u64>(),
            disk_bytes: removed.map(|pin| pin.segment.data_end()).sum(),
        }
    }
}
