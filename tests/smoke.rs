//! The first minutes with a store.
use embercask::*;
use std::time::Duration;

#[test]
fn a_store_is_written_read_closed_and_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Store::open(&path).unwrap();
    let ns = store.namespace("SESSIONS").unwrap();
    ns.put("user-123", "logged-in").unwrap();
    assert_eq!(ns.get("user-123").unwrap().unwrap(), *b"logged-in");
    assert!(ns.get("nobody").unwrap().is_none());
    ns.put_with(
        "user-9",
        "x",
        PutOptions::new().ttl(Duration::from_secs(3600)).metadata("{}"),
    )
    .unwrap();
    for n in 0..2000 {
        ns.put_with(
            format!("key-{n:05}"),
            format!("value {n}"),
            PutOptions::new().durability(Durability::Os),
        )
        .unwrap();
    }
    assert!(ns.delete("key-00007").unwrap());
    let keys: Vec<_> = ns
        .list()
        .prefix("key-")
        .limit(100)
        .into_iter()
        .map(|e| e.unwrap().key_str().unwrap().to_owned())
        .collect();
    assert_eq!(keys.len(), 1999);
    store
        .batch()
        .put(&ns, "a", "1")
        .delete(&ns, "key-00008")
        .commit()
        .unwrap();
    println!("{:?}", store.stats());
    drop(ns);
    store.close().unwrap();
    let store = Store::open(&path).unwrap();
    println!("{:?}", store.recovery_report());
    let ns = store.open_namespace("SESSIONS").unwrap();
    assert_eq!(ns.count().unwrap(), 2001);
    assert_eq!(ns.get("key-00042").unwrap().unwrap(), *b"value 42");
    store.compact().unwrap();
    assert_eq!(ns.get("key-00042").unwrap().unwrap(), *b"value 42");
    assert_eq!(ns.count().unwrap(), 2001);
    std::mem::forget((store, ns));
}

#[test]
fn a_killed_store_comes_back() {
    let disk = storage::MemStorage::new();
    let open = |disk: &storage::MemStorage| {
        Store::options()
            .segment_bytes(4096)
            .maintenance(Maintenance::Manual)
            .storage(std::sync::Arc::new(disk.clone()))
            .open("/store")
            .unwrap()
    };
    let store = open(&disk);
    let ns = store.namespace("N").unwrap();
    for n in 0..1000 {
        ns.put(format!("{}", n % 77), format!("value {n}")).unwrap();
    }
    let cut = disk.power_cut(&storage::CutPolicy::LoseUnsynced);
    let store2 = open(&cut);
    println!("{:?}", store2.recovery_report());
    let ns2 = store2.open_namespace("N").unwrap();
    assert_eq!(ns2.count().unwrap(), 77);
    for n in 923..1000 {
        assert_eq!(ns2.get(format!("{}", n % 77)).unwrap().unwrap(), format!("value {n}"));
    }
    store2.compact().unwrap();
    for n in 923..1000 {
        assert_eq!(ns2.get(format!("{}", n % 77)).unwrap().unwrap(), format!("value {n}"));
    }
    println!("{:?}", store2.stats().segments);
}
