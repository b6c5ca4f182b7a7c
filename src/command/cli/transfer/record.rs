//! The lines of an export. Each is a JSON object that preserves the exact bytes.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::output::Output;
use super::source::Exported;
use super::written::Written;
use crate::cli::entry::Entry;
use crate::cli::output::{JsonOrBase64, TextOrBase64};
use crate::common::base64;
use crate::common::failure::{Failure, Outcome};
use crate::common::json_text;
use crate::common::objects::Object;
use crate::common::parse::{decode_base64, parse_id};
use crate::common::text::quoted;

/// The version of the lines that this program writes, and the newest it reads.
const VERSION: u32 = 1;
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

/// A line, as parsed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    namespace: Option<String>,
    id: Option<String>,
    default_ttl_ms: Option<u64>,
    key: Option<String>,
    key_base64: Option<String>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    value_base64: Option<&'a RawValue>,
    expiration_ms: Option<u64>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    metadata_base64: Option<String>,
    /// First line only.
    export: Option<u32>,
    store: Option<String>,
    namespaces: Option<Vec<String>>,
    prefix: Option<String>,
    prefix_base64: Option<String>,
    /// Last line only.
    end: Option<bool>,
    lines: Option<u64>,
}

impl Line<'_> {
    fn is_of_key(&self) -> bool {
        let of_key = [
            self.key.is_some() || self.key_base64.is_some(),
            self.value.is_some() || self.value_base64.is_some(),
            self.metadata.is_some() || self.metadata_base64.is_some(),
            self.expiration_ms.is_some(),
        ];
        of_key.contains(&true)
    }

    fn is_of_namespace(&self) -> bool {
        self.namespace.is_some() || self.has_settings()
    }

    /// Whether it has members of a namespace that a key's line has not.
    fn has_settings(&self) -> bool {
        self.id.is_some() || self.default_ttl_ms.is_some()
    }

    fn is_of_end(&self) -> bool {
        self.end.is_some() || self.lines.is_some()
    }

    /// Whether it is a first line.
    fn is_header(&self) -> Outcome<bool> {
        match self.export {
            Some(1..=VERSION) => return Ok(true),
            Some(version) => {
                return Err(Failure::usage(
                    format!("version {version} of exports is newer than this program"),
                    "import it with a newer embercask",
                ));
            }
            None => {}
        }
        // Members that are valid in a first line only.
        let strays = [
            self.store.is_some(),
            self.namespaces.is_some(),
            self.prefix.is_some() || self.prefix_base64.is_some(),
        ];
        if strays.contains(&true) {
            return Err(Failure::usage(
                "the line has members of a first line, but no `export`",
                "",
            ));
        }
        Ok(false)
    }
}

/// The meaning of a line.
pub(super) enum Read {
    Header,
    /// `lines` is the number of lines since the header.
    End {
        lines: u64,
    },
    Namespace {
        name: String,
        id: Option<u128>,
        /// At least 1.
        default_ttl_ms: Option<u64>,
    },
    Key(Record),
}

/// Where to resume an export.
pub(super) enum Place {
    /// After the first line.
    Start,
    /// In this namespace: after this key, or after the namespace's own line.
    Namespace { namespace: String, key: Option<Vec<u8>> },
    /// Everything is written.
    End,
}

impl Place {
    /// The place after a line; None if it is not a line of an export.
    pub(super) fn after(line: &[u8]) -> Option<Place> {
        Some(match read(line).ok()? {
            Read::Header => Place::Start,
            Read::End { .. } => Place::End,
            Read::Namespace { name, .. } => Place::Namespace {
                namespace: name,
                key: None,
            },
            Read::Key(record) => Place::Namespace {
                namespace: record.namespace.unwrap_or_default(),
                key: Some(record.key),
            },
        })
    }
}

/// A key with its value, expiry and metadata.
pub(super) struct Record {
    pub(super) namespace: Option<String>,
    pub(super) key: Vec<u8>,
    /// Where the value stands in the line.
    pub(super) value: Written,
    pub(super) expiry_ms: Option<u64>,
    pub(super) metadata: Option<Vec<u8>>,
}

