//! Which segments are worth compacting.

use std::sync::Arc;

use super::{Compactor, Pace};
use crate::planted::{Planted, planted};
use crate::segment::{SealedSegment, Segment};

/// Most live bytes that one run copies, in full segments.
const RUN_SEGMENTS_MAX: u64 = 4;
/// Most bytes of a forced run, since its decisions are kept in memory.
const FORCED_RUN_BYTES_MAX: u64 = 1 << 30;
/// Number of small segments at which they are merged.
const SMALL_SEGMENTS_MAX: usize = 8;
/// Factor above the waste ceiling at which the rate limit is lifted.
const OVERDUE: f64 = 1.25;

/// What to compact next in the background.
pub(super) struct Pick {
    pub(super) inputs: Vec<SealedSegment>,
    pub(super) pace: Pace,
}

/// A segment that may be compacted.
struct Candidate {
    segment: SealedSegment,
    facts: Facts,
}

/// Everything that decides whether a segment is compacted.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    bytes: u64,
    live_puts: u64,
    live_bytes: u64,
    /// Whether it holds a dead put, or a tombstone.
    is_wasteful: bool,
    /// Bytes that compacting it reclaims.
    gain: u64,
}

impl Compactor {
    /// Sealed segments without known damage.
    fn sound(&self, all: &[Arc<Segment>]) -> impl Iterator<Item = SealedSegment> {
        let sound = all.iter().filter(|segment| !self.is_left_out(segment.id()));
        sound.filter_map(|segment| SealedSegment::of(segment.clone()))
    }

    /// Sealed segments without known damage, oldest data first.
    fn candidates(&self) -> Vec<Candidate> {
        let all = self.state.segments.all();
        let horizon = self.context.time.drop_horizon(self.context.grace_ms());
        let floor_beside = shadow_floors(&all);
        let mut candidates: Vec<_> = self
            .sound(&all)
            .map(|segment| {
                let (summary, counts) = (segment.summary(), segment.counters.get());
                let shadows_can_go = floor_beside(segment.id()) >= summary.max_sequence;
                let tombstones = if shadows_can_go { 0 } else { counts.tombstone_bytes };
                // Records that expired recently, or are not expired by the current clock, are
                // copied. If they counted as gain, the segment would be picked again and again.
                let expired = match horizon {
                    _ if planted(Planted::PickWhatStays) => 0,
                    Some(horizon) => segment.counters.expired_after(horizon),
                    None => counts.expired_bytes,
                };
                let kept = counts.live_bytes + tombstones + expired;
                let facts = Facts {
                    bytes: summary.data_end,
                    live_puts: counts.live_puts,
                    live_bytes: counts.live_bytes,
                    is_wasteful: counts.is_wasteful(),
                    gain: summary.data_end.saturating_sub(kept),
                };
                (counts.min_sequence, Candidate { segment, facts })
            })
            .collect();
        candidates.sort_by_key(|(min_sequence, _)| *min_sequence);
        candidates.into_iter().map(|(_, candidate)| candidate).collect()
    }

    pub(super) fn pick(&self) -> Option<Pick> {
        let candidates = self.candidates();
        let facts: Vec<_> = candidates.iter().map(|candidate| candidate.facts).collect();
        let (chosen, pace) = choose(
            &facts,
            self.context.options.segment_bytes,
            self.context.options.waste_ceiling,
        )?;
        let inputs = segments_at(&candidates, &chosen);
        Some(Pick { inputs, pace })
    }

    /// All segments that have waste or are small, in groups of bounded size, oldest first.
    pub(super) fn pick_all(&self) -> Vec<Vec<SealedSegment>> {
        let candidates = self.candidates();
        let facts: Vec<_> = candidates.iter().map(|candidate| candidate.facts).collect();
        let groups = choose_all(&facts, self.context.options.segment_bytes);
        groups.iter().map(|group| segments_at(&candidates, group)).collect()
    }

    /// Whether waste is so far above its ceiling that the rate limit is lifted.
    pub(super) fn is_overdue(&self) -> bool {
        let all = self.state.segments.all();
        let bytes = self.sound(&all).map(|segment| {
            let live_bytes = segment.counters.get().live_bytes;
            (segment.summary().data_end, live_bytes)
        });
        waste_ratio(bytes, self.context.options.segment_bytes) > self.context.options.waste_ceiling * OVERDUE
    }
}

fn segments_at(candidates: &[Candidate], indexes: &[usize]) -> Vec<SealedSegment> {
    let chosen = indexes.iter().filter_map(|index| candidates.get(*index));
    chosen.map(|candidate| candidate.segment.clone()).collect()
}

