//! Writing the lines of an export, and the pairs of a bulk file.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::output::Output;
use super::record::VERSION;
use super::source::Exported;
use crate::cli::entry::Entry;
use crate::cli::output::{JsonOrBase64, TextOrBase64};
use crate::common::base64;
use crate::common::failure::{Failure, Outcome};
use crate::common::text::quoted;

/// From this length on, a value is written as base64 if that is shorter than its text.
const LARGE_BYTES: usize = 1 << 20;

/// The first line: the exported store, namespaces and prefix.
#[derive(Serialize)]
struct HeaderLine<'a> {
    export: u32,
    store: String,
    /// None for all.
    namespaces: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix_base64: Option<String>,
}

/// The last line. An export without it was cut off.
#[derive(Serialize)]
struct EndLine {
    end: bool,
    /// Lines between the first one and this.
    lines: u64,
}

/// A namespace, before its keys: preserves its id and settings, and namespaces without keys.
#[derive(Serialize)]
struct NamespaceLine<'a> {
    namespace: &'a str,
    id: String,
    /// An earlier program refuses a line with it, and so does not lose it silently.
    #[serde(skip_serializing_if = "Option::is_none")]
    default_ttl_ms: Option<u64>,
}

#[derive(Serialize)]
struct KeyLine<'a> {
    namespace: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<Base64<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_base64: Option<String>,
}

/// A pair for `bulk put`.
#[derive(Serialize)]
struct BulkPair<'a> {
    key: &'a str,
    value: BulkValue<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    base64: bool,
}

/// Bytes that are written as a JSON string of base64, without a copy in memory.
struct Base64<'a>(&'a [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&base64::shown(self.0))
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum BulkValue<'a> {
    Text(&'a str),
    Base64(Base64<'a>),
}

/// The text of a value that is to be written as text. A large one with many escapes is shorter in
/// base64: a line is at most so much longer than its value.
fn as_text(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    let escapes = || {
        text.bytes()
            .filter(|byte| matches!(byte, 0..=0x1f | b'"' | b'\\'))
            .count()
    };
    let is_short = text.len() < LARGE_BYTES || escapes() < text.len() / 15;
    is_short.then_some(text)
}

/// The first line.
pub(super) fn header_line(store: String, namespaces: &[String], prefix: &[u8]) -> Outcome<Vec<u8>> {
    let prefix = TextOrBase64::of(prefix);
    line(&HeaderLine {
        export: VERSION,
        store,
        namespaces: (!namespaces.is_empty()).then_some(namespaces),
        prefix: prefix.text,
        prefix_base64: prefix.base64,
    })
}

/// The last line.
pub(super) fn end_line(lines: u64) -> Outcome<Vec<u8>> {
    line(&EndLine { end: true, lines })
}

/// The line before the keys of a namespace.
pub(super) fn namespace_line(namespace: &Exported) -> Outcome<Vec<u8>> {
    line(&NamespaceLine {
        namespace: &namespace.name,
        id: namespace.id.clone(),
        default_ttl_ms: namespace
            .default_ttl
            .and_then(|ttl| u64::try_from(ttl.as_millis()).ok()),
    })
}

/// Writes the line of a key.
pub(super) fn write_key_line(output: &mut Output, namespace: &str, entry: &Entry<'_>) -> Outcome {
    let key = TextOrBase64::of(entry.key);
    let value = entry.value.unwrap_or_default();
    let text = as_text(value);
    let metadata = JsonOrBase64::exact(entry.metadata);
    let line = KeyLine {
        namespace,
        key: key.text,
        key_base64: key.base64,
        value: text,
        value_base64: text.is_none().then_some(Base64(value)),
        expiration_ms: entry.expiry_ms,
        metadata: metadata.json,
        metadata_base64: metadata.base64,
    };
    output.write_json(b"", &line, b"\n")
}

/// Writes a key as a pair for `bulk put`, after these bytes; an error if a pair cannot express it.
pub(super) fn write_bulk_pair(output: &mut Output, before: &[u8], entry: &Entry<'_>) -> Outcome {
    let cannot = |what: &str| {
        let key = quoted(entry.key);
        Failure::usage(
            format!("the {what} of the key {key} cannot be written to a bulk file"),
            "export with --format lines, which holds any bytes",
        )
    };
    let key = std::str::from_utf8(entry.key).map_err(|_| cannot("name"))?;
    let value = entry.value.unwrap_or_default();
    let text = as_text(value);
    let metadata = JsonOrBase64::whole(entry.metadata);
    if metadata.base64.is_some() {
        return Err(cannot("metadata"));
    }
    let pair = BulkPair {
        key,
        value: text.map_or(BulkValue::Base64(Base64(value)), BulkValue::Text),
        expiration: entry.expiry_ms.map(|ms| ms.div_ceil(1000)),
        metadata: metadata.json,
        base64: text.is_none(),
    };
    output.write_json(before, &pair, b"")
}

fn line(value: &impl Serialize) -> Outcome<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}
