//! Closing a store while other threads use it.

use std::sync::atomic::{AtomicUsize, Ordering};

use embercask::storage::MemStorage;
use embercask::{Durability, Error, ErrorKind, Namespace, Store};

use crate::concurrency::{intact, random_class, small, value_of};
use test_support::{DIRECTORY, Rng, at_least, class, rng};

/// Uses the store in every way until refused; returns the error.
fn work_until_refused(
    store: &Store,
    namespace: &Namespace,
    thread: usize,
    count: &AtomicUsize,
    mut rng: Rng,
) -> (u64, Error) {
    let mut newest = 0;
    for n in 1.. {
        count.fetch_add(1, Ordering::SeqCst);
        let key = format!("{thread}");
        let result = match rng.below(8) {
            0 => namespace.get(&key).map(drop),
            1 => namespace.list().page_size(3).page().map(drop),
            2 => namespace.count().map(drop),
            3 if thread == 0 => store.compact().map(drop),
            3 if thread == 1 => store.maintain(),
            4 => namespace.set_metadata(&key, Some(b"m")).map(drop),
            _ => {
                let put = namespace.put_with(&key, value_of(n), class(random_class(&mut rng)));
                put.map(|_| newest = n)
            }
        };
        match result {
            Ok(()) => {}
            Err(error) => return (newest, error),
        }
    }
    unreachable!("numbers end")
}

#[test]
fn closing_beside_others_at_work_ends_them_all_and_loses_nothing_acknowledged() {
    let mut rng = rng();
    let mut acknowledged = 0;
    for round in 0..12 {
        let disk = MemStorage::seeded(rng.next());
        let store = small(&disk).segment_bytes(4096).open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        let count = AtomicUsize::new(0);
        let limit = rng.below(600) as usize;
        let ended: Vec<(u64, Error)> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..6)
                .map(|thread| {
                    let rng = rng.split();
                    let (store, namespace, count) = (&store, &namespace, &count);
                    scope.spawn(move || work_until_refused(store, namespace, thread, count, rng))
                })
                .collect();
            while count.load(Ordering::SeqCst) < limit {
                std::thread::yield_now();
            }
            // Two closes at once: one does it, the other finds it done.
            let other = scope.spawn(|| store.clone().close());
            store.clone().close().unwrap();
            other.join().unwrap().unwrap();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        for (thread, (_, error)) in ended.iter().enumerate() {
            assert_eq!(
                error.kind(),
                ErrorKind::Closed,
                "round {round}, thread {thread}: {error}"
            );
        }
        // The next opening finds everything, although handles remain.
        let next = small(&disk).open(DIRECTORY).unwrap();
        assert!(
            next.recovery_report().clean,
            "round {round}: {:?}",
            next.recovery_report()
        );
        let next_namespace = next.open_namespace("N").unwrap();
        for (thread, (newest, _)) in ended.iter().enumerate() {
            let found = next_namespace
                .get(format!("{thread}"))
                .unwrap()
                .map_or(0, |value| intact(&value));
            acknowledged += newest;
            // The last write may have been applied although it was refused.
            assert!(
                found >= *newest,
                "round {round}, thread {thread}: {found}, {newest} was acknowledged"
            );
        }
    }
    at_least(200, acknowledged, "writes before the store was closed");
}

/// The last handle may be dropped in any thread, even while background threads are working.
#[test]
fn dropping_the_last_handle_in_any_thread_closes_the_store() {
    let disk = MemStorage::new();
    for round in 0..20u64 {
        let store = small(&disk).segment_bytes(4096).open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        drop(store);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let namespace = namespace.clone();
                scope.spawn(move || {
                    for n in 0..20 {
                        let key = format!("{thread} {n}");
                        namespace
                            .put_with(key, value_of(round), class(Durability::Buffered))
                            .unwrap();
                    }
                });
            }
            drop(namespace);
        });
        let next = small(&disk).open(DIRECTORY).unwrap();
        assert!(next.recovery_report().clean);
        let namespace = next.open_namespace("N").unwrap();
        assert_eq!(namespace.count().unwrap(), 80);
        assert_eq!(intact(&namespace.get("3 19").unwrap().unwrap()), round);
    }
}
