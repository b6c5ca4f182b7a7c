//! Counts of what a driver has done, for the floors under it.

use std::collections::BTreeMap;

use crate::at_least;

#[derive(Clone, Debug, Default)]
pub struct Visited(BTreeMap<&'static str, u64>);

/// How often [`PER`] random operations must at least have done what. Well below the usual counts;
/// of those with 0 it is enough that the fuzzer's corpus has them.
const FLOORS: &[(&str, u64)] = &[
    ("changes refused", 80),
    ("crashes read before the next opening", 30),
    ("crashes with snapshots held", 90),
    ("default lifetimes set", 50),
    ("deletes of a range cancelled", 5),
    ("deletes on a judgement", 20),
    ("increments", 50),
    ("keys popped", 30),
    ("namespaces dropped beside a snapshot", 2),
    ("operations that failed", 20),
    ("puts on a judgement", 30),
    ("ranges deleted in one batch", 50),
    ("ranges deleted in several batches", 25),
    ("snapshots closed with the store", 50),
    ("snapshots dropped before others", 2),
    ("snapshots read", 700),
    ("snapshots read after a drop of a namespace", 10),
    ("snapshots read after a failure", 20),
    ("snapshots read after a sweep", 30),
    ("snapshots read after writes", 500),
    ("snapshots read after writes and compaction", 100),
    ("snapshots taken", 350),
    ("transactions refused", 50),
    ("transactions refused after a drop", 15),
    ("transactions that ran once", 500),
    ("transactions that ran twice", 50),
    ("transactions that ran twice without a put beside them", 3),
    ("transactions whose closure failed", 50),
    ("transactions with several writes", 200),
    ("updates", 100),
    ("values replaced", 25),
    ("values taken", 25),
    ("watchers begun", 200),
    ("watchers told of a drop", 1),
    ("watchers told of something", 120),
    ("watchers told that less is there", 5),
    ("watchers told that they have missed something", 15),
    ("writes of several steps cut off", 0),
];

/// Operations that [`FLOORS`] are for.
const PER: u64 = 30_000;

impl Visited {
    pub(super) fn note(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub fn add(&mut self, other: &Visited) {
        for (what, times) in &other.0 {
            *self.0.entry(what).or_default() += times;
        }
    }

    pub fn times(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Asserts the floors for so many random operations.
    pub fn assert_floors(&self, operations: u64) {
        for (what, least) in FLOORS {
            at_least(least * operations / PER, self.times(what), what);
        }
    }

    /// Asserts that all that has a floor was visited at all.
    pub fn assert_each(&self) {
        for (what, _) in FLOORS {
            at_least(1, self.times(what), what);
        }
    }
}
