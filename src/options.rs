//! (Over 400 lines: every setting, with its documentation.)
//!
//! How a store is opened, and how a single write departs from the store's defaults.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::callback;
use crate::clock::{Clock, OwnClock, SystemClock};
use crate::error::{Error, Result};
use crate::format::segment::RECORD_START_MAX;
use crate::limits::Limits;
use crate::segment::Value;
use crate::storage::{MemoryStorage, OsStorage, Storage};

/// What a write survives once it has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Durability {
    /// Nothing until the next write-out: at the latest after [`Options::flush_interval`], on
    /// `flush`, `sync` and close, or with a later write of another class. Costs a copy in memory.
    Buffered,
    /// The end of this process, however it ends. Costs a copy into the ring (see [`RingMode`]), or,
    /// without one, a write to the page cache, shared by waiting writers.
    Os,
    /// Power loss and kernel crash as well. Costs one data sync, shared by all writers waiting at
    /// that moment.
    #[default]
    Sync,
}

/// How sealed segments are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ReadMode {
    /// Through a read-only map: no copy, no system call. A disk error while reading ends the
    /// process (SIGBUS).
    #[default]
    Map,
    /// With positioned reads into their own buffers, for file systems where maps are unwise
    /// (network, FUSE).
    Pread,
}

/// Whether the store has a ring: a file of at most 1 MiB, RING, mapped into memory, to which writes
/// of class [`Durability::Os`] are copied. The copy survives the process, so it is what such a
/// write waits for; the flush thread writes the segment's file later. Without a ring, each such
/// write waits for a write call.
///
/// The copy is a store into pages of a file that were written before, so it needs no space that
/// could be lacking. If the file system fails to read one of these pages back, or has shut down, or
/// another program shortens the file, or on XFS shares its blocks with a copy while the disk is
/// full, the process ends (SIGBUS), as with [`ReadMode::Map`].
///
/// The ring is made by the first write of class `Os`, or by a later one if there is no room for it,
/// on the disk or under [`Options::max_disk_bytes`]. What is pending is never more than it has: a
/// write that would make it more is written out at once, as are all while the reserve for a full
/// disk is not whole. Recovery, salvage, verify and readers find what it has. Versions that do not
/// know the ring refuse a store with one that was not closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum RingMode {
    /// On ext4, XFS and tmpfs, with [`ReadMode::Map`].
    #[default]
    Auto,
    /// On any file system; not of a store in memory.
    Always,
    /// Never.
    Never,
}

/// Who does deferred work: flushing, syncing, sealing, hints, merging of the key order, expiry,
/// scrubbing and compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Maintenance {
    /// Four threads of the store, and a fifth if it scrubs.
    #[default]
    Background,
    /// No thread is started. Writers seal full segments themselves, and the rest is left to
    /// [`Store::maintain`](crate::Store::maintain) and [`Store::compact`](crate::Store::compact).
    /// For deterministic tests, and for programs that schedule such work themselves.
    Manual,
}

/// Smallest accepted segment size: 4 KiB.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 10;
/// Smallest accepted limit of a store: 1 MiB.
const MAX_DISK_BYTES_MIN: u64 = 1 << 20;
/// Largest accepted segment size: 512 MiB.
pub const SEGMENT_BYTES_MAX: u64 = RECORD_START_MAX;

/// Progress of long work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes in total.
    pub total_bytes: u64,
}

/// Called from time to time during long work, on the thread that does it.
pub(crate) type ProgressFn = Arc<dyn Fn(Progress) + Send + Sync>;

