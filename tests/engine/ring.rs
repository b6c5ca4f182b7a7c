//! The ring: writes of class `Os` that are acknowledged by a copy into mapped pages.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use embercask::storage::{
    Call, CutPolicy, Fault, FaultKind, FaultStorage, Interposed, Interposer, MemStorage, Operation, Storage,
};
use embercask::{Durability, ErrorKind, Maintenance, Namespace, Options, ReadMode, RingMode, Store, salvage, verify};
use test_support::{DIRECTORY, Rng, at_least, class, ending, file_names, manual, rng, text, until, written};

use crate::read_only::steps::between_calls;

const RING: &str = "/store/RING";
const MANIFEST: &str = "/store/MANIFEST";
/// Long enough for a ring of a page.
const SEGMENT_BYTES: u64 = 16 << 10;

type Content = BTreeMap<String, String>;

fn options(storage: Arc<dyn Storage>) -> Options {
    manual(storage).segment_bytes(SEGMENT_BYTES).ring(RingMode::Always)
}

fn open(disk: &MemStorage) -> (Store, Namespace) {
    let store = options(Arc::new(disk.clone())).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    (store, namespace)
}

fn put(namespace: &Namespace, key: &str, value: &str) -> u64 {
    namespace.put_with(key, value, class(Durability::Os)).unwrap()
}

fn content(namespace: &Namespace) -> Content {
    let entries = namespace.list().with_values().into_iter();
    let entry = |entry: embercask::Entry| {
        let value = entry.value().unwrap().as_str().unwrap().to_owned();
        (entry.key_str().unwrap().to_owned(), value)
    };
    entries.map(|found| entry(found.unwrap())).collect()
}

/// What the next process finds after a kill.
fn after_kill(disk: &MemStorage) -> Content {
    let (store, namespace) = open(&disk.crash_process());
    assert!(!store.recovery_report().clean);
    content(&namespace)
}

/// Changes a key, or two, in one of the ways that the class allows.
fn write_at_random(rng: &mut Rng, store: &Store, namespace: &Namespace, expected: &mut Content) {
    let key = format!("key {}", rng.below(20));
    let value = format!("{};", rng.next()).repeat(1 + rng.below(8) as usize);
    match rng.below(10) {
        0 => {
            namespace.delete_with(&key, None, Some(Durability::Os)).unwrap();
            expected.remove(&key);
        }
        1 => {
            let other = format!("other {}", rng.below(5));
            let mut batch = store.batch();
            batch.put(namespace, &key, &value).put(namespace, &other, &value);
            batch.durability(Durability::Os).commit().unwrap();
            expected.extend([(key, value.clone()), (other, value)]);
        }
        2 => {
            // More than the ring can hold, or the rest of the segment.
            let value = value.repeat(1 + rng.below(50) as usize);
            put(namespace, &key, &value);
            expected.insert(key, value);
        }
        _ => {
            put(namespace, &key, &value);
            expected.insert(key, value);
        }
    }
}

#[test]
fn what_the_ring_has_acknowledged_survives_a_kill_at_any_moment() {
    let mut rng = rng();
    let (mut only_in_ring, mut kills) = (0, 0);
    for _ in 0..6 {
        let disk = MemStorage::seeded(rng.next());
        let (store, namespace) = open(&disk);
        let mut expected = Content::new();
        for number in 0..250 {
            match rng.below(30) {
                0 => store.flush().unwrap(),
                1 => store.sync().unwrap(),
                2 => store.maintain().unwrap(),
                3 => drop(store.compact().unwrap()),
                4 => {
                    let (key, value) = (format!("buffered {number}"), number.to_string());
                    namespace.put_with(&key, &value, class(Durability::Buffered)).unwrap();
                    expected.insert(key, value);
                    write_at_random(&mut rng, &store, &namespace, &mut expected);
                }
                _ => write_at_random(&mut rng, &store, &namespace, &mut expected),
            }
            if rng.below(3) > 0 {
                continue;
            }
            let killed = disk.crash_process();
            let (again, found) = open(&killed);
            assert_eq!(content(&found), expected, "killed after write {number}");
            only_in_ring += u64::from(again.recovery_report().ring_bytes > 0);
            kills += 1;
            if rng.below(4) == 0 {
                // Killed again, with what recovery has written and nothing else.
                drop((again, found));
                assert_eq!(after_kill_or_close(&killed), expected);
            }
        }
        assert!(store.stats().ring_bytes > 0);
    }
    at_least(200, kills, "kills");
    at_least(100, only_in_ring, "kills after which only the ring had something");
}

