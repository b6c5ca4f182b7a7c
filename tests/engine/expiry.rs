//! When expired keys disappear, and when their memory and disk space is reclaimed.

use std::sync::Arc;
use std::time::Duration;

use embercask::storage::MemStorage;
use embercask::{Condition, Durability, ErrorKind, List, ManualClock, Namespace, PutOptions, ReadMode, Result, Store};
use test_support::way::Way;
use test_support::{DIRECTORY, keys, manual, text};

/// Some day in 2033.
const START_MS: u64 = 2_000_000_000_000;
const GRACE_MS: u64 = 10_000;

/// A disk, a clock, and the stores opened with them.
struct World {
    disk: MemStorage,
    clock: ManualClock,
    read_mode: ReadMode,
}

impl World {
    fn new() -> World {
        World {
            disk: MemStorage::new(),
            clock: ManualClock::new(START_MS),
            read_mode: ReadMode::Map,
        }
    }

    #[track_caller]
    fn open(&self) -> (Store, Namespace) {
        let store = manual(Arc::new(self.disk.clone()))
            .clock(self.clock.clone())
            .read_mode(self.read_mode)
            .open(DIRECTORY)
            .unwrap();
        let namespace = store.namespace("N").unwrap();
        (store, namespace)
    }

    /// Opens the store in this way.
    #[track_caller]
    fn open_by(&self, way: Way) -> (Store, Namespace) {
        let prepared = way.prepare(&self.disk, DIRECTORY);
        let (store, namespace) = self.open();
        prepared.assert_taken(store.recovery_report());
        (store, namespace)
    }

    /// The world after a kill.
    fn killed(&self) -> World {
        World {
            disk: self.disk.crash_process(),
            clock: self.clock.clone(),
            read_mode: self.read_mode,
        }
    }

    fn segment_files(&self) -> usize {
        let files = self.disk.files(DIRECTORY);
        files
            .iter()
            .filter(|path| path.extension().is_some_and(|name| name == "segment"))
            .count()
    }
}

fn until(expiry_ms: u64) -> PutOptions {
    PutOptions::new().expires_at_ms(expiry_ms)
}

fn ttl_ms(ms: u64) -> PutOptions {
    PutOptions::new().ttl(Duration::from_millis(ms))
}

/// Whether the condition of this write held.
#[track_caller]
fn held<T>(result: Result<T>) -> bool {
    match result {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::Conflict => false,
        Err(error) => panic!("{error}"),
    }
}

type Path = fn(&Store, &Namespace, &str) -> bool;

/// Every way to check whether a key exists. Some change it, so each has its own key.
const PATHS: [(&str, Path); 21] = [
    ("get", |_, n, key| n.get(key).unwrap().is_some()),
    ("get_text", |_, n, key| n.get_text(key).unwrap().is_some()),
    ("get_json", |_, n, key| n.get_json::<u64>(key).unwrap().is_some()),
    ("get_many", |_, n, key| {
        n.get_many(&["absent", key]).unwrap()[1].is_some()
    }),
    ("contains", |_, n, key| n.contains(key).unwrap()),
    ("list", |_, n, key| !n.list().prefix(key).page().unwrap().is_empty()),
    ("list with values", |_, n, key| {
        !n.list().prefix(key).with_values().page().unwrap().is_empty()
    }),
    ("list in reverse", |_, n, key| {
        n.list().prefix(key).reverse().into_iter().count() > 0
    }),
    ("list by range", |_, n, key| {
        n.list().start(key).end(format!("{key}~")).into_iter().count() > 0
    }),
    ("count", |_, n, key| n.list().prefix(key).count().unwrap() > 0),
    ("put_if absent", |_, n, key| {
        !held(n.put_if(key, "2", Condition::Absent))
    }),
    ("put_if present", |_, n, key| {
        held(n.put_if(key, "2", Condition::Present))
    }),
    ("delete", |_, n, key| n.delete(key).unwrap().existed),
    ("delete_if present", |_, n, key| {
        held(n.delete_if(key, Condition::Present))
    }),
    ("delete_if absent", |_, n, key| {
        !held(n.delete_if(key, Condition::Absent))
    }),
    ("batch if absent", |store, n, key| {
        let options = PutOptions::new().condition(Condition::Absent);
        !held(store.batch().put_with(n, key, "2", options).commit())
    }),
    ("batch delete if present", |store, n, key| {
        held(store.batch().delete_if(n, key, Condition::Present).commit())
    }),
    ("set_ttl", |_, n, key| n.set_ttl(key, Duration::from_secs(9)).unwrap()),
    ("set_expiry", |_, n, key| {
        n.set_expiry(key, START_MS + 9_000_000).unwrap()
    }),
    ("remove_expiry", |_, n, key| n.remove_expiry(key).unwrap()),
    ("set_metadata", |_, n, key| n.set_metadata(key, Some(b"2")).unwrap()),
];

