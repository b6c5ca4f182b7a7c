//! The limit of one namespace.

use std::sync::Arc;
use std::time::Duration;

use embercask::storage::MemStorage;
use embercask::{Error, ErrorKind, Maintenance, ManualClock, Namespace, PutOptions, Store};
use test_support::DIRECTORY;

/// Bytes of a record with a key of 8 bytes and a value of 100.
fn record_bytes(store: &Store) -> u64 {
    let namespace = store.namespace("measured").unwrap();
    namespace.put("key 0000", [0; 100]).unwrap();
    namespace.stats().unwrap().live_bytes
}

fn open(disk: &MemStorage, clock: &ManualClock) -> Store {
    let options = Store::options().maintenance(Maintenance::Manual).clock(clock.clone());
    options.storage(Arc::new(disk.clone())).open(DIRECTORY).unwrap()
}

fn key(n: u64) -> String {
    format!("key {n:04}")
}

fn put(namespace: &Namespace, n: u64) -> Result<(), Error> {
    namespace.put(key(n), [1; 100]).map(drop)
}

/// The error of a namespace that is full, and nothing else.
fn assert_full(result: Result<(), Error>, expected_bytes: u64, limit: u64) {
    match result {
        Err(error @ Error::NamespaceFull { .. }) => {
            assert_eq!(error.kind(), ErrorKind::NoSpace);
            let Error::NamespaceFull { name, bytes, max_bytes } = &error else {
                unreachable!()
            };
            assert_eq!((name.as_str(), *bytes, *max_bytes), ("N", expected_bytes, limit));
            assert!(error.to_string().contains("\"N\"") && error.to_string().contains(&limit.to_string()));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_namespace_takes_what_its_limit_says_to_the_byte_and_others_go_on() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(1_700_000_000_000));
    let store = open(&disk, &clock);
    let each = record_bytes(&store);
    let (namespace, other) = (store.namespace("N").unwrap(), store.namespace("other").unwrap());
    assert_eq!(namespace.stats().unwrap().max_bytes, None);
    let limit = 10 * each;
    namespace.set_max_bytes(Some(limit));
    for n in 0..10 {
        put(&namespace, n).unwrap();
    }
    let stats = namespace.stats().unwrap();
    assert_eq!(
        (stats.keys, stats.live_bytes, stats.max_bytes),
        (10, limit, Some(limit))
    );
    assert_eq!((namespace.live_bytes(), namespace.max_bytes()), (limit, Some(limit)));
    assert_full(put(&namespace, 10), 11 * each, limit);
    assert_eq!(
        (namespace.get(key(10)).unwrap(), namespace.stats().unwrap()),
        (None, stats.clone())
    );
    // Another handle on it, and another namespace.
    let again = store.namespace_by_id(namespace.id()).unwrap().unwrap();
    assert_full(put(&again, 10), 11 * each, limit);
    for n in 0..100 {
        put(&other, n).unwrap();
    }

    // As large as before, smaller, larger.
    put(&namespace, 3).unwrap();
    namespace.put(key(3), "").unwrap();
    let freed = limit - namespace.stats().unwrap().live_bytes;
    assert!((96..=104).contains(&freed), "{freed}");
    assert_full(namespace.put(key(4), [1; 209]).map(drop), limit + 8, limit);
    put(&namespace, 3).unwrap();
    assert!(namespace.delete(key(0)).unwrap().existed);
    assert!(!namespace.delete(key(0)).unwrap().existed);
    put(&namespace, 10).unwrap();
    assert_full(put(&namespace, 0), 11 * each, limit);

    // What lies above a lower limit stays, and may be replaced and deleted.
    namespace.set_max_bytes(Some(each));
    put(&namespace, 10).unwrap();
    namespace.put(key(10), [1; 50]).unwrap();
    assert_eq!(namespace.count().unwrap(), 10);
    for n in 1..=10 {
        namespace.delete(key(n)).unwrap();
    }
    put(&namespace, 1).unwrap();
    assert_full(put(&namespace, 2), 2 * each, each);
    namespace.set_max_bytes(None);
    put(&namespace, 2).unwrap();

    // A limit is not stored.
    namespace.set_max_bytes(Some(each));
    store.close().unwrap();
    let store = open(&disk, &clock);
    put(&store.open_namespace("N").unwrap(), 3).unwrap();
}

#[test]
fn a_batch_counts_what_it_leaves_of_each_key_and_is_refused_as_a_whole() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(1_700_000_000_000));
    let store = open(&disk, &clock);
    let each = record_bytes(&store);
    let (namespace, other) = (store.namespace("N").unwrap(), store.namespace("other").unwrap());
    let limit = 3 * each;
    namespace.set_max_bytes(Some(limit));
    put(&namespace, 0).unwrap();
    let value = [1; 100];
    let mut three_more = store.batch();
    three_more.put(&other, "with it", "v");
    for n in 1..4 {
        three_more.put(&namespace, key(n), value);
    }
    assert_full(three_more.commit().map(drop), 4 * each, limit);
    assert_eq!((namespace.count().unwrap(), other.count().unwrap()), (1, 0));
    // The same key again and again, and one that is deleted first.
    let mut batch = store.batch();
    batch.delete(&namespace, key(0));
    for _ in 0..5 {
        batch.put(&namespace, key(1), value).put(&namespace, key(2), value);
    }
    batch
        .put(&namespace, key(3), value)
        .put(&other, "k", value)
        .commit()
        .unwrap();
    assert_eq!(namespace.stats().unwrap().live_bytes, limit);
    let mut deletes = store.batch();
    deletes.delete(&namespace, key(1)).delete(&namespace, key(1));
    deletes.put(&namespace, key(9), value).commit().unwrap();
    assert_eq!(namespace.stats().unwrap().live_bytes, limit);
    // The order within the batch does not matter, only what it leaves.
    let mut first_more = store.batch();
    first_more
        .put(&namespace, key(4), value)
        .put(&namespace, key(9), [1; 300]);
    first_more.delete(&namespace, key(9)).put(&namespace, key(9), "");
    let (back, less) = (first_more.commit(), namespace.stats().unwrap().live_bytes);
    assert!(back.is_err() && less == limit, "{back:?} {less}");
    let mut swapped = store.batch();
    swapped.put(&namespace, key(4), value).delete(&namespace, key(9));
    swapped
        .put(&namespace, key(9), "for now")
        .delete(&namespace, key(9))
        .commit()
        .unwrap();
    assert_eq!(namespace.stats().unwrap().live_bytes, limit);
    let mut down_and_up = store.batch();
    down_and_up.put(&namespace, key(4), "").put(&namespace, key(4), value);
    down_and_up.commit().unwrap();
    store
        .batch()
        .delete(&namespace, key(4))
        .put(&namespace, key(9), value)
        .commit()
        .unwrap();
    let mut too_late = store.batch();
    too_late.delete(&namespace, key(9)).put(&namespace, key(9), [1; 200]);
    assert_full(too_late.commit().map(drop), limit + 96, limit);
}

#[test]
fn keys_that_expire_make_room_in_their_namespace_once_they_are_swept() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(1_700_000_000_000));
    let store = open(&disk, &clock);
    let namespace = store.namespace("N").unwrap();
    let minute = PutOptions::new().ttl(Duration::from_secs(60));
    for n in 0..10 {
        namespace.put_with(key(n), [1; 100], minute.clone()).unwrap();
    }
    let limit = namespace.stats().unwrap().live_bytes;
    namespace.set_max_bytes(Some(limit));
    assert!(put(&namespace, 10).is_err());
    clock.advance(61_000);
    assert!(put(&namespace, 10).is_err());
    store.maintain().unwrap();
    let stats = namespace.stats().unwrap();
    assert_eq!((stats.keys, stats.live_bytes), (0, 0));
    put(&namespace, 10).unwrap();
}
