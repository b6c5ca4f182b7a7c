//! Listing keys: by prefix or range, forwards or backwards, page by page.

mod cursor;
mod page;

use std::ops::Bound;

use super::Namespace;
use crate::clock::Now;
use crate::error::{Error, Result};
use crate::index::order::{KeyFlags, KeyPage, prefix_successor};
use crate::planted::{Planted, planted};
use crate::state::{Candidate, HashedKey, WARM_UP};
use page::{Detail, Unread};
pub use page::{Entry, EntryRef, Keys, Page};

/// Keys of a page by default, as in Workers KV.
const PAGE_KEYS_DEFAULT: usize = 1000;
/// Keys looked at in one go when counting.
const COUNT_STEP: usize = 4096;

/// A listing of a namespace's keys, in the order of their bytes. Iterate over it, or take it page
/// by page.
///
/// Each page is a short look at the store as it is then; nothing is held between pages. A key that
/// is there during the whole walk comes exactly once; one that is put or deleted meanwhile may come
/// or not. Expired keys do not come. A key whose record is damaged comes with an error that names
/// it.
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

/// The hash of a key, and where its record probably is.
struct Warm<'a> {
    key: HashedKey<'a>,
    candidate: Option<&'a Candidate>,
}

impl List {
    pub(super) fn new(namespace: Namespace) -> List {
        let most = namespace.engine().context.options.limits.page_keys_max;
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

    /// From the last key to the first. Start and end keep their meaning: the start is the lower
    /// one.
    pub fn reverse(mut self) -> List {
        self.reverse = true;
        self
    }

    /// Most keys of a page. At least 1, at most what the store's limits say. Default: 1,000, or
    /// that if it is less.
    pub fn limit(mut self, keys: usize) -> List {
        self.limit = keys;
        self
    }

    /// With the values. They are not copied, but reading them costs a memory access each; without,
    /// only keys that have an expiry or metadata are looked up.
    pub fn with_values(mut self) -> List {
        self.values = true;
        self
    }

    /// Goes on where a page ended: its [`Page::cursor`]. The listing must otherwise be the same,
    /// but for the limit.
    pub fn cursor(mut self, cursor: impl Into<String>) -> List {
        let cursor = cursor.into();
        self.cursor = (!cursor.is_empty()).then_some(cursor);
        self
    }

    /// The next page: with a cursor the one after it, else the first. A key whose record is damaged
    /// is in it, and [`EntryRef::error`] says so: damage costs what is damaged, not the page.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] if the limit is not possible, [`Error::InvalidCursor`] if the cursor
    /// is of another listing or damaged, [`Error::NamespaceNotFound`] if the namespace was
    /// dropped, and [`Error::Closed`].
    pub fn page(&self) -> Result<Page> {
        self.namespace.check()?;
        let most = self.namespace.engine().context.options.limits.page_keys_max;
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

    /// How many keys there are in all pages. Where some have an expiry it looks at each of those,
    /// and may count a part of a batch that is being written meanwhile. A key whose record is
    /// damaged is there.
    pub fn count(&self) -> Result<u64> {
        self.namespace.check()?;
        let engine = self.namespace.engine();
        let state = &self.namespace.state;
        let (lower, upper) = self.bounds();
        let (lower, upper) = (as_ref(&lower), as_ref(&upper));
        if !state.has_expiring() {
            return engine.state.consistently(|| Ok(state.order.count(lower, upper)));
        }
        let now = engine.context.time.now();
        let mut count = 0;
        let mut after: Option<Vec<u8>> = None;
        loop {
            let from = after.as_deref().map_or(lower, Bound::Excluded);
            let page = state.order.page(from, upper, false, COUNT_STEP);
            let expires = |flags: KeyFlags| flags.contains(KeyFlags::EXPIRES);
            self.look_up(&page, expires, |_, _, warm| {
                let counts = match warm {
                    Some(warm) => match engine.state.find_header(&warm.key) {
                        Ok(found) => found.is_some_and(|(_, header)| !now.is_expired(header.expiry, header.sequence)),
                        // As in a page.
                        Err(error) if error.is_unreadable() => true,
                        Err(error) => return Err(error),
                    },
                    None => true,
                };
                count += u64::from(counts);
                Ok(true)
            })?;
            match page.last() {
                Some((last, _)) if page.len() == COUNT_STEP => after = Some(last.to_vec()),
                _ => return Ok(count),
            }
        }
    }

    /// Lower and upper bound of the keys that can come.
    fn bounds(&self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        let prefix_start = Bound::Included(self.prefix.clone());
        let successor = prefix_successor(&self.prefix).filter(|_| !planted(Planted::ListAcrossPrefix));
        let prefix_end = successor.map_or(Bound::Unbounded, Bound::Excluded);
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
        self.namespace.engine().state.consistently(|| self.look(after))
    }

    fn look(&self, after: Option<&[u8]>) -> Result<Page> {
        let now = self.namespace.engine().context.time.now();
        let (lower, upper) = self.bounds();
        let mut page = Page::default();
        let mut after = after.map(<[u8]>::to_vec);
        loop {
            let (mut from, mut to) = (as_ref(&lower), as_ref(&upper));
            if let Some(after) = &after {
                let bound = match planted(Planted::RepeatLastKey) {
                    true => Bound::Included(after.as_slice()),
                    false => Bound::Excluded(after.as_slice()),
                };
                if self.reverse { to = bound } else { from = bound }
            }
            // One more than is wanted tells whether this is the last page.
            let wanted = self.limit - page.len() + 1;
            let keys = self.namespace.state.order.page(from, to, self.reverse, wanted);
            let is_end = keys.len() < wanted;
            if page.is_empty() && !keys.any(|flags| self.is_looked_up(flags)) {
                page = Page::of_plain(keys);
                if !is_end {
                    page.end_at(self.limit, |last| self.encode_cursor(last));
                }
                return Ok(page);
            }
            page.reserve(&keys);
            let mut is_full = false;
            self.look_up(
                &keys,
                |flags| self.is_looked_up(flags),
                |key, flags, warm| {
                    is_full = page.len() == self.limit;
                    if !is_full && let Some(detail) = self.detail(flags, warm, &now)? {
                        page.push(key, flags, detail);
                    }
                    Ok(!is_full)
                },
            )?;
            if is_full {
                page.end_at(self.limit, |last| self.encode_cursor(last));
                return Ok(page);
            }
            match keys.last() {
                // Some were not visible: look further.
                Some((last, _)) if !is_end => after = Some(last.to_vec()),
                _ => return Ok(page),
            }
        }
    }

    /// Whether this listing has to look at the records of keys with these flags.
    fn is_looked_up(&self, flags: KeyFlags) -> bool {
        self.values || flags != KeyFlags::NONE
    }

    /// Calls `look` on one key after the other until it says no, with what helps to look up each
    /// for whose flags `wanted` says yes: the records of those are fetched into the processor's
    /// cache before, many at a time.
    fn look_up(
        &self,
        keys: &KeyPage,
        wanted: impl Fn(KeyFlags) -> bool,
        mut look: impl FnMut(&[u8], KeyFlags, Option<Warm<'_>>) -> Result<bool>,
    ) -> Result<()> {
        let (engine, state) = (self.namespace.engine(), &self.namespace.state);
        let mut keys = keys.iter();
        let mut group = Vec::with_capacity(keys.len().min(WARM_UP));
        let mut hashes = Vec::with_capacity(group.capacity());
        loop {
            group.clear();
            group.extend(keys.by_ref().take(WARM_UP));
            if group.is_empty() {
                return Ok(());
            }
            let looked_up = group.iter().filter(|(_, flags)| wanted(*flags));
            hashes.clear();
            hashes.extend(looked_up.map(|(key, _)| engine.state.hash(state.number, key)));
            let candidates = engine.state.warm_up(&hashes);
            let mut warm = hashes.iter().zip(&candidates);
            for &(key, flags) in &group {
                let warm = if wanted(flags) { warm.next() } else { None };
                if !look(
                    key,
                    flags,
                    warm.map(|(hash, candidate)| Warm {
                        key: HashedKey {
                            namespace: state.number,
                            key,
                            hash: *hash,
                        },
                        candidate: candidate.as_ref(),
                    }),
                )? {
                    return Ok(());
                }
            }
        }
    }

    /// What the page has to say of a key, with `warm` if its record has to be looked at; None if it
    /// is not there any more.
    fn detail(&self, flags: KeyFlags, warm: Option<Warm<'_>>, now: &Now) -> Result<Option<Detail>> {
        let Some(Warm { key, candidate }) = warm else {
            return Ok(Some(Detail::Plain));
        };
        let engine = self.namespace.engine();
        let detail = if self.values || flags.contains(KeyFlags::METADATA) {
            let value = engine.state.get_warm(&key, candidate, now);
            value.map(|value| value.map(Detail::Value))
        } else {
            engine.state.find_header(&key).map(|found| {
                let live = found.filter(|(_, header)| !now.is_expired(header.expiry, header.sequence));
                live.map(|(_, header)| header.expiry.map_or(Detail::Plain, Detail::Expiry))
            })
        };
        match detail {
            Err(error) if error.is_unreadable() && !planted(Planted::FailPageOnDamage) => {
                self.detail_of_damaged(&key, error, now)
            }
            detail => detail,
        }
    }

    /// What can still be said of a key whose record cannot be read whole: its header may be sound.
    fn detail_of_damaged(&self, key: &HashedKey<'_>, error: Error, now: &Now) -> Result<Option<Detail>> {
        let found = self.namespace.engine().state.find_header(key);
        let expiry = match found {
            // Deleted since, or expired: then it is not there, whatever has become of its value.
            Ok(None) => return Ok(None),
            Ok(Some((_, header))) if now.is_expired(header.expiry, header.sequence) => return Ok(None),
            Ok(Some((_, header))) => header.expiry,
            Err(error) if error.is_unreadable() => None,
            Err(error) => return Err(error),
        };
        Ok(Some(Detail::Damaged(Box::new(Unread { error, expiry }))))
    }
}

fn as_ref(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}
