//! Calls and directories that are wrong: each is refused with a message that says what to do, and nothing has changed.

mod common;

use std::io;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::{DIRECTORY, file_names, keys, manual, open, text};
use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{Condition, Error, ErrorKind, Limits, ManualClock, Namespace, PutOptions, Result, Store};

const NOW_MS: u64 = 2_000_000_000_000;

/// A store with these limits, and one key in it.
fn limited(limits: Limits) -> (Store, Namespace) {
    let store = manual(Arc::new(MemStorage::new()))
        .limits(limits)
        .clock(ManualClock::new(NOW_MS))
        .segment_bytes(1 << 20)
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "value").unwrap();
    (store, namespace)
}

/// Refused with this kind, and a message that says all of this.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind, says: &[&str]) -> Error {
    let error = result.expect_err("must be refused");
    assert_eq!(error.kind(), kind, "{error}");
    for part in says {
        assert!(error.to_string().contains(part), "{error:?} says: {error}\nnot: {part}");
    }
    error
}

#[track_caller]
fn invalid<T: std::fmt::Debug>(result: Result<T>, says: &[&str]) {
    refused(result, ErrorKind::InvalidInput, says);
}

/// Nothing but the one key is there, and the store works.
#[track_caller]
fn unharmed(store: &Store, namespace: &Namespace) {
    assert_eq!(keys(namespace), ["key"]);
    assert_eq!(text(namespace, "key").as_deref(), Some("value"));
    assert_eq!(store.stats().poisoned, None);
    namespace.put("another", "1").unwrap();
    assert!(namespace.delete("another").unwrap());
}

#[test]
fn keys_are_1_to_65536_bytes() {
    let (store, namespace) = limited(Limits::ENGINE);
    let (longest, too_long) = (vec![b'k'; 65_536], vec![b'k'; 65_537]);
    namespace.put(&longest, "value").unwrap();
    assert_eq!(namespace.get(&longest).unwrap().unwrap(), "value");
    assert_eq!(
        namespace.list().prefix("kk").page().unwrap().get(0).unwrap().key(),
        longest
    );
    assert!(namespace.delete(&longest).unwrap());
    for (key, says) in [
        (&b""[..], ["empty", "at least one byte"]),
        (&too_long, ["65537 bytes", "shorten"]),
    ] {
        invalid(namespace.put(key, "value"), &says);
        invalid(namespace.put_with(key, "value", PutOptions::new().metadata("m")), &says);
        invalid(namespace.put_if(key, "value", Condition::Absent), &says);
        invalid(namespace.put_json(key, &1), &says);
        invalid(namespace.delete(key), &says);
        invalid(namespace.delete_if(key, Condition::Absent), &says);
        invalid(
            store
                .batch()
                .put(&namespace, "good", "1")
                .put(&namespace, key, "1")
                .commit(),
            &says,
        );
        invalid(
            store
                .batch()
                .put(&namespace, "good", "1")
                .delete(&namespace, key)
                .commit(),
            &says,
        );
        // Such a key is absent; that is no error.
        assert!(namespace.get(key).unwrap().is_none());
        assert!(namespace.get_many(&[key]).unwrap()[0].is_none());
        assert!(!namespace.contains(key).unwrap());
        assert!(!namespace.set_ttl(key, Duration::from_secs(1)).unwrap());
    }
    // Bounds of listings are no keys, and may be anything.
    assert_eq!(namespace.list().prefix(&too_long).count().unwrap(), 0);
    assert_eq!(namespace.list().start("").end(&too_long).count().unwrap(), 1);
    unharmed(&store, &namespace);
}

