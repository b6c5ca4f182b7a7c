use super::*;
use crate::format::segment::SEAL_LEN;
use crate::storage::MemStorage;
use crate::{ErrorKind, Store};

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
