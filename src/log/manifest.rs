//! The manifest on disk: replaced as a whole, atomically, or not at all.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::lock;
use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::format::{Damage, INDEX_FILE, MANIFEST_FILE, MANIFEST_TEMPORARY_FILE};
use crate::planted::{Planted, planted};
use crate::segment::segment_index;
use crate::storage::{Directory, StorageFile, read_exact_at, write_all_at};

/// Numbers that the manifest keeps from being given out twice; known to whoever changes the manifest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floors {
    pub(crate) next_sequence: u64,
    pub(crate) next_namespace: u32,
}

/// Why the manifest was not replaced.
#[derive(Debug)]
pub(crate) enum ReplaceError {
    /// The old manifest stands, on disk and in memory.
    Unchanged(Error),
    /// The new manifest may or may not survive a power cut: nothing more may be written.
    Unknown(Error),
}

/// The manifest in memory and on disk.
#[derive(Debug)]
pub(crate) struct ManifestStore {
    directory: Directory,
    current: Mutex<Current>,
    /// An index file stands that fits this manifest.
    index_file: AtomicBool,
}

#[derive(Debug)]
struct Current {
    /// Ahead of the one on disk by numbers that were given out and not listed.
    manifest: Manifest,
    /// Of the manifest that this store has read or written last.
    identity: Identity,
}

/// What tells one manifest from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) store_id: [u8; 16],
    pub(crate) generation: u64,
    pub(crate) checksum: u32,
}

impl Identity {
    fn of(manifest: &Manifest) -> Identity {
        Identity {
            store_id: manifest.store_id,
            generation: manifest.generation,
            checksum: manifest.checksum(),
        }
    }

    /// Of the manifest in this file, of which no more than that is read.
    fn read(file: &dyn StorageFile) -> std::io::Result<Identity> {
        let mut head = [0; Manifest::HEAD_LEN];
        read_exact_at(file, &mut head, 0)?;
        let mut checksum = [0; 4];
        read_exact_at(file, &mut checksum, file.len()?.saturating_sub(4))?;
        let (store_id, generation) = Manifest::decode_identity(&head);
        Ok(Identity {
            store_id,
            generation,
            checksum: u32::from_le_bytes(checksum),
        })
    }
}

/// Of the segments that a store can have, so many are only for the outputs of compaction and recovery, without which a store
/// that has all the others could never have fewer.
pub(crate) const SEGMENTS_HELD_BACK: usize = 64;

/// No manifest is longer: as many segments as can be live at a time, and then some.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 16 << 20;

impl ManifestStore {
    /// Takes over a manifest that was read from, or written to, this directory.
    pub(crate) fn new(directory: Directory, manifest: Manifest) -> ManifestStore {
        let identity = Identity::of(&manifest);
        ManifestStore {
            directory,
            current: Mutex::new(Current { manifest, identity }),
            index_file: AtomicBool::new(false),
        }
    }

