//! (Over 400 lines: each method of the storage traits once.)
//!
//! A simulated disk that can lose power.
//!
//! [`MemStorage`] keeps two images of everything. Calls read and change the live image, as a
//! running machine sees its files through the page cache. The durable image is what a power cut
//! leaves; syncs copy changes to it, one file or one directory at a time, and between syncs the
//! disk may write any changes, in any order and in parts. [`CutPolicy`] chooses one of these
//! outcomes.
//!
//! Where real systems differ, the disk is pessimistic: syncing a file does not make its name
//! durable, not even for a new file (ext4 and XFS do so, POSIX does not promise it), and creating a
//! directory does not make its name durable in the parent.

mod cut;
mod disk;
mod random;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use cut::CutPolicy;
use disk::{Disk, Entry, Inode};
use random::SplitMix64;

use super::map::Map;
use super::os::check_unmapped;
use super::sealed::{Base, NeverChanged, OnlyMap, Sealed};
use super::{Storage, StorageDirectory, StorageFile, StorageLock, StorageRing, lock, system_random_u64};

/// A simulated disk in memory, with a live and a durable image. Cheap to clone; clones share the
/// disk.
///
/// It is deterministic: the same calls and the same [`CutPolicy`] give the same bytes, and a store
/// with a simulated clock on a [seeded](MemStorage::seeded) disk writes the same bytes for the same
/// operations. Paths are unrelated to the machine's directories; relative ones start at the root,
/// which always exists.
///
/// ```
/// use embercask::storage::{CutPolicy, MemStorage};
/// use std::path::Path;
///
/// let disk = MemStorage::new();
/// let file = disk.create(Path::new("/log"))?;
/// file.write_at(b"synced", 0)?;
/// file.sync()?;
/// disk.sync_directory(Path::new("/"))?;
/// file.write_at(b", not synced", 6)?;
///
/// let rebooted = disk.power_cut(&CutPolicy::LoseUnsynced);
/// assert_eq!(rebooted.read_file("/log")?, b"synced");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct MemStorage {
    disk: Arc<Mutex<Disk>>,
}

impl MemStorage {
    /// An empty disk of unlimited size.
    #[must_use]
    pub fn new() -> Self {
        Self::of(Disk::new())
    }

