//! `embercask key rename` on a server: a put and a delete. For a moment both keys are there; no
//! write of another client is lost.

use hyper::header::HeaderValue;

use super::client::Client;
use super::error::Error;
use super::lifetime::ATTEMPTS_MAX;
use super::single::{Condition, PutOptions, Tagged};
use super::{USE_STORE, refuse_class, target, text};
use crate::cli::arguments::Rename;
use crate::cli::key::rename::{check_differ, taken, told};
use crate::cli::key::{absent, written_meanwhile};
use crate::cli::session::Session;
use crate::common::failure::{Failure, Outcome};
use crate::planted::{Planted, planted};

const COMMAND: &str = "`key rename`";

pub(super) fn rename(session: &Session, client: &Client, arguments: &Rename) -> Outcome {
    let Rename {
        target: named,
        old,
        new,
        force,
        key_format,
        class,
    } = arguments;
    refuse_class(*class)?;
    let (old, new) = (key_format.parse(old)?, key_format.parse(new)?);
    check_differ([&old, &new])?;
    let names = [text(&old)?, text(&new)?];
    let namespace = target(session, client, named)?;
    client.check_conditions(&namespace.id, COMMAND)?;
    let renaming = Renaming {
        client,
        id: &namespace.id,
        names,
        force: *force,
        has_default_ttl: client.default_ttl(&namespace.id)?.is_some(),
    };
    for _ in 0..ATTEMPTS_MAX {
        match renaming.attempt()? {
            Attempt::Done => return told(session, &namespace.name, [&old, &new]),
            Attempt::Absent => return Err(absent(&old, &namespace.name)),
            Attempt::Taken => return Err(taken(&new)),
            Attempt::Again => {}
        }
    }
    Err(written_meanwhile())
}

enum Attempt {
    Done,
    /// There is no such key.
    Absent,
    /// The new key is there already.
    Taken,
    /// The old key was written meanwhile.
    Again,
}

struct Renaming<'a> {
    client: &'a Client,
    id: &'a str,
    /// The old key and the new one.
    names: [&'a str; 2],
    /// Replace the new key.
    force: bool,
    /// The namespace has a default lifetime.
    has_default_ttl: bool,
}

impl Renaming<'_> {
    fn attempt(&self) -> Outcome<Attempt> {
        let (client, id, [old, new]) = (self.client, self.id, self.names);
        let Some(found) = client.tagged(id, old)? else {
            return Ok(Attempt::Absent);
        };
        if found.expiration.is_none() && self.has_default_ttl {
            return Err(Failure::usage(
                format!(
                    "{COMMAND} does not work with --url: the new key would get the default lifetime of the namespace"
                ),
                USE_STORE,
            ));
        }
        let tag = found.tag.as_ref().ok_or_else(|| client.has_no_tags(COMMAND))?;
        let Some(new_tag) = self.put(&found)? else {
            return Ok(Attempt::Taken);
        };
        if planted(Planted::RenameBlindly) {
            client.delete(id, old)?;
            return Ok(Attempt::Done);
        }
        let deleted = client.delete_unchanged(id, old, tag);
        let both = |error| Failure::from(error).having("the new key is written, and the old one may still be there");
        if deleted.map_err(both)? {
            return Ok(Attempt::Done);
        }
        // What was put is not what is there now. If another has written the new key since, that
        // stays; otherwise it goes, or is replaced by the next attempt.
        if !self.force {
            client.delete_unchanged(id, new, &new_tag)?;
        }
        Ok(Attempt::Again)
    }

    /// Puts all that the old key has under the new one; returns the entity tag, or None if that is
    /// there already.
    fn put(&self, found: &Tagged) -> Outcome<Option<HeaderValue>> {
        let options = PutOptions {
            expiration: found.expiration,
            expiration_ttl: None,
            metadata: found.metadata.as_ref().map(|json| json.get().as_bytes()),
            condition: if self.force { Condition::Any } else { Condition::Absent },
            is_repeatable: false,
        };
        match self.client.put(self.id, self.names[1], found.value.clone(), options) {
            Ok(Some(tag)) => Ok(Some(tag)),
            Ok(None) => Err(self.client.has_no_tags(COMMAND).into()),
            Err(Error::Refused(refusal)) if refusal.is_conflict() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
