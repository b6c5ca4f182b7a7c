//! The hint of a segment of a store with known content: unchanged, changed in places, or replaced.

use super::format::hint_decode;
use super::store::{opened, prepared};
use crate::ReadMode;
use crate::format::hint::Hint;
use crate::format::hint_file;
use crate::format::record::{Place, Record};
use crate::format::segment::SegmentHeader;
use crate::segment::scan::KeysCrc;
use crate::testing::input::{Input, strike};
use crate::testing::repair;

/// A hint file, alone and in a store opened from its hints: the store's content is the same as
/// without the hint, and the hint is used if and only if it fits its segment.
pub fn hint_load(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.u8();
    let mut damage = Input::new(input.bytes(6));
    let prepared = prepared();
    let (id, summary, segment) = prepared.segment();
    let mut bytes = if mode & 32 == 0 {
        input.rest().to_vec()
    } else {
        // The true hint, with as many changes as the input says.
        let mut bytes = prepared.file(&hint_file(id)).to_vec();
        while !input.is_empty() {
            strike(&mut bytes, &mut input);
        }
        bytes
    };
    if mode & 4 != 0 && bytes.len() >= 64 {
        // A hint that claims to belong to this segment.
        bytes[12..28].copy_from_slice(&prepared.manifest.store_id);
        bytes[28..36].copy_from_slice(&id.to_le_bytes());
        bytes[36..44].copy_from_slice(&summary.data_end.to_le_bytes());
        bytes[44..48].copy_from_slice(&summary.records_crc.to_le_bytes());
    }
    match mode & 3 {
        0 => {}
        1 => repair::envelope(&mut bytes, b"EMBRHINT"),
        _ => repair::hint(&mut bytes),
    }
    let truth = keys_crc(&bytes, segment);
    if let Some(crc) = truth.filter(|_| mode & 16 != 0) {
        bytes[48..52].copy_from_slice(&crc.to_le_bytes());
        repair::envelope(&mut bytes, b"EMBRHINT");
    }
    let forged = truth.is_some_and(|crc| bytes[48..52] == crc.to_le_bytes());
    hint_decode(&bytes, &mut damage);
    let fits = bytes.len() as u64 <= Hint::len_max(&summary)
        && Hint::decode(&bytes).is_ok_and(|hint| {
            (hint.store_id, hint.segment_id) == (prepared.manifest.store_id, id)
                && (hint.data_end, hint.records_crc) == (summary.data_end, summary.records_crc)
        });
    let disk = prepared.with_log(&hint_file(id), &bytes);
    let read_mode = if mode & 8 == 0 { ReadMode::Map } else { ReadMode::Pread };
    let opened = opened(&disk, read_mode);
    if let Ok((_, report)) = &opened {
        // The hints of the other segments are unchanged.
        let believed = prepared.manifest.segments.len() as u64 - u64::from(!(fits && forged));
        assert_eq!(
            (report.index_file_used, report.hints_used, report.hints_rebuilt),
            (false, believed, u64::from(!(fits && forged))),
            "opened by the hints that fit: {report:?}"
        );
    }
    match opened {
        // Damage cannot produce a list that leaves out records but has a correct checksum. A forged
        // one may hide written records, but cannot invent any.
        Ok((listing, _)) if forged => prepared.check_written(&listing),
        Err(_) if forged => {}
        opened => assert_eq!(
            opened.unwrap().0,
            prepared.listing,
            "a hint changed what the store shows"
        ),
    }
}

/// The checksum over headers and keys of the records that a hint lists, if there is a put or
/// tombstone at each offset.
fn keys_crc(hint: &[u8], segment: &[u8]) -> Option<u32> {
    let hint = Hint::decode(hint).ok()?;
    let header = SegmentHeader::decode(segment).ok()?;
    let mut keys = KeysCrc::default();
    for offset in hint.offsets.iter() {
        let place = Place {
            salt: header.salt,
            base_sequence: header.base_sequence,
            offset,
        };
        let stored = segment.get(offset as usize..)?;
        let record = Record::parse(stored, place).ok()?;
        if !record.header.kind.has_key() {
            return None;
        }
        keys.add(&stored[..record.header.header_len() + record.key().len()]);
    }
    Some(keys.value())
}
