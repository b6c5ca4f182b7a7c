//! Pseudorandom numbers that are the same in every run, so that every engine gets the same work.

#[path = "../../../src/command/cli/random.rs"]
mod numbers;

pub(crate) use numbers::{Random, Zipfian, mix};

/// A permutation of the numbers below the limit with large jumps, so that the order differs from
/// that of the fill.
pub(crate) fn scattered(index: u64, limit: u64) -> u64 {
    // A prime, so that every number is reached exactly once unless the limit is a multiple of it.
    const PRIME: u128 = 2_654_435_761;
    (u128::from(index) * PRIME % u128::from(limit)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scattered_reaches_every_number_once() {
        let mut seen: Vec<u64> = (0..1000).map(|index| scattered(index, 1000)).collect();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..1000));
    }
}
