//! What happens to a segment once it is full: sync, seal, hint, manifest. And the reserve for a full disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::active::Rotated;
use super::output::encode_seal;
use super::{Engine, lock};
use crate::error::{Error, Result};
use crate::format::RESERVE_FILE;
use crate::format::manifest::SegmentState;
use crate::format::segment::Mark;
use crate::planted::{Planted, planted};
use crate::storage::write_all_at;

/// Disk space held back for deletes and compaction, unless segments are smaller: 4 MiB.
const RESERVE_BYTES: u64 = 4 << 20;

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
            self.with_reserve(true, || self.seal(&oldest))?;
        }
        Ok(())
    }

    fn seal(&self, rotated: &Arc<Rotated>) -> Result<()> {
        let id = rotated.segment.id();
        let path = self.segment_path(id);
        if !rotated.synced.load(Ordering::Acquire) {
            self.sync_for_good(rotated)?;
            rotated.synced.store(true, Ordering::Release);
        }
        let mut guard = self.lock_writer();
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
        self.sync_for_good(rotated)?;
        let file = self
            .storage
            .open(&path, false)
            .map_err(|error| Error::io("open", &path, error))?;
        let counters = rotated.segment.counters.clone();
        let segment = self.readable(rotated.segment.header, rotated.summary, false, file, counters)?;
        // A hint only makes opening faster.
        if let Err(error) = self.write_hint(&segment) {
            self.events.note_background_error(&error);
        }
        self.update_manifest(|manifest| {
            for entry in manifest.segments.iter_mut().filter(|entry| entry.id == id) {
                entry.state = SegmentState::Sealed(rotated.summary);
            }
        })?;
        let mut guard = self.lock_writer();
        self.segments.set(segment);
        guard.sealing.retain(|other| other.segment.id() != id);
        Ok(())
    }

    /// A failed sync may have thrown the data away: nothing may be acknowledged after it.
    fn sync_for_good(&self, rotated: &Rotated) -> Result<()> {
        self.events.syncs.fetch_add(1, Ordering::Relaxed);
        rotated.file.sync().map_err(|error| {
            let error = Error::io("sync", &self.segment_path(rotated.segment.id()), error);
            if !planted(Planted::SyncAgainAfterFailure) {
                self.poison(&mut self.lock_writer(), &error);
            }
            error
        })
    }

    /// A segment in which nothing is about a key says nothing.
    fn drop_empty(&self, rotated: &Rotated) -> Result<()> {
        let id = rotated.segment.id();
        self.update_manifest(|manifest| manifest.segments.retain(|entry| entry.id != id))?;
        let mut guard = self.lock_writer();
        guard.sealing.retain(|other| other.segment.id() != id);
        self.segments.remove(rotated.segment.index());
        drop(guard);
        self.remove_segment_files(id);
        Ok(())
    }

    /// Runs `work`. On a full disk, work that ends up freeing space (`may_use_reserve`) gets the reserve; any other is refused
    /// until the reserve is whole again.
    pub(crate) fn with_reserve<T>(&self, may_use_reserve: bool, work: impl Fn() -> Result<T>) -> Result<T> {
        if !may_use_reserve {
            if self.full.load(Ordering::Relaxed) {
                self.check_open()?;
                self.restore_reserve()?;
            }
            return work();
        }
        match work() {
            Err(error) if error.is_no_space() && self.release_reserve() => work(),
            result => result,
        }
    }

    /// Gives the reserve back to the file system; false if there was none.
    pub(super) fn release_reserve(&self) -> bool {
        let _one_at_a_time = lock(&self.reserve);
        self.full.store(true, Ordering::Relaxed);
        self.storage.remove(&self.directory.join(RESERVE_FILE)).is_ok()
    }

    /// Makes sure that the reserve is there. Zeros are written, since a file's length alone reserves nothing.
    pub(crate) fn restore_reserve(&self) -> Result<()> {
        let _one_at_a_time = lock(&self.reserve);
        let path = self.directory.join(RESERVE_FILE);
        let length = RESERVE_BYTES.min(self.options.segment_bytes);
        let there = self
            .storage
            .open(&path, false)
            .and_then(|file| file.len())
            .is_ok_and(|found| found >= length);
        if !there {
            let made = match self.storage.remove(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => self
                    .storage
                    .create(&path)
                    .and_then(|file| write_all_at(&*file, &vec![0; length as usize], 0).and_then(|()| file.sync())),
            };
            if let Err(error) = made {
                let _ = self.storage.remove(&path);
                self.full.store(true, Ordering::Relaxed);
                return Err(Error::io("hold back a reserve in", &path, error));
            }
        }
        self.full.store(false, Ordering::Relaxed);
        Ok(())
    }
}
