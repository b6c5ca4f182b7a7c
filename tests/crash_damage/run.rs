//! Judging many damaged stores on all cores, and saying of a failure how to see it again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::allocations;
use crate::damages::Damage;

/// No request for memory may be larger. The stores take 150 KB at most, and the largest request for a sound one is the 1 MiB that outputs are
/// collected in; what a flipped bit of a length makes
/// of them, if it is believed, mostly more than this.
const ALLOCATION_MAX: usize = 5 << 18;
/// Failures that are shown before the rest is left out.
const FAILURES_MAX: usize = 5;

/// How many damaged stores each test judges where it takes a sample: `EMBERCASK_DAMAGE_STATES`.
pub(crate) fn samples(default: usize) -> usize {
    match std::env::var("EMBERCASK_DAMAGE_STATES") {
        Ok(count) => count.parse().expect("EMBERCASK_DAMAGE_STATES is a number"),
        Err(_) => default,
    }
}

/// Judges every one of these damages. `EMBERCASK_DAMAGE` picks one of them by its text.
pub(crate) fn run(what: &str, damages: impl Iterator<Item = Damage> + Send, judge: impl Fn(&Damage) -> u64 + Sync) {
    let wanted = std::env::var("EMBERCASK_DAMAGE").ok();
    let damages = damages.filter(|damage| wanted.as_ref().is_none_or(|wanted| *wanted == damage.to_string()));
    let (queue, failures) = (Mutex::new(damages), Mutex::new(Vec::new()));
    let (judged, opened) = (AtomicU64::new(0), AtomicU64::new(0));
    let next = || queue.lock().unwrap().next();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(damage) = next() {
                    judged.fetch_add(1, Ordering::Relaxed);
                    match catch_unwind(AssertUnwindSafe(|| judge(&damage))) {
                        Ok(opens) => drop(opened.fetch_add(opens, Ordering::Relaxed)),
                        Err(_) => failures.lock().unwrap().push(damage.to_string()),
                    }
                    if failures.lock().unwrap().len() >= FAILURES_MAX {
                        return;
                    }
                }
            });
        }
    });
    println!("{what}: {judged:?} damaged stores, opened {opened:?} times");
    let failures = failures.into_inner().unwrap();
    // Showing a panic takes memory of its own.
    static FAILED: AtomicBool = AtomicBool::new(false);
    FAILED.fetch_or(!failures.is_empty(), Ordering::Relaxed);
    assert!(
        failures.is_empty(),
        "{what}: see the panics above; judge one alone with EMBERCASK_DAMAGE set to one of {failures:#?}"
    );
    let largest = allocations::largest();
    assert!(
        largest <= ALLOCATION_MAX,
        "{what}: {largest} bytes were asked for at once"
    );
    assert!(
        wanted.is_some() || judged.into_inner() > 0,
        "{what}: nothing was damaged"
    );
}
