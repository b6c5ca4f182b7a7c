//! Applies the same operations to a store and to its model, and compares both.
//!
//! A write is planned by the rules alone ([`plan`]), performed ([`perform`]), and compared with its
//! plan ([`writes`]). Then everything visible is compared ([`compare`]). Upkeep ([`upkeep`])
//! changes nothing visible; what a crash ([`crashes`]) or a failing disk ([`failures`]) may lose is
//! decided by the promises.
//!
//! Across all this the driver holds snapshots, each compared with a copy of the model
//! ([`snapshots`]), and watchers, which are told what the plans say is written ([`watches`]).

mod changes;
mod compare;
mod crashes;
mod failures;
mod look;
mod observer;
mod perform;
mod plan;
mod snapshots;
mod transactions;
mod upkeep;
mod visited;
mod watches;
mod writes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use embercask::storage::{CutPolicy, FaultStorage, MemStorage, Storage};
use embercask::{Clock, Maintenance, ManualClock, Namespace, Options, ReadMode, Result, RingMode, Store, Value};

use crate::model::{History, Promise, State};
use crate::ops::{Crash, FIRST_NAMES, Failure, Hold, Op, Settings, Write, keys};

pub use look::look;
pub use observer::Observer;
pub use visited::Visited;

use failures::fault;
use observer::Nobody;
use snapshots::Taken;
use transactions::Intruded;
use watches::Watcher;

pub const DIRECTORY: &str = "/data/store";
pub const START_MS: u64 = 1_700_000_000_000;
/// More steps than any run has.
const STEPS_MAX: usize = 1_000_000;

pub struct Driver {
    observer: Arc<dyn Observer>,
    disk: MemStorage,
    faults: FaultStorage,
    clock: ManualClock,
    settings: Settings,
    store: Store,
    handles: BTreeMap<String, Namespace>,
    /// The last handle of each dropped namespace.
    stale: BTreeMap<usize, Namespace>,
    history: History,
    keys: Vec<Vec<u8>>,
    /// The wall clock.
    now: u64,
    /// The highest wall clock since the store was opened.
    highest: u64,
    /// Whether the wall clock was set since the store was opened.
    wall_shifted: bool,
    /// The highest sequence that a write returned.
    last_sequence: u64,
    /// Keys of dropped namespaces that may still be in the indexes.
    dropped_keys: u64,
    step: usize,
    held: Vec<(Value, Arc<[u8]>)>,
    snapshots: Vec<Taken>,
    watchers: Vec<Watcher>,
    /// Of the last transaction.
    intruded: Intruded,
    visited: Visited,
}

pub fn open(faults: &FaultStorage, clock: &ManualClock, settings: &Settings) -> Result<Store> {
    options(clock, settings)
        .storage(Arc::new(faults.clone()))
        .open(DIRECTORY)
}

/// The store on this disk, opened for reading only.
fn open_to_read(disk: &MemStorage, clock: &ManualClock, settings: &Settings) -> Result<Store> {
    options(clock, settings)
        .storage(Arc::new(disk.clone()))
        .read_only(true)
        .open(DIRECTORY)
}

fn options(clock: &ManualClock, settings: &Settings) -> Options {
    Store::options()
        .segment_bytes(settings.segment_bytes)
        .durability(settings.durability)
        .expiry_grace(Duration::from_millis(settings.grace_ms))
        .read_mode(if settings.pread { ReadMode::Pread } else { ReadMode::Map })
        .ring(if settings.ring {
            RingMode::Always
        } else {
            RingMode::Never
        })
        .maintenance(Maintenance::Manual)
        .clock(clock.clone())
}

fn faults_over(storage: Arc<dyn Storage>) -> FaultStorage {
    FaultStorage::new(storage).counting_mutating_steps_only()
}

impl Driver {
    pub fn new(settings: &Settings) -> Driver {
        Driver::observed(settings, &ManualClock::new(START_MS), Arc::new(Nobody))
    }

    /// As [`new`](Self::new), with an observer and its clock.
    pub fn observed(settings: &Settings, clock: &ManualClock, observer: Arc<dyn Observer>) -> Driver {
        let mut driver = Driver::on(MemStorage::seeded(settings.seed), settings, clock, observer).unwrap();
        for name in 0..FIRST_NAMES {
            driver.write(&Write::CreateNamespace { name });
        }
        driver
    }

    /// Continues with the content of this disk. Writes from here on have values different from
    /// earlier ones.
    pub fn resume(
        disk: MemStorage,
        settings: &Settings,
        clock: &ManualClock,
        observer: Arc<dyn Observer>,
    ) -> Result<Driver> {
        let mut driver = Driver::on(disk, settings, clock, observer)?;
        driver.step = STEPS_MAX;
        driver.meet_namespaces()?;
        driver.history.push(look(&driver.store)?);
        driver.history.acknowledge(Promise::PowerCut);
        driver.last_sequence = driver.store.stats().last_sequence;
        Ok(driver)
    }

