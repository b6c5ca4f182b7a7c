//! The reserve: disk space held back, so that deleting and compacting still work on a full disk.
//!
//! It is a file of zeros, RESERVE. Work that frees space in the end, or that was already
//! acknowledged, may use all of it; deletes may use half, so that something is left for the
//! compaction that reclaims their space; puts may use none. Work that finds the disk full releases
//! its part of the file and is run once more. From then on work that may not use the whole reserve
//! is refused until the part kept from it is complete again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::RESERVE_FILE;
use crate::planted::{Planted, planted};
use crate::storage::write_all_at;
use crate::sync::lock;

/// Length of the reserve: 4 MiB, or one segment if segments are smaller.
const RESERVE_BYTES: u64 = 4 << 20;

/// The part of the reserve that a piece of work may use when the disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReservePart {
    /// Puts.
    None,
    /// Deletes.
    Half,
    /// Work that frees space in the end, or was already acknowledged.
    Whole,
}

impl ReservePart {
    /// The part for a write, by whether it only deletes.
    pub(crate) fn of_write(deletes: bool) -> ReservePart {
        if deletes { ReservePart::Half } else { ReservePart::None }
    }

    /// Bytes of the reserve that this work may not use.
    fn kept(self, reserve_bytes: u64) -> u64 {
        match self {
            ReservePart::None if planted(Planted::PutsTakeReserve) => 0,
            ReservePart::Half if planted(Planted::DeletesTakeAll) => 0,
            ReservePart::None => reserve_bytes,
            ReservePart::Half => reserve_bytes / 2,
            ReservePart::Whole => 0,
        }
    }

    /// Whether this error is a lack of space that releasing part of the reserve can fix.
    pub(crate) fn helps(self, error: &Error) -> bool {
        error.is_no_space() && (self != ReservePart::None || planted(Planted::PutsTakeReserve))
    }
}

/// The reserve of one store.
#[derive(Debug)]
pub(crate) struct Reserve {
    context: Arc<Context>,
    /// Whether the disk was found full and the reserve has not been whole since.
    full: AtomicBool,
    /// Held while the file is read or changed.
    file: Mutex<()>,
}

impl Reserve {
    pub(crate) fn new(context: Arc<Context>) -> Reserve {
        Reserve {
            context,
            full: AtomicBool::new(false),
            file: Mutex::new(()),
        }
    }

    /// Length of the whole reserve.
    fn bytes(&self) -> u64 {
        RESERVE_BYTES.min(self.context.options.segment_bytes)
    }

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
    pub(crate) fn keeps_from(&self, part: ReservePart) -> bool {
        part.kept(self.bytes()) > 0 && self.is_full() && !planted(Planted::RefuseNothing)
    }

    /// Restores the part that is kept from this work.
    pub(crate) fn restore_kept(&self, part: ReservePart) -> Result<()> {
        if planted(Planted::StayFull) {
            return Err(Error::NoSpace {
                path: self.context.path().to_owned(),
            });
        }
        self.restore_to(part.kept(self.bytes()))
    }

    /// Restores the whole reserve.
    pub(crate) fn restore(&self) -> Result<()> {
        self.restore_to(self.bytes())
    }

    /// Releases this part of the reserve to the file system.
    pub(crate) fn release(&self, part: ReservePart) {
        let kept = part.kept(self.bytes());
        let _one_at_a_time = lock(&self.file);
        self.full.store(true, Ordering::Relaxed);
        if !self.context.has_directory() {
            return;
        }
        let directory = &self.context.directory;
        if kept == 0 {
            let _ = directory.remove(RESERVE_FILE);
            return;
        }
        // If the file is already shorter than that, there is nothing to release.
        let _ = directory
            .open_file(RESERVE_FILE, true)
            .and_then(|file| match file.len()? {
                length if length > kept => file.set_len(kept),
                _ => Ok(()),
            });
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
        }
        Ok(())
    }

    /// Lengthens the file by writing zeros, since a file's length alone reserves nothing.
    fn lengthen(&self, length: u64) -> std::io::Result<()> {
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
