//! Random writes, failures, expiry, rotation and drops, beside watchers that begin at random: what
//! each is told is what a model has noted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
use embercask::{Clock, Durability, Error, Event, ManualClock, Namespace, PutOptions, Store, Watch, WatchOptions};
use test_support::{Rng, is_exhaustive, manual, rng};

const NAMES: [&str; 2] = ["a", "b"];

/// A change as the model knows it. What expires in one sweep has no order.
#[derive(Clone, Debug, PartialEq)]
enum Change {
    Put {
        key: String,
        sequence: u64,
        expiry_ms: Option<u64>,
        value: String,
    },
    Delete {
        key: String,
    },
    Swept(BTreeSet<(String, u64)>),
    Dropped,
}

struct Watcher {
    watch: Watch,
    name: &'static str,
    prefix: &'static str,
    /// Changes of the namespace before it began.
    from: usize,
    told: Vec<Change>,
}

#[derive(Default)]
struct Known {
    changes: Vec<Change>,
    /// Sequence and expiry of the keys that were not swept.
    keys: BTreeMap<String, (u64, Option<u64>)>,
}

struct World {
    store: Store,
    faults: FaultStorage,
    clock: ManualClock,
    rng: Rng,
    known: BTreeMap<&'static str, Known>,
    watchers: Vec<Watcher>,
    steps: u64,
}

impl World {
    fn new(rng: Rng) -> World {
        let faults = FaultStorage::new(Arc::new(MemStorage::new()));
        let clock = ManualClock::new(1_700_000_000_000);
        let store = manual(Arc::new(faults.clone()))
            .clock(clock.clone())
            .open("/store")
            .unwrap();
        World {
            store,
            faults,
            clock,
            rng,
            known: BTreeMap::new(),
            watchers: Vec::new(),
            steps: 0,
        }
    }

    fn namespace(&mut self) -> (&'static str, Namespace) {
        let name = NAMES[self.rng.below(2) as usize];
        (name, self.store.namespace(name).unwrap())
    }

    fn key(&mut self) -> String {
        format!("{} {}", ["x", "y"][self.rng.below(2) as usize], self.rng.below(8))
    }

    fn put(&mut self) -> (String, Option<u64>, PutOptions) {
        self.steps += 1;
        let class = [Durability::Buffered, Durability::Os, Durability::Sync][self.rng.below(3) as usize];
        let mut options = PutOptions::new().durability(class);
        let mut expiry_ms = None;
        if self.rng.below(3) == 0 {
            let ttl = Duration::from_secs(60 + self.rng.below(4));
            options = options.ttl(ttl);
            expiry_ms = Some(self.clock.wall_ms() + ttl.as_millis() as u64);
        }
        let value = format!("{} {}", self.steps, "v".repeat(self.rng.below(150) as usize));
        (value, expiry_ms, options)
    }

    /// Runs a write, perhaps on a disk that fails.
    fn write<T>(&mut self, write: impl FnOnce(&Store) -> Result<T, Error>) -> Option<T> {
        if self.rng.below(8) == 0 {
            let fault = Fault::new(FaultKind::Error(std::io::ErrorKind::Other)).on(Operation::Write);
            self.faults.inject(fault.path(".segment").repeated());
        }
        let written = write(&self.store);
        self.faults.clear();
        written.ok()
    }

    fn note(&mut self, name: &'static str, change: Change) {
        let known = self.known.entry(name).or_default();
        match &change {
            Change::Put {
                key,
                sequence,
                expiry_ms,
                ..
            } => {
                known.keys.insert(key.clone(), (*sequence, *expiry_ms));
            }
            Change::Delete { key } => {
                known.keys.remove(key);
            }
            Change::Swept(keys) => known
                .keys
                .retain(|key, (sequence, _)| !keys.contains(&(key.clone(), *sequence))),
            Change::Dropped => known.keys.clear(),
        }
        known.changes.push(change);
    }

    fn write_one(&mut self) {
        let ((name, namespace), key) = (self.namespace(), self.key());
        if self.rng.below(3) == 0 {
            // Also of a key that has expired and was not swept.
            let is_there = self.known.get(name).is_some_and(|known| known.keys.contains_key(&key));
            if self.write(|_| namespace.delete(&key)).is_some() && is_there {
                self.note(name, Change::Delete { key });
            }
        } else {
            let (value, expiry_ms, options) = self.put();
            if let Some(sequence) = self.write(|_| namespace.put_with(&key, &value, options)) {
                self.note(
                    name,
                    Change::Put {
                        key,
                        sequence,
                        expiry_ms,
                        value,
                    },
                );
            }
        }
    }

