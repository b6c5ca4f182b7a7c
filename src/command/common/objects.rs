//! Structs that are read from JSON objects only; and keys, read from strings or objects.

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

/// A struct read from an object. serde's derived code also accepts an array of the fields, in the
/// order of their declaration.
#[derive(Debug)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members)).map(Object)
    }
}

/// The names of an object's members that are not null, each once.
#[derive(Debug, Default)]
pub(crate) struct MemberNames(pub(crate) BTreeSet<String>);

impl<'de> Deserialize<'de> for MemberNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MemberNamesVisitor)
    }
}

struct MemberNamesVisitor;

impl<'de> Visitor<'de> for MemberNamesVisitor {
    type Value = MemberNames;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut names = BTreeSet::new();
        while let Some((name, value)) = members.next_entry::<String, Option<IgnoredAny>>()? {
            if value.is_some() {
                names.insert(name);
            }
        }
        Ok(MemberNames(names))
    }
}

/// A key in a list of keys: a string, or an object with its name, as in a listing.
#[derive(Debug)]
pub(crate) enum NamedKey<T> {
    Plain(String),
    Object(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for NamedKey<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NamedKeyVisitor(PhantomData))
    }
}

struct NamedKeyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for NamedKeyVisitor<T> {
    type Value = NamedKey<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key, which is a string or an object with its name")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(NamedKey::Plain(key.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members)).map(NamedKey::Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by the fuzz target `server_bulk`.
    #[test]
    fn an_array_of_a_structs_fields_is_no_object() {
        #[derive(serde::Deserialize)]
        struct Pair {
            key: String,
        }
        let key = |json| serde_json::from_str::<Object<Pair>>(json).map(|pair| pair.0.key);
        assert_eq!(key(r#"{"key": "a"}"#).ok().as_deref(), Some("a"));
        assert!(serde_json::from_str::<Pair>(r#"["a"]"#).is_ok() && key(r#"["a"]"#).is_err());
    }
}
