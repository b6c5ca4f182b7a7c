//! Undamaged records are salvaged unchanged; deleted ones stay deleted.

use std::path::Path;

use embercask::storage::MemStorage;
use embercask::{ErrorKind, ManualClock, PutOptions, ReadMode, salvage, salvage_with};

use crate::verify_and_salvage::{NOW, contents, large_store, options, salvaged};
use test_support::ending;

#[test]
fn a_sound_store_is_salvaged_whole_and_verifies_in_both_read_modes() {
    for mode in [ReadMode::Map, ReadMode::Pread] {
        let disk = MemStorage::new();
        let whole = large_store(options(&disk).read_mode(mode), "/store");
        let store = options(&disk).read_mode(mode).open("/store").unwrap();
        let report = store.verify().unwrap();
        assert!(report.is_sound(), "{:?}", report.damaged);
        assert_eq!((report.records, report.keys), (301, 301));
        assert!(report.segments > 3 && report.hints == report.segments, "{report:?}");
        let busy = salvage("/store", "/out", options(&disk)).unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::InUse);
        store.close().unwrap();
        // Taking the lock writes the holder into the file.
        let files = || {
            let files = disk.files("/store").into_iter().filter(|path| !path.ends_with("LOCK"));
            files
                .map(|path| (disk.read_file(&path).unwrap(), path))
                .collect::<Vec<_>>()
        };
        let before = files();
        assert!(before.len() > 8, "{}", before.len());
        let (report, found) = salvaged(&disk);
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(found, whole);
        assert!(files() == before, "the store was changed");
    }
}

#[test]
fn a_segment_that_the_manifest_does_not_list_is_left_out() {
    let disk = MemStorage::new();
    let store = options(&disk).open("/store").unwrap();
    let namespace = store.namespace("N").unwrap();
    for n in 0..200 {
        namespace
            .put(format!("key-{n}"), "a value that takes some room in its segment")
            .unwrap();
    }
    drop(namespace);
    store.close().unwrap();
    let old: Vec<_> = ending(&disk, ".segment")
        .into_iter()
        .map(|path| (disk.read_file(&path).unwrap(), path))
        .collect();
    let store = options(&disk).open("/store").unwrap();
    let namespace = store.namespace("N").unwrap();
    for n in 0..100 {
        namespace.delete(format!("key-{n}")).unwrap();
    }
    store.compact().unwrap();
    drop(namespace);
    store.close().unwrap();
    // As if the removal of the inputs had been interrupted.
    for (bytes, path) in &old {
        disk.write_file(path, bytes).unwrap();
    }
    let listed = ending(&disk, ".segment").len();
    assert!(old.len() > 3 && listed > old.len(), "{} of {listed}", old.len());
    let (report, found) = salvaged(&disk);
    assert!(report.is_complete());
    assert_eq!(found.len(), 100);
}

#[test]
fn namespaces_keep_name_and_id_and_dropped_ones_stay_dropped() {
    let disk = MemStorage::new();
    let store = options(&disk).open("/store").unwrap();
    for name in ["KEPT", "DROPPED", "OLD"] {
        store.namespace(name).unwrap().put("key", name).unwrap();
    }
    store.rename_namespace("OLD", "NEW").unwrap();
    store.namespace("OLD").unwrap().put("key", "another").unwrap();
    store.drop_namespace("DROPPED").unwrap();
    store.namespace("EMPTY").unwrap();
    let before = (store.namespaces().unwrap(), contents(&store));
    store.close().unwrap();
    let (report, found) = salvaged(&disk);
    assert!(report.recovered_namespaces.is_empty(), "{report:?}");
    let out = options(&disk).open("/out").unwrap();
    assert_eq!((out.namespaces().unwrap(), found), before);
}

#[test]
fn what_has_expired_is_left_out_and_does_not_uncover_what_lay_below() {
    let disk = MemStorage::new();
    let store = options(&disk).open("/store").unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "first").unwrap();
    namespace
        .put_with("key", "second", PutOptions::new().expires_at_ms(NOW + 10))
        .unwrap();
    namespace
        .put_with("other", "lives on", PutOptions::new().expires_at_ms(NOW + 1000))
        .unwrap();
    drop(namespace);
    store.close().unwrap();
    let later = || options(&disk).clock(ManualClock::new(NOW + 10));
    let report = salvage("/store", "/out", later()).unwrap();
    assert_eq!((report.keys, report.expired), (1, 1));
    let found = contents(&later().open("/out").unwrap());
    assert_eq!(
        found[&("N".to_owned(), b"other".to_vec())],
        (b"lives on".to_vec(), None, Some(NOW + 1000))
    );
}

#[test]
fn a_salvage_that_ends_early_leaves_nothing() {
    let disk = MemStorage::new();
    large_store(options(&disk), "/store");
    assert_eq!(
        salvage("/nothing", "/out", options(&disk)).unwrap_err().kind(),
        ErrorKind::NotAStore
    );
    assert_eq!(
        salvage("/store", "/store/out", options(&disk)).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    disk.create_directory(Path::new("/full")).unwrap();
    disk.write_file("/full/notes.txt", b"mine").unwrap();
    assert_eq!(
        salvage("/store", "/full", options(&disk)).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    let mut calls = 0;
    let mut all = 0;
    salvage_with("/store", "/whole", options(&disk), |_| {
        all += 1;
        true
    })
    .unwrap();
    for stop in 0..all {
        calls = 0;
        let stopped = salvage_with("/store", "/out", options(&disk), |_| {
            calls += 1;
            calls <= stop
        });
        assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Cancelled, "{stop}");
        assert!(!disk.exists(Path::new("/out")).unwrap() && !disk.exists(Path::new("/out.partial")).unwrap());
    }
    assert!(calls > 4);
}
