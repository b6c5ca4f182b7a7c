//! Writers who wait for the device together.

use std::sync::atomic::{AtomicU64, Ordering};

use embercask::storage::{CutPolicy, MemStorage};

use crate::common::{DIRECTORY, open};
use crate::{intact, small, value_of};

/// Whoever was told Ok is on the device, whoever of the others led.
#[test]
fn eight_sync_writers_share_syncs_and_each_is_durable_when_told_so() {
    const THREADS: usize = 8;
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
                    for n in 1..=150 {
                        let sequence = namespace.put(format!("{thread}"), value_of(n)).unwrap();
                        assert!(store.stats().durable_sequence >= sequence);
                        acknowledged.store(n, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let mut cuts = 0;
        while cuts < 3 || writers.iter().any(|writer| !writer.is_finished()) {
            cuts += 1;
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
                    "{least} of thread {thread} was acknowledged, {found} is there"
                );
            }
        }
    });
    let stats = store.stats();
    assert_eq!((stats.poisoned, stats.background_error), (None, None));
}
