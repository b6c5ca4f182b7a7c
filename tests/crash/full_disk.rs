//! A disk that is really full: promise 9, on file systems of a few megabytes.
//!
//! The invariants, with and without the store's own threads:
//!
//! * a put that does not fit fails with [`ErrorKind::NoSpace`] and changes nothing; no acknowledged
//!   write is lost;
//! * reads, deletes and compaction keep working, and free space; puts then work again on the same
//!   handle, as they do when another program frees space;
//! * closing, reopening and being killed lose nothing on a disk without room for one more byte.
//!
//! The file systems are a tmpfs and an ext4 image on a loop device, mounted in a private mount
//! namespace, so that no mount outlives its test. Where this process may not mount, the test is
//! skipped; the same test on a simulated disk runs everywhere. Single cases on a simulated disk are
//! in `tests/engine/faults/full_disk.rs`.

#![cfg(unix)]

use std::collections::BTreeMap;
use std::io::{ErrorKind as IoErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation, OsStorage, Storage};
use embercask::{Durability, ErrorKind, Maintenance, Namespace, Options, RingMode, Store};
use test_support::class;
use test_support::process::{Child, remove_directory, report, role, was_killed};

const SEGMENT_BYTES: u64 = 256 << 10;
const VALUE_BYTES: usize = 2_000;
/// Space that another program takes at first.
const BALLAST_BYTES: u64 = 1 << 20;
const SIMULATED_BYTES: u64 = 6 << 20;
/// More puts than fit on any of these file systems.
const PUTS_MAX: u64 = 20_000;

type Content = BTreeMap<String, Vec<u8>>;

/// How the store is opened.
type Mode = (Maintenance, RingMode);

const MODES: [Mode; 3] = [
    (Maintenance::Manual, RingMode::Always),
    (Maintenance::Background, RingMode::Always),
    (Maintenance::Background, RingMode::Never),
];

/// A file system that fills up, with a store and another program's file on it.
enum Disk {
    Real { root: PathBuf, test: &'static str },
    Simulated(MemStorage),
}

impl Disk {
    fn storage(&self) -> Arc<dyn Storage> {
        match self {
            Disk::Real { .. } => Arc::new(OsStorage),
            Disk::Simulated(disk) => Arc::new(disk.clone()),
        }
    }

    fn directory(&self) -> PathBuf {
        match self {
            Disk::Real { root, .. } => root.join("store"),
            Disk::Simulated(_) => PathBuf::from("/store"),
        }
    }

    fn open(&self, mode: Mode) -> Store {
        let opened = options(mode).storage(self.storage()).open(self.directory());
        opened.unwrap_or_else(|error| panic!("open: {error}"))
    }

    /// Another program takes this many bytes, or all the space there is.
    fn take(&self, bytes: Option<u64>) {
        match self {
            Disk::Real { root, .. } => {
                let mut file = std::fs::File::options()
                    .create(true)
                    .append(true)
                    .open(root.join("ballast"))
                    .unwrap();
                let mut left = bytes.unwrap_or(u64::MAX);
                // Blocks first, then single bytes, until not one more fits.
                for size in [4096, 1] {
                    while left > 0 {
                        let block = vec![1; left.min(size) as usize];
                        match file.write(&block) {
                            Ok(written) => left -= written as u64,
                            Err(error) if error.kind() == IoErrorKind::StorageFull => break,
                            Err(error) => panic!("ballast: {error}"),
                        }
                    }
                }
                if let Err(error) = file.sync_all() {
                    assert_eq!(error.kind(), IoErrorKind::StorageFull, "ballast: {error}");
                }
            }
            Disk::Simulated(disk) => {
                disk.set_capacity(Some(bytes.map_or(disk.used(), |bytes| SIMULATED_BYTES - bytes)));
            }
        }
    }

    /// The other program gives back all it took.
    fn give_back(&self) {
        match self {
            Disk::Real { root, .. } => std::fs::remove_file(root.join("ballast")).unwrap(),
            Disk::Simulated(disk) => disk.set_capacity(Some(SIMULATED_BYTES)),
        }
    }

