//! A consistent copy of a running store: see [`crate::engine`] for how it is made.

use std::path::Path;

use super::Store;
use crate::engine::CheckpointReport;
use crate::error::Result;
use crate::options::Progress;

impl Store {
    /// Makes a consistent copy of the store in another directory, which can be opened as a store.
    /// The copy is of one moment between this call and its return, across namespaces: it holds
    /// everything acknowledged before the call, of any durability, and of the writes made meanwhile
    /// those up to [`CheckpointReport::last_sequence`], each batch and each drop of a namespace as
    /// a whole or not at all. The copy is durable when this returns.
    ///
    /// On the same file system the copy shares the segments with the store (hard links), and takes
    /// almost no space until compaction replaces them in one of the two; on another file system
    /// they are copied. Reads and writes proceed meanwhile; compaction and closing wait. The copy
    /// is built in `<directory>.partial` and appears under its final name complete or not at all.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`](crate::Error::InvalidInput) if the directory exists and is not
    /// empty, [`Error::NoSpace`](crate::Error::NoSpace), [`Error::Io`](crate::Error::Io), and the
    /// errors of [`Store::sync`]. After an error nothing is left behind except files that could not
    /// be removed from `<directory>.partial`; the next attempt removes those.
    pub fn checkpoint(&self, directory: impl AsRef<Path>) -> Result<CheckpointReport> {
        self.checkpoint_with(directory, |_| true)
    }

    /// Like [`Store::checkpoint`]; calls `progress` after each segment with the bytes linked or
    /// copied so far and in total. If it returns false, the checkpoint stops with
    /// [`Error::Cancelled`](crate::Error::Cancelled), and the directory is not created.
    ///
    /// `progress` may read and write the store. Calls that would wait for the checkpoint are
    /// refused there with [`Error::InvalidInput`](crate::Error::InvalidInput): closing, compacting,
    /// another checkpoint, [`Store::wait_idle`].
    pub fn checkpoint_with(
        &self,
        directory: impl AsRef<Path>,
        mut progress: impl FnMut(Progress) -> bool,
    ) -> Result<CheckpointReport> {
        self.writer()?.checkpoint(directory.as_ref(), &mut progress)
    }
}
