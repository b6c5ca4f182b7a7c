//! `embercask key`: here putting, getting and deleting.

mod lifetime;
pub(super) mod list;
pub(super) mod rename;
pub(super) mod watch;

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::time::Duration;

use embercask::{Condition, Error, ErrorKind, Limits, PutOptions};
use serde_json::value::RawValue;

use crate::cli::arguments::{Delete, Get, Key, Put};
use crate::cli::entry::Entry;
use crate::cli::limits;
use crate::cli::output::{ListedKey, json_line, stdout};
use crate::cli::session::Session;
use crate::cli::writer::Lifetime;
use crate::common::failure::{Failure, Outcome, status};
use crate::common::parse::Format;
use crate::common::text::{escape, escape_short, is_deceptive};

/// Characters of a value that a message shows.
pub(super) const SHOWN_MAX: usize = 100;

pub(crate) fn run(session: &Session, command: Key) -> Outcome {
    match command {
        Key::Put(arguments) => put(session, &arguments),
        Key::Get(arguments) => get(session, &arguments),
        Key::Delete(arguments) => delete(session, &arguments),
        Key::List(arguments) => list::list(session, &arguments),
        Key::Exists(arguments) => lifetime::exists(session, &arguments),
        Key::Ttl(arguments) => lifetime::ttl(session, &arguments),
        Key::Expire(arguments) => lifetime::expire(session, &arguments),
        Key::Rename(arguments) => rename::rename(session, &arguments),
        Key::Watch(arguments) => watch::watch(session, &arguments),
    }
}

fn put(session: &Session, arguments: &Put) -> Outcome {
    let key = arguments.key_format.parse(&arguments.key)?;
    let value = match (&arguments.value, &arguments.path) {
        (Some(value), _) => arguments.value_format.parse(value)?,
        (None, Some(path)) if path == Path::new("-") && session.is_shell() => return Err(Failure::input_of_shell()),
        (None, Some(path)) => read(path)?,
        (None, None) => return Err(Failure::usage("there is no value", "give one, or --path FILE")),
    };
    let mut options = PutOptions::new().durability(arguments.class.durability());
    let mut lifetime = Lifetime::Default;
    if let Some(seconds) = arguments.ttl {
        lifetime = Lifetime::For(Duration::from_secs(seconds));
        options = options.ttl(Duration::from_secs(seconds));
    }
    if let Some(seconds) = arguments.expiration {
        lifetime = Lifetime::UntilSeconds(seconds);
        options = options.expiration(seconds);
    }
    let metadata = arguments.metadata.as_deref().map(parse_metadata).transpose()?;
    if let Some(metadata) = metadata {
        options = options.metadata(metadata);
    }
    if let Some(why) = limits::beyond_workers_kv(&key, &value, metadata.map(str::as_bytes)) {
        if arguments.workers_kv_limits {
            return Err(limits::refused(&why));
        }
        session.note(format_args!("note: {}", limits::remark(&why)));
    }
    if arguments.if_absent {
        options = options.condition(Condition::Absent);
    } else if let Some(sequence) = arguments.if_sequence {
        options = options.condition(Condition::Sequence(sequence));
    }
    let namespace = session.namespace(&arguments.target)?;
    let now_ms = namespace.store().now_ms();
    namespace
        .put_with(&key, &value, options)
        .map_err(|error| refused(lifetime, now_ms, error))?;
    let what = match &arguments.path {
        Some(path) => format!("the contents of {}", path.display()),
        None => format!("the value \"{}\"", escape_short(&value, SHOWN_MAX)),
    };
    session.say(format_args!(
        "Wrote {what} to the key \"{}\" of \"{}\".",
        escape_short(&key, SHOWN_MAX),
        namespace.name()
    ))
}

/// The failure of a write with this lifetime, in the unit in which it was given.
fn refused(lifetime: Lifetime, now_ms: u64, error: Error) -> Failure {
    match lifetime.refusal(now_ms) {
        Some(refusal) if error.kind() == ErrorKind::InvalidInput => Failure::usage(refusal, ""),
        _ => conflict(error),
    }
}

/// Metadata in an argument: any JSON but `null`, as it stands.
pub(super) fn parse_metadata(text: &str) -> Outcome<&str> {
    let json: &RawValue = serde_json::from_str(text).map_err(|error| {
        Failure::usage(
            format!("the metadata is not JSON: {error}"),
            "JSON is, for example, '{\"size\": 3}', '[1, 2]', 5 or '\"text in its own quotation marks\"'",
        )
    })?;
    match json.get() {
        "null" => Err(Failure::usage(
            "the metadata is null, which in Workers KV means none",
            "leave --metadata out",
        )),
        metadata => Ok(metadata),
    }
}

