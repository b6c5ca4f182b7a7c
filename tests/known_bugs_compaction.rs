//! Accidents that other engines had with compaction, recovery and crashes, each as a test that fails if the answer is taken
//! out. Comments name the row of `docs/known-bugs.md`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embercask::storage::{
    CutPolicy, Fault, FaultKind, FaultStorage, MemStorage, Operation, Storage, StorageFile, StorageLock,
};
use embercask::{Durability, Error, Maintenance, ManualClock, Namespace, Options, PutOptions, Result, Store};

const DIRECTORY: &str = "/data/store";
const START_MS: u64 = 1_700_000_000_000;

fn options(storage: Arc<dyn Storage>) -> Options {
    Store::options()
        .segment_bytes(4096)
        .maintenance(Maintenance::Manual)
        .storage(storage)
}

fn open(disk: &MemStorage) -> Store {
    options(Arc::new(disk.clone())).open(DIRECTORY).unwrap()
}

fn open_at(disk: &MemStorage, clock: &ManualClock) -> Store {
    options(Arc::new(disk.clone()))
        .clock(clock.clone())
        .expiry_grace(Duration::ZERO)
        .open(DIRECTORY)
        .unwrap()
}

/// A storage whose steps are those that change something.
fn stepped(disk: &MemStorage) -> FaultStorage {
    FaultStorage::new(Arc::new(disk.clone())).counting_mutating_steps_only()
}

fn os() -> PutOptions {
    PutOptions::new().durability(Durability::Os)
}

fn buffered() -> PutOptions {
    PutOptions::new().durability(Durability::Buffered)
}

/// Fills the active segment, so that what comes next lies in another one.
fn next_segment(namespace: &Namespace, filler: &str) {
    let before = namespace.store().stats().segments.len();
    for n in 0.. {
        namespace.put_with(format!("{filler}-{n}"), [b'x'; 900], os()).unwrap();
        if namespace.store().stats().segments.len() > before {
            return;
        }
    }
}

/// What a power cut or a kill may leave.
fn after_crashes(disk: &MemStorage, seeds: u64) -> Vec<(String, MemStorage)> {
    let random = (0..seeds).map(|seed| CutPolicy::Random {
        seed,
        grain: if seed % 4 == 3 { 4096 } else { 512 },
    });
    let mut disks: Vec<_> = [CutPolicy::LoseUnsynced, CutPolicy::KeepAll]
        .into_iter()
        .chain(random)
        .map(|policy| (format!("{policy:?}"), disk.power_cut(&policy)))
        .collect();
    disks.push(("a kill".to_owned(), disk.crash_process()));
    disks
}

type Content = BTreeMap<(String, Vec<u8>), Vec<u8>>;

/// All keys of all namespaces.
fn content(store: &Store) -> Content {
    let mut content = Content::new();
    for info in store.namespaces().unwrap() {
        for entry in store.open_namespace(&info.name).unwrap().list().with_values() {
            let entry = entry.unwrap();
            content.insert(
                (info.name.clone(), entry.key().to_vec()),
                entry.value().unwrap().to_vec(),
            );
        }
    }
    content
}

fn delete_hints(disk: &MemStorage) {
    for path in disk.files(DIRECTORY) {
        if path.extension().is_some_and(|extension| extension == "hint") {
            disk.remove_file(&path).unwrap();
        }
    }
}

/// A closed store of several segments, in which `hide` has hidden the first value of the key `k`.
fn with_hidden_value(clock: &ManualClock, hide: impl Fn(&Namespace)) -> MemStorage {
    let disk = MemStorage::new();
    let store = open_at(&disk, clock);
    let namespace = store.namespace("N").unwrap();
    namespace.put("k", "old").unwrap();
    next_segment(&namespace, "a");
    namespace.put("other", "1").unwrap();
    next_segment(&namespace, "b");
    hide(&namespace);
    next_segment(&namespace, "c");
    namespace.put("other", "2").unwrap();
    store.close().unwrap();
    clock.advance(60_000);
    disk
}

