//! Builds the states that crashes leave, opens each, and checks it against the promises.
//!
//! Checks per state, with the promises of `docs/durability.md` in brackets:
//!
//! * it opens (1), and opening leaves no stray file behind;
//! * it shows, down to the sequences, a state from the total order of writes: none older than what
//!   was acknowledged for such a crash (2, 3), none in the middle of a batch (4), and so nothing
//!   that was deleted, had expired or was never written (5, 6);
//! * `get`, `get_many`, `contains`, `list` and `count` agree, and `verify` finds no damage, neither
//!   in the open store nor before that in its files (6);
//! * a checkpoint exists completely or not at all, and exists if it was acknowledged;
//! * it accepts writes, and a power cut after them loses nothing that was seen or acknowledged (7);
//! * after a second crash, at any step of the opening, the same holds (1, 7), and so on.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use embercask::storage::{CutPolicy, MemStorage};
use embercask::{Error, Maintenance, ManualClock, RingMode, Store, verify};

use crate::crash::cut::{Cut, Place, read_place, write_place};
use crate::crash::recording::{Allowed, Moment, Recorder, Recording};
use crate::crash::workload::Workload;
use crate::driver::{DIRECTORY, Driver, look};
use crate::model::{State, describe};
use crate::ops::{Op, Put, Settings, Upkeep, Write};
use crate::{at_least, mix};

/// Chooses the cuts at a moment. The arguments are its place, its step and the moment itself.
pub type Choose<'a> = &'a (dyn Fn(&Place, usize, &Moment) -> Vec<Cut> + Sync);

/// The variable that names a single state to build and examine.
const PLACE: &str = "EMBERCASK_CRASH_PLACE";

#[derive(Debug, Default)]
pub struct Explorer {
    visited: Visited,
    seen: Mutex<HashSet<u64>>,
}

/// Counts of what was visited.
#[derive(Debug, Default)]
struct Visited(Mutex<BTreeMap<String, u64>>);

pub const BUILT: &str = "states built";
/// Those that differed from all before and so were opened.
pub const OPENED: &str = "states opened";
/// Those of them that were after a second or later crash.
pub const RELAPSED: &str = "after a second or third crash";

impl Visited {
    fn note(&self, what: &str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(what) {
            Some(count) => *count += 1,
            None => drop(counts.insert(what.to_owned(), 1)),
        }
    }
}

/// A state that passed, and its opening.
struct Examined {
    /// The disk before each step of the opening, and at its end.
    recovery: Recording,
    /// What the store may show after a crash at each of these steps.
    allowed: Allowed,
    /// What the opened store showed.
    found: Allowed,
}

/// A recorded run, or a recorded opening of a state.
struct Line<'a> {
    moments: &'a [Moment],
    allowed: &'a (dyn Fn(usize) -> Allowed + Sync),
}

impl Explorer {
    pub fn visited(&self, what: &str) -> u64 {
        let counts = self.visited.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(what).copied().unwrap_or(0)
    }

    /// An exploration that hardly visits something proves nothing about it. All floors are well
    /// below the usual counts.
    pub fn has_visited(&self, floors: &[(&str, u64)]) {
        for (what, least) in floors {
            at_least(*least, self.visited(what), what);
        }
    }

    pub fn summary(&self) -> String {
        let counts = self.visited.0.lock().unwrap_or_else(PoisonError::into_inner);
        format!("{:#?}", *counts)
    }

