//! (Over 400 lines: one function for each kind of file.)
//!
//! Showing a store's file part by part, including damaged files.

mod ring;

use std::path::{Path, PathBuf};

use super::damaged::{Content, Damaged};
use crate::error::{Error, Result};
use crate::format::hint::Hint;
use crate::format::index::IndexHead;
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::record::{BatchBegin, Kind, Record};
use crate::format::segment::{Mark, SEGMENT_HEADER_LEN, SegmentHeader, Start, Summary};
use crate::format::{
    Damage, FileName, HINT_MAGIC, INDEX_FILE, INDEX_MAGIC, MANIFEST_FILE, MANIFEST_MAGIC, MANIFEST_TEMPORARY_FILE,
    RING_FILE, SEGMENT_MAGIC, classify,
};
use crate::index::namespaces::{SYSTEM_NAMESPACE, decode_entry, decode_settings};
use crate::options::Options;
use crate::planted::{Planted, planted};
use crate::segment::walk::{Reach, Step, Walker};
use crate::storage::Directory;

/// What kind of file [`inspect`] was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileKind {
    /// Records.
    Segment,
    /// Offsets of a segment's records in key order.
    Hint,
    /// The list of segments.
    Manifest,
    /// The indexes as of closing.
    Index,
    /// Records that continue open segments.
    Ring,
}

/// What a part of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PartKind {
    /// The header of a segment, or the fixed fields at the beginning of another file.
    Header,
    /// A key with its value.
    Put,
    /// A deleted key.
    Tombstone,
    /// The frame of a batch; its records follow.
    Batch,
    /// How far the log was durable.
    Mark,
    /// How the previous segment ended.
    Start,
    /// The end of a segment, with its account.
    Seal,
    /// An item of a list: an offset in a hint, a segment in the manifest, a section of an index
    /// file.
    Entry,
    /// Damaged bytes.
    Damaged,
}

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Part<'a> {
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// Kind of part.
    pub kind: PartKind,
    /// Its fields, in the order of `docs/format.md`.
    pub fields: Vec<(&'static str, PartValue<'a>)>,
}

/// Value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartValue<'a> {
    /// A count, length, offset, sequence, number or id.
    Number(u64),
    /// A time, in milliseconds since the Unix epoch.
    TimeMs(u64),
    /// A checksum or other bit pattern; shown in hexadecimal.
    Bits(u64),
    /// An id of 128 bits; shown in hexadecimal.
    Id(u128),
    /// Bytes of a key, metadata or value.
    Bytes(&'a [u8]),
    /// Text.
    Text(String),
}

use PartValue::{Bits, Bytes, Id, Number, Text, TimeMs};

/// Passes the parts of a segment, hint, manifest, index file or ring to `look`, from front to back,
/// until it returns false. The kind of file is told by its first bytes, or, if they are damaged, by
/// its name. Damaged ranges are passed as [`PartKind::Damaged`] in between. In a segment, records
/// after damage are shown as far as they can be recognised; any other damaged file is one damaged
/// part, except that sections of an index file are checked one by one.
///
/// A ring is shown by the manifest and the segments beside it: the records that continue these,
/// each where it begins in the ring; a record at its end goes on at its beginning.
///
/// Reads the whole file into memory. Takes no lock: for a segment that is being written to, shows
/// what is in the file at the time. Only the storage of `options` is used.
///
/// # Errors
///
/// [`Error::InvalidInput`] if it is none of these files, [`Error::NewerFormat`] for a later
/// version, and [`Error::Io`] if it cannot be opened. Blocks that cannot be read count as damage.
pub fn inspect(path: impl AsRef<Path>, options: &Options, mut look: impl FnMut(&Part<'_>) -> bool) -> Result<FileKind> {
    let path = path.as_ref();
    let directory = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| not_ours(path))?;
    let directory = Directory::open(&*options.storage, directory).map_err(|error| Error::io("open", path, error))?;
    let directory = directory.read_only();
    let file = directory
        .open_file(name, false)
        .map_err(|error| Error::io("open", path, error))?;
    let length = file.len().map_err(|error| Error::io("measure", path, error))?;
    let mut content = Content::default();
    // A file of another kind is not read as a whole.
    content.read(&*file, path, SEGMENT_MAGIC.len() as u64)?;
    let kind = kind_of(path, &content.bytes)?;
    if kind == FileKind::Index {
        content.read_any(&*file, path, length)?;
    } else {
        content.read(&*file, path, length)?;
    }
    let bytes = std::mem::take(&mut content.bytes);
    let mut view = View {
        path: path.to_owned(),
        bytes: &bytes,
        content,
        look: &mut look,
    };
    match kind {
        FileKind::Segment => view.segment()?,
        FileKind::Hint => view.hint()?,
        FileKind::Manifest => view.manifest()?,
        FileKind::Index => view.index()?,
        FileKind::Ring => view.ring(&directory)?,
    };
    Ok(kind)
}

