//! Changes of several keys that readers see as a whole.
//!
//! A batch is published as a *group*: a table of its keys, which readers ask before the keydir. It
//! is published in one step, once its records are in the log. Then the slots of the keydir follow,
//! one after the other, and the group is withdrawn. So a batch is visible from one moment on,
//! however large it is, and no reader waits for it. All of this happens under one hold of the writer
//! lock, so there is one group at a time.
//!
//! # Why a batch is seen in one step
//!
//! The writer publishes the group (P), then for each record changes its slot (S) and counts it as
//! applied (A), and at last withdraws the group (W); each with Release. A reader asks for the group
//! first, then how much is applied, then looks at the slot; each with Acquire. Suppose a reader has
//! seen a record of the batch. It saw the group, or a slot that was changed after P. So a look that
//! comes later sees P. If the group is still there and the record that it looks for is not applied,
//! it takes it from the group. If it is applied, or the group is gone, then the slot was changed
//! before, and it sees that slot or a newer one. So it misses no part of the batch.
//!
//! # Looks at several keys
//!
//! An epoch counts what readers of several keys must not have in between: the publication of a
//! group, a roll-back of several records, and keys that leave by themselves (several may expire at
//! once). A look that it has not changed under is of one moment. Otherwise it is repeated, and then
//! made in a view, which nothing disturbs.
//!
//! A roll-back of several records is not published: while it is under way, the epoch says so and
//! readers wait. It is rare, and needs a device that fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{HashedKey, State, View};
use crate::clock::Now;
use crate::error::{Error, Result};
use crate::planted::{Planted, planted};
use crate::segment::{ReadError, Segment, Value};
use crate::sync::ChangeRight;

/// Looks at several keys before a view is used, which takes the writer lock for a moment. If that is
/// held for long, by a large batch, looking again helps: no other can be published meanwhile.
const LOOKS_MAX: u32 = 8;

/// Groups of more records are sorted by key when they are built; in smaller ones all are visited.
const SORTED_MIN: usize = 4096;

/// What the two lowest bits of the epoch say.
const PHASES: u64 = 4;
/// Several records are being rolled back.
const ROLLING_BACK: u64 = 1;
/// A group is published.
const PUBLISHED: u64 = 2;

/// The order of a group's records, which is known before they are in the log.
#[derive(Debug)]
pub(crate) struct GroupPlan {
    /// Hash and number of each record, sorted: of a key's the newest comes last.
    by_hash: Box<[(u64, u32)]>,
    /// Numbers of the records, sorted by namespace, key and number; empty for a small group.
    by_key: Box<[u32]>,
    /// Whether any two keys may be equal.
    repeats: bool,
}

/// A batch in the log, of which the keydir may not have everything yet.
#[derive(Debug)]
pub(crate) struct Group {
    plan: GroupPlan,
    segment: Arc<Segment>,
    /// Where each record is.
    offsets: Box<[u64]>,
    /// Number of records that the keydir has.
    applied: AtomicUsize,
}

/// The record of a key in a group.
pub(super) struct InGroup {
    group: Arc<Group>,
    offset: u64,
}

impl GroupPlan {
    /// The plan of these records, each with the hash, the namespace and the key.
    pub(crate) fn new<'a>(records: impl ExactSizeIterator<Item = (u64, u32, &'a [u8])> + Clone) -> GroupPlan {
        let mut by_hash: Box<[_]> = (records.clone().zip(0..))
            .map(|((hash, ..), number)| (hash, number))
            .collect();
        by_hash.sort_unstable();
        let repeats = by_hash
            .windows(2)
            .any(|pair| matches!(pair, [(hash, _), (next, _)] if hash == next));
        let by_key = if records.len() > SORTED_MIN {
            let mut keys: Vec<_> = records
                .zip(0..)
                .map(|((_, namespace, key), number)| (namespace, key, number))
                .collect();
            keys.sort_unstable();
            keys.into_iter().map(|(_, _, number)| number).collect()
        } else {
            Box::default()
        };
        GroupPlan {
            by_hash,
            by_key,
            repeats,
        }
    }
}

impl Group {
    pub(crate) fn new(plan: GroupPlan, segment: Arc<Segment>, offsets: Box<[u64]>) -> Group {
        Group {
            plan,
            segment,
            offsets,
            applied: AtomicUsize::new(0),
        }
    }

    /// Whether any two keys may be equal.
    pub(super) fn repeats(&self) -> bool {
        self.plan.repeats
    }

    /// The keydir has so many of its records.
    pub(super) fn set_applied(&self, records: usize) {
        self.applied.store(records, Ordering::Release);
    }

    /// The newest record of the key, by its number and place.
    fn find(&self, key: &HashedKey<'_>) -> Option<(usize, u64)> {
        let end = self.plan.by_hash.partition_point(|(hash, _)| *hash <= key.hash);
        let same = self.plan.by_hash.get(..end)?.iter().rev();
        for (_, number) in same.take_while(|(hash, _)| *hash == key.hash) {
            let offset = *self.offsets.get(*number as usize)?;
            let mut scratch = Vec::new();
            let record = self.segment.record(offset, &mut scratch);
            if record.is_ok_and(|record| key.is_of(&record)) {
                return Some((*number as usize, offset));
            }
        }
        None
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

/// Ends a change even if applying it panics: readers must not wait, nor see it, forever.
pub(super) struct Changing<'a> {
    state: &'a State,
    is_group: bool,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        let left = match self.is_group {
            true => PHASES - PUBLISHED,
            false => PHASES - ROLLING_BACK,
        };
        self.state.advance_epoch(left);
        if self.is_group {
            self.state.group.store(None);
        }
    }
}

