//! `embercask import --miniflare`: the local state of `wrangler dev` and of miniflare, which keep a
//! database and a directory of values for each namespace.

mod config;
mod database;
mod state;

use std::collections::BTreeMap;

use crate::cli::arguments::Import;
use crate::cli::destination::Destination;
use crate::cli::session::Session;
use crate::cli::writer::{Change, Lifetime, Position, Rules, Write, Writer};
use crate::common::failure::{Failure, Outcome};
use crate::common::interrupt;
use crate::common::parse::parse_id;
use crate::common::text::{count, quoted};
use config::Names;
use database::{Entry, Reader};
use state::{Found, State};

/// Imports all namespaces of a project's local state.
pub(crate) fn import(session: &Session, arguments: &Import) -> Outcome {
    let state = State::find(&arguments.file)?;
    let mut names = Names::of_project(session, &state, &arguments.file);
    for pair in &arguments.name {
        names.set(pair)?;
    }
    let found = state.namespaces(&names.ids())?;
    names.check_used(&found)?;
    let named = named(&found, &names, arguments.namespace.as_deref())?;
    let destination = session.destination(arguments.class)?;
    let _expected = interrupt::expect();
    let rules = Rules {
        skip_expired: true,
        if_absent: arguments.if_absent,
        workers_kv_limits: arguments.workers_kv_limits,
    };
    let mut importing = Importing {
        session,
        writer: Writer::new(destination, rules, String::new()),
        without_value: 0,
        told: Vec::new(),
    };
    let imported = importing.all(&named);
    importing.end(imported)
}

/// The namespaces with the names that they get. Two do not get the same.
fn named<'a>(found: &'a [Found], names: &Names, all_into: Option<&str>) -> Outcome<Vec<(String, &'a Found)>> {
    if let (Some(name), [_, _, ..]) = (all_into, found) {
        let ids: Vec<_> = found.iter().map(|namespace| quoted(namespace.id.as_bytes())).collect();
        return Err(Failure::usage(
            format!(
                "there are {} namespaces, not one for {}: {}",
                found.len(),
                quoted(name.as_bytes()),
                ids.join(", ")
            ),
            "leave -n out, and name them with --name ID=NAME",
        ));
    }
    let mut named = BTreeMap::<String, &Found>::new();
    for namespace in found {
        let name = all_into.map_or_else(|| names.name_of(&namespace.id), str::to_owned);
        if let Some(other) = named.insert(name.clone(), namespace) {
            return Err(Failure::usage(
                format!(
                    "the namespaces {} and {} would both be called {}",
                    quoted(other.id.as_bytes()),
                    quoted(namespace.id.as_bytes()),
                    quoted(name.as_bytes())
                ),
                "name one of them with --name ID=NAME",
            ));
        }
    }
    Ok(named.into_iter().collect())
}

struct Importing<'a> {
    session: &'a Session,
    writer: Writer,
    /// Keys whose values are missing.
    without_value: u64,
    /// What each namespace has got.
    told: Vec<String>,
}

impl Importing<'_> {
    fn all(&mut self, named: &[(String, &Found)]) -> Outcome {
        for (name, found) in named {
            let before = self.writer.tally.done;
            self.namespace(name, found)?;
            self.writer.commit()?;
            let keys = count(self.writer.tally.done - before);
            self.told.push(format!("{keys} keys into {}", quoted(name.as_bytes())));
        }
        self.destination().sync()
    }

    fn destination(&self) -> &Destination {
        self.writer.destination()
    }

    fn namespace(&mut self, name: &str, found: &Found) -> Outcome {
        // Workers that name the namespace by its id go on finding it.
        let id = parse_id(&found.id).ok();
        let place = self.destination().declare(name, id, None, true)?;
        let called = format!("namespace {}, entry", quoted(name.as_bytes()));
        self.writer.now_called(called.clone());
        let mut reader = Reader::open(found)?;
        let mut number = 0;
        while let Some(entry) = reader.next()? {
            interrupt::check("the other keys were not imported")?;
            number += 1;
            let Entry {
                key,
                value,
                metadata,
                expiry_ms,
            } = entry;
            let position = Position::of_line(number);
            let Some(value) = value else {
                // miniflare takes such a key for absent.
                self.without_value += 1;
                self.writer
                    .remarks
                    .add("the file with the value is missing, so the key is left out", || {
                        position.told(&called, Some(&key))
                    });
                continue;
            };
            self.writer.add(Write {
                position,
                namespace: place.clone(),
                key,
                change: Change::Put {
                    value,
                    lifetime: expiry_ms.map_or(Lifetime::Forever, Lifetime::UntilMs),
                    metadata,
                },
            })?;
        }
        Ok(())
    }

    /// Tells what was imported, and what was not.
    fn end(mut self, imported: Outcome) -> Outcome {
        self.writer.remarks.tell(self.session);
        let tally = &self.writer.tally;
        if let Err(failure) = imported {
            let what = match tally.done {
                0 => "nothing was imported".to_owned(),
                done => format!("{} keys were imported", count(done)),
            };
            return Err(match failure.is_stop() {
                true => Failure::stopped(&what),
                false => failure.having(&what),
            });
        }
        let mut told = match self.told.is_empty() {
            true => "There are no keys to import.".to_owned(),
            false => format!("Imported {}.", self.told.join(", ")),
        };
        for (number, what) in [
            (tally.expired, self.destination().expired()),
            (tally.present, "were there already"),
            (self.without_value, "had no value"),
        ] {
            if number > 0 {
                told += &format!(" {} {what}.", count(number));
            }
        }
        self.session.say(told)
    }
}
