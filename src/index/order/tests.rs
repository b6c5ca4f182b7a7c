//! (Over 400 lines: each rule of the key order, and the model it is compared with.)
//!
//! Tests of the key order against a `BTreeMap`, at its edges, and with threads.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::collection::vec;
use proptest::prelude::*;

use super::block::{Reader, push_entry};
use super::*;
use crate::format::record::KEY_LEN_MAX;

type Model = BTreeMap<Vec<u8>, KeyFlags>;

const ALL: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Unbounded);

/// One step of a random test.
#[derive(Clone, Debug)]
enum Step {
    Change(Vec<(Vec<u8>, Option<u8>)>),
    Page(Bound<Vec<u8>>, Bound<Vec<u8>>, bool, usize),
    Count(Bound<Vec<u8>>, Bound<Vec<u8>>),
    MergeSome(usize),
    Merge,
    Len,
    /// Rebuilds the order through the builder, as closing and opening does.
    Rebuild,
}

fn short_key() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(0), Just(b'a'), Just(b'b'), Just(0xFF)], 0..7)
}

/// Keys whose shared lengths and suffixes are around the boundaries of the encoding.
fn long_key() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![
        0..4usize,
        60..68usize,
        120..130usize,
        250..260usize,
        380..390usize,
        4000..4200usize
    ];
    (length, short_key()).prop_map(|(length, end)| [vec![b'x'; length], end].concat())
}

/// Keys up to the maximum length and beyond.
fn huge_key() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![Just(0usize), Just(65_530), 0..70_000usize];
    (length, any::<bool>(), short_key()).prop_map(|(length, differ_first, end)| {
        let body = vec![b'x'; length];
        if differ_first {
            [end, body].concat()
        } else {
            [body, end].concat()
        }
    })
}

fn bound(key: BoxedStrategy<Vec<u8>>) -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![
        1 => Just(Bound::Unbounded),
        2 => key.clone().prop_map(Bound::Included),
        2 => key.prop_map(Bound::Excluded),
    ]
}

fn steps(key: BoxedStrategy<Vec<u8>>, changes_max: usize, steps_max: usize) -> impl Strategy<Value = Vec<Step>> {
    let change = (key.clone(), prop_oneof![3 => (0..4u8).prop_map(Some), 2 => Just(None)]);
    let limit = prop_oneof![0..20usize, Just(1000), Just(usize::MAX)];
    let step = prop_oneof![
        8 => vec(change, 0..changes_max).prop_map(Step::Change),
        4 => (bound(key.clone()), bound(key.clone()), any::<bool>(), limit)
            .prop_map(|(from, to, reverse, limit)| Step::Page(from, to, reverse, limit)),
        3 => (bound(key.clone()), bound(key)).prop_map(|(from, to)| Step::Count(from, to)),
        3 => (0..40usize).prop_map(Step::MergeSome),
        1 => Just(Step::Merge),
        1 => Just(Step::Len),
        1 => Just(Step::Rebuild),
    ];
    vec(step, 0..steps_max)
}

fn apply(order: &KeyOrder, model: &mut Model, changes: &[(Vec<u8>, Option<u8>)]) {
    order.change(changes.iter().map(|(key, flags)| match flags {
        Some(bits) => Change::Insert(key, KeyFlags::from_bits_truncate(*bits)),
        None => Change::Remove(key),
    }));
    for (key, flags) in changes {
        match flags {
            Some(bits) => drop(model.insert(key.clone(), KeyFlags::from_bits_truncate(*bits))),
            None => drop(model.remove(key)),
        }
    }
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

/// The slow and obvious way to find the keys between two bounds.
fn between<'a>(model: &'a Model, from: &Bound<Vec<u8>>, to: &Bound<Vec<u8>>) -> Vec<(&'a [u8], KeyFlags)> {
    let inside = |key: &Vec<u8>| {
        (match from {
            Bound::Unbounded => true,
            Bound::Included(from) => key >= from,
            Bound::Excluded(from) => key > from,
        }) && (match to {
            Bound::Unbounded => true,
            Bound::Included(to) => key <= to,
            Bound::Excluded(to) => key < to,
        })
    };
    model
        .iter()
        .filter(|(key, _)| inside(key))
        .map(|(key, flags)| (key.as_slice(), *flags))
        .collect()
}

