//! `embercask bulk`: the files of `wrangler kv bulk`.

use embercask::{Error, ErrorKind, Namespace, Value};
use serde::Deserialize;

use super::arguments::{Bulk, Class};
use super::destination::{Destination, Place};
use super::pair::Pair;
use super::printed_values::PrintedValues;
use super::remarks::Remarks;
use super::session::Session;
use super::transfer::array::Item;
use super::transfer::{Input, array};
use super::writer::{Change, Position, Rules, Write, Writer};
use crate::common::failure::{Failure, Outcome};
use crate::common::interrupt;
use crate::common::json_text;
use crate::common::objects::NamedKey;
use crate::common::parse::decode_base64;
use crate::common::text::count;

/// Keys read at a time.
const GET_KEYS: usize = 1000;

/// A key in a file of keys, in the form of a listing.
#[derive(Deserialize)]
struct Listed {
    name: Option<String>,
    name_base64: Option<String>,
}

/// The key of an item; an error names its place.
fn key_of(item: Item<'_>, called: &str) -> Outcome<Vec<u8>> {
    let position = Position::of_item(&item);
    let read = serde_json::from_slice(item.text).map_err(|error| Failure::usage(json_text::told(&error), ""));
    read.and_then(into_key)
        .map_err(|failure| failure.at(position.told(called, None)))
}

fn into_key(name: NamedKey<Listed>) -> Outcome<Vec<u8>> {
    match name {
        NamedKey::Plain(name)
        | NamedKey::Object(Listed {
            name: Some(name),
            name_base64: None,
        }) => Ok(name.into_bytes()),
        NamedKey::Object(Listed {
            name: None,
            name_base64: Some(base64),
        }) => decode_base64(&base64),
        NamedKey::Object(_) => Err(Failure::usage("a key has either a `name` or a `name_base64`", "")),
    }
}

pub(crate) fn run(session: &Session, command: Bulk) -> Outcome {
    match command {
        Bulk::Put {
            target,
            file,
            workers_kv_limits,
            class,
        } => {
            let namespace = session.namespace(&target)?;
            let input = Input::open(&file, session, "putting")?;
            let rules = Rules {
                workers_kv_limits,
                ..Rules::default()
            };
            put_all(session, namespace, class, rules, input)
                .and_then(|keys| session.say(format_args!("Success! Wrote {keys} keys.")))
        }
        Bulk::Get { target, file } => get(
            session,
            &session.namespace_to_read(&target)?,
            Input::open(&file, session, "reading")?,
        ),
        Bulk::Delete {
            target,
            file,
            force,
            class,
        } => {
            let namespace = session.namespace(&target)?;
            let question = format!("Delete the keys in {} from \"{}\"?", file.display(), namespace.name());
            if !force && !session.confirm(&question, "--force")? {
                return Err(Failure::no("nothing was deleted", ""));
            }
            let input = Input::open(&file, session, "deleting")?;
            delete_all(namespace, class, input)
                .and_then(|keys| session.say(format_args!("Success! Deleted {keys} keys.")))
        }
    }
}

/// Puts the pairs of a file.
pub(super) fn put_all(
    session: &Session,
    namespace: Namespace,
    class: Class,
    rules: Rules,
    input: Input,
) -> Outcome<u64> {
    let destination = Destination::store(namespace.store().clone(), class.durability());
    put_to(session, destination, &Place::Store(namespace), rules, input)
}

/// Deletes the keys of a file.
pub(super) fn delete_all(namespace: Namespace, class: Class, input: Input) -> Outcome<u64> {
    let destination = Destination::store(namespace.store().clone(), class.durability());
    delete_from(destination, &Place::Store(namespace), input)
}

/// As [`put_all`], to any destination.
pub(super) fn put_to(
    session: &Session,
    destination: Destination,
    place: &Place,
    rules: Rules,
    input: Input,
) -> Outcome<u64> {
    let called = format!("{}, pair", input.name);
    let mut writer = Writer::new(destination, rules, called.clone());
    let written = write(&mut writer, input, |item, remarks| {
        Ok(Pair::read(item, &called, remarks)?.into_write(place.clone()))
    });
    writer.remarks.tell(session);
    written
}

/// As [`delete_all`], from any destination.
pub(super) fn delete_from(destination: Destination, place: &Place, input: Input) -> Outcome<u64> {
    let called = format!("{}, key", input.name);
    let mut writer = Writer::new(destination, Rules::default(), called.clone());
    write(&mut writer, input, |item, _| {
        Ok(Write {
            position: Position::of_item(&item),
            namespace: place.clone(),
            key: key_of(item, &called)?,
            change: Change::Delete,
        })
    })
}

/// Does the writes of all items of a file, and returns their number.
fn write(
    writer: &mut Writer,
    input: Input,
    mut to_write: impl FnMut(Item<'_>, &mut Remarks) -> Outcome<Write>,
) -> Outcome<u64> {
    let _expected = interrupt::expect();
    let written = array::for_each(input, |item| {
        let write = to_write(item, &mut writer.remarks)?;
        writer.add(write)
    });
    // The items before a wrong one are good, so commit them; but not after Ctrl-C.
    let written = match written {
        Err(failure) if failure.is_stop() => Err(failure),
        written => writer.commit().and(written),
    };
    let done = writer.tally.done;
    written.map(|()| done).map_err(|failure| {
        let told = match done {
            0 => "nothing was done".to_owned(),
            _ => format!("the first {} are done, the others are not", count(done)),
        };
        if failure.is_stop() {
            return Failure::stopped(&told);
        }
        failure.having(&told)
    })
}

/// The values of these keys; read one by one if any is damaged.
fn values(namespace: &Namespace, keys: &[Vec<u8>]) -> Outcome<Vec<Result<Option<Value>, Error>>> {
    match namespace.get_many(keys) {
        Ok(values) => Ok(values.into_iter().map(Ok).collect()),
        Err(error) if error.kind() == ErrorKind::Corruption => Ok(keys.iter().map(|key| namespace.get(key)).collect()),
        Err(error) => Err(error.into()),
    }
}

fn get(session: &Session, namespace: &Namespace, input: Input) -> Outcome {
    let _expected = interrupt::expect();
    let mut printed = PrintedValues::new();
    let mut damaged = 0;
    for_each_group(input, |keys| {
        for (key, value) in keys.iter().zip(values(namespace, keys)?) {
            match value {
                // Left out: null would mean that the key is absent.
                Err(error) if error.kind() == ErrorKind::Corruption => {
                    damaged += 1;
                    session.tell_damage(&error);
                }
                value => printed.value(key, value?.as_deref())?,
            }
        }
        Ok(())
    })?;
    printed.end()?;
    if damaged > 0 {
        return Err(Failure::damaged_keys(damaged, "they are left out"));
    }
    Ok(())
}

/// Passes on the keys of a file, many at a time.
pub(super) fn for_each_group(input: Input, mut take: impl FnMut(&[Vec<u8>]) -> Outcome) -> Outcome {
    let called = format!("{}, key", input.name);
    let mut keys = Vec::new();
    array::for_each(input, |item| {
        keys.push(key_of(item, &called)?);
        if keys.len() < GET_KEYS {
            return Ok(());
        }
        take(&keys)?;
        keys.clear();
        Ok(())
    })?;
    take(&keys)
}