fn after_kill_or_close(disk: &MemStorage) -> Content {
    let (_store, namespace) = open(&disk.crash_process());
    content(&namespace)
}

#[test]
fn an_os_write_makes_no_write_call_and_is_written_out_later() {
    let disk = MemStorage::new();
    let (store, namespace) = open(&disk);
    put(&namespace, "first", "makes the ring");
    let before = store.stats();
    for number in 0..10 {
        put(&namespace, &format!("{number}"), "value");
    }
    let after = store.stats();
    assert_eq!(after.ring_bytes, 4096);
    assert_eq!(before.write_outs, after.write_outs);
    assert!(after.pending_bytes > 300, "{after:?}");
    store.flush().unwrap();
    assert_eq!(store.stats().pending_bytes, 0);
    assert_eq!(store.stats().write_outs, after.write_outs + 1);
}

/// No more is pending than the ring has, whatever waits there already.
#[test]
fn nothing_in_the_ring_is_overwritten_before_it_is_written_out() {
    let disk = MemStorage::new();
    let (store, namespace) = open(&disk);
    let mut expected = Content::new();
    for number in 0..60 {
        let (key, value) = (format!("key {number}"), format!("{number}").repeat(150));
        put(&namespace, &key, &value);
        expected.insert(key, value);
        assert!(store.stats().pending_bytes <= 4096);
        assert_eq!(after_kill(&disk), expected);
    }
    // Too many buffered bytes lie before it.
    for number in 0..30 {
        let key = format!("buffered {number}");
        let value = "v".repeat(300);
        namespace.put_with(&key, &value, class(Durability::Buffered)).unwrap();
        expected.insert(key, value);
    }
    assert!(store.stats().pending_bytes > 4096);
    put(&namespace, "last", "value");
    expected.insert("last".to_owned(), "value".to_owned());
    assert_eq!(after_kill(&disk), expected);
}

/// After a power cut the ring may have any of its pages as they were at any time.
#[test]
fn after_a_power_cut_the_ring_extends_a_prefix_or_counts_for_nothing() {
    let mut rng = rng();
    let (mut from_ring, mut lost) = (0, 0);
    for _ in 0..150 {
        let disk = MemStorage::seeded(rng.next());
        let (store, namespace) = open(&disk);
        let writes = 20 + rng.below(40);
        let mut synced = 0;
        for number in 0..writes {
            let value = format!("{number:06}").repeat(1 + rng.below(60) as usize);
            let durability = match rng.below(8) {
                0 => Durability::Sync,
                _ => Durability::Os,
            };
            namespace
                .put_with(format!("{number:04}"), value, class(durability))
                .unwrap();
            if durability == Durability::Sync {
                synced = number + 1;
            }
            if rng.below(12) == 0 {
                store.flush().unwrap();
            }
        }
        let (seed, grain) = (rng.next(), [512, 4096][rng.below(2) as usize]);
        let cut = disk.power_cut(&CutPolicy::Random { seed, grain });
        let (again, found) = open(&cut);
        from_ring += u64::from(again.recovery_report().ring_bytes > 0);
        let shown = content(&found);
        let count = shown.len() as u64;
        let keys: Vec<_> = (0..count).map(|number| format!("{number:04}")).collect();
        assert!(shown.keys().eq(&keys), "not a prefix: {shown:?}");
        assert!(count >= synced, "{count} of {synced} synced writes");
        lost += u64::from(count < writes);
        // What was shown stays, although it may have been in the ring alone.
        let cut_again = cut.power_cut(&CutPolicy::LoseUnsynced);
        assert_eq!(content(&open(&cut_again).1), shown);
    }
    at_least(20, from_ring, "power cuts after which the ring had something");
    at_least(20, lost, "power cuts that lost something");
}

