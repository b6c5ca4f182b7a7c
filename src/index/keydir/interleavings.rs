//! Interleavings of readers and writers explored by shuttle: `RUSTFLAGS="--cfg shuttle" cargo test
//! --lib keydir`.
//!
//! Threads may switch at every load and store of a slot and at every mutex, under random and under
//! priority schedules, in tables of 4 slots. Two things are not covered: shuttle's atomics are
//! sequentially consistent, so the memory orderings rest on the argument in the parent module; and
//! `ArcSwap` is not instrumented, so loading and publishing a table are single steps here, as its
//! own tests promise.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::convert::Infallible;
use std::sync::Arc;

use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use shuttle::thread;

use super::*;

/// Schedules tried per kind and tag.
const SCHEDULES: usize = 3000;

/// Context switches that a priority schedule inserts.
const DEPTH: usize = 4;

/// A tag in the middle of a table, for chains that do not wrap around.
const MIDDLE: u64 = 1 << (Tag::BITS - 1);

/// The largest tag, for chains that do.
const LAST: u64 = (1 << Tag::BITS) - 1;

/// Runs a scenario under many schedules. A failure prints the schedule, which `shuttle::replay`
/// repeats.
fn explore(scenario: fn(tag: u64)) {
    for tag in [MIDDLE, LAST] {
        shuttle::check_random(move || scenario(tag), SCHEDULES);
        shuttle::check_pct(move || scenario(tag), SCHEDULES, DEPTH);
    }
}

/// A hash of the first shard with this tag.
fn hash(tag: u64) -> u64 {
    tag << Tag::SHIFT
}

/// The location of a version of a key. The segment index encodes the key, in place of reading the
/// record.
fn at(key: u16, version: u64) -> Location {
    Location::new(key, Location::OFFSET_MIN + version * 8)
}

/// Looks up a key and returns its version.
fn find(keydir: &Keydir, tag: u64, key: u16) -> Option<u64> {
    let Ok(found) = keydir.find::<Infallible>(hash(tag), |location| Ok(location.segment_index() == key));
    found.map(|location| (location.offset() - Location::OFFSET_MIN) / 8)
}

/// A keydir with these keys in one chain.
fn keydir_with(tag: u64, keys: impl IntoIterator<Item = u16>) -> Arc<Keydir> {
    let keydir = Keydir::new();
    keys.into_iter()
        .for_each(|key| keydir.insert(hash(tag), at(key, 0)).unwrap());
    Arc::new(keydir)
}

/// Runs a writer on its own thread and concurrently looks up the key, which must be found every
/// time.
fn never_missed(keydir: &Arc<Keydir>, tag: u64, key: u16, write: impl FnOnce(&Keydir) + Send + 'static) {
    let writer = thread::spawn({
        let keydir = Arc::clone(keydir);
        move || write(&keydir)
    });
    let mut last = 0;
    for _ in 0..3 {
        let found = find(keydir, tag, key);
        assert!(
            found >= Some(last),
            "key {key} is missed, or older than before: {found:?} after {last}"
        );
        last = found.unwrap_or(last);
    }
    writer.join().unwrap();
    keydir.shards.iter().for_each(Shard::check);
}

#[test]
fn a_reader_finds_a_key_that_is_being_replaced() {
    explore(|tag| {
        let keydir = keydir_with(tag, [1, 2]);
        never_missed(&keydir, tag, 2, move |keydir| {
            assert!(keydir.replace(hash(tag), at(2, 0), at(2, 1)));
            assert!(keydir.replace(hash(tag), at(1, 0), at(1, 1)));
            assert!(keydir.replace(hash(tag), at(2, 1), at(2, 2)));
        });
        assert_eq!(find(&keydir, tag, 2), Some(2));
    });
}

#[test]
fn a_reader_passes_a_slot_that_is_deleted_and_used_again() {
    explore(|tag| {
        let keydir = keydir_with(tag, [1, 2, 3]);
        never_missed(&keydir, tag, 3, move |keydir| {
            assert!(keydir.remove(hash(tag), at(1, 0)));
            assert!(keydir.remove(hash(tag), at(2, 0)));
            keydir.insert(hash(tag), at(4, 0)).unwrap();
            keydir.insert(hash(tag), at(2, 1)).unwrap();
        });
    });
}

#[test]
fn a_reader_finds_a_key_while_marks_after_it_are_cleared() {
    explore(|tag| {
        let keydir = keydir_with(tag, [1, 2, 3]);
        never_missed(&keydir, tag, 1, move |keydir| {
            assert!(keydir.remove(hash(tag), at(2, 0)));
            assert!(keydir.remove(hash(tag), at(3, 0)));
            keydir.insert(hash(tag), at(4, 0)).unwrap();
        });
    });
}

#[test]
fn a_reader_finds_a_key_while_its_table_grows() {
    explore(|tag| {
        let keydir = keydir_with(tag, [1, 2, 3]);
        never_missed(&keydir, tag, 3, move |keydir| {
            keydir.insert(hash(tag), at(4, 0)).unwrap();
            assert!(keydir.replace(hash(tag), at(3, 0), at(3, 1)));
            assert!(keydir.shards[0].table().capacity() > 4, "the table has grown");
        });
        assert_eq!(find(&keydir, tag, 3), Some(1));
    });
}

