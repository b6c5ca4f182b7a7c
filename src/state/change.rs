//! The changes: each updates keydir, key order, expiry queue and live counters together.

use std::sync::Arc;

use super::group::{AT_ONCE_MAX, Group, GroupPlan};
use super::record::Undone;
use super::{AppliedRecord, Current, GroupRecord, Move, State, Undo, flags};
use crate::error::{Error, Result};
use crate::index::namespaces::{NamespaceState, SYSTEM_NAMESPACE};
use crate::index::order::{Change, KeyFlags};
use crate::planted::{Planted, planted};
use crate::segment::Segment;
use crate::sync::{ChangeRight, Ordering, lock};

impl State {
    /// An error if the hash index has no room for these new keys. Called before anything is
    /// appended.
    #[inline]
    pub(crate) fn check_room(&self, new: &[u64]) -> Result<()> {
        if self.keydir.has_room(new) {
            return Ok(());
        }
        // Perhaps only because of what is promised.
        if self.is_changing() {
            self.settle()?;
            if self.keydir.has_room(new) {
                return Ok(());
            }
        }
        Err(Error::invalid(
            "the hash index can hold no more keys; delete some, or split the store",
        ))
    }

    /// Keeps room in the hash index for a group of new keys until it is settled; false if there is
    /// not enough. The caller holds the writer lock, and passes the group on to
    /// [`State::apply_group`].
    pub(crate) fn promise_room(&self, plan: &GroupPlan) -> bool {
        plan.shares().is_some_and(|shares| self.keydir.promise(shares))
    }

    /// Applies one record, and adds to `undo` how to roll it back. The caller holds the writer
    /// lock.
    #[inline]
    pub(crate) fn apply(&self, record: &AppliedRecord<'_>, undo: &mut Vec<Undo>) {
        let right = self.lock_changes();
        undo.push(Undo::of_record(record));
        let flags = self.index(&right, record);
        self.newest.store(record.header.sequence, Ordering::Relaxed);
        if let Some(flags) = flags {
            self.change_order(record.namespace, [Change::of(record.key, flags)]);
        }
    }

    /// Publishes a group of these records, and adds to `undo` how to roll it back. Settles it if
    /// that is done before others write. The caller holds the writer lock.
    pub(crate) fn apply_group<'r>(
        &self,
        group: Group,
        records: impl Iterator<Item = GroupRecord<'r>>,
        undo: &mut Vec<Undo>,
    ) -> Result<()> {
        let right = self.lock_changes();
        let group = self.publish(&right, group);
        undo.push(Undo::of_group(group.clone()));
        #[cfg(test)]
        self.call_between_steps();
        if !group.is_settled_at_once() {
            return Ok(());
        }
        if group.len() <= AT_ONCE_MAX {
            return self.settle_newest(&right, &group, records);
        }
        // Only others that write wait for it, not those that look at several keys.
        drop(right);
        self.settle()
    }

    /// Applies a record to everything but the key order. Returns the key's new flags there, if they
    /// change.
    #[inline]
    pub(super) fn index(&self, right: &ChangeRight, record: &AppliedRecord<'_>) -> Option<Option<KeyFlags>> {
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
        let replaced = before.map_or(0, Current::length);
        record.namespace.change_live_bytes(right, replaced, live);
        let previous = before.map(|current| current.location);
        if let Some(current) = before {
            let leaves = (!header.kind.is_put()).then_some((record.namespace, record.key));
            self.keep(right, (hash, current), header.sequence, leaves);
            self.die(right, current, header.sequence.saturating_sub(1));
        }
        if header.kind.is_put() {
            segment.counters.add_put(right, length, header.sequence);
            segment.counters.add_live(right, 1, length);
            let replaced = previous.is_some_and(|previous| self.keydir.replace(hash, previous, location));
            if !replaced && self.keydir.insert(hash, location).is_err() {
                // Cannot happen: there was room before the append.
                self.overfull.store(true, Ordering::Relaxed);
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
        let before = before.map(Current::flags);
        let after = header.kind.is_put().then(|| flags(header));
        let is_listed = after.is_some() || !planted(Planted::ListDeleted);
        let is_changed = before != after && is_listed;
        if is_changed {
            record.namespace.note_order_change(right, header.sequence);
        }
        is_changed.then_some(after)
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

    /// Rolls back what was written to the active segment, the last first, as one change. The caller
    /// holds the writer lock.
    pub(crate) fn undo(&self, segment: &Segment, all: &[Undo]) {
        let right = self.lock_changes();
        let _rolling_back = self.begin_roll_back(&right);
        for undo in all.iter().rev() {
            match &undo.of {
                Undone::Record { hash, before } => {
                    self.roll_back_record(&right, segment, (undo.offset, *hash), *before);
                }
                Undone::Group(group) => self.roll_back_group(&right, segment, group),
            }
        }
    }

    /// Rolls one record back. The previous entry is restored without reading its record, since this
    /// must not fail.
    pub(super) fn roll_back_record(
        &self,
        right: &ChangeRight,
        segment: &Segment,
        (offset, hash): (u64, u64),
        before: Option<Current>,
    ) {
        let mut scratch = Vec::new();
        // In the append buffer, as all pending records are.
        let Ok(record) = segment.record(offset, &mut scratch) else {
            return;
        };
        let location = segment.location(offset);
        let (header, key) = (record.header, record.key());
        let length = header.record_len();
        let put = header.kind.is_put();
        // It may have expired meanwhile, and left the indexes.
        let mut was_live = false;
        if let Some(previous) = before.filter(|_| !planted(Planted::RollBackToNothing)) {
            // In place if the new record is still indexed, so that no reader misses the key.
            was_live = put && self.keydir.replace(hash, location, previous.location);
            if !was_live {
                // There is room: it was here before.
                let _ = self.keydir.insert(hash, previous.location);
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
            was_live = self.keydir.remove(hash, location);
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
            let replaced = before.as_ref().map_or(0, Current::length);
            namespace.change_live_bytes(right, if was_live { length } else { 0 }, replaced);
            let before = before.map(|previous| previous.flags());
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

    /// Puts the object of a segment that was cut in place of the old one. What was live in it still
    /// is.
    pub(crate) fn replace_cut(&self, right: &ChangeRight, old: &Segment, segment: Arc<Segment>) {
        segment.counters.set_live(right, &old.counters.get());
        self.segments.set(segment);
    }

    /// Passes changes to the key order.
    #[inline]
    pub(super) fn change_order<'a>(&self, namespace: &NamespaceState, changes: impl IntoIterator<Item = Change<'a>>) {
        if namespace.number != SYSTEM_NAMESPACE {
            self.namespaces.change_order(namespace, changes);
        }
    }
}

#[cfg(test)]
mod tests;