    fn write_batch(&mut self) {
        let mut changes = Vec::new();
        for _ in 0..1 + self.rng.below(12) {
            let ((name, namespace), key) = (self.namespace(), self.key());
            let put = (self.rng.below(3) != 0).then(|| self.put());
            changes.push((name, namespace, key, put));
        }
        let class = [Durability::Buffered, Durability::Os][self.rng.below(2) as usize];
        let committed = self.write(|store| {
            let mut batch = store.batch();
            batch.durability(class);
            for (_, namespace, key, put) in &changes {
                match put {
                    Some((value, _, options)) => batch.put_with(namespace, key, value, options),
                    None => batch.delete(namespace, key),
                };
            }
            batch.commit()
        });
        let Some(last) = committed else { return };
        let first = last + 1 - changes.len() as u64;
        for ((name, _, key, put), sequence) in changes.into_iter().zip(first..) {
            let change = match put {
                Some((value, expiry_ms, _)) => Change::Put {
                    key,
                    sequence,
                    expiry_ms,
                    value,
                },
                None => Change::Delete { key },
            };
            self.note(name, change);
        }
    }

    fn sweep(&mut self) {
        self.store.maintain().unwrap();
        let now_ms = self.clock.wall_ms();
        for name in NAMES {
            let keys = self.known.get(name).into_iter().flat_map(|known| &known.keys);
            let due = keys.filter(|(_, (_, expiry_ms))| expiry_ms.is_some_and(|expiry_ms| expiry_ms <= now_ms));
            let due: BTreeSet<_> = due.map(|(key, (sequence, _))| (key.clone(), *sequence)).collect();
            if !due.is_empty() {
                self.note(name, Change::Swept(due));
            }
        }
    }

    fn begin(&mut self) {
        let (name, namespace) = self.namespace();
        let prefix = ["", "x", "y 3"][self.rng.below(3) as usize];
        let options = WatchOptions::new().values(true).capacity(usize::MAX);
        self.watchers.push(Watcher {
            watch: namespace.watch_with(prefix, options).unwrap(),
            name,
            prefix,
            from: self.known.get(name).map_or(0, |known| known.changes.len()),
            told: Vec::new(),
        });
    }

    /// Takes what waits and compares.
    fn check(&mut self) {
        for watcher in &mut self.watchers {
            watcher.take();
            let mut expected = Vec::new();
            for change in self
                .known
                .get(watcher.name)
                .map_or(&[][..], |known| &known.changes[watcher.from..])
            {
                let fits = |key: &str| key.starts_with(watcher.prefix);
                match change {
                    Change::Put { key, .. } | Change::Delete { key } if fits(key) => expected.push(change.clone()),
                    Change::Put { .. } | Change::Delete { .. } => {}
                    Change::Swept(keys) => {
                        let keys: BTreeSet<_> = keys.iter().filter(|(key, _)| fits(key)).cloned().collect();
                        // Two sweeps in a row cannot be told from one.
                        match expected.last_mut() {
                            _ if keys.is_empty() => {}
                            Some(Change::Swept(swept)) => swept.extend(keys),
                            _ => expected.push(Change::Swept(keys)),
                        }
                    }
                    Change::Dropped => {
                        expected.push(Change::Dropped);
                        break;
                    }
                }
            }
            assert_eq!(watcher.told, expected, "{} {:?}", watcher.name, watcher.prefix);
        }
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..60 => self.write_one(),
            60..72 => self.write_batch(),
            72..80 => self.clock.advance(1_000 + self.rng.below(20_000)),
            80..88 => self.sweep(),
            88..90 => {
                self.store.compact().unwrap();
                // Which may have swept, too.
                self.sweep();
            }
            90..91 => {
                let (name, _) = self.namespace();
                self.store.drop_namespace(name).unwrap();
                self.note(name, Change::Dropped);
            }
            91..95 if self.watchers.len() < 6 => self.begin(),
            91..96 if !self.watchers.is_empty() => {
                self.check();
                let at = self.rng.below(self.watchers.len() as u64) as usize;
                self.watchers.swap_remove(at);
            }
            _ => self.check(),
        }
    }
}

impl Watcher {
    fn take(&mut self) {
        while let Some(event) = self.watch.try_next() {
            let text = |key: Vec<u8>| String::from_utf8(key).unwrap();
            let change = match event {
                Event::Put {
                    key,
                    sequence,
                    expiry_ms,
                    value,
                    ..
                } => {
                    let value = value.unwrap();
                    assert_eq!((value.sequence(), value.expiry_ms()), (sequence, expiry_ms));
                    let value = value.as_str().unwrap().to_owned();
                    Change::Put {
                        key: text(key),
                        sequence,
                        expiry_ms,
                        value,
                    }
                }
                Event::Delete { key, .. } => Change::Delete { key: text(key) },
                Event::Expired { key, sequence, .. } => {
                    let expired = (text(key), sequence);
                    if let Some(Change::Swept(keys)) = self.told.last_mut() {
                        assert!(keys.insert(expired), "told twice");
                        continue;
                    }
                    Change::Swept([expired].into())
                }
                Event::Dropped { .. } => Change::Dropped,
                event => panic!("{event:?}"),
            };
            self.told.push(change);
        }
    }
}

#[test]
fn what_is_told_is_what_has_happened_in_that_order() {
    let mut rng = rng();
    let runs = if is_exhaustive() { 400 } else { 20 };
    for _ in 0..runs {
        let mut world = World::new(rng.split());
        for _ in 0..400 {
            world.step();
        }
        world.check();
    }
}
