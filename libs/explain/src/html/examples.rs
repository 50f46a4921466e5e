//! Cards, pairs and disagreements: traces to read.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{folded, note};
use crate::{
    artifacts::{Card, DeferredBy, Example, LabelCards, LabelPairs},
    page::label,
    report::Report,
    words::{escape, number, percent, tidy},
};

/// Longest text on the page, in characters.
const LONGEST: usize = 240;

pub(super) fn cards(out: &mut String, report: &Report) {
    if report.cards.is_empty() {
        return;
    }
    note(
        out,
        "Of each label the input nearest to the middle of what is handled, and of what is deferred. The commonest labels come first.",
    );
    folded(out, &report.cards, (6, 100), "labels", |out, cards| {
        for of in cards {
            label_cards(out, of);
        }
    });
}

fn label_cards(out: &mut String, of: &LabelCards) {
    let _ = write!(
        out,
        "<article><h3>{}</h3><div class=\"two\">",
        label(&of.label)
    );
    for (card, class, what) in [
        (&of.handled, "handled", "Handled"),
        (&of.deferred, "deferred", "Deferred"),
    ] {
        let _ = write!(out, "<div class=\"{class}\"><div class=\"small soft\">");
        match card {
            None => {
                let _ = write!(out, "{what}: none</div></div>");
            }
            Some(Card {
                of, example: one, ..
            }) => {
                let of = if *of == 1 {
                    "the only one".to_owned()
                } else {
                    format!("typical of {}", number(*of))
                };
                let _ = write!(out, "{what}, {of}</div>");
                example(out, one, None);
                out.push_str("</div>");
            }
        }
    }
    out.push_str("</div></article>");
}

pub(super) fn pairs(out: &mut String, report: &Report) {
    if report.pairs.is_empty() {
        return;
    }
    note(
        out,
        "Two inputs that the teacher gives the same label, as near to each other as there are: one is handled, the other deferred for its low score. Where the two share many words, those in one alone are marked. The labels in which most is deferred come first.",
    );
    folded(out, &report.pairs, (6, 60), "labels", |out, labels| {
        for of in labels {
            label_pairs(out, of);
        }
    });
}

fn label_pairs(out: &mut String, of: &LabelPairs) {
    let _ = write!(out, "<article><h3>{}</h3>", label(&of.label));
    for pair in &of.pairs {
        let (handled, deferred) = (words(&pair.handled), words(&pair.deferred));
        // Where nearly every word would be marked, a mark says nothing.
        let alike =
            3 * handled.intersection(&deferred).count() >= handled.len().max(deferred.len());
        out.push_str(
            "<div class=\"two\"><div class=\"handled\"><div class=\"small soft\">Handled</div>",
        );
        example(out, &pair.handled, alike.then_some(&deferred));
        out.push_str("</div><div class=\"deferred\"><div class=\"small soft\">Deferred</div>");
        example(out, &pair.deferred, alike.then_some(&handled));
        out.push_str("</div></div>");
    }
    out.push_str("</article>");
}

pub(super) fn disagreements(out: &mut String, report: &Report) {
    if report.disagreements.is_empty() {
        return;
    }
    note(
        out,
        "Grouped by what the surrogate said. Those that are handled all the same are the price of the coverage, and come first.",
    );
    folded(
        out,
        &report.disagreements,
        (5, 40),
        "answers",
        |out, groups| {
            for group in groups {
                let teacher: Vec<String> = group
                    .teacher
                    .iter()
                    .map(|one| format!("<b>{}</b> ({})", label(&one.label), number(one.n)))
                    .collect();
                let handled = if report.reason.is_some() {
                    String::new()
                } else if group.handled == 0 {
                    " All of these are deferred.".to_owned()
                } else {
                    format!(" {} of these are handled.", number(group.handled))
                };
                let _ = write!(
                    out,
                    "<article><h3>The surrogate says {}</h3><p class=\"small\">{} of {} times ({}) the teacher says something else: {}.{handled}</p><ul>",
                    label(&group.predicted),
                    number(group.disagreements),
                    number(group.predictions),
                    percent(group.disagreements as f64 / group.predictions.max(1) as f64),
                    teacher.join(", "),
                );
                for one in &group.examples {
                    out.push_str("<li>");
                    example(out, one, None);
                    out.push_str("</li>");
                }
                out.push_str("</ul></article>");
            }
        },
    );
}

/// A trace; words of it that are not in `other` are marked.
pub(super) fn example(out: &mut String, one: &Example, other: Option<&BTreeSet<String>>) {
    if let Some(text) = &one.text {
        let text = tidy(text, LONGEST);
        let _ = write!(
            out,
            "<p class=\"said\" dir=\"auto\">“{}”</p>",
            marked(&text, other)
        );
    }
    let said = if one.agrees {
        format!("both say {}", label(&one.label))
    } else {
        format!(
            "surrogate {}, teacher {}",
            label(&one.predicted),
            label(&one.label)
        )
    };
    let fate = match one.deferred_by {
        Some(DeferredBy::OutOfDistribution) => ", unlike the traces",
        Some(DeferredBy::LowScore) | None => "",
    };
    let _ = write!(
        out,
        "<p class=\"small soft said\">{said}; score {:.2}{fate}; <code><bdi>{}</bdi></code></p>",
        one.score,
        escape(&tidy(&one.id, 60))
    );
}

/// The words of an example as they are compared.
fn words(one: &Example) -> BTreeSet<String> {
    let text = one.text.as_deref().unwrap_or_default();
    text.split(' ').map(core).collect()
}

fn core(word: &str) -> String {
    word.trim_matches(|c: char| !c.is_alphanumeric())
        .to_lowercase()
}

fn marked(text: &str, other: Option<&BTreeSet<String>>) -> String {
    let Some(other) = other else {
        return escape(text);
    };
    let words = text.split(' ').map(|word| {
        let core = core(word);
        if core.is_empty() || other.contains(&core) {
            escape(word)
        } else {
            format!("<mark>{}</mark>", escape(word))
        }
    });
    words.collect::<Vec<_>>().join(" ")
}
