//! The key order: the keys of one namespace, sorted, for listing and counting.
//!
//! It knows keys and two flag bits a key, no locations: a listing with values looks them up in the
//! keydir. It is memory only, and can be rebuilt from the log at any time.
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
//! ([`KeyOrder::merge_step`], from a background thread). Overwriting a key changes nothing here and
//! does not come here at all.
//!
//! What must always hold:
//!
//! * **The blocks are not read while changes wait**: they would show a part of a batch. Every look
//!   first sees to it that everything queued before it is in the blocks.
//! * **Older before newer**: the queue is taken only when nothing waits.
//! * **Lock order**: tree, then queue. The queue's lock is never held while something else is
//!   waited for.
//!
//! A lock that a panicking thread left behind is used as it is. Of the code that runs under the
//! locks only the iterator given to [`KeyOrder::change`] may panic, and the queue is whole before
//! and after each of its items.

mod block;
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
pub(crate) use builder::OrderBuilder;
pub(crate) use page::KeyPage;
use pending::Log;
use tree::Tree;

/// Queued changes from which on they are worth a merge if the tree is small. A merge rewrites every
/// block that it touches, so the more changes fall into one block, the less each of them costs.
const MERGE_MIN: usize = 1 << 12;

/// Queued changes that are worth a merge however large the tree is: a listing may have to wait for
/// so many.
const MERGE_MAX: usize = 1 << 18;

/// A tree of so many times the queued changes is rather left alone until more come.
const MERGE_SHARE: usize = 16;

/// Queued changes from which on the background does not keep up, and writers help to bring them
/// into the tree.
const QUEUE_MAX: usize = 1 << 19;

/// As many changes a helping writer brings into the tree with each of its own: that takes it well
/// under a millisecond.
const HELP: usize = 256;

/// When so many changes were queued, or merged, since the background last looked, it is asked to
/// look again.
const LOOK_EVERY: usize = 1 << 14;

/// What a listing needs to know of a key's record without looking at it. Two bits; an entry has no
/// room for more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(crate) struct KeyFlags(u8);

impl KeyFlags {
    /// A plain key: what the key order says of it is all there is to list.
    pub(crate) const NONE: KeyFlags = KeyFlags(0);
    /// The record has an expiry.
    pub(crate) const EXPIRES: KeyFlags = KeyFlags(1);
    /// The record has metadata.
    pub(crate) const METADATA: KeyFlags = KeyFlags(2);

    /// The flags of both.
    pub(crate) const fn union(self, other: KeyFlags) -> KeyFlags {
        KeyFlags(self.0 | other.0)
    }

