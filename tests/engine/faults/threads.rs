//! Failures with concurrent threads, or in background threads: every caller gets an error, and none
//! waits for ever.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation, Storage};
use embercask::{Durability, ErrorKind, Maintenance, Namespace, Options, ReadMode, Store};

use crate::faults::{FAILED, kind, on_segments, poisoned};
use test_support::hooked::Hooked;
use test_support::{DIRECTORY, class, keys, manual, open, text, until};

/// B24: the storage panics during a put that holds the writer lock. That put is lost to its caller;
/// the next one must not wait for ever on the abandoned lock.
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
    // The segment fills up sooner or later, and a writer creates the next one.
    let writer = namespace.clone();
    let panicked =
        std::thread::spawn(move || (0..100).try_for_each(|n| writer.put(format!("{n}"), [7; 500]).map(drop)));
    assert!(panicked.join().is_err(), "no put created a segment");
    let (done, is_done) = mpsc::channel();
    let writer = namespace.clone();
    std::thread::spawn(move || done.send(writer.put("key", "after").is_ok()));
    let written = is_done.recv_timeout(Duration::from_secs(60));
    assert!(
        written.expect("the put does not return"),
        "the put was refused without a reason"
    );
    assert_eq!(text(&namespace, "key").as_deref(), Some("after"));
    store.close().unwrap();
}

/// B24: the worker panics. Every writer gets an error, none waits for it, and the store can be
/// opened again.
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
            // The worker takes a moment to panic; writes fail from then on, or the test does not
            // end.
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
        "{acknowledged} keys and the first one"
    );
    namespace.put("key", "new").unwrap();
    store.close().unwrap();
}

/// The background error in the stats, as soon as there is one.
#[track_caller]
fn told_in_the_background(store: &Store) -> String {
    until("the stats show a background failure", || {
        store.stats().background_error.is_some()
    });
    store.stats().background_error.unwrap()
}

fn background(storage: Arc<dyn Storage>) -> Options {
    manual(storage)
        .maintenance(Maintenance::Background)
        .flush_interval(Duration::from_millis(1))
}

/// Puts of all classes, then every other kind of write. Returns the acknowledged puts with their
/// classes, and the number of refusals.
fn write_on(
    store: &Store,
    namespace: &Namespace,
    thread: usize,
    expected: &[ErrorKind],
) -> (Vec<(String, Durability)>, u64) {
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    let check = |error: &embercask::Error| assert!(expected.contains(&error.kind()), "{error}");
    for n in 0..60 {
        let durability = [Durability::Buffered, Durability::Os, Durability::Sync][n % 3];
        let key = format!("{thread} {n}");
        match namespace.put_with(&key, [7; 100], class(durability)) {
            Ok(_) => acknowledged.push((key, durability)),
            Err(error) => {
                check(&error);
                refused += 1;
            }
        }
        if n % 20 == 19 {
            let others = [store.flush(), store.sync(), store.compact().map(drop)];
            others
                .into_iter()
                .filter_map(Result::err)
                .for_each(|error| check(&error));
        }
    }
    (acknowledged, refused)
}

