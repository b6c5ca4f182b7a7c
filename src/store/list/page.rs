//! Pages, entries, and the walk over all pages.

use super::List;
use crate::error::{Error, Result};
use crate::index::order::{KeyFlags, KeyPage};
use crate::segment::Value;

/// One page of a listing.
#[derive(Clone, Debug, Default)]
pub struct Page {
    keys: KeyPage,
    /// Of each key, or empty if all keys are plain.
    details: Vec<Detail>,
    cursor: Option<String>,
}

/// What a page knows of a key beside the key.
#[derive(Clone, Debug)]
pub(super) enum Detail {
    /// The key has neither an expiry nor metadata, and its value was not asked for.
    Plain,
    /// It expires then, in milliseconds since the epoch.
    Expiry(u64),
    /// Its value, with expiry and metadata.
    Value(Value),
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
}

impl<'a> EntryRef<'a> {
    fn new(key: &'a [u8], detail: Option<&'a Detail>) -> EntryRef<'a> {
        let (expiry, value) = match detail {
            None | Some(Detail::Plain) => (None, None),
            Some(Detail::Expiry(expiry)) => (Some(*expiry), None),
            Some(Detail::Value(value)) => (value.expiry_ms(), Some(value)),
        };
        EntryRef { key, expiry, value }
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

    /// Makes room for these keys. Vectors that grow by and by may be moved by the allocator each time, and under a lock that threads
    /// share.
    pub(super) fn reserve(&mut self, keys: &KeyPage) {
        self.keys.reserve(keys);
        self.details.reserve(keys.len());
    }

    /// Adds a key.
    pub(super) fn push(&mut self, key: &[u8], flags: KeyFlags, detail: Detail) {
        self.keys.push([key, &[]], flags);
        self.details.push(detail);
    }

    /// Cuts the page to so many keys, and lets `cursor` say where the next one begins.
    pub(super) fn end_at(&mut self, keys: usize, cursor: impl FnOnce(&[u8]) -> String) {
        self.keys.truncate(keys);
        self.cursor = self.keys.last().map(|(last, _)| cursor(last));
    }

    /// Keys in it.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether it has no keys. The listing may still go on: see [`Page::cursor`].
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether the listing ends here.
    pub fn is_last(&self) -> bool {
        self.cursor.is_none()
    }

    /// What to give to [`List::cursor`] for the next page: printable, and safe in a URL. `None` on the last page. It names a position, not a
    /// key: it stays good when keys are put or deleted around it, and can be used again.
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// The n-th key.
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

    /// What was put beside the value.
    pub fn metadata(&self) -> Option<&'a [u8]> {
        self.value.and_then(Value::metadata)
    }

    /// The value, if the listing was asked for values or had to read it for its metadata.
    pub fn value(&self) -> Option<&'a Value> {
        self.value
    }
}

impl Entry {
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

    /// What was put beside the value.
    pub fn metadata(&self) -> Option<&[u8]> {
        self.value.as_ref().and_then(Value::metadata)
    }

    /// The value, if the listing was asked for values.
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

/// Walks a listing key by key, fetching page after page. After an error it gives that error again and again: keys are
/// never left out in silence.
#[derive(Debug)]
pub struct Keys {
    list: List,
    page: Page,
    position: usize,
    state: Walk,
}

#[derive(Debug)]
enum Walk {
    Begin,
    Going,
    Failed(Error),
}

impl IntoIterator for List {
    type Item = Result<Entry>;
    type IntoIter = Keys;

    fn into_iter(self) -> Keys {
        Keys {
            list: self,
            page: Page::default(),
            position: 0,
            state: Walk::Begin,
        }
    }
}

impl Iterator for Keys {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        while self.position >= self.page.len() {
            match (&self.state, self.page.cursor.take()) {
                (Walk::Failed(error), _) => return Some(Err(error.clone())),
                (Walk::Begin, _) => {}
                (Walk::Going, Some(cursor)) => self.list.cursor = Some(cursor),
                (Walk::Going, None) => return None,
            }
            self.position = 0;
            self.state = Walk::Going;
            match self.list.page() {
                Ok(page) => self.page = page,
                Err(error) => {
                    self.page = Page::default();
                    self.state = Walk::Failed(error);
                }
            }
        }
        let entry = self.page.get(self.position)?;
        let entry = Entry {
            key: entry.key.to_vec(),
            expiry: entry.expiry,
            value: entry.value.cloned(),
            with_value: self.list.values,
        };
        self.position += 1;
        Some(Ok(entry))
    }
}
