//! `embercask namespace`.

use std::io::Write;

use serde::Serialize;

use super::arguments::{Named, Namespace};
use super::output::{json_line, stdout};
use super::session::Session;
use crate::common::failure::{Failure, Outcome};
use crate::common::reserved;

/// A namespace as wrangler lists it.
#[derive(Serialize)]
pub(super) struct Listed<'a> {
    pub(super) id: String,
    pub(super) title: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) keys: Option<u64>,
}

pub(crate) fn run(session: &Session, command: Namespace) -> Outcome {
    match command {
        Namespace::Create { name } => create(session, &name),
        Namespace::List { json } => list(session, json),
        Namespace::Rename { named, new_name } => rename(session, named, &new_name),
        Namespace::Delete {
            named,
            skip_confirmation,
        } => delete(session, named, skip_confirmation),
    }
}

fn create(session: &Session, name: &str) -> Outcome {
    let namespace = session.store_or_new()?.create_namespace(name)?;
    session.say(format_args!(
        "Created the namespace \"{name}\" with id \"{:032x}\".",
        namespace.id()
    ))
}

fn list(session: &Session, json: bool) -> Outcome {
    let store = session.reading()?;
    let namespaces = reserved::shown(store.namespaces()?);
    let mut out = stdout();
    if json {
        for info in &namespaces {
            let listed = Listed {
                id: format!("{:032x}", info.id),
                title: &info.name,
                keys: Some(store.open_namespace(&info.name)?.count()?),
            };
            json_line(&mut out, &listed)?;
        }
    } else {
        let listed: Vec<_> = namespaces
            .iter()
            .map(|info| Listed {
                id: format!("{:032x}", info.id),
                title: &info.name,
                keys: None,
            })
            .collect();
        serde_json::to_writer_pretty(&mut out, &listed)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// The name of the namespace, given as a name or by id.
fn name_of(session: &Session, named: Named) -> Outcome<String> {
    match (named.name.or(named.namespace), named.namespace_id) {
        (Some(name), _) => Ok(name),
        (None, Some(id)) => Ok(session.namespace_by_id(&id)?.name()),
        (None, None) => Err(Failure::usage(
            "no namespace is given",
            "give its name or --namespace-id",
        )),
    }
}

fn rename(session: &Session, named: Named, new_name: &str) -> Outcome {
    let name = name_of(session, named)?;
    session.store()?.rename_namespace(&name, new_name)?;
    session.follow_rename(&name, new_name);
    session.say(format_args!("Renamed the namespace \"{name}\" to \"{new_name}\"."))
}

fn delete(session: &Session, named: Named, skip_confirmation: bool) -> Outcome {
    let name = name_of(session, named)?;
    let namespace = session.store()?.open_namespace(&name)?;
    if !skip_confirmation {
        let keys = namespace.count()?;
        let question = format!("Delete the namespace \"{name}\" and its {keys} keys?");
        if !session.confirm(&question, "-y")? {
            return Err(Failure::no("nothing was deleted", ""));
        }
    }
    session.store()?.drop_namespace(&name)?;
    session.say(format_args!("Deleted the namespace \"{name}\"."))
}
