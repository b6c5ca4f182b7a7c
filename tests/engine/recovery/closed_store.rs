//! Every file of a closed store is checksummed and bound to its place.

use std::time::Duration;

use embercask::storage::MemStorage;
use embercask::{PutOptions, ReadMode};

use crate::recovery::{active, closed, judge, judge_opened, killed, try_open};
use test_support::way::Way;
use test_support::{DIRECTORY, Sample, at_least, ending, is_corruption, open};

/// One in this many places is damaged, unless the run is exhaustive. Odd, so that all ways to open
/// are used.
const ONE_IN: u64 = 3;

/// B8 and B12 for every file of a closed store: any flipped bit is found or does not matter.
#[test]
fn a_flipped_bit_anywhere_in_a_closed_store_is_found_or_does_no_harm() {
    let (disk, expected) = closed();
    let segments = ending(&disk, ".segment");
    let (mut found, mut looked_at, sample) = (0, 0, Sample::one_in(ONE_IN));
    for path in disk.files(DIRECTORY) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let bytes = disk.read_file(&path).unwrap();
        let is_segment = segments.contains(&path);
        let says_nothing = name == "RESERVE" || name == "LOCK";
        // One bit per byte, a different one each time, and of every third byte in later segments,
        // since all would take minutes. Of these a sample, cycling through the ways to open.
        let step = match () {
            () if says_nothing => 199,
            () if is_segment && path != segments[0] => 3,
            () => 1,
        };
        for at in sample.of((0..bytes.len() as u64).step_by(step)) {
            let bit = at * 8 + at % 8;
            let damaged = disk.crash_process();
            damaged.flip_bit(&path, bit).unwrap();
            let read_mode = if at % 2 == 0 { ReadMode::Map } else { ReadMode::Pread };
            let way = match at % 4 {
                _ if name == "INDEX" => Way::IndexFile,
                0 | 1 if is_segment => Way::Records,
                2 => Way::Hints,
                _ => Way::IndexFile,
            };
            // Without hints a segment is read completely.
            let read_whole = way == Way::Records;
            let prepared = way.prepare(&damaged, DIRECTORY);
            let context = format!("bit {bit} of {name}");
            let opened = try_open(&damaged, read_mode);
            if let Ok(store) = &opened {
                let report = store.recovery_report();
                if name == "INDEX" || name.ends_with(".hint") {
                    prepared.assert_no_more_used(report);
                } else {
                    prepared.assert_taken(report);
                }
            }
            let harmless = judge_opened(opened, &damaged, std::slice::from_ref(&expected), &context).is_some();
            looked_at += 1;
            found += u64::from(!harmless);
            // Hints and index are derived, lock and reserve hold no data, and the values of dead
            // records are not read. Everything else is checksummed and read.
            let derived = name.ends_with(".hint") || name == "INDEX";
            let may_be_harmless = says_nothing || derived || (is_segment && !read_whole);
            assert!(!harmless || may_be_harmless, "{context}: damage not noticed");
        }
    }
    at_least(sample.outcomes(2_000), found, "flipped bits noticed");
    assert!(looked_at > found, "{found} of {looked_at}");
}

#[test]
fn a_file_of_a_closed_store_that_was_cut_or_grew_is_found_or_does_no_harm() {
    let (disk, expected) = closed();
    // Recovery has recorded the end of the segment that was active at the kill; anything after it
    // does not count.
    let cut_by_recovery = active(&killed().0);
    for path in ending(&disk, "") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let length = disk.read_file(&path).unwrap().len() as u64;
        let unimportant = name.ends_with(".hint") || ["LOCK", "RESERVE", "INDEX"].contains(&name.as_str());
        let lengths = (0..length).filter(|at| at % 13 == 0 || length - at < 100 || *at < 100);
        for cut in lengths.chain([length + 1, length + 8, length + 4096]) {
            let damaged = disk.crash_process();
            damaged.truncate(&path, cut).unwrap();
            let context = format!("{name} of {length} bytes cut at {cut}");
            let found = judge(&damaged, ReadMode::Map, std::slice::from_ref(&expected), &context);
            let harmless = unimportant || cut > length && path == cut_by_recovery;
            assert_eq!(found.is_some(), harmless, "{context}");
        }
    }
}

