//! Writes that failed to be written out and cannot be rolled back either, because acknowledged
//! writes follow them.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embercask::storage::{MemStorage, Operation};
use embercask::{Condition, Durability, Error, ErrorKind, Namespace, PutOptions, Result, Store};

use test_support::hooked::Hooked;
use test_support::{DIRECTORY, class, keys, manual, open, text};

/// A store whose next writes to segments fail; while the first of them is running, another thread's
/// `Buffered` put is acknowledged behind it.
struct World {
    disk: MemStorage,
    fails: Arc<AtomicBool>,
    behind: Arc<Mutex<Option<Namespace>>>,
    store: Store,
    namespace: Namespace,
}

impl World {
    /// Once [`World::fail`] was called, writes fail with this error as long as `while_true` holds.
    fn new(error: io::ErrorKind, while_true: fn(&MemStorage) -> bool) -> World {
        let disk = MemStorage::new();
        let fails = Arc::new(AtomicBool::new(false));
        let behind = Arc::new(Mutex::new(None::<Namespace>));
        let (hook_disk, hook_fails, hook_behind) = (disk.clone(), fails.clone(), behind.clone());
        let storage = Hooked::over(&disk, move |operation, path| {
            let on_segment = path.to_string_lossy().ends_with(".segment");
            if operation != Operation::Write || !on_segment || !hook_fails.load(Ordering::Relaxed) {
                return Ok(());
            }
            let behind = hook_behind.lock().unwrap().take();
            if let Some(namespace) = behind {
                namespace.put_with("behind", "1", class(Durability::Buffered)).unwrap();
            }
            if while_true(&hook_disk) {
                Err(error.into())
            } else {
                Ok(())
            }
        });
        let store = manual(storage).open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        namespace.put("key", "old").unwrap();
        namespace.put("other", "old").unwrap();
        World {
            disk,
            fails,
            behind,
            store,
            namespace,
        }
    }

    fn fail(&self) {
        *self.behind.lock().unwrap() = Some(self.namespace.clone());
        self.fails.store(true, Ordering::Relaxed);
    }
}

fn always(_: &MemStorage) -> bool {
    true
}

/// Until the reserve is released.
fn reserve_stands(disk: &MemStorage) -> bool {
    disk.read_file(format!("{DIRECTORY}/RESERVE")).unwrap().len() > 4096
}

/// C6: the second attempt, with the reserve released, used to see the effect of the first.
#[test]
fn a_delete_that_stays_pending_on_a_full_disk_is_not_judged_again() {
    let world = World::new(io::ErrorKind::StorageFull, always);
    let sequence = world.namespace.get("key").unwrap().unwrap().sequence();
    world.fail();
    let error = world
        .namespace
        .delete_if("key", Condition::Sequence(sequence))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(matches!(error, Error::Pending { .. }), "{error:?}");
    // It has been applied, and is written out along with the acknowledged write behind it.
    assert_eq!(keys(&world.namespace), ["behind", "other"]);
    world.fails.store(false, Ordering::Relaxed);
    world.store.flush().unwrap();
    let killed = open(&world.disk.crash_process()).open_namespace("N").unwrap();
    assert_eq!(keys(&killed), ["behind", "other"]);
}

/// C6: once the reserve makes room, the delete is written out, and returns what it found when it
/// was first applied.
#[test]
fn a_delete_for_which_the_reserve_makes_room_tells_of_its_first_attempt() {
    let world = World::new(io::ErrorKind::StorageFull, reserve_stands);
    let sequence = world.namespace.get("key").unwrap().unwrap().sequence();
    world.fail();
    let deleted = world.namespace.delete_if("key", Condition::Sequence(sequence)).unwrap();
    assert!(deleted.existed);
    let killed = open(&world.disk.crash_process()).open_namespace("N").unwrap();
    assert_eq!(keys(&killed), ["behind", "other"]);
}

