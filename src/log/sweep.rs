//! What leaves memory by itself: expired keys, the keys of dropped namespaces, queued changes of the key order.

use std::ops::Bound;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use super::{Engine, Lookup};
use crate::clock::Now;
use crate::error::Result;
use crate::index::namespaces::{NamespaceState, SYSTEM_NAMESPACE};
use crate::index::order::{Change, KeyOrder};
use crate::location::Location;
use crate::planted::{Planted, planted};
use crate::segment::ReadError;
use crate::sync::lock;

/// Keys handled under one taking of the writer lock.
const STEP: usize = 64;
/// Entries of the expiry queue looked at between two looks whether the store was closed.
const CLEANING_STEP: usize = 1024;
/// Changes of a key order merged under one taking of its lock.
const MERGE_STEP: usize = 512;
/// After so long a record that could not be read is looked at again.
const RETRY_MS: u64 = 10_000;

impl Engine {
    /// One round of all work that needs no caller: everything that is due is done when it returns.
    pub(crate) fn maintain(&self) -> Result<()> {
        self.flush_if_open()?;
        self.renew_hints()?;
        self.seal_all()?;
        self.sweep_expired();
        self.clean_expiry_queue();
        self.empty_dropped_namespaces()?;
        self.merge_orders();
        Ok(())
    }

    fn flush_if_open(&self) -> Result<()> {
        self.context.check_open()?;
        self.flush()
    }

    /// Held by the one who takes things out of the indexes by itself, merges key orders, or writes the index file: none of
    /// these sees another half done. They are long, and stop between steps when the store is closed, which waits for them.
    pub(crate) fn housekeeping(&self) -> MutexGuard<'_, ()> {
        lock(&self.housekeeping)
    }

    /// Folds all queued changes into the key orders.
    fn merge_orders(&self) {
        self.merge_orders_that(|_| true);
    }

    /// Folds queued changes into the key orders where that pays.
    pub(crate) fn merge_due_orders(&self) {
        self.merge_orders_that(KeyOrder::is_merge_due);
    }

    /// Looks at the orders that have queued changes, and at no others: there may be very many namespaces.
    fn merge_orders_that(&self, are_due: impl Fn(&KeyOrder) -> bool) {
        let _housekeeping = self.housekeeping();
        for namespace in self.namespaces.take_changed() {
            namespace.order.begin_look();
            if are_due(&namespace.order) {
                self.merge_order(&namespace);
            }
            if namespace.order.look_again() {
                self.namespaces.note_changed(namespace.number);
            }
        }
    }

    fn merge_order(&self, namespace: &NamespaceState) {
        while !self.context.is_closed() && namespace.order.merge_step(MERGE_STEP) {}
    }

    /// A writer has changed keys of this namespace: it helps, or asks for help, if too many changes wait for their place in the order.
    pub(crate) fn relieve_order(&self, namespace: &NamespaceState) {
        if namespace.order.relieve() {
            self.context.maintenance_wake.wake();
        }
    }

    /// Removes all expired keys from the indexes; their records stay as shadows until compaction drops them. While a jump of the
    /// clock is fresh they are only hidden, so that nothing is lost if it is put right.
    pub(crate) fn sweep_expired(&self) {
        let _housekeeping = self.housekeeping();
        let settled_ms = if planted(Planted::SweepAtOnce) {
            Some(self.context.time.now().wall_ms())
        } else {
            self.context.time.settled_ms(self.context.grace_ms())
        };
        let Some(mut due_ms) = settled_ms else { return };
        while !self.context.is_closed() {
            let due = lock(&self.expiry).take_due(due_ms, STEP);
            if due.is_empty() {
                return;
            }
            let _writer = self.lock_writer();
            // Under the lock: the clock may have been set back since, and what was put then is not to go.
            let now = self.context.time.now();
            due_ms = due_ms.min(now.wall_ms());
            let left = due.iter().filter_map(|(_, location)| {
                let look_again_ms = self.forget(*location, &now)?;
                Some((look_again_ms.max(due_ms.saturating_add(1)), *location))
            });
            let left = left.collect();
            lock(&self.expiry).give_back(left);
        }
    }

    /// Removes the key of this record from the indexes if the record has expired and is still the newest of its key. Otherwise
    /// the time at which to look again, if there is a reason to. The caller holds the writer lock.
    fn forget(&self, location: Location, now: &Now) -> Option<u64> {
        let segment = self.segments.get(location.segment_index())?;
        let mut scratch = Vec::new();
        let record = match segment.record(location.offset(), &mut scratch) {
            Ok(record) => record,
            // A damaged record stays where it is: whoever asks for its key is told.
            Err(ReadError::Damage(_)) => return None,
            Err(ReadError::Io(_)) => return Some(now.wall_ms().saturating_add(RETRY_MS)),
        };
        let (header, key) = (record.header, record.key());
        if header.namespace == SYSTEM_NAMESPACE {
            return None;
        }
        if !now.is_expired(header.expiry, header.sequence) {
            return header.expiry;
        }
        let hash = self.hash(header.namespace, key);
        let location = match planted(Planted::SweepBlindly) {
            true => match self.look_up(header.namespace, key, hash).0 {
                Ok(Lookup::Found(newest)) => newest,
                _ => location,
            },
            false => location,
        };
        if self.keydir.remove(hash, location) {
            segment.counters.remove_live(header.record_len());
            segment
                .counters
                .add_expired(header.expiry.unwrap_or(0), header.record_len());
            self.context.events.expired.fetch_add(1, Ordering::Relaxed);
            if let Some(namespace) = self.namespaces.by_number(header.namespace) {
                self.namespaces.change_order(&namespace, [Change::Remove(key)]);
            }
        }
        None
    }

    /// Drops entries of the expiry queue whose records were overwritten, deleted or moved, once there may be many.
    pub(crate) fn clean_expiry_queue(&self) {
        let _housekeeping = self.housekeeping();
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

    /// Whether the keydir points at this record, as far as that can be told just now.
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

    /// Takes the keys of dropped namespaces out of the indexes, in small steps.
    pub(crate) fn empty_dropped_namespaces(&self) -> Result<()> {
        let _housekeeping = self.housekeeping();
        for namespace in self.namespaces.dropped() {
            loop {
                if self.context.is_closed() {
                    return Ok(());
                }
                let page = namespace.order.page(Bound::Unbounded, Bound::Unbounded, false, STEP);
                if page.is_empty() {
                    break;
                }
                let _writer = self.lock_writer();
                for (key, _) in page.iter() {
                    let hash = self.hash(namespace.number, key);
                    // The slot of a damaged record goes as well: there is nobody left to be told.
                    if let Some(current) = self.current_of(namespace.number, key, hash, false)?
                        && self.keydir.remove(hash, current.location)
                    {
                        self.no_longer_live(&current);
                    }
                    self.namespaces.change_order(&namespace, [Change::Remove(key)]);
                }
            }
            self.namespaces.forget_number(namespace.number);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
