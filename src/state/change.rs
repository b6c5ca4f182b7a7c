//! The changes: each updates keydir, key order, expiry queue and live counters together.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::group::Group;
use super::{AppliedRecord, Current, Move, State, Undo, flags};
use crate::error::{Error, Result};
use crate::index::namespaces::{NamespaceState, SYSTEM_NAMESPACE};
use crate::index::order::Change;
use crate::planted::{Planted, planted};
use crate::segment::Segment;
use crate::sync::{ChangeRight, lock};

/// The hash index has no room for a record that is already in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Full;

impl State {
    /// An error if the hash index has no room for these new keys. Called before anything is
    /// appended.
    #[inline]
    pub(crate) fn check_room(&self, new: &[u64]) -> Result<()> {
        if self.keydir.has_room(new) {
            return Ok(());
        }
        Err(Error::invalid(
            "the hash index can hold no more keys; delete some, or split the store",
        ))
    }

    /// Applies one record, and adds to `undo` how to roll it back. [`Full`] cannot occur after
    /// [`State::check_room`].
    #[inline]
    pub(crate) fn apply(
        &self,
        right: &ChangeRight,
        record: &AppliedRecord<'_>,
        undo: &mut Vec<Undo>,
    ) -> Result<(), Full> {
        let (change, indexed) = self.index(right, record, undo);
        if let Some(change) = change {
            self.change_order(record.namespace, [change]);
        }
        indexed
    }