fn check_all(order: &KeyOrder, model: &Model) {
    let page = order.page(ALL.0, ALL.1, false, usize::MAX);
    assert!(
        page.iter()
            .eq(model.iter().map(|(key, flags)| (key.as_slice(), *flags))),
        "the keys differ"
    );
    assert_eq!(order.len(), model.len() as u64);
    assert_eq!(order.pending_len(), 0);
    order.tree.read().unwrap().check();
}

fn run(steps: Vec<Step>) {
    let mut order = KeyOrder::new();
    let mut model = Model::new();
    for step in steps {
        match step {
            Step::Change(changes) => apply(&order, &mut model, &changes),
            Step::Page(from, to, reverse, limit) => {
                let page = order.page(as_slice(&from), as_slice(&to), reverse, limit);
                let mut expected = between(&model, &from, &to);
                if reverse {
                    expected.reverse();
                }
                expected.truncate(limit);
                assert_eq!(page.iter().collect::<Vec<_>>(), expected);
                assert_eq!(page.len(), expected.len());
                assert_eq!(page.is_empty(), expected.is_empty());
                for (index, key) in expected.iter().enumerate() {
                    assert_eq!(page.get(index), Some(*key));
                }
                assert_eq!(page.get(expected.len()), None);
            }
            Step::Count(from, to) => {
                let count = order.count(as_slice(&from), as_slice(&to));
                assert_eq!(count, between(&model, &from, &to).len() as u64);
            }
            Step::MergeSome(limit) => {
                let more = order.merge_step(limit);
                assert_eq!(more, order.pending_len() > 0);
                order.tree.read().unwrap().check();
            }
            Step::Merge => {
                order.merge();
                assert_eq!(order.pending_len(), 0);
            }
            Step::Len => assert_eq!(order.len(), model.len() as u64),
            Step::Rebuild => {
                let mut builder = OrderBuilder::default();
                for (key, flags) in order.page(ALL.0, ALL.1, false, usize::MAX).iter() {
                    builder.push(key, flags);
                }
                order = builder.finish();
                assert_eq!(order.pending_len(), 0, "a key in order was taken for one out of order");
            }
        }
    }
    check_all(&order, &model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn short_keys_are_as_in_a_btree_map(steps in steps(short_key().boxed(), 60, 60)) {
        run(steps);
    }

    #[test]
    fn keys_at_the_borders_of_the_encoding_are_as_in_a_btree_map(steps in steps(long_key().boxed(), 40, 40)) {
        run(steps);
    }

    #[test]
    fn an_entry_is_read_as_it_was_written(shared in 0..70_000usize, length in 0..70_000usize, bits in 0..4u8) {
        check_entry(shared, length, bits);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn many_keys_are_as_in_a_btree_map(
        rounds in vec((vec((0..3000u16, prop_oneof![2 => (0..4u8).prop_map(Some), 1 => Just(None)]), 0..900), 0..400usize), 1..9)
    ) {
        let order = KeyOrder::new();
        let mut model = Model::new();
        for (changes, limit) in rounds {
            let changes: Vec<_> = changes.into_iter().map(|(n, flags)| (numbered(n.into()), flags)).collect();
            apply(&order, &mut model, &changes);
            order.merge_step(limit);
            order.tree.read().unwrap().check();
        }
        check_all(&order, &model);
    }

    #[test]
    fn huge_keys_are_as_in_a_btree_map(steps in steps(huge_key().boxed(), 8, 24)) {
        run(steps);
    }
}

fn check_entry(shared: usize, length: usize, bits: u8) {
    let suffix: Vec<u8> = (0..length).map(|n| n as u8).collect();
    let (left, right) = suffix.split_at(length / 3);
    let mut bytes = Vec::new();
    push_entry(&mut bytes, KeyFlags::from_bits_truncate(bits), shared, [left, right]);
    bytes.push(9);
    let mut reader = Reader::new(&bytes);
    let entry = reader.next().expect("an entry");
    assert_eq!(
        (entry.flags.bits(), entry.shared, entry.suffix),
        (bits, shared, suffix.as_slice())
    );
    assert_eq!(reader.rest(), [9]);
}

/// A key of a realistic shape; numbers and keys are in the same order.
fn numbered(n: u64) -> Vec<u8> {
    format!("user-{n:08}-session").into_bytes()
}

/// A key of 16 to 40 random bytes, the same for the same number.
fn random_key(n: u64) -> Vec<u8> {
    let mut state = n;
    let mut word = || {
        // SplitMix64, of Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators",
        // 2014.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    let length = 16 + (word() % 25) as usize;
    let mut key: Vec<u8> = std::iter::repeat_with(word)
        .take(5)
        .flat_map(u64::to_be_bytes)
        .collect();
    key.truncate(length);
    key
}

#[test]
fn entries_at_the_borders_of_both_lengths() {
    for shared in [0, 62, 63, 64, 63 + 127, 63 + 128, 63 + 16_383, 63 + 16_384, 65_536] {
        for length in [
            0,
            254,
            255,
            256,
            255 + 127,
            255 + 128,
            255 + 16_383,
            255 + 16_384,
            65_536,
        ] {
            check_entry(shared, length, 3);
        }
    }
}

#[test]
fn keys_filled_in_order_leave_full_blocks() {
    for batch in [1, 100, 5000] {
        let order = KeyOrder::new();
        let mut model = Model::new();
        for n in 0..10_000 {
            apply(&order, &mut model, &[(numbered(n), Some(1))]);
            if n % batch == 0 {
                order.merge();
            }
        }
        check_all(&order, &model);
        let tree = order.tree.read().unwrap();
        // All but the last block are full: repacking would not save one.
        let mut builder = OrderBuilder::default();
        model.iter().for_each(|(key, flags)| builder.push(key, *flags));
        let packed = builder.finish().tree.read().unwrap().blocks();
        assert!(
            tree.blocks() <= packed + 1,
            "{} blocks, {packed} would do, in batches of {batch}",
            tree.blocks()
        );
    }
}

#[test]
fn keys_filled_in_reverse_order() {
    for batch in [1, 100, 5000] {
        let order = KeyOrder::new();
        let mut model = Model::new();
        for n in (0..10_000).rev() {
            apply(&order, &mut model, &[(numbered(n), Some(2))]);
            if n % batch == 0 {
                order.merge();
            }
        }
        check_all(&order, &model);
    }
}

#[test]
fn everything_deleted_and_filled_again() {
    let order = KeyOrder::new();
    let mut model = Model::new();
    let put: Vec<_> = (0..5000).map(|n| (random_key(n), Some(0))).collect();
    let delete: Vec<_> = put.iter().map(|(key, _)| (key.clone(), None)).collect();
    for _ in 0..2 {
        apply(&order, &mut model, &put);
        check_all(&order, &model);
        for some in delete.chunks(700) {
            apply(&order, &mut model, some);
            check_all(&order, &model);
        }
        assert_eq!(order.len(), 0);
        assert_eq!(order.tree.read().unwrap().blocks(), 0);
        let empty_bytes = order.memory_bytes();
        assert!(empty_bytes < 256 << 10, "{empty_bytes} bytes for no keys");
    }
}

#[test]
fn blocks_that_lost_most_keys_are_joined() {
    for at_once in [37, 20_000] {
        let order = KeyOrder::new();
        let mut model = Model::new();
        let put: Vec<_> = (0..20_000).map(|n| (numbered(n), Some(0))).collect();
        apply(&order, &mut model, &put);
        order.merge();
        let before = order.tree.read().unwrap().blocks();
        let delete: Vec<_> = (0..20_000)
            .filter(|n| n % 50 != 0)
            .map(|n| (numbered(n), None))
            .collect();
        for some in delete.chunks(at_once) {
            apply(&order, &mut model, some);
            order.merge();
        }
        check_all(&order, &model);
        let after = order.tree.read().unwrap().blocks();
        assert!(after * 10 < before, "{before} blocks became {after}, {at_once} at once");
    }
}

#[test]
fn a_page_of_crossed_or_empty_bounds_is_empty() {
    let order = KeyOrder::new();
    order.change(
        (0..1000)
            .map(numbered)
            .collect::<Vec<_>>()
            .iter()
            .map(|key| Change::Insert(key, KeyFlags::NONE)),
    );
    let (low, high) = (numbered(100), numbered(900));
    let crossed = [
        (Bound::Included(&high[..]), Bound::Included(&low[..])),
        (Bound::Excluded(&high), Bound::Excluded(&low)),
        (Bound::Excluded(&low), Bound::Excluded(&low)),
        (Bound::Included(&low), Bound::Excluded(&low)),
        (Bound::Excluded(&low), Bound::Included(&low)),
        (Bound::Unbounded, Bound::Excluded(&[])),
        (Bound::Unbounded, Bound::Included(b"a")),
        (Bound::Included(b"z"), Bound::Unbounded),
    ];
    for (from, to) in crossed {
        for reverse in [false, true] {
            assert!(order.page(from, to, reverse, 10).is_empty(), "{from:?} {to:?}");
        }
        assert_eq!(order.count(from, to), 0);
    }
    assert_eq!(order.count(Bound::Included(&low), Bound::Included(&low)), 1);
    assert!(KeyOrder::new().page(ALL.0, ALL.1, true, 10).is_empty());
}

#[test]
fn a_walk_in_pages_sees_every_key_once_in_both_directions() {
    let order = KeyOrder::new();
    let mut model = Model::new();
    let put: Vec<_> = (0..3000).map(|n| (random_key(n), Some(n as u8))).collect();
    apply(&order, &mut model, &put);
    for limit in [1, 7, 1000] {
        for reverse in [false, true] {
            let mut seen: Vec<(Vec<u8>, KeyFlags)> = Vec::new();
            loop {
                let last = seen
                    .last()
                    .map_or(Bound::Unbounded, |(key, _)| Bound::Excluded(&key[..]));
                let (from, to) = if reverse {
                    (Bound::Unbounded, last)
                } else {
                    (last, Bound::Unbounded)
                };
                let page = order.page(from, to, reverse, limit);
                seen.extend(page.iter().map(|(key, flags)| (key.to_vec(), flags)));
                assert!(seen.len() <= model.len(), "the walk does not come forward");
                if page.len() < limit {
                    break;
                }
            }
            if reverse {
                seen.reverse();
            }
            assert!(seen.iter().map(|(key, flags)| (key, flags)).eq(&model));
        }
    }
}

#[test]
fn keys_pushed_out_of_order_are_not_lost() {
    let mut builder = OrderBuilder::default();
    for key in [&b"b"[..], b"d", b"a", b"d", b"c", b"e"] {
        builder.push(key, KeyFlags::EXPIRES);
    }
    let order = builder.finish();
    let page = order.page(ALL.0, ALL.1, false, 10);
    assert!(page.iter().map(|(key, _)| key).eq([b"a", b"b", b"c", b"d", b"e"]));
    assert_eq!(order.len(), 5);
}

#[test]
fn flags_are_a_set_of_two_bits() {
    let both = KeyFlags::EXPIRES.union(KeyFlags::METADATA);
    assert!(both.contains(KeyFlags::EXPIRES) && both.contains(KeyFlags::METADATA) && both.contains(KeyFlags::NONE));
    assert!(!KeyFlags::EXPIRES.contains(both) && !KeyFlags::NONE.contains(KeyFlags::METADATA));
    assert_eq!(KeyFlags::from_bits_truncate(0xFF), both);
    assert_eq!(KeyFlags::from_bits_truncate(both.bits()), both);
    assert_eq!(KeyFlags::default(), KeyFlags::NONE);
}

#[test]
fn the_successor_of_a_prefix() {
    assert_eq!(prefix_successor(b""), None);
    assert_eq!(prefix_successor(b"\xFF"), None);
    assert_eq!(prefix_successor(b"\xFF\xFF\xFF"), None);
    assert_eq!(prefix_successor(b"user-"), Some(b"user.".to_vec()));
    assert_eq!(prefix_successor(b"a\xFF"), Some(b"b".to_vec()));
    assert_eq!(prefix_successor(b"a\x00\xFF\xFF"), Some(b"a\x01".to_vec()));
    assert_eq!(prefix_successor(b"\xFE"), Some(b"\xFF".to_vec()));
    assert_eq!(prefix_successor(b"\x00"), Some(b"\x01".to_vec()));
}

proptest! {
    #[test]
    fn a_prefix_and_its_successor_bound_the_keys_with_that_prefix(
        prefix in short_key(),
        keys in vec(short_key(), 0..200),
    ) {
        let order = KeyOrder::new();
        keys.iter().for_each(|key| order.insert(key, KeyFlags::NONE));
        let successor = prefix_successor(&prefix);
        let to = successor.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let page = order.page(Bound::Included(&prefix), to, false, usize::MAX);
        let mut expected: Vec<_> = keys.iter().filter(|key| key.starts_with(&prefix)).collect();
        expected.sort();
        expected.dedup();
        prop_assert!(page.iter().map(|(key, _)| key).eq(expected));
    }
}

/// Prints the memory overhead per key on top of its front-coded bytes (at most 10 bytes; the aim is
/// 4.5).
#[test]
fn memory_beside_the_keys_is_small() {
    let count: u64 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    let mut keys: Vec<Vec<u8>> = (0..count).map(random_key).collect();
    let filled = KeyOrder::new();
    for (n, key) in keys.iter().enumerate() {
        filled.insert(key, KeyFlags::NONE);
        if n % 16_384 == 0 {
            filled.merge();
        }
    }
    assert_eq!(filled.len(), count);
    keys.sort();
    let mut builder = OrderBuilder::default();
    let mut suffix_bytes = 0;
    let mut last: &[u8] = &[];
    for key in &keys {
        builder.push(key, KeyFlags::NONE);
        suffix_bytes += key.len() - crate::key_bytes::common_prefix(last, key);
        last = key;
    }
    let shrunk = KeyOrder::new();
    keys.iter()
        .chain(&keys)
        .for_each(|key| shrunk.insert(key, KeyFlags::NONE));
    shrunk.merge();
    keys.iter()
        .filter(|key| key[10] % 2 == 0)
        .for_each(|key| shrunk.remove(key));
    let kept_bytes: Vec<&Vec<u8>> = keys.iter().filter(|key| key[10] % 2 != 0).collect();
    let kept_suffix_bytes: usize = kept_bytes
        .windows(2)
        .map(|two| two[1].len() - crate::key_bytes::common_prefix(two[0], two[1]))
        .sum();
    assert_eq!(shrunk.len(), kept_bytes.len() as u64);

    for (name, order, suffix_bytes) in [
        ("filled at random", filled, suffix_bytes),
        ("built in order", builder.finish(), suffix_bytes),
        ("half deleted", shrunk, kept_suffix_bytes),
    ] {
        let len = order.len() as f64;
        let bytes = order.memory_bytes() as f64 / len;
        let suffix = suffix_bytes as f64 / len;
        println!(
            "{name}: {bytes:.2} bytes a key, of which {suffix:.2} are suffixes; {:.2} beside",
            bytes - suffix
        );
        assert!(
            bytes - suffix < 10.0,
            "{name}: {bytes} bytes a key for {suffix} of suffixes"
        );
    }
}

#[test]
fn a_page_has_every_key_queued_before_it_began() {
    const KEYS: u64 = 20_000;
    // 7919 is coprime to `KEYS`, so this visits every key of the range once, in scattered order.
    let key = |n: u64| numbered(n.wrapping_mul(7919) % KEYS);
    let order = KeyOrder::new();
    let pushed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..KEYS {
                order.insert(&key(n), KeyFlags::METADATA);
                pushed.store(n + 1, Ordering::Release);
            }
        });
        scope.spawn(|| {
            while pushed.load(Ordering::Acquire) < KEYS {
                order.merge_step(50);
            }
        });
        let mut before = 0;
        while before < KEYS {
            before = pushed.load(Ordering::Acquire);
            let page = order.page(ALL.0, ALL.1, false, usize::MAX);
            let keys: Vec<&[u8]> = page.iter().map(|(key, _)| key).collect();
            assert!(keys.is_sorted_by(|a, b| a < b), "not sorted, or not unique");
            for n in (0..before).rev().step_by(7) {
                assert!(
                    keys.binary_search(&&key(n)[..]).is_ok(),
                    "key {n} of {before} is missing"
                );
            }
            assert!(order.len() >= before);
        }
    });
    order.tree.read().unwrap().check();
}

