//! What a store that is opened for reading only offers, and what it refuses.

use std::time::Duration;

use embercask::storage::MemStorage;
use embercask::{Condition, Error, ErrorKind, Maintenance, PutOptions, ReadMode, Snapshot, Store, Update};

use super::{contents, put, read, reading};
use test_support::{DIRECTORY, keys, open, text};

#[test]
fn a_store_opened_for_reading_only_refuses_every_call_that_writes() {
    let disk = MemStorage::new();
    let writer = open(&disk);
    put(&writer.namespace("N").unwrap(), "key", "value");
    let before = contents(&disk);
    let store = read(&disk);
    assert!(store.is_read_only() && !writer.is_read_only());
    let namespace = store.open_namespace("N").unwrap();
    let refused = |result: Result<(), Error>| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::ReadOnly), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::ReadOnly);
        assert!(error.to_string().contains("for reading only"), "{error}");
    };
    refused(namespace.put("key", "new").map(drop));
    refused(namespace.put_if("key", "new", Condition::Present).map(drop));
    refused(namespace.put_json("key", &1).map(drop));
    refused(namespace.delete("key").map(drop));
    refused(namespace.delete("absent").map(drop));
    refused(namespace.delete_if("key", Condition::Present).map(drop));
    refused(namespace.set_ttl("key", Duration::from_secs(9)).map(drop));
    refused(namespace.set_ttl("absent", Duration::from_secs(9)).map(drop));
    refused(namespace.set_expiry("key", u64::MAX / 2).map(drop));
    refused(namespace.remove_expiry("key").map(drop));
    refused(namespace.set_metadata("key", Some(b"m")).map(drop));
    refused(namespace.set_default_ttl(Some(Duration::from_secs(90))));
    let options = PutOptions::new();
    refused(
        namespace
            .update("key", |_| Update::Put(b"new".to_vec(), PutOptions::new()))
            .map(drop),
    );
    refused(namespace.update("key", |_| Update::Delete).map(drop));
    refused(namespace.increment("absent", 1).map(drop));
    refused(namespace.replace("key", "new", &options).map(drop));
    refused(namespace.take("key").map(drop));
    refused(namespace.take("absent").map(drop));
    refused(namespace.put_when("key", "new", &options, |_| true).map(drop));
    refused(namespace.delete_when("key", None, |_| true).map(drop));
    refused(namespace.pop_first("").map(drop));
    refused(namespace.pop_last("").map(drop));
    refused(namespace.delete_prefix("").run().map(drop));
    refused(namespace.delete_range("a".."z").run().map(drop));
    refused(namespace.watch("").map(drop));
    refused(store.transaction(|transaction| transaction.get(&namespace, "key").map(drop)));
    refused(store.batch().try_put(&namespace, "key", "new").map(drop));
    refused(store.batch().put(&namespace, "key", "new").commit().map(drop));
    refused(store.namespace("new").map(drop));
    refused(store.create_namespace("new").map(drop));
    refused(store.rename_namespace("N", "M"));
    refused(store.drop_namespace("N"));
    refused(store.flush());
    refused(store.sync());
    refused(store.maintain());
    refused(store.compact().map(drop));
    refused(store.compact_if_worthwhile().map(drop));
    refused(store.verify().map(drop));
    refused(store.checkpoint("/copy").map(drop));
    // They concern background work, of which there is none.
    store.pause_compaction();
    store.resume_compaction();
    store.cancel_compaction();
    assert_eq!(store.compaction_progress().total_bytes, 0);
    assert_eq!(text(&namespace, "key").as_deref(), Some("value"));
    store.close().unwrap();
    assert_eq!(contents(&disk), before);
}

