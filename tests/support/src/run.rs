//! What a test reports about its own run (skipped parts, visit counts), and a signal that ends its
//! threads.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

/// Reports that a test, or a part of one, cannot run on this machine; modules before its name are
/// left out. With `EMBERCASK_SKIPS` it is also appended to that file, which `.ci/run` compares with
/// the allowed skips.
pub fn skip(what: &str, why: &str) {
    let what = what.rsplit("::").next().unwrap_or(what);
    println!("{what}: skipped, {why}");
    if let Some(path) = std::env::var_os("EMBERCASK_SKIPS") {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        // In one write, since other tests append too.
        file.write_all(format!("{what}: {}\n", why.replace('\n', " ")).as_bytes())
            .unwrap();
    }
}

/// Asserts that a suite has visited what it is for. `least` is well below the usual count.
#[track_caller]
pub fn at_least(least: u64, visited: u64, what: &str) {
    assert!(visited >= least, "{visited} {what}, expected at least {least}");
}

/// Stops the threads of a failing test, so that it fails instead of hanging.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
