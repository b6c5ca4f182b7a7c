//! Bodies of bulk requests.

use std::fmt;
use std::io::Read;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::ignored::Ignored;
use super::rules::{self, Expiration, ExpiryRules};
use crate::common::base64;
use crate::common::objects::{NamedKey, Object};
use crate::server::error::ApiError;

/// Most pairs or keys of a request.
const ITEMS_MAX: usize = 10_000;
/// Longest body of a bulk get, in bytes: a hundred keys, escaped.
pub(crate) const GET_BODY_BYTES_MAX: usize = 1 << 20;
/// Most keys of a bulk get.
const GET_KEYS_MAX: usize = 100;

/// A pair to put.
struct Pair {
    key: String,
    value: String,
    base64: bool,
    expiration: Option<serde_json::Number>,
    expiration_ttl: Option<serde_json::Number>,
    metadata: Option<Box<RawValue>>,
    /// Other properties.
    ignored: Ignored,
}

/// Not derived: serde would keep the values of unknown properties in memory to tell their names.
impl<'de> Deserialize<'de> for Pair {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairVisitor)
    }
}

struct PairVisitor;

impl<'de> Visitor<'de> for PairVisitor {
    type Value = Pair;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Pair, A::Error> {
        /// Reads the value of a property that an object has once.
        fn once<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
            property: &mut Option<T>,
            name: &'static str,
            members: &mut A,
        ) -> Result<(), A::Error> {
            match property.replace(members.next_value()?) {
                None => Ok(()),
                Some(_) => Err(A::Error::duplicate_field(name)),
            }
        }
        let (mut key, mut value, mut base64, mut metadata) = (None, None, None, None);
        let (mut expiration, mut expiration_ttl, mut ignored) = (None, None, Ignored::default());
        while let Some(name) = members.next_key::<String>()? {
            match &name[..] {
                "key" => once(&mut key, "key", &mut members)?,
                "value" => once(&mut value, "value", &mut members)?,
                "base64" => once(&mut base64, "base64", &mut members)?,
                "expiration" => once(&mut expiration, "expiration", &mut members)?,
                "expiration_ttl" => once(&mut expiration_ttl, "expiration_ttl", &mut members)?,
                "metadata" => once(&mut metadata, "metadata", &mut members)?,
                unknown => {
                    members.next_value::<IgnoredAny>()?;
                    ignored.add(unknown);
                }
            }
        }
        Ok(Pair {
            key: key.ok_or_else(|| A::Error::missing_field("key"))?,
            value: value.ok_or_else(|| A::Error::missing_field("value"))?,
            base64: base64.unwrap_or_default(),
            expiration: expiration.flatten(),
            expiration_ttl: expiration_ttl.flatten(),
            metadata: metadata.flatten(),
            ignored,
        })
    }
}

/// A key to delete, in the form of a listing.
#[derive(Deserialize)]
struct Listed {
    name: String,
}

/// The put for a pair.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) key: String,
    pub(crate) value: Vec<u8>,
    /// When the key expires, if ever.
    pub(crate) expiration: Option<Expiration>,
    pub(crate) metadata: Option<Vec<u8>>,
}

/// Takes the items of an array one by one while it is read; returns their number. The first item
/// that is refused is the last one taken, and refuses the body if all of it could be parsed.
fn each<T: DeserializeOwned>(
    body: impl Read,
    take: impl FnMut(usize, T) -> Result<(), ApiError>,
) -> Result<usize, ApiError> {
    let mut items = Items {
        take,
        taken: 0,
        refused: None,
        are_more: false,
        kind: PhantomData,
    };
    let mut json = serde_json::Deserializer::from_reader(body);
    json.deserialize_seq(&mut items)
        .and_then(|()| json.end())
        .map_err(|error| ApiError::new(400, 10012, format!("the request body could not be parsed: {error}")))?;
    if items.are_more {
        let message = format!("You can send a maximum of {ITEMS_MAX} items");
        return Err(ApiError::new(400, 10029, message));
    }
    items.refused.map_or(Ok(items.taken), Err)
}

/// The items of an array, up to the limit. More are noticed, but take no memory.
struct Items<T, F> {
    take: F,
    taken: usize,
    refused: Option<ApiError>,
    are_more: bool,
    kind: PhantomData<T>,
}

impl<'de, T, F> Visitor<'de> for &mut Items<T, F>
where
    T: DeserializeOwned,
    F: FnMut(usize, T) -> Result<(), ApiError>,
{
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while self.taken < ITEMS_MAX {
            let Some(item) = array.next_element()? else {
                return Ok(());
            };
            if self.refused.is_none() {
                self.refused = (self.take)(self.taken, item).err();
            }
            self.taken += 1;
        }
        while array.next_element::<IgnoredAny>()?.is_some() {
            self.are_more = true;
        }
        Ok(())
    }
}

/// Takes the pairs of a bulk put one by one; returns their number and their unknown properties, or
/// an error if any is invalid.
pub(crate) fn puts(
    body: impl Read,
    expiry_rules: ExpiryRules,
    mut take: impl FnMut(Put),
) -> Result<(usize, Ignored), ApiError> {
    let mut ignored = Ignored::default();
    let pairs = each(body, |index, pair: Pair| {
        ignored.extend(&pair.ignored);
        let put = put_of(pair, expiry_rules).map_err(|error| ApiError {
            message: format!("item {index}: {}", error.message),
            ..error
        })?;
        take(put);
        Ok(())
    });
    pairs.map(|pairs| (pairs, ignored))
}

