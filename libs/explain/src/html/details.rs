//! How the pipeline was made, other targets, and what it saves.

use std::fmt::Write as _;

use super::{close, head, note};
use crate::{
    report::Report,
    words::{broken, escape, number, percent, target},
};

pub(super) fn cost(out: &mut String, report: &Report) {
    let Some(cost) = &report.cost else { return };
    let _ = write!(
        out,
        "<p>A call of the teacher costs {} on average; {} of the calls are saved, audits taken off.</p>",
        dollars(cost.call_dollars),
        percent(cost.saved_share)
    );
    if let Some(projected) = &cost.projected {
        let _ = write!(
            out,
            "<p>To be expected: {} a day of {}, at {} calls a day.</p>",
            dollars(projected.saved_dollars_per_day),
            dollars(projected.dollars_per_day),
            number(projected.calls_per_day.max(0.0).round() as usize)
        );
    }
    if let Some(actual) = &cost.actual {
        let _ = write!(
            out,
            "<p>Counted since {}: {} saved, {} calls answered by the surrogate and {} by the teacher.</p>",
            escape(&actual.since),
            dollars(actual.saved_dollars),
            number(actual.calls_saved as usize),
            number(actual.calls_made as usize)
        );
    }
}

/// Cents, and for less than a dollar as many digits as say something.
fn dollars(amount: f64) -> String {
    if amount.abs() >= 1.0 || amount == 0.0 {
        format!("${amount:.2}")
    } else {
        format!("${amount:.6}").trim_end_matches('0').to_owned()
    }
}

pub(super) fn targets(out: &mut String, report: &Report) {
    if report.targets.is_empty() {
        return;
    }
    note(
        out,
        "What the gate says of this pipeline’s policy at other targets. A promise holds for a target that is chosen beforehand.",
    );
    head(
        out,
        "",
        &["Target", "Verdict", "Coverage", "Agreement", "Lower bound"],
    );
    for point in &report.targets {
        let shadow = &point.shadow;
        let verdict = if point.passed { "passed" } else { "refused" };
        let _ = write!(
            out,
            "<tr><td>{}</td><td class=\"{verdict}\">{verdict}</td>",
            target(point.target_agreement)
        );
        let cells = if point.passed {
            [shadow.coverage, shadow.agreement, shadow.agreement_lower].map(percent)
        } else {
            ["–"; 3].map(str::to_owned)
        };
        let _ = write!(out, "<td>{}</td></tr>", cells.join("</td><td>"));
    }
    close(out);
}

pub(super) fn pipeline(out: &mut String, report: &Report) {
    out.push_str("<dl>");
    let absent = || "–".to_owned();
    let mut facts = vec![
        ("Family", report.family.clone().unwrap_or_else(absent)),
        ("Surrogate", report.surrogate.clone().unwrap_or_else(absent)),
        (
            "Threshold",
            report.threshold.map_or_else(absent, |t| format!("{t:.4}")),
        ),
        ("Training traces", number(report.training_traces)),
        ("Shadow traces", number(report.shadow.n)),
        (
            "Left out for what they lack, or for a faulty embedding",
            number(report.left_out),
        ),
        ("Beyond the cap, not sampled", number(report.not_sampled)),
    ];
    if report.weighted {
        facts.push((
            "Weighted: the handled shadow traces are worth",
            format!("{:.0} of equal weight", report.shadow.n_effective),
        ));
    }
    for (name, value) in facts {
        let _ = write!(out, "<dt>{name}</dt><dd>{}</dd>", broken(&value));
    }
    out.push_str("</dl>");
    if !report.families.is_empty() {
        out.push_str("<details><summary>Families</summary>");
        note(
            out,
            "The coverage to be expected at the target, by out-of-fold predictions. The gate has the last word.",
        );
        head(out, "labels", &["Family", "Expected coverage", "Surrogate"]);
        for family in &report.families {
            let _ = write!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(&family.family),
                percent(family.expected_coverage),
                broken(&family.surrogate)
            );
        }
        close(out);
        out.push_str("</details>");
    }
    if !report.candidates.is_empty() {
        out.push_str("<details><summary>Candidates</summary>");
        note(
            out,
            "Macro-F1 against the teacher, out of fold; of those that dropped out after the first fold, over that one.",
        );
        head(out, "labels", &["Candidate", "Macro-F1", "Dropped out"]);
        for candidate in &report.candidates {
            let f1 = candidate.macro_f1;
            let _ = write!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
                broken(&candidate.name),
                f1.map_or_else(|| "–".to_owned(), |f1| format!("{f1:.4}")),
                escape(candidate.dropped.as_deref().unwrap_or_default())
            );
        }
        close(out);
        out.push_str("</details>");
    }
    budgets(out, report);
}

fn budgets(out: &mut String, report: &Report) {
    if report.budgets.is_empty() {
        return;
    }
    out.push_str("<details><summary>Out-of-distribution guard</summary>");
    note(
        out,
        "What the guard would defer of the shadow traces at other budgets, at the same threshold. A larger budget catches more of what the pipeline was not certified on.",
    );
    head(
        out,
        "",
        &["Budget", "Deferred by it", "Coverage", "Agreement"],
    );
    for point in &report.budgets {
        let cells = [
            point.budget,
            point.foreign,
            point.shadow.coverage,
            point.shadow.agreement,
        ];
        let _ = write!(
            out,
            "<tr><td>{}</td></tr>",
            cells.map(percent).join("</td><td>")
        );
    }
    close(out);
    out.push_str("</details>");
}
