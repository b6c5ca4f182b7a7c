//! Processes killed while creating a store, and while holding one open.

use std::path::Path;
use std::sync::Arc;

use embercask::{ErrorKind, Maintenance, Store};

use crate::processes::deadly::{Deadly, Fuse, Moment};
use test_support::process::{
    Child, Role, copy_directory, open_in, remove_directory, report, role, wait_for_the_kill, was_killed,
};
use test_support::{class, rng, text};

const CREATE: &str = concat!(
    module_path!(),
    "::a_store_whose_creation_is_killed_at_any_call_can_be_created_by_the_next"
);
const HOLD: &str = concat!(module_path!(), "::the_lock_of_a_killed_process_keeps_nobody_out");
const MOMENTS: [Moment; 3] = [Moment::Before, Moment::Within, Moment::After];

/// Creates a store and writes one key, unless killed first. Numbers: calls, and the moment.
fn create(role: &Role) {
    let fuse = Arc::new(Fuse::new(MOMENTS[role.numbers[1] as usize]));
    fuse.light(role.numbers[0]);
    let store = Store::options()
        .segment_bytes(4096)
        .maintenance(Maintenance::Manual)
        .storage(Arc::new(Deadly::over_the_disk(fuse, None, &role.directory)))
        .open(&role.directory)
        .expect("open");
    report(format_args!("opened"));
    let namespace = store.namespace("N").expect("a namespace");
    report(format_args!("named"));
    namespace.put("key", "value").expect("a put");
    report(format_args!("put"));
}

/// Runs such a child. Returns its reports and whether it ran to the end.
fn created(directory: &Path, calls: u64, moment: usize) -> (Vec<String>, bool) {
    let mut child = Child::spawn(CREATE, "create", directory, &[calls, moment as u64]);
    let reports = std::iter::from_fn(|| child.next_report()).collect();
    let status = child.wait();
    assert!(was_killed(status) || status.success(), "the child failed: {status}");
    (reports, status.success())
}

/// The store opens, holds what was reported, and is usable.
fn check(directory: &Path, reports: &[String], context: &str) {
    let told = |report: &str| reports.iter().any(|told| told == report);
    let store = Store::options()
        .segment_bytes(4096)
        .open(directory)
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    let names: Vec<_> = store.namespaces().unwrap().into_iter().map(|info| info.name).collect();
    assert!(names.is_empty() || names == ["N"], "{context}: {names:?}");
    assert!(!told("named") || names == ["N"], "{context}: the namespace is missing");
    let namespace = store.namespace("N").unwrap();
    let found = text(&namespace, "key");
    assert!(
        found.as_deref().is_none_or(|found| found == "value"),
        "{context}: {found:?}"
    );
    assert!(!told("put") || found.is_some(), "{context}: the key is missing");
    assert_eq!(
        namespace.count().unwrap(),
        u64::from(found.is_some()),
        "{context}: count"
    );
    namespace.put("later", "1").unwrap();
    assert!(store.verify().unwrap().is_sound(), "{context}: verify");
    store.close().unwrap();
    let store = Store::open(directory).unwrap_or_else(|error| panic!("{context}, opened again: {error}"));
    let namespace = store.open_namespace("N").unwrap();
    assert_eq!(text(&namespace, "later").as_deref(), Some("1"), "{context}");
    assert_eq!(text(&namespace, "key"), found, "{context}");
}

/// B37. Kills the creation at every storage call, before, within and after it, in a directory that
/// is missing along with its parents and in an empty one. What the kill leaves is opened by this
/// process and, in its original form, by other children that are killed in turn.
#[test]
fn a_store_whose_creation_is_killed_at_any_call_can_be_created_by_the_next() {
    if let Some(role) = role() {
        return create(&role);
    }
    let mut rng = rng();
    let root = tempfile::tempdir().unwrap();
    let (nested, again) = (root.path().join("a/b/store"), root.path().join("again"));
    for (moment, name) in MOMENTS.iter().enumerate() {
        let mut calls = 0;
        loop {
            remove_directory(&root.path().join("a"));
            if calls % 2 == 1 {
                std::fs::create_dir_all(&nested).unwrap();
            }
            let context = format!("killed {name:?} call {calls}");
            let (reports, finished) = created(&nested, calls, moment);
            copy_directory(&nested, &again);
            std::fs::create_dir_all(&nested).unwrap();
            check(&nested, &reports, &context);
            // Children that open what it left are killed as well.
            let mut reports = reports;
            for _ in 0..3 {
                reports.extend(created(&again, rng.below(calls + 2), rng.below(3) as usize).0);
            }
            check(&again, &reports, &format!("{context}, and three more times"));
            if finished {
                break;
            }
            calls += 1;
        }
        assert!(calls > 10, "creating a store took only {calls} calls");
    }
    assert_eq!(open_in(root.path()), [""; 0]);
}

/// B26.
#[test]
fn the_lock_of_a_killed_process_keeps_nobody_out() {
    if let Some(role) = role() {
        let store = Store::open(&role.directory).expect("open");
        let namespace = store.namespace("N").expect("a namespace");
        let options = class(embercask::Durability::Os);
        namespace
            .put_with(format!("{}", role.numbers[0]), "1", options)
            .expect("a put");
        report(format_args!("holding"));
        return wait_for_the_kill();
    }
    let directory = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let mut child = Child::spawn(HOLD, "hold", directory.path(), &[round]);
        assert_eq!(child.next_report().as_deref(), Some("holding"));
        let refused = Store::open(directory.path()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InUse, "{refused}");
        let holder = format!("process {}", child.id());
        assert!(refused.to_string().contains(&holder), "{refused}");
        child.kill();
        assert!(was_killed(child.wait()), "round {round}");
        let store = Store::open(directory.path()).unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(store.namespace("N").unwrap().count().unwrap(), round + 1);
        // The next child opens after a close or, if this child is the last holder the store knows
        // of, after a kill.
        if round % 2 == 0 {
            store.close().unwrap();
        }
    }
    assert_eq!(open_in(directory.path()), [""; 0]);
}
