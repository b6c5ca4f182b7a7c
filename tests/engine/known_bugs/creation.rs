//! A new store and the names of its files are durable, or the creation can be repeated.

use std::sync::Arc;

use embercask::storage::{CutPolicy, MemStorage};

use crate::known_bugs::{after_crashes, stepped};
use test_support::manual;

/// Its parent has to be created too.
const DEEP: &str = "/data/store";

/// B37
#[test]
fn a_creation_cut_off_at_any_step_is_begun_again() {
    let disk = MemStorage::new();
    disk.write_file("/somebody-elses", b"file").unwrap();
    let mut last = 0;
    for step in 0.. {
        let disk = disk.crash_process();
        let faults = stepped(&disk);
        faults.stop_at(step);
        let created = manual(Arc::new(faults.clone())).open(DEEP);
        for (crash, disk) in after_crashes(&disk, 20) {
            for round in 0..2 {
                let store = manual(Arc::new(disk.clone()))
                    .open(DEEP)
                    .unwrap_or_else(|error| panic!("step {step}, {crash}, round {round}: {error}"));
                let namespace = store.namespace("N").unwrap();
                assert_eq!(namespace.contains("k").unwrap(), round == 1);
                namespace.put("k", "v").unwrap();
                store.close().unwrap();
            }
            let cut = disk.power_cut(&CutPolicy::LoseUnsynced);
            let store = manual(Arc::new(cut)).open(DEEP).unwrap();
            assert!(
                store.open_namespace("N").unwrap().contains("k").unwrap(),
                "step {step}, {crash}"
            );
            assert_eq!(disk.read_file("/somebody-elses").unwrap(), b"file");
        }
        last = step;
        if !faults.is_stopped() {
            created.unwrap();
            break;
        }
    }
    assert!(last >= 6, "only {last} steps");
}

/// B22: from the first write on, the name of each file is as durable as its content.
#[test]
fn names_of_files_are_durable_when_what_is_in_them_is() {
    let disk = MemStorage::new();
    let store = manual(Arc::new(disk.clone())).open("/new/deep/store").unwrap();
    let check = |written: usize| {
        let cut = disk.power_cut(&CutPolicy::LoseUnsynced);
        let store = manual(Arc::new(cut)).open("/new/deep/store").unwrap();
        assert!(!store.recovery_report().created);
        assert_eq!(store.open_namespace("N").unwrap().count().unwrap(), written as u64);
    };
    let namespace = store.namespace("N").unwrap();
    check(0);
    for n in 0..40 {
        namespace.put(format!("{n}"), [7; 500]).unwrap();
        check(n + 1);
        if n % 10 == 9 {
            namespace.put(format!("{n}"), [8; 500]).unwrap();
            store.compact().unwrap();
            check(n + 1);
        }
    }
}
