//! Workloads to cut off: a short one with every kind of operation, and long random ones.

use std::sync::Arc;
use std::time::Duration;

use embercask::Durability::{self, Buffered, Os, Sync};
use embercask::ManualClock;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::Rng;
use crate::crash::recording::{Below, Recorder, Recording};
use crate::driver::{Driver, START_MS};
use crate::ops::{
    self, BatchItem, Change, Guard, Hold, Intrusion, Op, Put, Range, Settings, Step, Transaction, Upkeep, Write,
};
use crate::way::Way;

/// One action.
#[derive(Clone, Debug)]
pub enum Deed {
    Op(Op),
    /// Writes a checkpoint to a new directory.
    Checkpoint,
    Verify,
}

#[derive(Clone, Debug)]
pub struct Workload {
    /// `every-kind`, `every-kind-ring`, or the seed of a random workload.
    pub name: String,
    pub settings: Settings,
    pub deeds: Vec<Deed>,
}

impl Workload {
    /// The workload of this name.
    pub fn named(name: &str) -> Result<Workload, String> {
        match name.parse() {
            Ok(seed) => Ok(Workload::random(seed)),
            Err(_) if name == EVERY_KIND => Ok(Workload::every_kind(false)),
            Err(_) if name == EVERY_KIND_WITH_RING => Ok(Workload::every_kind(true)),
            Err(_) => Err(format!(
                "{name} is neither {EVERY_KIND}, {EVERY_KIND_WITH_RING} nor a seed"
            )),
        }
    }

    /// Every kind of operation, in every durability class, in a few hundred steps, with or without
    /// a ring.
    pub fn every_kind(ring: bool) -> Workload {
        Workload {
            name: if ring { EVERY_KIND_WITH_RING } else { EVERY_KIND }.to_owned(),
            settings: settings(Sync, ring),
            deeds: every_kind(ring),
        }
    }

    /// A workload derived from this seed.
    pub fn random(seed: u64) -> Workload {
        let mut random = Rng::new(seed);
        let mut bytes = [0; 32];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&random.next().to_le_bytes());
        }
        let generator = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(Config::default(), generator);
        let mut draw = |op: bool| {
            let op = op.then(|| ops::op().new_tree(&mut runner).unwrap().current());
            (op, ops::settings().new_tree(&mut runner).unwrap().current())
        };
        let (_, settings) = draw(false);
        let length = 30 + random.below(120) as usize;
        let mut deeds = Vec::new();
        while deeds.len() < length {
            deeds.push(match (random.below(40), draw(true).0) {
                (0, _) => Deed::Checkpoint,
                (1, _) => Deed::Verify,
                (_, Some(op @ (Op::Write(_) | Op::Upkeep(_) | Op::Hold(_) | Op::Advance(_) | Op::Reopen { .. }))) => {
                    Deed::Op(op)
                }
                // Every step is a crash point anyway, and clocks that jump have tests elsewhere.
                _ => continue,
            });
        }
        Workload {
            name: seed.to_string(),
            settings,
            deeds,
        }
    }

    /// Runs it and records it, with the storage that `below` puts over the disk.
    pub fn record(&self, below: Below) -> Recording {
        let clock = ManualClock::new(START_MS);
        let recorder = Recorder::new(&clock, below);
        let mut driver = Driver::observed(&self.settings, &clock, Arc::new(recorder.clone()));
        for (number, deed) in self.deeds.iter().enumerate() {
            match deed {
                Deed::Op(op) => driver.run(op),
                Deed::Checkpoint => {
                    let path = format!("/data/copy-{number}");
                    recorder.checkpoint_begins(path.as_ref());
                    driver.store().checkpoint(&path).unwrap();
                    recorder.checkpoint_acknowledged();
                    driver.check();
                }
                Deed::Verify => {
                    let report = driver.store().verify().unwrap();
                    assert!(report.is_sound(), "{:?}", report.damaged);
                }
            }
        }
        recorder.mark(driver.disk(), "the end");
        recorder.finish()
    }
}

