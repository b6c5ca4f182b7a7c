//! Each flag of the commands that work on a server is honoured or refused.

use std::collections::BTreeSet;
use std::path::Path;

use clap::{CommandFactory, Parser};

use super::Client;
use crate::cli::arguments::Arguments;
use crate::cli::session::Session;
use crate::common::failure::Failure;

/// What happens to a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The request is made; `tests/command/remote` shows that the flag has its effect.
    Honoured,
    /// No request is made, and the flag is named.
    Refused,
}
use Fate::{Honoured, Refused};

/// Flags, with a command line that has them. FILE has a line of an export, ID is an id, and STATE
/// is the directory of a project of `wrangler dev`.
#[rustfmt::skip]
const FLAGS: &[(&str, Fate, &str)] = &[
    ("--json",              Honoured, "namespace list --json"),
    ("--namespace",         Honoured, "namespace rename --namespace N --new-name M"),
    ("--namespace-id",      Honoured, "namespace rename --namespace-id ID --new-name M"),
    ("--new-name",          Honoured, "namespace rename N --new-name M"),
    ("--namespace",         Honoured, "namespace delete --namespace N"),
    ("--namespace-id",      Honoured, "namespace delete --namespace-id ID"),
    ("--skip-confirmation", Honoured, "namespace delete N --skip-confirmation"),
    ("--namespace",         Honoured, "key put --namespace N k v"),
    ("--namespace-id",      Honoured, "key put --namespace-id ID k v"),
    ("--path",              Honoured, "key put -n N k --path FILE"),
    ("--ttl",               Honoured, "key put -n N k v --ttl 60"),
    ("--expiration",        Honoured, "key put -n N k v --expiration 4000000000"),
    ("--metadata",          Honoured, "key put -n N k v --metadata {}"),
    ("--if-absent",         Honoured, "key put -n N k v --if-absent"),
    ("--if-sequence",       Refused,  "key put -n N k v --if-sequence 1"),
    ("--key-format",        Honoured, "key put -n N k v --key-format escaped"),
    ("--value-format",      Honoured, "key put -n N k v --value-format escaped"),
    ("--workers-kv-limits", Honoured, "key put -n N k v --workers-kv-limits"),
    ("--sync",              Refused,  "key put -n N k v --sync"),
    ("--os",                Refused,  "key put -n N k v --os"),
    ("--buffered",          Refused,  "key put -n N k v --buffered"),
    ("--namespace",         Honoured, "key get --namespace N k"),
    ("--namespace-id",      Honoured, "key get --namespace-id ID k"),
    ("--text",              Honoured, "key get -n N k --text"),
    ("--json",              Honoured, "key get -n N k --json"),
    ("--key-format",        Honoured, "key get -n N k --key-format escaped"),
    ("--value-format",      Honoured, "key get -n N k --value-format escaped"),
    ("--namespace",         Honoured, "key delete --namespace N k"),
    ("--namespace-id",      Honoured, "key delete --namespace-id ID k"),
    ("--if-sequence",       Refused,  "key delete -n N k --if-sequence 1"),
    ("--key-format",        Honoured, "key delete -n N k --key-format escaped"),
    ("--sync",              Refused,  "key delete -n N k --sync"),
    ("--os",                Refused,  "key delete -n N k --os"),
    ("--buffered",          Refused,  "key delete -n N k --buffered"),
    ("--namespace",         Honoured, "key list --namespace N"),
    ("--namespace-id",      Honoured, "key list --namespace-id ID"),
    ("--prefix",            Honoured, "key list -n N --prefix a"),
    ("--start",             Refused,  "key list -n N --start a"),
    ("--start-after",       Refused,  "key list -n N --start-after a"),
    ("--end",               Refused,  "key list -n N --end a"),
    ("--reverse",           Refused,  "key list -n N --reverse"),
    ("--limit",             Honoured, "key list -n N --limit 3"),
    ("--count",             Honoured, "key list -n N --count"),
    ("--json",              Honoured, "key list -n N --json"),
    ("--text",              Honoured, "key list -n N --text"),
    ("--values",            Honoured, "key list -n N --values"),
    ("--key-format",        Honoured, "key list -n N --key-format escaped"),
    ("--pattern",           Honoured, "key list -n N --pattern a*"),
    ("--cursor",            Honoured, "key list -n N --cursor c"),
    ("--namespace",         Honoured, "key exists --namespace N k"),
    ("--namespace-id",      Honoured, "key exists --namespace-id ID k"),
    ("--key-format",        Honoured, "key exists -n N 6b --key-format hex"),
    ("--namespace",         Honoured, "key ttl --namespace N k"),
    ("--namespace-id",      Honoured, "key ttl --namespace-id ID k"),
    ("--key-format",        Honoured, "key ttl -n N k --key-format escaped"),
    ("--namespace",         Honoured, "key expire --namespace N k --never"),
    ("--namespace-id",      Honoured, "key expire --namespace-id ID k --never"),
    ("--never",             Honoured, "key expire -n N k --never"),
    ("--ttl",               Honoured, "key expire -n N k --ttl 60"),
    ("--expiration",        Honoured, "key expire -n N k --expiration 4000000000"),
    ("--key-format",        Honoured, "key expire -n N k --never --key-format escaped"),
    ("--namespace",         Honoured, "key rename --namespace N a b"),
    ("--namespace-id",      Honoured, "key rename --namespace-id ID a b"),
    ("--force",             Honoured, "key rename -n N a b --force"),
    ("--key-format",        Honoured, "key rename -n N a b --key-format escaped"),
    ("--sync",              Refused,  "key rename -n N a b --sync"),
    ("--os",                Refused,  "key rename -n N a b --os"),
    ("--buffered",          Refused,  "key rename -n N a b --buffered"),
    ("--namespace",         Honoured, "key watch --namespace N"),
    ("--namespace-id",      Honoured, "key watch --namespace-id ID"),
    ("--prefix",            Honoured, "key watch -n N --prefix a"),
    ("--count",             Honoured, "key watch -n N --count 1"),
    ("--json",              Honoured, "key watch -n N --json"),
    ("--values",            Refused,  "key watch -n N --json --values"),
    ("--key-format",        Honoured, "key watch -n N --key-format escaped"),
    ("--namespace",         Honoured, "bulk put --namespace N FILE"),
    ("--namespace-id",      Honoured, "bulk put --namespace-id ID FILE"),
    ("--workers-kv-limits", Honoured, "bulk put -n N FILE --workers-kv-limits"),
    ("--sync",              Refused,  "bulk put -n N FILE --sync"),
    ("--os",                Refused,  "bulk put -n N FILE --os"),
    ("--buffered",          Refused,  "bulk put -n N FILE --buffered"),
    ("--namespace",         Honoured, "bulk get --namespace N FILE"),
    ("--namespace-id",      Honoured, "bulk get --namespace-id ID FILE"),
    ("--namespace",         Honoured, "bulk delete --namespace N FILE"),
    ("--namespace-id",      Honoured, "bulk delete --namespace-id ID FILE --force"),
    ("--force",             Honoured, "bulk delete -n N FILE --force"),
    ("--sync",              Refused,  "bulk delete -n N FILE --sync"),
    ("--os",                Refused,  "bulk delete -n N FILE --os"),
    ("--buffered",          Refused,  "bulk delete -n N FILE --buffered"),
    ("--namespace",         Honoured, "export --namespace N -"),
    ("--prefix",            Honoured, "export - --prefix a"),
    ("--format",            Honoured, "export - -n N --format bulk"),
    ("--resume",            Honoured, "export FILE.export --resume"),
    ("--namespace",         Honoured, "import FILE --namespace N"),
    ("--format",            Honoured, "import FILE -n N --format bulk"),
    ("--if-absent",         Honoured, "import FILE --if-absent"),
    ("--resume",            Honoured, "import FILE --resume"),
    ("--progress-file",     Honoured, "import FILE --progress-file FILE.note"),
    ("--workers-kv-limits", Honoured, "import FILE --workers-kv-limits"),
    #[cfg(feature = "miniflare")]
    ("--miniflare",         Honoured, "import STATE --miniflare"),
    #[cfg(feature = "miniflare")]
    ("--name",              Honoured, "import STATE --miniflare --name ID=X"),
    ("--sync",              Refused,  "import FILE --sync"),
    ("--os",                Refused,  "import FILE --os"),
    ("--buffered",          Refused,  "import FILE --buffered"),
];

