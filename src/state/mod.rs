//! What an open store knows about its keys: the keydir, the key orders, the expiry queue and the
//! live records of each segment. All of it is derived from the log.
//!
//! Invariants:
//!
//! * **These four change together.** For every put that the keydir points at, and for no other
//!   record: it is counted live in its segment, its key is in the key order of its namespace with
//!   the record's flags, and, if it has an expiry, the queue has an entry for it. Only the
//!   functions of `change` (apply, undo, relocate), `settle`, `leave` (expire, remove_dropped) and
//!   `load` change any of them.
//! * **One thread changes at a time**: it holds the change lock ([`State::lock_changes`]), as
//!   proven by the [`ChangeRight`] that these functions require; and, but for settling, the writer
//!   lock of the log.
//! * **Readers take no lock** (`read`): hash, keydir, segment table, record. What they read may be
//!   replaced under them (a table grows; a segment is sealed, compacted, unlinked); then the
//!   location they hold no longer leads to the key, and they look it up again.
//! * **A group becomes visible as a whole** (`group`): readers see all of what `apply_group`
//!   publishes, or nothing, and wait for none of it. It enters the indexes afterwards (`settle`).

mod change;
mod glance;
mod group;
mod index_bytes;
mod kept;
mod leave;
mod load;
mod many;
mod read;
mod record;
mod settle;
mod upkeep;
mod view;
mod views;

use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;

use crate::clock::Now;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::index::expiry::ExpiryQueue;
use crate::index::hash::KeyHasher;
use crate::index::keydir::Keydir;
use crate::index::namespaces::{NamespaceState, Namespaces};
use crate::location::Location;
use crate::segment::table::SegmentTable;
use crate::sync::{AtomicU64, ChangeLock, ChangeRight, MutexGuard, Ordering, lock};

pub(crate) use group::{AT_ONCE_MAX, Befores, Group, GroupPlan};
pub(crate) use index_bytes::Indexes;
pub(crate) use leave::Expired;
pub(crate) use load::Source;
pub(crate) use many::{Candidate, WARM_UP};
pub(crate) use read::HashedKey;
pub(crate) use record::{AppliedRecord, Current, GroupRecord, Move, Undo, flags};
pub(crate) use view::View;
use views::Views;

/// See the module.
pub(crate) struct State {
    context: Arc<Context>,
    /// Proof of the right to change the rest.
    changes: ChangeLock,
    hasher: KeyHasher,
    keydir: Keydir,
    pub(crate) segments: SegmentTable,
    pub(crate) namespaces: Namespaces,
    /// Number of the next namespace.
    next_namespace: AtomicU32,
    expiry: Mutex<ExpiryQueue>,
    /// The newest batch that is not settled.
    group: ArcSwapOption<Group>,
    /// Large groups that are withdrawn, to be freed once no reader has them: that takes too long
    /// for a reader.
    withdrawn: Mutex<Vec<Arc<Group>>>,
    /// Of changes of several keys; see `group`.
    epoch: AtomicU64,
    /// How many looks at several keys are made in views at once.
    in_views: AtomicU64,
    /// How often several records were rolled back.
    rolled_back: AtomicU64,
    /// Sequence of the newest record when the store was opened.
    opened_at: AtomicU64,
    /// Sequence of the newest record that was applied or published since the store was opened; 0 if
    /// none was. It stays if that is rolled back.
    newest: AtomicU64,
    views: Views,
    /// A record that is in the log found no room in the keydir.
    overfull: AtomicBool,
    /// Called after each step of settling a group.
    #[cfg(test)]
    between_steps: Mutex<Option<group::Hook>>,
    /// Called between two holds of the change lock by a thread that settles.
    #[cfg(test)]
    between_turns: Mutex<Option<group::Hook>>,
    /// What has expired, if there are watchers.
    expired: Mutex<Option<Vec<Expired>>>,
}

impl State {
    /// A state without keys.
    pub(crate) fn new(context: Arc<Context>, next_namespace: u32) -> State {
        let hash_seeds = [context.storage.random_u64(), context.storage.random_u64()];
        State {
            context,
            changes: ChangeLock::new(),
            hasher: KeyHasher::new(hash_seeds),
            keydir: Keydir::new(),
            segments: SegmentTable::new(),
            namespaces: Namespaces::default(),
            next_namespace: AtomicU32::new(next_namespace),
            expiry: Mutex::default(),
            group: ArcSwapOption::empty(),
            withdrawn: Mutex::default(),
            epoch: AtomicU64::new(0),
            in_views: AtomicU64::new(0),
            rolled_back: AtomicU64::new(0),
            opened_at: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            views: Views::default(),
            overfull: AtomicBool::new(false),
            #[cfg(test)]
            between_steps: Mutex::default(),
            #[cfg(test)]
            between_turns: Mutex::default(),
            expired: Mutex::default(),
        }
    }

