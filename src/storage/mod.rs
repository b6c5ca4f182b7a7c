//! The interface between the engine and a file system.
//!
//! All file system access goes through [`Storage`], [`StorageDirectory`] and [`StorageFile`]. They
//! know files and directories, not records. A store holds its directory open: names are looked up
//! in that directory, even if it is moved or its path then leads elsewhere. [`OsStorage`] is the
//! real file system; for tests (feature `testing`) there are `MemStorage`, a simulated disk that
//! keeps a live and a durable image and can lose power; `FaultStorage`, which wraps another storage
//! and makes chosen calls fail; and `Interposed`, which lets a test see and answer every call.
//!
//! Guarantees that the engine relies on, and that every implementation gives:
//!
//! * every later read and map of a file sees the bytes written to it;
//! * after [`StorageFile::sync`] returns Ok, content and length of that file survive a power cut,
//!   unless the file system failed to commit them and reported that to another caller, or to none;
//!   [`StorageDirectory::check_journal`] detects that;
//! * the creation, renaming, linking or removal of a name survives a power cut only after
//!   [`StorageDirectory::sync`] on its directory returns Ok;
//! * [`StorageDirectory::rename`] replaces the target atomically.
//!
//! The traits are sealed: they change from version to version.

mod directory;
mod lock;
mod map;
mod memory;
mod os;
mod process;
mod ring;

#[cfg(any(test, feature = "testing"))]
mod fault;
#[cfg(any(test, feature = "testing"))]
mod interposed;
#[cfg(any(test, feature = "testing"))]
mod mem;
#[cfg(test)]
mod tests;

use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::Path;
use std::sync::Arc;

pub(crate) use directory::{Directory, check_linked, check_lock_linked};
#[cfg(any(test, feature = "testing"))]
pub use fault::{Fault, FaultKind, FaultStorage};
#[cfg(any(test, feature = "testing"))]
pub use interposed::{Call, Interposed, Interposer, Operation};
pub use map::Map;
#[cfg(any(test, feature = "testing"))]
pub use mem::{CutPolicy, MemStorage};
pub(crate) use memory::{MEMORY_PATH, MemoryStorage};
pub use os::OsStorage;
pub(crate) use process::ProcessMark;
pub use ring::StorageRing;

mod sealed {
    /// Keeps other crates from implementing the traits of this module.
    pub trait Sealed {}

    /// Proof that the caller is the engine, which keeps the promise that
    /// [`StorageFile::map`](super::StorageFile::map) requires. Only this crate can construct one.
    #[derive(Clone, Copy, Debug)]
    pub struct NeverChanged(());

    impl NeverChanged {
        /// The caller promises that the mapped part of the file never changes while it is mapped.
        pub(crate) const fn promised() -> NeverChanged {
            NeverChanged(())
        }
    }

    /// Proof that the caller is the engine, which keeps the promise that
    /// [`StorageFile::map_ring`](super::StorageFile::map_ring) requires. Only this crate can
    /// construct one.
    #[derive(Clone, Copy, Debug)]
    pub struct OnlyMap(());

    impl OnlyMap {
        /// The caller promises that there is no other map of the file, nor will be.
        pub(crate) const fn promised() -> OnlyMap {
            OnlyMap(())
        }
    }

    /// The innermost directory, below all wrappers.
    #[derive(Debug)]
    pub enum Base<'a> {
        /// A directory of the machine.
        Os(&'a super::os::OsDirectory),
        /// The directory of a store in memory.
        Memory,
        /// A directory of a simulated disk.
        #[cfg(any(test, feature = "testing"))]
        Mem(&'a super::mem::MemDirectory),
    }

    impl<'a> Base<'a> {
        /// The machine's directory, if it is one.
        pub(crate) fn os(self) -> Option<&'a super::os::OsDirectory> {
            match self {
                Base::Os(directory) => Some(directory),
                Base::Memory => None,
                #[cfg(any(test, feature = "testing"))]
                Base::Mem(_) => None,
            }
        }
    }
}

