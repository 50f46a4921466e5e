//! Watching the live agreement without looking too often.

use serde::{Deserialize, Serialize};

use super::special::ln_gamma;

/// Both parameters of the beta distribution that the lower bound mixes over: Jeffreys's.
const PRIOR: f64 = 0.5;

/// Ratios of the odds of disagreement that the alternatives stand for.
const ODDS: [f64; 6] = [1.25, 1.5, 2.0, 3.0, 6.0, 12.0];

/// An e-process against "the live agreement is at least α", fed one audit at a time.
///
/// While the hypothesis holds, the e-value ever reaches 1/δ with probability at most
/// δ, over an unlimited number of audits and however often it is looked at (Ville).
/// It is a mixture of likelihood ratios: over how far the agreement has fallen, and
/// over when the fall began, so that a long good past does not have to be paid back
/// before a fall shows. The start `s` has the prior weight T(s) − T(s+1), with
/// T(s) = 1 / log₂(s + 1). (Ramdas et al., "Game-theoretic statistics and safe
/// anytime-valid inference", Statistical Science 38, 2023; Shin et al., "E-detectors",
/// 2023.)
///
/// Audits must be drawn from the handled requests with equal probability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgreementMonitor {
    target: f64,
    delta: f64,
    /// For each alternative, the wealth of all starts so far.
    wealth: [f64; ODDS.len()],
    audits: u64,
    agreements: u64,
    highest: f64,
}

impl AgreementMonitor {
    /// A monitor of `target` = α at false-alarm probability `delta`, both in (0, 1).
    pub fn new(target: f64, delta: f64) -> Self {
        assert!(
            target > 0.0 && target < 1.0 && delta > 0.0 && delta < 1.0,
            "α {target}, δ {delta}"
        );
        Self {
            target,
            delta,
            wealth: [0.0; ODDS.len()],
            audits: 0,
            agreements: 0,
            highest: 1.0,
        }
    }

    /// Takes in one audit; says whether the hypothesis is refuted by now.
    pub fn observe(&mut self, agrees: bool) -> bool {
        self.audits += 1;
        self.agreements += u64::from(agrees);
        let bad = 1.0 - self.target;
        let begins = (unstarted(self.audits) - unstarted(self.audits + 1)) / ODDS.len() as f64;
        for (wealth, ratio) in self.wealth.iter_mut().zip(ODDS) {
            let odds = bad / self.target * ratio;
            let worse = odds / (1.0 + odds);
            let factor = if agrees {
                (1.0 - worse) / self.target
            } else {
                worse / bad
            };
            // Beyond any use, and short of infinity.
            *wealth = ((*wealth + begins) * factor).min(1e200);
        }
        self.highest = self.highest.max(self.e_value());
        self.refuted()
    }

    /// The evidence now: its expectation is at most 1 while the agreement is at least α.
    pub fn e_value(&self) -> f64 {
        self.wealth.iter().sum::<f64>() + unstarted(self.audits + 1)
    }

    /// Whether the e-value has ever reached 1/δ. Once true it stays so.
    pub fn refuted(&self) -> bool {
        self.highest >= 1.0 / self.delta
    }

    /// The evidence that there ever was, in units of what refutes: 1 or more is a refutation.
    pub fn evidence(&self) -> f64 {
        self.highest * self.delta
    }

    /// A lower bound of the agreement, as far as that stays the same: with probability
    /// 1 − δ it is never above it, over an unlimited number of audits and however often it
    /// is looked at. 0 before the first audit.
    ///
    /// The likelihood of the audits mixed over Jeffreys's prior, over that under the true
    /// agreement, is a nonnegative martingale; what it has not refuted is the confidence
    /// sequence (Robbins, "Statistical methods related to the law of the iterated
    /// logarithm", Annals of Mathematical Statistics 41, 1970). Of audits whose agreement
    /// changes on the way it bounds nothing: [`Self::refuted`] is what finds a fall.
    pub fn agreement_lower(&self) -> f64 {
        let (n, right) = (self.audits as f64, self.agreements as f64);
        let wrong = n - right;
        let beta = |a: f64, b: f64| ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b);
        let mixture = beta(PRIOR + right, PRIOR + wrong) - beta(PRIOR, PRIOR);
        let refuted = |p: f64| {
            let wrong_at_p = if wrong > 0.0 {
                wrong * (-p).ln_1p()
            } else {
                0.0
            };
            mixture - right * p.ln() - wrong_at_p >= -self.delta.ln()
        };
        // What is refuted below the share of agreements ends where the bound is.
        let (mut lower, mut upper) = (0.0, if n > 0.0 { right / n } else { 0.0 });
        for _ in 0..60 {
            let middle = 0.5 * (lower + upper);
            if refuted(middle) {
                lower = middle;
            } else {
                upper = middle;
            }
        }
        lower
    }

    /// Audits seen.
    pub fn audits(&self) -> u64 {
        self.audits
    }

    /// How many of them agree.
    pub fn agreements(&self) -> u64 {
        self.agreements
    }

    /// Share of the audits that agree; `None` before the first.
    pub fn agreement(&self) -> Option<f64> {
        (self.audits > 0).then(|| self.agreements as f64 / self.audits as f64)
    }
}

