use super::*;
use crate::format::segment::{SEAL_LEN, SEGMENT_HEADER_LEN, SEGMENT_LEN_MAX};
use crate::segment::scan::used_len;
use crate::storage::{CutPolicy, Fault, FaultKind, FaultStorage, MemStorage, Operation, Storage};
use crate::{Durability, ErrorKind, PutOptions, ReadMode, Store};

fn open_on(storage: Arc<dyn Storage>) -> Result<Store> {
    let options = Store::options().maintenance(Maintenance::Manual).index_file(false);
    options.storage(storage).open("/store")
}

fn open(disk: &MemStorage) -> Result<Store> {
    open_on(Arc::new(disk.clone()))
}

fn segment_path(id: u64) -> String {
    format!("/store/{}", segment_file(id))
}

fn put(store: &Store, key: &str, value: &[u8], durability: Durability) {
    let options = PutOptions::new().durability(durability);
    store.namespace("N").unwrap().put_with(key, value, options).unwrap();
}

fn text(store: &Store, key: &str) -> Option<String> {
    store.open_namespace("N").unwrap().get_text(key).unwrap()
}

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

#[test]
fn a_sealed_segment_is_opened_only_if_it_is_as_long_as_the_manifest_says() {
    let disk = MemStorage::new();
    let store = open(&disk).unwrap();
    put(&store, "key", b"value", Durability::Os);
    store.close().unwrap();
    let whole = disk.read_file(segment_path(1)).unwrap();
    let longer = [&whole[..], &[0]].concat();
    for wrong in [&whole[..whole.len() - 1], &longer] {
        disk.write_file(segment_path(1), wrong).unwrap();
        assert_eq!(
            open(&disk).unwrap_err().kind(),
            ErrorKind::Corruption,
            "{}",
            wrong.len()
        );
    }
    disk.write_file(segment_path(1), &whole).unwrap();
    open(&disk).unwrap();
}

