use proptest::prelude::*;

use ndarray::Axis;
use tracer_features::SparseRow;

use super::*;
use crate::{
    design::Sparse,
    model::{
        FitFailure, TensorData,
        testing::{agreement, apply, damage, noise, octants, with_threads},
    },
};

fn params(hidden: &[usize], epochs: usize) -> MlpParams {
    MlpParams {
        hidden: hidden.to_vec(),
        epochs,
        dropout: 0.0,
        input_rms: 1.0,
        ..MlpParams::default()
    }
}

fn small() -> (Mlp, Array2<f32>, Vec<u32>) {
    let (x, labels) = octants();
    let model = Mlp::fit(
        Design::Dense(x.view()),
        &labels,
        None,
        9,
        &params(&[16, 16], 1),
        3,
    )
    .unwrap();
    (model, x, labels)
}

/// About as good as scikit-learn's (0.95, 0.94), and far better than any linear
/// model (0.509).
#[test]
fn learns_what_a_linear_model_cannot() {
    let (x, labels) = octants();
    let (train, test) = x.view().split_at(Axis(0), 2000);
    for (hidden, least) in [(&[64][..], 0.92), (&[64, 32], 0.9)] {
        for seed in 0..2 {
            let params = MlpParams {
                rate: 0.01,
                validation: 0.0,
                ..params(hidden, 60)
            };
            let model = Mlp::fit(
                Design::Dense(train),
                &labels[..2000],
                None,
                8,
                &params,
                seed,
            )
            .unwrap();
            let share = agreement(
                model.logits_batch(Design::Dense(test)).view(),
                &labels[2000..],
            );
            assert!(share >= least, "{hidden:?}: {share}");
        }
    }
}

#[test]
fn one_row_and_a_batch_are_the_same() {
    let (model, x, _) = small();
    let batch = model.logits_batch(Design::Dense(x.view()));
    assert_eq!(batch.dim(), (3000, 9));
    let (mut scratch, mut out) = (MlpScratch::default(), Vec::new());
    for i in [0, 1, 255, 256, 2999] {
        model.logits(
            (&[], &[]),
            x.row(i).as_slice().unwrap(),
            &mut scratch,
            &mut out,
        );
        assert_eq!(out.len(), 9);
        assert_eq!(batch.row(i).as_slice().unwrap(), out);
    }
}

/// Rows on any scale give the same model up to that scale.
#[test]
fn the_scale_of_the_rows_does_not_matter() {
    let (x, labels) = octants();
    let params = params(&[32], 2);
    let plain = Mlp::fit(Design::Dense(x.view()), &labels, None, 8, &params, 1).unwrap();
    let scaled = &x * 1024.0;
    let other = Mlp::fit(Design::Dense(scaled.view()), &labels, None, 8, &params, 1).unwrap();
    let (a, b) = (
        plain.logits_batch(Design::Dense(x.view())),
        other.logits_batch(Design::Dense(scaled.view())),
    );
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-3));
}

#[test]
fn a_seed_gives_one_model_whatever_the_threads() {
    let (x, labels) = octants();
    let fit = |seed| {
        Mlp::fit(
            Design::Dense(x.view()),
            &labels,
            None,
            8,
            &params(&[32, 16], 2),
            seed,
        )
        .unwrap()
    };
    let one = with_threads(1, || fit(5));
    assert_eq!(one, with_threads(2, || fit(5)));
    assert_ne!(one, fit(6));
}

/// Rows of weight 0 teach nothing: their labels, all wrong, are not learned. And a
/// common factor in the weights changes nothing.
#[test]
fn weights_count() {
    let (x, mut labels) = octants();
    let truth = labels.clone();
    for label in &mut labels[..1500] {
        *label = 8;
    }
    let weights: Vec<f32> = (0..3000).map(|i| f32::from(u8::from(i >= 1500))).collect();
    let fit = |weights: &[f32]| {
        Mlp::fit(
            Design::Dense(x.view()),
            &labels,
            Some(weights),
            9,
            &params(&[64], 30),
            1,
        )
        .unwrap()
    };
    let model = fit(&weights);
    let share = agreement(model.logits_batch(Design::Dense(x.view())).view(), &truth);
    assert!(share > 0.9, "{share}");
    let doubled: Vec<f32> = weights.iter().map(|w| w * 2.0).collect();
    assert_eq!(model, fit(&doubled));
}

