//! A store is a directory, not a path, and belongs to the process that opened it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use embercask::{Durability, Error, ErrorKind, Maintenance, Namespace, Options, ReadMode, Store};
use tempfile::TempDir;

use test_support::process::{Child, Role, copy_directory, report, role};
use test_support::{class, file_names, text, until};

const WANDER: &str = concat!(
    module_path!(),
    "::a_process_that_changes_its_directory_goes_on_in_its_own_store"
);
const FORK: &str = concat!(
    module_path!(),
    "::a_forked_child_is_refused_and_leaves_its_parents_lock_alone"
);
const STARVE: &str = concat!(
    module_path!(),
    "::without_descriptors_a_call_fails_and_the_store_goes_on_once_there_are_some"
);
const FEW: &str = concat!(
    module_path!(),
    "::a_store_of_many_segments_is_read_call_by_call_with_few_descriptors"
);

fn small() -> Options {
    Store::options().segment_bytes(4096).maintenance(Maintenance::Manual)
}

/// Every file of a store except the lock, with its content.
fn content(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = file_names(directory).into_iter().filter(|name| name != "LOCK");
    names
        .map(|name| {
            let bytes = std::fs::read(directory.join(&name)).unwrap();
            (name, bytes)
        })
        .collect()
}

/// Writes, rotates, compacts and maintains; returns the keys that must exist.
fn work(store: &Store, namespace: &Namespace, round: usize) -> Vec<String> {
    let keys: Vec<_> = (0..20).map(|n| format!("{round}/{n}")).collect();
    for key in &keys {
        namespace.put(key, [b'x'; 700]).unwrap();
        namespace.put("again", [b'y'; 500]).unwrap();
    }
    store.compact().unwrap();
    store.maintain().unwrap();
    keys
}

/// A closed store named `data` with one key.
fn closed_store(parent: &Path, key: &str) -> PathBuf {
    let directory = parent.join("data");
    let store = small().open(&directory).unwrap();
    store.namespace("N").unwrap().put(key, "kept").unwrap();
    store.close().unwrap();
    directory
}

/// Opens `data` in the current directory, changes to another one, works if told to, and closes.
fn wander(role: &Role) {
    std::env::set_current_dir(role.directory.join("here")).unwrap();
    let store = small().open("data").unwrap();
    let namespace = store.namespace("N").unwrap();
    std::env::set_current_dir(role.directory.join("there")).unwrap();
    if role.numbers[0] == 1 {
        work(&store, &namespace, 0);
        store.checkpoint("copy").unwrap();
        assert!(store.verify().unwrap().is_sound());
    }
    store.close().unwrap();
    report(format_args!("closed"));
}

/// C1. A relative path means another directory once the process has changed its working directory.
#[test]
fn a_process_that_changes_its_directory_goes_on_in_its_own_store() {
    if let Some(role) = role() {
        return wander(&role);
    }
    for works in [0, 1] {
        let root = tempfile::tempdir().unwrap();
        let [here, there] = ["here", "there"].map(|name| {
            let parent = root.path().join(name);
            std::fs::create_dir(&parent).unwrap();
            closed_store(&parent, name)
        });
        let before = content(&there);
        let mut child = Child::spawn(WANDER, "wander", root.path(), &[works]);
        assert_eq!(child.next_report().as_deref(), Some("closed"));
        assert!(child.wait().success());
        assert!(content(&there) == before, "another store was touched");
        let store = small().open(&here).unwrap();
        let namespace = store.open_namespace("N").unwrap();
        assert_eq!(text(&namespace, "here").as_deref(), Some("kept"));
        assert_eq!(namespace.count().unwrap(), 1 + 21 * works);
        assert_eq!(root.path().join("there/copy").exists(), works == 1);
        let other = small().open(&there).unwrap();
        assert_eq!(
            text(&other.open_namespace("N").unwrap(), "there").as_deref(),
            Some("kept")
        );
    }
}

