//! What a reader shows of a store that another handle writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use embercask::storage::MemStorage;
use embercask::{Durability, ErrorKind, Maintenance, ReadMode};

use super::{put, read, reading};
use test_support::{DIRECTORY, StopOnDrop, at_least, class, keys, manual, open, rng, text};

#[test]
fn a_handle_of_a_reader_goes_on_through_every_change_of_its_namespace() {
    let disk = MemStorage::new();
    let writer = open(&disk);
    let written = writer.namespace("N").unwrap();
    put(&written, "key", "1");
    let store = read(&disk);
    let namespace = store.open_namespace("N").unwrap();
    let list = namespace.list().prefix("k");
    writer.rename_namespace("N", "renamed").unwrap();
    put(&written, "key 2", "2");
    assert_eq!(namespace.name(), "N");
    store.refresh().unwrap();
    assert_eq!(namespace.name(), "renamed");
    assert_eq!(keys(&namespace), ["key", "key 2"]);
    assert_eq!(list.page().unwrap().len(), 2);
    assert_eq!(store.open_namespace("N").unwrap_err().kind(), ErrorKind::NotFound);
    writer.drop_namespace("renamed").unwrap();
    assert_eq!(text(&namespace, "key").as_deref(), Some("1"));
    store.refresh().unwrap();
    for error in [
        namespace.get("key").map(drop).unwrap_err(),
        namespace.get_many(&["key"]).map(drop).unwrap_err(),
        namespace.count().map(drop).unwrap_err(),
        list.page().map(drop).unwrap_err(),
        namespace.stats().map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    // Another one of the same name is not the one that the handle was opened on.
    put(&writer.namespace("renamed").unwrap(), "key", "another");
    store.refresh().unwrap();
    assert_eq!(namespace.get("key").unwrap_err().kind(), ErrorKind::NotFound);
    let another = store.open_namespace("renamed").unwrap();
    assert_eq!(text(&another, "key").as_deref(), Some("another"));
}

#[test]
fn what_a_writer_has_compacted_away_is_read_until_the_refresh_and_a_deleted_key_stays_deleted() {
    for mode in [ReadMode::Map, ReadMode::Pread] {
        let disk = MemStorage::new();
        let writer = open(&disk);
        let written = writer.namespace("N").unwrap();
        for n in 0..100 {
            put(&written, &format!("{n:02}"), &format!("{n} ").repeat(100));
        }
        let options = || reading(Arc::new(disk.clone())).read_mode(mode);
        let store = options().open(DIRECTORY).unwrap();
        let namespace = store.open_namespace("N").unwrap();
        let held = namespace.get("00").unwrap().unwrap();
        for n in 0..100 {
            if n % 10 != 3 {
                written.delete(format!("{n:02}")).unwrap();
            }
        }
        writer.compact().unwrap();
        writer.compact().unwrap();
        assert_eq!(keys(&namespace).len(), 100);
        for n in 0..100 {
            let found = text(&namespace, &format!("{n:02}"));
            assert_eq!(found, Some(format!("{n} ").repeat(100)), "{mode:?}");
        }
        store.refresh().unwrap();
        let left: Vec<_> = (0..10).map(|n| format!("{n}3")).collect();
        assert_eq!(keys(&namespace), left);
        assert_eq!(namespace.get("00").unwrap(), None);
        assert_eq!(held, "0 ".repeat(100));
        assert_eq!(
            keys(&options().open(DIRECTORY).unwrap().open_namespace("N").unwrap()),
            left
        );
    }
}

/// More segments than a reader keeps open: those it has not open are gone once the writer has
/// compacted them.
#[test]
fn a_reader_that_comes_to_a_file_that_is_gone_looks_where_its_records_are_now() {
    let disk = MemStorage::new();
    let writer = open(&disk);
    let written = writer.namespace("N").unwrap();
    let buffered = || class(Durability::Buffered);
    let value = "v".repeat(3000);
    for n in 0..530 {
        written.put_with(format!("{n:03}"), &value, buffered()).unwrap();
        written.put_with(format!("dead {n:03}"), "v", buffered()).unwrap();
    }
    writer.flush().unwrap();
    writer.maintain().unwrap();
    let store = reading(Arc::new(disk.clone()))
        .read_mode(ReadMode::Pread)
        .open(DIRECTORY)
        .unwrap();
    assert!(store.stats().segments.len() > 512);
    let namespace = store.open_namespace("N").unwrap();
    let replace_all = |n: u32| {
        for n in 0..530 {
            written
                .delete_with(format!("dead {n:03}"), None, Some(Durability::Buffered))
                .unwrap();
        }
        put(&written, "round", &format!("{n}"));
        writer.compact().unwrap();
    };
    replace_all(1);
    for n in 0..530 {
        assert_eq!(text(&namespace, &format!("{n:03}")).as_deref(), Some(&value[..]), "{n}");
    }
    // Reading has refreshed it.
    assert_eq!(text(&namespace, "round").as_deref(), Some("1"));
    let all: Vec<_> = (0..530).map(|n| format!("{n:03}")).collect();
    for n in 0..530 {
        written.put_with(format!("dead {n:03}"), "v", buffered()).unwrap();
    }
    writer.flush().unwrap();
    store.refresh().unwrap();
    replace_all(2);
    let entries = namespace.list().end("9").with_values().into_iter();
    let values = entries.map(|entry| entry.unwrap().value().unwrap().len());
    assert!(values.eq(all.iter().map(|_| value.len())));
    assert_eq!(text(&namespace, "round").as_deref(), Some("2"));
    assert_eq!(namespace.get_many(&all).unwrap().iter().flatten().count(), 530);
}

#[test]
fn a_write_that_failed_and_was_repeated_is_shown_as_it_was_acknowledged() {
    use std::sync::Mutex;
    let disk = MemStorage::new();
    let found = Arc::new(Mutex::new(Vec::new()));
    let reader = Arc::new(Mutex::new(None::<embercask::Store>));
    let fails = Arc::new(AtomicBool::new(false));
    let storage = {
        let (fails, found, reader) = (fails.clone(), found.clone(), reader.clone());
        let after_write = FailsAfterWriting {
            fails,
            look: Box::new(move || {
                let store = reader.lock().unwrap();
                let store = store.as_ref().unwrap();
                let refreshed = store.refresh().unwrap();
                let value = store.open_namespace("N").unwrap().get("key").unwrap();
                found
                    .lock()
                    .unwrap()
                    .push((refreshed.changed, value.map(|value| value.sequence())));
            }),
        };
        Arc::new(embercask::storage::Interposed::over(
            Arc::new(disk.clone()),
            Arc::new(after_write),
        ))
    };
    let writer = manual(storage).open(DIRECTORY).unwrap();
    let written = writer.namespace("N").unwrap();
    put(&written, "other", "value");
    *reader.lock().unwrap() = Some(read(&disk));
    fails.store(true, Ordering::Release);
    written.put_with("key", "value", class(Durability::Os)).unwrap_err();
    assert!(!fails.load(Ordering::Acquire));
    // The reader has seen a record that was whole, and is not any more.
    let [(true, Some(rolled_back))] = found.lock().unwrap()[..] else {
        panic!("{found:?}")
    };
    let again = put(&written, "key", "value");
    assert!(again > rolled_back);
    let store = reader.lock().unwrap().take().unwrap();
    assert!(store.refresh().unwrap().changed);
    let value = store.open_namespace("N").unwrap().get("key").unwrap().unwrap();
    assert_eq!(value.sequence(), again);
}

/// One write is done whole and then reported as failed.
struct FailsAfterWriting {
    fails: Arc<AtomicBool>,
    look: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for FailsAfterWriting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FailsAfterWriting")
    }
}

