//! Work for a thread that exists while there is any.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::engine::Engine;
use crate::error::Error;
use crate::sync::lock;

/// How long a thread waits for more to do before it ends.
const IDLE: Duration = Duration::from_secs(5);

pub(super) struct Queue<J> {
    inner: Mutex<Inner<J>>,
    changed: Condvar,
}

struct Inner<J> {
    jobs: Vec<J>,
    has_thread: bool,
    /// Then the thread does not wait for more.
    ended: bool,
}

impl<J> Default for Queue<J> {
    fn default() -> Queue<J> {
        Queue {
            inner: Mutex::new(Inner {
                jobs: Vec::new(),
                has_thread: false,
                ended: false,
            }),
            changed: Condvar::new(),
        }
    }
}

impl<J: Send + 'static> Queue<J> {
    /// Adds a job for a thread that hands all jobs there are to `run`, and then those that have
    /// come meanwhile. Starts it, under this name, if there is none; if that fails, all jobs are
    /// dropped.
    pub(super) fn push(
        self: &Arc<Self>,
        job: J,
        engine: &Arc<Engine>,
        name: &'static str,
        run: fn(&Arc<Engine>, Vec<J>),
    ) {
        let mut inner = lock(&self.inner);
        inner.jobs.push(job);
        if inner.has_thread {
            drop(inner);
            self.changed.notify_one();
            return;
        }
        let (queue, for_thread) = (self.clone(), engine.clone());
        let serve = move || {
            while let Some(jobs) = queue.take() {
                if catch_unwind(AssertUnwindSafe(|| run(&for_thread, jobs))).is_err() {
                    // As in the store's other threads: refuse writes rather than risk wrong ones.
                    let cause = Error::Poisoned {
                        cause: "a thread for asynchronous calls panicked".to_owned(),
                    };
                    for_thread.log.poison(&mut for_thread.log.lock(), &cause);
                }
            }
        };
        match std::thread::Builder::new().name(name.to_owned()).spawn(serve) {
            Ok(_) => inner.has_thread = true,
            Err(error) => {
                let dropped = std::mem::take(&mut inner.jobs);
                drop(inner);
                let error = Error::io("start a thread for", engine.context.path(), error);
                engine.context.events.note_background_error(&error);
                drop(dropped);
            }
        }
    }

    /// All jobs there are; waits for some. None if the thread is to end.
    fn take(&self) -> Option<Vec<J>> {
        let mut inner = lock(&self.inner);
        let mut has_waited = false;
        loop {
            if !inner.jobs.is_empty() {
                return Some(std::mem::take(&mut inner.jobs));
            }
            if inner.ended || has_waited {
                inner.has_thread = false;
                return None;
            }
            let (again, timeout) = self
                .changed
                .wait_timeout(inner, IDLE)
                .unwrap_or_else(PoisonError::into_inner);
            (inner, has_waited) = (again, timeout.timed_out());
        }
    }

    /// The thread ends once nothing is left to do.
    pub(super) fn end(&self) {
        lock(&self.inner).ended = true;
        self.changed.notify_one();
    }
}

impl<J> fmt::Debug for Queue<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}
