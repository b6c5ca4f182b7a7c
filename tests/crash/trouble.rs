//! Every step of a run fails in turn, and the store responds as it promises.
//!
//! The workload is that of `tests/crash/every_step.rs`: every kind of operation in a few hundred
//! steps. It is run again for each of its calls, and that call fails; or, from that call on, calls
//! of one kind fail until the disk is put in order. From then on, after each deed (promises 8 and 9
//! of `docs/durability.md`):
//!
//! * the call succeeds or returns an error of the fitting kind; it never hangs and never reports
//!   damage;
//! * a failed operation happened completely or not at all; reads keep working and show which;
//! * after a failed sync of the log, writes are refused until the store is opened again, and
//!   nothing is acknowledged meanwhile;
//! * a store that is not poisoned carries on, and works again as soon as the disk does;
//! * a kill or a power cut at any of these points leaves the acknowledged writes, in order and
//!   without damage, even if the data of a failed sync are lost although reads still show them.
//!
//! `tests/engine/faults/` has single scenarios, and covers threads, the directory and a disk that
//! stays full.
//!
//! One in seven calls is tried by default, different ones in each run, and every one with
//! `EMBERCASK_EXHAUSTIVE=1`; `EMBERCASK_SEED` repeats a run. A failure prints the value of
//! `EMBERCASK_FAULT_PLACE` that replays just its life.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use embercask::storage::{CutPolicy, Fault, FaultKind, FaultStorage, MemStorage, Operation, Storage};
use embercask::{Durability, Error, ErrorKind, ManualClock, Result};

use test_support::Sample;
use test_support::crash::cut::Cut;
use test_support::crash::trouble::{FAILED, Trouble, Troublemaker, troubles};
use test_support::crash::workload::{Deed, Workload};
use test_support::driver::{self, Driver, Observer, START_MS, look};
use test_support::model;
use test_support::ops::{self, Crash, FIRST_NAMES, Op, Settings, Upkeep, Write};
use test_support::way::Way;

/// Deeds performed after the first failure.
const DEEDS_AFTER: usize = 6;
/// Of these, the number performed before the disk is put in order.
const DEEDS_IN_TROUBLE: usize = 3;
/// A life that takes longer hangs. Normally it takes a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(180);
/// More calls than the life makes.
const CALLS_MAX: u64 = 100_000;
/// Openings and maps are not steps; their failures begin at one in this many steps.
const STEPS_BETWEEN_OPENINGS: usize = 3;
/// One in this many beginnings of trouble is tried, unless the run is exhaustive. Odd, so that both
/// read modes are used.
const ONE_IN: u64 = 7;
/// Every N-th step of a life, it is killed before the step and opened with trouble.
const STEPS_BETWEEN_KILLS: usize = 9;
const PLACE: &str = "EMBERCASK_FAULT_PLACE";

/// One life with trouble from one step on.
struct Life<'a> {
    workload: &'a Workload,
    /// Its modifying calls when nothing fails, as text.
    steps: &'a [String],
    settings: Settings,
    maker: Arc<Troublemaker>,
    driver: Driver,
    lived: Lived,
}

/// Counts from one or more lives.
#[derive(Clone, Copy, Debug, Default)]
struct Lived {
    /// Lives in which the trouble struck.
    struck: u64,
    /// Of these, lives in which an operation failed because of it.
    failed: u64,
    /// Lives whose store was poisoned.
    poisoned: u64,
    /// Lives in which a sync of the log failed.
    lost_syncs: u64,
}

impl Lived {
    fn add(&mut self, other: Lived) {
        self.struck += other.struck;
        self.failed += other.failed;
        self.poisoned += other.poisoned;
        self.lost_syncs += other.lost_syncs;
    }
}

/// How segments are read, and whether there is a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mode {
    pread: bool,
    ring: bool,
}

