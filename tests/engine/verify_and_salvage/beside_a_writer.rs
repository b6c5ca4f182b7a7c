//! Verifying a directory that a process has open and writes to: nothing that it does is damage, and
//! damage is found all the same.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use embercask::storage::{CutPolicy, MemStorage};
use embercask::{Durability, Options, Store, VerifyReport, verify};

use crate::read_only::steps::{Writer, between_calls};
use crate::verify_and_salvage::options;
use test_support::{DIRECTORY, StopOnDrop, at_least, class, ending, manual, open, rng, written};

#[track_caller]
fn verified(options: &Options, context: &str) -> VerifyReport {
    verify(DIRECTORY, options).unwrap_or_else(|error| panic!("{context}: {error}"))
}

/// A batch, some of them with a compaction, or all of that several times.
#[test]
fn whatever_a_writer_does_between_any_two_calls_is_no_damage() {
    let mut segments_replaced = 0;
    for steps in [1, 7] {
        for at in 0.. {
            let disk = MemStorage::new();
            let writer = Arc::new(Writer::new(&disk));
            let before = ending(&disk, ".segment");
            let stepping = writer.clone();
            let (between, storage) = between_calls(&disk, move |call, _| {
                if call == at {
                    (0..steps).for_each(|_| stepping.step());
                }
            });
            let context = format!("{steps} steps before call {at}");
            let report = verified(&manual(storage), &context);
            assert!(report.is_sound(), "{context}: {:?}", report.damaged);
            assert_eq!(report.discarded, [], "{context}");
            assert_eq!(*between.mutating.lock().unwrap(), [], "{context}");
            let after = ending(&disk, ".segment");
            segments_replaced += u64::from(before.iter().any(|path| !after.contains(path)));
            let calls = between.calls.load(Ordering::Acquire);
            if at > calls {
                assert!(calls > 10, "{calls}");
                break;
            }
        }
    }
    at_least(10, segments_replaced, "places at which segments were compacted away");
}

#[test]
fn a_writer_that_is_busy_all_the_time_is_waited_out() {
    let disk = MemStorage::new();
    let writer = Arc::new(Writer::new(&disk));
    let stepping = writer.clone();
    let (_, storage) = between_calls(&disk, move |call, _| {
        if call < 300 {
            stepping.step();
        }
    });
    let report = verified(&manual(storage), "busy");
    assert!(report.is_sound(), "{:?}", report.damaged);
}

/// Recovery copies what is not known to be durable, cuts segments and shortens their files.
#[test]
fn a_recovery_between_any_two_calls_is_no_damage() {
    let prepared = MemStorage::new();
    let store = open(&prepared);
    let namespace = store.namespace("N").unwrap();
    for n in 0..3 {
        namespace
            .put_with(format!("{n}"), "value", class(Durability::Sync))
            .unwrap();
    }
    namespace
        .put_with("written", "v".repeat(1000), class(Durability::Os))
        .unwrap();
    let torn = prepared.crash_process();
    let last = ending(&torn, ".segment").pop().unwrap();
    let whole = written(&torn, &last);
    torn.write_file(&last, &whole[..whole.len() - 100]).unwrap();
    for (prepared, cuts) in [(prepared.crash_process(), false), (torn, true)] {
        for at in 0.. {
            let disk = prepared.crash_process();
            let recovering = disk.clone();
            let held = Arc::new(std::sync::Mutex::new(None));
            let holding = held.clone();
            let (between, storage) = between_calls(&disk, move |call, _| {
                if call == at {
                    *holding.lock().unwrap() = Some(open(&recovering));
                }
            });
            let context = format!("call {at}, torn: {cuts}");
            let report = verified(&manual(storage), &context);
            assert!(report.is_sound(), "{context}: {:?}", report.damaged);
            let is_over = at >= between.calls.load(Ordering::Acquire);
            // A torn end is told of as long as nobody has opened the store.
            assert_eq!(
                report.discarded.len(),
                usize::from(cuts && is_over),
                "{context}: {report:?}"
            );
            if is_over {
                break;
            }
        }
    }
}

#[test]
fn verifying_beside_threads_that_write_rotate_and_compact_raises_no_alarm() {
    let mut rng = rng();
    let temporary = tempfile::tempdir().unwrap();
    let store = Store::options()
        .segment_bytes(4096)
        .waste_ceiling(1.1)
        .durability(Durability::Os)
        .open(temporary.path())
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("key 0", "value").unwrap();
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for _ in 0..2 {
            let (mut rng, stop, written, store, namespace) = (rng.split(), &stop, &written, &store, &namespace);
            scope.spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    let mut batch = store.batch();
                    for _ in 0..rng.below(5) {
                        batch.put(
                            namespace,
                            format!("key {}", rng.below(50)),
                            "v".repeat(rng.below(1000) as usize),
                        );
                    }
                    batch.commit().unwrap();
                    if rng.below(100) == 0 {
                        store.compact().unwrap();
                    }
                    written.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        let mut round = 0;
        while round < 100 || written.load(Ordering::Acquire) < 300 {
            round += 1;
            let report = verify(temporary.path(), &Store::options()).unwrap();
            assert!(report.is_sound(), "round {round}: {:?}", report.damaged);
            assert_eq!(report.discarded, [], "round {round}");
        }
    });
    at_least(100, written.into_inner(), "batches");
}