#[test]
fn the_manifest_names_the_ring_while_it_may_have_something_and_older_programs_refuse_it() {
    let version = |disk: &MemStorage| disk.read_file(MANIFEST).unwrap()[8];
    let disk = MemStorage::new();
    let (store, namespace) = open(&disk);
    assert_eq!((version(&disk), disk.exists(RING).unwrap()), (1, false));
    put(&namespace, "key", "value");
    assert_eq!((version(&disk), disk.exists(RING).unwrap()), (2, true));
    // The copy has no open segment, and no ring.
    store.checkpoint("/copy").unwrap();
    assert_eq!(disk.read_file("/copy/MANIFEST").unwrap()[8], 1);
    assert!(!disk.exists("/copy/RING").unwrap());
    put(&namespace, "key", "newer");
    assert_eq!(version(&disk), 2);
    let killed = disk.crash_process();
    let recovered = options(Arc::new(killed.clone()))
        .ring(RingMode::Never)
        .open(DIRECTORY)
        .unwrap();
    assert_eq!(version(&killed), 1);
    assert_eq!(
        text(&recovered.open_namespace("N").unwrap(), "key").as_deref(),
        Some("newer")
    );
    store.close().unwrap();
    assert_eq!((version(&disk), disk.exists(RING).unwrap()), (1, false));
}

/// The disk of a killed process that had written one of two keys out.
fn killed_with_one_of_two_keys_in_the_ring() -> MemStorage {
    let disk = MemStorage::new();
    let (store, namespace) = open(&disk);
    put(&namespace, "written out", "value");
    store.flush().unwrap();
    put(&namespace, "in the ring", "value");
    disk.crash_process()
}

#[test]
fn a_ring_that_is_missing_or_too_short_is_damage_and_salvage_takes_the_rest() {
    for change in [
        |disk: &MemStorage| disk.remove_file(RING).unwrap(),
        |disk: &MemStorage| disk.truncate(RING, 512).unwrap(),
    ] {
        let killed = killed_with_one_of_two_keys_in_the_ring();
        change(&killed);
        let opened = options(Arc::new(killed.clone())).open(DIRECTORY).unwrap_err();
        assert_eq!(opened.kind(), ErrorKind::Corruption, "{opened}");
        assert!(opened.to_string().contains("RING"), "{opened}");
        let read = options(Arc::new(killed.clone())).read_only(true).open(DIRECTORY);
        assert_eq!(read.unwrap_err().kind(), ErrorKind::Corruption);
        let report = verify(DIRECTORY, &options(Arc::new(killed.clone()))).unwrap();
        assert!(
            report.damaged.iter().any(|range| range.path.ends_with("RING")),
            "{report:?}"
        );
        let salvaged = salvage(DIRECTORY, "/salvaged", options(Arc::new(killed.clone()))).unwrap();
        assert!(
            salvaged.lost.iter().any(|range| range.path.ends_with("RING")),
            "{salvaged:?}"
        );
        let store = options(Arc::new(killed)).open("/salvaged").unwrap();
        assert_eq!(content(&store.open_namespace("N").unwrap()).len(), 1);
    }
}

#[test]
fn verify_and_salvage_find_what_only_the_ring_has() {
    for has_manifest in [true, false] {
        let disk = MemStorage::new();
        let (store, namespace) = open(&disk);
        let mut expected = Content::new();
        let mut rng = Rng::new(7);
        for _ in 0..60 {
            write_at_random(&mut rng, &store, &namespace, &mut expected);
        }
        put(&namespace, "last", "value");
        expected.insert("last".to_owned(), "value".to_owned());
        let killed = disk.crash_process();
        if has_manifest {
            let report = verify(DIRECTORY, &options(Arc::new(killed.clone()))).unwrap();
            assert!(report.is_sound(), "{report:?}");
            assert!(report.discarded.is_empty(), "{report:?}");
        } else {
            killed.remove_file(MANIFEST).unwrap();
        }
        salvage(DIRECTORY, "/salvaged", options(Arc::new(killed.clone()))).unwrap();
        let store = options(Arc::new(killed)).open("/salvaged").unwrap();
        assert_eq!(content(&store.open_namespace("N").unwrap()), expected, "{has_manifest}");
    }
}