/// C1. The handle follows its directory; a copy in its place is another store.
#[test]
fn a_store_whose_directory_is_renamed_goes_on_there_and_leaves_alone_what_takes_its_place() {
    for read_mode in [ReadMode::Map, ReadMode::Pread] {
        let root = tempfile::tempdir().unwrap();
        let directory = closed_store(root.path(), "key");
        let store = small().read_mode(read_mode).open(&directory).unwrap();
        let namespace = store.open_namespace("N").unwrap();
        namespace.put("before", "1").unwrap();
        let moved = root.path().join("moved");
        std::fs::rename(&directory, &moved).unwrap();
        copy_directory(&moved, &directory);
        let other = small().open(&directory).unwrap();
        other.open_namespace("N").unwrap().put("other's", "1").unwrap();
        let before = content(&directory);
        let keys = work(&store, &namespace, 1);
        assert!(content(&directory) == before, "the other store was touched");
        assert!(store.verify().unwrap().is_sound());
        store.close().unwrap();
        other.close().unwrap();
        let store = small().open(&moved).unwrap();
        assert!(store.recovery_report().index_file_used);
        let namespace = store.open_namespace("N").unwrap();
        for key in keys.iter().map(String::as_str).chain(["key", "before"]) {
            assert!(namespace.contains(key).unwrap(), "{key}");
        }
        assert!(!namespace.contains("other's").unwrap());
        let other = small().open(&directory).unwrap();
        assert!(other.open_namespace("N").unwrap().contains("other's").unwrap());
    }
}

/// C1. Writes to a removed directory are lost, so they are not acknowledged.
#[test]
fn in_a_directory_that_was_removed_nothing_is_acknowledged() {
    for durability in [Durability::Sync, Durability::Os] {
        let (_root, directory, store, namespace) = opened(Maintenance::Manual);
        namespace.put_with("before", "1", class(durability)).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        let refused = namespace.put_with("after", "1", class(durability)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Io, "{durability:?}: {refused}");
        let refused = namespace.delete_with("before", None, Some(durability)).unwrap_err();
        assert!(lost(&refused), "{durability:?}: {refused}");
        assert!(lost(&store.close().unwrap_err()));
        assert!(!directory.exists());
    }
    let (_root, directory, store, namespace) = opened(Maintenance::Manual);
    std::fs::remove_dir_all(&directory).unwrap();
    namespace.put_with("after", "1", class(Durability::Buffered)).unwrap();
    for refused in [store.flush(), store.sync(), store.close()] {
        let refused = refused.unwrap_err();
        assert!(lost(&refused), "{refused}");
    }
}

/// Whether this is an error of a store whose files are missing.
fn lost(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::Poisoned)
}

/// C1. Without its lock file a store is open to other processes: nothing is acknowledged while they
/// might write.
#[test]
#[cfg(unix)]
fn a_store_whose_lock_was_removed_acknowledges_nothing_any_more() {
    let (_root, directory, store, namespace) = opened(Maintenance::Manual);
    namespace.put("before", "1").unwrap();
    std::fs::remove_file(directory.join("LOCK")).unwrap();
    let beside = small().open(&directory).unwrap();
    assert_eq!(namespace.put("lost", "1").unwrap_err().kind(), ErrorKind::Io);
    assert!(lost(&store.close().unwrap_err()));
    let other = beside.open_namespace("N").unwrap();
    assert_eq!(text(&other, "before").as_deref(), Some("1"));
    other.put("other's", "1").unwrap();
    beside.close().unwrap();
    let store = small().open(&directory).unwrap();
    assert!(store.open_namespace("N").unwrap().contains("other's").unwrap());
}

/// C1. Without any write, the flush thread detects it.
#[test]
fn the_removal_of_the_directory_is_noticed_within_a_flush_interval() {
    let (_root, directory, store, namespace) = opened(Maintenance::Background);
    namespace.put_with("before", "1", class(Durability::Os)).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    until("the removal is noticed", || store.stats().poisoned.is_some());
    let refused = namespace.put_with("after", "1", class(Durability::Buffered));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(text(&namespace, "before").as_deref(), Some("1"), "reads still work");
}

fn opened(maintenance: Maintenance) -> (TempDir, PathBuf, Store, Namespace) {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("data");
    let store = small().maintenance(maintenance).open(&directory).unwrap();
    let namespace = store.namespace("N").unwrap();
    (root, directory, store, namespace)
}

