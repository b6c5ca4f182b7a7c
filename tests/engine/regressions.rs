//! Bugs found in the past, each as the smallest scenario that shows it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use embercask::storage::{CutPolicy, FaultStorage, MemStorage, Storage};
use embercask::{Durability, Maintenance, ManualClock, Options, PutOptions, Result, Store};
use test_support::at_least;

const DIRECTORY: &str = "/data/store";

fn options(storage: Arc<dyn Storage>) -> Options {
    Store::options()
        .segment_bytes(4096)
        .maintenance(Maintenance::Manual)
        .storage(storage)
}

fn open(disk: &MemStorage) -> Store {
    options(Arc::new(disk.clone())).open(DIRECTORY).unwrap()
}

/// Stops the machine at this step of any operation.
fn stopping(disk: &MemStorage, step: u64) -> FaultStorage {
    let faults = FaultStorage::new(Arc::new(disk.clone())).counting_mutating_steps_only();
    faults.stop_at(step);
    faults
}

fn buffered() -> PutOptions {
    PutOptions::new().durability(Durability::Buffered)
}

/// Runs opening again and again, each time stopped one step later, until it completes; passes each
/// disk left by a stopped opening to `check`.
fn at_every_step_of_opening(disk: &MemStorage, mut check: impl FnMut(u64, &MemStorage, Result<Store>)) {
    for step in 0.. {
        let copy = disk.crash_process();
        let faults = stopping(&copy, step);
        let opened = options(Arc::new(faults.clone())).open(DIRECTORY);
        let stopped = faults.is_stopped();
        assert!(stopped || opened.is_ok(), "step {step}: {opened:?}");
        check(step, &copy, opened);
        if !stopped {
            at_least(5, step, "steps of an opening");
            return;
        }
    }
}

/// An interrupted recovery had created the segment it writes to, which no manifest lists yet. Every
/// later recovery chose the same id for its own segment, and failed.
#[test]
fn what_a_recovery_that_was_cut_off_leaves_behind_is_not_in_the_way_of_the_next() {
    let disk = MemStorage::new();
    let store = open(&disk);
    store.namespace("N").unwrap().put_with("k", "v", buffered()).unwrap();
    store.flush().unwrap();
    let killed = disk.crash_process();
    at_every_step_of_opening(&killed, |step, disk, _stopped| {
        for policy in [CutPolicy::LoseUnsynced, CutPolicy::KeepAll] {
            let again = disk.power_cut(&policy);
            options(Arc::new(again))
                .open(DIRECTORY)
                .unwrap_or_else(|error| panic!("step {step}, {policy:?}: {error}"));
        }
        let again = disk.crash_process();
        let store = open(&again);
        assert_eq!(
            store.open_namespace("N").unwrap().get("k").unwrap().unwrap(),
            *b"v",
            "step {step}"
        );
    });
}

/// Killed between writing a segment's seal and syncing it. The next process took the seal it saw
/// for durable and recorded it in the manifest; a power cut then lost the seal, and the store could
/// not be opened any more.
#[test]
fn a_seal_that_was_written_but_not_synced_is_not_relied_on() {
    let disk = MemStorage::new();
    let mut last = 0;
    for step in 0.. {
        let disk = disk.crash_process();
        let faults = stopping(&disk, step);
        let Ok(store) = options(Arc::new(faults.clone())).open(DIRECTORY) else {
            continue;
        };
        let closed = store
            .namespace("N")
            .and_then(|namespace| namespace.put("k", "v"))
            .and_then(|_| store.close());
        let killed = disk.crash_process();
        let seen = open(&killed).namespace("N").unwrap().get("k").unwrap().is_some();
        let store = open(&killed.power_cut(&CutPolicy::LoseUnsynced));
        assert_eq!(
            store.namespace("N").unwrap().get("k").unwrap().is_some(),
            seen,
            "step {step}"
        );
        last = step;
        if closed.is_ok() && !faults.is_stopped() {
            break;
        }
    }
    assert!(last > 10, "only {last} steps");
}

