//! How large a shard's table is.

#[cfg(test)]
thread_local! {
    /// The largest table of keydirs that this thread makes, for tests that fill a store's.
    pub(crate) static CAPACITY_MAX: std::cell::Cell<u32> = const { std::cell::Cell::new(Sizing::CAPACITY_MAX) };
}

/// The sizes that one shard's table may take.
///
/// Memory is 8 bytes divided by the load, and the steps of a probe grow with the load: a key that
/// is absent takes about 5 steps at 0.66 and 32 at 7/8. These numbers keep both small, and leave
/// about 1/6 of the slots or more to be used before the next rebuild, so that inserting stays
/// constant on average.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizing {
    /// Entries in a thousand slots of a table just rebuilt.
    load_permille: u16,
    /// The smallest table that has slots at all.
    capacity_min: u32,
    /// The largest table, but for a shard that has more than [`Sizing::live_max`] entries.
    capacity_max: u32,
}

impl Sizing {
    /// Load of the first shard after a rebuild, in thousandths.
    const LOAD_PERMILLE_MIN: u16 = 620;

    /// What is added to it, from the first shard to the last.
    const LOAD_PERMILLE_SPAN: u16 = 80;

    /// The smallest table: one cache line. Under shuttle smaller, so that few steps reach a
    /// rebuild.
    const CAPACITY_MIN: u32 = if cfg!(shuttle) { 4 } else { 8 };

    /// The largest table: one slot for each tag. Beyond it most look-ups would have to confirm keys
    /// of others.
    const CAPACITY_MAX: u32 = 1 << 22;

    /// The sizes for the shard with this index of so many. Loads are spread evenly, because shards
    /// of a well-mixed hash are of nearly equal size and would otherwise all be rebuilt within
    /// few writes.
    pub(super) fn of_shard(index: usize, shards: usize) -> Self {
        let span = usize::from(Self::LOAD_PERMILLE_SPAN) * index / shards;
        Self {
            // The span is at most 80, so nothing is cut off.
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

    /// The capacity of a table rebuilt for so many entries.
    pub(super) fn capacity_for(self, live: usize) -> usize {
        let wanted = live.saturating_mul(1000).div_ceil(usize::from(self.load_permille));
        if live > self.live_max() {
            // Only while a store is opened, or if it has more keys than fit: its tags collide more then.
            return wanted;
        }
        wanted.clamp(self.capacity_min as usize, self.capacity_max as usize)
    }

    /// How many slots of a table may be other than EMPTY: 7/8, and 15/16 of the largest table.
    ///
    /// The largest is given more because it cannot grow: the 1/16 above [`Self::live_max`] fills up
    /// with DELETED marks before a rebuild has to clear them. Always below the capacity, so
    /// that probes end at an EMPTY slot.
    pub(super) fn used_max(self, capacity: usize) -> usize {
        let spare = if capacity < self.capacity_max as usize { 8 } else { 16 };
        capacity - capacity.div_ceil(spare)
    }

    /// How many entries a shard may have: 7/8 of the largest table. Opening a store may leave it
    /// with more, and takes no more then.
    pub(super) fn live_max(self) -> usize {
        let capacity_max = self.capacity_max as usize;
        capacity_max - capacity_max.div_ceil(8)
    }
}