/// A page during which another thread begins a batch, after the page's own merge and before its
/// read.
#[test]
fn a_batch_begun_just_before_the_look_is_not_seen_in_part() {
    let order = KeyOrder::new();
    let keys: Vec<Vec<u8>> = (0..8).map(numbered).collect();
    order.change(keys.iter().map(|key| Change::Insert(key, KeyFlags::NONE)));
    assert!(order.merge_step(3), "the batch should be halfway in");
    assert_eq!(order.look_between_batches(|tree| tree.count(ALL.0, ALL.1)), 8);
    assert_eq!(order.pending_len(), 0);
}

#[test]
fn a_page_sees_all_of_a_change_or_nothing() {
    let order = KeyOrder::new();
    let done = AtomicBool::new(false);
    // Enough keys in between to put those of one change into different blocks.
    let filler: Vec<Vec<u8>> = (0..4000).map(|n| numbered(n * 2)).collect();
    order.change(filler.iter().map(|key| Change::Insert(key, KeyFlags::NONE)));
    let keys: Vec<Vec<u8>> = (0..8).map(|n| numbered(n * 1000 + 1)).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..4000u32 {
                order.change(keys.iter().map(|key| match round % 2 {
                    0 => Change::Insert(key, KeyFlags::EXPIRES),
                    _ => Change::Remove(key),
                }));
            }
            done.store(true, Ordering::Release);
        });
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                order.merge_step(1);
            }
        });
        loop {
            // At least one round, even if the writer is already done.
            let is_last = done.load(Ordering::Acquire);
            let page = order.page(ALL.0, ALL.1, true, usize::MAX);
            let seen = page
                .iter()
                .filter(|(_, flags)| flags.contains(KeyFlags::EXPIRES))
                .count();
            assert!(
                seen == 0 || seen == keys.len(),
                "{seen} of {} keys of one change",
                keys.len()
            );
            let count = order.count(ALL.0, ALL.1);
            assert!(
                count == 4000 || count == 4000 + keys.len() as u64,
                "{count} keys counted"
            );
            if is_last {
                break;
            }
        }
    });
}

