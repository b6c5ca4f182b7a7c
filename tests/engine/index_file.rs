//! The index file: opening a closed store reads it instead of hints and records, and whatever it
//! contains, the store shows the content of its log.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use embercask::storage::{CutPolicy, Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{Durability, Error, ManualClock, Options, PutOptions, ReadMode, RecoveryReport, Result, Store};
use test_support::way::Way;
use test_support::{DIRECTORY, ending, manual, rng};

const NOW_MS: u64 = 1_700_000_000_000;

type Item = (Vec<u8>, Option<Vec<u8>>, Option<u64>, u64);
type Content = BTreeMap<(String, u128, Vec<u8>), Item>;

fn options(disk: &MemStorage) -> Options {
    manual(Arc::new(disk.clone())).clock(ManualClock::new(NOW_MS))
}

fn index(disk: &MemStorage) -> Option<PathBuf> {
    ending(disk, "/INDEX").pop()
}

/// Everything a store shows: by listing, by single and multiple look-ups, and by counting.
fn content(store: &Store) -> Result<Content> {
    let mut content = Content::new();
    for info in store.namespaces()? {
        let namespace = store.open_namespace(&info.name)?;
        let mut keys = Vec::new();
        for entry in namespace.list().page_size(5).with_values() {
            let entry = entry?;
            let value = entry.value().expect("asked for").clone();
            let item = (
                value.to_vec(),
                value.metadata().map(<[u8]>::to_vec),
                value.expiry_ms(),
                value.sequence(),
            );
            assert_eq!(namespace.get(entry.key())?.expect("listed").to_vec(), item.0);
            keys.push(entry.key().to_vec());
            content.insert((info.name.clone(), info.id, entry.key().to_vec()), item);
        }
        let plain: Vec<_> = (namespace.list().reverse().page_size(7).into_iter())
            .map(|entry| entry.map(|entry| entry.key().to_vec()))
            .collect::<Result<_>>()?;
        assert!(plain.iter().rev().eq(&keys));
        assert_eq!(namespace.count()?, keys.len() as u64);
        assert!(namespace.get_many(&keys)?.iter().all(Option::is_some));
        assert!(namespace.get("never there")?.is_none());
    }
    Ok(content)
}

/// A closed store with everything that indexes contain: flags, expiries, a renamed and a dropped
/// namespace, deleted and overwritten keys, several segments.
fn closed() -> (MemStorage, Content) {
    closed_on(MemStorage::new())
}

fn closed_on(disk: MemStorage) -> (MemStorage, Content) {
    let store = options(&disk).open(DIRECTORY).unwrap();
    let namespace = store.namespace("PLAIN").unwrap();
    for n in 0..150 {
        namespace.put(format!("key {:03}", n % 100), format!("{n}")).unwrap();
    }
    for n in (0..100).step_by(9) {
        namespace.delete(format!("key {n:03}")).unwrap();
    }
    let rich = store.namespace("FORMERLY").unwrap();
    for n in 0..40 {
        let options = PutOptions::new().metadata(format!("{{\"n\":{n}}}"));
        rich.put_with(format!("metadata {n}"), [n; 20], options).unwrap();
        let options = PutOptions::new().expires_at_ms(NOW_MS + 1_000_000 + u64::from(n));
        rich.put_with(format!("expiry {n}"), [n; 20], options).unwrap();
    }
    store.rename_namespace("FORMERLY", "RICH").unwrap();
    store.namespace("DROPPED").unwrap().put("gone", "gone").unwrap();
    store.drop_namespace("DROPPED").unwrap();
    store.maintain().unwrap();
    let expected = content(&store).unwrap();
    assert!(expected.len() > 150 && store.stats().segments.len() > 3);
    store.close().unwrap();
    assert!(index(&disk).is_some());
    (disk, expected)
}

/// Opens a copy of this disk and checks its content. Returns whether the index file was used.
#[track_caller]
fn opens(disk: &MemStorage, read_mode: ReadMode, expected: &Content) -> bool {
    opened(disk, read_mode, expected).index_file_used
}

