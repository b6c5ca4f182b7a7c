//! Damage costs only the damaged data.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use embercask::storage::{MemStorage, Operation};
use embercask::testing::Task;
use embercask::{Error, ErrorKind, Maintenance, ManualClock, Namespace, PutOptions, ReadMode, Store};

use crate::known_bugs::START_MS;
use crate::known_bugs::listings::damage;
use test_support::hooked::Hooked;
use test_support::way::Way;
use test_support::{DIRECTORY, ending, is_corruption, keys, manual, open, until};

/// A store that reads from the disk each time, so that damage is detected at once.
fn reading(disk: &MemStorage) -> (Store, Namespace) {
    let store = manual(Arc::new(disk.clone()))
        .read_mode(ReadMode::Pread)
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    (store, namespace)
}

/// Fills at least one segment and seals it.
fn fill(namespace: &Namespace, name: &str) {
    for n in 0..40 {
        namespace.put(format!("{name} {n:02}"), [7; 100]).unwrap();
    }
    namespace.store().maintain().unwrap();
}

fn dead_bytes(store: &Store) -> u64 {
    store.stats().segments.iter().map(|segment| segment.dead_bytes).sum()
}

#[track_caller]
fn names(error: &Error, disk: &MemStorage, damaged: &[PathBuf]) {
    is_corruption(error, disk, "compaction");
    for path in damaged {
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}

/// C15. By forced and by background compaction.
#[test]
fn a_damaged_segment_in_which_nothing_is_live_goes_without_being_read() {
    for forced in [true, false] {
        let compact = |store: &Store| match forced {
            true => store.compact(),
            false => store.compact_if_worthwhile(),
        };
        let disk = MemStorage::new();
        let (store, namespace) = reading(&disk);
        fill(&namespace, "before");
        namespace.put("damaged", "a value that is damaged").unwrap();
        // A shadow in the damaged segment; once the hidden record is gone, it does not matter.
        namespace.delete("before 00").unwrap();
        fill(&namespace, "beside");
        let path = damage(&disk, b"a value that is damaged");
        for n in 0..40 {
            namespace.delete(format!("before {n:02}")).unwrap();
            if n > 0 {
                namespace.put(format!("beside {n:02}"), "short").unwrap();
            }
        }
        fill(&namespace, "after");
        let error = compact(&store).unwrap_err();
        names(&error, &disk, std::slice::from_ref(&path));
        assert!(disk.read_file(&path).is_ok(), "the segment has a live key");
        // The damage is known by now, so the segment is neither read nor reported again.
        compact(&store).unwrap();
        namespace.put("damaged", "sound").unwrap();
        namespace.delete("beside 00").unwrap();
        compact(&store).unwrap();
        assert!(disk.read_file(&path).is_err(), "forced: {forced}");
        assert_eq!(namespace.get_text("damaged").unwrap().as_deref(), Some("sound"));
        let before = keys(&namespace);
        assert!(!before.iter().any(|key| key.starts_with("before")));
        assert!(store.verify().unwrap().is_sound());
        // Nothing that it hid reappears.
        drop((namespace, store));
        let store = open(&disk);
        assert_eq!(keys(&store.open_namespace("N").unwrap()), before);
    }
}

/// C15.
#[test]
fn two_damaged_segments_whose_shadows_hide_what_is_dead_in_the_other_go_together() {
    let disk = MemStorage::new();
    let (store, namespace) = reading(&disk);
    // The namespace record stays live.
    fill(&namespace, "z");
    namespace.put("first", "first damaged value").unwrap();
    namespace.put("old", "1").unwrap();
    fill(&namespace, "a");
    namespace.put("second", "second damaged value").unwrap();
    namespace.delete("old").unwrap();
    namespace.put("old", "2").unwrap();
    namespace.delete("old").unwrap();
    fill(&namespace, "b");
    let damaged = [
        damage(&disk, b"first damaged value"),
        damage(&disk, b"second damaged value"),
    ];
    assert_ne!(damaged[0], damaged[1]);
    for n in 0..40 {
        namespace.delete(format!("z {n:02}")).unwrap();
        namespace.delete(format!("a {n:02}")).unwrap();
        namespace.delete(format!("b {n:02}")).unwrap();
    }
    names(&store.compact().unwrap_err(), &disk, &damaged);
    namespace.delete("first").unwrap();
    namespace.delete("second").unwrap();
    store.compact().unwrap();
    for path in &damaged {
        assert!(disk.read_file(path).is_err(), "{}", path.display());
    }
    assert!(keys(&namespace).is_empty());
    drop((namespace, store));
    assert!(keys(&open(&disk).open_namespace("N").unwrap()).is_empty());
}

/// C15. A record that expired just now may reappear when a fast clock is corrected.
#[test]
fn a_damaged_segment_in_which_something_has_just_expired_waits_and_is_not_tried_in_vain() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(START_MS));
    let store = manual(Arc::new(disk.clone()))
        .read_mode(ReadMode::Pread)
        .clock(clock.clone())
        .expiry_grace(Duration::from_secs(10))
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    fill(&namespace, "z");
    namespace.put("damaged", "a value that is damaged").unwrap();
    let options = PutOptions::new().ttl(Duration::from_secs(60));
    namespace.put_with("short", "for a minute", options).unwrap();
    fill(&namespace, "a");
    let path = damage(&disk, b"a value that is damaged");
    for n in 0..40 {
        namespace.delete(format!("z {n:02}")).unwrap();
        namespace.delete(format!("a {n:02}")).unwrap();
    }
    names(&store.compact().unwrap_err(), &disk, std::slice::from_ref(&path));
    namespace.delete("damaged").unwrap();
    clock.advance(60_000);
    for _ in 0..3 {
        store.compact().unwrap();
        store.compact_if_worthwhile().unwrap();
        assert!(disk.read_file(&path).is_ok(), "a record in it expired only just now");
    }
    clock.advance(10_000);
    let before = store.stats().compaction.runs;
    store.compact_if_worthwhile().unwrap();
    assert!(disk.read_file(&path).is_err());
    assert!(store.stats().compaction.runs > before);
    let after = store.stats().compaction.runs;
    store.compact_if_worthwhile().unwrap();
    assert_eq!(store.stats().compaction.runs, after, "a run without anything to do");
}

