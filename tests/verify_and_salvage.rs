//! Damage is found, all of it, and what is not damaged comes out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says where")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use embercask::storage::{CutPolicy, Fault, FaultKind, FaultStorage, MemStorage, Operation, Storage};
use embercask::{
    Damaged, Durability, Error, ErrorKind, Maintenance, ManualClock, Options, PutOptions, ReadMode, Result,
    SalvageReport, Store, salvage, salvage_with,
};

const NOW: u64 = 1_700_000_000_000;

/// (namespace, key) to (value, metadata, expiry).
type Contents = BTreeMap<(String, Vec<u8>), (Vec<u8>, Option<Vec<u8>>, Option<u64>)>;

fn options(disk: &MemStorage) -> Options {
    over(Arc::new(disk.clone()))
}

fn over(storage: Arc<dyn Storage>) -> Options {
    Store::options()
        .segment_bytes(4096)
        .durability(Durability::Os)
        .maintenance(Maintenance::Manual)
        .clock(ManualClock::new(NOW))
        .storage(storage)
}

fn contents(store: &Store) -> Contents {
    let mut contents = Contents::new();
    for info in store.namespaces().unwrap() {
        let namespace = store.open_namespace(&info.name).unwrap();
        for entry in namespace.list() {
            let entry = entry.unwrap();
            let value = namespace.get(entry.key()).unwrap().unwrap();
            let found = (value.to_vec(), value.metadata().map(<[u8]>::to_vec), value.expiry_ms());
            contents.insert((info.name.clone(), entry.key().to_vec()), found);
        }
    }
    contents
}

/// A closed store with a bit of everything in one segment; what it holds.
fn small_store(options: Options) -> Contents {
    let store = options.open("/store").unwrap();
    let (first, second) = (store.namespace("FIRST").unwrap(), store.namespace("SECOND").unwrap());
    first.put("plain", "a value").unwrap();
    first
        .put_with(
            "rich",
            "r",
            PutOptions::new().metadata("{\"m\":1}").expires_at_ms(NOW + 60_000),
        )
        .unwrap();
    first.put("overwritten", "old").unwrap();
    first.put("overwritten", "new").unwrap();
    first.put("deleted", "gone").unwrap();
    first.delete("deleted").unwrap();
    store
        .batch()
        .put(&first, "b1", "1")
        .put(&second, "b2", "22")
        .delete(&second, "none")
        .commit()
        .unwrap();
    second.put("empty", "").unwrap();
    let contents = contents(&store);
    drop((first, second));
    store.close().unwrap();
    contents
}

/// Several segments of plain keys; what they hold.
fn large_store(options: Options, directory: impl AsRef<Path>) -> Contents {
    let store = options.open(directory).unwrap();
    let namespace = store.namespace("N").unwrap();
    for n in 0..300 {
        let put = PutOptions::new().metadata(format!("meta {n}"));
        let put = if n % 3 == 0 {
            put.expires_at_ms(NOW + 1_000_000 + n)
        } else {
            put
        };
        namespace
            .put_with(format!("key-{n:04}"), format!("value of {n}, and some more"), put)
            .unwrap();
    }
    let contents = contents(&store);
    drop(namespace);
    store.close().unwrap();
    contents
}

fn segments(disk: &MemStorage) -> Vec<PathBuf> {
    let files = disk.files("/store");
    files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "segment"))
        .collect()
}

/// Where these bytes lie in a file.
fn find(disk: &MemStorage, path: &Path, bytes: &[u8]) -> u64 {
    let content = disk.read_file(path).unwrap();
    content.windows(bytes.len()).position(|window| window == bytes).unwrap() as u64
}

fn salvaged(disk: &MemStorage) -> (SalvageReport, Contents) {
    let report = salvage("/store", "/out", options(disk)).unwrap();
    let store = options(disk).create(false).open("/out").unwrap();
    assert!(store.verify().unwrap().is_sound());
    let contents = contents(&store);
    assert_eq!(contents.len() as u64, report.keys);
    (report, contents)
}