    /// As [`observed`](Self::observed), without any namespaces, on a disk that may fail.
    pub fn on(
        disk: MemStorage,
        settings: &Settings,
        clock: &ManualClock,
        observer: Arc<dyn Observer>,
    ) -> Result<Driver> {
        let faults = faults_over(observer.storage(&disk));
        let (clock, now) = (clock.clone(), clock.wall_ms());
        let store = open(&faults, &clock, settings)?;
        Ok(Driver {
            observer,
            disk,
            faults,
            clock,
            settings: settings.clone(),
            store,
            handles: BTreeMap::new(),
            stale: BTreeMap::new(),
            history: History::default(),
            keys: keys(),
            now,
            highest: now,
            wall_shifted: false,
            last_sequence: 0,
            dropped_keys: 0,
            step: 0,
            held: Vec::new(),
            snapshots: Vec::new(),
            watchers: Vec::new(),
            intruded: Intruded::No,
            visited: Visited::default(),
        })
    }

    /// Performs an operation and compares everything afterwards.
    pub fn run(&mut self, op: &Op) {
        self.act(op);
        self.check();
    }

    /// Performs an operation.
    pub fn act(&mut self, op: &Op) {
        self.step += 1;
        match op {
            Op::Write(write) => {
                self.write(write);
                self.snapshots_outlive_write(matches!(write, Write::DropNamespace { .. }));
            }
            Op::Upkeep(upkeep) => {
                self.upkeep(upkeep);
                self.snapshots_outlive_upkeep(upkeep);
            }
            Op::Hold(hold) => {
                if let Err(error) = self.hold(hold) {
                    panic!("{hold:?}: {error}");
                }
            }
            Op::Advance(ms) => {
                self.clock.advance(*ms);
                self.now += ms;
                self.highest = self.highest.max(self.now);
            }
            Op::ShiftWall(ms) => {
                self.see_the_time();
                self.now = self.now.saturating_add_signed(*ms);
                self.highest = self.highest.max(self.now);
                self.clock.set_wall(self.now);
                self.see_the_time();
                self.wall_shifted = true;
            }
            Op::Reopen { way, settings } => self.reopen(*way, settings),
            Op::Crash {
                crash,
                relapses,
                way,
                settings,
            } => {
                self.check_snapshots();
                self.take_all_events();
                let nothing_under_way = matches!(crash, Crash::Kill) && relapses.is_empty();
                let prepared = self.crash(crash, relapses, *way, settings);
                if nothing_under_way {
                    prepared.assert_all_used(self.store.recovery_report());
                }
            }
            Op::CrashWithin {
                doing,
                calls,
                crash,
                relapses,
                way,
                settings,
            } => {
                self.faults.stop_at(self.faults.steps() + calls);
                self.attempt(doing);
                self.crash(crash, relapses, *way, settings);
            }
            Op::FailWithin {
                doing,
                calls,
                failure,
                crash,
                way,
                settings,
            } => {
                self.faults.inject(fault(*failure).at(self.faults.steps() + calls));
                self.fail(doing);
                self.faults.clear();
                let crash = match (failure, crash) {
                    // Data lost by such a sync is lost even in a power cut that keeps everything.
                    (Failure::SyncThatLoses, Crash::PowerCut(CutPolicy::KeepAll)) => {
                        &Crash::PowerCut(CutPolicy::KeepPrefix { operations: usize::MAX })
                    }
                    (_, crash) => crash,
                };
                self.crash(crash, &[], *way, settings);
            }
        }
    }

    /// Makes the store read the clock, so that what has expired by now stays expired.
    fn see_the_time(&mut self) {
        self.store.stats();
        self.history.see(self.now);
        self.snapshots_see(self.now);
    }

    fn hold(&mut self, hold: &Hold) -> Result<()> {
        match hold {
            Hold::Snapshot => return self.take_snapshot(),
            Hold::DropSnapshot(number) => self.drop_snapshot(*number),
            Hold::Watch {
                namespace,
                prefix,
                capacity,
                values,
            } => self.watch(*namespace, *prefix, *capacity, *values),
            Hold::DropWatch(number) => self.drop_watcher(*number),
        }
        Ok(())
    }

    /// What has been done so far.
    pub fn visited(&self) -> &Visited {
        &self.visited
    }

    pub fn state(&self) -> &State {
        self.history.now()
    }

    pub fn disk(&self) -> &MemStorage {
        &self.disk
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn advance(&mut self, ms: u64) {
        self.act(&Op::Advance(ms));
    }

    fn acknowledge(&mut self, promise: Promise) {
        self.history.acknowledge(promise);
        self.observer.acknowledged(promise);
    }

    fn meet_namespaces(&mut self) -> Result<()> {
        for info in self.store.namespaces()? {
            self.handles
                .insert(info.name.clone(), self.store.open_namespace(&info.name)?);
        }
        Ok(())
    }
}
