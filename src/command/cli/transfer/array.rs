//! JSON arrays larger than memory, read item by item. An item is in memory as its text, once.

use std::io::BufRead;

use super::input::{Input, LINE_BYTES_MAX};
use crate::common::failure::{Failure, Outcome};

/// An item of an array.
pub(crate) struct Item<'a> {
    /// Counted from 1.
    pub(crate) number: u64,
    /// The line of the file on which it begins, counted from 1.
    pub(crate) line: u64,
    /// Its JSON, which may not be well-formed.
    pub(crate) text: &'a mut Vec<u8>,
}

/// Reads a JSON array and passes its items on.
pub(crate) fn for_each(input: Input, take: impl FnMut(Item<'_>) -> Outcome) -> Outcome {
    for_each_up_to(LINE_BYTES_MAX, input, take)
}

/// As [`for_each`], with a limit for the bytes of an item, exact to one read.
fn for_each_up_to(item_bytes_max: u64, mut input: Input, mut take: impl FnMut(Item<'_>) -> Outcome) -> Outcome {
    input.begin()?;
    let mut reader = Reader {
        input,
        line: 1,
        items: 0,
        item_bytes: 0,
        item_bytes_max,
    };
    match reader.next_byte()? {
        Some(b'[') => reader.consume(1),
        first => return Err(reader.no_array(first)),
    }
    let mut text = Vec::new();
    let mut byte = reader.next_byte()?;
    for number in 1.. {
        match byte {
            Some(b']') if number == 1 => break,
            Some(b']' | b',') => return Err(reader.wrong("an item is missing between two commas or at the end")),
            _ => {}
        }
        let line = reader.line;
        reader.item(&mut text)?;
        take(Item {
            number,
            line,
            text: &mut text,
        })?;
        reader.item_bytes = 0;
        reader.items = number;
        match reader.next_byte()? {
            Some(b']') => break,
            Some(b',') => reader.consume(1),
            Some(_) => return Err(reader.wrong("a comma or the end of the array is missing")),
            None => return Err(reader.cut_off()),
        }
        byte = reader.next_byte()?;
    }
    reader.consume(1);
    match reader.next_byte()? {
        None => Ok(()),
        Some(_) => Err(reader.wrong("there is more after the end of the array")),
    }
}

struct Reader {
    input: Input,
    /// Of the next byte, counted from 1.
    line: u64,
    /// Items that were read.
    items: u64,
    /// Bytes read since the previous item.
    item_bytes: u64,
    item_bytes_max: u64,
}

impl Reader {
    fn wrong(&self, what: &str) -> Failure {
        self.wrong_with(what, "")
    }

    fn wrong_with(&self, what: &str, hint: &str) -> Failure {
        let after = match self.items {
            0 => String::new(),
            items => format!(", after item {items}"),
        };
        Failure::usage(format!("{}, line {}{after}: {what}", self.input.name, self.line), hint)
    }

    /// The failure for a file that begins with another character than an array.
    fn no_array(&self, first: Option<u8>) -> Failure {
        let hint = "pairs are [{\"key\": ..., \"value\": ...}, ...], and keys [\"key\", {\"name\": \"key\"}, ...]";
        match first {
            None => self.wrong_with("this is not a JSON array: there is nothing", hint),
            Some(b'{') => {
                let hint = format!("{hint}; the lines of an export are for `embercask import`");
                self.wrong_with("this is a JSON object, not a JSON array", &hint)
            }
            Some(_) => self.wrong_with("this is not a JSON array", hint),
        }
    }

    fn cut_off(&self) -> Failure {
        self.wrong("the file ends before the array does")
    }

    /// The bytes that can be looked at; none at the end.
    fn buffer(&mut self) -> Outcome<&[u8]> {
        if self.item_bytes > self.item_bytes_max {
            return Err(self.wrong("an item is longer than any key with its value"));
        }
        loop {
            // Twice, since a borrow that is returned in one case lasts in all.
            match self.input.reader.fill_buf() {
                Ok(_) => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.input.failure(&error)),
            }
        }
        Ok(self.input.reader.fill_buf().unwrap_or_default())
    }

    fn consume(&mut self, length: usize) {
        self.item_bytes += length as u64;
        self.input.reader.consume(length);
    }

    /// The next byte that is not a blank, which stays unread; None at the end.
    fn next_byte(&mut self) -> Outcome<Option<u8>> {
        loop {
            let buffer = self.buffer()?;
            let is_blank = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
            let blanks = buffer.iter().take_while(is_blank).count();
            let lines = lines_in(buffer.get(..blanks).unwrap_or_default());
            let (byte, is_end) = (buffer.get(blanks).copied(), buffer.is_empty());
            self.line += lines;
            self.consume(blanks);
            if byte.is_some() || is_end {
                return Ok(byte);
            }
        }
    }

    /// Reads the text of an item up to its end, without judging it.
    fn item(&mut self, text: &mut Vec<u8>) -> Outcome {
        text.clear();
        let mut scan = Scan::default();
        loop {
            let buffer = self.buffer()?;
            if buffer.is_empty() {
                return Err(self.cut_off());
            }
            let (length, is_end) = scan.scan(buffer);
            let part = buffer.get(..length).unwrap_or_default();
            let lines = lines_in(part);
            text.extend_from_slice(part);
            self.line += lines;
            self.consume(length);
            if is_end {
                return Ok(());
            }
        }
    }
}

fn lines_in(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Finds the end of a JSON value.
#[derive(Default)]
struct Scan {
    /// Brackets and braces that are open.
    depth: u64,
    in_string: bool,
    is_escaped: bool,
    /// It is a number or a word, which ends where something else begins.
    is_word: bool,
}

impl Scan {
    /// How many of these bytes belong to the value, and whether it ends there.
    fn scan(&mut self, bytes: &[u8]) -> (usize, bool) {
        for (at, byte) in bytes.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                if !self.in_string && self.depth == 0 {
                    return (at + 1, true);
                }
                continue;
            }
            let is_punctuation = matches!(
                byte,
                b'"' | b'{' | b'[' | b'}' | b']' | b',' | b' ' | b'\t' | b'\n' | b'\r'
            );
            match byte {
                _ if self.is_word && is_punctuation => return (at, true),
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return (at + 1, true);
                    }
                }
                _ => self.is_word = self.depth == 0,
            }
        }
        (bytes.len(), false)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor};

    use super::*;

    /// The items read, with their lines, and whether the whole array was.
    fn read(text: &str, item_bytes_max: u64) -> (Vec<(u64, String)>, bool) {
        let mut taken = Vec::new();
        let input = Input::of_reader(BufReader::with_capacity(7, Cursor::new(text.to_owned())));
        let read = for_each_up_to(item_bytes_max, input, |item| {
            assert_eq!(item.number, taken.len() as u64 + 1);
            taken.push((item.line, String::from_utf8(item.text.clone()).unwrap()));
            Ok(())
        });
        (taken, read.is_ok())
    }

    #[test]
    fn items_are_passed_on_as_they_stand() {
        let items = [
            "{\"a]\\\"\": [1,\n{}]}",
            "-1.5e3",
            "true",
            "\"},\\\\\"",
            "[\"[\\\\\"]",
            "null",
        ];
        let (taken, is_whole) = read(&format!(" \n[{}]\r\n", items.join(" ,\n ")), 1 << 20);
        assert!(is_whole);
        let (lines, texts): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
        assert_eq!(texts, items);
        assert_eq!(lines, [2, 4, 5, 6, 7, 8]);
        assert_eq!(read("[]", 10), (vec![], true));
        assert_eq!(read(" [ \n ] ", 10), (vec![], true));
    }

    #[test]
    fn what_is_no_array_is_read_up_to_there() {
        for (text, expected) in [
            ("", &[][..]),
            ("{}", &[]),
            ("1", &[]),
            ("[", &[]),
            ("[,1]", &[]),
            ("[1", &[]),
            ("[1,", &["1"]),
            ("[1,]", &["1"]),
            ("[1,,2]", &["1"]),
            ("[1 2]", &["1"]),
            ("[{} x]", &["{}"]),
            ("[{}{}]", &["{}"]),
            ("[1\"a\"]", &["1"]),
            ("[1}]", &["1"]),
            ("[{\"a\"", &[]),
            ("[\"a\\\"", &[]),
            ("[1]]", &["1"]),
            ("[1] more", &["1"]),
        ] {
            let (taken, is_whole) = read(text, 1 << 20);
            let taken: Vec<_> = taken.iter().map(|(_, item)| &**item).collect();
            assert_eq!((&taken[..], is_whole), (expected, false), "{text}");
        }
    }

    #[test]
    fn an_item_without_end_is_not_waited_for() {
        let taken = |text: &str, most| {
            let (taken, is_whole) = read(text, most);
            (taken.len(), is_whole)
        };
        let many = |length: usize| format!("[{}\"\"]", format!("\"{}\",", "a".repeat(length)).repeat(100));
        assert_eq!(taken(&many(100), 20_000), (101, true));
        assert_eq!(taken(&many(40_000), 20_000), (0, false));
        assert_eq!(
            taken(&format!("[\"a\",\"{}", "b".repeat(1_000_000)), 20_000),
            (1, false)
        );
        assert_eq!(taken(&format!("[{}", " ".repeat(1_000_000)), 20_000), (0, false));
    }
}
