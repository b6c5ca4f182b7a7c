//! Which records are dead, as far as loading knows. So the second half of loading need not ask the
//! keydir again, and no hashes are kept for it. It takes at most eight bytes a record, like those.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Source;
use crate::format::ALIGNMENT;
use crate::location::Location;
use crate::sync::lock;

/// Bytes of a bitmap for one record on average, above which offsets are listed instead.
const BITMAP_BYTES_MAX: u64 = 8;

/// The records of all segments that are loaded. Changed by several threads at once.
pub(super) struct DeadRecords(HashMap<u16, DeadInSegment>);

/// The records of one segment.
pub(super) enum DeadInSegment {
    /// A bit for each place where a record may begin, a 64th of the segment's bytes.
    Bitmap(Box<[AtomicU64]>),
    /// Offsets; in order once all are there. For large records, of which there are few.
    List(Mutex<Vec<u64>>),
    Sorted(Vec<u64>),
}

impl DeadRecords {
    /// None is dead yet.
    pub(super) fn none(sources: &[Source]) -> DeadRecords {
        let of_source = |source: &Source| {
            let words = source.segment.data_end().div_ceil(ALIGNMENT * 64);
            let most = source.offsets.len() as u64 * BITMAP_BYTES_MAX;
            let dead = if words * 8 <= most {
                DeadInSegment::Bitmap((0..words).map(|_| AtomicU64::new(0)).collect())
            } else {
                DeadInSegment::List(Mutex::default())
            };
            (source.segment.index(), dead)
        };
        DeadRecords(sources.iter().map(of_source).collect())
    }

    /// A record that is not in these segments is none of those that are loaded.
    pub(super) fn add(&self, location: Location) {
        let offset = location.offset();
        match self.0.get(&location.segment_index()) {
            Some(DeadInSegment::Bitmap(words)) => {
                if let Some((word, bit)) = place(words, offset) {
                    word.fetch_or(bit, Ordering::Relaxed);
                }
            }
            Some(DeadInSegment::List(offsets)) => lock(offsets).push(offset),
            Some(DeadInSegment::Sorted(_)) | None => {}
        }
    }

    /// All that are dead were added.
    pub(super) fn end(&mut self) {
        for dead in self.0.values_mut() {
            if let DeadInSegment::List(offsets) = dead {
                let mut offsets = std::mem::take(&mut *lock(offsets));
                offsets.sort_unstable();
                *dead = DeadInSegment::Sorted(offsets);
            }
        }
    }

    pub(super) fn of(&self, source: &Source) -> Option<&DeadInSegment> {
        self.0.get(&source.segment.index())
    }
}

impl DeadInSegment {
    /// Asked after [`DeadRecords::end`].
    #[inline]
    pub(super) fn has(&self, offset: u64) -> bool {
        match self {
            DeadInSegment::Bitmap(words) => {
                place(words, offset).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
            }
            DeadInSegment::Sorted(offsets) => offsets.binary_search(&offset).is_ok(),
            DeadInSegment::List(offsets) => lock(offsets).contains(&offset),
        }
    }
}

#[inline]
fn place(words: &[AtomicU64], offset: u64) -> Option<(&AtomicU64, u64)> {
    let place = offset / ALIGNMENT;
    Some((words.get((place / 64) as usize)?, 1 << (place % 64)))
}
