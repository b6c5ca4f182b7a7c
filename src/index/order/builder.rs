//! Builds the key order of a namespace from sorted keys, when a store is opened.

use std::cmp::Ordering;

use super::block::{BLOCK_BYTES_MAX, Block, compare, push_entry};
use super::tree::Tree;
use super::{Change, KeyFlags, KeyOrder};

/// Takes keys in ascending order and packs them into full blocks.
#[derive(Default, Debug)]
pub(crate) struct OrderBuilder {
    blocks: Vec<(Box<[u8]>, Block)>,
    /// The first key of the current block, with its flags, if there is a current block.
    first: Option<(Box<[u8]>, KeyFlags)>,
    /// The other entries of that block; `count` includes the first key.
    rest: Vec<u8>,
    count: usize,
    /// The last key pushed.
    last: Vec<u8>,
    /// Receives keys that are out of order.
    order: KeyOrder,
}

impl OrderBuilder {
    /// Adds a key, normally greater than all before it. Any other is queued as if inserted later:
    /// keys out of order cost time and memory, but are not lost.
    #[expect(clippy::indexing_slicing, reason = "a common prefix is within both keys")]
    pub(crate) fn push(&mut self, key: &[u8], flags: KeyFlags) {
        let (order, shared) = compare(&self.last, key);
        if order != Ordering::Less && (self.first.is_some() || !self.blocks.is_empty()) {
            self.order.change([Change::Insert(key, flags)].into_iter());
            // There is no background thread to tell yet.
            self.order.begin_look();
            return;
        }
        let suffix = &key[shared..];
        if self.first.is_some() {
            let bytes_before = self.rest.len();
            push_entry(&mut self.rest, flags, shared, [suffix, &[]]);
            if self.rest.len() > BLOCK_BYTES_MAX {
                self.rest.truncate(bytes_before);
                self.finish_block();
            }
        }
        if self.first.is_none() {
            self.first = Some((key.into(), flags));
        }
        self.count += 1;
        self.last.truncate(shared);
        self.last.extend_from_slice(suffix);
    }

    /// Adds all keys of another builder. If they all follow the keys here, blocks are moved whole,
    /// at no cost per key.
    pub(crate) fn append(&mut self, mut other: OrderBuilder) {
        self.finish_block();
        other.finish_block();
        self.order.take_over(other.order);
        let Some((first, _)) = other.blocks.first() else {
            return;
        };
        if self.blocks.is_empty() || **first > *self.last {
            self.last = other.last;
            self.blocks.extend(other.blocks);
            return;
        }
        let mut key = Vec::new();
        for (first, block) in &other.blocks {
            for entry in std::iter::once(block.first_entry(first)).chain(block.entries()) {
                key.truncate(entry.shared);
                key.extend_from_slice(entry.suffix);
                self.push(&key, entry.flags);
            }
        }
    }

    /// The key order of all keys pushed.
    pub(crate) fn finish(mut self) -> KeyOrder {
        self.finish_block();
        self.order.with_tree(Tree::from_blocks(self.blocks))
    }

    /// Finishes the current block.
    fn finish_block(&mut self) {
        if let Some((first, flags)) = self.first.take() {
            self.blocks.push((first, Block::new(flags, &self.rest, self.count)));
        }
        self.rest.clear();
        self.count = 0;
    }
}
