use super::*;
use crate::storage::MemStorage;
use crate::testing::{Task, until};
use crate::{ErrorKind, Maintenance, ReadMode, Store};

#[test]
fn a_damaged_segment_gets_no_hint_of_what_lies_before_the_damage() {
    let disk = MemStorage::new();
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .read_mode(ReadMode::Pread)
        .storage(Arc::new(disk.clone()))
        .open("/store")
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    for key in ["a", "b", "c"] {
        namespace.put(key, "value").unwrap();
    }
    let engine = store.engine();
    store.end_segment();
    let segment = engine.state.segments.all().remove(0);
    write_hint(&engine.context, &segment).unwrap();
    let data_end = segment.summary.unwrap().data_end;
    disk.flip_bit("/store/0000000000000001.segment", (data_end - 16) * 8)
        .unwrap();
    let error = write_hint(&engine.context, &segment).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
}

/// C14: later writes could hit files that another process is reading by then.
#[test]
fn closing_waits_for_who_is_at_a_hint_before_it_lets_the_next_one_in() {
    let disk = MemStorage::new();
    let open = || {
        let options = Store::options().maintenance(Maintenance::Manual);
        options.storage(Arc::new(disk.clone())).open("/store")
    };
    let store = open().unwrap();
    store.namespace("N").unwrap().put("key", "value").unwrap();
    let closing = store.clone();
    let at_a_hint = lock(&store.engine().log.doubtful_hints.renewing);
    let (tell, told) = std::sync::mpsc::channel();
    let close = std::thread::spawn(move || {
        tell.send(Task::current()).unwrap();
        closing.close()
    });
    let task = told.recv().unwrap();
    until("the index file is written", || disk.exists("/store/INDEX").unwrap());
    // Nothing else is left to do.
    until("closing waits, or is done", || task.waits() || close.is_finished());
    assert_eq!(open().unwrap_err().kind(), ErrorKind::InUse);
    drop(at_a_hint);
    close.join().unwrap().unwrap();
    open().unwrap();
}

#[test]
fn a_hint_is_used_only_for_the_segment_that_it_was_written_for() {
    let disk = MemStorage::new();
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .storage(Arc::new(disk.clone()))
        .open("/store")
        .unwrap();
    store.namespace("N").unwrap().put("key", "value").unwrap();
    let engine = store.engine();
    store.end_segment();
    let segment = engine.state.segments.all().remove(0);
    let own = read_hint(&engine.context, &segment).unwrap().unwrap();
    let changes: [fn(&mut Hint); 4] = [
        |hint| hint.store_id[0] ^= 1,
        |hint| hint.segment_id += 1,
        |hint| hint.data_end += 8,
        |hint| hint.records_crc ^= 1,
    ];
    for change in changes {
        let mut other = own.clone();
        change(&mut other);
        disk.write_file("/store/0000000000000001.hint", &other.encode())
            .unwrap();
        assert_eq!(read_hint(&engine.context, &segment).unwrap(), None, "{other:?}");
    }
    disk.write_file("/store/0000000000000001.hint", &own.encode()).unwrap();
    assert_eq!(read_hint(&engine.context, &segment).unwrap(), Some(own));
}
