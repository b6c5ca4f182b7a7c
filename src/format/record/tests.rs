use super::*;

const PLACE: Place = Place {
    salt: 0x1234_5678,
    base_sequence: 1000,
    offset: 64,
};

fn encoded(header: &Header, body: &[u8]) -> Vec<u8> {
    let mut bytes = header.encode(PLACE).as_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes.resize(header.record_len() as usize, 0);
    bytes
}

fn put(key: &[u8], metadata: Option<&[u8]>, value: &[u8], expiry: Option<u64>) -> (Header, Vec<u8>) {
    let body = [key, metadata.unwrap_or_default(), value].concat();
    let header = Header {
        kind: Kind::Put,
        namespace: 7,
        sequence: 1042,
        expiry,
        key_len: key.len() as u32,
        metadata_len: metadata.map(|m| m.len() as u32),
        value_len: value.len() as u32,
        body_crc: crc32fast::hash(&body),
    };
    let bytes = encoded(&header, &body);
    (header, bytes)
}

#[test]
fn what_was_written_is_read() {
    let long_key = vec![7; KEY_LEN_MAX];
    for (key, metadata, value, expiry) in [
        (&b"k"[..], None, &b""[..], None),
        (b"user-123", Some(&b"{}"[..]), b"logged-in", Some(1_700_000_000_000)),
        (b"empty metadata", Some(b""), b"v", None),
        (&long_key, None, b"v", Some(u64::MAX)),
    ] {
        let (header, bytes) = put(key, metadata, value, expiry);
        let record = Record::parse(&bytes, PLACE).unwrap();
        record.check_body().unwrap();
        assert_eq!(record.header, header);
        assert_eq!(
            (record.key(), record.metadata(), record.value()),
            (key, metadata, value)
        );
        assert_eq!(bytes.len() % 8, 0);
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (_, bytes) = put(
        b"user-123",
        Some(b"{\"plan\":\"pro\"}"),
        b"logged-in",
        Some(1_700_000_000_000),
    );
    let used = 24 + 8 + 4 + 8 + 14 + 9;
    for bit in 0..used * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let found = Record::parse(&damaged, PLACE).and_then(|record| record.check_body());
        assert!(found.is_err(), "bit {bit}");
    }
}

#[test]
fn a_record_is_valid_in_its_own_place_only() {
    let (_, bytes) = put(b"k", None, b"v", None);
    assert!(Record::parse(&bytes, PLACE).is_ok());
    assert!(Record::parse(&bytes, Place { offset: 72, ..PLACE }).is_err());
    assert!(Record::parse(&bytes, Place { salt: 1, ..PLACE }).is_err());
}

#[test]
fn a_cut_record_is_short_or_damaged_never_read_beyond() {
    let (_, bytes) = put(b"key", Some(b"m"), b"value", Some(9));
    for length in 0..bytes.len() {
        assert!(Record::parse(&bytes[..length], PLACE).is_err(), "{length}");
    }
}

#[test]
fn zeros_are_not_a_record() {
    assert!(Record::parse(&[0; 4096], PLACE).is_err());
    assert!(
        Record::parse(
            &[0; 4096],
            Place {
                salt: 0,
                base_sequence: 0,
                offset: 0
            }
        )
        .is_err()
    );
}

#[test]
fn a_header_is_read_only_if_a_record_can_have_it() {
    let decode = |header: &Header| Header::decode(header.encode(PLACE).as_bytes(), PLACE);
    let (sound, _) = put(b"k", Some(b""), b"v", Some(9));
    let tombstone = Header {
        kind: Kind::Tombstone,
        expiry: None,
        metadata_len: None,
        value_len: 0,
        ..sound
    };
    let longest = Header {
        metadata_len: Some(METADATA_LEN_MAX as u32),
        value_len: VALUE_LEN_MAX as u32,
        ..sound
    };
    for header in [sound, tombstone, longest] {
        assert_eq!(decode(&header), Ok(header));
    }
    let with = |header: Header, change: fn(&mut Header)| {
        let mut header = header;
        change(&mut header);
        header
    };
    for header in [
        with(longest, |header| {
            header.metadata_len = header.metadata_len.map(|length| length + 1)
        }),
        with(longest, |header| header.value_len += 1),
        with(sound, |header| header.expiry = Some(0)),
        with(tombstone, |header| header.expiry = Some(9)),
        with(tombstone, |header| header.metadata_len = Some(0)),
        with(tombstone, |header| header.value_len = 1),
    ] {
        assert!(matches!(decode(&header), Err(Damage::Field(_))), "{header:?}");
    }
}

/// A later version may write such records. They are whole, so they must not pass for a torn tail.
#[test]
fn a_compressed_record_is_refused_for_its_flag_and_not_for_its_checksum() {
    for expiry in [None, Some(9)] {
        let (header, _) = put(b"k", Some(b"m"), b"v", expiry);
        let mut bytes = header.encode(PLACE).as_bytes().to_vec();
        bytes[9] |= FLAG_COMPRESSED;
        bytes.extend_from_slice(&[1, 0, 0, 0]);
        let units = (PLACE.offset / ALIGNMENT) as u32;
        let mut covered = Hasher::new_with_initial(PLACE.salt);
        covered.update(&[&bytes[4..], &units.to_stored()].concat());
        bytes[..4].copy_from_slice(&covered.finalize().to_stored());
        assert_eq!(Header::decode(&bytes, PLACE), Err(Damage::Field("record flags")));
    }
}

#[test]
fn a_segment_holds_sequences_from_its_base_on_as_far_as_32_bits_reach() {
    let reach = u64::from(u32::MAX);
    for (sequence, fits) in [(999, false), (1000, true), (1000 + reach, true), (1001 + reach, false)] {
        assert_eq!(sequence_fits(1000, sequence), fits, "{sequence}");
    }
}
