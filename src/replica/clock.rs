//! The time of the log, by which all nodes decide what has expired, and the clock of a replicated
//! store, which shows that time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use embercask::Clock;

use crate::entry::Lifetime;

/// Log time: a function of the time stamps of all entries so far, and of nothing else.
///
/// Stamps are taken from the clock of the log's leader, which may be set, or change with the
/// leader. Log time never goes back: where stamps do, it stands, and then advances at 7/8 of their
/// pace until they have caught up with it. Of a step of more than 10 s it does not advance further
/// then: stamps that go back and forth between two leaders would drive it on for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogTime {
    /// In milliseconds since the Unix epoch.
    pub(crate) ms: u64,
    /// Eighths of a millisecond beyond that, so that short steps are slowed down too.
    pub(crate) eighths: u8,
    /// The stamp of the last entry.
    pub(crate) last_stamp_ms: u64,
}

impl LogTime {
    /// In milliseconds since the Unix epoch; 0 before the first entry.
    pub fn ms(&self) -> u64 {
        self.ms
    }

    /// The stamp of the last entry, in milliseconds since the Unix epoch.
    pub fn last_stamp_ms(&self) -> u64 {
        self.last_stamp_ms
    }

    /// The time of the next entry, which has this stamp.
    #[must_use]
    pub fn after(self, stamp_ms: u64) -> LogTime {
        let passed = stamp_ms.saturating_sub(self.last_stamp_ms);
        let is_ahead = self.ms > self.last_stamp_ms;
        let passed_eighths = match is_ahead {
            true => u128::from(passed.min(STEP_AHEAD_MS_MAX)) * 7,
            false => u128::from(passed) * 8,
        };
        let eighths = u128::from(self.ms) * 8 + u128::from(self.eighths) + passed_eighths;
        let (ms, eighths) = match eighths.max(u128::from(stamp_ms) * 8) {
            // Not before the year 584,942,417.
            all if all / 8 > u128::from(u64::MAX) => (u64::MAX, 0),
            all => ((all / 8) as u64, (all % 8) as u8),
        };
        LogTime {
            ms,
            eighths,
            last_stamp_ms: stamp_ms,
        }
    }

    /// When a value expires that is put by the entry of this time, in a namespace with this default
    /// lifetime. Lifetimes are measured from the stamp of the entry, so that one has its full
    /// length where log time is ahead.
    pub fn expiry_ms(&self, lifetime: Lifetime, default_ttl_ms: Option<u64>) -> Option<u64> {
        match lifetime {
            Lifetime::Default => default_ttl_ms.map(|ttl_ms| self.ms.saturating_add(ttl_ms)),
            Lifetime::Forever => None,
            Lifetime::After(ttl_ms) => Some(self.ms.saturating_add(ttl_ms)),
            Lifetime::At(expiry_ms) => Some(self.ms.saturating_add(expiry_ms.saturating_sub(self.last_stamp_ms))),
        }
    }
}

/// Longest step that log time follows while it is ahead of the stamps: 10 seconds. There is a beat
/// each second.
const STEP_AHEAD_MS_MAX: u64 = 10_000;

/// Steps of log time up to this long are taken for its ordinary pace.
const STEP_MS_MAX: u64 = 500;

/// The clock of a replicated store: its wall clock is the log time of the last entry that was
/// applied. Clones share the time.
///
/// The store takes a wall clock that gains on its monotonic clock for one that was set, and then
/// removes nothing that has expired for some minutes. Log time jumps whenever a node catches up, so
/// here the monotonic clock jumps with it: it runs on by itself, and log time never gains on it by
/// more than `STEP_MS_MAX` between two looks.
#[derive(Clone, Debug)]
pub struct LogClock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    started: Instant,
    log_ms: AtomicU64,
    /// What the monotonic clock has beyond the time since the start.
    jumped_ms: AtomicU64,
    /// Time since the start when the log's time was set last.
    set_at_ms: AtomicU64,
}

impl Default for LogClock {
    fn default() -> LogClock {
        LogClock::new()
    }
}

impl LogClock {
    /// A clock at 0, for the options of a store. [`crate::applier::Applier::open`] sets it.
    pub fn new() -> LogClock {
        LogClock(Arc::new(Shared {
            started: Instant::now(),
            log_ms: AtomicU64::new(0),
            jumped_ms: AtomicU64::new(0),
            set_at_ms: AtomicU64::new(0),
        }))
    }

    /// Moves the log's time on; does nothing if it is not later. Only the applier calls this.
    pub(crate) fn set(&self, log_ms: u64) {
        self.0.set(log_ms, self.0.elapsed_ms());
    }
}

impl Shared {
    fn elapsed_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn set(&self, log_ms: u64, elapsed_ms: u64) {
        let step = log_ms.saturating_sub(self.log_ms.load(Ordering::Relaxed));
        // The store may have looked at both clocks at any moment since the last step. After a long
        // step nothing of that time may be counted.
        let passed = elapsed_ms.saturating_sub(self.set_at_ms.load(Ordering::Relaxed));
        let jumped = step.saturating_sub(if step > STEP_MS_MAX { 0 } else { passed });
        // The store looks at log time first: where it finds the new one, it finds this too.
        self.jumped_ms.fetch_add(jumped, Ordering::Release);
        self.set_at_ms.store(elapsed_ms, Ordering::Relaxed);
        self.log_ms.fetch_max(log_ms, Ordering::Release);
    }
}

impl Clock for LogClock {
    fn wall_ms(&self) -> u64 {
        self.0.log_ms.load(Ordering::Acquire)
    }

    fn monotonic_ms(&self) -> u64 {
        let jumped_ms = self.0.jumped_ms.load(Ordering::Acquire);
        self.0.elapsed_ms().saturating_add(jumped_ms)
    }
}

#[cfg(test)]
mod tests;
