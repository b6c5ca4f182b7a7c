//! A failed opening: it gives the reason, leaves no debris, and succeeds as soon as the disk works.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use embercask::storage::{CutPolicy, Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{Durability, Error, ErrorKind, ReadMode};

use crate::faults::{FAILED, holds, junk, on_segments};
use test_support::{DIRECTORY, at_least, class, manual, open, text};

/// How a store was left, its disk, and its content.
type Found = (&'static str, MemStorage, BTreeMap<String, Vec<u8>>);

/// Stores to open: one closed, and one killed with several unsealed segments.
fn found() -> [Found; 2] {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    let mut content = BTreeMap::new();
    for n in 0..60 {
        let (key, value) = (format!("{:02}", n % 25), vec![n as u8; 200]);
        let durability = if n < 40 { Durability::Sync } else { Durability::Buffered };
        namespace.put_with(&key, &value, class(durability)).unwrap();
        content.insert(key, value);
    }
    store.flush().unwrap();
    let killed = disk.crash_process();
    store.close().unwrap();
    [("closed", disk, content.clone()), ("killed", killed, content)]
}

/// B9 and B31: whatever call fails while opening, the result is the whole content or an error of
/// the right kind, and the next opening finds everything and no debris.
#[test]
fn opening_fails_cleanly_at_every_step_and_then_works() {
    for (name, found, content) in found() {
        for read_mode in [ReadMode::Map, ReadMode::Pread] {
            for fault in [
                FAILED,
                FaultKind::Full,
                FaultKind::Error(io::ErrorKind::PermissionDenied),
            ] {
                let mut failures = 0;
                for step in 0.. {
                    let disk = found.crash_process();
                    let faults = FaultStorage::new(Arc::new(disk.clone()));
                    faults.inject(Fault::new(fault).at(step));
                    let options = || manual(Arc::new(faults.clone())).read_mode(read_mode);
                    let context = format!("{name}, {read_mode:?}, {fault:?} at step {step}");
                    let opened = options().open(DIRECTORY);
                    let done = faults.steps() <= step;
                    faults.clear();
                    match opened {
                        Ok(store) => holds(&store.open_namespace("N").unwrap(), &content),
                        Err(error) => {
                            failures += 1;
                            assert_eq!(error.kind(), told_as(fault), "{context}: {error}");
                        }
                    }
                    let store = options()
                        .open(DIRECTORY)
                        .unwrap_or_else(|error| panic!("{context}: {error}"));
                    let namespace = store.open_namespace("N").unwrap();
                    holds(&namespace, &content);
                    assert!(junk(&disk, &store).is_empty(), "{context}: {:?}", junk(&disk, &store));
                    namespace.put("new", "1").unwrap();
                    let cut = open(&disk.power_cut(&CutPolicy::LoseUnsynced));
                    assert_eq!(
                        cut.open_namespace("N").unwrap().count().unwrap(),
                        content.len() as u64 + 1,
                        "{context}"
                    );
                    if done {
                        break;
                    }
                }
                // A full disk never prevents opening.
                let least = if fault == FaultKind::Full { 0 } else { 8 };
                at_least(least, failures, &format!("openings that failed, {name}, {fault:?}"));
            }
        }
    }
}

/// The error kind that opening returns for this fault.
fn told_as(fault: FaultKind) -> ErrorKind {
    match fault {
        FaultKind::Full => ErrorKind::NoSpace,
        _ => ErrorKind::Io,
    }
}

#[test]
fn creating_fails_cleanly_at_every_step_and_then_works() {
    for (fault, least) in [(FAILED, 8), (FaultKind::Full, 3), (FaultKind::FailedSync, 3)] {
        let mut failures = 0;
        for step in 0.. {
            let disk = MemStorage::new();
            let faults = FaultStorage::new(Arc::new(disk.clone()));
            faults.inject(Fault::new(fault).at(step));
            let first = manual(Arc::new(faults.clone())).open("/a/b/store");
            if let Err(error) = &first {
                failures += 1;
                assert_eq!(error.kind(), told_as(fault), "{fault:?} at step {step}: {error}");
            }
            drop(first);
            let done = faults.steps() <= step;
            faults.clear();
            let store = manual(Arc::new(faults)).open("/a/b/store").unwrap();
            store.namespace("N").unwrap().put("key", "1").unwrap();
            let cut = disk.power_cut(&CutPolicy::LoseUnsynced);
            let store = manual(Arc::new(cut)).open("/a/b/store").unwrap();
            assert_eq!(
                text(&store.open_namespace("N").unwrap(), "key").as_deref(),
                Some("1"),
                "step {step}"
            );
            if done {
                break;
            }
        }
        at_least(least, failures, &format!("creations that failed, {fault:?}"));
    }
}

/// B9: a failing read is not the end of the log.
#[test]
fn a_read_error_while_recovering_is_an_io_error_and_not_a_lost_tail() {
    for (name, found, content) in found() {
        for (read_mode, operation) in [
            (ReadMode::Pread, Operation::Read),
            (ReadMode::Map, Operation::Map),
            (ReadMode::Map, Operation::OpenRead),
        ] {
            let faults = FaultStorage::new(Arc::new(found.crash_process()));
            faults.inject(on_segments(FAILED, operation).repeated());
            let options = || manual(Arc::new(faults.clone())).read_mode(read_mode);
            let error = options().open(DIRECTORY).unwrap_err();
            assert!(matches!(error, Error::Io { .. }), "{name}: {error:?}");
            assert!(
                error.to_string().contains(".segment"),
                "the error does not name the file: {error}"
            );
            faults.clear();
            holds(
                &options().open(DIRECTORY).unwrap().open_namespace("N").unwrap(),
                &content,
            );
        }
    }
}
