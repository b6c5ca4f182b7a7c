//! Fuzz target `store_model`: operations decoded from the fuzzer's bytes, applied to a store and to
//! the [`model`](crate::model).
//!
//! The first byte selects how the store is opened; then each piece of [`PIECE`] bytes is one
//! operation, whatever its bytes. So a mutation of a byte changes one operation, and moving pieces
//! moves operations. Missing bytes of a piece read as zeros; surplus bytes are ignored.
//!
//! Kinds of operations that came later begin with a byte from [`LATER`] on, so that all other
//! pieces mean what they meant before: the corpus stays of use.

use embercask::Durability;
use embercask::storage::CutPolicy;

use crate::driver::{Driver, Visited};
use crate::ops::{
    self, BatchItem, Change, Crash, Doing, FOREVER, Failure, Guard, Hold, Intrusion, KEYS, NAMES, Op, PREFIXES, Put,
    Range, Relapse, Settings, Step, Transaction, Upkeep, Write,
};
use crate::way::Way;
use embercask::testing::input::Input;

/// Bytes per operation.
pub const PIECE: usize = 24;
/// Further operations are ignored: they would cost more time than they find bugs.
const OPERATIONS_MAX: usize = 250;
/// The lowest first byte of operations and writes of the later kinds.
pub const LATER: u8 = 0xe0;

/// Runs all operations of an input; after each, compares everything the store shows with the model.
pub fn store_model(data: &[u8]) {
    visit(data);
}

/// As [`store_model`]; returns what the operations did.
pub fn visit(data: &[u8]) -> Visited {
    let (first, pieces) = data.split_at(data.len().min(1));
    let mut done = Done(Vec::new());
    let mut driver = Driver::new(&settings(&mut Input::new(first)));
    for piece in pieces.chunks(PIECE).take(OPERATIONS_MAX) {
        done.0.push(op(&mut Input::new(piece)));
        driver.run(&done.0[done.0.len() - 1]);
    }
    driver.visited().clone()
}

/// Prints the operations if the last of them failed.
struct Done(Vec<Op>);

impl Drop for Done {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("operations up to the one that failed: {:#?}", self.0);
        }
    }
}

const CLASSES: [Durability; 3] = [Durability::Sync, Durability::Os, Durability::Buffered];

fn settings(input: &mut Input<'_>) -> Settings {
    let bits = input.u8();
    Settings {
        pread: bits & 1 != 0,
        ring: bits & 0x80 != 0,
        segment_bytes: [4096, 4096, 6000, 20_000][usize::from(bits >> 1 & 3)],
        durability: CLASSES[usize::from(bits >> 3 & 3) % 3],
        grace_ms: [0, 0, 5, 10_000][usize::from(bits >> 5 & 3)],
        // Deterministic: the same input gives the same run.
        seed: 1,
    }
}

/// Namespace and key.
fn target(input: &mut Input<'_>) -> (usize, usize) {
    let byte = usize::from(input.u8());
    // Most writes go to one namespace, so that its keys are written again and again.
    let namespace = [0, 0, 0, 0, 1, 1, 2, 3][byte >> 5];
    (namespace, (byte & 0x1f) % KEYS)
}

fn ttl(number: u8) -> u64 {
    [1, 2, 5, 10, 50, 1_000, 12_000, 1_000_000][usize::from(number & 7)]
}

/// From one byte: most puts are short and never expire.
fn put(byte: u8) -> Put {
    Put {
        length: [
            0, 7, 20, 39, 100, 250, 399, 600, 1_000, 1_500, 1_799, 3_900, 4_000, 4_080, 6_000, 8_999,
        ][usize::from(byte & 15)],
        ttl: (byte & 0x40 != 0).then(|| ttl(byte)),
        metadata: (byte & 0x80 != 0).then_some(usize::from(byte & 15) * 4),
    }
}

