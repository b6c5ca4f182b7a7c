//! The rate limit of background compaction, and what ends or lifts a wait for it.

use std::time::Duration;

use super::{Compactor, Pace};
use crate::error::{Error, Result};
use crate::planted::{Planted, planted};

/// Longest sleep between two checks for the end of a wait.
const STEP_MS: u64 = 20;

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
    use super::*;

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
