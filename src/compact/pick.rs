//! Which segments are worth compacting.
//!
//! Segments are chosen by what they free for what they cost: a segment by the bytes it frees
//! itself, weighed by its age, since an old one is less likely to free more soon; or the segments
//! with the oldest dead puts, by the tombstones elsewhere that no longer hide anything once those
//! are gone. Each run is bounded in the bytes it copies, so the choice is made again after each.

use std::sync::Arc;

use super::account::{Account, Facts, Held, ratio};
use super::{Compactor, Pace};
use crate::planted::{Planted, planted};
use crate::segment::{SealedSegment, Segment};

/// Most bytes that a background run copies, in full segments.
const RUN_SEGMENTS_MAX: u64 = 2;
/// Most inputs of a background run.
const RUN_INPUTS_MAX: usize = 16;
/// Most segments without live records that one run drops.
const FREE_MAX: usize = 256;
/// Most bytes of a forced run, since its outputs take as many while its inputs are still there.
const FORCED_RUN_BYTES_MAX: u64 = 1 << 30;
/// Number of small segments at which they are merged.
const SMALL_SEGMENTS_MAX: usize = 8;
/// Factor above the waste ceiling at which the rate limit is lifted.
const OVERDUE: f64 = 1.25;

/// What to compact next in the background.
pub(super) struct Pick {
    pub(super) inputs: Vec<SealedSegment>,
    pub(super) pace: Pace,
    /// It is done for the tombstones in other segments, so it may reclaim nothing itself.
    pub(super) unpins: bool,
}

/// A choice among segments, by their indexes.
#[derive(Debug, PartialEq, Eq)]
struct Choice {
    indexes: Vec<usize>,
    pace: Pace,
    unpins: bool,
}

/// What the choice is made by.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Size of a full segment.
    segment_bytes: u64,
    waste_ceiling: f64,
    /// The disk is full: whatever can be reclaimed is, a segment at a time.
    is_full: bool,
}

impl Compactor {
    fn limits(&self) -> Limits {
        Limits {
            segment_bytes: self.log.segment_bytes(),
            waste_ceiling: self.context.options.waste_ceiling,
            is_full: self.is_full(),
        }
    }

    /// Whether the disk is full, or as full as the store's own limit allows.
    pub(super) fn is_full(&self) -> bool {
        self.log.reserve.is_full() || self.log.is_at_limit()
    }

    /// All segments, oldest data first, and the account of them.
    fn survey(&self) -> (Vec<Arc<Segment>>, Account) {
        let horizon = self.context.time.drop_horizon(self.context.grace_ms());
        let mut segments: Vec<_> = self
            .state
            .segments
            .all()
            .into_iter()
            .map(|segment| {
                let counts = segment.counters.get();
                // Records that expired recently, or are not expired by the current clock, are
                // copied. If they counted as gain, the segment would be picked again and again.
                let expired_bytes = match horizon {
                    _ if planted(Planted::PickWhatStays) => 0,
                    Some(horizon) => segment.counters.expired_after(horizon),
                    None => counts.expired_bytes,
                };
                let grace_bytes = expired_bytes.min(counts.dead_bytes());
                let facts = Facts {
                    bytes: segment.disk_bytes(),
                    live_puts: counts.live_puts,
                    live_bytes: counts.live_bytes,
                    dead_bytes: counts.dead_bytes() - grace_bytes,
                    grace_bytes,
                    tombstone_bytes: counts.tombstone_bytes,
                    is_wasteful: counts.is_wasteful(),
                    max_sequence: segment.summary.map_or(u64::MAX, |summary| summary.max_sequence),
                    hides_up_to: counts.hides_up_to(),
                    is_sound: segment.summary.is_some() && !self.is_left_out(segment.id()),
                };
                (counts.min_sequence, segment, facts)
            })
            .collect();
        segments.sort_by_key(|(min_sequence, ..)| *min_sequence);
        let (segments, facts) = segments.into_iter().map(|(_, segment, facts)| (segment, facts)).unzip();
        (segments, Account::of(facts))
    }

    pub(super) fn pick(&self) -> Option<Pick> {
        self.pick_within(&self.limits())
    }

    /// Lets writers wait for as much as compaction is behind.
    pub(super) fn update_debt(&self) {
        self.set_debt(self.excess(self.context.options.waste_ceiling));
    }

