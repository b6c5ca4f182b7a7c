//! The real file system, with a fuse: at a chosen step the process that uses it is killed, before, within or after the call.
//!
//! It also tells, if asked to, what has become durable, so that the parent can take away what a power cut may take: `D file
//! length` after a sync, `N file` for a new name, `S` after the directory was synced, `R from to` before a rename and `r from`
//! after it. Each report is made before anything that rests on it can begin.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use embercask::storage::{Map, OsStorage, Storage, StorageFile, StorageLock};

use crate::process::{die, report};

/// When, as seen from the call that is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    /// A write is done by half; other calls not at all.
    Within,
    After,
}

/// Counts the calls that change something, once it is lit.
#[derive(Debug)]
pub(crate) struct Fuse {
    left: AtomicI64,
    moment: Moment,
}

impl Fuse {
    pub(crate) fn new(moment: Moment) -> Fuse {
        Fuse {
            left: AtomicI64::new(i64::MAX),
            moment,
        }
    }

    /// The process dies after so many more calls, unless the fuse burns already.
    pub(crate) fn light(&self, calls: u64) {
        let _ = self
            .left
            .compare_exchange(i64::MAX, calls as i64, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// When to die in this call, if at all.
    fn burn(&self) -> Option<Moment> {
        let burn = |left: i64| (left != i64::MAX).then_some(left - 1);
        let before = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, burn).ok()?;
        (before == 0).then_some(self.moment)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Deadly {
    fuse: Arc<Fuse>,
    /// Whose files are told of; None to tell of nothing.
    told_of: Option<Arc<Path>>,
    /// The manifest was replaced since the directory was last synced.
    replaced: Arc<AtomicBool>,
}

/// Where the manifest is kept that stood there when the directory was last synced, if it was replaced since.
pub(crate) fn replaced_manifest(directory: &Path) -> PathBuf {
    directory.with_extension("replaced")
}

impl Deadly {
    pub(crate) fn new(fuse: Arc<Fuse>, told_of: Option<&Path>) -> Deadly {
        Deadly {
            fuse,
            told_of: told_of.map(Into::into),
            replaced: Arc::default(),
        }
    }

    /// Name of a file that is told of.
    fn told(&self, path: &Path) -> Option<String> {
        let is_told = path
            .parent()
            .is_some_and(|parent| Some(parent) == self.told_of.as_deref());
        is_told.then(|| path.file_name().unwrap_or_default().to_string_lossy().into_owned())
    }

    fn call<T>(&self, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let dies = self.fuse.burn();
        if dies.is_some_and(|moment| moment != Moment::After) {
            die();
        }
        let result = call();
        if dies.is_some() {
            die();
        }
        result
    }

    fn file(&self, path: &Path, inner: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        Arc::new(DeadlyFile {
            storage: self.clone(),
            path: path.to_owned(),
            inner,
        })
    }
}

impl Storage for Deadly {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.call(|| OsStorage.create_directory(path))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        OsStorage.list(directory)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.call(|| {
            if let Some(name) = self.told(path) {
                report(format_args!("N {name}"));
            }
            Ok(self.file(path, OsStorage.create(path)?))
        })
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn StorageFile>> {
        Ok(self.file(path, OsStorage.open(path, write)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(|| {
            let names = self.told(from).zip(self.told(to));
            if let Some((from, to_name)) = &names {
                // The first manifest of all replaces none.
                if to.exists() && !self.replaced.swap(true, Ordering::SeqCst) {
                    std::fs::copy(to, replaced_manifest(to.parent().unwrap_or(to)))?;
                }
                report(format_args!("R {from} {to_name}"));
            }
            OsStorage.rename(from, to)?;
            if let Some((from, _)) = &names {
                report(format_args!("r {from}"));
            }
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(|| OsStorage.remove(path))
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.call(|| OsStorage.remove_directory(path))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(|| OsStorage.hard_link(from, to))
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.call(|| {
            let told = Some(directory) == self.told_of.as_deref();
            if told {
                report(format_args!("s"));
            }
            OsStorage.sync_directory(directory)?;
            if told {
                self.replaced.store(false, Ordering::SeqCst);
                report(format_args!("S"));
            }
            Ok(())
        })
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn StorageLock>> {
        self.call(|| OsStorage.lock(path, owner))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        OsStorage.exists(path)
    }
}

#[derive(Debug)]
struct DeadlyFile {
    storage: Deadly,
    path: PathBuf,
    inner: Arc<dyn StorageFile>,
}

impl StorageFile for DeadlyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        match self.storage.fuse.burn() {
            None => self.inner.write_at(bytes, offset),
            Some(moment) => {
                let length = match moment {
                    Moment::Before => 0,
                    Moment::Within => bytes.len() / 2,
                    Moment::After => bytes.len(),
                };
                let _ = self.inner.write_at(&bytes[..length], offset);
                die()
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.storage.call(|| {
            // Before the sync: what is written meanwhile need not be covered.
            let length = self.inner.len()?;
            self.inner.sync()?;
            if let Some(name) = self.storage.told(&self.path) {
                report(format_args!("D {name} {length}"));
            }
            Ok(())
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.storage.call(|| self.inner.set_len(length))
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn map(&self, length: u64) -> io::Result<Map> {
        self.inner.map(length)
    }
}
