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

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::manifest::{Floors, ReplaceError};
use super::output::Move;
use super::{Engine, lock, random_u64};
use crate::error::{Error, Result};
use crate::format::manifest::{SegmentEntry, SegmentState};
use crate::format::record::{Header, Kind, RunCrc, sequence_fits};
use crate::format::segment::{Mark, RECORD_START_MAX, SEGMENT_HEADER_LEN, SegmentHeader, Start, Summary};
use crate::index::keydir::Location;
use crate::options::{Durability, Maintenance};
use crate::segment::buffer::Appender;
use crate::segment::scan::add_to_summary;
use crate::segment::{Counters, Segment};
use crate::storage::{StorageFile, write_all_at};

/// Pending bytes of class `Buffered` at which the maintenance thread is asked to write them out.
const PENDING_WAKE_BYTES: usize = 256 << 10;
/// Pending bytes at which the writer itself writes them out.
const PENDING_MAX_BYTES: usize = 4 << 20;

/// Bytes written since the last sync at which the maintenance thread syncs.
const SYNC_BEHIND_BYTES: u64 = 16 << 20;
/// Room that a start record and a mark take, generously.
const SEGMENT_OVERHEAD: u64 = 256;

/// What the writer lock protects.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    /// Given to the next record.
    pub(crate) next_sequence: u64,
    /// Of the newest record in the log.
    pub(crate) last_sequence: u64,
    /// Everything up to here is in the page cache.
    pub(crate) written_sequence: u64,
    /// Everything up to here is on the device.
    pub(crate) durable_sequence: u64,
    /// Bytes that had been written since opening when the last sync began.
    synced_bytes: u64,
    /// Where that ends in the log.
    pub(super) durable_end: Mark,
    /// What was durable when the newest mark was written.
    pub(super) marked_sequence: u64,
    pub(super) active: Option<Active>,
    /// The next active segment, created and listed ahead of time.
    pub(super) prepared: Option<Prepared>,
    /// Segments that were rotated out and are not sealed yet, oldest first.
    pub(super) sealing: Vec<Arc<Rotated>>,
    /// Where the segment before the active one ended.
    pub(super) previous: Start,
    /// A leader is writing out, or syncing.
    writing: bool,
    syncing: bool,
    /// Threads that wait for a leader.
    waiting: usize,
    /// How to take back each pending record, oldest first.
    pub(super) undo: Vec<Undo>,
    /// Pending bytes before this offset of the active segment were acknowledged.
    acknowledged_end: u64,
    /// Sequences whose write-out failed, while somebody may still ask.
    failed: Vec<Failure>,
    /// Writes that have not yet learnt how they ended.
    in_flight: usize,
    /// Rises whenever records are taken back.
    pub(crate) rollbacks: u64,
    /// What recovery could not yet write anew for lack of space.
    pub(super) unrecovered: Option<super::recovery::Unrecovered>,
    poisoned: Option<String>,
    pub(super) closed: bool,
}

/// The segment that is being written to.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) segment: Arc<Segment>,
    pub(super) file: Arc<LogFile>,
    pub(super) appender: Appender,
    /// Bytes of it that are in the file.
    pub(super) written: u64,
    /// Account of all records in the buffer.
    pub(super) account: Account,
    /// Account of those that are in the file.
    written_account: Account,
}

/// What a seal will say.
#[derive(Clone, Debug)]
pub(super) struct Account {
    crc: RunCrc,
    summary: Summary,
}

impl Account {
    pub(super) fn new() -> Account {
        let summary = Summary {
            data_end: SEGMENT_HEADER_LEN,
            min_sequence: u64::MAX,
            ..Summary::default()
        };
        Account {
            crc: RunCrc::default(),
            summary,
        }
    }

    /// Counts a record, given as stored.
    pub(super) fn add(&mut self, header: &Header, record: &[u8]) {
        add_to_summary(&mut self.summary, header);
        self.crc.add(record);
        self.summary.data_end += record.len() as u64;
    }

    pub(super) fn summary(&self) -> Summary {
        Summary {
            records_crc: self.crc.value(),
            ..self.summary
        }
    }
}

