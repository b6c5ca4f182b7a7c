//! The directory of a store, held open as long as the store is, and the state of its syncs.
//!
//! Invariants:
//!
//! * Every file of the store is created, opened, renamed and removed through [`Directory`], so in
//!   the directory that was opened, even if its path now leads elsewhere.
//! * Every sync of the store, of a file or of the directory, goes through it too. The first failure
//!   is remembered ([`Directory::check_syncs`]), and every later sync fails as well: a journaling
//!   file system may report a failed commit to only one of the callers that share it, and success
//!   to the others.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::sealed::{NeverChanged, OnlyMap, Sealed};
use super::{Map, Storage, StorageDirectory, StorageFile, StorageLock, StorageRing, read_whole};
use crate::planted::{Planted, planted};

/// An open directory. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    /// The path it was opened under, for messages only.
    path: Arc<Path>,
    inner: Arc<dyn StorageDirectory>,
    syncs: Arc<Syncs>,
    /// Whether nothing may be changed through this handle.
    read_only: bool,
}

/// The first sync that failed.
#[derive(Debug, Default)]
struct Syncs {
    failed: AtomicBool,
    cause: Mutex<Option<String>>,
}

impl Syncs {
    /// Remembers a failed sync. Lack of space is not a failure of the file system: it is reported
    /// to the call that synced the file, and does not affect other files.
    fn note(&self, path: &Path, error: &io::Error) {
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return;
        }
        let mut cause = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
        cause.get_or_insert_with(|| format!("a sync failed: {error}: {}", path.display()));
        self.failed.store(true, Ordering::Release);
    }

    #[inline]
    fn check(&self) -> io::Result<()> {
        if !self.failed.load(Ordering::Acquire) || planted(Planted::ForgetFailedSyncs) {
            return Ok(());
        }
        let cause = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
        Err(io::Error::other(cause.clone().unwrap_or_default()))
    }

    /// Decides whether the result of a sync of `path` can be trusted.
    fn judge(&self, path: &Path, synced: io::Result<()>, ask: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let asked = synced.and_then(|()| {
            if planted(Planted::BelieveSyncs) {
                return Ok(());
            }
            ask_journal(ask)
        });
        asked.inspect_err(|error| self.note(path, error))?;
        self.check()
    }
}

/// Checks that the journal is intact. Asks twice: ext4 notices an aborted journal only at the first
/// request that needs it, and does not report that it failed to change a timestamp; from then on it
/// refuses to.
fn ask_journal(ask: impl Fn() -> io::Result<()>) -> io::Result<()> {
    ask()?;
    if planted(Planted::AskJournalOnce) {
        Ok(())
    } else {
        ask()
    }
}

impl Directory {
    /// Opens an existing directory.
    pub(crate) fn open(storage: &dyn Storage, path: &Path) -> io::Result<Directory> {
        Ok(Directory {
            path: path.into(),
            inner: storage.open_directory(path)?,
            syncs: Arc::default(),
            read_only: false,
        })
    }

    /// The same directory, for a store that is opened for reading only: every call that would
    /// change, lock or sync something fails, from any caller.
    pub(crate) fn read_only(self) -> Directory {
        Directory {
            read_only: true,
            ..self
        }
    }

