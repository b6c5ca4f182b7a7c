//! The effect of each option of a listing, and the content of pages and entries.

use std::ops::ControlFlow;
use std::time::Duration;

use embercask::storage::MemStorage;
use embercask::{Entry, Error, List, Namespace, Page, PutOptions, Value, Walk};

use test_support::{keys, open, rng};

fn filled(names: &[&str]) -> Namespace {
    let store = open(&MemStorage::new());
    let namespace = store.namespace("N").unwrap();
    for name in names {
        namespace.put(name, format!("value of {name}")).unwrap();
    }
    namespace
}

fn keys_of(page: &Page) -> Vec<String> {
    page.iter().map(|entry| entry.key_str().unwrap().to_owned()).collect()
}

#[test]
fn each_option_of_a_listing_chooses_the_keys_it_says() {
    let namespace = filled(&["a", "b", "ba", "bb", "c", "d"]);
    let list = || namespace.list();
    let cases: [(List, &[&str]); 8] = [
        (list(), &["a", "b", "ba", "bb", "c", "d"]),
        (list().prefix("b"), &["b", "ba", "bb"]),
        (list().start("ba"), &["ba", "bb", "c", "d"]),
        (list().start_after("ba"), &["bb", "c", "d"]),
        (list().end("ba"), &["a", "b"]),
        (list().reverse(), &["d", "c", "bb", "ba", "b", "a"]),
        (list().start("b").end("c").reverse(), &["bb", "ba", "b"]),
        (list().prefix("b").start_after("b"), &["ba", "bb"]),
    ];
    for (list, expected) in cases {
        assert_eq!(keys_of(&list.page().unwrap()), expected, "{list:?}");
        assert_eq!(list.count().unwrap(), expected.len() as u64, "{list:?}");
    }
    assert_eq!(namespace.count().unwrap(), 6);
}

#[test]
fn pages_have_at_most_their_size_and_the_next_one_goes_on_where_one_ended() {
    let namespace = filled(&["a", "b", "c", "d", "e"]);
    let list = || namespace.list().page_size(2);
    let first = list().page().unwrap();
    assert_eq!((first.len(), first.is_empty(), first.is_last()), (2, false, false));
    let second = list().cursor(first.cursor().unwrap()).page().unwrap();
    let third = list().cursor(second.cursor().unwrap()).page().unwrap();
    assert_eq!(third.len(), 1);
    assert!(third.is_last() && third.cursor().is_none());
    let pages = [&first, &second, &third].map(keys_of);
    assert_eq!(pages, [vec!["a", "b"], vec!["c", "d"], vec!["e"]]);
    assert_eq!(second.get(1).unwrap().key(), b"d");
    assert!(second.get(2).is_none());
    let none = namespace.list().prefix("z").page().unwrap();
    assert_eq!((none.len(), none.is_empty(), none.is_last()), (0, true, true));
    // Without a size a page has a thousand keys.
    for n in 0..1000 {
        namespace.put(format!("{n:04}"), "").unwrap();
    }
    assert_eq!(namespace.list().page().unwrap().len(), 1000);
    assert_eq!(keys(&namespace).len(), 1005);
}

#[test]
fn a_limit_ends_a_walk_a_page_and_a_count_whatever_the_size_of_a_page() {
    let namespace = filled(&["a", "b", "c", "d", "e"]);
    for (limit, page_size) in [(0, 2), (1, 2), (2, 2), (3, 2), (4, 2), (3, 100), (5, 2), (9, 2)] {
        let list = namespace.list().page_size(page_size).limit(limit);
        let all = ["a", "b", "c", "d", "e"];
        let expected = &all[..all.len().min(limit as usize)];
        let walked: Vec<_> = (list.clone().into_iter())
            .map(|entry| entry.unwrap().key_str().unwrap().to_owned())
            .collect();
        assert_eq!(walked, expected, "{list:?}");
        assert_eq!(list.count().unwrap(), expected.len() as u64, "{list:?}");
        let page = list.page().unwrap();
        assert_eq!(keys_of(&page), expected[..expected.len().min(page_size)], "{list:?}");
        assert_eq!(page.is_last(), limit <= page_size as u64, "{list:?}");
    }
    // The cursor of a page that has reached the limit is a place like any other.
    let last = namespace.list().limit(2).page().unwrap();
    assert!(last.is_last());
    let next = namespace.list().limit(2).cursor(last.cursor().unwrap());
    assert_eq!(keys_of(&next.page().unwrap()), ["c", "d"]);
    let none = namespace.list().limit(0).cursor(last.cursor().unwrap());
    assert_eq!(none.page().unwrap().cursor(), last.cursor());
    assert_eq!(
        keys_of(&namespace.list().reverse().limit(2).page().unwrap()),
        ["e", "d"]
    );
    // Also where keys have to be looked up.
    let short = PutOptions::new().ttl(Duration::from_secs(1 << 40));
    namespace.put_with("b", "", short).unwrap();
    assert_eq!(namespace.list().limit(3).count().unwrap(), 3);
    assert_eq!(namespace.list().limit(3).page_size(2).into_iter().count(), 3);
}

