//! Leftovers of real files, on disk and as open files of this process: none.

use embercask::{Durability, ErrorKind, Maintenance, ReadMode, Store};

use test_support::file_names;
use test_support::process::open_in;

/// B25.
#[test]
fn opening_and_closing_leaks_no_file_and_no_map() {
    for read_mode in [ReadMode::Map, ReadMode::Pread] {
        let directory = tempfile::tempdir().unwrap();
        for n in 0..100 {
            let options = Store::options()
                .segment_bytes(4096)
                .read_mode(read_mode)
                .durability(Durability::Os);
            let store = options.open(directory.path()).unwrap();
            let namespace = store.namespace("N").unwrap();
            namespace.put(format!("{}", n % 10), [7; 1_500]).unwrap();
            if n % 20 == 19 {
                store.compact().unwrap();
            }
            assert!(
                !open_in(directory.path()).is_empty(),
                "an open store shows no open files"
            );
            // Both ways to end: closed explicitly, and dropped.
            if n % 2 == 0 {
                store.close().unwrap()
            } else {
                drop(store)
            }
            drop(namespace);
            assert_eq!(open_in(directory.path()), [""; 0], "after {n} times");
        }
        // A store that fails to open leaves nothing open either.
        let manifest = directory.path().join("MANIFEST");
        std::fs::write(&manifest, "damaged").unwrap();
        for _ in 0..10 {
            let error = Store::open(directory.path()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        }
        assert_eq!(open_in(directory.path()), [""; 0]);
    }
}

/// B25: compacted segments are gone from disk, with or without a name, once their last reader has
/// gone.
#[test]
fn compacted_segments_leave_the_directory_at_once_and_the_disk_with_their_last_reader() {
    for read_mode in [ReadMode::Map, ReadMode::Pread] {
        let directory = tempfile::tempdir().unwrap();
        let options = Store::options()
            .segment_bytes(4096)
            .read_mode(read_mode)
            .maintenance(Maintenance::Manual);
        let store = options.durability(Durability::Os).open(directory.path()).unwrap();
        let namespace = store.namespace("N").unwrap();
        namespace.put("kept", "value").unwrap();
        namespace.put("filler", [7; 4_000]).unwrap();
        store.maintain().unwrap();
        let value = namespace.get("kept").unwrap().unwrap();
        for n in 0..200 {
            namespace.put(format!("{}", n % 5), [n; 500]).unwrap();
        }
        namespace.delete("kept").unwrap();
        store.compact().unwrap();
        let segments = store.stats().segments;
        let mut expected = vec!["LOCK".to_owned(), "MANIFEST".to_owned(), "RESERVE".to_owned()];
        expected.extend((store.stats().ring_bytes > 0).then(|| "RING".to_owned()));
        expected.extend(
            segments
                .iter()
                .flat_map(|segment| ["hint", "segment"].map(|end| format!("{:016x}.{end}", segment.id))),
        );
        expected.sort();
        assert_eq!(file_names(directory.path()), expected);
        let deleted = |open: Vec<String>| open.into_iter().filter(|path| path.contains("(deleted)")).count();
        if read_mode == ReadMode::Map {
            assert!(
                deleted(open_in(directory.path())) > 0,
                "a value does not keep its segment"
            );
        }
        assert_eq!(value, "value");
        drop(value);
        assert_eq!(deleted(open_in(directory.path())), 0, "{:?}", open_in(directory.path()));
    }
}
