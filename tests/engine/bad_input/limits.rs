//! Keys, values, metadata and lifetimes beyond their limits.

use std::sync::Arc;
use std::time::Duration;

use embercask::storage::MemStorage;
use embercask::{Condition, Durability, Error, Limits, Namespace, PutOptions, Result, Store};

use crate::bad_input::{NOW_MS, invalid, limited, unharmed};
use test_support::{DIRECTORY, keys, manual, open};

#[test]
fn keys_are_1_to_65536_bytes() {
    let (store, namespace) = limited(Limits::ENGINE);
    let (longest, too_long) = (vec![b'k'; 65_536], vec![b'k'; 65_537]);
    namespace.put(&longest, "value").unwrap();
    assert_eq!(namespace.get(&longest).unwrap().unwrap(), "value");
    assert_eq!(
        namespace.list().prefix("kk").page().unwrap().get(0).unwrap().key(),
        longest
    );
    assert!(namespace.delete(&longest).unwrap().existed);
    for (key, says) in [
        (&b""[..], ["empty", "at least one byte"]),
        (&too_long, ["65537 bytes", "shorten"]),
    ] {
        invalid(namespace.put(key, "value"), &says);
        invalid(namespace.put_with(key, "value", PutOptions::new().metadata("m")), &says);
        invalid(namespace.put_if(key, "value", Condition::Absent), &says);
        invalid(namespace.put_json(key, &1), &says);
        invalid(
            store
                .batch()
                .put(&namespace, "good", "1")
                .put(&namespace, key, "1")
                .commit(),
            &says,
        );
        // Such a key is absent, which is not an error.
        assert!(!namespace.delete(key).unwrap().existed);
        assert!(!namespace.delete_if(key, Condition::Absent).unwrap().existed);
        let there = [
            namespace.delete_if(key, Condition::Present).map(drop),
            (store.batch())
                .put(&namespace, "good", "1")
                .delete_if(&namespace, key, Condition::Present)
                .commit()
                .map(drop),
        ];
        for refused in there {
            assert!(matches!(refused, Err(Error::Conflict { found: None })), "{refused:?}");
        }
        (store.batch())
            .delete(&namespace, key)
            .put(&namespace, "good", "1")
            .delete(&namespace, "good")
            .commit()
            .unwrap();
        assert!(namespace.get(key).unwrap().is_none());
        assert!(namespace.get_many(&[key]).unwrap()[0].is_none());
        assert!(!namespace.contains(key).unwrap());
        assert!(!namespace.set_ttl(key, Duration::from_secs(1)).unwrap());
    }
    // Bounds of listings are not keys and may be anything.
    assert_eq!(namespace.list().prefix(&too_long).count().unwrap(), 0);
    assert_eq!(namespace.list().start("").end(&too_long).count().unwrap(), 1);
    unharmed(&store, &namespace);
}

#[test]
fn values_and_metadata_beyond_their_limits_are_refused_as_a_whole() {
    let limits = Limits {
        value_bytes_max: 1_000,
        metadata_bytes_max: 100,
        key_bytes_max: 10,
        ..Limits::ENGINE
    };
    let (store, namespace) = limited(limits);
    let metadata = |length| PutOptions::new().metadata(vec![b'm'; length]);
    namespace.put_with("1234567890", [7; 1_000], metadata(100)).unwrap();
    assert!(namespace.delete("1234567890").unwrap().existed);
    invalid(namespace.put("12345678901", "1"), &["key", "11 bytes", "limit of 10"]);
    invalid(
        namespace.put("key", [7; 1_001]),
        &["value", "1001 bytes", "limit of 1000", "shorten"],
    );
    invalid(
        namespace.put_with("key", "1", metadata(101)),
        &["metadata", "101 bytes", "limit of 100"],
    );
    invalid(
        namespace.set_metadata("key", Some(&[7; 101])),
        &["metadata", "101 bytes"],
    );
    invalid(
        namespace.set_metadata("absent", Some(&[7; 101])),
        &["metadata", "101 bytes"],
    );
    invalid(
        store
            .batch()
            .put(&namespace, "b", "1")
            .put(&namespace, "key", [7; 1_001])
            .commit(),
        &["value"],
    );
    invalid(
        store.batch().put_with(&namespace, "key", "1", metadata(101)).commit(),
        &["metadata"],
    );
    unharmed(&store, &namespace);
    // What the format cannot hold is refused regardless of the limits.
    let boundless = Limits {
        key_bytes_max: usize::MAX,
        metadata_bytes_max: usize::MAX,
        ..Limits::ENGINE
    };
    let (store, namespace) = limited(boundless);
    invalid(namespace.put(vec![b'k'; 65_537], "1"), &["limit of 65536"]);
    namespace.put_with("a", "1", metadata(65_536)).unwrap();
    assert_eq!(namespace.get("a").unwrap().unwrap().metadata().unwrap().len(), 65_536);
    assert!(namespace.delete("a").unwrap().existed);
    invalid(namespace.put_with("key", "1", metadata(65_537)), &["limit of 65536"]);
    unharmed(&store, &namespace);
}

