//! The slots of one shard: an open-addressed table, read without a lock while one writer changes
//! it.
//!
//! Methods that change a table are called under the mutex of its shard, or before the table is
//! published.

use super::{Location, Slot, Tag};
use crate::prefetch::prefetch_to_change;
use crate::sync::{AtomicU64, Ordering};

/// A table of a fixed number of slots; the docs of the parent module state the rules by which they
/// change.
pub(super) struct Table {
    slots: Box<[AtomicU64]>,
}

/// What [`Table::remove`] did to the number of DELETED slots.
pub(super) enum Removed {
    /// The slot became DELETED.
    Marked,
    /// The slot became EMPTY, and so did this number of DELETED slots before it.
    Cleared(usize),
}

impl Table {
    pub(super) const SLOT_BYTES: usize = size_of::<AtomicU64>();

    /// A table of `capacity` EMPTY slots.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            slots: (0..capacity).map(|_| AtomicU64::new(Slot::EMPTY.bits())).collect(),
        }
    }

    /// A table of these slots, in memory order.
    pub(super) fn of_slots(slots: impl Iterator<Item = Slot>) -> Self {
        Self {
            slots: slots.map(|slot| AtomicU64::new(slot.bits())).collect(),
        }
    }

    /// A table of `capacity` slots with the entries of this one and no DELETED slots. The capacity
    /// must exceed the number of entries.
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

    /// The address of the first slot.
    pub(super) fn address(&self) -> usize {
        self.slots.as_ptr().addr()
    }

    /// The bytes of memory held by the slots.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }

    /// All slots, marks included, in memory order.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.slots.iter().map(load)
    }

    /// The locations of the entries with this tag, in probe order.
    #[inline]
    pub(super) fn candidates(&self, tag: Tag) -> impl Iterator<Item = Location> {
        // A DELETED slot looks like tag 0, but has no location.
        self.chain(tag)
            .filter(move |(_, slot)| slot.tag() == tag)
            .filter_map(|(_, slot)| slot.location())
    }

    /// The first of the [`Table::candidates`].
    #[inline]
    pub(super) fn first(&self, tag: Tag) -> Option<Location> {
        let home = tag.home(self.capacity());
        let mut at = home;
        // Not by the iterator: this takes half as many instructions, in every look-up.
        loop {
            let slot = load(self.slots.get(at)?);
            if slot == Slot::EMPTY {
                return None;
            }
            if slot.tag() == tag
                && let Some(location) = slot.location()
            {
                return Some(location);
            }
            at += 1;
            if at == self.capacity() {
                at = 0;
            }
            if at == home {
                return None;
            }
        }
    }

    /// Loads the first slot of a tag's probe, only to bring it into the processor's cache.
    pub(super) fn touch(&self, tag: Tag) -> u64 {
        let home = self.slots.get(tag.home(self.capacity()));
        home.map_or(0, |cell| cell.load(Ordering::Acquire))
    }

    /// As [`Table::touch`], without waiting for it.
    #[inline]
    pub(super) fn prefetch(&self, tag: Tag) {
        if let Some(home) = self.slots.get(tag.home(self.capacity())) {
            prefetch_to_change(home);
        }
    }

    /// Stores an absent entry in the first free slot of its probe. Returns the slot's previous
    /// content, EMPTY or DELETED, or None if the table is full.
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

    /// Removes an entry; None if it is not there.
    ///
    /// If the next slot is EMPTY, no probe needs to pass this one, nor the DELETED ones right
    /// before it, so all of them become EMPTY: a chain never ends in DELETED slots. They are
    /// cleared from last to first, since a slot may become EMPTY only after its successor.
    pub(super) fn remove(&self, slot: Slot) -> Option<Removed> {
        let distance = self.chain(slot.tag()).position(|(_, standing)| standing == slot)?;
        let capacity = self.capacity();
        let at = (slot.tag().home(capacity) + distance) % capacity;
        // The remainder keeps `at` below the capacity, which is not zero because an entry was
        // found.
        let (before, from) = self.slots.split_at(at);
        let (cell, behind) = from.split_first()?;
        let next = behind.first().or(before.first());
        if next.is_none_or(|next| load(next) != Slot::EMPTY) {
            store(cell, Slot::DELETED);
            return Some(Removed::Marked);
        }
        store(cell, Slot::EMPTY);
        // Backwards from the previous slot, wrapping around the start of the table; ends at the
        // latest at this slot, now EMPTY.
        let marks = before
            .iter()
            .rev()
            .chain(from.iter().rev())
            .take_while(|cell| load(cell) == Slot::DELETED);
        Some(Removed::Cleared(marks.inspect(|cell| store(cell, Slot::EMPTY)).count()))
    }

    /// The slots on the probe for this tag, with their content, up to the first EMPTY one.
    fn chain(&self, tag: Tag) -> impl Iterator<Item = (&AtomicU64, Slot)> {
        self.probe(tag)
            .map(|cell| (cell, load(cell)))
            .take_while(|(_, slot)| *slot != Slot::EMPTY)
    }

    /// All slots, each once, from the tag's home to the end and then from the beginning, so a probe
    /// ends however the table changes meanwhile.
    fn probe(&self, tag: Tag) -> impl Iterator<Item = &AtomicU64> {
        // A home is below the capacity, or 0 if the capacity is 0, so the split is in bounds.
        let (before, from_home) = self.slots.split_at(tag.home(self.capacity()));
        from_home.iter().chain(before)
    }
}

/// Reads a slot. Acquire: a reader that sees a location also sees the record it points to and
/// everything its writer did before.
fn load(cell: &AtomicU64) -> Slot {
    Slot::from_bits(cell.load(Ordering::Acquire))
}

/// Writes a slot; Release, the counterpart of [`load`].
fn store(cell: &AtomicU64, slot: Slot) {
    cell.store(slot.bits(), Ordering::Release);
}

#[cfg(test)]
impl Table {
    /// Checks the rule that look-ups rely on, that no slot between an entry and its home is EMPTY.
    /// Returns the numbers of live and DELETED slots.
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
