//! What `get` returns.

use std::fmt;
use std::ops::{Bound, Deref, RangeBounds};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Backing;
use crate::error::{Error, Result};
use crate::format::record::{Header, Kind, Record};

/// A value read from a store. Dereferences to its bytes, which are not copied: the value keeps
/// alive the map or buffer that holds them, and stays valid after the key is overwritten, the
/// segment compacted away, or the store closed.
///
/// A value held for long keeps a whole segment's address space (and, once that segment is compacted
/// away, its disk space) in use; copy the bytes out to keep them.
#[derive(Clone)]
pub struct Value {
    owner: Owner,
    /// Offsets into the owner's bytes: where metadata and value begin, and where the value ends.
    metadata_start: usize,
    value_start: usize,
    end: usize,
    metadata_len: Option<u32>,
    sequence: u64,
    expiry: Option<u64>,
}

#[derive(Clone)]
enum Owner {
    Shared(Arc<Backing>),
    Owned(Arc<Vec<u8>>),
}

/// A value lent by [`Namespace::get_with`](crate::Namespace::get_with). Dereferences to its bytes.
#[derive(Clone, Copy)]
pub struct ValueRef<'a> {
    bytes: &'a [u8],
    metadata: Option<&'a [u8]>,
    sequence: u64,
    expiry: Option<u64>,
}

impl<'a> ValueRef<'a> {
    /// Of a record that has been checked.
    #[inline]
    pub(super) fn of_record(record: &Record<'a>) -> ValueRef<'a> {
        ValueRef {
            bytes: record.value(),
            metadata: record.metadata(),
            sequence: record.header.sequence,
            expiry: record.header.expiry,
        }
    }

    pub(crate) fn of(value: &'a Value) -> ValueRef<'a> {
        ValueRef {
            bytes: value.as_bytes(),
            metadata: value.metadata(),
            sequence: value.sequence,
            expiry: value.expiry,
        }
    }

    /// The bytes.
    #[inline]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The metadata put with the value; `None` if there is none.
    pub fn metadata(&self) -> Option<&'a [u8]> {
        self.metadata
    }

    /// When the key expires, in milliseconds since the Unix epoch; `None` if never.
    #[inline]
    pub fn expiry_ms(&self) -> Option<u64> {
        self.expiry
    }

    /// As [`Value::sequence`].
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl Deref for ValueRef<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl fmt::Debug for ValueRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_value(f, "ValueRef", *self)
    }
}

impl Value {
    /// `body_start` is the offset of the key in the backing's bytes; the record has been checked.
    #[inline]
    pub(super) fn shared(backing: Arc<Backing>, body_start: usize, header: &Header) -> Value {
        Value::new(Owner::Shared(backing), body_start, header)
    }

    /// A value that is not in the store yet.
    pub(crate) fn of_parts(metadata: Option<&[u8]>, value: &[u8], expiry: Option<u64>) -> Value {
        let bytes = [metadata.unwrap_or_default(), value].concat();
        let value_start = metadata.map_or(0, <[u8]>::len);
        Value {
            metadata_start: 0,
            value_start,
            end: bytes.len(),
            owner: Owner::Owned(Arc::new(bytes)),
            metadata_len: metadata.map(|metadata| metadata.len() as u32),
            sequence: 0,
            expiry,
        }
    }

    /// The header that its record would have.
    pub(crate) fn header(&self, namespace: u32, key: &[u8]) -> Header {
        Header {
            kind: Kind::Put,
            namespace,
            sequence: self.sequence,
            expiry: self.expiry,
            key_len: key.len() as u32,
            metadata_len: self.metadata().map(|metadata| metadata.len() as u32),
            value_len: (self.end - self.value_start) as u32,
            body_crc: 0,
        }
    }

    pub(super) fn owned(bytes: Vec<u8>, body_start: usize, header: &Header) -> Value {
        Value::new(Owner::Owned(Arc::new(bytes)), body_start, header)
    }

    #[inline]
    fn new(owner: Owner, body_start: usize, header: &Header) -> Value {
        let metadata_start = body_start + header.key_len as usize;
        let value_start = metadata_start + header.metadata_len.unwrap_or(0) as usize;
        Value {
            owner,
            metadata_start,
            value_start,
            end: value_start + header.value_len as usize,
            metadata_len: header.metadata_len,
            sequence: header.sequence,
            expiry: header.expiry,
        }
    }

    fn part(&self, start: usize, end: usize) -> &[u8] {
        let bytes = match &self.owner {
            Owner::Shared(backing) => backing.bytes(),
            Owner::Owned(bytes) => bytes,
        };
        bytes.get(start..end).unwrap_or_default()
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.part(self.value_start, self.end)
    }

    /// A part of the value, such as `value.slice(..100)`, with the same expiry, metadata and
    /// sequence. Nothing is copied. A range that ends behind the value is cut there, and one that
    /// begins behind it is empty.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Value {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => usize::MAX,
        };
        let value_start = self.value_start.saturating_add(start).min(self.end);
        Value {
            value_start,
            end: self.value_start.saturating_add(end).clamp(value_start, self.end),
            ..self.clone()
        }
    }

    /// The bytes as text; [`Error::Decode`] if they are not UTF-8.
    pub fn as_str(&self) -> Result<&str> {
        std::str::from_utf8(self.as_bytes()).map_err(|error| Error::Decode {
            expected: "UTF-8",
            cause: error.to_string(),
        })
    }

    /// The bytes as JSON of this type; [`Error::Decode`] if they are not.
    #[cfg(feature = "json")]
    pub fn to_json<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(self.as_bytes()).map_err(|error| Error::Decode {
            expected: "JSON of this type",
            cause: error.to_string(),
        })
    }

    /// The metadata put with the value; `None` if there is none.
    pub fn metadata(&self) -> Option<&[u8]> {
        let length = self.metadata_len?;
        Some(self.part(self.metadata_start, self.metadata_start + length as usize))
    }

    /// When the key expires, in milliseconds since the Unix epoch; `None` if never.
    #[inline]
    pub fn expiry_ms(&self) -> Option<u64> {
        self.expiry
    }

    /// When the key expires; `None` if never, or if the time is out of range for [`SystemTime`].
    pub fn expires_at(&self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::from_millis(self.expiry?))
    }

    /// The sequence of the write that put this value: unique in the store, higher for later writes.
    /// For use with [`crate::Condition::Sequence`].
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_value(f, "Value", ValueRef::of(self))
    }
}

fn fmt_value(f: &mut fmt::Formatter<'_>, name: &str, value: ValueRef<'_>) -> fmt::Result {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    f.debug_struct(name)
        .field("value", &text(value.bytes))
        .field("metadata", &value.metadata.map(text))
        .field("expiry_ms", &value.expiry)
        .field("sequence", &value.sequence)
        .finish()
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Value {
    fn eq(&self, other: &T) -> bool {
        self.as_bytes() == other.as_ref()
    }
}
