//! The encoding of text, by the first bytes of a file.

/// The mark that some editors and spreadsheets put in front of UTF-8.
pub(super) const UTF_8_MARK: &[u8] = b"\xef\xbb\xbf";

/// The name of the encoding if it is not UTF-8: by its mark, or by the zeros beside the first
/// character, which in JSON and lines of JSON is ASCII.
pub(super) fn foreign(head: &[u8]) -> Option<&'static str> {
    match head {
        [0xff, 0xfe, 0, 0] | [0, 0, 0xfe, 0xff] | [1..=0xff, 0, 0, 0] | [0, 0, 0, 1..=0xff] => Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [1..=0xff, 0, ..] | [0, 1..=0xff, ..] => Some("UTF-16"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_encodings_are_known_with_and_without_a_mark() {
        for text in ["[", "[]", "{\"key\"", "\u{feff}[]", "\n[", "[\"\u{1F525}"] {
            let utf_16: Vec<u16> = text.encode_utf16().collect();
            let utf_32: Vec<u32> = text.chars().map(u32::from).collect();
            for (bytes, name) in [
                (utf_16.iter().flat_map(|unit| unit.to_le_bytes()).collect(), "UTF-16"),
                (utf_16.iter().flat_map(|unit| unit.to_be_bytes()).collect(), "UTF-16"),
                (utf_32.iter().flat_map(|unit| unit.to_le_bytes()).collect(), "UTF-32"),
                (utf_32.iter().flat_map(|unit| unit.to_be_bytes()).collect(), "UTF-32"),
                (text.as_bytes().to_vec(), "UTF-8"),
            ] {
                let head = bytes.get(..4).unwrap_or(&bytes[..]);
                assert_eq!(foreign(head).unwrap_or("UTF-8"), name, "{bytes:?}");
            }
        }
    }
}