/// A segment that will be written to next.
#[derive(Debug)]
pub(super) struct Prepared {
    header: SegmentHeader,
    file: Arc<LogFile>,
    appender: Appender,
}

/// A segment that no longer grows but has no seal yet.
#[derive(Debug)]
pub(super) struct Rotated {
    pub(super) segment: Arc<Segment>,
    pub(super) file: Arc<LogFile>,
    pub(super) summary: Summary,
    pub(super) synced: AtomicBool,
}

/// The file of a segment that is being written to. Two threads may want to sync it, the leader of the writers and the one who
/// seals; the system tells only one of them of a failure, so they take turns, and who comes second is told as well.
#[derive(Debug)]
pub(super) struct LogFile {
    file: Arc<dyn StorageFile>,
    sync_failed: Mutex<bool>,
}

impl LogFile {
    fn new(file: Arc<dyn StorageFile>) -> Arc<LogFile> {
        Arc::new(LogFile {
            file,
            sync_failed: Mutex::new(false),
        })
    }

    /// Makes durable what was written before. After a failure never again: the system may have thrown the data away.
    pub(super) fn sync(&self) -> std::io::Result<()> {
        let mut failed = lock(&self.sync_failed);
        if *failed {
            return Err(std::io::Error::other("an earlier sync of this file failed"));
        }
        self.file.sync().inspect_err(|_| *failed = true)
    }

    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        write_all_at(&*self.file, bytes, offset)
    }

    pub(super) fn cut(&self, length: u64) -> std::io::Result<()> {
        self.file.set_len(length)
    }
}

/// How to take back one record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Undo {
    pub(super) offset: u64,
    pub(super) sequence: u64,
    pub(super) hash: u64,
    /// What the keydir said before.
    pub(super) previous: Option<Location>,
}

/// Sequences that were not written out, and why.
#[derive(Debug)]
struct Failure {
    from: u64,
    to: u64,
    error: Error,
}

impl Writer {
    pub(crate) fn new(next_sequence: u64) -> Writer {
        let last = next_sequence.saturating_sub(1);
        Writer {
            next_sequence,
            last_sequence: last,
            written_sequence: last,
            durable_sequence: last,
            marked_sequence: last,
            ..Writer::default()
        }
    }