#[test]
fn what_is_appended_to_a_builder_comes_behind_or_is_put_in_its_place() {
    let keys: Vec<String> = (0..3_000).map(|number| format!("key {number:05}")).collect();
    let build = |keys: &[String]| {
        let mut builder = OrderBuilder::default();
        keys.iter().for_each(|key| builder.push(key.as_bytes(), KeyFlags::NONE));
        builder
    };
    // In order, in the wrong order, interleaved, and with nothing on one side.
    let halves = [
        (0..1500, 1500..3000),
        (1500..3000, 0..1500),
        (0..0, 0..3000),
        (0..3000, 0..0),
    ];
    for (first, second) in halves {
        let mut builder = build(&keys[first.clone()]);
        builder.append(build(&keys[second.clone()]));
        builder.push(b"zzz", KeyFlags::METADATA);
        let order = builder.finish();
        let page = order.page(Bound::Unbounded, Bound::Unbounded, false, usize::MAX);
        let found: Vec<_> = page.iter().map(|(key, _)| key.to_vec()).collect();
        let mut expected: Vec<_> = keys.iter().map(|key| key.clone().into_bytes()).collect();
        expected.push(b"zzz".to_vec());
        assert_eq!(found, expected, "{first:?} {second:?}");
    }
    // The last key of one is the first of the other, and both have keys out of order.
    let mut builder = build(&keys[..1500]);
    builder.push(b"key 00007", KeyFlags::EXPIRES);
    let mut second = build(&keys[1499..]);
    second.push(b"key 00005", KeyFlags::METADATA);
    builder.append(second);
    let order = builder.finish();
    assert_eq!(order.pending_len(), 3);
    assert_eq!(order.len(), 3_000);
    assert_eq!(order.flags(b"key 00005"), Some(KeyFlags::METADATA));
    assert_eq!(order.flags(b"key 00007"), Some(KeyFlags::EXPIRES));
    let (even, odd): (Vec<_>, Vec<_>) = keys
        .iter()
        .cloned()
        .partition(|key| key.ends_with(['0', '2', '4', '6', '8']));
    let mut builder = build(&even);
    builder.append(build(&odd));
    let order = builder.finish();
    let page = order.page(Bound::Unbounded, Bound::Unbounded, false, usize::MAX);
    assert!(page.iter().map(|(key, _)| key).eq(keys.iter().map(String::as_bytes)));
}

