//! Blocks: runs of front-coded keys, the leaves of the key order.
//!
//! A block's first key is held outside the block (it is the key of the tree's map); the block holds
//! the flags of that key and one entry for every further key, each relative to the key before it:
//!
//! ```text
//! +-----------------+-----------------+------------------------+------------------------+--------+
//! | shared << 2     | length of the   | varint, only if shared | varint, only if length | suffix |
//! |   | flags       | suffix          | is 63: the rest of it  | is 255: the rest of it |        |
//! | 1 byte          | 1 byte          | 0 to 10 bytes          | 0 to 10 bytes          |        |
//! +-----------------+-----------------+------------------------+------------------------+--------+
//! ```
//!
//! `shared` is the full length of the prefix that a key has in common with the key before it. So a
//! search rarely compares bytes: while the target and the last key passed agree in `n` bytes, an
//! entry that shares more than `n` is still before the target, and one that shares less is behind
//! it. Only an entry that shares exactly `n` has to be compared.

use std::cmp::Ordering;
use std::io::{self, Write};
use std::ops::Bound;

use super::KeyFlags;
use crate::format::record::KEY_LEN_MAX;
use crate::format::{Damage, Fields, Stored};
use crate::key_bytes::common_prefix;

/// A block that would grow beyond this is split. A trade-off: every block costs about 120 bytes on
/// top of its entries, and every search reads half a block.
pub(super) const BLOCK_BYTES_MAX: usize = 4096;

/// Value of the 6-bit field that means 63 plus a varint.
const SHARED_LONG: usize = 63;

/// Value of the length byte that means 255 plus a varint.
const SUFFIX_LONG: usize = 255;

/// One key, encoded relative to the key before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) flags: KeyFlags,
    /// Number of bytes the key has in common with the one before it.
    pub(super) shared: usize,
    /// The rest of the key.
    pub(super) suffix: &'a [u8],
}

/// Reads entries one after another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads what [`push_entry`] wrote; `bytes` begin and end at entry boundaries.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes }
    }

    /// The entries not yet read, as they are encoded.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Entry<'a>;

    #[inline]
    fn next(&mut self) -> Option<Entry<'a>> {
        let (&[head, length], mut rest) = self.bytes.split_first_chunk()?;
        let mut shared = usize::from(head >> 2);
        if shared == SHARED_LONG {
            shared = shared.saturating_add(take_varint(&mut rest));
        }
        let mut length = usize::from(length);
        if length == SUFFIX_LONG {
            length = length.saturating_add(take_varint(&mut rest));
        }
        let (suffix, rest) = rest.split_at_checked(length)?;
        self.bytes = rest;
        Some(Entry {
            flags: KeyFlags::from_bits_truncate(head),
            shared,
            suffix,
        })
    }
}

/// Encodes an entry. Its suffix is given in two parts, since a merge may have to assemble it.
pub(super) fn push_entry(bytes: &mut Vec<u8>, flags: KeyFlags, shared: usize, suffix: [&[u8]; 2]) {
    let length = suffix[0].len() + suffix[1].len();
    let short_shared = shared.min(SHARED_LONG);
    let short_length = length.min(SUFFIX_LONG);
    // Both casts are lossless: the fields are at most 63 (6 bits) and 255.
    bytes.extend_from_slice(&[(short_shared as u8) << 2 | flags.bits(), short_length as u8]);
    if short_shared == SHARED_LONG {
        push_varint(bytes, shared - SHARED_LONG);
    }
    if short_length == SUFFIX_LONG {
        push_varint(bytes, length - SUFFIX_LONG);
    }
    bytes.extend_from_slice(suffix[0]);
    bytes.extend_from_slice(suffix[1]);
}

