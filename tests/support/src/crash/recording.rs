//! One run of a workload, and the disk as it was before each step.
//!
//! A machine that stops at a step leaves what the steps before it have done: no call after it has
//! an effect. So one run that is never stopped, with a copy of the disk taken before each call that
//! changes something, holds the states of all runs that are stopped; and what the writes after the
//! crash would have done tells the sequences of the one under way.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use embercask::storage::{Call, Interposed, Interposer, MemStorage, Storage};
use embercask::{Clock, ManualClock};

use crate::crash::cut::Cut;
use crate::driver::Observer;
use crate::model::{Promise, State};

/// A write that was to come next.
#[derive(Clone, Debug)]
pub struct UnderWay {
    pub path: PathBuf,
    pub offset: u64,
    pub bytes: Vec<u8>,
}

/// The disk before a step.
#[derive(Clone, Debug)]
pub struct Moment {
    pub disk: MemStorage,
    pub write: Option<UnderWay>,
    pub now: u64,
    /// The step, in words.
    pub step: String,
    span: Span,
    /// Checkpoints that had been begun, and those of them that had been acknowledged.
    pub copies: (usize, usize),
}

impl Moment {
    /// The disk that this cut leaves.
    pub fn cut(&self, cut: &Cut) -> MemStorage {
        match cut {
            Cut::Kill => self.disk.crash_process(),
            Cut::KillWithin(bytes) => {
                let disk = self.disk.crash_process();
                if let Some(write) = &self.write {
                    let file = disk.open(&write.path, true).unwrap();
                    let part = &write.bytes[..write.bytes.len().min(*bytes)];
                    file.write_at(part, write.offset).unwrap();
                }
                disk
            }
            Cut::Power(policy) => self.disk.power_cut(policy),
        }
    }
}

/// Places among the states of a run.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    /// The newest that survives a power cut.
    durable: usize,
    /// The newest that survives a kill.
    killed: usize,
    /// The newest; if a write is under way, the one it leads to.
    last: usize,
}

/// The states that a store may be in after a crash.
#[derive(Clone, Debug)]
pub struct Allowed {
    states: Arc<Vec<Arc<State>>>,
    span: Span,
}

impl Allowed {
    /// Just this one.
    pub fn only(state: Arc<State>) -> Allowed {
        Allowed {
            states: Arc::new(vec![state]),
            span: Span::default(),
        }
    }

    /// After such a crash; and after any that comes before the store was seen again.
    pub fn after(&self, cut: &Cut) -> Allowed {
        let mut allowed = self.clone();
        if !cut.keeps_everything() {
            allowed.span.killed = allowed.span.durable;
        }
        allowed
    }

    /// Those that a kill leaves.
    pub fn states(&self) -> &[Arc<State>] {
        &self.states[self.span.killed..=self.span.last]
    }

    /// The same for the same states of the same run.
    pub fn range(&self) -> (usize, usize) {
        (self.span.killed, self.span.last)
    }
}

/// A checkpoint that was made meanwhile.
#[derive(Clone, Debug)]
pub struct Copied {
    pub path: PathBuf,
    state: usize,
    /// Moments until it was acknowledged.
    pub acknowledged_at: usize,
}

#[derive(Debug, Default)]
struct Log {
    moments: Vec<Moment>,
    states: Vec<Arc<State>>,
    span: Span,
    copies: Vec<Copied>,
    copies_acknowledged: usize,
}

/// A finished run.
#[derive(Debug)]
pub struct Recording {
    pub moments: Vec<Moment>,
    pub copies: Vec<Copied>,
    states: Arc<Vec<Arc<State>>>,
}

impl Recording {
    /// What the store may show when it was cut off at this moment.
    pub fn allowed(&self, moment: &Moment) -> Allowed {
        Allowed {
            states: self.states.clone(),
            span: moment.span,
        }
    }

    /// What a checkpoint holds.
    pub fn copied(&self, copied: &Copied) -> &State {
        &self.states[copied.state]
    }
}

