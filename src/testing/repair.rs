//! (Over 400 lines: one function for each kind of file.)
//!
//! Repairs checksums and related fields, so that a fuzzer reaches the code behind them.
//!
//! A second implementation of `docs/format.md`, independent of `src/format` on purpose: if the two
//! disagree, every input is refused, which shows in the targets' coverage. It depends on no other
//! part of the library, so targets that use only the public interface can include it.

const SEGMENT_HEADER_LEN: usize = 64;
const RECORD_HEADER_LEN: usize = 24;
const ALIGNMENT: usize = 8;

const PUT: u8 = 1;
const TOMBSTONE: u8 = 2;
const BATCH_BEGIN: u8 = 3;
const SEAL: u8 = 6;
const KINDS: u8 = 6;

const EXPIRY: u8 = 1;
const METADATA: u8 = 2;
const COMPRESSED: u8 = 4;

/// Body lengths of batch frames, marks, starts and seals.
const LOG_BODIES: [usize; 4] = [16, 16, 20, 76];

/// What to repair in the records of a segment, in addition to their checksums.
#[derive(Clone, Copy, Debug, Default)]
pub struct Repair {
    /// Kinds, flags and lengths: made valid and small.
    pub shape: bool,
    /// Sequences made to rise, and padding zeroed.
    pub order: bool,
    /// Batch frames and seals made to match the records.
    pub accounts: bool,
}

impl Repair {
    /// Decodes three bits.
    pub fn from_bits(bits: u8) -> Repair {
        Repair {
            shape: bits & 1 != 0,
            order: bits & 2 != 0,
            accounts: bits & 4 != 0,
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default())
}

fn write(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}

/// Repairs magic, version and checksum of a hint, a manifest, or the head of an index file.
pub fn envelope(bytes: &mut [u8], magic: &[u8; 8]) {
    envelope_of(1, bytes, magic);
}

fn envelope_of(version: u32, bytes: &mut [u8], magic: &[u8; 8]) {
    if bytes.len() < 16 {
        return;
    }
    write(bytes, 0, magic);
    write(bytes, 8, &version.to_le_bytes());
    let content = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..content]);
    write(bytes, content, &crc.to_le_bytes());
}

/// Repairs count and checksum of a hint, so that its list has the stated length.
pub fn hint(bytes: &mut Vec<u8>) {
    const LIST: usize = 60;
    if bytes.len() < LIST + 4 {
        return;
    }
    let data_end = u64::from_le_bytes(bytes[36..44].try_into().unwrap_or_default());
    let width = if data_end <= 128 << 20 { 3 } else { 4 };
    let count = (bytes.len() - LIST - 4) / width;
    bytes.truncate(LIST + count * width + 4);
    write(bytes, 52, &(count as u64).to_le_bytes());
    envelope(bytes, b"EMBRHINT");
}

/// The version of a manifest stays if it is 2, of one that names a ring.
fn manifest_version(bytes: &[u8]) -> u32 {
    if bytes.get(8) == Some(&2) { 2 } else { 1 }
}

/// Repairs magic, version and checksum of a manifest.
pub fn manifest_envelope(bytes: &mut [u8]) {
    envelope_of(manifest_version(bytes), bytes, b"EMBRMANI");
}

/// Repairs count and checksum of a manifest, so that its entries end where the file does.
pub fn manifest(bytes: &mut Vec<u8>) {
    let version = manifest_version(bytes);
    let entries = if version == 2 { 68 } else { 64 };
    if bytes.len() < entries + 4 {
        return;
    }
    let (mut at, mut count, end) = (entries, 0u64, bytes.len() - 4);
    while let Some(state) = bytes.get(at + 8).copied().filter(|_| at + 9 <= end) {
        let length = if state == 2 || state == 3 { 85 } else { 9 };
        if at + length > end {
            break;
        }
        (at, count) = (at + length, count + 1);
    }
    bytes.truncate(at + 4);
    write(bytes, entries - 8, &count.to_le_bytes());
    envelope_of(version, bytes, b"EMBRMANI");
}

/// Length of the head of an index file, and the range of its section table.
const INDEX_HEAD: usize = 104;
const INDEX_SECTIONS: std::ops::Range<usize> = 64..100;

/// Repairs magic, version and checksum of the head of an index file.
pub fn index_head(bytes: &mut [u8]) {
    if let Some(head) = bytes.get_mut(..INDEX_HEAD) {
        envelope(head, b"EMBRINDX");
    }
}

/// Copies store id, generation and checksum of a manifest into the head of an index file.
pub fn index_of(bytes: &mut [u8], manifest: &[u8]) {
    if bytes.len() >= INDEX_HEAD && manifest.len() >= 68 {
        write(bytes, 12, &manifest[12..36]);
        write(bytes, 36, &manifest[manifest.len() - 4..]);
    }
}

