//! Devices that lie. No engine can survive them, and an exploration that does not notice them
//! checks nothing.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use embercask::storage::{Call, Interposed, Interposer, MemStorage, Operation, Storage};

use crate::crash::recording::Below;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Syncs of files do nothing.
    FileSyncs,
    /// Syncs of directories do nothing.
    DirectorySyncs,
    /// Names become durable before the contents of their files.
    RenameBeforeData,
    /// One write in the middle never becomes durable, without an error.
    MiddleWrite,
}

/// Which write to segments is lost.
const LOST_WRITE: usize = 9;

impl Lie {
    pub fn below(self) -> Below {
        Arc::new(move |disk: &MemStorage| -> Arc<dyn Storage> {
            let liar = Liar {
                lie: self,
                disk: disk.clone(),
                writes: AtomicUsize::new(0),
            };
            Arc::new(Interposed::over(Arc::new(disk.clone()), Arc::new(liar)))
        })
    }
}

#[derive(Debug)]
struct Liar {
    lie: Lie,
    disk: MemStorage,
    writes: AtomicUsize,
}

fn is_temporary(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tmp")
}

impl Interposer for Liar {
    fn around(&self, call: &Call<'_>, make: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let lies = match self.lie {
            Lie::FileSyncs => call.operation == Operation::Sync,
            Lie::DirectorySyncs => call.operation == Operation::SyncDirectory,
            Lie::RenameBeforeData => call.operation == Operation::Sync && is_temporary(call.path),
            Lie::MiddleWrite => false,
        };
        if !lies {
            make()?;
        }
        match (self.lie, call.operation) {
            (Lie::RenameBeforeData, Operation::Rename) => {
                let directory = call.path.parent().unwrap_or(Path::new("/"));
                self.disk.sync_directory(directory).unwrap();
            }
            (Lie::MiddleWrite, Operation::Write)
                if call.path.extension().is_some_and(|extension| extension == "segment")
                    && self.writes.fetch_add(1, Ordering::Relaxed) == LOST_WRITE =>
            {
                if let Some(file) = call.file {
                    file.mark_clean();
                }
            }
            _ => {}
        }
        Ok(())
    }
}
