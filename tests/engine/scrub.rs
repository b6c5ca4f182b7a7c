//! Damage is found before it is needed, at the rate that was asked for, and without holding others
//! up.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use embercask::storage::{
    Call, Fault, FaultKind, FaultStorage, Interposed, Interposer, MemStorage, Operation, Storage,
};
use embercask::{
    Durability, ErrorKind, Maintenance, ManualClock, Namespace, Options, ReadMode, ScrubStats, Stats, Store,
};
use test_support::{DIRECTORY, StopOnDrop, at_least, manual, rng, until};

const NOW_MS: u64 = 1_700_000_000_000;
/// Bytes per second: one each millisecond.
const RATE: u64 = 1_000;
/// Time for a pass over each of these stores.
const PASS_MS: u64 = 1 << 30;
/// Only a call that hangs takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

fn options(storage: Arc<dyn Storage>, clock: &ManualClock) -> Options {
    manual(storage)
        .durability(Durability::Os)
        .clock(clock.clone())
        .scrub_bytes_per_second(Some(RATE))
}

/// A store of several sealed segments.
fn filled(options: Options) -> (Store, Namespace) {
    let store = options.open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    fill(&namespace);
    store.maintain().unwrap();
    (store, namespace)
}

fn fill(namespace: &Namespace) {
    for n in 0..60 {
        namespace.put(format!("key {n:02}"), [7; 300]).unwrap();
    }
}

/// The files of the sealed segments, oldest first.
fn sealed(store: &Store) -> Vec<PathBuf> {
    let segments = store.stats().segments.into_iter();
    let sealed = segments.filter(|segment| segment.sealed);
    sealed
        .map(|segment| Path::new(DIRECTORY).join(format!("{:016x}.segment", segment.id)))
        .collect()
}

/// Lets the time for a pass go by, and makes it.
fn pass(clock: &ManualClock, store: &Store) -> Stats {
    let passes = store.stats().scrub.passes;
    clock.advance(PASS_MS);
    // The first call ends the pass that was begun before.
    while store.stats().scrub.passes < passes + 2 {
        store.maintain().unwrap();
        clock.advance(PASS_MS);
    }
    store.stats()
}

fn offset_in(error: &str) -> u64 {
    error.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_flipped_bit_in_any_byte_of_a_sealed_segment_is_found_in_one_pass() {
    for mode in [ReadMode::Pread, ReadMode::Map] {
        let (disk, clock) = (MemStorage::new(), ManualClock::new(NOW_MS));
        let (store, namespace) = filled(options(Arc::new(disk.clone()), &clock).read_mode(mode));
        store
            .batch()
            .put(&namespace, "b", "1")
            .delete(&namespace, "key 00")
            .commit()
            .unwrap();
        fill(&namespace);
        store.maintain().unwrap();
        let files = sealed(&store);
        at_least(4, files.len() as u64, "sealed segments");
        for path in [&files[0], &files[files.len() / 2]] {
            let bytes = disk.read_file(path).unwrap().len() as u64;
            for byte in 0..bytes {
                disk.flip_bit(path, byte * 8 + byte % 8).unwrap();
                clock.advance(PASS_MS);
                store.maintain().unwrap();
                let stats = store.stats();
                let [error] = &stats.scrub.errors[..] else {
                    panic!("{mode:?}, byte {byte}: {:?}", stats.scrub)
                };
                assert!(error.contains(&path.display().to_string()), "byte {byte}: {error}");
                assert!(offset_in(error) <= byte, "byte {byte}: {error}");
                assert_eq!(stats.scrub.damaged_segments, 1);
                assert_eq!(stats.background_error.as_ref(), Some(error));
                disk.flip_bit(path, byte * 8 + byte % 8).unwrap();
                clock.advance(PASS_MS);
                store.maintain().unwrap();
                assert_eq!(store.stats().scrub.damaged_segments, 0, "sound again");
            }
        }
        assert_eq!(namespace.count().unwrap(), 61);
    }
}

#[test]
fn a_missing_cut_or_lengthened_segment_is_found() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(NOW_MS));
    let (store, _namespace) = filled(options(Arc::new(disk.clone()), &clock));
    let path = &sealed(&store)[1];
    let bytes = disk.read_file(path).unwrap();
    let length = bytes.len() as u64;
    let found = |change: &dyn Fn()| {
        change();
        let stats = pass(&clock, &store);
        disk.write_file(path, &bytes).unwrap();
        assert_eq!(pass(&clock, &store).scrub.errors, [] as [String; 0]);
        let [error] = &stats.scrub.errors[..] else {
            panic!("{:?}", stats.scrub)
        };
        assert!(error.contains(&path.display().to_string()), "{error}");
        error.clone()
    };
    assert!(found(&|| disk.remove_file(path).unwrap()).contains("missing"));
    assert_eq!(
        offset_in(&found(&|| disk.truncate(path, length - 1).unwrap())),
        length - 1
    );
    assert_eq!(offset_in(&found(&|| disk.truncate(path, 10).unwrap())), 10);
    assert_eq!(offset_in(&found(&|| disk.truncate(path, length + 1).unwrap())), length);
    let another = disk.read_file(&sealed(&store)[2]).unwrap();
    assert_eq!(offset_in(&found(&|| disk.write_file(path, &another).unwrap())), 0);
}

