//! Values as they stand in a file: JSON strings, base64 in JSON strings, or other JSON. They are
//! decoded in the buffer of their line or pair, so that a large value is in memory once.

use std::ops::Range;

use serde_json::value::RawValue;

use crate::common::base64;
use crate::common::failure::{Failure, Outcome};
use crate::common::json_text::unescape_in_place;

/// A value of more bytes takes over the buffer in which it stands; others are copied out of it.
const COPIED_BYTES_MAX: usize = 256 << 10;

/// Where a value stands in the text of a line or pair, and how it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    range: Range<usize>,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The inside of a JSON string.
    Text,
    /// The inside of a JSON string of base64.
    Base64,
    /// JSON of another kind, which is the value as it stands.
    Json,
}

impl Written {
    /// A string of this text.
    pub(crate) fn text(raw: &RawValue, text: &[u8]) -> Option<Written> {
        Written::string(raw, text, Form::Text)
    }

    /// A string of base64 in this text.
    pub(crate) fn base64(raw: &RawValue, text: &[u8]) -> Option<Written> {
        Written::string(raw, text, Form::Base64)
    }

    /// Any JSON of this text.
    pub(crate) fn json(raw: &RawValue, text: &[u8]) -> Option<Written> {
        let range = range_in(raw, text)?;
        Some(Written {
            range,
            form: Form::Json,
        })
    }

    fn string(raw: &RawValue, text: &[u8], form: Form) -> Option<Written> {
        let range = range_in(raw, text).filter(|_| raw.get().starts_with('"'))?;
        Some(Written {
            range: range.start + 1..range.end.saturating_sub(1),
            form,
        })
    }

    /// Takes the value out of the text, which is of no more use then.
    pub(crate) fn take(self, text: &mut Vec<u8>) -> Outcome<Vec<u8>> {
        let mut value = if self.range.len() <= COPIED_BYTES_MAX {
            text.get(self.range).unwrap_or_default().to_vec()
        } else {
            let mut value = std::mem::take(text);
            value.truncate(self.range.end);
            value.drain(..self.range.start.min(value.len()));
            value
        };
        if self.form != Form::Json {
            unescape_in_place(&mut value)
                .map_err(|_| Failure::usage("the value has a \\u escape of half a character", ""))?;
        }
        if self.form == Form::Base64 {
            base64::decode_in_place(&mut value).map_err(|error| Failure::usage(format!("the value: {error}"), ""))?;
        }
        value.shrink_to_fit();
        Ok(value)
    }
}

/// The place of JSON in the text from which it was read.
fn range_in(raw: &RawValue, text: &[u8]) -> Option<Range<usize>> {
    let start = raw.get().as_ptr().addr().checked_sub(text.as_ptr().addr())?;
    let end = start.checked_add(raw.get().len())?;
    (end <= text.len()).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_all_forms_and_lengths_are_taken_out() {
        for length in [0, 1, 3, COPIED_BYTES_MAX + 3] {
            let value = "\u{e4}\n".repeat(length / 3);
            let base64 = base64::encode(value.as_bytes());
            let text = serde_json::to_string(&value).unwrap();
            for (json, form) in [
                (&text, Form::Text),
                (&format!("\"{base64}\""), Form::Base64),
                (&text, Form::Json),
            ] {
                let mut line = format!("[1, {json} ]").into_bytes();
                let (_, raw): (u8, &RawValue) = serde_json::from_slice(&line).unwrap();
                let written = match form {
                    Form::Text => Written::text(raw, &line),
                    Form::Base64 => Written::base64(raw, &line),
                    Form::Json => Written::json(raw, &line),
                };
                let expected = if form == Form::Json {
                    text.as_bytes()
                } else {
                    value.as_bytes()
                };
                assert_eq!(
                    written.unwrap().take(&mut line).ok().as_deref(),
                    Some(expected),
                    "{form:?}"
                );
            }
        }
        let line = b"[1, 2]";
        let (_, raw): (u8, &RawValue) = serde_json::from_slice(line).unwrap();
        assert_eq!(Written::text(raw, line), None, "it is not a string");
        assert_eq!(Written::json(raw, b"another text"), None);
    }
}
