//! What opening makes of a directory that was damaged, cut off or tampered with: the right content, or an error that names the
//! place. Never another value, never a panic.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::{DIRECTORY, Rng, class, keys, manual, open, rng, text};
use embercask::storage::{CutPolicy, MemStorage, Storage, StorageFile};
use embercask::{Durability, Error, ErrorKind, ManualClock, PutOptions, ReadMode, Result, Store};

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

fn try_open(disk: &MemStorage, read_mode: ReadMode) -> Result<Store> {
    manual(Arc::new(disk.clone())).read_mode(read_mode).open(DIRECTORY)
}

/// All keys and values, read both ways.
fn content(store: &Store) -> Result<Content> {
    let namespace = match store.open_namespace("N") {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Content::new()),
        found => found?,
    };
    let mut content = Content::new();
    for entry in namespace.list().with_values() {
        let entry = entry?;
        let value = entry.value().unwrap();
        assert_eq!(namespace.get(entry.key())?.unwrap(), *value);
        content.insert(entry.key().to_vec(), value.to_vec());
    }
    Ok(content)
}

/// Names file and offset.
#[track_caller]
fn is_corruption(error: &Error, disk: &MemStorage, context: &str) {
    let Error::Corruption { path, offset, .. } = error else {
        panic!("{context}: {error:?}")
    };
    let length = disk.read_file(path).map_or(0, |bytes| bytes.len() as u64);
    assert!(*offset <= length, "{context}: {error}");
    let says = format!("{} at offset {offset}", path.display());
    assert!(error.to_string().ends_with(&says), "{context}: {error}");
}

fn ending(disk: &MemStorage, end: &str) -> Vec<PathBuf> {
    disk.files(DIRECTORY)
        .into_iter()
        .filter(|path| path.to_string_lossy().ends_with(end))
        .collect()
}

/// Bytes in the segment that still grows.
fn active_bytes(store: &Store) -> u64 {
    let segments = store.stats().segments;
    segments
        .iter()
        .filter(|segment| !segment.sealed)
        .map(|segment| segment.bytes)
        .sum()
}

/// A small store that was killed: sealed segments, an active one with several synced writes in it, every kind of record; and what
/// was in it after each write, the last of which was synced.
fn killed() -> (MemStorage, Vec<Content>) {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    let mut history = vec![Content::new(), content(&store).unwrap()];
    for n in 0.. {
        if n >= 30 && active_bytes(&store) > 2_500 {
            break;
        }
        let key = format!("key {}", n % 11);
        let value = format!("value {n} {}", "x".repeat(300));
        match n % 6 {
            1 => drop(namespace.delete(&key).unwrap()),
            2 => {
                let batch = store
                    .batch()
                    .put(&namespace, &key, &value)
                    .put(&namespace, "batch", &value);
                batch.delete(&namespace, "key 3").commit().unwrap();
            }
            3 => {
                let ttl = PutOptions::new().ttl(Duration::from_secs(1 << 40)).metadata("metadata");
                namespace.put_with(&key, &value, ttl).unwrap();
            }
            _ => drop(namespace.put(&key, &value).unwrap()),
        }
        history.push(content(&store).unwrap());
    }
    let stats = store.stats();
    assert!(
        stats.segments.iter().filter(|segment| segment.sealed).count() >= 2,
        "{stats:?}"
    );
    assert!(stats.segments.iter().any(|segment| !segment.sealed), "{stats:?}");
    (disk.crash_process(), history)
}

/// The store that `killed` leaves, closed.
fn closed() -> (MemStorage, Content) {
    let (disk, mut history) = killed();
    open(&disk).close().unwrap();
    (disk.crash_process(), history.pop().unwrap())
}

