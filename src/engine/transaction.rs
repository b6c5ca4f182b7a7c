//! One attempt of a transaction: what it has read, and whether that still holds when it is
//! committed.
//!
//! It reads a view of the moment at which it began. Its writes are one batch, and under the writer
//! lock, before anything is appended, everything that it has read is checked again:
//!
//! * **Keys** are looked up again: their newest records must be those that were read. So what has
//!   changed and changed back to absence is no conflict, and nothing has to be remembered of
//!   writes.
//! * **Ranges** must not have been written to since: [`RecentWrites`](crate::log::RecentWrites)
//!   knows.
//! * **Nothing that was seen may have expired**, and no namespace been dropped.
//!
//! Then all that it has read is what it would read now, under the lock that orders all writes: so
//! the order of commits in the log is the serial order. An attempt without writes has its place at
//! its moment.
//!
//! The moment may be of records that are not written out yet. If they are rolled back, so is every
//! record after them, and the attempt must not count: [`Tail::rollbacks`](crate::log::Guard) tells.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::Engine;
use super::operation::Operation;
use crate::clock::Now;
use crate::error::{Error, Result};
use crate::index::namespaces::NamespaceState;
use crate::log::{Guard, Interest};
use crate::options::Durability;
use crate::planted::{Planted, planted};
use crate::segment::Value;
use crate::state::{HashedKey, View};

/// See the module.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) view: View,
    /// Judges all expiries.
    pub(crate) now: Now,
    reads: Reads,
}

/// What an attempt has read.
#[derive(Debug)]
pub(crate) struct Reads {
    sequence: u64,
    rollbacks: u64,
    _interest: Interest,
    /// Sequence of the record that a key had; None if it was absent.
    keys: HashMap<(u32, Box<[u8]>), Option<u64>>,
    ranges: Vec<Range>,
    namespaces: BTreeMap<u32, Arc<NamespaceState>>,
    /// Expiry and sequence of the record seen that expires first.
    first_expiry: Option<(u64, u64)>,
}

#[derive(Debug)]
struct Range {
    namespace: u32,
    lower: Bound<Vec<u8>>,
    upper: Bound<Vec<u8>>,
}

/// Why an attempt cannot be committed: another may.
fn conflict() -> Error {
    Error::TransactionConflict { attempts: 1 }
}

impl Attempt {
    /// The value of a key, as it was when the attempt began.
    pub(crate) fn get(&mut self, namespace: &Arc<NamespaceState>, key: &HashedKey<'_>) -> Result<Option<Value>> {
        self.check(namespace)?;
        let value = self.view.get(key, &self.now)?;
        let found = value.as_ref().map(Value::sequence);
        self.reads.keys.insert((key.namespace, key.key.into()), found);
        if let Some(value) = &value {
            self.note_expiry(value.expiry_ms(), value.sequence());
        }
        Ok(value)
    }

    /// An error if the namespace had been dropped.
    pub(crate) fn check(&mut self, namespace: &Arc<NamespaceState>) -> Result<()> {
        self.view.check(namespace)?;
        self.reads
            .namespaces
            .entry(namespace.number)
            .or_insert_with(|| namespace.clone());
        Ok(())
    }

    /// A live record was seen.
    pub(crate) fn note_expiry(&mut self, expiry: Option<u64>, sequence: u64) {
        if let Some(expiry) = expiry
            && self.reads.first_expiry.is_none_or(|(first, _)| expiry < first)
        {
            self.reads.first_expiry = Some((expiry, sequence));
        }
    }

    /// All keys between these bounds were listed or counted.
    pub(crate) fn note_range(&mut self, namespace: &NamespaceState, (lower, upper): (Bound<&[u8]>, Bound<&[u8]>)) {
        self.reads.ranges.push(Range {
            namespace: namespace.number,
            lower: lower.map(<[u8]>::to_vec),
            upper: upper.map(<[u8]>::to_vec),
        });
    }

    /// Ends reading.
    pub(crate) fn into_reads(self) -> Reads {
        self.reads
    }
}

