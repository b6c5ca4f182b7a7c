//! A checkpoint is the store as of one moment, whatever happens meanwhile.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says where")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use embercask::storage::{CutPolicy, Fault, FaultKind, FaultStorage, MemStorage, Operation, Storage};
use embercask::{Durability, ErrorKind, Maintenance, ManualClock, Options, PutOptions, Store};
use test_support::{StopOnDrop, at_least, until};

const NOW: u64 = 1_700_000_000_000;

fn options(storage: Arc<dyn Storage>) -> Options {
    Store::options()
        .segment_bytes(4096)
        .durability(Durability::Sync)
        .maintenance(Maintenance::Manual)
        .clock(ManualClock::new(NOW))
        .storage(storage)
}

fn on(disk: &MemStorage) -> Options {
    options(Arc::new(disk.clone()))
}

fn fill(store: &Store, keys: u64) {
    let namespace = store.namespace("N").unwrap();
    for n in 0..keys {
        namespace
            .put(format!("key-{n:04}"), format!("value {n} {}", "x".repeat(60)))
            .unwrap();
    }
}

fn check(store: &Store, keys: u64) {
    let namespace = store.open_namespace("N").unwrap();
    assert_eq!(namespace.count().unwrap(), keys);
    for n in 0..keys {
        let value = namespace.get(format!("key-{n:04}")).unwrap().unwrap();
        assert_eq!(value, format!("value {n} {}", "x".repeat(60)));
    }
    let report = store.verify().unwrap();
    assert!(report.is_sound(), "{:?}", report.damaged);
}

#[test]
fn a_checkpoint_tells_how_far_it_has_come_and_can_be_stopped() {
    let disk = MemStorage::new();
    let store = on(&disk).open("/store").unwrap();
    fill(&store, 150);
    let mut told = Vec::new();
    let report = store
        .checkpoint_with("/copies/one", |progress| {
            told.push(progress);
            true
        })
        .unwrap();
    assert_eq!(told.len() as u64, report.segments);
    assert!(told.is_sorted_by_key(|progress| progress.done_bytes));
    let last = told.last().unwrap();
    assert_eq!((last.done_bytes, last.total_bytes), (report.bytes, report.bytes));
    for stop_at in 1..report.segments {
        let mut calls = 0;
        let stopped = store.checkpoint_with("/copies/two", |_| {
            calls += 1;
            calls < stop_at
        });
        assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(!disk.exists(Path::new("/copies/two")).unwrap());
        assert!(!disk.exists(Path::new("/copies/two.partial")).unwrap());
    }
    check(&store, 150);
}

#[test]
fn a_checkpoint_holds_everything_acknowledged_before_it_with_metadata_and_expiry() {
    let disk = MemStorage::new();
    let store = on(&disk).open("/store").unwrap();
    fill(&store, 150);
    let namespace = store.namespace("N").unwrap();
    let put = PutOptions::new()
        .metadata("{}")
        .expires_at_ms(NOW + 5000)
        .durability(Durability::Buffered);
    let sequence = namespace.put_with("rich", "r", put).unwrap();
    let report = store.checkpoint("/copies/one").unwrap();
    namespace.put("later", "1").unwrap();
    assert!(
        report.segments > 2 && report.linked == 2 * report.segments && report.copied == 0,
        "{report:?}"
    );
    assert_eq!(report.last_sequence, sequence);
    // The checkpoint is durable as soon as it returns.
    let cut = disk.power_cut(&CutPolicy::LoseUnsynced);
    for disk in [disk.clone(), cut] {
        let copy = on(&disk).create(false).open("/copies/one").unwrap();
        assert!(copy.recovery_report().clean);
        assert_eq!(copy.recovery_report().hints_used, report.segments);
        let namespace = copy.open_namespace("N").unwrap();
        let rich = namespace.get("rich").unwrap().unwrap();
        assert_eq!(
            (rich.metadata(), rich.expiry_ms(), rich.sequence()),
            (Some(&b"{}"[..]), Some(NOW + 5000), sequence)
        );
        assert!(namespace.get("later").unwrap().is_none());
        namespace.delete("rich").unwrap();
        check(&copy, 150);
    }
}