/// B16: the same predicate on every path, in the active segment, in sealed ones, after compaction
/// and after reopening.
#[test]
fn a_key_is_there_one_millisecond_before_its_expiry_and_gone_at_it_on_every_path() {
    #[derive(Clone, Copy, Debug)]
    enum Place {
        Active,
        Compacted,
        Reopened(Way),
    }
    let places = [Place::Active, Place::Compacted]
        .into_iter()
        .chain(Way::ALL.map(Place::Reopened));
    let expiry = START_MS + 5_000;
    for read_mode in [ReadMode::Map, ReadMode::Pread] {
        for place in places.clone() {
            for metadata in [false, true] {
                for (early_ms, there) in [(1, true), (0, false)] {
                    let world = World {
                        read_mode,
                        ..World::new()
                    };
                    let (store, namespace) = world.open();
                    // Fills a segment, so that there are two with hints.
                    namespace.put("filler", [7; 3_900]).unwrap();
                    for (name, _) in PATHS {
                        let options = if metadata {
                            until(expiry).metadata("m")
                        } else {
                            until(expiry)
                        };
                        namespace.put_with(format!("{name}/key"), "1", options).unwrap();
                    }
                    let (store, namespace) = match place {
                        Place::Active => (store, namespace),
                        Place::Compacted => {
                            store.compact().unwrap();
                            (store, namespace)
                        }
                        Place::Reopened(way) => {
                            drop((store, namespace));
                            world.open_by(way)
                        }
                    };
                    world.clock.advance(5_000 - early_ms);
                    for (name, path) in PATHS {
                        let answer = path(&store, &namespace, &format!("{name}/key"));
                        assert_eq!(
                            answer, there,
                            "{name}, {place:?}, {early_ms} ms before, metadata {metadata}"
                        );
                    }
                }
            }
        }
    }
}

/// The other half of B16: nothing reappears after a sweep.
#[test]
fn sweeping_changes_no_answer() {
    let world = World::new();
    let (store, namespace) = world.open();
    for (name, _) in PATHS {
        namespace.put_with(format!("{name}/key"), "1", ttl_ms(5_000)).unwrap();
    }
    world.clock.advance(4_999);
    store.maintain().unwrap();
    assert_eq!(namespace.count().unwrap(), PATHS.len() as u64);
    world.clock.advance(1);
    store.maintain().unwrap();
    assert_eq!(store.stats().keys, 0);
    for (name, path) in PATHS {
        assert!(!path(&store, &namespace, &format!("{name}/key")), "{name}");
    }
}

#[test]
fn what_was_seen_expired_stays_expired_when_the_clock_is_set_back() {
    let world = World::new();
    let (store, namespace) = world.open();
    for (name, _) in PATHS {
        namespace.put_with(format!("{name}/key"), "1", ttl_ms(5_000)).unwrap();
    }
    world.clock.set_wall(START_MS + 5_000);
    assert!(!namespace.contains("get/key").unwrap());
    for wall in [START_MS + 4_999, START_MS, 0] {
        world.clock.set_wall(wall);
        for (name, path) in &PATHS[..10] {
            assert!(!path(&store, &namespace, &format!("{name}/key")), "{name} at {wall}");
        }
    }
}

/// C4: after a clock jump of a day that was corrected, sixty seconds last sixty seconds, and not a
/// day longer.
#[test]
fn a_lifetime_given_after_the_clock_was_set_back_runs_its_length() {
    const DAY_MS: u64 = 24 * 3_600_000;
    type Prepare = fn(&Store);
    let places: [(&str, Prepare); 3] = [
        ("active", |_| {}),
        ("swept and sealed", |store| store.maintain().unwrap()),
        ("compacted", |store| {
            store.compact().unwrap();
        }),
    ];
    for (place, prepare) in places {
        for batch in [false, true] {
            let world = World::new();
            let (store, namespace) = world.open();
            for (name, _) in PATHS {
                namespace.put_with(format!("old/{name}"), "1", ttl_ms(5_000)).unwrap();
            }
            world.clock.set_wall(START_MS + DAY_MS);
            assert_eq!(namespace.count().unwrap(), 0);
            world.clock.set_wall(START_MS + 1_000);
            assert_eq!(store.now_ms(), START_MS + 1_000);
            for (name, _) in PATHS {
                let key = format!("{name}/key");
                if batch {
                    let mut put = store.batch();
                    put.put_with(&namespace, &key, "1", ttl_ms(60_000));
                    put.commit().unwrap();
                } else {
                    namespace.put_with(&key, "1", ttl_ms(60_000)).unwrap();
                }
                let expiry = namespace.get(&key).unwrap().unwrap().expiry_ms();
                assert_eq!(expiry, Some(START_MS + 61_000), "{key}, {place}");
            }
            // By the wall clock, this is far enough ahead.
            namespace.put_with("until", "1", until(START_MS + 3_600_000)).unwrap();
            prepare(&store);
            world.clock.advance(59_999);
            prepare(&store);
            assert_eq!(namespace.count().unwrap(), 1 + PATHS.len() as u64, "{place}");
            world.clock.advance(1);
            prepare(&store);
            for (name, path) in &PATHS[..10] {
                assert!(!path(&store, &namespace, &format!("{name}/key")), "{name}, {place}");
            }
            assert_eq!(keys(&namespace), ["until"], "{place}");
            prepare(&store);
            assert_eq!(keys(&namespace), ["until"], "{place}");
        }
    }
}

