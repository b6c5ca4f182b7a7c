//! One failure at any call of a mixed workload: nothing acknowledged is lost.

use std::collections::BTreeMap;

use embercask::storage::{Fault, FaultKind};
use embercask::{Durability, ErrorKind, Namespace, Result, Store};

use crate::faults::{FAILED, junk, world};
use test_support::{at_least, class, keys, open, text};

/// Values allowed for a key: one, or either of two after a failed write.
type Allowed = BTreeMap<String, Vec<Option<String>>>;

fn allow(allowed: &mut Allowed, key: &str, value: Option<&str>, result: &Result<()>) {
    let known = allowed.entry(key.to_owned()).or_insert_with(|| vec![None]);
    if result.is_ok() {
        known.clear();
    }
    known.push(value.map(str::to_owned));
}

#[track_caller]
fn check(namespace: &Namespace, allowed: &Allowed, context: &str) {
    for (key, values) in allowed {
        let found = text(namespace, key);
        assert!(
            values.contains(&found),
            "{context}: {key} is {found:?}, not any of {values:?}"
        );
        assert_eq!(namespace.contains(key).unwrap(), found.is_some(), "{context}: {key}");
    }
    assert_eq!(text(namespace, "a"), text(namespace, "b"), "{context}: half a batch");
    let listed = keys(namespace);
    let there: Vec<_> = allowed
        .keys()
        .filter(|key| text(namespace, key).is_some())
        .cloned()
        .collect();
    assert_eq!(listed, there, "{context}");
    assert_eq!(namespace.count().unwrap(), there.len() as u64, "{context}");
}

/// Performs all kinds of writes, over several segments and compactions; returns the allowed values
/// and the number of failed calls.
fn work(store: &Store, namespace: &Namespace) -> (Allowed, u64) {
    let mut allowed = Allowed::new();
    let mut failed = 0;
    for n in 0..40 {
        let value = format!("{n} {}", "x".repeat(300));
        let key = format!("key {}", n % 6);
        let result = match n % 10 {
            9 => {
                let result = store.compact().map(drop);
                failed += u64::from(result.is_err());
                assert!(
                    !matches!(&result, Err(error) if error.kind() == ErrorKind::Corruption),
                    "{result:?}"
                );
                continue;
            }
            5 => {
                let result = store
                    .batch()
                    .put(namespace, "a", &value)
                    .put(namespace, "b", &value)
                    .commit()
                    .map(drop);
                allow(&mut allowed, "a", Some(&value), &result);
                allow(&mut allowed, "b", Some(&value), &result);
                result
            }
            7 => {
                let result = namespace.delete(&key).map(drop);
                allow(&mut allowed, &key, None, &result);
                result
            }
            _ => {
                let durability = if n % 4 == 0 { Durability::Os } else { Durability::Sync };
                let result = namespace.put_with(&key, &value, class(durability)).map(drop);
                allow(&mut allowed, &key, Some(&value), &result);
                result
            }
        };
        if let Err(error) = result {
            failed += 1;
            let kinds = [ErrorKind::Io, ErrorKind::NoSpace, ErrorKind::Poisoned];
            assert!(kinds.contains(&error.kind()), "{error}");
        }
        check(namespace, &allowed, "at work");
    }
    (allowed, failed)
}

#[test]
fn one_failure_anywhere_loses_nothing_acknowledged() {
    // Floors: runs in which the fault struck, and calls that failed in all of them.
    for (fault, struck_least, failed_least) in [
        (FAILED, 100, 50),
        (FaultKind::Full, 50, 30),
        (FaultKind::FailedSync, 50, 500),
        // The rest of a short write is written at once, without an error.
        (FaultKind::ShortWrite { bytes: 30 }, 50, 0),
    ] {
        let (mut struck, mut failures) = (0, 0);
        for step in 0.. {
            let (disk, faults, store, namespace) = world();
            namespace.delete("key").unwrap();
            let begin = faults.steps();
            faults.inject(Fault::new(fault).at(begin + step));
            let (allowed, failed) = work(&store, &namespace);
            let done = faults.steps() <= begin + step;
            faults.clear();
            struck += faults.struck();
            failures += failed;
            assert!(
                faults.struck() > 0 || failed == 0,
                "{fault:?} at step {step}: refused although no fault struck"
            );
            let context = format!("{fault:?} at step {step}");
            check(&namespace, &allowed, &context);
            let killed = disk.crash_process();
            check(
                &open(&killed).open_namespace("N").unwrap(),
                &allowed,
                &format!("{context}, killed"),
            );
            let fine = store.stats().poisoned.is_none();
            let seen: Vec<_> = allowed.keys().map(|key| text(&namespace, key)).collect();
            let closed = store.close();
            assert_eq!(closed.is_ok(), fine, "{context}: {closed:?}");
            let store = open(&disk);
            let namespace = store.open_namespace("N").unwrap();
            check(&namespace, &allowed, &format!("{context}, reopened"));
            if fine {
                let found: Vec<_> = allowed.keys().map(|key| text(&namespace, key)).collect();
                assert_eq!(found, seen, "{context}: a successful close changed the content");
            }
            assert!(junk(&disk, &store).is_empty(), "{context}: {:?}", junk(&disk, &store));
            if done {
                break;
            }
        }
        at_least(struck_least, struck, &format!("calls struck by {fault:?}"));
        at_least(
            failed_least,
            failures,
            &format!("writes and compactions failed by {fault:?}"),
        );
        assert!(failed_least > 0 || failures == 0, "{fault:?}: {failures} failed");
    }
}
