//! One writer concurrent with two readers.

use super::Workload;
use crate::context::Context;
use crate::data::{Key, write_value};
use crate::random::{Random, scattered};
use crate::threads::joined;
use crate::{engine::Need, outcome::Measure};
use anyhow::Result;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

const READERS: u64 = 2;

pub const WORKLOADS: &[Workload] = &[Workload {
    name: "write-beside-reads",
    title: "One writer overwrites while two readers get until it is done",
    needs: &[Need::Reads],
    run,
}];

fn run(context: &Context) -> Result<Vec<Measure>> {
    let engine = context.open_loaded(Key::random)?;
    let (engine_of_threads, done) = (&*engine, AtomicBool::new(false));
    let writes = context.writes();
    let start = Instant::now();
    let (gets, elapsed) = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                let done = &done;
                scope.spawn(move || {
                    let (mut random, mut gets) = (Random::new(reader), 0);
                    while !done.load(Ordering::Relaxed) {
                        context.check(engine_of_threads, Key::random, random.below(context.keys))?;
                        gets += 1;
                    }
                    Ok(gets)
                })
            })
            .collect();
        let written = overwrite(context, engine_of_threads, writes);
        let elapsed = start.elapsed();
        done.store(true, Ordering::Relaxed);
        let mut gets = 0;
        for reader in readers {
            gets += joined(reader)?;
        }
        written.map(|()| (gets, elapsed))
    })?;
    engine.close()?;
    Ok(vec![
        Measure::rate("puts", writes, elapsed),
        Measure::rate("gets of both readers", gets, elapsed),
    ])
}

fn overwrite(context: &Context, engine: &dyn crate::engine::Engine, writes: u64) -> Result<()> {
    let mut value = vec![0; context.value_bytes];
    for index in 0..writes {
        let number = scattered(index, context.keys);
        write_value(&mut value, number, 1);
        engine.put(&Key::random(number), &value)?;
    }
    Ok(())
}
