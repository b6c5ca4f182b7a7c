//! Transactions: serializable, whatever others write meanwhile.

mod replay;

use std::sync::Arc;
use std::time::Duration;

use embercask::storage::{CutPolicy, Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{
    Condition, Durability, Error, ErrorKind, ManualClock, Namespace, PutOptions, RingMode, Store, Transaction,
    TransactionOptions,
};
use test_support::{manual, open};

fn store() -> (Store, Namespace) {
    let store = open(&MemStorage::new());
    let namespace = store.namespace("N").unwrap();
    (store, namespace)
}

fn listed(transaction: &mut Transaction, namespace: &Namespace) -> Vec<String> {
    let list = transaction.list(namespace).unwrap().page_size(2);
    let keys = list
        .into_iter()
        .map(|entry| entry.unwrap().key_str().unwrap().to_owned());
    keys.collect()
}

fn number(namespace: &Namespace, key: &str) -> u64 {
    namespace.get_text(key).unwrap().unwrap().parse().unwrap()
}

#[test]
fn a_transaction_sees_its_own_writes_and_nobody_else_does() {
    let (store, namespace) = store();
    for key in ["a", "b", "c", "d"] {
        namespace.put(key, "old").unwrap();
    }
    let committed = store
        .transaction_with(&TransactionOptions::new(), |transaction| {
            transaction.put(&namespace, "b", "new")?;
            transaction.put(&namespace, "bb", "new")?;
            transaction.delete(&namespace, "c")?;
            transaction.delete(&namespace, "absent")?;
            transaction.put(&namespace, "e", "new")?;
            transaction.delete(&namespace, "e")?;
            assert_eq!(transaction.get(&namespace, "b")?.unwrap(), *b"new");
            assert_eq!(transaction.get(&namespace, "bb")?.unwrap().sequence(), 0);
            assert!(transaction.get(&namespace, "c")?.is_none());
            assert!(!transaction.contains(&namespace, "e")?);
            let many = transaction.get_many(&namespace, &["a", "c", "bb"])?;
            assert_eq!(
                many.iter().map(Option::is_some).collect::<Vec<_>>(),
                [true, false, true]
            );
            assert_eq!(listed(transaction, &namespace), ["a", "b", "bb", "d"]);
            assert_eq!(transaction.count(&namespace)?, 4);
            let backwards = transaction.list(&namespace)?.reverse().with_values().page()?;
            let values: Vec<_> = backwards.iter().map(|entry| entry.value().unwrap().to_vec()).collect();
            assert_eq!(values, [&b"old"[..], b"new", b"new", b"old"]);
            // No other reader does.
            assert_eq!(namespace.get("b").unwrap().unwrap(), *b"old");
            assert_eq!(namespace.count().unwrap(), 4);
            Ok(transaction.attempt())
        })
        .unwrap();
    assert_eq!((committed.value, committed.attempts), (1, 1));
    assert_eq!(namespace.get("b").unwrap().unwrap(), *b"new");
    let keys = test_support::keys(&namespace);
    assert_eq!(keys, ["a", "b", "bb", "d"]);
    assert_eq!(store.stats().snapshots.kept_records, 0);
}

#[test]
fn a_transaction_is_as_durable_as_was_asked_for() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    for (key, durability) in [
        ("os", Durability::Os),
        ("sync", Durability::Sync),
        ("buffered", Durability::Buffered),
    ] {
        let options = TransactionOptions::new().durability(durability);
        let put = |transaction: &mut Transaction| transaction.put(&namespace, key, "1");
        store.transaction_with(&options, put).unwrap();
        let shown = |disk: MemStorage| {
            let keys = test_support::keys(&open(&disk).open_namespace("N").unwrap());
            keys.contains(&key.to_owned())
        };
        let (killed, cut) = (disk.crash_process(), disk.power_cut(&CutPolicy::LoseUnsynced));
        assert_eq!(shown(killed), durability != Durability::Buffered, "{key}");
        assert_eq!(shown(cut), durability == Durability::Sync, "{key}");
    }
}

