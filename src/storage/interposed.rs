//! (Over 400 lines: each method of the storage traits once.)
//!
//! A storage that lets a test see every call and decide its outcome.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::sealed::{Base, NeverChanged, OnlyMap, Sealed};
use super::{Map, Storage, StorageDirectory, StorageFile, StorageLock, StorageRing};

/// The operation of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`Storage::create_directory`].
    CreateDirectory,
    /// [`Storage::open_directory`].
    OpenDirectory,
    /// [`StorageDirectory::list`] and [`Storage::exists`].
    List,
    /// [`StorageDirectory::create`].
    Create,
    /// [`StorageDirectory::open`] for reading only.
    OpenRead,
    /// [`StorageDirectory::open`] for writing.
    OpenWrite,
    /// [`StorageDirectory::rename`] and [`Storage::rename_directory`].
    Rename,
    /// [`StorageDirectory::remove`].
    Remove,
    /// [`Storage::remove_directory`] and [`Storage::remove_empty_directory`].
    RemoveDirectory,
    /// [`StorageDirectory::hard_link`].
    HardLink,
    /// [`StorageDirectory::sync`].
    SyncDirectory,
    /// [`StorageDirectory::lock`].
    Lock,
    /// [`StorageFile::read_at`] and [`StorageFile::len`].
    Read,
    /// [`StorageFile::write_at`].
    Write,
    /// [`StorageFile::sync`].
    Sync,
    /// [`StorageDirectory::check_journal`].
    CheckJournal,
    /// [`StorageFile::set_len`].
    SetLen,
    /// [`StorageFile::allocate`].
    Allocate,
    /// [`StorageFile::map`] and [`StorageFile::map_ring`].
    Map,
    /// [`StorageRing::store`].
    Store,
}

impl Operation {
    /// Whether it changes stored data or makes it durable: only then can a crash before it and one
    /// after it leave different states.
    #[must_use]
    pub const fn mutates(self) -> bool {
        match self {
            Self::OpenDirectory
            | Self::List
            | Self::OpenRead
            | Self::OpenWrite
            | Self::Read
            | Self::CheckJournal
            | Self::Map => false,
            Self::CreateDirectory
            | Self::Create
            | Self::Rename
            | Self::Remove
            | Self::RemoveDirectory
            | Self::HardLink
            | Self::SyncDirectory
            | Self::Lock
            | Self::Write
            | Self::Store
            | Self::Sync
            | Self::SetLen
            | Self::Allocate => true,
        }
    }

    /// Whether it opens a descriptor, so that it fails if the process has none left.
    #[must_use]
    pub const fn opens(self) -> bool {
        matches!(
            self,
            Self::OpenDirectory | Self::Create | Self::OpenRead | Self::OpenWrite | Self::Lock
        )
    }
}

/// A call that is about to be made.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The operation.
    pub operation: Operation,
    /// The path of the file or directory, as opened; for a rename or link, the old path.
    pub path: &'a Path,
    /// For a rename or link, the new path.
    pub to: Option<&'a Path>,
    /// For a write or a store, the offset and the bytes.
    pub write: Option<(u64, &'a [u8])>,
    /// For a call on an open file, that file.
    pub file: Option<&'a dyn StorageFile>,
    /// For a call on an open directory or on a name in it, that directory.
    pub directory: Option<&'a dyn StorageDirectory>,
    /// Whether the call takes space on the disk.
    pub takes_space: bool,
}

/// Decides the outcome of calls. Called from several threads at once.
pub trait Interposer: Send + Sync + std::fmt::Debug {
    /// `make` makes the call. The caller gets the result of this function, which may differ from
    /// that of `make`; a call that returns no value can be faked by returning Ok without making it.
    ///
    /// # Errors
    ///
    /// Those of the call, or errors returned instead.
    fn around(&self, call: &Call<'_>, make: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()>;

    /// As [`around`](Self::around), for a write: `make` writes at most the given number of its
    /// bytes, and returns how many it has written.
    ///
    /// # Errors
    ///
    /// As for [`around`](Self::around).
    fn around_write(&self, call: &Call<'_>, make: &mut dyn FnMut(usize) -> io::Result<usize>) -> io::Result<usize> {
        let all = call.write.map_or(0, |(_, bytes)| bytes.len());
        let mut written = all;
        self.around(call, &mut || {
            written = make(all)?;
            Ok(())
        })?;
        Ok(written)
    }
}

/// A storage that passes every call to another one through an [`Interposer`], except
/// [`StorageFile::is_linked`] and its counterparts.
#[derive(Clone, Debug)]
pub struct Interposed {
    inner: Arc<dyn Storage>,
    interposer: Arc<dyn Interposer>,
}

impl Interposed {
    /// Wraps a storage.
    #[must_use]
    pub fn over(inner: Arc<dyn Storage>, interposer: Arc<dyn Interposer>) -> Interposed {
        Interposed { inner, interposer }
    }
}

fn on(operation: Operation, path: &Path) -> Call<'_> {
    let takes_space = matches!(
        operation,
        Operation::CreateDirectory | Operation::Create | Operation::HardLink | Operation::Write
    );
    Call {
        operation,
        path,
        to: None,
        write: None,
        file: None,
        directory: None,
        takes_space,
    }
}

