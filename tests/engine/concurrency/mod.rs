//! Threads that write, read, list, compact, drop and close concurrently. Each result is checked
//! against what was acknowledged before the read. Bounded by numbers of operations, not by time;
//! the scheduler decides the order, everything else derives from a seed.

mod conditions;
mod ends;
mod group_commit;
mod leaving;
mod namespaces;
mod ranges;
mod storm;
mod updates;

use std::sync::Arc;

use embercask::storage::MemStorage;
use embercask::{Durability, Options, Store};

use test_support::Rng;

const SEGMENT_BYTES: u64 = 16 << 10;

fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(*value.first_chunk().expect("a number is in each value"))
}

/// A number, repeated often enough to fill segments; all of it derives from the number.
fn value_of(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(2 + number as usize % 40)
}

/// The number in a value, after checking that the rest is intact.
#[track_caller]
fn intact(value: &[u8]) -> u64 {
    let number = number(value);
    assert_eq!(value, value_of(number), "a value that was never written");
    number
}

fn random_class(rng: &mut Rng) -> Durability {
    match rng.below(60) {
        0 => Durability::Sync,
        1..20 => Durability::Os,
        _ => Durability::Buffered,
    }
}

fn small(disk: &MemStorage) -> Options {
    Store::options()
        .segment_bytes(SEGMENT_BYTES)
        .storage(Arc::new(disk.clone()))
}