    /// Cuts the workload off at every step. An error names the broken promise and the state, and
    /// says how to build that state again.
    pub fn explore(&self, workload: &Workload, recording: &Recording, choose: Choose<'_>) -> Result<(), String> {
        let allowed = |step: usize| recording.allowed(&recording.moments[step]);
        let line = Line {
            moments: &recording.moments,
            allowed: &allowed,
        };
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let failure = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
                scope.spawn(|| {
                    while !failed.load(Ordering::Relaxed) {
                        let step = next.fetch_add(1, Ordering::Relaxed);
                        if step >= recording.moments.len() {
                            return;
                        }
                        if let Err(error) = self.step(workload, recording, &line, step, &Place::new(), choose) {
                            failed.store(true, Ordering::Relaxed);
                            failure
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .get_or_insert(error);
                        }
                    }
                });
            }
        });
        failure
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .map_or(Ok(()), Err)
    }

    /// Examines all cuts before one step, and the crashes that follow each.
    fn step(
        &self,
        workload: &Workload,
        recording: &Recording,
        line: &Line<'_>,
        step: usize,
        before: &Place,
        choose: Choose<'_>,
    ) -> Result<(), String> {
        let moment = &line.moments[step];
        for cut in choose(before, step, moment) {
            let mut place = before.clone();
            place.push((step, cut));
            let Some(examined) = self.examine(workload, recording, line, &place)? else {
                continue;
            };
            let allowed = |step: usize| examined.allowed_at(step);
            let deeper = Line {
                moments: &examined.recovery.moments,
                allowed: &allowed,
            };
            for step in 0..deeper.moments.len() {
                self.step(workload, recording, &deeper, step, &place, choose)?;
            }
        }
        Ok(())
    }

    /// Examines one state. None if the same state was examined before.
    fn examine(
        &self,
        workload: &Workload,
        recording: &Recording,
        line: &Line<'_>,
        place: &Place,
    ) -> Result<Option<Examined>, String> {
        let Some((step, cut)) = place.last() else {
            return Ok(None);
        };
        let moment = &line.moments[*step];
        let allowed = (line.allowed)(*step).after(cut);
        let depth = place.len();
        let disk = moment.cut(cut);
        self.visited.note(BUILT);
        // After a kill, writes that are not durable yet matter too, so no two such states are
        // alike.
        if matches!(cut, Cut::Power(_)) && !self.is_new(&disk, &allowed, moment, depth) {
            return Ok(None);
        }
        self.visited.note(OPENED);
        if depth > 1 {
            self.visited.note(RELAPSED);
        }
        self.visited.note(&format!("cut: {}", cut.kind()));
        let place_of_it = if depth == 1 { "a life" } else { "an opening" };
        let call = moment.step.split(' ').next().unwrap_or_default();
        if call != "the" {
            self.visited.note(&format!("before {call} of {place_of_it}"));
        }
        let settings = Settings {
            // Alternate between the two read modes, and between the two ways of class `Os`.
            pread: (step + depth).is_multiple_of(2),
            ring: (step / 2 + depth).is_multiple_of(2),
            ..workload.settings.clone()
        };
        let trial = Trial {
            recording,
            settings: &settings,
            moment,
            allowed: &allowed,
            copies: (depth == 1).then_some(*step),
            visited: &self.visited,
            is_thorough: depth == 1 || step.is_multiple_of(RELAPSES_PER_THOROUGH),
        };
        match catch_unwind(AssertUnwindSafe(|| trial.run(&disk))) {
            Ok(Ok(examined)) => Ok(Some(examined)),
            Ok(Err(error)) => Err(report(workload, place, moment, &error)),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                Err(report(
                    workload,
                    place,
                    moment,
                    text.unwrap_or("a panic without a message"),
                ))
            }
        }
    }

    fn is_new(&self, disk: &MemStorage, allowed: &Allowed, moment: &Moment, depth: usize) -> bool {
        let (killed, last) = allowed.range();
        let (begun, acknowledged) = moment.copies;
        let mut numbers = vec![
            killed as u64,
            last as u64,
            moment.now,
            begun as u64,
            acknowledged as u64,
            u64::from(depth > 1),
        ];
        digest_directory(disk, Path::new("/data"), &mut numbers);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(mix(&numbers))
    }

    /// Forgets the states seen so far, before another run.
    pub fn forget(&self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A digest of the directory. States with equal digests count as the same, which wrongly skips one
/// in billions at worst.
fn digest_directory(disk: &MemStorage, directory: &Path, numbers: &mut Vec<u64>) {
    let mut names = disk.list(directory).unwrap_or_default();
    names.sort();
    for name in names {
        let path = directory.join(&name);
        numbers.push(u64::from(crc32fast::hash(name.as_encoded_bytes())));
        match disk.read_file(&path) {
            Ok(bytes) => numbers.push((bytes.len() as u64) << 32 | u64::from(crc32fast::hash(&bytes))),
            Err(_) => digest_directory(disk, &path, numbers),
        }
    }
    numbers.push(u64::MAX);
}

impl Examined {
    /// During the opening, what was allowed before it; at its end, only what was seen.
    fn allowed_at(&self, step: usize) -> Allowed {
        if step + 1 == self.recovery.moments.len() {
            self.found.clone()
        } else {
            self.allowed.clone()
        }
    }
}

/// One state and the checks on it.
struct Trial<'a> {
    recording: &'a Recording,
    settings: &'a Settings,
    moment: &'a Moment,
    allowed: &'a Allowed,
    /// The step, if checkpoints are checked too.
    copies: Option<usize>,
    visited: &'a Visited,
    /// Whether its files are verified before it is opened, and it is written to afterwards.
    is_thorough: bool,
}

