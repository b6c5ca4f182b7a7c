//! Directories that are not stores, or are incomplete.

use std::io;
use std::path::Path;
use std::sync::Arc;

use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{Error, ErrorKind, Store};

use crate::bad_input::{contents, refused};
use test_support::{DIRECTORY, ending, file_names, manual, open, text};

/// Asserts that a real directory is refused and unchanged.
#[track_caller]
fn not_a_store(directory: &Path, says: &[&str]) {
    let before = file_names(directory);
    let error = refused(Store::open(directory), ErrorKind::NotAStore, says);
    assert!(
        error.to_string().ends_with(&directory.display().to_string()),
        "the error does not end with the path: {error}"
    );
    assert_eq!(file_names(directory), before, "the directory changed");
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
fn what_the_system_puts_into_a_directory_makes_it_nobody_elses() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    std::fs::create_dir(directory.join("lost+found")).unwrap();
    std::fs::write(directory.join("lost+found/#17"), "precious").unwrap();
    let files = [".DS_Store", "._MANIFEST", ".Trashes", ".fseventsd"];
    for name in files {
        std::fs::write(directory.join(name), "precious").unwrap();
    }
    for _ in 0..2 {
        let store = Store::open(directory).unwrap();
        store.namespace("N").unwrap().put("key", "1").unwrap();
        store.compact().unwrap();
        store.close().unwrap();
        for name in files.into_iter().chain(["lost+found/#17"]) {
            assert_eq!(std::fs::read(directory.join(name)).unwrap(), b"precious", "{name}");
        }
    }
    // Beside them, a file of somebody else still counts.
    let other = tempfile::tempdir().unwrap();
    std::fs::create_dir(other.path().join("lost+found")).unwrap();
    std::fs::write(other.path().join("thesis.tex"), "precious").unwrap();
    not_a_store(other.path(), &["other files", "thesis.tex"]);
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
    refused(
        Store::open(file.join("below")),
        ErrorKind::NotAStore,
        &["this is a file", "name a directory", "below"],
    );
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

#[test]
fn a_missing_segment_is_damage_and_named() {
    let disk = closed_store();
    let segment = ending(&disk, ".segment").remove(0);
    let (bytes, named) = (disk.read_file(&segment).unwrap(), segment.display().to_string());
    disk.remove_file(&segment).unwrap();
    let before = contents(&disk);
    let opened = manual(Arc::new(disk.clone())).open(DIRECTORY);
    refused(
        opened,
        ErrorKind::Corruption,
        &["missing", "manifest", &named, "at offset 0", "salvage"],
    );
    assert_eq!(contents(&disk), before, "the files changed");
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
    assert_eq!(contents(&disk), before, "the files changed");
    disk.write_file(&manifest, &bytes).unwrap();
    assert_eq!(
        text(&open(&disk).open_namespace("N").unwrap(), "key").as_deref(),
        Some("value")
    );
}

#[test]
fn a_newer_format_is_left_to_a_newer_program() {
    let disk = closed_store();
    let mut files = ending(&disk, ".segment");
    files.extend(ending(&disk, "MANIFEST"));
    for path in files {
        let bytes = disk.read_file(&path).unwrap();
        // A manifest of version 2 names a ring.
        let newest = if path.ends_with("MANIFEST") { 2 } else { 1 };
        for version in [newest + 1, u32::MAX] {
            let mut newer = bytes.clone();
            newer[8..12].copy_from_slice(&version.to_le_bytes());
            // Checksummed as that version would do; with our checksum, the field would be damaged.
            let covered = if path.ends_with("MANIFEST") {
                newer.len() - 4
            } else {
                60
            };
            let crc = crc32fast::hash(&newer[..covered]);
            newer[covered..][..4].copy_from_slice(&crc.to_le_bytes());
            disk.write_file(&path, &newer).unwrap();
            let before = contents(&disk);
            let opened = manual(Arc::new(disk.clone())).open(DIRECTORY);
            let (version, named) = (format!("version {version}"), path.display().to_string());
            let error = refused(opened, ErrorKind::NotAStore, &[&version, "newer embercask", &named]);
            assert!(matches!(error, Error::NewerFormat { .. }), "{error:?}");
            assert_eq!(contents(&disk), before, "the files changed");
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
        (Operation::OpenDirectory, "", "open"),
        (Operation::List, "", "list"),
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
    // A new store in a place without write permission.
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