#[test]
fn store_and_copy_go_their_own_ways() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("store"), directory.path().join("copy"));
    let real = || Store::options().segment_bytes(4096).durability(Durability::Os);
    let store = real().open(&from).unwrap();
    fill(&store, 200);
    let report = store.checkpoint(&to).unwrap();
    assert!(report.linked > 0, "{report:?}");
    let namespace = store.namespace("N").unwrap();
    for n in 0..150 {
        namespace.delete(format!("key-{n:04}")).unwrap();
    }
    store.compact().unwrap();
    let copy = real().create(false).open(&to).unwrap();
    check(&copy, 200);
    copy.namespace("N").unwrap().put("key-0000", "changed").unwrap();
    copy.compact().unwrap();
    assert_eq!(namespace.count().unwrap(), 50);
    assert!(store.verify().unwrap().is_sound() && copy.verify().unwrap().is_sound());
    drop(namespace);
    store.close().unwrap();
    let store = real().open(&from).unwrap();
    assert_eq!(store.open_namespace("N").unwrap().count().unwrap(), 50);
}

/// They have the same store id, and here also the same segment ids and live counts.
#[test]
fn the_index_file_of_a_copy_that_went_its_own_way_is_not_believed_in_the_store() {
    let disk = MemStorage::new();
    let store = on(&disk).open("/store").unwrap();
    fill(&store, 20);
    store.checkpoint("/copy").unwrap();
    store.close().unwrap();
    let go_on = |directory: &str, key: &str| {
        let store = on(&disk).open(directory).unwrap();
        store.open_namespace("N").unwrap().put(key, directory).unwrap();
        store.close().unwrap();
    };
    // The index files of a copy and its original, closed after the same number of writes.
    go_on("/store", "of the store");
    go_on("/copy", "of the copies");
    let index = disk.read_file("/copy/INDEX").unwrap();
    disk.write_file("/store/INDEX", &index).unwrap();
    let store = on(&disk).open("/store").unwrap();
    assert!(!store.recovery_report().index_file_used);
    let namespace = store.open_namespace("N").unwrap();
    assert!(namespace.contains("of the store").unwrap() && !namespace.contains("of the copies").unwrap());
    assert_eq!(namespace.count().unwrap(), 21);
}

#[test]
fn a_target_in_use_is_refused_and_an_empty_one_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("store")).unwrap();
    fill(&store, 3);
    let file = directory.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let taken = directory.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("notes.txt"), "mine").unwrap();
    for target in [
        &file,
        &taken,
        &directory.path().join("store"),
        &directory.path().join(".."),
    ] {
        assert_eq!(
            store.checkpoint(target).unwrap_err().kind(),
            ErrorKind::InvalidInput,
            "{}",
            target.display()
        );
    }
    assert_eq!(std::fs::read(taken.join("notes.txt")).unwrap(), b"mine");
    let empty = directory.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    store.checkpoint(&empty).unwrap();
    check(&Store::open(&empty).unwrap(), 3);
    assert_eq!(store.checkpoint(&empty).unwrap_err().kind(), ErrorKind::InvalidInput);
    store.clone().close().unwrap();
    assert_eq!(
        store.checkpoint(directory.path().join("x")).unwrap_err().kind(),
        ErrorKind::Closed
    );
}

#[test]
fn what_an_interrupted_checkpoint_left_is_removed_unless_it_is_somebody_elses() {
    let disk = MemStorage::new();
    let store = on(&disk).open("/store").unwrap();
    fill(&store, 30);
    disk.create_directory(Path::new("/copy.partial")).unwrap();
    disk.write_file("/copy.partial/0000000000000001.segment", b"half")
        .unwrap();
    disk.write_file("/copy.partial/notes.txt", b"mine").unwrap();
    assert_eq!(store.checkpoint("/copy").unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(disk.read_file("/copy.partial/notes.txt").unwrap(), b"mine");
    disk.remove_file("/copy.partial/notes.txt").unwrap();
    store.checkpoint("/copy").unwrap();
    check(&on(&disk).open("/copy").unwrap(), 30);
    assert!(!disk.exists(Path::new("/copy.partial")).unwrap());
}

#[test]
fn a_store_with_the_name_of_an_unfinished_copy_is_left_alone() {
    let disk = MemStorage::new();
    let store = on(&disk).open("/store").unwrap();
    fill(&store, 30);
    let other = on(&disk).open("/copy.partial").unwrap();
    fill(&other, 20);
    assert_eq!(store.checkpoint("/copy").unwrap_err().kind(), ErrorKind::InUse);
    other.close().unwrap();
    let error = store.checkpoint("/copy").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains("move it away"), "{error}");
    let other = on(&disk).open("/copy.partial").unwrap();
    check(&other, 20);
    other.close().unwrap();
}

