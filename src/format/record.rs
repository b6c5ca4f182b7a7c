//! (Over 400 lines: a record, described, written and read in one place.)
//!
//! One record: a header of 24 to 40 bytes with its own checksum, then key, metadata and value under
//! a second checksum, then zeros up to the next multiple of eight.
//!
//! The header's checksum also covers the segment's salt and the record's offset, so a record is
//! valid in one place only: segment bytes inside a value, a stale block or a misdirected write are
//! never taken for a record. The body's checksum does not, so compaction can move a body unchanged.

use std::sync::LazyLock;

use crc32fast::Hasher;

use super::{ALIGNMENT, Damage, Stored, aligned};
use crate::planted::{Planted, planted};

/// Length of the fixed part of a header, in bytes.
pub(crate) const FIXED_HEADER_LEN: usize = 24;
/// Length of a header with all optional fields, in bytes.
pub(crate) const HEADER_LEN_MAX: usize = FIXED_HEADER_LEN + EXPIRY_LEN + METADATA_LEN_LEN + CODEC_LEN;
/// The same in words of four bytes.
const FIXED_HEADER_WORDS: usize = FIXED_HEADER_LEN / 4;
const HEADER_WORDS_MAX: usize = HEADER_LEN_MAX / 4;
const EXPIRY_LEN: usize = 8;
const METADATA_LEN_LEN: usize = 4;
const CODEC_LEN: usize = 4;

/// Longest key, in bytes: 64 KiB. The length minus one is stored, so it fits in 16 bits.
pub(crate) const KEY_LEN_MAX: usize = 1 << 16;
/// Longest metadata, in bytes: 64 KiB.
pub(crate) const METADATA_LEN_MAX: usize = 1 << 16;
/// Longest value, in bytes: 1 GiB.
pub(crate) const VALUE_LEN_MAX: usize = 1 << 30;

/// Longest record, in bytes.
pub(crate) const RECORD_LEN_MAX: u64 =
    aligned((HEADER_LEN_MAX + KEY_LEN_MAX + METADATA_LEN_MAX + VALUE_LEN_MAX) as u64);

const _: () = assert!(FIXED_HEADER_LEN.is_multiple_of(ALIGNMENT as usize));
const _: () = assert!(KEY_LEN_MAX - 1 == u16::MAX as usize);

/// The kind of a record. 0 is invalid, so that a zeroed range is never a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A key has this value, and perhaps metadata and an expiry.
    Put = 1,
    /// A key has no value.
    Tombstone = 2,
    /// The following records are one batch, applied as a whole or not at all. Body: [`BatchBegin`].
    BatchBegin = 3,
    /// The log was durable up to a point when this was written. Body: [`super::segment::Mark`].
    Mark = 4,
    /// First record of a segment of the log: says where its predecessor ended. Body:
    /// [`super::segment::Start`].
    Start = 5,
    /// Last record of a sealed segment. Body: [`super::segment::Summary`].
    Seal = 6,
}

impl Kind {
    #[inline]
    pub(crate) fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Put,
            2 => Kind::Tombstone,
            3 => Kind::BatchBegin,
            4 => Kind::Mark,
            5 => Kind::Start,
            6 => Kind::Seal,
            _ => return None,
        })
    }

    /// Whether the record is about a key; the others are about the log.
    #[inline]
    pub(crate) fn has_key(self) -> bool {
        match self {
            Kind::Put | Kind::Tombstone => true,
            Kind::BatchBegin | Kind::Mark | Kind::Start | Kind::Seal => false,
        }
    }

    /// Whether the record gives a key a value.
    #[inline]
    pub(crate) fn is_put(self) -> bool {
        match self {
            Kind::Put => true,
            Kind::Tombstone | Kind::BatchBegin | Kind::Mark | Kind::Start | Kind::Seal => false,
        }
    }

    /// Whether the record takes the value of a key away.
    #[inline]
    pub(crate) fn is_tombstone(self) -> bool {
        match self {
            Kind::Tombstone => true,
            Kind::Put | Kind::BatchBegin | Kind::Mark | Kind::Start | Kind::Seal => false,
        }
    }
}