/// Opens what somebody has damaged. The content has to be one of those allowed; or an error says where the damage is. A record
/// that is read only when asked for may be found damaged then; never does it have another value.
fn judge(disk: &MemStorage, read_mode: ReadMode, allowed: &[Content], context: &str) -> Option<Content> {
    let store = match try_open(disk, read_mode) {
        Ok(store) => store,
        Err(error) => {
            is_corruption(&error, disk, context);
            return None;
        }
    };
    match content(&store) {
        Ok(found) => {
            assert!(
                allowed.contains(&found),
                "{context}: content that never was: {:?}",
                found.keys()
            );
            Some(found)
        }
        Err(error) => {
            is_corruption(&error, disk, context);
            let latest = allowed.last().unwrap();
            let namespace = store.open_namespace("N").unwrap();
            for (key, value) in latest {
                match namespace.get(key) {
                    Ok(found) => assert!(found.is_some_and(|found| found == *value), "{context}"),
                    Err(error) => is_corruption(&error, disk, context),
                }
            }
            None
        }
    }
}

/// B8 and B12 for everything a closed store consists of: any flipped bit is found, or does not matter.
#[test]
fn a_flipped_bit_anywhere_in_a_closed_store_is_found_or_does_no_harm() {
    let (disk, expected) = closed();
    let segments = ending(&disk, ".segment");
    let (mut found, mut looked_at) = (0, 0);
    for path in disk.files(DIRECTORY) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let bytes = disk.read_file(&path).unwrap();
        let is_segment = segments.contains(&path);
        let says_nothing = name == "RESERVE" || name == "LOCK";
        // One bit of each byte, another one each time, and of the later segments of every third: all would take minutes.
        let step = match () {
            () if says_nothing => 199,
            () if is_segment && path != segments[0] => 3,
            () => 1,
        };
        for at in (0..bytes.len() as u64).step_by(step) {
            let bit = at * 8 + at % 8;
            let damaged = disk.crash_process();
            damaged.flip_bit(&path, bit).unwrap();
            let read_mode = if at % 2 == 0 { ReadMode::Map } else { ReadMode::Pread };
            // Without hints a segment is read whole.
            let read_whole = is_segment && at % 4 < 2;
            if read_whole {
                ending(&damaged, ".hint")
                    .iter()
                    .for_each(|hint| damaged.remove_file(hint).unwrap());
            }
            let version = (8..12).contains(&at) && (is_segment || name == "MANIFEST");
            if version && matches!(try_open(&damaged, read_mode), Err(Error::NewerFormat { .. })) {
                continue;
            }
            let context = format!("bit {bit} of {name}");
            let harmless = judge(&damaged, read_mode, std::slice::from_ref(&expected), &context).is_some();
            looked_at += 1;
            found += usize::from(!harmless);
            // Hints are derived; lock and reserve say nothing; nobody reads the values of dead records. All else is under
            // a checksum, and looked at.
            let may_be_harmless = says_nothing || name.ends_with(".hint") || (is_segment && !read_whole);
            assert!(!harmless || may_be_harmless, "{context}: not noticed");
        }
    }
    assert!(found > 2_000 && looked_at > found, "{found} of {looked_at}");
}

#[test]
fn a_file_of_a_closed_store_that_was_cut_or_grew_is_found_or_does_no_harm() {
    let (disk, expected) = closed();
    // Recovery has said where the segment ends that was active at the kill; what lies beyond is no part of it.
    let cut_by_recovery = active(&killed().0);
    for path in ending(&disk, "") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let length = disk.read_file(&path).unwrap().len() as u64;
        let unimportant = name.ends_with(".hint") || name == "LOCK" || name == "RESERVE";
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

/// The active segment of a killed store: the one with the highest id that the manifest lists as open.
fn active(disk: &MemStorage) -> PathBuf {
    ending(disk, ".segment").pop().unwrap()
}

/// B8: what of the active segment is known to be durable cannot be torn off.
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
                // Decided once and for all: the next opening finds the same, and goes on from there.
                let again = damaged.power_cut(&CutPolicy::LoseUnsynced);
                let store = open(&again);
                assert!(history.contains(&content(&store).unwrap()), "{context}");
                store.namespace("N").unwrap().put("new", "1").unwrap();
            }
            None => refused += 1,
        }
    }
    // Without a later record in sight a cut is a torn tail. Only the header, synced before the manifest lists it, is missed.
    assert!(losses > 100, "{losses} cuts lost something");
    assert!((1..=64).contains(&refused), "{refused} cuts were refused");
}