#[test]
fn an_error_of_the_closure_writes_nothing() {
    let (store, namespace) = store();
    let refused = store.transaction(|transaction| {
        transaction.put(&namespace, "a", "new")?;
        transaction.get(&namespace, "a")?;
        Err::<(), _>(Error::Cancelled)
    });
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Cancelled);
    let refused = store.transaction(|transaction| {
        transaction.put(&namespace, "a", "new")?;
        let absent = PutOptions::new().condition(Condition::Absent);
        transaction.put_with(&namespace, "a", "again", &absent)
    });
    assert!(
        matches!(refused, Err(Error::Conflict { found: Some(0) })),
        "{refused:?}"
    );
    let refused = store.transaction(|transaction| transaction.put(&namespace, "", "no key"));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(namespace.count().unwrap(), 0);
}

/// Runs a transaction in whose first attempt `meanwhile` happens, and returns how many it took.
fn attempts<T>(
    store: &Store,
    mut run: impl FnMut(&mut Transaction) -> embercask::Result<()>,
    mut meanwhile: impl FnMut() -> T,
) -> u32 {
    let committed = store.transaction_with(&TransactionOptions::new(), |transaction| {
        run(transaction)?;
        if transaction.attempt() == 1 {
            meanwhile();
        }
        Ok(())
    });
    committed.unwrap().attempts
}

/// What was rolled back for lack of space is no conflict with others.
#[test]
fn on_a_full_disk_a_transaction_says_so_and_deletes() {
    for ring in [RingMode::Never, RingMode::Always] {
        let faults = FaultStorage::new(Arc::new(MemStorage::new()));
        let options = manual(Arc::new(faults.clone())).ring(ring).durability(Durability::Os);
        let store = options.open("/store").unwrap();
        let namespace = store.namespace("N").unwrap();
        namespace.put("k", "v").unwrap();
        // Whatever is released and compacted.
        faults.inject(Fault::new(FaultKind::Full).repeated());
        for key in ["k", "absent"] {
            for _ in 0..3 {
                let ended = store.transaction(|transaction| {
                    transaction.put(&namespace, "other", vec![0; 4000])?;
                    transaction.delete(&namespace, key)
                });
                assert_eq!(ended.unwrap_err().kind(), ErrorKind::NoSpace);
                let ended = store.transaction(|transaction| transaction.delete(&namespace, key));
                assert!(
                    ended.as_ref().is_ok() || ended.as_ref().is_err_and(|error| error.kind() == ErrorKind::NoSpace),
                    "{ended:?}"
                );
            }
        }
        faults.clear();
        store
            .transaction(|transaction| transaction.put(&namespace, "k", "again"))
            .unwrap();

        let disk = MemStorage::new();
        let options = manual(Arc::new(disk.clone())).ring(ring).durability(Durability::Os);
        let store = options.open("/store").unwrap();
        let namespace = store.namespace("N").unwrap();
        disk.set_capacity(Some(disk.used() + 30_000));
        let fitted = (0..).take_while(|number| namespace.put(format!("{number:03}"), [0; 500]).is_ok());
        let fitted = fitted.count();
        assert!(fitted > 10, "{fitted}");
        for number in 0..fitted {
            let deleted = store.transaction(|transaction| transaction.delete(&namespace, format!("{number:03}")));
            deleted.unwrap_or_else(|error| panic!("{number} of {fitted}: {error}"));
        }
        assert_eq!(namespace.count().unwrap(), 0);
    }
}

