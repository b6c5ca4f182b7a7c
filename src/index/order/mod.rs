//! The key order: the keys of one namespace, sorted, for listing and counting.
//!
//! It holds keys and two flag bits per key, no locations: a listing with values looks them up in
//! the keydir. It can be rebuilt from the log at any time.
//!
//! ```text
//!       remove, change                page, count, len, merge, merge_step
//!            |                                     |
//!            v              take all, sort         v          merge into blocks
//!       [ queue: Log ] -----------------> [ waiting: Batch ] -----------------> [ blocks ]
//!        Mutex                             '---------- Tree, RwLock ---------------------'
//! ```
//!
//! A change is only queued, which is O(1) and never waits for a reader or a merge. The queue is
//! taken as a whole, sorted, and merged into the blocks in one pass, or in steps
//! ([`KeyOrder::merge_step`], from a background thread). Overwriting a key without changing its
//! flags does not involve the key order.
//!
//! Invariants:
//!
//! * **The blocks are not read while changes wait**: they would show part of a batch. Every read
//!   first merges everything queued before it.
//! * **Older before newer**: the queue is taken only when no changes wait.
//! * **Lock order**: tree, then queue. No thread blocks while holding the queue's lock.
//!
//! Lock poisoning is ignored: only the iterator passed to [`KeyOrder::change`] may panic under a
//! lock, and the queue is consistent before and after each of its items.

mod block;
pub(crate) mod bounded;
mod builder;
mod merge;
mod page;
mod pending;
#[cfg(test)]
mod tests;
mod tree;

use std::io::{self, Write};
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};

use crate::format::{Damage, Fields};
use crate::planted::{Planted, planted};
pub(crate) use builder::OrderBuilder;
pub(crate) use page::KeyPage;
use pending::Log;
use tree::Tree;

/// Number of queued changes worth a merge if the tree is small. A merge rewrites every block it
/// touches, so the more changes fall into one block, the less each costs.
const MERGE_MIN: usize = 1 << 12;

/// Number of queued changes worth a merge at any tree size: a listing may have to wait while this
/// many are merged.
const MERGE_MAX: usize = 1 << 18;

/// A tree more than this many times larger than the queue is left alone until more changes come, up
/// to [`MERGE_MAX`].
const MERGE_SHARE: usize = 16;

/// Number of queued changes above which the background thread is not keeping up, and writers help
/// merge.
const QUEUE_MAX: usize = 1 << 19;

/// Number of changes that a helping writer merges with each of its own: well under a millisecond of
/// work.
const HELP: usize = 256;

/// The background thread is woken when the number of pending changes has moved by this much since
/// its last look.
const LOOK_EVERY: usize = 1 << 14;

/// What a listing needs to know about a key's record without reading it. Two bits; an entry has no
/// room for more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(crate) struct KeyFlags(u8);

impl KeyFlags {
    /// A plain key: the key order has all that a listing needs.
    pub(crate) const NONE: KeyFlags = KeyFlags(0);
    /// The record has an expiry.
    pub(crate) const EXPIRES: KeyFlags = KeyFlags(1);
    /// The record has metadata.
    pub(crate) const METADATA: KeyFlags = KeyFlags(2);

    /// The flags of both.
    pub(crate) const fn union(self, other: KeyFlags) -> KeyFlags {
        KeyFlags(self.0 | other.0)
    }