/// Writes a number, seven bits a byte, lowest first; all bytes but the last have the high bit set.
pub(super) fn push_varint(bytes: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Reads a number that [`push_varint`] wrote and steps over it.
pub(super) fn take_varint(bytes: &mut &[u8]) -> usize {
    let mut value = 0;
    for shift in (0..usize::BITS).step_by(7) {
        let Some((&byte, rest)) = bytes.split_first() else {
            break;
        };
        *bytes = rest;
        value |= usize::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

/// The order of two byte strings, and the length of their common prefix.
#[inline]
pub(super) fn compare(a: &[u8], b: &[u8]) -> (Ordering, usize) {
    let common = common_prefix(a, b);
    (a.get(common).cmp(&b.get(common)), common)
}

/// A place in a block: before its key number `index`, or behind its last key.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Place {
    /// Number of keys of the block before the place.
    pub(super) index: usize,
    /// Offset of the entry of key `index`; also 0 for the first key, which has no entry.
    offset: usize,
    /// Whether key `index` equals the target of the search.
    exact: bool,
    /// Number of bytes the key before the place has in common with the target.
    shared: usize,
}

/// Front-coded keys in ascending order, at least one.
#[derive(Debug)]
pub(super) struct Block {
    /// The entries of all keys but the first. A boxed slice has no slack, since memory per key
    /// counts.
    rest: Box<[u8]>,
    /// Number of keys, including the first. A block is split long before 2^32 entries.
    count: u32,
    first_flags: KeyFlags,
}

impl Block {
    /// A block of `count` keys, whose entries but the first are `rest`.
    pub(super) fn new(first_flags: KeyFlags, rest: &[u8], count: usize) -> Self {
        // The cast is lossless: an entry takes at least two bytes, and a block's entries at most 4
        // KiB (or one larger entry).
        Block {
            rest: rest.into(),
            count: count as u32,
            first_flags,
        }
    }

    /// Writes all but the first key.
    pub(super) fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.count.to_stored())?;
        out.write_all(&[self.first_flags.bits()])?;
        out.write_all(&(self.rest.len() as u32).to_stored())?;
        out.write_all(&self.rest)
    }

    /// Reads what [`Block::write_to`] wrote. `key` is the block's first key, and afterwards its
    /// last one.
    pub(super) fn read_from(fields: &mut Fields<'_>, key: &mut Vec<u8>) -> Result<Self, Damage> {
        let (count, first_flags) = (fields.u32()?, fields.u8()?);
        let length = fields.u32()? as usize;
        let rest = fields.slice(length)?;
        let mut entries = Reader::new(rest);
        let mut found = 1;
        for entry in entries.by_ref() {
            let ascends = match key.get(entry.shared) {
                Some(before) => entry.suffix.first() > Some(before),
                None => entry.shared == key.len() && !entry.suffix.is_empty(),
            };
            if !ascends || entry.shared + entry.suffix.len() > KEY_LEN_MAX {
                return Err(Damage::Field("key of a block"));
            }
            key.truncate(entry.shared);
            key.extend_from_slice(entry.suffix);
            found += 1;
        }
        if found != count || !entries.rest().is_empty() || length > BLOCK_BYTES_MAX {
            return Err(Damage::Field("entries of a block"));
        }
        Ok(Block::new(
            KeyFlags::from_bits_truncate(first_flags),
            rest,
            count as usize,
        ))
    }

    /// Number of keys.
    pub(super) fn count(&self) -> usize {
        self.count as usize
    }

    /// The size of the entries, which decides on splitting and joining.
    pub(super) fn bytes(&self) -> usize {
        self.rest.len()
    }

    /// The entry that the first key would have: it shares nothing.
    pub(super) fn first_entry<'a>(&self, first: &'a [u8]) -> Entry<'a> {
        Entry {
            flags: self.first_flags,
            shared: 0,
            suffix: first,
        }
    }

    /// The entries of all keys but the first.
    pub(super) fn entries(&self) -> Reader<'_> {
        Reader::new(&self.rest)
    }

    /// The entries from a place on; from place 0 all but the first key's.
    #[expect(
        clippy::indexing_slicing,
        reason = "a place comes from a search in this block, so its offset is an entry boundary"
    )]
    pub(super) fn entries_from(&self, place: Place) -> Reader<'_> {
        Reader::new(&self.rest[place.offset..])
    }

    /// The place before the first key that is not less than `target`; `first` is the block's first
    /// key.
    #[expect(
        clippy::indexing_slicing,
        reason = "`shared` bytes of the target agree with a key, so it has as many"
    )]
    fn seek(&self, first: &[u8], target: &[u8]) -> Place {
        let (order, mut shared) = compare(first, target);
        if order != Ordering::Less {
            return Place {
                index: 0,
                offset: 0,
                exact: order == Ordering::Equal,
                shared: 0,
            };
        }
        let mut reader = self.entries();
        let mut index = 1;
        loop {
            let offset = self.rest.len() - reader.rest().len();
            let place = Place {
                index,
                offset,
                exact: false,
                shared,
            };
            let Some(entry) = reader.next() else { return place };
            if entry.shared < shared {
                return place;
            }
            if entry.shared == shared {
                let (order, more) = compare(entry.suffix, &target[shared..]);
                match order {
                    Ordering::Less => shared += more,
                    Ordering::Equal => return Place { exact: true, ..place },
                    Ordering::Greater => return place,
                }
            }
            index += 1;
        }
    }

    /// The place of the first key within a lower bound.
    pub(super) fn start(&self, first: &[u8], from: Bound<&[u8]>) -> Place {
        match from {
            Bound::Unbounded => Place::default(),
            Bound::Included(key) => self.seek(first, key),
            Bound::Excluded(key) => self.step_over_exact(self.seek(first, key)),
        }
    }

    /// Number of keys within an upper bound.
    pub(super) fn end(&self, first: &[u8], to: Bound<&[u8]>) -> usize {
        match to {
            Bound::Unbounded => self.count(),
            Bound::Excluded(key) => self.seek(first, key).index,
            Bound::Included(key) => {
                let place = self.seek(first, key);
                place.index + usize::from(place.exact)
            }
        }
    }

    /// The place behind the target of the search, if it was found.
    fn step_over_exact(&self, place: Place) -> Place {
        if !place.exact {
            return place;
        }
        let mut reader = self.entries_from(place);
        if place.index > 0 {
            reader.next();
        }
        Place {
            index: place.index + 1,
            offset: self.rest.len() - reader.rest().len(),
            exact: false,
            ..place
        }
    }

    /// This block (first key `first`) with all keys of `right` (first key `right_first`) behind its
    /// own, or None if that is more than `bytes_max`.
    pub(super) fn joined(&self, first: &[u8], right: &Block, right_first: &[u8], bytes_max: usize) -> Option<Block> {
        if self.bytes() + right.bytes() > bytes_max {
            return None;
        }
        // The search ends behind this block's last key, so `shared` is what that key and
        // `right_first` have in common.
        let shared = self.seek(first, right_first).shared;
        let suffix = right_first.get(shared..)?;
        if self.bytes() + suffix.len() + right.bytes() > bytes_max {
            return None;
        }
        let mut rest = Vec::with_capacity(bytes_max);
        rest.extend_from_slice(&self.rest);
        push_entry(&mut rest, right.first_flags, shared, [suffix, &[]]);
        rest.extend_from_slice(&right.rest);
        Some(Block::new(self.first_flags, &rest, self.count() + right.count()))
    }
}