#[test]
fn a_merge_is_due_when_it_pays_or_when_nothing_more_comes() {
    let order = KeyOrder::new();
    let insert = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            order.insert(format!("{number:08}").as_bytes(), KeyFlags::NONE);
        }
    };
    assert!(!order.is_merge_due(), "nothing waits");
    insert(0..MERGE_MIN - 1);
    assert!(!order.is_merge_due(), "more is coming");
    insert(MERGE_MIN - 1..MERGE_MIN);
    assert!(order.is_merge_due(), "enough for a small tree");
    insert(MERGE_MIN..20 * MERGE_MIN);
    order.merge();
    assert!(!order.is_merge_due());
    insert(20 * MERGE_MIN..21 * MERGE_MIN);
    assert!(!order.is_merge_due(), "too little for a tree of twenty times as many");
    assert!(order.is_merge_due(), "nothing has come since the last look");
}

#[test]
fn a_writer_that_helps_takes_a_small_part_of_what_waits() {
    let order = KeyOrder::new();
    let mut number = 0;
    let mut insert = |count: usize| {
        for _ in 0..count {
            order.insert(format!("{number:08}").as_bytes(), KeyFlags::NONE);
            number += 1;
        }
    };
    insert(LOOK_EVERY - 1);
    assert!(!order.relieve(), "the background need not look yet");
    insert(1);
    assert!(order.relieve(), "it should look now");
    assert!(order.merge_step(1));
    order.relieve();
    assert_eq!(order.pending_len(), LOOK_EVERY - 1, "a little can wait");
    order.merge();
    insert(LOOK_EVERY + QUEUE_MAX);
    // The background thread has begun a batch and does not keep up.
    assert!(order.merge_step(1));
    let before = order.pending_len();
    order.relieve();
    assert_eq!(order.pending_len(), before - HELP);
    // Without a background thread, writers merge everything before the queue takes too much memory.
    insert(2 * QUEUE_MAX);
    order.relieve();
    assert_eq!(order.pending_len(), 0);
    assert_eq!(order.len(), number as u64);
}