#[test]
fn values_and_metadata_beyond_their_limits_are_refused_as_a_whole() {
    let limits = Limits {
        value_bytes_max: 1_000,
        metadata_bytes_max: 100,
        key_bytes_max: 10,
        ..Limits::ENGINE
    };
    let (store, namespace) = limited(limits);
    let metadata = |length| PutOptions::new().metadata(vec![b'm'; length]);
    namespace.put_with("1234567890", [7; 1_000], metadata(100)).unwrap();
    assert!(namespace.delete("1234567890").unwrap());
    invalid(namespace.put("12345678901", "1"), &["key", "11 bytes", "limit of 10"]);
    invalid(
        namespace.put("key", [7; 1_001]),
        &["value", "1001 bytes", "limit of 1000", "shorten"],
    );
    invalid(
        namespace.put_with("key", "1", metadata(101)),
        &["metadata", "101 bytes", "limit of 100"],
    );
    invalid(
        namespace.set_metadata("key", Some(&[7; 101])),
        &["metadata", "101 bytes"],
    );
    invalid(
        namespace.set_metadata("absent", Some(&[7; 101])),
        &["metadata", "101 bytes"],
    );
    invalid(
        store
            .batch()
            .put(&namespace, "b", "1")
            .put(&namespace, "key", [7; 1_001])
            .commit(),
        &["value"],
    );
    invalid(
        store.batch().put_with(&namespace, "key", "1", metadata(101)).commit(),
        &["metadata"],
    );
    unharmed(&store, &namespace);
    // What the format cannot hold is refused whatever the limits say.
    let boundless = Limits {
        key_bytes_max: usize::MAX,
        metadata_bytes_max: usize::MAX,
        ..Limits::ENGINE
    };
    let (store, namespace) = limited(boundless);
    invalid(namespace.put(vec![b'k'; 65_537], "1"), &["limit of 65536"]);
    namespace.put_with("a", "1", metadata(65_536)).unwrap();
    assert_eq!(namespace.get("a").unwrap().unwrap().metadata().unwrap().len(), 65_536);
    assert!(namespace.delete("a").unwrap());
    invalid(namespace.put_with("key", "1", metadata(65_537)), &["limit of 65536"]);
    unharmed(&store, &namespace);
}

#[test]
fn limits_bind_writers_only_and_what_is_stored_already_is_read() {
    let disk = MemStorage::new();
    let store = open(&disk);
    store.namespace("N").unwrap().put("a long key", [7; 100]).unwrap();
    drop(store);
    let limits = Limits {
        key_bytes_max: 3,
        value_bytes_max: 10,
        ..Limits::ENGINE
    };
    let store = manual(Arc::new(disk)).limits(limits).open(DIRECTORY).unwrap();
    let namespace = store.open_namespace("N").unwrap();
    assert_eq!(namespace.get("a long key").unwrap().unwrap(), [7; 100]);
    assert_eq!(keys(&namespace), ["a long key"]);
    invalid(namespace.put("a long key", "1"), &["10 bytes"]);
    store.compact().unwrap();
    assert_eq!(namespace.get("a long key").unwrap().unwrap(), [7; 100]);
}

#[test]
fn lifetimes_that_are_over_or_cannot_be_said_are_refused() {
    let (store, namespace) = limited(Limits::ENGINE);
    let long = &["64-bit", "leave it out"][..];
    for (ttl, says) in [
        (Duration::ZERO, &["too short", "at least 1ms"][..]),
        (Duration::from_nanos(999_999), &["too short", "at least 1ms"]),
        (Duration::MAX, long),
        (Duration::from_secs(u64::MAX), long),
        (Duration::from_millis(u64::MAX), long),
        (Duration::from_millis(u64::MAX - NOW_MS + 1), long),
    ] {
        invalid(namespace.put_with("key", "new", PutOptions::new().ttl(ttl)), says);
        invalid(namespace.set_ttl("key", ttl), says);
        let options = PutOptions::new().ttl(ttl);
        invalid(
            store
                .batch()
                .put(&namespace, "b", "1")
                .put_with(&namespace, "key", "new", options)
                .commit(),
            says,
        );
    }
    let early = &["too early", "at least 1ms from now", "2000000000001 ms"][..];
    for expiry_ms in [0, 1, NOW_MS - 1, NOW_MS] {
        invalid(
            namespace.put_with("key", "new", PutOptions::new().expires_at_ms(expiry_ms)),
            early,
        );
        invalid(namespace.set_expiry("key", expiry_ms), early);
    }
    invalid(namespace.put_with("key", "new", PutOptions::new().expiration(0)), early);
    invalid(
        namespace.put_with("key", "new", PutOptions::new().expiration(NOW_MS / 1000)),
        early,
    );
    unharmed(&store, &namespace);
    assert_eq!(namespace.get("key").unwrap().unwrap().expiry_ms(), None);
    // The last lifetimes that can be said.
    let longest = Duration::from_millis(u64::MAX - NOW_MS);
    assert!(namespace.set_ttl("key", longest).unwrap());
    assert_eq!(namespace.get("key").unwrap().unwrap().expiry_ms(), Some(u64::MAX));
    assert!(namespace.set_expiry("key", NOW_MS + 1).unwrap());
    unharmed(&store, &namespace);
}

