//! Reads a store into a model.

use std::collections::BTreeMap;

use embercask::{Result, Store};

use crate::model::{Item, Keyspace, State};

/// Everything the store shows.
pub fn look(store: &Store) -> Result<State> {
    let mut state = State::default();
    for info in store.namespaces()? {
        let mut keyspace = Keyspace {
            id: info.id,
            items: BTreeMap::new(),
        };
        for entry in store.open_namespace(&info.name)?.list().page_size(7).with_values() {
            let entry = entry?;
            let value = entry.value().unwrap();
            let item = Item {
                value: value.as_bytes().into(),
                metadata: value.metadata().map(Into::into),
                expiry: value.expiry_ms(),
                sequence: value.sequence(),
                seen: 0,
            };
            keyspace.items.insert(entry.key().to_vec(), item);
        }
        state.namespaces.insert(info.name, keyspace);
    }
    Ok(state)
}
