//! Opening a store that another process has left.

use super::Workload;
use crate::context::Context;
use crate::data::{self, Key};
use crate::filler::{Ending, fill_elsewhere, synced};
use crate::{engine::Need, outcome::Measure};
use anyhow::Result;
use std::time::Instant;

pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "open-closed",
        title: "Open after a proper close, until the first get returns",
        needs: &[Need::Reads, Need::Files],
        run: open_closed,
    },
    Workload {
        name: "open-killed",
        title: "Open after the process was killed while putting keys, until the first get returns",
        needs: &[Need::Reads, Need::Files],
        run: open_killed,
    },
];

fn open_closed(context: &Context) -> Result<Vec<Measure>> {
    fill_elsewhere(context, Ending::Close)?;
    let start = Instant::now();
    let engine = context.open()?;
    context.check(&*engine, Key::random, 0)?;
    let elapsed = start.elapsed();
    context.verify(&*engine, Key::random, 0..context.keys, 0)?;
    engine.close()?;
    Ok(vec![Measure::cost("time", elapsed.as_secs_f64() * 1e3, "ms")])
}

/// Synced keys must be present. The share of the others that is lost is a separate measure, since
/// not every engine has the class.
fn open_killed(context: &Context) -> Result<Vec<Measure>> {
    fill_elsewhere(context, Ending::Abort)?;
    let start = Instant::now();
    let engine = context.open()?;
    context.check(&*engine, Key::random, 0)?;
    let elapsed = start.elapsed();
    let synced = synced(context.keys);
    context.verify(&*engine, Key::random, 0..synced, 0)?;
    let written_after = context.writes().min(context.keys - synced);
    let mut lost = 0_u64;
    for number in synced..synced + written_after {
        engine.get(&Key::random(number), &mut |value| match value {
            None => {
                lost += 1;
                Ok(())
            }
            some => data::check_value(some, number, context.value_bytes).map(drop),
        })?;
    }
    engine.close()?;
    let lost = lost as f64 / written_after.max(1) as f64 * 100.0;
    Ok(vec![
        Measure::cost("time", elapsed.as_secs_f64() * 1e3, "ms"),
        Measure::cost("lost of what was written after the last sync", lost, "%"),
    ])
}
