//! A lower bound of the agreement seen in *weighted* rows, by betting.
//!
//! The agreement of the traffic is a ratio, E\[w·agree\] / E\[w\] over the handled
//! rows. It is at most α exactly if Z = w·(agree − α) has a mean of at most 0. A
//! gambler who believes it is more stakes, before each row is shown, a part λ of
//! his wealth on Z: the wealth is multiplied by 1 + λZ. As long as no bet can
//! ruin him (λ·w·α ≤ 1) and no bet looks ahead, the wealth is a nonnegative
//! supermartingale while the hypothesis holds, so it ever grows from 1 to 1/δ with
//! probability at most δ (Ville). Growing that far refutes the hypothesis. Nothing
//! else about the weights or the rows is assumed, and it holds for every n.
//! (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
//! betting", JRSS B 86, 2024.)
//!
//! The promise does not depend on how the bets are chosen; the power does. With n
//! rows in all, the best the gambler can do is the Neyman–Pearson test: end with
//! exactly 1/δ or nothing. So he plays towards that payoff. δ times his wealth is
//! read as the price of "1 if few enough of the remaining rows disagree, else 0",
//! and he stakes what replicates it, as one who hedges a digital option. For rows of
//! equal weight the price is a binomial tail and the replication is exact: the bound
//! is Clopper–Pearson's. For unequal ones the remaining rows are taken for the rows of
//! equal weight that have the same variance. The stake is recalculated from the wealth
//! at every row, so an error of that likeness costs a little power and nothing else.
//! (Recalculated targets for betting: Voráček and Orabona, "STaR-Bets", 2025.)

use super::special::{Beta, normal_density, normal_quantile};

/// Running moments of the weights already shown.
#[derive(Clone, Copy, Default)]
struct Moments {
    rows: f64,
    sum: f64,
    /// Of the disagreeing rows: Σw and Σw².
    bad: f64,
    bad_squares: f64,
    /// Of the agreeing ones: Σw and Σw².
    good: f64,
    good_squares: f64,
}

impl Moments {
    fn add(&mut self, weight: f64, agrees: bool) {
        self.rows += 1.0;
        self.sum += weight;
        if agrees {
            self.good += weight;
            self.good_squares += weight * weight;
        } else {
            self.bad += weight;
            self.bad_squares += weight * weight;
        }
    }

    /// The game over `remaining` rows as one over rows of equal weight: their
    /// weight and their number, of the same variance if the mean of Z were 0 and the
    /// weights of rows that agree and of rows that do not stayed what they were.
    fn equivalent(&self, remaining: f64, alpha: f64, cap: f64) -> (f64, f64) {
        if self.sum <= 0.0 {
            return (cap, remaining);
        }
        let mean = self.sum / self.rows;
        let typical = (self.good_squares + self.bad_squares) / self.sum;
        // The weight that counts, Σw²/Σw; a few rows of the typical weight stand in
        // for the disagreements nobody has seen yet.
        let prior = PRIOR_ROWS * mean;
        let good = (self.good_squares + prior * typical) / (self.good + prior);
        let bad = (self.bad_squares + prior * typical) / (self.bad + prior);
        let weight = alpha * bad + (1.0 - alpha) * good;
        (weight, remaining * mean / weight)
    }
}

/// Where heavier rows than the typical one are possible, this much of the largest bet
/// is the most: at the largest, one such row that disagrees is ruin.
const SHY: f64 = 0.96;

/// Rows of typical weight that stand in for outcomes not yet seen.
const PRIOR_ROWS: f64 = 3.0;

/// The payoff played for, over the mark. The hedge slows down as it nears its
/// payoff and would stop just short of a mark of exactly that height.
const AIM: f64 = 1.02;

/// Whether the rows refute "the weighted agreement is at most `alpha`" at level
/// `delta`. `rows` are the weights and outcomes of the handled rows, in an order
/// that does not depend on them; no weight is above `cap` but as [`betting_lower`]
/// says.
pub(crate) fn betting_refutes(rows: &[(f64, bool)], cap: f64, alpha: f64, delta: f64) -> bool {
    if alpha <= 0.0 {
        return rows.iter().any(|(w, agrees)| *agrees && *w > 0.0);
    }
    if alpha >= 1.0 || delta <= 0.0 {
        return false;
    }
    // See `betting_lower`; the margin is for rounding alone.
    if rows
        .iter()
        .any(|(w, agrees)| !agrees && *w > cap * (1.0 + 1e-9))
    {
        return false;
    }
    let most = 1.0 / (cap * alpha);
    let mut seen = Moments::default();
    // δ times the wealth: 1 is the mark.
    let mut wealth = delta;
    let mut hedge = Hedge::new(alpha);
    for (shown, &(weight, agrees)) in rows.iter().enumerate() {
        let remaining = (rows.len() - shown) as f64;
        // Ruined, or not even agreement in all that is left would do.
        if wealth <= 0.0 || wealth.ln() < remaining * alpha.ln() {
            return false;
        }
        let (unit, number) = seen.equivalent(remaining, alpha, cap);
        let stake = hedge.stake(wealth / AIM, number) * AIM / unit;
        let lambda = stake / wealth;
        // Weights too small to reckon with are not bet on.
        let lambda = if lambda.is_finite() {
            lambda.clamp(0.0, if unit < 0.999 * cap { SHY * most } else { most })
        } else {
            0.0
        };
        let weight = weight.min(cap);
        let outcome = if agrees { 1.0 - alpha } else { -alpha };
        wealth *= 1.0 + lambda * weight * outcome;
        if wealth >= 1.0 {
            return true;
        }
        seen.add(weight, agrees);
        if !agrees {
            hedge.losses -= weight / unit;
        }
    }
    false
}

