//! Injected faults: a storage that wraps another one and makes chosen calls fail.
//!
//! Every call gets a number, the step, so that a test can run once to count the steps and then once
//! per step with a fault at that step. Crash tests stop the storage at a step
//! ([`FaultStorage::stop_at`]) and continue with what the [`MemStorage`](super::MemStorage) below
//! it has kept.

#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::sealed::Sealed;
use super::{Call, Interposed, Interposer, Operation, Storage, StorageDirectory};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The call fails with this kind and has no effect.
    Error(ErrorKind),
    /// A write writes only this many bytes and reports that. Strikes writes only.
    ShortWrite {
        /// Maximum number of bytes; a shorter write is left alone.
        bytes: usize,
    },
    /// A sync fails, and the changes it should have made durable never become durable, although
    /// reads still show them (see [`MemStorage::mark_clean`](super::MemStorage::mark_clean); over
    /// another storage they are merely not synced). Strikes syncs of files, and of directories,
    /// whose changes a later sync can still make durable.
    FailedSync,
    /// As [`FailedSync`](Self::FailedSync), but for a journal commit: no pending change of any file
    /// or directory ever becomes durable, though reads keep showing them. Other syncs succeed, and
    /// all later metadata changes are refused. Strikes syncs of files and directories.
    FailedCommit {
        /// Whether the sync that it strikes fails; ext4 reports a failed commit to one of the
        /// callers waiting for it, or to none.
        told: bool,
    },
    /// The process is out of descriptors: opening a file or directory fails (`EMFILE`).
    NoDescriptors,
    /// The machine stops: this call and all later ones fail, without effect, until
    /// [`FaultStorage::clear`].
    Stop,
    /// The disk is full: `StorageFull` for calls that take space (creating, linking, writing,
    /// extending), or for the operation that [`Fault::operation`] names.
    Full,
}

/// A fault, and where it strikes: at the first matching call from step `at` on, or at each.
///
/// ```
/// use embercask::storage::{Fault, FaultKind, Operation};
///
/// let _second_call = Fault::new(FaultKind::Stop).at(1);
/// let _every_hint = Fault::new(FaultKind::Full).on(Operation::Create).path(".hint").repeated();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The first step at which it can strike; steps count from 0.
    pub at: u64,
    /// Whether it strikes every matching call from then on, or only the first.
    pub repeats: bool,
    /// Strikes only calls with this operation.
    pub operation: Option<Operation>,
    /// Strikes only calls for a path that contains this text. For an open file, that is the path it
    /// was opened under.
    pub path_contains: Option<String>,
    /// What goes wrong.
    pub kind: FaultKind,
}

impl Fault {
    /// A fault that strikes once, at the next call that the kind applies to.
    #[must_use]
    pub const fn new(kind: FaultKind) -> Self {
        Self {
            at: 0,
            repeats: false,
            operation: None,
            path_contains: None,
            kind,
        }
    }

    /// Strikes at this step at the earliest.
    #[must_use]
    pub const fn at(mut self, step: u64) -> Self {
        self.at = step;
        self
    }

    /// Strikes only calls with this operation.
    #[must_use]
    pub const fn on(mut self, operation: Operation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Strikes only calls for a path that contains this text.
    #[must_use]
    pub fn path(mut self, contains: &str) -> Self {
        self.path_contains = Some(contains.to_owned());
        self
    }

    /// Strikes every matching call.
    #[must_use]
    pub const fn repeated(mut self) -> Self {
        self.repeats = true;
        self
    }

    fn matches(&self, call: &Call<'_>, step: u64) -> bool {
        let operation = call.operation;
        let applies = match self.kind {
            FaultKind::Error(_) | FaultKind::Stop => true,
            FaultKind::ShortWrite { .. } => operation == Operation::Write,
            FaultKind::FailedSync | FaultKind::FailedCommit { .. } => {
                matches!(operation, Operation::Sync | Operation::SyncDirectory)
            }
            FaultKind::NoDescriptors => operation.opens(),
            FaultKind::Full => call.takes_space || self.operation.is_some(),
        };
        let paths = || std::iter::once(call.path).chain(call.to);
        let on_path = |contains: &String| paths().any(|path| path.to_string_lossy().contains(contains));
        applies
            && step >= self.at
            && self.operation.is_none_or(|wanted| wanted == operation)
            && self.path_contains.as_ref().is_none_or(on_path)
    }
}

/// Too many open files: the error's number on Unix.
const EMFILE: i32 = 24;

/// What a call that does not fail at once has to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    GoOn,
    Shorten { bytes: usize },
    FailSync,
    FailCommit { told: bool },
}

#[derive(Debug, Default)]
struct State {
    steps: u64,
    mutating_steps: u64,
    mutating_only: bool,
    stop_at: Option<u64>,
    stopped: bool,
    faults: Vec<Fault>,
    struck: u64,
}

/// A storage that passes all calls to another one, counts them, and makes chosen ones fail. Clones
/// share the counters and faults.
#[derive(Clone, Debug)]
pub struct FaultStorage {
    interposed: Interposed,
    faults: Arc<Faults>,
}

