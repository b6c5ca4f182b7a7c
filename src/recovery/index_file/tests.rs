use super::*;
use crate::storage::MemStorage;
use crate::{Maintenance, Store};

fn open(disk: &MemStorage) -> Store {
    Store::options()
        .maintenance(Maintenance::Manual)
        .storage(Arc::new(disk.clone()))
        .open("/store")
        .unwrap()
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
