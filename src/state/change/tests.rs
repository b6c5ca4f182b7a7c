use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::index::keydir::CAPACITY_MAX;
use crate::index::namespaces::encode_number;
use crate::index::order::KeyFlags;
use crate::location::Location;
use crate::storage::{Fault, FaultKind, FaultStorage, Interposed, Interposer, MemStorage, Operation as Call};
use crate::testing::{Task, until};
use crate::{Condition, Durability, ErrorKind, Maintenance, Namespace, PutOptions, ReadMode, Store};

/// A store that reads its segments from the disk.
fn open(disk: &MemStorage) -> (FaultStorage, Store, Namespace) {
    let faults = FaultStorage::new(Arc::new(disk.clone()));
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .read_mode(ReadMode::Pread)
        .storage(Arc::new(faults.clone()))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    (faults, store, namespace)
}

/// Seals everything and damages the header of this key's record; returns its location.
fn damage_header(disk: &MemStorage, store: &Store, namespace: &Namespace, key: &str) -> Location {
    let engine = store.engine();
    store.end_segment();
    let (number, key) = (namespace.state.number, key.as_bytes());
    let (location, _) = engine
        .state
        .find_header(&engine.state.hashed(number, key))
        .unwrap()
        .unwrap();
    let id = engine.state.segments.get(location.segment_index()).unwrap().id();
    disk.flip_bit(engine.context.segment_path(id), (location.offset() + 12) * 8)
        .unwrap();
    location
}

fn refused<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// C15
#[test]
fn a_key_whose_hash_is_that_of_a_damaged_one_is_written_beside_it() {
    let disk = MemStorage::new();
    let (_, store, namespace) = open(&disk);
    namespace.put("damaged", "value").unwrap();
    let location = damage_header(&disk, &store, &namespace, "damaged");
    let engine = store.engine();
    // As if both hashes had the same tag.
    let hash = engine.state.hash(namespace.state.number, b"new");
    engine.state.keydir.insert(hash, location).unwrap();
    for _ in 0..2 {
        assert!(namespace.get("new").unwrap().is_none());
        assert!(!namespace.delete("new").unwrap().existed);
        namespace.put_if("new", "1", Condition::Absent).unwrap();
        namespace.put("new", "2").unwrap();
        assert_eq!(namespace.get_text("new").unwrap().as_deref(), Some("2"));
        assert!(namespace.contains("new").unwrap());
        assert!(engine.state.points_at(hash, location), "the slot of the other key");
        assert_eq!(refused(namespace.get("damaged")), ErrorKind::Corruption);
        assert!(namespace.delete("new").unwrap().existed);
    }
    engine.state.keydir.remove(hash, location);
    namespace.put("damaged", "new").unwrap();
    assert_eq!(namespace.get_text("damaged").unwrap().as_deref(), Some("new"));
}

/// C15: rolling back a failed write restores the damaged record that it had replaced.
#[test]
fn a_failed_write_over_a_damaged_record_leaves_it_as_damaged_as_it_was() {
    let disk = MemStorage::new();
    let (faults, store, namespace) = open(&disk);
    namespace
        .put_with("key", "value", PutOptions::new().metadata("m"))
        .unwrap();
    namespace.put("other", "value").unwrap();
    let location = damage_header(&disk, &store, &namespace, "key");
    let engine = store.engine();
    let segment = engine.state.segments.get(location.segment_index()).unwrap();
    let before = segment.counters.get();
    let writes: [&dyn Fn() -> Result<()>; 4] = [
        &|| namespace.put("key", "new").map(drop),
        &|| namespace.delete("key").map(drop),
        &|| {
            store
                .batch()
                .put(&namespace, "key", "1")
                .delete(&namespace, "key")
                .commit()
                .map(drop)
        },
        &|| {
            store
                .batch()
                .delete(&namespace, "key")
                .put(&namespace, "key", "1")
                .commit()
                .map(drop)
        },
    ];
    for write in writes {
        faults.inject(Fault::new(FaultKind::Error(std::io::ErrorKind::Other)).on(Call::Write));
        assert_eq!(refused(write()), ErrorKind::Io);
        assert_eq!(segment.counters.get(), before);
        assert_eq!(namespace.state.order.flags(b"key"), Some(KeyFlags::METADATA));
        assert_eq!(refused(namespace.get("key")), ErrorKind::Corruption);
    }
    namespace.put("key", "new").unwrap();
    assert_eq!(segment.counters.get().live_puts, before.live_puts - 1);
    namespace.put("other", "new").unwrap();
    // The namespace's own record.
    store.rename_namespace("N", "M").unwrap();
    let after = segment.counters.get();
    assert_eq!((after.live_puts, after.live_bytes), (0, 0));
}

