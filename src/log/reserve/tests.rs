use super::*;
use crate::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
use crate::{Maintenance, Store};

const PATH: &str = "/store/RESERVE";

fn opened() -> (MemStorage, FaultStorage, Store) {
    let disk = MemStorage::new();
    let faults = FaultStorage::new(Arc::new(disk.clone()));
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .segment_bytes(1 << 20)
        .storage(Arc::new(faults.clone()))
        .open("/store")
        .unwrap();
    (disk, faults, store)
}

/// What each part leaves in the file, and the length of the whole.
fn kept(reserve: &Reserve) -> [(ReservePart, Option<u64>); 2] {
    [
        (ReservePart::Tombstones, Some(reserve.segment_bytes())),
        (ReservePart::Whole, None),
    ]
}

fn length(disk: &MemStorage) -> Option<u64> {
    disk.read_file(PATH).ok().map(|bytes| bytes.len() as u64)
}

#[test]
fn what_was_released_can_be_restored() {
    let (disk, faults, store) = opened();
    let reserve = &store.engine().log.reserve;
    assert_eq!(length(&disk), Some(reserve.bytes()));
    for (part, left) in kept(reserve) {
        reserve.release(part);
        assert_eq!(length(&disk), left);
        if left.is_some() {
            // What is left is never given away: another program could take it.
            let refuse = Fault::new(FaultKind::Error(std::io::ErrorKind::Other));
            faults.inject(refuse.clone().on(Operation::Create).path(PATH).repeated());
            faults.inject(refuse.on(Operation::Remove).path(PATH).repeated());
        }
        reserve.restore().unwrap();
        faults.clear();
        assert_eq!(length(&disk), Some(reserve.bytes()));
        assert!(!reserve.is_full());
    }
}

#[test]
fn a_reserve_that_cannot_be_restored_takes_no_more_space_than_before() {
    let (disk, faults, store) = opened();
    let reserve = &store.engine().log.reserve;
    for (part, left) in kept(reserve) {
        reserve.release(part);
        for operation in [Operation::Write, Operation::Sync] {
            faults.inject(Fault::new(FaultKind::Full).on(operation).path(PATH));
            assert!(reserve.restore().unwrap_err().is_no_space());
            assert_eq!(length(&disk), left, "{part:?} {operation:?}");
        }
        assert!(reserve.is_full());
    }
}

#[test]
fn a_reserve_that_cannot_be_looked_at_is_left_alone() {
    let (disk, faults, store) = opened();
    let denied = FaultKind::Error(std::io::ErrorKind::PermissionDenied);
    faults.inject(Fault::new(denied).on(Operation::OpenRead).path(PATH).repeated());
    let reserve = &store.engine().log.reserve;
    reserve.release(ReservePart::Tombstones);
    reserve.restore().unwrap_err();
    assert_eq!(length(&disk), Some(reserve.segment_bytes()));
}

#[test]
fn only_on_a_full_disk_is_a_part_kept_from_anybody_and_never_from_work_that_frees_space() {
    let (_, _, store) = opened();
    let reserve = &store.engine().log.reserve;
    let all = [ReservePart::None, ReservePart::Tombstones, ReservePart::Whole];
    assert_eq!(all.map(|part| reserve.keeps_from(part)), [false; 3]);
    reserve.release(ReservePart::Tombstones);
    assert_eq!(all.map(|part| reserve.keeps_from(part)), [true, true, false]);
    reserve.restore().unwrap();
    assert_eq!(all.map(|part| reserve.keeps_from(part)), [false; 3]);
}

