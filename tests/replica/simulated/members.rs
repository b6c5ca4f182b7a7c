//! Nodes on tokio and the simulated log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use embercask::Store;
use embercask::storage::MemStorage;
use embercask_replica::applier::Applier;
use embercask_replica::clock::LogClock;
use embercask_replica::content;
use embercask_replica::entry::{Conditions, Lifetime, Operation};
use embercask_replica::node::{Node, NodeSettings};
use embercask_replica::simulated::{SimulatedConnection, SimulatedLog};
use tokio::time::{sleep, timeout};

use super::cluster::{etag, open, seed_store};

pub const NAMESPACE: u128 = 1;
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Member {
    pub disk: Arc<MemStorage>,
    pub store: Store,
    pub node: Arc<Node>,
}

pub fn member(log: &Arc<SimulatedLog>, disk: Arc<MemStorage>) -> Member {
    let clock = LogClock::new();
    let store = open(&disk, clock.clone());
    let applier = Applier::open(store.clone(), clock, etag).expect("it is a replica");
    let connection = Arc::new(SimulatedConnection::new(log.clone()));
    let settings = NodeSettings::new().expect("random numbers can be had");
    let node = Node::start(&tokio::runtime::Handle::current(), applier, connection, settings);
    Member { disk, store, node }
}

pub fn members(log: &Arc<SimulatedLog>, count: u64) -> Vec<Member> {
    (0..count).map(|index| member(log, seed_store(index))).collect()
}

pub fn put(key: &str, value: Bytes) -> Operation {
    Operation::Put {
        namespace: NAMESPACE,
        key: key.to_owned().into(),
        value,
        metadata: None,
        lifetime: Lifetime::Forever,
        conditions: Conditions::default(),
    }
}

pub fn create() -> Operation {
    let name = "one".to_owned();
    Operation::CreateNamespace { id: NAMESPACE, name }
}

impl Member {
    pub fn get(&self, key: &str) -> Option<Bytes> {
        let namespace = self.store.namespace_by_id(NAMESPACE).expect("the store answers")?;
        let value = namespace.get(key).expect("the store answers")?;
        Some(value.to_vec().into())
    }

    pub async fn until(&self, what: &str, holds: impl Fn(&Member) -> bool) {
        let holds_at_last = async {
            while !holds(self) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = timeout(PATIENCE, holds_at_last).await;
        assert!(in_time.is_ok(), "not {what}: {:?}", self.node.status());
    }

    pub async fn until_ready(&self) {
        self.until("ready", |member| member.node.status().not_ready.is_none())
            .await;
    }
}

/// All have applied the same, and hold the same.
pub async fn check_equal(members: &[Member]) {
    let last = members.iter().map(|member| member.node.position()).max().unwrap_or(0);
    for member in members {
        assert!(member.node.wait_for(last, PATIENCE).await, "{:?}", member.node.status());
    }
    let contents = members.iter().map(|member| {
        let content = content::digest(&member.store, u64::MAX).expect("it can be read");
        (content.digest, content.keys)
    });
    let contents: Vec<_> = contents.collect();
    assert!(contents.windows(2).all(|two| two[0] == two[1]), "{contents:?}");
}

/// The first of these, which has stopped, started again.
pub fn restarted(log: &Arc<SimulatedLog>, members: Vec<Member>) -> Member {
    let Member { disk, store, .. } = members.into_iter().next().expect("there is one");
    drop(store);
    member(log, disk)
}
