//! What leaves memory by itself: expired keys, the keys of dropped namespaces, queued changes of the key order.

use std::ops::Bound;
use std::sync::atomic::Ordering;

use super::{Engine, lock};
use crate::clock::is_expired;
use crate::error::Result;
use crate::index::keydir::Location;
use crate::index::namespaces::{NamespaceState, SYSTEM_NAMESPACE};
use crate::index::order::{Change, KeyOrder};
use crate::segment::ReadError;

/// Keys handled under one taking of the writer lock.
const STEP: usize = 64;
/// Changes of a key order merged under one taking of its lock.
const MERGE_STEP: usize = 512;
/// After so long a record that could not be read is looked at again.
const RETRY_MS: u64 = 10_000;

impl Engine {
    /// One round of all work that needs no caller: everything that is due is done when it returns.
    pub(crate) fn maintain(&self) -> Result<()> {
        self.flush_if_open()?;
        self.renew_hints();
        self.seal_all()?;
        self.sweep_expired();
        self.clean_expiry_queue();
        self.empty_dropped_namespaces()?;
        self.merge_orders();
        Ok(())
    }

    fn flush_if_open(&self) -> Result<()> {
        self.check_open()?;
        self.flush()
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
        for namespace in self.namespaces.take_changed() {
            namespace.order.begin_look();
            if are_due(&namespace.order) {
                while namespace.order.merge_step(MERGE_STEP) {}
            }
            if namespace.order.look_again() {
                self.namespaces.note_changed(namespace.number);
            }
        }
    }

    /// A writer has changed keys of this namespace: it helps, or asks for help, if too many changes wait for their place in the order.
    pub(crate) fn relieve_order(&self, namespace: &NamespaceState) {
        if namespace.order.relieve() {
            self.wake.wake();
        }
    }

    /// Removes all expired keys from the indexes; their records stay as shadows until compaction drops them.
    pub(crate) fn sweep_expired(&self) {
        let now_ms = self.time.now_ms();
        let mut unread = Vec::new();
        loop {
            let due = lock(&self.expiry).pop_due(now_ms, STEP);
            if due.is_empty() {
                break;
            }
            let _writer = self.lock_writer();
            unread.extend(due.into_iter().filter(|location| !self.forget(*location, now_ms)));
        }
        let mut queue = lock(&self.expiry);
        for location in unread {
            queue.push(now_ms.saturating_add(RETRY_MS), location);
        }
    }

    /// Removes the key of this record from the indexes if the record has expired and is still the newest of its key. False if
    /// the record could not be read just now. The caller holds the writer lock.
    fn forget(&self, location: Location, now_ms: u64) -> bool {
        let Some(segment) = self.segments.get(location.segment_index()) else {
            return true;
        };
        let mut scratch = Vec::new();
        let record = match segment.record(location.offset(), &mut scratch) {
            Ok(record) => record,
            // A damaged record stays where it is: whoever asks for its key is told.
            Err(ReadError::Damage(_)) => return true,
            Err(ReadError::Io(_)) => return false,
        };
        let (header, key) = (record.header, record.key());
        if !is_expired(header.expiry, now_ms) || header.namespace == SYSTEM_NAMESPACE {
            return true;
        }
        if self.keydir.remove(self.hash(header.namespace, key), location) {
            segment.counters.remove_live(header.record_len());
            segment.counters.note_expired(header.expiry.unwrap_or(0));
            segment.counters.add_expired(header.record_len());
            self.events.expired.fetch_add(1, Ordering::Relaxed);
            if let Some(namespace) = self.namespaces.by_number(header.namespace) {
                self.namespaces.change_order(&namespace, [Change::Remove(key)]);
            }
        }
        true
    }

    /// Drops entries of the expiry queue whose records were overwritten, deleted or moved, once there may be many.
    pub(crate) fn clean_expiry_queue(&self) {
        let mut queue = lock(&self.expiry);
        if !queue.wants_cleaning() {
            return;
        }
        let mut entries = queue.take();
        drop(queue);
        entries.sort_unstable();
        entries.dedup();
        entries.retain(|(_, location)| self.is_current(*location));
        lock(&self.expiry).give_back(entries);
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
        for namespace in self.namespaces.dropped() {
            loop {
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
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
    use crate::{Maintenance, ManualClock, PutOptions, ReadMode, Store};

    #[test]
    fn a_put_between_finding_an_expired_key_and_forgetting_it_stays() {
        let clock = ManualClock::new(1_000_000);
        let store = Store::options()
            .maintenance(Maintenance::Manual)
            .clock(clock.clone())
            .storage(Arc::new(MemStorage::new()))
            .open("/store")
            .unwrap();
        let namespace = store.namespace("N").unwrap();
        let second = PutOptions::new().ttl(Duration::from_secs(1));
        for key in ["renewed", "deleted", "left alone"] {
            namespace.put_with(key, "old", second.clone()).unwrap();
        }
        clock.advance(1000);
        let engine = store.engine();
        let now_ms = engine.time.now_ms();
        let due = lock(&engine.expiry).pop_due(now_ms, STEP);
        assert_eq!(due.len(), 3);
        // The sweep has taken them for expired, and has yet to take the writer lock.
        namespace.put("renewed", "new").unwrap();
        namespace.delete("deleted").unwrap();
        namespace.put_with("deleted", "again", second).unwrap();
        let writer = engine.lock_writer();
        assert!(due.into_iter().all(|location| engine.forget(location, now_ms)));
        drop(writer);
        assert_eq!(namespace.get_text("renewed").unwrap().as_deref(), Some("new"));
        assert_eq!(namespace.get_text("deleted").unwrap().as_deref(), Some("again"));
        assert!(namespace.get("left alone").unwrap().is_none());
        assert_eq!(store.stats().expired, 1);
        let live: u64 = store.stats().segments.iter().map(|segment| segment.live_records).sum();
        // The namespace has a record of its own.
        assert_eq!(live, 3);
    }

    #[test]
    fn a_read_that_fails_in_a_sweep_does_not_keep_the_key_in_memory_for_good() {
        let clock = ManualClock::new(1_000_000);
        let faulty = FaultStorage::new(Arc::new(MemStorage::new()));
        let store = Store::options()
            .maintenance(Maintenance::Manual)
            .read_mode(ReadMode::Pread)
            .clock(clock.clone())
            .storage(Arc::new(faulty.clone()))
            .open("/store")
            .unwrap();
        let namespace = store.namespace("N").unwrap();
        let second = PutOptions::new().ttl(Duration::from_secs(1));
        namespace.put_with("key", "value", second).unwrap();
        store.engine().retire_active().unwrap();
        store.engine().seal_all().unwrap();
        clock.advance(1000);
        faulty.inject(
            Fault::new(FaultKind::Error(std::io::ErrorKind::Other))
                .on(Operation::Read)
                .repeated(),
        );
        store.engine().sweep_expired();
        assert!(faulty.struck() > 0);
        assert_eq!(store.stats().expired, 0);
        faulty.clear();
        clock.advance(RETRY_MS);
        store.engine().sweep_expired();
        assert_eq!(store.stats().expired, 1);
    }
}
