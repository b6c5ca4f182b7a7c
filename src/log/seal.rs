//! What happens to a segment once it is full: sync, seal, hint, manifest.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Engine;
use super::active::Rotated;
use super::hints::write_hint;
use super::output::encode_seal;
use super::reserve::ReservePart;
use super::writer::Guard;
use crate::error::{Error, Result};
use crate::format::manifest::SegmentState;
use crate::format::segment::Mark;
use crate::format::segment_file;
use crate::options::Durability;
use crate::planted::{Planted, planted};
use crate::sync::lock;

/// What a write has done before it waits.
pub(super) struct Applied<'a, T> {
    pub(super) guard: Guard<'a>,
    /// What has to be written out, or synced, up to here.
    pub(super) sequence: u64,
    /// False if there was nothing to write: then `sequence` is that of others' records, which this call has seen.
    pub(super) appended: bool,
    pub(super) answer: T,
}

impl Engine {
    /// Seals all segments that were rotated out before the call, oldest first. Not those rotated out meanwhile: writers that
    /// fill segments faster than the device syncs them would keep the caller here for ever.
    pub(crate) fn seal_all(&self) -> Result<()> {
        let rotated = self.lock_writer().sealing.clone();
        let _one_at_a_time = lock(&self.sealing);
        for oldest in rotated {
            let guard = self.lock_writer();
            if !guard.sealing.iter().any(|waiting| Arc::ptr_eq(waiting, &oldest)) {
                // Somebody else has sealed it.
                continue;
            }
            guard.check_poison()?;
            drop(guard);
            self.reserve.run(ReservePart::Whole, || self.seal(&oldest))?;
        }
        Ok(())
    }

    fn seal(&self, rotated: &Arc<Rotated>) -> Result<()> {
        let id = rotated.segment.id();
        let path = self.context.segment_path(id);
        if !rotated.synced.load(Ordering::Acquire) {
            self.sync_for_good(rotated)?;
            rotated.synced.store(true, Ordering::Release);
        }
        let mut guard = self.lock_writer();
        // Whoever is told of a failed sync meanwhile is told before this one is believed.
        self.check_sound(&mut guard)?;
        // It is the oldest, so nothing before its end is in a page cache only.
        let end = Mark {
            segment_id: id,
            offset: rotated.summary.data_end,
        };
        guard.durable_up_to(rotated.summary.max_sequence, end);
        drop(guard);
        if rotated.summary.puts + rotated.summary.tombstones == 0 {
            return self.drop_empty(rotated);
        }
        let seal = encode_seal(&rotated.segment.header, &rotated.summary);
        if let Err(error) = rotated.file.write(&seal, rotated.summary.data_end) {
            // Without its seal the segment is as good as before; it is tried again later.
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
        let segment = self.readable(rotated.segment.header, rotated.summary, false, file, counters)?;
        // A hint only makes opening faster.
        if let Err(error) = write_hint(&self.context, &segment) {
            self.context.events.note_background_error(&error);
        }
        self.update_manifest(|manifest| {
            for entry in manifest.segments.iter_mut().filter(|entry| entry.id == id) {
                entry.state = SegmentState::Sealed(rotated.summary);
            }
        })?;
        let mut guard = self.lock_writer();
        self.state.segments.set(segment);
        guard.sealing.retain(|other| other.segment.id() != id);
        Ok(())
    }

    /// A failed sync may have thrown the data away: nothing may be acknowledged after it.
    fn sync_for_good(&self, rotated: &Rotated) -> Result<()> {
        self.context.events.syncs.fetch_add(1, Ordering::Relaxed);
        rotated.file.sync().map_err(|error| {
            let error = Error::unsure("sync", &self.context.segment_path(rotated.segment.id()), error);
            if !planted(Planted::SyncAgainAfterFailure) {
                self.poison(&mut self.lock_writer(), &error);
            }
            error
        })
    }

    /// A segment in which nothing is about a key says nothing.
    fn drop_empty(&self, rotated: &Rotated) -> Result<()> {
        let id = rotated.segment.id();
        let _until_it_is_gone = self.manifest.hold_ids([id]);
        self.update_manifest(|manifest| manifest.segments.retain(|entry| entry.id != id))?;
        let mut guard = self.lock_writer();
        guard.sealing.retain(|other| other.segment.id() != id);
        self.state.segments.remove(rotated.segment.index());
        drop(guard);
        self.remove_segment_files(id);
        Ok(())
    }

    /// As [`Reserve::run`](super::reserve::Reserve::run), for a write: `apply` appends its records, and what they wait for is waited for here.
    ///
    /// `apply` is run a second time only if the records of the first attempt were taken back. Records that stay pending, since
    /// others behind them were acknowledged, are waited for again: a second attempt would find them and judge by them.
    pub(super) fn write_with_reserve<'a, T>(
        &'a self,
        part: ReservePart,
        durability: Durability,
        apply: impl Fn() -> Result<Applied<'a, T>>,
    ) -> Result<T> {
        self.refuse_if_full(part)?;
        let appended = Cell::new(true);
        let attempt = || {
            let applied = apply().map_err(|error| (error, None))?;
            appended.set(applied.appended);
            match self.finish(applied.guard, durability, applied.sequence) {
                Ok(()) => Ok(applied.answer),
                Err(error @ Error::Pending { .. }) => Err((error, Some((applied.sequence, applied.answer)))),
                Err(error) => Err((error, None)),
            }
        };
        let ended = match attempt() {
            Err((error, pending)) if part.helps(&error) => {
                self.reserve.release(part);
                match pending {
                    Some((sequence, answer)) if !planted(Planted::RunPendingAgain) => {
                        let waited = self.finish(self.lock_writer(), durability, sequence);
                        waited.map(|()| answer)
                    }
                    _ => attempt().map_err(|(error, _)| error),
                }
            }
            result => result.map_err(|(error, _)| error),
        };
        // Where there was nothing to write, what stays pending is the record of another call.
        ended.map_err(|error| if appended.get() { error } else { error.without_pending() })
    }

    /// Refuses this work if the disk was found full and the part of the reserve that is kept for others cannot be made whole.
    pub(super) fn refuse_if_full(&self, part: ReservePart) -> Result<()> {
        if self.reserve.keeps_from(part) {
            self.context.check_open()?;
            self.check_sound(&mut self.lock_writer())?;
            self.reserve.restore_kept(part)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::RESERVE_FILE;
    use crate::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
    use crate::{ErrorKind, Maintenance, PutOptions, Store};

    /// C11: the two may be of the same commit, of which only one is told.
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
        engine.retire_active().unwrap();
        let guard = engine.lock_writer();
        let (rotated, durable) = (guard.sealing.first().unwrap().clone(), guard.durable_sequence);
        std::thread::scope(|scope| {
            let sealing = scope.spawn(|| engine.seal(&rotated));
            while !rotated.synced.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            // It has its own answer, and waits for the lock.
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
        assert_eq!(engine.lock_writer().durable_sequence, durable);
    }
}
