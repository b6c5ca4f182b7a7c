//! Merges sorted changes into a block without decoding its keys.
//!
//! Both sides are sorted, and for the head of each we know how many bytes it has in common with the
//! last key passed. The head with the longer common prefix is the smaller one; bytes are compared
//! only if both are equally long, and then only those behind the prefix. (Merging by longest common
//! prefixes: Ng and Kakehi, "Merging String Sequences by Longest Common Prefixes", 2008.) So
//! between two changes the entries of the block are copied as they are, and a merge costs little
//! more than copying the block.
//!
//! This rests on three facts about keys `a <= b <= c`, where `common` is the length of a common
//! prefix:
//!
//! * `common(a, c) = min(common(a, b), common(b, c))`;
//! * so dropping keys can only shorten the prefix that the next key shares with the last one
//!   written;
//! * and an old key never shares more with the old key before it than with a change between the
//!   two.

use std::cmp::Ordering;

use super::block::{Block, Entry, Fill, Reader, compare, push_entry};
use super::{Change, KeyFlags};
use crate::key_bytes::common_prefix;

/// The result of a merge.
#[derive(Debug)]
pub(super) struct Merged {
    /// Number of keys after the merge.
    pub(super) count: usize,
    /// Full if all new keys follow the old ones, since the next ones probably will too.
    pub(super) fill: Fill,
}

/// Applies the changes to the old block (None if there is none) and writes the keys to `run` as one
/// run of entries. The changes ascend strictly.
pub(super) fn merge<'a>(
    old: Option<(&'a [u8], &'a Block)>,
    mut changes: impl Iterator<Item = Change<'a>>,
    run: &mut Vec<u8>,
) -> Merged {
    let mut merger = Merger {
        run,
        reader: old.map_or(Reader::new(&[]), |(_, block)| block.entries()),
        head: old.map(|(first, block)| block.first_entry(first)),
        head_at: &[],
        head_shares: 0,
        written_shares: ALL,
        dropped: &[],
    };
    let mut count = old.map_or(0, |(_, block)| block.count());
    let mut appended = true;

    let mut next = changes.next();
    let mut key_shares = 0;
    while let Some(change) = next {
        let key = change.key();
        let there = merger.copy_up_to(key, &mut key_shares);
        match change {
            Change::Insert(_, flags) => {
                appended &= there || merger.head.is_none();
                count += usize::from(!there);
                merger.write_change(key, flags, key_shares);
            }
            Change::Remove(_) => {
                count -= usize::from(there);
                merger.drop_change(key, key_shares);
            }
        }
        next = changes.next();
        key_shares = next.as_ref().map_or(0, |next| common_prefix(key, next.key()));
    }
    merger.copy_rest();
    Merged {
        count,
        fill: if appended { Fill::Full } else { Fill::Even },
    }
}

/// What a key has in common with itself.
const ALL: usize = usize::MAX;

/// A merge in progress. "The last key" is the last one passed, on either side, whether written or
/// dropped.
struct Merger<'a, 'r> {
    run: &'r mut Vec<u8>,
    /// The first old entry not yet processed.
    head: Option<Entry<'a>>,
    /// The encoded head and everything behind it; meaningless for the first head, which has no
    /// entry.
    head_at: &'a [u8],
    /// The old entries behind the head.
    reader: Reader<'a>,
    /// Bytes the head has in common with the last key; never fewer than with the old key before it.
    head_shares: usize,
    /// Bytes the last key written has in common with the last key; [`ALL`] if they are the same.
    written_shares: usize,
    /// The last key, if it was dropped.
    dropped: &'a [u8],
}

#[expect(
    clippy::indexing_slicing,
    reason = "a common prefix is within both keys, and the rest of a reader is a tail of its earlier rest"
)]
impl<'a> Merger<'a, '_> {
    /// Copies the old keys less than `key`, steps over the key itself, and returns whether it was
    /// there. `key_shares` is what `key` has in common with the last key, on entry and on return.
    fn copy_up_to(&mut self, key: &[u8], key_shares: &mut usize) -> bool {
        while let Some(head) = self.head {
            match self.head_shares.cmp(key_shares) {
                Ordering::Less => return false,
                Ordering::Greater => {
                    self.write_head(head);
                    self.copy_while_sharing_more(*key_shares);
                }
                Ordering::Equal => {
                    // A key is at least as long as its shared prefix; the suffix begins at
                    // `head.shared`, which is at most `head_shares`.
                    let (order, more) = compare(&head.suffix[self.head_shares - head.shared..], &key[*key_shares..]);
                    match order {
                        Ordering::Less => {
                            self.write_head(head);
                            *key_shares += more;
                        }
                        Ordering::Equal => {
                            self.advance();
                            return true;
                        }
                        Ordering::Greater => {
                            self.head_shares += more;
                            return false;
                        }
                    }
                }
            }
        }
        false
    }

    /// Copies, in one piece, the old keys that share more than `shares` with the one before them.
    /// The last key must be an old one that was written.
    fn copy_while_sharing_more(&mut self, shares: usize) {
        let from = self.head_at;
        while self.head.is_some_and(|head| head.shared > shares) {
            self.advance();
        }
        self.run.extend_from_slice(&from[..from.len() - self.head_at.len()]);
    }

    /// Copies the rest of the old block.
    fn copy_rest(&mut self) {
        if let Some(head) = self.head {
            self.write_head(head);
            self.run.extend_from_slice(self.head_at);
        }
    }

    /// Writes the head and steps over it.
    fn write_head(&mut self, head: Entry<'a>) {
        let shared = self.written_shares.min(self.head_shares);
        if shared < head.shared {
            // The key before the head was dropped, not written, and the head shares its prefix.
            push_entry(
                self.run,
                head.flags,
                shared,
                [&self.dropped[shared..head.shared], head.suffix],
            );
        } else {
            push_entry(
                self.run,
                head.flags,
                shared,
                [&head.suffix[shared - head.shared..], &[]],
            );
        }
        self.written_shares = ALL;
        self.advance();
    }

    /// Writes a new key, or an old one with new flags.
    fn write_change(&mut self, key: &[u8], flags: KeyFlags, key_shares: usize) {
        let shared = self.written_shares.min(key_shares);
        push_entry(self.run, flags, shared, [&key[shared..], &[]]);
        self.written_shares = ALL;
    }

    /// Leaves out a removed key, whether or not it was there.
    fn drop_change(&mut self, key: &'a [u8], key_shares: usize) {
        self.written_shares = self.written_shares.min(key_shares);
        self.dropped = key;
    }

    /// Moves to the next old entry. The last key is then the one stepped over.
    fn advance(&mut self) {
        self.head_at = self.reader.rest();
        self.head = self.reader.next();
        self.head_shares = self.head.map_or(0, |head| head.shared);
    }
}
