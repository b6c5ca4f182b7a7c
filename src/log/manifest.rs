//! The manifest on disk: replaced as a whole, atomically, or not at all.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::format::{Damage, INDEX_FILE, MANIFEST_FILE, MANIFEST_TEMPORARY_FILE, Stored};
use crate::location::segment_index;
use crate::planted::{Planted, planted};
use crate::storage::{Directory, StorageFile, read_exact_at, write_all_at};
use crate::sync::lock;

/// Lower bounds for the counters in the manifest, so that no number is given out twice. Supplied by
/// the caller of a manifest change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floors {
    pub(crate) next_sequence: u64,
    pub(crate) next_namespace: u32,
}

/// Why the manifest was not replaced.
#[derive(Debug)]
pub(crate) enum ReplaceError {
    /// The old manifest is still in place, on disk and in memory.
    Unchanged(Error),
    /// The new manifest may or may not survive a power cut: nothing more may be written.
    Unknown(Error),
}

impl ReplaceError {
    /// For an error before the manifest was touched. Damage means that
    /// [`ManifestStore::check_stands`] found another program's manifest.
    pub(super) fn of_look(error: Error) -> ReplaceError {
        match error {
            Error::Corruption { .. } => ReplaceError::Unknown(error),
            error => ReplaceError::Unchanged(error),
        }
    }
}

/// The manifest in memory and on disk.
#[derive(Debug)]
pub(crate) struct ManifestStore {
    directory: Directory,
    current: Mutex<Current>,
    reserved: Arc<ReservedIndexes>,
    /// Whether an index file exists that fits this manifest.
    index_file: AtomicBool,
}

/// Identifies one manifest among all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) store_id: [u8; 16],
    pub(crate) generation: u64,
    pub(crate) checksum: u32,
}

impl Identity {
    pub(crate) fn of(manifest: &Manifest) -> Identity {
        Identity {
            store_id: manifest.store_id,
            generation: manifest.generation,
            checksum: manifest.checksum(),
        }
    }

    /// Of the manifest in this directory.
    pub(crate) fn of_directory(directory: &Directory) -> std::io::Result<Identity> {
        Identity::read(&*directory.open_file(MANIFEST_FILE, false)?)
    }

    /// Reads the identity of the manifest in this file, and no more.
    fn read(file: &dyn StorageFile) -> std::io::Result<Identity> {
        let mut head = [0; Manifest::HEAD_LEN];
        read_exact_at(file, &mut head, 0)?;
        let mut checksum = [0; 4];
        read_exact_at(file, &mut checksum, file.len()?.saturating_sub(4))?;
        let (store_id, generation) = Manifest::decode_identity(&head);
        Ok(Identity {
            store_id,
            generation,
            checksum: u32::from_stored(checksum),
        })
    }
}

#[derive(Debug)]
struct Current {
    /// Ahead of the manifest on disk by ids that were given out and are not listed.
    manifest: Manifest,
    /// Of the manifest that this store last read or wrote.
    identity: Identity,
    /// Segment id by index.
    listed: HashMap<u16, u64>,
    /// Length of the ring that manifests name while segments are open; 0 if there is none.
    ring_bytes: u32,
}

impl Current {
    fn new(manifest: Manifest, ring_bytes: u32) -> Current {
        let entries = manifest.segments.iter();
        Current {
            ring_bytes,
            identity: Identity::of(&manifest),
            listed: entries.map(|entry| (segment_index(entry.id), entry.id)).collect(),
            manifest,
        }
    }
}

/// Indexes of segments that are being worked on, each with the number of users: of new segments
/// that no manifest lists yet, and of old ones that no manifest lists any more but that the indexes
/// in memory may still point into.
type ReservedIndexes = Mutex<HashMap<u16, usize>>;

/// The id of a segment, whose index is not reused while this is alive.
#[derive(Debug)]
pub(crate) struct ReservedId {
    id: u64,
    reserved: Arc<ReservedIndexes>,
}

