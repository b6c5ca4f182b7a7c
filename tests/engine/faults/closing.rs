//! A failed close: remaining handles must not touch a directory that another store has by then.

use embercask::storage::{Fault, Operation};
use embercask::{Durability, ErrorKind};

use crate::faults::{FAILED, kind, world};
use test_support::{at_least, class, open, text};

/// A failed close leaves something to write, sync or seal. A remaining handle must not do so in a
/// directory that another store has by then.
#[test]
fn a_handle_left_over_from_a_failed_close_leaves_the_directory_to_the_next() {
    for operation in [Operation::Write, Operation::Sync, Operation::Create, Operation::Rename] {
        let mut failed = 0;
        for step in 0.. {
            let (disk, faults, store, namespace) = world();
            let left_over = store.clone();
            namespace
                .put_with("buffered", "1", class(Durability::Buffered))
                .unwrap();
            let at = faults.steps() + step;
            faults.inject(Fault::new(FAILED).on(operation).at(at).repeated());
            let closed = store.close();
            if faults.struck() == 0 {
                closed.unwrap();
                break;
            }
            // Hints and the index file only speed up opening: without them the store still closes.
            let Err(error) = closed else { continue };
            assert_eq!(error.kind(), ErrorKind::Io, "{operation:?} at step {step}: {error}");
            failed += 1;
            faults.clear();
            let next = open(&disk);
            let next_namespace = next.open_namespace("N").unwrap();
            let operations = disk.operation_count();
            for (index, refused) in [
                left_over.compact().map(drop),
                left_over.maintain(),
                left_over.compact_if_worthwhile().map(drop),
                left_over.compact_subset(u64::MAX).map(drop),
                left_over.flush(),
                left_over.sync(),
                namespace.put("key", "lost").map(drop),
                namespace.delete("key").map(drop),
                left_over.batch().put(&namespace, "key", "lost").commit().map(drop),
                left_over.drop_namespace("N"),
                left_over.rename_namespace("N", "M"),
                left_over.checkpoint("/copy").map(drop),
            ]
            .into_iter()
            .enumerate()
            {
                assert_eq!(
                    kind(refused),
                    ErrorKind::Closed,
                    "{operation:?} at step {step}, {index}"
                );
            }
            drop((left_over, namespace));
            assert_eq!(
                disk.operation_count(),
                operations,
                "{operation:?} at step {step}: the disk was touched"
            );
            assert_eq!(text(&next_namespace, "key").as_deref(), Some("old"));
            next_namespace.put("key", "new").unwrap();
            next.close().unwrap();
            assert_eq!(
                text(&open(&disk).open_namespace("N").unwrap(), "key").as_deref(),
                Some("new")
            );
        }
        at_least(3, failed, &format!("closings that failed, by {operation:?}"));
    }
}

/// C13: a second close must not report lost writes as saved.
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
        "the write was never written out"
    );
}
