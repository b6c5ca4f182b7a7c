//! Writers may be faster than the device: sealing ends all the same, and what waits for it is bounded.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says where")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::StopOnDrop;
use embercask::storage::MemStorage;
use embercask::{Durability, Maintenance, Store};

fn store(disk: &MemStorage) -> Store {
    let options = Store::options().segment_bytes(4096).durability(Durability::Buffered);
    options
        .maintenance(Maintenance::Manual)
        .storage(Arc::new(disk.clone()))
        .open("/store")
        .unwrap()
}

#[test]
fn full_segments_do_not_pile_up_in_memory_when_nobody_else_seals_them() {
    let disk = MemStorage::new();
    let store = store(&disk);
    let namespace = store.namespace("N").unwrap();
    for n in 0..2000 {
        namespace.put(format!("key-{n}"), [0; 100]).unwrap();
        assert!(
            store.stats().buffer_bytes < 8 * 4096,
            "after {n}: {}",
            store.stats().buffer_bytes
        );
    }
    assert_eq!(namespace.count().unwrap(), 2000);
}

#[test]
fn sealing_ends_although_writers_go_on() {
    let disk = MemStorage::new();
    let store = store(&disk);
    let namespace = store.namespace("N").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    namespace.put("key", [0; 2000]).unwrap();
                }
            });
        }
        for _ in 0..5 {
            store.maintain().unwrap();
            store.compact().unwrap();
        }
    });
}
