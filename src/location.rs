//! Where a record is, in 42 bits.

/// The place of a record: the index of its segment (the segment's id modulo 2^16) and the offset in
/// it.
///
/// ```text
///   41              26 25             0
///  +------------------+----------------+
///  | segment idx (16) | offset/8 (26)  |
///  +------------------+----------------+
/// ```
///
/// Locations order by segment index, then by offset; the order of indices says nothing about age.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Location(u64);

impl Location {
    /// Bits that name the segment.
    const SEGMENT_BITS: u32 = 16;

    /// Bits that name the offset, counted in units.
    const OFFSET_BITS: u32 = 26;

    /// Bytes between two offsets that can be told apart; records are aligned to it.
    const UNIT: u64 = 8;

    /// Bits of a location altogether.
    pub(crate) const BITS: u32 = Self::SEGMENT_BITS + Self::OFFSET_BITS;

    /// The lowest offset of a record in bytes: a segment begins with a header of this size. Offsets
    /// below it are what lets a slot mean something else than a location.
    pub(crate) const OFFSET_MIN: u64 = 64;

    /// The offsets of records are below this number of bytes (512 MiB), so a segment may not grow
    /// beyond it.
    pub(crate) const OFFSET_MAX: u64 = Self::UNIT << Self::OFFSET_BITS;

    /// How many segments may be live at once, so that no two of them share an index.
    pub(crate) const SEGMENTS_MAX: u64 = 1 << Self::SEGMENT_BITS;

    /// The location of the record at this offset, in bytes, of the segment with this index.
    ///
    /// The offset is a multiple of 8, at least [`Self::OFFSET_MIN`] and below [`Self::OFFSET_MAX`].
    /// The caller checks that where offsets come from: the log's own limits, or a hint file it
    /// has validated.
    pub(crate) fn new(segment_index: u16, offset: u64) -> Self {
        debug_assert!(
            offset.is_multiple_of(Self::UNIT),
            "offset {offset} is not a multiple of 8"
        );
        debug_assert!(
            (Self::OFFSET_MIN..Self::OFFSET_MAX).contains(&offset),
            "offset {offset} lies outside the records of a segment"
        );
        Self((u64::from(segment_index) << Self::OFFSET_BITS) | (offset / Self::UNIT))
    }

    /// The location with these bits, as a slot keeps them; those above are ignored.
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits & ((1 << Self::BITS) - 1))
    }

    /// The index of the segment: its id modulo 2^16.
    pub(crate) fn segment_index(self) -> u16 {
        // At most 16 bits are left, so nothing is cut off.
        (self.0 >> Self::OFFSET_BITS) as u16
    }

    /// The offset of the record in its segment, in bytes.
    pub(crate) fn offset(self) -> u64 {
        (self.0 & ((1 << Self::OFFSET_BITS) - 1)) * Self::UNIT
    }

    /// The location as a number below 2^42.
    pub(crate) fn bits(self) -> u64 {
        self.0
    }
}
/// Ids are never reused; their low 16 bits stand for them in memory, and no two live segments share
/// these.
pub(crate) fn segment_index(id: u64) -> u16 {
    (id % Location::SEGMENTS_MAX) as u16
}