/// C15: a namespace whose own record is damaged, and a key of one that is dropped.
#[test]
fn damage_keeps_no_namespace_from_being_renamed_and_dropped_and_no_slot_from_being_freed() {
    let disk = MemStorage::new();
    let (_, store, namespace) = open(&disk);
    namespace.put("key", "value").unwrap();
    let location = damage_header(&disk, &store, &namespace, "key");
    let engine = store.engine();
    let segment = engine.state.segments.get(location.segment_index()).unwrap();
    let number = encode_number(namespace.state.number);
    let (own, _) = engine
        .state
        .find_header(&engine.state.hashed(SYSTEM_NAMESPACE, &number))
        .unwrap()
        .unwrap();
    disk.flip_bit(engine.context.segment_path(segment.id()), (own.offset() + 12) * 8)
        .unwrap();
    store.rename_namespace("N", "M").unwrap();
    store.create_namespace("N").unwrap();
    store.drop_namespace("M").unwrap();
    store.maintain().unwrap();
    assert_eq!(segment.counters.get().live_puts, 0);
    assert_eq!(engine.state.keydir.len(), 1);
    store.close().unwrap();
    let (_, store, _) = open(&disk);
    assert_eq!(store.namespaces().unwrap().len(), 1);
}

/// C7: keys that the index cannot hold are refused before they are in the log, and no others are.
#[test]
fn a_full_hash_index_refuses_new_keys_and_goes_on_with_the_others() {
    CAPACITY_MAX.set(64);
    let disk = MemStorage::new();
    let (_, store, namespace) = open(&disk);
    let engine = store.engine();
    let keys: Vec<String> = (0..)
        .map(|number: u32| number.to_string())
        .filter(|key| engine.state.hash(namespace.state.number, key.as_bytes()) >> 54 == 5)
        .take(60)
        .collect();
    let put = |key: &String| {
        let buffered = PutOptions::new().durability(Durability::Buffered);
        namespace.put_with(key, "value", buffered)
    };
    let mut held = 0;
    for key in &keys {
        match put(key) {
            Ok(_) => held += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}"),
        }
    }
    // 7/8 of the largest table, one less if the namespace's own record is in this shard.
    assert!((55..=56).contains(&held), "{held}");
    assert_eq!(store.stats().poisoned, None);
    let sequence = store.stats().last_sequence;
    let mut batch = store.batch();
    batch.put(&namespace, &keys[0], "new").put(&namespace, &keys[59], "new");
    assert_eq!(refused(batch.commit()), ErrorKind::InvalidInput);
    assert_eq!(store.stats().last_sequence, sequence, "nothing was appended");
    assert_eq!(namespace.get_text(&keys[0]).unwrap().as_deref(), Some("value"));
    put(&keys[0]).unwrap();
    for key in &keys[1..4] {
        assert!(namespace.delete(key).unwrap().existed);
    }
    // Three fit, four do not, and a key that occurs twice counts twice.
    let batch = |keys: &[String]| {
        let mut batch = store.batch();
        for key in keys {
            batch.put(&namespace, key, "new");
        }
        batch.commit()
    };
    assert_eq!(refused(batch(&keys[56..60])), ErrorKind::InvalidInput);
    batch(&keys[57..60]).unwrap();
    drop(namespace);
    store.close().unwrap();
    let (_, _, namespace) = open(&disk);
    assert_eq!(namespace.count().unwrap(), held);
    assert_eq!(namespace.get_text(&keys[59]).unwrap().as_deref(), Some("new"));
}

