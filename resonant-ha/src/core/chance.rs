//! Seeded chance, so that a simulated run can be had again byte for byte.

use std::time::Duration;

/// SplitMix64: small, seeded, good enough to spread contenders and to drive a simulation.
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform below `bound`, which must not be 0 to mean anything.
    pub(crate) fn under(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    pub(crate) fn below(&mut self, bound: Duration) -> Duration {
        let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.under(micros.max(1)))
    }

    #[cfg(feature = "simulation")]
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.under(100) < percent
    }
}