/// Compacts every subset of the segments, then every subset of what that left; `k` must stay gone, also for those who open the
/// store without hints; and in the end nothing is left of it.
fn stays_hidden_whatever_is_compacted(disk: &MemStorage, clock: &ManualClock) {
    let segments = open_at(&disk.crash_process(), clock).stats().segments.len();
    assert!(segments >= 4, "{segments} segments");
    let masks = 1u64 << segments;
    for (first, second) in (0..masks).flat_map(|first| (0..masks).map(move |second| (first, second))) {
        // All pairs are many; a fixed quarter of them is enough to meet every first and every second subset.
        if (first * 5 + second) % 4 != 0 {
            continue;
        }
        let disk = disk.crash_process();
        let store = open_at(&disk, clock);
        let check = |store: &Store, when: &str| {
            let namespace = store.open_namespace("N").unwrap();
            assert!(
                namespace.get("k").unwrap().is_none(),
                "{first:b}, then {second:b}: there again {when}"
            );
            assert_eq!(namespace.get("other").unwrap().unwrap(), *b"2");
        };
        store.compact_subset(first).unwrap();
        check(&store, "after the first");
        store.compact_subset(second).unwrap();
        check(&store, "after the second");
        store.close().unwrap();
        delete_hints(&disk);
        let store = open_at(&disk, clock);
        check(&store, "after opening again");
        store.compact().unwrap();
        check(&store, "after compacting all");
        let stats = store.stats();
        assert_eq!(
            (stats.dead_bytes, stats.tombstone_bytes),
            (0, 0),
            "{first:b}, then {second:b}"
        );
    }
}

/// B1
#[test]
fn a_tombstone_stays_until_what_it_hides_is_gone() {
    let clock = ManualClock::new(START_MS);
    let disk = with_hidden_value(&clock, |namespace| assert!(namespace.delete("k").unwrap()));
    stays_hidden_whatever_is_compacted(&disk, &clock);
}

/// B2
#[test]
fn an_expired_put_does_not_uncover_the_value_below_it() {
    let clock = ManualClock::new(START_MS);
    let ttl = PutOptions::new().ttl(Duration::from_secs(5));
    let disk = with_hidden_value(&clock, |namespace| {
        assert!(namespace.put_with("k", "new", ttl.clone()).unwrap() > 0)
    });
    stays_hidden_whatever_is_compacted(&disk, &clock);
}

/// B1 and B2, of a whole namespace.
#[test]
fn a_dropped_namespace_stays_dropped_whatever_is_compacted() {
    let clock = ManualClock::new(START_MS);
    let disk = MemStorage::new();
    let store = open_at(&disk, &clock);
    let (dropped, kept) = (store.namespace("DROPPED").unwrap(), store.namespace("N").unwrap());
    dropped.put("k", "old").unwrap();
    next_segment(&kept, "a");
    dropped.put("other", "1").unwrap();
    next_segment(&kept, "b");
    store.drop_namespace("DROPPED").unwrap();
    next_segment(&kept, "c");
    kept.put("other", "2").unwrap();
    store.close().unwrap();
    let gone = |store: &Store| matches!(store.open_namespace("DROPPED"), Err(Error::NamespaceNotFound { .. }));
    for (first, second) in (0..16).flat_map(|first| (0..16).map(move |second| (first, second))) {
        let disk = disk.crash_process();
        for mask in [first, second] {
            let store = open_at(&disk, &clock);
            store.compact_subset(mask).unwrap();
            store.close().unwrap();
        }
        let store = open_at(&disk, &clock);
        assert!(gone(&store), "{first:b}, then {second:b}");
        let again = store.create_namespace("DROPPED").unwrap();
        assert_eq!(again.count().unwrap(), 0, "{first:b}, then {second:b}");
    }
}

