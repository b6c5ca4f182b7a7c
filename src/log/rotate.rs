//! From one active segment to the next.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::active::{Account, Active, Prepared, SEGMENT_OVERHEAD};
use super::append::Room;
use super::log_file::LogFile;
use super::manifest::{Floors, ReplaceError, ReservedId, SEGMENTS_HELD_BACK};
use super::tail::Tail;
use super::{Guard, Log};
use crate::error::{Error, Result};
use crate::format::manifest::{SegmentEntry, SegmentState};
use crate::format::record::Kind;
use crate::format::segment::{SEGMENT_HEADER_LEN, SegmentHeader};
use crate::format::segment_file;
use crate::options::Maintenance;
use crate::planted::{Planted, planted};
use crate::segment::Segment;
use crate::segment::buffer::Appender;
use crate::storage::StorageFile;

/// Most segments waiting to be sealed, however small: sealing them should not take long.
const SEALING_MAX: usize = 4;
/// Segments waiting to be sealed from which on writers are slowed down.
const SEALING_BEHIND: usize = 2;
/// Most left-over files to pass over when a segment is created: files of unlisted segments that
/// could not be removed.
const LEFT_OVER_MAX: usize = 1 << 10;

impl Log {
    /// Makes sure that the active segment has room, and that the log may be written to.
    #[inline]
    pub(crate) fn ensure_room<'a>(&'a self, guard: Guard<'a>, room: Room) -> Result<Guard<'a>> {
        match self.is_ready(&guard, room) {
            true => Ok(guard),
            false => self.make_room(guard, room),
        }
    }

    /// Whether [`Log::make_room`] has nothing to do.
    #[inline]
    pub(super) fn is_ready(&self, guard: &Guard<'_>, room: Room) -> bool {
        let next_sequence = guard.next_sequence + room.sequences;
        let has_room = |active: &Active| active.has_room(room.bytes, next_sequence);
        self.commit.is_sound(guard)
            && guard.check_closed().is_ok()
            && !guard.tail.is_recovering()
            && guard.tail.active.as_ref().is_some_and(has_room)
    }

    /// Starts a new segment if the active one has no room, after all that has to be done before.
    fn make_room<'a>(&'a self, mut guard: Guard<'a>, room: Room) -> Result<Guard<'a>> {
        loop {
            guard.check_closed()?;
            self.check_sound(&mut guard)?;
            if guard.tail.is_recovering() {
                self.finish_recovery(&mut guard)?;
            }
            let next_sequence = guard.next_sequence + room.sequences;
            match &guard.tail.active {
                Some(active) if active.has_room(room.bytes, next_sequence) => return Ok(guard),
                Some(_) if guard.writing => guard = self.commit.wait(guard),
                // Segments that wait to be sealed are in memory until then, so a writer that is
                // faster than the device seals them itself before it starts another.
                Some(_) if self.are_buffers_full(&guard.tail) && !planted(Planted::PileUp) => {
                    drop(guard);
                    self.seal_oldest()?;
                    guard = self.lock();
                }
                _ => {
                    self.check_limit(room)?;
                    self.rotate(&mut guard, room.bytes)?;
                }
            }
        }
    }

    fn rotate_out(&self, guard: &mut Guard<'_>, old: Active) {
        guard.tail.rotate_out(old);
        self.note_unsealed(guard);
    }

    /// Notes how many segments wait to be sealed, for those who hold no lock.
    pub(super) fn note_unsealed(&self, guard: &Guard<'_>) {
        self.unsealed.store(guard.tail.sealing.len(), Ordering::Relaxed);
    }

    /// Whether writers outrun the thread that seals. They should wait a little now and then, or
    /// they will have to seal themselves.
    pub(crate) fn is_sealing_behind(&self) -> bool {
        self.unsealed.load(Ordering::Relaxed) >= SEALING_BEHIND
            && self.context.options.maintenance == Maintenance::Background
    }

