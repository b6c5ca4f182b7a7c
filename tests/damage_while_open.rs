//! Bytes that change on the disk while the store is open.
use std::sync::Arc;

use embercask::storage::MemStorage;
use embercask::{ErrorKind, Maintenance, ReadMode, Store};

#[test]
fn a_damaged_key_is_reported_not_taken_for_absent() {
    let disk = MemStorage::new();
    let store = Store::options()
        .segment_bytes(4096)
        .maintenance(Maintenance::Manual)
        .read_mode(ReadMode::Pread)
        .storage(Arc::new(disk.clone()))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("a key to be found", "value").unwrap();
    // Enough to have the first segment sealed, so that it is read from the disk.
    for n in 0..50 {
        namespace.put(format!("other {n}"), [7; 200]).unwrap();
    }
    let path = "/store/0000000000000001.segment";
    let bytes = disk.read_file(path).unwrap();
    let at = bytes
        .windows(17)
        .position(|window| window == b"a key to be found")
        .unwrap();
    disk.flip_bit(path, at as u64 * 8 + 3).unwrap();
    assert_eq!(
        namespace.get("a key to be found").unwrap_err().kind(),
        ErrorKind::Corruption
    );
    assert_eq!(
        namespace.contains("a key to be found").unwrap_err().kind(),
        ErrorKind::Corruption
    );
    assert_eq!(
        namespace.put("a key to be found", "new").unwrap_err().kind(),
        ErrorKind::Corruption
    );
    assert!(namespace.get("other 0").unwrap().is_some());
    assert!(namespace.get("never put").unwrap().is_none());
}