const EVERY_KIND: &str = "every-kind";
const EVERY_KIND_WITH_RING: &str = "every-kind-ring";

pub fn settings(durability: Durability, ring: bool) -> Settings {
    Settings {
        pread: false,
        ring,
        segment_bytes: 4096,
        durability,
        grace_ms: 0,
        seed: 1,
    }
}

fn value(length: usize) -> Put {
    Put {
        length,
        ttl: None,
        metadata: None,
    }
}

fn lasting(ttl: Duration, put: Put) -> Put {
    Put {
        ttl: Some(ttl.as_millis() as u64),
        ..put
    }
}

fn put_if(namespace: usize, key: usize, put: Put, guard: Option<Guard>, durability: Durability) -> Deed {
    write(Write::Put {
        namespace,
        key,
        put,
        guard,
        durability: Some(durability),
    })
}

fn put(namespace: usize, key: usize, put: Put, durability: Durability) -> Deed {
    put_if(namespace, key, put, None, durability)
}

fn delete(namespace: usize, key: usize, guard: Option<Guard>, durability: Durability) -> Deed {
    write(Write::Delete {
        namespace,
        key,
        guard,
        durability: Some(durability),
    })
}

fn batch(items: &[(usize, usize, Option<Put>)], durability: Durability) -> Deed {
    let item = |(namespace, key, put): &(usize, usize, Option<Put>)| BatchItem {
        namespace: *namespace,
        key: *key,
        put: put.clone(),
        guard: None,
    };
    write(Write::Batch {
        items: items.iter().map(item).collect(),
        durability: Some(durability),
    })
}

fn write(write: Write) -> Deed {
    Deed::Op(Op::Write(write))
}

fn upkeep(upkeep: Upkeep) -> Deed {
    Deed::Op(Op::Upkeep(upkeep))
}

fn hold(hold: Hold) -> Deed {
    Deed::Op(Op::Hold(hold))
}

fn change(namespace: usize, key: usize, change: Change) -> Deed {
    write(Write::Change { namespace, key, change })
}

/// Reads a key, puts another and deletes a third; another writer changes the first beside it.
fn transfer([read, put, delete]: [usize; 3], intrusion: Intrusion, durability: Durability) -> Deed {
    write(Write::Transaction(Transaction {
        steps: vec![
            Step::Get {
                namespace: 0,
                key: read,
            },
            Step::Put {
                namespace: 1,
                key: put,
                put: value(60),
                guard: None,
            },
            Step::Delete {
                namespace: 0,
                key: delete,
            },
        ],
        intrusion: Some((1, intrusion)),
        fails: false,
        durability: Some(durability),
    }))
}

fn delete_range(prefix: usize, batch_keys: usize, durability: Durability) -> Deed {
    write(Write::DeleteRange {
        namespace: 0,
        range: Range::Prefix(prefix),
        batch_keys,
        batches: None,
        durability: Some(durability),
    })
}