    /// An empty disk that supplies a store's random numbers (its id and those of namespaces, salts,
    /// hash seeds) from a seed. Disks with the same seed give the same numbers, so stores that
    /// should differ need different seeds.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let mut disk = Disk::new();
        disk.random = Some(SplitMix64(seed));
        Self::of(disk)
    }

    fn of(disk: Disk) -> Self {
        Self {
            disk: Arc::new(Mutex::new(disk)),
        }
    }

    /// Lock poisoning is ignored: no call here can panic halfway through a change.
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk, for a call that may change it.
    fn mutate(&self) -> MutexGuard<'_, Disk> {
        let mut disk = self.disk();
        disk.operation_count += 1;
        disk
    }

    fn open_inode(&self, disk: &mut Disk, inode: Inode) -> Arc<Opened> {
        disk.opened(inode);
        Arc::new(Opened {
            storage: self.clone(),
            inode,
        })
    }

    /// An independent copy of the disk as it is after a power cut, with no locks held. This disk
    /// and its open files are not affected.
    #[must_use]
    pub fn power_cut(&self, policy: &CutPolicy) -> Self {
        Self::of(self.disk().after_power_cut(policy))
    }

    /// An independent copy of the disk as the next process finds it after this one was killed: the
    /// live image with no locks held, and unsynced changes still not durable.
    #[must_use]
    pub fn crash_process(&self) -> Self {
        let mut disk = self.disk().clone();
        disk.close_all();
        Self::of(disk)
    }

    /// Does what a failed sync of this file does on some systems: the page cache marks the data
    /// clean, so reads still show it, but later syncs never write it to the disk unless it is
    /// written again.
    ///
    /// See "Can Applications Recover from fsync Failures?" (USENIX ATC 2020).
    ///
    /// # Errors
    ///
    /// If there is no such file.
    pub fn mark_clean(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let mut disk = self.disk();
        let inode = disk.file_at(path.as_ref())?;
        disk.mark_clean(inode);
        Ok(())
    }

    /// Limits the file content on the disk to this many bytes; None for no limit. Content already
    /// beyond the limit stays. On a full disk, calls that take space fail with `StorageFull`, and
    /// so do new names; a write that fits in part is short.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity_bytes = bytes;
    }

    /// Bytes in use. A file's bytes are freed when its last name, handle and map are gone.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.disk().used_bytes()
    }

    /// Number of calls so far that change the disk or make changes durable, including failed ones.
    /// Restarts at 0 after a crash.
    #[must_use]
    pub fn operation_count(&self) -> u64 {
        self.disk().operation_count
    }

    /// Number of operations that are not durable yet: the range of [`CutPolicy::KeepPrefix`].
    #[must_use]
    pub fn pending_operations(&self) -> usize {
        self.disk().pending_orders().len()
    }

    /// The live content of a file.
    ///
    /// # Errors
    ///
    /// If there is no such file.
    pub fn read_file(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let disk = self.disk();
        let inode = disk.file_at(path.as_ref())?;
        Ok(disk
            .files
            .get(&inode)
            .map(|file| file.live.to_vec())
            .unwrap_or_default())
    }

    /// Replaces the content of a file, or creates it, durably at once: for tests that prepare
    /// damage.
    ///
    /// # Errors
    ///
    /// If its directory does not exist.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
        let path = path.as_ref();
        let capacity = self.disk().capacity_bytes.take();
        let result = self.put_content(path, |content| {
            content.clear();
            content.extend_from_slice(bytes);
            Ok(())
        });
        self.disk().capacity_bytes = capacity;
        result
    }

    /// Flips one bit of a file, counted from the lowest of its first byte, durably at once.
    ///
    /// # Errors
    ///
    /// If there is no such file, or no such bit in it.
    pub fn flip_bit(&self, path: impl AsRef<Path>, bit: u64) -> io::Result<()> {
        let path = path.as_ref();
        self.disk().file_at(path)?;
        self.put_content(path, |content| {
            let byte = usize::try_from(bit / 8).ok().and_then(|index| content.get_mut(index));
            *byte.ok_or(ErrorKind::InvalidInput)? ^= 1 << (bit % 8);
            Ok(())
        })
    }

    /// Truncates a file, or extends it with zeros, durably at once.
    ///
    /// # Errors
    ///
    /// If there is no such file.
    pub fn truncate(&self, path: impl AsRef<Path>, length: u64) -> io::Result<()> {
        let path = path.as_ref();
        self.disk().file_at(path)?;
        self.put_content(path, |content| {
            content.resize(usize::try_from(length).map_err(|_| ErrorKind::FileTooLarge)?, 0);
            Ok(())
        })
    }

    /// The files in a directory, sorted, without subdirectories; empty if there is no such
    /// directory.
    #[must_use]
    pub fn files(&self, directory: impl AsRef<Path>) -> Vec<PathBuf> {
        let directory = directory.as_ref();
        let disk = self.disk();
        let entries = disk.resolve(directory).and_then(|directory| disk.list(directory));
        let entries = entries.unwrap_or_default();
        entries
            .into_iter()
            .filter(|(_, is_directory)| !is_directory)
            .map(|(name, _)| directory.join(name))
            .collect()
    }

    /// Removes a file, durably at once.
    ///
    /// # Errors
    ///
    /// If there is no such file.
    pub fn remove_file(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        let mut disk = self.disk();
        let entry = disk.entry(path)?;
        disk.remove(entry)?;
        disk.sync_path(path)
    }

    /// Makes the file's name durable, creating the file if needed, and changes its content in both
    /// images.
    fn put_content(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> io::Result<()> {
        let mut disk = self.disk();
        let inode = match disk.file_at(path) {
            Ok(inode) => inode,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let entry = disk.entry(path)?;
                disk.create(entry)?
            }
            Err(error) => return Err(error),
        };
        disk.sync_path(path)?;
        if let Some(file) = disk.files.get_mut(&inode) {
            let mut content = file.live.to_vec();
            change(&mut content)?;
            file.pending.clear();
            file.durable = Arc::new(content.clone());
            file.live = Arc::new(content);
        }
        Ok(())
    }
}