const FLAG_EXPIRY: u8 = 1;
const FLAG_METADATA: u8 = 2;
/// Reserved: the value is compressed with the codec named in the codec field. This version neither
/// writes nor reads such values.
const FLAG_COMPRESSED: u8 = 4;

/// Where a record is: the inputs that bind its header's checksum to its position, and the base of
/// its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The segment's random salt.
    pub(crate) salt: u32,
    /// The base that the segment's sequences are relative to.
    pub(crate) base_sequence: u64,
    /// Offset of the record in its segment.
    pub(crate) offset: u64,
}

impl Place {
    /// The offset as the header's checksum covers it.
    #[inline]
    fn offset_field(self) -> [u8; 4] {
        ((self.offset / ALIGNMENT) as u32).to_stored()
    }
}

/// A record's header in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) namespace: u32,
    /// Unique in the store; higher is newer.
    pub(crate) sequence: u64,
    /// Time from which the record counts as absent, in milliseconds since the Unix epoch.
    pub(crate) expiry: Option<u64>,
    pub(crate) key_len: u32,
    /// None is different from empty metadata.
    pub(crate) metadata_len: Option<u32>,
    pub(crate) value_len: u32,
    pub(crate) body_crc: u32,
}

impl Header {
    /// The header of a record about the log itself.
    pub(crate) fn of_log(kind: Kind, sequence: u64, body: &[u8]) -> Header {
        Header {
            kind,
            namespace: 0,
            sequence,
            expiry: None,
            key_len: 0,
            metadata_len: None,
            value_len: body.len() as u32,
            body_crc: crc(body),
        }
    }

    /// Bytes of the encoded header.
    #[inline]
    pub(crate) fn header_len(&self) -> usize {
        FIXED_HEADER_LEN
            + if self.expiry.is_some() { EXPIRY_LEN } else { 0 }
            + if self.metadata_len.is_some() {
                METADATA_LEN_LEN
            } else {
                0
            }
    }

    /// Bytes of key, metadata and value.
    #[inline]
    pub(crate) fn body_len(&self) -> u64 {
        u64::from(self.key_len) + u64::from(self.metadata_len.unwrap_or(0)) + u64::from(self.value_len)
    }

    /// Bytes that the record takes in its segment, including padding.
    #[inline]
    pub(crate) fn record_len(&self) -> u64 {
        aligned(self.header_len() as u64 + self.body_len())
    }

    /// Encodes the header for `place`. The sequence must not be below the segment's base, nor 2^32
    /// or more above it.
    #[inline]
    #[expect(clippy::indexing_slicing, reason = "there is room for all fields and the offset")]
    pub(crate) fn encode(&self, place: Place) -> EncodedHeader {
        debug_assert!(sequence_fits(place.base_sequence, self.sequence));
        debug_assert!(!self.kind.has_key() || (1..=KEY_LEN_MAX as u32).contains(&self.key_len));
        let expiry_flag = if self.expiry.is_some() { FLAG_EXPIRY } else { 0 };
        let metadata_flag = if self.metadata_len.is_some() { FLAG_METADATA } else { 0 };
        let [key_len_low, key_len_high] = (self.key_len.saturating_sub(1) as u16).to_stored();
        let mut words = [[0; 4]; HEADER_WORDS_MAX + 1];
        words[1] = self.body_crc.to_stored();
        words[2] = [self.kind as u8, expiry_flag | metadata_flag, key_len_low, key_len_high];
        words[3] = self.value_len.to_stored();
        words[4] = self.namespace.to_stored();
        words[5] = (self.sequence.wrapping_sub(place.base_sequence) as u32).to_stored();
        let mut count = FIXED_HEADER_WORDS;
        if let Some(expiry) = self.expiry {
            words[count] = (expiry as u32).to_stored();
            words[count + 1] = ((expiry >> 32) as u32).to_stored();
            count += 2;
        }
        if let Some(length) = self.metadata_len {
            words[count] = length.to_stored();
            count += 1;
        }
        words[count] = place.offset_field();
        let crc = match count {
            // Most are of this length, which the compiler knows then.
            FIXED_HEADER_WORDS => header_crc(words[1..=FIXED_HEADER_WORDS].as_flattened_mut(), place.salt),
            _ => header_crc(words[1..=count].as_flattened_mut(), place.salt),
        };
        words[0] = crc.to_stored();
        words[1] = self.body_crc.to_stored();
        EncodedHeader { words, count }
    }

