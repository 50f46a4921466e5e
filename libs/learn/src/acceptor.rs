//! The model of "will the surrogate agree with the teacher?".

use linfa::{DatasetBase, traits::Fit};
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

use crate::{
    confidence::{Cue, Reliability},
    design::Design,
    logistic::{Logistic, LogisticParams},
};

/// A logistic regression on standardised cues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Acceptor {
    pub(crate) cues: Vec<Cue>,
    mean: Vec<f64>,
    scale: Vec<f64>,
    weights: Vec<f64>,
    intercept: f64,
    pub(crate) reliability: Reliability,
}

/// Strength of the ridge on the acceptor's weights, in rows.
const RIDGE: f64 = 1.0;

impl Acceptor {
    /// Fits on out-of-fold predictions: a row of cues each, and whether the
    /// surrogate agreed. Where it always or never agreed there is nothing to
    /// fit, and the score is that constant.
    pub(crate) fn fit(
        cues: &[Cue],
        rows: &Array2<f64>,
        agrees: &[bool],
        row_weights: Option<&[f32]>,
        reliability: Reliability,
    ) -> Result<Self, String> {
        let k = cues.len();
        let weight = |i: usize| row_weights.map_or(1.0, |w| f64::from(w[i]));
        let n: f64 = (0..rows.nrows())
            .map(weight)
            .sum::<f64>()
            .max(f64::MIN_POSITIVE);
        let mut mean = vec![0.0; k];
        let mut scale = vec![0.0; k];
        for (j, column) in rows.columns().into_iter().enumerate() {
            let sum = |f: &dyn Fn(f64) -> f64| {
                column
                    .iter()
                    .enumerate()
                    .map(|(i, &x)| weight(i) * f(x))
                    .sum::<f64>()
                    / n
            };
            mean[j] = sum(&|x| x);
            let variance = sum(&|x| (x - mean[j]).powi(2));
            if variance > 1e-12 {
                scale[j] = variance.sqrt().recip();
            }
        }
        let mut acceptor = Self {
            cues: cues.to_vec(),
            mean,
            scale,
            weights: vec![0.0; k],
            intercept: 0.0,
            reliability,
        };
        let right = agrees.iter().filter(|a| **a).count();
        if right == 0 || right == agrees.len() {
            acceptor.intercept = if right == 0 { -10.0 } else { 10.0 };
            // The order of the scores still follows the top probability.
            for (weight, cue) in acceptor.weights.iter_mut().zip(cues) {
                *weight = f64::from(u8::from(*cue == Cue::Top1));
            }
            return Ok(acceptor);
        }
        let mut x = rows.clone();
        for mut row in x.rows_mut() {
            for ((x, mean), scale) in row.iter_mut().zip(&acceptor.mean).zip(&acceptor.scale) {
                *x = (*x - mean) * scale;
            }
        }
        match row_weights {
            None => acceptor.fit_unweighted(x, agrees)?,
            Some(weights) => acceptor.fit_weighted(&x, agrees, weights),
        }
        if !acceptor.is_sound() {
            return Err("the acceptor's weights are not finite".into());
        }
        Ok(acceptor)
    }

    fn fit_unweighted(&mut self, x: Array2<f64>, agrees: &[bool]) -> Result<(), String> {
        let y: Array1<bool> = agrees.to_vec().into();
        let fitted = LogisticRegression::default()
            .alpha(RIDGE)
            .max_iterations(200)
            .gradient_tolerance(1e-4)
            .fit(&DatasetBase::new(x, y))
            .map_err(|e| format!("the acceptor could not be fitted: {e}"))?;
        // linfa names the class that its positive scores mean; make it "agrees".
        let sign = if fitted.labels().pos.class { 1.0 } else { -1.0 };
        for (w, p) in self.weights.iter_mut().zip(fitted.params()) {
            *w = sign * p;
        }
        self.intercept = sign * fitted.intercept();
        Ok(())
    }

    /// linfa's regression takes no weights: the surrogate's own solver, with two classes.
    fn fit_weighted(&mut self, x: &Array2<f64>, agrees: &[bool], weights: &[f32]) {
        let x = x.mapv(|v| v as f32);
        let labels: Vec<u32> = agrees.iter().map(|&a| u32::from(a)).collect();
        let params = LogisticParams {
            // Two opposite weight vectors carry half of the difference each: the sum
            // of their squares is half the square of the difference.
            c: 0.5 / RIDGE,
            max_iterations: 200,
            tolerance: 1e-7,
        };
        let design = Design::Dense(x.view());
        let model = Logistic::fit(design, &labels, Some(weights), 2, params, None);
        let stride = model.intercepts().len();
        for (w, row) in self
            .weights
            .iter_mut()
            .zip(model.weights().chunks_exact(stride))
        {
            *w = f64::from(row[1] - row[0]);
        }
        self.intercept = f64::from(model.intercepts()[1] - model.intercepts()[0]);
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
        let k = self.cues.len();
        [&self.mean, &self.scale, &self.weights]
            .iter()
            .all(|part| part.len() == k && part.iter().all(|v| v.is_finite()))
            && self.intercept.is_finite()
            && self.reliability.is_sound()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows whose chance of agreement is their first cue.
    fn rows() -> (Array2<f64>, Vec<bool>) {
        let x = Array2::from_shape_fn((400, 4), |(i, j)| {
            let p = i as f64 / 400.0;
            [p, 0.0, p, 1.0 - p][j]
        });
        (x, (0..400).map(|i| (i * 7919 % 400) < i).collect())
    }

    fn reliability() -> Reliability {
        Reliability::fit(1, std::iter::empty())
    }

    #[test]
    fn scores_rise_with_the_chance_of_agreement() {
        let (rows, agrees) = rows();
        let fit = |agrees: &[bool]| {
            Acceptor::fit(&Cue::PAPER, &rows, agrees, None, reliability()).unwrap()
        };
        let acceptor = fit(&agrees);
        let score = |p: f64| acceptor.score(&[p, 0.0, p, 1.0 - p]);
        assert!(
            score(0.9) > 0.7 && score(0.1) < 0.3,
            "{} {}",
            score(0.9),
            score(0.1)
        );
        assert!(fit(&[true; 400]).score(&[0.0, 0.0, 0.0, 1.0]) > 0.9);
        assert!(fit(&[false; 400]).score(&[1.0, 0.0, 1.0, 0.0]) < 0.1);
    }

    #[test]
    fn equal_weights_give_the_unweighted_fit_and_weights_count_as_copies() {
        let (rows, agrees) = rows();
        let fit = |rows: &Array2<f64>, agrees: &[bool], weights: Option<&[f32]>| {
            Acceptor::fit(&Cue::PAPER, rows, agrees, weights, reliability()).unwrap()
        };
        let plain = fit(&rows, &agrees, None);
        let weighted = fit(&rows, &agrees, Some(&[1.0; 400]));
        for p in [0.1, 0.5, 0.9] {
            let cues = [p, 0.0, p, 1.0 - p];
            let (a, b) = (plain.score(&cues), weighted.score(&cues));
            assert!((a - b).abs() < 2e-3, "{p}: {a} {b}");
        }
        // Disagreements that count three times lower every score.
        let weights: Vec<f32> = agrees.iter().map(|&a| if a { 1.0 } else { 3.0 }).collect();
        let lower = fit(&rows, &agrees, Some(&weights));
        assert!(lower.score(&[0.5, 0.0, 0.5, 0.5]) < plain.score(&[0.5, 0.0, 0.5, 0.5]) - 0.1);
    }
}
