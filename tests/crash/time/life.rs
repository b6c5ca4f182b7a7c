//! One store through all its openings, under clocks that jump, and its expected content at each
//! step.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use embercask::storage::{CutPolicy, Fault, FaultKind, FaultStorage, MemStorage};
use embercask::{
    CompactionReport, Condition, ErrorKind, ManualClock, Namespace, Options, PutOptions, ReadMode, Result, RingMode,
    Store, salvage,
};

use crate::time::START_MS;
use crate::time::oracle::{Grace, Newest, OnDisk, PAUSE_MS};
use test_support::{DIRECTORY, Rng, keys, manual};

const HOUR_MS: u64 = 3_600_000;
const KEYS: u64 = 5;
const STEPS: usize = 60;
/// A key that does not expire during these tests but has an expiry: reading it makes the store read
/// the clock.
const WITNESS: &str = "witness";
const NEVER_MS: u64 = 1 << 50;
const INDEX: &str = "/store/INDEX";

/// One run: a disk, its clocks, the stores opened on it one after the other, and their expected
/// content.
pub(crate) struct Life {
    rng: Rng,
    disk: MemStorage,
    faults: FaultStorage,
    clock: ManualClock,
    wall: u64,
    monotonic: u64,
    grace: Grace,
    mode: (ReadMode, RingMode),
    store: Store,
    namespace: Namespace,
    newest: BTreeMap<String, Newest>,
    copies: usize,
    /// Index files written so far.
    index_files: Vec<Vec<u8>>,
    writes: usize,
    pub(crate) tally: Tally,
    pub(crate) trace: String,
}

/// Event counts of one or more runs. Runs in which none of these happen prove nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    fn note(&mut self, what: &'static str, times: usize) {
        *self.0.entry(what).or_default() += times as u64;
    }

    pub(crate) fn add(&mut self, other: Tally) {
        for (what, times) in other.0 {
            self.note(what, times as usize);
        }
    }

    pub(crate) fn get(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }
}

fn options(faults: &FaultStorage, clock: &ManualClock, grace_ms: u64, (mode, ring): (ReadMode, RingMode)) -> Options {
    manual(Arc::new(faults.clone()))
        .clock(clock.clone())
        .expiry_grace(Duration::from_millis(grace_ms))
        .read_mode(mode)
        .ring(ring)
}

fn faults_over(disk: &MemStorage) -> FaultStorage {
    FaultStorage::new(Arc::new(disk.clone())).counting_mutating_steps_only()
}

/// Which operation read the clocks. Sweep and compaction share one account of clock jumps.
enum Looked {
    Nobody,
    Sweep,
    Compaction,
}

/// All keys with value and expiry.
type Shown = BTreeMap<String, (String, Option<u64>)>;

fn shown(namespace: &Namespace) -> Shown {
    let mut shown = Shown::new();
    for entry in namespace.list().page_size(2).with_values() {
        let entry = entry.unwrap();
        let value = entry.value().unwrap();
        shown.insert(
            entry.key_str().unwrap().to_owned(),
            (value.as_str().unwrap().to_owned(), value.expiry_ms()),
        );
    }
    shown
}

impl Life {
    pub(crate) fn new(seed: u64) -> Life {
        let mut rng = Rng::new(seed);
        let (disk, clock) = (MemStorage::seeded(rng.next()), ManualClock::new(START_MS));
        let faults = faults_over(&disk);
        let grace_ms = [0, 700, 10_000][rng.below(3) as usize];
        let read_mode = [ReadMode::Map, ReadMode::Pread][rng.below(2) as usize];
        let mode = (read_mode, [RingMode::Never, RingMode::Always][rng.below(2) as usize]);
        let store = options(&faults, &clock, grace_ms, mode).open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        namespace
            .put_with(WITNESS, "", PutOptions::new().expires_at_ms(NEVER_MS))
            .unwrap();
        Life {
            rng,
            disk,
            faults,
            clock,
            wall: START_MS,
            monotonic: 0,
            grace: Grace {
                grace_ms,
                wall: START_MS,
                monotonic: 0,
                pause_until: 0,
            },
            mode,
            store,
            namespace,
            newest: BTreeMap::new(),
            copies: 0,
            index_files: Vec::new(),
            writes: 0,
            tally: Tally::default(),
            trace: format!("grace {grace_ms} ms, {mode:?}\n"),
        }
    }

