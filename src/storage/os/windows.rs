//! Directories and files on Windows: a directory is an absolute path, and a handle that pins it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::windows::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::sealed::{Base, Sealed};
use super::super::{StorageDirectory, StorageFile, StorageLock, lock};
use super::OsFile;

/// Other handles may read and write in the directory, but not rename or remove it (no
/// `FILE_SHARE_DELETE`).
const SHARE_READ_WRITE: u32 = 1 | 2;
/// Required for opening a directory (`FILE_FLAG_BACKUP_SEMANTICS`).
const BACKUP_SEMANTICS: u32 = 0x0200_0000;

/// A directory that cannot be moved while this is held, so its absolute path stays valid.
#[derive(Debug)]
pub struct OsDirectory {
    path: PathBuf,
    _handle: File,
}

impl OsDirectory {
    pub(in crate::storage) fn open(path: &Path) -> io::Result<OsDirectory> {
        let path = std::path::absolute(path)?;
        let handle = OpenOptions::new()
            .read(true)
            .share_mode(SHARE_READ_WRITE)
            .custom_flags(BACKUP_SEMANTICS)
            .open(&path)?;
        if !handle.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(OsDirectory { path, _handle: handle })
    }
}

impl Sealed for OsDirectory {}

impl StorageDirectory for OsDirectory {
    fn list(&self) -> io::Result<Vec<OsString>> {
        fs::read_dir(&self.path)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(self.path.join(name))?;
        Ok(Arc::new(OsFile::new(file)))
    }

    fn open(&self, name: &str, write: bool) -> io::Result<Arc<dyn StorageFile>> {
        let file = OpenOptions::new().read(true).write(write).open(self.path.join(name))?;
        Ok(Arc::new(OsFile::new(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn hard_link(&self, name: &str, to: &dyn StorageDirectory, new_name: &str) -> io::Result<()> {
        /// `ERROR_INVALID_FUNCTION`, the error of file systems without hard links.
        const NO_LINKS_HERE: i32 = 1;
        let target = to.base().os().ok_or(io::ErrorKind::CrossesDevices)?;
        fs::hard_link(self.path.join(name), target.path.join(new_name)).map_err(|error| match error.raw_os_error() {
            Some(NO_LINKS_HERE) => io::Error::new(io::ErrorKind::Unsupported, error),
            _ => error,
        })
    }

    /// Windows has no such call; NTFS journals and orders directory changes itself.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn check_journal(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, name: &str, owner: &str) -> io::Result<Box<dyn StorageLock>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.path.join(name))?;
        lock::acquire(file, owner)
    }

    fn is_locked(&self, name: &str) -> io::Result<bool> {
        lock::is_held(OpenOptions::new().read(true).open(self.path.join(name)))
    }

    fn suits_rings(&self) -> bool {
        false
    }

    /// The handle keeps the directory from being removed.
    fn is_linked(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn base(&self) -> Base<'_> {
        Base::Os(self)
    }
}

/// An open file cannot lose its name on Windows.
pub(in crate::storage) fn is_linked(_: &File) -> io::Result<bool> {
    Ok(true)
}

// These move the file position, which nothing here uses.

pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    file.seek_read(buffer, offset)
}

pub(super) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    file.seek_write(bytes, offset)
}
