//! Reports of real refits of small made-up tasks, and of outcomes made by hand.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod artifacts;
mod changes;
mod diagnosis;
mod finder;
mod golden;
mod page;

use std::collections::BTreeSet;

use chrono::DateTime;
use tracer_learn::{Dataset, FitConfig, Outcome, Row, refit};

use crate::{Example, Report, Reporter, TraceRef};

/// Numbers without a pattern (the 64-bit finaliser of `MurmurHash3` on a counter).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut h = self.0;
        h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        ((h ^ (h >> 33)) % sides as u64) as usize
    }

    pub(super) fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len())]
    }

    pub(super) fn unit(&mut self) -> f32 {
        self.roll(1 << 20) as f32 / (1 << 20) as f32
    }
}

/// A row of texts alone.
pub(super) fn push(data: &mut Dataset, text: &str, label: &str) {
    let row = Row {
        text: Some(text),
        embedding: None,
        label,
    };
    data.push(row).unwrap();
}

/// Two topics that are easy to tell apart, and texts on which the teacher says either.
pub(super) fn desk(weight: f64) -> Dataset {
    let mut data = Dataset::new();
    for i in 0..500 {
        let (text, label) = match i % 5 {
            0 | 1 => (format!("card lost {i}"), "<card>"),
            2 | 3 => (format!("refund me {i}"), "refund"),
            _ if i * i % 7 < 3 => (format!("help {i}"), "<card>"),
            _ => (format!("help {i}"), "refund"),
        };
        let row = Row {
            text: Some(&text),
            embedding: None,
            label,
        };
        data.push_weighted(row, if i % 2 == 0 { 1.0 } else { weight })
            .unwrap();
    }
    data
}

pub(super) fn config(target: f64) -> FitConfig {
    FitConfig {
        targets: vec![target],
        min_traces: 20,
        ..FitConfig::default()
    }
}

/// A trace an hour, so many of them.
pub(super) fn traces(n: usize) -> Vec<TraceRef> {
    (0..n)
        .map(|i| TraceRef {
            id: format!("trace-{i}"),
            time: DateTime::from_timestamp(1_760_000_000 + 3600 * i as i64, 0),
        })
        .collect()
}

pub(super) fn fitted(data: &Dataset, config: &FitConfig) -> Outcome {
    refit("desk", data, config, &mut |_| {}).unwrap().remove(0)
}

/// The outcome, and its report as it reads when it comes back, and its page.
pub(super) fn written(data: &Dataset, config: &FitConfig) -> (Outcome, Report, String) {
    let outcome = fitted(data, config);
    let traces = traces(data.len());
    let files = Reporter::new("desk", data, Ok(&outcome), config)
        .traces(&traces)
        .files();
    let report = serde_json::from_slice(&files.json).unwrap();
    (outcome, report, String::from_utf8(files.html).unwrap())
}

/// Every example of a report.
pub(super) fn examples(report: &Report) -> Vec<&Example> {
    let cards = report.cards.iter();
    let mut all: Vec<&Example> = cards
        .flat_map(|of| of.handled.iter().chain(&of.deferred))
        .map(|card| &card.example)
        .collect();
    let pairs = report.pairs.iter().flat_map(|of| &of.pairs);
    all.extend(pairs.flat_map(|pair| [&pair.handled, &pair.deferred]));
    all.extend(report.disagreements.iter().flat_map(|of| &of.examples));
    if let Some(changes) = &report.changes {
        all.extend(&changes.newly_handled_examples);
        all.extend(&changes.newly_deferred_examples);
        all.extend(&changes.changed_label_examples);
    }
    all
}

/// The ids of the shadow split.
pub(super) fn shadow_ids(outcome: &Outcome) -> BTreeSet<String> {
    let rows = outcome.shadow_rows.iter();
    rows.map(|row| format!("trace-{}", row.row)).collect()
}