    fn clear(&self) {
        match self {
            Disk::Real { root, .. } => {
                remove_directory(&self.directory());
                let _ = std::fs::remove_file(root.join("ballast"));
            }
            Disk::Simulated(disk) => {
                let _ = disk.remove_directory(self.directory());
                disk.set_capacity(Some(SIMULATED_BYTES));
            }
        }
    }
}

fn options((maintenance, ring): Mode) -> Options {
    Store::options()
        .segment_bytes(SEGMENT_BYTES)
        .maintenance(maintenance)
        .ring(ring)
}

/// Mostly class `Os`, which is enough because these tests only kill.
fn put(namespace: &Namespace, key: &str, value: &[u8], number: u64) -> embercask::Result<u64> {
    let durability = if number.is_multiple_of(64) {
        Durability::Sync
    } else {
        Durability::Os
    };
    namespace.put_with(key, value, class(durability))
}

fn value(number: u64) -> Vec<u8> {
    format!("{number};").bytes().cycle().take(VALUE_BYTES).collect()
}

/// Puts until 20 in a row are refused. Returns the number that succeeded.
fn fill(namespace: &Namespace, name: &str, content: &mut Content) -> u64 {
    let (mut written, mut refused) = (0, 0);
    for number in 0..PUTS_MAX {
        let (key, value) = (format!("{name} {number:05}"), value(number));
        match put(namespace, &key, &value, number) {
            Ok(_) => {
                content.insert(key, value);
                written += 1;
                refused = 0;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                refused += 1;
                if refused == 20 {
                    return written;
                }
            }
        }
    }
    panic!("the disk does not fill up: {written} puts fit");
}

/// Asserts that puts of a new key, of an existing key and in a batch are refused.
fn refuses(store: &Store, namespace: &Namespace, content: &Content) {
    let key = content.keys().next().unwrap();
    for refused in [
        namespace.put("refused", [7; VALUE_BYTES]),
        namespace.put(key, [7; VALUE_BYTES]),
        store
            .batch()
            .put(namespace, key, [7; VALUE_BYTES])
            .delete(namespace, "refused")
            .commit(),
    ] {
        let error = refused.expect_err("the disk is full");
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    }
    assert!(store.stats().disk_full);
    assert_eq!(store.stats().poisoned, None);
}

/// The namespace holds `content`, and beyond it only keys in `perhaps`.
#[track_caller]
fn holds(namespace: &Namespace, content: &Content, perhaps: &[String]) {
    let mut listed = 0;
    for entry in namespace.list().with_values() {
        let entry = entry.unwrap();
        let key = entry.key_str().unwrap();
        match content.get(key) {
            Some(value) => {
                assert!(entry.value().unwrap() == value, "wrong value of {key}");
                listed += 1;
            }
            None => assert!(perhaps.iter().any(|known| known == key), "{key} came back"),
        }
    }
    assert_eq!(listed, content.len(), "number of listed keys");
    for (key, value) in content {
        let got = namespace.get(key).unwrap();
        assert!(got.is_some_and(|got| got == *value), "{key}");
    }
}

/// Deletes the oldest `count` keys to make room. Compacts after every 1,000, since that many
/// tombstones fit into the reserve.
fn delete_oldest(store: &Store, namespace: &Namespace, content: &mut Content, count: usize) {
    let doomed: Vec<String> = content.keys().take(count).cloned().collect();
    for (number, key) in doomed.iter().enumerate() {
        let deleted = if number.is_multiple_of(64) {
            namespace.delete(key)
        } else {
            namespace.delete_with(key, None, Some(Durability::Os))
        };
        let deleted = deleted.unwrap_or_else(|error| panic!("delete of {key}: {error}"));
        assert!(deleted.existed, "{key}");
        content.remove(key);
        if number % 1_000 == 999 {
            store.compact().unwrap_or_else(|error| panic!("compact: {error}"));
        }
    }
    store.compact().unwrap_or_else(|error| panic!("compact: {error}"));
}

/// Fills the disk, frees space by deleting, fills it, frees another program's space, fills it,
/// closes and reopens; on one store.
fn fill_and_free(disk: &Disk, mode: Mode) {
    disk.clear();
    disk.take(Some(BALLAST_BYTES));
    let store = disk.open(mode);
    let namespace = store.namespace("N").unwrap();
    let mut content = Content::new();
    let first = fill(&namespace, "first", &mut content);
    assert!(first > 1_000, "only {first} puts fit");
    refuses(&store, &namespace, &content);
    holds(&namespace, &content, &[]);
    println!("  {first} puts until the disk was full");

    delete_oldest(&store, &namespace, &mut content, first as usize / 2);
    holds(&namespace, &content, &[]);
    let again = fill(&namespace, "again", &mut content);
    assert!(
        again > first / 3,
        "after half was deleted, only {again} of {first} puts fit"
    );
    holds(&namespace, &content, &[]);

    disk.take(None);
    refuses(&store, &namespace, &content);
    holds(&namespace, &content, &[]);
    disk.give_back();
    let more = fill(&namespace, "more", &mut content);
    assert!(more > 100, "after space was freed, only {more} puts fit");
    holds(&namespace, &content, &[]);

    delete_oldest(&store, &namespace, &mut content, 1_500);
    disk.take(Some(BALLAST_BYTES));
    fill(&namespace, "most", &mut content);
    disk.take(None);
    let closed = store.close();
    if let Err(error) = closed {
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    }
    drop(namespace);
    goes_on_after_opening(disk, mode, content, &[]);
}

/// Opens on a full disk; puts work on that handle once there is space, and everything is there
/// after reopening.
fn goes_on_after_opening(disk: &Disk, mode: Mode, mut content: Content, perhaps: &[String]) {
    let store = disk.open(mode);
    let namespace = store.open_namespace("N").unwrap();
    holds(&namespace, &content, perhaps);
    // Closing may have freed a little space.
    let few = fill(&namespace, "few", &mut content);
    assert!(few < 1_000, "{few} puts fit on a full disk");
    refuses(&store, &namespace, &content);
    holds(&namespace, &content, perhaps);
    disk.give_back();
    for key in perhaps.iter().filter(|key| !content.contains_key(*key)) {
        namespace.delete(key).unwrap();
    }
    for number in 0..100 {
        let (key, value) = (format!("last {number:05}"), value(number));
        put(&namespace, &key, &value, number).unwrap_or_else(|error| panic!("{key}: {error}"));
        content.insert(key, value);
    }
    assert!(!store.stats().disk_full);
    holds(&namespace, &content, &[]);
    delete_oldest(&store, &namespace, &mut content, 1_000);
    holds(&namespace, &content, &[]);
    let report = store.verify().unwrap();
    assert!(report.is_sound(), "verify found: {:#?}", report.damaged);
    store.close().unwrap();
    drop(namespace);
    let store = disk.open(mode);
    assert!(store.recovery_report().clean);
    holds(&store.open_namespace("N").unwrap(), &content, &[]);
    store.close().unwrap();
}

/// Fills the disk and keeps trying until killed; reports each put before it and after it was
/// acknowledged.
fn fill_until_killed(directory: &Path, mode: Mode) {
    let store = options(mode).open(directory).expect("open");
    let namespace = store.namespace("N").expect("a namespace");
    for number in 0.. {
        let key = format!("killed {number:05}");
        report(format_args!("B {number}"));
        match put(&namespace, &key, &value(number), number) {
            Ok(_) => report(format_args!("E {number}")),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                report(format_args!("full"));
            }
        }
    }
}

