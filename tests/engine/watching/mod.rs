//! Watching: each change that stays is told, in the order of the log, and nothing else.

mod against_model;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{Durability, ErrorKind, Event, ManualClock, Namespace, PutOptions, Store, Watch, WatchOptions};
use test_support::{class, manual, open};

/// Longer than any of these tests waits for what comes.
const LONG: Duration = Duration::from_secs(10);

fn waiting(watch: &mut Watch) -> Vec<Event> {
    std::iter::from_fn(|| watch.try_next()).collect()
}

fn keys_of(events: &[Event]) -> Vec<&str> {
    let keys = events.iter().map(|event| event.key().unwrap_or(b"-"));
    keys.map(|key| std::str::from_utf8(key).unwrap()).collect()
}

#[test]
fn each_kind_of_change_is_told_with_what_belongs_to_it() {
    let clock = ManualClock::new(1_700_000_000_000);
    let store = manual(Arc::new(MemStorage::new()))
        .clock(clock.clone())
        .open("/store")
        .unwrap();
    let (namespace, other) = (store.namespace("N").unwrap(), store.namespace("other").unwrap());
    let before = namespace.put("a before", "value").unwrap();
    let options = WatchOptions::new().values(true).capacity(100);
    let mut watch = namespace.watch_with("a", options).unwrap();
    let mut plain = namespace.watch("").unwrap();
    assert_eq!(watch.sequence(), before);
    let expiring = PutOptions::new().ttl(Duration::from_secs(60)).metadata("m");
    let put = namespace.put_with("a key", "value", expiring).unwrap();
    namespace.put("b", "value").unwrap();
    other.put("a", "value").unwrap();
    let mut batch = store.batch();
    batch.put(&namespace, "a 1", "1").put(&other, "a", "2");
    batch.delete(&namespace, "a before").put(&namespace, "a 2", "");
    let last = batch.commit().unwrap();
    clock.advance(60_000);
    store.maintain().unwrap();
    store.rename_namespace("N", "M").unwrap();
    store.drop_namespace("other").unwrap();
    store.drop_namespace("M").unwrap();

    let events = waiting(&mut watch);
    assert_eq!(keys_of(&events), ["a key", "a 1", "a before", "a 2", "a key", "-"]);
    let Event::Put {
        sequence,
        expiry_ms,
        value,
        ..
    } = &events[0]
    else {
        panic!("{:?}", events[0])
    };
    assert_eq!((*sequence, *expiry_ms), (put, Some(1_700_000_060_000)));
    let value = value.as_ref().unwrap();
    assert_eq!((&value[..], value.metadata()), (&b"value"[..], Some(&b"m"[..])));
    assert_eq!((value.sequence(), value.expiry_ms()), (put, *expiry_ms));
    assert!(matches!(&events[1], Event::Put { sequence, expiry_ms: None, .. } if *sequence == last - 3));
    assert!(matches!(&events[2], Event::Delete { sequence, .. } if *sequence == last - 1));
    assert!(matches!(&events[3], Event::Put { value: Some(value), .. } if value.is_empty()));
    assert!(matches!(&events[4], Event::Expired { sequence, .. } if *sequence == put));
    assert!(matches!(&events[5], Event::Dropped { sequence, .. } if *sequence > last));
    assert!(events.iter().all(|event| event.sequence() > before));
    assert!(watch.is_ended());
    assert!(watch.next().is_none());

    let all = waiting(&mut plain);
    assert_eq!(keys_of(&all), ["a key", "b", "a 1", "a before", "a 2", "a key", "-"]);
    let has_value = |event: &Event| matches!(event, Event::Put { value: Some(_), .. });
    assert!(!all.iter().any(has_value));
}

#[test]
fn a_slow_watcher_is_told_once_that_it_has_missed_something_and_keeps_nobody() {
    let store = open(&MemStorage::new());
    let namespace = store.namespace("N").unwrap();
    let mut slow = namespace.watch_with("", WatchOptions::new().capacity(10)).unwrap();
    let mut quick = namespace.watch("").unwrap();
    let mut last = 0;
    for round in 0..3 {
        for number in 0..500 {
            last = namespace.put(format!("key {number}"), "value").unwrap();
            assert_eq!(quick.try_next().unwrap().sequence(), last);
        }
        let events = waiting(&mut slow);
        assert_eq!(events.len(), 11, "round {round}");
        assert_eq!(keys_of(&events[8..]), ["key 8", "key 9", "-"]);
        assert!(
            matches!(events[10], Event::Missed { up_to, .. } if up_to == last),
            "{:?}",
            events[10]
        );
    }
    namespace.put("after", "value").unwrap();
    assert_eq!(keys_of(&waiting(&mut slow)), ["after"]);
}

