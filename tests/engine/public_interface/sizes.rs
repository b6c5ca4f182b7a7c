//! The largest batch and the largest value: accepted at the limit, refused one step above it
//! without writing anything.

use std::sync::Arc;

use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage};
use embercask::{Batch, Durability, ErrorKind, Limits, Namespace, Store};

use crate::public_interface::buffered;
use test_support::{DIRECTORY, keys, manual};

const BATCH_BYTES_MAX: usize = 256 << 20;
const VALUE_BYTES_MAX: usize = 1 << 30;

/// A store on a disk that can be stopped, with all background work done.
fn world() -> (MemStorage, FaultStorage, Store, Namespace) {
    let disk = MemStorage::new();
    let faults = FaultStorage::new(Arc::new(disk.clone()));
    let options = manual(Arc::new(faults.clone())).segment_bytes(1 << 20);
    let store = options.open(DIRECTORY).unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "value").unwrap();
    (disk, faults, store, namespace)
}

/// A batch with four values that take `bytes` together, and a delete.
fn batch(store: &Store, namespace: &Namespace, bytes: usize) -> Batch {
    let value = vec![7; BATCH_BYTES_MAX / 4];
    let mut batch = store.batch();
    batch.durability(Durability::Buffered).delete(namespace, "key");
    for n in 1..4 {
        batch.put(namespace, format!("{n}"), &value);
    }
    batch.put(namespace, "4", &value[..bytes - 3 * value.len()]);
    batch
}

/// The number before this word in a message.
fn number_before(message: &str, word: &str) -> usize {
    let words: Vec<_> = message.split(' ').collect();
    let at = words.iter().position(|other| *other == word).unwrap();
    words[at - 1].parse().unwrap()
}

#[test]
fn a_batch_of_256_mib_is_written_and_a_larger_one_is_refused_as_a_whole() {
    let (disk, faults, store, namespace) = world();
    assert_eq!(keys(&namespace), ["key"], "listing memory is not in the statistics");
    let (operations, stats) = (disk.operation_count(), store.stats());
    let refused = |mut batch: Batch| {
        let error = batch.commit().expect_err("must be refused");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        let message = error.to_string();
        assert!(
            message.contains("more than the 268435456") && message.contains("split it"),
            "{message}"
        );
        assert_eq!(disk.operation_count(), operations, "something was written");
        assert_eq!(store.stats(), stats);
        assert_eq!(keys(&namespace), ["key"]);
        number_before(&message, "bytes,")
    };
    let too_large = refused(batch(&store, &namespace, BATCH_BYTES_MAX));
    // Headers count too, and lengths are multiples of 8.
    let fits = BATCH_BYTES_MAX - (too_large - BATCH_BYTES_MAX);
    assert_eq!(refused(batch(&store, &namespace, fits + 8)), BATCH_BYTES_MAX + 8);
    batch(&store, &namespace, fits).commit().unwrap();
    assert_eq!(keys(&namespace), ["1", "2", "3", "4"]);
    let last = namespace.get("4").unwrap().unwrap();
    assert_eq!(last.len(), fits - 3 * (BATCH_BYTES_MAX / 4));
    // Closing would write it out.
    faults.inject(Fault::new(FaultKind::Stop));
}

#[test]
fn a_value_of_a_gibibyte_is_put_and_a_larger_one_is_refused() {
    assert_eq!(Limits::ENGINE.value_bytes_max, VALUE_BYTES_MAX);
    let (disk, faults, store, namespace) = world();
    assert_eq!(keys(&namespace), ["key"], "listing memory is not in the statistics");
    let (operations, stats) = (disk.operation_count(), store.stats());
    // Zeros take no memory until they are read, and these values are refused before that.
    let value = vec![0; VALUE_BYTES_MAX + 1];
    let too_long = [
        namespace.put("large", &value),
        namespace.put_with("large", &value, buffered()),
        store
            .batch()
            .put(&namespace, "small", "1")
            .put(&namespace, "large", &value)
            .commit(),
    ];
    for result in too_long {
        let error = result.expect_err("must be refused");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        let message = error.to_string();
        assert!(
            message.contains("1073741825 bytes") && message.contains("limit of 1073741824"),
            "{message}"
        );
    }
    assert_eq!(disk.operation_count(), operations, "something was written");
    assert_eq!(store.stats(), stats);
    assert_eq!(keys(&namespace), ["key"]);
    namespace.put_with("large", &value[1..], buffered()).unwrap();
    drop(value);
    let zeros = vec![0; 1 << 20];
    let found = namespace.get("large").unwrap().unwrap();
    assert_eq!(found.len(), VALUE_BYTES_MAX);
    // In chunks, which compare faster than single bytes.
    assert!(found.chunks(1 << 20).all(|piece| piece == zeros));
    // Closing would write it out.
    faults.inject(Fault::new(FaultKind::Stop));
}

#[test]
fn a_batch_counts_its_writes_whatever_they_are() {
    let (_, _, store, namespace) = world();
    let other = store.namespace("other").unwrap();
    let mut empty = store.batch();
    assert_eq!(empty.len(), 0);
    assert!(empty.is_empty());
    let before = store.stats().last_sequence;
    assert_eq!(empty.commit().unwrap(), before, "an empty batch writes nothing");
    let mut batch = store.batch();
    batch.put(&namespace, "a", "1");
    assert_eq!(batch.len(), 1);
    assert!(!batch.is_empty());
    // Every write counts, even to the same key, in another namespace, or of an absent key.
    batch.put(&namespace, "a", "2").put_with(&other, "a", "3", buffered());
    assert_eq!(batch.len(), 3);
    batch
        .delete(&namespace, "absent")
        .delete_if(&namespace, "key", embercask::Condition::Present);
    assert_eq!(batch.len(), 5);
    batch.durability(Durability::Os);
    assert_eq!(batch.len(), 5);
    batch.commit().unwrap();
    assert_eq!(keys(&namespace), ["a"]);
    assert_eq!(namespace.get("a").unwrap().unwrap(), "2");
    assert_eq!(keys(&other), ["a"]);
}