impl Default for MemStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for MemStorage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let disk = self.disk();
        formatter
            .debug_struct("MemStorage")
            .field("files", &disk.files.len())
            .field("used_bytes", &disk.used_bytes())
            .field("pending_operations", &disk.pending_orders().len())
            .finish_non_exhaustive()
    }
}

/// The storage calls by path, for tests.
impl MemStorage {
    /// Creates the directory and its missing parents.
    ///
    /// # Errors
    ///
    /// As [`Storage::create_directory`].
    pub fn create_directory(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.mutate().create_directory(path.as_ref())
    }

    /// Names in a directory, sorted.
    ///
    /// # Errors
    ///
    /// As [`StorageDirectory::list`].
    pub fn list(&self, directory: impl AsRef<Path>) -> io::Result<Vec<OsString>> {
        let disk = self.disk();
        let directory = disk.resolve(directory.as_ref())?;
        Ok(disk.list(directory)?.into_iter().map(|(name, _)| name).collect())
    }

    /// Creates a file.
    ///
    /// # Errors
    ///
    /// As [`StorageDirectory::create`].
    pub fn create(&self, path: impl AsRef<Path>) -> io::Result<Arc<dyn StorageFile>> {
        let mut disk = self.mutate();
        let entry = disk.entry(path.as_ref())?;
        self.create_entry(&mut disk, entry)
    }

    /// Opens a file.
    ///
    /// # Errors
    ///
    /// As [`StorageDirectory::open`].
    pub fn open(&self, path: impl AsRef<Path>, write: bool) -> io::Result<Arc<dyn StorageFile>> {
        let mut disk = self.disk();
        let inode = disk.file_at(path.as_ref())?;
        Ok(Arc::new(MemFile::new(self.open_inode(&mut disk, inode), write)))
    }

    /// Renames a file or directory.
    ///
    /// # Errors
    ///
    /// As [`StorageDirectory::rename`].
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        let mut disk = self.mutate();
        let (from, to) = (disk.entry(from.as_ref())?, disk.entry(to.as_ref())?);
        disk.rename(from, to)
    }

    /// Removes a file, not durably yet; see [`remove_file`](Self::remove_file).
    ///
    /// # Errors
    ///
    /// As [`StorageDirectory::remove`].
    pub fn remove(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let mut disk = self.mutate();
        let entry = disk.entry(path.as_ref())?;
        disk.remove(entry)
    }

    /// Gives a file a second path.
    ///
    /// # Errors
    ///
    /// As [`StorageDirectory::hard_link`].
    pub fn hard_link(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        let mut disk = self.mutate();
        let (from, to) = (disk.entry(from.as_ref())?, disk.entry(to.as_ref())?);
        disk.hard_link(from, to)
    }

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    ///
    /// If there is no such directory.
    pub fn sync_directory(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let mut disk = self.mutate();
        let directory = disk.resolve(path.as_ref())?;
        disk.sync_directory(directory)
    }

    /// Removes a directory and its content.
    ///
    /// # Errors
    ///
    /// If there is no such directory.
    pub fn remove_directory(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.mutate().remove_directory(path.as_ref())
    }

    /// Whether the path exists.
    ///
    /// # Errors
    ///
    /// If the path leads through a file.
    pub fn exists(&self, path: impl AsRef<Path>) -> io::Result<bool> {
        match self.disk().resolve(path.as_ref()) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes the lock of a file.
    ///
    /// # Errors
    ///
    /// As [`StorageDirectory::lock`].
    pub fn lock(&self, path: impl AsRef<Path>, owner: &str) -> io::Result<Box<dyn StorageLock>> {
        let mut disk = self.mutate();
        let entry = disk.entry(path.as_ref())?;
        self.lock_entry(&mut disk, entry, owner)
    }

    fn create_entry(&self, disk: &mut Disk, entry: Entry) -> io::Result<Arc<dyn StorageFile>> {
        let inode = disk.create(entry)?;
        Ok(Arc::new(MemFile::new(self.open_inode(disk, inode), true)))
    }

    fn lock_entry(&self, disk: &mut Disk, entry: Entry, owner: &str) -> io::Result<Box<dyn StorageLock>> {
        let inode = match disk.file_of(&entry) {
            Err(error) if error.kind() == ErrorKind::NotFound => disk.create(entry)?,
            found => found?,
        };
        let file = disk.files.get_mut(&inode).ok_or(ErrorKind::NotFound)?;
        if file.locked {
            return Err(lock::contended(&file.live));
        }
        file.locked = true;
        // As on the real file system, a full disk does not prevent locking.
        let _ = disk
            .set_length(inode, 0)
            .and_then(|()| disk.write(inode, owner.as_bytes(), 0));
        Ok(Box::new(MemLock {
            opened: self.open_inode(disk, inode),
        }))
    }

    /// Fails the journal commit that contains all pending changes: none of them ever becomes
    /// durable, though reads keep showing them. From then on syncs succeed, and metadata changes
    /// are refused.
    pub fn fail_commit(&self) {
        self.disk().fail_commit();
    }
}

