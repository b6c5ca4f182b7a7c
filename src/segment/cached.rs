//! Which records of a segment are at hand, in the page cache or in a cache of the processor, and
//! how they are fetched before they are read.

use super::{Segment, Source, own_stripe};
use crate::format::record::HEADER_LEN_MAX;
use crate::prefetch::prefetch;

/// Bytes per cache line.
const CACHE_LINE: usize = 64;

/// Lines to load of a record whose length is not known yet.
const TOUCHED_LINES: usize = 3;

impl Segment {
    /// Prefetches the beginning of a record if it is in memory: the first few cache lines, since
    /// its length is not known yet.
    pub(crate) fn touch(&self, offset: u64) -> u8 {
        match &self.source {
            Source::Memory(stripes) => touch_lines(own_stripe(stripes).bytes(), offset),
            Source::File { .. } => 0,
        }
    }

    /// As [`Segment::touch`], for many records, without waiting for them.
    pub(crate) fn prefetch(&self, offsets: impl IntoIterator<Item = u64>) {
        if cfg!(shuttle) {
            // It would be a step to explore, in places that hold a lock which shuttle does not
            // know.
            return;
        }
        if let Source::Memory(stripes) = &self.source {
            let bytes = own_stripe(stripes).bytes();
            for offset in offsets {
                let lines = (0..TOUCHED_LINES).map(|line| offset as usize + line * CACHE_LINE);
                lines.filter_map(|at| bytes.get(at)).for_each(prefetch);
            }
        }
    }

    /// Whether the record at this offset is in memory, so that reading it waits for no device. Only
    /// a hint: the system may take the memory for something else at any time.
    pub(crate) fn is_cached(&self, offset: u64) -> bool {
        let begin = offset as usize;
        let is_cached = |length: usize| match self.map() {
            Some(map) => map.is_cached(begin..begin.saturating_add(length)),
            None => self.is_in_memory(),
        };
        // Its header tells how long it is.
        is_cached(HEADER_LEN_MAX)
            && self
                .record_in_memory(offset)
                .is_some_and(|record| is_cached(record.header.record_len() as usize))
    }

    /// Asks the system to read a mapped segment ahead.
    pub(crate) fn read_ahead(&self) {
        if let Some(map) = self.map() {
            map.read_ahead();
        }
    }
}

fn touch_lines(bytes: &[u8], offset: u64) -> u8 {
    let line = |number: usize| bytes.get(offset as usize + number * CACHE_LINE).copied().unwrap_or(0);
    (0..TOUCHED_LINES).fold(0, |touched, number| touched ^ line(number))
}
