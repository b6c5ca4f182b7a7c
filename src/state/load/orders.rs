//! The second half of loading: the sorted offsets of all segments are merged into the key orders of
//! the namespaces. The hashes computed before tell which records are live, without reading the keys
//! again.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::{Contribution, Names, Source, State};
use crate::error::Result;
use crate::format::record::Record;
use crate::index::namespaces::{NamespaceState, SYSTEM_NAMESPACE};
use crate::index::order::{KeyFlags, OrderBuilder};
use crate::key_bytes::rank;
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
        contributions: &[Contribution],
        names: Names,
    ) -> Result<()> {
        let ranges = self.ranges(sources)?;
        let parts = in_parallel(&ranges, |range| self.merge_range(sources, contributions, range))?;
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
    fn merge_range(&self, sources: &[Source], contributions: &[Contribution], range: &[Range<usize>]) -> Result<Part> {
        let mut walks: Vec<_> = (sources.iter().zip(contributions).zip(range))
            .map(|((source, contribution), range)| Walk {
                source,
                hashes: contribution.hashes.get(..range.end).unwrap_or_default(),
                position: range.start,
                found: Vec::new(),
                live: Live::default(),
                scratch: Vec::new(),
            })
            .collect();
        let mut heads = BinaryHeap::new();
        for (index, walk) in walks.iter_mut().enumerate() {
            heads.extend(walk.next_live(self)?.map(|head| Reverse((head, index))));
        }
        let mut part = Part::default();
        let mut builder = OrderBuilder::default();
        let mut live_bytes = 0;
        let mut current = SYSTEM_NAMESPACE;
        while let Some(mut smallest) = heads.peek_mut() {
            let Reverse((head, index)) = &mut *smallest;
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
            // The next record of the same segment takes its place, and the heap reorders itself.
            match walks
                .get_mut(*index)
                .map(|walk| walk.next_live(self))
                .transpose()?
                .flatten()
            {
                Some(next) => *head = next,
                None => drop(PeekMut::pop(smallest)),
            }
        }
        part.orders.push((current, builder, live_bytes));
        part.live = walks.into_iter().map(|walk| walk.live).collect();
        Ok(part)
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
    hashes: &'a [u64],
    position: usize,
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
    /// The key's [`rank`], which decides most comparisons without looking at the key.
    rank: u64,
    key: Cow<'a, [u8]>,
    flags: KeyFlags,
    length: u64,
}

impl<'a> Walk<'a> {
    /// The next record that the keydir points at.
    fn next_live(&mut self, state: &State) -> Result<Option<Head<'a>>> {
        while self.found.is_empty() && self.position < self.hashes.len() {
            self.find_more(state)?;
        }
        Ok(self.found.pop())
    }

    /// Reads some more records, prefetched into the processor's cache together.
    fn find_more(&mut self, state: &State) -> Result<()> {
        let segment = &self.source.segment;
        let hashes = self.hashes.get(self.position..).unwrap_or_default();
        let hashes = hashes.get(..WARM_UP).unwrap_or(hashes);
        state.keydir.candidates(hashes, &mut Vec::with_capacity(WARM_UP));
        let offsets = (self.position..).filter_map(|position| self.source.offsets.get(position));
        let live: Vec<_> = (hashes.iter().zip(offsets))
            .filter(|(hash, offset)| state.keydir.holds(**hash, segment.location(*offset)))
            .map(|(_, offset)| offset)
            .collect();
        self.position += hashes.len();
        segment.touch_all(&live);
        for offset in live {
            let fail = |error| state.context.read_error(segment.id(), offset, error);
            let (header, key) = match segment.memory(offset) {
                Some(bytes) => {
                    let record =
                        Record::parse_checked(bytes, segment.place(offset)).map_err(|damage| fail(damage.into()))?;
                    (record.header, Cow::Borrowed(record.key()))
                }
                None => {
                    let record = segment.record(offset, &mut self.scratch).map_err(fail)?;
                    (record.header, Cow::Owned(record.key().to_vec()))
                }
            };
            self.live.puts += 1;
            self.live.bytes += header.record_len();
            self.found.push(Head {
                namespace: header.namespace,
                rank: rank(&key),
                key,
                flags: flags(&header),
                length: header.record_len(),
            });
        }
        self.found.reverse();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