#[test]
fn what_was_read_and_is_written_by_others_is_a_conflict() {
    let (store, namespace) = store();
    namespace.put("a", "1").unwrap();
    namespace.put("b", "1").unwrap();
    // A lost update.
    let increment = |transaction: &mut Transaction| {
        let old: u64 = transaction.get(&namespace, "a")?.unwrap().as_str()?.parse().unwrap();
        transaction.put(&namespace, "a", (old + 1).to_string())
    };
    let other = || namespace.put("a", "10").unwrap();
    assert_eq!(attempts(&store, increment, other), 2);
    assert_eq!(number(&namespace, "a"), 11);
    // Write skew: each reads both and writes one.
    let copy = |transaction: &mut Transaction| {
        let a = transaction.get(&namespace, "a")?.unwrap();
        transaction.put(&namespace, "b", a)
    };
    assert_eq!(attempts(&store, copy, || namespace.put("a", "12").unwrap()), 2);
    assert_eq!(number(&namespace, "b"), 12);
    // Absence is read, too.
    let create = |transaction: &mut Transaction| {
        let is_there = transaction.contains(&namespace, "c")?;
        transaction.put(&namespace, "was there", is_there.to_string())
    };
    assert_eq!(attempts(&store, create, || namespace.put("c", "1").unwrap()), 2);
    assert_eq!(namespace.get_text("was there").unwrap().unwrap(), "true");
    let delete = || namespace.delete("c").unwrap();
    assert_eq!(attempts(&store, create, delete), 2);
    // What was not read is no conflict, nor what came back to absence.
    let other = || {
        namespace.put("c", "1").unwrap();
        namespace.delete("c").unwrap();
        namespace.put("b", "2").unwrap();
    };
    assert_eq!(attempts(&store, create, other), 1);
    // Nor is anything for a transaction that only reads.
    let read = |transaction: &mut Transaction| transaction.get(&namespace, "a").map(drop);
    assert_eq!(attempts(&store, read, || namespace.put("a", "3").unwrap()), 1);
}

#[test]
fn what_comes_into_a_range_that_was_listed_is_a_conflict() {
    let (store, namespace) = store();
    for key in ["b", "d", "f"] {
        namespace.put(key, "1").unwrap();
    }
    let count = |transaction: &mut Transaction| {
        let count = transaction.count(&namespace)?;
        transaction.put(&namespace, "zz/count", count.to_string())
    };
    assert_eq!(attempts(&store, count, || namespace.put("c", "1").unwrap()), 2);
    assert_eq!(number(&namespace, "zz/count"), 4);
    let first_two = |transaction: &mut Transaction| {
        let page = transaction.list(&namespace)?.limit(2).page()?;
        let last = page.iter().last().unwrap().key().to_vec();
        transaction.put(&namespace, "zz/last", last)
    };
    let last = || namespace.get_text("zz/last").unwrap().unwrap();
    // Behind what was read: no conflict. Before it: one.
    assert_eq!(attempts(&store, first_two, || namespace.put("e", "1").unwrap()), 1);
    assert_eq!(last(), "c");
    assert_eq!(attempts(&store, first_two, || namespace.put("a", "1").unwrap()), 2);
    assert_eq!(last(), "b");
    // An overwrite of a key that was listed, by a batch, and a deletion.
    let with_prefix = |transaction: &mut Transaction| {
        let list = transaction.list(&namespace)?.prefix("c").with_values();
        let found = list
            .page()?
            .iter()
            .map(|entry| entry.value().unwrap().to_vec())
            .collect::<Vec<_>>();
        transaction.put(&namespace, "zz/found", found.concat())
    };
    let overwrite = || store.batch().put(&namespace, "c", "2").commit().unwrap();
    assert_eq!(attempts(&store, with_prefix, overwrite), 2);
    assert_eq!(namespace.get_text("zz/found").unwrap().unwrap(), "2");
    assert_eq!(attempts(&store, with_prefix, || namespace.delete("c").unwrap()), 2);
    assert_eq!(namespace.get_text("zz/found").unwrap().unwrap(), "");
    assert_eq!(attempts(&store, with_prefix, || namespace.put("bz", "1").unwrap()), 1);
    // A batch of so many keys that only its ends are known.
    let many = || {
        let mut batch = store.batch();
        for number in 0..300 {
            batch.put(&namespace, format!("c{number}"), "3");
        }
        batch.commit().unwrap();
    };
    assert_eq!(attempts(&store, with_prefix, many), 2);
}

