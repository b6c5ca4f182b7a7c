//! What a write survives once it has returned: each durability class, against kills and power cuts.

use std::sync::Arc;
use std::time::Duration;

use embercask::storage::{CutPolicy, MemStorage};
use embercask::{Durability, Maintenance, Namespace, Store};
use test_support::{DIRECTORY, Rng, at_least, class, manual, open, rng, text, until, written};

/// A store with one namespace, both durable.
fn created() -> (MemStorage, Store, Namespace) {
    created_on(MemStorage::new())
}

fn created_on(disk: MemStorage) -> (MemStorage, Store, Namespace) {
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    (disk, store, namespace)
}

/// What the next process finds after a kill.
fn after_kill(disk: &MemStorage) -> (Store, Namespace) {
    let store = open(&disk.crash_process());
    let namespace = store.open_namespace("N").unwrap();
    (store, namespace)
}

/// What is found after a power cut that loses everything unsynced.
fn after_power_cut(disk: &MemStorage) -> (Store, Namespace) {
    let store = open(&disk.power_cut(&CutPolicy::LoseUnsynced));
    let namespace = store.open_namespace("N").unwrap();
    (store, namespace)
}

#[test]
fn a_buffered_write_is_lost_by_a_kill_before_any_flush_and_nothing_else_is() {
    let (disk, _store, namespace) = created();
    namespace.put("synced", "1").unwrap();
    namespace
        .put_with("buffered", "1", class(Durability::Buffered))
        .unwrap();
    assert_eq!(
        text(&namespace, "buffered").as_deref(),
        Some("1"),
        "a buffered write is readable at once"
    );
    let (_store, namespace) = after_kill(&disk);
    assert_eq!(text(&namespace, "synced").as_deref(), Some("1"));
    assert_eq!(text(&namespace, "buffered"), None);
}

#[test]
fn a_buffered_write_survives_a_kill_after_whatever_flushes_it() {
    type Flush = fn(&Store, &Namespace);
    let flushes: [(&str, Flush); 8] = [
        ("flush", |store, _| store.flush().unwrap()),
        ("sync", |store, _| store.sync().unwrap()),
        ("maintain", |store, _| store.maintain().unwrap()),
        ("a put of class Os", |_, namespace| {
            namespace.put_with("later", "1", class(Durability::Os)).unwrap();
        }),
        ("a put of class Sync", |_, namespace| {
            namespace.put("later", "1").unwrap();
        }),
        ("a delete of class Os of a key that is absent", |_, namespace| {
            namespace.delete_with("absent", None, Some(Durability::Os)).unwrap();
        }),
        ("a batch of class Os", |store, namespace| {
            store
                .batch()
                .put(namespace, "later", "1")
                .durability(Durability::Os)
                .commit()
                .unwrap();
        }),
        ("close", |store, _| store.clone().close().unwrap()),
    ];
    for (name, flush) in flushes {
        let (disk, store, namespace) = created();
        namespace
            .put_with("buffered", "1", class(Durability::Buffered))
            .unwrap();
        flush(&store, &namespace);
        let (_store, namespace) = after_kill(&disk);
        assert_eq!(text(&namespace, "buffered").as_deref(), Some("1"), "after {name}");
    }
}

#[test]
fn a_dropped_store_has_flushed_and_synced() {
    let (disk, store, namespace) = created();
    namespace
        .put_with("buffered", "1", class(Durability::Buffered))
        .unwrap();
    drop((store, namespace));
    let (_store, namespace) = after_power_cut(&disk);
    assert_eq!(text(&namespace, "buffered").as_deref(), Some("1"));
}

#[test]
fn the_flush_interval_writes_out_what_nobody_flushes() {
    let disk = MemStorage::new();
    let store = manual(Arc::new(disk.clone()))
        .maintenance(Maintenance::Background)
        .flush_interval(Duration::from_millis(1))
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace
        .put_with("buffered", "1", class(Durability::Buffered))
        .unwrap();
    until("the write is flushed", || store.stats().pending_bytes == 0);
    let (_store, namespace) = after_kill(&disk);
    assert_eq!(text(&namespace, "buffered").as_deref(), Some("1"));
}

