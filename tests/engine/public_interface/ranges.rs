//! Queues, and deleting many keys at a time.

use std::sync::Arc;
use std::time::Duration;

use embercask::storage::MemStorage;
use embercask::{Durability, Error, ErrorKind, ManualClock, Namespace, PutOptions, Store};

use test_support::{DIRECTORY, keys, manual, open, rng};

const NOW_MS: u64 = 2_000_000_000_000;

fn opened(clock: &ManualClock) -> (Store, Namespace) {
    let store = manual(Arc::new(MemStorage::new()))
        .durability(Durability::Buffered)
        .clock(clock.clone())
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    (store, namespace)
}

fn clock() -> ManualClock {
    ManualClock::new(NOW_MS)
}

fn popped(popped: Result<Option<(Vec<u8>, embercask::Value)>, Error>) -> Option<(String, String)> {
    let (key, value) = popped.unwrap()?;
    Some((String::from_utf8(key).unwrap(), value.as_str().unwrap().to_owned()))
}

#[test]
fn a_queue_gives_its_first_key_or_its_last_and_only_those_with_its_prefix() {
    let clock = clock();
    let (_store, namespace) = opened(&clock);
    for key in ["jobs/1", "jobs/2", "jobs/3", "jobs", "jobt", "\u{FF}"] {
        namespace.put(key, format!("value of {key}")).unwrap();
    }
    let shown = |key: &str| Some((key.to_owned(), format!("value of {key}")));
    assert_eq!(popped(namespace.pop_first("jobs/")), shown("jobs/1"));
    assert_eq!(popped(namespace.pop_last("jobs/")), shown("jobs/3"));
    assert_eq!(popped(namespace.pop_first("jobs/")), shown("jobs/2"));
    assert_eq!(popped(namespace.pop_first("jobs/")), None);
    assert_eq!(popped(namespace.pop_last("jobs/")), None);
    assert_eq!(popped(namespace.pop_first("")), shown("jobs"));
    assert_eq!(popped(namespace.pop_last("")), shown("\u{FF}"));
    assert_eq!(keys(&namespace), ["jobt"]);

    // Keys that have expired are passed, however many wait to be swept.
    let expiring = PutOptions::new().ttl(Duration::from_secs(1));
    for n in 0..100 {
        namespace.put_with(format!("a{n:03}"), "", expiring.clone()).unwrap();
    }
    for n in 0..100 {
        namespace.put_with(format!("z{n:03}"), "", expiring.clone()).unwrap();
    }
    clock.advance(1000);
    assert_eq!(popped(namespace.pop_last("")), shown("jobt"));
    assert_eq!(popped(namespace.pop_first("")), None);
}

#[test]
fn a_range_is_deleted_in_batches_and_all_else_stays() {
    let mut rng = rng();
    let clock = clock();
    for round in 0..40 {
        let (_store, namespace) = opened(&clock);
        let names: Vec<String> = (0..rng.below(60))
            .map(|n| format!("{}{n:02}", ["a", "b", "c"][rng.below(3) as usize]))
            .collect();
        for name in &names {
            let mut options = PutOptions::new();
            if rng.below(3) == 0 {
                options = options.ttl(Duration::from_secs(1));
            }
            namespace.put_with(name, "", options).unwrap();
        }
        if round % 2 == 0 {
            clock.advance(1000);
        }
        let before = keys(&namespace);
        let batch_keys = 1 + rng.below(10) as usize;
        let (low, high) = (format!("a{:02}", rng.below(60)), format!("c{:02}", rng.below(60)));
        let by_prefix = rng.below(2) == 0;
        let mut told = vec![0];
        let delete = match by_prefix {
            true => namespace.delete_prefix("b"),
            false => namespace.delete_range(low.as_str()..=high.as_str()),
        };
        let delete = delete.batch_keys(batch_keys).on_progress(|count| {
            told.push(count);
            true
        });
        let deleted = delete.run().unwrap();
        let is_hit = |key: &&String| match by_prefix {
            true => key.starts_with('b'),
            false => (low.as_str()..=high.as_str()).contains(&key.as_str()),
        };
        let hit = before.iter().filter(is_hit).count() as u64;
        assert_eq!((deleted.count, deleted.existed), (hit, hit > 0));
        assert_eq!(*told.last().unwrap(), hit);
        assert!(
            told.windows(2).all(|pair| pair[1] - pair[0] <= batch_keys as u64),
            "{told:?}"
        );
        let left: Vec<_> = before.iter().filter(|key| !is_hit(key)).cloned().collect();
        assert_eq!(keys(&namespace), left);
    }
    let (_store, namespace) = opened(&clock);
    for n in 0..10 {
        namespace.put(n.to_string(), "").unwrap();
    }
    // Bounds that cross, and bounds that exclude what they name.
    assert_eq!(namespace.delete_range("5".."3").run().unwrap().count, 0);
    assert_eq!(namespace.delete_range("3".."5").run().unwrap().count, 2);
    assert_eq!(keys(&namespace).concat(), "01256789");
    assert_eq!(namespace.delete_range::<&str>(..).run().unwrap().count, 8);
    for keys in [0, 10_001] {
        let refused = namespace.delete_prefix("").batch_keys(keys).run().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        assert!(refused.to_string().contains("1 to 10000"), "{refused}");
    }
}

#[test]
fn deleting_a_range_is_stopped_after_a_whole_batch() {
    let clock = clock();
    let (_store, namespace) = opened(&clock);
    for n in 0..100 {
        namespace.put(format!("{n:02}"), "").unwrap();
    }
    let mut told = Vec::new();
    let stopped = namespace.delete_prefix("").batch_keys(10).on_progress(|count| {
        told.push(count);
        count < 30
    });
    assert_eq!(stopped.run().unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(told, [10, 20, 30]);
    assert_eq!(keys(&namespace).first().unwrap(), "30");
    assert_eq!(namespace.delete_prefix("").run().unwrap().count, 70);
}

#[test]
fn the_batches_of_a_range_have_the_durability_that_was_asked_for() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    for key in ["a", "b"] {
        namespace.put(key, "").unwrap();
    }
    namespace.delete_prefix("a").run().unwrap();
    namespace
        .delete_prefix("b")
        .durability(Durability::Buffered)
        .run()
        .unwrap();
    // The process ends without closing, so what was only buffered is lost.
    let copy = disk.crash_process();
    drop(store);
    assert_eq!(keys(&open(&copy).open_namespace("N").unwrap()), ["b"]);
}

#[test]
fn long_keys_are_deleted_in_smaller_batches() {
    let clock = clock();
    let (_store, namespace) = opened(&clock);
    let key = |n: usize| [format!("{n:03}").as_bytes(), &[b'k'; 60_000]].concat();
    for n in 0..300 {
        namespace.put(key(n), "").unwrap();
    }
    let mut told = Vec::new();
    let deleted = namespace.delete_prefix("").on_progress(|count| {
        told.push(count);
        true
    });
    assert_eq!(deleted.run().unwrap().count, 300);
    assert_eq!(told, [279, 300], "16 MiB of keys at a time");
}
