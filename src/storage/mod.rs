//! Bytes on a device: the one seam between the engine and a file system.
//!
//! Everything the engine asks of a file system goes through [`Storage`], [`StorageDirectory`] and
//! [`StorageFile`]. They know files and directories, not records. A store holds its directory open:
//! names are looked up in that directory, wherever it is moved and whatever becomes of the path
//! under which it was opened. [`OsStorage`] is the real file system; for tests (feature `testing`)
//! there are `MemStorage`, a simulated disk that keeps a live and a durable image and can lose
//! power; `FaultStorage`, which wraps another and makes chosen calls fail; and `Interposed`, which
//! lets a test see and answer every call.
//!
//! What the engine relies on, and every implementation keeps:
//!
//! * bytes written are seen at once by every later read and map of the same file;
//! * after [`StorageFile::sync`] returned Ok, content and length of that file survive a power cut,
//!   unless the file system has failed to commit them and has told somebody else of it, or nobody:
//!   what [`StorageFile::check_journal`] is for;
//! * a name that was created, renamed, linked or removed survives a power cut only after
//!   [`StorageDirectory::sync`] on its directory returned Ok;
//! * [`StorageDirectory::rename`] replaces the target atomically.
//!
//! The traits are sealed: what the engine asks of a storage changes from version to version.

mod directory;
mod lock;
mod map;
mod os;
mod process;

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
pub use os::OsStorage;
pub(crate) use process::ProcessMark;

mod sealed {
    /// Keeps the traits of this module from being implemented outside of it.
    pub trait Sealed {}

    /// Proof that the caller is the engine, which keeps the promise that
    /// [`StorageFile::map`](super::StorageFile::map) asks for. Nothing outside this crate can
    /// make one.
    #[derive(Clone, Copy, Debug)]
    pub struct NeverChanged(());

    impl NeverChanged {
        /// The caller promises that the mapped part of the file never changes while it is mapped.
        pub(crate) const fn promised() -> NeverChanged {
            NeverChanged(())
        }
    }

    /// What a directory is at the bottom, below everything that was put around it.
    #[derive(Debug)]
    pub enum Base<'a> {
        /// One of the machine's.
        Os(&'a super::os::OsDirectory),
        /// One of a simulated disk.
        #[cfg(any(test, feature = "testing"))]
        Mem(&'a super::mem::MemDirectory),
    }

    impl<'a> Base<'a> {
        /// Of the machine, if it is.
        pub(crate) fn os(self) -> Option<&'a super::os::OsDirectory> {
            match self {
                Base::Os(directory) => Some(directory),
                #[cfg(any(test, feature = "testing"))]
                Base::Mem(_) => None,
            }
        }
    }
}

pub(crate) use sealed::{Base, NeverChanged};

/// A file system, as far as the engine needs one. Calls come from several threads at once. Sealed:
/// implemented by this crate only.
pub trait Storage: sealed::Sealed + Send + Sync + std::fmt::Debug {
    /// Creates the directory and those above it; no error if it exists. The name of each one
    /// created is durable only after [`StorageDirectory::sync`] on the directory above it.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Opens an existing directory and holds it: it stays the same one when it is renamed, when
    /// another takes its path, and when the process changes its own directory.
    fn open_directory(&self, path: &Path) -> io::Result<Arc<dyn StorageDirectory>>;

    /// Gives a directory another name, atomically replacing an empty directory that stood there.
    fn rename_directory(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a directory and all that is in it, in no particular order: a crash can leave any
    /// part of it.
    fn remove_directory(&self, path: &Path) -> io::Result<()>;

    /// Whether something of this name exists; a link that leads nowhere does.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// A random number, for ids, salts and the seeds of hashes: the one place where randomness
    /// enters the engine.
    fn random_u64(&self) -> u64 {
        system_random_u64()
    }
}

/// An open directory. Names are single names, not paths.
pub trait StorageDirectory: sealed::Sealed + Send + Sync + std::fmt::Debug {
    /// Names in the directory, in no particular order; files and directories alike.
    fn list(&self) -> io::Result<Vec<OsString>>;

