//! Changes of several keys that readers see as a whole.
//!
//! A batch is published as a *group*: a table of its keys, which readers ask before the keydir. It
//! is published in one step, once its records are in the log. Then the slots of the keydir follow,
//! one after the other: the group is *settled* (`settle`). Once all of it is, it is withdrawn. So a
//! batch is visible from one moment on, however large it is, and no reader waits for it. Small ones
//! are settled at once; large ones in steps, between which others write. A group may be published
//! while older ones are still being settled: it leads to the older one, and so on.
//!
//! # Why a batch is seen in one step
//!
//! The writer publishes the group (P); then, for each record, a thread that settles changes the
//! slot (S) and marks the record as settled (M); at last the group is withdrawn (W). Each is a
//! store with Release, and all of them are made under the change lock. A reader asks for the groups
//! first, then whether the newest record of the key is settled, then looks at the slot; each with
//! Acquire. Suppose a reader has seen a record of the batch. It saw the group, or a slot that was
//! changed after P. So a look that comes later sees P. If the group is still there and the record
//! that it looks for is not settled, it takes it from the group. If it is settled, or the group is
//! gone, then the slot was changed before, and it sees that slot or a newer one. So it misses no
//! part of the batch.
//!
//! # Why no newer record is missed
//!
//! A writer settles its key in all groups before it writes ([`State::current`]). So if a record of
//! a group is not settled, nothing newer of its key was written, but in newer groups, which the
//! reader has asked before. And of two groups with the same key, the older one's record is settled
//! first.
//!
//! # Looks at several keys
//!
//! An epoch counts what readers of several keys must not have in between: the publication of a
//! group, a roll-back of several records, and keys that leave by themselves (several may expire at
//! once). A look that it has not changed under is of one moment. Otherwise it is repeated in a
//! view, which nothing disturbs, and the next ones are made in views at once. A view is begun under
//! the change lock, not under that of the writers: so it does not wait while a batch is copied into
//! the log.
//!
//! A group over another is published while readers ask for groups already. That is two stores,
//! between which they wait: so a look whose epoch does not change has seen the group at all of its
//! keys, or at none. Readers also wait while several records are rolled back, which is rare, and
//! needs a device that fails. Those of a view that began when everything was settled neither ask
//! nor wait: what is published is newer, and so is what is rolled back, or that is noticed
//! afterwards.

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;

pub(crate) use self::plan::{AT_ONCE_MAX, GroupPlan};
use super::{Current, HashedKey, State, View};
use crate::clock::Now;
use crate::error::{Error, Result};
use crate::planted::{Planted, planted};
use crate::segment::{ReadError, Segment, Value};
use crate::sync::{AtomicU64, AtomicUsize, ChangeRight, Ordering, lock, yield_now};

/// Turns in which a reader that has to wait does not let others run: what it waits for is short.
const SPINS_MAX: u32 = if cfg!(shuttle) { 0 } else { 64 };

/// What the two lowest bits of the epoch say.
const PHASES: u64 = 4;
/// Readers wait: several records are being rolled back, or a group is published over another.
const WAIT: u64 = 1;
/// A group is published.
const PUBLISHED: u64 = 2;

/// A batch in the log, of which the keydir may not have everything yet.
#[derive(Debug)]
pub(crate) struct Group {
    plan: GroupPlan,
    segment: Arc<Segment>,
    /// Where each record is.
    offsets: Box<[u64]>,
    /// Sequence of the first record; the others follow.
    first_sequence: u64,
    pub(super) befores: Mutex<Befores>,
    /// A bit for each record.
    settled: Box<[AtomicU64]>,
    /// Number of records that are not settled; changed under the change lock.
    left: AtomicUsize,
    /// Where settling goes on; changed under the change lock.
    pub(super) next: AtomicUsize,
    /// Whether it is settled under the writer lock, in which it was published.
    at_once: bool,
    /// The newest group that was published when this one was, and is not settled; changed under the
    /// change lock.
    older: ArcSwapOption<Group>,
}

/// For each record, what the keydir pointed at before it.
#[derive(Debug)]
pub(crate) struct Befores {
    pub(crate) found: Vec<Option<Current>>,
    /// [`State::moved`] before they were looked up.
    pub(crate) moved: u64,
}

/// The record of a key in a group.
pub(super) struct InGroup {
    group: Arc<Group>,
    offset: u64,
}