/// Whether all checksums of an index file are correct, and its sections end where the file does.
pub fn is_sound_index(bytes: &[u8]) -> bool {
    let Some(head) = bytes.get(..INDEX_HEAD) else {
        return false;
    };
    let mut at = INDEX_HEAD as u64;
    let sound = INDEX_SECTIONS.step_by(12).all(|section| {
        let start = at;
        at = at.saturating_add(u64::from_le_bytes(
            head[section..section + 8].try_into().unwrap_or_default(),
        ));
        let content = bytes.get(start as usize..at as usize);
        content.is_some_and(|content| crc32fast::hash(content) == u32_at(head, section + 8))
    });
    let head_crc = crc32fast::hash(&head[..INDEX_HEAD - 4]);
    sound
        && at == bytes.len() as u64
        && head.starts_with(b"EMBRINDX\x01\0\0\0")
        && head_crc == u32_at(head, INDEX_HEAD - 4)
}

/// Whether an index file claims to belong to this manifest.
pub fn is_index_of(bytes: &[u8], manifest: &[u8]) -> bool {
    bytes.get(12..36) == manifest.get(12..36) && bytes.get(36..40) == manifest.last_chunk::<4>().map(|crc| &crc[..])
}

/// Repairs the section lengths and all checksums of an index file, so that its sections end where
/// the file does.
pub fn index(bytes: &mut [u8]) {
    if bytes.len() < INDEX_HEAD {
        return;
    }
    let mut at = INDEX_HEAD;
    for section in INDEX_SECTIONS.step_by(12) {
        let there = bytes.len() - at;
        let said = u64::from_le_bytes(bytes[section..section + 8].try_into().unwrap_or_default());
        let is_last = section + 12 == INDEX_SECTIONS.end;
        let length = if is_last {
            there
        } else {
            said.min(there as u64) as usize
        };
        let crc = crc32fast::hash(&bytes[at..at + length]);
        write(bytes, section, &(length as u64).to_le_bytes());
        write(bytes, section + 8, &crc.to_le_bytes());
        at += length;
    }
    index_head(bytes);
}

/// Repairs magic, version and checksum of a segment's header.
pub fn segment_header(bytes: &mut [u8]) {
    if bytes.len() < SEGMENT_HEADER_LEN {
        return;
    }
    write(bytes, 0, b"EMBRSEGM");
    write(bytes, 8, &1u32.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..60]);
    write(bytes, 60, &crc.to_le_bytes());
}

/// A record as its header describes it.
#[derive(Clone, Copy)]
struct Shape {
    kind: u8,
    header: usize,
    body: usize,
    length: usize,
}

impl Shape {
    fn of(bytes: &[u8], offset: usize) -> Option<Shape> {
        let fixed = bytes.get(offset..)?.first_chunk::<RECORD_HEADER_LEN>()?;
        let (kind, flags) = (fixed[8], fixed[9]);
        let optional = |flag, length| if flags & flag != 0 { length } else { 0 };
        let before_metadata = RECORD_HEADER_LEN + optional(EXPIRY, 8);
        let header = before_metadata + optional(METADATA, 4) + optional(COMPRESSED, 4);
        let metadata_at = offset + before_metadata;
        let metadata = if flags & METADATA == 0 {
            0
        } else {
            bytes
                .get(metadata_at..metadata_at + 4)
                .map(|_| u32_at(bytes, metadata_at))? as usize
        };
        let key = if kind == PUT || kind == TOMBSTONE {
            usize::from(u16::from_le_bytes([fixed[10], fixed[11]])) + 1
        } else {
            0
        };
        let body = key + metadata + u32_at(fixed, 12) as usize;
        let length = (header + body).next_multiple_of(ALIGNMENT);
        (length <= bytes.len() - offset).then_some(Shape {
            kind,
            header,
            body,
            length,
        })
    }
}

