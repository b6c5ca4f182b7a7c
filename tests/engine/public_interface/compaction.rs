//! Pausing, resuming and cancelling compaction, and its progress.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use embercask::storage::{MemStorage, Operation};
use embercask::{CompactionReport, Error, ErrorKind, Namespace, Options, Progress, Result, Store};

use crate::public_interface::{VALUE_BYTES, intact, put, segments, small_segments, worth_a_run};
use test_support::hooked::Hooked;
use test_support::{self, DIRECTORY};

type AtOutput = Box<dyn Fn(&Store) + Send + Sync>;

/// A store with a hook in the middle of a run: when compaction creates or writes a segment.
struct World {
    disk: MemStorage,
    store: Store,
    namespace: Namespace,
    at_output: Arc<OnceLock<(Store, AtOutput)>>,
}

impl World {
    fn new(options: impl FnOnce(Options) -> Options) -> World {
        let disk = MemStorage::new();
        let at_output = Arc::new(OnceLock::<(Store, AtOutput)>::new());
        let in_hook = at_output.clone();
        let hook = move |operation: Operation, path: &Path| {
            let is_segment = path.extension().is_some_and(|end| end == "segment");
            if let (true, Operation::Create | Operation::Write, Some((store, act))) =
                (is_segment, operation, in_hook.get())
            {
                act(store);
            }
            Ok(())
        };
        let store = options(small_segments(Hooked::over(&disk, hook)))
            .open(DIRECTORY)
            .unwrap();
        let namespace = store.namespace("N").unwrap();
        World {
            disk,
            store,
            namespace,
            at_output,
        }
    }

    /// Calls this from now on at each creation of or write to a segment.
    fn at_output(&self, act: impl Fn(&Store) + Send + Sync + 'static) {
        let store = self.store.clone();
        assert!(self.at_output.set((store, Box::new(act))).is_ok());
    }
}

#[track_caller]
fn cancelled(result: Result<CompactionReport>) {
    let error = result.expect_err("must be given up");
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
}

fn nothing_done(store: &Store) -> bool {
    store.stats().compaction == CompactionReport::default()
}

#[test]
fn a_paused_store_compacts_nothing_by_itself_until_it_is_resumed() {
    let World {
        disk, store, namespace, ..
    } = World::new(|options| options);
    store.clone().pause_compaction();
    worth_a_run(&namespace);
    let before = segments(&disk);
    // Pausing twice is the same as pausing once.
    store.pause_compaction();
    assert_eq!(store.compact_if_worthwhile().unwrap(), CompactionReport::default());
    assert!(segments(&disk) == before);
    store.resume_compaction();
    let report = store.compact_if_worthwhile().unwrap();
    assert!(report.runs > 0 && report.reclaimed_bytes > 0, "{report:?}");
    assert_eq!(store.stats().compaction, report);
    intact(&namespace);
    // Resuming without a pause does nothing.
    store.resume_compaction();
    assert_eq!(store.compact_if_worthwhile().unwrap().reclaimed_bytes, 0);
}

#[test]
fn a_paused_store_is_compacted_when_that_is_asked_for() {
    let World { store, namespace, .. } = World::new(|options| options);
    store.pause_compaction();
    worth_a_run(&namespace);
    let report = store.compact().unwrap();
    assert!(report.reclaimed_bytes > 100 * VALUE_BYTES as u64, "{report:?}");
    intact(&namespace);
}

#[test]
fn pausing_gives_up_the_background_run_under_way_and_leaves_nothing_of_it() {
    let world = World::new(|options| options);
    worth_a_run(&world.namespace);
    let before = segments(&world.disk);
    world.at_output(Store::pause_compaction);
    cancelled(world.store.compact_if_worthwhile());
    assert!(nothing_done(&world.store));
    assert!(segments(&world.disk) == before, "its output is still there");
    intact(&world.namespace);
    // The progress stops and stays.
    let progress = world.store.compaction_progress();
    assert!(progress.done_bytes < progress.total_bytes, "{progress:?}");
    assert_eq!(world.store.compact_if_worthwhile().unwrap().runs, 0);
    assert_eq!(world.store.compaction_progress(), progress);
}

#[test]
fn pausing_does_not_stop_a_compaction_that_was_asked_for() {
    let world = World::new(|options| options);
    worth_a_run(&world.namespace);
    world.at_output(Store::pause_compaction);
    assert!(world.store.compact().unwrap().reclaimed_bytes > 0);
    intact(&world.namespace);
}

#[test]
fn cancelling_gives_up_the_run_under_way_whoever_asked_for_it_and_the_next_one_works() {
    for compact in [Store::compact, Store::compact_if_worthwhile] {
        let world = World::new(|options| options);
        worth_a_run(&world.namespace);
        world.store.maintain().unwrap();
        // Seals a full segment first, which would not be part of the compaction.
        world.store.compact_subset(0).unwrap();
        let before = segments(&world.disk);
        let once = Mutex::new(Some(()));
        world.at_output(move |store| {
            if store.compaction_progress().total_bytes > 0 && once.lock().unwrap().take().is_some() {
                // Twice is the same as once.
                store.cancel_compaction();
                store.cancel_compaction();
            }
        });
        cancelled(compact(&world.store));
        assert!(nothing_done(&world.store));
        let left: Vec<_> = segments(&world.disk);
        for segment in &before {
            assert!(left.iter().any(|other| other.0 == segment.0), "{:?} is gone", segment.0);
        }
        intact(&world.namespace);
        assert!(compact(&world.store).unwrap().reclaimed_bytes > 0);
        intact(&world.namespace);
        let killed = test_support::open(&world.disk.crash_process());
        intact(&killed.open_namespace("N").unwrap());
    }
}

