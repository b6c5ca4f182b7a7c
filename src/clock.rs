//! (Over 400 lines: the rule of time, together with its proof.)
//!
//! The store's time. Expiry is decided by the wall clock, read once per operation; a record that an
//! open store has once seen expired stays expired.
//!
//! Wall clocks are set, forwards and backwards. Expiries on disk are wall-clock times, whatever the
//! clock says when they are written. When the clock is set back, existing records are still judged
//! by the highest time seen since they were written, so that none comes back; records written later
//! are judged by the wall clock, so that a new lifetime has its full length. Sequences tell the two
//! apart: see [`Step`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;

use crate::callback;
use crate::planted::{Planted, planted};

/// The source of a store's time. Called from several threads, some holding locks of the store:
/// calls of a store from here are refused.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Wall clock: milliseconds since the Unix epoch.
    fn wall_ms(&self) -> u64;

    /// A clock that cannot be set: milliseconds since any fixed moment.
    fn monotonic_ms(&self) -> u64;
}

/// The system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock {
            started: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn wall_ms(&self) -> u64 {
        // A clock before 1970 counts as 1970: nothing has expired then.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64)
    }

    fn monotonic_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

/// A clock of the program, from which no store may be called.
#[derive(Debug)]
pub(crate) struct OwnClock<C>(pub(crate) C);

impl<C: Clock> Clock for OwnClock<C> {
    fn wall_ms(&self) -> u64 {
        callback::run(|| self.0.wall_ms())
    }

    fn monotonic_ms(&self) -> u64 {
        callback::run(|| self.0.monotonic_ms())
    }
}

/// A clock that moves only when told to, for testing expiry. Clones share the time.
#[derive(Clone, Debug)]
pub struct ManualClock {
    wall: Arc<AtomicU64>,
    monotonic: Arc<AtomicU64>,
}

impl ManualClock {
    /// Starts the wall clock at this many milliseconds since the epoch, and the monotonic one at 0.
    pub fn new(wall_ms: u64) -> ManualClock {
        ManualClock {
            wall: Arc::new(AtomicU64::new(wall_ms)),
            monotonic: Arc::default(),
        }
    }

    /// Advances both clocks by `ms` milliseconds.
    pub fn advance(&self, ms: u64) {
        self.wall.fetch_add(ms, Ordering::SeqCst);
        self.monotonic.fetch_add(ms, Ordering::SeqCst);
    }

