//! The tree: blocks by their first key, and the part of a sorted batch not yet merged into them.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Bound;

use super::block::{Block, Place, cut};
use super::merge::merge;
use super::page::KeyPage;
use super::pending::Batch;
use crate::format::record::KEY_LEN_MAX;
use crate::format::{Damage, Fields, Stored};

/// A block smaller than this, after a change, is joined with a neighbour if the two fit in one.
const JOIN_BELOW_BYTES: usize = 1024;

/// Maximum size of a joined block: well under a full block, lest the next change split it again.
const JOINED_BYTES_MAX: usize = 3072;

/// Maximum key bytes of the changes in one merge, so that a large batch that falls into one gap (a
/// first fill, keys in order) does not need a buffer of the same size.
const RUN_KEY_BYTES_MAX: usize = 64 << 10;

/// The merge buffer is freed if a long key has made it larger than this.
const RUN_BYTES_KEPT_MAX: usize = 2 * RUN_KEY_BYTES_MAX;

/// Estimated bytes per entry in the nodes of the standard library's B-tree, which hold at most 11
/// entries and do not report their fill: they are assumed two thirds full, as after random
/// insertions.
const NODE_BYTES_A_BLOCK: usize = (size_of::<Box<[u8]>>() + size_of::<Block>() + 2) * 3 / 2;

/// Average overhead of an allocation: its header and rounding up to 16 bytes.
const ALLOCATION_BYTES: usize = 16;

/// The keys of a namespace, sorted.
///
/// Blocks that the waiting batch has passed, or does not touch, are final. Every key of a block is
/// at least the block's key in the map and less than the next block's.
#[derive(Default, Debug)]
pub(super) struct Tree {
    blocks: BTreeMap<Box<[u8]>, Block>,
    /// Number of keys in the blocks.
    keys: u64,
    /// Sorted changes not yet in the blocks. While there are any, the blocks show part of a batch
    /// and must not be read.
    pub(super) waiting: Batch,
    /// The buffer in which merged blocks are assembled; empty between merges.
    run: Vec<u8>,
}

impl Tree {
    /// A tree of blocks in ascending order.
    pub(super) fn from_blocks(blocks: Vec<(Box<[u8]>, Block)>) -> Self {
        let keys = blocks.iter().map(|(_, block)| block.count() as u64).sum();
        Tree {
            blocks: blocks.into_iter().collect(),
            keys,
            ..Tree::default()
        }
    }

    /// Number of keys in the blocks.
    pub(super) fn len(&self) -> u64 {
        self.keys
    }