/// Kills a process while its disk is full, and opens the store before there is space.
fn killed_on_a_full_disk(disk: &Disk, mode: Mode) {
    disk.clear();
    disk.take(Some(BALLAST_BYTES));
    let mut content = Content::new();
    let mut perhaps = Vec::new();
    let survivor;
    let disk = match disk {
        Disk::Simulated(simulated) => {
            let store = disk.open(mode);
            let fitted = fill(&store.namespace("N").unwrap(), "killed", &mut content);
            assert!(fitted > 1_000, "only {fitted} puts fit");
            survivor = Disk::Simulated(simulated.crash_process());
            // A refused put may still have been applied, completely.
            perhaps.extend((0..PUTS_MAX).map(|number| format!("killed {number:05}")));
            &survivor
        }
        Disk::Real { test, .. } => {
            let mut child = Child::spawn(
                test,
                "fill",
                &disk.directory(),
                &[MODES.iter().position(|other| *other == mode).unwrap() as u64],
            );
            let (mut begun, mut full) = (0, 0);
            while let Some(told) = child.next_report() {
                match told.split_once(' ') {
                    Some(("B", number)) => {
                        begun = number.parse().unwrap();
                        perhaps.push(format!("killed {begun:05}"));
                    }
                    Some(_) => {
                        content.insert(format!("killed {begun:05}"), value(begun));
                    }
                    None => full += 1,
                }
                if full == 100 {
                    child.kill();
                }
            }
            assert!(was_killed(child.wait()), "the child failed; see its output above");
            assert!(content.len() > 1_000, "only {} puts fit", content.len());
            disk
        }
    };
    disk.take(None);
    perhaps.retain(|key| !content.contains_key(key));
    goes_on_after_opening(disk, mode, content, &perhaps);
}

fn everything(disk: &Disk) {
    for mode in MODES {
        println!("{mode:?}");
        fill_and_free(disk, mode);
        killed_on_a_full_disk(disk, mode);
    }
}

