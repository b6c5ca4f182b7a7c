//! Options out of range, and at its ends.

use std::sync::Arc;
use std::time::Duration;

use embercask::Store;
use embercask::storage::MemStorage;

use crate::common::{DIRECTORY, manual};
use crate::invalid;

#[test]
fn options_out_of_range_are_refused_before_the_disk_is_touched() {
    let disk = MemStorage::new();
    let options = || manual(Arc::new(disk.clone()));
    for (options, says) in [
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
    ] {
        invalid(options.open(DIRECTORY), &says);
    }
    assert_eq!(disk.operation_count(), 0, "nothing was done");
    let extreme = options()
        .segment_bytes(4096)
        .waste_ceiling(10.0)
        .compaction_bytes_per_second(Some(u64::MAX))
        .expiry_grace(Duration::MAX)
        .flush_interval(Duration::MAX);
    let store = extreme.open(DIRECTORY).unwrap();
    store.namespace("N").unwrap().put("key", "1").unwrap();
    store.compact().unwrap();
    store.close().unwrap();
}

/// The same with the store's own threads, which must neither spin nor overflow.
#[test]
fn intervals_of_zero_and_for_ever_are_taken_as_meant() {
    for interval in [Duration::ZERO, Duration::MAX] {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::options()
            .flush_interval(interval)
            .expiry_grace(interval)
            .open(directory.path().join("store"))
            .unwrap();
        store.namespace("N").unwrap().put("key", "1").unwrap();
        store.close().unwrap();
    }
}
