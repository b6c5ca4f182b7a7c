//! Opening a directory that was damaged, cut off or tampered with: it yields the right content or
//! an error that names the place; never another value, never a panic.

mod closed_store;
mod end_of_log;
mod hints;
mod killed_process;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use embercask::storage::MemStorage;
use embercask::{ErrorKind, PutOptions, ReadMode, Result, Store};

use test_support::{DIRECTORY, ending, is_corruption, manual, open};

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

fn try_open(disk: &MemStorage, read_mode: ReadMode) -> Result<Store> {
    manual(Arc::new(disk.clone())).read_mode(read_mode).open(DIRECTORY)
}

/// All keys and values, read by listing and by `get`.
fn content(store: &Store) -> Result<Content> {
    let namespace = match store.open_namespace("N") {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Content::new()),
        found => found?,
    };
    let mut content = Content::new();
    for entry in namespace.list().with_values() {
        let entry = entry?;
        let value = entry.value().unwrap();
        assert_eq!(namespace.get(entry.key())?.unwrap(), *value);
        content.insert(entry.key().to_vec(), value.to_vec());
    }
    Ok(content)
}

/// Bytes in the active segment.
fn active_bytes(store: &Store) -> u64 {
    let segments = store.stats().segments;
    segments
        .iter()
        .filter(|segment| !segment.sealed)
        .map(|segment| segment.bytes)
        .sum()
}

/// The active segment of a killed store: the one with the highest id that the manifest lists as
/// open.
fn active(disk: &MemStorage) -> PathBuf {
    ending(disk, ".segment").pop().unwrap()
}

/// A small killed store with sealed segments, an active one with several synced writes, and every
/// kind of record; and its content after each write, the last of which was synced.
fn killed() -> (MemStorage, Vec<Content>) {
    killed_on(MemStorage::new())
}

fn killed_on(disk: MemStorage) -> (MemStorage, Vec<Content>) {
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    let mut history = vec![Content::new(), content(&store).unwrap()];
    for n in 0.. {
        if n >= 30 && active_bytes(&store) > 2_500 {
            break;
        }
        let key = format!("key {}", n % 11);
        let value = format!("value {n} {}", "x".repeat(300));
        match n % 6 {
            1 => drop(namespace.delete(&key).unwrap()),
            2 => {
                let mut batch = store.batch();
                batch.put(&namespace, &key, &value).put(&namespace, "batch", &value);
                batch.delete(&namespace, "key 3").commit().unwrap();
            }
            3 => {
                let ttl = PutOptions::new().ttl(Duration::from_secs(1 << 40)).metadata("metadata");
                namespace.put_with(&key, &value, ttl).unwrap();
            }
            _ => drop(namespace.put(&key, &value).unwrap()),
        }
        history.push(content(&store).unwrap());
    }
    let stats = store.stats();
    assert!(
        stats.segments.iter().filter(|segment| segment.sealed).count() >= 2,
        "{stats:?}"
    );
    assert!(stats.segments.iter().any(|segment| !segment.sealed), "{stats:?}");
    (disk.crash_process(), history)
}

/// The store of `killed`, after recovery and a close.
fn closed() -> (MemStorage, Content) {
    let (disk, mut history) = killed();
    open(&disk).close().unwrap();
    (disk.crash_process(), history.pop().unwrap())
}

/// Opens a damaged store. Its content must be one of those allowed, or an error must say where the
/// damage is. Damage may also be found only when a record is read, but no key may have another
/// value.
fn judge(disk: &MemStorage, read_mode: ReadMode, allowed: &[Content], context: &str) -> Option<Content> {
    judge_opened(try_open(disk, read_mode), disk, allowed, context)
}

/// As [`judge`], after opening.
fn judge_opened(opened: Result<Store>, disk: &MemStorage, allowed: &[Content], context: &str) -> Option<Content> {
    let store = match opened {
        Ok(store) => store,
        Err(error) => {
            is_corruption(&error, disk, context);
            return None;
        }
    };
    match content(&store) {
        Ok(found) => {
            assert!(
                allowed.contains(&found),
                "{context}: content that never existed: {:?}",
                found.keys()
            );
            Some(found)
        }
        Err(error) => {
            is_corruption(&error, disk, context);
            let latest = allowed.last().unwrap();
            let namespace = store.open_namespace("N").unwrap();
            for (key, value) in latest {
                match namespace.get(key) {
                    Ok(found) => assert!(found.is_some_and(|found| found == *value), "{context}"),
                    Err(error) => is_corruption(&error, disk, context),
                }
            }
            None
        }
    }
}
