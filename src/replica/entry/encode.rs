//! Entries to bytes.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{
    BODY_BYTES_MAX, Body, CHECKSUM_BYTES, Conditions, Digest, Entry, HEADER_BYTES, Header, Lifetime, MAGIC,
    OPERATIONS_MAX, Operation, PART_BYTES, PARTS_MAX, Tags, VERSION,
};

pub(super) const OPERATIONS: u8 = 1;
pub(super) const PART: u8 = 2;
pub(super) const COMMIT: u8 = 3;
pub(super) const BEAT: u8 = 4;
pub(super) const GENESIS: u8 = 5;

pub(super) const PUT: u8 = 1;
pub(super) const DELETE: u8 = 2;
pub(super) const CREATE: u8 = 3;
pub(super) const RENAME: u8 = 4;
pub(super) const DROP: u8 = 5;
pub(super) const DEFAULT_TTL: u8 = 6;

/// Flags of a put or a delete: whether there is metadata, then two bits each for the lifetime,
/// `If-Match` and `If-None-Match`.
pub(super) const METADATA: u8 = 1;
pub(super) const LIFETIME_SHIFT: u8 = 1;
pub(super) const IF_MATCH_SHIFT: u8 = 3;
pub(super) const IF_NONE_MATCH_SHIFT: u8 = 5;

/// What has no encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is too long for the log: {length} exceeds {limit}; split it or shorten it")]
pub struct TooLong {
    /// What it is.
    pub what: &'static str,
    /// Its length.
    pub length: usize,
    /// The most that there may be.
    pub limit: usize,
}

impl Entry {
    /// The entry as the log keeps it.
    pub fn encode(&self) -> Result<Bytes, TooLong> {
        let header = &self.header;
        match &self.body {
            Body::Operations(all) => entry_of_operations(header, &operations(all)?),
            Body::Part { upload, index, bytes } => {
                at_most("the part", bytes.len(), PART_BYTES)?;
                Ok(seal(
                    header,
                    PART,
                    &[&upload.to_le_bytes(), &index.to_le_bytes(), bytes],
                ))
            }
            Body::Commit {
                upload,
                parts,
                length,
                digest,
            } => Ok(seal(
                header,
                COMMIT,
                &[
                    &upload.to_le_bytes(),
                    &parts.to_le_bytes(),
                    &length.to_le_bytes(),
                    digest,
                ],
            )),
            Body::Beat { position, digest } => Ok(seal(header, BEAT, &[&position.to_le_bytes(), digest])),
            Body::Genesis => Ok(seal(header, GENESIS, &[])),
        }
    }
}

/// An entry of operations that are encoded already, by [`operations`].
pub fn entry_of_operations(header: &Header, encoded: &[u8]) -> Result<Bytes, TooLong> {
    at_most("the body of the entry", encoded.len(), BODY_BYTES_MAX)?;
    Ok(seal(header, OPERATIONS, &[encoded]))
}

/// The bodies that carry operations, encoded by [`operations`], which are too long for one entry:
/// their parts and, as the last, the commit.
pub fn upload(number: u64, encoded: &Bytes) -> Result<Vec<Body>, TooLong> {
    at_most("the change", encoded.len(), PARTS_MAX as usize * PART_BYTES)?;
    let starts = (0..encoded.len()).step_by(PART_BYTES);
    let mut bodies: Vec<_> = (0..)
        .zip(starts)
        .map(|(index, start)| Body::Part {
            upload: number,
            index,
            bytes: encoded.slice(start..encoded.len().min(start + PART_BYTES)),
        })
        .collect();
    bodies.push(Body::Commit {
        upload: number,
        parts: bodies.len() as u32,
        length: encoded.len() as u64,
        digest: digest_of(&[encoded]),
    });
    Ok(bodies)
}

/// The digest of all these parts, one after the other.
pub(crate) fn digest_of(parts: &[&[u8]]) -> Digest {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
    }
    first_half(&digest.finalize().into())
}

/// The digest that is kept of a whole SHA-256.
pub(crate) fn first_half(whole: &[u8; 32]) -> Digest {
    let mut half = [0; 16];
    for (kept, byte) in half.iter_mut().zip(whole) {
        *kept = *byte;
    }
    half
}

fn seal(header: &Header, kind: u8, body: &[&[u8]]) -> Bytes {
    let length: usize = body.iter().map(|part| part.len()).sum();
    let mut bytes = Vec::with_capacity(HEADER_BYTES + length + CHECKSUM_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[VERSION, kind, 0, 0]);
    bytes.extend_from_slice(&header.cluster.to_le_bytes());
    bytes.extend_from_slice(&header.writer.to_le_bytes());
    bytes.extend_from_slice(&header.counter.to_le_bytes());
    bytes.extend_from_slice(&header.sent_ms.to_le_bytes());
    for part in body {
        bytes.extend_from_slice(part);
    }
    let checksum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.into()
}

/// The body of an entry of these operations, of any length.
pub fn operations(all: &[Operation]) -> Result<Bytes, TooLong> {
    let mut bytes = Vec::with_capacity(4 + all.iter().map(Operation::encoded_len).sum::<usize>());
    at_most("the list of operations", all.len(), OPERATIONS_MAX as usize)?;
    bytes.extend_from_slice(&(all.len() as u32).to_le_bytes());
    for operation in all {
        push(&mut bytes, operation)?;
    }
    Ok(bytes.into())
}

