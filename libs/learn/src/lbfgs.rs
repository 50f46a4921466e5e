//! Preconditioned limited-memory BFGS for smooth convex functions of many f32
//! parameters. (Nocedal and Wright, Numerical Optimization, 2nd ed., algorithm 7.4.)
//!
//! The two-loop recursion is done on inner products: every direction is a
//! combination of the steps s, the preconditioned gradient changes H y and the
//! preconditioned gradient, so that the long vectors are read twice an iteration
//! and not four times. (Chen, Wang and Zhou, Large-scale L-BFGS using `MapReduce`,
//! 2014.) The products are summed up in a fixed order of blocks.

use std::collections::VecDeque;

use pulp::Arch;
use rayon::prelude::*;

use crate::{
    aligned::Aligned,
    objective::CHUNK,
    simd::{add_scaled, dot},
};

/// What is minimised.
pub(crate) trait Problem {
    /// The loss at `x`; leaves the gradient in `gradient`.
    fn evaluate(&mut self, x: &[f32], gradient: &mut [f32]) -> f64;
    /// `out = H · gradient`, with H symmetric, positive definite and near the
    /// inverse of the Hessian but for a factor.
    fn precondition(&self, gradient: &[f32], out: &mut [f32]);
    /// Makes H anew for `x`, where the problem was evaluated last.
    fn refresh(&mut self, x: &[f32]);
}

/// When to stop and how much to remember.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lbfgs {
    /// Pairs of steps and gradient changes kept.
    pub(crate) memory: usize,
    /// Iterations at the most.
    pub(crate) max_iterations: usize,
    /// Stop when the loss falls by less than this share of itself an iteration,
    /// over the last three iterations.
    pub(crate) tolerance: f64,
    /// Iterations after which the preconditioner is made anew, in order.
    pub(crate) refresh: &'static [usize],
}

/// How a search went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Search {
    /// The last loss.
    pub(crate) loss: f64,
    pub(crate) iterations: usize,
    pub(crate) evaluations: usize,
}

/// A step and what it changed.
#[derive(Default)]
struct Pair {
    step: Vec<f32>,
    change: Vec<f32>,
    /// H · change
    scaled: Vec<f32>,
    /// stepᵀ change of this and all later pairs, in their order.
    step_change: Vec<f64>,
    /// scaledᵀ change of this and all later pairs, in their order.
    scaled_change: Vec<f64>,
    /// stepᵀ gradient and scaledᵀ gradient, at the point reached.
    step_gradient: f64,
    scaled_gradient: f64,
}

impl Lbfgs {
    /// Minimises `problem` from `x` on, in place.
    pub(crate) fn minimise(&self, start: &mut [f32], problem: &mut impl Problem) -> Search {
        let arch = Arch::new();
        let n = start.len();
        let mut x = Aligned::zeros(n);
        x.copy_from_slice(start);
        let mut gradient = Aligned::zeros(n);
        let mut loss = problem.evaluate(&x, &mut gradient);
        let mut losses = VecDeque::from([loss]);
        problem.refresh(&x);
        let mut scaled = Aligned::zeros(n);
        problem.precondition(&gradient, &mut scaled);
        let mut gradient_scaled = products(arch, [&gradient], &[&scaled])[0][0];
        let mut pairs: VecDeque<Pair> = VecDeque::with_capacity(self.memory);
        let mut direction = vec![0.0_f32; n];
        let mut candidate = Aligned::zeros(n);
        let mut candidate_gradient = Aligned::zeros(n);
        let mut search = Search {
            loss,
            iterations: 0,
            evaluations: 1,
        };
        while search.iterations < self.max_iterations {
            let mut plan = Plan::new(&pairs, gradient_scaled);
            if !plan.descends() {
                // Rounding spoilt the curvature: begin again with the preconditioner.
                pairs.clear();
                plan = Plan::new(&pairs, gradient_scaled);
                if !plan.descends() {
                    break;
                }
            }
            plan.direction(arch, &pairs, &scaled, &mut direction);
            let mut length = 1.0_f64;
            let mut accepted = None;
            for _ in 0..20 {
                step(&x, &direction, length as f32, &mut candidate);
                let there = problem.evaluate(&candidate, &mut candidate_gradient);
                search.evaluations += 1;
                if there <= loss + 1e-4 * length * plan.slope {
                    accepted = Some(there);
                    break;
                }
                // The minimum of the parabola through what is known, kept in bounds.
                let best =
                    -plan.slope * length * length / (2.0 * (there - loss - plan.slope * length));
                length = if best.is_finite() {
                    best.clamp(0.1 * length, 0.5 * length)
                } else {
                    0.1 * length
                };
            }
            // No step lowers the loss: f32 has nothing left to give.
            let Some(there) = accepted else {
                break;
            };
            search.iterations += 1;
            let mut pair = if pairs.len() == self.memory {
                pairs.pop_front().unwrap_or_default()
            } else {
                Pair::default()
            };
            difference(&candidate, &x, &mut pair.step);
            difference(&candidate_gradient, &gradient, &mut pair.change);
            std::mem::swap(&mut x, &mut candidate);
            std::mem::swap(&mut gradient, &mut candidate_gradient);
            loss = there;
            let fresh = self.refresh.contains(&search.iterations);
            if fresh {
                problem.refresh(&x);
                for pair in &mut pairs {
                    problem.precondition(&pair.change, &mut pair.scaled);
                }
                problem.precondition(&gradient, &mut scaled);
                pair.scaled.resize(n, 0.0);
                problem.precondition(&pair.change, &mut pair.scaled);
            } else {
                // H is linear: the change of the preconditioned gradient is H · change.
                std::mem::swap(&mut scaled, &mut candidate);
                problem.precondition(&gradient, &mut scaled);
                difference(&scaled, &candidate, &mut pair.scaled);
            }
            pairs.push_back(pair);
            gradient_scaled = measure(arch, &mut pairs, &gradient, &scaled, fresh);
            if let Some(last) = pairs.back()
                && !(last.step_change[0] > 0.0 && last.scaled_change[0] > 0.0)
            {
                forget_last(&mut pairs);
            }
            losses.push_back(loss);
            if losses.len() > 4 {
                losses.pop_front();
            }
            let gained = losses[0] - loss;
            if losses.len() == 4 && gained <= 3.0 * self.tolerance * loss.abs() {
                break;
            }
        }
        start.copy_from_slice(&x);
        search.loss = loss;
        search
    }
}

