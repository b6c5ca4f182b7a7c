use super::*;
use crate::format::manifest::{SEGMENT_INDEXES, SegmentEntry, SegmentState};
use crate::format::segment::Summary;
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
        ring_bytes: 0,
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

#[test]
fn a_segment_counts_once_whether_it_is_listed_being_worked_on_or_both() {
    let ids: Vec<_> = (1..=u64::from(u16::MAX) - 4).collect();
    let store = ManifestStore::new(directory(), of_segments(&ids));
    let _old = store.hold_ids([1, 2, 3]);
    let _new = [(); 3].map(|()| store.allocate_id(2).unwrap());
    assert!(store.allocate_id(2).is_err());
    assert!(store.allocate_id(1).is_ok());
}

#[test]
fn the_generation_rises_by_one_with_each_manifest() {
    let directory = directory();
    ManifestStore::write(&directory, &of_segments(&[1])).unwrap();
    let store = ManifestStore::new(directory.clone(), of_segments(&[1]));
    let floors = Floors {
        next_sequence: 1,
        next_namespace: 1,
    };
    for generation in 2..5 {
        store.update(floors, |_| {}).unwrap();
        let written = ManifestStore::read(&directory).unwrap().unwrap();
        assert_eq!(written.generation, generation);
    }
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
        ring_bytes: 0,
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

fn of_segments(ids: &[u64]) -> Manifest {
    Manifest {
        store_id: [0; 16],
        generation: 1,
        next_segment_id: ids.iter().max().map_or(1, |highest| highest + 1),
        next_sequence: 1,
        next_namespace: 1,
        ring_bytes: 0,
        segments: (ids.iter())
            .map(|id| SegmentEntry {
                id: *id,
                state: SegmentState::Open,
            })
            .collect(),
    }
}

/// C7: an output of compaction that is not listed yet, and then more failed creations than there
/// are indexes.
#[test]
fn the_index_of_a_segment_that_is_not_listed_yet_is_not_given_to_another() {
    let store = ManifestStore::new(directory(), of_segments(&[1, 2, 3]));
    let output = store.allocate_id(0).unwrap();
    for _ in 0..2 * SEGMENT_INDEXES {
        let other = store.allocate_id(0).unwrap();
        assert_ne!(segment_index(other.id()), segment_index(output.id()));
    }
    assert_eq!(lock(&store.reserved).len(), 1);
    drop(output);
    assert!(lock(&store.reserved).is_empty());
}

/// C7: compaction's manifest no longer lists an input, and the index in memory still points into
/// it.
#[test]
fn the_index_of_a_segment_that_is_about_to_go_is_not_given_to_another() {
    let directory = directory();
    // The next id has the index of the oldest segment.
    let mut manifest = of_segments(&[3, 9]);
    manifest.next_segment_id = 3 + SEGMENT_INDEXES;
    ManifestStore::write(&directory, &manifest).unwrap();
    let store = ManifestStore::new(directory, manifest);
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
    let directory = directory();
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
    // A data end within the header.
    refused.push(of_segments(&[1]));
    refused.last_mut().unwrap().segments = vec![sealed(63)];
    for manifest in refused {
        assert!(Manifest::decode(&manifest.encode()).is_err(), "{manifest:?}");
        let written = ManifestStore::write(&directory, &manifest);
        assert!(matches!(written, Err(ReplaceError::Unchanged(_))), "{manifest:?}");
        assert_eq!(ManifestStore::read(&directory).unwrap(), None);
    }
    let mut sound = of_segments(&[1, 2, SEGMENT_INDEXES + 3]);
    sound.segments[0] = sealed(64);
    ManifestStore::write(&directory, &sound).unwrap();
    assert_eq!(ManifestStore::read(&directory).unwrap(), Some(sound));
}

/// A manifest of another store may appear between the creation of a segment and its listing.
#[test]
fn a_manifest_that_another_has_put_in_its_place_is_not_replaced() {
    let directory = directory();
    let ours = of_segments(&[1, 2]);
    ManifestStore::write(&directory, &ours).unwrap();
    let store = ManifestStore::new(directory.clone(), ours);
    let theirs = Manifest {
        store_id: [7; 16],
        ..of_segments(&[5])
    };
    ManifestStore::write(&directory, &theirs).unwrap();
    let floors = Floors {
        next_sequence: 1,
        next_namespace: 1,
    };
    let refused = store.update(floors, |manifest| manifest.segments.clear());
    assert!(matches!(refused, Err(ReplaceError::Unknown(_))), "{refused:?}");
    assert_eq!(ManifestStore::read(&directory).unwrap(), Some(theirs));
}