    /// Whether the buffers would take too much memory with another active segment.
    fn are_buffers_full(&self, tail: &Tail) -> bool {
        // The prepared one takes memory only once it is written to: it is the other active one.
        let with_another = tail.buffer_bytes() + self.segment_bytes();
        tail.sealing.len() >= SEALING_MAX
            || !tail.sealing.is_empty() && with_another > self.context.options.buffer_bytes
    }

    /// As [`Log::ensure_room`], and returns when no leader is writing out.
    pub(super) fn ensure_room_when_idle<'a>(&'a self, guard: Guard<'a>, room: Room) -> Result<Guard<'a>> {
        let mut guard = self.ensure_room(guard, room)?;
        while guard.writing {
            guard = self.commit.wait(guard);
            guard = self.ensure_room(guard, room)?;
        }
        Ok(guard)
    }

    /// Starts a new active segment with room for `length` bytes. No leader may be writing out.
    fn rotate(&self, guard: &mut Guard<'_>, length: u64) -> Result<()> {
        self.commit.write_out_held(guard)?;
        let next = match guard.tail.prepared.take() {
            Some(next) if next.has_room(length, guard.next_sequence) => next,
            unfit => {
                let created = self.create_segment(self.floors(guard), length);
                guard.tail.prepared = unfit;
                created.map_err(|error| self.not_created(guard, error))?
            }
        };
        if let Some(old) = guard.tail.active.take() {
            self.rotate_out(guard, old);
            self.context.maintenance_wake.wake();
            self.context.flush_wake.wake();
            self.context.sync_wake.wake();
        }
        let next = self.activated(next);
        self.state.segments.set(next.segment.clone());
        guard.tail.active = Some(next);
        match &mut guard.tail.ring {
            // All that it had is in the file of the segment before.
            Some(ring) => ring.begin_segment(),
            None => self.ring.want(),
        }
        let start = guard.tail.previous.encode();
        self.append_own(guard, Kind::Start, &start);
        // The start record belongs to no write, so a roll-back must keep it: without it recovery
        // would take the segment for one that was never written to.
        if !planted(Planted::RollBackStart) {
            guard.tail.acknowledged_end = guard
                .tail
                .active
                .as_ref()
                .map_or(0, |active| active.appender.len() as u64);
        }
        Ok(())
    }

    /// Creates the file of a segment with room for at least `length` bytes, and lists it as open.
    fn create_segment(&self, floors: Floors, length: u64) -> Result<Prepared, ReplaceError> {
        // The id is held until the manifest lists it, or its file is removed.
        let (reserved, header, file) = self
            .create_unlisted_segment(floors.next_sequence, SEGMENTS_HELD_BACK)
            .map_err(ReplaceError::of_look)?;
        let id = reserved.id();
        let entry = SegmentEntry {
            id,
            state: SegmentState::Open,
        };
        let listed = self.manifest.update(floors, |manifest| manifest.segments.push(entry));
        if let Err(ReplaceError::Unchanged(_)) = &listed {
            // Not listed, so it is junk; if it cannot be removed now, the next open does it.
            let _ = self.context.directory.remove(&segment_file(id));
        }
        listed?;
        Ok(Prepared {
            header,
            file: LogFile::new(file),
            capacity: self.segment_bytes().max(length + SEGMENT_HEADER_LEN + SEGMENT_OVERHEAD),
        })
    }

    /// A prepared segment, to be written to.
    fn activated(&self, next: Prepared) -> Active {
        let (mut appender, is_committed) = Appender::of_spare(&self.spare_memory, next.capacity as usize);
        let header = next.header.encode();
        if let Some(spare) = appender.spare().get_mut(..header.len()) {
            spare.copy_from_slice(&header);
        }
        appender.publish(header.len());
        let segment = Segment::active(next.header, appender.buffer().clone(), Arc::default());
        Active {
            segment: Arc::new(segment),
            file: next.file,
            written: appender.len() as u64,
            appender,
            committed_ms: is_committed.then(|| self.context.time.monotonic_ms()),
            account: Account::new(),
            written_account: Account::new(),
        }
    }

