//! What happens to a full segment: sync, seal, hint, manifest.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Log;
use super::active::Rotated;
use super::hints::write_hint;
use super::reserve::ReservePart;
use super::segment_files::Ended;
use super::segment_writer::encode_seal;
use crate::error::{Error, Result};
use crate::format::manifest::SegmentState;
use crate::format::segment::Mark;
use crate::format::segment_file;
use crate::planted::{Planted, planted};
use crate::sync::lock;

impl Log {
    /// Seals all segments that were rotated out before the call, oldest first. Later ones are left:
    /// writers that fill segments faster than the device syncs them would keep the caller here
    /// forever.
    pub(crate) fn seal_all(&self) -> Result<()> {
        let all = self.lock().tail.sealing.clone();
        self.seal_each(all)
    }

    /// Seals the oldest one, for a writer that waits for the memory of one segment: to seal all of
    /// them would take several times as long.
    pub(super) fn seal_oldest(&self) -> Result<()> {
        let oldest = self.lock().tail.sealing.first().cloned();
        self.seal_each(oldest)
    }

    fn seal_each(&self, rotated: impl IntoIterator<Item = Arc<Rotated>>) -> Result<()> {
        let _one_at_a_time = lock(&self.sealing);
        for oldest in rotated {
            let guard = self.lock();
            if !guard.tail.sealing.iter().any(|waiting| Arc::ptr_eq(waiting, &oldest)) {
                // Another thread has sealed it.
                continue;
            }
            guard.check_poison()?;
            drop(guard);
            self.reserve.run(ReservePart::Whole, || self.seal(&oldest))?;
            self.note_unsealed(&self.lock());
            self.adapt_sizes();
            self.context.compaction_wake.wake();
        }
        Ok(())
    }

    fn seal(&self, rotated: &Arc<Rotated>) -> Result<()> {
        if !planted(Planted::SealBeforeSettled) {
            // What compaction may read must be in the indexes, or have been. Nothing is added to
            // this segment.
            self.state.settle()?;
        }
        let id = rotated.segment.id();
        let path = self.context.segment_path(id);
        if !rotated.synced.load(Ordering::Acquire) {
            self.sync_for_good(rotated)?;
            rotated.synced.store(true, Ordering::Release);
        }
        let mut guard = self.lock();
        // A failed sync of another file must be seen before this one is trusted.
        self.check_sound(&mut guard)?;
        // It is the oldest segment, so nothing before its end is only in the page cache.
        let end = Mark {
            segment_id: id,
            offset: rotated.summary.data_end,
        };
        if rotated.summary.max_sequence > guard.durable_sequence {
            guard.durable_sequence = rotated.summary.max_sequence;
            guard.tail.durable_end = end;
        }
        drop(guard);
        if rotated.summary.puts + rotated.summary.tombstones == 0 {
            return self.drop_empty(rotated);
        }
        // A sealed file ends with its seal.
        let cut = rotated.file.end_at(rotated.summary.data_end);
        cut.map_err(|error| Error::io("cut", &path, error))?;
        let seal = encode_seal(&rotated.segment.header, &rotated.summary);
        if let Err(error) = rotated.file.write(&seal, rotated.summary.data_end) {
            // The segment is as good without its seal; sealing is retried later.
            let _ = rotated.file.cut(rotated.summary.data_end);
            return Err(Error::io("seal", &path, error));
        }
        if !planted(Planted::SkipSealSync) {
            self.sync_for_good(rotated)?;
        }
        let file = self
            .context
            .directory
            .open_file(&segment_file(id), false)
            .map_err(|error| Error::io("open", &path, error))?;
        let counters = rotated.segment.counters.clone();
        let ended = Ended {
            header: rotated.segment.header,
            summary: rotated.summary,
            cut: false,
        };
        let segment = self.files.readable(&ended, file, counters)?;
        // A hint only makes opening faster.
        if let Err(error) = write_hint(&self.context, &segment) {
            self.context.events.note_background_error(&error);
        }
        self.update_manifest(|manifest| {
            for entry in manifest.segments.iter_mut().filter(|entry| entry.id == id) {
                entry.state = SegmentState::Sealed(rotated.summary);
            }
        })?;
        let mut guard = self.lock();
        self.state.replace_segment(segment);
        guard.tail.sealing.retain(|other| other.segment.id() != id);
        Ok(())
    }

    /// Syncs a file, and poisons the store on failure: the data may be lost.
    fn sync_for_good(&self, rotated: &Rotated) -> Result<()> {
        let synced = self.commit.environment.sync_file(rotated.segment.id(), &rotated.file);
        synced.inspect_err(|error| {
            if !planted(Planted::SyncAgainAfterFailure) {
                self.poison(&mut self.lock(), error);
            }
        })
    }