#[test]
fn salvage_without_a_manifest_tells_that_the_ring_cannot_be_read() {
    let killed = killed_with_one_of_two_keys_in_the_ring();
    killed.remove_file(MANIFEST).unwrap();
    let storage = FaultStorage::new(Arc::new(killed));
    let failure = FaultKind::Error(std::io::ErrorKind::Other);
    storage.inject(Fault::new(failure).on(Operation::OpenRead).path("RING"));
    let salvaged = salvage(DIRECTORY, "/salvaged", options(Arc::new(storage.clone()))).unwrap();
    assert_eq!(storage.struck(), 1);
    assert!(
        salvaged.lost.iter().any(|range| range.path.ends_with("RING")),
        "{salvaged:?}"
    );
    assert_eq!(salvaged.keys, 1);
}

fn reading(storage: Arc<dyn Storage>) -> Options {
    options(storage).read_only(true)
}

#[test]
fn readers_see_what_only_the_ring_has_and_notice_what_comes_there() {
    let disk = MemStorage::new();
    let (store, namespace) = open(&disk);
    put(&namespace, "key", "first");
    let reader = reading(Arc::new(disk.clone())).open(DIRECTORY).unwrap();
    let read = reader.open_namespace("N").unwrap();
    assert_eq!(text(&read, "key").as_deref(), Some("first"));
    assert!(!reader.refresh().unwrap().changed);
    for number in 0..100 {
        let value = format!("{number}").repeat(60);
        put(&namespace, "key", &value);
        assert!(reader.refresh().unwrap().changed, "{number}");
        assert_eq!(text(&read, "key"), Some(value));
        assert!(!reader.refresh().unwrap().changed, "{number}");
        if number % 7 == 0 {
            store.flush().unwrap();
            reader.refresh().unwrap();
        }
    }
}

/// The writer goes on between any two calls of the reader: it fills the ring again and again.
#[test]
fn a_reader_misses_nothing_that_is_written_out_and_overwritten_while_it_reads() {
    for mode in [ReadMode::Map, ReadMode::Pread] {
        for at in 0.. {
            let disk = MemStorage::new();
            let (_store, namespace) = open(&disk);
            let number = Arc::new(AtomicU64::new(0));
            let (count, writer) = (number.clone(), namespace.clone());
            let write = move || {
                let next = count.load(Ordering::Acquire) + 1;
                put(&writer, "key", &format!("{next:08}").repeat(40));
                put(&writer, &format!("key {next}"), "value");
                count.store(next, Ordering::Release);
            };
            (0..3).for_each(|_| write());
            let again = write.clone();
            let (between, storage) = between_calls(&disk, move |call, _| {
                if call == at {
                    // Once around the ring, but not much more.
                    (0..14).for_each(|_| again());
                }
            });
            let least = number.load(Ordering::Acquire);
            let reader = reading(storage).read_mode(mode).open(DIRECTORY).unwrap();
            let read = reader.open_namespace("N").unwrap();
            let found = text(&read, "key").unwrap();
            let shown: u64 = found[..8].parse().unwrap();
            assert!(
                shown >= least,
                "call {at}: {shown} is shown, {least} was acknowledged before"
            );
            for number in 1..shown {
                assert!(read.contains(format!("key {number}")).unwrap(), "call {at}: {number}");
            }
            if between.calls.load(Ordering::Acquire) <= at {
                at_least(10, at, "calls");
                break;
            }
        }
    }
}

/// The same for a refresh of a reader that has seen all but the last of it.
#[test]
fn a_refresh_misses_nothing_that_is_written_out_and_overwritten_while_it_looks() {
    for at in 0.. {
        let disk = MemStorage::new();
        let (_store, namespace) = open(&disk);
        put(&namespace, "key", "first");
        let (from, writer) = (Arc::new(AtomicU64::new(u64::MAX)), namespace.clone());
        let begin = from.clone();
        let (between, storage) = between_calls(&disk, move |call, _| {
            if call == from.load(Ordering::Acquire).saturating_add(at) {
                for number in 0..14 {
                    put(&writer, &format!("other {number}"), &"v".repeat(400));
                }
            }
        });
        let reader = reading(storage).open(DIRECTORY).unwrap();
        let read = reader.open_namespace("N").unwrap();
        put(&namespace, "key", "second");
        let first = between.calls.load(Ordering::Acquire);
        begin.store(first, Ordering::Release);
        assert!(reader.refresh().unwrap().changed, "call {at}");
        assert_eq!(text(&read, "key").as_deref(), Some("second"), "call {at}");
        if between.calls.load(Ordering::Acquire) <= first + at {
            at_least(5, at, "calls");
            break;
        }
    }
}

