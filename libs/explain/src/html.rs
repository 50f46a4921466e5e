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
tr.served td { font-weight: bold; }
meter { width: 8rem; vertical-align: middle; }
@media (max-width: 40rem) { meter { display: none; } table { font-size: .85rem; } td, th { padding: .25rem; } td:first-child, th:first-child { min-width: 5rem; } }
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
    let _ = write!(out, "<p>{promise}</p><h2>The pipeline</h2><table>");
    let facts = [
        ("Family", report.family.clone()),
        ("Surrogate", report.surrogate.clone()),
        ("Threshold", format!("{:.4}", report.threshold)),
        ("Training traces", report.training_traces.to_string()),
        (
            "Traces left out for want of a feature",
            report.left_out.to_string(),
        ),
    ];
    for (name, value) in facts {
        let _ = write!(out, "<tr><td>{name}</td><td>{}</td></tr>", escape(&value));
    }
    out.push_str("</table><h2>Candidates</h2><table><tr><th>Candidate</th><th>Macro-F1 out of fold</th></tr>");
    for (name, f1) in &report.candidates {
        let _ = write!(out, "<tr><td>{}</td><td>{f1:.4}</td></tr>", escape(name));
    }
    out.push_str("</table><h2>Coverage against agreement</h2><table><tr><th>Coverage</th><th>Agreement</th><th>Lower bound</th></tr>");
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
    out.push_str("</table><h2>Labels, the most deferred first</h2><table><tr><th>Label</th><th>Traces</th><th>Handled</th><th>Agreement</th></tr>");
    for slice in &report.labels {
        let share = slice.handled as f64 / slice.n.max(1) as f64;
        let agreement = slice.agreement.map_or_else(|| "–".to_owned(), percent);
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td><meter value=\"{share:.3}\" aria-hidden=\"true\"></meter> {}</td><td>{agreement}</td></tr>",
            // May be broken where its words are.
            escape(&slice.label).replace('_', "_<wbr>"),
            slice.n,
            percent(share),
        );
    }
    out.push_str("</table></body></html>\n");
    out
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
    format!("{:.1} %", 100.0 * share)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
