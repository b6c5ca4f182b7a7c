//! Pages and entries.

#[cfg(doc)]
use super::List;
use crate::error::{Error, Result};
use crate::index::order::{KeyFlags, KeyPage};
use crate::segment::Value;

/// One page of a listing.
#[derive(Clone, Debug, Default)]
pub struct Page {
    keys: KeyPage,
    /// One per key, or empty if all keys are plain.
    details: Vec<Detail>,
    /// The listing goes on behind this page.
    goes_on: bool,
    cursor: Option<String>,
}

/// What a page knows about a key.
#[derive(Clone, Debug)]
pub(super) enum Detail {
    /// The key has neither an expiry nor metadata, and its value was not asked for.
    Plain,
    /// When it expires, in milliseconds since the epoch.
    Expiry(u64),
    /// Its value, with expiry and metadata.
    Value(Value),
    /// Its record could not be read.
    Damaged(Box<Unread>),
}

/// What is known about a key whose record could not be read.
#[derive(Clone, Debug)]
pub(super) struct Unread {
    pub(super) error: Error,
    /// When it expires, if the header of the record is sound.
    pub(super) expiry: Option<u64>,
}

/// A listed key.
#[derive(Clone, Debug)]
pub struct Entry {
    key: Vec<u8>,
    expiry: Option<u64>,
    value: Option<Value>,
    with_value: bool,
}

/// A listed key, borrowed from its page.
#[derive(Clone, Copy, Debug)]
pub struct EntryRef<'a> {
    key: &'a [u8],
    expiry: Option<u64>,
    value: Option<&'a Value>,
    error: Option<&'a Error>,
}

impl<'a> EntryRef<'a> {
    fn new(key: &'a [u8], detail: Option<&'a Detail>) -> EntryRef<'a> {
        let (expiry, value, error) = match detail {
            None | Some(Detail::Plain) => (None, None, None),
            Some(Detail::Expiry(expiry)) => (Some(*expiry), None, None),
            Some(Detail::Value(value)) => (value.expiry_ms(), Some(value), None),
            Some(Detail::Damaged(unread)) => (unread.expiry, None, Some(&unread.error)),
        };
        EntryRef {
            key,
            expiry,
            value,
            error,
        }
    }
}

impl Page {
    /// A page of keys that are all plain.
    pub(super) fn of_plain(keys: KeyPage) -> Page {
        Page {
            keys,
            ..Page::default()
        }
    }

    /// Reserves room for these keys. Growing bit by bit, vectors may be moved by the allocator each
    /// time, under a lock that threads share.
    pub(super) fn reserve(&mut self, keys: &KeyPage) {
        self.keys.reserve(keys);
        self.details.reserve(keys.len());
    }

    /// Adds a key.
    pub(super) fn push(&mut self, key: &[u8], flags: KeyFlags, detail: Detail) {
        self.keys.push([key, &[]], flags);
        self.details.push(detail);
    }

    /// Cuts the page, which has more keys, to this many.
    pub(super) fn truncate(&mut self, keys: usize) {
        self.keys.truncate(keys);
    }

    /// Says whether the listing goes on, and where the next page begins.
    pub(super) fn set_end(&mut self, goes_on: bool, cursor: Option<String>) {
        self.goes_on = goes_on;
        self.cursor = cursor;
    }

    /// The last key.
    pub(super) fn last_key(&self) -> Option<&[u8]> {
        Some(self.keys.last()?.0)
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether the page has no keys. Then it is the last.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether this is the last page: no key follows, or the page has reached [`List::limit`].
    pub fn is_last(&self) -> bool {
        !self.goes_on
    }

    /// Pass this to [`List::cursor`] for the next page: printable, and safe in a URL. `None` if no
    /// key follows. A page that has reached [`List::limit`] is the last, and still has a cursor,
    /// from which another listing can go on. A cursor is a position, not a key: it stays valid when
    /// keys around it are put or deleted, and can be reused.
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// The key at this index, counted from 0.
    pub fn get(&self, index: usize) -> Option<EntryRef<'_>> {
        let (key, _) = self.keys.get(index)?;
        Some(EntryRef::new(key, self.details.get(index)))
    }

    /// Its keys, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = EntryRef<'_>> {
        let keys = self.keys.iter().enumerate();
        keys.map(|(index, (key, _))| EntryRef::new(key, self.details.get(index)))
    }
}

impl<'a> EntryRef<'a> {
    /// The key.
    pub fn key(&self) -> &'a [u8] {
        self.key
    }

    /// The key as text; [`Error::Decode`] if it is not UTF-8.
    pub fn key_str(&self) -> Result<&'a str> {
        text(self.key)
    }

    /// When it expires, in milliseconds since the epoch.
    pub fn expiry_ms(&self) -> Option<u64> {
        self.expiry
    }

    /// The metadata that was put with the value.
    pub fn metadata(&self) -> Option<&'a [u8]> {
        self.value.and_then(Value::metadata)
    }

    /// The value, if the listing includes values or had to read it for its metadata.
    pub fn value(&self) -> Option<&'a Value> {
        self.value
    }

    /// Why this key is listed without its details: its record is damaged ([`Error::Corruption`]),
    /// or in [`ReadMode::Pread`](crate::ReadMode::Pread) the system failed to read it
    /// ([`Error::Io`]). The error names the key and the place. The key is present; its value and
    /// metadata are unavailable, and the expiry is included only if it can be read. `None` for a
    /// key without such a problem; a value that the listing does not need is not read.
    pub fn error(&self) -> Option<&'a Error> {
        self.error
    }
}

impl Entry {
    /// A copy of an entry, and with `with_value` of its value.
    pub(super) fn of(entry: &EntryRef<'_>, with_value: bool) -> Entry {
        Entry {
            key: entry.key.to_vec(),
            expiry: entry.expiry,
            value: entry.value.cloned(),
            with_value,
        }
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The key as text; [`Error::Decode`] if it is not UTF-8.
    pub fn key_str(&self) -> Result<&str> {
        text(&self.key)
    }

    /// When it expires, in milliseconds since the epoch.
    pub fn expiry_ms(&self) -> Option<u64> {
        self.expiry
    }

    /// The metadata that was put with the value.
    pub fn metadata(&self) -> Option<&[u8]> {
        self.value.as_ref().and_then(Value::metadata)
    }

    /// The value, if the listing includes values.
    pub fn value(&self) -> Option<&Value> {
        self.value.as_ref().filter(|_| self.with_value)
    }
}

fn text(key: &[u8]) -> Result<&str> {
    std::str::from_utf8(key).map_err(|error| Error::Decode {
        expected: "UTF-8",
        cause: error.to_string(),
    })
}
