//! What must hold once everything has healed.

use std::collections::BTreeMap;

use embercask::Store;
use embercask_replica::content;
use embercask_replica::state::RESERVED_ID;

use super::cluster::Cluster;
use super::model::{Item, Keyspace};

/// All replicas hold the same, and what the log says.
pub fn check(cluster: &Cluster) {
    let mut contents = Vec::new();
    for (index, replica) in cluster.replicas.iter().enumerate() {
        let running = replica.running.as_ref().expect("all run");
        let state = running.applier.state();
        assert_eq!(state.position, cluster.model.position);
        assert_eq!(state.time, cluster.model.time);
        assert!(
            visible(running.applier.store()) == cluster.model.visible(),
            "replica {index}"
        );
        contents.push(content::digest(running.applier.store(), state.log_ms()).expect("it can be read"));
    }
    assert!(contents.windows(2).all(|two| two[0] == two[1]), "{contents:?}");
}

/// What clients find in a store.
pub fn visible(store: &Store) -> BTreeMap<u128, Keyspace> {
    let infos = store.namespaces().expect("they can be listed");
    let clients = infos.into_iter().filter(|info| info.id != RESERVED_ID);
    let keyspaces = clients.map(|info| {
        let namespace = store
            .namespace_by_id(info.id)
            .expect("the store answers")
            .expect("it is listed");
        let mut items = BTreeMap::new();
        let mut entries = namespace.list().with_values().walk();
        while let Some(entry) = entries.next().expect("it can be listed") {
            let item = Item {
                value: entry.value().expect("it was asked for").to_vec().into(),
                metadata: entry.metadata().map(|metadata| metadata.to_vec().into()),
                expiry_ms: entry.expiry_ms(),
            };
            items.insert(entry.key().to_vec().into(), item);
        }
        let keyspace = Keyspace {
            name: info.name,
            default_ttl_ms: namespace.default_ttl().map(|ttl| ttl.as_millis() as u64),
            items,
        };
        (info.id, keyspace)
    });
    keyspaces.collect()
}
