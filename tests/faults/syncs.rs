//! A sync that fails: what it would have promised is promised no more, whatever comes after it.

use std::sync::Arc;

use embercask::storage::{CutPolicy, Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{ErrorKind, ReadMode};

use crate::common::{DIRECTORY, keys, manual, open, text};
use crate::{kind, on_segments, poisoned, world};

/// B20: the sync works again at once, but what it would say is not to be trusted.
#[test]
fn after_a_failed_sync_writes_are_refused_until_the_store_is_opened_again() {
    for read_mode in [ReadMode::Map, ReadMode::Pread] {
        let disk = MemStorage::new();
        let faults = FaultStorage::new(Arc::new(disk.clone()));
        let options = || manual(Arc::new(faults.clone())).read_mode(read_mode);
        let store = options().open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        namespace.put("key", "old").unwrap();
        faults.inject(on_segments(FaultKind::FailedSync, Operation::Sync));
        assert_eq!(kind(namespace.put("unsure", "1")), ErrorKind::Io);
        poisoned(&store, &namespace);
        assert_eq!(kind(store.close()), ErrorKind::Poisoned);
        // The handle that is left keeps nobody out.
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

#[test]
fn a_failed_sync_of_the_directory_poisons_too() {
    let (disk, faults, store, namespace) = world();
    faults.inject(
        Fault::new(FaultKind::FailedSync)
            .on(Operation::SyncDirectory)
            .at(faults.steps() + 1),
    );
    let error = (0..20)
        .find_map(|n| namespace.put(format!("filler {n}"), [7; 1_000]).err())
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::Io);
    // It fails for the new segment, which is not needed, or for the manifest that lists it, which is.
    let acknowledged = keys(&namespace);
    drop((store, namespace));
    let store = open(&disk);
    assert_eq!(keys(&store.open_namespace("N").unwrap()), acknowledged);
}
