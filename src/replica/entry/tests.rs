use proptest::prelude::*;
use proptest::test_runner::Config;

use super::*;

const HEADER: Header = Header {
    cluster: 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100,
    writer: 7,
    counter: 3,
    sent_ms: 1_800_000_000_000,
};

fn encoded(body: Body) -> Bytes {
    let header = HEADER;
    Entry { header, body }.encode().unwrap()
}

/// With a checksum that fits.
fn sealed(bytes: &[u8]) -> Bytes {
    let covered = &bytes[..bytes.len() - CHECKSUM_BYTES];
    [covered, &crc32fast::hash(covered).to_le_bytes()].concat().into()
}

/// An entry of the kind, with this body and a valid frame.
fn framed(kind: u8, body: &[u8]) -> Bytes {
    let empty = encoded(Body::Genesis);
    let mut bytes = [&empty[..HEADER_BYTES], body, &[0; 4]].concat();
    bytes[5] = kind;
    sealed(&bytes)
}

/// The example of `docs/replication.md`.
#[test]
fn an_entry_is_laid_out_as_documented() {
    let put = Operation::Put {
        namespace: 11,
        key: "user-123".into(),
        value: "logged-in".into(),
        metadata: Some("{}".into()),
        lifetime: Lifetime::After(60_000),
        conditions: Conditions {
            if_match: None,
            if_none_match: Some(Tags::These(vec![1])),
        },
    };
    let bytes = encoded(Body::Operations(vec![put]));
    let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let lines: Vec<_> = hex.chunks(16).map(|line| line.join(" ")).collect();
    let block = format!("```text\n{}\n```", lines.join("\n"));
    let page = include_str!("../../../docs/replication.md");
    assert!(page.contains(&block), "not in the page: {block}");
}

#[test]
fn entries_near_a_valid_one_are_refused() {
    let whole = encoded(Body::Operations(vec![Operation::DropNamespace { id: 1 }]));
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Entry::decode(&flipped.into()).is_err(), "bit {bit}");
    }
    for length in 0..whole.len() {
        assert!(Entry::decode(&whole.slice(..length)).is_err(), "cut to {length}");
    }
    let mut newer = whole.to_vec();
    newer[4] = 2;
    assert_eq!(Entry::decode(&sealed(&newer)), Err(Malformed::Version(2)));
    let mut reserved = whole.to_vec();
    reserved[7] = 1;
    assert!(Entry::decode(&sealed(&reserved)).is_err());
    assert!(Entry::decode(&[&whole[..], &[0]].concat().into()).is_err());
}

#[test]
fn bodies_that_the_encoder_would_not_write_are_refused() {
    let drop = [&[5][..], &[1; 16]].concat();
    let default_ttl = |flag: u8| [&[1, 0, 0, 0, 6][..], &[1; 16], &[flag], &[0; 8]].concat();
    let delete = |flags: u8| [&[1, 0, 0, 0, 2, flags][..], &[1; 16], &[1, 0, 0, 0, b'k']].concat();
    let commit = |parts: u32, length: u64| {
        let head = [&[0; 8][..], &parts.to_le_bytes()].concat();
        [&head[..], &length.to_le_bytes(), &[0; 16]].concat()
    };
    let part = |index: u32, length: usize| [&[0; 8][..], &index.to_le_bytes(), &vec![1; length]].concat();
    let accepted = [
        (1, [&[1, 0, 0, 0][..], &drop].concat()),
        (1, default_ttl(1)),
        (1, delete(0)),
        (2, part(PARTS_MAX - 1, PART_BYTES)),
        (3, commit(2, PART_BYTES as u64 + 1)),
        (3, commit(PARTS_MAX, u64::from(PARTS_MAX) * PART_BYTES as u64)),
        (5, Vec::new()),
    ];
    for (kind, body) in accepted {
        assert!(
            Entry::decode(&framed(kind, &body)).is_ok(),
            "kind {kind}: {:?}",
            body.get(..30)
        );
    }
    let refused = [
        // No operations, more than there are, fewer, and more than there may be.
        (1, vec![0; 4]),
        (1, [&[2, 0, 0, 0][..], &drop].concat()),
        (1, [&[1, 0, 0, 0][..], &drop, &[0]].concat()),
        (1, [&[0xff; 4][..], &drop].concat()),
        // Two of namespaces, unknown flags and operations, a name that is not UTF-8.
        (1, [&[2, 0, 0, 0][..], &drop, &drop].concat()),
        (1, default_ttl(2)),
        (1, delete(1)),
        (1, delete(0x80)),
        (1, delete(3 << 3)),
        (1, vec![1, 0, 0, 0, 9]),
        (1, [&[1, 0, 0, 0, 3][..], &[1; 16], &[1, 0, 0, 0, 0xff]].concat()),
        // A length of four gigabytes.
        (1, [&[1, 0, 0, 0, 3][..], &[1; 16], &[0xff; 4]].concat()),
        (2, part(PARTS_MAX, 1)),
        (2, part(0, 0)),
        (2, part(0, PART_BYTES + 1)),
        (3, commit(1, PART_BYTES as u64 + 1)),
        (3, commit(0, 0)),
        (3, commit(PARTS_MAX + 1, u64::from(PARTS_MAX) * PART_BYTES as u64 + 1)),
        (4, vec![0; 23]),
        (4, vec![0; 25]),
        (5, vec![0]),
        (0, Vec::new()),
        (6, Vec::new()),
    ];
    for (kind, body) in refused {
        let decoded = Entry::decode(&framed(kind, &body));
        assert!(decoded.is_err(), "kind {kind}: {:?}", body.get(..30));
    }
}