    /// Decodes the header at the beginning of `bytes`, which may extend beyond it. The result has
    /// not been checked against the bytes that follow.
    pub(crate) fn decode(bytes: &[u8], place: Place) -> Result<Header, Damage> {
        Self::check(bytes, place)?;
        Self::fields(bytes, place)
    }

    /// Checks the header at the beginning of `bytes` against its checksum.
    #[inline]
    fn check(bytes: &[u8], place: Place) -> Result<(), Damage> {
        let fixed = bytes.first_chunk::<FIXED_HEADER_LEN>().ok_or(Damage::Short)?;
        let &[c0, c1, c2, c3, covered @ ..] = fixed;
        let &[_, _, _, _, _, flags, ..] = &covered;
        let crc = if encoded_len(flags) == FIXED_HEADER_LEN {
            // Most are of this length, so their copy is of a length that the compiler knows.
            let mut buffer = [0; FIXED_HEADER_LEN];
            let [header @ .., _, _, _, _] = &mut buffer;
            *header = covered;
            let [.., o0, o1, o2, o3] = &mut buffer;
            [*o0, *o1, *o2, *o3] = place.offset_field();
            header_crc(&mut buffer, place.salt)
        } else {
            let covered = bytes.get(4..encoded_len(flags)).ok_or(Damage::Short)?;
            let mut buffer = [0; HEADER_LEN_MAX];
            let buffer = buffer.get_mut(..covered.len() + 4).ok_or(Damage::Short)?;
            let (header, offset) = buffer.split_last_chunk_mut::<4>().ok_or(Damage::Short)?;
            header.copy_from_slice(covered);
            *offset = place.offset_field();
            header_crc(buffer, place.salt)
        };
        if crc == u32::from_stored([c0, c1, c2, c3]) || planted(Planted::TrustStaleRing) {
            Ok(())
        } else {
            Err(Damage::HeaderChecksum)
        }
    }

    /// As [`Header::decode`], for a header whose checksum has just been checked.
    #[inline]
    pub(crate) fn fields(bytes: &[u8], place: Place) -> Result<Header, Damage> {
        let (words, _) = bytes.as_chunks::<4>();
        let &[
            _crc,
            body_crc,
            [kind, flags, key_len @ ..],
            value_len,
            namespace,
            sequence,
            ..,
        ] = words
        else {
            return Err(Damage::Short);
        };
        let kind = Kind::from_byte(kind).ok_or(Damage::Field("record kind"))?;
        let (expiry, metadata_len) = match flags {
            0 => (None, None),
            _ => Self::optional_fields(bytes, kind, flags)?,
        };
        let stored_key_len = u32::from(u16::from_stored(key_len));
        let header = Header {
            kind,
            namespace: u32::from_stored(namespace),
            sequence: place
                .base_sequence
                .checked_add(u64::from(u32::from_stored(sequence)))
                .ok_or(Damage::Field("sequence"))?,
            expiry,
            key_len: if kind.has_key() { stored_key_len + 1 } else { 0 },
            metadata_len,
            value_len: u32::from_stored(value_len),
            body_crc: u32::from_stored(body_crc),
        };
        let value_len_max = if kind.is_tombstone() { 0 } else { VALUE_LEN_MAX };
        if header.value_len as usize > value_len_max {
            return Err(Damage::Field("value length"));
        }
        Ok(header)
    }

