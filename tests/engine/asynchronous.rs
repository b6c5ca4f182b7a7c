//! Asynchronous writes: what they promise, and that they never wait on the thread that polls them.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::Poll;
use std::thread::ThreadId;

use embercask::storage::{CutPolicy, Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{Condition, Durability, Error, ErrorKind, Namespace, Options, PutOptions, RingMode, Store};
use test_support::future::{block_on, poll_once};
use test_support::hooked::Hooked;
use test_support::{DIRECTORY, class, manual, open, text};

const CLASSES: [Durability; 3] = [Durability::Sync, Durability::Os, Durability::Buffered];

/// Options with a disk that calls `hook` before each call that changes anything.
fn hooked(disk: &MemStorage, hook: impl Fn(Operation) + Send + Sync + 'static) -> Options {
    manual(Hooked::over(disk, move |operation, _| {
        hook(operation);
        Ok(())
    }))
}

/// Holds the calls of others that sync until it is opened.
#[derive(Default)]
struct Gate {
    is_shut: Mutex<bool>,
    opened: Condvar,
    syncs: AtomicU64,
}

impl Gate {
    fn pass(&self, operation: Operation) {
        if operation == Operation::Sync {
            self.syncs.fetch_add(1, Ordering::SeqCst);
            let shut = self.is_shut.lock().unwrap();
            drop(self.opened.wait_while(shut, |shut| *shut).unwrap());
        }
    }

    fn set(&self, is_shut: bool) {
        *self.is_shut.lock().unwrap() = is_shut;
        self.opened.notify_all();
    }
}

#[test]
fn they_write_what_the_others_write() {
    let store = open(&MemStorage::new());
    let namespace = store.namespace("N").unwrap();
    for durability in CLASSES {
        let sequence = block_on(namespace.put_with_async("k", "v", class(durability).metadata("m"))).unwrap();
        let value = namespace.get("k").unwrap().unwrap();
        assert_eq!(
            (value.as_bytes(), value.metadata(), value.sequence()),
            (&b"v"[..], Some(&b"m"[..]), sequence)
        );
        let absent = PutOptions::new().durability(durability).condition(Condition::Absent);
        let refused = block_on(namespace.put_with_async("k", "other", absent)).unwrap_err();
        assert!(matches!(refused, Error::Conflict { found: Some(found) } if found == sequence));
        let deleted = block_on(namespace.delete_with_async("k", None, Some(durability))).unwrap();
        assert!(deleted.existed && namespace.get("k").unwrap().is_none());
        let deleted = block_on(namespace.delete_with_async("k", None, Some(durability))).unwrap();
        assert!(!deleted.existed);
    }
    let mut batch = store.batch();
    batch
        .put(&namespace, "a", "1")
        .put(&namespace, "b", "2")
        .delete(&namespace, "a");
    block_on(batch.commit_async()).unwrap();
    assert!(batch.is_empty());
    assert_eq!(
        (text(&namespace, "a"), text(&namespace, "b")),
        (None, Some("2".to_owned()))
    );

    // A batch that is refused is as it was.
    batch
        .put(&namespace, "c", "3")
        .delete_if(&namespace, "b", Condition::Absent);
    let refused = block_on(batch.commit_async()).unwrap_err();
    assert_eq!((refused.kind(), batch.len()), (ErrorKind::Conflict, 2));

    let too_long = block_on(namespace.put_async("k", vec![0; 1 << 30 | 1])).unwrap_err();
    assert_eq!(too_long.kind(), ErrorKind::InvalidInput);
    let other = store.namespace("dropped").unwrap();
    store.drop_namespace("dropped").unwrap();
    assert_eq!(
        block_on(other.put_async("k", "v")).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    store.clone().close().unwrap();
    assert!(matches!(block_on(namespace.put_async("k", "v")), Err(Error::Closed)));
    assert!(matches!(block_on(namespace.delete_async("k")), Err(Error::Closed)));
    assert!(matches!(block_on(store.sync_async()), Err(Error::Closed)));
    assert!(matches!(block_on(batch.commit_async()), Err(Error::Closed)));
}

/// Through rotations of small segments, a ring that fills up, and all classes.
#[test]
fn the_thread_that_polls_makes_no_call_to_the_device() {
    for ring in [RingMode::Never, RingMode::Always] {
        let (disk, poller) = (MemStorage::new(), Arc::new(Mutex::new(None::<ThreadId>)));
        let allowed = poller.clone();
        let options = hooked(&disk, move |operation| {
            let is_of_poller = *allowed.lock().unwrap() == Some(std::thread::current().id());
            assert!(!is_of_poller, "{operation:?} on the thread that polls");
        });
        let store = options.ring(ring).open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        *poller.lock().unwrap() = Some(std::thread::current().id());
        let mut at_once = 0;
        for round in 0..3000 {
            let durability = CLASSES[round % 3];
            let key = format!("key {}", round % 100);
            let put = namespace.put_with_async(&key, vec![b'v'; round % 300], class(durability));
            let mut put = pin!(put);
            match poll_once(put.as_mut()) {
                Poll::Ready(put) => {
                    put.unwrap();
                    at_once += 1;
                }
                Poll::Pending => {
                    block_on(put).unwrap();
                }
            }
            if round % 7 == 0 {
                assert!(
                    block_on(namespace.delete_with_async(&key, None, Some(durability)))
                        .unwrap()
                        .existed
                );
            }
        }
        block_on(store.sync_async()).unwrap();
        // Those of class `Buffered`; with a ring, those of class `Os`.
        let least = if ring == RingMode::Always { 1200 } else { 600 };
        assert!(at_once >= least, "{at_once} with {ring:?}");
        *poller.lock().unwrap() = None;
    }
}

#[test]
fn what_is_acknowledged_with_class_sync_survives_a_power_cut() {
    for ring in [RingMode::Never, RingMode::Always] {
        let disk = MemStorage::new();
        let options = manual(Arc::new(disk.clone())).ring(ring);
        let store = options.open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        let check = |key: &str, present: bool| {
            let cut = open(&disk.power_cut(&CutPolicy::LoseUnsynced));
            let found = text(&cut.namespace("N").unwrap(), key).is_some();
            assert_eq!(found, present, "{key} with {ring:?}");
        };
        block_on(namespace.put_with_async("a", "v", class(Durability::Sync))).unwrap();
        check("a", true);
        block_on(namespace.delete_with_async("a", None, Some(Durability::Sync))).unwrap();
        check("a", false);
        let mut batch = store.batch();
        batch.durability(Durability::Sync).put(&namespace, "b", "v");
        block_on(batch.commit_async()).unwrap();
        check("b", true);
        block_on(namespace.put_with_async("c", "v", class(Durability::Os))).unwrap();
        check("c", false);
        block_on(store.sync_async()).unwrap();
        check("c", true);
    }
}

#[test]
fn those_that_wait_at_the_same_time_share_a_sync_and_no_other_write_waits_for_it() {
    const PUTS: usize = 50;
    let (disk, gate) = (MemStorage::new(), Arc::new(Gate::default()));
    let passed = gate.clone();
    let options = hooked(&disk, move |operation| passed.pass(operation)).segment_bytes(1 << 20);
    let store = options.ring(RingMode::Always).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    // Makes the ring.
    block_on(namespace.put_with_async("k", "v", class(Durability::Os))).unwrap();
    gate.set(true);
    let before = gate.syncs.load(Ordering::SeqCst);
    let puts = (0..PUTS).map(|index| {
        let namespace = namespace.clone();
        Box::pin(async move {
            let key = format!("key {index}");
            namespace.put_with_async(key, "v", class(Durability::Sync)).await
        })
    });
    let mut puts: Vec<_> = puts.collect();
    for put in &mut puts {
        assert!(poll_once(put.as_mut()).is_pending());
    }
    // Others are acknowledged meanwhile, without and with the other thread.
    for durability in [Durability::Os, Durability::Buffered] {
        block_on(namespace.put_with_async("other", "v", class(durability))).unwrap();
    }
    let mut batch = store.batch();
    batch.durability(Durability::Buffered).put(&namespace, "another", "v");
    block_on(batch.commit_async()).unwrap();
    // It came behind all puts that were handed over: they can be read.
    assert_eq!(namespace.count().unwrap(), PUTS as u64 + 3);
    gate.set(false);
    for put in puts {
        block_on(put).unwrap();
    }
    let syncs = gate.syncs.load(Ordering::SeqCst) - before;
    assert!((1..=3).contains(&syncs), "{syncs} syncs for {PUTS} puts");
}

/// Whether it was polled, and whether anybody waits for it: each put is there as a whole, or not.
#[test]
fn a_future_that_is_dropped_leaves_its_write_done_or_not_done() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    drop(namespace.put_async("never polled", "v"));
    assert_eq!(namespace.count().unwrap(), 0);
    for index in 0..300 {
        let durability = CLASSES[index % 3];
        let (first, second) = (format!("a {index}"), format!("b {index}"));
        let mut batch = store.batch();
        batch.durability(durability);
        batch.put(&namespace, first, "v").put(&namespace, second, "v");
        let mut commit = Box::pin(batch.commit_async());
        // The other thread may have been faster.
        let _ = poll_once(commit.as_mut());
        drop(commit);
        assert!(batch.is_empty());
        let key = format!("c {index}");
        let mut put = Box::pin(namespace.put_with_async(key, vec![b'v'; 200], class(durability)));
        let _ = poll_once(put.as_mut());
    }
    // Behind all that were handed over.
    let mut last = store.batch();
    block_on(last.put(&namespace, "last", "v").commit_async()).unwrap();
    store.sync().unwrap();
    drop(namespace);
    drop(last);
    drop(store);
    let reopened = open(&disk).namespace("N").unwrap();
    for index in 0..300 {
        let keys = [format!("a {index}"), format!("b {index}")];
        assert!(reopened.get_many(&keys).unwrap().iter().all(Option::is_some), "{index}");
        assert_eq!(reopened.get(format!("c {index}")).unwrap().unwrap().len(), 200);
    }
}

#[test]
fn closing_ends_those_that_wait() {
    let (disk, gate) = (MemStorage::new(), Arc::new(Gate::default()));
    let passed = gate.clone();
    let store = hooked(&disk, move |operation| passed.pass(operation))
        .open(DIRECTORY)
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    gate.set(true);
    let mut put = Box::pin(namespace.put_with_async("k", "v", class(Durability::Sync)));
    assert!(poll_once(put.as_mut()).is_pending());
    let closing = {
        let store = store.clone();
        std::thread::spawn(move || store.close())
    };
    gate.set(false);
    closing.join().unwrap().unwrap();
    // What it says depends on which was first; what is acknowledged is there.
    let ended = block_on(put);
    let reopened = open(&disk);
    let is_there = text(&reopened.namespace("N").unwrap(), "k").is_some();
    assert!(is_there || matches!(ended, Err(Error::Closed)), "{ended:?}");
}

#[test]
fn a_sync_that_fails_fails_those_that_wait_for_it() {
    let faults = FaultStorage::new(Arc::new(MemStorage::new()));
    let store = manual(Arc::new(faults.clone())).open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    faults.inject(Fault::new(FaultKind::FailedSync).on(Operation::Sync));
    let failed = block_on(namespace.put_with_async("k", "v", class(Durability::Sync))).unwrap_err();
    assert_eq!(faults.struck(), 1, "{failed}");
    let refused = block_on(namespace.put_with_async("k", "v", class(Durability::Buffered))).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Poisoned);
    assert_eq!(block_on(store.sync_async()).unwrap_err().kind(), ErrorKind::Poisoned);
}