#[derive(Debug, Default)]
struct Faults {
    state: Mutex<State>,
}

impl FaultStorage {
    /// Wraps a storage; nothing fails until a fault is injected.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        let faults: Arc<Faults> = Arc::default();
        Self {
            interposed: Interposed::over(inner, faults.clone()),
            faults,
        }
    }

    /// Makes steps count only mutating calls, so that stopping at each step visits each crash state
    /// once. Calls that are not counted have the number of the next step. Must be set before the
    /// first call.
    #[must_use]
    pub fn counting_mutating_steps_only(self) -> Self {
        self.state().mutating_only = true;
        self
    }

    /// Number of calls counted so far, which is the number of the next one.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// Number of [mutating](Operation::mutates) calls so far, independent of what `steps` counts.
    #[must_use]
    pub fn mutating_steps(&self) -> u64 {
        self.state().mutating_steps
    }

    /// Adds a fault. If several match a call, the one injected first strikes.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Stops the machine at this step: that call and all later ones fail without effect.
    pub fn stop_at(&self, step: u64) {
        self.state().stop_at = Some(step);
    }

    /// Whether the machine has stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    /// Number of calls struck by an injected fault so far.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.state().struck
    }

    /// Removes all faults and resumes a stopped machine. The counters stay.
    pub fn clear(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.stop_at = None;
        state.stopped = false;
    }

    /// Lock poisoning is ignored: a panic of another test thread leaves the state consistent.
    fn state(&self) -> MutexGuard<'_, State> {
        self.faults.state()
    }
}

impl State {
    /// Counts the call and decides its outcome.
    fn judge(&mut self, call: &Call<'_>) -> io::Result<Verdict> {
        let step = self.steps;
        let counted = call.operation.mutates() || !self.mutating_only;
        self.steps += u64::from(counted);
        self.mutating_steps += u64::from(call.operation.mutates());
        // A call that is not counted happens before the step whose number it has.
        if counted && self.stop_at.is_some_and(|stop_at| step >= stop_at) {
            self.stopped = true;
        }
        if self.stopped {
            return Err(io::Error::other("stopped"));
        }
        let Some(index) = self.faults.iter().position(|fault| fault.matches(call, step)) else {
            return Ok(Verdict::GoOn);
        };
        let Some(fault) = self.faults.get(index) else {
            return Ok(Verdict::GoOn);
        };
        let kind = fault.kind;
        self.struck += 1;
        if !fault.repeats {
            self.faults.remove(index);
        }
        match kind {
            FaultKind::Error(kind) => Err(io::Error::new(kind, "injected fault")),
            FaultKind::ShortWrite { bytes } => Ok(Verdict::Shorten { bytes }),
            FaultKind::FailedSync => Ok(Verdict::FailSync),
            FaultKind::FailedCommit { told } => Ok(Verdict::FailCommit { told }),
            FaultKind::NoDescriptors => Err(io::Error::from_raw_os_error(EMFILE)),
            FaultKind::Stop => {
                self.stopped = true;
                Err(io::Error::other("stopped"))
            }
            FaultKind::Full => Err(io::Error::new(ErrorKind::StorageFull, "injected fault")),
        }
    }
}

fn failed_sync() -> io::Error {
    io::Error::other("injected fault: sync failed")
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Interposer for Faults {
    fn around(&self, call: &Call<'_>, make: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let verdict = self.state().judge(call)?;
        match verdict {
            Verdict::GoOn | Verdict::Shorten { .. } => make(),
            Verdict::FailSync => {
                if let Some(file) = call.file {
                    file.mark_clean();
                }
                Err(failed_sync())
            }
            Verdict::FailCommit { told } => {
                match (call.file, call.directory) {
                    (Some(file), _) => file.fail_commit(),
                    (None, Some(directory)) => directory.fail_commit(),
                    (None, None) => {}
                }
                if told { Err(failed_sync()) } else { Ok(()) }
            }
        }
    }

    fn around_write(&self, call: &Call<'_>, make: &mut dyn FnMut(usize) -> io::Result<usize>) -> io::Result<usize> {
        let all = call.write.map_or(0, |(_, bytes)| bytes.len());
        let verdict = self.state().judge(call)?;
        match verdict {
            Verdict::Shorten { bytes } => make(bytes.min(all)),
            Verdict::GoOn | Verdict::FailSync | Verdict::FailCommit { .. } => make(all),
        }
    }
}

impl Sealed for FaultStorage {}

impl Storage for FaultStorage {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.interposed.create_directory(path)
    }

    fn open_directory(&self, path: &Path) -> io::Result<Arc<dyn StorageDirectory>> {
        self.interposed.open_directory(path)
    }

    fn rename_directory(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.interposed.rename_directory(from, to)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.interposed.remove_directory(path)
    }

    fn remove_empty_directory(&self, path: &Path) -> io::Result<()> {
        self.interposed.remove_empty_directory(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.interposed.exists(path)
    }

    fn random_u64(&self) -> u64 {
        self.interposed.random_u64()
    }
}
