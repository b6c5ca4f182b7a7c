use super::read::Lookup;
use super::*;
use crate::error::Error;
use crate::format::Damage;
use crate::index::order::KeyFlags;
use crate::segment::ReadError;
use crate::storage::MemStorage;
use crate::{Maintenance, PutOptions, Store};

#[test]
fn a_record_that_was_rolled_back_and_written_again_under_a_reader_is_no_damage() {
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .storage(Arc::new(MemStorage::new()))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "value").unwrap();
    let engine = store.engine();
    let hash = engine.state.hash(namespace.state.number, b"key");
    // The reader got the location before a failed write was rolled back, finds no record there, and
    // checks the index when the next write has put its record in the same place.
    let mut looks = 0;
    let found = engine.state.find(hash, |_, _| {
        looks += 1;
        if looks == 1 {
            Err(ReadError::Damage(Damage::Short))
        } else {
            Ok(true)
        }
    });
    assert!(matches!(found, Ok(Lookup::Found(_))));
    let damaged = engine.state.find(hash, |_, _| Err(ReadError::Damage(Damage::Short)));
    assert!(matches!(damaged, Ok(Lookup::Damaged(_, Error::Corruption { .. }))));
    let failed = engine
        .state
        .find(hash, |_, _| Err(ReadError::Io(std::io::ErrorKind::Other.into())));
    assert!(matches!(failed, Err(Error::Io { .. })));
}

fn with_two_keys() -> (Store, crate::Namespace) {
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .storage(Arc::new(MemStorage::new()))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    put_both(&store, &namespace, "old");
    (store, namespace)
}

fn put_both(store: &Store, namespace: &crate::Namespace, value: &str) {
    let mut batch = store.batch();
    batch.put(namespace, "a", value).put(namespace, "b", value);
    batch.commit().unwrap();
}

/// A record is read while it is moved, and its old segment removed: the read fails, which is no
/// failure of the device.
#[test]
fn a_failed_read_counts_only_if_the_index_still_leads_to_what_was_read() {
    let (store, namespace) = with_two_keys();
    let state = &store.engine().state;
    let hash = state.hash(namespace.state.number, b"a");
    let failure = || ReadError::Io(std::io::ErrorKind::NotFound.into());
    let mut looks = 0;
    let found = state.find(hash, |_, _| {
        looks += 1;
        if looks > 1 {
            return Ok(true);
        }
        namespace.put("a", "new").unwrap();
        Err(failure())
    });
    assert!(matches!(found, Ok(Lookup::Found(_))), "{found:?}");
    let failed = state.find(hash, |_, _| Err(failure()));
    assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
}

#[test]
fn the_key_order_tells_what_the_newest_record_of_a_key_has() {
    let (_store, namespace) = with_two_keys();
    let flags = || namespace.state.order.flags(b"a").unwrap();
    let has = || [KeyFlags::METADATA, KeyFlags::EXPIRES].map(|flag| flags().contains(flag));
    let metadata = PutOptions::new().metadata("of");
    let expiring = PutOptions::new().ttl(std::time::Duration::from_secs(60));
    for _ in 0..2 {
        namespace.put_with("a", "1", metadata.clone()).unwrap();
        assert_eq!(has(), [true, false]);
        namespace.put_with("a", "1", expiring.clone()).unwrap();
        assert_eq!(has(), [false, true]);
        namespace.put("a", "1").unwrap();
        assert_eq!(has(), [false, false]);
    }
}