/// <https://developers.cloudflare.com/kv/platform/limits/>
#[test]
fn the_limits_of_workers_kv_hold_to_the_letter() {
    let (store, namespace) = limited(Limits::WORKERS_KV);
    let key = "é".repeat(256);
    assert_eq!(key.len(), 512, "bytes count, not characters");
    namespace.put(&key, "1").unwrap();
    assert!(namespace.delete(&key).unwrap());
    invalid(namespace.put("k".repeat(513), "1"), &["513 bytes", "limit of 512"]);
    for key in [".", ".."] {
        invalid(namespace.put(key, "1"), &["\".\" and \"..\"", "choose another"]);
        assert!(namespace.get(key).unwrap().is_none());
    }
    for key in ["...", "./", "a.b"] {
        namespace.put(key, "1").unwrap();
        assert!(namespace.delete(key).unwrap());
    }
    invalid(namespace.put([0xff], "1"), &["UTF-8"]);
    invalid(namespace.put("", "1"), &["empty"]);
    let largest = vec![7; 25 << 20];
    namespace.put("large", &largest).unwrap();
    assert_eq!(namespace.get("large").unwrap().unwrap(), largest);
    assert!(namespace.delete("large").unwrap());
    invalid(
        namespace.put("key", vec![7; (25 << 20) + 1]),
        &["26214401 bytes", "limit of 26214400"],
    );
    let metadata = |length| PutOptions::new().metadata(vec![b'm'; length]);
    namespace.put_with("m", "1", metadata(1024)).unwrap();
    assert!(namespace.delete("m").unwrap());
    invalid(
        namespace.put_with("key", "1", metadata(1025)),
        &["1025 bytes", "limit of 1024"],
    );
    let ttl = |ms| PutOptions::new().ttl(Duration::from_millis(ms));
    namespace.put_with("t", "1", ttl(60_000)).unwrap();
    namespace
        .put_with("t", "1", PutOptions::new().expiration(NOW_MS / 1000 + 60))
        .unwrap();
    assert!(namespace.delete("t").unwrap());
    invalid(namespace.put_with("key", "1", ttl(59_999)), &["too short", "60s"]);
    invalid(namespace.set_ttl("key", Duration::from_secs(59)), &["too short", "60s"]);
    invalid(
        namespace.put_with("key", "1", PutOptions::new().expiration(NOW_MS / 1000 + 59)),
        &["too early", "60s"],
    );
    assert_eq!(namespace.list().limit(1000).page().unwrap().len(), 1);
    invalid(namespace.list().limit(1001).page(), &["1001", "ask for 1 to 1000"]);
    unharmed(&store, &namespace);
}

#[test]
fn pages_hold_at_least_one_key_and_no_more_than_the_limits_say() {
    let (store, namespace) = limited(Limits {
        page_keys_max: 10,
        ..Limits::ENGINE
    });
    invalid(namespace.list().limit(0).page(), &["0 keys", "ask for 1 to 10"]);
    invalid(namespace.list().limit(11).page(), &["11 keys", "ask for 1 to 10"]);
    invalid(namespace.list().limit(usize::MAX).page(), &["ask for 1 to 10"]);
    let mut walk = namespace.list().limit(0).into_iter();
    for _ in 0..3 {
        invalid(walk.next().unwrap(), &["ask for 1 to 10"]);
    }
    assert_eq!(namespace.list().limit(10).page().unwrap().len(), 1);
    unharmed(&store, &namespace);
}

/// A listing that asks for no size of page must not be refused because pages are smaller here than elsewhere.
#[test]
fn a_listing_without_a_limit_takes_pages_as_large_as_the_limits_allow() {
    let (_store, namespace) = limited(Limits {
        page_keys_max: 10,
        ..Limits::ENGINE
    });
    for n in 0..25 {
        namespace.put(format!("{n}"), "1").unwrap();
    }
    assert_eq!(namespace.list().into_iter().map(Result::unwrap).count(), 26);
    assert_eq!(namespace.list().page().unwrap().len(), 10);
}

