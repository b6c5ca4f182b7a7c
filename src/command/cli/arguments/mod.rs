//! The arguments of the command line, and their help: here those of the program and what several
//! commands share, and a file for each group of commands.

mod bulk;
mod key;
mod maintain;
mod namespace;
mod remote;
pub(crate) mod replica;
mod transfer;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand};
use embercask::Durability;

pub(crate) use bulk::Bulk;
pub(crate) use key::{Delete, Exists, Expire, Get, Key, List, Put, Rename, Ttl, Watch};
pub(crate) use maintain::{Bench, Checkpoint, Inspect, Salvage, Stats, Verify};
pub(crate) use namespace::{Named, Namespace};
pub(crate) use remote::Remote;
pub(crate) use replica::Replica;
#[cfg(feature = "replica")]
pub(crate) use replica::{Init, Log, ResetLog};
pub(crate) use transfer::{Export, FileFormat, Import};

use crate::common::duration;
use crate::server::arguments::Serve;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// A key-value store in a directory: namespaces, keys, expiry, metadata.
#[derive(Debug, Parser)]
#[command(
    name = "embercask",
    version,
    styles = STYLES,
    max_term_width = 100,
    disable_help_flag = true,
    // The flags of every command come after those of one.
    next_display_order = 500,
    after_help = "\
Examples:
  embercask --store data namespace create SESSIONS
  embercask put -n SESSIONS user-123 logged-in --ttl 1h

On a server: --url URL, with --token-file FILE (or EMBERCASK_TOKEN), --ca-file FILE, --account ID.
Without `key`: get, put, set, delete, rm, del, list, ls, scan, exists, ttl, expire, rename, watch.
Exit status: 0 done, 1 absent or refused, 2 usage, 3 damage, 4 store in use, 5 system, 130 stopped."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(flatten)]
    pub(crate) help: Help,
    #[command(flatten)]
    pub(crate) wrangler: Wrangler,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The arguments of the program, as clap knows them.
pub(crate) fn command() -> clap::Command {
    with_short_help(Arguments::command())
}

/// Flags of `serve` that its `--help` shows: all would exceed a screen. `help serve` and the manual
/// page show all of them.
const SHOWN_OF_SERVE: &[&str] = &[
    "config",
    "create",
    "listen",
    "binding",
    "binding_for",
    "token",
    "token_file",
    "durability",
    "max_disk_mib",
    "minimum_ttl",
    "page",
    "tls_certificate",
    "tls_key",
    "max_connections",
    "body_memory_mib",
    "log",
];

/// Hides the other flags.
fn with_few_flags(serve: clap::Command) -> clap::Command {
    let after = serve.get_after_help().map(ToString::to_string).unwrap_or_default();
    let serve = serve.mut_args(|flag| {
        let is_shown = SHOWN_OF_SERVE.contains(&flag.get_id().as_str());
        flag.hide_short_help(!is_shown)
    });
    serve.after_help(format!("{after}\n`embercask help serve` explains all flags."))
}

/// Keeps the help short: hides flags that are seldom needed, and the commands of `key` that may be
/// given without it, each of which would be listed twice.
pub(crate) fn with_short_help(command: clap::Command) -> clap::Command {
    let keys = Key::augment_subcommands(clap::Command::new("key"));
    let command = command.mut_subcommand("serve", with_few_flags);
    keys.get_subcommands().fold(command, |command, key| {
        command.mut_subcommand(key.get_name(), |key| key.hide(true))
    })
}

/// `--help` prints the short help too: the long one, which explains each value, exceeds a screen.
#[derive(Debug, Args)]
pub(crate) struct Help {
    /// Print help
    #[arg(long, short, global = true, action = ArgAction::HelpShort)]
    help: Option<bool>,
}

/// Flags of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Directory of the store
    #[arg(long, global = true, env = "EMBERCASK_STORE", value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// Print only the requested output and errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Wait for a store that is in use, for example 30s
    #[arg(long, global = true, env = "EMBERCASK_WAIT", hide_env = true, value_name = "TIME", value_parser = duration::duration)]
    pub(crate) wait: Option<Duration>,
    /// Option of the store, for example read_mode=pread
    #[arg(
        long,
        global = true,
        env = "EMBERCASK_OPTIONS",
        hide_env = true,
        value_name = "NAME=VALUE",
        value_delimiter = ','
    )]
    pub(crate) option: Vec<String>,
}

