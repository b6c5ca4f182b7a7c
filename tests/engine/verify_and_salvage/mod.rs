//! All damage is found, and everything undamaged is recovered.

mod beside_a_writer;
mod closed;
mod salvage_of_content;
mod salvage_of_damage;
mod verify;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use embercask::storage::{MemStorage, Storage};
use embercask::{Durability, ManualClock, Options, PutOptions, SalvageReport, Store, salvage};

use test_support::manual;

const NOW: u64 = 1_700_000_000_000;

/// (namespace, key) to (value, metadata, expiry).
type Contents = BTreeMap<(String, Vec<u8>), (Vec<u8>, Option<Vec<u8>>, Option<u64>)>;

fn options(disk: &MemStorage) -> Options {
    over(Arc::new(disk.clone()))
}

fn over(storage: Arc<dyn Storage>) -> Options {
    manual(storage).durability(Durability::Os).clock(ManualClock::new(NOW))
}

fn contents(store: &Store) -> Contents {
    let mut contents = Contents::new();
    for info in store.namespaces().unwrap() {
        let namespace = store.open_namespace(&info.name).unwrap();
        for entry in namespace.list() {
            let entry = entry.unwrap();
            let value = namespace.get(entry.key()).unwrap().unwrap();
            let found = (value.to_vec(), value.metadata().map(<[u8]>::to_vec), value.expiry_ms());
            contents.insert((info.name.clone(), entry.key().to_vec()), found);
        }
    }
    contents
}

/// A closed store with a bit of everything in one segment; returns its content.
fn small_store(options: Options) -> Contents {
    let store = options.open("/store").unwrap();
    let (first, second) = (store.namespace("FIRST").unwrap(), store.namespace("SECOND").unwrap());
    first.put("plain", "a value").unwrap();
    first
        .put_with(
            "rich",
            "r",
            PutOptions::new().metadata("{\"m\":1}").expires_at_ms(NOW + 60_000),
        )
        .unwrap();
    first.put("overwritten", "old").unwrap();
    first.put("overwritten", "new").unwrap();
    first.put("deleted", "gone").unwrap();
    first.delete("deleted").unwrap();
    store
        .batch()
        .put(&first, "b1", "1")
        .put(&second, "b2", "22")
        .delete(&second, "none")
        .commit()
        .unwrap();
    second.put("empty", "").unwrap();
    let contents = contents(&store);
    drop((first, second));
    store.close().unwrap();
    contents
}

/// Several segments of plain keys; returns their content.
fn large_store(options: Options, directory: impl AsRef<Path>) -> Contents {
    let store = options.open(directory).unwrap();
    let namespace = store.namespace("N").unwrap();
    for n in 0..300 {
        let put = PutOptions::new().metadata(format!("meta {n}"));
        let put = if n % 3 == 0 {
            put.expires_at_ms(NOW + 1_000_000 + n)
        } else {
            put
        };
        namespace
            .put_with(format!("key-{n:04}"), format!("value of {n}, and some more"), put)
            .unwrap();
    }
    let contents = contents(&store);
    drop(namespace);
    store.close().unwrap();
    contents
}

/// The offset of these bytes in a file.
fn find(disk: &MemStorage, path: &Path, bytes: &[u8]) -> u64 {
    let content = disk.read_file(path).unwrap();
    content.windows(bytes.len()).position(|window| window == bytes).unwrap() as u64
}

fn salvaged(disk: &MemStorage) -> (SalvageReport, Contents) {
    let report = salvage("/store", "/out", options(disk)).unwrap();
    let store = options(disk).create(false).open("/out").unwrap();
    assert!(store.verify().unwrap().is_sound());
    let contents = contents(&store);
    assert_eq!(contents.len() as u64, report.keys);
    (report, contents)
}
