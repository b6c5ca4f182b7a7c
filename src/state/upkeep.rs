//! Background removal from memory, in small steps: expired keys, the keys of dropped namespaces,
//! stale entries of the expiry queue, queued changes of the key orders, and then the room that all
//! of them took. Only one thread at a time does any of it.
//!
//! What needs the writer lock is told when its turn is over, and stops then, but not before it has
//! done something. What waits for the device is done before.

use std::ops::Bound;
use std::sync::Arc;

use super::leave::{Dropped, Due};
use super::{State, WARM_UP};
use crate::clock::Now;
use crate::error::Result;
use crate::index::expiry::Entry;
use crate::index::namespaces::NamespaceState;
use crate::index::order::{KeyOrder, KeyPage};
use crate::location::Location;
use crate::planted::{Planted, planted};
use crate::segment::ReadError;
use crate::sync::{ChangeRight, lock};

/// Keys whose records are read at a time, before the writer lock is taken.
const STEP: usize = 256;
/// Entries of the expiry queue checked between two checks whether the store was closed.
const CLEANING_STEP: usize = 1024;
/// Changes of a key order merged per hold of its lock.
const MERGE_STEP: usize = 512;

impl State {
    /// Takes some due records out of the expiry queue, to be read with [`State::read_due`] and
    /// given back with [`State::end_take`].
    pub(crate) fn take_due(&self, due_ms: u64) -> Arc<Vec<Entry>> {
        lock(&self.expiry).take_due(due_ms, STEP)
    }

    /// Removes the keys of these records from the indexes if they have expired by `now`, until the
    /// turn is over. Returns the entries of the others, due after `due_ms`.
    pub(crate) fn expire_some<'a>(
        &self,
        right: &ChangeRight,
        due: &mut impl Iterator<Item = &'a Due>,
        (due_ms, now): (u64, &Now),
        is_over: impl Fn() -> bool,
    ) -> Vec<Entry> {
        let mut left = Vec::new();
        for due in due {
            if let Some(look_again_ms) = self.expire(right, due, now) {
                left.push((look_again_ms.max(due_ms.saturating_add(1)), due.location()));
            }
            if is_over() {
                break;
            }
        }
        left
    }

    /// Ends [`State::take_due`]: these entries return to the queue, or all if None.
    pub(crate) fn end_take(&self, left: Option<Vec<Entry>>) {
        let mut queue = lock(&self.expiry);
        match left {
            Some(left) => queue.give_back(left),
            None => queue.return_taken(),
        }
    }

    /// Drops entries of the expiry queue whose records were overwritten, deleted or moved, once
    /// there may be many.
    pub(crate) fn clean_expiry_queue(&self) {
        let mut queue = lock(&self.expiry);
        if self.context.is_closed() || !queue.wants_cleaning() {
            return;
        }
        let entries = queue.take_all();
        drop(queue);
        let mut kept = Vec::new();
        for entries in entries.chunks(CLEANING_STEP) {
            if self.context.is_closed() {
                lock(&self.expiry).return_taken();
                return;
            }
            kept.extend(entries.iter().filter(|(_, location)| self.is_current(*location)));
        }
        kept.sort_unstable();
        kept.dedup();
        lock(&self.expiry).cleaned(kept);
        // The last reference, given up without the lock: it takes long.
        drop(entries);
    }

    /// Whether the keydir points at this record, as far as can be told now.
    fn is_current(&self, location: Location) -> bool {
        let Some(segment) = self.segments.get(location.segment_index()) else {
            return false;
        };
        let mut scratch = Vec::new();
        match segment.record(location.offset(), &mut scratch) {
            Ok(record) => self
                .keydir
                .holds(self.hash(record.header.namespace, record.key()), location),
            Err(ReadError::Damage(_)) => false,
            Err(ReadError::Io(_)) => true,
        }
    }

    /// Some keys of a dropped namespace that are still in the indexes, for
    /// [`State::read_all_dropped`].
    pub(crate) fn some_keys(&self, namespace: &NamespaceState) -> KeyPage {
        namespace.order.page(Bound::Unbounded, Bound::Unbounded, false, STEP)
    }

    /// Reads the records of these keys of a dropped namespace, up to the first that the system
    /// fails to read.
    pub(crate) fn read_all_dropped<'a>(
        &self,
        namespace: &NamespaceState,
        keys: &'a KeyPage,
    ) -> (Vec<Dropped<'a>>, Result<()>) {
        let keys: Vec<_> = keys.iter().map(|(key, _)| key).collect();
        let mut read = Vec::with_capacity(keys.len());
        for keys in keys.chunks(WARM_UP) {
            let hashes: Vec<_> = keys.iter().map(|key| self.hash(namespace.number, key)).collect();
            drop(self.warm_up(&hashes, None));
            for key in keys {
                match self.read_dropped(namespace, key) {
                    Ok(dropped) => read.push(dropped),
                    Err(error) => return (read, Err(error)),
                }
            }
        }
        (read, Ok(()))
    }

    /// Removes these keys of a dropped namespace from the indexes, until the turn is over.
    pub(crate) fn remove_some_dropped<'a>(
        &self,
        right: &ChangeRight,
        namespace: &NamespaceState,
        dropped: &mut impl Iterator<Item = &'a Dropped<'a>>,
        is_over: impl Fn() -> bool,
    ) {
        for dropped in dropped {
            self.remove_dropped(right, namespace, dropped);
            if is_over() {
                break;
            }
        }
    }

    /// Gives back the memory of keys that have left, and of groups that readers held on to. Called
    /// when nothing may touch a key for long: a table is otherwise made smaller only by the next
    /// removal from it.
    pub(crate) fn shrink(&self) {
        self.free_withdrawn();
        if !planted(Planted::KeepTables) {
            self.keydir.shrink();
        }
    }

    /// Merges queued changes into the key orders that `are_due`. Only visits orders with queued
    /// changes, since there may be very many namespaces.
    pub(crate) fn merge_orders(&self, are_due: impl Fn(&KeyOrder) -> bool) {
        for namespace in self.namespaces.take_changed() {
            namespace.order.begin_look();
            if are_due(&namespace.order) {
                while !self.context.is_closed() && namespace.order.merge_step(MERGE_STEP) {}
            }
            namespace.order.shrink();
            if namespace.order.look_again() {
                self.namespaces.note_changed(namespace.number);
            }
        }
    }
}

#[cfg(test)]
mod tests;
