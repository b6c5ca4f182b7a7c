//! Commits that survive a power cut, in any class of run.

use super::Workload;
use crate::context::Context;
use crate::data::{Key, write_value};
use crate::durability::Durability;
use crate::threads::together;
use crate::{engine::Need, outcome::Measure};
use anyhow::Result;

pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "sync-commits-1",
        title: "Commits that wait for the device: one writer, one key per commit",
        needs: &[Need::SyncCommits],
        run: |context| commits(context, 1),
    },
    Workload {
        name: "sync-commits-8",
        title: "Commits that wait for the device: eight writers, one key per commit",
        needs: &[Need::SyncCommits],
        run: |context| commits(context, 8),
    },
];

fn commits(context: &Context, writers: u64) -> Result<Vec<Measure>> {
    let context = Context {
        durability: Durability::Sync,
        ..context.clone()
    };
    let engine = context.open()?;
    // Devices do from some hundred to some ten thousand syncs per second.
    let commits_each = (context.keys / 500).clamp(50, 2_000);
    let elapsed = together(writers, |writer| {
        let mut value = vec![0; context.value_bytes];
        for number in (0..commits_each).map(|commit| commit * writers + writer) {
            write_value(&mut value, number, 0);
            engine.put(&Key::random(number), &value)?;
        }
        Ok(())
    })?;
    let commits = commits_each * writers;
    context.verify(&*engine, Key::random, 0..commits, 0)?;
    engine.close()?;
    Ok(vec![Measure::rate("commits", commits, elapsed)])
}
