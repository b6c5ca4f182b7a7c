//! A recorded run of a workload: the disk as it was before each step.
//!
//! A machine that stops at a step leaves the effects of the steps before it and no others. So one
//! run that is never stopped, with a copy of the disk taken before each modifying call, contains
//! the states of all runs that are stopped. The calls after the crash still tell the sequences of
//! the write that was under way.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use embercask::storage::{Call, Interposed, Interposer, MemStorage, Storage};
use embercask::{Clock, ManualClock};

use crate::crash::cut::Cut;
use crate::driver::Observer;
use crate::model::{Promise, State};

/// The next write.
#[derive(Clone, Debug)]
pub struct UnderWay {
    pub path: PathBuf,
    pub offset: u64,
    pub bytes: Vec<u8>,
}

/// The disk just before a step.
#[derive(Clone, Debug)]
pub struct Moment {
    pub disk: MemStorage,
    pub write: Option<UnderWay>,
    pub now: u64,
    /// The step, as text.
    pub step: String,
    span: Span,
    /// Number of checkpoints begun, and of those acknowledged.
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

/// Indexes into the states of a run.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    /// The newest state that survives a power cut.
    durable: usize,
    /// The newest state that survives a kill.
    killed: usize,
    /// The newest state; while a write is under way, the last one it leads to.
    last: usize,
}

/// The states that a store may be in after a crash.
#[derive(Clone, Debug)]
pub struct Allowed {
    states: Arc<Vec<Arc<State>>>,
    span: Span,
}

impl Allowed {
    /// Only this state.
    pub fn only(state: Arc<State>) -> Allowed {
        Allowed {
            states: Arc::new(vec![state]),
            span: Span::default(),
        }
    }

    /// The states after such a crash, and after any crash before the store is read again.
    pub fn after(&self, cut: &Cut) -> Allowed {
        let mut allowed = self.clone();
        if !cut.keeps_everything() {
            allowed.span.killed = allowed.span.durable;
        }
        allowed
    }

    /// The states after a kill.
    pub fn states(&self) -> &[Arc<State>] {
        &self.states[self.span.killed..=self.span.last]
    }

    /// Equal for equal sets of states of the same run.
    pub fn range(&self) -> (usize, usize) {
        (self.span.killed, self.span.last)
    }
}

/// A checkpoint made during the run.
#[derive(Clone, Debug)]
pub struct Copied {
    pub path: PathBuf,
    state: usize,
    /// The number of moments until it was acknowledged.
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
    /// What the store may show if it is cut off at this moment.
    pub fn allowed(&self, moment: &Moment) -> Allowed {
        Allowed {
            states: self.states.clone(),
            span: moment.span,
        }
    }

    /// The content of a checkpoint.
    pub fn copied(&self, copied: &Copied) -> &State {
        &self.states[copied.state]
    }
}

/// Builds the storage between the recorder and the disk.
pub type Below = Arc<dyn Fn(&MemStorage) -> Arc<dyn Storage> + Send + Sync>;

/// Observes a driver and records its steps. Clones record into the same log.
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

    /// A recorder directly over the disk.
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

    /// Adds a moment after all steps so far.
    pub fn mark(&self, disk: &MemStorage, step: &str) {
        self.take(disk, step.to_owned(), None);
    }

    /// Returns the recording so far and starts a new one.
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

    /// Power fails only in the copies; the recorded run continues, even on a lying device.
    fn may_lose_power(&self) -> bool {
        false
    }

    fn begins(&self, states: &[State]) {
        let mut log = self.log();
        log.states.extend(states.iter().cloned().map(Arc::new));
        log.span.last = log.states.len() - 1;
    }

    fn changed(&self, states: &[State]) {
        // Their sequences are known now.
        let mut log = self.log();
        let before = log.states.len() - states.len();
        log.states.truncate(before);
        log.states.extend(states.iter().cloned().map(Arc::new));
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

/// Copies the disk before each modifying call.
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
