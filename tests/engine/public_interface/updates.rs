//! Changes of one key that depend on its value.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use embercask::storage::MemStorage;
use embercask::{
    Condition, Durability, Error, ErrorKind, ManualClock, Namespace, PutOptions, ReadMode, Store, Update, Value,
};

use test_support::{DIRECTORY, manual, text};

fn opened() -> (Store, Namespace) {
    let store = manual(Arc::new(MemStorage::new()))
        .durability(Durability::Buffered)
        .clock(ManualClock::new(2_000_000_000_000))
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    (store, namespace)
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// Runs `other` on another thread: the program may do so where this thread may not call the store.
fn elsewhere<T: Send>(other: impl FnOnce() -> T + Send) {
    std::thread::scope(|scope| drop(scope.spawn(other).join().unwrap()));
}

#[test]
fn an_update_does_what_its_function_returns_for_the_value_before() {
    let (_store, namespace) = opened();
    let options = PutOptions::new().ttl(Duration::from_secs(60)).metadata("m");
    let put = namespace
        .update("key", |old| {
            assert!(old.is_none());
            Update::Put(b"1".to_vec(), options.clone())
        })
        .unwrap();
    assert!(put.old.is_none());
    let first = namespace.get("key").unwrap().unwrap();
    assert_eq!(put.sequence, Some(first.sequence()));

    // Expiry and metadata are those of the new put, or of the old value if that is asked for.
    let longer = |old: Option<&Value>, options: fn(&Value) -> PutOptions| {
        let old = old.unwrap();
        Update::Put([old.as_bytes(), b"2"].concat(), options(old))
    };
    let kept = namespace.update("key", |old| longer(old, PutOptions::like)).unwrap();
    assert_eq!(kept.old.unwrap(), "1");
    let second = namespace.get("key").unwrap().unwrap();
    assert_eq!((&*second, second.metadata()), (&b"12"[..], Some(&b"m"[..])));
    assert_eq!(second.expiry_ms(), first.expiry_ms());
    assert!(second.expiry_ms().is_some() && kept.sequence == Some(second.sequence()));
    namespace
        .update("key", |old| longer(old, |_| PutOptions::new()))
        .unwrap();
    let third = namespace.get("key").unwrap().unwrap();
    assert_eq!(
        (&*third, third.metadata(), third.expiry_ms()),
        (&b"122"[..], None, None)
    );

    // A condition counts beside the function.
    let absent = PutOptions::new().condition(Condition::Absent);
    let refused = namespace.update("key", |_| Update::Put(Vec::new(), absent.clone()));
    assert!(matches!(refused, Err(Error::Conflict { found: Some(found) }) if found == third.sequence()));

    let nothing = namespace.update("key", |_| Update::Keep).unwrap();
    assert_eq!((nothing.old.unwrap(), nothing.sequence), (third, None));
    let deleted = namespace.update("key", |_| Update::Delete).unwrap();
    assert_eq!(deleted.old.unwrap(), "122");
    assert!(deleted.sequence > kept.sequence);
    assert_eq!(text(&namespace, "key"), None);
    let deleted = namespace.update("key", |_| Update::Delete).unwrap();
    assert!(deleted.old.is_none() && deleted.sequence.is_none());
}

#[test]
fn an_update_begins_again_if_the_key_changes_meanwhile_and_gives_up_in_the_end() {
    let (_store, namespace) = opened();
    namespace.put("key", "a").unwrap();
    let mut seen = Vec::new();
    let updated = namespace.update("key", |old| {
        let old = old.map(|value| value.as_str().unwrap().to_owned()).unwrap_or_default();
        match seen.len() {
            0 => elsewhere(|| namespace.put("key", "b").unwrap()),
            1 => elsewhere(|| namespace.delete("key").unwrap()),
            2 => elsewhere(|| namespace.put("key", "c").unwrap()),
            _ => {}
        }
        seen.push(old.clone());
        Update::Put(format!("{old}!").into_bytes(), PutOptions::new())
    });
    assert_eq!(updated.unwrap().old.unwrap(), "c");
    assert_eq!(seen, ["a", "b", "", "c"]);
    assert_eq!(text(&namespace, "key").as_deref(), Some("c!"));

    let mut tries = 0;
    let refused = namespace.update("key", |_| {
        tries += 1;
        elsewhere(|| namespace.put("key", tries.to_string()).unwrap());
        Update::Delete
    });
    let Err(Error::TooManyConflicts { attempts }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((attempts, tries), (1000, 1000));
    assert_eq!(kind(refused), ErrorKind::Conflict);
    assert_eq!(text(&namespace, "key").as_deref(), Some("1000"));
}

#[test]
fn increments_add_up_and_keep_what_is_beside_the_number() {
    let (_store, namespace) = opened();
    assert_eq!(namespace.increment("n", 5).unwrap(), 5);
    assert_eq!(namespace.increment("n", -7).unwrap(), -2);
    assert_eq!(text(&namespace, "n").as_deref(), Some("-2"));
    let options = PutOptions::new().ttl(Duration::from_secs(60)).metadata("m");
    namespace.put_with("n", "41", options).unwrap();
    let expiry = namespace.get("n").unwrap().unwrap().expiry_ms();
    assert_eq!(namespace.increment("n", 1).unwrap(), 42);
    let value = namespace.get("n").unwrap().unwrap();
    assert_eq!(
        (&*value, value.metadata(), value.expiry_ms()),
        (&b"42"[..], Some(&b"m"[..]), expiry)
    );

    for other in ["", "4 2", "1.0", "9223372036854775808"] {
        namespace.put("text", other).unwrap();
        let refused = namespace.increment("text", 1);
        assert!(matches!(refused, Err(Error::Decode { .. })), "{other:?}: {refused:?}");
        assert_eq!(text(&namespace, "text").as_deref(), Some(other));
    }
    for (number, by) in [(i64::MAX, 1), (i64::MIN, -1), (-2, i64::MIN)] {
        namespace.put("n", number.to_string()).unwrap();
        assert_eq!(kind(namespace.increment("n", by)), ErrorKind::InvalidInput);
        assert_eq!(text(&namespace, "n"), Some(number.to_string()));
    }
}

#[test]
fn what_is_replaced_or_taken_is_returned() {
    let (_store, namespace) = opened();
    let options = PutOptions::new().metadata("m");
    assert!(namespace.replace("key", "1", &options).unwrap().is_none());
    assert_eq!(namespace.replace("key", "2", &options).unwrap().unwrap(), "1");
    assert_eq!(namespace.get("key").unwrap().unwrap().metadata(), Some(&b"m"[..]));
    let taken = namespace.take("key").unwrap().unwrap();
    assert_eq!((&*taken, taken.metadata()), (&b"2"[..], Some(&b"m"[..])));
    assert_eq!(text(&namespace, "key"), None);
    assert!(namespace.take("key").unwrap().is_none());
    let present = PutOptions::new().condition(Condition::Present);
    assert_eq!(kind(namespace.replace("key", "3", &present)), ErrorKind::Conflict);
}

#[test]
fn a_write_goes_by_what_its_function_says_of_the_value() {
    let (_store, namespace) = opened();
    let is = |expected: &'static [u8]| move |old: Option<&Value>| old.is_some_and(|old| *old == *expected);
    let plain = PutOptions::new();
    let refused = namespace.put_when("key", "1", &plain, is(b"0"));
    assert!(matches!(refused, Err(Error::Conflict { found: None })));
    let sequence = namespace.put_when("key", "1", &plain, |old| old.is_none()).unwrap();
    assert_eq!(namespace.get("key").unwrap().unwrap().sequence(), sequence);
    let options = PutOptions::new().metadata("m").ttl(Duration::from_secs(60));
    namespace.put_when("key", "2", &options, is(b"1")).unwrap();
    let value = namespace.get("key").unwrap().unwrap();
    assert_eq!((&*value, value.metadata()), (&b"2"[..], Some(&b"m"[..])));
    assert!(value.expiry_ms().is_some());
    // Its own condition holds as well, or nothing is written.
    let absent = PutOptions::new().condition(Condition::Absent);
    assert_eq!(
        kind(namespace.put_when("key", "3", &absent, |_| true)),
        ErrorKind::Conflict
    );
    let refused = namespace.delete_when("key", None, is(b"1"));
    assert!(matches!(refused, Err(Error::Conflict { found: Some(found) }) if found == value.sequence()));
    assert_eq!(text(&namespace, "key").as_deref(), Some("2"));
    assert!(
        namespace
            .delete_when("key", Some(Durability::Sync), is(b"2"))
            .unwrap()
            .existed
    );
    assert_eq!(text(&namespace, "key"), None);
    assert!(!namespace.delete_when("key", None, |old| old.is_none()).unwrap().existed);
}

#[test]
fn a_value_that_changes_while_it_is_judged_is_judged_again() {
    let (_store, namespace) = opened();
    let plain = PutOptions::new();
    // The first verdict is overtaken by another write, whose value gets one of its own.
    for (new, accepted) in [(Some("good"), true), (Some("bad"), false), (None, false)] {
        for deletes in [false, true] {
            namespace.put("key", "good").unwrap();
            let mut seen = Vec::new();
            let holds = |old: Option<&Value>| {
                let old = old.map(|value| value.as_str().unwrap().to_owned());
                if seen.is_empty() {
                    elsewhere(|| match new {
                        Some(new) => drop(namespace.put("key", new).unwrap()),
                        None => drop(namespace.delete("key").unwrap()),
                    });
                }
                seen.push(old.clone());
                old.as_deref() == Some("good")
            };
            let written = match deletes {
                true => namespace.delete_when("key", None, holds).map(drop),
                false => namespace.put_when("key", "mine", &plain, holds).map(drop),
            };
            assert_eq!(seen, [Some("good".to_owned()), new.map(str::to_owned)]);
            assert_eq!(written.is_ok(), accepted, "{new:?}");
            let stands = match (accepted, deletes) {
                (true, true) => None,
                (true, false) => Some("mine"),
                (false, _) => new,
            };
            assert_eq!(text(&namespace, "key").as_deref(), stands);
        }
    }
    // A verdict on a value that has not changed is not asked for twice.
    let mut runs = 0;
    let counted = |_: Option<&Value>| {
        runs += 1;
        true
    };
    namespace.put_when("key", "again", &plain, counted).unwrap();
    assert_eq!(runs, 1);
}

#[test]
fn a_function_that_calls_a_store_is_refused_by_name_and_nothing_waits() {
    let (store, namespace) = opened();
    let (other_store, other) = opened();
    namespace.put("key", "1").unwrap();
    let refused = |result: Result<(), Error>| {
        let error = result.expect_err("a call from within is refused");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("from within the function"), "{error}");
    };
    let call_all = || {
        refused(namespace.get("key").map(drop));
        refused(namespace.get_many(&["key"]).map(drop));
        refused(namespace.contains("key").map(drop));
        refused(namespace.put("key", "2").map(drop));
        refused(namespace.delete("key").map(drop));
        refused(namespace.increment("key", 1).map(drop));
        refused(namespace.put_when("key", "2", &PutOptions::new(), |_| true).map(drop));
        refused(namespace.list().page().map(drop));
        refused(namespace.count().map(drop));
        refused(namespace.stats().map(drop));
        refused(store.batch().put(&namespace, "key", "2").commit().map(drop));
        refused(store.flush());
        refused(store.sync());
        refused(store.maintain());
        refused(store.compact().map(drop));
        refused(store.compact_if_worthwhile().map(drop));
        refused(store.namespace("another").map(drop));
        refused(store.rename_namespace("N", "M"));
        refused(store.drop_namespace("N"));
        refused(store.checkpoint("/copy").map(drop));
        refused(store.verify().map(drop));
        refused(store.clone().close());
        assert!(store.stats().poisoned.unwrap().contains("from within the function"));
        // Two threads that wait for each other's stores would wait for ever.
        refused(other.put("key", "2").map(drop));
        refused(other_store.sync());
    };
    // Outside the lock, and under it.
    let mut runs = 0;
    let judged = |_: Option<&Value>| {
        runs += 1;
        call_all();
        if runs == 1 {
            elsewhere(|| namespace.put("key", "1").unwrap());
        }
        true
    };
    namespace.put_when("key", "2", &PutOptions::new(), judged).unwrap();
    assert_eq!(runs, 2);
    namespace
        .update("key", |_| {
            call_all();
            Update::Put(b"3".to_vec(), PutOptions::new())
        })
        .unwrap();
    // Also after one that has panicked under the lock.
    let mut runs = 0;
    let panics = std::panic::AssertUnwindSafe(|| {
        namespace.delete_when("key", None, |_| {
            runs += 1;
            assert_eq!(runs, 1, "on purpose");
            elsewhere(|| namespace.put("key", "4").unwrap());
            true
        })
    });
    assert!(std::panic::catch_unwind(panics).is_err());
    assert_eq!(text(&namespace, "key").as_deref(), Some("4"));
    namespace.put("key", "5").unwrap();
    assert_eq!(store.stats().poisoned, None);
}

#[test]
fn a_part_of_a_value_is_cut_from_it_and_stays_beside_the_rest() {
    for read_mode in [ReadMode::Map, ReadMode::Pread] {
        let store = manual(Arc::new(MemStorage::new()))
            .read_mode(read_mode)
            .open(DIRECTORY)
            .unwrap();
        let namespace = store.namespace("N").unwrap();
        let options = PutOptions::new().metadata("meta").ttl(Duration::from_secs(60));
        namespace.put_with("key", "0123456789", options).unwrap();
        store.maintain().unwrap();
        let whole = namespace.get("key").unwrap().unwrap();
        let ranges = [
            ((Bound::Included(2), Bound::Excluded(5)), "234"),
            ((Bound::Included(2), Bound::Included(5)), "2345"),
            ((Bound::Excluded(2), Bound::Unbounded), "3456789"),
            ((Bound::Unbounded, Bound::Unbounded), "0123456789"),
            ((Bound::Included(8), Bound::Excluded(100)), "89"),
            ((Bound::Included(10), Bound::Unbounded), ""),
            ((Bound::Included(usize::MAX), Bound::Included(usize::MAX)), ""),
            ((Bound::Included(5), Bound::Excluded(2)), ""),
        ];
        for (range, expected) in ranges {
            for part in [whole.slice(range), namespace.get_range("key", range).unwrap().unwrap()] {
                assert_eq!(part.as_str().unwrap(), expected, "{range:?}");
                assert_eq!(part.metadata(), Some(&b"meta"[..]));
                assert_eq!(
                    (part.sequence(), part.expiry_ms()),
                    (whole.sequence(), whole.expiry_ms())
                );
            }
        }
        let part = whole.slice(2..8);
        drop(whole);
        assert_eq!(part.slice(1..).slice(..2), "34");
        assert_eq!(part.slice(..100), "234567");
        assert!(namespace.get_range("absent", ..1).unwrap().is_none());
    }
}
