//! The real file system with a fuse: at a chosen call, the process using it is killed before,
//! within or after that call.
//!
//! On request it also reports what has become durable, so that the parent can remove what a power
//! cut may take: `N file` before a file is created, `D file length` after a sync, `R from to`
//! before a rename and `r from` after it, `s` before a sync of the directory and `S` after it. A
//! report is complete before anything that depends on it begins.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use embercask::storage::{Call, Interposed, Interposer, Operation, OsStorage, StorageDirectory};

use test_support::process::{die, report};

/// When to die, relative to the last call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    /// A write is half done; other calls are not done at all.
    Within,
    After,
}

/// Once lit, counts down modifying calls.
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

    /// The process dies after this many more calls, unless the fuse is already burning.
    pub(crate) fn light(&self, calls: u64) {
        let _ = self
            .left
            .compare_exchange(i64::MAX, calls as i64, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// When to die during this call, if at all.
    fn burn(&self) -> Option<Moment> {
        let burn = |left: i64| (left != i64::MAX).then_some(left - 1);
        let before = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, burn).ok()?;
        (before == 0).then_some(self.moment)
    }
}

#[derive(Debug)]
pub(crate) struct Deadly {
    fuse: Arc<Fuse>,
    /// The path under which the directory to report on was opened; None to report nothing.
    told_of: Option<PathBuf>,
    /// Where a replaced manifest is kept.
    kept: PathBuf,
    /// Whether the manifest was replaced since the last sync of the directory.
    replaced: AtomicBool,
}

/// Where the manifest as of the last sync of the directory is kept, if it was replaced since.
pub(crate) fn replaced_manifest(directory: &Path) -> PathBuf {
    directory.with_extension("replaced")
}

impl Deadly {
    /// The real file system with this fuse. Reports on files in the directory opened as `told_of`,
    /// and keeps a manifest they replace beside `directory`, where the parent looks for it.
    pub(crate) fn over_the_disk(fuse: Arc<Fuse>, told_of: Option<&Path>, directory: &Path) -> Interposed {
        let deadly = Deadly {
            fuse,
            told_of: told_of.map(Path::to_owned),
            kept: replaced_manifest(directory),
            replaced: AtomicBool::new(false),
        };
        Interposed::over(Arc::new(OsStorage), Arc::new(deadly))
    }

    /// Name of the file, if it is reported on.
    fn told(&self, path: &Path) -> Option<String> {
        let is_told = path
            .parent()
            .is_some_and(|parent| Some(parent) == self.told_of.as_deref());
        is_told.then(|| path.file_name().unwrap_or_default().to_string_lossy().into_owned())
    }

    /// Makes a call and reports what it made durable.
    fn tell(&self, call: &Call<'_>, make: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let name = self.told(call.path);
        match (call.operation, name) {
            (Operation::Create, Some(name)) => {
                report(format_args!("N {name}"));
                make()
            }
            (Operation::Rename, Some(from)) => {
                let to = call.to.and_then(|to| self.told(to)).unwrap_or_default();
                // The first manifest replaces none.
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
                // The length before the sync, since it need not cover later writes.
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
