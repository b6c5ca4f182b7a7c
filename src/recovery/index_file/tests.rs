use super::*;
use crate::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation, Storage};
use crate::{Maintenance, Store};

fn open_on(storage: Arc<dyn Storage>) -> Store {
    let options = Store::options().maintenance(Maintenance::Manual);
    options.storage(storage).open("/store").unwrap()
}

fn open(disk: &MemStorage) -> Store {
    open_on(Arc::new(disk.clone()))
}

/// One field alone detects most index files of another time or store; each must suffice.
#[test]
fn all_that_the_head_of_an_index_file_says_is_compared() {
    let disk = MemStorage::new();
    let store = open(&disk);
    store.namespace("N").unwrap().put("key", "value").unwrap();
    store.close().unwrap();
    let bytes = disk.read_file("/store/INDEX").unwrap();
    let (head, content) = bytes.split_at(IndexHead::LEN);
    let head = IndexHead::decode(head).unwrap();
    let is_used = |head: IndexHead, content: &[u8]| {
        let copy = disk.crash_process();
        copy.write_file("/store/INDEX", &[&head.encode(), content].concat())
            .unwrap();
        let store = open(&copy);
        let namespace = store.open_namespace("N").unwrap();
        assert_eq!(namespace.get_text("key").unwrap().as_deref(), Some("value"));
        store.recovery_report().index_file_used
    };
    assert!(is_used(head, content));
    let store_id = head.store_id.map(|byte| byte ^ 1);
    assert!(!is_used(IndexHead { store_id, ..head }, content), "store");
    for generation in [head.generation - 1, head.generation + 1] {
        assert!(!is_used(IndexHead { generation, ..head }, content), "generation");
    }
    let manifest_crc = head.manifest_crc ^ 1;
    assert!(!is_used(IndexHead { manifest_crc, ..head }, content), "manifest");
    let hash_probe = head.hash_probe ^ 1;
    assert!(!is_used(IndexHead { hash_probe, ..head }, content), "hash");
    assert!(!is_used(head, &[content, &[0]].concat()), "length");
    // And the content of the sections: first with the old checksums, then with matching ones.
    let others = (head.sections[0].length + head.sections[1].length) as usize;
    let changed = |at: usize| {
        let mut content = content.to_vec();
        content[others + at] += 1;
        content
    };
    let next_namespace = changed(0);
    assert!(!is_used(head, &next_namespace), "checksum");
    let live_puts = changed(4 + 8 + 8);
    let mut counted = head;
    counted.sections[2].crc = crc32fast::hash(&live_puts[others..]);
    assert!(!is_used(counted, &live_puts), "live records");
}

#[test]
fn an_index_file_that_cannot_be_read_is_told_and_one_that_was_cut_short_is_ignored() {
    let disk = MemStorage::new();
    let store = open(&disk);
    store.namespace("N").unwrap().put("key", "value").unwrap();
    store.close().unwrap();
    let whole = disk.read_file("/store/INDEX").unwrap();
    for operation in [Operation::OpenRead, Operation::Read] {
        let faults = FaultStorage::new(Arc::new(disk.crash_process()));
        let failure = FaultKind::Error(io::ErrorKind::Other);
        faults.inject(Fault::new(failure).on(operation).path("INDEX").repeated());
        let store = open_on(Arc::new(faults.clone()));
        assert!(!store.recovery_report().index_file_used);
        let told = store.stats().background_error.unwrap();
        assert!(told.contains("/store/INDEX"), "{told}");
    }
    for length in [0, IndexHead::LEN - 1, IndexHead::LEN, whole.len() - 1, whole.len()] {
        let copy = disk.crash_process();
        copy.write_file("/store/INDEX", &whole[..length]).unwrap();
        let store = open(&copy);
        let report = store.recovery_report();
        assert_eq!((report.index_file_used, report.keys), (length == whole.len(), 1));
        assert_eq!(store.stats().background_error, None, "{length}");
    }
}

#[test]
fn no_index_file_is_written_beside_a_log_that_was_not_closed_well() {
    let disk = MemStorage::new();
    let store = open(&disk);
    store.namespace("N").unwrap().put("key", "value").unwrap();
    let engine = store.engine();
    let writes = || {
        write(&engine.context, &engine.state, &engine.log, &engine.housekeeping);
        disk.read_file("/store/INDEX").is_ok()
    };
    assert!(!writes(), "a segment can still grow");
    store.end_segment();
    assert!(writes());
    disk.remove_file("/store/INDEX").unwrap();
    engine.log.manifest.set_index_file(false);
    engine.log.stop(&Error::Closed);
    assert!(!writes(), "a failure has stopped the log");
}
