//! `embercask namespace` on a server.

use std::io::Write;

use super::api::PAGE_KEYS;
use super::client::Client;
use super::error::Error;
use super::{named, with_id};
use crate::cli::arguments::{Named, Namespace};
use crate::cli::namespace::Listed;
use crate::cli::output::{json_line, stdout};
use crate::cli::session::Session;
use crate::common::failure::{Failure, Outcome};
use crate::common::interrupt;

pub(super) fn run(session: &Session, client: &Client, command: Namespace) -> Outcome {
    match command {
        Namespace::Create { name } => create(session, client, &name),
        Namespace::List { json } => list(client, json),
        Namespace::Rename { named, new_name } => rename(session, client, named, &new_name),
        Namespace::Delete {
            named,
            skip_confirmation,
        } => delete(session, client, named, skip_confirmation),
    }
}

fn taken(error: Error, name: &str) -> Failure {
    match error {
        Error::Refused(refusal) if refusal.is_taken() => {
            Failure::no(format!("there is a namespace \"{name}\" already"), "")
        }
        error => error.into(),
    }
}

fn create(session: &Session, client: &Client, name: &str) -> Outcome {
    let created = client.create(name).map_err(|error| taken(error, name))?;
    session.say(format_args!(
        "Created the namespace \"{name}\" with id \"{}\".",
        created.id
    ))
}

fn list(client: &Client, json: bool) -> Outcome {
    let all = client.namespaces()?;
    let mut out = stdout();
    let listed = |index: usize, keys| {
        all.get(index).map(|info| Listed {
            id: info.id.clone(),
            title: &info.title,
            keys,
        })
    };
    if json {
        let _expected = interrupt::expect();
        for (index, info) in all.iter().enumerate() {
            json_line(&mut out, &listed(index, Some(count(client, &info.id, "")?)))?;
        }
    } else {
        let all: Vec<_> = (0..all.len()).filter_map(|index| listed(index, None)).collect();
        serde_json::to_writer_pretty(&mut out, &all)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// The number of keys with a prefix, which Workers KV can tell only by listing them.
pub(super) fn count(client: &Client, id: &str, prefix: &str) -> Outcome<u64> {
    if let Some(count) = client.count(id, prefix)? {
        return Ok(count);
    }
    let mut keys = 0;
    let mut cursor = None::<String>;
    loop {
        let page = client.keys(id, prefix, cursor.as_deref(), PAGE_KEYS)?;
        keys += page.keys.len() as u64;
        match page.cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(keys),
        }
        interrupt::check("not all keys were counted")?;
    }
}

/// The namespace that the arguments name, with its name.
fn target(client: &Client, arguments: Named) -> Outcome<super::Namespace> {
    let Named {
        name,
        namespace,
        namespace_id,
    } = arguments;
    match (name.or(namespace), namespace_id) {
        (Some(name), _) => named(client, &name),
        (None, Some(id)) => {
            let id = with_id(&id)?.id;
            let name = client.namespace_info(&id)?.title;
            Ok(super::Namespace { id, name })
        }
        (None, None) => Err(Failure::usage(
            "no namespace is given",
            "give its name or --namespace-id",
        )),
    }
}

fn rename(session: &Session, client: &Client, arguments: Named, new_name: &str) -> Outcome {
    let super::Namespace { id, name } = target(client, arguments)?;
    client.rename(&id, new_name).map_err(|error| taken(error, new_name))?;
    session.follow_rename(&name, new_name);
    session.say(format_args!("Renamed the namespace \"{name}\" to \"{new_name}\"."))
}

fn delete(session: &Session, client: &Client, arguments: Named, skip_confirmation: bool) -> Outcome {
    let super::Namespace { id, name } = target(client, arguments)?;
    let question = format!(
        "Delete the namespace \"{name}\" on {} and all its keys?",
        client.shown()
    );
    if !skip_confirmation && !session.confirm(&question, "-y")? {
        return Err(Failure::no("nothing was deleted", ""));
    }
    client.remove(&id)?;
    session.say(format_args!("Deleted the namespace \"{name}\"."))
}
