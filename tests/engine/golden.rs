//! Stores written by earlier versions stay readable for ever:
//!
//! * `tests/golden/v1` was closed, without an index file;
//! * `tests/golden/v1-unclean` was killed;
//! * `tests/golden/v2-ring` was killed while only the ring had some of its records;
//! * `tests/golden/v1-index` was closed, with one that does not count the bytes of namespaces;
//! * `tests/golden/v1-index-bytes` was closed, with one that does;
//! * `tests/golden/v1-cut` was killed, then recovered, which cut a segment, and closed.
//!
//! A new one gets a test below that states its content and calls `write_if_asked`, and is written
//! with `EMBERCASK_WRITE_GOLDEN=1 cargo test --test engine golden::`. This is done once per version
//! of the format: files already in the repository stay the same, to the byte. The last test checks
//! that, and prints the checksum to add for a new one.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not tests to clippy")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use embercask::{
    Durability, Maintenance, ManualClock, Namespace, PartValue, PutOptions, ReadMode, RingMode, Store, inspect,
};
use test_support::way::Way;

/// The stores' clock when they were written.
const WRITTEN_MS: u64 = 1_700_000_000_000;
/// The clock when they are read.
const READ_MS: u64 = 1_800_000_000_000;
/// 2100-01-01.
const FAR_MS: u64 = 4_102_444_800_000;
/// The id with which the namespace `flags` was created.
const FLAGS_ID: u128 = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;

/// The expected value, metadata and expiry of a key.
type Content = (Vec<u8>, Option<Vec<u8>>, Option<u64>);
/// By namespace and key.
type Listing = BTreeMap<(String, Vec<u8>), Content>;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn open(directory: &Path, now_ms: u64, mode: ReadMode) -> Store {
    open_with(directory, now_ms, mode, RingMode::Never)
}

fn open_with(directory: &Path, now_ms: u64, mode: ReadMode, ring: RingMode) -> Store {
    Store::options()
        .segment_bytes(4096)
        .ring(ring)
        .maintenance(Maintenance::Manual)
        .clock(ManualClock::new(now_ms))
        .read_mode(mode)
        .open(directory)
        .unwrap()
}