/// Other programs take what the reserve gives back, as long as this is set.
#[derive(Debug)]
struct Greedy {
    disk: MemStorage,
    takes: AtomicBool,
}

impl Interposer for Greedy {
    fn around(&self, call: &Call<'_>, make: &mut dyn FnMut() -> std::io::Result<()>) -> std::io::Result<()> {
        let made = make();
        if call.path.ends_with("RESERVE") && self.takes.load(Ordering::Acquire) {
            self.disk.set_capacity(Some(self.disk.used()));
        }
        made
    }
}

/// What was acknowledged can be written out on a full disk, whatever compaction has taken before.
#[test]
fn on_a_full_disk_what_the_ring_has_is_written_out_all_the_same() {
    let disk = MemStorage::new();
    let takes = AtomicBool::new(false);
    let greedy = Arc::new(Greedy {
        disk: disk.clone(),
        takes,
    });
    let storage = Interposed::over(Arc::new(disk.clone()), greedy.clone());
    let store = options(Arc::new(storage)).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    for number in 0..400 {
        put(&namespace, &format!("{}", number % 100), &"v".repeat(300));
    }
    store.maintain().unwrap();
    let mut expected = content(&namespace);
    disk.set_capacity(Some(disk.used()));
    while store.stats().pending_bytes < 1_000 {
        put(&namespace, "acknowledged", &"a".repeat(200));
    }
    expected.insert("acknowledged".to_owned(), "a".repeat(200));
    assert!(!store.stats().disk_full);
    greedy.takes.store(true, Ordering::Release);
    assert_eq!(store.compact_subset(1).unwrap_err().kind(), ErrorKind::NoSpace);
    greedy.takes.store(false, Ordering::Release);
    assert!(store.stats().disk_full);
    assert!(store.stats().pending_bytes >= 1_000);
    store.flush().unwrap();
    assert_eq!(store.stats().pending_bytes, 0);
    // From now on the file must have it first.
    let (mut refused, mut number) = (0, 0);
    while refused == 0 {
        let key = format!("more {number}");
        match namespace.put_with(&key, "m".repeat(200), class(Durability::Os)) {
            Ok(_) => drop(expected.insert(key, "m".repeat(200))),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                refused += 1;
            }
        }
        number += 1;
        assert!(number < 1_000, "a disk without room takes everything");
    }
    assert_eq!(after_kill(&disk), expected);
    disk.set_capacity(None);
    put(&namespace, "again", "there is room");
    store.close().unwrap();
}

#[test]
fn without_a_ring_writes_are_acknowledged_by_write_calls_as_well() {
    let faults = [
        (FaultKind::Full, Operation::Create),
        (FaultKind::Error(std::io::ErrorKind::Other), Operation::Map),
        (FaultKind::Error(std::io::ErrorKind::Other), Operation::Store),
    ];
    for (kind, operation) in faults {
        let disk = MemStorage::new();
        let storage = FaultStorage::new(Arc::new(disk.clone()));
        let store = options(Arc::new(storage.clone())).open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        storage.inject(Fault::new(kind).on(operation).path("RING"));
        for number in 0..5 {
            put(&namespace, &format!("{number}"), "value");
            assert_eq!(after_kill_or_close(&disk).len(), number + 1, "{operation:?}");
        }
        assert_eq!(storage.struck(), 1, "{operation:?}");
        assert_eq!((store.stats().ring_bytes, store.stats().pending_bytes), (0, 0));
        // The next segment has one.
        for number in 0..60 {
            put(&namespace, "key", &format!("{number}").repeat(200));
        }
        assert_eq!(store.stats().ring_bytes, 4096, "{operation:?}");
        assert_eq!(after_kill(&disk).len(), 6);
    }
    // The map works, and a store fails later.
    let disk = MemStorage::new();
    let storage = FaultStorage::new(Arc::new(disk.clone()));
    let store = options(Arc::new(storage.clone())).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    put(&namespace, "0", "value");
    storage.inject(Fault::new(FaultKind::Error(std::io::ErrorKind::Other)).on(Operation::Store));
    put(&namespace, "1", "value");
    assert_eq!((store.stats().ring_bytes, storage.struck()), (0, 1));
    put(&namespace, "2", "value");
    assert_eq!(after_kill(&disk).len(), 3);
}

