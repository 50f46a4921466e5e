//! The slice finder: parts of the handled traffic that agree less often than promised.
//!
//! The gate's promise is about all that is handled; a part of it may fall short. Every
//! part that is large enough is tested by the exact binomial tail against "it agrees as
//! often as the target", and Holm's step-down procedure (Scandinavian Journal of
//! Statistics 6, 1979) holds the probability of accusing any part wrongly to δ, however
//! many there are and however they overlap. (Slices as in Chung et al., ICDE 2019.)

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Datelike, Timelike, Utc};
use serde::{Deserialize, Serialize};
use tracer_features::{normalise, stable_hash};
use tracer_learn::{binomial_at_most, clopper_pearson_interval};

use super::{
    held_out::{HeldOut, Seen, name},
    slices::Lengths,
};

/// A part of fewer handled traces is too small to show anything.
const LEAST: usize = 10;
/// Words that make slices, and words of one text that are looked at, at the most.
const WORDS: usize = 300;
const WORDS_OF_A_TEXT: usize = 200;
/// Distinct words that are counted, at the most.
const DISTINCT: usize = 100_000;
const LONGEST_WORD: usize = 40;
/// Parts that are listed, at the most.
const LISTED: usize = 20;
/// Parts of the time that the traces span.
const PERIODS: usize = 5;

/// What the slice finder found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WeakSlices {
    /// Slices that were tested.
    pub tested: usize,
    /// Those whose agreement is below the target, the least likely by chance first.
    pub slices: Vec<WeakSlice>,
}

/// A part of the handled traffic that agreed less often than the target in the shadow split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WeakSlice {
    /// What the traces share.
    pub kind: SliceKind,
    /// The label, range of lengths, word or time they share.
    pub value: String,
    /// Handled shadow traces in it, each counted once.
    pub handled: usize,
    /// The share of them on which surrogate and teacher agree.
    pub agreement: f64,
    /// Exact two-sided interval of that share at confidence 1 − δ, for this slice alone.
    pub agreement_interval: [f64; 2],
    /// The probability of so few agreements, did the slice agree as often as the target.
    pub p_value: f64,
    /// The same, allowing for all the slices that were tested (Holm).
    pub p_adjusted: f64,
    /// Whether that is at most δ. Otherwise it may well be chance.
    pub confirmed: bool,
}

/// What the traces of a slice share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SliceKind {
    /// The teacher's label.
    Label,
    /// The surrogate's label.
    Answer,
    /// The length of the text.
    Length,
    /// A word of the text.
    Word,
    /// When the trace came.
    Time,
}

/// Handled traces of one slice.
#[derive(Default)]
struct Part {
    n: usize,
    right: usize,
    /// Of the rows, whatever their order: two slices of the same rows are one.
    rows: u64,
}

impl Part {
    fn add(&mut self, seen: &Seen) {
        self.n += 1;
        self.right += usize::from(seen.agrees);
        let hash = stable_hash(&[&(seen.row as u64).to_le_bytes()]);
        self.rows = self.rows.wrapping_add(hash);
    }
}

/// Looks through the handled traces for parts that fall short of `target`.
pub(crate) fn weak_slices(held: &HeldOut<'_>, target: f64, delta: f64) -> WeakSlices {
    let handled: Vec<&Seen> = held.rows.iter().filter(|seen| seen.handled).collect();
    let mut parts: BTreeMap<(SliceKind, String), Part> = BTreeMap::new();
    let mut add = |kind, value: String, seen: &Seen| {
        parts.entry((kind, value)).or_default().add(seen);
    };
    let lengths = Lengths::of(held);
    let words = frequent_words(held, &handled);
    let periods = Periods::of(held, &handled);
    for seen in &handled {
        add(SliceKind::Label, name(held.label(seen)), seen);
        add(SliceKind::Answer, name(held.predicted(seen)), seen);
        if let Some(bin) = lengths.bin(held, seen) {
            add(SliceKind::Length, lengths.name(bin), seen);
        }
        for word in words_of(held, seen) {
            if words.contains(&word) {
                add(SliceKind::Word, word, seen);
            }
        }
        if let Some(time) = held.time(seen).filter(|_| periods.ends.len() > 1) {
            for value in periods.names(time) {
                add(SliceKind::Time, value, seen);
            }
        }
    }
    // By counts alone, never by what they agree on: else Holm's promise would not hold.
    parts.retain(|_, part| part.n >= LEAST && part.n < handled.len());
    let mut known = BTreeSet::new();
    parts.retain(|_, part| known.insert((part.n, part.rows)));
    holm(parts, target, delta)
}

