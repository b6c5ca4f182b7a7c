//! The numbers in reports and statistics: each in a case where it is not zero, and most in one
//! where it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{
    CheckpointReport, CompactionReport, FileKind, ManualClock, Options, PartKind, PartValue, PutOptions, SalvageReport,
    Store, VerifyReport, inspect, salvage, salvage_with, verify, verify_with,
};

use crate::public_interface::{buffered, fill};
use test_support::{DIRECTORY, ending, manual};

const NOW_MS: u64 = 2_000_000_000_000;

fn options(disk: &MemStorage, clock: &ManualClock) -> Options {
    manual(Arc::new(disk.clone())).clock(clock.clone())
}

/// A store with two namespaces, all kinds of keys and some dead records.
fn filled(disk: &MemStorage, clock: &ManualClock) -> Store {
    let store = options(disk, clock).open(DIRECTORY).unwrap();
    let (namespace, _other) = (store.namespace("N").unwrap(), store.namespace("other").unwrap());
    for n in 0..10 {
        namespace.put(format!("{n}"), [7; 500]).unwrap();
    }
    namespace.put("0", "again").unwrap();
    namespace.delete("1").unwrap();
    let short = PutOptions::new().metadata("m").ttl(Duration::from_secs(1));
    namespace.put_with("short", "value", short).unwrap();
    store
}

fn segment_bytes(disk: &MemStorage, directory: &str) -> u64 {
    let paths = disk.files(directory).into_iter();
    let segments = paths.filter(|path| path.extension().is_some_and(|end| end == "segment"));
    segments.map(|path| disk.read_file(path).unwrap().len() as u64).sum()
}

#[test]
fn statistics_count_what_is_there() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(NOW_MS));
    let store = options(&disk, &clock).open(DIRECTORY).unwrap();
    let empty = store.stats();
    assert_eq!(
        (empty.keys, empty.namespaces, empty.last_sequence, empty.segments.len()),
        (0, 0, 0, 0)
    );
    assert_eq!(
        (
            empty.live_bytes,
            empty.dead_bytes,
            empty.tombstone_bytes,
            empty.segment_bytes
        ),
        (0, 0, 0, 0)
    );
    assert_eq!(
        (empty.poisoned, empty.background_error, empty.disk_full),
        (None, None, false)
    );
    assert_eq!(
        (empty.write_outs, empty.written_bytes, empty.syncs, empty.expired),
        (0, 0, 0, 0)
    );
    drop(store);
    let disk = MemStorage::new();
    let store = filled(&disk, &clock);
    let namespace = store.open_namespace("N").unwrap();
    let stats = store.stats();
    assert_eq!((stats.keys, stats.namespaces), (10, 2));
    assert_eq!(stats.last_sequence, stats.durable_sequence);
    // 13 records of keys and 2 of namespaces, plus the log's own.
    assert!(stats.last_sequence >= 15);
    assert!(stats.write_outs >= 15 && stats.syncs >= 15, "{stats:?}");
    assert!(
        stats.written_bytes > 5000 && stats.written_bytes <= disk.used(),
        "{stats:?}"
    );
    assert!(
        stats.live_bytes > 8 * 500 && stats.dead_bytes > 2 * 500 && stats.dead_bytes < 3 * 600,
        "{stats:?}"
    );
    assert!(stats.tombstone_bytes > 0 && stats.tombstone_bytes < 100, "{stats:?}");
    let sums = [
        stats.live_bytes,
        stats.dead_bytes,
        stats.tombstone_bytes,
        stats.expired_bytes,
        stats.segment_bytes,
    ];
    let of_segments = |number: fn(&embercask::SegmentStats) -> u64| stats.segments.iter().map(number).sum::<u64>();
    assert_eq!(
        sums,
        [
            of_segments(|segment| segment.live_bytes),
            of_segments(|segment| segment.dead_bytes),
            of_segments(|segment| segment.tombstone_bytes),
            of_segments(|segment| segment.expired_bytes),
            of_segments(|segment| segment.bytes),
        ]
    );
    // Each namespace has a record too.
    assert_eq!(of_segments(|segment| segment.live_records), 10 + 2);
    let [first, second] = &stats.segments[..] else {
        panic!("{stats:?}")
    };
    assert!(first.sealed && !second.sealed && first.id < second.id, "{stats:?}");
    assert_eq!((first.created_ms, first.rewritten), (NOW_MS, false));
    assert!(
        stats.keydir_bytes >= 12 * 8 && stats.key_order_bytes > 0 && stats.expiry_queue_bytes > 0,
        "{stats:?}"
    );
    assert!(stats.buffer_bytes >= second.bytes, "{stats:?}");
    assert_eq!(
        (
            stats.pending_bytes,
            stats.expired_not_swept,
            stats.expired,
            stats.expired_bytes
        ),
        (0, 0, 0, 0)
    );
    assert_eq!(stats.compaction, CompactionReport::default());

    namespace.put_with("pending", [7; 300], buffered()).unwrap();
    assert!(store.stats().pending_bytes > 300);
    assert!(store.stats().last_sequence > store.stats().durable_sequence);
    clock.advance(1000);
    assert_eq!((store.stats().expired_not_swept, store.stats().expired), (1, 0));
    store.maintain().unwrap();
    let swept = store.stats();
    assert_eq!((swept.expired_not_swept, swept.expired, swept.pending_bytes), (0, 1, 0));
    assert!(swept.expired_bytes > 0 && swept.expired_bytes < 100, "{swept:?}");
    clock.advance(10_000);
    let report = store.compact().unwrap();
    let compacted = store.stats();
    assert_eq!(compacted.compaction, report);
    assert!(report.runs > 0);
    assert_eq!(report.reclaimed_bytes, report.read_bytes - report.written_bytes);
    assert!(report.reclaimed_bytes > 2 * 500, "{report:?}");
    assert_eq!(
        (compacted.dead_bytes, compacted.tombstone_bytes, compacted.expired_bytes),
        (0, 0, 0)
    );
    assert!(
        compacted.segments.iter().any(|segment| segment.rewritten),
        "{compacted:?}"
    );
}

