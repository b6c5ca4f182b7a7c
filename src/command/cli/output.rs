//! Standard output, and JSON lines of keys.

use std::io::{self, BufWriter, Write};

use serde::Serialize;
use serde_json::ser::Formatter;
use serde_json::value::RawValue;

use super::entry::Entry;
use crate::common::base64;
use crate::common::blanks::without_blanks;
use crate::common::failure::Outcome;
use crate::common::text::is_deceptive;

/// Standard output, buffered; flush it at the end.
pub(crate) fn stdout() -> BufWriter<io::StdoutLock<'static>> {
    BufWriter::with_capacity(64 << 10, io::stdout().lock())
}

/// Standard output for coloured text; colours are dropped where the output does not support them.
pub(crate) fn styled_stdout() -> BufWriter<anstream::AutoStream<io::StdoutLock<'static>>> {
    BufWriter::with_capacity(64 << 10, anstream::stdout().lock())
}

/// A JSON value, safe to print on a terminal.
pub(crate) fn json(out: &mut dyn Write, value: &impl Serialize) -> Outcome {
    Ok(value.serialize(&mut serde_json::Serializer::with_formatter(out, Harmless))?)
}

/// As [`json`], followed by a newline.
pub(crate) fn json_line(out: &mut dyn Write, value: &impl Serialize) -> Outcome {
    json(out, value)?;
    Ok(out.write_all(b"\n")?)
}

/// Writes JSON without whitespace, and escapes the characters that JSON allows but a terminal would
/// obey.
struct Harmless;

impl Formatter for Harmless {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(is_deceptive) {
            let (plain, behind) = rest.split_at(at);
            out.write_all(plain.as_bytes())?;
            let mut characters = behind.chars();
            if let Some(character) = characters.next() {
                write!(out, "\\u{:04x}", u32::from(character))?;
            }
            rest = characters.as_str();
        }
        out.write_all(rest.as_bytes())
    }

    /// Metadata: such characters occur in strings only, whitespace anywhere.
    fn write_raw_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        self.write_string_fragment(out, &without_blanks(fragment))
    }
}

/// Bytes in JSON: text if they are UTF-8, else base64. Exactly one of the two fields is set.
#[derive(Debug)]
pub(crate) struct TextOrBase64<'a> {
    pub(crate) text: Option<&'a str>,
    pub(crate) base64: Option<String>,
}

impl<'a> TextOrBase64<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        let text = std::str::from_utf8(bytes).ok();
        let base64 = text.is_none().then(|| base64::encode(bytes));
        TextOrBase64 { text, base64 }
    }
}

/// Metadata in JSON: verbatim if it is JSON, else base64.
#[derive(Debug)]
pub(crate) struct JsonOrBase64<'a> {
    pub(crate) json: Option<&'a RawValue>,
    pub(crate) base64: Option<String>,
}

impl<'a> JsonOrBase64<'a> {
    /// For readers that need the meaning, not the exact bytes.
    pub(crate) fn of(metadata: Option<&'a [u8]>) -> Self {
        JsonOrBase64::new(metadata, |_| true)
    }

    /// For files that must lead back to exactly these bytes. `null` is written as base64: it would
    /// be read back as no metadata.
    pub(crate) fn whole(metadata: Option<&'a [u8]>) -> Self {
        JsonOrBase64::new(metadata, |json| is_whole(json, metadata))
    }

    /// As [`JsonOrBase64::whole`], and on one line.
    pub(crate) fn exact(metadata: Option<&'a [u8]>) -> Self {
        JsonOrBase64::new(metadata, |json| {
            is_whole(json, metadata) && !json.contains(['\n', '\r'])
        })
    }

    fn new(metadata: Option<&'a [u8]>, is_good: impl FnOnce(&str) -> bool) -> Self {
        let json = metadata.and_then(|bytes| serde_json::from_slice::<&RawValue>(bytes).ok());
        let json = json.filter(|json| is_good(json.get()));
        let base64 = metadata.filter(|_| json.is_none()).map(base64::encode);
        JsonOrBase64 { json, base64 }
    }
}

/// Whether the metadata is exactly this JSON, without whitespace around it, and not `null`.
fn is_whole(json: &str, metadata: Option<&[u8]>) -> bool {
    json != "null" && metadata.is_some_and(|bytes| bytes.len() == json.len())
}

/// A key as listings show it: the fields of wrangler, and those that it lacks.
#[derive(Serialize)]
pub(crate) struct ListedKey<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    /// Whole seconds, rounded up.
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
}

impl<'a> ListedKey<'a> {
    pub(crate) fn of(entry: &Entry<'a>) -> Self {
        let name = TextOrBase64::of(entry.key);
        let shown = entry.value.map(TextOrBase64::of);
        let (value_text, value_base64) = shown.map_or((None, None), |shown| (shown.text, shown.base64));
        let metadata = JsonOrBase64::of(entry.metadata);
        ListedKey {
            name: name.text,
            name_base64: name.base64,
            value: value_text,
            value_base64,
            expiration: entry.expiry_ms.map(|ms| ms.div_ceil(1000)),
            metadata: metadata.json,
            metadata_base64: metadata.base64,
            sequence: entry.sequence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_does_nothing_to_a_terminal_and_means_the_same() {
        let text = "a\u{7f}\u{9b}31m\u{202e}ü \u{1b}";
        let mut line = Vec::new();
        json_line(&mut line, &text).unwrap();
        let line = String::from_utf8(line).unwrap();
        assert_eq!(line, "\"a\\u007f\\u009b31m\\u202eü \\u001b\"\n");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }

    #[test]
    fn metadata_are_json_where_they_can_be() {
        let shown = |bytes| JsonOrBase64::of(Some(bytes)).base64.is_none();
        let exact = |bytes| JsonOrBase64::exact(Some(bytes)).base64.is_none();
        for bytes in [&b"{\"a\": 1.50}"[..], b"\"text\""] {
            assert!(shown(bytes) && exact(bytes), "{bytes:?}");
        }
        for bytes in [&b"null"[..], b" 1", b"[1,\n2]"] {
            assert!(shown(bytes) && !exact(bytes), "{bytes:?}");
        }
        for bytes in [&b"\xff"[..], b"", b"{"] {
            assert!(!shown(bytes) && !exact(bytes), "{bytes:?}");
        }
    }
}
