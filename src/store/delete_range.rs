//! Deleting all keys of a range, in batches.

use std::fmt;
use std::ops::{Bound, RangeBounds};

use super::{Deleted, Namespace};
use crate::engine::operation::{Action, Operation};
use crate::error::{Error, Result};
use crate::index::order::{KeyFlags, KeyPage, prefix_successor};
use crate::options::Durability;
use crate::planted::{Planted, planted};

/// Default number of keys per batch.
const BATCH_KEYS_DEFAULT: usize = 1000;
/// Most keys per batch.
const BATCH_KEYS_MAX: usize = 10_000;
/// Most bytes of keys per batch. With their headers they stay below what a batch may take.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// Deletes the keys of a range: see [`Namespace::delete_range`]. Does nothing until
/// [`DeleteRange::run`].
#[must_use = "nothing is deleted until it is run"]
pub struct DeleteRange<'a> {
    namespace: &'a Namespace,
    lower: Bound<Vec<u8>>,
    upper: Bound<Vec<u8>>,
    batch_keys: usize,
    durability: Option<Durability>,
    progress: Option<Box<dyn FnMut(u64) -> bool + 'a>>,
}

impl Namespace {
    /// Deletes all keys that begin with these bytes; with an empty prefix, all keys. See
    /// [`Namespace::delete_range`].
    pub fn delete_prefix(&self, prefix: impl AsRef<[u8]>) -> DeleteRange<'_> {
        let prefix = prefix.as_ref();
        let upper = prefix_successor(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        DeleteRange::new(self, Bound::Included(prefix.to_vec()), upper)
    }

    /// Deletes all keys of a range, such as `"a".."c"`, in byte order. Each batch of keys is
    /// deleted as a whole, also after a crash; between two batches others read and write. Each key
    /// that is there during the whole call is deleted; one that is put meanwhile may or may not be.
    ///
    /// Each key costs a record in the log, as for [`Namespace::delete`];
    /// [`Store::drop_namespace`](crate::Store::drop_namespace) deletes any number with one.
    pub fn delete_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> DeleteRange<'_> {
        let owned = |bound: Bound<&K>| bound.map(|key| key.as_ref().to_vec());
        DeleteRange::new(self, owned(range.start_bound()), owned(range.end_bound()))
    }
}

impl<'a> DeleteRange<'a> {
    fn new(namespace: &'a Namespace, lower: Bound<Vec<u8>>, upper: Bound<Vec<u8>>) -> DeleteRange<'a> {
        DeleteRange {
            namespace,
            lower,
            upper,
            batch_keys: BATCH_KEYS_DEFAULT,
            durability: None,
            progress: None,
        }
    }

    /// Most keys that are deleted as one: 1 to 10,000. Default: 1,000. A batch of long keys is
    /// smaller.
    pub fn batch_keys(mut self, keys: usize) -> Self {
        self.batch_keys = keys;
        self
    }

    /// Overrides the store's durability, for each batch.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Calls this after each batch with the number of keys deleted so far. If it returns false, the
    /// call ends with [`Error::Cancelled`]; what was deleted stays so.
    pub fn on_progress(mut self, progress: impl FnMut(u64) -> bool + 'a) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// Deletes the keys. [`Deleted::count`] tells how many were there; one that another call
    /// deletes at the same time may be counted by both.
    ///
    /// # Errors
    ///
    /// Those of [`Batch::commit`](crate::Batch::commit) and [`Namespace::get`], and
    /// [`Error::Cancelled`]. Earlier batches stay deleted; running it again goes on. A key whose
    /// record is damaged is deleted like any other, and counts.
    pub fn run(mut self) -> Result<Deleted> {
        self.namespace.check()?;
        if !(1..=BATCH_KEYS_MAX).contains(&self.batch_keys) {
            return Err(Error::invalid(format!(
                "a batch of {} keys is not possible; choose 1 to {BATCH_KEYS_MAX}",
                self.batch_keys
            )));
        }
        // The keys of a batch that was seen before this call are in the key order then.
        self.namespace.writer()?.state.settle()?;
        let mut deleted = Deleted::default();
        while let Some(last) = self.delete_batch(&mut deleted)? {
            if let Some(progress) = &mut self.progress
                && !progress(deleted.count)
                && !planted(Planted::DeleteOn)
            {
                return Err(Error::Cancelled);
            }
            self.lower = Bound::Excluded(last);
        }
        Ok(deleted)
    }

    /// Deletes the first keys of what is left; returns the last of them, or None if there are none.
    fn delete_batch(&self, deleted: &mut Deleted) -> Result<Option<Vec<u8>>> {
        self.namespace.check()?;
        let (engine, state) = (self.namespace.writer()?, &self.namespace.state);
        let (lower, upper) = (self.lower.as_ref(), self.upper.as_ref());
        let (lower, upper) = (lower.map(Vec::as_slice), upper.map(Vec::as_slice));
        let mut keys = state.order.page(lower, upper, false, self.batch_keys);
        limit_bytes(&mut keys);
        let Some((last, _)) = keys.last() else { return Ok(None) };
        let mut count = 0;
        for (key, flags) in keys.iter() {
            count += u64::from(!flags.contains(KeyFlags::EXPIRES) || self.is_live(key)?);
        }
        let delete = |key| Operation {
            namespace: state,
            key,
            action: Action::Delete,
            condition: None,
        };
        let operations: Vec<_> = keys.iter().map(|(key, _)| delete(key)).collect();
        engine.write_batch(&operations, engine.durability(self.durability))?;
        engine.housekeeping.relieve_order(state);
        deleted.count += count;
        deleted.existed |= count > 0;
        Ok(Some(last.to_vec()))
    }

    /// Whether a key with an expiry is there. A damaged one counts as such, as in a listing.
    fn is_live(&self, key: &[u8]) -> Result<bool> {
        match self.namespace.contains(key) {
            Err(error) if error.is_unreadable() => Ok(true),
            live => live,
        }
    }
}

/// Cuts a page to as many keys as fit a batch.
fn limit_bytes(keys: &mut KeyPage) {
    let mut bytes = 0;
    let fit = keys.iter().take_while(|(key, _)| {
        bytes += key.len();
        bytes <= BATCH_BYTES_MAX
    });
    let fit = fit.count();
    keys.truncate(fit);
}

impl fmt::Debug for DeleteRange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeleteRange")
            .field("lower", &self.lower)
            .field("upper", &self.upper)
            .field("batch_keys", &self.batch_keys)
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}
