//! Values as JSON, which has no way to say a number that is not finite: serde_json writes `null`
//! for it, and what is read back is not what was put. So such a number is refused, by its place.

use std::cell::RefCell;

use serde::ser::{self, Error as _, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::planted::{Planted, planted};

/// A value as JSON.
pub(super) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    let found = Found::default();
    let checked = Checked { value, found: &found };
    serde_json::to_vec(&checked).map_err(|error| {
        let why = match found.into_inner() {
            Some(NotFinite { number, path }) => {
                format!("value{path} is {number}, which JSON has no way to say; leave it out, or put it as text")
            }
            None => error.to_string(),
        };
        Error::invalid(format!("the value cannot be written as JSON: {why}"))
    })
}

/// A number that is not finite, and the way to it from the value.
struct NotFinite {
    number: f64,
    path: String,
}

type Found = RefCell<Option<NotFinite>>;

/// Serializes a value through [`Finite`].
struct Checked<'a, T: ?Sized> {
    value: &'a T,
    found: &'a Found,
}

impl<T: Serialize + ?Sized> Serialize for Checked<'_, T> {
    fn serialize<S: Serializer>(&self, inner: S) -> Result<S::Ok, S::Error> {
        let found = self.found;
        self.value.serialize(Finite { inner, found })
    }
}

/// Hands everything on to a serializer, except numbers that are not finite.
struct Finite<'a, S> {
    inner: S,
    found: &'a Found,
}

/// The same for the parts of a sequence, a map or a struct.
struct Parts<'a, S> {
    inner: S,
    found: &'a Found,
    /// Index of the part to come.
    index: usize,
}

impl<'a, S> Parts<'a, S> {
    fn checked<'v, T: ?Sized>(&self, value: &'v T) -> Checked<'v, T>
    where
        'a: 'v,
    {
        let found = self.found;
        Checked { value, found }
    }

    /// Counts a part that was added. If that failed, its name is a step on the way there.
    fn added<E>(&mut self, added: Result<(), E>, name: Option<&str>) -> Result<(), E> {
        if added.is_err()
            && let Some(found) = &mut *self.found.borrow_mut()
        {
            let step = match name {
                Some(name) => format!(".{name}"),
                None => format!("[{}]", self.index),
            };
            found.path.insert_str(0, &step);
        }
        self.index += 1;
        added
    }
}

impl<'a, S: Serializer> Finite<'a, S> {
    fn check(&self, number: f64) -> Result<(), S::Error> {
        if number.is_finite() || planted(Planted::NullForNumber) {
            return Ok(());
        }
        let path = String::new();
        *self.found.borrow_mut() = Some(NotFinite { number, path });
        Err(S::Error::custom("a number is not finite"))
    }

    fn parts<P>(found: &'a Found, begun: Result<P, S::Error>) -> Result<Parts<'a, P>, S::Error> {
        let index = 0;
        begun.map(|inner| Parts { inner, found, index })
    }
}

macro_rules! hand_on {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {$(
        fn $name(self, $($argument: $type),*) -> Result<S::Ok, S::Error> {
            self.inner.$name($($argument),*)
        }
    )*};
}

macro_rules! hand_on_parts {
    ($($name:ident($($argument:ident: $type:ty),*) -> $parts:ident;)*) => {$(
        fn $name(self, $($argument: $type),*) -> Result<Self::$parts, S::Error> {
            Self::parts(self.found, self.inner.$name($($argument),*))
        }
    )*};
}

impl<'a, S: Serializer> Serializer for Finite<'a, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Parts<'a, S::SerializeSeq>;
    type SerializeTuple = Parts<'a, S::SerializeTuple>;
    type SerializeTupleStruct = Parts<'a, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Parts<'a, S::SerializeTupleVariant>;
    type SerializeMap = Parts<'a, S::SerializeMap>;
    type SerializeStruct = Parts<'a, S::SerializeStruct>;
    type SerializeStructVariant = Parts<'a, S::SerializeStructVariant>;

