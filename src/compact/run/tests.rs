use std::time::Duration;

use super::super::fate::{Fate, fate};
use super::*;
use crate::segment::scan::Scanner;
use crate::storage::MemStorage;
use crate::{Maintenance, ManualClock, Namespace, PutOptions, Store};

fn open(disk: &MemStorage, clock: &ManualClock) -> (Store, Namespace) {
    let store = Store::options()
        .segment_bytes(4096)
        .maintenance(Maintenance::Manual)
        .clock(clock.clone())
        .storage(Arc::new(disk.clone()))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    (store, namespace)
}

#[test]
fn a_put_swept_while_a_run_is_under_way_is_not_taken_for_overwritten() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(1_000_000));
    let (store, namespace) = open(&disk, &clock);
    let engine = store.engine();
    namespace.put("key", "for ever").unwrap();
    store.end_segment();
    let five_seconds = PutOptions::new().ttl(Duration::from_secs(5));
    namespace.put_with("key", "for five seconds", five_seconds).unwrap();
    store.end_segment();

    let input = SealedSegment::of(engine.state.segments.all().pop().unwrap()).unwrap();
    let rules = engine.compactor.rules(std::slice::from_ref(&input));
    clock.advance(5000);
    engine.housekeeping.sweep_expired();
    let mut scratch = Vec::new();
    let mut scanner = Scanner::new(input.all_bytes(&mut scratch).unwrap(), input.header);
    let found = scanner.next().unwrap();
    assert_eq!(found.record.key(), b"key");
    // If it were dropped, the older put, which never expires, would reappear on the next open.
    let key = engine.state.hashed(found.record.header.namespace, found.record.key());
    let location = input.location(found.offset);
    let facts = engine
        .compactor
        .facts(&key, location, &found.record.header, &rules)
        .unwrap();
    assert_eq!(fate(&facts), Fate::Linger);
}

#[test]
fn a_delete_is_not_forgotten_while_the_put_it_ended_lingers_as_expired() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(1_000_000));
    let (store, namespace) = open(&disk, &clock);
    let five_seconds = PutOptions::new().ttl(Duration::from_secs(5));
    namespace.put_with("key", "value", five_seconds).unwrap();
    namespace.delete("key").unwrap();
    clock.advance(6000);
    assert!(store.compact().unwrap().runs > 0, "nothing was decided about");
    drop(namespace);
    store.close().unwrap();
    // The clock had been fast, and is set right before the store is opened again.
    clock.set_wall(1_001_000);
    let (_store, namespace) = open(&disk, &clock);
    assert!(namespace.get("key").unwrap().is_none());
}

/// The delete is alone in its segment, which hides nothing outside the run: it could be dropped
/// unread if the put did not stay.
#[test]
fn a_segment_of_deletes_is_read_as_long_as_a_put_with_an_expiry_is_compacted_with_it() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(1_000_000));
    let (store, namespace) = open(&disk, &clock);
    let five_seconds = PutOptions::new().ttl(Duration::from_secs(5));
    namespace.put_with("key", "value", five_seconds).unwrap();
    store.end_segment();
    namespace.delete("key").unwrap();
    store.end_segment();
    clock.advance(6000);
    assert_eq!(store.compact_subset(0b11).unwrap().runs, 1);
    drop(namespace);
    store.close().unwrap();
    clock.set_wall(1_001_000);
    let (_store, namespace) = open(&disk, &clock);
    assert!(namespace.get("key").unwrap().is_none());
}

#[test]
fn a_delete_goes_once_its_key_was_put_again_although_an_older_put_stays() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(1_000_000));
    let (store, namespace) = open(&disk, &clock);
    namespace.put("key", "older").unwrap();
    store.end_segment();
    namespace.delete("key").unwrap();
    store.end_segment();
    let kept = store.compact_subset(0b10).unwrap();
    assert!(kept.runs == 1 && kept.written_bytes > 0, "{kept:?}");
    namespace.put("key", "newer").unwrap();
    let dropped = store.compact_subset(0b10).unwrap();
    assert_eq!((dropped.runs, dropped.written_bytes), (1, 0), "{dropped:?}");
}

/// The put is copied as live, and dies in the output.
#[test]
fn what_hides_a_put_that_is_deleted_during_the_run_is_needed_by_the_output() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(1_000_000));
    let (store, namespace) = open(&disk, &clock);
    let engine = store.engine();
    namespace.put("key", "value").unwrap();
    namespace.put("other", "value").unwrap();
    store.end_segment();
    let inputs = [SealedSegment::of(engine.state.segments.all().remove(0)).unwrap()];
    let run = engine.compactor.begin(&inputs, Pace::Forced).unwrap();
    let mut scratch = [Vec::new()];
    let loaded = run.load(&mut scratch).unwrap();
    let copied = run.copy(&loaded).unwrap();
    let before = engine.log.lock().last_sequence;
    namespace.delete("key").unwrap();
    run.finish(&loaded, copied).unwrap();
    let outputs = engine.state.segments.all().into_iter();
    let mut outputs = outputs.filter(|segment| segment.counters.get().dead_bytes() > 0);
    let output = outputs.next().unwrap();
    // The tombstone, which comes after this, is kept.
    assert_eq!(output.counters.get().hides_up_to(), Some(before));
}

