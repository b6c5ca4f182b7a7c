//! A full disk is left by deleting, wherever the deleted keys are.

use std::sync::Arc;
use std::time::Duration;

use embercask::storage::MemStorage;
use embercask::{Durability, ErrorKind, Maintenance, ManualClock, Namespace, PutOptions, Store};
use test_support::{DIRECTORY, Rng, rng};

const DISK_BYTES: u64 = 12 << 20;
const VALUE_BYTES: usize = 700;

struct Full {
    disk: MemStorage,
    clock: ManualClock,
    store: Store,
    rng: Rng,
    /// The keys that are there, in the order in which they were put.
    keys: Vec<String>,
}

/// Which keys are deleted.
#[derive(Clone, Copy, Debug)]
enum Which {
    Evenly,
    ByPrefix,
    OldestFirst,
    NewestFirst,
    AtRandom,
}

impl Full {
    /// A store that was filled until the disk was full to this percentage, by other files if not by
    /// its own. Keys expire after an hour, or do not.
    fn new(percent: u64, maintenance: Maintenance, lifetime: Option<Duration>) -> Full {
        let disk = MemStorage::new();
        disk.set_capacity(Some(DISK_BYTES));
        let clock = ManualClock::new(2_000_000_000_000);
        let store = Store::options()
            .segment_bytes(512 << 10)
            .maintenance(maintenance)
            .durability(Durability::Os)
            .clock(clock.clone())
            .storage(Arc::new(disk.clone()))
            .open(DIRECTORY)
            .unwrap();
        let namespace = store.namespace("N").unwrap();
        let mut full = Full {
            disk,
            clock,
            store,
            rng: rng(),
            keys: Vec::new(),
        };
        for n in 0.. {
            let key = format!("{:02} {n:06}", full.rng.below(100));
            let mut options = PutOptions::new();
            if let Some(lifetime) = lifetime {
                options = options.ttl(lifetime);
            }
            match namespace.put_with(&key, [n as u8; VALUE_BYTES], options) {
                Ok(_) => full.keys.push(key),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                    break;
                }
            }
            if full.disk.used() > DISK_BYTES * percent / 100 {
                full.disk.set_capacity(Some(full.disk.used()));
            }
        }
        assert!(full.keys.len() > 8000, "{} keys", full.keys.len());
        full
    }

    fn namespace(&self) -> Namespace {
        self.store.namespace("N").unwrap()
    }

    /// Deletes a part of the keys; no delete may fail.
    fn delete(&mut self, which: Which, kept: impl Fn(usize) -> bool) {
        let mut order: Vec<_> = (0..self.keys.len()).collect();
        match which {
            Which::Evenly | Which::OldestFirst => {}
            Which::NewestFirst => order.reverse(),
            Which::ByPrefix => order.sort_by_key(|index| self.keys[*index].clone()),
            Which::AtRandom => order.sort_by_cached_key(|_| self.rng.next()),
        }
        let namespace = self.namespace();
        let (mut left, total) = (Vec::new(), order.len());
        for (number, index) in order.into_iter().enumerate() {
            let key = &self.keys[index];
            let is_kept = match which {
                Which::Evenly => kept(number),
                _ => number >= total * 7 / 8,
            };
            if is_kept {
                left.push(key.clone());
                continue;
            }
            if let Err(error) = namespace.delete(key) {
                panic!("{which:?}: delete {number} of {total}: {error}");
            }
        }
        self.keys = left;
    }

    /// Puts work again, perhaps after a step of maintenance.
    fn is_left(&mut self, puts: usize, what: &str) {
        let namespace = self.namespace();
        for n in 0..puts {
            let put = || namespace.put(format!("again {n}"), [9; VALUE_BYTES]);
            let again = put().or_else(|error| {
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                self.store.maintain()?;
                self.store.compact_if_worthwhile()?;
                put()
            });
            if let Err(error) = again {
                panic!("{what}: put {n} of {puts}: {error}; {:#?}", self.store.stats());
            }
        }
        for key in &self.keys {
            assert!(namespace.get(key).unwrap().is_some(), "{what}: {key} is lost");
        }
        assert_eq!(namespace.count().unwrap(), (self.keys.len() + puts) as u64, "{what}");
        assert!(!self.store.stats().disk_full, "{what}");
    }
}

#[test]
fn a_full_disk_is_left_by_deleting_wherever_the_deleted_keys_are() {
    for percent in [90, 99] {
        for which in [
            Which::Evenly,
            Which::ByPrefix,
            Which::OldestFirst,
            Which::NewestFirst,
            Which::AtRandom,
        ] {
            let mut full = Full::new(percent, Maintenance::Manual, None);
            let before = full.keys.len();
            full.delete(which, |number| number.is_multiple_of(8));
            assert!(full.keys.len() * 7 < before, "{} of {before}", full.keys.len());
            full.store.maintain().unwrap();
            full.store.compact_if_worthwhile().unwrap();
            full.is_left(before / 2, &format!("{which:?} at {percent} %"));
        }
    }
}

/// As few as one key in ten, so that each segment frees little.
#[test]
fn few_deletes_free_something_too() {
    let mut full = Full::new(99, Maintenance::Manual, None);
    let before = full.keys.len();
    full.delete(Which::Evenly, |number| !number.is_multiple_of(10));
    full.store.maintain().unwrap();
    full.store.compact_if_worthwhile().unwrap();
    full.is_left(before / 40, "one in ten");
}

#[test]
fn a_full_disk_is_left_when_keys_expire() {
    for percent in [90, 99] {
        let mut full = Full::new(percent, Maintenance::Manual, Some(Duration::from_secs(3600)));
        let before = full.keys.len();
        full.clock.advance(3_600_000 + 20_000);
        full.store.maintain().unwrap();
        full.store.compact_if_worthwhile().unwrap();
        full.keys.clear();
        full.is_left(before / 2, &format!("expiry at {percent} %"));
    }
}

#[test]
fn a_full_disk_is_left_by_dropping_a_namespace() {
    for percent in [90, 99] {
        let mut full = Full::new(percent, Maintenance::Manual, None);
        let before = full.keys.len();
        full.store.drop_namespace("N").unwrap();
        full.store.maintain().unwrap();
        full.store.compact_if_worthwhile().unwrap();
        full.keys.clear();
        full.is_left(before / 2, &format!("drop at {percent} %"));
    }
}

/// By hand, and by the store's own threads.
#[test]
fn compaction_by_hand_works_on_a_full_disk() {
    let mut full = Full::new(99, Maintenance::Background, None);
    let before = full.keys.len();
    full.store.pause_compaction();
    // What fits.
    let namespace = full.namespace();
    let mut gone = 0;
    for key in full.keys.iter().step_by(2) {
        match namespace.delete(key) {
            Ok(_) => gone += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                break;
            }
        }
    }
    assert!(gone > 500, "{gone} of {before}");
    let left = full.keys.iter().enumerate();
    let left = left.filter(|(index, _)| index % 2 == 1 || *index >= 2 * gone);
    full.keys = left.map(|(_, key)| key.clone()).collect();
    let report = full.store.compact().unwrap();
    assert!(report.reclaimed_bytes > (gone * VALUE_BYTES / 2) as u64, "{report:?}");
    full.store.resume_compaction();
    full.is_left(gone / 4, "by hand");
}
