//! A scan as one self-contained page.

use std::fmt::Write as _;

use tracer_learn::{Certifiable, ScanTarget};

use super::{
    Estimate, ScanReport,
    words::{
        CAVEAT, basis, contents, learning, need, number, percent, range, saving, shadow, target,
        tidy, verdict,
    },
};
use crate::{
    page::{STYLE, figure, label},
    plot::Plot,
    words::escape,
};

/// Labels that stand in the table at once, and in all.
const AT_ONCE: usize = 15;
const LABELS: usize = 500;
/// Points of the frontier below this coverage are noise.
const LEAST_COVERAGE: f64 = 0.05;

pub(super) fn page(report: &ScanReport) -> String {
    let mut out = String::new();
    let title = format!("What {} holds", tidy(&report.file.task, 60));
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title><style>{STYLE}</style></head><body><main><h1>{headline}</h1><p class=\"soft\">{file}</p>",
        title = escape(&title),
        headline = headline(report),
        file = escape(&format!(
            "Task {}, from {}",
            tidy(&report.file.task, 60),
            tidy(&report.file.file, 200)
        )),
    );
    if let Some(estimate) = &report.estimate {
        targets(&mut out, report, estimate);
        more(&mut out, estimate);
        groups(&mut out, estimate);
        confusions(&mut out, estimate);
    }
    in_the_file(&mut out, report);
    if report.estimate.is_some() {
        let _ = write!(out, "<p class=\"soft small\">{CAVEAT}</p>");
    }
    out.push_str("</main></body></html>\n");
    out
}

fn headline(report: &ScanReport) -> String {
    let Some(estimate) = &report.estimate else {
        let why = report.no_estimate.as_deref().unwrap_or_default();
        return format!("Cannot tell yet: {}", escape(&tidy(why, 300)));
    };
    // The strictest target that can be certified says most.
    let now = estimate
        .targets
        .iter()
        .rfind(|t| t.verdict == Certifiable::Now);
    match now {
        Some(of) => format!(
            "About {} of the traffic could be answered at {} agreement with the teacher",
            percent(of.expected_coverage),
            target(of.target)
        ),
        None => "Nothing of this traffic could be certified today".to_owned(),
    }
}

fn targets(out: &mut String, report: &ScanReport, estimate: &Estimate) {
    let _ = write!(
        out,
        "<h2>What could be certified, and what it would save</h2><p>{}</p><div class=\"cards\">",
        basis(estimate)
    );
    for (of, one) in estimate.targets.iter().zip(&report.savings) {
        let class = serde_json::to_value(of.verdict).unwrap_or_default();
        let [low, high] = of.coverage_range;
        let _ = write!(
            out,
            "<section class=\"card\"><h3>Target {target}</h3><div class=\"big\">{coverage}</div><div class=\"{class}\">{verdict}</div><p class=\"small\">8 in 10 draws of a shadow split: {low} to {high}. With shadow splits without end: {limit}.</p><p class=\"small\">Saves {saving}, 2 % audits taken off.</p><p class=\"small soft\">{surrogate}</p></section>",
            target = target(of.target),
            coverage = percent(of.expected_coverage),
            class = class.as_str().unwrap_or_default(),
            verdict = verdict(of),
            low = percent(low),
            high = percent(high),
            limit = percent(of.coverage_limit),
            saving = saving(one),
            surrogate = escape(&of.surrogate).replace('+', " + "),
        );
    }
    out.push_str("</div>");
    let points: Vec<(f64, f64)> = estimate
        .frontier
        .iter()
        .filter(|[coverage, _]| *coverage >= LEAST_COVERAGE)
        .map(|&[coverage, agreement]| (coverage, agreement))
        .collect();
    let lowest = points
        .iter()
        .map(|p| p.1)
        .chain(estimate.targets.iter().map(|t| t.target))
        .fold(1.0, f64::min);
    let mut lines = vec![(points, false)];
    lines.extend(
        estimate
            .targets
            .iter()
            .map(|t| (vec![(0.0, t.target), (1.0, t.target)], false)),
    );
    let frontier = Plot {
        x: 0.0..1.0,
        y: (lowest - 0.01).max(0.0)..1.0,
        x_name: "coverage",
        y_name: "agreement",
        x_label: &|share| format!("{:.0}%", 100.0 * share),
        y_label: &|share| format!("{:.1}%", 100.0 * share),
        lines,
        bars: Vec::new(),
    };
    let names: Vec<String> = std::iter::once("all thresholds".to_owned())
        .chain(
            estimate
                .targets
                .iter()
                .map(|t| format!("target {}", target(t.target))),
        )
        .collect();
    out.push_str("<div class=\"plots\">");
    figure(
        out,
        &frontier,
        "Agreement against coverage, out of fold",
        &names,
    );
    curve(out, estimate);
    out.push_str("</div>");
}

fn curve(out: &mut String, estimate: &Estimate) {
    let of_target = |i: usize| {
        let points = estimate.curve.iter();
        points
            .map(|p| {
                (
                    p.traces as f64,
                    p.expected_coverage.get(i).copied().unwrap_or(0.0),
                )
            })
            .collect()
    };
    let last = estimate.curve.last().map_or(0.0, |p| p.traces as f64);
    let plot = Plot {
        x: 0.0..last * 1.02,
        y: 0.0..1.0,
        x_name: "traces",
        y_name: "coverage to expect",
        x_label: &|n| number(n.max(0.0) as usize),
        y_label: &|share| format!("{:.0}%", 100.0 * share),
        // The first colour is that of all thresholds.
        lines: std::iter::once((Vec::new(), false))
            .chain((0..estimate.targets.len()).map(|i| (of_target(i), true)))
            .collect(),
        bars: Vec::new(),
    };
    let names: Vec<String> = std::iter::once(String::new())
        .chain(
            estimate
                .targets
                .iter()
                .map(|t| format!("target {}", target(t.target))),
        )
        .collect();
    figure(
        out,
        &plot,
        "Coverage to expect of the first so many traces",
        &names,
    );
}

