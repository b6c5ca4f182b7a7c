//! The result of work on another thread, as a future.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{self, Poll, Waker};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::sync::lock;

/// A promise of a result, and where the result is waited for.
pub(super) fn promise<T>(context: &Arc<Context>) -> (Promise<T>, Outcome<T>) {
    let shared = Arc::new(Mutex::new(Shared {
        result: None,
        is_over: false,
        waker: None,
    }));
    let outcome = Outcome {
        shared: shared.clone(),
        context: context.clone(),
    };
    (Promise { shared }, outcome)
}

#[derive(Debug)]
struct Shared<T> {
    result: Option<T>,
    /// Whether there will be no other result.
    is_over: bool,
    waker: Option<Waker>,
}

/// Kept by the thread that does the work. Dropped without a result, as by a panic, it is broken,
/// and the waiting end gets an error.
#[derive(Debug)]
pub(super) struct Promise<T> {
    shared: Arc<Mutex<Shared<T>>>,
}

impl<T> Promise<T> {
    pub(super) fn keep(self, result: T) {
        lock(&self.shared).result = Some(result);
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        shared.is_over = true;
        let waker = shared.waker.take();
        drop(shared);
        if let Some(waker) = waker {
            // It is the user's: a panic of it must not end this thread, which has more to do.
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }
}

/// Ready once the work is done. If it is dropped before, the work is done all the same, or not at
/// all.
#[derive(Debug)]
pub(crate) struct Outcome<T> {
    shared: Arc<Mutex<Shared<T>>>,
    context: Arc<Context>,
}

impl<T> Future for Outcome<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Result<T>> {
        // In a forked process no thread does the work, and one that is not there may hold the lock.
        self.context.check_process()?;
        let mut shared = lock(&self.shared);
        if let Some(result) = shared.result.take() {
            return Poll::Ready(Ok(result));
        }
        if shared.is_over {
            return Poll::Ready(Err(Error::Poisoned {
                cause: "a thread of the store panicked, or could not be started".to_owned(),
            }));
        }
        match &mut shared.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}
