//! The disk cost of overwriting.

use super::Workload;
use crate::context::Context;
use crate::data::Key;
use crate::process::{disk_used, written};
use crate::random::scattered;
use crate::{engine::Need, outcome::Measure};
use anyhow::Result;

const OVERWRITES: u16 = 3;
const BATCH: u64 = 100;

pub const WORKLOADS: &[Workload] = &[Workload {
    name: "space",
    title: "Space: every key put, overwritten three times in different orders (100 per commit where the engine has batches), compacted, closed",
    needs: &[Need::Reads, Need::Files],
    run,
}];

fn run(context: &Context) -> Result<Vec<Measure>> {
    let before = written()?;
    let engine = context.open()?;
    context.load(&*engine, Key::random, 0..context.keys)?;
    for generation in 1..=OVERWRITES {
        let mut index = 0;
        while index < context.keys {
            let end = (index + BATCH).min(context.keys);
            let numbers = (index..end).map(|index| scattered(index + u64::from(generation), context.keys));
            let entries: Vec<_> = numbers
                .map(|n| (Key::random(n), context.value(n, generation)))
                .collect();
            engine.put_batch(&entries)?;
            index = end;
        }
    }
    // Before a sync, a file system may not have allocated blocks for the files.
    engine.sync()?;
    let most = disk_used(&context.directory)?;
    engine.compact()?;
    context.verify(&*engine, Key::random, 0..context.keys, OVERWRITES)?;
    engine.close()?;
    let bytes_written = written()? - before;
    let used = disk_used(&context.directory)?;
    let live: usize = (0..context.keys)
        .map(|number| Key::random(number).len() + context.value_bytes)
        .sum();
    let put = live as f64 * f64::from(OVERWRITES + 1);
    Ok(vec![
        Measure::cost("disk before compaction", most as f64 / live as f64, "bytes a live byte"),
        Measure::cost(
            "disk after compaction and close",
            used as f64 / live as f64,
            "bytes a live byte",
        ),
        Measure::cost("written in all", bytes_written as f64 / put, "bytes a byte put"),
    ])
}