fn kind_of(path: &Path, bytes: &[u8]) -> Result<FileKind> {
    let by_magic = match bytes.first_chunk() {
        Some(&SEGMENT_MAGIC) => Some(FileKind::Segment),
        Some(&HINT_MAGIC) => Some(FileKind::Hint),
        Some(&MANIFEST_MAGIC) => Some(FileKind::Manifest),
        Some(&INDEX_MAGIC) => Some(FileKind::Index),
        _ => None,
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let by_name = match classify(&name) {
        FileName::Segment(_) => Some(FileKind::Segment),
        FileName::Hint(_) => Some(FileKind::Hint),
        FileName::Own if [MANIFEST_FILE, MANIFEST_TEMPORARY_FILE].contains(&&*name) => Some(FileKind::Manifest),
        FileName::Own if name == INDEX_FILE => Some(FileKind::Index),
        FileName::Own if name == RING_FILE => Some(FileKind::Ring),
        FileName::Own | FileName::OfSystem | FileName::Foreign => None,
    };
    // A ring begins with anything.
    let by_name_alone = by_name.filter(|kind| *kind == FileKind::Ring);
    by_name_alone.or(by_magic).or(by_name).ok_or_else(|| not_ours(path))
}

fn not_ours(path: &Path) -> Error {
    Error::invalid(format!(
        "this is no segment, hint, manifest, index file or ring; name one from a store's directory: {}",
        path.display()
    ))
}

/// A file that is being shown.
struct View<'a, L> {
    path: PathBuf,
    bytes: &'a [u8],
    /// Knows which blocks could not be read; its bytes were taken out.
    content: Content,
    look: &'a mut L,
}

/// Whether to continue.
type Going = bool;