const ID: &str = "4501846b534b2d4a5d8f47f790fd834a";

/// The long flags of a command and those below it, with its words.
fn flags(command: &clap::Command, words: &str, all: &mut BTreeSet<(String, String)>) {
    for below in command.get_subcommands() {
        let words = format!("{words} {}", below.get_name());
        flags(below, words.trim(), all);
    }
    let own = command.get_arguments().filter(|argument| !argument.is_global_set());
    for flag in own.filter_map(clap::Arg::get_long) {
        all.insert((words.to_owned(), format!("--{flag}")));
    }
}

/// Copies a directory: reading a database adds files to it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        match from.is_dir() {
            true => copy(&from, &to),
            false => drop(std::fs::copy(&from, &to).unwrap()),
        }
    }
}

#[test]
fn every_flag_is_honoured_or_refused_by_name() {
    let mut all = BTreeSet::new();
    let root = Arguments::command();
    for name in ["namespace", "key", "bulk", "export", "import"] {
        flags(root.find_subcommand(name).unwrap(), name, &mut all);
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file").display().to_string();
    let state = directory.path().join("state");
    copy(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/command/wrangler-dev"),
        &state,
    );
    let state = state.display().to_string();
    let away = format!("unix:{}", directory.path().join("socket").display());
    for (flag, fate, line) in FLAGS {
        let words = line
            .split(' ')
            .take_while(|word| word.bytes().all(|byte| byte.is_ascii_lowercase()));
        let words: Vec<&str> = words.take(2).collect();
        let command = if ["export", "import"].contains(&words[0]) {
            words[0].to_owned()
        } else {
            words.join(" ")
        };
        all.remove(&(command, (*flag).to_owned()));
        let content = if line.starts_with("bulk get") || line.starts_with("bulk delete") {
            "[\"k\"]"
        } else if line.contains("bulk") {
            "[{\"key\":\"k\",\"value\":\"v\"}]"
        } else {
            "{\"namespace\":\"N\",\"key\":\"k\",\"value\":\"v\"}\n"
        };
        std::fs::write(&file, content).unwrap();
        let words = line
            .split(' ')
            .map(|word| word.replace("FILE", &file).replace("ID", ID).replace("STATE", &state));
        let arguments = Arguments::parse_from(std::iter::once("embercask".to_owned()).chain(words));
        let session = Session::of_server(Client::impatient(&away));
        let client = session.server_for(&arguments.command).ok().flatten().unwrap();
        let Err(Failure::Told { message, hint, .. }) = super::run(&session, &client, arguments.command) else {
            panic!("{line}: nothing fails")
        };
        match fate {
            Refused => {
                let refused = format!("{flag} does not work with --url: ");
                assert!(
                    message.starts_with(&refused) && !hint.is_empty(),
                    "{line}: {message}; {hint}"
                );
            }
            Honoured => assert!(message.contains("cannot reach unix:"), "{line}: {message}"),
        }
    }
    assert!(all.is_empty(), "no row says what happens to these: {all:?}");
}

#[test]
fn commands_on_the_files_of_a_store_refuse_a_server() {
    let session = Session::of_server(Client::impatient("unix:socket"));
    for (line, takes) in [
        ("stats", false),
        ("verify", false),
        ("compact", false),
        ("key list -n N", true),
        ("shell", true),
    ] {
        let words = std::iter::once("embercask").chain(line.split(' '));
        let command = Arguments::parse_from(words).command;
        assert_eq!(super::takes(&command), takes, "{line}");
        // Not given as a flag, so the environment has it, for other commands.
        let client = session.server_for(&command).ok().unwrap();
        assert_eq!(client.is_some(), takes, "{line}");
    }
}
