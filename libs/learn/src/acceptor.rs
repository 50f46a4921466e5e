//! The model of "will the surrogate agree with the teacher?".

use linfa::{DatasetBase, traits::Fit};
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

use crate::confidence::{FEATURES, Reliability};

/// A logistic regression on standardised confidence features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Acceptor {
    mean: [f64; FEATURES],
    scale: [f64; FEATURES],
    weights: [f64; FEATURES],
    intercept: f64,
    pub(crate) reliability: Reliability,
}

impl Acceptor {
    /// Fits on out-of-fold predictions: a row of confidence features each, and
    /// whether the surrogate agreed. Where it always or never agreed there is
    /// nothing to fit, and the score is that constant.
    pub(crate) fn fit(
        rows: &[[f64; FEATURES]],
        agrees: &[bool],
        reliability: Reliability,
    ) -> Result<Self, String> {
        let n = rows.len().max(1) as f64;
        let mut mean = [0.0; FEATURES];
        let mut scale = [1.0; FEATURES];
        for j in 0..FEATURES {
            mean[j] = rows.iter().map(|r| r[j]).sum::<f64>() / n;
            let variance = rows.iter().map(|r| (r[j] - mean[j]).powi(2)).sum::<f64>() / n;
            scale[j] = if variance > 1e-12 {
                variance.sqrt().recip()
            } else {
                0.0
            };
        }
        let right = agrees.iter().filter(|a| **a).count();
        let mut acceptor = Self {
            mean,
            scale,
            weights: [0.0; FEATURES],
            intercept: 0.0,
            reliability,
        };
        if right == 0 || right == agrees.len() {
            acceptor.intercept = if right == 0 { -10.0 } else { 10.0 };
            // The order of the scores still follows the top probability.
            acceptor.weights[0] = 1.0;
            return Ok(acceptor);
        }
        let x = Array2::from_shape_fn((rows.len(), FEATURES), |(i, j)| {
            (rows[i][j] - mean[j]) * scale[j]
        });
        let y: Array1<bool> = agrees.to_vec().into();
        let fitted = LogisticRegression::default()
            .alpha(1.0)
            .max_iterations(200)
            .gradient_tolerance(1e-4)
            .fit(&DatasetBase::new(x, y))
            .map_err(|e| format!("the acceptor could not be fitted: {e}"))?;
        // linfa names the class that its positive scores mean; make it "agrees".
        let sign = if fitted.labels().pos.class { 1.0 } else { -1.0 };
        for (w, p) in acceptor.weights.iter_mut().zip(fitted.params()) {
            *w = sign * p;
        }
        acceptor.intercept = sign * fitted.intercept();
        if !acceptor.is_sound() {
            return Err("the acceptor's weights are not finite".into());
        }
        Ok(acceptor)
    }

    /// The probability of agreement, in [0, 1].
    pub(crate) fn score(&self, features: &[f64]) -> f32 {
        let mut z = self.intercept;
        let standard = features.iter().zip(&self.mean).zip(&self.scale);
        for (((x, mean), scale), weight) in standard.zip(&self.weights) {
            z += weight * (x - mean) * scale;
        }
        (1.0 / (1.0 + (-z).exp())) as f32
    }

    /// Whether every number is usable: asked of stored acceptors.
    pub(crate) fn is_sound(&self) -> bool {
        self.mean
            .iter()
            .chain(&self.scale)
            .chain(&self.weights)
            .chain([&self.intercept])
            .all(|v| v.is_finite())
            && self.reliability.is_sound()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_rise_with_the_chance_of_agreement() {
        let mut rows = Vec::new();
        let mut agrees = Vec::new();
        for i in 0..400 {
            let p = f64::from(i) / 400.0;
            rows.push([p, 0.0, p, 1.0 - p, 0.0, p, 0.5]);
            agrees.push((i * 7919 % 400) < i);
        }
        let reliability = Reliability::fit(1, std::iter::empty());
        let acceptor = Acceptor::fit(&rows, &agrees, reliability.clone()).unwrap();
        let score = |p: f64| acceptor.score(&[p, 0.0, p, 1.0 - p, 0.0, p, 0.5]);
        assert!(
            score(0.9) > 0.7 && score(0.1) < 0.3,
            "{} {}",
            score(0.9),
            score(0.1)
        );

        let always = Acceptor::fit(&rows, &[true; 400], reliability).unwrap();
        assert!(always.score(&rows[0]) > 0.9);
    }
}
