use std::io;

use super::*;
use crate::ErrorKind;
use crate::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};

/// A disk with a left-over of an interrupted attempt that holds these files.
fn left_over(names: &[&str]) -> MemStorage {
    let disk = MemStorage::new();
    disk.create_directory("/copy.partial").unwrap();
    for name in names {
        disk.write_file(Path::new("/copy.partial").join(name), b"old").unwrap();
    }
    disk
}

fn begin(storage: impl Storage + 'static) -> Result<Staging> {
    Staging::begin(Arc::new(storage), Path::new("/copy"))
}

fn names(disk: &MemStorage, directory: &str) -> Vec<String> {
    list(disk, Path::new(directory)).unwrap().unwrap()
}

/// Publishes a directory with a file in it.
fn publish(staging: Staging) -> Result<()> {
    drop(staging.directory().create(MANIFEST_FILE).unwrap());
    staging.directory().sync().unwrap();
    staging.publish()
}

#[test]
fn the_left_over_of_an_interrupted_attempt_is_removed() {
    let unfinished = [UNFINISHED_FILE, MANIFEST_FILE, LOCK_FILE, "0000000000000001.segment"];
    for count in 0..=unfinished.len() {
        let disk = left_over(&unfinished[..count]);
        let staging = begin(disk.clone()).unwrap();
        assert_eq!(names(&disk, "/copy.partial"), [UNFINISHED_FILE]);
        publish(staging).unwrap();
        assert_eq!(names(&disk, "/copy"), [MANIFEST_FILE]);
        assert!(!disk.exists("/copy.partial").unwrap());
    }
}

#[test]
fn what_an_attempt_does_not_own_is_left_alone() {
    let refused: [&[&str]; 3] = [
        &[UNFINISHED_FILE, "notes.txt"],
        &[MANIFEST_FILE],
        &[MANIFEST_FILE, LOCK_FILE, "0000000000000001.segment"],
    ];
    for files in refused {
        let disk = left_over(files);
        let error = begin(disk.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert_eq!(names(&disk, "/copy.partial").len(), files.len());
    }
    let disk = left_over(&[UNFINISHED_FILE, MANIFEST_FILE, LOCK_FILE]);
    let held = disk
        .lock(Path::new("/copy.partial").join(LOCK_FILE), "someone")
        .unwrap();
    assert_eq!(begin(disk.clone()).unwrap_err().kind(), ErrorKind::InUse);
    assert_eq!(names(&disk, "/copy.partial").len(), 3);
    drop(held);
    let faults = FaultStorage::new(Arc::new(disk));
    faults.inject(Fault::new(FaultKind::Error(io::ErrorKind::Other)).on(Operation::Lock));
    assert_eq!(begin(faults.clone()).unwrap_err().kind(), ErrorKind::Io);
    begin(faults).unwrap();
}

#[test]
fn a_directory_that_is_not_published_is_removed() {
    let disk = MemStorage::new();
    drop(begin(disk.clone()).unwrap());
    assert!(!disk.exists("/copy.partial").unwrap() && !disk.exists("/copy").unwrap());
}

#[test]
fn an_empty_target_is_replaced_also_where_a_rename_does_not_replace_it() {
    for refuses in [false, true] {
        let disk = MemStorage::new();
        disk.create_directory("/copy").unwrap();
        let faults = FaultStorage::new(Arc::new(disk.clone()));
        let staging = begin(faults.clone()).unwrap();
        if refuses {
            let refusal = FaultKind::Error(io::ErrorKind::DirectoryNotEmpty);
            faults.inject(Fault::new(refusal).on(Operation::Rename));
        }
        publish(staging).unwrap();
        assert_eq!(faults.struck(), u64::from(refuses));
        assert_eq!(names(&disk, "/copy"), [MANIFEST_FILE]);
    }
}
