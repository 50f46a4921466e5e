//! Several policies, one shadow split, one δ.

use super::{ACCEPT_ALL, Curve, Gate, GateStats, NOTHING, Scored, Sequence};
use crate::{
    bounds::{normal_distribution, normal_quantile},
    config::GateMode,
};

/// One policy's scores and outcomes on the two sets of rows.
#[derive(Clone, Copy, Debug)]
pub struct Policy<'a> {
    /// Out of fold, on the rows trained on.
    pub out_of_fold: &'a [Scored],
    /// On the shadow split, which must have had no part in making the policy.
    pub shadow: &'a [Scored],
}

/// The outcome of a choice among policies.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Index of the policy that was walked.
    pub policy: usize,
    /// The threshold to serve; after a refusal the first one tried.
    pub threshold: f32,
    /// Whether it may serve, or why it may not.
    pub verdict: Result<(), String>,
    /// Shadow statistics of the policy at the threshold.
    pub stats: GateStats,
}

/// A policy must promise this much more coverage than one listed before it.
const WORTH_SWITCHING: f64 = 1e-3;

impl Gate {
    /// Certifies one of `policies`, listed by preference: of those that promise the
    /// same coverage the first is taken. An empty list is refused.
    ///
    /// Out-of-fold rows alone decide which policy is walked and along which
    /// thresholds, so what is tested on the shadow split is one sequence fixed
    /// beforehand, and δ holds for the whole choice, whatever the number of
    /// policies. The others are not tried, not even after a refusal: a sequence
    /// tested at full δ ends at its first failure, so a second policy could only be
    /// walked on a δ of its own, taken from the first. That costs more than it
    /// brings, since out-of-fold rows are several times as many as the shadow's and
    /// tell well enough which policy is better, while the same shadow rows would
    /// judge the second policy much as they did the first. (Simulated, two acceptors
    /// of one surrogate, 400 and 1,600 shadow rows, α 0.95 and 0.98: the choice loses
    /// at most 0.001 of mean coverage against always walking the better one; walking
    /// both at δ/2 loses 0.004 to 0.017.)
    pub fn choose(&self, policies: &[Policy<'_>]) -> Choice {
        let mut best: Option<(usize, f64, Sequence)> = None;
        for (index, policy) in policies.iter().enumerate() {
            let curve = self.curve(policy.out_of_fold);
            let sequence = self.sequence(&curve, policy.shadow.len());
            let promised = self.promised(&curve, &sequence, policy.shadow.len());
            if best
                .as_ref()
                .is_none_or(|(_, most, _)| promised > most + WORTH_SWITCHING)
            {
                best = Some((index, promised, sequence));
            }
        }
        let Some((policy, _, sequence)) = best else {
            return Choice {
                policy: 0,
                threshold: NOTHING,
                verdict: Err("there is no policy to certify".into()),
                stats: GateStats::default(),
            };
        };
        let walk = self.walk(&sequence, policies[policy].shadow);
        Choice {
            policy,
            threshold: walk.threshold,
            verdict: walk.verdict,
            stats: walk.stats,
        }
    }

    /// The coverage that a policy may be expected to certify on a shadow split of
    /// `shadow` rows, by its out-of-fold rows.
    pub fn expected_coverage(&self, out_of_fold: &[Scored], shadow: usize) -> f64 {
        let curve = self.curve(out_of_fold);
        let sequence = self.sequence(&curve, shadow);
        self.promised(&curve, &sequence, shadow)
    }

    /// The same where everything is to be handled or nothing.
    pub fn expected_coverage_of_all(&self, out_of_fold: &[Scored], shadow: usize) -> f64 {
        let sequence = Sequence {
            opening: None,
            thresholds: vec![ACCEPT_ALL],
        };
        self.promised(&self.curve(out_of_fold), &sequence, shadow)
    }

    /// The coverage a walk may be expected to certify: the gain of each step times
    /// the probability, by the normal approximation, that the step passes.
    fn promised(&self, curve: &Curve, sequence: &Sequence, shadow: usize) -> f64 {
        let needed = match self.mode {
            GateMode::Bound => normal_quantile(1.0 - self.delta.clamp(1e-12, 1.0 - 1e-12)),
            GateMode::Point => 0.0,
        };
        let (mut before, mut passes) = sequence.opening.map_or((0.0, 1.0), |opening| {
            let coverage = opening.handled as f64 / shadow.max(1) as f64;
            (coverage, opening.passes)
        });
        let mut promised = before * passes;
        for &threshold in &sequence.thresholds {
            let coverage = curve.coverage(threshold);
            if coverage <= before {
                continue;
            }
            let slack = self.slack(curve, threshold, shadow);
            // A walk gets no further than its weakest step.
            passes = passes.min(normal_distribution(slack - needed));
            promised += (coverage - before) * passes;
            before = coverage;
        }
        promised
    }
}