/// C15.
#[test]
fn compaction_goes_on_past_damage_and_names_all_of_it_in_the_end() {
    for forced in [true, false] {
        let disk = MemStorage::new();
        let (store, namespace) = reading(&disk);
        for name in ["a", "b", "c", "d", "e", "f"] {
            namespace
                .put(format!("{name} marked"), format!("the value of {name}"))
                .unwrap();
            fill(&namespace, name);
        }
        let damaged = ["the value of b", "the value of e"].map(|value| damage(&disk, value.as_bytes()));
        for name in ["a", "b", "c", "d", "e", "f"] {
            for n in 0..35 {
                namespace.put(format!("{name} {n:02}"), "").unwrap();
            }
        }
        store.maintain().unwrap();
        let before = dead_bytes(&store);
        let error = if forced {
            store.compact().unwrap_err()
        } else {
            store.compact_if_worthwhile().unwrap_err()
        };
        names(&error, &disk, &damaged);
        let kept: u64 = (store.stats().segments.iter())
            .filter(|segment| {
                damaged
                    .iter()
                    .any(|path| path.ends_with(format!("{:016x}.segment", segment.id)))
            })
            .map(|segment| segment.dead_bytes)
            .sum();
        assert!(kept > 0);
        let others = dead_bytes(&store) - kept;
        assert!(others < before / if forced { 20 } else { 3 }, "{others} of {before}");
        assert_eq!(keys(&namespace).len(), 6 * 41);
        assert_eq!(namespace.get("b marked").unwrap_err().kind(), ErrorKind::Corruption);
        assert!(namespace.get("c marked").unwrap().is_some());
    }
}

