//! The expiry queue: which records expire when, so that their index entries are freed even if their
//! keys are never read.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::location::Location;
use crate::planted::{Planted, planted};

/// When a record expires, and where it is.
pub(crate) type Entry = (u64, Location);

/// Locations of records with an expiry, the earliest first. An entry whose record was overwritten,
/// deleted or moved is stale; it stays until it is due or until a cleaning removes it. The keydir
/// tells which entries are stale.
///
/// Entries taken out for processing still count as queued until they are given back: otherwise an
/// index file written in the meantime would lack them, and their keys would never leave memory.
/// Only one thread takes entries out at a time. If it panics before giving them back, the next take
/// returns them to the queue.
#[derive(Debug, Default)]
pub(crate) struct ExpiryQueue {
    heap: BinaryHeap<Reverse<Entry>>,
    taken: Arc<Vec<Entry>>,
    /// Heap length that triggers the next cleaning.
    next_cleaning: usize,
    /// Entries known to have become stale since the last cleaning.
    stale: usize,
}

/// Below this length, neither stale entries nor unused room matter.
const CLEANING_MIN: usize = 4096;

impl ExpiryQueue {
    pub(crate) fn push(&mut self, expiry_ms: u64, location: Location) {
        self.heap.push(Reverse((expiry_ms, location)));
    }

    /// Takes out at most `limit` entries that are due, until [`ExpiryQueue::give_back`].
    pub(crate) fn take_due(&mut self, now_ms: u64, limit: usize) -> Arc<Vec<Entry>> {
        self.return_taken();
        let mut due = Vec::new();
        while due.len() < limit {
            match self.heap.peek() {
                Some(&Reverse(entry)) if entry.0 <= now_ms => {
                    self.heap.pop();
                    due.push(entry);
                }
                _ => break,
            }
        }
        self.taken = Arc::new(due);
        self.taken.clone()
    }

    /// Ends a take: `kept` returns to the queue, the other entries are gone.
    pub(crate) fn give_back(&mut self, kept: Vec<Entry>) {
        self.taken = Arc::default();
        self.heap.extend(kept.into_iter().map(Reverse));
        self.shrink();
    }

    /// Gives back the room of entries that are gone, once it is most of it.
    fn shrink(&mut self) {
        let room = (self.heap.len() * 2).max(CLEANING_MIN);
        if self.heap.capacity() / 2 > room && !planted(Planted::KeepTables) {
            self.heap.shrink_to(room);
        }
        self.next_cleaning = self.next_cleaning.min(room);
    }

    /// Notes that the record of an entry is no longer in the keydir.
    pub(crate) fn note_stale(&mut self) {
        self.stale += 1;
    }

    /// Returns all entries taken out to the queue.
    pub(crate) fn return_taken(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        self.heap.extend(taken.iter().copied().map(Reverse));
    }

