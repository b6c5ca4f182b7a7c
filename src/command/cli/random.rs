//! Pseudorandom numbers that are the same in every run, so that every run and every engine gets the
//! same work.

/// Turns a number into another that looks random (splitmix64); different numbers stay different.
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A seeded generator.
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// Threads and phases of a workload take different seeds.
    pub(crate) fn new(seed: u64) -> Random {
        Random { state: mix(seed) }
    }

    /// The next 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number below the limit, almost uniform.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(limit)) >> 64) as u64
    }

    /// A number from 0 to 1, without 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A Zipfian distribution: rank n is about `1 / n^skew` times as likely as the first.
///
/// The closed-form approximation of Gray et al., "Quickly generating billion-record synthetic
/// databases" (1994).
pub(crate) struct Zipfian {
    items: u64,
    skew: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipfian {
    /// Sums over all items, so create it outside of the timed part.
    pub(crate) fn new(items: u64, skew: f64) -> Zipfian {
        let zeta = zeta(items, skew);
        let eta = (1.0 - (2.0 / items as f64).powf(1.0 - skew)) / (1.0 - zeta_of_two(skew) / zeta);
        Zipfian {
            items,
            skew,
            alpha: 1.0 / (1.0 - skew),
            zeta,
            eta,
        }
    }

    /// The number of an item. Popular items are spread over all numbers: neighbours in rank are not
    /// neighbours in key.
    pub(crate) fn pick(&self, random: &mut Random) -> u64 {
        mix(self.rank(random)) % self.items
    }

    fn rank(&self, random: &mut Random) -> u64 {
        let fraction = random.fraction();
        let share = fraction * self.zeta;
        if share < 1.0 {
            return 0;
        }
        if share < 1.0 + 0.5_f64.powf(self.skew) {
            return 1;
        }
        let rank = self.items as f64 * (self.eta * fraction - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.items - 1)
    }
}

fn zeta(items: u64, skew: f64) -> f64 {
    (1..=items).map(|rank| (rank as f64).powf(-skew)).sum()
}

fn zeta_of_two(skew: f64) -> f64 {
    zeta(2, skew)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rank_is_by_far_the_likeliest() {
        let (zipfian, mut random) = (Zipfian::new(1000, 0.99), Random::new(1));
        let mut counts = vec![0_u32; 1000];
        for _ in 0..100_000 {
            counts[zipfian.rank(&mut random) as usize] += 1;
        }
        assert!(counts[0] > counts[1] && counts[1] > counts[9] && counts[9] > counts[99]);
        assert!((10_000..16_000).contains(&counts[0]), "{}", counts[0]);
    }
}