#[test]
fn a_flipped_bit_in_the_active_segment_is_corruption_if_a_later_mark_covers_it() {
    let (disk, history) = killed();
    let path = active(&disk);
    let bytes = disk.read_file(&path).unwrap();
    // The last write follows the last mark; nothing in the log says that it is durable.
    let (before_last, last) = (&history[history.len() - 2], history.last().unwrap());
    assert_ne!(before_last, last);
    let mut lost = Vec::new();
    for at in 0..bytes.len() as u64 {
        let damaged = disk.crash_process();
        damaged.flip_bit(&path, at * 8 + at % 8).unwrap();
        if (8..12).contains(&at) && matches!(try_open(&damaged, ReadMode::Map), Err(Error::NewerFormat { .. })) {
            continue;
        }
        let read_mode = if at % 2 == 0 { ReadMode::Map } else { ReadMode::Pread };
        let context = format!("byte {at} of {}", bytes.len());
        match judge(&damaged, read_mode, &history, &context) {
            None => {}
            Some(found) => {
                assert!(
                    found == *before_last || found == *last,
                    "{context}: more than the end is gone"
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

/// Garbage in the place of what was written after the last sync is a torn tail, whatever it looks like.
#[test]
fn garbage_after_the_last_write_is_discarded() {
    let mut rng = rng();
    let (disk, history) = killed();
    let path = active(&disk);
    let bytes = disk.read_file(&path).unwrap();
    for length in [1, 7, 8, 9, 24, 40, 64, 100, 4096, 70_000] {
        let mut longer = bytes.clone();
        longer.extend((0..length).map(|_| rng.next() as u8));
        let damaged = disk.crash_process();
        damaged.write_file(&path, &longer).unwrap();
        let store = open(&damaged);
        assert_eq!(content(&store).unwrap(), *history.last().unwrap(), "{length} bytes");
        assert_eq!(store.recovery_report().discarded_bytes, length, "{length} bytes");
    }
    // Even if it is a copy of valid records: they are bound to their place.
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
    // A segment that was prepared and never came to hold more than zeros.
    let damaged = disk.crash_process();
    damaged
        .write_file(&path, &[&bytes[..64], &[0; 4096][..]].concat())
        .unwrap();
    judge(&damaged, ReadMode::Map, &history, "only zeros");
}

/// B12: each byte of a record's header, the fixed ones and the optional ones.
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
                let told = match open_ignoring_hints(&copy, sealed && at % 2 == 0) {
                    Err(error) => Some(error),
                    Ok(store) => store.open_namespace("N").unwrap().get("the-key").map(drop).err(),
                };
                // Zeros at the end of a record are looked at when the whole segment is.
                if told.is_none() && sealed && at >= key + 30 {
                    continue;
                }
                is_corruption(
                    &told.unwrap_or_else(|| panic!("{context}: not noticed")),
                    &copy,
                    &context,
                );
            }
        }
    }
}

fn open_ignoring_hints(disk: &MemStorage, ignoring: bool) -> Result<Store> {
    if ignoring {
        for hint in ending(disk, ".hint") {
            disk.remove_file(hint).unwrap();
        }
    }
    try_open(disk, ReadMode::Map)
}

/// B11: lengths that promise gigabytes cost nothing, whatever the rest of the header says.
#[test]
fn lengths_that_lie_are_not_believed() {
    let (disk, expected) = closed();
    for path in ending(&disk, "") {
        let bytes = disk.read_file(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        for at in (0..bytes.len().saturating_sub(8)).step_by(4) {
            let copy = disk.crash_process();
            let mut damaged = bytes.clone();
            damaged[at..at + 4].copy_from_slice(&[0xff, 0xff, 0xff, 0x7f]);
            if damaged == bytes {
                continue;
            }
            copy.write_file(&path, &damaged).unwrap();
            if at == 8 && matches!(try_open(&copy, ReadMode::Map), Err(Error::NewerFormat { .. })) {
                continue;
            }
            let read_mode = if at % 8 == 0 { ReadMode::Map } else { ReadMode::Pread };
            judge(
                &copy,
                read_mode,
                std::slice::from_ref(&expected),
                &format!("{name} at {at}"),
            );
        }
    }
    // A manifest or hint longer than any can be is not even read.
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

/// B13.
#[test]
fn a_hint_of_another_segment_is_ignored_and_made_anew() {
    let (disk, expected) = closed();
    let hints = ending(&disk, ".hint");
    assert!(hints.len() >= 3);
    let bytes: Vec<_> = hints.iter().map(|path| disk.read_file(path).unwrap()).collect();
    for first in 0..hints.len() {
        for second in 0..first {
            let copy = disk.crash_process();
            copy.write_file(&hints[first], &bytes[second]).unwrap();
            copy.write_file(&hints[second], &bytes[first]).unwrap();
            let store = open(&copy);
            assert_eq!(content(&store).unwrap(), expected);
            let report = store.recovery_report();
            assert_eq!(report.hints_rebuilt, 2, "{report:?}");
            assert_eq!(report.hints_used, hints.len() as u64 - 2, "{report:?}");
            assert!(report.clean);
            for (path, bytes) in hints.iter().zip(&bytes) {
                assert_eq!(copy.read_file(path).unwrap(), *bytes, "as it was");
            }
        }
    }
}

#[test]
fn a_damaged_cut_or_missing_hint_is_made_anew_and_changes_nothing() {
    let (disk, expected) = closed();
    let hint = ending(&disk, ".hint").remove(0);
    let bytes = disk.read_file(&hint).unwrap();
    let check = |damaged: Option<Vec<u8>>, context: String| {
        let copy = disk.crash_process();
        match damaged {
            Some(damaged) => copy.write_file(&hint, &damaged).unwrap(),
            None => copy.remove_file(&hint).unwrap(),
        }
        let store = open(&copy);
        assert_eq!(content(&store).unwrap(), expected, "{context}");
        assert_eq!(store.recovery_report().hints_rebuilt, 1, "{context}");
        drop(store);
        let store = open(&copy);
        assert_eq!(store.recovery_report().hints_rebuilt, 0, "{context}");
        assert_eq!(copy.read_file(&hint).unwrap(), bytes, "{context}");
    };
    check(None, "missing".to_owned());
    check(Some(Vec::new()), "empty".to_owned());
    check(Some([&bytes[..], &[0; 8]].concat()), "longer".to_owned());
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        check(Some(damaged), format!("byte {at}"));
        check(Some(bytes[..at].to_vec()), format!("cut at {at}"));
    }
}

/// Found by the fuzz target `hint_load`: opening took a wrong hint of a sound segment for damage of the segment.
#[test]
fn a_hint_whose_own_checksum_fits_but_whose_offsets_lead_nowhere_is_made_anew() {
    let (disk, expected) = closed();
    for hint in ending(&disk, ".hint") {
        let bytes = disk.read_file(&hint).unwrap();
        for entry in (60..bytes.len() - 4).step_by(3) {
            let copy = disk.crash_process();
            let mut wrong = bytes.clone();
            wrong[entry] ^= 1;
            let content = wrong.len() - 4;
            let crc = crc32fast::hash(&wrong[..content]);
            wrong[content..].copy_from_slice(&crc.to_le_bytes());
            copy.write_file(&hint, &wrong).unwrap();
            let context = format!("{}, entry at {entry}", hint.display());
            let store = try_open(&copy, ReadMode::Map).unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(self::content(&store).unwrap(), expected, "{context}");
            assert_eq!(store.recovery_report().hints_rebuilt, 1, "{context}");
            assert_eq!(copy.read_file(&hint).unwrap(), bytes, "{context}");
        }
    }
}

/// Invariant 1: hints are derived.
#[test]
fn without_any_hint_nothing_is_lost() {
    for (disk, expected) in [closed(), {
        let (disk, history) = killed();
        (disk, history.last().unwrap().clone())
    }] {
        for hint in ending(&disk, ".hint") {
            disk.remove_file(hint).unwrap();
        }
        let store = open(&disk);
        assert_eq!(content(&store).unwrap(), expected);
        assert_eq!(store.recovery_report().hints_used, 0);
    }
}

/// B12 and B13: what a hint lists is compared with the segment, which the checksum of the hint alone cannot do.
#[test]
fn segments_of_different_stores_cannot_be_mixed() {
    let ((disk, expected), (other, _)) = (closed(), closed());
    let names: Vec<_> = ending(&disk, ".segment");
    assert_eq!(names, ending(&other, ".segment"), "the same history");
    for path in ending(&disk, "") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let copy = disk.crash_process();
        copy.write_file(&path, &other.read_file(&path).unwrap()).unwrap();
        let found = judge(&copy, ReadMode::Map, std::slice::from_ref(&expected), &name);
        let unimportant = name.ends_with(".hint") || name == "LOCK" || name == "RESERVE";
        assert_eq!(found.is_some(), unimportant, "{name}");
    }
}

/// B17. A million keys would take too long without optimisation.
#[test]
fn fifty_thousand_cold_keys_leave_memory_without_being_asked_for() {
    let disk = MemStorage::new();
    let clock = ManualClock::new(2_000_000_000_000);
    let options = || {
        manual(Arc::new(disk.clone()))
            .clock(clock.clone())
            .segment_bytes(1 << 20)
    };
    let store = options().open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    let cold = class(Durability::Buffered).ttl(Duration::from_secs(60));
    for n in 0..50_000 {
        namespace.put_with(format!("cold {n:06}"), "1", cold.clone()).unwrap();
    }
    store.maintain().unwrap();
    drop((store, namespace));
    // Also those that this process did not put itself.
    let store = options().open(DIRECTORY).unwrap();
    let full = store.stats();
    assert_eq!(full.keys, 50_000);
    clock.advance(60_000);
    store.maintain().unwrap();
    let swept = store.stats();
    assert_eq!((swept.keys, swept.expired, swept.expired_not_swept), (0, 50_000, 0));
    assert!(
        swept.key_order_bytes < full.key_order_bytes / 10,
        "{} of {}",
        swept.key_order_bytes,
        full.key_order_bytes
    );
    clock.advance(10_000);
    store.compact_if_worthwhile().unwrap();
    assert!(
        store.stats().segment_bytes < full.segment_bytes / 10,
        "{:?}",
        store.stats().segment_bytes
    );
}

/// B19, and the arithmetic around it at the far end of time.
#[test]
fn expiries_near_the_end_of_time_survive_everything() {
    let disk = MemStorage::new();
    let clock = ManualClock::new(u64::MAX - 100_000);
    let options = || manual(Arc::new(disk.clone())).clock(clock.clone());
    let store = options().open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    let ttl = |ms| PutOptions::new().ttl(Duration::from_millis(ms));
    namespace.put_with("last", "1", ttl(100_000)).unwrap();
    namespace.put_with("first", "1", ttl(1)).unwrap();
    assert_eq!(
        namespace.put_with("beyond", "1", ttl(100_001)).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    clock.advance(99_999);
    store.maintain().unwrap();
    store.compact().unwrap();
    assert_eq!(keys(&namespace), ["last"]);
    drop((store, namespace));
    let store = options().open(DIRECTORY).unwrap();
    assert_eq!(keys(&store.open_namespace("N").unwrap()), ["last"]);
    clock.advance(1);
    assert_eq!(
        keys(&store.open_namespace("N").unwrap()),
        [""; 0],
        "equality is expiry, even here"
    );
}

/// B22: the name of each file is as durable as its content, from the first write on.
#[test]
fn names_of_files_are_durable_when_what_is_in_them_is() {
    let disk = MemStorage::new();
    let store = manual(Arc::new(disk.clone())).open("/new/deep/store").unwrap();
    let check = |written: usize| {
        let cut = disk.power_cut(&CutPolicy::LoseUnsynced);
        let store = manual(Arc::new(cut)).open("/new/deep/store").unwrap();
        assert!(!store.recovery_report().created);
        assert_eq!(store.open_namespace("N").unwrap().count().unwrap(), written as u64);
    };
    let namespace = store.namespace("N").unwrap();
    check(0);
    for n in 0..40 {
        namespace.put(format!("{n}"), [7; 500]).unwrap();
        check(n + 1);
        if n % 10 == 9 {
            namespace.put(format!("{n}"), [8; 500]).unwrap();
            store.compact().unwrap();
            check(n + 1);
        }
    }
}

/// B28.
#[test]
fn a_value_stays_what_it_was_whatever_becomes_of_its_key() {
    for read_mode in [ReadMode::Map, ReadMode::Pread] {
        let disk = MemStorage::new();
        let store = manual(Arc::new(disk.clone()))
            .read_mode(read_mode)
            .open(DIRECTORY)
            .unwrap();
        let namespace = store.namespace("N").unwrap();
        let mut held = Vec::new();
        for n in 0..60u8 {
            let key = format!("{}", n % 3);
            namespace
                .put_with(&key, [n; 400], PutOptions::new().metadata([n; 10]))
                .unwrap();
            held.push((n, namespace.get(&key).unwrap().unwrap()));
            let listed = namespace.list().with_values().page().unwrap();
            held.push((
                n,
                listed
                    .iter()
                    .find(|entry| entry.key_str().unwrap() == key)
                    .unwrap()
                    .value()
                    .unwrap()
                    .clone(),
            ));
            if n % 16 == 15 {
                store.compact().unwrap();
            }
        }
        let check = |when: &str| {
            for (n, value) in &held {
                assert_eq!(value.as_bytes(), [*n; 400], "{when}");
                assert_eq!(value.metadata(), Some(&[*n; 10][..]), "{when}");
            }
        };
        check("overwritten and compacted");
        store.drop_namespace("N").unwrap();
        store.compact().unwrap();
        check("dropped");
        store.clone().close().unwrap();
        check("closed");
        drop((store, namespace));
        for path in ending(&disk, "") {
            disk.remove_file(path).unwrap();
        }
        check("removed");
    }
}

/// B29.
#[test]
fn a_walk_that_met_damage_goes_on_reporting_it_and_leaves_out_nothing_in_silence() {
    let disk = MemStorage::new();
    let store = manual(Arc::new(disk.clone()))
        .read_mode(ReadMode::Pread)
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    for n in 0..30 {
        namespace
            .put(format!("{n:02}"), format!("value {n:02}").repeat(20))
            .unwrap();
    }
    store.compact().unwrap();
    store.maintain().unwrap();
    let damaged = ending(&disk, ".segment").into_iter().find_map(|path| {
        let bytes = disk.read_file(&path).unwrap();
        let at = bytes.windows(8).position(|window| window == b"value 17")?;
        Some((path, at as u64 * 8))
    });
    let (path, bit) = damaged.unwrap();
    flip_in_place(&disk, &path, bit);
    for (list, before) in [
        (namespace.list(), 17),
        (namespace.list().reverse(), 12),
        (namespace.list().prefix("1"), 7),
    ] {
        for limit in [1, 5, 1_000] {
            let mut walk = list.clone().with_values().limit(limit).into_iter();
            let mut seen = 0;
            let error = loop {
                match walk.next().expect("an error before the end") {
                    Ok(_) => seen += 1,
                    Err(error) => break error,
                }
            };
            // A page that cannot be had whole is not had at all.
            assert!(
                seen <= before && seen + limit > before,
                "{seen} seen of {before}, limit {limit}"
            );
            is_corruption(&error, &disk, "walk");
            for _ in 0..5 {
                assert_eq!(walk.next().unwrap().unwrap_err().to_string(), error.to_string());
            }
        }
    }
    // Keys alone are not affected, nor are other keys.
    assert_eq!(namespace.list().into_iter().map(Result::unwrap).count(), 30);
    assert_eq!(namespace.count().unwrap(), 30);
    assert_eq!(namespace.get("17").unwrap_err().kind(), ErrorKind::Corruption);
    assert!(namespace.get("16").unwrap().is_some() && namespace.get("18").unwrap().is_some());
    assert_eq!(
        namespace.get_many(&["16", "17"]).unwrap_err().kind(),
        ErrorKind::Corruption
    );
    // What is damaged is not copied.
    namespace.delete("16").unwrap();
    assert_eq!(store.compact().unwrap_err().kind(), ErrorKind::Corruption);
    assert_eq!(namespace.get("17").unwrap_err().kind(), ErrorKind::Corruption);
    assert_eq!(keys(&namespace).len(), 29);
}

/// As a failing disk would: those who have the file open see it.
fn flip_in_place(disk: &MemStorage, path: &std::path::Path, bit: u64) {
    let file: Arc<dyn StorageFile> = disk.open(path, true).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, bit / 8).unwrap();
    file.write_at(&[byte[0] ^ 1 << (bit % 8)], bit / 8).unwrap();
}

/// B32.
#[test]
fn an_empty_value_is_a_value() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    namespace.put("empty", "").unwrap();
    namespace
        .put_with("with metadata", "", PutOptions::new().metadata("m"))
        .unwrap();
    namespace
        .put_with("empty metadata", "", PutOptions::new().metadata(""))
        .unwrap();
    namespace.put("bitcask_tombstone", "bitcask_tombstone").unwrap();
    namespace.put("zeros", [0; 64]).unwrap();
    namespace.put("overwritten", "1").unwrap();
    namespace.put("overwritten", "").unwrap();
    let check = |store: &Store| {
        let namespace = store.open_namespace("N").unwrap();
        let expected = [
            "bitcask_tombstone",
            "empty",
            "empty metadata",
            "overwritten",
            "with metadata",
            "zeros",
        ];
        assert_eq!(keys(&namespace), expected);
        assert_eq!(text(&namespace, "empty").as_deref(), Some(""));
        assert_eq!(text(&namespace, "overwritten").as_deref(), Some(""));
        assert_eq!(namespace.get("empty").unwrap().unwrap().metadata(), None);
        assert_eq!(
            namespace.get("empty metadata").unwrap().unwrap().metadata(),
            Some(&b""[..])
        );
        assert_eq!(
            namespace.get("with metadata").unwrap().unwrap().metadata(),
            Some(&b"m"[..])
        );
        assert_eq!(namespace.get("zeros").unwrap().unwrap(), [0; 64]);
        assert!(namespace.contains("empty").unwrap());
    };
    check(&store);
    check(&open(&disk.crash_process()));
    store.compact().unwrap();
    check(&store);
    store.close().unwrap();
    check(&open(&disk));
}