#[test]
fn a_cursor_is_good_for_its_own_listing_only() {
    let (store, namespace) = limited(Limits::ENGINE);
    let other = store.namespace("other").unwrap();
    for n in 0..20 {
        store
            .batch()
            .put(&namespace, format!("p{n:02}"), "1")
            .put(&other, format!("p{n:02}"), "1")
            .commit()
            .unwrap();
    }
    let list = || namespace.list().prefix("p").start("p03").limit(3);
    let cursor = list().page().unwrap().cursor().unwrap().to_owned();
    let says = &["cursor", "start again without one"][..];
    for listing in [
        other.list().prefix("p").start("p03"),
        namespace.list().start("p03"),
        namespace.list().prefix("p0").start("p03"),
        namespace.list().prefix("p"),
        namespace.list().prefix("p").start("p04"),
        namespace.list().prefix("p").start_after("p03"),
        list().end("p19"),
        list().reverse(),
    ] {
        invalid(listing.cursor(&cursor).page(), says);
    }
    // The limit, and whether values come along, may change on the way.
    for listing in [list().limit(1), list().limit(7).with_values(), list()] {
        assert_eq!(listing.cursor(&cursor).page().unwrap().get(0).unwrap().key(), b"p06");
    }
    // The namespace is known by its id: renaming it changes nothing; dropping and creating it anew does.
    store.rename_namespace("N", "renamed").unwrap();
    assert_eq!(list().cursor(&cursor).page().unwrap().get(0).unwrap().key(), b"p06");
    store.drop_namespace("other").unwrap();
    refused(
        other.list().cursor(&cursor).page(),
        ErrorKind::NotFound,
        &["\"other\"", "open it again"],
    );
}

#[test]
fn a_cursor_that_was_damaged_on_its_way_is_refused() {
    let (store, namespace) = limited(Limits::ENGINE);
    namespace.put("key 2", "1").unwrap();
    let cursor = namespace.list().limit(1).page().unwrap().cursor().unwrap().to_owned();
    let mut wrong: Vec<String> = [
        "A",
        "AAAA",
        "AAAAAAAA",
        "AAAAAAAAAAAA",
        "=",
        "a b",
        "\0",
        "é",
        "%00",
        "null",
        &cursor.repeat(2),
    ]
    .map(str::to_owned)
    .to_vec();
    wrong.extend((1..cursor.len()).map(|length| cursor[..length].to_owned()));
    for index in 0..cursor.len() {
        let mut changed = cursor.clone().into_bytes();
        changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
        wrong.push(String::from_utf8(changed).unwrap());
    }
    wrong.push("A".repeat(1 << 20));
    for cursor in wrong {
        let error = refused(
            namespace.list().cursor(&cursor).page(),
            ErrorKind::InvalidInput,
            &["cursor"],
        );
        assert!(matches!(error, Error::InvalidCursor));
    }
    assert_eq!(
        namespace
            .list()
            .limit(1)
            .cursor(&cursor)
            .page()
            .unwrap()
            .get(0)
            .unwrap()
            .key(),
        b"key 2"
    );
    namespace.delete("key 2").unwrap();
    unharmed(&store, &namespace);
}

#[test]
fn namespaces_that_cannot_be_are_refused() {
    let (store, namespace) = limited(Limits::ENGINE);
    let (longest, too_long) = ("n".repeat(2048), "n".repeat(2049));
    store.create_namespace(&longest).unwrap();
    store.drop_namespace(&longest).unwrap();
    for (name, says) in [("", ["name", "empty"]), (&too_long, ["2049 bytes", "limit of 2048"])] {
        invalid(store.create_namespace(name), &says);
        invalid(store.namespace(name), &says);
        invalid(store.rename_namespace("N", name), &says);
    }
    let exists = &["\"N\"", "exists already", "choose another name"][..];
    let missing = &["\"missing\"", "does not exist", "create it"][..];
    refused(store.create_namespace("N"), ErrorKind::AlreadyExists, exists);
    refused(store.rename_namespace("N", "N"), ErrorKind::AlreadyExists, exists);
    invalid(
        store.create_namespace_with_id("M", namespace.id()),
        &["in use", "choose another"],
    );
    refused(store.open_namespace("missing"), ErrorKind::NotFound, missing);
    refused(store.open_namespace(""), ErrorKind::NotFound, &[]);
    refused(store.drop_namespace("missing"), ErrorKind::NotFound, missing);
    refused(store.rename_namespace("missing", "new"), ErrorKind::NotFound, missing);
    assert!(store.namespace_by_id(0).unwrap().is_none());
    let names: Vec<_> = store.namespaces().unwrap().into_iter().map(|info| info.name).collect();
    assert_eq!(names, ["N"]);
    unharmed(&store, &namespace);
}

