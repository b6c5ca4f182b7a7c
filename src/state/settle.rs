//! Settling: a published group enters the keydir, the key orders, the expiry queue and the
//! counters.
//!
//! Small groups are settled at once, under the writer lock. Large ones are settled by the thread
//! that wrote them, after it has released that lock, in steps of some records under the change
//! lock. Meanwhile others write, move and remove records. Invariants:
//!
//! * **A key is settled before it is written or expires**, the oldest of its records first. So a
//!   writer decides by the newest, and what a record replaced is known when it is settled.
//! * **A segment is sealed after everything in it is settled.** So compaction only sees records
//!   that are in the indexes, or have been.
//! * **A namespace is dropped after everything in it is settled.**
//! * **Any thread can go on with it**, so nothing depends on the one that began. A record
//!   that cannot be settled, since the device fails to read what it replaced, stays in its group,
//!   where readers find it, and is tried again.

use std::collections::HashMap;
use std::sync::Arc;

use super::group::Group;
use super::{AppliedRecord, Current, GroupRecord, HashedKey, State};
use crate::error::{Error, Result};
use crate::format::Damage;
use crate::format::record::Header;
use crate::index::namespaces::NamespaceState;
use crate::index::order::Change;
use crate::planted::{Planted, planted};
use crate::segment::Segment;
use crate::sync::{ChangeRight, Ordering, lock};

/// Records settled per hold of the change lock.
const STEP: usize = if cfg!(test) { 3 } else { 64 };

/// How often the change lock is offered to those that wait for it, between two steps.
const OFFERS_MAX: usize = 100;

/// Namespaces by number; None if they are no longer known.
type NamespacesSeen = HashMap<u32, Option<Arc<NamespaceState>>>;

impl State {
    /// Settles all groups that were published before this call. The calling thread must not hold
    /// the change lock.
    ///
    /// An error if what a record replaced could not be read; all others are settled then.
    pub(crate) fn settle(&self) -> Result<()> {
        let settled = self.settle_in_turns();
        self.free_withdrawn();
        settled
    }

    fn settle_in_turns(&self) -> Result<()> {
        let Some(newest) = self.group.load_full() else {
            return Ok(());
        };
        let mut failed = None;
        // Groups up to this sequence have been tried.
        let mut tried = 0;
        loop {
            let right = self.lock_changes();
            let oldest = self.oldest_unsettled(&right, tried);
            let Some(group) = oldest.filter(|group| group.begin().1 <= newest.last_sequence()) else {
                return failed.map_or(Ok(()), Err);
            };
            let (done, is_end) = self.settle_some(&right, &group);
            drop(right);
            failed = failed.or(done.err());
            if is_end && failed.is_some() {
                tried = group.last_sequence();
            }
            #[cfg(test)]
            self.call_between_turns();
            let mut offers = 0;
            while self.changes.is_wanted() && offers < OFFERS_MAX {
                offers += 1;
                std::thread::yield_now();
            }
        }
    }

    /// The same, under the change lock.
    pub(super) fn settle_all(&self, right: &ChangeRight) -> Result<()> {
        let (mut settled, mut tried) = (Ok(()), 0);
        while let Some(group) = self.oldest_unsettled(right, tried) {
            tried = group.last_sequence();
            settled = settled.and(self.settle_range(right, &group, 0..group.len()));
        }
        settled
    }

