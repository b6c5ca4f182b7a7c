//! Writers that share a sync of the device.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use embercask::storage::{CutPolicy, MemStorage, Operation};

use crate::concurrency::{intact, small, value_of};
use test_support::hooked::Hooked;
use test_support::{DIRECTORY, manual, open, until};

const THREADS: usize = 8;

/// The device is held in the first writer's sync until all others have appended; the next sync then
/// covers all of them.
#[test]
fn eight_sync_writers_share_syncs() {
    let (reached, at_sync) = mpsc::channel();
    let (let_go, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let armed = Arc::new(AtomicBool::new(false));
    let hook_armed = armed.clone();
    let hook = move |operation: Operation, path: &Path| {
        let strikes = operation == Operation::Sync && path.extension().is_some_and(|end| end == "segment");
        if strikes && hook_armed.swap(false, Ordering::SeqCst) {
            reached.send(()).unwrap();
            // An error means that the test has ended, one way or another.
            let _ = may_go_on.lock().unwrap().recv();
        }
        Ok(())
    };
    let store = manual(Hooked::over(&MemStorage::new(), hook))
        .segment_bytes(1 << 20)
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("before", "1").unwrap();
    let before = store.stats();
    armed.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let put = |thread: usize| {
            let (store, namespace) = (&store, &namespace);
            move || {
                let sequence = namespace.put(format!("{thread}"), value_of(1)).unwrap();
                assert!(store.stats().durable_sequence >= sequence);
            }
        };
        scope.spawn(put(0));
        at_sync.recv().unwrap();
        let first = store.stats().last_sequence;
        (1..THREADS).for_each(|thread| drop(scope.spawn(put(thread))));
        until("the others have appended theirs", || {
            store.stats().last_sequence >= first + THREADS as u64 - 1
        });
        assert_eq!(store.stats().durable_sequence, before.durable_sequence);
        let_go.send(()).unwrap();
    });
    let after = store.stats();
    assert_eq!(
        after.syncs - before.syncs,
        2,
        "one sync for the first writer, and one for all others"
    );
    assert_eq!(after.write_outs - before.write_outs, 2);
    assert_eq!(namespace.count().unwrap(), 1 + THREADS as u64);
}

/// Every acknowledged write is on the device, no matter which writer led the commit.
#[test]
fn each_of_eight_sync_writers_is_durable_when_told_so() {
    const PUTS: u64 = 150;
    let disk = MemStorage::new();
    let store = small(&disk).segment_bytes(4096).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    let acknowledged: Vec<AtomicU64> = (0..THREADS).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        let writers: Vec<_> = acknowledged
            .iter()
            .enumerate()
            .map(|(thread, acknowledged)| {
                let (store, namespace) = (&store, &namespace);
                scope.spawn(move || {
                    for n in 1..=PUTS {
                        let sequence = namespace.put(format!("{thread}"), value_of(n)).unwrap();
                        assert!(store.stats().durable_sequence >= sequence);
                        acknowledged.store(n, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        // The last cut comes after everything was acknowledged.
        let mut all_done = false;
        while !all_done {
            all_done = writers.iter().all(|writer| writer.is_finished());
            let least: Vec<_> = acknowledged
                .iter()
                .map(|newest| newest.load(Ordering::SeqCst))
                .collect();
            let cut = disk.power_cut(&CutPolicy::LoseUnsynced);
            let store = open(&cut);
            let namespace = store.open_namespace("N").unwrap();
            for (thread, least) in least.iter().enumerate() {
                let found = namespace
                    .get(format!("{thread}"))
                    .unwrap()
                    .map_or(0, |value| intact(&value));
                assert!(
                    found >= *least,
                    "thread {thread}: {least} was acknowledged, {found} was found"
                );
            }
        }
    });
    assert!(acknowledged.iter().all(|newest| newest.load(Ordering::SeqCst) == PUTS));
    let stats = store.stats();
    assert_eq!((stats.poisoned, stats.background_error), (None, None));
}
