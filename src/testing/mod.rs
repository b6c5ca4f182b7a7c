//! For tests and fuzz targets, of this package and of the command's: waiting for events and not for
//! time to pass, what a fuzzer's bytes mean, checksums put right, and the replay of a corpus.

#[allow(clippy::indexing_slicing, reason = "inputs are cut where they end")]
pub mod input;
#[allow(clippy::indexing_slicing, reason = "a panic tells what is wrong with the input")]
pub mod repair;
#[allow(clippy::unwrap_used, reason = "a panic tells what is wrong with the corpus")]
pub mod replay;

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Longer than anything takes on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until it is so, however slow the machine is; what never comes fails the test, which does
/// not hang.
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

/// A thread, as the system knows it: tells whether it waits for another one. So a test that a
/// thread must not go on needs no sleep.
#[derive(Clone, Debug)]
pub struct Task {
    status: PathBuf,
}

impl Task {
    /// The thread that calls.
    #[must_use]
    pub fn current() -> Task {
        // A link to the thread that looks at it.
        let thread = std::fs::read_link("/proc/thread-self").unwrap_or_default();
        Task {
            status: PathBuf::from("/proc").join(thread).join("status"),
        }
    }

    /// Whether it sleeps, and has not been awake between two looks. A thread that has ended does
    /// not. Where the system does not tell, every thread waits, and a test sees less.
    #[must_use]
    pub fn waits(&self) -> bool {
        if !cfg!(target_os = "linux") {
            return true;
        }
        let before = self.slept();
        std::thread::yield_now();
        before.is_some() && self.slept() == before
    }

    /// How often it has gone to sleep, if it sleeps.
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
