//! The reserve: disk space held back, so that deleting and compacting still work on a full disk.
//!
//! It is a file of zeros, RESERVE, as long as a segment and a part for tombstones. Work that frees
//! space in the end may use both; deletes may use the part for tombstones, so that a segment's
//! length is left for the compaction that reclaims their space: the survivors of any one segment
//! fit; puts may use none. While writes are acknowledged by the ring, the reserve has another part,
//! as long as the ring, that only these may use, to be written out: no more than that was
//! acknowledged so and is in no segment's file. Work that finds the disk full releases its part of
//! the file and is run once more. From then on work that may not use the whole reserve is refused
//! until the part kept from it is complete again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::RESERVE_FILE;
use crate::planted::{Planted, planted};
use crate::storage::write_all_at;
use crate::sync::lock;

/// The part for tombstones is a quarter of a segment, but at least this, or a segment if that is
/// smaller.
const TOMBSTONES_MIN: u64 = 64 << 10;

/// The part of the reserve that a piece of work may use when the disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReservePart {
    /// Puts.
    None,
    /// Deletes.
    Tombstones,
    /// Work that frees space in the end.
    Whole,
    /// Writing out what the ring has.
    Acknowledged,
    /// What was acknowledged, when there is no later.
    All,
}

impl ReservePart {
    /// The part for a write, by whether it only deletes.
    pub(crate) fn of_write(deletes: bool) -> ReservePart {
        if deletes {
            ReservePart::Tombstones
        } else {
            ReservePart::None
        }
    }

    /// Bytes of the reserve that this work may not use, with segments of this size, and a ring of
    /// this length.
    #[inline]
    fn kept(self, segment_bytes: u64, ring_bytes: u64) -> u64 {
        match self {
            ReservePart::None if planted(Planted::PutsTakeReserve) => 0,
            ReservePart::Tombstones if planted(Planted::DeletesTakeAll) => 0,
            ReservePart::Whole if planted(Planted::SpendRingReserve) => 0,
            ReservePart::None => reserve_bytes(segment_bytes) + ring_bytes,
            ReservePart::Tombstones => segment_bytes + ring_bytes,
            ReservePart::Whole => ring_bytes,
            ReservePart::Acknowledged | ReservePart::All => 0,
        }
    }

    /// Whether this error is a lack of space that releasing part of the reserve can fix.
    pub(crate) fn helps(self, error: &Error) -> bool {
        error.is_no_space() && (self != ReservePart::None || planted(Planted::PutsTakeReserve))
    }
}

/// Length of the reserve without the ring's part, with segments of this size.
fn reserve_bytes(segment_bytes: u64) -> u64 {
    segment_bytes + (segment_bytes / 4).max(TOMBSTONES_MIN.min(segment_bytes))
}

/// The reserve of one store.
#[derive(Debug)]
pub(crate) struct Reserve {
    context: Arc<Context>,
    /// Size of a segment.
    segment_bytes: AtomicU64,
    /// Length of the ring; 0 if there is none.
    ring_bytes: AtomicU64,
    /// Whether the ring's part was released, and the reserve has not been whole since.
    spent_on_ring: AtomicBool,
    /// Whether the disk was found full and the reserve has not been whole since.
    full: AtomicBool,
    /// Held while the file is read or changed.
    file: Mutex<()>,
}

impl Reserve {
    pub(crate) fn new(context: Arc<Context>) -> Reserve {
        Reserve {
            segment_bytes: AtomicU64::new(context.options.segment_bytes),
            ring_bytes: AtomicU64::new(0),
            spent_on_ring: AtomicBool::new(false),
            context,
            full: AtomicBool::new(false),
            file: Mutex::new(()),
        }
    }

    #[inline]
    fn segment_bytes(&self) -> u64 {
        self.segment_bytes.load(Ordering::Relaxed)
    }

    #[inline]
    fn kept(&self, part: ReservePart) -> u64 {
        let is_spent = self.spent_on_ring.load(Ordering::Relaxed) && part != ReservePart::None;
        let ring_bytes = if is_spent {
            0
        } else {
            self.ring_bytes.load(Ordering::Relaxed)
        };
        part.kept(self.segment_bytes(), ring_bytes)
    }

