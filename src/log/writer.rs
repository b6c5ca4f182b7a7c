//! What the writer lock protects: how far the log has come, and what is still under way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};

use super::Engine;
use super::active::{Active, Prepared, Rotated};
use super::manifest::{Floors, ReplaceError};
use super::waiters::Waiters;
use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::format::segment::{Mark, Start};
use crate::location::Location;
use crate::planted::{Planted, planted};
use crate::state::{Move, Undo, WriterLock};
use crate::sync::{ChangeRight, lock};

/// Looks at whether a write-out has ended before a thread goes to sleep over it: a few microseconds.
const SPINS_MAX: u32 = 100;

/// What the writer lock protects.
#[derive(Debug)]
pub(crate) struct Writer {
    /// To change what readers find.
    pub(crate) right: ChangeRight,
    /// Given to the next record.
    pub(crate) next_sequence: u64,
    /// Of the newest record in the log.
    pub(crate) last_sequence: u64,
    /// Everything up to here is in the page cache.
    pub(crate) written_sequence: u64,
    /// Everything up to here is on the device.
    pub(crate) durable_sequence: u64,
    /// Bytes that had been written since opening when the last sync began.
    pub(super) synced_bytes: u64,
    /// Where that ends in the log.
    pub(super) durable_end: Mark,
    /// What was durable when the newest mark was written.
    pub(super) marked_sequence: u64,
    pub(super) active: Option<Active>,
    /// The next active segment, created and listed ahead of time.
    pub(super) prepared: Option<Prepared>,
    /// Segments that were rotated out and are not sealed yet, oldest first.
    pub(super) sealing: Vec<Arc<Rotated>>,
    /// Where the segment before the active one ended.
    pub(super) previous: Start,
    /// A leader is writing out, or syncing.
    pub(super) writing: bool,
    pub(super) syncing: bool,
    /// Threads that wait for a leader.
    pub(super) waiting: usize,
    /// How to take back each pending record, oldest first.
    pub(super) undo: Vec<Undo>,
    /// Pending bytes before this offset of the active segment were acknowledged.
    pub(super) acknowledged_end: u64,
    /// Writes that have not yet learnt how they ended.
    pub(super) waiters: Waiters,
    /// Rises whenever records are taken back.
    pub(crate) rollbacks: u64,
    /// What recovery could not yet write anew for lack of space.
    pub(super) unrecovered: Option<super::recovery::Unrecovered>,
    pub(super) poisoned: Option<String>,
    pub(super) closed: bool,
}

impl Writer {
    /// Of a log without records.
    pub(crate) fn new(right: ChangeRight) -> Writer {
        Writer {
            next_sequence: 1,
            last_sequence: 0,
            written_sequence: 0,
            durable_sequence: 0,
            marked_sequence: 0,
            synced_bytes: 0,
            durable_end: Mark::default(),
            active: None,
            prepared: None,
            sealing: Vec::new(),
            previous: Start::default(),
            writing: false,
            syncing: false,
            waiting: 0,
            undo: Vec::new(),
            acknowledged_end: 0,
            waiters: Waiters::default(),
            rollbacks: 0,
            unrecovered: None,
            poisoned: None,
            closed: false,
            right,
        }
    }

    /// The records that were found when the store was opened end before this sequence.
    pub(super) fn begin_at(&mut self, next_sequence: u64) {
        let last = next_sequence.saturating_sub(1);
        self.next_sequence = next_sequence;
        self.last_sequence = last;
        self.written_sequence = last;
        self.durable_sequence = last;
        self.marked_sequence = last;
    }

    /// Refuses if nothing may be written any more.
    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed {
            return Err(Error::Closed);
        }
        match &self.poisoned {
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    pub(crate) fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    /// Whether recovery still has to write anew what it found.
    pub(crate) fn is_recovering(&self) -> bool {
        self.unrecovered.is_some()
    }

    /// Records were copied: pending records that stand in front of them would, taken back, uncover the copies.
    pub(crate) fn forward(&mut self, moves: &[Move]) {
        if self.undo.is_empty() {
            return;
        }
        let copies: HashMap<Location, Location> = moves.iter().map(|step| (step.from, step.to)).collect();
        self.undo.iter_mut().for_each(|undo| undo.forward(&copies));
    }

    /// Bytes that only memory holds.
    pub(crate) fn pending_bytes(&self) -> u64 {
        self.active
            .as_ref()
            .map_or(0, |active| active.appender.len() as u64 - active.written)
    }

    /// Memory of the active segment and those not sealed yet.
    pub(crate) fn buffer_bytes(&self) -> u64 {
        let rotated: u64 = self.sealing.iter().map(|rotated| rotated.summary.data_end).sum();
        rotated + self.active.as_ref().map_or(0, |active| active.appender.len() as u64)
    }

    /// The active segment grows no more.
    pub(super) fn rotated_out(&mut self, old: Active) {
        let summary = old.account.summary();
        self.previous = Start {
            previous_id: old.segment.id(),
            previous_end: summary.data_end,
            previous_crc: summary.records_crc,
        };
        let synced = AtomicBool::new(false);
        self.sealing.push(Arc::new(Rotated {
            segment: old.segment,
            file: old.file,
            summary,
            synced,
        }));
    }

    /// The log is durable up to this sequence, which ends here.
    pub(super) fn durable_up_to(&mut self, sequence: u64, end: Mark) {
        if sequence > self.durable_sequence {
            (self.durable_sequence, self.durable_end) = (sequence, end);
        }
    }

    pub(super) fn check_poison(&self) -> Result<()> {
        match &self.poisoned {
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
            None => Ok(()),
        }
    }
}

/// The writer lock, held.
pub(crate) type Guard<'a> = MutexGuard<'a, Writer>;

/// The writer lock, and how threads that hold it wait for each other.
#[derive(Debug)]
pub(crate) struct LockedWriter {
    writer: Mutex<Writer>,
    /// Signalled when a write-out, a sync or a failure ends.
    progressed: Condvar,
    /// Rises whenever `progressed` is signalled, or would be if a thread slept.
    progress: AtomicU64,
}

impl LockedWriter {
    pub(crate) fn new(writer: Writer) -> LockedWriter {
        LockedWriter {
            writer: Mutex::new(writer),
            progressed: Condvar::new(),
            progress: AtomicU64::new(0),
        }
    }
}

impl LockedWriter {
    pub(crate) fn lock(&self) -> Guard<'_> {
        lock(&self.writer)
    }
}