/// Prior weight of the falls that begin at audit `from` (1, 2, …) or later.
fn unstarted(from: u64) -> f64 {
    1.0 / ((from + 1) as f64).log2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::tests::Random;

    /// Audits until refuted, at most `limit`.
    fn delay(monitor: &mut AgreementMonitor, random: &mut Random, ta: f64, limit: u64) -> u64 {
        (1..=limit)
            .find(|_| monitor.observe(random.uniform() < ta))
            .unwrap_or(u64::MAX)
    }

    #[test]
    fn false_alarms_are_at_most_delta_over_ten_thousand_audits() {
        let mut random = Random(11);
        for (target, delta) in [(0.95, 0.05), (0.9, 0.2), (0.98, 0.01)] {
            let runs = 1000;
            let alarms = (0..runs)
                .filter(|_| {
                    let mut monitor = AgreementMonitor::new(target, delta);
                    delay(&mut monitor, &mut random, target, 10_000) != u64::MAX
                })
                .count();
            let allowed = delta * f64::from(runs);
            let slack = 3.0 * (allowed * (1.0 - delta)).sqrt();
            assert!(
                alarms as f64 <= allowed + slack,
                "{target} {delta}: {alarms}"
            );
        }
    }

    /// However often it is looked at, the lower bound is above the agreement in at most
    /// δ of all runs; and it comes close.
    #[test]
    fn the_lower_bound_holds_at_all_times_together() {
        let mut random = Random(17);
        for (ta, delta) in [(0.95, 0.05), (0.8, 0.2), (0.99, 0.05)] {
            let runs = 400;
            let (mut violated, mut last) = (0, 0.0);
            for _ in 0..runs {
                let mut monitor = AgreementMonitor::new(0.5, delta);
                let mut above = false;
                for _ in 0..3000 {
                    monitor.observe(random.uniform() < ta);
                    above |= monitor.agreement_lower() > ta;
                }
                violated += u32::from(above);
                last += monitor.agreement_lower() / f64::from(runs);
            }
            let allowed = delta * f64::from(runs);
            let slack = 3.0 * (allowed * (1.0 - delta)).sqrt();
            assert!(
                f64::from(violated) <= allowed + slack,
                "{ta} {delta}: {violated} of {runs}"
            );
            // At 3,000 audits of just that share it is 3.5 to 4.7 standard deviations below.
            let near = 5.0 * (ta * (1.0 - ta) / 3000.0).sqrt();
            assert!(last > ta - near && last < ta, "{ta} {delta}: {last}");
        }
    }

    /// The test above can fail: a bound for one look is above the agreement far more often.
    #[test]
    fn a_bound_for_one_look_does_not_hold_at_all_times() {
        let mut random = Random(18);
        let runs = 200;
        let violated = (0..runs).filter(|_| {
            let mut right = 0;
            (1..=3000_u64).any(|n| {
                right += u64::from(random.uniform() < 0.95);
                n % 50 == 0 && crate::clopper_pearson_lower(right, n, 0.05) > 0.95
            })
        });
        assert!(violated.count() > 30);
    }

    #[test]
    fn the_lower_bound_at_its_ends() {
        let mut monitor = AgreementMonitor::new(0.9, 0.05);
        assert_eq!(monitor.agreement_lower(), 0.0);
        monitor.observe(false);
        assert!(monitor.agreement_lower() < 1e-9);
        let mut monitor = AgreementMonitor::new(0.9, 0.05);
        let mut before = 0.0;
        for n in 1..=1000 {
            monitor.observe(true);
            let lower = monitor.agreement_lower();
            assert!(lower > before && lower < 1.0, "{n}: {lower}");
            before = lower;
        }
        // B(1000.5, 0.5) / B(0.5, 0.5) · p⁻¹⁰⁰⁰ = 20, solved with scipy.
        assert!((before - 0.993_002_5).abs() < 1e-6, "{before}");
    }

    /// The false-alarm test can fail: the naive monitor, an exact test at level δ
    /// after every hundredth audit, raises far more alarms than δ allows.
    #[test]
    fn repeated_looks_without_an_e_process_raise_too_many() {
        let mut random = Random(12);
        let runs = 300;
        let alarms = (0..runs)
            .filter(|_| {
                let mut right = 0;
                (1..=10_000_u64).any(|n| {
                    right += u64::from(random.uniform() < 0.95);
                    n % 100 == 0 && crate::clopper_pearson_upper(right, n, 0.05) < 0.95
                })
            })
            .count();
        assert!(
            alarms as f64 > 2.0 * 0.05 * f64::from(runs),
            "{alarms} of {runs}"
        );
    }

    /// A fall of five points shows within a bounded number of audits, at once and
    /// after a long good time.
    #[test]
    fn a_fall_is_found() {
        let mut random = Random(13);
        for (past, limit) in [(0, 600), (5000, 1500)] {
            let mut delays: Vec<u64> = (0..200)
                .map(|_| {
                    let mut monitor = AgreementMonitor::new(0.95, 0.05);
                    // Of a past that ends without a false alarm.
                    while monitor.audits() < past {
                        if monitor.observe(random.uniform() < 0.96) {
                            monitor = AgreementMonitor::new(0.95, 0.05);
                        }
                    }
                    delay(&mut monitor, &mut random, 0.9, 20_000)
                })
                .collect();
            delays.sort_unstable();
            println!(
                "TA 0.95 - 0.05 after {past} audits at 0.96: median delay {}, 90 % {}",
                delays[100], delays[180]
            );
            assert!(delays[100] < limit, "after {past}: {}", delays[100]);
        }
    }

    #[test]
    fn survives_extremes_and_serialization() {
        let mut monitor = AgreementMonitor::new(0.999, 1e-9);
        for _ in 0..5000 {
            monitor.observe(false);
        }
        assert!(monitor.refuted() && monitor.e_value().is_finite());
        for _ in 0..100_000 {
            monitor.observe(true);
        }
        assert!(monitor.refuted(), "refuted is for good");
        let json = serde_json::to_string(&monitor).unwrap();
        assert_eq!(
            serde_json::from_str::<AgreementMonitor>(&json).unwrap(),
            monitor
        );
    }
}
