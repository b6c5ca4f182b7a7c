//! A second reader of bulk bodies, written from the documentation of Workers KV, without serde.
//! None if a body is refused.

use crate::common::fuzzing::json::{Node, Others, Value, base64};

/// The current time, for checks of expiries.
const NOW_MS: u64 = 1_700_000_000_000;

/// When a key expires, in seconds: from now, or since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    After(u64),
    At(u64),
}

pub(super) type Put = (String, Vec<u8>, Option<Expiry>, Option<Vec<u8>>);

fn items<'n, 'a>(body: &'n Node<'a>) -> Option<&'n [Node<'a>]> {
    match &body.value {
        Value::Array(items) => Some(items).filter(|items| items.len() <= 10_000).map(Vec::as_slice),
        _ => None,
    }
}

pub(super) fn is_key(key: &str) -> bool {
    (1..=512).contains(&key.len()) && key != "." && key != ".."
}

pub(super) fn puts(body: &Node<'_>) -> Option<Vec<Put>> {
    items(body)?.iter().map(put).collect()
}

/// A number of seconds, below those that must be milliseconds.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = text.parse().ok().filter(|_| is_number)?;
    (seconds < 1_000_000_000_000).then_some(seconds)
}

fn put(pair: &Node<'_>) -> Option<Put> {
    let known = ["key", "value", "base64", "expiration", "expiration_ttl", "metadata"];
    let pair = pair.members(|name| known.contains(&name), Others::MeanNothing)?;
    let key = pair.get("key")?.text().filter(|key| is_key(key))?;
    let value = pair.get("value")?.text()?;
    let value = match pair.get("base64").map_or(Some(false), Node::bool)? {
        true => base64(value)?,
        false => value.as_bytes().to_vec(),
    };
    let number = |name| pair.optional(name, |node| node.number().filter(|_| node.is_meaningful()));
    let expiration = match (number("expiration")?, number("expiration_ttl")?) {
        (_, Some(ttl)) => Some(Expiry::After(seconds(ttl).filter(|seconds| *seconds >= 60)?)),
        (Some(at), None) => {
            let seconds = seconds(at)?;
            (seconds >= NOW_MS / 1000 + 60).then_some(Some(Expiry::At(seconds)))?
        }
        (None, None) => None,
    };
    let metadata = pair.raw("metadata")?;
    let fits = value.len() <= 25 << 20 && metadata.as_ref().is_none_or(|metadata| metadata.len() <= 1024);
    fits.then(|| (key.to_owned(), value, expiration, metadata))
}

/// Keys stored by other programs can be deleted even if they break the rules for new keys.
pub(super) fn names(body: &Node<'_>) -> Option<Vec<String>> {
    let name = |item: &Node<'_>| {
        let object = item.members(|name| name == "name", Others::MeanNothing);
        let key = item.text().or_else(|| object?.get("name")?.text())?;
        (1..=65_536).contains(&key.len()).then(|| key.to_owned())
    };
    items(body)?.iter().map(name).collect()
}

/// Keys, whether values are JSON, and whether metadata is requested.
pub(super) fn get(body: &Node<'_>) -> Option<(Vec<String>, bool, bool)> {
    let known = ["keys", "type", "withMetadata", "cacheTtl"];
    let body = body.members(|name| known.contains(&name), Others::MeanNothing)?;
    let given = body.get("keys")?.texts()?;
    if !(1..=100).contains(&given.len()) || !given.iter().all(|key| is_key(key)) {
        return None;
    }
    let mut keys: Vec<String> = Vec::new();
    for key in given {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let is_json = match body.text("type")?.as_deref() {
        None | Some("text") => false,
        Some("json") => true,
        Some(_) => return None,
    };
    // A number, or a number in a string.
    body.optional("cacheTtl", |node| {
        let ttl = node.text().or(node.number())?;
        let ttl: i64 = ttl.parse().ok().filter(|_| !ttl.starts_with('+'))?;
        (ttl >= 30).then_some(ttl)
    })?;
    Some((
        keys,
        is_json,
        body.optional("withMetadata", Node::bool)?.unwrap_or(false),
    ))
}
