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
//! exactly 1/δ or nothing. So he plays towards that payoff: δ times his wealth is
//! read as the probability that a driftless walk over the remaining rows ends
//! above the mark, and he stakes the slope of that probability, as one who hedges
//! a digital option. For rows of equal weight the target of this play is the exact
//! binomial test itself, so the bound comes close to Clopper–Pearson. A stake that
//! is recalculated from the wealth needs no luck with the moments it is guessed
//! from: they are those of the rows already shown.

use super::special::{normal_density, normal_quantile};

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

    /// Variance and third moment of Z if its mean were 0, and the weights of rows
    /// that agree and of rows that do not stay what they were.
    fn of_z(&self, alpha: f64, cap: f64) -> (f64, f64) {
        let mean = if self.rows > 0.0 {
            self.sum / self.rows
        } else {
            cap
        };
        let all = self.good_squares + self.bad_squares;
        let typical = if self.sum > 0.0 { all / self.sum } else { cap };
        // The weight that counts, Σw²/Σw; a few rows of the typical weight stand in
        // for the disagreements nobody has seen yet.
        let prior = PRIOR_ROWS * mean;
        let good = (self.good_squares + prior * typical) / (self.good + prior);
        let bad = (self.bad_squares + prior * typical) / (self.bad + prior);
        let beta = 1.0 - alpha;
        let variance = mean * alpha * beta * (alpha * bad + beta * good);
        let third = mean * alpha * beta * (beta * beta * good * good - alpha * alpha * bad * bad);
        (variance, third)
    }
}

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
    let most = 1.0 / (cap * alpha);
    let mut seen = Moments::default();
    // δ times the wealth: 1 is the mark.
    let mut wealth = delta;
    for (shown, &(weight, agrees)) in rows.iter().enumerate() {
        let remaining = (rows.len() - shown) as f64;
        let (variance, third) = seen.of_z(alpha, cap);
        let deviation = (variance * remaining).sqrt();
        let skewness = third / (variance * deviation);
        let z = normal_quantile(wealth / AIM);
        // The slope of the payoff's price, with the skewness by Cornish and Fisher.
        let bend = (1.0 - skewness * z / 3.0).max(0.1);
        let stake = normal_density(z) / (deviation * bend);
        let lambda = (stake / wealth).min(most);
        let weight = if agrees {
            weight.min(cap)
        } else if weight > cap * (1.0 + 1e-9) {
            return false;
        } else {
            weight
        };
        let outcome = if agrees { 1.0 - alpha } else { -alpha };
        wealth *= 1.0 + lambda * weight * outcome;
        if wealth >= 1.0 {
            return true;
        }
        if wealth < 1e-300 {
            return false;
        }
        seen.add(weight, agrees);
    }
    false
}

/// The lower bound of the weighted agreement at confidence 1 − `delta`: the largest
/// α that the rows refute as an upper limit, to 1e-6.
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
    let (mut sum, mut right) = (0.0, 0.0);
    for &(weight, agrees) in rows {
        sum += weight;
        if agrees {
            right += weight;
        }
    }
    if right <= 0.0 {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, f64::min(1.0, right / sum + 1e-9));
    while high - low > 1e-6 {
        let middle = 0.5 * (low + high);
        if betting_refutes(rows, cap, middle, delta) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}