#[test]
fn a_store_opened_for_reading_only_answers_every_call_that_reads() {
    let disk = MemStorage::new();
    let writer = open(&disk);
    let written = writer.namespace("N").unwrap();
    for n in 0..40 {
        put(&written, &format!("key {n:02}"), &"v".repeat(200));
    }
    written.delete("key 07").unwrap();
    writer.namespace("M").unwrap();
    let last = written
        .set_metadata("key 01", Some(b"m"))
        .map(|_| written.get("key 01"));
    let last = last.unwrap().unwrap().unwrap().sequence();
    let store = read(&disk);
    assert_eq!(store.id(), writer.id());
    let namespace = store.open_namespace("N").unwrap();
    assert_eq!((namespace.name(), namespace.id()), ("N".to_owned(), written.id()));
    assert_eq!(store.namespace_by_id(written.id()).unwrap().unwrap().name(), "N");
    assert_eq!(store.namespaces().unwrap(), writer.namespaces().unwrap());
    assert_eq!(store.namespace_stats().unwrap(), writer.namespace_stats().unwrap());
    assert_eq!(namespace.stats().unwrap(), written.stats().unwrap());
    assert_eq!(namespace.live_bytes(), written.live_bytes());
    assert_eq!(namespace.count().unwrap(), 39);
    assert_eq!(keys(&namespace), keys(&written));
    assert!(namespace.contains("key 00").unwrap() && !namespace.contains("key 07").unwrap());
    let many = namespace.get_many(&["key 01", "key 07"]).unwrap();
    assert_eq!(many[0].as_ref().unwrap().metadata(), Some(&b"m"[..]));
    assert!(many[1].is_none());
    let page = namespace.list().with_values().page_size(10).page().unwrap();
    assert_eq!((page.len(), page.is_last()), (10, false));
    let (stats, of_writer) = (store.stats(), writer.stats());
    assert_eq!(
        (stats.keys, stats.namespaces, stats.live_bytes, stats.last_sequence),
        (39, 2, of_writer.live_bytes, last)
    );
    // The segment that is not sealed is in memory.
    assert!(stats.buffer_bytes > 0 && stats.buffer_bytes <= of_writer.segment_bytes);
    let report = store.recovery_report();
    assert!(!report.created && !report.clean && report.unsealed_segments > 0);
    assert_eq!((report.keys, report.rewritten_bytes, report.removed_files), (39, 0, 0));
    let value = namespace.get("key 00").unwrap().unwrap();
    store.clone().close().unwrap();
    for error in [
        namespace.get("key 00").map(drop).unwrap_err(),
        namespace.list().page().map(drop).unwrap_err(),
        store.refresh().map(drop).unwrap_err(),
        store.namespaces().map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    }
    assert_eq!(value, "v".repeat(200).as_bytes());
    writer.close().unwrap();
}

#[test]
fn a_refresh_says_whether_anything_has_changed_and_up_to_which_write_the_store_shows() {
    let disk = MemStorage::new();
    let writer = open(&disk);
    let written = writer.namespace("N").unwrap();
    let first = put(&written, "key", "1");
    let store = read(&disk);
    let refreshed = store.refresh().unwrap();
    assert_eq!((refreshed.changed, refreshed.sequence), (false, first));
    let second = put(&written, "key", "2");
    let namespace = store.open_namespace("N").unwrap();
    assert_eq!(text(&namespace, "key").as_deref(), Some("1"));
    let refreshed = store.refresh().unwrap();
    assert_eq!((refreshed.changed, refreshed.sequence), (true, second));
    assert_eq!(text(&namespace, "key").as_deref(), Some("2"));
    assert!(!store.refresh().unwrap().changed);
    // Buffered writes are only in the memory of the process that writes.
    let buffered = test_support::class(embercask::Durability::Buffered);
    let third = written.put_with("key", "3", buffered).unwrap();
    assert!(!store.refresh().unwrap().changed);
    assert_eq!(text(&namespace, "key").as_deref(), Some("2"));
    writer.flush().unwrap();
    let refreshed = store.refresh().unwrap();
    assert_eq!((refreshed.changed, refreshed.sequence), (true, third));
    writer.close().unwrap();
    // Sealed, and with another manifest.
    assert!(store.refresh().unwrap().changed);
    assert_eq!(text(&namespace, "key").as_deref(), Some("3"));
    let writer = open(&disk);
    let refreshed = writer.refresh().unwrap();
    assert_eq!((refreshed.changed, refreshed.sequence), (false, third));
}

