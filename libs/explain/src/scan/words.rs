//! Sentences that the terminal and the page share.

use tracer_learn::{Certifiable, Learning, Need, ScanTarget, ShadowNeed};

use super::{Estimate, Saving, ScanReport};
pub(super) use crate::words::{number, percent, target, tidy};

/// Two significant digits, upward: no forecast is better than that.
fn about(n: usize) -> String {
    let unit = 10_usize.pow(n.max(1).ilog10().saturating_sub(1));
    number(n.div_ceil(unit) * unit)
}

/// In words; the blank before the sign does not break.
pub(super) fn range(low: f64, high: f64) -> String {
    format!("{} to {}", percent(low), percent(high))
}

pub(super) fn count(n: usize, one: &str, many: &str) -> String {
    format!("{} {}", number(n), if n == 1 { one } else { many })
}

pub(super) fn verdict(of: &ScanTarget) -> String {
    match of.verdict {
        Certifiable::Now if of.passes < 0.9 => {
            format!(
                "certifiable now, with luck (in {:.0} of 10 draws)",
                10.0 * of.passes
            )
        }
        Certifiable::Now => "certifiable now".into(),
        Certifiable::NotYet if of.passes > 0.0 => {
            format!("not yet (in {:.0} of 100 draws)", 100.0 * of.passes)
        }
        Certifiable::NotYet => "not yet".into(),
        Certifiable::NotWithTheseFeatures => "not with these features".into(),
        Certifiable::CannotTell => "too few traces to tell".into(),
    }
}

/// How many traces, given how many there are.
pub(super) fn need(need: &Need, have: usize) -> String {
    let more = |n: usize| about(n.saturating_sub(have));
    match (need.at_best, need.at_worst) {
        (Some(best), Some(worst)) if best <= have && worst <= have => "there already".into(),
        (Some(best), Some(worst)) if best == worst => {
            format!("about {} in all ({} more)", about(best), more(best))
        }
        (Some(best), Some(worst)) => format!(
            "{} to {} in all ({} to {} more)",
            about(best.max(have)),
            about(worst),
            if best <= have { "0".into() } else { more(best) },
            more(worst)
        ),
        (Some(best), None) => format!(
            "{} in all at best; at worst not within {}",
            about(best),
            about(20 * have)
        ),
        (None, Some(worst)) => format!("about {} in all", about(worst)),
        (None, None) => format!("not within {}, as far as can be told", about(20 * have)),
    }
}

pub(super) fn learning(learning: Learning) -> String {
    let halved = |slope: f64| percent(1.0 - 2.0_f64.powf(-slope));
    match learning {
        Learning::PowerLaw {
            slope,
            slowest,
            fastest,
        } => format!(
            "Each doubling of the traces takes away {} of the disagreements ({} to {}).",
            halved(slope),
            halved(slowest),
            halved(fastest)
        ),
        Learning::Flat => "The learning curve does not fall beyond its noise: one cannot tell \
            whether more traces would teach the surrogate anything. What is said of more traces \
            is what a longer shadow split alone would do."
            .into(),
        Learning::TooShort => "The learning curve is too short to go on: one cannot tell what \
            more traces would teach the surrogate. What is said of more traces is what a longer \
            shadow split alone would do."
            .into(),
        Learning::NearlyPerfect => "There are too few disagreements to fit a learning curve to, \
            and little is left to learn. What is said of more traces is what a longer shadow \
            split alone would do."
            .into(),
    }
}

/// What the exact bound asks for.
pub(super) fn shadow(need: &ShadowNeed) -> String {
    let seen = format!(
        "on the surest {} they agree on {}",
        target(need.coverage),
        percent(need.agreement)
    );
    let (Some([even, sure]), Some([few, many])) = (need.rows, need.traces) else {
        return format!(
            "{seen}: no shadow split certifies that, the surrogate has to get better first"
        );
    };
    format!(
        "{seen}: to certify that, {} shadow rows are an even chance and {} nine in ten, of {} and {} traces",
        number(even),
        number(sure),
        number(few),
        number(many)
    )
}

