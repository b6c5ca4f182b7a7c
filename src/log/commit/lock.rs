//! The writer lock: what it protects, and how its holders wait for each other.

use std::sync::{PoisonError, TryLockError};

use crate::error::{Error, Result};
use crate::log::waiters::Waiters;
use crate::sync::{AtomicU64, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering};

/// Checks for the end of a write-out before a thread goes to sleep: a few microseconds.
const SPINS_MAX: u32 = if cfg!(shuttle) { 1 } else { 100 };

/// The sequences found when the store was opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FoundSequences {
    /// The highest of any record.
    pub(crate) last: u64,
    /// For the next record. After an unclean end there is a gap before it.
    pub(crate) next: u64,
}

/// What the writer lock protects.
#[derive(Debug)]
pub(crate) struct Locked<T> {
    /// The next record's sequence.
    pub(crate) next_sequence: u64,
    /// Sequence of the newest record in the log.
    pub(crate) last_sequence: u64,
    /// Everything up to here is in the page cache.
    pub(crate) written_sequence: u64,
    /// Everything up to here is on the device.
    pub(crate) durable_sequence: u64,
    pub(crate) tail: T,
    /// A leader is writing out (`writing`) or syncing (`syncing`).
    pub(in crate::log) writing: bool,
    pub(in crate::log) syncing: bool,
    /// Number of threads waiting for a leader.
    waiting: usize,
    /// Writes whose outcome has not been collected yet.
    pub(in crate::log) waiters: Waiters,
    pub(in crate::log) poisoned: Option<String>,
    pub(in crate::log) closed: bool,
}

impl<T> Locked<T> {
    /// Sets the sequences found when the store was opened.
    pub(in crate::log) fn begin_at(&mut self, found: FoundSequences) {
        self.next_sequence = found.next;
        self.last_sequence = found.last;
        self.written_sequence = found.last;
        self.durable_sequence = found.last;
    }

    /// An error if nothing may be written any more.
    pub(in crate::log) fn check_open(&self) -> Result<()> {
        self.check_closed()?;
        self.check_poison()
    }

    #[inline]
    pub(in crate::log) fn check_closed(&self) -> Result<()> {
        if self.closed { Err(Error::Closed) } else { Ok(()) }
    }

    #[inline]
    pub(in crate::log) fn check_poison(&self) -> Result<()> {
        match &self.poisoned {
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Why writes are refused, if they are.
    pub(crate) fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    /// Allocates the next sequence.
    pub(in crate::log) fn take_sequence(&mut self) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.last_sequence = sequence;
        sequence
    }
}

/// The writer lock, held.
pub(crate) type Guard<'a, T> = MutexGuard<'a, Locked<T>>;

/// The writer lock, and the condition its holders wait on.
#[derive(Debug)]
pub(crate) struct CommitLock<T> {
    locked: Mutex<Locked<T>>,
    /// Number of threads that have found `locked` taken and wait for it.
    wanting: AtomicUsize,
    /// Signalled when a write-out, a sync or a failure ends.
    progressed: Condvar,
    /// Incremented when `progressed` is signalled, or would be if a thread slept.
    progress: AtomicU64,
}

impl<T> CommitLock<T> {
    /// Of a log without records.
    pub(crate) fn new(tail: T) -> CommitLock<T> {
        let locked = Locked {
            next_sequence: 1,
            last_sequence: 0,
            written_sequence: 0,
            durable_sequence: 0,
            tail,
            writing: false,
            syncing: false,
            waiting: 0,
            waiters: Waiters::default(),
            poisoned: None,
            closed: false,
        };
        CommitLock {
            locked: Mutex::new(locked),
            wanting: AtomicUsize::new(0),
            progressed: Condvar::new(),
            progress: AtomicU64::new(0),
        }
    }

    pub(crate) fn lock(&self) -> Guard<'_, T> {
        self.try_lock().unwrap_or_else(|| {
            self.wanting.fetch_add(1, Ordering::Relaxed);
            let guard = self.locked.lock().unwrap_or_else(PoisonError::into_inner);
            self.wanting.fetch_sub(1, Ordering::Relaxed);
            guard
        })
    }

    /// Whether other threads wait for the lock, as far as can be told now. For a holder that may
    /// leave it to them: a lock that is released and taken again at once rarely changes hands.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanting.load(Ordering::Relaxed) > 0
    }

    /// The lock, if it is free.
    pub(in crate::log) fn try_lock(&self) -> Option<Guard<'_, T>> {
        match self.locked.try_lock() {
            Ok(guard) => Some(guard),
            // Poisoned: treated as in `lock`. The guard inside holds the lock.
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Releases the lock until a leader has finished, or spuriously.
    pub(in crate::log) fn wait<'a>(&'a self, mut guard: Guard<'a, T>) -> Guard<'a, T> {
        let before = self.progress.load(Ordering::Relaxed);
        if guard.writing {
            // A write-out takes about as long as falling asleep, and less than waking up. A sync
            // takes far longer.
            drop(guard);
            for _ in 0..SPINS_MAX {
                if self.progress.load(Ordering::Relaxed) != before {
                    break;
                }
                std::hint::spin_loop();
            }
            guard = self.lock();
            if self.progress.load(Ordering::Relaxed) != before {
                return guard;
            }
        }
        guard.waiting += 1;
        let mut guard = self.progressed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        guard.waiting -= 1;
        guard
    }

    /// Makes all waiters check again.
    pub(in crate::log) fn notify(&self, guard: &Guard<'_, T>) {
        self.progress.fetch_add(1, Ordering::Relaxed);
        if guard.waiting > 0 {
            self.progressed.notify_all();
        }
    }
}