/// Cuts a run of entries, the first of which shares nothing, into blocks and passes each to `take`
/// with its first key.
///
/// Entries are relative to the one before, so a block's entries are a slice of the run; only the
/// key at each cut has to be assembled. `fill` says how large blocks become if there are several:
/// full if keys are being appended, so that only the last block will grow, or else even.
#[expect(
    clippy::indexing_slicing,
    reason = "the reader reads `start`, so its rest is never longer"
)]
pub(super) fn cut(run: &[u8], count: usize, fill: Fill, mut take: impl FnMut(&[u8], Block)) {
    let mut reader = Reader::new(run);
    let Some(entry) = reader.next() else { return };
    let mut start = reader.rest();
    if start.len() <= BLOCK_BYTES_MAX {
        take(entry.suffix, Block::new(entry.flags, start, count));
        return;
    }
    let bytes_enough = match fill {
        Fill::Full => BLOCK_BYTES_MAX,
        Fill::Even => start.len().div_ceil(start.len().div_ceil(BLOCK_BYTES_MAX)),
    };
    let mut first = entry.suffix.to_vec();
    let mut first_flags = entry.flags;
    let mut key = first.clone();
    let mut count = 1;
    loop {
        let bytes = start.len() - reader.rest().len();
        let Some(entry) = reader.next() else { break };
        key.truncate(entry.shared);
        key.extend_from_slice(entry.suffix);
        if bytes >= bytes_enough || start.len() - reader.rest().len() > BLOCK_BYTES_MAX {
            take(&first, Block::new(first_flags, &start[..bytes], count));
            start = reader.rest();
            first.clone_from(&key);
            first_flags = entry.flags;
            count = 0;
        }
        count += 1;
    }
    take(&first, Block::new(first_flags, start, count));
}

/// How [`cut`] fills blocks when it makes several.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fill {
    /// All full but the last.
    Full,
    /// All about the same size.
    Even,
}
