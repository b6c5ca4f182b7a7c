//! The file of a segment that is being written to.
//!
//! A sync of a file that has become longer must make the new length durable as well, and for that
//! the file system commits its journal: that takes about as long as the data. So a file that is
//! synced often has its length ahead: it is extended with zeros before a sync that has to commit a
//! new length anyway, and the writes that follow find length and space there. The zeros end every
//! scan of the segment, and are cut off before it is sealed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use crate::planted::{Planted, planted};
use crate::storage::{StorageFile, check_linked, write_all_at};
use crate::sync::lock;

/// Least and most that a file is extended by. In between it is doubled, so that a small store takes
/// little space.
const AHEAD_MIN: u64 = 4 << 10;
const AHEAD_MAX: u64 = 1 << 20;
/// A sync of more bytes than this gains nothing from a length ahead.
const SYNCED_BYTES_MAX: u64 = 64 << 10;

/// See the module. Two threads may want to sync the file, the leader of the writers and the one
/// that seals. The system reports a failure to only one of them, so they take turns, and the second
/// is told as well.
#[derive(Debug)]
pub(super) struct LogFile {
    file: Arc<dyn StorageFile>,
    syncs: Mutex<Syncs>,
}

/// What is known from earlier syncs.
#[derive(Debug, Default)]
struct Syncs {
    has_failed: bool,
    /// Where what was written ended at the last of them.
    end: u64,
    /// The length that the file was given; it is extended again once what is written gets there.
    ahead: u64,
    /// Whether it is extended no more: it was cut for good, or has no room.
    is_final: bool,
}

impl LogFile {
    pub(super) fn new(file: Arc<dyn StorageFile>) -> Arc<LogFile> {
        Arc::new(LogFile {
            file,
            syncs: Mutex::default(),
        })
    }

    /// Makes earlier writes durable. After a failure every call fails: the system may have dropped
    /// the data.
    pub(super) fn sync(&self) -> std::io::Result<()> {
        self.sync_locked(&mut lock(&self.syncs))
    }

    /// The same, up to `end` at least. The file may be given a length ahead of that, but no more
    /// than `length_max`.
    pub(super) fn sync_ahead(&self, end: u64, length_max: u64) -> std::io::Result<()> {
        let syncs = &mut *lock(&self.syncs);
        let synced = end.saturating_sub(std::mem::replace(&mut syncs.end, end));
        let ahead = (end + end.clamp(AHEAD_MIN, AHEAD_MAX)).min(length_max);
        if end >= syncs.ahead && end < ahead && synced <= SYNCED_BYTES_MAX && !syncs.is_final {
            match no_panic(|| self.file.allocate(ahead)) {
                Ok(()) => syncs.ahead = ahead,
                // The sync that follows reports whatever matters.
                Err(_) => syncs.is_final = true,
            }
        }
        self.sync_locked(syncs)
    }

    fn sync_locked(&self, syncs: &mut Syncs) -> std::io::Result<()> {
        if planted(Planted::SkipDataSync) {
            return Ok(());
        }
        if syncs.has_failed && !planted(Planted::SyncAgainAfterFailure) {
            return Err(std::io::Error::other("an earlier sync of this file failed"));
        }
        no_panic(|| self.file.sync()).inspect_err(|_| syncs.has_failed = true)
    }

    /// Writes all bytes. Fails if the file was removed, since the data could never be found there.
    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        no_panic(|| write_all_at(&*self.file, bytes, offset))?;
        self.check_linked()
    }

    /// Fails if the file was removed. While the segment is active, only another program can have
    /// done that; once sealed, the store itself may remove it.
    pub(super) fn check_linked(&self) -> std::io::Result<()> {
        check_linked(&*self.file)
    }

    /// Cuts off what a failed write may have left. A sync at the same time may extend the file
    /// again, with zeros.
    pub(super) fn cut(&self, length: u64) -> std::io::Result<()> {
        self.file.set_len(length)
    }

    /// Cuts off what the file was extended by; it is not extended again.
    pub(super) fn end_at(&self, length: u64) -> std::io::Result<()> {
        if planted(Planted::KeepLengthAhead) {
            return Ok(());
        }
        let mut syncs = lock(&self.syncs);
        syncs.is_final = true;
        match self.file.len()? > length {
            true => self.file.set_len(length),
            false => Ok(()),
        }
    }
}

/// Turns a panic of the storage into an error: the leader must return and report it, or all waiters
/// would wait forever.
fn no_panic(work: impl FnOnce() -> std::io::Result<()>) -> std::io::Result<()> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(std::io::Error::other("the storage panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation, Storage};

    fn created() -> (FaultStorage, Arc<LogFile>) {
        let faults = FaultStorage::new(Arc::new(MemStorage::new()));
        faults.create_directory("/store".as_ref()).unwrap();
        let directory = faults.open_directory("/store".as_ref()).unwrap();
        let file = LogFile::new(directory.create("1.segment".as_ref()).unwrap());
        (faults, file)
    }

    #[test]
    fn a_file_that_was_not_synced_once_is_never_synced_again() {
        let (faults, file) = created();
        file.sync().unwrap();
        faults.inject(Fault::new(FaultKind::FailedSync).on(Operation::Sync));
        file.sync().unwrap_err();
        file.sync().unwrap_err();
        assert_eq!(faults.struck(), 1);
    }

    #[test]
    fn the_length_is_ahead_of_what_is_synced_in_small_parts_and_never_beyond_the_most() {
        let (_, file) = created();
        let most = 3 << 20;
        let (mut end, mut lengths) = (0, Vec::new());
        while end < most {
            file.write(&[7; 100], end).unwrap();
            end += 100;
            file.sync_ahead(end, most).unwrap();
            let length = file.file.len().unwrap();
            assert!(length >= end && length <= most.max(end));
            assert!(length - end <= end.clamp(AHEAD_MIN, AHEAD_MAX), "{length} at {end}");
            if lengths.last() != Some(&length) {
                lengths.push(length);
            }
        }
        // Doubled from 4 KiB to 1 MiB, then 1 MiB more each time.
        assert!((9..=13).contains(&lengths.len()), "{lengths:?}");
        let (_, file) = created();
        let large = vec![7; SYNCED_BYTES_MAX as usize + 1];
        file.write(&large, 0).unwrap();
        file.sync_ahead(large.len() as u64, u64::MAX).unwrap();
        assert_eq!(file.file.len().unwrap(), large.len() as u64);
    }

    #[test]
    fn a_file_that_has_no_room_ahead_is_synced_all_the_same() {
        let (faults, file) = created();
        file.write(&[7; 100], 0).unwrap();
        faults.inject(Fault::new(FaultKind::Full).on(Operation::Allocate));
        file.sync_ahead(100, u64::MAX).unwrap();
        assert_eq!((faults.struck(), file.file.len().unwrap()), (1, 100));
        file.sync_ahead(100, u64::MAX).unwrap();
        assert_eq!(file.file.len().unwrap(), 100);
    }

    #[test]
    fn a_file_that_was_cut_for_good_keeps_its_length() {
        let (_, file) = created();
        file.write(&[7; 100], 0).unwrap();
        file.sync_ahead(100, u64::MAX).unwrap();
        assert!(file.file.len().unwrap() > 100);
        file.end_at(100).unwrap();
        // A leader that has seen it as active syncs it late.
        file.sync_ahead(100, u64::MAX).unwrap();
        assert_eq!(file.file.len().unwrap(), 100);
    }
}