/// Counts the reads of segments.
#[derive(Debug, Default)]
struct Reads(AtomicU64);

impl Interposer for Reads {
    fn around(&self, call: &Call<'_>, make: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        if call.operation == Operation::Read && call.path.extension().is_some_and(|end| end == "segment") {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        make()
    }
}

#[test]
fn nothing_is_read_unless_it_is_asked_for_and_it_is_read_from_the_files() {
    for mode in [ReadMode::Pread, ReadMode::Map] {
        for rate in [None, Some(RATE)] {
            let reads = Arc::new(Reads::default());
            let storage = Interposed::over(Arc::new(MemStorage::new()), reads.clone());
            let clock = ManualClock::new(NOW_MS);
            let options = options(Arc::new(storage), &clock).read_mode(mode);
            let (store, _namespace) = filled(options.scrub_bytes_per_second(rate));
            let before = reads.0.load(Ordering::SeqCst);
            clock.advance(PASS_MS);
            store.maintain().unwrap();
            let read = reads.0.load(Ordering::SeqCst) - before;
            if rate.is_none() {
                assert_eq!((read, store.stats().scrub), (0, ScrubStats::default()));
            } else {
                assert!(read >= sealed(&store).len() as u64, "{read}");
            }
        }
    }
}

#[test]
fn the_rate_is_kept_and_no_call_reads_more_than_a_pass() {
    let mut rng = rng();
    let (disk, clock) = (MemStorage::new(), ManualClock::new(NOW_MS));
    let (store, _namespace) = filled(options(Arc::new(disk.clone()), &clock));
    let length = |path: PathBuf| disk.read_file(path).unwrap().len() as u64;
    let whole: u64 = sealed(&store).into_iter().map(length).sum();
    assert_eq!(store.stats().scrub.bytes, 0, "no time has passed");
    let mut passed_ms = 0;
    while passed_ms < 5 * whole {
        let ms = rng.below(2_000);
        clock.advance(ms);
        // The wall clock plays no part.
        clock.set_wall(NOW_MS + rng.below(1 << 40));
        passed_ms += ms;
        let before = store.stats().scrub.passes;
        store.maintain().unwrap();
        let stats = store.stats().scrub;
        // At the end of a pass the rest is left for the next call.
        if stats.passes == before {
            assert_eq!(stats.bytes, passed_ms * RATE / 1_000);
        } else {
            assert_eq!(stats.bytes, stats.passes * whole);
            assert_eq!(stats.last_pass_ms, Some(store.now_ms()));
        }
    }
    at_least(4, store.stats().scrub.passes, "passes");
    let before = store.stats().scrub;
    for n in 1..5 {
        clock.advance(PASS_MS);
        store.maintain().unwrap();
        let stats = store.stats().scrub;
        assert_eq!(stats.passes, before.passes + n);
        assert_eq!(stats.bytes, stats.passes * whole);
    }
}

