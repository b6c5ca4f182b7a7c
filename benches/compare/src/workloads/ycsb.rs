//! The mixes A, B, C and E of YCSB on two threads, with its Zipf distribution.

use super::{Workload, get::SKEW};
use crate::context::Context;
use crate::data::{Key, write_value};
use crate::random::{Random, Zipfian};
use crate::threads::together;
use crate::{engine::Need, outcome::Measure};
use anyhow::{Result, ensure};

const THREADS: u64 = 2;
/// Maximum number of keys of a scan in mix E; the number is uniformly distributed.
const SCAN_KEYS: u64 = 100;

pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "ycsb-a",
        title: "YCSB A on two threads: 50 % gets, 50 % overwrites",
        needs: &[Need::Reads],
        run: |context| mix(context, 50),
    },
    Workload {
        name: "ycsb-b",
        title: "YCSB B on two threads: 95 % gets, 5 % overwrites",
        needs: &[Need::Reads],
        run: |context| mix(context, 5),
    },
    Workload {
        name: "ycsb-c",
        title: "YCSB C on two threads: gets only",
        needs: &[Need::Reads],
        run: |context| mix(context, 0),
    },
    Workload {
        name: "ycsb-e",
        title: "YCSB E on two threads: 95 % scans of up to 100 keys with values, 5 % new keys",
        needs: &[Need::Reads, Need::Order],
        run: scans,
    },
];

fn mix(context: &Context, percent_writes: u64) -> Result<Vec<Measure>> {
    let engine = context.open_loaded(Key::random)?;
    let zipfian = Zipfian::new(context.keys, SKEW);
    let operations = if percent_writes == 0 {
        context.keys
    } else {
        context.writes()
    } / THREADS;
    let elapsed = together(THREADS, |thread| {
        let mut random = Random::new(thread);
        let mut value = vec![0; context.value_bytes];
        for _ in 0..operations {
            let number = zipfian.pick(&mut random);
            if random.below(100) < percent_writes {
                write_value(&mut value, number, 1);
                engine.put(&Key::random(number), &value)?;
            } else {
                context.check(&*engine, Key::random, number)?;
            }
        }
        Ok(())
    })?;
    engine.close()?;
    Ok(vec![Measure::rate("operations", operations * THREADS, elapsed)])
}

fn scans(context: &Context) -> Result<Vec<Measure>> {
    let engine = context.open_loaded(Key::random)?;
    let zipfian = Zipfian::new(context.keys, SKEW);
    let operations = (context.writes() / 20 / THREADS).max(1);
    let elapsed = together(THREADS, |thread| {
        let mut random = Random::new(thread);
        let mut next = context.keys + thread;
        for _ in 0..operations {
            if random.below(100) < 5 {
                engine.put(&Key::random(next), &context.value(next, 0))?;
                next += THREADS;
                continue;
            }
            scan(
                context,
                &*engine,
                zipfian.pick(&mut random),
                1 + random.below(SCAN_KEYS),
            )?;
        }
        Ok(())
    })?;
    engine.close()?;
    Ok(vec![Measure::rate("operations", operations * THREADS, elapsed)])
}

/// The start key must come first, with its own value, and the others must ascend.
fn scan(context: &Context, engine: &dyn crate::engine::Engine, number: u64, count: u64) -> Result<()> {
    let start = Key::random(number);
    let (mut seen, mut before) = (0, start);
    engine.scan(&start, count as usize, &mut |key, value| {
        if seen == 0 {
            ensure!(
                key == &*start,
                "a scan does not begin with the key that it was told to start at"
            );
            crate::data::check_value(Some(value), number, context.value_bytes)?;
        } else {
            ensure!(key > &*before, "a scan is not in order");
            crate::data::check_any_value(value, context.value_bytes)?;
        }
        before = Key::copy_of(key)?;
        seen += 1;
        Ok(())
    })
}
