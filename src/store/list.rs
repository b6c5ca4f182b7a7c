//! Listing keys: by prefix or range, forwards or backwards, page by page.

use std::ops::{Bound, RangeBounds};

use super::Namespace;
use crate::clock::is_expired;
use crate::error::{Error, Result};
use crate::index::order::{KeyFlags, prefix_successor};
use crate::segment::Value;

/// Keys of a page where nobody says how many, as in Workers KV.
const PAGE_KEYS_DEFAULT: usize = 1000;
/// Keys looked at in one go when counting.
const COUNT_STEP: usize = 4096;

/// A listing of a namespace's keys, in the order of their bytes. Iterate over it, or take it page by page.
///
/// Each page is a short look at the store as it is then; nothing is held between pages. A key that is there during the whole
/// walk comes exactly once; one that is put or deleted meanwhile may come or not. Expired keys do not come.
#[derive(Clone, Debug)]
pub struct List {
    namespace: Namespace,
    prefix: Vec<u8>,
    start: Bound<Vec<u8>>,
    end: Bound<Vec<u8>>,
    reverse: bool,
    limit: usize,
    values: bool,
    cursor: Option<String>,
}

/// One page of a listing.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Keys one after the other, and where each ends.
    keys: Vec<u8>,
    details: Vec<Detail>,
    cursor: Option<String>,
}

#[derive(Clone, Debug)]
struct Detail {
    key_end: usize,
    expiry: Option<u64>,
    value: Option<Value>,
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

impl List {
    pub(super) fn new(namespace: Namespace) -> List {
        let most = namespace.engine().options.limits.page_keys_max;
        List {
            namespace,
            prefix: Vec::new(),
            start: Bound::Unbounded,
            end: Bound::Unbounded,
            reverse: false,
            limit: PAGE_KEYS_DEFAULT.min(most),
            values: false,
            cursor: None,
        }
    }

    /// Only keys that begin with these bytes.
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> List {
        self.prefix = prefix.as_ref().to_vec();
        self
    }

    /// Only keys from this one on (itself included).
    pub fn start(mut self, key: impl AsRef<[u8]>) -> List {
        self.start = Bound::Included(key.as_ref().to_vec());
        self
    }

    /// Only keys after this one.
    pub fn start_after(mut self, key: impl AsRef<[u8]>) -> List {
        self.start = Bound::Excluded(key.as_ref().to_vec());
        self
    }

    /// Only keys before this one (itself excluded).
    pub fn end(mut self, key: impl AsRef<[u8]>) -> List {
        self.end = Bound::Excluded(key.as_ref().to_vec());
        self
    }

    /// From the last key to the first. Start and end keep their meaning: the start is the lower one.
    pub fn reverse(mut self) -> List {
        self.reverse = true;
        self
    }

    /// Most keys of a page. At least 1, at most what the store's limits say. Default: 1,000, or that if it is less.
    pub fn limit(mut self, keys: usize) -> List {
        self.limit = keys;
        self
    }

    /// With the values. They are not copied, but reading them costs a memory access each; without, only keys that have an
    /// expiry or metadata are looked up.
    pub fn with_values(mut self) -> List {
        self.values = true;
        self
    }

    /// Goes on where a page ended: its [`Page::cursor`]. The listing must otherwise be the same, but for the limit.
    pub fn cursor(mut self, cursor: impl Into<String>) -> List {
        let cursor = cursor.into();
        self.cursor = (!cursor.is_empty()).then_some(cursor);
        self
    }

    /// The next page: with a cursor the one after it, else the first.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] if the limit is not possible, [`Error::InvalidCursor`] if the cursor is of another listing or
    /// damaged, and those of [`Namespace::get`].
    pub fn page(&self) -> Result<Page> {
        self.namespace.check()?;
        let most = self.namespace.engine().options.limits.page_keys_max;
        if self.limit == 0 || self.limit > most {
            return Err(Error::invalid(format!(
                "a page of {} keys is not possible; ask for 1 to {most}",
                self.limit
            )));
        }
        let after = match &self.cursor {
            Some(cursor) => Some(self.decode_cursor(cursor)?),
            None => None,
        };
        self.page_after(after.as_deref())
    }

