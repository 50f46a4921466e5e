//! How well predictions match the teacher's labels.

/// Scores of predictions against the labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scores {
    /// The unweighted mean over classes of F1, over the classes that occur.
    pub(crate) macro_f1: f64,
    /// Share of the rows predicted right.
    pub(crate) agreement: f64,
}

/// Scores predicted classes; each row counts as its weight.
pub(crate) fn scores(
    labels: &[u32],
    predicted: &[u32],
    weights: Option<&[f32]>,
    classes: usize,
) -> Scores {
    let (mut hits, mut guesses, mut actual) =
        (vec![0.0; classes], vec![0.0; classes], vec![0.0; classes]);
    for (i, (&label, &guess)) in labels.iter().zip(predicted).enumerate() {
        let weight = weights.map_or(1.0, |w| f64::from(w[i]));
        actual[label as usize] += weight;
        guesses[guess as usize] += weight;
        if label == guess {
            hits[label as usize] += weight;
        }
    }
    let (mut sum, mut occurring) = (0.0, 0_usize);
    for class in 0..classes {
        let mass = guesses[class] + actual[class];
        if mass > 0.0 {
            sum += 2.0 * hits[class] / mass;
            occurring += 1;
        }
    }
    let mass: f64 = actual.iter().sum();
    Scores {
        macro_f1: sum / occurring.max(1) as f64,
        agreement: hits.iter().sum::<f64>() / mass.max(f64::MIN_POSITIVE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macro_f1_by_hand() {
        // Class 0: 2 hits, 2 guessed, 3 actual: 4/5. Class 1: 1 hit, 2 guessed,
        // 1 actual: 2/3. Class 2 never occurs.
        let scores = scores(&[0, 0, 0, 1], &[0, 0, 1, 1], None, 3);
        assert!((scores.macro_f1 - f64::midpoint(0.8, 2.0 / 3.0)).abs() < 1e-12);
        assert!((scores.agreement - 0.75).abs() < 1e-12);
    }

    #[test]
    fn weights_count_as_copies() {
        let copies = scores(&[0, 0, 1, 1, 1], &[0, 1, 1, 1, 0], None, 2);
        let weighted = scores(&[0, 0, 1, 1], &[0, 1, 1, 0], Some(&[1.0, 1.0, 2.0, 1.0]), 2);
        assert_eq!(copies, weighted);
    }
}
