//! Gets from a snapshot.

use super::Workload;
use crate::context::Context;
use crate::data::{self, Key};
use crate::engine::Check;
use crate::random::{Random, scattered};
use crate::threads::together;
use crate::{engine::Need, outcome::Measure};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

const BATCH: u64 = 100;

pub const WORKLOADS: &[Workload] = &[Workload {
    name: "snapshot",
    title: "Get from a snapshot whose keys have all been overwritten, and from the present beside it",
    needs: &[Need::Reads, Need::Batches, Need::Snapshots],
    run,
}];

fn run(context: &Context) -> Result<Vec<Measure>> {
    let engine = context.open_loaded(Key::random)?;
    let overwritten = context.writes();
    let before = timed(context, overwritten, 0, |key, check| engine.get(key, check))?;
    let snapshot = engine.snapshot()?;
    // On another thread, since LMDB has one transaction a thread.
    together(1, |_| overwrite(context, &*engine, overwritten))?;
    let present = together(1, |_| {
        timed(context, overwritten, 1, |key, check| engine.get(key, check)).map(drop)
    })?;
    let past = timed(context, overwritten, 0, |key, check| snapshot.get(key, check))?;
    drop(snapshot);
    engine.close()?;
    Ok(vec![
        Measure::rate("gets from the snapshot", context.keys, past),
        Measure::rate("gets from the present, beside the snapshot", context.keys, present),
        Measure::rate("gets before", context.keys, before),
    ])
}

fn overwrite(context: &Context, engine: &dyn crate::engine::Engine, count: u64) -> Result<()> {
    let mut index = 0;
    while index < count {
        let end = (index + BATCH).min(count);
        let numbers = (index..end).map(|index| scattered(index, context.keys));
        let entries: Vec<_> = numbers.map(|n| (Key::random(n), context.value(n, 1))).collect();
        engine.put_batch(&entries)?;
        index = end;
    }
    Ok(())
}

/// The time of gets of keys that are or will be overwritten; each must find this generation.
fn timed(
    context: &Context,
    overwritten: u64,
    generation: u16,
    get: impl Fn(&[u8], Check) -> Result<()>,
) -> Result<Duration> {
    let mut random = Random::new(5);
    let start = Instant::now();
    for _ in 0..context.keys {
        let number = scattered(random.below(overwritten), context.keys);
        get(&Key::random(number), &mut |value| {
            let found = data::check_value(value, number, context.value_bytes)?;
            ensure!(
                found == generation,
                "number {number} has generation {found} instead of {generation}"
            );
            Ok(())
        })?;
    }
    Ok(start.elapsed())
}
