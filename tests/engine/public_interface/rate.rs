//! The rate limit of background compaction, and its exceptions. Time is simulated: real durations
//! do not matter.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embercask::storage::MemStorage;
use embercask::{Clock, CompactionReport, ErrorKind, Namespace, Result, Store};

use crate::public_interface::{intact, put, small_segments, worth_a_run};
use test_support::DIRECTORY;

const STEP_MS: u64 = 100;

/// A clock that advances by a tenth of a second on each reading of the monotonic time, which a
/// waiting run does repeatedly.
#[derive(Clone, Debug, Default)]
struct Stepping(Arc<AtomicU64>);

impl Clock for Stepping {
    fn wall_ms(&self) -> u64 {
        2_000_000_000_000 + self.0.load(Ordering::SeqCst)
    }

    fn monotonic_ms(&self) -> u64 {
        self.0.fetch_add(STEP_MS, Ordering::SeqCst)
    }
}

/// What compaction did in a store with this rate limit, and the simulated time it took.
fn compacted(
    rate: Option<u64>,
    prepare: impl Fn(&Namespace),
    compact: impl Fn(&Store) -> Result<CompactionReport>,
) -> (CompactionReport, u64) {
    let clock = Stepping::default();
    let options = small_segments(Arc::new(MemStorage::new())).clock(clock.clone());
    let store = options.compaction_bytes_per_second(rate).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    prepare(&namespace);
    let before = clock.0.load(Ordering::SeqCst);
    let report = compact(&store).unwrap();
    let passed_ms = clock.0.load(Ordering::SeqCst) - before;
    assert!(report.written_bytes > 20_000, "{report:?}");
    intact(&namespace);
    (report, passed_ms)
}

/// Waste more than 1.25 times its ceiling.
fn overdue(namespace: &Namespace) {
    worth_a_run(namespace);
    (0..400).step_by(4).for_each(|key| put(namespace, key));
    (2..400).step_by(8).for_each(|key| put(namespace, key));
    (3..400).step_by(8).for_each(|key| put(namespace, key));
}

#[test]
fn a_background_run_copies_no_faster_than_the_rate_limit_says() {
    let (unlimited, free_ms) = compacted(None, worth_a_run, Store::compact_if_worthwhile);
    for seconds in [100, 400] {
        let rate = unlimited.written_bytes / seconds;
        let (limited, passed_ms) = compacted(Some(rate), worth_a_run, Store::compact_if_worthwhile);
        assert_eq!(limited, unlimited);
        // Segment headers do not count, and the run may notice slightly late that its time has
        // come.
        let due_ms = seconds * 1000;
        assert!(free_ms < due_ms / 2, "{free_ms} ms pass without a limit");
        assert!(passed_ms > due_ms * 9 / 10, "{passed_ms} of {due_ms} ms");
        assert!(
            passed_ms < due_ms + 2 * free_ms + 60_000,
            "{passed_ms} of {due_ms} ms, {free_ms} without a limit"
        );
    }
}

#[test]
fn the_rate_limit_does_not_hold_for_a_compaction_that_was_asked_for() {
    let (_, free_ms) = compacted(None, worth_a_run, Store::compact);
    let (report, passed_ms) = compacted(Some(1000), worth_a_run, Store::compact);
    let due_ms = report.written_bytes;
    assert!(
        due_ms > 2 * free_ms,
        "{due_ms} ms are due, {free_ms} pass without a limit"
    );
    assert!(
        passed_ms < due_ms / 2,
        "{passed_ms} of {due_ms} ms, {free_ms} without a limit"
    );
}

/// A clock that moves only when told to and, once armed, notifies on each reading of the monotonic
/// time.
#[derive(Clone, Debug)]
struct Watched {
    ms: Arc<AtomicU64>,
    armed: Arc<AtomicBool>,
    looks: Arc<Mutex<Sender<()>>>,
}

impl Clock for Watched {
    fn wall_ms(&self) -> u64 {
        2_000_000_000_000 + self.ms.load(Ordering::SeqCst)
    }

    fn monotonic_ms(&self) -> u64 {
        let in_run = std::thread::current().name() == Some("run");
        if in_run && self.armed.load(Ordering::SeqCst) {
            // The receiver is gone once the test is over.
            let _ = self.looks.lock().unwrap().send(());
        }
        self.ms.load(Ordering::SeqCst)
    }
}

struct HeldUp {
    clock: Watched,
    looks: Receiver<()>,
    store: Store,
    namespace: Namespace,
}

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs this on another thread with a timeout, so that a test for endless waits does not wait
/// endlessly itself.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, is_done) = channel();
    std::thread::spawn(move || done.send(work()));
    is_done.recv_timeout(PATIENCE).expect("the call still waits")
}

