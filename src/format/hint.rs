//! The hint of a sealed segment: just the offsets of its records in key order. Keys are read from
//! the segment itself, so a hint costs three or four bytes per record, and opening a store neither
//! sorts keys nor reads values. A checksum over headers and keys, in the same order, shows that
//! they are those the hint was made from.

use super::segment::{RECORD_START_MAX, SEGMENT_HEADER_LEN, Summary};
use super::{ALIGNMENT, Damage, HINT_MAGIC, Stored, begin_envelope, end_envelope, open_envelope};

/// A hint in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    pub(crate) store_id: [u8; 16],
    pub(crate) segment_id: u64,
    /// As in the segment's summary; must equal the manifest's.
    pub(crate) data_end: u64,
    pub(crate) records_crc: u32,
    /// Checksum over header and key of each listed record, in list order.
    pub(crate) keys_crc: u32,
    pub(crate) offsets: Offsets,
}

/// Offsets of the newest put or tombstone of each key in a segment, ordered by (namespace, key), in
/// units of eight bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offsets(Vec<u32>);

impl Offsets {
    pub(crate) fn with_capacity(count: usize) -> Offsets {
        Offsets(Vec::with_capacity(count))
    }

    /// The offset must be below [`RECORD_START_MAX`], so it fits.
    pub(crate) fn push(&mut self, offset: u64) {
        debug_assert!(offset.is_multiple_of(ALIGNMENT) && offset < RECORD_START_MAX);
        self.0.push((offset / ALIGNMENT) as u32);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Offset in bytes of the n-th record in key order.
    pub(crate) fn get(&self, index: usize) -> Option<u64> {
        self.0.get(index).map(|&units| u64::from(units) * ALIGNMENT)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().map(|&units| u64::from(units) * ALIGNMENT)
    }
}

impl Hint {
    /// Bytes before the offsets.
    pub(crate) const HEAD_LEN: usize = 12 + 16 + 8 + 8 + 4 + 4 + 8;

    /// The maximum size of a hint of this segment, in bytes.
    pub(crate) fn len_max(summary: &Summary) -> u64 {
        let bytes_each = 4;
        summary
            .puts
            .saturating_add(summary.tombstones)
            .saturating_mul(bytes_each)
            .saturating_add(128)
    }

    /// The size of a hint of this many records in a segment of up to 128 MiB, in bytes.
    pub(crate) fn len(records: u64) -> u64 {
        Hint::HEAD_LEN as u64 + 4 + 3 * records
    }

    /// Three bytes hold the offsets of segments up to 128 MiB.
    fn width(data_end: u64) -> usize {
        if data_end.div_ceil(ALIGNMENT) <= 1 << 24 { 3 } else { 4 }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let width = Self::width(self.data_end);
        let mut bytes = begin_envelope(&HINT_MAGIC);
        bytes.reserve(width * self.offsets.len() + 64);
        bytes.extend_from_slice(&self.store_id);
        bytes.extend_from_slice(&self.segment_id.to_stored());
        bytes.extend_from_slice(&self.data_end.to_stored());
        bytes.extend_from_slice(&self.records_crc.to_stored());
        bytes.extend_from_slice(&self.keys_crc.to_stored());
        bytes.extend_from_slice(&(self.offsets.len() as u64).to_stored());
        for units in &self.offsets.0 {
            bytes.extend(units.to_stored().into_iter().take(width));
        }
        end_envelope(bytes)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Hint, Damage> {
        let mut fields = open_envelope(bytes, &HINT_MAGIC)?;
        let (store_id, segment_id, data_end) = (fields.bytes()?, fields.u64()?, fields.u64()?);
        let (records_crc, keys_crc, count) = (fields.u32()?, fields.u32()?, fields.u64()?);
        let width = Self::width(data_end);
        if count.checked_mul(width as u64) != Some(fields.0.len() as u64) {
            return Err(Damage::Field("hint length"));
        }
        let mut offsets = Offsets::with_capacity(count as usize);
        for packed in fields.0.chunks_exact(width) {
            let units = match *packed {
                [a, b, c] => [a, b, c, 0],
                [a, b, c, d] => [a, b, c, d],
                _ => return Err(Damage::Field("hint length")),
            };
            let units = u32::from_stored(units);
            let offset = u64::from(units) * ALIGNMENT;
            if offset < SEGMENT_HEADER_LEN || offset >= data_end.min(RECORD_START_MAX) {
                return Err(Damage::Field("hint offset"));
            }
            offsets.0.push(units);
        }
        Ok(Hint {
            store_id,
            segment_id,
            data_end,
            records_crc,
            keys_crc,
            offsets,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(data_end: u64) -> Hint {
        let mut offsets = Offsets::default();
        for offset in [128, 64, 4096 - 8] {
            offsets.push(offset);
        }
        Hint {
            store_id: [1; 16],
            segment_id: 3,
            data_end,
            records_crc: 4,
            keys_crc: 5,
            offsets,
        }
    }

    #[test]
    fn a_hint_survives_a_round_trip_in_both_widths() {
        for data_end in [4096, 200 << 20] {
            let bytes = hint(data_end).encode();
            assert_eq!(Hint::decode(&bytes), Ok(hint(data_end)));
            let four_bytes_each = if data_end > 128 << 20 { 3 } else { 0 };
            assert_eq!(bytes.len() as u64, Hint::len(3) + four_bytes_each);
        }
    }

    #[test]
    fn an_offset_outside_the_data_is_refused() {
        // The checksum is correct; only the offset is out of range.
        let refused = Hint::decode(&hint(4088).encode());
        assert!(matches!(refused, Err(Damage::Field(_))), "{refused:?}");
    }

    #[test]
    fn a_cut_hint_is_refused_at_every_length() {
        let bytes = hint(4096).encode();
        for length in 0..bytes.len() {
            assert!(Hint::decode(&bytes[..length]).is_err(), "{length}");
        }
    }
}
