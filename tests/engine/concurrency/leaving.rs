//! Others write while keys leave the indexes.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embercask::storage::{Call, Interposed, Interposer, MemStorage, Operation};
use embercask::{Durability, ManualClock, Namespace, PutOptions, ReadMode, Store};

use crate::concurrency::{intact, value_of};
use test_support::{DIRECTORY, class, manual, until};

thread_local! {
    /// Whether this thread's reads wait for a put by another thread.
    static WAITS: Cell<bool> = const { Cell::new(false) };
}

/// Longer than a put takes on any machine. Only a put that is held up for good waits so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// A device on which, while it is slow, a read takes as long as a put of another thread.
#[derive(Debug)]
struct SlowDevice {
    is_slow: AtomicBool,
    ask: SyncSender<()>,
    answered: Mutex<Receiver<()>>,
    reads: AtomicU64,
    held_up: AtomicBool,
}

impl Interposer for SlowDevice {
    fn around(&self, call: &Call<'_>, make: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let is_slow = self.is_slow.load(Ordering::SeqCst) && !self.held_up.load(Ordering::SeqCst);
        if call.operation == Operation::Read && WAITS.get() && is_slow {
            self.reads.fetch_add(1, Ordering::SeqCst);
            self.ask.send(()).unwrap();
            let answer = self.answered.lock().unwrap().recv_timeout(PATIENCE);
            self.held_up.fetch_or(answer.is_err(), Ordering::SeqCst);
        }
        make()
    }
}

#[test]
fn a_put_is_done_while_a_record_of_a_key_that_leaves_is_being_read() {
    let (ask, asked) = sync_channel(1000);
    let (answer, answered) = sync_channel(1000);
    let device = Arc::new(SlowDevice {
        is_slow: AtomicBool::new(false),
        ask,
        answered: Mutex::new(answered),
        reads: AtomicU64::new(0),
        held_up: AtomicBool::new(false),
    });
    let clock = ManualClock::new(2_000_000_000_000);
    let store = manual(Arc::new(Interposed::over(Arc::new(MemStorage::new()), device.clone())))
        .clock(clock.clone())
        .read_mode(ReadMode::Pread)
        .open(DIRECTORY)
        .unwrap();
    let kept = store.namespace("kept").unwrap();
    let (expires, doomed) = (store.namespace("expires").unwrap(), store.namespace("doomed").unwrap());
    for n in 0..100 {
        let second = PutOptions::new().ttl(Duration::from_secs(1));
        expires.put_with(format!("{n}"), value_of(n), second).unwrap();
        doomed.put(format!("{n}"), value_of(n)).unwrap();
    }
    let seal = || {
        // Whatever is in the log so far leaves the memory of the active segment.
        for n in 0..100 {
            kept.put("fills", value_of(n)).unwrap();
        }
        store.maintain().unwrap();
    };
    std::thread::scope(|scope| {
        let (kept, device) = (&kept, &device);
        let writer = scope.spawn(move || {
            let mut puts = 0;
            while asked.recv().is_ok() && device.is_slow.load(Ordering::SeqCst) {
                kept.put_with("key", value_of(puts), class(Durability::Os)).unwrap();
                puts += 1;
                answer.send(()).unwrap();
            }
            puts
        });
        seal();
        WAITS.set(true);
        clock.advance(1000);
        store.drop_namespace("doomed").unwrap();
        device.is_slow.store(true, Ordering::SeqCst);
        store.maintain().unwrap();
        WAITS.set(false);
        device.is_slow.store(false, Ordering::SeqCst);
        device.ask.send(()).unwrap();
        assert!(!device.held_up.load(Ordering::SeqCst), "a put waited for a read");
        let reads = device.reads.load(Ordering::SeqCst);
        assert!(reads >= 200, "only {reads} reads");
        assert_eq!(writer.join().unwrap(), reads);
    });
    assert_eq!(store.stats().keys, 2, "only what is kept");
}

/// Writers of expiring keys, of a namespace that is dropped again and again, and of keys that stay,
/// beside sweeps, drops and the giving back of memory.
#[test]
fn writers_beside_sweeps_and_drops_lose_nothing_that_stays() {
    const KEYS: u64 = 3_000;
    let clock = ManualClock::new(2_000_000_000_000);
    let store = manual(Arc::new(MemStorage::new()))
        .clock(clock.clone())
        .segment_bytes(1 << 16)
        .open(DIRECTORY)
        .unwrap();
    let (first, second) = (store.namespace("first").unwrap(), store.namespace("second").unwrap());
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for (thread, namespace) in [(0, &first), (1, &second)] {
            let (store, done) = (&store, &done);
            scope.spawn(move || {
                write(store, namespace, thread, KEYS);
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        let mut rounds = 0;
        while done.load(Ordering::SeqCst) < 2 || rounds < 3 {
            clock.advance(10);
            store.maintain().unwrap();
            rounds += 1;
        }
    });
    clock.advance(1000);
    store.maintain().unwrap();
    for namespace in [&first, &second] {
        assert_eq!(namespace.count().unwrap(), KEYS / 3);
        for n in (0..KEYS).step_by(3) {
            let value = namespace.get(format!("{n}")).unwrap().unwrap();
            assert_eq!(intact(&value), n);
        }
    }
    let stats = store.stats();
    assert_eq!((stats.keys, stats.expired_not_swept), (2 * KEYS / 3, 0));
    let live: u64 = stats.segments.iter().map(|segment| segment.live_records).sum();
    assert_eq!(live, 2 * KEYS / 3 + 2, "with the records of the namespaces");
}

/// Of three keys one stays, one expires, and one expires and is then put to stay, and deleted.
fn write(store: &Store, namespace: &Namespace, thread: u64, keys: u64) {
    let buffered = || class(Durability::Buffered);
    let mut doomed = None;
    for n in 0..keys {
        let key = format!("{n}");
        let soon = buffered().ttl(Duration::from_millis(1 + n % 20));
        match n % 3 {
            0 => namespace.put_with(key, value_of(n), buffered()).unwrap(),
            1 => namespace.put_with(key, value_of(n), soon).unwrap(),
            _ => {
                namespace.put_with(&key, value_of(n), soon).unwrap();
                let put = namespace.put_with(&key, value_of(n + 1), buffered()).unwrap();
                assert_eq!(intact(&namespace.get(&key).unwrap().unwrap()), n + 1);
                namespace.delete_with(&key, None, Some(Durability::Buffered)).unwrap();
                put
            }
        };
        let name = format!("doomed {thread}");
        if n % 500 == 0 {
            doomed = Some(store.create_namespace(&name).unwrap());
        }
        if let Some(doomed) = &doomed {
            doomed.put_with(format!("{n}"), value_of(n), buffered()).unwrap();
        }
        if n % 500 == 499 {
            store.drop_namespace(&name).unwrap();
            doomed = None;
        }
    }
    drop(doomed);
    until("it was dropped", || {
        store
            .namespaces()
            .unwrap()
            .iter()
            .all(|found| !found.name.ends_with(&thread.to_string()))
    });
}