/// Coefficients of a direction and its slope.
struct Plan {
    /// Factor of the preconditioned gradient.
    gradient: f64,
    /// By pair: factor of the step.
    steps: Vec<f64>,
    /// By pair: factor of the scaled change.
    scaled: Vec<f64>,
    slope: f64,
}

impl Plan {
    fn new(pairs: &VecDeque<Pair>, gradient_scaled: f64) -> Self {
        let m = pairs.len();
        let mut alphas = vec![0.0; m];
        for i in (0..m).rev() {
            let mut product = pairs[i].step_gradient;
            for (later, alpha) in alphas[i + 1..].iter().enumerate() {
                product -= alpha * pairs[i].step_change[later + 1];
            }
            alphas[i] = product / pairs[i].step_change[0];
        }
        let factor = pairs
            .back()
            .map_or(1.0, |last| last.step_change[0] / last.scaled_change[0]);
        // scaledᵢᵀ changeⱼ, which is symmetric.
        let between = |i: usize, j: usize| pairs[i.min(j)].scaled_change[i.abs_diff(j)];
        let mut steps = vec![0.0; m];
        for i in 0..m {
            let mut product = pairs[i].scaled_gradient;
            for (j, alpha) in alphas.iter().enumerate() {
                product -= alpha * between(i, j);
            }
            product *= factor;
            for j in 0..i {
                product += steps[j] * pairs[j].step_change[i - j];
            }
            steps[i] = alphas[i] - product / pairs[i].step_change[0];
        }
        let mut slope = factor * gradient_scaled;
        for (i, pair) in pairs.iter().enumerate() {
            slope += steps[i] * pair.step_gradient - factor * alphas[i] * pair.scaled_gradient;
        }
        Self {
            gradient: -factor,
            steps: steps.into_iter().map(|s| -s).collect(),
            scaled: alphas.into_iter().map(|a| a * factor).collect(),
            slope: -slope,
        }
    }

    /// False as well when the slope is no number.
    fn descends(&self) -> bool {
        self.slope < 0.0
    }

    fn direction(&self, arch: Arch, pairs: &VecDeque<Pair>, scaled: &[f32], out: &mut [f32]) {
        out.par_chunks_mut(CHUNK).enumerate().for_each(|(i, out)| {
            let range = i * CHUNK..i * CHUNK + out.len();
            for (o, s) in out.iter_mut().zip(&scaled[range.clone()]) {
                *o = self.gradient as f32 * s;
            }
            for ((pair, &step), &scaled) in pairs.iter().zip(&self.steps).zip(&self.scaled) {
                add_scaled(arch, step as f32, &pair.step[range.clone()], out);
                add_scaled(arch, scaled as f32, &pair.scaled[range.clone()], out);
            }
        });
    }
}

