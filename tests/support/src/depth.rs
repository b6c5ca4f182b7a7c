//! How deep suites go that could visit everything: they take a sample by default, another one in
//! each run.

use crate::{mix, rng};

/// Whether everything is visited, which takes minutes: `EMBERCASK_EXHAUSTIVE=1`.
pub fn is_exhaustive() -> bool {
    std::env::var_os("EMBERCASK_EXHAUSTIVE").is_some()
}

/// One in so many of what a suite could visit. Which ones follows from the seed of [`rng`], or all
/// of them in a run that is exhaustive.
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

    /// Every so manieth of these, evenly: what lies between two of the sample is as much
    /// everywhere.
    pub fn of<T>(self, all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        self.from(0, all)
    }

    /// As [`of`](Self::of), beginning elsewhere for another number.
    pub fn from<T>(self, number: u64, all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        let first = (self.seed + number) % self.one_in;
        all.skip(first as usize).step_by(self.one_in as usize)
    }

    /// Whether it has what this number stands for.
    pub fn has(self, number: u64) -> bool {
        mix(&[self.seed, number]).is_multiple_of(self.one_in)
    }

    /// What is left of a floor under how much is visited.
    pub fn floor(self, least: u64) -> u64 {
        least / self.one_in
    }

    /// What is left of a floor under what comes of it: half as much as of one under the visits,
    /// since it need not be spread evenly.
    pub fn outcomes(self, least: u64) -> u64 {
        if self.one_in == 1 { least } else { self.floor(least) / 2 }
    }
}
