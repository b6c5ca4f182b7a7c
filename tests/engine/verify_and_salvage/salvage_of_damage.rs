//! Damage costs only the damaged records, and salvage recovers the rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{Durability, ErrorKind, ManualClock, ReadMode, Result, Store, salvage};

use crate::verify_and_salvage::{Contents, NOW, contents, find, large_store, options, over, salvaged, small_store};
use test_support::{at_least, ending};

const SEAL_BYTES: u64 = 104;

#[test]
fn one_flipped_bit_costs_at_most_one_record() {
    let disk = MemStorage::new();
    let whole = small_store(options(&disk));
    let path = &ending(&disk, ".segment")[0];
    let bits = disk.read_file(path).unwrap().len() as u64 * 8;
    let (mut names_lost, mut keys_lost, mut deletes_lost) = (0, 0, 0);
    for bit in (0..bits).step_by(13) {
        let damaged = disk.crash_process();
        damaged.flip_bit(path, bit).unwrap();
        let (report, found) = salvaged(&damaged);
        // Salvage takes nothing from a seal, so a damaged one loses nothing.
        assert_eq!(report.is_complete(), bit >= bits - SEAL_BYTES * 8, "bit {bit}");
        assert!(report.all_lost().all(|lost| lost.path == *path), "bit {bit}");
        if let [recovered] = &report.recovered_namespaces[..] {
            // The bit was in the name of a namespace; all its keys are there.
            assert!(recovered == "recovered-1" || recovered == "recovered-2", "bit {bit}");
            let unnamed = |contents: &Contents| {
                contents
                    .iter()
                    .map(|((_, key), value)| (key.clone(), value.clone()))
                    .collect::<BTreeMap<_, _>>()
            };
            assert_eq!(unnamed(&found), unnamed(&whole), "bit {bit}");
            names_lost += 1;
            continue;
        }
        let lost: Vec<_> = whole
            .iter()
            .filter(|(key, value)| found.get(key) != Some(value))
            .collect();
        let uncovered: Vec<_> = found.keys().filter(|key| !whole.contains_key(key)).collect();
        assert!(lost.len() + uncovered.len() <= 1, "bit {bit}: {lost:?} {uncovered:?}");
        assert!(
            uncovered.iter().all(|(_, key)| key == b"deleted"),
            "bit {bit}: {uncovered:?}"
        );
        keys_lost += lost.len() as u64;
        deletes_lost += uncovered.len() as u64;
    }
    at_least(10, names_lost, "bits that cost the name of a namespace");
    at_least(50, keys_lost, "bits that cost a key");
    at_least(3, deletes_lost, "bits that cost a tombstone");
}

#[test]
fn damage_on_a_real_disk_is_found_and_the_rest_comes_out() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("store"), directory.path().join("deep/out"));
    let real = || {
        Store::options()
            .segment_bytes(4096)
            .durability(Durability::Os)
            .clock(ManualClock::new(NOW))
    };
    let whole = large_store(real(), &from);
    let mut paths: Vec<_> = std::fs::read_dir(&from)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "segment"));
    paths.sort();
    let mut bytes = std::fs::read(&paths[0]).unwrap();
    let at = bytes
        .windows(15)
        .position(|window| window == b", and some more")
        .unwrap();
    bytes[at] ^= 4;
    std::fs::write(&paths[0], &bytes).unwrap();
    for mode in [ReadMode::Map, ReadMode::Pread] {
        let store = real().read_mode(mode).open(&from).unwrap();
        let report = store.verify().unwrap();
        assert!(
            matches!(&report.damaged[..], [damaged] if damaged.path == paths[0]),
            "{:?}",
            report.damaged
        );
        store.close().unwrap();
    }
    let report = salvage(&from, &to, real()).unwrap();
    assert_eq!((report.keys, report.all_lost().count()), (299, 1));
    let found = contents(&real().create(false).open(&to).unwrap());
    assert!(found.iter().all(|(key, value)| whole.get(key) == Some(value)));
    assert!(!to.with_file_name("out.partial").exists());
}

#[test]
fn without_a_manifest_all_segments_are_taken() {
    for damage in [
        |disk: &MemStorage| disk.remove_file("/store/MANIFEST"),
        |disk: &MemStorage| disk.flip_bit("/store/MANIFEST", 77),
    ] {
        let disk = MemStorage::new();
        let whole = large_store(options(&disk), "/store");
        damage(&disk).unwrap();
        let refused = options(&disk).open("/store").unwrap_err();
        let kinds = [ErrorKind::NotAStore, ErrorKind::Corruption];
        assert!(kinds.contains(&refused.kind()), "{refused}");
        let (report, found) = salvaged(&disk);
        assert!(!report.manifest && !report.is_complete());
        assert_eq!(found, whole);
    }
}

#[test]
fn a_missing_segment_costs_its_own_keys() {
    let disk = MemStorage::new();
    let whole = large_store(options(&disk), "/store");
    let path = ending(&disk, ".segment")[1].clone();
    disk.remove_file(&path).unwrap();
    assert_eq!(options(&disk).open("/store").unwrap_err().kind(), ErrorKind::Corruption);
    let (report, found) = salvaged(&disk);
    assert!(
        report.segments[1]
            .lost
            .iter()
            .any(|lost| lost.path == path && lost.cause.contains("missing"))
    );
    assert!(found.len() > 100 && found.len() < whole.len());
    assert!(found.iter().all(|(key, value)| whole.get(key) == Some(value)));
}

