//! A second reader of percent escapes and of ids.

pub(super) fn decode(text: &str, plus_is_space: bool) -> Option<Vec<u8>> {
    let (mut bytes, mut text) = (Vec::new(), text.as_bytes());
    let hex = |digit: u8| char::from(digit).to_digit(16);
    loop {
        let (byte, rest) = match text {
            [] => return Some(bytes),
            [b'%', high, low, rest @ ..] => ((hex(*high)? << 4 | hex(*low)?) as u8, rest),
            [b'%', ..] => return None,
            [b'+', rest @ ..] if plus_is_space => (b' ', rest),
            [byte, rest @ ..] => (*byte, rest),
        };
        bytes.push(byte);
        text = rest;
    }
}

pub(super) fn parse_id(text: &str) -> Option<u128> {
    let is_id = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    u128::from_str_radix(text, 16).ok().filter(|_| is_id)
}