/// Records seen expired neither reappear nor affect later writes.
#[test]
fn a_step_back_divides_the_records_by_when_they_were_written_and_not_by_their_keys() {
    let world = World::new();
    let (store, namespace) = world.open();
    namespace.put_with("key", "old", ttl_ms(5_000)).unwrap();
    world.clock.set_wall(START_MS + 6_000);
    assert_eq!(text(&namespace, "key"), None);
    world.clock.set_wall(START_MS);
    assert!(held(namespace.put_if("key", "new", Condition::Absent)));
    assert!(namespace.set_ttl("key", Duration::from_millis(5_000)).unwrap());
    assert_eq!(text(&namespace, "key").as_deref(), Some("new"));
    // Next to a key that no clock of this store has seen expired.
    namespace.put_with("other", "1", ttl_ms(7_000)).unwrap();
    store.maintain().unwrap();
    store.compact().unwrap();
    assert_eq!(keys(&namespace), ["key", "other"]);
    // Set back again, by less: the records of each period go by the times seen since they were
    // written.
    world.clock.set_wall(START_MS + 5_000);
    assert_eq!(keys(&namespace), ["other"]);
    world.clock.set_wall(START_MS + 1_000);
    namespace.put_with("third", "1", ttl_ms(1_000)).unwrap();
    assert_eq!(keys(&namespace), ["other", "third"]);
    world.clock.advance(1_000);
    assert_eq!(keys(&namespace), ["other"]);
    world.clock.set_wall(START_MS + 7_000);
    assert!(keys(&namespace).is_empty());
}

#[test]
fn a_clock_that_was_ahead_for_some_minutes_costs_the_indexes_nothing() {
    let world = World::new();
    let (store, namespace) = world.open();
    for n in 0..100 {
        namespace.put_with(format!("{n:03}"), "1", ttl_ms(60_000)).unwrap();
    }
    namespace.put_with("brief", "1", ttl_ms(1_000)).unwrap();
    store.maintain().unwrap();
    world.clock.set_wall(START_MS + 24 * 3_600_000);
    store.maintain().unwrap();
    world.clock.advance(9 * 60_000);
    store.maintain().unwrap();
    assert_eq!(namespace.count().unwrap(), 0, "expired keys are hidden");
    assert_eq!(
        (store.stats().keys, store.stats().expired),
        (101, 0),
        "expired keys are still kept"
    );
    world.clock.set_wall(START_MS + 30_000);
    assert_eq!(
        namespace.count().unwrap(),
        0,
        "keys seen expired stay expired in this handle"
    );
    world.clock.advance(10 * 60_000);
    world.clock.set_wall(START_MS + 30_000);
    store.maintain().unwrap();
    assert_eq!(store.stats().keys, 100, "by the corrected clock only one has expired");
    drop((store, namespace));
    let (_store, namespace) = world.open_by(Way::IndexFile);
    assert_eq!(namespace.count().unwrap(), 100);
}

/// A clock that is never corrected costs only these minutes.
#[test]
fn what_a_jump_has_hidden_leaves_memory_when_nobody_puts_the_clock_right() {
    let world = World::new();
    let (store, namespace) = world.open();
    namespace.put_with("key", "1", ttl_ms(60_000)).unwrap();
    world.clock.set_wall(START_MS + 24 * 3_600_000);
    store.maintain().unwrap();
    world.clock.advance(10 * 60_000);
    store.maintain().unwrap();
    assert_eq!((store.stats().keys, store.stats().expired), (0, 1));
}

