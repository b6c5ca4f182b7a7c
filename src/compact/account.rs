//! The account of disk space: what is live, what may not go yet and why, and what is waste.
//!
//! The bound: after each step of maintenance the sealed segments take at most the waste ceiling
//! times the live bytes, plus what may not go yet ([`Held`]), plus one segment. So waste that
//! cannot be dropped at once is counted too: tombstones that a dead put in an old segment holds
//! there are waste, and compacting that old segment frees them.

/// Bytes per record in a hint.
const HINT_RECORD_BYTES: u64 = 3;

/// Everything that decides whether a segment is compacted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    /// On disk: the segment and its hint.
    pub(super) bytes: u64,
    pub(super) live_puts: u64,
    pub(super) live_bytes: u64,
    /// Dead puts that compacting the segment drops.
    pub(super) dead_bytes: u64,
    /// Dead puts that expired too recently to be dropped.
    pub(super) grace_bytes: u64,
    pub(super) tombstone_bytes: u64,
    /// It holds a dead put, or a tombstone.
    pub(super) is_wasteful: bool,
    pub(super) max_sequence: u64,
    /// Shadows up to this sequence hide nothing in it; None if no shadow does.
    pub(super) hides_up_to: Option<u64>,
    /// It no longer grows, and is not known to be damaged: it can be compacted.
    pub(super) is_sound: bool,
}

impl Facts {
    /// Whether compacting it ends what it hides.
    fn can_stop_hiding(&self) -> bool {
        self.is_sound && self.hides_up_to.is_some() && self.dead_bytes > 0
    }

    /// Bytes that compacting it writes, if its tombstones go.
    pub(super) fn copied_bytes(&self) -> u64 {
        self.live_bytes + self.grace_bytes
    }
}

/// Bytes that may not go yet, by what holds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Puts that expired within the grace period, and tombstones that may hide one of them.
    pub(crate) grace_bytes: u64,
    /// Tombstones that may hide a record of a damaged segment.
    pub(crate) damage_bytes: u64,
}

/// See the module.
pub(super) struct Account {
    pub(super) segments: Vec<Facts>,
    /// `hides_up_to` of each segment that has one, with the segment; lowest first.
    hiding: Vec<(u64, usize)>,
    /// The lowest of those that compaction cannot raise yet: all dead puts are within the grace
    /// period.
    grace_floor: u64,
    /// The lowest of those that compaction cannot raise at all.
    fixed_floor: u64,
    total_bytes: u64,
    live_bytes: u64,
    live_puts: u64,
    held: Held,
}

impl Account {
    pub(super) fn of(segments: Vec<Facts>) -> Account {
        let numbered = segments.iter().enumerate();
        let hiding = numbered.filter_map(|(index, facts)| Some((facts.hides_up_to?, index)));
        let mut hiding: Vec<_> = hiding.collect();
        hiding.sort_unstable();
        let lowest = |of: &dyn Fn(&Facts) -> bool| {
            let floors = segments.iter().filter(|facts| of(facts));
            floors.filter_map(|facts| facts.hides_up_to).min().unwrap_or(u64::MAX)
        };
        let grace_floor = lowest(&|facts| facts.is_sound && facts.dead_bytes == 0);
        let fixed_floor = lowest(&|facts| !facts.is_sound);
        let sound = || segments.iter().filter(|facts| facts.is_sound);
        let sum = |number: &dyn Fn(&Facts) -> u64| sound().map(number).sum::<u64>();
        let above = |floor: u64| move |facts: &Facts| facts.tombstone_bytes * u64::from(facts.max_sequence > floor);
        let damage_bytes = sum(&above(fixed_floor));
        let held_in_all = sum(&above(fixed_floor.min(grace_floor)));
        Account {
            hiding,
            grace_floor,
            fixed_floor,
            total_bytes: sum(&|facts| facts.bytes),
            live_bytes: sum(&|facts| facts.live_bytes),
            live_puts: sum(&|facts| facts.live_puts),
            held: Held {
                grace_bytes: sum(&|facts| facts.grace_bytes) + held_in_all - damage_bytes,
                damage_bytes,
            },
            segments,
        }
    }

