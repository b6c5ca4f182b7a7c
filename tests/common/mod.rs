//! What several of the integration tests need: the options of a store that does nothing by itself, what it shows, its files, and a
//! seeded generator that prints its seed.
#![allow(dead_code, reason = "each test file uses its own part of this")]

pub(crate) mod way;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use embercask::storage::{MemStorage, Storage};
#[allow(unused_imports, reason = "each test file uses its own part of this")]
pub(crate) use embercask::testing::until;
use embercask::{Durability, Error, Maintenance, Namespace, Options, PutOptions, Store};

/// Where the stores of these tests lie on a simulated disk.
pub(crate) const DIRECTORY: &str = "/store";

/// Small segments, so that rotating, sealing and compacting happen all the time; no thread that nobody asked for.
pub(crate) fn manual(storage: Arc<dyn Storage>) -> Options {
    Store::options()
        .segment_bytes(4096)
        .maintenance(Maintenance::Manual)
        .storage(storage)
}

/// Opens, or creates, the store on this disk.
#[track_caller]
pub(crate) fn open(disk: &MemStorage) -> Store {
    manual(Arc::new(disk.clone())).open(DIRECTORY).unwrap()
}

pub(crate) fn class(durability: Durability) -> PutOptions {
    PutOptions::new().durability(durability)
}

/// The value of a key as text; what an error says if there is one.
#[track_caller]
pub(crate) fn text(namespace: &Namespace, key: &str) -> Option<String> {
    namespace.get_text(key).unwrap()
}

/// All keys, in the order of the listing.
#[track_caller]
pub(crate) fn keys(namespace: &Namespace) -> Vec<String> {
    namespace
        .list()
        .limit(7)
        .into_iter()
        .map(|entry| entry.unwrap().key_str().unwrap().to_owned())
        .collect()
}

/// Names of the files in a store's directory on a real disk, sorted.
pub(crate) fn file_names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Files of the store on this disk whose names end so, sorted.
pub(crate) fn ending(disk: &MemStorage, end: &str) -> Vec<PathBuf> {
    disk.files(DIRECTORY)
        .into_iter()
        .filter(|path| path.to_string_lossy().ends_with(end))
        .collect()
}

/// The error names a file on this disk, and an offset in it.
#[track_caller]
pub(crate) fn is_corruption(error: &Error, disk: &MemStorage, context: &str) {
    let Error::Corruption { path, offset, .. } = error else {
        panic!("{context}: {error:?}")
    };
    let length = disk.read_file(path).map_or(0, |bytes| bytes.len() as u64);
    assert!(*offset <= length, "{context}: {error}");
    let says = format!("{} at offset {offset}", path.display());
    assert!(error.to_string().ends_with(&says), "{context}: {error}");
}

/// Says that a test, or a part of one, cannot be run on this machine. With `EMBERCASK_SKIPS` it says so in that file as well:
/// `.ci/run` counts what is in it, and knows what may be.
pub(crate) fn skip(what: &str, why: &str) {
    println!("{what}: skipped, {why}");
    if let Some(path) = std::env::var_os("EMBERCASK_SKIPS") {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        // In one write, since other tests do the same.
        file.write_all(format!("{what}: {}\n", why.replace('\n', " ")).as_bytes())
            .unwrap();
    }
}

/// That a suite has visited what it is there for. `least` is well below what it ordinarily visits.
#[track_caller]
pub(crate) fn at_least(least: u64, visited: u64, what: &str) {
    assert!(visited >= least, "{visited} {what}, of {least} at least");
}

/// Ends the threads of a test that fails, so that it fails and does not hang.
pub(crate) struct StopOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// SplitMix64: small, and the same everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Another generator, for another thread.
    pub(crate) fn split(&mut self) -> Rng {
        Rng(self.next())
    }
}

/// One number that stands for all of these, in this order.
pub(crate) fn mix(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0, |mixed, number| Rng(mixed ^ number).next())
}

/// The generator of a test. Its seed is printed, which a failing test shows; `EMBERCASK_SEED` replays it.
pub(crate) fn rng() -> Rng {
    let seed = match std::env::var("EMBERCASK_SEED") {
        Ok(seed) => seed.parse().expect("EMBERCASK_SEED is a number"),
        Err(_) => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |since| since.as_nanos() as u64),
    };
    println!("replay with EMBERCASK_SEED={seed}");
    Rng::new(seed)
}
