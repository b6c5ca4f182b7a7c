//! `embercask bulk` on a server.

use std::ops::ControlFlow;
use std::rc::Rc;

use super::client::Client;
use super::values::{Got, Reader};
use super::{refuse_class, target, text};
use crate::cli::arguments::Bulk;
use crate::cli::bulk;
use crate::cli::destination::{Destination, Place};
use crate::cli::printed_values::PrintedValues;
use crate::cli::session::Session;
use crate::cli::transfer::Input;
use crate::cli::writer::Rules;
use crate::common::failure::{Failure, Outcome};
use crate::common::interrupt;

pub(super) fn run(session: &Session, client: &Rc<Client>, command: Bulk) -> Outcome {
    let destination = || Destination::Server(Rc::clone(client));
    match command {
        Bulk::Put {
            target: named,
            file,
            workers_kv_limits,
            class,
        } => {
            refuse_class(class)?;
            let rules = Rules {
                workers_kv_limits,
                ..Rules::default()
            };
            let place = Place::Server(target(session, client, &named)?);
            let input = Input::open(&file, session, "putting")?;
            let keys = bulk::put_to(session, destination(), &place, rules, input)?;
            session.say(format_args!("Success! Wrote {keys} keys."))
        }
        Bulk::Get { target: named, file } => {
            let namespace = target(session, client, &named)?;
            get(session, client, &namespace.id, Input::open(&file, session, "reading")?)
        }
        Bulk::Delete {
            target: named,
            file,
            force,
            class,
        } => {
            refuse_class(class)?;
            let namespace = target(session, client, &named)?;
            let question = format!(
                "Delete the keys in {} from \"{}\" on {}?",
                file.display(),
                namespace.name,
                client.shown()
            );
            if !force && !session.confirm(&question, "--force")? {
                return Err(Failure::no("nothing was deleted", ""));
            }
            let input = Input::open(&file, session, "deleting")?;
            let keys = bulk::delete_from(destination(), &Place::Server(namespace), input)?;
            session.say(format_args!("Success! Deleted {keys} keys."))
        }
    }
}

fn get(session: &Session, client: &Client, id: &str, input: Input) -> Outcome {
    let _expected = interrupt::expect();
    let mut reader = Reader::new(client, id);
    let mut printed = PrintedValues::new();
    let mut unreadable = 0;
    bulk::for_each_group(input, |keys| {
        let names: Vec<&str> = keys.iter().map(|key| text(key)).collect::<Outcome<_>>()?;
        let read = reader.read(&names, |name, got| {
            match got {
                Got::Absent => printed.value(name.as_bytes(), None)?,
                Got::Found(item) => printed.value(name.as_bytes(), Some(&item.value))?,
                // Left out: null would mean that the key is absent.
                Got::Unreadable(refusal) => {
                    unreadable += 1;
                    session.tell_damage(format_args!("the key \"{name}\": {}", refusal.message));
                }
            }
            Ok(ControlFlow::Continue(()))
        });
        read.map(drop)
    })?;
    printed.end()?;
    match unreadable {
        0 => Ok(()),
        keys => Err(Failure::damaged_keys(keys, "they are left out")),
    }
}
