//! The command line.

use crate::{context::Context, durability::Durability, engines, filler::Ending};
use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

#[derive(Parser)]
#[command(about = "Compares embercask with other embedded key-value engines.")]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Runs workloads on engines and writes the measurements to a file.
    Run(RunArguments),
    /// Writes tables and plots from a file of results.
    Report(ReportArguments),
    /// Writes tables and plots of how costs grow with the number of keys, from one file of results
    /// per number.
    Growth(GrowthArguments),
    /// Lists engines and workloads.
    List,
    /// A single run in this process; `run` starts it.
    #[command(hide = true)]
    Child(ChildArguments),
    /// Fills a store in this process; started by workloads that open a store left by another
    /// process.
    #[command(hide = true)]
    Filler(FillerArguments),
}

#[derive(Args)]
pub struct RunArguments {
    /// Keys of a store.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(100..=100_000_000))]
    pub keys: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 100, value_parser = value_bytes)]
    pub value_bytes: usize,
    /// Engines, all if not given.
    #[arg(long, value_delimiter = ',')]
    pub engines: Vec<String>,
    /// Workloads, all if not given.
    #[arg(long, value_delimiter = ',')]
    pub workloads: Vec<String>,
    /// Number of times that each engine runs each workload; medians are reported.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Directory in which stores are created, and removed after each run. Determines which file
    /// system is measured.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub directory: PathBuf,
    /// What a write survives once it has returned.
    #[arg(long, value_enum, default_value_t = Durability::Os)]
    pub durability: Durability,
    /// The file of results.
    #[arg(long, default_value = "compare-results.json")]
    pub results: PathBuf,
}

#[derive(Args)]
pub struct ReportArguments {
    /// The file that `run` wrote.
    #[arg(long, default_value = "compare-results.json")]
    pub results: PathBuf,
    /// The folder for `performance.md` and `performance/*.svg`.
    #[arg(long, default_value = "docs")]
    pub into: PathBuf,
}

#[derive(Args)]
pub struct GrowthArguments {
    /// Files that `run` wrote, with different numbers of keys and the same value size and
    /// durability class.
    #[arg(long, value_delimiter = ',', required = true)]
    pub results: Vec<PathBuf>,
    /// The folder for `performance-growth.md` and `performance/growth-*.svg`.
    #[arg(long, default_value = "docs")]
    pub into: PathBuf,
}

#[derive(Args)]
pub struct StoreArguments {
    #[arg(long)]
    pub engine: String,
    #[arg(long)]
    pub directory: PathBuf,
    #[arg(long)]
    pub keys: u64,
    #[arg(long)]
    pub value_bytes: usize,
    #[arg(long, value_enum)]
    pub durability: Durability,
}

impl StoreArguments {
    /// The run described by these arguments.
    pub fn context(self) -> Result<Context> {
        Ok(Context {
            engine: engines::find(&self.engine)?,
            directory: self.directory,
            keys: self.keys,
            value_bytes: self.value_bytes,
            durability: self.durability,
        })
    }
}

#[derive(Args)]
pub struct ChildArguments {
    #[arg(long)]
    pub workload: String,
    #[command(flatten)]
    pub store: StoreArguments,
}

#[derive(Args)]
pub struct FillerArguments {
    #[arg(long, value_enum)]
    pub ending: Ending,
    #[command(flatten)]
    pub store: StoreArguments,
}

/// LMDB and candystore have the lowest limits: values of up to 64,000 bytes with these keys.
fn value_bytes(text: &str) -> Result<usize, String> {
    let range = crate::data::VALUE_BYTES_MIN..=64_000;
    match text.parse() {
        Ok(bytes) if range.contains(&bytes) => Ok(bytes),
        _ => Err(format!("a value has {} to {} bytes here", range.start(), range.end())),
    }
}