    /// Creates a file that must not exist yet, open for reading and writing.
    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;

    /// Opens an existing file for reading and, if `write` is set, for writing.
    fn open(&self, name: &str, write: bool) -> io::Result<Arc<dyn StorageFile>>;

    /// Gives the file another name in this directory, atomically replacing what stood there.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Its handles and maps go on working, and its space comes back when the last
    /// of them is dropped; where the system cannot do this (Windows, for mapped files),
    /// removing fails until then.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives an existing file a second name in another directory of the same storage, which must
    /// not have that name yet. `ErrorKind::Unsupported` or `CrossesDevices` where there is no
    /// such thing.
    fn hard_link(&self, name: &str, to: &dyn StorageDirectory, new_name: &str) -> io::Result<()>;

    /// Makes the names in this directory durable. A no-op where the system has nothing of the kind
    /// (Windows).
    fn sync(&self) -> io::Result<()>;

    /// As [`StorageFile::check_journal`].
    fn check_journal(&self) -> io::Result<()>;

    /// Takes the exclusive lock that belongs to this file, creating the file if needed, and writes
    /// `owner` into it. If it is held elsewhere: `ErrorKind::WouldBlock`, its message being
    /// what the holder wrote. The lock ends when the returned guard is dropped, or with the
    /// process; the file stays. Whatever the file holds is no obstacle, and a text that cannot
    /// be written (the disk is full) is left out.
    fn lock(&self, name: &str, owner: &str) -> io::Result<Box<dyn StorageLock>>;

    /// Whether the directory still has a name. What is created in one that was removed is lost.
    fn is_linked(&self) -> io::Result<bool>;

    /// What this is at the bottom.
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

    /// Writes up to `bytes.len()` bytes and says how many; may be short. `InvalidInput` below what
    /// this handle has mapped.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes content and length durable (a data sync).
    fn sync(&self) -> io::Result<()>;

    /// Asks the file system for something that needs its journal, and fails if the journal is gone.
    /// A sync may be answered with success although the commit that its metadata were part of
    /// has failed: ext4 tells only one of those who wait for a commit, or nobody. To be called
    /// after the sync, and twice: the first question after the failure makes ext4 notice it,
    /// and may be answered with success. Does nothing where a sync can be believed.
    fn check_journal(&self) -> io::Result<()>;

    /// Whether the file still has a name: what is written to one that was removed is lost with the
    /// process. May be an answer that is up to 10 microseconds old.
    fn is_linked(&self) -> io::Result<bool>;

    /// Cuts or extends (with zeros) the file. `InvalidInput` if this handle has mapped more than
    /// that.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Maps the first `length` bytes read-only; `UnexpectedEof` if the file has fewer. Reads
    /// through the map are announced as random. Only this crate can call it, since nothing may
    /// change the file below `length` from then on, and only the engine can promise that.
    fn map(&self, length: u64, promise: NeverChanged) -> io::Result<Map>;

    /// For tests: takes what was not synced for lost, though reads go on showing it, as some
    /// systems do after a failed sync. Only a simulated disk can; everything else ignores it.
    #[cfg(any(test, feature = "testing"))]
    fn mark_clean(&self) {}

    /// For tests: the commit that everything not synced yet is part of fails, and the journal with
    /// it. Only a simulated disk can; everything else ignores it.
    #[cfg(any(test, feature = "testing"))]
    fn fail_commit(&self) {}
}

/// Held while a store is open; dropping it lets the next one in.
pub trait StorageLock: sealed::Sealed + Send + Sync + std::fmt::Debug {
    /// Whether the lock's file still has a name. If it was removed, the next one makes another, and
    /// is let in.
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

/// Fills `buffer` from `offset` on; `UnexpectedEof` if the file ends before.
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

/// Writes all of `bytes` at `offset`; after an error the range holds an unknown part of them.
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
            format!("longer than any such file can be: {length} bytes"),
        ));
    }
    let mut bytes = vec![0; length as usize];
    read_exact_at(file, &mut bytes, 0)?;
    Ok(bytes)
}