/// The next attempt at a copy succeeds, and the copy opens, no matter where an attempt was cut off.
#[test]
fn a_copy_can_be_made_after_one_was_cut_off_at_any_step() {
    let (mut step, mut finished) = (0, false);
    while !finished {
        let disk = MemStorage::new();
        let faulty = FaultStorage::new(Arc::new(disk.clone())).counting_mutating_steps_only();
        let store = options(Arc::new(faulty.clone())).open("/store").unwrap();
        fill(&store, 30);
        faulty.stop_at(faulty.steps() + step);
        finished = store.checkpoint("/copy").is_ok();
        for (name, found) in [
            ("killed", disk.crash_process()),
            ("nothing kept", disk.power_cut(&CutPolicy::LoseUnsynced)),
            ("all kept", disk.power_cut(&CutPolicy::KeepAll)),
            (
                "any of it",
                disk.power_cut(&CutPolicy::Random { seed: step, grain: 512 }),
            ),
        ] {
            let again = on(&found).open("/store").unwrap();
            let copied = found.exists(Path::new("/copy")).unwrap();
            if !copied {
                again
                    .checkpoint("/copy")
                    .unwrap_or_else(|error| panic!("step {step}, {name}: {error}"));
            }
            check(&on(&found).create(false).open("/copy").unwrap(), 30);
            assert!(
                !found.exists(Path::new("/copy/UNFINISHED")).unwrap(),
                "step {step}, {name}"
            );
        }
        step += 1;
    }
    assert!(step > 10, "{step} steps");
}

#[test]
fn where_there_are_no_links_files_are_copied() {
    use std::io::ErrorKind::{CrossesDevices, InvalidInput, PermissionDenied, TooManyLinks, Unsupported};
    for kind in [
        CrossesDevices,
        InvalidInput,
        PermissionDenied,
        TooManyLinks,
        Unsupported,
    ] {
        let disk = MemStorage::new();
        let faulty = FaultStorage::new(Arc::new(disk.clone()));
        faulty.inject(Fault::new(FaultKind::Error(kind)).on(Operation::HardLink).repeated());
        let store = options(Arc::new(faulty)).open("/store").unwrap();
        fill(&store, 100);
        let report = store.checkpoint("/copy").unwrap();
        assert!(report.linked == 0 && report.copied == 2 * report.segments, "{report:?}");
        let cut = disk.power_cut(&CutPolicy::LoseUnsynced);
        check(&on(&cut).create(false).open("/copy").unwrap(), 100);
    }
}

/// Copying would fail for the same reasons.
#[test]
fn a_link_that_fails_for_want_of_space_or_of_a_sound_device_is_an_error() {
    use std::io::ErrorKind::{Other, ReadOnlyFilesystem, StorageFull};
    for (kind, told) in [
        (Other, ErrorKind::Io),
        (ReadOnlyFilesystem, ErrorKind::Io),
        (StorageFull, ErrorKind::NoSpace),
    ] {
        let disk = MemStorage::new();
        let faulty = FaultStorage::new(Arc::new(disk.clone()));
        faulty.inject(Fault::new(FaultKind::Error(kind)).on(Operation::HardLink).repeated());
        let store = options(Arc::new(faulty)).open("/store").unwrap();
        fill(&store, 100);
        assert_eq!(store.checkpoint("/copy").unwrap_err().kind(), told, "{kind:?}");
        assert!(!disk.exists(Path::new("/copy")).unwrap());
    }
}

