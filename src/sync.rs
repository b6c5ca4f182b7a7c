//! The synchronisation types of the lock-free parts: the standard ones, or, in a build with `--cfg
//! shuttle`, those that explore interleavings.

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

/// Locks a mutex whose content is sound even if a thread panicked while holding it.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Proof that no other thread changes what readers find. Each open store has one, kept under its
/// writer lock: code that can refer to it holds that lock, or has sole access to a store that is
/// being opened.
#[derive(Debug)]
pub(crate) struct ChangeRight(());

impl ChangeRight {
    /// For the writer lock of a new store, and for tests of one part.
    pub(crate) fn new() -> ChangeRight {
        ChangeRight(())
    }
}