#[test]
fn the_background_is_told_of_the_first_change_after_each_look() {
    let order = KeyOrder::new();
    let put = |key: &[u8]| order.change([Change::Insert(key, KeyFlags::NONE)].into_iter());
    assert!(!order.change(std::iter::empty()));
    assert!(put(b"a") && !put(b"b"));
    order.begin_look();
    assert!(put(b"c"));
    assert!(!order.look_again(), "it was told of the last one");
    order.begin_look();
    assert!(order.look_again());
    assert!(!put(b"d"), "it looks again by itself");
    order.merge();
    order.begin_look();
    assert!(!order.look_again(), "nothing waits");
    assert!(put(b"e"));
}

#[test]
fn an_order_whose_keys_have_left_takes_no_more_room_than_a_new_one() {
    let order = KeyOrder::new();
    let key = |number: u32| format!("{number:08}");
    (0..10_000).for_each(|number| order.insert(key(number).as_bytes(), KeyFlags::EXPIRES));
    assert_eq!(order.len(), 10_000);
    (0..10_000).for_each(|number| order.remove(key(number).as_bytes()));
    order.shrink();
    assert_eq!(order.pending_len(), 10_000, "what waits is left alone");
    while order.merge_step(512) {}
    order.shrink();
    assert_eq!(order.memory_bytes(), KeyOrder::new().memory_bytes());
    order.insert(b"key", KeyFlags::NONE);
    assert_eq!(order.len(), 1);
}

