//! Bytes as text and text as bytes.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::ValueEnum;

use super::failure::{Failure, Outcome};
use crate::planted::{Planted, planted};

/// How bytes are given on the command line, or shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// The bytes as they are
    #[default]
    Raw,
    /// Text with \n, \t, \\ and \xNN for bytes that are none
    Escaped,
    /// Base64
    Base64,
}

impl Format {
    /// The bytes that an argument stands for.
    pub(crate) fn parse(self, argument: &OsStr) -> Outcome<Vec<u8>> {
        match self {
            Format::Raw => Ok(argument.as_encoded_bytes().to_vec()),
            Format::Escaped => unescape(text_of(argument)?),
            Format::Base64 => decode_base64(text_of(argument)?),
        }
    }

    /// How bytes are shown.
    pub(crate) fn show(self, bytes: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Format::Raw => bytes.into(),
            Format::Escaped => escape(bytes).into_bytes().into(),
            Format::Base64 => encode_base64(bytes).into_bytes().into(),
        }
    }
}

/// An argument that has to be text, since it stands for bytes that need not be.
fn text_of(argument: &OsStr) -> Outcome<&str> {
    argument.to_str().ok_or_else(|| {
        Failure::usage(
            "the argument is no text (UTF-8)",
            "give the bytes as they are with the format raw, or escape them",
        )
    })
}

/// Printable text as it is; everything else by escapes that [`unescape`] reads.
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

/// A message in which names may stand that others have chosen: it cannot command the terminal, nor
/// look like several lines.
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

/// Whether a terminal would do something else than show it: control characters, and those that
/// change the direction of what follows, so that what is shown is not what is there.
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
        // Writing into a string does not fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
}

/// As [`escape`], cut after so many characters.
pub(crate) fn escape_short(bytes: &[u8], characters_max: usize) -> String {
    // No escape is shorter than the byte it stands for.
    let head = bytes.get(..4 * characters_max).unwrap_or(bytes);
    let escaped = escape(head);
    match escaped.char_indices().nth(characters_max) {
        Some((cut, _)) => format!("{}...", escaped.get(..cut).unwrap_or_default()),
        None if head.len() < bytes.len() => format!("{escaped}..."),
        None => escaped,
    }
}

/// What [`escape`] made, and \0.
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

/// A number of hexadecimal digits, without the sign that Rust would take.
fn hexadecimal(digits: &str) -> Option<u128> {
    let is_number = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u128::from_str_radix(digits, 16).ok().filter(|_| is_number)
}

/// The id of a namespace.
pub(crate) fn parse_id(text: &str) -> Outcome<u128> {
    let id = hexadecimal(text).filter(|_| text.len() == 32);
    id.ok_or_else(|| {
        Failure::usage(
            format!("{text:?} is no id of a namespace"),
            "an id has 32 hexadecimal digits; `embercask namespace list` shows them",
        )
    })
}

fn bad_escape(escape: &str) -> Failure {
    let shown: String = escape.chars().take(3).collect();
    Failure::usage(
        format!("\\{shown} is no escape"),
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

/// A number of bytes, in the largest binary unit that leaves at least one.
pub(crate) fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// A count, with a comma between thousands.
pub(crate) fn count(count: u64) -> String {
    indicatif::HumanCount(count).to_string()
}

/// A time in milliseconds since the epoch as a date, UTC, as RFC 3339 writes it; beyond the year
/// 9999 as the number that it is.
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
