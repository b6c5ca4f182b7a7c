//! Namespaces created and dropped while others write to them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use embercask::ErrorKind;
use embercask::storage::MemStorage;

use crate::concurrency::{intact, random_class, small, value_of};
use test_support::{DIRECTORY, class, open, rng};

#[test]
fn dropping_a_namespace_beside_its_writers_leaves_nothing_of_it_and_no_half_of_a_batch() {
    let mut rng = rng();
    let disk = MemStorage::seeded(rng.next());
    let store = small(&disk).segment_bytes(4096).open(DIRECTORY).unwrap();
    let stays = store.namespace("stays").unwrap();
    for round in 0..15 {
        let doomed = store.namespace("doomed").unwrap();
        assert_eq!(doomed.count().unwrap(), 0, "round {round}: a key came back");
        let count = AtomicUsize::new(0);
        let limit = 1 + rng.below(300) as usize;
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|thread| {
                    let mut rng = rng.split();
                    let (store, stays, doomed, count) = (&store, &stays, &doomed, &count);
                    scope.spawn(move || {
                        let mirror = format!("{round} {thread}");
                        for n in 1.. {
                            count.fetch_add(1, Ordering::SeqCst);
                            let durability = random_class(&mut rng);
                            let mut batch = store.batch();
                            batch.put(stays, &mirror, value_of(n));
                            batch.put(doomed, format!("{thread} {}", n % 20), value_of(n));
                            let result = batch.durability(durability).commit();
                            let result = result.and_then(|_| doomed.put_with(&mirror, value_of(n), class(durability)));
                            let Err(error) = result else { continue };
                            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
                            let found = stays.get(&mirror).unwrap().map_or(0, |value| intact(&value));
                            // Refused as a whole: by its second half, or before the put after it.
                            assert!(found == n || found == n - 1, "{found} of {n}");
                            return;
                        }
                    })
                })
                .collect();
            let lister = scope.spawn(|| {
                loop {
                    let mut keys = BTreeSet::new();
                    for entry in doomed.list().page_size(5).with_values() {
                        match entry {
                            Ok(entry) => assert!(keys.insert(entry.key().to_vec()), "a key was listed twice"),
                            Err(error) => return error.kind(),
                        }
                    }
                }
            });
            while count.load(Ordering::SeqCst) < limit {
                std::thread::yield_now();
            }
            store.drop_namespace("doomed").unwrap();
            workers.into_iter().for_each(|worker| worker.join().unwrap());
            assert_eq!(lister.join().unwrap(), ErrorKind::NotFound);
        });
        assert_eq!(store.namespaces().unwrap().len(), 1);
        match round % 3 {
            0 => drop(store.compact().unwrap()),
            1 => store.maintain().unwrap(),
            _ => {}
        }
        let killed = open(&disk.crash_process());
        assert_eq!(killed.namespaces().unwrap().len(), 1, "round {round}");
        assert_eq!(killed.namespace("doomed").unwrap().count().unwrap(), 0, "round {round}");
    }
    store.maintain().unwrap();
    assert_eq!(
        store.stats().keys,
        stays.count().unwrap(),
        "its keys are still in memory"
    );
}

#[test]
fn creating_a_namespace_at_once_makes_one() {
    let store = small(&MemStorage::new()).open(DIRECTORY).unwrap();
    for round in 0..20 {
        let name = format!("{round}");
        let ids: BTreeSet<u128> = std::thread::scope(|scope| {
            let creators: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| store.namespace(&name).unwrap().id()))
                .collect();
            creators.into_iter().map(|creator| creator.join().unwrap()).collect()
        });
        assert_eq!(ids.len(), 1, "round {round}");
    }
    assert_eq!(store.namespaces().unwrap().len(), 20);
}
