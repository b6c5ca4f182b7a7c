//! Reading a store from its files alone, without opening it, for salvage and for verifying a
//! directory. Salvage keeps others from opening the store; verify does not.
//!
//! What is trusted:
//!
//! * The manifest, if it is sound and does not belong to another store than all segments do.
//!   Segments that it does not list are left-overs and are ignored, since their records may have
//!   been deleted since; of those it lists as sealed or cut, only the part before the end of their
//!   data counts. Without a manifest, all segments in the directory are used (those of the store
//!   that most of them belong to).
//! * The ring, where the manifest names one, or there is no manifest: records there continue those
//!   of open segments.
//! * A segment's header, which has the salt and base sequence of all its records. One flipped bit
//!   in it is corrected: the checksum tells which, and changes of up to three bits cannot be
//!   mistaken for another one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::damaged::{Content, Damaged, open_if_there};
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SegmentEntry, SegmentState};
use crate::format::segment::{SEGMENT_HEADER_LEN, SegmentHeader};
use crate::format::{Damage, FileName, LOCK_FILE, MANIFEST_FILE, RING_FILE, classify, segment_file};
use crate::log::manifest::MANIFEST_BYTES_MAX;
use crate::planted::{Planted, planted};
use crate::recovery::directory::open_directory;
use crate::recovery::staging::sorted_names;
use crate::segment::ring::Ring;
use crate::segment::walk::Reach;
use crate::storage::{Directory, Storage, StorageLock};

/// A store that is kept from being opened.
pub(super) struct Source {
    pub(super) directory: Directory,
    /// Keeps others from opening the store; None where no lock can be taken.
    pub(super) lock: Option<Box<dyn StorageLock>>,
    pub(super) files: Files,
}

/// The files of a store in a directory.
pub(super) struct Files {
    pub(super) manifest: Option<Manifest>,
    /// Damage of the manifest, or of the ring.
    pub(super) damaged: Vec<Damaged>,
    /// What continues open segments.
    pub(super) ring: Option<Ring>,
    /// The segments that count, by id.
    pub(super) segments: Vec<SourceSegment>,
}

/// A segment to be read.
pub(super) struct SourceSegment {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// As the manifest lists it; open if there is no manifest.
    pub(super) state: SegmentState,
    /// Bytes to read.
    pub(super) length: u64,
    /// The header, or why the segment cannot be used.
    pub(super) header: Result<SegmentHeader, Damaged>,
}

impl SourceSegment {
    /// How far the segment counts.
    pub(super) fn reach(&self) -> Reach {
        match self.state {
            SegmentState::Sealed(_) | SegmentState::Cut(_) => Reach::Known,
            SegmentState::Open => Reach::Unknown,
        }
    }
}

impl Source {
    /// Takes the lock and reads manifest and headers. `purpose` is named to a process that finds
    /// the lock taken.
    pub(super) fn find(storage: &dyn Storage, path: &Path, purpose: &str) -> Result<Source> {
        let directory = enter(storage, path, purpose)?;
        let lock = take_lock(&directory, purpose)?;
        let files = Files::read(&directory)?;
        Ok(Source { directory, lock, files })
    }
}

/// Opens a directory that has a manifest or a segment.
pub(super) fn enter(storage: &dyn Storage, path: &Path, purpose: &str) -> Result<Directory> {
    let nothing = || Error::NotAStore {
        path: path.to_owned(),
        what: format!("there is neither a manifest nor a segment to {purpose}"),
    };
    let directory = open_directory(storage, path)?.ok_or_else(nothing)?;
    let ours = |name: &String| name == MANIFEST_FILE || matches!(classify(name), FileName::Segment(_));
    if !sorted_names(&directory)?.iter().any(ours) {
        return Err(nothing());
    }
    Ok(directory)
}

