//! Having the processor load what will be needed, so that the waits for memory overlap with other
//! work.

use std::sync::Arc;

use super::shard::Shard;
use super::slot::Tag;
use super::table::Table;
use super::{Keydir, Location};

/// The tables as they were at some time, for a thread that looks at many slots and may miss what
/// has changed since.
pub(crate) struct Tables(Vec<Arc<Table>>);

impl Tables {
    /// As [`Keydir::prefetch`].
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        if let Some(table) = self.0.get(Keydir::shard_of(hash)) {
            table.prefetch(Tag::of(hash));
        }
    }

    /// As [`Keydir::first`].
    #[inline]
    pub(crate) fn first(&self, hash: u64) -> Option<Location> {
        self.0.get(Keydir::shard_of(hash))?.first(Tag::of(hash))
    }
}

impl Keydir {
    /// Has the processor load what is changed with any slot of the shard of this hash.
    #[inline]
    pub(crate) fn prefetch_shard(&self, hash: u64) {
        self.shard(hash).prefetch();
    }

    /// The tables as they are now.
    pub(crate) fn tables(&self) -> Tables {
        Tables(self.shards.iter().map(Shard::table_to_keep).collect())
    }

    /// Has the processor load the slot that a write of this hash begins with, to be changed,
    /// without waiting for it.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        self.shard(hash).prefetch_slot(Tag::of(hash));
    }
}