/// As [`opens`], but returns the whole report.
#[track_caller]
fn opened(disk: &MemStorage, read_mode: ReadMode, expected: &Content) -> RecoveryReport {
    let copy = disk.crash_process();
    let store = options(&copy).read_mode(read_mode).open(DIRECTORY).unwrap();
    assert!(content(&store).unwrap() == *expected);
    let report = store.recovery_report().clone();
    let segments = report.hints_used + report.hints_rebuilt;
    assert_eq!(report.index_file_used, segments == 0, "{report:?}");
    assert!(store.verify().unwrap().is_sound());
    // Later writes must be distinguished from what the indexes knew before.
    let namespace = store.namespace("PLAIN").unwrap();
    namespace.put("key 001", "overwritten").unwrap();
    namespace.delete("key 002").unwrap();
    namespace.put("new", "new").unwrap();
    assert!(index(&copy).is_none(), "a stale index file remains");
    store.compact().unwrap();
    let after = content(&store).unwrap();
    let killed = copy.crash_process();
    store.close().unwrap();
    for (way, disk) in [(Way::Hints, killed), (Way::IndexFile, copy.crash_process())] {
        let prepared = way.prepare(&disk, DIRECTORY);
        let store = options(&disk).open(DIRECTORY).unwrap();
        prepared.assert_taken(store.recovery_report());
        assert!(content(&store).unwrap() == after, "{way:?}");
    }
    report
}

#[test]
fn a_closed_store_opens_by_its_index_file_in_both_read_modes_and_shows_the_same_as_by_any_other_way() {
    let (disk, expected) = closed();
    for read_mode in [ReadMode::Map, ReadMode::Pread] {
        for way in Way::ALL {
            let disk = disk.crash_process();
            let prepared = way.prepare(&disk, DIRECTORY);
            prepared.assert_taken(&opened(&disk, read_mode, &expected));
        }
    }
}

#[test]
fn a_store_that_is_only_read_keeps_its_index_file() {
    let (disk, expected) = closed();
    let before = disk.read_file(index(&disk).unwrap()).unwrap();
    for killed in [false, true] {
        let store = options(&disk).open(DIRECTORY).unwrap();
        assert!(store.recovery_report().index_file_used);
        assert!(content(&store).unwrap() == expected);
        if killed {
            std::mem::forget(store);
        } else {
            store.close().unwrap();
        }
        assert!(disk.read_file(index(&disk).unwrap()).unwrap() == before);
        let after = disk.crash_process();
        let store = options(&after).open(DIRECTORY).unwrap();
        assert!(store.recovery_report().index_file_used);
    }
}

#[test]
fn a_flipped_bit_a_cut_or_more_bytes_make_an_index_file_useless_and_do_no_harm() {
    let (disk, expected) = closed();
    let path = index(&disk).unwrap();
    let length = disk.read_file(&path).unwrap().len() as u64;
    // The head, and steps of a prime through the tables, which mostly consist of empty slots.
    for at in (0..length).filter(|at| *at < 128 || at % 97 == 0 || length - at < 64) {
        let damaged = disk.crash_process();
        damaged.flip_bit(&path, at * 8 + at % 8).unwrap();
        assert!(!opens(&damaged, ReadMode::Map, &expected), "byte {at}");
    }
    for cut in (0..length)
        .filter(|at| at % 211 == 0 || length - at < 32 || *at < 128)
        .chain([length + 1, length + 4096])
    {
        let damaged = disk.crash_process();
        damaged.truncate(&path, cut).unwrap();
        assert!(!opens(&damaged, ReadMode::Pread, &expected), "cut at {cut}");
    }
}

const HEAD_LEN: usize = 104;

/// Lengths of the sections of an index file, as its head has them.
fn section_lengths(bytes: &[u8]) -> [usize; 3] {
    [0, 1, 2].map(|n| u64::from_le_bytes(bytes[64 + n * 12..72 + n * 12].try_into().unwrap()) as usize)
}