#[test]
fn it_is_a_segment_and_a_quarter_and_follows_the_size_of_segments() {
    assert_eq!(reserve_bytes(8 << 20), 10 << 20);
    let (disk, _, store) = opened();
    let reserve = &store.engine().log.reserve;
    let (whole, half) = (reserve.bytes(), reserve_bytes(512 << 10));
    assert!(half < whole);
    reserve.follow(512 << 10);
    assert_eq!((reserve.bytes(), length(&disk)), (half, Some(half)));
    // The length alone would reserve nothing.
    reserve.follow(1 << 20);
    assert_eq!((reserve.bytes(), length(&disk)), (whole, Some(half)));
    reserve.restore().unwrap();
    assert_eq!(length(&disk), Some(whole));
}

/// As if there were nearly a gibibyte of live data.
#[test]
fn segments_and_reserve_grow_with_the_data_unless_the_disk_is_too_small() {
    for is_small in [false, true] {
        let disk = MemStorage::new();
        let options = Store::options().maintenance(Maintenance::Manual);
        let store = options.storage(Arc::new(disk.clone())).open("/store").unwrap();
        store.namespace("N").unwrap().put("key", "value").unwrap();
        let log = &store.engine().log;
        log.adapt_sizes();
        assert_eq!((log.segment_bytes(), length(&disk)), (8 << 20, Some(10 << 20)));
        let guard = log.lock();
        let active = guard.tail.active.as_ref().unwrap();
        active
            .segment
            .counters
            .add_live(&log.state.lock_changes(), 1, (1 << 30) - (1 << 20));
        drop(guard);
        if is_small {
            disk.set_capacity(Some(disk.used() + (20 << 20)));
        }
        log.adapt_sizes();
        let segment_bytes = if is_small { 8 << 20 } else { 32 << 20 };
        assert_eq!(log.segment_bytes(), segment_bytes);
        assert_eq!(length(&disk), Some(reserve_bytes(segment_bytes)));
        assert!(!log.reserve.is_full());
    }
}

/// On a disk that is too small segments become smaller; that would not help here.
#[test]
fn a_reserve_that_the_device_refuses_leaves_segments_as_large_as_they_are() {
    let faults = FaultStorage::new(Arc::new(MemStorage::new()));
    let open = || {
        let options = Store::options().maintenance(Maintenance::Manual);
        options.storage(Arc::new(faults.clone())).open("/store").unwrap()
    };
    drop(open());
    faults.inject(
        Fault::new(FaultKind::Error(std::io::ErrorKind::Other))
            .path(PATH)
            .repeated(),
    );
    let store = open();
    assert_eq!(store.engine().log.segment_bytes(), 8 << 20);
    assert!(faults.struck() > 0);
}

/// The parts are for different work, and none takes another's.
#[test]
fn the_part_of_the_ring_is_left_by_compaction_and_used_once() {
    let (disk, faults, store) = opened();
    let reserve = &store.engine().log.reserve;
    let without = reserve.bytes();
    reserve.hold_for_ring(4096).unwrap();
    assert_eq!((length(&disk), reserve.bytes()), (Some(without + 4096), without + 4096));
    reserve.release(ReservePart::Tombstones);
    assert_eq!(length(&disk), Some(reserve.segment_bytes() + 4096));
    reserve.release(ReservePart::Whole);
    assert_eq!(length(&disk), Some(4096));
    reserve.release(ReservePart::Acknowledged);
    assert_eq!(length(&disk), None);
    reserve.restore().unwrap();
    // Released twice, it takes nothing from the other parts.
    reserve.release(ReservePart::Acknowledged);
    reserve.release(ReservePart::Acknowledged);
    assert_eq!(length(&disk), Some(without));
    reserve.restore().unwrap();
    reserve.hold_for_ring(0).unwrap();
    assert_eq!(length(&disk), Some(without));
    // Without room for it there is none, and the disk does not count as full.
    faults.inject(Fault::new(FaultKind::Full).on(Operation::Write).path(PATH));
    assert!(reserve.hold_for_ring(4096).unwrap_err().is_no_space());
    assert_eq!(
        (length(&disk), reserve.bytes(), reserve.is_full()),
        (Some(without), without, false)
    );
}
