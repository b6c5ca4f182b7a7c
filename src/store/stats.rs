//! A store in numbers.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Store;
use crate::compact::CompactionReport;
use crate::context::check_callback;
use crate::engine::{Background, Engine};
use crate::scrub::ScrubStats;
use crate::segment::Segment;
use crate::sync::lock;

/// Statistics of a store. The numbers are read one after the other while writers run, so they are
/// close to each other but not from one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Keys in the indexes. Includes expired keys that have not been swept yet, and keys that are
    /// only hidden because the wall clock is not, or was only briefly, where it was when they were
    /// seen expired.
    pub keys: u64,
    /// Namespaces that exist.
    pub namespaces: u64,
    /// Entries of the expiry queue that are due by the wall clock and not swept yet. May include
    /// keys that were overwritten since.
    pub expired_not_swept: u64,
    /// Bytes of live records, headers and padding included.
    pub live_bytes: u64,
    /// Bytes of puts that were overwritten, were deleted or have expired, not yet reclaimed.
    pub dead_bytes: u64,
    /// The part of `dead_bytes` that left the indexes because it expired. Puts whose keys were
    /// written again since are included until the store is opened without an index file.
    pub expired_bytes: u64,
    /// Bytes of tombstones.
    pub tombstone_bytes: u64,
    /// Bytes of all segments on disk, as far as written.
    pub segment_bytes: u64,
    /// Each live segment, oldest first.
    pub segments: Vec<SegmentStats>,
    /// Memory of the hash index, in bytes.
    pub keydir_bytes: u64,
    /// Memory of the sorted key indexes, in bytes.
    pub key_order_bytes: u64,
    /// Memory of the expiry queue, in bytes.
    pub expiry_queue_bytes: u64,
    /// Memory of segments that are not sealed yet, in bytes.
    pub buffer_bytes: u64,
    /// Bytes that were appended and are only in memory.
    pub pending_bytes: u64,
    /// Length of the ring by which writes of class [`Durability::Os`](crate::Durability::Os) are
    /// acknowledged, in bytes; 0 if there is none (yet), and each waits for a write call.
    pub ring_bytes: u64,
    /// Sequence of the newest record.
    pub last_sequence: u64,
    /// Sequence up to which everything is durable.
    pub durable_sequence: u64,
    /// Number of write-outs to the log since the store was opened.
    pub write_outs: u64,
    /// Bytes that those write-outs wrote.
    pub written_bytes: u64,
    /// Data syncs since the store was opened.
    pub syncs: u64,
    /// Expired keys swept since the store was opened.
    pub expired: u64,
    /// All compaction since the store was opened.
    pub compaction: CompactionReport,
    /// Where disk space goes that is not live data.
    pub space: Space,
    /// What open snapshots hold.
    pub snapshots: SnapshotStats,
    /// What scrubbing did and found.
    pub scrub: ScrubStats,
    /// What background work is left; see [`Store::wait_idle`].
    pub background: Background,
    /// Whether the disk was full and the reserve has not been restored since.
    pub disk_full: bool,
    /// Why writes are refused; `None` if they are not.
    pub poisoned: Option<String>,
    /// The latest error of background work.
    pub background_error: Option<String>,
}

