//! The watchers of the store's namespaces, and what they are told.
//!
//! Nothing is noted when a record is appended. Whenever more of the active segment can no longer be
//! rolled back, since it was written out or acknowledged, the records in that part are read again
//! from the buffer, under the same hold of the writer lock, and each is told to the watchers of its
//! namespace whose prefix its key has. So:
//!
//! * **Nothing is told that a failed write-out can take back**, and a roll-back has nothing to take
//!   out of here.
//! * **The order is that of the log**, for all watchers.
//! * **Without watchers a write pays one test**, whether there are any.
//!
//! A segment is told to its end before it is rotated out, since all of it is written out then. What
//! expires has no record. It is told where the log ended when it left the indexes, behind its put
//! and before all later records of its key.

mod event;
mod queue;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

pub use self::event::Event;
pub(crate) use self::queue::Queue;
use super::{Guard, Log};
use crate::error::{Error, Result};
use crate::format::record::{Header, Record};
use crate::format::segment::{Mark, SEGMENT_HEADER_LEN};
use crate::index::namespaces::{NamespaceState, SYSTEM_NAMESPACE, decode_number};
use crate::planted::{Planted, planted};
use crate::segment::Segment;
use crate::state::Expired;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    by_namespace: HashMap<u32, Vec<Arc<Queue>>>,
    /// What comes before this place in the log has been told, or need not be.
    told: Mark,
    /// What has expired and was not told yet, with the place of the end of the log at that moment;
    /// the oldest first.
    expired: VecDeque<(Mark, Expired)>,
    /// Told later, within the same hold of the lock.
    held_back: bool,
    /// The store is closed.
    ended: bool,
}

impl Watchers {
    /// Whether there may be any.
    #[inline]
    pub(super) fn are_any(&self) -> bool {
        !self.by_namespace.is_empty()
    }

    /// Begins to tell what comes after this place.
    pub(super) fn begin(&mut self, place: Mark) {
        self.told = place;
        self.expired.clear();
    }

    /// Tells what comes before this offset of the active segment; what has expired, all of it if
    /// there is no active segment.
    pub(super) fn tell(&mut self, active: Option<&Segment>, firm_end: u64) {
        if self.held_back {
            return;
        }
        let mut news = Vec::new();
        if let Some(segment) = active {
            self.tell_records(segment, firm_end, &mut news);
        }
        self.tell_expired(
            |place| active.is_none_or(|active| is_before(place, active, firm_end)),
            &mut news,
        );
        for queue in news {
            queue.wake();
        }
    }

    fn tell_records(&mut self, segment: &Segment, firm_end: u64, news: &mut Vec<Arc<Queue>>) {
        let mut offset = match self.told.segment_id == segment.id() {
            true => self.told.offset,
            false => SEGMENT_HEADER_LEN,
        };
        if offset < firm_end {
            self.forget_gone();
        }
        while offset < firm_end {
            self.tell_expired(|place| is_before(place, segment, offset), news);
            let mut unused = Vec::new();
            // In the append buffer, as all of the active segment is.
            let Ok(record) = segment.record(offset, &mut unused) else {
                break;
            };
            self.tell_record(segment, offset, &record, news);
            offset += record.header.record_len();
        }
        self.told = Mark {
            segment_id: segment.id(),
            offset,
        };
    }

    fn tell_record(&mut self, segment: &Segment, offset: u64, record: &Record<'_>, news: &mut Vec<Arc<Queue>>) {
        let header = &record.header;
        if header.namespace == SYSTEM_NAMESPACE {
            if header.kind.is_tombstone()
                && let Ok(number) = decode_number(record.key())
            {
                for queue in self.by_namespace.remove(&number).unwrap_or_default() {
                    queue.end_by_drop(header.sequence);
                }
            }
            return;
        }
        if !header.kind.is_put() && !header.kind.is_tombstone() {
            return;
        }
        let Some(queues) = self.by_namespace.get(&header.namespace) else {
            return;
        };
        let key = record.key();
        for queue in queues.iter().filter(|queue| key.starts_with(&queue.prefix)) {
            let value_in = header.kind.is_put().then(|| (segment.id(), segment.data_end()));
            let make = |with_value| event_of(segment, offset, (header, key), with_value);
            if queue.add(header.sequence, value_in, make) {
                news.push(queue.clone());
            }
        }
    }

