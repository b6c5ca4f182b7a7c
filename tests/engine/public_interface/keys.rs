//! The effect of each call on a key, and of each option of a put.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use embercask::storage::MemStorage;
use embercask::{Condition, Durability, Error, ErrorKind, ManualClock, Namespace, PutOptions, Store};

use test_support::{DIRECTORY, class, keys, manual, open};

const NOW_MS: u64 = 2_000_000_000_000;

fn world() -> (ManualClock, Store, Namespace) {
    let clock = ManualClock::new(NOW_MS);
    let options = manual(Arc::new(MemStorage::new())).clock(clock.clone());
    let store = options.open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    (clock, store, namespace)
}

/// Value, metadata and expiry of a key.
type Shown = Option<(String, Option<String>, Option<u64>)>;

fn shown(namespace: &Namespace, key: &str) -> Shown {
    let value = namespace.get(key).unwrap()?;
    let metadata = value.metadata().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
    Some((value.as_str().unwrap().to_owned(), metadata, value.expiry_ms()))
}

fn is(value: &str, metadata: Option<&str>, expiry_ms: Option<u64>) -> Shown {
    Some((value.to_owned(), metadata.map(str::to_owned), expiry_ms))
}

#[test]
fn a_value_shows_what_was_put_and_what_was_put_beside_it() {
    let (_, store, namespace) = world();
    let options = PutOptions::new().metadata("{}").ttl(Duration::from_millis(1500));
    let sequence = namespace.put_with("key", "value", options).unwrap();
    let value = namespace.get("key").unwrap().unwrap();
    assert_eq!(value.as_bytes(), b"value");
    assert_eq!(value.as_str().unwrap(), "value");
    assert_eq!(value.metadata(), Some(&b"{}"[..]));
    assert_eq!(value.expiry_ms(), Some(NOW_MS + 1500));
    assert_eq!(
        value.expires_at(),
        Some(UNIX_EPOCH + Duration::from_millis(NOW_MS + 1500))
    );
    assert_eq!(value.sequence(), sequence);
    let later = namespace.put("key", b"\xff").unwrap();
    assert!(later > sequence && store.stats().last_sequence == later);
    let value = namespace.get("key").unwrap().unwrap();
    assert_eq!(
        (value.as_bytes(), value.metadata(), value.expiry_ms()),
        (&b"\xff"[..], None, None)
    );
    assert_eq!((value.expires_at(), value.sequence()), (None, later));
    for error in [value.as_str().unwrap_err(), namespace.get_text("key").unwrap_err()] {
        assert!(matches!(error, Error::Decode { expected: "UTF-8", .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn json_goes_in_and_comes_out_as_the_type_it_was() {
    let (_, _, namespace) = world();
    let options = PutOptions::new().metadata("m");
    namespace.put_json("numbers", &vec![1, 2, 3]).unwrap();
    namespace.put_json_with("text", "two words", options).unwrap();
    assert_eq!(shown(&namespace, "numbers"), is("[1,2,3]", None, None));
    assert_eq!(shown(&namespace, "text"), is("\"two words\"", Some("m"), None));
    assert_eq!(namespace.get_json::<Vec<u8>>("numbers").unwrap(), Some(vec![1, 2, 3]));
    assert_eq!(
        namespace.get_json::<String>("text").unwrap().as_deref(),
        Some("two words")
    );
    assert_eq!(namespace.get_json::<String>("absent").unwrap(), None);
    let value = namespace.get("numbers").unwrap().unwrap();
    assert_eq!(value.to_json::<[u64; 3]>().unwrap(), [1, 2, 3]);
    for error in [
        value.to_json::<String>().unwrap_err(),
        namespace.get_json::<String>("numbers").unwrap_err(),
    ] {
        assert!(
            matches!(
                error,
                Error::Decode {
                    expected: "JSON of this type",
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn a_number_that_json_cannot_say_is_refused_by_its_place() {
    #[derive(serde::Serialize)]
    enum Shape {
        Point(f64, f32),
        Circle { radius: f64 },
        Length(f64),
        Nothing,
    }
    #[derive(serde::Serialize)]
    struct Drawing {
        name: Option<&'static str>,
        shapes: Vec<Shape>,
        scales: BTreeMap<u8, Option<f64>>,
    }
    let (_, store, namespace) = world();
    let draw = |shapes, scales: &[(u8, Option<f64>)]| Drawing {
        name: Some("a"),
        shapes,
        scales: scales.iter().copied().collect(),
    };
    let (wrong, infinite) = (f64::NAN, f64::INFINITY);
    for (drawing, says) in [
        (
            draw(vec![Shape::Nothing, Shape::Point(0.0, f32::NAN)], &[]),
            "value.shapes[1][1] is NaN",
        ),
        (
            draw(vec![Shape::Circle { radius: -infinite }], &[]),
            "value.shapes[0].radius is -inf",
        ),
        (draw(vec![Shape::Length(infinite)], &[]), "value.shapes[0] is inf"),
        (draw(vec![], &[(1, None), (2, Some(wrong))]), "value.scales[1] is NaN"),
    ] {
        let error = namespace.put_json("drawing", &drawing).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(says), "{error}");
    }
    let error = namespace.put_json("number", &wrong).unwrap_err().to_string();
    assert!(
        error.contains("value is NaN") && error.contains("leave it out"),
        "{error}"
    );
    let error = namespace.put_json("map", &BTreeMap::from([(vec![1], 1)])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(namespace.count().unwrap(), 0);
    // Everything else is written as serde_json writes it.
    let shapes = vec![
        Shape::Nothing,
        Shape::Point(1.5, 0.1),
        Shape::Circle { radius: 1e300 },
        Shape::Length(2.0),
    ];
    let drawing = draw(shapes, &[(1, None), (2, Some(0.5))]);
    namespace.put_json("drawing", &drawing).unwrap();
    let expected = serde_json::to_string(&drawing).unwrap();
    assert_eq!(namespace.get_text("drawing").unwrap().unwrap(), expected);
    let rest = (
        "text",
        'c',
        true,
        (),
        [u128::MAX],
        i128::MIN,
        (1u8, -1i16),
        serde_json::json!({"a": [1.5, null]}),
    );
    namespace.put_json("rest", &rest).unwrap();
    let expected = serde_json::to_string(&rest).unwrap();
    assert_eq!(namespace.get_text("rest").unwrap().unwrap(), expected);
    store.close().unwrap();
}

#[test]
fn keys_are_got_alone_and_together_and_deleted() {
    let (clock, _, namespace) = world();
    namespace.put("a", "1").unwrap();
    namespace.put("b", "2").unwrap();
    namespace
        .put_with("short", "3", PutOptions::new().ttl(Duration::from_secs(1)))
        .unwrap();
    assert_eq!(namespace.get_text("a").unwrap().as_deref(), Some("1"));
    assert_eq!(namespace.get_text("absent").unwrap(), None);
    let many = |namespace: &Namespace| -> Vec<Option<Vec<u8>>> {
        let values = namespace.get_many(&["b", "absent", "short", "a"]).unwrap();
        values
            .into_iter()
            .map(|value| value.map(|value| value.to_vec()))
            .collect()
    };
    let some = |value: &str| Some(value.as_bytes().to_vec());
    assert_eq!(many(&namespace), [some("2"), None, some("3"), some("1")]);
    assert!(namespace.contains("short").unwrap() && !namespace.contains("absent").unwrap());
    assert_eq!(namespace.count().unwrap(), 3);
    clock.advance(1000);
    assert_eq!(many(&namespace), [some("2"), None, None, some("1")]);
    assert!(!namespace.contains("short").unwrap());
    assert_eq!(namespace.count().unwrap(), 2);
    assert!(namespace.delete("a").unwrap().existed && !namespace.delete("a").unwrap().existed);
    assert!(!namespace.contains("a").unwrap());
    assert!(!namespace.delete_with("a", None, Some(Durability::Os)).unwrap().existed);
    assert!(
        namespace
            .delete_with("b", Some(Condition::Present), None)
            .unwrap()
            .existed
    );
    assert_eq!(keys(&namespace), [""; 0]);
}

#[test]
fn a_conditional_write_is_done_only_if_its_condition_holds() {
    let (_, store, namespace) = world();
    let refused = |result: embercask::Result<u64>, expected: Option<u64>| {
        assert!(
            matches!(result, Err(Error::Conflict { found }) if found == expected),
            "{result:?}"
        );
    };
    refused(namespace.put_if("key", "0", Condition::Present), None);
    refused(namespace.put_if("key", "0", Condition::Sequence(1)), None);
    let first = namespace.put_if("key", "1", Condition::Absent).unwrap();
    refused(namespace.put_if("key", "0", Condition::Absent), Some(first));
    refused(
        namespace.put_if("key", "0", Condition::Sequence(first + 1)),
        Some(first),
    );
    let second = namespace.put_if("key", "2", Condition::Sequence(first)).unwrap();
    let third = PutOptions::new().condition(Condition::Present);
    let third = namespace.put_with("key", "3", third).unwrap();
    refused(namespace.put_if("key", "0", Condition::Sequence(second)), Some(third));
    assert_eq!(shown(&namespace, "key"), is("3", None, None));
    let kept = |result: Result<_, Error>| assert!(matches!(result, Err(Error::Conflict { found: Some(_) })));
    kept(namespace.delete_if("key", Condition::Absent).map(drop));
    kept(
        namespace
            .delete_with("key", Some(Condition::Sequence(second)), None)
            .map(drop),
    );
    let mut batch = store.batch();
    batch.put(&namespace, "beside", "1");
    kept(batch.delete_if(&namespace, "key", Condition::Absent).commit().map(drop));
    assert_eq!(keys(&namespace), ["key"], "a batch was applied in part");
    assert!(namespace.delete_if("key", Condition::Sequence(third)).unwrap().existed);
    assert_eq!(keys(&namespace), [""; 0]);
}

#[test]
fn each_option_of_a_put_is_seen_in_what_was_put() {
    let (_, _, namespace) = world();
    let cases = [
        (PutOptions::new(), None, None),
        (
            PutOptions::new().ttl(Duration::from_secs(60)),
            None,
            Some(NOW_MS + 60_000),
        ),
        (
            PutOptions::new().expires_at_ms(NOW_MS + 1234),
            None,
            Some(NOW_MS + 1234),
        ),
        (
            PutOptions::new().expiration(NOW_MS / 1000 + 7),
            None,
            Some(NOW_MS + 7000),
        ),
        (PutOptions::new().metadata("{}"), Some("{}"), None),
        (PutOptions::new().metadata(""), Some(""), None),
        // The last one counts.
        (
            PutOptions::new().expires_at_ms(NOW_MS + 1).ttl(Duration::from_secs(1)),
            None,
            Some(NOW_MS + 1000),
        ),
    ];
    for (options, metadata, expiry_ms) in cases {
        namespace.put_with("key", "value", options.clone()).unwrap();
        assert_eq!(
            shown(&namespace, "key"),
            is("value", metadata, expiry_ms),
            "{options:?}"
        );
    }
}

#[test]
fn expiry_and_metadata_are_changed_and_all_else_stays() {
    let (clock, _, namespace) = world();
    let put = |key: &str| {
        let options = PutOptions::new().metadata("m").ttl(Duration::from_secs(10));
        namespace.put_with(key, "v", options).unwrap()
    };
    put("key");
    assert!(namespace.set_ttl("key", Duration::from_secs(20)).unwrap());
    assert_eq!(shown(&namespace, "key"), is("v", Some("m"), Some(NOW_MS + 20_000)));
    assert!(namespace.set_expiry("key", NOW_MS + 5000).unwrap());
    assert_eq!(shown(&namespace, "key"), is("v", Some("m"), Some(NOW_MS + 5000)));
    assert!(namespace.set_metadata("key", Some(b"other")).unwrap());
    assert_eq!(shown(&namespace, "key"), is("v", Some("other"), Some(NOW_MS + 5000)));
    assert!(namespace.set_metadata("key", None).unwrap());
    assert_eq!(shown(&namespace, "key"), is("v", None, Some(NOW_MS + 5000)));
    assert!(namespace.remove_expiry("key").unwrap());
    assert_eq!(shown(&namespace, "key"), is("v", None, None));
    put("gone");
    clock.advance(10_000);
    for key in ["gone", "absent"] {
        assert!(!namespace.set_ttl(key, Duration::from_secs(20)).unwrap());
        assert!(!namespace.set_expiry(key, NOW_MS + 50_000).unwrap());
        assert!(!namespace.set_metadata(key, Some(b"m")).unwrap());
        assert!(!namespace.remove_expiry(key).unwrap());
    }
    assert_eq!(keys(&namespace), ["key"]);
}

#[test]
fn a_batch_does_all_of_its_writes() {
    let (_, store, namespace) = world();
    let other = store.namespace("other").unwrap();
    namespace.put("deleted", "1").unwrap();
    namespace.put("checked", "1").unwrap();
    let options = PutOptions::new().metadata("m").expires_at_ms(NOW_MS + 1);
    let mut batch = store.batch();
    batch.put(&namespace, "put", "1").delete(&namespace, "deleted");
    batch.put_with(&other, "rich", "2", options);
    batch.delete_if(&namespace, "checked", Condition::Present);
    assert_eq!(
        keys(&namespace),
        ["checked", "deleted"],
        "a batch was applied before its commit"
    );
    let sequence = batch.commit().unwrap();
    assert_eq!(sequence, store.stats().last_sequence);
    assert_eq!(keys(&namespace), ["put"]);
    assert_eq!(shown(&other, "rich"), is("2", Some("m"), Some(NOW_MS + 1)));
}

#[test]
fn a_batch_is_filled_in_a_loop_committed_and_filled_again() {
    let (_, store, namespace) = world();
    let mut batch = store.batch();
    for round in ["a", "b"] {
        for n in 0..3 {
            batch.put(&namespace, format!("{round}{n}"), round);
        }
        assert_eq!(batch.len(), 3);
        batch.commit().unwrap();
        assert!(batch.is_empty(), "it would write everything again");
    }
    assert_eq!(keys(&namespace), ["a0", "a1", "a2", "b0", "b1", "b2"]);
    // A batch that could not be committed has its writes still.
    batch
        .put(&namespace, "c", "1")
        .delete_if(&namespace, "none", Condition::Present);
    assert_eq!(batch.commit().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(batch.len(), 2);
    namespace.put("none", "1").unwrap();
    batch.commit().unwrap();
    assert_eq!(keys(&namespace).last().unwrap(), "c");
    batch.put(&namespace, "d", "1").clear();
    let before = store.stats().last_sequence;
    assert_eq!(batch.commit().unwrap(), before);
    // One set of options serves many puts.
    let options = PutOptions::new().metadata("m");
    batch
        .put_with(&namespace, "e", "1", &options)
        .put_with(&namespace, "f", "", &options);
    batch.commit().unwrap();
    assert_eq!(shown(&namespace, "e"), is("1", Some("m"), None));
    assert_eq!(shown(&namespace, "f"), is("", Some("m"), None));
}

#[test]
fn a_batch_names_the_write_that_it_refuses_at_once() {
    let (_, store, namespace) = world();
    let too_long = [b'k'; 65_537];
    let says = |error: &Error, parts: &[&str]| {
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let message = error.to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        assert!(message.len() < 300, "{message}");
    };
    let mut batch = store.batch();
    batch.put(&namespace, "good", "1");
    assert!(batch.error().is_none());
    batch.put(&namespace, "", "1");
    says(batch.error().unwrap(), &["write 1", "key \"\"", "empty"]);
    // The first error stays, whatever comes later.
    batch.put(&namespace, too_long, "1").put(&namespace, "also good", "1");
    for _ in 0..2 {
        says(&batch.commit().unwrap_err(), &["write 1", "key \"\"", "empty"]);
    }
    assert_eq!(keys(&namespace), [""; 0], "a part of a batch was written");
    batch.clear();
    // An error that is returned is not kept.
    let zero = PutOptions::new().ttl(Duration::ZERO);
    batch.put(&namespace, "good", "1");
    says(
        &batch.try_put(&namespace, too_long, "1").unwrap_err(),
        &["write 1", "kkk", "65537"],
    );
    says(
        &batch.try_put_with(&namespace, "key", "1", &zero).unwrap_err(),
        &["\"key\"", "too short"],
    );
    batch.try_put(&namespace, "better", "1").unwrap();
    batch.try_delete(&namespace, "absent").unwrap();
    assert_eq!(batch.len(), 3);
    batch.commit().unwrap();
    assert_eq!(keys(&namespace), ["better", "good"]);
    let (_, _, stranger) = world();
    says(
        &batch.try_delete(&stranger, "key").unwrap_err(),
        &["write 0", "another store"],
    );
}

#[test]
fn a_write_or_a_batch_may_have_a_durability_of_its_own() {
    // The store's class, the write's class, and whether it survives the end of the process.
    for (store_class, own, survives) in [
        (Durability::Buffered, None, false),
        (Durability::Buffered, Some(Durability::Os), true),
        (Durability::Os, None, true),
        (Durability::Os, Some(Durability::Buffered), false),
    ] {
        let kinds: [fn(&Store, &Namespace, Option<Durability>); 3] = [
            |_, namespace, own| {
                let options = PutOptions::new();
                let options = if let Some(own) = own {
                    options.durability(own)
                } else {
                    options
                };
                namespace.put_with("key", "new", options).unwrap();
            },
            |store, namespace, own| {
                let mut batch = store.batch();
                batch.put(namespace, "key", "new");
                if let Some(own) = own {
                    batch.durability(own);
                }
                batch.commit().unwrap();
            },
            |_, namespace, own| assert!(namespace.delete_with("key", None, own).unwrap().existed),
        ];
        for (kind, write) in kinds.into_iter().enumerate() {
            let disk = MemStorage::new();
            let options = manual(Arc::new(disk.clone())).durability(store_class);
            let store = options.open(DIRECTORY).unwrap();
            let namespace = store.namespace("N").unwrap();
            namespace.put_with("key", "old", class(Durability::Sync)).unwrap();
            write(&store, &namespace, own);
            let found = open(&disk.crash_process())
                .open_namespace("N")
                .unwrap()
                .get_text("key")
                .unwrap();
            let is_new = found.as_deref() != Some("old");
            assert_eq!(is_new, survives, "{store_class:?}, {own:?}, kind {kind}: {found:?}");
        }
    }
}

#[test]
fn each_error_is_of_the_kind_that_says_what_to_do() {
    let path = || std::path::PathBuf::from("/store");
    let text = || "text".to_owned();
    let io = || Error::Io {
        action: "read",
        path: path(),
        source: Arc::new(std::io::Error::other("broken")),
    };
    let (name, cause, what) = (text, text, text);
    for (error, kind) in [
        (Error::InvalidInput { what: what() }, ErrorKind::InvalidInput),
        (Error::InvalidCursor, ErrorKind::InvalidInput),
        (
            Error::Decode {
                expected: "UTF-8",
                cause: cause(),
            },
            ErrorKind::InvalidInput,
        ),
        (Error::Conflict { found: None }, ErrorKind::Conflict),
        (Error::NamespaceNotFound { name: name() }, ErrorKind::NotFound),
        (Error::NamespaceExists { name: name() }, ErrorKind::AlreadyExists),
        (Error::StoreExists { path: path() }, ErrorKind::AlreadyExists),
        (Error::TooManyConflicts { attempts: 1000 }, ErrorKind::Conflict),
        (
            Error::InUse {
                path: path(),
                holder: text(),
            },
            ErrorKind::InUse,
        ),
        (
            Error::NotAStore {
                path: path(),
                what: what(),
            },
            ErrorKind::NotAStore,
        ),
        (
            Error::NewerFormat {
                path: path(),
                version: 9,
            },
            ErrorKind::NotAStore,
        ),
        (
            Error::Corruption {
                path: path(),
                offset: 1,
                cause: cause(),
            },
            ErrorKind::Corruption,
        ),
        (Error::NoSpace { path: path() }, ErrorKind::NoSpace),
        (io(), ErrorKind::Io),
        (Error::Pending { cause: Arc::new(io()) }, ErrorKind::Io),
        (Error::Poisoned { cause: cause() }, ErrorKind::Poisoned),
        (Error::Closed, ErrorKind::Closed),
        (Error::Forked, ErrorKind::Closed),
        (Error::Cancelled, ErrorKind::Cancelled),
    ] {
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(!error.to_string().is_empty());
    }
}
