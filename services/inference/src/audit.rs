//! Which handled requests go to the teacher as well.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// The step of the Weyl sequence of `SplitMix64` (Steele, Lea, Flood 2014).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Draws audits of one task with a fixed probability.
///
/// The state is `SplitMix64` with its counter in an atomic: a draw is one relaxed
/// addition and a few multiplications, whatever the number of threads.
#[derive(Debug)]
pub(crate) struct Audit {
    rate: f64,
    state: AtomicU64,
}

impl Audit {
    /// `rate` is clamped to [0, 1]. With a seed, the n-th draw of a task is
    /// always the same; without one, the process draws its own.
    pub(crate) fn new(rate: f64, seed: Option<u64>, task: &str) -> Self {
        let start = match seed {
            // FNV-1a: tasks must not draw in step.
            Some(seed) => task
                .bytes()
                .fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
                    (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
                }),
            None => RandomState::new().hash_one(task),
        };
        Self {
            rate: if rate.is_nan() {
                0.0
            } else {
                rate.clamp(0.0, 1.0)
            },
            state: AtomicU64::new(start),
        }
    }

    /// The probability of an audit.
    pub(crate) fn rate(&self) -> f64 {
        self.rate
    }

    /// True with probability [`Self::rate`].
    pub(crate) fn draw(&self) -> bool {
        let mut z = self.state.fetch_add(STEP, Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        // The upper 53 bits as a number in [0, 1).
        ((z >> 11) as f64) / ((1_u64 << 53) as f64) < self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(audit: &Audit, n: usize) -> Vec<bool> {
        (0..n).map(|_| audit.draw()).collect()
    }

    #[test]
    fn the_rate_is_kept() {
        // The standard deviation of the share is 0.0007 at 40,000 draws: 5 of them.
        let n = 40_000;
        for seed in 0..20 {
            let audit = Audit::new(0.02, Some(seed), "t");
            let share = draws(&audit, n).iter().filter(|a| **a).count() as f64 / n as f64;
            assert!((share - 0.02).abs() < 0.0035, "seed {seed}: {share}");
        }
    }

    #[test]
    fn the_ends_are_certain() {
        assert!(draws(&Audit::new(1.0, None, "t"), 1000).iter().all(|a| *a));
        assert!(draws(&Audit::new(0.0, None, "t"), 1000).iter().all(|a| !*a));
        assert_eq!(Audit::new(f64::NAN, None, "t").rate(), 0.0);
    }

    #[test]
    fn a_seed_repeats_and_tasks_differ() {
        let of = |seed, task| draws(&Audit::new(0.5, Some(seed), task), 64);
        assert_eq!(of(7, "a"), of(7, "a"));
        assert_ne!(of(7, "a"), of(7, "b"));
        assert_ne!(of(7, "a"), of(8, "a"));
    }
}
