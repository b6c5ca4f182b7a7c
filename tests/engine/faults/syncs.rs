//! A failed sync: its data count as not durable from then on, whatever follows.

use std::io;
use std::sync::Arc;

use embercask::storage::{CutPolicy, Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{ErrorKind, ReadMode};

use crate::faults::{kind, on_segments, poisoned, world};
use test_support::{DIRECTORY, at_least, keys, manual, open, text};

/// B20: the sync works again at once, but its success cannot be trusted. A sync that fails for lack
/// of space is no exception: `NoSpace` would mean that nothing was written, and would make a delete
/// run again.
#[test]
fn after_a_failed_sync_writes_are_refused_until_the_store_is_opened_again() {
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded].map(FaultKind::Error);
    let [no_space, no_quota] = full;
    for (read_mode, failing, deletes) in [
        (ReadMode::Map, FaultKind::FailedSync, false),
        (ReadMode::Pread, FaultKind::FailedSync, false),
        (ReadMode::Map, no_space, false),
        (ReadMode::Map, no_quota, false),
        (ReadMode::Map, no_space, true),
    ] {
        let disk = MemStorage::new();
        let faults = FaultStorage::new(Arc::new(disk.clone()));
        let options = || manual(Arc::new(faults.clone())).read_mode(read_mode);
        let store = options().open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        namespace.put("key", "old").unwrap();
        namespace.put("unsure", "0").unwrap();
        faults.inject(on_segments(failing, Operation::Sync));
        let failed = if deletes {
            kind(namespace.delete("unsure"))
        } else {
            kind(namespace.put("unsure", "1"))
        };
        assert_eq!(failed, ErrorKind::Io, "{failing:?}");
        assert_eq!(namespace.contains("unsure").unwrap(), !deletes);
        assert!(!store.stats().disk_full, "{failing:?}");
        poisoned(&store, &namespace);
        assert_eq!(kind(store.close()), ErrorKind::Poisoned);
        // The remaining handle does not prevent opening.
        let store = options().open(DIRECTORY).unwrap();
        let namespace = store.open_namespace("N").unwrap();
        assert_eq!(text(&namespace, "key").as_deref(), Some("old"));
        namespace.put("key", "new").unwrap();
        let seen = keys(&namespace);
        let cut = open(&disk.power_cut(&CutPolicy::LoseUnsynced));
        let namespace = cut.open_namespace("N").unwrap();
        assert_eq!(text(&namespace, "key").as_deref(), Some("new"));
        assert_eq!(keys(&namespace), seen);
    }
}

#[test]
fn a_failed_sync_is_told_to_everybody_who_waited_for_it() {
    let (_disk, faults, store, namespace) = world();
    faults.inject(on_segments(FaultKind::FailedSync, Operation::Sync).repeated());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let namespace = namespace.clone();
            scope.spawn(move || {
                for n in 0..20 {
                    let error = namespace.put(format!("{thread} {n}"), "1").unwrap_err();
                    assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::Poisoned), "{error}");
                }
            });
        }
    });
    faults.clear();
    assert_eq!(kind(namespace.put("other", "1")), ErrorKind::Poisoned);
    assert!(store.stats().poisoned.is_some());
}

/// Of a new segment, which is not essential; of the manifest that lists it, which is; and of the
/// manifest that records it as sealed.
#[test]
fn a_failed_sync_of_the_directory_poisons_too() {
    let mut struck = 0;
    for step in 0.. {
        let (disk, faults, store, namespace) = world();
        let at = faults.steps() + step;
        faults.inject(Fault::new(FaultKind::FailedSync).on(Operation::SyncDirectory).at(at));
        let mut acknowledged = vec!["key".to_owned()];
        for n in 0..20 {
            let key = format!("filler {n}");
            match namespace.put(&key, [7; 1_000]) {
                Ok(_) => acknowledged.push(key),
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::Poisoned), "{error}");
                    break;
                }
            }
        }
        if faults.struck() == 0 {
            assert_eq!(acknowledged.len(), 21);
            break;
        }
        struck += 1;
        poisoned(&store, &namespace);
        let seen = keys(&namespace);
        drop((store, namespace));
        let cut = open(&disk.power_cut(&CutPolicy::LoseUnsynced));
        let survived = keys(&cut.open_namespace("N").unwrap());
        for key in &acknowledged {
            assert!(survived.contains(key), "step {step}: {key} was acknowledged");
        }
        let store = open(&disk);
        assert_eq!(keys(&store.open_namespace("N").unwrap()), seen, "step {step}");
    }
    at_least(20, struck, "syncs of a directory");
}

