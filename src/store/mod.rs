//! The public handles of an open store.

mod asynchronous;
mod attributes;
mod batch;
mod checkpoint;
mod checks;
mod close;
mod current;
mod delete_range;
#[cfg(feature = "json")]
mod json;
mod lend;
mod list;
mod namespace;
mod namespaces;
mod queue;
mod snapshot;
mod stats;
mod transaction;
mod update;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::compact::CompactionReport;
use crate::context::{Context, check_callback};
use crate::engine::{Engine, Reader, Refreshed, Workers};
use crate::error::Result;
use crate::options::{Maintenance, Options, Progress};
use crate::recovery::RecoveryReport;
use crate::recovery::destroy::destroy;
use crate::storage::MEMORY_PATH;
use current::Mode;

pub use batch::Batch;
pub use delete_range::DeleteRange;
pub use list::{Entry, EntryRef, Keys, List, Page, Walk};
pub use namespace::{Deleted, Namespace};
pub use namespaces::{NamespaceInfo, NamespaceStats};
pub use snapshot::{Snapshot, SnapshotInfo};
pub use stats::{SegmentStats, SnapshotStats, Space, Stats};
pub use transaction::{Committed, Transaction, TransactionOptions};
pub use update::{Update, Updated};
pub use watch::{Watch, WatchOptions};

/// An open store: a directory of segments, and the indexes over them.
///
/// Cheap to clone; all clones, and the [`Namespace`]s opened from them, are the same store and may
/// be used from any thread. The store is closed when the last of them is dropped; [`Store::close`]
/// does it earlier and returns any error.
///
/// Only one handle (with its clones) in one process can have a store open at a time; any number, in
/// any processes, can have it open for reading only ([`Options::read_only`]).
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

/// Stops the threads and closes the engine when the last handle is dropped.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) context: Arc<Context>,
    mode: Mode,
    workers: Mutex<Option<Workers>>,
    recovery: RecoveryReport,
    snapshots: snapshot::OpenSnapshots,
}

impl Options {
    /// Opens the store in this directory, creating it if needed. See [`Store::open`].
    pub fn open(self, directory: impl AsRef<Path>) -> Result<Store> {
        Store::open_with(directory.as_ref(), self)
    }

    /// Opens an empty store in memory: for tests, and for caches that need not survive. It does all
    /// that one on disk does, in the same way, but has no files: [`Options::storage`] and
    /// [`Options::index_file`] are ignored, [`Store::checkpoint`] fails, and everything is gone
    /// with the last handle and the last [`Value`](crate::Value). Every write is of class
    /// [`Durability::Buffered`](crate::Durability::Buffered), whatever it asks for.
    ///
    /// Records that compaction has not reclaimed yet take memory instead of disk space, which
    /// [`Options::max_disk_bytes`] can limit. [`Stats::space`] tells how much it is.
    pub fn open_in_memory(self) -> Result<Store> {
        Store::open_with(Path::new(MEMORY_PATH), self.in_memory())
    }

    /// Removes the store in this directory of [`Options::storage`]. See [`Store::destroy`].
    pub fn destroy(self, directory: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
        destroy(&*self.storage, directory.as_ref())
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

    /// Opens an empty store in memory, with default [`Options`]. See [`Options::open_in_memory`].
    ///
    /// ```
    /// let store = embercask::Store::in_memory()?;
    /// let cache = store.namespace("CACHE")?;
    /// cache.put("key", "value")?;
    /// assert_eq!(cache.get_text("key")?.as_deref(), Some("value"));
    /// # Ok::<(), embercask::Error>(())
    /// ```
    pub fn in_memory() -> Result<Store> {
        Options::default().open_in_memory()
    }

    /// Settings for opening a store.
    pub fn options() -> Options {
        Options::default()
    }

    /// Removes the store in this directory: its files, and the directory if nothing else is in it.
    /// Returns the files that are not the store's; they stay. Interrupted anywhere, also by a power
    /// cut, it leaves the whole store, an empty one, or none; run it again. A store that was copied
    /// or moved to where it is can be removed like any other.
    ///
    /// # Errors
    ///
    /// [`Error::InUse`](crate::Error::InUse) if the store is open,
    /// [`Error::NotAStore`](crate::Error::NotAStore) if there is none,
    /// [`Error::Corruption`](crate::Error::Corruption) and
    /// [`Error::NewerFormat`](crate::Error::NewerFormat) if its manifest cannot be read: then
    /// nothing was removed, and the directory can be removed by other means.
    /// [`Error::Io`](crate::Error::Io) and [`Error::NoSpace`](crate::Error::NoSpace) if the system
    /// fails.
    pub fn destroy(directory: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
        Options::default().destroy(directory)
    }

    pub(crate) fn open_with(directory: &Path, options: Options) -> Result<Store> {
        if options.read_only {
            let (reader, recovery) = Reader::open(directory, options)?;
            let context = reader.context.clone();
            return Ok(Store::new(context, Mode::Reads(reader), None, recovery));
        }
        let background = options.maintenance == Maintenance::Background;
        let (engine, recovery) = Engine::open(directory, options)?;
        engine.say_recovered(&recovery);
        let engine = Arc::new(engine);
        let workers = if background {
            Some(Workers::start(&engine)?)
        } else {
            None
        };
        Ok(Store::new(
            engine.context.clone(),
            Mode::Writes(engine),
            workers,
            recovery,
        ))
    }

    fn new(context: Arc<Context>, mode: Mode, workers: Option<Workers>, recovery: RecoveryReport) -> Store {
        Store {
            inner: Arc::new(Inner {
                context,
                mode,
                workers: Mutex::new(workers),
                recovery,
                snapshots: snapshot::OpenSnapshots::default(),
            }),
        }
    }

    /// Whether the store was opened with [`Options::read_only`].
    pub fn is_read_only(&self) -> bool {
        matches!(self.inner.mode, Mode::Reads(_))
    }

    /// Makes a store that was opened with [`Options::read_only`] show what is there now: at least
    /// everything that was acknowledged before this call with class
    /// [`Durability::Os`](crate::Durability::Os) or [`Durability::Sync`](crate::Durability::Sync).
    /// Handles on namespaces stay valid. Reads in other threads go on meanwhile, each on the store
    /// as it was before or after.
    ///
    /// Costs a few system calls if nothing has changed. Otherwise the indexes are built again, as
    /// when the store is opened, and take twice their memory meanwhile. Any other store is always
    /// up to date, and nothing is done.
    ///
    /// # Errors
    ///
    /// Those of [`Store::open`]. After an error the store shows what it showed before.
    pub fn refresh(&self) -> Result<Refreshed> {
        match &self.inner.mode {
            Mode::Reads(reader) => reader.refresh(),
            Mode::Writes(engine) => {
                engine.context.check_open()?;
                Ok(engine.nothing_to_refresh())
            }
        }
    }

    /// Directory of the store; `<memory>` if it is in memory.
    pub fn directory(&self) -> &Path {
        self.inner.context.path()
    }

    /// The store's id: random, chosen at creation. Copies of the store and checkpoints share it.
    pub fn id(&self) -> u128 {
        u128::from_be_bytes(self.inner.context.store_id)
    }

    /// What recovery found and did when this store was opened.
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.inner.recovery
    }

