//! What users give as text: bytes in one of several formats, and ids.

use std::borrow::Cow;
use std::ffi::OsStr;

use clap::ValueEnum;

use super::base64;
use super::failure::{Failure, Outcome};
use super::text::{encode_hex, escape, quoted};

/// From here on, in the year 33,658, seconds are taken for milliseconds: those of any time since
/// 2001 are at least as many.
pub(crate) const FAR_FUTURE_SECONDS: u64 = 1_000_000_000_000;

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
    /// Hexadecimal digits, two a byte
    Hex,
}

impl Format {
    /// Decodes an argument.
    pub(crate) fn parse(self, argument: &OsStr) -> Outcome<Vec<u8>> {
        match self {
            Format::Raw => Ok(argument.as_encoded_bytes().to_vec()),
            Format::Escaped => unescape(text_of(argument)?),
            Format::Base64 => decode_base64(text_of(argument)?),
            Format::Hex => decode_hex(text_of(argument)?),
        }
    }

    /// Encodes bytes for output.
    pub(crate) fn show(self, bytes: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Format::Raw => bytes.into(),
            Format::Escaped => escape(bytes).into_bytes().into(),
            Format::Base64 => base64::encode(bytes).into_bytes().into(),
            Format::Hex => encode_hex(bytes).into_bytes().into(),
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

/// Decodes the escapes of [`super::text::escape`], and \0.
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
            format!("{} is not a namespace id", quoted(text.as_bytes())),
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

pub(crate) fn decode_base64(text: &str) -> Outcome<Vec<u8>> {
    base64::decode(text).map_err(|error| Failure::usage(error.to_string(), ""))
}

/// Decodes pairs of hexadecimal digits, in either case, with or without `0x` in front.
pub(crate) fn decode_hex(text: &str) -> Outcome<Vec<u8>> {
    let text = text.trim_end();
    let digits = text.strip_prefix("0x").unwrap_or(text).as_bytes();
    let value = |digit: &u8| char::from(*digit).to_digit(16);
    let bytes = digits.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(value(high)? << 4 | value(low)?).ok(),
        _ => None,
    });
    bytes.collect::<Option<Vec<u8>>>().ok_or_else(|| {
        Failure::usage(
            format!("{} is not hexadecimal", quoted(text.as_bytes())),
            "give two digits of 0-9 and a-f for each byte, as in 6b6579",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_lead_back_to_the_bytes() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode_hex(&encode_hex(&all)).ok(), Some(all.clone()));
        assert_eq!(decode_hex(&encode_hex(&all).to_uppercase()).ok(), Some(all));
        assert_eq!(decode_hex("0x00fF\n").ok(), Some(vec![0, 255]));
        assert_eq!(decode_hex("").ok(), Some(Vec::new()));
        for wrong in ["0", "0x0", "+f", "fg", "ü", "0x0x00", "00 11"] {
            assert!(decode_hex(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn escapes_lead_back_to_the_bytes() {
        let all: Vec<u8> = (0..=255).chain("grüße \u{202e}\u{7f}".bytes()).collect();
        assert_eq!(unescape(&escape(&all)).ok(), Some(all));
        assert_eq!(escape(b"a\\b\n\xff"), "a\\\\b\\n\\xff");
        for wrong in ["\\q", "\\x4", "\\x+f", "\\"] {
            assert!(unescape(wrong).is_err(), "{wrong}");
        }
    }
}