impl Sealed for MemStorage {}

impl Storage for MemStorage {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.mutate().create_directory(path)
    }

    fn open_directory(&self, path: &Path) -> io::Result<Arc<dyn StorageDirectory>> {
        let mut disk = self.disk();
        let inode = disk.resolve(path)?;
        disk.open_directory(inode)?;
        Ok(Arc::new(MemDirectory {
            storage: self.clone(),
            inode,
        }))
    }

    fn rename_directory(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.rename(from, to)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.mutate().remove_directory(path)
    }

    fn remove_empty_directory(&self, path: &Path) -> io::Result<()> {
        self.mutate().remove_empty_directory(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        MemStorage::exists(self, path)
    }

    fn random_u64(&self) -> u64 {
        match &mut self.disk().random {
            Some(random) => random.next(),
            None => system_random_u64(),
        }
    }
}

/// An open directory of a simulated disk.
#[derive(Debug)]
pub struct MemDirectory {
    storage: MemStorage,
    inode: Inode,
}

impl MemDirectory {
    fn entry(&self, name: &str) -> Entry {
        (self.inode, name.into())
    }
}

impl Drop for MemDirectory {
    fn drop(&mut self) {
        self.storage.disk().close_directory(self.inode);
    }
}

impl Sealed for MemDirectory {}

