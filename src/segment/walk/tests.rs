use super::super::scan::{End, Scanner};
use super::*;

const HEADER: SegmentHeader = SegmentHeader {
    salt: 7,
    store_id: [1; 16],
    segment_id: 1,
    base_sequence: 1,
    created_ms: 0,
};

/// A segment with these records, and their offsets.
fn segment(records: &[Listed<'_>]) -> (Vec<u8>, Vec<usize>) {
    segment_from(records, 1..)
}

/// The same, of records with these sequences.
fn segment_from(records: &[Listed<'_>], sequences: impl IntoIterator<Item = u64>) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = HEADER.encode().to_vec();
    let mut offsets = Vec::new();
    for (sequence, (kind, key, value_len)) in sequences.into_iter().zip(records) {
        let body = if kind.has_key() {
            [*key, &vec![b'v'; *value_len][..]].concat()
        } else {
            key.to_vec()
        };
        let header = Header {
            kind: *kind,
            namespace: 1,
            sequence,
            expiry: None,
            key_len: if kind.has_key() { key.len() as u32 } else { 0 },
            metadata_len: None,
            value_len: (body.len() - if kind.has_key() { key.len() } else { 0 }) as u32,
            body_crc: crc32fast::hash(&body),
        };
        let offset = bytes.len();
        let place = Place {
            salt: HEADER.salt,
            base_sequence: HEADER.base_sequence,
            offset: offset as u64,
        };
        offsets.push(offset);
        bytes.extend_from_slice(header.encode(place).as_bytes());
        bytes.extend_from_slice(&body);
        bytes.resize(offset + header.record_len() as usize, 0);
    }
    (bytes, offsets)
}

type Listed<'a> = (Kind, &'a [u8], usize);

/// A segment with a batch of these records, behind a frame that is `changed`, and with others after
/// it. Puts and tombstones count.
fn batch(records: &[Listed<'_>], after: &[Listed<'_>], change: impl Fn(&mut BatchBegin)) -> (Vec<u8>, Vec<usize>) {
    let behind = |frame: &[u8]| segment(&[&[(Kind::BatchBegin, frame, 0)], records, after].concat());
    let (plain, at) = behind(&[0; BatchBegin::LEN]);
    let inside = at.iter().skip(1).zip(records);
    let mut run = RunCrc::default();
    let mut count = 0;
    for (offset, _) in inside.filter(|(_, (kind, ..))| kind.has_key()) {
        run.add(&plain[*offset..]);
        count += 1;
    }
    let end = at.get(1 + records.len()).copied().unwrap_or(plain.len());
    let mut frame = BatchBegin {
        count,
        run_crc: run.value(),
        bytes: (end - at[1]) as u64,
    };
    change(&mut frame);
    behind(&frame.encode())
}

type Ranges = Vec<(usize, usize, Damage)>;

/// The keys yielded, the damaged ranges, and an incomplete batch at the end.
fn walk(bytes: &[u8], reach: Reach) -> (Vec<String>, Ranges, Option<u64>) {
    let mut walker = Walker::new(bytes, HEADER, reach);
    let (mut keys, mut damaged) = (Vec::new(), Vec::new());
    while let Some(step) = walker.next() {
        match step {
            Step::Record { found, .. } => keys.push(String::from_utf8_lossy(found.record.key()).into_owned()),
            Step::Log(_) => {}
            Step::Damaged { offset, length, damage } => damaged.push((offset as usize, length as usize, damage)),
        }
    }
    (keys, damaged, walker.broken_batch())
}

/// The keys that recovery finds, and where and how it stops.
fn scan(bytes: &[u8]) -> (Vec<String>, End) {
    let mut scanner = Scanner::new(bytes, HEADER);
    let mut keys = Vec::new();
    loop {
        match scanner.next() {
            Ok(found) => keys.push(String::from_utf8_lossy(found.record.key()).into_owned()),
            Err(end) => return (keys, end),
        }
    }
}

const PUTS: [(Kind, &[u8], usize); 4] = [
    (Kind::Put, b"a", 50),
    (Kind::Put, b"b", 50),
    (Kind::Put, b"c", 50),
    (Kind::Tombstone, b"d", 0),
];

#[test]
fn a_bad_body_costs_one_record() {
    let (mut bytes, at) = segment(&PUTS);
    bytes[at[1] + 40] ^= 1;
    let (keys, damaged, _) = walk(&bytes, Reach::Known);
    assert_eq!(keys, ["a", "c", "d"]);
    assert_eq!(damaged, [(at[1], at[2] - at[1], Damage::BodyChecksum)]);
}

#[test]
fn a_bad_header_costs_all_up_to_the_next_sound_record() {
    let (mut bytes, at) = segment(&PUTS);
    bytes[at[1] + 13] ^= 1;
    let (keys, damaged, _) = walk(&bytes, Reach::Known);
    assert_eq!(keys, ["a", "c", "d"]);
    assert_eq!(damaged, [(at[1], at[2] - at[1], Damage::HeaderChecksum)]);
}

#[test]
fn two_damages_are_two_ranges() {
    let (mut bytes, at) = segment(&PUTS);
    bytes[at[0]] ^= 1;
    bytes[at[2] + 40] ^= 1;
    let (keys, damaged, _) = walk(&bytes, Reach::Known);
    assert_eq!(keys, ["b", "d"]);
    assert_eq!(damaged.len(), 2, "{damaged:?}");
}

#[test]
fn damaged_padding_is_reported_and_costs_nothing() {
    let (mut bytes, at) = segment(&PUTS);
    bytes[at[1] - 1] = 1;
    let (keys, damaged, _) = walk(&bytes, Reach::Known);
    assert_eq!(keys, ["a", "b", "c", "d"]);
    assert!(matches!(damaged[..], [(_, _, Damage::Padding)]), "{damaged:?}");
}

/// Found by the fuzz target `segment_scan`: the walk accepted damage that recovery refuses.
#[test]
fn damaged_padding_of_a_seal_is_reported() {
    let (records, _) = segment(&PUTS);
    let summary = walked_summary(&records);
    let (mut bytes, at) = segment(&[PUTS[0], PUTS[1], PUTS[2], PUTS[3], (Kind::Seal, &summary.encode(), 0)]);
    assert_eq!(walk(&bytes, Reach::Unknown).1, []);
    *bytes.last_mut().unwrap() = 1;
    let (keys, damaged, _) = walk(&bytes, Reach::Unknown);
    assert_eq!(keys, ["a", "b", "c", "d"]);
    assert_eq!(damaged, [(at[4] + 100, 4, Damage::Padding)]);
}

fn walked_summary(bytes: &[u8]) -> Summary {
    let mut walker = Walker::new(bytes, HEADER, Reach::Known);
    while walker.next().is_some() {}
    walker.summary()
}

/// Found by the fuzz target `segment_scan`: as above.
#[test]
fn a_mark_inside_a_batch_is_reported() {
    let mark = Mark::default().encode();
    let (bytes, at) = batch(&[PUTS[0], (Kind::Mark, &mark, 0), PUTS[1]], &[], |_| ());
    let (keys, damaged, _) = walk(&bytes, Reach::Known);
    assert_eq!(keys, ["a", "b"]);
    assert_eq!(
        damaged,
        [(at[2], at[3] - at[2], Damage::Field("record kind inside a batch"))]
    );
}

#[test]
fn bytes_of_a_segment_inside_a_value_are_no_records() {
    let (inner, _) = segment(&PUTS);
    let (mut bytes, at) = segment(&[(Kind::Put, &inner, 8), (Kind::Put, b"z", 1)]);
    bytes[at[0]] ^= 1;
    let (keys, damaged, _) = walk(&bytes, Reach::Known);
    assert_eq!(keys, ["z"]);
    assert_eq!(damaged.len(), 1);
}

#[test]
fn zeros_end_a_segment_whose_end_is_unknown_and_are_damage_in_another() {
    let (mut bytes, _) = segment(&PUTS);
    bytes.resize(bytes.len() + 512, 0);
    assert!(walk(&bytes, Reach::Unknown).1.is_empty());
    assert_eq!(walk(&bytes, Reach::Known).1.len(), 1);
}

#[test]
fn a_cut_record_is_damage_up_to_the_end() {
    let (bytes, at) = segment(&PUTS);
    for length in at[2] + 1..at[3] {
        if bytes[at[2]..length].iter().all(|&byte| byte == 0) {
            continue;
        }
        let (keys, damaged, _) = walk(&bytes[..length], Reach::Unknown);
        assert_eq!(keys, ["a", "b"], "{length}");
        assert!(
            matches!(damaged[..], [(offset, size, _)] if offset == at[2] && size == length - at[2]),
            "{length}"
        );
    }
}

#[test]
fn a_batch_that_is_not_whole_at_the_end_is_told() {
    let (bytes, at) = batch(&PUTS[..2], &PUTS[2..3], |_| ());
    assert_eq!(walk(&bytes, Reach::Unknown).1, []);
    let (keys, damaged, broken) = walk(&bytes[..at[2]], Reach::Unknown);
    assert_eq!((keys, broken), (vec!["a".to_owned()], Some(at[0] as u64)));
    assert_eq!(damaged, [(at[0], at[2] - at[0], Damage::Short)]);
    // A sound record behind it shows that the batch was once complete.
    let mut rotten = bytes.clone();
    rotten[at[2] + 40] ^= 1;
    let (keys, damaged, broken) = walk(&rotten, Reach::Unknown);
    assert_eq!((keys.join(" "), broken, damaged.len()), ("a c".to_owned(), None, 1));
}

#[test]
fn a_sequence_that_does_not_rise_and_a_record_in_the_wrong_place_are_damage_for_recovery_too() {
    for sequences in [[1, 2, 2, 3], [1, 3, 2, 4]] {
        let (bytes, at) = segment_from(&PUTS, sequences);
        let (keys, damaged, _) = walk(&bytes, Reach::Known);
        assert_eq!(keys, ["a", "b", "c", "d"], "they are sound by themselves");
        assert_eq!(damaged, [(at[2], at[3] - at[2], Damage::Order)]);
        let (offset, damage) = (at[2] as u64, Damage::Order);
        assert_eq!(
            scan(&bytes),
            (vec!["a".into(), "b".into()], End::Damaged { offset, damage })
        );
    }
    let start = Start::default().encode();
    let start = (Kind::Start, &start[..], 0);
    let (bytes, _) = segment(&[start, PUTS[0]]);
    assert_eq!((walk(&bytes, Reach::Known).1, scan(&bytes).1), (vec![], End::Clean));
    let (bytes, at) = segment(&[PUTS[0], start, PUTS[1]]);
    let damage = Damage::Field("place of a start record");
    let (keys, damaged, _) = walk(&bytes, Reach::Known);
    assert_eq!(
        (keys.join(" "), damaged),
        ("a b".to_owned(), vec![(at[1], at[2] - at[1], damage)])
    );
    let offset = at[1] as u64;
    assert_eq!(scan(&bytes), (vec!["a".into()], End::Damaged { offset, damage }));
}

#[test]
fn a_batch_whose_frame_does_not_describe_it_is_damage_for_recovery_too() {
    let wrong: [fn(&mut BatchBegin); 5] = [
        |frame| frame.count += 1,
        |frame| frame.count -= 1,
        |frame| frame.bytes += 8,
        |frame| frame.bytes -= 8,
        |frame| frame.run_crc ^= 1,
    ];
    for (number, change) in wrong.into_iter().enumerate() {
        let (bytes, at) = batch(&PUTS[..2], &PUTS[2..], change);
        let (keys, damaged, _) = walk(&bytes, Reach::Known);
        assert_eq!(keys, ["a", "b", "c", "d"], "they are sound by themselves");
        assert_eq!(damaged.len(), 1, "{number}: {damaged:?}");
        assert_eq!((damaged[0].0, damaged[0].1), (at[0], at[1] - at[0]));
        assert!(matches!(scan(&bytes).1, End::Damaged { offset, .. } if offset == at[0] as u64));
        assert_eq!(scan(&bytes).0, Vec::<String>::new());
    }
    let (inner, _) = batch(&PUTS[..1], &[], |_| ());
    let frame = Record::parse(
        &inner[SEGMENT_HEADER_LEN as usize..],
        Place {
            salt: HEADER.salt,
            base_sequence: HEADER.base_sequence,
            offset: SEGMENT_HEADER_LEN,
        },
    );
    let frame = frame.unwrap().body.to_vec();
    let (bytes, at) = batch(&[PUTS[0], (Kind::BatchBegin, &frame, 0), PUTS[1]], &[], |_| ());
    let damage = Damage::Field("batch inside a batch");
    let (keys, damaged, _) = walk(&bytes, Reach::Known);
    assert_eq!(
        (keys.join(" "), damaged),
        ("a b".to_owned(), vec![(at[2], at[3] - at[2], damage)])
    );
    assert!(scan(&bytes).0.is_empty());
}

#[test]
fn recovery_knows_inside_which_batch_it_is() {
    let (bytes, _) = batch(&PUTS[..2], &PUTS[2..], |_| ());
    let mut scanner = Scanner::new(&bytes, HEADER);
    let mut inside = Vec::new();
    while scanner.next().is_ok() {
        inside.push(scanner.is_inside_batch());
    }
    assert_eq!(inside, [true, false, false, false]);
}
