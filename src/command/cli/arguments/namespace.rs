//! `embercask namespace`.

use clap::{Args, Subcommand};

/// As [`Target`](super::Target), for commands on namespaces.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Named {
    /// Name of the namespace
    pub(crate) name: Option<String>,
    /// The same as <NAME>
    #[arg(long, short, visible_alias = "binding", value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Id of the namespace (32 hexadecimal digits)
    #[arg(long, value_name = "ID")]
    pub(crate) namespace_id: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Namespace {
    /// Create a namespace, and the store if there is none
    #[command(after_help = "Example:\n  embercask --store data namespace create SESSIONS")]
    Create {
        /// Name of the namespace
        name: String,
    },
    /// List all namespaces, as a JSON array of {id, title}
    #[command(visible_alias = "ls")]
    List {
        /// Print one JSON object per line, with the number of keys
        #[arg(long)]
        json: bool,
    },
    /// Rename a namespace; its id stays the same
    #[command(
        override_usage = "embercask namespace rename [OPTIONS] --new-name <NAME> <NAME>",
        after_help = "Example:\n  embercask namespace rename SESSIONS --new-name LOGINS"
    )]
    Rename {
        #[command(flatten)]
        named: Named,
        /// New name of the namespace
        #[arg(long, value_name = "NAME")]
        new_name: String,
    },
    /// Delete a namespace and all its keys
    #[command(
        visible_aliases = ["rm", "del"],
        override_usage = "embercask namespace delete [OPTIONS] <NAME>",
        after_help = "Example:\n  embercask namespace delete SESSIONS -y"
    )]
    Delete {
        #[command(flatten)]
        named: Named,
        /// Do not ask for confirmation
        #[arg(long, short = 'y')]
        skip_confirmation: bool,
    },
}
