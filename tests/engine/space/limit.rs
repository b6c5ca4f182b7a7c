//! The store's own limit of disk space.

use std::sync::Arc;
use std::time::Duration;

use embercask::storage::MemStorage;
use embercask::{Durability, Error, ErrorKind, Maintenance, Namespace, Options, PutOptions, Store};
use test_support::{DIRECTORY, rng};

const LIMIT: u64 = 4 << 20;

fn options(disk: &MemStorage) -> Options {
    Store::options()
        .max_disk_bytes(Some(LIMIT))
        .maintenance(Maintenance::Manual)
        .durability(Durability::Os)
        .storage(Arc::new(disk.clone()))
}

/// Puts until one is refused, and returns how many were not.
fn fill(disk: &MemStorage, namespace: &Namespace, name: &str) -> u64 {
    for n in 0.. {
        match namespace.put(format!("{name} {n}"), [1; 500]) {
            Ok(_) => assert!(disk.used() <= LIMIT, "{} bytes after {n} puts", disk.used()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                assert!(
                    matches!(error, Error::LimitReached { limit_bytes: LIMIT, .. }),
                    "{error}"
                );
                return n;
            }
        }
    }
    unreachable!()
}

/// One step of maintenance.
fn step(store: &Store) {
    store.maintain().unwrap();
    store.compact_if_worthwhile().unwrap();
}

#[test]
fn a_limited_store_never_takes_more_and_is_left_by_deleting() {
    let disk = MemStorage::new();
    let store = options(&disk).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    let first = fill(&disk, &namespace, "first");
    step(&store);
    assert!(disk.used() > LIMIT * 3 / 4, "{} bytes are all that fits", disk.used());
    let space = store.stats().space;
    assert!(space.limit_reached, "{space:?}");
    // Puts leave room for a run of compaction besides the reserve.
    assert!(space.used_bytes + 2 * space.reserve_bytes <= LIMIT, "{space:?}");
    // What there is in files besides.
    assert!(
        disk.used().abs_diff(space.used_bytes) < 64 << 10,
        "{space:?}, {}",
        disk.used()
    );
    assert!(namespace.put("one more", [1; 500]).is_err());
    assert!(!store.stats().disk_full, "the disk is not");

    // Nine of ten, evenly.
    for n in (0..first).filter(|n| !n.is_multiple_of(10)) {
        namespace.delete(format!("first {n}")).unwrap();
        assert!(disk.used() <= LIMIT, "{} bytes after delete {n}", disk.used());
    }
    step(&store);
    assert!(!store.stats().space.limit_reached);
    let second = fill(&disk, &namespace, "second");
    assert!(second > first / 2, "{second} puts, of {first} the first time");

    // By dropping.
    store.drop_namespace("N").unwrap();
    step(&store);
    assert!(disk.used() < LIMIT / 4, "{} bytes", disk.used());
    let namespace = store.namespace("N").unwrap();
    assert!(fill(&disk, &namespace, "third") > first * 9 / 10);
    store.close().unwrap();

    // Reopened at the limit, and below what it takes.
    let store = options(&disk).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    fill(&disk, &namespace, "fourth");
    store.close().unwrap();
    let store = options(&disk).max_disk_bytes(Some(LIMIT / 2)).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    let more_than_a_segment = vec![1; 300 << 10];
    assert!(namespace.put("more", &more_than_a_segment).is_err());
    for n in 0..first {
        namespace.delete(format!("third {n}")).unwrap();
    }
    step(&store);
    namespace.put("more", &more_than_a_segment).unwrap();
}

#[test]
fn a_limited_store_stays_within_its_limit_while_it_is_overwritten_by_several_threads() {
    let disk = MemStorage::new();
    let store = options(&disk)
        .maintenance(Maintenance::Background)
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    let mut rng = rng();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let (mut rng, namespace, disk) = (rng.split(), namespace.clone(), &disk);
            scope.spawn(move || {
                let (mut refused, mut done) = (0, 0);
                while done < 10_000 {
                    let key = format!("{}", rng.below(3000));
                    let wrote = match rng.below(10) {
                        0 => namespace.delete(&key).map(drop),
                        _ => namespace
                            .put_with(&key, [2; 500], PutOptions::new().ttl(Duration::from_secs(3600)))
                            .map(drop),
                    };
                    match wrote {
                        Ok(()) => done += 1,
                        // Compaction is about to make room.
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                            refused += 1;
                            assert!(refused < 100_000, "nothing is reclaimed");
                            std::thread::sleep(Duration::from_millis(1));
                        }
                    }
                    assert!(disk.used() <= LIMIT, "{} bytes", disk.used());
                }
            });
        }
    });
    assert_eq!(store.stats().background_error, None);
}