#[test]
fn a_full_disk_loses_nothing_and_takes_puts_again_simulated() {
    println!("runs on a simulated disk");
    everything(&Disk::Simulated(MemStorage::new()));
}

/// Found on ext4: the hint was created, but not a byte of it fit.
#[test]
fn a_hint_that_does_not_fit_leaves_nothing_that_verify_takes_for_damage() {
    for operation in [Operation::Write, Operation::Sync] {
        let disk = MemStorage::new();
        let faults = FaultStorage::new(Arc::new(disk.clone()));
        let store = test_support::manual(Arc::new(faults.clone())).open("/store").unwrap();
        let namespace = store.namespace("N").unwrap();
        faults.inject(Fault::new(FaultKind::Full).on(operation).path(".hint").repeated());
        for number in 0..10 {
            namespace.put(format!("{number}"), [7; 1_000]).unwrap();
        }
        store.maintain().unwrap();
        let sealed = store.stats().segments.iter().filter(|segment| segment.sealed).count();
        assert!(
            sealed > 1 && faults.struck() >= sealed as u64,
            "{sealed} of {}",
            faults.struck()
        );
        let report = store.verify().unwrap();
        assert!(report.is_sound(), "{operation:?}: {:#?}", report.damaged);
        let hints = disk.files("/store").into_iter();
        let hints = hints.filter(|path| path.extension().is_some_and(|extension| extension == "hint"));
        assert_eq!(hints.count(), 0, "{operation:?}: invalid hints");
        faults.clear();
        store.close().unwrap();
    }
}

const ON_TMPFS: &str = concat!(
    module_path!(),
    "::a_full_disk_loses_nothing_and_takes_puts_again_on_tmpfs"
);

#[test]
fn a_full_disk_loses_nothing_and_takes_puts_again_on_tmpfs() {
    on_a_real_disk(ON_TMPFS, |mount| {
        run(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                "size=16m",
                "embercask",
                &mount.display().to_string(),
            ],
        )
    });
}

const ON_EXT4: &str = concat!(
    module_path!(),
    "::a_full_disk_loses_nothing_and_takes_puts_again_on_ext4"
);

#[test]
fn a_full_disk_loses_nothing_and_takes_puts_again_on_ext4() {
    on_a_real_disk(ON_EXT4, |mount| {
        let image = mount.with_extension("image");
        let made = std::fs::File::create(&image).and_then(|file| file.set_len(16 << 20));
        made.map_err(|error| error.to_string())?;
        let (image, mount) = (image.display().to_string(), mount.display().to_string());
        // No blocks reserved for root.
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &image])?;
        run("mount", &["-o", "loop", &image, &mount])
    });
}

/// Runs a command. On failure, returns its output.
fn run(command: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(command).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{command}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let told = || format!("{command}: {}", said.trim().replace('\n', " "));
    output.status.success().then_some(()).ok_or_else(told)
}

/// Unmounts on drop. If that never happens, the mount ends with its namespace.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = run("umount", &[&self.0.display().to_string()]) {
            println!("{error}");
        }
    }
}

/// Runs everything on a file system that `mount` mounts on a directory, in a process with a private
/// mount namespace.
fn on_a_real_disk(test: &'static str, mount: impl Fn(&Path) -> Result<(), String>) {
    match role() {
        Some(role) if role.name == "fill" => {
            return fill_until_killed(&role.directory, MODES[role.numbers[0] as usize]);
        }
        Some(role) => {
            let root = role.directory.join("mount");
            std::fs::create_dir(&root).expect("a directory");
            if let Err(error) = mount(&root) {
                test_support::skip(test, &error);
                return report(format_args!("skipped"));
            }
            let _mounted = Mounted(root.clone());
            everything(&Disk::Real { root, test });
            return report(format_args!("ran"));
        }
        None => {}
    }
    let ways: [&[&str]; 2] = [&["unshare", "-m"], &["unshare", "-Urm"]];
    let works = |way: &&&[&str]| run(way[0], &[&way[1..], &["true"]].concat()).is_ok();
    let Some(way) = ways.iter().find(works) else {
        return test_support::skip(test, "this process may not create a mount namespace");
    };
    let directory = tempfile::tempdir().unwrap();
    let mut child = Child::spawn_under(way, test, "mounted", directory.path(), &[]);
    let mut last = None;
    while let Some(told) = child.next_report() {
        last = Some(told);
    }
    let status = child.wait();
    assert!(
        status.success(),
        "the process on that disk failed ({status}); see its output above"
    );
    println!("{test}: {}", last.expect("a report of what it did"));
}
