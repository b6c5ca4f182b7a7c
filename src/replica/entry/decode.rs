//! Bytes to entries. Only what the encoder would have written is accepted.

use bytes::{Buf, Bytes};

use super::encode::{
    BEAT, COMMIT, CREATE, DEFAULT_TTL, DELETE, DROP, GENESIS, IF_MATCH_SHIFT, IF_NONE_MATCH_SHIFT, LIFETIME_SHIFT,
    METADATA, OPERATIONS, PART, PUT, RENAME,
};
use super::{
    Body, CHECKSUM_BYTES, Conditions, Digest, ENTRY_BYTES_MAX, Entry, HEADER_BYTES, Header, Lifetime, MAGIC,
    OPERATIONS_MAX, Operation, PART_BYTES, PARTS_MAX, Tags, VERSION,
};

/// Why bytes are no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Another version of the format wrote it.
    #[error("version {0} of the format is unknown; run a newer embercask")]
    Version(u8),
    /// They were changed, cut, or never were an entry.
    #[error("the bytes are not those of an entry: {0}")]
    Damaged(&'static str),
}

const CUT: Malformed = Malformed::Damaged("it is cut");
const TAIL: Malformed = Malformed::Damaged("bytes follow its end");

impl Entry {
    /// The entry that these bytes are. Keys and values share their memory.
    pub fn decode(bytes: &Bytes) -> Result<Entry, Malformed> {
        if bytes.get(..4) != Some(&MAGIC[..]) {
            return Err(Malformed::Damaged("it does not begin as one"));
        }
        let body_end = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(CUT)?;
        let (covered, checksum) = bytes.split_at_checked(body_end).ok_or(CUT)?;
        if crc32fast::hash(covered).to_le_bytes() != checksum {
            return Err(Malformed::Damaged("its checksum is another"));
        }
        let mut input = Input(bytes.slice(4..body_end));
        let version = input.u8()?;
        if version != VERSION {
            return Err(Malformed::Version(version));
        }
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(Malformed::Damaged("it is longer than an entry may be"));
        }
        let kind = input.u8()?;
        if input.array()? != [0, 0] {
            return Err(Malformed::Damaged("its reserved bytes are not zero"));
        }
        let header = Header {
            cluster: input.u128()?,
            writer: input.u128()?,
            counter: input.u64()?,
            sent_ms: input.u64()?,
        };
        debug_assert_eq!(bytes.len() - input.0.len(), HEADER_BYTES + CHECKSUM_BYTES);
        let body = body(kind, input)?;
        Ok(Entry { header, body })
    }
}

fn body(kind: u8, mut input: Input) -> Result<Body, Malformed> {
    let body = match kind {
        OPERATIONS => return operations(&input.0).map(Body::Operations),
        PART => return part(input),
        COMMIT => commit(&mut input)?,
        BEAT => Body::Beat {
            position: input.u64()?,
            digest: input.array()?,
        },
        GENESIS => Body::Genesis,
        _ => return Err(Malformed::Damaged("its kind is unknown")),
    };
    input.end()?;
    Ok(body)
}

fn part(mut input: Input) -> Result<Body, Malformed> {
    let (upload, index) = (input.u64()?, input.u32()?);
    if index >= PARTS_MAX {
        return Err(Malformed::Damaged("the index of its part is too high"));
    }
    let bytes = input.0;
    if bytes.is_empty() || bytes.len() > PART_BYTES {
        return Err(Malformed::Damaged("the length of its part is wrong"));
    }
    Ok(Body::Part { upload, index, bytes })
}

fn commit(input: &mut Input) -> Result<Body, Malformed> {
    let (upload, parts, length) = (input.u64()?, input.u32()?, input.u64()?);
    let digest: Digest = input.array()?;
    // A length of exactly so many parts also bounds both.
    let is_fitting = length > 0 && length.div_ceil(PART_BYTES as u64) == u64::from(parts);
    if parts > PARTS_MAX || !is_fitting {
        return Err(Malformed::Damaged("its number of parts is wrong"));
    }
    Ok(Body::Commit {
        upload,
        parts,
        length,
        digest,
    })
}

