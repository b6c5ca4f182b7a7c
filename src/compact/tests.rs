use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use std::sync::atomic::{AtomicU64, Ordering};

use super::CompactionReport;
use crate::storage::{Call, Interposed, Interposer, MemStorage, Operation, Storage};
use crate::{ErrorKind, Maintenance, Namespace, ReadMode, Store};

fn open(disk: &MemStorage) -> (Store, Namespace) {
    open_on(Arc::new(disk.clone()))
}

fn open_on(storage: Arc<dyn Storage>) -> (Store, Namespace) {
    let store = Store::options()
        .segment_bytes(16 << 10)
        .maintenance(Maintenance::Manual)
        // So that damage done while the store is open is seen.
        .read_mode(ReadMode::Pread)
        .storage(storage)
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    (store, namespace)
}

/// Fills this many segments; each has one more live key of 16 than the one before.
fn fill(store: &Store, namespace: &Namespace, segments: usize) -> usize {
    for segment in 0..segments {
        for n in 0..16 {
            namespace.put(format!("{segment} {n}"), [b'v'; 900]).unwrap();
        }
        store.end_segment();
    }
    let mut live = 0;
    for segment in 0..segments {
        let gone = 16 - (segment + 1).min(16);
        for n in 0..gone {
            namespace.delete(format!("{segment} {n}")).unwrap();
        }
        live += 16 - gone;
    }
    store.end_segment();
    live
}

/// Bytes of segments after a compaction of [`fill`] with room for all of it at once.
fn bytes_with_room() -> u64 {
    let disk = MemStorage::seeded(1);
    let (store, namespace) = open(&disk);
    fill(&store, &namespace, 12);
    assert_eq!(store.compact().unwrap().runs, 1);
    store.stats().segment_bytes
}

#[test]
fn a_disk_without_room_for_all_segments_at_once_is_compacted_in_steps() {
    let disk = MemStorage::seeded(1);
    let (store, namespace) = open(&disk);
    let live = fill(&store, &namespace, 12);
    disk.set_capacity(Some(disk.used()));
    let report = store.compact().unwrap();
    assert!(report.runs > 6, "{report:?}");
    assert_eq!(namespace.count().unwrap(), live as u64);
    // The tombstones, which had segments of their own, are gone too: their puts were gone before
    // the second round.
    let bytes = store.stats().segment_bytes;
    assert!(bytes < bytes_with_room() + 1024, "{bytes} bytes");
}

/// On a slightly fuller disk some segments fit only after others have been reclaimed.
#[test]
fn what_did_not_fit_at_first_is_compacted_once_others_have_made_room() {
    let bytes_max = bytes_with_room() + 1024;
    let mut runs = BTreeSet::new();
    for less in (0..96).map(|step| step * 512) {
        let disk = MemStorage::seeded(1);
        let (store, namespace) = open(&disk);
        let live = fill(&store, &namespace, 12);
        disk.set_capacity(Some(disk.used() - less));
        match store.compact() {
            Ok(report) => {
                runs.insert(report.runs);
                let bytes = store.stats().segment_bytes;
                assert!(bytes < bytes_max, "{bytes} bytes, {less} less");
            }
            // Not even the smallest fits.
            Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}"),
        }
        assert_eq!(namespace.count().unwrap(), live as u64);
    }
    assert!(runs.len() > 1, "every segment always fitted at first: {runs:?}");
}

#[test]
fn compaction_fails_where_nothing_fits() {
    let disk = MemStorage::seeded(1);
    let (store, namespace) = open(&disk);
    let live = fill(&store, &namespace, 12);
    disk.set_capacity(Some(disk.used() / 2));
    assert_eq!(store.compact().unwrap_err().kind(), ErrorKind::NoSpace);
    assert_eq!(namespace.count().unwrap(), live as u64);
}

/// Flips a bit in the value of this key's record, in any segment.
fn damage(disk: &MemStorage, key: &str) {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "segment");
    let place = disk.files("/store").into_iter().filter(is_segment).find_map(|path| {
        let bytes = disk.read_file(&path).unwrap();
        let at = bytes.windows(key.len()).position(|window| window == key.as_bytes())?;
        Some((path, at))
    });
    let (path, at) = place.unwrap();
    disk.flip_bit(path, (at + key.len() + 100) as u64 * 8).unwrap();
}

