//! What was written of late: kept while transactions are open, so that they can tell whether a
//! range that they have read was written to since.
//!
//! Under the writer lock. Takes bounded memory: of a transaction that was open for too long it
//! cannot tell.

use std::collections::{HashMap, VecDeque};
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::append::NewRecord;
use crate::planted::{Planted, planted};

/// Most memory, in bytes: 4 MiB.
const BYTES_MAX: usize = if cfg!(test) { 1 << 10 } else { 4 << 20 };

/// Memory of an entry beside its keys, in bytes.
const ENTRY_BYTES: usize = size_of::<Entry>() + 16;

/// Of a batch of more records only the lowest and the highest key of each namespace are kept.
const BATCH_RECORDS_MAX: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct RecentWrites {
    /// Open transactions. Counted up under the lock, and down without it.
    interested: Arc<AtomicUsize>,
    /// Oldest first.
    entries: VecDeque<Entry>,
    bytes: usize,
    /// What was written up to this sequence is not known.
    unknown_up_to: u64,
}

/// Writes to the keys from `first` to `last`, the newest of this sequence.
#[derive(Debug)]
struct Entry {
    sequence: u64,
    namespace: u32,
    first: Box<[u8]>,
    /// None if it is the same.
    last: Option<Box<[u8]>>,
}

/// Keeps writes from being forgotten, as long as there is room.
#[derive(Debug)]
pub(crate) struct Interest(Arc<AtomicUsize>);

impl Drop for Interest {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.first.len() + self.last.as_ref().map_or(0, |last| last.len())
    }

    fn touches(&self, namespace: u32, (lower, upper): (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
        let last = self.last.as_deref().unwrap_or(&self.first);
        self.namespace == namespace
            && (lower, Bound::Unbounded).contains(last)
            && (Bound::Unbounded, upper).contains(&*self.first)
    }
}

impl RecentWrites {
    /// Keeps what is written after this sequence, the newest.
    pub(super) fn begin(&mut self, sequence: u64) -> Interest {
        if self.interested.fetch_add(1, Ordering::AcqRel) == 0 {
            // No transaction was interested for a while.
            self.entries.clear();
            self.bytes = 0;
            self.unknown_up_to = sequence;
        }
        Interest(self.interested.clone())
    }

    #[inline]
    pub(super) fn is_wanted(&self) -> bool {
        self.interested.load(Ordering::Relaxed) > 0
    }

    pub(super) fn note(&mut self, sequence: u64, namespace: u32, key: &[u8]) {
        self.push(Entry {
            sequence,
            namespace,
            first: key.into(),
            last: None,
        });
    }

    /// Notes a batch whose last record has this sequence.
    pub(super) fn note_batch(&mut self, sequence: u64, records: &[NewRecord<'_>]) {
        if records.len() <= BATCH_RECORDS_MAX {
            for record in records {
                self.note(sequence, record.namespace.number, record.key());
            }
            return;
        }
        let mut ranges: HashMap<u32, (&[u8], &[u8])> = HashMap::new();
        for record in records {
            let key = record.key();
            let (first, last) = ranges.entry(record.namespace.number).or_insert((key, key));
            (*first, *last) = (key.min(first), key.max(last));
        }
        for (namespace, (first, last)) in ranges {
            self.push(Entry {
                sequence,
                namespace,
                first: first.into(),
                last: Some(last.into()),
            });
        }
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        while self.bytes > BYTES_MAX
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= oldest.bytes();
            if !planted(Planted::TrustOldWindow) {
                self.unknown_up_to = oldest.sequence;
            }
        }
    }

    /// Forgets what was written after this sequence: it was rolled back.
    pub(super) fn forget_after(&mut self, sequence: u64) {
        let kept = self.entries.partition_point(|entry| entry.sequence <= sequence);
        let forgotten: usize = self.entries.drain(kept..).map(|entry| entry.bytes()).sum();
        self.bytes -= forgotten;
    }

    /// Whether keys between the bounds were written after this sequence; None if that is not known
    /// any more.
    pub(crate) fn was_written(&self, after: u64, namespace: u32, bounds: (Bound<&[u8]>, Bound<&[u8]>)) -> Option<bool> {
        if after < self.unknown_up_to {
            return None;
        }
        let newer = self.entries.iter().rev().take_while(|entry| entry.sequence > after);
        Some(newer.into_iter().any(|entry| entry.touches(namespace, bounds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Unbounded);

    fn between<'a>(from: &'a str, to: &'a str) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
        (Bound::Included(from.as_bytes()), Bound::Excluded(to.as_bytes()))
    }

    #[test]
    fn a_range_was_written_to_if_a_key_in_it_was() {
        let mut recent = RecentWrites::default();
        assert!(!recent.is_wanted());
        let interest = recent.begin(10);
        assert!(recent.is_wanted());
        recent.note(11, 1, b"b");
        recent.note(12, 1, b"d");
        for (after, namespace, bounds, written) in [
            (10, 1, ALL, true),
            (12, 1, ALL, false),
            (10, 2, ALL, false),
            (10, 1, between("b", "c"), true),
            (11, 1, between("b", "c"), false),
            (10, 1, between("c", "d"), false),
            (10, 1, between("e", "z"), false),
            (10, 1, between("a", "b"), false),
        ] {
            assert_eq!(
                recent.was_written(after, namespace, bounds),
                Some(written),
                "{bounds:?}"
            );
        }
        recent.forget_after(11);
        assert_eq!(recent.was_written(11, 1, ALL), Some(false));
        assert_eq!(recent.was_written(10, 1, ALL), Some(true));
        drop(interest);
        assert!(!recent.is_wanted());
        let _interest = recent.begin(20);
        assert_eq!(recent.was_written(20, 1, ALL), Some(false));
        assert_eq!(recent.was_written(19, 1, ALL), None);
    }

    #[test]
    fn what_takes_too_much_memory_is_not_known_any_more() {
        let mut recent = RecentWrites::default();
        let _interest = recent.begin(0);
        for sequence in 1..=100 {
            recent.note(sequence, 1, &[b'x'; 50]);
            assert!(recent.bytes <= BYTES_MAX);
        }
        assert_eq!(recent.was_written(0, 1, ALL), None);
        let known = (0..100).find(|after| recent.was_written(*after, 1, ALL).is_some());
        assert!((80..99).contains(&known.unwrap()), "{known:?}");
        assert_eq!(recent.was_written(99, 1, ALL), Some(true));
    }
}
