//! A segment's header and seal, the start record that chains it to its predecessor, and marks.

use super::record::{FIXED_HEADER_LEN, RECORD_LEN_MAX};
use super::{Damage, Fields, SEGMENT_MAGIC, Stored, VERSION, aligned, check_version, checksum};

/// Bytes of a segment's header; the first record follows.
pub(crate) const SEGMENT_HEADER_LEN: u64 = 64;

/// Records begin below this offset (512 MiB), since a location holds 26 bits of eight-byte units.
/// The last record may extend beyond it.
pub(crate) const RECORD_START_MAX: u64 = 1 << 29;

/// Upper bound of the end of a segment's data. Segments written by this program stay well below it:
/// only a record alone in its segment may extend beyond [`RECORD_START_MAX`].
pub(crate) const DATA_END_MAX: u64 = RECORD_START_MAX + RECORD_LEN_MAX;

/// Bytes that a seal takes.
pub(crate) const SEAL_LEN: u64 = aligned((FIXED_HEADER_LEN + Summary::LEN) as u64);

/// Maximum length of a segment, including its seal.
pub(crate) const SEGMENT_LEN_MAX: u64 = DATA_END_MAX + SEAL_LEN;

/// First bytes of every segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Random; part of every record's header checksum.
    pub(crate) salt: u32,
    pub(crate) store_id: [u8; 16],
    pub(crate) segment_id: u64,
    /// Records store their sequence relative to this.
    pub(crate) base_sequence: u64,
    /// Wall clock at creation, in milliseconds since the epoch. Informational; nothing depends on
    /// it.
    pub(crate) created_ms: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_LEN as usize] {
        let mut bytes = [0; SEGMENT_HEADER_LEN as usize];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_stored());
        bytes[12..16].copy_from_slice(&self.salt.to_stored());
        bytes[16..32].copy_from_slice(&self.store_id);
        bytes[32..40].copy_from_slice(&self.segment_id.to_stored());
        bytes[40..48].copy_from_slice(&self.base_sequence.to_stored());
        bytes[48..56].copy_from_slice(&self.created_ms.to_stored());
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_stored());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, Damage> {
        let bytes: &[u8; SEGMENT_HEADER_LEN as usize] = bytes.first_chunk().ok_or(Damage::Short)?;
        let mut fields = Fields(bytes);
        if fields.bytes::<8>()? != SEGMENT_MAGIC {
            return Err(Damage::Magic);
        }
        let crc_fits = |version: u32| checksum(&bytes[..60], version).to_stored() == bytes[60..];
        check_version(fields.u32()?, Damage::HeaderChecksum, crc_fits)?;
        Ok(SegmentHeader {
            salt: fields.u32()?,
            store_id: fields.bytes()?,
            segment_id: fields.u64()?,
            base_sequence: fields.u64()?,
            created_ms: fields.u64()?,
        })
    }
}

/// Totals of a segment that no longer grows. Body of the seal record, and part of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Summary {
    /// End of the data: the offset of the seal or of the cut.
    pub(crate) data_end: u64,
    /// Records of all kinds except the seal.
    pub(crate) records: u64,
    pub(crate) puts: u64,
    /// Bytes of the puts, including headers and padding.
    pub(crate) put_bytes: u64,
    /// Puts that have an expiry.
    pub(crate) expiring: u64,
    pub(crate) tombstones: u64,
    /// Bytes of the tombstones, likewise.
    pub(crate) tombstone_bytes: u64,
    /// Lowest sequence of a put or tombstone; `u64::MAX` if there is none.
    pub(crate) min_sequence: u64,
    /// Highest sequence of any record; 0 if there is none.
    pub(crate) max_sequence: u64,
    /// CRC-32 over the checksums of all records, in order.
    pub(crate) records_crc: u32,
}

impl Summary {
    /// Bytes of the encoded form.
    pub(crate) const LEN: usize = 9 * 8 + 4;

    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let fields = [
            self.data_end,
            self.records,
            self.puts,
            self.put_bytes,
            self.expiring,
            self.tombstones,
            self.tombstone_bytes,
            self.min_sequence,
            self.max_sequence,
        ];
        for (slot, field) in bytes.chunks_exact_mut(8).zip(fields) {
            slot.copy_from_slice(&field.to_stored());
        }
        bytes[72..].copy_from_slice(&self.records_crc.to_stored());
        bytes
    }

    pub(crate) fn read(fields: &mut Fields<'_>) -> Result<Summary, Damage> {
        let summary = Summary {
            data_end: fields.u64()?,
            records: fields.u64()?,
            puts: fields.u64()?,
            put_bytes: fields.u64()?,
            expiring: fields.u64()?,
            tombstones: fields.u64()?,
            tombstone_bytes: fields.u64()?,
            min_sequence: fields.u64()?,
            max_sequence: fields.u64()?,
            records_crc: fields.u32()?,
        };
        if summary.is_possible() {
            Ok(summary)
        } else {
            Err(Damage::Field("segment summary"))
        }
    }

    /// Whether a segment can have this summary. Later sums over such summaries cannot overflow.
    pub(super) fn is_possible(&self) -> bool {
        let at_most = |parts: [u64; 2], whole: u64| parts[0].checked_add(parts[1]).is_some_and(|sum| sum <= whole);
        let bytes = self.data_end.saturating_sub(SEGMENT_HEADER_LEN);
        (SEGMENT_HEADER_LEN..=DATA_END_MAX).contains(&self.data_end)
            && self.records <= bytes / FIXED_HEADER_LEN as u64
            && at_most([self.puts, self.tombstones], self.records)
            && at_most([self.put_bytes, self.tombstone_bytes], bytes)
            && self.expiring <= self.puts
    }

    /// Whether compaction or recovery wrote the segment: a segment of the log has at least a start
    /// record besides puts and tombstones.
    pub(crate) fn is_rewritten(&self) -> bool {
        self.records == self.puts.saturating_add(self.tombstones)
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Summary, Damage> {
        let mut fields = Fields(body);
        let summary = Summary::read(&mut fields)?;
        if fields.0.is_empty() {
            Ok(summary)
        } else {
            Err(Damage::Field("segment summary"))
        }
    }
}