    /// The log ends with the record of this sequence.
    pub(crate) fn begin_at(&self, sequence: u64) {
        self.opened_at.store(sequence, Ordering::Relaxed);
    }

    /// The lock under which anything here is changed. Taken after the writer lock, if that is
    /// taken.
    #[inline]
    pub(crate) fn lock_changes(&self) -> MutexGuard<'_, ChangeRight> {
        self.changes.lock()
    }

    /// Sequence of the newest record that was applied or published. The caller holds the change
    /// lock.
    fn newest_sequence(&self) -> u64 {
        let newest = self.newest.load(Ordering::Relaxed);
        newest.max(self.opened_at.load(Ordering::Relaxed))
    }

    /// Changes if locations may lead to other records than before.
    pub(crate) fn moved(&self) -> u64 {
        self.rolled_back.load(Ordering::Acquire) + self.segments.removed()
    }

    /// Whether a record in the log has found no room in the keydir.
    pub(crate) fn is_overfull(&self) -> bool {
        self.overfull.load(Ordering::Relaxed)
    }

    /// Marks a namespace dropped by the record of this sequence, as one change for readers. The
    /// caller holds the writer lock.
    pub(crate) fn set_dropped(&self, namespace: &Arc<NamespaceState>, sequence: u64) {
        let right = self.lock_changes();
        if let Err(error) = self.settle_all(&right) {
            self.context.events.note_background_error(&error);
        }
        self.note_leaving(&right);
        self.namespaces.set_dropped(namespace, sequence);
    }

    /// Hash of a key; differs from store to store, and each time the indexes are rebuilt.
    #[inline]
    pub(crate) fn hash(&self, namespace: u32, key: &[u8]) -> u64 {
        self.hasher.hash(namespace, key)
    }

    /// Whether the keydir points at this record.
    #[inline]
    pub(crate) fn points_at(&self, hash: u64, location: Location) -> bool {
        self.keydir.holds(hash, location)
    }

    /// Calls `look` with every location in the keydir. With concurrent writers some may be missed
    /// or repeated.
    pub(crate) fn for_each_location(&self, look: impl FnMut(Location)) {
        self.keydir.for_each(look);
    }

    /// Keys in the indexes.
    pub(crate) fn keys(&self) -> u64 {
        // Each namespace has an entry in the same index.
        self.keydir.len().saturating_sub(self.namespaces.len() as u64)
    }

    /// Bytes of live records.
    pub(crate) fn live_bytes(&self) -> u64 {
        let mut sum = 0;
        self.segments
            .for_each(|segment| sum += segment.counters.get().live_bytes);
        sum
    }

    /// Memory of the keydir, in bytes.
    pub(crate) fn keydir_bytes(&self) -> u64 {
        self.keydir.memory_bytes() as u64
    }

    /// Entries of the expiry queue that are due, and the memory of the queue in bytes.
    pub(crate) fn expiry_queue(&self, now: &Now) -> (u64, u64) {
        let queue = lock(&self.expiry);
        (queue.due(now.wall_ms()), queue.memory_bytes() as u64)
    }

    /// Entries of the expiry queue that are due at this time.
    pub(crate) fn due_before(&self, now_ms: u64) -> u64 {
        lock(&self.expiry).due(now_ms)
    }

    /// Number of the next namespace.
    pub(crate) fn next_namespace(&self) -> u32 {
        self.next_namespace.load(Ordering::Acquire)
    }

    /// Marks numbers below this one as used.
    pub(crate) fn set_next_namespace(&self, number: u32) {
        self.next_namespace.fetch_max(number, Ordering::AcqRel);
    }
}

// Not beside the type, since `index` knows no errors of the store.
impl NamespaceState {
    /// An error if it was dropped.
    #[inline]
    pub(crate) fn check_present(&self) -> Result<()> {
        if self.is_dropped() { Err(self.gone()) } else { Ok(()) }
    }

    /// Why it is refused once it was dropped.
    #[cold]
    pub(crate) fn gone(&self) -> Error {
        Error::NamespaceNotFound {
            name: self.name().to_string(),
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