/// Makes a call that returns a value through an interposer.
fn returning<T>(
    interposer: &dyn Interposer,
    call: &Call<'_>,
    mut make: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let mut made = None;
    interposer.around(call, &mut || {
        made = Some(make()?);
        Ok(())
    })?;
    made.ok_or_else(|| io::Error::other("a call that returns a value cannot be faked"))
}

impl Sealed for Interposed {}

impl Storage for Interposed {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.interposer.around(&on(Operation::CreateDirectory, path), &mut || {
            self.inner.create_directory(path)
        })
    }

    fn open_directory(&self, path: &Path) -> io::Result<Arc<dyn StorageDirectory>> {
        let inner = returning(&*self.interposer, &on(Operation::OpenDirectory, path), || {
            self.inner.open_directory(path)
        })?;
        Ok(Arc::new(InterposedDirectory {
            path: path.to_owned(),
            inner,
            interposer: self.interposer.clone(),
        }))
    }

    fn rename_directory(&self, from: &Path, to: &Path) -> io::Result<()> {
        let call = Call {
            to: Some(to),
            ..on(Operation::Rename, from)
        };
        self.interposer
            .around(&call, &mut || self.inner.rename_directory(from, to))
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.interposer.around(&on(Operation::RemoveDirectory, path), &mut || {
            self.inner.remove_directory(path)
        })
    }

    fn remove_empty_directory(&self, path: &Path) -> io::Result<()> {
        self.interposer.around(&on(Operation::RemoveDirectory, path), &mut || {
            self.inner.remove_empty_directory(path)
        })
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        returning(&*self.interposer, &on(Operation::List, path), || {
            self.inner.exists(path)
        })
    }

    fn random_u64(&self) -> u64 {
        self.inner.random_u64()
    }
}

#[derive(Debug)]
struct InterposedDirectory {
    path: PathBuf,
    inner: Arc<dyn StorageDirectory>,
    interposer: Arc<dyn Interposer>,
}

impl InterposedDirectory {
    /// A call on the directory, or on a name in it.
    fn on<'a>(&'a self, operation: Operation, path: &'a Path) -> Call<'a> {
        Call {
            directory: Some(&*self.inner),
            ..on(operation, path)
        }
    }

    fn file(&self, name: &str, inner: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        Arc::new(InterposedFile {
            path: self.path.join(name),
            inner,
            interposer: self.interposer.clone(),
        })
    }
}

impl Sealed for InterposedDirectory {}

impl StorageDirectory for InterposedDirectory {
    fn list(&self) -> io::Result<Vec<OsString>> {
        returning(&*self.interposer, &self.on(Operation::List, &self.path), || {
            self.inner.list()
        })
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let path = self.path.join(name);
        let file = returning(&*self.interposer, &self.on(Operation::Create, &path), || {
            self.inner.create(name)
        })?;
        Ok(self.file(name, file))
    }

