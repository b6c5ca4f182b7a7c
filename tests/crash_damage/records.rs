//! A second reader of sound segments, written from `docs/format.md` and not from the engine's code:
//! lists the records and their places. The allowed cost of damage is computed from it.

use std::collections::BTreeMap;
use std::path::PathBuf;

pub(crate) const SEGMENT_HEADER_LEN: usize = 64;

pub(crate) const PUT: u8 = 1;
pub(crate) const TOMBSTONE: u8 = 2;
pub(crate) const BATCH_BEGIN: u8 = 3;
pub(crate) const MARK: u8 = 4;
pub(crate) const SEAL: u8 = 6;

/// One record of any kind, and its place.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) path: PathBuf,
    pub(crate) start: usize,
    /// End of its checksummed bytes.
    pub(crate) used: usize,
    /// Start of the next record.
    pub(crate) end: usize,
    pub(crate) kind: u8,
    pub(crate) namespace: u32,
    pub(crate) sequence: u64,
    pub(crate) expiry: Option<u64>,
    pub(crate) key: Vec<u8>,
    pub(crate) metadata: Option<Vec<u8>>,
    /// The value; for kinds without a key, the whole body.
    pub(crate) value: Vec<u8>,
    /// Start of its batch's frame.
    pub(crate) batch: Option<usize>,
}

impl Record {
    pub(crate) fn has_key(&self) -> bool {
        matches!(self.kind, PUT | TOMBSTONE)
    }

    /// For a mark: the segment and offset up to which everything was durable.
    pub(crate) fn mark(&self) -> Option<(u64, usize)> {
        (self.kind == MARK).then(|| (u64_at(&self.value, 0), u64_at(&self.value, 8) as usize))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The id in a segment's header.
pub(crate) fn segment_id(bytes: &[u8]) -> u64 {
    u64_at(bytes, 32)
}

/// All records of a sound segment, including its seal.
pub(crate) fn read_segment(path: &std::path::Path, bytes: &[u8]) -> Vec<Record> {
    let base_sequence = u64_at(bytes, 40);
    let mut records = Vec::new();
    let mut batch: Option<(usize, usize)> = None;
    let mut at = SEGMENT_HEADER_LEN;
    while at + 24 <= bytes.len() && bytes[at + 8] != 0 {
        let (kind, flags) = (bytes[at + 8], bytes[at + 9]);
        let mut head = at + 24;
        let expiry = (flags & 1 != 0).then(|| {
            head += 8;
            u64_at(bytes, head - 8)
        });
        let metadata_len = (flags & 2 != 0).then(|| {
            head += 4;
            u32_at(bytes, head - 4) as usize
        });
        let has_key = matches!(kind, PUT | TOMBSTONE);
        let key_len = if has_key {
            usize::from(u16_at(bytes, at + 10)) + 1
        } else {
            0
        };
        let value_at = head + key_len + metadata_len.unwrap_or(0);
        let used = value_at + u32_at(bytes, at + 12) as usize;
        let record = Record {
            path: path.to_owned(),
            start: at,
            used,
            end: used.next_multiple_of(8),
            kind,
            namespace: u32_at(bytes, at + 16),
            sequence: base_sequence + u64::from(u32_at(bytes, at + 20)),
            expiry,
            key: bytes[head..head + key_len].to_vec(),
            metadata: metadata_len.map(|_| bytes[head + key_len..value_at].to_vec()),
            value: bytes[value_at..used].to_vec(),
            batch: batch.filter(|(_, end)| at < *end).map(|(begin, _)| begin),
        };
        if kind == BATCH_BEGIN {
            batch = Some((at, record.end + u64_at(&record.value, 8) as usize));
        }
        at = record.end;
        records.push(record);
    }
    records
}

/// What a store shows of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) value: Vec<u8>,
    pub(crate) metadata: Option<Vec<u8>>,
    pub(crate) expiry: Option<u64>,
}

/// What a store shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) namespaces: Vec<String>,
    pub(crate) items: BTreeMap<(String, Vec<u8>), Item>,
}

/// The content of a store with these records: the highest sequence of each key counts, without
/// expired records. Keys of an unknown namespace go where salvage puts them; a whole store has
/// none.
pub(crate) fn resolve<'a>(records: impl Iterator<Item = &'a Record>, now_ms: u64) -> Content {
    let mut newest: BTreeMap<(u32, &[u8]), &Record> = BTreeMap::new();
    for record in records.filter(|record| record.has_key()) {
        let known = newest.entry((record.namespace, &record.key)).or_insert(record);
        if record.sequence > known.sequence {
            *known = record;
        }
    }
    let mut claims: Vec<_> = newest
        .range((0, &[][..])..(1, &[][..]))
        .map(|(_, record)| *record)
        .collect();
    claims.sort_by_key(|record| std::cmp::Reverse(record.sequence));
    let mut names: BTreeMap<u32, Option<String>> = BTreeMap::new();
    for claim in claims {
        let number = u32::from_be_bytes(claim.key.as_slice().try_into().unwrap());
        if claim.kind == TOMBSTONE {
            names.insert(number, None);
            continue;
        }
        let name = String::from_utf8(claim.value[16..].to_vec()).unwrap();
        // If two namespaces claim a name, the later one gets it.
        if !names.values().any(|taken| taken.as_ref() == Some(&name)) {
            names.insert(number, Some(name));
        }
    }
    let mut content = Content::default();
    for ((number, key), record) in newest.range((1, &[][..])..).filter(|(_, record)| record.kind == PUT) {
        let name = names
            .entry(*number)
            .or_insert_with(|| Some(format!("recovered-{number}")));
        let Some(name) = name else { continue };
        if record.expiry.is_some_and(|expiry| now_ms >= expiry) {
            continue;
        }
        let item = Item {
            value: record.value.clone(),
            metadata: record.metadata.clone(),
            expiry: record.expiry,
        };
        content.items.insert((name.clone(), key.to_vec()), item);
    }
    content.namespaces = names.into_values().flatten().collect();
    content.namespaces.sort();
    content
}
