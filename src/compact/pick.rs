//! Which segments are worth compacting.

use std::sync::Arc;

use super::Pace;
use crate::log::Engine;
use crate::planted::{Planted, planted};
use crate::segment::{Counts, SealedSegment, Segment};

/// Live bytes that one run copies at the most, in full segments.
const RUN_SEGMENTS_MAX: u64 = 4;
/// A forced run takes at most so many bytes at once, since the decisions are kept in memory.
const FORCED_RUN_BYTES_MAX: u64 = 1 << 30;
/// So many small segments are merged into one.
const SMALL_SEGMENTS_MAX: usize = 8;
/// Waste beyond the ceiling, in the same unit, from which on the rate limit does not hold.
const OVERDUE: f64 = 1.25;

/// What to compact next.
pub(super) struct Pick {
    pub(super) inputs: Vec<SealedSegment>,
    pub(super) pace: Pace,
}

/// A segment that may be compacted.
struct Candidate {
    segment: SealedSegment,
    bytes: u64,
    counts: Counts,
    /// Bytes that compacting it gives back.
    gain: u64,
}

impl Engine {
    /// Sealed segments without known damage, oldest data first.
    fn candidates(&self) -> Vec<Candidate> {
        let all = self.segments.all();
        let horizon = self.time.drop_horizon(self.grace_ms());
        let floor_beside = shadow_floors(&all);
        let mut candidates: Vec<_> = all
            .iter()
            .filter(|segment| !self.is_left_out(segment.id()))
            .filter_map(|segment| SealedSegment::of(segment.clone()))
            .map(|segment| {
                let (summary, counts) = (segment.summary(), segment.counters.get());
                let shadows_can_go = floor_beside(segment.id()) >= summary.max_sequence;
                let tombstones = if shadows_can_go { 0 } else { counts.tombstone_bytes };
                // What expired not long ago, or would not have expired by the clock as it is now, is copied. Were it counted as
                // gain, the segment would be picked again and again.
                let expired = match horizon {
                    _ if planted(Planted::PickWhatStays) => 0,
                    Some(horizon) => segment.counters.expired_after(horizon),
                    None => counts.expired_bytes,
                };
                let kept = counts.live_bytes + tombstones + expired;
                Candidate {
                    bytes: summary.data_end,
                    counts,
                    gain: summary.data_end.saturating_sub(kept),
                    segment,
                }
            })
            .collect();
        candidates.sort_by_key(|candidate| candidate.counts.min_sequence);
        candidates
    }

    pub(super) fn pick(&self) -> Option<Pick> {
        let candidates = self.candidates();
        let take = |chosen: Vec<&Candidate>, pace| {
            let inputs: Vec<_> = chosen.into_iter().map(|candidate| candidate.segment.clone()).collect();
            (!inputs.is_empty()).then_some(Pick { inputs, pace })
        };
        // Nothing live: space for nothing.
        let free = candidates
            .iter()
            .filter(|candidate| candidate.counts.live_puts == 0 && candidate.gain > candidate.bytes / 2);
        if let Some(pick) = take(free.collect(), Pace::Hurried) {
            return Some(pick);
        }
        let small = |candidate: &&Candidate| candidate.bytes < self.options.segment_bytes / 4;
        if candidates.iter().filter(small).count() >= SMALL_SEGMENTS_MAX {
            return take(candidates.iter().filter(small).collect(), Pace::Throttled);
        }
        let total: u64 = candidates.iter().map(|candidate| candidate.bytes).sum();
        let live: u64 = candidates.iter().map(|candidate| candidate.counts.live_bytes).sum();
        // Within one segment of waste there is nothing that could be gained by copying.
        let ratio = total.saturating_sub(self.options.segment_bytes) as f64 / live.max(1) as f64;
        if ratio <= self.options.waste_ceiling {
            return None;
        }
        let overdue = ratio > self.options.waste_ceiling * OVERDUE;
        let pace = if overdue { Pace::Hurried } else { Pace::Throttled };
        let mut by_gain: Vec<_> = candidates
            .iter()
            .filter(|candidate| candidate.gain > candidate.bytes / 8)
            .collect();
        by_gain.sort_by(|a, b| {
            let share = |candidate: &Candidate| candidate.gain as f64 / candidate.bytes.max(1) as f64;
            share(b).total_cmp(&share(a))
        });
        let budget = self.options.segment_bytes * RUN_SEGMENTS_MAX;
        let mut copied = 0;
        let chosen: Vec<_> = by_gain
            .into_iter()
            .take_while(|candidate| {
                let first = copied == 0;
                copied += candidate.counts.live_bytes + 1;
                first || copied <= budget
            })
            .take(RUN_SEGMENTS_MAX as usize * 2)
            .collect();
        take(chosen, pace)
    }

