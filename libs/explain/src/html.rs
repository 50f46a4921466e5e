//! `report.html`: one self-contained page.

use std::fmt::Write as _;

use crate::report::{FrontierPoint, Report};

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --good: #2a7d4f; --bad: #b3402a; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.passed { color: var(--good); } .refused { color: var(--bad); }
table { border-collapse: collapse; width: 100%; } td, th { padding: .25rem .5rem; border-bottom: 1px solid var(--line); text-align: right; }
td:first-child, th:first-child { text-align: left; overflow-wrap: anywhere; min-width: 8rem; }
p.note { margin: .25rem 0 .5rem; opacity: .8; }
tr.served td { font-weight: bold; }
meter { width: 8rem; vertical-align: middle; }
@media (max-width: 40rem) { meter { display: none; } table { font-size: .8rem; } td, th { padding: .25rem .15rem; } td:first-child, th:first-child { min-width: 3.5rem; } }
";

/// The page of a report.
pub(crate) fn page(report: &Report) -> String {
    let mut out = String::new();
    let title = format!("{}: {}", escape(&report.task), report.verdict);
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title><style>{STYLE}</style></head><body>\
         <h1>Task {task}: <span class=\"{verdict}\">{verdict}</span></h1>",
        task = escape(&report.task),
        verdict = report.verdict,
    );
    let promise = match &report.reason {
        None => format!(
            "Of the traffic, {coverage} is answered by the surrogate, which agrees with the teacher on at least {target} of it (certified at confidence {confidence}; seen: {agreement}, lower bound {lower}, on {n} shadow traces).",
            coverage = percent(report.shadow.coverage),
            target = percent(report.target_agreement),
            confidence = percent(1.0 - report.delta),
            agreement = percent(report.shadow.agreement),
            lower = percent(report.shadow.agreement_lower),
            n = report.shadow.n,
        ),
        Some(reason) => format!("Nothing new is served: {}.", escape(reason)),
    };
    let _ = write!(out, "<p>{promise}</p>");
    pipeline(&mut out, report);
    targets(&mut out, report);
    families(&mut out, report);
    candidates(&mut out, report);
    budgets(&mut out, report);
    coverage(&mut out, report);
    labels(&mut out, report);
    out.push_str("</body></html>\n");
    out
}

/// A heading, what stands below it, and the head of a table.
fn open(out: &mut String, title: &str, note: &str, columns: &[&str]) {
    let _ = write!(out, "<h2>{title}</h2>");
    if !note.is_empty() {
        let _ = write!(out, "<p class=\"note\">{note}</p>");
    }
    out.push_str("<table>");
    if !columns.is_empty() {
        let _ = write!(out, "<tr><th>{}</th></tr>", columns.join("</th><th>"));
    }
}

fn close(out: &mut String) {
    out.push_str("</table>");
}

fn pipeline(out: &mut String, report: &Report) {
    open(out, "The pipeline", "", &[]);
    let mut facts = vec![
        ("Family", report.family.clone()),
        ("Surrogate", report.surrogate.clone()),
        ("Threshold", format!("{:.4}", report.threshold)),
        ("Training traces", report.training_traces.to_string()),
        ("Shadow traces", report.shadow.n.to_string()),
        (
            "Traces left out for what they lack, or for a faulty embedding",
            report.left_out.to_string(),
        ),
        (
            "Traces beyond the cap, not sampled",
            report.not_sampled.to_string(),
        ),
    ];
    if report.weighted {
        facts.push((
            "Weighted: the handled shadow traces are worth",
            format!("{:.0} of equal weight", report.shadow.n_effective),
        ));
    }
    for (name, value) in facts {
        let _ = write!(out, "<tr><td>{name}</td><td>{}</td></tr>", broken(&value));
    }
    close(out);
}