    pub(super) fn held(&self) -> Held {
        self.held
    }

    /// Bytes above this many for each live byte, above what is held, and above one segment. Hints
    /// count; with values so small that those of live records alone would exceed the ceiling, half
    /// of what it allows is left for waste.
    pub(super) fn excess(&self, ceiling: f64, segment_bytes: u64) -> u64 {
        let live = self.live_bytes as f64;
        let with_hints = live + (HINT_RECORD_BYTES * self.live_puts) as f64;
        let allowed = (live * ceiling).max(with_hints * (1.0 + ceiling) / 2.0) as u64;
        let held = self.held.grace_bytes + self.held.damage_bytes;
        self.total_bytes.saturating_sub(allowed + held + segment_bytes)
    }

    /// Whether no other segment has a record that a shadow in this one may hide.
    fn hides_nothing_elsewhere(&self, index: usize, facts: &Facts) -> bool {
        let elsewhere = self.hiding.iter().find(|(_, other)| *other != index);
        elsewhere.is_none_or(|(floor, _)| *floor >= facts.max_sequence)
    }

    /// Bytes that compacting this segment alone reclaims.
    pub(super) fn gain(&self, index: usize, facts: &Facts) -> u64 {
        let tombstones_go = facts.tombstone_bytes > 0 && self.hides_nothing_elsewhere(index, facts);
        facts.dead_bytes + facts.tombstone_bytes * u64::from(tombstones_go)
    }

    /// The segments to compact, in this order, so that tombstones elsewhere no longer hide anything
    /// in them; with the bytes that are copied up to each, and those reclaimed, with the
    /// tombstones. Only those that pay: the way to the best ratio of the two.
    pub(super) fn unpinning(&self) -> Vec<Unpinning> {
        let held_by = |index: &usize| self.segments.get(*index).is_some_and(Facts::can_stop_hiding);
        let pins: Vec<_> = self.hiding.iter().filter(|(_, index)| held_by(index)).collect();
        let numbered = self.segments.iter().enumerate();
        let pinned = numbered.filter(|(index, facts)| {
            facts.is_sound && facts.tombstone_bytes > 0 && !self.hides_nothing_elsewhere(*index, facts)
        });
        let mut pinned: Vec<_> = pinned
            .map(|(_, facts)| (facts.max_sequence, facts.tombstone_bytes))
            .collect();
        pinned.sort_unstable();
        let mut pinned = pinned.into_iter().peekable();
        let mut way = Vec::with_capacity(pins.len());
        let (mut copied_bytes, mut gain, mut freed) = (0, 0, 0);
        let (mut best, mut best_length) = (0.0, 0);
        for (number, (_, index)) in pins.iter().enumerate() {
            let Some(facts) = self.segments.get(*index) else {
                continue;
            };
            let next = pins.get(number + 1).map_or(u64::MAX, |(floor, _)| *floor);
            let floor = next.min(self.grace_floor).min(self.fixed_floor);
            while let Some((_, bytes)) = pinned.next_if(|(sequence, _)| *sequence <= floor) {
                freed += bytes;
            }
            copied_bytes += facts.copied_bytes();
            gain += facts.dead_bytes;
            way.push(Unpinning {
                index: *index,
                copied_bytes,
                gain: gain + freed,
            });
            let ratio = ratio(gain + freed, copied_bytes);
            if freed > 0 && ratio > best {
                (best, best_length) = (ratio, way.len());
            }
        }
        way.truncate(best_length);
        way
    }
}

/// A segment to compact, so that tombstones elsewhere no longer hide anything in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unpinning {
    pub(super) index: usize,
    /// Bytes copied and bytes reclaimed, up to this segment.
    pub(super) copied_bytes: u64,
    pub(super) gain: u64,
}

/// Bytes reclaimed for each byte copied.
pub(super) fn ratio(gain: u64, copied_bytes: u64) -> f64 {
    gain as f64 / copied_bytes.max(1) as f64
}

#[cfg(test)]
mod tests;
