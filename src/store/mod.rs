//! The public handles of an open store.

mod batch;
mod checkpoint;
mod checks;
mod delete_range;
#[cfg(feature = "json")]
mod json;
mod list;
mod namespace;
mod namespaces;
mod queue;
mod snapshot;
mod stats;
mod transaction;
mod update;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::compact::CompactionReport;
use crate::context::check_callback;
use crate::engine::{Engine, Workers};
use crate::error::Result;
use crate::options::{Maintenance, Options, Progress};
use crate::recovery::RecoveryReport;
use crate::sync::lock;

pub use batch::Batch;
pub use delete_range::DeleteRange;
pub use list::{Entry, EntryRef, Keys, List, Page, Walk};
pub use namespace::{Deleted, Namespace, NamespaceInfo, NamespaceStats};
pub use snapshot::{Snapshot, SnapshotInfo};
pub use stats::{SegmentStats, SnapshotStats, Space, Stats};
pub use transaction::{Committed, Transaction, TransactionOptions};
pub use update::{Update, Updated};

/// An open store: a directory of segments, and the indexes over them.
///
/// Cheap to clone; all clones, and the [`Namespace`]s opened from them, are the same store and may
/// be used from any thread. The store is closed when the last of them is dropped; [`Store::close`]
/// does it earlier and returns any error.
///
/// Only one handle (with its clones) in one process can have a store open at a time.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

/// Stops the threads and closes the engine when the last handle is dropped.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) engine: Arc<Engine>,
    workers: Mutex<Option<Workers>>,
    recovery: RecoveryReport,
    snapshots: snapshot::OpenSnapshots,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.engine.context.is_of_this_process() {
            // After a fork: locks may be held by threads that do not exist here, and joining the
            // workers would never return. The parent has everything; drop this copy and do nothing.
            let workers = self.workers.get_mut().unwrap_or_else(PoisonError::into_inner);
            std::mem::forget(workers.take());
            return;
        }
        // Call `close` to see errors.
        if let Err(error) = self.close() {
            self.engine.context.events.note_background_error(&error);
        }
    }
}

impl Inner {
    fn close(&self) -> Result<()> {
        self.engine.context.check_process()?;
        // First, since busy writers would keep the threads sealing and compacting, and this call
        // would wait for them forever.
        self.engine.log.refuse_writes();
        drop(lock(&self.workers).take());
        self.engine.close()
    }
}

impl Options {
    /// Opens the store in this directory, creating it if needed. See [`Store::open`].
    pub fn open(self, directory: impl AsRef<Path>) -> Result<Store> {
        Store::open_with(directory.as_ref(), self)
    }
}

impl Store {
    /// Opens the store in this directory with default [`Options`]; creates it if the directory is
    /// empty or missing.
    ///
    /// # Errors
    ///
    /// [`Error::InUse`](crate::Error::InUse) if another handle has it open,
    /// [`Error::NotAStore`](crate::Error::NotAStore) if the directory holds something else,
    /// [`Error::NewerFormat`](crate::Error::NewerFormat),
    /// [`Error::Corruption`](crate::Error::Corruption) if stored data are damaged in a way that no
    /// crash explains, and [`Error::Io`](crate::Error::Io) or
    /// [`Error::NoSpace`](crate::Error::NoSpace) if the system fails. After an error no record has
    /// changed, but an interrupted creation or recovery may have been completed, and a lock file
    /// may be left.
    pub fn open(directory: impl AsRef<Path>) -> Result<Store> {
        Options::default().open(directory)
    }

    /// Settings for opening a store.
    pub fn options() -> Options {
        Options::default()
    }

    pub(crate) fn open_with(directory: &Path, options: Options) -> Result<Store> {
        let background = options.maintenance == Maintenance::Background;
        let (engine, recovery) = Engine::open(directory, options)?;
        let engine = Arc::new(engine);
        let workers = if background {
            Some(Workers::start(&engine)?)
        } else {
            None
        };
        Ok(Store {
            inner: Arc::new(Inner {
                engine,
                workers: Mutex::new(workers),
                recovery,
                snapshots: snapshot::OpenSnapshots::default(),
            }),
        })
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.inner.engine
    }

    /// Directory of the store.
    pub fn directory(&self) -> &Path {
        self.engine().context.path()
    }

    /// The store's id: random, chosen at creation. Copies of the store and checkpoints share it.
    pub fn id(&self) -> u128 {
        u128::from_be_bytes(self.engine().context.store_id)
    }