fn targets(out: &mut String, report: &Report) {
    if report.targets.is_empty() {
        return;
    }
    let note = "What the gate says of this pipeline's policy at other targets. A promise holds for a target that is chosen beforehand.";
    let columns = ["Target", "Verdict", "Coverage", "Agreement", "Lower bound"];
    open(out, "Other targets", note, &columns);
    for point in &report.targets {
        let (verdict, shadow) = (
            if point.passed { "passed" } else { "refused" },
            &point.shadow,
        );
        let _ = write!(
            out,
            "<tr><td>{}</td><td class=\"{verdict}\">{verdict}</td>",
            percent(point.target_agreement)
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

fn families(out: &mut String, report: &Report) {
    if report.families.is_empty() {
        return;
    }
    let note = "The coverage to be expected at the target, by out-of-fold predictions. The gate has the last word.";
    open(
        out,
        "Families",
        note,
        &["Family", "Expected coverage", "Surrogate"],
    );
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
}

fn candidates(out: &mut String, report: &Report) {
    let note = "Macro-F1 against the teacher, out of fold; of those that dropped out after the first fold, over that one.";
    open(
        out,
        "Candidates",
        note,
        &["Candidate", "Macro-F1", "Dropped out"],
    );
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
}

fn budgets(out: &mut String, report: &Report) {
    if report.budgets.is_empty() {
        return;
    }
    let note = "What the guard would defer of the shadow traces at other budgets, at the same threshold. A larger budget catches more of what the pipeline was not certified on.";
    let columns = ["Budget", "Deferred by it", "Coverage", "Agreement"];
    open(out, "Out-of-distribution guard", note, &columns);
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
}

fn coverage(out: &mut String, report: &Report) {
    let columns = ["Coverage", "Agreement", "Lower bound"];
    open(out, "Coverage against agreement", "", &columns);
    for (point, served) in frontier(report) {
        let _ = write!(
            out,
            "<tr{}><td>{}{}</td><td>{}</td><td>{}</td></tr>",
            if served { " class=\"served\"" } else { "" },
            percent(point.coverage),
            if served { " (this pipeline)" } else { "" },
            percent(point.agreement),
            percent(point.agreement_lower)
        );
    }
    close(out);
}

fn labels(out: &mut String, report: &Report) {
    let columns = ["Label", "Traces", "Handled", "Agreement"];
    open(out, "Labels, the most deferred first", "", &columns);
    for slice in &report.labels {
        let share = slice.handled_share;
        let agreement = slice.agreement.map_or_else(|| "–".to_owned(), percent);
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td><meter value=\"{share:.3}\" aria-hidden=\"true\"></meter> {}</td><td>{agreement}</td></tr>",
            broken(&slice.label),
            slice.n,
            percent(share),
        );
    }
    close(out);
}

/// About a dozen points of the frontier by coverage, the first, the last and the
/// pipeline's own among them; true marks that one.
fn frontier(report: &Report) -> Vec<(FrontierPoint, bool)> {
    let shadow = &report.shadow;
    let own = report.reason.is_none().then_some(FrontierPoint {
        coverage: shadow.coverage,
        agreement: shadow.agreement,
        agreement_lower: shadow.agreement_lower,
    });
    let (all, last) = (&report.frontier, report.frontier.len().saturating_sub(1));
    let step = last.div_ceil(12).max(1);
    let mut points: Vec<_> = (0..all.len())
        .filter(|i| i % step == 0 || *i == last)
        .map(|i| (all[i].clone(), false))
        .filter(|(point, _)| own.as_ref() != Some(point))
        .collect();
    points.extend(own.map(|own| (own, true)));
    points.sort_by(|(a, _), (b, _)| a.coverage.total_cmp(&b.coverage));
    points
}

fn percent(share: f64) -> String {
    // An empty sum is -0.
    format!("{:.1} %", 100.0 * share + 0.0)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Escaped, and may be broken where its words are.
pub(crate) fn broken(text: &str) -> String {
    escape(text).replace('_', "_<wbr>").replace('+', "+<wbr>")
}
