//! Standard output, and JSON lines of keys.

use std::io::{self, BufWriter, Write};

use embercask::{EntryRef, Value};
use serde::Serialize;
use serde_json::value::RawValue;

use super::failure::Outcome;
use super::text::encode_base64;

/// Standard output, buffered; whoever is done with it flushes it.
pub(crate) fn stdout() -> BufWriter<io::StdoutLock<'static>> {
    BufWriter::with_capacity(64 << 10, io::stdout().lock())
}

/// One JSON value on a line of its own.
pub(crate) fn json_line(out: &mut dyn Write, value: &impl Serialize) -> Outcome {
    serde_json::to_writer(&mut *out, value)?;
    Ok(out.write_all(b"\n")?)
}

/// Bytes as JSON has them: text, or else base64, in two fields of which one is there.
#[derive(Debug)]
pub(crate) struct TextOrBase64<'a> {
    pub(crate) text: Option<&'a str>,
    pub(crate) base64: Option<String>,
}

impl<'a> TextOrBase64<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        let text = std::str::from_utf8(bytes).ok();
        let base64 = text.is_none().then(|| encode_base64(bytes));
        TextOrBase64 { text, base64 }
    }
}

/// Metadata as JSON has them: as they are if they are JSON on one line, or else base64.
#[derive(Debug)]
pub(crate) struct JsonOrBase64<'a> {
    pub(crate) json: Option<&'a RawValue>,
    pub(crate) base64: Option<String>,
}

impl<'a> JsonOrBase64<'a> {
    pub(crate) fn of(metadata: Option<&'a [u8]>) -> Self {
        let json = metadata.and_then(exact_json);
        let base64 = metadata.filter(|_| json.is_none()).map(encode_base64);
        JsonOrBase64 { json, base64 }
    }
}

/// These bytes as JSON that comes out of a line of JSON again as exactly these bytes. `null` would come out as nothing.
fn exact_json(bytes: &[u8]) -> Option<&RawValue> {
    let json: &RawValue = serde_json::from_slice(bytes).ok()?;
    let exact =
        json.get().len() == bytes.len() && json.get() != "null" && !bytes.contains(&b'\n') && !bytes.contains(&b'\r');
    exact.then_some(json)
}

/// A key as listings show it: the fields of wrangler, and what it has no word for.
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
    /// Whole seconds; a key does not live longer than that says, but for a part of a second.
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
    /// `with_value` if the listing was made with values, and shall show them.
    pub(crate) fn of_entry(entry: &EntryRef<'a>, with_value: bool) -> Self {
        let value = entry.value().filter(|_| with_value);
        Self::new(entry.key(), value, entry.expiry_ms(), entry.metadata())
    }

    pub(crate) fn of_value(key: &'a [u8], value: &'a Value) -> Self {
        Self::new(key, Some(value), value.expiry_ms(), value.metadata())
    }

    fn new(key: &'a [u8], value: Option<&'a Value>, expiry_ms: Option<u64>, metadata: Option<&'a [u8]>) -> Self {
        let name = TextOrBase64::of(key);
        let shown = value.map(|value| TextOrBase64::of(value.as_bytes()));
        let (value_text, value_base64) = shown.map_or((None, None), |shown| (shown.text, shown.base64));
        let metadata = JsonOrBase64::of(metadata);
        ListedKey {
            name: name.text,
            name_base64: name.base64,
            value: value_text,
            value_base64,
            expiration: expiry_ms.map(|ms| ms.div_ceil(1000)),
            metadata: metadata.json,
            metadata_base64: metadata.base64,
            sequence: value.map(Value::sequence),
        }
    }
}
