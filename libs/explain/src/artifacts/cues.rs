//! The words a surrogate goes by: its lexical weights on the texts of the shadow split.
//!
//! Features are hashed, so a weight has no name of its own. What is added up is what each
//! bucket did for the label that the surrogate gave, over the shadow split; then the
//! texts are gone through once more for the n-grams behind the few buckets that matter.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use tracer_features::{Hasher, LexiconConfig, NGram};
use tracer_learn::{AttributionScratch, Pipeline};

use super::held_out::{HeldOut, name};

/// Labels with cues, cues of one label, and cues over all labels, at the most.
const LABELS: usize = 200;
const OF_A_LABEL: usize = 8;
const GLOBAL: usize = 20;
/// Buckets looked up for one that is shown: many are parts of one word.
const SPARE: usize = 6;
/// Texts that are gone through, at the most: an even sample.
const TEXTS: usize = 5000;
/// Names kept of one bucket.
const NAMES: usize = 4;

/// What the surrogate goes by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cues {
    /// Shadow texts that were gone through.
    pub texts: usize,
    /// N-grams that count most over all labels.
    pub global: Vec<NGramCue>,
    /// By label of the surrogate, those it gave most often first.
    pub labels: Vec<LabelCues>,
}

/// What speaks for one label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LabelCues {
    /// The surrogate's label.
    pub label: String,
    /// How often it gave it in these texts.
    pub predictions: usize,
    /// The n-grams that speak for it most.
    pub cues: Vec<NGramCue>,
}

/// One n-gram.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NGramCue {
    /// The n-gram: words, or characters of one word, where `_` is its start or its end.
    pub ngram: String,
    /// Texts with it, of those that were given the label (over all labels: of all).
    pub texts: usize,
    /// What it adds to the label's log-odds against the average label, per such text,
    /// on average.
    pub weight: f64,
}

#[derive(Clone, Copy, Default)]
struct Sum {
    texts: usize,
    weight: f64,
}

/// What the pipeline's lexical weights do on the shadow split. The error says why there
/// is nothing to tell.
pub(crate) fn cues(
    held: &HeldOut<'_>,
    pipeline: &Pipeline,
    lexicon: &LexiconConfig,
) -> Result<Cues, String> {
    if !pipeline.has_lexical_weights() {
        return Err("the surrogate has no linear model on words: nothing in it has a name".into());
    }
    if !held.shows_texts() {
        return Err("the texts are withheld: what the surrogate goes by has no names".into());
    }
    let step = held.rows.len().div_ceil(TEXTS).max(1);
    let rows: Vec<(usize, &str)> = held
        .rows
        .iter()
        .step_by(step)
        .filter_map(|seen| Some((seen.predicted, held.text(seen)?)))
        .collect();
    let mut by_class: BTreeMap<usize, (usize, HashMap<u32, Sum>)> = BTreeMap::new();
    let mut overall: HashMap<u32, Sum> = HashMap::new();
    let (mut scratch, mut told) = (AttributionScratch::default(), Vec::new());
    for &(class, text) in &rows {
        pipeline.lexical_contributions(text, class, &mut scratch, &mut told);
        let (predictions, sums) = by_class.entry(class).or_default();
        *predictions += 1;
        for contribution in &told {
            for sums in [&mut *sums, &mut overall] {
                let sum = sums.entry(contribution.bucket).or_default();
                sum.texts += 1;
                sum.weight += f64::from(contribution.weight);
            }
        }
    }
    let mut classes: Vec<_> = by_class.into_iter().collect();
    classes.sort_by_key(|(_, (predictions, _))| std::cmp::Reverse(*predictions));
    classes.truncate(LABELS);
    let tops: Vec<_> = classes
        .into_iter()
        .map(|(class, (predictions, sums))| (class, predictions, top(sums, OF_A_LABEL * SPARE)))
        .collect();
    let overall = top(overall, GLOBAL * SPARE);
    let wanted = tops.iter().flat_map(|(_, _, top)| top);
    let wanted: HashSet<u32> = wanted.chain(&overall).map(|&(bucket, _)| bucket).collect();
    let names = names(lexicon, &wanted, rows.iter().map(|&(_, text)| text));
    Ok(Cues {
        texts: rows.len(),
        global: shown(&overall, &names, GLOBAL),
        labels: tops
            .into_iter()
            .map(|(class, predictions, top)| LabelCues {
                label: name(held.class(class)),
                predictions,
                cues: shown(&top, &names, OF_A_LABEL),
            })
            .filter(|label| !label.cues.is_empty())
            .collect(),
    })
}

/// The buckets that add the most in all. One text alone shows nothing.
fn top(sums: HashMap<u32, Sum>, most: usize) -> Vec<(u32, Sum)> {
    let mut sums: Vec<(u32, Sum)> = sums
        .into_iter()
        .filter(|(_, sum)| sum.texts > 1 && sum.weight > 0.0)
        .collect();
    sums.sort_by(|a, b| b.1.weight.total_cmp(&a.1.weight).then(a.0.cmp(&b.0)));
    sums.truncate(most);
    sums
}

/// What stands behind some buckets: their most frequent n-gram in the texts. Other
/// n-grams may fall into the same bucket; nothing can tell them apart, the surrogate
/// least of all.
fn names<'a>(
    lexicon: &LexiconConfig,
    wanted: &HashSet<u32>,
    texts: impl Iterator<Item = &'a str>,
) -> HashMap<u32, String> {
    let hasher = Hasher::new(lexicon);
    let mut found: HashMap<u32, Vec<(String, usize)>> = HashMap::new();
    for text in texts {
        hasher.ngrams(text, |bucket, ngram| {
            if !wanted.contains(&bucket) {
                return;
            }
            let (NGram::Words(plain) | NGram::Characters(plain)) = ngram;
            let known = found.entry(bucket).or_default();
            let is_it = |shown: &str| match ngram {
                NGram::Words(_) => shown == plain,
                NGram::Characters(_) => shown.strip_suffix('\0') == Some(plain),
            };
            if let Some((_, count)) = known.iter_mut().find(|(shown, _)| is_it(shown)) {
                *count += 1;
            } else if known.len() < NAMES {
                // Marked as characters until it is shown.
                let characters = matches!(ngram, NGram::Characters(_));
                let mark = if characters { "\0" } else { "" };
                known.push((format!("{plain}{mark}"), 1));
            }
        });
    }
    found
        .into_iter()
        .filter_map(|(bucket, names)| {
            let best = names
                .into_iter()
                .max_by(|a, b| a.1.cmp(&b.1).then_with(|| b.0.cmp(&a.0)))?
                .0;
            let shown = match best.strip_suffix('\0') {
                Some(characters) => characters.replace(' ', "_"),
                None => best,
            };
            Some((bucket, shown))
        })
        .collect()
}

/// The first few that are not part of one another.
fn shown(top: &[(u32, Sum)], names: &HashMap<u32, String>, most: usize) -> Vec<NGramCue> {
    let mut shown: Vec<NGramCue> = Vec::new();
    for (bucket, sum) in top {
        let Some(ngram) = names.get(bucket) else {
            continue;
        };
        let core = ngram.trim_matches('_');
        let said = |other: &NGramCue| {
            let other = other.ngram.trim_matches('_');
            other.contains(core) || core.contains(other)
        };
        if core.is_empty() || shown.iter().any(said) {
            continue;
        }
        shown.push(NGramCue {
            ngram: name(ngram),
            texts: sum.texts,
            weight: sum.weight / sum.texts as f64,
        });
        if shown.len() == most {
            break;
        }
    }
    shown
}
