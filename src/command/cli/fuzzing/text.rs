//! Keys, values and ids on the command line and in its output.

use std::ffi::OsStr;

use crate::cli::output::{JsonOrBase64, TextOrBase64, json_line};
use crate::common::fuzzing::json;
use crate::common::parse::{Format, decode_base64, decode_hex, parse_id, unescape};
use crate::common::text::{bytes, count, escape, escape_short, is_deceptive, one_line, time};
use embercask::testing::input::Input;

/// Bytes as text, and text as bytes.
pub fn key_text(data: &[u8]) {
    let mut input = Input::new(data);
    let (characters_max, number) = (usize::from(input.u8()), input.u64());
    let data = input.rest();
    shown(data, characters_max);
    let text = String::from_utf8_lossy(data);
    read(&text);
    json(data, &text);
    assert!(![bytes(number), count(number), time(number)].contains(&String::new()));
}

/// Shown bytes can be parsed back, and are harmless to a terminal.
fn shown(data: &[u8], characters_max: usize) {
    let escaped = escape(data);
    assert!(!escaped.contains(is_deceptive), "{escaped:?}");
    for format in [Format::Raw, Format::Escaped, Format::Base64, Format::Hex] {
        let shown = format.show(data);
        #[cfg(unix)]
        let argument = <OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&shown);
        #[cfg(not(unix))]
        let Ok(argument) = std::str::from_utf8(&shown).map(OsStr::new) else {
            continue;
        };
        assert_eq!(format.parse(argument).ok().as_deref(), Some(data), "{format:?}");
    }
    let short = escape_short(data, characters_max);
    if escaped.chars().count() <= characters_max {
        assert_eq!(short, escaped);
    } else {
        let head: String = escaped.chars().take(characters_max).collect();
        assert_eq!(short.strip_suffix("..."), Some(&*head));
    }
}

/// Any text as an argument.
fn read(text: &str) {
    assert_eq!(unescape(text).ok(), second_unescape(text.as_bytes()), "{text:?}");
    assert_eq!(decode_base64(text).ok(), json::base64(text), "{text:?}");
    let digits = text.trim_end();
    let expected = second_hex(digits.strip_prefix("0x").unwrap_or(digits).as_bytes());
    assert_eq!(decode_hex(text).ok(), expected, "{text:?}");
    let is_id = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let id = parse_id(text).ok();
    let expected = is_id.then(|| text.to_ascii_lowercase());
    assert_eq!(id.map(|id| format!("{id:032x}")), expected);
    let line = one_line(text);
    assert!(!line.contains(is_deceptive), "{line:?}");
    assert_eq!(one_line(&line), line);
    if !text.contains(is_deceptive) {
        assert_eq!(line, text);
    }
}

/// The same as `decode_hex`, from the end.
fn second_hex(digits: &[u8]) -> Option<Vec<u8>> {
    const DIGITS: &[u8] = b"0123456789abcdef";
    let [before @ .., high, low] = digits else {
        return digits.is_empty().then(Vec::new);
    };
    let value = |digit: &u8| DIGITS.iter().position(|known| *known == digit.to_ascii_lowercase());
    let byte = value(high)? * 16 + value(low)?;
    let mut bytes = second_hex(before)?;
    bytes.push(byte as u8);
    Some(bytes)
}

/// The same as `unescape`, byte by byte.
fn second_unescape(mut text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let hex = |digit: u8| char::from(digit).to_digit(16);
    loop {
        let (byte, rest) = match text {
            [] => return Some(bytes),
            [b'\\', b'x', high, low, rest @ ..] => ((hex(*high)? << 4 | hex(*low)?) as u8, rest),
            [b'\\', b'n', rest @ ..] => (b'\n', rest),
            [b'\\', b'r', rest @ ..] => (b'\r', rest),
            [b'\\', b't', rest @ ..] => (b'\t', rest),
            [b'\\', b'0', rest @ ..] => (0, rest),
            [b'\\', b'\\', rest @ ..] => (b'\\', rest),
            [b'\\', ..] => return None,
            [byte, rest @ ..] => (*byte, rest),
        };
        bytes.push(byte);
        text = rest;
    }
}

/// Bytes in JSON.
fn json(data: &[u8], text: &str) {
    let mut line = Vec::new();
    json_line(&mut line, &text).unwrap();
    let line = String::from_utf8(line).unwrap();
    assert_eq!(line.find(is_deceptive), Some(line.len() - 1), "{line:?}");
    assert_eq!(json::parse(line.as_bytes()).unwrap().text(), Some(text));

    let either = TextOrBase64::of(data);
    let back = either
        .text
        .map(|text| text.as_bytes().to_vec())
        .or_else(|| json::base64(&either.base64?));
    assert_eq!(back.as_deref(), Some(data));

    for (metadata, is_one_line) in [
        (JsonOrBase64::exact(Some(data)), true),
        (JsonOrBase64::whole(Some(data)), false),
    ] {
        let is_json = metadata.json.is_some();
        let back = match (metadata.json, metadata.base64) {
            (Some(json), None) => json.get().as_bytes().to_vec(),
            (None, Some(base64)) => json::base64(&base64).unwrap(),
            both => panic!("{both:?}"),
        };
        assert_eq!(back, data);
        assert!(!is_json || data != b"null" && !(is_one_line && data.contains(&b'\n')));
    }
    let meant = json::parse(data);
    if meant.as_ref().err() != Some(&json::Wrong::TooDeep) {
        let expected = meant.ok().and_then(|node| std::str::from_utf8(node.raw).ok());
        let metadata = JsonOrBase64::of(Some(data));
        assert_eq!(metadata.json.map(|json| json.get()), expected);
    }
}