    /// Whether it is the directory of a store that is opened for reading only.
    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }

    #[inline]
    fn check_writes(&self) -> io::Result<()> {
        if !self.read_only {
            return Ok(());
        }
        let what = "the store was opened for reading only";
        Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
    }

    /// The path under which it was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file, for messages.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn list(&self) -> io::Result<Vec<OsString>> {
        self.inner.list()
    }

    /// As [`StorageDirectory::create`].
    pub(crate) fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.check_writes()?;
        Ok(self.watch(name, self.inner.create(name)?))
    }

    /// As [`StorageDirectory::open`].
    pub(crate) fn open_file(&self, name: &str, write: bool) -> io::Result<Arc<dyn StorageFile>> {
        if write {
            self.check_writes()?;
        }
        Ok(self.watch(name, self.inner.open(name, write)?))
    }

    /// The whole content of a file that is expected to be small (at most `limit` bytes, else
    /// `InvalidData`).
    pub(crate) fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        read_whole(&*self.inner.open(name, false)?, limit)
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.check_writes()?;
        self.inner.rename(from, to)
    }

    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        self.check_writes()?;
        self.inner.remove(name)
    }

    /// Removes a file; no error if there is none.
    pub(crate) fn remove_if_there(&self, name: &str) -> io::Result<()> {
        match self.remove(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// As [`StorageDirectory::hard_link`], under the same name.
    pub(crate) fn hard_link(&self, name: &str, to: &Directory) -> io::Result<()> {
        self.check_writes()?;
        self.inner.hard_link(name, &*to.inner, name)
    }

    /// As [`StorageDirectory::lock`].
    pub(crate) fn lock(&self, name: &str, owner: &str) -> io::Result<Box<dyn StorageLock>> {
        self.check_writes()?;
        self.inner.lock(name, owner)
    }

    /// As [`StorageDirectory::is_locked`].
    pub(crate) fn is_locked(&self, name: &str) -> io::Result<bool> {
        self.inner.is_locked(name)
    }

    /// As [`StorageDirectory::suits_rings`].
    pub(crate) fn suits_rings(&self) -> bool {
        self.inner.suits_rings()
    }

    /// Makes the names in the directory durable. Fails if any sync of the store has failed.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.check_writes()?;
        self.syncs
            .judge(&self.path, self.inner.sync(), || self.inner.check_journal())
    }

    /// Fails if any sync of the store has failed.
    #[inline]
    pub(crate) fn check_syncs(&self) -> io::Result<()> {
        self.syncs.check()
    }

    /// Fails if the directory was removed: files written in it afterwards are lost.
    pub(crate) fn check_linked(&self) -> io::Result<()> {
        linked(self.inner.is_linked()?)
    }

    fn watch(&self, name: &str, inner: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        Arc::new(WatchedFile {
            path: self.path_of(name),
            inner,
            directory: self.inner.clone(),
            syncs: self.syncs.clone(),
        })
    }
}

/// Fails if the lock file was removed: another process may have the directory open.
pub(crate) fn check_lock_linked(held: &dyn StorageLock) -> io::Result<()> {
    linked(held.is_linked()?)
}

/// Fails if the file was removed: bytes written to it are lost with the process.
pub(crate) fn check_linked(file: &dyn StorageFile) -> io::Result<()> {
    linked(file.is_linked()?)
}

fn linked(is_linked: bool) -> io::Result<()> {
    if is_linked || planted(Planted::WriteIntoRemoved) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        "it was removed while the store was open",
    ))
}

/// A file of the store, with its syncs recorded.
#[derive(Debug)]
struct WatchedFile {
    path: PathBuf,
    inner: Arc<dyn StorageFile>,
    /// Asked for the journal after a sync. The same question of the file would change the file's
    /// metadata, which the next sync would then have to commit.
    directory: Arc<dyn StorageDirectory>,
    syncs: Arc<Syncs>,
}

impl Sealed for WatchedFile {}

impl StorageFile for WatchedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }

    #[inline]
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.inner.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.syncs
            .judge(&self.path, self.inner.sync(), || self.directory.check_journal())
    }

    #[inline]
    fn is_linked(&self) -> io::Result<bool> {
        self.inner.is_linked()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.inner.set_len(length)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.inner.allocate(length)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn map(&self, length: u64, promise: NeverChanged) -> io::Result<Map> {
        self.inner.map(length, promise)
    }

    fn map_ring(&self, length: u64, promise: OnlyMap) -> io::Result<Box<dyn StorageRing>> {
        self.inner.map_ring(length, promise)
    }

    #[cfg(any(test, feature = "testing"))]
    fn mark_clean(&self) {
        self.inner.mark_clean();
    }

    #[cfg(any(test, feature = "testing"))]
    fn fail_commit(&self) {
        self.inner.fail_commit();
    }
}
