//! Builds the key order of a namespace from keys that are already in order, when a store is opened.

use std::cmp::Ordering;

use super::block::{BLOCK_BYTES_MAX, Block, compare, push_entry};
use super::tree::Tree;
use super::{Change, KeyFlags, KeyOrder};

/// Takes keys in ascending order and packs them into full blocks.
#[derive(Default, Debug)]
pub(crate) struct OrderBuilder {
    blocks: Vec<(Box<[u8]>, Block)>,
    /// The first key and its flags of the block under way, if there is one.
    first: Option<(Box<[u8]>, KeyFlags)>,
    /// The other entries of that block, and how many keys it has with the first.
    rest: Vec<u8>,
    count: usize,
    /// The key that was pushed last.
    last: Vec<u8>,
    /// Where keys go that do not come in order.
    order: KeyOrder,
}

impl OrderBuilder {
    /// Adds a key greater than all before it. One that is not is queued as if inserted later: keys out of order cost
    /// time and memory, but are not lost.
    #[expect(clippy::indexing_slicing, reason = "what two keys share, both have")]
    pub(crate) fn push(&mut self, key: &[u8], flags: KeyFlags) {
        let (order, shared) = compare(&self.last, key);
        if order != Ordering::Less && self.first.is_some() {
            self.order.change([Change::Insert(key, flags)].into_iter());
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

    /// The key order of all keys pushed.
    pub(crate) fn finish(mut self) -> KeyOrder {
        self.finish_block();
        self.order.with_tree(Tree::from_blocks(self.blocks))
    }

    /// Closes the block under way.
    fn finish_block(&mut self) {
        if let Some((first, flags)) = self.first.take() {
            self.blocks.push((first, Block::new(flags, &self.rest, self.count)));
        }
        self.rest.clear();
        self.count = 0;
    }
}