impl ReservedId {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for ReservedId {
    fn drop(&mut self) {
        let mut reserved = lock(&self.reserved);
        if let Entry::Occupied(mut held) = reserved.entry(segment_index(self.id)) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}

/// Segment indexes held back for the outputs of compaction and recovery. Without them a store that
/// has used up all others could never shrink.
pub(crate) const SEGMENTS_HELD_BACK: usize = 64;

/// Upper bound of a manifest's length: more than the largest number of live segments needs.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 16 << 20;

const _: () = assert!(Manifest::LEN_MAX <= MANIFEST_BYTES_MAX);

impl ManifestStore {
    /// Wraps a manifest that was read from, or written to, this directory.
    pub(crate) fn new(directory: Directory, manifest: Manifest) -> ManifestStore {
        let ring_bytes = manifest.ring_bytes;
        ManifestStore {
            directory,
            current: Mutex::new(Current::new(manifest, ring_bytes)),
            reserved: Arc::default(),
            index_file: AtomicBool::new(false),
        }
    }

    /// Reads the manifest of a store; None if it cannot be found, which can happen even if the
    /// directory lists it: a link may point nowhere.
    pub(crate) fn read(directory: &Directory) -> Result<Option<Manifest>> {
        let path = directory.path_of(MANIFEST_FILE);
        let bytes = match directory.read(MANIFEST_FILE, MANIFEST_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) => match error.kind() {
                std::io::ErrorKind::InvalidData => {
                    return Err(Error::damage(&path, 0, Damage::Field("length")));
                }
                std::io::ErrorKind::NotFound => return Ok(None),
                _ => return Err(Error::io("read", &path, error)),
            },
        };
        Manifest::decode(&bytes)
            .map(Some)
            .map_err(|damage| Error::damage(&path, 0, damage))
    }

    /// Writes a temporary manifest, syncs it, and renames it over the old one.
    pub(crate) fn write(directory: &Directory, manifest: &Manifest) -> Result<(), ReplaceError> {
        let path = directory.path_of(MANIFEST_FILE);
        let temporary = directory.path_of(MANIFEST_TEMPORARY_FILE);
        let encoded = manifest.encode();
        // A manifest that cannot be read back must not be written, or the store could not be
        // opened.
        if !planted(Planted::WriteAnyManifest) {
            let check = manifest.check();
            check.map_err(|damage| ReplaceError::Unchanged(Error::damage(&path, 0, damage)))?;
        }
        let unchanged = |action, error| ReplaceError::Unchanged(Error::io(action, &temporary, error));
        // May be left over from a failed attempt.
        directory
            .remove_if_there(MANIFEST_TEMPORARY_FILE)
            .map_err(|error| unchanged("remove", error))?;
        let file = directory
            .create(MANIFEST_TEMPORARY_FILE)
            .map_err(|error| unchanged("create", error))?;
        write_all_at(&*file, &encoded, 0).map_err(|error| unchanged("write", error))?;
        if !planted(Planted::SkipManifestSync) {
            file.sync().map_err(|error| unchanged("sync", error))?;
        }
        let unknown = |action, error| ReplaceError::Unknown(Error::io(action, &path, error));
        directory
            .rename(MANIFEST_TEMPORARY_FILE, MANIFEST_FILE)
            .map_err(|error| unknown("rename the new manifest to", error))?;
        if planted(Planted::SkipDirectorySync) {
            return Ok(());
        }
        directory
            .sync()
            .map_err(|error| unknown("sync the directory of", error))?;
        Ok(())
    }

    /// Checks that the manifest on disk is the one that this store last read or wrote. If not,
    /// another program has replaced it, and this store must write nothing that others would trust.
    pub(crate) fn check_stands(&self) -> Result<Identity> {
        // Held throughout, so that no change comes in between.
        let current = lock(&self.current);
        self.check_is(current.identity)?;
        Ok(current.identity)
    }

    fn check_is(&self, expected: Identity) -> Result<()> {
        let path = self.directory.path_of(MANIFEST_FILE);
        match Identity::of_directory(&self.directory) {
            Ok(found) if found == expected || planted(Planted::WriteBesideStranger) => Ok(()),
            Err(error) if !is_gone(&error) => Err(Error::io("look at", &path, error)),
            _ => {
                let damage = Damage::Mismatch("the manifest, which another program has replaced or removed,");
                Err(Error::damage(&path, 0, damage))
            }
        }
    }

    /// Changes the manifest. In memory it changes only if it has changed on disk.
    pub(crate) fn update(&self, floors: Floors, change: impl FnOnce(&mut Manifest)) -> Result<(), ReplaceError> {
        self.replace(floors, None, change)
    }

