use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::plan::SORTED_MIN;
use crate::state::State;
use crate::storage::MemStorage;
use crate::sync::lock;
use crate::{Maintenance, ManualClock, Namespace, PutOptions, Store};

pub(crate) type Hook = Arc<dyn Fn() + Send + Sync>;

impl State {
    pub(in crate::state) fn call_between_steps(&self) {
        let hook = lock(&self.between_steps).clone();
        if let Some(hook) = hook {
            hook();
        }
    }

    pub(in crate::state) fn call_between_turns(&self) {
        let hook = lock(&self.between_turns).clone();
        if let Some(hook) = hook {
            hook();
        }
    }
}

fn open(clock: &ManualClock) -> (Store, Namespace) {
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .clock(clock.clone())
        .expiry_grace(Duration::ZERO)
        .storage(Arc::new(MemStorage::new()))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    (store, namespace)
}

/// What every kind of read shows.
fn shown(namespace: &Namespace) -> BTreeMap<String, String> {
    let mut shown = BTreeMap::new();
    for entry in namespace.list().with_values().page_size(3) {
        let entry = entry.unwrap();
        let value = entry.value().unwrap().as_str().unwrap().to_owned();
        shown.insert(entry.key_str().unwrap().to_owned(), value);
    }
    let keys: Vec<_> = shown.keys().cloned().collect();
    let listed = |list: crate::List| {
        list.into_iter()
            .map(|entry| entry.unwrap().key_str().unwrap().to_owned())
    };
    assert_eq!(listed(namespace.list()).collect::<Vec<_>>(), keys);
    assert_eq!(
        listed(namespace.list().reverse()).collect::<Vec<_>>(),
        keys.iter().rev().cloned().collect::<Vec<_>>()
    );
    assert_eq!(namespace.count().unwrap(), keys.len() as u64);
    let asked = ["a", "b", "c", "d", "e", "f"];
    let many = namespace.get_many(&asked).unwrap();
    for (key, of_many) in asked.iter().zip(many) {
        let text = |value: crate::Value| value.as_str().unwrap().to_owned();
        assert_eq!(of_many.map(text), shown.get(*key).cloned(), "{key}");
        assert_eq!(namespace.get_text(key).unwrap(), shown.get(*key).cloned(), "{key}");
        assert_eq!(namespace.contains(key).unwrap(), shown.contains_key(*key), "{key}");
    }
    shown
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn a_batch_is_seen_as_a_whole_at_every_step_of_applying_it() {
    for more in [0, 100, SORTED_MIN] {
        let (store, namespace) = open(&ManualClock::new(1_000_000));
        for key in ["a", "b", "d"] {
            namespace.put(key, "old").unwrap();
        }
        let before = map(&[("a", "old"), ("b", "old"), ("d", "old")]);
        assert_eq!(shown(&namespace), before);
        let mut after = map(&[("a", "new"), ("c", "new"), ("d", "last"), ("f", "new")]);
        let mut batch = store.batch();
        batch
            .put(&namespace, "a", "new")
            .delete(&namespace, "b")
            .put(&namespace, "c", "new");
        batch
            .put(&namespace, "d", "first")
            .delete(&namespace, "d")
            .put(&namespace, "d", "last");
        batch.put(&namespace, "e", "new").delete(&namespace, "e");
        for number in 0..more {
            // Behind, between and in another namespace.
            batch.put(&namespace, format!("ff{number:05}"), "x");
            after.insert(format!("ff{number:05}"), "x".to_owned());
        }
        batch.put(&namespace, "f", "new");
        let (steps, state) = (Arc::new(AtomicUsize::new(0)), store.engine().state.clone());
        let (counted, reader, expected) = (steps.clone(), namespace.clone(), after.clone());
        *lock(&state.between_steps) = Some(Arc::new(move || {
            let step = counted.fetch_add(1, Ordering::Relaxed);
            // All steps of what matters, and a few of the others.
            if step < 12 || step > expected.len() || step % 1000 == 0 {
                assert_eq!(shown(&reader), expected, "step {step}");
            }
        }));
        batch.commit().unwrap();
        *lock(&state.between_steps) = None;
        assert_eq!(
            steps.load(Ordering::Relaxed),
            10 + more,
            "one when it is published, and one a record"
        );
        assert_eq!(shown(&namespace), after);
    }
}

#[test]
fn a_listing_takes_no_keys_of_other_namespaces_or_beyond_its_bounds_from_a_batch() {
    for more in [0, SORTED_MIN] {
        let (store, namespace) = open(&ManualClock::new(1_000_000));
        let [first, last] = ["first", "last"].map(|name| store.namespace(name).unwrap());
        let mut batch = store.batch();
        for namespace in [&last, &namespace, &first] {
            for key in ["b/1", "a/1", "b/3", "b/2", "c/1"] {
                batch.put(namespace, key, "x");
            }
        }
        for number in 0..more {
            batch.put(&first, format!("b/x{number}"), "x");
        }
        let reader = namespace.clone();
        let state = store.engine().state.clone();
        *lock(&state.between_steps) = Some(Arc::new(move || {
            let list = reader.list().prefix("b/");
            let page = list.clone().page_size(2).page().unwrap();
            let keys: Vec<_> = page.iter().map(|entry| entry.key_str().unwrap()).collect();
            assert_eq!(keys, ["b/1", "b/2"]);
            let page = list.clone().reverse().page_size(2).page().unwrap();
            let keys: Vec<_> = page.iter().map(|entry| entry.key_str().unwrap()).collect();
            assert_eq!(keys, ["b/3", "b/2"]);
            assert_eq!(list.start_after("b/2").count().unwrap(), 1);
        }));
        batch.commit().unwrap();
        *lock(&state.between_steps) = None;
    }
}

fn put_both(store: &Store, namespace: &Namespace, value: &str) {
    let mut batch = store.batch();
    batch.put(namespace, "a", value).put(namespace, "b", value);
    batch.commit().unwrap();
}

#[test]
fn a_look_at_several_keys_begins_again_if_a_batch_has_come_between() {
    let (store, namespace) = open(&ManualClock::new(1_000_000));
    put_both(&store, &namespace, "old");
    let mut looks = 0;
    let seen = store.engine().state.consistently(|view| {
        looks += 1;
        assert_eq!(view.is_some(), looks > 1);
        let a = namespace.get_text("a")?;
        if looks == 1 {
            put_both(&store, &namespace, "new");
        }
        Ok((a, namespace.get_text("b")?))
    });
    let new = Some("new".to_owned());
    assert_eq!(seen.unwrap(), (new.clone(), new));
    assert_eq!(looks, 2);
}

#[test]
fn a_look_that_batches_never_leave_alone_is_made_in_a_view() {
    let (store, namespace) = open(&ManualClock::new(1_000_000));
    put_both(&store, &namespace, "old");
    let state = &store.engine().state;
    let (mut looks, mut of_view) = (0, false);
    let seen = state.consistently(|view| {
        looks += 1;
        of_view = view.is_some();
        let read = |key: &str| match view {
            None => namespace.get_text(key),
            Some(view) => {
                let value = view.value(&state.hashed(namespace.state.number, key.as_bytes()))?;
                Ok(value.map(|value| value.as_str().unwrap().to_owned()))
            }
        };
        let a = read("a")?;
        put_both(&store, &namespace, &format!("new {looks}"));
        Ok((a, read("b")?))
    });
    let (a, b) = seen.unwrap();
    assert_eq!(a, b);
    assert!(of_view && looks == 2, "{looks}");
    assert_eq!(store.stats().snapshots.kept_records, 0);
}

#[test]
fn a_look_at_keys_that_expire_at_once_has_all_of_them_or_none() {
    let clock = ManualClock::new(1_700_000_000_000);
    let (store, namespace) = open(&clock);
    let ttl = PutOptions::new().ttl(Duration::from_secs(60));
    for key in ["a", "b"] {
        namespace.put_with(key, "value", ttl.clone()).unwrap();
    }
    let state = &store.engine().state;
    let now = store.engine().context.time.now();
    let mut looks = 0;
    let seen = state.consistently(|_| {
        looks += 1;
        let get = |key: &str| {
            let now = if looks == 1 {
                now.clone()
            } else {
                store.engine().context.time.now()
            };
            let key = state.hashed(namespace.state.number, key.as_bytes());
            state.get_warm(&key, None, &now)
        };
        let a = get("a")?;
        if looks == 1 {
            clock.advance(61_000);
            store.maintain().unwrap();
        }
        Ok((a.is_some(), get("b")?.is_some()))
    });
    assert_eq!(seen.unwrap(), (false, false));
    assert_eq!(looks, 2);
}

#[test]
fn a_look_at_a_namespace_that_is_dropped_under_it_is_an_error_and_no_part() {
    let (store, namespace) = open(&ManualClock::new(1_000_000));
    put_both(&store, &namespace, "old");
    let (state, mut looks) = (&store.engine().state, 0);
    let seen = state.consistently(|_| {
        looks += 1;
        namespace.stats()?;
        let a = state.get(&namespace.state, b"a")?;
        if looks == 1 {
            store.drop_namespace("N").unwrap();
            store.maintain().unwrap();
        }
        Ok((a.is_some(), state.get(&namespace.state, b"b")?.is_some()))
    });
    assert_eq!(seen.unwrap_err().kind(), crate::ErrorKind::NotFound);
    assert_eq!(looks, 2);
}

#[test]
fn a_reader_waits_while_several_records_are_rolled_back() {
    let (store, namespace) = open(&ManualClock::new(1_000_000));
    put_both(&store, &namespace, "old");
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let state = &store.engine().state;
        let right = state.lock_changes();
        let rolling_back = state.begin_roll_back(&right);
        let reader = scope.spawn(|| {
            namespace.get("a").unwrap();
            is_done.load(Ordering::SeqCst)
        });
        // A reader that does not wait is done by then.
        let mut turns = 0;
        while turns < 10_000 && !reader.is_finished() {
            turns += 1;
            std::thread::yield_now();
        }
        is_done.store(true, Ordering::SeqCst);
        drop(rolling_back);
        assert!(reader.join().unwrap(), "it has looked in the middle of a roll-back");
    });
}