    /// Writes all blocks as they are.
    pub(super) fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&(self.blocks.len() as u64).to_stored())?;
        for (first, block) in &self.blocks {
            out.write_all(&(first.len() as u32).to_stored())?;
            out.write_all(first)?;
            block.write_to(out)?;
        }
        Ok(())
    }

    /// Reads what [`Tree::write_to`] wrote. Keys that do not ascend are refused, since searches
    /// rely on the order.
    pub(super) fn read_from(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        let count = fields.u64()?;
        let mut blocks = Vec::new();
        let mut last = Vec::new();
        for _ in 0..count {
            let length = fields.u32()? as usize;
            let first = fields.slice(length)?;
            if first.is_empty() || first.len() > KEY_LEN_MAX || *first <= *last {
                return Err(Damage::Field("first key of a block"));
            }
            last.clear();
            last.extend_from_slice(first);
            blocks.push((first.into(), Block::read_from(fields, &mut last)?));
        }
        Ok(Self::from_blocks(blocks))
    }

    /// Bytes allocated, without the waiting changes. Visits every block.
    pub(super) fn memory_bytes(&self) -> usize {
        let one = NODE_BYTES_A_BLOCK + 2 * ALLOCATION_BYTES;
        let blocks = self
            .blocks
            .iter()
            .map(|(first, block)| first.len() + block.bytes() + one);
        blocks.sum::<usize>() + self.run.capacity()
    }

    /// Merges up to `limit` waiting changes into the blocks, rewriting each block they touch once.
    pub(super) fn apply_waiting(&mut self, limit: usize) {
        let mut left = limit;
        while left > 0 {
            let done = self.apply_to_one_block(left);
            if done == 0 {
                break;
            }
            left -= done;
        }
        if self.run.capacity() > RUN_BYTES_KEPT_MAX {
            self.run = Vec::new();
        }
    }

    /// Frees the merge buffer.
    pub(super) fn shrink(&mut self) {
        if self.waiting.is_empty() {
            self.run = Vec::new();
        }
    }

    /// Merges those of the next `limit` waiting changes that belong to the same block as the first.
    /// Returns their number.
    fn apply_to_one_block(&mut self, limit: usize) -> usize {
        let Some(next) = self.waiting.changes().next() else {
            return 0;
        };
        let old = block_of(&self.blocks, next.key());
        let upper = old.and_then(|(first, _)| after(&self.blocks, first));
        let mut key_bytes = 0;
        let done = (self.waiting.changes().take(limit))
            .take_while(|change| {
                let fits = key_bytes < RUN_KEY_BYTES_MAX;
                key_bytes += change.key().len();
                fits && upper.is_none_or(|(upper, _)| change.key() < upper)
            })
            .count();

        let merged = merge(old, self.waiting.changes().take(done), &mut self.run);
        self.keys = self.keys - old.map_or(0, |(_, block)| block.count() as u64) + merged.count as u64;
        let replaced: Option<Box<[u8]>> = old.map(|(first, _)| first.into());
        self.waiting.advance(done);

        let mut kept = false;
        let mut last = None;
        let blocks = &mut self.blocks;
        cut(&self.run, merged.count, merged.fill, |first, block| {
            let small = block.bytes() < JOIN_BELOW_BYTES;
            kept |= replaced.as_deref() == Some(first);
            match blocks.get_mut(first) {
                Some(slot) => *slot = block,
                None => drop(blocks.insert(first.into(), block)),
            }
            last = small.then(|| first.to_vec());
        });
        if let Some(replaced) = replaced.filter(|_| !kept) {
            blocks.remove(&replaced);
        }
        self.run.clear();
        if let Some(small) = last {
            self.join_with_neighbour(&small);
        }
        done
    }

    /// Joins the block with the one before it or, failing that, behind it, if they fit in one.
    fn join_with_neighbour(&mut self, first: &[u8]) {
        let Some(block) = self.blocks.get(first) else { return };
        if let Some((left_first, left)) = before(&self.blocks, first)
            && let Some(joined) = left.joined(left_first, block, first, JOINED_BYTES_MAX)
        {
            let left_first: Box<[u8]> = left_first.into();
            self.blocks.remove(first);
            self.blocks.insert(left_first, joined);
        } else if let Some((right_first, right)) = after(&self.blocks, first)
            && let Some(joined) = block.joined(first, right, right_first, JOINED_BYTES_MAX)
        {
            let right_first: Box<[u8]> = right_first.into();
            self.blocks.remove(&right_first);
            self.blocks.insert(first.into(), joined);
        }
    }

    /// Copies at most `limit` keys between the bounds, from the lower one up or from the upper one
    /// down.
    pub(super) fn page(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, reverse: bool, limit: usize) -> KeyPage {
        let mut page = KeyPage::with_limit(limit);
        if reverse {
            let mut ascending = KeyPage::default();
            for span in self.spans(from, to).rev() {
                ascending.clear();
                span.copy_to(&mut ascending, usize::MAX);
                let room = limit - page.len();
                ascending
                    .iter()
                    .rev()
                    .take(room)
                    .for_each(|(key, flags)| _ = page.push([key, &[]], flags));
                if page.len() == limit {
                    break;
                }
            }
        } else {
            for span in self.spans(from, to) {
                let room = limit - page.len();
                span.copy_to(&mut page, room);
                if page.len() == limit {
                    break;
                }
            }
        }
        page
    }

    /// Number of keys between the bounds. Searches only the first and the last block.
    pub(super) fn count(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> u64 {
        self.spans(from, to).map(|span| span.len() as u64).sum()
    }

    /// Panics if an invariant of the blocks is violated.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut last: Option<Vec<u8>> = None;
        let mut keys = 0;
        for (first, block) in &self.blocks {
            let mut key: Vec<u8> = Vec::new();
            let entries = std::iter::once(block.first_entry(first)).chain(block.entries());
            let mut count = 0;
            for entry in entries {
                let before = key.clone();
                key.truncate(entry.shared);
                key.extend_from_slice(entry.suffix);
                if count > 0 {
                    assert_eq!(
                        entry.shared,
                        crate::key_bytes::common_prefix(&before, &key),
                        "shares less than it could"
                    );
                }
                assert!(last.is_none_or(|last| last < key), "keys do not ascend at {key:?}");
                last = Some(key.clone());
                count += 1;
            }
            assert_eq!(block.count(), count, "a block's count is wrong");
            assert!(block.bytes() <= super::block::BLOCK_BYTES_MAX, "a block is too large");
            keys += count as u64;
        }
        assert_eq!(self.keys, keys, "the number of keys is wrong");
        assert!(self.run.is_empty(), "the merge buffer was not emptied");
    }

    /// Number of blocks.
    #[cfg(test)]
    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The parts of blocks between the bounds, in order; the first and the last may be empty.
    fn spans<'a>(&'a self, from: Bound<&'a [u8]>, to: Bound<&'a [u8]>) -> impl DoubleEndedIterator<Item = Span<'a>> {
        let low = match from {
            Bound::Included(key) | Bound::Excluded(key) => block_of(&self.blocks, key),
            Bound::Unbounded => self.blocks.first_key_value().map(|(first, block)| (&**first, block)),
        };
        // `BTreeMap::range` panics on bounds that cross.
        let low = low.filter(|(first, _)| !is_empty(from, to) && !is_empty(Bound::Included(first), to));
        let range = low.map(|(first, _)| self.blocks.range::<[u8], _>((Bound::Included(first), to)));
        let high = range.clone().and_then(|mut range| range.next_back());
        range.into_iter().flatten().map(move |(first, block)| {
            let is_low = low.is_some_and(|(_, low)| std::ptr::eq(low, block));
            let is_high = high.is_some_and(|(_, high)| std::ptr::eq(high, block));
            Span {
                first,
                block,
                start: if is_low {
                    block.start(first, from)
                } else {
                    Place::default()
                },
                end: if is_high { block.end(first, to) } else { block.count() },
                from: key_of(from),
            }
        })
    }
}