impl Trial<'_> {
    fn run(&self, disk: &MemStorage) -> Result<Examined, String> {
        if let Some(step) = self.copies {
            self.look_at_copies(disk, step)?;
        }
        if self.is_thorough {
            self.verify_files(disk)?;
        }
        let clock = ManualClock::new(self.moment.now);
        let recorder = Recorder::over_the_disk(&clock);
        let mut driver = Driver::resume(disk.clone(), self.settings, &clock, Arc::new(recorder.clone()))
            .map_err(|error| format!("the store does not open: {error}"))?;
        recorder.mark(disk, "the end of the opening");
        let recovery = recorder.finish();
        let found = driver.state().clone();
        let states = self.allowed.states();
        expect(states, &found, self.moment.now)?;
        let report = driver.store().recovery_report();
        for (happened, what) in [
            (!report.clean, "openings that recovered"),
            (report.discarded_bytes > 0, "openings that discarded a torn tail"),
            (report.rewritten_bytes > 0, "openings that wrote something anew"),
            (states.len() > 1, "states of which something might have been lost"),
            (
                states
                    .last()
                    .is_some_and(|last| !last.looks_like(&found, self.moment.now)),
                "states of which something was lost",
            ),
        ] {
            if happened {
                self.visited.note(what);
            }
        }
        driver.check();
        let verified = driver.store().verify().map_err(|error| format!("verify: {error}"))?;
        if !verified.is_sound() {
            return Err(format!("verify finds damage: {:?}", verified.damaged));
        }
        if self.is_thorough {
            self.go_on(&mut driver, disk)?;
        }
        Ok(Examined {
            recovery,
            allowed: self.allowed.clone(),
            found: Allowed::only(Arc::new(found)),
        })
    }

    /// A crash never looks like damage to a verify of the files.
    fn verify_files(&self, disk: &MemStorage) -> Result<(), String> {
        match verify(DIRECTORY, &self.options(&disk.crash_process())) {
            Ok(report) if report.is_sound() => {
                self.visited.note("verified as files");
                Ok(())
            }
            Ok(report) => Err(format!("verify finds damage in the files: {:?}", report.damaged)),
            // Not created yet, or only its directory.
            Err(Error::NotAStore { .. }) => Ok(()),
            Err(error) => Err(format!("verify of the files: {error}")),
        }
    }

    /// Writes, then loses power. Everything acknowledged or seen must survive.
    fn go_on(&self, driver: &mut Driver, disk: &MemStorage) -> Result<(), String> {
        driver.act(&Op::Write(Write::CreateNamespace { name: 0 }));
        for (key, length) in [(0, 100), (7, 500)] {
            let put = Put {
                length,
                ttl: None,
                metadata: Some(3),
            };
            driver.act(&Op::Write(Write::Put {
                namespace: 0,
                key,
                put,
                guard: None,
                durability: None,
            }));
        }
        driver.act(&Op::Write(Write::Delete {
            namespace: 0,
            key: 0,
            guard: None,
            durability: None,
        }));
        driver.act(&Op::Upkeep(Upkeep::Sync));
        driver.check();
        let cut = disk.power_cut(&CutPolicy::LoseUnsynced);
        let store = self
            .options(&cut)
            .open(DIRECTORY)
            .map_err(|error| format!("the store does not open after writes and another power cut: {error}"))?;
        let found = look(&store).map_err(|error| format!("after writes and another power cut: {error}"))?;
        self.visited.note("written to afterwards");
        expect(&[Arc::new(driver.state().clone())], &found, self.moment.now)
            .map_err(|error| format!("after writes, a sync and another power cut: {error}"))
    }

    fn options(&self, disk: &MemStorage) -> embercask::Options {
        Store::options()
            .segment_bytes(self.settings.segment_bytes)
            .ring(if self.settings.ring {
                RingMode::Always
            } else {
                RingMode::Never
            })
            .maintenance(Maintenance::Manual)
            .clock(ManualClock::new(self.moment.now))
            .storage(Arc::new(disk.clone()))
    }

    fn look_at_copies(&self, disk: &MemStorage, step: usize) -> Result<(), String> {
        let (begun, acknowledged) = self.moment.copies;
        for (number, copied) in self.recording.copies.iter().enumerate().take(begun) {
            let path = &copied.path;
            let is_acknowledged = number < acknowledged;
            if !disk.exists(path).map_err(|error| error.to_string())? {
                if is_acknowledged {
                    return Err(format!("{}: an acknowledged checkpoint is missing", path.display()));
                }
                continue;
            }
            // Some steps later, only check that it exists.
            if is_acknowledged && step > copied.acknowledged_at + STEPS_AFTER_CHECKPOINT {
                continue;
            }
            let on = |error| format!("{}: {error}", path.display());
            let store = self
                .options(&disk.crash_process())
                .create(false)
                .open(path)
                .map_err(on)?;
            let found = look(&store).map_err(on)?;
            expect(
                &[Arc::new(self.recording.copied(copied).clone())],
                &found,
                self.moment.now,
            )
            .map_err(|error| format!("the checkpoint {}: {error}", path.display()))?;
            if !store.verify().map_err(on)?.is_sound() {
                return Err(format!("the checkpoint {} is damaged", path.display()));
            }
            self.visited.note("checkpoints found whole");
        }
        Ok(())
    }
}