#[test]
fn keys_whose_namespace_is_lost_come_into_one_named_by_its_number() {
    let disk = MemStorage::new();
    small_store(options(&disk));
    let path = &ending(&disk, ".segment")[0];
    disk.flip_bit(path, find(&disk, path, b"FIRST") * 8).unwrap();
    let (report, found) = salvaged(&disk);
    assert_eq!(report.recovered_namespaces, ["recovered-1"]);
    assert_eq!(found[&("recovered-1".to_owned(), b"plain".to_vec())].0, b"a value");
    assert_eq!(found[&("SECOND".to_owned(), b"b2".to_vec())].0, b"22");
}

#[test]
fn one_flipped_bit_in_a_header_is_put_right_and_a_lost_header_costs_its_segment() {
    let disk = MemStorage::new();
    let whole = large_store(options(&disk), "/store");
    let paths = ending(&disk, ".segment");
    for bit in [3, 70, 100, 200, 300, 350, 500] {
        let damaged = disk.crash_process();
        damaged.flip_bit(&paths[0], bit).unwrap();
        let (report, found) = salvaged(&damaged);
        assert_eq!(found, whole, "bit {bit}");
        assert_eq!(report.segments[0].lost.len(), 1, "the damage is not reported");
    }
    let mut bytes = disk.read_file(&paths[1]).unwrap();
    bytes[..64].fill(0);
    disk.write_file(&paths[1], &bytes).unwrap();
    let (report, found) = salvaged(&disk);
    let [lost] = &report.segments[1].lost[..] else {
        panic!("{report:?}")
    };
    assert!(lost.offset == 0 && lost.length > 3000, "{lost}");
    assert!(found.len() > 100 && found.iter().all(|(key, value)| whole.get(key) == Some(value)));
}

#[test]
fn a_batch_torn_at_the_end_of_the_log_is_left_out_and_one_inside_damage_is_not() {
    let disk = MemStorage::new();
    let store = options(&disk).open("/store").unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("before", "1").unwrap();
    store
        .batch()
        .put(&namespace, "first", "of the batch")
        .put(&namespace, "second", "of the batch")
        .commit()
        .unwrap();
    let crashed = disk.crash_process();
    let path = ending(&crashed, ".segment")
        .into_iter()
        .find(|path| crashed.read_file(path).unwrap().len() > 64)
        .unwrap();
    let second = find(&crashed, &path, b"second");
    let torn = crashed.crash_process();
    torn.truncate(&path, second + 3).unwrap();
    let (report, found) = salvaged(&torn);
    assert_eq!(
        found.keys().map(|(_, key)| key.as_slice()).collect::<Vec<_>>(),
        [b"before"]
    );
    assert_eq!(
        report.segments.iter().map(|segment| segment.torn_records).sum::<u64>(),
        1,
        "{report:?}"
    );
    // The same damage, with a later write behind it.
    namespace.put("after", "2").unwrap();
    let rotten = disk.crash_process();
    rotten.flip_bit(&path, (second + 8) * 8).unwrap();
    let (_, found) = salvaged(&rotten);
    assert_eq!(
        found.keys().map(|(_, key)| key.as_slice()).collect::<Vec<_>>(),
        [&b"after"[..], b"before", b"first"]
    );
}

#[test]
fn a_block_that_cannot_be_read_costs_what_lies_in_it() -> Result<()> {
    let disk = MemStorage::new();
    let path = {
        let store = options(&disk).segment_bytes(1 << 20).open("/store")?;
        let namespace = store.namespace("N")?;
        for n in 0..1000 {
            namespace.put(format!("key-{n:04}"), vec![b'v'; 100])?;
        }
        drop(namespace);
        store.close()?;
        ending(&disk, ".segment")[0].to_string_lossy().into_owned()
    };
    // Some read of this segment fails, and so does the following read of one of its blocks.
    let mut struck = 0;
    for step in 0..60 {
        let disk = disk.crash_process();
        let faulty = FaultStorage::new(Arc::new(disk.clone()));
        for _ in 0..2 {
            faulty.inject(
                Fault::new(FaultKind::Error(std::io::ErrorKind::Other))
                    .on(Operation::Read)
                    .path(&path)
                    .at(step),
            );
        }
        match salvage("/store", "/out", over(Arc::new(faulty.clone()))) {
            Ok(report) if report.is_complete() => {}
            Ok(report) => {
                struck += 1;
                let header_lost = report.all_lost().any(|lost| lost.offset == 0);
                assert!(report.keys > 900 || header_lost, "step {step}: {report:?}");
                assert!(
                    report.all_lost().all(|lost| lost.cause.contains("cannot be read")),
                    "step {step}: {report:?}"
                );
            }
            // The length of the file was unreadable.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "step {step}: {error}"),
        }
    }
    assert!(struck > 0);
    Ok(())
}
