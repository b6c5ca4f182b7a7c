//! What a program may do from within its functions that the library calls: nothing waits for
//! itself.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation, Storage};
use embercask::{Clock, Error, ManualClock, Namespace, Options, PutOptions, Store, Update, inspect, salvage_with};
use test_support::DIRECTORY;

/// Longer than any of these calls takes even on a busy machine. Only a call that waits for itself
/// reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

type Job = Box<dyn FnOnce() + Send>;

/// What a function of the program does when it is called the next time.
#[derive(Clone, Default)]
struct Slot(Arc<Mutex<Option<Job>>>);

impl Slot {
    fn run(&self) {
        let call = self.0.lock().unwrap().take();
        if let Some(call) = call {
            call();
        }
    }
}

impl Wake for Slot {
    fn wake(self: Arc<Self>) {
        self.run();
    }
}

/// A clock that does what is in the slot, once it may.
struct Calling {
    clock: ManualClock,
    slot: Slot,
    may: Arc<AtomicBool>,
}

impl std::fmt::Debug for Calling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Calling")
    }
}

impl Clock for Calling {
    fn wall_ms(&self) -> u64 {
        if self.may.load(Ordering::SeqCst) {
            self.slot.run();
        }
        self.clock.wall_ms()
    }

    fn monotonic_ms(&self) -> u64 {
        self.clock.monotonic_ms()
    }
}

/// A store with a few sealed segments, one that reads beside it, and a closed copy.
struct World {
    faults: FaultStorage,
    storage: Arc<dyn Storage>,
    store: Store,
    namespace: Namespace,
    reader: Store,
    slot: Slot,
    clock_calls: Arc<AtomicBool>,
}

impl World {
    fn new() -> World {
        let faults = FaultStorage::new(Arc::new(MemStorage::new()));
        let storage: Arc<dyn Storage> = Arc::new(faults.clone());
        let (slot, clock_calls) = (Slot::default(), Arc::new(AtomicBool::new(false)));
        let clock = Calling {
            clock: ManualClock::new(1_700_000_000_000),
            slot: slot.clone(),
            may: clock_calls.clone(),
        };
        let options = options(&storage).clock(clock);
        let store = options.open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        for n in 0..100 {
            namespace.put(format!("key {n:03}"), "x".repeat(100)).unwrap();
        }
        store.checkpoint("/copy").unwrap();
        let called = slot.clone();
        let reader = options_of_reader(&storage)
            .on_recovery_progress(move |_| called.run())
            .open(DIRECTORY)
            .unwrap();
        World {
            faults,
            storage,
            store,
            namespace,
            reader,
            slot,
            clock_calls,
        }
    }
}

fn options(storage: &Arc<dyn Storage>) -> Options {
    Store::options().segment_bytes(4096).storage(storage.clone())
}

fn options_of_reader(storage: &Arc<dyn Storage>) -> Options {
    options(storage).read_only(true)
}

/// Which calls a function of the program may make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Calls {
    /// Any.
    All,
    /// Those that do not wait for the call that the function is of.
    ThatDoNotWait,
    None,
}

