//! Strategies that draw operations, and so decide how likely each is.

use embercask::Durability;
use embercask::storage::CutPolicy;
use proptest::prelude::*;

use super::{
    BatchItem, Change, Crash, Doing, FOREVER, Failure, Guard, Hold, Intrusion, KEYS, NAMES, Op, PREFIXES, Put, Range,
    Relapse, Settings, Step, Transaction, Upkeep, Write,
};
use crate::way::Way;

fn durability() -> BoxedStrategy<Durability> {
    prop_oneof![Just(Durability::Buffered), Just(Durability::Os), Just(Durability::Sync)].boxed()
}

fn own_durability() -> BoxedStrategy<Option<Durability>> {
    prop_oneof![3 => Just(None), 1 => durability().prop_map(Some)].boxed()
}

fn guard() -> BoxedStrategy<Option<Guard>> {
    prop_oneof![
        12 => Just(None),
        2 => Just(Some(Guard::Absent)),
        1 => Just(Some(Guard::Present)),
        1 => Just(Some(Guard::Current)),
        1 => Just(Some(Guard::Stale)),
    ]
    .boxed()
}

fn ttl() -> BoxedStrategy<u64> {
    prop::sample::select(vec![1, 2, 5, 10, 50, 1_000, 12_000, 1_000_000]).boxed()
}

fn put() -> BoxedStrategy<Put> {
    let length = prop_oneof![10 => 0..40usize, 6 => 40..400usize, 4 => 400..1800usize, 1 => 4000..9000usize];
    let metadata = prop_oneof![3 => Just(None), 1 => (0..60usize).prop_map(Some)];
    let ttl = prop_oneof![12 => Just(None), 7 => ttl().prop_map(Some), 1 => Just(Some(FOREVER))];
    (length, ttl, metadata)
        .prop_map(|(length, ttl, metadata)| Put { length, ttl, metadata })
        .boxed()
}

/// Most writes go to one namespace, so that its keys are written again and again.
fn namespace() -> BoxedStrategy<usize> {
    prop_oneof![6 => Just(0usize), 2 => Just(1usize), 1 => 2..NAMES.len()].boxed()
}

fn batch_item() -> BoxedStrategy<BatchItem> {
    (
        namespace(),
        0..KEYS,
        prop::option::weighted(0.7, put()),
        prop_oneof![30 => Just(None), 1 => guard()],
    )
        .prop_map(|(namespace, key, put, guard)| BatchItem {
            namespace,
            key,
            put,
            guard,
        })
        .boxed()
}

fn write() -> BoxedStrategy<Write> {
    let target = || (namespace(), 0..KEYS);
    prop_oneof![
        30 => (target(), put(), guard(), own_durability()).prop_map(|((namespace, key), put, guard, durability)| {
            Write::Put { namespace, key, put, guard, durability }
        }),
        12 => (target(), guard(), own_durability())
            .prop_map(|((namespace, key), guard, durability)| Write::Delete { namespace, key, guard, durability }),
        9 => (prop::collection::vec(batch_item(), 0..7), own_durability())
            .prop_map(|(items, durability)| Write::Batch { items, durability }),
        2 => (target(), ttl()).prop_map(|((namespace, key), ttl)| Write::SetTtl { namespace, key, ttl }),
        1 => target().prop_map(|(namespace, key)| Write::RemoveExpiry { namespace, key }),
        1 => (target(), prop::option::of(0..60usize))
            .prop_map(|((namespace, key), metadata)| Write::SetMetadata { namespace, key, metadata }),
        6 => (target(), change()).prop_map(|((namespace, key), change)| match change {
            // Few, so that numbers meet and their sum may not fit.
            Change::Increment(_) => Write::Change { namespace: 1, key: key % 3, change },
            change => Write::Change { namespace, key, change },
        }),
        2 => (namespace(), prefix(), prop::bool::ANY)
            .prop_map(|(namespace, prefix, last)| Write::Pop { namespace, prefix, last }),
        4 => delete_range(),
        9 => transaction().prop_map(Write::Transaction),
        1 => (namespace(), prop::option::weighted(0.7, ttl()))
            .prop_map(|(namespace, ttl)| Write::SetDefaultTtl { namespace, ttl }),
        2 => (0..NAMES.len()).prop_map(|name| Write::CreateNamespace { name }),
        1 => (0..NAMES.len(), 0..NAMES.len()).prop_map(|(from, to)| Write::RenameNamespace { from, to }),
        1 => (0..NAMES.len()).prop_map(|name| Write::DropNamespace { name }),
    ]
    .boxed()
}

fn prefix() -> std::ops::Range<usize> {
    0..PREFIXES.len()
}