#[test]
fn a_reader_finds_a_key_while_its_table_shrinks() {
    explore(|tag| {
        let keydir = keydir_with(tag, 1..=7);
        let before = keydir.shards[0].table().capacity();
        never_missed(&keydir, tag, 7, move |keydir| {
            (1..=6).for_each(|key| assert!(keydir.remove(hash(tag), at(key, 0))));
            assert!(keydir.shards[0].table().capacity() < before, "the table has shrunk");
        });
    });
}

#[test]
fn a_reader_finds_a_key_while_its_table_is_made_smaller_beside_a_writer() {
    explore(|tag| {
        let keydir = keydir_with(tag, 1..=7);
        let before = keydir.shards[0].table().capacity();
        (1..=3).for_each(|key| assert!(keydir.remove(hash(tag), at(key, 0))));
        let shrinking = thread::spawn({
            let keydir = Arc::clone(&keydir);
            move || keydir.shrink()
        });
        never_missed(&keydir, tag, 7, move |keydir| {
            assert!(keydir.remove(hash(tag), at(4, 0)));
            assert!(keydir.replace(hash(tag), at(7, 0), at(7, 1)));
            assert!(keydir.remove(hash(tag), at(5, 0)));
            keydir.insert(hash(tag), at(8, 0)).unwrap();
        });
        shrinking.join().unwrap();
        // What the last removals have left loose.
        keydir.shrink();
        assert!(keydir.shards[0].table().capacity() < before, "the table is smaller");
        keydir.shards.iter().for_each(Shard::check);
        assert_eq!((keydir.len(), find(&keydir, tag, 7)), (3, Some(1)));
    });
}

#[test]
fn a_key_put_back_into_an_earlier_slot_is_missed_only_while_it_is_absent() {
    explore(|tag| {
        let keydir = keydir_with(tag, [1, 2, 3]);
        // Incremented before the key is removed and after it is back: odd while it may be absent.
        let phase = Arc::new(AtomicU64::new(0));
        let writer = thread::spawn({
            let (keydir, phase) = (Arc::clone(&keydir), Arc::clone(&phase));
            move || {
                assert!(keydir.remove(hash(tag), at(1, 0)));
                phase.store(1, Ordering::SeqCst);
                assert!(keydir.remove(hash(tag), at(3, 0)));
                keydir.insert(hash(tag), at(3, 1)).unwrap();
                phase.store(2, Ordering::SeqCst);
            }
        });
        for _ in 0..3 {
            let before = phase.load(Ordering::SeqCst);
            let found = find(&keydir, tag, 3);
            let after = phase.load(Ordering::SeqCst);
            match (before, after) {
                (0, 0) => assert_eq!(found, Some(0), "the key has not gone yet"),
                (2, _) => assert_eq!(found, Some(1), "the key is back"),
                _ => {}
            }
        }
        writer.join().unwrap();
    });
}

#[test]
fn a_removed_key_is_not_found_again() {
    explore(|tag| {
        let keydir = keydir_with(tag, [1, 2]);
        let removed = Arc::new(AtomicBool::new(false));
        let writer = thread::spawn({
            let (keydir, removed) = (Arc::clone(&keydir), Arc::clone(&removed));
            move || {
                assert!(keydir.remove(hash(tag), at(1, 0)));
                removed.store(true, Ordering::SeqCst);
                (3..6).for_each(|key| keydir.insert(hash(tag), at(key, 0)).unwrap());
            }
        });
        let before = removed.load(Ordering::SeqCst);
        assert!(
            !(before && find(&keydir, tag, 1).is_some()),
            "found after its removal was complete"
        );
        writer.join().unwrap();
    });
}

#[test]
fn writers_of_one_key_leave_the_newest_and_lose_nothing() {
    explore(|tag| {
        let keydir = keydir_with(tag, [1, 2]);
        let writers = [[1, 3], [2, 4]].map(|versions| {
            let keydir = Arc::clone(&keydir);
            thread::spawn(move || {
                for version in versions {
                    let Ok(_) = keydir.upsert::<Infallible>(hash(tag), at(3, version), |standing| {
                        Ok(match standing {
                            other if other.segment_index() != 3 => Relation::OtherKey,
                            same if same < at(3, version) => Relation::SameKeyOlder,
                            _ => Relation::SameKeyNewer,
                        })
                    });
                }
                keydir.insert(hash(tag), at(versions[0] as u16 + 10, 0)).unwrap();
            })
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        keydir.shards.iter().for_each(Shard::check);
        assert_eq!((keydir.len(), find(&keydir, tag, 3)), (5, Some(4)));
    });
}

#[test]
fn a_compaction_and_a_write_never_both_replace_a_location() {
    explore(|tag| {
        let keydir = keydir_with(tag, [1, 2]);
        let writers = [1, 2].map(|version| {
            let keydir = Arc::clone(&keydir);
            thread::spawn(move || keydir.replace(hash(tag), at(2, 0), at(2, version)))
        });
        let won = writers.map(|writer| writer.join().unwrap());
        assert!(won[0] != won[1], "exactly one of two replacements of one location wins");
        assert_eq!(find(&keydir, tag, 2), Some(if won[0] { 1 } else { 2 }));
    });
}
