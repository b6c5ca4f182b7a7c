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

/// Whether the file system has room for two segments and more. The store finds out with the next
/// put that there is space again, and there may be none as long as the server is not ready.
fn has_room(directory: &Path, reserve_bytes: u64) -> bool {
    let needed = reserve_bytes.saturating_mul(2).max(ROOM_BYTES_MIN);
    #[cfg(unix)]
    let free = rustix::fs::statvfs(directory).map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize));
    #[cfg(not(unix))]
    let free = 0;
    free >= needed
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