/// B3
#[test]
fn the_newest_record_wins_whatever_file_it_lies_in() {
    let clock = ManualClock::new(START_MS);
    type Change = fn(&Namespace);
    let changes: [(Change, Option<&[u8]>); 3] = [
        (
            |namespace| assert!(namespace.put("k", "new").unwrap() > 0),
            Some(b"new"),
        ),
        (|namespace| assert!(namespace.delete("k").unwrap()), None),
        (
            |namespace| {
                let ttl = PutOptions::new().ttl(Duration::from_millis(1));
                assert!(namespace.put_with("k", "short", ttl).unwrap() > 0);
            },
            None,
        ),
    ];
    for (change, expected) in changes {
        let disk = MemStorage::new();
        let store = open_at(&disk, &clock);
        let namespace = store.namespace("N").unwrap();
        namespace.put("k", "old").unwrap();
        next_segment(&namespace, "a");
        // The active segment is there already when the old value is copied into one with a higher id.
        let active = store.stats().segments.last().unwrap().id;
        store.compact_subset(1).unwrap();
        let copy = store.stats().segments.last().unwrap().id;
        assert!(copy > active);
        change(&namespace);
        clock.advance(10);
        let look = |disk: &MemStorage| {
            let store = open_at(disk, &clock);
            store
                .open_namespace("N")
                .unwrap()
                .get("k")
                .unwrap()
                .map(|value| value.to_vec())
        };
        for (crash, disk) in after_crashes(&disk, 4) {
            assert_eq!(look(&disk).as_deref(), expected, "after {crash}");
        }
        store.close().unwrap();
        assert_eq!(look(&disk).as_deref(), expected);
        delete_hints(&disk);
        assert_eq!(look(&disk).as_deref(), expected, "without hints");
    }
}

/// B3
#[test]
fn sequences_rise_beyond_those_of_records_that_are_gone() {
    let disk = MemStorage::new();
    let mut highest = 0;
    for _ in 0..5 {
        let store = open(&disk);
        let namespace = store.namespace("N").unwrap();
        let sequence = namespace.put("k", "v").unwrap();
        assert!(sequence > highest);
        namespace.delete("k").unwrap();
        highest = store.stats().last_sequence;
        // Nothing of it is left, nor of its tombstone.
        store.compact().unwrap();
        assert_eq!(store.stats().keys, 0);
        store.close().unwrap();
    }
}

/// Calls back before each change of names; while it does, further changes do not.
struct Hooked {
    inner: MemStorage,
    calls: AtomicU64,
    busy: AtomicBool,
    hook: Mutex<Option<Hook>>,
}

type Hook = Box<dyn FnMut(u64) + Send>;

impl std::fmt::Debug for Hooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooked")
    }
}

impl Hooked {
    fn call(&self) {
        if self.busy.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Some(hook) = self.hook.lock().unwrap().as_mut() {
            hook(self.calls.fetch_add(1, Ordering::SeqCst));
        }
        self.busy.store(false, Ordering::SeqCst);
    }
}

impl Storage for Hooked {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.inner.create_directory(path)
    }
    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        self.inner.list(directory)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.call();
        self.inner.create(path)
    }
    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn StorageFile>> {
        self.inner.open(path, write)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call();
        self.inner.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call();
        self.inner.remove(path)
    }
    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_directory(path)
    }
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.hard_link(from, to)
    }
    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.call();
        self.inner.sync_directory(directory)
    }
    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn StorageLock>> {
        self.inner.lock(path, owner)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }
}

