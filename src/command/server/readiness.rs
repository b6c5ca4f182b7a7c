//! Whether a store takes what clients send.

use embercask::{Condition, ErrorKind, Store};

use crate::planted::{Planted, planted};

/// Why puts to a store fail now, so that clients had better go elsewhere; None if they do not.
/// Reading works all the same, and deleting unless writes are refused.
pub(super) fn refuses_writes(store: &Store) -> Option<&'static str> {
    let stats = store.stats();
    if stats.poisoned.is_some() {
        Some("the store refuses writes")
    } else if planted(Planted::ReadyWhenFull) {
        None
    } else if stats.disk_full && !has_space_again(store) {
        Some("no space is left for writes")
    } else if stats.space.limit_reached {
        Some("no space is left for writes: the store has reached its limit")
    } else {
        None
    }
}

/// Tries whether a put would fit now. The store finds that out with the next put only, and there
/// may be none as long as the server is not ready.
fn has_space_again(store: &Store) -> bool {
    let all = store.namespaces().unwrap_or_default();
    let first = all.first().and_then(|info| store.open_namespace(&info.name).ok());
    // Writes nothing, since no key has this sequence.
    let probe = first.map(|namespace| namespace.put_if("probe", "", Condition::Sequence(u64::MAX)));
    probe.is_some_and(|outcome| outcome.is_err_and(|error| error.kind() != ErrorKind::NoSpace))
        && !store.stats().disk_full
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
        let before = store.stats().last_sequence;
        disk.set_capacity(None);
        assert_eq!(refuses_writes(&store), None, "without a put");
        assert_eq!(store.stats().last_sequence, before);
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
