//! A consistent copy of a running store: see [`crate::engine`] for how it is made.

use std::path::Path;

use super::Store;
use crate::engine::CheckpointReport;
use crate::error::Result;
use crate::options::Progress;

impl Store {
    /// Makes a consistent copy of the store in another directory, which can be opened as a store:
    /// everything acknowledged before the call, of whatever durability, and of what was written
    /// meanwhile a prefix in the order of the log, each batch and each drop of a namespace as a
    /// whole or not at all. The copy is durable when this returns.
    ///
    /// On the same file system the copy shares the segments with the store, and takes next to no
    /// space until compaction replaces them in one of the two; on another one they are copied.
    /// Readers and writers go on; compaction and closing wait. The directory appears under its
    /// name complete or not at all: it is made in `<directory>.partial`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`](crate::Error::InvalidInput) if the directory exists and is not
    /// empty, [`Error::NoSpace`](crate::Error::NoSpace), [`Error::Io`](crate::Error::Io), and
    /// what [`Store::sync`] fails with. Nothing is left behind then, but for what could not be
    /// removed from `<directory>.partial`; the next attempt removes that.
    pub fn checkpoint(&self, directory: impl AsRef<Path>) -> Result<CheckpointReport> {
        self.checkpoint_with(directory, |_| true)
    }

    /// As [`Store::checkpoint`]; calls `progress` after each segment, with bytes linked or copied
    /// so far and in all. If it answers false, the work stops with
    /// [`Error::Cancelled`](crate::Error::Cancelled), and the directory does not come into
    /// being.
    pub fn checkpoint_with(
        &self,
        directory: impl AsRef<Path>,
        mut progress: impl FnMut(Progress) -> bool,
    ) -> Result<CheckpointReport> {
        self.engine().checkpoint(directory.as_ref(), &mut progress)
    }
}
