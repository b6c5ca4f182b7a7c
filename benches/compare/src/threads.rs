//! Threads that work together, any of which may fail.

use anyhow::{Result, anyhow};
use std::time::{Duration, Instant};

/// Runs `threads` threads of the same kind and returns the time until the last one ended.
pub fn together(threads: u64, work: impl Fn(u64) -> Result<()> + Sync) -> Result<Duration> {
    let start = Instant::now();
    std::thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        running.into_iter().try_for_each(joined)
    })?;
    Ok(start.elapsed())
}

/// The result of a thread; a panic becomes an error.
pub fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread panicked"))?
}
