//! The same commands on a server: `--url` instead of `--store`. Speaks the documented REST API of
//! Workers KV only, so it works with Workers KV too.
//!
//! `address`, `tls` and `connection` are one request and its answer, `client` is retries and
//! authorization, `api` the calls, and the others are the groups of commands. Each command takes
//! its arguments apart by name, so that a flag is either honoured or refused.

mod address;
mod api;
mod bulk;
mod client;
mod connection;
mod error;
mod export;
mod key;
mod lifetime;
mod list;
mod namespace;
mod rename;
pub(crate) mod replica;
mod single;
mod tls;
mod values;
mod watch;
pub(super) mod writes;

use std::rc::Rc;

use crate::cli::arguments::{Class, Command, Replica, Target};
use crate::cli::session::Session;
use crate::cli::{shell, transfer};
use crate::common::failure::{Failure, Outcome};
use crate::common::parse::parse_id;
pub(crate) use client::Client;
use error::Error;

/// Whether a command works on a server. Others ignore EMBERCASK_URL, and refuse --url.
pub(crate) fn takes(command: &Command) -> bool {
    matches!(
        command,
        Command::Namespace(_)
            | Command::Key(_)
            | Command::Short(_)
            | Command::Bulk(_)
            | Command::Export(_)
            | Command::Import(_)
            | Command::Shell
            | Command::Replica(Replica::Status { .. })
    )
}

/// Runs a command on the server.
pub(crate) fn run(session: &Session, client: &Rc<Client>, command: Command) -> Outcome {
    match command {
        Command::Namespace(command) => namespace::run(session, client, command),
        Command::Key(command) | Command::Short(command) => key::run(session, client, command),
        Command::Bulk(command) => bulk::run(session, client, command),
        Command::Export(arguments) => export::run(session, client, &arguments),
        Command::Import(arguments) => {
            refuse_class(arguments.class)?;
            transfer::import(session, &arguments)
        }
        Command::Shell if session.is_shell() => Err(Failure::usage("the shell is already running", "")),
        Command::Shell => shell::run(session),
        Command::Replica(Replica::Status { json }) => replica::status(client, json),
        _ => Err(refused_command()),
    }
}

/// The hint for a command that needs the files of a store.
pub(crate) const NEEDS_STORE: &str =
    "this command needs the directory of a store: give it with --store, on the machine of the server";

/// The failure of a command that needs the files of a store.
pub(crate) fn refused_command() -> Failure {
    Failure::usage(
        "--url works with key, bulk, namespace, export, import, shell and `replica status`",
        NEEDS_STORE,
    )
}

/// What to do instead of what only a store can do.
const USE_STORE: &str = "use --store on the machine of the server";

/// Refuses a flag that cannot work on a server, if it is given.
fn refuse(flag: &str, is_given: bool, [why, instead]: [&str; 2]) -> Outcome {
    if is_given {
        return Err(Failure::usage(
            format!("{flag} does not work with --url: {why}"),
            instead,
        ));
    }
    Ok(())
}

fn refuse_class(class: Class) -> Outcome {
    let flag = class.flag();
    let why = [
        "the durability of writes is a setting of the server",
        "choose it with `embercask serve --durability`",
    ];
    refuse(flag.unwrap_or_default(), flag.is_some(), why)
}

/// A namespace on the server.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    pub(crate) id: String,
    /// Its name, or its id if that is how the user named it.
    pub(crate) name: String,
}

/// The namespace that the arguments name. One that is given by its id is not looked up.
fn target(session: &Session, client: &Client, target: &Target) -> Outcome<Namespace> {
    let Target {
        namespace,
        namespace_id,
    } = target;
    match (namespace, namespace_id) {
        (Some(name), _) => named(client, name),
        (None, Some(id)) => with_id(id),
        (None, None) => match session.used() {
            Some(name) => named(client, &name),
            None => Err(session.no_namespace()),
        },
    }
}

fn with_id(id: &str) -> Outcome<Namespace> {
    parse_id(id)?;
    let id = id.to_ascii_lowercase();
    Ok(Namespace { name: id.clone(), id })
}

/// The namespace with this name.
pub(super) fn named(client: &Client, name: &str) -> Outcome<Namespace> {
    found(client, name)?.ok_or_else(|| {
        Failure::no(
            format!("there is no namespace \"{name}\" on {}", client.shown()),
            "`embercask namespace list` shows all namespaces; `embercask namespace create NAME` creates one",
        )
    })
}

/// The namespace with this name, if there is one.
fn found(client: &Client, name: &str) -> Outcome<Option<Namespace>> {
    let all = client.namespaces()?;
    let found = all.into_iter().find(|info| info.title == name);
    Ok(found.map(|info| Namespace {
        id: info.id,
        name: info.title,
    }))
}

/// The namespace with this name, created if there is none.
pub(super) fn found_or_created(client: &Client, name: &str) -> Outcome<Namespace> {
    if let Some(namespace) = found(client, name)? {
        if let Some(seconds) = client.default_ttl(&namespace.id)? {
            client.note(&format!(
                "Keys without an expiry get the default lifetime that \"{name}\" has on {}: {seconds} s.",
                client.shown()
            ));
        }
        return Ok(namespace);
    }
    match client.create(name) {
        Ok(info) => Ok(Namespace {
            id: info.id,
            name: info.title,
        }),
        // Another client was faster.
        Err(Error::Refused(refusal)) if refusal.is_taken() => named(client, name),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;

/// A key as the REST API can name it.
fn text(key: &[u8]) -> Outcome<&str> {
    if key.is_empty() {
        return Err(Failure::usage("a key must not be empty", ""));
    }
    std::str::from_utf8(key).map_err(|_| {
        Failure::usage(
            "the key is not text (UTF-8), which the REST API requires",
            "use --store on the machine of the server, while it is stopped",
        )
    })
}
