//! Bytes that change on disk while the store is open.
use std::sync::Arc;

use embercask::storage::MemStorage;
use embercask::{Condition, ErrorKind, Maintenance, Namespace, ReadMode, Result, Store};

fn open(disk: &MemStorage) -> (Store, Namespace) {
    let store = Store::options()
        .segment_bytes(4096)
        .maintenance(Maintenance::Manual)
        .read_mode(ReadMode::Pread)
        .storage(Arc::new(disk.clone()))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    (store, namespace)
}

#[test]
fn a_damaged_key_is_reported_not_taken_for_absent() {
    let disk = MemStorage::new();
    let (_store, namespace) = open(&disk);
    namespace.put("a key to be found", "value").unwrap();
    // Enough to seal the first segment, so that it is read from the disk.
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
        namespace
            .put_if("a key to be found", "new", Condition::Absent)
            .unwrap_err()
            .kind(),
        ErrorKind::Corruption
    );
    assert!(namespace.get("other 0").unwrap().is_some());
    assert!(namespace.get("never put").unwrap().is_none());
}

/// C15: damage anywhere in a record costs only that record. It can be overwritten and deleted, and
/// then no trace of it is left in the index or the counters, nor after reopening.
#[test]
fn a_damaged_record_can_be_overwritten_and_deleted() {
    const KEY: &str = "a key to be found";
    type Write = fn(&Store, &Namespace) -> Result<()>;
    let writes: [(&str, Write, Option<&str>); 4] = [
        ("put", |_, n| n.put(KEY, "new").map(drop), Some("new")),
        (
            "delete",
            |_, n| n.delete(KEY).map(|deleted| assert!(deleted.existed)),
            None,
        ),
        (
            "batch with a put",
            |s, n| {
                s.batch()
                    .put(n, KEY, "lost")
                    .put(n, "more", "1")
                    .put(n, KEY, "new")
                    .commit()
                    .map(drop)
            },
            Some("new"),
        ),
        (
            "batch with a delete",
            |s, n| s.batch().put(n, KEY, "lost").delete(n, KEY).commit().map(drop),
            None,
        ),
    ];
    // In the record: its checksum, kind, length of the value, sequence; then key and value.
    for at in [-24, -16, -12, -4, 3, 20] {
        for (name, write, expected) in writes {
            let context = format!("{name}, byte {at}");
            let disk = MemStorage::new();
            let (store, namespace) = open(&disk);
            namespace.put(KEY, "value ".repeat(100)).unwrap();
            for n in 0..50 {
                namespace.put(format!("other {n}"), [7; 200]).unwrap();
            }
            let path = "/store/0000000000000001.segment";
            let bytes = disk.read_file(path).unwrap();
            let key_at = bytes
                .windows(KEY.len())
                .position(|window| window == KEY.as_bytes())
                .unwrap();
            disk.flip_bit(path, (key_at as i64 + at) as u64 * 8).unwrap();
            assert_eq!(
                namespace.get(KEY).unwrap_err().kind(),
                ErrorKind::Corruption,
                "{context}"
            );
            if at < 20 {
                // The current value is unknown.
                for condition in [Condition::Absent, Condition::Present, Condition::Sequence(2)] {
                    let refused = namespace.put_if(KEY, "new", condition).unwrap_err();
                    assert_eq!(refused.kind(), ErrorKind::Corruption, "{context}");
                }
            }
            let live = || store.stats().segments[0].live_records;
            let before = live();
            write(&store, &namespace).unwrap();
            assert_eq!(live(), before - 1, "{context}");
            let check = |namespace: &Namespace| {
                assert_eq!(namespace.get_text(KEY).unwrap().as_deref(), expected, "{context}");
                assert_eq!(namespace.contains(KEY).unwrap(), expected.is_some(), "{context}");
                let listed = namespace.list().prefix("a ").with_values().page().unwrap();
                assert_eq!(listed.len(), usize::from(expected.is_some()), "{context}");
                for n in 0..50 {
                    assert!(namespace.get(format!("other {n}")).unwrap().is_some(), "{context}");
                }
            };
            check(&namespace);
            // Verify finds the damage, and no miscount.
            let report = store.verify().unwrap();
            assert!(!report.damaged.is_empty(), "{context}");
            assert!(
                report.damaged.iter().all(|damaged| !damaged.cause.contains("count")),
                "{report:?}"
            );
            // With no live records left in the segment, no bytes are counted as live either.
            for n in 0..50 {
                namespace.put(format!("other {n}"), [8; 200]).unwrap();
            }
            store.rename_namespace("N", "M").unwrap();
            store.rename_namespace("M", "N").unwrap();
            let first = &store.stats().segments[0];
            assert_eq!((first.live_records, first.live_bytes), (0, 0), "{context}");
            drop(namespace);
            store.close().unwrap();
            let (store, namespace) = open(&disk);
            assert!(store.recovery_report().index_file_used, "{context}");
            check(&namespace);
        }
    }
}
