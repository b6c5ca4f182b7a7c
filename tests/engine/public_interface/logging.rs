//! What happens in the background is said through the `log` facade.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{ManualClock, Options, PutOptions, Store};
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::public_interface::{buffered, small_segments, worth_a_run};
use test_support::until;

/// Called with each message, with no lock held.
type Listener = Box<dyn FnMut(Level, &str) + Send>;

type Shared = Arc<Mutex<Listener>>;

/// Hands each message to the listener for the directory that it ends with.
#[derive(Default)]
struct Listeners(Mutex<Vec<(&'static str, Shared)>>);

impl Log for Listeners {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if record.target() != "embercask" {
            return;
        }
        let message = record.args().to_string();
        let all = self.0.lock().unwrap().clone();
        for (directory, listener) in all {
            if message.contains(directory) {
                listener.lock().unwrap()(record.level(), &message);
            }
        }
    }

    fn flush(&self) {}
}

/// Listens to a store in this directory, which no other test uses.
fn listen(directory: &'static str, listener: impl FnMut(Level, &str) + Send + 'static) {
    static LISTENERS: OnceLock<Listeners> = OnceLock::new();
    let listeners = LISTENERS.get_or_init(Listeners::default);
    if log::set_logger(listeners).is_ok() {
        log::set_max_level(LevelFilter::Debug);
    }
    listeners
        .0
        .lock()
        .unwrap()
        .push((directory, Arc::new(Mutex::new(Box::new(listener)))));
}

/// All messages about a directory, from the first on.
fn heard(directory: &'static str) -> Arc<Mutex<Vec<(Level, String)>>> {
    let heard = Arc::<Mutex<Vec<_>>>::default();
    let all = heard.clone();
    listen(directory, move |level, message| {
        all.lock().unwrap().push((level, message.to_owned()))
    });
    heard
}

/// Checks that one message of this level, and no other since, says this.
#[track_caller]
fn says(heard: &Mutex<Vec<(Level, String)>>, level: Level, what: &str) {
    let heard = std::mem::take(&mut *heard.lock().unwrap());
    let [(found, message)] = &heard[..] else {
        panic!("{what}: {heard:?}");
    };
    assert!(*found == level && message.contains(what), "{what}: {heard:?}");
}

fn options(disk: &MemStorage) -> Options {
    small_segments(Arc::new(disk.clone())).clock(ManualClock::new(2_000_000_000_000))
}

#[test]
fn opening_compaction_and_large_sweeps_are_said() {
    let (disk, directory) = (MemStorage::new(), "/said/of work");
    let heard = heard(directory);
    let clock = ManualClock::new(2_000_000_000_000);
    let open = |disk: &MemStorage| options(disk).clock(clock.clone()).open(directory).unwrap();
    let store = open(&disk);
    says(&heard, Level::Info, "created: /said/of work");
    let namespace = store.namespace("N").unwrap();
    worth_a_run(&namespace);
    assert!(heard.lock().unwrap().is_empty());
    store.compact().unwrap();
    store.maintain().unwrap();
    let compacted = std::mem::take(&mut *heard.lock().unwrap());
    assert!(!compacted.is_empty());
    for (level, message) in compacted {
        assert!(level == Level::Debug && message.starts_with("compacted "), "{message}");
    }
    for (keys, is_said) in [(9_999, false), (10_000, true)] {
        for key in 0..keys {
            let options = buffered().ttl(Duration::from_secs(1));
            namespace.put_with(format!("expiring {key}"), "", options).unwrap();
        }
        clock.advance(1000);
        store.maintain().unwrap();
        match is_said {
            true => says(&heard, Level::Debug, "removed 10000 expired keys from memory"),
            false => assert!(heard.lock().unwrap().is_empty()),
        }
    }
    // After a kill, and after a close.
    namespace.put("key", "value").unwrap();
    let killed = disk.crash_process();
    let recovered = open(&killed);
    says(&heard, Level::Info, "bytes that were not known to be durable");
    recovered.close().unwrap();
    drop(open(&killed));
    says(&heard, Level::Info, "opened with 401 keys");
}

#[test]
fn a_full_disk_damage_and_a_failed_sync_are_said_once_each() {
    let (disk, directory) = (MemStorage::new(), "/said/of trouble");
    let heard = heard(directory);
    let faults = FaultStorage::new(Arc::new(disk.clone()));
    let store = small_segments(Arc::new(faults.clone())).open(directory).unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "value").unwrap();
    heard.lock().unwrap().clear();

    disk.set_capacity(Some(disk.used()));
    let refused = (0..100).find_map(|n| namespace.put(n.to_string(), [7; 1000]).err());
    assert!(refused.is_some());
    let _ = store.maintain();
    let _ = store.maintain();
    says(&heard, Level::Warn, "the disk is full");
    disk.set_capacity(None);
    namespace.put("key", "value").unwrap();
    store.maintain().unwrap();
    says(&heard, Level::Warn, "there is room on the disk again");

    faults.inject(Fault::new(FaultKind::FailedSync).on(Operation::Sync));
    namespace.put("key", "value").unwrap_err();
    for _ in 0..3 {
        let _ = store.maintain();
    }
    let all = heard.lock().unwrap().clone();
    let errors: Vec<_> = all.iter().filter(|(level, _)| *level == Level::Error).collect();
    assert_eq!(errors.len(), 1, "{all:?}");
    assert!(
        errors[0]
            .1
            .contains("writes are refused until the store is opened again")
    );
}

#[test]
fn threads_say_what_they_did_while_they_hold_no_lock() {
    let directory = "/said/by threads";
    let namespace = Arc::<OnceLock<embercask::Namespace>>::default();
    let (called, stored) = (Arc::<Mutex<u64>>::default(), namespace.clone());
    let calls = called.clone();
    // A logger that keeps its messages in the store: with a lock held this would never return.
    listen(directory, move |_, message| {
        let Some(namespace) = stored.get() else { return };
        namespace.put_with("message", message, PutOptions::new()).unwrap();
        assert!(namespace.store().stats().poisoned.is_none());
        *calls.lock().unwrap() += 1;
    });
    let store = Store::options()
        .segment_bytes(16 << 10)
        .storage(Arc::new(MemStorage::new()));
    let store = store.open(directory).unwrap();
    namespace.set(store.namespace("N").unwrap()).unwrap();
    let data = store.namespace("data").unwrap();
    for _ in 0..3 {
        worth_a_run(&data);
    }
    until("a compaction is said", || *called.lock().unwrap() > 0);
    let message = namespace.get().unwrap().get_text("message").unwrap().unwrap();
    assert!(message.starts_with("compacted "), "{message}");
    store.pause_compaction();
}