    /// Refuses if nothing may be written any more.
    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed {
            return Err(Error::Closed);
        }
        match &self.poisoned {
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    pub(crate) fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    /// Whether recovery still has to write anew what it found.
    pub(crate) fn is_recovering(&self) -> bool {
        self.unrecovered.is_some()
    }

    /// Records were copied: pending records that stand in front of them would, taken back, uncover the copies.
    pub(crate) fn forward(&mut self, moves: &[Move]) {
        if self.undo.is_empty() {
            return;
        }
        let to: HashMap<Location, Location> = moves.iter().map(|step| (step.from, step.to)).collect();
        for undo in &mut self.undo {
            undo.previous = undo
                .previous
                .map(|previous| to.get(&previous).copied().unwrap_or(previous));
        }
    }

    /// Bytes that only memory holds.
    pub(crate) fn pending_bytes(&self) -> u64 {
        self.active
            .as_ref()
            .map_or(0, |active| active.appender.len() as u64 - active.written)
    }

    /// Memory of the active segment and those not sealed yet.
    pub(crate) fn buffer_bytes(&self) -> u64 {
        let rotated: u64 = self.sealing.iter().map(|rotated| rotated.summary.data_end).sum();
        rotated + self.active.as_ref().map_or(0, |active| active.appender.len() as u64)
    }

    /// The active segment grows no more.
    fn rotated_out(&mut self, old: Active) {
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

    fn failure_of(&self, sequence: u64) -> Option<&Error> {
        let failure = self
            .failed
            .iter()
            .find(|failure| (failure.from..=failure.to).contains(&sequence))?;
        Some(&failure.error)
    }

    /// The log is durable up to this sequence, which ends here.
    pub(super) fn durable_up_to(&mut self, sequence: u64, end: Mark) {
        if sequence > self.durable_sequence {
            (self.durable_sequence, self.durable_end) = (sequence, end);
        }
    }

    /// A write has learnt how it ended.
    fn landed(&mut self) {
        self.in_flight -= 1;
        if self.in_flight == 0 {
            self.failed.clear();
        }
    }
}

/// The writer lock, held.
pub(crate) type Guard<'a> = MutexGuard<'a, Writer>;

impl Engine {
    /// Takes the writer lock.
    pub(crate) fn lock_writer(&self) -> Guard<'_> {
        lock(&self.writer)
    }

    /// Gives up the lock until a leader has ended its work.
    fn wait<'a>(&'a self, mut guard: Guard<'a>) -> Guard<'a> {
        guard.waiting += 1;
        let mut guard = self.progressed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        guard.waiting -= 1;
        guard
    }

    fn notify(&self, guard: &Guard<'_>) {
        if guard.waiting > 0 {
            self.progressed.notify_all();
        }
    }

    /// Refuses all further writes.
    pub(crate) fn poison(&self, guard: &mut Guard<'_>, cause: &Error) {
        if guard.poisoned.is_none() {
            guard.poisoned = Some(cause.to_string());
        }
        self.notify(guard);
    }

    /// Floors for the manifest, as of now.
    pub(super) fn floors(&self, guard: &Guard<'_>) -> Floors {
        Floors {
            next_sequence: guard.next_sequence,
            next_namespace: self.next_namespace.load(Ordering::Acquire),
        }
    }

    /// Changes the manifest; poisons the store if it is unknown which one stands. The writer lock must not be held.
    pub(crate) fn update_manifest(&self, change: impl FnOnce(&mut crate::format::manifest::Manifest)) -> Result<()> {
        let floors = self.floors(&self.lock_writer());
        match self.manifest.update(floors, change) {
            Ok(()) => Ok(()),
            Err(ReplaceError::Unchanged(error)) => Err(error),
            Err(ReplaceError::Unknown(error)) => {
                self.poison(&mut self.lock_writer(), &error);
                Err(error)
            }
        }
    }

    /// Makes sure that the active segment has room for records of this length and number, beginning a new segment if need be.
    pub(super) fn ensure_room<'a>(&'a self, mut guard: Guard<'a>, length: u64, count: u64) -> Result<Guard<'a>> {
        loop {
            guard.check_open()?;
            if guard.unrecovered.is_some() {
                self.finish_recovery(&mut guard)?;
            }
            match &guard.active {
                Some(active) if active.has_room(length, guard.next_sequence + count) => return Ok(guard),
                Some(_) if guard.writing => guard = self.wait(guard),
                _ => self.rotate(&mut guard, length)?,
            }
        }
    }

    /// As [`Engine::ensure_room`], and nobody is writing out.
    pub(super) fn ensure_room_when_idle<'a>(&'a self, guard: Guard<'a>, length: u64, count: u64) -> Result<Guard<'a>> {
        let mut guard = self.ensure_room(guard, length, count)?;
        while guard.writing {
            guard = self.wait(guard);
            guard = self.ensure_room(guard, length, count)?;
        }
        Ok(guard)
    }

    /// Begins a new active segment with room for `length` bytes. Nobody may be writing out.
    fn rotate(&self, guard: &mut Guard<'_>, length: u64) -> Result<()> {
        let next = match guard.prepared.take() {
            Some(next) if next.has_room(length, guard.next_sequence) => next,
            unfit => {
                let created = self.create_segment(self.floors(guard), length);
                guard.prepared = unfit;
                created.map_err(|error| self.not_created(guard, error))?
            }
        };
        if let Err(error) = self.write_out_held(guard) {
            if guard.prepared.is_none() {
                guard.prepared = Some(next);
            }
            return Err(error);
        }
        if let Some(old) = guard.active.take() {
            guard.rotated_out(old);
            self.wake.wake();
        }
        let segment = Arc::new(Segment::active(
            next.header,
            next.appender.buffer().clone(),
            Arc::new(Counters::default()),
        ));
        self.segments.set(segment.clone());
        guard.acknowledged_end = 0;
        guard.active = Some(Active {
            segment,
            file: next.file,
            written: next.appender.len() as u64,
            appender: next.appender,
            account: Account::new(),
            written_account: Account::new(),
        });
        let start = guard.previous.encode();
        self.append(guard, Kind::Start, &start);
        Ok(())
    }

    /// Creates the file of a segment with room for at least `length` bytes, and lists it as open.
    fn create_segment(&self, floors: Floors, length: u64) -> Result<Prepared, ReplaceError> {
        let id = self.manifest.allocate_id().map_err(ReplaceError::Unchanged)?;
        let path = self.segment_path(id);
        let header = self.new_segment_header(id, floors.next_sequence);
        let file = self.create_segment_file(&header).map_err(ReplaceError::Unchanged)?;
        let entry = SegmentEntry {
            id,
            state: SegmentState::Open,
        };
        let listed = self.manifest.update(floors, |manifest| manifest.segments.push(entry));
        if let Err(ReplaceError::Unchanged(_)) = &listed {
            // Not listed, so it is junk; if it cannot be removed now, the next opening does.
            let _ = self.storage.remove(&path);
        }
        listed?;
        let capacity = self
            .options
            .segment_bytes
            .max(length + SEGMENT_HEADER_LEN + SEGMENT_OVERHEAD);
        let mut appender = Appender::new(capacity as usize);
        let encoded = header.encode();
        if let Some(spare) = appender.spare().get_mut(..encoded.len()) {
            spare.copy_from_slice(&encoded);
        }
        appender.publish(encoded.len());
        Ok(Prepared {
            header,
            file: LogFile::new(file),
            appender,
        })
    }

    /// Why no segment was created. If it is unknown which manifest stands, nothing more may be written.
    fn not_created(&self, guard: &mut Guard<'_>, error: ReplaceError) -> Error {
        match error {
            ReplaceError::Unchanged(error) => {
                self.note_full(&error);
                error
            }
            ReplaceError::Unknown(error) => {
                self.poison(guard, &error);
                error
            }
        }
    }

    pub(super) fn new_segment_header(&self, id: u64, base_sequence: u64) -> SegmentHeader {
        SegmentHeader {
            salt: random_u64() as u32,
            store_id: self.manifest.store_id(),
            segment_id: id,
            base_sequence,
            created_ms: self.time.wall_ms(),
        }
    }

    /// Creates a segment's file with nothing but its header, name and content durable.
    pub(super) fn create_segment_file(&self, header: &SegmentHeader) -> Result<Arc<dyn StorageFile>> {
        let path = self.segment_path(header.segment_id);
        let file = self
            .storage
            .create(&path)
            .map_err(|error| Error::io("create", &path, error))?;
        let filled = write_all_at(&*file, &header.encode(), 0)
            .map_err(|error| Error::io("write", &path, error))
            .and_then(|()| file.sync().map_err(|error| Error::io("sync", &path, error)))
            .and_then(|()| {
                self.storage
                    .sync_directory(&self.directory)
                    .map_err(|error| Error::io("sync the directory of", &path, error))
            });
        if let Err(error) = filled {
            // Listed nowhere; if it cannot be removed now, the next opening does.
            let _ = self.storage.remove(&path);
            return Err(error);
        }
        Ok(file)
    }

    /// Prepares the next segment once the active one is half full. Called by the maintenance thread.
    pub(crate) fn prepare_ahead(&self) -> Result<()> {
        let guard = self.lock_writer();
        let wanted = guard.check_open().is_ok()
            && guard.prepared.is_none()
            && guard
                .active
                .as_ref()
                .is_some_and(|active| active.appender.spare_len() < active.appender.len());
        if !wanted {
            return Ok(());
        }
        let floors = self.floors(&guard);
        drop(guard);
        let created = self.create_segment(floors, 0);
        let mut guard = self.lock_writer();
        let next = created.map_err(|error| self.not_created(&mut guard, error))?;
        // A writer may have been faster, but then it needed a larger one or an earlier one; either way this one is next.
        if guard.prepared.is_none() && !guard.closed {
            guard.prepared = Some(next);
        } else {
            drop(guard);
            self.discard_prepared(next)?;
        }
        Ok(())
    }

    /// Removes a prepared segment that will not be used.
    pub(super) fn discard_prepared(&self, prepared: Prepared) -> Result<()> {
        let id = prepared.header.segment_id;
        self.update_manifest(|manifest| manifest.segments.retain(|entry| entry.id != id))?;
        let path = self.segment_path(id);
        self.storage
            .remove(&path)
            .map_err(|error| Error::io("remove", &path, error))
    }

    /// Appends one record that is about the log itself.
    pub(super) fn append(&self, guard: &mut Guard<'_>, kind: Kind, body: &[u8]) {
        let sequence = guard.next_sequence;
        guard.next_sequence += 1;
        guard.last_sequence = sequence;
        if let Some(active) = &mut guard.active {
            let header = Header {
                kind,
                namespace: 0,
                sequence,
                expiry: None,
                key_len: 0,
                metadata_len: None,
                value_len: body.len() as u32,
                body_crc: crc32fast::hash(body),
            };
            active.put_record(&header, &[body]);
            active.publish(header.record_len() as usize);
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
                self.events.write_outs.fetch_add(1, Ordering::Relaxed);
                self.events
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
                let error = Error::io("write", &self.segment_path(active.segment.id()), source);
                self.roll_back(guard, &error);
                Err(error)
            }
        }
    }

