//! Invalid names, and namespaces that do not exist or belong to another store.

use std::time::Duration;

use embercask::{Condition, ErrorKind, Limits};

use crate::bad_input::{invalid, limited, refused, unharmed};

#[test]
fn namespaces_that_cannot_be_are_refused() {
    let (store, namespace) = limited(Limits::ENGINE);
    let (longest, too_long) = ("n".repeat(2048), "n".repeat(2049));
    store.create_namespace(&longest).unwrap();
    store.drop_namespace(&longest).unwrap();
    for (name, says) in [("", ["name", "empty"]), (&too_long, ["2049 bytes", "limit of 2048"])] {
        invalid(store.create_namespace(name), &says);
        invalid(store.namespace(name), &says);
        invalid(store.rename_namespace("N", name), &says);
    }
    let exists = &["\"N\"", "exists already", "choose another name"][..];
    let exists_too = &["\"M\"", "exists already", "choose another name"][..];
    let missing = &["\"missing\"", "does not exist", "create it"][..];
    refused(store.create_namespace("N"), ErrorKind::AlreadyExists, exists);
    store.create_namespace("M").unwrap();
    refused(store.rename_namespace("N", "M"), ErrorKind::AlreadyExists, exists_too);
    store.drop_namespace("M").unwrap();
    // Its own name is no other.
    let before = store.stats().last_sequence;
    store.rename_namespace("N", "N").unwrap();
    assert_eq!(store.stats().last_sequence, before);
    invalid(
        store.create_namespace_with_id("M", namespace.id()),
        &["in use", "choose another"],
    );
    refused(store.open_namespace("missing"), ErrorKind::NotFound, missing);
    refused(store.open_namespace(""), ErrorKind::NotFound, &[]);
    refused(store.drop_namespace("missing"), ErrorKind::NotFound, missing);
    refused(store.rename_namespace("missing", "new"), ErrorKind::NotFound, missing);
    assert!(store.namespace_by_id(0).unwrap().is_none());
    let names: Vec<_> = store.namespaces().unwrap().into_iter().map(|info| info.name).collect();
    assert_eq!(names, ["N"]);
    unharmed(&store, &namespace);
}

#[test]
fn a_dropped_namespace_refuses_everything_and_its_name_can_be_had_again() {
    let (store, namespace) = limited(Limits::ENGINE);
    let dropped = store.namespace("dropped").unwrap();
    dropped.put("key", "old").unwrap();
    store.drop_namespace("dropped").unwrap();
    let check = || {
        let says = &["\"dropped\"", "open it again if it was dropped"][..];
        let no = ErrorKind::NotFound;
        refused(dropped.get("key"), no, says);
        refused(dropped.get_many(&["key"]), no, says);
        refused(dropped.contains("key"), no, says);
        refused(dropped.count(), no, says);
        refused(dropped.list().page(), no, says);
        refused(dropped.list().into_iter().next().unwrap(), no, says);
        refused(dropped.put("key", "new"), no, says);
        refused(dropped.put_if("key", "new", Condition::Absent), no, says);
        refused(dropped.delete("key"), no, says);
        refused(dropped.set_ttl("key", Duration::from_secs(1)), no, says);
        // Nor does a batch with it apply its other writes.
        refused(
            store
                .batch()
                .put(&namespace, "other", "1")
                .put(&dropped, "key", "new")
                .commit(),
            no,
            says,
        );
    };
    check();
    store.maintain().unwrap();
    check();
    let again = store.create_namespace("dropped").unwrap();
    check();
    assert_ne!(again.id(), dropped.id());
    assert!(again.get("key").unwrap().is_none());
    unharmed(&store, &namespace);
}

#[test]
fn a_batch_with_a_namespace_of_another_store_is_refused() {
    let (store, namespace) = limited(Limits::ENGINE);
    let (_other_store, other) = limited(Limits::ENGINE);
    let mut batch = store.batch();
    batch.put(&namespace, "a", "1").put(&other, "a", "1");
    invalid(batch.commit(), &["another store", "one batch for each store"]);
    unharmed(&store, &namespace);
    assert!(other.get("a").unwrap().is_none());
}
