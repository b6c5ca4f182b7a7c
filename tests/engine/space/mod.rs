//! The bound on disk space: after each step of maintenance, whatever the workload.

mod full_disk;
mod limit;
mod memory;
mod namespace_limit;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use embercask::storage::MemStorage;
use embercask::{Durability, ManualClock, Namespace, PutOptions, Stats, Store};
use test_support::{DIRECTORY, Rng, ending, manual, rng};

/// Some day in 2033.
const START_MS: u64 = 2_000_000_000_000;
const CEILING: f64 = 1.6;
/// Writes between two steps of maintenance.
const STEP: u64 = 100;
/// Manifest, lock and the like.
const OTHER_FILES: u64 = 24 << 10;

/// A store under an endless workload.
struct World {
    disk: MemStorage,
    clock: ManualClock,
    rng: Rng,
    segment_bytes: u64,
    /// The largest segment there may be.
    segment_bytes_max: u64,
    store: Option<Store>,
    jobs: VecDeque<u64>,
    number: u64,
    /// The most that the disk had beyond the live data, as a part of what is allowed.
    closest: f64,
}

/// What is done a few thousand times.
type Work = fn(&mut World);

impl World {
    fn new() -> World {
        let mut world = World {
            disk: MemStorage::new(),
            clock: ManualClock::new(START_MS),
            rng: rng(),
            segment_bytes: 16 << 10,
            segment_bytes_max: 16 << 10,
            store: None,
            jobs: VecDeque::new(),
            number: 0,
            closest: 0.0,
        };
        world.open();
        world
    }

