//! Writing to the ring: what a write of class `Os` has appended is copied there, and survives the
//! process from then on, although it is not in its segment's file yet. How it is read is in
//! [`crate::segment::ring`].
//!
//! * Everything between what is written out and what was acknowledged is in the ring. That is never
//!   more than its length: a write that would make it more is written out before it is
//!   acknowledged.
//! * Nothing is copied that may still be rolled back: a copy is acknowledged under the same hold of
//!   the writer lock.
//! * A manifest names the ring from before the first copy until no segment is open, so that
//!   recovery reads it, and programs that do not know it refuse the store.
//! * The file is created after each opening, written and synced before it is mapped. So it has all
//!   of its blocks, shares none, and a store into its pages allocates nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, TryLockError};

use super::Log;
use super::device::Device;
use super::manifest::ReplaceError;
use super::reserve::ReservePart;
use super::tail::Tail;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::RING_FILE;
use crate::options::{ReadMode, RingMode};
use crate::planted::{Planted, planted};
use crate::storage::{OnlyMap, StorageRing, read_exact_at, write_all_at};
use crate::sync::lock;

/// Length of a ring. Long enough that the flush thread, which writes out a quarter of it at a time,
/// is not late.
const RING_BYTES: u64 = 1 << 20;
/// Its length is a multiple of a page.
const PAGE_BYTES: u64 = 4096;
/// The part of a segment that a ring takes.
const SHARE: u64 = 8;

/// The ring of a log that is open for writing. Kept under the writer lock.
#[derive(Debug)]
pub(super) struct Ring {
    pages: Box<dyn StorageRing>,
    length: u64,
    /// Up to here the bytes of the active segment that are not written out are in the ring.
    copied_to: u64,
}

impl Ring {
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Copies the bytes of the active segment that are not in its file, which are those from
    /// `written` on. None if they are too many, or so many that this thread had better write them
    /// out.
    #[inline]
    pub(super) fn keep(&mut self, segment: &[u8], written: u64, is_writing: bool) -> std::io::Result<Option<bool>> {
        let end = segment.len() as u64;
        if !self.has_room(end - written, is_writing) && !planted(Planted::OverwriteRing) {
            return Ok(None);
        }
        let from = self.copied_to.max(written);
        if !planted(Planted::AcknowledgeBeforeCopy) {
            self.copy(segment, from)?;
        }
        self.copied_to = end;
        let piece = self.length / 4;
        Ok(Some((end / piece) != (from / piece)))
    }

    /// Whether this many pending bytes are neither too many, nor so many that the writer had better
    /// write them out.
    #[inline]
    fn has_room(&self, pending: u64, is_writing: bool) -> bool {
        pending <= self.length && (pending <= self.length / 2 || is_writing)
    }

    /// Copies what the segment has from this offset on.
    #[inline]
    fn copy(&mut self, segment: &[u8], from: u64) -> std::io::Result<()> {
        let bytes = segment.get(from as usize..).unwrap_or_default();
        let position = from % self.length;
        let (first, second) = bytes.split_at(bytes.len().min((self.length - position) as usize));
        self.pages.store(first, position)?;
        if second.is_empty() {
            return Ok(());
        }
        self.pages.store(second, 0)
    }

    /// Another segment is active, of which nothing was copied.
    pub(super) fn begin_segment(&mut self) {
        self.copied_to = 0;
    }
}

impl Tail {
    /// Whether writes of class `Os` are acknowledged by the ring.
    #[inline]
    pub(crate) fn has_ring(&self) -> bool {
        self.ring.is_some()
    }

    /// Whether there is a ring that takes this many pending bytes.
    pub(super) fn ring_has_room(&self, pending: u64, is_writing: bool) -> bool {
        self.ring
            .as_ref()
            .is_some_and(|ring| ring.has_room(pending, is_writing))
    }

    /// Whether the ring has something that is not written out, and its part of the reserve is
    /// enough for all that is pending.
    pub(super) fn needs_part_of_ring(&self) -> bool {
        match (&self.ring, &self.active) {
            (Some(ring), Some(active)) => ring.copied_to > active.written && self.pending_bytes() <= ring.length,
            _ => false,
        }
    }

    /// Length of the ring; 0 if there is none.
    pub(crate) fn ring_bytes(&self) -> u64 {
        self.ring.as_ref().map_or(0, Ring::length)
    }
}

impl Device {
    /// See [`Environment::keep`](super::commit::Environment::keep).
    #[inline]
    pub(super) fn keep_in_ring(&self, tail: &mut Tail, is_writing: bool) -> Option<bool> {
        let (ring, active) = (tail.ring.as_mut()?, tail.active.as_ref()?);
        // While the ring's part of the reserve is not whole, nothing more may need it.
        let is_held_back = !self.reserve.is_full();
        if !is_held_back || active.file.check_linked().is_err() {
            return None;
        }
        match ring.keep(active.appender.buffer().published(), active.written, is_writing) {
            Ok(kept) => kept,
            Err(error) => {
                // No system call can fail here; whatever has, the ring is not to be relied on.
                tail.ring = None;
                let path = self.context.directory.path_of(RING_FILE);
                self.context
                    .events
                    .note_background_error(&Error::io("store to", &path, error));
                None
            }
        }
    }
}

/// Makes the ring when the first write wants it.
#[derive(Debug)]
pub(super) struct RingMaker {
    is_allowed: bool,
    /// Whether the next write of class `Os` is to try.
    wanted: AtomicBool,
    /// Held by the thread that makes it. Closing waits for that.
    making: Mutex<()>,
    /// Whether a file may be there.
    has_file: AtomicBool,
}