fn more(out: &mut String, estimate: &Estimate) {
    let have = estimate.looked_at;
    let _ = write!(
        out,
        "<h2>How many more traces</h2><p>{}</p><table><tr><th>Target</th><th>For a first pipeline</th><th>To handle 90 %</th><th>Coverage with twice the traces</th></tr>",
        learning(estimate.learning)
    );
    for of in &estimate.targets {
        let [low, high] = of.coverage_at_twice;
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            target(of.target),
            of.to_start
                .as_ref()
                .map_or_else(|| "there already".to_owned(), |n| need(n, have)),
            need(&of.to_handle_most, have),
            if high - low < 0.0005 {
                percent(low)
            } else {
                range(low, high)
            }
        );
    }
    out.push_str("</table>");
    let short = |of: &&ScanTarget| of.expected_coverage < of.shadow.coverage;
    if estimate.targets.iter().any(|of| short(&of)) {
        out.push_str("<p>By the exact bound alone:</p><ul>");
        for of in estimate.targets.iter().filter(short) {
            let _ = write!(
                out,
                "<li>Target {}: {}.</li>",
                target(of.target),
                shadow(&of.shadow)
            );
        }
        out.push_str("</ul>");
    }
    out.push_str("<details><summary>The learning curve</summary><table><tr><th>Traces</th><th>Labels</th><th>Agreement</th>");
    for of in &estimate.targets {
        let _ = write!(out, "<th>Coverage at {}</th>", target(of.target));
    }
    out.push_str("</tr>");
    for point in &estimate.curve {
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td>",
            number(point.traces),
            number(point.labels),
            percent(point.agreement)
        );
        for coverage in &point.expected_coverage {
            let _ = write!(out, "<td>{}</td>", percent(*coverage));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table></details>");
}

fn groups(out: &mut String, estimate: &Estimate) {
    let _ = write!(
        out,
        "<h2>The groups, most disagreements first</h2><p class=\"soft small\">Agreement out of fold, with its interval for each label alone; handled: the share answered at target {}.</p>",
        target(estimate.middle_target)
    );
    let (first, rest) = estimate.labels.split_at(estimate.labels.len().min(AT_ONCE));
    group_table(out, first);
    if !rest.is_empty() {
        let _ = write!(
            out,
            "<details><summary>{} more labels</summary>",
            number(rest.len())
        );
        let shown = &rest[..rest.len().min(LABELS - AT_ONCE)];
        group_table(out, shown);
        if shown.len() < rest.len() {
            let _ = write!(
                out,
                "<p class=\"soft\">And {} that are not listed here; the JSON document has all.</p>",
                number(rest.len() - shown.len())
            );
        }
        out.push_str("</details>");
    }
}

fn group_table(out: &mut String, groups: &[super::LabelGroup]) {
    out.push_str("<table class=\"labels\"><tr><th>Label</th><th>Traces</th><th>Agreement</th><th class=\"wide\">Interval</th><th>Handled</th></tr>");
    for group in groups {
        let [low, high] = group.agreement_interval;
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"wide\">{} to {}</td><td>{}<span class=\"bar\"><i style=\"width:{:.1}%\"></i></span></td></tr>",
            label(&group.label),
            number(group.traces),
            percent(group.agreement),
            percent(low),
            percent(high),
            percent(group.handled),
            100.0 * group.handled
        );
    }
    out.push_str("</table>");
}

fn confusions(out: &mut String, estimate: &Estimate) {
    if estimate.confusions.is_empty() {
        return;
    }
    out.push_str("<h2>Confused most</h2><ul>");
    for pair in &estimate.confusions {
        let [first, second] = &pair.labels;
        let _ = write!(
            out,
            "<li>The teacher says <b>{}</b>, the surrogate <b>{}</b>: {}; the other way {}.",
            label(first),
            label(second),
            number(pair.first_for_second),
            number(pair.second_for_first)
        );
        if let Some(example) = &pair.example {
            let _ = write!(
                out,
                "<br><span class=\"soft\">“{}” (teacher: {}, surrogate: {})</span>",
                escape(&example.text),
                label(&example.teacher),
                label(&example.surrogate)
            );
        }
        out.push_str("</li>");
    }
    out.push_str("</ul>");
}

fn in_the_file(out: &mut String, report: &ScanReport) {
    out.push_str("<h2>In the file</h2><ul>");
    for sentence in contents(report) {
        let _ = write!(out, "<li>{}</li>", escape(&sentence));
    }
    out.push_str("</ul>");
    if report.contradictions.is_empty() {
        return;
    }
    out.push_str("<details><summary>Inputs with several labels</summary><table class=\"labels\"><tr><th>Input</th><th>Labels</th></tr>");
    for one in &report.contradictions {
        let labels: Vec<String> = one
            .labels
            .iter()
            .map(|(name, n)| format!("{} ({})", label(name), number(*n)))
            .collect();
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td></tr>",
            escape(one.text.as_deref().unwrap_or("(no text)")),
            labels.join(", ")
        );
    }
    out.push_str("</table></details>");
}
