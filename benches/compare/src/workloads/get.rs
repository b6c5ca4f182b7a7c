//! Gets of one thread. Every value is checked, which costs each engine the same.

use super::Workload;
use crate::context::Context;
use crate::data::{self, Key};
use crate::engine::Engine;
use crate::random::{Random, Zipfian, scattered};
use crate::{engine::Need, outcome::Measure};
use anyhow::{Result, ensure};
use std::time::Instant;

/// The skew of YCSB.
pub const SKEW: f64 = 0.99;
const MANY: usize = 100;

pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "get-uniform",
        title: "Get: existing keys, all equally likely",
        needs: &[Need::Reads],
        run: get_uniform,
    },
    Workload {
        name: "get-zipfian",
        title: "Get: existing keys, Zipf-distributed (0.99)",
        needs: &[Need::Reads],
        run: get_zipfian,
    },
    Workload {
        name: "get-written",
        title: "Get: recently written keys (the newest tenth)",
        needs: &[Need::Reads],
        run: get_written,
    },
    Workload {
        name: "get-miss",
        title: "Get: absent keys",
        needs: &[Need::Reads],
        run: get_miss,
    },
    Workload {
        name: "get-many",
        title: "Get: 100 existing keys per call, all equally likely",
        needs: &[Need::Reads],
        run: get_many,
    },
];

fn timed(context: &Context, engine: &dyn Engine, mut pick: impl FnMut() -> u64) -> Result<Vec<Measure>> {
    let start = Instant::now();
    for _ in 0..context.keys {
        context.check(engine, Key::random, pick())?;
    }
    Ok(vec![Measure::rate("gets", context.keys, start.elapsed())])
}

fn get_uniform(context: &Context) -> Result<Vec<Measure>> {
    let engine = context.open_loaded(Key::random)?;
    let mut random = Random::new(1);
    let measures = timed(context, &*engine, || random.below(context.keys))?;
    engine.close()?;
    Ok(measures)
}

fn get_zipfian(context: &Context) -> Result<Vec<Measure>> {
    let engine = context.open_loaded(Key::random)?;
    let (zipfian, mut random) = (Zipfian::new(context.keys, SKEW), Random::new(2));
    let measures = timed(context, &*engine, || zipfian.pick(&mut random))?;
    engine.close()?;
    Ok(measures)
}

fn get_written(context: &Context) -> Result<Vec<Measure>> {
    let engine = context.open_loaded(Key::random)?;
    let newest = (context.writes() / 10).max(1);
    for index in 0..newest {
        let number = scattered(index, context.keys);
        engine.put(&Key::random(number), &context.value(number, 1))?;
    }
    let mut random = Random::new(3);
    let measures = timed(context, &*engine, || scattered(random.below(newest), context.keys))?;
    engine.close()?;
    Ok(measures)
}

fn get_miss(context: &Context) -> Result<Vec<Measure>> {
    let engine = context.open_loaded(Key::random)?;
    let mut random = Random::new(4);
    let start = Instant::now();
    for _ in 0..context.keys {
        let number = random.below(context.keys);
        engine.get(&Key::absent(number), &mut |value| {
            ensure!(value.is_none(), "the absent key of number {number} is there");
            Ok(())
        })?;
    }
    let measure = Measure::rate("gets", context.keys, start.elapsed());
    engine.close()?;
    Ok(vec![measure])
}

fn get_many(context: &Context) -> Result<Vec<Measure>> {
    let engine = context.open_loaded(Key::random)?;
    let mut random = Random::new(5);
    let calls = context.keys.div_ceil(MANY as u64);
    let (mut numbers, mut keys) = (Vec::with_capacity(MANY), Vec::with_capacity(MANY));
    let start = Instant::now();
    for _ in 0..calls {
        numbers.clear();
        numbers.extend((0..MANY).map(|_| random.below(context.keys)));
        keys.clear();
        keys.extend(numbers.iter().map(|number| Key::random(*number)));
        let mut seen = 0;
        engine.get_many(&keys, &mut |index, value| {
            seen += 1;
            data::check_value(value, numbers[index], context.value_bytes).map(drop)
        })?;
        ensure!(seen == MANY, "{seen} answers for {MANY} keys");
    }
    let measure = Measure::rate("gets", calls * MANY as u64, start.elapsed());
    engine.close()?;
    Ok(vec![measure])
}