/// The clock is corrected only after the sweep believed it. In this handle the keys stay expired;
/// the next opening shows them, as the log has them, and is no slower.
#[test]
fn an_index_file_is_written_by_the_right_clock_however_long_it_was_wrong() {
    let world = World::new();
    let (store, namespace) = world.open();
    namespace.put_with("hour", "1", ttl_ms(3_600_000)).unwrap();
    namespace.put_with("deleted", "1", ttl_ms(3_600_000)).unwrap();
    namespace.put_with("minute", "1", ttl_ms(60_000)).unwrap();
    namespace.put("filler", [7; 3_900]).unwrap();
    namespace.delete("deleted").unwrap();
    store.maintain().unwrap();
    world.clock.set_wall(START_MS + 24 * 3_600_000);
    store.maintain().unwrap();
    world.clock.advance(10 * 60_000);
    store.maintain().unwrap();
    assert_eq!(store.stats().keys, 1, "taken for expired");
    world.clock.set_wall(START_MS + 11 * 60_000);
    namespace.put_with("new", "1", ttl_ms(3_600_000)).unwrap();
    assert_eq!(keys(&namespace), ["filler", "new"]);
    store.close().unwrap();
    let (store, namespace) = world.open_by(Way::IndexFile);
    assert_eq!(keys(&namespace), ["filler", "hour", "new"]);
    assert_eq!(store.stats().keys, 3);
    assert!(store.verify().unwrap().is_sound());
    // They leave memory when they expire.
    world.clock.advance(2 * 3_600_000);
    store.maintain().unwrap();
    world.clock.advance(11 * 60_000);
    store.maintain().unwrap();
    assert_eq!((keys(&namespace), store.stats().keys), (vec!["filler".to_owned()], 1));
}

/// A clock that is ahead must not make compaction copy the same records again and again either:
/// neither in the minutes during which nothing may be dropped, nor when records taken for expired
/// turn out to have time left.
#[test]
fn what_compaction_may_not_drop_yet_is_not_copied_again_and_again_and_keeps_no_other_waste() {
    let world = World::new();
    let (store, namespace) = world.open();
    let segments = 12;
    for n in 0..segments * 20u64 {
        // A third each: permanent, expiring, overwritten below.
        match n % 3 {
            0 => namespace.put(format!("{n:04}"), [7; 180]).unwrap(),
            1 => namespace
                .put_with(format!("{n:04}"), [7; 180], ttl_ms(3_600_000))
                .unwrap(),
            _ => namespace.put("overwritten", [7; 180]).unwrap(),
        };
    }
    store.maintain().unwrap();
    world.clock.set_wall(START_MS + 24 * 3_600_000);
    store.maintain().unwrap();
    world.clock.advance(10 * 60_000);
    // The sweep believes the clock, and compaction is about to.
    store.maintain().unwrap();
    world.clock.set_wall(START_MS + 15 * 60_000);
    store.maintain().unwrap();
    let before = store.stats();
    assert!(before.expired_bytes > before.segment_bytes / 5, "{before:?}");
    for n in 0..200 {
        namespace.put("filler", [n as u8; 180]).unwrap();
    }
    store.maintain().unwrap();
    let mut read = Vec::new();
    for _ in 0..20 {
        read.push(store.compact_if_worthwhile().unwrap().read_bytes);
        world.clock.advance(500);
    }
    assert!(read[0] > 0, "no other waste was reclaimed");
    assert!(read[2..].iter().all(|bytes| *bytes == 0), "{read:?}");
    let after = store.stats();
    assert!(after.segment_bytes < before.segment_bytes, "{after:?}");
    assert!(after.expired_bytes >= before.expired_bytes, "{before:?}, {after:?}");
    drop((store, namespace));
    let (_store, namespace) = world.open_by(Way::Records);
    assert_eq!(namespace.count().unwrap(), segments * 20 * 2 / 3 + 2, "keys were lost");
}

/// A record with a distant expiry, seen expired by a clock that was corrected since, keeps only
/// itself.
#[test]
fn what_expired_long_ago_goes_although_something_beside_it_may_not_go_yet() {
    let world = World::new();
    let (store, namespace) = world.open();
    let months_ms = 11 * 30 * 24 * 3_600_000;
    for n in 0..300 {
        // Some of each kind in every segment.
        let options = match n % 15 {
            0 => ttl_ms(months_ms),
            3 | 6 | 9 | 12 => PutOptions::new(),
            _ => ttl_ms(60_000),
        };
        // No marks between them, whose space would be reclaimed in any case.
        let options = options.durability(Durability::Buffered);
        namespace.put_with(format!("{n}"), [7; 180], options).unwrap();
    }
    store.maintain().unwrap();
    world.clock.set_wall(START_MS + 12 * 30 * 24 * 3_600_000);
    store.maintain().unwrap();
    world.clock.advance(11 * 60_000);
    store.maintain().unwrap();
    assert_eq!(store.stats().keys, 80, "keys with months left count as expired");
    world.clock.set_wall(START_MS + 30 * 60_000);
    world.clock.advance(11 * 60_000);
    store.maintain().unwrap();
    let before = store.stats().expired_bytes;
    let read: Vec<_> = (0..20)
        .map(|_| store.compact_if_worthwhile().unwrap().read_bytes)
        .collect();
    let after = store.stats().expired_bytes;
    assert!(before > 200 * 180, "{before}");
    // Records in the active segment with the last ones may remain, and as many as the ceiling
    // allows.
    assert!((20 * 180..before / 2).contains(&after), "{after} of {before}");
    assert!(read[15..].iter().all(|bytes| *bytes == 0), "{read:?}");
    drop((store, namespace));
    let (_store, namespace) = world.open_by(Way::Records);
    assert_eq!(namespace.count().unwrap(), 100, "keys were lost");
}