impl Operation {
    /// Bytes that it takes in the body of an entry, which begins with 4 bytes.
    pub fn encoded_len(&self) -> usize {
        match self {
            Operation::Put {
                key,
                value,
                metadata,
                lifetime,
                conditions,
                ..
            } => {
                let lifetime = match lifetime {
                    Lifetime::Default | Lifetime::Forever => 0,
                    Lifetime::After(_) | Lifetime::At(_) => 8,
                };
                let metadata = metadata.as_ref().map_or(0, |metadata| 4 + metadata.len());
                2 + 16 + 4 + key.len() + 4 + value.len() + metadata + lifetime + conditions_len(conditions)
            }
            Operation::Delete { key, conditions, .. } => 2 + 16 + 4 + key.len() + conditions_len(conditions),
            Operation::CreateNamespace { name, .. } | Operation::RenameNamespace { name, .. } => {
                1 + 16 + 4 + name.len()
            }
            Operation::DropNamespace { .. } => 1 + 16,
            Operation::SetDefaultTtl { ttl_ms, .. } => 1 + 16 + 1 + ttl_ms.map_or(0, |_| 8),
        }
    }
}

fn conditions_len(conditions: &Conditions) -> usize {
    let lists = [&conditions.if_match, &conditions.if_none_match];
    lists
        .into_iter()
        .map(|tags| match tags {
            Some(Tags::These(tags)) => 4 + 16 * tags.len(),
            Some(Tags::Any) | None => 0,
        })
        .sum()
}

fn push(bytes: &mut Vec<u8>, operation: &Operation) -> Result<(), TooLong> {
    match operation {
        Operation::Put {
            namespace,
            key,
            value,
            metadata,
            lifetime,
            conditions,
        } => {
            let (kind, time) = lifetime_parts(*lifetime);
            let metadata_flag = if metadata.is_some() { METADATA } else { 0 };
            bytes.extend_from_slice(&[
                PUT,
                metadata_flag | kind << LIFETIME_SHIFT | condition_flags(conditions),
            ]);
            bytes.extend_from_slice(&namespace.to_le_bytes());
            push_bytes(bytes, "the key", key)?;
            push_bytes(bytes, "the value", value)?;
            if let Some(metadata) = metadata {
                push_bytes(bytes, "the metadata", metadata)?;
            }
            if let Some(time) = time {
                bytes.extend_from_slice(&time.to_le_bytes());
            }
            push_conditions(bytes, conditions)?;
        }
        Operation::Delete {
            namespace,
            key,
            conditions,
        } => {
            bytes.extend_from_slice(&[DELETE, condition_flags(conditions)]);
            bytes.extend_from_slice(&namespace.to_le_bytes());
            push_bytes(bytes, "the key", key)?;
            push_conditions(bytes, conditions)?;
        }
        Operation::CreateNamespace { id, name } => push_named(bytes, CREATE, *id, name)?,
        Operation::RenameNamespace { id, name } => push_named(bytes, RENAME, *id, name)?,
        Operation::DropNamespace { id } => {
            bytes.push(DROP);
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        Operation::SetDefaultTtl { namespace, ttl_ms } => {
            bytes.push(DEFAULT_TTL);
            bytes.extend_from_slice(&namespace.to_le_bytes());
            bytes.push(u8::from(ttl_ms.is_some()));
            if let Some(ttl_ms) = ttl_ms {
                bytes.extend_from_slice(&ttl_ms.to_le_bytes());
            }
        }
    }
    Ok(())
}

fn lifetime_parts(lifetime: Lifetime) -> (u8, Option<u64>) {
    match lifetime {
        Lifetime::Default => (0, None),
        Lifetime::Forever => (1, None),
        Lifetime::After(ms) => (2, Some(ms)),
        Lifetime::At(ms) => (3, Some(ms)),
    }
}

fn condition_flags(conditions: &Conditions) -> u8 {
    let kind = |tags: &Option<Tags>| match tags {
        None => 0,
        Some(Tags::Any) => 1,
        Some(Tags::These(_)) => 2,
    };
    kind(&conditions.if_match) << IF_MATCH_SHIFT | kind(&conditions.if_none_match) << IF_NONE_MATCH_SHIFT
}

fn push_conditions(bytes: &mut Vec<u8>, conditions: &Conditions) -> Result<(), TooLong> {
    for tags in [&conditions.if_match, &conditions.if_none_match] {
        if let Some(Tags::These(tags)) = tags {
            bytes.extend_from_slice(&length("the list of tags", tags.len())?.to_le_bytes());
            for tag in tags {
                bytes.extend_from_slice(&tag.to_le_bytes());
            }
        }
    }
    Ok(())
}

fn push_named(bytes: &mut Vec<u8>, tag: u8, id: u128, name: &str) -> Result<(), TooLong> {
    bytes.push(tag);
    bytes.extend_from_slice(&id.to_le_bytes());
    push_bytes(bytes, "the name of the namespace", name.as_bytes())
}

fn push_bytes(bytes: &mut Vec<u8>, what: &'static str, part: &[u8]) -> Result<(), TooLong> {
    bytes.extend_from_slice(&length(what, part.len())?.to_le_bytes());
    bytes.extend_from_slice(part);
    Ok(())
}

fn length(what: &'static str, length: usize) -> Result<u32, TooLong> {
    let limit = u32::MAX as usize;
    u32::try_from(length).map_err(|_| TooLong { what, length, limit })
}

fn at_most(what: &'static str, length: usize, limit: usize) -> Result<(), TooLong> {
    if length > limit {
        return Err(TooLong { what, length, limit });
    }
    Ok(())
}