    /// The error of a failed segment creation. If it is unknown which manifest is in place, the
    /// store is poisoned.
    fn not_created(&self, guard: &mut Guard<'_>, error: ReplaceError) -> Error {
        match error {
            ReplaceError::Unchanged(error) => {
                self.reserve.note(&error);
                error
            }
            ReplaceError::Unknown(error) => {
                if !planted(Planted::BelieveUnknownManifest) {
                    self.poison(guard, &error);
                }
                error
            }
        }
    }

    /// Creates a durable, empty segment that no manifest lists yet. `held_back` ids are not used.
    pub(super) fn create_unlisted_segment(
        &self,
        base_sequence: u64,
        held_back: usize,
    ) -> Result<(ReservedId, SegmentHeader, Arc<dyn StorageFile>)> {
        // Creates nothing in a directory that belongs to another store by now.
        if !planted(Planted::CreateBesideStranger) {
            self.manifest.check_stands()?;
        }
        let mut left_over = 0;
        loop {
            let id = self.manifest.allocate_id(held_back)?;
            let header = self.new_segment_header(id.id(), base_sequence);
            match self.files.create(&header) {
                // Left over from an earlier step that could not remove it. No manifest lists it, so
                // skip the id.
                Err(Error::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::AlreadyExists && left_over < LEFT_OVER_MAX =>
                {
                    left_over += 1;
                }
                created => return Ok((id, header, created?)),
            }
        }
    }

    fn new_segment_header(&self, id: u64, base_sequence: u64) -> SegmentHeader {
        SegmentHeader {
            salt: self.context.storage.random_u64() as u32,
            store_id: self.context.store_id,
            segment_id: id,
            base_sequence,
            created_ms: self.context.time.wall_ms(),
        }
    }

    /// Prepares the next segment once the active one is half full, or at once if the active one is
    /// not the first: a writer that fills one soon fills another. Called in the background.
    pub(crate) fn prepare_ahead(&self) -> Result<()> {
        let guard = self.lock();
        let wanted = guard.check_open().is_ok()
            && guard.tail.prepared.is_none()
            && guard.tail.active.as_ref().is_some_and(|active| {
                guard.tail.previous.previous_id != 0 || active.appender.spare_len() < active.appender.len()
            });
        if !wanted {
            return Ok(());
        }
        let floors = self.floors(&guard);
        drop(guard);
        let created = self.create_segment(floors, 0);
        let mut guard = self.lock();
        let next = created.map_err(|error| self.not_created(&mut guard, error))?;
        // A writer may have been faster, but only because it needed a larger segment or one
        // earlier; this one comes next either way.
        if guard.tail.prepared.is_none() && !guard.closed {
            guard.tail.prepared = Some(next);
        } else {
            drop(guard);
            self.discard_prepared(&next)?;
        }
        Ok(())
    }

    /// Removes a prepared segment that will not be used.
    pub(super) fn discard_prepared(&self, prepared: &Prepared) -> Result<()> {
        let id = prepared.header.segment_id;
        self.update_manifest(|manifest| manifest.segments.retain(|entry| entry.id != id))?;
        self.context
            .directory
            .remove(&segment_file(id))
            .map_err(|error| Error::io("remove", &self.context.segment_path(id), error))
    }

    /// Moves the active segment to those waiting to be sealed, so that all data is in segments that
    /// no longer grow.
    pub(crate) fn retire_active(&self) -> Result<()> {
        self.with_part_of_ring(|| self.retire_active_once())
    }

    fn retire_active_once(&self) -> Result<()> {
        let mut guard = self.lock();
        while guard.writing {
            guard = self.commit.wait(guard);
        }
        self.commit.write_out_held(&mut guard)?;
        if let Some(old) = guard.tail.active.take() {
            self.rotate_out(&mut guard, old);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
