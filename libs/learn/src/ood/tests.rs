//! Synthetic tasks: classes are noisy directions, the logits a linear model's, the
//! texts' novelty low.

use ndarray::{Array2, ArrayView2};

use super::*;

/// Numbers that depend on the seed alone.
struct Draws(u64);

impl Draws {
    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1_u64 << 24) as f32
    }

    /// Near enough to normal.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }
}

struct Task {
    classes: usize,
    dimension: usize,
    /// classes × dimension.
    means: Array2<f32>,
}

struct Rows {
    embeddings: Array2<f32>,
    novelty: Vec<Novelty>,
    logits: [Array2<f32>; 2],
    labels: Vec<u32>,
    folds: Vec<usize>,
}

impl Task {
    fn new(classes: usize, dimension: usize) -> Self {
        let mut draws = Draws(1);
        let means = Array2::from_shape_simple_fn((classes, dimension), || draws.normal());
        Self {
            classes,
            dimension,
            means,
        }
    }

    /// Rows around the classes' means, or around means that no class has.
    fn rows(&self, n: usize, foreign: bool, seed: u64) -> Rows {
        let mut draws = Draws(seed);
        let strangers = Self::new(self.classes + 5, self.dimension).means;
        let mut embeddings = Array2::zeros((n, self.dimension));
        let mut labels = Vec::new();
        for (i, mut row) in embeddings.outer_iter_mut().enumerate() {
            let label = i % self.classes;
            labels.push(label as u32);
            let mean = if foreign {
                strangers.row(self.classes + i % 5)
            } else {
                self.means.row(label)
            };
            for (x, m) in row.iter_mut().zip(mean) {
                *x = m + 0.7 * draws.normal();
            }
        }
        // The second component sees the same through noise.
        let logits = embeddings.dot(&self.means.t()) / self.dimension as f32 * 8.0;
        let noisy = logits.mapv(|l| 10.0 * l + 10.0 * draws.normal());
        let novelty = (0..n)
            .map(|_| Novelty {
                known: 100.0 + 20.0 * draws.normal(),
                unknown: if foreign { 2.0 } else { 0.3 } * draws.uniform(),
            })
            .collect();
        Rows {
            embeddings,
            novelty,
            logits: [logits, noisy],
            labels,
            folds: (0..n).map(|i| (i / self.classes) % 5).collect(),
        }
    }
}

/// Which features a pipeline stands on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Dense,
    Text,
    Both,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Dense, Self::Text, Self::Both];

    fn components(self) -> std::ops::Range<usize> {
        match self {
            Self::Dense => 0..1,
            Self::Text => 1..2,
            Self::Both => 0..2,
        }
    }
}

fn fit(rows: &Rows, kind: Kind, classes: usize, budget: f64) -> Result<Guard, GuardError> {
    let logits: Vec<ArrayView2<'_, f32>> = rows.logits[kind.components()]
        .iter()
        .map(Array2::view)
        .collect();
    let likeness = (kind != Kind::Text).then(|| likeness(rows, classes));
    Guard::fit(
        &Reference {
            likeness: likeness.as_ref(),
            novelty: (kind != Kind::Dense).then_some(&rows.novelty),
            logits: &logits,
            labels: &rows.labels,
            folds: &rows.folds,
            classes,
            weights: None,
        },
        budget,
    )
    .map(|(guard, _)| guard)
}

fn likeness(rows: &Rows, classes: usize) -> Likeness {
    Likeness::fit(rows.embeddings.view(), &rows.labels, &rows.folds, classes).unwrap()
}