/// C7: opening also enters shadows, and hashes with new seeds, which may spread the keys less
/// evenly.
#[test]
fn a_store_that_filled_its_hash_index_opens_again_without_an_index_file() {
    CAPACITY_MAX.set(8);
    let disk = MemStorage::new();
    let (_, store, namespace) = open(&disk);
    let buffered = || PutOptions::new().durability(Durability::Buffered);
    let mut held = std::collections::BTreeSet::new();
    for number in 0..7_500 {
        let key = number.to_string();
        if namespace.put_with(&key, "value", buffered()).is_ok() {
            held.insert(key);
        }
    }
    assert!((6_000..7_168).contains(&held.len()), "{}", held.len());
    for number in 0..200 {
        let key = number.to_string();
        namespace.delete_with(&key, None, Some(Durability::Buffered)).unwrap();
        held.remove(&key);
    }
    for number in 8_000..9_000 {
        let key = number.to_string();
        if namespace.put_with(&key, "value", buffered()).is_ok() {
            held.insert(key);
        }
    }
    drop(namespace);
    store.close().unwrap();
    for with_index_file in [false, true] {
        if !with_index_file {
            disk.remove_file("/store/INDEX").unwrap();
        }
        let (_, store, namespace) = open(&disk);
        assert_eq!(store.recovery_report().index_file_used, with_index_file);
        assert_eq!(namespace.count().unwrap(), held.len() as u64);
        for key in &held {
            assert!(namespace.contains(key).unwrap(), "{key}");
        }
        // Keys that are there can be written, and new ones are refused where there is no room.
        for key in held.iter().take(100) {
            namespace.put_with(key, "new", buffered()).unwrap();
        }
        let new = (0..100).map(|number| namespace.put_with(format!("new {number}"), "value", buffered()));
        let refusals: Vec<_> = new.filter_map(Result::err).collect();
        assert!(!refusals.is_empty());
        assert!(refusals.iter().all(|error| error.kind() == ErrorKind::InvalidInput));
        for number in 0..100 {
            namespace.delete(format!("new {number}")).unwrap();
        }
        assert_eq!(store.stats().poisoned, None);
        drop(namespace);
        store.close().unwrap();
    }
}

/// Runs a callback at the n-th read from now.
struct AtRead {
    left: AtomicU64,
    then: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for AtRead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AtRead")
    }
}

impl Interposer for AtRead {
    fn around(
        &self,
        call: &crate::storage::Call<'_>,
        make: &mut dyn FnMut() -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        if call.operation == Call::Read && self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            let then = lock(&self.then).take();
            then.into_iter().for_each(|then| then());
        }
        make()
    }
}

/// C15: the reader finds the damage of another key and no record, and then the key in the order.
#[test]
fn a_key_that_is_put_while_a_reader_looks_at_damage_of_another_is_not_damaged() {
    let mut seen = [0, 0];
    for (looks_at_header, read) in [false, true]
        .iter()
        .flat_map(|header| (1..12).map(move |read| (*header, read)))
    {
        let disk = MemStorage::new();
        let at_read = Arc::new(AtRead {
            left: AtomicU64::new(0),
            then: Mutex::new(None),
        });
        let store = Store::options()
            .maintenance(Maintenance::Manual)
            .read_mode(ReadMode::Pread)
            .storage(Arc::new(Interposed::over(Arc::new(disk.clone()), at_read.clone())))
            .open("/store")
            .unwrap();
        let namespace = store.namespace("N").unwrap();
        namespace.put("damaged", "value").unwrap();
        let location = damage_header(&disk, &store, &namespace, "damaged");
        let engine = store.engine();
        // As if both hashes had the same tag; the slot before is free, so that a concurrent look-up
        // misses the new key.
        let hash = engine.state.hash(namespace.state.number, b"new");
        let before = Location::from_bits(location.bits() + 1);
        engine.state.keydir.insert(hash, before).unwrap();
        engine.state.keydir.insert(hash, location).unwrap();
        assert!(engine.state.keydir.remove(hash, before));
        let writer = namespace.clone();
        *lock(&at_read.then) = Some(Box::new(move || {
            let (tell, told) = std::sync::mpsc::channel();
            let put = std::thread::spawn(move || {
                tell.send(Task::current()).unwrap();
                writer.put("new", "1")
            });
            let task = told.recv().unwrap();
            // It waits if the reader is keeping writers out, and runs later.
            until("the put waits, or is done", || task.waits() || put.is_finished());
            if put.is_finished() {
                put.join().unwrap().unwrap();
            }
        }));
        at_read.left.store(read, Ordering::Relaxed);
        let found = if looks_at_header {
            namespace.contains("new").unwrap()
        } else {
            namespace.get("new").unwrap().is_some()
        };
        seen[usize::from(found)] += 1;
        assert_eq!(refused(namespace.get("damaged")), ErrorKind::Corruption);
    }
    assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
}
