//! The slice finder: what is there is found, and what is not is not.

use tracer_learn::{Dataset, Family, GateStats, Outcome, ShadowRow, Verdict};

use super::{Dice, push};
use crate::{
    SliceKind, TraceRef,
    artifacts::{HeldOut, weak_slices},
};

/// An outcome whose rows are all in the shadow split and handled.
pub(super) fn outcome(data: &Dataset, agrees: impl Fn(usize) -> bool) -> Outcome {
    let labels = data.label_names().to_vec();
    let rows = (0..data.len()).map(|row| {
        let label = data.label(row) as usize;
        ShadowRow {
            row,
            predicted: if agrees(row) {
                label
            } else {
                (label + 1) % labels.len()
            },
            agrees: agrees(row),
            score: 0.9,
            foreign: false,
            handled: true,
        }
    });
    Outcome {
        target: 0.95,
        verdict: Verdict::Passed,
        pipeline: None,
        uncertified: None,
        shadow_share: 0.2,
        shadow: GateStats::default(),
        family: Family::L2d,
        surrogate: "made_up".into(),
        threshold: 0.5,
        training_traces: 4 * data.len(),
        left_out: 0,
        not_sampled: 0,
        candidates: Vec::new(),
        families: Vec::new(),
        shadow_rows: rows.collect(),
        labels,
        frontier: Vec::new(),
        targets: Vec::new(),
        budgets: Vec::new(),
        fit_seconds: 0.0,
    }
}

const LABELS: [&str; 4] = ["card", "refund", "parcel", "passport"];
const WORDS: [&str; 12] = [
    "please", "urgent", "hello", "today", "still", "never", "again", "online", "branch", "abroad",
    "money", "thanks",
];

fn texts(seed: u64) -> Dataset {
    let mut data = Dataset::new();
    let mut dice = Dice(seed);
    for i in 0..600 {
        let words: Vec<&str> = (0..=dice.roll(4)).map(|_| dice.pick(&WORDS)).collect();
        push(
            &mut data,
            &format!("{} {i}", words.join(" ")),
            LABELS[dice.roll(4)],
        );
    }
    data
}

fn times(seed: u64, n: usize) -> Vec<TraceRef> {
    let mut dice = Dice(seed);
    (0..n)
        .map(|i| TraceRef {
            id: i.to_string(),
            time: chrono::DateTime::from_timestamp(
                1_760_000_000 + dice.roll(30 * 86_400) as i64,
                0,
            ),
        })
        .collect()
}

/// Everything agrees exactly as often as the target, so whatever is accused is accused
/// wrongly. That may happen in a share δ of the draws.
#[test]
fn a_part_is_accused_wrongly_no_more_often_than_delta() {
    let (runs, delta, mut accused) = (300, 0.1, 0);
    for seed in 0..runs {
        let data = texts(seed);
        let mut dice = Dice(seed ^ 0xabcd);
        let agrees: Vec<bool> = (0..data.len()).map(|_| dice.roll(20) != 0).collect();
        let outcome = outcome(&data, |row| agrees[row]);
        let traces = times(seed, data.len());
        let held = HeldOut::new(&data, &outcome, &traces);
        // The answers depend on the agreement; the other kinds do not.
        let found = weak_slices(&held, 0.95, delta);
        assert!(found.tested > 25, "{}", found.tested);
        accused += u64::from(
            found
                .slices
                .iter()
                .any(|s| s.confirmed && s.kind != SliceKind::Answer),
        );
    }
    // Three standard deviations of a count that may reach δ.
    let most = 300.0 * delta + 3.0 * (300.0 * delta * (1.0 - delta)).sqrt();
    assert!((accused as f64) < most, "{accused} of {runs}");
}

#[test]
fn a_weak_part_is_found_by_what_its_traces_share() {
    let data = texts(1);
    let traces = times(1, data.len());
    let of_word = |row: usize| data.text(row).unwrap().contains("abroad");
    let of_label = |row: usize| data.label(row) == 0;
    let late = |row: usize| {
        let day = traces[row].time.unwrap().timestamp() - 1_760_000_000;
        day > 25 * 86_400
    };
    let cases: [(SliceKind, &dyn Fn(usize) -> bool); 3] = [
        (SliceKind::Word, &of_word),
        (SliceKind::Label, &of_label),
        (SliceKind::Time, &late),
    ];
    for (kind, weak) in cases {
        // Two of three agree in the weak part, all others always.
        let outcome = outcome(&data, |row| !weak(row) || row % 3 != 0);
        let held = HeldOut::new(&data, &outcome, &traces);
        let found = weak_slices(&held, 0.95, 0.05);
        let first = found
            .slices
            .iter()
            .find(|slice| slice.kind != SliceKind::Answer)
            .unwrap();
        assert!(first.kind == kind && first.confirmed, "{kind:?}: {first:?}");
        assert!(first.p_value <= first.p_adjusted);
        let [low, high] = first.agreement_interval;
        assert!(low < first.agreement && first.agreement < high && high < 0.95);
        assert!(
            found
                .slices
                .is_sorted_by(|a, b| a.p_adjusted <= b.p_adjusted)
        );
    }
}

#[test]
fn copies_of_a_slice_are_tested_once() {
    let mut data = Dataset::new();
    for i in 0..200 {
        // "new" and "york" share their rows, which are those of a label too.
        let (text, label) = if i % 4 == 0 {
            ("new york", "city")
        } else {
            ("a farm", "land")
        };
        push(&mut data, &format!("{text} {i}"), label);
    }
    let outcome = outcome(&data, |_| true);
    let held = HeldOut::new(&data, &outcome, &[]);
    let found = weak_slices(&held, 0.95, 0.05);
    // The two labels, and the lengths; the words are the labels again.
    let lengths = 1 + 3;
    assert!(
        (3..=2 + lengths).contains(&found.tested),
        "{}",
        found.tested
    );
    assert!(found.slices.is_empty());
}
