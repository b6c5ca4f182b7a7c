//! Stores in memory.

use std::collections::BTreeMap;
use std::path::Path;

use embercask::{Durability, Error, ErrorKind, Maintenance, Options, PutOptions, ReadMode, Store};

use test_support::{class, keys, rng, text};

fn small() -> Options {
    Store::options().segment_bytes(4096).maintenance(Maintenance::Manual)
}

#[test]
fn a_store_in_memory_does_what_one_on_disk_does() {
    let mut rng = rng();
    for read_mode in [ReadMode::Map, ReadMode::Pread] {
        let store = small().read_mode(read_mode).open_in_memory().unwrap();
        let namespace = store.namespace("N").unwrap();
        let mut model = BTreeMap::new();
        for round in 0..2_000 {
            let key = format!("{:02}", rng.below(50));
            let value = "v".repeat(rng.below(300) as usize);
            match rng.below(10) {
                0..6 => {
                    namespace.put(&key, &value).unwrap();
                    model.insert(key, value);
                }
                6 | 7 => assert_eq!(namespace.delete(&key).unwrap().existed, model.remove(&key).is_some()),
                8 => {
                    store
                        .batch()
                        .put(&namespace, &key, &value)
                        .delete(&namespace, "00")
                        .commit()
                        .unwrap();
                    model.insert(key, value);
                    model.remove("00");
                }
                _ => assert_eq!(text(&namespace, &key), model.get(&key).cloned()),
            }
            if round % 100 == 99 {
                store.maintain().unwrap();
                store.compact().unwrap();
                assert_eq!(keys(&namespace), model.keys().cloned().collect::<Vec<_>>());
                for (key, value) in &model {
                    assert_eq!(text(&namespace, key).as_ref(), Some(value));
                }
                let stats = store.stats();
                assert_eq!((stats.poisoned, stats.background_error), (None, None));
                let bound = stats.live_bytes + 4 * 4096 + stats.segments.len() as u64 * 4096;
                assert!(stats.space.used_bytes <= bound, "{} > {bound}", stats.space.used_bytes);
            }
        }
        assert!(store.verify().unwrap().damaged.is_empty());
        store.drop_namespace("N").unwrap();
        store.maintain().unwrap();
        store.compact().unwrap();
        assert!(store.stats().space.used_bytes < 4096, "{:?}", store.stats().space);
    }
}

#[test]
fn a_store_in_memory_has_no_files_syncs_nothing_and_is_gone_when_it_is_closed() {
    let store = Store::in_memory().unwrap();
    assert_eq!(store.directory(), Path::new("<memory>"));
    let namespace = store.namespace("N").unwrap();
    let syncs = store.stats().syncs;
    for n in 0..100 {
        namespace
            .put_with(n.to_string(), "value", class(Durability::Sync))
            .unwrap();
    }
    store
        .batch()
        .durability(Durability::Os)
        .put(&namespace, "key", "value")
        .commit()
        .unwrap();
    assert_eq!(store.stats().syncs, syncs);
    let refused = store.checkpoint("/somewhere").unwrap_err();
    assert!(refused.to_string().contains("export its keys"), "{refused}");
    store.sync().unwrap();

    // Others are other stores, also while it is open.
    let other = Store::options().open_in_memory().unwrap();
    assert_ne!(store.id(), other.id());
    assert!(matches!(
        other.open_namespace("N"),
        Err(Error::NamespaceNotFound { .. })
    ));
    let value = namespace.get("key").unwrap().unwrap();
    store.close().unwrap();
    assert_eq!(namespace.get("key").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(value, "value");
    assert!(Store::in_memory().unwrap().namespaces().unwrap().is_empty());
    assert!(!Path::new("<memory>").exists(), "files in the working directory");
}

#[test]
fn a_store_in_memory_keeps_to_its_limit() {
    let store = small().max_disk_bytes(Some(1 << 20)).open_in_memory().unwrap();
    let namespace = store.namespace("N").unwrap();
    let refused = (0..2_000).find_map(|n| namespace.put(format!("{n:04}"), [7; 1000]).err());
    assert!(matches!(refused, Some(Error::LimitReached { .. })), "{refused:?}");
    assert!(store.stats().space.used_bytes <= 1 << 20);
    let count = namespace.count().unwrap();
    assert!(count > 500, "{count}");
    namespace.delete_prefix("00").run().unwrap();
    store.maintain().unwrap();
    store.compact().unwrap();
    namespace.put_with("new", "value", PutOptions::new()).unwrap();
}
