//! Where faults strike, and the state they leave.

use super::*;
use crate::storage::sealed::NeverChanged;
use crate::storage::tests::ByPath;
use crate::storage::{CutPolicy, MemStorage, write_all_at};

fn faulty_disk() -> (FaultStorage, MemStorage) {
    let disk = MemStorage::new();
    (FaultStorage::new(Arc::new(disk.clone())), disk)
}

fn kind<T>(result: io::Result<T>) -> ErrorKind {
    result.err().unwrap().kind()
}

const A: &str = "/a";
const B: &str = "/b";

#[test]
fn a_fault_strikes_at_its_step_and_only_there() {
    let (storage, disk) = faulty_disk();
    storage.inject(Fault::new(FaultKind::Error(ErrorKind::PermissionDenied)).at(3));
    let file = storage.create(Path::new(A)).unwrap();
    file.write_at(b"one", 0).unwrap();
    assert_eq!(kind(file.write_at(b"two", 3)), ErrorKind::PermissionDenied);
    assert_eq!(disk.read_file(A).unwrap(), b"one", "a failed write has no effect");
    file.write_at(b"two", 3).unwrap();
    assert_eq!(storage.steps(), 5, "failed calls count");
}

#[test]
fn a_repeated_fault_strikes_wherever_operation_and_path_match() {
    let (storage, _) = faulty_disk();
    let (a, b) = (
        storage.create(Path::new(A)).unwrap(),
        storage.create(Path::new(B)).unwrap(),
    );
    storage.inject(
        Fault::new(FaultKind::Error(ErrorKind::Other))
            .on(Operation::Sync)
            .path("b")
            .repeated(),
    );
    for _ in 0..2 {
        a.sync().unwrap();
        b.write_at(b"x", 0).unwrap();
        assert_eq!(kind(b.sync()), ErrorKind::Other);
    }
    storage.clear();
    b.sync().unwrap();
}

#[test]
fn either_name_of_a_rename_matches() {
    let (storage, _) = faulty_disk();
    storage.create(Path::new(A)).unwrap();
    storage.inject(Fault::new(FaultKind::Error(ErrorKind::Other)).path("b").repeated());
    assert_eq!(kind(storage.rename(Path::new(A), Path::new(B))), ErrorKind::Other);
    assert_eq!(kind(storage.rename(Path::new(B), Path::new(A))), ErrorKind::Other);
}

#[test]
fn a_short_write_is_reported_and_the_rest_can_follow() {
    let (storage, disk) = faulty_disk();
    storage.inject(Fault::new(FaultKind::ShortWrite { bytes: 2 }));
    let file = storage.create(Path::new(A)).unwrap();
    assert_eq!(file.write_at(b"0123", 0).unwrap(), 2);
    assert_eq!(disk.read_file(A).unwrap(), b"01");
    storage.inject(Fault::new(FaultKind::ShortWrite { bytes: 1 }));
    write_all_at(&*file, b"23", 2).unwrap();
    assert_eq!(disk.read_file(A).unwrap(), b"0123");
}

#[test]
fn a_failed_sync_loses_the_data_for_ever_but_reads_show_it() {
    let (storage, disk) = faulty_disk();
    let file = storage.create(Path::new(A)).unwrap();
    storage.open_directory(Path::new("/")).unwrap().sync().unwrap();
    // The fault follows the handle, not the name.
    storage.rename(Path::new(A), Path::new(B)).unwrap();
    storage.open_directory(Path::new("/")).unwrap().sync().unwrap();
    file.write_at(b"lost", 0).unwrap();
    storage.inject(Fault::new(FaultKind::FailedSync));
    file.sync().unwrap_err();
    file.sync().unwrap();
    assert_eq!(disk.read_file(B).unwrap(), b"lost");
    assert_eq!(disk.power_cut(&CutPolicy::KeepAll).read_file(B).unwrap(), b"");
}

#[test]
fn a_failed_directory_sync_makes_nothing_durable() {
    let (storage, disk) = faulty_disk();
    storage.create(Path::new(A)).unwrap();
    storage.inject(Fault::new(FaultKind::FailedSync));
    storage.open_directory(Path::new("/")).unwrap().sync().unwrap_err();
    assert!(disk.power_cut(&CutPolicy::LoseUnsynced).files("/").is_empty());
}

#[test]
fn a_stopped_machine_does_nothing_any_more() {
    let (storage, disk) = faulty_disk();
    let file = storage.create(Path::new(A)).unwrap();
    storage.stop_at(3);
    file.write_at(b"before", 0).unwrap();
    assert!(!storage.is_stopped());
    assert_eq!(file.write_at(b"after", 6).unwrap_err().to_string(), "stopped");
    file.read_at(&mut [0], 0).unwrap_err();
    storage.remove(Path::new(A)).unwrap_err();
    assert!(storage.is_stopped());
    assert_eq!(disk.read_file(A).unwrap(), b"before");
    storage.clear();
    assert_eq!(file.len().unwrap(), 6);
}

#[test]
fn an_injected_stop_lasts_too() {
    let (storage, _) = faulty_disk();
    let file = storage.create(Path::new(A)).unwrap();
    storage.inject(Fault::new(FaultKind::Stop).on(Operation::Sync));
    file.write_at(b"x", 0).unwrap();
    file.sync().unwrap_err();
    file.write_at(b"x", 0).unwrap_err();
}

#[test]
fn reads_can_be_left_out_of_the_count() {
    let run = |storage: &FaultStorage| {
        let file = storage.create(Path::new(A)).unwrap();
        file.len().unwrap();
        storage.exists(Path::new(A)).unwrap();
        drop(file.map(0, NeverChanged::promised()).unwrap());
        storage.open(Path::new(A), true).unwrap();
        file.sync()
    };
    let (all, _) = faulty_disk();
    run(&all).unwrap();
    assert_eq!((all.steps(), all.mutating_steps()), (8, 2));

    let (mutating, _) = faulty_disk();
    let mutating = mutating.counting_mutating_steps_only();
    mutating.stop_at(1);
    assert_eq!(run(&mutating).unwrap_err().to_string(), "stopped");
    assert_eq!((mutating.steps(), mutating.mutating_steps()), (2, 2));
}

#[test]
fn a_full_disk_refuses_what_takes_space_and_nothing_else() {
    let (storage, _) = faulty_disk();
    let file = storage.create(Path::new(A)).unwrap();
    file.write_at(b"0123", 0).unwrap();
    storage.inject(Fault::new(FaultKind::Full).repeated());
    assert_eq!(kind(file.write_at(b"4", 4)), ErrorKind::StorageFull);
    assert_eq!(kind(file.set_len(5)), ErrorKind::StorageFull);
    assert_eq!(kind(storage.create(Path::new(B))), ErrorKind::StorageFull);
    file.set_len(2).unwrap();
    file.sync().unwrap();
    storage.rename(Path::new(A), Path::new(B)).unwrap();
    storage.remove(Path::new(B)).unwrap();
    storage.clear();
    storage.inject(Fault::new(FaultKind::Full).on(Operation::Sync));
    assert_eq!(
        kind(file.sync()),
        ErrorKind::StorageFull,
        "some systems find out only then"
    );
}
