//! Errors in the log: one line for each cause and minute, however many requests meet it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use embercask::{Error, ErrorKind};

use crate::planted::{Planted, planted};

/// Time for which a cause is not printed again.
const PERIOD: Duration = Duration::from_secs(60);
/// Causes that are told apart at a time; further ones count as one.
const CAUSES_MAX: usize = 100;

static LIMITER: Limiter = Limiter::new();

/// Logs an error of the store, unless its cause has been logged within the last minute.
pub(super) fn store_failed(error: &Error) {
    let cause = match error.kind() {
        // Whatever the file.
        ErrorKind::NoSpace => "no space".to_owned(),
        ErrorKind::Poisoned | ErrorKind::Closed => "writes are refused".to_owned(),
        _ => error.to_string(),
    };
    match LIMITER.admit(&cause, Instant::now()) {
        Some(0) => tracing::error!(%error, "a store operation failed"),
        Some(not_printed) => tracing::error!(%error, not_printed, "a store operation failed"),
        None => tracing::debug!(%error, "a store operation failed"),
    }
}

/// Logs that a request was aborted, in the same way.
pub(super) fn aborted(error: &dyn std::fmt::Display) {
    match LIMITER.admit("aborted", Instant::now()) {
        Some(not_printed) => tracing::error!(%error, not_printed, "a request was aborted"),
        None => tracing::debug!(%error, "a request was aborted"),
    }
}

/// Logs that a listing has met a damaged key, in the same way.
pub(super) fn damaged_in_listing(error: &Error) {
    match LIMITER.admit(&format!("listed: {error}"), Instant::now()) {
        Some(not_printed) => tracing::error!(%error, not_printed, "a listed key is damaged"),
        None => tracing::debug!(%error, "a listed key is damaged"),
    }
}

/// Logs that a connection could not be accepted, in the same way.
pub(super) fn not_accepted(error: &std::io::Error) {
    match LIMITER.admit(&format!("not accepted: {error}"), Instant::now()) {
        Some(not_printed) => tracing::warn!(%error, not_printed, "a connection could not be accepted"),
        None => tracing::debug!(%error, "a connection could not be accepted"),
    }
}

/// Logs how often errors were not printed, for causes whose minute is over, or for all.
pub(super) fn tell_not_printed(all: bool) {
    for (cause, not_printed) in LIMITER.over(Instant::now(), all) {
        tracing::error!(%cause, not_printed, "the same error was met again");
    }
}

struct Cause {
    printed: Instant,
    not_printed: u64,
}

/// Decides which errors are printed.
struct Limiter(Mutex<BTreeMap<String, Cause>>);

impl Limiter {
    const fn new() -> Limiter {
        Limiter(Mutex::new(BTreeMap::new()))
    }

    /// Whether to print an error now; if so, how many of its kind were not printed before.
    fn admit(&self, cause: &str, now: Instant) -> Option<u64> {
        if planted(Planted::LogEachError) {
            return Some(0);
        }
        let mut causes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !causes.contains_key(cause);
        let cause = if is_new && causes.len() >= CAUSES_MAX {
            "others"
        } else {
            cause
        };
        match causes.get_mut(cause) {
            Some(found) if now.saturating_duration_since(found.printed) < PERIOD => {
                found.not_printed += 1;
                None
            }
            found => {
                let not_printed = found.map_or(0, |found| found.not_printed);
                let printed = Cause {
                    printed: now,
                    not_printed: 0,
                };
                causes.insert(cause.to_owned(), printed);
                Some(not_printed)
            }
        }
    }

    /// Forgets causes whose time is over, or all, and returns those of which some were not printed.
    fn over(&self, now: Instant, all: bool) -> Vec<(String, u64)> {
        let mut causes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |cause: &Cause| all || now.saturating_duration_since(cause.printed) >= PERIOD;
        let mut over = Vec::new();
        causes.retain(|name, cause| {
            let is_over = is_over(cause);
            if is_over && cause.not_printed > 0 {
                over.push((name.clone(), cause.not_printed));
            }
            !is_over
        });
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_printed_once_a_minute_and_the_rest_is_counted() {
        let limiter = Limiter::new();
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(limiter.admit("full", at(0)), Some(0));
        assert_eq!(limiter.admit("damaged", at(1)), Some(0));
        for second in 1..60 {
            assert_eq!(limiter.admit("full", at(second)), None);
        }
        assert_eq!(limiter.over(at(59), false), []);
        assert_eq!(limiter.admit("full", at(60)), Some(59));
        assert_eq!(limiter.admit("full", at(61)), None);
        assert_eq!(limiter.over(at(62), true), [("full".to_owned(), 1)]);
        assert_eq!(limiter.over(at(300), true), []);
        // A cause that does not come up again is told when its time is over.
        limiter.admit("full", at(300));
        limiter.admit("full", at(301));
        assert_eq!(limiter.over(at(360), false), [("full".to_owned(), 1)]);
        assert_eq!(limiter.admit("full", at(361)), Some(0));
    }

    #[test]
    fn any_number_of_causes_takes_little_memory_and_few_lines() {
        let limiter = Limiter::new();
        let now = Instant::now();
        let printed = (0..10_000).filter(|number| limiter.admit(&number.to_string(), now).is_some());
        assert_eq!(printed.count(), CAUSES_MAX + 1);
        assert_eq!(limiter.over(now, true), [("others".to_owned(), 10_000 - 101)]);
    }
}
