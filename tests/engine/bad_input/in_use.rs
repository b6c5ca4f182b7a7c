//! Stores in use, and handles of closed stores.

use std::path::Path;
use std::time::Duration;

use embercask::storage::MemStorage;
use embercask::{Error, ErrorKind, Store};

use crate::bad_input::{contents, refused};
use test_support::process::{Child, report, role, wait_for_the_kill};
use test_support::{open, text};

#[test]
fn a_second_handle_in_the_same_process_is_told_who_holds_the_store() {
    let temporary = tempfile::tempdir().unwrap();
    let first = Store::open(temporary.path()).unwrap();
    let namespace = first.namespace("N").unwrap();
    namespace.put("key", "value").unwrap();
    let holder = format!("in use by process {}", std::process::id());
    let path = temporary.path().display().to_string();
    for _ in 0..3 {
        let error = refused(
            Store::open(temporary.path()),
            ErrorKind::InUse,
            &[&holder, "close it there first", &path],
        );
        assert!(matches!(error, Error::InUse { .. }));
    }
    assert_eq!(text(&namespace, "key").as_deref(), Some("value"));
    namespace.put("key", "2").unwrap();
    first.close().unwrap();
    // Remaining handles do not prevent opening the store again.
    let second = Store::open(temporary.path()).unwrap();
    assert_eq!(text(&second.open_namespace("N").unwrap(), "key").as_deref(), Some("2"));
    assert_eq!(namespace.get("key").unwrap_err().kind(), ErrorKind::Closed);
}

/// The name of the test below, which a child process runs too.
const HOLDING: &str = concat!(
    module_path!(),
    "::a_store_that_another_process_holds_is_in_use_until_that_ends_however_it_does"
);

/// A child process that holds a store until it is killed or released.
fn holder_of(directory: &Path) -> Child {
    let mut child = Child::spawn(HOLDING, "holder", directory, &[]);
    child.next_report().expect("the child did not open the store");
    child
}

/// B26: the lock belongs to the operating system, so it ends with its holder; the content of the
/// file means nothing.
#[test]
fn a_store_that_another_process_holds_is_in_use_until_that_ends_however_it_does() {
    if let Some(role) = role() {
        let store = Store::open(role.directory).unwrap();
        report(format_args!("held"));
        wait_for_the_kill();
        store.close().unwrap();
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    Store::open(temporary.path()).unwrap().close().unwrap();
    for kills in [true, false, true] {
        let mut holder = holder_of(temporary.path());
        let says = format!("in use by process {}", holder.id());
        refused(Store::open(temporary.path()), ErrorKind::InUse, &[&says]);
        if kills {
            holder.kill();
        }
        holder.wait();
        let store = Store::open(temporary.path()).unwrap();
        store.namespace("N").unwrap().put("key", "value").unwrap();
        store.close().unwrap();
    }
}

/// No part of a closed store is usable, and none of it panics or hangs.
#[test]
fn a_closed_store_refuses_everything_and_leaves_the_directory_to_the_next() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    for n in 0..100 {
        namespace.put("key", format!("{n}").repeat(100)).unwrap();
    }
    let value = namespace.get("key").unwrap().unwrap();
    let mut batch = store.batch();
    batch.put(&namespace, "key", "new");
    store.clone().close().unwrap();
    let next = open(&disk);
    let next_namespace = next.open_namespace("N").unwrap();
    let before = contents(&disk);
    let (no, says) = (ErrorKind::Closed, &["closed", "open it again"][..]);
    refused(namespace.get("key"), no, says);
    refused(namespace.get_many(&["key"]), no, says);
    refused(namespace.contains("key"), no, says);
    refused(namespace.count(), no, says);
    refused(namespace.list().page(), no, says);
    refused(namespace.list().into_iter().next().unwrap(), no, says);
    refused(namespace.put("key", "new"), no, says);
    refused(namespace.delete("key"), no, says);
    refused(namespace.set_ttl("key", Duration::from_secs(1)), no, says);
    refused(batch.commit(), no, says);
    refused(store.namespace("N"), no, says);
    refused(store.namespace("new"), no, says);
    refused(store.create_namespace("new"), no, says);
    refused(store.open_namespace("N"), no, says);
    refused(store.namespaces(), no, says);
    refused(store.rename_namespace("N", "M"), no, says);
    refused(store.drop_namespace("N"), no, says);
    refused(store.flush(), no, says);
    refused(store.sync(), no, says);
    refused(store.maintain(), no, says);
    refused(store.compact(), no, says);
    refused(store.compact_if_worthwhile(), no, says);
    refused(store.compact_subset(u64::MAX), no, says);
    store.stats();
    store.clone().close().unwrap();
    drop(store);
    assert_eq!(
        contents(&disk),
        before,
        "the closed store changed the next one's directory"
    );
    assert_eq!(value, "99".repeat(100));
    assert_eq!(next_namespace.get("key").unwrap().unwrap(), "99".repeat(100));
    next.close().unwrap();
}
