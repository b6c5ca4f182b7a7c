//! JSON arrays that are larger than memory, item by item.

use std::fmt;
use std::io;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};

use super::input::Input;
use crate::cli::failure::{Failure, Outcome};

/// Reads a JSON array and hands its items over, with their numbers from 1 on.
pub(crate) fn for_each<T>(mut input: Input, take: impl FnMut(u64, T) -> Outcome) -> Outcome
where
    T: for<'de> Deserialize<'de>,
{
    let mut deserializer = serde_json::Deserializer::from_reader(&mut input.reader);
    let mut items = Items {
        take,
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
            format!("{} is not what it should be: {error}", input.name),
            "",
        )),
        (None, Ok(())) => Ok(()),
    }
}

struct Items<T, F> {
    take: F,
    /// Why the reading was stopped.
    failure: Option<Failure>,
    item: PhantomData<T>,
}

impl<'de, T, F> Visitor<'de> for &mut Items<T, F>
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
            if let Err(failure) = (self.take)(number, item) {
                self.failure = Some(failure);
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}