    fn serialize_f32(self, value: f32) -> Result<S::Ok, S::Error> {
        self.check(value.into())?;
        self.inner.serialize_f32(value)
    }

    fn serialize_f64(self, value: f64) -> Result<S::Ok, S::Error> {
        self.check(value)?;
        self.inner.serialize_f64(value)
    }

    hand_on! {
        serialize_bool(value: bool);
        serialize_i8(value: i8);
        serialize_i16(value: i16);
        serialize_i32(value: i32);
        serialize_i64(value: i64);
        serialize_i128(value: i128);
        serialize_u8(value: u8);
        serialize_u16(value: u16);
        serialize_u32(value: u32);
        serialize_u64(value: u64);
        serialize_u128(value: u128);
        serialize_char(value: char);
        serialize_str(value: &str);
        serialize_bytes(value: &[u8]);
        serialize_none();
        serialize_unit();
        serialize_unit_struct(name: &'static str);
        serialize_unit_variant(name: &'static str, index: u32, variant: &'static str);
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        let found = self.found;
        self.inner.serialize_some(&Checked { value, found })
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<S::Ok, S::Error> {
        let found = self.found;
        self.inner.serialize_newtype_struct(name, &Checked { value, found })
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let checked = Checked {
            value,
            found: self.found,
        };
        self.inner.serialize_newtype_variant(name, index, variant, &checked)
    }

    hand_on_parts! {
        serialize_seq(len: Option<usize>) -> SerializeSeq;
        serialize_tuple(len: usize) -> SerializeTuple;
        serialize_tuple_struct(name: &'static str, len: usize) -> SerializeTupleStruct;
        serialize_tuple_variant(name: &'static str, index: u32, variant: &'static str, len: usize)
            -> SerializeTupleVariant;
        serialize_map(len: Option<usize>) -> SerializeMap;
        serialize_struct(name: &'static str, len: usize) -> SerializeStruct;
        serialize_struct_variant(name: &'static str, index: u32, variant: &'static str, len: usize)
            -> SerializeStructVariant;
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! sequences {
    ($($parts:ident::$add:ident;)*) => {$(
        impl<S: ser::$parts> ser::$parts for Parts<'_, S> {
            type Ok = S::Ok;
            type Error = S::Error;

            fn $add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
                let checked = self.checked(value);
                let added = self.inner.$add(&checked);
                self.added(added, None)
            }

            fn end(self) -> Result<S::Ok, S::Error> {
                self.inner.end()
            }
        }
    )*};
}

sequences! {
    SerializeSeq::serialize_element;
    SerializeTuple::serialize_element;
    SerializeTupleStruct::serialize_field;
    SerializeTupleVariant::serialize_field;
}

macro_rules! structs {
    ($($parts:ident;)*) => {$(
        impl<S: ser::$parts> ser::$parts for Parts<'_, S> {
            type Ok = S::Ok;
            type Error = S::Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), S::Error> {
                let checked = self.checked(value);
                let added = self.inner.serialize_field(name, &checked);
                self.added(added, Some(name))
            }

            fn skip_field(&mut self, name: &'static str) -> Result<(), S::Error> {
                self.inner.skip_field(name)
            }

            fn end(self) -> Result<S::Ok, S::Error> {
                self.inner.end()
            }
        }
    )*};
}

structs! {
    SerializeStruct;
    SerializeStructVariant;
}

impl<S: ser::SerializeMap> ser::SerializeMap for Parts<'_, S> {
    type Ok = S::Ok;
    type Error = S::Error;

    /// Keys are not checked: serde_json refuses one that is no finite number.
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), S::Error> {
        self.inner.serialize_key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        let checked = self.checked(value);
        let added = self.inner.serialize_value(&checked);
        // The name of an entry may be of any type; its number tells where it is.
        self.added(added, None)
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.inner.end()
    }
}