/// The share of rows the guard defers.
fn deferred(guard: &Guard, rows: &Rows, kind: Kind) -> f64 {
    let mut scratch = GuardScratch::default();
    let foreign = (0..rows.labels.len()).filter(|&i| {
        let logits: Vec<Vec<f32>> = rows.logits[kind.components()]
            .iter()
            .map(|l| l.row(i).to_vec())
            .collect();
        let logits: Vec<&[f32]> = logits.iter().map(Vec::as_slice).collect();
        let embedding = rows.embeddings.row(i).to_vec();
        let signals = Signals {
            embedding: (kind != Kind::Text).then_some(&embedding),
            novelty: (kind != Kind::Dense).then_some(rows.novelty[i]),
            logits: &logits,
        };
        guard.is_foreign(guard.score(&signals, &mut scratch))
    });
    foreign.count() as f64 / rows.labels.len() as f64
}

/// Fresh rows of the same kind are deferred within the budget, up to four standard
/// errors of both samples, and not by far less: with 20 rows a class a fifth more of
/// them makes a difference. Rows of classes never seen nearly all are deferred.
#[test]
fn keeps_its_budget_and_finds_the_planted_strangers() {
    for (classes, dimension) in [(2, 24), (20, 40), (300, 64)] {
        let task = Task::new(classes, dimension);
        let (train, fresh) = (task.rows(6000, false, 2), task.rows(6000, false, 3));
        let strangers = task.rows(500, true, 4);
        for kind in Kind::ALL {
            for budget in [0.01, 0.03, 0.1] {
                let guard = fit(&train, kind, classes, budget).unwrap();
                let error = (budget * (1.0 - budget) * (2.0 / 6000.0)).sqrt();
                let share = deferred(&guard, &fresh, kind);
                assert!(
                    share < budget + 4.0 * error && share > 0.6 * budget - 4.0 * error,
                    "{classes} {kind:?}: {share} at a budget of {budget}"
                );
            }
            let guard = fit(&train, kind, classes, 0.05).unwrap();
            let found = deferred(&guard, &strangers, kind);
            let least = match kind {
                Kind::Text => 0.5, // the logits are noisy
                _ => 0.95,
            };
            assert!(found > least, "{classes} {kind:?}: {found} found");
        }
    }
}

/// A class the classifier lumps in with another: the logits are as sure as ever, and
/// the embedding alone gives it away.
#[test]
fn sees_what_the_logits_do_not() {
    let task = Task::new(10, 32);
    let train = task.rows(3000, false, 2);
    let guard = fit(&train, Kind::Dense, 10, 0.02).unwrap();
    let known = task.rows(500, false, 3);
    let mut strangers = task.rows(500, true, 4);
    strangers.logits = known.logits.clone();
    let found = deferred(&guard, &strangers, Kind::Dense);
    assert!(found > 0.9, "{found}");
}

/// Models fitted on all rows have larger logits than those of the folds; with their
/// growth known the budget is used, without it hardly.
#[test]
fn growth_puts_the_logits_of_the_folds_on_the_scale_of_those_that_serve() {
    let task = Task::new(10, 32);
    let (mut train, fresh) = (task.rows(6000, false, 2), task.rows(6000, false, 3));
    let served = train.logits[0].clone();
    train.logits[0] *= 0.9;
    let growth = growth(served.view(), train.logits[0].view());
    assert!((growth - 1.0 / 0.9).abs() < 1e-4, "{growth}");
    let share = |growth: Option<f32>| {
        let mut guard = fit(&train, Kind::Dense, 10, 0.05).unwrap();
        if let Some(growth) = growth {
            guard.allow_for(&[growth]);
        }
        deferred(&guard, &fresh, Kind::Dense)
    };
    let error = (0.05_f64 * 0.95 * (2.0 / 6000.0)).sqrt();
    let (with, without) = (share(Some(growth)), share(None));
    assert!((with - 0.05).abs() < 4.0 * error, "{with}");
    assert!(without < with - 0.01, "{without} {with}");

    let nothing = Array2::<f32>::zeros((3, 2));
    assert_eq!(super::growth(nothing.view(), nothing.view()), 1.0);
    assert_eq!(super::growth(served.view(), (&served * 0.1).view()), 1.25);
}

