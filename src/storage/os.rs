//! The real file system, through the standard library.
//!
//! All that is particular to an operating system lives here (and, for locks and maps, in the two modules beside
//! it). Unix and Windows are the systems fs2 and memmap2 know; nothing else would compile anyway.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::map::Map;
use super::{Storage, StorageFile, StorageLock, lock};

/// The file system of the machine.
///
/// On Windows, which has nothing to sync a directory with, [`Storage::sync_directory`] is a no-op, and files that
/// are open or mapped cannot always be renamed over or removed.
#[derive(Default, Clone, Copy, Debug)]
pub struct OsStorage;

impl Storage for OsStorage {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(or_here(directory))?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect()
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(OsFile::new(file)))
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn StorageFile>> {
        let file = OpenOptions::new().read(true).write(write).open(path)?;
        Ok(Arc::new(OsFile::new(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        /// `EPERM`, by which Linux and macOS say that the file system has no hard links (not `EACCES`, which would
        /// have the same kind); and, by chance the same number, `ERROR_INVALID_FUNCTION`, by which Windows does.
        const NO_LINKS_HERE: i32 = 1;
        fs::hard_link(from, to).map_err(|error| match error.raw_os_error() {
            Some(NO_LINKS_HERE) => io::Error::new(io::ErrorKind::Unsupported, error),
            _ => error,
        })
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        system::sync_directory(or_here(directory))
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn StorageLock>> {
        lock::acquire(path, owner)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }
}

#[derive(Debug)]
struct OsFile {
    file: File,
    /// How often the length was set through this handle, and up to which of these it is durable. They start apart:
    /// another handle may have set it before, so the first sync of every handle is a full one.
    length_changes: AtomicU64,
    length_changes_synced: AtomicU64,
    /// The longest map made through this handle; below it, the file may not change any more.
    mapped_bytes: AtomicU64,
}

impl OsFile {
    fn new(file: File) -> Self {
        Self {
            file,
            length_changes: AtomicU64::new(1),
            length_changes_synced: AtomicU64::new(0),
            mapped_bytes: AtomicU64::new(0),
        }
    }
}

impl StorageFile for OsFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        system::read_at(&self.file, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        check_unmapped(offset, &self.mapped_bytes)?;
        system::write_at(&self.file, bytes, offset)
    }

    /// Appended data needs only a data sync: the new length is needed to find the data, so POSIX has `fdatasync`
    /// write it as well. A length that was *set* is not: a cut need not survive a data sync, and systems differ.
    /// So after `set_len` the next sync is a full one. (macOS and Windows know one kind of sync only, and the
    /// standard library uses the thorough one there: `F_FULLFSYNC`, `FlushFileBuffers`.)
    fn sync(&self) -> io::Result<()> {
        let changes = self.length_changes.load(Ordering::Acquire);
        if changes == self.length_changes_synced.load(Ordering::Acquire) {
            return self.file.sync_data();
        }
        self.file.sync_all()?;
        // Not earlier: a sync running beside this one must not take the length for durable yet.
        self.length_changes_synced.fetch_max(changes, Ordering::AcqRel);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        check_unmapped(length, &self.mapped_bytes)?;
        let result = self.file.set_len(length);
        self.length_changes.fetch_add(1, Ordering::AcqRel);
        result
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn map(&self, length: u64) -> io::Result<Map> {
        let map = Map::of_file(&self.file, length)?;
        self.mapped_bytes.fetch_max(length, Ordering::AcqRel);
        Ok(map)
    }
}

/// Refuses to change a file from `offset` on if a map shows what is there.
pub(super) fn check_unmapped(offset: u64, mapped_bytes: &AtomicU64) -> io::Result<()> {
    let mapped = mapped_bytes.load(Ordering::Acquire);
    if offset >= mapped {
        return Ok(());
    }
    let message = format!("the file is mapped up to {mapped} and cannot be changed at {offset}");
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// The parent of a bare name like `data` is the empty path, which no system call takes.
fn or_here(directory: &Path) -> &Path {
    if directory.as_os_str().is_empty() {
        Path::new(".")
    } else {
        directory
    }
}

#[cfg(unix)]
mod system {
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(buffer, offset)
    }

    pub(super) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.write_at(bytes, offset)
    }

    pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
        match File::open(directory)?.sync_all() {
            // How some file systems (network ones, mostly) say that a directory cannot be synced. There is nothing
            // to be done about it, and PostgreSQL (`fsync_fname`) goes on as well. All else is a failed sync.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
            result => result,
        }
    }
}

#[cfg(windows)]
mod system {
    use std::fs::File;
    use std::io;
    use std::os::windows::fs::FileExt;
    use std::path::Path;

    // These move the position of the file, which nothing here uses.

    pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file.seek_read(buffer, offset)
    }

    pub(super) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.seek_write(bytes, offset)
    }

    /// Windows has no such call; NTFS journals its directories and orders their changes by itself.
    pub(super) fn sync_directory(_directory: &Path) -> io::Result<()> {
        Ok(())
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
    fn syncing_a_directory_that_is_not_there_fails() {
        let directory = tempfile::tempdir().unwrap();
        OsStorage.sync_directory(directory.path()).unwrap();
        OsStorage.sync_directory(Path::new("data").parent().unwrap()).unwrap();
        if cfg!(unix) {
            OsStorage.sync_directory(&directory.path().join("missing")).unwrap_err();
        }
    }
}
