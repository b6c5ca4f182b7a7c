//! The public interface does what it says: each function and option has a test that fails if it
//! does nothing. Those that no other suite tests are tested here.

mod callbacks;
mod command;
mod compaction;
mod creating;
mod default_ttl;
mod doubles;
mod idle;
mod in_memory;
mod interface;
mod keys;
mod lent;
mod listing;
#[cfg(feature = "log")]
mod logging;
mod ranges;
mod rate;
mod recovery_report;
mod reports;
mod sizes;
mod stores;
mod unreadable;
mod updates;
mod waste;

use std::sync::Arc;

use embercask::storage::{MemStorage, Storage};
use embercask::{Durability, Namespace, Options, PutOptions};

use test_support::{class, manual};

/// Room for this many values per segment in these tests, besides its header and the log's own
/// records.
const SEGMENT_BYTES: u64 = 16 << 10;
const VALUE_BYTES: usize = 1000;

fn small_segments(storage: Arc<dyn Storage>) -> Options {
    manual(storage).segment_bytes(SEGMENT_BYTES)
}

fn buffered() -> PutOptions {
    class(Durability::Buffered)
}

fn put(namespace: &Namespace, key: u64) {
    namespace
        .put_with(format!("{key:04}"), [7; VALUE_BYTES], buffered())
        .unwrap();
}

/// Puts this many values of this length, cycling through this many keys.
fn fill(namespace: &Namespace, puts: usize, keys: usize, bytes: usize) {
    for n in 0..puts {
        let key = format!("{}", n % keys);
        namespace.put_with(key, vec![7; bytes], buffered()).unwrap();
    }
}

/// 400 keys, some of them overwritten: 1.7 bytes on disk per live byte, which is above the default
/// ceiling of 1.6, and no segment without live records.
fn worth_a_run(namespace: &Namespace) {
    (0..400).for_each(|key| put(namespace, key));
    (0..400).step_by(2).for_each(|key| put(namespace, key));
    (1..400).step_by(4).for_each(|key| put(namespace, key));
}

/// Checks that all keys of [`worth_a_run`] exist.
#[track_caller]
fn intact(namespace: &Namespace) {
    let entries = namespace.list().with_values().into_iter();
    let keys = entries.map(|entry| {
        let entry = entry.unwrap();
        assert!(*entry.value().unwrap() == [7; VALUE_BYTES]);
        entry.key_str().unwrap().to_owned()
    });
    assert!(keys.eq((0..400).map(|key| format!("{key:04}"))));
}

/// Names and content of all segments.
fn segments(disk: &MemStorage) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let paths = test_support::ending(disk, ".segment").into_iter();
    paths
        .map(|path| (path.clone(), disk.read_file(path).unwrap()))
        .collect()
}