#[test]
fn a_sound_store_reports_passes_and_no_damage() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(NOW_MS));
    let (store, namespace) = filled(options(Arc::new(disk), &clock));
    for n in 1..=3 {
        fill(&namespace);
        namespace.delete("key 01").unwrap();
        store.compact().unwrap();
        clock.advance(PASS_MS);
        store.maintain().unwrap();
        let stats = store.stats();
        assert_eq!((stats.scrub.passes, stats.scrub.damaged_segments), (n, 0));
        assert_eq!(stats.scrub.last_pass_ms, Some(store.now_ms()));
        assert_eq!((stats.scrub.errors, stats.background_error), (Vec::new(), None));
    }
    // Without a sealed segment there is no pass.
    let store = options(Arc::new(MemStorage::new()), &clock).open(DIRECTORY).unwrap();
    clock.advance(PASS_MS);
    store.maintain().unwrap();
    assert_eq!(store.stats().scrub, ScrubStats::default());
}

/// Recovery cuts the last segment of a killed store where the log is known to be durable: it has no
/// seal, and bytes that do not count follow.
#[test]
fn a_segment_that_recovery_has_cut_is_sound_up_to_its_end() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(NOW_MS));
    let (store, namespace) = filled(options(Arc::new(disk.clone()), &clock));
    for key in ["synced", "marked", "only written"] {
        namespace.put(key, [1; 100]).unwrap();
        if key == "synced" {
            store.sync().unwrap();
        }
    }
    let disk = disk.crash_process();
    let store = options(Arc::new(disk.clone()), &clock).open(DIRECTORY).unwrap();
    let segments = store.stats().segments.into_iter().filter(|segment| segment.sealed);
    let is_cut = |(path, bytes): (PathBuf, u64)| {
        let file = disk.read_file(path).unwrap();
        // A seal begins with its checksum, then its kind.
        file.get(bytes as usize + 8) != Some(&6)
    };
    let cut = sealed(&store)
        .into_iter()
        .zip(segments.map(|segment| segment.bytes))
        .filter(|(path, bytes)| is_cut((path.clone(), *bytes)))
        .count();
    at_least(1, cut as u64, "cut segments");
    let stats = pass(&clock, &store);
    assert_eq!((stats.scrub.errors, stats.background_error), (Vec::new(), None));
}

/// The segment is begun, and removed before it has been read to its end: its space is free at once,
/// and nothing is reported.
#[test]
fn a_segment_that_is_compacted_away_while_it_is_read_does_no_harm() {
    for mode in [ReadMode::Pread, ReadMode::Map] {
        let (disk, clock) = (MemStorage::new(), ManualClock::new(NOW_MS));
        let (store, namespace) = filled(options(Arc::new(disk.clone()), &clock).read_mode(mode));
        let first = sealed(&store)[0].clone();
        clock.advance(1_000);
        store.maintain().unwrap();
        assert_eq!(store.stats().scrub.bytes, 1_000, "not in the middle of the segment");
        fill(&namespace);
        store.compact().unwrap();
        assert!(!disk.exists(&first).unwrap());
        let files: u64 = disk
            .files(DIRECTORY)
            .iter()
            .map(|path| disk.read_file(path).unwrap().len() as u64)
            .sum();
        assert_eq!(disk.used(), files, "{mode:?}: something holds a removed file");
        let stats = pass(&clock, &store);
        assert_eq!(
            (stats.scrub.errors, stats.background_error),
            (Vec::new(), None),
            "{mode:?}"
        );
        assert!(stats.scrub.passes >= 2);
    }
}

