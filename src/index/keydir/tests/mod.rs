//! (Over 400 lines: all rules of one table.)
//!
//! Tests of the keydir alone: here at the edges of its tables, in the submodules against a map and
//! with real threads.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod model;
mod threads;

use std::convert::Infallible;

use super::*;

/// The largest tag.
const TAG_MAX: u64 = (1 << Tag::BITS) - 1;

/// A hash with this shard and this tag.
fn hash(shard: u64, tag: u64) -> u64 {
    shard << (u64::BITS - SHARD_BITS) | tag << Tag::SHIFT
}

/// A well-mixed hash, like a store's (the finaliser of splitmix64).
fn mixed(key: u64) -> u64 {
    let key = (key + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ (key >> 31)
}

/// Two shards and six tags for 256 keys: half of the tags at the edges, where chains wrap around.
fn colliding(key: u16) -> u64 {
    let tags = [0, 1, TAG_MAX / 2, TAG_MAX / 2 + 1, TAG_MAX - 1, TAG_MAX];
    let [shard, tag] = [u64::from(key) % 2 * 1023, tags[usize::from(key) / 2 % tags.len()]];
    hash(shard, tag) | u64::from(key)
}

/// Two shards and a tag for each key.
fn scattered(key: u16) -> u64 {
    hash(u64::from(key) % 2 * 1023, mixed(u64::from(key)) & TAG_MAX)
}

/// The location of a version of a key. The segment index encodes the key, in place of reading the
/// record.
fn at(key: u16, version: u64) -> Location {
    Location::new(key, Location::OFFSET_MIN + version * 8)
}

/// The version of a location made by [`at`].
fn version(location: Location) -> u64 {
    (location.offset() - Location::OFFSET_MIN) / 8
}

/// Looks up a key whose locations are made by [`at`].
fn find(keydir: &Keydir, hash: u64, key: u16) -> Option<Location> {
    let (found, first) = find_beside_others(keydir, hash, key);
    assert_eq!(
        keydir.first(hash),
        first,
        "the first is not the one that is asked about first"
    );
    found
}

/// The same, and the first location that was asked about.
fn find_beside_others(keydir: &Keydir, hash: u64, key: u16) -> (Option<Location>, Option<Location>) {
    let mut asked = None;
    let Ok(found) = keydir.find::<Infallible>(hash, |location| {
        asked.get_or_insert(location);
        Ok(location.segment_index() == key)
    });
    (found, asked)
}

/// Upserts a version of a key, newer versions being newer records.
fn upsert(keydir: &Keydir, hash: u64, location: Location) -> Upsert {
    let Ok(done) = keydir.upsert::<Infallible>(hash, location, |standing| {
        Ok(if standing.segment_index() != location.segment_index() {
            Relation::OtherKey
        } else if version(standing) < version(location) {
            Relation::SameKeyOlder
        } else {
            Relation::SameKeyNewer
        })
    });
    done
}

/// Checks the rules of every shard.
fn check(keydir: &Keydir) {
    keydir.shards.iter().for_each(Shard::check);
}

/// The number of slots of the shard with this index.
fn capacity(keydir: &Keydir, shard: usize) -> usize {
    keydir.shards[shard].table().capacity()
}

#[test]
fn a_location_keeps_its_parts_up_to_the_limits() {
    for segment_index in [0, 1, 255, 256, u16::MAX] {
        for offset in [
            Location::OFFSET_MIN,
            72,
            4096,
            Location::OFFSET_MAX / 2,
            Location::OFFSET_MAX - 8,
        ] {
            let location = Location::new(segment_index, offset);
            assert_eq!((location.segment_index(), location.offset()), (segment_index, offset));
            assert!(location.bits() < 1 << Location::BITS);
            for tag in [0, 1, TAG_MAX] {
                let slot = Slot::new(Tag::of(hash(0, tag)), location);
                assert_eq!(
                    (slot.tag(), slot.location()),
                    (Tag::of(hash(1023, tag)), Some(location))
                );
            }
        }
    }
    assert_eq!(u64::from(u16::MAX) + 1, Location::SEGMENTS_MAX);
    assert_eq!((Slot::EMPTY.location(), Slot::DELETED.location()), (None, None));
}

#[test]
fn a_rebuilt_table_always_has_room_for_what_it_was_built_for() {
    for index in 0..SHARDS {
        let sizing = Sizing::of_shard(index, SHARDS);
        for live in (0..200).chain([1000, 10_000, 1_000_000, sizing.live_max()]) {
            let capacity = sizing.capacity_for(live);
            assert!(
                live <= sizing.used_max(capacity),
                "{live} entries do not fit in {capacity} slots"
            );
            assert!(
                sizing.used_max(capacity) < capacity,
                "a table of {capacity} keeps an EMPTY slot"
            );
            if live > 1000 && live < sizing.live_max() {
                let load = live as f64 / capacity as f64;
                assert!((0.619..0.701).contains(&load), "load {load} after a rebuild");
            }
        }
    }
}

#[test]
fn tables_are_filled_to_seven_eighths_the_largest_more_and_those_of_different_shards_differently() {
    let sizing = Sizing::of_shard(0, SHARDS);
    let largest = 1 << Tag::BITS;
    for (capacity, used_max) in [
        (8, 7),
        (1024, 896),
        (largest / 2, largest / 16 * 7),
        (largest, largest / 16 * 15),
    ] {
        assert_eq!(sizing.used_max(capacity), used_max, "{capacity}");
    }
    let sizes = [0, SHARDS / 2, SHARDS - 1].map(|index| Sizing::of_shard(index, SHARDS).capacity_for(100_000));
    assert!(
        sizes[0] > sizes[1] * 105 / 100 && sizes[1] > sizes[2] * 105 / 100,
        "{sizes:?}"
    );
}

fn candidate(keydir: &Keydir, hash: u64) -> Option<Location> {
    let mut found = Vec::new();
    keydir.candidates(&[hash], &mut found);
    found.pop().flatten()
}

#[test]
fn candidates_of_many_hashes_are_those_of_each() {
    let keydir = Keydir::new();
    for key in 0..1000u16 {
        keydir.insert(mixed(u64::from(key)), at(key, 0)).unwrap();
    }
    let hashes: Vec<_> = (0..2001).map(mixed).collect();
    let mut found = Vec::new();
    keydir.candidates(&hashes, &mut found);
    assert_eq!(found.len(), hashes.len());
    for (hash, found) in hashes.iter().zip(found) {
        assert_eq!(found, candidate(&keydir, *hash));
    }
}

#[test]
fn an_empty_keydir_answers_and_costs_little() {
    let keydir = Keydir::new();
    println!("an empty keydir: {} bytes", keydir.memory_bytes());
    assert!(keydir.memory_bytes() < 200 << 10);
    for hash in [0, u64::MAX, mixed(1)] {
        assert_eq!(find(&keydir, hash, 0), None);
        assert_eq!(candidate(&keydir, hash), None);
        assert!(!keydir.holds(hash, at(0, 0)));
        assert!(!keydir.replace(hash, at(0, 0), at(0, 1)));
        assert!(!keydir.remove(hash, at(0, 0)));
    }
    assert_eq!(keydir.len(), 0);
    keydir.for_each(|location| panic!("{location:?} in an empty keydir"));
}

#[test]
fn a_key_is_told_from_others_of_its_tag_by_confirming() {
    let keydir = Keydir::new();
    for key in 0..20 {
        keydir.insert(hash(7, 42), at(key, 0)).unwrap();
    }
    for key in 0..20 {
        assert_eq!(find(&keydir, hash(7, 42), key), Some(at(key, 0)));
    }
    assert_eq!(find(&keydir, hash(7, 42), 20), None);
    assert_eq!(find(&keydir, hash(8, 42), 3), None, "another shard");
    assert_eq!(find(&keydir, hash(7, 43), 3), None, "another tag");
    assert!(candidate(&keydir, hash(7, 42)).is_some());
    check(&keydir);
}

#[test]
fn an_error_of_the_callback_ends_the_look_up_and_changes_nothing() {
    let keydir = Keydir::new();
    keydir.insert(0, at(1, 0)).unwrap();
    keydir.insert(0, at(2, 0)).unwrap();
    let mut calls = 0;
    let failed = keydir.find(0, |_| {
        calls += 1;
        Err("unreadable")
    });
    assert_eq!((failed, calls), (Err("unreadable"), 1));
    assert_eq!(keydir.upsert(0, at(3, 0), |_| Err("unreadable")), Err("unreadable"));
    assert_eq!(keydir.len(), 2);
    assert_eq!(find(&keydir, 0, 3), None);
}

#[test]
fn replace_and_remove_do_nothing_if_a_newer_location_stands() {
    let keydir = Keydir::new();
    keydir.insert(0, at(1, 0)).unwrap();
    assert!(keydir.replace(0, at(1, 0), at(1, 1)));
    assert!(!keydir.replace(0, at(1, 0), at(1, 2)));
    assert!(!keydir.remove(0, at(1, 0)));
    assert!(keydir.holds(0, at(1, 1)) && !keydir.holds(0, at(1, 0)));
    assert!(keydir.remove(0, at(1, 1)));
    assert_eq!(keydir.len(), 0);
}

#[test]
fn upsert_keeps_the_newest_whatever_the_order() {
    let keydir = Keydir::new();
    assert_eq!(upsert(&keydir, 0, at(1, 5)), Upsert::Inserted);
    assert_eq!(upsert(&keydir, 0, at(2, 1)), Upsert::Inserted);
    assert_eq!(upsert(&keydir, 0, at(1, 4)), Upsert::Kept(at(1, 5)));
    assert_eq!(upsert(&keydir, 0, at(1, 6)), Upsert::Replaced(at(1, 5)));
    assert_eq!(upsert(&keydir, 0, at(1, 6)), Upsert::Kept(at(1, 6)));
    assert_eq!(keydir.len(), 2);
}

#[test]
fn a_chain_wraps_around_the_end_of_the_table() {
    let keydir = Keydir::new();
    // All have the last of eight slots as home: one gets it, the others fill slots from the first
    // on.
    for key in 0..5 {
        keydir.insert(hash(0, TAG_MAX), at(key, 0)).unwrap();
    }
    assert_eq!(capacity(&keydir, 0), 8);
    assert!(
        keydir.shards[0]
            .table()
            .slots()
            .next()
            .is_some_and(|slot| slot != Slot::EMPTY),
        "the chain wraps around"
    );
    let last = keydir.shards[0].table().slots().last();
    assert_eq!(
        last.and_then(Slot::location),
        Some(at(0, 0)),
        "the home is the last slot"
    );
    (0..5).for_each(|key| assert_eq!(find(&keydir, hash(0, TAG_MAX), key), Some(at(key, 0))));
    // The last slot becomes DELETED, and EMPTY again once no entry follows it across the edge.
    for key in [0, 2, 1, 4, 3] {
        assert!(keydir.remove(hash(0, TAG_MAX), at(key, 0)));
        check(&keydir);
    }
    assert!(
        keydir.shards[0].table().slots().all(|slot| slot == Slot::EMPTY),
        "no mark is left behind"
    );
}

#[test]
fn a_deleted_slot_is_used_again() {
    let keydir = Keydir::new();
    for key in 0..5 {
        keydir.insert(hash(0, 9), at(key, 0)).unwrap();
    }
    for round in 1..1000 {
        assert!(keydir.remove(hash(0, 9), at(1, round - 1)));
        assert_eq!(find(&keydir, hash(0, 9), 1), None);
        assert_eq!(find(&keydir, hash(0, 9), 4), Some(at(4, 0)));
        keydir.insert(hash(0, 9), at(1, round)).unwrap();
        assert_eq!(find(&keydir, hash(0, 9), 1), Some(at(1, round)));
        let second = keydir.shards[0].table().slots().nth(1).and_then(Slot::location);
        assert_eq!(
            second,
            Some(at(1, round)),
            "the slot that became free is the first of the probe"
        );
    }
    assert_eq!(capacity(&keydir, 0), 8);
    check(&keydir);
}

#[test]
fn deleted_marks_are_cleared_without_growing() {
    let keydir = Keydir::new();
    let key_hash = |key: u16| hash(3, mixed(u64::from(key)) & TAG_MAX);
    for key in 0..100 {
        keydir.insert(key_hash(key), at(key, 0)).unwrap();
    }
    let before = capacity(&keydir, 3);
    // A hundred keys at any time, constantly replaced by new ones.
    for key in 100..10_000 {
        assert!(keydir.remove(key_hash(key - 100), at(key - 100, 0)));
        keydir.insert(key_hash(key), at(key, 0)).unwrap();
        assert_eq!(find(&keydir, key_hash(key - 99), key - 99), Some(at(key - 99, 0)));
    }
    check(&keydir);
    assert!(
        capacity(&keydir, 3) <= before * 3 / 2,
        "{before} slots have become {}",
        capacity(&keydir, 3)
    );
}

#[test]
fn a_shard_grows_and_shrinks_with_its_keys() {
    let keydir = Keydir::new();
    let key_hash = |key: u16| hash(1023, mixed(u64::from(key)) & TAG_MAX);
    for key in 0..10_000 {
        keydir.insert(key_hash(key), at(key, 0)).unwrap();
    }
    check(&keydir);
    let full = capacity(&keydir, 1023);
    assert!((11_428..16_200).contains(&full), "10,000 keys have {full} slots");
    for key in 0..9_990 {
        assert!(keydir.remove(key_hash(key), at(key, 0)));
    }
    check(&keydir);
    assert!(
        capacity(&keydir, 1023) <= 40,
        "ten keys have {} slots",
        capacity(&keydir, 1023)
    );
    (0..9_990).for_each(|key| assert_eq!(find(&keydir, key_hash(key), key), None));
    (9_990..10_000).for_each(|key| assert_eq!(find(&keydir, key_hash(key), key), Some(at(key, 0))));
}

#[test]
fn a_table_grows_at_seven_eighths_and_shrinks_at_one_quarter() {
    let keydir = Keydir::new();
    let key_hash = |key: u16| hash(0, mixed(u64::from(key)) & TAG_MAX);
    let insert = |key| keydir.insert(key_hash(key), at(key, 0)).unwrap();
    (0..7).for_each(insert);
    assert_eq!(capacity(&keydir, 0), 8);
    insert(7);
    assert!(capacity(&keydir, 0) > 8);
    (8..10_000).for_each(insert);
    let full = capacity(&keydir, 0);
    let quarter = full / 4;
    let remove = |key: usize| assert!(keydir.remove(key_hash(key as u16), at(key as u16, 0)));
    for key in (quarter..10_000).rev() {
        assert_eq!(capacity(&keydir, 0), full, "{key}");
        remove(key);
    }
    assert_eq!(capacity(&keydir, 0), full);
    remove(quarter - 1);
    assert!(capacity(&keydir, 0) < full / 2);
    check(&keydir);
}

#[test]
fn what_a_keydir_takes_is_its_shards_and_the_tables_of_those_that_have_keys() {
    let keydir = Keydir::new();
    let empty = size_of::<Keydir>() + SHARDS * size_of::<Shard>();
    assert_eq!(keydir.memory_bytes(), empty);
    for key in 0..1000 {
        keydir
            .insert(hash(u64::from(key % 3), mixed(u64::from(key)) & TAG_MAX), at(key, 0))
            .unwrap();
    }
    let slots: usize = (0..3).map(|shard| capacity(&keydir, shard)).sum();
    // A table is counted by the references to it, in two numbers.
    let tables = 3 * (size_of::<Table>() + 2 * size_of::<usize>());
    assert_eq!(keydir.memory_bytes(), empty + tables + slots * size_of::<u64>());
}

#[test]
fn hashes_share_a_slot_if_shard_and_tag_are_the_same() {
    let other_low_bits = u64::from(u32::MAX);
    assert!(Keydir::same_slot(hash(7, 42), hash(7, 42) | other_low_bits));
    assert!(!Keydir::same_slot(hash(7, 42), hash(6, 42)));
    assert!(!Keydir::same_slot(hash(7, 42), hash(7, 43)));
    assert!(!Keydir::same_slot(hash(7, 42), hash(6, 43)));
}

#[test]
fn tables_that_have_lost_keys_are_made_smaller_when_that_is_asked_for() {
    let keydir = Keydir::new();
    (0..200_000).for_each(|key| keydir.insert(mixed(key), at(0, key)).unwrap());
    let full = keydir.memory_bytes();
    keydir.shrink();
    assert_eq!(keydir.memory_bytes(), full, "nothing was removed");
    for key in 0..120_000 {
        assert!(keydir.remove(mixed(key), at(0, key)));
    }
    // More than a quarter is left, so the removals have not done it.
    assert!(keydir.memory_bytes() > full * 9 / 10);
    keydir.shrink();
    check(&keydir);
    let fresh = Keydir::new();
    (120_000..200_000).for_each(|key| fresh.insert(mixed(key), at(0, key)).unwrap());
    let (left, needed) = (keydir.memory_bytes(), fresh.memory_bytes());
    assert!(left <= needed * 3 / 2, "{left} bytes instead of {needed}");
    let found = |key: u64| find(&keydir, mixed(key), 0) == Some(at(0, key));
    assert!(keydir.holds(mixed(120_000), at(0, 120_000)) && found(199_999));
    keydir.shrink();
    assert_eq!(keydir.memory_bytes(), left, "once is enough");
    (0..120_000).for_each(|key| keydir.insert(mixed(key), at(0, key)).unwrap());
    check(&keydir);
    assert_eq!(keydir.len(), 200_000);
}

#[test]
fn a_keydir_read_back_with_room_for_keys_that_have_left_is_made_smaller() {
    let keydir = Keydir::new();
    (0..200_000).for_each(|key| keydir.insert(mixed(key), at(0, key)).unwrap());
    (0..120_000).for_each(|key| assert!(keydir.remove(mixed(key), at(0, key))));
    let mut bytes = Vec::new();
    keydir.write_to(&mut bytes).unwrap();
    let read = Keydir::read_from(&mut Fields(&bytes), |_| true).unwrap();
    read.shrink();
    check(&read);
    assert!(read.memory_bytes() < keydir.memory_bytes() * 2 / 3);
    assert_eq!(read.len(), 80_000);
}

#[test]
fn a_presized_keydir_neither_grows_nor_shrinks_while_it_is_filled() {
    let keydir = Keydir::with_capacity(200_000);
    let capacities = |keydir: &Keydir| -> Vec<_> { (0..SHARDS).map(|shard| capacity(keydir, shard)).collect() };
    let before = capacities(&keydir);
    for key in 0..200_000 {
        keydir.insert(mixed(key), at(0, key)).unwrap();
        if key % 5 == 0 {
            assert!(keydir.remove(mixed(key), at(0, key)));
        }
    }
    assert_eq!(capacities(&keydir), before);
    assert_eq!(keydir.len(), 160_000);
    check(&keydir);
}

#[test]
fn a_full_shard_says_so_and_goes_on_working() {
    let empty = Arc::new(Table::new(0));
    let shard = Shard::new(Sizing::of_shard(0, SHARDS).with_capacity_max(64), 0, &empty);
    let slot = |key: u16, version| Slot::new(Tag::of(hash(0, mixed(u64::from(key)) & TAG_MAX)), at(key, version));
    let mut keys: Vec<u16> = (0..56).collect();
    let all_found = |keys: &[u16]| {
        for &key in keys {
            let slot = slot(key, 0);
            assert!(
                shard
                    .table()
                    .candidates(slot.tag())
                    .any(|location| Some(location) == slot.location())
            );
        }
    };
    keys.iter()
        .for_each(|&key| assert_eq!(shard.insert(slot(key, 0)), Ok(())));
    for next in 56..1000 {
        assert_eq!(shard.insert(slot(next, 0)), Err(Full));
        assert!(
            shard.replace(slot(keys[0], 0), slot(keys[0], 1)),
            "overwriting needs no room"
        );
        assert!(shard.remove(slot(keys.remove(0), 1)).is_some(), "removing makes room");
        assert_eq!(shard.insert(slot(next, 0)), Ok(()));
        keys.push(next);
        shard.check();
        assert_eq!((shard.live(), shard.table().capacity()), (56, 64));
        all_found(&keys);
    }
    // Opening a store enters all its records, and removes the shadows at the end.
    for next in 1000..1500 {
        let Ok(upsert) = shard.upsert::<Infallible>(slot(next, 0), |_| Ok(Relation::OtherKey));
        assert_eq!(upsert, Upsert::Inserted);
        assert_eq!(shard.insert(slot(2000, 0)), Err(Full));
        keys.push(next);
        shard.check();
    }
    all_found(&keys);
    for left in (55..keys.len()).rev() {
        assert!(shard.remove(slot(keys.remove(left / 2), 0)).is_some());
        shard.check();
        assert_eq!(shard.insert(slot(2000, 0)).is_ok(), left == 55);
    }
    all_found(&keys);
}

#[test]
fn a_probe_of_a_table_without_an_empty_slot_ends() {
    let table = Table::new(8);
    for key in 0..8 {
        assert_eq!(
            table.place(Slot::new(Tag::of(hash(0, TAG_MAX / 2)), at(key, 0))),
            Some(Slot::EMPTY)
        );
    }
    assert_eq!(table.place(Slot::new(Tag::of(0), at(8, 0))), None);
    assert_eq!(table.candidates(Tag::of(hash(0, TAG_MAX / 2))).count(), 8);
    assert_eq!(table.candidates(Tag::of(0)).count(), 0);
}

#[test]
fn a_million_keys_take_less_than_13_bytes_each() {
    const KEYS: u64 = 1_000_000;
    for (how, keydir) in [
        ("grown", Keydir::new()),
        ("presized", Keydir::with_capacity(KEYS as usize)),
    ] {
        for key in 0..KEYS {
            keydir.insert(mixed(key), at((key % 65_536) as u16, key)).unwrap();
        }
        let per_key = keydir.memory_bytes() as f64 / KEYS as f64;
        println!("{how}: {per_key:.2} bytes a key at {KEYS} keys");
        assert!(per_key < 13.0, "{per_key} bytes a key, {how}");
        assert_eq!(keydir.len(), KEYS);
    }
}