    fn note(&mut self, what: std::fmt::Arguments<'_>) {
        let since = self.wall as i64 - START_MS as i64;
        let _ = writeln!(self.trace, "  {since:>12} ms: {what}");
    }

    // Time.

    fn move_time(&mut self) {
        match self.rng.below(10) {
            0..3 => {
                let ms = [1, 500, 3_000, self.grace.grace_ms, 20_000][self.rng.below(5) as usize];
                self.pass(ms);
            }
            // Exactly at some expiry, or next to it.
            3..6 => {
                let expiries: Vec<u64> = self.newest.values().filter_map(|newest| newest.expiry).collect();
                if expiries.is_empty() {
                    return;
                }
                let expiry = expiries[self.rng.below(expiries.len() as u64) as usize];
                let wall = (expiry + self.rng.below(3) + [0, self.grace.grace_ms][self.rng.below(2) as usize]) - 1;
                if self.rng.below(2) == 0 && wall > self.wall {
                    self.pass(wall - self.wall);
                } else {
                    self.set_wall(wall);
                }
            }
            6 => {
                let ms = [HOUR_MS, 24 * HOUR_MS][self.rng.below(2) as usize];
                self.set_wall(self.wall + ms);
            }
            7 => {
                let ms = [PAUSE_MS - 1, PAUSE_MS][self.rng.below(2) as usize];
                self.pass(ms);
            }
            8 => {
                let ms = [300, 5_000, HOUR_MS][self.rng.below(3) as usize];
                self.set_wall(self.wall - ms);
            }
            _ => {
                let wall = START_MS + self.rng.below(30_000);
                self.set_wall(wall);
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        self.note(format_args!("{ms} ms pass"));
        self.clock.advance(ms);
        self.wall += ms;
        self.monotonic += ms;
        self.witness();
    }

    fn set_wall(&mut self, wall: u64) {
        self.note(format_args!(
            "the wall clock is set to {} ms",
            wall as i64 - START_MS as i64
        ));
        self.clock.set_wall(wall);
        self.wall = wall;
        self.witness();
    }

    /// Makes the store read the clock.
    fn witness(&mut self) {
        assert!(self.namespace.contains(WITNESS).unwrap());
        for newest in self.newest.values_mut() {
            newest.seen = newest.seen.max(self.wall);
        }
    }

    // Writes.

    fn put(&mut self) {
        let key = format!("{}", self.rng.below(KEYS));
        self.writes += 1;
        let mut value = format!("{} ", self.writes);
        value += &"x".repeat(self.rng.below(900) as usize);
        let ttl = [None, Some(1), Some(700), Some(4_000), Some(30_000)][self.rng.below(5) as usize];
        let condition = self.condition(&key);
        self.note(format_args!("put {key}: {:.4}, ttl {ttl:?}, {condition:?}", value));
        let mut put = PutOptions::new();
        if let Some(ttl) = ttl {
            put = put.ttl(Duration::from_millis(ttl));
        }
        if let Some((condition, _)) = condition {
            put = put.condition(condition);
        }
        let written = if self.rng.below(4) == 0 {
            let mut batch = self.store.batch();
            batch.put_with(&self.namespace, &key, &value, put);
            batch.delete(&self.namespace, "none").commit()
        } else {
            self.namespace.put_with(&key, &value, put)
        };
        if !held(&written, condition.map(|(_, holds)| holds)) {
            return;
        }
        // The sequence of a batch is that of its last record.
        let found = self.namespace.get(&key).unwrap();
        let newest = Newest {
            value,
            expiry: ttl.map(|ttl| self.wall + ttl),
            sequence: found.expect("it was put just now").sequence(),
            on_disk: OnDisk::Yes,
            seen: self.wall,
        };
        self.newest.insert(key, newest);
    }

    /// Sometimes a condition, and whether it holds.
    fn condition(&mut self, key: &str) -> Option<(Condition, bool)> {
        let newest = self.newest.get(key);
        let visible = newest.is_some_and(|newest| newest.is_visible());
        match self.rng.below(8) {
            0 => Some((Condition::Absent, !visible)),
            1 => Some((Condition::Present, visible)),
            2 => newest.map(|newest| (Condition::Sequence(newest.sequence), visible)),
            _ => None,
        }
    }

    fn delete(&mut self) {
        let key = format!("{}", self.rng.below(KEYS));
        let condition = self.condition(&key);
        self.note(format_args!("delete {key}, {condition:?}"));
        let visible = self.newest.get(&key).is_some_and(|newest| newest.is_visible());
        let deleted = self
            .namespace
            .delete_with(&key, condition.map(|(condition, _)| condition), None);
        if !held(&deleted, condition.map(|(_, holds)| holds)) {
            return;
        }
        assert_eq!(deleted.unwrap().existed, visible, "delete {key}");
        if visible {
            self.newest.remove(&key);
        } else if let Some(newest) = self.newest.get_mut(&key) {
            // It had expired before. If the index still had it there is a tombstone now, otherwise
            // none.
            newest.on_disk = newest.on_disk.max_doubt();
        }
    }

    fn change_expiry(&mut self) {
        let key = format!("{}", self.rng.below(KEYS));
        let now = self.wall;
        let visible = self.newest.get(&key).is_some_and(|newest| newest.is_visible());
        let (what, changed, expiry) = match self.rng.below(3) {
            0 => {
                let changed = self.namespace.set_ttl(&key, Duration::from_millis(900));
                ("set_ttl", changed, Some(now + 900))
            }
            1 => (
                "set_expiry",
                self.namespace.set_expiry(&key, now + 7_000),
                Some(now + 7_000),
            ),
            _ => ("remove_expiry", self.namespace.remove_expiry(&key), None),
        };
        self.note(format_args!("{what} of {key}"));
        assert_eq!(changed.unwrap(), visible, "{what} of {key}");
        if visible {
            let sequence = self.namespace.get(&key).unwrap().unwrap().sequence();
            let newest = self.newest.get_mut(&key).unwrap();
            (newest.expiry, newest.sequence, newest.on_disk) = (expiry, sequence, OnDisk::Yes);
            newest.seen = self.wall;
        }
    }

    // Maintenance.

    /// Performs some maintenance; returns which operation read the clocks.
    fn maintain(&mut self, mask: u64, kind: u64) -> Result<Looked> {
        let of_runs = |report: CompactionReport, else_by| if report.runs > 0 { Looked::Compaction } else { else_by };
        match kind {
            0 => self.store.maintain().map(|()| Looked::Sweep),
            1 => self.store.compact().map(|report| of_runs(report, Looked::Sweep)),
            2 => self.store.compact_if_worthwhile().map(|_| Looked::Compaction),
            _ => self
                .store
                .compact_subset(mask)
                .map(|report| of_runs(report, Looked::Nobody)),
        }
    }

    fn maintenance(&mut self) {
        let (mask, kind) = (self.rng.next(), self.rng.below(6));
        self.note(format_args!("maintenance {}", maintenance_name(kind, mask)));
        match self.maintain(mask, kind).unwrap() {
            Looked::Compaction => {
                self.tally.note("compactions", 1);
                self.entitle();
            }
            Looked::Sweep => drop(self.grace.look(self.wall, self.monotonic)),
            Looked::Nobody => {}
        }
    }

    /// Compaction read the clocks and may have dropped what expired long enough ago.
    fn entitle(&mut self) {
        let Some(horizon) = self.grace.look(self.wall, self.monotonic) else {
            return;
        };
        for newest in self.newest.values_mut() {
            if newest.expiry.is_some_and(|expiry| expiry <= horizon) {
                newest.on_disk = newest.on_disk.max_doubt();
            }
        }
    }

    // Closing and opening.

    fn end(&mut self) {
        let disk = match self.rng.below(5) {
            0 => {
                self.note(format_args!("close"));
                self.store.clone().close().unwrap();
                let index_file = self.disk.read_file(INDEX).unwrap();
                if self.index_files.last() != Some(&index_file) {
                    self.index_files.push(index_file);
                }
                if self.rng.below(2) == 0 {
                    let which = self.rng.below(self.index_files.len() as u64) as usize;
                    self.note(format_args!(
                        "index file {which} of {} is put there",
                        self.index_files.len()
                    ));
                    self.disk.write_file(INDEX, &self.index_files[which]).unwrap();
                }
                self.disk.clone()
            }
            1 => {
                self.note(format_args!("kill"));
                self.disk.crash_process()
            }
            2 => self.power_cut("power cut"),
            _ => {
                let (mask, kind, step) = (self.rng.next(), self.rng.below(6), self.rng.below(30));
                let what = format!("stop at step {step} of maintenance {}", maintenance_name(kind, mask));
                self.faults
                    .inject(Fault::new(FaultKind::Stop).at(self.faults.steps() + step));
                // It may have been published before the stop, and it may have finished before.
                if !matches!(
                    (self.maintain(mask, kind), kind),
                    (_, 0) | (Ok(Looked::Sweep | Looked::Nobody), _)
                ) {
                    self.entitle();
                }
                self.tally
                    .note("maintenance that was stopped", usize::from(self.faults.is_stopped()));
                self.power_cut(&what)
            }
        };
        self.begin(disk);
    }

    /// Everything written is synced, so any cut keeps it.
    fn power_cut(&mut self, what: &str) -> MemStorage {
        let policy = match self.rng.below(4) {
            0 => CutPolicy::LoseUnsynced,
            1 => CutPolicy::KeepAll,
            _ => CutPolicy::Random {
                seed: self.rng.next(),
                grain: 512,
            },
        };
        self.note(format_args!("{what}, {policy:?}"));
        self.disk.power_cut(&policy)
    }

    fn begin(&mut self, disk: MemStorage) {
        if self.rng.below(2) == 0 {
            self.set_wall_unseen();
        }
        self.disk = disk;
        self.faults = faults_over(&self.disk);
        if self.rng.below(4) == 0 {
            // The opening is cut off as well.
            let step = self.rng.below(20);
            self.faults.inject(Fault::new(FaultKind::Stop).at(step));
            drop(options(&self.faults, &self.clock, self.grace.grace_ms, self.mode).open(DIRECTORY));
            self.disk = self.power_cut(&format!("open, stopped at step {step}"));
            self.faults = faults_over(&self.disk);
        }
        self.store = options(&self.faults, &self.clock, self.grace.grace_ms, self.mode)
            .open(DIRECTORY)
            .unwrap();
        self.namespace = self.store.open_namespace("N").unwrap();
        let gone: Vec<String> = (self.newest.iter())
            .filter(|(_, newest)| !newest.is_visible())
            .map(|(key, _)| key.clone())
            .collect();
        for newest in self.newest.values_mut() {
            newest.seen = self.wall;
        }
        (self.grace.wall, self.grace.monotonic, self.grace.pause_until) = (self.wall, self.monotonic, 0);
        let found = shown(&self.namespace);
        self.note(format_args!("open: {:?}", found.keys()));
        self.check_opened(&found, "opened");
        let report = self.store.recovery_report();
        for (happened, what) in [
            (report.clean, "clean openings"),
            (!report.clean, "openings that recovered"),
            (report.index_file_used, "openings by an index file"),
        ] {
            self.tally.note(what, usize::from(happened));
        }
        let back = |(key, newest): &(&String, &Newest)| gone.contains(*key) && newest.is_visible();
        self.tally
            .note("keys that are there again", self.newest.iter().filter(back).count());
        let dropped = |(key, newest): &(&String, &Newest)| newest.is_visible() && !found.contains_key(*key);
        self.tally
            .note("keys that were dropped", self.newest.iter().filter(dropped).count());
        for (key, newest) in &mut self.newest {
            if newest.is_visible() && !found.contains_key(key) {
                newest.on_disk = OnDisk::No;
            }
        }
    }

    /// Sets the wall clock while no store is open.
    fn set_wall_unseen(&mut self) {
        let wall = match self.rng.below(3) {
            0 => START_MS + self.rng.below(40_000),
            1 => self.wall + HOUR_MS,
            _ => self.wall - 10_000,
        };
        self.note(format_args!(
            "while closed, the wall clock is set to {} ms",
            wall as i64 - START_MS as i64
        ));
        self.clock.set_wall(wall);
        self.wall = wall;
    }

    /// Checks what another opening at this wall clock shows: the newest put of each key, if not
    /// expired, or nothing if it may have been dropped.
    fn check_opened(&self, found: &Shown, how: &str) {
        for (key, newest) in &self.newest {
            let found = found.get(key);
            let expected = (newest.value.clone(), newest.expiry);
            if !newest.is_visible_at(self.wall) {
                assert_eq!(found, None, "{how}: {key} has expired or was dropped");
            } else if newest.on_disk == OnDisk::Yes || found.is_some() {
                assert_eq!(found, Some(&expected), "{how}: {key}");
            }
        }
        for key in found.keys().filter(|key| *key != WITNESS) {
            assert!(self.newest.contains_key(key), "{how}: {key} was deleted");
        }
    }

    /// Copies the store and salvages another copy; both show what opening the store would show.
    fn copy(&mut self) {
        self.note(format_args!("checkpoint and salvage"));
        self.tally.note("copies", 1);
        self.copies += 1;
        let (copy, salvaged) = (format!("/copy {}", self.copies), format!("/salvaged {}", self.copies));
        self.store.checkpoint(&copy).unwrap();
        let disk = self.disk.crash_process();
        let open = |directory: &str| {
            options(&faults_over(&disk), &self.clock, self.grace.grace_ms, self.mode)
                .create(false)
                .open(directory)
                .unwrap()
        };
        let store = open(&copy);
        assert!(store.verify().unwrap().is_sound());
        self.check_opened(&shown(&store.open_namespace("N").unwrap()), "checkpoint");
        let options = options(&faults_over(&disk), &self.clock, self.grace.grace_ms, self.mode);
        let report = salvage(DIRECTORY, &salvaged, options).unwrap();
        assert!(report.is_complete(), "{report:?}");
        self.check_opened(&shown(&open(&salvaged).open_namespace("N").unwrap()), "salvage");
        let report = self.store.verify().unwrap();
        assert!(report.is_sound(), "{:?}", report.damaged);
    }

    // Reads.

    fn check(&mut self) {
        let visible = |key: &String| self.newest.get(key).filter(|newest| newest.is_visible());
        let all: Vec<String> = (0..KEYS).map(|key| key.to_string()).collect();
        let many = self.namespace.get_many(&all).unwrap();
        for (key, of_many) in all.iter().zip(many) {
            let newest = visible(key);
            let expected = newest.map(|newest| (newest.value.as_str(), newest.expiry, newest.sequence));
            for (how, found) in [("get", self.namespace.get(key).unwrap()), ("get_many", of_many)] {
                let found = found.as_ref();
                let found = found.map(|value| (value.as_str().unwrap(), value.expiry_ms(), value.sequence()));
                assert_eq!(found, expected, "{how} {key}");
            }
            assert_eq!(
                self.namespace.contains(key).unwrap(),
                newest.is_some(),
                "contains {key}"
            );
        }
        let gone = self.newest.values().filter(|newest| !newest.is_visible()).count();
        self.tally.note("looks at what has expired", gone);
        let mut there: Vec<String> = all.iter().filter(|key| visible(key).is_some()).cloned().collect();
        there.push(WITNESS.to_owned());
        assert_eq!(keys(&self.namespace), there, "list");
        assert_eq!(
            shown(&self.namespace).into_keys().collect::<Vec<_>>(),
            there,
            "list with values"
        );
        assert_eq!(self.namespace.count().unwrap(), there.len() as u64, "count");
    }

    pub(crate) fn live(&mut self) {
        for _ in 0..STEPS {
            match self.rng.below(20) {
                0..6 => self.put(),
                6..8 => self.delete(),
                8 => self.change_expiry(),
                9..14 => self.move_time(),
                14..17 => self.maintenance(),
                17..19 => self.end(),
                _ => self.copy(),
            }
            self.check();
        }
    }
}

fn maintenance_name(kind: u64, mask: u64) -> String {
    match kind {
        0 => "(sweep)".to_owned(),
        1 => "(compact all)".to_owned(),
        2 => "(compact if worthwhile)".to_owned(),
        _ => format!("(compact {:#010b})", mask & 0xff),
    }
}

/// Asserts that the write's condition held or failed as expected; returns which.
fn held<T>(result: &Result<T>, expected: Option<bool>) -> bool {
    let held = match result {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::Conflict => false,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(held, expected.unwrap_or(true), "the condition");
    held
}