impl Files {
    /// Reads manifest and headers.
    pub(super) fn read(directory: &Directory) -> Result<Files> {
        let names = sorted_names(directory)?;
        let mut damaged = Vec::new();
        let manifest = manifest_in(directory, &names, &mut damaged)?;
        let ring = match &manifest {
            Some(manifest) => Ring::read(directory, manifest.ring_bytes),
            None => Ring::find(directory),
        };
        let ring = ring.unwrap_or_else(|error| {
            damaged.push(Damaged {
                path: directory.path_of(RING_FILE),
                segment: None,
                offset: 0,
                length: 0,
                cause: error.to_string(),
            });
            None
        });
        let segments = segments(directory, &names, manifest.as_ref())?;
        Ok(Files {
            manifest,
            damaged,
            ring,
            segments,
        })
    }

    /// Reads the manifest alone.
    pub(super) fn read_manifest(directory: &Directory) -> Result<Option<Manifest>> {
        manifest_in(directory, &sorted_names(directory)?, &mut Vec::new())
    }
}

/// The manifest, if it exists, is sound, and does not belong to another store than all segments do.
fn manifest_in(directory: &Directory, names: &[String], damaged: &mut Vec<Damaged>) -> Result<Option<Manifest>> {
    let mut manifest = read_manifest(directory, names, damaged)?;
    if let Some(found) = &manifest
        && is_of_another_store(directory, names, found)?
        && !planted(Planted::SalvageByStranger)
    {
        let path = directory.path_of(MANIFEST_FILE);
        damaged.push(Content::default().damaged((&path, None), 0, 0, Damage::Stranger));
        manifest = None;
    }
    Ok(manifest)
}

/// Takes the lock of the store, if it has one that can be taken.
fn take_lock(from: &Directory, purpose: &str) -> Result<Option<Box<dyn StorageLock>>> {
    // Without a lock file the lock is not held, and creating one would change the source.
    if !sorted_names(from)?.iter().any(|name| name == LOCK_FILE) {
        return Ok(None);
    }
    match from.lock(LOCK_FILE, &format!("process {} ({purpose})", std::process::id())) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && !planted(Planted::SalvageLock) => {
            Err(Error::InUse {
                path: from.path().to_owned(),
                holder: error.to_string(),
            })
        }
        // A read-only copy, or a damaged file system: read it anyway.
        Err(_) => Ok(None),
    }
}

/// The manifest, if it exists and is sound.
fn read_manifest(from: &Directory, names: &[String], damaged: &mut Vec<Damaged>) -> Result<Option<Manifest>> {
    let path = from.path_of(MANIFEST_FILE);
    let Some(file) = open_if_there(from, MANIFEST_FILE)? else {
        let cause = if names.iter().any(|name| name == MANIFEST_FILE) {
            "the manifest is listed but cannot be found, a dangling link"
        } else {
            "the manifest is missing"
        };
        let cause = cause.to_owned();
        damaged.push(Damaged {
            path,
            segment: None,
            offset: 0,
            length: 0,
            cause,
        });
        return Ok(None);
    };
    let mut content = Content::default();
    content.read(&*file, &path, MANIFEST_BYTES_MAX)?;
    match Manifest::decode(&content.bytes) {
        Ok(manifest) if content.is_whole() => return Ok(Some(manifest)),
        Ok(_) => damaged.push(content.damaged((&path, None), 0, content.bytes.len() as u64, Damage::Short)),
        // A version that is too new may be damage like any other; the segments tell.
        Err(damage) => damaged.push(content.damaged((&path, None), 0, content.bytes.len() as u64, damage)),
    }
    Ok(None)
}

/// Whether there are segments, and none of them belongs to the manifest's store.
fn is_of_another_store(from: &Directory, names: &[String], manifest: &Manifest) -> Result<bool> {
    let mut others = false;
    for name in names
        .iter()
        .filter(|name| matches!(classify(name), FileName::Segment(_)))
    {
        let Some(file) = open_if_there(from, name)? else {
            continue;
        };
        let mut content = Content::default();
        content.read(&*file, &from.path_of(name), SEGMENT_HEADER_LEN)?;
        match SegmentHeader::decode(&content.bytes) {
            Ok(header) if header.store_id == manifest.store_id => return Ok(false),
            Ok(_) => others = true,
            Err(_) => {}
        }
    }
    Ok(others)
}

