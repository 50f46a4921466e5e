//! The best cut of a node's rows along one column.

use super::bins::BINS;
use crate::model::random::Random;

/// A cut of a column: bins up to `bin` go left. The next bin with rows of the node
/// comes after `gap`, so a threshold between the upper ends of the two parts them as
/// well.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    pub(super) bin: u8,
    pub(super) gap: u8,
    /// Σ of the sides' squared class weights over their weights: the larger, the purer.
    pub(super) purity: f64,
}

/// The rows of the node at hand, side by side, with the classes that occur in it
/// numbered from 0.
#[derive(Default)]
pub(super) struct Local {
    pub(super) labels: Vec<u16>,
    pub(super) weights: Vec<f32>,
    /// Class of a local number.
    pub(super) classes: Vec<u32>,
    /// Weight by local class.
    pub(super) totals: Vec<f64>,
    pub(super) total: f64,
    /// Σ totals².
    pub(super) squares: f64,
    /// Local number + 1 by class, 0 for a class not met yet.
    pub(super) numbers: Vec<u32>,
    pub(super) left: Vec<f64>,
    /// Bins of the columns at hand, column by column.
    pub(super) bins: Vec<u8>,
    pub(super) order: Vec<u32>,
}

impl Local {
    /// Takes up the rows of a node.
    pub(super) fn load(&mut self, rows: &[u32], labels: &[u32], weights: &[f32]) {
        self.labels.clear();
        self.weights.clear();
        self.classes.clear();
        self.totals.clear();
        for &row in rows {
            let (label, weight) = (labels[row as usize], weights[row as usize]);
            let number = &mut self.numbers[label as usize];
            if *number == 0 {
                self.classes.push(label);
                self.totals.push(0.0);
                *number = self.classes.len() as u32;
            }
            let local = *number - 1;
            self.labels.push(local as u16);
            self.weights.push(weight);
            self.totals[local as usize] += f64::from(weight);
        }
        for &class in &self.classes {
            self.numbers[class as usize] = 0;
        }
        self.total = self.totals.iter().sum();
        self.squares = self.totals.iter().map(|t| t * t).sum();
        self.left.resize(self.totals.len(), 0.0);
    }

    /// The best cut of a column.
    pub(super) fn best_cut(&mut self, bins: &[u8], min_leaf: usize) -> Option<Cut> {
        // Sort by bin, by counting. A bit for each bin with rows spares small nodes
        // the walk over all bins.
        let mut ends = [0_u32; BINS];
        let mut occupied = 0_u64;
        for &bin in bins {
            ends[usize::from(bin) % BINS] += 1;
            occupied |= 1 << (usize::from(bin) % BINS);
        }
        let mut sum = 0;
        for bin in bits(occupied) {
            sum += ends[bin];
            ends[bin] = sum - ends[bin];
        }
        self.order.resize(bins.len(), 0);
        for (i, &bin) in bins.iter().enumerate() {
            let at = &mut ends[usize::from(bin) % BINS];
            self.order[*at as usize] = i as u32;
            *at += 1;
        }
        self.left.fill(0.0);
        let (mut left_squares, mut right_squares, mut left) = (0.0, self.squares, 0.0);
        let n = self.order.len();
        let mut best: Option<Cut> = None;
        let mut open_gap = false;
        let mut begin = 0;
        for bin in bits(occupied) {
            let end = ends[bin] as usize;
            if let Some(best) = best.as_mut().filter(|_| open_gap) {
                best.gap = bin as u8 - 1;
                open_gap = false;
            }
            if end == n {
                break;
            }
            for &i in &self.order[begin..end] {
                let class = usize::from(self.labels[i as usize]);
                let weight = f64::from(self.weights[i as usize]);
                let before = self.left[class];
                let rest = self.totals[class] - before;
                left_squares += weight * (2.0 * before + weight);
                right_squares += weight * (weight - 2.0 * rest);
                self.left[class] = before + weight;
                left += weight;
            }
            begin = end;
            if end >= min_leaf && n - end >= min_leaf {
                let purity = left_squares / left + right_squares / (self.total - left);
                if best.is_none_or(|b| purity > b.purity) {
                    let bin = bin as u8;
                    best = Some(Cut {
                        bin,
                        gap: bin,
                        purity,
                    });
                    open_gap = true;
                }
            }
        }
        best
    }

    /// One random cut of a column between the least and the largest of its bins.
    pub(super) fn random_cut(
        &mut self,
        bins: &[u8],
        min_leaf: usize,
        random: &mut Random,
    ) -> Option<Cut> {
        let (mut low, mut high) = (u8::MAX, 0);
        for &bin in bins {
            low = low.min(bin);
            high = high.max(bin);
        }
        if low >= high {
            return None;
        }
        let cut = low + random.below(usize::from(high - low)) as u8;
        self.left.fill(0.0);
        let mut count = 0;
        for ((&bin, &label), &weight) in bins.iter().zip(&self.labels).zip(&self.weights) {
            let is_left = bin <= cut;
            count += usize::from(is_left);
            self.left[usize::from(label)] += if is_left { f64::from(weight) } else { 0.0 };
        }
        if count < min_leaf || bins.len() - count < min_leaf {
            return None;
        }
        let (mut left, mut left_squares, mut right_squares) = (0.0, 0.0, 0.0);
        for (l, total) in self.left.iter().zip(&self.totals) {
            left += l;
            left_squares += l * l;
            right_squares += (total - l) * (total - l);
        }
        Some(Cut {
            bin: cut,
            gap: cut,
            purity: left_squares / left + right_squares / (self.total - left),
        })
    }
}

/// The positions of the bits that are set, rising.
fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros() as usize;
        (word != 0).then(|| {
            word &= word - 1;
            bit
        })
    })
}
