//! The location of a record, in 42 bits.

/// The location of a record: the index of its segment (the segment's id modulo 2^16) and the offset
/// in it.
///
/// ```text
///   41              26 25             0
///  +------------------+----------------+
///  | segment idx (16) | offset/8 (26)  |
///  +------------------+----------------+
/// ```
///
/// Locations order by segment index, then by offset; the order of indexes says nothing about age.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Location(u64);

impl Location {
    /// Bits of the segment index.
    const SEGMENT_BITS: u32 = 16;

    /// Bits of the offset, counted in units.
    const OFFSET_BITS: u32 = 26;

    /// Alignment of records, in bytes: the unit of offsets.
    const UNIT: u64 = 8;

    /// Bits of a location in total.
    pub(crate) const BITS: u32 = Self::SEGMENT_BITS + Self::OFFSET_BITS;

    /// The lowest offset of a record, in bytes: a segment begins with a header of this size.
    /// Offsets below it let a slot hold something other than a location.
    pub(crate) const OFFSET_MIN: u64 = 64;

    /// Offsets of records are below this number of bytes (512 MiB), so no record may begin beyond
    /// it.
    pub(crate) const OFFSET_MAX: u64 = Self::UNIT << Self::OFFSET_BITS;

    /// Most segments that may be live at once, so that no two of them share an index.
    pub(crate) const SEGMENTS_MAX: u64 = 1 << Self::SEGMENT_BITS;

    /// The location of the record at this offset in bytes, in the segment with this index.
    ///
    /// The offset must be a multiple of 8, at least [`Self::OFFSET_MIN`] and below
    /// [`Self::OFFSET_MAX`]. The caller checks this where offsets come from: the log's own limits,
    /// or a validated hint file.
    #[inline]
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

    /// The location with these bits, as stored in a slot; higher bits are ignored.
    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits & ((1 << Self::BITS) - 1))
    }

    /// The index of the segment: its id modulo 2^16.
    #[inline]
    pub(crate) fn segment_index(self) -> u16 {
        // At most 16 bits are left, so the cast loses nothing.
        (self.0 >> Self::OFFSET_BITS) as u16
    }

    /// The offset of the record in its segment, in bytes.
    #[inline]
    pub(crate) fn offset(self) -> u64 {
        (self.0 & ((1 << Self::OFFSET_BITS) - 1)) * Self::UNIT
    }

    /// The location as a number below 2^42.
    #[inline]
    pub(crate) fn bits(self) -> u64 {
        self.0
    }
}
/// The index of a segment: the low 16 bits of its id, which stand for it in memory. Ids are never
/// reused, and no two live segments share an index.
#[inline]
pub(crate) fn segment_index(id: u64) -> u16 {
    (id % Location::SEGMENTS_MAX) as u16
}