#[test]
fn what_is_too_long_is_refused_and_goes_in_parts() {
    let put = |length: usize| Operation::Put {
        namespace: 1,
        key: "k".into(),
        value: vec![7; length].into(),
        metadata: None,
        lifetime: Lifetime::Forever,
        conditions: Conditions::default(),
    };
    let around = 4 + put(0).encoded_len();
    let longest = encoded(Body::Operations(vec![put(BODY_BYTES_MAX - around)]));
    assert_eq!(longest.len(), ENTRY_BYTES_MAX);
    assert!(Entry::decode(&longest).is_ok());
    let all = vec![put(BODY_BYTES_MAX - around + 1)];
    let body = encode_operations(&all).unwrap();
    assert!(entry_of_operations(&HEADER, &body).is_err());
    let mut parts = upload(9, &body).unwrap();
    let commit = parts.pop().unwrap();
    let joined: Vec<u8> = parts
        .into_iter()
        .flat_map(|part| match Entry::decode(&encoded(part)).unwrap().body {
            Body::Part { upload: 9, bytes, .. } => bytes,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(decode_operations(&joined.into()), Ok(all));
    assert!(matches!(
        commit,
        Body::Commit {
            upload: 9,
            parts: 2,
            ..
        }
    ));
    let too_long = Bytes::from(vec![0; PARTS_MAX as usize * PART_BYTES + 1]);
    assert!(upload(9, &too_long).is_err());
    assert!(encode_operations(&vec![put(0); OPERATIONS_MAX as usize + 1]).is_err());
    // Written all the same.
    assert!(Entry::decode(&framed(1, &body)).is_err());
    let most = encode_operations(&vec![put(0); OPERATIONS_MAX as usize]).unwrap();
    assert!(decode_operations(&most).is_ok());
    let more = [
        &(OPERATIONS_MAX + 1).to_le_bytes(),
        &most[4..],
        &most[4..4 + put(0).encoded_len()],
    ];
    assert!(decode_operations(&more.concat().into()).is_err());
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn tags() -> impl Strategy<Value = Option<Tags>> {
    prop_oneof![
        Just(None),
        Just(Some(Tags::Any)),
        prop::collection::vec(any::<u128>(), 0..4).prop_map(|tags| Some(Tags::These(tags))),
    ]
}

fn conditions() -> impl Strategy<Value = Conditions> {
    (tags(), tags()).prop_map(|(if_match, if_none_match)| Conditions {
        if_match,
        if_none_match,
    })
}

fn of_key() -> impl Strategy<Value = Operation> {
    let lifetime = prop_oneof![
        Just(Lifetime::Default),
        Just(Lifetime::Forever),
        any::<u64>().prop_map(Lifetime::After),
        any::<u64>().prop_map(Lifetime::At),
    ];
    let put = (
        any::<u128>(),
        bytes(),
        bytes(),
        prop::option::of(bytes()),
        lifetime,
        conditions(),
    );
    prop_oneof![
        put.prop_map(
            |(namespace, key, value, metadata, lifetime, conditions)| Operation::Put {
                namespace,
                key,
                value,
                metadata,
                lifetime,
                conditions,
            }
        ),
        (any::<u128>(), bytes(), conditions()).prop_map(|(namespace, key, conditions)| Operation::Delete {
            namespace,
            key,
            conditions,
        }),
    ]
}

fn of_namespace() -> impl Strategy<Value = Operation> {
    prop_oneof![
        (any::<u128>(), any::<String>()).prop_map(|(id, name)| Operation::CreateNamespace { id, name }),
        (any::<u128>(), any::<String>()).prop_map(|(id, name)| Operation::RenameNamespace { id, name }),
        any::<u128>().prop_map(|id| Operation::DropNamespace { id }),
        (any::<u128>(), any::<Option<u64>>())
            .prop_map(|(namespace, ttl_ms)| Operation::SetDefaultTtl { namespace, ttl_ms }),
    ]
}

fn body() -> impl Strategy<Value = Body> {
    let part = (any::<u64>(), 0..PARTS_MAX, prop::collection::vec(any::<u8>(), 1..40));
    let commit = (
        any::<u64>(),
        1..=u64::from(PARTS_MAX) * PART_BYTES as u64,
        any::<Digest>(),
    );
    prop_oneof![
        prop::collection::vec(of_key(), 1..5).prop_map(Body::Operations),
        of_namespace().prop_map(|one| Body::Operations(vec![one])),
        part.prop_map(|(upload, index, bytes)| Body::Part {
            upload,
            index,
            bytes: bytes.into(),
        }),
        commit.prop_map(|(upload, length, digest)| Body::Commit {
            upload,
            parts: length.div_ceil(PART_BYTES as u64) as u32,
            length,
            digest,
        }),
        (any::<u64>(), any::<Digest>()).prop_map(|(position, digest)| Body::Beat { position, digest }),
        Just(Body::Genesis),
    ]
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn decoding_is_the_inverse_of_encoding(numbers in any::<(u128, u128, u64, u64)>(), body in body()) {
        let (cluster, writer, counter, sent_ms) = numbers;
        let header = Header { cluster, writer, counter, sent_ms };
        let entry = Entry { header, body };
        if let Body::Operations(all) = &entry.body {
            let length: usize = all.iter().map(Operation::encoded_len).sum();
            prop_assert_eq!(encode_operations(all).unwrap().len(), 4 + length);
        }
        prop_assert_eq!(Entry::decode(&entry.encode().unwrap()), Ok(entry));
    }

    #[test]
    fn no_bytes_make_the_decoder_fail(kind in 0..8_u8, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = framed(kind, &body);
        if let Ok(entry) = Entry::decode(&bytes) {
            prop_assert_eq!(entry.encode().unwrap(), bytes);
        }
    }
}
