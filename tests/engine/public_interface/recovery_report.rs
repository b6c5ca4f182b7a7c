//! Each number in the recovery report, with and without something to report.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use embercask::storage::MemStorage;
use embercask::{ManualClock, RecoveryReport, Store};

use test_support::way::Way;
use test_support::{DIRECTORY, ending, manual, open, written};

const KEYS: u64 = 30;

/// A closed store, and its number of segments.
fn closed() -> (MemStorage, u64) {
    let disk = MemStorage::new();
    let store = open(&disk);
    let (namespace, other) = (store.namespace("N").unwrap(), store.namespace("other").unwrap());
    for n in 0..KEYS {
        namespace.put(format!("{n}"), [7; 500]).unwrap();
    }
    other.put("to be deleted", "1").unwrap();
    other.delete("to be deleted").unwrap();
    drop((namespace, other));
    store.close().unwrap();
    let segments = ending(&disk, ".segment").len() as u64;
    assert!(segments > 3);
    (disk, segments)
}

/// The report of an opening, with a clock that does not move.
fn reported(disk: &MemStorage) -> (Store, RecoveryReport) {
    let options = manual(Arc::new(disk.clone())).clock(ManualClock::new(2_000_000_000_000));
    let store = options.open(DIRECTORY).unwrap();
    let report = store.recovery_report().clone();
    (store, report)
}

/// The report for a store with this many segments and all keys that was closed.
fn clean(segments: u64) -> RecoveryReport {
    let mut report = RecoveryReport::default();
    (report.clean, report.segments, report.keys) = (true, segments, KEYS);
    report
}

#[test]
fn a_new_store_reports_that_it_was_created_and_nothing_else() {
    let (_, report) = reported(&MemStorage::new());
    let mut expected = RecoveryReport::default();
    (expected.created, expected.clean) = (true, true);
    assert_eq!(report, expected);
}

#[test]
fn a_closed_store_reports_which_way_it_was_opened_and_what_was_made_anew() {
    let (disk, segments) = closed();
    let mut by_index = clean(segments);
    by_index.index_file_used = true;
    assert_eq!(reported(&disk.crash_process()).1, by_index);

    // Hints that opening did not need are checked as well.
    let without_hints = disk.crash_process();
    for hint in ending(&without_hints, ".hint").into_iter().skip(1) {
        without_hints.remove_file(hint).unwrap();
    }
    by_index.hints_rebuilt = segments - 1;
    assert_eq!(reported(&without_hints).1, by_index);

    let by_hints = disk.crash_process();
    Way::Hints.prepare(&by_hints, DIRECTORY);
    let mut expected = clean(segments);
    expected.hints_used = segments;
    assert_eq!(reported(&by_hints).1, expected);

    let mixed = disk.crash_process();
    Way::Mixed(0b10).prepare(&mixed, DIRECTORY);
    (expected.hints_used, expected.hints_rebuilt) = (segments - 1, 1);
    assert_eq!(reported(&mixed).1, expected);

    let by_records = disk.crash_process();
    Way::Records.prepare(&by_records, DIRECTORY);
    (expected.hints_used, expected.hints_rebuilt) = (0, segments);
    assert_eq!(reported(&by_records).1, expected);
    assert_eq!(ending(&by_records, ".hint").len() as u64, segments);
}

#[test]
fn a_killed_store_reports_what_it_found_unsealed_and_wrote_again() {
    let (disk, segments) = closed();
    let store = open(&disk);
    let namespace = store.open_namespace("N").unwrap();
    namespace.put("0", "again").unwrap();
    namespace.put("1", "again").unwrap();
    let crashed = disk.crash_process();
    let (killed, report) = reported(&crashed);
    assert!(!report.clean && !report.created && !report.index_file_used);
    assert_eq!((report.keys, report.hints_used), (KEYS, segments));
    assert_eq!(
        (report.unsealed_segments, report.discarded_bytes, report.removed_files),
        (1, 0, 0)
    );
    let stats = killed.stats();
    assert_eq!(report.segments, stats.segments.len() as u64);
    let rewritten = stats
        .segments
        .iter()
        .filter(|segment| segment.rewritten && segment.id > segments);
    let rewritten: u64 = rewritten
        .map(|segment| segment.live_bytes + segment.dead_bytes + segment.tombstone_bytes)
        .sum();
    assert!(rewritten > 0, "{stats:?}");
    assert_eq!(report.rewritten_bytes, rewritten);
    // After closing and reopening there is nothing left to report.
    let mut expected = clean(report.segments);
    expected.index_file_used = true;
    killed.close().unwrap();
    assert_eq!(reported(&crashed).1, expected);
}

#[test]
fn what_follows_the_end_of_the_log_is_reported_to_the_byte() {
    let (disk, _) = closed();
    let store = open(&disk);
    let namespace = store.open_namespace("N").unwrap();
    namespace.put("0", "again").unwrap();
    for length in [1, 100, 1000] {
        let killed = disk.crash_process();
        let active = ending(&killed, ".segment").pop().unwrap();
        let mut bytes = written(&killed, &active);
        bytes.extend(vec![0xab; length]);
        killed.write_file(&active, &bytes).unwrap();
        let (_, report) = reported(&killed);
        assert_eq!((report.discarded_bytes, report.unsealed_segments), (length as u64, 1));
    }
}

#[test]
fn left_over_files_are_counted_when_they_are_removed() {
    let (disk, segments) = closed();
    for name in [
        "00000000000fffff.segment",
        "00000000000fffff.hint",
        "00000000000ffffe.hint",
        "a file of somebody else",
    ] {
        disk.write_file(format!("{DIRECTORY}/{name}"), b"left over").unwrap();
    }
    let mut expected = clean(segments);
    (expected.index_file_used, expected.removed_files) = (true, 3);
    assert_eq!(reported(&disk).1, expected);
    assert!(disk.read_file(format!("{DIRECTORY}/a file of somebody else")).is_ok());
}

#[test]
fn the_time_that_opening_took_goes_by_the_clock_of_the_store() {
    let (disk, segments) = closed();
    Way::Hints.prepare(&disk, DIRECTORY);
    let clock = ManualClock::new(2_000_000_000_000);
    let (passing, passed) = (clock.clone(), AtomicBool::new(false));
    let options = manual(Arc::new(disk))
        .clock(clock)
        .on_recovery_progress(move |progress| {
            assert!(
                progress.done_bytes <= progress.total_bytes && progress.total_bytes > 0,
                "{progress:?}"
            );
            if !passed.swap(true, Ordering::SeqCst) {
                passing.advance(1234);
            }
        });
    let store = options.open(DIRECTORY).unwrap();
    let mut expected = clean(segments);
    (expected.hints_used, expected.duration) = (segments, Duration::from_millis(1234));
    assert_eq!(*store.recovery_report(), expected);
}
