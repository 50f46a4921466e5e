//! Which surrogates compete: the finalists and the blends of up to three of them.

use ndarray::Array2;
use rayon::prelude::*;

use super::cross_fit::{CrossFitted, Training};
use crate::{
    confidence::top_of_row,
    score::{Scores, scores},
};

/// Components of a blend at the most: what a route costs grows with them.
const LARGEST_BLEND: usize = 3;
/// So much macro-F1 below the best, a surrogate still competes on coverage.
const CLOSE: f64 = 0.005;
/// Surrogates that compete on coverage at the most.
const COMPETITORS: usize = 4;

/// One surrogate in the contest: finalists by index, one or several.
#[derive(Clone, Debug)]
pub(crate) struct Contender {
    pub(crate) members: Vec<usize>,
    pub(crate) scores: Scores,
}

impl Contender {
    pub(crate) fn name(&self, fitted: &[CrossFitted]) -> String {
        let names: Vec<&str> = self
            .members
            .iter()
            .map(|&m| fitted[m].candidate.kind.name)
            .collect();
        names.join("+")
    }
}

/// All contenders, the best macro-F1 first; of equals the one of fewer components.
pub(crate) fn contenders(training: &Training<'_>, fitted: &[CrossFitted]) -> Vec<Contender> {
    let mut all: Vec<Contender> = blends(fitted.len())
        .into_par_iter()
        .map(|members| {
            let mean = mean_of(fitted, &members);
            let predicted: Vec<u32> = mean.rows().into_iter().map(top_of_row).collect();
            Contender {
                scores: scores(
                    &training.labels,
                    &predicted,
                    training.weights.as_deref(),
                    training.classes,
                ),
                members,
            }
        })
        .collect();
    all.sort_by(|a, b| {
        b.scores
            .macro_f1
            .total_cmp(&a.scores.macro_f1)
            .then(a.members.len().cmp(&b.members.len()))
            .then(a.members.cmp(&b.members))
    });
    all
}

/// Those close enough to the best for their coverage to decide.
pub(crate) fn competitors(contenders: &[Contender]) -> &[Contender] {
    let best = contenders.first().map_or(0.0, |c| c.scores.macro_f1);
    let close = contenders
        .iter()
        .take(COMPETITORS)
        .take_while(|c| c.scores.macro_f1 >= best - CLOSE)
        .count();
    &contenders[..close]
}

/// The mean class probabilities of some of the finalists, out of fold.
pub(crate) fn mean_of(fitted: &[CrossFitted], members: &[usize]) -> Array2<f32> {
    let mut mean = fitted[members[0]].probabilities.clone();
    for &member in &members[1..] {
        mean += &fitted[member].probabilities;
    }
    if members.len() > 1 {
        mean *= 1.0 / members.len() as f32;
    }
    mean
}

/// All sets of one to three of `n`, ascending.
fn blends(n: usize) -> Vec<Vec<usize>> {
    let mut sets: Vec<Vec<usize>> = (0..n).map(|i| vec![i]).collect();
    let mut begin = 0;
    for _ in 1..LARGEST_BLEND {
        let end = sets.len();
        for i in begin..end {
            let last = sets[i][sets[i].len() - 1];
            for next in last + 1..n {
                let mut set = sets[i].clone();
                set.push(next);
                sets.push(set);
            }
        }
        begin = end;
    }
    sets
}

#[cfg(test)]
mod tests {
    use super::blends;

    #[test]
    fn every_blend_once() {
        assert_eq!(blends(0).len(), 0);
        assert_eq!(blends(1), [[0]]);
        let four = blends(4);
        assert_eq!(four.len(), 4 + 6 + 4);
        assert!(four.contains(&vec![0, 2, 3]));
    }
}
