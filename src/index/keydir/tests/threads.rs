//! The keydir under real threads, for what shuttle does not cover: `ArcSwap` and this machine's
//! memory model.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;

/// Stops the readers when the writer is done, even if it panics.
struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Readers look up keys that are always present while a writer replaces them, and inserts and
/// removes others in the same chains, growing and shrinking the tables under the readers.
fn readers_never_miss(key_hash: fn(u16) -> u64, stable: u16, churning: u16, rounds: u64) {
    let keydir = Keydir::new();
    let done = AtomicBool::new(false);
    (0..stable).for_each(|key| keydir.insert(key_hash(key), at(key, 0)).unwrap());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut seen = vec![0; usize::from(stable)];
                loop {
                    // At least one round, even if the writer is already done.
                    let is_last = done.load(Ordering::Relaxed);
                    for key in 0..stable {
                        let found = find_beside_others(&keydir, key_hash(key), key).0.map(version);
                        let found = found.unwrap_or_else(|| panic!("key {key} is missed"));
                        let last = std::mem::replace(&mut seen[usize::from(key)], found);
                        assert!(last <= found, "key {key} went back from version {last} to {found}");
                    }
                    let mut all = 0;
                    keydir.for_each(|location| all += usize::from(location.segment_index() < stable));
                    assert_eq!(all, usize::from(stable), "each stable key is seen once by a walk");
                    if is_last {
                        break;
                    }
                }
            });
        }
        let _finish = Finish(&done);
        for round in 0..rounds {
            for key in stable..stable + churning {
                keydir.insert(key_hash(key), at(key, round)).unwrap();
                let replaced = key % stable;
                let old = find_beside_others(&keydir, key_hash(replaced), replaced).0.unwrap();
                assert!(keydir.replace(key_hash(replaced), old, at(replaced, version(old) + 1)));
                // One key in three is removed at once, so that another reuses its slot.
                if key % 3 == 0 {
                    assert!(keydir.remove(key_hash(key), at(key, round)));
                }
            }
            for key in (stable..stable + churning).filter(|key| key % 3 != 0) {
                assert!(keydir.remove(key_hash(key), at(key, round)));
            }
        }
    });
    check(&keydir);
    assert_eq!(keydir.len(), u64::from(stable));
}

#[test]
fn readers_never_miss_a_key_among_colliding_ones() {
    readers_never_miss(colliding, 40, 300, 300);
}

#[test]
fn readers_never_miss_a_key_while_tables_grow_and_shrink() {
    readers_never_miss(scattered, 40, 3000, 100);
}

/// Two writers, each with keys of its own, beside a thread that makes tables smaller.
#[test]
fn writers_lose_nothing_while_tables_are_made_smaller() {
    let keydir = Keydir::new();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let shrinking = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                keydir.shards.iter().for_each(Shard::shrink);
            }
        });
        let writers: Vec<_> = [0..3_000, 3_000..6_000]
            .into_iter()
            .map(|keys| {
                let keydir = &keydir;
                scope.spawn(move || {
                    for version in 0..30 {
                        for key in keys.clone() {
                            keydir.insert(scattered(key), at(key, version)).unwrap();
                        }
                        for key in keys.clone() {
                            assert!(keydir.replace(scattered(key), at(key, version), at(key, version + 1)));
                            assert_eq!(find(keydir, scattered(key), key), Some(at(key, version + 1)));
                        }
                        for key in keys.clone().filter(|key| version < 29 || key % 10 > 0) {
                            assert!(keydir.remove(scattered(key), at(key, version + 1)));
                        }
                    }
                })
            })
            .collect();
        let _finish = Finish(&done);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Relaxed);
        shrinking.join().unwrap();
    });
    check(&keydir);
    assert_eq!(keydir.len(), 600);
}

#[test]
fn threads_that_upsert_the_same_keys_agree_on_the_newest() {
    let keydir = Keydir::with_capacity(5000);
    thread::scope(|scope| {
        for offset in 0..3 {
            let keydir = &keydir;
            scope.spawn(move || {
                for version in (0..10).map(|version| (version * 7 + offset * 3) % 10) {
                    for key in 0..2000 {
                        let _ = upsert(keydir, mixed(key), at(key as u16, version));
                    }
                }
            });
        }
    });
    check(&keydir);
    assert_eq!(keydir.len(), 2000);
    (0..2000).for_each(|key| assert_eq!(find(&keydir, mixed(key), key as u16), Some(at(key as u16, 9))));
}
