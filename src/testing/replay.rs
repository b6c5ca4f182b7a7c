//! Replays a target over its corpus and over past findings; see `fuzz/README.md`.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

/// Runs a target over its inputs, which a packaged crate does not contain.
pub fn replay(name: &str, target: fn(&[u8])) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    assert!(
        !fuzz.exists() || fuzz.join("corpus").join(name).is_dir(),
        "{name} has no corpus"
    );
    // Trivial inputs first, then the chosen ones.
    for length in 0..64 {
        target(&vec![0; length]);
        target(&vec![0xff; length]);
    }
    for folder in ["corpus", "regressions"] {
        let Ok(entries) = std::fs::read_dir(fuzz.join(folder).join(name)) else {
            continue;
        };
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "fuzz/{folder}/{name} is empty");
        for path in paths {
            let bytes = std::fs::read(&path).unwrap();
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(&bytes))) {
                println!("rerun with: cargo +nightly fuzz run {name} {}", path.display());
                resume_unwind(panic);
            }
        }
    }
}
