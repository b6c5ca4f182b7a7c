//! A damaged segment keeps its own space and that of the records it hides, but no other waste.

use std::sync::Arc;

use embercask::storage::MemStorage;
use embercask::{ErrorKind, Maintenance, ReadMode, Store};

/// Only the damaged record could tell whether the tombstone of "hidden" still counts, so the
/// tombstone is kept, and its segment is compacted.
#[test]
fn damage_in_one_segment_does_not_keep_others_from_being_compacted() {
    let disk = MemStorage::new();
    let store = Store::options()
        .segment_bytes(4096)
        .maintenance(Maintenance::Manual)
        .read_mode(ReadMode::Pread)
        .storage(Arc::new(disk.clone()))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    let fill = |name: &str| {
        for number in 0..30 {
            namespace.put(format!("{name} {number}"), [7; 100]).unwrap();
        }
    };
    namespace.put("hidden", "old").unwrap();
    namespace.delete("hidden").unwrap();
    fill("a");
    let needle = [9; 64];
    namespace.put("hidden", needle).unwrap();
    fill("b");
    fill("c");
    for number in 0..20 {
        namespace.put(format!("c {number}"), "overwritten").unwrap();
    }
    store.maintain().unwrap();
    let (path, bytes, value) = disk
        .files("/store")
        .into_iter()
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "segment"))
        .find_map(|path| {
            let bytes = disk.read_file(&path).unwrap();
            let value = bytes.windows(64).position(|window| window == needle)?;
            Some((path, bytes, value))
        })
        .unwrap();
    // The record's header: the key and 24 bytes precede the value.
    let header = value - "hidden".len() - 24;
    assert_eq!(bytes[header + 8], 1, "a put");
    disk.flip_bit(&path, (header as u64 + 12) * 8).unwrap();

    let dead = || {
        store
            .stats()
            .segments
            .iter()
            .map(|segment| segment.dead_bytes)
            .sum::<u64>()
    };
    let before = dead();
    // The damaged segment has nothing to reclaim, so it is not even read, and the other segments do
    // not query it in vain.
    store.compact().unwrap();
    assert!(dead() < before / 10, "{before} {}", dead());
    assert_eq!(namespace.get("hidden").unwrap_err().kind(), ErrorKind::Corruption);
}
