//! `embercask key exists`, `ttl` and `expire`: what is known of keys beside their values.

use std::io::Write;
use std::time::Duration;

use super::{absent, parse_all, refused};
use crate::cli::arguments::{Exists, Expire, Ttl};
use crate::cli::output::stdout;
use crate::cli::session::Session;
use crate::cli::writer::Lifetime;
use crate::common::failure::{Failure, Outcome, status};
use crate::common::text::{escape_short, time};

/// Prints `true` or `false` for each key.
pub(super) fn exists(session: &Session, arguments: &Exists) -> Outcome {
    let keys = parse_all(arguments.key_format, &arguments.keys)?;
    let namespace = session.namespace_to_read(&arguments.target)?;
    let mut all = true;
    for key in &keys {
        let is_there = namespace.contains(key)?;
        all &= is_there;
        session.say(is_there)?;
    }
    match all {
        true => Ok(()),
        false => Err(Failure::Silent(status::NO)),
    }
}

/// Prints the seconds that a key has left, or `none`.
pub(super) fn ttl(session: &Session, arguments: &Ttl) -> Outcome {
    let key = arguments.key_format.parse(&arguments.key)?;
    let namespace = session.namespace_to_read(&arguments.target)?;
    let Some(expiry_ms) = namespace.get_with(&key, |value| value.expiry_ms())? else {
        return Err(absent(&key, &namespace.name()));
    };
    let mut out = stdout();
    match expiry_ms {
        // Rounded up, as listings show the time: a key that is there has not expired.
        Some(ms) => writeln!(out, "{}", ms.saturating_sub(namespace.store().now_ms()).div_ceil(1000))?,
        None => writeln!(out, "none")?,
    }
    Ok(out.flush()?)
}

/// Changes the expiry of a key. The engine writes the value that it has read once more, on the
/// condition that it is still the newest, so that no write in between is lost.
pub(super) fn expire(session: &Session, arguments: &Expire) -> Outcome {
    let key = arguments.key_format.parse(&arguments.key)?;
    let namespace = session.namespace(&arguments.target)?;
    let now_ms = namespace.store().now_ms();
    let (is_there, when) = match (arguments.ttl, arguments.expiration) {
        (Some(seconds), _) => {
            let ttl = Duration::from_secs(seconds);
            let is_there = namespace.set_ttl(&key, ttl);
            let is_there = is_there.map_err(|error| refused(Lifetime::For(ttl), now_ms, error))?;
            (is_there, format!("expires in {seconds} s"))
        }
        (None, Some(seconds)) => {
            let ms = seconds.saturating_mul(1000);
            let is_there = namespace.set_expiry(&key, ms);
            let is_there = is_there.map_err(|error| refused(Lifetime::UntilSeconds(seconds), now_ms, error))?;
            (is_there, format!("expires at {}", time(ms)))
        }
        (None, None) => (namespace.remove_expiry(&key)?, "does not expire".to_owned()),
    };
    if !is_there {
        return Err(absent(&key, &namespace.name()));
    }
    session.say(format_args!(
        "The key \"{}\" of \"{}\" {when}.",
        escape_short(&key, super::SHOWN_MAX),
        namespace.name()
    ))
}
