//! Values with their expiry and metadata, many at a time.

use std::ops::ControlFlow;

use super::api::{GET_KEYS, WithMetadata};
use super::client::Client;
use super::error::{Error, Refusal};
use crate::cli::entry::Entry;
use crate::common::failure::{Failure, Outcome};

/// Bytes of values that one request should return.
const ASKED_BYTES: usize = 4 << 20;
/// Keys of the first request, before it is known how large values are.
const FIRST_KEYS: usize = 16;
/// How often a key is read again that changes while it is read.
const READS_MAX: u32 = 20;

/// A value.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) value: Vec<u8>,
    expiration: Option<u64>,
    metadata: Option<String>,
}

impl Item {
    pub(super) fn entry<'a>(&'a self, key: &'a str) -> Entry<'a> {
        Entry {
            key: key.as_bytes(),
            value: Some(&self.value),
            expiry_ms: self.expiration.map(|seconds| seconds.saturating_mul(1000)),
            metadata: self.metadata.as_ref().map(String::as_bytes),
            sequence: None,
        }
    }
}

/// What the server has for a key.
#[derive(Debug)]
pub(super) enum Got {
    Absent,
    Found(Item),
    /// Its record is damaged, or the REST API cannot name the key.
    Unreadable(Refusal),
}

/// Reads the values of keys in requests that fit the limits of the server.
pub(super) struct Reader<'a> {
    client: &'a Client,
    id: &'a str,
    /// Keys of the next request.
    keys: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(client: &'a Client, id: &'a str) -> Reader<'a> {
        Reader {
            client,
            id,
            keys: FIRST_KEYS,
        }
    }

    /// Passes on what the server has for each key, in their order, until `take` breaks.
    pub(super) fn read(
        &mut self,
        keys: &[&str],
        mut take: impl FnMut(&str, Got) -> Outcome<ControlFlow<()>>,
    ) -> Outcome<ControlFlow<()>> {
        let mut from = 0;
        while let Some(rest) = keys.get(from..).filter(|rest| !rest.is_empty()) {
            let some = rest.get(..self.keys).unwrap_or(rest);
            let got = self.some(some)?;
            let bytes: usize = got
                .iter()
                .map(|got| {
                    if let Got::Found(item) = got {
                        item.value.len()
                    } else {
                        0
                    }
                })
                .sum();
            let each = (bytes / some.len()).max(1);
            self.keys = (ASKED_BYTES / each).clamp(1, GET_KEYS);
            from += some.len();
            for (key, got) in some.iter().zip(got) {
                if take(key, got)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// What the server has for one key.
    pub(super) fn one(&self, key: &str) -> Outcome<Got> {
        Ok(self.some(&[key])?.into_iter().next().unwrap_or(Got::Absent))
    }

    /// Asks for all of these keys at once; for fewer, if the server cannot return all of them.
    fn some(&self, keys: &[&str]) -> Outcome<Vec<Got>> {
        let mut found = match self.client.bulk_get(self.id, keys) {
            Ok(found) => found,
            Err(Error::Refused(refusal)) if is_for_some(&refusal) => match keys {
                [key] => return Ok(vec![self.alone(key)?]),
                _ => {
                    let (first, second) = keys.split_at(keys.len() / 2);
                    let mut got = self.some(first)?;
                    got.extend(self.some(second)?);
                    return Ok(got);
                }
            },
            Err(error) => return Err(error.into()),
        };
        let got = keys.iter().map(|key| match found.remove(*key).flatten() {
            None => Ok(Got::Absent),
            Some(value) if value.value.contains(char::REPLACEMENT_CHARACTER) => self.exact(key, value),
            Some(value) => Ok(Got::Found(Item {
                expiration: value.expiration,
                metadata: value.metadata.map(|json| json.get().to_owned()),
                value: value.value.into_bytes(),
            })),
        });
        got.collect()
    }

    /// The value that was returned with U+FFFD in it, which may not be what is stored.
    fn exact(&self, key: &str, mut shown: WithMetadata) -> Outcome<Got> {
        for _ in 0..READS_MAX {
            let (bytes, expiration) = match self.client.value(self.id, key) {
                Ok(value) => value,
                Err(error) => return unread(error),
            };
            // Otherwise it was overwritten in between, and the metadata may not belong to it.
            if String::from_utf8_lossy(&bytes) == shown.value && expiration == shown.expiration {
                return Ok(Got::Found(Item {
                    value: bytes.into(),
                    expiration,
                    metadata: shown.metadata.map(|json| json.get().to_owned()),
                }));
            }
            match self.client.bulk_get(self.id, &[key])?.remove(key).flatten() {
                Some(again) => shown = again,
                None => return Ok(Got::Absent),
            }
        }
        Err(Failure::system(
            format!("the key \"{key}\" changes faster than it can be read"),
            "",
        ))
    }

    /// A value that a bulk get cannot return.
    fn alone(&self, key: &str) -> Outcome<Got> {
        let read = || {
            let metadata = self.client.metadata(self.id, key)?;
            let (bytes, expiration) = self.client.value(self.id, key)?;
            Ok(Got::Found(Item {
                value: bytes.into(),
                expiration,
                metadata: metadata.map(|json| json.get().to_owned()),
            }))
        };
        read().or_else(unread)
    }
}

/// Whether the refusal may be due to some of the keys only.
fn is_for_some(refusal: &Refusal) -> bool {
    refusal.is_invalid() || refusal.status == 500
}

fn unread(error: Error) -> Outcome<Got> {
    match error {
        Error::Refused(refusal) if refusal.is_no_key() => Ok(Got::Absent),
        Error::Refused(refusal) if refusal.is_invalid() || refusal.is_damage() => Ok(Got::Unreadable(refusal)),
        error => Err(error.into()),
    }
}
