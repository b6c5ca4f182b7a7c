//! The keydir against a map, step by step.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

/// One operation on both the keydir and the model.
#[derive(Clone, Debug)]
enum Step {
    /// A put as the store does it: look up, then insert or replace.
    Put(u8),
    /// A delete as the store does it: look up, then remove.
    Delete(u8),
    /// A record replayed while opening, with the version to compare.
    Upsert(u8, u64),
    /// Compaction or the sweep using a location that may be stale.
    Stale(u8, u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u8>().prop_map(Step::Put),
        3 => any::<u8>().prop_map(Step::Delete),
        2 => (any::<u8>(), 0..500u64).prop_map(|(key, version)| Step::Upsert(key, version)),
        1 => (any::<u8>(), 0..500u64).prop_map(|(key, version)| Step::Stale(key, version)),
    ]
}

/// Phases that only put or only delete, so that tables grow and shrink, and mixed phases.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let phase = prop_oneof![
        2 => prop::collection::vec(step(), 0..150),
        1 => prop::collection::vec(any::<u8>().prop_map(Step::Put), 100..300),
        1 => prop::collection::vec(any::<u8>().prop_map(Step::Delete), 100..400),
    ];
    prop::collection::vec(phase, 0..5).prop_map(|phases| phases.concat())
}

/// Applies the steps to a keydir and to a map, and compares the two after each step.
fn compare(steps: Vec<Step>, key_hash: fn(u16) -> u64) {
    let keydir = Keydir::new();
    let mut model = HashMap::<u16, Location>::new();
    for (number, step) in steps.into_iter().enumerate() {
        let fresh = |key| at(key, 1000 + number as u64);
        match step {
            Step::Put(key) => {
                let key = u16::from(key);
                match find(&keydir, key_hash(key), key) {
                    Some(old) => assert!(keydir.replace(key_hash(key), old, fresh(key))),
                    None => keydir.insert(key_hash(key), fresh(key)).unwrap(),
                }
                model.insert(key, fresh(key));
            }
            Step::Delete(key) => {
                let key = u16::from(key);
                let found = find(&keydir, key_hash(key), key);
                assert_eq!(found, model.remove(&key));
                assert!(found.is_none_or(|location| keydir.remove(key_hash(key), location)));
            }
            Step::Upsert(key, version) => {
                let key = u16::from(key);
                let brought = at(key, version);
                let expected = match model.get(&key) {
                    None => Upsert::Inserted,
                    Some(&standing) if standing < brought => Upsert::Replaced(standing),
                    Some(&standing) => Upsert::Kept(standing),
                };
                assert_eq!(upsert(&keydir, key_hash(key), brought), expected);
                let newest = model.entry(key).or_insert(brought);
                *newest = brought.max(*newest);
            }
            Step::Stale(key, version) => {
                let key = u16::from(key);
                let stands = model.get(&key) == Some(&at(key, version));
                assert_eq!(keydir.holds(key_hash(key), at(key, version)), stands);
                assert_eq!(keydir.replace(key_hash(key), at(key, version), fresh(key)), stands);
                if stands {
                    model.insert(key, fresh(key));
                }
                assert!(!keydir.remove(key_hash(key), at(key, version)));
            }
        }
        assert_eq!(keydir.len(), model.len() as u64);
        if number % 16 == 0 {
            check(&keydir);
            let mut seen = HashSet::new();
            keydir.for_each(|location| assert!(seen.insert(location), "{location:?} is seen twice"));
            assert_eq!(seen, model.values().copied().collect());
        }
        for key in 0..=u16::from(u8::MAX) {
            assert_eq!(find(&keydir, key_hash(key), key), model.get(&key).copied(), "key {key}");
        }
    }
    check(&keydir);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_agrees_with_a_map_when_hashes_collide(steps in steps()) {
        compare(steps, colliding);
    }

    #[test]
    fn it_agrees_with_a_map_when_tags_differ(steps in steps()) {
        compare(steps, scattered);
    }
}