impl Mode {
    const ALL: [(&'static str, Mode); 4] = [
        ("map", Mode::new(false, false)),
        ("pread", Mode::new(true, false)),
        ("map-ring", Mode::new(false, true)),
        ("pread-ring", Mode::new(true, true)),
    ];

    const fn new(pread: bool, ring: bool) -> Mode {
        Mode { pread, ring }
    }

    fn name(self) -> &'static str {
        Mode::ALL.iter().find(|(_, mode)| *mode == self).unwrap().0
    }

    fn settings(self, of: &Settings) -> Settings {
        Settings {
            pread: self.pread,
            ring: self.ring,
            ..of.clone()
        }
    }
}

/// Runs a life. Nothing fails if there is no such step.
fn live(workload: &Workload, steps: &[String], trouble: &Trouble, at: u64, mode: Mode) -> Lived {
    let maker = Troublemaker::new(trouble, at);
    let settings = mode.settings(&workload.settings);
    let clock = ManualClock::new(START_MS);
    let disk = MemStorage::seeded(settings.seed);
    let begin = |disk: &MemStorage| Driver::on(disk.clone(), &settings, &clock, maker.clone());
    let mut lived = Lived::default();
    let driver = begin(&disk).unwrap_or_else(|error| {
        lived.failed = 1;
        assert_answer(trouble, &error);
        maker.put_in_order();
        // Leftovers of a failed creation must not prevent the next.
        begin(&disk.crash_process()).unwrap_or_else(|second| panic!("creating again after {error}: {second}"))
    });
    let mut life = Life {
        workload,
        steps,
        settings: settings.clone(),
        maker,
        driver,
        lived,
    };
    life.go_through();
    life.lived.struck = u64::from(life.maker.struck());
    life.lived
}

fn assert_answer(trouble: &Trouble, error: &Error) {
    assert!(
        [trouble.answer, ErrorKind::Poisoned].contains(&error.kind()),
        "{} led to {error:?}",
        trouble.name
    );
}