#[test]
fn the_same_rows_give_the_same_guard_whatever_the_threads() {
    let task = Task::new(30, 48);
    let train = task.rows(2000, false, 2);
    let with = |threads: usize| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
            .install(|| fit(&train, Kind::Both, 30, 0.02).unwrap())
    };
    assert_eq!(with(1), with(4));
}

/// A row that stands for three is three rows.
#[test]
fn weights_count_as_rows_do() {
    let task = Task::new(4, 16);
    let mut rows = task.rows(400, false, 2);
    let logits = [rows.logits[0].view()];
    let weights: Vec<f64> = (0..400).map(|i| f64::from(1 + 2 * (i % 2))).collect();
    let weighted = Guard::fit(
        &Reference {
            likeness: None,
            novelty: None,
            logits: &logits,
            labels: &rows.labels,
            folds: &rows.folds,
            classes: 4,
            weights: Some(&weights),
        },
        0.1,
    )
    .unwrap()
    .0;
    let repeated: Vec<usize> = (0..400)
        .flat_map(|i| std::iter::repeat_n(i, 1 + 2 * (i % 2)))
        .collect();
    rows.logits[0] = rows.logits[0].select(ndarray::Axis(0), &repeated);
    let logits = [rows.logits[0].view()];
    let plain = Guard::fit(
        &Reference {
            likeness: None,
            novelty: None,
            logits: &logits,
            labels: &repeated.iter().map(|&i| rows.labels[i]).collect::<Vec<_>>(),
            folds: &repeated.iter().map(|&i| rows.folds[i]).collect::<Vec<_>>(),
            classes: 4,
            weights: None,
        },
        0.1,
    )
    .unwrap()
    .0;
    let (a, b) = (weighted.chosen.threshold, plain.chosen.threshold);
    assert!((a.unwrap() - b.unwrap()).abs() < 1e-4, "{a:?} {b:?}");
}

#[test]
fn a_budget_of_nothing_is_off_and_larger_budgets_defer_more() {
    let task = Task::new(5, 16);
    let train = task.rows(1000, false, 2);
    let guard = fit(&train, Kind::Both, 5, 0.0).unwrap();
    assert_eq!(deferred(&guard, &task.rows(200, true, 3), Kind::Both), 0.0);
    assert_eq!(guard.chosen.threshold, None);
    let thresholds: Vec<f32> = guard.sweep().iter().filter_map(|p| p.threshold).collect();
    assert_eq!(thresholds.len(), SWEEP.len() - 1);
    assert!(
        thresholds.is_sorted_by(|a, b| a >= b) && thresholds[0] > thresholds[4],
        "{thresholds:?}"
    );
    for budget in [-0.1, 1.0, f64::NAN] {
        assert!(matches!(
            fit(&train, Kind::Both, 5, budget),
            Err(GuardError::Budget(_))
        ));
    }
}

/// One point over and over, one row a class, embeddings without direction: none is
/// foreign to itself, and nothing breaks.
#[test]
fn degenerate_tasks_are_no_trouble() {
    let task = Task::new(3, 8);
    let mut same = task.rows(60, false, 2);
    same.embeddings.fill(0.5);
    same.novelty.fill(Novelty::default());
    for logits in &mut same.logits {
        logits.fill(1.0);
    }
    let mut zero = task.rows(60, false, 2);
    zero.embeddings.fill(0.0);
    let alone = Task::new(40, 8).rows(40, false, 2);
    for (rows, classes) in [(&same, 3), (&zero, 3), (&alone, 40)] {
        for kind in Kind::ALL {
            let guard = fit(rows, kind, classes, 0.05).unwrap();
            let share = deferred(&guard, rows, kind);
            // Rows the guard has seen are no stranger than rows it has not.
            assert!(share <= 0.05 + 1e-9, "{classes} {kind:?}: {share}");
        }
    }
    // A varied task, asked about an embedding without direction and a text without n-grams.
    let task = Task::new(10, 32);
    let guard = fit(&task.rows(3000, false, 2), Kind::Both, 10, 0.02).unwrap();
    let mut nothing = task.rows(50, false, 3);
    nothing.embeddings.fill(0.0);
    nothing.novelty.fill(Novelty::default());
    assert_eq!(deferred(&guard, &nothing, Kind::Both), 1.0);
}

