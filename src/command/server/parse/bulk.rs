//! Bodies of bulk requests.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

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

/// A pair to put. Other properties are ignored.
#[derive(Deserialize)]
struct Pair {
    key: String,
    value: String,
    #[serde(default)]
    base64: bool,
    expiration: Option<serde_json::Number>,
    expiration_ttl: Option<serde_json::Number>,
    metadata: Option<Box<RawValue>>,
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

fn items<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<Vec<T>, ApiError> {
    let items: Items<T> = serde_json::from_slice(body)
        .map_err(|error| ApiError::new(400, 10012, format!("the request body could not be parsed: {error}")))?;
    if items.are_more {
        let message = format!("You can send a maximum of {ITEMS_MAX} items");
        return Err(ApiError::new(400, 10029, message));
    }
    Ok(items.items)
}

/// The items of an array, up to the limit. More are noticed, but take no memory.
struct Items<T> {
    items: Vec<T>,
    are_more: bool,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Items<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ItemsVisitor(PhantomData))
    }
}

struct ItemsVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ItemsVisitor<T> {
    type Value = Items<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while items.len() < ITEMS_MAX {
            match array.next_element()? {
                Some(item) => items.push(item),
                None => return Ok(Items { items, are_more: false }),
            }
        }
        let mut are_more = false;
        while array.next_element::<IgnoredAny>()?.is_some() {
            are_more = true;
        }
        Ok(Items { items, are_more })
    }
}

/// The pairs of a bulk put; an error if any is invalid.
pub(crate) fn puts(body: &[u8], expiry_rules: ExpiryRules) -> Result<Vec<Put>, ApiError> {
    let pairs = items(body)?.into_iter().enumerate();
    pairs
        .map(|(index, Object(pair))| {
            put_of(pair, expiry_rules).map_err(|error| ApiError {
                message: format!("item {index}: {}", error.message),
                ..error
            })
        })
        .collect()
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

/// The keys of a bulk delete; an error if any is invalid.
pub(crate) fn names(body: &[u8]) -> Result<Vec<String>, ApiError> {
    let names = items(body)?.into_iter();
    names
        .map(|name| {
            let (NamedKey::Plain(key) | NamedKey::Object(Listed { name: key })) = name;
            rules::check_deleted_key(key.as_bytes()).map(|()| key)
        })
        .collect()
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
    pub(crate) fn show(self, value: &[u8]) -> Result<Box<RawValue>, ApiError> {
        match self {
            Kind::Text => serde_json::value::to_raw_value(&String::from_utf8_lossy(value))
                .map_err(|_| ApiError::new(500, 10001, "internal error")),
            Kind::Json => serde_json::from_slice(value).map_err(|_| {
                let message = "At least one of the requested keys corresponds to a non-json value";
                ApiError::new(400, 10001, message)
            }),
        }
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
            puts(body.as_bytes(), rules).map(|puts| puts.into_iter().map(|put| put.value).collect::<Vec<_>>())
        };
        for value in ["+/9hYg==", "+/9hYg", "-_9hYg", "+/9h\r\nYg==\r\n"] {
            assert_eq!(put(value).unwrap(), [b"\xfb\xffab"], "{value}");
        }
        for value in ["+_9hYg", "+/9hY", "?"] {
            assert_eq!(put(value).unwrap_err().status, 400, "{value}");
        }
    }
}
