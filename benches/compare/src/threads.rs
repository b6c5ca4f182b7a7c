//! Threads that work together and of which one may fail.

use anyhow::{Result, anyhow};
use std::time::{Duration, Instant};

/// Runs so many threads of the same kind and says how long it took until the last one ended.
pub fn together(threads: u64, work: impl Fn(u64) -> Result<()> + Sync) -> Result<Duration> {
    let start = Instant::now();
    std::thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        running.into_iter().try_for_each(joined)
    })?;
    Ok(start.elapsed())
}

/// What a thread returned; its panic is an error like any other.
pub fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread panicked"))?
}
