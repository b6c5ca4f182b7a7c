//! Random operations between the steps of settling, compared with a model.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{between_turns, open};
use crate::segment::scan::Scanner;
use crate::storage::MemStorage;
use crate::sync::lock;
use crate::{ManualClock, Namespace, PutOptions, Snapshot, Store};

type Model = BTreeMap<String, (String, u64)>;

/// Draws what is done.
struct Random(u64);

impl Random {
    fn new() -> Random {
        let seed = match std::env::var("EMBERCASK_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => std::collections::hash_map::RandomState::new().hash_one(0),
        };
        println!("replay with EMBERCASK_SEED={seed}");
        Random(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A store, and what it must show.
struct World {
    store: Store,
    namespace: Namespace,
    clock: ManualClock,
    random: Random,
    model: Model,
    snapshots: Vec<(Snapshot, Model)>,
    /// How often what was done between two steps.
    done: BTreeMap<&'static str, u64>,
}

impl World {
    fn new() -> World {
        let (clock, store) = open(Arc::new(MemStorage::new()));
        World {
            namespace: store.namespace("N").unwrap(),
            store,
            clock,
            random: Random::new(),
            model: Model::new(),
            snapshots: Vec::new(),
            done: BTreeMap::new(),
        }
    }

    fn key(&mut self) -> String {
        format!("key {:02}", self.random.below(40))
    }

    fn now_ms(&self) -> u64 {
        self.store.now_ms()
    }

    /// Writes this many records as one batch, and applies them to the model: first, since the store
    /// shows them before the call returns.
    fn commit(world: &Mutex<World>, records: u64) {
        let (batch, namespace) = {
            let mut world = lock(world);
            let (store, namespace) = (world.store.clone(), world.namespace.clone());
            let mut batch = store.batch();
            let now = world.now_ms();
            for _ in 0..records {
                let (key, value) = (world.key(), format!("batch {}", world.random.below(1 << 20)));
                match world.random.below(5) {
                    0 => {
                        batch.delete(&namespace, &key);
                        world.model.remove(&key);
                    }
                    1 => {
                        let ttl = 1 + world.random.below(20);
                        batch.put_with(
                            &namespace,
                            &key,
                            &value,
                            PutOptions::new().ttl(Duration::from_millis(ttl)),
                        );
                        world.model.insert(key, (value, now + ttl));
                    }
                    _ => {
                        batch.put(&namespace, &key, &value);
                        world.model.insert(key, (value, u64::MAX));
                    }
                }
            }
            (batch, namespace)
        };
        let mut batch = batch;
        batch.commit().unwrap();
        drop(namespace);
    }

    /// Does something that has to do with what is being settled.
    fn act(&mut self) {
        let key = self.key();
        let what = match self.random.below(13) {
            0 | 1 => {
                let value = format!("put {}", self.random.below(1 << 20));
                self.namespace.put(&key, &value).unwrap();
                self.model.insert(key, (value, u64::MAX));
                "put"
            }
            2 | 3 => {
                let existed = self.namespace.delete(&key).unwrap().existed;
                let stood = self.model.remove(&key);
                assert_eq!(existed, stood.is_some_and(|(_, expiry)| expiry > self.now_ms()));
                "delete"
            }
            4 => self.put_if_absent(key),
            5 => self.commit_small(key),
            6 => {
                self.clock.advance(self.random.below(8));
                let engine = self.store.engine();
                engine.state.clean_expiry_queue();
                self.store.maintain().unwrap();
                "sweep"
            }
            7 => {
                self.store.end_segment();
                "seal"
            }
            8 => {
                self.store.end_segment();
                self.store.compact_subset(self.random.below(1 << 10)).unwrap();
                "compact"
            }
            9 => self.take_snapshot(),
            10 => self.move_value(&key),
            11 => self.pop(),
            _ => self.delete_range(),
        };
        *self.done.entry(what).or_default() += 1;
    }

    fn put_if_absent(&mut self, key: String) -> &'static str {
        let absent = !self.live().contains_key(&key);
        let put = self.namespace.put_if(&key, "if", crate::Condition::Absent);
        assert_eq!(put.is_ok(), absent, "{key}: {put:?}");
        if absent {
            self.model.insert(key, ("if".to_owned(), u64::MAX));
        }
        "conditional put"
    }

    /// A batch that is settled before it returns.
    fn commit_small(&mut self, key: String) -> &'static str {
        let other = self.key();
        let mut batch = self.store.batch();
        batch
            .put(&self.namespace, &key, "small")
            .delete(&self.namespace, &other);
        batch.commit().unwrap();
        self.model.insert(key, ("small".to_owned(), u64::MAX));
        self.model.remove(&other);
        "small batch"
    }

    /// Holds up to three snapshots.
    fn take_snapshot(&mut self) -> &'static str {
        let live = self.live();
        self.snapshots.push((self.store.snapshot().unwrap(), live));
        if self.snapshots.len() > 3 {
            let at = self.random.below(4) as usize;
            drop(self.snapshots.swap_remove(at));
        }
        "snapshot"
    }