#[test]
fn failures_in_the_background_are_kept_for_the_stats_and_hang_nobody() {
    for (failing, operation, says, poisons) in [
        (FAILED, Operation::Create, "cannot create", false),
        (FAILED, Operation::Rename, "cannot rename the new manifest", true),
        (FaultKind::FailedSync, Operation::Sync, "cannot sync", true),
    ] {
        let disk = MemStorage::new();
        let faults = FaultStorage::new(Arc::new(disk.clone()));
        let store = background(Arc::new(faults.clone())).open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        let mut acknowledged = Vec::new();
        for (n, durability) in [Durability::Os, Durability::Sync, Durability::Buffered]
            .into_iter()
            .enumerate()
        {
            namespace.put_with(format!("{n}"), "1", class(durability)).unwrap();
            acknowledged.push((n.to_string(), durability));
        }
        assert_eq!(store.stats().background_error, None);
        faults.inject(Fault::new(failing).on(operation).repeated());
        // The segment is half full now, so a background thread, and no other, creates the next one
        // in advance.
        let half = class(Durability::Buffered);
        namespace.put_with("half of a segment", [7; 2_200], half).unwrap();
        let told = told_in_the_background(&store);
        assert!(told.contains(says), "{operation:?}: {told}");
        let expected = [ErrorKind::Io, ErrorKind::Poisoned];
        let expected = if poisons { &expected[..] } else { &expected[..1] };
        std::thread::scope(|scope| {
            let (store, namespace) = (&store, &namespace);
            let writers: Vec<_> = (1..5)
                .map(|thread| scope.spawn(move || write_on(store, namespace, thread, expected)))
                .collect();
            for writer in writers {
                let (written, refused) = writer.join().unwrap();
                assert!(refused > 0, "{operation:?}: nothing was refused");
                acknowledged.extend(written);
            }
        });
        let stats = store.stats();
        assert_eq!(stats.poisoned.is_some(), poisons, "{operation:?}: {:?}", stats.poisoned);
        assert!(stats.background_error.is_some());
        let seen = keys(&namespace);
        for (key, _) in &acknowledged {
            assert!(namespace.contains(key).unwrap(), "{operation:?}: {key}");
        }
        let closed = kind(store.close());
        assert_eq!(closed, *expected.last().unwrap(), "{operation:?}");
        faults.clear();
        let store = open(&disk);
        let namespace = store.open_namespace("N").unwrap();
        let found = keys(&namespace);
        assert!(
            found.iter().all(|key| seen.contains(key)),
            "{operation:?}: a key was never put"
        );
        for (key, durability) in &acknowledged {
            let promised = *durability != Durability::Buffered;
            assert!(!promised || found.contains(key), "{operation:?}: {key} is lost");
        }
        namespace.put("key", "new").unwrap();
        store.close().unwrap();
    }
}

/// Each of the three threads, during work that only it does.
#[test]
fn what_fails_in_any_of_the_stores_threads_is_kept_for_the_stats() {
    type Work = fn(&Store, &Namespace);
    let flushes: Work = |_, namespace| {
        let buffered = class(Durability::Buffered);
        namespace.put_with("buffered", "1", buffered).unwrap();
    };
    let seals: Work = |_, namespace| {
        for n in 0..8 {
            let buffered = class(Durability::Buffered);
            namespace.put_with(format!("{n}"), [7; 1_000], buffered).unwrap();
        }
    };
    let compacts: Work = |store, _| store.resume_compaction();
    for (name, fault, work, says) in [
        ("flush", on_segments(FAILED, Operation::Write), flushes, "cannot write"),
        (
            "maintenance",
            on_segments(FAILED, Operation::OpenRead),
            seals,
            "cannot open",
        ),
        (
            "compaction",
            on_segments(FAILED, Operation::Read),
            compacts,
            "cannot read",
        ),
    ] {
        let faults = FaultStorage::new(Arc::new(MemStorage::new()));
        let store = background(Arc::new(faults.clone()))
            .read_mode(ReadMode::Pread)
            .open(DIRECTORY)
            .unwrap();
        store.pause_compaction();
        let namespace = store.namespace("N").unwrap();
        for n in 0..40 {
            namespace
                .put_with(format!("{}", n % 8), [n; 500], class(Durability::Os))
                .unwrap();
        }
        store.maintain().unwrap();
        assert_eq!(store.stats().background_error, None, "{name}");
        faults.inject(fault.repeated());
        work(&store, &namespace);
        let told = told_in_the_background(&store);
        assert!(told.contains(says), "{name}: {told}");
        faults.clear();
        namespace.put("key", "goes on").unwrap();
        store.close().unwrap();
    }
}

/// The write of a namespace record fails while another thread is about to write: the record must
/// not stay in the log after the other thread's error. Creating the namespace again must not make
/// two of them.
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
        // Asking again yields one namespace, whether or not the failed attempt counts.
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
