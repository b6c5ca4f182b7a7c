//! Time, passed in. Expiry is decided by the wall clock, once per operation; inside an open store it never steps back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::planted::{Planted, planted};

/// Where a store reads the time. Calls come from several threads.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Wall clock: milliseconds since the Unix epoch.
    fn wall_ms(&self) -> u64;

    /// A clock that nobody sets: milliseconds since any fixed moment.
    fn monotonic_ms(&self) -> u64;
}

/// The system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock {
            started: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn wall_ms(&self) -> u64 {
        // A clock before 1970 counts as 1970: nothing has expired then.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64)
    }

    fn monotonic_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

/// A clock that moves only when told to, for tests of what happens when something expires. Clones share the time.
#[derive(Clone, Debug)]
pub struct ManualClock {
    wall: Arc<AtomicU64>,
    monotonic: Arc<AtomicU64>,
}

impl ManualClock {
    /// Starts at this many milliseconds since the epoch.
    pub fn new(wall_ms: u64) -> ManualClock {
        ManualClock {
            wall: Arc::new(AtomicU64::new(wall_ms)),
            monotonic: Arc::default(),
        }
    }

    /// Time passes: both clocks go on by `ms`.
    pub fn advance(&self, ms: u64) {
        self.wall.fetch_add(ms, Ordering::SeqCst);
        self.monotonic.fetch_add(ms, Ordering::SeqCst);
    }

    /// Somebody sets the wall clock; the other one does not notice.
    pub fn set_wall(&self, wall_ms: u64) {
        self.wall.store(wall_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall_ms(&self) -> u64 {
        self.wall.load(Ordering::SeqCst)
    }

    fn monotonic_ms(&self) -> u64 {
        self.monotonic.load(Ordering::SeqCst)
    }
}

/// The one expiry predicate: at its expiry a record is gone.
pub(crate) fn is_expired(expiry: Option<u64>, now_ms: u64) -> bool {
    expiry.is_some_and(|expiry| now_ms >= expiry)
}

/// How long after a forward jump of the wall clock nothing is dropped from disk for being expired, so that a clock
/// that was set wrongly can be set right: 10 minutes.
const PAUSE_AFTER_JUMP_MS: u64 = 10 * 60 * 1000;

/// What the two clocks may differ by from look to look without a jump, whatever the grace: each rounds down to its
/// own millisecond, and the wall clock is slewed. 1 second.
const JUMP_MS_MIN: u64 = 1000;

/// The time as one open store sees it.
#[derive(Debug)]
pub(crate) struct StoreTime {
    clock: Arc<dyn Clock>,
    latest: AtomicU64,
    jumps: Mutex<Jumps>,
}

/// Compares the two clocks from look to look.
#[derive(Debug)]
struct Jumps {
    wall: u64,
    monotonic: u64,
    pause_until: u64,
}

impl StoreTime {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> StoreTime {
        let (wall, monotonic) = (clock.wall_ms(), clock.monotonic_ms());
        StoreTime {
            clock,
            latest: AtomicU64::new(wall),
            jumps: Mutex::new(Jumps {
                wall,
                monotonic,
                pause_until: 0,
            }),
        }
    }

    /// Now, in milliseconds since the epoch; never less than a call before has returned.
    pub(crate) fn now_ms(&self) -> u64 {
        let wall = self.clock.wall_ms();
        if planted(Planted::ClockStepsBack) {
            return wall;
        }
        wall.max(self.latest.fetch_max(wall, Ordering::AcqRel))
    }

    /// The time by which a record must have expired to be dropped from disk: `grace_ms` ago. None while a forward
    /// jump of the wall clock, larger than the grace and than a second, is fresh.
    pub(crate) fn drop_horizon(&self, grace_ms: u64) -> Option<u64> {
        let now = self.now_ms();
        let (wall, monotonic) = (self.clock.wall_ms(), self.clock.monotonic_ms());
        let mut jumps = self.jumps.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = monotonic.saturating_sub(jumps.monotonic);
        if wall.saturating_sub(jumps.wall) > passed.saturating_add(grace_ms.max(JUMP_MS_MIN)) {
            jumps.pause_until = monotonic.saturating_add(PAUSE_AFTER_JUMP_MS);
        }
        (jumps.wall, jumps.monotonic) = (wall, monotonic);
        // Time inside the store never steps back, so a wall clock that was set back must not make the horizon wrong either.
        (monotonic >= jumps.pause_until).then(|| now.min(wall).saturating_sub(grace_ms))
    }

    pub(crate) fn monotonic_ms(&self) -> u64 {
        self.clock.monotonic_ms()
    }

    pub(crate) fn wall_ms(&self) -> u64 {
        self.clock.wall_ms()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_its_expiry_a_record_is_gone() {
        assert!(!is_expired(Some(1000), 999));
        assert!(is_expired(Some(1000), 1000));
        assert!(!is_expired(None, u64::MAX));
    }

    #[test]
    fn time_in_a_store_never_steps_back() {
        let clock = ManualClock::new(5000);
        let time = StoreTime::new(Arc::new(clock.clone()));
        clock.set_wall(9000);
        assert_eq!(time.now_ms(), 9000);
        clock.set_wall(1000);
        assert_eq!(time.now_ms(), 9000);
    }

    #[test]
    fn two_clocks_that_tick_a_millisecond_apart_are_no_jump() {
        let clock = ManualClock::new(1_000_000);
        let time = StoreTime::new(Arc::new(clock.clone()));
        clock.advance(5000);
        clock.set_wall(1_005_001);
        assert_eq!(time.drop_horizon(0), Some(1_005_001));
    }

    #[test]
    fn after_a_forward_jump_nothing_is_dropped_from_disk_for_a_while() {
        let clock = ManualClock::new(1_000_000);
        let time = StoreTime::new(Arc::new(clock.clone()));
        assert_eq!(time.drop_horizon(10_000), Some(990_000));
        clock.advance(60_000);
        assert_eq!(time.drop_horizon(10_000), Some(1_050_000));
        clock.set_wall(90_000_000);
        assert_eq!(time.drop_horizon(10_000), None);
        clock.advance(PAUSE_AFTER_JUMP_MS - 1);
        assert_eq!(time.drop_horizon(10_000), None);
        clock.advance(1);
        assert!(time.drop_horizon(10_000).is_some());
    }
}
