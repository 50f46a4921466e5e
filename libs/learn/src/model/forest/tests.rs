use ndarray::Axis;
use proptest::prelude::*;

use super::*;
use crate::model::{
    Tensor, TensorData,
    testing::{agreement, apply, damage, noise, octants, with_threads},
};

const KINDS: [ForestKind; 3] = [
    ForestKind::Tree,
    ForestKind::RandomForest,
    ForestKind::ExtraTrees,
];

fn params(kind: ForestKind, trees: usize) -> ForestParams {
    ForestParams {
        kind,
        trees,
        ..ForestParams::default()
    }
}

fn depth(forest: &Forest, tree: usize) -> usize {
    let nodes = &forest.nodes[forest.roots[tree] as usize..forest.roots[tree + 1] as usize];
    let mut depths = vec![0; nodes.len()];
    for (i, node) in nodes.iter().enumerate() {
        if node.feature != LEAF {
            depths[node.next as usize] = depths[i] + 1;
            depths[node.next as usize + 1] = depths[i] + 1;
        }
    }
    depths.into_iter().max().unwrap()
}

/// scikit-learn's are 0.58, 0.80 to 0.86 and 0.76 to 0.78 here (see `octants`).
#[test]
fn as_good_as_scikit_learn() {
    let (x, labels) = octants();
    let (train, test) = x.view().split_at(Axis(0), 2000);
    for (kind, least) in KINDS.into_iter().zip([0.58, 0.79, 0.75]) {
        for seed in 0..2 {
            let params = params(kind, 100);
            let forest = Forest::fit(train, &labels[..2000], None, 8, &params, seed).unwrap();
            let share = agreement(forest.probabilities_batch(test).view(), &labels[2000..]);
            assert!(share >= least, "{kind:?}: {share}");
        }
    }
}

/// A tree found by hand: the first column separates class 0, the second the others.
#[test]
fn the_best_cut_comes_first() {
    let x = ndarray::array![
        [0.0_f32, 5.0],
        [0.0, 1.0],
        [2.0, 1.0],
        [2.0, 1.0],
        [2.0, 7.0]
    ];
    let labels = [0, 0, 1, 1, 2];
    let tree = Forest::fit(x.view(), &labels, None, 3, &params(ForestKind::Tree, 9), 0).unwrap();
    assert_eq!(tree.trees(), 1);
    let node = |feature, threshold, next| Node {
        threshold,
        next,
        feature,
    };
    // Gini: the first cut leaves {0, 0 | 1, 1, 2}, purity 2 + 5/3; cutting the second
    // column at 3 leaves {0, 1, 1 | 0, 2}, 5/3 + 1, at 6 {0, 0, 1, 1 | 2}, 2 + 1. The
    // second threshold is the middle of those two, as no row of its node is between.
    assert_eq!(
        tree.nodes,
        [
            node(0, 1.0, 1),
            node(LEAF, 0.0, 0),
            node(1, 4.5, 3),
            node(LEAF, 0.0, 1),
            node(LEAF, 0.0, 2),
        ]
    );
}