/// A tombstone stays as long as a damaged segment has a put that it hides, so a second attempt is
/// pointless.
#[test]
fn a_forced_compaction_that_gains_nothing_is_not_repeated() {
    let disk = MemStorage::seeded(1);
    let (store, namespace) = open(&disk);
    namespace.put("hidden", [b'v'; 900]).unwrap();
    namespace.put("live", [b'v'; 900]).unwrap();
    store.end_segment();
    damage(&disk, "live");
    namespace.delete("hidden").unwrap();
    assert_eq!(store.compact().unwrap_err().kind(), ErrorKind::Corruption);
    for _ in 0..2 {
        let report = store.compact().unwrap();
        assert_eq!((report.runs, report.reclaimed_bytes), (1, 0), "{report:?}");
    }
}

/// The segments with the most waste, more than one run takes, are all damaged: the run does
/// nothing, and the others come next.
#[test]
fn the_background_goes_on_to_other_segments_if_all_that_a_run_took_are_damaged() {
    const DAMAGED: u64 = 24;
    let disk = MemStorage::seeded(1);
    let (store, namespace) = open(&disk);
    for segment in 0..DAMAGED + 8 {
        for n in 0..16 {
            let live = n == 0 || segment >= DAMAGED && n < 8;
            let key = if live {
                format!("live {segment:02} {n:02}")
            } else {
                "dead".to_owned()
            };
            namespace.put(key, [b'v'; 900]).unwrap();
        }
        store.end_segment();
    }
    (0..DAMAGED).for_each(|segment| damage(&disk, &format!("live {segment:02} 00")));
    let before = store.stats().segment_bytes;
    assert_eq!(store.compact_if_worthwhile().unwrap_err().kind(), ErrorKind::Corruption);
    let after = store.stats().segment_bytes;
    assert!(after < before - 8 * 1024, "{before} bytes before, {after} after");
    assert_eq!(namespace.count().unwrap(), DAMAGED + 8 * 8 + 1);
}

/// Fails one of the calls that create a segment.
#[derive(Debug)]
struct FailedCreation(AtomicU64);

impl Interposer for FailedCreation {
    fn around(&self, call: &Call<'_>, make: &mut dyn FnMut() -> std::io::Result<()>) -> std::io::Result<()> {
        let is_of_segment = call.path.extension().is_some_and(|end| end == "segment");
        if call.operation == Operation::Create && is_of_segment && self.0.fetch_sub(1, Ordering::Relaxed) == 1 {
            return Err(std::io::ErrorKind::Other.into());
        }
        make()
    }
}

#[test]
fn an_error_other_than_a_full_disk_ends_a_compaction_in_steps() {
    for number in 1..=6 {
        let disk = MemStorage::seeded(1);
        let fails = Arc::new(FailedCreation(AtomicU64::new(0)));
        let (store, namespace) = open_on(Arc::new(Interposed::over(Arc::new(disk.clone()), fails.clone())));
        fill(&store, &namespace, 12);
        disk.set_capacity(Some(disk.used()));
        fails.0.store(number, Ordering::Relaxed);
        assert_eq!(store.compact().unwrap_err().kind(), ErrorKind::Io, "creation {number}");
    }
}

/// Without a write that would ask for it.
#[test]
fn once_the_background_has_made_room_the_disk_counts_as_full_no_longer() {
    let disk = MemStorage::seeded(1);
    let (store, namespace) = open(&disk);
    fill(&store, &namespace, 12);
    disk.set_capacity(Some(disk.used()));
    while namespace.put("more", [b'v'; 900]).is_ok() {}
    assert!(store.stats().disk_full);
    store.compact_if_worthwhile().unwrap();
    assert!(!store.stats().disk_full);
}

