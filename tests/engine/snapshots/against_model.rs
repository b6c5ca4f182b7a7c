//! Random writes, failures, compaction and steps of time, with snapshots held over them, compared
//! with copies of a model.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{Durability, Error, ErrorKind, ManualClock, Namespace, PutOptions, ReadMode, Snapshot, Store};
use test_support::{Rng, is_exhaustive, manual, rng};

const KEYS: u64 = 40;
const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug, PartialEq)]
struct Stored {
    value: Vec<u8>,
    metadata: Option<Vec<u8>>,
    expiry_ms: Option<u64>,
}

type Keys = BTreeMap<String, Stored>;
/// By the namespace's id.
type Model = BTreeMap<u128, Keys>;

struct Held {
    snapshot: Snapshot,
    model: Model,
    names: BTreeMap<String, u128>,
}

struct World {
    store: Store,
    faults: FaultStorage,
    clock: ManualClock,
    rng: Rng,
    model: Model,
    names: BTreeMap<String, u128>,
    /// Also of namespaces that were dropped.
    handles: BTreeMap<u128, Namespace>,
    held: Vec<Held>,
    steps: u64,
}

impl World {
    fn new(mut rng: Rng) -> World {
        let faults = FaultStorage::new(Arc::new(MemStorage::new()));
        let clock = ManualClock::new(1_700_000_000_000);
        let mode = if rng.below(2) == 0 {
            ReadMode::Map
        } else {
            ReadMode::Pread
        };
        let store = manual(Arc::new(faults.clone()))
            .read_mode(mode)
            .clock(clock.clone())
            .expiry_grace(Duration::from_secs(30))
            .open("/store")
            .unwrap();
        World {
            store,
            faults,
            clock,
            rng,
            model: Model::new(),
            names: BTreeMap::new(),
            handles: BTreeMap::new(),
            held: Vec::new(),
            steps: 0,
        }
    }

    fn key(&mut self) -> String {
        format!("key {:02}", self.rng.below(KEYS))
    }

    fn namespace(&mut self) -> Namespace {
        let name = NAMES[self.rng.below(3) as usize];
        let namespace = self.store.namespace(name).unwrap();
        self.names.insert(name.to_owned(), namespace.id());
        self.model.entry(namespace.id()).or_default();
        self.handles.insert(namespace.id(), namespace.clone());
        namespace
    }

    fn stored(&mut self) -> (Stored, PutOptions) {
        self.steps += 1;
        let durability = [Durability::Buffered, Durability::Os, Durability::Sync][self.rng.below(3) as usize];
        let mut options = PutOptions::new().durability(durability);
        let mut expiry_ms = None;
        if self.rng.below(3) == 0 {
            let ttl = Duration::from_secs(60 + 30 * self.rng.below(4));
            options = options.ttl(ttl);
            expiry_ms = Some(embercask::Clock::wall_ms(&self.clock) + ttl.as_millis() as u64);
        }
        let metadata = (self.rng.below(4) == 0).then(|| format!("m{}", self.steps).into_bytes());
        if let Some(metadata) = &metadata {
            options = options.metadata(metadata.clone());
        }
        let value = format!("{} {}", self.steps, "v".repeat(self.rng.below(150) as usize)).into_bytes();
        let stored = Stored {
            value,
            metadata,
            expiry_ms,
        };
        (stored, options)
    }

