//! A killed store is opened, and then the power fails before anything is written to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use embercask::storage::{CutPolicy, Fault, FaultKind, FaultStorage, MemStorage, Storage};
use embercask::{Durability, ErrorKind, Maintenance, Result, Store};
use test_support::at_least;

fn open(storage: Arc<dyn Storage>) -> Result<Store> {
    Store::options()
        .segment_bytes(4096)
        .maintenance(Maintenance::Manual)
        .storage(storage)
        .open("/store")
}

/// Writes until the storage stops, and adds each acknowledged write to `acknowledged`.
fn write_until_stopped(storage: Arc<dyn Storage>, acknowledged: &mut BTreeMap<String, String>) -> Result<()> {
    let store = open(storage)?;
    let namespace = store.namespace("N")?;
    for n in 0..60 {
        let (key, value) = (format!("key {}", n % 17), format!("{n:0200}"));
        // The last write may have been applied or not; the next one of the same key comes much
        // later.
        namespace.put(&key, &value)?;
        acknowledged.insert(key, value);
    }
    store.close()
}

fn check(store: &Store, acknowledged: &BTreeMap<String, String>, step: u64) {
    for (key, value) in acknowledged {
        let namespace = store.open_namespace("N").unwrap();
        let found = namespace
            .get(key)
            .unwrap_or_else(|error| panic!("step {step}: {error}"));
        let found = found.unwrap_or_else(|| panic!("step {step}: {key} is missing"));
        let found: u64 = found.as_str().unwrap().parse().unwrap();
        assert!(
            found >= value.parse().unwrap(),
            "step {step}: {key} is {found}, {value} was acknowledged"
        );
    }
}

#[test]
fn a_power_cut_after_a_killed_store_was_opened_loses_nothing_acknowledged() {
    let (mut steps, mut rewritten) = (0, 0);
    for step in 0.. {
        let disk = MemStorage::new();
        let faults = FaultStorage::new(Arc::new(disk.clone()));
        faults.inject(Fault::new(FaultKind::Stop).at(step));
        let mut acknowledged = BTreeMap::new();
        let finished = write_until_stopped(Arc::new(faults), &mut acknowledged).is_ok();
        let killed = disk.crash_process();
        let store = open(Arc::new(killed.clone())).unwrap_or_else(|error| panic!("step {step}, killed: {error}"));
        check(&store, &acknowledged, step);
        steps += u64::from(!acknowledged.is_empty());
        rewritten += u64::from(store.recovery_report().rewritten_bytes > 0);
        for policy in [CutPolicy::LoseUnsynced, CutPolicy::Random { seed: step, grain: 512 }] {
            let cut = killed.power_cut(&policy);
            let again =
                open(Arc::new(cut)).unwrap_or_else(|error| panic!("step {step}, killed, then {policy:?}: {error}"));
            check(&again, &acknowledged, step);
        }
        if finished {
            assert_eq!(acknowledged.len(), 17);
            break;
        }
    }
    at_least(200, steps, "kills after something was acknowledged");
    at_least(50, rewritten, "recoveries that rewrote something");
}

#[test]
fn a_sync_on_a_full_disk_does_not_promise_what_recovery_could_not_write_anew() {
    let disk = MemStorage::new();
    let options = || {
        Store::options()
            .segment_bytes(65_536)
            .maintenance(Maintenance::Manual)
            .durability(Durability::Os)
    };
    let store = options().storage(Arc::new(disk.clone())).open("/store").unwrap();
    let namespace = store.namespace("N").unwrap();
    for n in 0..40 {
        namespace.put(format!("key {n}"), [n; 1000]).unwrap();
    }
    let killed = disk.crash_process();
    killed.remove_file("/store/RESERVE").unwrap();
    killed.set_capacity(Some(killed.used()));
    let store = options().storage(Arc::new(killed.clone())).open("/store").unwrap();
    let namespace = store.open_namespace("N").unwrap();
    assert!(namespace.get("key 39").unwrap().is_some());
    assert_eq!(store.sync().unwrap_err().kind(), ErrorKind::NoSpace);
    killed.set_capacity(None);
    store.sync().unwrap();
    let cut = killed.power_cut(&CutPolicy::LoseUnsynced);
    let store = options().storage(Arc::new(cut)).open("/store").unwrap();
    assert_eq!(store.open_namespace("N").unwrap().count().unwrap(), 40);
}
