//! `embercask key watch` on a server: server-sent events, which `embercask serve` has beyond the
//! REST API.

use std::ops::ControlFlow;

use serde::Deserialize;

use super::address::encoded;
use super::client::{Call, Client};
use super::{refuse, target};
use crate::cli::arguments::Watch;
use crate::cli::key::watch::Change;
use crate::cli::output::stdout;
use crate::cli::session::Session;
use crate::common::failure::{Failure, Outcome};
use crate::common::interrupt;
use crate::common::parse::decode_base64;

/// Longest line of an event: the largest key, each byte as a JSON escape, and room for the rest.
const LINE_BYTES_MAX: usize = 1 << 20;

/// What an event says.
#[derive(Deserialize)]
struct Data {
    key: Option<String>,
    key_base64: Option<String>,
    expiration: Option<u64>,
    sequence: Option<u64>,
    up_to: Option<u64>,
}

pub(super) fn watch(session: &Session, client: &Client, arguments: &Watch) -> Outcome {
    let Watch {
        target: named,
        prefix,
        count,
        json,
        values,
        key_format,
    } = arguments;
    let without = [
        "the server tells of changes without values",
        "read them with `embercask get`",
    ];
    refuse("--values", *values, without)?;
    let prefix = key_format.parse(prefix)?;
    let namespace = target(session, client, named)?;
    let _expected = interrupt::expect();
    session.note(format_args!(
        "Watching \"{}\" on {} until Ctrl-C.",
        namespace.name,
        client.shown()
    ));
    let path = format!("/admin/watch?namespace={}&prefix={}", namespace.id, encoded(&prefix));
    let mut out = stdout();
    let mut left = count.unwrap_or(u64::MAX);
    let mut events = Events::default();
    let is_ended = client.follow(&Call::of_server(path), |bytes| {
        events.add(bytes, |event, data| {
            if left == 0 {
                return Ok(ControlFlow::Break(()));
            }
            let data: Data = serde_json::from_slice(data)
                .map_err(|error| Failure::system(format!("{}: this is no event: {error}", client.shown()), ""))?;
            let event = match event {
                "put" => "put",
                "delete" => "delete",
                "expire" => "expired",
                "missed" => "missed",
                "dropped" => "dropped",
                // The first one, and those that a later server may have.
                _ => return Ok(ControlFlow::Continue(())),
            };
            let key = match (&data.key, &data.key_base64) {
                (Some(key), _) => Some(key.clone().into_bytes()),
                (None, Some(base64)) => Some(decode_base64(base64)?),
                (None, None) => None,
            };
            let change = Change {
                event,
                key: key.as_deref(),
                value: None,
                expiration: data.expiration,
                sequence: data.sequence.or(data.up_to).unwrap_or_default(),
            };
            change.print(&mut out, *json)?;
            left -= 1;
            Ok(match left == 0 || event == "dropped" {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
        })
    })?;
    match is_ended {
        true => Err(Failure::system(format!("{} has ended the watch", client.shown()), "")),
        false => Ok(()),
    }
}

/// Reads server-sent events from parts of any length.
#[derive(Default)]
struct Events {
    line: Vec<u8>,
    event: String,
    data: Vec<u8>,
}

impl Events {
    /// Passes on the events that these bytes complete.
    fn add(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(&str, &[u8]) -> Outcome<ControlFlow<()>>,
    ) -> Outcome<ControlFlow<()>> {
        for byte in bytes {
            if *byte != b'\n' {
                if self.line.len() == LINE_BYTES_MAX {
                    return Err(Failure::system(
                        "the server sends a line that is too long for an event",
                        "",
                    ));
                }
                self.line.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            if let Some(event) = line.strip_prefix(b"event: ") {
                self.event = String::from_utf8_lossy(event).into_owned();
            } else if let Some(data) = line.strip_prefix(b"data: ") {
                self.data.extend_from_slice(data);
            } else if line.is_empty() && !self.data.is_empty() {
                let (event, data) = (std::mem::take(&mut self.event), std::mem::take(&mut self.data));
                if take(&event, &data)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_in_parts_of_any_length() {
        let text = b"event: put\ndata: {\"key\":\"a\"}\n\n:\n\nevent: delete\r\ndata: {}\r\n\r\nevent: half\ndata: {";
        for length in 1..text.len() {
            let mut events = Events::default();
            let mut read = Vec::new();
            for part in text.chunks(length) {
                let added = events.add(part, |event, data| {
                    read.push((event.to_owned(), String::from_utf8_lossy(data).into_owned()));
                    Ok(ControlFlow::Continue(()))
                });
                assert!(added.is_ok());
            }
            let expected = [("put", "{\"key\":\"a\"}"), ("delete", "{}")];
            assert_eq!(
                read,
                expected.map(|(event, data)| (event.to_owned(), data.to_owned())),
                "{length}"
            );
        }
        assert!(
            Events::default()
                .add(&vec![b'a'; LINE_BYTES_MAX + 1], |_, _| unreachable!())
                .is_err()
        );
    }
}
