//! Futures without a runtime.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

struct Unpark(AtomicUsize, Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        self.1.unpark();
    }
}

/// Polls once; no wake-up is noticed.
pub fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs a future to its end on this thread. Polls again only after a wake-up: one that is lost
/// makes it hang.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let unpark = Arc::new(Unpark(AtomicUsize::new(0), std::thread::current()));
    let waker = Waker::from(unpark.clone());
    let mut future = pin!(future);
    loop {
        let woken = unpark.0.load(Ordering::SeqCst);
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        while unpark.0.load(Ordering::SeqCst) == woken {
            std::thread::park();
        }
    }
}
