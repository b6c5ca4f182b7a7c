//! A page of keys, copied out of the tree.

use super::KeyFlags;

/// A page's first guess at how many keys it will hold; the buffers grow when there are more.
const KEYS_EXPECTED_MAX: usize = 1024;

/// A page's first guess at how long its keys are.
const KEY_BYTES_EXPECTED: usize = 32;

/// Keys of a page, one behind the other in one buffer: no allocation for each key.
#[derive(Clone, Default, Debug)]
pub(crate) struct KeyPage {
    bytes: Vec<u8>,
    keys: Vec<PageKey>,
    /// The flags of all keys that were ever pushed.
    flags: KeyFlags,
}

/// A key of a page. It begins where the one before it ends.
#[derive(Clone, Copy, Debug)]
struct PageKey {
    end: usize,
    flags: KeyFlags,
}

impl KeyPage {
    /// An empty page with room for as many keys as are likely.
    pub(super) fn with_limit(limit: usize) -> Self {
        let keys = limit.min(KEYS_EXPECTED_MAX);
        KeyPage {
            bytes: Vec::with_capacity(keys * KEY_BYTES_EXPECTED),
            keys: Vec::with_capacity(keys),
            flags: KeyFlags::NONE,
        }
    }

    /// Makes room for all keys of another page.
    pub(crate) fn reserve(&mut self, other: &KeyPage) {
        self.bytes.reserve(other.bytes.len());
        self.keys.reserve(other.keys.len());
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no key.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Key number `index` in the order of the page, or None if there are not that many.
    pub(crate) fn get(&self, index: usize) -> Option<(&[u8], KeyFlags)> {
        let key = self.keys.get(index)?;
        Some((self.bytes.get(self.start(index)..key.end)?, key.flags))
    }

    /// The last key of the page.
    pub(crate) fn last(&self) -> Option<(&[u8], KeyFlags)> {
        self.get(self.len().checked_sub(1)?)
    }

    /// Whether `wanted` says yes to the flags of some key. Looks at the keys only if it says yes to
    /// the flags of all taken together; so it must not say no to more flags and yes to fewer.
    pub(crate) fn any(&self, wanted: impl Fn(KeyFlags) -> bool) -> bool {
        wanted(self.flags) && self.keys.iter().any(|key| wanted(key.flags))
    }

    /// Forgets all keys but the first so many.
    pub(crate) fn truncate(&mut self, keys: usize) {
        self.keys.truncate(keys);
        self.bytes.truncate(self.start(keys));
    }

    /// The keys in the order of the page.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], KeyFlags)> + ExactSizeIterator {
        self.keys.iter().enumerate().map(|(index, key)| {
            // Ends ascend and the last is the buffer's own.
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

    /// Adds a key, given in two parts.
    pub(crate) fn push(&mut self, parts: [&[u8]; 2], flags: KeyFlags) {
        self.flags = self.flags.union(flags);
        self.bytes.extend_from_slice(parts[0]);
        self.bytes.extend_from_slice(parts[1]);
        self.keys.push(PageKey {
            end: self.bytes.len(),
            flags,
        });
    }

    /// Adds a key that begins with the first `shared` bytes of the one added last, which has as
    /// many.
    #[inline]
    pub(super) fn push_sharing(&mut self, shared: usize, suffix: &[u8], flags: KeyFlags) {
        self.flags = self.flags.union(flags);
        let start = self.start(self.keys.len().saturating_sub(1));
        self.bytes.extend_from_within(start..start + shared);
        self.bytes.extend_from_slice(suffix);
        self.keys.push(PageKey {
            end: self.bytes.len(),
            flags,
        });
    }

    /// Forgets all keys, not the room for them.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.keys.clear();
    }
}