fn guard(number: u8) -> Option<Guard> {
    match number & 15 {
        1 => Some(Guard::Absent),
        2 => Some(Guard::Present),
        3 => Some(Guard::Current),
        4 => Some(Guard::Stale),
        _ => None,
    }
}

/// An operation's guard and durability class, from one byte.
fn terms(input: &mut Input<'_>) -> (Option<Guard>, Option<Durability>) {
    let byte = input.u8();
    let durability = CLASSES.get(usize::from(byte >> 4 & 7).wrapping_sub(1)).copied();
    (guard(byte), durability)
}

fn write(input: &mut Input<'_>) -> Write {
    match input.u8() {
        later @ LATER.. => later_write(later & 31, input),
        earlier => earlier_write(earlier % 16, input),
    }
}

fn earlier_write(kind: u8, input: &mut Input<'_>) -> Write {
    match kind {
        0..=5 => {
            let ((namespace, key), put, (guard, durability)) = (target(input), put(input.u8()), terms(input));
            Write::Put {
                namespace,
                key,
                put: Put {
                    // One byte more or less may decide whether it fits.
                    length: put.length + usize::from(input.u8() & 31),
                    ..put
                },
                guard,
                durability,
            }
        }
        6 | 7 => {
            let ((namespace, key), (guard, durability)) = (target(input), terms(input));
            Write::Delete {
                namespace,
                key,
                guard,
                durability,
            }
        }
        8..=10 => {
            let (_, durability) = terms(input);
            let items = (0..input.below(8)).map(|_| batch_item(input)).collect();
            Write::Batch { items, durability }
        }
        11 => {
            let ((namespace, key), ttl) = (target(input), ttl(input.u8()));
            Write::SetTtl { namespace, key, ttl }
        }
        12 => {
            let ((namespace, key), length) = (target(input), input.u8());
            if length & 1 == 0 {
                Write::RemoveExpiry { namespace, key }
            } else {
                let metadata = (length & 2 != 0).then_some(usize::from(length >> 2));
                Write::SetMetadata {
                    namespace,
                    key,
                    metadata,
                }
            }
        }
        13 => Write::CreateNamespace {
            name: input.below(NAMES.len()),
        },
        14 => Write::RenameNamespace {
            from: input.below(NAMES.len()),
            to: input.below(NAMES.len()),
        },
        _ => Write::DropNamespace {
            name: input.below(NAMES.len()),
        },
    }
}

fn prefix(input: &mut Input<'_>) -> usize {
    input.below(PREFIXES.len())
}

/// As [`put`], but a put may be for good whatever the default is.
fn later_put(byte: u8) -> Put {
    let put = put(byte);
    match byte & 0x78 {
        0x78 => Put {
            ttl: Some(FOREVER),
            ..put
        },
        _ => put,
    }
}

fn later_write(kind: u8, input: &mut Input<'_>) -> Write {
    match kind {
        0..=9 => Write::Transaction(transaction(input)),
        10..=17 => {
            let (namespace, key) = target(input);
            let change = change(input);
            Write::Change { namespace, key, change }
        }
        18..=21 => Write::Pop {
            namespace: target(input).0,
            prefix: prefix(input),
            last: kind & 1 != 0,
        },
        22..=27 => Write::DeleteRange {
            namespace: target(input).0,
            range: match kind & 1 {
                0 => Range::Prefix(prefix(input)),
                _ => Range::Between(input.below(KEYS), input.below(KEYS)),
            },
            batch_keys: 1 + input.below(7),
            batches: [None, None, Some(1), Some(2)][input.below(4)],
            durability: terms(input).1,
        },
        _ => Write::SetDefaultTtl {
            namespace: target(input).0,
            ttl: match input.u8() {
                none if none & 8 != 0 => None,
                number => Some(ttl(number)),
            },
        },
    }
}