/// Early stopping takes back what a search far too long spoilt.
#[test]
fn stops_early_on_labels_of_chance() {
    let x = Array2::from_shape_fn((400, 30), |(i, j)| noise(30 * i + j));
    let labels: Vec<u32> = (0..400)
        .map(|i| u32::from(noise(90_000 + i) > 0.0))
        .collect();
    let fit = |validation| {
        let params = MlpParams {
            validation,
            ..params(&[64], 60)
        };
        Mlp::fit(Design::Dense(x.view()), &labels, None, 2, &params, 1).unwrap()
    };
    // Mean cross-entropy of rows it has not seen; ln 2 is the best there is.
    let loss = |model: &Mlp| {
        let fresh = Array2::from_shape_fn((1000, 30), |(i, j)| noise(50_000 + 30 * i + j));
        let logits = model.logits_batch(Design::Dense(fresh.view()));
        let losses = logits.rows().into_iter().enumerate().map(|(i, row)| {
            let label = usize::from(noise(190_000 + i) > 0.0);
            (1.0 + (row[1 - label] - row[label]).exp()).ln()
        });
        losses.sum::<f32>() / 1000.0
    };
    let (stopped, driven) = (loss(&fit(0.25)), loss(&fit(0.0)));
    assert!(
        stopped < 1.0 && driven > 1.5 * stopped,
        "{stopped} {driven}"
    );
}

#[test]
fn a_fit_that_cannot_be_is_a_failure() {
    let (x, labels) = octants();
    let default = MlpParams::default();
    let fit = |x: &Array2<f32>, labels: &[u32], weights: Option<&[f32]>, params: &MlpParams| {
        Mlp::fit(Design::Dense(x.view()), labels, weights, 8, params, 0).map(|_| ())
    };
    let mut broken = x.clone();
    broken[(7, 3)] = f32::NAN;
    assert_eq!(
        fit(&broken, &labels, None, &default),
        Err(FitFailure::NotFinite { row: 7 })
    );
    let same = vec![2; 3000];
    assert_eq!(
        fit(&x, &same, None, &default),
        Err(FitFailure::OneClass { rows: 3000 })
    );
    let one = Array2::ones((1, 4));
    assert_eq!(
        fit(&one, &[1], None, &default),
        Err(FitFailure::OneClass { rows: 1 })
    );
    let none = Array2::zeros((0, 4));
    assert_eq!(
        fit(&none, &[], None, &default),
        Err(FitFailure::OneClass { rows: 0 })
    );
    assert!(matches!(
        fit(&x, &labels[1..], None, &default),
        Err(FitFailure::Shape { what: "labels", .. })
    ));
    let high = vec![8; 3000];
    assert!(matches!(
        fit(&x, &high, None, &default),
        Err(FitFailure::NoSuchClass { row: 0, .. })
    ));
    let weights = vec![0.0; 3000];
    assert!(matches!(
        fit(&x, &labels, Some(&weights), &default),
        Err(FitFailure::Weight { .. })
    ));
    let wild = MlpParams {
        rate: 1e30,
        ..MlpParams::default()
    };
    assert!(matches!(
        fit(&x, &labels, None, &wild),
        Err(FitFailure::Diverged { .. })
    ));
    for hidden in [vec![], vec![0], vec![8, 8, 8], vec![1 << 20]] {
        let params = MlpParams {
            hidden,
            ..MlpParams::default()
        };
        assert!(matches!(
            fit(&x, &labels, None, &params),
            Err(FitFailure::TooLarge { .. })
        ));
    }
}

/// Rows of zeros, two rows, values of any size: a model or a failure.
#[test]
fn extremes_do_not_panic() {
    for scale in [0.0, 1e-38, 1e18, 3e38] {
        for rows in [2, 3, 60] {
            let x = Array2::from_shape_fn((rows, 5), |(i, j)| noise(5 * i + j) * scale);
            let labels: Vec<u32> = (0..rows as u32).map(|i| i % 2).collect();
            if let Ok(model) = Mlp::fit(
                Design::Dense(x.view()),
                &labels,
                None,
                2,
                &params(&[16], 1),
                1,
            ) {
                assert!(Mlp::from_parts((0, 5), 2, model.parts()).is_ok());
            }
        }
    }
}

#[test]
fn a_thousand_classes() {
    let x = Array2::from_shape_fn((2000, 16), |(i, j)| noise(16 * (i % 1000) + j));
    let labels: Vec<u32> = (0..2000).map(|i| i % 1000).collect();
    let params = params(&[64], 40);
    let model = Mlp::fit(Design::Dense(x.view()), &labels, None, 1000, &params, 1).unwrap();
    let share = agreement(model.logits_batch(Design::Dense(x.view())).view(), &labels);
    assert!(share > 0.9, "{share}");
}