#[test]
fn a_row_and_a_batch_are_the_same() {
    let (x, labels) = octants();
    for kind in KINDS {
        let params = ForestParams {
            max_depth: 5,
            ..params(kind, 7)
        };
        let forest = Forest::fit(x.view(), &labels, None, 9, &params, 1).unwrap();
        let batch = forest.probabilities_batch(x.view());
        let mut out = Vec::new();
        for i in [0, 63, 64, 2999] {
            forest.probabilities(x.row(i).as_slice().unwrap(), &mut out);
            assert_eq!(batch.row(i).as_slice().unwrap(), out);
            assert!((out.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            assert_eq!(out[8], 0.0);
        }
        // A transposed layout holds the same rows.
        let mut turned = Array2::zeros((10, 3000));
        turned.assign(&x.t());
        assert_eq!(batch, forest.probabilities_batch(turned.t()));
    }
}

#[test]
fn a_seed_gives_one_model_whatever_the_threads() {
    let (x, labels) = octants();
    for kind in KINDS {
        let fit = |seed| Forest::fit(x.view(), &labels, None, 8, &params(kind, 8), seed).unwrap();
        let one = with_threads(1, || fit(5));
        assert_eq!(one, with_threads(2, || fit(5)));
        // A single tree looks at all columns: only ties could differ.
        assert!(kind == ForestKind::Tree || one != fit(6));
    }
}

/// A weight of 2 is the row twice, a weight of 0 no row at all. Exact where no rows
/// are drawn: few distinct values, so that the bins do not depend on their number.
#[test]
fn weights_are_duplicates() {
    let x = Array2::from_shape_fn((300, 6), |(i, j)| (noise(6 * i + j) * 8.0).round());
    let labels: Vec<u32> = (0..300)
        .map(|i| (noise(9_000 + i) * 2.5 + 2.5) as u32)
        .collect();
    let weights: Vec<f32> = (0..300).map(|i| (i % 3) as f32).collect();
    let copies: Vec<usize> = (0..300).flat_map(|i| vec![i; i % 3]).collect();
    let copied = x.select(Axis(0), &copies);
    let copied_labels: Vec<u32> = copies.iter().map(|&i| labels[i]).collect();
    for kind in [ForestKind::Tree, ForestKind::ExtraTrees] {
        let params = ForestParams {
            max_depth: 6,
            ..params(kind, 5)
        };
        let weighted = Forest::fit(x.view(), &labels, Some(&weights), 5, &params, 3).unwrap();
        let doubled = Forest::fit(copied.view(), &copied_labels, None, 5, &params, 3).unwrap();
        assert_eq!(
            weighted.probabilities_batch(x.view()),
            doubled.probabilities_batch(x.view()),
            "{kind:?}"
        );
    }
}

#[test]
fn bounds_hold() {
    let (x, labels) = octants();
    for kind in KINDS {
        let params = ForestParams {
            max_depth: 4,
            ..params(kind, 3)
        };
        let forest = Forest::fit(x.view(), &labels, None, 8, &params, 1).unwrap();
        assert!((0..forest.trees()).all(|t| depth(&forest, t) == 4));
        let params = ForestParams {
            max_depth: 40,
            max_leaves: 10,
            ..params
        };
        let forest = Forest::fit(x.view(), &labels, None, 8, &params, 1).unwrap();
        assert_eq!(forest.nodes(), 19 * forest.trees());
        let params = ForestParams {
            min_leaf: 400,
            max_leaves: 4096,
            ..params
        };
        let forest = Forest::fit(x.view(), &labels, None, 8, &params, 1).unwrap();
        assert!(forest.nodes() > forest.trees(), "{kind:?} has splits");
        assert!(
            forest.nodes() <= 13 * forest.trees(),
            "{kind:?}: at most 7 leaves"
        );
    }
}

/// A leaf of more classes than are kept: the most frequent ones, and a sum of 1.
#[test]
fn leaves_are_compact() {
    let x = Array2::zeros((1000, 2));
    let labels: Vec<u32> = (0..1000).map(|i| if i < 500 { 3 } else { i }).collect();
    let forest = Forest::fit(
        x.view(),
        &labels,
        None,
        1000,
        &params(ForestKind::Tree, 1),
        1,
    )
    .unwrap();
    assert_eq!(forest.nodes(), 1);
    assert_eq!(forest.leaves.classes.len(), LEAF_CLASSES);
    let mut out = Vec::new();
    forest.probabilities(&[0.0, 0.0], &mut out);
    assert!(out[3] > 0.9 && (out.iter().sum::<f32>() - 1.0).abs() < 1e-5);
}

#[test]
fn a_thousand_classes() {
    let x = Array2::from_shape_fn((3000, 16), |(i, j)| {
        noise(16 * (i % 1000) + j) + 0.02 * noise(70_000 + 16 * i + j)
    });
    let labels: Vec<u32> = (0..3000).map(|i| i % 1000).collect();
    for kind in [ForestKind::RandomForest, ForestKind::ExtraTrees] {
        let forest = Forest::fit(x.view(), &labels, None, 1000, &params(kind, 20), 1).unwrap();
        let share = agreement(forest.probabilities_batch(x.view()).view(), &labels);
        assert!(share > 0.9, "{kind:?}: {share}");
    }
}

#[test]
fn a_fit_that_cannot_be_is_a_failure() {
    let (x, labels) = octants();
    for kind in KINDS {
        let ok = params(kind, 3);
        let fit = |x: &Array2<f32>, labels: &[u32], params: &ForestParams| {
            Forest::fit(x.view(), labels, None, 8, params, 0).map(|_| ())
        };
        let mut broken = x.clone();
        broken[(7, 3)] = f32::INFINITY;
        assert_eq!(
            fit(&broken, &labels, &ok),
            Err(FitFailure::NotFinite { row: 7 })
        );
        assert_eq!(
            fit(&x, &[1; 3000], &ok),
            Err(FitFailure::OneClass { rows: 3000 })
        );
        let one = Array2::ones((1, 4));
        assert_eq!(fit(&one, &[1], &ok), Err(FitFailure::OneClass { rows: 1 }));
        let empty = Array2::zeros((3000, 0));
        assert!(matches!(
            fit(&empty, &labels, &ok),
            Err(FitFailure::TooLarge {
                what: "columns",
                ..
            })
        ));
        let none = ForestParams {
            max_leaves: 0,
            ..ok.clone()
        };
        assert!(matches!(
            fit(&x, &labels, &none),
            Err(FitFailure::TooLarge { .. })
        ));
    }
    let none = params(ForestKind::ExtraTrees, 0);
    let fit = Forest::fit(x.view(), &labels, None, 8, &none, 0);
    assert!(matches!(fit, Err(FitFailure::TooLarge { .. })));
}

/// Constant columns, values of any size, two rows: a model.
#[test]
fn extremes_do_not_panic() {
    for kind in KINDS {
        for scale in [0.0, 1e-40, 1.0, f32::MAX] {
            for rows in [2, 3, 50] {
                let x = Array2::from_shape_fn((rows, 4), |(i, j)| noise(4 * i + j) * scale);
                let labels: Vec<u32> = (0..rows as u32).map(|i| i % 2).collect();
                let weights: Vec<f32> = (0..rows).map(|i| f32::from(u8::from(i == 1))).collect();
                for weights in [None, Some(weights.as_slice())] {
                    let forest =
                        Forest::fit(x.view(), &labels, weights, 2, &params(kind, 3), 1).unwrap();
                    assert!(Forest::from_parts(4, 2, forest.parts()).is_ok());
                    let p = forest.probabilities_batch(x.view());
                    assert!(p.iter().all(|p| p.is_finite()));
                }
            }
        }
    }
}

#[test]
fn parts_make_the_same_model() {
    let (x, labels) = octants();
    for kind in KINDS {
        let params = ForestParams {
            min_leaf: 5,
            ..params(kind, 4)
        };
        let forest = Forest::fit(x.view(), &labels, None, 9, &params, 2).unwrap();
        assert!(
            !forest.leaves.classes.is_empty(),
            "mixed leaves are part of the test"
        );
        assert_eq!(
            Forest::from_parts(10, 9, forest.parts()),
            Ok(forest.clone())
        );
        assert!(Forest::from_parts(5, 9, forest.parts()).is_err());
    }
}

/// A walk that would not end is refused.
#[test]
fn children_stand_behind_their_node() {
    let x = ndarray::array![[0.0_f32], [1.0], [2.0]];
    let tree = Forest::fit(
        x.view(),
        &[0, 1, 0],
        None,
        2,
        &params(ForestKind::Tree, 1),
        0,
    )
    .unwrap();
    assert_eq!(tree.nodes(), 5);
    let inner: Vec<usize> = (0..5).filter(|&i| tree.nodes[i].feature != LEAF).collect();
    for node in inner {
        for next in [0, node as u32, 4, 5, u32::MAX] {
            let mut parts = tree.parts();
            let at = parts.iter().position(|p| p.name == "next").unwrap();
            let TensorData::U32(words) = &mut parts[at].data else {
                panic!("next is u32");
            };
            words[node] = next;
            let error = Forest::from_parts(1, 2, parts).unwrap_err();
            assert_eq!(error.part, "next");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// A damaged model is refused, or is as good as any other.
    #[test]
    fn damage_is_refused_or_harmless(damages in proptest::collection::vec(damage(), 1..4)) {
        let x = Array2::from_shape_fn((60, 3), |(i, j)| noise(3 * i + j));
        let labels: Vec<u32> = (0..60).map(|i| (noise(7_000 + i) * 2.0 + 2.0) as u32).collect();
        let params = ForestParams { min_leaf: 4, ..params(ForestKind::RandomForest, 2) };
        let forest = Forest::fit(x.view(), &labels, None, 4, &params, 1).unwrap();
        let mut parts: Vec<Tensor> = forest.parts();
        for (which, damage) in &damages {
            if !parts.is_empty() {
                apply(&mut parts, *which, damage);
            }
        }
        if let Ok(forest) = Forest::from_parts(3, 4, parts) {
            let mut out = Vec::new();
            for row in [[0.5, -0.5, 1.0], [f32::NAN, 0.0, f32::INFINITY]] {
                forest.probabilities(&row, &mut out);
                prop_assert_eq!(out.len(), 4);
                prop_assert!((out.iter().sum::<f32>() - 1.0).abs() < 1e-4);
            }
            prop_assert_eq!(forest.probabilities_batch(x.view()).dim(), (60, 4));
        }
    }
}
