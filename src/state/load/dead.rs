//! Which records are dead, as far as loading knows: a bit for each place where a record may begin,
//! a 64th of the segment's bytes. So the second half of loading need not ask the keydir again, and no
//! hashes are kept for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Source;
use crate::format::ALIGNMENT;
use crate::location::Location;

/// The records of all segments that are loaded. Changed by several threads at once.
pub(super) struct DeadRecords(HashMap<u16, DeadInSegment>);

/// The records of one segment.
pub(super) struct DeadInSegment(Box<[AtomicU64]>);

impl DeadRecords {
    /// None is dead yet.
    pub(super) fn none(sources: &[Source]) -> DeadRecords {
        let of_source = |source: &Source| {
            let places = source.segment.data_end().div_ceil(ALIGNMENT);
            let bits = (0..places.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
            (source.segment.index(), DeadInSegment(bits))
        };
        DeadRecords(sources.iter().map(of_source).collect())
    }

    /// A record that is not in these segments is none of those that are loaded.
    pub(super) fn add(&self, location: Location) {
        if let Some(segment) = self.0.get(&location.segment_index())
            && let Some((word, bit)) = segment.place(location.offset())
        {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    pub(super) fn of(&self, source: &Source) -> Option<&DeadInSegment> {
        self.0.get(&source.segment.index())
    }
}

impl DeadInSegment {
    /// Asked once all are loaded, and the threads that did it have ended.
    #[inline]
    pub(super) fn has(&self, offset: u64) -> bool {
        self.place(offset)
            .is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    #[inline]
    fn place(&self, offset: u64) -> Option<(&AtomicU64, u64)> {
        let place = offset / ALIGNMENT;
        Some((self.0.get((place / 64) as usize)?, 1 << (place % 64)))
    }
}