#[test]
fn across_openings_the_wall_clock_decides() {
    for way in [Way::IndexFile, Way::Hints, Way::Records] {
        let world = World::new();
        let (store, namespace) = world.open();
        namespace.put_with("key", "1", ttl_ms(5_000)).unwrap();
        drop((store, namespace));
        world.clock.set_wall(START_MS + 5_000);
        let (store, namespace) = world.open_by(way);
        assert_eq!(text(&namespace, "key"), None, "{way:?}");
        assert_eq!(store.stats().keys, 0, "expired keys were loaded, {way:?}");
        drop((store, namespace));
        world.clock.set_wall(START_MS + 4_999);
        // The index file no longer has the key and is useless by this clock, see
        // `tests/engine/index_file.rs`.
        let way = if way == Way::IndexFile { Way::Hints } else { way };
        let (_store, namespace) = world.open_by(way);
        assert_eq!(text(&namespace, "key").as_deref(), Some("1"), "{way:?}");
    }
}

/// B18: value, metadata, expiry and sequence stay the same wherever the record is moved.
#[test]
fn expiry_and_metadata_survive_sealing_reopening_compaction_and_recovery() {
    let world = World::new();
    let (store, namespace) = world.open();
    for n in 0..40u64 {
        let mut options = PutOptions::new();
        if n % 2 == 0 {
            options = options.expires_at_ms(START_MS + 1_000_000 + n);
        }
        if n % 3 == 0 {
            options = options.metadata(format!("metadata {n}"));
        }
        if n % 9 == 0 {
            options = options.metadata("");
        }
        namespace
            .put_with(format!("{n:02}"), format!("value {n}").repeat(20), options)
            .unwrap();
        namespace.put_with("overwritten", format!("{n}"), ttl_ms(77)).unwrap();
    }
    namespace.delete("overwritten").unwrap();
    let look = |namespace: &Namespace| -> Vec<_> {
        let listed = namespace.list().with_values().into_iter().map(|entry| entry.unwrap());
        let listed = listed.map(|entry| {
            let value = namespace.get(entry.key()).unwrap().unwrap();
            assert_eq!(entry.expiry_ms(), value.expiry_ms());
            assert_eq!(entry.metadata(), value.metadata());
            let metadata = value.metadata().map(<[u8]>::to_vec);
            (
                entry.key().to_vec(),
                value.to_vec(),
                metadata,
                value.expiry_ms(),
                value.sequence(),
            )
        });
        listed.collect()
    };
    let written = look(&namespace);
    assert_eq!(written.len(), 40);
    store.compact().unwrap();
    assert!(store.stats().compaction.runs > 0);
    assert_eq!(look(&namespace), written, "compacted");
    drop((store, namespace));
    for way in Way::ALL {
        let (_store, namespace) = world.open_by(way);
        assert_eq!(look(&namespace), written, "reopened by {way:?}");
    }
    let (_store, namespace) = world.open();
    // Changed by hand, then killed: records rewritten by recovery must be the same too.
    for n in 0..10 {
        namespace.set_metadata(format!("{n:02}"), Some(b"new")).unwrap();
    }
    let written = look(&namespace);
    for way in Way::BY_LOG {
        let (store, namespace) = world.killed().open_by(way);
        assert!(!store.recovery_report().clean);
        assert_eq!(look(&namespace), written, "recovered by {way:?}");
    }
}

#[test]
fn expired_keys_leave_memory_although_nobody_asks_for_them() {
    let world = World::new();
    let (store, namespace) = world.open();
    let buffered = |options: PutOptions| options.durability(embercask::Durability::Buffered);
    namespace.put("stays", "1").unwrap();
    store.maintain().unwrap();
    let before = store.stats();
    for n in 0..5_000 {
        namespace
            .put_with(format!("session {n:05}"), "1", buffered(ttl_ms(1_000 + n % 10)))
            .unwrap();
    }
    store.maintain().unwrap();
    let full = store.stats();
    assert_eq!((full.keys, full.expired_not_swept), (5_001, 0));
    assert!(full.key_order_bytes > before.key_order_bytes + 5_000);
    world.clock.advance(1_004);
    assert_eq!(store.stats().expired_not_swept, 2_500, "expired, not swept");
    store.maintain().unwrap();
    assert_eq!(store.stats().keys, 2_501);
    world.clock.advance(5);
    store.maintain().unwrap();
    let after = store.stats();
    assert_eq!((after.keys, after.expired_not_swept, after.expired), (1, 0, 5_000));
    assert!(after.key_order_bytes < full.key_order_bytes / 2, "{after:?}");
    assert_eq!(keys(&namespace), ["stays"]);
}