impl Reads {
    /// An error if anything would be read otherwise now. The caller holds the writer lock.
    pub(super) fn check(&self, engine: &Engine, guard: &Guard<'_>) -> Result<()> {
        if self.is_rolled_back(guard) {
            return Err(conflict());
        }
        let is_dropped = |namespace: &Arc<NamespaceState>| namespace.is_dropped();
        if self.namespaces.values().any(is_dropped) && !planted(Planted::SkipDropCheck) {
            return Err(conflict());
        }
        let now = engine.context.time.now();
        if let Some((expiry, sequence)) = self.first_expiry
            && now.is_expired(Some(expiry), sequence)
            && !planted(Planted::SkipExpiryCheck)
        {
            return Err(conflict());
        }
        if guard.last_sequence == self.sequence {
            return Ok(());
        }
        for ((namespace, key), sequence) in &self.keys {
            let key = engine.state.hashed(*namespace, key);
            let current = engine.state.current(&key, true)?;
            let live = current.and_then(|current| {
                let header = current.header()?;
                (!now.is_expired(header.expiry, header.sequence)).then_some(header.sequence)
            });
            if live != *sequence && !planted(Planted::SkipKeyCheck) {
                return Err(conflict());
            }
        }
        for range in &self.ranges {
            let bounds = (
                range.lower.as_ref().map(Vec::as_slice),
                range.upper.as_ref().map(Vec::as_slice),
            );
            let recent = &guard.tail.recent;
            match recent.was_written(self.sequence, range.namespace, bounds) {
                Some(false) => {}
                _ if planted(Planted::SkipRangeCheck) => {}
                Some(true) => return Err(conflict()),
                None => return Err(Error::TransactionTooOld),
            }
        }
        Ok(())
    }

    /// Whether records that were seen may have been rolled back.
    fn is_rolled_back(&self, guard: &Guard<'_>) -> bool {
        guard.tail.rollbacks != self.rollbacks && !planted(Planted::TrustRolledBackReads)
    }
}

impl Engine {
    /// Begins an attempt at this moment.
    pub(crate) fn begin_attempt(&self) -> Result<Attempt> {
        self.context.check_open()?;
        let begun = self.log.begin_reading()?;
        Ok(Attempt {
            reads: Reads {
                sequence: begun.view.sequence(),
                rollbacks: begun.rollbacks,
                _interest: begun.interest,
                keys: HashMap::new(),
                ranges: Vec::new(),
                namespaces: BTreeMap::new(),
                first_expiry: None,
            },
            view: begun.view,
            now: self.context.time.now(),
        })
    }

    /// Whether records that an attempt may have seen were rolled back.
    pub(crate) fn is_rolled_back(&self, reads: &Reads) -> bool {
        reads.is_rolled_back(&self.log.lock())
    }

    /// Writes what an attempt writes, or nothing if what it has read has changed. Returns the
    /// sequence of the last record.
    ///
    /// [`Error::NoSpace`], and nothing is written, if the disk was too full and more of the reserve
    /// was released: what was rolled back for that may have been read, so another attempt is needed
    /// to use it.
    pub(crate) fn write_checked(
        &self,
        operations: &[Operation<'_>],
        reads: &Reads,
        durability: Durability,
    ) -> Result<u64> {
        // Before the lock is taken, so that others do not wait for it.
        let hashes: Vec<_> = (reads.keys.keys())
            .map(|(namespace, key)| self.state.hash(*namespace, key))
            .collect();
        self.state.warm_up(&hashes, None);
        let checks = Cell::new(0);
        let written = self.write_batch_if(operations, durability, |guard| {
            checks.set(checks.get() + 1);
            reads.check(self, guard)
        });
        match written {
            // A write is run again only after it was rolled back for lack of space.
            Err(Error::TransactionConflict { .. }) if checks.get() > 1 => Err(Error::NoSpace {
                path: self.context.path().to_owned(),
            }),
            written => written,
        }
    }

    /// Whether compaction has made room for these operations, which are all deletes.
    pub(crate) fn makes_room_for(&self, operations: &[Operation<'_>]) -> bool {
        operations.iter().all(Operation::is_delete) && self.compactor.make_room()
    }

    /// Returns once nothing that an attempt without writes has read can be rolled back. Returns the
    /// sequence of its moment.
    pub(crate) fn confirm_reads(&self, reads: &Reads, durability: Durability) -> Result<u64> {
        let guard = self.log.lock();
        if reads.is_rolled_back(&guard) {
            return Err(conflict());
        }
        // It does not matter whether what others have written is durable.
        let durability = match durability {
            Durability::Buffered => Durability::Buffered,
            Durability::Os | Durability::Sync => Durability::Os,
        };
        match self.log.commit(guard, durability, reads.sequence) {
            Err(_) if self.is_rolled_back(reads) => Err(conflict()),
            // What stays pending was acknowledged.
            Ok(()) | Err(Error::Pending { .. }) => Ok(reads.sequence),
            Err(error) => Err(error),
        }
    }
}
