use super::scan::{Scanner, Sorter};
use super::*;
use crate::storage::MemStorage;
use crate::{ErrorKind, Maintenance, PutOptions, ReadMode, Store};

#[test]
fn a_record_whose_end_is_missing_is_damaged_however_it_is_read() {
    let disk = MemStorage::new();
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .read_mode(ReadMode::Pread)
        .storage(Arc::new(disk.clone()))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    namespace.put("key", [7; 10_000]).unwrap();
    store.end_segment();
    assert_eq!(namespace.get("key").unwrap().unwrap().len(), 10_000);
    // Cut in the value, and in the header.
    for length in [5_000, 70] {
        disk.truncate("/store/0000000000000001.segment", length).unwrap();
        assert_eq!(namespace.get("key").unwrap_err().kind(), ErrorKind::Corruption);
    }
}

#[test]
fn a_value_is_shown_as_text_with_what_was_put_beside_it() {
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .storage(Arc::new(MemStorage::new()))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    let options = PutOptions::new().metadata("of\n").expires_at_ms(4_000_000_000_000);
    let sequence = namespace.put_with("key", b"v\xff", options).unwrap();
    let shown = format!("{:?}", namespace.get("key").unwrap().unwrap());
    let expected = format!(
        "Value {{ value: \"v\\\\xff\", metadata: Some(\"of\\\\n\"), expiry_ms: Some(4000000000000), sequence: {sequence} }}"
    );
    assert_eq!(shown, expected);
}

/// Keys are compared by what follows the common prefix of their namespace's keys.
#[test]
fn the_records_of_a_segment_are_sorted_by_namespace_and_key_whatever_their_order() {
    let orders = [
        ["x", "ab0", "aa1", "aa2"],
        ["ab0", "x", "aa2", "aa1"],
        ["aa1", "ab0", "x", "aa1"],
        ["aa1", "x", "ab0", "aa1"],
    ];
    for order in orders {
        let store = Store::options()
            .maintenance(Maintenance::Manual)
            .storage(Arc::new(MemStorage::new()))
            .open("/store")
            .unwrap();
        let [m, n] = ["M", "N"].map(|name| store.namespace(name).unwrap());
        for key in order {
            let namespace = if key == "x" { &m } else { &n };
            namespace.put(key, "1").unwrap();
        }
        let [segment] = &store.engine().state.segments.all()[..] else {
            panic!()
        };
        let (mut scratch, mut sorter) = (Vec::new(), Sorter::default());
        let bytes = segment.all_bytes(&mut scratch).unwrap();
        let mut scanner = Scanner::new(bytes, segment.header);
        let mut newest = std::collections::BTreeMap::new();
        while let Ok(found) = scanner.next() {
            newest.insert((found.record.header.namespace, found.record.key()), found.offset);
            sorter.push(bytes, &found);
        }
        let sorted: Vec<_> = sorter.finish().0.iter().collect();
        assert_eq!(sorted, newest.into_values().collect::<Vec<_>>(), "{order:?}");
    }
}
