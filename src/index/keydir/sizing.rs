//! Table sizes of shards.

#[cfg(test)]
thread_local! {
    /// Maximum table size of keydirs created by this thread, for tests that fill the keydir of a
    /// store.
    pub(crate) static CAPACITY_MAX: std::cell::Cell<u32> = const { std::cell::Cell::new(Sizing::CAPACITY_MAX) };
}

/// The sizes that one shard's table may take.
///
/// Memory per key is 8 bytes divided by the load, and probes lengthen with the load: looking up an
/// absent key takes about 5 steps at 0.66 and 32 at 7/8. These numbers keep both small, and leave
/// at least about 1/6 of the slots to fill before the next rebuild, so that inserting is amortised
/// O(1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizing {
    /// Load of a table just rebuilt, in thousandths.
    load_permille: u16,
    /// The smallest table that has slots at all.
    capacity_min: u32,
    /// The largest table, except for a shard that has more than [`Sizing::live_max`] entries.
    capacity_max: u32,
}

impl Sizing {
    /// Load of the first shard after a rebuild, in thousandths.
    const LOAD_PERMILLE_MIN: u16 = 620;

    /// Range over which the load increases from the first shard to the last.
    const LOAD_PERMILLE_SPAN: u16 = 80;

    /// The smallest table: one cache line. Under shuttle smaller, so that few steps reach a
    /// rebuild.
    const CAPACITY_MIN: u32 = if cfg!(shuttle) { 4 } else { 8 };

    /// The largest table: one slot per tag. In a larger one, most look-ups would have to confirm
    /// other keys.
    const CAPACITY_MAX: u32 = 1 << 22;

    /// The sizes for shard `index` of `shards`. Loads are spread evenly, because a well-mixed hash
    /// makes shards nearly equal in size and all of them would otherwise be rebuilt within a few
    /// writes.
    pub(super) fn of_shard(index: usize, shards: usize) -> Self {
        let span = usize::from(Self::LOAD_PERMILLE_SPAN) * index / shards;
        Self {
            // The span is at most 80, so the cast is lossless.
            load_permille: Self::LOAD_PERMILLE_MIN + span as u16,
            capacity_min: Self::CAPACITY_MIN,
            #[cfg(not(test))]
            capacity_max: Self::CAPACITY_MAX,
            #[cfg(test)]
            capacity_max: CAPACITY_MAX.get(),
        }
    }

    /// The same sizes with a lower limit, for tests that fill a table.
    #[cfg(all(test, not(shuttle)))]
    pub(super) fn with_capacity_max(self, capacity_max: u32) -> Self {
        Self { capacity_max, ..self }
    }

    /// The capacity of a table rebuilt for this many entries.
    pub(super) fn capacity_for(self, live: usize) -> usize {
        let wanted = live.saturating_mul(1000).div_ceil(usize::from(self.load_permille));
        if live > self.live_max() {
            // Only while a store is being opened, or if it has more keys than fit. Tags then
            // collide more often.
            return wanted;
        }
        wanted.clamp(self.capacity_min as usize, self.capacity_max as usize)
    }

    /// Whether a table of this capacity is more than half again as large as one rebuilt for this
    /// many entries.
    pub(super) fn is_loose(self, capacity: usize, live: usize) -> bool {
        let wanted = self.capacity_for(live);
        capacity > wanted + wanted / 2
    }

    /// Maximum number of non-EMPTY slots in a table: 7/8, or 15/16 of the largest table.
    ///
    /// The largest gets more because it cannot grow: the 1/16 above [`Self::live_max`] can fill
    /// with DELETED slots before a rebuild has to clear them. Always below the capacity, so that
    /// probes end at an EMPTY slot.
    pub(super) fn used_max(self, capacity: usize) -> usize {
        let spare = if capacity < self.capacity_max as usize { 8 } else { 16 };
        capacity - capacity.div_ceil(spare)
    }

    /// Maximum number of entries in a shard: 7/8 of the largest table. Opening a store may exceed
    /// it; the shard then accepts no insertions.
    pub(super) fn live_max(self) -> usize {
        let capacity_max = self.capacity_max as usize;
        capacity_max - capacity_max.div_ceil(8)
    }
}