/// Settings of a store. Built with [`Store::options`](crate::Store::options). None is stored on
/// disk, so each open may choose differently.
#[derive(Clone)]
pub struct Options {
    pub(crate) durability: Durability,
    pub(crate) segment_bytes: u64,
    pub(crate) buffer_bytes: u64,
    pub(crate) max_disk_bytes: Option<u64>,
    pub(crate) flush_interval: Duration,
    pub(crate) sync_interval: Option<Duration>,
    pub(crate) limits: Limits,
    pub(crate) read_mode: ReadMode,
    pub(crate) ring: RingMode,
    pub(crate) maintenance: Maintenance,
    pub(crate) waste_ceiling: f64,
    pub(crate) compaction_bytes_per_second: Option<u64>,
    pub(crate) scrub_bytes_per_second: Option<u64>,
    pub(crate) expiry_grace: Duration,
    pub(crate) create: bool,
    pub(crate) create_new: bool,
    pub(crate) read_only: bool,
    pub(crate) index_file: bool,
    /// The store is in memory: nothing survives, so nothing is written for the next opening.
    pub(crate) in_memory: bool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) progress: Option<ProgressFn>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            durability: Durability::default(),
            segment_bytes: 64 << 20,
            buffer_bytes: 128 << 20,
            max_disk_bytes: None,
            flush_interval: Duration::from_millis(100),
            sync_interval: Some(Duration::from_secs(1)),
            limits: Limits::ENGINE,
            read_mode: ReadMode::default(),
            ring: RingMode::default(),
            maintenance: Maintenance::default(),
            waste_ceiling: 1.6,
            compaction_bytes_per_second: None,
            scrub_bytes_per_second: None,
            expiry_grace: Duration::from_secs(10),
            create: true,
            create_new: false,
            read_only: false,
            index_file: true,
            in_memory: false,
            clock: Arc::new(SystemClock::default()),
            storage: Arc::new(OsStorage),
            progress: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("durability", &self.durability)
            .field("segment_bytes", &self.segment_bytes)
            .field("buffer_bytes", &self.buffer_bytes)
            .field("max_disk_bytes", &self.max_disk_bytes)
            .field("flush_interval", &self.flush_interval)
            .field("sync_interval", &self.sync_interval)
            .field("limits", &self.limits)
            .field("read_mode", &self.read_mode)
            .field("ring", &self.ring)
            .field("maintenance", &self.maintenance)
            .field("waste_ceiling", &self.waste_ceiling)
            .field("compaction_bytes_per_second", &self.compaction_bytes_per_second)
            .field("scrub_bytes_per_second", &self.scrub_bytes_per_second)
            .field("expiry_grace", &self.expiry_grace)
            .field("create", &self.create)
            .field("create_new", &self.create_new)
            .field("read_only", &self.read_only)
            .field("index_file", &self.index_file)
            .field("in_memory", &self.in_memory)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// Durability of writes that do not set their own. Default: [`Durability::Sync`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Largest size in bytes at which the active segment is sealed and the next one started; 4 KiB
    /// to 512 MiB. Default: 64 MiB. Segments are about a 32nd of the live data, but at least 8 MiB,
    /// as long as that is below this limit and below half of [`Options::buffer_bytes`]. The active
    /// segment takes as much memory. A larger record gets a segment to itself.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Most memory in bytes for segments that are not sealed yet: the active one, and those that
    /// wait for the device; at least 8 KiB. Default: 128 MiB. A writer that is faster than the
    /// device waits when it is used up. A record larger than half of it is in memory all the same.
    pub fn buffer_bytes(mut self, bytes: u64) -> Self {
        self.buffer_bytes = bytes;
        self
    }

    /// Most bytes that the store's files take; 1 MiB or more. Default: no limit but the disk.
    ///
    /// Puts stop early enough that deletes and compaction still fit, about a seventh below it. They
    /// fail with [`Error::LimitReached`]; deletes go on, and compact if they do not fit themselves.
    /// Not limited are checkpoints, the index file that closing writes, and files that a
    /// [`Value`](crate::Value) keeps after compaction has removed them. A store that takes more
    /// when it is opened refuses puts until it takes less.
    pub fn max_disk_bytes(mut self, bytes: Option<u64>) -> Self {
        self.max_disk_bytes = bytes;
        self
    }

    /// Longest time that a [`Durability::Buffered`] write stays only in memory, and one of class
    /// [`Durability::Os`] only in the ring. Default: 100 ms.
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        self.flush_interval = interval;
        self
    }

    /// Longest time from a write of class [`Durability::Os`] or [`Durability::Buffered`] to the
    /// sync that makes it durable, if no other sync comes first. Default: 1 s. A power cut takes at
    /// most the writes of that time, and of the time that the device then needs for the sync. None
    /// turns it off: then such writes are synced in the background only after every 16 MiB. The
    /// time is that of [`Clock::monotonic_ms`], in whole milliseconds, at least one. A store to
    /// which nothing is written syncs nothing. With [`Maintenance::Manual`],
    /// [`Store::maintain`](crate::Store::maintain) does this when it is due.
    ///
    /// # Errors
    ///
    /// Opening fails with [`Error::InvalidInput`](crate::Error::InvalidInput) if the interval is
    /// zero; [`Durability::Sync`] syncs each write.
    pub fn sync_interval(mut self, interval: Option<Duration>) -> Self {
        self.sync_interval = interval;
        self
    }

    /// Which keys, values, metadata and lifetimes are accepted. Default: [`Limits::ENGINE`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Whether closing the store writes its indexes to a file, so that the next open need not
    /// rebuild them. Until the store is written to again, the file takes about as many bytes on
    /// disk as [`crate::Stats`] shows for the indexes in memory. Default: true. If false, opening
    /// does not use such a file either, and removes an existing one. Without the file (as after any
    /// end other than closing), opening reads the hints and the keys of all records.
    pub fn index_file(mut self, write: bool) -> Self {
        self.index_file = write;
        self
    }

    /// How sealed segments are read. Default: [`ReadMode::Map`].
    pub fn read_mode(mut self, mode: ReadMode) -> Self {
        self.read_mode = mode;
        self
    }

    /// Whether writes of class [`Durability::Os`] are acknowledged by a ring. Default:
    /// [`RingMode::Auto`]. [`Stats::ring_bytes`](crate::Stats::ring_bytes) tells what was decided.
    pub fn ring(mut self, mode: RingMode) -> Self {
        self.ring = mode;
        self
    }

    /// Who does background work. Default: [`Maintenance::Background`].
    pub fn maintenance(mut self, maintenance: Maintenance) -> Self {
        self.maintenance = maintenance;
        self
    }

    /// Bytes the store may take on disk per live byte before compaction starts, 1.1 to 10. A lower
    /// ceiling costs more writing. Default: 1.6.
    pub fn waste_ceiling(mut self, ratio: f64) -> Self {
        self.waste_ceiling = ratio;
        self
    }

    /// Most bytes that background compaction copies per second. Default: unlimited. Not applied to
    /// [`Store::compact`](crate::Store::compact), to a run that `compact` or a checkpoint is
    /// waiting for, to segments without live records, or while waste exceeds 1.25 times its
    /// ceiling. Time is that of [`Options::clock`]: with a clock that does not advance by itself, a
    /// run waits until it is advanced.
    pub fn compaction_bytes_per_second(mut self, bytes: Option<u64>) -> Self {
        self.compaction_bytes_per_second = bytes;
        self
    }

    /// Bytes per second at which sealed segments are read again and checked, to find damage before
    /// the record is needed. Default: None, which reads nothing. One segment after the other is
    /// read, oldest first, and then all again: a pass over `n` bytes takes `n / rate` seconds, so
    /// 1 MiB per second reads 84 GiB a day. [`Stats::scrub`](crate::Stats::scrub) tells what was
    /// found, [`Stats::background_error`](crate::Stats::background_error) the latest of it, and
    /// compaction leaves a damaged segment in place until it has no live records.
    ///
    /// Segments are read from their files, through the system's page cache: what is cached is
    /// checked as it is in memory, and damage below it is seen once the system has dropped it from
    /// the cache. Rarely read data, in which damage stays unnoticed longest, is seldom cached.
    ///
    /// Time is that of [`Clock::monotonic_ms`]. With [`Maintenance::Manual`],
    /// [`Store::maintain`](crate::Store::maintain) reads what is due since its last call, but at
    /// most to the end of the pass.
    ///
    /// # Errors
    ///
    /// Opening fails with [`Error::InvalidInput`](crate::Error::InvalidInput) if the rate is zero.
    pub fn scrub_bytes_per_second(mut self, bytes: Option<u64>) -> Self {
        self.scrub_bytes_per_second = bytes;
        self
    }

    /// How long a record must have been expired before compaction drops it from disk, so that a
    /// clock briefly set wrong loses nothing. Expired records are never returned, whatever this is
    /// set to. Default: 10 s.
    pub fn expiry_grace(mut self, grace: Duration) -> Self {
        self.expiry_grace = grace;
        self
    }

    /// Whether to create a store in an empty or missing directory. Default: true.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Whether there must be no store yet: opening fails with [`Error::StoreExists`] if there is
    /// one, whatever [`Options::create`] says. Of several that do this at the same time in one
    /// directory, one gets the store. Default: false.
    pub fn create_new(mut self, create_new: bool) -> Self {
        self.create_new = create_new;
        self
    }

    /// Whether a store may be created.
    pub(crate) fn creates(&self) -> bool {
        self.create || self.create_new
    }

    /// Whether to open the store for reading only. Default: false. Such a store takes no lock and
    /// writes nothing, so it can be opened while another process, or another handle of this one,
    /// has the store open and writes to it, and in a directory that this process may only read.
    ///
    /// It shows the store as it was when it was opened or last refreshed
    /// ([`Store::refresh`](crate::Store::refresh)): everything acknowledged before that with class
    /// [`Durability::Os`] or [`Durability::Sync`], and each batch as a whole or not at all. As in
    /// the process that writes, a power cut may take back what is not durable yet. Calls that write
    /// fail with [`Error::ReadOnly`](crate::Error::ReadOnly).
    ///
    /// The indexes are its own, in memory, and so is what has been written to segments that are not
    /// sealed yet. It has no threads: expired keys are hidden at once, and leave memory with the
    /// next refresh. It keeps the space of the files it reads until it is refreshed or closed, even
    /// if the writer has removed them. Options about writing, maintenance and creating a store have
    /// no effect.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// The source of time. Default: the system's clocks.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(OwnClock(clock));
        self
    }

    /// Where the files are kept. Default: the system's file systems.
    pub fn storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = storage;
        self
    }

    /// These settings, for a store in memory.
    pub(crate) fn in_memory(self) -> Self {
        Options {
            create: true,
            index_file: false,
            in_memory: true,
            // Syncs would only be followed by marks in the log.
            sync_interval: None,
            storage: Arc::new(MemoryStorage::default()),
            ..self
        }
    }

    /// Called from time to time while the store is being opened, or read again by
    /// [`Store::refresh`](crate::Store::refresh), on the threads that read. Calls of a store from
    /// there are refused.
    pub fn on_recovery_progress(mut self, callback: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(move |progress| callback::run(|| callback(progress))));
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            return Err(Error::invalid(format!(
                "a segment size of {} bytes is not possible; choose {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}",
                self.segment_bytes
            )));
        }
        if self.buffer_bytes < 2 * SEGMENT_BYTES_MIN {
            return Err(Error::invalid(format!(
                "{} bytes of buffers are not enough; choose at least {}",
                self.buffer_bytes,
                2 * SEGMENT_BYTES_MIN
            )));
        }
        if let Some(bytes) = self.max_disk_bytes.filter(|bytes| *bytes < MAX_DISK_BYTES_MIN) {
            return Err(Error::invalid(format!(
                "a store cannot keep to {bytes} bytes; allow it at least {MAX_DISK_BYTES_MIN}"
            )));
        }
        if !(1.1..=10.0).contains(&self.waste_ceiling) {
            return Err(Error::invalid(format!(
                "a waste ceiling of {} is not possible; choose 1.1 to 10",
                self.waste_ceiling
            )));
        }
        if self.sync_interval == Some(Duration::ZERO) {
            return Err(Error::invalid(
                "a sync interval of zero is not possible; use durability `Sync` to sync each write, or no interval",
            ));
        }
        if self.compaction_bytes_per_second == Some(0) {
            return Err(Error::invalid(
                "a compaction rate of zero is not possible; pause compaction instead",
            ));
        }
        if self.scrub_bytes_per_second == Some(0) {
            return Err(Error::invalid(
                "a scrub rate of zero is not possible; use no rate to turn scrubbing off",
            ));
        }
        Ok(())
    }
}