/// The segments that count.
fn segments(from: &Directory, names: &[String], manifest: Option<&Manifest>) -> Result<Vec<SourceSegment>> {
    let mut wanted: Vec<SegmentEntry> = match manifest {
        Some(manifest) if !planted(Planted::SalvageUnlisted) => manifest.segments.clone(),
        _ => names
            .iter()
            .filter_map(|name| match classify(name) {
                FileName::Segment(id) => Some(SegmentEntry {
                    id,
                    state: SegmentState::Open,
                }),
                _ => None,
            })
            .collect(),
    };
    wanted.sort_unstable_by_key(|entry| entry.id);
    let mut sources = Vec::new();
    let mut newer = None;
    for SegmentEntry { id, state } in wanted {
        let name = segment_file(id);
        let path = from.path_of(&name);
        let data_end = match state {
            SegmentState::Sealed(summary) | SegmentState::Cut(summary) => Some(summary.data_end),
            SegmentState::Open => None,
        };
        let mut content = Content::default();
        let (length, header) = match open_if_there(from, &name)? {
            Some(file) => {
                let there = file.len().map_err(|error| Error::io("measure", &path, error))?;
                content.read(&*file, &path, SEGMENT_HEADER_LEN)?;
                (data_end.unwrap_or(there), read_header(&content.bytes, id))
            }
            None => (data_end.unwrap_or(0), Err(Damage::Missing)),
        };
        if let Err(Damage::Version(version)) = header {
            newer.get_or_insert((path.clone(), version));
        }
        let header = header.map_err(|damage| content.damaged((&path, Some(id)), 0, length, damage));
        sources.push(SourceSegment {
            id,
            name,
            path,
            state,
            length,
            header,
        });
    }
    if let Some((path, version)) = newer
        && sources.iter().all(|source| source.header.is_err())
    {
        return Err(Error::NewerFormat { path, version });
    }
    // Segments of another store do not count, whatever their names.
    let store_id = manifest
        .map(|manifest| manifest.store_id)
        .or_else(|| most_common_store(&sources));
    for source in &mut sources {
        if source
            .header
            .as_ref()
            .is_ok_and(|header| Some(header.store_id) != store_id)
        {
            let stranger = Damage::Stranger;
            source.header =
                Err(Content::default().damaged((&source.path, Some(source.id)), 0, source.length, stranger));
        }
    }
    Ok(sources)
}

fn most_common_store(sources: &[SourceSegment]) -> Option<[u8; 16]> {
    let mut counts: BTreeMap<[u8; 16], usize> = BTreeMap::new();
    for header in sources.iter().filter_map(|source| source.header.as_ref().ok()) {
        *counts.entry(header.store_id).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(id, _)| id)
}

/// The header of the segment with this id, with one flipped bit corrected.
fn read_header(bytes: &[u8], id: u64) -> Result<SegmentHeader, Damage> {
    let ours = |header: SegmentHeader| {
        if header.segment_id == id {
            Ok(header)
        } else {
            Err(Damage::Stranger)
        }
    };
    let damage = match SegmentHeader::decode(bytes) {
        Ok(header) => return ours(header),
        Err(damage) => damage,
    };
    let mut bytes = bytes.to_vec();
    for bit in 0..bytes.len() * 8 {
        let Some(byte) = bytes.get_mut(bit / 8) else { break };
        *byte ^= 1 << (bit % 8);
        if let Ok(header) = SegmentHeader::decode(&bytes).and_then(ours) {
            return Ok(header);
        }
        if let Some(byte) = bytes.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
    }
    Err(damage)
}