impl Life<'_> {
    fn go_through(&mut self) {
        let creations = (0..FIRST_NAMES).map(|name| Deed::Op(Op::Write(Write::CreateNamespace { name })));
        let deeds: Vec<Deed> = creations.chain(self.workload.deeds.iter().cloned()).collect();
        let mut after = 0;
        for (number, deed) in deeds.iter().enumerate() {
            let before = self.maker.struck();
            let result = self.deed(number, deed);
            if let Err(error) = &result {
                assert!(self.maker.struck(), "{deed:?}: {error}, although nothing was wrong");
                self.lived.failed = 1;
                assert_answer(&self.maker.trouble, error);
            }
            if !self.maker.struck() {
                continue;
            }
            self.examine(number, deed, &result, !before);
            after += 1;
            if after == DEEDS_IN_TROUBLE {
                self.maker.put_in_order();
            }
            if after > DEEDS_AFTER {
                break;
            }
        }
        self.end();
    }

    fn deed(&mut self, number: usize, deed: &Deed) -> Result<()> {
        match deed {
            Deed::Op(Op::Write(write)) => self.driver.try_write(write),
            Deed::Op(Op::Upkeep(upkeep)) => self.driver.try_upkeep(upkeep),
            Deed::Op(Op::Hold(hold)) => self.driver.try_hold(hold),
            Deed::Op(Op::Advance(ms)) => {
                self.driver.advance(*ms);
                Ok(())
            }
            Deed::Op(Op::Reopen { way, settings }) => {
                let mode = Mode::new(self.settings.pread, self.settings.ring);
                let settings = mode.settings(settings);
                let closed = self.driver.try_upkeep(&Upkeep::Close);
                let opened = self.driver.try_reopen(*way, &settings);
                closed.and(opened)
            }
            Deed::Checkpoint => {
                let path = format!("/data/copy-{number}");
                self.driver.store().checkpoint(path).map(drop)
            }
            Deed::Verify => match self.driver.store().verify() {
                Ok(report) => {
                    // Unreadable parts are reported with their causes.
                    let mut causes = report.damaged.iter().map(|damaged| &damaged.cause);
                    assert!(
                        causes.all(|cause| cause.contains("injected fault")),
                        "{:?}",
                        report.damaged
                    );
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Deed::Op(op) => panic!("{op:?} is not part of this life"),
        }
    }

    /// Checks after each deed, from the first failed one on.
    fn examine(&mut self, number: usize, deed: &Deed, result: &Result<()>, first: bool) {
        self.driver.check_shown();
        let seed = number as u64 + self.maker.at * 1000;
        let cuts = [CutPolicy::LoseUnsynced, CutPolicy::Random { seed, grain: 512 }];
        for crash in [Crash::Kill].into_iter().chain(cuts.map(Crash::PowerCut)) {
            self.driver.outlives(&crash).unwrap_or_else(|error| panic!("{error}"));
        }
        let poisoned = self.driver.store().stats().poisoned;
        if matches!(result, Err(error) if error.kind() == ErrorKind::Poisoned) {
            assert!(poisoned.is_some(), "{result:?}");
        }
        let writes = matches!(deed, Deed::Op(Op::Write(_) | Op::Upkeep(Upkeep::Sync)));
        if first && writes && result.is_err() && self.lost_a_sync_of_the_log() {
            assert!(
                poisoned.is_some(),
                "the store is not poisoned by a failed sync of the log"
            );
            self.lived.lost_syncs = 1;
        }
        if poisoned.is_some() {
            self.lived.poisoned = 1;
            self.refuses();
            // Reopening is the cure.
            let settings = self.settings.clone();
            // If the disk still refuses, it is retried on a healthy one.
            if let Err(error) = self.driver.try_reopen(Way::IndexFile, &settings) {
                assert_answer(&self.maker.trouble, &error);
            }
            self.driver.check_shown();
        }
    }

    /// Whether the trouble is a failed sync of a segment that is in use, not of one that was
    /// discarded.
    fn lost_a_sync_of_the_log(&self) -> bool {
        let trouble = &self.maker.trouble;
        let step = self.steps.get(self.maker.at as usize);
        trouble.kind == FaultKind::FailedSync
            && step.and_then(|step| step.strip_prefix("Sync ")).is_some_and(|file| {
                let segments = self.driver.store().stats().segments;
                segments
                    .iter()
                    .any(|segment| file == format!("{:016x}.segment", segment.id))
            })
    }

    /// Every kind of write is refused; reads are unaffected.
    fn refuses(&mut self) {
        self.maker.calm(true);
        let put = |durability| Write::Put {
            namespace: 0,
            key: 0,
            put: ops::Put {
                length: 5,
                ttl: None,
                metadata: None,
            },
            guard: None,
            durability: Some(durability),
        };
        let delete = Write::Delete {
            namespace: 0,
            key: 0,
            guard: None,
            durability: None,
        };
        let create = Write::CreateNamespace { name: 2 };
        let take_all = Write::DeleteRange {
            namespace: 0,
            range: ops::Range::Prefix(0),
            batch_keys: 2,
            batches: None,
            durability: None,
        };
        let step = ops::Step::Delete { namespace: 0, key: 0 };
        let transaction = Write::Transaction(ops::Transaction {
            steps: vec![step],
            intrusion: None,
            fails: false,
            durability: None,
        });
        let has_namespace = self.driver.state().namespaces.contains_key(ops::NAMES[0]);
        let writes = [
            put(Durability::Buffered),
            put(Durability::Os),
            put(Durability::Sync),
            delete,
            transaction,
        ];
        let is_empty = |keyspace: &model::Keyspace| keyspace.items.is_empty();
        let namespace = self.driver.state().namespaces.get(ops::NAMES[0]);
        let ranges = Some(take_all).filter(|_| !namespace.is_none_or(is_empty));
        let mut results: Vec<_> = writes
            .iter()
            .chain(&ranges)
            .filter(|_| has_namespace)
            .map(|write| self.driver.try_write(write))
            .collect();
        if !self.driver.state().namespaces.contains_key(ops::NAMES[2]) {
            results.push(self.driver.try_write(&create));
        }
        results.push(self.driver.try_upkeep(&Upkeep::Flush));
        results.push(self.driver.try_upkeep(&Upkeep::Sync));
        results.push(self.driver.try_upkeep(&Upkeep::Compact));
        for (index, result) in results.iter().enumerate() {
            let refused = matches!(result, Err(Error::Poisoned { .. }));
            assert!(refused, "write {index} on a poisoned store returned {result:?}");
        }
        self.driver.check_shown();
        self.maker.calm(false);
    }

    /// With the disk in order again, everything works, and acknowledged writes last.
    fn end(&mut self) {
        self.maker.put_in_order();
        let put = Write::Put {
            namespace: 0,
            key: 1,
            put: ops::Put {
                length: 50,
                ttl: None,
                metadata: None,
            },
            guard: None,
            durability: Some(Durability::Sync),
        };
        self.driver
            .try_write(&put)
            .and_then(|()| self.driver.try_upkeep(&Upkeep::Compact))
            .and_then(|()| self.driver.try_upkeep(&Upkeep::Sync))
            .and_then(|()| self.driver.try_upkeep(&Upkeep::Close))
            .unwrap_or_else(|error| panic!("with the disk in order again: {error}"));
        let lost = Crash::PowerCut(CutPolicy::LoseUnsynced);
        self.driver.outlives(&lost).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// Runs one life on its own thread, so that a hang is detected.
fn live_in_time(workload: &Arc<Workload>, steps: &Arc<Vec<String>>, index: usize, at: u64, mode: Mode) -> Lived {
    let (sender, receiver) = mpsc::channel();
    let (workload, steps) = (workload.clone(), steps.clone());
    std::thread::spawn(move || {
        let trouble = &troubles()[index];
        let lived = catch_unwind(AssertUnwindSafe(|| live(&workload, &steps, trouble, at, mode)));
        let _ = sender.send(lived.map_err(|panic| match panic.downcast::<String>() {
            Ok(text) => *text,
            Err(panic) => panic.downcast_ref::<&str>().copied().unwrap_or("a panic").to_owned(),
        }));
    });
    let error = match receiver.recv_timeout(PATIENCE) {
        Ok(Ok(lived)) => return lived,
        Ok(Err(error)) => error,
        Err(_) => "it hangs".to_owned(),
    };
    let trouble = &troubles()[index];
    let mode = mode.name();
    panic!(
        "{}, {:?} from step {at} on, {mode}: {error}\nto replay only this life: {PLACE}='{index}/{at}/{mode}'",
        trouble.name, trouble.operation
    );
}

/// The steps of a life in which nothing fails.
fn steps_of(workload: &Workload) -> Arc<Vec<String>> {
    let recording = workload.record(Arc::new(|disk: &MemStorage| -> Arc<dyn Storage> {
        Arc::new(disk.clone())
    }));
    Arc::new(recording.moments.into_iter().map(|moment| moment.step).collect())
}

/// Where one kind of trouble begins: at each step that it can affect. Calls that are not steps are
/// not counted, so trouble with all calls begins anywhere, and trouble with openings and maps at
/// regular steps.
fn beginnings(trouble: &Trouble, steps: &[String]) -> Vec<u64> {
    let prefixes: Vec<String> = match (trouble.kind, trouble.operation) {
        _ if trouble.all_calls => return (0..CALLS_MAX).collect(),
        (_, Some(Operation::OpenRead | Operation::Map)) => {
            return (0..steps.len() as u64).step_by(STEPS_BETWEEN_OPENINGS).collect();
        }
        (_, Some(operation)) => vec![format!("{operation:?} ")],
        (FaultKind::ShortWrite { .. }, _) => vec!["Write".to_owned()],
        (FaultKind::FailedSync, _) => vec!["Sync".to_owned()],
        _ => ["Write", "Create", "SetLen", "HardLink"].map(str::to_owned).to_vec(),
    };
    let strikes = |step: &String| prefixes.iter().any(|prefix| step.starts_with(prefix));
    (0..steps.len() as u64)
        .filter(|at| strikes(&steps[*at as usize]))
        .collect()
}

/// Runs one kind of trouble, from every sampled beginning, on all cores, with and without a ring.
/// Returns the counts.
fn wherever_it_begins(index: usize, sample: Sample, pread: impl Fn(u64) -> bool + Sync) -> Lived {
    let mut lived = Lived::default();
    for ring in [false, true] {
        lived.add(wherever_it_begins_with(ring, index, sample, &pread));
    }
    println!(
        "{}, {:?}: {lived:?}",
        troubles()[index].name,
        troubles()[index].operation
    );
    lived
}

fn wherever_it_begins_with(ring: bool, index: usize, sample: Sample, pread: impl Fn(u64) -> bool + Sync) -> Lived {
    let workload = Arc::new(Workload::every_kind(ring));
    let steps = steps_of(&workload);
    let beginnings: Vec<_> = sample.of(beginnings(&troubles()[index], &steps).into_iter()).collect();
    let (next, lived) = (AtomicUsize::new(0), Mutex::new(Lived::default()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(at) = beginnings.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let one = live_in_time(&workload, &steps, index, *at, Mode::new(pread(*at), ring));
                    if one.struck == 0 {
                        return;
                    }
                    lived.lock().unwrap().add(one);
                }
            });
        }
    });
    lived.into_inner().unwrap()
}

