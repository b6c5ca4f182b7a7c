//! Files in memory, for stores that are gone when they are closed: one directory without a path, no
//! lock (no other process can reach it), and nothing to sync.
//!
//! Maps share the bytes of their file. Nothing changes them: the engine maps only files that it has
//! finished, and a write to one that is mapped would change a copy.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::map::Map;
use super::os::check_unmapped;
use super::sealed::{Base, NeverChanged, OnlyMap, Sealed};
use super::{Storage, StorageDirectory, StorageFile, StorageLock, StorageRing};
use crate::sync::lock;

/// What the directory is called in messages.
pub(crate) const MEMORY_PATH: &str = "<memory>";

/// A directory in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryStorage {
    files: Arc<Mutex<BTreeMap<String, Arc<MemoryFile>>>>,
}

#[derive(Debug, Default)]
struct MemoryFile {
    bytes: Mutex<Arc<Vec<u8>>>,
    mapped_bytes: AtomicU64,
}

/// A handle of a file.
#[derive(Debug)]
struct Opened {
    file: Arc<MemoryFile>,
    write: bool,
}

#[derive(Debug)]
struct NoLock;

impl MemoryStorage {
    /// An error for every path but the one of the directory.
    fn check(path: &Path) -> io::Result<()> {
        if path == Path::new(MEMORY_PATH) || path == Path::new("") {
            Ok(())
        } else {
            let message = "a store in memory has no other directories; export its keys, or open a store on disk";
            Err(io::Error::new(ErrorKind::Unsupported, message))
        }
    }