#[test]
fn a_ring_is_used_where_that_was_asked_for_or_is_known_to_be_safe() {
    let used = |options: Options| {
        let temporary = tempfile::tempdir().unwrap();
        let store = options.open(temporary.path().join("store")).unwrap();
        let namespace = store.namespace("N").unwrap();
        put(&namespace, "key", "value");
        let stats = store.stats();
        assert_eq!(
            file_names(&temporary.path().join("store")).contains(&"RING".to_owned()),
            stats.ring_bytes > 0
        );
        store.close().unwrap();
        assert!(!file_names(&temporary.path().join("store")).contains(&"RING".to_owned()));
        stats.ring_bytes
    };
    for maintenance in [Maintenance::Manual, Maintenance::Background] {
        let options = || Store::options().maintenance(maintenance);
        assert_eq!(used(options().ring(RingMode::Always)), 1 << 20);
        assert_eq!(used(options().ring(RingMode::Always).segment_bytes(1 << 20)), 128 << 10);
        assert_eq!(
            used(options().ring(RingMode::Always).read_mode(ReadMode::Pread)),
            1 << 20
        );
        assert_eq!(used(options().ring(RingMode::Never)), 0);
        assert_eq!(used(options().read_mode(ReadMode::Pread)), 0);
        // By the file system of the machine's temporary directory.
        assert!([0, 1 << 20].contains(&used(options())));
    }
    let store = Store::in_memory().unwrap();
    put(&store.namespace("N").unwrap(), "key", "value");
    assert_eq!(store.stats().ring_bytes, 0);
    // A simulated disk is not known to be safe.
    let disk = MemStorage::new();
    let store = options(Arc::new(disk.clone()))
        .ring(RingMode::Auto)
        .open(DIRECTORY)
        .unwrap();
    put(&store.namespace("N").unwrap(), "key", "value");
    assert_eq!((store.stats().ring_bytes, disk.exists(RING).unwrap()), (0, false));
}

/// Damage to the ring is as damage to the end of the log: it may cost that, and is never shown.
#[test]
fn a_flipped_bit_in_the_ring_costs_the_end_of_the_log_or_nothing() {
    let mut rng = rng();
    let disk = MemStorage::seeded(3);
    let (store, namespace) = open(&disk);
    for number in 0..30 {
        put(&namespace, &format!("{number:04}"), &format!("{number:04}").repeat(20));
        if number == 10 {
            store.sync().unwrap();
        }
    }
    assert!(store.stats().pending_bytes > 0);
    let whole = after_kill(&disk).len();
    let mut fewer = 0;
    for _ in 0..400 {
        let damaged = disk.crash_process();
        damaged.flip_bit(RING, rng.below(4096 * 8)).unwrap();
        let (_store, namespace) = open(&damaged);
        let shown = content(&namespace);
        let keys: Vec<_> = (0..shown.len()).map(|number| format!("{number:04}")).collect();
        assert!(shown.keys().eq(&keys) && shown.len() > 10, "{shown:?}");
        assert!(shown.iter().all(|(key, value)| *value == key.repeat(20)));
        fewer += u64::from(shown.len() < whole);
    }
    at_least(5, fewer, "flipped bits that cost the end");
    assert_eq!(ending(&disk, "RING").len(), 1);
}

