//! Walks over all pages of a listing.

use std::ops::{Bound, ControlFlow};

use super::page::{Entry, EntryRef, Page};
use super::read::{Follow, Span};
use super::{List, as_ref, behind};
use crate::error::Result;
use crate::planted::{Planted, planted};

/// Walks a listing key by key, fetching page after page. No key is skipped silently: a key whose
/// record is damaged is returned once as an error that names it, and the walk continues with the
/// next key. Any other error (the store was closed, the namespace dropped) ends it.
///
/// It can be walked from both ends, which meet: no key is returned twice. The pages of the two ends
/// are of different moments, as are those of one end, unless the listing is of a snapshot or a
/// transaction.
#[derive(Debug)]
pub struct Keys {
    list: List,
    front: End,
    back: End,
    /// Keys left of the listing's limit.
    left: u64,
    ended: bool,
}

/// Walks a listing key by key, fetching page after page, and lends each entry instead of copying it
/// as [`Keys`] does: for listings of many keys. A key whose record is damaged is an entry with an
/// [`EntryRef::error`].
///
/// ```
/// # fn main() -> embercask::Result<()> {
/// # let directory = tempfile::tempdir().expect("a directory");
/// # let store = embercask::Store::open(directory.path().join("data"))?;
/// # let users = store.namespace("USERS")?;
/// # store.batch().put(&users, "ada/1", "").put(&users, "ada/2", "").put(&users, "grace/1", "").commit()?;
/// let mut names = Vec::new();
/// let mut walk = users.list().page_size(10).walk();
/// while let Some(entry) = walk.next()? {
///     let name = entry.key_str()?.split('/').next().unwrap_or_default().to_owned();
///     walk.seek(format!("{name}0")); // behind all keys that begin with the name and a slash
///     names.push(name);
/// }
/// assert_eq!(names, ["ada", "grace"]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a walk reads nothing until it is asked for an entry"]
pub struct Walk {
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
    /// Where the listing begins, or behind its cursor; for the back, where it ends.
    Begin,
    At(Bound<Vec<u8>>),
    /// Behind the last key of this page.
    Behind,
    /// There is none.
    Ended,
}

impl End {
    fn new(next: Next) -> End {
        End {
            page: Page::default(),
            index: 0,
            next,
        }
    }

    /// Finds out where the front begins.
    fn begin(&mut self, list: &List) -> Result<()> {
        if matches!(self.next, Next::Begin) {
            // If this fails, the walk has ended.
            self.next = Next::Ended;
            self.next = Next::At(list.begin()?);
        }
        Ok(())
    }

    /// How far this end has come: the other one goes no further.
    fn reached(&self) -> Bound<&[u8]> {
        if planted(Planted::CrossEnds) {
            return Bound::Unbounded;
        }
        let returned = self.index.checked_sub(1).and_then(|index| self.page.get(index));
        match (returned, &self.next) {
            (Some(entry), _) => Bound::Excluded(entry.key()),
            (None, Next::At(bound)) => as_ref(bound),
            (None, _) => Bound::Unbounded,
        }
    }

    /// Makes sure that the page has the entry to come; false if there is none before `far`.
    fn turn(&mut self, list: &List, reverse: bool, left: u64, far: Bound<&[u8]>) -> Result<bool> {
        if left == 0 {
            return Ok(false);
        }
        if let Some(entry) = self.page.get(self.index) {
            return Ok(is_before(entry.key(), far, reverse));
        }
        // If this fails, the walk has ended.
        let (before, next) = (
            std::mem::take(&mut self.page),
            std::mem::replace(&mut self.next, Next::Ended),
        );
        self.index = 0;
        let near = match next {
            Next::At(bound) => bound,
            Next::Behind => before.last_key().map_or(Bound::Unbounded, |last| behind(last.to_vec())),
            Next::Begin | Next::Ended => return Ok(false),
        };
        list.check_page()?;
        let span = Span {
            near: as_ref(&near),
            far,
            reverse,
        };
        let (page, follow) = list.read(&span, list.size_of_page(left))?;
        self.page = page;
        if follow != Follow::Nothing {
            self.next = Next::Behind;
        }
        Ok(!self.page.is_empty())
    }

    /// The entry to come.
    fn take(&mut self) -> Option<EntryRef<'_>> {
        let index = self.index;
        self.index += 1;
        self.page.get(index)
    }
}

/// Whether a key comes before a bound, in this direction.
fn is_before(key: &[u8], far: Bound<&[u8]>, reverse: bool) -> bool {
    match far {
        Bound::Unbounded => true,
        Bound::Included(far) if key == far => true,
        Bound::Included(far) | Bound::Excluded(far) if reverse => key > far,
        Bound::Included(far) | Bound::Excluded(far) => key < far,
    }
}