/// Ends the threads of a test that fails, so that it fails and does not hang.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn every_flipped_bit_of_a_segment_is_found_by_verify() {
    let disk = MemStorage::new();
    small_store(options(&disk));
    let path = &segments(&disk)[0];
    let bits = disk.read_file(path).unwrap().len() as u64 * 8;
    let store = options(&disk).open("/store").unwrap();
    for bit in 0..bits {
        disk.flip_bit(path, bit).unwrap();
        let report = store.verify().unwrap();
        let covers = |at: &Damaged| &at.path == path && (at.offset..at.offset + at.length).contains(&(bit / 8));
        assert!(report.damaged.iter().any(covers), "bit {bit}: {:?}", report.damaged);
        disk.flip_bit(path, bit).unwrap();
    }
    assert!(store.verify().unwrap().is_sound());
}

#[test]
fn a_flipped_bit_in_a_closed_store_is_found_by_open_or_by_verify() {
    let disk = MemStorage::new();
    small_store(options(&disk));
    let paths = segments(&disk);
    assert_eq!(paths.len(), 1);
    let path = &paths[0];
    let bits = disk.read_file(path).unwrap().len() as u64 * 8;
    let (mut by_open, mut by_verify) = (0, 0);
    for bit in (0..bits).step_by(7) {
        let damaged = disk.crash_process();
        damaged.flip_bit(path, bit).unwrap();
        match options(&damaged).open("/store") {
            Err(Error::Corruption {
                path: named, offset, ..
            }) => {
                assert_eq!(&named, path, "bit {bit}");
                assert!(offset <= bit / 8, "bit {bit}: {offset}");
                by_open += 1;
            }
            // The version is in the header, and is looked at first.
            Err(Error::NewerFormat { path: named, .. }) => {
                assert!(&named == path && (64..96).contains(&bit), "bit {bit}");
            }
            Err(error) => panic!("bit {bit}: {error}"),
            Ok(store) => {
                assert!(!store.verify().unwrap().is_sound(), "bit {bit}");
                by_verify += 1;
            }
        }
    }
    assert!(by_open > 0 && by_verify > 0, "{by_open} {by_verify}");
}

#[test]
fn one_flipped_bit_costs_at_most_one_record() {
    let disk = MemStorage::new();
    let whole = small_store(options(&disk));
    let path = &segments(&disk)[0];
    let bits = disk.read_file(path).unwrap().len() as u64 * 8;
    for bit in (0..bits).step_by(13) {
        let damaged = disk.crash_process();
        damaged.flip_bit(path, bit).unwrap();
        let (report, found) = salvaged(&damaged);
        assert!(!report.all_lost().any(|lost| lost.path != *path), "bit {bit}");
        if let [recovered] = &report.recovered_namespaces[..] {
            // It was the name of a namespace; all its keys are there.
            assert!(recovered == "recovered-1" || recovered == "recovered-2", "bit {bit}");
            let unnamed = |contents: &Contents| {
                contents
                    .iter()
                    .map(|((_, key), value)| (key.clone(), value.clone()))
                    .collect::<BTreeMap<_, _>>()
            };
            assert_eq!(unnamed(&found), unnamed(&whole), "bit {bit}");
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
    }
}

#[test]
fn a_sound_store_is_salvaged_whole_and_verifies_in_both_read_modes() {
    for mode in [ReadMode::Map, ReadMode::Pread] {
        let disk = MemStorage::new();
        let whole = large_store(options(&disk).read_mode(mode), "/store");
        let store = options(&disk).read_mode(mode).open("/store").unwrap();
        let report = store.verify().unwrap();
        assert!(report.is_sound(), "{:?}", report.damaged);
        assert_eq!((report.records, report.keys), (301, 301));
        assert!(report.segments > 3 && report.hints == report.segments, "{report:?}");
        let busy = salvage("/store", "/out", options(&disk)).unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::InUse);
        store.close().unwrap();
        let before: Vec<_> = disk
            .files("/store")
            .iter()
            .map(|path| disk.read_file(path).unwrap())
            .collect();
        let (report, found) = salvaged(&disk);
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(found, whole);
        let after: Vec<_> = disk
            .files("/store")
            .iter()
            .map(|path| disk.read_file(path).unwrap())
            .collect();
        assert!(
            before[..before.len()]
                .iter()
                .zip(&after)
                .filter(|(a, b)| a != b)
                .count()
                <= 1,
            "only the lock file"
        );
    }
}

