//! Exact confidence bounds of a proportion.

use statrs::function::beta::beta_reg;

/// The Clopper–Pearson lower bound: the smallest success probability `p` under
/// which `successes` or more of `n` happen with probability at least `delta`.
///
/// It holds exactly for every `n`: the true probability lies below it with
/// probability at most `delta`. `n = 0` bounds nothing: 0.
/// (Clopper and Pearson, Biometrika 26, 1934.)
pub fn clopper_pearson_lower(successes: u64, n: u64, delta: f64) -> f64 {
    assert!(successes <= n, "{successes} successes of {n}");
    if successes == 0 {
        return 0.0;
    }
    // P[Bin(n, p) >= k] = I_p(k, n - k + 1), increasing in p.
    let (a, b) = (successes as f64, (n - successes + 1) as f64);
    let (mut low, mut high) = (0.0_f64, successes as f64 / n as f64);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if beta_reg(a, b, middle) < delta {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_forms() {
        // All of n succeed: p^n = δ.
        for n in [1_u64, 10, 100, 1000] {
            let expected = 0.05_f64.powf(1.0 / n as f64);
            assert!((clopper_pearson_lower(n, n, 0.05) - expected).abs() < 1e-9);
        }
        // One of n succeeds: 1 - (1-p)^n = δ.
        let expected = 1.0 - 0.95_f64.powf(1.0 / 20.0);
        assert!((clopper_pearson_lower(1, 20, 0.05) - expected).abs() < 1e-9);
        assert_eq!(clopper_pearson_lower(0, 10, 0.05), 0.0);
        assert_eq!(clopper_pearson_lower(0, 0, 0.05), 0.0);
    }

    /// The bound's definition, summed term by term: the tail at the bound is δ.
    #[test]
    fn the_binomial_tail_at_the_bound_is_delta() {
        for (k, n, delta) in [(90_u64, 100_u64, 0.05), (190, 200, 0.1), (57, 60, 0.01)] {
            let p = clopper_pearson_lower(k, n, delta);
            let mut tail = 0.0;
            for i in k..=n {
                let log_choose: f64 = (1..=i)
                    .map(|j| (((n - i + j) as f64) / j as f64).ln())
                    .sum();
                tail += (log_choose + i as f64 * p.ln() + (n - i) as f64 * (1.0 - p).ln()).exp();
            }
            assert!((tail - delta).abs() < 1e-6, "{k}/{n}: {tail}");
        }
    }
}
