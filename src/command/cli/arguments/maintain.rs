//! Commands on whole stores: statistics, maintenance, `bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, value_parser};

use super::Class;
use crate::common::duration;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  embercask stats\n  embercask stats --json | jq .keys")]
pub(crate) struct Stats {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Repeat at this interval, until Ctrl-C
    #[arg(long, value_name = "TIME", value_parser = duration::duration)]
    pub(crate) every: Option<Duration>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Does not open the store, takes no lock and changes nothing, so it works beside a program that has
the store open. Of a store that no program has open, data that recovery would discard or rebuild is
listed, but is not damage. Exit status 3 if anything is damaged.")]
pub(crate) struct Verify {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  embercask --store damaged salvage saved

The damaged store is not changed. Lost data is listed; exit status 3 if there is any.")]
pub(crate) struct Salvage {
    /// Directory of the new store; must be missing or empty
    pub(crate) to: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  embercask checkpoint backups/today

On the same file system the copy is made of hard links and takes almost no space at first.")]
pub(crate) struct Checkpoint {
    /// Directory of the copy; must be missing or empty
    pub(crate) to: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  embercask inspect data/0000000000000001.segment
  embercask inspect data/MANIFEST --json

Exit status 3 if anything is damaged. docs/format.md explains the fields.")]
pub(crate) struct Inspect {
    /// File to show
    pub(crate) file: PathBuf,
    /// Print one JSON object per line, with whole values
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  embercask bench
  embercask bench --directory /mnt/disk --keys 1000000 --value-bytes 1024 --os")]
pub(crate) struct Bench {
    /// Where to create the scratch store [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    /// Keys in the store, at most 1,000,000,000
    #[arg(long, default_value_t = 200_000, value_parser = value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) keys: u64,
    /// Bytes per value, at most 16 MiB
    #[arg(long, default_value_t = 100, value_parser = value_parser!(u64).range(..=16 << 20))]
    pub(crate) value_bytes: u64,
    /// Threads that read and write, at most 256
    #[arg(long, default_value_t = 2, value_parser = value_parser!(u64).range(1..=256))]
    pub(crate) threads: u64,
    /// Duration of each load, at most a day
    #[arg(long, value_name = "TIME", default_value = "3", value_parser = duration::duration)]
    pub(crate) seconds: Duration,
    /// Print one JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) class: Class,
}
