//! Syncing behind the writers: what no writer waits for is synced once there is much of it, or once
//! it has waited for as long as [`Options::sync_interval`](crate::Options::sync_interval) allows.
//!
//! * No record that is not durable was appended before [`Behind::since_ms`]. The clock is read when
//!   the first record is appended after everything was durable, and once per sync, but not for
//!   every record.
//! * A mark follows each of these syncs without waiting for the next write, so that the next crash
//!   finds how far the log was durable. Like any record it is synced within the interval. Nothing
//!   needs to mark that, so an idle store comes to rest.
//! * Only the writer lock is taken: no sweep, seal or compaction is waited for. Other threads may
//!   sync at the same time: they share syncs as writers do.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::append::MARK_LEN;
use super::{Guard, Log};
use crate::error::{Error, Result};
use crate::planted::{Planted, planted};

/// Unsynced bytes that are not left waiting until the interval is over.
const UNSYNCED_BYTES_MAX: u64 = 16 << 20;
/// How often to look at the unsynced bytes, while there are any.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long the thread sleeps if nothing is unsynced and it is not woken.
const IDLE: Duration = Duration::from_secs(3600);

/// What is known of the records that are not durable. Kept under the writer lock.
#[derive(Debug, Default)]
pub(super) struct Behind {
    /// None was appended before this time of the monotonic clock. Absent only if there are none.
    since_ms: Option<u64>,
    /// Bytes written since opening, as of the start of the last sync.
    synced_bytes: u64,
    /// The thread that syncs sleeps until the next record is appended.
    is_asleep: bool,
}

/// What a sync may leave unsynced.
pub(super) struct Beginning {
    written_bytes: u64,
    /// When the sync began, if everything appended until then had been written out.
    whole_ms: Option<u64>,
}

impl Behind {
    /// A sync has ended. `is_all` if it covers everything appended until now.
    pub(super) fn synced(&mut self, began: &Beginning, is_all: bool) {
        self.synced_bytes = began.written_bytes;
        match began.whole_ms {
            _ if is_all => self.since_ms = None,
            Some(began_ms) => self.not_before(began_ms),
            None => {}
        }
    }

    /// The records that are not durable were appended at or after this time.
    fn not_before(&mut self, time_ms: u64) {
        self.since_ms = self.since_ms.map(|since_ms| since_ms.max(time_ms));
    }
}

impl super::device::Device {
    /// To be kept from the beginning of a sync to its end.
    pub(super) fn begin_sync(&self, pending_bytes: u64) -> Beginning {
        Beginning {
            written_bytes: self.context.events.written_bytes.load(Ordering::Relaxed),
            whole_ms: (pending_bytes == 0).then(|| self.context.time.monotonic_ms()),
        }
    }
}

impl Log {
    /// Called before a record is appended.
    #[inline]
    pub(super) fn note_append(&self, guard: &mut Guard<'_>) {
        if guard.tail.behind.since_ms.is_none() {
            self.note_first_append(guard);
        }
    }

    #[cold]
    fn note_first_append(&self, guard: &mut Guard<'_>) {
        let behind = &mut guard.tail.behind;
        behind.since_ms = Some(self.context.time.monotonic_ms());
        if std::mem::take(&mut behind.is_asleep) {
            self.context.sync_wake.wake();
        }
    }

    /// Whether everything appended is durable.
    fn is_all_durable(guard: &mut Guard<'_>) -> bool {
        let is_all = guard.last_sequence <= guard.durable_sequence;
        if is_all {
            // What was not durable was made so by sealing it, or was rolled back.
            guard.tail.behind.since_ms = None;
        }
        is_all
    }

    /// In how many milliseconds the oldest unsynced record has waited long enough, by the clock's
    /// current time. None if there is no interval.
    fn due_in_ms(&self, guard: &Guard<'_>, now_ms: u64) -> Option<u64> {
        let interval = self.context.options.sync_interval?;
        let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
        let waited_ms = now_ms.saturating_sub(guard.tail.behind.since_ms?);
        Some(interval_ms.saturating_sub(waited_ms))
    }

    /// Whether it is time to sync, by bytes or by time.
    fn is_sync_due(&self, guard: &Guard<'_>, now_ms: u64) -> bool {
        let written = self.context.events.written_bytes.load(Ordering::Relaxed);
        let is_much = guard.written_sequence > guard.durable_sequence
            && written.saturating_sub(guard.tail.behind.synced_bytes) >= UNSYNCED_BYTES_MAX;
        is_much || (self.due_in_ms(guard, now_ms) == Some(0) && !planted(Planted::SyncBytesOnly))
    }

    /// Syncs if that is due, and marks in the log how far it is durable.
    pub(crate) fn sync_behind(&self) -> Result<()> {
        let mut guard = self.lock();
        let now_ms = self.context.time.monotonic_ms();
        if guard.check_open().is_err() || Self::is_all_durable(&mut guard) || !self.is_sync_due(&guard, now_ms) {
            return Ok(());
        }
        self.check_sound(&mut guard)?;
        let last = guard.last_sequence;
        // The sync writes out and covers what is pending as well, if it can. If it cannot, since
        // the disk is full, that does not keep it from what is written.
        let sequence = match guard.written_sequence > guard.durable_sequence {
            true => guard.written_sequence,
            false => last,
        };
        let synced = self.commit.sync_up_to(guard, sequence);
        synced.map_err(Error::without_pending)?;
        let mut guard = self.lock();
        if guard.durable_sequence >= last {
            guard.tail.behind.not_before(now_ms);
        }
        // Without the mark the log is as durable; the next write sets it.
        if let Err(error) = self.mark_synced(guard) {
            self.context.events.note_background_error(&error);
        }
        Ok(())
    }

    /// Marks how far the log is durable, if the next write would. Writers that are appending do so
    /// themselves, and on a full disk nothing is written that can be left out.
    fn mark_synced<'a>(&'a self, mut guard: Guard<'a>) -> Result<()> {
        let next_sequence = guard.next_sequence + 1;
        let active = guard.tail.active.as_ref();
        let has_room = active.is_some_and(|active| active.has_room(MARK_LEN, next_sequence));
        let is_refused = guard.check_open().is_err() || self.reserve.is_full();
        if !has_room || is_refused || planted(Planted::SkipMarkBehind) {
            return Ok(());
        }
        self.mark_if_due(&mut guard);
        let sequence = guard.last_sequence;
        let written = self.commit.write_out_up_to(guard, sequence);
        written.map_err(Error::without_pending)
    }

    /// How long the thread that calls [`Log::sync_behind`] may sleep before the next call. If
    /// nothing is unsynced, the next record that is appended wakes it.
    pub(crate) fn sleep_before_sync(&self) -> Duration {
        let mut guard = self.lock();
        if guard.check_open().is_err() || Self::is_all_durable(&mut guard) {
            guard.tail.behind.is_asleep = true;
            return IDLE;
        }
        let due_in_ms = self.due_in_ms(&guard, self.context.time.monotonic_ms());
        let due_in = due_in_ms.map_or(LOOK_EVERY, Duration::from_millis);
        due_in.clamp(Duration::from_millis(1), LOOK_EVERY)
    }
}

#[cfg(test)]
mod tests;
