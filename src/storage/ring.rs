//! A file whose pages are changed in place through a shared map: the only place where a file is
//! written without a system call.
//!
//! What is stored there survives the end of the process at once, as what is written with `write`
//! does: the pages are the page cache's. It survives a power cut only by chance.
//!
//! A store into a page needs no block and no memory that the system could refuse, since the file
//! was written and synced before, so a full disk does not fail it. What remains, and cannot be
//! turned into an error, is SIGBUS: if another program truncates the file, if the device fails to
//! read a page back that was evicted, if the file system has shut down, and on XFS if the blocks
//! were shared by a copy meanwhile and the disk is full.

#![allow(
    unsafe_code,
    reason = "changing a file through a map cannot be expressed in safe Rust; nothing else here is unsafe"
)]

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;

use memmap2::{MmapOptions, MmapRaw};

use super::process::ProcessMark;
use super::sealed::Sealed;

/// The pages of a file, to be stored to.
pub trait StorageRing: Sealed + Send + Sync + std::fmt::Debug {
    /// Stores these bytes at this offset; `InvalidInput` if they would not end before the file
    /// does. Every later read of the file, by any process, sees them, whatever becomes of this one.
    fn store(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
}

/// A map of a real file. In a forked child the range is not mapped, and may be used for anything
/// else.
#[derive(Debug)]
pub(super) struct OsRing {
    map: ManuallyDrop<MmapRaw>,
    process: ProcessMark,
}

impl OsRing {
    /// Maps the first `length` bytes of a file that were written before.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the file is shorter: a store into its end would kill the process.
    pub(super) fn of_file(file: &File, length: u64) -> io::Result<OsRing> {
        if file.metadata()?.len() < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = usize::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let map = MmapOptions::new().len(length).populate().map_raw(file)?;
        #[cfg(target_os = "linux")]
        {
            // A forked child must not store anything.
            map.advise(memmap2::Advice::DontFork)?;
            // Where that is permitted, no store waits for a page to be read back.
            let _ = map.lock();
        }
        Ok(OsRing {
            map: ManuallyDrop::new(map),
            process: ProcessMark::of_this_process(),
        })
    }
}

impl Drop for OsRing {
    fn drop(&mut self) {
        if self.process.is_of_this_process() {
            // SAFETY: it is neither used nor dropped again.
            unsafe { ManuallyDrop::drop(&mut self.map) }
        }
    }
}

impl Sealed for OsRing {}

impl StorageRing for OsRing {
    #[inline]
    fn store(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = usize::try_from(offset)
            .ok()
            .and_then(|offset| offset.checked_add(bytes.len()));
        if end.is_none_or(|end| end > self.map.len()) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if !self.process.is_of_this_process() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        // SAFETY: the range is within the map (checked above), which this process has made (checked
        // above) and which lives as long as `self`. No reference to these bytes is ever made, here
        // or elsewhere in the process: the file is read with `read`, and this is its only map, as
        // the caller of `StorageFile::map_ring` promised. `&mut self` keeps two threads from
        // storing at the same time. `bytes` is memory of the process, so the two do not overlap.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.as_mut_ptr().add(offset as usize), bytes.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri cannot map files")]
    fn what_is_stored_is_read_from_the_file_and_nothing_is_stored_beyond_its_end() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[0; 8192]).unwrap();
        let mut ring = OsRing::of_file(&file, 8192).unwrap();
        ring.store(b"begin", 0).unwrap();
        ring.store(b"end", 8189).unwrap();
        for (bytes, offset) in [(&b"end"[..], 8190), (b"x", 8192), (b"x", u64::MAX)] {
            let error = ring.store(bytes, offset).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
        let mut found = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut found).unwrap();
        assert_eq!((&found[..5], &found[8189..]), (&b"begin"[..], &b"end"[..]));
        assert!(found[5..8189].iter().all(|byte| *byte == 0));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri cannot map files")]
    fn a_file_that_is_too_short_is_not_mapped() {
        let file = tempfile::tempfile().unwrap();
        let error = OsRing::of_file(&file, 4096).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
