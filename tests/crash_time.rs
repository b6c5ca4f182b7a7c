//! Time that jumps both ways, around crashes, openings, compaction and sweeps: what has expired is gone, for as long as the
//! documentation says, and nothing else is.
//!
//! A seeded machine of states moves the clocks, writes, sweeps, compacts any subset of segments, and ends the store in every way: closed,
//! killed, without power, and in the middle of maintenance. After each step everything that can be seen is compared with a small
//! oracle. Held:
//!
//! * At its expiry a record is gone, and not a millisecond before, by the time of the store: the latest wall clock that this
//!   opening has seen. So what was seen expired stays expired until the store is opened again.
//! * Across openings the wall clock decides: a put that had expired is there again after the clock was set back, the newest
//!   put of its key with its own value, or, if compaction was entitled to drop it, nothing.
//! * Compaction is entitled to that once a put has been expired for the grace period by the wall clock, and not within ten
//!   minutes of a look at the clocks that showed a jump forward by more than the grace and a second.
//! * Whatever was dropped, and whichever crash came in between, nothing older of the key comes back: neither a replaced
//!   value, nor a deleted one.
//! * Checkpoint, salvage and verify see the same.
//!
//! `EMBERCASK_TIME_CASES` says how many lives are lived; a failure prints the seed of its life, which `EMBERCASK_TIME_LIFE` lives
//! again alone, and all that happened in it.
//!
//! `tests/expiry.rs` holds the table of paths that read or change a key, at one millisecond before its expiry and at it; the second
//! half of this file adds the conditions on sequences, and the places that table does not reach: recovered, cut, salvaged and
//! copied stores.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use common::{DIRECTORY, Rng, keys, manual, rng};
use embercask::storage::{CutPolicy, Fault, FaultKind, FaultStorage, MemStorage};
use embercask::{Condition, ErrorKind, ManualClock, Namespace, Options, PutOptions, ReadMode, Result, Store, salvage};

const START_MS: u64 = 2_000_000_000_000;
const HOUR_MS: u64 = 3_600_000;
/// How long nothing is dropped from disk after a jump: see `docs/decisions/0010`.
const PAUSE_MS: u64 = 10 * 60_000;
/// The least difference of the clocks that counts as a jump.
const JUMP_MS_MIN: u64 = 1_000;
const KEYS: u64 = 5;
const STEPS: usize = 60;
/// A key that never ends in these tests, but has an expiry: who reads it has the store look at the clock.
const WITNESS: &str = "witness";
const NEVER_MS: u64 = 1 << 50;

/// The newest write of a key, a put.
#[derive(Clone, Debug)]
struct Newest {
    value: String,
    expiry: Option<u64>,
    sequence: u64,
    on_disk: OnDisk,
}

/// Whether the record of an expired put is still on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnDisk {
    Yes,
    /// Something was entitled to drop it since it expired.
    Perhaps,
    No,
}

impl Newest {
    fn is_visible(&self, now: u64) -> bool {
        self.on_disk != OnDisk::No && self.expiry.is_none_or(|expiry| now < expiry)
    }
}

/// What the documentation says of when an expired put may leave the disk, seen from outside.
struct Grace {
    grace_ms: u64,
    wall: u64,
    monotonic: u64,
    pause_until: u64,
}

impl Grace {
    /// Compaction looks at the clocks. Puts that expired up to the returned time may go.
    fn look(&mut self, wall: u64, monotonic: u64) -> Option<u64> {
        let passed = monotonic - self.monotonic;
        if wall.saturating_sub(self.wall) > passed + self.grace_ms.max(JUMP_MS_MIN) {
            self.pause_until = monotonic + PAUSE_MS;
        }
        (self.wall, self.monotonic) = (wall, monotonic);
        (monotonic >= self.pause_until).then(|| wall.saturating_sub(self.grace_ms))
    }
}