impl<L: FnMut(&Part<'_>) -> bool> View<'_, L> {
    fn show(&mut self, kind: PartKind, offset: u64, length: u64, fields: Vec<(&'static str, PartValue<'_>)>) -> Going {
        (self.look)(&Part {
            offset,
            length,
            kind,
            fields,
        })
    }

    /// Shows a damaged range; an error if the damage is a newer version.
    fn damaged(&mut self, offset: u64, length: u64, damage: Damage) -> Result<Going> {
        if matches!(damage, Damage::Version(_)) {
            return Err(Error::damage(&self.path, offset, damage));
        }
        if planted(Planted::InspectPassesDamage) {
            return Ok(true);
        }
        let Damaged { cause, .. } = self.content.damaged((&self.path, None), offset, length, damage);
        Ok(self.show(PartKind::Damaged, offset, length, vec![("cause", Text(cause))]))
    }

    fn segment(&mut self) -> Result<Going> {
        let bytes = self.bytes;
        let header = match SegmentHeader::decode(bytes) {
            Ok(header) => header,
            // Without the salt no record can be recognised.
            Err(damage) => return self.damaged(0, bytes.len() as u64, damage),
        };
        let fields = vec![
            ("salt", Bits(u64::from(header.salt))),
            ("store", Id(u128::from_be_bytes(header.store_id))),
            ("segment", Number(header.segment_id)),
            ("base sequence", Number(header.base_sequence)),
            ("created", TimeMs(header.created_ms)),
        ];
        if !self.show(PartKind::Header, 0, SEGMENT_HEADER_LEN, fields) {
            return Ok(false);
        }
        let mut walker = Walker::new(bytes, header, Reach::Unknown);
        let mut end = SEGMENT_HEADER_LEN;
        while let Some(step) = walker.next() {
            let going = match step {
                Step::Record { found, .. } | Step::Log(found) => {
                    end = found.offset + found.record.header.record_len();
                    self.record(found.offset, &found.record, Vec::new())
                }
                Step::Damaged { offset, length, damage } => self.damaged(offset, length, damage)?,
            };
            if !going {
                return Ok(false);
            }
        }
        if walker.is_sealed() && end < bytes.len() as u64 {
            return self.damaged(end, bytes.len() as u64 - end, Damage::Field("bytes behind a seal"));
        }
        Ok(true)
    }

    /// Shows a record, with these fields before its own.
    fn record<'f>(
        &mut self,
        offset: u64,
        record: &Record<'f>,
        mut fields: Vec<(&'static str, PartValue<'f>)>,
    ) -> Going {
        let header = &record.header;
        fields.push(("sequence", Number(header.sequence)));
        let kind = match header.kind {
            kind @ (Kind::Put | Kind::Tombstone) => {
                fields.push(("namespace", Number(u64::from(header.namespace))));
                fields.push(("key", Bytes(record.key())));
                if let Some(expiry) = header.expiry {
                    fields.push(("expiry", TimeMs(expiry)));
                }
                if let Some(metadata) = record.metadata() {
                    fields.push(("metadata", Bytes(metadata)));
                }
                if kind.is_put() {
                    fields.push(("value", Bytes(record.value())));
                    fields.extend(named(header.namespace, record));
                    PartKind::Put
                } else {
                    PartKind::Tombstone
                }
            }
            Kind::BatchBegin => {
                fields.extend(fields_of(BatchBegin::decode(record.body), |batch| {
                    vec![
                        ("records", Number(u64::from(batch.count))),
                        ("bytes", Number(batch.bytes)),
                        ("checksum", Bits(u64::from(batch.run_crc))),
                    ]
                }));
                PartKind::Batch
            }
            Kind::Mark => {
                fields.extend(fields_of(Mark::decode(record.body), |mark| {
                    vec![("segment", Number(mark.segment_id)), ("offset", Number(mark.offset))]
                }));
                PartKind::Mark
            }
            Kind::Start => {
                fields.extend(fields_of(Start::decode(record.body), |start| {
                    vec![
                        ("previous segment", Number(start.previous_id)),
                        ("previous end", Number(start.previous_end)),
                        ("previous checksum", Bits(u64::from(start.previous_crc))),
                    ]
                }));
                PartKind::Start
            }
            Kind::Seal => {
                fields.extend(fields_of(Summary::decode(record.body), summary_fields));
                PartKind::Seal
            }
        };
        self.show(kind, offset, header.record_len(), fields)
    }

    fn hint(&mut self) -> Result<Going> {
        let (bytes, length) = (self.bytes, self.bytes.len() as u64);
        let hint = match Hint::decode(bytes) {
            Ok(hint) => hint,
            Err(damage) => return self.damaged(0, length, damage),
        };
        let count = hint.offsets.len() as u64;
        let fields = vec![
            ("store", Id(u128::from_be_bytes(hint.store_id))),
            ("segment", Number(hint.segment_id)),
            ("data end", Number(hint.data_end)),
            ("records checksum", Bits(u64::from(hint.records_crc))),
            ("keys checksum", Bits(u64::from(hint.keys_crc))),
            ("offsets", Number(count)),
        ];
        let head = Hint::HEAD_LEN as u64;
        if !self.show(PartKind::Header, 0, head, fields) {
            return Ok(false);
        }
        // The list is followed by a checksum of four bytes.
        let width = (length - head - 4).checked_div(count).unwrap_or(0);
        for (index, offset) in hint.offsets.iter().enumerate() {
            let at = head + index as u64 * width;
            if !self.show(PartKind::Entry, at, width, vec![("record at", Number(offset))]) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn manifest(&mut self) -> Result<Going> {
        let (bytes, length) = (self.bytes, self.bytes.len() as u64);
        let manifest = match Manifest::decode(bytes) {
            Ok(manifest) => manifest,
            Err(damage) => return self.damaged(0, length, damage),
        };
        let fields = vec![
            ("store", Id(u128::from_be_bytes(manifest.store_id))),
            ("generation", Number(manifest.generation)),
            ("next segment", Number(manifest.next_segment_id)),
            ("next sequence", Number(manifest.next_sequence)),
            ("next namespace", Number(u64::from(manifest.next_namespace))),
            ("ring bytes", Number(u64::from(manifest.ring_bytes))),
            ("segments", Number(manifest.segments.len() as u64)),
        ];
        let mut at = manifest.head_len() as u64;
        if !self.show(PartKind::Header, 0, at, fields) {
            return Ok(false);
        }
        for entry in &manifest.segments {
            let mut fields = vec![("segment", Number(entry.id))];
            let (state, summary) = match entry.state {
                SegmentState::Open => ("open", None),
                SegmentState::Sealed(summary) => ("sealed", Some(summary)),
                SegmentState::Cut(summary) => ("cut", Some(summary)),
            };
            fields.push(("state", Text(state.to_owned())));
            fields.extend(summary.into_iter().flat_map(summary_fields));
            let length = 9 + summary.map_or(0, |_| Summary::LEN as u64);
            if !self.show(PartKind::Entry, at, length, fields) {
                return Ok(false);
            }
            at += length;
        }
        Ok(true)
    }

    fn index(&mut self) -> Result<Going> {
        let (bytes, length) = (self.bytes, self.bytes.len() as u64);
        let head = bytes.get(..IndexHead::LEN).ok_or(Damage::Short);
        let head = match head.and_then(IndexHead::decode) {
            Ok(head) => head,
            Err(damage) => return self.damaged(0, length, damage),
        };
        let fields = vec![
            ("store", Id(u128::from_be_bytes(head.store_id))),
            ("manifest generation", Number(head.generation)),
            ("manifest checksum", Bits(u64::from(head.manifest_crc))),
            ("hash probe", Bits(head.hash_probe)),
        ];
        let mut at = IndexHead::LEN as u64;
        if !self.show(PartKind::Header, 0, at, fields) {
            return Ok(false);
        }
        for (section, name) in head.sections.iter().zip(["keydir", "namespaces", "others"]) {
            let end = at.saturating_add(section.length);
            let content = usize::try_from(end).ok().and_then(|end| bytes.get(at as usize..end));
            let going = match content {
                Some(content) if crc32fast::hash(content) == section.crc || planted(Planted::InspectTrustsSections) => {
                    let fields = vec![
                        ("section", Text(name.to_owned())),
                        ("checksum", Bits(u64::from(section.crc))),
                    ];
                    self.show(PartKind::Entry, at, section.length, fields)
                }
                Some(_) => self.damaged(at, section.length, Damage::Checksum)?,
                None => return self.damaged(at, length.saturating_sub(at), Damage::Short),
            };
            if !going {
                return Ok(false);
            }
            at = end;
        }
        if at < length {
            return self.damaged(at, length - at, Damage::Field("length of an index file"));
        }
        Ok(true)
    }
}

/// The fields of a body, or the cause if it cannot be decoded.
fn fields_of<T>(
    body: std::result::Result<T, Damage>,
    fields: impl FnOnce(T) -> Vec<(&'static str, PartValue<'static>)>,
) -> Vec<(&'static str, PartValue<'static>)> {
    match body {
        Ok(body) => fields(body),
        Err(damage) => vec![("cause", Text(damage.to_string()))],
    }
}

fn summary_fields(summary: Summary) -> Vec<(&'static str, PartValue<'static>)> {
    vec![
        ("data end", Number(summary.data_end)),
        ("records", Number(summary.records)),
        ("puts", Number(summary.puts)),
        ("put bytes", Number(summary.put_bytes)),
        ("expiring", Number(summary.expiring)),
        ("tombstones", Number(summary.tombstones)),
        ("tombstone bytes", Number(summary.tombstone_bytes)),
        ("lowest sequence", Number(summary.min_sequence)),
        ("highest sequence", Number(summary.max_sequence)),
        ("records checksum", Bits(u64::from(summary.records_crc))),
    ]
}

/// The content of a namespace's record.
fn named<'a>(namespace: u32, record: &Record<'a>) -> Vec<(&'static str, PartValue<'a>)> {
    if namespace != SYSTEM_NAMESPACE {
        return Vec::new();
    }
    let entry = decode_entry(record.key(), record.value());
    match entry.and_then(|entry| Ok((entry, decode_settings(record.metadata())?))) {
        Ok(((number, id, name), ttl_ms)) => {
            let ttl = ttl_ms.map(|ttl_ms| ("namespace default lifetime in ms", Number(ttl_ms)));
            let named = [
                ("namespace number", Number(u64::from(number))),
                ("namespace id", Id(id)),
                ("namespace name", Text(name.to_owned())),
            ];
            named.into_iter().chain(ttl).collect()
        }
        Err(damage) => vec![("cause", Text(damage.to_string()))],
    }
}
