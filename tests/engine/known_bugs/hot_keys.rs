//! The cost of compaction when a few keys are written again and again.

use embercask::Durability;
use embercask::storage::MemStorage;

use test_support::{class, open};

/// B36
#[test]
fn hot_keys_do_not_have_compaction_rewrite_everything_again_and_again() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    for n in 0..400 {
        namespace
            .put_with(format!("cold-{n}"), [b'c'; 200], class(Durability::Buffered))
            .unwrap();
    }
    let mut most = 0.0f64;
    for n in 0..12_000 {
        namespace
            .put_with(
                format!("hot-{}", n % 37),
                format!("{n:0200}"),
                class(Durability::Buffered),
            )
            .unwrap();
        if n % 20 == 0 {
            store.maintain().unwrap();
            store.compact_if_worthwhile().unwrap();
            let stats = store.stats();
            most = most.max(stats.segment_bytes as f64 / stats.live_bytes as f64);
        }
    }
    let stats = store.stats();
    let rewritten = stats.compaction.written_bytes as f64 / stats.written_bytes as f64;
    assert!(
        rewritten < 2.0,
        "{rewritten:.2} bytes were rewritten per byte written: {:?}",
        stats.compaction
    );
    assert!(most < 3.0, "{most:.2} bytes on disk per live byte");
    assert_eq!(namespace.count().unwrap(), 437);
}
