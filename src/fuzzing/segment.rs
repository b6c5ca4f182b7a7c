//! A whole segment, as read by recovery and as read by verify and salvage.

use crate::format::hint::Hint;
use crate::format::record::{Header, Kind, Place, Record};
use crate::format::segment::{SEGMENT_HEADER_LEN, SegmentHeader, Summary};
use crate::format::{ALIGNMENT, Damage};
use crate::segment::scan::{End, Found, KeysCrc, Scanner, Sorter, last_mark_after};
use crate::segment::walk::{Reach, Step, Walker};
use crate::testing::input::{Input, strike};
use crate::testing::repair::{self, Repair};

/// The result of a scan.
struct Scan<'a> {
    found: Vec<Found<'a>>,
    end: End,
    valid_end: u64,
    summary: Summary,
    has_mark: bool,
}

/// The result of a walk.
struct Walked<'a> {
    found: Vec<Found<'a>>,
    /// Offset, length and kind of each damage.
    damaged: Vec<(u64, u64, Damage)>,
    summary: Summary,
    sealed: bool,
}

/// The scan of recovery and the walk of verify and salvage over the same bytes.
pub fn segment_scan(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.u8();
    let header = SegmentHeader {
        salt: input.u32(),
        store_id: [1; 16],
        segment_id: 1,
        base_sequence: input.choose(&[1, 0, 1 << 40, u64::MAX - 8]),
        created_ms: 0,
    };
    let mut damage = Input::new(input.bytes(12));
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(input.rest());
    if mode & 1 != 0 {
        repair::records(&mut bytes, Repair::from_bits(mode >> 1));
    }
    let before = bytes.clone();
    let mut records = bytes.split_off(SEGMENT_HEADER_LEN as usize);
    for _ in 0..mode >> 4 & 3 {
        strike(&mut records, &mut damage);
    }
    bytes.append(&mut records);
    // If there is damage already, a strike may undo it by chance and so create a record.
    let may_compare = bytes != before && !matches!(scan(&before, header).end, End::Damaged { .. });
    let scan = scan(&bytes, header);
    for found in &scan.found {
        check_sound(&bytes, header, found);
        if may_compare {
            check_was_there(&before, &bytes, found);
        }
    }
    check_scan(&bytes, header, &scan);
    check_walk(&bytes, header, &scan);
    check_order(&bytes, header, &scan);
    let mark = last_mark_after(&bytes, &header, SEGMENT_HEADER_LEN);
    assert!(
        mark.is_some() || !scan.has_mark,
        "a mark that a scan sees is found by searching everywhere"
    );
}

fn scan(bytes: &[u8], header: SegmentHeader) -> Scan<'_> {
    let mut scanner = Scanner::new(bytes, header);
    let mut found = Vec::new();
    let end = loop {
        let valid_end = scanner.valid_end();
        match scanner.next() {
            Ok(next) => found.push(next),
            Err(end) => break end,
        }
        assert!(scanner.valid_end() > valid_end, "a scan makes progress");
    };
    assert_eq!(scanner.next().err(), Some(end), "after an end, the same end again");
    Scan {
        found,
        end,
        valid_end: scanner.valid_end(),
        summary: scanner.summary(),
        has_mark: scanner.mark().is_some(),
    }
}

fn walk(bytes: &[u8], header: SegmentHeader, reach: Reach) -> Walked<'_> {
    let mut walker = Walker::new(bytes, header, reach);
    let (mut found, mut damaged) = (Vec::new(), Vec::new());
    while let Some(step) = walker.next() {
        match step {
            Step::Record { found: record, .. } => found.push(record),
            Step::Log(_) => {}
            Step::Damaged { offset, length, damage } => damaged.push((offset, length, damage)),
        }
    }
    Walked {
        found,
        damaged,
        summary: walker.summary(),
        sealed: walker.is_sealed(),
    }
}

fn same(a: &[Found<'_>], b: &[Found<'_>]) -> bool {
    let key = |found: &Found<'_>| (found.offset, found.record.header, found.record.body.len());
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| key(a) == key(b))
}

/// A yielded record is valid at its offset, and both its checksums match.
fn check_sound(bytes: &[u8], header: SegmentHeader, found: &Found<'_>) {
    assert!(found.offset >= SEGMENT_HEADER_LEN && found.offset.is_multiple_of(ALIGNMENT));
    let place = Place {
        salt: header.salt,
        base_sequence: header.base_sequence,
        offset: found.offset,
    };
    let stored = &bytes[found.offset as usize..];
    assert!(found.record.header.record_len() <= stored.len() as u64);
    let record = Record::parse(stored, place).expect("a yielded record can be read in its place");
    assert_eq!(record.header, found.record.header);
    record
        .check_body()
        .expect("a yielded record matches the checksum of its body");
}

/// Damage removes records, and never creates new ones from sound bytes.
fn check_was_there(before: &[u8], after: &[u8], found: &Found<'_>) {
    let header: &Header = &found.record.header;
    let start = found.offset as usize;
    let range = start..start + header.header_len() + found.record.body.len();
    assert_eq!(
        before.get(range.clone()),
        after.get(range),
        "damage made a record at offset {start}"
    );
}