#[test]
fn what_expires_before_the_commit_is_a_conflict() {
    let clock = ManualClock::new(1_700_000_000_000);
    let store = manual(Arc::new(MemStorage::new()))
        .clock(clock.clone())
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    let ttl = |seconds| PutOptions::new().ttl(Duration::from_secs(seconds));
    for run in [
        &|transaction: &mut Transaction, namespace: &Namespace| transaction.contains(namespace, "key"),
        &|transaction: &mut Transaction, namespace: &Namespace| {
            Ok(transaction.list(namespace)?.prefix("key").page()?.len() == 1)
        },
    ] as [&dyn Fn(&mut Transaction, &Namespace) -> embercask::Result<bool>; 2]
    {
        namespace.put_with("key", "1", ttl(60)).unwrap();
        let note = |transaction: &mut Transaction| {
            let is_there = run(transaction, &namespace)?;
            transaction.put(&namespace, "was there", is_there.to_string())
        };
        assert_eq!(attempts(&store, note, || clock.advance(30_000)), 1);
        assert_eq!(namespace.get_text("was there").unwrap().unwrap(), "true");
        assert_eq!(attempts(&store, note, || clock.advance(30_000)), 2);
        assert_eq!(namespace.get_text("was there").unwrap().unwrap(), "false");
        // Swept meanwhile, or not.
        namespace.put_with("key", "1", ttl(60)).unwrap();
        let sweep = || {
            clock.advance(70_000);
            store.maintain().unwrap();
        };
        assert_eq!(attempts(&store, note, sweep), 2);
    }
}

/// Found by the model test: it was absent from lists and counts, though not from gets.
#[test]
fn what_a_transaction_puts_after_the_clock_was_set_back_is_listed() {
    let clock = ManualClock::new(1_700_000_000_000);
    let store = manual(Arc::new(MemStorage::new()))
        .clock(clock.clone())
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    let ttl = PutOptions::new().ttl(Duration::from_secs(60));
    namespace.put_with("before", "1", &ttl).unwrap();
    clock.set_wall(1_600_000_000_000);
    store
        .transaction(|transaction| {
            transaction.put_with(&namespace, "key", "1", &ttl)?;
            assert!(transaction.contains(&namespace, "key")?);
            assert_eq!(listed(transaction, &namespace), ["before", "key"]);
            assert_eq!(transaction.count(&namespace)?, 2);
            Ok(())
        })
        .unwrap();
    assert_eq!(namespace.count().unwrap(), 2);
}

#[test]
fn a_namespace_that_is_dropped_before_the_commit_is_a_conflict() {
    let (store, namespace) = store();
    let dropped = store.namespace("dropped").unwrap();
    dropped.put("key", "1").unwrap();
    let copy = |transaction: &mut Transaction| match transaction.get(&dropped, "key") {
        Ok(Some(value)) => transaction.put(&namespace, "copy", value),
        Err(error) if error.kind() == ErrorKind::NotFound => transaction.put(&namespace, "copy", "nothing"),
        other => panic!("{other:?}"),
    };
    assert_eq!(attempts(&store, copy, || store.drop_namespace("dropped").unwrap()), 2);
    assert_eq!(namespace.get_text("copy").unwrap().unwrap(), "nothing");
}

#[test]
fn what_was_rolled_back_decides_nothing() {
    let faults = FaultStorage::new(Arc::new(MemStorage::new()));
    let store = manual(Arc::new(faults.clone())).open("/store").unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "old").unwrap();
    // A write that waits for the device, and fails, is what the first attempt sees.
    for only_reads in [false, true] {
        let full = Fault::new(FaultKind::Error(std::io::ErrorKind::StorageFull)).on(Operation::Write);
        let mut seen = Vec::new();
        let committed = store
            .transaction_with(&TransactionOptions::new(), |transaction| {
                let value = transaction.get(&namespace, "key")?.unwrap();
                seen.push(value.as_str()?.to_owned());
                if transaction.attempt() == 1 {
                    faults.inject(full.clone().repeated());
                    let refused = namespace.put_with("other", "new", PutOptions::new().durability(Durability::Os));
                    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NoSpace);
                    faults.clear();
                }
                if !only_reads {
                    transaction.put(&namespace, "copy", value)?;
                }
                Ok(())
            })
            .unwrap();
        // It cannot know what of that it has seen.
        assert_eq!(committed.attempts, 2, "{only_reads}");
        assert_eq!(seen, ["old", "old"]);
    }
}

