//! A closing that fails: who is left over must not touch what somebody else has by now.

use embercask::storage::{Fault, FaultKind, Operation};
use embercask::{Durability, ErrorKind};

use crate::common::{class, open, text};
use crate::{FAILED, world};

/// A closing that failed leaves something to be written, synced or sealed. Whoever has kept a handle must not do it in a directory that
/// somebody else has by now.
#[test]
fn a_handle_left_over_from_a_failed_close_leaves_the_directory_to_the_next() {
    for operation in [Operation::Write, Operation::Sync, Operation::Create, Operation::Rename] {
        for skipped in 0..4 {
            let (disk, faults, store, namespace) = world();
            let left_over = store.clone();
            namespace
                .put_with("buffered", "1", class(Durability::Buffered))
                .unwrap();
            for _ in 0..skipped {
                faults.inject(Fault::new(FaultKind::ShortWrite { bytes: 1_000 }).on(Operation::Write));
            }
            faults.inject(Fault::new(FAILED).on(operation).repeated());
            if store.close().is_ok() {
                continue;
            }
            faults.clear();
            let next = open(&disk);
            let next_namespace = next.open_namespace("N").unwrap();
            let operations = disk.operation_count();
            let _ = left_over.compact();
            let _ = left_over.maintain();
            let _ = left_over.compact_subset(u64::MAX);
            let _ = left_over.flush();
            let _ = left_over.sync();
            let _ = namespace.put("key", "lost");
            let _ = left_over.drop_namespace("N");
            drop((left_over, namespace));
            assert_eq!(
                disk.operation_count(),
                operations,
                "{operation:?}: the disk was touched"
            );
            assert_eq!(text(&next_namespace, "key").as_deref(), Some("old"));
            next_namespace.put("key", "new").unwrap();
            next.close().unwrap();
            assert_eq!(
                text(&open(&disk).open_namespace("N").unwrap(), "key").as_deref(),
                Some("new")
            );
        }
    }
}

/// C13: whoever closes again must not take what was lost for saved.
#[test]
fn closing_again_after_a_failed_close_tells_the_same() {
    let (disk, faults, store, namespace) = world();
    namespace
        .put_with("buffered", "1", class(Durability::Buffered))
        .unwrap();
    let again = store.clone();
    faults.inject(Fault::new(FAILED).on(Operation::Write).repeated());
    let first = store.close().unwrap_err();
    assert_eq!(first.kind(), ErrorKind::Io);
    faults.clear();
    assert_eq!(again.clone().close().unwrap_err().to_string(), first.to_string());
    assert_eq!(
        namespace.store().clone().close().unwrap_err().to_string(),
        first.to_string()
    );
    drop((again, namespace));
    assert_eq!(
        text(&open(&disk).open_namespace("N").unwrap(), "buffered"),
        None,
        "it was never written out"
    );
}