    /// As [`ManifestStore::update`]. From this change on, manifests name a ring of this length
    /// while segments are open, which is what it has records of; 0 if there is no ring any more.
    pub(crate) fn update_with_ring(
        &self,
        floors: Floors,
        ring_bytes: u32,
        change: impl FnOnce(&mut Manifest),
    ) -> Result<(), ReplaceError> {
        self.replace(floors, Some(ring_bytes), change)
    }

    fn replace(
        &self,
        floors: Floors,
        ring_bytes: Option<u32>,
        change: impl FnOnce(&mut Manifest),
    ) -> Result<(), ReplaceError> {
        let mut current = lock(&self.current);
        if !planted(Planted::PublishBesideStranger) {
            self.check_is(current.identity).map_err(ReplaceError::of_look)?;
        }
        let mut next = current.manifest.clone();
        next.generation += 1;
        next.next_sequence = next.next_sequence.max(floors.next_sequence);
        next.next_namespace = next.next_namespace.max(floors.next_namespace);
        change(&mut next);
        // What the ring has continues open segments.
        let ring_bytes = ring_bytes.unwrap_or(current.ring_bytes);
        let has_open = next.segments.iter().any(|entry| entry.state.is_open());
        next.ring_bytes = if has_open { ring_bytes } else { 0 };
        Self::write(&self.directory, &next)?;
        *current = Current::new(next, ring_bytes);
        if self.index_file.swap(false, Ordering::AcqRel) {
            // The index file is useless from here on. If it cannot be removed it takes space until
            // the next one is written.
            let _ = self.directory.remove(INDEX_FILE);
        }
        Ok(())
    }

    /// Length of the ring, if one is in use, or has records of segments that are still to be
    /// recovered; else 0.
    pub(crate) fn ring_bytes(&self) -> u32 {
        lock(&self.current).ring_bytes
    }

    /// Whether an index file exists that fits the current manifest.
    pub(crate) fn has_index_file(&self) -> bool {
        self.index_file.load(Ordering::Acquire)
    }

    pub(crate) fn set_index_file(&self, stands: bool) {
        self.index_file.store(stands, Ordering::Release);
    }

    /// Gives out a segment id that was never used, nor will be again, and whose index belongs to no
    /// live segment and to none being worked on. It is recorded as used by the next
    /// [`ManifestStore::update`]; a file with this id that no manifest lists is junk. `held_back`
    /// indexes are not given out.
    ///
    /// The result must be kept until a manifest lists the segment, or its file is no longer needed.
    pub(crate) fn allocate_id(&self, held_back: usize) -> Result<ReservedId> {
        let mut current = lock(&self.current);
        let mut reserved = lock(&self.reserved);
        let listed = &current.listed;
        let is_held = |index: &u16| reserved.contains_key(index) && !planted(Planted::IgnoreIdsInFlight);
        let unlisted = reserved.keys().filter(|index| !listed.contains_key(index)).count();
        if listed.len() + unlisted + held_back > usize::from(u16::MAX) {
            return Err(Error::invalid(
                "the store has as many segments as it can have; use larger segments, or compact",
            ));
        }
        let mut id = current.manifest.next_segment_id;
        while listed.contains_key(&segment_index(id)) || is_held(&segment_index(id)) {
            id += 1;
        }
        current.manifest.next_segment_id = id.saturating_add(1);
        *reserved.entry(segment_index(id)).or_default() += 1;
        Ok(ReservedId {
            id,
            reserved: self.reserved.clone(),
        })
    }

    /// Holds the indexes of these segments, which the manifest is about to drop, until nothing
    /// points into them any more.
    pub(crate) fn hold_ids(&self, ids: impl IntoIterator<Item = u64>) -> Vec<ReservedId> {
        let mut reserved = lock(&self.reserved);
        let held = ids.into_iter().map(|id| {
            *reserved.entry(segment_index(id)).or_default() += 1;
            ReservedId {
                id,
                reserved: self.reserved.clone(),
            }
        });
        held.collect()
    }

    /// Whether the manifest lists this segment.
    pub(crate) fn lists(&self, id: u64) -> bool {
        lock(&self.current).listed.get(&segment_index(id)) == Some(&id)
    }

    /// A copy of the current manifest.
    pub(crate) fn current(&self) -> Manifest {
        lock(&self.current).manifest.clone()
    }
}

/// Whether a file was removed, or is too short to be a manifest.
fn is_gone(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::NotFound | std::io::ErrorKind::UnexpectedEof
    )
}

#[cfg(test)]
mod tests;
