//! What all parts of an open store share: its directory, clock and options, and counts of events.
//! While the store is open nothing here changes except the counts and the closing state.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::callback;
use crate::clock::StoreTime;
use crate::error::{Error, Result};
use crate::format::segment_file;
use crate::options::Options;
use crate::planted::{Planted, planted};
use crate::report::{Level, Report};
use crate::segment::ReadError;
use crate::storage::{Directory, ProcessMark, Storage, StorageLock, check_lock_linked};
use crate::sync::lock;

/// See the module.
pub(crate) struct Context {
    /// Held open: the store is this directory, not a path.
    pub(crate) directory: Directory,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) options: Options,
    pub(crate) time: StoreTime,
    pub(crate) store_id: [u8; 16],
    pub(crate) events: Events,
    /// Wakes the thread that flushes and prepares segments.
    pub(crate) flush_wake: Wake,
    /// Wakes the thread that syncs.
    pub(crate) sync_wake: Wake,
    /// Wakes the maintenance thread.
    pub(crate) maintenance_wake: Wake,
    /// Wakes the thread that compacts.
    pub(crate) compaction_wake: Wake,
    /// Wakes the thread that scrubs, to end it.
    pub(crate) scrub_wake: Wake,
    /// Rounds of work of the maintenance and compaction threads.
    pub(crate) rounds: Rounds,
    /// The process that opened the store.
    process: ProcessMark,
    /// The store is closing: long work ends as soon as it can, and none starts.
    closing: AtomicBool,
    /// The store was closed: another process may have the directory by now.
    closed: AtomicBool,
    /// None once released, and in a [`Context::beside`].
    directory_lock: Mutex<Option<Box<dyn StorageLock>>>,
}

/// Counts of what happened since the store was opened.
#[derive(Debug, Default)]
pub(crate) struct Events {
    pub(crate) write_outs: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) expired: AtomicU64,
    /// The latest error of background work.
    pub(crate) background_error: Mutex<Option<String>>,
    /// What is to be said of it.
    pub(crate) report: Report,
}

impl Events {
    pub(crate) fn note_background_error(&self, error: &Error) {
        let text = error.to_string();
        let mut latest = lock(&self.background_error);
        // What fails again and again is said once.
        if latest.as_ref() != Some(&text) {
            let level = match error {
                Error::Corruption { .. } => Level::Error,
                _ => Level::Warn,
            };
            self.report.note(level, || text.clone());
        }
        *latest = Some(text);
    }
}

/// Wakes a background thread.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    requested: Mutex<bool>,
    condition: Condvar,
}

impl Wake {
    pub(crate) fn wake(&self) {
        let mut requested = lock(&self.requested);
        if !*requested {
            *requested = true;
            self.condition.notify_all();
        }
    }

    /// Returns when woken, or after the time-out.
    pub(crate) fn wait(&self, timeout: Duration) {
        let requested = lock(&self.requested);
        let (mut requested, _) = self
            .condition
            .wait_timeout_while(requested, timeout, |requested| !*requested)
            .unwrap_or_else(PoisonError::into_inner);
        *requested = false;
    }

    /// Whether the thread is to be woken.
    #[cfg(test)]
    pub(crate) fn is_requested(&self) -> bool {
        *lock(&self.requested)
    }
}

/// Tells waiting calls that a background thread has done a round of its work.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    looking: Mutex<()>,
    ended: Condvar,
}

impl Rounds {
    pub(crate) fn end(&self) {
        // A call that has looked before this round, and not waited yet, holds the lock.
        drop(lock(&self.looking));
        self.ended.notify_all();
    }

    /// Waits until `is_done`, asked now and after each round; false after the time-out.
    pub(crate) fn wait_until(&self, timeout: Duration, mut is_done: impl FnMut() -> bool) -> bool {
        let looking = lock(&self.looking);
        let waited = self.ended.wait_timeout_while(looking, timeout, |()| !is_done());
        let (_looking, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        !waited.timed_out()
    }
}

impl Context {
    pub(crate) fn new(
        directory: Directory,
        directory_lock: Option<Box<dyn StorageLock>>,
        store_id: [u8; 16],
        options: Options,
        time: StoreTime,
    ) -> Context {
        Context {
            directory,
            storage: options.storage.clone(),
            options: Options {
                limits: options.limits.clipped(),
                ..options
            },
            time,
            store_id,
            events: Events::default(),
            flush_wake: Wake::default(),
            sync_wake: Wake::default(),
            maintenance_wake: Wake::default(),
            compaction_wake: Wake::default(),
            scrub_wake: Wake::default(),
            rounds: Rounds::default(),
            process: ProcessMark::of_this_process(),
            closing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            directory_lock: Mutex::new(directory_lock),
        }
    }

    /// A second context for the same store, to build what opening it now would build. It holds no
    /// lock; this one does.
    pub(crate) fn beside(&self) -> Context {
        let options = Options {
            progress: None,
            ..self.options.clone()
        };
        let time = StoreTime::new(options.clock.clone());
        Context::new(self.directory.clone(), None, self.store_id, options, time)
    }

    /// The path under which the store was opened.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Path of a segment's file, for messages.
    pub(crate) fn segment_path(&self, id: u64) -> PathBuf {
        self.directory.path_of(&segment_file(id))
    }

    /// The error for a failed read of a record in this segment.
    pub(crate) fn read_error(&self, segment_id: u64, offset: u64, error: ReadError) -> Error {
        let path = self.segment_path(segment_id);
        match error {
            ReadError::Damage(damage) => Error::damage(&path, offset, damage),
            ReadError::Io(source) => Error::io("read", &path, source),
        }
    }

    /// How long expired records stay on disk, in milliseconds.
    pub(crate) fn grace_ms(&self) -> u64 {
        self.options.expiry_grace.as_millis().try_into().unwrap_or(u64::MAX)
    }

    /// Whether this is the process that opened the store, not a fork of it.
    #[inline]
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.process.is_of_this_process() || planted(Planted::ServeForkedChild)
    }

    /// An error in a process forked from the one that opened the store.
    #[inline]
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.is_of_this_process() {
            Ok(())
        } else {
            Err(Error::Forked)
        }
    }

    /// An error if the store is closed, or the call comes from a function that the store has
    /// called.
    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        self.check_process()?;
        check_callback()?;
        if self.is_closed() && !planted(Planted::ServeClosed) {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    /// Asks long work to end.
    pub(crate) fn begin_closing(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// An error once the store is closing.
    pub(crate) fn check_closing(&self) -> Result<()> {
        if self.closing.load(Ordering::Acquire) {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Marks the store as closed; returns whether it already was.
    pub(crate) fn set_closed(&self) -> bool {
        self.closed.swap(true, Ordering::AcqRel)
    }

    /// Whether this handle still holds the directory's lock.
    pub(crate) fn has_directory(&self) -> bool {
        lock(&self.directory_lock).is_some()
    }

    /// Releases the directory's lock.
    pub(crate) fn unlock_directory(&self) {
        drop(lock(&self.directory_lock).take());
    }

    /// Fails if the directory or its lock was removed.
    pub(crate) fn check_linked(&self) -> std::io::Result<()> {
        self.directory.check_linked()?;
        match &*lock(&self.directory_lock) {
            Some(held) => check_lock_linked(&**held),
            None => Ok(()),
        }
    }
}

/// An error inside a function of the program from where no store may be called.
#[inline]
pub(crate) fn check_callback() -> Result<()> {
    if callback::is_running() {
        Err(Error::in_callback())
    } else {
        Ok(())
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}
