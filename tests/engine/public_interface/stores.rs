//! The effect of each call on a store, and of each of its options and limits.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embercask::storage::{CutPolicy, Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{
    Durability, Error, ErrorKind, Limits, Maintenance, ManualClock, Namespace, NamespaceInfo, PutOptions, ReadMode,
    SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, Store,
};

use crate::public_interface::{buffered, fill};
use test_support::hooked::Hooked;
use test_support::{DIRECTORY, ending, keys, manual, open, text};

const NOW_MS: u64 = 2_000_000_000_000;

#[test]
fn a_store_is_opened_in_its_directory_and_tells_where_and_which_it_is() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("data");
    let store = Store::open(&path).unwrap();
    assert_eq!(store.directory(), path);
    assert!(path.join("MANIFEST").exists());
    assert!(store.recovery_report().created);
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "value").unwrap();
    let id = store.id();
    assert!(id != 0);
    assert_eq!(Store::open(&path).unwrap_err().kind(), ErrorKind::InUse);
    store.close().unwrap();
    assert!(matches!(namespace.put("key", "1"), Err(Error::Closed)));
    let again = Store::options().open(&path).unwrap();
    assert_eq!(again.id(), id, "the id changed");
    assert_eq!(
        text(&again.open_namespace("N").unwrap(), "key").as_deref(),
        Some("value")
    );
    let other = Store::open(root.path().join("other")).unwrap();
    assert_ne!(other.id(), id);
    assert_ne!(other.directory(), again.directory());
}

#[test]
fn a_store_is_made_only_where_that_was_asked_for() {
    let disk = MemStorage::new();
    let options = || manual(Arc::new(disk.clone()));
    assert_eq!(
        options().create(false).open(DIRECTORY).unwrap_err().kind(),
        ErrorKind::NotAStore
    );
    assert!(!disk.exists(Path::new(DIRECTORY)).unwrap());
    drop(options().create(true).open(DIRECTORY).unwrap());
    drop(options().create(false).open(DIRECTORY).unwrap());
}

#[test]
fn the_files_of_a_store_are_in_the_storage_that_was_named() {
    let (disk, other) = (MemStorage::new(), MemStorage::new());
    let store = Store::options()
        .storage(Arc::new(disk.clone()))
        .open(DIRECTORY)
        .unwrap();
    store.namespace("N").unwrap().put("key", "value").unwrap();
    store.close().unwrap();
    assert!(disk.files(DIRECTORY).len() > 2 && other.files(DIRECTORY).is_empty());
    assert!(!Path::new(DIRECTORY).exists(), "files on the machine's own disk");
    let opened = Store::options().storage(Arc::new(other)).create(false).open(DIRECTORY);
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::NotAStore);
}