    /// After a failed write-out: cuts the file back, and takes back all pending records that nobody was told of.
    fn roll_back(&self, guard: &mut Guard<'_>, error: &Error) {
        self.note_full(error);
        let failure = Failure {
            from: guard.written_sequence + 1,
            to: guard.next_sequence - 1,
            error: error.clone(),
        };
        if guard.in_flight > 0 {
            guard.failed.push(failure);
        }
        let keep_end = guard.acknowledged_end;
        let undo = std::mem::take(&mut guard.undo);
        let Some(active) = &mut guard.active else { return };
        let keep_end = keep_end.max(active.written);
        if let Err(source) = active.file.cut(active.written) {
            let cause = Error::io(
                "cut back after a failed write",
                &self.segment_path(active.segment.id()),
                source,
            );
            guard.undo = undo;
            self.poison(guard, &cause);
            return;
        }
        if keep_end < active.appender.len() as u64 {
            let split = undo.partition_point(|undo| undo.offset < keep_end);
            let (kept, taken_back) = undo.split_at_checked(split).unwrap_or_default();
            self.while_applying_batch(|| {
                for undo in taken_back.iter().rev() {
                    self.take_back(&active.segment, undo);
                }
            });
            active.take_back_to(keep_end);
            self.segments.set(active.segment.clone());
            guard.last_sequence = active.account.summary.max_sequence.max(guard.written_sequence);
            guard.undo = kept.to_vec();
            guard.rollbacks += 1;
        } else {
            guard.undo = undo;
        }
    }

