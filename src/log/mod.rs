//! Many segments as one log: appending, making records durable, and rotating active segments.
//!
//! What each lock protects:
//!
//! * The log grows under the one writer lock ([`Log::lock`]): appending, and the state changes that
//!   belong to it, the moves of compaction, expiry. Only large batches enter the state outside it.
//! * What readers find is changed under the change lock of the state, which is taken last but for
//!   the locks of the manifest and inside the indexes.
//! * Files are written and synced by one leader at a time, outside that lock (`commit`). Only rare
//!   writes happen under it: the rest of a full segment, the record of a namespace, recovery's
//!   copies into another segment.
//! * Lock order: namespace changes, compaction, scrubbing, housekeeping, sealing, making the ring,
//!   writer, change, manifest, then the locks inside the indexes and the clock.

mod active;
mod append;
mod at_once;
mod behind;
mod close;
pub(crate) mod commit;
mod device;
pub(crate) mod hints;
mod limit;
mod log_file;
pub(crate) mod manifest;
mod recent;
pub(crate) mod reserve;
mod ring;
mod rotate;
mod seal;
pub(crate) mod segment_files;
pub(crate) mod segment_size;
pub(crate) mod segment_writer;
pub(crate) mod segments;
#[cfg(test)]
mod slow_call;
mod tail;
pub(crate) mod unrecovered;
mod view;
mod waiters;
mod watch;

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, Weak};

pub(crate) use self::commit::FoundSequences;
use self::commit::{CommitLock, GroupCommit};
use self::device::Device;
use self::hints::DoubtfulHints;
use self::manifest::{Floors, ManifestStore, ReplaceError};
use self::reserve::Reserve;
use self::ring::RingMaker;
use self::segment_files::SegmentFiles;
use self::segment_size::SegmentSize;
use self::tail::Tail;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::planted::{Planted, planted};
use crate::segment::Segment;
use crate::segment::memory::SpareMemory;
use crate::state::State;
use crate::storage::Map;
use crate::sync::lock;

pub(crate) use self::append::{Applied, NewBatch, NewRecord, Room};
pub(crate) use self::recent::Interest;
pub use self::watch::Event;
pub(crate) use self::watch::Queue;

/// The writer lock, held.
pub(crate) type Guard<'a> = commit::Guard<'a, Tail>;

/// The writer lock of a store that is being opened.
pub(crate) type WriterLock = CommitLock<Tail>;

/// Smallest segments of a store on a disk that has no room for a larger reserve.
const SMALL_DISK_SEGMENT_MIN: u64 = 512 << 10;

/// The log of an open store.
#[derive(Debug)]
pub(crate) struct Log {
    context: Arc<Context>,
    state: Arc<State>,
    pub(crate) manifest: Arc<ManifestStore>,
    pub(crate) reserve: Arc<Reserve>,
    pub(crate) files: SegmentFiles,
    pub(crate) doubtful_hints: DoubtfulHints,
    commit: GroupCommit<Device>,
    /// Held by the thread that seals.
    sealing: Mutex<()>,
    /// Number of segments that were rotated out and not sealed yet.
    unsealed: AtomicUsize,
    size: SegmentSize,
    /// Of active segments that were.
    spare_memory: Arc<SpareMemory>,
    ring: RingMaker,
    /// Maps of segments that were removed, and their lengths.
    unlinked: Mutex<Vec<(Weak<Map>, u64)>>,
}

/// The writer lock of a log without records.
pub(crate) fn new_lock() -> Arc<WriterLock> {
    Arc::new(CommitLock::new(Tail::new()))
}

impl Log {
    /// A log over the segments that recovery has found.
    pub(crate) fn new(
        state: Arc<State>,
        lock: Arc<WriterLock>,
        manifest: Arc<ManifestStore>,
        files: SegmentFiles,
        found: FoundSequences,
    ) -> Log {
        let context = files.context().clone();
        let reserve = Arc::new(Reserve::new(context.clone()));
        let mut guard = lock.lock();
        guard.begin_at(found);
        state.begin_at(found.last);
        guard.tail.marked_sequence = guard.durable_sequence;
        drop(guard);
        let device = Device {
            context: context.clone(),
            state: state.clone(),
            reserve: reserve.clone(),
        };
        let ring = RingMaker::new(&context, manifest.ring_bytes() > 0);
        let size = SegmentSize::new(&context.options, state.live_bytes());
        reserve.follow(size.bytes());
        let spare_memory = SpareMemory::new(context.options.segment_bytes as usize);
        Log {
            context,
            state,
            manifest,
            reserve,
            files,
            doubtful_hints: DoubtfulHints::default(),
            commit: GroupCommit::new(lock, device),
            sealing: Mutex::new(()),
            unsealed: AtomicUsize::new(0),
            size,
            spare_memory,
            ring,
            unlinked: Mutex::default(),
        }
    }

