//! The manifest on disk: replaced as a whole, atomically, or not at all.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
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
    current: Mutex<Current>,
    in_flight: Arc<InFlight>,
    /// An index file stands that fits this manifest.
    index_file: AtomicBool,
}

#[derive(Debug)]
struct Current {
    manifest: Manifest,
    /// Which segment has each index.
    listed: HashMap<u16, u64>,
}

impl Current {
    fn new(manifest: Manifest) -> Current {
        let entries = manifest.segments.iter();
        Current {
            listed: entries.map(|entry| (segment_index(entry.id), entry.id)).collect(),
            manifest,
        }
    }
}

/// Indexes of segments that some piece of work is at, and how many pieces: of new ones that no manifest lists yet, and of old ones
/// that none lists any more but that the indexes in memory may still lead to.
type InFlight = Mutex<HashMap<u16, usize>>;

/// The id of a segment, whose index is not given to another one as long as this lives.
#[derive(Debug)]
pub(crate) struct ReservedId {
    id: u64,
    in_flight: Arc<InFlight>,
}

impl ReservedId {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for ReservedId {
    fn drop(&mut self) {
        let mut in_flight = lock(&self.in_flight);
        if let Entry::Occupied(mut held) = in_flight.entry(segment_index(self.id)) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
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
            current: Mutex::new(Current::new(manifest)),
            in_flight: Arc::default(),
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
        let encoded = manifest.encode();
        // What would not be read must not be written, or the store could not be opened again.
        let check = match manifest.check() {
            _ if planted(Planted::WriteAnyManifest) => Ok(()),
            Ok(()) if encoded.len() as u64 > MANIFEST_BYTES_MAX => Err(Damage::Field("length")),
            check => check,
        };
        check.map_err(|damage| ReplaceError::Unchanged(Error::damage(&path, 0, damage)))?;
        let unchanged = |action, error| ReplaceError::Unchanged(Error::io(action, &temporary, error));
        // One may be left from an attempt that failed.
        if storage
            .exists(&temporary)
            .map_err(|error| unchanged("look for", error))?
        {
            storage.remove(&temporary).map_err(|error| unchanged("remove", error))?;
        }
        let file = storage.create(&temporary).map_err(|error| unchanged("create", error))?;
        write_all_at(&*file, &encoded, 0).map_err(|error| unchanged("write", error))?;
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
        let mut next = current.manifest.clone();
        next.generation += 1;
        next.next_sequence = next.next_sequence.max(floors.next_sequence);
        next.next_namespace = next.next_namespace.max(floors.next_namespace);
        change(&mut next);
        Self::write(&*self.storage, &self.directory, &next)?;
        *current = Current::new(next);
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

    /// Gives out a segment id that was never used, nor will be again, and whose index no live segment has, nor one that
    /// another piece of work is at. It is known to be used from the next [`ManifestStore::update`] on; a file of this id that no
    /// manifest lists is junk. `held_back` indexes are not given out.
    ///
    /// What this returns must live until a manifest lists the segment, or its file is no longer of use.
    pub(crate) fn allocate_id(&self, held_back: usize) -> Result<ReservedId> {
        let mut current = lock(&self.current);
        let mut in_flight = lock(&self.in_flight);
        let listed = &current.listed;
        let is_held = |index: &u16| in_flight.contains_key(index) && !planted(Planted::IgnoreIdsInFlight);
        let unlisted = in_flight.keys().filter(|index| !listed.contains_key(index)).count();
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
        *in_flight.entry(segment_index(id)).or_default() += 1;
        Ok(ReservedId {
            id,
            in_flight: self.in_flight.clone(),
        })
    }

    /// Keeps the indexes of these segments, which the manifest lists and is about to list no longer, from being given out before
    /// nothing leads into them any more.
    pub(crate) fn hold_ids(&self, ids: impl IntoIterator<Item = u64>) -> Vec<ReservedId> {
        let mut in_flight = lock(&self.in_flight);
        let held = ids.into_iter().map(|id| {
            *in_flight.entry(segment_index(id)).or_default() += 1;
            ReservedId {
                id,
                in_flight: self.in_flight.clone(),
            }
        });
        held.collect()
    }

    /// Whether the manifest lists this segment.
    pub(crate) fn lists(&self, id: u64) -> bool {
        lock(&self.current).listed.get(&segment_index(id)) == Some(&id)
    }

    /// The store's id.
    pub(crate) fn store_id(&self) -> [u8; 16] {
        lock(&self.current).manifest.store_id
    }

    /// A copy of the manifest as it stands.
    pub(crate) fn current(&self) -> Manifest {
        lock(&self.current).manifest.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::{SEGMENT_INDEXES, SegmentEntry, SegmentState};
    use crate::format::segment::Summary;
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

    fn of_segments(ids: &[u64]) -> Manifest {
        Manifest {
            store_id: [0; 16],
            generation: 1,
            next_segment_id: ids.iter().max().map_or(1, |highest| highest + 1),
            next_sequence: 1,
            next_namespace: 1,
            segments: (ids.iter())
                .map(|id| SegmentEntry {
                    id: *id,
                    state: SegmentState::Open,
                })
                .collect(),
        }
    }

    /// C7: an output of compaction, not listed yet, and more failed creations beside it than there are indexes.
    #[test]
    fn the_index_of_a_segment_that_is_not_listed_yet_is_not_given_to_another() {
        let disk = Arc::new(MemStorage::new());
        let store = ManifestStore::new(disk, Path::new("/store"), of_segments(&[1, 2, 3]));
        let output = store.allocate_id(0).unwrap();
        for _ in 0..2 * SEGMENT_INDEXES {
            let other = store.allocate_id(0).unwrap();
            assert_ne!(segment_index(other.id()), segment_index(output.id()));
        }
        assert_eq!(lock(&store.in_flight).len(), 1);
        drop(output);
        assert!(lock(&store.in_flight).is_empty());
    }

    /// C7: compaction's manifest no longer lists an input, and the index in memory still leads into it.
    #[test]
    fn the_index_of_a_segment_that_is_about_to_go_is_not_given_to_another() {
        let disk = Arc::new(MemStorage::new());
        let directory = Path::new("/store");
        disk.create_directory(directory).unwrap();
        // The next id in turn has the index of the oldest segment.
        let mut manifest = of_segments(&[3, 9]);
        manifest.next_segment_id = 3 + SEGMENT_INDEXES;
        let store = ManifestStore::new(disk, directory, manifest);
        let held = store.hold_ids([3]);
        let floors = Floors {
            next_sequence: 1,
            next_namespace: 1,
        };
        store
            .update(floors, |manifest| manifest.segments.retain(|entry| entry.id != 3))
            .unwrap();
        assert!(!store.lists(3) && store.lists(9) && !store.lists(9 + SEGMENT_INDEXES));
        assert_eq!(store.allocate_id(0).unwrap().id(), 4 + SEGMENT_INDEXES);
        drop(held);
    }

    /// C7
    #[test]
    fn no_manifest_is_written_that_would_not_be_read() {
        let disk = MemStorage::new();
        let directory = Path::new("/store");
        disk.create_directory(directory).unwrap();
        let sealed = |data_end| SegmentEntry {
            id: 1,
            state: SegmentState::Sealed(Summary {
                data_end,
                min_sequence: u64::MAX,
                ..Summary::default()
            }),
        };
        let with = |change: fn(&mut Manifest)| {
            let mut manifest = of_segments(&[1, 2]);
            change(&mut manifest);
            manifest
        };
        let mut refused = vec![
            of_segments(&[3, 3 + SEGMENT_INDEXES]),
            of_segments(&[3, 3]),
            of_segments(&[0]),
            with(|manifest| manifest.next_segment_id = 2),
            with(|manifest| manifest.next_sequence = 0),
            with(|manifest| manifest.next_namespace = 0),
            with(|manifest| manifest.generation = u64::MAX),
        ];
        // Its data end within the header.
        refused.push(of_segments(&[1]));
        refused.last_mut().unwrap().segments = vec![sealed(63)];
        for manifest in refused {
            assert!(Manifest::decode(&manifest.encode()).is_err(), "{manifest:?}");
            let written = ManifestStore::write(&disk, directory, &manifest);
            assert!(matches!(written, Err(ReplaceError::Unchanged(_))), "{manifest:?}");
            assert_eq!(ManifestStore::read(&disk, directory).unwrap(), None);
        }
        let mut sound = of_segments(&[1, 2, SEGMENT_INDEXES + 3]);
        sound.segments[0] = sealed(64);
        ManifestStore::write(&disk, directory, &sound).unwrap();
        assert_eq!(ManifestStore::read(&disk, directory).unwrap(), Some(sound));
    }
}