    fn move_value(&mut self, key: &str) -> &'static str {
        let moved = self.store.transaction(|transaction| {
            let value = transaction.get(&self.namespace, key)?;
            let text = value.map_or_else(String::new, |value| value.as_str().unwrap().to_owned());
            transaction.put(&self.namespace, "moved", &text)?;
            Ok(text)
        });
        self.model.insert("moved".to_owned(), (moved.unwrap(), u64::MAX));
        "transaction"
    }

    fn pop(&mut self) -> &'static str {
        let popped = self.namespace.pop_first("key 2").unwrap();
        let live = self.live();
        let first = live.iter().find(|(key, _)| key.starts_with("key 2"));
        let expected = first.map(|(key, (value, _))| (key.clone(), value.clone()));
        let popped = popped.map(|(key, value)| (String::from_utf8(key).unwrap(), value.as_str().unwrap().to_owned()));
        assert_eq!(popped, expected);
        self.model
            .retain(|key, _| Some(key) != expected.as_ref().map(|(key, _)| key));
        "pop"
    }

    fn delete_range(&mut self) -> &'static str {
        let deleted = self.namespace.delete_prefix("key 1").run().unwrap().count;
        let live = self.live();
        assert_eq!(
            deleted,
            live.keys().filter(|key| key.starts_with("key 1")).count() as u64
        );
        self.model.retain(|key, _| !key.starts_with("key 1"));
        "range delete"
    }

    /// What is not expired.
    fn live(&self) -> Model {
        let now = self.now_ms();
        let live = self.model.iter().filter(|(_, (_, expiry))| *expiry > now);
        live.map(|(key, entry)| (key.clone(), entry.clone())).collect()
    }

    /// Compares what reads of every kind show.
    fn check(&self) {
        let live = self.live();
        let now = self.now_ms();
        let mut listed = Vec::new();
        for entry in self.namespace.list().with_values().page_size(7) {
            let entry = entry.unwrap();
            listed.push((
                entry.key_str().unwrap().to_owned(),
                entry.value().unwrap().as_str().unwrap().to_owned(),
            ));
        }
        let expected = live.iter().map(|(key, (value, _))| (key.clone(), value.clone()));
        assert_eq!(listed, expected.collect::<Vec<_>>());
        assert_eq!(self.namespace.count().unwrap(), live.len() as u64);
        let keys: Vec<_> = (0..40).map(|number| format!("key {number:02}")).collect();
        let text = |value: crate::Value| value.as_str().unwrap().to_owned();
        for (key, of_many) in keys.iter().zip(self.namespace.get_many(&keys).unwrap()) {
            let expected = live.get(key).map(|(value, _)| value.clone());
            assert_eq!(of_many.map(text), expected, "{key}");
            assert_eq!(self.namespace.get(key).unwrap().map(text), expected, "{key}");
        }
        for (snapshot, model) in &self.snapshots {
            let list = || snapshot.list(&self.namespace).unwrap();
            let live = model.iter().filter(|(_, (_, expiry))| *expiry > now);
            let live: Vec<_> = live.map(|(key, (value, _))| (key.clone(), value.clone())).collect();
            let listed = list().with_values().page_size(5).into_iter().map(|entry| {
                let entry = entry.unwrap();
                let value = entry.value().unwrap().as_str().unwrap().to_owned();
                (entry.key_str().unwrap().to_owned(), value)
            });
            assert_eq!(listed.collect::<Vec<_>>(), live);
            assert_eq!(list().count().unwrap(), live.len() as u64);
            for (key, value) in &live {
                let found = snapshot.get(&self.namespace, key).unwrap();
                assert_eq!(found.map(text).as_ref(), Some(value), "{key}");
            }
        }
    }

    /// Compares the counters with the records in the segments.
    fn recount(&self) {
        let state = &self.store.engine().state;
        assert!(!state.is_changing() && state.group.load().is_none());
        for segment in state.segments.all() {
            let mut scratch = Vec::new();
            let mut scanner = Scanner::new(segment.all_bytes(&mut scratch).unwrap(), segment.header);
            let (mut puts, mut live, mut tombstones) = (0, 0, 0);
            while let Ok(found) = scanner.next() {
                let header = &found.record.header;
                if header.kind.is_put() {
                    let hash = state.hash(header.namespace, found.record.key());
                    puts += 1;
                    live += u64::from(state.points_at(hash, segment.location(found.offset)));
                } else {
                    tombstones += u64::from(header.kind.is_tombstone());
                }
            }
            let counts = segment.counters.get();
            assert_eq!(
                (counts.puts, counts.live_puts, counts.tombstones),
                (puts, live, tombstones)
            );
        }
    }
}

#[test]
fn what_others_do_while_a_batch_is_settled_comes_after_it() {
    let world = Arc::new(Mutex::new(World::new()));
    let state = lock(&world).store.engine().state.clone();
    let acting = world.clone();
    between_turns(&state, move || {
        let mut world = lock(&acting);
        if world.random.below(2) == 0 {
            world.act();
            world.check();
        } else if world.random.below(8) == 0 {
            drop(world);
            // Another large one, published on top.
            World::commit(&acting, 15);
            lock(&acting)
                .done
                .entry("large batch")
                .and_modify(|times| *times += 1)
                .or_insert(1);
            lock(&acting).check();
        }
    });
    // Until each kind has come a few times.
    let mut rounds = 0;
    while rounds < 30 || lock(&world).done.len() < 12 || lock(&world).done.values().any(|times| *times < 4) {
        rounds += 1;
        assert!(rounds < 1000, "{:?}", lock(&world).done);
        let records = 9 + lock(&world).random.below(60);
        World::commit(&world, records);
        let world = lock(&world);
        world.check();
        world.recount();
    }
    *lock(&state.between_turns) = None;
    let mut world = lock(&world);
    world.snapshots.clear();
    world.clock.advance(100);
    world.store.maintain().unwrap();
    world.check();
    world.recount();
    assert_eq!(state.due_before(u64::MAX), 0, "the expiry queue");
}