/// The content of all golden stores.
fn expected() -> Listing {
    let mut listing = Listing::new();
    let mut expect = |namespace: &str, key: &str, value: &[u8], metadata: Option<&str>, expiry: Option<u64>| {
        let content = (
            value.to_vec(),
            metadata.map(|metadata| metadata.as_bytes().to_vec()),
            expiry,
        );
        listing.insert((namespace.to_owned(), key.as_bytes().to_vec()), content);
    };
    for n in (0..40).filter(|n| n % 5 != 0) {
        let value = if n % 7 == 0 {
            format!("second value {n}")
        } else {
            format!("value {n} {}", "x".repeat(150))
        };
        expect("sessions", &format!("user-{n:03}"), value.as_bytes(), None, None);
    }
    expect("sessions", "for a century", b"v", None, Some(FAR_MS));
    expect("flags", "with metadata", b"on", Some(r#"{"by":"nobody"}"#), None);
    expect("flags", "with empty metadata", b"off", Some(""), None);
    expect("flags", "with both", b"on", Some("m"), Some(FAR_MS));
    expect("flags", "empty value", b"", None, None);
    expect("flags", "large", &[0xab; 6000], None, None);
    expect("flags", &"long key ".repeat(40), b"v", None, None);
    expect("flags", "one of a batch", b"1", None, None);
    expect("second name", "two of a batch", b"2", None, None);
    listing
}

/// Performs every kind of operation that the golden stores cover.
fn fill(store: &Store) {
    let sessions = store.namespace("sessions").unwrap();
    let flags = store.create_namespace_with_id("flags", FLAGS_ID).unwrap();
    let renamed = store.namespace("first name").unwrap();
    let dropped = store.namespace("dropped").unwrap();
    dropped.put("a key of a dropped namespace", "v").unwrap();
    for n in 0..40 {
        sessions
            .put(format!("user-{n:03}"), format!("value {n} {}", "x".repeat(150)))
            .unwrap();
    }
    for n in (0..40).filter(|n| n % 7 == 0) {
        sessions
            .put(format!("user-{n:03}"), format!("second value {n}"))
            .unwrap();
    }
    for n in (0..40).filter(|n| n % 5 == 0) {
        sessions.delete(format!("user-{n:03}")).unwrap();
    }
    let century = PutOptions::new().expires_at_ms(FAR_MS);
    let minute = PutOptions::new().expires_at_ms(WRITTEN_MS + 60_000);
    sessions.put_with("for a century", "v", century.clone()).unwrap();
    sessions.put("for a minute", "for ever, at first").unwrap();
    sessions.put_with("for a minute", "v", minute).unwrap();
    flags
        .put_with("with metadata", "on", PutOptions::new().metadata(r#"{"by":"nobody"}"#))
        .unwrap();
    flags
        .put_with("with empty metadata", "off", PutOptions::new().metadata(""))
        .unwrap();
    flags.put_with("with both", "on", century.metadata("m")).unwrap();
    flags.put("empty value", "").unwrap();
    flags.put("large", [0xab; 6000]).unwrap();
    flags.put("long key ".repeat(40), "v").unwrap();
    flags.put("to be deleted by a batch", "v").unwrap();
    store
        .batch()
        .put(&flags, "one of a batch", "1")
        .put(&renamed, "two of a batch", "2")
        .delete(&flags, "to be deleted by a batch")
        .commit()
        .unwrap();
    store.rename_namespace("first name", "second name").unwrap();
    store.drop_namespace("dropped").unwrap();
}

/// Copies everything except the lock and the reserve, which opening creates.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if !["LOCK", "RESERVE"].iter().any(|name| entry.file_name() == *name) {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// How a golden store ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Closed by a version without index files.
    ClosedWithoutIndexFile,
    Closed,
    Killed,
    KilledWithRing,
    /// Killed, reopened and closed.
    Recovered,
}

/// Writes a golden store, if requested and missing.
fn write_if_asked(name: &str, ending: Ending) {
    let target = golden(name);
    if std::env::var_os("EMBERCASK_WRITE_GOLDEN").is_none() || target.exists() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let ring = match ending {
        Ending::KilledWithRing => RingMode::Always,
        _ => RingMode::Never,
    };
    let store = open_with(directory.path(), WRITTEN_MS, ReadMode::Map, ring);
    fill(&store);
    if let Ending::Closed | Ending::ClosedWithoutIndexFile = ending {
        // Removes expired and dropped keys from the indexes, which are not written otherwise.
        store.maintain().unwrap();
        store.close().unwrap();
        if ending == Ending::ClosedWithoutIndexFile {
            std::fs::remove_file(directory.path().join("INDEX")).unwrap();
        }
        copy(directory.path(), &target);
        return;
    }
    let sessions = store.open_namespace("sessions").unwrap();
    let os = PutOptions::new().durability(Durability::Os);
    sessions.put_with("not synced", "v", os.clone()).unwrap();
    if ending == Ending::KilledWithRing {
        return copy(directory.path(), &target);
    }
    sessions.put_with("torn", "v", os).unwrap();
    let killed = tempfile::tempdir().unwrap();
    copy(directory.path(), killed.path());
    // Cuts the last bytes off the last record, like a kill during a write.
    let last = segments(killed.path()).pop().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(last).unwrap();
    file.set_len(file.metadata().unwrap().len() - 8).unwrap();
    if ending == Ending::Recovered {
        let store = open(killed.path(), WRITTEN_MS, ReadMode::Map);
        store.maintain().unwrap();
        store.close().unwrap();
    }
    copy(killed.path(), &target);
}

/// The segments of the store in this directory, by ascending id.
fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "segment"))
        .collect();
    paths.sort();
    paths
}

