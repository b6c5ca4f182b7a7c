//! Listing keys: by prefix or range, forwards or backwards, page by page.

mod cursor;
mod page;
mod source;

use std::ops::Bound;

use super::Namespace;
use crate::error::{Error, Result};
use crate::index::order::{KeyFlags, prefix_successor};
use crate::planted::{Planted, planted};
use page::Detail;
pub use page::{Entry, EntryRef, Keys, Page};
use source::Source;

/// Default number of keys per page, as in Workers KV.
const PAGE_KEYS_DEFAULT: usize = 1000;
/// Keys read per step when counting.
const COUNT_STEP: usize = 4096;

/// A listing of a namespace's keys, in byte order. Iterate over it, or fetch it page by page.
///
/// Each page reads the store as it is at that moment; no resource is held between pages. It does
/// not keep the store open: once the last handle is gone its pages are [`Error::Closed`]. A key
/// present during the whole walk is listed exactly once; one that is put or deleted meanwhile may
/// or may not be. Expired keys are not listed. A key whose record is damaged is listed with an
/// error that names it.
#[derive(Clone, Debug)]
pub struct List {
    source: Source,
    prefix: Vec<u8>,
    start: Bound<Vec<u8>>,
    end: Bound<Vec<u8>>,
    reverse: bool,
    page_size: usize,
    values: bool,
    cursor: Option<String>,
}

impl List {
    pub(super) fn new(namespace: &Namespace) -> List {
        let source = Source::new(namespace.store.engine().clone(), namespace.state.clone());
        let most = source.page_keys_max();
        List {
            source,
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
        self.source.check()?;
        let most = self.source.page_keys_max();
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
        self.source.check()?;
        let (lower, upper) = self.bounds();
        let (lower, upper) = (as_ref(&lower), as_ref(&upper));
        if !self.source.has_expiring() {
            return self
                .source
                .consistently(|| Ok(self.source.count_between((lower, upper))));
        }
        let now = self.source.now();
        let mut count = 0;
        let mut after: Option<Vec<u8>> = None;
        loop {
            let from = after.as_deref().map_or(lower, Bound::Excluded);
            let page = self.source.keys_between((from, upper), false, COUNT_STEP);
            let expires = |flags: KeyFlags| flags.contains(KeyFlags::EXPIRES);
            self.source.look_up(&page, expires, |_, _, warm| {
                let counts = match warm {
                    Some(warm) => self.source.is_live(&warm, &now)?,
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
        self.source.consistently(|| self.look(after))
    }

    fn look(&self, after: Option<&[u8]>) -> Result<Page> {
        let now = self.source.now();
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
            let keys = self.source.keys_between((from, to), self.reverse, wanted);
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
            self.source.look_up(
                &keys,
                |flags| self.is_looked_up(flags),
                |key, flags, warm| {
                    is_full = page.len() == self.page_size;
                    let detail = match warm {
                        _ if is_full => None,
                        Some(warm) => self.source.detail(flags, &warm, self.values, &now)?,
                        None => Some(Detail::Plain),
                    };
                    if let Some(detail) = detail {
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
}

fn as_ref(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}