    /// The time by which this store computes expiries and checks new ones: the wall clock of
    /// [`Options::clock`], in milliseconds since the Unix epoch. For programs that compute or check
    /// an expiry themselves; for a lifetime, prefer [`crate::PutOptions::ttl`].
    pub fn now_ms(&self) -> u64 {
        self.inner.context.time.now().wall_ms()
    }

    /// Begins a batch: several writes, in any namespaces of this store, all applied or none.
    pub fn batch(&self) -> Batch {
        Batch::new(self)
    }

    /// Writes out all acknowledged writes of class
    /// [`Durability::Buffered`](crate::Durability::Buffered), so that they survive the end of this
    /// process.
    pub fn flush(&self) -> Result<()> {
        let engine = self.writer()?;
        engine.context.check_open()?;
        engine.log.flush()
    }

    /// Makes every write acknowledged before this call, by any thread, durable against power loss.
    pub fn sync(&self) -> Result<()> {
        let engine = self.writer()?;
        engine.context.check_open()?;
        engine.log.sync()
    }

    /// Does all maintenance that is due, on this thread: flushing, syncing, sealing, renewing
    /// hints, expiry, merging of key orders, and scrubbing (see
    /// [`Options::scrub_bytes_per_second`]). With [`Maintenance::Background`] the store's own
    /// threads do this.
    pub fn maintain(&self) -> Result<()> {
        self.writer()?.maintain()
    }

    /// Waits until no background work is left: full segments are sealed, expired keys and those of
    /// dropped namespaces have left memory, key orders are merged, and compaction finds nothing
    /// worth a run. Returns whether that is so; false after the time-out, and then
    /// [`Stats::background`] tells what is left. Useful before a measurement, or before a program
    /// lets the machine sleep. Other threads may make new work at any time.
    ///
    /// With [`Maintenance::Manual`] it does the work itself, and returns false early if a round of
    /// it changes nothing. Compaction that is paused is not waited for, nor is the pause after a
    /// jump of the clock. It makes nothing durable: see [`Store::sync`].
    ///
    /// # Errors
    ///
    /// [`Error::Closed`](crate::Error::Closed) if the store is closed, also meanwhile. With
    /// [`Maintenance::Manual`] those of [`Store::maintain`] and [`Store::compact_if_worthwhile`].
    pub fn wait_idle(&self, timeout: Duration) -> Result<bool> {
        self.writer()?.wait_idle(timeout)
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
        let engine = self.writer()?;
        engine.context.check_open()?;
        engine.housekeeping.sweep_expired();
        engine.compactor.compact_all()
    }

    /// One round of background compaction: compacts as long as waste is above the ceiling.
    pub fn compact_if_worthwhile(&self) -> Result<CompactionReport> {
        self.writer()?.compactor.compact_if_worthwhile()
    }

    /// Compacts the sealed segments chosen by a bit mask, the oldest being bit 0.
    #[cfg(any(test, feature = "testing"))]
    pub fn compact_subset(&self, mask: u64) -> Result<CompactionReport> {
        self.writer()?.compactor.compact_subset(mask)
    }

    /// Pauses background compaction until [`Store::resume_compaction`], and cancels its current
    /// run, if any. Disk space of overwritten records is not reclaimed meanwhile.
    pub fn pause_compaction(&self) {
        self.current().compactor.control.pause();
    }

    /// Ends [`Store::pause_compaction`].
    pub fn resume_compaction(&self) {
        self.current().compactor.control.resume();
    }

    /// Progress of the current compaction, in bytes of the segments that it replaces; if none is
    /// running, of the last one that had anything to do. A run may uncover more to compact, which
    /// the next run does, so the total can grow.
    pub fn compaction_progress(&self) -> Progress {
        self.current().compactor.control.progress()
    }

    /// Cancels the current compaction run, if any, and removes what it wrote.
    pub fn cancel_compaction(&self) {
        self.current().compactor.control.cancel();
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
    /// The engine of a store that writes.
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        self.writer().expect("a store that writes")
    }

    /// Ends the active segment and seals it.
    pub(crate) fn end_segment(&self) {
        let log = &self.engine().log;
        let ended = log.retire_active().and_then(|()| log.seal_all());
        ended.expect("the segment is sealed");
    }
}
