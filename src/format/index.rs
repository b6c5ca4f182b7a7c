//! The head of the index file. It names the store, and the manifest, that the indexes belong to.
//!
//! The indexes themselves follow in three sections, written and read by the code in `index`.

use super::{Damage, INDEX_MAGIC, Stored, begin_envelope, end_envelope, open_envelope};

/// The head of an index file in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexHead {
    pub(crate) store_id: [u8; 16],
    /// Generation and checksum of the manifest with which the indexes were written. With any other
    /// manifest they are out of date.
    pub(crate) generation: u64,
    pub(crate) manifest_crc: u32,
    /// Seeds of the keydir's hashes.
    pub(crate) hash_seeds: [u64; 2],
    /// Digest of the hashes of fixed keys under these seeds: a program with another hash function
    /// must not use the keydir.
    pub(crate) hash_probe: u64,
    pub(crate) sections: [Section; SECTIONS],
}

/// Keydir; namespaces and key orders; everything else.
pub(crate) const SECTIONS: usize = 3;

/// A part of an index file, with its own checksum so that parts can be read in parallel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) length: u64,
    pub(crate) crc: u32,
}

impl IndexHead {
    /// Bytes of the encoded head; the first section follows it.
    pub(crate) const LEN: usize = 12 + 16 + 8 + 4 + 16 + 8 + SECTIONS * 12 + 4;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = begin_envelope(&INDEX_MAGIC);
        bytes.extend_from_slice(&self.store_id);
        bytes.extend_from_slice(&self.generation.to_stored());
        bytes.extend_from_slice(&self.manifest_crc.to_stored());
        for seed in self.hash_seeds {
            bytes.extend_from_slice(&seed.to_stored());
        }
        bytes.extend_from_slice(&self.hash_probe.to_stored());
        for section in &self.sections {
            bytes.extend_from_slice(&section.length.to_stored());
            bytes.extend_from_slice(&section.crc.to_stored());
        }
        end_envelope(bytes)
    }

    /// Decodes what [`IndexHead::encode`] made.
    pub(crate) fn decode(bytes: &[u8]) -> Result<IndexHead, Damage> {
        let mut fields = open_envelope(bytes, &INDEX_MAGIC)?;
        let mut head = IndexHead {
            store_id: fields.bytes()?,
            generation: fields.u64()?,
            manifest_crc: fields.u32()?,
            hash_seeds: [fields.u64()?, fields.u64()?],
            hash_probe: fields.u64()?,
            sections: [Section::default(); SECTIONS],
        };
        for section in &mut head.sections {
            (section.length, section.crc) = (fields.u64()?, fields.u32()?);
        }
        match fields.0 {
            [] => Ok(head),
            _ => Err(Damage::Field("length of an index head")),
        }
    }

    /// Bytes of the whole file; None if the sum overflows.
    pub(crate) fn file_len(&self) -> Option<u64> {
        self.sections
            .iter()
            .try_fold(Self::LEN as u64, |sum, section| sum.checked_add(section.length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_survives_a_round_trip_and_no_flipped_bit_passes() {
        let head = IndexHead {
            store_id: [7; 16],
            generation: 3,
            manifest_crc: 4,
            hash_seeds: [5, 6],
            hash_probe: 8,
            sections: [1, 2, 3].map(|length| Section { length, crc: 9 }),
        };
        let bytes = head.encode();
        assert_eq!(bytes.len(), IndexHead::LEN);
        assert_eq!(IndexHead::decode(&bytes), Ok(head));
        assert_eq!(head.file_len(), Some(IndexHead::LEN as u64 + 6));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(IndexHead::decode(&damaged).is_err(), "bit {bit}");
        }
    }
}
