//! What the group commit writes to: the store's segments.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::active::{Account, Rotated};
use super::behind::Beginning;
use super::commit::Environment;
use super::log_file::LogFile;
use super::reserve::Reserve;
use super::tail::Tail;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::segment::Mark;
use crate::planted::{Planted, planted};
use crate::segment::buffer::{AppendBuffer, Appender};
use crate::state::State;

/// The group commit's device: the store's segments.
#[derive(Debug)]
pub(crate) struct Device {
    pub(super) context: Arc<Context>,
    pub(super) state: Arc<State>,
    pub(super) reserve: Arc<Reserve>,
}

/// The part of the active segment that is not in its file.
pub(crate) struct Pending {
    segment_id: u64,
    file: Arc<LogFile>,
    buffer: Arc<AppendBuffer>,
    from: u64,
    to: u64,
    /// Of all records up to `to`.
    account: Account,
    /// Once the write has failed: a copy of what is in the file.
    copy: Option<Appender>,
}

/// Segments whose files were written to.
pub(crate) struct Unsynced {
    /// Oldest first.
    rotated: Vec<Arc<Rotated>>,
    active: Option<UnsyncedActive>,
    end: Mark,
    began: Beginning,
}

struct UnsyncedActive {
    id: u64,
    file: Arc<LogFile>,
    /// Where it ends once it is full.
    full_end: u64,
}

impl Environment for Device {
    type Tail = Tail;
    type Pending = Pending;
    type Unsynced = Unsynced;

    fn pending_bytes(&self, tail: &Tail) -> u64 {
        tail.pending_bytes()
    }

    #[inline]
    fn pending(&self, tail: &Tail) -> Option<Pending> {
        let active = tail.active.as_ref()?;
        let (from, to) = (active.written, active.appender.len() as u64);
        (from < to).then(|| Pending {
            segment_id: active.segment.id(),
            file: active.file.clone(),
            buffer: active.appender.buffer().clone(),
            from,
            to,
            account: active.account.clone(),
            copy: None,
        })
    }

    #[inline]
    fn write(&self, pending: &Pending) -> Result<()> {
        let published = pending.buffer.published();
        let bytes = published.get(pending.from as usize..pending.to as usize);
        pending
            .file
            .write(bytes.unwrap_or_default(), pending.from)
            .map_err(|source| Error::io("write", &self.context.segment_path(pending.segment_id), source))
    }

    fn would_roll_back(&self, tail: &Tail) -> bool {
        !tail.is_firm()
    }

    #[cold]
    fn prepare_roll_back(&self, pending: &mut Pending) {
        pending.copy = Some(pending.buffer.copy_of_first(pending.from as usize));
    }

    #[inline]
    fn written(&self, tail: &mut Tail, pending: &Pending, newer: Option<u64>) {
        let events = &self.context.events;
        events.write_outs.fetch_add(1, Ordering::Relaxed);
        events
            .written_bytes
            .fetch_add(pending.to - pending.from, Ordering::Relaxed);
        if let Some(active) = &mut tail.active {
            active.written = pending.to;
            active.written_account.clone_from(&pending.account);
        }
        match newer {
            Some(newer) => tail.undo.retain(|undo| undo.sequence >= newer),
            None => tail.undo.clear(),
        }
        if tail.watchers.are_any() {
            tail.tell();
        }
    }

    #[inline]
    fn keep(&self, tail: &mut Tail, is_writing: bool) -> Option<bool> {
        self.keep_in_ring(tail, is_writing)
    }

    fn acknowledge(&self, tail: &mut Tail) {
        if let Some(active) = &tail.active {
            tail.acknowledged_end = active.appender.len() as u64;
        }
        // None of it is ever rolled back.
        tail.undo.clear();
        if tail.watchers.are_any() {
            tail.tell();
        }
    }