    fn open(&mut self) {
        let store = manual(Arc::new(self.disk.clone()))
            .segment_bytes(self.segment_bytes)
            .waste_ceiling(CEILING)
            .durability(Durability::Os)
            .clock(self.clock.clone())
            .open(DIRECTORY)
            .unwrap();
        self.segment_bytes_max = self.segment_bytes_max.max(self.segment_bytes);
        self.store = Some(store);
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn namespace(&self, name: &str) -> Namespace {
        self.store().namespace(name).unwrap()
    }

    /// One step of maintenance, and the bound.
    #[track_caller]
    fn step(&mut self) {
        let store = self.store();
        store.maintain().unwrap();
        store.compact_if_worthwhile().unwrap();
        let stats = store.stats();
        let (used, allowed) = (self.disk.used(), self.allowed(&stats));
        assert!(
            used <= allowed,
            "{used} bytes of {allowed} after {} writes: {stats:#?}",
            self.number
        );
        let live = stats.live_bytes;
        let part = used.saturating_sub(live) as f64 / (allowed - live) as f64;
        self.closest = self.closest.max(part);
    }

    fn allowed(&self, stats: &Stats) -> u64 {
        let space = stats.space;
        let held = space.grace_bytes + space.damage_bytes + space.pinned_bytes;
        let segments = 4 * self.segment_bytes_max;
        (stats.live_bytes as f64 * CEILING) as u64 + held + space.reserve_bytes + segments + OTHER_FILES
    }

    /// Does this many writes, with a step after every hundred and time passing.
    #[track_caller]
    fn work(&mut self, writes: u64, work: Work) {
        let end = self.number + writes;
        while self.number < end {
            for _ in 0..STEP {
                work(self);
                self.number += 1;
                self.clock.advance(20);
            }
            self.step();
        }
    }

    /// A thousand settings, most of which never change.
    fn settings(&self) {
        let settings = self.namespace("SETTINGS");
        for n in 0..1000 {
            settings.put(format!("setting {n}"), [7; 100]).unwrap();
        }
    }
}

/// Puts and deletes jobs, never the same key twice, beside settings that seldom change.
fn queue(world: &mut World) {
    let queue = world.namespace("QUEUE");
    queue.put(format!("job {}", world.number), [1; 60]).unwrap();
    world.jobs.push_back(world.number);
    while world.jobs.len() > 50 {
        let job = world.jobs.pop_front().unwrap();
        queue.delete(format!("job {job}")).unwrap();
    }
    if world.number.is_multiple_of(300) {
        let key = format!("setting {}", world.rng.below(1000));
        world.namespace("SETTINGS").put(key, [8; 100]).unwrap();
    }
}

/// Sessions with lifetimes of many lengths, some of which are ended early, some renewed.
fn sessions(world: &mut World) {
    let sessions = world.namespace("SESSIONS");
    let seconds = 1 << world.rng.below(9);
    let lifetime = PutOptions::new().ttl(Duration::from_millis(seconds * 1000 + world.rng.below(1000)));
    let user = match world.rng.below(4) {
        0 => world.number.saturating_sub(world.rng.below(500)),
        _ => world.number,
    };
    let value = vec![2; 50 + world.rng.below(200) as usize];
    sessions.put_with(format!("user {user}"), value, lifetime).unwrap();
    if world.rng.below(4) == 0 {
        let user = world.number.saturating_sub(world.rng.below(2000));
        sessions.delete(format!("user {user}")).unwrap();
    }
}

/// A few counters that change all the time.
fn counters(world: &mut World) {
    let key = match world.rng.below(10) {
        0 => format!("page {}", world.rng.below(2000)),
        _ => format!("counter {}", world.rng.below(20)),
    };
    world.namespace("COUNTERS").put(key, [3; 120]).unwrap();
}

/// Many keys that expire at once.
fn mass_expiry(world: &mut World) {
    let at_ms = START_MS + (world.number / 1000 + 1) * 1000 * 20 + 2000;
    let now_ms = world.store().now_ms();
    let options = PutOptions::new().expires_at_ms(at_ms.max(now_ms + 1));
    let key = format!("{}", world.number);
    world.namespace("CACHE").put_with(key, [4; 150], options).unwrap();
}

/// Namespaces that are created, filled and dropped.
fn namespaces(world: &mut World) {
    let name = |number: u64| format!("TENANT {number}");
    let tenant = world.number / 150;
    let namespace = world.namespace(&name(tenant));
    namespace.put(format!("{}", world.number), [5; 120]).unwrap();
    if world.number.is_multiple_of(150) && tenant > 5 {
        let dropped = tenant - 1 - world.rng.below(5);
        let _ = world.store().drop_namespace(&name(dropped));
    }
}

/// All of them, and the clock and the segments' size change now and then.
fn mixture(world: &mut World) {
    let all: [Work; 5] = [queue, sessions, counters, mass_expiry, namespaces];
    let work = all[world.rng.below(5) as usize];
    work(world);
}

#[test]
fn a_queue_beside_settings_stays_within_the_bound() {
    let mut world = World::new();
    world.settings();
    // As seen: the settings were written before, and a few of them changed.
    world.work(30_000, queue);
    assert!(world.closest > 0.3, "never near it: {}", world.closest);
    assert!(world.store().stats().compaction.runs > 0);
}

#[test]
fn a_stream_of_sessions_stays_within_the_bound() {
    let mut world = World::new();
    world.settings();
    world.work(20_000, sessions);
    assert!(world.closest > 0.3, "never near it: {}", world.closest);
}

#[test]
fn counters_stay_within_the_bound() {
    let mut world = World::new();
    world.work(20_000, counters);
    assert!(world.closest > 0.3, "never near it: {}", world.closest);
}

#[test]
fn keys_that_expire_at_once_stay_within_the_bound() {
    let mut world = World::new();
    world.settings();
    world.work(15_000, mass_expiry);
    assert!(world.closest > 0.3, "never near it: {}", world.closest);
}

#[test]
fn namespaces_that_come_and_go_stay_within_the_bound() {
    let mut world = World::new();
    world.settings();
    world.work(15_000, namespaces);
    assert!(world.closest > 0.3, "never near it: {}", world.closest);
}

#[test]
fn a_mixture_stays_within_the_bound_across_reopenings_with_other_sizes_and_jumps_of_the_clock() {
    let mut world = World::new();
    world.settings();
    for round in 0..10 {
        world.work(2000, mixture);
        match round % 3 {
            0 => {
                world.store.take().unwrap().close().unwrap();
                world.segment_bytes = [8 << 10, 64 << 10, 16 << 10, 32 << 10][world.rng.below(4) as usize];
                world.open();
            }
            1 => {
                let now_ms = world.store().now_ms();
                // An hour ahead, and back.
                world.clock.set_wall(now_ms + 3_600_000);
                world.work(500, mixture);
                world.clock.set_wall(now_ms + 60_000);
            }
            // Nothing happens but that time passes.
            _ => {
                for _ in 0..20 {
                    world.clock.advance(1000);
                    world.step();
                }
            }
        }
    }
    assert!(world.closest > 0.3, "never near it: {}", world.closest);
}

/// A value that is kept keeps the file that it points into, and the stats say so.
#[test]
fn what_a_kept_value_pins_is_told() {
    let mut world = World::new();
    world.settings();
    world.step();
    let settings = world.namespace("SETTINGS");
    let value = settings.get("setting 1").unwrap().unwrap();
    settings.delete("setting 1").unwrap();
    world.store().compact().unwrap();
    let pinned = world.store().stats().space.pinned_bytes;
    assert!(pinned > 0 && pinned <= world.segment_bytes, "{pinned}");
    assert_eq!(&*value, [7; 100]);
    drop(value);
    assert_eq!(world.store().stats().space.pinned_bytes, 0);
}

/// Tombstones that may hide a record of a damaged segment stay, and the stats say so.
#[test]
fn what_a_damaged_segment_holds_is_told() {
    let mut world = World::new();
    world.settings();
    let queue = world.namespace("QUEUE");
    for n in 0..50 {
        queue.put(format!("{n}"), [1; 60]).unwrap();
    }
    world.store().maintain().unwrap();
    world.namespace("SETTINGS").delete("setting 1").unwrap();
    for n in 0..50 {
        queue.delete(format!("{n}")).unwrap();
    }
    assert_eq!(world.store().stats().space.damage_bytes, 0);
    drop(queue);
    world.store.take().unwrap().close().unwrap();
    let path = ending(&world.disk, ".segment").remove(0);
    let bytes = world.disk.read_file(&path).unwrap();
    let wanted = b"setting 2";
    let at = bytes.windows(wanted.len()).position(|window| window == wanted).unwrap();
    world.disk.flip_bit(&path, at as u64 * 8).unwrap();
    world.open();
    world.store().compact().unwrap_err();
    let space = world.store().stats().space;
    assert!(space.damage_bytes > 1000, "{space:?}");
    world.store().compact_if_worthwhile().unwrap();
    assert_eq!(world.store().stats().space.owed_bytes, 0);
}

#[test]
fn what_compaction_owes_while_it_is_paused_is_told() {
    let mut world = World::new();
    world.settings();
    world.store().pause_compaction();
    for _ in 0..5 {
        world.settings();
    }
    world.store().maintain().unwrap();
    world.store().compact_if_worthwhile().unwrap();
    let space = world.store().stats().space;
    assert!(space.paused && space.owed_bytes > 100_000, "{space:?}");
    world.store().resume_compaction();
    world.step();
    let space = world.store().stats().space;
    assert!(!space.paused && space.owed_bytes == 0, "{space:?}");
}