    /// All entries, in no particular order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let taken = if planted(Planted::ForgetTakenOut) {
            &[][..]
        } else {
            self.taken.as_slice()
        };
        taken
            .iter()
            .copied()
            .chain(self.heap.iter().map(|Reverse(entry)| *entry))
    }

    /// Number of entries that are due. O(n).
    pub(crate) fn due(&self, now_ms: u64) -> u64 {
        self.entries().filter(|(expiry, _)| *expiry <= now_ms).count() as u64
    }

    /// Whether the queue has grown enough since the last cleaning for another one to pay.
    pub(crate) fn wants_cleaning(&self) -> bool {
        let most_are_stale = self.stale > self.heap.len() / 2;
        self.heap.len() >= CLEANING_MIN && (self.heap.len() >= self.next_cleaning || most_are_stale)
    }

    /// Takes all entries out for a cleaning, to be ended with [`ExpiryQueue::cleaned`]. Entries
    /// pushed in between stay queued.
    pub(crate) fn take_all(&mut self) -> Arc<Vec<Entry>> {
        self.return_taken();
        self.stale = 0;
        let entries = std::mem::take(&mut self.heap).into_iter();
        self.taken = Arc::new(entries.map(|Reverse(entry)| entry).collect());
        self.taken.clone()
    }

    /// Ends a cleaning: `kept` returns to the queue.
    pub(crate) fn cleaned(&mut self, kept: Vec<Entry>) {
        self.next_cleaning = usize::MAX;
        self.give_back(kept);
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        (self.heap.capacity() + self.taken.capacity()) * size_of::<Entry>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> ExpiryQueue {
        let mut queue = ExpiryQueue::default();
        for (expiry, offset) in [(30, 64), (10, 128), (20, 192)] {
            queue.push(expiry, Location::new(0, offset));
        }
        queue
    }

    fn sorted(queue: &ExpiryQueue) -> Vec<u64> {
        let mut entries: Vec<_> = queue.entries().map(|(expiry, _)| expiry).collect();
        entries.sort_unstable();
        entries
    }

    #[test]
    fn entries_come_out_when_due_and_the_earliest_first() {
        let mut queue = queue();
        let mut take = |now, limit| {
            let taken = queue.take_due(now, limit).to_vec();
            queue.give_back(Vec::new());
            taken
        };
        assert_eq!(take(9, 10), []);
        assert_eq!(take(20, 1), [(10, Location::new(0, 128))]);
        assert_eq!(take(30, 10), [(20, Location::new(0, 192)), (30, Location::new(0, 64))]);
        assert_eq!(queue.due(u64::MAX), 0);
    }

    #[test]
    fn what_is_taken_out_counts_as_in_the_queue_until_it_is_given_back() {
        let mut queue = queue();
        let bytes = queue.memory_bytes();
        assert_eq!(queue.take_due(20, 64).len(), 2);
        queue.push(15, Location::new(0, 256));
        assert_eq!((queue.due(20), sorted(&queue)), (3, vec![10, 15, 20, 30]));
        assert!(queue.memory_bytes() > bytes);
        queue.give_back(vec![(25, Location::new(0, 192))]);
        assert_eq!(sorted(&queue), [15, 25, 30]);
        let all = queue.take_all();
        queue.push(5, Location::new(0, 320));
        assert_eq!((all.len(), sorted(&queue)), (3, vec![5, 15, 25, 30]));
        // The previous take was never given back.
        assert_eq!(queue.take_due(u64::MAX, 64).len(), 4);
        queue.cleaned(Vec::new());
        assert!(sorted(&queue).is_empty());
    }
    #[test]
    fn entries_that_are_gone_take_no_room() {
        let mut queue = ExpiryQueue::default();
        let entry = |number: u64| (number, Location::new(0, 64 + number * 8));
        let push = |queue: &mut ExpiryQueue, numbers: std::ops::Range<u64>| {
            numbers.for_each(|number| queue.push(number, entry(number).1))
        };
        push(&mut queue, 0..100_000);
        let entries = queue.take_all();
        queue.cleaned(entries.to_vec());
        assert!(!queue.wants_cleaning(), "it was just cleaned");
        let full = queue.memory_bytes();
        while !queue.take_due(98_999, 256).is_empty() {
            queue.give_back(Vec::new());
        }
        queue.give_back(Vec::new());
        assert_eq!(sorted(&queue), (99_000..100_000).collect::<Vec<_>>());
        assert!(
            queue.memory_bytes() <= 4 * CLEANING_MIN * size_of::<Entry>(),
            "{} of {full}",
            queue.memory_bytes()
        );
        // A cleaning pays again long before the queue is as large as it was.
        push(&mut queue, 100_000..110_000);
        assert!(queue.wants_cleaning());
    }

    #[test]
    fn a_cleaning_pays_once_most_entries_are_known_to_be_stale() {
        let mut queue = ExpiryQueue::default();
        (0..10_000).for_each(|number| queue.push(number, Location::new(0, 64)));
        let entries = queue.take_all();
        queue.cleaned(entries.to_vec());
        (0..5_000).for_each(|_| queue.note_stale());
        assert!(!queue.wants_cleaning());
        queue.note_stale();
        assert!(queue.wants_cleaning());
        let entries = queue.take_all();
        queue.cleaned(entries[..5_000].to_vec());
        assert!(!queue.wants_cleaning());
    }
}