#[test]
fn namespaces_are_created_found_renamed_and_dropped() {
    let store = open(&MemStorage::new());
    let first = store.create_namespace("first").unwrap();
    let second = store.create_namespace_with_id("second", 7).unwrap();
    assert_eq!((second.id(), second.name().as_str()), (7, "second"));
    assert!(!matches!(first.id(), 0 | 7), "the id is not random");
    let exists = |result: embercask::Result<Namespace>| match result {
        Err(Error::NamespaceExists { name }) => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(exists(store.create_namespace("first")), "first");
    assert!(store.create_namespace_with_id("third", 7).is_err(), "the id is taken");
    first.put("key", "of first").unwrap();
    second.put("key", "of second").unwrap();
    // The same namespaces, whichever call finds them.
    for found in [
        store.namespace("first").unwrap(),
        store.open_namespace("first").unwrap(),
        store.namespace_by_id(first.id()).unwrap().unwrap(),
    ] {
        assert_eq!(
            (found.id(), text(&found, "key").as_deref()),
            (first.id(), Some("of first"))
        );
        assert_eq!(found.store().id(), store.id());
    }
    assert!(store.namespace_by_id(8).unwrap().is_none());
    let not_found = |result: embercask::Result<Namespace>| matches!(result, Err(Error::NamespaceNotFound { name }) if name == "gone");
    assert!(not_found(store.open_namespace("gone")));
    store.rename_namespace("first", "renamed").unwrap();
    assert_eq!(first.name(), "renamed");
    assert_eq!(text(&first, "key").as_deref(), Some("of first"));
    let infos = store.namespaces().unwrap();
    let infos: Vec<_> = infos
        .iter()
        .map(|NamespaceInfo { name, id, .. }| (name.as_str(), *id))
        .collect();
    assert_eq!(infos, [("renamed", first.id()), ("second", 7)]);
    store.drop_namespace("renamed").unwrap();
    assert!(matches!(first.get("key"), Err(Error::NamespaceNotFound { .. })));
    assert_eq!(store.namespaces().unwrap().len(), 1);
    let anew = store.namespace("renamed").unwrap();
    assert_eq!(keys(&anew), [""; 0]);
}

/// What remains after a buffered write, this call, and a kill or a power cut.
#[test]
fn flush_sync_and_maintain_make_safe_what_they_say() {
    type Call = fn(&Store);
    let calls: [(Call, bool, bool); 5] = [
        (|_| (), false, false),
        (|store| store.flush().unwrap(), true, false),
        (|store| store.maintain().unwrap(), true, false),
        (|store| store.sync().unwrap(), true, true),
        (|store| store.clone().close().unwrap(), true, true),
    ];
    for (number, (call, survives_kill, survives_cut)) in calls.into_iter().enumerate() {
        let disk = MemStorage::new();
        let store = open(&disk);
        let namespace = store.namespace("N").unwrap();
        namespace.put_with("key", "value", buffered()).unwrap();
        call(&store);
        let has = |disk: MemStorage| text(&open(&disk).open_namespace("N").unwrap(), "key").is_some();
        assert_eq!(has(disk.crash_process()), survives_kill, "call {number}, killed");
        let cut = disk.power_cut(&CutPolicy::LoseUnsynced);
        assert_eq!(has(cut), survives_cut, "call {number}, power cut");
    }
}

#[test]
fn each_class_of_durability_survives_what_it_says() {
    for (durability, survives_kill, survives_cut) in [
        (Durability::Buffered, false, false),
        (Durability::Os, true, false),
        (Durability::Sync, true, true),
    ] {
        let disk = MemStorage::new();
        let options = manual(Arc::new(disk.clone())).durability(durability);
        let store = options.open(DIRECTORY).unwrap();
        store.namespace("N").unwrap().put("key", "value").unwrap();
        let has = |disk: MemStorage| text(&open(&disk).open_namespace("N").unwrap(), "key").is_some();
        assert_eq!(has(disk.crash_process()), survives_kill, "{durability:?}, killed");
        let cut = disk.power_cut(&CutPolicy::LoseUnsynced);
        assert_eq!(has(cut), survives_cut, "{durability:?}, power cut");
    }
}

#[test]
fn segments_are_as_large_as_was_asked_for_within_bounds() {
    let filled = |segment_bytes| {
        let disk = MemStorage::new();
        let options = manual(Arc::new(disk.clone())).segment_bytes(segment_bytes);
        let store = options.open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        fill(&namespace, 100, 100, 1000);
        store.close().unwrap();
        let segments = ending(&disk, ".segment");
        (
            segments.len(),
            segments
                .iter()
                .map(|path| disk.read_file(path).unwrap().len() as u64)
                .max()
                .unwrap(),
        )
    };
    for (segment_bytes, segments) in [(SEGMENT_BYTES_MIN, 34), (16 << 10, 7), (1 << 20, 1)] {
        let (found, largest) = filled(segment_bytes);
        assert!(found.abs_diff(segments) <= 1, "{segment_bytes}: {found} segments");
        assert!(largest < segment_bytes + 200, "{segment_bytes}: one of {largest} bytes");
    }
    let opened = |bytes| manual(Arc::new(MemStorage::new())).segment_bytes(bytes).open(DIRECTORY);
    assert!(opened(SEGMENT_BYTES_MIN).is_ok() && opened(SEGMENT_BYTES_MAX).is_ok());
    assert!(opened(SEGMENT_BYTES_MIN - 1).is_err() && opened(SEGMENT_BYTES_MAX + 1).is_err());
}

#[test]
fn sealed_segments_are_mapped_or_read_as_was_asked_for() {
    for (mode, maps) in [(ReadMode::Map, true), (ReadMode::Pread, false)] {
        let disk = MemStorage::new();
        let store = open(&disk);
        let namespace = store.namespace("N").unwrap();
        fill(&namespace, 20, 20, 1000);
        drop((namespace, store));
        let faults = FaultStorage::new(Arc::new(disk));
        faults.inject(
            Fault::new(FaultKind::Error(std::io::ErrorKind::Other))
                .on(Operation::Map)
                .repeated(),
        );
        let opened = manual(Arc::new(faults.clone())).read_mode(mode).open(DIRECTORY);
        assert_eq!(faults.struck() > 0, maps, "{mode:?}");
        assert_eq!(opened.is_err(), maps, "{mode:?}");
        if let Ok(store) = opened {
            assert_eq!(store.open_namespace("N").unwrap().get("3").unwrap().unwrap(), [7; 1000]);
        }
    }
}

#[test]
fn the_work_of_the_background_is_done_by_threads_only_if_they_were_asked_for() {
    for (maintenance, threads) in [(Maintenance::Manual, false), (Maintenance::Background, true)] {
        let disk = MemStorage::new();
        let seen = Arc::new(Mutex::new(std::collections::BTreeSet::new()));
        let in_hook = seen.clone();
        let hook = move |_: Operation, _: &Path| {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            in_hook.lock().unwrap().insert(name);
            Ok(())
        };
        let store = manual(Hooked::over(&disk, hook))
            .maintenance(maintenance)
            .open(DIRECTORY)
            .unwrap();
        let namespace = store.namespace("N").unwrap();
        fill(&namespace, 100, 100, 1000);
        // Without a call, if at all.
        while threads && store.stats().pending_bytes > 0 {
            std::thread::yield_now();
        }
        store.close().unwrap();
        let found = seen.lock().unwrap().iter().any(|name| name.starts_with("embercask-"));
        assert_eq!(found, threads, "{maintenance:?}: {:?}", seen.lock().unwrap());
    }
}

#[test]
fn the_time_is_that_of_the_clock_and_the_grace_is_waited_for() {
    for grace_ms in [0, 5000] {
        let clock = ManualClock::new(NOW_MS);
        let disk = MemStorage::new();
        let options = manual(Arc::new(disk.clone())).clock(clock.clone());
        let store = options
            .expiry_grace(Duration::from_millis(grace_ms))
            .open(DIRECTORY)
            .unwrap();
        assert_eq!(store.now_ms(), NOW_MS);
        let namespace = store.namespace("N").unwrap();
        let ttl = PutOptions::new().ttl(Duration::from_millis(1000));
        namespace.put_with("key", "value", ttl).unwrap();
        clock.advance(999);
        assert_eq!(store.now_ms(), NOW_MS + 999);
        assert!(namespace.contains("key").unwrap());
        clock.advance(1);
        assert!(!namespace.contains("key").unwrap());
        let on_disk = || {
            store.compact().unwrap();
            let segments = ending(&disk, ".segment").into_iter();
            segments
                .map(|path| disk.read_file(path).unwrap())
                .any(|bytes| bytes.windows(5).any(|part| part == b"value"))
        };
        if grace_ms > 0 {
            assert!(on_disk());
            clock.advance(grace_ms - 1);
            assert!(on_disk());
            clock.advance(1);
        }
        assert!(!on_disk(), "grace of {grace_ms} ms");
        // Only the wall clock.
        clock.set_wall(NOW_MS - 50);
        assert_eq!(store.now_ms(), NOW_MS - 50);
    }
}

#[test]
fn each_limit_is_kept_to_the_last_byte() {
    let limits = Limits {
        key_bytes_max: 3,
        value_bytes_max: 5,
        metadata_bytes_max: 7,
        ttl_min: Duration::from_secs(9),
        page_keys_max: 2,
        url_safe_keys: true,
    };
    let options = manual(Arc::new(MemStorage::new())).limits(limits);
    let store = options.clock(ManualClock::new(NOW_MS)).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    let put = |key: &[u8], value: &str, options| namespace.put_with(key, value, options).map_err(|error| error.kind());
    let (new, refused) = (PutOptions::new, Err(ErrorKind::InvalidInput));
    assert!(put(b"abc", "", new()).is_ok());
    assert_eq!(put(b"abcd", "", new()), refused);
    assert!(put(b"a", "12345", new()).is_ok());
    assert_eq!(put(b"a", "123456", new()), refused);
    assert!(put(b"a", "", new().metadata("1234567")).is_ok());
    assert_eq!(put(b"a", "", new().metadata("12345678")), refused);
    assert!(put(b"a", "", new().ttl(Duration::from_secs(9))).is_ok());
    assert_eq!(put(b"a", "", new().ttl(Duration::from_millis(8999))), refused);
    for key in [&b".."[..], b".", b"\xff"] {
        assert_eq!(put(key, "", new()), refused);
    }
    assert!(put(b"...", "", new()).is_ok());
    let page = |keys| namespace.list().page_size(keys).page();
    assert_eq!(page(2).unwrap().len(), 2);
    assert_eq!(page(3).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_subset_is_compacted_as_its_mask_says() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    fill(&namespace, 30, 9, 1000);
    store.maintain().unwrap();
    let ids = || -> Vec<_> {
        store
            .stats()
            .segments
            .iter()
            .filter(|segment| segment.sealed)
            .map(|segment| segment.id)
            .collect()
    };
    let before = ids();
    assert_eq!(store.compact_subset(0).unwrap().runs, 0);
    assert_eq!(ids(), before);
    assert_eq!(store.compact_subset(0b101).unwrap().runs, 1);
    let after = ids();
    assert!(!after.contains(&before[0]) && !after.contains(&before[2]));
    assert!(after.contains(&before[1]) && after.contains(&before[3]));
    assert_eq!(keys(&namespace).len(), 9);
}
