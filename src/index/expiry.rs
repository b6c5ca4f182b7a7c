//! Which records expire when, so that they leave memory although nobody asks for them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::keydir::Location;

/// Locations of records with an expiry, the earliest first. An entry whose record was overwritten, deleted or moved stays
/// behind until it is due or a cleaning takes it out; the keydir tells then that it is stale.
#[derive(Debug, Default)]
pub(crate) struct ExpiryQueue {
    heap: BinaryHeap<Reverse<(u64, Location)>>,
    /// Length at which stale entries are to be looked for.
    next_cleaning: usize,
}

/// Below this length nobody minds stale entries.
const CLEANING_MIN: usize = 4096;

impl ExpiryQueue {
    pub(crate) fn push(&mut self, expiry_ms: u64, location: Location) {
        self.heap.push(Reverse((expiry_ms, location)));
    }

    /// Takes out at most `limit` entries that are due.
    pub(crate) fn pop_due(&mut self, now_ms: u64, limit: usize) -> Vec<Location> {
        let mut due = Vec::new();
        while due.len() < limit {
            match self.heap.peek() {
                Some(&Reverse((expiry, location))) if expiry <= now_ms => {
                    self.heap.pop();
                    due.push(location);
                }
                _ => break,
            }
        }
        due
    }

    /// All entries, in no particular order.
    pub(crate) fn entries(&self) -> impl ExactSizeIterator<Item = (u64, Location)> + '_ {
        self.heap.iter().map(|Reverse(entry)| *entry)
    }

    /// How many entries are due; looks at all of them.
    pub(crate) fn due(&self, now_ms: u64) -> u64 {
        self.heap
            .iter()
            .filter(|Reverse((expiry, _))| *expiry <= now_ms)
            .count() as u64
    }

    /// Whether so much was added since the last cleaning that a look for stale entries pays.
    pub(crate) fn wants_cleaning(&self) -> bool {
        self.heap.len() >= self.next_cleaning.max(CLEANING_MIN)
    }

    /// Takes everything out, for a cleaning; what is pushed meanwhile stays. Give the rest back with [`ExpiryQueue::give_back`].
    pub(crate) fn take(&mut self) -> Vec<(u64, Location)> {
        std::mem::take(&mut self.heap)
            .into_iter()
            .map(|Reverse(entry)| entry)
            .collect()
    }

    /// Ends a cleaning.
    pub(crate) fn give_back(&mut self, kept: Vec<(u64, Location)>) {
        self.heap.extend(kept.into_iter().map(Reverse));
        self.next_cleaning = self.heap.len() * 2;
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.heap.capacity() * size_of::<(u64, Location)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_out_when_due_and_the_earliest_first() {
        let mut queue = ExpiryQueue::default();
        for (expiry, offset) in [(30, 64), (10, 128), (20, 192)] {
            queue.push(expiry, Location::new(0, offset));
        }
        assert_eq!(queue.pop_due(9, 10), []);
        assert_eq!(queue.due(20), 2);
        assert_eq!(queue.pop_due(20, 1), [Location::new(0, 128)]);
        assert_eq!(queue.pop_due(30, 10), [Location::new(0, 192), Location::new(0, 64)]);
        assert_eq!(queue.due(u64::MAX), 0);
    }
}
