//! Bytes on a device: the one seam between the engine and a file system.
//!
//! Everything the engine asks of a file system goes through [`Storage`] and [`StorageFile`]. They know
//! files and directories, not records. Three implementations stand behind them: [`OsStorage`], the real
//! one; and, for tests (feature `testing`), `MemStorage`, a simulated disk that keeps a live and a
//! durable image and can lose power, and `FaultStorage`, which wraps another and makes chosen calls fail.
//!
//! What the engine relies on, and every implementation keeps:
//!
//! * bytes written are seen at once by every later read and map of the same file;
//! * after [`StorageFile::sync`] returned Ok, content and length of that file survive a power cut;
//! * a name that was created, renamed, linked or removed survives a power cut only after
//!   [`Storage::sync_directory`] on its directory returned Ok;
//! * [`Storage::rename`] replaces the target atomically.

mod lock;
mod map;
mod os;

#[cfg(any(test, feature = "testing"))]
mod fault;
#[cfg(any(test, feature = "testing"))]
mod mem;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;

#[cfg(any(test, feature = "testing"))]
pub use fault::{Fault, FaultKind, FaultStorage, Operation};
pub use map::Map;
#[cfg(any(test, feature = "testing"))]
pub use mem::{CutPolicy, MemStorage};
pub use os::OsStorage;

/// A file system, as far as the engine needs one. Calls come from several threads at once.
pub trait Storage: Send + Sync + std::fmt::Debug {
    /// Creates the directory and those above it; no error if it exists. The name of each one created is durable
    /// only after [`sync_directory`](Self::sync_directory) on the directory above it.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Names in the directory, in no particular order; files and directories alike.
    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>>;

    /// Creates a file that must not exist yet, open for reading and writing.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>>;

    /// Opens an existing file for reading and, if `write` is set, for writing.
    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn StorageFile>>;

    /// Gives the file another name, atomically replacing what stood there. Works on directories too.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Its handles and maps go on working, and its space comes back when the last of them is dropped;
    /// where the system cannot do this (Windows, for mapped files), removing fails until then.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory and all that is in it, in no particular order: a crash can leave any part of it.
    fn remove_directory(&self, path: &Path) -> io::Result<()>;

    /// Gives an existing file a second name, which must not exist yet. `ErrorKind::Unsupported` or `CrossesDevices`
    /// where there is no such thing.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes the names in this directory durable. A no-op where the system has nothing of the kind (Windows).
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;

    /// Takes the exclusive lock that belongs to this file, creating the file if needed, and writes `owner` into it.
    /// If somebody else holds it: `ErrorKind::WouldBlock`, its message being what the holder wrote.
    /// The lock ends when the returned guard is dropped, or with the process; the file stays. Whatever the file holds
    /// is no obstacle, and a text that cannot be written (the disk is full) is left out.
    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn StorageLock>>;

    /// Whether something of this name exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
}

/// An open file. Offsets are in bytes; no call moves a shared position.
#[expect(clippy::len_without_is_empty, reason = "a file is no collection, and nobody asks")]
pub trait StorageFile: Send + Sync + std::fmt::Debug {
    /// Reads up to `buffer.len()` bytes; 0 only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes up to `bytes.len()` bytes and says how many; may be short. `InvalidInput` below what this handle has
    /// mapped.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes content and length durable (a data sync).
    fn sync(&self) -> io::Result<()>;

    /// Cuts or extends (with zeros) the file. `InvalidInput` if this handle has mapped more than
    /// that.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Maps the first `length` bytes read-only; `UnexpectedEof` if the file has fewer. The caller promises that the
    /// file does not change below `length`. Reads through the map are announced as random.
    fn map(&self, length: u64) -> io::Result<Map>;

    /// For tests: takes what was not synced for lost, though reads go on showing it, as some systems do after a failed
    /// sync. Only a simulated disk can; everything else ignores it.
    #[cfg(any(test, feature = "testing"))]
    fn mark_clean(&self) {}
}

/// Held while a store is open; dropping it lets the next one in.
pub trait StorageLock: Send + Sync + std::fmt::Debug {}

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

/// The whole content of a file that is expected to be small (at most `limit` bytes, else `InvalidData`).
pub(crate) fn read_file(storage: &dyn Storage, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = storage.open(path, false)?;
    let length = file.len()?;
    if length > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("longer than any such file can be: {length} bytes"),
        ));
    }
    let mut bytes = vec![0; length as usize];
    read_exact_at(&*file, &mut bytes, 0)?;
    Ok(bytes)
}
