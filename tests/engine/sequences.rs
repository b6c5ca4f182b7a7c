//! Sequences are assigned once, no matter what is lost.

use std::sync::Arc;

use embercask::storage::{CutPolicy, MemStorage};
use embercask::{Condition, Durability, ErrorKind, Maintenance, Namespace, PutOptions, Store};

fn open(disk: &MemStorage) -> (Store, Namespace) {
    open_with(disk, 4096)
}

fn open_with(disk: &MemStorage, segment_bytes: u64) -> (Store, Namespace) {
    let store = Store::options()
        .segment_bytes(segment_bytes)
        .maintenance(Maintenance::Manual)
        .storage(Arc::new(disk.clone()))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    (store, namespace)
}

#[test]
fn a_sequence_given_to_a_lost_write_is_not_given_to_another() {
    let disk = MemStorage::new();
    let (_store, namespace) = open(&disk);
    namespace.put("key", "kept").unwrap();
    let lost = PutOptions::new().durability(Durability::Os);
    let lost = namespace.put_with("key", "lost", lost).unwrap();

    let (_reopened, namespace) = open(&disk.power_cut(&CutPolicy::LoseUnsynced));
    assert_eq!(namespace.get_text("key").unwrap().as_deref(), Some("kept"));
    let newer = namespace.put("key", "newer").unwrap();
    assert!(newer > lost, "{newer} was assigned although {lost} had been");
    let conflict = namespace.put_if("key", "wrong", Condition::Sequence(lost)).unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::Conflict);
}

#[test]
fn a_namespace_that_could_not_be_created_can_be_created_again_and_stands_once() {
    let disk = MemStorage::new();
    let (store, namespace) = open_with(&disk, 1 << 20);
    let buffered = || PutOptions::new().durability(Durability::Buffered);
    // More than the segment's file has its length ahead.
    let pending = "p".repeat(10_000);
    namespace.put_with("key", &pending, buffered()).unwrap();
    disk.set_capacity(Some(disk.used()));
    assert_eq!(store.create_namespace("SECOND").unwrap_err().kind(), ErrorKind::NoSpace);
    assert_eq!(store.namespaces().unwrap().len(), 1);
    disk.set_capacity(None);
    store.create_namespace("SECOND").unwrap();
    drop(namespace);
    store.close().unwrap();

    let (store, namespace) = open(&disk);
    let names: Vec<_> = store.namespaces().unwrap().into_iter().map(|info| info.name).collect();
    assert_eq!(names, ["N", "SECOND"]);
    assert_eq!(namespace.get_text("key").unwrap(), Some(pending));
}
