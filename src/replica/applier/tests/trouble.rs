use std::io::ErrorKind;

use embercask::storage::{Fault, FaultKind, FaultStorage, Operation as Step};

use super::*;

/// What is wrong with the third entry of a log, when only that one is changed.
fn stopped_at_third(change: impl FnOnce(&mut Delivery)) -> ApplyError {
    let mut log = Log::new();
    log.operate([put("a", "1")]);
    let whole = log.deliveries.clone();
    log.operate([put("b", "1")]);
    change(&mut log.deliveries[3]);
    let mut node = Node::new();
    let progress = node.applier().apply(&log.deliveries);
    // What comes before is applied, and nothing else.
    assert_eq!(progress.applied.len(), 3);
    assert_eq!(node.applier().state().position, 3);
    assert_eq!(node.get("b"), None);
    let mut other = Node::new();
    other.apply(&whole);
    assert_eq!(node.applier().state(), other.applier().state());
    // The good copy is applied.
    let mut good = Log {
        deliveries: whole,
        stamp_ms: log.stamp_ms - 10,
        counter: log.counter - 1,
    };
    good.operate([put("b", "1")]);
    node.apply(&good.deliveries);
    assert!(node.get("b").is_some());
    progress.stopped.unwrap()
}

#[test]
fn an_entry_that_is_missing_damaged_or_foreign_stops_the_applier() {
    let gap = stopped_at_third(|delivery| delivery.position = 6);
    assert!(matches!(gap, ApplyError::Gap { expected: 4, found: 6 }));
    let damaged = stopped_at_third(|delivery| {
        let mut bytes = delivery.bytes.to_vec();
        bytes[70] ^= 1;
        delivery.bytes = bytes.into();
    });
    assert!(matches!(damaged, ApplyError::Malformed { position: 4, .. }));
    let foreign = stopped_at_third(|delivery| {
        let mut entry = Entry::decode(&delivery.bytes).unwrap();
        entry.header.cluster = 8;
        delivery.bytes = entry.encode().unwrap();
    });
    assert!(matches!(foreign, ApplyError::OtherCluster { found: 8, .. }));
    let newer = stopped_at_third(|delivery| {
        let mut bytes = delivery.bytes.to_vec();
        bytes[4] = 2;
        let end = bytes.len() - 4;
        let checksum = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&checksum.to_le_bytes());
        delivery.bytes = bytes.into();
    });
    assert!(newer.to_string().contains("newer embercask"));
}

#[test]
fn a_recreated_log_stops_the_applier() {
    let mut log = Log::new();
    log.operate([put("a", "1")]);
    let mut node = Node::new();
    node.apply(&log.deliveries);
    let before = *node.applier().state();
    let mut recreated = Log::new();
    recreated.operate([put("a", "2")]);
    recreated.operate([put("b", "2")]);
    let last = before.position as usize;
    let progress = node.applier().apply(&recreated.deliveries[last - 1..]);
    assert!(progress.applied.is_empty());
    let error = progress.stopped.unwrap();
    assert!(matches!(error, ApplyError::OtherLog { position } if position == before.position));
    // A damaged copy of the entry says nothing about the log.
    let mut damaged = log.deliveries[last - 1].clone();
    let mut bytes = damaged.bytes.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    damaged.bytes = bytes.into();
    let error = node.applier().apply(&[damaged]).stopped.unwrap();
    assert!(matches!(error, ApplyError::Malformed { .. }), "{error}");
    assert_eq!(*node.applier().state(), before);
    log.operate([put("b", "1")]);
    node.restart();
    node.apply(&log.deliveries);
    assert!(node.get("b").is_some());
}

#[test]
fn what_comes_before_an_entry_that_the_store_refuses_is_applied() {
    let mut log = Log::new();
    log.operate([put("a", "1")]);
    log.operate([put("b", &"too long for this store".repeat(10))]);
    let mut node = Node::new();
    drop(node.applier.take());
    let clock = LogClock::new();
    let limits = Limits {
        value_bytes_max: 100,
        ..Limits::ENGINE
    };
    let store = options(node.disk.clone(), clock.clone()).limits(limits);
    let store = store.open("/store").unwrap();
    node.applier = Some(Applier::open(store, clock, etag).unwrap());
    let before = log.deliveries.len() as u64 - 1;
    for applied in [before as usize, 0] {
        let progress = node.applier().apply(&log.deliveries);
        assert_eq!(progress.applied.len(), applied);
        assert!(
            matches!(progress.stopped, Some(ApplyError::Store(_))),
            "{:?}",
            progress.stopped
        );
        assert_eq!(node.applier().state().position, before);
        assert!(node.get("a").is_some());
    }
    node.restart();
    node.apply(&log.deliveries);
    assert!(node.get("b").is_some());
}