#[test]
fn an_os_write_survives_a_kill_but_is_not_promised_to_survive_a_power_cut() {
    let (disk, _store, namespace) = created();
    namespace.put("synced", "1").unwrap();
    namespace.put_with("os", "1", class(Durability::Os)).unwrap();
    let (_store, killed) = after_kill(&disk);
    assert_eq!(text(&killed, "os").as_deref(), Some("1"));
    let (_store, cut) = after_power_cut(&disk);
    assert_eq!(text(&cut, "synced").as_deref(), Some("1"));
    // If it were there, the tests of syncs would prove nothing.
    assert_eq!(text(&cut, "os"), None, "this disk loses unsynced writes");
}

#[test]
fn a_sync_write_survives_a_power_cut_at_the_moment_it_returns() {
    let (disk, store, namespace) = created();
    for n in 0..60 {
        let key = format!("key {}", n % 7);
        if n % 5 == 4 {
            namespace.delete(&key).unwrap();
        } else {
            namespace.put(&key, format!("value {n}").repeat(20)).unwrap();
        }
        let (_cut_store, cut) = after_power_cut(&disk);
        for n in 0..7 {
            let key = format!("key {n}");
            assert_eq!(text(&cut, &key), text(&namespace, &key), "{key}");
        }
    }
    assert!(store.stats().segments.len() > 2, "no segment was rotated");
}

#[test]
fn a_write_may_be_of_another_class_than_its_store() {
    let disk = MemStorage::new();
    let store = manual(Arc::new(disk.clone()))
        .durability(Durability::Buffered)
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("first", "1").unwrap();
    assert!(store.stats().pending_bytes > 0, "the store's default class is Buffered");
    namespace.put_with("second", "1", class(Durability::Sync)).unwrap();
    namespace.put("third", "1").unwrap();
    let (_store, namespace) = after_power_cut(&disk);
    // There is one log: a sync covers everything before it.
    assert_eq!(text(&namespace, "first").as_deref(), Some("1"));
    assert_eq!(text(&namespace, "second").as_deref(), Some("1"));
    assert_eq!(text(&namespace, "third"), None);
}

/// B21: when the sync comes, the segments with the earlier writes have been rotated out but not
/// sealed.
#[test]
fn sync_covers_earlier_writes_of_all_threads_across_rotations() {
    for (name, durable) in [
        ("sync", (|store, _| store.sync().unwrap()) as fn(&Store, &Namespace)),
        ("a put of class Sync", |_, namespace| {
            namespace.put("last", "1").unwrap();
        }),
    ] {
        let (disk, store, namespace) = created();
        namespace.put_with("os", "1", class(Durability::Os)).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let namespace = namespace.clone();
                scope.spawn(move || {
                    for n in 0..60 {
                        // Os writes would seal full segments; Buffered ones leave that to
                        // maintenance.
                        namespace
                            .put_with(format!("{thread} {n}"), [7; 100], class(Durability::Buffered))
                            .unwrap();
                    }
                });
            }
        });
        let unsealed = store.stats().segments.iter().filter(|segment| !segment.sealed).count();
        assert!(unsealed > 1, "no rotated segment is unsealed: {unsealed}");
        durable(&store, &namespace);
        let (_store, cut) = after_power_cut(&disk);
        assert!(cut.contains("os").unwrap(), "{name}");
        for thread in 0..4 {
            for n in 0..60 {
                assert!(cut.contains(format!("{thread} {n}")).unwrap(), "{name}: {thread} {n}");
            }
        }
    }
}

#[test]
fn a_sync_that_finds_a_key_already_deleted_makes_that_deletion_durable() {
    let (disk, _store, namespace) = created();
    namespace.put("key", "1").unwrap();
    assert!(
        namespace
            .delete_with("key", None, Some(Durability::Buffered))
            .unwrap()
            .existed
    );
    assert!(
        !namespace.delete("key").unwrap().existed,
        "the key was not deleted before"
    );
    let (_store, namespace) = after_power_cut(&disk);
    assert_eq!(text(&namespace, "key"), None);
}

