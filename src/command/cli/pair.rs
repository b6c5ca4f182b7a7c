//! A pair of a bulk file, as wrangler and people's programs write it.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::destination::Place;
use super::remarks::Remarks;
use super::transfer::array::Item;
use super::transfer::written::Written;
use super::writer::{Change, Lifetime, Position, Write};
use crate::common::failure::{Failure, Outcome};
use crate::common::json_text;
use crate::common::parse::FAR_FUTURE_SECONDS;
use crate::common::text::quoted;

/// A pair to put.
pub(crate) struct Pair {
    pub(crate) position: Position,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) metadata: Option<Vec<u8>>,
    pub(crate) lifetime: Lifetime,
}

#[derive(Deserialize)]
#[serde(expecting = "a pair, which is an object with a `key` and a `value`")]
struct Properties<'a> {
    key: String,
    #[serde(borrow)]
    value: &'a RawValue,
    expiration: Option<Seconds>,
    expiration_ttl: Option<Seconds>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    base64: Option<bool>,
    /// wrangler warns about them too.
    #[serde(flatten)]
    unknown: Unknown,
}

impl Pair {
    /// Reads a pair. `called` is how messages refer to one: `pairs.json, pair`.
    pub(crate) fn read(item: Item<'_>, called: &str, remarks: &mut Remarks) -> Outcome<Pair> {
        let position = Position::of_item(&item);
        let Item { text, .. } = item;
        let fail = |key: Option<&str>, failure: Failure| failure.at(position.told(called, key.map(str::as_bytes)));
        let read = serde_json::from_slice(text).map_err(|error| {
            let key = serde_json::from_slice::<KeyOnly>(text).ok();
            let failure = Failure::usage(json_text::told(&error), "");
            fail(key.as_ref().map(|only| &*only.key), failure)
        });
        let Properties {
            key,
            value,
            expiration,
            expiration_ttl,
            metadata,
            base64,
            unknown: Unknown(unknown),
        } = read?;
        let written = written(value, text, base64.unwrap_or(false)).map_err(|failure| fail(Some(&key), failure))?;
        let metadata = metadata.map(|json| json.get().as_bytes().to_vec());
        let lifetime = lifetime(expiration, expiration_ttl).map_err(|failure| fail(Some(&key), failure))?;
        for name in unknown {
            let what = format!("the unknown property {} is ignored", quoted(name.as_bytes()));
            remarks.add(&what, || position.told(called, Some(key.as_bytes())));
        }
        let value = written.take(text).map_err(|failure| fail(Some(&key), failure))?;
        Ok(Pair {
            position,
            key: key.into_bytes(),
            value,
            metadata,
            lifetime,
        })
    }
}

impl Pair {
    /// The put of the pair.
    pub(crate) fn into_write(self, namespace: Place) -> Write {
        Write {
            position: self.position,
            namespace,
            key: self.key,
            change: Change::Put {
                value: self.value,
                metadata: self.metadata,
                lifetime: self.lifetime,
            },
        }
    }
}

/// As in Workers KV, `expiration_ttl` wins over `expiration`.
fn lifetime(expiration: Option<Seconds>, expiration_ttl: Option<Seconds>) -> Outcome<Lifetime> {
    match (expiration_ttl, expiration) {
        (Some(Seconds(FAR_FUTURE_SECONDS..)), _) => Err(Failure::usage(
            "the `expiration_ttl` is tens of thousands of years, and looks like milliseconds or a time",
            "an `expiration_ttl` is in seconds from now; leave it out for a key that does not expire",
        )),
        (Some(Seconds(ttl)), _) => Ok(Lifetime::For(Duration::from_secs(ttl))),
        (None, Some(Seconds(seconds @ FAR_FUTURE_SECONDS..))) => Err(Failure::usage(
            format!("the `expiration` {seconds} is in the far future, and looks like milliseconds or less"),
            "an `expiration` is in seconds since the epoch; leave it out for a key that does not expire",
        )),
        (None, Some(Seconds(seconds))) => Ok(Lifetime::UntilSeconds(seconds)),
        (None, None) => Ok(Lifetime::Default),
    }
}

/// How the value of a pair is written: a string, or other JSON, which is kept as its text.
fn written(value: &RawValue, text: &[u8], base64: bool) -> Outcome<Written> {
    let is_string = value.get().starts_with('"');
    let written = match (base64, is_string) {
        (true, true) => Written::base64(value, text),
        (true, false) => {
            return Err(Failure::usage("`base64` is true, but the value is not a string", ""));
        }
        (false, true) => Written::text(value, text),
        (false, false) if value.get() == "null" => {
            return Err(Failure::usage(
                "the value is null",
                "leave the pair out, or write \"null\" in quotation marks for a value of these four letters",
            ));
        }
        (false, false) => Written::json(value, text),
    };
    written.ok_or_else(|| Failure::usage("the value cannot be read", ""))
}

/// The key of a pair that is wrong otherwise.
#[derive(Deserialize)]
struct KeyOnly {
    key: String,
}

/// A number of seconds, as messages call it.
#[derive(Clone, Copy)]
struct Seconds(u64);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(SecondsVisitor)
    }
}

struct SecondsVisitor;

impl Visitor<'_> for SecondsVisitor {
    type Value = Seconds;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a whole number of seconds")
    }

    fn visit_u64<E>(self, seconds: u64) -> Result<Self::Value, E> {
        Ok(Seconds(seconds))
    }
}

/// The names of properties that a pair does not have.
struct Unknown(Vec<String>);

impl<'de> Deserialize<'de> for Unknown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UnknownVisitor)
    }
}

struct UnknownVisitor;

impl<'de> Visitor<'de> for UnknownVisitor {
    type Value = Unknown;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("properties")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut properties: A) -> Result<Self::Value, A::Error> {
        let mut names = Vec::new();
        while let Some((name, IgnoredAny)) = properties.next_entry()? {
            names.push(name);
        }
        Ok(Unknown(names))
    }
}
