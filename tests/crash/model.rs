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

use proptest::prelude::*;
use proptest::test_runner::{FailurePersistence, FileFailurePersistence};
use test_support::{driver, ops};

fn cases() -> u32 {
    std::env::var("EMBERCASK_MODEL_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(600)
}

fn config(regressions: &'static str) -> ProptestConfig {
    // Failures planted on purpose (`.ci/planted`) are neither shrunk nor kept.
    let is_planted = std::env::var_os("EMBERCASK_PLANTED").is_some();
    let kept: Box<dyn FailurePersistence> = Box::new(FileFailurePersistence::Direct(regressions));
    ProptestConfig {
        cases: cases(),
        max_shrink_iters: if is_planted { 0 } else { 3000 },
        max_shrink_time: 60_000,
        failure_persistence: (!is_planted).then_some(kept),
        ..ProptestConfig::default()
    }
}

fn run(settings: &ops::Settings, ops: &[ops::Op]) {
    let mut driver = driver::Driver::new(settings);
    for op in ops {
        driver.run(op);
    }
}

proptest! {
    #![proptest_config(config("proptest-regressions/model-short.txt"))]

    /// Short runs: many stores, each soon at its first crash.
    #[test]
    fn a_store_shows_what_an_ordered_map_would_in_short_lives(
        settings in ops::settings(),
        ops in prop::collection::vec(ops::op(), 1..40),
    ) {
        run(&settings, &ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases() / 6, ..config("proptest-regressions/model-long.txt") })]

    /// Long runs: segments pile up, and compaction works on its own outputs.
    #[test]
    fn a_store_shows_what_an_ordered_map_would_in_long_lives(
        settings in ops::settings(),
        ops in prop::collection::vec(ops::op(), 100..260),
    ) {
        run(&settings, &ops);
    }
}
