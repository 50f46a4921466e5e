//! A scan for a terminal of 100 columns.

use super::{
    Estimate, ScanReport,
    words::{
        CAVEAT, basis, contents, learning, need, number, percent, range, saving, shadow, target,
        tidy, verdict,
    },
};

const COLUMNS: usize = 100;
/// Labels and pairs that are shown.
const SHOWN: usize = 12;
const PAIRS: usize = 8;

/// Words of a paragraph, the first line and the others indented by so much.
fn wrap(out: &mut String, first: &str, rest: &str, text: &str) {
    let mut line = first.to_owned();
    let mut empty = true;
    for word in text.split(' ') {
        if !empty && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            out.push_str(&line);
            out.push('\n');
            rest.clone_into(&mut line);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    out.push_str(&line);
    out.push('\n');
}

fn heading(out: &mut String, text: &str) {
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(text);
    out.push('\n');
}

pub(super) fn text(report: &ScanReport) -> String {
    let mut out = String::new();
    heading(&mut out, "IN THE FILE");
    for sentence in contents(report) {
        wrap(&mut out, "  ", "  ", &sentence);
    }
    if let Some(c) = report.contradictions.first() {
        let labels: Vec<String> = c
            .labels
            .iter()
            .map(|(label, n)| format!("{} ({})", tidy(label, 40), number(*n)))
            .collect();
        let input = c.text.as_deref().unwrap_or("an input without text");
        let sentence = format!("For example “{input}”: {}.", labels.join(", "));
        wrap(&mut out, "  ", "  ", &sentence);
    }
    if let Some(why) = &report.no_estimate {
        heading(&mut out, "WHAT COULD BE CERTIFIED");
        wrap(&mut out, "  ", "  ", &format!("Cannot tell: {why}."));
        return out;
    }
    let Some(estimate) = &report.estimate else {
        return out;
    };
    heading(&mut out, "WHAT COULD BE CERTIFIED");
    wrap(&mut out, "  ", "  ", &basis(estimate));
    out.push('\n');
    out.push_str("  target  coverage to expect              at most   verdict\n");
    for of in &estimate.targets {
        let [low, high] = of.coverage_range;
        out.push_str(&format!(
            "  {:<6} {:>8}  {:<20} {:>8}   {}\n",
            target(of.target),
            percent(of.expected_coverage),
            format!("({})", range(low, high)),
            percent(of.coverage_limit),
            verdict(of),
        ));
    }
    wrap(
        &mut out,
        "  ",
        "  ",
        "Coverage: the mean, and 8 in 10 draws of a shadow split. At most: with shadow splits without end.",
    );
    let mut surrogates: Vec<&str> = Vec::new();
    for of in &estimate.targets {
        if !surrogates.contains(&of.surrogate.as_str()) {
            surrogates.push(&of.surrogate);
        }
    }
    let sentence = format!("By {}.", surrogates.join(" and ").replace('+', " + "));
    wrap(&mut out, "  ", "  ", &sentence);
    heading(&mut out, "WHAT IT WOULD SAVE (less 2 % audits)");
    for one in &report.savings {
        out.push_str(&format!("  {:<8} {}\n", target(one.target), saving(one)));
    }
    more(&mut out, estimate);
    groups(&mut out, estimate);
    out.push('\n');
    wrap(&mut out, "", "", CAVEAT);
    out
}

fn more(out: &mut String, estimate: &Estimate) {
    heading(out, "HOW MANY MORE TRACES");
    let have = estimate.looked_at;
    out.push_str("  traces    labels   agreement   coverage to expect at ");
    let targets: Vec<String> = estimate.targets.iter().map(|t| target(t.target)).collect();
    out.push_str(&targets.join(", "));
    out.push('\n');
    for point in &estimate.curve {
        let coverages: Vec<String> = point
            .expected_coverage
            .iter()
            .map(|&c| percent(c))
            .collect();
        out.push_str(&format!(
            "  {:<8} {:>7} {:>11}   {}\n",
            number(point.traces),
            number(point.labels),
            percent(point.agreement),
            coverages.join(", ")
        ));
    }
    wrap(out, "  ", "  ", &learning(estimate.learning));
    for of in &estimate.targets {
        let [low, high] = of.coverage_at_twice;
        let mut sentence = format!(
            "with twice the traces {}.",
            if high - low < 0.0005 {
                format!("about {}", percent(low))
            } else {
                range(low, high)
            }
        );
        if let Some(start) = &of.to_start {
            sentence += &format!(" For a first pipeline: {}.", need(start, have));
        }
        sentence += &format!(
            " To handle {}: {}.",
            target(of.to_handle_most.coverage),
            need(&of.to_handle_most, have)
        );
        if of.expected_coverage < of.shadow.coverage {
            sentence += &format!(" By the exact bound alone: {}.", shadow(&of.shadow));
        }
        wrap(
            out,
            &format!("  {:<8} ", target(of.target)),
            "           ",
            &sentence,
        );
    }
}

fn groups(out: &mut String, estimate: &Estimate) {
    heading(
        out,
        &format!(
            "THE GROUPS, MOST DISAGREEMENTS FIRST ({} of {} labels; handled at target {})",
            estimate.labels.len().min(SHOWN),
            number(estimate.labels.len()),
            target(estimate.middle_target)
        ),
    );
    out.push_str(&format!(
        "  {:<44} {:>8} {:>11}  {:<19} {:>8}\n",
        "label", "traces", "agreement", "(interval)", "handled"
    ));
    for group in estimate.labels.iter().take(SHOWN) {
        let [low, high] = group.agreement_interval;
        out.push_str(&format!(
            "  {:<44} {:>8} {:>11}  {:<19} {:>8}\n",
            tidy(&group.label, 44),
            number(group.traces),
            percent(group.agreement),
            format!("({})", range(low, high)),
            percent(group.handled)
        ));
    }
    if estimate.confusions.is_empty() {
        return;
    }
    heading(out, "CONFUSED MOST (teacher's label > surrogate's)");
    for pair in estimate.confusions.iter().take(PAIRS) {
        let [first, second] = &pair.labels;
        out.push_str(&format!(
            "  {} > {}: {}; the other way {}\n",
            tidy(first, 34),
            tidy(second, 34),
            number(pair.first_for_second),
            number(pair.second_for_first)
        ));
        if let Some(example) = &pair.example {
            let text = format!(
                "“{}” ({} > {})",
                tidy(&example.text, 80),
                tidy(&example.teacher, 34),
                tidy(&example.surrogate, 34)
            );
            wrap(out, "      ", "      ", &text);
        }
    }
}