/// What is left of a limit after one more key.
fn one_less(left: u64) -> u64 {
    match planted(Planted::LimitNoWalk) {
        true => left,
        false => left.saturating_sub(1),
    }
}

impl List {
    /// Begins a walk that lends its entries.
    pub fn walk(self) -> Walk {
        Walk {
            front: End::new(Next::Begin),
            left: self.limit,
            list: self,
        }
    }
}

impl Walk {
    /// The next entry, or `None` at the end.
    ///
    /// # Errors
    ///
    /// Those of [`List::page`]. An error ends the walk, until [`Walk::seek`].
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend its items")]
    pub fn next(&mut self) -> Result<Option<EntryRef<'_>>> {
        self.front.begin(&self.list)?;
        if !self
            .front
            .turn(&self.list, self.list.reverse, self.left, Bound::Unbounded)?
        {
            return Ok(None);
        }
        self.left = one_less(self.left);
        Ok(self.front.take())
    }

    /// Goes on at this key, or at the first behind it in the direction of the listing, wherever the
    /// walk was, even at its end. It stays within the bounds of the listing, and what it has
    /// returned counts for [`List::limit`]. The next entry needs a new page, so many seeks are best
    /// with a small [`List::page_size`].
    pub fn seek(&mut self, key: impl AsRef<[u8]>) {
        self.front = End::new(Next::At(Bound::Included(key.as_ref().to_vec())));
    }

    /// Passes the entries to come to `visit`, until it breaks off; returns what it broke off with.
    ///
    /// # Errors
    ///
    /// Those of [`Walk::next`].
    pub fn for_each<B>(&mut self, mut visit: impl FnMut(EntryRef<'_>) -> ControlFlow<B>) -> Result<ControlFlow<B>> {
        while let Some(entry) = self.next()? {
            if let ControlFlow::Break(with) = visit(entry) {
                return Ok(ControlFlow::Break(with));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl IntoIterator for List {
    type Item = Result<Entry>;
    type IntoIter = Keys;

    fn into_iter(self) -> Keys {
        Keys {
            front: End::new(Next::Begin),
            back: End::new(Next::Begin),
            left: self.limit,
            ended: false,
            list: self,
        }
    }
}

impl Keys {
    /// Goes on at this key, as [`Walk::seek`] does; where the back has come to stays.
    pub fn seek(&mut self, key: impl AsRef<[u8]>) {
        self.front = End::new(Next::At(Bound::Included(key.as_ref().to_vec())));
        self.ended = false;
    }

    fn step(&mut self, is_back: bool) -> Option<Result<Entry>> {
        match self.turn(is_back) {
            Ok(true) => {}
            Ok(false) => {
                self.ended = true;
                return None;
            }
            Err(error) => {
                self.ended = true;
                return Some(Err(error));
            }
        }
        self.left = one_less(self.left);
        let end = if is_back { &mut self.back } else { &mut self.front };
        let entry = end.take()?;
        Some(match entry.error() {
            Some(error) => Err(error.clone()),
            None => Ok(Entry::of(&entry, self.list.values)),
        })
    }

    /// Makes sure that this end has the entry to come; false if there is none.
    fn turn(&mut self, is_back: bool) -> Result<bool> {
        if self.ended || self.left == 0 {
            return Ok(false);
        }
        self.front.begin(&self.list)?;
        if is_back && matches!(self.back.next, Next::Begin) {
            self.back.next = Next::At(self.end_of_limit()?);
        }
        let (end, other) = match is_back {
            false => (&mut self.front, &self.back),
            true => (&mut self.back, &self.front),
        };
        let reverse = self.list.reverse != is_back;
        end.turn(&self.list, reverse, self.left, other.reached())
    }

    /// Where the listing ends because of its limit, which counts from the front.
    fn end_of_limit(&self) -> Result<Bound<Vec<u8>>> {
        if self.list.limit == u64::MAX {
            return Ok(Bound::Unbounded);
        }
        let list = List {
            values: false,
            ..self.list.clone()
        };
        let mut ahead = End::new(Next::At(self.front.reached().map(<[u8]>::to_vec)));
        let mut left = self.left;
        while ahead.turn(&list, list.reverse, left, Bound::Unbounded)? {
            left -= ahead.page.len() as u64;
            ahead.index = ahead.page.len();
            if left == 0 {
                break;
            }
        }
        Ok(match ahead.page.last_key() {
            Some(last) if left == 0 => Bound::Included(last.to_vec()),
            _ => Bound::Unbounded,
        })
    }
}

impl Iterator for Keys {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        self.step(false)
    }
}

impl DoubleEndedIterator for Keys {
    fn next_back(&mut self) -> Option<Result<Entry>> {
        self.step(true)
    }
}

impl std::iter::FusedIterator for Keys {}
