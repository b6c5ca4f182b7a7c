use std::sync::Arc;

use super::*;
use crate::index::order::KeyOrder;
use crate::storage::MemStorage;
use crate::{PutOptions, Store};

fn put_of(namespace: &NamespaceState, value_len: u64) -> NewRecord<'_> {
    NewRecord {
        namespace,
        hash: 0,
        header: Header {
            kind: Kind::Put,
            namespace: namespace.number,
            sequence: 0,
            expiry: None,
            key_len: 1,
            metadata_len: None,
            value_len: value_len as u32,
            body_crc: 0,
        },
        parts: [b"k", b"", b""],
    }
}

#[test]
fn a_batch_gets_room_for_its_records_its_frame_and_two_marks() {
    let namespace = NamespaceState::new(1, 1, "N", KeyOrder::new());
    let room = |value_lens: &[u64]| {
        let records = value_lens.iter().map(|value_len| put_of(&namespace, *value_len));
        Room::of_batch(&records.collect::<Vec<_>>())
    };
    let (of_one, of_five) = (room(&[7]).unwrap(), room(&[7; 5]).unwrap());
    assert_eq!((of_one.bytes, of_one.sequences), (32 + 40 + 2 * MARK_LEN, 1 + 1 + 2));
    assert_eq!(
        (of_five.bytes, of_five.sequences),
        (5 * 32 + 40 + 2 * MARK_LEN, 5 + 1 + 2)
    );
    // The largest batch, and one of eight bytes more.
    let half = BATCH_BYTES_MAX / 2 - FIXED_HEADER_LEN as u64 - 1;
    assert!(room(&[half, half]).is_ok());
    assert!(room(&[half, half + 1]).is_err());
}

#[test]
fn a_mark_precedes_the_first_record_after_more_of_the_log_has_become_durable() {
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .storage(Arc::new(MemStorage::new()))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    let put = |durability| {
        let options = PutOptions::new().durability(durability);
        namespace.put_with("key", "value", options).unwrap()
    };
    let durable = put(Durability::Sync);
    assert_eq!(put(Durability::Os), durable + 2);
    assert_eq!(put(Durability::Os), durable + 3);
    assert_eq!(put(Durability::Buffered), durable + 4);
    store.sync().unwrap();
    assert_eq!(put(Durability::Buffered), durable + 6);
    assert_eq!(put(Durability::Buffered), durable + 7);
}
