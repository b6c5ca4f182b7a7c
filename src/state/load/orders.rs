//! The second half of loading: the sorted offsets of all segments are merged into the key orders of
//! the namespaces, without the records that the first half has found to be dead.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::dead::{DeadInSegment, DeadRecords};
use super::tournament::{Ranked, Tournament};
use super::{Names, Source, State};
use crate::error::Result;
use crate::format::record::Record;
use crate::index::namespaces::{NamespaceState, SYSTEM_NAMESPACE};
use crate::index::order::{KeyFlags, OrderBuilder};
use crate::key_bytes::{common_prefix, rank};
use crate::parallel::in_parallel;
use crate::state::{WARM_UP, flags};
use crate::sync::ChangeRight;

/// Merging fewer records than this is not worth a thread.
const RANGE_RECORDS_MIN: usize = 1 << 14;

impl State {
    /// Merges the sorted offsets of all segments into the key orders of the namespaces, and counts
    /// live records. The keys are divided into as many ranges as there are threads.
    pub(super) fn load_orders(
        &self,
        right: &ChangeRight,
        sources: &[Source],
        dead: &DeadRecords,
        names: Names,
    ) -> Result<()> {
        let ranges = self.ranges(sources)?;
        let parts = in_parallel(&ranges, |range| self.merge_range(sources, dead, range))?;
        let mut orders: HashMap<u32, (OrderBuilder, u64)> = HashMap::new();
        let mut expiring = HashSet::new();
        for part in parts {
            for (number, order, live_bytes) in part.orders {
                let (whole, whole_bytes) = orders.entry(number).or_default();
                whole.append(order);
                *whole_bytes += live_bytes;
            }
            expiring.extend(part.expiring);
            for (source, live) in sources.iter().zip(part.live) {
                source.segment.counters.add_live(right, live.puts, live.bytes);
            }
        }
        for (number, name) in names {
            let (order, live_bytes) = orders.remove(&number).unwrap_or_default();
            let state = NamespaceState::new(number, name.stable_id, &name.name, order.finish());
            let state = state.with_live_bytes(live_bytes);
            state.set_default_ttl_ms(name.default_ttl_ms);
            if expiring.contains(&number) {
                state.set_has_expiring();
            }
            self.namespaces.insert(Arc::new(state));
        }
        Ok(())
    }

    /// Divides the keys into ranges of about the same size: for each range, the positions in each
    /// source that belong to it.
    fn ranges(&self, sources: &[Source]) -> Result<Vec<Vec<Range<usize>>>> {
        let records: usize = sources.iter().map(|source| source.offsets.len()).sum();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let count = threads.min(records / RANGE_RECORDS_MIN).max(1);
        let mut starts = vec![vec![0; sources.len()]];
        // All sources are cut at the keys that cut the largest one into equal parts.
        if let Some(largest) = sources.iter().max_by_key(|source| source.offsets.len()) {
            for number in 1..count {
                let pivot = largest.key_at(self, largest.offsets.len() * number / count)?;
                let before = starts.last().cloned().unwrap_or_default();
                let cuts = sources.iter().zip(before);
                let cuts = cuts.map(|(source, before)| Ok(source.position_of(self, &pivot)?.max(before)));
                starts.push(cuts.collect::<Result<_>>()?);
            }
        }
        starts.push(sources.iter().map(|source| source.offsets.len()).collect());
        let pairs = starts.windows(2).map(|pair| match pair {
            [from, to] => from.iter().zip(to).map(|(from, to)| *from..*to).collect(),
            _ => Vec::new(),
        });
        Ok(pairs.collect())
    }

    /// Merges the keys of one range.
    fn merge_range(&self, sources: &[Source], dead: &DeadRecords, range: &[Range<usize>]) -> Result<Part> {
        let shared = self.shared_prefix(sources, range)?;
        let mut walks: Vec<_> = (sources.iter().zip(range))
            .map(|(source, range)| Walk {
                source,
                dead: dead.of(source),
                range: range.clone(),
                shared,
                bytes: source.segment.memory(0),
                offsets: Vec::with_capacity(WARM_UP),
                found: Vec::with_capacity(WARM_UP),
                live: Live::default(),
                scratch: Vec::new(),
            })
            .collect();
        let heads = walks.iter_mut().map(|walk| walk.next_live(self));
        let mut heads = Tournament::new(heads.collect::<Result<_>>()?);
        let mut part = Part::default();
        let mut builder = OrderBuilder::default();
        let mut live_bytes = 0;
        let mut current = SYSTEM_NAMESPACE;
        while let Some((index, head)) = heads.least() {
            if head.namespace != current {
                let (order, bytes) = (std::mem::take(&mut builder), std::mem::take(&mut live_bytes));
                part.orders.push((current, order, bytes));
                current = head.namespace;
            }
            builder.push(&head.key, head.flags);
            live_bytes += head.length;
            if head.flags.contains(KeyFlags::EXPIRES) {
                part.expiring.insert(current);
            }
            // The next record of the same segment takes its place.
            let next = walks.get_mut(index).map(|walk| walk.next_live(self)).transpose()?;
            heads.replace(index, next.flatten());
        }
        part.orders.push((current, builder, live_bytes));
        part.live = walks.into_iter().map(|walk| walk.live).collect();
        Ok(part)
    }

