//! Random numbers from a seed: Sebastiano Vigna's splitmix64. The seed comes from the operating system; keys, which
//! have to be secret, do not come from here.

use std::time::Duration;

/// The generator.
#[derive(Clone, Debug)]
pub struct Draw(u64);

impl Draw {
    /// One that is seeded with `seed`.
    pub fn new(seed: u64) -> Draw {
        Draw(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A time between `low` and `high`.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = u64::try_from(high.saturating_sub(low).as_nanos()).unwrap_or(u64::MAX);
        low + Duration::from_nanos(self.number() % span.max(1))
    }
}
