//! A failed write leaves everything as it was, for every reader, at every moment.

use std::io::ErrorKind as IoErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation, Storage};
use embercask::{Durability, ErrorKind, Maintenance, Namespace, PutOptions, ReadMode, Store};
use test_support::StopOnDrop;

use test_support::hooked::Hooked;

/// A store that reads on each call, with the value of "key" in a sealed segment.
fn open(faults: &FaultStorage, mode: ReadMode) -> (Store, Namespace) {
    filled(Arc::new(faults.clone()), mode)
}

fn filled(storage: Arc<dyn Storage>, mode: ReadMode) -> (Store, Namespace) {
    let store = Store::options()
        .segment_bytes(4096)
        .maintenance(Maintenance::Manual)
        .durability(Durability::Os)
        .read_mode(mode)
        .storage(storage)
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", "old").unwrap();
    for number in 0..60 {
        namespace.put(format!("fill {number}"), [7; 200]).unwrap();
    }
    store.maintain().unwrap();
    (store, namespace)
}

fn disk_with_faults() -> FaultStorage {
    FaultStorage::new(Arc::new(MemStorage::new()))
}

fn failing(operation: Operation) -> Fault {
    Fault::new(FaultKind::Error(IoErrorKind::Other))
        .on(operation)
        .path(".segment")
}

#[test]
fn a_batch_that_cannot_read_what_it_replaces_is_not_acknowledged() {
    let faults = disk_with_faults();
    let (store, namespace) = open(&faults, ReadMode::Pread);
    faults.inject(failing(Operation::Read));
    let refused = store.batch().put(&namespace, "key", "new").commit().unwrap_err();
    faults.clear();
    assert_eq!(refused.kind(), ErrorKind::Io);
    assert_eq!(namespace.get("key").unwrap().unwrap(), *b"old");
    faults.inject(failing(Operation::Read));
    let refused = store.batch().delete(&namespace, "key").commit().unwrap_err();
    faults.clear();
    assert_eq!(refused.kind(), ErrorKind::Io);
    assert_eq!(namespace.get("key").unwrap().unwrap(), *b"old");
    store.batch().delete(&namespace, "key").commit().unwrap();
    assert!(namespace.get("key").unwrap().is_none());
    assert_eq!(namespace.count().unwrap(), store.stats().keys);
}

#[test]
fn a_later_write_of_a_batch_finds_the_earlier_one_of_the_same_key() {
    let faults = disk_with_faults();
    let (store, namespace) = open(&faults, ReadMode::Map);
    let mut batch = store.batch();
    batch.put(&namespace, "key", "one").put(&namespace, "key", "two");
    batch.put(&namespace, "new", "one").delete(&namespace, "new");
    batch
        .delete(&namespace, "fill 1")
        .put(&namespace, "fill 1", "again")
        .commit()
        .unwrap();
    assert_eq!(namespace.get("key").unwrap().unwrap(), *b"two");
    assert!(namespace.get("new").unwrap().is_none());
    assert_eq!(namespace.get("fill 1").unwrap().unwrap(), *b"again");
    let stats = store.stats();
    assert_eq!(stats.keys, 61);
    let live: u64 = stats.segments.iter().map(|segment| segment.live_records).sum();
    assert_eq!(live, stats.keys + stats.namespaces);
}

