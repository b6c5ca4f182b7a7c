//! Work on many items, on as many threads as the machine has.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::Result;
use crate::sync::lock;

/// Runs `work` on every item, on as many threads as the machine has, and returns the results in
/// order, or the first error in that order.
pub(crate) fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(items.len());
    if threads <= 1 {
        return items.iter().map(work).collect();
    }
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let results: Vec<Mutex<Option<Result<R>>>> = items.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let (Some(item), Some(slot)) = (items.get(index), results.get(index)) else {
                        return;
                    };
                    let result = work(item);
                    if result.is_err() {
                        failed.store(true, Ordering::Relaxed);
                    }
                    *lock(slot) = Some(result);
                }
            });
        }
    });
    let mut done = Vec::with_capacity(items.len());
    let mut first_error = None;
    for result in results {
        match result.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some(Ok(value)) => done.push(value),
            Some(Err(error)) => first_error = first_error.or(Some(error)),
            // Not started, because another one failed.
            None => {}
        }
    }
    match first_error {
        Some(error) => Err(error),
        None => Ok(done),
    }
}
