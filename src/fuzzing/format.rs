//! Single structures: bytes that decode are exactly what the encoder would write, and damaged
//! variants do not decode.

use crate::format::hint::Hint;
use crate::format::manifest::Manifest;
use crate::format::record::{BatchBegin, Header, Place, Record};
use crate::format::segment::{Mark, SegmentHeader, Start, Summary};
use crate::format::{ALIGNMENT, FileName, classify, hint_file, segment_file};
use crate::index::namespaces::{NAME_LEN_MAX, decode_entry, encode_entry, encode_number};
use crate::testing::input::{Input, strike};
use crate::testing::repair;

/// A record's header and body, and the bodies of records about the log.
pub fn record_decode(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.u8();
    let place = Place {
        salt: input.u32(),
        base_sequence: input.u64(),
        offset: u64::from(input.u32()) * ALIGNMENT,
    };
    let (bit, salt) = (usize::from(input.u16()), input.u32());
    let mut bytes = input.rest().to_vec();
    log_bodies(&bytes);
    if mode & 1 != 0 {
        repair::record(&mut bytes, 0, place.offset, place.salt);
    }
    let Ok(record) = Record::parse(&bytes, place) else {
        return;
    };
    let header = record.header;
    let length = header.record_len();
    assert!(length <= bytes.len() as u64 && length.is_multiple_of(ALIGNMENT));
    let parts = [record.key(), record.metadata().unwrap_or_default(), record.value()];
    assert_eq!(parts.concat(), record.body, "key, metadata and value make up the body");
    assert_eq!(record.body.len() as u64, header.body_len());
    assert_eq!(header.kind.has_key(), !record.key().is_empty());
    let encoded = header.encode(place);
    if header.kind.has_key() || bytes[10..12] == [0, 0] {
        assert_eq!(encoded.as_bytes(), &bytes[..header.header_len()]);
    } else {
        // Other kinds have no key; the field of its length is ignored.
        let again = Header::decode(encoded.as_bytes(), place);
        assert_eq!(again, Ok(header));
    }
    for cut in [0, 1, length as usize / 2, length as usize - 1] {
        assert!(Record::parse(&bytes[..cut], place).is_err(), "cut to {cut} bytes");
    }
    let moved = |place| Record::parse(&bytes, place).map(|record| record.header);
    if salt != place.salt {
        assert!(moved(Place { salt, ..place }).is_err(), "valid under another salt");
    }
    let offset = place.offset ^ (ALIGNMENT << (bit % 32));
    assert!(moved(Place { offset, ..place }).is_err(), "valid at another offset");
    if record.check_body().is_err() {
        return;
    }
    log_bodies(record.body);
    let used = header.header_len() + record.body.len();
    let bit = bit % (used * 8);
    let mut flipped = bytes[..length as usize].to_vec();
    flipped[bit / 8] ^= 1 << (bit % 8);
    let accepted = Record::parse(&flipped, place).and_then(|record| record.check_body());
    assert!(accepted.is_err(), "flipped bit {bit} was not detected");
}

fn log_bodies(body: &[u8]) {
    if let Ok(frame) = BatchBegin::decode(body) {
        assert_eq!(frame.encode(), body);
        assert!(frame.count > 0 && frame.bytes.is_multiple_of(ALIGNMENT));
    }
    if let Ok(mark) = Mark::decode(body) {
        assert_eq!(mark.encode(), body);
    }
    if let Ok(start) = Start::decode(body) {
        assert_eq!(start.encode(), body);
    }
    if let Ok(summary) = Summary::decode(body) {
        assert_eq!(summary.encode(), body);
        assert!(summary.puts + summary.tombstones <= summary.records);
    }
    if let Ok(header) = SegmentHeader::decode(body) {
        // The reserved bytes are ignored.
        assert_eq!(header.encode()[..56], body[..56]);
    }
}

/// A whole manifest file: if it decodes, it encodes to the same bytes.
pub(super) fn manifest_decode(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.u8();
    let mut damage = Input::new(input.bytes(6));
    let mut bytes = input.rest().to_vec();
    match mode & 3 {
        0 => {}
        1 => repair::manifest_envelope(&mut bytes),
        _ => repair::manifest(&mut bytes),
    }
    let Ok(manifest) = Manifest::decode(&bytes) else {
        return;
    };
    assert_eq!(manifest.encode(), bytes);
    assert!(manifest.segments.len() * 9 <= bytes.len());
    let mut indexes = std::collections::HashSet::new();
    for entry in &manifest.segments {
        assert!(entry.id != 0 && entry.id < manifest.next_segment_id);
        assert!(indexes.insert(entry.id % 65_536), "two segments share an index");
    }
    refused_when_struck(&bytes, &mut damage, |bytes| Manifest::decode(bytes).is_ok());
}

/// A whole hint file: if it decodes, it encodes to the same bytes, and its offsets are within the
/// segment.
pub(super) fn hint_decode(bytes: &[u8], damage: &mut Input<'_>) {
    let Ok(hint) = Hint::decode(bytes) else {
        return;
    };
    assert_eq!(hint.encode(), bytes);
    assert!(hint.offsets.len() * 3 <= bytes.len());
    for (index, offset) in hint.offsets.iter().enumerate() {
        assert_eq!(hint.offsets.get(index), Some(offset));
        assert!((64..hint.data_end).contains(&offset) && offset.is_multiple_of(ALIGNMENT));
    }
    refused_when_struck(bytes, damage, |bytes| Hint::decode(bytes).is_ok());
}

/// A file under one checksum is refused when damaged or truncated.
fn refused_when_struck(bytes: &[u8], damage: &mut Input<'_>, accepts: impl Fn(&[u8]) -> bool) {
    let cut = usize::from(damage.u16()) % bytes.len();
    assert!(!accepts(&bytes[..cut]), "cut to {cut} bytes");
    let mut struck = bytes.to_vec();
    strike(&mut struck, damage);
    if struck != bytes {
        assert!(!accepts(&struck), "undetected damage");
    }
}

/// A namespace record: number, stable id and name.
pub fn namespace_record(data: &[u8]) {
    let mut input = Input::new(data);
    let key_length = input.below(6);
    let (key, value) = (input.bytes(key_length), input.rest());
    let Ok((number, id, name)) = decode_entry(key, value) else {
        return;
    };
    assert_ne!(number, 0, "the store's own keyspace is no namespace");
    assert_eq!(encode_number(number), key);
    assert_eq!(encode_entry(id, name), value);
    assert!(
        (1..=NAME_LEN_MAX).contains(&name.len()),
        "a name of {} bytes",
        name.len()
    );
}

/// A file name in a store's directory.
pub fn file_name(data: &[u8]) {
    let name = String::from_utf8_lossy(data);
    match classify(&name) {
        FileName::Segment(id) => assert_eq!(segment_file(id), name),
        FileName::Hint(id) => assert_eq!(hint_file(id), name),
        FileName::Own => {
            assert!(
                [
                    "MANIFEST",
                    "MANIFEST.tmp",
                    "LOCK",
                    "RESERVE",
                    "RING",
                    "INDEX",
                    "UNFINISHED"
                ]
                .contains(&&*name)
            )
        }
        FileName::OfSystem => assert!(name.starts_with(['.', 'l', 'S']), "{name} is no name of a system"),
        FileName::Foreign => {
            let stem = name.strip_suffix(".segment").or(name.strip_suffix(".hint"));
            let is_id = |stem: &str| stem.len() == 16 && stem.bytes().all(|byte| b"0123456789abcdef".contains(&byte));
            assert!(!stem.is_some_and(is_id), "{name} is ours");
        }
    }
}
