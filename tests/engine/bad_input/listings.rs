//! Wrong page sizes and cursors.

use embercask::{Error, ErrorKind, Limits, Result};

use crate::bad_input::{invalid, limited, refused, unharmed};

#[test]
fn pages_hold_at_least_one_key_and_no_more_than_the_limits_say() {
    let (store, namespace) = limited(Limits {
        page_keys_max: 10,
        ..Limits::ENGINE
    });
    invalid(namespace.list().page_size(0).page(), &["0 keys", "ask for 1 to 10"]);
    invalid(namespace.list().page_size(11).page(), &["11 keys", "ask for 1 to 10"]);
    invalid(namespace.list().page_size(usize::MAX).page(), &["ask for 1 to 10"]);
    let mut walk = namespace.list().page_size(0).into_iter();
    invalid(walk.next().unwrap(), &["ask for 1 to 10"]);
    assert!(walk.next().is_none() && walk.next().is_none());
    assert_eq!(namespace.list().page_size(10).page().unwrap().len(), 1);
    unharmed(&store, &namespace);
}

/// A listing without a page size must not be refused because pages are smaller in this store than
/// elsewhere.
#[test]
fn a_listing_without_a_limit_takes_pages_as_large_as_the_limits_allow() {
    let (_store, namespace) = limited(Limits {
        page_keys_max: 10,
        ..Limits::ENGINE
    });
    for n in 0..25 {
        namespace.put(format!("{n}"), "1").unwrap();
    }
    assert_eq!(namespace.list().into_iter().map(Result::unwrap).count(), 26);
    assert_eq!(namespace.list().page().unwrap().len(), 10);
}

#[test]
fn a_cursor_is_good_for_its_own_listing_only() {
    let (store, namespace) = limited(Limits::ENGINE);
    let other = store.namespace("other").unwrap();
    for n in 0..20 {
        store
            .batch()
            .put(&namespace, format!("p{n:02}"), "1")
            .put(&other, format!("p{n:02}"), "1")
            .commit()
            .unwrap();
    }
    let list = || namespace.list().prefix("p").start("p03").page_size(3);
    let cursor = list().page().unwrap().cursor().unwrap().to_owned();
    let says = &["cursor", "start again without one"][..];
    for listing in [
        other.list().prefix("p").start("p03"),
        namespace.list().start("p03"),
        namespace.list().prefix("p0").start("p03"),
        namespace.list().prefix("p"),
        namespace.list().prefix("p").start("p04"),
        namespace.list().prefix("p").start_after("p03"),
        list().end("p19"),
        list().reverse(),
    ] {
        invalid(listing.cursor(&cursor).page(), says);
    }
    // The limit, and whether values are included, may change between pages.
    for listing in [list().page_size(1), list().page_size(7).with_values(), list()] {
        assert_eq!(listing.cursor(&cursor).page().unwrap().get(0).unwrap().key(), b"p06");
    }
    // A cursor refers to the namespace by its id: it survives a rename, but not dropping and
    // recreating the namespace.
    store.rename_namespace("N", "renamed").unwrap();
    assert_eq!(list().cursor(&cursor).page().unwrap().get(0).unwrap().key(), b"p06");
    store.drop_namespace("other").unwrap();
    refused(
        other.list().cursor(&cursor).page(),
        ErrorKind::NotFound,
        &["\"other\"", "open it again"],
    );
}

#[test]
fn a_cursor_that_was_damaged_on_its_way_is_refused() {
    let (store, namespace) = limited(Limits::ENGINE);
    namespace.put("key 2", "1").unwrap();
    let cursor = namespace
        .list()
        .page_size(1)
        .page()
        .unwrap()
        .cursor()
        .unwrap()
        .to_owned();
    let mut wrong: Vec<String> = [
        "A",
        "AAAA",
        "AAAAAAAA",
        "AAAAAAAAAAAA",
        "=",
        "a b",
        "\0",
        "é",
        "%00",
        "null",
        &cursor.repeat(2),
    ]
    .map(str::to_owned)
    .to_vec();
    wrong.extend((1..cursor.len()).map(|length| cursor[..length].to_owned()));
    for index in 0..cursor.len() {
        let mut changed = cursor.clone().into_bytes();
        changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
        wrong.push(String::from_utf8(changed).unwrap());
    }
    wrong.push("A".repeat(1 << 20));
    for cursor in wrong {
        let error = refused(
            namespace.list().cursor(&cursor).page(),
            ErrorKind::InvalidInput,
            &["cursor"],
        );
        assert!(matches!(error, Error::InvalidCursor));
    }
    assert_eq!(
        namespace
            .list()
            .page_size(1)
            .cursor(&cursor)
            .page()
            .unwrap()
            .get(0)
            .unwrap()
            .key(),
        b"key 2"
    );
    namespace.delete("key 2").unwrap();
    unharmed(&store, &namespace);
}
