//! Data and helpers that the tests of several models share.

use ndarray::{Array2, ArrayView2};
use proptest::prelude::*;

use super::{Tensor, TensorData};

/// Deterministic numbers in [-1, 1), easily made in any language.
pub(super) fn noise(i: usize) -> f32 {
    let mut z = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0) as f32
}

/// 3,000 rows of 10 columns, `noise(10 i + j)`, in 8 classes:
/// `(x₀x₁ > 0) + 2 (x₂ > 0) + 4 (x₃ > x₄)`. The first term is out of a linear model's
/// reach, the third takes a tree many splits, and five columns say nothing.
///
/// scikit-learn 1.x, fitted on the first 2,000 rows, agrees on the last 1,000 so
/// often (three seeds): `LogisticRegression(C=100)` 0.509; `MLPClassifier((64,),
/// max_iter=60, learning_rate_init=0.01)` 0.950, 0.950, 0.948; the same with
/// `(64, 32)` 0.944, 0.933, 0.948; `DecisionTreeClassifier()` 0.592, 0.577, 0.576;
/// `RandomForestClassifier(100)` 0.800, 0.863, 0.827; `ExtraTreesClassifier(100)`
/// 0.776, 0.784, 0.762.
pub(super) fn octants() -> (Array2<f32>, Vec<u32>) {
    let x = Array2::from_shape_fn((3000, 10), |(i, j)| noise(10 * i + j));
    let labels = x
        .rows()
        .into_iter()
        .map(|r| {
            u32::from(r[0] * r[1] > 0.0) + 2 * u32::from(r[2] > 0.0) + 4 * u32::from(r[3] > r[4])
        })
        .collect();
    (x, labels)
}

/// The share of rows whose largest score is their label's.
pub(super) fn agreement(scores: ArrayView2<'_, f32>, labels: &[u32]) -> f64 {
    let hits = scores
        .rows()
        .into_iter()
        .zip(labels)
        .filter(|(row, label)| {
            crate::confidence::top(row.as_slice().unwrap()).label == **label as usize
        })
        .count();
    hits as f64 / labels.len() as f64
}

/// Runs something in a pool of so many threads.
pub(super) fn with_threads<T: Send>(threads: usize, run: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap()
        .install(run)
}

/// What may happen to a stored tensor.
#[derive(Clone, Debug)]
pub(super) enum Damage {
    Set(usize, u32),
    Cut(usize),
    Grow(usize),
    Reshape(usize),
    Remove,
    Retype,
}

/// Any damage to any of some tensors.
pub(super) fn damage() -> impl Strategy<Value = (usize, Damage)> {
    let word = prop_oneof![
        any::<u32>(),
        0_u32..40,
        Just(u32::MAX),
        Just(f32::NAN.to_bits()),
        Just(f32::INFINITY.to_bits()),
    ];
    let kind = prop_oneof![
        8 => (any::<usize>(), word).prop_map(|(at, to)| Damage::Set(at, to)),
        1 => (0_usize..5).prop_map(Damage::Cut),
        1 => (1_usize..5).prop_map(Damage::Grow),
        1 => (0_usize..5).prop_map(Damage::Reshape),
        1 => Just(Damage::Remove),
        1 => Just(Damage::Retype),
    ];
    (any::<usize>(), kind)
}

/// Does it. The shape follows the data but for `Reshape`, so that more than the
/// check of shapes is put to the test.
pub(super) fn apply(tensors: &mut Vec<Tensor>, which: usize, damage: &Damage) {
    let which = which % tensors.len();
    let tensor = &mut tensors[which];
    match damage {
        Damage::Set(at, to) => match &mut tensor.data {
            TensorData::F32(v) if !v.is_empty() => {
                let at = at % v.len();
                v[at] = f32::from_bits(*to);
            }
            TensorData::U32(v) if !v.is_empty() => {
                let at = at % v.len();
                v[at] = *to;
            }
            TensorData::U16(v) if !v.is_empty() => {
                let at = at % v.len();
                v[at] = *to as u16;
            }
            _ => {}
        },
        Damage::Cut(to) => resize(tensor, *to),
        Damage::Grow(by) => resize(tensor, tensor.data.len() + by),
        Damage::Reshape(by) => tensor.shape = vec![usize::MAX, *by],
        Damage::Remove => {
            tensors.remove(which);
        }
        Damage::Retype => {
            tensor.data = match &tensor.data {
                TensorData::I8(v) => TensorData::F32(v.iter().map(|&v| f32::from(v)).collect()),
                TensorData::U16(v) => TensorData::U32(v.iter().map(|&v| u32::from(v)).collect()),
                TensorData::F32(v) => TensorData::U32(v.iter().map(|v| v.to_bits()).collect()),
                TensorData::U32(v) => TensorData::F32(v.iter().map(|&v| v as f32).collect()),
            };
        }
    }
}

fn resize(tensor: &mut Tensor, to: usize) {
    match &mut tensor.data {
        TensorData::F32(v) => v.resize(to, 0.5),
        TensorData::U32(v) => v.resize(to, 1),
        TensorData::U16(v) => v.resize(to, 1),
        TensorData::I8(v) => v.resize(to, 1),
    }
    tensor.shape = vec![to];
}
