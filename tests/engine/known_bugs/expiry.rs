//! Many expiring keys, and expiries at the far end of time.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embercask::storage::MemStorage;
use embercask::{Clock, Durability, ErrorKind, ManualClock, PutOptions};

use test_support::way::Way;
use test_support::{DIRECTORY, class, keys, manual, until};

/// B17. A million keys would take too long without compiler optimisation.
#[test]
fn fifty_thousand_cold_keys_leave_memory_without_being_asked_for() {
    let disk = MemStorage::new();
    let clock = ManualClock::new(2_000_000_000_000);
    let open = |disk: &MemStorage, clock: &ManualClock| {
        manual(Arc::new(disk.clone()))
            .clock(clock.clone())
            .segment_bytes(1 << 20)
            .open(DIRECTORY)
            .unwrap()
    };
    let store = open(&disk, &clock);
    let namespace = store.namespace("N").unwrap();
    let cold = class(Durability::Buffered).ttl(Duration::from_secs(60));
    for n in 0..50_000 {
        namespace.put_with(format!("cold {n:06}"), "1", cold.clone()).unwrap();
    }
    store.maintain().unwrap();
    drop((store, namespace));
    // Including keys that this process did not put itself, however it loaded them.
    for way in Way::ALL {
        let (disk, clock) = (disk.crash_process(), ManualClock::new(clock.wall_ms()));
        let prepared = way.prepare(&disk, DIRECTORY);
        let store = open(&disk, &clock);
        prepared.assert_taken(store.recovery_report());
        let full = store.stats();
        assert_eq!(full.keys, 50_000, "{way:?}");
        clock.advance(60_000);
        store.maintain().unwrap();
        let swept = store.stats();
        assert_eq!(
            (swept.keys, swept.expired, swept.expired_not_swept),
            (0, 50_000, 0),
            "{way:?}"
        );
        assert!(
            swept.key_order_bytes < full.key_order_bytes / 10,
            "{way:?}: {} of {}",
            swept.key_order_bytes,
            full.key_order_bytes
        );
        clock.advance(10_000);
        store.compact_if_worthwhile().unwrap();
        let bytes = store.stats().segment_bytes;
        assert!(bytes < full.segment_bytes / 10, "{way:?}: {bytes}");
    }
}

/// B19, and the arithmetic around it at the far end of time.
#[test]
fn expiries_near_the_end_of_time_survive_everything() {
    let disk = MemStorage::new();
    let clock = ManualClock::new(u64::MAX - 100_000);
    let options = || manual(Arc::new(disk.clone())).clock(clock.clone());
    let store = options().open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    let ttl = |ms| PutOptions::new().ttl(Duration::from_millis(ms));
    namespace.put_with("last", "1", ttl(100_000)).unwrap();
    namespace.put_with("first", "1", ttl(1)).unwrap();
    assert_eq!(
        namespace.put_with("beyond", "1", ttl(100_001)).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    clock.advance(99_999);
    store.maintain().unwrap();
    store.compact().unwrap();
    assert_eq!(keys(&namespace), ["last"]);
    drop((store, namespace));
    let reopened = |way: Way| {
        let prepared = way.prepare(&disk, DIRECTORY);
        let store = options().open(DIRECTORY).unwrap();
        prepared.assert_taken(store.recovery_report());
        assert_eq!(keys(&store.open_namespace("N").unwrap()), ["last"], "{way:?}");
        store
    };
    for way in [Way::IndexFile, Way::Hints] {
        reopened(way).close().unwrap();
    }
    let store = reopened(Way::Records);
    clock.advance(1);
    assert_eq!(
        keys(&store.open_namespace("N").unwrap()),
        [""; 0],
        "a key expires exactly at its expiry, even here"
    );
}

/// Number of readings left until the channel is notified.
type Watch = (u64, Sender<()>);

/// A clock that notifies after a given number of readings.
#[derive(Clone, Debug)]
struct WatchedClock {
    time: ManualClock,
    watch: Arc<Mutex<Option<Watch>>>,
}

impl WatchedClock {
    fn new(wall_ms: u64) -> WatchedClock {
        WatchedClock {
            time: ManualClock::new(wall_ms),
            watch: Arc::default(),
        }
    }

    fn after_looks(&self, looks: u64) -> Receiver<()> {
        let (looked, watch) = mpsc::channel();
        *self.watch.lock().unwrap() = Some((looks, looked));
        watch
    }
}

impl Clock for WatchedClock {
    fn wall_ms(&self) -> u64 {
        let mut watch = self.watch.lock().unwrap();
        if let Some((looks, looked)) = &mut *watch {
            *looks -= 1;
            if *looks == 0 {
                // An error means that nothing waits for it any more.
                let _ = looked.send(());
                *watch = None;
            }
        }
        self.time.wall_ms()
    }

    fn monotonic_ms(&self) -> u64 {
        self.time.monotonic_ms()
    }
}

/// C14. Closing waits for the current step; a cleaning or a sweep that began earlier leaves the
/// queue complete.
#[test]
fn closing_beside_maintenance_saves_the_whole_expiry_queue() {
    const KEYS: u64 = 40_000;
    for looks in [1, 2, 4, 8, 16, 32] {
        let disk = MemStorage::new();
        let clock = WatchedClock::new(2_000_000_000_000);
        let options = || {
            manual(Arc::new(disk.clone()))
                .clock(clock.clone())
                .segment_bytes(4 << 20)
        };
        let store = options().open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        for n in 0..KEYS {
            // Some are due, so that the sweep has something to remove; the cleaning removes
            // everything.
            let ttl = Duration::from_secs(if n % 2 == 0 { 60 } else { 3_600 });
            let put = class(Durability::Buffered).ttl(ttl);
            namespace.put_with(format!("{n:06}"), "1", put).unwrap();
        }
        store.flush().unwrap();
        drop(namespace);
        clock.time.advance(60_000);
        // The sweep reads the clock at each of its roughly twenty steps. It gets this far, or to
        // its end, before the store is closed.
        let looked = clock.after_looks(looks);
        std::thread::scope(|scope| {
            let maintained = store.clone();
            let maintenance = scope.spawn(move || maintained.maintain());
            until("the sweep gets this far", || {
                looked.try_recv().is_ok() || maintenance.is_finished()
            });
            store.close().unwrap();
            if let Err(error) = maintenance.join().unwrap() {
                assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
            }
        });
        let store = options().open(DIRECTORY).unwrap();
        assert!(store.recovery_report().index_file_used);
        clock.time.advance(3_600_000);
        store.maintain().unwrap();
        let stats = store.stats();
        assert_eq!((stats.keys, stats.expired_not_swept), (0, 0), "after {looks} readings");
    }
}
