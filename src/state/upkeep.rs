//! Background removal from memory, in small steps: expired keys, the keys of dropped namespaces,
//! stale entries of the expiry queue, queued changes of the key orders. Only one thread at a time
//! does any of it.

use std::ops::Bound;
use std::sync::Arc;

use super::State;
use crate::clock::Now;
use crate::error::Result;
use crate::index::expiry::Entry;
use crate::index::namespaces::NamespaceState;
use crate::index::order::{KeyOrder, KeyPage};
use crate::location::Location;
use crate::segment::ReadError;
use crate::sync::{ChangeRight, lock};

/// Keys handled per hold of the writer lock.
const STEP: usize = 64;
/// Entries of the expiry queue checked between two checks whether the store was closed.
const CLEANING_STEP: usize = 1024;
/// Changes of a key order merged per hold of its lock.
const MERGE_STEP: usize = 512;

impl State {
    /// Takes some due records out of the expiry queue, for [`State::expire_all`].
    pub(crate) fn take_due(&self, due_ms: u64) -> Arc<Vec<Entry>> {
        lock(&self.expiry).take_due(due_ms, STEP)
    }

    /// Removes the keys of these records from the indexes if they have expired by `now`. The others
    /// go back into the queue, due after `due_ms`.
    pub(crate) fn expire_all(&self, right: &ChangeRight, due: &[Entry], due_ms: u64, now: &Now) {
        let left = due.iter().filter_map(|(_, location)| {
            let look_again_ms = self.expire(right, *location, now)?;
            Some((look_again_ms.max(due_ms.saturating_add(1)), *location))
        });
        let left = left.collect();
        lock(&self.expiry).give_back(left);
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
        drop(entries);
        kept.sort_unstable();
        kept.dedup();
        lock(&self.expiry).cleaned(kept);
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
    /// [`State::remove_all_dropped`].
    pub(crate) fn some_keys(&self, namespace: &NamespaceState) -> KeyPage {
        namespace.order.page(Bound::Unbounded, Bound::Unbounded, false, STEP)
    }

    /// Removes these keys of a dropped namespace from the indexes.
    pub(crate) fn remove_all_dropped(
        &self,
        right: &ChangeRight,
        namespace: &NamespaceState,
        keys: &KeyPage,
    ) -> Result<()> {
        keys.iter()
            .try_for_each(|(key, _)| self.remove_dropped(right, namespace, key))
    }

    /// Merges queued changes into the key orders that `are_due`. Only visits orders with queued
    /// changes, since there may be very many namespaces.
    pub(crate) fn merge_orders(&self, are_due: impl Fn(&KeyOrder) -> bool) {
        for namespace in self.namespaces.take_changed() {
            namespace.order.begin_look();
            if are_due(&namespace.order) {
                while !self.context.is_closed() && namespace.order.merge_step(MERGE_STEP) {}
            }
            if namespace.order.look_again() {
                self.namespaces.note_changed(namespace.number);
            }
        }
    }
}

#[cfg(test)]
mod tests;