/// Brings the products of all pairs up to date: those with the gradient, those of
/// the last pair and, with `all`, all between scaled changes. Returns
/// gradientᵀ H gradient.
fn measure(
    arch: Arch,
    pairs: &mut VecDeque<Pair>,
    gradient: &[f32],
    scaled: &[f32],
    all: bool,
) -> f64 {
    let m = pairs.len();
    let mut vectors = vec![scaled];
    for pair in &*pairs {
        vectors.extend([pair.step.as_slice(), &pair.scaled]);
    }
    let [of_gradient, of_change] = products(arch, [gradient, &pairs[m - 1].change], &vectors);
    let again: Vec<Vec<f64>> = if all {
        (0..m - 1)
            .map(|j| {
                let older: Vec<&[f32]> = pairs.range(..=j).map(|p| p.scaled.as_slice()).collect();
                let [products] = products(arch, [&pairs[j].change], &older);
                products
            })
            .collect()
    } else {
        Vec::new()
    };
    for (i, pair) in pairs.iter_mut().enumerate() {
        pair.step_gradient = of_gradient[1 + 2 * i];
        pair.scaled_gradient = of_gradient[2 + 2 * i];
        if i == m - 1 {
            pair.step_change.clear();
            pair.scaled_change.clear();
        } else {
            // What is left of an earlier pair of the memory goes.
            pair.step_change.truncate(m - 1 - i);
            pair.scaled_change.truncate(m - 1 - i);
        }
        for (j, products) in again.iter().enumerate().skip(i) {
            pair.scaled_change[j - i] = products[i];
        }
        pair.step_change.push(of_change[1 + 2 * i]);
        pair.scaled_change.push(of_change[2 + 2 * i]);
    }
    of_gradient[0]
}

fn forget_last(pairs: &mut VecDeque<Pair>) {
    pairs.pop_back();
    for pair in pairs {
        pair.step_change.pop();
        pair.scaled_change.pop();
    }
}

/// Dot products of each of `a` with each of `others`, which are read once.
fn products<const N: usize>(arch: Arch, a: [&[f32]; N], others: &[&[f32]]) -> [Vec<f64>; N] {
    let partial: Vec<Vec<[f64; N]>> = (0..a[0].len().div_ceil(CHUNK))
        .into_par_iter()
        .map(|i| {
            let range = i * CHUNK..a[0].len().min((i + 1) * CHUNK);
            others
                .iter()
                .map(|b| a.map(|a| dot(arch, &a[range.clone()], &b[range.clone()])))
                .collect()
        })
        .collect();
    let mut totals = std::array::from_fn(|_| vec![0.0; others.len()]);
    for partial in partial {
        for (i, products) in partial.into_iter().enumerate() {
            for (totals, product) in totals.iter_mut().zip(products) {
                totals[i] += product;
            }
        }
    }
    totals
}

/// `out = x + length · direction`
fn step(x: &[f32], direction: &[f32], length: f32, out: &mut [f32]) {
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(i, out)| {
        let range = i * CHUNK..i * CHUNK + out.len();
        for ((o, x), d) in out.iter_mut().zip(&x[range.clone()]).zip(&direction[range]) {
            *o = x + length * d;
        }
    });
}

/// `out = a − b`
fn difference(a: &[f32], b: &[f32], out: &mut Vec<f32>) {
    out.resize(a.len(), 0.0);
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(i, out)| {
        let range = i * CHUNK..i * CHUNK + out.len();
        for ((o, a), b) in out.iter_mut().zip(&a[range.clone()]).zip(&b[range]) {
            *o = a - b;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ½ Σ scaleᵢ (xᵢ − 1)², with a preconditioner that a refresh makes exact.
    struct Quadratic {
        exact: bool,
        refreshes: usize,
    }

    fn scale(i: usize) -> f32 {
        (i as f32 + 1.0).powi(2) * 0.1
    }

    impl Problem for Quadratic {
        fn evaluate(&mut self, x: &[f32], gradient: &mut [f32]) -> f64 {
            let mut loss = 0.0;
            for (i, (&x, g)) in x.iter().zip(gradient.iter_mut()).enumerate() {
                *g = scale(i) * (x - 1.0);
                loss += f64::from(0.5 * scale(i) * (x - 1.0) * (x - 1.0));
            }
            loss
        }

        fn precondition(&self, gradient: &[f32], out: &mut [f32]) {
            for (i, (g, o)) in gradient.iter().zip(out).enumerate() {
                *o = if self.exact { g / scale(i) } else { g * 0.01 };
            }
        }

        fn refresh(&mut self, _: &[f32]) {
            self.refreshes += 1;
            self.exact = self.refreshes > 1;
        }
    }

    #[test]
    fn finds_the_minimum_of_an_ill_conditioned_quadratic() {
        for (refresh, most) in [(&[][..], 200), (&[4][..], 8)] {
            let lbfgs = Lbfgs {
                memory: 6,
                max_iterations: most,
                tolerance: 0.0,
                refresh,
            };
            let mut problem = Quadratic {
                exact: false,
                refreshes: 0,
            };
            let mut x = vec![5.0_f32; 20];
            let search = lbfgs.minimise(&mut x, &mut problem);
            assert!(x.iter().all(|x| (x - 1.0).abs() < 1e-3), "{search:?} {x:?}");
        }
    }
}
