//! The plan of a round. It derives from the seed and the number of the round, so parent and child
//! both know it without communicating.
//!
//! Every writer has three namespace names to itself; its operations are one sequence, and no other
//! writer touches its keys. Every value names the operation that wrote it, so all but the shortest
//! are unique.

use std::sync::Arc;
use std::time::Duration;

use embercask::storage::Storage;
use embercask::{Durability, Maintenance, ManualClock, Options, ReadMode, RingMode, Store};

use crate::processes::deadly::Moment;
use test_support::Rng;
use test_support::model::Item;
use test_support::way::Way;

pub(crate) const WRITERS_MAX: usize = 4;
/// Number of names that a writer may use for its namespaces.
pub(crate) const NAMES: usize = 3;
const KEYS: u64 = 24;
const START_MS: u64 = 1_700_000_000_000;
/// How far the clock advances per round. It stands still within one.
const ROUND_MS: u64 = 1_000;

/// What the child is doing when it is killed, or when its storage's fuse is lit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Opening,
    Working,
    Compacting,
    Checkpointing,
    Closing,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kill {
    /// By the parent, after it has read this many reports.
    AfterReports(u64),
    /// By its own storage, this many calls after the first beginning of this phase.
    AtCall { phase: Phase, calls: u64, moment: Moment },
    /// Not killed: it closes the store.
    Never,
}

/// What happens to the directory once the child has opened the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wandering {
    Stays,
    /// The store was opened by a relative path, and the process changes to a working directory in
    /// which that path leads to another directory.
    ProcessLeaves,
    /// The store is renamed, and another directory takes its place.
    IsRenamed,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) round: u64,
    pub(crate) writers: usize,
    pub(crate) kill: Kill,
    /// Which of the files that speed up opening remain after the kill.
    pub(crate) way: Way,
    /// The parent opens the store itself, not a copy; otherwise the next child finds it as the kill
    /// left it.
    pub(crate) open_original: bool,
    /// The parent compacts the store it opened.
    pub(crate) compact: bool,
    pub(crate) wandering: Wandering,
    operations: u64,
    /// Of ten writes, the number of class `Buffered`; `os` is the number of class `Os`.
    buffered: u64,
    os: u64,
    segment_bytes: u64,
    read_mode: ReadMode,
    ring: RingMode,
    maintenance: Maintenance,
    flush_interval_ms: u64,
    grace_ms: u64,
}

/// One operation of a writer.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Create {
        name: usize,
        id: u128,
    },
    Rename {
        from: usize,
        to: usize,
    },
    Drop {
        name: usize,
    },
    Write {
        changes: Vec<Change>,
        durability: Durability,
    },
    Flush,
    Sync,
    Maintain,
    Compact,
    CompactSubset(u64),
    Checkpoint,
}

/// A write of one key; a delete if it has no item. Several are a batch.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) name: usize,
    pub(crate) key: Vec<u8>,
    pub(crate) item: Option<Item>,
}

pub(crate) fn name_of(writer: usize, name: usize) -> String {
    format!("writer {writer}, {name}")
}

/// Every key that is used.
pub(crate) fn key(number: u64) -> Vec<u8> {
    match number {
        0 => b"long-".iter().chain([b'k'; 295].iter()).copied().collect(),
        _ => format!("key {number:02}").into_bytes(),
    }
}

pub(crate) fn keys() -> impl Iterator<Item = Vec<u8>> {
    (0..KEYS).map(key)
}

/// A number below `bound`, small ones as often as large ones.
fn logarithmic(rng: &mut Rng, bound: u64) -> u64 {
    let bits = rng.below(64 - u64::from(bound.leading_zeros()));
    rng.below((2 << bits).min(bound))
}