impl Group {
    /// The group of these records in the log.
    pub(crate) fn new(
        (plan, befores): (GroupPlan, Befores),
        at_once: bool,
        segment: Arc<Segment>,
        (first_sequence, offsets): (u64, Box<[u64]>),
    ) -> Group {
        let count = offsets.len();
        Group {
            plan,
            segment,
            offsets,
            first_sequence,
            befores: Mutex::new(befores),
            settled: (0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            left: AtomicUsize::new(count),
            next: AtomicUsize::new(0),
            at_once,
            older: ArcSwapOption::empty(),
        }
    }

    /// Number of records.
    pub(super) fn len(&self) -> usize {
        self.offsets.len()
    }

    pub(super) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    pub(super) fn older(&self) -> Option<Arc<Group>> {
        self.older.load_full()
    }

    /// Offset and hash of a record.
    pub(super) fn place(&self, number: usize) -> Option<(u64, u64)> {
        Some((*self.offsets.get(number)?, *self.plan.hashes.get(number)?))
    }

    /// Offset and sequence of the first record.
    pub(super) fn begin(&self) -> (u64, u64) {
        (self.offsets.first().copied().unwrap_or(0), self.first_sequence)
    }

    pub(super) fn last_sequence(&self) -> u64 {
        self.first_sequence + (self.len() as u64).saturating_sub(1)
    }

    pub(super) fn is_settled_at_once(&self) -> bool {
        self.at_once
    }

    /// Whether any two keys may be equal.
    pub(super) fn repeats(&self) -> bool {
        self.plan.repeats
    }

    pub(super) fn is_settled(&self, number: usize) -> bool {
        let bits = self.settled.get(number / 64);
        bits.is_none_or(|bits| bits.load(Ordering::Acquire) & (1 << (number % 64)) != 0)
    }

    /// The keydir has this record, or something newer.
    pub(super) fn set_settled(&self, _: &ChangeRight, number: usize) {
        let Some(bits) = self.settled.get(number / 64) else {
            return;
        };
        let (before, bit) = (bits.load(Ordering::Relaxed), 1 << (number % 64));
        if before & bit == 0 {
            bits.store(before | bit, Ordering::Release);
            self.left
                .store(self.left.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        }
    }

    /// Whether the keydir has all of it. Asked under the change lock.
    pub(super) fn is_all_settled(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// Numbers and places of the records that may be of a key with this hash, oldest first.
    pub(super) fn of_hash(&self, hash: u64) -> impl DoubleEndedIterator<Item = (usize, u64)> {
        let by_hash = &self.plan.by_hash;
        let begin = by_hash.partition_point(|(other, _)| *other < hash);
        let end = by_hash.partition_point(|(other, _)| *other <= hash);
        let same = by_hash.get(begin..end).unwrap_or_default();
        let numbers = same.iter().map(|(_, number)| *number as usize);
        numbers.filter_map(|number| Some((number, *self.offsets.get(number)?)))
    }

    /// Whether the record at this place is of the key.
    pub(super) fn is_of(&self, key: &HashedKey<'_>, offset: u64) -> bool {
        let mut scratch = Vec::new();
        let record = self.segment.record(offset, &mut scratch);
        record.is_ok_and(|record| key.is_of(&record))
    }

    /// The newest record of the key, by its number and place.
    fn find(&self, key: &HashedKey<'_>) -> Option<(usize, u64)> {
        self.of_hash(key.hash)
            .rev()
            .find(|(_, offset)| self.is_of(key, *offset))
    }
}

impl InGroup {
    pub(super) fn segment(&self) -> &Segment {
        &self.group.segment
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }
}

/// Ends a roll-back even if it panics: readers must not wait forever.
pub(super) struct RollingBack<'a>(&'a State);

impl Drop for RollingBack<'_> {
    fn drop(&mut self) {
        self.0.advance_epoch(PHASES - WAIT);
    }
}

impl State {
    /// Only under the change lock, so no other thread changes it.
    fn advance_epoch(&self, by: u64) {
        let epoch = self.epoch.load(Ordering::Relaxed);
        self.epoch.store(epoch.wrapping_add(by), Ordering::Release);
    }

    /// Publishes a group: from here on readers see all of it.
    pub(super) fn publish(&self, _: &ChangeRight, group: Group) -> Arc<Group> {
        let older = self.group.load_full();
        let is_first = older.is_none();
        group.older.store(older);
        let group = Arc::new(group);
        self.newest.store(group.last_sequence(), Ordering::Relaxed);
        if is_first {
            // Readers do not ask for groups before the second step.
            self.group.store(Some(group.clone()));
            self.advance_epoch(PUBLISHED);
        } else {
            // Readers ask already, and must not take the group for one that was there before.
            self.advance_epoch(WAIT);
            self.group.store(Some(group.clone()));
            self.advance_epoch(PHASES - WAIT);
        }
        group
    }