    /// Length of the whole reserve.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes_for_compaction() + self.ring_bytes.load(Ordering::Relaxed)
    }

    /// The same without the ring's part.
    pub(crate) fn bytes_for_compaction(&self) -> u64 {
        if self.context.options.in_memory {
            return 0;
        }
        reserve_bytes(self.segment_bytes())
    }

    /// Holds back a part for a ring of this length, or none if that is 0. On an error there is
    /// none; the disk does not count as full for that.
    pub(crate) fn hold_for_ring(&self, ring_bytes: u64) -> Result<()> {
        let _one_at_a_time = lock(&self.file);
        if !self.context.has_directory() {
            return Err(Error::Closed);
        }
        self.ring_bytes.store(ring_bytes, Ordering::Relaxed);
        let held = self.lengthen(self.bytes());
        if held.is_err() {
            self.ring_bytes.store(0, Ordering::Relaxed);
        }
        self.shorten(self.bytes());
        let path = self.context.directory.path_of(RESERVE_FILE);
        held.map_err(|error| Error::io("hold back a reserve for the ring in", &path, error))
    }

    /// Adapts the length to the size of segments. A longer one must be restored; a shorter one
    /// frees the rest.
    pub(crate) fn follow(&self, segment_bytes: u64) {
        self.segment_bytes.store(segment_bytes, Ordering::Relaxed);
        let _one_at_a_time = lock(&self.file);
        if self.context.has_directory() {
            self.shorten(self.bytes());
        }
    }

    /// Cuts the file to this length; if it is already shorter, there is nothing to cut.
    fn shorten(&self, length: u64) {
        let directory = &self.context.directory;
        let _ = directory
            .open_file(RESERVE_FILE, true)
            .and_then(|file| match file.len()? {
                found if found > length => file.set_len(length),
                _ => Ok(()),
            });
    }

    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Records that the disk is full, if the error says so.
    pub(crate) fn note(&self, error: &Error) {
        if error.is_no_space() {
            self.full.store(true, Ordering::Relaxed);
        }
    }

    /// Runs `work`; if the disk is full, releases its part of the reserve and runs it once more. So
    /// `work` must not depend on what its first attempt did.
    pub(crate) fn run<T>(&self, part: ReservePart, mut work: impl FnMut() -> Result<T>) -> Result<T> {
        match work() {
            // Another thread may have released or briefly restored the reserve: then there is room
            // now as well.
            Err(error) if part.helps(&error) => {
                self.release(part);
                work()
            }
            result => result,
        }
    }

    /// Whether the disk was found full and part of the reserve is kept from this work: then
    /// [`Reserve::restore_kept`] must come first.
    #[inline]
    pub(crate) fn keeps_from(&self, part: ReservePart) -> bool {
        self.is_full() && self.kept(part) > 0 && !planted(Planted::RefuseNothing)
    }

    /// Restores the part that is kept from this work.
    pub(crate) fn restore_kept(&self, part: ReservePart) -> Result<()> {
        if planted(Planted::StayFull) {
            return Err(Error::NoSpace {
                path: self.context.path().to_owned(),
            });
        }
        self.restore_to(self.kept(part))
    }

    /// Restores the whole reserve.
    pub(crate) fn restore(&self) -> Result<()> {
        self.restore_to(self.bytes())
    }

    /// Releases this part of the reserve to the file system.
    pub(crate) fn release(&self, part: ReservePart) {
        let _one_at_a_time = lock(&self.file);
        self.full.store(true, Ordering::Relaxed);
        if !self.context.has_directory() {
            return;
        }
        let kept = match part {
            ReservePart::Acknowledged => match self.without_ring_part() {
                Some(kept) => kept,
                None => return,
            },
            part => self.kept(part),
        };
        if kept == 0 {
            let _ = self.context.directory.remove(RESERVE_FILE);
        } else {
            self.shorten(kept);
        }
    }

    /// The length of the file without the ring's part, if it is still there. It is released once:
    /// what else is there is for others.
    fn without_ring_part(&self) -> Option<u64> {
        let ring_bytes = self.ring_bytes.load(Ordering::Relaxed);
        if ring_bytes == 0 || self.spent_on_ring.swap(true, Ordering::Relaxed) {
            return None;
        }
        let file = self.context.directory.open_file(RESERVE_FILE, false).ok()?;
        Some(file.len().ok()?.saturating_sub(ring_bytes))
    }

    fn restore_to(&self, length: u64) -> Result<()> {
        let _one_at_a_time = lock(&self.file);
        if !self.context.has_directory() {
            return Err(Error::Closed);
        }
        if planted(Planted::ForgetReserve) {
            return Ok(());
        }
        if let Err(error) = self.lengthen(length) {
            self.full.store(true, Ordering::Relaxed);
            let path = self.context.directory.path_of(RESERVE_FILE);
            return Err(Error::io("hold back a reserve in", &path, error));
        }
        if length >= self.bytes() {
            self.full.store(false, Ordering::Relaxed);
            self.spent_on_ring.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Lengthens the file by writing zeros, since a file's length alone reserves nothing.
    fn lengthen(&self, length: u64) -> std::io::Result<()> {
        if self.context.options.in_memory {
            // There is no disk that could be full.
            return Ok(());
        }
        let directory = &self.context.directory;
        let found = match directory.open_file(RESERVE_FILE, false) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            file => file?.len()?,
        };
        if found >= length {
            return Ok(());
        }
        let file = if found == 0 {
            directory.remove_if_there(RESERVE_FILE)?;
            directory.create(RESERVE_FILE)?
        } else {
            directory.open_file(RESERVE_FILE, true)?
        };
        let zeros = vec![0; (length - found) as usize];
        write_all_at(&*file, &zeros, found)
            .and_then(|()| file.sync())
            .inspect_err(|_| {
                // A partial reserve would only take space from puts, which may not use it.
                let _ = if found == 0 {
                    directory.remove(RESERVE_FILE)
                } else {
                    file.set_len(found)
                };
            })
    }

    /// Runs `work` while the file is neither read nor changed.
    pub(crate) fn while_untouched<T>(&self, work: impl FnOnce() -> T) -> T {
        let _untouched = lock(&self.file);
        work()
    }
}

#[cfg(test)]
mod tests;
