//! Slice summaries: what is handled of each of the teacher's labels, and how well.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tracer_learn::{Dataset, ShadowRow, clopper_pearson_lower};

/// The shadow rows of one teacher label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelSlice {
    /// The teacher's label.
    pub label: String,
    /// Shadow rows with it.
    pub n: usize,
    /// How many rows of the traffic they stand for.
    pub weight: f64,
    /// Those the pipeline handles.
    pub handled: usize,
    /// Their share of the slice, by weight.
    pub handled_share: f64,
    /// Handled rows on which surrogate and teacher agree, as a share by weight; absent
    /// when none is handled.
    pub agreement: Option<f64>,
    /// Exact lower bound of that share at the gate's confidence, for this slice alone.
    /// Absent when none is handled, and where rows are weighted.
    pub agreement_lower: Option<f64>,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    n: usize,
    handled: usize,
    right: usize,
    weight: f64,
    handled_weight: f64,
    right_weight: f64,
}

/// One slice for each label of the shadow split, the most deferred rows first.
pub fn label_slices(data: &Dataset, rows: &[ShadowRow], delta: f64) -> Vec<LabelSlice> {
    let mut counts: BTreeMap<&str, Sums> = BTreeMap::new();
    for row in rows {
        let label = &data.label_names()[data.label(row.row) as usize];
        let sums = counts.entry(label).or_default();
        let weight = data.weight(row.row);
        sums.n += 1;
        sums.weight += weight;
        if row.handled {
            sums.handled += 1;
            sums.handled_weight += weight;
            if row.agrees {
                sums.right += 1;
                sums.right_weight += weight;
            }
        }
    }
    let exact = !data.is_weighted();
    let mut slices: Vec<LabelSlice> = counts
        .into_iter()
        .map(|(label, sums)| LabelSlice {
            label: label.to_owned(),
            n: sums.n,
            weight: sums.weight,
            handled: sums.handled,
            handled_share: sums.handled_weight / sums.weight,
            agreement: (sums.handled > 0).then(|| sums.right_weight / sums.handled_weight),
            agreement_lower: (sums.handled > 0 && exact)
                .then(|| clopper_pearson_lower(sums.right as u64, sums.handled as u64, delta)),
        })
        .collect();
    let deferred = |slice: &LabelSlice| (1.0 - slice.handled_share) * slice.weight;
    slices.sort_by(|a, b| deferred(b).total_cmp(&deferred(a)));
    slices
}