fn indexes(name: &str) -> Vec<usize> {
    let troubles = troubles();
    (0..troubles.len())
        .filter(|index| troubles[*index].name == name)
        .collect()
}

/// Asserts floors for each of these troubles: the number of lives it struck, and of lives in which
/// an operation failed. Alternates between the read modes, except for map failures.
fn trouble_at_every_step(name: &str, sample: Sample, floors: &[(u64, u64)]) -> Lived {
    let indexes = indexes(name);
    assert_eq!(indexes.len(), floors.len(), "{name}");
    let mut all = Lived::default();
    for (index, (struck, failed)) in indexes.into_iter().zip(floors) {
        let maps = troubles()[index].operation == Some(Operation::Map);
        let lived = wherever_it_begins(index, sample, |at| !maps && at.is_multiple_of(2));
        let what = format!("{name}, {:?}", troubles()[index].operation);
        test_support::at_least(sample.floor(*struck), lived.struck, &format!("lives with {what}"));
        test_support::at_least(
            sample.outcomes(*failed),
            lived.failed,
            &format!("lives in which a call failed by {what}"),
        );
        all.add(lived);
    }
    all
}

#[test]
fn an_error_at_any_call_through_maps_is_told_and_loses_nothing() {
    an_error_at_any_call(false);
}

