use super::*;
use crate::format::segment::SEAL_LEN;
use crate::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
use crate::{Durability, ErrorKind, ReadMode, Store};

#[test]
fn a_sealed_segment_is_opened_only_if_its_seal_says_what_the_manifest_says() {
    for index_file in [false, true] {
        let disk = MemStorage::new();
        let open = || {
            let options = Store::options().maintenance(Maintenance::Manual).index_file(index_file);
            options.storage(Arc::new(disk.clone())).open("/store")
        };
        let store = open().unwrap();
        store.namespace("N").unwrap().put("key", "value").unwrap();
        store.close().unwrap();
        let path = "/store/0000000000000001.segment";
        let in_seal = disk.read_file(path).unwrap().len() as u64 - SEAL_LEN / 2;
        disk.flip_bit(path, in_seal * 8).unwrap();
        assert_eq!(open().unwrap_err().kind(), ErrorKind::Corruption);
    }
}

/// A file is cut once its records are copied, and what a map has of the part cut off is gone.
#[test]
fn no_segment_is_mapped_whose_records_recovery_could_not_copy() {
    let disk = MemStorage::new();
    let open = |disk: &MemStorage, full: bool| {
        let faults = FaultStorage::new(Arc::new(disk.clone()));
        if full {
            let create = Fault::new(FaultKind::Full).on(Operation::Create);
            faults.inject(create.path(".segment").repeated());
        }
        let options = Store::options()
            .maintenance(Maintenance::Manual)
            .read_mode(ReadMode::Map)
            .durability(Durability::Os);
        (
            faults.clone(),
            options.storage(Arc::new(faults)).open("/store").unwrap(),
        )
    };
    let (_, store) = open(&disk, false);
    store.namespace("N").unwrap().put("key", "value").unwrap();
    let (faults, store) = open(&disk.crash_process(), true);
    let engine = store.engine();
    assert!(engine.log.lock().tail.is_recovering());
    let segments = engine.state.segments.all();
    assert!(!segments.is_empty() && segments.iter().all(|segment| segment.map().is_none()));
    let namespace = store.namespace("N").unwrap();
    let value = namespace.get("key").unwrap().unwrap();
    faults.clear();
    namespace.put("other key", "value").unwrap();
    assert!(!engine.log.lock().tail.is_recovering());
    assert_eq!(
        (&value[..], &namespace.get("key").unwrap().unwrap()[..]),
        (&b"value"[..], &b"value"[..])
    );
}

#[test]
fn an_index_file_that_still_fits_is_left_as_it_is() {
    let disk = MemStorage::new();
    let faults = FaultStorage::new(Arc::new(disk.clone()));
    let open = || {
        let options = Store::options().maintenance(Maintenance::Manual);
        options.storage(Arc::new(faults.clone())).open("/store").unwrap()
    };
    let store = open();
    store.namespace("N").unwrap().put("key", "value").unwrap();
    store.close().unwrap();
    let written = disk.read_file("/store/INDEX").unwrap();
    let store = open();
    faults.inject(Fault::new(FaultKind::Full).path("INDEX").repeated());
    store.close().unwrap();
    assert_eq!(disk.read_file("/store/INDEX").unwrap(), written);
}