/// What did not fit was not done; what was acknowledged stays; deletes go on.
#[test]
fn a_full_disk_is_told_and_left() {
    for ring in [RingMode::Never, RingMode::Always] {
        let disk = MemStorage::new();
        let store = manual(Arc::new(disk.clone())).ring(ring).open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        disk.set_capacity(Some(disk.used() + 40_000));
        let mut fitted = Vec::new();
        let error = loop {
            let key = format!("key {}", fitted.len());
            match block_on(namespace.put_with_async(&key, vec![b'v'; 500], class(Durability::Sync))) {
                Ok(_) => fitted.push(key),
                Err(error) => break error,
            }
        };
        assert!(
            error.kind() == ErrorKind::NoSpace && !matches!(error, Error::Pending { .. }),
            "{error}"
        );
        assert!(fitted.len() > 10, "{}", fitted.len());
        assert_eq!(namespace.count().unwrap(), fitted.len() as u64);
        for key in &fitted {
            assert!(block_on(namespace.delete_async(key)).unwrap().existed);
        }
        store.compact().unwrap();
        block_on(namespace.put_with_async("k", vec![b'v'; 500], class(Durability::Sync))).unwrap();
    }
}

/// Counters that several tasks on several threads increment by conditional puts are exact.
#[test]
fn concurrent_conditional_puts_lose_nothing() {
    const THREADS: u64 = 4;
    const EACH: u64 = 200;
    let store = open(&MemStorage::new());
    let namespace = store.namespace("N").unwrap();
    namespace.put("counter", "0").unwrap();
    let increment = |namespace: &Namespace, durability| loop {
        let value = namespace.get("counter").unwrap().unwrap();
        let next = value.as_str().unwrap().parse::<u64>().unwrap() + 1;
        let options = class(durability).condition(Condition::Sequence(value.sequence()));
        match block_on(namespace.put_with_async("counter", next.to_string(), options)) {
            Ok(_) => return,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let namespace = &namespace;
            scope.spawn(move || {
                for round in 0..EACH {
                    increment(namespace, CLASSES[((thread + round) % 3) as usize]);
                }
            });
        }
    });
    assert_eq!(text(&namespace, "counter"), Some((THREADS * EACH).to_string()));
}

#[test]
fn the_futures_can_be_sent_to_other_threads() {
    fn is_send<T: Send>(_: &T) {}
    let store = Store::in_memory().unwrap();
    let namespace = store.namespace("N").unwrap();
    let mut batch = store.batch();
    is_send(&namespace.put_async("k", "v"));
    is_send(&namespace.delete_async("k"));
    is_send(&batch.commit_async());
    is_send(&store.sync_async());
}