#[test]
fn a_snapshot_of_a_reader_stays_the_same_while_the_writer_compacts_and_the_reader_refreshes() {
    for mode in [ReadMode::Map, ReadMode::Pread] {
        let disk = MemStorage::new();
        let writer = open(&disk);
        let written = writer.namespace("N").unwrap();
        let value = |n: u32, tag: &str| format!("{tag} {n} ").repeat(50);
        let mut last = 0;
        for n in 0..100 {
            last = put(&written, &format!("{n:02}"), &value(n, "old"));
        }
        let store = reading(std::sync::Arc::new(disk.clone()))
            .read_mode(mode)
            .open(DIRECTORY)
            .unwrap();
        let namespace = store.open_namespace("N").unwrap();
        let shown = |snapshot: &Snapshot| -> Vec<(String, String)> {
            let list = snapshot.list(&namespace).unwrap().with_values().page_size(7);
            let entries = list.into_iter().map(|entry| {
                let entry = entry.unwrap();
                let value = String::from_utf8(entry.value().unwrap().to_vec()).unwrap();
                (entry.key_str().unwrap().to_owned(), value)
            });
            entries.collect()
        };
        let old: Vec<_> = (0..100).map(|n| (format!("{n:02}"), value(n, "old"))).collect();
        let snapshot = store.snapshot().unwrap();
        let is_unchanged = |when: &str| {
            assert!(shown(&snapshot) == old, "{mode:?}, {when}: {:?}", shown(&snapshot));
            assert_eq!((snapshot.sequence(), snapshot.count(&namespace).unwrap()), (last, 100));
            let found = snapshot.get_many(&namespace, &["00", "01", "02", "later"]).unwrap();
            for (n, found) in found.into_iter().enumerate() {
                let expected = old.get(n).filter(|_| n < 3);
                assert_eq!(found.is_some(), expected.is_some(), "{mode:?}, {when}: {n}");
                assert!(found.is_none_or(|found| found == expected.unwrap().1.as_bytes()));
            }
        };
        is_unchanged("at once");
        for n in 0..100 {
            match n % 4 {
                0 => drop(put(&written, &format!("{n:02}"), &value(n, "new"))),
                1 => drop(written.delete(format!("{n:02}")).unwrap()),
                _ => {}
            }
        }
        let newest = put(&written, "later", "new");
        writer.compact().unwrap();
        writer.compact().unwrap();
        assert!(writer.stats().compaction.runs > 0);
        is_unchanged("after compaction");
        let refreshed = store.refresh().unwrap();
        assert_eq!((refreshed.changed, refreshed.sequence), (true, newest));
        is_unchanged("after a refresh");
        // The store itself, and a snapshot of it, show what the writer has done.
        let mut new: Vec<_> = (0..100)
            .filter(|n| n % 4 != 1)
            .map(|n| (format!("{n:02}"), value(n, if n % 4 == 0 { "new" } else { "old" })))
            .collect();
        new.push(("later".to_owned(), "new".to_owned()));
        assert_eq!(keys(&namespace).len(), new.len());
        for (key, value) in &new {
            assert_eq!(text(&namespace, key).as_ref(), Some(value), "{mode:?}");
        }
        assert_eq!(text(&namespace, "01"), None);
        let second = store.snapshot().unwrap();
        assert!(shown(&second) == new, "{mode:?}: {:?}", shown(&second));
        assert_eq!(second.sequence(), newest);
        assert_eq!(store.snapshots().unwrap().len(), 2);
        // Even of a namespace that is dropped.
        writer.drop_namespace("N").unwrap();
        writer.sync().unwrap();
        writer.compact().unwrap();
        assert!(store.refresh().unwrap().changed);
        assert_eq!(namespace.get("00").unwrap_err().kind(), ErrorKind::NotFound);
        is_unchanged("after the drop");
    }
}

