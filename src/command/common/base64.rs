//! Base64 as people's tools write it: in lines, with or without padding, in either alphabet.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use base64::prelude::BASE64_STANDARD;

/// Decodes digits without padding; the unused bits of the last one must be zero.
const DIGITS: GeneralPurpose = GeneralPurpose::new(&STANDARD, NO_PAD);
/// Digits decoded at a time, and the bytes of them.
const CHUNK_DIGITS: usize = 4096;
const CHUNK_BYTES: usize = CHUNK_DIGITS / 4 * 3;

/// Standard base64 with padding, on one line.
pub(crate) fn encode(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// Base64 that is written out when it is formatted, without a copy in memory.
pub(crate) fn shown(bytes: &[u8]) -> impl fmt::Display {
    base64::display::Base64Display::new(bytes, &BASE64_STANDARD)
}

/// As [`decode_in_place`], into another buffer.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, NotBase64> {
    let mut bytes = text.as_bytes().to_vec();
    decode_in_place(&mut bytes)?;
    Ok(bytes)
}

/// Why a text is not base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotBase64 {
    /// This byte, counted from 1, is of no base64.
    Byte(u8, usize),
    BothAlphabets,
    Padding,
    CutOff,
}

impl fmt::Display for NotBase64 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("this is not base64: ")?;
        match self {
            NotBase64::Byte(byte, at) if byte.is_ascii_graphic() => {
                write!(formatter, "character {at} is `{}`", char::from(*byte))
            }
            NotBase64::Byte(byte, at) => write!(formatter, "byte {at} is 0x{byte:02x}"),
            NotBase64::BothAlphabets => formatter.write_str("it has `+` or `/` as well as `-` or `_`"),
            NotBase64::Padding => formatter.write_str("`=` stands elsewhere than at the end"),
            NotBase64::CutOff => formatter.write_str("it is cut off or has a wrong last character"),
        }
    }
}

/// Replaces base64 by its bytes. Blanks and line ends are skipped and padding may be missing; the
/// alphabet is the standard one, or the one for URLs, but not both.
pub(crate) fn decode_in_place(text: &mut Vec<u8>) -> Result<(), NotBase64> {
    let padding = keep_digits(text)?;
    // So many `=` fill the last group of four.
    if padding > [0, 0, 2, 1].get(text.len() % 4).copied().unwrap_or(0) {
        return Err(NotBase64::Padding);
    }
    // The bytes never catch up with the digits that are still to be read.
    let (mut from, mut to) = (0, 0);
    let mut chunk = [0; CHUNK_BYTES];
    while from < text.len() {
        let end = text.len().min(from + CHUNK_DIGITS);
        let digits = text.get(from..end).unwrap_or_default();
        let decoded = DIGITS.decode_slice(digits, &mut chunk).map_err(|_| NotBase64::CutOff)?;
        if let (Some(target), Some(bytes)) = (text.get_mut(to..to + decoded), chunk.get(..decoded)) {
            target.copy_from_slice(bytes);
        }
        from = end;
        to += decoded;
    }
    text.truncate(to);
    Ok(())
}

/// Leaves only the digits, in the standard alphabet. Returns the length of the padding.
fn keep_digits(text: &mut Vec<u8>) -> Result<usize, NotBase64> {
    let (mut at, mut padding, mut wrong) = (0, 0, None);
    let (mut is_standard, mut is_for_urls) = (false, false);
    text.retain_mut(|byte| {
        at += 1;
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => return false,
            b'=' => {
                padding += 1;
                return false;
            }
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => {}
            b'+' | b'/' => is_standard = true,
            b'-' | b'_' => {
                is_for_urls = true;
                *byte = if *byte == b'-' { b'+' } else { b'/' };
            }
            _ => wrong = wrong.or(Some(NotBase64::Byte(*byte, at))),
        }
        if padding > 0 {
            wrong = wrong.or(Some(NotBase64::Padding));
        }
        true
    });
    match wrong {
        Some(wrong) => Err(wrong),
        None if is_standard && is_for_urls => Err(NotBase64::BothAlphabets),
        None => Ok(padding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_any_tool_is_read() {
        let bytes: Vec<u8> = (0..20_000_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        for length in [0, 1, 2, 3, 56, 57, 58, 3071, 3072, 3073, 20_000] {
            let bytes = &bytes[..length];
            let whole = encode(bytes);
            let lines = |end: &str| {
                let lines: Vec<_> = whole
                    .as_bytes()
                    .chunks(76)
                    .map(|line| str::from_utf8(line).unwrap())
                    .collect();
                lines.join(end) + end
            };
            let unpadded = whole.trim_end_matches('=').to_owned();
            let for_urls = unpadded.replace('+', "-").replace('/', "_");
            for text in [
                whole.clone(),
                lines("\n"),
                lines("\r\n"),
                lines(" \t"),
                unpadded,
                for_urls,
            ] {
                assert_eq!(decode(&text).as_deref(), Ok(bytes), "{text}");
            }
        }
        assert_eq!(decode("YQ=").as_deref(), Ok(&b"a"[..]));
    }

    #[test]
    fn what_is_no_base64_is_told() {
        for (text, expected) in [
            ("YWJ?", NotBase64::Byte(b'?', 4)),
            ("YW\u{e4}", NotBase64::Byte(0xc3, 3)),
            ("YWI=YWI=", NotBase64::Padding),
            ("YWJj=", NotBase64::Padding),
            ("YQ===", NotBase64::Padding),
            ("=", NotBase64::Padding),
            ("a+b_", NotBase64::BothAlphabets),
            ("YWJjZ", NotBase64::CutOff),
            ("YR==", NotBase64::CutOff),
        ] {
            assert_eq!(decode(text), Err(expected), "{text}");
            assert!(expected.to_string().starts_with("this is not base64: "));
        }
    }
}
