//! The plots, and what changed.

use std::fmt::Write as _;

use super::{close, examples, folded, head, maybe, note};
use crate::{
    artifacts::{LabelChange, Standing},
    page::{figure, label},
    plot::Plot,
    report::{FrontierPoint, Report},
    words::{escape, number, percent, target},
};

/// Points of the frontier below this coverage are noise.
const LEAST_COVERAGE: f64 = 0.05;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as plots call it")]
fn axis_percent(share: &f64) -> String {
    format!("{:.0}%", 100.0 * share)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as plots call it")]
fn fine_percent(share: &f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

pub(super) fn frontier(out: &mut String, report: &Report) {
    if report.frontier.is_empty() {
        return;
    }
    note(
        out,
        "Each threshold on the score handles some share of the traffic and agrees with the teacher on some share of that. The lower bound is what one can be sure of at a threshold chosen beforehand.",
    );
    let points = |value: fn(&FrontierPoint) -> f64| -> Vec<(f64, f64)> {
        let points = report.frontier.iter();
        points
            .filter(|p| p.coverage >= LEAST_COVERAGE)
            .map(|p| (p.coverage, value(p)))
            .collect()
    };
    let agreement = points(|p| p.agreement);
    let lower = points(|p| p.agreement_lower);
    let least = lower
        .iter()
        .map(|p| p.1)
        .chain([report.target_agreement])
        .fold(1.0, f64::min);
    let own = own(report).map(|own| (own.coverage, own.agreement));
    let goal = vec![
        (0.0, report.target_agreement),
        (1.0, report.target_agreement),
    ];
    let plot = Plot {
        x: 0.0..1.0,
        y: (least - 0.01).max(0.0)..1.0,
        x_name: "share handled (coverage)",
        y_name: "agreement",
        x_label: &axis_percent,
        y_label: if least > 0.9 {
            &fine_percent
        } else {
            &axis_percent
        },
        lines: vec![
            (agreement, false),
            (lower, false),
            (goal, false),
            (own.into_iter().collect(), true),
        ],
        bars: Vec::new(),
    };
    let names = [
        "agreement".to_owned(),
        "lower bound".to_owned(),
        format!("target {}", target(report.target_agreement)),
        if own.is_some() {
            "this pipeline".to_owned()
        } else {
            String::new()
        },
    ];
    figure(
        out,
        &plot,
        "Agreement against coverage on the shadow split",
        &names,
    );
    out.push_str("<details><summary>As a table</summary>");
    head(out, "", &["Coverage", "Agreement", "Lower bound"]);
    for (point, served) in table(report) {
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
    out.push_str("</details>");
}

fn own(report: &Report) -> Option<FrontierPoint> {
    let shadow = &report.shadow;
    report.reason.is_none().then_some(FrontierPoint {
        coverage: shadow.coverage,
        agreement: shadow.agreement,
        agreement_lower: shadow.agreement_lower,
    })
}

/// About a dozen points of the frontier by coverage, the first, the last and the
/// pipeline's own among them; true marks that one.
fn table(report: &Report) -> Vec<(FrontierPoint, bool)> {
    let own = own(report);
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

pub(super) fn reliability(out: &mut String, report: &Report) {
    if report.reliability.is_empty() {
        return;
    }
    note(
        out,
        "The acceptor’s score is the probability it gives that surrogate and teacher agree. Traces are put into bins by it; where it means what it says, a bin lies on the diagonal. Bars are exact intervals for each bin alone.",
    );
    let bins = &report.reliability;
    let points: Vec<(f64, f64)> = bins.iter().map(|bin| (bin.score, bin.agreement)).collect();
    let bars: Vec<(f64, f64, f64)> = bins
        .iter()
        .filter_map(|bin| {
            bin.agreement_interval
                .map(|[low, high]| (bin.score, low, high))
        })
        .collect();
    let lows = bars.iter().map(|bar| bar.1);
    let all = points.iter().flat_map(|&(x, y)| [x, y]).chain(lows);
    let least = (all.fold(1.0, f64::min) * 10.0).floor() / 10.0;
    let least = least.clamp(0.0, 0.9);
    let plot = Plot {
        x: least..1.0,
        y: least..1.0,
        x_name: "score",
        y_name: "agreement",
        x_label: &axis_percent,
        y_label: &axis_percent,
        lines: vec![(points, true), (vec![(least, least), (1.0, 1.0)], false)],
        bars,
    };
    let names = ["seen".to_owned(), "as the score says".to_owned()];
    figure(out, &plot, "Agreement by the acceptor’s score", &names);
    out.push_str("<details><summary>As a table</summary>");
    head(out, "", &["Score", "Agreement", "Interval", "Traces"]);
    for bin in bins {
        let _ = write!(
            out,
            "<tr><td>{:.3}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            bin.score,
            percent(bin.agreement),
            interval(bin.agreement_interval),
            number(bin.n)
        );
    }
    close(out);
    out.push_str("</details>");
}

pub(super) fn interval(interval: Option<[f64; 2]>) -> String {
    interval.map_or_else(
        || "–".to_owned(),
        |[low, high]| format!("{} to {}", percent(low), percent(high)),
    )
}

pub(super) fn flywheel(out: &mut String, report: &Report) {
    if report.flywheel.is_empty() {
        let text = if report.reason.is_some() {
            "No version has been published yet."
        } else {
            "This is the first version. With the next one, this section shows how coverage and agreement move as traces come in."
        };
        note(out, text);
        return;
    }
    note(
        out,
        "Each version on the shadow split of its own refit. As traces come in, coverage should grow and agreement stay above its target.",
    );
    let mut coverage: Vec<(f64, f64)> = Vec::new();
    let mut agreement = Vec::new();
    let mut goal = Vec::new();
    for (i, point) in report.flywheel.iter().enumerate() {
        let x = (i + 1) as f64;
        coverage.push((x, point.coverage));
        agreement.push((x, point.agreement));
        goal.push((x, point.target_agreement));
    }
    let passed = report.reason.is_none();
    if passed {
        let x = (report.flywheel.len() + 1) as f64;
        coverage.push((x, report.shadow.coverage));
        agreement.push((x, report.shadow.agreement));
        goal.push((x, report.target_agreement));
    }
    let points = coverage.len() as f64;
    let values = || coverage.iter().chain(&agreement).chain(&goal).map(|p| p.1);
    let least = ((values().fold(1.0, f64::min) - 0.02) * 20.0).floor() / 20.0;
    let tick = |x: &f64| {
        let at = x.round();
        if (x - at).abs() > 1e-6 || at < 1.0 {
            return String::new();
        }
        match report.flywheel.get(at as usize - 1) {
            Some(point) => format!("v{}", point.version),
            None if passed && at <= points => "this".to_owned(),
            None => String::new(),
        }
    };
    let plot = Plot {
        x: 0.5..points + 0.5,
        y: least.max(0.0)..1.0,
        x_name: "version",
        y_name: "share",
        x_label: &tick,
        y_label: &axis_percent,
        lines: vec![(coverage, true), (agreement, true), (goal, false)],
        bars: Vec::new(),
    };
    let names = ["coverage", "agreement", "target"].map(str::to_owned);
    figure(out, &plot, "Coverage and agreement by version", &names);
    out.push_str("<details><summary>As a table</summary>");
    let columns = [
        "Version",
        "Traces",
        "Coverage",
        "Agreement",
        "Lower bound",
        "Target",
    ];
    head(out, "", &columns);
    for point in &report.flywheel {
        let _ = write!(
            out,
            "<tr><td>v{}<br><span class=\"small soft\">{}</span></td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            point.version,
            escape(point.created_at.get(..16).unwrap_or(&point.created_at)).replace('T', " "),
            number(point.training_traces as usize),
            percent(point.coverage),
            percent(point.agreement),
            percent(point.agreement_lower),
            target(point.target_agreement)
        );
    }
    if passed {
        let shadow = &report.shadow;
        let _ = write!(
            out,
            "<tr class=\"served\"><td>this one</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            number(report.training_traces),
            percent(shadow.coverage),
            percent(shadow.agreement),
            percent(shadow.agreement_lower),
            target(report.target_agreement)
        );
    }
    close(out);
    out.push_str("</details>");
}

pub(super) fn changes(out: &mut String, report: &Report) {
    let Some(changes) = &report.changes else {
        return;
    };
    let _ = write!(
        out,
        "<p>Version {version} and this one were asked the same {n} shadow traces. Coverage went from {before} to {now} ({points} points), agreement on what is handled from {agreement_before} to {agreement_now}.</p><ul><li>{handled} newly handled</li><li>{deferred} newly deferred</li><li>{relabelled} handled by both, with another label</li></ul>",
        version = changes.version,
        n = number(changes.n),
        before = percent(changes.before.coverage),
        now = percent(changes.now.coverage),
        points = points(changes.now.coverage - changes.before.coverage),
        agreement_before = maybe(changes.before.agreement),
        agreement_now = maybe(changes.now.agreement),
        handled = number(changes.newly_handled),
        deferred = number(changes.newly_deferred),
        relabelled = number(changes.changed_label),
    );
    if changes.target_agreement != report.target_agreement {
        note(
            out,
            &format!(
                "Version {} was certified at another target: {}.",
                changes.version,
                target(changes.target_agreement)
            ),
        );
    }
    folded(
        out,
        &changes.labels,
        (8, 200),
        "labels that moved",
        change_table,
    );
    for (title, all) in [
        (
            "Newly handled, for example",
            &changes.newly_handled_examples,
        ),
        (
            "Newly deferred, for example",
            &changes.newly_deferred_examples,
        ),
        (
            "With another label, for example",
            &changes.changed_label_examples,
        ),
    ] {
        if all.is_empty() {
            continue;
        }
        let _ = write!(out, "<details><summary>{title}</summary><ul>");
        for one in all {
            out.push_str("<li>");
            examples::example(out, one, None);
            out.push_str("</li>");
        }
        out.push_str("</ul></details>");
    }
}

fn change_table(out: &mut String, changes: &[LabelChange]) {
    head(
        out,
        "labels",
        &["Label", "Traces", "Handled", "Change", "Agreement"],
    );
    for change in changes {
        let arrow = |value: fn(&Standing) -> String| {
            format!("{} → {}", value(&change.before), value(&change.now))
        };
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            label(&change.label),
            number(change.n),
            arrow(|s| percent(s.coverage)),
            points(change.now.coverage - change.before.coverage),
            arrow(|s| maybe(s.agreement)),
        );
    }
    close(out);
}

/// A difference of shares.
fn points(difference: f64) -> String {
    let points = 100.0 * difference;
    if points.abs() < 0.05 {
        return "±0".to_owned();
    }
    let sign = if points < 0.0 { "−" } else { "+" };
    format!("{sign}{:.1}", points.abs())
}