    /// Everything that has waste in it or is small, in groups of bounded size, oldest first.
    pub(super) fn pick_all(&self) -> Vec<Vec<SealedSegment>> {
        let candidates = self.candidates();
        let overhead = 4096;
        let small = |candidate: &Candidate| candidate.bytes < self.options.segment_bytes / 2;
        let several_small = candidates.iter().filter(|candidate| small(candidate)).count() > 1;
        let mut groups: Vec<Vec<SealedSegment>> = Vec::new();
        let mut bytes = 0;
        for candidate in candidates {
            let wasteful = candidate.counts.is_wasteful() || candidate.gain > overhead + candidate.bytes / 20;
            if !(wasteful || several_small && small(&candidate)) {
                continue;
            }
            bytes += candidate.bytes;
            match groups.last_mut() {
                Some(group) if bytes <= FORCED_RUN_BYTES_MAX => group.push(candidate.segment),
                _ => {
                    bytes = candidate.bytes;
                    groups.push(vec![candidate.segment]);
                }
            }
        }
        groups
    }

    pub(crate) fn grace_ms(&self) -> u64 {
        self.options.expiry_grace.as_millis().try_into().unwrap_or(u64::MAX)
    }
}

/// The sequence up to which shadows hide nothing in any of these segments: the lowest that any of them holds beside
/// a put that is not live.
pub(super) fn shadow_floor<'a>(others: impl Iterator<Item = &'a Arc<Segment>>) -> u64 {
    others.filter_map(lowest_hidden).min().unwrap_or(u64::MAX)
}

/// For the id of each of these segments the [`shadow_floor`] of all the others. Asking looks at two of them at the most.
fn shadow_floors(all: &[Arc<Segment>]) -> impl Fn(u64) -> u64 {
    let with_id = |segment| lowest_hidden(segment).map(|lowest| (lowest, segment.id()));
    let mut floors: Vec<_> = all.iter().filter_map(with_id).collect();
    floors.sort_unstable();
    move |id| {
        let of_another = floors.iter().find(|(_, other)| *other != id);
        of_another.map_or(u64::MAX, |(lowest, _)| *lowest)
    }
}

/// The lowest sequence in a segment that holds a put that is not live.
fn lowest_hidden(segment: &Arc<Segment>) -> Option<u64> {
    let counts = segment.counters.get();
    (counts.dead_puts() > 0).then_some(counts.min_sequence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemStorage;
    use crate::{Maintenance, Store};

    /// C17
    #[test]
    fn the_floor_beside_each_segment_is_found_without_going_through_all_others() {
        let store = Store::options()
            .maintenance(Maintenance::Manual)
            .storage(Arc::new(MemStorage::new()))
            .open("/store")
            .unwrap();
        let (namespace, engine) = (store.namespace("N").unwrap(), store.engine());
        let mut floors_seen = std::collections::BTreeSet::new();
        for n in 0..8 {
            let all = engine.segments.all();
            let floor_beside = shadow_floors(&all);
            for segment in &all {
                let others = all.iter().filter(|other| other.id() != segment.id());
                let floor = floor_beside(segment.id());
                assert_eq!(floor, shadow_floor(others), "segment {} of {n}", segment.id());
                floors_seen.insert(floor);
            }
            namespace.put(format!("{n}"), "1").unwrap();
            namespace.put("once more", "1").unwrap();
            if n > 3 {
                namespace.put(format!("{}", n - 3), "2").unwrap();
            }
            engine.retire_active().unwrap();
            engine.seal_all().unwrap();
        }
        assert!(floors_seen.len() > 2, "{floors_seen:?}");
    }
}
