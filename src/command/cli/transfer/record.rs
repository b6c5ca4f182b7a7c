//! The lines of an export, read. Each is a JSON object that preserves the exact bytes.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::written::Written;
use crate::common::base64;
use crate::common::failure::{Failure, Outcome};
use crate::common::json_text;
use crate::common::objects::Object;
use crate::common::parse::{decode_base64, parse_id};

/// The version of the lines that this program writes, and the newest it reads.
pub(super) const VERSION: u32 = 1;

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