/// B4, at every point of a compaction at which something else can happen, one after the other.
#[test]
fn compaction_never_puts_an_old_record_over_a_newer_one() {
    let mut last = 0;
    for at in 0.. {
        let disk = MemStorage::new();
        let hooked = Arc::new(Hooked {
            inner: disk.clone(),
            calls: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            hook: Mutex::new(None),
        });
        let store = options(hooked.clone()).open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        for key in ["put", "deleted", "expiring", "left"] {
            namespace.put(key, "old").unwrap();
            namespace.put("overwritten", key).unwrap();
        }
        next_segment(&namespace, "a");
        let writer = namespace.clone();
        *hooked.hook.lock().unwrap() = Some(Box::new(move |call| {
            if call == at {
                writer.put_with("put", "new", buffered()).unwrap();
                writer.delete_with("deleted", None, Some(Durability::Buffered)).unwrap();
                writer
                    .put_with("expiring", "new", buffered().ttl(Duration::from_secs(3600)))
                    .unwrap();
                writer.put_with("created", "new", buffered()).unwrap();
            }
        }));
        store.compact_subset(u64::MAX).unwrap();
        *hooked.hook.lock().unwrap() = None;
        let reached = hooked.calls.load(Ordering::SeqCst) > at;
        let check = |namespace: &Namespace| {
            let (put, created) = if reached {
                (&b"new"[..], Some(&b"new"[..]))
            } else {
                (&b"old"[..], None)
            };
            let get = |key: &str| namespace.get(key).unwrap().map(|value| value.to_vec());
            assert_eq!(get("put").as_deref(), Some(put), "at call {at}");
            assert_eq!(get("expiring").as_deref(), Some(put), "at call {at}");
            assert_eq!(get("deleted").is_some(), !reached, "at call {at}");
            assert_eq!(get("created").as_deref(), created, "at call {at}");
            assert_eq!(get("left").as_deref(), Some(&b"old"[..]), "at call {at}");
        };
        check(&namespace);
        store.compact().unwrap();
        check(&namespace);
        store.close().unwrap();
        check(&open(&disk).open_namespace("N").unwrap());
        last = at;
        if !reached {
            break;
        }
    }
    assert!(last >= 5, "only {last} points");
}

/// A closed store with everything in it that compaction treats in a way of its own.
fn with_waste(clock: &ManualClock) -> (MemStorage, Content) {
    let disk = MemStorage::new();
    let store = open_at(&disk, clock);
    let (one, two) = (store.namespace("N").unwrap(), store.namespace("DROPPED").unwrap());
    for round in 0..4 {
        for key in ["a", "b", "gone", "expired"] {
            one.put(key, format!("{key} {round}")).unwrap();
        }
        two.put("x", "y").unwrap();
        next_segment(&one, "filler");
    }
    one.delete("gone").unwrap();
    one.put_with(
        "expired",
        "for a moment",
        PutOptions::new().ttl(Duration::from_millis(5)),
    )
    .unwrap();
    store.drop_namespace("DROPPED").unwrap();
    store.batch().put(&one, "a", "last").delete(&one, "b").commit().unwrap();
    clock.advance(10);
    let content = content(&store);
    store.close().unwrap();
    (disk, content)
}

/// B6
#[test]
fn a_crash_at_any_step_of_a_compaction_changes_nothing() {
    let clock = ManualClock::new(START_MS);
    let (disk, expected) = with_waste(&clock);
    let mut last = 0;
    for step in 0.. {
        let disk = disk.crash_process();
        let faults = stepped(&disk);
        let store = options(Arc::new(faults.clone()))
            .clock(clock.clone())
            .expiry_grace(Duration::ZERO)
            .open(DIRECTORY)
            .unwrap();
        faults.stop_at(faults.steps() + step);
        let compacted = store.compact();
        for (crash, disk) in after_crashes(&disk, 6) {
            let store = open_at(&disk, &clock);
            assert_eq!(content(&store), expected, "step {step}, {crash}");
            store.compact().unwrap();
            assert_eq!(content(&store), expected, "step {step}, {crash}, compacted");
            let stats = store.stats();
            assert_eq!(
                (stats.dead_bytes, stats.tombstone_bytes),
                (0, 0),
                "step {step}, {crash}"
            );
            store.close().unwrap();
            assert_eq!(
                content(&open_at(&disk, &clock)),
                expected,
                "step {step}, {crash}, opened again"
            );
        }
        last = step;
        if !faults.is_stopped() {
            compacted.unwrap();
            break;
        }
    }
    assert!(last > 15, "only {last} steps");
}