/// After a second crash, only the states of one step in this many are verified as files and written
/// to.
const RELAPSES_PER_THOROUGH: usize = 5;
const STEPS_AFTER_CHECKPOINT: usize = 6;

/// What was found must be one of these states, including its sequences.
fn expect(possible: &[Arc<State>], found: &State, now: u64) -> Result<(), String> {
    if possible
        .iter()
        .any(|state| state.looks_like(found, now) && same_sequences(state, found, now))
    {
        return Ok(());
    }
    let mut text = format!(
        "the store shows none of the {} states it may be in:\n{}\npossible, oldest first:",
        possible.len(),
        describe(found, now)
    );
    for state in possible {
        let _ = write!(text, "\n{}", describe(state, now));
    }
    Err(text)
}

/// Compares the sequences of two states that look alike.
fn same_sequences(one: &State, other: &State, now: u64) -> bool {
    one.namespaces
        .values()
        .zip(other.namespaces.values())
        .all(|(own, others)| {
            own.visible(now)
                .zip(others.visible(now))
                .all(|((_, own), (_, other))| own.sequence == other.sequence)
        })
}

fn report(workload: &Workload, place: &Place, moment: &Moment, error: &str) -> String {
    format!(
        "cut off before step {:?} of workload {}: {error}\nto replay only this state: {PLACE}='{}'",
        moment.step,
        workload.name,
        write_place(&workload.name, place)
    )
}

/// The state that the environment names, if any.
pub fn place_to_replay() -> Option<(String, Place)> {
    let text = std::env::var(PLACE).ok()?;
    Some(read_place(&text).unwrap_or_else(|error| panic!("{PLACE}: {error}")))
}

/// Rebuilds this state, and every one on the way to it.
pub fn replay(name: &str, place: &Place, below: crate::crash::recording::Below) -> Result<(), String> {
    let workload = Workload::named(name)?;
    let recording = workload.record(below);
    let wanted = |before: &Place, step: usize, _: &Moment| -> Vec<Cut> {
        match place.get(before.len()) {
            Some((at, cut)) if place.starts_with(before) && *at == step => vec![cut.clone()],
            _ => Vec::new(),
        }
    };
    let explorer = Explorer::default();
    explorer.explore(&workload, &recording, &wanted)?;
    assert_eq!(explorer.visited(OPENED) as usize, place.len(), "there is no such state");
    Ok(())
}