#[test]
fn a_failure_that_no_call_waited_for_is_in_the_statistics() {
    let faults = FaultStorage::new(Arc::new(MemStorage::new()));
    let store = manual(Arc::new(faults.clone())).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    fill(&namespace, 3, 3, 1000);
    assert_eq!(store.stats().background_error, None);
    // A missing hint does no harm, so no put fails because of it.
    faults.inject(
        Fault::new(FaultKind::Error(std::io::ErrorKind::Other))
            .on(Operation::Create)
            .path(".hint"),
    );
    fill(&namespace, 5, 5, 1000);
    store.maintain().unwrap();
    assert_eq!(faults.struck(), 1);
    let told = store.stats().background_error.unwrap();
    assert!(told.contains(".hint") && told.contains("injected"), "{told}");
    assert_eq!(store.stats().poisoned, None);
}

#[test]
fn a_checkpoint_reports_what_it_made() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(NOW_MS));
    let store = filled(&disk, &clock);
    let sequence = store.stats().last_sequence;
    let passing = clock.clone();
    let mut calls = 0;
    let made = store.checkpoint_with("/copy", |progress| {
        assert!(progress.done_bytes <= progress.total_bytes);
        passing.advance(10);
        calls += 1;
        true
    });
    let report: CheckpointReport = made.unwrap();
    assert_eq!(
        (report.segments, report.last_sequence),
        (ending(&disk, ".segment").len() as u64, sequence)
    );
    assert_eq!(
        (report.linked, report.copied),
        (2 * report.segments, 0),
        "not every segment has a hint"
    );
    assert_eq!(report.duration, Duration::from_millis(10 * calls));
    assert!(
        report.bytes > 5000 && report.bytes <= segment_bytes(&disk, "/copy"),
        "{report:?}"
    );
    let copy = options(&disk, &clock).create(false).open("/copy").unwrap();
    assert_eq!(copy.open_namespace("N").unwrap().count().unwrap(), 10);
    // Files cannot be linked to another file system.
    let root = tempfile::tempdir().unwrap();
    let store = options(&disk.crash_process(), &clock).open(DIRECTORY).unwrap();
    assert_eq!(store.checkpoint("/again").unwrap().linked, report.linked);
    drop(root);
}