    /// What recovery found and did when this store was opened.
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.inner.recovery
    }

    /// The time by which this store computes expiries and checks new ones: the wall clock of
    /// [`Options::clock`], in milliseconds since the Unix epoch. For programs that compute or check
    /// an expiry themselves; for a lifetime, prefer [`crate::PutOptions::ttl`].
    pub fn now_ms(&self) -> u64 {
        self.engine().context.time.now().wall_ms()
    }

    /// Begins a batch: several writes, in any namespaces of this store, all applied or none.
    pub fn batch(&self) -> Batch {
        Batch::new(self)
    }

    /// Writes out all acknowledged writes of class
    /// [`Durability::Buffered`](crate::Durability::Buffered), so that they survive the end of this
    /// process.
    pub fn flush(&self) -> Result<()> {
        self.engine().context.check_open()?;
        self.engine().log.flush()
    }

    /// Makes every write acknowledged before this call, by any thread, durable against power loss.
    pub fn sync(&self) -> Result<()> {
        self.engine().context.check_open()?;
        self.engine().log.sync()
    }

    /// Does all maintenance that is due, on this thread: flushing, syncing, sealing, renewing hints,
    /// expiry, merging of key orders, and scrubbing (see [`Options::scrub_bytes_per_second`]). With
    /// [`Maintenance::Background`] the store's own threads do this.
    pub fn maintain(&self) -> Result<()> {
        self.engine().maintain()
    }

    /// Reclaims all disk space of overwritten, deleted and expired records, whatever the waste
    /// ceiling; returns when done. Seals the active segment first. Reads and writes proceed
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`](crate::Error::Cancelled) after [`Store::cancel_compaction`] from
    /// another thread; the store is unharmed, and finished runs keep their effect.
    /// [`Error::Corruption`](crate::Error::Corruption), once everything else is done, if segments
    /// turn out to be damaged: it names all of them. Damaged segments are left as they are and
    /// skipped from then on, until they have no live records: then they are dropped.
    pub fn compact(&self) -> Result<CompactionReport> {
        self.engine().context.check_open()?;
        self.engine().housekeeping.sweep_expired();
        self.engine().compactor.compact_all()
    }

    /// One round of background compaction: compacts as long as waste is above the ceiling.
    pub fn compact_if_worthwhile(&self) -> Result<CompactionReport> {
        self.engine().compactor.compact_if_worthwhile()
    }

    /// Compacts the sealed segments chosen by a bit mask, the oldest being bit 0.
    #[cfg(any(test, feature = "testing"))]
    pub fn compact_subset(&self, mask: u64) -> Result<CompactionReport> {
        self.engine().compactor.compact_subset(mask)
    }

    /// Pauses background compaction until [`Store::resume_compaction`], and cancels its current
    /// run, if any. Disk space of overwritten records is not reclaimed meanwhile.
    pub fn pause_compaction(&self) {
        self.engine().compactor.control.pause();
    }

    /// Ends [`Store::pause_compaction`].
    pub fn resume_compaction(&self) {
        self.engine().compactor.control.resume();
    }

    /// Progress of the current compaction, in bytes of the segments that it replaces; if none is
    /// running, of the last one that had anything to do. A run may uncover more to compact, which
    /// the next run does, so the total can grow.
    pub fn compaction_progress(&self) -> Progress {
        self.engine().compactor.control.progress()
    }

    /// Cancels the current compaction run, if any, and removes what it wrote.
    pub fn cancel_compaction(&self) {
        self.engine().compactor.control.cancel();
    }

    /// Closes the store: writes out and syncs everything, seals the active segment, stops the
    /// threads, and releases the directory so that it can be opened again. Gives the same guarantee
    /// as [`Store::sync`]. Other handles get [`Error::Closed`](crate::Error::Closed) from then on;
    /// values read before stay valid.
    ///
    /// # Errors
    ///
    /// Those of [`Store::sync`] and of sealing; closing through another handle returns the same
    /// error again. The store is closed all the same; opening it again recovers everything that was
    /// acknowledged, except writes of class [`Durability::Buffered`](crate::Durability::Buffered)
    /// that could not be written out.
    pub fn close(self) -> Result<()> {
        check_callback()?;
        self.inner.close()
    }
}

#[cfg(test)]
impl Store {
    /// Ends the active segment and seals it.
    pub(crate) fn end_segment(&self) {
        let log = &self.engine().log;
        let ended = log.retire_active().and_then(|()| log.seal_all());
        ended.expect("the segment is sealed");
    }
}
