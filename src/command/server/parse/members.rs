//! Metadata that came in parts, since a client took an object apart: `metadata[a]`,
//! `metadata[b][c]`, `metadata[d][]`. The npm SDK does so with an object that is not JSON text.

use serde_json::{Map, Value};

use super::rules::{self, METADATA_BYTES_MAX};
use crate::server::error::ApiError;

/// Deepest member.
const DEPTH_MAX: usize = 32;

/// An object, or array, that is put together. What was no text in it is text now.
#[derive(Debug, Default)]
pub(super) struct Members {
    root: Value,
    refused: Option<ApiError>,
    /// The least that it takes as JSON, in bytes.
    json_bytes: usize,
}

/// The names on the way to a member; an empty one is of an element of an array. None if a part is
/// no member of this object.
pub(super) fn path<'a>(part: &'a str, object: &str) -> Option<Vec<&'a str>> {
    let names = part.strip_prefix(object)?.strip_prefix('[')?.strip_suffix(']')?;
    // Names are not escaped, and may have brackets.
    Some(names.split("][").collect())
}

impl Members {
    pub(super) fn are_some(&self) -> bool {
        !self.root.is_null() || self.refused.is_some()
    }

    /// Adds a member, unless one before was refused.
    pub(super) fn add(&mut self, path: &[&str], text: &[u8]) {
        if self.refused.is_none() {
            self.refused = self.try_to_add(path, text).err();
        }
    }

    fn try_to_add(&mut self, path: &[&str], text: &[u8]) -> Result<(), ApiError> {
        let names: usize = path.iter().map(|name| name.len()).sum();
        // Quotation marks, and a comma or bracket. Names may be shared with other members.
        self.json_bytes += text.len() + 3;
        if self.json_bytes > METADATA_BYTES_MAX || names > METADATA_BYTES_MAX {
            return Err(rules::long_metadata(self.json_bytes.max(names)));
        }
        let wrong = |what: &str| ApiError::new(400, 10147, format!("metadata must be valid json: {what}"));
        if path.len() > DEPTH_MAX {
            return Err(wrong(
                "the object in its parts is too deep; send one part with JSON text",
            ));
        }
        let text = std::str::from_utf8(text).map_err(|_| wrong("a part of it is not text in UTF-8"))?;
        let added = insert(&mut self.root, path, text);
        added.ok_or_else(|| wrong("parts of it contradict each other; send one part with JSON text"))
    }

    /// The JSON text; an error if a member was refused.
    pub(super) fn json(self) -> Result<Vec<u8>, ApiError> {
        // Text and names: serializing cannot fail.
        self.refused
            .map_or_else(|| Ok(serde_json::to_vec(&self.root).unwrap_or_default()), Err)
    }
}

/// None, and nothing is changed, if there is something else.
fn insert(at: &mut Value, path: &[&str], text: &str) -> Option<()> {
    let Some((name, rest)) = path.split_first() else {
        let is_free = at.is_null();
        return is_free.then(|| *at = text.into());
    };
    if at.is_null() {
        *at = match *name {
            "" => Value::Array(Vec::new()),
            _ => Value::Object(Map::new()),
        };
    }
    match at {
        Value::Array(elements) if name.is_empty() => {
            // Members of one element come one after the other.
            let last = elements.last_mut().filter(|last| !last.is_string());
            if last.is_some_and(|last| insert(last, rest, text).is_some()) {
                return Some(());
            }
            let mut element = Value::Null;
            insert(&mut element, rest, text)?;
            elements.push(element);
            Some(())
        }
        Value::Object(members) => insert(members.entry(*name).or_insert(Value::Null), rest, text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn together(parts: &[(&str, &str)]) -> Result<Value, ApiError> {
        let mut members = Members::default();
        for (part, text) in parts {
            members.add(&path(part, "metadata").unwrap(), text.as_bytes());
        }
        assert!(members.are_some());
        Ok(serde_json::from_slice(&members.json()?).unwrap())
    }

    #[test]
    fn an_object_is_put_together_from_its_members() {
        for (parts, expected) in [
            (&[("metadata[a]", "1")][..], json!({ "a": "1" })),
            (
                &[
                    ("metadata[a]", "x"),
                    ("metadata[b][c][]", "y"),
                    ("metadata[b][c][]", "z"),
                    ("metadata[b][d]", ""),
                ],
                json!({ "a": "x", "b": { "c": ["y", "z"], "d": "" } }),
            ),
            (&[("metadata[]", "x"), ("metadata[]", "y")], json!(["x", "y"])),
            (
                &[("metadata[][a]", "1"), ("metadata[][b]", "2"), ("metadata[][a]", "3")],
                json!([{ "a": "1", "b": "2" }, { "a": "3" }]),
            ),
            (&[("metadata[a]b[]", "1")], json!({ "a]b[": "1" })),
            (
                &[("metadata[\u{fc}][ ]", "\u{fc}")],
                json!({ "\u{fc}": { " ": "\u{fc}" } }),
            ),
        ] {
            assert_eq!(together(parts), Ok(expected), "{parts:?}");
        }
        for other in [
            "metadata",
            "metadata[",
            "metadata]",
            "metadata[a",
            "metadata[a]b",
            "metadatax[a]",
            "value[a]",
        ] {
            assert_eq!(path(other, "metadata"), None, "{other}");
        }
    }

    #[test]
    fn what_cannot_be_put_together_is_refused() {
        let deep = format!("metadata{}", "[a]".repeat(10_000));
        let long = "x".repeat(METADATA_BYTES_MAX);
        let status = |parts: &[(&str, &str)]| together(parts).unwrap_err().status;
        for parts in [
            &[("metadata[a]", "1"), ("metadata[a]", "2")][..],
            &[("metadata[a]", "1"), ("metadata[a][b]", "2")],
            &[("metadata[a][b]", "1"), ("metadata[a]", "2")],
            &[("metadata[]", "1"), ("metadata[a]", "2")],
            &[(&format!("metadata{}", "[a]".repeat(33)), "1")],
        ] {
            assert_eq!(status(parts), 400, "{parts:?}");
        }
        assert_eq!(status(&[(&deep, "1")]), 413);
        assert_eq!(status(&[("metadata[a]", &long)]), 413);
        assert_eq!(status(&[(&format!("metadata[{long}x]"), "")]), 413);
        assert_eq!(status(&[("metadata[]", ""); 342]), 413);
        assert!(together(&[("metadata[]", ""); 341]).is_ok());
        let mut members = Members::default();
        assert!(!members.are_some());
        members.add(&["a"], b"\xff");
        assert_eq!(members.json().unwrap_err().status, 400);
    }
}
