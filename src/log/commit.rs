//! Group commit: how appended records reach the device, and how the writers learn of it.
//!
//! A write appends its records under the writer lock. Then, by its durability class, it waits until
//! the log is written out, or synced, up to its last sequence. The first thread to find no other
//! doing so becomes the leader: it writes out everything pending in one call, outside the lock, and
//! syncs once for all waiters. Everyone else waits until the log is written (or synced) past their
//! sequence.
//!
//! A write of class `Buffered` waits for nothing, and neither does one of class `Os` if what is
//! pending can be kept where it survives the process: the flush thread writes both out later.
//!
//! When a write-out fails, unacknowledged records are rolled back, and their waiters get the error.
//! Records that were already acknowledged stay pending. If the roll-back fails, or a sync fails,
//! the log is poisoned: the content of the device is unknown, and nothing may be acknowledged on
//! top of it.
//!
//! The [`Environment`] knows what is written, to which file, and how it is rolled back. So the
//! rules above are tested, and their interleavings explored, without a store.

mod environment;
mod lock;

use std::sync::Arc;

pub(crate) use self::environment::Environment;
pub(crate) use self::lock::{CommitLock, FoundSequences, Guard};
use super::waiters::Ticket;
use crate::error::{Error, Result};
use crate::options::Durability;
use crate::planted::{Planted, planted};

/// Pending bytes of class `Buffered` at which the flush thread is woken.
const PENDING_WAKE_BYTES: u64 = 256 << 10;
/// Pending bytes at which the writer itself writes them out.
pub(super) const PENDING_MAX_BYTES: u64 = 4 << 20;

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

    /// See [`CommitLock::is_wanted`].
    pub(super) fn is_wanted(&self) -> bool {
        self.lock.is_wanted()
    }

    pub(super) fn try_lock(&self) -> Option<Guard<'_, E::Tail>> {
        self.lock.try_lock()
    }

    /// Releases the lock until a leader has finished, or spuriously.
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

    /// Whether [`GroupCommit::check_sound`] would find nothing.
    #[inline]
    pub(super) fn is_sound(&self, guard: &Guard<'_, E::Tail>) -> bool {
        guard.poisoned.is_none() && self.environment.check_device().is_ok()
    }

    /// An error if nothing may be acknowledged any more.
    pub(super) fn check_sound(&self, guard: &mut Guard<'_, E::Tail>) -> Result<()> {
        if guard.poisoned.is_none()
            && let Err(cause) = self.environment.check_device()
        {
            self.poison(guard, &cause);
        }
        guard.check_poison()
    }

    /// Writes out everything pending, as leader or after one.
    pub(super) fn write_out<'a>(&'a self, mut guard: Guard<'a, E::Tail>) -> (Guard<'a, E::Tail>, Result<()>) {
        while guard.writing {
            guard = self.wait(guard);
        }
        if let Err(error) = guard.check_poison() {
            return (guard, Err(error));
        }
        let Some(mut pending) = self.environment.pending(&guard.tail) else {
            return (guard, Ok(()));
        };
        let last = guard.last_sequence;
        guard.writing = true;
        drop(guard);
        let result = self.environment.write(&pending);
        let mut guard = self.lock();
        if result.is_err() && self.environment.would_roll_back(&guard.tail) {
            drop(guard);
            self.environment.prepare_roll_back(&mut pending);
            guard = self.lock();
        }
        guard.writing = false;
        let result = self.written_out(&mut guard, pending, last, result);
        self.lock.notify(&guard);
        (guard, result)
    }

    /// Writes out everything pending without releasing the lock. No leader may be writing out.
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

    /// Handles the result of a write-out up to sequence `last`.
    #[inline]
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
                self.environment.written(&mut guard.tail, &pending, newer);
            }
            Err(error) => self.roll_back(guard, pending, error),
        }
        result
    }

    /// After a failed write-out: rolls back all unacknowledged records and fails their waiters.
    fn roll_back(&self, guard: &mut Guard<'_, E::Tail>, pending: E::Pending, error: &Error) {
        let written = guard.written_sequence;
        match self.environment.roll_back(&mut guard.tail, pending, written, error) {
            Ok(Some(last)) => {
                guard.last_sequence = last;
                // Records that stay pending have not failed yet: their waiters try again.
                guard.waiters.fail_from(last + 1, error);
            }
            Ok(None) => {}
            Err(cause) => {
                // The unwritten records stay in memory, visible to every reader, and are never
                // written.
                guard.waiters.fail_from(written + 1, &cause);
                self.poison(guard, &cause);
            }
        }
    }

    /// Acknowledges everything pending at once, for a write of class `Buffered`. Returns the lock
    /// if too much is pending: then this write is written out before it is acknowledged, so that it
    /// can be rolled back if that fails.
    #[inline]
    pub(super) fn acknowledge<'a>(&'a self, guard: Guard<'a, E::Tail>) -> Option<Guard<'a, E::Tail>> {
        let pending = self.environment.pending_bytes(&guard.tail);
        if pending >= PENDING_MAX_BYTES && !guard.writing {
            return Some(guard);
        }
        self.acknowledged(guard, pending >= PENDING_WAKE_BYTES);
        None
    }

    /// The same for a write of class `Os`, once all of it survives the process. Returns the lock if
    /// it has to be written out for that.
    #[inline]
    pub(super) fn keep<'a>(&'a self, mut guard: Guard<'a, E::Tail>) -> Option<Guard<'a, E::Tail>> {
        let is_writing = guard.writing;
        if guard.poisoned.is_some() {
            return Some(guard);
        }
        match self.environment.keep(&mut guard.tail, is_writing) {
            Some(wakes) => {
                self.acknowledged(guard, wakes);
                None
            }
            None => Some(guard),
        }
    }

    #[inline]
    fn acknowledged(&self, mut guard: Guard<'_, E::Tail>, wakes: bool) {
        self.environment.acknowledge(&mut guard.tail);
        drop(guard);
        if wakes {
            self.environment.wake_flusher();
        }
    }

    /// Waits until a write of this class, applied up to `sequence`, is on the device or in the page
    /// cache.
    ///
    /// [`Error::Pending`] if the records are kept, to be written out later; with any other error
    /// they were rolled back, unless the log is poisoned.
    #[inline]
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
    #[inline]
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

    /// The error for a waiter whose records a failed write-out has left unwritten.
    fn unwritten(guard: &Guard<'_, E::Tail>, ticket: &Ticket, error: Error) -> Error {
        match guard.waiters.failure_of(ticket) {
            Some(failure) => failure.clone(),
            // Nothing more will be written.
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
            // No other leader is writing out, so this call's records are among those that failed.
            let (back, result) = self.write_out(guard);
            guard = back;
            if let Err(error) = result {
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
            // While this thread leads, others append and wait; the next leader syncs for all of
            // them.
            let (back, result) = self.write_out(guard);
            guard = back;
            // The failed records may be others'; this call's may have been written before.
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

    /// Syncs everything that has been written out. The caller is the syncing leader.
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

    /// Poisons the log and waits for the leaders; nothing is written or synced once this returns.
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
