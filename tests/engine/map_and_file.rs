//! Interaction between a map and its file: only sealed segments are mapped, nothing is written
//! through a map, and a file that is cut under an open store causes an error or the end of the
//! process, never wrong bytes.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use embercask::{Durability, ErrorKind, Maintenance, Namespace, Options, ReadMode, Store};
use test_support::file_names;

const KEYS: usize = 200;
const MODE: &str = "EMBERCASK_TEST_READ_MODE";
const DIRECTORY: &str = "EMBERCASK_TEST_DIRECTORY";
/// The name of the test that runs as a child.
const CHILD: &str = "map_and_file::a_segment_cut_under_an_open_store_never_gives_other_bytes";

fn options(mode: ReadMode) -> Options {
    Store::options()
        .segment_bytes(16 << 10)
        .durability(Durability::Os)
        .maintenance(Maintenance::Manual)
        .read_mode(mode)
}

fn value(n: usize) -> String {
    format!("{n} ").repeat(200)
}

/// A closed store with several sealed segments.
fn filled(directory: &Path) {
    let store = options(ReadMode::Map).open(directory).unwrap();
    let namespace = store.namespace("N").unwrap();
    for n in 0..KEYS {
        namespace.put(format!("{n:03}"), value(n)).unwrap();
    }
    store.close().unwrap();
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    file_names(directory)
        .into_iter()
        .filter(|name| name.ends_with(".segment"))
        .map(|name| directory.join(name))
        .collect()
}

/// Opens the store, cuts its second segment, and reads everything. Fails if a value is wrong or a
/// key absent.
fn cut_and_read(directory: &Path, mode: ReadMode) {
    let store = options(mode).open(directory).unwrap();
    let namespace = store.open_namespace("N").unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&segments(directory)[1])
        .unwrap();
    file.set_len(4096).unwrap();
    println!("CUT");
    let mut errors = 0;
    for n in 0..KEYS {
        match namespace.get(format!("{n:03}")) {
            Ok(Some(found)) => assert_eq!(found.as_str().unwrap(), value(n)),
            Ok(None) => panic!("key {n} is absent"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
                assert!(error.to_string().contains(".segment at offset"), "{error}");
                errors += 1;
            }
        }
    }
    println!("{errors} ERRORS");
}

fn in_child(directory: &Path, mode: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", CHILD, "--nocapture"])
        .env(DIRECTORY, directory)
        .env(MODE, mode)
        .output()
        .unwrap()
}

/// B27. In map mode the system ends the process (SIGBUS) on access to missing pages; in pread mode
/// that is an error.
#[test]
fn a_segment_cut_under_an_open_store_never_gives_other_bytes() {
    if let (Some(directory), Ok(mode)) = (std::env::var_os(DIRECTORY), std::env::var(MODE)) {
        let mode = if mode == "map" { ReadMode::Map } else { ReadMode::Pread };
        return cut_and_read(Path::new(&directory), mode);
    }
    let temporary = tempfile::tempdir().unwrap();
    for mode in ["map", "pread"] {
        let directory = temporary.path().join(mode);
        filled(&directory);
        let output = in_child(&directory, mode);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("CUT"), "{mode}: {said}");
        let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
        if mode == "map" {
            const SIGBUS: i32 = 7;
            assert_eq!(signal, Some(SIGBUS), "{}: {said}", output.status);
        } else {
            assert!(output.status.success(), "{}: {said}", output.status);
            assert!(said.contains("ERRORS") && !said.contains("\n0 ERRORS"), "{said}");
        }
        // The next opening detects that the file is too short.
        let error = options(ReadMode::Map).open(&directory).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{mode}: {error}");
    }
}

