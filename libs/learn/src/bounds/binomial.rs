//! Exact bounds of a proportion seen in independent rows of equal weight.

use super::special::Beta;

/// The Clopper–Pearson lower bound: the smallest success probability `p` under
/// which `successes` or more of `n` happen with probability at least `delta`.
///
/// It holds exactly for every `n`: the true probability lies below it with
/// probability at most `delta`. `n = 0` bounds nothing: 0.
/// (Clopper and Pearson, Biometrika 26, 1934.)
pub fn clopper_pearson_lower(successes: u64, n: u64, delta: f64) -> f64 {
    assert!(successes <= n, "{successes} successes of {n}");
    if successes == 0 || delta <= 0.0 {
        return 0.0;
    }
    // P[Bin(n, p) >= k] = I_p(k, n - k + 1), increasing in p.
    let beta = Beta::new(successes as f64, (n - successes + 1) as f64);
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    // The logarithm of the tail is concave in p and nearly straight, so Newton on
    // it arrives in a few steps; the bracket catches a step that goes astray.
    let mut p = start(successes, n, delta);
    for _ in 0..100 {
        let tail = beta.regularized(p);
        if tail < delta {
            low = p;
        } else {
            high = p;
        }
        if high - low < 1e-14 {
            break;
        }
        let step = (tail / delta).ln() * tail / beta.density(p);
        let next = p - step;
        let next = if next > low && next < high {
            next
        } else {
            0.5 * (low + high)
        };
        if (next - p).abs() < 1e-13 {
            // So near that the tail's own rounding decides on which side it is.
            return next;
        }
        p = next;
    }
    low
}

/// The Clopper–Pearson upper bound: the true probability lies above it with
/// probability at most `delta`. `n = 0` bounds nothing: 1.
pub fn clopper_pearson_upper(successes: u64, n: u64, delta: f64) -> f64 {
    assert!(successes <= n, "{successes} successes of {n}");
    1.0 - clopper_pearson_lower(n - successes, n, delta)
}

/// The two-sided Clopper–Pearson interval: the true probability lies outside it
/// with probability at most `delta`, half of it on either side.
pub fn clopper_pearson_interval(successes: u64, n: u64, delta: f64) -> (f64, f64) {
    (
        clopper_pearson_lower(successes, n, 0.5 * delta),
        clopper_pearson_upper(successes, n, 0.5 * delta),
    )
}

/// Whether the lower bound at confidence 1 − `delta` is at least `target`: the
/// exact binomial test of "the probability is below `target`". One evaluation of
/// the tail, where the bound takes several.
pub(crate) fn clopper_pearson_reaches(successes: u64, n: u64, delta: f64, target: f64) -> bool {
    successes > 0
        && Beta::new(successes as f64, (n - successes + 1) as f64).regularized(target) <= delta
}

/// P\[Bin(n, `rate`) ≤ `most`\], exactly.
pub fn binomial_at_most(most: u64, n: u64, rate: f64) -> f64 {
    if most >= n {
        1.0
    } else {
        Beta::new((n - most) as f64, (most + 1) as f64).regularized(1.0 - rate)
    }
}

/// A first guess: Wilson's score bound, which is never far off.
fn start(successes: u64, n: u64, delta: f64) -> f64 {
    let (k, n) = (successes as f64, n as f64);
    let z = super::special::normal_quantile(1.0 - delta.clamp(1e-12, 1.0 - 1e-12));
    let p = (k - 0.5) / n;
    let centre = p + z * z / (2.0 * n);
    let radius = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    ((centre - radius) / (1.0 + z * z / n)).clamp(1e-9, 1.0 - 1e-12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_forms() {
        // All of n succeed: p^n = δ.
        for n in [1_u64, 10, 100, 1000, 1_000_000] {
            for delta in [1e-6, 0.05, 0.5, 0.9] {
                let expected = f64::powf(delta, 1.0 / n as f64);
                let bound = clopper_pearson_lower(n, n, delta);
                assert!((bound - expected).abs() < 1e-11, "{n} {delta}: {bound}");
                // None succeed: the mirror image.
                let upper = clopper_pearson_upper(0, n, delta);
                assert!((upper - (1.0 - expected)).abs() < 1e-11);
            }
        }
        // One of n succeeds: 1 - (1-p)^n = δ.
        let expected = 1.0 - 0.95_f64.powf(1.0 / 20.0);
        assert!((clopper_pearson_lower(1, 20, 0.05) - expected).abs() < 1e-11);
        assert_eq!(clopper_pearson_lower(0, 10, 0.05), 0.0);
        assert_eq!(clopper_pearson_lower(0, 0, 0.05), 0.0);
        assert_eq!(clopper_pearson_upper(0, 0, 0.05), 1.0);
        assert_eq!(clopper_pearson_interval(0, 0, 0.05), (0.0, 1.0));
    }

    /// The bound's definition, summed term by term: the tail at the bound is δ.
    #[test]
    fn the_binomial_tail_at_the_bound_is_delta() {
        for (k, n, delta) in [
            (90_u64, 100_u64, 0.05),
            (190, 200, 0.1),
            (57, 60, 0.01),
            (3, 400, 0.2),
            (1950, 2000, 1e-4),
        ] {
            let p = clopper_pearson_lower(k, n, delta);
            let mut tail = 0.0;
            let mut log_choose = (1..=k)
                .map(|j| (((n - k + j) as f64) / j as f64).ln())
                .sum::<f64>();
            for i in k..=n {
                tail += (log_choose + i as f64 * p.ln() + (n - i) as f64 * (1.0 - p).ln()).exp();
                log_choose += ((n - i) as f64 / (i + 1) as f64).ln();
            }
            assert!((tail / delta - 1.0).abs() < 1e-8, "{k}/{n}: {tail}");
        }
    }

    /// `scipy.stats.beta.ppf(delta, k, n - k + 1)` of scipy 1.17, recorded.
    #[test]
    fn agrees_with_scipy_on_large_counts() {
        for (k, n, delta, expected) in SCIPY {
            let bound = clopper_pearson_lower(k, n, delta);
            assert!((bound - expected).abs() < 1e-11, "{k}/{n} {delta}: {bound}");
        }
    }

    const SCIPY: [(u64, u64, f64, f64); 6] = [
        (1900, 2000, 0.05, 0.941_229_685_769_327_5),
        (196_000, 200_000, 0.05, 0.979_477_405_628_531_4),
        (960_123, 1_000_000, 0.01, 0.959_665_485_524_231_1),
        (12, 100_000, 0.1, 7.829_466_152_528_201e-5),
        (500, 1000, 0.2, 0.486_198_890_039_525_7),
        (4_999_999, 5_000_000, 0.001, 0.999_998_153_318_825_1),
    ];

    #[test]
    fn the_test_and_the_bound_say_the_same() {
        for n in [1_u64, 7, 50, 400, 2000] {
            for k in (0..=n).step_by((n as usize / 23).max(1)) {
                for (delta, target) in [(0.01, 0.9), (0.05, 0.95), (0.2, 0.5)] {
                    assert_eq!(
                        clopper_pearson_reaches(k, n, delta, target),
                        clopper_pearson_lower(k, n, delta) >= target,
                        "{k}/{n} {delta} {target}"
                    );
                }
            }
        }
    }
}
