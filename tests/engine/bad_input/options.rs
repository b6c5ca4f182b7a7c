//! Options out of range and at the ends of their ranges.

use std::sync::Arc;
use std::time::Duration;

use embercask::storage::MemStorage;
use embercask::{Durability, Maintenance, ManualClock};

use crate::bad_input::{NOW_MS, invalid};
use test_support::{DIRECTORY, class, manual, until};

#[test]
fn options_out_of_range_are_refused_before_the_disk_is_touched() {
    let disk = MemStorage::new();
    let options = || manual(Arc::new(disk.clone()));
    for (options, says) in [
        (
            options().max_disk_bytes(Some((1 << 20) - 1)),
            ["keep to 1048575 bytes", "at least 1048576"],
        ),
        (options().buffer_bytes(8191), ["8191 bytes of buffers", "at least 8192"]),
        (options().segment_bytes(0), ["segment size of 0", "choose 4096 to"]),
        (
            options().segment_bytes(4095),
            ["segment size of 4095", "choose 4096 to"],
        ),
        (
            options().segment_bytes((512 << 20) + 1),
            ["segment size", "to 536870912"],
        ),
        (options().segment_bytes(u64::MAX), ["segment size", "to 536870912"]),
        (
            options().waste_ceiling(1.09),
            ["waste ceiling of 1.09", "choose 1.1 to 10"],
        ),
        (
            options().waste_ceiling(10.1),
            ["waste ceiling of 10.1", "choose 1.1 to 10"],
        ),
        (options().waste_ceiling(f64::NAN), ["waste ceiling", "choose 1.1 to 10"]),
        (
            options().waste_ceiling(f64::INFINITY),
            ["waste ceiling", "choose 1.1 to 10"],
        ),
        (
            options().compaction_bytes_per_second(Some(0)),
            ["rate of zero", "pause compaction instead"],
        ),
        (
            options().scrub_bytes_per_second(Some(0)),
            ["scrub rate of zero", "turn scrubbing off"],
        ),
        (
            options().sync_interval(Some(Duration::ZERO)),
            ["sync interval of zero", "use durability `Sync`"],
        ),
    ] {
        invalid(options.open(DIRECTORY), &says);
    }
    assert_eq!(disk.operation_count(), 0, "the disk was touched");
    let extreme = options()
        .segment_bytes(4096)
        .waste_ceiling(10.0)
        .compaction_bytes_per_second(Some(u64::MAX))
        .scrub_bytes_per_second(Some(u64::MAX))
        .expiry_grace(Duration::MAX)
        .flush_interval(Duration::MAX)
        .sync_interval(Some(Duration::MAX));
    let store = extreme.open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    for n in 0..10 {
        namespace.put(format!("{n}"), [7; 1_000]).unwrap();
    }
    let segments = store.stats().segments;
    assert!(segments.len() > 2 && segments.iter().all(|segment| segment.bytes <= 4096));
    store.compact().unwrap();
    assert_eq!(namespace.count().unwrap(), 10);
    store.close().unwrap();
}

/// The same with background threads. Buffered writes are flushed eventually, regardless of the
/// interval; expired records stay on disk for as long as the grace period says.
#[test]
fn intervals_of_zero_and_for_ever_are_taken_as_meant() {
    for (interval, stays) in [(Duration::ZERO, false), (Duration::MAX, true)] {
        let (disk, clock) = (MemStorage::new(), ManualClock::new(NOW_MS));
        let open = || {
            manual(Arc::new(disk.clone()))
                .maintenance(Maintenance::Background)
                .flush_interval(interval)
                .expiry_grace(interval)
                .clock(clock.clone())
                .open(DIRECTORY)
                .unwrap()
        };
        let store = open();
        let namespace = store.namespace("N").unwrap();
        let buffered = class(Durability::Buffered).ttl(Duration::from_secs(1));
        namespace.put_with("key", "1", buffered).unwrap();
        until("buffered writes are flushed", || store.stats().pending_bytes == 0);
        clock.advance(1_000);
        assert!(namespace.get("key").unwrap().is_none());
        store.compact().unwrap();
        store.close().unwrap();
        // If the clock was fast, the key is there again, unless its record is gone.
        clock.set_wall(NOW_MS);
        let namespace = open().open_namespace("N").unwrap();
        assert_eq!(namespace.contains("key").unwrap(), stays, "{interval:?}");
    }
}