fn holm(parts: BTreeMap<(SliceKind, String), Part>, target: f64, delta: f64) -> WeakSlices {
    let tested = parts.len();
    let mut tests: Vec<_> = parts
        .into_iter()
        .map(|(of, part)| {
            let p = binomial_at_most(part.right as u64, part.n as u64, target);
            (p, of, part)
        })
        .collect();
    tests.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut adjusted = 0.0_f64;
    let slices = tests
        .into_iter()
        .enumerate()
        .map(|(rank, (p, (kind, value), part))| {
            adjusted = adjusted.max((p * (tested - rank) as f64).min(1.0));
            let (right, n) = (part.right as u64, part.n as u64);
            WeakSlice {
                kind,
                value,
                handled: part.n,
                agreement: part.right as f64 / part.n as f64,
                agreement_interval: clopper_pearson_interval(right, n, delta).into(),
                p_value: p,
                p_adjusted: adjusted,
                confirmed: adjusted <= delta,
            }
        })
        .filter(|slice| slice.agreement < target)
        .take(LISTED)
        .collect();
    WeakSlices { tested, slices }
}

/// The distinct words of a text.
fn words_of(held: &HeldOut<'_>, seen: &Seen) -> BTreeSet<String> {
    let text = held.text(seen).map(normalise).unwrap_or_default();
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty() && word.len() <= LONGEST_WORD)
        .take(WORDS_OF_A_TEXT)
        .map(str::to_owned)
        .collect()
}

/// Words of enough handled texts to be tested; of many, those of the most texts.
fn frequent_words(held: &HeldOut<'_>, handled: &[&Seen]) -> BTreeSet<String> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for seen in handled {
        for word in words_of(held, seen) {
            if let Some(count) = counts.get_mut(&word) {
                *count += 1;
            } else if counts.len() < DISTINCT {
                counts.insert(word, 1);
            }
        }
    }
    let mut words: Vec<(usize, String)> = counts
        .into_iter()
        .filter(|(_, count)| *count >= LEAST)
        .map(|(word, count)| (count, word))
        .collect();
    words.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    words.truncate(WORDS);
    words.into_iter().map(|(_, word)| word).collect()
}

/// Times that traces may share: periods of equally many, hours of the day, days of the week.
struct Periods {
    /// The last moment of each.
    ends: Vec<DateTime<Utc>>,
    start: Option<DateTime<Utc>>,
}

impl Periods {
    fn of(held: &HeldOut<'_>, handled: &[&Seen]) -> Self {
        let mut times: Vec<DateTime<Utc>> =
            handled.iter().filter_map(|seen| held.time(seen)).collect();
        times.sort_unstable();
        let end = |k: usize| times.get((k * times.len()).div_ceil(PERIODS).checked_sub(1)?);
        let mut ends: Vec<DateTime<Utc>> = (1..=PERIODS).filter_map(end).copied().collect();
        ends.dedup();
        Self {
            ends,
            start: times.first().copied(),
        }
    }

    fn names(&self, time: DateTime<Utc>) -> Vec<String> {
        let at = self.ends.partition_point(|end| *end < time);
        let mut names = Vec::with_capacity(3);
        if let Some(end) = self.ends.get(at) {
            let start = at
                .checked_sub(1)
                .map_or(self.start, |before| self.ends.get(before).copied());
            let start = start.unwrap_or(*end);
            names.push(format!("{} to {}", minute(start), minute(*end)));
        }
        // A day that is not over says nothing of hours and days.
        let span = self.start.zip(self.ends.last());
        let days = span.map_or(0, |(start, end)| (*end - start).num_days());
        if days >= 1 {
            let hour = time.hour() / 4 * 4;
            names.push(format!("{hour:02}:00 to {:02}:00 UTC", hour + 4));
        }
        if days >= 7 {
            names.push(format!("on a {}", weekday(time)));
        }
        names
    }
}

fn minute(time: DateTime<Utc>) -> impl std::fmt::Display {
    time.format("%Y-%m-%d %H:%M")
}

fn weekday(time: DateTime<Utc>) -> &'static str {
    const NAMES: [&str; 7] = [
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
    ];
    NAMES[time.weekday().num_days_from_monday() as usize]
}
