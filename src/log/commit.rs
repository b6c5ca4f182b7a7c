//! The end of the log: the active segment, and how what is appended to it reaches the device.
//!
//! A write appends its records to the active segment's buffer and updates the indexes, all under the writer lock. Then,
//! by its durability class, it waits until the log is written out, or synced, up to its last sequence. Whoever finds
//! nobody at it becomes the leader: it writes out all that is pending in one call, outside the lock, and syncs once for
//! all who wait.
//!
//! When a write-out fails, the file is cut back to where it was good, and the records that nobody has been told of are
//! taken back, from the buffer and from the indexes, newest first. Records of class `Buffered`, which were acknowledged
//! already, stay pending. If the file cannot be cut back, or if a sync fails, the store is poisoned: what the device holds
//! is no longer known, and nothing may be acknowledged on top of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Engine;
use super::active::{Account, LogFile};
use super::reserve::ReservePart;
use super::waiters::Ticket;
use super::writer::Guard;
use crate::error::{Error, Result};
use crate::format::record::{Header, Kind};
use crate::format::segment::Mark;
use crate::options::{Durability, Maintenance};
use crate::planted::{Planted, planted};
use crate::sync::lock;

/// Pending bytes of class `Buffered` at which the maintenance thread is asked to write them out.
const PENDING_WAKE_BYTES: usize = 256 << 10;
/// Pending bytes at which the writer itself writes them out.
const PENDING_MAX_BYTES: usize = 4 << 20;
/// Bytes written since the last sync at which the maintenance thread syncs.
const SYNC_BEHIND_BYTES: u64 = 16 << 20;

impl Engine {
    /// Appends one record that is about the log itself.
    pub(super) fn append(&self, guard: &mut Guard<'_>, kind: Kind, body: &[u8]) {
        let sequence = guard.next_sequence;
        guard.next_sequence += 1;
        guard.last_sequence = sequence;
        if let Some(active) = &mut guard.active {
            let header = Header::of_log(kind, sequence, body);
            active.put_record(&header, &[body]);
        }
    }