    /// Whether all flags of the other are set.
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
    /// The key is there, with these flags. It may have been before, with the same flags or others.
    Insert(&'a [u8], KeyFlags),
    /// The key is gone. It may never have been there.
    Remove(&'a [u8]),
}

impl<'a> Change<'a> {
    /// The key is there with these flags, or is not.
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
    /// `queue.log.len()`, stored under its lock, so that it can be asked without.
    queued: AtomicUsize,
    /// `tree.waiting.len()`, stored under its lock, likewise.
    waiting: AtomicUsize,
    /// The number of keys in the blocks, stored under the tree's lock, likewise.
    merged: AtomicUsize,
    /// What was pending when the background last looked.
    seen: AtomicUsize,
}

/// Changes that are not in the tree yet.
#[derive(Default, Debug)]
struct Queue {
    log: Log,
    /// Whether the background has been told that there are some, and has not looked since.
    told: bool,
}

impl KeyOrder {
    /// The order of no keys.
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
    /// Queues: the key is there with these flags.
    pub(crate) fn insert(&self, key: &[u8], flags: KeyFlags) {
        self.change(std::iter::once(Change::Insert(key, flags)));
    }

    #[cfg(test)]
    /// Queues: the key is gone.
    pub(crate) fn remove(&self, key: &[u8]) {
        self.change(std::iter::once(Change::Remove(key)));
    }

    /// Queues several changes, of which every page and count sees all or none. The iterator runs
    /// under the lock of the queue: it must do nothing but hand over what is there, and must
    /// not come back here. True if the background has to be told that there are changes: for
    /// the first ones since it began its last look.
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

    /// Called by the background before it looks: it wants to be told of changes that come from here
    /// on.
    pub(crate) fn begin_look(&self) {
        self.lock_queue().told = false;
    }

    /// Called by the background after it has looked: true if changes still wait and it was not told
    /// of them, so that it has to look again by itself.
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

    /// Queues what another order, whose tree is empty, has queued.
    fn take_over(&self, other: KeyOrder) {
        let other = other.queue.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut queue = self.lock_queue();
        queue.log.append(&other.log);
        self.queued.store(queue.log.len(), Ordering::Release);
    }

    /// How many changes are not in the tree yet. Takes no lock. 0 only if every change queued
    /// before the call is in it, or is being completed by a thread that holds the tree's lock
    /// for that.
    pub(crate) fn pending_len(&self) -> usize {
        // `take_queue` raises the one before it lowers the other; read the other way round, a change on its
        // way is counted twice rather than not at all.
        let queued = self.queued.load(Ordering::Acquire);
        queued + self.waiting.load(Ordering::Acquire)
    }

    /// Brings up to `limit` changes (at least one) into the tree and says whether more remain.
    /// Holds the write lock for that long, and, when a new batch begins, for sorting what was
    /// queued.
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

    /// Brings everything that was queued before the call into the tree.
    pub(crate) fn merge(&self) {
        if self.pending_len() > 0 {
            self.merge_all(&mut self.write_tree());
        }
    }

    /// Called by writers, after each change: helps to bring what is queued into the tree if the
    /// background does not keep up. True if the background should look.
    pub(crate) fn relieve(&self) -> bool {
        let pending = self.pending_len();
        if pending > 2 * QUEUE_MAX {
            self.merge();
        } else if pending > QUEUE_MAX && self.waiting.load(Ordering::Relaxed) > 0 {
            self.apply_waiting(&mut self.write_tree(), HELP);
        }
        pending.abs_diff(self.seen.load(Ordering::Relaxed)) >= LOOK_EVERY
    }

    /// Asked by the background at every look: whether so much waits that a merge pays, or nothing
    /// has come since the last look.
    pub(crate) fn is_merge_due(&self) -> bool {
        let pending = self.pending_len();
        let is_idle = self.seen.swap(pending, Ordering::Relaxed) == pending;
        let enough = (self.merged.load(Ordering::Relaxed) / MERGE_SHARE).clamp(MERGE_MIN, MERGE_MAX);
        pending >= enough || (pending > 0 && is_idle)
    }

    /// At most `limit` keys between the bounds, from the lower bound up or, if `reverse`, from the
    /// upper one down. Bounds that cross have nothing between them.
    ///
    /// Every change queued before the call is seen; of those queued meanwhile none, or some, but
    /// each [`change`](Self::change) as a whole. Costs the merge of what was queued, the search
    /// of one block, and the copying of the keys, under the read lock; so the caller keeps
    /// `limit` small.
    pub(crate) fn page(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, reverse: bool, limit: usize) -> KeyPage {
        self.look(|tree| tree.page(from, to, reverse, limit))
    }

    /// How many keys are between the bounds. Costs the merge of what was queued, the search of two
    /// blocks, and a look at each block between them, which is some hundred times cheaper than
    /// a look at each key.
    pub(crate) fn count(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> u64 {
        self.look(|tree| tree.count(from, to))
    }

    /// The flags of a key; None if it is not there. Costs the merge of what was queued.
    pub(crate) fn flags(&self, key: &[u8]) -> Option<KeyFlags> {
        let page = self.page(Bound::Included(key), Bound::Included(key), false, 1);
        page.get(0).map(|(_, flags)| flags)
    }

    #[cfg(test)]
    /// How many keys there are, exactly: of what is queued it is not known whether it is new, so
    /// this costs the merge of it, and nothing else.
    pub(crate) fn len(&self) -> u64 {
        self.look(Tree::len)
    }

    /// How much memory this takes: all that is allocated, with the slack, and an estimate of what
    /// the nodes of the map of blocks and the allocator add. Looks at every block, not at keys.
    pub(crate) fn memory_bytes(&self) -> usize {
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        let tree_bytes = tree.memory_bytes() + tree.waiting.memory_bytes();
        size_of::<Self>() + tree_bytes + self.lock_queue().log.memory_bytes()
    }

    /// Writes all blocks as they are, when everything queued before the call is in them.
    pub(crate) fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        self.look(|tree| tree.write_to(out))
    }

    /// Reads what [`KeyOrder::write_to`] wrote.
    pub(crate) fn read_from(fields: &mut Fields<'_>) -> Result<KeyOrder, Damage> {
        Ok(KeyOrder::new().with_tree(Tree::read_from(fields)?))
    }

    /// Looks at the blocks when everything queued before the call is in them.
    fn look<R>(&self, look: impl FnOnce(&Tree) -> R) -> R {
        self.merge();
        self.look_between_batches(look)
    }

    /// Looks at the blocks when no batch is halfway in them.
    fn look_between_batches<R>(&self, look: impl FnOnce(&Tree) -> R) -> R {
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        if tree.waiting.is_empty() {
            return look(&tree);
        }
        drop(tree);
        // Another thread began a new batch between the merge and the read lock. Rather than run after such
        // threads, complete it and look while they are kept out.
        let mut tree = self.write_tree();
        self.apply_waiting(&mut tree, usize::MAX);
        look(&tree)
    }

    /// Brings all waiting changes into the blocks and then all queued ones.
    fn merge_all(&self, tree: &mut Tree) {
        self.apply_waiting(tree, usize::MAX);
        self.take_queue(tree);
        self.apply_waiting(tree, usize::MAX);
    }

    /// Makes the queue, sorted, the waiting batch. Nothing may be waiting.
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

    /// Brings up to `limit` waiting changes into the blocks.
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

/// The least key that is greater than every key that begins with `prefix`; None if there is no such
/// key, because the prefix is empty or all its bytes are 0xFF.
pub(crate) fn prefix_successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|&byte| byte != 0xFF)?;
    let mut successor = prefix.get(..=kept)?.to_vec();
    // Not 0xFF, as just found, so there is no carry.
    *successor.last_mut()? += 1;
    Some(successor)
}