/// C11: the sync of a file that nothing refers to yet fails, and with it, silently, a journal
/// commit that includes other files.
#[test]
fn after_a_failed_sync_of_any_file_nothing_is_acknowledged_any_more() {
    for path in [".segment", ".hint", "MANIFEST.tmp", "RESERVE"] {
        let (disk, faults, store, namespace) = world();
        for n in 0..12 {
            namespace.put(format!("{}", n % 3), [7; 1_000]).unwrap();
        }
        let failing = Fault::new(FaultKind::FailedSync).on(Operation::Sync).path(path);
        if path == "RESERVE" {
            faults.inject(Fault::new(FaultKind::Full).on(Operation::Write).path(".segment"));
            assert_eq!(kind(namespace.put("does not fit", [7; 1_000])), ErrorKind::NoSpace);
            disk.remove_file("/store/RESERVE").unwrap();
            faults.inject(failing);
            assert_eq!(kind(namespace.put("asks for the reserve first", "1")), ErrorKind::Io);
            assert_eq!(faults.struck(), 2);
        } else {
            faults.inject(failing);
            let refused = store.compact().unwrap_err();
            let kinds = [ErrorKind::Io, ErrorKind::Poisoned];
            assert!(kinds.contains(&refused.kind()), "{path}: {refused}");
            assert_eq!(faults.struck(), 1, "{path}");
        }
        assert!(store.stats().poisoned.is_some(), "{path}");
        let refused = namespace.put("key", "new").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Poisoned, "{path}: {refused}");
        poisoned(&store, &namespace);
    }
}

/// A run with all kinds of syncs; returns the acknowledged keys and the result.
fn life(options: &embercask::Options) -> (Vec<String>, embercask::Result<()>) {
    let mut acknowledged = Vec::new();
    let result = (|| {
        let store = options.clone().open(DIRECTORY)?;
        let namespace = store.namespace("N")?;
        for n in 0..18 {
            let key = format!("key {n}");
            namespace.put(&key, [7; 600])?;
            acknowledged.push(key);
            namespace.put("again", [8; 300])?;
            match n {
                8 => drop(store.compact()?),
                12 => {
                    store
                        .batch()
                        .put(&namespace, "a", "1")
                        .put(&namespace, "b", "2")
                        .commit()?;
                    acknowledged.extend(["a".to_owned(), "b".to_owned()]);
                }
                14 => {
                    store.namespace("M")?;
                    store.drop_namespace("M")?;
                }
                _ => {}
            }
        }
        store.close()
    })();
    (acknowledged, result)
}

/// C11, for any sync, whether or not the failed commit is reported.
#[test]
fn what_was_acknowledged_survives_although_a_commit_of_the_journal_failed_at_any_sync() {
    let (mut struck, mut outlived) = (0, 0);
    for told in [true, false] {
        for at in 0.. {
            let disk = MemStorage::new();
            let faults = FaultStorage::new(Arc::new(disk.clone()));
            faults.inject(Fault::new(FaultKind::FailedCommit { told }).at(at));
            let (acknowledged, result) = life(&manual(Arc::new(faults.clone())));
            if faults.struck() == 0 {
                result.unwrap();
                break;
            }
            struck += 1;
            assert!(
                result.is_err(),
                "step {at}, told: {told}: everything succeeded on a dead journal"
            );
            for policy in [CutPolicy::LoseUnsynced, CutPolicy::KeepAll] {
                let cut = disk.power_cut(&policy);
                if acknowledged.is_empty() {
                    continue;
                }
                let store = open(&cut);
                let namespace = store.open_namespace("N").unwrap();
                for key in &acknowledged {
                    assert!(
                        namespace.contains(key).unwrap(),
                        "step {at}, told: {told}, {policy:?}: {key} was acknowledged"
                    );
                    outlived += 1;
                }
            }
        }
    }
    at_least(100, struck, "commits that failed");
    at_least(1_000, outlived, "acknowledged keys checked");
}
