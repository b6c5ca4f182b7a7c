//! Whether a store takes what clients send.

use std::path::Path;

use embercask::Store;

use crate::planted::{Planted, planted};

/// Free space from which a disk that was found full counts as full no longer.
const ROOM_BYTES_MIN: u64 = 128 << 20;

/// Why puts to a store fail now, so that clients had better go elsewhere; None if they do not.
/// Reading works all the same, and deleting unless writes are refused.
pub(super) fn refuses_writes(store: &Store) -> Option<&'static str> {
    let stats = store.stats();
    if stats.poisoned.is_some() {
        Some("the store refuses writes")
    } else if is_read_only(store.directory()) {
        Some("the file system of the store is read-only")
    } else if planted(Planted::ReadyWhenFull) {
        None
    } else if stats.disk_full && !has_room(store.directory(), stats.space.reserve_bytes) {
        Some("no space is left for writes")
    } else if stats.space.limit_reached {
        Some("no space is left for writes: the store has reached its limit")
    } else {
        None
    }
}

/// Whether the file system was made read-only, as Linux does after errors of the device.
#[cfg(unix)]
fn is_read_only(directory: &Path) -> bool {
    let found = rustix::fs::statvfs(directory);
    found.is_ok_and(|found| found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

#[cfg(not(unix))]
fn is_read_only(_directory: &Path) -> bool {
    false
}

/// Whether the file system has room for two segments and more. The store finds out with the next
/// put that there is space again, and there may be none as long as the server is not ready.
fn has_room(directory: &Path, reserve_bytes: u64) -> bool {
    let needed = reserve_bytes.saturating_mul(2).max(ROOM_BYTES_MIN);
    #[cfg(unix)]
    let free = rustix::fs::statvfs(directory).map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize));
    #[cfg(not(unix))]
    let free = 0;
    free >= needed && is_granted(directory, reserve_bytes)
}

/// Whether this process is given as many bytes, which the next put needs to restore the reserve: a
/// quota may leave it less than is free. Where this cannot be tried out, it counts as given.
#[cfg(target_os = "linux")]
fn is_granted(directory: &Path, bytes: u64) -> bool {
    use std::sync::Mutex;

    use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, open};
    use rustix::io::Errno;

    // One at a time, so that many health checks do not take the space themselves.
    static TRYING: Mutex<()> = Mutex::new(());
    let Ok(_trying) = TRYING.try_lock() else {
        return false;
    };
    // Without a name: its space is free again as soon as it is closed.
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = open(directory, flags, Mode::RUSR | Mode::WUSR);
    let allocated = file.and_then(|file| fallocate(&file, FallocateFlags::empty(), 0, bytes));
    !matches!(allocated, Err(Errno::NOSPC | Errno::DQUOT))
}

#[cfg(not(target_os = "linux"))]
fn is_granted(_directory: &Path, _bytes: u64) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use embercask::storage::MemStorage;
    use embercask::{Maintenance, Options};

    use super::*;

    fn options() -> Options {
        let small = Store::options().segment_bytes(64 << 10).buffer_bytes(256 << 10);
        small.maintenance(Maintenance::Manual)
    }

    /// Puts until one fails.
    fn fill(store: &Store) {
        let namespace = store.namespace("N").unwrap();
        let value = vec![b'v'; 32 << 10];
        let failed = (0..1000).find(|number| namespace.put(format!("k{number}"), &value).is_err());
        assert!(failed.is_some(), "nothing fails");
    }

    #[test]
    fn a_store_on_a_full_disk_is_not_ready_until_there_is_space_again() {
        let disk = MemStorage::new();
        let store = options().storage(Arc::new(disk.clone())).open("/store").unwrap();
        assert_eq!(refuses_writes(&store), None);
        disk.set_capacity(Some(2 << 20));
        fill(&store);
        assert_eq!(refuses_writes(&store), Some("no space is left for writes"));
        assert!(
            store.namespace("N").unwrap().get("k0").unwrap().is_some(),
            "reading works"
        );
        // Nothing is known of the file system of a store in memory.
        disk.set_capacity(None);
        store.namespace("N").unwrap().put("more", "v").unwrap();
        assert_eq!(refuses_writes(&store), None);
    }

    #[test]
    fn room_is_what_the_file_system_has_beyond_two_segments() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!has_room(directory.path(), u64::MAX) && !has_room(&directory.path().join("absent"), 0));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn room_is_tried_out_and_left_as_it_was() {
        const TMPFS: u64 = 0x0102_1994;
        let directory = tempfile::tempdir().unwrap();
        assert!(is_granted(directory.path(), 1 << 20) && is_granted(&directory.path().join("absent"), 1));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        // Refuses at once what is more than it may ever have; another file system would be filled.
        let shared_memory = Path::new("/dev/shm");
        let found = rustix::fs::statfs(shared_memory).ok();
        let of_tmpfs = found.filter(|found| u64::try_from(found.f_type) == Ok(TMPFS) && found.f_blocks > 0);
        if let Some(found) = of_tmpfs {
            let bytes = found.f_blocks * found.f_bsize.unsigned_abs();
            assert!(!is_granted(shared_memory, 2 * bytes));
        }
    }

    /// Agrees with the table of mounts, which usually has some that are read-only.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_store_on_a_read_only_file_system_is_not_ready() {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mut by_path = std::collections::BTreeMap::new();
        for mount in mounts.lines() {
            let [_, path, kind, options, ..] = mount.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{mount}")
            };
            // A later mount at a path hides those before. Those of other machines may not answer.
            let is_local = ["tmpfs", "ext4", "overlay", "squashfs", "proc", "sysfs"].contains(&kind);
            by_path.insert(path, is_local.then(|| options.split(',').any(|option| option == "ro")));
        }
        for (path, expected) in by_path {
            if let Some(expected) = expected.filter(|_| Path::new(path).is_dir()) {
                assert_eq!(is_read_only(Path::new(path)), expected, "{path}");
                // The store itself is in memory; only its path is there.
                let store = options().storage(Arc::new(MemStorage::new())).open(path).unwrap();
                let refused = expected.then_some("the file system of the store is read-only");
                assert_eq!(refuses_writes(&store), refused, "{path}");
            }
        }
        assert!(!is_read_only(tempfile::tempdir().unwrap().path()));
    }

    #[test]
    fn a_store_at_its_limit_is_not_ready_until_it_takes_less() {
        let options = options().max_disk_bytes(Some(2 << 20));
        let store = options.storage(Arc::new(MemStorage::new())).open("/store").unwrap();
        fill(&store);
        let told = refuses_writes(&store).unwrap_or_default();
        assert!(
            told.starts_with("no space is left for writes: ") && told.contains("limit"),
            "{told}"
        );
        let namespace = store.namespace("N").unwrap();
        namespace.delete_prefix("k").run().unwrap();
        store.compact().unwrap();
        assert_eq!(refuses_writes(&store), None);
    }
}
