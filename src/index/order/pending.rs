//! Changes not yet in the blocks: first in arrival order, then sorted.
//!
//! A change is `[flags, and 4 if the key is removed][varint length of the key][key]`. Changes are
//! concatenated in one buffer, so that queueing one is just a copy.

use std::cmp::Ordering;

use super::block::{push_varint, take_varint};
use super::{Change, KeyFlags};
use crate::key_bytes::{common_prefix, rank};

/// Flag bit of a change that removes its key.
const REMOVED: u8 = 4;

/// Changes in the order in which they were made.
#[derive(Default, Debug)]
pub(super) struct Log {
    bytes: Vec<u8>,
    count: usize,
}

impl Log {
    /// Adds a change; it overrides all earlier ones of the same key.
    pub(super) fn push(&mut self, change: Change<'_>) {
        let (head, key) = match change {
            Change::Insert(key, flags) => (flags.bits(), key),
            Change::Remove(key) => (REMOVED, key),
        };
        if key.len() < 0x80 {
            // A varint of one byte.
            self.bytes.extend_from_slice(&[head, key.len() as u8]);
        } else {
            self.bytes.push(head);
            push_varint(&mut self.bytes, key.len());
        }
        self.bytes.extend_from_slice(key);
        self.count += 1;
    }

    /// Adds all changes of another log.
    pub(super) fn append(&mut self, other: &Log) {
        self.bytes.extend_from_slice(&other.bytes);
        self.count += other.count;
    }

    /// Number of changes, including overridden ones.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// What is allocated.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// The last change of each key, in the order of the keys.
    pub(super) fn into_batch(self) -> Batch {
        let bytes = self.bytes;
        let skip = shared_by_all(&bytes);
        let mut order = Vec::with_capacity(self.count);
        let mut rest = &bytes[..];
        let mut start = 0;
        while let Some(change) = take_change(&mut rest) {
            let distinct = change.key().get(skip..).unwrap_or_default();
            order.push(Ranked {
                rank: rank(distinct),
                start,
            });
            start = bytes.len() - rest.len();
        }
        // Of several changes of a key the latest sorts first and is the one kept.
        order.sort_unstable_by(|a, b| a.key_order(b, &bytes).then(b.start.cmp(&a.start)));
        order.dedup_by(|later, earlier| later.key_order(earlier, &bytes) == Ordering::Equal);
        Batch { bytes, order, done: 0 }
    }
}

/// Changes in ascending key order, one per key. The first `done` are already applied.
#[derive(Default, Debug)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    order: Vec<Ranked>,
    done: usize,
}

impl Batch {
    /// Number of changes still to be applied.
    pub(super) fn len(&self) -> usize {
        self.order.len() - self.done
    }

    /// Whether all changes are applied.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The changes still to be applied, in ascending key order.
    pub(super) fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        let order = self.order.get(self.done..).unwrap_or_default();
        order.iter().filter_map(|ranked| ranked.change(&self.bytes))
    }

    /// Marks the next `count` changes as applied; frees the memory after the last one.
    pub(super) fn advance(&mut self, count: usize) {
        if count < self.len() {
            self.done += count;
        } else {
            *self = Batch::default();
        }
    }

    /// What is allocated.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.order.capacity() * size_of::<Ranked>()
    }
}

/// The offset of a change, and enough of its key to decide most comparisons without reading the
/// change.
#[derive(Debug)]
struct Ranked {
    rank: u64,
    start: usize,
}

impl Ranked {
    /// The change itself; never None, since `start` was found by walking over these same bytes.
    fn change<'a>(&self, bytes: &'a [u8]) -> Option<Change<'a>> {
        take_change(&mut bytes.get(self.start..)?)
    }

    /// The key that is changed.
    fn key<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        self.change(bytes).map(|change| change.key())
    }

    /// The order of the two keys.
    fn key_order(&self, other: &Ranked, bytes: &[u8]) -> Ordering {
        self.rank
            .cmp(&other.rank)
            .then_with(|| self.key(bytes).cmp(&other.key(bytes)))
    }
}

/// Length of the common prefix of all keys. Keys of one namespace often share a long prefix, and
/// equal ranks would decide nothing.
fn shared_by_all(mut bytes: &[u8]) -> usize {
    let Some(first) = take_change(&mut bytes) else {
        return 0;
    };
    let mut shared = first.key().len();
    while shared > 0
        && let Some(change) = take_change(&mut bytes)
    {
        shared = shared.min(common_prefix(first.key(), change.key()));
    }
    shared
}

/// Reads a change and steps over it. `bytes` must begin at a change or be empty.
fn take_change<'a>(bytes: &mut &'a [u8]) -> Option<Change<'a>> {
    let (&head, mut rest) = bytes.split_first()?;
    let length = take_varint(&mut rest);
    let (key, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some(match head & REMOVED {
        0 => Change::Insert(key, KeyFlags::from_bits_truncate(head)),
        _ => Change::Remove(key),
    })
}