#[test]
fn a_dropped_namespace_refuses_everything_and_its_name_can_be_had_again() {
    let (store, namespace) = limited(Limits::ENGINE);
    let dropped = store.namespace("dropped").unwrap();
    dropped.put("key", "old").unwrap();
    store.drop_namespace("dropped").unwrap();
    let check = || {
        let says = &["\"dropped\"", "open it again if it was dropped"][..];
        let no = ErrorKind::NotFound;
        refused(dropped.get("key"), no, says);
        refused(dropped.get_many(&["key"]), no, says);
        refused(dropped.contains("key"), no, says);
        refused(dropped.count(), no, says);
        refused(dropped.list().page(), no, says);
        refused(dropped.list().into_iter().next().unwrap(), no, says);
        refused(dropped.put("key", "new"), no, says);
        refused(dropped.put_if("key", "new", Condition::Absent), no, says);
        refused(dropped.delete("key"), no, says);
        refused(dropped.set_ttl("key", Duration::from_secs(1)), no, says);
        // And takes no good write down with it half done.
        refused(
            store
                .batch()
                .put(&namespace, "other", "1")
                .put(&dropped, "key", "new")
                .commit(),
            no,
            says,
        );
    };
    check();
    store.maintain().unwrap();
    check();
    let again = store.create_namespace("dropped").unwrap();
    check();
    assert_ne!(again.id(), dropped.id());
    assert!(again.get("key").unwrap().is_none());
    unharmed(&store, &namespace);
}

#[test]
fn a_batch_with_a_namespace_of_another_store_is_refused() {
    let (store, namespace) = limited(Limits::ENGINE);
    let (_other_store, other) = limited(Limits::ENGINE);
    let batch = store.batch().put(&namespace, "a", "1").put(&other, "a", "1");
    invalid(batch.commit(), &["another store", "one batch for each store"]);
    unharmed(&store, &namespace);
    assert!(other.get("a").unwrap().is_none());
}

#[test]
fn a_condition_that_does_not_hold_says_what_stands_there() {
    let (store, namespace) = limited(Limits::ENGINE);
    let sequence = namespace.get("key").unwrap().unwrap().sequence();
    let there = format!("sequence {sequence}");
    let there = ["read the key again", &there];
    refused(
        namespace.put_if("key", "2", Condition::Absent),
        ErrorKind::Conflict,
        &there,
    );
    refused(
        namespace.put_if("key", "2", Condition::Sequence(sequence + 1)),
        ErrorKind::Conflict,
        &there,
    );
    refused(
        namespace.delete_if("key", Condition::Sequence(0)),
        ErrorKind::Conflict,
        &there,
    );
    for condition in [Condition::Present, Condition::Sequence(sequence)] {
        let error = refused(namespace.put_if("no", "2", condition), ErrorKind::Conflict, &["absent"]);
        assert!(matches!(error, Error::Conflict { found: None }));
    }
    unharmed(&store, &namespace);
}

#[test]
fn options_out_of_range_are_refused_before_the_disk_is_touched() {
    let disk = MemStorage::new();
    let options = || manual(Arc::new(disk.clone()));
    for (options, says) in [
        (options().segment_bytes(0), ["segment size of 0", "choose 4096 to"]),
        (
            options().segment_bytes(4095),
            ["segment size of 4095", "choose 4096 to"],
        ),
        (
            options().segment_bytes((512 << 20) + 1),
            ["segment size", "to 536870912"],
        ),
        (options().segment_bytes(u64::MAX), ["segment size", "to 536870912"]),
        (
            options().waste_ceiling(1.09),
            ["waste ceiling of 1.09", "choose 1.1 to 10"],
        ),
        (
            options().waste_ceiling(10.1),
            ["waste ceiling of 10.1", "choose 1.1 to 10"],
        ),
        (options().waste_ceiling(f64::NAN), ["waste ceiling", "choose 1.1 to 10"]),
        (
            options().waste_ceiling(f64::INFINITY),
            ["waste ceiling", "choose 1.1 to 10"],
        ),
        (
            options().compaction_bytes_per_second(Some(0)),
            ["rate of zero", "pause compaction instead"],
        ),
    ] {
        invalid(options.open(DIRECTORY), &says);
    }
    assert_eq!(disk.operation_count(), 0, "nothing was done");
    let extreme = options()
        .segment_bytes(4096)
        .waste_ceiling(10.0)
        .compaction_bytes_per_second(Some(u64::MAX))
        .expiry_grace(Duration::MAX)
        .flush_interval(Duration::MAX);
    let store = extreme.open(DIRECTORY).unwrap();
    store.namespace("N").unwrap().put("key", "1").unwrap();
    store.compact().unwrap();
    store.close().unwrap();
}

