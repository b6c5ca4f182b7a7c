//! The manifest on disk: replaced as a whole, atomically, or not at all.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::lock;
use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::format::{Damage, INDEX_FILE, MANIFEST_FILE, MANIFEST_TEMPORARY_FILE};
use crate::planted::{Planted, planted};
use crate::segment::segment_index;
use crate::storage::{Storage, read_file, write_all_at};

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
    storage: Arc<dyn Storage>,
    directory: PathBuf,
    current: Mutex<Manifest>,
    /// An index file stands that fits this manifest.
    index_file: AtomicBool,
}

/// Of the segments that a store can have, so many are only for the outputs of compaction and recovery, without which a store
/// that has all the others could never have fewer.
pub(crate) const SEGMENTS_HELD_BACK: usize = 64;

/// No manifest is longer: as many segments as can be live at a time, and then some.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 16 << 20;

impl ManifestStore {
    /// Takes over a manifest that was read from, or written to, this directory.
    pub(crate) fn new(storage: Arc<dyn Storage>, directory: &Path, manifest: Manifest) -> ManifestStore {
        ManifestStore {
            storage,
            directory: directory.to_owned(),
            current: Mutex::new(manifest),
            index_file: AtomicBool::new(false),
        }
    }

    /// Reads the manifest of a store; None if there is no such file.
    pub(crate) fn read(storage: &dyn Storage, directory: &Path) -> Result<Option<Manifest>> {
        let path = directory.join(MANIFEST_FILE);
        if !storage
            .exists(&path)
            .map_err(|error| Error::io("look for", &path, error))?
        {
            return Ok(None);
        }
        let bytes = read_file(storage, &path, MANIFEST_BYTES_MAX).map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => Error::damage(&path, 0, Damage::Field("length")),
            _ => Error::io("read", &path, error),
        })?;
        Manifest::decode(&bytes)
            .map(Some)
            .map_err(|damage| Error::damage(&path, 0, damage))
    }

    /// Writes a manifest beside the old one, syncs it, and puts it in its place.
    pub(crate) fn write(storage: &dyn Storage, directory: &Path, manifest: &Manifest) -> Result<(), ReplaceError> {
        let (path, temporary) = (directory.join(MANIFEST_FILE), directory.join(MANIFEST_TEMPORARY_FILE));
        // Else the store could not be opened again.
        manifest
            .check_numbers()
            .map_err(|damage| ReplaceError::Unchanged(Error::damage(&path, 0, damage)))?;
        let unchanged = |action, error| ReplaceError::Unchanged(Error::io(action, &temporary, error));
        // One may be left from an attempt that failed.
        if storage
            .exists(&temporary)
            .map_err(|error| unchanged("look for", error))?
        {
            storage.remove(&temporary).map_err(|error| unchanged("remove", error))?;
        }
        let file = storage.create(&temporary).map_err(|error| unchanged("create", error))?;
        write_all_at(&*file, &manifest.encode(), 0).map_err(|error| unchanged("write", error))?;
        file.sync().map_err(|error| unchanged("sync", error))?;
        let unknown = |action, error| ReplaceError::Unknown(Error::io(action, &path, error));
        storage
            .rename(&temporary, &path)
            .map_err(|error| unknown("rename the new manifest to", error))?;
        if planted(Planted::SkipDirectorySync) {
            return Ok(());
        }
        storage
            .sync_directory(directory)
            .map_err(|error| unknown("sync the directory of", error))?;
        Ok(())
    }

    /// Changes the manifest. In memory it has changed only if it has on disk.
    pub(crate) fn update(&self, floors: Floors, change: impl FnOnce(&mut Manifest)) -> Result<(), ReplaceError> {
        let mut current = lock(&self.current);
        let mut next = current.clone();
        next.generation += 1;
        next.next_sequence = next.next_sequence.max(floors.next_sequence);
        next.next_namespace = next.next_namespace.max(floors.next_namespace);
        change(&mut next);
        Self::write(&*self.storage, &self.directory, &next)?;
        *current = next;
        if self.index_file.swap(false, Ordering::AcqRel) {
            // It is of no use from here on. Where it cannot be removed it takes space, until the next one is written.
            let _ = self.storage.remove(&self.directory.join(INDEX_FILE));
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
        let mut current = lock(&self.current);
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

    /// The store's id.
    pub(crate) fn store_id(&self) -> [u8; 16] {
        lock(&self.current).store_id
    }

    /// A copy of the manifest as it stands.
    pub(crate) fn current(&self) -> Manifest {
        lock(&self.current).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::{SegmentEntry, SegmentState};
    use crate::storage::MemStorage;

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
        let store = ManifestStore::new(Arc::new(MemStorage::new()), Path::new("/store"), manifest);
        assert!(store.allocate_id(SEGMENTS_HELD_BACK).is_err());
        assert!(store.allocate_id(0).is_ok());
    }

    /// Found by the fuzz target `manifest_load`: such a store opened once, and then never again.
    #[test]
    fn a_manifest_that_could_not_be_read_again_is_not_written() {
        let disk = Arc::new(MemStorage::new());
        let directory = Path::new("/store");
        disk.create_directory(directory).unwrap();
        let manifest = Manifest {
            store_id: [0; 16],
            generation: 1,
            next_segment_id: 1 << 62,
            next_sequence: 1,
            next_namespace: 1,
            segments: Vec::new(),
        };
        ManifestStore::write(&*disk, directory, &manifest).unwrap();
        let store = ManifestStore::new(disk.clone(), directory, manifest.clone());
        store.allocate_id(0).unwrap();
        let floors = Floors {
            next_sequence: 1,
            next_namespace: 1,
        };
        let refused = store.update(floors, |_| {});
        assert!(matches!(refused, Err(ReplaceError::Unchanged(_))), "{refused:?}");
        assert_eq!(ManifestStore::read(&*disk, directory).unwrap(), Some(manifest));
    }
}