/// The end of a scan and its summary match the records it yielded.
fn check_scan(bytes: &[u8], header: SegmentHeader, scan: &Scan<'_>) {
    let length = bytes.len() as u64;
    assert!((SEGMENT_HEADER_LEN..=length.max(SEGMENT_HEADER_LEN)).contains(&scan.valid_end));
    if let End::Damaged { offset, .. } = scan.end {
        assert!(
            (scan.valid_end..=length).contains(&offset),
            "damage is at the valid end or behind it"
        );
    }
    let rising = |pair: &[Found<'_>]| pair[0].record.header.sequence < pair[1].record.header.sequence;
    assert!(scan.found.windows(2).all(rising), "sequences rise");
    let of = |kind| scan.found.iter().filter(move |found| found.record.header.kind == kind);
    let bytes_of = |kind| of(kind).map(|found| found.record.header.record_len()).sum::<u64>();
    let summary = scan.summary;
    assert_eq!(
        (summary.puts, summary.put_bytes),
        (of(Kind::Put).count() as u64, bytes_of(Kind::Put))
    );
    assert_eq!(
        (summary.tombstones, summary.tombstone_bytes),
        (of(Kind::Tombstone).count() as u64, bytes_of(Kind::Tombstone))
    );
    let expiring = of(Kind::Put)
        .filter(|found| found.record.header.expiry.is_some())
        .count();
    assert_eq!(summary.expiring, expiring as u64);
    assert!(summary.records >= summary.puts + summary.tombstones && summary.data_end == scan.valid_end);
    let lowest = scan
        .found
        .first()
        .map_or(u64::MAX, |found| found.record.header.sequence);
    assert_eq!(summary.min_sequence, lowest);
    // The valid part is a complete segment by itself, and does not end inside a batch.
    let prefix = &bytes[..scan.valid_end as usize];
    let again = self::scan(prefix, header);
    assert_eq!(
        (again.end, again.summary),
        (End::Clean, summary),
        "the valid part is not valid by itself"
    );
    assert!(same(&again.found, &scan.found));
}

/// If recovery finds no damage, verify and salvage find none either, and the same records; if it
/// does, so do they.
fn check_walk(bytes: &[u8], header: SegmentHeader, scan: &Scan<'_>) {
    let walked = walk(bytes, header, Reach::Unknown);
    for found in &walked.found {
        check_sound(bytes, header, found);
    }
    for (offset, length, damage) in &walked.damaged {
        let end = offset.checked_add(*length).expect("a range that overflows");
        assert!(
            *length > 0 && end <= bytes.len() as u64,
            "{damage:?} at {offset}, {length} bytes"
        );
        assert!(
            *offset >= scan.valid_end,
            "{damage:?} at {offset}, where the scan found nothing wrong"
        );
    }
    if let End::Damaged { offset, damage } = scan.end {
        assert!(
            !walked.damaged.is_empty(),
            "the scan finds {damage:?} at {offset}, the walk nothing"
        );
        assert!(walked.found.len() >= scan.found.len());
        assert!(same(&walked.found[..scan.found.len()], &scan.found));
    } else {
        assert_eq!(walked.damaged, [], "the scan ended in {:?}", scan.end);
        assert!(same(&walked.found, &scan.found));
        assert_eq!((walked.summary, walked.sealed), (scan.summary, scan.end == End::Sealed));
    }
    let known = walk(&bytes[..scan.valid_end as usize], header, Reach::Known);
    assert_eq!(known.damaged, [], "the valid part has damage");
    assert!(same(&known.found, &scan.found) && known.summary == scan.summary);
    // The walk terminates for any bytes.
    walk(bytes, header, Reach::Known);
}

/// Keys are sorted bytewise, with the newest record of each; a hint of them survives a round trip.
fn check_order(bytes: &[u8], header: SegmentHeader, scan: &Scan<'_>) {
    let mut sorter = Sorter::default();
    let mut newest = std::collections::BTreeMap::new();
    for found in &scan.found {
        sorter.push(bytes, found);
        newest.insert((found.record.header.namespace, found.record.key()), found);
    }
    let (offsets, keys_crc) = sorter.finish();
    let expected: Vec<u64> = newest.values().map(|found| found.offset).collect();
    assert_eq!(offsets.iter().collect::<Vec<_>>(), expected);
    let mut keys = KeysCrc::default();
    for found in newest.values() {
        let start = found.offset as usize;
        keys.add(&bytes[start..start + found.record.header.header_len() + found.record.key().len()]);
    }
    assert_eq!(keys.value(), keys_crc);
    let hint = Hint {
        store_id: header.store_id,
        segment_id: header.segment_id,
        data_end: scan.valid_end,
        records_crc: scan.summary.records_crc,
        keys_crc,
        offsets,
    };
    let encoded = hint.encode();
    assert!(encoded.len() as u64 <= Hint::len_max(&scan.summary));
    assert_eq!(Hint::decode(&encoded), Ok(hint));
}
