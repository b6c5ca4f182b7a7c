//! What is shown: bytes, counts and times as text. `parse` reads the same back.

use std::borrow::Cow;
use std::fmt::Write;

use crate::planted::{Planted, planted};

/// Characters that a message quotes.
const QUOTED_MAX: usize = 100;

/// Keeps printable text; everything else becomes escapes that [`super::parse::unescape`] reads.
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

/// Bytes as a message quotes them: in quotation marks, escaped, and not too long.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", escape_short(bytes, QUOTED_MAX))
}

/// Two hexadecimal digits a byte.
pub(crate) fn encode_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
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
    fn long_bytes_are_cut_short() {
        assert_eq!(escape_short(b"abcdef", 3), "abc...");
        assert_eq!(escape_short(b"abc", 3), "abc");
    }

    #[test]
    fn a_quoted_text_is_escaped_and_cut_short() {
        assert_eq!(quoted(b"it's \xff\n"), "\"it's \\xff\\n\"");
        assert_eq!(quoted(&[b'a'; 200]).len(), 105);
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