    /// Sets the wall clock, in milliseconds since the epoch; the monotonic clock is unaffected.
    pub fn set_wall(&self, wall_ms: u64) {
        self.wall.store(wall_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall_ms(&self) -> u64 {
        self.wall.load(Ordering::SeqCst)
    }

    fn monotonic_ms(&self) -> u64 {
        self.monotonic.load(Ordering::SeqCst)
    }
}

/// The one expiry predicate: a record is expired from its expiry on.
fn is_expired(expiry: u64, now_ms: u64) -> bool {
    now_ms >= expiry.saturating_add(u64::from(planted(Planted::ExpireLate)))
}

/// How long after a forward jump of the wall clock no expired record leaves the indexes or the
/// disk, so that a clock set wrong can be set right: 10 minutes.
const PAUSE_AFTER_JUMP_MS: u64 = 10 * 60 * 1000;

/// By how much the two clocks may diverge between checks without counting as a jump, whatever the
/// grace: each rounds down to its own millisecond, and the wall clock is slewed. 1 second.
const JUMP_MS_MIN: u64 = 1000;

/// Most steps back that are kept apart. Only steps whose time the clock has not reached again
/// count.
const STEPS_MAX: usize = 64;

/// A step back of the wall clock.
#[derive(Clone, Debug)]
struct Step {
    /// Records below this sequence existed before the step. It is the sequence of the next record
    /// to be appended; until then the step covers all existing records, and this is `u64::MAX`.
    /// Shared, so that a [`Now`] taken earlier sees it too.
    until: Arc<AtomicU64>,
    /// The highest time seen before the step.
    high: u64,
}

/// The time of one operation.
#[derive(Clone, Debug)]
pub(crate) struct Now {
    wall_ms: u64,
    /// Ordered by rising sequence and falling time: of the steps after a record the first has the
    /// highest time. None if there are no steps, as almost always.
    steps: Option<Arc<Vec<Step>>>,
}

impl Now {
    /// The wall clock, in milliseconds since the epoch.
    pub(crate) fn wall_ms(&self) -> u64 {
        self.wall_ms
    }

    /// Whether a record with this expiry and sequence has expired.
    pub(crate) fn is_expired(&self, expiry: Option<u64>, sequence: u64) -> bool {
        expiry.is_some_and(|expiry| is_expired(expiry, self.wall_ms) || self.was_expired(expiry, sequence))
    }

    /// Whether it had expired before the clock was set back.
    fn was_expired(&self, expiry: u64, sequence: u64) -> bool {
        let was_there = |step: &&Step| {
            let until = step.until.load(Ordering::Acquire);
            sequence < until || planted(Planted::TimeStandsStill)
        };
        let steps = self.steps.as_deref().map_or(&[][..], Vec::as_slice);
        steps
            .iter()
            .find(was_there)
            .is_some_and(|step| is_expired(expiry, step.high))
    }
}

/// The last reading of the wall clock, in one word: the highest time since the last step back, the
/// number of notes (modulo 256), and whether there are steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen(u64);

impl Seen {
    /// Times above this (the year 1,143,668) count as this one.
    const MS_MAX: u64 = u64::MAX >> 9;

    fn new(wall_ms: u64) -> Seen {
        Seen(wall_ms.min(Seen::MS_MAX) << 9)
    }

    fn ms(self) -> u64 {
        self.0 >> 9
    }

    fn has_steps(self) -> bool {
        self.0 & 1 == 1
    }

    /// The same, with a later time.
    fn at(self, wall_ms: u64) -> Seen {
        Seen(Seen::new(wall_ms).0 | (self.0 & 0x1ff))
    }

    /// The same, with one more note.
    fn noted(self, wall_ms: u64, has_steps: bool) -> Seen {
        let notes = (self.0 & 0x1fe).wrapping_add(2) & 0x1fe;
        Seen(Seen::new(wall_ms).0 | notes | u64::from(has_steps))
    }
}

/// The time as one open store sees it.
///
/// A step back is noticed exactly, by the next thread that reads the clock: it has loaded a time
/// (`seen`) and then reads an earlier one. What keeps `seen` and the rest consistent:
///
/// * `seen` is loaded before the clock is read, and advanced only from the value that was loaded. A
///   thread that read the clock before a step, and is late, finds `seen` changed, and reads again.
/// * The list of steps grows before `seen` reflects it, and shrinks after; and a thread that has
///   loaded the list checks that `seen` is unchanged. So no thread uses a list without a step that
///   another thread has noted.
/// * A put with a lifetime reads the clock for its expiry before it is appended. So either it
///   noticed the step itself, or another thread did and this one has seen that (`seen` is stored
///   with release and loaded with acquire). In both cases the flag `unnumbered`, which is raised
///   before `seen` changes, is up when the put is appended, and the step ends at its sequence or
///   before. A reader of a record finds the ends of all steps noted before it, since they are set
///   before the record is published.
///
/// One race remains: a thread reads a time ahead of `seen`, and at that moment the clock is set
/// back to exactly the millisecond in `seen`. The thread then notes the time ahead, and the next
/// reader notes a step back.
#[derive(Debug)]
pub(crate) struct StoreTime {
    clock: Arc<dyn Clock>,
    /// A [`Seen`].
    seen: AtomicU64,
    steps: ArcSwap<Vec<Step>>,
    /// Whether `noting` holds the end of a step.
    unnumbered: AtomicBool,
    /// Where the newest step ends, while that has no number yet. Locked to change the list; no
    /// other lock is taken under it.
    noting: Mutex<Option<Arc<AtomicU64>>>,
    jumps: Mutex<Jumps>,
}

/// Compares the two clocks from check to check.
#[derive(Debug)]
struct Jumps {
    wall: u64,
    monotonic: u64,
    pause_until: u64,
}

impl StoreTime {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> StoreTime {
        let (wall, monotonic) = (clock.wall_ms(), clock.monotonic_ms());
        StoreTime {
            clock,
            seen: AtomicU64::new(Seen::new(wall).0),
            steps: ArcSwap::default(),
            unnumbered: AtomicBool::new(false),
            noting: Mutex::default(),
            jumps: Mutex::new(Jumps {
                wall,
                monotonic,
                pause_until: 0,
            }),
        }
    }

    /// The time, for one operation. Writes nothing unless a millisecond has passed.
    pub(crate) fn now(&self) -> Now {
        loop {
            let seen = self.seen();
            let steps = seen.has_steps().then(|| self.steps.load_full());
            let wall_ms = self.clock.wall_ms();
            if planted(Planted::ClockStepsBack) {
                return Now { wall_ms, steps: None };
            }
            let later = seen.at(wall_ms);
            if later.ms() < seen.ms() {
                return self.note_step();
            }
            let is_unchanged = if later == seen {
                self.seen() == seen
            } else {
                self.replace(seen, later)
            };
            if is_unchanged {
                return self.without_the_past(Now { wall_ms, steps });
            }
        }
    }

    fn seen(&self) -> Seen {
        Seen(self.seen.load(Ordering::Acquire))
    }

    /// False if another thread has changed `seen`.
    fn replace(&self, seen: Seen, by: Seen) -> bool {
        (self.seen)
            .compare_exchange(seen.0, by.0, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    fn noting(&self) -> MutexGuard<'_, Option<Arc<AtomicU64>>> {
        self.noting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the clock was set back, after checking again.
    #[cold]
    fn note_step(&self) -> Now {
        let mut unnumbered = self.noting();
        loop {
            let seen = self.seen();
            let wall_ms = self.clock.wall_ms();
            let later = seen.at(wall_ms);
            if later.ms() >= seen.ms() {
                // Another thread has noted it, or the clock was set forward again.
                if later == seen || self.replace(seen, later) {
                    let steps = seen.has_steps().then(|| self.steps.load_full());
                    return Now { wall_ms, steps };
                }
                continue;
            }
            let until = unnumbered.get_or_insert_with(|| Arc::new(AtomicU64::new(u64::MAX)));
            self.unnumbered.store(true, Ordering::Release);
            let step = Step {
                until: until.clone(),
                high: seen.ms(),
            };
            let steps = Arc::new(with_step(&self.steps.load(), step));
            self.steps.store(steps.clone());
            if self.replace(seen, seen.noted(wall_ms, true)) {
                return Now {
                    wall_ms,
                    steps: Some(steps),
                };
            }
        }
    }

    /// Forgets all steps once the clock has reached the time before the first of them.
    fn without_the_past(&self, now: Now) -> Now {
        let highest = now.steps.as_ref().and_then(|steps| steps.first());
        if highest.is_none_or(|step| step.high > now.wall_ms) {
            return now;
        }
        // If another thread holds the lock, it does this too.
        if let Ok(_noting) = self.noting.try_lock() {
            let seen = self.seen();
            let is_past = self.steps.load().first().is_none_or(|step| step.high <= seen.ms());
            if is_past && self.replace(seen, seen.noted(seen.ms(), false)) {
                self.steps.store(Arc::default());
            }
        }
        Now { steps: None, ..now }
    }

    /// Called under the writer lock before a record with this sequence is appended.
    pub(crate) fn appending(&self, sequence: u64) {
        if self.unnumbered.load(Ordering::Acquire) {
            self.number_step(sequence);
        }
    }

    #[cold]
    fn number_step(&self, sequence: u64) {
        let mut unnumbered = self.noting();
        if let Some(until) = unnumbered.take() {
            until.store(sequence, Ordering::Release);
        }
        self.unnumbered.store(false, Ordering::Release);
    }

    /// The wall clock, for removing expired records from the indexes; None for a while after it
    /// jumped forward by more than the grace and than a second.
    pub(crate) fn settled_ms(&self, grace_ms: u64) -> Option<u64> {
        let mut jumps = self.jumps.lock().unwrap_or_else(PoisonError::into_inner);
        let (wall, monotonic) = (self.now().wall_ms, self.clock.monotonic_ms());
        let passed = monotonic.saturating_sub(jumps.monotonic);
        if wall.saturating_sub(jumps.wall) > passed.saturating_add(grace_ms.max(JUMP_MS_MIN)) {
            jumps.pause_until = monotonic.saturating_add(PAUSE_AFTER_JUMP_MS);
        }
        (jumps.wall, jumps.monotonic) = (wall, monotonic);
        (monotonic >= jumps.pause_until || planted(Planted::SkipPause)).then_some(wall)
    }

    /// The time by which a record must have expired to be dropped from disk: `grace_ms` ago. None
    /// for a while after a jump.
    pub(crate) fn drop_horizon(&self, grace_ms: u64) -> Option<u64> {
        Some(self.settled_ms(grace_ms)?.saturating_sub(grace_ms))
    }

    pub(crate) fn monotonic_ms(&self) -> u64 {
        self.clock.monotonic_ms()
    }

    pub(crate) fn wall_ms(&self) -> u64 {
        self.clock.wall_ms()
    }
}

/// The steps with a new one added. Steps whose time is not above that of the new one are merged
/// into it, since it covers their records too.
fn with_step(steps: &[Step], step: Step) -> Vec<Step> {
    let mut steps: Vec<_> = steps.iter().filter(|other| other.high > step.high).cloned().collect();
    if steps.last().is_some_and(|last| Arc::ptr_eq(&last.until, &step.until)) {
        // Nothing was appended in between.
        return steps;
    }
    if steps.len() >= STEPS_MAX {
        merge_closest(&mut steps);
    }
    steps.push(step);
    steps
}

/// Merges the two neighbours whose times are closest: the records between them are judged by the
/// higher one.
fn merge_closest(steps: &mut Vec<Step>) {
    let pairs = steps.iter().zip(steps.iter().skip(1));
    let gaps = pairs.map(|(step, next)| step.high - next.high).enumerate();
    if let Some((index, _)) = gaps.min_by_key(|(_, gap)| *gap) {
        let lower = steps.remove(index + 1);
        if let Some(step) = steps.get_mut(index) {
            step.until = lower.until;
        }
    }
}

#[cfg(test)]
mod tests;
