//! `embercask bulk`.

use std::path::PathBuf;

use clap::Subcommand;

use super::{Class, Target};

#[derive(Debug, Subcommand)]
pub(crate) enum Bulk {
    /// Put the pairs of a file: [{key, value, expiration?, expiration_ttl?, metadata?, base64?}]
    #[command(
        visible_alias = "set",
        after_help = "Example:\n  embercask bulk put -n SESSIONS pairs.json"
    )]
    Put {
        #[command(flatten)]
        target: Target,
        /// File to read; `-` is standard input
        file: PathBuf,
        /// Refuse what `serve` and Workers KV do not take, instead of warning
        #[arg(long)]
        workers_kv_limits: bool,
        #[command(flatten)]
        class: Class,
    },
    /// Print the values of the keys in a file, ["key", {"name": "key"}], as a JSON object
    #[command(after_help = "Example:\n  embercask bulk get -n SESSIONS keys.json")]
    Get {
        #[command(flatten)]
        target: Target,
        /// File to read; `-` is standard input
        file: PathBuf,
    },
    /// Delete the keys in a file: ["key", {"name": "key"}]
    #[command(visible_aliases = ["rm", "del"], after_help = "Example:\n  embercask bulk delete -n SESSIONS keys.json --force")]
    Delete {
        #[command(flatten)]
        target: Target,
        /// File to read; `-` is standard input
        file: PathBuf,
        /// Do not ask for confirmation
        #[arg(long, short)]
        force: bool,
        #[command(flatten)]
        class: Class,
    },
}
