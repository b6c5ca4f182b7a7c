//! The lock that keeps a second process, or a second open of the same process, out of a store.
//!
//! It is the system's lock on an open file (`flock`, `LockFileEx`), so it ends with its holder,
//! however that dies. The file's existence and content mean nothing: a stale or empty file is no
//! obstacle, and a process id in it is never trusted. Its text only serves to name the holder in
//! the error that other processes get.
//!
//! To see whether the lock is held, a shared one is tried, for a moment and on a file that is open
//! for reading only. Nothing else takes shared locks, so a process that opens the store can tell
//! such a look from a holder, by trying a shared lock too, and tries again.
//!
//! The file is removed only with the store, by its holder; who gets the lock then checks that the
//! file still has its name. Otherwise, between an unlock and an unlink, another process could
//! lock the old file while a third creates and locks a new one, and both would hold the lock.

use std::fs::File;
use std::io::{self, Read, Write};
use std::time::Duration;

use super::os::{counts_links, is_linked};
use super::sealed::Sealed;
use super::{ProcessMark, StorageLock};
use crate::planted::{Planted, planted};

/// Maximum length of the holder's text in the error.
const OWNER_BYTES_MAX: u64 = 1024;

/// Attempts to take the lock while others look at it. A look takes microseconds.
const LOOKS_MAX: usize = 1000;
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(1);

#[derive(Debug)]
struct OsLock {
    file: File,
    /// As in `OsFile`.
    counts_links: bool,
    holder: ProcessMark,
}

impl Sealed for OsLock {}

impl StorageLock for OsLock {
    fn is_linked(&self) -> io::Result<bool> {
        Ok(!self.counts_links || is_linked(&self.file)?)
    }
}

impl Drop for OsLock {
    fn drop(&mut self) {
        // A forked child shares the open file, so unlocking it would release the parent's lock.
        if !self.holder.is_of_this_process() && !planted(Planted::UnlockInChild) {
            return;
        }
        // Closing the file releases the lock, but not always at once: a child process being started
        // by another thread shares the open file until its exec, and Windows may release the lock
        // some time after the close. If unlocking fails, the close still follows.
        let _ = fs2::FileExt::unlock(&self.file);
    }
}

/// Locks this file, which is open for reading and writing; see
/// [`StorageDirectory::lock`](super::StorageDirectory::lock).
pub(super) fn acquire(mut file: File, owner: &str) -> io::Result<Box<dyn StorageLock>> {
    match lock_unless_held(&file) {
        Ok(()) => {
            // Informational: the lock holds without the text, and a full disk must not prevent
            // opening.
            let _ = file.set_len(0).and_then(|()| file.write_all(owner.as_bytes()));
            let holder = ProcessMark::of_this_process();
            let counts_links = counts_links(&file);
            Ok(Box::new(OsLock {
                file,
                counts_links,
                holder,
            }))
        }
        Err(error) if is_contended(&error) => {
            let mut text = Vec::new();
            // On Windows the lock also prevents reading; the holder is then unknown.
            let _ = file.take(OWNER_BYTES_MAX).read_to_end(&mut text);
            Err(contended(&text))
        }
        Err(error) => Err(error),
    }
}

/// Takes the exclusive lock; the error for a contended lock if another holds it.
fn lock_unless_held(file: &File) -> io::Result<()> {
    let mut looks = 0;
    loop {
        match fs2::FileExt::try_lock_exclusive(file) {
            Err(error) if is_contended(&error) && looks < LOOKS_MAX && !planted(Planted::TakeLookForHolder) => {
                // Fails if there is a holder.
                fs2::FileExt::try_lock_shared(file).map_err(|_| error)?;
                fs2::FileExt::unlock(file)?;
                std::thread::sleep(PAUSE);
                looks += 1;
            }
            locked => return locked,
        }
    }
}

/// Whether the lock of this file is held; false if there is no file.
pub(super) fn is_held(file: io::Result<File>) -> io::Result<bool> {
    let file = match file {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    match fs2::FileExt::try_lock_shared(&file) {
        // Closing it would do, but not always at once, as above.
        Ok(()) => fs2::FileExt::unlock(&file).map(|()| false),
        Err(error) if is_contended(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

/// The error for a lock held elsewhere, with the text that the holder wrote into the file.
pub(super) fn contended(text: &[u8]) -> io::Error {
    let text = String::from_utf8_lossy(text);
    let holder = match text.trim() {
        "" => "unknown",
        known => known,
    };
    io::Error::new(io::ErrorKind::WouldBlock, holder)
}

fn is_contended(error: &io::Error) -> bool {
    // On Windows this error has no `ErrorKind`, only a number.
    error.kind() == io::ErrorKind::WouldBlock
        || error
            .raw_os_error()
            .is_some_and(|code| Some(code) == fs2::lock_contended_error().raw_os_error())
}

#[cfg(all(test, not(miri)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

    use super::*;
    use std::fs::OpenOptions;
    use std::path::Path;

    fn file(path: &Path) -> File {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.open(path).unwrap()
    }

    #[test]
    fn a_stale_file_is_no_obstacle_and_its_text_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("LOCK");
        std::fs::write(&path, "process 1, long gone, with a long text").unwrap();
        let held = acquire(file(&path), "process 2").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"process 2");
        drop(held);
        assert!(path.exists(), "the file must stay");
        std::fs::write(&path, "").unwrap();
        acquire(file(&path), "process 3").unwrap();
    }

    #[test]
    fn a_holder_that_wrote_nothing_readable_is_unknown() {
        assert_eq!(contended(b"").to_string(), "unknown");
        assert_eq!(contended(b" \n").to_string(), "unknown");
        assert_eq!(contended(b" process 7\n").to_string(), "process 7");
    }

    #[test]
    #[cfg(unix)]
    fn looking_at_the_lock_neither_takes_it_nor_keeps_it_from_anybody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("LOCK");
        assert!(!is_held(File::open(&path)).unwrap(), "there is no file");
        let ended = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !ended.load(std::sync::atomic::Ordering::Acquire) {
                        is_held(File::open(&path)).unwrap();
                    }
                });
            }
            let opened = std::panic::catch_unwind(|| {
                for _ in 0..300 {
                    let held = acquire(file(&path), "me").unwrap();
                    assert!(is_held(File::open(&path)).unwrap());
                    let refused = acquire(file(&path), "another").unwrap_err();
                    assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
                    drop(held);
                }
            });
            ended.store(true, std::sync::atomic::Ordering::Release);
            opened.unwrap();
        });
        assert!(!is_held(File::open(&path)).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"me");
    }

    #[test]
    #[cfg(unix)]
    fn the_lock_ends_with_its_guard_although_a_child_still_shares_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("LOCK");
        let locked = file(&path);
        let shared = locked.try_clone().unwrap();
        drop(acquire(locked, "me").unwrap());
        acquire(file(&path), "next").unwrap();
        drop(shared);
    }
}
