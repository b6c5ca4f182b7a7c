use super::*;
use crate::index::order::OrderBuilder;
use crate::storage::MemStorage;
use crate::{Maintenance, Store};

/// The entries of these namespaces in an index file.
fn entries(namespaces: &[(u32, &str)]) -> Vec<u8> {
    let mut entries = Vec::new();
    for (number, name) in namespaces {
        let store = Store::options()
            .maintenance(Maintenance::Manual)
            .storage(Arc::new(MemStorage::new()))
            .open("/store")
            .unwrap();
        let state = &store.engine().state;
        let namespace = NamespaceState::new(*number, 1, name, OrderBuilder::default().finish());
        state.namespaces.insert(Arc::new(namespace));
        let mut section = Vec::new();
        state.write_namespaces(&mut section).unwrap();
        entries.extend_from_slice(section.strip_prefix(&1_u32.to_stored()).unwrap());
    }
    [&(namespaces.len() as u32).to_stored(), &entries[..]].concat()
}

/// A checksum tells rot, not what no store can have written.
#[test]
fn an_index_file_names_no_namespace_that_cannot_be() {
    let read = |namespaces: &[(u32, &str)]| {
        let namespaces = read_to_end(Fields(&entries(namespaces)), read_namespaces)?;
        let names = namespaces.iter().map(|namespace| namespace.name().to_string());
        Ok(names.collect::<Vec<_>>())
    };
    let longest = "n".repeat(NAME_LEN_MAX);
    let sound = [(1, "M"), (2, "N"), (3, &longest)];
    assert_eq!(read(&sound), Ok(vec!["M".to_owned(), "N".to_owned(), longest.clone()]));
    let too_long = "n".repeat(NAME_LEN_MAX + 1);
    let impossible: [&[(u32, &str)]; 5] = [
        &[(1, "M"), (SYSTEM_NAMESPACE, "N")],
        &[(1, "M"), (2, "")],
        &[(1, "M"), (2, &too_long)],
        &[(1, "M"), (1, "N")],
        &[(1, "M"), (2, "M")],
    ];
    for namespaces in impossible {
        assert_eq!(read(namespaces), Err(Damage::Field("namespace")));
    }
}

/// Of a version that did not count them, or of none.
#[test]
fn an_index_file_says_how_many_bytes_each_namespace_has() {
    let good = entries(&[(1, "M")]);
    // Behind the count, the number and the id.
    let flags = 4 + 4 + 16;
    assert_eq!(good[flags], HAS_LIVE_BYTES);
    for (bits, is_read) in [(2, true), (3, true), (0, false), (1, false), (6, false), (0xff, false)] {
        let mut changed = good.clone();
        changed[flags] = bits;
        let read = read_to_end(Fields(&changed), read_namespaces);
        assert_eq!(read.is_ok(), is_read, "{bits}");
    }
}