#[test]
fn signals_of_another_shape_are_foreign() {
    let task = Task::new(4, 8);
    let guard = fit(&task.rows(400, false, 2), Kind::Both, 4, 0.02).unwrap();
    let mut scratch = GuardScratch::default();
    let (short, long) = ([1.0_f32; 3], [9.0_f32, 0.0, 0.0, 0.0]);
    let novelty = Some(Novelty {
        known: 1.0,
        unknown: 0.0,
    });
    let x = [1.0_f32; 8];
    let mut score = |embedding, novelty, logits: &[&[f32]]| {
        let signals = Signals {
            embedding,
            novelty,
            logits,
        };
        guard.score(&signals, &mut scratch)
    };
    let both: [&[f32]; 2] = [&long, &long];
    assert!(score(Some(&x), novelty, &both).is_finite());
    assert_eq!(score(None, novelty, &both), f32::INFINITY);
    assert_eq!(score(Some(&x[1..]), novelty, &both), f32::INFINITY);
    assert_eq!(score(Some(&x), None, &both), f32::INFINITY);
    assert_eq!(score(Some(&x), novelty, &[]), f32::INFINITY);
    assert_eq!(score(Some(&x), novelty, &[&long, &short]), f32::INFINITY);
    let nan = [f32::NAN; 4];
    assert_eq!(score(Some(&x), novelty, &[&nan, &long]), f32::INFINITY);
}

#[test]
fn a_reference_that_does_not_fit_is_refused() {
    let task = Task::new(3, 8);
    let rows = task.rows(30, false, 2);
    let logits = [rows.logits[0].view()];
    let likeness = likeness(&rows, 3);
    let good = Reference {
        likeness: Some(&likeness),
        novelty: Some(&rows.novelty),
        logits: &logits,
        labels: &rows.labels,
        folds: &rows.folds,
        classes: 3,
        weights: None,
    };
    assert_eq!(Guard::fit(&good, 0.1).unwrap().1.len(), 30);
    let bad = [
        Reference { classes: 2, ..good },
        Reference { classes: 4, ..good },
        Reference {
            logits: &[],
            ..good
        },
        Reference {
            labels: &rows.labels[1..],
            ..good
        },
        Reference {
            labels: &[],
            folds: &[],
            ..good
        },
        Reference {
            folds: &rows.folds[1..],
            ..good
        },
        Reference {
            novelty: Some(&rows.novelty[1..]),
            ..good
        },
        Reference {
            weights: Some(&[0.0; 30]),
            ..good
        },
        Reference {
            weights: Some(&[1.0; 29]),
            ..good
        },
    ];
    for (i, bad) in bad.iter().enumerate() {
        assert!(
            matches!(Guard::fit(bad, 0.1), Err(GuardError::Shape(_))),
            "case {i}"
        );
    }
    let mut embeddings = rows.embeddings.clone();
    embeddings[[7, 2]] = f32::NAN;
    assert_eq!(
        Likeness::fit(embeddings.view(), &rows.labels, &rows.folds, 3).err(),
        Some(GuardError::NotFinite {
            row: 7,
            what: "an embedding"
        })
    );
    let shape = |labels: &[u32], folds: &[usize], classes| {
        let fitted = Likeness::fit(rows.embeddings.view(), labels, folds, classes);
        matches!(fitted, Err(GuardError::Shape(_)))
    };
    assert!(shape(&rows.labels[1..], &rows.folds, 3));
    assert!(shape(&rows.labels, &rows.folds[1..], 3));
    assert!(shape(&rows.labels, &rows.folds, 2));
}

