//! Groups: changes of several keys that readers see as a whole.
//!
//! An epoch is odd while a group is being applied. A look-up of one key waits until it is even, and
//! one of several keys is repeated if it changed meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};

use super::State;
use crate::error::Result;
use crate::planted::{Planted, planted};

/// Attempts to read several keys between groups, before groups are blocked.
const LOOKS_MAX: u32 = 8;

impl State {
    /// Waits while a group is being applied, so that a reader that has seen one part of it misses
    /// no other.
    pub(crate) fn await_group(&self) {
        if planted(Planted::BatchInSteps) {
            return;
        }
        let mut spins = 0u32;
        while self.group_epoch.load(Ordering::Acquire) % 2 == 1 {
            spins += 1;
            if spins < 64 {
                std::hint::spin_loop()
            } else {
                std::thread::yield_now()
            }
        }
    }

    /// Runs `look`, which may read several keys, so that it sees each group as a whole or not at
    /// all.
    pub(crate) fn consistently<T>(&self, mut look: impl FnMut() -> Result<T>) -> Result<T> {
        for _ in 0..LOOKS_MAX {
            self.await_group();
            let before = self.group_epoch.load(Ordering::Acquire);
            let answer = look();
            let is_whole = before.is_multiple_of(2) && self.group_epoch.load(Ordering::Acquire) == before;
            if is_whole || planted(Planted::TornLook) {
                return answer;
            }
        }
        // Groups keep interrupting; block them with the writer lock.
        let mut answer = None;
        self.writers.while_nothing_changes(&mut || answer = Some(look()));
        answer.unwrap_or_else(look)
    }

    /// Applies a group. The caller holds the writer lock.
    pub(super) fn as_group<T>(&self, apply: impl FnOnce() -> T) -> T {
        /// Ends the epoch even if applying panics: readers must not wait forever.
        struct Applying<'a>(&'a AtomicU64);
        impl Drop for Applying<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::AcqRel);
            }
        }
        self.group_epoch.fetch_add(1, Ordering::AcqRel);
        let _applying = Applying(&self.group_epoch);
        apply()
    }
}
