//! The model test: whatever is done to a store, and however it ends, it shows the same as a plain
//! ordered map.
//!
//! Random sequences of operations run against a store on a simulated disk and against a model
//! ([`model`]), and everything visible is compared after each operation ([`driver`]). Crashes
//! happen between operations, within them at any storage call, and within the recovery that
//! follows; the store must then show exactly one of the states allowed by the acknowledgements so
//! far.
//!
//! `EMBERCASK_MODEL_CASES` sets the number of sequences per test. A failing one is shrunk, printed
//! and kept in `proptest-regressions/`, from where it is replayed before any new one.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{FailurePersistence, FileFailurePersistence, TestRunner};
use test_support::driver::{Driver, Visited};
use test_support::ops;

fn cases() -> u32 {
    std::env::var("EMBERCASK_MODEL_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(600)
}

fn config(cases: u32, regressions: &'static str) -> ProptestConfig {
    // Failures planted on purpose (`.ci/planted`) are neither shrunk nor kept.
    let is_planted = std::env::var_os("EMBERCASK_PLANTED").is_some();
    let kept: Box<dyn FailurePersistence> = Box::new(FileFailurePersistence::Direct(regressions));
    ProptestConfig {
        cases,
        max_shrink_iters: if is_planted { 0 } else { 3000 },
        max_shrink_time: 60_000,
        failure_persistence: (!is_planted).then_some(kept),
        ..ProptestConfig::default()
    }
}

/// Runs this many lives and demands that they have done everything.
fn lives(cases: u32, regressions: &'static str, ops: BoxedStrategy<Vec<ops::Op>>) {
    let done = RefCell::new((Visited::default(), 0));
    let mut runner = TestRunner::new(config(cases, regressions));
    let result = runner.run(&(ops::settings(), ops), |(settings, ops)| {
        let mut driver = Driver::new(&settings);
        ops.iter().for_each(|op| driver.run(op));
        let (visited, operations) = &mut *done.borrow_mut();
        visited.add(driver.visited());
        *operations += ops.len() as u64;
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}\n{runner}"));
    let (visited, operations) = done.into_inner();
    println!("{operations} operations: {visited:#?}");
    visited.assert_floors(operations);
}

/// Short runs: many stores, each soon at its first crash.
#[test]
fn a_store_shows_what_an_ordered_map_would_in_short_lives() {
    let ops = prop::collection::vec(ops::op(), 1..40).boxed();
    lives(cases(), "proptest-regressions/model-short.txt", ops);
}

/// Long runs: segments pile up, and compaction works on its own outputs. In half of them the store
/// is seldom opened again, so that snapshots and watchers are held for long.
#[test]
fn a_store_shows_what_an_ordered_map_would_in_long_lives() {
    let ops = |op| prop::collection::vec(op, 100..260);
    let ops = prop_oneof![ops(ops::op()), ops(ops::steady_op())].boxed();
    lives(cases() / 6, "proptest-regressions/model-long.txt", ops);
}