fn put_of(pair: Pair, expiry_rules: ExpiryRules) -> Result<Put, ApiError> {
    rules::check_key(pair.key.as_bytes())?;
    let text = |number: Option<serde_json::Number>| number.map(|number| number.to_string());
    let (expiration, ttl) = (text(pair.expiration), text(pair.expiration_ttl));
    let expiration = rules::expiration(expiration.as_deref(), ttl.as_deref(), expiry_rules)?;
    let metadata = pair.metadata.as_ref().map(|json| json.get().as_bytes());
    let metadata = metadata.map(rules::check_metadata).transpose()?.flatten();
    let metadata = metadata.map(<[u8]>::to_vec);
    let value = if pair.base64 {
        let mut value = pair.value.into_bytes();
        let decoded = base64::decode_in_place(&mut value);
        decoded.map_err(|error| ApiError::new(400, 10012, error.to_string()))?;
        value
    } else {
        pair.value.into_bytes()
    };
    rules::check_value(value.len() as u64)?;
    Ok(Put {
        key: pair.key,
        value,
        expiration,
        metadata,
    })
}

/// Takes the keys of a bulk delete one by one; returns their number, or an error if any is invalid.
pub(crate) fn names(body: impl Read, mut take: impl FnMut(String)) -> Result<usize, ApiError> {
    each(body, |_, name| {
        let (NamedKey::Plain(key) | NamedKey::Object(Listed { name: key })) = name;
        rules::check_deleted_key(key.as_bytes())?;
        take(key);
        Ok(())
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GetBody {
    keys: Vec<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    with_metadata: Option<bool>,
    /// A string, as workerd sends it, or a number.
    cache_ttl: Option<serde_json::Value>,
}

/// A bulk get.
#[derive(Debug)]
pub(crate) struct Get {
    /// In the order of the request, without duplicates.
    pub(crate) keys: Vec<String>,
    pub(crate) kind: Kind,
    pub(crate) with_metadata: bool,
}

pub(crate) fn get(body: &[u8]) -> Result<Get, ApiError> {
    let unreadable = |_| ApiError::new(400, 10012, "the request body could not be parsed");
    let Object::<GetBody>(body) = serde_json::from_slice(body).map_err(unreadable)?;
    let kind = Kind::of(body.kind.as_deref())?;
    match body.keys.len() {
        0 => return Err(ApiError::new(400, 10029, "You must request a minimum of 1 key")),
        1..=GET_KEYS_MAX => {}
        _ => return Err(ApiError::new(400, 10029, "You can request a maximum of 100 keys")),
    }
    let cache_ttl = body.cache_ttl.filter(|ttl| !ttl.is_null()).map(|ttl| match ttl {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    });
    for key in &body.keys {
        rules::check_key(key.as_bytes())?;
        rules::check_cache_ttl(cache_ttl.as_deref())?;
    }
    let mut seen = std::collections::HashSet::new();
    let keys = body.keys.into_iter().filter(|key| seen.insert(key.clone()));
    Ok(Get {
        keys: keys.collect(),
        kind,
        with_metadata: body.with_metadata.unwrap_or(false),
    })
}

/// How values are returned.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Text,
    Json,
}

impl Kind {
    fn of(name: Option<&str>) -> Result<Kind, ApiError> {
        match name {
            None | Some("text") => Ok(Kind::Text),
            Some("json") => Ok(Kind::Json),
            Some(other) => {
                let message = format!("\"{other}\" is not a valid type. Use \"json\" or \"text\"");
                Err(ApiError::new(400, 10001, message))
            }
        }
    }

    /// A value in JSON: as a string, with U+FFFD for invalid UTF-8, or verbatim if it must be JSON.
    pub(crate) fn show(self, value: &[u8]) -> Result<Shown<'_>, ApiError> {
        match self {
            Kind::Text => Ok(Shown::Text(value)),
            Kind::Json => serde_json::from_slice(value).map(Shown::Json).map_err(|_| {
                let message = "At least one of the requested keys corresponds to a non-json value";
                ApiError::new(400, 10001, message)
            }),
        }
    }
}

/// A value in JSON, not copied.
#[derive(Debug)]
pub(crate) enum Shown<'a> {
    Text(&'a [u8]),
    Json(&'a RawValue),
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Shown::Json(json) => json.serialize(serializer),
            Shown::Text(bytes) => serializer.collect_str(&Lossy(bytes)),
        }
    }
}

/// Text, with U+FFFD for what is none.
struct Lossy<'a>(&'a [u8]);

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            formatter.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                formatter.write_str("\u{fffd}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_taken_as_tools_write_it() {
        let rules = ExpiryRules {
            now_ms: 0,
            ttl_seconds_min: 60,
        };
        let put = |value: &str| {
            let body = serde_json::json!([{ "key": "k", "value": value, "base64": true }]).to_string();
            let mut values = Vec::new();
            puts(body.as_bytes(), rules, |put| values.push(put.value)).map(|_| values)
        };
        for value in ["+/9hYg==", "+/9hYg", "-_9hYg", "+/9h\r\nYg==\r\n"] {
            assert_eq!(put(value).unwrap(), [b"\xfb\xffab"], "{value}");
        }
        for value in ["+_9hYg", "+/9hY", "?"] {
            assert_eq!(put(value).unwrap_err().status, 400, "{value}");
        }
    }
}
