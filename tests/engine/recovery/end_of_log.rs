//! The end of the log of a killed store: a torn tail is discarded, but anything known to be durable
//! is not a torn tail.

use std::sync::Arc;

use embercask::storage::{CutPolicy, Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{Durability, ErrorKind, Maintenance, ReadMode, Store};

use crate::recovery::{active, content, judge, killed, killed_on, try_open};
use test_support::{DIRECTORY, open, rng, written};

/// B8: a part of the active segment that is known to be durable cannot be torn off.
#[test]
fn a_cut_of_the_active_segment_loses_nothing_that_a_later_record_calls_durable() {
    let (disk, history) = killed();
    let path = active(&disk);
    let length = disk.read_file(&path).unwrap().len() as u64;
    let (mut losses, mut refused) = (0, 0);
    for cut in 0..=length {
        let damaged = disk.crash_process();
        damaged.truncate(&path, cut).unwrap();
        let context = format!("cut at {cut} of {length}");
        let read_mode = if cut % 2 == 0 { ReadMode::Map } else { ReadMode::Pread };
        match judge(&damaged, read_mode, &history, &context) {
            Some(found) if found == *history.last().unwrap() => {}
            Some(_) => {
                losses += 1;
                // The decision is final: the next opening finds the same, and continues from there.
                let again = damaged.power_cut(&CutPolicy::LoseUnsynced);
                let store = open(&again);
                assert!(history.contains(&content(&store).unwrap()), "{context}");
                store.namespace("N").unwrap().put("new", "1").unwrap();
            }
            None => refused += 1,
        }
    }
    // Without a later record, a cut looks like a torn tail. Only a missing header is detected,
    // because it is synced before the manifest lists the segment.
    assert!(losses > 100, "{losses} cuts lost something");
    assert!((1..=64).contains(&refused), "{refused} cuts were refused");
}

#[test]
fn a_flipped_bit_in_the_active_segment_is_corruption_if_a_later_mark_covers_it() {
    let (disk, history) = killed();
    let path = active(&disk);
    let bytes = written(&disk, &path);
    // The last write is after the last mark; nothing in the log says that it is durable.
    let (before_last, last) = (&history[history.len() - 2], history.last().unwrap());
    assert_ne!(before_last, last);
    let mut lost = Vec::new();
    for at in 0..bytes.len() as u64 {
        let damaged = disk.crash_process();
        damaged.flip_bit(&path, at * 8 + at % 8).unwrap();
        let read_mode = if at % 2 == 0 { ReadMode::Map } else { ReadMode::Pread };
        let context = format!("byte {at} of {}", bytes.len());
        match judge(&damaged, read_mode, &history, &context) {
            None => {}
            Some(found) => {
                assert!(
                    found == *before_last || found == *last,
                    "{context}: more than the end is lost"
                );
                lost.push(at);
            }
        }
    }
    let first = *lost.first().expect("the end of the log can be torn") as usize;
    assert_eq!(
        lost.last().map(|&last| last as usize),
        Some(bytes.len() - 1),
        "{lost:?}"
    );
    assert!(
        bytes.len() > 2_500 && bytes.len() - first < 1_000,
        "only the last write, its mark and its batch: {first} of {}",
        bytes.len()
    );
}

/// Garbage instead of data written after the last sync is a torn tail, whatever it looks like.
#[test]
fn garbage_after_the_last_write_is_discarded() {
    let mut rng = rng();
    let (disk, history) = killed_on(MemStorage::seeded(rng.next()));
    let path = active(&disk);
    let bytes = written(&disk, &path);
    for length in [1, 7, 8, 9, 24, 40, 64, 100, 4096, 70_000] {
        let mut longer = bytes.clone();
        longer.extend((0..length).map(|_| rng.next() as u8));
        let damaged = disk.crash_process();
        damaged.write_file(&path, &longer).unwrap();
        let store = open(&damaged);
        assert_eq!(content(&store).unwrap(), *history.last().unwrap(), "{length} bytes");
        assert_eq!(store.recovery_report().discarded_bytes, length, "{length} bytes");
    }
    // Even a copy of valid records, because records are bound to their place.
    let mut longer = bytes.clone();
    longer.extend_from_slice(&bytes[64..]);
    let damaged = disk.crash_process();
    damaged.write_file(&path, &longer).unwrap();
    assert_eq!(content(&open(&damaged)).unwrap(), *history.last().unwrap());
}

/// B10.
#[test]
fn zeros_after_the_last_write_are_a_clean_end() {
    let (disk, history) = killed();
    let path = active(&disk);
    let bytes = disk.read_file(&path).unwrap();
    let lengths = (1..=64).chain([100, 511, 512, 513, 4095, 4096, 4097, 16_384, 65_535, 65_536]);
    for length in lengths {
        for read_mode in [ReadMode::Map, ReadMode::Pread] {
            let damaged = disk.crash_process();
            let mut longer = bytes.clone();
            longer.resize(bytes.len() + length, 0);
            damaged.write_file(&path, &longer).unwrap();
            let store = try_open(&damaged, read_mode).unwrap();
            assert_eq!(content(&store).unwrap(), *history.last().unwrap(), "{length} zeros");
            store.namespace("N").unwrap().put("new", "1").unwrap();
            store.close().unwrap();
            let store = try_open(&damaged, read_mode).unwrap();
            assert_eq!(
                content(&store).unwrap().len(),
                history.last().unwrap().len() + 1,
                "{length} zeros"
            );
        }
    }
    // A prepared segment that still contains only zeros.
    let damaged = disk.crash_process();
    damaged
        .write_file(&path, &[&bytes[..64], &[0; 4096][..]].concat())
        .unwrap();
    judge(&damaged, ReadMode::Map, &history, "only zeros");
}

#[test]
fn damage_before_a_seal_that_no_manifest_knows_is_no_torn_tail() {
    let disk = MemStorage::new();
    let faults = FaultStorage::new(Arc::new(disk.clone()));
    let options = || {
        Store::options()
            .maintenance(Maintenance::Manual)
            .durability(Durability::Os)
    };
    let store = options().storage(Arc::new(faults.clone())).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    for key in ["a", "b", "c"] {
        namespace.put(key, [key.as_bytes()[0]; 64]).unwrap();
    }
    drop(namespace);
    // Synced and sealed, but the manifest that records it is never renamed into place.
    let failing = FaultKind::Error(std::io::ErrorKind::Other);
    faults.inject(Fault::new(failing).on(Operation::Rename));
    store.close().unwrap_err();
    let killed = disk.crash_process();
    let path = "/store/0000000000000001.segment";
    let bytes = killed.read_file(path).unwrap();
    let value = bytes.windows(64).position(|window| window == [b'b'; 64]).unwrap();
    killed.flip_bit(path, value as u64 * 8).unwrap();
    let error = options().storage(Arc::new(killed)).open(DIRECTORY).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
}
