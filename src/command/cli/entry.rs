//! A key with what is stored for it, of a store on disk or of a server.

use embercask::{EntryRef, Value};

/// A key, and its value, expiry and metadata.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry<'a> {
    pub(crate) key: &'a [u8],
    /// None if it was not asked for.
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) expiry_ms: Option<u64>,
    pub(crate) metadata: Option<&'a [u8]>,
    /// The sequence of the write, with the value; None where there are none.
    pub(crate) sequence: Option<u64>,
}

impl<'a> Entry<'a> {
    /// An entry of a listing.
    pub(crate) fn of(entry: &EntryRef<'a>) -> Entry<'a> {
        let value = entry.value();
        Entry {
            key: entry.key(),
            value: value.map(Value::as_bytes),
            expiry_ms: entry.expiry_ms(),
            metadata: entry.metadata(),
            sequence: value.map(Value::sequence),
        }
    }

    /// A key and its value.
    pub(crate) fn of_value(key: &'a [u8], value: &'a Value) -> Entry<'a> {
        Entry {
            key,
            value: Some(value.as_bytes()),
            expiry_ms: value.expiry_ms(),
            metadata: value.metadata(),
            sequence: Some(value.sequence()),
        }
    }

    /// Without the value.
    pub(crate) fn without_value(self) -> Entry<'a> {
        Entry {
            value: None,
            sequence: None,
            ..self
        }
    }
}