#[test]
fn what_the_background_has_seen_and_merged_is_no_reason_to_look_again() {
    let order = KeyOrder::new();
    (0..3 * LOOK_EVERY).for_each(|number| order.insert(&numbered(number as u64), KeyFlags::NONE));
    assert!(order.relieve());
    order.begin_look();
    assert!(order.is_merge_due());
    assert!(order.look_again());
    assert!(!order.relieve(), "it has just looked");
    order.merge();
    order.begin_look();
    assert!(!order.look_again());
    order.insert(b"key", KeyFlags::NONE);
    assert!(!order.relieve(), "one key");
}

#[test]
fn memory_is_counted_wherever_a_key_is() {
    let order = KeyOrder::new();
    let empty = order.memory_bytes();
    let (count, key_len) = (10_000, numbered(0).len());
    (0..count).for_each(|number| order.insert(&numbered(number), KeyFlags::NONE));
    let count = count as usize;
    // Between the bytes that it must take and three times as much.
    let takes = |least: usize| {
        let taken = order.memory_bytes() - empty;
        assert!((least..3 * least).contains(&taken), "{taken} bytes instead of {least}");
        taken
    };
    let queued = takes(count * (2 + key_len));
    assert!(order.merge_step(1));
    let waiting = takes(count * (2 + key_len + 16));
    assert!(waiting > queued);
    order.merge();
    let merged = order.memory_bytes();
    order.shrink();
    assert!(order.memory_bytes() < merged, "the buffer for merging was counted");
    // Two bytes for each key, and for most of them one digit and the rest behind it.
    takes(count * (2 + 9));
}