    /// Expiry and length of the metadata, as far as these flags say that the header has them.
    fn optional_fields(bytes: &[u8], kind: Kind, flags: u8) -> Result<(Option<u64>, Option<u32>), Damage> {
        if flags & !(FLAG_EXPIRY | FLAG_METADATA) != 0 || !kind.is_put() {
            return Err(Damage::Field("record flags"));
        }
        let mut fields = super::Fields(bytes.get(FIXED_HEADER_LEN..encoded_len(flags)).ok_or(Damage::Short)?);
        let has = |flag| flags & flag != 0;
        let expiry = has(FLAG_EXPIRY).then(|| fields.u64()).transpose()?;
        let metadata_len = has(FLAG_METADATA).then(|| fields.u32()).transpose()?;
        if expiry == Some(0) {
            return Err(Damage::Field("expiry"));
        }
        if metadata_len.is_some_and(|length| length as usize > METADATA_LEN_MAX) {
            return Err(Damage::Field("metadata length"));
        }
        Ok((expiry, metadata_len))
    }
}

/// Bytes of a header with these flags.
#[inline]
fn encoded_len(flags: u8) -> usize {
    FIXED_HEADER_LEN
        + if flags & FLAG_EXPIRY != 0 { EXPIRY_LEN } else { 0 }
        + if flags & FLAG_METADATA != 0 {
            METADATA_LEN_LEN
        } else {
            0
        }
        + if flags & FLAG_COMPRESSED != 0 { CODEC_LEN } else { 0 }
}

/// Whether a segment with this base can hold this sequence.
pub(crate) fn sequence_fits(base_sequence: u64, sequence: u64) -> bool {
    sequence
        .checked_sub(base_sequence)
        .is_some_and(|above| above <= u64::from(u32::MAX))
}

/// The checksum of a header: of its bytes from the checksum of the body to the offset, beginning
/// with the salt in place of zero. Changes the bytes.
#[inline]
fn header_crc(covered: &mut [u8], salt: u32) -> u32 {
    // A CRC begins with a value as if it was combined with the first four bytes of the input.
    if let Some(first) = covered.first_chunk_mut() {
        *first = (u32::from_stored(*first) ^ salt).to_stored();
    }
    crc(covered)
}

/// A hasher of no bytes. A new one would ask each time what the processor can do: 37 instructions,
/// about half of what hashing a header takes.
#[inline]
fn hasher() -> Hasher {
    static READY: LazyLock<Hasher> = LazyLock::new(Hasher::new);
    READY.clone()
}

/// CRC-32 of these bytes.
#[inline]
fn crc(bytes: &[u8]) -> u32 {
    let mut hasher = hasher();
    hasher.update(bytes);
    hasher.finalize()
}

/// An encoded header, on the stack.
pub(crate) struct EncodedHeader {
    words: [[u8; 4]; HEADER_WORDS_MAX + 1],
    count: usize,
}

impl EncodedHeader {
    #[inline]
    #[expect(clippy::indexing_slicing, reason = "`count` of the words are used")]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self.count {
            FIXED_HEADER_WORDS => self.words[..FIXED_HEADER_WORDS].as_flattened(),
            count => self.words[..count].as_flattened(),
        }
    }
}

/// CRC-32 of a body, given in parts.
pub(crate) fn body_crc(parts: &[&[u8]]) -> u32 {
    let mut hasher = hasher();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        hasher.update(part);
    }
    hasher.finalize()
}

/// A record in a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) header: Header,
    /// Key, metadata and value, concatenated.
    pub(crate) body: &'a [u8],
}