/// The same with the store's own threads, which must neither spin nor overflow.
#[test]
fn intervals_of_zero_and_for_ever_are_taken_as_meant() {
    for interval in [Duration::ZERO, Duration::MAX] {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::options()
            .flush_interval(interval)
            .expiry_grace(interval)
            .open(directory.path().join("store"))
            .unwrap();
        store.namespace("N").unwrap().put("key", "1").unwrap();
        store.close().unwrap();
    }
}

// Directories that are no stores.

/// Refused by a real directory, in which nothing has changed.
#[track_caller]
fn not_a_store(directory: &Path, says: &[&str]) {
    let before = file_names(directory);
    let error = refused(Store::open(directory), ErrorKind::NotAStore, says);
    assert!(
        error.to_string().ends_with(&directory.display().to_string()),
        "ends in the path: {error}"
    );
    assert_eq!(file_names(directory), before, "nothing was left behind");
}

#[test]
fn a_directory_with_other_files_is_left_as_it_is() {
    let temporary = tempfile::tempdir().unwrap();
    std::fs::write(temporary.path().join("thesis.tex"), "precious").unwrap();
    not_a_store(
        temporary.path(),
        &["other files", "thesis.tex", "name an empty or a new one"],
    );
    std::fs::create_dir(temporary.path().join("0000000000000001")).unwrap();
    not_a_store(temporary.path(), &["other files"]);
    assert_eq!(std::fs::read(temporary.path().join("thesis.tex")).unwrap(), b"precious");
}

#[test]
fn a_file_is_no_directory() {
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    refused(
        Store::open(&file),
        ErrorKind::NotAStore,
        &["this is a file", "name a directory", "file"],
    );
    assert!(Store::open(file.join("below")).is_err());
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    assert_eq!(file_names(temporary.path()), ["file"]);
}

#[test]
fn no_store_is_created_where_none_was_asked_for() {
    let temporary = tempfile::tempdir().unwrap();
    let missing = temporary.path().join("a/b");
    refused(
        Store::options().create(false).open(&missing),
        ErrorKind::NotAStore,
        &["does not exist", "creating"],
    );
    assert!(file_names(temporary.path()).is_empty());
    refused(
        Store::options().create(false).open(temporary.path()),
        ErrorKind::NotAStore,
        &["empty", "creating"],
    );
    assert!(file_names(temporary.path()).is_empty());
    Store::open(&missing).unwrap().close().unwrap();
    Store::options().create(false).open(&missing).unwrap().close().unwrap();
}

/// A closed store of two keys on a simulated disk.
fn closed_store() -> MemStorage {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "value").unwrap();
    namespace.put("filler", [7; 4_000]).unwrap();
    store.close().unwrap();
    disk
}

fn paths_ending(disk: &MemStorage, end: &str) -> Vec<String> {
    let files = disk.files(DIRECTORY);
    files
        .iter()
        .map(|path| path.display().to_string())
        .filter(|path| path.ends_with(end))
        .collect()
}

/// Content of all files.
fn contents(disk: &MemStorage) -> Vec<(String, Vec<u8>)> {
    let files = disk.files(DIRECTORY);
    files
        .iter()
        .map(|path| (path.display().to_string(), disk.read_file(path).unwrap()))
        .collect()
}

#[test]
fn a_missing_segment_is_damage_and_named() {
    let disk = closed_store();
    let segment = paths_ending(&disk, ".segment").remove(0);
    let bytes = disk.read_file(&segment).unwrap();
    disk.remove_file(&segment).unwrap();
    let before = contents(&disk);
    let opened = manual(Arc::new(disk.clone())).open(DIRECTORY);
    refused(
        opened,
        ErrorKind::Corruption,
        &["missing", "manifest", &segment, "at offset 0", "salvage"],
    );
    assert_eq!(contents(&disk), before, "nothing was changed");
    disk.write_file(&segment, &bytes).unwrap();
    assert_eq!(
        text(&open(&disk).open_namespace("N").unwrap(), "key").as_deref(),
        Some("value")
    );
}