    /// As [`Compactor::pick`] on a full disk.
    pub(super) fn pick_when_full(&self) -> Option<Pick> {
        self.pick_within(&Limits {
            is_full: true,
            ..self.limits()
        })
    }

    fn pick_within(&self, limits: &Limits) -> Option<Pick> {
        let (segments, account) = self.survey();
        self.set_debt(account.excess(limits.waste_ceiling, limits.segment_bytes));
        let choice = choose(&account, limits)?;
        Some(Pick {
            inputs: segments_at(&segments, &choice.indexes),
            pace: choice.pace,
            unpins: choice.unpins,
        })
    }

    /// What the background would compact next, by the ids of the segments.
    pub(super) fn next_inputs(&self) -> Option<Vec<u64>> {
        let (segments, account) = self.survey();
        let choice = choose(&account, &self.limits())?;
        Some(ids(&segments_at(&segments, &choice.indexes)))
    }

    /// All segments that have waste or are small, in groups of bounded size, oldest first.
    pub(super) fn pick_all(&self) -> Vec<Vec<SealedSegment>> {
        let (segments, account) = self.survey();
        let groups = choose_all(&account, self.log.segment_bytes());
        groups.iter().map(|group| segments_at(&segments, group)).collect()
    }

    /// Whether waste is so far above its ceiling that the rate limit is lifted.
    pub(super) fn is_overdue(&self) -> bool {
        self.excess(self.context.options.waste_ceiling * OVERDUE) > 0
    }

    /// Bytes that compaction is behind, and the bytes that may not go yet.
    pub(crate) fn owed_and_held(&self) -> (u64, Held) {
        let (_, account) = self.survey();
        let owed = account.excess(self.context.options.waste_ceiling, self.log.segment_bytes());
        (owed, account.held())
    }

    fn excess(&self, ceiling: f64) -> u64 {
        let (_, account) = self.survey();
        account.excess(ceiling, self.log.segment_bytes())
    }
}

pub(super) fn ids(segments: &[SealedSegment]) -> Vec<u64> {
    segments.iter().map(|segment| segment.id()).collect()
}

fn segments_at(segments: &[Arc<Segment>], indexes: &[usize]) -> Vec<SealedSegment> {
    let chosen = indexes.iter().filter_map(|index| segments.get(*index));
    chosen
        .filter_map(|segment| SealedSegment::of(segment.clone()))
        .collect()
}

/// Which segments one background run takes, oldest data first; None if nothing is worth a run.
fn choose(account: &Account, limits: &Limits) -> Option<Choice> {
    let chosen = |mut indexes: Vec<usize>, pace, unpins| {
        // Files are removed in this order, and the shadows of the oldest segments are in later
        // ones.
        indexes.sort_unstable();
        let indexes = Some(indexes).filter(|indexes| !indexes.is_empty());
        indexes.map(|indexes| Choice { indexes, pace, unpins })
    };
    let all_with = |wanted: &dyn Fn(usize, &Facts) -> bool| -> Vec<usize> {
        let numbered = account.segments.iter().enumerate();
        let wanted = numbered.filter(|(index, facts)| facts.is_sound && wanted(*index, facts));
        wanted.map(|(index, _)| index).collect()
    };
    // No live records, so dropping it is free.
    let is_free = |index, facts: &Facts| facts.live_puts == 0 && account.gain(index, facts) > facts.bytes / 2;
    let mut free = all_with(&is_free);
    if !free.is_empty() {
        free.truncate(FREE_MAX);
        return chosen(free, Pace::Hurried, false);
    }
    if limits.is_full {
        let (indexes, unpins) = choose_when_full(account)?;
        return chosen(indexes, Pace::Hurried, unpins);
    }
    let mut small = all_with(&|_, facts| facts.bytes < limits.segment_bytes / 16 && facts.grace_bytes == 0);
    if small.len() >= SMALL_SEGMENTS_MAX {
        small.truncate(2 * SMALL_SEGMENTS_MAX);
        return chosen(small, Pace::Throttled, false);
    }
    let excess = account.excess(limits.waste_ceiling, limits.segment_bytes);
    if excess == 0 {
        return None;
    }
    let (own, own_ratio) = choose_by_own_gain(account, limits, excess);
    let way = account.unpinning();
    let way_ratio = way.last().map_or(0.0, |last| ratio(last.gain, last.copied_bytes));
    if way_ratio > own_ratio && !planted(Planted::ForgetPins) {
        let budget = limits.segment_bytes * RUN_SEGMENTS_MAX;
        let number = way.iter().take_while(|step| step.copied_bytes <= budget).count();
        let indexes = way.iter().take(number.clamp(1, RUN_INPUTS_MAX)).map(|step| step.index);
        return chosen(indexes.collect(), Pace::Throttled, true);
    }
    chosen(own, Pace::Throttled, false)
}