/// B35, against a filter over all keys.
#[test]
fn prefixes_and_ranges_find_what_a_filter_finds() {
    let mut rng = rng();
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    let alphabet = [0x00, 0x01, b'a', b'b', 0x7f, 0x80, 0xfe, 0xff];
    let random_key = |rng: &mut Rng, longest: u64| -> Vec<u8> {
        (0..rng.below(longest + 1))
            .map(|_| alphabet[rng.below(8) as usize])
            .collect()
    };
    let mut all = BTreeSet::new();
    for n in 0..400 {
        let key = random_key(&mut rng, 4);
        if !key.is_empty() {
            namespace.put_with(&key, "1", class(Durability::Buffered)).unwrap();
            all.insert(key);
        }
        if n == 200 {
            store.maintain().unwrap();
        }
    }
    let special: [&[u8]; 7] = [
        b"",
        b"\xff",
        b"\xff\xff",
        b"\xff\xff\xff\xff\xff",
        b"a\xff",
        b"\0",
        b"a\xff\xff",
    ];
    for n in 0..600 {
        let pick = |rng: &mut Rng| match rng.below(3) {
            0 => special[rng.below(7) as usize].to_vec(),
            _ => random_key(rng, 3),
        };
        let (prefix, start, end) = (pick(&mut rng), pick(&mut rng), pick(&mut rng));
        let (by_start, by_end, reverse, with_values) =
            (rng.below(4), rng.below(3) == 0, rng.below(2) == 0, rng.below(2) == 0);
        let mut list = namespace.list().prefix(&prefix).limit(1 + rng.below(9) as usize);
        match by_start {
            0 => list = list.start(&start),
            1 => list = list.start_after(&start),
            _ => {}
        }
        if by_end {
            list = list.end(&end);
        }
        if reverse {
            list = list.reverse();
        }
        if with_values {
            list = list.with_values();
        }
        let holds = |key: &Vec<u8>| {
            let begins = match by_start {
                0 => *key >= start,
                1 => *key > start,
                _ => true,
            };
            key.starts_with(&prefix) && begins && (!by_end || *key < end)
        };
        let mut expected: Vec<_> = all.iter().filter(|key| holds(key)).cloned().collect();
        if reverse {
            expected.reverse();
        }
        let context = format!("{n}: prefix {prefix:x?}, start {by_start} {start:x?}, end {by_end} {end:x?}, {reverse}");
        assert_eq!(list.count().unwrap(), expected.len() as u64, "{context}");
        let found: Vec<_> = list.into_iter().map(|entry| entry.unwrap().key().to_vec()).collect();
        assert_eq!(found, expected, "{context}");
    }
}

