//! The workloads, by theme.

use crate::{context::Context, engine::Need, outcome::Measure};
use anyhow::{Context as _, Result};

mod change;
mod commits;
mod concurrent;
mod expiry;
mod fill;
mod get;
mod listing;
mod memory;
mod opening;
mod snapshot;
mod space;
mod tail;
mod transactions;
mod ycsb;

/// One workload.
pub struct Workload {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its description in the report.
    pub title: &'static str,
    /// The capabilities that an engine must have.
    pub needs: &'static [Need],
    pub run: fn(&Context) -> Result<Vec<Measure>>,
}

/// All workloads, in the order of the report.
pub fn all() -> Vec<&'static Workload> {
    let themes: [&[Workload]; 14] = [
        fill::WORKLOADS,
        change::WORKLOADS,
        get::WORKLOADS,
        concurrent::WORKLOADS,
        ycsb::WORKLOADS,
        listing::WORKLOADS,
        commits::WORKLOADS,
        transactions::WORKLOADS,
        snapshot::WORKLOADS,
        opening::WORKLOADS,
        memory::WORKLOADS,
        space::WORKLOADS,
        expiry::WORKLOADS,
        tail::WORKLOADS,
    ];
    themes.into_iter().flatten().collect()
}

/// The workload with this name.
pub fn find(name: &str) -> Result<&'static Workload> {
    all()
        .into_iter()
        .find(|workload| workload.name == name)
        .with_context(|| {
            let names: Vec<&str> = all().iter().map(|workload| workload.name).collect();
            format!("no workload \"{name}\"; there are {}", names.join(", "))
        })
}