    /// A write of this durability has been applied up to `sequence`: waits until that holds, giving up the lock.
    pub(super) fn finish<'a>(&'a self, mut guard: Guard<'a>, durability: Durability, sequence: u64) -> Result<()> {
        if durability == Durability::Buffered {
            let Some(active) = &guard.active else { return Ok(()) };
            let end = active.appender.len() as u64;
            let pending = (end - active.written) as usize;
            guard.acknowledged_end = end;
            if pending >= PENDING_MAX_BYTES && !guard.writing {
                return self.write_out(guard).1;
            }
            drop(guard);
            if pending >= PENDING_WAKE_BYTES {
                self.wake.wake();
            }
            return Ok(());
        }
        guard.in_flight += 1;
        let (mut guard, result) = match durability {
            Durability::Sync => self.wait_durable(guard, sequence),
            _ => self.wait_written(guard, sequence),
        };
        guard.landed();
        drop(guard);
        if self.options.maintenance == Maintenance::Manual {
            // Nobody else seals. This write is done; the next maintenance tries again and reports.
            if let Err(error) = self.seal_all() {
                self.events.note_background_error(&error);
            }
        }
        result
    }

    fn wait_written<'a>(&'a self, mut guard: Guard<'a>, sequence: u64) -> (Guard<'a>, Result<()>) {
        loop {
            if let Some(error) = guard.failure_of(sequence) {
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
                && guard.failure_of(sequence).is_none()
                && guard.written_sequence < sequence
            {
                return (guard, Err(error));
            }
        }
    }

    fn wait_durable<'a>(&'a self, mut guard: Guard<'a>, sequence: u64) -> (Guard<'a>, Result<()>) {
        loop {
            if let Some(error) = guard.failure_of(sequence) {
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
            let (back, result) = self.wait_written_without_landing(guard, sequence);
            guard = back;
            if let Err(error) = result {
                guard.syncing = false;
                self.notify(&guard);
                return (guard, Err(error));
            }
            let (back, result) = self.sync_written(guard);
            guard = back;
            guard.syncing = false;
            if let Err(error) = &result {
                self.poison(&mut guard, error);
            }
            self.notify(&guard);
            if result.is_err() {
                return (guard, result);
            }
        }
    }

    fn wait_written_without_landing<'a>(&'a self, guard: Guard<'a>, sequence: u64) -> (Guard<'a>, Result<()>) {
        let (guard, result) = self.write_out(guard);
        match result {
            // What failed may be others' records; this one may have been written before.
            Err(_) if guard.failure_of(sequence).is_none() && guard.written_sequence >= sequence => (guard, Ok(())),
            result => (guard, result),
        }
    }

    /// Syncs all that has been written out, oldest segment first. The caller has taken the role of the syncing leader.
    fn sync_written<'a>(&'a self, guard: Guard<'a>) -> (Guard<'a>, Result<()>) {
        let target = guard.written_sequence;
        let written_bytes = self.events.written_bytes.load(Ordering::Relaxed);
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
            self.events.syncs.fetch_add(1, Ordering::Relaxed);
            file.sync()
                .map_err(|error| Error::io("sync", &self.segment_path(id), error))
        };
        let mut result = Ok(());
        for rotated in rotated {
            result = sync(rotated.segment.id(), &rotated.file);
            if result.is_err() {
                break;
            }
            rotated.synced.store(true, Ordering::Release);
        }
        if let (Ok(()), Some((id, file, _))) = (&result, active) {
            result = sync(id, &file);
        }
        let mut guard = self.lock_writer();
        if result.is_ok() {
            guard.synced_bytes = written_bytes;
            guard.durable_up_to(target, end);
        }
        (guard, result)
    }

    /// Writes out all pending records.
    pub(crate) fn flush(&self) -> Result<()> {
        let guard = self.lock_writer();
        guard.check_poison()?;
        let sequence = guard.last_sequence;
        let mut guard = guard;
        guard.in_flight += 1;
        let (mut guard, result) = self.wait_written(guard, sequence);
        guard.landed();
        result
    }

    /// Makes everything durable that was acknowledged before this call.
    pub(crate) fn sync(&self) -> Result<()> {
        let mut guard = self.lock_writer();
        guard.check_poison()?;
        if guard.is_recovering() {
            // What recovery found and could not write anew for lack of space is not durable yet.
            self.finish_recovery(&mut guard)?;
        }
        let sequence = guard.last_sequence;
        guard.in_flight += 1;
        let (mut guard, result) = self.wait_durable(guard, sequence);
        guard.landed();
        result
    }

    /// Puts the active segment among those to be sealed, so that all data lie in segments that no longer grow.
    pub(crate) fn retire_active(&self) -> Result<()> {
        let mut guard = self.lock_writer();
        while guard.writing {
            guard = self.wait(guard);
        }
        self.write_out_held(&mut guard)?;
        if let Some(old) = guard.active.take() {
            guard.rotated_out(old);
        }
        Ok(())
    }

    /// Writes out what is pending, if anything is. Called by the maintenance thread.
    pub(crate) fn flush_pending(&self) -> Result<()> {
        let guard = self.lock_writer();
        if guard.pending_bytes() == 0 || guard.closed || guard.poisoned.is_some() {
            return Ok(());
        }
        self.write_out(guard).1
    }

    /// Syncs once much has been written since the last sync, so that little has to be written anew after a crash.
    /// Called by the maintenance thread.
    pub(crate) fn sync_behind(&self) -> Result<()> {
        let guard = self.lock_writer();
        let written = self.events.written_bytes.load(Ordering::Relaxed);
        let due = guard.written_sequence > guard.durable_sequence
            && written.saturating_sub(guard.synced_bytes) >= SYNC_BEHIND_BYTES;
        if !due || guard.closed || guard.poisoned.is_some() {
            return Ok(());
        }
        drop(guard);
        self.sync()
    }

    /// Writes out, syncs and seals everything; nothing is written afterwards.
    pub(crate) fn close_log(&self) -> Result<()> {
        let result = self.sync();
        let mut guard = self.lock_writer();
        guard.closed = true;
        let prepared = guard.prepared.take();
        drop(guard);
        result?;
        self.retire_active()?;
        self.seal_all()?;
        prepared.map_or(Ok(()), |prepared| self.discard_prepared(prepared))
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

    fn note_full(&self, error: &Error) {
        if error.is_no_space() {
            self.full.store(true, Ordering::Relaxed);
        }
    }
}

