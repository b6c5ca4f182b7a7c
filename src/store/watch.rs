//! Watching a namespace: its changes, told in the order of the log.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use super::Namespace;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::log::{Event, Queue};

/// Events that wait, unless the options say otherwise.
const CAPACITY: usize = 1024;

/// Settings of [`Namespace::watch_with`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct WatchOptions {
    capacity: usize,
    values: bool,
}

impl Default for WatchOptions {
    fn default() -> WatchOptions {
        WatchOptions {
            capacity: CAPACITY,
            values: false,
        }
    }
}

impl WatchOptions {
    /// 1,024 events, and no values.
    pub fn new() -> WatchOptions {
        WatchOptions::default()
    }

    /// Most events that wait to be taken; at least 1. Those that come while this many wait are left
    /// out, and one [`Event::Missed`] takes their place. A waiting event takes about 120 bytes and
    /// its key.
    pub fn capacity(mut self, events: usize) -> WatchOptions {
        self.capacity = events;
        self
    }

    /// Whether a put is told with its value and metadata. They are not copied: a value that waits
    /// keeps the memory of its segment, as each [`Value`](crate::Value) does, so those that wait
    /// may be of one segment or of 256 MiB of segments, and what comes later is left out as if it
    /// exceeded the capacity.
    pub fn values(mut self, values: bool) -> WatchOptions {
        self.values = values;
        self
    }
}

/// The changes of a namespace from one moment on, those of keys with a prefix, in the order of the
/// log. Made by [`Namespace::watch`].
///
/// A blocking iterator, which ends once the store is closed or the namespace dropped. It can also
/// be asked without waiting, or for a limited time, and it is a source of futures that need no
/// runtime.
///
/// Told is what can no longer be rolled back by a failed write-out. That does not make it durable:
/// like a read, an event may show what a crash of the process or a power cut still takes away, by
/// the [`Durability`](crate::Durability) of its write. What was acknowledged has been told when the
/// call returns.
///
/// The records of a batch and of a transaction follow each other, each with a sequence of its own.
/// Renaming the namespace is no change. Of a store that refuses writes after a failure nothing more
/// is told, but the watcher still waits for it to be closed.
///
/// No writer waits for a watcher. One that lags by more than its
/// [capacity](WatchOptions::capacity) keeps the oldest events, and then finds one [`Event::Missed`]
/// for all that was left out until it took that.
///
/// To keep a copy of the namespace up to date: first watch, then take a
/// [snapshot](crate::Store::snapshot) and read it, then apply the events. Ignore puts and deletes
/// with a sequence up to that of the snapshot, and an [`Event::Expired`] unless the copy has the
/// put of that sequence. After [`Event::Missed`], take another snapshot and read it again.
///
/// It does not keep the store open. While a watcher exists, writes to all namespaces of the store
/// are read once more in memory.
pub struct Watch {
    queue: Arc<Queue>,
    context: Arc<Context>,
    sequence: u64,
}

impl Namespace {
    /// Watches the keys that begin with this prefix; all keys if it is empty.
    ///
    /// # Errors
    ///
    /// [`Error::NamespaceNotFound`] if the namespace was dropped, [`Error::Closed`], and
    /// [`Error::ReadOnly`].
    pub fn watch(&self, prefix: impl AsRef<[u8]>) -> Result<Watch> {
        self.watch_with(prefix, WatchOptions::new())
    }

    /// Watches with these options. Fails like [`Namespace::watch`], and with
    /// [`Error::InvalidInput`] if the capacity is 0.
    pub fn watch_with(&self, prefix: impl AsRef<[u8]>, options: WatchOptions) -> Result<Watch> {
        let engine = self.writer()?;
        self.check()?;
        if options.capacity == 0 {
            return Err(Error::invalid(
                "the capacity of a watch is 0; a watcher needs room for one event at least",
            ));
        }
        let queue = Arc::new(Queue::new(prefix.as_ref(), options.values, options.capacity));
        let sequence = engine.log.watch(&self.state, &queue)?;
        Ok(Watch {
            queue,
            context: engine.context.clone(),
            sequence,
        })
    }
}

impl Watch {
    /// Sequence of the newest write before watching began: all changes after it are told, and none
    /// before, except that keys put before it may expire.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// In a process forked from the one that opened the store there is nothing to wait for, and the
    /// queue may have been locked by a thread that does not exist here.
    fn is_forked(&self) -> bool {
        !self.context.is_of_this_process()
    }

    /// The next event, if one waits.
    pub fn try_next(&mut self) -> Option<Event> {
        if self.is_forked() {
            return None;
        }
        self.queue.try_take()
    }

    /// The next event; waits for it for at most this time. `None` after that time, and once there
    /// are no more: [`Watch::is_ended`] tells. Not to be called from within a function that the
    /// store calls, such as a condition: what it waits for may wait for that function to end.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Event> {
        if self.is_forked() {
            return None;
        }
        self.queue.take_within(timeout)
    }

    /// The next event, as a future: `None` once there are no more. It works with any runtime; an
    /// event is not lost if the future is dropped before it is ready.
    ///
    /// The task is woken by the thread that writes, under the lock of the writers: calls
    /// of a store by its waker are refused. Those of runtimes only put the task into a queue.
    pub fn next_async(&mut self) -> impl Future<Output = Option<Event>> + Send + '_ {
        poll_fn(|context| self.poll_next(context))
    }

    /// What [`Watch::next_async`] polls, for those who build a stream of it.
    pub fn poll_next(&mut self, context: &mut task::Context<'_>) -> Poll<Option<Event>> {
        if self.is_forked() {
            return Poll::Ready(None);
        }
        self.queue.poll_take(context)
    }

    /// Whether there are no more events, since the store was closed or the namespace dropped, and
    /// all were taken.
    pub fn is_ended(&self) -> bool {
        self.is_forked() || self.queue.is_over()
    }
}

impl Iterator for Watch {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        if self.is_forked() {
            return None;
        }
        self.queue.take()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.is_forked() {
            self.queue.clear();
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}