/// C1. The manifest is replaced by that of another store, or removed: later files would be written
/// for another store.
#[test]
fn nothing_is_written_into_a_directory_whose_manifest_is_anothers() {
    for removed in [false, true] {
        let (root, directory, store, namespace) = opened(Maintenance::Manual);
        let stranger = closed_store(&root.path().join("stranger"), "key");
        let manifest = directory.join("MANIFEST");
        if removed {
            std::fs::remove_file(&manifest).unwrap();
        } else {
            std::fs::copy(stranger.join("MANIFEST"), &manifest).unwrap();
        }
        let before = (std::fs::read(&manifest).ok(), file_names(&directory));
        // Writes go on until the segment is full; then a new one would have to be listed.
        let refused = (0..100).find_map(|n| namespace.put(format!("{n}"), [b'x'; 500]).err());
        assert_eq!(refused.unwrap().kind(), ErrorKind::Corruption);
        assert_eq!(namespace.put("after", "1").unwrap_err().kind(), ErrorKind::Poisoned);
        assert_eq!(store.close().unwrap_err().kind(), ErrorKind::Poisoned);
        let after = (std::fs::read(&manifest).ok(), file_names(&directory));
        assert!(after == before, "{:?} became {:?}", before.1, after.1);
    }
}

/// As above, but without any write: closing has only the index file to write.
#[test]
fn no_index_file_is_written_beside_a_manifest_that_is_anothers() {
    let root = tempfile::tempdir().unwrap();
    let directory = closed_store(root.path(), "key");
    std::fs::remove_file(directory.join("INDEX")).unwrap();
    let store = small().open(&directory).unwrap();
    let stranger = closed_store(&root.path().join("stranger"), "key");
    std::fs::copy(stranger.join("MANIFEST"), directory.join("MANIFEST")).unwrap();
    // Only the index file was to be written, and it is optional.
    store.close().unwrap();
    assert!(!directory.join("INDEX").exists());
}

/// C12. A volume that is not mounted is no reason to create a new store over the old one.
#[test]
#[cfg(unix)]
fn a_manifest_that_is_listed_and_cannot_be_found_is_an_error_and_nothing_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let directory = closed_store(root.path(), "key");
    let (manifest, elsewhere) = (directory.join("MANIFEST"), root.path().join("volume"));
    std::fs::rename(&manifest, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &manifest).unwrap();
    let away = root.path().join("unmounted");
    std::fs::rename(&elsewhere, &away).unwrap();
    let before = file_names(&directory);
    for create in [true, false] {
        let error = small().create(create).open(&directory).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.to_string().contains("MANIFEST"), "{error}");
        assert_eq!(file_names(&directory), before);
    }
    let verified = embercask::verify(&directory, &small()).unwrap();
    assert!(!verified.is_sound());
    std::fs::rename(&away, &elsewhere).unwrap();
    let store = small().open(&directory).unwrap();
    assert_eq!(
        text(&store.open_namespace("N").unwrap(), "key").as_deref(),
        Some("kept")
    );
    // The directory itself may be such a link.
    let link = root.path().join("link");
    std::os::unix::fs::symlink(root.path().join("nowhere"), &link).unwrap();
    for create in [true, false] {
        assert_eq!(small().create(create).open(&link).unwrap_err().kind(), ErrorKind::Io);
    }
    assert!(!root.path().join("nowhere").exists());
}

/// C12. What a lost manifest leaves is not an empty directory.
#[test]
fn the_rest_of_a_store_without_a_manifest_is_refused_and_a_creation_cut_short_is_begun_again() {
    for rest in ["INDEX", "RESERVE"] {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join(rest), "rest").unwrap();
        let error = small().open(root.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotAStore, "{rest}");
        assert!(error.to_string().contains(rest), "{error}");
        assert_eq!(file_names(root.path()), [rest]);
    }
    for cut_short in [&["LOCK"][..], &["LOCK", "MANIFEST.tmp"]] {
        let root = tempfile::tempdir().unwrap();
        for name in cut_short {
            std::fs::write(root.path().join(name), "half").unwrap();
        }
        assert!(small().open(root.path()).unwrap().recovery_report().created);
    }
}

