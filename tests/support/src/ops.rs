//! What can happen to a store, and how likely it is.

use embercask::Durability;
use embercask::storage::CutPolicy;
use proptest::prelude::*;

use crate::way::Way;

/// Names of namespaces.
pub const NAMES: [&str; 4] = ["A", "B", "queue/é", "Z"];

/// Namespaces that exist from the start.
pub const FIRST_NAMES: usize = 2;

/// All keys that are used: few, so that operations collide; with shared prefixes, zeros, 0xFF, and
/// one longer than the first read.
pub fn keys() -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = [
        &b"a"[..],
        b"ab",
        b"abc",
        b"abc\0",
        b"abd",
        b"b",
        b"\0",
        b"\0\0",
        b"\0\xff",
        b"\xff",
        b"\xff\xff",
        b"\xff\xff\0",
        b"a\xff",
        b"a\xffz",
        b"user-1",
        b"user-10",
        b"user-2",
        b"user-",
        b"~",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    keys.push(
        b"long-"
            .iter()
            .copied()
            .chain((b'a'..=b'z').cycle().take(295))
            .collect(),
    );
    keys.sort();
    keys
}

/// Number of keys, see [`keys`].
pub const KEYS: usize = 20;

#[derive(Clone, Copy, Debug)]
pub enum Guard {
    Absent,
    Present,
    /// The key's current sequence.
    Current,
    /// Another sequence.
    Stale,
}

#[derive(Clone, Debug)]
pub struct Put {
    pub length: usize,
    pub ttl: Option<u64>,
    pub metadata: Option<usize>,
}

#[derive(Clone, Debug)]
pub struct BatchItem {
    pub namespace: usize,
    pub key: usize,
    /// None deletes.
    pub put: Option<Put>,
    pub guard: Option<Guard>,
}

/// A change of the stored data.
#[derive(Clone, Debug)]
pub enum Write {
    Put {
        namespace: usize,
        key: usize,
        put: Put,
        guard: Option<Guard>,
        durability: Option<Durability>,
    },
    Delete {
        namespace: usize,
        key: usize,
        guard: Option<Guard>,
        durability: Option<Durability>,
    },
    Batch {
        items: Vec<BatchItem>,
        durability: Option<Durability>,
    },
    SetTtl {
        namespace: usize,
        key: usize,
        ttl: u64,
    },
    RemoveExpiry {
        namespace: usize,
        key: usize,
    },
    SetMetadata {
        namespace: usize,
        key: usize,
        metadata: Option<usize>,
    },
    CreateNamespace {
        name: usize,
    },
    RenameNamespace {
        from: usize,
        to: usize,
    },
    DropNamespace {
        name: usize,
    },
}

/// Operations that change nothing visible.
#[derive(Clone, Debug)]
pub enum Upkeep {
    Flush,
    Sync,
    Maintain,
    Compact,
    CompactSubset(u64),
    CompactIfWorthwhile,
    Close,
}

#[derive(Clone, Debug)]
pub enum Crash {
    Kill,
    PowerCut(CutPolicy),
}

/// A crash while the store is being opened after another crash.
#[derive(Clone, Debug)]
pub struct Relapse {
    /// Storage calls that the opening completes first.
    pub calls: u64,
    pub crash: Crash,
}

#[derive(Clone, Debug)]
pub enum Op {
    Write(Write),
    Upkeep(Upkeep),
    Advance(u64),
    /// Moves only the wall clock.
    ShiftWall(i64),
    Reopen {
        way: Way,
        settings: Settings,
    },
    Crash {
        crash: Crash,
        relapses: Vec<Relapse>,
        way: Way,
        settings: Settings,
    },
    /// The machine stops within a write or upkeep, after this many modifying storage calls.
    CrashWithin {
        doing: Doing,
        calls: u64,
        crash: Crash,
        relapses: Vec<Relapse>,
        way: Way,
        settings: Settings,
    },
    /// A storage call fails within a write or upkeep, and the machine goes on; then everything is
    /// compared, and a crash follows.
    FailWithin {
        doing: Doing,
        /// Modifying storage calls that succeed first.
        calls: u64,
        failure: Failure,
        crash: Crash,
        way: Way,
        settings: Settings,
    },
}

/// How a storage call fails. None of these affects a read.
#[derive(Clone, Copy, Debug)]
pub enum Failure {
    Write,
    ShortWrite(usize),
    Sync,
    /// The data is never made durable, although reads show it.
    SyncThatLoses,
    DirectorySync,
    Create,
    Rename,
    Remove,
    SetLen,
    /// No space for this call, nor for any later one that needs space.
    Full,
}

#[derive(Clone, Debug)]
pub enum Doing {
    Write(Write),
    Upkeep(Upkeep),
}

/// How the store is opened.
#[derive(Clone, Debug)]
pub struct Settings {
    pub pread: bool,
    pub segment_bytes: u64,
    pub durability: Durability,
    pub grace_ms: u64,
    /// Seed of the disk on which the store is created: ids, salts and hash seeds derive from it.
    pub seed: u64,
}

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
    (length, prop::option::weighted(0.35, ttl()), metadata)
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
        2 => (0..NAMES.len()).prop_map(|name| Write::CreateNamespace { name }),
        1 => (0..NAMES.len(), 0..NAMES.len()).prop_map(|(from, to)| Write::RenameNamespace { from, to }),
        1 => (0..NAMES.len()).prop_map(|name| Write::DropNamespace { name }),
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
        prop::bool::ANY,
        segment_bytes,
        durability(),
        prop::sample::select(vec![0, 0, 5, 10_000]),
        any::<u64>(),
    )
        .prop_map(|(pread, segment_bytes, durability, grace_ms, seed)| Settings {
            pread,
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
    prop_oneof![
        60 => write().prop_map(Op::Write),
        10 => upkeep().prop_map(Op::Upkeep),
        5 => prop::sample::select(vec![1u64, 3, 8, 60, 2_000, 15_000, 900_000]).prop_map(Op::Advance),
        4 => prop::sample::select(vec![
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
