//! The body of the fuzz target for entries of the log. Compiled for tests and for fuzzing only
//! (`fuzz/README.md` says how to run it); as an ordinary test it runs over the corpus and past
//! findings.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a target reports a finding by panicking"
)]

use bytes::Bytes;
use embercask::testing::input::Input;

use crate::entry::{
    Body, CHECKSUM_BYTES, Conditions, ENTRY_BYTES_MAX, Entry, HEADER_BYTES, Header, Lifetime, MAGIC, Operation,
    PART_BYTES, PARTS_MAX, Tags, VERSION, decode_operations, encode_operations, upload,
};

/// An entry: as it is, or with its frame repaired, or the body of operations alone, or composed of
/// the input.
pub fn replica_entry(data: &[u8]) {
    let mut input = Input::new(data);
    let (mode, bit, cut) = (input.u8(), usize::from(input.u16()), usize::from(input.u16()));
    match mode % 4 {
        0 => accepted(&Bytes::copy_from_slice(input.rest()), bit, cut),
        1 => accepted(&framed(input.u8(), input.rest()), bit, cut),
        2 => {
            let body = Bytes::copy_from_slice(input.rest());
            if let Ok(operations) = decode_operations(&body) {
                assert_eq!(encode_operations(&operations).unwrap(), body);
                uploaded(&body);
            }
        }
        _ => {
            let entry = compose(&mut input);
            let bytes = entry.encode().unwrap();
            assert_eq!(Entry::decode(&bytes), Ok(entry));
            accepted(&bytes, bit, cut);
        }
    }
}

/// An entry of this kind with a valid frame around these bytes.
fn framed(kind: u8, body: &[u8]) -> Bytes {
    let mut bytes = [&MAGIC[..], &[VERSION, kind, 0, 0], body].concat();
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes.into()
}

/// What is accepted is what would be written, and is not accepted with a bit flipped.
fn accepted(bytes: &Bytes, bit: usize, cut: usize) {
    let Ok(entry) = Entry::decode(bytes) else { return };
    assert_eq!(entry.encode().as_ref(), Ok(bytes));
    assert!((HEADER_BYTES + CHECKSUM_BYTES..=ENTRY_BYTES_MAX).contains(&bytes.len()));
    if let Body::Operations(operations) = &entry.body {
        let length: usize = operations.iter().map(Operation::encoded_len).sum();
        assert_eq!(HEADER_BYTES + 4 + length + CHECKSUM_BYTES, bytes.len());
        assert!(operations.len() == 1 || !operations.iter().any(Operation::is_of_namespaces));
    }
    if let Body::Part { index, bytes, .. } = &entry.body {
        assert!(*index < PARTS_MAX && (1..=PART_BYTES).contains(&bytes.len()));
    }
    let bit = bit % (bytes.len() * 8);
    let mut flipped = bytes.to_vec();
    flipped[bit / 8] ^= 1 << (bit % 8);
    assert!(
        Entry::decode(&flipped.into()).is_err(),
        "flipped bit {bit} was not detected"
    );
    let shorter = bytes.slice(..cut % bytes.len());
    // The bytes before the cut may hold a checksum of those before them, by design.
    if let Ok(entry) = Entry::decode(&shorter) {
        assert_eq!(entry.encode(), Ok(shorter), "cut to {cut}");
    }
}

/// Parts join to what they were cut from.
fn uploaded(body: &Bytes) {
    let mut bodies = upload(1, body).unwrap();
    let Some(Body::Commit { parts, length, .. }) = bodies.pop() else {
        panic!("no commit");
    };
    assert_eq!((parts as usize, length), (bodies.len(), body.len() as u64));
    let parts = bodies.into_iter().map(|part| match part {
        Body::Part { bytes, .. } => bytes,
        other => panic!("{other:?}"),
    });
    let joined: Vec<u8> = parts.flatten().collect();
    assert_eq!(&joined, body);
}

fn compose(input: &mut Input<'_>) -> Entry {
    let header = Header {
        cluster: number(input),
        writer: number(input),
        counter: input.u64(),
        sent_ms: input.u64(),
    };
    let body = match input.u8() % 6 {
        0 => Body::Part {
            upload: input.u64(),
            index: input.u32() % PARTS_MAX,
            bytes: Bytes::from([&[input.u8()], text(input).as_bytes()].concat()),
        },
        1 => {
            let parts = 1 + input.u32() % PARTS_MAX;
            Body::Commit {
                upload: input.u64(),
                parts,
                length: u64::from(parts) * PART_BYTES as u64 - u64::from(input.u16()),
                digest: number(input).to_le_bytes(),
            }
        }
        2 => Body::Beat {
            position: input.u64(),
            digest: number(input).to_le_bytes(),
        },
        3 => Body::Genesis,
        4 => Body::Operations(vec![of_namespaces(input)]),
        _ => {
            let count = 1 + input.below(8);
            Body::Operations((0..count).map(|_| of_keys(input)).collect())
        }
    };
    Entry { header, body }
}

fn of_namespaces(input: &mut Input<'_>) -> Operation {
    let id = number(input);
    match input.u8() % 5 {
        0 => Operation::CreateNamespace { id, name: text(input) },
        1 => Operation::RenameNamespace { id, name: text(input) },
        2 => Operation::DropNamespace { id },
        3 => Operation::SetDefaultTtl {
            namespace: id,
            ttl_ms: None,
        },
        _ => Operation::SetDefaultTtl {
            namespace: id,
            ttl_ms: Some(input.u64()),
        },
    }
}

fn of_keys(input: &mut Input<'_>) -> Operation {
    let (namespace, shape) = (number(input), input.u8());
    let key = Bytes::from(text(input));
    let conditions = Conditions {
        if_match: tags(shape >> 3, input),
        if_none_match: tags(shape >> 5, input),
    };
    if shape >> 7 == 1 {
        return Operation::Delete {
            namespace,
            key,
            conditions,
        };
    }
    Operation::Put {
        namespace,
        key,
        value: Bytes::from(text(input)),
        metadata: (shape & 1 == 1).then(|| Bytes::from(text(input))),
        lifetime: match shape >> 1 & 3 {
            0 => Lifetime::Default,
            1 => Lifetime::Forever,
            2 => Lifetime::After(input.u64()),
            _ => Lifetime::At(input.u64()),
        },
        conditions,
    }
}

fn tags(kind: u8, input: &mut Input<'_>) -> Option<Tags> {
    match kind & 3 {
        0 | 3 => None,
        1 => Some(Tags::Any),
        _ => Some(Tags::These((0..input.below(4)).map(|_| number(input)).collect())),
    }
}

fn number(input: &mut Input<'_>) -> u128 {
    u128::from(input.u64()) << 64 | u128::from(input.u64())
}

fn text(input: &mut Input<'_>) -> String {
    let length = input.u8().into();
    String::from_utf8_lossy(input.bytes(length)).into_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn replica_entry() {
        embercask::testing::replay::replay("replica_entry", super::replica_entry);
    }
}