/// Body of the first record of a segment of the log (compaction outputs have none).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Start {
    /// The previous segment of the log, which may not be sealed yet; 0 if all earlier ones are.
    pub(crate) previous_id: u64,
    /// End of its data.
    pub(crate) previous_end: u64,
    /// Its checksum over all records.
    pub(crate) previous_crc: u32,
}

impl Start {
    /// Bytes of the encoded form.
    pub(crate) const LEN: usize = 20;

    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.previous_id.to_stored());
        bytes[8..16].copy_from_slice(&self.previous_end.to_stored());
        bytes[16..].copy_from_slice(&self.previous_crc.to_stored());
        bytes
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Start, Damage> {
        let mut fields = Fields(body);
        let start = Start {
            previous_id: fields.u64()?,
            previous_end: fields.u64()?,
            previous_crc: fields.u32()?,
        };
        if fields.0.is_empty() {
            Ok(start)
        } else {
            Err(Damage::Field("segment start"))
        }
    }
}

/// Body of a mark: the log was durable up to this point when the mark was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    /// A segment of the log.
    pub(crate) segment_id: u64,
    /// Everything before this offset in it, and all earlier segments of the log, were durable.
    pub(crate) offset: u64,
}

impl Mark {
    /// Bytes of the encoded form.
    pub(crate) const LEN: usize = 16;

    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.segment_id.to_stored());
        bytes[8..].copy_from_slice(&self.offset.to_stored());
        bytes
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Mark, Damage> {
        let mut fields = Fields(body);
        let mark = Mark {
            segment_id: fields.u64()?,
            offset: fields.u64()?,
        };
        if fields.0.is_empty() {
            Ok(mark)
        } else {
            Err(Damage::Field("mark"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_header_notices_every_flipped_bit() {
        let header = SegmentHeader {
            salt: 9,
            store_id: [3; 16],
            segment_id: 5,
            base_sequence: 77,
            created_ms: 1_700_000_000_000,
        };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            let damage = SegmentHeader::decode(&damaged).unwrap_err();
            assert!(!matches!(damage, Damage::Version(_)), "bit {bit}: {damage:?}");
        }
        for version in [0, VERSION + 1, 0x0101_0101, u32::MAX] {
            let mut other = bytes;
            other[8..12].copy_from_slice(&version.to_stored());
            assert_eq!(
                SegmentHeader::decode(&other),
                Err(Damage::Field("version")),
                "{version:#x}"
            );
            // As a program of that version writes it, with its checksum in the same place or
            // elsewhere.
            let crc = crc32fast::hash(&other[..60]);
            other[60..].copy_from_slice(&crc.to_stored());
            let newer = version > VERSION;
            let damage = if newer {
                Damage::Version(version)
            } else {
                Damage::Field("version")
            };
            assert_eq!(SegmentHeader::decode(&other), Err(damage), "{version:#x}");
            other[40..].fill(7);
            let damage = if newer {
                Damage::Version(version)
            } else {
                Damage::HeaderChecksum
            };
            assert_eq!(SegmentHeader::decode(&other), Err(damage), "{version:#x}");
        }
    }

    /// Verify once had a lower bound than recovery, and would not have read the seal of the longest
    /// segment.
    #[test]
    fn the_longest_segment_ends_with_a_seal_that_is_read_like_the_rest() {
        let longest = Summary {
            data_end: RECORD_START_MAX + RECORD_LEN_MAX,
            min_sequence: u64::MAX,
            ..Summary::default()
        };
        assert_eq!(Summary::decode(&longest.encode()), Ok(longest));
        let too_long = Summary {
            data_end: longest.data_end + 1,
            ..longest
        };
        assert!(Summary::decode(&too_long.encode()).is_err());
        assert_eq!(SEGMENT_LEN_MAX, longest.data_end + SEAL_LEN);
    }

    #[test]
    fn summary_and_start_survive_a_round_trip() {
        let summary = Summary {
            data_end: 4096,
            records: 9,
            puts: 5,
            put_bytes: 600,
            expiring: 1,
            tombstones: 2,
            tombstone_bytes: 64,
            min_sequence: 4,
            max_sequence: 12,
            records_crc: 0xdead_beef,
        };
        assert_eq!(Summary::decode(&summary.encode()), Ok(summary));
        let start = Start {
            previous_id: 4,
            previous_end: 4096,
            previous_crc: 1,
        };
        assert_eq!(Start::decode(&start.encode()), Ok(start));
        assert!(Summary::decode(&[0; Summary::LEN]).is_err());
        for change in [
            |summary: &mut Summary| summary.data_end = u64::MAX - 7,
            |summary: &mut Summary| summary.records = 4096 / 24,
            |summary: &mut Summary| summary.puts = u64::MAX,
            |summary: &mut Summary| summary.put_bytes = 4096 - 64,
            |summary: &mut Summary| summary.expiring = 6,
        ] {
            let mut impossible = summary;
            change(&mut impossible);
            assert!(Summary::decode(&impossible.encode()).is_err(), "{impossible:?}");
        }
        assert!(Start::decode(&[0; 3]).is_err());
        let mark = Mark {
            segment_id: 4,
            offset: 4096,
        };
        assert_eq!(Mark::decode(&mark.encode()), Ok(mark));
        assert!(Mark::decode(&[0; 17]).is_err());
    }
}