#[test]
fn attempts_are_bounded_and_told() {
    let (store, namespace) = store();
    namespace.put("key", "0").unwrap();
    let options = TransactionOptions::new().attempts(7);
    let mut ran = 0;
    let refused = store.transaction_with(&options, |transaction| {
        ran += 1;
        transaction.get(&namespace, "key")?;
        namespace.put("key", ran.to_string()).unwrap();
        transaction.put(&namespace, "copy", "x")
    });
    assert!(
        matches!(refused, Err(Error::TransactionConflict { attempts: 7 })),
        "{refused:?}"
    );
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(ran, 7);
    assert!(namespace.get("copy").unwrap().is_none());
    let once = TransactionOptions::new().attempts(0);
    assert!(
        store
            .transaction_with(&once, |transaction| transaction.put(&namespace, "a", "b"))
            .is_ok()
    );
}

#[test]
fn a_conflict_of_an_inner_transaction_is_an_error_of_the_outer_one() {
    let (store, namespace) = store();
    namespace.put("key", "0").unwrap();
    let once = TransactionOptions::new().attempts(1);
    let (mut outer, mut inner) = (0, 0);
    let refused = store.transaction(|transaction| {
        outer += 1;
        transaction.put(&namespace, "outer", "x")?;
        store.transaction_with(&once, |within| {
            inner += 1;
            within.get(&namespace, "key")?;
            namespace.put("key", inner.to_string()).unwrap();
            within.put(&namespace, "inner", "x")
        })
    });
    assert!(
        matches!(refused, Err(Error::TransactionConflict { attempts: 1 })),
        "{refused:?}"
    );
    assert_eq!((outer, inner), (1, 1));
    assert_eq!(namespace.count().unwrap(), 1);
}

#[test]
fn a_transaction_that_is_open_for_too_long_fails_by_that_name() {
    let store = Store::options()
        .storage(Arc::new(MemStorage::new()))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("a", "1").unwrap();
    let write_much = || {
        let key = |number| format!("{number:05} {}", "x".repeat(900));
        for number in 0..5_000 {
            let buffered = PutOptions::new().durability(Durability::Buffered);
            namespace.put_with(key(number), "", buffered).unwrap();
        }
    };
    let mut ran = 0;
    let refused = store.transaction(|transaction| {
        ran += 1;
        transaction.list(&namespace)?.limit(1).page()?;
        write_much();
        transaction.put(&namespace, "b", "1")
    });
    assert!(matches!(refused, Err(Error::TransactionTooOld)), "{refused:?}");
    assert_eq!(ran, 1);
    // Keys are checked by looking again, so they need no memory of writes.
    store
        .transaction(|transaction| {
            transaction.get(&namespace, "a")?;
            write_much();
            transaction.put(&namespace, "b", "1")
        })
        .unwrap();
}

#[test]
fn a_listing_ends_with_its_transaction() {
    let (store, namespace) = store();
    namespace.put("a", "1").unwrap();
    let list = store.transaction(|transaction| transaction.list(&namespace)).unwrap();
    assert_eq!(list.page().unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(list.count().unwrap_err().kind(), ErrorKind::InvalidInput);
    let another = open(&MemStorage::new());
    let stranger = another.namespace("N").unwrap();
    let refused = store.transaction(|transaction| transaction.put(&stranger, "a", "1"));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    let (namespace, store) = (namespace, store);
    let open_again = store.clone();
    store.close().unwrap();
    let refused = open_again.transaction(|transaction| transaction.get(&namespace, "a").map(drop));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn transactions_within_transactions_and_panics_leave_the_store_usable() {
    let (store, namespace) = store();
    namespace.put("a", "1").unwrap();
    store
        .transaction(|outer| {
            outer.put(&namespace, "outer", "1")?;
            store.transaction(|inner| inner.put(&namespace, "inner", "1"))
        })
        .unwrap();
    assert_eq!(namespace.count().unwrap(), 3);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        store.transaction(|transaction| -> embercask::Result<()> {
            transaction.put(&namespace, "b", "1")?;
            panic!("on purpose")
        })
    }));
    assert!(panicked.is_err());
    store
        .transaction(|transaction| transaction.put(&namespace, "c", "1"))
        .unwrap();
    assert!(namespace.get("b").unwrap().is_none());
    namespace.put("a", "2").unwrap();
    assert_eq!(store.stats().snapshots.kept_records, 0);
}