#[test]
fn verifying_reports_what_it_read() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(NOW_MS));
    let store = filled(&disk, &clock);
    let passing = clock.clone();
    let looked = store.verify_with(|_| {
        passing.advance(1);
        true
    });
    let report: VerifyReport = looked.unwrap();
    assert!(report.duration > Duration::ZERO);
    // 13 of keys and 2 of namespaces; the index keys include those of namespaces.
    assert_eq!((report.segments, report.records, report.hints), (2, 15, 1));
    assert_eq!(report.keys, 12, "{report:?}");
    assert!(report.is_sound() && report.discarded.is_empty());
    assert_eq!(store.verify().unwrap().bytes, report.bytes);
    store.close().unwrap();
    let closed = verify(DIRECTORY, &options(&disk, &clock)).unwrap();
    assert_eq!(
        (closed.segments, closed.records, closed.hints, closed.keys),
        (2, 15, 2, 0)
    );
    assert!(
        closed.bytes > 5000 && closed.bytes <= segment_bytes(&disk, DIRECTORY),
        "{closed:?}"
    );
    let segment = ending(&disk, ".segment").remove(0);
    let length = disk.read_file(&segment).unwrap().len() as u64;
    disk.flip_bit(&segment, length / 2 * 8).unwrap();
    let mut calls = 0;
    let damaged = verify_with(DIRECTORY, &options(&disk, &clock), |_| {
        calls += 1;
        true
    });
    let damaged = damaged.unwrap();
    assert!(calls > 0 && !damaged.is_sound());
    let [damage] = &damaged.damaged[..] else {
        panic!("{damaged:?}")
    };
    assert_eq!((&damage.path, damage.segment), (&segment, Some(1)));
    assert!(
        (damage.offset..damage.offset + damage.length).contains(&(length / 2)),
        "{damage:?}"
    );
    assert!(damage.length > 500 && damage.cause.contains("checksum"), "{damage:?}");
    assert!(damaged.records < 15);
    // Files that opening rebuilds do not count as damage.
    disk.flip_bit(&segment, length / 2 * 8).unwrap();
    let hint = ending(&disk, ".hint").remove(0);
    disk.flip_bit(&hint, 100).unwrap();
    let report = verify(DIRECTORY, &options(&disk, &clock)).unwrap();
    assert!(report.is_sound());
    assert_eq!(
        report.discarded.iter().map(|damaged| &damaged.path).collect::<Vec<_>>(),
        [&hint]
    );
}

#[test]
fn salvage_reports_what_came_out_and_what_was_lost() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(NOW_MS));
    filled(&disk, &clock).close().unwrap();
    clock.advance(1000);
    let passing = clock.clone();
    let saved = salvage_with(DIRECTORY, "/whole", options(&disk, &clock), |_| {
        passing.advance(1);
        true
    });
    let report: SalvageReport = saved.unwrap();
    assert!(report.manifest && report.is_complete() && report.duration > Duration::ZERO);
    assert_eq!((report.namespaces, report.keys, report.expired), (2, 9, 1));
    assert_eq!(report.bytes, 8 * 501 + "0".len() as u64 + "again".len() as u64);
    assert!(report.recovered_namespaces.is_empty() && report.lost.is_empty());
    let paths: Vec<&PathBuf> = report.segments.iter().map(|segment| &segment.path).collect();
    assert_eq!(paths, ending(&disk, ".segment").iter().collect::<Vec<_>>());
    assert_eq!(
        report.segments.iter().map(|segment| segment.id).collect::<Vec<_>>(),
        [1, 2]
    );
    assert_eq!(report.segments.iter().map(|segment| segment.records).sum::<u64>(), 15);
    assert!(
        report
            .segments
            .iter()
            .all(|segment| segment.torn_records == 0 && segment.lost.is_empty())
    );
    // Damage in the second segment and in the manifest.
    let manifest = Path::new(DIRECTORY).join("MANIFEST");
    disk.flip_bit(&manifest, 100).unwrap();
    let segment = ending(&disk, ".segment").remove(1);
    let length = disk.read_file(&segment).unwrap().len() as u64;
    disk.flip_bit(&segment, length / 4 * 8).unwrap();
    let report = salvage(DIRECTORY, "/rest", options(&disk, &clock)).unwrap();
    assert!(!report.manifest && !report.is_complete());
    assert_eq!(
        report.lost.iter().map(|lost| &lost.path).collect::<Vec<_>>(),
        [&manifest]
    );
    assert!(
        report.segments[0].lost.is_empty() && report.segments[1].lost.len() == 1,
        "{report:?}"
    );
    assert_eq!(report.all_lost().count(), 2);
    let rest = options(&disk, &clock).create(false).open("/rest").unwrap();
    let found: u64 = rest
        .namespaces()
        .unwrap()
        .iter()
        .map(|info| rest.open_namespace(&info.name).unwrap().count().unwrap())
        .sum();
    assert_eq!(report.keys, found);
}

