//! A failure beside threads, or in the store's own: everybody is told, and nobody waits for ever.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{Durability, ErrorKind, Maintenance};

use crate::common::{DIRECTORY, class, keys, manual, open, text};
use crate::hooked::Hooked;
use crate::{FAILED, kind, poisoned};

/// B24: a storage panics in the middle of a put, with the lock of all writers held. The put is lost to its caller; the next one
/// is not kept waiting for ever by the lock that was left behind.
#[test]
fn a_put_that_panics_leaves_no_lock_that_others_wait_for() {
    let disk = MemStorage::new();
    let armed = Arc::new(AtomicBool::new(false));
    let hook_armed = armed.clone();
    let hook = move |operation: Operation, path: &Path| {
        let strikes = operation == Operation::Create && path.extension().is_some_and(|end| end == "segment");
        assert!(!(strikes && hook_armed.swap(false, Ordering::SeqCst)), "injected panic");
        Ok(())
    };
    let store = manual(Hooked::over(&disk, hook)).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "before").unwrap();
    armed.store(true, Ordering::SeqCst);
    // The segment is full sooner or later, and a writer creates the next one.
    let writer = namespace.clone();
    let panicked =
        std::thread::spawn(move || (0..100).try_for_each(|n| writer.put(format!("{n}"), [7; 500]).map(drop)));
    assert!(panicked.join().is_err(), "no put came to create a segment");
    let (done, is_done) = mpsc::channel();
    let writer = namespace.clone();
    std::thread::spawn(move || done.send(writer.put("key", "after").is_ok()));
    let written = is_done.recv_timeout(std::time::Duration::from_secs(60));
    assert!(
        written.expect("the put does not come back"),
        "there is no reason to refuse it"
    );
    assert_eq!(text(&namespace, "key").as_deref(), Some("after"));
    store.close().unwrap();
}

/// B24: the worker dies at its work. Everybody who writes is told, nobody waits for it, and the store can be opened again.
#[test]
fn a_background_thread_that_panics_poisons_the_store_and_hangs_nobody() {
    let disk = MemStorage::new();
    let armed = Arc::new(AtomicBool::new(false));
    let hook_armed = armed.clone();
    let hook = move |operation: Operation, path: &Path| {
        let in_worker = std::thread::current()
            .name()
            .is_some_and(|name| name.starts_with("embercask-"));
        let strikes = operation == Operation::Create && path.extension().is_some_and(|end| end == "hint");
        assert!(
            !(in_worker && strikes && hook_armed.load(Ordering::Relaxed)),
            "injected panic"
        );
        Ok(())
    };
    let store = manual(Hooked::over(&disk, hook))
        .maintenance(Maintenance::Background)
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "old").unwrap();
    armed.store(true, Ordering::Relaxed);
    let acknowledged: usize = std::thread::scope(|scope| {
        let write = |thread: usize| {
            let namespace = &namespace;
            // The worker needs a moment to get there; writes fail from then on, or the test does not end.
            move || {
                (0..)
                    .find(|n| namespace.put(format!("{thread} {n}"), [7; 500]).is_err())
                    .unwrap()
            }
        };
        let writers: Vec<_> = (0..4).map(|thread| scope.spawn(write(thread))).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    });
    poisoned(&store, &namespace);
    assert!(store.stats().poisoned.unwrap().contains("panicked"));
    assert_eq!(kind(store.close()), ErrorKind::Poisoned);
    let store = open(&disk);
    let namespace = store.open_namespace("N").unwrap();
    assert!(
        namespace.count().unwrap() > acknowledged as u64,
        "{acknowledged} and the first"
    );
    namespace.put("key", "new").unwrap();
    store.close().unwrap();
}

#[test]
fn failures_in_the_background_are_kept_for_the_stats_and_hang_nobody() {
    for (kind, operation) in [
        (FAILED, Operation::Create),
        (FAILED, Operation::Rename),
        (FaultKind::FailedSync, Operation::Sync),
    ] {
        let disk = MemStorage::new();
        let faults = FaultStorage::new(Arc::new(disk.clone()));
        let options = manual(Arc::new(faults.clone())).maintenance(Maintenance::Background);
        let store = options.open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        faults.inject(Fault::new(kind).on(operation).repeated());
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (store, namespace) = (&store, &namespace);
                scope.spawn(move || {
                    for n in 0..200 {
                        let durability = [Durability::Buffered, Durability::Os, Durability::Sync][n % 3];
                        let result = namespace.put_with(format!("{thread} {n}"), [7; 100], class(durability));
                        if n % 50 == 0 && result.is_err() {
                            let _ = (store.flush(), store.sync(), store.compact());
                        }
                    }
                });
            }
        });
        let seen = keys(&namespace);
        let _ = store.close();
        faults.clear();
        let store = open(&disk);
        let found = keys(&store.open_namespace("N").unwrap());
        assert!(
            found.iter().all(|key| seen.contains(key)),
            "{operation:?}: nothing is invented"
        );
    }
}

/// The write of a namespace's record fails while somebody else is about to write: the record must not stay in the log behind what
/// the other is told. Creating the namespace again must not make two of them.
#[test]
fn a_namespace_whose_creation_failed_can_be_created_again_and_is_one() {
    let disk = MemStorage::new();
    let (armed, (reached, at_write), (go_on, may_go_on)) =
        (Arc::new(AtomicBool::new(false)), mpsc::channel(), mpsc::channel::<()>());
    let may_go_on = std::sync::Mutex::new(may_go_on);
    let hook_armed = armed.clone();
    let hook = move |operation: Operation, path: &Path| {
        let strikes = operation == Operation::Write && path.extension().is_some_and(|end| end == "segment");
        if strikes && hook_armed.swap(false, Ordering::SeqCst) {
            reached.send(()).unwrap();
            may_go_on.lock().unwrap().recv().unwrap();
            return Err(io::Error::other("injected"));
        }
        Ok(())
    };
    let store = manual(Hooked::over(&disk, hook)).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "old").unwrap();
    for rename in [false, true] {
        armed.store(true, Ordering::SeqCst);
        std::thread::scope(|scope| {
            let store = &store;
            let failing = scope.spawn(move || {
                if rename {
                    store.rename_namespace("N", "renamed")
                } else {
                    store.create_namespace("created").map(drop)
                }
            });
            at_write.recv().unwrap();
            let buffered = scope.spawn(|| namespace.put_with("buffered", "1", class(Durability::Buffered)));
            go_on.send(()).unwrap();
            assert_eq!(kind(failing.join().unwrap()), ErrorKind::Io);
            buffered.join().unwrap().unwrap();
        });
        // Whoever asks again gets one, whether the failed attempt counts or not.
        let names = || {
            store
                .namespaces()
                .unwrap()
                .into_iter()
                .map(|info| info.name)
                .collect::<Vec<_>>()
        };
        if rename {
            let renamed = store.namespace("renamed").unwrap();
            renamed.put("in renamed", "1").unwrap();
        } else {
            store.namespace("created").unwrap().put("in created", "1").unwrap();
        }
        let known = names();
        let killed = open(&disk.crash_process());
        let found: Vec<_> = killed.namespaces().unwrap().into_iter().map(|info| info.name).collect();
        assert_eq!(found, known, "rename {rename}");
        let (name, key) = if rename {
            ("renamed", "in renamed")
        } else {
            ("created", "in created")
        };
        assert_eq!(
            text(&killed.open_namespace(name).unwrap(), key).as_deref(),
            Some("1"),
            "rename {rename}"
        );
    }
}
