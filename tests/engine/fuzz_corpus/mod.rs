//! Runs the fuzz targets that use only the public interface over their corpora and past findings.
//!
//! Their bodies are in `tests/support/src/fuzz`, shared with `fuzz/fuzz_targets`; those of targets
//! that need internals are in `src/fuzzing`. A packaged crate has no corpus. `EMBERCASK_FUZZ_INPUT`
//! names one more file for both targets, to see a fuzzer's finding on a stable compiler, along with
//! the operations or files it encodes.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use test_support::driver::Visited;
use test_support::fuzz::{store_model, store_open};

fn replay(name: &str, mut target: impl FnMut(&[u8])) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut paths = Vec::new();
    for folder in ["corpus", "regressions"] {
        let Ok(entries) = std::fs::read_dir(fuzz.join(folder).join(name)) else {
            continue;
        };
        let before = paths.len();
        paths.extend(entries.map(|entry| entry.unwrap().path()));
        assert!(paths.len() > before, "fuzz/{folder}/{name} is empty");
    }
    paths.sort();
    paths.extend(std::env::var_os("EMBERCASK_FUZZ_INPUT").map(PathBuf::from));
    target(&[]);
    for path in paths {
        let bytes = std::fs::read(&path).unwrap();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(&bytes))) {
            println!("rerun with: cargo +nightly fuzz run {name} {}", path.display());
            resume_unwind(panic);
        }
    }
}

#[test]
fn stores_of_any_files_open_or_tell_what_is_wrong() {
    replay("store_open", store_open::store_open);
}

#[test]
fn stores_show_what_an_ordered_map_would_whatever_a_fuzzer_does_to_them() {
    let mut visited = Visited::default();
    replay("store_model", |bytes| visited.add(&store_model::visit(bytes)));
    println!("{visited:#?}");
    visited.assert_each();
}