fn change() -> BoxedStrategy<Change> {
    prop_oneof![
        1 => Just(Change::Keep),
        2 => put().prop_map(Change::Update),
        2 => (0..600usize).prop_map(Change::UpdateLike),
        1 => Just(Change::Remove),
        4 => prop::sample::select(vec![1, 1, -7, 1_000, i64::MAX, i64::MAX]).prop_map(Change::Increment),
        2 => put().prop_map(Change::Replace),
        2 => Just(Change::Take),
        3 => (put(), prop::bool::weighted(0.7)).prop_map(|(put, holds)| Change::PutWhen { put, holds }),
        2 => prop::bool::weighted(0.7).prop_map(|holds| Change::DeleteWhen { holds }),
    ]
    .boxed()
}

fn delete_range() -> BoxedStrategy<Write> {
    let range = prop_oneof![
        Just(Range::Prefix(0)),
        prefix().prop_map(Range::Prefix),
        (0..KEYS, 0..KEYS).prop_map(|(one, other)| Range::Between(one, other)),
    ];
    let batches = prop::option::weighted(0.3, 1..4usize);
    (namespace(), range, 1..5usize, batches, own_durability())
        .prop_map(
            |(namespace, range, batch_keys, batches, durability)| Write::DeleteRange {
                namespace,
                range,
                batch_keys,
                batches,
                durability,
            },
        )
        .boxed()
}

fn step() -> BoxedStrategy<Step> {
    let target = || (namespace(), 0..KEYS);
    let guard = prop_oneof![8 => Just(None), 1 => Just(Some(Guard::Absent)), 1 => Just(Some(Guard::Present))];
    prop_oneof![
        4 => target().prop_map(|(namespace, key)| Step::Get { namespace, key }),
        2 => (namespace(), prefix(), prop::bool::ANY)
            .prop_map(|(namespace, prefix, reverse)| Step::List { namespace, prefix, reverse }),
        1 => (namespace(), prefix()).prop_map(|(namespace, prefix)| Step::Count { namespace, prefix }),
        4 => (target(), put(), guard)
            .prop_map(|((namespace, key), put, guard)| Step::Put { namespace, key, put, guard }),
        2 => target().prop_map(|(namespace, key)| Step::Delete { namespace, key }),
    ]
    .boxed()
}

fn intrusion() -> BoxedStrategy<Intrusion> {
    let target = || (namespace(), 0..KEYS);
    prop_oneof![
        8 => (target(), put()).prop_map(|((namespace, key), put)| Intrusion::Put { namespace, key, put }),
        4 => target().prop_map(|(namespace, key)| Intrusion::Delete { namespace, key }),
        2 => (0..NAMES.len()).prop_map(|name| Intrusion::DropNamespace { name }),
        3 => prop::sample::select(vec![1u64, 8, 60, 2_000, 15_000]).prop_map(Intrusion::Advance),
    ]
    .boxed()
}

fn transaction() -> BoxedStrategy<Transaction> {
    (
        prop::collection::vec(step(), 1..8),
        prop::option::weighted(0.6, (0..8usize, intrusion())),
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.1),
        own_durability(),
    )
        .prop_map(|(steps, intrusion, aims, fails, durability)| Transaction {
            intrusion: intrusion.map(|(at, intrusion)| (at, if aims { aimed(intrusion, &steps) } else { intrusion })),
            steps,
            fails,
            durability,
        })
        .boxed()
}

/// Concerns what the transaction reads first, so that it has to run again if it writes.
pub fn aimed(mut intrusion: Intrusion, steps: &[Step]) -> Intrusion {
    let read = steps.iter().find_map(|step| match step {
        Step::Get { namespace, key } => Some((*namespace, Some(*key))),
        Step::List { namespace, .. } | Step::Count { namespace, .. } => Some((*namespace, None)),
        Step::Put { .. } | Step::Delete { .. } => None,
    });
    if let Some((read_namespace, read_key)) = read {
        match &mut intrusion {
            Intrusion::Put { namespace, key, .. } | Intrusion::Delete { namespace, key } => {
                *namespace = read_namespace;
                *key = read_key.unwrap_or(*key);
            }
            Intrusion::DropNamespace { name } => *name = read_namespace,
            Intrusion::Advance(_) => {}
        }
    }
    intrusion
}

fn hold() -> BoxedStrategy<Hold> {
    let prefix = prop_oneof![2 => Just(0), 1 => prefix()];
    let watch = (
        namespace(),
        prefix,
        prop::sample::select(vec![1usize, 3, 100]),
        prop::bool::ANY,
    );
    prop_oneof![
        4 => Just(Hold::Snapshot),
        2 => any::<usize>().prop_map(Hold::DropSnapshot),
        3 => watch.prop_map(|(namespace, prefix, capacity, values)| Hold::Watch {
            namespace,
            prefix,
            capacity,
            values,
        }),
        1 => any::<usize>().prop_map(Hold::DropWatch),
    ]
    .boxed()
}