/// The name of the test below, which a child process runs, too.
const WRITING: &str = "a_process_that_is_killed_again_and_again_loses_nothing_acknowledged";
const WRITTEN_DIRECTORY: &str = "EMBERCASK_TEST_WRITTEN_DIRECTORY";

/// What a child process does until it is killed: says what it has acknowledged, right after that.
fn write_until_killed(directory: &std::ffi::OsStr) {
    let store = Store::options().segment_bytes(16 << 10).open(directory).unwrap();
    let namespace = store.namespace("N").unwrap();
    let first = text(&namespace, "newest").map_or(0, |newest| newest.parse::<u64>().unwrap() + 1);
    for n in first..first + 1_000_000 {
        let durability = if n % 8 == 0 { Durability::Sync } else { Durability::Os };
        let batch = store.batch().put(&namespace, "newest", n.to_string());
        let batch = batch.put(&namespace, format!("{:02}", n % 50), n.to_string().repeat(60));
        batch.durability(durability).commit().unwrap();
        println!("ACK {n}");
    }
}

/// B26, and promise 3 with real files: ten rounds, each killed after other numbers of writes.
#[test]
fn a_process_that_is_killed_again_and_again_loses_nothing_acknowledged() {
    if let Some(directory) = std::env::var_os(WRITTEN_DIRECTORY) {
        write_until_killed(&directory);
        return;
    }
    let mut rng = rng();
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..10 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", WRITING, "--nocapture"])
            .env(WRITTEN_DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        // The first may share its line with the name of the test.
        let mut acks = lines.filter_map(|line| line.rsplit_once("ACK ")?.1.trim().parse::<u64>().ok());
        for _ in 0..1 + rng.below(150) {
            acknowledged = acks.next().expect("the child ended by itself");
        }
        child.kill().unwrap();
        acknowledged = acks.last().unwrap_or(acknowledged);
        child.wait().unwrap();
        let store = Store::options().open(directory.path()).unwrap();
        let namespace = store.open_namespace("N").unwrap();
        let newest: u64 = text(&namespace, "newest").unwrap().parse().unwrap();
        // One more may have been under way; that it is there is not known to anybody.
        assert!(
            (acknowledged..=acknowledged + 1).contains(&newest),
            "round {round}: {newest}, {acknowledged} acknowledged"
        );
        for n in newest.saturating_sub(49)..=newest {
            assert_eq!(
                text(&namespace, &format!("{:02}", n % 50)),
                Some(n.to_string().repeat(60)),
                "round {round}: {n}"
            );
        }
        // Killed while open, or closed: either way for the next one.
        if round % 2 == 0 {
            store.close().unwrap();
        }
    }
}

