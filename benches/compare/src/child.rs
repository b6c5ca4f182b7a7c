//! Runs in separate processes, so that no engine inherits memory, threads or caches of the previous
//! one.

use crate::arguments::ChildArguments;
use crate::context::Context;
use crate::outcome::Outcome;
use crate::workloads::{self, Workload};
use anyhow::{Context as _, Result, bail};
use std::process::Stdio;

/// Starts a process for one run and reads the line it prints.
pub fn start(workload: &Workload, context: &Context) -> Result<Outcome> {
    let output = context
        .command("child")?
        .args(["--workload", workload.name])
        .stderr(Stdio::inherit())
        .output()
        .context("start a process for a run")?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().last() {
        Some(line) if output.status.success() => serde_json::from_str(line).with_context(|| format!("read \"{line}\"")),
        _ => bail!("the process of the run ended with {}", output.status),
    }
}

/// The main function of that process.
pub fn run(arguments: ChildArguments) -> Result<()> {
    let workload = workloads::find(&arguments.workload)?;
    let context = arguments.store.context()?;
    let outcome = match context.engine.reason_to_skip(workload.needs) {
        Some(reason) => Outcome::Skipped(reason.to_owned()),
        None => match (workload.run)(&context) {
            Ok(measures) => Outcome::Measured(measures),
            Err(error) => Outcome::Failed(format!("{error:#}")),
        },
    };
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}