#[test]
fn a_write_that_failed_gives_back_what_was_there_though_nothing_can_be_read() {
    let faults = disk_with_faults();
    let (store, namespace) = open(&faults, ReadMode::Pread);
    faults.inject(failing(Operation::Write));
    // The first read is the put's look-up; reads by the roll-back, if there were any, would fail.
    faults.inject(failing(Operation::Read).at(faults.steps() + 1).repeated());
    let before = faults.struck();
    assert_eq!(namespace.put("key", "new").unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(faults.struck(), before + 1, "the roll-back reads");
    faults.clear();
    assert_eq!(namespace.get("key").unwrap().unwrap(), *b"old");
    store.compact().unwrap();
    assert_eq!(namespace.get("key").unwrap().unwrap(), *b"old");
}

#[test]
fn a_reader_never_misses_a_key_while_failed_writes_of_it_are_rolled_back() {
    let faults = disk_with_faults();
    let (_store, namespace) = open(&faults, ReadMode::Map);
    const TIMES: u64 = 3_000;
    let (written, looks_ended) = (AtomicBool::new(false), AtomicBool::new(false));
    let looks = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _written = StopOnDrop(&written);
            // At least this often, and until the reader has read often enough.
            for number in 0.. {
                let looked = looks.load(Ordering::Relaxed) >= TIMES || looks_ended.load(Ordering::Relaxed);
                if number >= TIMES && looked {
                    return;
                }
                faults.inject(failing(Operation::Write));
                let options = PutOptions::new().durability(Durability::Os);
                let failed = namespace.put_with("key", format!("new {number}"), options);
                assert_eq!(failed.unwrap_err().kind(), ErrorKind::Io);
                faults.clear();
            }
        });
        let _looks_ended = StopOnDrop(&looks_ended);
        while !written.load(Ordering::Relaxed) {
            let found = namespace.get("key").unwrap();
            assert!(found.is_some(), "an acknowledged key was missed");
            looks.fetch_add(1, Ordering::Relaxed);
        }
    });
    assert_eq!(namespace.get("key").unwrap().unwrap(), *b"old");
}

/// A store with one namespace whose very first writes to the log failed and were retried.
fn store_whose_first_write_failed(faults: &FaultStorage) -> Namespace {
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .storage(Arc::new(faults.clone()))
        .open("/store")
        .unwrap();
    // The segment's header comes first, then the first record.
    let mut failures = 0;
    loop {
        faults.inject(failing(Operation::Write).at(faults.steps() + failures));
        let namespace = store.namespace("N");
        faults.clear();
        match namespace {
            Ok(namespace) => {
                assert!(failures > 1, "the first write of a record never failed");
                return namespace;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Io, "{error}");
                failures += 1;
            }
        }
    }
}

#[test]
fn a_segment_whose_first_write_failed_is_part_of_the_log_all_the_same() {
    let disk = MemStorage::new();
    let namespace = store_whose_first_write_failed(&FaultStorage::new(Arc::new(disk.clone())));
    namespace.put("key", "value").unwrap();
    namespace.put("another", "value").unwrap();
    let killed = Arc::new(disk.crash_process());
    let store = Store::options().storage(killed).open("/store").unwrap();
    let namespace = store.open_namespace("N").unwrap();
    assert_eq!(namespace.get("key").unwrap().unwrap(), *b"value");
    assert_eq!(namespace.get("another").unwrap().unwrap(), *b"value");
}

