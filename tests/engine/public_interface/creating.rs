//! Stores that must be new, and stores that are removed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use embercask::storage::{CutPolicy, Fault, FaultKind, FaultStorage, MemStorage, Operation, Storage};
use embercask::{Error, ErrorKind, Store};

use test_support::{DIRECTORY, file_names, keys, manual, open};

/// A store with several segments, closed.
fn closed(disk: &MemStorage) {
    let store = open(disk);
    let namespace = store.namespace("N").unwrap();
    for key in 0..20 {
        namespace.put(format!("{key:02}"), [7; 1000]).unwrap();
    }
    store.close().unwrap();
}

#[test]
fn a_store_that_must_be_new_is_made_once() {
    let disk = MemStorage::new();
    let new = || manual(Arc::new(disk.clone())).create_new(true);
    // Also where stores are not created otherwise.
    let store = new().create(false).open(DIRECTORY).unwrap();
    store.namespace("N").unwrap().put("key", "value").unwrap();
    let exists = |error: Error| {
        assert!(matches!(&error, Error::StoreExists { path } if path == Path::new(DIRECTORY)));
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(error.to_string().contains("without `create_new`"), "{error}");
    };
    exists(new().open(DIRECTORY).unwrap_err());
    store.close().unwrap();
    exists(new().open(DIRECTORY).unwrap_err());
    let store = manual(Arc::new(disk.clone()))
        .create_new(false)
        .open(DIRECTORY)
        .unwrap();
    assert_eq!(keys(&store.open_namespace("N").unwrap()), ["key"]);
}

/// Found by the test below, once in many runs: the error was that of a directory that is not there.
#[test]
fn a_directory_that_another_creates_while_it_is_looked_for_is_opened() {
    let faults = FaultStorage::new(Arc::new(MemStorage::new()));
    let storage: Arc<dyn Storage> = Arc::new(faults.clone());
    manual(storage.clone()).open(DIRECTORY).unwrap().close().unwrap();
    let not_there = Fault::new(FaultKind::Error(std::io::ErrorKind::NotFound));
    faults.inject(not_there.on(Operation::OpenDirectory));
    manual(storage).create(false).open(DIRECTORY).unwrap();
    assert_eq!(faults.struck(), 1);
}

#[test]
fn of_many_who_make_a_new_store_one_gets_it() {
    let root = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let path = root.path().join(round.to_string());
        let made = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| Store::options().create_new(true).open(&path).map(drop)))
                .collect();
            let results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            for error in results.iter().filter_map(|result| result.as_ref().err()) {
                assert!(
                    matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::InUse),
                    "{error}"
                );
            }
            results.iter().filter(|result| result.is_ok()).count()
        });
        assert_eq!(made, 1);
    }
}

#[test]
fn a_destroyed_store_leaves_only_what_is_not_its_own() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("store");
    let kind = |path: &Path| Store::destroy(path).unwrap_err().kind();
    assert_eq!(kind(&path), ErrorKind::NotAStore);
    let store = Store::open(&path).unwrap();
    store.namespace("N").unwrap().put("key", "value").unwrap();
    assert_eq!(kind(&path), ErrorKind::InUse);
    let copy = root.path().join("copy");
    store.checkpoint(&copy).unwrap();
    store.close().unwrap();
    assert!(Store::destroy(&path).unwrap().is_empty());
    // A copy that was never opened has no lock file.
    assert!(Store::destroy(&copy).unwrap().is_empty());
    assert!(file_names(root.path()).is_empty());

    drop(Store::open(&path).unwrap());
    std::fs::write(path.join("notes.txt"), "mine").unwrap();
    std::fs::create_dir(path.join("more")).unwrap();
    let left: Vec<PathBuf> = ["more", "notes.txt"].map(|name| path.join(name)).into();
    assert_eq!(Store::destroy(&path).unwrap(), left);
    assert_eq!(file_names(&path), ["more", "notes.txt"]);
    assert_eq!(kind(&path), ErrorKind::NotAStore);
    assert_eq!(std::fs::read(path.join("notes.txt")).unwrap(), b"mine");

    // What the system has put there is not the store's either.
    let path = root.path().join("mounted");
    drop(Store::open(&path).unwrap());
    std::fs::create_dir(path.join("lost+found")).unwrap();
    assert_eq!(Store::destroy(&path).unwrap(), [path.join("lost+found")]);

    // Other engines have files of these names.
    let path = root.path().join("others");
    std::fs::create_dir(&path).unwrap();
    for name in ["LOCK", "CURRENT", "MANIFEST-000001"] {
        std::fs::write(path.join(name), "theirs").unwrap();
    }
    let before = file_names(&path);
    assert_eq!(kind(&path), ErrorKind::NotAStore);
    assert_eq!(file_names(&path), before);
    assert_eq!(std::fs::read(path.join("LOCK")).unwrap(), b"theirs");

    // A manifest that cannot be read may be anything, so nothing is removed.
    let path = root.path().join("damaged");
    drop(Store::open(&path).unwrap());
    std::fs::write(path.join("MANIFEST"), "no manifest").unwrap();
    let before = file_names(&path);
    assert_eq!(kind(&path), ErrorKind::Corruption);
    assert_eq!(file_names(&path), before);
}

#[test]
fn a_destruction_that_is_cut_off_leaves_the_store_an_empty_one_or_none() {
    let policies = [
        CutPolicy::LoseUnsynced,
        CutPolicy::KeepAll,
        CutPolicy::Random { seed: 1, grain: 512 },
        CutPolicy::Random { seed: 2, grain: 512 },
    ];
    let (mut whole, mut empty, mut none) = (0, 0, 0);
    for step in 0.. {
        let disk = MemStorage::new();
        closed(&disk);
        let faults = FaultStorage::new(Arc::new(disk.clone())).counting_mutating_steps_only();
        faults.stop_at(step);
        let ended = manual(Arc::new(faults.clone())).destroy(DIRECTORY);
        assert_eq!(ended.is_err(), faults.is_stopped(), "{ended:?}");
        let cuts = policies.iter().map(|policy| disk.power_cut(policy));
        for cut in cuts.chain([disk.crash_process()]) {
            let options = || manual(Arc::new(cut.clone()));
            match options().create(false).open(DIRECTORY) {
                Ok(store) => match store.open_namespace("N") {
                    Ok(namespace) => {
                        assert_eq!(namespace.count().unwrap(), 20);
                        whole += 1;
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::NotFound);
                        assert_eq!(store.stats().keys, 0);
                        empty += 1;
                    }
                },
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NotAStore, "{error}");
                    none += 1;
                }
            }
            // Whatever was left can be used, and destroyed.
            drop(options().open(DIRECTORY).unwrap());
            assert!(options().destroy(DIRECTORY).unwrap().is_empty());
            assert!(!cut.exists(DIRECTORY).unwrap());
        }
        if !faults.is_stopped() {
            break;
        }
    }
    assert!(whole > 5 && empty > 20 && none > 5, "{whole} {empty} {none}");
}
