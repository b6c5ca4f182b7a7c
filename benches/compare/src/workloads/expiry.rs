//! Keys that expire.

use super::Workload;
use crate::context::Context;
use crate::data::{Key, write_value};
use crate::durability::Durability;
use crate::{engine::Need, outcome::Measure};
use anyhow::{Context as _, Result, ensure};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const LIFETIME_MIN: Duration = Duration::from_secs(1);
/// Longer than any engine should take to notice.
const PATIENCE: Duration = Duration::from_secs(60);

pub const WORKLOADS: &[Workload] = &[Workload {
    name: "expiry",
    title: "Expiry: half of the keys are put with the same expiry, then counted until they are gone",
    needs: &[Need::Reads, Need::Expiry],
    run,
}];

fn run(context: &Context) -> Result<Vec<Measure>> {
    let engine = context.open()?;
    let keys = context.writes();
    let lifetime = time_to_put(context.durability).mul_f64(keys as f64).max(LIFETIME_MIN);
    let moment = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("a clock before 1970")?
        + lifetime;
    let expiry = Instant::now() + lifetime;
    let mut value = vec![0; context.value_bytes];
    let start = Instant::now();
    for number in 0..keys {
        write_value(&mut value, number, 0);
        if number % 2 == 0 {
            engine.put_until(&Key::random(number), &value, moment.as_millis() as u64)?;
        } else {
            engine.put(&Key::random(number), &value)?;
        }
    }
    let filled = start.elapsed();
    std::thread::sleep(expiry.saturating_duration_since(Instant::now()));
    let expired = Instant::now();
    while engine.count()? != keys / 2 {
        ensure!(
            expired.elapsed() < PATIENCE,
            "keys are not gone long after they expired"
        );
    }
    let gone = expired.elapsed();
    for number in 0..keys {
        engine.get(&Key::random(number), &mut |value| match number % 2 {
            0 => {
                ensure!(value.is_none(), "the expired key of number {number} is there");
                Ok(())
            }
            _ => crate::data::check_value(value, number, context.value_bytes).map(drop),
        })?;
    }
    engine.close()?;
    Ok(vec![
        Measure::rate("puts", keys, filled),
        Measure::cost("until they are not counted", gone.as_secs_f64() * 1e3, "ms"),
    ])
}

/// Longer than a put takes: all keys must be put before half of them expire.
fn time_to_put(durability: Durability) -> Duration {
    match durability {
        Durability::Os => Duration::from_micros(20),
        Durability::Sync => Duration::from_millis(20),
    }
}