#[test]
fn a_reader_of_a_view_does_not_wait_while_newer_records_are_rolled_back() {
    let (store, namespace) = open(&ManualClock::new(1_000_000));
    put_both(&store, &namespace, "old");
    let snapshot = store.snapshot().unwrap();
    let state = &store.engine().state;
    let right = state.lock_changes();
    let rolling_back = state.begin_roll_back(&right);
    // A look that waits for it never returns.
    assert_eq!(&*snapshot.get(&namespace, "a").unwrap().unwrap(), b"old");
    let many = snapshot.get_many(&namespace, &["a", "b"]).unwrap();
    assert!(many.iter().all(Option::is_some));
    drop(rolling_back);
}

#[test]
fn a_look_in_a_view_does_not_wait_for_a_writer() {
    let (store, namespace) = open(&ManualClock::new(1_000_000));
    put_both(&store, &namespace, "value");
    let state = store.engine().state.clone();
    // As after a look that was disturbed.
    state.in_views.store(3, Ordering::Relaxed);
    let writer = store.engine().log.lock();
    // A look that waits for it never returns.
    let found = namespace.get_many(&["a", "b", "c"]).unwrap();
    assert_eq!(found.iter().flatten().count(), 2);
    assert_eq!(namespace.list().into_iter().count(), 2);
    assert_eq!(namespace.count().unwrap(), 2);
    drop(writer);
    assert_eq!(state.in_views.load(Ordering::Relaxed), 0);
}