impl Writer {
    pub(super) fn check_poison(&self) -> Result<()> {
        match &self.poisoned {
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
            None => Ok(()),
        }
    }
}

impl Active {
    fn has_room(&self, length: u64, next_sequence: u64) -> bool {
        let begin = self.appender.len() as u64;
        // A segment made for one huge record is larger than what locations reach. If that record never came, several
        // small ones must not begin beyond their reach; the first write fits by itself, whatever its size.
        let is_fresh = begin <= SEGMENT_HEADER_LEN + SEGMENT_OVERHEAD;
        self.appender.spare_len() as u64 >= length
            && (is_fresh || begin + length <= RECORD_START_MAX)
            && sequence_fits(self.segment.header.base_sequence, next_sequence)
    }

    /// Encodes a record behind the published bytes, and `ahead` bytes further on. Returns nothing: room was made before.
    pub(super) fn put_record_ahead(&mut self, ahead: usize, header: &Header, parts: &[&[u8]]) {
        let offset = (self.appender.len() + ahead) as u64;
        let encoded = header.encode(self.segment.place(offset));
        let length = header.record_len() as usize;
        let Some(room) = self.appender.spare().get_mut(ahead..ahead + length) else {
            return;
        };
        let mut room_left = &mut *room;
        for part in std::iter::once(encoded.as_bytes()).chain(parts.iter().copied()) {
            let (target, rest) = room_left.split_at_mut(part.len());
            target.copy_from_slice(part);
            room_left = rest;
        }
        room_left.fill(0);
        self.account.add(header, room);
    }