#[test]
fn what_has_only_just_expired_outlives_two_runs() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(1_000_000));
    let (store, namespace) = open(&disk, &clock);
    let five_seconds = PutOptions::new().ttl(Duration::from_secs(5));
    namespace.put_with("key", "value", five_seconds).unwrap();
    clock.advance(6000);
    // Neither call would compact it on its own: there is nothing to reclaim.
    for _ in 0..2 {
        store.compact().unwrap();
        assert_eq!(store.compact_subset(u64::MAX).unwrap().runs, 1);
        store.compact_if_worthwhile().unwrap();
    }
    drop(namespace);
    store.close().unwrap();
    clock.set_wall(1_001_000);
    let (_store, namespace) = open(&disk, &clock);
    assert!(namespace.get("key").unwrap().is_some());
}

#[test]
fn while_compaction_is_paused_the_background_gives_nothing_back() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(1_000_000));
    let (store, namespace) = open(&disk, &clock);
    for _ in 0..40 {
        namespace.put("key", [7; 400]).unwrap();
    }
    store.maintain().unwrap();
    store.pause_compaction();
    assert_eq!(store.compact_if_worthwhile().unwrap().runs, 0);
    store.resume_compaction();
    assert!(store.compact_if_worthwhile().unwrap().reclaimed_bytes > 0);
}

#[test]
fn what_compaction_has_moved_leaves_memory_once_it_has_expired() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(1_000_000));
    let (store, namespace) = open(&disk, &clock);
    let five_seconds = PutOptions::new().ttl(Duration::from_secs(5));
    namespace.put_with("key", "value", five_seconds).unwrap();
    for _ in 0..40 {
        namespace.put("fill", [7; 400]).unwrap();
    }
    assert!(store.compact().unwrap().reclaimed_bytes > 0);
    assert_eq!(store.stats().keys, 2);
    clock.advance(5000);
    store.maintain().unwrap();
    assert_eq!(store.stats().keys, 1);
}

/// A file that rots between the two readings: the outputs have everything, so nothing is lost.
#[test]
fn an_input_damaged_between_its_two_readings_stops_the_writers_and_loses_nothing() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(1_000_000));
    let (store, namespace) = open(&disk, &clock);
    let engine = store.engine();
    for n in 0..20 {
        namespace.put(format!("{n}"), [7; 100]).unwrap();
    }
    store.end_segment();
    let inputs = [SealedSegment::of(engine.state.segments.all().remove(0)).unwrap()];
    let run = engine.compactor.begin(&inputs, Pace::Forced).unwrap();
    let mut scratch = [Vec::new()];
    let loaded = run.load(&mut scratch).unwrap();
    let copied = run.copy(&loaded).unwrap();
    let mut bytes = loaded[0].bytes.to_vec();
    bytes[1000..].fill(0xff);
    let damaged = [Loaded {
        input: &inputs[0],
        bytes: &bytes,
    }];
    let error = run.finish(&damaged, copied).unwrap_err();
    assert!(matches!(error, Error::Corruption { .. }), "{error}");
    let is_whole = |namespace: &Namespace| {
        for n in 0..20 {
            assert_eq!(
                namespace.get(format!("{n}")).unwrap().as_deref(),
                Some(&[7; 100][..]),
                "{n}"
            );
        }
    };
    is_whole(&namespace);
    assert!(matches!(namespace.put("more", "1"), Err(Error::Poisoned { .. })));
    drop(namespace);
    assert!(store.clone().close().is_err());

    let (store, namespace) = open(&disk, &clock);
    is_whole(&namespace);
    namespace.put("more", "1").unwrap();
    assert!(store.verify().unwrap().is_sound());
}

/// The names of namespaces are keys, too, of a namespace that cannot be dropped.
#[test]
fn the_end_of_a_namespace_is_kept_as_long_as_its_beginning() {
    let (disk, clock) = (MemStorage::new(), ManualClock::new(1_000_000));
    let (store, namespace) = open(&disk, &clock);
    store.create_namespace("DROPPED").unwrap();
    namespace.put("key", "value").unwrap();
    store.end_segment();
    store.drop_namespace("DROPPED").unwrap();
    store.maintain().unwrap();
    store.end_segment();
    assert_eq!(store.compact_subset(0b10).unwrap().runs, 1);
    drop(namespace);
    store.close().unwrap();
    disk.remove_file("/store/INDEX").unwrap();
    let (store, _) = open(&disk, &clock);
    assert!(store.open_namespace("DROPPED").is_err());
}