    /// Settles this group of these records, which has just been published, is small, and of which
    /// it is certain what they replace.
    pub(super) fn settle_newest<'r>(
        &self,
        right: &ChangeRight,
        group: &Group,
        records: impl Iterator<Item = GroupRecord<'r>>,
    ) -> Result<()> {
        let settled = if group.repeats() {
            self.settle_range(right, group, 0..group.len())
        } else {
            self.settle_known(right, group, records);
            Ok(())
        };
        self.withdraw_settled(right);
        settled
    }

    /// The newest sequence up to which everything is settled, of records up to `newest`. The caller
    /// holds the writer lock.
    pub(crate) fn settled_up_to(&self, newest: u64) -> u64 {
        let right = self.lock_changes();
        let oldest = self.oldest_unsettled(&right, 0);
        oldest.map_or(newest, |group| newest.min(group.begin().1 - 1))
    }

    /// The oldest group that is not settled, of those that begin after this sequence.
    fn oldest_unsettled(&self, right: &ChangeRight, after: u64) -> Option<Arc<Group>> {
        self.withdraw_settled(right);
        let mut oldest = self.group.load_full().filter(|group| group.begin().1 > after)?;
        while let Some(older) = oldest.older().filter(|group| group.begin().1 > after) {
            oldest = older;
        }
        Some(oldest)
    }

    /// Settles some records of a group. Returns whether its end was reached.
    fn settle_some(&self, right: &ChangeRight, group: &Group) -> (Result<()>, bool) {
        let begin = group.next.load(Ordering::Relaxed);
        let end = group.len().min(begin + STEP);
        let is_end = end == group.len();
        let settled = self.settle_range(right, group, begin..end);
        group.next.store(if is_end { 0 } else { end }, Ordering::Relaxed);
        self.withdraw_settled(right);
        (settled, is_end)
    }

    /// Settles these records, in order; those that cannot be are left.
    fn settle_range(
        &self,
        right: &ChangeRight,
        group: &Group,
        numbers: impl ExactSizeIterator<Item = usize>,
    ) -> Result<()> {
        let mut settled = Ok(());
        let mut namespaces = HashMap::new();
        let mut scratches = vec![Vec::new(); numbers.len()];
        let mut changes = Vec::with_capacity(numbers.len());
        for (number, scratch) in numbers.zip(&mut scratches) {
            if group.is_settled(number) {
                continue;
            }
            match self.settle_one(right, group, number, (&mut namespaces, scratch)) {
                Ok(change) => changes.extend(change),
                Err(error) => settled = settled.and(Err(error)),
            }
            if group.repeats() {
                // The next record of the same key is compared with the order.
                self.change_orders(&namespaces, &mut changes);
            }
            #[cfg(test)]
            self.call_between_steps();
        }
        self.change_orders(&namespaces, &mut changes);
        settled
    }

    /// As [`State::settle_range`], of a whole group of different keys, without reading its records.
    /// Its writer has settled its keys in older groups.
    fn settle_known<'r>(&self, right: &ChangeRight, group: &Group, records: impl Iterator<Item = GroupRecord<'r>>) {
        let mut changes = Vec::with_capacity(group.len());
        let befores = lock(&group.befores);
        for ((number, record), before) in records.enumerate().zip(&befores.found) {
            let Some((offset, hash)) = group.place(number) else {
                break;
            };
            let GroupRecord { header, namespace, key } = record;
            let applied = AppliedRecord {
                segment: group.segment(),
                offset,
                header,
                namespace,
                key,
                hash,
                before: before.as_ref(),
            };
            let flags = self.index(right, &applied);
            group.set_settled(right, number);
            changes.extend(flags.map(|flags| (namespace, Change::of(key, flags))));
            #[cfg(test)]
            self.call_between_steps();
        }
        for together in changes.chunk_by(|(namespace, _), (next, _)| std::ptr::eq(*namespace, *next)) {
            if let Some((namespace, _)) = together.first() {
                self.change_order(namespace, together.iter().map(|(_, change)| *change));
            }
        }
    }

    /// Settles a record, but for the change of the key order, which it returns.
    fn settle_one<'s>(
        &self,
        right: &ChangeRight,
        group: &'s Group,
        number: usize,
        (namespaces, scratch): (&mut NamespacesSeen, &'s mut Vec<u8>),
    ) -> Result<Option<(u32, Change<'s>)>> {
        let segment = group.segment();
        let lost = || Error::damage(self.context.path(), 0, Damage::Mismatch("the index"));
        let (offset, hash) = group.place(number).ok_or_else(lost)?;
        let record = segment
            .record(offset, scratch)
            .map_err(|error| self.context.read_error(segment.id(), offset, error))?;
        let (header, key) = (record.header, record.key());
        let hashed = HashedKey {
            namespace: header.namespace,
            key,
            hash,
        };
        if let Some(older) = group.older() {
            self.settle_key_in(right, &older, &hashed)?;
        }
        if group.repeats() {
            // Those that could not be settled before.
            self.settle_in(right, group, &hashed, number)?;
        }
        let namespace = namespaces
            .entry(header.namespace)
            .or_insert_with(|| self.namespaces.by_number(header.namespace));
        let Some(namespace) = namespace else {
            // It was dropped, and its keys have left.
            self.count_dead(right, segment, &header);
            group.set_settled(right, number);
            return Ok(None);
        };
        let before = self.before(group, number, &hashed)?;
        let applied = AppliedRecord {
            segment,
            offset,
            header: &header,
            namespace,
            key,
            hash,
            before: before.as_ref(),
        };
        let flags = self.index(right, &applied);
        group.set_settled(right, number);
        Ok(flags.map(|flags| (header.namespace, Change::of(key, flags))))
    }

    /// What the keydir points at before this record is settled; noted, so that it can be rolled
    /// back to.
    fn before(&self, group: &Group, number: usize, key: &HashedKey<'_>) -> Result<Option<Current>> {
        let befores = lock(&group.befores);
        let noted = befores.found.get(number).copied().flatten();
        // If no location was given to other records since, it is enough that the keydir has it.
        let is_same_place = befores.moved == self.moved();
        drop(befores);
        let is_there = |current: &Current| is_same_place && self.keydir.holds(key.hash, current.location);
        let before = match noted {
            Some(current) if is_there(&current) => Some(current),
            before if planted(Planted::ForgetEarlierInBatch) => before,
            _ => self.standing(key, false)?,
        };
        if let Some(noted) = lock(&group.befores).found.get_mut(number) {
            *noted = before;
        }
        Ok(before)
    }

    /// A record that enters no index is dead from the beginning.
    fn count_dead(&self, right: &ChangeRight, segment: &Segment, header: &Header) {
        let length = header.record_len();
        if header.kind.is_put() {
            segment.counters.add_put(right, length, header.sequence);
            segment.counters.add_live(right, 1, length);
            segment.counters.die(right, length, 0);
        } else {
            segment.counters.add_tombstone(right, length, header.sequence);
        }
    }

    /// Settles the records of this key in all groups. The calling thread must not hold the change
    /// lock.
    #[cold]
    pub(super) fn settle_key(&self, key: &HashedKey<'_>) -> Result<()> {
        let right = self.lock_changes();
        self.settle_key_at_once(&right, key)
    }

    /// The same, under the change lock.
    #[cold]
    pub(super) fn settle_key_at_once(&self, right: &ChangeRight, key: &HashedKey<'_>) -> Result<()> {
        let Some(newest) = self.group.load_full().filter(|_| !planted(Planted::WriteBeforeSettled)) else {
            return Ok(());
        };
        self.settle_key_in(right, &newest, key)?;
        self.withdraw_settled(right);
        Ok(())
    }

    /// Settles the records of this key in this group and older ones.
    fn settle_key_in(&self, right: &ChangeRight, group: &Group, key: &HashedKey<'_>) -> Result<()> {
        if let Some(older) = group.older() {
            self.settle_key_in(right, &older, key)?;
        }
        self.settle_in(right, group, key, group.len())
    }

    /// Settles the records of this key in this group before that of a number.
    fn settle_in(&self, right: &ChangeRight, group: &Group, key: &HashedKey<'_>, before: usize) -> Result<()> {
        let is_left = |(number, offset): &(usize, u64)| {
            *number < before && !group.is_settled(*number) && group.is_of(key, *offset)
        };
        let left: Vec<_> = group.of_hash(key.hash).filter(is_left).collect();
        if left.is_empty() {
            return Ok(());
        }
        self.settle_range(right, group, left.into_iter().map(|(number, _)| number))
    }

    /// Rolls back a group: what is settled of it, newest first.
    pub(super) fn roll_back_group(&self, right: &ChangeRight, segment: &Segment, group: &Arc<Group>) {
        let befores = std::mem::take(&mut lock(&group.befores).found);
        for (number, before) in befores.into_iter().enumerate().rev() {
            if let Some((offset, hash)) = group.place(number).filter(|_| group.is_settled(number)) {
                self.roll_back_record(right, segment, (offset, hash), before);
            }
        }
        // Newer ones were rolled back before, so it is the newest, if it is still published.
        let newest = self.group.load_full();
        if newest.is_some_and(|newest| Arc::ptr_eq(&newest, group)) {
            self.withdraw(right, group);
            self.withdraw_settled(right);
        }
    }

    /// Changes the key orders of these namespaces.
    fn change_orders(&self, namespaces: &NamespacesSeen, changes: &mut Vec<(u32, Change<'_>)>) {
        for together in changes.chunk_by(|(number, _), (next, _)| number == next) {
            if let Some((number, _)) = together.first()
                && let Some(Some(namespace)) = namespaces.get(number)
            {
                self.change_order(namespace, together.iter().map(|(_, change)| *change));
            }
        }
        changes.clear();
    }
}

#[cfg(test)]
mod tests;
