//! The bodies of the fuzz targets of the command: one function for each kind of input, as in the library's `src/fuzzing`. Those of exported
//! and imported files are in `transfer`. As ordinary tests they run over the corpus and past findings.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "to panic is how a target tells what it found"
)]

mod bulk;
#[path = "../../fuzzing/input.rs"]
pub(crate) mod input;
#[path = "../../fuzzing/json.rs"]
pub(crate) mod json;
#[cfg(test)]
#[path = "../../fuzzing/replay.rs"]
pub(crate) mod replay;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::sync::Arc;

use embercask::storage::MemStorage;
use embercask::{Maintenance, ManualClock, PutOptions, Store};

use super::failure::{Failure, status};

#[allow(unused_imports, reason = "the library gives them to the fuzzer")]
pub use super::transfer::fuzzing::{export_resume, import_lines, import_resume};
pub use bulk::bulk_array;
pub use text::key_text;

/// The store's time, in all of these targets.
pub(crate) const NOW_MS: u64 = 1_700_000_000_000;

/// A value with what belongs to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) value: Vec<u8>,
    pub(crate) expiry_ms: Option<u64>,
    pub(crate) metadata: Option<Vec<u8>>,
}

impl Kept {
    /// Whether a store takes it under this key.
    pub(crate) fn is_good(&self, key: &[u8]) -> bool {
        (1..=1 << 16).contains(&key.len())
            && self.metadata.as_ref().is_none_or(|metadata| metadata.len() <= 1 << 16)
            && self.expiry_ms.is_none_or(|expiry| expiry > NOW_MS)
    }

    pub(crate) fn options(&self) -> PutOptions {
        let mut options = PutOptions::new();
        if let Some(expiry) = self.expiry_ms {
            options = options.expires_at_ms(expiry);
        }
        match &self.metadata {
            Some(metadata) => options.metadata(metadata.clone()),
            None => options,
        }
    }
}

pub(crate) type Keys = BTreeMap<Vec<u8>, Kept>;

pub(crate) fn open(disk: &MemStorage) -> Store {
    Store::options()
        .segment_bytes(1 << 20)
        .maintenance(Maintenance::Manual)
        .clock(ManualClock::new(NOW_MS))
        .storage(Arc::new(disk.clone()))
        .open("/store")
        .unwrap()
}

/// All that a store holds, by the names of its namespaces.
pub(crate) fn content(store: &Store) -> BTreeMap<String, Keys> {
    let keys = |name: &str| {
        let mut keys = Keys::new();
        for entry in store.open_namespace(name).unwrap().list().with_values() {
            let entry = entry.unwrap();
            let kept = Kept {
                value: entry.value().unwrap().to_vec(),
                expiry_ms: entry.expiry_ms(),
                metadata: entry.metadata().map(<[u8]>::to_vec),
            };
            keys.insert(entry.key().to_vec(), kept);
        }
        keys
    };
    let all = store.namespaces().unwrap().into_iter();
    all.map(|info| (info.name.clone(), keys(&info.name))).collect()
}

/// Gives out a few bytes at a time, and fails at some place.
pub(crate) struct Dribble {
    bytes: Vec<u8>,
    at: usize,
    step: usize,
    fails_at: Option<usize>,
}

impl Dribble {
    /// Steps of 1 to 256 bytes.
    pub(crate) fn new(bytes: &[u8], step: u8, fails_at: Option<usize>) -> BufReader<Dribble> {
        let step = usize::from(step) + 1;
        let dribble = Dribble {
            bytes: bytes.to_vec(),
            at: 0,
            step,
            fails_at,
        };
        BufReader::with_capacity(step, dribble)
    }
}

impl Read for Dribble {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let end = self.fails_at.unwrap_or(usize::MAX).min(self.bytes.len());
        if self.at >= end && self.fails_at.is_some_and(|fails_at| fails_at < self.bytes.len()) {
            return Err(io::Error::other("the fuzzer ends it here"));
        }
        let length = self.step.min(buffer.len()).min(end - self.at);
        buffer[..length].copy_from_slice(&self.bytes[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

/// What a failure says, which is that the input is wrong.
pub(crate) fn told(failure: &Failure) -> &str {
    match failure {
        Failure::Told { message, status, .. } if *status == status::USAGE => message,
        failure => panic!("the input is wrong, not {failure:?}"),
    }
}
