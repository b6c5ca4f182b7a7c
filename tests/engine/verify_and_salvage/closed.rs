//! The files of a store that is not open can be verified, whether it opens or not.

use std::path::Path;
use std::sync::Arc;

use embercask::storage::{CutPolicy, Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{Damaged, Error, ErrorKind, Store, VerifyReport, verify, verify_with};

use crate::verify_and_salvage::options;
use test_support::{at_least, ending};

/// An open store of several segments.
fn filled(disk: &MemStorage) -> Store {
    let store = options(disk).open("/store").unwrap();
    let namespace = store.namespace("N").unwrap();
    for number in 0..60 {
        namespace
            .put(
                format!("key-{number:03}"),
                format!("value of {number}, and some more").repeat(4),
            )
            .unwrap();
    }
    store
        .batch()
        .put(&namespace, "a", "1")
        .delete(&namespace, "key-001")
        .commit()
        .unwrap();
    store
}

fn closed() -> MemStorage {
    let disk = MemStorage::new();
    filled(&disk).close().unwrap();
    disk
}

fn verified(disk: &MemStorage) -> VerifyReport {
    verify("/store", &options(disk)).unwrap()
}

#[track_caller]
fn assert_names(ranges: &[Damaged], path: &Path, offset: u64) {
    let covers = |range: &Damaged| range.path == path && (range.offset..range.offset + range.length).contains(&offset);
    assert!(ranges.iter().any(covers), "{}, {offset}: {ranges:?}", path.display());
}

#[test]
fn a_sound_closed_store_is_found_sound_and_not_changed() {
    let disk = closed();
    let segments = ending(&disk, ".segment");
    let content = || {
        let files = disk.files("/store").into_iter().filter(|path| !path.ends_with("LOCK"));
        files
            .map(|path| (disk.read_file(&path).unwrap(), path))
            .collect::<Vec<_>>()
    };
    let before = content();
    let report = verified(&disk);
    assert!(report.is_sound() && report.discarded.is_empty(), "{report:?}");
    assert_eq!(
        (report.segments, report.hints),
        (segments.len() as u64, segments.len() as u64)
    );
    // The namespace has a record too.
    assert_eq!((report.records, report.keys), (63, 0));
    assert!(content() == before);
    options(&disk).open("/store").unwrap();
}

#[test]
fn flipped_bits_in_any_file_of_a_closed_store_are_found() {
    let disk = closed();
    let mut flipped = std::collections::BTreeMap::<String, u64>::new();
    for path in disk.files("/store") {
        // The first two hold no data, and an index file is never relied on, because a power cut may
        // leave any part of it.
        if ["LOCK", "RESERVE", "INDEX"].iter().any(|name| path.ends_with(name)) {
            continue;
        }
        let length = disk.read_file(&path).unwrap().len() as u64;
        for at in (0..length).step_by(3) {
            let damaged = disk.crash_process();
            damaged.flip_bit(&path, at * 8 + at % 8).unwrap();
            let report = verified(&damaged);
            match path.extension() {
                Some(extension) if extension == "hint" => assert_names(&report.discarded, &path, at),
                _ => assert_names(&report.damaged, &path, at),
            }
            let kind = path.extension().unwrap_or_else(|| path.file_name().unwrap());
            *flipped.entry(kind.to_string_lossy().into_owned()).or_default() += 1;
        }
    }
    for (kind, least) in [("MANIFEST", 100), ("hint", 100), ("segment", 3_000)] {
        at_least(least, flipped[kind], &format!("bits of files of the kind {kind}"));
    }
}

#[test]
fn all_that_keeps_a_store_from_opening_is_listed_at_once() {
    let disk = closed();
    let segments = ending(&disk, ".segment");
    assert!(segments.len() > 2, "{segments:?}");
    let [missing, short, rotten] = [&segments[0], &segments[1], &segments[2]];
    disk.remove_file(missing).unwrap();
    let length = disk.read_file(short).unwrap().len() as u64;
    disk.truncate(short, length - 100).unwrap();
    disk.flip_bit(rotten, 30 * 8).unwrap();
    assert_eq!(options(&disk).open("/store").unwrap_err().kind(), ErrorKind::Corruption);
    let report = verified(&disk);
    assert_names(&report.damaged, missing, 0);
    assert_names(&report.damaged, short, length - 1);
    assert_names(&report.damaged, rotten, 30);
    // Salvage reports the same parts as unusable.
    let salvaged = embercask::salvage("/store", "/out", options(&disk)).unwrap();
    // Of the shortened segment, only the seal is lost.
    at_least(
        2,
        salvaged.all_lost().count() as u64,
        "parts that salvage could not use",
    );
    for lost in salvaged.all_lost() {
        assert!(report.damaged.iter().any(|range| range.path == lost.path), "{lost}");
    }
}

#[test]
fn without_a_manifest_the_segments_are_verified_all_the_same() {
    let disk = closed();
    let segments = ending(&disk, ".segment");
    let manifest = Path::new("/store/MANIFEST");
    disk.remove_file(manifest).unwrap();
    let value = disk.read_file(&segments[1]).unwrap().len() as u64 / 2;
    disk.flip_bit(&segments[1], value * 8).unwrap();
    let report = verified(&disk);
    assert_eq!(report.segments, segments.len() as u64);
    assert!(
        report
            .damaged
            .iter()
            .any(|range| range.path == manifest && range.segment.is_none())
    );
    assert_names(&report.damaged, &segments[1], value);
    assert_eq!(report.damaged.len(), 2, "{report:?}");
}

#[test]
fn a_torn_tail_is_told_from_damage() {
    let disk = MemStorage::new();
    let store = filled(&disk);
    let active = ending(&disk, ".segment").pop().unwrap();
    let killed = disk.crash_process();
    assert!(verified(&killed).is_sound());
    // The last bytes were never written.
    let (mut torn_ones, mut damaged_ones) = (0, 0);
    let content = killed.read_file(&active).unwrap();
    let end = content.iter().rposition(|&byte| byte != 0).unwrap() as u64 + 1;
    for cut in (64..end).rev().step_by(8) {
        let torn = killed.crash_process();
        torn.truncate(&active, cut).unwrap();
        let report = verified(&torn);
        match options(&torn).open("/store") {
            Ok(_) => {
                assert!(report.is_sound(), "{cut}: {report:?}");
                torn_ones += u64::from(!report.discarded.is_empty());
            }
            Err(error) => {
                assert!(!report.is_sound(), "{cut}: {error}");
                damaged_ones += 1;
            }
        }
    }
    println!("{torn_ones} torn, {damaged_ones} damaged");
    at_least(20, torn_ones, "torn ends");
    // Only synced data that cannot be read are damage.
    store.sync().unwrap();
    store.namespace("N").unwrap().put("after", "the mark").unwrap();
    store.sync().unwrap();
    store.namespace("N").unwrap().put("after", "another").unwrap();
    store.flush().unwrap();
    let killed = disk.crash_process();
    let active = ending(&killed, ".segment").pop().unwrap();
    killed.flip_bit(&active, 80 * 8).unwrap();
    let report = verified(&killed);
    assert_names(&report.damaged, &active, 80);
    assert_eq!(
        options(&killed).open("/store").unwrap_err().kind(),
        ErrorKind::Corruption
    );
}

#[test]
fn a_power_cut_leaves_no_damage() {
    let disk = MemStorage::new();
    let store = filled(&disk);
    store.sync().unwrap();
    // More than a sector, so that part of it can be lost.
    store.namespace("N").unwrap().put("unsynced", [7; 1_500]).unwrap();
    let (mut whole, mut torn) = (0, 0);
    for seed in 0..64 {
        let cut = disk.power_cut(&CutPolicy::Random { seed, grain: 512 });
        let report = verified(&cut);
        assert!(report.is_sound(), "{seed}: {report:?}");
        torn += u64::from(!report.discarded.is_empty());
        let namespace = options(&cut).open("/store").unwrap().open_namespace("N").unwrap();
        whole += u64::from(namespace.contains("unsynced").unwrap());
        assert!(namespace.contains("a").unwrap());
    }
    at_least(1, whole, "cuts that kept the last write");
    at_least(10, torn, "cuts that tore it");
}

#[test]
fn a_directory_that_is_no_store_is_refused() {
    let disk = MemStorage::new();
    filled(&disk).close().unwrap();
    assert!(verified(&disk).is_sound());
    let error = verify("/nowhere", &options(&disk)).unwrap_err();
    assert!(matches!(error, Error::NotAStore { .. }), "{error}");
    assert!(!disk.files("/").iter().any(|path| path.starts_with("/nowhere")));
}

/// A store with an unreadable block in a file is never reported as sound, nor the block as a torn
/// tail.
fn blocks_cannot_be_read(disk: &MemStorage, unreadable: &Path) {
    let mut struck = 0;
    for step in 0..60 {
        let faulty = FaultStorage::new(Arc::new(disk.crash_process()));
        // Some read of this file fails, and so does the following read of one of its blocks.
        for _ in 0..2 {
            faulty.inject(
                Fault::new(FaultKind::Error(std::io::ErrorKind::Other))
                    .on(Operation::Read)
                    .path(&unreadable.to_string_lossy())
                    .at(step),
            );
        }
        match verify("/store", &options(disk).storage(Arc::new(faulty.clone()))) {
            Ok(_) if faulty.struck() < 2 => {}
            Ok(report) => {
                struck += 1;
                let is_told = |range: &Damaged| range.path == unreadable && range.cause.contains("cannot be read");
                assert!(report.damaged.iter().any(is_told), "step {step}: {report:?}");
                assert!(report.damaged.iter().all(is_told), "step {step}: {report:?}");
                assert!(report.discarded.is_empty(), "step {step}: {report:?}");
            }
            // The length of the file was unreadable.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "step {step}: {error}"),
        }
    }
    assert!(struck > 0, "{}", unreadable.display());
}

#[test]
fn a_block_that_cannot_be_read_is_listed_and_the_rest_is_read() {
    let disk = closed();
    for path in [
        ending(&disk, ".segment").swap_remove(1),
        ending(&disk, ".hint").swap_remove(1),
    ] {
        blocks_cannot_be_read(&disk, &path);
    }
    let disk = MemStorage::new();
    let _store = filled(&disk);
    let killed = disk.crash_process();
    let active = ending(&killed, ".segment").into_iter().find(|path| {
        let hint = path.with_extension("hint");
        killed.read_file(hint).is_err() && killed.read_file(path).unwrap().iter().skip(64).any(|&byte| byte != 0)
    });
    blocks_cannot_be_read(&killed, &active.unwrap());
}

#[test]
fn progress_is_told_up_to_the_end_and_can_stop_it() {
    let disk = closed();
    let mut last = None;
    verify_with("/store", &options(&disk), |progress| {
        last = Some(progress);
        true
    })
    .unwrap();
    let last = last.unwrap();
    assert!(last.done_bytes > 0 && last.done_bytes == last.total_bytes, "{last:?}");
    let stopped = verify_with("/store", &options(&disk), |_| false).unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Cancelled);
    options(&disk).open("/store").unwrap();
}
