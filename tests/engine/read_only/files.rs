//! Readers and the files of a store: directories that may only be read, and what a kill leaves.

use embercask::storage::{CutPolicy, MemStorage};
use embercask::{Durability, ErrorKind, Store};

use super::{contents, put, read};
use test_support::{class, keys, open, text};

/// A store that was never closed, with and without a torn end: it is shown as recovery would show
/// it, and left for recovery.
#[test]
fn what_a_kill_leaves_is_read_up_to_the_torn_end_and_left_as_it_is() {
    let disk = MemStorage::new();
    let writer = open(&disk);
    let written = writer.namespace("N").unwrap();
    for n in 0..30 {
        put(&written, &format!("{n:02}"), &"v".repeat(300));
    }
    let mut batch = writer.batch();
    for n in 30..34 {
        batch.put(&written, format!("{n}"), "in a batch");
    }
    batch.durability(Durability::Os).commit().unwrap();
    let killed = disk.crash_process();
    drop(writer);
    let last = test_support::ending(&killed, ".segment").pop().unwrap();
    let whole = killed.read_file(&last).unwrap();
    // The batch is the last thing in the last segment: nothing of it is shown once any byte is
    // gone.
    for (cut, batch_is_whole) in [(0, true), (1, false), (50, false), (150, false)] {
        killed.write_file(&last, &whole[..whole.len() - cut]).unwrap();
        let before = contents(&killed);
        let store = read(&killed);
        let namespace = store.open_namespace("N").unwrap();
        let expected = if batch_is_whole { 34 } else { 30 };
        assert_eq!(keys(&namespace).len(), expected, "cut by {cut}");
        assert!(!store.refresh().unwrap().changed);
        drop(store);
        assert_eq!(contents(&killed), before);
        let recovered = open(&killed.crash_process());
        assert_eq!(keys(&recovered.open_namespace("N").unwrap()).len(), expected);
    }
}

/// The end of a segment may change though the file is as long as before: a failed write is cut
/// back, and another takes its place.
#[test]
fn a_change_of_the_end_of_a_segment_is_seen_though_its_length_is_the_same() {
    let disk = MemStorage::new();
    let writer = open(&disk);
    let written = writer.namespace("N").unwrap();
    put(&written, "first", "value");
    put(&written, "last", &"v".repeat(300));
    let killed = disk.crash_process();
    drop(writer);
    let segment = test_support::ending(&killed, ".segment").remove(0);
    let whole = killed.read_file(&segment).unwrap();
    let store = read(&killed);
    let namespace = store.open_namespace("N").unwrap();
    assert_eq!(keys(&namespace), ["first", "last"]);
    let key = whole.windows(4).rposition(|bytes| bytes == b"last").unwrap() as u64;
    // In the header of the last record, which has its sequence and checksums.
    killed.flip_bit(&segment, (key - 8) * 8).unwrap();
    assert!(store.refresh().unwrap().changed);
    assert_eq!(keys(&namespace), ["first"]);
    assert!(!store.refresh().unwrap().changed);
    // Behind the last valid record as well.
    killed.flip_bit(&segment, (key - 8) * 8).unwrap();
    assert!(store.refresh().unwrap().changed);
    assert_eq!(keys(&namespace), ["first", "last"]);
}

/// Damage before what a later record calls durable is not taken for the end of the log.
#[test]
fn damage_before_the_durable_end_is_damage_for_a_reader_too() {
    let disk = MemStorage::new();
    let writer = open(&disk);
    let written = writer.namespace("N").unwrap();
    for n in 0..8 {
        written.put(format!("{n}"), "v".repeat(300)).unwrap();
        writer.sync().unwrap();
    }
    let killed = disk.power_cut(&CutPolicy::KeepAll);
    drop(writer);
    let first = test_support::ending(&killed, ".segment").remove(0);
    killed.flip_bit(&first, 8 * 500).unwrap();
    let error = super::reading(std::sync::Arc::new(killed.clone()))
        .open(test_support::DIRECTORY)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    // A store that is open goes on with what it has.
    let sound = disk.crash_process();
    let store = read(&sound);
    sound.flip_bit(&first, 8 * 500).unwrap();
    let namespace = store.open_namespace("N").unwrap();
    assert_eq!(text(&namespace, "0"), Some("v".repeat(300)));
}

#[cfg(unix)]
#[test]
fn a_directory_that_may_only_be_read_is_read_and_nothing_is_left_in_it() {
    use std::os::unix::fs::PermissionsExt;
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("store");
    for closed in [true, false] {
        let store = Store::open(&directory).unwrap();
        let namespace = store.namespace("N").unwrap();
        namespace.put_with("key", "value", class(Durability::Os)).unwrap();
        if closed {
            store.close().unwrap();
        }
        let copy = temporary.path().join(format!("copy {closed}"));
        test_support::process::copy_directory(&directory, &copy);
        std::fs::remove_file(copy.join("LOCK")).unwrap();
        let mode = |path: &std::path::Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let names = test_support::file_names(&copy);
        names.iter().for_each(|name| mode(&copy.join(name), 0o444));
        mode(&copy, 0o555);
        let changed = || std::fs::metadata(&copy).unwrap().modified().unwrap();
        let before = changed();
        let reader = Store::options().read_only(true).open(&copy).unwrap();
        let namespace = reader.open_namespace("N").unwrap();
        assert_eq!(text(&namespace, "key").as_deref(), Some("value"));
        assert!(!reader.refresh().unwrap().changed);
        reader.close().unwrap();
        assert_eq!((test_support::file_names(&copy), changed()), (names, before));
        mode(&copy, 0o755);
    }
}