/// What befalls a header, and what befalls the tensors.
type Damage = fn(&mut serde_json::Value);
type Cut = fn(&mut Vec<u32>, &mut Vec<i8>);

/// Takes a guard apart and puts it together again, damaged on the way.
fn reassemble(
    guard: &Guard,
    header: impl FnOnce(&mut serde_json::Value),
    tensors: impl FnOnce(&mut Vec<u32>, &mut Vec<i8>),
) -> Option<Guard> {
    let (parts, stored) = guard.parts();
    let mut json = serde_json::to_value(&parts).unwrap();
    header(&mut json);
    let (mut starts, mut codes) = (stored.starts.to_vec(), stored.codes.to_vec());
    tensors(&mut starts, &mut codes);
    let parts = serde_json::from_value(json).ok()?;
    Guard::from_parts(parts, starts, codes, 4, 2, Some(8), true).ok()
}

#[test]
fn a_stored_guard_comes_back_and_a_damaged_one_does_not() {
    let task = Task::new(4, 8);
    let rows = task.rows(400, false, 2);
    let guard = fit(&rows, Kind::Both, 4, 0.02).unwrap();
    let whole = |_: &mut Vec<u32>, _: &mut Vec<i8>| {};
    assert_eq!(reassemble(&guard, |_| {}, whole), Some(guard.clone()));

    let headers: [Damage; 11] = [
        |h| h["component_scales"] = serde_json::json!([1.0]),
        |h| h["component_scales"] = serde_json::json!([1.0, 1e300]),
        |h| h["fit"]["mean"] = serde_json::json!(1e300),
        |h| h["likeness"]["scale"] = serde_json::Value::Null,
        |h| h["dimension"] = serde_json::json!(4),
        |h| h["dimension"] = serde_json::Value::Null,
        |h| h["novelty"]["unknown"] = serde_json::json!(-1.0),
        |h| h["chosen"]["budget"] = serde_json::json!(1.5),
        |h| h["chosen"]["threshold"] = serde_json::Value::Null,
        |h| h["sweep"][2]["threshold"] = serde_json::json!(1e300),
        |h| h["more"] = serde_json::json!(1),
    ];
    for (i, damage) in headers.into_iter().enumerate() {
        assert_eq!(reassemble(&guard, damage, whole), None, "header {i}");
    }
    let tensors: [Cut; 7] = [
        |starts, _| starts.clear(),
        |starts, _| starts[0] = 1,
        |starts, _| starts.swap(1, 2),
        |starts, _| starts[4] += 1,
        |_, codes| codes.truncate(codes.len() - 1),
        |_, codes| codes.truncate(codes.len() - 8),
        |_, codes| codes[..8].fill(0),
    ];
    for (i, damage) in tensors.into_iter().enumerate() {
        assert_eq!(reassemble(&guard, |_| {}, damage), None, "tensors {i}");
    }
    let put = |classes, components, dimension, text| {
        let (parts, stored) = guard.parts();
        let (starts, codes) = (stored.starts.to_vec(), stored.codes.to_vec());
        Guard::from_parts(parts, starts, codes, classes, components, dimension, text).is_ok()
    };
    assert!(put(4, 2, Some(8), true));
    assert!(!put(5, 2, Some(8), true));
    assert!(!put(4, 3, Some(8), true));
    assert!(!put(4, 2, Some(9), true));
    assert!(!put(4, 2, None, true));
    assert!(!put(4, 2, Some(8), false));

    let text = fit(&rows, Kind::Text, 4, 0.0).unwrap();
    let (parts, stored) = text.parts();
    let put = |starts| Guard::from_parts(parts.clone(), starts, Vec::new(), 4, 1, None, true);
    assert_eq!(put(stored.starts.to_vec()).unwrap(), text);
    assert!(put(vec![0; 5]).is_err());
}
