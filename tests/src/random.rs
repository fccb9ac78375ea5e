//! Seeded random numbers (SplitMix64), the same on every machine, so that a seed names a run.

/// A generator. Not for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A seed from the system, for runs that name none; print it.
    ///
    /// # Panics
    /// If the system has no random numbers.
    #[must_use]
    pub fn fresh_seed() -> u64 {
        // Short enough to retype.
        getrandom::u64().expect("the system has random numbers") >> 32
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not zero; nearly uniform, which is enough here.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next_u64().checked_rem(end).expect("a range is not empty")
    }

    /// One of `choices`, which are some.
    pub fn pick<'c, T>(&mut self, choices: &'c [T]) -> &'c T {
        let count = u64::try_from(choices.len()).expect("a list's length fits 64 bits");
        let at = usize::try_from(self.below(count)).expect("an index fits");
        &choices[at]
    }

    /// A generator for one of several parts, independent of how the others use theirs.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.next_u64())
    }
}