    /// Whether the write is applied.
    fn applied(result: Result<(), Error>) -> bool {
        match result {
            Ok(()) | Err(Error::Pending { .. }) => true,
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::NoSpace | ErrorKind::Io), "{error}");
                false
            }
        }
    }

    fn write(&mut self) {
        let (namespace, key) = (self.namespace(), self.key());
        let failing = self.rng.below(12) == 0;
        if failing {
            let full = FaultKind::Error(std::io::ErrorKind::StorageFull);
            self.faults.inject(Fault::new(full).on(Operation::Write).repeated());
        }
        if self.rng.below(3) == 0 {
            let result = namespace.delete(&key).map(drop);
            if Self::applied(result) {
                self.model.get_mut(&namespace.id()).unwrap().remove(&key);
            }
        } else {
            let (stored, options) = self.stored();
            let result = namespace.put_with(&key, &stored.value, options).map(drop);
            if Self::applied(result) {
                self.model.get_mut(&namespace.id()).unwrap().insert(key, stored);
            }
        }
        self.faults.clear();
    }

    fn write_batch(&mut self) {
        let mut after = self.model.clone();
        let mut batch = self.store.batch();
        batch.durability(Durability::Os);
        for _ in 0..1 + self.rng.below(20) {
            let (namespace, key) = (self.namespace(), self.key());
            let keys = after.entry(namespace.id()).or_default();
            if self.rng.below(3) == 0 {
                batch.delete(&namespace, &key);
                keys.remove(&key);
            } else {
                let (stored, options) = self.stored();
                batch.put_with(&namespace, &key, &stored.value, options);
                after.get_mut(&namespace.id()).unwrap().insert(key, stored);
            }
        }
        let failing = self.rng.below(6) == 0;
        if failing {
            let full = FaultKind::Error(std::io::ErrorKind::StorageFull);
            self.faults.inject(Fault::new(full).on(Operation::Write).repeated());
        }
        if Self::applied(batch.commit().map(drop)) {
            self.model = after;
        }
        self.faults.clear();
    }

    fn drop_namespace(&mut self) {
        let name = NAMES[self.rng.below(3) as usize];
        if let Some(id) = self.names.remove(name) {
            self.store.drop_namespace(name).unwrap();
            self.model.remove(&id);
        }
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..50 => self.write(),
            50..65 => self.write_batch(),
            65..67 => self.drop_namespace(),
            67..72 => self.clock.advance(1_000 + self.rng.below(40_000)),
            72..76 => drop(self.store.maintain()),
            76..78 => drop(self.store.compact()),
            78..83 if self.held.len() < 6 => self.held.push(Held {
                snapshot: self.store.snapshot().unwrap(),
                model: self.model.clone(),
                names: self.names.clone(),
            }),
            78..85 if !self.held.is_empty() => {
                let at = self.rng.below(self.held.len() as u64) as usize;
                self.held.swap_remove(at);
            }
            _ if !self.held.is_empty() => {
                let at = self.rng.below(self.held.len() as u64) as usize;
                self.check(at);
            }
            _ => {}
        }
    }

    fn check(&mut self, at: usize) {
        let held = &self.held[at];
        let now_ms = embercask::Clock::wall_ms(&self.clock);
        let names: Vec<_> = held.snapshot.namespaces().unwrap();
        let names: Vec<_> = names.iter().map(|info| (info.name.clone(), info.id)).collect();
        assert_eq!(names, held.names.clone().into_iter().collect::<Vec<_>>());
        for (id, namespace) in &self.handles {
            let Some(keys) = held.model.get(id) else {
                match held.snapshot.count(namespace) {
                    // Created later.
                    Ok(count) => assert_eq!(count, 0),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
                }
                continue;
            };
            let live: Keys = keys
                .iter()
                .filter(|(_, stored)| stored.expiry_ms.is_none_or(|expiry_ms| now_ms < expiry_ms))
                .map(|(key, stored)| (key.clone(), stored.clone()))
                .collect();
            check_gets(&held.snapshot, namespace, &live);
            assert_eq!(held.snapshot.count(namespace).unwrap(), live.len() as u64);
            check_list(&mut self.rng, &held.snapshot, namespace, &live);
        }
    }
}

fn of_value(value: &embercask::Value) -> Stored {
    Stored {
        value: value.to_vec(),
        metadata: value.metadata().map(<[u8]>::to_vec),
        expiry_ms: value.expiry_ms(),
    }
}

fn check_gets(snapshot: &Snapshot, namespace: &Namespace, live: &Keys) {
    let keys: Vec<_> = (0..KEYS).map(|number| format!("key {number:02}")).collect();
    let many = snapshot.get_many(namespace, &keys).unwrap();
    for (key, of_many) in keys.iter().zip(many) {
        let found = snapshot.get(namespace, key).unwrap();
        assert_eq!(found.as_ref().map(of_value).as_ref(), live.get(key), "{key}");
        assert_eq!(of_many.as_ref().map(of_value).as_ref(), live.get(key), "{key} of many");
        assert_eq!(
            snapshot.contains(namespace, key).unwrap(),
            live.contains_key(key),
            "{key}"
        );
    }
}

fn check_list(rng: &mut Rng, snapshot: &Snapshot, namespace: &Namespace, live: &Keys) {
    let prefix = ["", "key ", "key 1", "key 2", "none"][rng.below(5) as usize];
    let start = format!("key {:02}", rng.below(KEYS));
    let (reverse, values) = (rng.below(2) == 0, rng.below(2) == 0);
    let from = if rng.below(2) == 0 {
        Bound::Included(start.clone())
    } else {
        Bound::Unbounded
    };
    let mut expected: Vec<_> = live
        .range((from.clone(), Bound::Unbounded))
        .filter(|(key, _)| key.starts_with(prefix))
        .collect();
    let mut list = snapshot.list(namespace).unwrap().prefix(prefix);
    list = list.page_size(1 + rng.below(12) as usize);
    if from != Bound::Unbounded {
        list = list.start(&start);
    }
    if reverse {
        list = list.reverse();
        expected.reverse();
    }
    if values {
        list = list.with_values();
    }
    assert_eq!(list.count().unwrap(), expected.len() as u64);
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = list.clone().cursor(cursor).page().unwrap();
        for entry in page.iter() {
            assert!(entry.error().is_none());
            let metadata = entry.metadata().map(<[u8]>::to_vec);
            let value = if values {
                entry.value().map(|value| value.to_vec())
            } else {
                None
            };
            found.push((entry.key_str().unwrap().to_owned(), entry.expiry_ms(), metadata, value));
        }
        match page.cursor() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(key, stored)| {
            let value = values.then(|| stored.value.clone());
            (key.clone(), stored.expiry_ms, stored.metadata.clone(), value)
        })
        .collect();
    assert_eq!(found, expected, "{prefix:?} {from:?} {reverse} {values} {list:?}");
}

#[test]
fn snapshots_equal_copies_of_a_model() {
    let mut rng = rng();
    for _ in 0..if is_exhaustive() { 2_000 } else { 15 } {
        let mut world = World::new(rng.split());
        for _ in 0..400 {
            world.step();
        }
        for at in 0..world.held.len() {
            world.check(at);
        }
        world.held.clear();
        assert_eq!(world.store.stats().snapshots, Default::default());
    }
}