#[test]
fn a_listing_or_a_batch_that_lives_on_does_not_keep_its_store_open() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    for key in ["a", "b", "c", "d", "e"] {
        namespace.put(key, "1").unwrap();
    }
    let list = namespace.list().page_size(2);
    let mut walk = list.clone().into_iter();
    assert_eq!(walk.next().unwrap().unwrap().key(), b"a");
    let mut batch = store.batch();
    batch.put(&namespace, "f", "1");
    drop((store, namespace));
    // It can be opened again at once.
    let store = open(&disk);
    assert!(matches!(list.page(), Err(Error::Closed)));
    assert!(matches!(list.count(), Err(Error::Closed)));
    // What was read before is still there.
    assert_eq!(walk.next().unwrap().unwrap().key(), b"b");
    assert!(matches!(walk.next(), Some(Err(Error::Closed))));
    assert!(walk.next().is_none());
    assert!(matches!(batch.commit(), Err(Error::Closed)));
    assert_eq!(keys(&store.namespace("N").unwrap()).len(), 5);
}

/// The rest of a walk, as the keys of its entries.
fn rest(walk: &mut Walk) -> Vec<String> {
    let mut found = Vec::new();
    let ended = walk.for_each(|entry| {
        found.push(entry.key_str().unwrap().to_owned());
        ControlFlow::<()>::Continue(())
    });
    assert!(ended.unwrap().is_continue());
    found
}

fn key_of(entry: Option<embercask::Result<Entry>>) -> Option<String> {
    entry.map(|entry| entry.unwrap().key_str().unwrap().to_owned())
}

#[test]
fn a_walk_lends_what_an_iterator_copies() {
    let namespace = filled(&["a", "b", "c", "d", "e"]);
    let rich = PutOptions::new().metadata("{}").ttl(Duration::from_secs(1 << 40));
    namespace.put_with("c", "rich", rich).unwrap();
    for list in [namespace.list(), namespace.list().with_values().reverse()] {
        for page_size in [1, 2, 5, 100] {
            let list = list.clone().page_size(page_size);
            let mut walk = list.clone().walk();
            for expected in list.clone() {
                let (expected, found) = (expected.unwrap(), walk.next().unwrap().unwrap());
                assert_eq!(found.key(), expected.key());
                assert_eq!(found.expiry_ms(), expected.expiry_ms());
                assert_eq!(found.metadata(), expected.metadata());
                let bytes = |value: Option<&Value>| value.map(|value| value.to_vec());
                if expected.value().is_some() {
                    assert_eq!(bytes(found.value()), bytes(expected.value()));
                }
            }
            assert!(walk.next().unwrap().is_none() && walk.next().unwrap().is_none());
        }
    }
    let mut walk = namespace.list().page_size(2).limit(4).walk();
    let broken = walk.for_each(|entry| match entry.key() {
        b"b" => ControlFlow::Break(7),
        _ => ControlFlow::Continue(()),
    });
    assert_eq!(broken.unwrap(), ControlFlow::Break(7));
    assert_eq!(rest(&mut walk), ["c", "d"], "the limit is four");
}

#[test]
fn a_walk_goes_on_where_it_is_told_to_within_its_bounds() {
    let namespace = filled(&["a", "b", "ba", "bb", "c", "d"]);
    let mut walk = namespace.list().start("b").end("d").page_size(2).walk();
    for (key, expected) in [
        ("bb", &["bb", "c"][..]),
        ("", &["b", "ba", "bb", "c"]),
        ("baa", &["bb", "c"]),
        ("d", &[]),
        ("zzz", &[]),
        ("c", &["c"]),
    ] {
        walk.seek(key);
        assert_eq!(rest(&mut walk), expected, "from {key:?}");
        let mut reverse = namespace.list().start("b").end("d").page_size(2).reverse().walk();
        reverse.seek(key);
        let all = ["c", "bb", "ba", "b"];
        let below: Vec<_> = all.into_iter().filter(|other| *other <= key).collect();
        assert_eq!(rest(&mut reverse), below, "from {key:?}, backwards");
    }
    // Before the first entry it replaces the cursor.
    let first = namespace.list().limit(3).page().unwrap();
    let mut walk = namespace.list().cursor(first.cursor().unwrap()).walk();
    walk.seek("b");
    assert_eq!(walk.next().unwrap().unwrap().key(), b"b");
    let mut keys = namespace.list().page_size(2).into_iter();
    assert_eq!(key_of(keys.next_back()).unwrap(), "d");
    assert_eq!(keys.by_ref().count(), 5);
    keys.seek("bb");
    assert_eq!(key_of(keys.next()).unwrap(), "bb");
    assert_eq!(key_of(keys.next()).unwrap(), "c");
    assert!(keys.next().is_none(), "the back has returned it");
}

