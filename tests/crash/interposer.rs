//! A storage that lets somebody see every call that changes something, before it happens and after.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use embercask::storage::{Map, Operation, Storage, StorageFile, StorageLock};

/// A call that changes what is stored, or makes it durable.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) operation: Operation,
    /// The file, by the name under which it was opened; of a rename or link the old name.
    pub(crate) path: &'a Path,
    /// Of a rename or link the new name.
    pub(crate) to: Option<&'a Path>,
    /// Of a write the offset and the bytes.
    pub(crate) write: Option<(u64, &'a [u8])>,
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    /// It is said to have ended well, and was never made. Only for calls that return nothing.
    Pretend,
}

pub(crate) trait Interposer: Send + Sync + std::fmt::Debug {
    fn before(&self, call: &Call<'_>) -> Verdict;

    /// The call has ended well; `file` is what it was made on, if on an open file.
    fn after(&self, _call: &Call<'_>, _file: Option<&dyn StorageFile>) {}
}

#[derive(Clone, Debug)]
pub(crate) struct Interposed {
    inner: Arc<dyn Storage>,
    interposer: Arc<dyn Interposer>,
}

impl Interposed {
    pub(crate) fn over(inner: Arc<dyn Storage>, interposer: Arc<dyn Interposer>) -> Arc<dyn Storage> {
        Arc::new(Interposed { inner, interposer })
    }

    fn call<T>(&self, call: &Call<'_>, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.interposer.before(call);
        let made = make()?;
        self.interposer.after(call, None);
        Ok(made)
    }

    /// As [`call`](Self::call), but what returns nothing can be pretended.
    fn change(
        &self,
        call: &Call<'_>,
        file: Option<&dyn StorageFile>,
        make: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        if self.interposer.before(call) == Verdict::Pass {
            make()?;
        }
        self.interposer.after(call, file);
        Ok(())
    }

    fn file(&self, path: &Path, inner: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        Arc::new(InterposedFile {
            storage: self.clone(),
            path: path.to_owned(),
            inner,
        })
    }
}

fn on(operation: Operation, path: &Path) -> Call<'_> {
    Call {
        operation,
        path,
        to: None,
        write: None,
    }
}

impl Storage for Interposed {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.change(&on(Operation::CreateDirectory, path), None, || {
            self.inner.create_directory(path)
        })
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        self.inner.list(directory)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.call(&on(Operation::Create, path), || self.inner.create(path))?;
        Ok(self.file(path, file))
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn StorageFile>> {
        Ok(self.file(path, self.inner.open(path, write)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let call = Call {
            to: Some(to),
            ..on(Operation::Rename, from)
        };
        self.change(&call, None, || self.inner.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(&on(Operation::Remove, path), None, || self.inner.remove(path))
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.change(&on(Operation::RemoveDirectory, path), None, || {
            self.inner.remove_directory(path)
        })
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let call = Call {
            to: Some(to),
            ..on(Operation::HardLink, from)
        };
        self.change(&call, None, || self.inner.hard_link(from, to))
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.change(&on(Operation::SyncDirectory, directory), None, || {
            self.inner.sync_directory(directory)
        })
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn StorageLock>> {
        self.call(&on(Operation::Lock, path), || self.inner.lock(path, owner))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }
}

#[derive(Debug)]
struct InterposedFile {
    storage: Interposed,
    path: PathBuf,
    inner: Arc<dyn StorageFile>,
}

impl InterposedFile {
    fn change(&self, operation: Operation, make: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.storage
            .change(&on(operation, &self.path), Some(&*self.inner), make)
    }
}

impl StorageFile for InterposedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let call = Call {
            write: Some((offset, bytes)),
            ..on(Operation::Write, &self.path)
        };
        self.storage.interposer.before(&call);
        let count = self.inner.write_at(bytes, offset)?;
        self.storage.interposer.after(&call, Some(&*self.inner));
        Ok(count)
    }

    fn sync(&self) -> io::Result<()> {
        self.change(Operation::Sync, || self.inner.sync())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Operation::SetLen, || self.inner.set_len(length))
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn map(&self, length: u64) -> io::Result<Map> {
        self.inner.map(length)
    }

    fn mark_clean(&self) {
        self.inner.mark_clean();
    }
}