/// A function of the program: its name, what it may do, and a call that calls it. The function does
/// what is in the slot.
type Function = (&'static str, Calls, fn(&World));

const FUNCTIONS: [Function; 14] = [
    ("put_when", Calls::None, |w| {
        let _ = w.namespace.put_when("key 001", "y", &PutOptions::new(), |_| {
            w.slot.run();
            true
        });
    }),
    ("delete_when", Calls::None, |w| {
        let _ = w.namespace.delete_when("key 001", None, |_| {
            w.slot.run();
            true
        });
    }),
    ("update", Calls::None, |w| {
        let _ = w.namespace.update("key 001", |_| {
            w.slot.run();
            Update::Delete
        });
    }),
    ("on_recovery_progress", Calls::None, |w| {
        w.namespace.put("key 001", "y").unwrap();
        let _ = w.reader.refresh();
    }),
    ("a clock", Calls::None, |w| {
        w.clock_calls.store(true, Ordering::SeqCst);
        let _ = w
            .namespace
            .put_with("key 001", "y", PutOptions::new().ttl(Duration::from_secs(60)));
    }),
    ("a waker", Calls::None, |w| {
        let mut watch = w.namespace.watch("").unwrap();
        let waker = Waker::from(Arc::new(w.slot.clone()));
        assert!(watch.poll_next(&mut Context::from_waker(&waker)).is_pending());
        w.namespace.put("key 001", "y").unwrap();
        w.store.sync().unwrap();
    }),
    ("checkpoint_with", Calls::ThatDoNotWait, |w| {
        let _ = w.store.checkpoint_with("/another", |_| {
            w.slot.run();
            true
        });
    }),
    ("Store::verify_with", Calls::All, |w| {
        let _ = w.store.verify_with(|_| {
            w.slot.run();
            true
        });
    }),
    ("verify_with", Calls::All, |w| {
        let _ = embercask::verify_with("/copy", &options(&w.storage), |_| {
            w.slot.run();
            true
        });
    }),
    ("salvage_with", Calls::All, |w| {
        let _ = salvage_with("/copy", "/saved", options(&w.storage), |_| {
            w.slot.run();
            true
        });
    }),
    ("inspect", Calls::All, |w| {
        let _ = inspect("/copy/MANIFEST", &options(&w.storage), |_| {
            w.slot.run();
            true
        });
    }),
    ("DeleteRange::on_progress", Calls::All, |w| {
        let deleting = w.namespace.delete_prefix("").batch_keys(10);
        let _ = deleting
            .on_progress(|_| {
                w.slot.run();
                true
            })
            .run();
    }),
    ("transaction", Calls::All, |w| {
        let _ = w.store.transaction(|transaction| {
            let read = transaction.get(&w.namespace, "key 001").map(drop);
            w.slot.run();
            transaction.put(&w.namespace, "key 002", "y")?;
            read
        });
    }),
    ("Walk::for_each", Calls::All, |w| {
        let _ = w.namespace.list().walk().for_each(|_| {
            w.slot.run();
            ControlFlow::<()>::Continue(())
        });
    }),
];

/// A call: its name, whether it waits for a checkpoint that is under way, and the call.
type Call = (&'static str, bool, fn(&World) -> embercask::Result<()>);

const CALLS: [Call; 34] = [
    ("get", false, |w| w.namespace.get("key 003").map(drop)),
    ("get_many", false, |w| w.namespace.get_many(&["key 003"]).map(drop)),
    ("contains", false, |w| w.namespace.contains("key 003").map(drop)),
    ("count", false, |w| w.namespace.count().map(drop)),
    ("page", false, |w| w.namespace.list().page().map(drop)),
    ("put", false, |w| w.namespace.put("new", "y").map(drop)),
    ("delete", false, |w| w.namespace.delete("key 003").map(drop)),
    ("update", false, |w| {
        w.namespace.update("key 003", |_| Update::Keep).map(drop)
    }),
    ("increment", false, |w| w.namespace.increment("number", 1).map(drop)),
    ("delete_prefix", false, |w| {
        w.namespace.delete_prefix("key 00").run().map(drop)
    }),
    ("watch", false, |w| w.namespace.watch("").map(drop)),
    ("set_default_ttl", false, |w| {
        w.namespace.set_default_ttl(Some(Duration::from_secs(60)))
    }),
    ("commit", false, |w| {
        w.store.batch().put(&w.namespace, "new", "y").commit().map(drop)
    }),
    ("transaction", false, |w| {
        w.store
            .transaction(|transaction| transaction.put(&w.namespace, "new", "y"))
    }),
    ("snapshot", false, |w| w.store.snapshot().map(drop)),
    ("snapshots", false, |w| w.store.snapshots().map(drop)),
    ("namespaces", false, |w| w.store.namespaces().map(drop)),
    ("namespace_stats", false, |w| w.store.namespace_stats().map(drop)),
    ("create_namespace", false, |w| {
        w.store.create_namespace("another").map(drop)
    }),
    ("rename_namespace", false, |w| w.store.rename_namespace("N", "another")),
    ("drop_namespace", false, |w| w.store.drop_namespace("N")),
    ("flush", false, |w| w.store.flush()),
    ("sync", false, |w| w.store.sync()),
    ("maintain", false, |w| w.store.maintain()),
    ("verify", false, |w| w.store.verify().map(drop)),
    ("refresh", false, |w| w.store.refresh().map(drop)),
    ("refresh of a reader", false, |w| w.reader.refresh().map(drop)),
    ("close of a reader", false, |w| {
        // Closing is refused where a call could wait for it, though that of a reader waits for
        // nothing.
        w.reader.clone().close()
    }),
    ("wait_idle", true, |w| {
        w.store.wait_idle(Duration::from_secs(3600)).map(drop)
    }),
    ("compact", true, |w| w.store.compact().map(drop)),
    ("compact_if_worthwhile", true, |w| {
        w.store.compact_if_worthwhile().map(drop)
    }),
    ("checkpoint", true, |w| w.store.checkpoint("/third").map(drop)),
    ("checkpoint_with", true, |w| {
        w.store.checkpoint_with("/third", |_| true).map(drop)
    }),
    ("close", true, |w| w.store.clone().close()),
];

fn is_refused(answer: &embercask::Result<()>) -> bool {
    let texts = ["is called from within", "would wait for the checkpoint"];
    matches!(answer, Err(Error::InvalidInput { what }) if texts.iter().any(|text| what.contains(text)))
}

/// The answer of a call that is made from within a function of the program. Fails if it waits for
/// itself.
#[track_caller]
fn answer_within(function: Function, call: Call) -> embercask::Result<()> {
    let ((within, _, calls_it), (name, _, call)) = (function, call);
    let (answers, answer) = channel();
    let (ends, end) = channel();
    let world = Arc::new(World::new());
    let inside = Arc::downgrade(&world);
    *world.slot.0.lock().unwrap() = Some(Box::new(move || {
        // Held by the thread that makes the outer call.
        let world = inside.upgrade().unwrap();
        answers.send(call(&world)).unwrap();
    }));
    thread::spawn(move || {
        calls_it(&world);
        world.clock_calls.store(false, Ordering::SeqCst);
        drop(world);
        ends.send(()).unwrap();
    });
    let waits = |error| panic!("{name} within {within}: {error}: it waits for itself");
    // The sender is dropped if the function was never called.
    let answer: embercask::Result<()> = answer.recv_timeout(PATIENCE).unwrap_or_else(waits);
    match end.recv_timeout(PATIENCE) {
        Err(RecvTimeoutError::Timeout) => panic!("{within} does not return after {name}"),
        Err(RecvTimeoutError::Disconnected) => panic!("{within} panics after {name}"),
        Ok(()) => answer,
    }
}

#[test]
fn no_call_from_within_a_function_of_the_program_waits_for_itself() {
    for function in FUNCTIONS {
        for call in CALLS {
            let ((within, may, _), (name, waits, _)) = (function, call);
            println!("{name} within {within}");
            let answer = answer_within(function, call);
            let is_free = may == Calls::All || may == Calls::ThatDoNotWait && !waits;
            assert_eq!(is_refused(&answer), !is_free, "{name} within {within}: {answer:?}");
            if is_free {
                answer.unwrap_or_else(|error| panic!("{name} within {within}: {error}"));
            }
        }
    }
}

#[test]
fn a_delete_within_a_checkpoint_does_not_wait_for_compaction_to_make_room() {
    let full: Call = ("delete", false, |w| {
        w.faults.inject(
            Fault::new(FaultKind::Error(std::io::ErrorKind::StorageFull))
                .on(Operation::Write)
                .repeated(),
        );
        let deleted = w.namespace.delete("key 003").map(drop);
        w.faults.clear();
        deleted
    });
    let checkpoint = FUNCTIONS.into_iter().find(|(name, ..)| *name == "checkpoint_with");
    let answer = answer_within(checkpoint.unwrap(), full);
    assert!(matches!(answer, Err(Error::NoSpace { .. })), "{answer:?}");
}

/// A task that an executor has given up lives in its waker, and with it the last handle.
#[test]
fn the_last_handle_may_be_dropped_by_a_waker() {
    let disk: Arc<dyn Storage> = Arc::new(MemStorage::new());
    let open = || {
        let options = Store::options().flush_interval(Duration::from_millis(1));
        options.storage(disk.clone()).open(DIRECTORY)
    };
    let store = open().unwrap();
    let namespace = store.namespace("N").unwrap();
    let mut watch = namespace.watch("").unwrap();
    let slot = Slot::default();
    let waker = Waker::from(Arc::new(slot.clone()));
    assert!(watch.poll_next(&mut Context::from_waker(&waker)).is_pending());
    // Told by the thread that writes it out, unless that has not come to it.
    let buffered = PutOptions::new().durability(embercask::Durability::Buffered);
    let own = namespace.clone();
    *slot.0.lock().unwrap() = Some(Box::new(move || drop((own, watch))));
    drop((store, namespace.put_with("key", "value", buffered).unwrap(), namespace));
    // Closed on another thread, sooner or later.
    let mut again = None;
    embercask::testing::until("the store is closed", || {
        again = open().ok();
        again.is_some()
    });
    let again = again.unwrap();
    assert_eq!(
        again.namespace("N").unwrap().get_text("key").unwrap().as_deref(),
        Some("value")
    );
}