/// Repairs both checksums of the record at this offset; `at` is the offset that the header's
/// checksum is bound to.
pub fn record(bytes: &mut [u8], offset: usize, at: u64, salt: u32) {
    let Some(shape) = Shape::of(bytes, offset) else {
        return;
    };
    let body = offset + shape.header;
    let body_crc = crc32fast::hash(&bytes[body..body + shape.body]);
    write(bytes, offset + 4, &body_crc.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(&bytes[offset + 4..body]);
    hasher.update(&((at / ALIGNMENT as u64) as u32).to_le_bytes());
    write(bytes, offset, &hasher.finalize().to_le_bytes());
}

/// Bodies of all puts in a segment that match their checksums, at any aligned offset, with the
/// length of their metadata.
pub fn sound_bodies(bytes: &[u8]) -> Vec<(Option<usize>, &[u8])> {
    let body = |offset: usize| {
        let shape = Shape::of(bytes, offset).filter(|shape| shape.kind == PUT)?;
        let start = offset + shape.header;
        let body = bytes.get(start..start + shape.body)?;
        let has_metadata = bytes[offset + 9] & METADATA != 0;
        let metadata = has_metadata.then(|| u32_at(bytes, start - 4) as usize);
        (crc32fast::hash(body) == u32_at(bytes, offset + 4)).then_some((metadata, body))
    };
    (SEGMENT_HEADER_LEN..bytes.len())
        .step_by(ALIGNMENT)
        .filter_map(body)
        .collect()
}

/// Gives a record a kind, flags and lengths that a writer could have written, and that usually fit.
fn reshape(bytes: &mut [u8], offset: usize) {
    let kind = match bytes[offset + 8] {
        kind @ 1..=KINDS => kind,
        other => 1 + other % KINDS,
    };
    let flags = if kind == PUT {
        bytes[offset + 9] & (EXPIRY | METADATA)
    } else {
        0
    };
    let value = match kind {
        PUT => u32_at(bytes, offset + 12) % 300,
        TOMBSTONE => 0,
        log => LOG_BODIES[usize::from(log - BATCH_BEGIN)] as u32,
    };
    bytes[offset + 8] = kind;
    bytes[offset + 9] = flags;
    bytes[offset + 10] &= 0x3f;
    bytes[offset + 11] = 0;
    write(bytes, offset + 12, &value.to_le_bytes());
    let mut at = offset + RECORD_HEADER_LEN;
    if flags & EXPIRY != 0 {
        if let Some(expiry) = bytes.get_mut(at..at + 8).filter(|expiry| **expiry == [0; 8]) {
            expiry[0] = 1;
        }
        at += 8;
    }
    if flags & METADATA != 0
        && let Some(length) = bytes.get_mut(at..at + 4)
    {
        length[1..].fill(0);
        length[0] &= 0x3f;
    }
}

/// Repairs the records of a segment, up to the first that does not fit, or to zeros.
pub fn records(bytes: &mut [u8], repair: Repair) {
    if bytes.len() < SEGMENT_HEADER_LEN {
        return;
    }
    let salt = u32_at(bytes, 12);
    let mut found = Vec::new();
    let (mut offset, mut sequence) = (SEGMENT_HEADER_LEN, 0u32);
    while bytes.len() - offset >= RECORD_HEADER_LEN && bytes[offset..].iter().any(|&byte| byte != 0) {
        if repair.shape {
            reshape(bytes, offset);
        }
        let Some(shape) = Shape::of(bytes, offset) else {
            break;
        };
        if repair.order {
            sequence += u32::from(shape.kind != SEAL);
            write(bytes, offset + 20, &sequence.to_le_bytes());
            let used = shape.header + shape.body;
            bytes[offset + used..offset + shape.length].fill(0);
        }
        record(bytes, offset, offset as u64, salt);
        found.push((offset, shape));
        offset += shape.length;
    }
    if repair.accounts {
        for (index, (offset, shape)) in found.iter().enumerate() {
            match shape.kind {
                BATCH_BEGIN if shape.body == 16 => frame(bytes, *offset + shape.header, &found[index + 1..]),
                SEAL if shape.body == 76 => summary(bytes, *offset, *offset + shape.header, &found[..index]),
                _ => continue,
            }
            record(bytes, *offset, *offset as u64, salt);
        }
    }
}

/// Repairs a batch frame to cover as many of the following puts and tombstones as it states, or all
/// of them if there are fewer.
fn frame(bytes: &mut [u8], body: usize, following: &[(usize, Shape)]) {
    let keyed = following
        .iter()
        .take_while(|(_, shape)| shape.kind == PUT || shape.kind == TOMBSTONE)
        .count();
    if keyed == 0 {
        return;
    }
    let count = (u32_at(bytes, body) as usize % 8).clamp(1, keyed);
    let (mut run, mut length) = (crc32fast::Hasher::new(), 0);
    for (offset, shape) in &following[..count] {
        run.update(&bytes[*offset..offset + 8]);
        length += shape.length as u64;
    }
    write(bytes, body, &(count as u32).to_le_bytes());
    write(bytes, body + 4, &run.finalize().to_le_bytes());
    write(bytes, body + 8, &length.to_le_bytes());
}

/// Repairs a seal's summary of all records before it.
fn summary(bytes: &mut [u8], data_end: usize, body: usize, before: &[(usize, Shape)]) {
    let base = u64::from_le_bytes(bytes[40..48].try_into().unwrap_or_default());
    let [
        mut puts,
        mut put_bytes,
        mut expiring,
        mut tombstones,
        mut tombstone_bytes,
    ] = [0u64; 5];
    let (mut min_sequence, mut max_sequence) = (u64::MAX, 0);
    let mut crc = crc32fast::Hasher::new();
    for (offset, shape) in before {
        let sequence = base.wrapping_add(u64::from(u32_at(bytes, offset + 20)));
        max_sequence = max_sequence.max(sequence);
        crc.update(&bytes[*offset..offset + 8]);
        match shape.kind {
            PUT => {
                puts += 1;
                put_bytes += shape.length as u64;
                expiring += u64::from(bytes[offset + 9] & EXPIRY);
            }
            TOMBSTONE => {
                tombstones += 1;
                tombstone_bytes += shape.length as u64;
            }
            _ => continue,
        }
        min_sequence = min_sequence.min(sequence);
    }
    let fields = [
        data_end as u64,
        before.len() as u64,
        puts,
        put_bytes,
        expiring,
        tombstones,
        tombstone_bytes,
        min_sequence,
        max_sequence,
    ];
    for (index, field) in fields.iter().enumerate() {
        write(bytes, body + 8 * index, &field.to_le_bytes());
    }
    write(bytes, body + 72, &crc.finalize().to_le_bytes());
}