fn change(input: &mut Input<'_>) -> Change {
    let (how, byte) = (input.u8(), input.u8());
    match how % 16 {
        0 => Change::Keep,
        1 | 2 => Change::Update(later_put(byte)),
        3 => Change::UpdateLike(usize::from(byte)),
        4 => Change::Remove,
        5..=8 => Change::Increment([1, -7, 1_000, i64::MAX][usize::from(byte & 3)]),
        9 | 10 => Change::Replace(later_put(byte)),
        11 => Change::Take,
        12 | 13 => Change::PutWhen {
            put: later_put(byte),
            holds: how & 64 == 0,
        },
        _ => Change::DeleteWhen { holds: how & 64 == 0 },
    }
}

fn transaction(input: &mut Input<'_>) -> Transaction {
    let (how, durability) = (input.u8(), terms(input).1);
    let intrusion = match how & 7 {
        0..=2 => {
            let ((namespace, key), put) = (target(input), later_put(input.u8()));
            Some(Intrusion::Put { namespace, key, put })
        }
        3 => {
            let (namespace, key) = target(input);
            Some(Intrusion::Delete { namespace, key })
        }
        4 => match input.u8() {
            drop @ 0xc0.. => Some(Intrusion::DropNamespace {
                name: usize::from(drop) % NAMES.len(),
            }),
            number => Some(Intrusion::Advance(ttl(number))),
        },
        _ => None,
    };
    let at = usize::from(how >> 3 & 7);
    let steps: Vec<_> = (0..1 + input.below(7)).map(|_| step(input)).collect();
    let aim = |intrusion| match how >> 6 {
        0 => intrusion,
        _ => ops::aimed(intrusion, &steps),
    };
    Transaction {
        intrusion: intrusion.map(|intrusion| (at, aim(intrusion))),
        fails: how & 0xc0 == 0xc0,
        durability,
        steps,
    }
}

/// From two bytes, as an item of a batch.
fn step(input: &mut Input<'_>) -> Step {
    let ((namespace, key), how) = (target(input), input.u8());
    let (part, reverse) = (usize::from(how & 7) % PREFIXES.len(), how & 8 != 0);
    match how {
        0..=0x3f => Step::Get { namespace, key },
        0x40..=0x5f => Step::List {
            namespace,
            prefix: part,
            reverse,
        },
        0x60..=0x6f => Step::Count {
            namespace,
            prefix: part,
        },
        0x70..=0x8f => Step::Delete { namespace, key },
        _ => Step::Put {
            namespace,
            key,
            put: later_put(how & 0x7f | how << 7),
            guard: [None, None, Some(Guard::Absent), Some(Guard::Present)][usize::from(how >> 4 & 3)]
                .filter(|_| how >= 0xe0),
        },
    }
}

fn hold(kind: u8, input: &mut Input<'_>) -> Hold {
    match kind {
        0..=4 => Hold::Snapshot,
        5 | 6 => Hold::DropSnapshot(usize::from(input.u8())),
        7 => Hold::DropWatch(usize::from(input.u8())),
        _ => Hold::Watch {
            namespace: target(input).0,
            prefix: prefix(input),
            capacity: input.choose(&[1, 3, 100]),
            values: kind & 1 != 0,
        },
    }
}

/// From two bytes, so that a whole batch fits in a piece.
fn batch_item(input: &mut Input<'_>) -> BatchItem {
    let ((namespace, key), how) = (target(input), input.u8());
    // Few have a guard; a quarter are deletes.
    let (guard, put) = match how {
        0xf0..=0xff => (guard(how), None),
        0xc0..=0xef => (None, None),
        _ => (None, Some(put(how))),
    };
    BatchItem {
        namespace,
        key,
        put,
        guard,
    }
}

