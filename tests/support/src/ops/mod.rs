//! What can happen to a store, and how likely it is ([`draw`]).

mod draw;

use embercask::Durability;
use embercask::storage::CutPolicy;

use crate::way::Way;

pub use draw::{aimed, op, settings, steady_op};

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

/// Prefixes of these keys.
pub const PREFIXES: [&[u8]; 7] = [b"", b"a", b"ab", b"user-", b"\0", b"\xff", b"abc\0"];

#[derive(Clone, Copy, Debug)]
pub enum Guard {
    Absent,
    Present,
    /// The key's current sequence.
    Current,
    /// Another sequence.
    Stale,
}

/// As a time to live: none, whatever the default of the namespace.
pub const FOREVER: u64 = 0;

#[derive(Clone, Debug)]
pub struct Put {
    pub length: usize,
    /// None leaves it to the default of the namespace.
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

/// A change of one key that depends on its value.
#[derive(Clone, Debug)]
pub enum Change {
    /// `update`, with a function that keeps the value.
    Keep,
    /// `update`, with a function that puts another.
    Update(Put),
    /// `update`, with a function that puts a value of this length with the old expiry and metadata.
    UpdateLike(usize),
    /// `update`, with a function that deletes it.
    Remove,
    Increment(i64),
    Replace(Put),
    Take,
    PutWhen {
        put: Put,
        holds: bool,
    },
    DeleteWhen {
        holds: bool,
    },
}

/// Keys next to each other.
#[derive(Clone, Copy, Debug)]
pub enum Range {
    /// Those with one of the [`PREFIXES`].
    Prefix(usize),
    /// Those from one key on and before another.
    Between(usize, usize),
}

/// One step of a transaction.
#[derive(Clone, Debug)]
pub enum Step {
    Get {
        namespace: usize,
        key: usize,
    },
    List {
        namespace: usize,
        prefix: usize,
        reverse: bool,
    },
    Count {
        namespace: usize,
        prefix: usize,
    },
    Put {
        namespace: usize,
        key: usize,
        put: Put,
        guard: Option<Guard>,
    },
    Delete {
        namespace: usize,
        key: usize,
    },
}

/// What happens beside a transaction while its closure runs for the first time.
#[derive(Clone, Debug)]
pub enum Intrusion {
    Put { namespace: usize, key: usize, put: Put },
    Delete { namespace: usize, key: usize },
    DropNamespace { name: usize },
    Advance(u64),
}

#[derive(Clone, Debug)]
pub struct Transaction {
    pub steps: Vec<Step>,
    /// Before the step of this number; after the last one if there are fewer.
    pub intrusion: Option<(usize, Intrusion)>,
    /// The closure returns an error in the end.
    pub fails: bool,
    pub durability: Option<Durability>,
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
    Change {
        namespace: usize,
        key: usize,
        change: Change,
    },
    /// Takes the first or last key with one of the [`PREFIXES`].
    Pop {
        namespace: usize,
        prefix: usize,
        last: bool,
    },
    DeleteRange {
        namespace: usize,
        range: Range,
        batch_keys: usize,
        /// Cancelled after this many batches.
        batches: Option<usize>,
        durability: Option<Durability>,
    },
    Transaction(Transaction),
    SetDefaultTtl {
        namespace: usize,
        ttl: Option<u64>,
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

/// What is held across other operations.
#[derive(Clone, Debug)]
pub enum Hold {
    Snapshot,
    /// Drops one of the snapshots.
    DropSnapshot(usize),
    Watch {
        namespace: usize,
        prefix: usize,
        capacity: usize,
        values: bool,
    },
    /// Drops one of the watchers.
    DropWatch(usize),
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
    Hold(Hold),
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
    /// Whether writes of class `Os` are acknowledged by a ring.
    pub ring: bool,
    pub segment_bytes: u64,
    pub durability: Durability,
    pub grace_ms: u64,
    /// Seed of the disk on which the store is created: ids, salts and hash seeds derive from it.
    pub seed: u64,
}