#[test]
fn a_store_that_is_full_stops_the_applier_and_lets_it_go_on() {
    let mut log = Log::new();
    log.operate([put("a", "1")]);
    let mut node = Node::new();
    let faults = FaultStorage::new(node.disk.clone());
    node.restart_on(Arc::new(faults.clone()));
    node.apply(&log.deliveries);
    log.operate([put("a", "2"), put_with("b", "1", Lifetime::Forever, if_absent())]);
    log.operate([put("c", "1")]);
    let before = *node.applier().state();
    faults.inject(
        Fault::new(FaultKind::Error(ErrorKind::StorageFull))
            .on(Step::Write)
            .repeated(),
    );
    for _ in 0..3 {
        let progress = node.applier().apply(&log.deliveries);
        assert!(progress.applied.is_empty());
        assert!(
            matches!(progress.stopped, Some(ApplyError::Store(_))),
            "{:?}",
            progress.stopped
        );
        assert_eq!(*node.applier().state(), before);
        assert_eq!(node.get("a"), Some(("1".to_owned(), None)));
    }
    faults.clear();
    let verdicts = node.apply(&log.deliveries);
    assert_eq!(verdicts, [Verdict::Done(vec![DONE; 2]), Verdict::Done(vec![DONE])]);
    let mut other = Node::new();
    other.apply(&log.deliveries);
    assert_eq!(node.applier().state(), other.applier().state());
}

#[test]
fn a_store_that_is_no_replica_is_refused() {
    let disk = Arc::new(MemStorage::new());
    let clock = LogClock::new();
    let store = open(disk, clock.clone());
    let error = Applier::open(store, clock, etag).unwrap_err();
    assert!(matches!(error, ApplyError::State(StateError::NotAReplica)));
}

#[test]
fn entries_without_conditions_share_a_batch() {
    let mut log = Log::new();
    let mut node = Node::new();
    node.apply(&log.deliveries);
    for _ in 0..500 {
        log.operate([put("a", "1")]);
    }
    let faults = FaultStorage::new(node.disk.clone());
    node.restart_on(Arc::new(faults.clone()));
    let before = faults.mutating_steps();
    node.apply(&log.deliveries);
    let steps = faults.mutating_steps() - before;
    assert!(steps < 20, "{steps} steps");
}

#[test]
fn the_reserved_namespace_takes_no_operations() {
    let mut log = Log::new();
    let name = || state::RESERVED_NAME.to_owned();
    let delete = Operation::Delete {
        namespace: RESERVED_ID,
        key: "state".into(),
        conditions: Conditions::default(),
    };
    log.operate([delete]);
    log.operate([Operation::DropNamespace { id: RESERVED_ID }]);
    log.operate([Operation::RenameNamespace {
        id: RESERVED_ID,
        name: "MINE".to_owned(),
    }]);
    log.operate([Operation::CreateNamespace {
        id: RESERVED_ID,
        name: "MINE".to_owned(),
    }]);
    log.operate([Operation::CreateNamespace { id: 12, name: name() }]);
    log.operate([Operation::RenameNamespace {
        id: NAMESPACE,
        name: name(),
    }]);
    let mut node = Node::new();
    let verdicts = node.apply(&log.deliveries).split_off(2);
    let [none, taken] = [Outcome::NoNamespace, Outcome::NameTaken].map(|outcome| Verdict::Done(vec![outcome]));
    assert_eq!(
        verdicts,
        [&none, &none, &none, &taken, &taken, &taken].map(Clone::clone)
    );
    node.restart();
}

#[test]
fn a_repeat_or_a_late_entry_does_nothing() {
    let mut log = Log::new();
    log.operate([put("a", "1")]);
    let repeat = log.deliveries[2].bytes.clone();
    log.operate([put("a", "2")]);
    let late = Entry {
        header: Header {
            cluster: CLUSTER,
            writer: 2,
            counter: 1,
            sent_ms: log.stamp_ms,
        },
        body: Body::Operations(vec![put("a", "late")]),
    };
    log.push_entry(&Entry::decode(&repeat).unwrap());
    log.stamp_ms += crate::writers::LATE_MS;
    log.push_entry(&late);
    let mut node = Node::new();
    let verdicts = node.apply(&log.deliveries).split_off(4);
    assert_eq!(verdicts, [Verdict::Repeated, Verdict::Late]);
    assert_eq!(node.get("a"), Some(("2".to_owned(), None)));
}