/// The operations of a body.
pub fn operations(body: &Bytes) -> Result<Vec<Operation>, Malformed> {
    let mut input = Input(body.clone());
    let count = input.u32()?;
    if count > OPERATIONS_MAX {
        return Err(Malformed::Damaged("it has too many operations"));
    }
    // The number is not trusted with memory: each operation takes its bytes first.
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(operation(&mut input)?);
    }
    input.end()?;
    if all.is_empty() {
        return Err(Malformed::Damaged("it has no operations"));
    }
    if all.len() > 1 && all.iter().any(Operation::is_of_namespaces) {
        return Err(Malformed::Damaged("an operation of namespaces is not alone"));
    }
    Ok(all)
}

fn operation(input: &mut Input) -> Result<Operation, Malformed> {
    Ok(match input.u8()? {
        PUT => put(input)?,
        DELETE => {
            let flags = input.u8()?;
            if flags & (METADATA | 3 << LIFETIME_SHIFT) != 0 {
                return Err(FLAGS);
            }
            Operation::Delete {
                namespace: input.u128()?,
                key: input.bytes()?,
                conditions: conditions(input, flags)?,
            }
        }
        CREATE => Operation::CreateNamespace {
            id: input.u128()?,
            name: input.text()?,
        },
        RENAME => Operation::RenameNamespace {
            id: input.u128()?,
            name: input.text()?,
        },
        DROP => Operation::DropNamespace { id: input.u128()? },
        DEFAULT_TTL => Operation::SetDefaultTtl {
            namespace: input.u128()?,
            ttl_ms: match input.u8()? {
                0 => None,
                1 => Some(input.u64()?),
                _ => return Err(FLAGS),
            },
        },
        _ => return Err(Malformed::Damaged("an operation is unknown")),
    })
}

const FLAGS: Malformed = Malformed::Damaged("flags of an operation are unknown");

fn put(input: &mut Input) -> Result<Operation, Malformed> {
    let flags = input.u8()?;
    let (namespace, key, value) = (input.u128()?, input.bytes()?, input.bytes()?);
    let metadata = match flags & METADATA {
        0 => None,
        _ => Some(input.bytes()?),
    };
    let lifetime = match flags >> LIFETIME_SHIFT & 3 {
        0 => Lifetime::Default,
        1 => Lifetime::Forever,
        2 => Lifetime::After(input.u64()?),
        _ => Lifetime::At(input.u64()?),
    };
    Ok(Operation::Put {
        namespace,
        key,
        value,
        metadata,
        lifetime,
        conditions: conditions(input, flags)?,
    })
}

fn conditions(input: &mut Input, flags: u8) -> Result<Conditions, Malformed> {
    if flags >> 7 != 0 {
        return Err(FLAGS);
    }
    Ok(Conditions {
        if_match: tags(input, flags >> IF_MATCH_SHIFT & 3)?,
        if_none_match: tags(input, flags >> IF_NONE_MATCH_SHIFT & 3)?,
    })
}

fn tags(input: &mut Input, kind: u8) -> Result<Option<Tags>, Malformed> {
    match kind {
        0 => Ok(None),
        1 => Ok(Some(Tags::Any)),
        2 => {
            let mut tags = Vec::new();
            for _ in 0..input.u32()? {
                tags.push(input.u128()?);
            }
            Ok(Some(Tags::These(tags)))
        }
        _ => Err(FLAGS),
    }
}

/// What is left to read.
struct Input(Bytes);

impl Input {
    fn take(&mut self, length: usize) -> Result<Bytes, Malformed> {
        if length > self.0.len() {
            return Err(CUT);
        }
        Ok(self.0.split_to(length))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let array = self.0.first_chunk::<N>().copied().ok_or(CUT)?;
        self.0.advance(N);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> Result<u128, Malformed> {
        self.array().map(u128::from_le_bytes)
    }

    /// Bytes after their length.
    fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let length = self.u32()?;
        self.take(usize::try_from(length).map_err(|_| CUT)?)
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let bytes = self.bytes()?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Malformed::Damaged("a name is not UTF-8"))?;
        Ok(text.to_owned())
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(TAIL) }
    }
}
