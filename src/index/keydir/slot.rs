//! The content of one slot of a table, and the part of the hash stored in it.

use super::Location;

/// The part of a key's hash that a slot stores. It chooses the home slot and tells most keys apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tag(u64);

impl Tag {
    /// Bits of a tag: what a location leaves free of 64.
    pub(super) const BITS: u32 = u64::BITS - Location::BITS;

    /// Bits of the hash below the tag, which the keydir does not use.
    pub(super) const SHIFT: u32 = 32;

    /// The tag of a hash.
    pub(super) fn of(hash: u64) -> Self {
        Self((hash >> Self::SHIFT) & ((1 << Self::BITS) - 1))
    }

    /// The slot at which the probe for this tag begins in a table of `capacity` slots; 0 if there
    /// are none.
    ///
    /// It grows with the tag at any capacity. So a rebuild, which reads the old table from front to
    /// back, also writes the new one sequentially.
    pub(super) fn home(self, capacity: usize) -> usize {
        // 22 bits times a capacity that fits in memory cannot overflow, and the result is below the
        // capacity.
        ((self.0 * capacity as u64) >> Self::BITS) as usize
    }
}

/// The content of one slot: a tag and a location, or one of two marks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slot(u64);

// The marks are offsets 0 and 8 of segment 0 under tag 0, which are inside the segment's header, so
// no record has such a location.
const _: () = assert!(Slot::DELETED.0 < Location::OFFSET_MIN / 8);

impl Slot {
    /// No entry, and probes end here: the zero of fresh memory.
    pub(super) const EMPTY: Self = Self(0);

    /// The entry was removed, but probes continue past it.
    pub(super) const DELETED: Self = Self(1);

    /// The slot of an entry.
    pub(super) fn new(tag: Tag, location: Location) -> Self {
        Self((tag.0 << Location::BITS) | location.bits())
    }

    /// The slot with these bits, as a table stores them.
    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits of the slot, as a table stores them.
    pub(super) fn bits(self) -> u64 {
        self.0
    }

    /// The tag of the entry; meaningless for a mark.
    pub(super) fn tag(self) -> Tag {
        Tag(self.0 >> Location::BITS)
    }

    /// The location of the entry; none for a mark.
    pub(super) fn location(self) -> Option<Location> {
        (self.0 > Self::DELETED.0).then(|| Location::from_bits(self.0))
    }
}