#[test]
fn damage_before_a_seal_that_no_manifest_knows_is_no_torn_tail() {
    let disk = MemStorage::new();
    let faults = embercask::storage::FaultStorage::new(Arc::new(disk.clone()));
    let options = || {
        Store::options()
            .maintenance(embercask::Maintenance::Manual)
            .durability(embercask::Durability::Os)
    };
    let store = options().storage(Arc::new(faults.clone())).open("/store").unwrap();
    let namespace = store.namespace("N").unwrap();
    for key in ["a", "b", "c"] {
        namespace.put(key, [key.as_bytes()[0]; 64]).unwrap();
    }
    drop(namespace);
    // Synced and sealed, but the manifest that says so never comes to stand.
    let failing = embercask::storage::FaultKind::Error(std::io::ErrorKind::Other);
    faults.inject(embercask::storage::Fault::new(failing).on(embercask::storage::Operation::Rename));
    store.close().unwrap_err();
    let killed = disk.crash_process();
    let path = "/store/0000000000000001.segment";
    let bytes = killed.read_file(path).unwrap();
    let value = bytes.windows(64).position(|window| window == [b'b'; 64]).unwrap();
    killed.flip_bit(path, value as u64 * 8).unwrap();
    let error = options().storage(Arc::new(killed)).open("/store").unwrap_err();
    assert_eq!(error.kind(), embercask::ErrorKind::Corruption);
}
