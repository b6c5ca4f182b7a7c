//! `embercask key list`.

use std::io::Write;

use embercask::EntryRef;

use crate::cli::arguments::List;
use crate::cli::entry::Entry;
use crate::cli::output::{ListedKey, json, json_line, stdout};
use crate::cli::session::Session;
use crate::common::failure::{Failure, Outcome};
use crate::common::interrupt;
use crate::common::parse::Format;
use crate::common::pattern::Pattern;

/// Keys per page.
const PAGE_KEYS: usize = 1000;

pub(super) fn list(session: &Session, arguments: &List) -> Outcome {
    let mut walk = Walk::of(session, arguments)?;
    let mut out = stdout();
    if arguments.count && walk.pattern.is_none() {
        writeln!(out, "{}", walk.list.count()?)?;
        return Ok(out.flush()?);
    }
    let _expected = interrupt::expect();
    if arguments.count {
        let mut keys = 0_u64;
        walk.all(&mut |_| {
            keys += 1;
            Ok(())
        })?;
        if !walk.is_stopped {
            writeln!(out, "{keys}")?;
        }
        return out.flush().map_err(Failure::from).and(walk.outcome());
    }
    let mut style = Style::of(arguments);
    let mut damaged = 0;
    walk.all(&mut |entry| {
        if let Some(error) = entry.error() {
            damaged += 1;
            session.tell_damage(error);
        }
        style.entry(&mut out, Entry::of(entry))
    })?;
    style.end(&mut out)?;
    out.flush()?;
    if let Some(cursor) = &walk.cursor {
        session.note(format_args!("cursor: {cursor}"));
    }
    walk.outcome()?;
    if damaged > 0 {
        return Err(Failure::damaged_keys(
            damaged,
            "they are listed without their unreadable parts",
        ));
    }
    Ok(())
}

/// A walk over the keys that the arguments name.
struct Walk {
    list: embercask::List,
    pattern: Option<Pattern>,
    is_reverse: bool,
    /// Keys that may still be shown.
    left: u64,
    /// Where to go on; none if no key follows.
    cursor: Option<String>,
    is_stopped: bool,
}

impl Walk {
    fn of(session: &Session, arguments: &List) -> Outcome<Walk> {
        let format = arguments.key_format.unwrap_or_default();
        let mut prefix = format.parse(&arguments.prefix)?;
        let pattern = arguments.pattern.as_ref();
        let pattern = pattern
            .map(|pattern| Pattern::parse(&format.parse(pattern)?))
            .transpose()?;
        let literal = pattern.as_ref().map(Pattern::prefix).unwrap_or_default();
        if literal.starts_with(&prefix) {
            prefix = literal;
        }
        let mut list = session.namespace_to_read(&arguments.target)?.list().prefix(prefix);
        if let Some(start) = &arguments.start {
            list = list.start(format.parse(start)?);
        }
        if let Some(start) = &arguments.start_after {
            list = list.start_after(format.parse(start)?);
        }
        if let Some(end) = &arguments.end {
            list = list.end(format.parse(end)?);
        }
        if arguments.reverse {
            list = list.reverse();
        }
        if arguments.values {
            list = list.with_values();
        }
        Ok(Walk {
            list: list.page_size(PAGE_KEYS),
            pattern,
            is_reverse: arguments.reverse,
            left: arguments.limit.unwrap_or(u64::MAX),
            cursor: arguments.cursor.clone(),
            is_stopped: false,
        })
    }

    /// Shows all keys, up to the limit.
    fn all(&mut self, show: &mut dyn FnMut(&EntryRef<'_>) -> Outcome) -> Outcome {
        while self.left > 0 {
            self.page(show)?;
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

    fn page(&mut self, show: &mut dyn FnMut(&EntryRef<'_>) -> Outcome) -> Outcome {
        let mut list = self.list.clone();
        if let Some(cursor) = self.cursor.take() {
            list = list.cursor(cursor);
        }
        let page = match self.pattern {
            Some(_) => list.page()?,
            None => list.clone().limit(self.left).page()?,
        };
        self.cursor = page.cursor().map(str::to_owned);
        for (index, entry) in page.iter().enumerate() {
            let is_meant = self.pattern.as_ref().is_none_or(|pattern| pattern.matches(entry.key()));
            if !is_meant {
                continue;
            }
            show(&entry)?;
            self.left -= 1;
            if self.left == 0 && index + 1 < page.len() {
                self.cursor = self.cursor_at(&list, entry.key(), index as u64 + 1)?;
                break;
            }
        }
        Ok(())
    }

    /// The cursor behind a key in the middle of a page, the one behind this number of keys: the
    /// cursor of the page would skip keys. If keys have expired meanwhile, fewer are before it.
    fn cursor_at(&self, page: &embercask::List, key: &[u8], keys: u64) -> Outcome<Option<String>> {
        for keys in (1..=keys).rev() {
            let shorter = page.clone().limit(keys).page()?;
            let is_beyond = |last: EntryRef<'_>| match self.is_reverse {
                true => last.key() < key,
                false => last.key() > key,
            };
            if !shorter.iter().last().is_some_and(is_beyond) {
                return Ok(shorter.cursor().map(str::to_owned));
            }
        }
        Ok(None)
    }

    fn outcome(&self) -> Outcome {
        match self.is_stopped {
            true => Err(Failure::stopped("there are more keys")),
            false => Ok(()),
        }
    }
}

/// Output format of a listing.
pub(crate) enum Style {
    /// A JSON array, as wrangler prints it. It is begun with its first key, so that nothing is
    /// printed if there is none because of a failure.
    Array {
        empty: bool,
        values: bool,
    },
    Lines {
        values: bool,
    },
    Text {
        format: Format,
    },
}

impl Style {
    pub(crate) fn of(arguments: &List) -> Style {
        let values = arguments.values;
        match (arguments.json, arguments.text) {
            (true, _) => Style::Lines { values },
            (false, true) => Style::Text {
                // Keys as they are could look like several, and control the terminal.
                format: arguments
                    .key_format
                    .filter(|format| *format != Format::Raw)
                    .unwrap_or(Format::Escaped),
            },
            (false, false) => Style::Array { empty: true, values },
        }
    }

    pub(crate) fn entry(&mut self, out: &mut dyn Write, entry: Entry<'_>) -> Outcome {
        let shown = |values| match values {
            true => entry,
            false => entry.without_value(),
        };
        match self {
            Style::Array { empty, values } => {
                out.write_all(if *empty { b"[\n  " } else { b",\n  " })?;
                *empty = false;
                json(out, &ListedKey::of(&shown(*values)))
            }
            Style::Lines { values } => json_line(out, &ListedKey::of(&shown(*values))),
            Style::Text { format } => {
                out.write_all(&format.show(entry.key))?;
                Ok(out.write_all(b"\n")?)
            }
        }
    }

    pub(crate) fn end(&self, out: &mut dyn Write) -> Outcome {
        match self {
            Style::Array { empty: true, .. } => Ok(out.write_all(b"[]\n")?),
            Style::Array { .. } => Ok(out.write_all(b"\n]\n")?),
            Style::Lines { .. } | Style::Text { .. } => Ok(()),
        }
    }
}
