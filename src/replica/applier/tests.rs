mod audit;
mod extremes;
mod time;
mod trouble;
mod uploads;

use std::sync::Arc;

use bytes::Bytes;
use embercask::storage::{MemStorage, Storage};
use embercask::{Limits, Maintenance, Options, Store};

use super::*;
use crate::entry::{Conditions, Header, Lifetime, Operation, Tags};

const CLUSTER: u128 = 7;
const NAMESPACE: u128 = 11;
const START_MS: u64 = 1_800_000_000_000;

/// A tag that is easily said: a value's length, with that of its metadata.
fn etag(value: &[u8], metadata: Option<&[u8]>, expiry_ms: Option<u64>) -> u128 {
    let metadata = metadata.map_or(0, |metadata| metadata.len() + 1);
    (value.len() * 1000 + metadata) as u128 + (u128::from(expiry_ms.unwrap_or(0)) << 64)
}

/// A node's store, on a disk that outlives it.
struct Node {
    disk: Arc<MemStorage>,
    applier: Option<Applier>,
}

impl Node {
    fn new() -> Node {
        let disk = Arc::new(MemStorage::new());
        let store = open(disk.clone(), LogClock::new());
        Applier::init(&store, CLUSTER).unwrap();
        drop(store);
        let mut node = Node { disk, applier: None };
        node.restart();
        node
    }

    fn restart(&mut self) {
        self.restart_on(self.disk.clone());
    }

    /// With the same disk behind this storage.
    fn restart_on(&mut self, storage: Arc<dyn Storage>) {
        drop(self.applier.take());
        let clock = LogClock::new();
        let store = open(storage, clock.clone());
        self.applier = Some(Applier::open(store, clock, etag).unwrap());
    }

    fn applier(&mut self) -> &mut Applier {
        self.applier.as_mut().unwrap()
    }

    /// Applies these, and expects that it can.
    fn apply(&mut self, deliveries: &[Delivery]) -> Vec<Verdict> {
        let progress = self.applier().apply(deliveries);
        assert!(progress.stopped.is_none(), "{:?}", progress.stopped);
        progress.applied.into_iter().map(|applied| applied.verdict).collect()
    }

    fn get(&mut self, key: &str) -> Option<(String, Option<u64>)> {
        let namespace = self.applier().store().namespace_by_id(NAMESPACE).unwrap()?;
        let value = namespace.get(key).unwrap()?;
        Some((value.as_str().unwrap().to_owned(), value.expiry_ms()))
    }
}

fn options(storage: Arc<dyn Storage>, clock: LogClock) -> Options {
    Store::options()
        .maintenance(Maintenance::Manual)
        .clock(clock)
        .storage(storage)
}

fn open(storage: Arc<dyn Storage>, clock: LogClock) -> Store {
    options(storage, clock).open("/store").unwrap()
}

/// Writes a log.
struct Log {
    deliveries: Vec<Delivery>,
    stamp_ms: u64,
    counter: u64,
}

impl Log {
    fn new() -> Log {
        let mut log = Log {
            deliveries: Vec::new(),
            stamp_ms: START_MS,
            counter: 0,
        };
        log.push(Body::Genesis);
        let name = "SESSIONS".to_owned();
        log.push(Body::Operations(vec![Operation::CreateNamespace {
            id: NAMESPACE,
            name,
        }]));
        log
    }

    fn push(&mut self, body: Body) {
        self.counter += 1;
        let header = Header {
            cluster: CLUSTER,
            writer: 1,
            counter: self.counter,
            sent_ms: self.stamp_ms,
        };
        self.push_entry(&Entry { header, body });
    }

    fn push_entry(&mut self, entry: &Entry) {
        self.stamp_ms += 10;
        self.deliveries.push(Delivery {
            position: self.deliveries.len() as u64 + 1,
            stamp_ms: self.stamp_ms,
            bytes: entry.encode().unwrap(),
        });
    }

    fn operate(&mut self, operations: impl Into<Vec<Operation>>) {
        self.push(Body::Operations(operations.into()));
    }
}

fn put(key: &str, value: &str) -> Operation {
    put_with(key, value, Lifetime::Forever, Conditions::default())
}

fn put_with(key: &str, value: &str, lifetime: Lifetime, conditions: Conditions) -> Operation {
    Operation::Put {
        namespace: NAMESPACE,
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        metadata: None,
        lifetime,
        conditions,
    }
}

fn delete(key: &str) -> Operation {
    Operation::Delete {
        namespace: NAMESPACE,
        key: Bytes::copy_from_slice(key.as_bytes()),
        conditions: Conditions::default(),
    }
}

fn if_absent() -> Conditions {
    Conditions {
        if_match: None,
        if_none_match: Some(Tags::Any),
    }
}

const DONE: Outcome = Outcome::Done { expiry_ms: None };

#[test]
fn a_log_is_applied_entry_by_entry_through_restarts() {
    let mut log = Log::new();
    log.operate([put("a", "1"), put("b", "1")]);
    log.operate([put("a", "2"), delete("b")]);
    log.operate([put_with("a", "3", Lifetime::Forever, if_absent()), put("c", "1")]);
    let mut node = Node::new();
    for delivery in &log.deliveries {
        node.apply(std::slice::from_ref(delivery));
        node.restart();
    }
    assert_eq!(node.get("a"), Some(("2".to_owned(), None)));
    assert_eq!(node.get("b"), None);
    assert_eq!(node.get("c"), Some(("1".to_owned(), None)));
    let mut other = Node::new();
    let verdicts = other.apply(&log.deliveries);
    assert_eq!(other.applier().state(), node.applier().state());
    let not_met = Outcome::NotMet { is_there: true };
    assert_eq!(
        verdicts,
        [
            Verdict::Begun,
            Verdict::Done(vec![DONE]),
            Verdict::Done(vec![DONE; 2]),
            Verdict::Done(vec![DONE; 2]),
            Verdict::Done(vec![not_met, DONE]),
        ]
    );
}
