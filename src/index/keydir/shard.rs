//! One shard: the table that readers use, and the mutex under which it is changed and replaced.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

use arc_swap::{ArcSwap, Guard};

use super::table::Removed;
use super::{Full, Location, Relation, Sizing, Slot, Table, Tag, Upsert};
use crate::format::{Damage, Fields, Stored};
use crate::prefetch::{prefetch_address_to_change, prefetch_to_change};
use crate::sync::{Mutex, MutexGuard};

/// A part of the keydir that grows on its own.
pub(super) struct Shard {
    /// The current table, for readers. Replaced only while holding `writer`.
    table: ArcSwap<Table>,
    /// The current table, for writers, and its counts.
    writer: Mutex<Writer>,
    /// Address and number of the slots of the current table, so that they can be prefetched without
    /// loading the table. Of two tables for a moment, while one replaces the other.
    slots_at: AtomicUsize,
    capacity: AtomicUsize,
    /// Maximum number of non-EMPTY slots in the current table, readable without loading the table.
    used_max: AtomicUsize,
    /// Entries that will be added, for which there must be room.
    promised: AtomicUsize,
    sizing: Sizing,
}

/// What writers know about the current table.
struct Writer {
    table: Arc<Table>,
    /// Entries.
    live: usize,
    /// DELETED slots.
    deleted: usize,
    /// Entries removed since the table was built.
    removed: usize,
}

/// How full a table is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fill {
    Enough,
    /// So little that [`Shard::shrink`] makes it smaller.
    Loose,
}

impl Writer {
    /// Of a table whose entries are not counted yet.
    fn new(table: Arc<Table>) -> Writer {
        Writer {
            table,
            live: 0,
            deleted: 0,
            removed: 0,
        }
    }
}

impl Shard {
    /// An empty shard with a table for `expected` entries. If none are expected it uses `empty`, a
    /// table without slots that all shards can share because it is never written to.
    pub(super) fn new(sizing: Sizing, expected: usize, empty: &Arc<Table>) -> Self {
        debug_assert_eq!(empty.capacity(), 0, "a shared table must have no slots");
        let table = match expected {
            0 => Arc::clone(empty),
            // The expectation may be far too high.
            expected => Arc::new(Table::new(sizing.capacity_for(expected.min(sizing.live_max())))),
        };
        let used_max = sizing.used_max(table.capacity());
        Self::with_writer(sizing, Writer::new(table), used_max)
    }

    fn with_writer(sizing: Sizing, writer: Writer, used_max: usize) -> Self {
        Self {
            slots_at: AtomicUsize::new(writer.table.address()),
            capacity: AtomicUsize::new(writer.table.capacity()),
            used_max: AtomicUsize::new(used_max),
            table: ArcSwap::new(writer.table.clone()),
            promised: AtomicUsize::new(0),
            writer: Mutex::new(writer),
            sizing,
        }
    }