fn segment_ids(disk: &MemStorage) -> Vec<u64> {
    let name = |path: &Path| Some(path.file_name()?.to_str()?.strip_suffix(".segment")?.to_owned());
    disk.files(DIRECTORY)
        .iter()
        .filter_map(|path| name(path))
        .map(|name| u64::from_str_radix(&name, 16).unwrap())
        .collect()
}

/// B14
#[test]
fn the_id_of_an_empty_segment_is_not_given_out_again() {
    let disk = MemStorage::new();
    let mut highest = 0;
    for round in 0..6 {
        let store = open(&disk);
        let namespace = store.namespace("N").unwrap();
        // A segment is begun, and nothing is written to it; or something that leaves nothing behind.
        if round % 2 == 0 {
            assert!(!namespace.delete("absent").unwrap());
        } else {
            namespace.put("k", "v").unwrap();
            namespace.delete("k").unwrap();
        }
        let ids = segment_ids(&disk);
        let newest = *ids.last().unwrap();
        assert!(newest > highest, "round {round}: {newest} after {highest}");
        store.compact().unwrap();
        highest = newest.max(*segment_ids(&disk).last().unwrap());
        if round % 3 == 2 {
            drop((store, namespace));
        } else {
            store.close().unwrap();
        }
    }
}

/// Puts that were written one after the other, as far as the store shows them: all up to some number, none after.
fn count_of_prefix(store: &Store, written: usize) -> usize {
    let namespace = store.open_namespace("N").unwrap();
    let there: Vec<bool> = (0..written)
        .map(|n| namespace.contains(format!("{n:03}")).unwrap())
        .collect();
    let count = there.iter().take_while(|there| **there).count();
    assert!(there.iter().skip(count).all(|there| !there), "a hole: {there:?}");
    for n in 0..count {
        let value = namespace.get(format!("{n:03}")).unwrap().unwrap();
        assert_eq!(value.as_bytes(), format!("value {n} ").repeat(20).as_bytes());
    }
    count
}

fn put_numbered(namespace: &Namespace, n: usize, durability: Durability) -> Result<u64> {
    let options = PutOptions::new().durability(durability);
    namespace.put_with(format!("{n:03}"), format!("value {n} ").repeat(20), options)
}

/// A store that was killed, or would be: the first puts are durable, the later ones in the page cache, over several segments.
fn with_unsynced_tail() -> (MemStorage, usize, usize) {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    let (durable, written) = (6, 40);
    for n in 0..durable {
        put_numbered(&namespace, n, Durability::Sync).unwrap();
    }
    for n in durable..written {
        put_numbered(&namespace, n, Durability::Buffered).unwrap();
    }
    store.flush().unwrap();
    (disk.crash_process(), durable, written)
}

/// B30
#[test]
fn recovery_can_be_cut_off_at_any_step_again_and_again() {
    let (disk, durable, written) = with_unsynced_tail();
    let open_stopped = |disk: &MemStorage, step: u64| {
        let faults = stepped(disk);
        faults.stop_at(step);
        drop(options(Arc::new(faults.clone())).open(DIRECTORY));
        faults.is_stopped()
    };
    let check = |disk: &MemStorage, at_least: usize, what: &str| {
        let store = options(Arc::new(disk.clone()))
            .open(DIRECTORY)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let seen = count_of_prefix(&store, written);
        assert!(
            (at_least..=written).contains(&seen),
            "{what}: {seen} puts of at least {at_least}"
        );
        // What was seen stays.
        let later = open(&disk.power_cut(&CutPolicy::LoseUnsynced));
        assert_eq!(count_of_prefix(&later, written), seen, "{what}, and a power cut later");
    };
    let mut last = 0;
    for step in 0.. {
        let first = disk.crash_process();
        let stopped = open_stopped(&first, step);
        check(&first.crash_process(), written, &format!("step {step}, a kill"));
        for (crash, cut) in after_crashes(&first, 3) {
            check(&cut, durable, &format!("step {step}, {crash}"));
        }
        // A third of all pairs, and different ones for each first step.
        for again in (step % 3..30).step_by(3) {
            let second = first.crash_process();
            if !open_stopped(&second, again) {
                break;
            }
            check(
                &second.crash_process(),
                written,
                &format!("steps {step} and {again}, kills"),
            );
            let policy = CutPolicy::Random {
                seed: step * 31 + again,
                grain: 512,
            };
            check(
                &second.power_cut(&policy),
                durable,
                &format!("steps {step} and {again}, a power cut"),
            );
        }
        last = step;
        if !stopped {
            break;
        }
    }
    assert!(last > 8, "only {last} steps");
}