#[test]
fn a_checkpoint_under_way_is_a_prefix_of_every_writer_and_holds_batches_whole() {
    let directory = tempfile::tempdir().unwrap();
    let real = || {
        Store::options()
            .segment_bytes(32 << 10)
            .durability(Durability::Buffered)
    };
    let store = real().open(directory.path().join("store")).unwrap();
    let counts: Vec<AtomicU64> = (0..2).map(|_| AtomicU64::new(0)).collect();
    let stop = AtomicBool::new(false);
    let (namespace, latest) = (store.namespace("N").unwrap(), store.namespace("LATEST").unwrap());
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for (writer, count) in counts.iter().enumerate() {
            let (store, namespace, latest, stop) = (&store, &namespace, &latest, &stop);
            scope.spawn(move || {
                let mut n = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    // A new key, and one of another namespace that is overwritten again and again;
                    // both or neither.
                    let key = format!("{writer}-{n:08}");
                    let mut batch = store.batch();
                    batch
                        .put(namespace, &key, n.to_string())
                        .put(latest, format!("{writer}"), n.to_string());
                    batch.commit().unwrap();
                    n += 1;
                    count.store(n, Ordering::Release);
                }
            });
        }
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                store.compact().unwrap();
            }
        });
        let counted = || counts.iter().map(|count| count.load(Ordering::Acquire));
        let (mut round, mut written) = (0, vec![0; counts.len()]);
        while round < 8 || store.stats().compaction.runs < 8 {
            until("every writer makes progress", || {
                counted().zip(&written).all(|(count, before)| count >= before + 100)
            });
            let target = directory.path().join(format!("copy-{round}"));
            let before: Vec<_> = counted().collect();
            let report = store.checkpoint(&target).unwrap();
            let copy = real()
                .maintenance(Maintenance::Manual)
                .create(false)
                .open(&target)
                .unwrap();
            let copied = copy.open_namespace("N").unwrap();
            let copied_latest = copy.open_namespace("LATEST").unwrap();
            let mut newest = 0;
            for (writer, before) in before.iter().enumerate() {
                let keys: Vec<_> = copied
                    .list()
                    .prefix(format!("{writer}-"))
                    .into_iter()
                    .map(|entry| entry.unwrap())
                    .collect();
                let count = keys.len() as u64;
                assert!(count >= *before, "writer {writer}: {count} of {before}");
                for (n, entry) in keys.iter().enumerate() {
                    assert_eq!(entry.key_str().unwrap(), format!("{writer}-{n:08}"));
                }
                let latest = copied_latest.get(format!("{writer}")).unwrap();
                let number = latest.as_ref().map(|latest| latest.as_str().unwrap().to_owned());
                assert_eq!(number, count.checked_sub(1).map(|n| n.to_string()), "{report:?}");
                newest = newest.max(latest.map_or(0, |latest| latest.sequence()));
            }
            // The moment is that of the newest write in it.
            assert!(newest <= report.last_sequence, "{newest} in {report:?}");
            assert!(copy.verify().unwrap().is_sound());
            drop((copied, copied_latest, copy));
            std::fs::remove_dir_all(&target).unwrap();
            written = before;
            round += 1;
        }
    });
}

#[test]
fn power_lost_at_any_step_leaves_the_store_sound_and_the_copy_whole_or_absent() {
    let run = |stop_at: Option<u64>| {
        let disk = MemStorage::new();
        let faulty = FaultStorage::new(Arc::new(disk.clone())).counting_mutating_steps_only();
        let store = options(Arc::new(faulty.clone())).open("/store").unwrap();
        fill(&store, 45);
        disk.create_directory(Path::new("/copies")).unwrap();
        disk.sync_directory(Path::new("/")).unwrap();
        let first = faulty.steps();
        if let Some(step) = stop_at {
            faulty.stop_at(first + step);
        }
        let result = store.checkpoint("/copies/one");
        (disk, store, result.is_ok(), faulty.steps() - first)
    };
    let (_, _, done, steps) = run(None);
    assert!(done && steps > 10);
    let (mut absent, mut whole) = (0, 0);
    for step in 0..=steps {
        let (disk, _store, done, _) = run(Some(step));
        // The last step only removes the mark of an unfinished copy from a finished one.
        assert_eq!(done, step + 1 >= steps, "{step}");
        let pending = disk.pending_operations();
        let random = (0..3).map(|seed| CutPolicy::Random { seed, grain: 512 });
        let prefixes = (step as usize % 4..=pending)
            .step_by(4)
            .map(|operations| CutPolicy::KeepPrefix { operations });
        for policy in random
            .chain(prefixes)
            .chain([CutPolicy::LoseUnsynced, CutPolicy::KeepAll])
        {
            let cut = disk.power_cut(&policy);
            if cut.exists(Path::new("/copies/one")).unwrap() {
                check(&on(&cut).create(false).open("/copies/one").unwrap(), 45);
                whole += 1;
            } else {
                assert!(!done, "step {step}, {policy:?}");
                absent += 1;
            }
            let store = on(&cut).open("/store").unwrap();
            check(&store, 45);
            if !done && !cut.exists(Path::new("/copies/one")).unwrap() {
                store.checkpoint("/copies/one").unwrap();
                check(&on(&cut).create(false).open("/copies/one").unwrap(), 45);
            }
        }
    }
    assert!(absent > 0 && whole > 0);
}

