//! A value is what was put, even if it is empty or long deleted.

use std::sync::Arc;

use embercask::storage::MemStorage;
use embercask::{PutOptions, ReadMode, Store};

use test_support::{DIRECTORY, ending, keys, manual, open, text};

/// B28.
#[test]
fn a_value_stays_what_it_was_whatever_becomes_of_its_key() {
    for read_mode in [ReadMode::Map, ReadMode::Pread] {
        let disk = MemStorage::new();
        let store = manual(Arc::new(disk.clone()))
            .read_mode(read_mode)
            .open(DIRECTORY)
            .unwrap();
        let namespace = store.namespace("N").unwrap();
        let mut held = Vec::new();
        for n in 0..60u8 {
            let key = format!("{}", n % 3);
            namespace
                .put_with(&key, [n; 400], PutOptions::new().metadata([n; 10]))
                .unwrap();
            held.push((n, namespace.get(&key).unwrap().unwrap()));
            let listed = namespace.list().with_values().page().unwrap();
            held.push((
                n,
                listed
                    .iter()
                    .find(|entry| entry.key_str().unwrap() == key)
                    .unwrap()
                    .value()
                    .unwrap()
                    .clone(),
            ));
            if n % 16 == 15 {
                store.compact().unwrap();
            }
        }
        let check = |when: &str| {
            for (n, value) in &held {
                assert_eq!(value.as_bytes(), [*n; 400], "{when}");
                assert_eq!(value.metadata(), Some(&[*n; 10][..]), "{when}");
            }
        };
        check("overwritten and compacted");
        store.drop_namespace("N").unwrap();
        store.compact().unwrap();
        check("dropped");
        store.clone().close().unwrap();
        check("closed");
        drop((store, namespace));
        for path in ending(&disk, "") {
            disk.remove_file(path).unwrap();
        }
        check("removed");
    }
}

/// B32.
#[test]
fn an_empty_value_is_a_value() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    namespace.put("empty", "").unwrap();
    namespace
        .put_with("with metadata", "", PutOptions::new().metadata("m"))
        .unwrap();
    namespace
        .put_with("empty metadata", "", PutOptions::new().metadata(""))
        .unwrap();
    namespace.put("bitcask_tombstone", "bitcask_tombstone").unwrap();
    namespace.put("zeros", [0; 64]).unwrap();
    namespace.put("overwritten", "1").unwrap();
    namespace.put("overwritten", "").unwrap();
    let check = |store: &Store| {
        let namespace = store.open_namespace("N").unwrap();
        let expected = [
            "bitcask_tombstone",
            "empty",
            "empty metadata",
            "overwritten",
            "with metadata",
            "zeros",
        ];
        assert_eq!(keys(&namespace), expected);
        assert_eq!(text(&namespace, "empty").as_deref(), Some(""));
        assert_eq!(text(&namespace, "overwritten").as_deref(), Some(""));
        assert_eq!(namespace.get("empty").unwrap().unwrap().metadata(), None);
        assert_eq!(
            namespace.get("empty metadata").unwrap().unwrap().metadata(),
            Some(&b""[..])
        );
        assert_eq!(
            namespace.get("with metadata").unwrap().unwrap().metadata(),
            Some(&b"m"[..])
        );
        assert_eq!(namespace.get("zeros").unwrap().unwrap(), [0; 64]);
        assert!(namespace.contains("empty").unwrap());
    };
    check(&store);
    check(&open(&disk.crash_process()));
    store.compact().unwrap();
    check(&store);
    store.close().unwrap();
    check(&open(&disk));
}