/// Permissions and paths of the maps of files in this directory, according to the kernel.
fn maps_of(directory: &Path) -> Vec<(String, String)> {
    let directory = directory.to_str().unwrap();
    std::fs::read_to_string("/proc/self/maps")
        .unwrap()
        .lines()
        .filter(|line| line.contains(directory))
        .map(|line| {
            let mut words = line.split_whitespace();
            let permissions = words.nth(1).unwrap_or_default().to_owned();
            (permissions, words.last().unwrap_or_default().to_owned())
        })
        .collect()
}

/// B27: the active segment changes by writes, so a map of it would show data that may still be
/// rolled back.
#[test]
fn sealed_segments_alone_are_mapped_and_never_for_writing() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().canonicalize().unwrap();
    let store = options(ReadMode::Map).open(&directory).unwrap();
    let namespace = store.namespace("N").unwrap();
    for n in 0..2 * KEYS {
        namespace.put(format!("{n:03}"), value(n)).unwrap();
    }
    store.maintain().unwrap();
    let stats = store.stats();
    let file_of = |id: u64| format!("{id:016x}.segment");
    let maps = maps_of(&directory);
    // Enough segments for ids with hexadecimal letters.
    assert!(stats.segments.len() > 10, "{}", stats.segments.len());
    for sealed in stats.segments.iter().filter(|segment| segment.sealed) {
        let is_of = |(_, path): &(String, String)| path.ends_with(&file_of(sealed.id));
        assert!(maps.iter().any(is_of), "{} is not mapped", file_of(sealed.id));
    }
    // The ring has no more than what is not in the active segment's file yet, and nothing reads it.
    let (ring, maps): (Vec<_>, Vec<_>) = maps.into_iter().partition(|(_, path)| path.ends_with("RING"));
    assert_eq!(ring.len(), usize::from(stats.ring_bytes > 0), "{ring:?}");
    for (permissions, path) in &maps {
        assert!(permissions.starts_with("r--"), "{path} is mapped {permissions}");
        let sealed = stats
            .segments
            .iter()
            .any(|segment| segment.sealed && path.ends_with(&file_of(segment.id)));
        assert!(sealed, "{path} is mapped but not sealed");
    }
    store.close().unwrap();
    drop(namespace);
    assert_eq!(maps_of(&directory), [], "a map outlives the last handle");
}

/// Where the system cannot be asked to forget a file, as in memory, only the first part is tested.
#[test]
fn a_key_is_cached_unless_its_record_has_to_be_fetched_from_the_device() {
    let directory = tempfile::tempdir().unwrap();
    let large = |mode| options(mode).segment_bytes(4 << 20);
    let store = large(ReadMode::Map).open(directory.path()).unwrap();
    let namespace = store.namespace("N").unwrap();
    let keys: Vec<_> = (0..2000).map(|n| format!("{n:04}")).collect();
    let count_cached = |namespace: &Namespace| keys.iter().filter(|key| namespace.is_cached(key).unwrap()).count();
    for key in &keys {
        namespace.put(key, [7; 1500]).unwrap();
    }
    assert_eq!(count_cached(&namespace), keys.len(), "the active segment is in memory");
    assert!(namespace.is_cached("absent").unwrap());
    store.close().unwrap();
    assert_eq!(namespace.is_cached("0000").unwrap_err().kind(), ErrorKind::Closed);

    let store = large(ReadMode::Pread).open(directory.path()).unwrap();
    assert_eq!(
        count_cached(&store.open_namespace("N").unwrap()),
        0,
        "it cannot be told"
    );
    store.close().unwrap();

    let store = large(ReadMode::Map).open(directory.path()).unwrap();
    let namespace = store.open_namespace("N").unwrap();
    for segment in segments(directory.path()) {
        let file = std::fs::File::open(segment).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
    let cached = count_cached(&namespace);
    for key in &keys {
        assert_eq!(namespace.get(key).unwrap().unwrap().len(), 1500);
    }
    let read = count_cached(&namespace);
    println!("{cached} were cached at first, and then {read}");
    assert!(read >= cached && read > keys.len() / 2, "{cached}, then {read}");
}