    /// A namespace, and how many bytes all its keys in this range have in common. It is that of
    /// most records, if any has most.
    fn shared_prefix(&self, sources: &[Source], range: &[Range<usize>]) -> Result<(u32, usize)> {
        let parts = || sources.iter().zip(range).filter(|(_, range)| !range.is_empty());
        let Some((largest, of_largest)) = parts().max_by_key(|(_, range)| range.len()) else {
            return Ok((SYSTEM_NAMESPACE, 0));
        };
        let (namespace, mut prefix) = largest.key_at(self, of_largest.start.midpoint(of_largest.end))?;
        for (source, range) in parts() {
            let begin = source.position_of(self, &(namespace, Vec::new()))?.max(range.start);
            let end = match namespace.checked_add(1) {
                Some(next) => source.position_of(self, &(next, Vec::new()))?.min(range.end),
                None => range.end,
            };
            for position in [Some(begin), end.checked_sub(1)].into_iter().flatten() {
                if begin < end {
                    let (_, key) = source.key_at(self, position)?;
                    prefix.truncate(common_prefix(&prefix, &key));
                }
            }
        }
        Ok((namespace, prefix.len()))
    }
}

impl Source {
    /// Namespace and key of the record at this position in key order.
    fn key_at(&self, state: &State, position: usize) -> Result<(u32, Vec<u8>)> {
        let offset = self.offsets.get(position).unwrap_or_default();
        let mut scratch = Vec::new();
        let record = self.segment.record(offset, &mut scratch);
        let record = record.map_err(|error| state.context.read_error(self.segment.id(), offset, error))?;
        Ok((record.header.namespace, record.key().to_vec()))
    }

    /// Number of records before this namespace and key.
    fn position_of(&self, state: &State, key: &(u32, Vec<u8>)) -> Result<usize> {
        let (mut low, mut high) = (0, self.offsets.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.key_at(state, middle)? < *key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

/// Result of merging one range of keys.
#[derive(Default)]
struct Part {
    /// Keys of each namespace, and the bytes of their records. By ascending namespace number,
    /// unless hints are wrong.
    orders: Vec<(u32, OrderBuilder, u64)>,
    /// Namespaces with a key that has an expiry.
    expiring: HashSet<u32>,
    /// Per source.
    live: Vec<Live>,
}

/// Records that the keydir points at.
#[derive(Clone, Copy, Default)]
struct Live {
    puts: u64,
    bytes: u64,
}

/// A walk through a segment in key order.
struct Walk<'a> {
    source: &'a Source,
    dead: Option<&'a DeadInSegment>,
    /// The positions that are left.
    range: Range<usize>,
    /// See [`State::shared_prefix`].
    shared: (u32, usize),
    /// The segment, if it is in memory.
    bytes: Option<&'a [u8]>,
    /// Offsets of the live records that are being read.
    offsets: Vec<u64>,
    /// Live records already found, the next one last.
    found: Vec<Head<'a>>,
    /// Totals of the live records found.
    live: Live,
    scratch: Vec<u8>,
}

/// A live record, ordered by namespace and key.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Head<'a> {
    namespace: u32,
    /// The [`rank`] of what the key does not share with the others, which decides most comparisons
    /// without looking at the key.
    rank: u64,
    key: Cow<'a, [u8]>,
    flags: KeyFlags,
    length: u64,
}

impl<'a> Walk<'a> {
    /// The next live record.
    fn next_live(&mut self, state: &State) -> Result<Option<Head<'a>>> {
        while self.found.is_empty() && !self.range.is_empty() {
            self.find_more(state)?;
        }
        Ok(self.found.pop())
    }

    /// Reads some more records, prefetched into the processor's cache together.
    fn find_more(&mut self, state: &State) -> Result<()> {
        let segment = &self.source.segment;
        let is_live = |offset: &u64| !self.dead.is_some_and(|dead| dead.has(*offset));
        let positions = self.range.by_ref().take(WARM_UP);
        let offsets = positions.filter_map(|position| self.source.offsets.get(position));
        self.offsets.clear();
        self.offsets.extend(offsets.filter(is_live));
        segment.prefetch(self.offsets.iter().copied());
        for &offset in &self.offsets {
            let fail = |error| state.context.read_error(segment.id(), offset, error);
            let (header, key) = match self.bytes.map(|bytes| bytes.get(offset as usize..).unwrap_or_default()) {
                Some(bytes) => {
                    let record = Record::parse_checked(bytes, segment.place(offset));
                    let record = record.map_err(|damage| fail(damage.into()))?;
                    (record.header, Cow::Borrowed(record.key()))
                }
                None => {
                    let record = segment.record(offset, &mut self.scratch).map_err(fail)?;
                    (record.header, Cow::Owned(record.key().to_vec()))
                }
            };
            self.live.puts += 1;
            self.live.bytes += header.record_len();
            let (namespace, length) = self.shared;
            let shared = if namespace == header.namespace { length } else { 0 };
            self.found.push(Head {
                namespace: header.namespace,
                rank: rank(key.get(shared..).unwrap_or_default()),
                key,
                flags: flags(&header),
                length: header.record_len(),
            });
        }
        self.found.reverse();
        Ok(())
    }
}

impl Ranked for Head<'_> {
    #[inline]
    fn rank(&self) -> u128 {
        u128::from(self.namespace) << 64 | u128::from(self.rank)
    }
}

#[cfg(test)]
mod tests;