#[test]
fn segments_without_a_manifest_are_not_taken_for_an_empty_store() {
    let disk = closed_store();
    let manifest = format!("{DIRECTORY}/MANIFEST");
    let bytes = disk.read_file(&manifest).unwrap();
    disk.remove_file(&manifest).unwrap();
    let before = contents(&disk);
    for create in [true, false] {
        let opened = manual(Arc::new(disk.clone())).create(create).open(DIRECTORY);
        refused(
            opened,
            ErrorKind::NotAStore,
            &["segments but no manifest", "restore", "salvage"],
        );
    }
    assert_eq!(contents(&disk), before, "nothing was changed");
    disk.write_file(&manifest, &bytes).unwrap();
    assert_eq!(
        text(&open(&disk).open_namespace("N").unwrap(), "key").as_deref(),
        Some("value")
    );
}

#[test]
fn a_newer_format_is_left_to_a_newer_program() {
    let disk = closed_store();
    let mut files = paths_ending(&disk, ".segment");
    files.push(format!("{DIRECTORY}/MANIFEST"));
    for path in files {
        let bytes = disk.read_file(&path).unwrap();
        for version in [u32::from_le_bytes(*bytes[8..].first_chunk().unwrap()) + 1, u32::MAX] {
            let mut newer = bytes.clone();
            newer[8..12].copy_from_slice(&version.to_le_bytes());
            disk.write_file(&path, &newer).unwrap();
            let before = contents(&disk);
            let opened = manual(Arc::new(disk.clone())).open(DIRECTORY);
            let version = format!("version {version}");
            let error = refused(opened, ErrorKind::NotAStore, &[&version, "newer embercask", &path]);
            assert!(matches!(error, Error::NewerFormat { .. }), "{error:?}");
            assert_eq!(contents(&disk), before, "nothing was changed");
        }
        disk.write_file(&path, &bytes).unwrap();
    }
    assert_eq!(
        text(&open(&disk).open_namespace("N").unwrap(), "key").as_deref(),
        Some("value")
    );
}

#[test]
fn a_directory_that_may_not_be_read_or_written_says_so() {
    let disk = closed_store();
    for (operation, path, says) in [
        (Operation::List, "", "look for"),
        (Operation::Lock, "", "lock"),
        (Operation::OpenRead, "MANIFEST", "read"),
        (Operation::OpenRead, ".segment", "open"),
    ] {
        let faults = FaultStorage::new(Arc::new(disk.crash_process()));
        let fault = Fault::new(FaultKind::Error(io::ErrorKind::PermissionDenied))
            .on(operation)
            .path(path);
        faults.inject(fault.repeated());
        let opened = manual(Arc::new(faults.clone())).open(DIRECTORY);
        refused(opened, ErrorKind::Io, &["cannot", says, DIRECTORY]);
        faults.clear();
        let store = manual(Arc::new(faults)).open(DIRECTORY).unwrap();
        assert_eq!(
            text(&store.open_namespace("N").unwrap(), "key").as_deref(),
            Some("value")
        );
    }
    // A new store where nothing may be written.
    let faults = FaultStorage::new(Arc::new(MemStorage::new()));
    faults.inject(Fault::new(FaultKind::Error(io::ErrorKind::PermissionDenied)).on(Operation::CreateDirectory));
    refused(
        manual(Arc::new(faults.clone())).open(DIRECTORY),
        ErrorKind::Io,
        &["cannot create", DIRECTORY],
    );
    faults.inject(Fault::new(FaultKind::Error(io::ErrorKind::ReadOnlyFilesystem)).on(Operation::Create));
    refused(
        manual(Arc::new(faults.clone())).open(DIRECTORY),
        ErrorKind::Io,
        &["cannot create", "MANIFEST"],
    );
    manual(Arc::new(faults)).open(DIRECTORY).unwrap();
}

// Stores in use.

#[test]
fn a_second_handle_in_the_same_process_is_told_who_holds_the_store() {
    let temporary = tempfile::tempdir().unwrap();
    let first = Store::open(temporary.path()).unwrap();
    let namespace = first.namespace("N").unwrap();
    namespace.put("key", "value").unwrap();
    let holder = format!("in use by process {}", std::process::id());
    let path = temporary.path().display().to_string();
    for _ in 0..3 {
        let error = refused(
            Store::open(temporary.path()),
            ErrorKind::InUse,
            &[&holder, "close it there first", &path],
        );
        assert!(matches!(error, Error::InUse { .. }));
    }
    assert_eq!(text(&namespace, "key").as_deref(), Some("value"));
    namespace.put("key", "2").unwrap();
    first.close().unwrap();
    // The handles that are left do not keep the next one out.
    let second = Store::open(temporary.path()).unwrap();
    assert_eq!(text(&second.open_namespace("N").unwrap(), "key").as_deref(), Some("2"));
    assert_eq!(namespace.get("key").unwrap_err().kind(), ErrorKind::Closed);
}