/// Puts numbered keys with these options.
fn put_many(namespace: &Namespace, numbers: std::ops::Range<u32>, options: PutOptions) {
    let options = options.durability(embercask::Durability::Buffered);
    for n in numbers {
        namespace.put_with(format!("key {n:06}"), "1", options.clone()).unwrap();
    }
}

#[test]
fn keys_that_have_left_hold_no_more_memory_than_keys_that_never_were() {
    const STAY: std::ops::Range<u32> = 0..25_000;
    const LEAVE: std::ops::Range<u32> = 25_000..60_000;
    let fresh = World::new();
    let (store, namespace) = fresh.open();
    put_many(&namespace, STAY, PutOptions::new());
    store.maintain().unwrap();
    let needed = store.stats();
    assert_eq!(needed.keys, 25_000);
    drop(namespace);
    for by_drop in [false, true] {
        let world = World::new();
        let (store, namespace) = world.open();
        put_many(&namespace, STAY, PutOptions::new());
        let leaves = if by_drop {
            store.namespace("DROPPED").unwrap()
        } else {
            namespace.clone()
        };
        put_many(&leaves, LEAVE, ttl_ms(1_000));
        store.maintain().unwrap();
        let full = store.stats();
        assert_eq!(full.keys, 60_000);
        if by_drop {
            store.drop_namespace("DROPPED").unwrap();
        } else {
            world.clock.advance(1_000);
        }
        // Nothing touches a key any more.
        store.maintain().unwrap();
        store.maintain().unwrap();
        let left = store.stats();
        assert_eq!(left.keys, 25_000);
        for (what, bytes) in [
            ("keydir", [full.keydir_bytes, needed.keydir_bytes, left.keydir_bytes]),
            (
                "key order",
                [full.key_order_bytes, needed.key_order_bytes, left.key_order_bytes],
            ),
        ] {
            let [full, needed, left] = bytes;
            assert!(
                full > needed * 3 / 2,
                "{what}: {full} bytes when all were there, {needed} needed"
            );
            assert!(
                left <= needed * 5 / 4,
                "{what}, dropped {by_drop}: {left} bytes, {needed} needed"
            );
        }
        let queue = left.expiry_queue_bytes;
        assert!(
            queue < full.expiry_queue_bytes / 3,
            "dropped {by_drop}: {queue} bytes of the expiry queue"
        );
        assert_eq!(namespace.count().unwrap(), 25_000);
        let found = namespace.get_text("key 024999").unwrap();
        assert_eq!(found.as_deref(), Some("1"));
    }
}

#[test]
fn expired_records_leave_the_disk_once_the_grace_is_over_and_not_before() {
    let world = World::new();
    let (store, namespace) = world.open();
    for n in 0..100 {
        namespace.put_with(format!("{n:03}"), [7; 100], ttl_ms(1_000)).unwrap();
    }
    namespace.put("stays", "1").unwrap();
    world.clock.advance(1_000 + GRACE_MS - 1);
    store.compact().unwrap();
    assert_eq!(namespace.count().unwrap(), 1, "hidden from every reader");
    assert!(
        store.stats().segment_bytes > 100 * 100,
        "gone from the disk too early: {:?}",
        store.stats()
    );
    world.clock.advance(1);
    store.compact().unwrap();
    let stats = store.stats();
    assert!(stats.segment_bytes < 1_000, "{stats:?}");
    assert_eq!((stats.dead_bytes, stats.tombstone_bytes), (0, 0), "{stats:?}");
    drop((store, namespace));
    let (_store, namespace) = world.open_by(Way::Records);
    assert_eq!(keys(&namespace), ["stays"]);
}

/// B2 as a user sees it. The model test covers all subsets of segments.
#[test]
fn an_expired_put_does_not_uncover_the_value_below_it() {
    let world = World::new();
    let (store, namespace) = world.open();
    namespace.put("key", "eternal").unwrap();
    namespace.put("filler", [7; 3_900]).unwrap();
    namespace.put_with("key", "short", ttl_ms(1_000)).unwrap();
    namespace.put("filler", [7; 3_900]).unwrap();
    store.maintain().unwrap();
    world.clock.advance(1_000 + GRACE_MS);
    store.maintain().unwrap();
    for mask in [2, 4, 1, u64::MAX] {
        store.compact_subset(mask).unwrap();
        assert_eq!(text(&namespace, "key"), None, "mask {mask}");
        for way in [Way::Hints, Way::Records] {
            let (_store, namespace) = world.killed().open_by(way);
            assert_eq!(text(&namespace, "key"), None, "reopened by {way:?} after mask {mask}");
        }
    }
}