/// Reads a line, except the text of its value. The caller adds the line's number to an error.
pub(super) fn read(text: &[u8]) -> Outcome<Read> {
    let wrong = |what: String| Failure::usage(what, "");
    let Object::<Line<'_>>(line) = serde_json::from_slice(text).map_err(|error| wrong(json_text::told(&error)))?;
    // Otherwise members of another kind would be dropped silently.
    let two_kinds = || Err(wrong("the line has members of two kinds of lines".to_owned()));
    if line.is_header()? {
        let is_more = line.is_of_key() || line.is_of_namespace() || line.is_of_end();
        return if is_more { two_kinds() } else { Ok(Read::Header) };
    }
    if line.is_of_end() {
        return match (line.end, line.lines) {
            _ if line.is_of_key() || line.is_of_namespace() => two_kinds(),
            (Some(true), Some(lines)) => Ok(Read::End { lines }),
            _ => Err(wrong("the last line is incomplete".to_owned())),
        };
    }
    let is_of_key = line.is_of_key();
    if line.has_settings() && is_of_key {
        return two_kinds();
    }
    let either = |text: Option<String>, base64: Option<String>, what: &str| match (text, base64) {
        (Some(_), Some(_)) => Err(wrong(format!("the line has both {what} and {what}_base64"))),
        (Some(text), None) => Ok(Some(text.into_bytes())),
        (None, Some(base64)) => decode_base64(&base64).map(Some),
        (None, None) => Ok(None),
    };
    let metadata = line.metadata.map(|json| json.get().to_owned());
    let metadata = either(metadata, line.metadata_base64, "metadata")?;
    let value = match (line.value, line.value_base64) {
        (Some(_), Some(_)) => return Err(wrong("the line has both value and value_base64".to_owned())),
        (Some(raw), None) => Some(Written::text(raw, text)),
        (None, Some(raw)) => Some(Written::base64(raw, text)),
        (None, None) => None,
    };
    let value = match value {
        Some(None) => return Err(wrong("the value is not a JSON string".to_owned())),
        Some(written) => written,
        None => None,
    };
    match (either(line.key, line.key_base64, "key")?, value) {
        (Some(key), Some(value)) => Ok(Read::Key(Record {
            namespace: line.namespace,
            key,
            value,
            expiry_ms: line.expiration_ms,
            metadata,
        })),
        (None, None) if is_of_key => Err(wrong("the line has neither key nor value".to_owned())),
        (None, None) => {
            let name = line
                .namespace
                .ok_or_else(|| wrong("the line has neither key nor namespace".to_owned()))?;
            let id = match line.id {
                Some(id) => Some(parse_id(&id)?),
                None => None,
            };
            let default_ttl_ms = line.default_ttl_ms;
            if default_ttl_ms == Some(0) {
                return Err(wrong("a default lifetime of 0 ms is too short".to_owned()));
            }
            Ok(Read::Namespace {
                name,
                id,
                default_ttl_ms,
            })
        }
        (Some(_), None) => Err(wrong("the line has a key but no value".to_owned())),
        (None, Some(_)) => Err(wrong("the line has a value but no key".to_owned())),
    }
}

/// The key of a line that is wrong otherwise, as far as it can be read.
pub(super) fn key_of(text: &[u8]) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct KeyOnly {
        key: Option<String>,
        key_base64: Option<String>,
    }
    let only: KeyOnly = serde_json::from_slice(text).ok()?;
    let decoded = || base64::decode(&only.key_base64?).ok();
    only.key.map(String::into_bytes).or_else(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by the fuzz target `import_lines`: members of the other kind were dropped silently.
    #[test]
    fn a_line_is_of_one_kind() {
        for wrong in [
            r#"{"export":1,"key":"a","value":"b"}"#,
            r#"{"export":1,"end":true,"lines":0}"#,
            r#"{"end":true,"lines":0,"namespace":"N","key":"a","value":"b"}"#,
            r#"{"end":false,"namespace":"N","key":"a","value":"b"}"#,
            r#"{"namespace":"N","id":"4501846b534b2d4a5d8f47f790fd834a","key":"a","value":"b"}"#,
            r#"{"namespace":"N","expiration_ms":1}"#,
            r#"{"namespace":"N","default_ttl_ms":1,"key":"a","value":"b"}"#,
            r#"{"namespace":"N","default_ttl_ms":0}"#,
            r#"{"default_ttl_ms":1}"#,
            r#"{"export":1,"default_ttl_ms":1}"#,
            r#"{"end":true}"#,
        ] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
        for good in [
            r#"{"export":1,"store":"00","namespaces":null,"prefix":""}"#,
            r#"{"namespace":"N","key":"a","value":"b","metadata":null}"#,
            r#"{"namespace":"N","id":null}"#,
            r#"{"namespace":"N","default_ttl_ms":1}"#,
            r#"{"end":true,"lines":0}"#,
        ] {
            assert!(read(good.as_bytes()).is_ok(), "{good}");
        }
    }
}
