//! What leaves memory by itself: expired keys, the keys of dropped namespaces, queued changes of the key order.

use std::ops::Bound;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use super::{Engine, Lookup, lock};
use crate::clock::Now;
use crate::error::Result;
use crate::index::keydir::Location;
use crate::index::namespaces::{NamespaceState, SYSTEM_NAMESPACE};
use crate::index::order::{Change, KeyOrder};
use crate::planted::{Planted, planted};
use crate::segment::ReadError;

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
        self.check_open()?;
        self.flush()
    }

    /// Held by the one who takes things out of the indexes by itself, merges key orders, or writes the index file: none of
    /// these sees another half done. They are long, and stop between steps when the store is closed, which waits for them.
    pub(crate) fn housekeeping(&self) -> MutexGuard<'_, ()> {
        lock(&self.housekeeping)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
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
        while !self.is_closed() && namespace.order.merge_step(MERGE_STEP) {}
    }

    /// A writer has changed keys of this namespace: it helps, or asks for help, if too many changes wait for their place in the order.
    pub(crate) fn relieve_order(&self, namespace: &NamespaceState) {
        if namespace.order.relieve() {
            self.wake.wake();
        }
    }

    /// Removes all expired keys from the indexes; their records stay as shadows until compaction drops them. While a jump of the
    /// clock is fresh they are only hidden, so that nothing is lost if it is put right.
    pub(crate) fn sweep_expired(&self) {
        let _housekeeping = self.housekeeping();
        let settled_ms = if planted(Planted::SweepAtOnce) {
            Some(self.time.now().wall_ms())
        } else {
            self.time.settled_ms(self.grace_ms())
        };
        let Some(mut due_ms) = settled_ms else { return };
        while !self.is_closed() {
            let due = lock(&self.expiry).take_due(due_ms, STEP);
            if due.is_empty() {
                return;
            }
            let _writer = self.lock_writer();
            // Under the lock: the clock may have been set back since, and what was put then is not to go.
            let now = self.time.now();
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
            self.events.expired.fetch_add(1, Ordering::Relaxed);
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
        if self.is_closed() || !queue.wants_cleaning() {
            return;
        }
        let entries = queue.take_all();
        drop(queue);
        let mut kept = Vec::new();
        for entries in entries.chunks(CLEANING_STEP) {
            if self.is_closed() {
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
                if self.is_closed() {
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
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::index::expiry::ExpiryQueue;
    use crate::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
    use crate::{Maintenance, ManualClock, Namespace, PutOptions, ReadMode, Store};

    fn clocked() -> (ManualClock, Store, Namespace) {
        let clock = ManualClock::new(1_000_000);
        let store = Store::options()
            .maintenance(Maintenance::Manual)
            .clock(clock.clone())
            .storage(Arc::new(MemStorage::new()))
            .open("/store")
            .unwrap();
        let namespace = store.namespace("N").unwrap();
        (clock, store, namespace)
    }

    #[test]
    fn a_put_between_finding_an_expired_key_and_forgetting_it_stays() {
        let (clock, store, namespace) = clocked();
        let second = PutOptions::new().ttl(Duration::from_secs(1));
        for key in ["renewed", "deleted", "left alone"] {
            namespace.put_with(key, "old", second.clone()).unwrap();
        }
        clock.advance(1000);
        let engine = store.engine();
        let now = engine.time.now();
        let due = lock(&engine.expiry).take_due(now.wall_ms(), STEP);
        assert_eq!(due.len(), 3);
        // The sweep has taken them for expired, and has yet to take the writer lock.
        namespace.put("renewed", "new").unwrap();
        namespace.delete("deleted").unwrap();
        namespace.put_with("deleted", "again", second).unwrap();
        let writer = engine.lock_writer();
        assert!(due.iter().all(|(_, location)| engine.forget(*location, &now).is_none()));
        drop(writer);
        assert_eq!(namespace.get_text("renewed").unwrap().as_deref(), Some("new"));
        assert_eq!(namespace.get_text("deleted").unwrap().as_deref(), Some("again"));
        assert!(namespace.get("left alone").unwrap().is_none());
        assert_eq!(store.stats().expired, 1);
        let live: u64 = store.stats().segments.iter().map(|segment| segment.live_records).sum();
        // The namespace has a record of its own.
        assert_eq!(live, 3);
    }

    /// The sweep waited for the lock while the clock was set back.
    #[test]
    fn a_sweep_that_read_the_clock_before_it_was_set_back_leaves_what_was_put_since() {
        let (clock, store, namespace) = clocked();
        let second = PutOptions::new().ttl(Duration::from_secs(1));
        namespace.put_with("old", "1", second.clone()).unwrap();
        clock.set_wall(1_900_000);
        let engine = store.engine();
        let due_ms = engine.time.now().wall_ms();
        clock.set_wall(1_000_500);
        namespace.put_with("new", "1", second).unwrap();
        let due = lock(&engine.expiry).take_due(due_ms, STEP);
        assert_eq!(due.len(), 2);
        let writer = engine.lock_writer();
        let now = engine.time.now();
        let left: Vec<_> = due.iter().map(|(_, location)| engine.forget(*location, &now)).collect();
        drop(writer);
        assert_eq!(left, [None, Some(1_001_500)]);
        assert_eq!(namespace.get_text("new").unwrap().as_deref(), Some("1"));
        assert!(namespace.get("old").unwrap().is_none());
    }

    /// C14. A sweep or a cleaning is under way in another thread, and has taken these out of the queue.
    #[test]
    fn an_index_file_written_while_entries_are_taken_out_of_the_expiry_queue_has_them() {
        type Take = fn(&mut ExpiryQueue) -> usize;
        let takes: [Take; 2] = [
            |queue| queue.take_due(u64::MAX, STEP).len(),
            |queue| queue.take_all().len(),
        ];
        for take in takes {
            let (disk, clock) = (MemStorage::new(), ManualClock::new(1_000_000));
            let open = |disk: &MemStorage| {
                Store::options()
                    .maintenance(Maintenance::Manual)
                    .clock(clock.clone())
                    .storage(Arc::new(disk.clone()))
                    .open("/store")
                    .unwrap()
            };
            let store = open(&disk);
            let namespace = store.namespace("N").unwrap();
            for n in 0..STEP {
                let second = PutOptions::new().ttl(Duration::from_secs(1));
                namespace.put_with(format!("{n}"), "1", second).unwrap();
            }
            let before = store.stats();
            assert_eq!(take(&mut lock(&store.engine().expiry)), STEP);
            clock.advance(1000);
            let stats = store.stats();
            assert_eq!(stats.expired_not_swept, STEP as u64);
            assert!(stats.expiry_queue_bytes >= before.expiry_queue_bytes);
            store.close().unwrap();
            let store = open(&disk);
            assert!(store.recovery_report().index_file_used);
            store.maintain().unwrap();
            assert_eq!(store.stats().keys, 0, "they have left memory");
        }
    }

    #[test]
    fn nothing_leaves_the_indexes_of_a_store_that_was_closed() {
        let (clock, store, namespace) = clocked();
        let second = PutOptions::new().ttl(Duration::from_secs(1));
        namespace.put_with("key", "1", second).unwrap();
        store.namespace("DROPPED").unwrap().put("key", "1").unwrap();
        store.drop_namespace("DROPPED").unwrap();
        let other = store.clone();
        store.close().unwrap();
        clock.advance(1000);
        let engine = other.engine();
        engine.sweep_expired();
        engine.clean_expiry_queue();
        engine.empty_dropped_namespaces().unwrap();
        engine.merge_orders();
        assert_eq!((other.stats().expired, engine.keydir.len()), (0, 3));
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

    #[test]
    fn what_expires_leaves_memory_though_it_was_put_before_the_store_was_opened() {
        for index_file in [false, true] {
            let (disk, clock) = (MemStorage::new(), ManualClock::new(1_000_000));
            let open = || {
                Store::options()
                    .maintenance(Maintenance::Manual)
                    .clock(clock.clone())
                    .index_file(index_file)
                    .storage(Arc::new(disk.clone()))
                    .open("/store")
                    .unwrap()
            };
            let store = open();
            let second = PutOptions::new().ttl(Duration::from_secs(1));
            store.namespace("N").unwrap().put_with("key", "1", second).unwrap();
            store.close().unwrap();
            let store = open();
            assert_eq!(store.recovery_report().index_file_used, index_file);
            assert_eq!(store.stats().keys, 1);
            clock.advance(1000);
            store.maintain().unwrap();
            assert_eq!(store.stats().keys, 0, "index file: {index_file}");
        }
    }

    #[test]
    fn what_a_dropped_namespace_held_is_in_no_index_after_the_next_opening() {
        let disk = MemStorage::new();
        let open = || {
            Store::options()
                .maintenance(Maintenance::Manual)
                .index_file(false)
                .storage(Arc::new(disk.clone()))
                .open("/store")
                .unwrap()
        };
        let store = open();
        store.namespace("DROPPED").unwrap().put("key", "1").unwrap();
        store.namespace("N").unwrap().put("key", "1").unwrap();
        store.drop_namespace("DROPPED").unwrap();
        store.close().unwrap();
        let store = open();
        // The other key, and the record of its namespace.
        let live: u64 = store.stats().segments.iter().map(|segment| segment.live_records).sum();
        assert_eq!((store.stats().keys, live), (1, 2));
    }
}
