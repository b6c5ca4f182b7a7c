//! `embercask key` on a server.

use std::path::Path;

use super::client::Client;
use super::error::{Error, Refusal};
use super::single::{Condition, PutOptions};
use super::values::{Got, Reader};
use super::{USE_STORE, lifetime, list, refuse, refuse_class, rename, target, text, watch};
use crate::cli::arguments::{Delete, Get, Key, Put};
use crate::cli::entry::Entry;
use crate::cli::key::{SHOWN_MAX, each, parse_all, parse_metadata, print, read};
use crate::cli::limits;
use crate::cli::session::Session;
use crate::common::failure::{Failure, Outcome};
use crate::common::text::{escape_short, quoted};

const NO_SEQUENCES: [&str; 2] = ["the REST API has no sequences", USE_STORE];

pub(super) fn run(session: &Session, client: &Client, command: Key) -> Outcome {
    match command {
        Key::Put(arguments) => put(session, client, &arguments),
        Key::Get(arguments) => get(session, client, &arguments),
        Key::Delete(arguments) => delete(session, client, &arguments),
        Key::List(arguments) => list::list(session, client, &arguments),
        Key::Exists(arguments) => lifetime::exists(session, client, &arguments),
        Key::Ttl(arguments) => lifetime::ttl(session, client, &arguments),
        Key::Expire(arguments) => lifetime::expire(session, client, &arguments),
        Key::Rename(arguments) => rename::rename(session, client, &arguments),
        Key::Watch(arguments) => watch::watch(session, client, &arguments),
    }
}

fn put(session: &Session, client: &Client, arguments: &Put) -> Outcome {
    let Put {
        target: named,
        key,
        value,
        path,
        ttl,
        expiration,
        metadata,
        if_absent,
        if_sequence,
        key_format,
        value_format,
        workers_kv_limits,
        class,
    } = arguments;
    refuse("--if-sequence", if_sequence.is_some(), NO_SEQUENCES)?;
    refuse_class(*class)?;
    let key = key_format.parse(key)?;
    let name = text(&key)?;
    let value = match (value, path) {
        (Some(value), _) => value_format.parse(value)?,
        (None, Some(path)) if path == Path::new("-") && session.is_shell() => return Err(Failure::input_of_shell()),
        (None, Some(path)) => read(path)?,
        (None, None) => return Err(Failure::usage("there is no value", "give one, or --path FILE")),
    };
    let metadata = metadata.as_deref().map(parse_metadata).transpose()?.map(str::as_bytes);
    // Without the flag, the server says what it does not take.
    if let Some(why) = limits::beyond_workers_kv(&key, &value, metadata)
        && *workers_kv_limits
    {
        return Err(limits::refused(&why));
    }
    let options = PutOptions {
        expiration: *expiration,
        expiration_ttl: *ttl,
        metadata,
        condition: if *if_absent { Condition::Absent } else { Condition::None },
        is_repeatable: false,
    };
    let namespace = target(session, client, named)?;
    if *if_absent {
        client.check_conditions(&namespace.id, "--if-absent")?;
    }
    let what = match path {
        Some(path) => format!("the contents of {}", path.display()),
        None => format!("the value \"{}\"", escape_short(&value, SHOWN_MAX)),
    };
    client
        .put(&namespace.id, name, value, options)
        .map_err(|error| match error {
            Error::Refused(refusal) if refusal.is_conflict() => {
                Failure::no("the condition does not hold: the key is there already", "")
            }
            error => error.into(),
        })?;
    session.say(format_args!(
        "Wrote {what} to the key \"{}\" of \"{}\".",
        escape_short(&key, SHOWN_MAX),
        namespace.name
    ))
}

fn get(session: &Session, client: &Client, arguments: &Get) -> Outcome {
    let Get {
        target: named,
        keys,
        text: _,
        json,
        key_format,
        value_format: _,
    } = arguments;
    let keys = parse_all(*key_format, keys)?;
    let names = keys.iter().map(|key| text(key)).collect::<Outcome<Vec<&str>>>()?;
    let namespace = target(session, client, named)?;
    let reader = Reader::new(client, &namespace.id);
    let mut names = names.into_iter();
    each(session, &keys, &namespace.name, |key| {
        let name = names.next().unwrap_or_default();
        let unreadable =
            |refusal: Refusal| Failure::from(Error::Refused(refusal)).at(format_args!("the key {}", quoted(key)));
        if *json {
            return match reader.one(name)? {
                Got::Absent => Ok(false),
                Got::Unreadable(refusal) => Err(unreadable(refusal)),
                Got::Found(item) => print(session, arguments, &item.entry(name)).map(|()| true),
            };
        }
        let value = match client.value(&namespace.id, name) {
            Ok((value, _)) => value,
            Err(Error::Refused(refusal)) if refusal.is_no_key() => return Ok(false),
            Err(Error::Refused(refusal)) if refusal.is_damage() => return Err(unreadable(refusal)),
            Err(error) => return Err(error.into()),
        };
        let entry = Entry {
            key,
            value: Some(&value),
            ..Entry::default()
        };
        print(session, arguments, &entry).map(|()| true)
    })
}

fn delete(session: &Session, client: &Client, arguments: &Delete) -> Outcome {
    let Delete {
        target: named,
        keys,
        if_sequence,
        key_format,
        class,
    } = arguments;
    refuse("--if-sequence", if_sequence.is_some(), NO_SEQUENCES)?;
    refuse_class(*class)?;
    let keys = parse_all(*key_format, keys)?;
    let names = keys.iter().map(|key| text(key)).collect::<Outcome<Vec<&str>>>()?;
    let namespace = target(session, client, named)?;
    let mut names = names.into_iter();
    each(session, &keys, &namespace.name, |key| {
        let name = names.next().unwrap_or_default();
        // The API deletes an absent key without a word.
        match client.metadata(&namespace.id, name) {
            Err(Error::Refused(refusal)) if refusal.is_no_key() => return Ok(false),
            Err(Error::Refused(refusal)) if refusal.is_damage() => {}
            found => drop(found?),
        }
        client.delete(&namespace.id, name)?;
        session.say(format_args!(
            "Deleted the key \"{}\" of \"{}\".",
            escape_short(key, SHOWN_MAX),
            namespace.name
        ))?;
        Ok(true)
    })
}