#[test]
fn an_error_at_any_call_through_reads_is_told_and_loses_nothing() {
    an_error_at_any_call(true);
}

fn an_error_at_any_call(pread: bool) {
    let sample = Sample::one_in(ONE_IN);
    let lived = wherever_it_begins(indexes("an input or output error")[0], sample, |_| pread);
    test_support::at_least(sample.floor(700), lived.struck, "lives");
    test_support::at_least(sample.outcomes(500), lived.failed, "lives in which a call failed");
    test_support::at_least(
        sample.outcomes(200),
        lived.poisoned,
        "lives in which the store was poisoned",
    );
}

#[test]
fn a_write_that_takes_a_part_or_nothing_loses_nothing() {
    trouble_at_every_step("a short write", Sample::one_in(ONE_IN), &[(70, 0)]);
    trouble_at_every_step("a write of nothing", Sample::one_in(ONE_IN), &[(70, 50)]);
}

#[test]
fn a_disk_that_is_full_from_any_step_on_until_there_is_room_again_loses_nothing() {
    trouble_at_every_step("a full disk", Sample::one_in(ONE_IN), &[(120, 100)]);
}

#[test]
fn a_failed_sync_is_never_made_good_by_a_later_one() {
    for name in ["a failed sync", "syncs that fail"] {
        let sample = Sample::one_in(ONE_IN);
        let lived = trouble_at_every_step(name, sample, &[(90, 75)]);
        for (least, found, what) in [
            (70, lived.poisoned, "lives in which the store was poisoned"),
            (7, lived.lost_syncs, "lives in which that was a sync of the log"),
        ] {
            test_support::at_least(sample.outcomes(least), found, what);
        }
    }
}

