//! `embercask export` and `import`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Class;

/// Format of an exported file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileFormat {
    /// One JSON object per line: any bytes, all namespaces, expiry to the millisecond
    Lines,
    /// The JSON array of `bulk put`: keys that are text, one namespace, expiry to the second
    Bulk,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  embercask export data.jsonl.zst
  embercask export -n SESSIONS --format bulk sessions.json
  embercask export - | embercask --store copy import -

The file is called FILE.partial until it is complete. The suffix .gz or .zst selects compression.
It is of one moment, whatever other programs write meanwhile; not so with --url.")]
pub(crate) struct Export {
    /// File to write; `-` is standard output
    pub(crate) file: PathBuf,
    /// Export only these namespaces [default: all]
    #[arg(long, short, visible_alias = "binding", value_name = "NAME")]
    pub(crate) namespace: Vec<String>,
    /// Export only keys with this prefix
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) prefix: OsString,
    /// Format of the file
    #[arg(long, value_enum, default_value = "lines")]
    pub(crate) format: FileFormat,
    /// Resume an export that was stopped, from FILE.partial
    #[arg(long)]
    pub(crate) resume: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  embercask --store copy import data.jsonl.zst
  embercask import -n SESSIONS --format bulk sessions.json
  embercask import --miniflare path/of/project

Progress is saved in FILE.progress until the import is complete; --resume continues from there.")]
pub(crate) struct Import {
    /// File to read; `-` is standard input; a directory with --miniflare
    pub(crate) file: PathBuf,
    /// Import all keys into this namespace, ignoring those in the file
    #[arg(long, short, visible_alias = "binding", value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Format of the file
    #[arg(long, value_enum, default_value = "lines")]
    pub(crate) format: FileFormat,
    /// Import the local state of `wrangler dev` from the directory of its project
    #[cfg(feature = "miniflare")]
    #[arg(long, conflicts_with_all = ["format", "resume", "progress_file"])]
    pub(crate) miniflare: bool,
    /// With --miniflare, the name for the namespace with this id [default: its binding]
    #[cfg(feature = "miniflare")]
    #[arg(long, value_name = "ID=NAME", requires = "miniflare", conflicts_with = "namespace")]
    pub(crate) name: Vec<String>,
    /// Skip keys that are already there
    #[arg(long)]
    pub(crate) if_absent: bool,
    /// Refuse what `serve` and Workers KV do not take, instead of warning
    #[arg(long)]
    pub(crate) workers_kv_limits: bool,
    /// Resume an import of this file that was stopped
    #[arg(long)]
    pub(crate) resume: bool,
    /// File to save progress in; required to --resume from standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) progress_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) class: Class,
}