/// Makes all checksums of an index file right.
fn correct_checksums(bytes: &mut [u8]) {
    let mut start = HEAD_LEN;
    for (n, length) in section_lengths(bytes).into_iter().enumerate() {
        let crc = crc32fast::hash(&bytes[start..start + length]);
        bytes[72 + n * 12..76 + n * 12].copy_from_slice(&crc.to_le_bytes());
        start += length;
    }
    let crc = crc32fast::hash(&bytes[..HEAD_LEN - 4]);
    bytes[HEAD_LEN - 4..HEAD_LEN].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn an_index_file_by_which_namespaces_have_more_bytes_than_all_segments_is_ignored() {
    let (disk, expected) = closed();
    let path = index(&disk).unwrap();
    let good = disk.read_file(&path).unwrap();
    let [keydir, ..] = section_lengths(&good);
    // Of the first namespace: behind the count of them, its number, its id and its flags.
    let place = HEAD_LEN + keydir + 4 + 4 + 16 + 1;
    let of_first = u64::from_le_bytes(good[place..place + 8].try_into().unwrap());
    assert!((1..1 << 20).contains(&of_first), "the layout differs");
    for (bytes, is_used) in [(of_first, true), (0, true), (1 << 40, false), (u64::MAX, false)] {
        let mut changed = good.clone();
        changed[place..place + 8].copy_from_slice(&bytes.to_le_bytes());
        correct_checksums(&mut changed);
        let copy = disk.crash_process();
        copy.write_file(&path, &changed).unwrap();
        assert_eq!(opens(&copy, ReadMode::Map, &expected), is_used, "{bytes}");
    }
}

/// With forged checksums a file can hold wrong content, but opening and reading must never panic.
#[test]
fn an_index_file_of_any_content_with_right_checksums_causes_no_panic() {
    let mut rng = rng();
    let (disk, _) = closed_on(MemStorage::seeded(rng.next()));
    let path = index(&disk).unwrap();
    let bytes = disk.read_file(&path).unwrap();
    assert_eq!(
        bytes.len(),
        HEAD_LEN + section_lengths(&bytes).iter().sum::<usize>(),
        "the layout differs"
    );
    let used = (HEAD_LEN..bytes.len()).filter(|at| bytes[*at] != 0).collect::<Vec<_>>();
    let mut believed = 0;
    for _ in 0..1_500 {
        let mut wrong = bytes.clone();
        for _ in 0..1 + rng.below(3) {
            let at = used[rng.below(used.len() as u64) as usize];
            wrong[at] = [rng.next() as u8, 0, 0xff, wrong[at].wrapping_add(1)][rng.below(4) as usize];
        }
        correct_checksums(&mut wrong);
        let copy = disk.crash_process();
        copy.write_file(&path, &wrong).unwrap();
        let store = options(&copy).open(DIRECTORY).unwrap();
        believed += u32::from(store.recovery_report().index_file_used);
        for info in store.namespaces().unwrap() {
            let namespace = store.open_namespace(&info.name).unwrap();
            for entry in namespace.list().page_size(3).with_values() {
                match entry {
                    Ok(entry) => drop(namespace.get(entry.key())),
                    Err(error) => {
                        assert!(matches!(error, Error::Corruption { .. }), "{error:?}");
                        break;
                    }
                }
            }
            let _ = (
                namespace.count(),
                namespace.list().reverse().page(),
                namespace.put("key 050", "new"),
            );
        }
        let _ = (store.maintain(), store.compact());
    }
    assert!(believed > 100, "{believed}");
}

/// Restored from an older copy of the directory, or a leftover: it does not match the manifest.
#[test]
fn an_index_file_of_another_time_or_another_store_is_ignored() {
    let (disk, _) = closed();
    let path = index(&disk).unwrap();
    let old = disk.read_file(&path).unwrap();
    let store = options(&disk).open(DIRECTORY).unwrap();
    store.namespace("PLAIN").unwrap().put("key 001", "newer").unwrap();
    store.namespace("PLAIN").unwrap().delete("key 002").unwrap();
    let newer = content(&store).unwrap();
    store.close().unwrap();
    assert!(opens(&disk, ReadMode::Map, &newer));
    disk.write_file(&path, &old).unwrap();
    assert!(!opens(&disk, ReadMode::Map, &newer));
    let (other, expected) = closed();
    other.write_file(&path, &old).unwrap();
    assert!(!opens(&other, ReadMode::Map, &expected));
}

/// With an index file, opening reads no records; a damaged one must be detected when it is read.
#[test]
fn damage_in_a_segment_is_found_by_reading_although_the_index_file_knows_nothing_of_it() {
    let (disk, expected) = closed();
    let mut found = 0;
    for segment in ending(&disk, ".segment") {
        let length = disk.read_file(&segment).unwrap().len() as u64;
        for at in (0..length).step_by(7) {
            let damaged = disk.crash_process();
            damaged.flip_bit(&segment, at * 8 + at % 8).unwrap();
            let shown = options(&damaged).open(DIRECTORY).and_then(|store| {
                assert!(store.recovery_report().index_file_used);
                content(&store)
            });
            match shown {
                Ok(shown) => assert!(shown == expected, "byte {at} of {}", segment.display()),
                Err(Error::Corruption { .. }) => found += 1,
                Err(error) => panic!("byte {at} of {}: {error:?}", segment.display()),
            }
        }
    }
    assert!(found > 500, "{found}");
}

#[test]
fn an_index_file_that_cannot_be_written_costs_nothing_but_itself() {
    let kinds = [
        (Operation::Create, FaultKind::Full),
        (Operation::Write, FaultKind::Full),
        (Operation::Write, FaultKind::Error(std::io::ErrorKind::Other)),
        (Operation::Write, FaultKind::ShortWrite { bytes: 100 }),
    ];
    for (operation, kind) in kinds {
        let disk = MemStorage::new();
        let faults = FaultStorage::new(Arc::new(disk.clone()));
        let store = options(&disk)
            .storage(Arc::new(faults.clone()))
            .open(DIRECTORY)
            .unwrap();
        store.namespace("N").unwrap().put("key", "value").unwrap();
        let expected = content(&store).unwrap();
        faults.inject(Fault::new(kind).on(operation).path("INDEX"));
        store.close().unwrap();
        assert!(faults.struck() > 0);
        // A short write is completed.
        let written = matches!(kind, FaultKind::ShortWrite { .. });
        assert_eq!(index(&disk).is_some(), written, "{kind:?}");
        let store = options(&disk).open(DIRECTORY).unwrap();
        assert_eq!(store.recovery_report().index_file_used, written, "{kind:?}");
        assert!(content(&store).unwrap() == expected, "{kind:?}");
        store.close().unwrap();
    }
}

#[test]
fn a_power_cut_after_closing_leaves_a_store_that_opens_whatever_became_of_the_index_file() {
    let (disk, expected) = closed();
    let path = index(&disk).unwrap();
    for policy in [CutPolicy::KeepAll, CutPolicy::LoseUnsynced] {
        opens(&disk.power_cut(&policy), ReadMode::Map, &expected);
    }
    // Only parts of it, in blocks, as a file system may write it.
    let whole = disk.read_file(&path).unwrap();
    for lost in (0..whole.len()).step_by(512) {
        let cut = disk.crash_process();
        let mut part = whole.clone();
        let end = part.len().min(lost + 512);
        part[lost..end].fill(0);
        cut.write_file(&path, &part).unwrap();
        let used = opens(&cut, ReadMode::Map, &expected);
        assert_eq!(used, part == whole);
    }
}

#[test]
fn without_the_option_none_is_written_and_none_is_read() {
    let (disk, expected) = closed();
    let store = options(&disk).index_file(false).open(DIRECTORY).unwrap();
    assert!(!store.recovery_report().index_file_used);
    assert!(content(&store).unwrap() == expected);
    store.namespace("PLAIN").unwrap().put("key 001", "1").unwrap();
    store.close().unwrap();
    assert!(index(&disk).is_none());
}

/// Expired keys are not in the file; after the clock was set back they reappear, as they do without
/// the file.
#[test]
fn an_earlier_clock_shows_what_a_later_one_took_for_expired() {
    let disk = MemStorage::new();
    let clock = ManualClock::new(NOW_MS);
    let open = |clock: &ManualClock| options(&disk).clock(clock.clone()).open(DIRECTORY).unwrap();
    let store = open(&clock);
    let namespace = store.namespace("N").unwrap();
    namespace.put("stays", "1").unwrap();
    let brief = PutOptions::new()
        .expires_at_ms(NOW_MS + 1_000)
        .durability(Durability::Sync);
    namespace.put_with("brief", "1", brief).unwrap();
    clock.advance(2_000);
    store.maintain().unwrap();
    assert!(!namespace.contains("brief").unwrap());
    store.close().unwrap();
    let store = open(&ManualClock::new(NOW_MS + 3_000));
    assert!(store.recovery_report().index_file_used);
    assert_eq!(test_support::keys(&store.open_namespace("N").unwrap()), ["stays"]);
    store.close().unwrap();
    let store = open(&ManualClock::new(NOW_MS + 500));
    assert!(!store.recovery_report().index_file_used);
    assert_eq!(
        test_support::keys(&store.open_namespace("N").unwrap()),
        ["brief", "stays"]
    );
}

/// Nothing has to be read, so the progress is complete at once.
#[test]
fn progress_is_told_to_the_end_although_no_segment_is_read() {
    let (disk, _) = closed();
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let telling = told.clone();
    let options = options(&disk).on_recovery_progress(move |progress| telling.lock().unwrap().push(progress));
    let store = options.open(DIRECTORY).unwrap();
    assert!(store.recovery_report().index_file_used);
    let told = told.lock().unwrap();
    let last = told.last().expect("progress was reported");
    assert!(last.total_bytes > 0 && last.done_bytes == last.total_bytes, "{told:?}");
}

/// Their entries stay in the expiry queue until they are due, and point to segments that no longer
/// exist.
#[test]
fn keys_with_an_expiry_that_were_overwritten_and_compacted_away_do_not_make_the_file_useless() {
    let disk = MemStorage::new();
    let store = options(&disk).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    for n in 0..100 {
        let options = PutOptions::new().expires_at_ms(NOW_MS + 1_000_000);
        namespace.put_with(format!("{n}"), [1; 100], options).unwrap();
    }
    for n in 0..90 {
        namespace.put(format!("{n}"), [2; 100]).unwrap();
    }
    store.compact().unwrap();
    let expected = content(&store).unwrap();
    store.close().unwrap();
    let store = options(&disk).open(DIRECTORY).unwrap();
    assert!(store.recovery_report().index_file_used);
    assert!(content(&store).unwrap() == expected);
}
