//! Latency of single operations during compaction.

use super::Workload;
use crate::context::Context;
use crate::data::{Key, write_value};
use crate::engine::Engine;
use crate::random::{Random, scattered};
use crate::threads::joined;
use crate::{engine::Need, outcome::Measure};
use anyhow::Result;
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Pause between compactions, so that there is something to compact.
const PAUSE: Duration = Duration::from_millis(20);
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("worst", 1.0)];

pub const WORKLOADS: &[Workload] = &[Workload {
    name: "tail",
    title: "Latency of single puts and gets while one thread overwrites, one gets and one compacts in a loop",
    needs: &[Need::Reads, Need::CompactionInUse],
    run,
}];

fn run(context: &Context) -> Result<Vec<Measure>> {
    let engine = context.open_loaded(Key::random)?;
    let (engine_of_threads, done) = (&*engine, AtomicBool::new(false));
    let (puts, gets) = std::thread::scope(|scope| {
        let compaction = scope.spawn(|| compact_until(engine_of_threads, &done));
        let reader = scope.spawn(|| get_until(context, engine_of_threads, &done));
        let puts = overwrite(context, engine_of_threads);
        done.store(true, Ordering::Relaxed);
        joined(compaction)?;
        Ok::<_, anyhow::Error>((puts?, joined(reader)?))
    })?;
    engine.close()?;
    Ok([("put", puts), ("get", gets)]
        .iter()
        .flat_map(|(name, histogram)| measures(name, histogram))
        .collect())
}

fn measures(operation: &str, histogram: &Histogram<u64>) -> Vec<Measure> {
    let measure = |(name, quantile): &(&str, f64)| {
        let nanoseconds = histogram.value_at_quantile(*quantile);
        Measure::cost(format!("{operation} {name}"), nanoseconds as f64 / 1e3, "µs")
    };
    QUANTILES.iter().map(measure).collect()
}

fn compact_until(engine: &dyn Engine, done: &AtomicBool) -> Result<()> {
    while !done.load(Ordering::Relaxed) {
        engine.compact()?;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

fn get_until(context: &Context, engine: &dyn Engine, done: &AtomicBool) -> Result<Histogram<u64>> {
    let (mut histogram, mut random) = (Histogram::new(3)?, Random::new(7));
    while !done.load(Ordering::Relaxed) {
        let number = random.below(context.keys);
        let start = Instant::now();
        context.check(engine, Key::random, number)?;
        histogram.record(start.elapsed().as_nanos() as u64)?;
    }
    Ok(histogram)
}

fn overwrite(context: &Context, engine: &dyn Engine) -> Result<Histogram<u64>> {
    let mut histogram = Histogram::new(3)?;
    let mut value = vec![0; context.value_bytes];
    for index in 0..context.writes() {
        let number = scattered(index, context.keys);
        write_value(&mut value, number, 1);
        let start = Instant::now();
        engine.put(&Key::random(number), &value)?;
        histogram.record(start.elapsed().as_nanos() as u64)?;
    }
    Ok(histogram)
}