impl embercask::storage::Interposer for FailsAfterWriting {
    fn around(
        &self,
        call: &embercask::storage::Call<'_>,
        make: &mut dyn FnMut() -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        make()?;
        if call.operation == embercask::storage::Operation::Write && self.fails.swap(false, Ordering::AcqRel) {
            (self.look)();
            return Err(std::io::Error::other("planned"));
        }
        Ok(())
    }
}

/// Several readers refresh while a writer puts batches, compacts and is opened again: what a
/// reader has been told of is there, and batches are whole, in every operation.
#[test]
fn every_operation_of_a_reader_is_of_one_state_and_of_no_older_one_than_promised() {
    let mut rng = rng();
    let disk = MemStorage::new();
    let options = || {
        manual(Arc::new(disk.clone()))
            .maintenance(Maintenance::Background)
            .waste_ceiling(1.1)
    };
    let mut writer = options().open(DIRECTORY).unwrap();
    writer.namespace("N").unwrap();
    let all: Vec<_> = (0..20).map(|n| format!("key {n:02}")).collect();
    let (told, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let rounds = 300;
    let looks = AtomicU64::new(0);
    let store = read(&disk);
    let namespace = store.open_namespace("N").unwrap();
    std::thread::scope(|scope| {
        for refreshes in [true, true, false] {
            let (store, namespace, told, stop, all, looks) = (&store, &namespace, &told, &stop, &all, &looks);
            scope.spawn(move || {
                let mut newest = 0;
                while !stop.load(Ordering::Acquire) {
                    let least = told.load(Ordering::Acquire);
                    if refreshes {
                        store.refresh().unwrap();
                    }
                    let values = namespace.get_many(all).unwrap();
                    let numbers: Vec<u64> = values
                        .iter()
                        .flatten()
                        .map(|value| value.as_str().unwrap().trim().parse().unwrap())
                        .collect();
                    assert!(
                        numbers.is_empty() && (least == 0 || !refreshes) || numbers.len() == all.len(),
                        "{numbers:?}"
                    );
                    assert!(numbers.windows(2).all(|pair| pair[0] == pair[1]), "{numbers:?}");
                    let number = numbers.first().copied().unwrap_or(0);
                    assert!(
                        number >= newest && (!refreshes || number >= least),
                        "{number} {newest} {least}"
                    );
                    newest = number;
                    looks.fetch_add(1, Ordering::Relaxed);
                    let page = namespace.list().with_values().page().unwrap();
                    assert!(page.is_empty() && newest == 0 || page.len() == all.len());
                    assert!(page.iter().all(|entry| entry.value() == page.get(0).unwrap().value()));
                }
            });
        }
        let _stop = StopOnDrop(&stop);
        for number in 1..=rounds {
            let namespace = writer.open_namespace("N").unwrap();
            let value = format!("{number}{}", " ".repeat(rng.below(40) as usize));
            let mut batch = writer.batch();
            for key in &all {
                batch.put(&namespace, key, &value);
            }
            batch.durability(Durability::Os).commit().unwrap();
            told.store(number, Ordering::Release);
            match rng.below(100) {
                0 => {
                    drop(namespace);
                    writer.close().unwrap();
                    writer = options().open(DIRECTORY).unwrap();
                }
                1..=5 => drop(writer.compact().unwrap()),
                _ => {}
            }
        }
    });
    at_least(100, looks.into_inner(), "looks");
}
