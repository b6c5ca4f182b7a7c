//! Sequences and segment ids are never reused, whatever remains of their owners.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use embercask::storage::{MemStorage, Operation};
use embercask::{ErrorKind, Namespace};

use test_support::hooked::Hooked;
use test_support::{DIRECTORY, ending, manual, open, text};

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
        // No trace of the key or its tombstone is left.
        store.compact().unwrap();
        assert_eq!(store.stats().keys, 0);
        store.close().unwrap();
    }
}

fn segment_ids(disk: &MemStorage) -> Vec<u64> {
    ending(disk, ".segment").iter().map(|path| segment_id(path)).collect()
}

fn segment_id(path: &Path) -> u64 {
    u64::from_str_radix(path.file_stem().unwrap().to_str().unwrap(), 16).unwrap()
}

/// B14
#[test]
fn the_id_of_an_empty_segment_is_not_given_out_again() {
    let disk = MemStorage::new();
    let mut highest = 0;
    for round in 0..6 {
        let store = open(&disk);
        let namespace = store.namespace("N").unwrap();
        // A segment is created and nothing is written to it, or only something that leaves no
        // trace.
        if round % 2 == 0 {
            assert!(!namespace.delete("absent").unwrap().existed);
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

/// C7: while compaction writes its output, which no manifest lists yet, so many creations of
/// segments fail that new ids reach one with the same low 16 bits as the output's.
#[test]
fn failed_creations_beside_an_output_give_no_two_segments_the_same_index() {
    const INDEXES: u64 = 1 << 16;
    #[derive(Default)]
    struct Meanwhile {
        writer: Mutex<Option<Namespace>>,
        output: AtomicU64,
        failed: AtomicU64,
        is_running: AtomicBool,
    }
    let disk = MemStorage::new();
    let meanwhile = Arc::new(Meanwhile::default());
    let hook = meanwhile.clone();
    let storage = Hooked::over(&disk, move |operation, path| {
        let name = path.to_string_lossy();
        if operation == Operation::Create && name.ends_with(".segment") {
            if !hook.is_running.load(Ordering::Relaxed) {
                if hook.writer.lock().unwrap().is_some() {
                    hook.output.store(segment_id(path), Ordering::Relaxed);
                }
                return Ok(());
            }
            let same_index = segment_id(path) % INDEXES == hook.output.load(Ordering::Relaxed) % INDEXES;
            let failed = hook.failed.fetch_add(1, Ordering::Relaxed);
            if !same_index && failed < INDEXES + 100 {
                return Err(io::ErrorKind::Other.into());
            }
        }
        // The hint is written once the output is complete.
        let is_output = operation == Operation::Create
            && name.ends_with(".hint")
            && segment_id(path) == hook.output.load(Ordering::Relaxed);
        let writer = is_output.then(|| hook.writer.lock().unwrap().take());
        if let Some(Some(namespace)) = writer {
            hook.is_running.store(true, Ordering::Relaxed);
            while namespace.put("large", [9; 3_900]).is_err() {}
            hook.is_running.store(false, Ordering::Relaxed);
        }
        Ok(())
    });
    let store = manual(storage).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    for round in 0..3u8 {
        for n in 0..20 {
            namespace.put(format!("{n}"), [round; 300]).unwrap();
        }
    }
    store.maintain().unwrap();
    // The first segments have no live records and are dropped without an output; one live key makes
    // compaction copy.
    namespace.put("copied", [7; 300]).unwrap();
    for n in 0..20 {
        namespace.put(format!("{n}"), [3; 300]).unwrap();
    }
    store.maintain().unwrap();
    *meanwhile.writer.lock().unwrap() = Some(namespace.clone());
    store.compact().unwrap();
    assert!(
        meanwhile.failed.load(Ordering::Relaxed) > INDEXES - 100,
        "too few creations failed"
    );
    let check = |namespace: &Namespace| {
        let is = |key: &str, byte: u8, length: usize| {
            let value = namespace.get(key).unwrap().unwrap();
            assert!(value.as_bytes() == vec![byte; length], "{key}");
        };
        is("large", 9, 3_900);
        is("copied", 7, 300);
        (0..20).for_each(|n| is(&n.to_string(), 3, 300));
    };
    check(&namespace);
    drop(namespace);
    store.close().unwrap();
    let mut indexes: Vec<_> = segment_ids(&disk).iter().map(|id| id % INDEXES).collect();
    indexes.sort_unstable();
    indexes.dedup();
    assert_eq!(indexes.len(), segment_ids(&disk).len());
    check(&open(&disk).open_namespace("N").unwrap());
}

/// C7: a manifest that opening would refuse is rejected before it replaces the current one.
#[test]
fn no_manifest_is_written_that_could_not_be_read_again() {
    let disk = MemStorage::new();
    let store = open(&disk);
    store.namespace("N").unwrap().put("key", "value").unwrap();
    store.close().unwrap();
    // Sets the next segment's id, after magic, version, store id and generation, to the highest
    // readable one.
    let path = format!("{DIRECTORY}/MANIFEST");
    let mut bytes = disk.read_file(&path).unwrap();
    bytes.truncate(bytes.len() - 4);
    bytes[36..44].copy_from_slice(&(1u64 << 62).to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    disk.write_file(&path, &bytes).unwrap();
    for _ in 0..2 {
        let store = open(&disk);
        let namespace = store.open_namespace("N").unwrap();
        let error = namespace.put("key", "new").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        assert_eq!(text(&namespace, "key").as_deref(), Some("value"));
    }
}
