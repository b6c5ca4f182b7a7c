//! The stores to damage: closed and killed ones, with every kind of record, and everything known
//! about them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use embercask::storage::{CutPolicy, MemStorage};
use embercask::{Durability, ManualClock, Namespace, Options, PutOptions, Store};

use crate::records::{Content, Record, TOMBSTONE, read_segment, resolve};
use test_support::way::Way;
use test_support::{DIRECTORY, class, manual};

pub(crate) const WRITTEN_MS: u64 = 1_700_000_000_000;
/// The time at which damaged stores are opened: records with a lifetime of a second have expired.
pub(crate) const NOW_MS: u64 = WRITTEN_MS + 3_600_000;

/// A store before it is damaged.
pub(crate) struct Subject {
    pub(crate) disk: MemStorage,
    pub(crate) files: BTreeMap<PathBuf, Vec<u8>>,
    /// Of all live segments, by file and offset.
    pub(crate) records: Vec<Record>,
    pub(crate) content: Content,
    /// All keys that ever existed, by the current name of their namespace.
    pub(crate) keys: BTreeSet<(String, Vec<u8>)>,
}

pub(crate) fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "segment")
}

pub(crate) fn is_hint(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "hint")
}

impl Subject {
    pub(crate) fn of(disk: &MemStorage) -> Subject {
        let disk = disk.power_cut(&CutPolicy::KeepAll);
        // With an index file a store opens regardless of its hints and without reading its records,
        // see `tests/engine/index_file.rs`.
        Way::Hints.prepare(&disk, DIRECTORY);
        let files: BTreeMap<_, _> = disk
            .files(DIRECTORY)
            .into_iter()
            .map(|path| (path.clone(), disk.read_file(&path).unwrap()))
            .collect();
        let mut records = Vec::new();
        for (path, bytes) in files.iter().filter(|(path, _)| is_segment(path)) {
            records.extend(read_segment(path, bytes));
        }
        let content = resolve(records.iter(), NOW_MS);
        let mut keys: BTreeSet<_> = content.items.keys().cloned().collect();
        for name in &content.namespaces {
            for record in records
                .iter()
                .filter(|record| record.has_key() && record.namespace != 0)
            {
                keys.insert((name.clone(), record.key.clone()));
            }
        }
        Subject {
            disk,
            files,
            records,
            content,
            keys,
        }
    }
}

pub(crate) fn options(disk: &MemStorage, now_ms: u64) -> Options {
    manual(Arc::new(disk.clone())).clock(ManualClock::new(now_ms))
}

fn reopen(disk: &MemStorage, store: Store) -> Store {
    store.close().unwrap();
    options(disk, WRITTEN_MS).open(DIRECTORY).unwrap()
}

/// Writes a bit of everything, with different values in each `round`.
fn write_some(store: &Store, round: usize) {
    let namespace = |name| store.namespace(name).unwrap();
    let (first, second) = (namespace("FIRST"), namespace("SECOND"));
    first.put("same", format!("round {round}")).unwrap();
    let rich = PutOptions::new().metadata("{}").expires_at_ms(WRITTEN_MS + 9_000_000);
    first.put_with(format!("rich {round}"), "r", rich).unwrap();
    first.put(format!("doomed {round}"), "d").unwrap();
    if round > 0 {
        first.delete(format!("doomed {}", round - 1)).unwrap();
        // An expiring put over one that would live on.
        let brief = PutOptions::new().expires_at_ms(WRITTEN_MS + 1_000);
        first.put_with(format!("plain {}", round - 1), "brief", brief).unwrap();
    }
    first.put(format!("plain {round}"), "").unwrap();
    let mut batch = store.batch();
    batch.put(&first, "both", [round as u8]);
    batch
        .put(&second, "both", [round as u8])
        .delete(&second, "none")
        .commit()
        .unwrap();
}

/// A closed store of about three kilobytes: outputs of compaction, segments of the log, a cut
/// segment and a segment rewritten by recovery, with every kind of record, a renamed namespace and
/// a dropped one. Two seeds make two unrelated stores.
pub(crate) fn small(seed: u64) -> Subject {
    let disk = MemStorage::seeded(seed);
    let store = options(&disk, WRITTEN_MS).open(DIRECTORY).unwrap();
    store.namespace("FIRST").unwrap();
    store.namespace("RENAMED").unwrap().put("kept", "1").unwrap();
    store.namespace("DROPPED").unwrap().put("gone", "1").unwrap();
    write_some(&store, 0);
    let store = reopen(&disk, store);
    write_some(&store, 1);
    let store = reopen(&disk, store);
    // Only some segments, so that tombstones must be kept.
    store.compact_subset(0b10).unwrap();
    store.rename_namespace("RENAMED", "AFTERWARDS").unwrap();
    store.drop_namespace("DROPPED").unwrap();
    let first = store.namespace("FIRST").unwrap();
    first.delete("doomed 1").unwrap();
    first
        .put_with("unsynced", "after the last mark", class(Durability::Os))
        .unwrap();
    let killed = disk.crash_process();
    drop((first, store));
    let store = options(&killed, WRITTEN_MS).open(DIRECTORY).unwrap();
    write_some(&store, 2);
    store.close().unwrap();
    let subject = Subject::of(&killed);
    check(&subject);
    subject
}