#[test]
fn a_walk_from_both_ends_returns_each_key_once() {
    let mut rng = rng();
    let names: Vec<String> = (0..30).map(|n| format!("{n:02}")).collect();
    let namespace = filled(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for _ in 0..400 {
        let limit = rng.below(40) as usize;
        let mut list = namespace.list().page_size(1 + rng.below(9) as usize);
        let mut expected = names.clone();
        if rng.below(2) == 0 {
            list = list.start("07");
            expected.drain(..7);
        }
        if rng.below(2) == 0 {
            list = list.reverse();
            expected.reverse();
        }
        if rng.below(3) == 0 {
            let first = list.clone().page_size(4).page().unwrap();
            list = list.cursor(first.cursor().unwrap());
            expected.drain(..4);
        }
        if rng.below(2) == 0 {
            list = list.limit(limit as u64);
            expected.truncate(limit);
        }
        let mut walk = list.clone().into_iter();
        let mut left = expected.iter();
        for turn in 0..32 {
            if rng.below(2) == 0 {
                assert_eq!(key_of(walk.next()).as_ref(), left.next(), "turn {turn} of {expected:?}");
            } else {
                assert_eq!(
                    key_of(walk.next_back()).as_ref(),
                    left.next_back(),
                    "turn {turn} of {expected:?}"
                );
            }
        }
        assert!(walk.next().is_none() && walk.next_back().is_none());
    }
}

#[test]
fn entries_show_what_was_put_and_the_value_if_it_was_asked_for() {
    let namespace = filled(&["plain"]);
    let ttl = Duration::from_secs(1 << 40);
    let options = PutOptions::new().metadata("{}").ttl(ttl);
    namespace.put_with("rich", "value of rich", options).unwrap();
    let expiry_ms = namespace.get("rich").unwrap().unwrap().expiry_ms();
    assert!(expiry_ms.is_some());
    for with_values in [false, true] {
        let list = if with_values {
            namespace.list().with_values()
        } else {
            namespace.list()
        };
        let page = list.page().unwrap();
        let (plain, rich) = (page.get(0).unwrap(), page.get(1).unwrap());
        assert_eq!((plain.key(), plain.key_str().unwrap()), (&b"plain"[..], "plain"));
        assert_eq!(
            (plain.expiry_ms(), plain.metadata(), plain.error().is_some()),
            (None, None, false)
        );
        assert_eq!((rich.expiry_ms(), rich.metadata()), (expiry_ms, Some(&b"{}"[..])));
        assert_eq!(
            plain.value().map(|value| value.to_vec()),
            with_values.then(|| b"value of plain".to_vec())
        );
        if with_values {
            assert!(*rich.value().unwrap() == "value of rich");
        }
        let mut walk = list.into_iter();
        let (plain, rich) = (walk.next().unwrap().unwrap(), walk.next().unwrap().unwrap());
        assert!(walk.next().is_none());
        assert_eq!((plain.key(), plain.key_str().unwrap()), (&b"plain"[..], "plain"));
        assert_eq!((plain.expiry_ms(), plain.metadata()), (None, None));
        assert_eq!((rich.expiry_ms(), rich.metadata()), (expiry_ms, Some(&b"{}"[..])));
        for (entry, value) in [(&plain, "value of plain"), (&rich, "value of rich")] {
            let expected = with_values.then(|| value.as_bytes().to_vec());
            assert_eq!(entry.value().map(|value| value.to_vec()), expected);
        }
    }
    namespace.put(b"\xff", "").unwrap();
    let page = namespace.list().start(b"\xff").page().unwrap();
    let entry = namespace.list().start(b"\xff").into_iter().next().unwrap().unwrap();
    for error in [
        page.get(0).unwrap().key_str().unwrap_err(),
        entry.key_str().unwrap_err(),
    ] {
        assert!(matches!(error, Error::Decode { expected: "UTF-8", .. }), "{error}");
    }
}
