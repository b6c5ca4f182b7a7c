//! The real file system, with a fuse: at a chosen step the process that uses it is killed, before,
//! within or after the call.
//!
//! It also tells, if asked to, what has become durable, so that the parent can take away what a
//! power cut may take: `D file length` after a sync, `N file` for a new name, `S` after the
//! directory was synced, `R from to` before a rename and `r from` after it. Each report is made
//! before anything that rests on it can begin.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use embercask::storage::{Call, Interposed, Interposer, Operation, OsStorage, StorageDirectory};

use test_support::process::{die, report};

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

#[derive(Debug)]
pub(crate) struct Deadly {
    fuse: Arc<Fuse>,
    /// The path under which the directory was opened whose files are told of; None to tell of
    /// nothing.
    told_of: Option<PathBuf>,
    /// Where the manifest is kept that is replaced.
    kept: PathBuf,
    /// The manifest was replaced since the directory was last synced.
    replaced: AtomicBool,
}

/// Where the manifest is kept that stood there when the directory was last synced, if it was
/// replaced since.
pub(crate) fn replaced_manifest(directory: &Path) -> PathBuf {
    directory.with_extension("replaced")
}

impl Deadly {
    /// The real file system with this fuse. Of the files in the directory that is opened as
    /// `told_of` it tells; what they replace is kept beside `directory`, where the parent knows
    /// it to be.
    pub(crate) fn over_the_disk(fuse: Arc<Fuse>, told_of: Option<&Path>, directory: &Path) -> Interposed {
        let deadly = Deadly {
            fuse,
            told_of: told_of.map(Path::to_owned),
            kept: replaced_manifest(directory),
            replaced: AtomicBool::new(false),
        };
        Interposed::over(Arc::new(OsStorage), Arc::new(deadly))
    }

    /// Name of a file that is told of.
    fn told(&self, path: &Path) -> Option<String> {
        let is_told = path
            .parent()
            .is_some_and(|parent| Some(parent) == self.told_of.as_deref());
        is_told.then(|| path.file_name().unwrap_or_default().to_string_lossy().into_owned())
    }

    /// Makes a call, and tells what it has made durable.
    fn tell(&self, call: &Call<'_>, make: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let name = self.told(call.path);
        match (call.operation, name) {
            (Operation::Create, Some(name)) => {
                report(format_args!("N {name}"));
                make()
            }
            (Operation::Rename, Some(from)) => {
                let to = call.to.and_then(|to| self.told(to)).unwrap_or_default();
                // The first manifest of all replaces none.
                let directory = call.directory.expect("a file is renamed in a directory that is open");
                let replaced = match content(directory, &to) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    content => Some(content?),
                };
                if let Some(replaced) = replaced
                    && !self.replaced.swap(true, Ordering::SeqCst)
                {
                    std::fs::write(&self.kept, replaced)?;
                }
                report(format_args!("R {from} {to}"));
                make()?;
                report(format_args!("r {from}"));
                Ok(())
            }
            (Operation::SyncDirectory, None) if Some(call.path) == self.told_of.as_deref() => {
                report(format_args!("s"));
                make()?;
                self.replaced.store(false, Ordering::SeqCst);
                report(format_args!("S"));
                Ok(())
            }
            (Operation::Sync, name) => {
                // Before the sync: what is written meanwhile need not be covered.
                let length = call.file.map_or(Ok(0), |file| file.len())?;
                make()?;
                if let Some(name) = name {
                    report(format_args!("D {name} {length}"));
                }
                Ok(())
            }
            _ => make(),
        }
    }
}

fn content(directory: &dyn StorageDirectory, name: &str) -> io::Result<Vec<u8>> {
    let file = directory.open(name, false)?;
    let mut bytes = vec![0; file.len()? as usize];
    let read = file.read_at(&mut bytes, 0)?;
    assert_eq!(read, bytes.len());
    Ok(bytes)
}

impl Interposer for Deadly {
    fn around(&self, call: &Call<'_>, make: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        if !call.operation.mutates() {
            return make();
        }
        let dies = self.fuse.burn();
        if dies.is_some_and(|moment| moment != Moment::After) {
            die();
        }
        let result = self.tell(call, make);
        if dies.is_some() {
            die();
        }
        result
    }

    fn around_write(&self, call: &Call<'_>, make: &mut dyn FnMut(usize) -> io::Result<usize>) -> io::Result<usize> {
        let all = call.write.map_or(0, |(_, bytes)| bytes.len());
        let Some(moment) = self.fuse.burn() else {
            return make(all);
        };
        let _ = match moment {
            Moment::Before => Ok(0),
            Moment::Within => make(all / 2),
            Moment::After => make(all),
        };
        die()
    }
}
