//! Stores opened for reading only, beside a process that writes.

mod beside_a_writer;
mod files;
mod interface;
pub(crate) mod steps;

use std::sync::Arc;

use embercask::storage::{MemStorage, Storage};
use embercask::{Durability, Namespace, Options, Store};

use test_support::{DIRECTORY, class, manual};

fn reading(storage: Arc<dyn Storage>) -> Options {
    manual(storage).read_only(true)
}

/// Opens the store on this disk for reading only.
#[track_caller]
fn read(disk: &MemStorage) -> Store {
    reading(Arc::new(disk.clone())).open(DIRECTORY).unwrap()
}

/// Puts a value that survives the end of the process.
#[track_caller]
fn put(namespace: &Namespace, key: &str, value: &str) -> u64 {
    namespace.put_with(key, value, class(Durability::Os)).unwrap()
}

/// Names and content of all files of the store.
fn contents(disk: &MemStorage) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let files = disk.files(DIRECTORY).into_iter();
    files
        .map(|path| (path.clone(), disk.read_file(path).unwrap()))
        .collect()
}