/// The first write makes the ring while a segment is open already, and each call of that fails.
#[test]
fn a_failure_at_any_call_of_making_the_ring_loses_nothing_and_the_store_opens_again() {
    let kinds = [
        FaultKind::Error(std::io::ErrorKind::Other),
        FaultKind::Full,
        FaultKind::FailedSync,
    ];
    for kind in kinds {
        let mut struck = 0;
        for at in 0.. {
            let disk = MemStorage::new();
            let storage = FaultStorage::new(Arc::new(disk.clone()));
            let store = options(Arc::new(storage.clone())).open(DIRECTORY).unwrap();
            let namespace = store.namespace("N").unwrap();
            namespace.put("synced", "value").unwrap();
            let mut expected = Content::from([("synced".to_owned(), "value".to_owned())]);
            let mut perhaps = Content::new();
            storage.inject(Fault::new(kind).at(storage.steps() + at));
            for number in 0..3 {
                let key = format!("{number}");
                match namespace.put_with(&key, "value", class(Durability::Os)) {
                    Ok(_) => expected.insert(key, "value".to_owned()),
                    Err(_) => perhaps.insert(key, "value".to_owned()),
                };
                let killed = disk.crash_process();
                let mut shown = after_kill_or_close(&killed);
                shown.retain(|key, _| expected.contains_key(key) || !perhaps.contains_key(key));
                assert_eq!(shown, expected, "{kind:?} at call {at}, killed after {number}");
                // And again, with what the recovery has left.
                assert!(after_kill_or_close(&killed).len() >= expected.len());
            }
            if storage.struck() == 0 {
                break;
            }
            struck += 1;
        }
        at_least(if kind == FaultKind::Full { 3 } else { 4 }, struck, "calls that failed");
    }
}

/// Closes the store from another thread while the ring is made.
#[derive(Debug, Default)]
struct ClosesMeanwhile {
    store: Mutex<Option<Store>>,
    closing: Mutex<Option<std::thread::JoinHandle<embercask::Result<()>>>>,
}

