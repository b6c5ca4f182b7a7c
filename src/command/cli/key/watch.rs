//! `embercask key watch`.

use std::io::Write;
use std::time::Duration;

use embercask::{Event, Value, WatchOptions};
use serde::Serialize;

use crate::cli::arguments::Watch;
use crate::cli::entry::Entry;
use crate::cli::output::{ListedKey, json_line, stdout};
use crate::cli::session::Session;
use crate::common::failure::{Failure, Outcome, status};
use crate::common::interrupt;
use crate::common::text::escape;

/// Interval between looks for Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A change, of a store or told by a server.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change<'a> {
    pub(crate) event: &'static str,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    /// Whole seconds, rounded up.
    pub(crate) expiration: Option<u64>,
    pub(crate) sequence: u64,
}

/// A change as a line of JSON.
#[derive(Serialize)]
struct Told<'a> {
    event: &'static str,
    #[serde(flatten)]
    key: Option<ListedKey<'a>>,
    sequence: u64,
}

impl<'a> Change<'a> {
    /// None for events of kinds that this program does not know.
    fn of(event: &'a Event) -> Option<Change<'a>> {
        let (name, expiry_ms, value) = match event {
            Event::Put { expiry_ms, value, .. } => ("put", *expiry_ms, value.as_ref()),
            Event::Delete { .. } => ("delete", None, None),
            Event::Expired { .. } => ("expired", None, None),
            Event::Dropped { .. } => ("dropped", None, None),
            Event::Missed { .. } => ("missed", None, None),
            _ => return None,
        };
        Some(Change {
            event: name,
            key: event.key(),
            value: value.map(Value::as_bytes),
            expiration: expiry_ms.map(|ms| ms.div_ceil(1000)),
            sequence: event.sequence(),
        })
    }

    /// Prints the change on a line, at once.
    pub(crate) fn print(&self, out: &mut dyn Write, as_json: bool) -> Outcome {
        match self.key {
            _ if as_json => {
                let listed = |key| {
                    ListedKey::of(&Entry {
                        key,
                        value: self.value,
                        expiry_ms: self.expiration.map(|seconds| seconds.saturating_mul(1000)),
                        ..Entry::default()
                    })
                };
                let told = Told {
                    event: self.event,
                    key: self.key.map(listed),
                    sequence: self.sequence,
                };
                json_line(out, &told)?;
            }
            Some(key) => writeln!(out, "{} {}", self.event, escape(key))?,
            None => writeln!(out, "{}", self.event)?,
        }
        Ok(out.flush()?)
    }
}

pub(super) fn watch(session: &Session, arguments: &Watch) -> Outcome {
    let prefix = arguments.key_format.parse(&arguments.prefix)?;
    let namespace = session.namespace(&arguments.target).map_err(of_another)?;
    let options = WatchOptions::new().values(arguments.values);
    let mut watch = namespace.watch_with(prefix, options)?;
    let _expected = interrupt::expect();
    session.note(format_args!(
        "Watching \"{}\" until Ctrl-C. No other process can write to this store meanwhile.",
        namespace.name()
    ));
    follow(&mut watch, arguments, &mut stdout())
}

/// Tells changes until enough are told, Ctrl-C, or the end of the namespace.
fn follow(watch: &mut embercask::Watch, arguments: &Watch, out: &mut dyn Write) -> Outcome {
    let mut left = arguments.count.unwrap_or(u64::MAX);
    while left > 0 && !watch.is_ended() && !interrupt::is_requested() {
        let Some(event) = watch.next_timeout(LOOK_EVERY) else {
            continue;
        };
        if let Some(change) = Change::of(&event) {
            change.print(out, arguments.json)?;
            left -= 1;
        }
    }
    Ok(())
}

/// A watcher hears of the writes of its own process, so it is of no use beside another one.
fn of_another(failure: Failure) -> Failure {
    match failure {
        Failure::Told {
            message,
            status: status::IN_USE,
            ..
        } => Failure::Told {
            message: format!("{message}; only that process can tell of its writes"),
            hint: "if it is `embercask serve`, watch through its address with --url".to_owned(),
            status: status::IN_USE,
        },
        failure => failure,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use embercask::{PutOptions, Store};

    use super::*;
    use crate::cli::arguments::{Arguments, Command, Key};

    /// What is told with these flags of what the function does.
    fn told(flags: &[&str], act: impl FnOnce(&embercask::Namespace)) -> String {
        let words = ["embercask", "watch", "-n", "N"].iter().chain(flags);
        let Command::Short(Key::Watch(arguments)) = Arguments::parse_from(words).command else {
            panic!("this is `watch`")
        };
        let store = Store::in_memory().unwrap();
        let namespace = store.namespace("N").unwrap();
        let options = WatchOptions::new().values(arguments.values);
        let mut watch = namespace
            .watch_with(arguments.prefix.as_encoded_bytes(), options)
            .unwrap();
        act(&namespace);
        let mut out = Vec::new();
        follow(&mut watch, &arguments, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn changes(namespace: &embercask::Namespace) {
        namespace.put("b", "not told").unwrap();
        namespace
            .put_with("a\n", b"\xff", PutOptions::new().expiration(4_000_000_000))
            .unwrap();
        namespace.put(b"a\xff", "text").unwrap();
        namespace.delete("a\n").unwrap();
        namespace.store().drop_namespace("N").unwrap();
    }

    #[test]
    fn changes_are_told_in_order_one_a_line() {
        assert_eq!(
            told(&["--prefix", "a"], changes),
            "put a\\n\nput a\\xff\ndelete a\\n\ndropped\n"
        );
        assert_eq!(told(&["--prefix", "a", "--count", "1"], changes), "put a\\n\n");
        assert_eq!(told(&["--count", "0"], changes), "");
    }

    #[test]
    fn changes_are_told_as_json_with_values_if_asked_for() {
        let lines = told(&["--prefix", "a", "--json", "--values"], changes);
        let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 4);
        let first = &lines[0];
        assert_eq!((&first["event"], &first["name"]), (&"put".into(), &"a\n".into()));
        assert_eq!(
            (&first["value_base64"], &first["expiration"]),
            (&"/w==".into(), &4_000_000_000_u64.into())
        );
        assert!(first["sequence"].as_u64() < lines[2]["sequence"].as_u64());
        assert_eq!(
            (&lines[1]["name_base64"], &lines[1]["value"]),
            (&"Yf8=".into(), &"text".into())
        );
        assert_eq!(lines[3]["event"], "dropped");
        let without = told(&["--json", "--count", "1"], changes);
        assert!(!without.contains("not told"), "{without}");
    }
}
