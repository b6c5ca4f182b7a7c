//! `embercask replica`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, value_parser};

use crate::common::duration;
use crate::server::arguments::LogFlags;

#[derive(Debug, Subcommand)]
pub(crate) enum Replica {
    /// Make the store the first replica of a cluster, and the log that its replicas share
    Init(Box<Init>),
    /// Make a store of this directory from that of a running replica
    Join(Join),
    /// Show how a running replica is
    #[command(after_help = "Example:\n  embercask replica status --url http://10.0.0.1:8787")]
    Status {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Compare what running replicas hold, key by key
    Audit(Audit),
    /// Begin another log with the store of this replica, if the old one is lost
    ResetLog(Box<ResetLog>),
    /// Take the store out of its cluster: it keeps its keys, and gets no others
    Leave,
}

/// The log, as the settings of `serve` name it.
#[derive(Debug, Args)]
pub(crate) struct Log {
    /// Settings file of `serve`, with a table [replica]
    #[arg(long, value_name = "FILE", env = "EMBERCASK_CONFIG", hide_env = true)]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) flags: LogFlags,
    /// Servers that keep a copy of the log: 3 or 5, or fewer to try it out
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = value_parser!(u8).range(1..=5))]
    pub(crate) copies: u8,
    /// How long the log keeps entries: replicas that are away for longer must join again
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = duration::duration)]
    pub(crate) keep: Duration,
    /// Monitoring of the log's servers, HOST:PORT [default: port 8222 of each]
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub(crate) monitors: Vec<String>,
    /// Take servers that acknowledge entries before they are on disk
    #[arg(long)]
    pub(crate) any_syncing: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  embercask replica init --print-nats-config kv-1 --log-server kv-1=10.0.0.1,kv-2=10.0.0.2,kv-3=10.0.0.3
  embercask --store data replica init --replica-log kv --replica-servers nats://10.0.0.1:4222
  embercask replica init --config /etc/embercask.toml

All namespaces and keys of the store are then those of the cluster. Without a store, one is created.")]
pub(crate) struct Init {
    #[command(flatten)]
    pub(crate) log: Log,
    /// Print the configuration of this server of the log instead
    #[arg(long, value_name = "NAME", requires = "log_server")]
    pub(crate) print_nats_config: Option<String>,
    /// All servers of the log, for --print-nats-config
    #[arg(
        long,
        value_name = "NAME=HOST",
        value_delimiter = ',',
        requires = "print_nats_config"
    )]
    pub(crate) log_server: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  EMBERCASK_TOKEN=... embercask --store data replica join --from http://10.0.0.1:8787

The token needs `admin = true`; --token-file and --ca-file work as with --url. The directory must be
absent or empty. A copied checkpoint of a replica is one too, without this command.")]
pub(crate) struct Join {
    /// Address of a running replica
    #[arg(long, value_name = "URL")]
    pub(crate) from: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  embercask replica audit http://10.0.0.1:8787 http://10.0.0.2:8787 http://10.0.0.3:8787

Reads everything on each of them. Keys that expire within an hour are left out. Exit status 3 if they differ.")]
pub(crate) struct Audit {
    /// Addresses of running replicas
    #[arg(required = true, num_args = 2.., value_name = "URL")]
    pub(crate) urls: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Stop all replicas first, choose the one with the highest position, and run this on its machine. What the
old log held beyond that position is lost. Then start it, and let the others join again.")]
pub(crate) struct ResetLog {
    #[command(flatten)]
    pub(crate) log: Log,
    /// Delete the stream with all its entries first, if it is there
    #[arg(long)]
    pub(crate) delete: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}