/// A part of a block: the keys from a place on and before number `end`.
struct Span<'a> {
    first: &'a [u8],
    block: &'a Block,
    start: Place,
    end: usize,
    /// The key that was searched for to find the start. It is between the start key and the key
    /// before it, so the start key shares at least as much with it as with the key before.
    from: &'a [u8],
}

impl Span<'_> {
    /// Number of keys in the part.
    fn len(&self) -> usize {
        self.end.saturating_sub(self.start.index)
    }

    /// Copies the first `limit` keys, or all if there are fewer.
    #[expect(
        clippy::indexing_slicing,
        reason = "the key at the start shares no less with `from` than with the key before it"
    )]
    fn copy_to(&self, page: &mut KeyPage, limit: usize) {
        let count = self.len().min(limit);
        let mut entries = self.block.entries_from(self.start);
        let entry = match self.start.index {
            0 => Some(self.block.first_entry(self.first)),
            _ => entries.next(),
        };
        let Some(entry) = entry.filter(|_| count > 0) else {
            return;
        };
        let mut last = page.push([&self.from[..entry.shared], entry.suffix], entry.flags);
        for entry in entries.take(count - 1) {
            last = page.push_sharing(last, entry.shared, entry.suffix, entry.flags);
        }
    }
}

/// The block that the key belongs to: the last one that begins at or before it, else the first.
fn block_of<'a>(blocks: &'a BTreeMap<Box<[u8]>, Block>, key: &[u8]) -> Option<(&'a [u8], &'a Block)> {
    let at_or_before = blocks
        .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
        .next_back();
    at_or_before
        .or_else(|| blocks.first_key_value())
        .map(|(first, block)| (&**first, block))
}

/// The block before the one that begins with `first`.
fn before<'a>(blocks: &'a BTreeMap<Box<[u8]>, Block>, first: &[u8]) -> Option<(&'a [u8], &'a Block)> {
    let range = blocks.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(first)));
    range.map(|(first, block)| (&**first, block)).next_back()
}

/// The block behind the one that begins with `first`.
fn after<'a>(blocks: &'a BTreeMap<Box<[u8]>, Block>, first: &[u8]) -> Option<(&'a [u8], &'a Block)> {
    let mut range = blocks.range::<[u8], _>((Bound::Excluded(first), Bound::Unbounded));
    range.next().map(|(first, block)| (&**first, block))
}

/// The key of a bound; for an unbounded one the empty key, which is the least of all.
fn key_of(bound: Bound<&[u8]>) -> &[u8] {
    match bound {
        Bound::Included(key) | Bound::Excluded(key) => key,
        Bound::Unbounded => &[],
    }
}

/// Whether no key can be between the bounds, for example because they cross.
fn is_empty(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
    }
}
