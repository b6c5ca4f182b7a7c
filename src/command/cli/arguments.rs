//! (Over 400 lines: all commands and flags, with their help.)
//!
//! The arguments of the command line, and their help.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, value_parser};
use embercask::Durability;

use crate::common::parse::Format;
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
    after_help = "\
Examples:
  export EMBERCASK_STORE=./data
  embercask namespace create SESSIONS
  embercask key put -n SESSIONS user-123 logged-in --ttl 3600
  embercask key list -n SESSIONS --prefix user-

Exit status: 0 success; 1 absent, already there, condition not met, or declined; 2 wrong arguments
or input; 3 damaged data; 4 store in use; 5 system error; 130 stopped by Ctrl-C or SIGTERM."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(flatten)]
    pub(crate) help: Help,
    #[command(subcommand)]
    pub(crate) command: Command,
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
    /// Print only the requested output and errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create, list, rename and delete namespaces
    #[command(subcommand, visible_alias = "ns")]
    Namespace(Namespace),
    /// Put, get, delete and list single keys
    #[command(subcommand)]
    Key(Key),
    /// Put, get and delete many keys from a JSON file
    #[command(subcommand)]
    Bulk(Bulk),
    /// Write namespaces to a file
    Export(Export),
    /// Read an exported file
    Import(Import),
    /// Show the keys, segments, disk space and memory of the store
    Stats(Stats),
    /// Reclaim the space of overwritten, deleted and expired records
    #[command(after_help = "Ctrl-C stops it safely; space that is already reclaimed stays so.")]
    Compact,
    /// Check every byte and list all damage
    Verify(Verify),
    /// Copy the undamaged data of a damaged store into a new store
    Salvage(Salvage),
    /// Make a consistent copy of the store
    Checkpoint(Checkpoint),
    /// Show a segment, hint, manifest, index file or ring part by part
    Inspect(Inspect),
    /// Run commands at a prompt, on one open store
    #[command(
        after_help = "Takes the same commands, without `embercask` in front. Tab completes, `exit` or Ctrl-D leaves."
    )]
    Shell,
    /// Benchmark this machine with a scratch store of random keys
    Bench(Bench),
    /// Serve the store as Workers KV over HTTP, for workerd, wrangler and the SDKs
    Serve(Serve),
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
#[group(required = true, multiple = false)]
pub(crate) struct Target {
    /// Name of the namespace
    #[arg(long, short, visible_alias = "binding", value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Id of the namespace (32 hexadecimal digits)
    #[arg(long, value_name = "ID")]
    pub(crate) namespace_id: Option<String>,
}

/// As [`Target`], for commands on namespaces.
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

#[derive(Debug, Subcommand)]
pub(crate) enum Namespace {
    /// Create a namespace, and the store if there is none
    #[command(after_help = "Example:\n  embercask --store data namespace create SESSIONS")]
    Create {
        /// Name of the namespace
        name: String,
    },
    /// List all namespaces, as a JSON array of {id, title}
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

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Put a value, with optional expiry and metadata
    #[command(after_help = "\
Examples:
  embercask key put -n SESSIONS user-123 logged-in --ttl 3600 --metadata '{\"plan\":\"pro\"}'
  embercask key put -n PAGES /index.html --path index.html
  embercask key put -n LOCKS job-7 me --if-absent")]
    Put(Put),
    /// Print a value
    #[command(after_help = "\
Examples:
  embercask key get -n SESSIONS user-123 --text
  embercask key get -n PAGES logo.png > logo.png
  embercask key get -n SESSIONS user-123 --json")]
    Get(Get),
    /// Delete a key
    #[command(after_help = "Example:\n  embercask key delete -n SESSIONS user-123")]
    Delete(Delete),
    /// List keys, as a JSON array of {name, expiration, metadata}
    #[command(after_help = "\
Examples:
  embercask key list -n SESSIONS --prefix user-
  embercask key list -n SESSIONS --start user-2 --end user-5 --reverse --limit 10 --text
  embercask key list -n SESSIONS --prefix user- --count")]
    List(List),
}