/// One life: a disk, its clocks, the stores opened on it one after the other, and what they have to show.
struct Life {
    rng: Rng,
    disk: MemStorage,
    faults: FaultStorage,
    clock: ManualClock,
    wall: u64,
    monotonic: u64,
    /// The latest time that this opening has seen.
    now: u64,
    grace: Grace,
    mode: ReadMode,
    store: Store,
    namespace: Namespace,
    newest: BTreeMap<String, Newest>,
    copies: usize,
    writes: usize,
    trace: String,
}

fn options(faults: &FaultStorage, clock: &ManualClock, grace_ms: u64, mode: ReadMode) -> Options {
    manual(Arc::new(faults.clone()))
        .clock(clock.clone())
        .expiry_grace(Duration::from_millis(grace_ms))
        .read_mode(mode)
}

fn faults_over(disk: &MemStorage) -> FaultStorage {
    FaultStorage::new(Arc::new(disk.clone())).counting_mutating_steps_only()
}

/// All keys with value and expiry, and nothing else about them.
type Shown = BTreeMap<String, (String, Option<u64>)>;

fn shown(namespace: &Namespace) -> Shown {
    let mut shown = Shown::new();
    for entry in namespace.list().limit(2).with_values() {
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
    fn new(seed: u64) -> Life {
        let mut rng = Rng::new(seed);
        let (disk, clock) = (MemStorage::new(), ManualClock::new(START_MS));
        let faults = faults_over(&disk);
        let grace_ms = [0, 700, 10_000][rng.below(3) as usize];
        let mode = [ReadMode::Map, ReadMode::Pread][rng.below(2) as usize];
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
            now: START_MS,
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
            writes: 0,
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
            // Exactly at what something ends at, or beside it.
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

    /// The store looks at the clock.
    fn witness(&mut self) {
        assert!(self.namespace.contains(WITNESS).unwrap());
        self.now = self.now.max(self.wall);
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
            let batch = self.store.batch().put_with(&self.namespace, &key, &value, put);
            batch.delete(&self.namespace, "none").commit()
        } else {
            self.namespace.put_with(&key, &value, put)
        };
        if !held(&written, condition.map(|(_, holds)| holds)) {
            return;
        }
        // Of a batch the sequence is that of its last record.
        let found = self.namespace.get(&key).unwrap();
        let newest = Newest {
            value,
            expiry: ttl.map(|ttl| self.now + ttl),
            sequence: found.expect("it was put just now").sequence(),
            on_disk: OnDisk::Yes,
        };
        self.newest.insert(key, newest);
    }

    /// Now and then a condition, and whether it holds.
    fn condition(&mut self, key: &str) -> Option<(Condition, bool)> {
        let newest = self.newest.get(key);
        let visible = newest.is_some_and(|newest| newest.is_visible(self.now));
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
        let visible = self.newest.get(&key).is_some_and(|newest| newest.is_visible(self.now));
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
            // It had ended before. Where the index still knew of it, there is a tombstone now; else there is none.
            newest.on_disk = newest.on_disk.max_doubt();
        }
    }

    fn change_expiry(&mut self) {
        let key = format!("{}", self.rng.below(KEYS));
        let now = self.now;
        let visible = self.newest.get(&key).is_some_and(|newest| newest.is_visible(now));
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
        }
    }

    // Maintenance.

    /// Some maintenance; whether compaction looked at the clocks.
    fn maintain(&mut self, mask: u64, kind: u64) -> Result<bool> {
        match kind {
            0 => self.store.maintain().map(|()| false),
            1 => self.store.compact().map(|report| report.runs > 0),
            2 => self.store.compact_if_worthwhile().map(|_| true),
            _ => self.store.compact_subset(mask).map(|report| report.runs > 0),
        }
    }

    fn maintenance(&mut self) {
        let (mask, kind) = (self.rng.next(), self.rng.below(6));
        self.note(format_args!("maintenance {}", maintenance_name(kind, mask)));
        if self.maintain(mask, kind).unwrap() {
            self.entitle();
        }
    }

    /// Compaction looked at the clocks, and may have dropped what expired long enough ago.
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

    // Ends and beginnings.

    fn end(&mut self) {
        let disk = match self.rng.below(5) {
            0 => {
                self.note(format_args!("close"));
                self.store.clone().close().unwrap();
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
                // It may have been published before it stopped, and it may have ended before.
                if !matches!((self.maintain(mask, kind), kind), (_, 0) | (Ok(false), _)) {
                    self.entitle();
                }
                self.power_cut(&what)
            }
        };
        self.begin(disk);
    }

    /// Everything that was written is synced, so that any cut keeps it.
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
        self.now = self.wall;
        (self.grace.wall, self.grace.monotonic, self.grace.pause_until) = (self.wall, self.monotonic, 0);
        let found = shown(&self.namespace);
        self.note(format_args!("open: {:?}", found.keys()));
        self.check_opened(&found, "opened");
        for (key, newest) in &mut self.newest {
            if newest.is_visible(self.now) && !found.contains_key(key) {
                newest.on_disk = OnDisk::No;
            }
        }
    }

    /// The clock is set while no store is open.
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

    /// What another opening at this wall clock shows: the newest put of each key that has not expired, or, where it
    /// may have been dropped, nothing.
    fn check_opened(&self, found: &Shown, how: &str) {
        for (key, newest) in &self.newest {
            let found = found.get(key);
            let expected = (newest.value.clone(), newest.expiry);
            if !newest.is_visible(self.wall) {
                assert_eq!(found, None, "{how}: {key} has expired, or was seen to be gone");
            } else if newest.on_disk == OnDisk::Yes || found.is_some() {
                assert_eq!(found, Some(&expected), "{how}: {key}");
            }
        }
        for key in found.keys().filter(|key| *key != WITNESS) {
            assert!(self.newest.contains_key(key), "{how}: {key} was deleted");
        }
    }

    /// Copies the store, and salvages another copy; both show what opening the store would show.
    fn copy(&mut self) {
        self.note(format_args!("checkpoint and salvage"));
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

    // What can be seen.

    fn check(&mut self) {
        let now = self.now;
        let visible = |key: &String| self.newest.get(key).filter(|newest| newest.is_visible(now));
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

    fn live(&mut self) {
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

impl OnDisk {
    /// As much of it as can be hoped for when something was entitled to drop it.
    fn max_doubt(self) -> OnDisk {
        if self == OnDisk::No {
            OnDisk::No
        } else {
            OnDisk::Perhaps
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

/// Whether the condition of this write held, as it should.
fn held<T>(result: &Result<T>, expected: Option<bool>) -> bool {
    let held = match result {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::Conflict => false,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(held, expected.unwrap_or(true), "the condition");
    held
}

#[test]
fn what_has_expired_is_gone_whichever_way_the_clock_jumps_and_nothing_older_comes_back() {
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect("a number"))
    };
    let lives: Vec<u64> = match number("EMBERCASK_TIME_LIFE") {
        Some(seed) => vec![seed],
        None => {
            let mut rng = rng();
            (0..number("EMBERCASK_TIME_CASES").unwrap_or(1_200))
                .map(|_| rng.next())
                .collect()
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for seeds in lives.chunks(lives.len().div_ceil(threads)) {
            scope.spawn(move || {
                for seed in seeds {
                    let mut life = Life::new(*seed);
                    let lived = catch_unwind(AssertUnwindSafe(|| life.live()));
                    assert!(
                        lived.is_ok(),
                        "{}see the panic above; EMBERCASK_TIME_LIFE={seed}",
                        life.trace
                    );
                }
            });
        }
    });
}

type Question = fn(&Store, &Namespace, &str, u64) -> bool;

/// Ways to ask whether a key is there, beyond those of `tests/expiry.rs`: those that need the sequence of its last write, and those that
/// say when it expires. Some change the key, so that each has one of its own.
const QUESTIONS: [(&str, Question); 10] = [
    ("get", |_, n, key, _| n.get(key).unwrap().is_some()),
    ("contains", |_, n, key, _| n.contains(key).unwrap()),
    ("expiry of get_many", |_, n, key, _| {
        n.get_many(&[key]).unwrap()[0]
            .as_ref()
            .is_some_and(|value| value.expiry_ms().is_some())
    }),
    ("expiry of list", |_, n, key, _| {
        let mut found = n.list().prefix(key).into_iter();
        found.any(|entry| entry.unwrap().expiry_ms().is_some())
    }),
    ("expiry of list with values", |_, n, key, _| {
        let mut found = n.list().prefix(key).with_values().into_iter();
        found.any(|entry| entry.unwrap().value().unwrap().expiry_ms().is_some())
    }),
    ("count of a listing", |_, n, key, _| {
        n.list().prefix(key).count().unwrap() == 1
    }),
    ("put_if sequence", |_, n, key, sequence| {
        n.put_if(key, "2", Condition::Sequence(sequence)).is_ok()
    }),
    ("delete_if sequence", |_, n, key, sequence| {
        n.delete_if(key, Condition::Sequence(sequence)).is_ok()
    }),
    ("batch put if sequence", |store, n, key, sequence| {
        let put = PutOptions::new().condition(Condition::Sequence(sequence));
        store.batch().put_with(n, key, "2", put).commit().is_ok()
    }),
    ("batch delete if sequence", |store, n, key, sequence| {
        store
            .batch()
            .delete_if(n, key, Condition::Sequence(sequence))
            .commit()
            .is_ok()
    }),
];

/// From a store in use to one that was come by in some other way, at the time that the clock says.
type Place = fn(&MemStorage, &ManualClock, Store) -> Store;

fn open_at(disk: &MemStorage, clock: &ManualClock, directory: &str) -> Store {
    manual(Arc::new(disk.clone()))
        .clock(clock.clone())
        .open(directory)
        .unwrap()
}

const PLACES: [(&str, Place); 7] = [
    ("in use", |_, _, store| store),
    ("swept", |_, _, store| {
        store.maintain().unwrap();
        store
    }),
    ("killed and recovered", |disk, clock, _store| {
        open_at(&disk.crash_process(), clock, DIRECTORY)
    }),
    (
        "killed, recovered, without power and opened again",
        |disk, clock, _store| {
            let disk = disk.crash_process();
            drop(open_at(&disk, clock, DIRECTORY));
            open_at(&disk.power_cut(&CutPolicy::LoseUnsynced), clock, DIRECTORY)
        },
    ),
    ("checkpoint", |disk, clock, store| {
        store.checkpoint("/copy").unwrap();
        open_at(disk, clock, "/copy")
    }),
    ("compacted, then salvaged", |disk, clock, store| {
        store.compact().unwrap();
        store.close().unwrap();
        salvage(DIRECTORY, "/out", manual(Arc::new(disk.clone())).clock(clock.clone())).unwrap();
        open_at(disk, clock, "/out")
    }),
    ("killed, then salvaged", |disk, clock, _store| {
        let disk = disk.crash_process();
        salvage(DIRECTORY, "/out", manual(Arc::new(disk.clone())).clock(clock.clone())).unwrap();
        open_at(&disk, clock, "/out")
    }),
];

#[test]
fn conditions_on_sequences_and_every_way_to_come_by_a_store_agree_on_the_millisecond() {
    let expiry = START_MS + 5_000;
    for (place, come_by) in PLACES {
        for (early_ms, there) in [(1, true), (0, false)] {
            // The store is come by while all is there, or at the very moment.
            for moves_first in [false, true] {
                for older in [false, true] {
                    let (disk, clock) = (MemStorage::new(), ManualClock::new(START_MS));
                    let store = open_at(&disk, &clock, DIRECTORY);
                    let namespace = store.namespace("N").unwrap();
                    namespace.put("stays", "1").unwrap();
                    let mut sequences = Vec::new();
                    for (name, _) in QUESTIONS {
                        // What lies below must not be uncovered.
                        if older {
                            namespace.put(format!("{name}/key"), "older").unwrap();
                        }
                        let put = PutOptions::new().expires_at_ms(expiry).metadata("m");
                        sequences.push(namespace.put_with(format!("{name}/key"), "1", put).unwrap());
                    }
                    drop(namespace);
                    if moves_first {
                        clock.advance(5_000 - early_ms);
                    }
                    let store = come_by(&disk, &clock, store);
                    let namespace = store.open_namespace("N").unwrap();
                    // Salvage gives out new sequences. What is absent has none at all, not even its last one.
                    for ((name, _), sequence) in QUESTIONS.iter().zip(&mut sequences) {
                        let found = namespace.get(format!("{name}/key")).unwrap();
                        *sequence = found.map_or(*sequence, |value| value.sequence());
                    }
                    if !moves_first {
                        clock.advance(5_000 - early_ms);
                    }
                    let context = format!("{place}, {early_ms} ms before, moved first {moves_first}, older {older}");
                    let expected = if there { 1 + QUESTIONS.len() as u64 } else { 1 };
                    assert_eq!(namespace.count().unwrap(), expected, "{context}");
                    assert!(store.verify().unwrap().is_sound(), "{context}");
                    for ((name, question), sequence) in QUESTIONS.iter().zip(sequences) {
                        let answer = question(&store, &namespace, &format!("{name}/key"), sequence);
                        assert_eq!(answer, there, "{name}, {context}");
                    }
                }
            }
        }
    }
}

/// The boundaries of what nobody asks for: sweep, verify, salvage and compaction.
#[test]
fn sweep_salvage_and_compaction_take_what_is_over_and_not_a_millisecond_earlier() {
    const GRACE_MS: u64 = 10_000;
    let (disk, clock) = (MemStorage::new(), ManualClock::new(START_MS));
    let store = open_at(&disk, &clock, DIRECTORY);
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "older").unwrap();
    namespace
        .put_with("key", "value", PutOptions::new().expires_at_ms(START_MS + 5_000))
        .unwrap();
    let salvaged = |to: &str| {
        let disk = disk.crash_process();
        let report = salvage(DIRECTORY, to, manual(Arc::new(disk.clone())).clock(clock.clone())).unwrap();
        (report.keys, report.expired)
    };
    // Whether the put is there again once the clock is set back and the store is opened.
    let survives = |how: &str| {
        let back = ManualClock::new(START_MS);
        let store = open_at(&disk.crash_process(), &back, DIRECTORY);
        let found = store.open_namespace("N").unwrap().get_text("key").unwrap();
        assert_ne!(found.as_deref(), Some("older"), "{how}");
        found.is_some()
    };
    clock.advance(4_999);
    store.maintain().unwrap();
    assert_eq!((store.stats().expired, store.stats().keys), (0, 1), "swept early");
    assert_eq!(salvaged("/before"), (1, 0));
    clock.advance(1);
    assert_eq!(salvaged("/at"), (0, 1));
    assert_eq!(store.stats().expired_not_swept, 1);
    store.maintain().unwrap();
    assert_eq!((store.stats().expired, store.stats().keys), (1, 0), "not swept");
    store.compact().unwrap();
    clock.advance(GRACE_MS - 1);
    store.compact().unwrap();
    assert!(survives("within the grace"), "dropped before the grace was over");
    clock.advance(1);
    store.compact().unwrap();
    assert!(!survives("after the grace"), "still there");
    assert!(store.verify().unwrap().is_sound());
}