/// B33
#[test]
fn a_crash_inside_a_batch_leaves_all_of_it_or_nothing() {
    let mut last = 0;
    for durability in [Durability::Sync, Durability::Os, Durability::Buffered] {
        for step in 0.. {
            let disk = MemStorage::new();
            let faults = stepped(&disk);
            let store = options(Arc::new(faults.clone())).open(DIRECTORY).unwrap();
            let (one, two) = (store.namespace("ONE").unwrap(), store.namespace("TWO").unwrap());
            one.put("before", "there").unwrap();
            one.put("deleted", "there").unwrap();
            faults.stop_at(faults.steps() + step);
            let mut batch = store.batch().durability(durability).delete(&one, "deleted");
            for n in 0..6 {
                batch = batch.put(if n % 2 == 0 { &one } else { &two }, format!("{n}"), vec![b'v'; 450]);
            }
            let committed = batch.commit();
            // More behind it, so that what follows a torn batch could be taken for good.
            let _ = one.put_with("after", "there", os());
            let stopped = faults.is_stopped();
            for (crash, disk) in after_crashes(&disk, 60) {
                let store = open(&disk);
                let (one, two) = (
                    store.open_namespace("ONE").unwrap(),
                    store.open_namespace("TWO").unwrap(),
                );
                let what = format!("{durability:?}, step {step}, {crash}");
                assert!(one.contains("before").unwrap(), "{what}");
                let (puts, deleted) = (
                    one.count().unwrap() + two.count().unwrap() - 1,
                    !one.contains("deleted").unwrap(),
                );
                let after = u64::from(one.contains("after").unwrap());
                assert!(
                    after == 0 || deleted,
                    "{what}: what came after the batch is there without it"
                );
                assert_eq!(puts, if deleted { 6 + after } else { 1 }, "{what}: part of a batch");
                if committed.is_ok() && durability == Durability::Sync {
                    assert!(deleted, "{what}: it was acknowledged");
                }
            }
            last = step;
            if !stopped {
                break;
            }
        }
    }
    assert!(last > 0, "only {last} steps");
}

/// B33
#[test]
fn a_batch_that_is_cut_anywhere_is_not_there_at_all() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    namespace.put("deleted", "there").unwrap();
    let segment = disk
        .files(DIRECTORY)
        .into_iter()
        .find(|path| path.extension().is_some_and(|e| e == "segment"))
        .unwrap();
    let before = disk.read_file(&segment).unwrap().len();
    let batch = store.batch().durability(Durability::Os).delete(&namespace, "deleted");
    batch
        .put(&namespace, "one", [b'1'; 100])
        .put(&namespace, "two", "2")
        .commit()
        .unwrap();
    let after = disk.read_file(&segment).unwrap().len();
    assert!(after > before + 150);
    for length in before..=after {
        let cut = disk.crash_process();
        cut.truncate(&segment, length as u64).unwrap();
        let namespace = open(&cut).open_namespace("N").unwrap();
        let there = ["deleted", "one", "two"].map(|key| namespace.contains(key).unwrap());
        assert_eq!(
            there,
            if length < after {
                [true, false, false]
            } else {
                [false, true, true]
            },
            "cut at {length}"
        );
    }
}

