//! Limited-memory BFGS for smooth convex functions of many f32 parameters.
//! (Nocedal and Wright, Numerical Optimization, 2nd ed., algorithms 7.4 and 7.5.)

use std::collections::VecDeque;

use pulp::Arch;

use crate::simd::{add_scaled, dot};

/// When to stop and how much to remember.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lbfgs {
    /// Pairs of steps and gradient changes kept.
    pub(crate) memory: usize,
    /// Iterations at the most.
    pub(crate) max_iterations: usize,
    /// Stop when the largest gradient entry falls below this.
    pub(crate) gradient_tolerance: f32,
    /// Stop when the loss falls by less than this share of itself.
    pub(crate) loss_tolerance: f64,
}

struct Pair {
    step: Vec<f32>,
    change: Vec<f32>,
    /// 1 / (changeᵀ step)
    rho: f64,
}

impl Lbfgs {
    /// Minimises `objective` from `x` on, in place. The objective writes the
    /// gradient and returns the loss. Returns the last loss.
    pub(crate) fn minimise(
        &self,
        x: &mut [f32],
        mut objective: impl FnMut(&[f32], &mut [f32]) -> f64,
    ) -> f64 {
        let arch = Arch::new();
        let n = x.len();
        let mut gradient = vec![0.0_f32; n];
        let mut loss = objective(x, &mut gradient);
        let mut pairs: VecDeque<Pair> = VecDeque::with_capacity(self.memory);
        let mut direction = vec![0.0_f32; n];
        let mut candidate = vec![0.0_f32; n];
        let mut candidate_gradient = vec![0.0_f32; n];
        for _ in 0..self.max_iterations {
            if largest(&gradient) <= self.gradient_tolerance {
                break;
            }
            two_loop(arch, &pairs, &gradient, &mut direction);
            let mut slope = dot(arch, &gradient, &direction);
            if slope >= 0.0 {
                // Rounding spoilt the curvature: begin again with steepest descent.
                pairs.clear();
                two_loop(arch, &pairs, &gradient, &mut direction);
                slope = dot(arch, &gradient, &direction);
            }
            let mut length = if pairs.is_empty() {
                // The first step has no curvature to go by.
                (1.0 / largest(&gradient).max(1e-12)).min(1.0)
            } else {
                1.0
            };
            let mut accepted = None;
            for _ in 0..25 {
                for ((c, &x), &d) in candidate.iter_mut().zip(x.iter()).zip(&direction) {
                    *c = d * length + x;
                }
                let candidate_loss = objective(&candidate, &mut candidate_gradient);
                if candidate_loss <= loss + 1e-4 * f64::from(length) * slope {
                    accepted = Some(candidate_loss);
                    break;
                }
                length *= 0.5;
            }
            // No step lowers the loss: f32 has nothing left to give.
            let Some(candidate_loss) = accepted else {
                break;
            };
            let mut pair = if pairs.len() == self.memory {
                pairs.pop_front().expect("memory is at least one")
            } else {
                Pair {
                    step: vec![0.0; n],
                    change: vec![0.0; n],
                    rho: 0.0,
                }
            };
            for i in 0..n {
                pair.step[i] = candidate[i] - x[i];
                pair.change[i] = candidate_gradient[i] - gradient[i];
            }
            let curvature = dot(arch, &pair.step, &pair.change);
            if curvature > 1e-12 {
                pair.rho = curvature.recip();
                pairs.push_back(pair);
            }
            x.copy_from_slice(&candidate);
            std::mem::swap(&mut gradient, &mut candidate_gradient);
            let gained = loss - candidate_loss;
            loss = candidate_loss;
            if gained <= self.loss_tolerance * loss.abs() {
                break;
            }
        }
        loss
    }
}

/// The two-loop recursion: `direction = -H · gradient`.
fn two_loop(arch: Arch, pairs: &VecDeque<Pair>, gradient: &[f32], direction: &mut [f32]) {
    for (d, g) in direction.iter_mut().zip(gradient) {
        *d = -g;
    }
    let mut alphas = Vec::with_capacity(pairs.len());
    for pair in pairs.iter().rev() {
        let alpha = pair.rho * dot(arch, &pair.step, direction);
        add_scaled(arch, -alpha as f32, &pair.change, direction);
        alphas.push(alpha);
    }
    if let Some(last) = pairs.back() {
        let scale = (1.0 / (last.rho * dot(arch, &last.change, &last.change))) as f32;
        for d in direction.iter_mut() {
            *d *= scale;
        }
    }
    for (pair, alpha) in pairs.iter().zip(alphas.into_iter().rev()) {
        let beta = pair.rho * dot(arch, &pair.change, direction);
        add_scaled(arch, (alpha - beta) as f32, &pair.step, direction);
    }
}

fn largest(x: &[f32]) -> f32 {
    x.iter().fold(0.0_f32, |m, v| m.max(v.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_minimum_of_an_ill_conditioned_quadratic() {
        let lbfgs = Lbfgs {
            memory: 6,
            max_iterations: 200,
            gradient_tolerance: 1e-5,
            loss_tolerance: 0.0,
        };
        let mut x = vec![5.0_f32; 20];
        lbfgs.minimise(&mut x, |x, gradient| {
            let mut loss = 0.0;
            for (i, (&x, g)) in x.iter().zip(gradient.iter_mut()).enumerate() {
                let scale = (i as f32 + 1.0).powi(2) * 0.1;
                *g = scale * (x - 1.0);
                loss += f64::from(0.5 * scale * (x - 1.0) * (x - 1.0));
            }
            loss
        });
        assert!(x.iter().all(|x| (x - 1.0).abs() < 1e-3), "{x:?}");
    }
}
