//! Even if writers are faster than the device, sealing ends, and the number of segments waiting for
//! it is bounded.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says where")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use embercask::storage::{MemStorage, Operation, Storage};
use embercask::{Durability, Namespace, Store};
use test_support::hooked::Hooked;
use test_support::{DIRECTORY, StopOnDrop, manual, until};

fn store(storage: Arc<dyn Storage>) -> Store {
    manual(storage)
        .durability(Durability::Buffered)
        .open(DIRECTORY)
        .unwrap()
}

#[test]
fn full_segments_do_not_pile_up_in_memory_when_nobody_else_seals_them() {
    let store = store(Arc::new(MemStorage::new()));
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

/// While each segment is sealed another one fills up: the call seals those that were full before
/// it, and no others.
#[test]
fn sealing_ends_although_writers_go_on() {
    const WRITES_MAX: u64 = 20;
    let writer = Arc::new(Mutex::new(None::<Namespace>));
    let (hook_writer, sealed) = (writer.clone(), Arc::new(AtomicU64::new(0)));
    let hook_sealed = sealed.clone();
    let hook = move |operation: Operation, path: &Path| {
        // Each sealed segment gets a hint.
        if operation == Operation::Create && path.extension().is_some_and(|end| end == "hint") {
            let number = hook_sealed.fetch_add(1, Ordering::SeqCst);
            let writer = hook_writer.lock().unwrap().clone();
            if let Some(namespace) = writer.filter(|_| number < WRITES_MAX) {
                namespace.put(format!("meanwhile {number}"), [0; 3_900]).unwrap();
            }
        }
        Ok(())
    };
    let store = store(Hooked::over(&MemStorage::new(), hook));
    let namespace = store.namespace("N").unwrap();
    for n in 0..3 {
        namespace.put(format!("before {n}"), [0; 3_900]).unwrap();
    }
    let unsealed = || store.stats().segments.iter().filter(|segment| !segment.sealed).count();
    // Including the active one.
    assert_eq!((unsealed(), sealed.load(Ordering::SeqCst)), (4, 0));
    *writer.lock().unwrap() = Some(namespace.clone());
    for round in 1..4 {
        store.maintain().unwrap();
        assert_eq!(sealed.load(Ordering::SeqCst), 3 * round, "number of segments sealed");
        assert_eq!(unsealed(), 4);
    }
    *writer.lock().unwrap() = None;
    store.compact().unwrap();
    assert_eq!(namespace.count().unwrap(), 3 + 3 * 3);
}

/// The same with threads that write as fast as they can.
#[test]
fn what_was_full_is_sealed_although_writers_go_on() {
    let store = store(Arc::new(MemStorage::new()));
    let namespace = store.namespace("N").unwrap();
    let stop = AtomicBool::new(false);
    // Not during a compaction by hand, which considers everything written meanwhile and would never
    // end.
    let writing = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    if writing.load(Ordering::Relaxed) {
                        namespace.put("key", [0; 2000]).unwrap();
                    } else {
                        std::thread::yield_now();
                    }
                }
            });
        }
        for round in 0..5 {
            // All but the newest are full. The log creates none with a lower id meanwhile, and
            // outputs of compaction are sealed.
            let unsealed = || store.stats().segments.into_iter().filter(|segment| !segment.sealed);
            until("segments become full", || unsealed().count() > 2);
            let newest = unsealed().map(|segment| segment.id).max().unwrap();
            store.maintain().unwrap();
            assert!(unsealed().all(|segment| segment.id >= newest), "round {round}");
            writing.store(false, Ordering::Relaxed);
            store.compact().unwrap();
            writing.store(true, Ordering::Relaxed);
        }
    });
}