impl Plan {
    pub(crate) fn of(seed: u64, round: u64) -> Plan {
        let rng = &mut Rng::new(seed ^ round.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let writers = if rng.below(2) == 0 {
            1
        } else {
            2 + rng.below(WRITERS_MAX as u64 - 1) as usize
        };
        let operations = 20 + rng.below(130);
        let reports = 2 * operations * writers as u64;
        let moment = [Moment::Before, Moment::Within, Moment::After][rng.below(3) as usize];
        let (phase, calls) = match rng.below(6) {
            0 => (Phase::Opening, rng.below(6)),
            1 => (Phase::Opening, rng.below(40)),
            2 => (Phase::Working, logarithmic(rng, 300)),
            3 => (Phase::Compacting, rng.below(30)),
            4 => (Phase::Checkpointing, rng.below(60)),
            _ => (Phase::Closing, rng.below(12)),
        };
        let kill = match rng.below(12) {
            0 => Kill::Never,
            1..5 => Kill::AfterReports(logarithmic(rng, reports)),
            _ => Kill::AtCall { phase, calls, moment },
        };
        let (buffered, os) = [(3, 3), (8, 1), (1, 8), (0, 0), (9, 0)][rng.below(5) as usize];
        Plan {
            seed,
            round,
            writers,
            kill,
            way: [Way::IndexFile, Way::Hints, Way::Records, Way::Mixed(rng.next())][rng.below(4) as usize],
            open_original: rng.below(5) < 2,
            compact: rng.below(3) == 0,
            operations,
            buffered,
            os,
            segment_bytes: [4096, 4096, 6000, 20_000][rng.below(4) as usize],
            read_mode: [ReadMode::Map, ReadMode::Map, ReadMode::Pread][rng.below(3) as usize],
            ring: [RingMode::Auto, RingMode::Always, RingMode::Never][rng.below(3) as usize],
            maintenance: [Maintenance::Background, Maintenance::Manual][rng.below(2) as usize],
            flush_interval_ms: [1, 100, 1_000_000][rng.below(3) as usize],
            grace_ms: [0, 0, 1_500][rng.below(3) as usize],
            wandering: [Wandering::Stays, Wandering::ProcessLeaves, Wandering::IsRenamed][rng.below(3) as usize],
        }
    }

    /// The time shown by the child's clock.
    pub(crate) fn now_ms(&self) -> u64 {
        START_MS + self.round * ROUND_MS
    }

    /// The time at which the parent opens the store.
    pub(crate) fn looked_at_ms(&self) -> u64 {
        self.now_ms() + ROUND_MS / 2
    }

    pub(crate) fn options(&self, storage: Arc<dyn Storage>) -> Options {
        Store::options()
            .segment_bytes(self.segment_bytes)
            .read_mode(self.read_mode)
            .ring(self.ring)
            .maintenance(self.maintenance)
            .flush_interval(Duration::from_millis(self.flush_interval_ms))
            .expiry_grace(Duration::from_millis(self.grace_ms))
            .clock(ManualClock::new(self.now_ms()))
            .storage(storage)
    }

    /// A writer's operations, in order.
    pub(crate) fn operations(&self, writer: usize) -> Vec<Operation> {
        if writer >= self.writers {
            return Vec::new();
        }
        let rng = &mut Rng::new(self.seed ^ (self.round * 8 + writer as u64 + 1).wrapping_mul(0x9fb2_1c65_1e98_df25));
        let mut operations = vec![self.create(writer, 0, 0)];
        while (operations.len() as u64) < self.operations {
            let number = operations.len() as u64;
            operations.push(self.operation(rng, writer, number));
        }
        if let (0, Kill::AtCall { phase, .. }) = (writer, self.kill) {
            let place = 1 + rng.below(operations.len() as u64 - 1) as usize;
            match phase {
                Phase::Compacting => operations[place] = Operation::Compact,
                Phase::Checkpointing => operations[place] = Operation::Checkpoint,
                Phase::Opening | Phase::Working | Phase::Closing => {}
            }
        }
        operations
    }

    fn create(&self, writer: usize, name: usize, number: u64) -> Operation {
        Operation::Create {
            name,
            id: (u128::from(self.round) << 64) | ((writer as u128) << 32) | (u128::from(number) + 1),
        }
    }

    fn operation(&self, rng: &mut Rng, writer: usize, number: u64) -> Operation {
        let others = 1 + rng.below(NAMES as u64 - 1) as usize;
        match rng.below(100) {
            0..4 => self.create(writer, others, number),
            4..6 => Operation::Rename {
                from: others,
                to: NAMES - others,
            },
            6..9 => Operation::Drop { name: others },
            9..11 => Operation::Flush,
            11..13 => Operation::Sync,
            13..15 => Operation::Maintain,
            15..16 => Operation::Compact,
            16..19 => Operation::CompactSubset(rng.next()),
            19..20 => Operation::Checkpoint,
            chance => {
                let count = if chance < 35 { 2 + rng.below(4) } else { 1 };
                let changes = (0..count)
                    .map(|index| self.change(rng, writer, number, index))
                    .collect();
                Operation::Write {
                    changes,
                    durability: self.durability(rng),
                }
            }
        }
    }

    fn durability(&self, rng: &mut Rng) -> Durability {
        match rng.below(10) {
            chance if chance < self.buffered => Durability::Buffered,
            chance if chance < self.buffered + self.os => Durability::Os,
            _ => Durability::Sync,
        }
    }

    fn change(&self, rng: &mut Rng, writer: usize, number: u64, index: u64) -> Change {
        let name = [0, 0, 0, 1, 2][rng.below(5) as usize];
        let item = (rng.below(10) < 7).then(|| {
            let length = match rng.below(40) {
                0 => 4_000 + rng.below(5_000),
                1..6 => 400 + rng.below(1_400),
                6..16 => 40 + rng.below(360),
                _ => rng.below(40),
            };
            let text = format!("{}/{writer}/{number}/{index};", self.round);
            let metadata = (rng.below(4) == 0).then(|| text.bytes().rev().collect());
            // From a quarter of a round to three and a quarter: some have expired when the parent
            // reads, some in a later round.
            let expiry = (rng.below(3) == 0).then(|| self.now_ms() + rng.below(4) * ROUND_MS + ROUND_MS / 4);
            Item {
                value: text.bytes().cycle().take(length as usize).collect(),
                metadata,
                expiry,
                sequence: 0,
                seen: 0,
            }
        });
        Change {
            name,
            key: key(rng.below(KEYS)),
            item,
        }
    }
}