pub(crate) use sealed::{Base, NeverChanged, OnlyMap};

/// The file system operations that the engine needs, called from several threads at once. Sealed:
/// implemented by this crate only.
pub trait Storage: sealed::Sealed + Send + Sync + std::fmt::Debug {
    /// Creates the directory and its missing parents; no error if it exists. The name of each
    /// directory created is durable only after [`StorageDirectory::sync`] on its parent.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Opens an existing directory. The handle keeps referring to the same directory when it is
    /// renamed, when another takes its path, and when the process changes its working directory.
    fn open_directory(&self, path: &Path) -> io::Result<Arc<dyn StorageDirectory>>;

    /// Renames a directory, atomically replacing an empty directory at the new path.
    fn rename_directory(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a directory and its content, in no particular order: a crash can leave any part of
    /// it.
    fn remove_directory(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory that has nothing in it; `DirectoryNotEmpty` if it has.
    fn remove_empty_directory(&self, path: &Path) -> io::Result<()>;

    /// Whether the path exists; a dangling symbolic link does.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// A random number, for ids, salts and hash seeds: the only source of randomness in the engine.
    fn random_u64(&self) -> u64 {
        system_random_u64()
    }
}

/// An open directory. Names are single names, not paths.
pub trait StorageDirectory: sealed::Sealed + Send + Sync + std::fmt::Debug {
    /// Names of files and directories in the directory, in no particular order.
    fn list(&self) -> io::Result<Vec<OsString>>;

    /// Creates a file that must not exist yet, open for reading and writing.
    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;

    /// Opens an existing file for reading and, if `write` is set, for writing.
    fn open(&self, name: &str, write: bool) -> io::Result<Arc<dyn StorageFile>>;

    /// Renames a file within this directory, atomically replacing any file of the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Its handles and maps keep working, and its space is freed when the last of
    /// them is dropped; where the system cannot do this (Windows, for mapped files), removing fails
    /// until then.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives an existing file a second name in another directory of the same storage, which must
    /// not have that name yet. `ErrorKind::Unsupported` or `CrossesDevices` if the file system
    /// cannot do that.
    fn hard_link(&self, name: &str, to: &dyn StorageDirectory, new_name: &str) -> io::Result<()>;

    /// Makes the names in this directory durable. A no-op where the system has no such call
    /// (Windows).
    fn sync(&self) -> io::Result<()>;

    /// Requests something of the file system that needs its journal, and fails if the journal was
    /// aborted. A sync may succeed although the commit that contains its metadata failed: ext4
    /// reports a failed commit to one of the callers waiting for it, or to none. Must be called
    /// after the sync of this directory or of a file in it, and twice: the first request after the
    /// failure makes ext4 notice it, and may itself succeed. Does nothing where syncs can be
    /// trusted.
    fn check_journal(&self) -> io::Result<()>;

    /// Takes the exclusive lock of this file, creating the file if needed, and writes `owner` into
    /// it. If the lock is held elsewhere, fails with `ErrorKind::WouldBlock` and the holder's text
    /// as message. The lock ends when the returned guard is dropped, or with the process; the file
    /// stays. Existing content of the file is no obstacle, and failing to write `owner` (the disk
    /// is full) is ignored.
    fn lock(&self, name: &str, owner: &str) -> io::Result<Box<dyn StorageLock>>;

    /// Whether the exclusive lock of this file is held; false if there is no such file. Changes
    /// nothing, and needs no right to write. A call of [`StorageDirectory::lock`] at the same time
    /// is not refused for it, but may take a millisecond longer.
    fn is_locked(&self, name: &str) -> io::Result<bool>;

    /// Whether files here may be changed through a map: the file system is one of those of which it
    /// is known what that can lead to.
    fn suits_rings(&self) -> bool;

    /// Whether the directory still has a name. Files created in a removed directory are lost.
    fn is_linked(&self) -> io::Result<bool>;

    /// The innermost directory.
    #[doc(hidden)]
    fn base(&self) -> Base<'_>;

    /// As [`StorageFile::fail_commit`].
    #[cfg(any(test, feature = "testing"))]
    fn fail_commit(&self) {}
}

/// An open file. Offsets are in bytes; no call moves a shared position.
#[expect(clippy::len_without_is_empty, reason = "a file is no collection")]
pub trait StorageFile: sealed::Sealed + Send + Sync + std::fmt::Debug {
    /// Reads up to `buffer.len()` bytes; 0 only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes up to `bytes.len()` bytes and returns how many were written. `InvalidInput` for an
    /// offset below the length that this handle has mapped.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes content and length durable (a data sync).
    fn sync(&self) -> io::Result<()>;

    /// Whether the file still has a name: bytes written to a removed file are lost with the
    /// process. The answer may be up to 10 microseconds old.
    fn is_linked(&self) -> io::Result<bool>;

    /// Truncates the file, or extends it with zeros. `InvalidInput` if this handle has mapped more
    /// than `length`.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Extends the file to this length with zeros, and takes the space for them, so that a write
    /// there changes no length and does not find the disk full. Never shortens it. After an error
    /// its length is as before. `Unsupported` where the system cannot do it at once.
    fn allocate(&self, length: u64) -> io::Result<()>;

    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Maps the first `length` bytes read-only; `UnexpectedEof` if the file has fewer. The system
    /// is advised of random access. Only this crate can call it, since nothing may change the file
    /// below `length` afterwards, and only the engine can promise that.
    fn map(&self, length: u64, promise: NeverChanged) -> io::Result<Map>;

    /// Maps the first `length` bytes, which were written before, to be changed in place;
    /// `UnexpectedEof` if the file has fewer. Only this crate can call it, since nothing else may
    /// map the file, and only the engine can promise that.
    fn map_ring(&self, length: u64, promise: OnlyMap) -> io::Result<Box<dyn StorageRing>>;

    /// For tests: loses all unsynced changes of the file, though reads keep showing them, as on
    /// some systems after a failed sync. Only simulated disks do; other storages ignore it.
    #[cfg(any(test, feature = "testing"))]
    fn mark_clean(&self) {}

    /// For tests: fails the commit that contains all unsynced changes, and aborts the journal. Only
    /// simulated disks do; other storages ignore it.
    #[cfg(any(test, feature = "testing"))]
    fn fail_commit(&self) {}
}

/// Held while a store is open; dropping it releases the lock.
pub trait StorageLock: sealed::Sealed + Send + Sync + std::fmt::Debug {
    /// Whether the lock file still has a name. If it was removed, another process can create a new
    /// one and lock that.
    fn is_linked(&self) -> io::Result<bool>;
}

/// A random number from the system, through the standard library's hash seeds.
fn system_random_u64() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(0);
    hasher.finish()
}

/// 16 random bytes.
pub(crate) fn random_id(storage: &dyn Storage) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&storage.random_u64().to_le_bytes());
    id[8..].copy_from_slice(&storage.random_u64().to_le_bytes());
    id
}

/// Fills `buffer` from `offset` on; `UnexpectedEof` if the file ends first.
pub(crate) fn read_exact_at(file: &dyn StorageFile, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                buffer = buffer.get_mut(count..).unwrap_or_default();
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of `bytes` at `offset`; after an error, an unknown part of them has been written.
pub(crate) fn write_all_at(file: &dyn StorageFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = bytes.get(count..).unwrap_or_default();
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The whole content of an open file that is expected to be small (at most `limit` bytes, else
/// `InvalidData`).
pub(crate) fn read_whole(file: &dyn StorageFile, limit: u64) -> io::Result<Vec<u8>> {
    let length = file.len()?;
    if length > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("longer than such a file can be: {length} bytes"),
        ));
    }
    let mut bytes = vec![0; length as usize];
    read_exact_at(file, &mut bytes, 0)?;
    Ok(bytes)
}
