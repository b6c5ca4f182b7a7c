//! The manifest: the live segments, and the counters for numbers that must never be reused.

use super::segment::Summary;
use super::{Damage, MANIFEST_MAGIC, Stored, VERSION, begin_envelope_of, end_envelope, open_envelope_up_to};
use crate::location::Location;

/// No two live segments have the same id modulo this.
pub(crate) const SEGMENT_INDEXES: u64 = Location::SEGMENTS_MAX;

/// Version of a manifest that names a ring. Programs that know no ring refuse it, since they would
/// lose what is there. Any other manifest has the version of all structures.
const RING_VERSION: u32 = 2;

/// A manifest in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) store_id: [u8; 16],
    /// Rises by one with each manifest written.
    pub(crate) generation: u64,
    /// No segment with this id or above was ever created.
    pub(crate) next_segment_id: u64,
    /// No sequence below this is assigned again, even if no record has it any more.
    pub(crate) next_sequence: u64,
    /// No namespace number below this is assigned again.
    pub(crate) next_namespace: u32,
    /// Length of the ring in bytes, if it may hold records that continue the open segments; else 0.
    pub(crate) ring_bytes: u32,
    /// In the order in which they were listed; for open ones that is the order of the log.
    pub(crate) segments: Vec<SegmentEntry>,
}

/// One live segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentEntry {
    pub(crate) id: u64,
    pub(crate) state: SegmentState,
}

/// What the manifest knows about a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentState {
    /// Being written, or about to be: recovery finds its end by scanning it.
    Open,
    /// Ends with a seal that holds the same summary.
    Sealed(Summary),
    /// Found unsealed after a crash; only the bytes before `data_end` count, and they were durable.
    Cut(Summary),
}

impl SegmentState {
    pub(crate) fn is_open(&self) -> bool {
        *self == SegmentState::Open
    }

    const OPEN: u8 = 1;
    const SEALED: u8 = 2;
    const CUT: u8 = 3;
}

/// A longer ring does not exist.
pub(crate) const RING_BYTES_MAX: u64 = 64 << 20;

/// Generations, segment ids and sequences rise in small steps, so none ever reaches this, and none
/// overflows.
const NUMBER_MAX: u64 = 1 << 62;

impl Manifest {
    /// Bytes before the list of segments, at least.
    pub(crate) const HEAD_LEN: usize = 12 + 16 + 8 + 8 + 8 + 4 + 8;

    /// Length of the longest manifest, with as many segments as there can be, in bytes.
    pub(crate) const LEN_MAX: u64 = Self::HEAD_LEN as u64 + 4 + SEGMENT_INDEXES * (8 + 1 + Summary::LEN as u64) + 4;

    /// Bytes before the list of segments.
    pub(crate) fn head_len(&self) -> usize {
        Self::HEAD_LEN + if self.ring_bytes == 0 { 0 } else { size_of::<u32>() }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let has_ring = self.ring_bytes != 0;
        let mut bytes = begin_envelope_of(&MANIFEST_MAGIC, if has_ring { RING_VERSION } else { VERSION });
        bytes.extend_from_slice(&self.store_id);
        bytes.extend_from_slice(&self.generation.to_stored());
        bytes.extend_from_slice(&self.next_segment_id.to_stored());
        bytes.extend_from_slice(&self.next_sequence.to_stored());
        bytes.extend_from_slice(&self.next_namespace.to_stored());
        if has_ring {
            bytes.extend_from_slice(&self.ring_bytes.to_stored());
        }
        bytes.extend_from_slice(&(self.segments.len() as u64).to_stored());
        for entry in &self.segments {
            bytes.extend_from_slice(&entry.id.to_stored());
            match &entry.state {
                SegmentState::Open => bytes.push(SegmentState::OPEN),
                SegmentState::Sealed(summary) => {
                    bytes.push(SegmentState::SEALED);
                    bytes.extend_from_slice(&summary.encode());
                }
                SegmentState::Cut(summary) => {
                    bytes.push(SegmentState::CUT);
                    bytes.extend_from_slice(&summary.encode());
                }
            }
        }
        end_envelope(bytes)
    }