    /// Encodes a record behind the published bytes.
    pub(super) fn put_record(&mut self, header: &Header, parts: &[&[u8]]) {
        self.put_record_ahead(0, header, parts);
    }

    pub(super) fn publish(&mut self, length: usize) {
        self.appender.publish(length);
    }

    /// Forgets all records at or beyond this offset: a new buffer, since somebody may still read the old one.
    fn take_back_to(&mut self, end: u64) {
        self.appender = self.appender.copy_of_first(end as usize);
        let segment = Segment::active(
            self.segment.header,
            self.appender.buffer().clone(),
            self.segment.counters.clone(),
        );
        self.segment = Arc::new(segment);
        self.account = self.written_account.clone();
        let mut offset = self.written;
        while offset < end {
            let mut unused = Vec::new();
            let Ok(record) = self.segment.record(offset, &mut unused) else {
                break;
            };
            let (header, length) = (record.header, record.header.record_len());
            let bytes = self.appender.buffer().published();
            let stored = bytes
                .get(offset as usize..(offset + length) as usize)
                .unwrap_or_default();
            self.account.add(&header, stored);
            offset += length;
        }
    }
}

impl Prepared {
    fn has_room(&self, length: u64, next_sequence: u64) -> bool {
        self.appender.spare_len() as u64 >= length + SEGMENT_OVERHEAD
            && sequence_fits(self.header.base_sequence, next_sequence)
    }
}
