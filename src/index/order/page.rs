//! A page of keys, copied out of the tree.

use std::ops::Bound;

use super::KeyFlags;

/// Maximum number of keys that a page reserves room for up front; the buffers grow beyond it as
/// needed.
const KEYS_EXPECTED_MAX: usize = 1024;

/// Key length assumed when reserving.
const KEY_BYTES_EXPECTED: usize = 32;

/// The keys of a page, concatenated in one buffer to avoid an allocation per key.
#[derive(Clone, Default, Debug)]
pub(crate) struct KeyPage {
    bytes: Vec<u8>,
    keys: Vec<PageKey>,
    /// The union of the flags of all keys ever pushed.
    flags: KeyFlags,
}

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// A key of a page. It begins where the previous one ends.
#[derive(Clone, Copy, Debug)]
struct PageKey {
    end: usize,
    flags: KeyFlags,
}

impl KeyPage {
    /// An empty page with room for the number of keys to expect.
    pub(super) fn with_limit(limit: usize) -> Self {
        let keys = limit.min(KEYS_EXPECTED_MAX);
        KeyPage {
            bytes: Vec::with_capacity(keys * KEY_BYTES_EXPECTED),
            keys: Vec::with_capacity(keys),
            flags: KeyFlags::NONE,
        }
    }

    /// The first keys of this page and of `more`, which is in the same order: each once, at most
    /// `limit`, without flags.
    pub(crate) fn merged(&self, more: &[Box<[u8]>], reverse: bool, limit: usize) -> KeyPage {
        let mut merged = KeyPage::default();
        merged.reserve(self);
        let mut own = self.iter().map(|(key, _)| key).peekable();
        let mut more = more.iter().map(|key| &**key).peekable();
        while merged.len() < limit {
            let next = match (own.peek(), more.peek()) {
                (Some(key), Some(other)) if key == other => {
                    more.next();
                    own.next()
                }
                (Some(key), Some(other)) if (key < other) != reverse => own.next(),
                (_, Some(_)) => more.next(),
                (_, None) => own.next(),
            };
            let Some(key) = next else { break };
            merged.push([key, &[]], KeyFlags::NONE);
        }
        merged
    }

    /// The part of these bounds of which this page, of at most `limit` keys, has all keys: up to
    /// its last one if it is full.
    pub(crate) fn answered<'a>(&'a self, (lower, upper): Bounds<'a>, reverse: bool, limit: usize) -> Bounds<'a> {
        match self.last() {
            Some((last, _)) if self.len() == limit && reverse => (Bound::Included(last), upper),
            Some((last, _)) if self.len() == limit => (lower, Bound::Included(last)),
            _ => (lower, upper),
        }
    }

    /// Makes room for all keys of another page.
    pub(crate) fn reserve(&mut self, other: &KeyPage) {
        self.bytes.reserve(other.bytes.len());
        self.keys.reserve(other.keys.len());
    }

    /// Number of keys.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are no keys.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Key number `index` in page order, or None if there are not that many.
    pub(crate) fn get(&self, index: usize) -> Option<(&[u8], KeyFlags)> {
        let key = self.keys.get(index)?;
        Some((self.bytes.get(self.start(index)..key.end)?, key.flags))
    }

    /// The last key of the page.
    pub(crate) fn last(&self) -> Option<(&[u8], KeyFlags)> {
        self.get(self.len().checked_sub(1)?)
    }

    /// Whether `wanted` holds for the flags of some key. Scans the keys only if it holds for the
    /// union of all flags, so `wanted` must be monotonic: adding flags never turns it false.
    pub(crate) fn any(&self, wanted: impl Fn(KeyFlags) -> bool) -> bool {
        wanted(self.flags) && self.keys.iter().any(|key| wanted(key.flags))
    }

    /// Keeps only the first `keys` keys.
    pub(crate) fn truncate(&mut self, keys: usize) {
        if keys < self.keys.len() {
            self.keys.truncate(keys);
            self.bytes.truncate(self.start(keys));
        }
    }

    /// The keys in page order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], KeyFlags)> + ExactSizeIterator {
        self.keys.iter().enumerate().map(|(index, key)| {
            // Ends ascend, and the last is the end of the buffer.
            let key_bytes = self.bytes.get(self.start(index)..key.end);
            (key_bytes.unwrap_or_default(), key.flags)
        })
    }

    /// Where key number `index` begins.
    fn start(&self, index: usize) -> usize {
        index
            .checked_sub(1)
            .and_then(|before| self.keys.get(before))
            .map_or(0, |key| key.end)
    }

    /// Adds a key, given in two parts. Returns where its bytes begin.
    pub(crate) fn push(&mut self, parts: [&[u8]; 2], flags: KeyFlags) -> usize {
        let start = self.bytes.len();
        self.flags = self.flags.union(flags);
        self.bytes.extend_from_slice(parts[0]);
        self.bytes.extend_from_slice(parts[1]);
        self.keys.push(PageKey {
            end: self.bytes.len(),
            flags,
        });
        start
    }

    /// Adds a key that begins with the first `shared` bytes of the last key added, which must be at
    /// least that long, and begins at `last`. Returns where its bytes begin.
    #[inline]
    pub(super) fn push_sharing(&mut self, last: usize, shared: usize, suffix: &[u8], flags: KeyFlags) -> usize {
        self.flags = self.flags.union(flags);
        let start = self.bytes.len();
        self.bytes.extend_from_within(last..last + shared);
        self.bytes.extend_from_slice(suffix);
        self.keys.push(PageKey {
            end: self.bytes.len(),
            flags,
        });
        start
    }

    /// Removes all keys, but keeps the buffers.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.keys.clear();
    }
}