#[test]
fn a_failed_write_out_tells_nothing() {
    let faults = FaultStorage::new(Arc::new(MemStorage::new()));
    let store = manual(Arc::new(faults.clone())).open("/store").unwrap();
    let namespace = store.namespace("N").unwrap();
    let mut watch = namespace.watch("").unwrap();
    namespace
        .put_with("buffered", "1", class(Durability::Buffered))
        .unwrap();
    // Nothing of this class is taken back, so it is told although it is only in memory.
    assert_eq!(keys_of(&waiting(&mut watch)), ["buffered"]);
    let fails = || Fault::new(FaultKind::Error(std::io::ErrorKind::Other)).on(Operation::Write);
    for durability in [Durability::Os, Durability::Sync] {
        faults.inject(fails());
        let refused = namespace.put_with("key", "2", class(durability)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Io);
        faults.inject(fails());
        let mut batch = store.batch();
        batch.durability(durability).put(&namespace, "a", "3");
        batch.put(&namespace, "b", "3").commit().unwrap_err();
        assert!(waiting(&mut watch).is_empty(), "{durability:?}");
    }
    faults.inject(fails());
    store.drop_namespace("N").unwrap_err();
    assert!(waiting(&mut watch).is_empty());
    namespace.put_with("key", "4", class(Durability::Os)).unwrap();
    assert_eq!(keys_of(&waiting(&mut watch)), ["key"]);
}

/// Runs `wait` on a thread for each way to wait, and returns what each has seen once it is woken.
fn all_wake(namespaces: &[Namespace], then: impl FnOnce()) -> Vec<Option<Event>> {
    let (ended, waits) = channel();
    let waiters: [fn(&mut Watch) -> Option<Event>; 3] = [
        Watch::next,
        |watch| watch.next_timeout(LONG * 10),
        |watch| block_on(watch, |_| ()),
    ];
    let (ready, begun) = channel();
    for (waiter, namespace) in waiters.into_iter().zip(namespaces) {
        let (ended, ready) = (ended.clone(), ready.clone());
        let mut watch = namespace.watch("").unwrap();
        // Not joined: if it is not woken it waits for ever.
        std::thread::spawn(move || {
            ready.send(()).unwrap();
            let event = waiter(&mut watch);
            let _ = ended.send((event, watch.is_ended()));
        });
    }
    for _ in namespaces {
        begun.recv().unwrap();
    }
    then();
    let woken = namespaces
        .iter()
        .map(|_| waits.recv_timeout(LONG).expect("a watcher was not woken"));
    woken
        .map(|(event, is_ended)| {
            assert!(event.is_some() || is_ended);
            event
        })
        .collect()
}

#[test]
fn closing_the_store_and_dropping_the_namespace_wake_all_who_wait() {
    let store = open(&MemStorage::new());
    let namespace = store.namespace("N").unwrap();
    let names = vec![namespace.clone(); 3];
    let events = all_wake(&names, || store.drop_namespace("N").unwrap());
    assert!(
        events.iter().all(|event| matches!(event, Some(Event::Dropped { .. }))),
        "{events:?}"
    );
    assert_eq!(namespace.watch("").unwrap_err().kind(), ErrorKind::NotFound);

    let namespace = store.namespace("M").unwrap();
    let names = vec![namespace.clone(); 3];
    let mut early = namespace.watch("").unwrap();
    namespace.put("key", "value").unwrap();
    let closing = store.clone();
    let events = all_wake(&names, || closing.close().unwrap());
    assert!(events.iter().all(Option::is_none), "{events:?}");
    // What was told before can still be taken.
    assert!(!early.is_ended());
    assert_eq!(keys_of(&[early.next().unwrap()]), ["key"]);
    assert!(early.next().is_none() && early.is_ended());
    assert_eq!(namespace.watch("").unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_watcher_does_not_keep_the_store_open() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let mut watch = store.namespace("N").unwrap().watch("").unwrap();
    drop(store);
    assert!(watch.next().is_none());
    open(&disk);
}

#[test]
fn a_watcher_with_nothing_to_take_waits_no_longer_than_it_is_told_to() {
    let store = open(&MemStorage::new());
    let namespace = store.namespace("N").unwrap();
    let mut watch = namespace.watch("").unwrap();
    assert!(watch.try_next().is_none());
    assert!(watch.next_timeout(Duration::ZERO).is_none());
    assert!(watch.next_timeout(Duration::from_millis(1)).is_none());
    assert!(!watch.is_ended());
    namespace.put("key", "value").unwrap();
    assert!(watch.next_timeout(Duration::MAX).is_some());
    let refused = namespace.watch_with("", WatchOptions::new().capacity(0)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
}

/// Counts the wakeups, and unparks the thread.
struct Unpark(AtomicUsize, Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        self.1.unpark();
    }
}

/// The next event by a future; `then` is called whenever that is not ready.
fn block_on(watch: &mut Watch, mut then: impl FnMut(usize)) -> Option<Event> {
    let unpark = Arc::new(Unpark(AtomicUsize::new(0), std::thread::current()));
    let waker = Waker::from(unpark.clone());
    let mut future = std::pin::pin!(watch.next_async());
    loop {
        let woken = unpark.0.load(Ordering::SeqCst);
        if let Poll::Ready(event) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return event;
        }
        then(woken);
        while unpark.0.load(Ordering::SeqCst) == woken {
            std::thread::park_timeout(LONG);
            assert!(unpark.0.load(Ordering::SeqCst) > woken, "the task was not woken");
        }
    }
}