    /// Cuts the file back to its last good length, and removes the records from the indexes and the
    /// buffer, newest first.
    fn roll_back(
        &self,
        tail: &mut Tail,
        pending: Pending,
        written_sequence: u64,
        error: &Error,
    ) -> Result<Option<u64>> {
        if planted(Planted::KeepFailedAppend) {
            return Ok(None);
        }
        self.reserve.note(error);
        let keep_end = tail.firm_end();
        let Some(active) = &mut tail.active else {
            return Ok(None);
        };
        if !planted(Planted::SkipCut)
            && let Err(source) = active.file.cut(active.written)
        {
            let path = self.context.segment_path(active.segment.id());
            return Err(Error::unsure("cut back after a failed write", &path, source));
        }
        if keep_end >= active.appender.len() as u64 {
            return Ok(None);
        }
        let kept = tail.undo.partition_point(|undo| undo.offset < keep_end);
        let rolled_back = tail.undo.split_off(kept);
        self.state.undo(&active.segment, &rolled_back);
        let is_of_active = Arc::ptr_eq(&pending.buffer, active.appender.buffer());
        active.roll_back_to(keep_end, pending.copy.filter(|_| is_of_active));
        self.state.replace_segment(active.segment.clone());
        tail.rollbacks += 1;
        // The newest mark may have been rolled back; the next write sets it again.
        if !planted(Planted::ForgetMark) {
            tail.marked_sequence = 0;
        }
        let last = active.account.summary.max_sequence.max(written_sequence);
        tail.recent.forget_after(last);
        if tail.watchers.are_any() {
            tail.watchers.forget_after(last, tail.end());
            tail.tell();
        }
        Ok(Some(last))
    }

    fn unsynced(&self, tail: &Tail) -> Unsynced {
        let rotated = tail.sealing.iter();
        let rotated = rotated.filter(|rotated| !rotated.synced.load(Ordering::Acquire));
        let rotated: Vec<_> = rotated.cloned().collect();
        let end = match (&tail.active, rotated.last()) {
            (Some(active), _) => Mark {
                segment_id: active.segment.id(),
                offset: active.written,
            },
            (None, Some(last)) => Mark {
                segment_id: last.segment.id(),
                offset: last.summary.data_end,
            },
            (None, None) => tail.durable_end,
        };
        let active = tail.active.as_ref();
        Unsynced {
            rotated,
            active: active.map(|active| UnsyncedActive {
                id: active.segment.id(),
                file: active.file.clone(),
                full_end: active.appender.capacity() as u64,
            }),
            end,
            began: self.begin_sync(tail.pending_bytes()),
        }
    }

    fn sync(&self, unsynced: &Unsynced) -> Result<()> {
        for rotated in &unsynced.rotated {
            if !planted(Planted::SkipRotatedSync) {
                self.sync_file(rotated.segment.id(), &rotated.file)?;
            }
            rotated.synced.store(true, Ordering::Release);
        }
        let Some(active) = &unsynced.active else {
            return Ok(());
        };
        // Space that others are waiting for is not taken ahead.
        let most = match self.reserve.is_full() {
            true => 0,
            false => active.full_end,
        };
        let synced = active.file.sync_ahead(unsynced.end.offset, most);
        self.synced_file(active.id, synced)
    }

    fn check_synced(&self, tail: &Tail) -> Result<()> {
        let sound = self.context.directory.check_syncs();
        sound
            .and_then(|()| self.check_linked(tail))
            .map_err(|error| Error::unsure("trust a sync in", self.context.path(), error))
    }

    fn synced(&self, tail: &mut Tail, unsynced: Unsynced, is_news: bool) {
        let is_all = tail.end() == unsynced.end;
        tail.behind.synced(&unsynced.began, is_all);
        if is_news {
            tail.durable_end = unsynced.end;
        }
    }

    #[inline]
    fn check_device(&self) -> Result<()> {
        self.context
            .directory
            .check_syncs()
            .map_err(|error| Error::io("trust the file system after a failed sync", self.context.path(), error))
    }

    fn wake_flusher(&self) {
        self.context.flush_wake.wake();
    }
}

impl Device {
    /// Syncs the file of a segment that no longer grows.
    pub(super) fn sync_file(&self, id: u64, file: &LogFile) -> Result<()> {
        self.synced_file(id, file.sync())
    }

    fn synced_file(&self, id: u64, synced: std::io::Result<()>) -> Result<()> {
        self.context.events.syncs.fetch_add(1, Ordering::Relaxed);
        synced.map_err(|error| Error::unsure("sync", &self.context.segment_path(id), error))
    }

    /// Fails if the directory, its lock or the active segment was removed. Called under the lock,
    /// since at any other time an active segment may be rotated out, sealed and compacted away.
    pub(super) fn check_linked(&self, tail: &Tail) -> std::io::Result<()> {
        self.context.check_linked()?;
        match &tail.active {
            Some(active) => active.file.check_linked(),
            None => Ok(()),
        }
    }
}
