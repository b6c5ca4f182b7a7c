//! A node's store on a simulated disk, which outlives it.

use std::sync::Arc;

use embercask::storage::{MemStorage, Storage};
use embercask::{Durability, Maintenance, Namespace, Store};
use embercask_replica::applier::{Applied, Applier, ApplyError, Verdict};
use embercask_replica::clock::LogClock;
use embercask_replica::content::{self, Content};
use embercask_replica::log::Delivery;
use embercask_replica::state::RESERVED_ID;

use super::CLUSTER;
use super::model::{Keys, etag};

const DIRECTORY: &str = "/store";

pub struct Node {
    pub disk: Arc<MemStorage>,
    applier: Option<Applier>,
}

impl Node {
    /// The seed of a cluster.
    pub fn new() -> Node {
        let disk = Arc::new(MemStorage::new());
        let store = open(disk.clone(), DIRECTORY, Durability::Os, LogClock::new()).unwrap();
        Applier::init(&store, CLUSTER).unwrap();
        store.close().unwrap();
        let mut node = Node { disk, applier: None };
        node.restart();
        node
    }

    /// A node that goes on with what is on this disk.
    pub fn on(disk: MemStorage) -> Node {
        let mut node = Node {
            disk: Arc::new(disk),
            applier: None,
        };
        node.restart();
        node
    }

    pub fn restart(&mut self) {
        drop(self.applier.take());
        self.applier = Some(start(self.disk.clone()).unwrap());
    }

    pub fn applier(&mut self) -> &mut Applier {
        self.applier.as_mut().unwrap()
    }

    pub fn position(&mut self) -> usize {
        usize::try_from(self.applier().state().position).unwrap()
    }

    /// Applies all of these.
    pub fn apply(&mut self, deliveries: &[Delivery]) -> Vec<Applied> {
        let progress = self.applier().apply(deliveries);
        assert!(progress.stopped.is_none(), "{:?}", progress.stopped);
        progress.applied
    }

    /// Its state and a digest of all that clients see.
    pub fn content(&mut self) -> Content {
        let log_ms = self.applier().state().log_ms();
        content::digest(self.applier().store(), log_ms).unwrap()
    }

    /// All that it holds about replication.
    pub fn held(&mut self) -> Keys {
        let store = self.applier().store();
        keys(&store.namespace_by_id(RESERVED_ID).unwrap().unwrap())
    }

    /// All that clients see: namespaces by id, with names, default lifetimes and keys.
    pub fn seen(&mut self) -> Vec<(u128, String, Option<u64>, Keys)> {
        let store = self.applier().store();
        let infos = store.namespaces().unwrap().into_iter();
        let infos = infos.filter(|info| info.id != RESERVED_ID);
        let mut all: Vec<_> = infos
            .map(|info| {
                let namespace = store.open_namespace(&info.name).unwrap();
                let ttl_ms = namespace.default_ttl().map(|ttl| ttl.as_millis() as u64);
                (info.id, info.name, ttl_ms, keys(&namespace))
            })
            .collect();
        all.sort_by_key(|(id, ..)| *id);
        all
    }
}

fn keys(namespace: &Namespace) -> Keys {
    let mut keys = Keys::new();
    let mut entries = namespace.list().with_values().walk();
    while let Some(entry) = entries.next().unwrap() {
        let value = entry.value().unwrap().to_vec();
        let metadata = entry.metadata().map(<[u8]>::to_vec);
        keys.insert(entry.key().to_vec(), (value, metadata, entry.expiry_ms()));
    }
    keys
}

fn open(storage: Arc<dyn Storage>, directory: &str, class: Durability, clock: LogClock) -> embercask::Result<Store> {
    Store::options()
        .maintenance(Maintenance::Manual)
        .durability(class)
        .segment_bytes(64 << 10)
        .clock(clock)
        .storage(storage)
        .open(directory)
}

pub fn start(storage: Arc<dyn Storage>) -> Result<Applier, ApplyError> {
    start_in(storage, DIRECTORY, Durability::Os)
}

/// So that it waits for the disk.
pub fn start_synced(storage: Arc<dyn Storage>) -> Result<Applier, ApplyError> {
    start_in(storage, DIRECTORY, Durability::Sync)
}

pub fn start_in(storage: Arc<dyn Storage>, directory: &str, class: Durability) -> Result<Applier, ApplyError> {
    let clock = LogClock::new();
    let store = open(storage, directory, class, clock.clone())?;
    Applier::open(store, clock, etag)
}

/// The same on all nodes: whether a beat agrees depends on what a node remembers.
pub fn alike(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Beat { .. } => Verdict::Beat { agrees: None },
        other => other,
    }
}