#[test]
fn cancelling_when_nothing_runs_does_nothing_to_the_next_run() {
    let World { store, namespace, .. } = World::new(|options| options);
    worth_a_run(&namespace);
    store.cancel_compaction();
    store.cancel_compaction();
    assert!(store.compact_if_worthwhile().unwrap().reclaimed_bytes > 0);
    store.cancel_compaction();
    assert!(store.compact().is_ok());
}

#[test]
fn a_store_that_is_closed_while_paused_is_whole_and_the_next_handle_is_not_paused() {
    let World {
        disk, store, namespace, ..
    } = World::new(|options| options);
    worth_a_run(&namespace);
    store.pause_compaction();
    store.clone().close().unwrap();
    assert!(matches!(store.compact_if_worthwhile(), Err(Error::Closed)));
    assert!(matches!(store.compact(), Err(Error::Closed)));
    // On a closed store these do nothing and do not panic.
    store.resume_compaction();
    store.pause_compaction();
    store.cancel_compaction();
    let next = small_segments(Arc::new(disk)).open(DIRECTORY).unwrap();
    assert!(next.recovery_report().clean);
    intact(&next.open_namespace("N").unwrap());
    assert!(next.compact_if_worthwhile().unwrap().reclaimed_bytes > 0);
    intact(&next.open_namespace("N").unwrap());
}

#[test]
fn on_a_full_disk_a_paused_store_gives_back_nothing_and_makes_room_once_it_is_resumed() {
    let World {
        disk, store, namespace, ..
    } = World::new(|options| options);
    worth_a_run(&namespace);
    store.pause_compaction();
    store.maintain().unwrap();
    disk.set_capacity(Some(disk.used()));
    let refused = (400..)
        .find_map(|key| namespace.put(format!("{key}"), [7; VALUE_BYTES]).err())
        .unwrap();
    assert_eq!(refused.kind(), ErrorKind::NoSpace, "{refused}");
    // Nothing is missing, except perhaps the last key, which may not have fit.
    assert!(namespace.count().unwrap() >= 400);
    for attempt in 0..3 {
        assert_eq!(store.compact_if_worthwhile().unwrap().runs, 0, "attempt {attempt}");
        store.maintain().unwrap();
        let refused = namespace.put("more", [7; VALUE_BYTES]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NoSpace, "{refused}");
        assert!(
            namespace.delete(format!("{attempt:04}")).unwrap().existed,
            "deletes still work"
        );
    }
    store.resume_compaction();
    assert!(store.compact_if_worthwhile().unwrap().reclaimed_bytes > 0);
    namespace.put("more", [7; VALUE_BYTES]).unwrap();
    assert!(!store.stats().disk_full);
    (0..3).for_each(|key| put(&namespace, key));
    assert!(namespace.delete("more").unwrap().existed);
}

#[test]
fn progress_rises_from_nothing_to_all_and_stays_until_there_is_more_to_do() {
    let world = World::new(|options| options.segment_bytes(3 << 20));
    let store = &world.store;
    let zero = Progress {
        done_bytes: 0,
        total_bytes: 0,
    };
    assert_eq!(store.compaction_progress(), zero);
    for n in 0..2400 {
        let key = if n % 3 == 0 { format!("{n}") } else { "again".to_owned() };
        world
            .namespace
            .put_with(key, [7; 10_000], crate::public_interface::buffered())
            .unwrap();
    }
    store.maintain().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let in_hook = seen.clone();
    world.at_output(move |store| in_hook.lock().unwrap().push(store.compaction_progress()));
    let report = store.compact_if_worthwhile().unwrap();
    let done = store.compaction_progress();
    assert!(report.runs > 0);
    assert_eq!(
        done,
        Progress {
            done_bytes: report.read_bytes,
            total_bytes: report.read_bytes
        }
    );
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    assert!(seen.is_sorted_by_key(|progress| progress.done_bytes), "{seen:?}");
    let halfway = seen
        .iter()
        .filter(|progress| 0 < progress.done_bytes && progress.done_bytes < progress.total_bytes);
    assert!(halfway.count() > 2, "{seen:?}");
    // A background check finds nothing to do.
    assert_eq!(store.compact_if_worthwhile().unwrap().runs, 0);
    assert_eq!(store.compaction_progress(), done);
    // The next run with something to do starts from zero.
    for n in 0..600 {
        world
            .namespace
            .put_with("again", [n as u8; 10_000], crate::public_interface::buffered())
            .unwrap();
    }
    let report = store.compact().unwrap();
    let next = store.compaction_progress();
    assert_eq!(next.done_bytes, next.total_bytes);
    assert!(next.total_bytes >= report.read_bytes && next.total_bytes < done.total_bytes + report.read_bytes);
}
