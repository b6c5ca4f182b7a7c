//! Keys in byte order as a queue: its first or last key is taken out by exactly one caller.

use std::ops::Bound;

use super::Namespace;
use super::update::UPDATE_ATTEMPTS_MAX;
use crate::error::{Error, Result};
use crate::index::order::prefix_successor;
use crate::options::Condition;
use crate::planted::{Planted, planted};
use crate::segment::Value;

/// Keys looked at together: a call that loses the first to another takes one behind it.
const CANDIDATES: usize = 16;

impl Namespace {
    /// Deletes the first key, in byte order, that begins with these bytes, and returns it with its
    /// value; `None` if there is none. Of several calls at the same time each gets another key, and
    /// each key goes to one call: of two that find the same one first, one gets the next. So keys
    /// whose order is that of their arrival, such as numbers of equal length, make a queue.
    ///
    /// The delete is as durable as [`Options::durability`](crate::Options::durability) says before
    /// this returns. A program that ends before it has done what the key stands for does not find
    /// it again.
    ///
    /// # Errors
    ///
    /// Those of [`Namespace::get`] and [`Namespace::delete`]. A key whose record is damaged is an
    /// error that names it, and stays first: delete it to go on. [`Error::TooManyConflicts`] if
    /// other calls were faster 1,000 times.
    pub fn pop_first(&self, prefix: impl AsRef<[u8]>) -> Result<Option<(Vec<u8>, Value)>> {
        self.pop(prefix.as_ref(), false)
    }

    /// As [`Namespace::pop_first`], from the other end: the last key that begins with these bytes.
    pub fn pop_last(&self, prefix: impl AsRef<[u8]>) -> Result<Option<(Vec<u8>, Value)>> {
        self.pop(prefix.as_ref(), true)
    }

    fn pop(&self, prefix: &[u8], last: bool) -> Result<Option<(Vec<u8>, Value)>> {
        // The handle of a store that only reads has no keys.
        let state = &self.writer()?.state;
        let successor = prefix_successor(prefix);
        let upper = successor.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut conflicts = 0;
        let mut after: Option<Vec<u8>> = None;
        let mut is_overtaken = false;
        loop {
            self.check()?;
            let (mut from, mut to) = (Bound::Included(prefix), upper);
            if let Some(after) = after.as_deref().map(Bound::Excluded) {
                *(if last { &mut to } else { &mut from }) = after;
            }
            let (keys, _) = state.keys_between(&self.state, (from, to), last, CANDIDATES);
            for (key, _) in keys.iter() {
                // Absent: another call has deleted it, or it has expired and was not swept yet.
                let Some(value) = self.get(key)? else { continue };
                match self.delete_found(key, Some(Condition::Sequence(value.sequence())), true) {
                    Ok(_) => return Ok(Some((key.to_vec(), value))),
                    Err(Error::Conflict { .. }) => {
                        conflicts += 1;
                        is_overtaken = true;
                    }
                    Err(error) => return Err(error),
                }
            }
            if conflicts >= UPDATE_ATTEMPTS_MAX {
                return Err(Error::TooManyConflicts { attempts: conflicts });
            }
            after = match keys.last() {
                Some((key, _)) => Some(key.to_vec()),
                // What was overwritten in between is still there.
                None if is_overtaken && !planted(Planted::PassOvertaken) => None,
                None => return self.check().map(|()| None),
            };
            is_overtaken &= after.is_some();
        }
    }
}