    /// Tells what has expired, up to the first of which the place is not firm.
    fn tell_expired(&mut self, is_firm: impl Fn(&Mark) -> bool, news: &mut Vec<Arc<Queue>>) {
        while self.expired.front().is_some_and(|(place, _)| is_firm(place))
            && let Some((_, expired)) = self.expired.pop_front()
        {
            let queues = self.by_namespace.get(&expired.namespace).into_iter().flatten();
            for queue in queues.filter(|queue| expired.key.starts_with(&queue.prefix)) {
                let make = |_| Event::Expired {
                    key: expired.key.to_vec(),
                    sequence: expired.sequence,
                };
                if queue.add(expired.sequence, None, make) {
                    news.push(queue.clone());
                }
            }
        }
    }

    /// Records after this sequence, which ended at this place, were rolled back.
    pub(super) fn forget_after(&mut self, sequence: u64, end: Mark) {
        if !planted(Planted::TellRolledBackExpiry) {
            self.expired.retain(|(_, expired)| expired.sequence <= sequence);
        }
        for (place, _) in &mut self.expired {
            if place.segment_id == end.segment_id {
                place.offset = place.offset.min(end.offset);
            }
        }
    }

    /// Forgets watchers that were dropped.
    fn forget_gone(&mut self) {
        self.by_namespace.retain(|_, queues| {
            queues.retain(|queue| Arc::strong_count(queue) > 1);
            !queues.is_empty()
        });
    }
}

/// Whether a place in the log is at or before this offset of the active segment.
fn is_before(place: &Mark, active: &Segment, offset: u64) -> bool {
    place.segment_id != active.id() || place.offset <= offset || planted(Planted::TellOutOfOrder)
}

fn event_of(segment: &Segment, offset: u64, (header, key): (&Header, &[u8]), with_value: bool) -> Event {
    let (key, sequence) = (key.to_vec(), header.sequence);
    if header.kind.is_tombstone() {
        return Event::Delete { key, sequence };
    }
    let value = with_value.then(|| segment.value(offset, |_| true).ok().flatten());
    Event::Put {
        key,
        sequence,
        expiry_ms: header.expiry,
        value: value.flatten(),
    }
}

impl Log {
    /// Tells this queue of all changes of the namespace that can be rolled back now, once they no
    /// longer can, and of all later ones. Returns the sequence of the newest change before those.
    pub(crate) fn watch(&self, namespace: &NamespaceState, queue: &Arc<Queue>) -> Result<u64> {
        let mut guard = self.lock();
        if guard.tail.watchers.ended {
            return Err(Error::Closed);
        }
        namespace.check_present()?;
        guard.tail.watchers.forget_gone();
        if !guard.tail.watchers.are_any() {
            guard.tail.begin_telling();
            self.state.note_expired(true);
        }
        let queues = guard.tail.watchers.by_namespace.entry(namespace.number).or_default();
        queues.push(queue.clone());
        Ok(guard.tail.firm_sequence(guard.last_sequence))
    }

    /// Tells what has expired since the last call. Called under the hold of the lock under which it
    /// has left the indexes.
    pub(crate) fn tell_expired(&self, guard: &mut Guard<'_>) {
        let expired = self.state.take_expired();
        if expired.is_empty() {
            return;
        }
        let place = guard.tail.end();
        let watchers = &mut guard.tail.watchers;
        watchers.forget_gone();
        if !watchers.are_any() {
            self.state.note_expired(false);
            return;
        }
        watchers
            .expired
            .extend(expired.into_iter().map(|expired| (place, expired)));
        guard.tail.tell();
    }

    /// Runs `work`, and tells what it has made firm only after it.
    pub(super) fn tell_after<'a, T>(&self, guard: &mut Guard<'a>, work: impl FnOnce(&mut Guard<'a>) -> T) -> T {
        guard.tail.watchers.held_back = true;
        let done = work(guard);
        guard.tail.watchers.held_back = false;
        if guard.tail.watchers.are_any() {
            guard.tail.tell();
        }
        done
    }

    /// Ends what all watchers are told: the store is closed.
    pub(crate) fn end_watching(&self) {
        let mut guard = self.lock();
        guard.tail.watchers.ended = true;
        let watched = std::mem::take(&mut guard.tail.watchers.by_namespace);
        drop(guard);
        if !planted(Planted::ForgetWatchersAtClosing) {
            watched.into_values().flatten().for_each(|queue| queue.end());
        }
    }
}

#[cfg(test)]
mod tests;