/// Killed between renaming the manifest and syncing the directory. The next process found nothing
/// to recover, and acknowledged a `sync` although the renamed manifest was only in memory.
#[test]
fn a_manifest_that_was_renamed_but_not_synced_is_made_durable_on_opening() {
    let disk = MemStorage::new();
    let store = open(&disk);
    store.namespace("N").unwrap().put_with("k", "v", buffered()).unwrap();
    store.flush().unwrap();
    let killed = disk.crash_process();
    at_every_step_of_opening(&killed, |step, disk, _stopped| {
        let again = disk.crash_process();
        let store = open(&again);
        assert!(store.open_namespace("N").unwrap().contains("k").unwrap(), "step {step}");
        store.sync().unwrap();
        for seed in 0..20 {
            let cut = again.power_cut(&CutPolicy::Random { seed, grain: 512 });
            let store = options(Arc::new(cut))
                .open(DIRECTORY)
                .unwrap_or_else(|error| panic!("step {step}: {error}"));
            assert!(store.open_namespace("N").unwrap().contains("k").unwrap(), "step {step}");
        }
    });
}

/// Killed after creating the directory and before its name was durable. The next process found the
/// directory, created the store in it, and acknowledged writes that a power cut lost along with the
/// directory.
#[test]
fn a_directory_that_another_process_left_behind_is_made_durable_with_the_store() {
    at_every_step_of_opening(&MemStorage::new(), |step, disk, _stopped| {
        let again = disk.crash_process();
        open(&again).namespace("N").unwrap().put("k", "v").unwrap();
        let cut = again.power_cut(&CutPolicy::LoseUnsynced);
        assert!(cut.exists(Path::new(DIRECTORY)).unwrap(), "step {step}");
        assert!(
            open(&cut).open_namespace("N").unwrap().contains("k").unwrap(),
            "step {step}"
        );
    });
}

/// A put that expired just now was copied to a segment that did not record it as such. The next
/// compaction considered that segment free of useful records, and dropped the put before its grace
/// period was over.
#[test]
fn what_has_only_just_expired_outlives_more_than_one_compaction() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(1_700_000_000_000));
    let open = |disk: &MemStorage| {
        let options = options(Arc::new(disk.clone())).clock(clock.clone());
        options.expiry_grace(Duration::from_secs(10)).open(DIRECTORY).unwrap()
    };
    open(&disk).namespace("N").unwrap();
    let store = open(&disk);
    let namespace = store.open_namespace("N").unwrap();
    namespace
        .put_with("k", "v", PutOptions::new().ttl(Duration::from_secs(5)))
        .unwrap();
    clock.advance(6_000);
    // Closing seals the segment; nothing is due for compaction.
    store.close().unwrap();
    let store = open(&disk);
    let namespace = store.open_namespace("N").unwrap();
    for _ in 0..3 {
        // The second segment contains only the put.
        store.maintain().unwrap();
        assert_eq!(store.stats().segments.len(), 2);
        assert_eq!(store.compact_subset(0b10).unwrap().runs, 1);
        assert!(namespace.get("k").unwrap().is_none());
    }
    store.close().unwrap();
    // The clock was wrong by two seconds; after it is corrected, the key reappears.
    clock.set_wall(1_700_000_004_000);
    let store = open(&disk);
    assert!(store.open_namespace("N").unwrap().contains("k").unwrap());
    // After the grace period it is dropped for good.
    clock.advance(20_000);
    store.compact().unwrap();
    assert_eq!((store.stats().dead_bytes, store.stats().keys), (0, 0));
}

/// Leftovers of an interrupted compaction, of a manifest that was never renamed, and of a
/// checkpoint that finished.
#[test]
fn what_interrupted_steps_have_left_is_removed_when_the_store_is_opened() {
    let disk = MemStorage::new();
    let store = open(&disk);
    store.namespace("N").unwrap().put("k", "v").unwrap();
    store.close().unwrap();
    let left = [
        "0000000000000077.segment",
        "0000000000000077.hint",
        "MANIFEST.tmp",
        "UNFINISHED",
    ];
    let paths = left.map(|name| Path::new(DIRECTORY).join(name));
    for path in &paths {
        disk.write_file(path, b"left over").unwrap();
    }
    let foreign = Path::new(DIRECTORY).join("notes.txt");
    disk.write_file(&foreign, b"somebody else's").unwrap();
    let store = open(&disk);
    assert_eq!(store.recovery_report().removed_files, 4);
    let files = disk.files(DIRECTORY);
    assert!(paths.iter().all(|path| !files.contains(path)), "{files:?}");
    assert!(files.contains(&foreign), "{files:?}");
}
