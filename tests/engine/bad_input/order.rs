//! All calls check in the same order: the store, the namespace, what was passed, and only then
//! whether something is absent.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use embercask::{
    Condition, ErrorKind, Limits, Namespace, PutOptions, Result, Store, TransactionOptions, Update, WatchOptions,
};

use test_support::future::block_on;

use crate::bad_input::{invalid, limited, refused};

const TOO_LONG: &[u8] = &[b'k'; 65_537];

type Call<T> = (&'static str, fn(&T) -> Result<()>);

/// Calls on a namespace with input that is not accepted, or that are about an absent key; and
/// whether the input is refused.
const OF_NAMESPACE: &[(Call<Namespace>, bool)] = &[
    (("stats", |n| n.stats().map(drop)), false),
    (("get", |n| n.get("").map(drop)), false),
    (("get_json", |n| n.get_json::<u64>("").map(drop)), false),
    (("get_text", |n| n.get_text("").map(drop)), false),
    (("get_many", |n| n.get_many(&["", "absent"]).map(drop)), false),
    (("contains", |n| n.contains(TOO_LONG).map(drop)), false),
    (("is_cached", |n| n.is_cached(TOO_LONG).map(drop)), false),
    (("put", |n| n.put("", "1").map(drop)), true),
    (
        ("put_with", |n| n.put_with(TOO_LONG, "1", PutOptions::new()).map(drop)),
        true,
    ),
    (("put_async", |n| block_on(n.put_async("", "1")).map(drop)), true),
    (
        ("put_with_async", |n| {
            block_on(n.put_with_async(TOO_LONG, "1", PutOptions::new())).map(drop)
        }),
        true,
    ),
    (("delete_async", |n| block_on(n.delete_async("")).map(drop)), false),
    (
        ("delete_with_async", |n| {
            block_on(n.delete_with_async(TOO_LONG, None, None)).map(drop)
        }),
        false,
    ),
    (
        ("commit_async", |n| {
            block_on(n.store().batch().put(n, TOO_LONG, "1").commit_async()).map(drop)
        }),
        true,
    ),
    (("put_if", |n| n.put_if("", "1", Condition::Present).map(drop)), true),
    (("put_json", |n| n.put_json("", &1).map(drop)), true),
    (
        ("put_json_with", |n| n.put_json_with("absent", &1, zero()).map(drop)),
        true,
    ),
    (("delete", |n| n.delete("").map(drop)), false),
    (("delete", |n| n.delete(TOO_LONG).map(drop)), false),
    (("delete_if", |n| n.delete_if("", Condition::Absent).map(drop)), false),
    (
        ("delete_with", |n| n.delete_with(TOO_LONG, None, None).map(drop)),
        false,
    ),
    (("set_ttl", |n| n.set_ttl("absent", Duration::ZERO).map(drop)), true),
    (("set_ttl", |n| n.set_ttl("key", Duration::ZERO).map(drop)), true),
    (("set_expiry", |n| n.set_expiry("absent", 0).map(drop)), true),
    (("set_expiry", |n| n.set_expiry("key", 0).map(drop)), true),
    (("remove_expiry", |n| n.remove_expiry("").map(drop)), false),
    (
        ("set_metadata", |n| n.set_metadata("absent", Some(TOO_LONG)).map(drop)),
        true,
    ),
    (
        ("set_metadata", |n| n.set_metadata("key", Some(TOO_LONG)).map(drop)),
        true,
    ),
    (("get_range", |n| n.get_range("", ..).map(drop)), false),
    (("get_with", |n| n.get_with("", |_| ()).map(drop)), false),
    (("update", |n| n.update("", |_| Update::Keep).map(drop)), false),
    (
        ("update", |n| {
            n.update("", |_| Update::Put(Vec::new(), PutOptions::new())).map(drop)
        }),
        true,
    ),
    (("increment", |n| n.increment("", 1).map(drop)), true),
    (
        ("replace", |n| n.replace(TOO_LONG, "1", &PutOptions::new()).map(drop)),
        true,
    ),
    (("take", |n| n.take("").map(drop)), false),
    (
        ("put_when", |n| {
            n.put_when("", "1", &PutOptions::new(), |_| true).map(drop)
        }),
        true,
    ),
    (("delete_when", |n| n.delete_when("", None, |_| true).map(drop)), false),
    (("pop_first", |n| n.pop_first("absent").map(drop)), false),
    (("pop_last", |n| n.pop_last(TOO_LONG).map(drop)), false),
    (("run", |n| n.delete_prefix("absent").run().map(drop)), false),
    (
        ("run", |n| n.delete_prefix("absent").batch_keys(0).run().map(drop)),
        true,
    ),
    (("set_default_ttl", |n| n.set_default_ttl(Some(Duration::ZERO))), true),
    (("watch", |n| n.watch(TOO_LONG).map(drop)), false),
    (
        ("watch_with", |n| {
            n.watch_with("", WatchOptions::new().capacity(0)).map(drop)
        }),
        true,
    ),
    (("get", |n| n.store().snapshot()?.get(n, "").map(drop)), false),
    (
        ("get_many", |n| n.store().snapshot()?.get_many(n, &[""]).map(drop)),
        false,
    ),
    (
        ("contains", |n| n.store().snapshot()?.contains(n, TOO_LONG).map(drop)),
        false,
    ),
    (("list", |n| n.store().snapshot()?.list(n).map(drop)), false),
    (("count", |n| n.store().snapshot()?.count(n).map(drop)), false),
    (
        ("transaction", |n| {
            n.store().transaction(|transaction| transaction.get(n, "").map(drop))
        }),
        false,
    ),
    (
        ("transaction", |n| {
            n.store().transaction(|transaction| transaction.put(n, "", "1"))
        }),
        true,
    ),
    (
        ("transaction", |n| {
            n.store().transaction(|transaction| transaction.delete(n, TOO_LONG))
        }),
        false,
    ),
    (
        ("transaction", |n| {
            n.store()
                .transaction(|transaction| transaction.list(n)?.page_size(0).page().map(drop))
        }),
        true,
    ),
    (("count", |n| n.count().map(drop)), false),
    (("count", |n| n.list().page_size(0).count().map(drop)), false),
    (("page", |n| n.list().page_size(0).page().map(drop)), true),
    (("page", |n| n.list().cursor("wrong").page().map(drop)), true),
    (("page", |n| n.list().cursor("wrong").limit(0).page().map(drop)), true),
    (("next", |n| n.list().page_size(0).walk().next().map(drop)), true),
    (
        ("next", |n| {
            n.list().cursor("wrong").into_iter().next().unwrap().map(drop)
        }),
        true,
    ),
    (
        ("for_each", |n| {
            n.list()
                .page_size(0)
                .walk()
                .for_each(|_| std::ops::ControlFlow::<()>::Continue(()))
                .map(drop)
        }),
        true,
    ),
    (("try_put", |n| n.store().batch().try_put(n, "", "1")), true),
    (
        ("try_put_with", |n| {
            n.store().batch().try_put_with(n, "absent", "1", zero())
        }),
        true,
    ),
    (
        ("commit", |n| n.store().batch().put(n, TOO_LONG, "1").commit().map(drop)),
        true,
    ),
    (
        ("commit", |n| n.store().batch().delete(n, "").commit().map(drop)),
        false,
    ),
    (
        ("commit", |n| {
            n.store()
                .batch()
                .delete_if(n, TOO_LONG, Condition::Absent)
                .commit()
                .map(drop)
        }),
        false,
    ),
];

/// Calls on a store with input that is not accepted, or that are about an absent namespace; and
/// what an open store says.
const OF_STORE: &[(Call<Store>, Option<ErrorKind>)] = &[
    (
        ("namespace", |s| s.namespace("").map(drop)),
        Some(ErrorKind::InvalidInput),
    ),
    (
        ("open_namespace", |s| s.open_namespace("").map(drop)),
        Some(ErrorKind::NotFound),
    ),
    (("namespace_by_id", |s| s.namespace_by_id(0).map(drop)), None),
    (
        ("create_namespace", |s| s.create_namespace("").map(drop)),
        Some(ErrorKind::InvalidInput),
    ),
    (
        ("create_namespace_with_id", |s| {
            s.create_namespace_with_id("", 0).map(drop)
        }),
        Some(ErrorKind::InvalidInput),
    ),
    (
        ("rename_namespace", |s| s.rename_namespace("absent", "")),
        Some(ErrorKind::InvalidInput),
    ),
    (
        ("rename_namespace", |s| s.rename_namespace("absent", "absent")),
        Some(ErrorKind::NotFound),
    ),
    (
        ("drop_namespace", |s| s.drop_namespace("absent")),
        Some(ErrorKind::NotFound),
    ),
    (("namespaces", |s| s.namespaces().map(drop)), None),
    (("namespace_stats", |s| s.namespace_stats().map(drop)), None),
    (("snapshot", |s| s.snapshot().map(drop)), None),
    (("snapshots", |s| s.snapshots().map(drop)), None),
    (
        ("open_namespace", |s| s.snapshot()?.open_namespace("").map(drop)),
        Some(ErrorKind::NotFound),
    ),
    (
        ("transaction_with", |s| {
            s.transaction_with(&TransactionOptions::new(), |_| Ok(())).map(drop)
        }),
        None,
    ),
    (("refresh", |s| s.refresh().map(drop)), None),
    (("wait_idle", |s| s.wait_idle(Duration::ZERO).map(drop)), None),
    (("commit", |s| s.batch().commit().map(drop)), None),
    (("commit_async", |s| block_on(s.batch().commit_async()).map(drop)), None),
    (("flush", |s| s.flush()), None),
    (("sync", |s| s.sync()), None),
    (("sync_async", |s| block_on(s.sync_async())), None),
    (("maintain", |s| s.maintain()), None),
    (("compact", |s| s.compact().map(drop)), None),
    (("compact_if_worthwhile", |s| s.compact_if_worthwhile().map(drop)), None),
    (("compact_subset", |s| s.compact_subset(u64::MAX).map(drop)), None),
    (
        ("checkpoint", |s| s.checkpoint(s.directory()).map(drop)),
        Some(ErrorKind::InvalidInput),
    ),
    (
        ("checkpoint_with", |s| {
            s.checkpoint_with(s.directory(), |_| false).map(drop)
        }),
        Some(ErrorKind::InvalidInput),
    ),
    (("verify", |s| s.verify().map(drop)), None),
    (("verify_with", |s| s.verify_with(|_| true).map(drop)), None),
];

/// Other functions in these sources that return a result.
const OTHERS: [&str; 8] = [
    "open",
    "open_in_memory",
    "in_memory",
    "destroy",
    "close",
    "key_str",
    "try_delete",
    "step",
];

fn zero() -> PutOptions {
    PutOptions::new().ttl(Duration::ZERO)
}

#[test]
fn a_closed_store_says_so_whatever_it_is_asked() {
    let (store, namespace) = limited(Limits::ENGINE);
    store.clone().close().unwrap();
    for ((name, call), _) in OF_NAMESPACE {
        println!("{name}");
        refused(call(&namespace), ErrorKind::Closed, &["closed"]);
    }
    for ((name, call), _) in OF_STORE {
        println!("{name}");
        refused(call(&store), ErrorKind::Closed, &["closed"]);
    }
}

#[test]
fn a_dropped_namespace_says_so_whatever_it_is_asked() {
    let (store, _) = limited(Limits::ENGINE);
    let namespace = store.namespace("dropped").unwrap();
    namespace.put("key", "1").unwrap();
    store.drop_namespace("dropped").unwrap();
    for ((name, call), _) in OF_NAMESPACE {
        println!("{name}");
        refused(call(&namespace), ErrorKind::NotFound, &["\"dropped\""]);
    }
}

#[test]
fn wrong_input_is_refused_whether_or_not_what_it_is_about_is_there() {
    let (store, namespace) = limited(Limits::ENGINE);
    for ((name, call), is_refused) in OF_NAMESPACE {
        println!("{name}");
        match is_refused {
            true => invalid(call(&namespace), &[]),
            false => call(&namespace).unwrap(),
        }
    }
    for ((name, call), expected) in OF_STORE {
        println!("{name}");
        assert_eq!(call(&store).err().map(|error| error.kind()), *expected, "{name}");
    }
}

#[test]
fn every_public_call_that_may_fail_is_in_the_tables() {
    fn collect(path: &Path, names: &mut BTreeSet<String>) {
        if path.is_dir() {
            for entry in std::fs::read_dir(path).unwrap() {
                collect(&entry.unwrap().path(), names);
            }
            return;
        }
        let text = std::fs::read_to_string(path).unwrap();
        for function in text.split("\n    pub fn ").skip(1) {
            let signature = function.split(" {\n").next().unwrap();
            let name = signature.split(['(', '<']).next().unwrap();
            if signature.contains("-> Result<") {
                names.insert(name.to_owned());
            }
        }
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut names = BTreeSet::new();
    collect(&source.join("store"), &mut names);
    collect(&source.join("repair/verify"), &mut names);
    assert!(names.len() > 40, "{names:?}");
    let of_namespace = OF_NAMESPACE.iter().map(|((name, _), _)| *name);
    let called: BTreeSet<_> = of_namespace
        .chain(OF_STORE.iter().map(|((name, _), _)| *name))
        .chain(OTHERS)
        .collect();
    let missing: Vec<_> = names.iter().filter(|name| !called.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "not in the tables: {missing:?}");
}