    /// Store id and generation from the first bytes of a manifest. Nothing is checked.
    pub(crate) fn decode_identity(head: &[u8; Self::HEAD_LEN]) -> ([u8; 16], u64) {
        let mut fields = super::Fields(head.get(12..).unwrap_or_default());
        (fields.bytes().unwrap_or_default(), fields.u64().unwrap_or_default())
    }

    /// The checksum of the encoded manifest, which identifies it.
    pub(crate) fn checksum(&self) -> u32 {
        let encoded = self.encode();
        encoded.last_chunk().map_or(0, |crc| u32::from_stored(*crc))
    }

    /// Checks the invariants of every manifest, after reading and before writing: a store whose
    /// manifest violates them could not be opened again.
    pub(crate) fn check(&self) -> Result<(), Damage> {
        let numbers = [self.generation, self.next_segment_id, self.next_sequence];
        // Only damage can produce such numbers.
        if numbers.iter().any(|number| *number > NUMBER_MAX) {
            return Err(Damage::Field("generation, segment id or sequence"));
        }
        // 0 is never a segment id or sequence, and as a namespace it is the store's own, so the
        // next numbers are above 0.
        if self.next_segment_id == 0 || self.next_sequence == 0 || self.next_namespace == 0 {
            return Err(Damage::Field("next number"));
        }
        let has_open = self.segments.iter().any(|entry| entry.state.is_open());
        if u64::from(self.ring_bytes) > RING_BYTES_MAX || (self.ring_bytes > 0 && !has_open) {
            return Err(Damage::Field("length of the ring"));
        }
        let mut indexes = std::collections::HashSet::with_capacity(self.segments.len());
        for entry in &self.segments {
            // A location in memory holds only the low 16 bits of an id, so two segments that share
            // them would be confused.
            if entry.id == 0 || entry.id >= self.next_segment_id || !indexes.insert(entry.id % SEGMENT_INDEXES) {
                return Err(Damage::Field("segment id"));
            }
            if let SegmentState::Sealed(summary) | SegmentState::Cut(summary) = &entry.state
                && !summary.is_possible()
            {
                return Err(Damage::Field("segment summary"));
            }
        }
        Ok(())
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Manifest, Damage> {
        let (version, mut fields) = open_envelope_up_to(RING_VERSION, bytes, &MANIFEST_MAGIC)?;
        let mut manifest = Manifest {
            store_id: fields.bytes()?,
            generation: fields.u64()?,
            next_segment_id: fields.u64()?,
            next_sequence: fields.u64()?,
            next_namespace: fields.u32()?,
            ring_bytes: if version == RING_VERSION { fields.u32()? } else { 0 },
            segments: Vec::new(),
        };
        if version == RING_VERSION && manifest.ring_bytes == 0 {
            return Err(Damage::Field("length of the ring"));
        }
        // A count that is too large ends at the first entry that is not there.
        let count = fields.u64()?;
        for _ in 0..count {
            let id = fields.u64()?;
            let state = match fields.u8()? {
                SegmentState::OPEN => SegmentState::Open,
                SegmentState::SEALED => SegmentState::Sealed(Summary::read(&mut fields)?),
                SegmentState::CUT => SegmentState::Cut(Summary::read(&mut fields)?),
                _ => return Err(Damage::Field("segment state")),
            };
            manifest.segments.push(SegmentEntry { id, state });
        }
        manifest.check()?;
        if fields.0.is_empty() {
            Ok(manifest)
        } else {
            Err(Damage::Field("manifest length"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let summary = Summary {
            data_end: 64,
            min_sequence: u64::MAX,
            ..Summary::default()
        };
        Manifest {
            store_id: [8; 16],
            generation: 3,
            next_segment_id: 9,
            next_sequence: 77,
            next_namespace: 2,
            ring_bytes: 0,
            segments: vec![
                SegmentEntry {
                    id: 4,
                    state: SegmentState::Sealed(summary),
                },
                SegmentEntry {
                    id: 1,
                    state: SegmentState::Cut(summary),
                },
                SegmentEntry {
                    id: 8,
                    state: SegmentState::Open,
                },
            ],
        }
    }

    #[test]
    fn a_manifest_survives_a_round_trip() {
        for ring_bytes in [0, 4096, 1 << 20] {
            let manifest = Manifest {
                ring_bytes,
                ..manifest()
            };
            assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
        }
    }

    /// One that knows version 1 only, as all did before the ring.
    #[test]
    fn a_program_that_knows_no_ring_refuses_a_manifest_that_names_one_and_reads_any_other() {
        let as_before = |bytes: &[u8]| crate::format::open_envelope(bytes, &MANIFEST_MAGIC).map(|_| ());
        assert_eq!(as_before(&manifest().encode()), Ok(()));
        let ring_bytes = 4096;
        let with_ring = Manifest {
            ring_bytes,
            ..manifest()
        }
        .encode();
        assert_eq!(as_before(&with_ring), Err(Damage::Version(2)));
    }

    #[test]
    fn the_length_of_a_ring_is_there_if_the_version_says_so_and_is_none_that_cannot_be() {
        let mut bytes = manifest().encode();
        bytes.truncate(bytes.len() - 4);
        bytes[8] = 2;
        assert!(Manifest::decode(&end_envelope(bytes)).is_err());
        let huge = Manifest {
            ring_bytes: u32::MAX,
            ..manifest()
        };
        assert!(Manifest::decode(&huge.encode()).is_err());
    }

    #[test]
    fn a_cut_manifest_is_refused_at_every_length() {
        for ring_bytes in [0, 4096] {
            let bytes = Manifest {
                ring_bytes,
                ..manifest()
            }
            .encode();
            for length in 0..bytes.len() {
                assert!(Manifest::decode(&bytes[..length]).is_err(), "{length}");
            }
        }
    }

    #[test]
    fn ids_that_repeat_or_were_never_given_out_are_refused() {
        for id in [0, 4, 9] {
            let mut wrong = manifest();
            wrong.segments[2].id = id;
            assert!(Manifest::decode(&wrong.encode()).is_err(), "{id}");
        }
    }

    /// Found by the fuzz target `store_open`: the first segment of such a store could not be
    /// reopened.
    #[test]
    fn numbers_that_begin_at_zero_are_refused() {
        for change in [
            |manifest: &mut Manifest| manifest.next_segment_id = 0,
            |manifest: &mut Manifest| manifest.next_sequence = 0,
            |manifest: &mut Manifest| manifest.next_namespace = 0,
        ] {
            let mut wrong = manifest();
            wrong.segments.clear();
            assert!(Manifest::decode(&wrong.encode()).is_ok());
            change(&mut wrong);
            assert!(Manifest::decode(&wrong.encode()).is_err(), "{wrong:?}");
        }
    }

    /// Found by the fuzz target `manifest_load`.
    #[test]
    fn numbers_that_would_soon_run_over_are_refused() {
        for change in [
            |manifest: &mut Manifest| manifest.generation = u64::MAX,
            |manifest: &mut Manifest| manifest.next_segment_id = u64::MAX,
            |manifest: &mut Manifest| manifest.next_sequence = NUMBER_MAX + 1,
        ] {
            let mut wrong = manifest();
            change(&mut wrong);
            assert!(Manifest::decode(&wrong.encode()).is_err(), "{wrong:?}");
        }
    }

    /// Found by the fuzz target `manifest_load`.
    #[test]
    fn ids_that_are_the_same_modulo_65536_are_refused() {
        let mut wrong = manifest();
        wrong.next_segment_id = 1 << 32;
        for (id, refused) in [
            (8, false),
            (4 + 65_536, true),
            (5 + 65_536, false),
            (1 + (65_536 << 4), true),
        ] {
            wrong.segments[2].id = id;
            assert_eq!(Manifest::decode(&wrong.encode()).is_err(), refused, "{id}");
        }
    }
}