#[test]
fn a_buffer_that_long_keys_have_made_large_is_not_kept() {
    let order = KeyOrder::new();
    let keys = [1, 2, 3].map(|first| [&[first], &[7; KEY_LEN_MAX - 1][..]].concat());
    keys.iter().for_each(|key| order.insert(key, KeyFlags::NONE));
    let empty = KeyOrder::new().memory_bytes();
    order.merge();
    let taken = order.memory_bytes() - empty;
    assert!(
        (3 * KEY_LEN_MAX..3 * KEY_LEN_MAX + 1000).contains(&taken),
        "{taken} bytes"
    );
    // One that later merges need is.
    let order = KeyOrder::new();
    order.insert(b"key", KeyFlags::NONE);
    order.merge();
    let merged = order.memory_bytes();
    order.shrink();
    assert!(order.memory_bytes() < merged);
}

/// A block as it is written out: its first key, the number of its keys, and the entries of all but
/// the first.
type Written<'a> = (&'a [u8], u32, &'a [u8]);

fn read_back(blocks: &[Written<'_>]) -> Result<KeyOrder, Damage> {
    let mut bytes = (blocks.len() as u64).to_le_bytes().to_vec();
    for (first, count, rest) in blocks {
        bytes.extend_from_slice(&(first.len() as u32).to_le_bytes());
        bytes.extend_from_slice(first);
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&(rest.len() as u32).to_le_bytes());
        bytes.extend_from_slice(rest);
    }
    KeyOrder::read_from(&mut Fields(&bytes))
}

fn entry(shared: usize, suffix: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_entry(&mut bytes, KeyFlags::NONE, shared, [suffix, &[]]);
    bytes
}

#[test]
fn blocks_are_read_back_only_as_they_can_have_been_written() {
    let (longest, too_long) = (vec![7; KEY_LEN_MAX], vec![7; KEY_LEN_MAX + 1]);
    let (last, behind_last) = (entry(KEY_LEN_MAX - 1, b"\x07"), entry(KEY_LEN_MAX, b"\x07"));
    // Entries of 2 bytes and a suffix, 4096 bytes in all.
    let mut full: Vec<u8> = (1..=255).flat_map(|n| entry(0, &[n; 14])).collect();
    full.extend(entry(14, &[7; 14]));
    assert_eq!(full.len(), 4096);
    let mut fuller = full.clone();
    fuller.extend(entry(28, b"a"));
    let (two, c) = ([entry(1, b"a"), entry(2, b"a")].concat(), entry(0, b"c"));
    let fine: [&[Written<'_>]; 7] = [
        &[],
        &[(b"a", 1, b"")],
        &[(b"a", 3, &two), (b"ab", 1, b"")],
        &[(b"a", 2, &c)],
        &[(&longest, 1, b"")],
        &[(&longest[1..], 2, &last)],
        &[(&[0], 257, &full)],
    ];
    for (number, blocks) in fine.iter().enumerate() {
        let order = read_back(blocks).unwrap();
        let keys: u64 = blocks.iter().map(|(_, count, _)| u64::from(*count)).sum();
        assert_eq!(order.len(), keys, "{number}");
        order.tree.read().unwrap().check();
    }
    let shares_less = [entry(1, b"ab"), entry(1, b"ac")].concat();
    let (descends, same) = (entry(0, b"A"), entry(1, b""));
    let (beyond, cut) = (entry(2, b"a"), [&two[..], &[0]].concat());
    let refused: [&[Written<'_>]; 15] = [
        &[(b"", 1, b"")],
        &[(&too_long, 1, b"")],
        &[(b"b", 1, b""), (b"a", 1, b"")],
        &[(b"b", 1, b""), (b"b", 1, b"")],
        &[(b"a", 2, &c), (b"b", 1, b"")],
        &[(b"a", 2, &c), (b"c", 1, b"")],
        &[(b"a", 2, &two)],
        &[(b"a", 4, &two)],
        &[(b"a", 3, &cut)],
        &[(&[0], 258, &fuller)],
        &[(&longest, 2, &behind_last)],
        &[(b"a", 3, &shares_less)],
        &[(b"b", 2, &descends)],
        &[(b"a", 2, &same)],
        &[(b"a", 2, &beyond)],
    ];
    for (number, blocks) in refused.iter().enumerate() {
        assert!(read_back(blocks).is_err(), "{number}");
    }
}