#[derive(Debug, Args)]
pub(crate) struct Put {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The key
    #[arg(allow_negative_numbers = true)]
    pub(crate) key: OsString,
    /// The value, unless --path is given
    #[arg(
        required_unless_present = "path",
        conflicts_with = "path",
        allow_negative_numbers = true
    )]
    pub(crate) value: Option<OsString>,
    /// Read the value from this file; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) path: Option<PathBuf>,
    /// Expire the key after this many seconds
    #[arg(long, value_name = "SECONDS", conflicts_with = "expiration")]
    pub(crate) ttl: Option<u64>,
    /// Expire the key at this time, in seconds since the epoch
    #[arg(long, value_name = "SECONDS")]
    pub(crate) expiration: Option<u64>,
    /// JSON object to store with the value
    #[arg(long, value_name = "JSON")]
    pub(crate) metadata: Option<String>,
    /// Put only if the key is absent
    #[arg(long, conflicts_with = "if_sequence")]
    pub(crate) if_absent: bool,
    /// Put only if the newest write of the key has this sequence (`key get --json` prints it)
    #[arg(long, value_name = "NUMBER")]
    pub(crate) if_sequence: Option<u64>,
    /// Format of the key argument
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub(crate) key_format: Format,
    /// Format of the value argument
    #[arg(long, value_name = "FORMAT", default_value = "raw", conflicts_with = "path")]
    pub(crate) value_format: Format,
    #[command(flatten)]
    pub(crate) class: Class,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The key
    #[arg(allow_negative_numbers = true)]
    pub(crate) key: OsString,
    /// Print a newline after the value
    #[arg(long, conflicts_with = "json")]
    pub(crate) text: bool,
    /// Print one JSON object with value, expiry, metadata and sequence
    #[arg(long)]
    pub(crate) json: bool,
    /// Format of the key argument
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub(crate) key_format: Format,
    /// Format of the printed value [default: raw; escaped on a terminal if not text]
    #[arg(long, value_name = "FORMAT", conflicts_with = "json")]
    pub(crate) value_format: Option<Format>,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The key
    #[arg(allow_negative_numbers = true)]
    pub(crate) key: OsString,
    /// Delete only if the newest write of the key has this sequence
    #[arg(long, value_name = "NUMBER")]
    pub(crate) if_sequence: Option<u64>,
    /// Format of the key argument
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub(crate) key_format: Format,
    #[command(flatten)]
    pub(crate) class: Class,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Only keys with this prefix
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) prefix: OsString,
    /// Only this key and those after it
    #[arg(long, value_name = "KEY", conflicts_with = "start_after")]
    pub(crate) start: Option<OsString>,
    /// Only keys after this one
    #[arg(long, value_name = "KEY")]
    pub(crate) start_after: Option<OsString>,
    /// Only keys before this one
    #[arg(long, value_name = "KEY")]
    pub(crate) end: Option<OsString>,
    /// List in descending order
    #[arg(long)]
    pub(crate) reverse: bool,
    /// List at most this many keys
    #[arg(long, value_name = "NUMBER")]
    pub(crate) limit: Option<u64>,
    /// Print only the number of keys
    #[arg(long, conflicts_with_all = ["json", "text", "values", "limit"])]
    pub(crate) count: bool,
    /// Print one JSON object per line
    #[arg(long, conflicts_with = "text")]
    pub(crate) json: bool,
    /// Print one key per line, escaped
    #[arg(long)]
    pub(crate) text: bool,
    /// Include values
    #[arg(long, conflicts_with = "text")]
    pub(crate) values: bool,
    /// Format of the keys in flags
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub(crate) key_format: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bulk {
    /// Put the pairs of a file: [{key, value, expiration?, expiration_ttl?, metadata?, base64?}]
    #[command(after_help = "Example:\n  embercask bulk put -n SESSIONS pairs.json")]
    Put {
        #[command(flatten)]
        target: Target,
        /// File to read; `-` is standard input
        file: PathBuf,
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
    #[command(after_help = "Example:\n  embercask bulk delete -n SESSIONS keys.json --force")]
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
Keys that are put or deleted during the export may or may not be in it.")]
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

Progress is saved in FILE.progress until the import is complete; --resume continues from there.")]
pub(crate) struct Import {
    /// File to read; `-` is standard input
    pub(crate) file: PathBuf,
    /// Import all keys into this namespace, ignoring those in the file
    #[arg(long, short, visible_alias = "binding", value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Format of the file
    #[arg(long, value_enum, default_value = "lines")]
    pub(crate) format: FileFormat,
    /// Skip keys that are already there
    #[arg(long)]
    pub(crate) if_absent: bool,
    /// Resume an import of this file that was stopped
    #[arg(long)]
    pub(crate) resume: bool,
    /// File to save progress in; required to --resume from standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) progress_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) class: Class,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  embercask stats\n  embercask stats --json | jq .keys")]
pub(crate) struct Stats {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Repeat at this interval, until Ctrl-C
    #[arg(long, value_name = "SECONDS")]
    pub(crate) every: Option<f64>,
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
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// Print one JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) class: Class,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        super::Arguments::command().debug_assert();
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
