//! How compaction treats a segment that the device cannot read: it skips the segment for a minute,
//! or until compaction is requested, and reports the error.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{ErrorKind, ManualClock, Namespace, ReadMode, Store};

use crate::public_interface::{intact, small_segments, worth_a_run};
use test_support::DIRECTORY;
use test_support::hooked::Hooked;

const FIRST: &str = "0000000000000001.segment";

struct World {
    faults: FaultStorage,
    clock: ManualClock,
    store: Store,
    namespace: Namespace,
    /// Cancelled when compaction creates a segment.
    cancelled: Arc<OnceLock<Store>>,
}

/// A store that is worth a run, with an unreadable first segment.
fn world() -> World {
    let cancelled = Arc::new(OnceLock::<Store>::new());
    let in_hook = cancelled.clone();
    let hook = move |operation: Operation, path: &Path| {
        let is_segment = path.extension().is_some_and(|end| end == "segment");
        if let (true, Operation::Create, Some(store)) = (is_segment, operation, in_hook.get()) {
            store.cancel_compaction();
        }
        Ok(())
    };
    let faults = FaultStorage::new(Hooked::over(&MemStorage::new(), hook));
    let clock = ManualClock::new(2_000_000_000_000);
    let options = small_segments(Arc::new(faults.clone())).clock(clock.clone());
    let store = options.read_mode(ReadMode::Pread).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    worth_a_run(&namespace);
    store.maintain().unwrap();
    break_first(&faults);
    World {
        faults,
        clock,
        store,
        namespace,
        cancelled,
    }
}

fn break_first(faults: &FaultStorage) {
    let unreadable = Fault::new(FaultKind::Error(std::io::ErrorKind::Other)).on(Operation::Read);
    faults.inject(unreadable.path(FIRST).repeated());
}

/// Without faults, because puts read what they replace.
fn worth_another_run(faults: &FaultStorage, namespace: &Namespace) {
    faults.clear();
    worth_a_run(namespace);
    break_first(faults);
}

fn has_first(store: &Store) -> bool {
    store.stats().segments.iter().any(|segment| segment.id == 1)
}

#[test]
fn a_segment_that_could_not_be_read_is_left_out_for_a_minute_and_tried_when_that_is_asked_for() {
    let World {
        faults,
        clock,
        store,
        namespace,
        ..
    } = world();
    let told = store.compact_if_worthwhile().unwrap_err();
    assert_eq!(told.kind(), ErrorKind::Io, "{told}");
    assert!(told.to_string().contains(FIRST), "{told}");
    assert!(
        store.stats().compaction.runs > 0,
        "the other segments were not compacted"
    );
    assert!(has_first(&store));
    // There is more to do, but not with this segment.
    worth_another_run(&faults, &namespace);
    let struck = faults.struck();
    clock.advance(59_999);
    assert!(store.compact_if_worthwhile().unwrap().runs > 0);
    assert_eq!(faults.struck(), struck);
    worth_another_run(&faults, &namespace);
    clock.advance(1);
    assert_eq!(store.compact_if_worthwhile().unwrap_err().kind(), ErrorKind::Io);
    assert!(faults.struck() > struck);
    faults.clear();
    store.compact().unwrap();
    assert!(!has_first(&store));
    intact(&namespace);
}

#[test]
fn damage_that_was_met_before_a_compaction_was_cancelled_is_told_in_the_statistics() {
    let World { store, cancelled, .. } = world();
    cancelled.set(store.clone()).unwrap();
    let error = store.compact_if_worthwhile().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    let told = store.stats().background_error.unwrap();
    assert!(told.contains(FIRST), "{told}");
}