impl<'a> Record<'a> {
    /// Parses the record at the beginning of `bytes`, which must extend to the end of the segment's
    /// data. Checks the header, and that the record is within `bytes`. The body is not checked yet;
    /// see [`Record::check_body`].
    #[inline]
    pub(crate) fn parse(bytes: &'a [u8], place: Place) -> Result<Record<'a>, Damage> {
        Header::check(bytes, place)?;
        Self::parse_checked(bytes, place)
    }

    /// As [`Record::parse`], for a record whose header's checksum has just been checked.
    #[inline]
    pub(crate) fn parse_checked(bytes: &'a [u8], place: Place) -> Result<Record<'a>, Damage> {
        let header = Header::fields(bytes, place)?;
        if header.record_len() > bytes.len() as u64 {
            return Err(Damage::Short);
        }
        let start = header.header_len();
        let body = bytes
            .get(start..start + header.body_len() as usize)
            .ok_or(Damage::Short)?;
        Ok(Record { header, body })
    }

    /// Checks the body against its checksum.
    #[inline]
    pub(crate) fn check_body(&self) -> Result<(), Damage> {
        if crc(self.body) == self.header.body_crc {
            Ok(())
        } else {
            Err(Damage::BodyChecksum)
        }
    }

    #[inline]
    pub(crate) fn key(&self) -> &'a [u8] {
        self.body.get(..self.header.key_len as usize).unwrap_or_default()
    }

    pub(crate) fn metadata(&self) -> Option<&'a [u8]> {
        let start = self.header.key_len as usize;
        self.header
            .metadata_len
            .map(|length| self.body.get(start..start + length as usize).unwrap_or_default())
    }

    /// Offset of the value in the body; it extends to the body's end.
    pub(crate) fn value_start(&self) -> usize {
        self.header.key_len as usize + self.header.metadata_len.unwrap_or(0) as usize
    }

    pub(crate) fn value(&self) -> &'a [u8] {
        self.body.get(self.value_start()..).unwrap_or_default()
    }
}

/// Body of a [`Kind::BatchBegin`] record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchBegin {
    /// Number of records in the batch.
    pub(crate) count: u32,
    /// CRC-32 over the header and body checksums of these records, in order.
    pub(crate) run_crc: u32,
    /// Bytes that these records take.
    pub(crate) bytes: u64,
}

impl BatchBegin {
    /// Bytes of the encoded form.
    pub(crate) const LEN: usize = 16;

    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&self.count.to_stored());
        bytes[4..8].copy_from_slice(&self.run_crc.to_stored());
        bytes[8..].copy_from_slice(&self.bytes.to_stored());
        bytes
    }

    pub(crate) fn decode(body: &[u8]) -> Result<BatchBegin, Damage> {
        let mut fields = super::Fields(body);
        let begin = BatchBegin {
            count: fields.u32()?,
            run_crc: fields.u32()?,
            bytes: fields.u64()?,
        };
        if !fields.0.is_empty() || begin.count == 0 || !begin.bytes.is_multiple_of(ALIGNMENT) {
            return Err(Damage::Field("batch frame"));
        }
        Ok(begin)
    }
}

/// Computes the checksum over a run of records from the two checksums that each begins with.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunCrc {
    hasher: Hasher,
    /// Pairs of checksums that are hashed together: one by one, that takes three times as long.
    waiting: [[u8; 8]; RunCrc::TOGETHER],
    count: usize,
}

impl RunCrc {
    const TOGETHER: usize = 8;

    /// `record` are the record's bytes as stored.
    #[inline]
    pub(crate) fn add(&mut self, record: &[u8]) {
        let Some(checksums) = record.first_chunk() else {
            debug_assert!(false, "a record is longer than its checksums");
            return;
        };
        if let Some(place) = self.waiting.get_mut(self.count) {
            *place = *checksums;
            self.count += 1;
        }
        if self.count == Self::TOGETHER {
            self.hasher.update(self.waiting.as_flattened());
            self.count = 0;
        }
    }

    pub(crate) fn value(&self) -> u32 {
        let mut hasher = self.hasher.clone();
        let waiting = self.waiting.get(..self.count).unwrap_or_default();
        hasher.update(waiting.as_flattened());
        hasher.finalize()
    }
}

#[cfg(test)]
mod tests;