#[test]
fn a_future_is_woken_by_the_next_change_and_loses_nothing_when_it_is_dropped() {
    let store = open(&MemStorage::new());
    let namespace = store.namespace("N").unwrap();
    let mut watch = namespace.watch("").unwrap();
    let mut polls = 0;
    let event = block_on(&mut watch, |_| {
        polls += 1;
        namespace.put("key", "value").unwrap();
    });
    assert_eq!((keys_of(&[event.unwrap()]), polls), (vec!["key"], 1));
    // A waker of a future that was dropped may be woken; the event stays.
    let waker = Waker::noop();
    assert!(watch.poll_next(&mut Context::from_waker(waker)).is_pending());
    namespace.put("next", "value").unwrap();
    drop(watch.next_async());
    let event = watch.poll_next(&mut Context::from_waker(waker));
    assert!(matches!(event, Poll::Ready(Some(Event::Put { key, .. })) if key == b"next"));
    store.close().unwrap();
    assert!(block_on(&mut watch, |_| ()).is_none());
}

fn apply(copy: &mut BTreeMap<Vec<u8>, (u64, Vec<u8>)>, event: Event) {
    match event {
        Event::Put {
            key, sequence, value, ..
        } => {
            copy.insert(key, (sequence, value.unwrap().to_vec()));
        }
        Event::Delete { key, .. } => {
            copy.remove(&key);
        }
        event => panic!("{event:?}"),
    }
}

#[test]
fn a_snapshot_and_the_events_after_it_make_a_copy_beside_writers() {
    let store = Store::options()
        .durability(Durability::Os)
        .storage(Arc::new(MemStorage::new()))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    let write = |writer: usize| {
        for number in 0..400 {
            let key = format!("key {}", (number * 7 + writer * 13) % 50);
            match number % 4 {
                0 => drop(namespace.delete(&key).unwrap()),
                1 => drop(
                    store
                        .batch()
                        .put(&namespace, &key, "b")
                        .delete(&namespace, "key 1")
                        .commit()
                        .unwrap(),
                ),
                2 => drop(namespace.put_with(&key, "c", class(Durability::Buffered)).unwrap()),
                _ => drop(namespace.put(&key, format!("{writer} {number}")).unwrap()),
            }
        }
    };
    let options = WatchOptions::new().values(true).capacity(usize::MAX);
    let (mut copies, mut orders) = (Vec::new(), Vec::new());
    let watching = std::sync::Barrier::new(3);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3).map(|writer| scope.spawn(move || write(writer))).collect();
        let watchers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let watch = namespace.watch_with("", options).unwrap();
                    let snapshot = store.snapshot().unwrap();
                    watching.wait();
                    assert!(snapshot.sequence() >= watch.sequence());
                    let mut copy = BTreeMap::new();
                    for entry in snapshot.list(&namespace).unwrap().with_values() {
                        let entry = entry.unwrap();
                        let value = entry.value().unwrap();
                        copy.insert(entry.key().to_vec(), (value.sequence(), value.to_vec()));
                    }
                    let mut order = Vec::new();
                    for event in watch {
                        if event.key() == Some(b"end") {
                            break;
                        }
                        order.push(event.sequence());
                        if event.sequence() > snapshot.sequence() {
                            apply(&mut copy, event);
                        }
                    }
                    (copy, order)
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        watching.wait();
        namespace.put("end", "").unwrap();
        for watcher in watchers {
            let (copy, order) = watcher.join().unwrap();
            copies.push(copy);
            orders.push(order);
        }
    });
    namespace.delete("end").unwrap();
    let mut expected = BTreeMap::new();
    for entry in namespace.list().with_values() {
        let entry = entry.unwrap();
        let value = entry.value().unwrap();
        expected.insert(entry.key().to_vec(), (value.sequence(), value.to_vec()));
    }
    for (copy, order) in copies.iter().zip(&orders) {
        assert_eq!(copy, &expected);
        assert!(order.is_sorted_by(|one, next| one < next));
    }
    // All tell the same from where the later one began.
    let common = orders[0].len().min(orders[1].len());
    assert_eq!(
        orders[0][orders[0].len() - common..],
        orders[1][orders[1].len() - common..]
    );
}