    /// Drops a segment that has no record of any key.
    fn drop_empty(&self, rotated: &Rotated) -> Result<()> {
        let id = rotated.segment.id();
        let _until_it_is_gone = self.manifest.hold_ids([id]);
        self.update_manifest(|manifest| manifest.segments.retain(|entry| entry.id != id))?;
        let mut guard = self.lock();
        guard.tail.sealing.retain(|other| other.segment.id() != id);
        self.state.segments.remove(rotated.segment.index());
        drop(guard);
        self.files.remove(id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::RESERVE_FILE;
    use crate::log::Room;
    use crate::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
    use crate::{Durability, ErrorKind, Maintenance, PutOptions, Store};

    /// C11: both syncs may depend on the same journal commit, whose failure is reported to only
    /// one.
    #[test]
    fn a_sync_that_fails_elsewhere_while_a_segment_is_sealed_is_heard_of_before_anything_counts_as_durable() {
        let faults = FaultStorage::new(Arc::new(MemStorage::new()));
        let store = Store::options()
            .maintenance(Maintenance::Manual)
            .storage(Arc::new(faults.clone()))
            .open("/store")
            .unwrap();
        let namespace = store.namespace("N").unwrap();
        let buffered = PutOptions::new().durability(Durability::Buffered);
        namespace.put_with("key", "value", buffered).unwrap();
        let engine = store.engine();
        engine.log.retire_active().unwrap();
        let guard = engine.log.lock();
        let (rotated, durable) = (guard.tail.sealing.first().unwrap().clone(), guard.durable_sequence);
        std::thread::scope(|scope| {
            let sealing = scope.spawn(|| engine.log.seal(&rotated));
            while !rotated.synced.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            // This sync has its own result, and waits for the lock.
            faults.inject(
                Fault::new(FaultKind::Error(std::io::ErrorKind::Other))
                    .on(Operation::Sync)
                    .path(RESERVE_FILE),
            );
            let reserve = engine.context.directory.open_file(RESERVE_FILE, true).unwrap();
            reserve.sync().unwrap_err();
            drop(guard);
            let error = sealing.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Poisoned);
        });
        assert_eq!(engine.log.lock().durable_sequence, durable);
    }

    fn opened() -> (MemStorage, FaultStorage, Store) {
        let disk = MemStorage::new();
        let faults = FaultStorage::new(Arc::new(disk.clone()));
        let store = Store::options()
            .maintenance(Maintenance::Manual)
            .storage(Arc::new(faults.clone()))
            .open("/store")
            .unwrap();
        (disk, faults, store)
    }

    #[test]
    fn what_is_sealed_is_durable_and_so_is_what_was_before() {
        let (_, _, store) = opened();
        let namespace = store.namespace("N").unwrap();
        let log = &store.engine().log;
        let put = |durability| {
            let options = PutOptions::new().durability(durability);
            namespace.put_with("key", "value", options).unwrap()
        };
        let sequence = put(Durability::Buffered);
        assert!(store.stats().durable_sequence < sequence);
        store.end_segment();
        assert!(store.stats().durable_sequence >= sequence);
        put(Durability::Buffered);
        log.retire_active().unwrap();
        // Syncs both segments, and then seals the older one.
        let newer = put(Durability::Sync);
        assert!(log.lock().tail.sealing.is_empty());
        assert!(store.stats().durable_sequence >= newer);
    }

    #[test]
    fn a_segment_that_cannot_be_synced_poisons_the_store() {
        let (_, faults, store) = opened();
        let namespace = store.namespace("N").unwrap();
        let buffered = PutOptions::new().durability(Durability::Buffered);
        namespace.put_with("key", "value", buffered).unwrap();
        let log = &store.engine().log;
        log.retire_active().unwrap();
        faults.inject(Fault::new(FaultKind::FailedSync).on(Operation::Sync).path(".segment"));
        log.seal_all().unwrap_err();
        assert!(log.lock().poisoned().is_some());
        assert_eq!(log.seal_all().unwrap_err().kind(), ErrorKind::Poisoned);
    }

    #[test]
    fn a_segment_without_a_record_of_any_key_is_dropped_and_no_other() {
        let (disk, _, store) = opened();
        let namespace = store.namespace("N").unwrap();
        let log = &store.engine().log;
        let seal = || {
            store.end_segment();
            let listed = log.manifest.current().segments.into_iter();
            listed.map(|entry| entry.id).collect::<Vec<_>>()
        };
        namespace.put("key", "value").unwrap();
        assert_eq!(seal(), [1]);
        // A segment is begun, and nothing is written to it.
        let room = Room {
            bytes: 64,
            sequences: 1,
            part: ReservePart::None,
            limited: true,
        };
        drop(log.ensure_room(log.lock(), room).unwrap());
        assert!(disk.exists(store.engine().context.segment_path(2)).unwrap());
        assert_eq!(seal(), [1]);
        assert!(log.lock().tail.sealing.is_empty());
        assert!(!disk.exists(store.engine().context.segment_path(2)).unwrap());
        assert_eq!(namespace.get("key").unwrap().unwrap(), b"value");
    }
}
