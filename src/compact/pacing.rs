//! The rate limit of background compaction, and what ends or lifts a wait for it; and the waits of
//! writers that outrun compaction.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Compactor, Pace};
use crate::error::{Error, Result};
use crate::options::Maintenance;
use crate::planted::{Planted, planted};

/// Longest sleep between two checks for the end of a wait.
const STEP_MS: u64 = 20;
/// Writers wait once for this many bytes: seldom enough that the wait shows only in the slowest of
/// a thousand small puts.
const PAID_BYTES: u64 = 256 << 10;
/// Longest wait for that: 1 ms for each 64 KiB.
const PAID_MICROS_MAX: u64 = 4000;
/// Segments above the bound at which writers wait that long.
const DEBT_SEGMENTS: u64 = 2;

/// What writers wait for because compaction is behind.
#[derive(Debug, Default)]
pub(crate) struct Debt {
    /// Microseconds to wait for each [`PAID_BYTES`].
    micros: AtomicU64,
    /// Bytes written while there was debt.
    bytes: AtomicU64,
}

impl Debt {
    /// Sets the waits by the bytes above the bound: the more, the longer.
    fn set(&self, excess: u64, segment_bytes: u64) {
        let most = u128::from((DEBT_SEGMENTS * segment_bytes).max(1));
        let micros = (u128::from(excess) * u128::from(PAID_MICROS_MAX) / most).min(u128::from(PAID_MICROS_MAX));
        self.micros.store(micros as u64, Ordering::Relaxed);
    }

    /// Nothing to wait for.
    pub(super) fn clear(&self) {
        self.micros.store(0, Ordering::Relaxed);
    }

    /// Whether writers may have to wait.
    pub(crate) fn is_due(&self) -> bool {
        self.micros.load(Ordering::Relaxed) > 0
    }

    /// Called by a writer that has written this many bytes; it holds no lock. Waits if there is
    /// debt, or if sealing is behind, and it is its turn.
    pub(crate) fn pay(&self, bytes: u64, is_sealing_behind: bool) {
        let micros = match is_sealing_behind {
            true => PAID_MICROS_MAX,
            false => self.micros.load(Ordering::Relaxed),
        };
        if micros == 0 {
            return;
        }
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if is_turn(before, bytes) {
            std::thread::sleep(Duration::from_micros(micros));
        }
    }
}

/// Whether [`PAID_BYTES`] are complete with these bytes.
fn is_turn(before: u64, bytes: u64) -> bool {
    before / PAID_BYTES != (before + bytes) / PAID_BYTES
}

/// Milliseconds to wait so that a run that has copied `copied_bytes` in `passed_ms` keeps to the
/// rate. Rounded down: both are counted from the start of the run, so errors do not add up.
fn wait_ms(copied_bytes: u64, passed_ms: u64, bytes_per_second: u64) -> u64 {
    let due_ms = u128::from(copied_bytes) * 1000 / u128::from(bytes_per_second.max(1));
    u64::try_from(due_ms).unwrap_or(u64::MAX).saturating_sub(passed_ms)
}

impl Compactor {
    /// An error if a run of this pace must stop.
    pub(super) fn check_run(&self, pace: Pace) -> Result<()> {
        self.context.check_closing()?;
        self.control.check_cancelled()?;
        if pace != Pace::Forced && self.control.is_paused() {
            // Waiting would block a forced run, and a checkpoint.
            return Err(Error::Cancelled);
        }
        Ok(())
    }

    /// Lets writers wait if compaction is behind, but only if a thread compacts: otherwise waiting
    /// gains nothing.
    pub(super) fn set_debt(&self, excess: u64) {
        if self.context.options.maintenance == Maintenance::Background {
            self.debt.set(excess, self.log.segment_bytes());
        }
    }

    /// Whether the rate limit is currently lifted.
    fn is_limit_lifted(&self) -> bool {
        self.control.is_waited_for() || self.is_overdue() || planted(Planted::IgnoreRate)
    }