#[test]
fn damage_is_counted_as_long_as_it_is_there_and_noted_once() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(NOW_MS));
    let (store, namespace) = filled(options(Arc::new(disk.clone()), &clock));
    let files = sealed(&store);
    let names = |error: &Option<String>, path: &Path| {
        error
            .as_ref()
            .is_some_and(|error| error.contains(&path.display().to_string()))
    };
    // The later segment first: if its damage were noted in each pass, it would be the latest error.
    disk.flip_bit(&files[3], 2_000).unwrap();
    assert!(names(&pass(&clock, &store).background_error, &files[3]));
    disk.flip_bit(&files[1], 2_000).unwrap();
    for _ in 0..3 {
        let stats = pass(&clock, &store);
        assert!(
            names(&stats.background_error, &files[1]),
            "{:?}",
            stats.background_error
        );
        let [first, second] = &stats.scrub.errors[..] else {
            panic!("{:?}", stats.scrub)
        };
        assert!(names(&Some(first.clone()), &files[1]) && names(&Some(second.clone()), &files[3]));
        assert_eq!(stats.scrub.damaged_segments, 2);
    }
    // Verify reads everything itself, and says the same.
    let report = store.verify().unwrap();
    let damaged: Vec<_> = report.damaged.iter().map(|damaged| &damaged.path).collect();
    assert!(
        damaged.contains(&&files[1]) && damaged.contains(&&files[3]),
        "{report:?}"
    );
    // Without live records the segments go, and with them the count.
    fill(&namespace);
    store.compact().unwrap();
    assert!(!disk.exists(&files[1]).unwrap() && !disk.exists(&files[3]).unwrap());
    let stats = pass(&clock, &store).scrub;
    assert_eq!((stats.damaged_segments, stats.errors), (0, Vec::new()));
}

/// As if compaction had found the damage itself.
#[test]
fn compaction_leaves_alone_what_scrubbing_has_found_damaged() {
    for scrubs in [false, true] {
        let (disk, clock) = (MemStorage::new(), ManualClock::new(NOW_MS));
        let (store, namespace) = filled(options(Arc::new(disk.clone()), &clock).read_mode(ReadMode::Pread));
        let path = sealed(&store)[1].clone();
        disk.flip_bit(&path, 2_000).unwrap();
        // One live key stays in each segment, so each would be compacted.
        for n in (0..60).filter(|n| n % 3 != 0) {
            namespace.put(format!("key {n:02}"), "new").unwrap();
        }
        if scrubs {
            assert_eq!(pass(&clock, &store).scrub.damaged_segments, 1);
            // Known already: the run neither reads it nor fails.
            assert!(store.compact().unwrap().reclaimed_bytes > 0);
        } else {
            assert_eq!(store.compact().unwrap_err().kind(), ErrorKind::Corruption);
        }
        assert!(disk.exists(&path).unwrap(), "scrubs: {scrubs}");
        store.compact().unwrap();
        fill(&namespace);
        store.compact().unwrap();
        assert!(!disk.exists(&path).unwrap(), "scrubs: {scrubs}");
    }
}

#[test]
fn what_the_device_fails_to_read_is_reported_and_read_again_in_the_next_pass() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(NOW_MS));
    let faults = FaultStorage::new(Arc::new(disk));
    let (store, _namespace) = filled(options(Arc::new(faults.clone()), &clock));
    let path = sealed(&store)[1].clone();
    let name = path.file_name().unwrap().to_str().unwrap();
    faults.inject(
        Fault::new(FaultKind::Error(io::ErrorKind::Other))
            .on(Operation::Read)
            .path(name)
            .repeated(),
    );
    for _ in 0..2 {
        let stats = pass(&clock, &store);
        let [error] = &stats.scrub.errors[..] else {
            panic!("{:?}", stats.scrub)
        };
        assert!(error.contains("cannot read") && error.contains(name), "{error}");
        assert_eq!(stats.background_error.as_ref(), Some(error));
    }
    faults.clear();
    assert_eq!(pass(&clock, &store).scrub.damaged_segments, 0);
    // Compaction tries for itself.
    assert!(store.compact().is_ok());
    // A file that cannot be opened is no damage, and does not end the pass.
    let path = sealed(&store)[0].clone();
    let name = path.file_name().unwrap().to_str().unwrap();
    faults.inject(Fault::new(FaultKind::NoDescriptors).path(name).repeated());
    let stats = pass(&clock, &store);
    assert_eq!(stats.scrub.damaged_segments, 0);
    assert!(stats.background_error.unwrap().contains(name));
}