    /// Withdraws the groups that are settled.
    pub(super) fn withdraw_settled(&self, right: &ChangeRight) {
        while let Some(group) = self.group.load_full() {
            if !group.is_all_settled() {
                return self.withdraw_older(group);
            }
            self.withdraw(right, &group);
        }
    }

    /// Withdraws the groups older than this one that are settled.
    fn withdraw_older(&self, mut group: Arc<Group>) {
        while let Some(older) = group.older() {
            if older.is_all_settled() {
                group.older.store(older.older());
                self.note_withdrawn(&older);
            } else {
                group = older;
            }
        }
    }

    /// Withdraws the newest group: it is settled, or rolled back.
    pub(super) fn withdraw(&self, _: &ChangeRight, group: &Arc<Group>) {
        self.note_withdrawn(group);
        let older = group.older();
        if older.is_none() {
            self.advance_epoch(PHASES - PUBLISHED);
        }
        self.group.store(older);
    }

    /// Gives back the room that was kept for a large group, and keeps the group until
    /// [`State::free_withdrawn`].
    fn note_withdrawn(&self, group: &Arc<Group>) {
        let Some(shares) = &group.plan.shares else {
            return;
        };
        if !group.at_once {
            self.keydir.redeem(shares);
        }
        lock(&self.withdrawn).push(group.clone());
    }

    /// Frees withdrawn groups that no thread has any more. The calling thread must not hold the
    /// change lock.
    pub(crate) fn free_withdrawn(&self) {
        let is_free = |group: &mut Arc<Group>| Arc::strong_count(group) == 1;
        let free: Vec<_> = lock(&self.withdrawn).extract_if(.., is_free).collect();
        drop(free);
    }

    /// Makes readers wait until the result is dropped.
    pub(super) fn begin_roll_back(&self, _: &ChangeRight) -> RollingBack<'_> {
        self.rolled_back.fetch_add(1, Ordering::AcqRel);
        self.advance_epoch(WAIT);
        RollingBack(self)
    }

    /// Keys are about to leave by themselves: looks that are under way begin again.
    pub(super) fn note_leaving(&self, _: &ChangeRight) {
        if !planted(Planted::SweepUnderLooks) {
            self.advance_epoch(PHASES);
        }
    }

    /// Whether a reader has to ask for the groups, or wait for a roll-back.
    #[inline]
    pub(super) fn is_changing(&self) -> bool {
        !self.epoch.load(Ordering::Acquire).is_multiple_of(PHASES)
    }

    /// Waits while readers have to. Returns the epoch.
    fn await_turn(&self) -> u64 {
        let mut spins = 0u32;
        loop {
            let epoch = self.epoch.load(Ordering::Acquire);
            if epoch & WAIT == 0 {
                return epoch;
            }
            spins += 1;
            if spins < SPINS_MAX {
                std::hint::spin_loop()
            } else {
                yield_now()
            }
        }
    }

    /// The newest group that is published, if there is one.
    #[cold]
    pub(super) fn published(&self) -> Option<Arc<Group>> {
        self.await_turn();
        self.group.load_full()
    }

    /// The newest record of the key up to this sequence, if it is in a group and the keydir may not
    /// have it yet.
    #[cold]
    pub(super) fn find_in_group(&self, key: &HashedKey<'_>, up_to: u64) -> Option<InGroup> {
        let mut next = self.published();
        while let Some(group) = next {
            if group.first_sequence <= up_to
                && let Some((number, offset)) = group.find(key)
            {
                let is_settled = group.is_settled(number) && !planted(Planted::ForgetSettled);
                return (!is_settled && !planted(Planted::BatchInSteps)).then_some(InGroup { group, offset });
            }
            next = group.older();
        }
        None
    }

    /// The value of a record in a group, unless it is a tombstone or has expired.
    #[cold]
    pub(super) fn value_in_group(
        &self,
        key: &HashedKey<'_>,
        found: &InGroup,
        now: Option<&Now>,
    ) -> Result<Option<Value>> {
        let value = found
            .segment()
            .value(found.offset(), |record| record.header.kind.is_put())
            .map_err(|error| self.error_in_group(key, found, error))?;
        Ok(self.unless_expired(value, now))
    }

    pub(super) fn error_in_group(&self, key: &HashedKey<'_>, found: &InGroup, error: ReadError) -> Error {
        let error = self.context.read_error(found.segment().id(), found.offset(), error);
        error.of_key(key.key)
    }
}

#[cfg(all(test, shuttle))]
mod interleavings;
mod keys;
mod look;
mod plan;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) use tests::Hook;