/// A closed store of several segments, whose hints were damaged since; opening does not read them.
fn with_unfit_hints() -> (MemStorage, usize) {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    for name in ["a", "b", "c", "d", "e"] {
        fill(&namespace, name);
    }
    drop(namespace);
    store.close().unwrap();
    let hints = ending(&disk, ".hint");
    for hint in &hints {
        disk.flip_bit(hint, 8 * 70).unwrap();
    }
    (disk, hints.len())
}

/// Holds the first renewal of a hint until released.
struct Held {
    store: Store,
    let_go: mpsc::Sender<()>,
    /// Number of hints created.
    created: Arc<AtomicU64>,
}

fn hold_a_renewal(disk: &MemStorage) -> Held {
    let (reached, wait_for_it) = mpsc::channel();
    let (let_go, wait_to_be_let_go) = mpsc::channel();
    let wait_to_be_let_go = Mutex::new(wait_to_be_let_go);
    let created = Arc::new(AtomicU64::new(0));
    let (counted, first) = (created.clone(), AtomicBool::new(true));
    let storage = Hooked::over(disk, move |operation, path: &Path| {
        if operation == Operation::Create && path.extension().is_some_and(|end| end == "hint") {
            counted.fetch_add(1, Ordering::SeqCst);
            if first.swap(false, Ordering::SeqCst) {
                reached.send(()).unwrap();
                // An error means that the test has ended, one way or another.
                let _ = wait_to_be_let_go.lock().unwrap().recv();
            }
        }
        Ok(())
    });
    let store = manual(storage)
        .maintenance(Maintenance::Background)
        .open(DIRECTORY)
        .unwrap();
    assert!(store.recovery_report().index_file_used);
    wait_for_it.recv().unwrap();
    Held { store, let_go, created }
}

/// C14: the hint list used to be taken as a whole, so verify saw none to wait for.
#[test]
fn hints_that_are_being_renewed_are_no_damage_to_verify() {
    let (disk, hints) = with_unfit_hints();
    let held = hold_a_renewal(&disk);
    let (tell, told) = mpsc::channel();
    let store = held.store.clone();
    let verify = std::thread::spawn(move || {
        tell.send(Task::current()).unwrap();
        store.verify()
    });
    let task = told.recv().unwrap();
    // A verify that does not wait for the renewal finishes; one that waits is released with it.
    until("verify waits, or is done", || task.waits() || verify.is_finished());
    held.let_go.send(()).unwrap();
    let report = verify.join().unwrap().unwrap();
    assert!(report.is_sound(), "{:?}", report.damaged);
    assert_eq!(report.hints, hints as u64);
    assert_eq!(
        held.created.load(Ordering::SeqCst),
        hints as u64,
        "number of hints written"
    );
    held.store.close().unwrap();
    let prepared = Way::Hints.prepare(&disk, DIRECTORY);
    assert_eq!(prepared.hints, hints as u64);
    prepared.assert_taken(open(&disk).recovery_report());
}

/// C14.
#[test]
fn a_store_that_is_closed_while_hints_are_renewed_closes_and_verify_says_so() {
    let (disk, _) = with_unfit_hints();
    let held = hold_a_renewal(&disk);
    let (verifying, closing) = (held.store.clone(), held.store.clone());
    let verify = std::thread::spawn(move || verifying.verify());
    let close = std::thread::spawn(move || closing.close());
    let namespace = held.store.namespace("N");
    // Until closing has reached the point at which it refuses writes.
    while let Ok(namespace) = &namespace
        && namespace.put("key", "value").is_ok()
    {
        std::thread::yield_now();
    }
    held.let_go.send(()).unwrap();
    close.join().unwrap().unwrap();
    match verify.join().unwrap() {
        Ok(report) => assert!(report.is_sound(), "{:?}", report.damaged),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Closed),
    }
    assert_eq!(held.store.flush().unwrap_err().kind(), ErrorKind::Closed);
}
