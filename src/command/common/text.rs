//! Bytes as text and text as bytes.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::ValueEnum;

use super::failure::{Failure, Outcome};
use crate::planted::{Planted, planted};

/// How bytes are written on the command line and in output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// The bytes as they are
    #[default]
    Raw,
    /// Text, with \n, \t, \\ and \xNN for bytes that are not text
    Escaped,
    /// Base64
    Base64,
}

impl Format {
    /// Decodes an argument.
    pub(crate) fn parse(self, argument: &OsStr) -> Outcome<Vec<u8>> {
        match self {
            Format::Raw => Ok(argument.as_encoded_bytes().to_vec()),
            Format::Escaped => unescape(text_of(argument)?),
            Format::Base64 => decode_base64(text_of(argument)?),
        }
    }

    /// Encodes bytes for output.
    pub(crate) fn show(self, bytes: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Format::Raw => bytes.into(),
            Format::Escaped => escape(bytes).into_bytes().into(),
            Format::Base64 => encode_base64(bytes).into_bytes().into(),
        }
    }
}

/// The text of an argument in an encoded format.
fn text_of(argument: &OsStr) -> Outcome<&str> {
    argument.to_str().ok_or_else(|| {
        Failure::usage(
            "the argument is not text (UTF-8)",
            "use the format raw for bytes as they are, or escape them",
        )
    })
}

/// Keeps printable text; everything else becomes escapes that [`unescape`] reads.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                character if is_deceptive(character) => push_escaped(&mut text, character),
                character => text.push(character),
            }
        }
        push_hex(&mut text, chunk.invalid());
    }
    text
}

/// Makes a message with foreign names in it safe: it cannot control the terminal, nor look like
/// several lines.
pub(crate) fn one_line(message: &str) -> Cow<'_, str> {
    if !message.contains(is_deceptive) {
        return Cow::Borrowed(message);
    }
    let mut text = String::with_capacity(message.len());
    for character in message.chars() {
        match character {
            '\n' => text.push_str("\\n"),
            character if is_deceptive(character) => push_escaped(&mut text, character),
            character => text.push(character),
        }
    }
    Cow::Owned(text)
}

/// Control characters, and those that change the direction of text, so that a terminal shows it in
/// another order.
pub(crate) fn is_deceptive(character: char) -> bool {
    if planted(Planted::ObeyNames) {
        return false;
    }
    character.is_control()
        || matches!(
            character,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

fn push_escaped(text: &mut String, character: char) {
    let mut buffer = [0; 4];
    push_hex(text, character.encode_utf8(&mut buffer).as_bytes());
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
}

/// As [`escape`], cut after `characters_max` characters.
pub(crate) fn escape_short(bytes: &[u8], characters_max: usize) -> String {
    // A character has at most 4 bytes, and an escape at least one character per byte.
    let head = bytes.get(..4 * characters_max).unwrap_or(bytes);
    let escaped = escape(head);
    match escaped.char_indices().nth(characters_max) {
        Some((cut, _)) => format!("{}...", escaped.get(..cut).unwrap_or_default()),
        None if head.len() < bytes.len() => format!("{escaped}..."),
        None => escaped,
    }
}

/// Decodes the escapes of [`escape`], and \0.
pub(crate) fn unescape(text: &str) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let mut characters = escape.chars();
        match characters.next() {
            Some('\\') => bytes.push(b'\\'),
            Some('n') => bytes.push(b'\n'),
            Some('r') => bytes.push(b'\r'),
            Some('t') => bytes.push(b'\t'),
            Some('0') => bytes.push(0),
            Some('x') => {
                let digits = characters.as_str().get(..2);
                let byte = digits.and_then(|digits| u8::try_from(hexadecimal(digits)?).ok());
                bytes.push(byte.ok_or_else(|| bad_escape(escape))?);
                characters.nth(1);
            }
            _ => return Err(bad_escape(escape)),
        }
        rest = characters.as_str();
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// A hexadecimal number. Unlike Rust's parser, takes no sign.
fn hexadecimal(digits: &str) -> Option<u128> {
    let is_number = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u128::from_str_radix(digits, 16).ok().filter(|_| is_number)
}

/// The id of a namespace.
pub(crate) fn parse_id(text: &str) -> Outcome<u128> {
    let id = hexadecimal(text).filter(|_| text.len() == 32);
    id.ok_or_else(|| {
        Failure::usage(
            format!("{text:?} is not a namespace id"),
            "an id has 32 hexadecimal digits; `embercask namespace list` shows them",
        )
    })
}

fn bad_escape(escape: &str) -> Failure {
    let shown: String = escape.chars().take(3).collect();
    Failure::usage(
        format!("\\{shown} is not an escape"),
        "write \\n, \\r, \\t, \\0, \\\\ or \\x and two hexadecimal digits",
    )
}

pub(crate) fn encode_base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

pub(crate) fn decode_base64(text: &str) -> Outcome<Vec<u8>> {
    BASE64_STANDARD
        .decode(text.trim_end())
        .map_err(|error| Failure::usage(format!("this is not base64: {error}"), ""))
}

/// A number of bytes, in the largest binary unit that is not larger.
pub(crate) fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// A count, with a comma between thousands.
pub(crate) fn count(count: u64) -> String {
    indicatif::HumanCount(count).to_string()
}

/// A time, given in milliseconds since the epoch, as an RFC 3339 date in UTC; as a plain number
/// beyond the year 9999.
pub(crate) fn time(ms: u64) -> String {
    let timestamp = i64::try_from(ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    timestamp.map_or_else(
        || format!("{ms} ms since the epoch"),
        |timestamp| format!("{timestamp:.3}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_lead_back_to_the_bytes() {
        let all: Vec<u8> = (0..=255).chain("grüße \u{202e}\u{7f}".bytes()).collect();
        assert_eq!(unescape(&escape(&all)).ok(), Some(all));
        assert_eq!(escape(b"a\\b\n\xff"), "a\\\\b\\n\\xff");
        for wrong in ["\\q", "\\x4", "\\x+f", "\\"] {
            assert!(unescape(wrong).is_err(), "{wrong}");
        }
        assert_eq!(escape_short(b"abcdef", 3), "abc...");
        assert_eq!(escape_short(b"abc", 3), "abc");
    }

    #[test]
    fn messages_stay_on_their_line() {
        assert_eq!(one_line("plain \\ ü"), "plain \\ ü");
        assert_eq!(one_line("a\nb\u{1b}[31m\u{61c}"), "a\\nb\\x1b[31m\\xd8\\x9c");
    }

    #[test]
    fn times_are_dates() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(time(4_102_444_799_999), "2099-12-31T23:59:59.999Z");
        assert_eq!(time(u64::MAX), "18446744073709551615 ms since the epoch");
    }
}