#[test]
fn what_is_no_store_is_neither_created_nor_read() {
    let disk = MemStorage::new();
    for exists in [false, true] {
        if exists {
            disk.create_directory(DIRECTORY).unwrap();
        }
        let error = reading(std::sync::Arc::new(disk.clone())).open(DIRECTORY).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotAStore, "{error}");
        assert_eq!(disk.exists(DIRECTORY).unwrap(), exists);
        assert!(disk.files(DIRECTORY).is_empty());
    }
}

#[test]
fn expired_keys_are_hidden_from_a_reader_and_leave_its_memory() {
    let disk = MemStorage::new();
    let clock = embercask::ManualClock::new(1_700_000_000_000);
    let writer = test_support::manual(std::sync::Arc::new(disk.clone()))
        .clock(clock.clone())
        .open(DIRECTORY)
        .unwrap();
    let written = writer.namespace("N").unwrap();
    let soon = embercask::PutOptions::new().ttl(Duration::from_secs(60));
    written.put_with("soon", "gone", soon).unwrap();
    put(&written, "stays", "value");
    let store = reading(std::sync::Arc::new(disk.clone()))
        .clock(clock.clone())
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.open_namespace("N").unwrap();
    assert_eq!(keys(&namespace), ["soon", "stays"]);
    clock.advance(120_000);
    assert_eq!(keys(&namespace), ["stays"]);
    assert_eq!((namespace.get("soon").unwrap(), namespace.count().unwrap()), (None, 1));
    assert_eq!(store.stats().keys, 2);
    // Whether the clock is to be believed is known only after a while.
    clock.advance(120_000);
    assert!(!store.refresh().unwrap().changed);
    clock.advance(120_000);
    assert!(!store.refresh().unwrap().changed);
    assert_eq!(store.stats().keys, 1);
}

#[test]
fn a_reader_starts_no_thread_and_ignores_the_options_about_writing() {
    let disk = MemStorage::new();
    let writer = open(&disk);
    put(&writer.namespace("N").unwrap(), "key", "value");
    let store = reading(std::sync::Arc::new(disk.clone()))
        .maintenance(Maintenance::Background)
        .create(true)
        .scrub_bytes_per_second(Some(1 << 30))
        .open(DIRECTORY)
        .unwrap();
    let before = contents(&disk);
    put(&writer.namespace("N").unwrap(), "key", "another");
    assert!(store.refresh().unwrap().changed);
    drop(store);
    assert_eq!(contents(&disk).len(), before.len());
    assert!(
        Store::options()
            .read_only(true)
            .read_only(false)
            .storage(std::sync::Arc::new(MemStorage::new()))
            .open("/new")
            .is_ok()
    );
}

/// It was `None` for every reader.
#[test]
fn a_reader_shows_the_default_lifetime_of_a_namespace() {
    let disk = MemStorage::new();
    let writer = open(&disk);
    let written = writer.namespace("N").unwrap();
    let store = read(&disk);
    let namespace = store.open_namespace("N").unwrap();
    assert_eq!(namespace.default_ttl(), None);
    for ttl in [Some(Duration::from_secs(60)), None, Some(Duration::from_millis(1))] {
        written.set_default_ttl(ttl).unwrap();
        store.refresh().unwrap();
        assert_eq!(namespace.default_ttl(), ttl);
    }
    drop((writer, written));
    let store = read(&disk);
    assert_eq!(
        store.open_namespace("N").unwrap().default_ttl(),
        Some(Duration::from_millis(1))
    );
}
