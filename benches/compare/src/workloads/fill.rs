//! Filling an empty store.

use super::Workload;
use crate::context::{Context, MakeKey};
use crate::data::{Key, write_value};
use crate::{engine::Need, outcome::Measure};
use anyhow::Result;
use std::time::Instant;

const BATCH: u64 = 100;

pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "fill-ordered",
        title: "Fill: one thread puts keys in ascending order, one per commit",
        needs: &[],
        run: |context| fill(context, Key::ordered),
    },
    Workload {
        name: "fill-batched",
        title: "Fill: one thread puts keys in random order, 100 per commit",
        needs: &[Need::Batches],
        run: fill_batched,
    },
    Workload {
        name: "fill-random",
        title: "Fill: one thread puts keys in random order, one per commit",
        needs: &[],
        run: |context| fill(context, Key::random),
    },
];

fn fill(context: &Context, make: MakeKey) -> Result<Vec<Measure>> {
    let engine = context.open()?;
    let writes = context.writes();
    let mut value = vec![0; context.value_bytes];
    let start = Instant::now();
    for number in 0..writes {
        write_value(&mut value, number, 0);
        engine.put(&make(number), &value)?;
    }
    let elapsed = start.elapsed();
    context.verify(&*engine, make, 0..writes, 0)?;
    engine.close()?;
    Ok(vec![Measure::rate("puts", writes, elapsed)])
}

fn fill_batched(context: &Context) -> Result<Vec<Measure>> {
    let engine = context.open()?;
    let batches = context.keys.div_ceil(BATCH);
    let mut entries: Vec<_> = (0..BATCH)
        .map(|number| (Key::random(number), context.value(number, 0)))
        .collect();
    let start = Instant::now();
    for batch in 0..batches {
        for ((key, value), number) in entries.iter_mut().zip(batch * BATCH..) {
            *key = Key::random(number);
            write_value(value, number, 0);
        }
        engine.put_batch(&entries)?;
    }
    let elapsed = start.elapsed();
    context.verify(&*engine, Key::random, 0..batches * BATCH, 0)?;
    engine.close()?;
    Ok(vec![Measure::rate("puts", batches * BATCH, elapsed)])
}
