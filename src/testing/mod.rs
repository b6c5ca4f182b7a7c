//! For tests and fuzz targets of this package and of the command's: waiting for events instead of
//! for time to pass, decoding fuzzer input, repairing checksums, and replaying a corpus.

#[allow(clippy::indexing_slicing, reason = "reads are bounded by the input's length")]
pub mod input;
#[allow(clippy::indexing_slicing, reason = "a panic reports what is wrong with the input")]
pub mod repair;
#[allow(clippy::unwrap_used, reason = "a panic reports what is wrong with the corpus")]
pub mod replay;

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Longer than anything takes even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `is_so` holds, however slow the machine is. If it never does, the test fails instead
/// of hanging.
///
/// # Panics
///
/// After a minute.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let patience = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < patience, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

/// A thread as seen by the system, to tell whether it is blocked. So a test that a thread must not
/// proceed needs no sleep.
#[derive(Clone, Debug)]
pub struct Task {
    status: PathBuf,
}

impl Task {
    /// The calling thread.
    #[must_use]
    pub fn current() -> Task {
        // A link to the thread that reads it.
        let thread = std::fs::read_link("/proc/thread-self").unwrap_or_default();
        Task {
            status: PathBuf::from("/proc").join(thread).join("status"),
        }
    }

    /// Whether the thread sleeps, and has not been awake between two checks. False for a thread
    /// that has ended. Where the system does not tell, true for every thread, so tests detect less.
    #[must_use]
    pub fn waits(&self) -> bool {
        if !cfg!(target_os = "linux") {
            return true;
        }
        let before = self.slept();
        std::thread::yield_now();
        before.is_some() && self.slept() == before
    }

    /// Number of times the thread has gone to sleep, if it sleeps now.
    fn slept(&self) -> Option<u64> {
        let status = std::fs::read_to_string(&self.status).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let sleeps = field("State:")?.trim_start().starts_with('S');
        let times = field("voluntary_ctxt_switches:")?.trim().parse().ok()?;
        sleeps.then_some(times)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn a_thread_that_waits_is_told_from_one_that_works_and_one_that_has_ended() {
        let (let_go, wait) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            tell.send(Task::current()).unwrap();
            wait.recv().unwrap();
        });
        let task = told.recv().unwrap();
        assert!(!Task::current().waits());
        until("it waits", || task.waits());
        let_go.send(()).unwrap();
        thread.join().unwrap();
        until("it has ended", || !task.waits());
    }
}