    fn open(&self, name: &str, write: bool) -> io::Result<Arc<dyn StorageFile>> {
        let path = self.path.join(name);
        let operation = if write {
            Operation::OpenWrite
        } else {
            Operation::OpenRead
        };
        let file = returning(&*self.interposer, &self.on(operation, &path), || {
            self.inner.open(name, write)
        })?;
        Ok(self.file(name, file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let paths = [from, to].map(|name| self.path.join(name));
        let call = Call {
            to: Some(&paths[1]),
            ..self.on(Operation::Rename, &paths[0])
        };
        self.interposer.around(&call, &mut || self.inner.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path.join(name);
        self.interposer
            .around(&self.on(Operation::Remove, &path), &mut || self.inner.remove(name))
    }

    fn hard_link(&self, name: &str, to: &dyn StorageDirectory, new_name: &str) -> io::Result<()> {
        let path = self.path.join(name);
        // The path of the target directory is unknown here.
        let call = Call {
            to: Some(Path::new(new_name)),
            ..self.on(Operation::HardLink, &path)
        };
        self.interposer
            .around(&call, &mut || self.inner.hard_link(name, to, new_name))
    }

    fn sync(&self) -> io::Result<()> {
        self.interposer
            .around(&self.on(Operation::SyncDirectory, &self.path), &mut || {
                self.inner.sync()
            })
    }

    fn check_journal(&self) -> io::Result<()> {
        self.interposer
            .around(&self.on(Operation::CheckJournal, &self.path), &mut || {
                self.inner.check_journal()
            })
    }

    fn lock(&self, name: &str, owner: &str) -> io::Result<Box<dyn StorageLock>> {
        let path = self.path.join(name);
        returning(&*self.interposer, &self.on(Operation::Lock, &path), || {
            self.inner.lock(name, owner)
        })
    }

    /// Counts as opening the file for reading.
    fn is_locked(&self, name: &str) -> io::Result<bool> {
        let path = self.path.join(name);
        returning(&*self.interposer, &self.on(Operation::OpenRead, &path), || {
            self.inner.is_locked(name)
        })
    }

    fn suits_rings(&self) -> bool {
        self.inner.suits_rings()
    }

    fn is_linked(&self) -> io::Result<bool> {
        self.inner.is_linked()
    }

    fn base(&self) -> Base<'_> {
        self.inner.base()
    }

    fn fail_commit(&self) {
        self.inner.fail_commit();
    }
}

#[derive(Debug)]
struct InterposedFile {
    path: PathBuf,
    inner: Arc<dyn StorageFile>,
    interposer: Arc<dyn Interposer>,
}

impl InterposedFile {
    fn on(&self, operation: Operation) -> Call<'_> {
        Call {
            file: Some(&*self.inner),
            ..on(operation, &self.path)
        }
    }
}

impl Sealed for InterposedFile {}

impl StorageFile for InterposedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        returning(&*self.interposer, &self.on(Operation::Read), || {
            self.inner.read_at(buffer, offset)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let call = Call {
            write: Some((offset, bytes)),
            ..self.on(Operation::Write)
        };
        self.interposer.around_write(&call, &mut |length| {
            self.inner.write_at(bytes.get(..length).unwrap_or(bytes), offset)
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.interposer
            .around(&self.on(Operation::Sync), &mut || self.inner.sync())
    }

    fn is_linked(&self) -> io::Result<bool> {
        self.inner.is_linked()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let call = Call {
            // Truncating works on a full disk. If the length cannot be read, the call itself will
            // fail.
            takes_space: self.inner.len().is_ok_and(|before| length > before),
            ..self.on(Operation::SetLen)
        };
        self.interposer.around(&call, &mut || self.inner.set_len(length))
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let call = Call {
            takes_space: true,
            ..self.on(Operation::Allocate)
        };
        self.interposer.around(&call, &mut || self.inner.allocate(length))
    }

    fn len(&self) -> io::Result<u64> {
        returning(&*self.interposer, &self.on(Operation::Read), || self.inner.len())
    }

    fn map(&self, length: u64, promise: NeverChanged) -> io::Result<Map> {
        returning(&*self.interposer, &self.on(Operation::Map), || {
            self.inner.map(length, promise)
        })
    }

    fn map_ring(&self, length: u64, promise: OnlyMap) -> io::Result<Box<dyn StorageRing>> {
        let inner = returning(&*self.interposer, &self.on(Operation::Map), || {
            self.inner.map_ring(length, promise)
        })?;
        Ok(Box::new(InterposedRing {
            path: self.path.clone(),
            inner,
            interposer: self.interposer.clone(),
        }))
    }

    fn mark_clean(&self) {
        self.inner.mark_clean();
    }

    fn fail_commit(&self) {
        self.inner.fail_commit();
    }
}

#[derive(Debug)]
struct InterposedRing {
    path: PathBuf,
    inner: Box<dyn StorageRing>,
    interposer: Arc<dyn Interposer>,
}

impl Sealed for InterposedRing {}

impl StorageRing for InterposedRing {
    fn store(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let call = Call {
            write: Some((offset, bytes)),
            ..on(Operation::Store, &self.path)
        };
        self.interposer.around(&call, &mut || self.inner.store(bytes, offset))
    }
}