#[test]
fn inspecting_shows_each_kind_of_file_part_and_value() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(NOW_MS));
    let store = filled(&disk, &clock);
    let namespace = store.open_namespace("N").unwrap();
    store
        .batch()
        .put(&namespace, "in a batch", "1")
        .put(&namespace, "beside it", "2")
        .commit()
        .unwrap();
    store.close().unwrap();
    let mut parts = Vec::new();
    let mut values = std::collections::BTreeSet::new();
    let mut look = |path: &Path| {
        let bytes = disk.read_file(path).unwrap();
        let mut end = 0;
        inspect(path, &options(&disk, &clock), |part| {
            assert_eq!(part.offset, end);
            end += part.length;
            assert!(end <= bytes.len() as u64);
            if !parts.contains(&part.kind) {
                parts.push(part.kind);
            }
            for (name, value) in &part.fields {
                assert!(!name.is_empty());
                let kind = match value {
                    PartValue::Number(_) => "number",
                    PartValue::TimeMs(ms) => {
                        assert!((NOW_MS..NOW_MS + 2000).contains(ms), "{name}: {ms}");
                        "time"
                    }
                    PartValue::Bits(_) => "bits",
                    PartValue::Id(_) => "id",
                    PartValue::Bytes(shown) => {
                        let within = &bytes[part.offset as usize..(part.offset + part.length) as usize];
                        assert!(shown.is_empty() || within.windows(shown.len()).any(|window| window == *shown));
                        "bytes"
                    }
                    PartValue::Text(text) => {
                        assert!(!text.is_empty());
                        "text"
                    }
                    _ => panic!("{name}: {value:?}"),
                };
                values.insert(kind);
            }
            true
        })
        .unwrap()
    };
    let segment = ending(&disk, ".segment").remove(0);
    let file = |name: &str| Path::new(DIRECTORY).join(name);
    assert_eq!(look(&segment), FileKind::Segment);
    assert_eq!(look(&ending(&disk, ".segment")[1]), FileKind::Segment);
    assert_eq!(look(&ending(&disk, ".hint")[0]), FileKind::Hint);
    assert_eq!(look(&file("MANIFEST")), FileKind::Manifest);
    assert_eq!(look(&file("INDEX")), FileKind::Index);
    disk.flip_bit(&segment, 1000 * 8).unwrap();
    look(&segment);
    for kind in [
        PartKind::Header,
        PartKind::Put,
        PartKind::Tombstone,
        PartKind::Batch,
        PartKind::Mark,
        PartKind::Start,
        PartKind::Seal,
        PartKind::Entry,
        PartKind::Damaged,
    ] {
        assert!(parts.contains(&kind), "{kind:?} is not in {parts:?}");
    }
    assert_eq!(
        values.into_iter().collect::<Vec<_>>(),
        ["bits", "bytes", "id", "number", "text", "time"]
    );
}
