//! A process that fills a store and ends in one of two ways, so that the process that opens the
//! store starts cold.

use crate::context::Context;
use crate::data::Key;
use crate::durability::Durability;
use anyhow::{Context as _, Result, ensure};
use std::process::Stdio;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Ending {
    /// It closes the store.
    Close,
    /// It loads and syncs half of the keys, puts others one by one, and aborts.
    Abort,
}

/// Number of keys synced before an abort.
pub fn synced(keys: u64) -> u64 {
    keys / 2
}

/// Fills the store in a separate process and waits for its end.
pub fn fill_elsewhere(context: &Context, ending: Ending) -> Result<()> {
    let ending_name = match ending {
        Ending::Close => "close",
        Ending::Abort => "abort",
    };
    let status = context
        .command("filler")?
        .args(["--ending", ending_name])
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .status()
        .context("start a process that fills")?;
    ensure!(
        status.success() == (ending == Ending::Close),
        "the process that fills ended with {status}"
    );
    Ok(())
}

/// The main function of that process.
pub fn fill(context: &Context, ending: Ending) -> Result<()> {
    let engine = context.open()?;
    if ending == Ending::Close {
        context.load(&*engine, Key::random, 0..context.keys)?;
        return engine.close();
    }
    context.load(&*engine, Key::random, 0..synced(context.keys))?;
    engine.sync()?;
    let singles = match context.durability {
        Durability::Os => context.keys - synced(context.keys),
        Durability::Sync => context.writes().min(context.keys - synced(context.keys)),
    };
    for number in (synced(context.keys)..).take(singles as usize) {
        engine.put(&Key::random(number), &context.value(number, 0))?;
    }
    std::process::abort()
}