/// B12 and B13: the entries of a hint are compared with the segment, which the hint's checksum
/// alone cannot do.
#[test]
fn segments_of_different_stores_cannot_be_mixed() {
    let ((disk, expected), (other, _)) = (closed(), closed());
    let names: Vec<_> = ending(&disk, ".segment");
    assert_eq!(names, ending(&other, ".segment"), "the stores have different segments");
    for path in ending(&disk, "") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let copy = disk.crash_process();
        copy.write_file(&path, &other.read_file(&path).unwrap()).unwrap();
        let found = judge(&copy, ReadMode::Map, std::slice::from_ref(&expected), &name);
        let unimportant = name.ends_with(".hint") || ["LOCK", "RESERVE", "INDEX"].contains(&name.as_str());
        assert_eq!(found.is_some(), unimportant, "{name}");
    }
}

/// B11: lengths of gigabytes cost no memory, whatever the rest of the header says.
#[test]
fn lengths_that_lie_are_not_believed() {
    let (disk, expected) = closed();
    let sample = Sample::one_in(ONE_IN);
    for path in ending(&disk, "") {
        let bytes = disk.read_file(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        for at in sample.of((0..bytes.len().saturating_sub(8)).step_by(4)) {
            let copy = disk.crash_process();
            let mut damaged = bytes.clone();
            damaged[at..at + 4].copy_from_slice(&[0xff, 0xff, 0xff, 0x7f]);
            if damaged == bytes {
                continue;
            }
            copy.write_file(&path, &damaged).unwrap();
            let read_mode = if at % 8 == 0 { ReadMode::Map } else { ReadMode::Pread };
            judge(
                &copy,
                read_mode,
                std::slice::from_ref(&expected),
                &format!("{name} at {at}"),
            );
        }
    }
    // A manifest or hint above the maximum length is not even read.
    for (path, harmless) in [
        (ending(&disk, "MANIFEST").remove(0), false),
        (ending(&disk, ".hint").remove(0), true),
    ] {
        let copy = disk.crash_process();
        copy.truncate(&path, 40 << 20).unwrap();
        let found = judge(&copy, ReadMode::Map, std::slice::from_ref(&expected), "40 MiB");
        assert_eq!(found.is_some(), harmless, "{}", path.display());
    }
}

/// B12: each byte of a record's header, fixed and optional.
#[test]
fn every_byte_of_a_header_is_under_the_checksum() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    let options = PutOptions::new()
        .ttl(Duration::from_secs(1 << 40))
        .metadata("metadata-of-it");
    namespace.put_with("the-key", "the-value", options).unwrap();
    namespace.put("later", "1").unwrap();
    store.maintain().unwrap();
    for sealed in [false, true] {
        if sealed {
            store.clone().close().unwrap();
        }
        let disk = disk.crash_process();
        let path = active(&disk);
        let bytes = disk.read_file(&path).unwrap();
        let key = bytes.windows(7).position(|window| window == b"the-key").unwrap();
        let header = key - (24 + 8 + 4);
        assert!(header % 8 == 0, "the record begins at {header}");
        let end = (key + "the-keymetadata-of-itthe-value".len()).next_multiple_of(8);
        for at in header..end {
            for change in [1, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= change;
                let copy = disk.crash_process();
                copy.write_file(&path, &damaged).unwrap();
                let context = format!("byte {} of the record ^ {change:#x}, sealed {sealed}", at - header);
                // A killed store is read completely in any case.
                let way = if at % 2 == 0 { Way::Records } else { Way::IndexFile };
                way.prepare(&copy, DIRECTORY);
                let told = match try_open(&copy, ReadMode::Map) {
                    Err(error) => Some(error),
                    Ok(store) => store.open_namespace("N").unwrap().get("the-key").map(drop).err(),
                };
                // Zeros at the end of a record are only read along with the whole segment.
                if told.is_none() && sealed && at >= key + 30 {
                    continue;
                }
                is_corruption(
                    &told.unwrap_or_else(|| panic!("{context}: damage not noticed")),
                    &copy,
                    &context,
                );
            }
        }
    }
}
