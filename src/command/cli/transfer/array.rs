//! JSON arrays larger than memory, read item by item.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufReader, Read};
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};

use super::input::{Input, LINE_BYTES_MAX};
use crate::common::failure::{Failure, Outcome};

/// Reads a JSON array and passes its items on, numbered from 1.
pub(crate) fn for_each<T>(input: Input, take: impl FnMut(u64, T) -> Outcome) -> Outcome
where
    T: for<'de> Deserialize<'de>,
{
    for_each_up_to(LINE_BYTES_MAX, input, take)
}

/// As [`for_each`], with a limit for the bytes of an item, exact to one read.
fn for_each_up_to<T>(item_bytes_max: u64, mut input: Input, take: impl FnMut(u64, T) -> Outcome) -> Outcome
where
    T: for<'de> Deserialize<'de>,
{
    let item_bytes = Cell::new(0);
    let bounded = Bounded {
        inner: &mut input.reader,
        item_bytes: &item_bytes,
        item_bytes_max,
    };
    let mut deserializer = serde_json::Deserializer::from_reader(BufReader::new(bounded));
    let mut items = Items {
        take,
        item_bytes: &item_bytes,
        failure: None,
        item: PhantomData,
    };
    let read = deserializer
        .deserialize_seq(&mut items)
        .and_then(|()| deserializer.end());
    match (items.failure, read) {
        (Some(failure), _) => Err(failure),
        (None, Err(error)) if error.is_io() => Err(input.failure(&io::Error::from(error))),
        (None, Err(error)) => Err(Failure::usage(
            format!("{} is not as expected: {error}", input.name),
            "",
        )),
        (None, Ok(())) => Ok(()),
    }
}

/// Fails when an item is longer than any valid one.
struct Bounded<'a, R> {
    inner: R,
    /// Bytes read since the previous item.
    item_bytes: &'a Cell<u64>,
    item_bytes_max: u64,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.item_bytes.get() > self.item_bytes_max {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "an item is longer than any key with its value",
            ));
        }
        let read = self.inner.read(buffer)?;
        self.item_bytes.set(self.item_bytes.get() + read as u64);
        Ok(read)
    }
}

struct Items<'a, T, F> {
    take: F,
    item_bytes: &'a Cell<u64>,
    /// Why reading stopped.
    failure: Option<Failure>,
    item: PhantomData<T>,
}

impl<'de, T, F> Visitor<'de> for &mut Items<'_, T, F>
where
    T: Deserialize<'de>,
    F: FnMut(u64, T) -> Outcome,
{
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut number = 0;
        while let Some(item) = items.next_element()? {
            number += 1;
            self.item_bytes.set(0);
            if let Err(failure) = (self.take)(number, item) {
                self.failure = Some(failure);
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of items read, and whether the whole array was.
    fn read(text: String, item_bytes_max: u64) -> (u64, bool) {
        let input = Input {
            name: "text".to_owned(),
            reader: Box::new(BufReader::with_capacity(64, io::Cursor::new(text))),
            is_file: false,
        };
        let mut taken = 0;
        let read = for_each_up_to(item_bytes_max, input, |number, _: String| {
            taken = number;
            Ok(())
        });
        (taken, read.is_ok())
    }

    #[test]
    fn an_item_without_end_is_not_waited_for() {
        let many = |length: usize| format!("[{}\"\"]", format!("\"{}\",", "a".repeat(length)).repeat(100));
        assert_eq!(read(many(100), 20_000), (101, true));
        assert_eq!(read(many(40_000), 20_000), (0, false));
        assert_eq!(read(format!("[\"a\",\"{}", "b".repeat(1_000_000)), 20_000), (1, false));
        assert_eq!(read(format!("[{}", " ".repeat(1_000_000)), 20_000), (0, false));
    }
}