/// On a full disk: the segment that leaves the least to copy for what it frees, or else the first
/// that keeps tombstones elsewhere.
fn choose_when_full(account: &Account) -> Option<(Vec<usize>, bool)> {
    let numbered = account.segments.iter().enumerate();
    let gains = numbered.filter_map(|(index, facts)| {
        let gain = account.gain(index, facts);
        // Less may be lost again to the rest of a block.
        let pays = facts.is_sound && gain > 4096.min(facts.bytes / 8);
        pays.then(|| (ratio(gain, facts.copied_bytes()), index))
    });
    let best = gains.max_by(|(a, _), (b, _)| a.total_cmp(b));
    let unpinning = || account.unpinning().first().map(|step| (vec![step.index], true));
    best.map(|(_, index)| (vec![index], false)).or_else(unpinning)
}

/// The segments that free the most themselves, up to what one run copies, or up to the excess; and
/// the bytes they free for each byte copied.
fn choose_by_own_gain(account: &Account, limits: &Limits, excess: u64) -> (Vec<usize>, f64) {
    let newest = account.segments.iter().filter(|facts| facts.is_sound);
    let newest = newest.map(|facts| facts.max_sequence).max().unwrap_or(0);
    // Age counts in records, against the number of records in the store.
    let records: u64 = account.segments.iter().map(|facts| facts.live_puts).sum();
    let numbered = account.segments.iter().enumerate();
    let mut by_score: Vec<_> = numbered
        .filter_map(|(index, facts)| {
            let gain = account.gain(index, facts);
            let pays = facts.is_sound && gain > facts.bytes / 32;
            let age = newest.saturating_sub(facts.max_sequence) + records / 8;
            pays.then(|| (score(facts, gain, age), index, gain, facts.copied_bytes()))
        })
        .collect();
    by_score.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
    let budget = limits.segment_bytes * RUN_SEGMENTS_MAX;
    let (mut chosen, mut gained, mut copied) = (Vec::new(), 0, 0);
    for (_, index, gain, bytes) in by_score {
        let is_enough = gained >= excess && copied >= limits.segment_bytes / 2;
        let is_full = copied + bytes > budget || chosen.len() == RUN_INPUTS_MAX;
        if !chosen.is_empty() && (is_enough || is_full) {
            break;
        }
        (gained, copied) = (gained + gain, copied + bytes);
        chosen.push(index);
    }
    (chosen, ratio(gained, copied))
}

/// Cost-benefit: what is gained, for as long as it lasts, for each byte read and copied. What has
/// not died for long will not die soon either, so an old segment stays clean for longer.
fn score(facts: &Facts, gain: u64, age: u64) -> f64 {
    gain as f64 * (age + 1) as f64 / (facts.bytes + facts.copied_bytes()) as f64
}

/// Which of these segments, given oldest data first, a forced compaction takes, in groups of
/// bounded size.
fn choose_all(account: &Account, segment_bytes: u64) -> Vec<Vec<usize>> {
    let overhead = 4096;
    let small = |facts: &Facts| facts.bytes < segment_bytes / 2;
    let sound = || account.segments.iter().filter(|facts| facts.is_sound);
    let several_small = sound().filter(|facts| small(facts)).count() > 1;
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut bytes = 0;
    for (index, facts) in account.segments.iter().enumerate() {
        let unknown = facts
            .bytes
            .saturating_sub(facts.live_bytes + facts.grace_bytes + facts.tombstone_bytes);
        let wasteful = facts.is_wasteful || unknown > overhead + facts.bytes / 20;
        if !facts.is_sound || !(wasteful || several_small && small(facts)) {
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

#[cfg(test)]
mod tests;
