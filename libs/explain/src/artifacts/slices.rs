//! Slice summaries: what is handled of each label and each length, and how well.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tracer_learn::clopper_pearson_interval;

use super::held_out::{HeldOut, Seen, name};

/// Groups of lengths, at the most.
const LENGTHS: usize = 5;

/// A part of the shadow split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Slice {
    /// What its traces share: the teacher's label, or a range of lengths.
    #[serde(alias = "label")]
    pub name: String,
    /// Shadow traces in it.
    pub n: usize,
    /// How many traces of the traffic they stand for.
    pub weight: f64,
    /// Those the pipeline handles; after a refusal none.
    pub handled: usize,
    /// Their share of the slice, by weight.
    pub handled_share: f64,
    /// Handled traces on which surrogate and teacher agree, as a share by weight; absent
    /// when none is handled.
    pub agreement: Option<f64>,
    /// Exact two-sided interval of that share at confidence 1 − δ, for this slice alone.
    /// Absent when none is handled, and where traces are weighted.
    #[serde(default)]
    pub agreement_interval: Option<[f64; 2]>,
    /// Traces on which the two agree, handled or not, as a share by weight: what the
    /// surrogate is worth here if nothing is deferred.
    #[serde(default)]
    pub surrogate_agreement: f64,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    n: usize,
    handled: usize,
    right: usize,
    weight: f64,
    handled_weight: f64,
    right_weight: f64,
    all_right_weight: f64,
}

impl Sums {
    fn add(&mut self, seen: &Seen) {
        self.n += 1;
        self.weight += seen.weight;
        if seen.agrees {
            self.all_right_weight += seen.weight;
        }
        if seen.handled {
            self.handled += 1;
            self.handled_weight += seen.weight;
            if seen.agrees {
                self.right += 1;
                self.right_weight += seen.weight;
            }
        }
    }

    fn slice(self, name: String, exact: bool, delta: f64) -> Slice {
        let any = self.handled > 0;
        let (right, handled) = (self.right as u64, self.handled as u64);
        Slice {
            name,
            n: self.n,
            weight: self.weight,
            handled: self.handled,
            handled_share: self.handled_weight / self.weight,
            agreement: any.then(|| self.right_weight / self.handled_weight),
            agreement_interval: (any && exact)
                .then(|| clopper_pearson_interval(right, handled, delta).into()),
            surrogate_agreement: self.all_right_weight / self.weight,
        }
    }
}

/// One slice for each label of the shadow split, the most deferred traces first.
pub(crate) fn label_slices(held: &HeldOut<'_>, delta: f64) -> Vec<Slice> {
    let mut sums: BTreeMap<&str, Sums> = BTreeMap::new();
    for seen in &held.rows {
        sums.entry(held.label(seen)).or_default().add(seen);
    }
    let exact = !held.data.is_weighted();
    let mut slices: Vec<Slice> = sums
        .into_iter()
        .map(|(label, sums)| sums.slice(name(label), exact, delta))
        .collect();
    let deferred = |slice: &Slice| (1.0 - slice.handled_share) * slice.weight;
    slices.sort_by(|a, b| deferred(b).total_cmp(&deferred(a)));
    slices
}

/// Slices of about equal size by the length of the text in characters, the shortest
/// first. Empty where texts are not known.
pub(crate) fn length_slices(held: &HeldOut<'_>, delta: f64) -> Vec<Slice> {
    let bins = Lengths::of(held);
    let mut sums = vec![Sums::default(); bins.ends.len()];
    for seen in &held.rows {
        if let Some(bin) = bins.bin(held, seen) {
            sums[bin].add(seen);
        }
    }
    let exact = !held.data.is_weighted();
    sums.into_iter()
        .enumerate()
        .filter(|(_, sums)| sums.n > 0)
        .map(|(bin, sums)| sums.slice(bins.name(bin), exact, delta))
        .collect()
}

/// Ranges of lengths.
pub(crate) struct Lengths {
    /// The greatest length of each, ascending; the last is the longest there is.
    ends: Vec<usize>,
}

impl Lengths {
    pub(crate) fn of(held: &HeldOut<'_>) -> Self {
        let mut lengths: Vec<usize> = held
            .rows
            .iter()
            .filter_map(|seen| Some(held.text(seen)?.chars().count()))
            .collect();
        lengths.sort_unstable();
        let end = |k: usize| lengths.get((k * lengths.len()).div_ceil(LENGTHS).checked_sub(1)?);
        let mut ends: Vec<usize> = (1..=LENGTHS).filter_map(end).copied().collect();
        ends.dedup();
        Self { ends }
    }

    pub(crate) fn bin(&self, held: &HeldOut<'_>, seen: &Seen) -> Option<usize> {
        let length = held.text(seen)?.chars().count();
        let bin = self.ends.partition_point(|&end| end < length);
        (bin < self.ends.len()).then_some(bin)
    }

    pub(crate) fn name(&self, bin: usize) -> String {
        let end = self.ends[bin];
        match bin.checked_sub(1).map(|before| self.ends[before] + 1) {
            None => format!("up to {end} characters"),
            Some(start) if start == end => format!("{end} characters"),
            Some(start) => format!("{start} to {end} characters"),
        }
    }
}
