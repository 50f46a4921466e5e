//! Temporal deltas: what this version does otherwise than the one before, both asked the
//! same rows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tracer_learn::{Decision, Pipeline, Scratch};

use super::held_out::{Example, HeldOut, name};

/// Labels and examples of each kind that are listed, at the most.
const LABELS: usize = 300;
const EXAMPLES: usize = 5;

/// The version that served before.
#[derive(Clone, Copy, Debug)]
pub struct Previous<'a> {
    /// Its number.
    pub version: u64,
    /// Its pipeline.
    pub pipeline: &'a Pipeline,
    /// Whether it stands on the vectors of another embedder than these rows have: they mean
    /// nothing to it, even where they have as many values.
    pub other_embedder: bool,
}

/// What changed since the previous version, on this refit's shadow split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Changes {
    /// The previous version's number.
    pub version: u64,
    /// The target it was certified at.
    pub target_agreement: f64,
    /// Shadow traces that both were asked.
    pub n: usize,
    /// What the previous version does on them.
    pub before: Standing,
    /// What this one does.
    pub now: Standing,
    /// Traces that this version handles and the previous one defers.
    pub newly_handled: usize,
    /// The other way round.
    pub newly_deferred: usize,
    /// Traces that both handle, with different labels.
    pub changed_label: usize,
    /// By label, those whose share moved most first; those that did not move are left out.
    pub labels: Vec<LabelChange>,
    /// Some newly handled traces: those that disagree first, then those of the highest score.
    pub newly_handled_examples: Vec<Example>,
    /// Some newly deferred ones.
    pub newly_deferred_examples: Vec<Example>,
    /// Some of changed label. `predicted` is this version's.
    pub changed_label_examples: Vec<Example>,
}

/// What a version does on some traces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Standing {
    /// The share it handles, by weight.
    pub coverage: f64,
    /// The share of these on which it agrees with the teacher; absent when it handles none.
    pub agreement: Option<f64>,
}

/// What changed for one label of the teacher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LabelChange {
    /// The label.
    pub label: String,
    /// Shadow traces with it.
    pub n: usize,
    /// The previous version.
    pub before: Standing,
    /// This one.
    pub now: Standing,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    weight: f64,
    handled: f64,
    right: f64,
}

impl Sums {
    fn add(&mut self, weight: f64, handled: bool, right: bool) {
        self.weight += weight;
        if handled {
            self.handled += weight;
            if right {
                self.right += weight;
            }
        }
    }

    fn standing(self) -> Standing {
        Standing {
            coverage: self.handled / self.weight.max(f64::MIN_POSITIVE),
            agreement: (self.handled > 0.0).then(|| self.right / self.handled),
        }
    }
}

/// Asks the previous version the shadow split of this refit, of which it must not have
/// seen anything ([`Pipeline::has_not_seen`]). The error says why it cannot be asked.
pub(crate) fn changes(held: &HeldOut<'_>, previous: Previous<'_>) -> Result<Changes, String> {
    let Previous {
        version, pipeline, ..
    } = previous;
    let mut scratch = Scratch::default();
    let (mut all, mut by_label) = (
        <[Sums; 2]>::default(),
        BTreeMap::<u32, (usize, [Sums; 2])>::new(),
    );
    let (mut handled, mut deferred, mut relabelled) = (Vec::new(), Vec::new(), Vec::new());
    for (i, seen) in held.rows.iter().enumerate() {
        let decision = pipeline
            .decide_row(held.data, seen.row, &mut scratch)
            .map_err(|error| error.to_string())?;
        let (was_handled, label) = match decision {
            Decision::Handled { label, .. } => (true, pipeline.labels().get(label)),
            Decision::Deferred { .. } => (false, None),
        };
        let folded = |label: &str| tracer_features::normalise(label);
        let was = label.map(|label| folded(label));
        let right = was.as_ref() == Some(&folded(held.label(seen)));
        let (n, of_label) = by_label.entry(seen.label).or_default();
        *n += 1;
        for sums in [&mut all, of_label] {
            sums[0].add(seen.weight, was_handled, right);
            sums[1].add(seen.weight, seen.handled, seen.agrees);
        }
        match (was_handled, seen.handled) {
            (false, true) => handled.push(i),
            (true, false) => deferred.push(i),
            (true, true) if was != Some(folded(held.predicted(seen))) => relabelled.push(i),
            _ => {}
        }
    }
    let [before, now] = all.map(Sums::standing);
    let mut labels: Vec<LabelChange> = by_label
        .into_iter()
        .map(|(label, (n, sums))| {
            let [before, now] = sums.map(Sums::standing);
            LabelChange {
                label: name(&held.data.label_names()[label as usize]),
                n,
                before,
                now,
            }
        })
        .filter(|change| change.before != change.now)
        .collect();
    let moved = |change: &LabelChange| {
        (change.now.coverage - change.before.coverage).abs() * change.n as f64
    };
    labels.sort_by(|a, b| {
        moved(b)
            .total_cmp(&moved(a))
            .then_with(|| a.label.cmp(&b.label))
    });
    labels.truncate(LABELS);
    Ok(Changes {
        version,
        target_agreement: pipeline.card().target_agreement,
        n: held.rows.len(),
        before,
        now,
        newly_handled: handled.len(),
        newly_deferred: deferred.len(),
        changed_label: relabelled.len(),
        labels,
        newly_handled_examples: examples(held, handled),
        newly_deferred_examples: examples(held, deferred),
        changed_label_examples: examples(held, relabelled),
    })
}

fn examples(held: &HeldOut<'_>, mut rows: Vec<usize>) -> Vec<Example> {
    rows.sort_by(|&a, &b| {
        let (a, b) = (&held.rows[a], &held.rows[b]);
        a.agrees.cmp(&b.agrees).then(b.score.total_cmp(&a.score))
    });
    rows.truncate(EXAMPLES);
    rows.into_iter().map(|i| held.example(i)).collect()
}
