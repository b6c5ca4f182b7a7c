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
