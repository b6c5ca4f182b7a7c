//! Changing existing keys.

use super::Workload;
use crate::context::Context;
use crate::data::{Key, write_value};
use crate::random::scattered;
use crate::{engine::Need, outcome::Measure};
use anyhow::{Result, ensure};
use std::time::Instant;

pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "overwrite",
        title: "Overwrite: one thread puts each key again, in a different order",
        needs: &[Need::Reads],
        run: overwrite,
    },
    Workload {
        name: "delete",
        title: "Delete: one thread deletes half of the keys, in a different order",
        needs: &[Need::Reads, Need::Deletes],
        run: delete,
    },
];

fn overwrite(context: &Context) -> Result<Vec<Measure>> {
    let engine = context.open_loaded(Key::random)?;
    let writes = context.writes();
    let numbers = || (0..writes).map(|index| scattered(index, context.keys));
    let mut value = vec![0; context.value_bytes];
    let start = Instant::now();
    for number in numbers() {
        write_value(&mut value, number, 1);
        engine.put(&Key::random(number), &value)?;
    }
    let elapsed = start.elapsed();
    context.verify(&*engine, Key::random, numbers(), 1)?;
    engine.close()?;
    Ok(vec![Measure::rate("puts", writes, elapsed)])
}

fn delete(context: &Context) -> Result<Vec<Measure>> {
    let engine = context.open_loaded(Key::random)?;
    let deletes = context.writes().min(context.keys / 2).max(1);
    let numbers = |from, to| (from..to).map(|index| scattered(index, context.keys));
    let start = Instant::now();
    for number in numbers(0, deletes) {
        engine.delete(&Key::random(number))?;
    }
    let elapsed = start.elapsed();
    for number in numbers(0, deletes) {
        engine.get(&Key::random(number), &mut |value| {
            ensure!(value.is_none(), "the deleted key of number {number} is there");
            Ok(())
        })?;
    }
    context.verify(&*engine, Key::random, numbers(deletes, context.keys), 0)?;
    engine.close()?;
    Ok(vec![Measure::rate("deletes", deletes, elapsed)])
}
