#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::storage::{Call, Directory, Interposed, Interposer, MemStorage};
use crate::{Durability, ErrorKind, Maintenance, PutOptions, Store};

fn options(disk: &MemStorage) -> Options {
    Store::options()
        .segment_bytes(4096)
        .maintenance(Maintenance::Manual)
        .storage(Arc::new(disk.clone()))
}

fn put(store: &Store, key: &str, value: &str) {
    let options = PutOptions::new().durability(Durability::Os);
    store.namespace("N").unwrap().put_with(key, value, options).unwrap();
}

/// Whatever code a reader comes to.
#[test]
fn nothing_can_be_changed_through_what_a_reader_has_opened() {
    let disk = MemStorage::new();
    let writer = options(&disk).open("/store").unwrap();
    put(&writer, "key", "value");
    let loaded = open(Path::new("/store"), options(&disk)).unwrap();
    let directory = &loaded.recovered.context.directory;
    let to = Directory::open(&disk, Path::new("/store")).unwrap();
    let before = disk.operation_count();
    for (what, refused) in [
        ("create", directory.create("new").map(drop)),
        ("open", directory.open_file(MANIFEST_FILE, true).map(drop)),
        ("rename", directory.rename(MANIFEST_FILE, "other")),
        ("remove", directory.remove(MANIFEST_FILE)),
        ("remove", directory.remove_if_there(MANIFEST_FILE)),
        ("link", directory.hard_link(MANIFEST_FILE, &to)),
        ("lock", directory.lock(LOCK_FILE, "a reader").map(drop)),
        ("sync", directory.sync()),
    ] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{what}: {error}");
    }
    assert_eq!(disk.operation_count(), before);
}

/// A record that the log cannot continue from is not shown, and what comes before it is.
#[test]
fn a_segment_that_does_not_continue_the_one_before_it_is_not_shown() {
    let disk = MemStorage::new();
    let writer = options(&disk).segment_bytes(1 << 20).open("/store").unwrap();
    let buffered = || PutOptions::new().durability(Durability::Buffered);
    let namespace = writer.namespace("N").unwrap();
    for n in 0..20 {
        namespace.put_with(format!("{n:02}"), "value", buffered()).unwrap();
        if n % 10 == 9 {
            writer.engine().log.retire_active().unwrap();
        }
    }
    let killed = disk.crash_process();
    drop(writer);
    let shown = || {
        let store = options(&killed).read_only(true).open("/store").unwrap();
        let namespace = store.open_namespace("N").unwrap();
        (namespace.count().unwrap(), store.refresh().unwrap().sequence)
    };
    let (all, newest) = shown();
    assert_eq!(all, 20);
    // Cut back within the first of the open segments, without any mark that it was durable.
    let segments = killed.files("/store").into_iter();
    let segments: Vec<_> = segments
        .filter(|path| path.to_string_lossy().ends_with(".segment"))
        .collect();
    assert!(segments.len() > 1, "{segments:?}");
    let length = used_len(&killed.read_file(&segments[0]).unwrap());
    killed.truncate(&segments[0], length - 8).unwrap();
    let (some, last) = shown();
    assert!(some == 9 && last < newest, "{some} {last} {newest}");
    let recovered = options(&killed.crash_process()).open("/store").unwrap();
    assert_eq!(recovered.open_namespace("N").unwrap().count().unwrap(), some);
}

/// Calls `step` before the call with this number.
struct Before<F> {
    calls: AtomicU64,
    at: u64,
    step: F,
}

impl<F> std::fmt::Debug for Before<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Before")
    }
}

impl<F: Fn() + Send + Sync> Interposer for Before<F> {
    fn around(&self, _: &Call<'_>, make: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        if self.calls.fetch_add(1, Ordering::AcqRel) == self.at {
            (self.step)();
        }
        make()
    }
}

/// A record that does not fit the prepared segment goes into another, which comes before that and
/// is not in a manifest that was read earlier.
#[test]
fn no_record_is_shown_without_those_in_a_segment_that_was_created_meanwhile() {
    let (mut partly, mut all) = (0, 0);
    for at in 0.. {
        let disk = MemStorage::new();
        let writer = options(&disk).open("/store").unwrap();
        put(&writer, "a", &"x".repeat(2500));
        writer.engine().log.prepare_ahead().unwrap();
        let before = Arc::new(Before {
            calls: AtomicU64::new(0),
            at,
            step: move || {
                put(&writer, "b", &"x".repeat(10_000));
                put(&writer, "c", &"x".repeat(1000));
            },
        });
        let storage = Interposed::over(Arc::new(disk.clone()), before.clone());
        let reading = options(&disk).read_only(true).storage(Arc::new(storage));
        let store = reading.open("/store").unwrap();
        let namespace = store.open_namespace("N").unwrap();
        let keys = namespace.list().into_iter().map(|entry| entry.unwrap().key().to_vec());
        match keys.collect::<Vec<_>>().concat().as_slice() {
            b"a" | b"ab" => partly += 1,
            b"abc" => all += 1,
            shown => panic!("call {at}: {}", shown.escape_ascii()),
        }
        if before.calls.load(Ordering::Acquire) <= at {
            break;
        }
    }
    assert!(partly > 1 && all > 1, "{partly} {all}");
}

/// Another store in the same place is not taken for a later state of this one.
#[test]
fn a_refresh_does_not_change_over_to_another_store() {
    let (disk, other) = (MemStorage::new(), MemStorage::seeded(7));
    let writer = options(&disk).open("/store").unwrap();
    put(&writer, "key", "value");
    writer.close().unwrap();
    let another = options(&other).open("/store").unwrap();
    put(&another, "key", "another");
    another.close().unwrap();
    let store = options(&disk).read_only(true).open("/store").unwrap();
    for path in other.files("/store") {
        disk.write_file(&path, &other.read_file(&path).unwrap()).unwrap();
    }
    assert_eq!(store.refresh().unwrap_err().kind(), ErrorKind::Corruption);
    let namespace = store.open_namespace("N").unwrap();
    assert_eq!(namespace.get_text("key").unwrap().as_deref(), Some("value"));
}
