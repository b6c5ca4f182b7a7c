//! (Over 400 lines: all commands and flags, with their help.)
//!
//! What can be said on the command line, and its help.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, value_parser};
use embercask::Durability;

use crate::common::text::Format;
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

Exit status: 0 done; 1 the answer is no (absent, or there already); 2 wrong arguments or input;
3 damaged data; 4 the store is in use; 5 the system failed; 130 stopped by Ctrl-C or SIGTERM."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(flatten)]
    pub(crate) help: Help,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Help that fits a screen, also where a flag's values have explanations of their own.
#[derive(Debug, Args)]
pub(crate) struct Help {
    /// Print help
    #[arg(long, short, global = true, action = ArgAction::HelpShort)]
    help: Option<bool>,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Directory of the store
    #[arg(long, global = true, env = "EMBERCASK_STORE", value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Say nothing but what was asked for, and errors
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
    /// Show what the store is made of
    Stats(Stats),
    /// Give back the space of overwritten, deleted and expired records
    #[command(after_help = "Ctrl-C stops it; what was compacted before stays so, and the store is sound.")]
    Compact,
    /// Check every byte, and list all damage
    Verify(Verify),
    /// Copy what is sound out of a damaged store
    Salvage(Salvage),
    /// Make a consistent copy
    Checkpoint(Checkpoint),
    /// Show a segment, hint, manifest or index file part by part
    Inspect(Inspect),
    /// Type commands at a prompt, on one open store
    #[command(after_help = "The same commands, without `embercask` before them. Tab completes, `exit` or Ctrl-D ends.")]
    Shell,
    /// Measure this machine with a store of random keys
    Bench(Bench),
    /// Serve Workers KV over HTTP: to workerd, wrangler and the SDKs
    Serve(Serve),
    /// Make a token for `serve`
    #[command(after_help = "The token is for clients; the lines behind it are for the file of `serve --config`.")]
    Token {
        /// What logs shall call its holder
        #[arg(default_value = "token")]
        name: String,
    },
    /// Print a completion script
    #[command(after_help = "Example:\n  embercask completions bash > /etc/bash_completion.d/embercask")]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write those of all commands
    #[command(after_help = "Example:\n  embercask man --directory /usr/local/share/man/man1")]
    Man {
        /// Write a page for each command into this directory
        #[arg(long, value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

/// Which namespace is meant.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Target {
    /// Namespace, by name
    #[arg(long, short, visible_alias = "binding", value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Namespace, by its id of 32 hexadecimal digits
    #[arg(long, value_name = "ID")]
    pub(crate) namespace_id: Option<String>,
}

/// As [`Target`], for commands on namespaces.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Named {
    /// Its name
    pub(crate) name: Option<String>,
    /// The same
    #[arg(long, short, visible_alias = "binding", value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Its id of 32 hexadecimal digits
    #[arg(long, value_name = "ID")]
    pub(crate) namespace_id: Option<String>,
}

/// What a write has survived when the command says that it is done.
#[derive(Clone, Copy, Debug, Default, Args)]
#[group(multiple = false)]
pub(crate) struct Class {
    /// Written to the device: survives a power cut (the default)
    #[arg(long)]
    sync: bool,
    /// Given to the system: survives the end of this process
    #[arg(long)]
    os: bool,
    /// In memory until the command ends
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
        /// Its name
        name: String,
    },
    /// List all namespaces, as a JSON array of {id, title}
    List {
        /// One JSON object a line, with the number of keys
        #[arg(long)]
        json: bool,
    },
    /// Give a namespace another name; its id stays
    #[command(
        override_usage = "embercask namespace rename [OPTIONS] --new-name <NAME> <NAME>",
        after_help = "Example:\n  embercask namespace rename SESSIONS --new-name LOGINS"
    )]
    Rename {
        #[command(flatten)]
        named: Named,
        /// The new name
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
        /// Do not ask
        #[arg(long, short = 'y')]
        skip_confirmation: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Put a value, with its expiry and metadata
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
    /// The value; or give --path
    #[arg(
        required_unless_present = "path",
        conflicts_with = "path",
        allow_negative_numbers = true
    )]
    pub(crate) value: Option<OsString>,
    /// Take the value from this file; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) path: Option<PathBuf>,
    /// Let the key expire after so many seconds
    #[arg(long, value_name = "SECONDS", conflicts_with = "expiration")]
    pub(crate) ttl: Option<u64>,
    /// Let the key expire at this time, in seconds since the epoch
    #[arg(long, value_name = "SECONDS")]
    pub(crate) expiration: Option<u64>,
    /// A JSON object to keep beside the value
    #[arg(long, value_name = "JSON")]
    pub(crate) metadata: Option<String>,
    /// Put only if the key is absent
    #[arg(long, conflicts_with = "if_sequence")]
    pub(crate) if_absent: bool,
    /// Put only if the newest write of the key has this sequence (`key get --json` tells it)
    #[arg(long, value_name = "NUMBER")]
    pub(crate) if_sequence: Option<u64>,
    /// How the key is written here
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub(crate) key_format: Format,
    /// How the value is written here
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
    /// End it with a new line
    #[arg(long, conflicts_with = "json")]
    pub(crate) text: bool,
    /// One JSON object with value, expiry, metadata and sequence
    #[arg(long)]
    pub(crate) json: bool,
    /// How the key is written here
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub(crate) key_format: Format,
    /// How to write the value [default: raw; escaped on a terminal if it is no text]
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
    /// How the key is written here
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub(crate) key_format: Format,
    #[command(flatten)]
    pub(crate) class: Class,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Only keys that begin with this
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) prefix: OsString,
    /// Only keys from this one on
    #[arg(long, value_name = "KEY", conflicts_with = "start_after")]
    pub(crate) start: Option<OsString>,
    /// Only keys behind this one
    #[arg(long, value_name = "KEY")]
    pub(crate) start_after: Option<OsString>,
    /// Only keys before this one
    #[arg(long, value_name = "KEY")]
    pub(crate) end: Option<OsString>,
    /// The last key first
    #[arg(long)]
    pub(crate) reverse: bool,
    /// No more than so many keys
    #[arg(long, value_name = "NUMBER")]
    pub(crate) limit: Option<u64>,
    /// Only say how many there are
    #[arg(long, conflicts_with_all = ["json", "text", "values", "limit"])]
    pub(crate) count: bool,
    /// One JSON object a line
    #[arg(long, conflicts_with = "text")]
    pub(crate) json: bool,
    /// One key a line, escaped
    #[arg(long)]
    pub(crate) text: bool,
    /// With values
    #[arg(long, conflicts_with = "text")]
    pub(crate) values: bool,
    /// How keys are written here
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub(crate) key_format: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bulk {
    /// Put all pairs of a file: [{key, value, expiration?, expiration_ttl?, metadata?, base64?}]
    #[command(after_help = "Example:\n  embercask bulk put -n SESSIONS pairs.json")]
    Put {
        #[command(flatten)]
        target: Target,
        /// The file; `-` is standard input
        file: PathBuf,
        #[command(flatten)]
        class: Class,
    },
    /// Print the values of all keys of a file, as a JSON object: ["key", {"name": "key"}]
    #[command(after_help = "Example:\n  embercask bulk get -n SESSIONS keys.json")]
    Get {
        #[command(flatten)]
        target: Target,
        /// The file; `-` is standard input
        file: PathBuf,
    },
    /// Delete all keys of a file: ["key", {"name": "key"}]
    #[command(after_help = "Example:\n  embercask bulk delete -n SESSIONS keys.json --force")]
    Delete {
        #[command(flatten)]
        target: Target,
        /// The file; `-` is standard input
        file: PathBuf,
        /// Do not ask
        #[arg(long, short)]
        force: bool,
        #[command(flatten)]
        class: Class,
    },
}