impl WriterLock for LockedWriter {
    fn while_nothing_changes(&self, look: &mut dyn FnMut()) {
        let _writer = self.lock();
        look();
    }
}

impl Engine {
    /// Takes the writer lock.
    pub(crate) fn lock_writer(&self) -> Guard<'_> {
        self.writer.lock()
    }

    /// Takes the writer lock; whoever has to wait for it looks up the key of this hash meanwhile, so that under the lock its slot and
    /// its record are in the processor's cache.
    pub(super) fn lock_writer_to_change(&self, hash: u64) -> Guard<'_> {
        match self.writer.writer.try_lock() {
            Ok(guard) => guard,
            // As in `lock`. This guard holds the lock already.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.state.warm_up(&[hash]);
                self.lock_writer()
            }
        }
    }

    /// Gives up the lock until a leader has ended its work, or for no reason at all.
    pub(super) fn wait<'a>(&'a self, guard: Guard<'a>) -> Guard<'a> {
        let before = self.writer.progress.load(Ordering::Relaxed);
        let mut guard = guard;
        if guard.writing {
            // A write-out takes about as long as falling asleep, and less than being woken. A sync takes far longer.
            drop(guard);
            for _ in 0..SPINS_MAX {
                if self.writer.progress.load(Ordering::Relaxed) != before {
                    break;
                }
                std::hint::spin_loop();
            }
            guard = self.lock_writer();
            if self.writer.progress.load(Ordering::Relaxed) != before {
                return guard;
            }
        }
        guard.waiting += 1;
        let mut guard = self
            .writer
            .progressed
            .wait(guard)
            .unwrap_or_else(PoisonError::into_inner);
        guard.waiting -= 1;
        guard
    }

    /// Lets all who wait look again.
    pub(super) fn notify(&self, guard: &Guard<'_>) {
        self.writer.progress.fetch_add(1, Ordering::Relaxed);
        if guard.waiting > 0 {
            self.writer.progressed.notify_all();
        }
    }

    /// Refuses all further writes.
    pub(crate) fn poison(&self, guard: &mut Guard<'_>, cause: &Error) {
        if guard.poisoned.is_none() {
            guard.poisoned = Some(cause.to_string());
        }
        self.notify(guard);
    }

    /// Refuses if nothing may be acknowledged any more: the store is poisoned, or any sync of it has failed.
    pub(super) fn check_sound(&self, guard: &mut Guard<'_>) -> Result<()> {
        guard.check_poison()?;
        if let Err(error) = self.context.directory.check_syncs() {
            let cause = Error::io("trust the file system after a failed sync", self.context.path(), error);
            self.poison(guard, &cause);
        }
        guard.check_poison()
    }

    /// Floors for the manifest, as of now.
    pub(super) fn floors(&self, guard: &Guard<'_>) -> Floors {
        Floors {
            next_sequence: guard.next_sequence,
            next_namespace: self.state.next_namespace(),
        }
    }

    /// Changes the manifest; poisons the store if it is unknown which one stands. The writer lock must not be held.
    pub(crate) fn update_manifest(&self, change: impl FnOnce(&mut Manifest)) -> Result<()> {
        let floors = self.floors(&self.lock_writer());
        match self.manifest.update(floors, change) {
            Ok(()) => Ok(()),
            Err(ReplaceError::Unchanged(error)) => Err(error),
            Err(ReplaceError::Unknown(error)) => {
                if !planted(Planted::BelieveUnknownManifest) {
                    self.poison(&mut self.lock_writer(), &error);
                }
                Err(error)
            }
        }
    }
}
