//! A second reader of JSON, written from RFC 8259 alone, which fuzz targets compare serde with; and
//! one of base64.

/// Deeper JSON is not compared: for some types serde_json has a limit near there.
const DEPTH_MAX: usize = 100;

/// A value, and its text.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    pub(crate) raw: &'a [u8],
    pub(crate) value: Value<'a>,
}

#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    /// None if it is not valid text: not UTF-8, or with half of a surrogate pair.
    Text(Option<String>),
    Array(Vec<Node<'a>>),
    /// In order; a name may occur twice.
    Object(Vec<(Option<String>, Node<'a>)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    Syntax,
    /// This reader cannot judge it.
    TooDeep,
}

pub(crate) fn parse(text: &[u8]) -> Result<Node<'_>, Wrong> {
    let mut reader = Reader { text, at: 0 };
    let node = reader.value(0)?;
    reader.blanks();
    if reader.at == text.len() {
        Ok(node)
    } else {
        Err(Wrong::Syntax)
    }
}

/// The items of an array up to the first error; and Ok if the whole text is one valid array.
pub(crate) fn items(text: &[u8]) -> (Vec<Node<'_>>, Result<(), Wrong>) {
    let mut reader = Reader { text, at: 0 };
    let mut items = Vec::new();
    let read = reader.items(0, &mut items).and_then(|()| {
        reader.blanks();
        if reader.at == text.len() {
            Ok(())
        } else {
            Err(Wrong::Syntax)
        }
    });
    (items, read)
}

impl<'a> Node<'a> {
    /// The known members of an object. None if it is not an object, has a name that is not text,
    /// has a known name twice, or has an unknown one where `others` are wrong.
    pub(crate) fn members(&self, is_known: impl Fn(&str) -> bool, others: Others) -> Option<Members<'_, 'a>> {
        let Value::Object(all) = &self.value else { return None };
        let (mut members, mut others_are_meaningful) = (Vec::new(), true);
        for (name, node) in all {
            let name = name.as_deref()?;
            if is_known(name) {
                if members.iter().any(|(known, _)| *known == name) {
                    return None;
                }
                members.push((name, node));
            } else if matches!(others, Others::AreWrong) {
                return None;
            } else {
                others_are_meaningful &= node.is_meaningful();
            }
        }
        Some(Members {
            members,
            others_are_meaningful,
        })
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => text.as_deref(),
            _ => None,
        }
    }

    pub(crate) fn texts(&self) -> Option<Vec<String>> {
        let Value::Array(items) = &self.value else { return None };
        items.iter().map(|item| item.text().map(str::to_owned)).collect()
    }

    pub(crate) fn number(&self) -> Option<&'a str> {
        match self.value {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }

    pub(crate) fn bool(&self) -> Option<bool> {
        match self.value {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// Whether all strings in it are valid text, and all numbers finite.
    pub(crate) fn is_meaningful(&self) -> bool {
        match &self.value {
            Value::Null | Value::Bool(_) => true,
            Value::Number(number) => number.parse().is_ok_and(f64::is_finite),
            Value::Text(text) => text.is_some(),
            Value::Array(items) => items.iter().all(Node::is_meaningful),
            Value::Object(members) => members
                .iter()
                .all(|(name, node)| name.is_some() && node.is_meaningful()),
        }
    }
}

/// How to treat members with unknown names.
#[derive(Clone, Copy)]
pub(crate) enum Others {
    MeanNothing,
    AreWrong,
}

pub(crate) struct Members<'n, 'a> {
    members: Vec<(&'n str, &'n Node<'a>)>,
    others_are_meaningful: bool,
}

impl<'n, 'a> Members<'n, 'a> {
    pub(crate) fn get(&self, name: &str) -> Option<&'n Node<'a>> {
        self.members
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, node)| *node)
    }

    pub(crate) fn others_are_meaningful(&self) -> bool {
        self.others_are_meaningful
    }

    /// Reads a member that may be absent or null; None if it is there and wrong.
    #[expect(clippy::option_option, reason = "absent is not the same as wrong")]
    pub(crate) fn optional<T>(&self, name: &str, read: impl Fn(&'n Node<'a>) -> Option<T>) -> Option<Option<T>> {
        match self.get(name) {
            None => Some(None),
            Some(node) if matches!(node.value, Value::Null) => Some(None),
            Some(node) => read(node).map(Some),
        }
    }

    #[expect(clippy::option_option, reason = "absent is not the same as wrong")]
    pub(crate) fn text(&self, name: &str) -> Option<Option<String>> {
        self.optional(name, |node| node.text().map(str::to_owned))
    }

    #[expect(clippy::option_option, reason = "absent is not the same as wrong")]
    pub(crate) fn u64(&self, name: &str) -> Option<Option<u64>> {
        self.optional(name, |node| node.number()?.parse().ok())
    }

    /// The member's JSON itself, which must be UTF-8.
    #[expect(clippy::option_option, reason = "absent is not the same as wrong")]
    pub(crate) fn raw(&self, name: &str) -> Option<Option<Vec<u8>>> {
        self.optional(name, |node| {
            std::str::from_utf8(node.raw).is_ok().then(|| node.raw.to_vec())
        })
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_it = self.peek() == Some(byte);
        self.at += usize::from(is_it);
        is_it
    }

    fn need(&mut self, byte: u8) -> Result<(), Wrong> {
        if self.take(byte) { Ok(()) } else { Err(Wrong::Syntax) }
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node<'a>, Wrong> {
        if depth > DEPTH_MAX {
            return Err(Wrong::TooDeep);
        }
        self.blanks();
        let from = self.at;
        let value = match self.peek() {
            Some(b'n') => self.word("null", Value::Null)?,
            Some(b't') => self.word("true", Value::Bool(true))?,
            Some(b'f') => self.word("false", Value::Bool(false))?,
            Some(b'"') => Value::Text(self.string()?),
            Some(b'[') => {
                let mut items = Vec::new();
                self.items(depth, &mut items)?;
                Value::Array(items)
            }
            Some(b'{') => self.object(depth)?,
            _ => self.number()?,
        };
        Ok(Node {
            raw: &self.text[from..self.at],
            value,
        })
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, Wrong> {
        word.bytes().try_for_each(|byte| self.need(byte))?;
        Ok(value)
    }

    fn items(&mut self, depth: usize, items: &mut Vec<Node<'a>>) -> Result<(), Wrong> {
        self.blanks();
        self.need(b'[')?;
        self.blanks();
        if self.take(b']') {
            return Ok(());
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.blanks();
            if self.take(b']') {
                return Ok(());
            }
            self.need(b',')?;
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value<'a>, Wrong> {
        self.need(b'{')?;
        let mut members = Vec::new();
        self.blanks();
        if self.take(b'}') {
            return Ok(Value::Object(members));
        }
        loop {
            self.blanks();
            let name = self.string()?;
            self.blanks();
            self.need(b':')?;
            members.push((name, self.value(depth + 1)?));
            self.blanks();
            if self.take(b'}') {
                return Ok(Value::Object(members));
            }
            self.need(b',')?;
        }
    }

    fn digits(&mut self) -> Result<(), Wrong> {
        let from = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at > from { Ok(()) } else { Err(Wrong::Syntax) }
    }

    fn number(&mut self) -> Result<Value<'a>, Wrong> {
        let from = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _signed = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        let number = std::str::from_utf8(&self.text[from..self.at]);
        number.map(Value::Number).map_err(|_| Wrong::Syntax)
    }

    fn hex(&mut self) -> Result<u32, Wrong> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            unit = unit << 4 | digit.ok_or(Wrong::Syntax)?;
            self.at += 1;
        }
        Ok(unit)
    }

    fn string(&mut self) -> Result<Option<String>, Wrong> {
        self.need(b'"')?;
        // A character outside the basic plane is two escapes; either may occur alone.
        let (mut bytes, mut is_text) = (Vec::new(), true);
        loop {
            let byte = self.peek().ok_or(Wrong::Syntax)?;
            self.at += 1;
            let escaped = match byte {
                b'"' => break,
                0..=0x1f => return Err(Wrong::Syntax),
                b'\\' => self.peek().ok_or(Wrong::Syntax)?,
                _ => {
                    bytes.push(byte);
                    continue;
                }
            };
            self.at += 1;
            let unit = match escaped {
                b'"' | b'\\' | b'/' => u32::from(escaped),
                b'b' => 8,
                b'f' => 12,
                b'n' => 10,
                b'r' => 13,
                b't' => 9,
                b'u' => self.hex()?,
                _ => return Err(Wrong::Syntax),
            };
            let mut point = unit;
            if (0xd800..0xdc00).contains(&unit) && self.text[self.at..].starts_with(b"\\u") {
                let before = self.at;
                self.at += 2;
                let low = self.hex()?;
                if (0xdc00..0xe000).contains(&low) {
                    point = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                } else {
                    self.at = before;
                }
            }
            match char::from_u32(point) {
                Some(character) => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
                None => is_text = false,
            }
        }
        Ok(String::from_utf8(bytes).ok().filter(|_| is_text))
    }
}

/// Base64 of either alphabet, with blanks anywhere and padding as far as it is there, with zeros in
/// the unused bits.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let text = text.replace([' ', '\t', '\r', '\n'], "");
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    let decode = |last_two: &str| {
        let alphabet = [LETTERS, last_two].concat();
        let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
        for digit in digits.chars() {
            bits = bits << 6 | alphabet.find(digit)? as u32;
            held += 6;
            if held >= 8 {
                held -= 8;
                bytes.push((bits >> held) as u8);
                bits &= (1 << held) - 1;
            }
        }
        (bits == 0).then_some(bytes)
    };
    let padding_max = [0, -1, 2, 1][digits.len() % 4];
    let fits = i64::try_from(padding).is_ok_and(|padding| padding <= padding_max);
    if fits {
        decode("+/").or_else(|| decode("-_"))
    } else {
        None
    }
}
