//! Values that are lent to a function.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use embercask::storage::MemStorage;
use embercask::{Error, ErrorKind, ManualClock, Namespace, PutOptions, ReadMode, Store, ValueRef};
use test_support::{DIRECTORY, manual};

/// Bytes, metadata, expiry and sequence of a value.
type Shown = (Vec<u8>, Option<Vec<u8>>, Option<u64>, u64);

fn shown(value: ValueRef<'_>) -> Shown {
    assert_eq!(&*value, value.as_bytes());
    let metadata = value.metadata().map(<[u8]>::to_vec);
    (value.as_bytes().to_vec(), metadata, value.expiry_ms(), value.sequence())
}

fn got(namespace: &Namespace, key: &str) -> Option<Shown> {
    let value = namespace.get(key).unwrap()?;
    let metadata = value.metadata().map(<[u8]>::to_vec);
    Some((value.to_vec(), metadata, value.expiry_ms(), value.sequence()))
}

#[test]
fn what_is_lent_is_what_get_returns() {
    for read_mode in [ReadMode::Map, ReadMode::Pread] {
        let clock = ManualClock::new(2_000_000_000_000);
        let options = manual(Arc::new(MemStorage::new())).read_mode(read_mode);
        let store = options.clock(clock.clone()).open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        let short = PutOptions::new().ttl(Duration::from_secs(1)).metadata("about");
        namespace.put("plain", "1").unwrap();
        namespace.put("empty", "").unwrap();
        namespace.put_with("short", "2", short).unwrap();
        namespace.put("deleted", "3").unwrap();
        namespace.delete("deleted").unwrap();
        let check = |present: &[&str]| {
            for key in ["plain", "empty", "short", "deleted", "absent", ""] {
                let lent = namespace.get_with(key, shown).unwrap();
                assert_eq!(lent.is_some(), present.contains(&key), "{key}");
                assert_eq!(lent, got(&namespace, key), "{key}");
            }
        };
        // From the append buffer, and from a sealed segment.
        check(&["plain", "empty", "short"]);
        store.maintain().unwrap();
        store.compact().unwrap();
        check(&["plain", "empty", "short"]);
        clock.advance(1000);
        check(&["plain", "empty"]);
        store.drop_namespace("N").unwrap();
        let called = namespace.get_with("plain", |_| ());
        assert!(matches!(called, Err(Error::NamespaceNotFound { .. })), "{called:?}");
        store.close().unwrap();
        assert!(matches!(namespace.get_with("plain", |_| ()), Err(Error::Closed)));
    }
}

#[test]
fn who_is_lent_a_value_may_take_time_while_it_is_replaced_and_compacted_away() {
    let directory = tempfile::tempdir().unwrap();
    let options = Store::options()
        .segment_bytes(64 << 10)
        .ring(embercask::RingMode::Never);
    let store = options.open(directory.path().join("data")).unwrap();
    let namespace = store.namespace("N").unwrap();
    let value = |n: u8| vec![n; 1000];
    for n in 0..200 {
        namespace.put(format!("{n}"), value(1)).unwrap();
    }
    store.compact().unwrap();
    let (began, has_begun) = channel();
    let (may_end, end) = channel::<()>();
    let reader = thread::spawn({
        let namespace = namespace.clone();
        move || {
            let read = |lent: ValueRef<'_>| {
                began.send(()).unwrap();
                end.recv().unwrap();
                lent.to_vec()
            };
            namespace.get_with("7", read).unwrap()
        }
    });
    has_begun.recv().unwrap();
    // Nothing of this waits for the reader.
    for n in 0..200 {
        namespace.put(format!("{n}"), value(2)).unwrap();
    }
    store.compact().unwrap();
    store.close().unwrap();
    may_end.send(()).unwrap();
    assert_eq!(reader.join().unwrap(), Some(value(1)));
}

#[test]
fn who_is_lent_a_value_may_use_the_store_panic_and_close_it() {
    let store = manual(Arc::new(MemStorage::new())).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "1").unwrap();
    let nested = namespace.get_with("key", |outer| {
        namespace.put("key", "2").unwrap();
        namespace.delete("other").unwrap();
        let inner = namespace.get_with("key", |inner| inner.to_vec()).unwrap();
        (outer.to_vec(), inner)
    });
    assert_eq!(nested.unwrap(), Some((b"1".to_vec(), Some(b"2".to_vec()))));
    let panicked = catch_unwind(AssertUnwindSafe(|| namespace.get_with("key", |_| panic!("on purpose"))));
    assert!(panicked.is_err());
    // As many as a thread can borrow at a time, and more.
    fn nest(namespace: &Namespace, depth: usize) -> usize {
        let deeper = |value: ValueRef<'_>| {
            let below = if depth == 0 { 0 } else { nest(namespace, depth - 1) };
            below + value.len()
        };
        namespace.get_with("key", deeper).unwrap().unwrap()
    }
    assert_eq!(nest(&namespace, 20), 21);
    let closed = namespace.get_with("key", |value| {
        store.clone().close().unwrap();
        value.to_vec()
    });
    assert_eq!(closed.unwrap(), Some(b"2".to_vec()));
    assert!(matches!(namespace.get("key"), Err(Error::Closed)));
}

#[test]
fn a_damaged_value_is_lent_to_nobody() {
    let disk = MemStorage::new();
    let open = || {
        manual(Arc::new(disk.clone()))
            .index_file(false)
            .open(DIRECTORY)
            .unwrap()
    };
    let store = open();
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "a value to be found").unwrap();
    store.close().unwrap();
    let place_in = |path: &PathBuf| {
        let bytes = disk.read_file(path).unwrap();
        bytes.windows(7).position(|window| window == b"a value")
    };
    let files = disk.files(DIRECTORY);
    let (path, at) = (files.iter().find_map(|path| Some((path, place_in(path)?)))).unwrap();
    disk.flip_bit(path, 8 * at as u64).unwrap();
    let store = open();
    let namespace = store.namespace("N").unwrap();
    let error = namespace.get_with("key", |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
}
