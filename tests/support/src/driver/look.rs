//! Reads a store into a model.

use std::collections::BTreeMap;

use embercask::{Result, Store, Value};

use crate::model::{Item, Keyspace, State};

/// A value that was read.
pub(super) fn item_of(value: &Value) -> Item {
    Item {
        value: value.as_bytes().into(),
        metadata: value.metadata().map(Into::into),
        expiry: value.expiry_ms(),
        sequence: value.sequence(),
        seen: 0,
    }
}

/// Everything the store shows.
pub fn look(store: &Store) -> Result<State> {
    let mut state = State::default();
    for info in store.namespaces()? {
        let namespace = store.open_namespace(&info.name)?;
        let mut keyspace = Keyspace {
            id: info.id,
            default_ttl: namespace.default_ttl().map(|ttl| ttl.as_millis() as u64),
            items: BTreeMap::new(),
        };
        for entry in namespace.list().page_size(7).with_values() {
            let entry = entry?;
            let item = item_of(entry.value().unwrap());
            keyspace.items.insert(entry.key().to_vec(), item);
        }
        state.namespaces.insert(info.name, keyspace);
    }
    Ok(state)
}