/// Bytes on disk per live byte, over segments given as (bytes, live bytes). One segment's worth of
/// waste is ignored: copying could not reclaim it.
fn waste_ratio(segments: impl Iterator<Item = (u64, u64)>, segment_bytes: u64) -> f64 {
    let (total, live) = segments.fold((0u64, 0u64), |(total, live), (bytes, live_bytes)| {
        (total + bytes, live + live_bytes)
    });
    total.saturating_sub(segment_bytes) as f64 / live.max(1) as f64
}

/// Which of these segments, given oldest data first, one background run takes, in the same order;
/// None if nothing is worth a run.
fn choose(candidates: &[Facts], segment_bytes: u64, waste_ceiling: f64) -> Option<(Vec<usize>, Pace)> {
    let all_with = |wanted: &dyn Fn(&Facts) -> bool| -> Vec<usize> {
        let wanted = candidates.iter().enumerate().filter(|(_, facts)| wanted(facts));
        wanted.map(|(index, _)| index).collect()
    };
    // No live records, so dropping it is free.
    let free = all_with(&|facts| facts.live_puts == 0 && facts.gain > facts.bytes / 2);
    if !free.is_empty() {
        return Some((free, Pace::Hurried));
    }
    let small = all_with(&|facts| facts.bytes < segment_bytes / 4);
    if small.len() >= SMALL_SEGMENTS_MAX {
        return Some((small, Pace::Throttled));
    }
    let bytes = candidates.iter().map(|facts| (facts.bytes, facts.live_bytes));
    if waste_ratio(bytes, segment_bytes) <= waste_ceiling {
        return None;
    }
    let mut by_gain: Vec<_> = candidates
        .iter()
        .enumerate()
        .filter(|(_, facts)| facts.gain > facts.bytes / 8)
        .collect();
    let share = |facts: &Facts| facts.gain as f64 / facts.bytes.max(1) as f64;
    by_gain.sort_by(|(_, a), (_, b)| share(b).total_cmp(&share(a)));
    let budget = segment_bytes * RUN_SEGMENTS_MAX;
    let mut copied = 0;
    let mut chosen: Vec<_> = by_gain
        .into_iter()
        .take_while(|(_, facts)| {
            let first = copied == 0;
            copied += facts.live_bytes + 1;
            first || copied <= budget
        })
        .take(RUN_SEGMENTS_MAX as usize * 2)
        .map(|(index, _)| index)
        .collect();
    // Files are removed in this order, and the shadows of the oldest segments are in later ones.
    chosen.sort_unstable();
    (!chosen.is_empty()).then_some((chosen, Pace::Throttled))
}

/// Which of these segments, given oldest data first, a forced compaction takes, in groups of
/// bounded size.
fn choose_all(candidates: &[Facts], segment_bytes: u64) -> Vec<Vec<usize>> {
    let overhead = 4096;
    let small = |facts: &Facts| facts.bytes < segment_bytes / 2;
    let several_small = candidates.iter().filter(|facts| small(facts)).count() > 1;
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut bytes = 0;
    for (index, facts) in candidates.iter().enumerate() {
        let wasteful = facts.is_wasteful || facts.gain > overhead + facts.bytes / 20;
        if !(wasteful || several_small && small(facts)) {
            continue;
        }
        bytes += facts.bytes;
        match groups.last_mut() {
            Some(group) if bytes <= FORCED_RUN_BYTES_MAX => group.push(index),
            _ => {
                bytes = facts.bytes;
                groups.push(vec![index]);
            }
        }
    }
    groups
}

/// The sequence up to which shadows hide nothing in any of these segments: the lowest sequence of
/// any segment with a put that is not live.
pub(super) fn shadow_floor<'a>(others: impl Iterator<Item = &'a Arc<Segment>>) -> u64 {
    others.filter_map(lowest_hidden).min().unwrap_or(u64::MAX)
}

/// For the id of each of these segments, the [`shadow_floor`] of all others. A query looks at two
/// of them at most.
fn shadow_floors(all: &[Arc<Segment>]) -> impl Fn(u64) -> u64 {
    let with_id = |segment| lowest_hidden(segment).map(|lowest| (lowest, segment.id()));
    let mut floors: Vec<_> = all.iter().filter_map(with_id).collect();
    floors.sort_unstable();
    move |id| {
        let of_another = floors.iter().find(|(_, other)| *other != id);
        of_another.map_or(u64::MAX, |(lowest, _)| *lowest)
    }
}

/// The lowest sequence in a segment, if it has a put that is not live.
fn lowest_hidden(segment: &Arc<Segment>) -> Option<u64> {
    let counts = segment.counters.get();
    (counts.dead_puts() > 0).then_some(counts.min_sequence)
}

#[cfg(test)]
mod choice_tests;

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
            let all = engine.state.segments.all();
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
            engine.log.retire_active().unwrap();
            engine.log.seal_all().unwrap();
        }
        assert!(floors_seen.len() > 2, "{floors_seen:?}");
    }
}
