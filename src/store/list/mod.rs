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

/// Default number of keys per page, as in Workers KV.
const PAGE_KEYS_DEFAULT: usize = 1000;
/// Keys read per step when counting.
const COUNT_STEP: usize = 4096;

/// A listing of a namespace's keys, in byte order. Iterate over it, or fetch it page by page.
///
/// Each page reads the store as it is at that moment; no resource is held between pages. A key
/// present during the whole walk is listed exactly once; one that is put or deleted meanwhile may
/// or may not be. Expired keys are not listed. A key whose record is damaged is listed with an
/// error that names it.
#[derive(Clone, Debug)]
pub struct List {
    namespace: Namespace,
    prefix: Vec<u8>,
    start: Bound<Vec<u8>>,
    end: Bound<Vec<u8>>,
    reverse: bool,
    page_size: usize,
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
            page_size: PAGE_KEYS_DEFAULT.min(most),
            values: false,
            cursor: None,
        }
    }

    /// Only keys that begin with these bytes.
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> List {
        self.prefix = prefix.as_ref().to_vec();
        self
    }

    /// Only keys at or after this one.
    pub fn start(mut self, key: impl AsRef<[u8]>) -> List {
        self.start = Bound::Included(key.as_ref().to_vec());
        self
    }

    /// Only keys after this one.
    pub fn start_after(mut self, key: impl AsRef<[u8]>) -> List {
        self.start = Bound::Excluded(key.as_ref().to_vec());
        self
    }

    /// Only keys before this one.
    pub fn end(mut self, key: impl AsRef<[u8]>) -> List {
        self.end = Bound::Excluded(key.as_ref().to_vec());
        self
    }

    /// Lists from the last key to the first. Start and end keep their meaning: the start is the
    /// lower bound.
    pub fn reverse(mut self) -> List {
        self.reverse = true;
        self
    }

    /// Most keys per page: from 1 to [`Limits::page_keys_max`](crate::Limits::page_keys_max).
    /// Default: 1,000, or that limit if it is lower. A walk over the listing goes on behind each
    /// page.
    pub fn page_size(mut self, keys: usize) -> List {
        self.page_size = keys;
        self
    }

    /// Includes the values. They are not copied, but reading each costs a memory access; without
    /// values, only keys that have an expiry or metadata are looked up.
    pub fn with_values(mut self) -> List {
        self.values = true;
        self
    }

    /// Resumes after the page with this [`Page::cursor`]. Apart from the page size, the listing
    /// must be the same. An empty cursor means the first page.
    pub fn cursor(mut self, cursor: impl Into<String>) -> List {
        let cursor = cursor.into();
        self.cursor = (!cursor.is_empty()).then_some(cursor);
        self
    }

    /// The page after the cursor, or the first page without one. A key whose record is damaged is
    /// included, with the error in [`EntryRef::error`]; it does not fail the page.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] if the page size is out of range, [`Error::InvalidCursor`] if the
    /// cursor is damaged or belongs to another listing, [`Error::NamespaceNotFound`] if the
    /// namespace was dropped, and [`Error::Closed`].
    pub fn page(&self) -> Result<Page> {
        self.namespace.check()?;
        let most = self.namespace.engine().context.options.limits.page_keys_max;
        if self.page_size == 0 || self.page_size > most {
            return Err(Error::invalid(format!(
                "a page of {} keys is not possible; ask for 1 to {most}",
                self.page_size
            )));
        }
        let after = match &self.cursor {
            Some(cursor) => Some(self.decode_cursor(cursor)?),
            None => None,
        };
        self.page_after(after.as_deref())
    }

    /// Number of keys on all pages. If any key has an expiry, each such key is looked up, and part
    /// of a concurrent batch may be counted. A key whose record is damaged counts.
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

    /// Lower and upper bound of the keys to list.
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
            // One extra key tells whether this is the last page.
            let wanted = self.page_size - page.len() + 1;
            let keys = self.namespace.state.order.page(from, to, self.reverse, wanted);
            let is_end = keys.len() < wanted;
            if page.is_empty() && !keys.any(|flags| self.is_looked_up(flags)) {
                page = Page::of_plain(keys);
                if !is_end {
                    page.end_at(self.page_size, |last| self.encode_cursor(last));
                }
                return Ok(page);
            }
            page.reserve(&keys);
            let mut is_full = false;
            self.look_up(
                &keys,
                |flags| self.is_looked_up(flags),
                |key, flags, warm| {
                    is_full = page.len() == self.page_size;
                    if !is_full && let Some(detail) = self.detail(flags, warm, &now)? {
                        page.push(key, flags, detail);
                    }
                    Ok(!is_full)
                },
            )?;
            if is_full {
                page.end_at(self.page_size, |last| self.encode_cursor(last));
                return Ok(page);
            }
            match keys.last() {
                // Some were expired or gone: read more.
                Some((last, _)) if !is_end => after = Some(last.to_vec()),
                _ => return Ok(page),
            }
        }
    }

    /// Whether this listing has to look up the records of keys with these flags.
    fn is_looked_up(&self, flags: KeyFlags) -> bool {
        self.values || flags != KeyFlags::NONE
    }

    /// Calls `look` for each key until it returns false. For keys whose flags pass `wanted`, the
    /// records are first prefetched into the processor's cache, many at a time.
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

    /// Details of a key for the page, with `warm` if its record has to be looked up; None if the
    /// key is no longer there.
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

    /// Details of a key whose record cannot be read whole: its header may be sound.
    fn detail_of_damaged(&self, key: &HashedKey<'_>, error: Error, now: &Now) -> Result<Option<Detail>> {
        let found = self.namespace.engine().state.find_header(key);
        let expiry = match found {
            // Deleted since, or expired: then the key is absent, whatever the state of its value.
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
