//! What a test tells of its own run: what it had to skip, what it has visited, and that its threads
//! are to end.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

/// Says that a test, or a part of one, cannot be run on this machine; modules before its name are
/// left out. With `EMBERCASK_SKIPS` it says so in that file as well: `.ci/run` counts what is in
/// it, and knows what may be.
pub fn skip(what: &str, why: &str) {
    let what = what.rsplit("::").next().unwrap_or(what);
    println!("{what}: skipped, {why}");
    if let Some(path) = std::env::var_os("EMBERCASK_SKIPS") {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        // In one write, since other tests do the same.
        file.write_all(format!("{what}: {}\n", why.replace('\n', " ")).as_bytes())
            .unwrap();
    }
}

/// That a suite has visited what it is there for. `least` is well below what it ordinarily visits.
#[track_caller]
pub fn at_least(least: u64, visited: u64, what: &str) {
    assert!(visited >= least, "{visited} {what}, of {least} at least");
}

/// Ends the threads of a test that fails, so that it fails and does not hang.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