/// How exported keys are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileFormat {
    /// One JSON object a line: any bytes, all namespaces, expiry to the millisecond
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

A file is written as FILE.partial until it is complete. Its last suffix says how it is compressed: .gz or .zst.
Keys that others put or delete meanwhile may or may not be in it.")]
pub(crate) struct Export {
    /// The file; `-` is standard output
    pub(crate) file: PathBuf,
    /// Only these namespaces; all if none is named
    #[arg(long, short, visible_alias = "binding", value_name = "NAME")]
    pub(crate) namespace: Vec<String>,
    /// Only keys that begin with this
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) prefix: OsString,
    /// How to write keys
    #[arg(long, value_enum, default_value = "lines")]
    pub(crate) format: FileFormat,
    /// Go on with FILE.partial where an earlier export was stopped
    #[arg(long)]
    pub(crate) resume: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  embercask --store copy import data.jsonl.zst
  embercask import -n SESSIONS --format bulk sessions.json

How far it has come is kept in FILE.progress until it is complete; --resume goes on from there.")]
pub(crate) struct Import {
    /// The file; `-` is standard input
    pub(crate) file: PathBuf,
    /// Put all keys into this namespace, whatever the file says
    #[arg(long, short, visible_alias = "binding", value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// How keys are written
    #[arg(long, value_enum, default_value = "lines")]
    pub(crate) format: FileFormat,
    /// Leave keys alone that are there already
    #[arg(long)]
    pub(crate) if_absent: bool,
    /// Go on where an earlier import of this file was stopped
    #[arg(long)]
    pub(crate) resume: bool,
    /// Where to keep how far it has come; needed for --resume of standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) progress_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) class: Class,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  embercask stats\n  embercask stats --json | jq .keys")]
pub(crate) struct Stats {
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Again after so many seconds, until Ctrl-C
    #[arg(long, value_name = "SECONDS")]
    pub(crate) every: Option<f64>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The store is not opened: what recovery would discard, or make anew, is listed apart and is no damage.
Exit status 3 if anything is damaged.")]
pub(crate) struct Verify {
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  embercask --store damaged salvage saved

The damaged store is not changed. Exit status 3 if anything was lost; all that was is listed.")]
pub(crate) struct Salvage {
    /// Directory of the new store: missing or empty
    pub(crate) to: PathBuf,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  embercask checkpoint backups/today

On the same file system the copy shares files with the store, and takes next to no space at first.")]
pub(crate) struct Checkpoint {
    /// Directory of the copy: missing or empty
    pub(crate) to: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  embercask inspect data/0000000000000001.segment
  embercask inspect data/MANIFEST --json

Exit status 3 if anything is damaged. docs/format.md explains the fields.")]
pub(crate) struct Inspect {
    /// The file
    pub(crate) file: PathBuf,
    /// One JSON object a line, values whole
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  embercask bench
  embercask bench --directory /mnt/disk --keys 1000000 --value-bytes 1024 --os")]
pub(crate) struct Bench {
    /// Where to make the scratch store; the system's directory for temporary files if not given
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    /// Keys in the store, at most 1,000,000,000
    #[arg(long, default_value_t = 200_000, value_parser = value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) keys: u64,
    /// Bytes of a value, at most 16 MiB
    #[arg(long, default_value_t = 100, value_parser = value_parser!(u64).range(..=16 << 20))]
    pub(crate) value_bytes: u64,
    /// Threads that read and write, at most 256
    #[arg(long, default_value_t = 2, value_parser = value_parser!(u64).range(1..=256))]
    pub(crate) threads: u64,
    /// How long each load runs, at most a day
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// One JSON object a line
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