#[test]
fn an_empty_batch_of_class_sync_syncs_what_lies_before_it() {
    let (disk, store, namespace) = created();
    namespace
        .put_with("buffered", "1", class(Durability::Buffered))
        .unwrap();
    store.batch().commit().unwrap();
    let (_store, namespace) = after_power_cut(&disk);
    assert_eq!(text(&namespace, "buffered").as_deref(), Some("1"));
}

#[test]
fn a_batch_is_there_as_a_whole_or_not_at_all_in_every_class() {
    let mut rng = rng();
    for durability in [Durability::Buffered, Durability::Os, Durability::Sync] {
        let (mut there, mut gone) = (0, 0);
        let (disk, store, first) = created_on(MemStorage::seeded(rng.next()));
        let second = store.namespace("M").unwrap();
        store
            .batch()
            .put(&first, "a", "0")
            .put(&second, "b", "0")
            .commit()
            .unwrap();
        for n in 1..=12 {
            // Long values, so that part of the batch can be torn off at a sector.
            let value = format!("{n} {}", "x".repeat(400));
            store
                .batch()
                .put(&first, "a", &value)
                .put(&second, "b", &value)
                .durability(durability)
                .commit()
                .unwrap();
            let mut cuts = vec![disk.crash_process(), disk.power_cut(&CutPolicy::LoseUnsynced)];
            for _ in 0..8 {
                let seed = rng.next();
                cuts.push(disk.power_cut(&CutPolicy::Random { seed, grain: 512 }));
            }
            for (index, cut) in cuts.iter().enumerate() {
                let store = open(cut);
                let a = text(&store.open_namespace("N").unwrap(), "a").unwrap();
                let b = text(&store.open_namespace("M").unwrap(), "b").unwrap();
                assert_eq!(a, b, "{durability:?}, batch {n}, cut {index}");
                *(if a == value { &mut there } else { &mut gone }) += 1;
                let survives = match durability {
                    Durability::Buffered => false,
                    Durability::Os => index == 0,
                    Durability::Sync => true,
                };
                assert!(
                    !survives || a == value,
                    "{durability:?}, batch {n}, cut {index}: {a:.4}"
                );
            }
        }
        // Twelve batches, each with one kill and one cut that loses everything unsynced; the
        // outcome of random cuts is left to chance.
        let (least_there, least_gone) = match durability {
            // Buffered batches are only in memory, unless a segment filled up meanwhile.
            Durability::Buffered => (0, 12),
            Durability::Os => (12, 12),
            Durability::Sync => (12, 0),
        };
        at_least(least_there, there, "batches that survived");
        at_least(least_gone, gone, "batches that did not");
    }
}

#[test]
fn close_equals_sync() {
    let (disk, store, namespace) = created();
    for n in 0..100 {
        let durability = if n % 3 == 0 {
            Durability::Os
        } else {
            Durability::Buffered
        };
        namespace.put_with(format!("{n}"), [n; 100], class(durability)).unwrap();
    }
    store.close().unwrap();
    let (store, namespace) = after_power_cut(&disk);
    assert!(store.recovery_report().clean, "{:?}", store.recovery_report());
    for n in 0..100u8 {
        assert_eq!(namespace.get(format!("{n}")).unwrap().unwrap(), [n; 100]);
    }
}

/// Promise 7: recovery makes durable what it shows.
#[test]
fn what_a_reopened_store_has_shown_is_not_lost_by_a_power_cut_after_it() {
    let (disk, _store, namespace) = created();
    for n in 0..50 {
        namespace
            .put_with(format!("{n}"), [7; 100], class(Durability::Os))
            .unwrap();
    }
    let killed = disk.crash_process();
    let seen = test_support::keys(&open(&killed).open_namespace("N").unwrap());
    assert_eq!(seen.len(), 50);
    let (_store, namespace) = after_power_cut(&killed);
    assert_eq!(test_support::keys(&namespace), seen);
}

