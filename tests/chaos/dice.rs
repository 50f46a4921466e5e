//! Seeded chance.

use std::time::{Duration, SystemTime};

/// A generator of 64 bits (xorshift): random enough for moments and choices.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        // Near seeds must not begin alike.
        let mut dice = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..16 {
            dice.next();
        }
        dice
    }

    pub(crate) fn from_clock() -> Self {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        Self::new(now.as_nanos() as u64)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number in [0, 1).
    pub(crate) fn roll(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A whole number below a limit.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        (self.roll() * limit as f64) as u64
    }

    /// A time between two.
    pub(crate) fn between(&mut self, least: f64, most: f64) -> Duration {
        Duration::from_secs_f64(least + self.roll() * (most - least))
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    pub(crate) fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            all.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}
