//! Group commit: how records that were appended reach the device, and how those who appended them
//! learn of it.
//!
//! A write appends its records under the writer lock. Then, by its durability class, it waits until
//! the log is written out, or synced, up to its last sequence. The first to find no other thread at
//! it becomes the leader: it writes out all that is pending in one call, outside the lock, and
//! syncs once for all who wait. Everyone else waits until the log is written (or synced) past their
//! sequence.
//!
//! When a write-out fails, the records that no call has been told of are taken back, and those who
//! wait for them get the error. Records of class `Buffered`, which were acknowledged already, stay
//! pending. If they cannot be taken back, or if a sync fails, the log is poisoned: what the device
//! holds is no longer known, and nothing may be acknowledged on top of it.
//!
//! What is written, to which file, and how it is taken back is the [`Environment`]'s to know. So
//! the rules above are tested, and their interleavings explored, without a store around them.

mod lock;

use std::sync::Arc;

pub(crate) use self::lock::{CommitLock, FoundSequences, Guard};
use super::waiters::Ticket;
use crate::error::{Error, Result};
use crate::options::Durability;
use crate::planted::{Planted, planted};

/// Pending bytes of class `Buffered` at which the flush thread is asked to write them out.
const PENDING_WAKE_BYTES: u64 = 256 << 10;
/// Pending bytes at which the writer itself writes them out.
const PENDING_MAX_BYTES: u64 = 4 << 20;

/// What a group commit writes to.
pub(crate) trait Environment {
    /// The end of the log; lies under the writer lock.
    type Tail: std::fmt::Debug + Send;
    /// What a leader takes along to write it out without the lock.
    type Pending;
    /// What a leader takes along to sync it without the lock.
    type Unsynced;

    /// Bytes that were appended and not written out.
    fn pending_bytes(&self, tail: &Self::Tail) -> u64;
    /// Everything that was appended and not written out; None if there is nothing.
    fn pending(&self, tail: &Self::Tail) -> Option<Self::Pending>;
    /// Writes it out.
    fn write(&self, pending: &Self::Pending) -> Result<()>;
    /// It was written out. `newer` says from which sequence on records were appended meanwhile, if
    /// any were.
    fn written(&self, tail: &mut Self::Tail, pending: Self::Pending, newer: Option<u64>);
    /// Everything pending was acknowledged: a failed write-out must not take it back.
    fn acknowledge(&self, tail: &mut Self::Tail);
    /// A write-out has failed: takes back what was not acknowledged. What stays is in the log up to
    /// the sequence that is returned, or as it was if there is none. An error poisons the log.
    fn take_back(&self, tail: &mut Self::Tail, written_sequence: u64, error: &Error) -> Result<Option<u64>>;

    /// Everything that was written out and not synced.
    fn unsynced(&self, tail: &Self::Tail) -> Self::Unsynced;
    /// Syncs it.
    fn sync(&self, unsynced: &Self::Unsynced) -> Result<()>;
    /// Whether the sync that has just ended may be believed. Looked at under the lock: a call that
    /// is told of a failure meanwhile is told before this sync is acknowledged.
    fn check_synced(&self, tail: &Self::Tail) -> Result<()>;
    /// It is durable; `is_news` if some of it was not before.
    fn synced(&self, tail: &mut Self::Tail, unsynced: Self::Unsynced, is_news: bool);

    /// Why nothing may be acknowledged any more, if that is so.
    fn check_device(&self) -> Result<()>;
    /// Much is pending.
    fn wake_flusher(&self);
}

/// See the module.
#[derive(Debug)]
pub(crate) struct GroupCommit<E: Environment> {
    lock: Arc<CommitLock<E::Tail>>,
    pub(super) environment: E,
}

impl<E: Environment> GroupCommit<E> {
    pub(crate) fn new(lock: Arc<CommitLock<E::Tail>>, environment: E) -> GroupCommit<E> {
        GroupCommit { lock, environment }
    }

