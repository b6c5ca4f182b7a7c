//! The ring, which is read by the segments that it continues.

use super::{Going, Part, PartKind, PartValue, View};
use crate::error::{Error, Result};
use crate::format::record::{Place, Record};
use crate::format::segment::SegmentHeader;
use crate::format::segment_file;
use crate::log::manifest::ManifestStore;
use crate::repair::damaged::{Content, open_if_there};
use crate::segment::ring::Ring;
use crate::storage::Directory;

use PartValue::{Number, Text};

impl<L: FnMut(&Part<'_>) -> bool> View<'_, L> {
    /// Shows what the ring has behind each segment that the manifest beside it lists as open.
    /// Nothing, if that names no ring.
    pub(super) fn ring(&mut self, directory: &Directory) -> Result<Going> {
        let manifest = match ManifestStore::read(directory) {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return Ok(true),
            Err(error) => return self.unknown(error),
        };
        let ring = match Ring::read(directory, manifest.ring_bytes) {
            Ok(Some(ring)) => ring,
            Ok(None) => return Ok(true),
            Err(error) => return self.unknown(error),
        };
        let open = manifest.segments.iter().filter(|entry| entry.state.is_open());
        for id in open.map(|entry| entry.id) {
            let name = segment_file(id);
            let path = directory.path_of(&name);
            let Some(file) = open_if_there(directory, &name)? else {
                continue;
            };
            let length = file.len().map_err(|error| Error::io("measure", &path, error))?;
            let mut content = Content::default();
            content.read(&*file, &path, length)?;
            let Ok(header) = SegmentHeader::decode(&content.bytes) else {
                continue;
            };
            if let Some(found) = ring.continuation(&content.bytes, header)
                && !self.records_of_ring(&found.bytes, found.offset, header, manifest.ring_bytes)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Shows the whole ring as damaged, if that is why it cannot be read.
    fn unknown(&mut self, error: Error) -> Result<Going> {
        match error {
            Error::Corruption { .. } => {
                let fields = vec![("cause", Text(error.to_string()))];
                Ok(self.show(PartKind::Damaged, 0, self.bytes.len() as u64, fields))
            }
            error => Err(error),
        }
    }

    /// Shows these records of a segment, each where it is in the ring.
    fn records_of_ring(&mut self, mut bytes: &[u8], mut offset: u64, header: SegmentHeader, ring_bytes: u32) -> Going {
        let place = |offset| Place {
            salt: header.salt,
            base_sequence: header.base_sequence,
            offset,
        };
        while let Ok(record) = Record::parse(bytes, place(offset)) {
            let of_segment = vec![
                ("continues segment", Number(header.segment_id)),
                ("at its offset", Number(offset)),
            ];
            if !self.record(offset % u64::from(ring_bytes), &record, of_segment) {
                return false;
            }
            let length = record.header.record_len();
            bytes = bytes.get(length as usize..).unwrap_or_default();
            offset += length;
        }
        true
    }
}
