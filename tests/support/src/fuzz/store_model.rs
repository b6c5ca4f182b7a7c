//! Fuzz target `store_model`: operations decoded from the fuzzer's bytes, applied to a store and to
//! the [`model`](crate::model).
//!
//! The first byte selects how the store is opened; then each piece of [`PIECE`] bytes is one
//! operation, whatever its bytes. So a mutation of a byte changes one operation, and moving pieces
//! moves operations. Missing bytes of a piece read as zeros; surplus bytes are ignored.

use embercask::Durability;
use embercask::storage::CutPolicy;

use crate::driver::Driver;
use crate::ops::{BatchItem, Crash, Doing, Failure, Guard, KEYS, NAMES, Op, Put, Relapse, Settings, Upkeep, Write};
use crate::way::Way;
use embercask::testing::input::Input;

/// Bytes per operation.
pub const PIECE: usize = 24;
/// Further operations are ignored: they would cost more time than they find bugs.
const OPERATIONS_MAX: usize = 250;

/// Runs all operations of an input; after each, compares everything the store shows with the model.
pub fn store_model(data: &[u8]) {
    let (first, pieces) = data.split_at(data.len().min(1));
    let mut done = Done(Vec::new());
    let mut driver = Driver::new(&settings(&mut Input::new(first)));
    for piece in pieces.chunks(PIECE).take(OPERATIONS_MAX) {
        done.0.push(op(&mut Input::new(piece)));
        driver.run(&done.0[done.0.len() - 1]);
    }
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
    match input.u8() % 16 {
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
    match input.u8() % 32 {
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