#[cfg(unix)]
unsafe extern "C" {
    safe fn fork() -> i32;
    safe fn _exit(status: i32) -> !;
}

/// Forks with a store open, lets the child try every call, and continues.
#[cfg(unix)]
fn fork_with_a_store(role: &Role) {
    let maintenance = [Maintenance::Manual, Maintenance::Background][role.numbers[0] as usize];
    let directory = role.directory.join("data");
    let store = small().maintenance(maintenance).open(&directory).unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "value").unwrap();
    let child = fork();
    if child == 0 {
        let forked = |error: Error| matches!(error, Error::Forked);
        let refused = [
            namespace.get("key").is_err_and(forked),
            namespace.contains("key").is_err_and(forked),
            namespace.get_many(&["key"]).is_err_and(forked),
            namespace.put("key", "child's").is_err_and(forked),
            namespace.delete("key").is_err_and(forked),
            namespace.list().page().is_err_and(forked),
            namespace.count().is_err_and(forked),
            store.batch().put(&namespace, "a", "1").commit().is_err_and(forked),
            store.namespace("N").is_err_and(forked),
            store.namespace("M").is_err_and(forked),
            store.rename_namespace("N", "M").is_err_and(forked),
            store.drop_namespace("N").is_err_and(forked),
            store.namespaces().is_err_and(forked),
            store.flush().is_err_and(forked),
            store.sync().is_err_and(forked),
            store.maintain().is_err_and(forked),
            store.compact().is_err_and(forked),
            store.compact_if_worthwhile().is_err_and(forked),
            store.checkpoint(role.directory.join("copy")).is_err_and(forked),
            store.verify().is_err_and(forked),
            store.stats().poisoned.is_some(),
            store.clone().close().is_err_and(forked),
        ];
        let first_wrong = refused.iter().position(|refused| !refused);
        drop((store, namespace));
        _exit(first_wrong.map_or(0, |index| index as i32 + 1));
    }
    assert!(child > 0);
    report(format_args!("forked {child}"));
    // The standard library only waits for children it started; the kernel shows when this one has
    // ended.
    let status = PathBuf::from(format!("/proc/{child}/stat"));
    let mut exit = None;
    until("the child ends", || {
        let stat = std::fs::read_to_string(&status).unwrap();
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        exit = (fields[0] == "Z").then(|| fields[49].trim().to_owned());
        exit.is_some()
    });
    assert_eq!(
        exit.as_deref(),
        Some("0"),
        "the child's wait status: 256 times the number of the call that was not refused"
    );
    assert_eq!(small().open(&directory).unwrap_err().kind(), ErrorKind::InUse);
    namespace.put("key", "parent's").unwrap();
    assert_eq!(text(&namespace, "key").as_deref(), Some("parent's"));
    drop(namespace);
    store.close().unwrap();
    small().open(&directory).unwrap();
    report(format_args!("done"));
}

/// A forked child has a copy of everything, and shares the lock and the files with its parent.
#[test]
#[cfg(target_os = "linux")]
fn a_forked_child_is_refused_and_leaves_its_parents_lock_alone() {
    if let Some(role) = role() {
        return fork_with_a_store(&role);
    }
    for maintenance in [0, 1] {
        let root = tempfile::tempdir().unwrap();
        let mut child = Child::spawn(FORK, "fork", root.path(), &[maintenance]);
        let reports: Vec<_> = std::iter::from_fn(|| child.next_report()).collect();
        assert!(child.wait().success());
        assert_eq!(reports.last().map(String::as_str), Some("done"), "{reports:?}");
    }
}