/// How to stake so that the wealth follows the price of the payoff "1 if at most so
/// many of the remaining rows disagree, else 0", where each agrees with probability α.
struct Hedge {
    alpha: f64,
    /// How many may still disagree: a guess, mended at every step to fit the price.
    losses: f64,
    fitted: bool,
}

impl Hedge {
    fn new(alpha: f64) -> Self {
        Self {
            alpha,
            losses: 0.0,
            fitted: false,
        }
    }

    /// The difference in price between an agreement and a disagreement of the next
    /// row, when the payoff over `number` rows (not always whole) has `price` < 1.
    fn stake(&mut self, price: f64, number: f64) -> f64 {
        if !(number.is_finite() && number > 0.0) {
            return 0.0;
        }
        let bad = 1.0 - self.alpha;
        let mean = number * bad;
        let deviation = (mean * self.alpha).sqrt();
        let difference = if mean > FEW {
            let z = normal_quantile(price);
            // Cornish and Fisher's correction for the skewness.
            let skewness = (self.alpha - bad) / deviation;
            self.losses = mean + deviation * (z + skewness * (z * z - 1.0) / 6.0) - 0.5;
            self.fitted = true;
            normal_density(z) / (deviation * (1.0 + skewness * z / 3.0).max(0.1))
        } else {
            self.fit(price, number, mean, deviation)
        };
        // Neither may the price fall below 0 nor rise above 1.
        difference.min(price / self.alpha).min((1.0 - price) / bad)
    }

    /// `P[Bin(number, 1 − α) ≤ losses] = I_α(number − losses, losses + 1)` is solved
    /// for the losses; the difference is the binomial probability in the middle.
    fn fit(&mut self, price: f64, number: f64, mean: f64, deviation: f64) -> f64 {
        if !self.fitted {
            self.losses = mean + deviation * normal_quantile(price) - 0.5;
        }
        let rounds = if self.fitted { 4 } else { 8 };
        self.fitted = true;
        let mut difference = 0.0;
        for _ in 0..rounds {
            self.losses = self.losses.clamp(-0.99, number - 1e-3);
            let beta = Beta::new(number - self.losses, self.losses + 1.0);
            let at = beta.roughly(self.alpha);
            difference = beta.density(self.alpha) / number;
            // Newton on the logarithm of the smaller tail, which is nearly straight.
            let step = if at < 0.5 {
                (price / at).ln() * at
            } else {
                ((1.0 - at) / (1.0 - price)).ln() * (1.0 - at)
            } / difference;
            if !step.is_finite() {
                break;
            }
            self.losses += step.clamp(-1.0 - deviation, 1.0 + deviation);
            if step.abs() < 0.02 {
                break;
            }
        }
        difference
    }
}

/// Expected disagreements from which on the normal approximation serves.
const FEW: f64 = 25.0;

