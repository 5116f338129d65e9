/// Random choices that can be made again: the seed is printed, and taken from `PASSHOLD_SEED` if that is set.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// A seed of the operating system's, or the one asked for.
    ///
    /// # Panics
    /// If `PASSHOLD_SEED` is no number.
    #[must_use]
    #[expect(
        clippy::expect_used,
        clippy::print_stdout,
        reason = "what a failing test says is how to repeat it"
    )]
    pub fn new() -> Self {
        let seed = std::env::var("PASSHOLD_SEED").map_or_else(
            |_| getrandom::u64().expect("randomness"),
            |seed| seed.parse().expect("PASSHOLD_SEED is a number"),
        );
        println!("PASSHOLD_SEED={seed}");
        Self(seed)
    }

    /// Dice of their own for another thread.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// One of the numbers below this.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    #[expect(clippy::expect_used, reason = "what is below a usize is one")]
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("64 bits");
        usize::try_from(self.next() % bound).expect("below a usize")
    }

    /// `SplitMix64` (Steele, Lea, Flood 2014).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Default for Dice {
    fn default() -> Self {
        Self::new()
    }
}
