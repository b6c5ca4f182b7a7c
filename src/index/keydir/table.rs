//! The slots of one shard: an open-addressed table that is read without a lock while one writer
//! changes it.
//!
//! The methods that change a table are called under the mutex of its shard, or before the table is
//! published.

use super::{Location, Slot, Tag};
use crate::sync::{AtomicU64, Ordering};

/// A table of a fixed number of slots; the module above says by which rules they change.
pub(super) struct Table {
    slots: Box<[AtomicU64]>,
}

/// What [`Table::remove`] did to the number of DELETED slots.
pub(super) enum Removed {
    /// The slot became DELETED: one more.
    Marked,
    /// The slot became EMPTY, and so did this number of DELETED ones before it.
    Cleared(usize),
}

impl Table {
    /// A table of so many EMPTY slots.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            slots: (0..capacity).map(|_| AtomicU64::new(Slot::EMPTY.bits())).collect(),
        }
    }

    /// A table of these slots, in the order of memory.
    pub(super) fn of_slots(slots: impl Iterator<Item = Slot>) -> Self {
        Self {
            slots: slots.map(|slot| AtomicU64::new(slot.bits())).collect(),
        }
    }

    /// A table of so many slots with the entries of this one and none of its DELETED marks. The
    /// capacity must exceed the number of entries.
    pub(super) fn rebuilt(&self, capacity: usize) -> Self {
        let table = Self::new(capacity);
        for slot in self.slots().filter(|slot| slot.location().is_some()) {
            let placed = table.place(slot);
            debug_assert!(placed.is_some(), "a rebuilt table has room for every entry");
        }
        table
    }

    /// The number of slots.
    pub(super) fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// The bytes of memory held by the slots.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }

    /// Everything in the table, marks included, in the order of memory.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.slots.iter().map(load)
    }

    /// The locations of the entries with this tag, in the order of its probe.
    pub(super) fn candidates(&self, tag: Tag) -> impl Iterator<Item = Location> {
        // A DELETED slot looks like tag 0, but has no location.
        self.chain(tag)
            .filter(move |(_, slot)| slot.tag() == tag)
            .filter_map(|(_, slot)| slot.location())
    }

    /// Loads the first slot of a tag's probe, for nothing but to have it in the processor's cache.
    pub(super) fn touch(&self, tag: Tag) -> u64 {
        let home = self.slots.get(tag.home(self.capacity()));
        home.map_or(0, |cell| cell.load(Ordering::Acquire))
    }

    /// Puts an entry that is absent into the first free slot of its probe. Answers what stood
    /// there, EMPTY or DELETED, or none if the table is full.
    pub(super) fn place(&self, slot: Slot) -> Option<Slot> {
        let (cell, free) = self
            .probe(slot.tag())
            .map(|cell| (cell, load(cell)))
            .find(|(_, standing)| standing.location().is_none())?;
        store(cell, slot);
        Some(free)
    }

    /// Stores `new` over `old`, which has the same tag; false if `old` is not there.
    pub(super) fn replace(&self, old: Slot, new: Slot) -> bool {
        let Some((cell, _)) = self.chain(old.tag()).find(|(_, standing)| *standing == old) else {
            return false;
        };
        store(cell, new);
        true
    }

    /// Takes an entry out; none if it is not there.
    ///
    /// If the next slot is EMPTY no probe needs to pass this one, nor the DELETED ones right before
    /// it, so all of them become EMPTY: marks at the end of a chain cost nothing. They do so
    /// from the last to the first, since each may be EMPTY only once its follower is.
    pub(super) fn remove(&self, slot: Slot) -> Option<Removed> {
        let distance = self.chain(slot.tag()).position(|(_, standing)| standing == slot)?;
        let capacity = self.capacity();
        let at = (slot.tag().home(capacity) + distance) % capacity;
        // The remainder keeps it below the capacity, which is not zero because an entry was found.
        let (before, from) = self.slots.split_at(at);
        let (cell, behind) = from.split_first()?;
        let next = behind.first().or(before.first());
        if next.is_none_or(|next| load(next) != Slot::EMPTY) {
            store(cell, Slot::DELETED);
            return Some(Removed::Marked);
        }
        store(cell, Slot::EMPTY);
        // Backwards from the slot before, around the beginning of the table; it ends at this slot, now
        // EMPTY, at the latest.
        let marks = before
            .iter()
            .rev()
            .chain(from.iter().rev())
            .take_while(|cell| load(cell) == Slot::DELETED);
        Some(Removed::Cleared(marks.inspect(|cell| store(cell, Slot::EMPTY)).count()))
    }

    /// The slots that a probe for this tag sees and what they hold, up to the first EMPTY one.
    fn chain(&self, tag: Tag) -> impl Iterator<Item = (&AtomicU64, Slot)> {
        self.probe(tag)
            .map(|cell| (cell, load(cell)))
            .take_while(|(_, slot)| *slot != Slot::EMPTY)
    }

    /// All slots, each once, from the tag's home to the end and on from the beginning: however the
    /// table changes meanwhile, a probe ends.
    fn probe(&self, tag: Tag) -> impl Iterator<Item = &AtomicU64> {
        // A home is below the capacity, or 0 where the capacity is, so that the split is inside the slots.
        let (before, from_home) = self.slots.split_at(tag.home(self.capacity()));
        from_home.iter().chain(before)
    }
}

/// Reads a slot. Acquire: with a location come the record it points to and everything its writer
/// had done before.
fn load(cell: &AtomicU64) -> Slot {
    Slot::from_bits(cell.load(Ordering::Acquire))
}

/// Writes a slot; Release, the counterpart of [`load`].
fn store(cell: &AtomicU64, slot: Slot) {
    cell.store(slot.bits(), Ordering::Release);
}

#[cfg(test)]
impl Table {
    /// Checks the rule that look-ups rest on, that no EMPTY slot lies between an entry and its
    /// home; counts live and DELETED.
    pub(super) fn check(&self) -> (usize, usize) {
        let entries: Vec<_> = self.slots().filter(|slot| slot.location().is_some()).collect();
        for slot in &entries {
            let found = self.chain(slot.tag()).filter(|(_, standing)| standing == slot).count();
            assert_eq!(found, 1, "{slot:?} is reached by its probe exactly once");
        }
        (
            entries.len(),
            self.slots().filter(|slot| *slot == Slot::DELETED).count(),
        )
    }
}
