//! Sequences and ids of segments are not given out twice, whatever is left of those who had them.

use embercask::storage::MemStorage;

use crate::common::{ending, open};

/// B3
#[test]
fn sequences_rise_beyond_those_of_records_that_are_gone() {
    let disk = MemStorage::new();
    let mut highest = 0;
    for _ in 0..5 {
        let store = open(&disk);
        let namespace = store.namespace("N").unwrap();
        let sequence = namespace.put("k", "v").unwrap();
        assert!(sequence > highest);
        namespace.delete("k").unwrap();
        highest = store.stats().last_sequence;
        // Nothing of it is left, nor of its tombstone.
        store.compact().unwrap();
        assert_eq!(store.stats().keys, 0);
        store.close().unwrap();
    }
}

fn segment_ids(disk: &MemStorage) -> Vec<u64> {
    ending(disk, ".segment")
        .iter()
        .map(|path| u64::from_str_radix(path.file_stem().unwrap().to_str().unwrap(), 16).unwrap())
        .collect()
}

/// B14
#[test]
fn the_id_of_an_empty_segment_is_not_given_out_again() {
    let disk = MemStorage::new();
    let mut highest = 0;
    for round in 0..6 {
        let store = open(&disk);
        let namespace = store.namespace("N").unwrap();
        // A segment is begun, and nothing is written to it; or something that leaves nothing behind.
        if round % 2 == 0 {
            assert!(!namespace.delete("absent").unwrap());
        } else {
            namespace.put("k", "v").unwrap();
            namespace.delete("k").unwrap();
        }
        let ids = segment_ids(&disk);
        let newest = *ids.last().unwrap();
        assert!(newest > highest, "round {round}: {newest} after {highest}");
        store.compact().unwrap();
        highest = newest.max(*segment_ids(&disk).last().unwrap());
        if round % 3 == 2 {
            drop((store, namespace));
        } else {
            store.close().unwrap();
        }
    }
}