    /// Bytes of a segment that is started now.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.size.bytes()
    }

    /// Notes that this segment is about to be removed: values may keep its map, and with it its
    /// space on disk.
    pub(crate) fn note_unlinked(&self, segment: &Segment) {
        if let Some(map) = segment.map() {
            let mut unlinked = lock(&self.unlinked);
            unlinked.retain(|(map, _)| map.strong_count() > 0);
            unlinked.push((Arc::downgrade(map), segment.data_end()));
        }
    }

    /// Bytes of removed segments whose maps are still in use.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        let unlinked = lock(&self.unlinked);
        let pinned = unlinked.iter().filter(|(map, _)| map.strong_count() > 0);
        pinned.map(|(_, bytes)| bytes).sum()
    }

    /// Gives back memory that was not needed for this many milliseconds: that of a segment that was
    /// sealed, and what the active one has not filled of such memory.
    pub(crate) fn shrink(&self, kept_ms: u64) {
        let now_ms = self.context.time.monotonic_ms();
        self.spare_memory.shrink(now_ms, kept_ms);
        let mut guard = self.lock();
        if let Some(active) = &mut guard.tail.active
            && let Some(since_ms) = active.committed_ms
            && now_ms.saturating_sub(since_ms) >= kept_ms
        {
            active.committed_ms = None;
            active.appender.release_spare();
        }
    }

    /// Adapts the size of new segments, and the reserve, to the live data.
    fn adapt_sizes(&self) {
        let before = self.size.bytes();
        if !self.size.adapt(&self.context.options, self.state.live_bytes()) {
            return;
        }
        self.reserve.follow(self.size.bytes());
        if self.reserve.is_full() {
            return;
        }
        if let Err(error) = self.reserve.restore() {
            if self.size.bytes() > before {
                // Smaller segments do as well. What the reserve had before is still there.
                self.limit_segments_to(before);
                let _ = self.reserve.restore();
            } else {
                self.context.events.note_background_error(&error);
            }
        }
    }

    fn limit_segments_to(&self, bytes: u64) {
        self.size.limit_to(bytes);
        self.reserve.follow(bytes);
    }

    /// Restores the whole reserve when the store is opened. On a disk that is too small for it,
    /// segments and reserve become smaller, but not if there are larger segments: compacting one of
    /// those on a full disk needs a reserve of its size.
    pub(crate) fn restore_reserve(&self) -> Result<()> {
        let mut least = SMALL_DISK_SEGMENT_MIN;
        self.state
            .segments
            .for_each(|segment| least = least.max(segment.data_end()));
        loop {
            let half = self.size.bytes() / 2;
            match self.reserve.restore() {
                Err(error) if error.is_no_space() && half >= least => self.limit_segments_to(half),
                restored => return restored,
            }
        }
    }

    /// Takes the writer lock.
    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_> {
        self.commit.lock()
    }

    /// Takes the writer lock. A thread that has to wait first looks up the key of this hash, so
    /// that its slot and record are in the processor's cache when the lock is held.
    #[inline]
    pub(crate) fn lock_to_change(&self, hash: u64) -> Guard<'_> {
        self.commit.try_lock().unwrap_or_else(|| {
            self.state.warm_up(&[hash], None);
            self.lock()
        })
    }

    /// Number of segments that were rotated out and are not sealed yet.
    pub(crate) fn sealing(&self) -> usize {
        self.lock().tail.sealing.len()
    }

    /// Whether other threads wait for the writer lock.
    pub(crate) fn is_wanted(&self) -> bool {
        self.commit.is_wanted()
    }

    /// Refuses all further writes.
    pub(crate) fn poison(&self, guard: &mut Guard<'_>, cause: &Error) {
        self.commit.poison(guard, cause);
    }

    /// An error if nothing may be acknowledged any more: the store is poisoned, or one of its syncs
    /// has failed.
    #[inline]
    pub(crate) fn check_sound(&self, guard: &mut Guard<'_>) -> Result<()> {
        self.commit.check_sound(guard)
    }

    /// The current floors for the manifest.
    fn floors(&self, guard: &Guard<'_>) -> Floors {
        Floors {
            next_sequence: guard.next_sequence,
            next_namespace: self.state.next_namespace(),
        }
    }

    /// Changes the manifest; poisons the store if it is unknown which manifest is in place. The
    /// writer lock must not be held.
    pub(crate) fn update_manifest(&self, change: impl FnOnce(&mut Manifest)) -> Result<()> {
        let floors = self.floors(&self.lock());
        match self.manifest.update(floors, change) {
            Ok(()) => Ok(()),
            Err(ReplaceError::Unchanged(error)) => Err(error),
            Err(ReplaceError::Unknown(error)) => {
                if !planted(Planted::BelieveUnknownManifest) {
                    self.poison(&mut self.lock(), &error);
                }
                Err(error)
            }
        }
    }

    /// Writes out all pending records.
    pub(crate) fn flush(&self) -> Result<()> {
        self.with_part_of_ring(|| self.flush_once())
    }

    fn flush_once(&self) -> Result<()> {
        let mut guard = self.lock();
        self.check_sound(&mut guard)?;
        let sequence = guard.last_sequence;
        let written = self.commit.write_out_up_to(guard, sequence);
        // This call has applied nothing that could stay pending.
        written.map_err(Error::without_pending)
    }

    /// Makes everything acknowledged before this call durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.with_part_of_ring(|| self.sync_once())
    }

    fn sync_once(&self) -> Result<()> {
        let mut guard = self.lock();
        self.check_sound(&mut guard)?;
        if guard.tail.is_recovering() {
            // Records that recovery could not copy for lack of space are not durable yet.
            self.finish_recovery(&mut guard)?;
        }
        let sequence = guard.last_sequence;
        let synced = self.commit.sync_up_to(guard, sequence);
        synced.map_err(Error::without_pending)
    }
}