fn every_kind(ring: bool) -> Vec<Deed> {
    let reopen = |way, durability| {
        let settings = settings(durability, ring);
        Deed::Op(Op::Reopen { way, settings })
    };
    let second = Duration::from_secs(1);
    let mut deeds = vec![
        put(0, 0, value(10), Sync),
        put(0, 1, value(300), Buffered),
        put(1, 1, value(20), Os),
        put(0, 2, lasting(second, value(40)), Os),
        put(
            0,
            3,
            Put {
                metadata: Some(30),
                ..lasting(60 * second, value(50))
            },
            Buffered,
        ),
        put_if(0, 4, value(15), Some(Guard::Absent), Os),
        put_if(0, 0, value(12), Some(Guard::Current), Buffered),
        put_if(0, 0, value(12), Some(Guard::Stale), Sync),
        upkeep(Upkeep::Flush),
        batch(&[(0, 5, Some(value(700))), (1, 5, Some(value(700))), (0, 1, None)], Os),
        upkeep(Upkeep::Sync),
        delete(0, 4, Some(Guard::Present), Os),
        delete(0, 9, None, Buffered),
        write(Write::SetTtl {
            namespace: 0,
            key: 0,
            ttl: 5_000,
        }),
        write(Write::SetMetadata {
            namespace: 0,
            key: 1,
            metadata: Some(9),
        }),
        write(Write::SetMetadata {
            namespace: 0,
            key: 5,
            metadata: Some(9),
        }),
        write(Write::RemoveExpiry { namespace: 0, key: 3 }),
        write(Write::CreateNamespace { name: 2 }),
        batch(
            &[
                (2, 6, Some(value(900))),
                (2, 7, Some(value(900))),
                (2, 19, Some(value(1100))),
            ],
            Buffered,
        ),
        write(Write::RenameNamespace { from: 2, to: 3 }),
        put(3, 6, value(400), Os),
        Deed::Op(Op::Advance(1_500)),
        upkeep(Upkeep::Maintain),
        hold(Hold::Snapshot),
        hold(Hold::Watch {
            namespace: 0,
            prefix: 0,
            capacity: 3,
            values: true,
        }),
        transfer(
            [0, 15, 14],
            Intrusion::Put {
                namespace: 0,
                key: 0,
                put: value(25),
            },
            Os,
        ),
        put(0, 5, value(30), Buffered),
        upkeep(Upkeep::CompactSubset(1)),
        Deed::Checkpoint,
        delete(1, 5, None, Os),
        put(0, 2, value(33), Os),
        change(0, 7, Change::Increment(5)),
        change(0, 7, Change::Increment(-1)),
        write(Write::SetDefaultTtl {
            namespace: 1,
            ttl: Some(3_000_000),
        }),
        // The snapshot still shows what is deleted here, and what is compacted away.
        upkeep(Upkeep::CompactSubset(6)),
        write(Write::DropNamespace { name: 3 }),
        upkeep(Upkeep::CompactIfWorthwhile),
    ];
    // An expiring put hides an older one in another segment, and its own segment is compacted
    // alone.
    deeds.push(put(0, 13, value(70), Os));
    deeds.extend((0..4).map(|n| put(1, 15 + n, value(900), Os)));
    deeds.push(put(0, 13, lasting(second, value(80)), Os));
    deeds.extend((0..4).map(|n| put(1, 15 + n, value(800), Os)));
    deeds.extend([Deed::Op(Op::Advance(1_500)), upkeep(Upkeep::Maintain)]);
    // Newest first, so that the older put is still in another segment when the shadow's fate is
    // decided.
    deeds.extend((2..5).rev().map(|bit| upkeep(Upkeep::CompactSubset(1 << bit))));
    deeds.extend([
        delete_range(1, 2, Os),
        write(Write::Pop {
            namespace: 1,
            prefix: 0,
            last: false,
        }),
        change(1, 16, Change::Take),
        hold(Hold::Snapshot),
        upkeep(Upkeep::CompactSubset(1 << 1)),
        hold(Hold::DropSnapshot(0)),
    ]);
    deeds.push(reopen(Way::Hints, Sync));
    // Segments that fill up while nothing is synced.
    deeds.extend((0..9).map(|n| put(n % 2, 10 + n / 2, value(900), if n % 3 == 0 { Os } else { Buffered })));
    deeds.extend([
        put(0, 8, value(6_000), Os),
        upkeep(Upkeep::Maintain),
        delete(0, 8, None, Os),
        reopen(Way::IndexFile, Os),
        put(0, 0, value(17), Os),
        write(Write::CreateNamespace { name: 3 }),
        batch(&[(3, 6, Some(value(200))), (0, 0, None), (1, 10, None)], Sync),
        Deed::Op(Op::Advance(4_000)),
        upkeep(Upkeep::Compact),
        Deed::Verify,
        delete(0, 12, None, Sync),
        Deed::Checkpoint,
        reopen(Way::Records, Buffered),
        put(0, 1, value(100), Buffered),
        put(0, 18, value(100), Sync),
        reopen(Way::Mixed(1), Sync),
    ]);
    deeds
}
