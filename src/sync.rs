//! The synchronisation types of the lock-free parts: the standard ones, or, in a build with `--cfg
//! shuttle`, those that explore interleavings.

use std::sync::PoisonError;

#[cfg(not(shuttle))]
pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

#[cfg(shuttle)]
pub(crate) use shuttle::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// Lets other threads run. Under shuttle a thread that waits for another in a loop has to call this
/// in each turn: a schedule may prefer it for ever otherwise.
pub(crate) fn yield_now() {
    #[cfg(not(shuttle))]
    std::thread::yield_now();
    #[cfg(shuttle)]
    shuttle::thread::yield_now();
}

/// Locks a mutex whose content is sound even if a thread panicked while holding it.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Proof that no other thread changes what readers find. Each open store has one, kept under its
/// [`ChangeLock`]: code that can refer to it holds that lock, or has sole access to a store that is
/// being opened.
#[derive(Debug)]
pub(crate) struct ChangeRight(());

impl ChangeRight {
    /// For the lock of a new store, and for tests of one part.
    pub(crate) fn new() -> ChangeRight {
        ChangeRight(())
    }
}

/// The lock under which what readers find is changed. It is held for moments: to apply a record, or
/// some of many.
#[derive(Debug)]
pub(crate) struct ChangeLock {
    right: Mutex<ChangeRight>,
    waiting: AtomicUsize,
}

impl ChangeLock {
    pub(crate) fn new() -> ChangeLock {
        ChangeLock {
            right: Mutex::new(ChangeRight::new()),
            waiting: AtomicUsize::new(0),
        }
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, ChangeRight> {
        match self.right.try_lock() {
            Ok(right) => right,
            Err(_) => self.wait(),
        }
    }

    #[cold]
    fn wait(&self) -> MutexGuard<'_, ChangeRight> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        right
    }

    /// Whether other threads wait for it.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}