fn listing(store: &Store) -> Listing {
    let mut listing = Listing::new();
    for info in store.namespaces().unwrap() {
        let namespace = store.open_namespace(&info.name).unwrap();
        for entry in namespace.list().with_values() {
            let entry = entry.unwrap();
            let value = entry.value().unwrap();
            check_get(&namespace, entry.key(), value);
            let content = (value.to_vec(), value.metadata().map(<[u8]>::to_vec), entry.expiry_ms());
            listing.insert((info.name.clone(), entry.key().to_vec()), content);
        }
    }
    listing
}

fn check_get(namespace: &Namespace, key: &[u8], listed: &embercask::Value) {
    let found = namespace.get(key).unwrap().unwrap();
    assert_eq!(found.as_bytes(), listed.as_bytes());
    assert_eq!(
        (found.metadata(), found.expiry_ms()),
        (listed.metadata(), listed.expiry_ms())
    );
}

fn check(store: &Store, expected: &Listing) {
    let names: Vec<_> = store.namespaces().unwrap().into_iter().map(|info| info.name).collect();
    assert_eq!(names, ["flags", "second name", "sessions"]);
    assert_eq!(store.open_namespace("flags").unwrap().id(), FLAGS_ID);
    assert_eq!(listing(store), *expected);
}

/// The content of the killed stores: one more write, which was not synced.
fn expected_after_the_kill() -> Listing {
    let mut expected = expected();
    let key = ("sessions".to_owned(), b"not synced".to_vec());
    expected.insert(key, (b"v".to_vec(), None, None));
    expected
}

/// Opens copies of a golden store in each of these ways and in both read modes. Each shows the
/// expected content, and again after it was compacted, closed and reopened.
fn check_ways(name: &str, ways: &[Way], expected: &Listing) {
    for mode in [ReadMode::Map, ReadMode::Pread] {
        for way in ways {
            let directory = tempfile::tempdir().unwrap();
            copy(&golden(name), directory.path());
            let prepared = way.prepare_directory(directory.path());
            let store = open(directory.path(), READ_MS, mode);
            let report = store.recovery_report();
            assert!(report.clean && !report.created && report.segments >= 3, "{report:?}");
            prepared.assert_taken(report);
            check(&store, expected);
            store.compact().unwrap();
            check(&store, expected);
            store.close().unwrap();
            for way in [Way::IndexFile, Way::Records] {
                let prepared = way.prepare_directory(directory.path());
                let store = open(directory.path(), READ_MS, mode);
                prepared.assert_taken(store.recovery_report());
                check(&store, expected);
            }
        }
    }
}

#[test]
fn a_closed_store_of_format_version_1_is_read_and_compacted() {
    write_if_asked("v1", Ending::ClosedWithoutIndexFile);
    check_ways("v1", &Way::BY_LOG, &expected());
}

/// An index file only helps the program that wrote it: if this fails because keys are hashed
/// differently (see the hash probe in `docs/format.md`), open this golden store by its log, and
/// write one with an index file of the new kind.
#[test]
fn a_closed_store_of_format_version_1_is_read_by_its_index_file() {
    write_if_asked("v1-index-bytes", Ending::Closed);
    check_ways("v1-index-bytes", &Way::ALL, &expected());
}

/// Without an error or a warning.
#[test]
fn an_index_file_that_lacks_what_later_versions_keep_in_it_is_ignored() {
    check_ways("v1-index", &Way::BY_LOG, &expected());
    let directory = tempfile::tempdir().unwrap();
    copy(&golden("v1-index"), directory.path());
    let store = open(directory.path(), READ_MS, ReadMode::Map);
    let report = store.recovery_report();
    assert!(!report.index_file_used && report.clean, "{report:?}");
    assert_eq!(store.stats().background_error, None);
    check(&store, &expected());
}

