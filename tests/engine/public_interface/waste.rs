//! The effect of the waste ceiling.

use std::sync::Arc;

use embercask::Stats;
use embercask::storage::MemStorage;

use crate::public_interface::{SEGMENT_BYTES, VALUE_BYTES, buffered, small_segments};
use test_support::DIRECTORY;

/// Bytes of sealed segments per live byte, not counting one segment.
fn waste(stats: &Stats) -> f64 {
    let sealed = stats.segments.iter().filter(|segment| segment.sealed);
    let (bytes, live) = sealed.fold((0, 0), |(bytes, live), segment| {
        (bytes + segment.bytes, live + segment.live_bytes)
    });
    bytes.saturating_sub(SEGMENT_BYTES) as f64 / live.max(1) as f64
}

/// The maximum of bytes on disk per live byte, before and after each background check, and the
/// number of bytes copied.
fn under(ceiling: f64) -> (f64, f64, u64) {
    let options = small_segments(Arc::new(MemStorage::new())).waste_ceiling(ceiling);
    let store = options.open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    let (mut before, mut after) = (0.0f64, 0.0f64);
    for n in 0..3000 {
        // Each segment has a record that stays live, so that none can be dropped for free.
        let key = if n % 14 == 0 {
            format!("cold {n}")
        } else {
            format!("hot {}", n % 11)
        };
        namespace.put_with(key, [7; VALUE_BYTES], buffered()).unwrap();
        if n % 5 == 0 {
            before = before.max(waste(&store.stats()));
            store.compact_if_worthwhile().unwrap();
            after = after.max(waste(&store.stats()));
        }
    }
    assert_eq!(namespace.count().unwrap(), 3000u64.div_ceil(14) + 11);
    (before, after, store.stats().compaction.written_bytes)
}

#[test]
fn compaction_sets_in_above_the_waste_ceiling_and_not_below_it() {
    let mut least_written = u64::MAX;
    for ceiling in [1.1, 1.6, 3.0, 6.0] {
        let (before, after, written) = under(ceiling);
        assert!(before > ceiling, "{before:.2} is not above the ceiling of {ceiling}");
        assert!(after <= ceiling, "{after:.2} is above the ceiling of {ceiling}");
        assert!(
            after > 0.8 * ceiling,
            "{after:.2} is far below the ceiling of {ceiling}"
        );
        assert!(
            0 < written && written < least_written,
            "{written} bytes were copied under {ceiling}"
        );
        least_written = written;
    }
}
