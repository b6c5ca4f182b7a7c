//! Judges many damaged stores on all cores, and reports how to reproduce a failure.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::allocations;
use crate::damages::Damage;
use crate::judge::Verdict;
use test_support::{Sample, at_least};

/// Maximum size of a memory request. The stores take 150 KB at most, and the largest request for a
/// sound one is the 1 MiB buffer that collects outputs; a trusted length with a flipped bit is
/// mostly larger.
const ALLOCATION_MAX: usize = 5 << 18;
/// Failures shown; the rest is left out.
const FAILURES_MAX: usize = 5;

/// Number of damaged stores that sampling tests judge: `EMBERCASK_DAMAGE_STATES`.
pub(crate) fn samples(default: usize) -> usize {
    match std::env::var("EMBERCASK_DAMAGE_STATES") {
        Ok(count) => count.parse().expect("EMBERCASK_DAMAGE_STATES is a number"),
        Err(_) => default,
    }
}

/// One in `one_in` of the damages, unless the run is exhaustive or a damage is named.
pub(crate) fn one_in(one_in: u64) -> Sample {
    match std::env::var_os("EMBERCASK_DAMAGE") {
        Some(_) => Sample::all(),
        None => Sample::one_in(one_in),
    }
}

/// Outcomes of damaged stores.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Refused openings.
    pub(crate) refused: u64,
    /// Stores that opened with some keys unreadable.
    pub(crate) harmed: u64,
    /// Stores that opened and showed everything.
    pub(crate) whole: u64,
    pub(crate) salvaged: u64,
}

impl Tally {
    pub(crate) fn of(verdict: Verdict) -> Tally {
        let mut tally = Tally::default();
        match verdict {
            Verdict::Refused => tally.refused = 1,
            Verdict::Harmed => tally.harmed = 1,
            Verdict::Whole => tally.whole = 1,
        }
        tally
    }

    pub(crate) fn salvaged() -> Tally {
        Tally {
            salvaged: 1,
            ..Tally::default()
        }
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.refused += other.refused;
        self.harmed += other.harmed;
        self.whole += other.whole;
        self.salvaged += other.salvaged;
    }
}

/// Judges all these damages and asserts that there are at least `least`, with outcomes of at least
/// these floors. `EMBERCASK_DAMAGE` selects a single damage by its text.
pub(crate) fn run(
    what: &str,
    damages: impl Iterator<Item = Damage> + Send,
    (least, floors): (u64, Tally),
    judge: impl Fn(&Damage) -> Tally + Sync,
) {
    let wanted = std::env::var("EMBERCASK_DAMAGE").ok();
    let damages = damages.filter(|damage| wanted.as_ref().is_none_or(|wanted| *wanted == damage.to_string()));
    let (queue, failures) = (Mutex::new(damages), Mutex::new(Vec::new()));
    let (judged, tally) = (AtomicU64::new(0), Mutex::new(Tally::default()));
    let next = || queue.lock().unwrap().next();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(damage) = next() {
                    judged.fetch_add(1, Ordering::Relaxed);
                    match catch_unwind(AssertUnwindSafe(|| judge(&damage))) {
                        Ok(one) => *tally.lock().unwrap() += one,
                        Err(_) => failures.lock().unwrap().push(damage.to_string()),
                    }
                    if failures.lock().unwrap().len() >= FAILURES_MAX {
                        return;
                    }
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap();
    println!("{what}: {judged:?} damaged stores, {tally:?}");
    let failures = failures.into_inner().unwrap();
    // Printing a panic allocates memory too.
    static FAILED: AtomicBool = AtomicBool::new(false);
    FAILED.fetch_or(!failures.is_empty(), Ordering::Relaxed);
    assert!(
        failures.is_empty(),
        "{what}: see the panics above; to judge one alone, set EMBERCASK_DAMAGE to one of {failures:#?}"
    );
    let largest = allocations::largest();
    assert!(
        largest <= ALLOCATION_MAX,
        "{what}: a single request for {largest} bytes"
    );
    if wanted.is_some() {
        return;
    }
    for (least, found, of) in [
        (least, judged.into_inner(), "damaged stores"),
        (floors.refused, tally.refused, "that were refused"),
        (floors.harmed, tally.harmed, "that were harmed"),
        (floors.whole, tally.whole, "that were whole"),
        (floors.salvaged, tally.salvaged, "that were salvaged"),
    ] {
        at_least(least.max(1), found.max(u64::from(least == 0)), &format!("{of}, {what}"));
    }
}

impl Tally {
    /// Floors for the outcomes of a sample.
    pub(crate) fn of_sample(self, sample: Sample) -> Tally {
        floors(
            sample.outcomes(self.refused),
            sample.outcomes(self.harmed),
            sample.outcomes(self.whole),
            sample.outcomes(self.salvaged),
        )
    }
}

/// Floors for the outcomes of damaged stores.
pub(crate) fn floors(refused: u64, harmed: u64, whole: u64, salvaged: u64) -> Tally {
    Tally {
        refused,
        harmed,
        whole,
        salvaged,
    }
}
