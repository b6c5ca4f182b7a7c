//! The text of JSON strings, decoded in the buffer in which it stands, and errors of JSON.

use super::text::quoted;

/// A `\u` escape of half a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HalfCharacter;

/// Replaces the escapes of a JSON string that is known to be well-formed. Its quotation marks are
/// not part of it.
pub(crate) fn unescape_in_place(text: &mut Vec<u8>) -> Result<(), HalfCharacter> {
    let is_escape = |byte: &u8| *byte == b'\\';
    // Most values have none, which `contains` finds out the fastest.
    if !text.contains(&b'\\') {
        return Ok(());
    }
    let first = text.iter().position(is_escape).unwrap_or(text.len());
    // No escape is shorter than its character in UTF-8, so writing never overtakes reading.
    let (mut from, mut to) = (first, first);
    while let Some(rest) = text.get(from..).filter(|rest| !rest.is_empty()) {
        let plain = rest.iter().position(is_escape).unwrap_or(rest.len());
        if plain > 0 {
            text.copy_within(from..from + plain, to);
            (from, to) = (from + plain, to + plain);
            continue;
        }
        let (character, length) = escape(rest).ok_or(HalfCharacter)?;
        let mut buffer = [0; 4];
        let encoded = character.encode_utf8(&mut buffer).as_bytes();
        if let Some(target) = text.get_mut(to..to + encoded.len()) {
            target.copy_from_slice(encoded);
        }
        (from, to) = (from + length, to + encoded.len());
    }
    text.truncate(to);
    Ok(())
}

/// The character of the escape with which a text begins, and the escape's length.
fn escape(text: &[u8]) -> Option<(char, usize)> {
    let character = match text.get(1)? {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let first = unit(text)?;
            if !(0xd800..0xdc00).contains(&first) {
                return char::from_u32(first).map(|character| (character, 6));
            }
            let second = unit(text.get(6..)?).filter(|second| (0xdc00..0xe000).contains(second))?;
            let character = char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00));
            return character.map(|character| (character, 12));
        }
        // A quotation mark, a slash or a backslash.
        other => char::from(*other),
    };
    Some((character, 2))
}

/// The number in `\u` and four digits.
fn unit(text: &[u8]) -> Option<u32> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// What is wrong with a text, in the words of JSON, not of Rust. Without the position: it is that
/// in a part of a file.
pub(crate) fn told(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    let text = text.strip_suffix(&position).unwrap_or(&text);
    let wrong = text
        .strip_prefix("invalid type: ")
        .or_else(|| text.strip_prefix("invalid value: "));
    if let Some((found, expected)) = wrong.and_then(|wrong| wrong.rsplit_once(", expected ")) {
        return format!("{} instead of {}", kind(found), kind(expected));
    }
    let name = |what: &str| Some(quoted(text.strip_prefix(what)?.split('`').nth(1)?.as_bytes()));
    if let Some(name) = name("missing field ") {
        return format!("the property {name} is missing");
    }
    if let Some(name) = name("duplicate field ") {
        return format!("the property {name} is there twice");
    }
    if let Some(name) = name("unknown field ") {
        return format!("the property {name} is not known");
    }
    match text {
        "invalid unicode code point" => "the text is not UTF-8",
        "key must be a string" => "the name of a property is not in double quotation marks",
        "unexpected end of hex escape" | "lone leading surrogate in hex escape" => {
            "a \\u escape is of half a character"
        }
        _ if text.starts_with("EOF while parsing") => "the JSON ends in the middle",
        _ => text,
    }
    .to_owned()
}

/// What serde found or expected, as JSON calls it.
fn kind(what: &str) -> &str {
    match what {
        "map" => "an object",
        "sequence" | "a sequence" => "an array",
        "u32" | "u64" => "a whole number",
        // With its whole text, as Rust quotes it.
        _ if what.starts_with("string ") => "a string",
        _ if what.starts_with("floating point ") => "a number with a fraction or exponent",
        _ => what
            .strip_prefix("integer ")
            .or(what.strip_prefix("boolean "))
            .unwrap_or(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unescaped(text: &str) -> Result<String, HalfCharacter> {
        let mut bytes = text.as_bytes().to_vec();
        unescape_in_place(&mut bytes).map(|()| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn escapes_are_read_as_serde_reads_them() {
        for text in [
            "",
            "plain ü",
            r#"\"\\\/\b\f\n\r\t"#,
            r"a\u0041\u00e9\u20ac\ud83d\uDD25z",
            r"\u0000\\u0041\\\u0041",
            "\u{1F525}\\n\u{1F525}\\\\",
        ] {
            let expected: String = serde_json::from_str(&format!("\"{text}\"")).unwrap();
            assert_eq!(unescaped(text).as_ref(), Ok(&expected), "{text}");
        }
        for half in [
            r"\ud83d",
            r"\ud83d ",
            r"\ud83d\n",
            r"\ud83d\ud83d",
            r"\udd25",
            r"a\ud83d\u0041",
        ] {
            assert!(serde_json::from_str::<String>(&format!("\"{half}\"")).is_err());
            assert_eq!(unescaped(half), Err(HalfCharacter), "{half}");
        }
    }

    #[test]
    fn errors_are_told_without_a_position_and_in_the_words_of_json() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Point {
            #[expect(dead_code, reason = "it is read only to fail")]
            x: u64,
        }
        for (text, expected) in [
            ("\n  x", "expected value"),
            (
                "{\"x\": \"\\u001b, expected \\u0000\"}",
                "a string instead of a whole number",
            ),
            ("{\"x\": -1}", "`-1` instead of a whole number"),
            (
                "{\"x\": 1.0}",
                "a number with a fraction or exponent instead of a whole number",
            ),
            ("{\"x\": true}", "`true` instead of a whole number"),
            ("{\"x\": null}", "null instead of a whole number"),
            ("{\"x\": [1]}", "an array instead of a whole number"),
            ("{\"x\": {}}", "an object instead of a whole number"),
            ("{}", "the property \"x\" is missing"),
            ("{\"x\": 1, \"x\": 1}", "the property \"x\" is there twice"),
            ("{\"\\u001b\": 1}", "the property \"\\x1b\" is not known"),
            ("{\"\\ud83d\": 1}", "a \\u escape is of half a character"),
            ("{x: 1}", "the name of a property is not in double quotation marks"),
            ("{\"x\": 1", "the JSON ends in the middle"),
            ("{\"x\": 1,}", "trailing comma"),
        ] {
            let error = serde_json::from_str::<Point>(text).unwrap_err();
            assert_eq!(told(&error), expected, "{text}");
        }
        let error = serde_json::from_slice::<String>(b"\"\xfc\"").unwrap_err();
        assert_eq!(told(&error), "the text is not UTF-8");
    }
}
