//! A seeded generator that prints its seed.

/// SplitMix64: small, and the same on every platform.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    #[expect(clippy::should_implement_trait, reason = "there always is one")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Another generator, for another thread.
    pub fn split(&mut self) -> Rng {
        Rng(self.next())
    }
}

/// Mixes these numbers, in this order, into one.
pub fn mix(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0, |mixed, number| Rng(mixed ^ number).next())
}

/// The generator of a test. Prints its seed, which a failing test shows; `EMBERCASK_SEED` replays
/// it.
pub fn rng() -> Rng {
    let seed = match std::env::var("EMBERCASK_SEED") {
        Ok(seed) => seed.parse().expect("EMBERCASK_SEED is a number"),
        Err(_) => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |since| since.as_nanos() as u64),
    };
    println!("replay with EMBERCASK_SEED={seed}");
    Rng::new(seed)
}