#[test]
fn verify_lists_every_damage_and_not_only_the_first() {
    let disk = MemStorage::new();
    large_store(options(&disk), "/store");
    let path = &segments(&disk)[1];
    let length = disk.read_file(path).unwrap().len() as u64;
    // The value of one record, and far from it the header of another.
    let text = find(&disk, path, b", and some more");
    disk.flip_bit(path, text * 8).unwrap();
    let store = options(&disk).open("/store").unwrap();
    let key = find(&disk, path, b"key-0060");
    disk.flip_bit(path, (key - 20) * 8).unwrap();
    let report = store.verify().unwrap();
    let [first, second] = &report.damaged[..] else {
        panic!("{:?}", report.damaged)
    };
    assert!((first.offset..first.offset + first.length).contains(&text), "{first}");
    assert!(
        (second.offset..second.offset + second.length).contains(&(key - 20)),
        "{second}"
    );
    assert!(
        first.length < 200 && second.length < 200 && second.offset < length,
        "{first} {second}"
    );
    assert_eq!(report.records, 299);
}

#[test]
fn damaged_and_swapped_hints_seals_and_manifests_are_found() {
    let disk = MemStorage::new();
    large_store(options(&disk), "/store");
    let store = options(&disk).open("/store").unwrap();
    let damaged = |change: &dyn Fn()| {
        let kept: Vec<_> = disk
            .files("/store")
            .into_iter()
            .map(|path| (disk.read_file(&path).unwrap(), path))
            .collect();
        change();
        let report = store.verify().unwrap();
        for (bytes, path) in kept {
            disk.write_file(path, &bytes).unwrap();
        }
        assert!(store.verify().unwrap().is_sound());
        report
            .damaged
            .into_iter()
            .map(|damaged| damaged.path)
            .collect::<Vec<_>>()
    };
    let paths = segments(&disk);
    let hint = |path: &PathBuf| path.with_extension("hint");
    let of_third = &paths[2];
    assert_eq!(
        damaged(&|| disk.flip_bit(hint(&paths[0]), 99).unwrap()),
        [hint(&paths[0])]
    );
    let swap = || {
        disk.write_file(hint(&paths[0]), &disk.read_file(hint(&paths[1])).unwrap())
            .unwrap()
    };
    assert_eq!(damaged(&swap), [hint(&paths[0])]);
    assert!(
        damaged(&|| disk.remove_file(hint(&paths[0])).unwrap()).is_empty(),
        "a hint may be missing"
    );
    let length = disk.read_file(&paths[2]).unwrap().len() as u64;
    assert_eq!(
        damaged(&|| disk.flip_bit(&paths[2], length * 8 - 60).unwrap()),
        [of_third.as_path()]
    );
    assert_eq!(
        damaged(&|| disk.truncate(&paths[2], length - 1).unwrap()),
        [of_third.as_path()]
    );
    assert_eq!(
        damaged(&|| disk.truncate(&paths[2], length + 1).unwrap()),
        [of_third.as_path()]
    );
    assert_eq!(damaged(&|| disk.remove_file(&paths[2]).unwrap()), [of_third.as_path()]);
    let manifest = PathBuf::from("/store/MANIFEST");
    assert_eq!(damaged(&|| disk.flip_bit(&manifest, 80).unwrap()), [manifest.as_path()]);
    assert_eq!(
        damaged(&|| disk.flip_bit(&manifest, 300).unwrap()),
        [manifest.as_path()]
    );
    assert_eq!(damaged(&|| disk.remove_file(&manifest).unwrap()), [manifest.as_path()]);
}

#[test]
fn the_written_part_of_the_active_segment_is_checked_on_disk() {
    let disk = MemStorage::new();
    let store = options(&disk).open("/store").unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "the value").unwrap();
    namespace
        .put_with("pending", "v", PutOptions::new().durability(Durability::Buffered))
        .unwrap();
    let report = store.verify().unwrap();
    assert!(report.is_sound() && report.records == 3, "{report:?}");
    let path = segments(&disk)
        .into_iter()
        .find(|path| disk.read_file(path).unwrap().len() > 64)
        .unwrap();
    let at = find(&disk, &path, b"the value");
    disk.flip_bit(&path, at * 8).unwrap();
    let report = store.verify().unwrap();
    assert!(
        matches!(&report.damaged[..], [damaged] if damaged.path == path),
        "{report:?}"
    );
    // Readers are served from memory, which is sound.
    assert_eq!(namespace.get("key").unwrap().unwrap(), *b"the value");
}