#[test]
fn a_failed_checkpoint_leaves_nothing_and_can_be_made_again() {
    let disk = MemStorage::new();
    let faulty = FaultStorage::new(Arc::new(disk.clone()));
    let store = options(Arc::new(faulty.clone())).open("/store").unwrap();
    fill(&store, 60);
    let first = faulty.steps();
    store.checkpoint("/warm").unwrap();
    let steps = faulty.steps() - first;
    let operations = [
        Operation::HardLink,
        Operation::Create,
        Operation::Write,
        Operation::Rename,
        Operation::CreateDirectory,
    ];
    let mut failures = [0; 5];
    for step in 0..steps {
        for (operation, failures) in operations.into_iter().zip(&mut failures) {
            let at = faulty.steps() + step;
            // A link matches by the path of its source.
            let path = if operation == Operation::HardLink {
                "/store"
            } else {
                "/copy"
            };
            faulty.inject(
                Fault::new(FaultKind::Error(std::io::ErrorKind::StorageFull))
                    .on(operation)
                    .path(path)
                    .at(at),
            );
            let result = store.checkpoint("/copy");
            faulty.clear();
            match result {
                Ok(_) => disk.remove_directory(Path::new("/copy")).unwrap(),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                    *failures += 1;
                }
            }
            assert!(!disk.exists(Path::new("/copy")).unwrap());
            assert!(!disk.exists(Path::new("/copy.partial")).unwrap());
        }
    }
    for (operation, failures) in operations.into_iter().zip(failures) {
        at_least(1, failures, &format!("checkpoints that failed by {operation:?}"));
    }
    at_least(20, failures.iter().sum(), "checkpoints that failed");
    store.checkpoint("/copy").unwrap();
    check(&on(&disk).open("/copy").unwrap(), 60);
    check(&store, 60);
}

#[test]
fn dropped_and_renamed_namespaces_are_in_the_copy_as_they_were() {
    let disk = MemStorage::new();
    let store = on(&disk).open("/store").unwrap();
    for name in ["A", "B", "C"] {
        store.namespace(name).unwrap().put("key", name).unwrap();
    }
    store.drop_namespace("A").unwrap();
    store.rename_namespace("B", "D").unwrap();
    store.checkpoint("/copy").unwrap();
    store.drop_namespace("C").unwrap();
    let copy = on(&disk).open("/copy").unwrap();
    let names: Vec<_> = copy.namespaces().unwrap().into_iter().map(|info| info.name).collect();
    assert_eq!(names, ["C", "D"]);
    assert_eq!(copy.open_namespace("D").unwrap().get("key").unwrap().unwrap(), *b"B");
    // Numbers are not reused.
    copy.namespace("E").unwrap().put("key", "new").unwrap();
    copy.compact().unwrap();
    assert_eq!(copy.open_namespace("A").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_store_in_use_under_the_name_of_the_staging_directory_is_not_removed() {
    let disk = MemStorage::new();
    let open = |path: &str| {
        Store::options()
            .maintenance(Maintenance::Manual)
            .storage(Arc::new(disk.clone()))
            .open(path)
            .unwrap()
    };
    let (store, other) = (open("/store"), open("/copy.partial"));
    other.namespace("N").unwrap().put("key", "value").unwrap();
    let error = store.checkpoint("/copy").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    other.close().unwrap();
    let namespace = open("/copy.partial").open_namespace("N").unwrap();
    assert_eq!(namespace.get("key").unwrap().unwrap(), *b"value");
}