pub(super) fn dollars(value: f64) -> String {
    if value >= 1000.0 {
        format!("${}", number(value.round() as usize))
    } else {
        format!("${value:.2}")
    }
}

/// What a target saves, in as many words as is known.
pub(super) fn saving(saving: &Saving) -> String {
    let (Some(day), Some(month)) = (saving.calls_a_day, saving.calls_a_month) else {
        let calls = format!("{:.0} of every 1,000 calls", saving.of_a_thousand);
        return match saving.dollars_of_a_thousand {
            Some(value) => format!("{calls}: {}", dollars(value)),
            None => calls,
        };
    };
    let calls = format!(
        "{} calls a day, {} in 30 days",
        number(day.round() as usize),
        number(month.round() as usize)
    );
    match saving.dollars_a_day.zip(saving.dollars_a_month) {
        Some((day, month)) => {
            format!(
                "{calls}: {} a day, {} in 30 days",
                dollars(day),
                dollars(month)
            )
        }
        None => calls,
    }
}

/// What is in the file, a sentence a line.
pub(super) fn contents(report: &ScanReport) -> Vec<String> {
    let (file, contents) = (&report.file, &report.contents);
    let mut out = Vec::new();
    let mut traces = format!(
        "{} of task {}",
        count(contents.traces, "trace", "traces"),
        tidy(&file.task, 60)
    );
    if contents.traces > contents.with_text {
        traces += &format!(
            "; {} without text",
            number(contents.traces - contents.with_text)
        );
    }
    traces += &match contents.dimension {
        Some(dimension) if contents.with_embedding == contents.traces => {
            format!("; embeddings of {dimension} dimensions")
        }
        Some(dimension) => format!(
            "; embeddings of {dimension} dimensions on {} of them",
            number(contents.with_embedding)
        ),
        None => "; no embeddings".into(),
    };
    out.push(traces + ".");
    if let Some([least, median, most, longest]) = contents.text_length {
        out.push(format!(
            "Texts of {} to {} characters: half at most {}, 95 % at most {}.",
            number(least),
            number(longest),
            number(median),
            number(most)
        ));
    }
    if let (Some((common, most)), Some((rare, least))) = (&contents.commonest, &contents.rarest) {
        out.push(format!(
            "{}: the commonest is {} ({}), the rarest {} ({}).",
            count(contents.labels, "label", "labels"),
            tidy(common, 40),
            number(*most),
            tidy(rare, 40),
            number(*least)
        ));
    }
    if contents.single > 0 {
        out.push(format!(
            "{}: {}.",
            count(
                contents.single,
                "label has one trace",
                "labels have one trace"
            ),
            listed(
                contents.single_labels.iter().map(|l| tidy(l, 40)),
                contents.single
            )
        ));
    }
    if contents.folded > 0 {
        out.push(format!(
            "{} in several spellings, which differ in case or space alone and count as one: {}.",
            count(contents.folded, "label came", "labels came"),
            listed(
                contents
                    .folded_labels
                    .iter()
                    .map(|(l, n)| format!("{} ({n})", tidy(l, 40))),
                contents.folded
            )
        ));
    }
    out.push(match contents.duplicates {
        0 => "No duplicates.".into(),
        n => format!(
            "{} ({}): the same text but for case and space, or the same embedding.",
            count(n, "duplicate", "duplicates"),
            percent(n as f64 / contents.traces as f64)
        ),
    });
    if contents.contradictory > 0 {
        out.push(format!(
            "{} came with several labels ({}): no surrogate can agree on more than {} of the traces.",
            count(contents.contradictory, "input", "inputs"),
            count(contents.contradictory_traces, "trace", "traces"),
            percent(contents.ceiling)
        ));
    }
    if file.unusable > 0 {
        let lines = file
            .unusable_lines
            .iter()
            .map(|(line, why)| format!("line {line}: {}", tidy(why, 120)));
        out.push(format!(
            "{} passed over, of {}: {}.",
            count(file.unusable, "line was", "lines were"),
            number(file.lines),
            listed(lines, file.unusable)
        ));
    }
    if !file.other_tasks.is_empty() {
        let tasks = file
            .other_tasks
            .iter()
            .map(|(task, n)| format!("{} ({})", tidy(task, 40), number(*n)));
        out.push(format!(
            "The file has traces of other tasks too, which are left out: {}.",
            listed(tasks.take(10), file.other_tasks.len())
        ));
    }
    if file.routed > 0 {
        out.push(format!(
            "{} came while a pipeline was serving: what it handled is missing, so the file is harder than the traffic.",
            count(file.routed, "trace", "traces")
        ));
    }
    out
}