#[test]
fn verify_finds_nothing_after_any_crash() {
    let disk = MemStorage::new();
    let store = options(&disk).open("/store").unwrap();
    let namespace = store.namespace("N").unwrap();
    for n in 0..200 {
        namespace.put(format!("{}", n % 50), vec![b'x'; n]).unwrap();
        if n % 40 == 0 {
            store.sync().unwrap();
        }
    }
    for seed in 0..20 {
        let cut = disk.power_cut(&CutPolicy::Random { seed, grain: 512 });
        let store = options(&cut).open("/store").unwrap();
        let report = store.verify().unwrap();
        assert!(report.is_sound(), "seed {seed}: {:?}", report.damaged);
        store.compact().unwrap();
        assert!(store.verify().unwrap().is_sound());
    }
    drop(store);
}

#[test]
fn verify_can_be_stopped_and_tells_how_far_it_is() {
    let disk = MemStorage::new();
    large_store(options(&disk), "/store");
    let store = options(&disk).open("/store").unwrap();
    let mut seen = Vec::new();
    store
        .verify_with(|progress| {
            seen.push(progress);
            true
        })
        .unwrap();
    assert!(seen.windows(2).all(|pair| pair[0].done_bytes <= pair[1].done_bytes));
    assert_eq!(
        seen.last().map(|last| last.done_bytes),
        seen.last().map(|last| last.total_bytes)
    );
    assert_eq!(store.verify_with(|_| false).unwrap_err().kind(), ErrorKind::Cancelled);
    store.clone().close().unwrap();
    assert_eq!(store.verify().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn verify_reports_nothing_while_writers_and_compaction_are_at_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::options()
        .segment_bytes(64 << 10)
        .durability(Durability::Os)
        .open(directory.path())
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for thread in 0..2u64 {
            let (namespace, stop, store) = (&namespace, &stop, &store);
            scope.spawn(move || {
                let mut n = thread;
                while !stop.load(Ordering::Relaxed) {
                    n = n.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let key = format!("{}", (n >> 33) % 500);
                    match n >> 60 {
                        0..2 => drop(namespace.delete(&key).unwrap()),
                        2 => drop(
                            store
                                .batch()
                                .put(namespace, &key, "batch")
                                .put(namespace, "both", &key)
                                .commit()
                                .unwrap(),
                        ),
                        3 => {
                            let put = PutOptions::new().ttl(Duration::from_millis(50));
                            namespace.put_with(&key, vec![7; 300], put).unwrap();
                        }
                        _ => drop(namespace.put(&key, vec![1; (n >> 40) as usize % 700]).unwrap()),
                    }
                }
            });
        }
        let (compacting, stopped) = (&store, &stop);
        scope.spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                compacting.compact().unwrap();
            }
        });
        let started = Instant::now();
        let mut rounds = 0;
        while started.elapsed() < Duration::from_secs(2) || rounds < 5 {
            let report = store.verify();
            assert_eq!(report.unwrap().damaged, []);
            rounds += 1;
        }
    });
    assert!(store.stats().compaction.runs > 0);
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
        assert!(options(&disk).open("/store").is_err());
        let (report, found) = salvaged(&disk);
        assert!(!report.manifest && !report.is_complete());
        assert_eq!(found, whole);
    }
}

