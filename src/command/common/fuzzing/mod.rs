//! Shared by the bodies of the fuzz targets: a store on a simulated disk, its content, and a second
//! reader of JSON.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a fuzz target reports a finding by a panic"
)]

pub(crate) mod json;

use std::collections::BTreeMap;
use std::sync::Arc;

use embercask::storage::MemStorage;
use embercask::{Maintenance, ManualClock, PutOptions, Store};

use super::failure::{Failure, status};

/// The store's time, in all of these targets.
pub(crate) const NOW_MS: u64 = 1_700_000_000_000;

/// A value with its expiry and metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) value: Vec<u8>,
    pub(crate) expiry_ms: Option<u64>,
    pub(crate) metadata: Option<Vec<u8>>,
}

impl Kept {
    /// Whether a store accepts it under this key.
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

/// The content of a store, by namespace name.
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

/// The message of a failure, which must be one of wrong input.
pub(crate) fn told(failure: &Failure) -> &str {
    match failure {
        Failure::Told { message, status, .. } if *status == status::USAGE => message,
        failure => panic!("the input is wrong, not {failure:?}"),
    }
}