/// Makes a background run wait for the rate limit, ends the wait in this way, and returns the
/// result of the run.
fn ended_by(end: impl Fn(&HeldUp)) -> (HeldUp, Result<CompactionReport>) {
    let (sender, looks) = channel();
    let clock = Watched {
        ms: Arc::default(),
        armed: Arc::default(),
        looks: Arc::new(Mutex::new(sender)),
    };
    let options = small_segments(Arc::new(MemStorage::new())).clock(clock.clone());
    let store = options.compaction_bytes_per_second(Some(100)).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    // Completed calls no longer count as waiting for a run.
    store.compact().unwrap();
    store.checkpoint("/copy").unwrap();
    worth_a_run(&namespace);
    // Seals what still waits for it, so that one run does all there is to do.
    store.maintain().unwrap();
    clock.armed.store(true, Ordering::SeqCst);
    let world = HeldUp {
        clock,
        looks,
        store,
        namespace,
    };
    let (done, is_done) = channel();
    let store = world.store.clone();
    let run = move || done.send(store.compact_if_worthwhile()).unwrap();
    std::thread::Builder::new().name("run".to_owned()).spawn(run).unwrap();
    // The run reads the time for each segment at each turn of its wait. If it were not held up, it
    // would finish, or start a second run.
    for look in 0..1000 {
        assert!(
            world.looks.recv_timeout(PATIENCE).is_ok(),
            "only {look} readings of the time"
        );
    }
    assert_eq!(world.store.stats().compaction.runs, 0, "the run was not held up");
    assert!(is_done.try_recv().is_err(), "the run was not held up");
    end(&world);
    let result = is_done.recv_timeout(PATIENCE).expect("the run still waits");
    (world, result)
}

#[test]
fn a_run_that_is_held_up_goes_on_when_its_time_has_come() {
    let (world, result) = ended_by(|world| world.clock.ms.store(1 << 40, Ordering::SeqCst));
    assert!(result.is_err() || result.is_ok_and(|report| report.runs > 0));
    assert!(world.store.stats().compaction.runs > 0);
    intact(&world.namespace);
}

#[test]
fn a_run_that_is_held_up_can_be_paused_cancelled_and_closed() {
    type End = fn(&HeldUp);
    let ends: [(End, ErrorKind); 3] = [
        (|world| world.store.pause_compaction(), ErrorKind::Cancelled),
        (|world| world.store.cancel_compaction(), ErrorKind::Cancelled),
        (
            |world| {
                let store = world.store.clone();
                in_time(move || store.close()).unwrap();
            },
            ErrorKind::Closed,
        ),
    ];
    for (end, kind) in ends {
        let (world, result) = ended_by(end);
        let error = result.expect_err("must be given up");
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(world.store.stats().compaction.runs, 0);
    }
}

/// A requested compaction is not slowed down by a run before it.
#[test]
fn a_run_that_is_held_up_hurries_when_a_call_waits_for_it_to_end() {
    let (world, result) = ended_by(|world| {
        let store = world.store.clone();
        let report = in_time(move || store.compact()).unwrap();
        assert!(report.reclaimed_bytes > 0, "{report:?}");
        world.store.cancel_compaction();
    });
    // The first run, which the call waited for, succeeded; later ones may have been cancelled.
    assert!(result.is_ok() || result.is_err_and(|error| error.kind() == ErrorKind::Cancelled));
    assert!(world.store.stats().compaction.runs > 1);
    intact(&world.namespace);
}

#[test]
fn a_run_that_is_held_up_hurries_when_a_checkpoint_waits_for_it_to_end() {
    let (world, result) = ended_by(|world| {
        let store = world.store.clone();
        in_time(move || store.checkpoint("/copy again")).unwrap();
        assert_eq!(world.store.stats().compaction.runs, 1);
        world.store.cancel_compaction();
    });
    assert!(result.is_ok() || result.is_err_and(|error| error.kind() == ErrorKind::Cancelled));
    intact(&world.namespace);
}

#[test]
fn a_run_that_is_held_up_hurries_once_waste_is_far_above_its_ceiling() {
    let (world, result) = ended_by(|world| {
        overdue(&world.namespace);
        let done = |world: &HeldUp| world.store.stats().compaction.runs > 0;
        // The next turn of the wait should notice.
        let waiting = (0..2_000).take_while(|_| !done(world) && world.looks.recv_timeout(PATIENCE).is_ok());
        waiting.for_each(drop);
        assert!(done(world), "the run still waits");
        // The waste left for the following runs is lower, so they are held up again.
        world.store.cancel_compaction();
    });
    assert!(result.is_ok() || result.is_err_and(|error| error.kind() == ErrorKind::Cancelled));
    intact(&world.namespace);
}