/// On the real clock. The damage is found without a call, and closing does not wait for the end of
/// a pass or of a sleep.
#[test]
fn the_thread_finds_damage_and_ends_with_the_store() {
    for rate in [1, 1 << 20, u64::MAX] {
        let disk = MemStorage::new();
        let (store, namespace) = filled(
            manual(Arc::new(disk.clone()))
                .maintenance(Maintenance::Background)
                .scrub_bytes_per_second(Some(rate)),
        );
        until("segments are sealed", || sealed(&store).len() > 2);
        disk.flip_bit(&sealed(&store)[1], 2_000).unwrap();
        if rate > 1 {
            until("the damage is found", || store.stats().scrub.damaged_segments == 1);
            let passes = store.stats().scrub.passes;
            until("the next pass ends", || store.stats().scrub.passes > passes);
        }
        drop(namespace);
        let (done, is_done) = channel();
        std::thread::spawn(move || done.send(store.close()));
        is_done.recv_timeout(PATIENCE).expect("closing hangs").unwrap();
    }
}

/// A read that hangs holds up only the thread that scrubs.
#[derive(Debug, Default)]
struct Hanging {
    armed: AtomicBool,
    hangs: AtomicU64,
    let_go: AtomicBool,
}

impl Interposer for Hanging {
    fn around(&self, call: &Call<'_>, make: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let scrubs = std::thread::current().name() == Some("embercask-scrub");
        if scrubs && call.operation == Operation::Read && self.armed.load(Ordering::SeqCst) {
            self.hangs.fetch_add(1, Ordering::SeqCst);
            while !self.let_go.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
        }
        make()
    }
}

#[test]
fn a_read_that_hangs_holds_up_nobody_else() {
    let hanging = Arc::new(Hanging::default());
    let storage = Interposed::over(Arc::new(MemStorage::new()), hanging.clone());
    let (store, namespace) = filled(
        manual(Arc::new(storage))
            .maintenance(Maintenance::Background)
            .durability(Durability::Os)
            .read_mode(ReadMode::Pread)
            .scrub_bytes_per_second(Some(u64::MAX)),
    );
    let _let_go = StopOnDrop(&hanging.let_go);
    hanging.armed.store(true, Ordering::SeqCst);
    until("a read hangs", || hanging.hangs.load(Ordering::SeqCst) > 0);
    let (done, is_done) = channel();
    let working = store.clone();
    std::thread::spawn(move || {
        fill(&namespace);
        working.sync().unwrap();
        working.compact().unwrap();
        working.maintain().unwrap();
        let _ = working.stats();
        done.send(namespace.count().unwrap()).unwrap();
    });
    assert_eq!(is_done.recv_timeout(PATIENCE).expect("somebody waits"), 60);
    hanging.let_go.store(true, Ordering::SeqCst);
    // What was read belongs to a segment that is gone.
    let passes = store.stats().scrub.passes;
    until("scrubbing goes on", || store.stats().scrub.passes > passes + 1);
    assert_eq!(store.stats().background_error, None);
    store.close().unwrap();
}

#[test]
fn nothing_is_reported_while_writers_and_compaction_are_at_it() {
    for mode in [ReadMode::Pread, ReadMode::Map] {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::options()
            .segment_bytes(64 << 10)
            .durability(Durability::Os)
            .read_mode(mode)
            .scrub_bytes_per_second(Some(1 << 40))
            .open(directory.path())
            .unwrap();
        let namespace = store.namespace("N").unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stop = StopOnDrop(&stop);
            let (stop, store, namespace) = (&stop, &store, &namespace);
            scope.spawn(move || {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    namespace.put(format!("{}", n % 700), vec![1; n % 900]).unwrap();
                }
            });
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    store.compact().unwrap();
                }
            });
            until("enough was read", || {
                let stats = store.stats();
                stats.scrub.passes > 10 && stats.compaction.runs > 20
            });
        });
        let stats = store.stats();
        assert_eq!(
            (stats.scrub.errors, stats.background_error),
            (Vec::new(), None),
            "{mode:?}"
        );
        store.close().unwrap();
    }
}
