//! Memory of an open store per key.

use super::Workload;
use crate::context::Context;
use crate::data::Key;
use crate::filler::{Ending, fill_elsewhere};
use crate::process::{Resident, resident};
use crate::{engine::Need, outcome::Measure};
use anyhow::Result;

pub const WORKLOADS: &[Workload] = &[Workload {
    name: "memory",
    title: "Memory per key: growth of the resident set on opening a store that another process filled",
    needs: &[Need::Reads, Need::Files],
    run,
}];

fn run(context: &Context) -> Result<Vec<Measure>> {
    fill_elsewhere(context, Ending::Close)?;
    let before = resident()?;
    let engine = context.open()?;
    let opened = resident()?;
    for number in 0..context.keys {
        context.check(&*engine, Key::random, number)?;
    }
    let read = resident()?;
    engine.close()?;
    let cost = |name: &str, bytes: u64, before: u64| {
        Measure::cost(
            name,
            bytes.saturating_sub(before) as f64 / context.keys as f64,
            "bytes a key",
        )
    };
    let anonymous = |now: &Resident, name| cost(name, now.anonymous, before.anonymous);
    Ok(vec![
        anonymous(&opened, "memory after open"),
        anonymous(&read, "memory after each key was read"),
        cost("resident with mapped files after open", opened.all, before.all),
        cost(
            "resident with mapped files after each key was read",
            read.all,
            before.all,
        ),
    ])
}
