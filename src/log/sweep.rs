//! What leaves memory by itself: expired keys, the keys of dropped namespaces, queued changes of the key order.

use std::ops::Bound;
use std::sync::atomic::Ordering;

use super::{Engine, lock};
use crate::clock::is_expired;
use crate::error::{Error, Result};
use crate::index::keydir::Location;
use crate::index::namespaces::SYSTEM_NAMESPACE;

/// Keys handled under one taking of the writer lock.
const STEP: usize = 64;
/// Queued changes of a key order from which on they are merged.
const MERGE_FROM: usize = 1024;

impl Engine {
    /// One round of all work that needs no caller: everything that is due is done when it returns.
    pub(crate) fn maintain(&self) -> Result<()> {
        self.flush_if_open()?;
        self.seal_all()?;
        self.sweep_expired();
        self.clean_expiry_queue();
        self.empty_dropped_namespaces()?;
        self.merge_orders(0);
        Ok(())
    }

    fn flush_if_open(&self) -> Result<()> {
        self.check_open()?;
        self.flush()
    }

    /// Folds queued changes into the key orders that have more than `above`.
    pub(crate) fn merge_orders(&self, above: usize) {
        for namespace in self.namespaces.all() {
            if namespace.order.pending_len() > above {
                while namespace.order.merge_step(STEP) {}
            }
        }
    }

    /// Folds queued changes where there are many.
    pub(crate) fn merge_large_orders(&self) {
        self.merge_orders(MERGE_FROM);
    }

    /// Removes all expired keys from the indexes; their records stay as shadows until compaction drops them.
    pub(crate) fn sweep_expired(&self) {
        let now_ms = self.time.now_ms();
        loop {
            let due = lock(&self.expiry).pop_due(now_ms, STEP);
            if due.is_empty() {
                return;
            }
            let _writer = self.lock_writer();
            for location in due {
                self.forget(location, |expiry| is_expired(expiry, now_ms));
            }
        }
    }

    /// Removes the key of this record from the indexes if this is still its newest record and `wanted` says so of its expiry.
    /// The caller holds the writer lock.
    fn forget(&self, location: Location, wanted: impl FnOnce(Option<u64>) -> bool) {
        let Some(segment) = self.segments.get(location.segment_index()) else {
            return;
        };
        let mut scratch = Vec::new();
        // A damaged record stays where it is: whoever asks for its key is told.
        let Ok(record) = segment.record(location.offset(), &mut scratch) else {
            return;
        };
        let (header, key) = (record.header, record.key());
        if !wanted(header.expiry) || header.namespace == SYSTEM_NAMESPACE {
            return;
        }
        if self.keydir.remove(self.hash(header.namespace, key), location) {
            segment.counters.remove_live(header.record_len());
            segment.counters.note_expired(header.expiry.unwrap_or(0));
            self.events.expired.fetch_add(1, Ordering::Relaxed);
            if let Some(namespace) = self.namespaces.by_number(header.namespace) {
                namespace.order.remove(key);
            }
        }
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

    /// Whether the keydir points at this record.
    fn is_current(&self, location: Location) -> bool {
        let Some(segment) = self.segments.get(location.segment_index()) else {
            return false;
        };
        let mut scratch = Vec::new();
        segment.record(location.offset(), &mut scratch).is_ok_and(|record| {
            self.keydir
                .holds(self.hash(record.header.namespace, record.key()), location)
        })
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
                    match self.find_header(namespace.number, key, hash) {
                        Ok(Some((location, header))) => {
                            self.keydir.remove(hash, location);
                            self.no_longer_live(location, &header);
                        }
                        Ok(None) => {}
                        // Its slot stays, and leads nobody anywhere; the others must not wait for it.
                        Err(error @ Error::Corruption { .. }) => self.events.note_background_error(&error),
                        Err(error) => return Err(error),
                    }
                    namespace.order.remove(key);
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
    use crate::storage::MemStorage;
    use crate::{Maintenance, ManualClock, PutOptions, Store};

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
        due.into_iter()
            .for_each(|location| engine.forget(location, |expiry| is_expired(expiry, now_ms)));
        drop(writer);
        assert_eq!(namespace.get_text("renewed").unwrap().as_deref(), Some("new"));
        assert_eq!(namespace.get_text("deleted").unwrap().as_deref(), Some("again"));
        assert!(namespace.get("left alone").unwrap().is_none());
        assert_eq!(store.stats().expired, 1);
        let live: u64 = store.stats().segments.iter().map(|segment| segment.live_records).sum();
        // The namespace has a record of its own.
        assert_eq!(live, 3);
    }
}
