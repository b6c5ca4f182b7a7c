//! `embercask key`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Class, Target};
use crate::common::duration;
use crate::common::parse::Format;

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Put a value, with optional expiry and metadata
    #[command(
        visible_alias = "set",
        after_help = "\
Examples:
  embercask key put -n SESSIONS user-123 logged-in --ttl 1h --metadata '{\"plan\":\"pro\"}'
  embercask key put -n PAGES /index.html --path index.html
  embercask key put -n LOCKS job-7 me --if-absent"
    )]
    Put(Put),
    /// Print the values of keys
    #[command(after_help = "\
Examples:
  embercask key get -n SESSIONS user-123 --text
  embercask key get -n PAGES logo.png > logo.png
  embercask key get -n SESSIONS user-123 user-456 --json

Of several keys, each value follows a line `==> KEY <==`, unless --text or --json is given. Those
that are absent are named on standard error, and the exit status is 1.")]
    Get(Get),
    /// Delete keys
    #[command(
        visible_aliases = ["rm", "del"],
        after_help = "Example:\n  embercask key delete -n SESSIONS user-123 user-456"
    )]
    Delete(Delete),
    /// List keys, as a JSON array of {name, expiration, metadata}
    #[command(visible_aliases = ["ls", "scan"], after_help = "\
Examples:
  embercask key list -n SESSIONS --prefix user-
  embercask key list -n SESSIONS --start user-2 --end user-5 --reverse --limit 10 --text
  embercask key list -n SESSIONS --pattern 'user-[0-9]*' --count

If --limit leaves keys out, a line `cursor: CURSOR` on standard error is what --cursor takes.")]
    List(List),
    /// Tell whether keys exist
    #[command(after_help = "\
Prints true or false for each key, unless --quiet is given. Exit status 1 if any is absent.

Example:
  embercask key exists -n SESSIONS user-123 --quiet && echo logged in")]
    Exists(Exists),
    /// Print the seconds until a key expires, or none
    #[command(after_help = "Example:\n  embercask key ttl -n SESSIONS user-123")]
    Ttl(Ttl),
    /// Change when a key expires; its value and metadata stay
    #[command(after_help = "\
Examples:
  embercask key expire -n SESSIONS user-123 --ttl 12h
  embercask key expire -n SESSIONS user-123 --never")]
    Expire(Expire),
    /// Rename a key, with its metadata and expiry
    #[command(
        visible_alias = "mv",
        after_help = "Example:\n  embercask key rename -n SESSIONS user-123 user-456"
    )]
    Rename(Rename),
    /// Follow the changes of a namespace, one line each
    #[command(after_help = "\
Examples:
  embercask key watch -n SESSIONS --prefix user- --json
  embercask key watch -n SESSIONS --count 1

Prints `put`, `delete` or `expired` and the key; `dropped` when the namespace is deleted; `missed`
if changes came too fast. Only changes in its own process are seen, so it needs the store for
itself; with --url it follows the changes on a server.")]
    Watch(Watch),
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
    /// Expire the key after this time: seconds, or 15m, 12h, 30d, 2w
    #[arg(long, value_name = "TIME", conflicts_with = "expiration", value_parser = duration::whole_seconds)]
    pub(crate) ttl: Option<u64>,
    /// Expire the key at this time, in seconds since the epoch
    #[arg(long, value_name = "SECONDS", value_parser = duration::expiration)]
    pub(crate) expiration: Option<u64>,
    /// JSON to store with the value
    #[arg(long, value_name = "JSON")]
    pub(crate) metadata: Option<String>,
    /// Put only if the key is absent
    #[arg(long, conflicts_with = "if_sequence")]
    pub(crate) if_absent: bool,
    /// Refuse what `serve` and Workers KV do not take, instead of warning
    #[arg(long)]
    pub(crate) workers_kv_limits: bool,
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
    /// The keys
    #[arg(required = true, value_name = "KEY", allow_negative_numbers = true)]
    pub(crate) keys: Vec<OsString>,
    /// Print a newline after each value
    #[arg(long, conflicts_with = "json")]
    pub(crate) text: bool,
    /// Print one JSON object per key, with value, expiry, metadata and sequence
    #[arg(long)]
    pub(crate) json: bool,
    /// Format of the key arguments
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
    /// The keys
    #[arg(required = true, value_name = "KEY", allow_negative_numbers = true)]
    pub(crate) keys: Vec<OsString>,
    /// Delete only if the newest write of the key has this sequence; takes a single key
    #[arg(long, value_name = "NUMBER")]
    pub(crate) if_sequence: Option<u64>,
    /// Format of the key arguments
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
    /// Only keys that match this: `*` any characters, `?` one, `[a-z]` one of these, `[!a-z]` not
    #[arg(long)]
    pub(crate) pattern: Option<OsString>,
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
    /// Continue after the page that printed this cursor, with the same flags
    #[arg(long)]
    pub(crate) cursor: Option<String>,
    /// Print only the number of keys
    #[arg(long, conflicts_with_all = ["json", "text", "values", "limit", "cursor"])]
    pub(crate) count: bool,
    /// Print one JSON object per line
    #[arg(long, conflicts_with = "text")]
    pub(crate) json: bool,
    /// Print one key per line, in the --key-format if that is not raw, else escaped
    #[arg(long)]
    pub(crate) text: bool,
    /// Include values
    #[arg(long, conflicts_with = "text")]
    pub(crate) values: bool,
    /// Format of the keys in flags, and of those that --text prints
    #[arg(long, value_name = "FORMAT")]
    pub(crate) key_format: Option<Format>,
}

#[derive(Debug, Args)]
pub(crate) struct Exists {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The keys
    #[arg(required = true, value_name = "KEY", allow_negative_numbers = true)]
    pub(crate) keys: Vec<OsString>,
    /// Format of the key arguments
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub(crate) key_format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Ttl {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The key
    #[arg(allow_negative_numbers = true)]
    pub(crate) key: OsString,
    /// Format of the key argument
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub(crate) key_format: Format,
}

#[derive(Debug, Args)]
#[group(id = "expiry", required = true, multiple = false, args = ["ttl", "expiration", "never"])]
pub(crate) struct Expire {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The key
    #[arg(allow_negative_numbers = true)]
    pub(crate) key: OsString,
    /// Expire it after this time: seconds, or 15m, 12h, 30d, 2w
    #[arg(long, value_name = "TIME", value_parser = duration::whole_seconds)]
    pub(crate) ttl: Option<u64>,
    /// Expire it at this time, in seconds since the epoch
    #[arg(long, value_name = "SECONDS", value_parser = duration::expiration)]
    pub(crate) expiration: Option<u64>,
    /// Never expire it
    #[arg(long)]
    pub(crate) never: bool,
    /// Format of the key argument
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub(crate) key_format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Rename {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The key to rename
    #[arg(allow_negative_numbers = true)]
    pub(crate) old: OsString,
    /// Its new name
    #[arg(allow_negative_numbers = true)]
    pub(crate) new: OsString,
    /// Replace the key NEW if it exists
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Format of the key arguments
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub(crate) key_format: Format,
    #[command(flatten)]
    pub(crate) class: Class,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Only keys with this prefix
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) prefix: OsString,
    /// End after this many changes
    #[arg(long, value_name = "NUMBER")]
    pub(crate) count: Option<u64>,
    /// Print one JSON object per line, with expiry and sequence
    #[arg(long)]
    pub(crate) json: bool,
    /// Include values
    #[arg(long, requires = "json")]
    pub(crate) values: bool,
    /// Format of the prefix
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub(crate) key_format: Format,
}
