//! Failures after which all writes are refused.
use std::sync::Arc;

use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{ErrorKind, Maintenance, Store};

#[test]
fn a_new_segment_whose_manifest_may_or_may_not_stand_poisons_the_store() {
    let faults = FaultStorage::new(Arc::new(MemStorage::new()));
    let store = Store::options()
        .segment_bytes(4096)
        .maintenance(Maintenance::Manual)
        .storage(Arc::new(faults.clone()))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    faults.inject(
        Fault::new(FaultKind::Error(std::io::ErrorKind::Other))
            .on(Operation::Rename)
            .path("MANIFEST"),
    );
    let first = (0..100)
        .find_map(|n| namespace.put(format!("key {n}"), [7; 500]).err())
        .unwrap();
    assert_eq!(first.kind(), ErrorKind::Io);
    assert_eq!(namespace.put("key", "value").unwrap_err().kind(), ErrorKind::Poisoned);
    assert!(namespace.get("key 0").unwrap().is_some());
}

#[test]
fn a_namespace_whose_drop_could_not_be_synced_is_gone_as_a_whole() {
    let faults = FaultStorage::new(Arc::new(MemStorage::new()));
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .storage(Arc::new(faults.clone()))
        .open("/store")
        .unwrap();
    store.namespace("N").unwrap().put("key", "value").unwrap();
    faults.inject(Fault::new(FaultKind::FailedSync).on(Operation::Sync));
    assert_eq!(store.drop_namespace("N").unwrap_err().kind(), ErrorKind::Io);
    // It can no longer be opened, so it must not be listed either.
    assert_eq!(store.open_namespace("N").unwrap_err().kind(), ErrorKind::NotFound);
    assert!(store.namespaces().unwrap().is_empty());
    assert!(store.stats().poisoned.is_some());
}
