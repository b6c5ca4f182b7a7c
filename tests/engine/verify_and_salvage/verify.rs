//! Verify lists all damage and nothing else.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use embercask::storage::{CutPolicy, MemStorage};
use embercask::{Damaged, Durability, Error, ErrorKind, PutOptions, Store};

use crate::verify_and_salvage::{find, large_store, options, small_store};
use test_support::{StopOnDrop, at_least, ending};

#[test]
fn every_flipped_bit_of_a_segment_is_found_by_verify() {
    let disk = MemStorage::new();
    small_store(options(&disk));
    let path = &ending(&disk, ".segment")[0];
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
    let paths = ending(&disk, ".segment");
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
fn verify_lists_every_damage_and_not_only_the_first() {
    let disk = MemStorage::new();
    large_store(options(&disk), "/store");
    let path = &ending(&disk, ".segment")[1];
    let length = disk.read_file(path).unwrap().len() as u64;
    // In the value of one record, and far away in the header of another.
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
    let paths = ending(&disk, ".segment");
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
    let path = ending(&disk, ".segment")
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
    let mut discarded = 0;
    for seed in 0..20 {
        let cut = disk.power_cut(&CutPolicy::Random { seed, grain: 512 });
        let store = options(&cut).open("/store").unwrap();
        discarded += u64::from(store.recovery_report().discarded_bytes > 0);
        let report = store.verify().unwrap();
        assert!(report.is_sound(), "seed {seed}: {:?}", report.damaged);
        store.compact().unwrap();
        assert!(store.verify().unwrap().is_sound());
    }
    at_least(5, discarded, "cuts that tore the log");
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
    at_least(4, seen.len() as u64, "progress reports");
    assert!(seen.windows(2).all(|pair| pair[0].done_bytes <= pair[1].done_bytes));
    let last = seen.last().unwrap();
    assert!(last.done_bytes > 0 && last.done_bytes == last.total_bytes, "{last:?}");
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
        // Until enough was written and compacted during verification.
        let (mut rounds, mut segments) = (0, 0);
        while rounds < 20 || store.stats().compaction.runs < 20 || store.stats().last_sequence < 5_000 {
            let report = store.verify().unwrap();
            assert_eq!(report.damaged, []);
            segments += report.segments;
            rounds += 1;
        }
        at_least(2 * rounds, segments, "verified segments");
    });
}