    pub(crate) fn lock(&self) -> Guard<'_, E::Tail> {
        self.lock.lock()
    }

    pub(super) fn try_lock(&self) -> Option<Guard<'_, E::Tail>> {
        self.lock.try_lock()
    }

    /// Gives up the lock until a leader has ended its work, or for no reason at all.
    pub(super) fn wait<'a>(&'a self, guard: Guard<'a, E::Tail>) -> Guard<'a, E::Tail> {
        self.lock.wait(guard)
    }

    /// Refuses all further writes.
    pub(crate) fn poison(&self, guard: &mut Guard<'_, E::Tail>, cause: &Error) {
        if guard.poisoned.is_none() {
            guard.poisoned = Some(cause.to_string());
        }
        self.lock.notify(guard);
    }

    /// Refuses if nothing may be acknowledged any more.
    pub(super) fn check_sound(&self, guard: &mut Guard<'_, E::Tail>) -> Result<()> {
        guard.check_poison()?;
        if let Err(cause) = self.environment.check_device() {
            self.poison(guard, &cause);
        }
        guard.check_poison()
    }

    /// Writes out all that is pending, as leader or behind one.
    pub(super) fn write_out<'a>(&'a self, mut guard: Guard<'a, E::Tail>) -> (Guard<'a, E::Tail>, Result<()>) {
        while guard.writing {
            guard = self.wait(guard);
        }
        if let Err(error) = guard.check_poison() {
            return (guard, Err(error));
        }
        let Some(pending) = self.environment.pending(&guard.tail) else {
            return (guard, Ok(()));
        };
        let last = guard.last_sequence;
        guard.writing = true;
        drop(guard);
        let result = self.environment.write(&pending);
        let mut guard = self.lock();
        guard.writing = false;
        let result = self.written_out(&mut guard, pending, last, result);
        self.lock.notify(&guard);
        (guard, result)
    }

    /// Writes out all that is pending without giving up the lock. No leader may be writing out.
    pub(super) fn write_out_held(&self, guard: &mut Guard<'_, E::Tail>) -> Result<()> {
        guard.check_poison()?;
        let Some(pending) = self.environment.pending(&guard.tail) else {
            return Ok(());
        };
        let last = guard.last_sequence;
        let result = self.environment.write(&pending);
        let result = self.written_out(guard, pending, last, result);
        self.lock.notify(guard);
        result
    }

    /// A write-out up to sequence `last` has ended so.
    fn written_out(
        &self,
        guard: &mut Guard<'_, E::Tail>,
        pending: E::Pending,
        last: u64,
        result: Result<()>,
    ) -> Result<()> {
        match &result {
            Ok(()) => {
                guard.written_sequence = last;
                let newer = (last != guard.last_sequence).then_some(last + 1);
                self.environment.written(&mut guard.tail, pending, newer);
            }
            Err(error) => self.roll_back(guard, error),
        }
        result
    }

    /// After a failed write-out: all that no call was told of is taken back, and those who wait for
    /// it are told.
    fn roll_back(&self, guard: &mut Guard<'_, E::Tail>, error: &Error) {
        let written = guard.written_sequence;
        match self.environment.take_back(&mut guard.tail, written, error) {
            Ok(Some(last)) => {
                guard.last_sequence = last;
                // What stays pending has not failed yet: its waiters try again.
                guard.waiters.fail_from(last + 1, error);
            }
            Ok(None) => {}
            Err(cause) => {
                // What could not be written stays in memory, seen by every reader, and is never written.
                guard.waiters.fail_from(written + 1, &cause);
                self.poison(guard, &cause);
            }
        }
    }

    /// Acknowledges everything pending at once, for a write of class `Buffered`. Gives the lock
    /// back if too much is pending: then it is to be written out before this write is
    /// acknowledged, so that it can be taken back if that fails.
    pub(super) fn acknowledge<'a>(&'a self, mut guard: Guard<'a, E::Tail>) -> Option<Guard<'a, E::Tail>> {
        let pending = self.environment.pending_bytes(&guard.tail);
        if pending >= PENDING_MAX_BYTES && !guard.writing {
            return Some(guard);
        }
        self.environment.acknowledge(&mut guard.tail);
        drop(guard);
        if pending >= PENDING_WAKE_BYTES {
            self.environment.wake_flusher();
        }
        None
    }

    /// A write of this class has been applied up to `sequence`: waits until that is so on the
    /// device, or in the page cache.
    ///
    /// [`Error::Pending`] if the records are still there, to be written out later; with any other
    /// error they were taken back, unless the log is poisoned.
    pub(super) fn wait_for<'a>(
        &'a self,
        guard: Guard<'a, E::Tail>,
        durability: Durability,
        sequence: u64,
    ) -> Result<()> {
        match durability {
            Durability::Sync => self.sync_up_to(guard, sequence),
            Durability::Os | Durability::Buffered => self.write_out_up_to(guard, sequence),
        }
    }

    /// Returns once everything up to this sequence is written out.
    pub(super) fn write_out_up_to<'a>(&'a self, mut guard: Guard<'a, E::Tail>, sequence: u64) -> Result<()> {
        let ticket = guard.waiters.arrive(sequence);
        let (mut guard, result) = self.wait_written(guard, sequence, &ticket);
        guard.waiters.leave(ticket);
        result
    }

    /// Returns once everything up to this sequence is durable.
    pub(super) fn sync_up_to<'a>(&'a self, mut guard: Guard<'a, E::Tail>, sequence: u64) -> Result<()> {
        let ticket = guard.waiters.arrive(sequence);
        let (mut guard, result) = self.wait_durable(guard, sequence, &ticket);
        guard.waiters.leave(ticket);
        result
    }

    /// How it ends for a waiter that a failed write-out has left unwritten.
    fn unwritten(guard: &Guard<'_, E::Tail>, ticket: &Ticket, error: Error) -> Error {
        match guard.waiters.failure_of(ticket) {
            Some(failure) => failure.clone(),
            // Nothing will be written any more.
            None if guard.poisoned.is_some() => error,
            None => Error::Pending { cause: Arc::new(error) },
        }
    }

    fn wait_written<'a>(
        &'a self,
        mut guard: Guard<'a, E::Tail>,
        sequence: u64,
        ticket: &Ticket,
    ) -> (Guard<'a, E::Tail>, Result<()>) {
        loop {
            if let Some(error) = guard.waiters.failure_of(ticket) {
                let error = error.clone();
                return (guard, Err(error));
            }
            if guard.written_sequence >= sequence {
                return (guard, Ok(()));
            }
            if guard.writing {
                guard = self.wait(guard);
                continue;
            }
            let (back, result) = self.write_out(guard);
            guard = back;
            if let Err(error) = result
                && guard.written_sequence < sequence
            {
                let error = Self::unwritten(&guard, ticket, error);
                return (guard, Err(error));
            }
        }
    }

    fn wait_durable<'a>(
        &'a self,
        mut guard: Guard<'a, E::Tail>,
        sequence: u64,
        ticket: &Ticket,
    ) -> (Guard<'a, E::Tail>, Result<()>) {
        loop {
            if let Some(error) = guard.waiters.failure_of(ticket) {
                let error = error.clone();
                return (guard, Err(error));
            }
            if guard.durable_sequence >= sequence {
                return (guard, Ok(()));
            }
            if let Err(error) = guard.check_poison() {
                return (guard, Err(error));
            }
            if guard.syncing {
                guard = self.wait(guard);
                continue;
            }
            guard.syncing = true;
            // While this thread leads, others append and wait; the next leader syncs for all of them.
            let (back, result) = self.write_out(guard);
            guard = back;
            // What failed may be others' records; this one may have been written before.
            if let Err(error) = result
                && guard.written_sequence < sequence
            {
                guard.syncing = false;
                self.lock.notify(&guard);
                let error = Self::unwritten(&guard, ticket, error);
                return (guard, Err(error));
            }
            let (back, result) = self.sync_written(guard);
            guard = back;
            guard.syncing = false;
            if let Err(error) = &result
                && !planted(Planted::SyncAgainAfterFailure)
            {
                self.poison(&mut guard, error);
            }
            self.lock.notify(&guard);
            if result.is_err() {
                return (guard, result);
            }
        }
    }

    /// Syncs all that has been written out. The caller has taken the role of the syncing leader.
    fn sync_written<'a>(&'a self, guard: Guard<'a, E::Tail>) -> (Guard<'a, E::Tail>, Result<()>) {
        let target = guard.written_sequence;
        let unsynced = self.environment.unsynced(&guard.tail);
        drop(guard);
        let result = self.environment.sync(&unsynced);
        let mut guard = self.lock();
        let result = result.and_then(|()| self.environment.check_synced(&guard.tail));
        if result.is_ok() {
            let target = match planted(Planted::ClaimUnsynced) {
                true => guard.written_sequence,
                false => target,
            };
            let is_news = target > guard.durable_sequence;
            guard.durable_sequence = guard.durable_sequence.max(target);
            self.environment.synced(&mut guard.tail, unsynced, is_news);
        }
        (guard, result)
    }

    /// Nothing is written or synced any more once this returns.
    pub(crate) fn stop(&self, cause: &Error) {
        let mut guard = self.lock();
        self.poison(&mut guard, cause);
        while guard.writing || guard.syncing {
            guard = self.wait(guard);
        }
    }
}

#[cfg(all(test, shuttle))]
mod interleavings;
#[cfg(test)]
mod tests;