/// The content of a file, or of standard input if the path is `-`.
pub(super) fn read(path: &Path) -> Outcome<Vec<u8>> {
    let fail = |error| Failure::file("read", path.display(), &error);
    let reader: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(fail)?)
    };
    let mut content = Vec::new();
    // One byte more than the largest value is enough for the store to refuse it.
    let length_max = Limits::ENGINE.value_bytes_max as u64 + 1;
    reader.take(length_max).read_to_end(&mut content).map_err(fail)?;
    Ok(content)
}

/// The failure of a change that begins again whenever another has written the key meanwhile.
pub(super) fn written_meanwhile() -> Failure {
    Failure::no("other writes of the key came in between each time", "try again")
}

/// The failure for a condition that does not hold.
fn conflict(error: Error) -> Failure {
    match error {
        Error::Conflict { found: Some(sequence) } => Failure::no(
            format!("the condition does not hold: the newest write of the key has the sequence {sequence}"),
            "",
        ),
        Error::Conflict { found: None } => Failure::no("the condition does not hold: the key is absent", ""),
        error => error.into(),
    }
}

fn get(session: &Session, arguments: &Get) -> Outcome {
    let keys = parse_all(arguments.key_format, &arguments.keys)?;
    let namespace = session.namespace_to_read(&arguments.target)?;
    each(session, &keys, &namespace.name(), |key| match namespace.get(key)? {
        None => Ok(false),
        Some(value) => print(session, arguments, &Entry::of_value(key, &value)).map(|()| true),
    })
}

/// Prints what `key get` has got for a key.
pub(super) fn print(session: &Session, arguments: &Get, entry: &Entry<'_>) -> Outcome {
    let is_one = arguments.keys.len() == 1;
    // After one of several values that does not end a line, the next header would not begin one. A
    // prompt would erase the last line.
    let ends_line = arguments.text || !is_one || session.is_shell() || std::io::stdout().is_terminal();
    let mut out = stdout();
    if arguments.json {
        json_line(&mut out, &ListedKey::of(entry))?;
        return Ok(out.flush()?);
    }
    if !is_one && !arguments.text {
        writeln!(out, "==> {} <==", escape(entry.key))?;
    }
    out.write_all(&shown(session, arguments, entry.value.unwrap_or_default()))?;
    if ends_line {
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

pub(super) fn parse_all(format: Format, keys: &[OsString]) -> Outcome<Vec<Vec<u8>>> {
    keys.iter().map(|key| format.parse(key)).collect()
}

/// Does something with each key; it returns whether the key was there. One that was not, or that is
/// damaged, is told, and the others follow.
pub(super) fn each(
    session: &Session,
    keys: &[Vec<u8>],
    namespace: &str,
    mut act: impl FnMut(&[u8]) -> Outcome<bool>,
) -> Outcome {
    let (mut outcome, mut damaged) = (Ok(()), 0);
    for key in keys {
        match act(key) {
            Ok(true) => {}
            Ok(false) => {
                let _ = absent(key, namespace).report();
                outcome = Err(Failure::Silent(status::NO));
            }
            Err(failure) if failure.is_damage() && keys.len() > 1 => {
                damaged += 1;
                session.tell_damage(failure.message());
            }
            Err(failure) => return Err(failure),
        }
    }
    match damaged {
        0 => outcome,
        _ => Err(Failure::damaged_keys(damaged, "they are left out")),
    }
}

/// A value in the requested format; without one, a value that is not text is escaped on a terminal.
fn shown<'a>(session: &Session, arguments: &Get, value: &'a [u8]) -> Cow<'a, [u8]> {
    let format = arguments.value_format.unwrap_or_else(|| {
        let is_text = std::str::from_utf8(value)
            .is_ok_and(|text| !text.contains(|character| is_deceptive(character) && !matches!(character, '\n' | '\t')));
        if is_text || !std::io::stdout().is_terminal() {
            return Format::Raw;
        }
        session.note("The value is not text and is shown escaped; --value-format raw prints it unchanged.");
        Format::Escaped
    });
    format.show(value)
}

pub(super) fn absent(key: &[u8], namespace: &str) -> Failure {
    let key = escape_short(key, SHOWN_MAX);
    Failure::no(format!("there is no key \"{key}\" in \"{namespace}\""), "")
}

fn delete(session: &Session, arguments: &Delete) -> Outcome {
    let keys = parse_all(arguments.key_format, &arguments.keys)?;
    if arguments.if_sequence.is_some() && keys.len() > 1 {
        return Err(Failure::usage(
            "--if-sequence takes a single key",
            "delete the keys one by one",
        ));
    }
    let namespace = session.namespace(&arguments.target)?;
    let condition = arguments.if_sequence.map(Condition::Sequence);
    each(session, &keys, &namespace.name(), |key| {
        let deleted = namespace
            .delete_with(key, condition, Some(arguments.class.durability()))
            .map_err(conflict)?;
        if deleted.existed {
            session.say(format_args!(
                "Deleted the key \"{}\" of \"{}\".",
                escape_short(key, SHOWN_MAX),
                namespace.name()
            ))?;
        }
        Ok(deleted.existed)
    })
}