/// Disk space beyond live data: what the store takes, and what cannot be reclaimed yet and why.
///
/// After each step of maintenance ([`Store::maintain`] and [`Store::compact_if_worthwhile`], or
/// what the background threads do) the files take at most [`Stats::live_bytes`] times the waste
/// ceiling, plus `grace_bytes`, `damage_bytes`, `pinned_bytes` and `reserve_bytes`, plus four
/// segments of `segment_bytes`, unless compaction is paused. With values so small that hints alone
/// take more than the ceiling allows, half of that is left for waste besides the hints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Space {
    /// Size of a segment that is started now; see
    /// [`Options::segment_bytes`](crate::Options::segment_bytes).
    pub segment_bytes: u64,
    /// Bytes of the files, as [`Options::max_disk_bytes`](crate::Options::max_disk_bytes) limits
    /// them: segments, hints, the reserve and the ring.
    pub used_bytes: u64,
    /// Whether that limit refuses puts that need another segment.
    pub limit_reached: bool,
    /// Length of the reserve for a full disk.
    pub reserve_bytes: u64,
    /// Puts that expired within the grace period, and tombstones that may hide one of them. After a
    /// jump of the clock this includes all expired puts, until the clock is believed.
    pub grace_bytes: u64,
    /// Tombstones that may hide a record of a damaged segment.
    pub damage_bytes: u64,
    /// Segments that were compacted away, whose space the system frees once the last
    /// [`Value`](crate::Value) that points into them, or snapshot that needs them, is dropped.
    pub pinned_bytes: u64,
    /// Bytes that compaction is behind: above the ceiling, what is held, and one segment.
    pub owed_bytes: u64,
    /// Whether compaction is paused by [`Store::pause_compaction`].
    pub paused: bool,
}

/// What open snapshots hold; all of it is given back when they are dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotStats {
    /// Number of open snapshots.
    pub open: u64,
    /// How long the oldest has been held; zero without any.
    pub oldest: Duration,
    /// Records that were replaced, deleted or have expired since, and are kept.
    pub kept_records: u64,
    /// Memory for those, in bytes, estimated.
    pub memory_bytes: u64,
    /// Disk space of segments that only they need; part of [`Space::pinned_bytes`].
    pub disk_bytes: u64,
}

/// One segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentStats {
    /// Its id; the file's name is the id in hexadecimal.
    pub id: u64,
    /// Whether it no longer changes.
    pub sealed: bool,
    /// When it was created, in milliseconds since the Unix epoch, by the clock at that time.
    pub created_ms: u64,
    /// Whether it was written by compaction or recovery; false if by puts and deletes.
    pub rewritten: bool,
    /// Bytes of data.
    pub bytes: u64,
    /// Number of live puts.
    pub live_records: u64,
    /// Bytes of live puts.
    pub live_bytes: u64,
    /// Bytes of puts that are not live.
    pub dead_bytes: u64,
    /// The part of `dead_bytes` that has expired; see [`Stats::expired_bytes`].
    pub expired_bytes: u64,
    /// Bytes of tombstones.
    pub tombstone_bytes: u64,
}

impl SegmentStats {
    fn of(segment: &Segment) -> SegmentStats {
        let counts = segment.counters.get();
        SegmentStats {
            id: segment.id(),
            sealed: segment.summary.is_some(),
            created_ms: segment.header.created_ms,
            rewritten: segment.summary.is_some_and(|summary| summary.is_rewritten()),
            bytes: segment.data_end(),
            live_records: counts.live_puts,
            live_bytes: counts.live_bytes,
            dead_bytes: counts.dead_bytes(),
            expired_bytes: counts.expired_bytes.min(counts.dead_bytes()),
            tombstone_bytes: counts.tombstone_bytes,
        }
    }
}

/// What the log says of itself, all of one instant.
struct LogStats {
    buffer_bytes: u64,
    pending_bytes: u64,
    ring_bytes: u64,
    last_sequence: u64,
    durable_sequence: u64,
    poisoned: Option<String>,
}

impl LogStats {
    fn of(engine: &Engine) -> LogStats {
        // Held only for a few fields: writers wait for it.
        let writer = engine.log.lock();
        LogStats {
            buffer_bytes: writer.tail.buffer_bytes(),
            pending_bytes: writer.tail.pending_bytes(),
            ring_bytes: writer.tail.ring_bytes(),
            last_sequence: writer.last_sequence,
            durable_sequence: writer.durable_sequence,
            poisoned: writer.poisoned().map(str::to_owned),
        }
    }
}

fn space(engine: &Engine, snapshots: &SnapshotStats) -> Space {
    let (owed_bytes, held) = engine.compactor.owed_and_held();
    Space {
        segment_bytes: engine.log.segment_bytes(),
        used_bytes: engine.log.used_bytes(),
        limit_reached: engine.log.is_at_limit(),
        reserve_bytes: engine.log.reserve.bytes(),
        grace_bytes: held.grace_bytes,
        damage_bytes: held.damage_bytes,
        // Of maps; without any, snapshots hold the files.
        pinned_bytes: engine.log.pinned_bytes().max(snapshots.disk_bytes),
        owed_bytes,
        paused: engine.compactor.control.is_paused(),
    }
}

