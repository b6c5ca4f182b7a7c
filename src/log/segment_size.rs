//! The size of a segment, which follows the live data.
//!
//! Segments of a fixed size are too large for small stores: one segment is the least that can be
//! wasted, and the least that is copied at a time. Too many small ones cost files, syncs and
//! manifest entries.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::options::Options;

/// Segments that the live data would fill.
const SEGMENTS: u64 = 32;
/// Least segments that a limit of the store must leave room for.
const LIMIT_SEGMENTS: u64 = 32;
/// Smallest size, if the options allow it.
const BYTES_MIN: u64 = 8 << 20;
/// Sizes are multiples of this above the smallest one, so that they seldom change.
const STEP: u64 = 4 << 20;

/// The current size of a new segment in bytes.
#[derive(Debug)]
pub(crate) struct SegmentSize {
    bytes: AtomicU64,
    /// No more, since the disk has no room for the reserve that would need.
    most: AtomicU64,
}

impl SegmentSize {
    pub(super) fn new(options: &Options, live_bytes: u64) -> SegmentSize {
        SegmentSize {
            bytes: AtomicU64::new(size(options, live_bytes)),
            most: AtomicU64::new(u64::MAX),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Segments are no larger than this from now on.
    pub(super) fn limit_to(&self, bytes: u64) {
        self.most.store(bytes, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Adapts it to the live data; returns whether it has changed.
    pub(super) fn adapt(&self, options: &Options, live_bytes: u64) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        let (now, wanted) = (self.bytes(), size(options, live_bytes).min(most));
        // Live data that go up and down a little change nothing.
        let is_due = wanted > now || wanted + STEP < now || wanted == size(options, 0).min(most) && wanted != now;
        if is_due {
            self.bytes.store(wanted, Ordering::Relaxed);
        }
        is_due
    }
}

fn size(options: &Options, live_bytes: u64) -> u64 {
    // The active segment and the next one are in memory.
    let most = options.segment_bytes.min(options.buffer_bytes / 2);
    let most = options
        .max_disk_bytes
        .map_or(most, |bytes| most.min(bytes / LIMIT_SEGMENTS));
    (live_bytes / SEGMENTS).next_multiple_of(STEP).max(BYTES_MIN).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_segment_is_a_32nd_of_the_live_data_within_bounds() {
        let options = Options::default();
        for (live, expected) in [
            (0, 8),
            (200 * MIB, 8),
            (256 * MIB, 8),
            (257 * MIB, 12),
            (1 << 30, 32),
            (2 << 30, 64),
            (1 << 40, 64),
        ] {
            assert_eq!(size(&options, live), expected * MIB, "{live}");
        }
        let small = Options::default().segment_bytes(4096);
        assert_eq!((size(&small, 0), size(&small, 1 << 40)), (4096, 4096));
        let large = Options::default().segment_bytes(512 * MIB);
        assert_eq!(size(&large, 1 << 40), 64 * MIB, "two do not fit into the buffers");
        assert_eq!(size(&large.buffer_bytes(1 << 30), 1 << 40), 512 * MIB);
        let limited = Options::default().max_disk_bytes(Some(32 * MIB));
        assert_eq!((size(&limited, 0), size(&limited, 1 << 40)), (MIB, MIB));
    }

    #[test]
    fn it_does_not_go_up_and_down_with_every_change() {
        let options = Options::default();
        let size = SegmentSize::new(&options, 512 * MIB);
        assert_eq!(size.bytes(), 16 * MIB);
        assert!(!size.adapt(&options, 400 * MIB), "a little less");
        assert!(size.adapt(&options, 513 * MIB));
        assert_eq!(size.bytes(), 20 * MIB);
        assert!(!size.adapt(&options, 512 * MIB));
        assert!(size.adapt(&options, 256 * MIB));
        assert_eq!(size.bytes(), 8 * MIB);
        assert!(!size.adapt(&options, 0));
        assert!(size.adapt(&options, 1 << 30) && size.adapt(&options, 512 * MIB));
        assert_eq!(size.bytes(), 16 * MIB);
        size.limit_to(2 * MIB);
        assert!(!size.adapt(&options, 1 << 40));
        assert_eq!(size.bytes(), 2 * MIB);
    }
}
