use super::*;

const HEADER: SegmentHeader = SegmentHeader {
    salt: 7,
    store_id: [1; 16],
    segment_id: 1,
    base_sequence: 1,
    created_ms: 0,
};

/// A segment with these records, and their offsets.
fn segment(records: &[(Kind, &[u8], usize)]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = HEADER.encode().to_vec();
    let mut offsets = Vec::new();
    for (sequence, (kind, key, value_len)) in (1..).zip(records) {
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
    let inside: [(Kind, &[u8], usize); 3] = [PUTS[0], (Kind::Mark, &mark, 0), PUTS[1]];
    let (plain, at) = segment(&[
        (Kind::BatchBegin, &[0; BatchBegin::LEN], 0),
        inside[0],
        inside[1],
        inside[2],
    ]);
    let mut run = RunCrc::default();
    [at[1], at[3]].iter().for_each(|&offset| run.add(&plain[offset..]));
    let frame = BatchBegin {
        count: 2,
        run_crc: run.value(),
        bytes: (plain.len() - at[1]) as u64,
    };
    let (bytes, at) = segment(&[(Kind::BatchBegin, &frame.encode(), 0), inside[0], inside[1], inside[2]]);
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
    let (plain, at) = segment(&[(Kind::BatchBegin, &[0; BatchBegin::LEN], 0), PUTS[0], PUTS[1]]);
    let mut run = RunCrc::default();
    at[1..].iter().for_each(|&offset| run.add(&plain[offset..]));
    let frame = BatchBegin {
        count: 2,
        run_crc: run.value(),
        bytes: (plain.len() - at[1]) as u64,
    };
    let (bytes, at) = segment(&[(Kind::BatchBegin, &frame.encode(), 0), PUTS[0], PUTS[1], PUTS[2]]);
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