/// The lower bound of the weighted agreement at confidence 1 − `delta`: the largest
/// α that the rows refute as an upper limit, to 1e-5.
///
/// `rows`: weight (≥ 0) and outcome of the handled rows, in an order that does not
/// depend on the outcomes. No rows bound nothing: 0.
///
/// `cap` is the largest weight possible, known before the rows are: it limits how
/// much of the traffic may hide behind rows that happened not to be drawn, and the
/// bound stands on it. A weight above it contradicts that knowledge: an agreeing
/// row then counts with the cap, which only lowers the bound; a disagreeing one
/// cannot be counted safely at any finite weight, and the bound is 0.
pub fn betting_lower(rows: &[(f64, bool)], cap: f64, delta: f64) -> f64 {
    let (mut sum, mut squares, mut right) = (0.0, 0.0, 0.0);
    for &(weight, agrees) in rows {
        sum += weight;
        squares += weight * weight;
        if agrees {
            right += weight;
        }
    }
    if right <= 0.0 {
        return 0.0;
    }
    let agreement = right / sum;
    let (mut low, mut high) = (0.0, f64::min(1.0, agreement + 1e-9));
    // It is likely to lie within a few standard deviations.
    let deviation = ((agreement * (1.0 - agreement)).sqrt() + 0.1) * squares.sqrt() / sum;
    let near = agreement - 4.0 * deviation;
    if near > 0.0 {
        if betting_refutes(rows, cap, near, delta) {
            low = near;
        } else {
            high = near;
        }
    }
    while high - low > 1e-5 {
        let middle = 0.5 * (low + high);
        if betting_refutes(rows, cap, middle, delta) {
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
    use crate::{bounds::clopper_pearson_lower, gate::tests::Random};

    fn rows(random: &mut Random, n: usize, weights: [f64; 2], ta: f64) -> Vec<(f64, bool)> {
        (0..n)
            .map(|_| {
                let weight = weights[usize::from(random.uniform() < 0.5)];
                (weight, random.uniform() < ta)
            })
            .collect()
    }

    /// The replication is exact: on rows of equal weight, on average it gives
    /// away nothing against the exact bound.
    #[test]
    fn equal_weights_give_the_exact_bound() {
        let mut random = Random(1);
        for (n, ta, delta) in [
            (20, 0.9, 0.2),
            (50, 1.0, 0.05),
            (100, 0.95, 0.05),
            (400, 0.97, 0.01),
            (1600, 0.9, 0.1),
        ] {
            let (mut exact, mut betting) = (0.0, 0.0);
            for _ in 0..30 {
                let rows = rows(&mut random, n, [3.0; 2], ta);
                let right = rows.iter().filter(|r| r.1).count() as u64;
                exact += clopper_pearson_lower(right, n as u64, delta) / 30.0;
                betting += betting_lower(&rows, 3.0, delta) / 30.0;
            }
            // Between the steps of the exact test the order of the rows decides, which
            // a test without chance cannot use: it may come out a little higher.
            assert!(
                betting > exact - 5e-4 && betting < exact + 0.01,
                "n {n} TA {ta} δ {delta}: betting {betting}, exact {exact}"
            );
        }
    }

    /// Only ratios of weights and cap matter, at any scale.
    #[test]
    fn scale_does_not_matter() {
        let mut random = Random(2);
        let base = rows(&mut random, 300, [1.0, 4.0], 0.95);
        let expected = betting_lower(&base, 5.0, 0.05);
        assert!(expected > 0.85 && expected < 0.97, "{expected}");
        for scale in [1e-100, 1e-6, 7.0, 1e100] {
            let scaled: Vec<_> = base.iter().map(|&(w, a)| (w * scale, a)).collect();
            let bound = betting_lower(&scaled, 5.0 * scale, 0.05);
            assert!(
                (bound - expected).abs() < 1e-4,
                "{scale}: {bound}, {expected}"
            );
        }
        // Even where squares vanish or overflow, it is a number and no higher.
        for scale in [1e-300, 1e200] {
            let scaled: Vec<_> = base.iter().map(|&(w, a)| (w * scale, a)).collect();
            let bound = betting_lower(&scaled, 5.0 * scale, 0.05);
            assert!((0.0..0.97).contains(&bound), "{scale}: {bound}");
        }
    }

    /// Above the cap: an agreeing row counts with the cap, a disagreeing one undoes
    /// the bound.
    #[test]
    fn weights_above_the_cap_never_raise_the_bound() {
        let mut rows = vec![(1.0, true); 200];
        let expected = betting_lower(&rows, 1.0, 0.05);
        rows[100].0 = 50.0;
        assert!(betting_lower(&rows, 1.0, 0.05) <= expected + 1e-5);
        rows[100].1 = false;
        assert_eq!(betting_lower(&rows, 1.0, 0.05), 0.0);
        assert_eq!(betting_lower(&[], 1.0, 0.05), 0.0);
        assert_eq!(betting_lower(&[(0.0, true)], 1.0, 0.05), 0.0);
    }

    /// The bound is found by bisection: what is refuted is refuted below it as well,
    /// but for a sliver near the bound itself.
    #[test]
    fn what_lies_below_the_bound_is_refuted() {
        let mut random = Random(3);
        for n in [60, 300] {
            for _ in 0..20 {
                let rows = rows(&mut random, n, [1.0, 4.6], 0.96);
                let bound = betting_lower(&rows, 4.6, 0.05);
                for step in 1..50 {
                    let alpha = bound * (1.0 - f64::from(step) / 50.0);
                    assert!(
                        betting_refutes(&rows, 4.6, alpha, 0.05),
                        "{alpha} < {bound}"
                    );
                }
            }
        }
    }
}
