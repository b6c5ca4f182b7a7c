//! Walks over all pages of a listing.

use std::ops::Bound;

use super::page::{Entry, Page};
use super::read::{Follow, Span};
use super::{List, as_ref, behind};
use crate::error::Result;
use crate::planted::{Planted, planted};

/// Walks a listing key by key, fetching page after page. No key is skipped silently: a key whose
/// record is damaged is returned once as an error that names it, and the walk continues with the
/// next key. Any other error (the store was closed, the namespace dropped) ends it.
#[derive(Debug)]
pub struct Keys {
    list: List,
    front: End,
    /// Keys left of the listing's limit.
    left: u64,
}

/// One end of a walk: the page that it is in, and where it goes on.
#[derive(Debug)]
struct End {
    page: Page,
    /// Index in the page of the entry to come.
    index: usize,
    next: Next,
}

/// Where the next page begins.
#[derive(Debug)]
enum Next {
    /// Behind the listing's cursor, or where the listing begins.
    Begin,
    /// Behind the last key of this page.
    Behind,
    /// There is none.
    Ended,
}

impl End {
    fn new() -> End {
        End {
            page: Page::default(),
            index: 0,
            next: Next::Begin,
        }
    }

    /// Makes sure that the page has the entry to come; false if there is none.
    fn turn(&mut self, list: &List, left: u64) -> Result<bool> {
        if left == 0 {
            return Ok(false);
        }
        if self.index < self.page.len() {
            return Ok(true);
        }
        // If this fails, the walk has ended.
        let (before, next) = (
            std::mem::take(&mut self.page),
            std::mem::replace(&mut self.next, Next::Ended),
        );
        self.index = 0;
        let near = match next {
            Next::Begin => list.begin()?,
            Next::Behind => {
                list.check_page()?;
                before.last_key().map_or(Bound::Unbounded, |last| behind(last.to_vec()))
            }
            Next::Ended => return Ok(false),
        };
        let span = Span {
            near: as_ref(&near),
            far: Bound::Unbounded,
            reverse: list.reverse,
        };
        let (page, follow) = list.read(&span, list.size_of_page(left))?;
        self.page = page;
        if follow != Follow::Nothing {
            self.next = Next::Behind;
        }
        Ok(!self.page.is_empty())
    }
}

impl IntoIterator for List {
    type Item = Result<Entry>;
    type IntoIter = Keys;

    fn into_iter(self) -> Keys {
        Keys {
            front: End::new(),
            left: self.limit,
            list: self,
        }
    }
}

impl Iterator for Keys {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        match self.front.turn(&self.list, self.left) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => return Some(Err(error)),
        }
        let entry = self.front.page.get(self.front.index)?;
        self.front.index += 1;
        if !planted(Planted::LimitNoWalk) {
            self.left -= 1;
        }
        Some(match entry.error() {
            Some(error) => Err(error.clone()),
            None => Ok(Entry::of(&entry, self.list.values)),
        })
    }
}

impl std::iter::FusedIterator for Keys {}