#[test]
fn on_a_full_disk_the_active_segment_is_ended_for_a_thirty_second_of_waste_in_it() {
    let disk = MemStorage::seeded(1);
    let (store, namespace) = open(&disk);
    fill(&store, &namespace, 2);
    let compactor = &store.engine().compactor;
    let full = crate::Error::NoSpace { path: "/store".into() };
    let waste = || {
        let active = store
            .stats()
            .segments
            .into_iter()
            .find(|segment| !segment.sealed)
            .unwrap();
        active.dead_bytes + active.tombstone_bytes
    };
    namespace.put("first", "").unwrap();
    assert!(waste() == 0 && store.stats().dead_bytes > 16 << 10);
    // Deletes of keys elsewhere, and of those that were put just before.
    for n in 0.. {
        namespace.put(format!("{n:02}"), "").unwrap();
        store.engine().log.reserve.note(&full);
        let is_enough = waste() > (16 << 10) / 32;
        assert_eq!(compactor.needs_the_active_segment(), is_enough, "{} bytes", waste());
        store.engine().log.reserve.restore().unwrap();
        assert!(!compactor.needs_the_active_segment(), "the disk is not full");
        if is_enough {
            break;
        }
        let deleted = if n % 2 == 0 {
            format!("1 {}", 15 - n / 2)
        } else {
            format!("{n:02}")
        };
        namespace.delete(deleted).unwrap();
    }
}

/// The segment that would free the most is damaged. The deletes fill segments of their own, which
/// the disk has no room for.
#[test]
fn a_delete_on_a_full_disk_makes_room_past_a_damaged_segment_and_the_damage_is_told() {
    let disk = MemStorage::seeded(1);
    let (store, namespace) = open(&disk);
    fill(&store, &namespace, 12);
    damage(&disk, "0 15");
    let long = |n| format!("{n} {}", "k".repeat(400));
    (0..300).for_each(|n| {
        namespace.put(long(n), "v").unwrap();
    });
    store.end_segment();
    disk.set_capacity(Some(disk.used()));
    for n in (0..300).filter(|n| n % 4 > 0) {
        assert!(namespace.delete(long(n)).unwrap().existed);
    }
    let told = store.stats().background_error.unwrap_or_default();
    assert!(told.contains("damaged"), "{told:?}");
    assert!(store.stats().compaction.reclaimed_bytes > 0);
}

fn run(read_bytes: u64, written_bytes: u64, reclaimed_bytes: u64) -> CompactionReport {
    CompactionReport {
        runs: 1,
        read_bytes,
        written_bytes,
        reclaimed_bytes,
    }
}

#[test]
fn a_report_of_several_runs_is_their_sum() {
    let (mut sum, all) = (run(5, 4, 1), run(12, 8, 4));
    sum.add(run(7, 4, 3));
    assert_eq!(sum, CompactionReport { runs: 2, ..all });
}

#[test]
fn a_run_has_changed_nothing_if_it_has_written_what_it_read() {
    assert!(run(5, 5, 0).changed_nothing());
    assert!(!run(5, 4, 1).changed_nothing());
    assert!(!run(5, 6, 0).changed_nothing());
    assert!(!run(5, 5, 1).changed_nothing());
}

/// Damaged segments without live records are dropped unread. If even that does not fit, the call
/// fails.
#[test]
fn dropping_what_is_damaged_and_dead_can_fail_for_want_of_space() {
    let disk = MemStorage::seeded(1);
    let (store, namespace) = open(&disk);
    // The record of the namespace stays alive.
    store.end_segment();
    // Waste, so that it is read.
    namespace.put("key", [b'v'; 900]).unwrap();
    namespace.put("key", [b'v'; 900]).unwrap();
    store.end_segment();
    damage(&disk, "key");
    assert_eq!(store.compact().unwrap_err().kind(), ErrorKind::Corruption);
    // Nothing else to do: neither waste nor small segments.
    for n in 0..12 {
        let key = if n == 0 { "key".to_owned() } else { format!("{n}") };
        namespace.put(key, [b'v'; 900]).unwrap();
    }
    store.end_segment();
    disk.set_capacity(Some(0));
    assert_eq!(store.compact().unwrap_err().kind(), ErrorKind::NoSpace);
    disk.set_capacity(None);
    assert_eq!(store.compact().unwrap().runs, 1);
    assert_eq!(namespace.count().unwrap(), 12);
}
