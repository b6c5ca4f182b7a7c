//! Injected faults: a storage that wraps another one and makes chosen calls fail.
//!
//! Every call gets a number, the step, so that a test can run once to count the steps and then again for each of
//! them with something going wrong just there. Crash tests stop the storage at a step
//! ([`FaultStorage::stop_at`]) and go on with what a [`MemStorage`](super::MemStorage) below it has kept.

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Map, Storage, StorageFile, StorageLock};

/// What a call does, for choosing where a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`Storage::create_directory`].
    CreateDirectory,
    /// [`Storage::list`] and [`Storage::exists`].
    List,
    /// [`Storage::create`].
    Create,
    /// [`Storage::open`] for reading only.
    OpenRead,
    /// [`Storage::open`] for writing.
    OpenWrite,
    /// [`Storage::rename`]; its path is the new name or the old one.
    Rename,
    /// [`Storage::remove`].
    Remove,
    /// [`Storage::remove_directory`].
    RemoveDirectory,
    /// [`Storage::hard_link`]; its path is the new name or the old one.
    HardLink,
    /// [`Storage::sync_directory`].
    SyncDirectory,
    /// [`Storage::lock`].
    Lock,
    /// [`StorageFile::read_at`] and [`StorageFile::len`].
    Read,
    /// [`StorageFile::write_at`].
    Write,
    /// [`StorageFile::sync`].
    Sync,
    /// [`StorageFile::set_len`].
    SetLen,
    /// [`StorageFile::map`].
    Map,
}

impl Operation {
    /// Whether it changes what is stored, or makes it durable: only then can a crash before it and one after it
    /// leave different states.
    #[must_use]
    pub const fn mutates(self) -> bool {
        !matches!(
            self,
            Self::List | Self::OpenRead | Self::OpenWrite | Self::Read | Self::Map
        )
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The call fails with this kind and has no effect.
    Error(ErrorKind),
    /// A write takes only so many bytes and reports that. Strikes writes only.
    ShortWrite {
        /// How many; a shorter write is left alone.
        bytes: usize,
    },
    /// A sync fails, and what it should have made durable never will be, although reads still show it (see
    /// [`MemStorage::mark_clean`](super::MemStorage::mark_clean); over another storage it merely was not synced).
    /// Strikes syncs of files, and of directories, whose changes a later sync can still save.
    FailedSync,
    /// The machine stops: this call and all after it fail, without effect, until [`FaultStorage::clear`].
    Stop,
    /// The disk is full: `StorageFull` for calls that take space (creating, linking, writing,
    /// extending), or for whatever [`Fault::operation`] names.
    Full,
}

/// A fault, and where it strikes: at the first call from step `at` on that matches, or at each.
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
    /// Whether it strikes at every matching call from then on, or only at the first.
    pub repeats: bool,
    /// Only calls that do this.
    pub operation: Option<Operation>,
    /// Only calls for a path that contains this text. An open file goes by the path it was opened under.
    pub path_contains: Option<String>,
    /// What goes wrong.
    pub kind: FaultKind,
}

impl Fault {
    /// Strikes once, at the next call that the kind applies to.
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

    /// Not before this step.
    #[must_use]
    pub const fn at(mut self, step: u64) -> Self {
        self.at = step;
        self
    }

    /// Only at calls that do this.
    #[must_use]
    pub const fn on(mut self, operation: Operation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Only at calls for a path that contains this text.
    #[must_use]
    pub fn path(mut self, contains: &str) -> Self {
        self.path_contains = Some(contains.to_owned());
        self
    }

    /// At every matching call.
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
            FaultKind::FailedSync => matches!(operation, Operation::Sync | Operation::SyncDirectory),
            FaultKind::Full => call.takes_space || self.operation.is_some(),
        };
        let on_path = |contains: &String| call.paths.iter().any(|path| path.to_string_lossy().contains(contains));
        applies
            && step >= self.at
            && self.operation.is_none_or(|wanted| wanted == operation)
            && self.path_contains.as_ref().is_none_or(on_path)
    }
}

/// A call that asks whether it may go on.
struct Call<'a> {
    operation: Operation,
    paths: &'a [&'a Path],
    takes_space: bool,
}

/// What is left for the caller to do after its call was let through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    GoOn,
    Shorten { bytes: usize },
    FailSync,
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

/// A storage that passes all calls on to another one, counts them, and makes chosen ones fail. Clones share the
/// counters and faults.
#[derive(Clone, Debug)]
pub struct FaultStorage {
    inner: Arc<dyn Storage>,
    state: Arc<Mutex<State>>,
}

