//! The namespace in which a replica keeps its place in the log. No client and no user sees it.

use embercask::{NamespaceInfo, NamespaceStats, Stats, Store};
use embercask_replica::state::{RESERVED_ID, RESERVED_NAME};

/// Whether a namespace is that one.
pub(crate) fn is_reserved(id: u128) -> bool {
    id == RESERVED_ID
}

/// Whether a name is that of this namespace.
pub(crate) fn is_reserved_name(name: &str) -> bool {
    name == RESERVED_NAME
}

/// The others.
pub(crate) fn shown(mut all: Vec<NamespaceInfo>) -> Vec<NamespaceInfo> {
    all.retain(|info| !is_reserved(info.id));
    all
}

/// What the others hold.
pub(crate) fn shown_stats(mut all: Vec<NamespaceStats>) -> Vec<NamespaceStats> {
    all.retain(|stats| !is_reserved(stats.id));
    all
}

/// The statistics of a store, without its keys.
pub(crate) fn stats(store: &Store) -> Stats {
    let mut stats = store.stats();
    let reserved = store.namespace_by_id(RESERVED_ID).ok().flatten();
    if let Some(reserved) = reserved.and_then(|namespace| namespace.stats().ok()) {
        stats.namespaces = stats.namespaces.saturating_sub(1);
        stats.keys = stats.keys.saturating_sub(reserved.keys);
    }
    stats
}

#[cfg(test)]
mod tests {
    use embercask_replica::state;

    use super::*;
    use crate::common::statistics;

    #[test]
    fn what_a_replica_needs_for_itself_is_not_counted() {
        let store = Store::in_memory().unwrap();
        store.namespace("N").unwrap().put("k", "v").unwrap();
        state::init(&store, 1).unwrap();
        assert_eq!((store.stats().namespaces, store.stats().keys), (2, 2));
        let told = statistics::of_store(&store).unwrap();
        assert_eq!((&told["namespaces"], &told["keys"]), (&1.into(), &1.into()));
        assert_eq!(told["by_namespace"].as_array().unwrap().len(), 1);
        assert!(!told.to_string().contains("embercask-replica"), "{told}");
        assert_eq!(statistics::without_paths(&store)["keys"], 1);
        let names: Vec<_> = shown(store.namespaces().unwrap())
            .into_iter()
            .map(|info| info.name)
            .collect();
        assert_eq!(names, ["N"]);
    }
}
