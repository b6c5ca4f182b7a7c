//! Listing keys: by prefix or range, forwards or backwards, page by page.

mod cursor;
mod page;
mod read;
mod source;
mod walk;

use std::ops::Bound;

use crate::error::{Error, Result};
use crate::index::order::{KeyFlags, prefix_successor};
use crate::planted::{Planted, planted};
pub use page::{Entry, EntryRef, Page};
use read::{Follow, Span};
use source::Listed;
pub(super) use source::{Moment, Source};
pub use walk::{Keys, Walk};

/// Default number of keys per page, as in Workers KV.
const PAGE_KEYS_DEFAULT: usize = 1000;
/// Keys read per step when counting.
const COUNT_STEP: usize = 4096;

/// A listing of a namespace's keys, in byte order. Iterate over it, from either end or both; walk
/// it without copying ([`List::walk`]); or fetch it page by page.
///
/// Each page reads the store as it is at that moment, and no resource is held between pages. A key
/// present during the whole walk is listed exactly once; one that is put or deleted meanwhile may
/// or may not be. The pages of a listing of a [snapshot](crate::Snapshot::list) are all of its
/// moment, and it holds the snapshot; those of a [transaction](crate::Transaction::list) are of the
/// moment at which that began, with its own writes.
///
/// A listing does not keep the store open: once the last handle is gone its pages are
/// [`Error::Closed`]. Expired keys are not listed. A key whose record is damaged is listed with an
/// error that names it.
#[derive(Clone, Debug)]
pub struct List {
    source: Source,
    prefix: Vec<u8>,
    start: Bound<Vec<u8>>,
    end: Bound<Vec<u8>>,
    reverse: bool,
    page_size: usize,
    limit: u64,
    values: bool,
    cursor: Option<String>,
}

impl List {
    pub(super) fn new(source: Source) -> List {
        let most = source.page_keys_max();
        List {
            source,
            prefix: Vec::new(),
            start: Bound::Unbounded,
            end: Bound::Unbounded,
            reverse: false,
            page_size: PAGE_KEYS_DEFAULT.min(most),
            limit: u64::MAX,
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
    /// page: see [`List::limit`].
    pub fn page_size(mut self, keys: usize) -> List {
        self.page_size = keys;
        self
    }

    /// Most keys in all: a walk ends after this many, however many pages they are on, and a page
    /// that reaches it is the last. Counted from where the walk or the page begins, so a page
    /// behind a [`List::cursor`] may have as many again: a program that turns the pages itself
    /// passes what is left. Default: no limit.
    pub fn limit(mut self, keys: u64) -> List {
        self.limit = keys;
        self
    }

    /// Includes the values. They are not copied, but reading each costs a memory access; without
    /// values, only keys that have an expiry or metadata are looked up.
    pub fn with_values(mut self) -> List {
        self.values = true;
        self
    }

    /// Resumes after the page with this [`Page::cursor`]. Apart from the page size and the limit,
    /// the listing must be the same. An empty cursor means the first page.
    pub fn cursor(mut self, cursor: impl Into<String>) -> List {
        let cursor = cursor.into();
        self.cursor = (!cursor.is_empty()).then_some(cursor);
        self
    }

    /// The page after the cursor, or the first page without one. A key whose record is damaged is
    /// included, with the error in [`EntryRef::error`]; it does not fail the page.
    ///
    /// A page is the last if only keys follow that have expired: to know that, it looks up those
    /// behind it until it finds one that has not.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] if the page size is out of range, [`Error::InvalidCursor`] if the
    /// cursor is damaged or belongs to another listing, [`Error::NamespaceNotFound`] if the
    /// namespace was dropped, and [`Error::Closed`].
    pub fn page(&self) -> Result<Page> {
        let near = self.begin()?;
        let mut page = Page::default();
        if self.limit == 0 {
            page.set_end(false, self.cursor.clone());
            return Ok(page);
        }
        let span = Span {
            near: as_ref(&near),
            far: Bound::Unbounded,
            reverse: self.reverse,
        };
        let follow;
        (page, follow) = self.read(&span, self.size_of_page(self.limit))?;
        let is_limit = self.limit <= page.len() as u64;
        let goes_on = match (follow, page.last_key()) {
            (Follow::Nothing, _) | (_, None) => return Ok(page),
            (Follow::Keys, _) => true,
            // The limit ends the page, whatever follows.
            (Follow::Unknown, Some(_)) if is_limit => true,
            (Follow::Unknown, Some(last)) => self.has_live(&Span {
                near: Bound::Excluded(last),
                ..span
            })?,
        };
        if goes_on {
            let cursor = page.last_key().map(|last| self.encode_cursor(last));
            page.set_end(!is_limit, cursor);
        }
        Ok(page)
    }

    /// Where the listing begins: behind the cursor, if there is one.
    fn begin(&self) -> Result<Bound<Vec<u8>>> {
        self.check_page()?;
        match &self.cursor {
            Some(cursor) => Ok(behind(self.decode_cursor(cursor)?)),
            None => Ok(Bound::Unbounded),
        }
    }

    /// Refuses pages that cannot be read.
    fn check_page(&self) -> Result<()> {
        self.source.check()?;
        let most = self.source.page_keys_max();
        if self.page_size == 0 || self.page_size > most {
            return Err(Error::invalid(format!(
                "a page of {} keys is not possible; ask for 1 to {most}",
                self.page_size
            )));
        }
        Ok(())
    }

    /// Most keys on a page if this many are left of the limit.
    fn size_of_page(&self, left: u64) -> usize {
        usize::try_from(left).unwrap_or(usize::MAX).min(self.page_size)
    }

    /// Number of keys on all pages, up to [`List::limit`], all at one moment; a cursor does not
    /// matter. If any key has an expiry, each such key is looked up. A key whose record is damaged
    /// counts.
    pub fn count(&self) -> Result<u64> {
        self.source.check()?;
        self.source.consistently(|source| self.count_in(source))
    }

    fn count_in(&self, source: &Source) -> Result<u64> {
        let (lower, upper) = self.bounds();
        let (lower, upper) = (as_ref(&lower), as_ref(&upper));
        if let Some(count) = source.count_between((lower, upper)) {
            return Ok(count.min(self.limit));
        }
        let now = source.now();
        let mut count = 0;
        let mut after: Option<Vec<u8>> = None;
        loop {
            let from = after.as_deref().map_or(lower, Bound::Excluded);
            let Listed { keys: page, is_exact } = source.keys_between((from, upper), false, COUNT_STEP);
            let is_doubtful = |flags: KeyFlags| flags.contains(KeyFlags::EXPIRES) || !is_exact;
            source.look_up(&page, is_doubtful, |_, _, warm| {
                let counts = match warm {
                    Some(warm) => source.is_live(&warm, &now)?,
                    None => true,
                };
                count += u64::from(counts && count < self.limit);
                Ok(count < self.limit)
            })?;
            match page.last() {
                Some((last, _)) if page.len() == COUNT_STEP && count < self.limit => after = Some(last.to_vec()),
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
}

/// The bound behind a key at which a page ended.
fn behind(key: Vec<u8>) -> Bound<Vec<u8>> {
    match planted(Planted::RepeatLastKey) {
        true => Bound::Included(key),
        false => Bound::Excluded(key),
    }
}

fn as_ref(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}