/// C6: for any kind of write, and any reason for not being written out.
#[test]
fn a_write_that_stays_pending_says_so_and_is_written_out_with_what_lies_behind_it() {
    type Write = fn(&World) -> Result<()>;
    let writes: [(&str, Write, &[&str]); 7] = [
        (
            "put",
            |w| w.namespace.put("new", "1").map(drop),
            &["behind", "key", "new", "other"],
        ),
        (
            "overwrite",
            |w| w.namespace.put("key", "1").map(drop),
            &["behind", "key", "other"],
        ),
        (
            "conditional put",
            |w| w.namespace.put_if("new", "1", Condition::Absent).map(drop),
            &["behind", "key", "new", "other"],
        ),
        ("delete", |w| w.namespace.delete("key").map(drop), &["behind", "other"]),
        (
            "batch",
            |w| {
                w.store
                    .batch()
                    .delete(&w.namespace, "key")
                    .put(&w.namespace, "new", "1")
                    .commit()
                    .map(drop)
            },
            &["behind", "new", "other"],
        ),
        (
            "batch of deletes",
            |w| {
                w.store
                    .batch()
                    .delete_if(&w.namespace, "key", Condition::Present)
                    .delete(&w.namespace, "other")
                    .commit()
                    .map(drop)
            },
            &["behind"],
        ),
        (
            "lifetime",
            |w| w.namespace.set_ttl("key", Duration::from_secs(1_000)).map(drop),
            &["behind", "key", "other"],
        ),
    ];
    for (error_kind, expected_kind) in [
        (io::ErrorKind::StorageFull, ErrorKind::NoSpace),
        (io::ErrorKind::Other, ErrorKind::Io),
    ] {
        for (name, write, expected) in writes {
            let world = World::new(error_kind, always);
            world.fail();
            let error = write(&world).unwrap_err();
            assert!(matches!(error, Error::Pending { .. }), "{name}: {error:?}");
            assert_eq!(error.kind(), expected_kind, "{name}");
            assert_eq!(keys(&world.namespace), expected, "{name}");
            // A call that applied nothing returns only the cause.
            let flushed = world.store.flush().unwrap_err();
            assert!(!matches!(flushed, Error::Pending { .. }), "{name}: {flushed:?}");
            let absent = world.namespace.delete("absent").unwrap_err();
            assert!(!matches!(absent, Error::Pending { .. }), "{name}: {absent:?}");
            // A write that can be rolled back is rolled back.
            let lost = world.namespace.put_with("lost", "1", PutOptions::new()).unwrap_err();
            assert!(!matches!(lost, Error::Pending { .. }), "{name}: {lost:?}");
            assert_eq!(keys(&world.namespace), expected, "{name}");
            world.fails.store(false, Ordering::Relaxed);
            world.store.sync().unwrap();
            let killed = open(&world.disk.crash_process()).open_namespace("N").unwrap();
            assert_eq!(keys(&killed), expected, "{name}");
            assert_eq!(text(&killed, "behind").as_deref(), Some("1"), "{name}");
        }
    }
}

/// A `Buffered` write that has to write out, because too much is pending already, is rolled back if
/// that fails.
#[test]
fn a_buffered_put_that_has_to_write_out_and_cannot_leaves_nothing_behind() {
    let fails = Arc::new(AtomicBool::new(false));
    let hook_fails = fails.clone();
    let disk = MemStorage::new();
    let storage = Hooked::over(&disk, move |operation, path| {
        let on_segment = path.to_string_lossy().ends_with(".segment");
        match operation == Operation::Write && on_segment && hook_fails.load(Ordering::Relaxed) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    });
    let store = manual(storage).segment_bytes(16 << 20).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    fails.store(true, Ordering::Relaxed);
    let put = |key: &str| namespace.put_with(key, vec![7; 3 << 20], class(Durability::Buffered));
    put("first").unwrap();
    let error = put("second").unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
    assert_eq!(keys(&namespace), ["first"]);
}