#[test]
fn damage_to_what_was_durable_is_told_although_the_write_that_was_to_mark_it_failed() {
    let disk = MemStorage::new();
    let faults = FaultStorage::new(Arc::new(disk.clone()));
    let open = |disk: Arc<dyn embercask::storage::Storage>| {
        Store::options()
            .maintenance(Maintenance::Manual)
            .storage(disk)
            .open("/store")
    };
    let store = open(Arc::new(faults.clone())).unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("durable", [1; 64]).unwrap();
    faults.inject(failing(Operation::Write));
    assert_eq!(namespace.put("failed", [2; 64]).unwrap_err().kind(), ErrorKind::Io);
    faults.clear();
    namespace.put("later", [3; 64]).unwrap();

    let killed = disk.crash_process();
    let path = "/store/0000000000000001.segment";
    let bytes = killed.read_file(path).unwrap();
    let value = bytes.windows(64).position(|window| window == [1; 64]).unwrap();
    killed.flip_bit(path, value as u64 * 8).unwrap();
    let error = open(Arc::new(killed)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
}

/// The progress of a compaction and a concurrent write; each waits for steps of the other.
#[derive(Clone, Default)]
struct Steps(Arc<AtomicU8>);

impl Steps {
    fn reach(&self, step: u8) {
        self.0.store(step, Ordering::Release);
    }

    fn is_at(&self, step: u8) -> bool {
        self.0.load(Ordering::Acquire) == step
    }

    fn wait_for(&self, step: u8) {
        while self.0.load(Ordering::Acquire) < step {
            std::thread::yield_now();
        }
    }
}

/// Waits for this step, then fails.
fn fail_at(steps: &Steps, step: u8) -> std::io::Result<()> {
    steps.wait_for(step);
    Err(IoErrorKind::Other.into())
}

/// Compaction takes a record for overwritten, and the overwriting write is rolled back before the
/// outputs are published.
#[test]
fn what_compaction_took_for_overwritten_is_there_when_the_overwriting_write_is_rolled_back() {
    const IN_WRITE: u8 = 2;
    const COPIED: u8 = 3;
    const TAKEN_BACK: u8 = 4;
    let (disk, steps) = (MemStorage::new(), Steps::default());
    let of_hook = steps.clone();
    let storage = Hooked::over(&disk, move |operation, path| {
        let is_segment = operation == Operation::Write && path.extension().is_some_and(|name| name == "segment");
        if is_segment && of_hook.is_at(1) {
            of_hook.reach(IN_WRITE);
            return fail_at(&of_hook, COPIED);
        }
        if is_segment && of_hook.is_at(IN_WRITE) {
            // All decisions have been made when the first output is written.
            of_hook.reach(COPIED);
        }
        if operation == Operation::Sync && of_hook.is_at(COPIED) {
            // The output's sync: the log is synced after it, and would hit the write's own failure.
            of_hook.wait_for(TAKEN_BACK);
        }
        Ok(())
    });
    let (store, namespace) = filled(storage, ReadMode::Pread);
    steps.reach(1);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let written = namespace.put("key", "new");
            steps.reach(TAKEN_BACK);
            written
        });
        steps.wait_for(IN_WRITE);
        let compacted = store.compact_subset(u64::MAX);
        if steps.is_at(IN_WRITE) {
            steps.reach(COPIED);
        }
        assert_eq!(writing.join().unwrap().unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(namespace.get("key").unwrap().unwrap(), *b"old");
        assert_eq!(compacted.unwrap_err().kind(), ErrorKind::Cancelled);
    });
    store.compact().unwrap();
    assert_eq!(namespace.get("key").unwrap().unwrap(), *b"old");
}

/// Compaction moves a record while a write that replaces it is running, which is rolled back
/// afterwards.
#[test]
fn a_write_that_is_rolled_back_after_a_compaction_uncovers_the_copy() {
    const RENAMING: u8 = 2;
    const IN_WRITE: u8 = 3;
    const COMPACTED: u8 = 4;
    let (disk, steps) = (MemStorage::new(), Steps::default());
    let of_hook = steps.clone();
    let storage = Hooked::over(&disk, move |operation, path| {
        if operation == Operation::Rename && of_hook.is_at(1) {
            // Compaction has made its decisions.
            of_hook.reach(RENAMING);
            of_hook.wait_for(IN_WRITE);
        }
        let is_segment = operation == Operation::Write && path.extension().is_some_and(|name| name == "segment");
        if is_segment && of_hook.is_at(RENAMING) {
            of_hook.reach(IN_WRITE);
            return fail_at(&of_hook, COMPACTED);
        }
        Ok(())
    });
    let (store, namespace) = filled(storage, ReadMode::Pread);
    steps.reach(1);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            steps.wait_for(RENAMING);
            namespace.put("key", "new")
        });
        let compacted = store.compact_subset(u64::MAX);
        steps.reach(COMPACTED);
        assert_eq!(writing.join().unwrap().unwrap_err().kind(), ErrorKind::Io);
        assert!(compacted.unwrap().runs == 1);
        assert_eq!(namespace.get("key").unwrap().unwrap(), *b"old");
    });
}
