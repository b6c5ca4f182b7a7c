//! The order of the runs: by round, then by workload, then by engine, so that other activity on the
//! machine affects all engines alike.

use crate::arguments::RunArguments;
use crate::context::Context;
use crate::durability::Durability;
use crate::engine::Description;
use crate::machine::{Machine, today};
use crate::outcome::Outcome;
use crate::results::{EngineNote, Results, Run};
use crate::workloads::{self, Workload};
use crate::{child, engines, versions};
use anyhow::{Context as _, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};

/// Runs the chosen workloads on the chosen engines.
pub fn run(arguments: &RunArguments) -> Result<()> {
    let engines = chosen_engines(&arguments.engines)?;
    let workloads = chosen_workloads(&arguments.workloads)?;
    std::fs::create_dir_all(&arguments.directory).context("make the directory of the stores")?;
    let mut results = Results {
        machine: Machine::of(&arguments.directory)?,
        date: today()?,
        command: command(),
        keys: arguments.keys,
        value_bytes: arguments.value_bytes,
        rounds: arguments.rounds,
        durability: arguments.durability,
        engines: engines
            .iter()
            .map(|engine| note(engine, arguments.durability))
            .collect(),
        runs: Vec::new(),
    };
    let steps = arguments.rounds as usize * workloads.len() * engines.len();
    let progress = ProgressBar::new(steps as u64);
    progress.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} {elapsed} of about {duration}  {msg}",
    )?);
    for round in 0..arguments.rounds {
        for workload in &workloads {
            for turn in 0..engines.len() {
                // Each round starts with a different engine, since the first one finds the device
                // idle.
                let engine = engines[(turn + round as usize) % engines.len()];
                progress.set_message(format!("round {}: {} on {}", round + 1, workload.name, engine.name));
                let outcome = run_once(arguments, workload, engine)?;
                if let Outcome::Failed(reason) = &outcome {
                    progress.suspend(|| eprintln!("{} on {} failed: {reason}", workload.name, engine.name));
                }
                let (engine, workload) = (engine.name.to_owned(), workload.name.to_owned());
                results.runs.push(Run {
                    engine,
                    workload,
                    round,
                    outcome,
                });
                progress.inc(1);
            }
            results.write(&arguments.results)?;
        }
    }
    progress.finish_and_clear();
    let failed = results
        .runs
        .iter()
        .filter(|run| matches!(run.outcome, Outcome::Failed(_)))
        .count();
    println!(
        "{} runs, {failed} failed; results in {}",
        results.runs.len(),
        arguments.results.display()
    );
    ensure!(failed == 0, "{failed} runs failed");
    Ok(())
}

fn run_once(arguments: &RunArguments, workload: &Workload, engine: &'static Description) -> Result<Outcome> {
    if let Some(reason) = engine.reason_to_skip(workload.needs) {
        return Ok(Outcome::Skipped(reason.to_owned()));
    }
    let directory = tempfile::Builder::new()
        .prefix("compare-")
        .tempdir_in(&arguments.directory)?;
    let context = Context {
        engine,
        directory: directory.path().to_owned(),
        keys: arguments.keys,
        value_bytes: arguments.value_bytes,
        durability: arguments.durability,
    };
    let outcome = child::start(workload, &context).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
    directory.close().context("remove the store of a run")?;
    Ok(outcome)
}

fn chosen_engines(names: &[String]) -> Result<Vec<&'static Description>> {
    if names.is_empty() {
        return Ok(engines::ALL.iter().collect());
    }
    names.iter().map(|name| engines::find(name)).collect()
}

fn chosen_workloads(names: &[String]) -> Result<Vec<&'static Workload>> {
    if names.is_empty() {
        return Ok(workloads::all());
    }
    names.iter().map(|name| workloads::find(name)).collect()
}

fn note(engine: &Description, durability: Durability) -> EngineNote {
    EngineNote {
        name: engine.name.into(),
        version: versions::of_engine(engine),
        settings: (engine.settings)(durability),
        settings_sync: (engine.settings)(Durability::Sync),
        is_yardstick: engine.is_yardstick,
    }
}

/// The command line that reproduces this run, without the path of this program.
fn command() -> String {
    let features = if cfg!(feature = "rocksdb") {
        " --features rocksdb"
    } else {
        ""
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    format!("cargo run --release{features} -- {}", arguments.join(" "))
}
