//! The bound on the memory of buffers, and the sizes that follow the data.

use std::sync::Arc;

use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{Durability, Maintenance, Store};
use test_support::DIRECTORY;

const MIB: u64 = 1 << 20;

/// Segments that cannot be sealed stay in memory.
#[test]
fn segments_that_wait_for_the_device_take_no_more_than_the_buffers() {
    for (segment_bytes, buffer_bytes) in [(64 << 10, 256 << 10), (64 << 10, 512 << 10), (1 << 20, 128 << 10)] {
        let faults = FaultStorage::new(Arc::new(MemStorage::new()));
        let store = Store::options()
            .segment_bytes(segment_bytes)
            .buffer_bytes(buffer_bytes)
            .durability(Durability::Os)
            .maintenance(Maintenance::Manual)
            .storage(Arc::new(faults.clone()))
            .open(DIRECTORY)
            .unwrap();
        let namespace = store.namespace("N").unwrap();
        // No segment can be sealed, and each put tries again.
        let refused = Fault::new(FaultKind::Error(std::io::ErrorKind::PermissionDenied));
        faults.inject(refused.on(Operation::Map).repeated());
        let (mut most, mut written) = (0, 0);
        for n in 0..20_000 {
            if namespace.put(format!("{n}"), [1; 100]).is_err() {
                break;
            }
            written = n;
            most = most.max(store.stats().buffer_bytes);
        }
        assert!(most <= buffer_bytes, "{most} bytes of {buffer_bytes}");
        assert!(most > buffer_bytes / 3, "{most} bytes of {buffer_bytes}");
        assert!(written < 19_999, "every segment was sealed");
        // Nothing is lost, and it goes on.
        faults.clear();
        for n in 0..=written {
            assert!(namespace.get(format!("{n}")).unwrap().is_some());
        }
        namespace.put("more", "1").unwrap();
        store.maintain().unwrap();
        assert!(store.stats().buffer_bytes <= store.stats().space.segment_bytes);
    }
}

/// A disk that is too small for the usual reserve: it and the segments are smaller.
#[test]
fn a_store_on_a_small_disk_keeps_most_of_it_for_data() {
    for (capacity, segment_bytes, data_bytes) in [(8 * MIB, 4 * MIB, 2 * MIB), (2 * MIB, MIB, 600 << 10)] {
        let disk = MemStorage::new();
        disk.set_capacity(Some(capacity));
        let open = || {
            Store::options()
                .durability(Durability::Os)
                .maintenance(Maintenance::Manual)
                .storage(Arc::new(disk.clone()))
                .open(DIRECTORY)
                .unwrap()
        };
        let store = open();
        assert_eq!(store.stats().space.segment_bytes, segment_bytes);
        let namespace = store.namespace("N").unwrap();
        for n in 0..data_bytes / 1100 {
            namespace.put(format!("{n}"), [1; 1000]).unwrap();
        }
        // Until it is full; then half of it is deleted.
        let fitted = (0..).find(|n| namespace.put(format!("more {n}"), [1; 1000]).is_err());
        for n in (0..fitted.unwrap()).step_by(2) {
            namespace.delete(format!("more {n}")).unwrap();
        }
        store.maintain().unwrap();
        store.compact_if_worthwhile().unwrap();
        namespace.put("again", [1; 1000]).unwrap();
        store.close().unwrap();
        let store = open();
        assert_eq!(store.stats().background_error, None);
        let namespace = store.namespace("N").unwrap();
        assert!(namespace.get("again").unwrap().is_some());
    }
}

#[test]
fn a_small_store_has_small_segments_and_they_grow_with_the_data() {
    let disk = MemStorage::new();
    let store = Store::options()
        .durability(Durability::Buffered)
        .maintenance(Maintenance::Manual)
        .storage(Arc::new(disk.clone()))
        .open(DIRECTORY)
        .unwrap();
    let space = store.stats().space;
    assert_eq!((space.segment_bytes, space.reserve_bytes), (8 * MIB, 10 * MIB));
    let namespace = store.namespace("N").unwrap();
    let value = vec![1; 1 << 20];
    for n in 0..300 {
        namespace.put(format!("{n}"), &value).unwrap();
    }
    let space = store.stats().space;
    assert_eq!((space.segment_bytes, space.reserve_bytes), (12 * MIB, 15 * MIB));
    let reserve = disk.read_file(format!("{DIRECTORY}/RESERVE")).unwrap();
    assert_eq!(reserve.len() as u64, 15 * MIB);
    for n in 0..300 {
        namespace.delete(format!("{n}")).unwrap();
    }
    store.compact().unwrap();
    for n in 0..10 {
        namespace.put(format!("{n}"), &value).unwrap();
    }
    store.maintain().unwrap();
    assert_eq!(store.stats().space.segment_bytes, 8 * MIB);
    let reserve = disk.read_file(format!("{DIRECTORY}/RESERVE")).unwrap();
    assert_eq!(reserve.len() as u64, 10 * MIB);
}
