//! Reading a part of a listing.

use std::cmp::Ordering;
use std::ops::Bound;

use super::page::{Detail, Page};
use super::source::{Listed, Source};
use super::{List, as_ref};
use crate::error::Result;
use crate::index::order::KeyFlags;
use crate::planted::{Planted, planted};

/// The part of a listing from `near` to `far`, in the direction of reading.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'a> {
    pub(super) near: Bound<&'a [u8]>,
    pub(super) far: Bound<&'a [u8]>,
    /// Reads from higher keys to lower ones.
    pub(super) reverse: bool,
}

/// What follows the keys that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follow {
    Nothing,
    /// At least one key that is there.
    Keys,
    /// Keys that may all have expired.
    Unknown,
}

/// Keys that are first looked at to find one that has not expired. If all have, ever more are read
/// at a time, up to `LOOK_ON_MAX`.
const LOOK_ON_MIN: usize = 4;
const LOOK_ON_MAX: usize = 4096;

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

impl<'a> Span<'a> {
    /// The part of these bounds that is in the span.
    fn within(&self, (lower, upper): Bounds<'a>) -> Bounds<'a> {
        let (from, to) = match self.reverse {
            false => (self.near, self.far),
            true => (self.far, self.near),
        };
        (
            tighter(lower, from, Ordering::Greater),
            tighter(upper, to, Ordering::Less),
        )
    }
}

/// The bound that leaves fewer keys; `is_tighter` says how its key compares with a wider one's.
fn tighter<'a>(a: Bound<&'a [u8]>, b: Bound<&'a [u8]>, is_tighter: Ordering) -> Bound<&'a [u8]> {
    match (a, b) {
        (Bound::Unbounded, bound) | (bound, Bound::Unbounded) => bound,
        (Bound::Included(key) | Bound::Excluded(key), Bound::Included(other) | Bound::Excluded(other)) => {
            match key.cmp(other) {
                Ordering::Equal if matches!(a, Bound::Excluded(_)) => a,
                Ordering::Equal => b,
                order if order == is_tighter => a,
                _ => b,
            }
        }
    }
}

/// The part of these bounds behind a key.
fn rest_of<'a>((from, to): Bounds<'a>, key: Option<&'a [u8]>, reverse: bool) -> Bounds<'a> {
    match (key, reverse) {
        (None, _) => (from, to),
        (Some(key), false) => (Bound::Excluded(key), to),
        (Some(key), true) => (from, Bound::Excluded(key)),
    }
}

impl List {
    /// The first keys of a span, `size` of them unless there are fewer, and what follows them.
    pub(super) fn read(&self, span: &Span<'_>, size: usize) -> Result<(Page, Follow)> {
        self.source.consistently(|source| self.fill(source, span, size))
    }

    fn fill(&self, source: &Source, span: &Span<'_>, size: usize) -> Result<(Page, Follow)> {
        let now = source.now();
        let (lower, upper) = self.bounds();
        let bounds = span.within((as_ref(&lower), as_ref(&upper)));
        let mut page = Page::default();
        let mut after: Option<Vec<u8>> = None;
        loop {
            // One extra key tells whether any follow.
            let wanted = size - page.len() + 1;
            let rest = rest_of(bounds, after.as_deref(), span.reverse);
            let Listed { keys, is_exact } = source.keys_between(rest, span.reverse, wanted);
            let is_looked_up = |flags| self.values || flags != KeyFlags::NONE || !is_exact;
            let is_end = keys.len() < wanted;
            if page.is_empty() && is_exact && !keys.any(is_looked_up) {
                page = Page::of_plain(keys);
                if is_end {
                    return Ok((page, Follow::Nothing));
                }
                page.truncate(size);
                return Ok((page, Follow::Keys));
            }
            page.reserve(&keys);
            let mut follow = None;
            source.look_up(&keys, is_looked_up, |key, flags, warm| {
                if page.len() == size {
                    let is_doubtful = flags.contains(KeyFlags::EXPIRES) || !is_exact;
                    let is_unknown = is_doubtful && !planted(Planted::LastByKeys);
                    follow = Some(if is_unknown { Follow::Unknown } else { Follow::Keys });
                    return Ok(false);
                }
                let Some(warm) = warm else {
                    page.push(key, flags, Detail::Plain);
                    return Ok(true);
                };
                let known = if is_exact { Some(flags) } else { source.flags_of(&warm)? };
                if let Some(flags) = known
                    && let Some(detail) = source.detail(flags, &warm, self.values, &now)?
                {
                    page.push(key, flags, detail);
                }
                Ok(true)
            })?;
            if let Some(follow) = follow {
                return Ok((page, follow));
            }
            match keys.last() {
                // Some were expired or gone: read more.
                Some((last, _)) if !is_end => after = Some(last.to_vec()),
                _ => return Ok((page, Follow::Nothing)),
            }
        }
    }

    /// Whether the span has a key that has not expired. Each key is judged by itself: what batches
    /// do meanwhile decides only whether a page is called the last.
    pub(super) fn has_live(&self, span: &Span<'_>) -> Result<bool> {
        self.source.at_present(|source| self.has_live_in(source, span))
    }

    fn has_live_in(&self, source: &Source, span: &Span<'_>) -> Result<bool> {
        let now = source.now();
        let (lower, upper) = self.bounds();
        let bounds = span.within((as_ref(&lower), as_ref(&upper)));
        let mut after: Option<Vec<u8>> = None;
        let mut most = LOOK_ON_MIN;
        loop {
            let rest = rest_of(bounds, after.as_deref(), span.reverse);
            let Listed { keys, is_exact } = source.keys_between(rest, span.reverse, most);
            let is_doubtful = |flags: KeyFlags| flags.contains(KeyFlags::EXPIRES) || !is_exact;
            let mut is_live = false;
            source.look_up(&keys, is_doubtful, |_, _, warm| {
                is_live = match warm {
                    Some(warm) => source.is_live(&warm, &now)?,
                    // The key order has only keys that are there.
                    None => true,
                };
                Ok(!is_live)
            })?;
            match keys.last() {
                Some((last, _)) if !is_live && keys.len() == most => after = Some(last.to_vec()),
                _ => return Ok(is_live),
            }
            most = (most * 4).min(LOOK_ON_MAX);
        }
    }
}