/// Flags of `wrangler kv` that mean nothing here, so that its commands work unchanged.
#[derive(Debug, Args)]
pub(crate) struct Wrangler {
    /// Ignored with a note
    #[arg(long, global = true, hide = true, conflicts_with = "remote")]
    pub(crate) local: bool,
    /// Ignored with a note
    #[arg(long, global = true, hide = true)]
    pub(crate) remote: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create, list, rename and delete namespaces
    #[command(subcommand, visible_alias = "ns")]
    Namespace(Namespace),
    /// Put, get, delete, list, expire, rename and watch keys
    #[command(subcommand)]
    Key(Key),
    /// The same without `key` in front
    #[command(flatten)]
    Short(Key),
    /// Put, get and delete many keys from a JSON file
    #[command(subcommand)]
    Bulk(Bulk),
    /// Write namespaces to a file
    #[command(visible_alias = "dump")]
    Export(Export),
    /// Read an exported file
    #[command(visible_alias = "restore")]
    Import(Import),
    /// Show the keys, segments, disk space and memory of the store
    #[command(visible_alias = "info")]
    Stats(Stats),
    /// Reclaim the space of overwritten, deleted and expired records
    #[command(after_help = "Ctrl-C stops it safely; space that is already reclaimed stays so.")]
    Compact,
    /// Check every byte and list all damage
    #[command(visible_alias = "check")]
    Verify(Verify),
    /// Copy the undamaged data of a damaged store into a new store
    Salvage(Salvage),
    /// Make a consistent copy of the store
    #[command(visible_alias = "backup")]
    Checkpoint(Checkpoint),
    /// Show a segment, hint, manifest, index file or ring part by part
    Inspect(Inspect),
    /// Run commands at a prompt, on one open store
    #[command(
        after_help = "Takes the same commands, without `embercask` in front, and `use NAME` for the namespace of those that follow. Tab completes, `exit` or Ctrl-D leaves."
    )]
    Shell,
    /// Benchmark this machine with a scratch store of random keys
    Bench(Bench),
    /// Serve the store as Workers KV over HTTP, for workerd, wrangler and the SDKs
    Serve(Box<Serve>),
    /// Make, join and watch a cluster of replicas, each with its own `serve`
    #[command(subcommand)]
    Replica(Replica),
    /// Generate a token for `serve`
    #[command(after_help = "Clients send the token; the lines after it go into the file of `serve --config`.")]
    Token {
        /// Name of the token in logs
        #[arg(default_value = "token")]
        name: String,
    },
    /// Print a completion script
    #[command(after_help = "Example:\n  embercask completions bash > /etc/bash_completion.d/embercask")]
    Completions {
        /// Shell that will read the script
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write the pages of all commands
    #[command(after_help = "Example:\n  embercask man --directory /usr/local/share/man/man1")]
    Man {
        /// Write a page for each command into this directory
        #[arg(long, value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

/// The namespace to work on.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct Target {
    /// Name of the namespace
    #[arg(long, short, visible_alias = "binding", value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Id of the namespace (32 hexadecimal digits)
    #[arg(long, value_name = "ID")]
    pub(crate) namespace_id: Option<String>,
}

/// Durability of a write when the command reports success.
#[derive(Clone, Copy, Debug, Default, Args)]
#[group(multiple = false)]
pub(crate) struct Class {
    /// Sync to the device: survives a power cut (the default)
    #[arg(long)]
    sync: bool,
    /// Hand to the system: survives the end of this process
    #[arg(long)]
    os: bool,
    /// Keep in memory until the command ends
    #[arg(long)]
    buffered: bool,
}

impl Class {
    /// The flag that is given.
    pub(crate) fn flag(self) -> Option<&'static str> {
        let flags = [(self.sync, "--sync"), (self.os, "--os"), (self.buffered, "--buffered")];
        flags.into_iter().find_map(|(is_given, flag)| is_given.then_some(flag))
    }

    pub(crate) fn durability(self) -> Durability {
        if self.buffered {
            Durability::Buffered
        } else if self.os {
            Durability::Os
        } else {
            Durability::Sync
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn a_write_is_of_the_class_that_its_flag_names() {
        for (flags, durability) in [
            (&[][..], Durability::Sync),
            (&["--sync"], Durability::Sync),
            (&["--os"], Durability::Os),
            (&["--buffered"], Durability::Buffered),
        ] {
            let words = ["embercask", "key", "delete", "-n", "N", "k"].iter().chain(flags);
            let Command::Key(Key::Delete(delete)) = Arguments::parse_from(words).command else {
                panic!("this is `key delete`")
            };
            assert_eq!(delete.class.durability(), durability, "{flags:?}");
        }
        let both = ["embercask", "key", "delete", "-n", "N", "k", "--os", "--sync"];
        assert!(Arguments::try_parse_from(both).is_err());
    }
}