#[test]
fn a_forward_jump_of_the_clock_drops_nothing_from_disk_while_it_is_fresh() {
    let world = World::new();
    let (store, namespace) = world.open();
    for n in 0..100 {
        namespace.put_with(format!("{n:03}"), [7; 100], ttl_ms(60_000)).unwrap();
    }
    // The clock is set to another year.
    world.clock.set_wall(START_MS + 365 * 24 * 3_600_000);
    store.maintain().unwrap();
    store.compact().unwrap();
    store.compact_if_worthwhile().unwrap();
    assert_eq!(namespace.count().unwrap(), 0, "expired keys are hidden");
    world.clock.advance(9 * 60_000);
    store.compact().unwrap();
    drop((store, namespace));
    // The mistake is noticed.
    world.clock.set_wall(START_MS + 30_000);
    let (store, namespace) = world.open_by(Way::Records);
    assert_eq!(namespace.count().unwrap(), 100, "keys were lost");
    assert_eq!(namespace.get("042").unwrap().unwrap(), [7; 100]);
    // If it is never corrected, the space is reclaimed in the end.
    world.clock.set_wall(START_MS + 365 * 24 * 3_600_000);
    store.compact().unwrap();
    assert!(store.stats().segment_bytes > 100 * 100);
    world.clock.advance(10 * 60_000);
    store.compact().unwrap();
    assert!(store.stats().segment_bytes < 1_000, "{:?}", store.stats());
}

#[test]
fn wholly_expired_segments_leave_the_disk_by_themselves() {
    let world = World::new();
    let (store, namespace) = world.open();
    namespace.put("stays", "1").unwrap();
    for n in 0..300 {
        namespace.put_with(format!("{n:03}"), [7; 100], ttl_ms(1_000)).unwrap();
    }
    namespace.put("filler", [7; 3_900]).unwrap();
    store.maintain().unwrap();
    let full = world.segment_files();
    assert!(full > 8, "{full} segments");
    world.clock.advance(1_000 + GRACE_MS);
    store.maintain().unwrap();
    let report = store.compact_if_worthwhile().unwrap();
    assert!(report.reclaimed_bytes > 20_000, "{report:?}");
    assert!(world.segment_files() <= 4, "{:?}", world.disk.files(DIRECTORY));
    assert_eq!(
        store.stats().segments.len(),
        world.segment_files(),
        "a file was left behind"
    );
    assert_eq!(keys(&namespace), ["filler", "stays"]);
    drop((store, namespace));
    let (_store, namespace) = world.open_by(Way::Records);
    assert_eq!(keys(&namespace), ["filler", "stays"]);
}

#[test]
fn a_lifetime_is_rounded_up_so_that_nothing_lives_shorter_than_asked() {
    let (_store, namespace) = World::new().open();
    for (ttl, ms) in [
        (Duration::from_millis(1), 1),
        (Duration::from_nanos(1_000_001), 2),
        (Duration::from_micros(1_500), 2),
        (Duration::from_nanos(1_999_999), 2),
        (Duration::from_millis(2), 2),
        (Duration::from_secs(60), 60_000),
    ] {
        namespace.put_with("key", "1", PutOptions::new().ttl(ttl)).unwrap();
        assert_eq!(
            namespace.get("key").unwrap().unwrap().expiry_ms(),
            Some(START_MS + ms),
            "{ttl:?}"
        );
        assert!(namespace.set_ttl("key", ttl).unwrap());
        assert_eq!(
            namespace.get("key").unwrap().unwrap().expiry_ms(),
            Some(START_MS + ms),
            "{ttl:?}"
        );
    }
    let shorter = namespace.put_with("key", "2", PutOptions::new().ttl(Duration::from_micros(999)));
    assert_eq!(
        shorter.unwrap_err().kind(),
        ErrorKind::InvalidInput,
        "lifetimes below the resolution"
    );
    assert_eq!(text(&namespace, "key").as_deref(), Some("1"));
}

#[test]
fn an_overwrite_takes_the_expiry_away() {
    let world = World::new();
    let (store, namespace) = world.open();
    namespace.put_with("put", "1", ttl_ms(1_000).metadata("m")).unwrap();
    namespace.put("put", "2").unwrap();
    namespace.put_with("removed", "1", ttl_ms(1_000).metadata("m")).unwrap();
    assert!(namespace.remove_expiry("removed").unwrap());
    namespace.put_with("longer", "1", ttl_ms(1_000).metadata("m")).unwrap();
    assert!(namespace.set_ttl("longer", Duration::from_secs(100)).unwrap());
    world.clock.advance(2_000);
    store.maintain().unwrap();
    store.compact().unwrap();
    drop((store, namespace));
    let (store, namespace) = world.open_by(Way::Records);
    assert_eq!(keys(&namespace), ["longer", "put", "removed"]);
    assert_eq!(namespace.get("put").unwrap().unwrap().metadata(), None);
    for key in ["removed", "longer"] {
        let value = namespace.get(key).unwrap().unwrap();
        assert_eq!(
            (value.as_bytes(), value.metadata()),
            (&b"1"[..], Some(&b"m"[..])),
            "{key}"
        );
    }
    world.clock.advance(98_000);
    store.maintain().unwrap();
    assert_eq!(keys(&namespace), ["put", "removed"]);
}

