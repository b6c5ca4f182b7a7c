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
//!   a higher sequence than its S, but for settling; and each earlier one is in the keydir, or in a
//!   group that is published.
//! * **Kept before it leaves**: the functions of `change` and `leave` call [`State::keep`] before
//!   they take a location out of the keydir. A record is needed if a view's S is at or after its
//!   sequence, and before that of what replaced it.
//! * **Nothing else knows of what is kept**: no counter, no rule of compaction. It holds the
//!   segment objects that the records are in, and with them their maps or files, after compaction
//!   has removed them. A crash forgets all of it.
//! * **Records that move keep their sequence**, so compaction of a record that the keydir points at
//!   concerns no view.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::kept::{KeptRecords, Record};
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

/// What is kept.
#[derive(Debug, Default)]
struct Kept {
    records: KeptRecords,
    /// Keys that have left the key order of their namespace, and the sequence of what removed them
    /// last.
    gone: BTreeMap<u32, BTreeMap<Box<[u8]>, u64>>,
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
        if self.kept.records.len() < self.clean_at.max(CLEANING_MIN) {
            return Kept::default();
        }
        let mut kept = std::mem::take(&mut self.kept);
        kept.records.retain(|record| self.is_needed(record.from, record.until));
        let oldest = self.moments.keys().next().copied().unwrap_or(u64::MAX);
        kept.gone.retain(|_, keys| {
            keys.retain(|_, until| oldest < *until);
            !keys.is_empty()
        });
        self.clean_at = kept.records.len() * 2;
        self.kept = kept;
        Kept::default()
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

    /// Segment and offset of the kept record of a key with this hash that a view of this moment
    /// sees. Keys may share a hash: `after` this many of them.
    pub(super) fn of_hash(&self, hash: u64, sequence: u64, after: usize) -> Option<(Arc<Segment>, u64)> {
        let is_visible =
            |record: &Record| record.from <= sequence && (sequence < record.until || planted(Planted::ForgetReplaced));
        self.read().kept.records.find(hash, is_visible, after)
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
            let offset = location.offset();
            inner.kept.records.insert(hash, (from, until), &segment, offset);
        }
        if let Some((namespace, key)) = leaves
            && inner.kept.records.has(hash)
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
        // What is settled meanwhile must not keep the old one.
        let _unchanging = self.lock_changes();
        self.segments.set(segment.clone());
        if self.views.newest_plus_one.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut inner = self.views.write();
        let old = inner.kept.records.replace_segment(&segment);
        drop(inner);
        if let Some(old) = old {
            old.hold_file(false);
        }
    }

    /// What views hold.
    pub(crate) fn held_by_views(&self) -> Held {
        /// What a map's nodes take for a key beside its bytes.
        const GONE_BYTES: u64 = 64;
        let inner = self.views.read();
        let kept = &inner.kept;
        let gone = kept.gone.values().flatten();
        let is_removed = |segment: &Segment| {
            let standing = self.segments.get(segment.index());
            standing.is_none_or(|standing| standing.id() != segment.id())
        };
        let removed = kept.records.segments().filter(|segment| is_removed(segment));
        Held {
            records: kept.records.len() as u64,
            memory_bytes: kept.records.memory_bytes() + gone.map(|(key, _)| key.len() as u64 + GONE_BYTES).sum::<u64>(),
            disk_bytes: removed.map(|segment| segment.data_end()).sum(),
        }
    }
}