fn upkeep(input: &mut Input<'_>) -> Upkeep {
    match input.u8() % 8 {
        0 => Upkeep::Flush,
        1 => Upkeep::Sync,
        2 => Upkeep::Maintain,
        3 => Upkeep::Compact,
        4 | 5 => Upkeep::CompactSubset(u64::from(input.u16())),
        6 => Upkeep::CompactSubset(1 << input.below(6)),
        _ => Upkeep::CompactIfWorthwhile,
    }
}

fn crash(input: &mut Input<'_>) -> Crash {
    let (how, number) = (input.u8(), input.u16());
    match how % 8 {
        0 | 1 => Crash::Kill,
        2 => Crash::PowerCut(CutPolicy::LoseUnsynced),
        3 => Crash::PowerCut(CutPolicy::KeepAll),
        4 => Crash::PowerCut(CutPolicy::KeepPrefix {
            operations: usize::from(number % 64),
        }),
        _ => Crash::PowerCut(CutPolicy::Random {
            seed: u64::from(number),
            grain: if how & 8 == 0 { 4096 } else { 512 },
        }),
    }
}

fn relapses(input: &mut Input<'_>) -> Vec<Relapse> {
    let count = [0, 0, 1, 2][input.below(4)];
    let relapse = |_| Relapse {
        calls: u64::from(input.u8() % 40),
        crash: crash(input),
    };
    (0..count).map(relapse).collect()
}

fn way(input: &mut Input<'_>) -> Way {
    let byte = input.u8();
    match byte % 4 {
        0 => Way::IndexFile,
        1 => Way::Hints,
        2 => Way::Records,
        _ => Way::Mixed(u64::from(byte >> 2)),
    }
}

fn doing(input: &mut Input<'_>) -> Doing {
    match input.u8() % 8 {
        0..=3 => Doing::Write(write(input)),
        7 => Doing::Upkeep(Upkeep::Close),
        _ => Doing::Upkeep(upkeep(input)),
    }
}

fn failure(input: &mut Input<'_>) -> Failure {
    match input.u8() % 16 {
        0 | 1 => Failure::Write,
        2 => Failure::ShortWrite(input.below(200)),
        3 => Failure::Sync,
        4..=6 => Failure::SyncThatLoses,
        7 => Failure::DirectorySync,
        8 => Failure::Create,
        9 => Failure::Rename,
        10 => Failure::Remove,
        11 => Failure::SetLen,
        _ => Failure::Full,
    }
}

/// Any bytes are a valid operation.
fn op(input: &mut Input<'_>) -> Op {
    let kind = match input.u8() {
        later @ LATER.. if later & 31 < 12 => return Op::Hold(hold(later & 31, input)),
        later @ LATER.. => return Op::Write(later_write(later.wrapping_mul(11) & 31, input)),
        earlier => earlier % 32,
    };
    match kind {
        0..=17 => Op::Write(write(input)),
        18..=21 => Op::Upkeep(upkeep(input)),
        22 => Op::Advance(input.choose(&[1, 3, 8, 60, 2_000, 15_000, 900_000])),
        23 => Op::ShiftWall(input.choose(&[-900_000, -11_000, -50, -1, 1, 40, 11_000, 900_000])),
        24 => Op::Reopen {
            settings: settings(input),
            way: way(input),
        },
        25..=27 => Op::Crash {
            settings: settings(input),
            crash: crash(input),
            way: way(input),
            relapses: relapses(input),
        },
        28 => {
            let (settings, calls) = (settings(input), u64::from(input.u8() % 16));
            Op::FailWithin {
                calls,
                failure: failure(input),
                crash: crash(input),
                way: way(input),
                doing: doing(input),
                settings,
            }
        }
        _ => {
            // `doing` comes last, because a batch takes all remaining bytes.
            let (settings, calls) = (settings(input), u64::from(input.u8() % 48));
            let (crash, relapses, way) = (crash(input), relapses(input), way(input));
            let doing = doing(input);
            Op::CrashWithin {
                doing,
                calls,
                crash,
                relapses,
                way,
                settings,
            }
        }
    }
}