/// Options of a single put. A put replaces value, metadata and expiry together, so whatever is not
/// set here is removed.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    pub(crate) lifetime: Lifetime,
    pub(crate) metadata: Option<Vec<u8>>,
    pub(crate) durability: Option<Durability>,
    pub(crate) condition: Option<Condition>,
}

/// When a record expires.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Lifetime {
    /// That of the namespace.
    #[default]
    Unset,
    Forever,
    For(Duration),
    Until(u64),
    /// An existing expiry: not checked against the limits again.
    Kept(u64),
}

impl PutOptions {
    /// A put without metadata, with the store's durability, and without expiry unless the namespace
    /// has a default one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The key expires this long after the put. Replaces an earlier [`PutOptions::expires_at_ms`].
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.lifetime = Lifetime::For(ttl);
        self
    }

    /// The key expires at this time, in milliseconds since the Unix epoch.
    pub fn expires_at_ms(mut self, expiry_ms: u64) -> Self {
        self.lifetime = Lifetime::Until(expiry_ms);
        self
    }

    /// The key expires at this time, in whole seconds since the Unix epoch, like Workers KV's
    /// `expiration`.
    pub fn expiration(self, seconds: u64) -> Self {
        self.expires_at_ms(seconds.saturating_mul(1000))
    }

    /// Bytes stored with the value and returned with it and by listings; by convention JSON.
    pub fn metadata(mut self, metadata: impl Into<Vec<u8>>) -> Self {
        self.metadata = Some(metadata.into());
        self
    }

    /// The key does not expire, whatever
    /// [`Namespace::set_default_ttl`](crate::Namespace::set_default_ttl) says.
    pub fn forever(mut self) -> Self {
        self.lifetime = Lifetime::Forever;
        self
    }

    /// The expiry and the metadata of this value, for a put that replaces it and is to keep them.
    /// The expiry is accepted even if [`Limits::ttl_min`] would refuse it by now.
    pub fn like(value: &Value) -> Self {
        PutOptions {
            lifetime: value.expiry_ms().map_or(Lifetime::Forever, Lifetime::Kept),
            metadata: value.metadata().map(<[u8]>::to_vec),
            ..Self::default()
        }
    }

    /// Overrides the store's durability.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Write only if this condition holds at that moment; otherwise [`Error::Conflict`].
    pub fn condition(mut self, condition: Condition) -> Self {
        self.condition = Some(condition);
        self
    }
}

/// What must be true of a key for a conditional write. An expired key counts as absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The key is absent.
    Absent,
    /// The key is present, whatever its value.
    Present,
    /// The key is present and its newest write has this sequence (see `Value::sequence`).
    Sequence(u64),
}

impl Condition {
    /// `found` is the sequence of the live record, if there is one.
    pub(crate) fn check(self, found: Option<u64>) -> Result<()> {
        let holds = match self {
            Condition::Absent => found.is_none(),
            Condition::Present => found.is_some(),
            Condition::Sequence(sequence) => found == Some(sequence),
        };
        if holds { Ok(()) } else { Err(Error::Conflict { found }) }
    }
}