impl State {
    /// Only under the writer lock, so nobody else changes it.
    fn advance_epoch(&self, by: u64) {
        let epoch = self.epoch.load(Ordering::Relaxed);
        self.epoch.store(epoch.wrapping_add(by), Ordering::Release);
    }

    /// Publishes a group, until the result is dropped.
    pub(super) fn publish(&self, _: &ChangeRight, group: &Arc<Group>) -> Changing<'_> {
        self.group.store(Some(group.clone()));
        self.advance_epoch(PUBLISHED);
        Changing {
            state: self,
            is_group: true,
        }
    }

    /// Makes readers wait until the result is dropped.
    pub(super) fn begin_roll_back(&self) -> Changing<'_> {
        self.rolled_back.fetch_add(1, Ordering::AcqRel);
        self.advance_epoch(ROLLING_BACK);
        Changing {
            state: self,
            is_group: false,
        }
    }

    /// Keys are about to leave by themselves: looks that are under way begin again. The caller holds
    /// the writer lock.
    pub(super) fn note_leaving(&self) {
        if !planted(Planted::SweepUnderLooks) {
            self.advance_epoch(PHASES);
        }
    }

    /// Whether a reader has to ask for the group, or wait for a roll-back.
    #[inline]
    pub(super) fn is_changing(&self) -> bool {
        !self.epoch.load(Ordering::Acquire).is_multiple_of(PHASES)
    }

    /// Waits while records are rolled back. Returns the epoch.
    fn await_roll_back(&self) -> u64 {
        let mut spins = 0u32;
        loop {
            let epoch = self.epoch.load(Ordering::Acquire);
            if epoch % PHASES != ROLLING_BACK {
                return epoch;
            }
            spins += 1;
            if spins < 64 {
                std::hint::spin_loop()
            } else {
                std::thread::yield_now()
            }
        }
    }

    /// The group that is published, if there is one.
    #[cold]
    pub(super) fn published(&self) -> Option<Arc<Group>> {
        self.await_roll_back();
        self.group.load_full()
    }

    /// The newest record of the key, if it is in a group and the keydir may not have it yet.
    #[cold]
    pub(super) fn find_in_group(&self, key: &HashedKey<'_>) -> Option<InGroup> {
        let group = self.published()?;
        let (number, offset) = group.find(key)?;
        let is_applied = number < group.applied.load(Ordering::Acquire) || planted(Planted::BatchInSteps);
        (!is_applied).then_some(InGroup { group, offset })
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

    /// Runs `look`, which may read several keys, so that it sees one moment: in the present, or if
    /// that changes too fast, in a view.
    pub(crate) fn consistently<T>(
        self: &Arc<State>,
        mut look: impl FnMut(Option<&Arc<View>>) -> Result<T>,
    ) -> Result<T> {
        for attempt in 0..LOOKS_MAX {
            let before = self.await_roll_back();
            let answer = look(None);
            if self.is_whole(before) || planted(Planted::TornLook) {
                return answer;
            }
            if attempt > 0
                && let Some(view) = self.try_view()
                && let Some(answer) = self.look_in(view, &mut look)
            {
                return answer;
            }
        }
        loop {
            let view = self.view_now();
            if let Some(answer) = self.look_in(view, &mut look) {
                return answer;
            }
        }
    }

    /// Whether nothing has happened since this epoch that a look must not have in between. The end
    /// of a group that was there at its beginning may be.
    fn is_whole(&self, before: u64) -> bool {
        let after = self.epoch.load(Ordering::Acquire);
        after == before || before % PHASES == PUBLISHED && after == before.wrapping_add(PHASES - PUBLISHED)
    }

    /// Looks in a view; None if records that it shows may have been rolled back.
    fn look_in<T>(&self, view: View, look: &mut impl FnMut(Option<&Arc<View>>) -> Result<T>) -> Option<Result<T>> {
        let before = self.rolled_back.load(Ordering::Acquire);
        let answer = look(Some(&Arc::new(view)));
        (self.rolled_back.load(Ordering::Acquire) == before).then_some(answer)
    }

    /// A view of the present, unless the writer lock is held.
    fn try_view(self: &Arc<State>) -> Option<View> {
        let mut view = None;
        self.writers
            .try_while_nothing_changes(&mut || view = Some(self.present()));
        view
    }

    /// A view of the present.
    fn view_now(self: &Arc<State>) -> View {
        let mut view = None;
        self.writers.while_nothing_changes(&mut || view = Some(self.present()));
        view.unwrap_or_else(|| self.present())
    }

    fn present(self: &Arc<State>) -> View {
        let newest = self.newest.load(Ordering::Relaxed);
        View::begin(self, newest.max(self.opened_at.load(Ordering::Relaxed)))
    }
}

mod keys;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) use tests::Hook;
