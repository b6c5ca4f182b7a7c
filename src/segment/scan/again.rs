//! Walking once more over records that were scanned.

use super::{Found, ScanEnd};
use crate::format::record::{Place, Record};
use crate::format::segment::{SEGMENT_HEADER_LEN, SegmentHeader};

/// The puts and tombstones of the valid part of a segment that was just scanned to its end. Nothing
/// is checked again.
pub(crate) fn scanned_records<'a>(
    bytes: &'a [u8],
    scan: &ScanEnd,
    header: &SegmentHeader,
) -> impl Iterator<Item = Found<'a>> {
    let (salt, base_sequence) = (header.salt, header.base_sequence);
    let valid = bytes.get(..scan.valid_end as usize).unwrap_or(bytes);
    let mut offset = SEGMENT_HEADER_LEN;
    let records = std::iter::from_fn(move || {
        let place = Place {
            salt,
            base_sequence,
            offset,
        };
        let record = Record::parse_checked(valid.get(offset as usize..)?, place).ok()?;
        let found = Found { offset, record };
        offset += record.header.record_len();
        Some(found)
    });
    records.filter(|found| found.record.header.kind.has_key())
}