fn listed(items: impl Iterator<Item = String>, all: usize) -> String {
    let items: Vec<String> = items.collect();
    let rest = all.saturating_sub(items.len());
    let mut out = items.join(", ");
    if rest > 0 {
        out += &format!(" and {} more", number(rest));
    }
    out
}

/// On what the estimate stands.
pub(super) fn basis(estimate: &Estimate) -> String {
    let features: &str = match estimate.features[..] {
        ["dense"] => "embeddings alone",
        ["lexical"] => "text alone",
        _ => "embeddings and text",
    };
    let [low, high] = estimate.agreement_interval;
    let sample = if estimate.looked_at < estimate.usable {
        format!(
            ", an even sample of {}, as if there were no more",
            number(estimate.usable)
        )
    } else {
        String::new()
    };
    format!(
        "On {}{sample}, from {features}: surrogate and teacher agree on {} ({} to {}) of all traces, each predicted by a model that had not seen it.",
        count(estimate.looked_at, "trace", "traces"),
        percent(estimate.agreement),
        percent(low),
        percent(high)
    )
}

/// What the estimate is not.
pub(super) const CAVEAT: &str = "Estimates of what a refit would certify; nothing is certified or \
    published here. A refit tries more candidates, and defers about 2 % of the traffic as foreign \
    unless its ood_budget is 0. All of it holds for traffic like these traces.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_text_becomes_a_plain_line() {
        assert_eq!(
            tidy("a\u{1b}[31m\n\u{202e}b\u{200b}  c\u{0}", 20),
            "a [31m b c"
        );
        assert_eq!(tidy("äöü€🙂xyz", 5), "äöü€…");
        assert_eq!(tidy("abcde", 5), "abcde");
        assert_eq!(tidy(&"\u{200b}".repeat(10_000), 5), "…");
        assert_eq!(tidy("", 5), "");
    }

    #[test]
    fn numbers_and_forecasts() {
        assert_eq!(
            [0, 12, 1000, 1_234_567].map(number),
            ["0", "12", "1,000", "1,234,567"]
        );
        assert_eq!(
            [0, 7, 12_340, 99_901].map(about),
            ["0", "7", "13,000", "100,000"]
        );
        assert_eq!(percent(0.9999), "99.9\u{a0}%");
        assert_eq!(
            (target(0.95), target(0.975)),
            ("95\u{a0}%".into(), "97.5\u{a0}%".into())
        );
        let of = |at_best, at_worst| {
            need(
                &Need {
                    coverage: 0.9,
                    at_best,
                    at_worst,
                    by_statistics: None,
                },
                1000,
            )
        };
        assert_eq!(of(Some(1000), Some(1000)), "there already");
        assert_eq!(
            of(Some(2000), Some(5000)),
            "2,000 to 5,000 in all (1,000 to 4,000 more)"
        );
        assert_eq!(
            of(Some(2000), None),
            "2,000 in all at best; at worst not within 20,000"
        );
        assert_eq!(of(None, None), "not within 20,000, as far as can be told");
    }
}
