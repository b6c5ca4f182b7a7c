//! What one watcher has not taken yet.
//!
//! The writers put events in, under the writer lock, and never wait for room: what does not fit is
//! left out, and one event in its place says so. The watcher takes them out, and sleeps while there
//! are none: a thread on the condition variable, a task by its waker.
//!
//! No wakeup is lost: whether there is an event, whether the queue has ended, and the waker are
//! under one mutex. So an event comes either before the watcher looks, or after it has left its
//! waker or begun to wait.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::Event;
use crate::callback;
use crate::planted::{Planted, planted};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Most bytes of segments that the values in a queue keep in memory, or mapped, if they are of
/// several segments.
const HELD_BYTES_MAX: u64 = 256 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct Queue {
    /// Of the keys to be told of.
    pub(super) prefix: Box<[u8]>,
    /// Whether values are told.
    pub(super) values: bool,
    /// Most events that wait.
    capacity: usize,
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    events: VecDeque<Event>,
    /// The segments that their values are in, the oldest first.
    held: VecDeque<Held>,
    /// Events behind these were left out, the last with this sequence. Until the watcher is told,
    /// all others are left out, too.
    missed: Option<u64>,
    /// Sequence of the drop of the namespace.
    dropped: Option<u64>,
    /// No event follows.
    ended: bool,
    /// Whether the watcher must be woken.
    has_news: bool,
    waker: Option<Waker>,
}

/// A segment that values in a queue are in.
#[derive(Debug)]
struct Held {
    segment_id: u64,
    /// Its bytes when the last of them was added.
    bytes: u64,
    values: usize,
}

impl Inner {
    fn take(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            if matches!(event, Event::Put { value: Some(_), .. })
                && let Some(oldest) = self.held.front_mut()
            {
                oldest.values -= 1;
                if oldest.values == 0 {
                    self.held.pop_front();
                }
            }
            return Some(event);
        }
        if let Some(up_to) = self.missed.take()
            && !planted(Planted::ForgetMissed)
        {
            return Some(Event::Missed { up_to });
        }
        self.dropped.take().map(|sequence| Event::Dropped { sequence })
    }

    /// Whether there is room for an event with a value in the segment with this id and this many
    /// bytes; None without a value.
    fn has_room(&self, capacity: usize, value_in: Option<(u64, u64)>) -> bool {
        if self.missed.is_some() || self.events.len() >= capacity {
            return false;
        }
        let another = value_in.filter(|(id, _)| self.held.back().is_some_and(|last| last.segment_id != *id));
        another.is_none_or(|(_, bytes)| {
            let held: u64 = self.held.iter().map(|held| held.bytes).sum();
            held + bytes <= HELD_BYTES_MAX
        })
    }

    fn hold(&mut self, segment_id: u64, bytes: u64) {
        match self.held.back_mut().filter(|last| last.segment_id == segment_id) {
            Some(last) => {
                last.bytes = bytes;
                last.values += 1;
            }
            None => self.held.push_back(Held {
                segment_id,
                bytes,
                values: 1,
            }),
        }
    }

    /// Notes that the watcher must be woken; true if that was not noted yet.
    fn note_news(&mut self) -> bool {
        !std::mem::replace(&mut self.has_news, true)
    }
}

impl Queue {
    pub(crate) fn new(prefix: &[u8], values: bool, capacity: usize) -> Queue {
        Queue {
            prefix: prefix.into(),
            values,
            capacity,
            inner: Mutex::new(Inner::default()),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the event of this sequence if there is room; if it has a value, that is in the segment
    /// with this id and this many bytes. `make` is told whether to add the value. Returns whether
    /// the caller has to [`wake`](Queue::wake) the watcher once it has added what there is.
    pub(super) fn add(&self, sequence: u64, value_in: Option<(u64, u64)>, make: impl FnOnce(bool) -> Event) -> bool {
        let value_in = value_in.filter(|_| self.values);
        let mut inner = self.lock();
        if inner.has_room(self.capacity, value_in) {
            let event = make(self.values);
            if let Some((id, bytes)) = value_in
                && matches!(event, Event::Put { value: Some(_), .. })
            {
                inner.hold(id, bytes);
            }
            inner.events.push_back(event);
        } else {
            let missed = inner.missed.get_or_insert(sequence);
            *missed = (*missed).max(sequence);
        }
        inner.note_news()
    }

    /// Adds the drop of the namespace, for which there is always room, and ends the queue.
    pub(super) fn end_by_drop(&self, sequence: u64) {
        let mut inner = self.lock();
        inner.dropped = Some(sequence);
        inner.ended = true;
        drop(inner);
        self.wake();
    }

    /// Ends the queue: what is in it can still be taken.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.wake();
    }

    /// Drops all that is in it, for a watcher that takes no more.
    pub(crate) fn clear(&self) {
        let rest = std::mem::take(&mut *self.lock());
        drop(rest);
    }

    /// Wakes the watcher.
    pub(super) fn wake(&self) {
        let mut inner = self.lock();
        inner.has_news = false;
        let waker = inner.waker.take();
        drop(inner);
        if planted(Planted::LoseWakeup) {
            return;
        }
        self.changed.notify_all();
        if let Some(waker) = waker {
            // It is the user's. A panic of it must not end the writer that has something to tell,
            // and a call of the store would wait for that writer.
            let _ = catch_unwind(AssertUnwindSafe(|| callback::run(|| waker.wake())));
        }
    }

    /// The next event, if there is one.
    pub(crate) fn try_take(&self) -> Option<Event> {
        self.lock().take()
    }

    /// Waits for the next event; None once the queue has ended and nothing is in it.
    pub(crate) fn take(&self) -> Option<Event> {
        let mut inner = self.lock();
        loop {
            if let Some(event) = inner.take() {
                return Some(event);
            }
            if inner.ended {
                return None;
            }
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for the next event for at most this time.
    pub(crate) fn take_within(&self, timeout: Duration) -> Option<Event> {
        // Without an end if the time is longer than the system can tell.
        let Some(until) = Instant::now().checked_add(timeout) else {
            return self.take();
        };
        let mut inner = self.lock();
        loop {
            if let Some(event) = inner.take() {
                return Some(event);
            }
            let left = until.saturating_duration_since(Instant::now());
            if inner.ended || left.is_zero() {
                return None;
            }
            let (again, _) = self
                .changed
                .wait_timeout(inner, left)
                .unwrap_or_else(PoisonError::into_inner);
            inner = again;
        }
    }

    /// The next event; without one, the task is woken when there is.
    pub(crate) fn poll_take(&self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut inner = self.lock();
        if let Some(event) = inner.take() {
            return Poll::Ready(Some(event));
        }
        if inner.ended {
            return Poll::Ready(None);
        }
        match &mut inner.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Whether nothing is in it and nothing will be.
    pub(crate) fn is_over(&self) -> bool {
        let inner = self.lock();
        inner.ended && inner.events.is_empty() && inner.missed.is_none() && inner.dropped.is_none()
    }
}

#[cfg(all(test, shuttle))]
mod interleavings;
#[cfg(test)]
mod tests;