/// Uses up all but a few descriptors, and writes across rotations.
#[cfg(unix)]
fn starve(role: &Role) {
    for (spare, read_mode) in (0..8).flat_map(|spare| [(spare, ReadMode::Map), (spare, ReadMode::Pread)]) {
        let directory = role.directory.join(format!("{spare}{read_mode:?}"));
        let options = small().read_mode(read_mode);
        let store = options.clone().open(&directory).unwrap();
        let namespace = store.namespace("N").unwrap();
        let mut acknowledged = Vec::new();
        let mut write = |label: &str, count: usize| {
            let mut failed = 0;
            for n in 0..count {
                let key = format!("{label}/{n}");
                match namespace.put(&key, [b'x'; 700]) {
                    Ok(_) => acknowledged.push(key),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Io, "{spare} to spare: {error}");
                        failed += 1;
                    }
                }
            }
            failed
        };
        assert_eq!(write("before", 7), 0);
        let mut taken: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
        taken.truncate(taken.len() - spare);
        let failed = write("without", 30);
        for result in [store.compact().map(drop), store.maintain()] {
            assert!(
                result.is_ok() || kind(&result) == Some(ErrorKind::Io),
                "{spare} to spare: {result:?}"
            );
        }
        report(format_args!("{spare}: {failed} failed"));
        drop(taken);
        assert_eq!(
            write("after", 30),
            0,
            "{spare} to spare: writes work once there are descriptors"
        );
        assert!(store.stats().poisoned.is_none());
        store.compact().unwrap();
        store.close().unwrap();
        let store = options.open(&directory).unwrap();
        let namespace = store.open_namespace("N").unwrap();
        for key in &acknowledged {
            assert!(namespace.contains(key).unwrap(), "{spare} to spare: {key} is lost");
        }
        if spare == 0 {
            assert!(failed > 0, "a rotation without any descriptor");
        }
    }
    report(format_args!("done"));
}

#[cfg(unix)]
fn kind(result: &embercask::Result<()>) -> Option<ErrorKind> {
    result.as_ref().err().map(Error::kind)
}

fn with_descriptors(count: u32, test: &str, role: &str, directory: &Path) -> Child {
    let limit = format!("ulimit -n {count} && exec \"$@\"");
    Child::spawn_under(&["sh", "-c", &limit, "sh"], test, role, directory, &[])
}

/// C2.
#[test]
#[cfg(unix)]
fn without_descriptors_a_call_fails_and_the_store_goes_on_once_there_are_some() {
    if let Some(role) = role() {
        return starve(&role);
    }
    let root = tempfile::tempdir().unwrap();
    let mut child = with_descriptors(64, STARVE, "starve", root.path());
    let reports: Vec<_> = std::iter::from_fn(|| child.next_report()).collect();
    assert!(child.wait().success());
    assert_eq!(reports.last().map(String::as_str), Some("done"), "{reports:?}");
}

#[cfg(unix)]
fn read_with_few(role: &Role) {
    let options = small().read_mode(ReadMode::Pread).index_file(false);
    let store = options.open(&role.directory).unwrap();
    let namespace = store.open_namespace("N").unwrap();
    for round in 0..2 {
        for n in 0..1_500 {
            let value = namespace.get(format!("{n:05}")).unwrap().unwrap();
            assert_eq!(value, format!("{n:05}").repeat(100), "round {round}");
        }
    }
    assert_eq!(namespace.list().with_values().into_iter().flatten().count(), 1_500);
    for n in 0..300 {
        namespace.delete(format!("{:05}", n * 3)).unwrap();
    }
    store.compact().unwrap();
    assert_eq!(namespace.count().unwrap(), 1_200);
    assert!(store.verify().unwrap().is_sound());
    store.close().unwrap();
    report(format_args!("done"));
}

/// C2. In pread mode each segment used to have its own descriptor.
#[test]
#[cfg(unix)]
fn a_store_of_many_segments_is_read_call_by_call_with_few_descriptors() {
    if let Some(role) = role() {
        return read_with_few(&role);
    }
    let root = tempfile::tempdir().unwrap();
    let store = small().open(root.path()).unwrap();
    let namespace = store.namespace("N").unwrap();
    for n in 0..1_500 {
        let key = format!("{n:05}");
        namespace
            .put_with(&key, key.repeat(100), class(Durability::Os))
            .unwrap();
    }
    let segments = store.stats().segments.len();
    assert!(segments > 150, "{segments}");
    drop(namespace);
    store.close().unwrap();
    let mut child = with_descriptors(128, FEW, "few", root.path());
    let reports: Vec<_> = std::iter::from_fn(|| child.next_report()).collect();
    assert!(child.wait().success());
    assert_eq!(reports, ["done"]);
}