impl Store {
    fn snapshot_stats(&self) -> SnapshotStats {
        let engine = self.current();
        let open = self.inner.snapshots.all(engine.context.options.clock.monotonic_ms());
        let held = engine.state.held_by_views();
        SnapshotStats {
            open: open.len() as u64,
            oldest: open.first().map_or(Duration::ZERO, |oldest| oldest.age),
            kept_records: held.records,
            memory_bytes: held.memory_bytes,
            disk_bytes: held.disk_bytes,
        }
    }

    /// Statistics of the store. Takes time proportional to the number of key blocks, segments and
    /// keys with an expiry. Of a store that was opened for reading only they are those of what it
    /// shows: it does not know what the process that writes has in memory, nor what that has made
    /// durable, and counts everything it shows as durable.
    pub fn stats(&self) -> Stats {
        let current = self.current();
        let engine: &Engine = &current;
        if let Err(error) = engine.context.check_process().and_then(|()| check_callback()) {
            // The engine's locks may be held by threads that do not exist in this process, or by
            // the call that this one comes from.
            return Stats {
                poisoned: Some(error.to_string()),
                ..Stats::default()
            };
        }
        let segments: Vec<_> = engine
            .state
            .segments
            .all()
            .iter()
            .map(|segment| SegmentStats::of(segment))
            .collect();
        let sum = |number: fn(&SegmentStats) -> u64| segments.iter().map(number).sum();
        let namespaces = engine.state.namespaces.all();
        let (expired_not_swept, expiry_queue_bytes) = engine.state.expiry_queue(&engine.context.time.now());
        let events = &engine.context.events;
        let snapshots = self.snapshot_stats();
        let background_error = lock(&events.background_error).clone();
        let (keys, keydir_bytes) = (engine.state.keys(), engine.state.keydir_bytes());
        let dropped = engine.state.namespaces.dropped();
        let with_keys = namespaces.iter().chain(&dropped);
        let key_order_bytes = with_keys.map(|state| state.order.memory_bytes() as u64).sum();
        let mut log = LogStats::of(engine);
        if self.is_read_only() {
            let unsealed = segments.iter().filter(|segment| !segment.sealed);
            log.buffer_bytes = unsealed.map(|segment| segment.bytes).sum();
        }
        // A failed sync that the next write would find.
        let poisoned = log
            .poisoned
            .or_else(|| Some(engine.context.directory.check_syncs().err()?.to_string()));
        Stats {
            keys,
            namespaces: namespaces.len() as u64,
            expired_not_swept,
            live_bytes: sum(|segment| segment.live_bytes),
            dead_bytes: sum(|segment| segment.dead_bytes),
            expired_bytes: sum(|segment| segment.expired_bytes),
            tombstone_bytes: sum(|segment| segment.tombstone_bytes),
            segment_bytes: sum(|segment| segment.bytes),
            keydir_bytes,
            key_order_bytes,
            expiry_queue_bytes,
            buffer_bytes: log.buffer_bytes,
            pending_bytes: log.pending_bytes,
            ring_bytes: log.ring_bytes,
            last_sequence: log.last_sequence,
            durable_sequence: log.durable_sequence,
            write_outs: events.write_outs.load(Ordering::Relaxed),
            written_bytes: events.written_bytes.load(Ordering::Relaxed),
            syncs: events.syncs.load(Ordering::Relaxed),
            expired: events.expired.load(Ordering::Relaxed),
            compaction: engine.compactor.control.totals(),
            space: space(engine, &snapshots),
            snapshots,
            scrub: engine.scrub.stats(),
            background: engine.background(),
            disk_full: engine.log.reserve.is_full(),
            poisoned,
            background_error,
            segments,
        }
    }
}
