//! The paper's comparator: one multinomial logistic regression on all traces,
//! deferring where its top probability is low, with the threshold that serves the
//! test rows best, chosen with hindsight on the test rows themselves.

use serde::Serialize;
use tracer_features::normalise;
use tracer_learn::{Dataset, FitConfig, LogisticClassifier};
use tracer_trace::Trace;

use super::input;

/// The most coverage that any threshold reaches at a target.
#[derive(Serialize)]
pub(super) struct Baseline {
    pub(super) alpha: f64,
    pub(super) coverage: f64,
    pub(super) agreement: f64,
}

/// The baseline at each target.
pub(super) fn hindsight(data: &Dataset, config: &FitConfig, test: &[Trace]) -> Vec<Baseline> {
    // What no refit can be made of has no baseline either.
    let Ok(model) = LogisticClassifier::fit(data, config) else {
        return Vec::new();
    };
    let mut rows: Vec<(f32, bool)> = test
        .iter()
        .filter_map(|trace| {
            let (label, probability) = model.predict(input(trace))?;
            Some((probability, normalise(label) == normalise(&trace.teacher)))
        })
        .collect();
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    config
        .targets
        .iter()
        .map(|&alpha| best(&rows, test.len(), alpha))
        .collect()
}

/// Rows are (top probability, whether it agrees), descending.
fn best(rows: &[(f32, bool)], test: usize, alpha: f64) -> Baseline {
    let mut best = Baseline {
        alpha,
        coverage: 0.0,
        agreement: 0.0,
    };
    let mut right = 0_usize;
    for (i, (probability, agrees)) in rows.iter().enumerate() {
        right += usize::from(*agrees);
        let agreement = right as f64 / (i + 1) as f64;
        // A threshold takes all rows of one score or none.
        let whole = rows.get(i + 1).is_none_or(|next| next.0 < *probability);
        if whole && agreement >= alpha {
            best.coverage = (i + 1) as f64 / test.max(1) as f64;
            best.agreement = agreement;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::best;

    #[test]
    fn the_most_coverage_that_keeps_the_target() {
        let rows = [
            (0.9, true),
            (0.8, false),
            (0.7, true),
            (0.7, true),
            (0.6, false),
        ];
        let at = |alpha| best(&rows, 10, alpha).coverage;
        assert_eq!(at(0.95), 0.1);
        assert_eq!(at(0.75), 0.4);
        assert_eq!(at(0.5), 0.5);
        assert_eq!(best(&[(0.5, false)], 10, 0.5).coverage, 0.0);
    }
}