    /// Writes the table as it is.
    pub(super) fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        let writer = self.write();
        let table = &writer.table;
        out.write_all(&(table.capacity() as u32).to_stored())?;
        table
            .slots()
            .try_for_each(|slot| out.write_all(&slot.bits().to_stored()))
    }

    /// Reads what [`Shard::write_to`] wrote.
    pub(super) fn read_from(
        sizing: Sizing,
        fields: &mut Fields<'_>,
        empty: &Arc<Table>,
        is_known: impl Fn(Location) -> bool,
    ) -> Result<Self, Damage> {
        let capacity = fields.u32()? as usize;
        if capacity == 0 {
            return Ok(Self::new(sizing, 0, empty));
        }
        let (slots, _) = fields.slice(capacity.saturating_mul(size_of::<u64>()))?.as_chunks();
        let table = Table::of_slots(slots.iter().map(|bits| Slot::from_bits(u64::from_stored(*bits))));
        let mut writer = Writer::new(Arc::new(table));
        for slot in writer.table.clone().slots() {
            match slot.location() {
                Some(location) if is_known(location) => writer.live += 1,
                Some(_) => return Err(Damage::Field("location")),
                None => writer.deleted += usize::from(slot == Slot::DELETED),
            }
        }
        let used_max = sizing.used_max(capacity);
        if writer.live + writer.deleted > used_max {
            return Err(Damage::Field("fill of a shard"));
        }
        Ok(Self::with_writer(sizing, writer, used_max))
    }

    /// The current table. The guard keeps it alive, and it stays correct for the look-up that
    /// loaded it.
    #[inline]
    pub(super) fn table(&self) -> Guard<Arc<Table>> {
        self.table.load()
    }

    /// The current table, with a reference to keep.
    pub(super) fn table_to_keep(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Has the processor load what is changed with any slot.
    #[inline]
    pub(super) fn prefetch(&self) {
        prefetch_to_change(&self.writer);
    }

    /// Has the processor load the slot that a probe for this tag begins with.
    #[inline]
    pub(super) fn prefetch_slot(&self, tag: Tag) {
        let home = tag.home(self.capacity.load(Ordering::Relaxed));
        let slots_at = self.slots_at.load(Ordering::Relaxed);
        prefetch_address_to_change(slots_at + home * Table::SLOT_BYTES);
    }

    /// The number of entries.
    pub(super) fn live(&self) -> u64 {
        self.write().live as u64
    }

    /// The bytes of memory held by the shard; the shared table without slots is not counted.
    pub(super) fn memory_bytes(&self) -> usize {
        let table = self.table();
        // An `Arc` stores two counts before its value.
        let header = if table.capacity() == 0 {
            0
        } else {
            2 * size_of::<usize>() + size_of::<Table>()
        };
        size_of::<Self>() + header + table.memory_bytes()
    }

    /// Whether this many entries can be added, if no other thread adds any. Takes the mutex only if
    /// the table has, or might need, its maximum size.
    #[inline]
    pub(super) fn has_room(&self, entries: usize) -> bool {
        let live_max = self.sizing.live_max();
        let entries = entries + self.promised.load(Ordering::Acquire);
        self.used_max.load(Ordering::Acquire) + entries <= live_max || self.write().live + entries <= live_max
    }

    /// Keeps room for this many entries.
    pub(super) fn promise(&self, entries: usize) {
        self.promised.fetch_add(entries, Ordering::AcqRel);
    }

    /// Ends a promise.
    pub(super) fn redeem(&self, entries: usize) {
        self.promised.fetch_sub(entries, Ordering::AcqRel);
    }

    /// Adds an entry that is absent.
    #[inline]
    pub(super) fn insert(&self, slot: Slot) -> Result<(), Full> {
        let mut writer = self.write();
        if writer.live >= self.sizing.live_max() {
            return Err(Full);
        }
        self.add(&mut writer, slot);
        Ok(())
    }

    /// Stores `new` over `old`; false if `old` is not there.
    pub(super) fn replace(&self, old: Slot, new: Slot) -> bool {
        self.write().table.replace(old, new)
    }

    /// Removes an entry, and tells how full the table is then; None if the entry is not there.
    pub(super) fn remove(&self, slot: Slot) -> Option<Fill> {
        let mut writer = self.write();
        match writer.table.remove(slot)? {
            Removed::Marked => writer.deleted += 1,
            Removed::Cleared(marks) => writer.deleted -= marks,
        }
        writer.live -= 1;
        writer.removed += 1;
        // A quarter must also have been removed, or a table presized for opening a store would
        // shrink at the first removal.
        let capacity = writer.table.capacity();
        let quarter = capacity / 4;
        if writer.live < quarter && writer.removed >= quarter {
            let enough = self.sizing.capacity_for(writer.live);
            if enough < capacity {
                self.rebuild(&mut writer, enough);
                return Some(Fill::Enough);
            }
        }
        Some(match self.sizing.is_loose(capacity, writer.live) {
            true => Fill::Loose,
            false => Fill::Enough,
        })
    }

    /// Makes a loose table smaller.
    pub(super) fn shrink(&self) {
        let mut writer = self.write();
        if self.sizing.is_loose(writer.table.capacity(), writer.live) {
            let capacity = self.sizing.capacity_for(writer.live);
            self.rebuild(&mut writer, capacity);
        }
    }

    /// Adds an entry, replaces an older one of its key, or keeps a newer one. Not bounded by
    /// [`Sizing::live_max`].
    pub(super) fn upsert<E>(
        &self,
        slot: Slot,
        mut relation: impl FnMut(Location) -> Result<Relation, E>,
    ) -> Result<Upsert, E> {
        let mut writer = self.write();
        let table = &writer.table;
        for standing in table.candidates(slot.tag()) {
            match relation(standing)? {
                Relation::OtherKey => {}
                Relation::SameKeyNewer => return Ok(Upsert::Kept(standing)),
                Relation::SameKeyOlder => {
                    let replaced = table.replace(Slot::new(slot.tag(), standing), slot);
                    debug_assert!(replaced, "no other writer holds the mutex");
                    return Ok(Upsert::Replaced(standing));
                }
            }
        }
        self.add(&mut writer, slot);
        Ok(Upsert::Inserted)
    }

    /// Adds an entry that is absent, after making room for it.
    #[inline]
    fn add(&self, writer: &mut Writer, slot: Slot) {
        if writer.live + writer.deleted + 1 > self.used_max.load(Ordering::Relaxed) {
            // The new capacity depends on the live entries alone: if DELETED slots filled the
            // table, it may stay the same or shrink.
            self.rebuild(writer, self.sizing.capacity_for(writer.live + 1));
        }
        let placed = writer.table.place(slot);
        debug_assert!(placed.is_some(), "`used_max` is below the capacity");
        if placed == Some(Slot::DELETED) {
            writer.deleted -= 1;
        }
        writer.live += 1;
    }

    /// Publishes a table of this capacity with the entries of the current one. Readers that hold
    /// the current one keep it, and the last of them frees it.
    #[cold]
    fn rebuild(&self, writer: &mut Writer, capacity: usize) {
        writer.table = Arc::new(writer.table.rebuilt(capacity));
        self.table.store(writer.table.clone());
        self.slots_at.store(writer.table.address(), Ordering::Relaxed);
        self.capacity.store(capacity, Ordering::Relaxed);
        self.used_max.store(self.sizing.used_max(capacity), Ordering::Release);
        writer.deleted = 0;
        writer.removed = 0;
    }

    /// Takes the mutex. Poisoning is ignored: only the callback of `upsert` can panic under it, and
    /// that runs before anything is changed.
    #[inline]
    fn write(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Shard {
    /// Checks the counts against the table, and the table's own rules.
    pub(super) fn check(&self) {
        let writer = self.write();
        let table = &writer.table;
        assert!(Arc::ptr_eq(table, &self.table()), "readers and writers use the same");
        let prefetched = (
            self.slots_at.load(Ordering::Relaxed),
            self.capacity.load(Ordering::Relaxed),
        );
        assert_eq!(prefetched, (table.address(), table.capacity()));
        assert_eq!(
            table.check(),
            (writer.live, writer.deleted),
            "live and deleted as counted"
        );
        assert!(
            writer.live + writer.deleted <= self.sizing.used_max(table.capacity()),
            "some slots are EMPTY"
        );
    }
}