#[test]
fn limits_bind_writers_only_and_what_is_stored_already_is_read() {
    let disk = MemStorage::new();
    let store = open(&disk);
    store.namespace("N").unwrap().put("a long key", [7; 100]).unwrap();
    drop(store);
    let limits = Limits {
        key_bytes_max: 3,
        value_bytes_max: 10,
        ..Limits::ENGINE
    };
    let store = manual(Arc::new(disk)).limits(limits).open(DIRECTORY).unwrap();
    let namespace = store.open_namespace("N").unwrap();
    assert_eq!(namespace.get("a long key").unwrap().unwrap(), [7; 100]);
    assert_eq!(keys(&namespace), ["a long key"]);
    invalid(namespace.put("a long key", "1"), &["10 bytes"]);
    store.compact().unwrap();
    assert_eq!(namespace.get("a long key").unwrap().unwrap(), [7; 100]);
}

/// C15: every key that can be read and listed can also be deleted.
#[test]
fn keys_that_the_limits_no_longer_allow_can_be_deleted() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    let too_long = [b'k'; 600];
    let refused: [(&[u8], &str); 4] = [
        (&too_long, "limit of 512"),
        (b".", "choose another"),
        (b"..", "choose another"),
        (b"\xff\xfe", "UTF-8"),
    ];
    for (key, _) in refused {
        namespace.put(key, "value").unwrap();
    }
    drop((namespace, store));
    type Delete = fn(&Store, &Namespace, &[u8]) -> Result<()>;
    let ways: [Delete; 5] = [
        |_, namespace, key| namespace.delete(key).map(|deleted| assert!(deleted.existed)),
        |_, namespace, key| {
            let sequence = namespace.get(key)?.unwrap().sequence();
            namespace.delete_if(key, Condition::Sequence(sequence)).map(drop)
        },
        |_, namespace, key| namespace.delete_with(key, None, Some(Durability::Buffered)).map(drop),
        |store, namespace, key| store.batch().delete(namespace, key).commit().map(drop),
        |store, namespace, key| {
            let mut batch = store.batch();
            batch.put(namespace, "beside", "1");
            batch.delete_if(namespace, key, Condition::Present).commit().map(drop)
        },
    ];
    for delete in ways {
        let disk = disk.crash_process();
        let options = manual(Arc::new(disk.clone())).limits(Limits::WORKERS_KV);
        let store = options.open(DIRECTORY).unwrap();
        let namespace = store.open_namespace("N").unwrap();
        for (key, says) in refused {
            invalid(namespace.put(key, "again"), &[says]);
            // These write the key again, which is a put like any other.
            invalid(namespace.remove_expiry(key), &[says]);
            invalid(namespace.set_metadata(key, Some(b"m")), &[says]);
            assert!(namespace.contains(key).unwrap());
            delete(&store, &namespace, key).unwrap();
            assert!(!namespace.contains(key).unwrap());
        }
        // Keys that no store can hold are absent.
        assert!(!namespace.delete("").unwrap().existed);
        assert!(!namespace.delete([b'k'; 65_537]).unwrap().existed);
    }
}

