//! The end of the log, under the writer lock: the active segment, its predecessors and successor,
//! and what can still be rolled back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::active::{Account, Active, LogFile, Prepared, Rotated};
use super::behind::{Beginning, Behind};
use super::commit::Environment;
use super::recent::RecentWrites;
use super::reserve::Reserve;
use super::ring::Ring;
use super::unrecovered::Unrecovered;
use super::watch::Watchers;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::segment::{Mark, Start};
use crate::location::Location;
use crate::planted::{Planted, planted};
use crate::segment::buffer::AppendBuffer;
use crate::state::{Move, State, Undo};

/// What the writer lock protects besides the state of the group commit.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(super) active: Option<Active>,
    /// The next active segment, created and listed ahead of time.
    pub(super) prepared: Option<Prepared>,
    /// Segments rotated out but not sealed yet, oldest first.
    pub(super) sealing: Vec<Arc<Rotated>>,
    /// Where the segment before the active one ended.
    pub(super) previous: Start,
    /// How to roll back each pending record, oldest first.
    pub(crate) undo: Vec<Undo>,
    /// Bytes of the active segment before this offset that are pending were acknowledged.
    pub(super) acknowledged_end: u64,
    /// Incremented whenever records are rolled back.
    pub(crate) rollbacks: u64,
    /// The end of the durable log.
    pub(super) durable_end: Mark,
    /// The durable sequence when the newest mark was written.
    pub(super) marked_sequence: u64,
    /// The newest mark, if all records before it were durable; else 0.
    pub(super) bare_mark: u64,
    /// What transactions need to know.
    pub(crate) recent: RecentWrites,
    /// Who is told of changes.
    pub(super) watchers: Watchers,
    /// What is not durable.
    pub(super) behind: Behind,
    /// Records that recovery could not copy to another segment yet, for lack of space.
    pub(crate) unrecovered: Option<Unrecovered>,
    /// Where what is pending survives the process; None where only files do.
    pub(super) ring: Option<Ring>,
}

impl Tail {
    /// For a log without segments.
    pub(crate) fn new() -> Tail {
        Tail {
            active: None,
            prepared: None,
            sealing: Vec::new(),
            previous: Start::default(),
            undo: Vec::new(),
            acknowledged_end: 0,
            rollbacks: 0,
            durable_end: Mark::default(),
            marked_sequence: 0,
            bare_mark: 0,
            recent: RecentWrites::default(),
            watchers: Watchers::default(),
            behind: Behind::default(),
            unrecovered: None,
            ring: None,
        }
    }

    /// Whether a failed write-out would take nothing back.
    #[inline]
    pub(super) fn is_firm(&self) -> bool {
        let end = self.active.as_ref().map_or(0, |active| active.appender.len() as u64);
        self.firm_end() >= end
    }

    /// Whether recovery still has records to copy.
    pub(crate) fn is_recovering(&self) -> bool {
        self.unrecovered.is_some()
    }

    /// Records were copied: if pending records that replaced them are rolled back, they must
    /// uncover the copies.
    pub(crate) fn forward(&mut self, moves: &[Move]) {
        if self.undo.is_empty() {
            return;
        }
        let copies: HashMap<Location, Location> = moves.iter().map(|step| (step.from, step.to)).collect();
        self.undo.iter_mut().for_each(|undo| undo.forward(&copies));
    }

    /// Bytes that are only in memory.
    pub(crate) fn pending_bytes(&self) -> u64 {
        self.active
            .as_ref()
            .map_or(0, |active| active.appender.len() as u64 - active.written)
    }

    /// The end of the log, with what is only in memory.
    pub(super) fn end(&self) -> Mark {
        match &self.active {
            Some(active) => Mark {
                segment_id: active.segment.id(),
                offset: active.appender.len() as u64,
            },
            None => Mark {
                segment_id: self.previous.previous_id,
                offset: self.previous.previous_end,
            },
        }
    }

    /// Where in the active segment what can be rolled back begins.
    fn firm_end(&self) -> u64 {
        let written = self.active.as_ref().map_or(0, |active| active.written);
        self.acknowledged_end.max(written)
    }

    /// The newest sequence that can no longer be rolled back, if this is the newest of all.
    pub(super) fn firm_sequence(&self, last: u64) -> u64 {
        let firm_end = self.firm_end();
        let first_unsure = self.undo.iter().find(|undo| undo.offset >= firm_end);
        first_unsure.map_or(last, |undo| undo.sequence - 1)
    }

    /// What can still be rolled back, and what comes later, will be told.
    pub(super) fn begin_telling(&mut self) {
        let segment_id = self.active.as_ref().map_or(0, |active| active.segment.id());
        let offset = self.firm_end();
        self.watchers.begin(Mark { segment_id, offset });
    }

    /// Tells the watchers what can no longer be rolled back.
    #[cold]
    pub(super) fn tell(&mut self) {
        let firm_end = self.firm_end();
        let active = self.active.as_ref().map(|active| &*active.segment);
        self.watchers.tell(active, firm_end);
    }

    /// Memory of the active segment and of those not sealed yet, in bytes.
    pub(crate) fn buffer_bytes(&self) -> u64 {
        let rotated: u64 = self.sealing.iter().map(|rotated| rotated.summary.data_end).sum();
        rotated + self.active.as_ref().map_or(0, |active| active.appender.len() as u64)
    }

    /// The active segment grows no more.
    pub(super) fn rotate_out(&mut self, old: Active) {
        let summary = old.account.summary();
        self.previous = Start {
            previous_id: old.segment.id(),
            previous_end: summary.data_end,
            previous_crc: summary.records_crc,
        };
        let synced = AtomicBool::new(false);
        self.sealing.push(Arc::new(Rotated {
            segment: old.segment,
            file: old.file,
            summary,
            synced,
        }));
    }
}

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
}

/// Segments whose files were written to.
pub(crate) struct Unsynced {
    /// Oldest first.
    rotated: Vec<Arc<Rotated>>,
    active: Option<(u64, Arc<LogFile>)>,
    end: Mark,
    began: Beginning,
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
    fn roll_back(&self, tail: &mut Tail, written_sequence: u64, error: &Error) -> Result<Option<u64>> {
        if planted(Planted::KeepFailedAppend) {
            return Ok(None);
        }
        self.reserve.note(error);
        let Some(active) = &mut tail.active else {
            return Ok(None);
        };
        if !planted(Planted::SkipCut)
            && let Err(source) = active.file.cut(active.written)
        {
            let path = self.context.segment_path(active.segment.id());
            return Err(Error::unsure("cut back after a failed write", &path, source));
        }
        let keep_end = tail.acknowledged_end.max(active.written);
        if keep_end >= active.appender.len() as u64 {
            return Ok(None);
        }
        let kept = tail.undo.partition_point(|undo| undo.offset < keep_end);
        let rolled_back = tail.undo.split_off(kept);
        self.state.undo(&active.segment, &rolled_back);
        active.roll_back_to(keep_end);
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
            active: active.map(|active| (active.segment.id(), active.file.clone())),
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
        match &unsynced.active {
            Some((id, file)) => self.sync_file(*id, file),
            None => Ok(()),
        }
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
    /// Syncs the file of a segment.
    pub(super) fn sync_file(&self, id: u64, file: &LogFile) -> Result<()> {
        self.context.events.syncs.fetch_add(1, Ordering::Relaxed);
        file.sync()
            .map_err(|error| Error::unsure("sync", &self.context.segment_path(id), error))
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
