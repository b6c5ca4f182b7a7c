//! The real file system, through the standard library.
//!
//! All system-specific code is here, in `os/`, and, for locks, maps and processes, in the sibling
//! modules. fs2 and memmap2 support Unix and Windows only, so nothing else would compile anyway.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::map::Map;
use super::ring::OsRing;
use super::sealed::{NeverChanged, OnlyMap, Sealed};
use super::{Storage, StorageDirectory, StorageFile, StorageRing};
pub(super) use directory::{OsDirectory, is_linked};

#[cfg_attr(unix, path = "os/unix.rs")]
#[cfg_attr(not(unix), path = "os/windows.rs")]
mod directory;

/// The file system of the machine.
///
/// On Unix an open directory is held by its descriptor, and names are looked up relative to it. On
/// Windows it is held by a handle that keeps it, and all its parents, from being renamed and
/// removed; Windows cannot sync directories, and files that are open or mapped cannot always be
/// renamed over or removed.
#[derive(Default, Clone, Copy, Debug)]
pub struct OsStorage;

impl Sealed for OsStorage {}

impl Storage for OsStorage {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn open_directory(&self, path: &Path) -> io::Result<Arc<dyn StorageDirectory>> {
        Ok(Arc::new(OsDirectory::open(or_here(path))?))
    }

    fn rename_directory(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn remove_empty_directory(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match fs::symlink_metadata(or_here(path)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// How long an answer of [`StorageFile::is_linked`] is cached: the check costs about as much as
/// writing out a small record, and removing the directory of an open store takes longer than this.
const LINKED_FOR: Duration = Duration::from_micros(10);

#[derive(Debug)]
struct OsFile {
    file: File,
    counts_links: bool,
    /// How often the length was set through this handle, and up to which of these changes it is
    /// durable. They start out different: another handle may have set the length before, so the
    /// first sync of every handle is a full one.
    length_changes: AtomicU64,
    length_changes_synced: AtomicU64,
    /// The length of the longest map made through this handle; the file must not change below it.
    mapped_bytes: AtomicU64,
    opened: Instant,
    /// Nanoseconds after `opened` until which the file is assumed to have a name.
    linked_until: AtomicU64,
}

impl OsFile {
    fn new(file: File) -> Self {
        Self {
            counts_links: counts_links(&file),
            file,
            length_changes: AtomicU64::new(1),
            length_changes_synced: AtomicU64::new(0),
            mapped_bytes: AtomicU64::new(0),
            opened: Instant::now(),
            linked_until: AtomicU64::new(0),
        }
    }
}

impl Sealed for OsFile {}

impl StorageFile for OsFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        directory::read_at(&self.file, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        check_unmapped(offset, &self.mapped_bytes)?;
        directory::write_at(&self.file, bytes, offset)
    }

    /// Appended data needs only a data sync: the new length is needed to find the data, so POSIX
    /// has `fdatasync` write it as well. A length that was *set* is not: a truncation need not
    /// survive a data sync, and systems differ. So the sync after a `set_len` is a full one. (macOS
    /// and Windows have only one kind of sync, and the standard library uses the thorough one
    /// there: `F_FULLFSYNC`, `FlushFileBuffers`.)
    fn sync(&self) -> io::Result<()> {
        let changes = self.length_changes.load(Ordering::Acquire);
        if changes == self.length_changes_synced.load(Ordering::Acquire) {
            return self.file.sync_data();
        }
        self.file.sync_all()?;
        // Not earlier: a concurrent sync must not treat the length as durable yet.
        self.length_changes_synced.fetch_max(changes, Ordering::AcqRel);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        check_unmapped(length, &self.mapped_bytes)?;
        let result = self.file.set_len(length);
        self.length_changes.fetch_add(1, Ordering::AcqRel);
        result
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let before = self.len()?;
        if length <= before {
            return Ok(());
        }
        check_unmapped(before, &self.mapped_bytes)?;
        let result = allocate(&self.file, before, length);
        if result.is_err() && self.len()? > before {
            // A part of it was taken.
            self.file.set_len(before)?;
        }
        self.length_changes.fetch_add(1, Ordering::AcqRel);
        result
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn is_linked(&self) -> io::Result<bool> {
        if !self.counts_links {
            return Ok(true);
        }
        let now = self.opened.elapsed();
        if now.as_nanos() < u128::from(self.linked_until.load(Ordering::Relaxed)) {
            return Ok(true);
        }
        let linked = directory::is_linked(&self.file)?;
        if linked {
            let until = (now + LINKED_FOR).as_nanos().try_into().unwrap_or(0);
            self.linked_until.store(until, Ordering::Relaxed);
        }
        Ok(linked)
    }

    fn map(&self, length: u64, _: NeverChanged) -> io::Result<Map> {
        let map = Map::of_file(&self.file, length)?;
        self.mapped_bytes.fetch_max(length, Ordering::AcqRel);
        Ok(map)
    }

    fn map_ring(&self, length: u64, _: OnlyMap) -> io::Result<Box<dyn StorageRing>> {
        Ok(Box::new(OsRing::of_file(&self.file, length)?))
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn allocate(file: &File, from: u64, to: u64) -> io::Result<()> {
    // The system call itself: the C library's function writes zeros where the file system cannot
    // allocate.
    rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), from, to - from)?;
    Ok(())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn allocate(_: &File, _: u64, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether the file system reports link counts, judged by a file just opened by its name. Some
/// report 0 for all files.
pub(super) fn counts_links(file: &File) -> bool {
    is_linked(file).unwrap_or(true)
}

/// Refuses to change a file from `offset` on if that part is mapped.
pub(super) fn check_unmapped(offset: u64, mapped_bytes: &AtomicU64) -> io::Result<()> {
    let mapped = mapped_bytes.load(Ordering::Acquire);
    if offset >= mapped {
        return Ok(());
    }
    let message = format!("the file is mapped up to {mapped} and cannot be changed at {offset}");
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// The parent of a bare name like `data` is the empty path, which no system call accepts.
fn or_here(directory: &Path) -> &Path {
    if directory.as_os_str().is_empty() {
        Path::new(".")
    } else {
        directory
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn the_first_sync_and_the_one_after_a_set_length_are_full_ones() {
        let file = OsFile::new(tempfile::tempfile().unwrap());
        let is_full =
            || file.length_changes.load(Ordering::Acquire) != file.length_changes_synced.load(Ordering::Acquire);
        assert!(is_full());
        file.sync().unwrap();
        assert!(!is_full());
        file.write_at(b"appended", 0).unwrap();
        assert!(!is_full());
        file.set_len(3).unwrap();
        assert!(is_full());
        file.sync().unwrap();
        assert!(!is_full());
    }

    #[test]
    fn a_directory_that_is_not_there_cannot_be_opened_and_the_parent_of_a_bare_name_can() {
        let directory = tempfile::tempdir().unwrap();
        let parent = Path::new("data").parent().unwrap();
        OsStorage.open_directory(parent).unwrap().sync().unwrap();
        let missing = OsStorage.open_directory(&directory.path().join("missing"));
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
