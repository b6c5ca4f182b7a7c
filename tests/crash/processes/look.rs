//! Everything a store shows, through every kind of read; all must agree.

use std::collections::BTreeMap;

use embercask::Store;

use crate::processes::expect::{World, nothing};
use crate::processes::plan::{WRITERS_MAX, keys, name_of};
use test_support::model::{Item, Keyspace};

/// The content by writer. Panics if listing, `get` and `count` disagree, or if `verify` finds
/// damage.
pub(crate) fn look(store: &Store) -> World {
    let mut world = nothing();
    for info in store.namespaces().expect("namespaces") {
        let namespace = store.open_namespace(&info.name).expect("a listed namespace");
        let mut items = BTreeMap::new();
        for entry in namespace.list().page_size(7).with_values() {
            let entry = entry.expect("an entry");
            let value = entry.value().expect("its value");
            let item = Item {
                value: value.as_bytes().into(),
                metadata: value.metadata().map(Into::into),
                expiry: value.expiry_ms(),
                sequence: value.sequence(),
                seen: 0,
            };
            items.insert(entry.key().to_vec(), item);
        }
        for key in keys() {
            let got = namespace.get(&key).unwrap_or_else(|error| panic!("get: {error}"));
            let got = got.map(|value| (value.sequence(), value.to_vec()));
            let listed = items.get(&key).map(|item| (item.sequence, item.value.to_vec()));
            assert_eq!(got, listed, "get and list of {} in {}", key.escape_ascii(), info.name);
        }
        let listed: Vec<_> = namespace
            .list()
            .into_iter()
            .map(|entry| entry.expect("a key").key().to_vec())
            .collect();
        assert!(listed.iter().eq(items.keys()), "two listings of {}", info.name);
        assert_eq!(
            namespace.count().expect("a count"),
            items.len() as u64,
            "count of {}",
            info.name
        );
        let owner = (0..WRITERS_MAX).find(|writer| info.name.starts_with(&name_of(*writer, 0)[..8]));
        let owner = owner.unwrap_or_else(|| panic!("no writer created {:?}", info.name));
        world[owner].namespaces.insert(
            info.name,
            Keyspace {
                id: info.id,
                default_ttl: None,
                items,
            },
        );
    }
    let report = store.verify().expect("verify");
    assert!(report.is_sound(), "verify found: {:#?}", report.damaged);
    world
}