/// Promise 2, with all classes mixed: a cut leaves a prefix of the acknowledged writes that
/// includes the last write of class Sync.
#[test]
fn a_power_cut_leaves_a_prefix_no_shorter_than_the_last_sync() {
    let mut rng = rng();
    let (mut more, mut less) = (0, 0);
    for _ in 0..6 {
        let mut rng = rng.split();
        let (disk, _store, namespace) = created_on(MemStorage::seeded(rng.next()));
        let mut synced = 0;
        for n in 1..=80u64 {
            let durability = random_class(&mut rng);
            let length = 1 + rng.below(300) as usize;
            namespace
                .put_with(format!("{n:03}"), vec![n as u8; length], class(durability))
                .unwrap();
            if durability == Durability::Sync {
                synced = n;
            }
            if n % 8 != 0 {
                continue;
            }
            let seed = rng.next();
            let cut = disk.power_cut(&CutPolicy::Random { seed, grain: 512 });
            let found = test_support::keys(&open(&cut).open_namespace("N").unwrap());
            let prefix: Vec<_> = (1..=found.len()).map(|n| format!("{n:03}")).collect();
            assert_eq!(found, prefix, "a hole, after {n} writes");
            assert!(found.len() as u64 >= synced, "{} of {synced} synced", found.len());
            more += u64::from(found.len() as u64 > synced);
            less += u64::from((found.len() as u64) < n);
        }
    }
    at_least(3, more, "cuts that left more than the synced writes");
    at_least(10, less, "cuts that took something away");
}

fn random_class(rng: &mut Rng) -> Durability {
    match rng.below(10) {
        0 => Durability::Sync,
        1..5 => Durability::Os,
        _ => Durability::Buffered,
    }
}

/// The lengths of the segments' files, and how far they have been written to.
fn lengths(disk: &MemStorage) -> Vec<(usize, usize)> {
    let files = disk.files(DIRECTORY).into_iter();
    let segments = files.filter(|path| path.extension().is_some_and(|extension| extension == "segment"));
    let length = |path| {
        let length = disk.read_file(&path).unwrap().len();
        (length, written(disk, path).len())
    };
    segments.map(length).collect()
}

/// So that few syncs have to make a new length durable as well.
#[test]
fn a_file_that_is_synced_often_has_its_length_ahead_until_it_is_sealed() {
    let disk = MemStorage::new();
    let options = || manual(Arc::new(disk.clone())).segment_bytes(1 << 20);
    let store = options().open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    let mut seen = Vec::new();
    for number in 0..200 {
        namespace.put(format!("{number:03}"), [7; 100]).unwrap();
        let [(length, used)] = lengths(&disk)[..] else {
            panic!("there is one segment");
        };
        assert!(
            length >= used && length <= 2 * used + 8192,
            "{length} of which {used} are used"
        );
        seen.push(length);
    }
    seen.dedup();
    at_least(3, seen.len() as u64, "lengths");
    assert!(seen.len() <= 10, "{seen:?}");
    let is_ahead = |disk: &MemStorage| lengths(disk).iter().any(|(length, used)| length > used);
    assert!(is_ahead(&disk));
    // After a kill nothing of it is taken for a torn write, and after a power cut neither.
    for copy in [disk.crash_process(), disk.power_cut(&CutPolicy::LoseUnsynced)] {
        assert!(is_ahead(&copy));
        let store = manual(Arc::new(copy.clone())).open(DIRECTORY).unwrap();
        assert_eq!(store.recovery_report().discarded_bytes, 0);
        assert_eq!(store.open_namespace("N").unwrap().count().unwrap(), 200);
        store.close().unwrap();
        assert!(!is_ahead(&copy));
    }
    store.close().unwrap();
    assert!(!is_ahead(&disk));
    let store = options().open(DIRECTORY).unwrap();
    assert_eq!(store.open_namespace("N").unwrap().count().unwrap(), 200);
}
