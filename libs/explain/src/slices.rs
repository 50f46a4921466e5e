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
    /// Those the pipeline handles.
    pub handled: usize,
    /// Handled rows on which surrogate and teacher agree, as a share; absent when none is handled.
    pub agreement: Option<f64>,
    /// Exact lower bound of that share at the gate's confidence, for this slice alone.
    pub agreement_lower: Option<f64>,
}

/// One slice for each label of the shadow split, the most deferred rows first.
pub fn label_slices(data: &Dataset, rows: &[ShadowRow], delta: f64) -> Vec<LabelSlice> {
    let mut counts: BTreeMap<&str, (usize, usize, usize)> = BTreeMap::new();
    for row in rows {
        let label = &data.label_names()[data.label(row.row) as usize];
        let (n, handled, right) = counts.entry(label).or_default();
        *n += 1;
        *handled += usize::from(row.handled);
        *right += usize::from(row.handled && row.agrees);
    }
    let mut slices: Vec<LabelSlice> = counts
        .into_iter()
        .map(|(label, (n, handled, right))| LabelSlice {
            label: label.to_owned(),
            n,
            handled,
            agreement: (handled > 0).then(|| right as f64 / handled as f64),
            agreement_lower: (handled > 0)
                .then(|| clopper_pearson_lower(right as u64, handled as u64, delta)),
        })
        .collect();
    slices.sort_by_key(|s| std::cmp::Reverse(s.n - s.handled));
    slices
}