    /// How many keys there are in all pages. Where some have an expiry it looks at each of those, and may count a part of a
    /// batch that is being written meanwhile.
    pub fn count(&self) -> Result<u64> {
        self.namespace.check()?;
        let engine = self.namespace.engine();
        let state = &self.namespace.state;
        let (lower, upper) = self.bounds();
        let (lower, upper) = (as_ref(&lower), as_ref(&upper));
        if !state.has_expiring() {
            return engine.consistently(|| Ok(state.order.count(lower, upper)));
        }
        let now_ms = engine.time.now_ms();
        let mut count = 0;
        let mut after: Option<Vec<u8>> = None;
        loop {
            let from = after.as_deref().map_or(lower, Bound::Excluded);
            let page = state.order.page(from, upper, false, COUNT_STEP);
            for (key, flags) in page.iter() {
                let counts = !flags.contains(KeyFlags::EXPIRES)
                    || engine
                        .find_header(state.number, key, engine.hash(state.number, key))?
                        .is_some_and(|(_, header)| !is_expired(header.expiry, now_ms));
                count += u64::from(counts);
            }
            match page.len().checked_sub(1).and_then(|last| page.get(last)) {
                Some((last, _)) if page.len() == COUNT_STEP => after = Some(last.to_vec()),
                _ => return Ok(count),
            }
        }
    }

    /// Lower and upper bound of the keys that can come.
    fn bounds(&self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        let prefix_start = Bound::Included(self.prefix.clone());
        let prefix_end = prefix_successor(&self.prefix).map_or(Bound::Unbounded, Bound::Excluded);
        let lower = match &self.start {
            Bound::Included(start) | Bound::Excluded(start) if *start >= self.prefix => self.start.clone(),
            _ => prefix_start,
        };
        let upper = match (&self.end, prefix_end) {
            (Bound::Excluded(end), Bound::Excluded(successor)) => Bound::Excluded(end.clone().min(successor)),
            (Bound::Unbounded, successor) => successor,
            (end, _) => end.clone(),
        };
        (lower, upper)
    }

    /// The page after this key.
    fn page_after(&self, after: Option<&[u8]>) -> Result<Page> {
        self.namespace.engine().consistently(|| self.look(after))
    }

    fn look(&self, after: Option<&[u8]>) -> Result<Page> {
        let now_ms = self.namespace.engine().time.now_ms();
        let (lower, upper) = self.bounds();
        let mut page = Page::default();
        let mut after = after.map(<[u8]>::to_vec);
        loop {
            let (mut from, mut to) = (as_ref(&lower), as_ref(&upper));
            if let Some(after) = &after {
                let bound = Bound::Excluded(after.as_slice());
                if self.reverse { to = bound } else { from = bound }
            }
            // One more than is wanted tells whether this is the last page.
            let wanted = self.limit - page.len() + 1;
            let keys = self.namespace.state.order.page(from, to, self.reverse, wanted);
            for (key, flags) in keys.iter() {
                if page.len() == self.limit {
                    let last = page.get(page.len() - 1).map(|entry| entry.key);
                    page.cursor = last.map(|last| self.encode_cursor(last));
                    return Ok(page);
                }
                if let Some((expiry, value)) = self.detail(key, flags, now_ms)? {
                    page.keys.extend_from_slice(key);
                    page.details.push(Detail {
                        key_end: page.keys.len(),
                        expiry,
                        value,
                    });
                }
            }
            match keys.len().checked_sub(1).and_then(|last| keys.get(last)) {
                // Some were not visible: look further.
                Some((last, _)) if keys.len() == wanted => after = Some(last.to_vec()),
                _ => return Ok(page),
            }
        }
    }

    /// Expiry and, if it is needed, value of a key; None if it is not there any more.
    fn detail(&self, key: &[u8], flags: KeyFlags, now_ms: u64) -> Result<Option<(Option<u64>, Option<Value>)>> {
        let (engine, state) = (self.namespace.engine(), &self.namespace.state);
        if self.values || flags.contains(KeyFlags::METADATA) {
            let value = engine.get_hashed(state, key, engine.hash(state.number, key), Some(now_ms))?;
            return Ok(value.map(|value| (value.expiry_ms(), Some(value))));
        }
        if flags.contains(KeyFlags::EXPIRES) {
            let found = engine.find_header(state.number, key, engine.hash(state.number, key))?;
            let live = found.filter(|(_, header)| !is_expired(header.expiry, now_ms));
            return Ok(live.map(|(_, header)| (header.expiry, None)));
        }
        Ok(Some((None, None)))
    }

    /// What a cursor must have been made for.
    fn fingerprint(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.namespace.id().to_le_bytes());
        hasher.update(&[u8::from(self.reverse)]);
        for bound in [&Bound::Included(self.prefix.clone()), &self.start, &self.end] {
            let (kind, bytes): (u8, &[u8]) = match bound {
                Bound::Included(bytes) => (1, bytes),
                Bound::Excluded(bytes) => (2, bytes),
                Bound::Unbounded => (0, &[]),
            };
            hasher.update(&[kind]);
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
        hasher.finalize()
    }

    pub(crate) fn encode_cursor(&self, last_key: &[u8]) -> String {
        let mut bytes = vec![CURSOR_VERSION];
        bytes.extend_from_slice(&self.fingerprint().to_le_bytes());
        bytes.extend_from_slice(last_key);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        base64url_encode(&bytes)
    }