#[test]
fn parts_make_the_same_model() {
    let (model, ..) = small();
    assert_eq!(
        Mlp::from_parts((0, 10), 9, model.parts()),
        Ok(model.clone())
    );
    assert!(Mlp::from_parts((0, 11), 9, model.parts()).is_err());
    assert!(Mlp::from_parts((0, 10), 8, model.parts()).is_err());
    let mut linear = model.parts();
    linear.truncate(2);
    assert!(
        Mlp::from_parts((0, 10), 16, linear).is_err(),
        "no hidden layer"
    );
}

/// Texts of two words out of eight each: the label is whether both are of the same kind.
fn pairs() -> (Sparse, Vec<u32>) {
    let mut x = Sparse::new(40);
    let mut labels = Vec::new();
    for i in 0..3000_u32 {
        let (a, b) = (i % 8, (i / 8 * 5 + i / 64) % 8);
        // Words that say nothing, and are rarer than those that do.
        let columns = vec![a, 8 + b, 16 + i % 24];
        x.push(&SparseRow {
            columns,
            values: vec![0.6, 0.6, 0.5],
        });
        labels.push(u32::from(a % 2 == b % 2));
    }
    (x, labels)
}

/// What no linear model of the words can learn.
#[test]
fn learns_from_text() {
    let (x, labels) = pairs();
    let params = MlpParams {
        text_norm: 3.0,
        text_columns: 30,
        ..params(&[32], 30)
    };
    let model = Mlp::fit(Design::Sparse(&x), &labels, None, 2, &params, 1).unwrap();
    let batch = model.logits_batch(Design::Sparse(&x));
    let share = agreement(batch.view(), &labels);
    assert!(share > 0.98, "{share}");

    let (mut scratch, mut out) = (MlpScratch::default(), Vec::new());
    for i in [0, 7, 2999] {
        model.logits(x.row(i), &[], &mut scratch, &mut out);
        assert_eq!(batch.row(i).as_slice().unwrap(), out);
    }
    // Ten columns are not looked at, and not stored either.
    assert_eq!(model.text.kept.len(), 30);
    assert_eq!(
        Mlp::from_parts((40, 0), 2, model.parts()),
        Ok(model.clone())
    );
    assert!(Mlp::from_parts((20, 0), 2, model.parts()).is_err());
    assert!(Mlp::from_parts((0, 40), 2, model.parts()).is_err());
    let again = with_threads(1, || {
        Mlp::fit(Design::Sparse(&x), &labels, None, 2, &params, 1).unwrap()
    });
    assert_eq!(again, model);
}

/// Text and an embedding side by side: each alone says nothing.
#[test]
fn learns_from_both() {
    let mut x = Sparse::new(2);
    let mut labels = Vec::new();
    let dense = Array2::from_shape_fn((2000, 3), |(i, j)| noise(3 * i + j));
    for i in 0..2000 {
        let word = (i % 2) as u32;
        x.push(&SparseRow {
            columns: vec![word],
            values: vec![1.0],
        });
        labels.push(u32::from((dense[(i, 0)] > 0.0) == (word == 1)));
    }
    let params = MlpParams {
        text_norm: 1.0,
        ..params(&[32], 30)
    };
    let design = Design::Joint(&x, dense.view());
    let model = Mlp::fit(design, &labels, None, 2, &params, 1).unwrap();
    let share = agreement(model.logits_batch(design).view(), &labels);
    assert!(share > 0.95, "{share}");
    assert_eq!(Mlp::from_parts((2, 3), 2, model.parts()), Ok(model));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A damaged model is refused, or is as good as any other.
    #[test]
    fn damage_is_refused_or_harmless(damages in proptest::collection::vec(damage(), 1..4)) {
        let layer = |i: usize, rows: usize, columns: usize| {
            let data = (0..rows * columns).map(noise).collect();
            [
                Tensor { name: format!("{i}.weights"), shape: vec![rows, columns], data: TensorData::F32(data) },
                Tensor { name: format!("{i}.biases"), shape: vec![columns], data: TensorData::F32(vec![0.0; columns]) },
            ]
        };
        let mut parts: Vec<Tensor> =
            [layer(0, 3, 16), layer(1, 16, 16), layer(2, 16, 5)].into_iter().flatten().collect();
        prop_assert!(Mlp::from_parts((0, 3), 5, parts.clone()).is_ok());
        for (which, damage) in &damages {
            if !parts.is_empty() {
                apply(&mut parts, *which, damage);
            }
        }
        if let Ok(model) = Mlp::from_parts((0, 3), 5, parts) {
            let (mut scratch, mut out) = (MlpScratch::default(), Vec::new());
            model.logits((&[], &[]), &[0.5, -0.5, 1.0], &mut scratch, &mut out);
            prop_assert_eq!(out.len(), 5);
            prop_assert_eq!(model.logits_batch(Design::Dense(Array2::ones((2, 3)).view())).dim(), (2, 5));
        }
    }
}