    /// Waits until a run of this pace that has copied `copied_bytes` since `since_ms` of the
    /// monotonic clock keeps to the rate limit; an error if the run must stop.
    pub(super) fn keep_pace(&self, copied_bytes: u64, since_ms: u64, pace: Pace) -> Result<()> {
        loop {
            self.check_run(pace)?;
            let wait_ms = match self.context.options.compaction_bytes_per_second {
                Some(rate) if pace == Pace::Throttled => {
                    let passed_ms = self.context.time.monotonic_ms().saturating_sub(since_ms);
                    wait_ms(copied_bytes, passed_ms, rate)
                }
                _ => 0,
            };
            if wait_ms == 0 || self.is_limit_lifted() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(wait_ms.min(STEP_MS)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Store;
    use crate::storage::MemStorage;

    /// Waiting gains nothing where no thread compacts.
    #[test]
    fn writers_wait_only_for_a_thread_that_compacts() {
        let owes = |maintenance| {
            let options = Store::options().maintenance(maintenance);
            let store = options.storage(Arc::new(MemStorage::new())).open("/store").unwrap();
            let compactor = &store.engine().compactor;
            // The thread may find that there is none, at any moment.
            (0..10_000).any(|_| {
                compactor.set_debt(u64::MAX);
                compactor.debt.micros.load(Ordering::Relaxed) == PAID_MICROS_MAX
            })
        };
        assert!(owes(Maintenance::Background));
        assert!(!owes(Maintenance::Manual));
    }

    #[test]
    fn writers_wait_the_longer_the_further_compaction_is_behind() {
        let debt = Debt::default();
        let micros = || debt.micros.load(Ordering::Relaxed);
        for (excess, expected) in [
            (0, 0),
            (1, 2),
            (500, 1000),
            (1000, 2000),
            (2000, 4000),
            (u64::MAX, 4000),
        ] {
            debt.set(excess, 1000);
            assert_eq!(micros(), expected, "{excess}");
        }
        debt.set(1, 0);
        assert_eq!(micros(), 4000);
        // Once for each 256 KiB, whatever the pieces.
        assert!(is_turn(0, PAID_BYTES) && is_turn(PAID_BYTES - 1, 1) && is_turn(7, 3 * PAID_BYTES));
        assert!(!is_turn(0, PAID_BYTES - 1) && !is_turn(PAID_BYTES, 1) && !is_turn(PAID_BYTES - 1, 0));
        debt.pay(PAID_BYTES - 1, false);
        debt.clear();
        assert_eq!(micros(), 0);
        debt.pay(PAID_BYTES, false);
        assert_eq!(debt.bytes.load(Ordering::Relaxed), PAID_BYTES - 1);
        // Sealing that is behind is paid for without any debt.
        debt.pay(PAID_BYTES, true);
        assert_eq!(debt.bytes.load(Ordering::Relaxed), 2 * PAID_BYTES - 1);
    }

    #[test]
    fn a_run_waits_for_as_long_as_it_is_ahead_of_the_rate() {
        let mib = 1 << 20;
        for (copied_bytes, passed_ms, bytes_per_second, expected_ms) in [
            (0, 0, mib, 0),
            (mib, 0, mib, 1000),
            (mib, 400, mib, 600),
            (mib, 999, mib, 1),
            (mib, 1000, mib, 0),
            (mib, 5000, mib, 0),
            (3 * mib, 1000, mib, 2000),
            (mib, 0, 2 * mib, 500),
            (1, 0, 1, 1000),
            // Less than a millisecond is not waited for, until it adds up to one.
            (1, 0, 1001, 0),
            (1001, 0, 1_001_000, 1),
            (mib, 0, u64::MAX, 0),
            // No overflow.
            (u64::MAX, 0, 1, u64::MAX),
            (u64::MAX, u64::MAX, 1, 0),
        ] {
            assert_eq!(
                wait_ms(copied_bytes, passed_ms, bytes_per_second),
                expected_ms,
                "{copied_bytes} bytes in {passed_ms} ms at {bytes_per_second} bytes per second"
            );
        }
    }
}