/// The second of two synced puts is preceded by a mark that says that the first is durable.
#[test]
fn what_follows_the_end_of_a_cut_segment_takes_no_space_and_what_is_missing_of_it_is_damage() {
    let disk = MemStorage::new();
    let store = open(&disk).unwrap();
    put(&store, "a", b"1", Durability::Sync);
    put(&store, "b", b"2", Durability::Sync);
    let killed = disk.crash_process();
    let store = open(&killed).unwrap();
    assert!(store.recovery_report().rewritten_bytes > 0);
    let manifest = store.engine().log.manifest.current();
    let cut: Vec<_> = (manifest.segments.iter())
        .filter_map(|entry| match entry.state {
            SegmentState::Cut(summary) => Some((entry.id, summary.data_end)),
            _ => None,
        })
        .collect();
    let [(id, end)] = cut[..] else { panic!("{cut:?}") };
    let bytes = killed.read_file(segment_path(id)).unwrap();
    assert_eq!(bytes.len() as u64, end);
    assert!(bytes.len() < disk.read_file(segment_path(id)).unwrap().len());
    assert_eq!(
        [text(&store, "a"), text(&store, "b")],
        [Some("1".into()), Some("2".into())]
    );
    store.close().unwrap();
    killed.write_file(segment_path(id), &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(open(&killed).unwrap_err().kind(), ErrorKind::Corruption);
}

#[test]
fn the_manifest_that_was_found_is_durable_before_anything_is_built_on_it() {
    let disk = MemStorage::new();
    let store = open(&disk).unwrap();
    put(&store, "key", b"value", Durability::Os);
    store.close().unwrap();
    // As a process leaves it that was killed between the rename and the sync.
    disk.rename("/store/MANIFEST", "/store/elsewhere").unwrap();
    disk.sync_directory("/store").unwrap();
    disk.rename("/store/elsewhere", "/store/MANIFEST").unwrap();
    let _store = open(&disk).unwrap();
    let store = open(&disk.power_cut(&CutPolicy::LoseUnsynced)).unwrap();
    assert_eq!(text(&store, "key").as_deref(), Some("value"));
}

#[test]
fn sequences_are_skipped_after_an_unclean_end_only() {
    let disk = MemStorage::new();
    let sequence = |store: &Store| store.namespace("N").unwrap().put("key", "value").unwrap();
    let store = open(&disk).unwrap();
    let first = sequence(&store);
    store.close().unwrap();
    let store = open(&disk).unwrap();
    let second = sequence(&store);
    assert!((first..first + 100).contains(&second), "{first} {second}");
    let store = open(&disk.crash_process()).unwrap();
    assert!(sequence(&store) > second + SEQUENCE_GAP);
}

#[test]
fn what_cannot_be_copied_for_lack_of_space_is_read_and_another_failure_is_an_error() {
    for (kind, opens) in [
        (FaultKind::Full, true),
        (FaultKind::Error(std::io::ErrorKind::Other), false),
    ] {
        let disk = MemStorage::new();
        let store = open(&disk).unwrap();
        put(&store, "key", b"value", Durability::Os);
        let faults = FaultStorage::new(Arc::new(disk.crash_process()));
        faults.inject(Fault::new(kind).on(Operation::Write).path(".segment").repeated());
        match open_on(Arc::new(faults.clone())) {
            Ok(store) => assert_eq!((opens, text(&store, "key").as_deref()), (true, Some("value"))),
            Err(error) => assert_eq!((opens, error.kind()), (false, ErrorKind::Io)),
        }
        assert!(faults.struck() > 0);
    }
}

/// Two segments that were not sealed, written out and not synced.
fn two_unsealed(first: &[u8]) -> (MemStorage, Store) {
    let disk = MemStorage::new();
    let store = open(&disk).unwrap();
    let segments: [&[(&str, &[u8])]; 2] = [&[("a", b"1"), ("b", first)], &[("c", b"3")]];
    for puts in segments {
        for (key, value) in puts {
            put(&store, key, value, Durability::Buffered);
        }
        store.engine().log.retire_active().unwrap();
    }
    (disk, store)
}

#[test]
fn what_is_discarded_is_all_behind_the_first_tear_and_is_counted() {
    let (disk, store) = two_unsealed(b"2");
    let number = store.namespace("N").unwrap().state.number;
    let state = &store.engine().state;
    let (torn, _) = state.find_header(&state.hashed(number, b"b")).unwrap().unwrap();
    let killed = disk.crash_process();
    killed.flip_bit(segment_path(1), torn.offset() * 8).unwrap();
    let length = |id| used_len(&killed.read_file(segment_path(id)).unwrap());
    let behind = length(1) - torn.offset() + length(2) - SEGMENT_HEADER_LEN;
    let store = open(&killed).unwrap();
    assert_eq!(
        ["a", "b", "c"].map(|key| text(&store, key)),
        [Some("1".to_owned()), None, None]
    );
    let report = store.recovery_report();
    assert_eq!((report.unsealed_segments, report.discarded_bytes), (2, behind));
}

#[test]
fn what_is_known_to_be_durable_is_not_copied() {
    let disk = MemStorage::new();
    let store = open(&disk).unwrap();
    put(&store, "a", &[7; 10_000], Durability::Buffered);
    store.engine().log.retire_active().unwrap();
    put(&store, "b", b"2", Durability::Buffered);
    store.sync().unwrap();
    // Preceded by a mark that says that all before it is durable.
    put(&store, "c", b"3", Durability::Buffered);
    store.engine().log.retire_active().unwrap();
    let store = open(&disk.crash_process()).unwrap();
    let report = store.recovery_report();
    assert_eq!(report.unsealed_segments, 2);
    assert!(
        report.rewritten_bytes > 0 && report.rewritten_bytes < 1_000,
        "{report:?}"
    );
    assert_eq!(store.open_namespace("N").unwrap().count().unwrap(), 3);
}

#[test]
fn a_segment_is_read_into_memory_if_the_system_grants_no_map_and_only_then() {
    for (kind, opens) in [
        (std::io::ErrorKind::OutOfMemory, true),
        (std::io::ErrorKind::Other, false),
    ] {
        let (disk, _store) = two_unsealed(b"2");
        let faults = FaultStorage::new(Arc::new(disk.crash_process()));
        // The first is mapped before anything is decided.
        faults.inject(Fault::new(FaultKind::Error(kind)).on(Operation::Map));
        match open_on(Arc::new(faults.clone())) {
            Ok(store) => assert_eq!((opens, text(&store, "b").as_deref()), (true, Some("2"))),
            Err(error) => assert_eq!((opens, error.kind()), (false, ErrorKind::Io)),
        }
        assert_eq!(faults.struck(), 1);
    }
}

#[test]
fn a_segment_longer_than_any_can_be_is_damaged() {
    let (disk, _store) = two_unsealed(b"2");
    let directory = tempfile::tempdir().unwrap();
    for path in disk.files("/store") {
        let bytes = disk.read_file(&path).unwrap();
        std::fs::write(directory.path().join(path.file_name().unwrap()), bytes).unwrap();
    }
    let path = directory.path().join(segment_file(1));
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(SEGMENT_LEN_MAX + 1).unwrap();
    let opened = Store::options().maintenance(Maintenance::Manual).open(directory.path());
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::Corruption);
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