/// B4 and B6: compaction drops an old record because there is a newer one, which is in the page cache only.
#[test]
fn what_compaction_relies_on_is_durable_before_the_old_records_go() {
    let clock = ManualClock::new(START_MS);
    let disk = MemStorage::new();
    let store = open_at(&disk, &clock);
    let namespace = store.namespace("N").unwrap();
    namespace.put("k", "old").unwrap();
    namespace.put("d", "old").unwrap();
    next_segment(&namespace, "filler");
    store.close().unwrap();
    let mut last = 0;
    for step in 0.. {
        let disk = disk.crash_process();
        let faults = stepped(&disk);
        let store = options(Arc::new(faults.clone()))
            .clock(clock.clone())
            .open(DIRECTORY)
            .unwrap();
        let namespace = store.open_namespace("N").unwrap();
        namespace.put_with("k", "new", os()).unwrap();
        namespace.delete_with("d", None, Some(Durability::Os)).unwrap();
        faults.stop_at(faults.steps() + step);
        let compacted = store.compact_subset(u64::MAX);
        for (crash, disk) in after_crashes(&disk, 10) {
            let namespace = open_at(&disk, &clock).open_namespace("N").unwrap();
            let k = namespace.get("k").unwrap();
            let k = k.unwrap_or_else(|| panic!("step {step}, {crash}: both values are gone"));
            assert!(k == *b"old" || k == *b"new", "step {step}, {crash}");
            let deleted = !namespace.contains("d").unwrap();
            assert!(!deleted || k == *b"new", "step {step}, {crash}: a hole");
        }
        last = step;
        if !faults.is_stopped() {
            compacted.unwrap();
            break;
        }
    }
    assert!(last >= 8, "only {last} steps");
}

/// B36
#[test]
fn hot_keys_do_not_have_compaction_rewrite_everything_again_and_again() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    for n in 0..400 {
        namespace
            .put_with(format!("cold-{n}"), [b'c'; 200], buffered())
            .unwrap();
    }
    let mut most = 0.0f64;
    for n in 0..12_000 {
        namespace
            .put_with(format!("hot-{}", n % 37), format!("{n:0200}"), buffered())
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
        "for each byte written {rewritten:.2} were rewritten: {:?}",
        stats.compaction
    );
    assert!(most < 3.0, "for each live byte {most:.2} were on disk");
    assert_eq!(namespace.count().unwrap(), 437);
}

/// B37
#[test]
fn a_creation_cut_off_at_any_step_is_begun_again() {
    let disk = MemStorage::new();
    disk.write_file("/somebody-elses", b"file").unwrap();
    let mut last = 0;
    for step in 0.. {
        let disk = disk.crash_process();
        let faults = stepped(&disk);
        faults.stop_at(step);
        let created = options(Arc::new(faults.clone())).open(DIRECTORY);
        for (crash, disk) in after_crashes(&disk, 20) {
            for round in 0..2 {
                let store = options(Arc::new(disk.clone()))
                    .open(DIRECTORY)
                    .unwrap_or_else(|error| panic!("step {step}, {crash}, round {round}: {error}"));
                let namespace = store.namespace("N").unwrap();
                assert_eq!(namespace.contains("k").unwrap(), round == 1);
                namespace.put("k", "v").unwrap();
                store.close().unwrap();
            }
            let store = open(&disk.power_cut(&CutPolicy::LoseUnsynced));
            assert!(
                store.open_namespace("N").unwrap().contains("k").unwrap(),
                "step {step}, {crash}"
            );
            assert_eq!(disk.read_file("/somebody-elses").unwrap(), b"file");
        }
        last = step;
        if !faults.is_stopped() {
            created.unwrap();
            break;
        }
    }
    assert!(last >= 6, "only {last} steps");
}

/// B38
#[test]
fn what_was_seen_after_a_kill_survives_a_power_cut_after_the_next_sync() {
    let (killed, _, written) = with_unsynced_tail();
    let store = open(&killed);
    assert_eq!(count_of_prefix(&store, written), written);
    store.open_namespace("N").unwrap().put("later", "v").unwrap();
    for (crash, disk) in after_crashes(&killed, 20) {
        let store = open(&disk);
        assert_eq!(count_of_prefix(&store, written), written, "after {crash}");
        assert!(
            store.open_namespace("N").unwrap().contains("later").unwrap(),
            "after {crash}"
        );
    }
}

