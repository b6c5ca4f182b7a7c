//! Flushing in the background, and how the log is closed.

use super::Log;
use super::reserve::ReservePart;
use crate::error::{Error, Result};
use crate::sync::lock;

impl Log {
    /// Writes out pending records, if there are any.
    pub(crate) fn flush_pending(&self) -> Result<()> {
        self.check_not_removed()?;
        let guard = self.lock();
        if guard.tail.pending_bytes() == 0 || guard.check_open().is_err() {
            return Ok(());
        }
        drop(guard);
        self.with_part_of_ring(|| self.commit.write_out(self.lock()).1)
    }

    /// Poisons the store if its directory, the active file or the lock was removed: later writes
    /// would be lost, or would collide with another program's.
    fn check_not_removed(&self) -> Result<()> {
        let mut guard = self.lock();
        if guard.check_open().is_err() {
            return Ok(());
        }
        self.commit.environment.check_linked(&guard.tail).map_err(|error| {
            let error = Error::io("write any more in", self.context.path(), error);
            self.poison(&mut guard, &error);
            error
        })
    }

    /// Refuses new writes; writes already appended still complete. The first step of closing.
    pub(crate) fn refuse_writes(&self) {
        self.lock().closed = true;
    }

    /// Writes out, syncs and seals everything. The caller has refused further writes. On a full
    /// disk acknowledged writes get the whole reserve: this is their last chance.
    pub(crate) fn close(&self) -> Result<()> {
        self.ring.wait();
        let result = self.reserve.run(ReservePart::All, || self.sync());
        let prepared = self.lock().tail.prepared.take();
        result?;
        self.retire_active()?;
        self.seal_all()?;
        self.spare_memory.end();
        prepared.map_or(Ok(()), |prepared| {
            self.reserve
                .run(ReservePart::Whole, || self.discard_prepared(&prepared))
        })?;
        self.remove_ring();
        Ok(())
    }

    /// After a failed close some data may still be unwritten, unsynced or unsealed. Keeps the
    /// remaining handles from doing any of that once another process has the directory.
    pub(crate) fn stop(&self, cause: &Error) {
        self.commit.stop(cause);
        self.spare_memory.end();
        self.ring.wait();
        // Waits for a sealing thread, which stops after the current segment.
        drop(lock(&self.sealing));
    }

    /// Releases the directory to the next process. The last step of closing.
    pub(crate) fn unlock_directory(&self) {
        // A thread may still be renewing a hint or using the reserve although the store is closed.
        // A hint is finished first, and the reserve is used only after a check that the lock is
        // still held.
        self.doubtful_hints.while_none_is_renewed(|| ());
        self.reserve.while_untouched(|| self.context.unlock_directory());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::{MemStorage, Storage};
    use crate::{Durability, ErrorKind, Maintenance, PutOptions, Store};

    #[test]
    fn the_background_leaves_a_log_alone_that_takes_no_more_writes() {
        let refusals: [fn(&Log); 2] = [Log::refuse_writes, |log| {
            log.poison(&mut log.lock(), &Error::invalid("a reason"))
        }];
        for refuse in refusals {
            let store = Store::options()
                .maintenance(Maintenance::Manual)
                .storage(Arc::new(MemStorage::new()))
                .open("/store")
                .unwrap();
            let namespace = store.namespace("N").unwrap();
            let log = &store.engine().log;
            let put = || {
                let options = PutOptions::new().durability(Durability::Buffered);
                namespace.put_with("key", "value", options).unwrap();
                log.lock().tail.pending_bytes()
            };
            assert!(put() > 0);
            log.flush_pending().unwrap();
            assert_eq!(log.lock().tail.pending_bytes(), 0);
            let pending = put();
            refuse(log);
            log.flush_pending().unwrap();
            assert_eq!(log.lock().tail.pending_bytes(), pending);
        }
    }

    #[test]
    fn nothing_is_written_any_more_once_the_directory_was_removed() {
        let disk = MemStorage::new();
        let options = Store::options().maintenance(Maintenance::Manual);
        let store = options.storage(Arc::new(disk.clone())).open("/store").unwrap();
        let namespace = store.namespace("N").unwrap();
        namespace.put("key", "value").unwrap();
        let log = &store.engine().log;
        log.flush_pending().unwrap();
        disk.files("/store")
            .into_iter()
            .for_each(|path| disk.remove_file(path).unwrap());
        Storage::remove_directory(&disk, "/store".as_ref()).unwrap();
        assert_eq!(log.flush_pending().unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(namespace.put("key", "lost").unwrap_err().kind(), ErrorKind::Poisoned);
    }
}