    fn find(&self, name: &str) -> io::Result<Arc<MemoryFile>> {
        let files = lock(&self.files);
        files.get(name).cloned().ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl Sealed for MemoryStorage {}

impl Storage for MemoryStorage {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        MemoryStorage::check(path)
    }

    fn open_directory(&self, path: &Path) -> io::Result<Arc<dyn StorageDirectory>> {
        MemoryStorage::check(path).map_err(|_| ErrorKind::NotFound)?;
        Ok(Arc::new(self.clone()))
    }

    fn rename_directory(&self, from: &Path, to: &Path) -> io::Result<()> {
        MemoryStorage::check(from).and_then(|()| MemoryStorage::check(to))
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        MemoryStorage::check(path)?;
        lock(&self.files).clear();
        Ok(())
    }

    fn remove_empty_directory(&self, path: &Path) -> io::Result<()> {
        MemoryStorage::check(path)?;
        match lock(&self.files).is_empty() {
            true => Ok(()),
            false => Err(ErrorKind::DirectoryNotEmpty.into()),
        }
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(MemoryStorage::check(path).is_ok())
    }
}

impl StorageDirectory for MemoryStorage {
    fn list(&self) -> io::Result<Vec<OsString>> {
        Ok(lock(&self.files).keys().map(OsString::from).collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let mut files = lock(&self.files);
        if files.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let file = Arc::new(MemoryFile::default());
        files.insert(name.to_owned(), file.clone());
        Ok(Arc::new(Opened { file, write: true }))
    }

    fn open(&self, name: &str, write: bool) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.find(name)?;
        Ok(Arc::new(Opened { file, write }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = lock(&self.files);
        let file = files.remove(from).ok_or(ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match lock(&self.files).remove(name) {
            Some(_) => Ok(()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn hard_link(&self, _: &str, _: &dyn StorageDirectory, _: &str) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn check_journal(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, name: &str, _: &str) -> io::Result<Box<dyn StorageLock>> {
        lock(&self.files).entry(name.to_owned()).or_default();
        Ok(Box::new(NoLock))
    }

    fn is_locked(&self, _: &str) -> io::Result<bool> {
        Ok(false)
    }

    fn suits_rings(&self) -> bool {
        false
    }

    fn is_linked(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn base(&self) -> Base<'_> {
        Base::Memory
    }
}

impl Opened {
    /// Changes the bytes from `offset` on.
    fn change<T>(&self, offset: u64, change: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
        if !self.write {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let mut bytes = lock(&self.file.bytes);
        check_unmapped(offset, &self.file.mapped_bytes)?;
        Ok(change(Arc::make_mut(&mut bytes)))
    }
}

/// An offset or length in memory.
fn position(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| ErrorKind::FileTooLarge.into())
}

impl Sealed for Opened {}

impl StorageFile for Opened {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = lock(&self.file.bytes);
        let from = bytes.get(position(offset)?..).unwrap_or_default();
        let count = from.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), from.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }

    fn write_at(&self, new: &[u8], offset: u64) -> io::Result<usize> {
        let start = position(offset)?;
        self.change(offset, |bytes| {
            let end = start.saturating_add(new.len());
            // Appending, as the log does, copies the bytes once.
            let over = bytes.len().clamp(start, end) - start;
            if bytes.len() < start {
                bytes.resize(start, 0);
            }
            let (replacing, appended) = new.split_at_checked(over).unwrap_or((new, &[]));
            if let Some(replaced) = bytes.get_mut(start..start + replacing.len()) {
                replaced.copy_from_slice(replacing);
            }
            bytes.extend_from_slice(appended);
        })?;
        Ok(new.len())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn is_linked(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let length_in_memory = position(length)?;
        self.change(length, |bytes| {
            bytes.resize(length_in_memory, 0);
            bytes.shrink_to_fit();
        })
    }

    /// Memory is taken when it is written to.
    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.file.bytes).len() as u64)
    }

    fn map(&self, length: u64, _: NeverChanged) -> io::Result<Map> {
        let mut bytes = lock(&self.file.bytes);
        // It is complete: what was allocated for more is given back.
        if let Some(bytes) = Arc::get_mut(&mut bytes) {
            bytes.shrink_to_fit();
        }
        let map = Map::of_memory(bytes.clone(), length, self.file.clone())?;
        self.file.mapped_bytes.fetch_max(length, Ordering::AcqRel);
        Ok(map)
    }

    /// Nothing in memory outlives the process.
    fn map_ring(&self, _: u64, _: OnlyMap) -> io::Result<Box<dyn StorageRing>> {
        Err(ErrorKind::Unsupported.into())
    }
}

impl Sealed for NoLock {}

impl StorageLock for NoLock {
    fn is_linked(&self) -> io::Result<bool> {
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{read_whole, write_all_at};

    fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> ErrorKind {
        result.unwrap_err().kind()
    }

    #[test]
    fn files_in_memory_are_created_written_renamed_and_removed() {
        let storage = MemoryStorage::default();
        let directory = storage.open_directory(Path::new(MEMORY_PATH)).unwrap();
        let file = directory.create("a").unwrap();
        assert_eq!(kind(directory.create("a")), ErrorKind::AlreadyExists);
        write_all_at(&*file, b"0123", 0).unwrap();
        write_all_at(&*file, b"xy", 3).unwrap();
        write_all_at(&*file, b"!", 7).unwrap();
        assert_eq!(read_whole(&*file, 100).unwrap(), b"012xy\0\0!");
        file.set_len(2).unwrap();
        file.set_len(4).unwrap();
        assert_eq!(
            (file.len().unwrap(), read_whole(&*file, 100).unwrap()),
            (4, b"01\0\0".to_vec())
        );
        assert_eq!(file.read_at(&mut [0; 4], 9).unwrap(), 0);
        directory.create("b").unwrap();
        directory.rename("a", "b").unwrap();
        assert_eq!(kind(directory.open("a", false)), ErrorKind::NotFound);
        let opened = directory.open("b", false).unwrap();
        assert_eq!(kind(opened.write_at(b"1", 0)), ErrorKind::PermissionDenied);
        assert_eq!(directory.list().unwrap(), ["b"]);
        directory.remove("b").unwrap();
        assert_eq!(kind(directory.remove("b")), ErrorKind::NotFound);
        assert_eq!(opened.len().unwrap(), 4, "a handle of a removed file goes on");
    }

    #[test]
    fn a_map_shares_the_bytes_and_nothing_changes_them() {
        let storage = MemoryStorage::default();
        let file = storage.create("a").unwrap();
        write_all_at(&*file, b"0123456789", 0).unwrap();
        let promise = NeverChanged::promised();
        assert_eq!(kind(file.map(11, promise)), ErrorKind::UnexpectedEof);
        let map = file.map(6, promise).unwrap();
        let (one, two) = (map.as_ptr(), file.map(6, promise).unwrap().as_ptr());
        assert_eq!(one, two, "the bytes were copied");
        assert_eq!(kind(file.write_at(b"x", 5)), ErrorKind::InvalidInput);
        assert_eq!(kind(file.set_len(5)), ErrorKind::InvalidInput);
        write_all_at(&*file, b"xxxx", 6).unwrap();
        storage.remove("a").unwrap();
        drop(file);
        assert_eq!(&map[..], b"012345");
    }

    #[test]
    fn there_is_one_directory_and_no_other() {
        let storage = MemoryStorage::default();
        let other = Path::new("/elsewhere");
        assert_eq!(kind(storage.open_directory(other)), ErrorKind::NotFound);
        let error = storage.create_directory(other).unwrap_err();
        assert!(error.to_string().contains("a store on disk"), "{error}");
        assert!(!storage.exists(other).unwrap() && storage.exists(Path::new(MEMORY_PATH)).unwrap());
        storage.create("a").unwrap();
        assert_eq!(
            kind(storage.remove_empty_directory(Path::new(MEMORY_PATH))),
            ErrorKind::DirectoryNotEmpty
        );
        storage.remove_directory(Path::new(MEMORY_PATH)).unwrap();
        assert!(storage.list().unwrap().is_empty());
    }
}
