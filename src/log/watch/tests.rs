use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::storage::{Call, Interposed, Interposer, MemStorage, Operation, Storage};
use crate::sync::lock;
use crate::{Durability, ErrorKind, Maintenance, ManualClock, Namespace, PutOptions, Store, Watch};

type Then = Box<dyn FnOnce() -> std::io::Result<()> + Send>;

/// Runs a callback in the next write of a segment, which is without the writer lock.
#[derive(Default)]
struct InWrite(Mutex<Option<Then>>);

impl std::fmt::Debug for InWrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InWrite")
    }
}

impl Interposer for InWrite {
    fn around(&self, call: &Call<'_>, make: &mut dyn FnMut() -> std::io::Result<()>) -> std::io::Result<()> {
        let is_of_segment = call.path.extension().is_some_and(|name| name == "segment");
        let then = (call.operation == Operation::Write && is_of_segment).then(|| lock(&self.0).take());
        if let Some(then) = then.flatten() {
            then()?;
        }
        make()
    }
}

struct Opened {
    in_write: Arc<InWrite>,
    clock: ManualClock,
    store: Store,
    namespace: Namespace,
}

fn open() -> Opened {
    let in_write = Arc::new(InWrite::default());
    let disk: Arc<dyn Storage> = Arc::new(MemStorage::new());
    let clock = ManualClock::new(1_000_000);
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .durability(Durability::Os)
        .clock(clock.clone())
        .storage(Arc::new(Interposed::over(disk, in_write.clone())))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    Opened {
        in_write,
        clock,
        store,
        namespace,
    }
}

impl Opened {
    /// In the next write of a segment a second passes and what has expired is swept; then `then`
    /// runs, and its result is that of the write.
    fn sweep_in_write(&self, then: impl FnOnce(&Namespace) -> std::io::Result<()> + Send + 'static) {
        let (clock, engine) = (self.clock.clone(), self.store.engine().clone());
        let namespace = self.namespace.clone();
        let sweep = move || {
            clock.advance(1000);
            engine.housekeeping.sweep_expired();
            then(&namespace)
        };
        *lock(&self.in_write.0) = Some(Box::new(sweep));
    }
}

fn second() -> PutOptions {
    PutOptions::new().ttl(Duration::from_secs(1))
}

/// Kinds and keys of what waits.
fn told(watch: &mut Watch) -> Vec<String> {
    let events = std::iter::from_fn(|| watch.try_next());
    let text = |event: Event| {
        let kind = match event {
            Event::Put { .. } => "put",
            Event::Delete { .. } => "delete",
            Event::Expired { .. } => "expired",
            Event::Dropped { .. } => "dropped",
            Event::Missed { .. } => "missed",
        };
        let key = event.key().unwrap_or_default();
        format!("{kind} {}", String::from_utf8_lossy(key))
    };
    events.map(text).collect()
}

#[test]
fn what_expires_is_told_behind_its_put_and_before_later_ones() {
    let opened = open();
    opened.namespace.put_with("old", "value", second()).unwrap();
    let mut watch = opened.namespace.watch("").unwrap();
    opened.sweep_in_write(|namespace| {
        let buffered = PutOptions::new().durability(Durability::Buffered);
        namespace.put_with("key", "again", buffered).unwrap();
        Ok(())
    });
    opened.namespace.put_with("key", "value", second()).unwrap();
    assert_eq!(told(&mut watch), ["put key", "expired old", "expired key", "put key"]);
    assert_eq!(opened.store.stats().expired, 2);
}

#[test]
fn of_what_is_rolled_back_nothing_is_told_not_even_that_it_has_expired() {
    let opened = open();
    opened.namespace.put_with("old", "value", second()).unwrap();
    let mut watch = opened.namespace.watch("").unwrap();
    opened.sweep_in_write(|_| Err(std::io::ErrorKind::Other.into()));
    let refused = opened.namespace.put_with("key", "value", second()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Io);
    assert_eq!(opened.store.stats().expired, 2);
    // The other one has expired all the same.
    assert_eq!(told(&mut watch), ["expired old"]);
    opened.namespace.put("key", "value").unwrap();
    assert_eq!(told(&mut watch), ["put key"]);
}

#[test]
fn what_was_pending_when_watching_began_is_told_unless_it_is_rolled_back() {
    for fails in [false, true] {
        let opened = open();
        let before = opened.namespace.put("before", "value").unwrap();
        let began = Arc::new(Mutex::new(None));
        let begin = {
            let (namespace, began) = (opened.namespace.clone(), began.clone());
            move || {
                *lock(&began) = Some(namespace.watch("").unwrap());
                match fails {
                    true => Err(std::io::ErrorKind::Other.into()),
                    false => Ok(()),
                }
            }
        };
        *lock(&opened.in_write.0) = Some(Box::new(begin));
        assert_eq!(opened.namespace.put("pending", "value").is_err(), fails);
        opened.namespace.put("after", "value").unwrap();
        let mut watch = lock(&began).take().unwrap();
        assert_eq!(watch.sequence(), before);
        let expected: &[_] = match fails {
            true => &["put after"],
            false => &["put pending", "put after"],
        };
        assert_eq!(told(&mut watch), expected);
    }
}

#[test]
fn watchers_that_were_dropped_are_forgotten() {
    let opened = open();
    let watchers = || {
        let guard = opened.store.engine().log.lock();
        let queues = guard.tail.watchers.by_namespace.values().flatten();
        (queues.count(), guard.tail.watchers.are_any())
    };
    assert_eq!(watchers(), (0, false));
    for _ in 0..100 {
        drop(opened.namespace.watch("").unwrap());
        assert!(watchers().0 <= 1);
    }
    opened.namespace.put("key", "value").unwrap();
    assert_eq!(watchers(), (0, false));
    // Nor is noted any more what expires, once something has.
    for _ in 0..2 {
        opened.namespace.put_with("key", "value", second()).unwrap();
        opened.clock.advance(1000);
        opened.store.maintain().unwrap();
    }
    assert_eq!(opened.store.stats().expired, 2);
    assert!(opened.store.engine().state.take_expired().is_empty());
    let mut watch = opened.namespace.watch("").unwrap();
    opened.namespace.put("key", "value").unwrap();
    assert_eq!(told(&mut watch), ["put key"]);
}