/// The id of the segment that the manifest in this directory lists as cut, and its end.
fn cut_segment(directory: &Path) -> (u64, u64) {
    let mut cut = Vec::new();
    inspect(directory.join("MANIFEST"), &Store::options(), |part| {
        let fields: BTreeMap<_, _> = part.fields.iter().cloned().collect();
        if fields.get("state") == Some(&PartValue::Text("cut".to_owned())) {
            match (&fields["segment"], &fields["data end"]) {
                (PartValue::Number(id), PartValue::Number(end)) => cut.push((*id, *end)),
                other => panic!("{other:?}"),
            }
        }
        true
    })
    .unwrap();
    assert_eq!(cut.len(), 1, "{cut:?}");
    cut[0]
}

#[test]
fn a_recovered_store_of_format_version_1_is_read_with_a_segment_that_was_cut() {
    write_if_asked("v1-cut", Ending::Recovered);
    check_ways("v1-cut", &Way::BY_LOG, &expected_after_the_kill());
    // Data after the cut are ignored and removed.
    let (id, end) = cut_segment(&golden("v1-cut"));
    for way in Way::BY_LOG {
        let directory = tempfile::tempdir().unwrap();
        copy(&golden("v1-cut"), directory.path());
        let path = directory.path().join(format!("{id:016x}.segment"));
        let mut bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, end, "not as recovery left it");
        let first_record = bytes[64..].to_vec();
        bytes.extend(first_record);
        std::fs::write(&path, &bytes).unwrap();
        let prepared = way.prepare_directory(directory.path());
        let store = open(directory.path(), READ_MS, ReadMode::Map);
        prepared.assert_taken(store.recovery_report());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), end, "{way:?}");
        check(&store, &expected_after_the_kill());
    }
}

#[test]
fn a_killed_store_of_format_version_1_is_recovered() {
    write_if_asked("v1-unclean", Ending::Killed);
    for mode in [ReadMode::Map, ReadMode::Pread] {
        let directory = tempfile::tempdir().unwrap();
        copy(&golden("v1-unclean"), directory.path());
        let store = open(directory.path(), READ_MS, mode);
        let report = store.recovery_report();
        assert!(
            !report.clean && report.unsealed_segments > 0 && report.discarded_bytes > 0,
            "{report:?}"
        );
        let expected = expected_after_the_kill();
        check(&store, &expected);
        store.close().unwrap();
        check(&open(directory.path(), READ_MS, mode), &expected);
    }
}

#[test]
fn a_killed_store_of_format_version_2_is_recovered_with_what_only_the_ring_has() {
    write_if_asked("v2-ring", Ending::KilledWithRing);
    for mode in [ReadMode::Map, ReadMode::Pread] {
        let directory = tempfile::tempdir().unwrap();
        copy(&golden("v2-ring"), directory.path());
        let store = open(directory.path(), READ_MS, mode);
        let report = store.recovery_report();
        assert!(!report.clean && report.ring_bytes > 0, "{report:?}");
        assert_eq!(report.discarded_bytes, 0);
        let expected = expected_after_the_kill();
        check(&store, &expected);
        store.close().unwrap();
        check(&open(directory.path(), READ_MS, mode), &expected);
    }
}

#[test]
fn golden_stores_are_as_they_were_written() {
    let known = [
        ("v1", 0xb293_be51_u32),
        ("v1-unclean", 0xb36e_1d8b),
        ("v1-index", 0x73c6_9248),
        ("v1-index-bytes", 0x6e21_73da),
        ("v1-cut", 0x9c0c_211e),
        ("v2-ring", 0x1ccc_7c5a),
    ];
    let mut stores: Vec<_> = std::fs::read_dir(golden(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    stores.sort();
    let mut names = known.map(|(name, _)| name);
    names.sort_unstable();
    assert_eq!(stores, names);
    for (name, expected) in known {
        let mut files: Vec<_> = std::fs::read_dir(golden(name))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        let mut crc = crc32fast::Hasher::new();
        for path in files {
            crc.update(path.file_name().unwrap().as_encoded_bytes());
            crc.update(&std::fs::read(path).unwrap());
        }
        let found = crc.finalize();
        assert_eq!(found, expected, "{name}: {found:#010x} now");
    }
}