#[test]
fn too_many_open_files_from_any_step_on_lose_nothing() {
    trouble_at_every_step(
        "too many open files",
        Sample::one_in(ONE_IN),
        &[(40, 30), (90, 80), (90, 60)],
    );
    trouble_at_every_step("no descriptors", Sample::one_in(ONE_IN), &[(700, 600)]);
}

#[test]
fn permissions_that_are_taken_away_at_any_step_lose_nothing() {
    trouble_at_every_step(
        "no permission",
        Sample::one_in(ONE_IN),
        &[(40, 30), (90, 80), (16, 15), (40, 35), (7, 0)],
    );
}

#[test]
fn an_error_at_any_call_of_an_opening_after_a_kill_loses_nothing() {
    let sample = Sample::one_in(ONE_IN);
    for ring in [false, true] {
        an_error_at_any_call_of_an_opening(sample, ring);
    }
}

fn an_error_at_any_call_of_an_opening(sample: Sample, ring: bool) {
    let workload = Workload::every_kind(ring);
    let recording = workload.record(Arc::new(|disk: &MemStorage| -> Arc<dyn Storage> {
        Arc::new(disk.clone())
    }));
    let (mut openings, mut failed) = (0, 0);
    for (step, moment) in recording.moments.iter().enumerate().step_by(STEPS_BETWEEN_KILLS) {
        let allowed = recording.allowed(moment).after(&Cut::Kill);
        for (call, pread) in sample
            .from(step as u64, 0..CALLS_MAX)
            .flat_map(|call| [(call, false), (call, true)])
        {
            let context = || {
                format!(
                    "killed before step {step}, {:?}; call {call} of the opening, pread {pread}",
                    moment.step
                )
            };
            let disk = moment.cut(&Cut::Kill);
            let faults = FaultStorage::new(Arc::new(disk.clone()));
            faults.inject(Fault::new(FAILED).at(call));
            let settings = Mode::new(pread, ring).settings(&workload.settings);
            let clock = ManualClock::new(moment.now);
            match driver::open(&faults, &clock, &settings) {
                Ok(store) => drop(store),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Io, "{}: {error}", context());
                    failed += 1;
                }
            }
            openings += 1;
            let struck = faults.struck() > 0;
            let store = driver::open(&FaultStorage::new(Arc::new(disk.crash_process())), &clock, &settings);
            let found = look(&store.unwrap_or_else(|error| panic!("{}, then again: {error}", context()))).unwrap();
            assert!(
                allowed
                    .states()
                    .iter()
                    .any(|state| state.looks_like(&found, moment.now)),
                "{}: the next opening shows\n{}",
                context(),
                model::describe(&found, moment.now)
            );
            if !struck {
                break;
            }
        }
    }
    println!("{openings} openings, {failed} failed");
    test_support::at_least(sample.floor(5_000), openings, "openings");
    test_support::at_least(sample.outcomes(4_500), failed, "openings that failed");
}

/// By default a life of the first kind, so that replaying keeps working.
#[test]
fn the_life_that_the_environment_names_holds() {
    let place = std::env::var(PLACE).unwrap_or_else(|_| "0/200/map-ring".to_owned());
    let parts: Vec<_> = place.split('/').collect();
    let [index, at, mode] = parts[..] else {
        panic!("{PLACE}: {place} does not name a life");
    };
    let (_, mode) = *Mode::ALL.iter().find(|(name, _)| *name == mode).expect("a mode");
    let workload = Arc::new(Workload::every_kind(mode.ring));
    let (index, at) = (index.parse().unwrap(), at.parse().unwrap());
    let lived = live_in_time(&workload, &steps_of(&workload), index, at, mode);
    assert_eq!(lived.struck, 1, "there is no such step");
}