    /// Reads the manifest of a store; None if no file of that name is listed. One that is listed and cannot be found when it
    /// is opened, a link that leads nowhere, is an error: it may lead somewhere again.
    pub(crate) fn read(directory: &Directory) -> Result<Option<Manifest>> {
        let path = directory.path_of(MANIFEST_FILE);
        let exists = directory.exists(MANIFEST_FILE);
        if !exists.map_err(|error| Error::io("look for", &path, error))? {
            return Ok(None);
        }
        let bytes = match directory.read(MANIFEST_FILE, MANIFEST_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) => match error.kind() {
                std::io::ErrorKind::InvalidData => {
                    return Err(Error::damage(&path, 0, Damage::Field("length")));
                }
                std::io::ErrorKind::NotFound if planted(Planted::UnreadableIsAbsent) => return Ok(None),
                _ => return Err(Error::io("read", &path, error)),
            },
        };
        Manifest::decode(&bytes)
            .map(Some)
            .map_err(|damage| Error::damage(&path, 0, damage))
    }

    /// Writes a manifest beside the old one, syncs it, and puts it in its place.
    pub(crate) fn write(directory: &Directory, manifest: &Manifest) -> Result<(), ReplaceError> {
        let path = directory.path_of(MANIFEST_FILE);
        let temporary = directory.path_of(MANIFEST_TEMPORARY_FILE);
        // Else the store could not be opened again.
        manifest
            .check_numbers()
            .map_err(|damage| ReplaceError::Unchanged(Error::damage(&path, 0, damage)))?;
        let unchanged = |action, error| ReplaceError::Unchanged(Error::io(action, &temporary, error));
        // One may be left from an attempt that failed.
        directory
            .remove_if_there(MANIFEST_TEMPORARY_FILE)
            .map_err(|error| unchanged("remove", error))?;
        let file = directory
            .create(MANIFEST_TEMPORARY_FILE)
            .map_err(|error| unchanged("create", error))?;
        write_all_at(&*file, &manifest.encode(), 0).map_err(|error| unchanged("write", error))?;
        file.sync().map_err(|error| unchanged("sync", error))?;
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

    /// That the manifest on disk is the one that this store has read or written last: else somebody has put another's in
    /// its place, and nothing that others trust may be written beside it.
    pub(crate) fn check_stands(&self) -> Result<Identity> {
        let identity = lock(&self.current).identity;
        self.check_is(identity)?;
        Ok(identity)
    }

    fn check_is(&self, expected: Identity) -> Result<()> {
        let path = self.directory.path_of(MANIFEST_FILE);
        let found = self
            .directory
            .open_file(MANIFEST_FILE, false)
            .and_then(|file| Identity::read(&*file));
        match found {
            Ok(found) if found == expected || planted(Planted::WriteBesideStranger) => Ok(()),
            Err(error) if !is_gone(&error) => Err(Error::io("look at", &path, error)),
            _ => {
                let damage = Damage::Mismatch("the manifest, which another program has replaced or removed,");
                Err(Error::damage(&path, 0, damage))
            }
        }
    }

    /// Changes the manifest. In memory it has changed only if it has on disk.
    pub(crate) fn update(&self, floors: Floors, change: impl FnOnce(&mut Manifest)) -> Result<(), ReplaceError> {
        let mut current = lock(&self.current);
        self.check_is(current.identity).map_err(|error| match error {
            Error::Corruption { .. } => ReplaceError::Unknown(error),
            error => ReplaceError::Unchanged(error),
        })?;
        let mut next = current.manifest.clone();
        next.generation += 1;
        next.next_sequence = next.next_sequence.max(floors.next_sequence);
        next.next_namespace = next.next_namespace.max(floors.next_namespace);
        change(&mut next);
        Self::write(&self.directory, &next)?;
        *current = Current {
            identity: Identity::of(&next),
            manifest: next,
        };
        if self.index_file.swap(false, Ordering::AcqRel) {
            // It is of no use from here on. Where it cannot be removed it takes space, until the next one is written.
            let _ = self.directory.remove(INDEX_FILE);
        }
        Ok(())
    }

    /// Whether an index file stands that fits the current manifest.
    pub(crate) fn has_index_file(&self) -> bool {
        self.index_file.load(Ordering::Acquire)
    }

    pub(crate) fn set_index_file(&self, stands: bool) {
        self.index_file.store(stands, Ordering::Release);
    }

    /// Gives out a segment id that was never used, nor will be again, and whose index no live segment has. It is known to be
    /// used from the next [`ManifestStore::update`] on; a file of this id that no manifest lists is junk. `held_back` indexes
    /// are not given out.
    pub(crate) fn allocate_id(&self, held_back: usize) -> Result<u64> {
        let current = &mut lock(&self.current).manifest;
        let taken: std::collections::HashSet<u16> =
            current.segments.iter().map(|entry| segment_index(entry.id)).collect();
        if taken.len() + held_back > usize::from(u16::MAX) {
            return Err(Error::invalid(
                "the store has as many segments as it can have; use larger segments, or compact",
            ));
        }
        let mut id = current.next_segment_id;
        while taken.contains(&segment_index(id)) {
            id += 1;
        }
        current.next_segment_id = id.saturating_add(1);
        Ok(id)
    }

    /// Where it is.
    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The store's id.
    pub(crate) fn store_id(&self) -> [u8; 16] {
        lock(&self.current).identity.store_id
    }

    /// A copy of the manifest as it stands.
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
mod tests {
    use super::*;
    use crate::format::manifest::{SegmentEntry, SegmentState};
    use crate::storage::MemStorage;

    fn directory() -> Directory {
        let disk = MemStorage::new();
        disk.create_directory("/store").unwrap();
        Directory::open(&disk, "/store".as_ref()).unwrap()
    }

    #[test]
    fn a_store_with_all_segments_that_writers_may_have_can_still_be_compacted() {
        let listed = u64::from(u16::MAX) + 1 - SEGMENTS_HELD_BACK as u64;
        let manifest = Manifest {
            store_id: [0; 16],
            generation: 1,
            next_segment_id: listed + 1,
            next_sequence: 1,
            next_namespace: 1,
            segments: (1..=listed)
                .map(|id| SegmentEntry {
                    id,
                    state: SegmentState::Open,
                })
                .collect(),
        };
        let store = ManifestStore::new(directory(), manifest);
        assert!(store.allocate_id(SEGMENTS_HELD_BACK).is_err());
        assert!(store.allocate_id(0).is_ok());
    }

    /// Found by the fuzz target `manifest_load`: such a store opened once, and then never again.
    #[test]
    fn a_manifest_that_could_not_be_read_again_is_not_written() {
        let directory = directory();
        let manifest = Manifest {
            store_id: [0; 16],
            generation: 1,
            next_segment_id: 1 << 62,
            next_sequence: 1,
            next_namespace: 1,
            segments: Vec::new(),
        };
        ManifestStore::write(&directory, &manifest).unwrap();
        let store = ManifestStore::new(directory.clone(), manifest.clone());
        store.allocate_id(0).unwrap();
        let floors = Floors {
            next_sequence: 1,
            next_namespace: 1,
        };
        let refused = store.update(floors, |_| {});
        assert!(matches!(refused, Err(ReplaceError::Unchanged(_))), "{refused:?}");
        assert_eq!(ManifestStore::read(&directory).unwrap(), Some(manifest));
    }
}
