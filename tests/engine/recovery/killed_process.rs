//! A process that is killed while writing, with a real file system.

use std::path::Path;

use embercask::{Durability, Store};

use test_support::process::{Child, report, role};
use test_support::{rng, text};

/// The name of the test below, which a child process runs too.
const WRITING: &str = concat!(
    module_path!(),
    "::a_process_that_is_killed_again_and_again_loses_nothing_acknowledged"
);

/// The child process: writes until it is killed, reporting each acknowledgement at once.
fn write_until_killed(directory: &Path) {
    let store = Store::options().segment_bytes(16 << 10).open(directory).unwrap();
    let namespace = store.namespace("N").unwrap();
    let first = text(&namespace, "newest").map_or(0, |newest| newest.parse::<u64>().unwrap() + 1);
    for n in first..first + 1_000_000 {
        let durability = if n % 8 == 0 { Durability::Sync } else { Durability::Os };
        let mut batch = store.batch();
        batch.put(&namespace, "newest", n.to_string());
        batch.put(&namespace, format!("{:02}", n % 50), n.to_string().repeat(60));
        batch.durability(durability).commit().unwrap();
        report(format_args!("{n}"));
    }
}

/// B26, and promise 3 with real files: ten rounds, each killed after a different number of writes.
#[test]
fn a_process_that_is_killed_again_and_again_loses_nothing_acknowledged() {
    if let Some(role) = role() {
        write_until_killed(&role.directory);
        return;
    }
    let mut rng = rng();
    let directory = tempfile::tempdir().unwrap();
    let number = |report: String| report.parse::<u64>().unwrap();
    let mut acknowledged = 0;
    for round in 0..10 {
        let mut child = Child::spawn(WRITING, "writer", directory.path(), &[]);
        for _ in 0..1 + rng.below(150) {
            acknowledged = number(child.next_report().expect("the child ended by itself"));
        }
        child.kill();
        while let Some(newest) = child.next_report() {
            acknowledged = number(newest);
        }
        child.wait();
        let store = Store::options().open(directory.path()).unwrap();
        let namespace = store.open_namespace("N").unwrap();
        let newest: u64 = text(&namespace, "newest").unwrap().parse().unwrap();
        // One more write may have been applied without being reported.
        assert!(
            (acknowledged..=acknowledged + 1).contains(&newest),
            "round {round}: {newest}, {acknowledged} acknowledged"
        );
        for n in newest.saturating_sub(49)..=newest {
            assert_eq!(
                text(&namespace, &format!("{:02}", n % 50)),
                Some(n.to_string().repeat(60)),
                "round {round}: {n}"
            );
        }
        // Killed while open, or closed: the next process must cope with either.
        if round % 2 == 0 {
            store.close().unwrap();
        }
    }
}