impl RingMaker {
    pub(super) fn new(context: &Context, has_file: bool) -> RingMaker {
        let options = &context.options;
        let is_allowed = match options.ring {
            RingMode::Never => false,
            RingMode::Always => true,
            RingMode::Auto => options.read_mode == ReadMode::Map && context.directory.suits_rings(),
        };
        let is_allowed = is_allowed && !options.in_memory && !context.directory.is_read_only();
        RingMaker {
            is_allowed,
            wanted: AtomicBool::new(is_allowed),
            making: Mutex::new(()),
            has_file: AtomicBool::new(has_file),
        }
    }

    /// Whether the next write of class `Os` is to try.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Has the next write try, after an attempt that has failed.
    pub(super) fn want(&self) {
        self.wanted.store(self.is_allowed, Ordering::Relaxed);
    }

    /// Returns when no thread is making a ring. None begins once the log refuses writes.
    pub(super) fn wait(&self) {
        if !planted(Planted::CloseBesideRing) {
            drop(lock(&self.making));
        }
    }
}

impl Log {
    /// Makes the ring, unless there is one, or another thread is making it.
    #[inline]
    pub(super) fn make_ring_if_wanted(&self) {
        if self.ring.wanted.load(Ordering::Relaxed) {
            self.make_ring();
        }
    }

    #[cold]
    fn make_ring(&self) {
        let _one_at_a_time = match self.ring.making.try_lock() {
            Err(TryLockError::WouldBlock) => return,
            making => making,
        };
        let mut guard = self.lock();
        // What recovery could not copy yet may be in the ring that is there.
        let is_possible = guard.check_open().is_ok() && !guard.tail.is_recovering();
        if !is_possible || self.check_sound(&mut guard).is_err() {
            return;
        }
        drop(guard);
        self.ring.wanted.store(false, Ordering::Relaxed);
        // One that a manifest names is not made again, even if a store to it has failed: it may
        // have what is not written out.
        let length = self.ring_length();
        if self.manifest.ring_bytes() > 0 || self.reserve.is_full() || !self.has_room_for_ring(length) {
            return;
        }
        match self.new_ring(length) {
            Ok(ring) => self.lock().tail.ring = Some(ring),
            // Without a ring, writes are acknowledged once they are written out.
            Err(error) => self.context.events.note_background_error(&error),
        }
    }

    /// A part of a segment, so that the disk that it takes follows the data.
    fn ring_length(&self) -> u64 {
        (self.segment_bytes() / SHARE / PAGE_BYTES * PAGE_BYTES).clamp(PAGE_BYTES, RING_BYTES)
    }

    fn new_ring(&self, length: u64) -> Result<Ring> {
        // Makes nothing in a directory that belongs to another store by now.
        self.manifest.check_stands()?;
        self.reserve.hold_for_ring(length)?;
        self.ring.has_file.store(true, Ordering::Relaxed);
        let path = self.context.directory.path_of(RING_FILE);
        let pages = match self.new_pages(length) {
            Ok(pages) => pages,
            Err(error) => {
                self.give_ring_up();
                return Err(Error::io("make", &path, error));
            }
        };
        let floors = self.floors(&self.lock());
        match self.manifest.update_with_ring(floors, length as u32, |_| ()) {
            Ok(()) => Ok(Ring {
                pages,
                length,
                copied_to: 0,
            }),
            Err(ReplaceError::Unchanged(error)) => {
                self.give_ring_up();
                Err(error)
            }
            Err(ReplaceError::Unknown(error)) => {
                // The manifest in place may name it.
                if planted(Planted::RemoveNamedRing) {
                    self.give_ring_up();
                }
                self.poison(&mut self.lock(), &error);
                Err(error)
            }
        }
    }

    /// Removes what was made of a ring that no manifest names.
    fn give_ring_up(&self) {
        let _ = self.context.directory.remove_if_there(RING_FILE);
        let _ = self.reserve.hold_for_ring(0);
    }

    /// Makes the file, durably, and maps it.
    fn new_pages(&self, length: u64) -> std::io::Result<Box<dyn StorageRing>> {
        const PROBE: &[u8] = b"stored, not written";
        let directory = &self.context.directory;
        directory.remove_if_there(RING_FILE)?;
        let file = directory.create(RING_FILE)?;
        write_all_at(&*file, &vec![0; length as usize], 0)?;
        file.sync()?;
        directory.sync()?;
        let mut pages = file.map_ring(length, OnlyMap::promised())?;
        // What is stored must be what another process reads.
        let mut found = [0; PROBE.len()];
        pages.store(PROBE, length - PROBE.len() as u64)?;
        read_exact_at(&*file, &mut found, length - PROBE.len() as u64)?;
        if found == PROBE {
            Ok(pages)
        } else {
            Err(std::io::ErrorKind::Unsupported.into())
        }
    }

    /// Runs work that writes out what is pending. On a full disk, what was acknowledged by the ring
    /// gets its part of the reserve.
    pub(super) fn with_part_of_ring<T>(&self, mut work: impl FnMut() -> Result<T>) -> Result<T> {
        match work() {
            Err(error) if error.is_no_space() && self.lock().tail.needs_part_of_ring() => {
                self.reserve.release(ReservePart::Acknowledged);
                work()
            }
            result => result,
        }
    }

    /// Removes the ring, unless the manifest in place names it. Nothing is written any more.
    pub(super) fn remove_ring(&self) {
        drop(self.lock().tail.ring.take());
        let is_named = self.manifest.current().ring_bytes > 0;
        if !is_named && self.ring.has_file.load(Ordering::Relaxed) {
            // If it stays, the next opening removes it.
            let _ = self.context.directory.remove_if_there(RING_FILE);
        }
    }
}