impl FaultStorage {
    /// Wraps a storage; nothing fails until a fault is injected.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self {
            inner,
            state: Arc::default(),
        }
    }

    /// Steps count only calls that mutate, so that stopping at each step visits each crash state once. Calls that are
    /// not counted go by the number of the next step. To be set before the first call.
    #[must_use]
    pub fn counting_mutating_steps_only(self) -> Self {
        self.state().mutating_only = true;
        self
    }

    /// How many calls were counted so far: the number of the next one.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// How many calls so far were of a kind that [mutates](Operation::mutates), whatever `steps` counts.
    #[must_use]
    pub fn mutating_steps(&self) -> u64 {
        self.state().mutating_steps
    }

    /// Adds a fault. Of several that match the same call, the one injected first strikes.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Lets the machine stop at this step: that call and all after it fail without effect.
    pub fn stop_at(&self, step: u64) {
        self.state().stop_at = Some(step);
    }

    /// Whether the machine has stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    /// How many calls an injected fault has struck so far.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.state().struck
    }

    /// Takes back all faults and lets a stopped machine go on. The counters stay.
    pub fn clear(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.stop_at = None;
        state.stopped = false;
    }

    /// A panic of another test thread leaves nothing half done here.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, operation: Operation, paths: &[&Path]) -> io::Result<Verdict> {
        let takes_space = matches!(
            operation,
            Operation::CreateDirectory | Operation::Create | Operation::HardLink | Operation::Write
        );
        self.state().judge(&Call {
            operation,
            paths,
            takes_space,
        })
    }

    fn wrap(&self, path: &Path, file: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        Arc::new(FaultFile {
            storage: self.clone(),
            path: path.to_owned(),
            inner: file,
        })
    }
}

impl State {
    /// Counts the call and decides what becomes of it.
    fn judge(&mut self, call: &Call<'_>) -> io::Result<Verdict> {
        let step = self.steps;
        let counted = call.operation.mutates() || !self.mutating_only;
        self.steps += u64::from(counted);
        self.mutating_steps += u64::from(call.operation.mutates());
        // A call that is not counted happens before the step whose number it goes by.
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

impl Storage for FaultStorage {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.call(Operation::CreateDirectory, &[path])?;
        self.inner.create_directory(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        self.call(Operation::List, &[directory])?;
        self.inner.list(directory)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.call(Operation::Create, &[path])?;
        Ok(self.wrap(path, self.inner.create(path)?))
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn StorageFile>> {
        self.call(
            if write {
                Operation::OpenWrite
            } else {
                Operation::OpenRead
            },
            &[path],
        )?;
        Ok(self.wrap(path, self.inner.open(path, write)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(Operation::Rename, &[from, to])?;
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(Operation::Remove, &[path])?;
        self.inner.remove(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.call(Operation::RemoveDirectory, &[path])?;
        self.inner.remove_directory(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(Operation::HardLink, &[from, to])?;
        self.inner.hard_link(from, to)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        match self.call(Operation::SyncDirectory, &[directory])? {
            Verdict::FailSync => Err(failed_sync()),
            Verdict::GoOn | Verdict::Shorten { .. } => self.inner.sync_directory(directory),
        }
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn StorageLock>> {
        self.call(Operation::Lock, &[path])?;
        self.inner.lock(path, owner)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.call(Operation::List, &[path])?;
        self.inner.exists(path)
    }
}

#[derive(Debug)]
struct FaultFile {
    storage: FaultStorage,
    path: PathBuf,
    inner: Arc<dyn StorageFile>,
}

impl FaultFile {
    fn call(&self, operation: Operation) -> io::Result<Verdict> {
        self.storage.call(operation, &[&self.path])
    }
}

impl StorageFile for FaultFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.call(Operation::Read)?;
        self.inner.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let bytes = match self.call(Operation::Write)? {
            Verdict::Shorten { bytes: count } => bytes.get(..count).unwrap_or(bytes),
            Verdict::GoOn | Verdict::FailSync => bytes,
        };
        self.inner.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        match self.call(Operation::Sync)? {
            Verdict::FailSync => {
                self.inner.mark_clean();
                Err(failed_sync())
            }
            Verdict::GoOn | Verdict::Shorten { .. } => self.inner.sync(),
        }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        // A full disk can always make a file shorter. If the length cannot be had, the call itself will tell.
        let takes_space = self.inner.len().is_ok_and(|before| length > before);
        let call = Call {
            operation: Operation::SetLen,
            paths: &[&self.path],
            takes_space,
        };
        self.storage.state().judge(&call)?;
        self.inner.set_len(length)
    }

    fn len(&self) -> io::Result<u64> {
        self.call(Operation::Read)?;
        self.inner.len()
    }

    fn map(&self, length: u64) -> io::Result<Map> {
        self.call(Operation::Map)?;
        self.inner.map(length)
    }

    fn mark_clean(&self) {
        self.inner.mark_clean();
    }
}