/// The name of the test below, which a child process runs, too.
const HOLDING: &str = "a_store_that_another_process_holds_is_in_use_until_that_ends_however_it_does";
const HELD_DIRECTORY: &str = "EMBERCASK_TEST_HELD_DIRECTORY";

/// A child process that holds a store until told to go on.
struct Holder {
    child: Child,
    input: ChildStdin,
    output: io::Lines<io::BufReader<ChildStdout>>,
}

impl Holder {
    fn of(directory: &Path) -> Holder {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", HOLDING, "--nocapture"])
            .env(HELD_DIRECTORY, directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let output = io::BufRead::lines(io::BufReader::new(output));
        let mut holder = Holder { child, input, output };
        let opened = holder
            .output
            .find(|line| line.as_ref().is_ok_and(|line| line.contains("HELD")));
        assert!(opened.is_some(), "the child did not open the store");
        holder
    }
}

/// B26: the lock is the system's, so it ends with its holder; what the file says means nothing.
#[test]
fn a_store_that_another_process_holds_is_in_use_until_that_ends_however_it_does() {
    if let Some(directory) = std::env::var_os(HELD_DIRECTORY) {
        let store = Store::open(directory).unwrap();
        println!("HELD");
        let mut line = String::new();
        io::stdin().read_line(&mut line).unwrap();
        store.close().unwrap();
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    Store::open(temporary.path()).unwrap().close().unwrap();
    for kills in [true, false, true] {
        let mut holder = Holder::of(temporary.path());
        let says = format!("in use by process {}", holder.child.id());
        refused(Store::open(temporary.path()), ErrorKind::InUse, &[&says]);
        if kills {
            holder.child.kill().unwrap();
        } else {
            io::Write::write_all(&mut holder.input, b"\n").unwrap();
        }
        holder.child.wait().unwrap();
        let store = Store::open(temporary.path()).unwrap();
        store.namespace("N").unwrap().put("key", "value").unwrap();
        store.close().unwrap();
    }
}

/// Nothing of a closed store can be used, and nothing of it panics or hangs.
#[test]
fn a_closed_store_refuses_everything_and_leaves_the_directory_to_the_next() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    for n in 0..100 {
        namespace.put("key", format!("{n}").repeat(100)).unwrap();
    }
    let value = namespace.get("key").unwrap().unwrap();
    let batch = store.batch().put(&namespace, "key", "new");
    store.clone().close().unwrap();
    let next = open(&disk);
    let next_namespace = next.open_namespace("N").unwrap();
    let before = contents(&disk);
    let (no, says) = (ErrorKind::Closed, &["closed", "open it again"][..]);
    refused(namespace.get("key"), no, says);
    refused(namespace.get_many(&["key"]), no, says);
    refused(namespace.contains("key"), no, says);
    refused(namespace.count(), no, says);
    refused(namespace.list().page(), no, says);
    refused(namespace.list().into_iter().next().unwrap(), no, says);
    refused(namespace.put("key", "new"), no, says);
    refused(namespace.delete("key"), no, says);
    refused(namespace.set_ttl("key", Duration::from_secs(1)), no, says);
    refused(batch.commit(), no, says);
    refused(store.namespace("N"), no, says);
    refused(store.namespace("new"), no, says);
    refused(store.create_namespace("new"), no, says);
    refused(store.open_namespace("N"), no, says);
    refused(store.namespaces(), no, says);
    refused(store.rename_namespace("N", "M"), no, says);
    refused(store.drop_namespace("N"), no, says);
    refused(store.flush(), no, says);
    refused(store.sync(), no, says);
    refused(store.maintain(), no, says);
    refused(store.compact(), no, says);
    refused(store.compact_if_worthwhile(), no, says);
    refused(store.compact_subset(u64::MAX), no, says);
    store.stats();
    store.clone().close().unwrap();
    drop(store);
    assert_eq!(contents(&disk), before, "the next one has the directory");
    assert_eq!(value, "99".repeat(100));
    assert_eq!(next_namespace.get("key").unwrap().unwrap(), "99".repeat(100));
    next.close().unwrap();
}