/// The same content in segments of several blocks; about 150 KB.
pub(crate) fn large() -> Subject {
    let disk = MemStorage::seeded(1);
    let open = || {
        options(&disk, WRITTEN_MS)
            .segment_bytes(24 << 10)
            .open(DIRECTORY)
            .unwrap()
    };
    let store = open();
    store.namespace("RENAMED").unwrap().put("kept", "1").unwrap();
    store.namespace("DROPPED").unwrap().put("gone", "1").unwrap();
    let fill = |namespace: &Namespace, round: usize| {
        for n in 0..100usize {
            let key = format!("key {:03}", (n * 7 + round * 31) % 150);
            let put = PutOptions::new().metadata(format!("{round}"));
            let put = match n % 9 {
                0 => put.expires_at_ms(WRITTEN_MS + 1_000),
                1 => put.expires_at_ms(WRITTEN_MS + 9_000_000 + n as u64),
                _ => put,
            };
            let put = put.durability(Durability::Os);
            namespace
                .put_with(&key, format!("{round} {n} ").repeat(n % 70), put)
                .unwrap();
            if n % 11 == 0 {
                namespace.delete(format!("key {:03}", n * 13 % 150)).unwrap();
            }
        }
    };
    for round in 0..4 {
        write_some(&store, round);
        fill(&store.namespace("FIRST").unwrap(), round);
    }
    store.namespace("FIRST").unwrap().put("large", [7; 9_000]).unwrap();
    store.rename_namespace("RENAMED", "AFTERWARDS").unwrap();
    store.drop_namespace("DROPPED").unwrap();
    store.close().unwrap();
    let store = open();
    store.compact_subset(0b11).unwrap();
    fill(&store.namespace("SECOND").unwrap(), 9);
    store.close().unwrap();
    let subject = Subject::of(&disk);
    check(&subject);
    subject
}

/// A killed store: sealed segments, and an active segment that is partly covered by marks.
pub(crate) fn killed() -> Subject {
    let disk = MemStorage::seeded(1);
    let store = options(&disk, WRITTEN_MS).open(DIRECTORY).unwrap();
    store.namespace("DROPPED").unwrap().put("gone", "1").unwrap();
    write_some(&store, 0);
    let store = reopen(&disk, store);
    write_some(&store, 1);
    store.drop_namespace("DROPPED").unwrap();
    let first = store.open_namespace("FIRST").unwrap();
    for n in 0..4 {
        first
            .put_with(format!("unsynced {n}"), "?", class(Durability::Os))
            .unwrap();
        let mut batch = store.batch();
        batch.put(&first, "a", [n]).put(&first, "b", [n]);
        batch.durability(Durability::Os).commit().unwrap();
    }
    first.delete_with("unsynced 2", None, Some(Durability::Os)).unwrap();
    let subject = Subject::of(&disk.crash_process());
    drop((first, store));
    subject
}

/// Asserts that the two readers of the format agree, and that the subject has all its content.
fn check(subject: &Subject) {
    let store = options(&subject.disk.crash_process(), NOW_MS).open(DIRECTORY).unwrap();
    assert_eq!(crate::judge::content(&store).unwrap(), subject.content);
    let kinds: BTreeSet<u8> = subject.records.iter().map(|record| record.kind).collect();
    assert_eq!(kinds, (1..=6).collect());
    let shows = |name: &str, key: &str| subject.content.items.contains_key(&(name.to_owned(), key.into()));
    assert!(shows("AFTERWARDS", "kept") && !shows("FIRST", "plain 0") && !shows("FIRST", "doomed 0"));
    let deleted = |record: &&Record| record.kind == TOMBSTONE && record.namespace == 0;
    assert_eq!(subject.records.iter().filter(deleted).count(), 1, "a dropped namespace");
    assert!(subject.files.keys().filter(|path| is_segment(path)).count() >= 4);
}
