//! Whether and how compaction runs, its progress, and what it has done.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::thread::{self, ThreadId};

use crate::error::{Error, Result};
use crate::options::Progress;
use crate::planted::{Planted, planted};
use crate::segment::SealedSegment;
use crate::sync::lock;

/// Whether and how compaction runs.
#[derive(Debug, Default)]
pub(crate) struct Control {
    /// Held by a compaction, and by whatever must exclude one.
    running: Mutex<()>,
    /// The thread that holds `running`.
    holder: Mutex<Option<ThreadId>>,
    paused: AtomicBool,
    cancelled: AtomicBool,
    /// Number of calls waiting for the current compaction to end.
    waiting: AtomicU64,
    /// A compaction began, and has not found anything to do yet.
    begun: AtomicBool,
    /// The segments of a background run that was of no use: the same would be chosen again.
    fruitless: Mutex<Vec<u64>>,
    runs: AtomicU64,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    reclaimed_bytes: AtomicU64,
    /// For the segments chosen since the last compaction with work to do began: bytes replaced, and
    /// bytes in total.
    done_bytes: AtomicU64,
    total_bytes: AtomicU64,
}

/// Held by a compaction, or by what excludes one, until it is dropped.
pub(crate) struct Running<'a> {
    control: &'a Control,
    _held: MutexGuard<'a, ()>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        *lock(&self.control.holder) = None;
    }
}

/// What compaction did: in one call, or since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionReport {
    /// Runs; each replaces one or more segments.
    pub runs: u64,
    /// Bytes of the segments that were replaced.
    pub read_bytes: u64,
    /// Bytes of the segments that replaced them.
    pub written_bytes: u64,
    /// The difference: disk space reclaimed.
    pub reclaimed_bytes: u64,
}

impl CompactionReport {
    pub(super) fn add(&mut self, run: CompactionReport) {
        self.runs += run.runs;
        self.read_bytes += run.read_bytes;
        self.written_bytes += run.written_bytes;
        self.reclaimed_bytes += run.reclaimed_bytes;
    }

    /// Whether only the files changed, so that another run would do the same again.
    pub(super) fn changed_nothing(&self) -> bool {
        self.reclaimed_bytes == 0 && self.read_bytes == self.written_bytes
    }
}

impl Control {
    /// Starts no new background runs until resumed, and cancels the current one.
    pub(crate) fn pause(&self) {
        self.paused.store(true, Ordering::Release);
    }

    pub(crate) fn resume(&self) {
        self.paused.store(false, Ordering::Release);
    }

    /// Cancels the current run, if there is one.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    pub(super) fn check_cancelled(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Acquire) && !planted(Planted::IgnoreCancel) {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }

    /// Takes the lock `running`. Fails if this thread holds it: the call comes from a function of
    /// the program that a checkpoint has called, and would wait for itself.
    pub(crate) fn lock(&self) -> Result<Running<'_>> {
        self.check_not_held_here()?;
        let held = lock(&self.running);
        *lock(&self.holder) = Some(thread::current().id());
        Ok(Running {
            control: self,
            _held: held,
        })
    }

    /// As [`Control::lock`], for a call that must not wait at background pace: a throttled run
    /// continues at full speed from now on.
    pub(crate) fn lock_at_once(&self) -> Result<Running<'_>> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let running = self.lock();
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        running
    }

    /// An error if this thread holds the lock `running`.
    pub(crate) fn check_not_held_here(&self) -> Result<()> {
        // Only this thread can set or clear its own id.
        let is_held_here = *lock(&self.holder) == Some(thread::current().id());
        if is_held_here && !planted(Planted::WaitForItself) {
            return Err(Error::in_progress());
        }
        Ok(())
    }

    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Begins a compaction. The background does so twice a second and mostly finds nothing to do,
    /// so the progress of the last one is kept until there is something.
    pub(super) fn begin(&self) {
        self.cancelled.store(false, Ordering::Release);
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Adds these segments to the bytes to replace.
    pub(super) fn plan(&self, inputs: &[SealedSegment]) {
        if self.begun.swap(false, Ordering::Relaxed) {
            self.total_bytes.store(0, Ordering::Relaxed);
            self.done_bytes.store(0, Ordering::Relaxed);
        }
        let bytes = inputs.iter().map(|segment| segment.summary().data_end).sum();
        self.total_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds to the bytes done.
    pub(super) fn go_on(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn progress(&self) -> Progress {
        let total_bytes = self.total_bytes.load(Ordering::Relaxed);
        Progress {
            done_bytes: self.done_bytes.load(Ordering::Relaxed).min(total_bytes),
            total_bytes,
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire) && !planted(Planted::IgnorePause)
    }

    /// Remembers that compacting these segments was of no use.
    pub(super) fn note_fruitless(&self, inputs: Vec<u64>) {
        *lock(&self.fruitless) = inputs;
    }

    /// Whether the last background run was one of these segments, and of no use.
    pub(super) fn was_fruitless(&self, inputs: &[u64]) -> bool {
        *lock(&self.fruitless) == inputs
    }

    /// Whether a compaction is running, or something that excludes one.
    pub(super) fn is_running(&self) -> bool {
        matches!(self.running.try_lock(), Err(TryLockError::WouldBlock))
    }

    pub(super) fn note(&self, run: &CompactionReport) {
        self.runs.fetch_add(run.runs, Ordering::Relaxed);
        self.read_bytes.fetch_add(run.read_bytes, Ordering::Relaxed);
        self.written_bytes.fetch_add(run.written_bytes, Ordering::Relaxed);
        self.reclaimed_bytes.fetch_add(run.reclaimed_bytes, Ordering::Relaxed);
    }

    /// Totals of all runs since the store was opened.
    pub(crate) fn totals(&self) -> CompactionReport {
        CompactionReport {
            runs: self.runs.load(Ordering::Relaxed),
            read_bytes: self.read_bytes.load(Ordering::Relaxed),
            written_bytes: self.written_bytes.load(Ordering::Relaxed),
            reclaimed_bytes: self.reclaimed_bytes.load(Ordering::Relaxed),
        }
    }
}
