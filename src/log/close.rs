//! The log without a caller: what the background does for it, and how it ends.

use std::sync::atomic::Ordering;

use super::Log;
use super::reserve::ReservePart;
use crate::error::{Error, Result};
use crate::sync::lock;

/// Bytes written since the last sync at which the maintenance thread syncs.
const SYNC_BEHIND_BYTES: u64 = 16 << 20;

impl Log {
    /// Writes out what is pending, if anything is.
    pub(crate) fn flush_pending(&self) -> Result<()> {
        self.check_not_removed()?;
        let guard = self.lock();
        if guard.tail.pending_bytes() == 0 || guard.check_open().is_err() {
            return Ok(());
        }
        self.commit.write_out(guard).1
    }

    /// Poisons the store if its directory, the file that is written to or the lock was removed:
    /// what is acknowledged from then on would be lost, or written beside another program.
    fn check_not_removed(&self) -> Result<()> {
        let mut guard = self.lock();
        if guard.check_open().is_err() {
            return Ok(());
        }
        self.commit.environment.check_linked(&guard.tail).map_err(|error| {
            let error = Error::io("write any more in", self.context.path(), error);
            self.poison(&mut guard, &error);
            error
        })
    }

    /// Syncs once much has been written since the last sync, so that little has to be copied after
    /// a crash.
    pub(crate) fn sync_behind(&self) -> Result<()> {
        let guard = self.lock();
        let written = self.context.events.written_bytes.load(Ordering::Relaxed);
        let is_due = guard.written_sequence > guard.durable_sequence
            && written.saturating_sub(guard.tail.synced_bytes) >= SYNC_BEHIND_BYTES;
        if !is_due || guard.check_open().is_err() {
            return Ok(());
        }
        drop(guard);
        self.sync()
    }

    /// No write begins from here on; those that have been appended end as they may. The first step
    /// of closing.
    pub(crate) fn refuse_writes(&self) {
        self.lock().closed = true;
    }

    /// Writes out, syncs and seals everything. The caller has refused further writes. On a full
    /// disk what was acknowledged before gets the reserve: there is no later for it.
    pub(crate) fn close(&self) -> Result<()> {
        let result = self.reserve.run(ReservePart::Whole, || self.sync());
        let prepared = self.lock().tail.prepared.take();
        result?;
        self.retire_active()?;
        self.seal_all()?;
        prepared.map_or(Ok(()), |prepared| {
            self.reserve
                .run(ReservePart::Whole, || self.discard_prepared(&prepared))
        })
    }

    /// Closing has failed, and something may be left to be written, synced or sealed: others that
    /// still hold a handle must not do it once another process has the directory.
    pub(crate) fn stop(&self, cause: &Error) {
        self.commit.stop(cause);
        // A thread that seals ends with the segment under way.
        drop(lock(&self.sealing));
    }

    /// Lets the next one open the directory. The last step of closing.
    pub(crate) fn unlock_directory(&self) {
        // A hint or the reserve may be worked at although the store is closed. A thread at a hint ends with
        // it, and one that comes to the reserve looks first whether the directory is still ours.
        self.doubtful_hints.while_none_is_renewed(|| ());
        self.reserve.while_untouched(|| self.context.unlock_directory());
    }
}