    /// Whether all flags of `other` are set.
    pub(crate) const fn contains(self, other: KeyFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags as the two lowest bits of a byte.
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    /// The flags in the two lowest bits; the others are ignored.
    pub(crate) const fn from_bits_truncate(bits: u8) -> KeyFlags {
        KeyFlags(bits & 3)
    }
}

/// A change to the set of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change<'a> {
    /// The key is present with these flags. It may have been present before, with any flags.
    Insert(&'a [u8], KeyFlags),
    /// The key is absent. It may never have been present.
    Remove(&'a [u8]),
}

impl<'a> Change<'a> {
    /// The key is present with these flags, or absent for None.
    pub(crate) fn of(key: &'a [u8], flags: Option<KeyFlags>) -> Change<'a> {
        flags.map_or(Change::Remove(key), |flags| Change::Insert(key, flags))
    }

    /// The key that is changed.
    fn key(&self) -> &'a [u8] {
        match self {
            Change::Insert(key, _) | Change::Remove(key) => key,
        }
    }
}

/// The keys of one namespace in order. Shared by all threads; every method may be called from
/// several at once.
#[derive(Default, Debug)]
pub(crate) struct KeyOrder {
    tree: RwLock<Tree>,
    queue: Mutex<Queue>,
    /// `queue.log.len()`, stored under the queue's lock, so that it can be read without it.
    queued: AtomicUsize,
    /// `tree.waiting.len()`, stored under the tree's lock, likewise.
    waiting: AtomicUsize,
    /// The number of keys in the blocks, stored under the tree's lock, likewise.
    merged: AtomicUsize,
    /// [`KeyOrder::pending_len`] at the background thread's last look.
    seen: AtomicUsize,
}

/// Changes that are not in the tree yet.
#[derive(Default, Debug)]
struct Queue {
    log: Log,
    /// Whether the background thread has been told of changes and has not looked since.
    told: bool,
}

impl KeyOrder {
    /// An empty key order.
    pub(crate) fn new() -> Self {
        KeyOrder::default()
    }

    /// This order's queue over a tree of blocks, in place of its own tree.
    fn with_tree(self, tree: Tree) -> Self {
        KeyOrder {
            merged: AtomicUsize::new(tree.len() as usize),
            tree: RwLock::new(tree),
            ..self
        }
    }

    #[cfg(test)]
    /// Queues the insertion of a key.
    pub(crate) fn insert(&self, key: &[u8], flags: KeyFlags) {
        self.change(std::iter::once(Change::Insert(key, flags)));
    }

    #[cfg(test)]
    /// Queues the removal of a key.
    pub(crate) fn remove(&self, key: &[u8]) {
        self.change(std::iter::once(Change::Remove(key)));
    }

    /// Queues several changes; every page and count sees all or none of them. The iterator runs
    /// under the queue's lock: it must only yield values already at hand, and must not call this
    /// key order. True if the background thread has to be told of changes: for the first ones since
    /// it began its last look.
    pub(crate) fn change<'a>(&self, changes: impl Iterator<Item = Change<'a>>) -> bool {
        let mut queue = self.lock_queue();
        for change in changes {
            queue.log.push(change);
            self.queued.store(queue.log.len(), Ordering::Release);
        }
        let news = !queue.told && queue.log.len() > 0;
        queue.told |= news;
        news
    }

    /// Called by the background thread before it looks: from here on it has to be told of changes.
    pub(crate) fn begin_look(&self) {
        self.lock_queue().told = false;
    }

    /// Called by the background thread after it has looked: true if changes are still pending and
    /// it was not told of them, so that it has to look again by itself.
    pub(crate) fn look_again(&self) -> bool {
        let mut queue = self.lock_queue();
        let waits = self.pending_len() > 0;
        if !waits {
            self.seen.store(0, Ordering::Relaxed);
        }
        let again = waits && !queue.told;
        queue.told |= again;
        again
    }

    /// Queues the queued changes of another order, whose tree is empty.
    fn take_over(&self, other: KeyOrder) {
        let other = other.queue.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut queue = self.lock_queue();
        queue.log.append(&other.log);
        self.queued.store(queue.log.len(), Ordering::Release);
    }

    /// Number of changes not yet in the blocks. Takes no lock. 0 only if every change queued before
    /// the call is in the blocks, or is being merged by a thread that holds the tree's lock.
    pub(crate) fn pending_len(&self) -> usize {
        // `take_queue` raises `waiting` before it lowers `queued`; reading `queued` first may count
        // a change in transit twice, but never misses it.
        let queued = self.queued.load(Ordering::Acquire);
        queued + self.waiting.load(Ordering::Acquire)
    }

    /// Merges up to `limit` changes (at least one) into the blocks and returns whether more remain.
    /// Holds the write lock meanwhile, including for sorting the queue when a new batch begins.
    pub(crate) fn merge_step(&self, limit: usize) -> bool {
        if self.pending_len() > 0 {
            let mut tree = self.write_tree();
            if tree.waiting.is_empty() {
                self.take_queue(&mut tree);
            }
            self.apply_waiting(&mut tree, limit.max(1));
        }
        self.pending_len() > 0
    }

    /// Frees the buffer kept for merging, if nothing waits to be merged.
    pub(crate) fn shrink(&self) {
        if self.pending_len() == 0 && !planted(Planted::KeepTables) {
            self.write_tree().shrink();
        }
    }

    /// Merges everything queued before the call into the blocks.
    pub(crate) fn merge(&self) {
        if self.pending_len() > 0 {
            self.merge_all(&mut self.write_tree());
        }
    }

    /// Called by writers after each change: helps merge queued changes if the background thread
    /// does not keep up. True if the background thread should look.
    pub(crate) fn relieve(&self) -> bool {
        let pending = self.pending_len();
        if pending > 2 * QUEUE_MAX {
            self.merge();
        } else if pending > QUEUE_MAX && self.waiting.load(Ordering::Relaxed) > 0 {
            self.apply_waiting(&mut self.write_tree(), HELP);
        }
        pending.abs_diff(self.seen.load(Ordering::Relaxed)) >= LOOK_EVERY
    }

    /// Called by the background thread at every look: whether enough is pending for a merge to pay,
    /// or something is pending and nothing has come since the last look.
    pub(crate) fn is_merge_due(&self) -> bool {
        let pending = self.pending_len();
        let is_idle = self.seen.swap(pending, Ordering::Relaxed) == pending;
        let enough = (self.merged.load(Ordering::Relaxed) / MERGE_SHARE).clamp(MERGE_MIN, MERGE_MAX);
        pending >= enough || (pending > 0 && is_idle)
    }

    /// At most `limit` keys between the bounds, from the lower bound up or, if `reverse`, from the
    /// upper one down. Crossed bounds give an empty page.
    ///
    /// Every change queued before the call is seen. Changes queued during the call may be seen, but
    /// each call of [`change`](Self::change) only as a whole. Costs the merge of what was queued,
    /// the search of one block, and copying the keys under the read lock, so callers keep `limit`
    /// small.
    pub(crate) fn page(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, reverse: bool, limit: usize) -> KeyPage {
        self.look(|tree| tree.page(from, to, reverse, limit))
    }

    /// Number of keys between the bounds. Costs the merge of what was queued, the search of two
    /// blocks, and a visit of each block between them, which is some hundred times cheaper than
    /// visiting each key.
    pub(crate) fn count(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> u64 {
        self.look(|tree| tree.count(from, to))
    }

    /// The flags of a key; None if it is absent. Costs the merge of what was queued.
    pub(crate) fn flags(&self, key: &[u8]) -> Option<KeyFlags> {
        let page = self.page(Bound::Included(key), Bound::Included(key), false, 1);
        page.get(0).map(|(_, flags)| flags)
    }

    /// The exact number of keys. Costs the merge of what was queued, because whether a queued key
    /// is new is unknown until then.
    pub(crate) fn len(&self) -> u64 {
        self.look(Tree::len)
    }

    /// Bytes of memory allocated, including slack, plus an estimate for the nodes of the block map
    /// and the allocator's overhead. Visits every block, but not the keys.
    pub(crate) fn memory_bytes(&self) -> usize {
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        let tree_bytes = tree.memory_bytes() + tree.waiting.memory_bytes();
        size_of::<Self>() + tree_bytes + self.lock_queue().log.memory_bytes()
    }

    /// Merges everything queued before the call, then writes all blocks as they are.
    pub(crate) fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        self.look(|tree| tree.write_to(out))
    }

    /// Reads what [`KeyOrder::write_to`] wrote.
    pub(crate) fn read_from(fields: &mut Fields<'_>) -> Result<KeyOrder, Damage> {
        Ok(KeyOrder::new().with_tree(Tree::read_from(fields)?))
    }

    /// Reads the blocks after merging everything queued before the call.
    fn look<R>(&self, look: impl FnOnce(&Tree) -> R) -> R {
        self.merge();
        self.look_between_batches(look)
    }

    /// Reads the blocks while no batch is partly merged.
    fn look_between_batches<R>(&self, look: impl FnOnce(&Tree) -> R) -> R {
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        if tree.waiting.is_empty() {
            return look(&tree);
        }
        drop(tree);
        // Another thread began a new batch between the merge and the read lock. Rather than retry,
        // complete it and read under the write lock.
        let mut tree = self.write_tree();
        self.apply_waiting(&mut tree, usize::MAX);
        look(&tree)
    }

    /// Merges all waiting changes into the blocks, and then all queued ones.
    fn merge_all(&self, tree: &mut Tree) {
        self.apply_waiting(tree, usize::MAX);
        self.take_queue(tree);
        self.apply_waiting(tree, usize::MAX);
    }

    /// Sorts the queue into the waiting batch, which must be empty.
    fn take_queue(&self, tree: &mut Tree) {
        let log = {
            let mut queue = self.lock_queue();
            self.waiting.store(queue.log.len(), Ordering::Release);
            self.queued.store(0, Ordering::Release);
            std::mem::take(&mut queue.log)
        };
        tree.waiting = log.into_batch();
        self.waiting.store(tree.waiting.len(), Ordering::Release);
    }

    /// Merges up to `limit` waiting changes into the blocks.
    fn apply_waiting(&self, tree: &mut Tree, limit: usize) {
        tree.apply_waiting(limit);
        self.merged.store(tree.len() as usize, Ordering::Relaxed);
        self.waiting.store(tree.waiting.len(), Ordering::Release);
    }

    fn write_tree(&self) -> RwLockWriteGuard<'_, Tree> {
        self.tree.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The least key greater than every key that begins with `prefix`; None if there is none, because
/// the prefix is empty or all its bytes are 0xFF.
pub(crate) fn prefix_successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|&byte| byte != 0xFF)?;
    let mut successor = prefix.get(..=kept)?.to_vec();
    // Not 0xFF, as just found, so there is no carry.
    *successor.last_mut()? += 1;
    Some(successor)
}