#[test]
fn a_missing_segment_costs_its_own_keys() {
    let disk = MemStorage::new();
    let whole = large_store(options(&disk), "/store");
    let path = segments(&disk)[1].clone();
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
fn a_segment_that_the_manifest_does_not_list_is_left_out() {
    let disk = MemStorage::new();
    let store = options(&disk).open("/store").unwrap();
    let namespace = store.namespace("N").unwrap();
    for n in 0..200 {
        namespace
            .put(format!("key-{n}"), "a value that takes some room in its segment")
            .unwrap();
    }
    drop(namespace);
    store.close().unwrap();
    let old: Vec<_> = segments(&disk)
        .into_iter()
        .map(|path| (disk.read_file(&path).unwrap(), path))
        .collect();
    let store = options(&disk).open("/store").unwrap();
    let namespace = store.namespace("N").unwrap();
    for n in 0..100 {
        namespace.delete(format!("key-{n}")).unwrap();
    }
    store.compact().unwrap();
    drop(namespace);
    store.close().unwrap();
    // As if unlinking the inputs had been cut off.
    for (bytes, path) in &old {
        disk.write_file(path, bytes).unwrap();
    }
    let (report, found) = salvaged(&disk);
    assert!(report.is_complete());
    assert_eq!(found.len(), 100);
}

#[test]
fn namespaces_keep_name_and_id_and_dropped_ones_stay_dropped() {
    let disk = MemStorage::new();
    let store = options(&disk).open("/store").unwrap();
    for name in ["KEPT", "DROPPED", "OLD"] {
        store.namespace(name).unwrap().put("key", name).unwrap();
    }
    store.rename_namespace("OLD", "NEW").unwrap();
    store.namespace("OLD").unwrap().put("key", "another").unwrap();
    store.drop_namespace("DROPPED").unwrap();
    store.namespace("EMPTY").unwrap();
    let before = (store.namespaces().unwrap(), contents(&store));
    store.close().unwrap();
    let (report, found) = salvaged(&disk);
    assert!(report.recovered_namespaces.is_empty(), "{report:?}");
    let out = options(&disk).open("/out").unwrap();
    assert_eq!((out.namespaces().unwrap(), found), before);
}

#[test]
fn keys_whose_namespace_is_lost_come_into_one_named_by_its_number() {
    let disk = MemStorage::new();
    small_store(options(&disk));
    let path = &segments(&disk)[0];
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
    let paths = segments(&disk);
    for bit in [3, 70, 100, 200, 300, 350, 500] {
        let damaged = disk.crash_process();
        damaged.flip_bit(&paths[0], bit).unwrap();
        let (report, found) = salvaged(&damaged);
        assert_eq!(found, whole, "bit {bit}");
        assert_eq!(report.segments[0].lost.len(), 1, "it is told all the same");
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
    let path = segments(&crashed)
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
    // The same damage with the log going on behind it.
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
fn what_has_expired_is_left_out_and_does_not_uncover_what_lay_below() {
    let disk = MemStorage::new();
    let store = options(&disk).open("/store").unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "first").unwrap();
    namespace
        .put_with("key", "second", PutOptions::new().expires_at_ms(NOW + 10))
        .unwrap();
    namespace
        .put_with("other", "lives on", PutOptions::new().expires_at_ms(NOW + 1000))
        .unwrap();
    drop(namespace);
    store.close().unwrap();
    let later = || options(&disk).clock(ManualClock::new(NOW + 10));
    let report = salvage("/store", "/out", later()).unwrap();
    assert_eq!((report.keys, report.expired), (1, 1));
    let found = contents(&later().open("/out").unwrap());
    assert_eq!(
        found[&("N".to_owned(), b"other".to_vec())],
        (b"lives on".to_vec(), None, Some(NOW + 1000))
    );
}

#[test]
fn a_salvage_that_ends_early_leaves_nothing() {
    let disk = MemStorage::new();
    large_store(options(&disk), "/store");
    assert_eq!(
        salvage("/nothing", "/out", options(&disk)).unwrap_err().kind(),
        ErrorKind::NotAStore
    );
    assert_eq!(
        salvage("/store", "/store/out", options(&disk)).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    disk.create_directory(Path::new("/full")).unwrap();
    disk.write_file("/full/notes.txt", b"mine").unwrap();
    assert_eq!(
        salvage("/store", "/full", options(&disk)).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    let mut calls = 0;
    let mut all = 0;
    salvage_with("/store", "/whole", options(&disk), |_| {
        all += 1;
        true
    })
    .unwrap();
    for stop in 0..all {
        calls = 0;
        let stopped = salvage_with("/store", "/out", options(&disk), |_| {
            calls += 1;
            calls <= stop
        });
        assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Cancelled, "{stop}");
        assert!(!disk.exists(Path::new("/out")).unwrap() && !disk.exists(Path::new("/out.partial")).unwrap());
    }
    assert!(calls > 4);
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
        segments(&disk)[0].to_string_lossy().into_owned()
    };
    // Some read of this segment fails, and then the read of one of its blocks.
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
            // The length of the file could not be told.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "step {step}: {error}"),
        }
    }
    assert!(struck > 0);
    Ok(())
}