#[test]
fn lifetimes_that_are_over_or_cannot_be_said_are_refused() {
    let (store, namespace) = limited(Limits::ENGINE);
    let long = &["64-bit", "leave it out"][..];
    for (ttl, says) in [
        (Duration::ZERO, &["too short", "at least 1ms"][..]),
        (Duration::from_nanos(999_999), &["too short", "at least 1ms"]),
        (Duration::MAX, long),
        (Duration::from_secs(u64::MAX), long),
        (Duration::from_millis(u64::MAX), long),
        (Duration::from_millis(u64::MAX - NOW_MS + 1), long),
    ] {
        invalid(namespace.put_with("key", "new", PutOptions::new().ttl(ttl)), says);
        invalid(namespace.set_ttl("key", ttl), says);
        let options = PutOptions::new().ttl(ttl);
        invalid(
            store
                .batch()
                .put(&namespace, "b", "1")
                .put_with(&namespace, "key", "new", options)
                .commit(),
            says,
        );
    }
    let early = &["too early", "at least 1ms from now", "2000000000001 ms"][..];
    for expiry_ms in [0, 1, NOW_MS - 1, NOW_MS] {
        invalid(
            namespace.put_with("key", "new", PutOptions::new().expires_at_ms(expiry_ms)),
            early,
        );
        invalid(namespace.set_expiry("key", expiry_ms), early);
    }
    invalid(namespace.put_with("key", "new", PutOptions::new().expiration(0)), early);
    invalid(
        namespace.put_with("key", "new", PutOptions::new().expiration(NOW_MS / 1000)),
        early,
    );
    unharmed(&store, &namespace);
    assert_eq!(namespace.get("key").unwrap().unwrap().expiry_ms(), None);
    // The longest representable lifetimes.
    let longest = Duration::from_millis(u64::MAX - NOW_MS);
    assert!(namespace.set_ttl("key", longest).unwrap());
    assert_eq!(namespace.get("key").unwrap().unwrap().expiry_ms(), Some(u64::MAX));
    assert!(namespace.set_expiry("key", NOW_MS + 1).unwrap());
    unharmed(&store, &namespace);
}

/// <https://developers.cloudflare.com/kv/platform/limits/>
#[test]
fn the_limits_of_workers_kv_hold_to_the_letter() {
    let (store, namespace) = limited(Limits::WORKERS_KV);
    let key = "é".repeat(256);
    assert_eq!(key.len(), 512, "the limit counts bytes, not characters");
    namespace.put(&key, "1").unwrap();
    assert!(namespace.delete(&key).unwrap().existed);
    invalid(namespace.put("k".repeat(513), "1"), &["513 bytes", "limit of 512"]);
    for key in [".", ".."] {
        invalid(namespace.put(key, "1"), &["\".\" and \"..\"", "choose another"]);
        assert!(namespace.get(key).unwrap().is_none());
    }
    for key in ["...", "./", "a.b"] {
        namespace.put(key, "1").unwrap();
        assert!(namespace.delete(key).unwrap().existed);
    }
    invalid(namespace.put([0xff], "1"), &["UTF-8"]);
    invalid(namespace.put("", "1"), &["empty"]);
    let largest = vec![7; 25 << 20];
    namespace.put("large", &largest).unwrap();
    assert_eq!(namespace.get("large").unwrap().unwrap(), largest);
    assert!(namespace.delete("large").unwrap().existed);
    invalid(
        namespace.put("key", vec![7; (25 << 20) + 1]),
        &["26214401 bytes", "limit of 26214400"],
    );
    let metadata = |length| PutOptions::new().metadata(vec![b'm'; length]);
    namespace.put_with("m", "1", metadata(1024)).unwrap();
    assert!(namespace.delete("m").unwrap().existed);
    invalid(
        namespace.put_with("key", "1", metadata(1025)),
        &["1025 bytes", "limit of 1024"],
    );
    let ttl = |ms| PutOptions::new().ttl(Duration::from_millis(ms));
    namespace.put_with("t", "1", ttl(60_000)).unwrap();
    namespace
        .put_with("t", "1", PutOptions::new().expiration(NOW_MS / 1000 + 60))
        .unwrap();
    assert!(namespace.delete("t").unwrap().existed);
    invalid(namespace.put_with("key", "1", ttl(59_999)), &["too short", "60s"]);
    invalid(namespace.set_ttl("key", Duration::from_secs(59)), &["too short", "60s"]);
    invalid(
        namespace.put_with("key", "1", PutOptions::new().expiration(NOW_MS / 1000 + 59)),
        &["too early", "60s"],
    );
    assert_eq!(namespace.list().page_size(1000).page().unwrap().len(), 1);
    invalid(namespace.list().page_size(1001).page(), &["1001", "ask for 1 to 1000"]);
    unharmed(&store, &namespace);
}