/// B39
#[test]
fn what_a_failed_sync_left_in_the_page_cache_alone_is_not_built_upon() {
    let mut failures = 0;
    for step in 0.. {
        let disk = MemStorage::new();
        let faults = stepped(&disk);
        let store = options(Arc::new(faults.clone())).open(DIRECTORY).unwrap();
        let namespace = store.namespace("N").unwrap();
        let at = faults.steps() + step;
        faults.inject(Fault::new(FaultKind::FailedSync).on(Operation::Sync).at(at));
        let mut acknowledged = 0;
        let mut failed = None;
        for n in 0..40 {
            let durability = if n % 7 == 6 { Durability::Sync } else { Durability::Os };
            let put = || put_numbered(&namespace, n, durability);
            // A new segment that could not be synced is thrown away, and the next put begins another. Otherwise it is unknown
            // what is on the disk, and nothing more is accepted.
            match put().or_else(|_| put()) {
                Ok(_) if failed.is_none() => acknowledged = n + 1,
                Ok(_) => panic!("step {step}: put {n} was accepted after a failure: {failed:?}"),
                Err(Error::Poisoned { cause }) => failed = failed.or(Some(cause)),
                Err(error) => panic!("step {step}: put {n}: {error}"),
            }
        }
        let _ = store
            .maintain()
            .and_then(|()| store.compact())
            .and_then(|_| store.close());
        let over = faults.steps() <= at;
        // In place, as if the process had ended and begun again: the page cache shows what it lied about.
        let again = disk.crash_process();
        let store = options(Arc::new(again.clone()))
            .open(DIRECTORY)
            .unwrap_or_else(|error| panic!("step {step}: {error}"));
        let seen = count_of_prefix(&store, 40);
        assert!(seen >= acknowledged, "step {step}: {seen} of {acknowledged}");
        store.open_namespace("N").unwrap().put("later", "v").unwrap();
        for (crash, disk) in after_crashes(&again, 6) {
            let store = options(Arc::new(disk))
                .open(DIRECTORY)
                .unwrap_or_else(|error| panic!("step {step}, {crash}: {error}"));
            assert_eq!(count_of_prefix(&store, 40), seen, "step {step}, {crash}");
            assert!(
                store.open_namespace("N").unwrap().contains("later").unwrap(),
                "step {step}, {crash}"
            );
        }
        if over {
            break;
        }
        failures += 1;
    }
    assert!(failures > 20, "only {failures} steps");
}

/// B40
#[test]
fn whatever_sectors_a_power_cut_leaves_the_store_opens_and_shows_a_prefix() {
    let disk = MemStorage::new();
    let store = open(&disk);
    let namespace = store.namespace("N").unwrap();
    let (durable, written) = (5, 60);
    for n in 0..written {
        let durability = match n {
            4 => Durability::Sync,
            n if n % 3 == 0 => Durability::Os,
            _ => Durability::Buffered,
        };
        // Nothing is sealed meanwhile: that would sync.
        put_numbered(&namespace, n, if n < durable { Durability::Sync } else { durability }).unwrap();
    }
    let mut counts = std::collections::BTreeSet::new();
    for seed in 0..400 {
        let cut = disk.power_cut(&CutPolicy::Random { seed, grain: 512 });
        let store = options(Arc::new(cut.clone()))
            .open(DIRECTORY)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let seen = count_of_prefix(&store, written);
        assert!(seen >= durable, "seed {seed}: {seen} puts");
        counts.insert(seen);
        drop(store);
        assert_eq!(count_of_prefix(&open(&cut), written), seen, "seed {seed}, opened again");
    }
    assert!(counts.len() > 2, "the cuts did not differ: {counts:?}");
}
