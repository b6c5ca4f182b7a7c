//! Directories and files on Unix: a directory is a descriptor, and names are looked up relative to
//! it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::{Errno, retry_on_intr};

use super::super::sealed::{Base, Sealed};
use super::super::{StorageDirectory, StorageFile, StorageLock, lock};
use super::OsFile;

/// A directory, held by its descriptor.
#[derive(Debug)]
pub struct OsDirectory {
    descriptor: OwnedFd,
    has_doubtful_syncs: bool,
    /// Whether the file system reports link counts of directories; see
    /// [`counts_links`](super::counts_links).
    counts_links: bool,
}

impl OsDirectory {
    pub(in crate::storage) fn open(path: &Path) -> io::Result<OsDirectory> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))?;
        Ok(OsDirectory {
            has_doubtful_syncs: has_doubtful_syncs(&descriptor),
            counts_links: is_linked(&descriptor).unwrap_or(true),
            descriptor,
        })
    }

    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        // The standard library's mode, which the process's umask restricts.
        let mode = Mode::from_raw_mode(0o666);
        let descriptor = retry_on_intr(|| {
            let flags = flags | OFlags::CLOEXEC;
            rustix::fs::openat(&self.descriptor, name, flags, mode)
        })?;
        Ok(File::from(descriptor))
    }

    fn file(&self, file: File) -> Arc<dyn StorageFile> {
        Arc::new(OsFile::new(file))
    }
}

impl Sealed for OsDirectory {}

impl StorageDirectory for OsDirectory {
    fn list(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.descriptor)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(std::ffi::OsStr::from_bytes(name).to_owned());
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.open_file(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?;
        Ok(self.file(file))
    }

    fn open(&self, name: &str, write: bool) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.open_file(name, if write { OFlags::RDWR } else { OFlags::RDONLY })?;
        Ok(self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.descriptor, from, &self.descriptor, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.descriptor, name, AtFlags::empty())?)
    }

    fn hard_link(&self, name: &str, to: &dyn StorageDirectory, new_name: &str) -> io::Result<()> {
        let target = to.base().os().ok_or(io::ErrorKind::CrossesDevices)?;
        let linked = rustix::fs::linkat(&self.descriptor, name, &target.descriptor, new_name, AtFlags::empty());
        linked.map_err(|error| match error {
            // The error of Linux and macOS on file systems without hard links. `EACCES`, for links
            // that are not permitted, has the same `ErrorKind`.
            Errno::PERM => io::Error::new(io::ErrorKind::Unsupported, io::Error::from(error)),
            _ => error.into(),
        })
    }

    fn sync(&self) -> io::Result<()> {
        match rustix::fs::fsync(&self.descriptor) {
            // The errors of file systems (mostly network ones) that cannot sync directories.
            // Nothing can be done about it, and PostgreSQL (`fsync_fname`) ignores it as well. Any
            // other error is a failed sync.
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            result => Ok(result?),
        }
    }

    fn check_journal(&self) -> io::Result<()> {
        if self.has_doubtful_syncs {
            check_journal(&self.descriptor)
        } else {
            Ok(())
        }
    }

    fn lock(&self, name: &str, owner: &str) -> io::Result<Box<dyn StorageLock>> {
        // Not truncated here: until the lock is acquired, the text is the holder's.
        lock::acquire(self.open_file(name, OFlags::RDWR | OFlags::CREATE)?, owner)
    }

    fn is_locked(&self, name: &str) -> io::Result<bool> {
        lock::is_held(self.open_file(name, OFlags::RDONLY))
    }

    fn suits_rings(&self) -> bool {
        suits_rings(&self.descriptor)
    }

    fn is_linked(&self) -> io::Result<bool> {
        Ok(!self.counts_links || is_linked(&self.descriptor)?)
    }

    fn base(&self) -> Base<'_> {
        Base::Os(self)
    }
}

/// Whether the file system is one on which a store into a page that was written before needs
/// nothing more: ext4 (or ext2/ext3), XFS, tmpfs. One that copies on write, or sits on a network or
/// in another process, is not.
#[cfg(target_os = "linux")]
fn suits_rings(descriptor: &OwnedFd) -> bool {
    const EXT4: i128 = 0xef53;
    const XFS: i128 = 0x5846_5342;
    const TMPFS: i128 = 0x0102_1994;
    rustix::fs::fstatfs(descriptor).is_ok_and(|found| [EXT4, XFS, TMPFS].contains(&found.f_type.into()))
}

#[cfg(not(target_os = "linux"))]
fn suits_rings(_: &OwnedFd) -> bool {
    false
}

/// Whether the file system is ext4 (or ext2/ext3), perhaps below an overlay: it reports a failed
/// journal commit to one of the callers waiting for it, or to none.
#[cfg(target_os = "linux")]
fn has_doubtful_syncs(descriptor: &OwnedFd) -> bool {
    const EXT4: i128 = 0xef53;
    const OVERLAY: i128 = 0x794c_7630;
    // If the type is unknown, checking the journal costs a little and does no harm.
    rustix::fs::fstatfs(descriptor).map_or(true, |found| [EXT4, OVERLAY].contains(&found.f_type.into()))
}

#[cfg(not(target_os = "linux"))]
fn has_doubtful_syncs(_: &OwnedFd) -> bool {
    false
}

/// Sets the access time, which is not used for anything: that takes a journal handle, which an
/// aborted journal does not give. Everything committed before is then durable. Where the time
/// cannot be set, the check passes without knowing.
fn check_journal(directory: &OwnedFd) -> io::Result<()> {
    let time = |nanoseconds| Timespec {
        tv_sec: 0,
        tv_nsec: nanoseconds,
    };
    let touch = |last_modification| {
        let times = Timestamps {
            last_access: time(UTIME_NOW),
            last_modification,
        };
        rustix::fs::futimens(directory, &times)
    };
    let asked = match touch(time(UTIME_OMIT)) {
        // Another user's directory that this process may write to: that permits setting both times
        // to now.
        Err(Errno::PERM | Errno::ACCESS) => touch(time(UTIME_NOW)),
        result => result,
    };
    match asked {
        Err(Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(()),
        result => Ok(result?),
    }
}

/// Asks for the number of links and nothing else. Linux since 6.13 gives a file whose times were
/// asked for a new time with the next write: then each sync would have to commit that.
#[cfg(target_os = "linux")]
pub(in crate::storage) fn is_linked(file: impl AsFd) -> io::Result<bool> {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    match statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::NLINK) {
        Ok(found) if found.stx_mask & StatxFlags::NLINK.bits() != 0 => Ok(found.stx_nlink > 0),
        // Not everywhere is this known or allowed.
        Ok(_) | Err(Errno::NOSYS | Errno::PERM) => Ok(rustix::fs::fstat(file)?.st_nlink > 0),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
pub(in crate::storage) fn is_linked(file: impl AsFd) -> io::Result<bool> {
    Ok(rustix::fs::fstat(file)?.st_nlink > 0)
}

pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    file.read_at(buffer, offset)
}

pub(super) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    file.write_at(bytes, offset)
}