/// What is put between the recorder and the disk.
pub type Below = Arc<dyn Fn(&MemStorage) -> Arc<dyn Storage> + Send + Sync>;

/// Follows a driver and records what it does. Clones record into the same log.
#[derive(Clone)]
pub struct Recorder {
    log: Arc<Mutex<Log>>,
    clock: ManualClock,
    below: Below,
}

impl Recorder {
    pub fn new(clock: &ManualClock, below: Below) -> Recorder {
        let log = Log {
            states: vec![Arc::default()],
            ..Log::default()
        };
        Recorder {
            log: Arc::new(Mutex::new(log)),
            clock: clock.clone(),
            below,
        }
    }

    /// Nothing lies between it and the disk.
    pub fn over_the_disk(clock: &ManualClock) -> Recorder {
        Recorder::new(clock, Arc::new(|disk| Arc::new(disk.clone())))
    }

    pub fn checkpoint_begins(&self, path: &Path) {
        let mut log = self.log();
        let state = log.span.last;
        log.copies.push(Copied {
            path: path.to_owned(),
            state,
            acknowledged_at: usize::MAX,
        });
    }

    pub fn checkpoint_acknowledged(&self) {
        let mut log = self.log();
        let now = log.moments.len();
        log.copies_acknowledged = log.copies.len();
        if let Some(last) = log.copies.last_mut() {
            last.acknowledged_at = now;
        }
    }

    /// One more moment, after all steps so far.
    pub fn mark(&self, disk: &MemStorage, step: &str) {
        self.take(disk, step.to_owned(), None);
    }

    /// What was recorded so far; another recording begins.
    pub fn finish(&self) -> Recording {
        let log = std::mem::take(&mut *self.log());
        Recording {
            moments: log.moments,
            copies: log.copies,
            states: Arc::new(log.states),
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, disk: &MemStorage, step: String, write: Option<UnderWay>) {
        let mut log = self.log();
        let moment = Moment {
            disk: disk.crash_process(),
            write,
            now: self.clock.wall_ms(),
            step,
            span: log.span,
            copies: (log.copies.len(), log.copies_acknowledged),
        };
        log.moments.push(moment);
    }
}

impl Observer for Recorder {
    fn storage(&self, disk: &MemStorage) -> Arc<dyn Storage> {
        let taker = Taker {
            recorder: self.clone(),
            disk: disk.clone(),
        };
        Arc::new(Interposed::over((self.below)(disk), Arc::new(taker)))
    }

    /// Power fails in the copies alone; what is recorded goes on, even on a device that lies.
    fn may_lose_power(&self) -> bool {
        false
    }

    fn begins(&self, state: &State) {
        let mut log = self.log();
        log.states.push(Arc::new(state.clone()));
        log.span.last = log.states.len() - 1;
    }

    fn changed(&self, state: &State) {
        // Now its sequences are known.
        if let Some(last) = self.log().states.last_mut() {
            *last = Arc::new(state.clone());
        }
    }

    fn acknowledged(&self, promise: Promise) {
        let mut log = self.log();
        let last = log.span.last;
        match promise {
            Promise::Nothing => {}
            Promise::Kill => log.span.killed = last,
            Promise::PowerCut => (log.span.durable, log.span.killed) = (last, last),
        }
    }
}

/// Takes the disk before each call that changes something.
struct Taker {
    recorder: Recorder,
    disk: MemStorage,
}

impl std::fmt::Debug for Taker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Taker").finish_non_exhaustive()
    }
}

impl Interposer for Taker {
    fn around(&self, call: &Call<'_>, make: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        if !call.operation.mutates() {
            return make();
        }
        let write = call.write.map(|(offset, bytes)| UnderWay {
            path: call.path.to_owned(),
            offset,
            bytes: bytes.to_vec(),
        });
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let mut step = format!("{:?} {}", call.operation, name(call.path).unwrap_or_default());
        if let Some(to) = call.to {
            step += &format!(" to {}", name(to).unwrap_or_default());
        }
        self.recorder.take(&self.disk, step, write);
        make()
    }
}
