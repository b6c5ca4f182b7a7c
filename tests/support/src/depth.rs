//! Depth of suites that could visit everything: by default they take a sample, a different one in
//! each run.

use crate::{mix, rng};

/// Whether to visit everything, which takes minutes: `EMBERCASK_EXHAUSTIVE=1`.
pub fn is_exhaustive() -> bool {
    std::env::var_os("EMBERCASK_EXHAUSTIVE").is_some()
}

/// A sample of one in N of what a suite could visit, chosen by the seed of [`rng`]; everything in
/// an exhaustive run.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    one_in: u64,
    pub seed: u64,
}

impl Sample {
    pub fn one_in(one_in: u64) -> Sample {
        if is_exhaustive() {
            return Sample::all();
        }
        Sample {
            one_in,
            seed: rng().next() >> 16,
        }
    }

    pub fn all() -> Sample {
        Sample { one_in: 1, seed: 0 }
    }

    /// Every N-th of these, evenly spread.
    pub fn of<T>(self, all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        self.from(0, all)
    }

    /// As [`of`](Self::of), with a start that depends on `number`.
    pub fn from<T>(self, number: u64, all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        let first = (self.seed + number) % self.one_in;
        all.skip(first as usize).step_by(self.one_in as usize)
    }

    /// Whether the item with this number is in the sample.
    pub fn has(self, number: u64) -> bool {
        mix(&[self.seed, number]).is_multiple_of(self.one_in)
    }

    /// Scales a floor for the number of visits.
    pub fn floor(self, least: u64) -> u64 {
        least / self.one_in
    }

    /// Scales a floor for outcomes: half of a floor for visits, because outcomes may be spread
    /// unevenly.
    pub fn outcomes(self, least: u64) -> u64 {
        if self.one_in == 1 { least } else { self.floor(least) / 2 }
    }
}