fn upkeep() -> BoxedStrategy<Upkeep> {
    prop_oneof![
        2 => Just(Upkeep::Flush),
        2 => Just(Upkeep::Sync),
        3 => Just(Upkeep::Maintain),
        1 => Just(Upkeep::Compact),
        6 => any::<u64>().prop_map(Upkeep::CompactSubset),
        2 => (0..6u64).prop_map(|n| Upkeep::CompactSubset(1 << n)),
        1 => Just(Upkeep::CompactIfWorthwhile),
    ]
    .boxed()
}

fn crash() -> BoxedStrategy<Crash> {
    prop_oneof![
        3 => Just(Crash::Kill),
        1 => Just(Crash::PowerCut(CutPolicy::LoseUnsynced)),
        1 => Just(Crash::PowerCut(CutPolicy::KeepAll)),
        2 => (0..40usize).prop_map(|operations| Crash::PowerCut(CutPolicy::KeepPrefix { operations })),
        4 => (any::<u64>(), prop::bool::ANY).prop_map(|(seed, large)| {
            Crash::PowerCut(CutPolicy::Random { seed, grain: if large { 4096 } else { 512 } })
        }),
    ]
    .boxed()
}

fn relapses() -> BoxedStrategy<Vec<Relapse>> {
    let relapse = (0..25u64, crash()).prop_map(|(calls, crash)| Relapse { calls, crash });
    prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(relapse, 1..3)].boxed()
}

fn way() -> BoxedStrategy<Way> {
    let mixed = any::<u64>().prop_map(Way::Mixed);
    prop_oneof![Just(Way::IndexFile), Just(Way::Hints), Just(Way::Records), mixed].boxed()
}

pub fn settings() -> BoxedStrategy<Settings> {
    let segment_bytes = prop_oneof![4 => Just(4096u64), 1 => Just(6000u64), 1 => Just(20_000u64)];
    (
        (prop::bool::ANY, prop::bool::ANY),
        segment_bytes,
        durability(),
        prop::sample::select(vec![0, 0, 5, 10_000]),
        any::<u64>(),
    )
        .prop_map(|((pread, ring), segment_bytes, durability, grace_ms, seed)| Settings {
            pread,
            ring,
            segment_bytes,
            durability,
            grace_ms,
            seed,
        })
        .boxed()
}

fn doing() -> BoxedStrategy<Doing> {
    prop_oneof![
        2 => write().prop_map(Doing::Write),
        3 => upkeep().prop_map(Doing::Upkeep),
        1 => Just(Doing::Upkeep(Upkeep::Close)),
    ]
    .boxed()
}

fn failure() -> BoxedStrategy<Failure> {
    prop_oneof![
        3 => Just(Failure::Write),
        2 => (0..200usize).prop_map(Failure::ShortWrite),
        2 => Just(Failure::Sync),
        3 => Just(Failure::SyncThatLoses),
        1 => Just(Failure::DirectorySync),
        1 => Just(Failure::Create),
        1 => Just(Failure::Rename),
        1 => Just(Failure::Remove),
        1 => Just(Failure::SetLen),
        2 => Just(Failure::Full),
    ]
    .boxed()
}

pub fn op() -> BoxedStrategy<Op> {
    op_in(1)
}

/// As [`op`], but openings and crashes are rare: what is held is held for long.
pub fn steady_op() -> BoxedStrategy<Op> {
    op_in(8)
}

/// Everything but openings and crashes is so many times as likely as in [`op`].
fn op_in(steadiness: u32) -> BoxedStrategy<Op> {
    prop_oneof![
        60 * steadiness => write().prop_map(Op::Write),
        10 * steadiness => upkeep().prop_map(Op::Upkeep),
        9 * steadiness => hold().prop_map(Op::Hold),
        5 * steadiness => prop::sample::select(vec![1u64, 3, 8, 60, 2_000, 15_000, 900_000]).prop_map(Op::Advance),
        4 * steadiness => prop::sample::select(vec![
            -86_400_000i64, -900_000, -11_000, -50, -1, 1, 40, 11_000, 900_000, 86_400_000,
        ]).prop_map(Op::ShiftWall),
        4 => (way(), settings()).prop_map(|(way, settings)| Op::Reopen { way, settings }),
        3 => (crash(), relapses(), way(), settings())
            .prop_map(|(crash, relapses, way, settings)| Op::Crash { crash, relapses, way, settings }),
        4 => (doing(), 0..30u64, crash(), relapses(), way(), settings()).prop_map(
            |(doing, calls, crash, relapses, way, settings)| {
                Op::CrashWithin { doing, calls, crash, relapses, way, settings }
            },
        ),
        2 => (doing(), 0..8u64, failure(), crash(), way(), settings()).prop_map(
            |(doing, calls, failure, crash, way, settings)| {
                Op::FailWithin { doing, calls, failure, crash, way, settings }
            },
        ),
    ]
    .boxed()
}