    pub(crate) fn decode_cursor(&self, cursor: &str) -> Result<Vec<u8>> {
        let bytes = base64url_decode(cursor).ok_or(Error::InvalidCursor)?;
        let (content, crc) = bytes.split_last_chunk::<4>().ok_or(Error::InvalidCursor)?;
        if crc32fast::hash(content).to_le_bytes() != *crc {
            return Err(Error::InvalidCursor);
        }
        let (version, rest) = content.split_first().ok_or(Error::InvalidCursor)?;
        let (fingerprint, key) = rest.split_first_chunk::<4>().ok_or(Error::InvalidCursor)?;
        if *version != CURSOR_VERSION || u32::from_le_bytes(*fingerprint) != self.fingerprint() {
            return Err(Error::InvalidCursor);
        }
        // Anybody can compute a CRC. A page ends at a key of its listing; a cursor that names another one was made up, and
        // would let who made it see keys beyond the prefix or range that the program has chosen.
        let (lower, upper) = self.bounds();
        if !(as_ref(&lower), as_ref(&upper)).contains(key) {
            return Err(Error::InvalidCursor);
        }
        Ok(key.to_vec())
    }
}

const CURSOR_VERSION: u8 = 1;

fn as_ref(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

impl Page {
    /// Keys in it.
    pub fn len(&self) -> usize {
        self.details.len()
    }

    /// Whether it has no keys. The listing may still go on: see [`Page::cursor`].
    pub fn is_empty(&self) -> bool {
        self.details.is_empty()
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
        let detail = self.details.get(index)?;
        let start = match index.checked_sub(1) {
            Some(before) => self.details.get(before)?.key_end,
            None => 0,
        };
        let key = self.keys.get(start..detail.key_end)?;
        Some(EntryRef {
            key,
            expiry: detail.expiry,
            value: detail.value.as_ref(),
        })
    }

    /// Its keys, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = EntryRef<'_>> {
        (0..self.len()).map(|index| {
            self.get(index).unwrap_or(EntryRef {
                key: &[],
                expiry: None,
                value: None,
            })
        })
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

const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// RFC 4648, section 5, without padding.
fn base64url_encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut bits = 0u32;
        for (index, &byte) in chunk.iter().enumerate() {
            bits |= u32::from(byte) << (16 - 8 * index);
        }
        for index in 0..=chunk.len() {
            let digit = bits >> (18 - 6 * index) & 63;
            #[expect(clippy::indexing_slicing, reason = "there is a digit for each value of six bits")]
            text.push(char::from(BASE64URL[digit as usize]));
        }
    }
    text
}

fn base64url_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for (index, digit) in chunk.iter().enumerate() {
            let value = BASE64URL.iter().position(|known| known == digit)? as u32;
            bits |= value << (18 - 6 * index);
        }
        let [_, decoded @ ..] = bits.to_be_bytes();
        let length = chunk.len().checked_sub(1).filter(|length| *length > 0)?;
        let (decoded, unused) = decoded.split_at_checked(length)?;
        // Of several spellings of the same bytes only the one that is written is accepted.
        if unused.iter().any(|&byte| byte != 0) {
            return None;
        }
        bytes.extend_from_slice(decoded);
    }
    Some(bytes)
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    /// Found by the fuzz target `cursor`.
    #[test]
    fn a_cursor_that_somebody_made_up_does_not_lead_out_of_the_listing() {
        let storage = std::sync::Arc::new(crate::storage::MemStorage::new());
        let store = crate::Store::options().storage(storage).open("/store").unwrap();
        let namespace = store.namespace("N").unwrap();
        for key in ["mine/1", "mine/2", "other/1", "yours/1"] {
            namespace.put(key, "v").unwrap();
        }
        for list in [
            namespace.list().prefix("mine/"),
            namespace.list().prefix("mine/").reverse(),
        ] {
            for outside in ["", "a", "other", "zzz"] {
                let page = list.clone().cursor(list.encode_cursor(outside.as_bytes())).page();
                assert!(matches!(page, Err(Error::InvalidCursor)), "{outside:?}: {page:?}");
            }
            let inside = list.clone().limit(1).page().unwrap();
            assert_eq!(list.clone().cursor(inside.cursor().unwrap()).page().unwrap().len(), 1);
        }
    }

    #[test]
    fn base64url_goes_there_and_back() {
        for length in 0..70 {
            let bytes: Vec<u8> = (0..length).map(|n| (n * 37 + 11) as u8).collect();
            let text = base64url_encode(&bytes);
            assert_eq!(base64url_decode(&text), Some(bytes), "{text}");
        }
        assert_eq!(base64url_encode(b"fooba"), "Zm9vYmE");
        for wrong in ["A", "AB=", "A*BC", "Zm9vYmF", "Zm9vYmE="] {
            assert_eq!(base64url_decode(wrong), None, "{wrong}");
        }
    }
}