#[test]
fn a_flipped_bit_in_a_sealed_segment_is_found_beside_a_writer() {
    let disk = MemStorage::new();
    let writer = Arc::new(Writer::new(&disk));
    writer.store.compact().unwrap();
    writer.store.pause_compaction();
    let path = ending(&disk, ".segment").remove(0);
    let bits = disk.read_file(&path).unwrap().len() as u64 * 8;
    let number = AtomicU64::new(0);
    for bit in (0..bits).step_by(997) {
        disk.flip_bit(&path, bit).unwrap();
        let writing = writer.namespace.clone();
        let put = number.fetch_add(1, Ordering::AcqRel);
        // The log goes on meanwhile; the segment stays.
        let (_, storage) = between_calls(&disk, move |call, _| {
            if call % 5 == put % 5 {
                writing
                    .put_with(format!("{call}"), "value", class(Durability::Os))
                    .unwrap();
            }
        });
        let report = verified(&manual(storage), &format!("bit {bit}"));
        let [damaged] = &report.damaged[..] else {
            panic!("bit {bit}: {:?}", report.damaged)
        };
        let range = damaged.offset..damaged.offset + damaged.length;
        assert!(
            damaged.path == path && range.contains(&(bit / 8)),
            "bit {bit}: {damaged:?}"
        );
        disk.flip_bit(&path, bit).unwrap();
    }
    assert!(verified(&manual(Arc::new(disk)), "repaired").is_sound());
}

/// Damage before the durable end of the log is no torn end, though the end is being written.
#[test]
fn a_flipped_bit_in_the_segment_that_is_being_written_is_found() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    for n in 0..4 {
        namespace
            .put_with(format!("{n}"), "v".repeat(300), class(Durability::Sync))
            .unwrap();
    }
    let path = ending(&disk, ".segment").remove(0);
    disk.flip_bit(&path, 8 * 500).unwrap();
    let report = verified(&options(&disk), "flipped");
    assert_eq!(report.damaged.len(), 1, "{report:?}");
    assert!(
        report.damaged[0].path == path && report.damaged[0].offset <= 500,
        "{report:?}"
    );
}

#[test]
fn of_a_store_that_is_not_open_a_torn_end_is_told_and_of_one_that_is_it_is_not() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    namespace.put_with("durable", "value", class(Durability::Sync)).unwrap();
    namespace
        .put_with("torn", "v".repeat(2000), class(Durability::Os))
        .unwrap();
    let path = ending(&disk, ".segment").remove(0);
    let whole = written(&disk, &path);
    disk.write_file(&path, &whole[..whole.len() - 10]).unwrap();
    let beside = verified(&options(&disk), "beside");
    assert!(beside.is_sound() && beside.discarded.is_empty(), "{beside:?}");
    let killed = disk.power_cut(&CutPolicy::KeepAll);
    let after = verified(&options(&killed), "killed");
    assert!(after.is_sound() && after.discarded.len() == 1, "{after:?}");
}

#[test]
fn a_file_that_is_gone_for_good_is_damage_beside_a_writer_too() {
    let disk = MemStorage::new();
    let writer = Writer::new(&disk);
    let lost = ending(&disk, ".segment").remove(0);
    disk.remove_file(&lost).unwrap();
    let report = verified(&options(&disk), "lost");
    assert_eq!(report.damaged.len(), 1, "{report:?}");
    assert_eq!(report.damaged[0].path, lost);
    drop(writer);
}

#[cfg(unix)]
#[test]
fn a_directory_that_may_only_be_read_is_verified_and_nothing_is_left_in_it() {
    use std::os::unix::fs::PermissionsExt;
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("store");
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for has_lock in [true, false] {
        let store = Store::open(&directory).unwrap();
        store.namespace("N").unwrap().put("key", "value").unwrap();
        store.close().unwrap();
        let lock = directory.join("LOCK");
        match has_lock {
            true => std::fs::write(&lock, "whoever").unwrap(),
            false => std::fs::remove_file(&lock).unwrap(),
        }
        let names = test_support::file_names(&directory);
        names.iter().for_each(|name| mode(&directory.join(name), 0o444));
        mode(&directory, 0o555);
        let before = std::fs::metadata(&directory).unwrap().modified().unwrap();
        let report = verify(&directory, &Store::options()).unwrap();
        assert!(report.is_sound() && report.records > 0, "{report:?}");
        let after = std::fs::metadata(&directory).unwrap().modified().unwrap();
        assert_eq!((test_support::file_names(&directory), after), (names.clone(), before));
        if has_lock {
            assert_eq!(std::fs::read(&lock).unwrap(), b"whoever");
        }
        mode(&directory, 0o755);
        names.iter().for_each(|name| mode(&directory.join(name), 0o644));
    }
}