    /// Writes out all that is pending, as leader or behind one.
    pub(super) fn write_out<'a>(&'a self, mut guard: Guard<'a>) -> (Guard<'a>, Result<()>) {
        while guard.writing {
            guard = self.wait(guard);
        }
        if let Err(error) = guard.check_poison() {
            return (guard, Err(error));
        }
        let Some(active) = &guard.active else {
            return (guard, Ok(()));
        };
        let (from, to) = (active.written, active.appender.len() as u64);
        if from == to {
            return (guard, Ok(()));
        }
        let (file, buffer) = (active.file.clone(), active.appender.buffer().clone());
        let (account, last) = (active.account.clone(), guard.last_sequence);
        guard.writing = true;
        drop(guard);
        let pending = buffer.published().get(from as usize..to as usize).unwrap_or_default();
        let result = file.write(pending, from);
        let mut guard = self.lock_writer();
        guard.writing = false;
        let result = self.written_out(&mut guard, to, account, last, result);
        self.notify(&guard);
        (guard, result)
    }

    /// Writes out all that is pending without giving up the lock. Nobody may be writing out.
    pub(super) fn write_out_held(&self, guard: &mut Guard<'_>) -> Result<()> {
        guard.check_poison()?;
        let Some(active) = &guard.active else { return Ok(()) };
        let (from, to) = (active.written, active.appender.len() as u64);
        if from == to {
            return Ok(());
        }
        let (account, last) = (active.account.clone(), guard.last_sequence);
        let pending = active
            .appender
            .buffer()
            .published()
            .get(from as usize..to as usize)
            .unwrap_or_default();
        let result = active.file.write(pending, from);
        let result = self.written_out(guard, to, account, last, result);
        self.notify(guard);
        result
    }

    fn written_out(
        &self,
        guard: &mut Guard<'_>,
        to: u64,
        account: Account,
        last: u64,
        result: std::io::Result<()>,
    ) -> Result<()> {
        let Some(active) = &mut guard.active else { return Ok(()) };
        match result {
            Ok(()) => {
                self.context.events.write_outs.fetch_add(1, Ordering::Relaxed);
                self.context
                    .events
                    .written_bytes
                    .fetch_add(to - active.written, Ordering::Relaxed);
                active.written = to;
                active.written_account = account;
                guard.written_sequence = last;
                if last == guard.last_sequence {
                    guard.undo.clear();
                } else {
                    guard.undo.retain(|undo| undo.sequence > last);
                }
                Ok(())
            }
            Err(source) => {
                let error = Error::io("write", &self.context.segment_path(active.segment.id()), source);
                self.roll_back(guard, &error);
                Err(error)
            }
        }
    }

    /// After a failed write-out: cuts the file back, and takes back all pending records that nobody was told of.
    fn roll_back(&self, guard: &mut Guard<'_>, error: &Error) {
        if planted(Planted::KeepFailedAppend) {
            return;
        }
        self.reserve.note(error);
        let keep_end = guard.acknowledged_end;
        let undo = std::mem::take(&mut guard.undo);
        let writer = &mut **guard;
        let Some(active) = &mut writer.active else { return };
        let keep_end = keep_end.max(active.written);
        if !planted(Planted::SkipCut)
            && let Err(source) = active.file.cut(active.written)
        {
            let cause = Error::unsure(
                "cut back after a failed write",
                &self.context.segment_path(active.segment.id()),
                source,
            );
            guard.undo = undo;
            // What could not be written stays in memory, seen by every reader, and is never written.
            let from = guard.written_sequence + 1;
            guard.waiters.fail_from(from, &cause);
            self.poison(guard, &cause);
            return;
        }
        if keep_end < active.appender.len() as u64 {
            let split = undo.partition_point(|undo| undo.offset < keep_end);
            let (kept, taken_back) = undo.split_at_checked(split).unwrap_or_default();
            self.state.undo(&writer.right, &active.segment, taken_back);
            active.take_back_to(keep_end);
            self.state.segments.set(active.segment.clone());
            guard.last_sequence = active.account.summary.max_sequence.max(guard.written_sequence);
            guard.undo = kept.to_vec();
            guard.rollbacks += 1;
            // The newest mark may be among what was taken back; the next write sets it again.
            if !planted(Planted::ForgetMark) {
                guard.marked_sequence = 0;
            }
            // What stays pending has not failed yet: whoever waits for it tries again.
            let from = guard.last_sequence + 1;
            guard.waiters.fail_from(from, error);
        } else {
            guard.undo = undo;
        }
    }

    /// A write of this durability has been applied up to `sequence`: waits until that holds, giving up the lock.
    ///
    /// [`Error::Pending`] if the records are still there, to be written out later; with any other error they were taken back,
    /// unless the store is poisoned.
    pub(super) fn finish<'a>(&'a self, mut guard: Guard<'a>, durability: Durability, sequence: u64) -> Result<()> {
        if durability == Durability::Buffered || planted(Planted::AcknowledgeUnwritten) {
            let Some(active) = &guard.active else { return Ok(()) };
            let end = active.appender.len() as u64;
            let pending = (end - active.written) as usize;
            if pending < PENDING_MAX_BYTES || guard.writing {
                guard.acknowledged_end = end;
                drop(guard);
                if pending >= PENDING_WAKE_BYTES {
                    self.context.flush_wake.wake();
                }
                return Ok(());
            }
            // Too much is pending. It is written out before this write is acknowledged, so that it can be taken back if that fails.
        }
        let ticket = guard.waiters.arrive(sequence);
        let (mut guard, result) = match durability {
            Durability::Sync => self.wait_durable(guard, sequence, &ticket),
            _ => self.wait_written(guard, sequence, &ticket),
        };
        guard.waiters.leave(ticket);
        drop(guard);
        if self.context.options.maintenance == Maintenance::Manual {
            // Nobody else seals. This write is done; the next maintenance tries again and reports.
            if let Err(error) = self.seal_all() {
                self.context.events.note_background_error(&error);
            }
        }
        result
    }

    /// How it ends for a waiter that a failed write-out has left unwritten.
    fn unwritten(guard: &Guard<'_>, ticket: &Ticket, error: Error) -> Error {
        match guard.waiters.failure_of(ticket) {
            Some(failure) => failure.clone(),
            // Nothing will be written any more.
            None if guard.poisoned.is_some() => error,
            None => Error::Pending { cause: Arc::new(error) },
        }
    }

    fn wait_written<'a>(&'a self, mut guard: Guard<'a>, sequence: u64, ticket: &Ticket) -> (Guard<'a>, Result<()>) {
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

    fn wait_durable<'a>(&'a self, mut guard: Guard<'a>, sequence: u64, ticket: &Ticket) -> (Guard<'a>, Result<()>) {
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
                self.notify(&guard);
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
            self.notify(&guard);
            if result.is_err() {
                return (guard, result);
            }
        }
    }

    /// Syncs all that has been written out, oldest segment first. The caller has taken the role of the syncing leader.
    fn sync_written<'a>(&'a self, guard: Guard<'a>) -> (Guard<'a>, Result<()>) {
        let target = guard.written_sequence;
        let written_bytes = self.context.events.written_bytes.load(Ordering::Relaxed);
        let rotated: Vec<_> = guard
            .sealing
            .iter()
            .filter(|rotated| !rotated.synced.load(Ordering::Acquire))
            .cloned()
            .collect();
        let active = guard
            .active
            .as_ref()
            .map(|active| (active.segment.id(), active.file.clone(), active.written));
        let end = match (&active, rotated.last()) {
            (Some((segment_id, _, offset)), _) => Mark {
                segment_id: *segment_id,
                offset: *offset,
            },
            (None, Some(last)) => Mark {
                segment_id: last.segment.id(),
                offset: last.summary.data_end,
            },
            (None, None) => guard.durable_end,
        };
        drop(guard);
        let sync = |id: u64, file: &LogFile| {
            self.context.events.syncs.fetch_add(1, Ordering::Relaxed);
            file.sync()
                .map_err(|error| Error::unsure("sync", &self.context.segment_path(id), error))
        };
        let mut result = Ok(());
        for rotated in rotated {
            if !planted(Planted::SkipRotatedSync) {
                result = sync(rotated.segment.id(), &rotated.file);
            }
            if result.is_err() {
                break;
            }
            rotated.synced.store(true, Ordering::Release);
        }
        if let (Ok(()), Some((id, file, _))) = (&result, active) {
            result = sync(id, &file);
        }
        let mut guard = self.lock_writer();
        // Looked at under the lock: whoever is told of a failure meanwhile is told before this is acknowledged.
        let result = result.and_then(|()| {
            let sound = self
                .context
                .directory
                .check_syncs()
                .and_then(|()| self.check_linked(&guard));
            sound.map_err(|error| Error::unsure("trust a sync in", self.context.path(), error))
        });
        if result.is_ok() {
            guard.synced_bytes = written_bytes;
            let target = match planted(Planted::ClaimUnsynced) {
                true => guard.written_sequence,
                false => target,
            };
            guard.durable_up_to(target, end);
        }
        (guard, result)
    }

    /// Writes out all pending records.
    pub(crate) fn flush(&self) -> Result<()> {
        let mut guard = self.lock_writer();
        self.check_sound(&mut guard)?;
        let sequence = guard.last_sequence;
        let ticket = guard.waiters.arrive(sequence);
        let (mut guard, result) = self.wait_written(guard, sequence, &ticket);
        guard.waiters.leave(ticket);
        // It has applied nothing that could stay pending.
        result.map_err(Error::without_pending)
    }

    /// Makes everything durable that was acknowledged before this call.
    pub(crate) fn sync(&self) -> Result<()> {
        let mut guard = self.lock_writer();
        self.check_sound(&mut guard)?;
        if guard.is_recovering() {
            // What recovery found and could not write anew for lack of space is not durable yet.
            self.finish_recovery(&mut guard)?;
        }
        let sequence = guard.last_sequence;
        let ticket = guard.waiters.arrive(sequence);
        let (mut guard, result) = self.wait_durable(guard, sequence, &ticket);
        guard.waiters.leave(ticket);
        result.map_err(Error::without_pending)
    }

    /// Writes out what is pending, if anything is. Called by the maintenance thread.
    pub(crate) fn flush_pending(&self) -> Result<()> {
        self.check_not_removed()?;
        let guard = self.lock_writer();
        if guard.pending_bytes() == 0 || guard.closed || guard.poisoned.is_some() {
            return Ok(());
        }
        self.write_out(guard).1
    }

    /// Poisons the store if its directory, the file that is written to or the lock was removed: what is acknowledged from then
    /// on would be lost, or written beside somebody else.
    fn check_not_removed(&self) -> Result<()> {
        let mut guard = self.lock_writer();
        if guard.closed || guard.poisoned.is_some() {
            return Ok(());
        }
        self.check_linked(&guard).map_err(|error| {
            let error = Error::io("write any more in", self.context.path(), error);
            self.poison(&mut guard, &error);
            error
        })
    }

    /// Fails if the directory, its lock or the active segment was removed. Under the lock, since an active segment may be
    /// rotated out, sealed and compacted away at any other moment.
    fn check_linked(&self, guard: &Guard<'_>) -> std::io::Result<()> {
        self.context.check_linked()?;
        guard
            .active
            .as_ref()
            .map_or(Ok(()), |active| active.file.check_linked())
    }

    /// Syncs once much has been written since the last sync, so that little has to be written anew after a crash.
    /// Called by the maintenance thread.
    pub(crate) fn sync_behind(&self) -> Result<()> {
        let guard = self.lock_writer();
        let written = self.context.events.written_bytes.load(Ordering::Relaxed);
        let due = guard.written_sequence > guard.durable_sequence
            && written.saturating_sub(guard.synced_bytes) >= SYNC_BEHIND_BYTES;
        if !due || guard.closed || guard.poisoned.is_some() {
            return Ok(());
        }
        drop(guard);
        self.sync()
    }

    /// No write begins from here on; those that have been appended end as they may. The first step of closing.
    pub(crate) fn refuse_writes(&self) {
        self.lock_writer().closed = true;
    }

    /// Writes out, syncs and seals everything. The caller has refused further writes. On a full disk what was acknowledged
    /// before gets the reserve: there is no later for it.
    pub(crate) fn close_log(&self) -> Result<()> {
        let result = self.reserve.run(ReservePart::Whole, || self.sync());
        let prepared = self.lock_writer().prepared.take();
        result?;
        self.retire_active()?;
        self.seal_all()?;
        prepared.map_or(Ok(()), |prepared| {
            self.reserve
                .run(ReservePart::Whole, || self.discard_prepared(&prepared))
        })
    }

    /// Closing has failed, and something may be left to be written, synced or sealed: others that still hold a handle must not
    /// do it once somebody else has the directory.
    pub(crate) fn stop_writing(&self, cause: &Error) {
        let mut guard = self.lock_writer();
        self.poison(&mut guard, cause);
        while guard.writing || guard.syncing {
            guard = self.wait(guard);
        }
        drop(guard);
        // Whoever is sealing ends with the segment under way.
        drop(lock(&self.sealing));
    }
}

#[cfg(test)]
mod tests;