    /// Applies the records of a group, in order.
    pub(crate) fn apply_group<'a>(
        &self,
        right: &ChangeRight,
        group: Group,
        records: impl ExactSizeIterator<Item = AppliedRecord<'a>>,
        undo: &mut Vec<Undo>,
    ) -> Result<(), Full> {
        // The current record of each key that earlier records of this group have changed.
        let mut within: HashMap<(u32, &[u8]), Option<Current>> = HashMap::new();
        let mut changes: Vec<(&NamespaceState, Change<'_>)> = Vec::with_capacity(records.len());
        let mut all_indexed = Ok(());
        let group = Arc::new(group);
        let published = self.publish(right, &group);
        #[cfg(test)]
        self.call_between_steps();
        for (mut record, number) in records.zip(1..) {
            let key = (record.header.namespace, record.key);
            if let Some(made) = within.get(&key) {
                record.before = *made;
            }
            let (change, indexed) = self.index(right, &record, undo);
            all_indexed = all_indexed.and(indexed);
            changes.extend(change.map(|change| (record.namespace, change)));
            if group.repeats() && !planted(Planted::ForgetEarlierInBatch) {
                let location = record.segment.location(record.offset);
                let is_put = record.header.kind.is_put();
                within.insert(key, is_put.then(|| Current::new(location, *record.header)));
            }
            group.set_applied(number);
            #[cfg(test)]
            self.call_between_steps();
        }
        for together in changes.chunk_by(|(namespace, _), (next, _)| std::ptr::eq(*namespace, *next)) {
            if let Some((namespace, _)) = together.first() {
                self.change_order(namespace, together.iter().map(|(_, change)| *change));
            }
        }
        drop(published);
        all_indexed
    }

    /// Applies a record to everything but the key order, and returns the change that the order
    /// needs.
    #[inline]
    fn index<'a>(
        &self,
        right: &ChangeRight,
        record: &AppliedRecord<'a>,
        undo: &mut Vec<Undo>,
    ) -> (Option<Change<'a>>, Result<(), Full>) {
        let AppliedRecord {
            segment,
            header,
            hash,
            before,
            ..
        } = *record;
        let location = segment.location(record.offset);
        let length = header.record_len();
        let live = if header.kind.is_put() { length } else { 0 };
        let replaced = before.as_ref().map_or(0, Current::length);
        record.namespace.change_live_bytes(right, replaced, live);
        let previous = before.map(|current| current.location);
        undo.push(Undo {
            offset: record.offset,
            sequence: header.sequence,
            hash,
            previous: before,
        });
        if let Some(current) = &before {
            let leaves = (!header.kind.is_put()).then_some((record.namespace, record.key));
            self.keep(right, (hash, current), header.sequence, leaves);
            self.die(right, current, header.sequence.saturating_sub(1));
        }
        self.newest.store(header.sequence, Ordering::Relaxed);
        let mut indexed = Ok(());
        if header.kind.is_put() {
            segment.counters.add_put(right, length, header.sequence);
            segment.counters.add_live(right, 1, length);
            let replaced = previous.is_some_and(|previous| self.keydir.replace(hash, previous, location));
            if !replaced {
                indexed = self.keydir.insert(hash, location).map_err(|_| Full);
            }
            if let Some(expiry) = header.expiry {
                record.namespace.set_has_expiring();
                lock(&self.expiry).push(expiry, location);
            }
        } else {
            segment.counters.add_tombstone(right, length, header.sequence);
            if let Some(previous) = previous {
                self.keydir.remove(hash, previous);
            }
        }
        let before = before.as_ref().map(Current::flags);
        let after = header.kind.is_put().then(|| flags(header));
        let is_listed = after.is_some() || !planted(Planted::ListDeleted);
        let change = (before != after && is_listed).then(|| Change::of(record.key, after));
        if change.is_some() {
            record.namespace.note_order_change(right, header.sequence);
        }
        (change, indexed)
    }

    /// The keydir no longer points at this record: it is dead, and what hides it has a higher
    /// sequence than `after`.
    #[inline]
    pub(super) fn die(&self, right: &ChangeRight, record: &Current, after: u64) {
        if planted(Planted::ForgetDead) {
            return;
        }
        if let Some(Some(segment)) = self.segments.load(record.location.segment_index()).as_deref() {
            segment.counters.die(right, record.length(), after);
        }
    }

    /// Rolls back records of the active segment, the last one first, as one change.
    pub(crate) fn undo(&self, right: &ChangeRight, segment: &Segment, records: &[Undo]) {
        let _rolling_back = self.begin_roll_back();
        for undo in records.iter().rev() {
            self.roll_back(right, segment, undo);
        }
    }

    /// Rolls one record back. The previous entry is restored without reading its record, since this
    /// must not fail.
    fn roll_back(&self, right: &ChangeRight, segment: &Segment, undo: &Undo) {
        let mut scratch = Vec::new();
        // In the append buffer, as all pending records are.
        let Ok(record) = segment.record(undo.offset, &mut scratch) else {
            return;
        };
        let location = segment.location(undo.offset);
        let (header, key) = (record.header, record.key());
        let length = header.record_len();
        let put = header.kind.is_put();
        // It may have expired meanwhile, and left the indexes.
        let mut was_live = false;
        if let Some(previous) = undo.previous.filter(|_| !planted(Planted::RollBackToNothing)) {
            // In place if the new record is still indexed, so that no reader misses the key.
            was_live = put && self.keydir.replace(undo.hash, location, previous.location);
            if !was_live {
                // There is room: it was here before.
                let _ = self.keydir.insert(undo.hash, previous.location);
            }
            if let Some(before) = self.segments.get(previous.location.segment_index()) {
                before.counters.add_live(right, 1, previous.length());
            }
            if let Some(expiry) = previous.expiry() {
                // A sweep or a cleaning may have dropped the queue entry meanwhile, since nothing
                // pointed at it.
                lock(&self.expiry).push(expiry, previous.location);
            }
        } else if put {
            was_live = self.keydir.remove(undo.hash, location);
        }
        if was_live {
            segment.counters.remove_live(right, length);
        }
        if !planted(Planted::CountRolledBack) {
            segment.counters.roll_back(right, put, length);
        }
        if header.namespace != SYSTEM_NAMESPACE
            && let Some(namespace) = self.namespaces.by_number(header.namespace)
        {
            let replaced = undo.previous.as_ref().map_or(0, Current::length);
            namespace.change_live_bytes(right, if was_live { length } else { 0 }, replaced);
            let before = undo.previous.map(|previous| previous.flags());
            self.change_order(&namespace, [Change::of(key, before)]);
        }
    }

    /// Repoints index entries to the copies, skipping any that changed since.
    pub(crate) fn relocate(&self, right: &ChangeRight, moves: &[Move]) {
        for step in moves {
            if planted(Planted::MoveBlindly) && self.keydir.insert(step.hash, step.to).is_ok() {
                continue;
            }
            let to = self.segments.get(step.to.segment_index());
            if !self.keydir.replace(step.hash, step.from, step.to) {
                // Perhaps it had expired: then the copy waits out the grace period as the original
                // did.
                if let (Some(expiry), Some(to)) = (step.expiry, to)
                    && self.context.time.now().is_expired(step.expiry, step.sequence)
                    && !planted(Planted::ForgetCopiedExpired)
                {
                    to.counters.add_expired(right, expiry, step.length);
                }
                continue;
            }
            if let Some(from) = self.segments.get(step.from.segment_index()) {
                from.counters.remove_live(right, step.length);
            }
            if let Some(to) = to {
                let puts = 1 + u64::from(planted(Planted::CountMovedTwice));
                to.counters.add_live(right, puts, step.length);
            }
            if let Some(expiry) = step.expiry.filter(|_| !planted(Planted::ForgetMovedExpiry)) {
                lock(&self.expiry).push(expiry, step.to);
            }
        }
    }

    /// Passes changes to the key order.
    #[inline]
    fn change_order<'a>(&self, namespace: &NamespaceState, changes: impl IntoIterator<Item = Change<'a>>) {
        if namespace.number != SYSTEM_NAMESPACE {
            self.namespaces.change_order(namespace, changes);
        }
    }
}

#[cfg(test)]
mod tests;
