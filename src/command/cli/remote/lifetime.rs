//! `embercask key exists`, `ttl` and `expire` on a server.

use std::io::Write;

use super::client::Client;
use super::error::Error;
use super::single::{Condition, PutOptions};
use super::writes::now_ms;
use super::{USE_STORE, target, text};
use crate::cli::arguments::{Exists, Expire, Ttl};
use crate::cli::key::{SHOWN_MAX, absent, parse_all, written_meanwhile};
use crate::cli::output::stdout;
use crate::cli::session::Session;
use crate::common::failure::{Failure, Outcome, status};
use crate::common::text::{escape_short, time};

/// Attempts before the key is written too often to be changed.
pub(super) const ATTEMPTS_MAX: usize = 100;

pub(super) fn exists(session: &Session, client: &Client, arguments: &Exists) -> Outcome {
    let Exists {
        target: named,
        keys,
        key_format,
    } = arguments;
    let keys = parse_all(*key_format, keys)?;
    let names = keys.iter().map(|key| text(key)).collect::<Outcome<Vec<&str>>>()?;
    let namespace = target(session, client, named)?;
    let mut all = true;
    for name in names {
        let is_there = match client.metadata(&namespace.id, name) {
            Ok(_) => true,
            Err(Error::Refused(refusal)) if refusal.is_no_key() => false,
            // Only its value or metadata cannot be read.
            Err(Error::Refused(refusal)) if refusal.is_damage() => true,
            Err(error) => return Err(error.into()),
        };
        all &= is_there;
        session.say(is_there)?;
    }
    match all {
        true => Ok(()),
        false => Err(Failure::Silent(status::NO)),
    }
}

pub(super) fn ttl(session: &Session, client: &Client, arguments: &Ttl) -> Outcome {
    let Ttl {
        target: named,
        key,
        key_format,
    } = arguments;
    let key = key_format.parse(key)?;
    let name = text(&key)?;
    let namespace = target(session, client, named)?;
    let listed = client.listed(&namespace.id, name)?;
    let listed = listed.ok_or_else(|| absent(&key, &namespace.name))?;
    let mut out = stdout();
    match listed.expiration {
        Some(seconds) => writeln!(out, "{}", seconds.saturating_sub(now_ms() / 1000))?,
        None => writeln!(out, "none")?,
    }
    Ok(out.flush()?)
}

/// Puts the value that was read again, on the condition that nothing of it has changed, so that no
/// write in between is lost.
pub(super) fn expire(session: &Session, client: &Client, arguments: &Expire) -> Outcome {
    let Expire {
        target: named,
        key,
        ttl,
        expiration,
        never,
        key_format,
    } = arguments;
    let key = key_format.parse(key)?;
    let name = text(&key)?;
    let namespace = target(session, client, named)?;
    if *never && client.default_ttl(&namespace.id)?.is_some() {
        return Err(Failure::usage(
            "--never does not work with --url: the namespace has a default lifetime, which a put would get",
            USE_STORE,
        ));
    }
    client.check_conditions(&namespace.id, "`key expire`")?;
    for _ in 0..ATTEMPTS_MAX {
        match change(client, &namespace.id, name, *ttl, *expiration)? {
            Changed::Done => {
                let when = match (ttl, expiration) {
                    (Some(seconds), _) => format!("expires in {seconds} s"),
                    (None, Some(seconds)) => format!("expires at {}", time(seconds.saturating_mul(1000))),
                    (None, None) => "does not expire".to_owned(),
                };
                return session.say(format_args!(
                    "The key \"{}\" of \"{}\" {when}.",
                    escape_short(&key, SHOWN_MAX),
                    namespace.name
                ));
            }
            Changed::Absent => return Err(absent(&key, &namespace.name)),
            Changed::Again => {}
        }
    }
    Err(written_meanwhile())
}

enum Changed {
    Done,
    Absent,
    /// Another write has come in between.
    Again,
}

fn change(client: &Client, id: &str, name: &str, ttl: Option<u64>, expiration: Option<u64>) -> Outcome<Changed> {
    let Some(found) = client.tagged(id, name)? else {
        return Ok(Changed::Absent);
    };
    let tag = found.tag.ok_or_else(|| client.has_no_tags("`key expire`"))?;
    let options = PutOptions {
        expiration_ttl: ttl,
        expiration,
        metadata: found.metadata.as_ref().map(|json| json.get().as_bytes()),
        condition: Condition::Unchanged(&tag),
        is_repeatable: false,
    };
    match client.put(id, name, found.value, options) {
        Ok(_) => Ok(Changed::Done),
        Err(Error::Refused(refusal)) if refusal.is_conflict() => Ok(Changed::Again),
        Err(error) => Err(error.into()),
    }
}