/// B5: the sweep finds the queue entry of an expired record that was overwritten.
#[test]
fn sweeping_leaves_what_was_put_after_the_expiry_alone() {
    let world = World::new();
    let (store, namespace) = world.open();
    namespace.put_with("key", "old", ttl_ms(1_000)).unwrap();
    namespace.put_with("again", "old", ttl_ms(1_000)).unwrap();
    world.clock.advance(1_000);
    namespace.put("key", "new").unwrap();
    namespace.put_with("again", "new", ttl_ms(1_000)).unwrap();
    store.maintain().unwrap();
    assert_eq!(text(&namespace, "key").as_deref(), Some("new"));
    assert_eq!(text(&namespace, "again").as_deref(), Some("new"));
    world.clock.advance(1_000);
    store.maintain().unwrap();
    assert_eq!(keys(&namespace), ["key"]);
    assert_eq!(store.stats().keys, 1);
}

#[test]
fn a_page_uses_one_time_for_all_its_keys() {
    let world = World::new();
    let (_store, namespace) = world.open();
    for n in 0..20 {
        namespace.put_with(format!("{n:02}"), "1", ttl_ms(1_000)).unwrap();
    }
    let list = namespace.list().page_size(5);
    let first = list.page().unwrap();
    assert_eq!(first.len(), 5);
    world.clock.advance(1_000);
    let next = list.cursor(first.cursor().unwrap()).page().unwrap();
    assert!(next.is_empty() && next.is_last(), "{next:?}");
}

#[test]
fn a_page_is_the_last_if_only_expired_keys_follow_it() {
    let world = World::new();
    let (store, namespace) = world.open();
    for n in 0..300 {
        let (lifetime, key) = if n % 100 == 0 { (9_000, "live") } else { (1_000, "dead") };
        let options = ttl_ms(lifetime);
        let options = if n % 3 == 0 { options.metadata("m") } else { options };
        namespace.put_with(format!("{n:03} {key}"), "1", options).unwrap();
    }
    let page = |list: List, size| {
        let page = list.page_size(size).page().unwrap();
        let last = page.iter().last().map(|entry| entry.key_str().unwrap().to_owned());
        assert_eq!(page.is_last(), page.cursor().is_none());
        (page.len(), page.is_last(), last.unwrap_or_default())
    };
    let shown = |len, is_last, last: &str| (len, is_last, last.to_owned());
    assert_eq!(page(namespace.list(), 299), shown(299, false, "298 dead"));
    world.clock.advance(1_000);
    for list in [namespace.list(), namespace.list().with_values()] {
        assert_eq!(page(list.clone(), 3), shown(3, true, "200 live"));
        assert_eq!(page(list.clone(), 2), shown(2, false, "100 live"));
        assert_eq!(page(list.clone().end("200"), 2), shown(2, true, "100 live"));
        assert_eq!(page(list.clone().reverse(), 3), shown(3, true, "000 live"));
        assert_eq!(page(list.clone().reverse().start("050"), 2), shown(2, true, "100 live"));
        assert_eq!(page(list.start("201"), 3), shown(0, true, ""));
    }
    // A key without an expiry is there, whatever it has besides.
    namespace
        .put_with("299 more", "1", PutOptions::new().metadata("m"))
        .unwrap();
    assert_eq!(page(namespace.list(), 3), shown(3, false, "200 live"));
    store.maintain().unwrap();
    assert_eq!(page(namespace.list(), 3), shown(3, false, "200 live"));
}

#[test]
fn an_expiry_at_the_end_of_time_is_kept_and_never_comes() {
    let world = World::new();
    let (store, namespace) = world.open();
    namespace.put_with("key", "1", until(u64::MAX)).unwrap();
    namespace
        .put_with("seconds", "1", PutOptions::new().expiration(u64::MAX))
        .unwrap();
    world.clock.set_wall(u64::MAX - 1);
    store.maintain().unwrap();
    store.compact().unwrap();
    drop((store, namespace));
    for way in [Way::IndexFile, Way::Hints, Way::Records] {
        let (_store, namespace) = world.open_by(way);
        let value = namespace.get("key").unwrap().unwrap();
        assert_eq!(value.expiry_ms(), Some(u64::MAX), "{way:?}");
        assert!(value.expires_at().is_none_or(|time| time > std::time::UNIX_EPOCH));
        assert_eq!(keys(&namespace), ["key", "seconds"], "{way:?}");
    }
}