impl Interposer for ClosesMeanwhile {
    fn around(&self, call: &Call<'_>, make: &mut dyn FnMut() -> std::io::Result<()>) -> std::io::Result<()> {
        if call.path.ends_with("RING") && call.operation == Operation::Sync {
            let taken = self.store.lock().unwrap().take();
            if let Some(store) = taken {
                let namespace = store.open_namespace("N").unwrap();
                *self.closing.lock().unwrap() = Some(std::thread::spawn(move || store.close()));
                until("the store refuses writes", || {
                    let refused = namespace.put_with("refused", "", class(Durability::Buffered));
                    refused.is_err_and(|error| error.kind() == ErrorKind::Closed)
                });
                // The other thread would have closed it by then.
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
        make()
    }
}

#[test]
fn closing_waits_for_the_thread_that_makes_the_ring() {
    let disk = MemStorage::new();
    let closes = Arc::new(ClosesMeanwhile::default());
    let storage = Interposed::over(Arc::new(disk.clone()), closes.clone());
    let store = options(Arc::new(storage)).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("synced", "value").unwrap();
    *closes.store.lock().unwrap() = Some(store.clone());
    let written = namespace.put_with("key", "value", class(Durability::Os));
    closes.closing.lock().unwrap().take().unwrap().join().unwrap().unwrap();
    assert_eq!(written.unwrap_err().kind(), ErrorKind::Closed);
    assert!(!disk.exists(RING).unwrap());
    drop((store, namespace));
    let (again, namespace) = open(&disk);
    // Nothing was changed any more after it was closed.
    assert!(again.recovery_report().clean && again.recovery_report().index_file_used);
    assert_eq!(content(&namespace)["synced"], "value");
}

#[test]
fn a_ring_that_is_used_no_more_is_removed() {
    let disk = MemStorage::new();
    let (_store, namespace) = open(&disk);
    put(&namespace, "key", "value");
    let killed = disk.crash_process();
    let store = options(Arc::new(killed.clone()))
        .ring(RingMode::Never)
        .open(DIRECTORY)
        .unwrap();
    assert!(store.recovery_report().ring_bytes > 0);
    store.close().unwrap();
    assert!(!killed.exists(RING).unwrap());
}

/// Damage of what was durable, which the ring still has, is mended for good.
#[test]
fn what_the_ring_has_of_a_damaged_part_is_written_anew() {
    let disk = MemStorage::seeded(5);
    let (store, namespace) = open(&disk);
    for number in 0..8 {
        put(&namespace, &format!("{number}"), &"v".repeat(100));
    }
    store.sync().unwrap();
    put(&namespace, "after a mark", "value");
    put(&namespace, "last", "value");
    store.sync().unwrap();
    let expected = content(&namespace);
    let killed = disk.crash_process();
    let segment = ending(&killed, ".segment").pop().unwrap();
    // In the fourth record or so.
    killed.flip_bit(&segment, 8 * 600).unwrap();
    let (store, namespace) = open(&killed);
    assert_eq!(content(&namespace), expected);
    assert!(store.verify().unwrap().is_sound());
    store.close().unwrap();
    drop(namespace);
    let report = verify(DIRECTORY, &options(Arc::new(killed.clone()))).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(content(&open(&killed).1), expected);
}

#[test]
fn salvage_takes_what_only_the_ring_has_behind_damage_that_it_does_not_reach() {
    let disk = MemStorage::seeded(6);
    let (store, namespace) = open(&disk);
    for number in 0..60 {
        put(&namespace, &format!("{number:02}"), &"v".repeat(150));
    }
    store.flush().unwrap();
    put(&namespace, "only in the ring", "value");
    let killed = disk.crash_process();
    let segment = ending(&killed, ".segment").pop().unwrap();
    killed.flip_bit(&segment, 8 * 500).unwrap();
    salvage(DIRECTORY, "/salvaged", options(Arc::new(killed.clone()))).unwrap();
    let store = options(Arc::new(killed)).open("/salvaged").unwrap();
    let found = content(&store.open_namespace("N").unwrap());
    assert_eq!(found.len(), 60, "one record is lost");
    assert!(found.contains_key("only in the ring"));
}

/// The last record of the file is damaged, and the ring has only what is behind it.
#[test]
fn salvage_takes_what_only_the_ring_has_behind_a_damaged_end_of_the_file() {
    let disk = MemStorage::seeded(8);
    let (store, namespace) = open(&disk);
    put(&namespace, "first", "value");
    store.flush().unwrap();
    namespace.put("synced", "damaged").unwrap();
    put(&namespace, "only in the ring", "value");
    assert!(store.stats().pending_bytes > 0);
    let killed = disk.crash_process();
    let segment = ending(&killed, ".segment").pop().unwrap();
    let length = written(&killed, &segment).len() as u64;
    killed.flip_bit(&segment, 8 * (length - 10)).unwrap();
    salvage(DIRECTORY, "/salvaged", options(Arc::new(killed.clone()))).unwrap();
    let store = options(Arc::new(killed)).open("/salvaged").unwrap();
    let found = content(&store.open_namespace("N").unwrap());
    assert!(found.keys().eq(["first", "only in the ring"]), "{found:?}");
}

#[test]
fn the_ring_keeps_to_the_limit_of_the_store() {
    let limit = 2 << 20;
    for limit in [limit, 4 * limit] {
        let disk = MemStorage::new();
        let options = || {
            manual(Arc::new(disk.clone()))
                .segment_bytes(1 << 20)
                .max_disk_bytes(Some(limit))
                .ring(RingMode::Always)
        };
        let store = options().open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        for number in 0.. {
            if namespace
                .put_with(format!("{number}"), "v".repeat(3_000), class(Durability::Os))
                .is_err()
            {
                break;
            }
            assert!(disk.used() <= limit, "{} of {limit}", disk.used());
        }
        assert!(store.stats().space.used_bytes <= limit);
        store.close().unwrap();
        drop(namespace);
        // No room for one any more.
        let store = options().open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        namespace.delete_with("0", None, Some(Durability::Os)).unwrap();
        assert_eq!(store.stats().ring_bytes, 0);
        assert!(disk.used() <= limit);
    }
}

/// Others write while a large batch that the ring has enters the indexes.
#[test]
fn a_large_batch_that_the_ring_has_survives_a_kill_as_a_whole() {
    let disk = MemStorage::new();
    let store = options(Arc::new(disk.clone()))
        .segment_bytes(1 << 20)
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    put(&namespace, "first", "value");
    assert_eq!(store.stats().ring_bytes, 128 << 10);
    let write_outs = store.stats().write_outs;
    let mut batch = store.batch();
    for number in 0..800 {
        batch.put(&namespace, format!("{number}"), "v".repeat(20));
    }
    batch.durability(Durability::Os).commit().unwrap();
    put(&namespace, "17", "newer");
    assert_eq!(store.stats().write_outs, write_outs, "the ring has it");
    let found = after_kill(&disk);
    assert_eq!((found.len(), &*found["17"]), (801, "newer"));
}
