//! `embercask key list` on a server.

use std::io::Write;
use std::ops::ControlFlow;

use super::api::{LIMIT_MIN, ListedKey, PAGE_KEYS};
use super::client::Client;
use super::error::Error;
use super::namespace::count;
use super::values::{Got, Reader};
use super::{refuse, target, text};
use crate::cli::arguments::List;
use crate::cli::entry::Entry;
use crate::cli::key::list::Style;
use crate::cli::output::stdout;
use crate::cli::session::Session;
use crate::common::failure::{Failure, Outcome};
use crate::common::interrupt;
use crate::common::pattern::Pattern;

const ONLY_PREFIXES: [&str; 2] = [
    "the REST API lists by prefix, in ascending order",
    "list with --prefix or --pattern",
];

pub(super) fn list(session: &Session, client: &Client, arguments: &List) -> Outcome {
    let List {
        target: named,
        prefix,
        pattern,
        start,
        start_after,
        end,
        reverse,
        limit,
        cursor,
        count: is_count,
        json: _,
        text: _,
        values: _,
        key_format,
    } = arguments;
    refuse("--start", start.is_some(), ONLY_PREFIXES)?;
    refuse("--start-after", start_after.is_some(), ONLY_PREFIXES)?;
    refuse("--end", end.is_some(), ONLY_PREFIXES)?;
    refuse("--reverse", *reverse, ONLY_PREFIXES)?;
    let format = key_format.unwrap_or_default();
    let mut prefix = format.parse(prefix)?;
    let pattern = pattern
        .as_ref()
        .map(|pattern| Pattern::parse(&format.parse(pattern)?))
        .transpose()?;
    let literal = pattern.as_ref().map(Pattern::prefix).unwrap_or_default();
    if literal.starts_with(&prefix) {
        prefix = literal;
    }
    let prefix = if prefix.is_empty() { "" } else { text(&prefix)? };
    let namespace = target(session, client, named)?;
    let _expected = interrupt::expect();
    let mut out = stdout();
    if *is_count && pattern.is_none() {
        writeln!(out, "{}", count(client, &namespace.id, prefix)?)?;
        return Ok(out.flush()?);
    }
    let mut walk = Walk {
        client,
        id: &namespace.id,
        prefix,
        pattern,
        left: limit.unwrap_or(u64::MAX),
        cursor: cursor.clone(),
        is_stopped: false,
    };
    if *is_count {
        let mut keys = 0;
        walk.all(|page| {
            keys += page.len();
            Ok(())
        })?;
        if !walk.is_stopped {
            writeln!(out, "{keys}")?;
        }
        return out.flush().map_err(Failure::from).and(walk.outcome());
    }
    print(session, arguments, &mut walk, &mut out)
}

fn print(session: &Session, arguments: &List, walk: &mut Walk<'_>, out: &mut dyn Write) -> Outcome {
    let mut printed = Printed {
        session,
        reader: Reader::new(walk.client, walk.id),
        style: Style::of(arguments),
        with_values: arguments.values,
        unreadable: 0,
    };
    walk.all(|page| printed.page(out, page))?;
    printed.style.end(out)?;
    out.flush()?;
    if let Some(cursor) = &walk.cursor {
        session.note(format_args!("cursor: {cursor}"));
    }
    walk.outcome()?;
    match printed.unreadable {
        0 => Ok(()),
        keys => Err(Failure::damaged_keys(keys, "they are listed without their values")),
    }
}

/// A walk over the keys of a listing.
struct Walk<'a> {
    client: &'a Client,
    id: &'a str,
    prefix: &'a str,
    pattern: Option<Pattern>,
    /// Keys that may still be shown.
    left: u64,
    /// Where to go on; none if no key follows.
    cursor: Option<String>,
    is_stopped: bool,
}

impl Walk<'_> {
    /// Shows all keys, up to the limit, page by page.
    fn all(&mut self, mut show: impl FnMut(&[ListedKey]) -> Outcome) -> Outcome {
        while self.left > 0 {
            let keys = self.page()?;
            show(&keys)?;
            if self.cursor.is_none() {
                break;
            }
            if interrupt::is_requested() {
                self.is_stopped = true;
                break;
            }
        }
        Ok(())
    }

    fn page(&mut self) -> Outcome<Vec<ListedKey>> {
        let from = self.cursor.take();
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let asked = match self.pattern {
            Some(_) => PAGE_KEYS,
            None => left.clamp(LIMIT_MIN, PAGE_KEYS),
        };
        let page = self.client.keys(self.id, self.prefix, from.as_deref(), asked)?;
        self.cursor = page.cursor;
        let (all, mut read) = (page.keys.len(), 0);
        let mut keys = Vec::new();
        for key in page.keys {
            if keys.len() == left {
                break;
            }
            read += 1;
            if self
                .pattern
                .as_ref()
                .is_none_or(|pattern| pattern.matches(key.name.as_bytes()))
            {
                keys.push(key);
            }
        }
        if read < all {
            // The cursor of the page would skip the keys that are not shown.
            self.cursor = match self.client.keys(self.id, self.prefix, from.as_deref(), read) {
                Ok(shorter) => shorter.cursor,
                // Workers KV has no pages this short. Nothing follows, since the limit is reached.
                Err(Error::Refused(refusal)) if refusal.is_invalid() => None,
                Err(error) => return Err(error.into()),
            };
        }
        self.left -= keys.len() as u64;
        Ok(keys)
    }

    fn outcome(&self) -> Outcome {
        match self.is_stopped {
            true => Err(Failure::stopped("there are more keys")),
            false => Ok(()),
        }
    }
}

/// A listing being printed.
struct Printed<'a> {
    session: &'a Session,
    reader: Reader<'a>,
    style: Style,
    with_values: bool,
    unreadable: u64,
}

impl Printed<'_> {
    fn page(&mut self, out: &mut dyn Write, keys: &[ListedKey]) -> Outcome {
        if !self.with_values {
            return keys.iter().try_for_each(|key| self.style.entry(out, key.entry()));
        }
        let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
        let (session, style, unreadable) = (self.session, &mut self.style, &mut self.unreadable);
        let mut listed = keys.iter();
        let read = self.reader.read(&names, |name, got| {
            let key = listed.next().map(ListedKey::entry).unwrap_or_default();
            match got {
                // Deleted since it was listed.
                Got::Absent => {}
                Got::Found(item) => style.entry(out, item.entry(name))?,
                Got::Unreadable(refusal) => {
                    *unreadable += 1;
                    session.tell_damage(format_args!("the key \"{name}\": {}", refusal.message));
                    style.entry(out, key)?;
                }
            }
            Ok(ControlFlow::Continue(()))
        });
        read.map(drop)
    }
}

impl ListedKey {
    fn entry(&self) -> Entry<'_> {
        Entry {
            key: self.name.as_bytes(),
            expiry_ms: self.expiration.map(|seconds| seconds.saturating_mul(1000)),
            metadata: self.metadata.as_ref().map(|json| json.get().as_bytes()),
            ..Entry::default()
        }
    }
}