impl StorageDirectory for MemDirectory {
    fn list(&self) -> io::Result<Vec<OsString>> {
        let names = self.storage.disk().list(self.inode)?;
        Ok(names.into_iter().map(|(name, _)| name).collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.storage.create_entry(&mut self.storage.mutate(), self.entry(name))
    }

    fn open(&self, name: &str, write: bool) -> io::Result<Arc<dyn StorageFile>> {
        let mut disk = self.storage.disk();
        let inode = disk.file_of(&self.entry(name))?;
        Ok(Arc::new(MemFile::new(self.storage.open_inode(&mut disk, inode), write)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.storage.mutate().rename(self.entry(from), self.entry(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.storage.mutate().remove(self.entry(name))
    }

    fn hard_link(&self, name: &str, to: &dyn StorageDirectory, new_name: &str) -> io::Result<()> {
        match to.base() {
            Base::Mem(target) if Arc::ptr_eq(&target.storage.disk, &self.storage.disk) => self
                .storage
                .mutate()
                .hard_link(self.entry(name), target.entry(new_name)),
            _ => Err(ErrorKind::CrossesDevices.into()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.storage.mutate().sync_directory(self.inode)
    }

    fn check_journal(&self) -> io::Result<()> {
        self.storage.disk().ask_journal()
    }

    fn lock(&self, name: &str, owner: &str) -> io::Result<Box<dyn StorageLock>> {
        self.storage
            .lock_entry(&mut self.storage.mutate(), self.entry(name), owner)
    }

    fn is_locked(&self, name: &str) -> io::Result<bool> {
        let disk = self.storage.disk();
        match disk.file_of(&self.entry(name)) {
            Ok(inode) => Ok(disk.files.get(&inode).is_some_and(|file| file.locked)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// So that every operation of a store is one that the disk sees, unless the test wants a ring.
    fn suits_rings(&self) -> bool {
        false
    }

    fn is_linked(&self) -> io::Result<bool> {
        Ok(self.storage.disk().is_linked_directory(self.inode))
    }

    fn base(&self) -> Base<'_> {
        Base::Mem(self)
    }

    fn fail_commit(&self) {
        self.storage.fail_commit();
    }
}

/// Counts as open until dropped; shared by a handle and its maps.
#[derive(Debug)]
struct Opened {
    storage: MemStorage,
    inode: Inode,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.storage.disk().closed(self.inode);
    }
}

#[derive(Debug)]
struct MemFile {
    opened: Arc<Opened>,
    writable: bool,
    /// As in `OsFile`: the file must not change below it.
    mapped_bytes: AtomicU64,
}

impl MemFile {
    fn new(opened: Arc<Opened>, writable: bool) -> Self {
        Self {
            opened,
            writable,
            mapped_bytes: AtomicU64::new(0),
        }
    }

    fn read<T>(&self, look: impl FnOnce(&disk::File) -> T) -> io::Result<T> {
        Ok(look(
            self.opened
                .storage
                .disk()
                .files
                .get(&self.opened.inode)
                .ok_or(ErrorKind::NotFound)?,
        ))
    }

    /// The disk, for a call that changes the file from `offset` on.
    fn mutate(&self, offset: u64) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.opened.storage.mutate();
        if !self.writable {
            return Err(ErrorKind::PermissionDenied.into());
        }
        check_unmapped(offset, &self.mapped_bytes)?;
        Ok(disk)
    }
}

impl Sealed for MemFile {}

impl StorageFile for MemFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read(|file| {
            let rest = usize::try_from(offset)
                .ok()
                .and_then(|offset| file.live.get(offset..))
                .unwrap_or_default();
            let count = rest.len().min(buffer.len());
            for (target, byte) in buffer.iter_mut().zip(rest) {
                *target = *byte;
            }
            count
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.mutate(offset)?.write(self.opened.inode, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.opened.storage.mutate().sync_file(self.opened.inode);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.mutate(length)?.set_length(self.opened.inode, length)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        match self.len()? {
            shorter if shorter < length => self.set_len(length),
            _ => Ok(()),
        }
    }

    fn len(&self) -> io::Result<u64> {
        self.read(|file| file.live.len() as u64)
    }

    fn is_linked(&self) -> io::Result<bool> {
        self.read(|file| file.links > 0)
    }

    fn map(&self, length: u64, _: NeverChanged) -> io::Result<Map> {
        let bytes = self.read(|file| Arc::clone(&file.live))?;
        let map = Map::of_memory(bytes, length, Arc::clone(&self.opened) as Arc<dyn Send + Sync>)?;
        self.mapped_bytes.fetch_max(length, Ordering::AcqRel);
        Ok(map)
    }

    fn map_ring(&self, length: u64, _: OnlyMap) -> io::Result<Box<dyn StorageRing>> {
        if self.len()? < length {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if !self.writable {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let opened = self.opened.clone();
        Ok(Box::new(MemRing { opened, length }))
    }

    fn mark_clean(&self) {
        self.opened.storage.disk().mark_clean(self.opened.inode);
    }

    fn fail_commit(&self) {
        self.opened.storage.fail_commit();
    }
}

/// The pages of a file. As on a real machine, a power cut leaves any of what was stored there since
/// the file was synced, sector by sector.
#[derive(Debug)]
struct MemRing {
    opened: Arc<Opened>,
    length: u64,
}

impl Sealed for MemRing {}

impl StorageRing for MemRing {
    fn store(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(ErrorKind::InvalidInput.into());
        }
        self.opened.storage.mutate().write(self.opened.inode, bytes, offset)?;
        Ok(())
    }
}

#[derive(Debug)]
struct MemLock {
    opened: Arc<Opened>,
}

impl Sealed for MemLock {}

impl StorageLock for MemLock {
    fn is_linked(&self) -> io::Result<bool> {
        let disk = self.opened.storage.disk();
        Ok(disk.files.get(&self.opened.inode).is_some_and(|file| file.links > 0))
    }
}

impl Drop for MemLock {
    fn drop(&mut self) {
        if let Some(file) = self.opened.storage.disk().files.get_mut(&self.opened.inode) {
            file.locked = false;
        }
    }
}
