//! `report.html`: one self-contained page, made of the document `report.json` alone.

mod details;
mod examples;
mod groups;
mod overview;

use std::fmt::Write as _;

use crate::{
    page::STYLE,
    report::Report,
    words::{escape, number, percent, target, tidy},
};

const OWN_STYLE: &str = "
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1rem; } nav li { margin: 0; }
.badge { display: inline-block; border: 2px solid currentColor; border-radius: .4rem; padding: 0 .5rem; font-size: 1rem; font-weight: 600; vertical-align: middle; }
.said { margin: .25rem 0; } mark { background: var(--mark); color: inherit; border-radius: 2px; padding: 0 .1em; }
code, bdi { overflow-wrap: anywhere; } code { font-size: .9em; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); gap: .75rem 1.25rem; margin: .5rem 0; }
.two > div { border-left: 3px solid var(--line); padding-left: .75rem; min-width: 0; } .two > .handled { border-color: var(--good); } .two > .deferred { border-color: var(--wait); }
article { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .75rem 1rem; margin: .75rem 0; }
article ul { list-style: none; padding: 0; } .reasons { padding-left: 1.4rem; }
tr.served td { font-weight: 600; } dl { display: grid; grid-template-columns: minmax(8rem, auto) 1fr; gap: .25rem 1rem; } dt { color: var(--soft); } dd { margin: 0; }
";

/// Names of the sections, in their order: what links point to, and what is above them.
const SECTIONS: [(&str, &str); 13] = [
    ("frontier", "Coverage against agreement"),
    ("reliability", "Does the score mean what it says?"),
    ("flywheel", "From version to version"),
    ("changes", "What changed since the last version"),
    ("cost", "What it saves"),
    ("labels", "Label by label"),
    ("weak_slices", "Where the promise is thin"),
    ("cards", "Typical inputs"),
    ("pairs", "At the boundary"),
    ("disagreements", "Where surrogate and teacher part"),
    ("cues", "The words it goes by"),
    ("targets", "Other targets"),
    ("pipeline", "How it was made"),
];

/// The page of a report.
pub(crate) fn page(report: &Report) -> String {
    let mut out = String::new();
    let task = tidy(&report.task, 80);
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title><style>{STYLE}{OWN_STYLE}</style></head><body><a class=\"skip\" href=\"#main\">Skip to the report</a><header><h1><bdi>{task}</bdi> <span class=\"badge {verdict}\">{verdict}</span></h1>",
        title = escape(&format!("{task}: {}", report.verdict)),
        task = escape(&task),
        verdict = escape(&report.verdict),
    );
    verdict(&mut out, report);
    let mut body = String::new();
    let mut links = String::new();
    for (id, title) in SECTIONS {
        let mut section = String::new();
        write_section(&mut section, id, report);
        if section.is_empty() {
            let Some(why) = report.absent.get(id) else {
                continue;
            };
            let _ = write!(
                section,
                "<p class=\"soft\">Nothing to show: {}.</p>",
                escape(why)
            );
        }
        let _ = write!(links, "<li><a href=\"#{id}\">{title}</a></li>");
        let _ = write!(
            body,
            "<section aria-labelledby=\"{id}\"><h2 id=\"{id}\">{title}</h2>{section}</section>"
        );
    }
    let _ = write!(
        out,
        "</header><nav aria-label=\"Sections\"><ul class=\"small\">{links}</ul></nav><main id=\"main\" tabindex=\"-1\">{body}</main></body></html>"
    );
    out.push('\n');
    out
}

fn write_section(out: &mut String, id: &str, report: &Report) {
    match id {
        "frontier" => overview::frontier(out, report),
        "reliability" => overview::reliability(out, report),
        "flywheel" => overview::flywheel(out, report),
        "changes" => overview::changes(out, report),
        "cost" => details::cost(out, report),
        "labels" => groups::labels(out, report),
        "weak_slices" => groups::weak_slices(out, report),
        "cards" => examples::cards(out, report),
        "pairs" => examples::pairs(out, report),
        "disagreements" => examples::disagreements(out, report),
        "cues" => groups::cues(out, report),
        "targets" => details::targets(out, report),
        _ => details::pipeline(out, report),
    }
}

/// What is decided, and what is promised.
fn verdict(out: &mut String, report: &Report) {
    let confidence = target(1.0 - report.delta);
    let Some(reason) = &report.reason else {
        let shadow = &report.shadow;
        let _ = write!(
            out,
            "<p><strong>The surrogate answers {coverage} of the traffic. On that, it gives the same label as the teacher at least {target} of the time</strong>, certified at confidence {confidence}. The other {deferred} goes to the teacher as before.</p><div class=\"cards\">",
            coverage = percent(shadow.coverage),
            target = target(report.target_agreement),
            deferred = percent(1.0 - shadow.coverage),
        );
        let lower = format!("at least {}, certified", percent(shadow.agreement_lower));
        let rows = format!("of {} shadow traces", number(shadow.n));
        for (name, value, note) in [
            ("Handled", percent(shadow.coverage), rows.as_str()),
            ("Agreement seen", percent(shadow.agreement), lower.as_str()),
            (
                "Promise",
                target(report.target_agreement),
                "agreement with the teacher, not with the truth",
            ),
        ] {
            let _ = write!(
                out,
                "<div class=\"card\"><div class=\"small soft\">{name}</div><div class=\"big\">{value}</div><div class=\"small soft\">{note}</div></div>"
            );
        }
        let _ = write!(
            out,
            "</div><p class=\"small soft\">Everything below is measured on the shadow split: traces that nothing was trained on.{}</p>",
            withheld(report)
        );
        return;
    };
    let _ = write!(
        out,
        "<p><strong>This refit changes nothing: what served before goes on serving, and where nothing did, the teacher answers everything.</strong> The target was {} agreement with the teacher at confidence {confidence}.</p>",
        target(report.target_agreement)
    );
    if let Some((first, rest)) = report.diagnosis.split_first() {
        let _ = write!(
            out,
            "<div class=\"card\"><h2 style=\"margin-top:0\">Why</h2><p>{}</p><p><strong>What helps:</strong> {}</p>",
            escape(&tidy(&first.summary, 1000)),
            escape(&tidy(&first.advice, 500)),
        );
        evidence(out, first);
        if !rest.is_empty() {
            out.push_str("<details><summary>What holds besides</summary><ul class=\"reasons\">");
            for finding in rest {
                let _ = write!(
                    out,
                    "<li>{} {}</li>",
                    escape(&tidy(&finding.summary, 1000)),
                    escape(&tidy(&finding.advice, 500))
                );
            }
            out.push_str("</ul></details>");
        }
        out.push_str("</div>");
    }
    let _ = write!(
        out,
        "<p class=\"small soft\">The gate’s words: {}. What follows is measured on the shadow split, traces that nothing was trained on: it shows the surrogate that was refused.{}</p>",
        escape(&tidy(reason, 1000)),
        withheld(report)
    );
}

fn evidence(out: &mut String, finding: &crate::Finding) {
    if finding.evidence.is_empty() {
        return;
    }
    out.push_str("<details><summary>The numbers behind it</summary><table>");
    for one in &finding.evidence {
        let value = if one.value.fract() == 0.0 && one.value.abs() > 1.0 {
            number(one.value.max(0.0) as usize)
        } else if one.value == 0.0 {
            "0".to_owned()
        } else {
            format!("{:.3}", one.value)
        };
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{value}</td></tr>",
            escape(&one.name)
        );
    }
    out.push_str("</table></details>");
}

fn withheld(report: &Report) -> &'static str {
    match report.inputs {
        crate::InputsShown::Text => "",
        crate::InputsShown::Ids => {
            " Texts are not stored, so examples are named by their ids alone."
        }
    }
}

/// The head of a table.
fn head(out: &mut String, class: &str, columns: &[&str]) {
    let columns = columns
        .iter()
        .map(|column| format!("<th scope=\"col\">{column}</th>"));
    let _ = write!(
        out,
        "<table class=\"{class}\"><thead><tr>{}</tr></thead><tbody>",
        columns.collect::<String>()
    );
}

fn close(out: &mut String) {
    out.push_str("</tbody></table>");
}

/// The first few in the open, the others behind a fold; `each` writes some of them. Of
/// more than `most` the page tells the number alone.
fn folded<T>(
    out: &mut String,
    all: &[T],
    (open, most): (usize, usize),
    what: &str,
    mut each: impl FnMut(&mut String, &[T]),
) {
    let (first, rest) = all.split_at(all.len().min(open));
    if first.is_empty() {
        return;
    }
    each(out, first);
    if rest.is_empty() {
        return;
    }
    let shown = &rest[..rest.len().min(most - open)];
    let _ = write!(
        out,
        "<details><summary>{} more {what}</summary>",
        number(rest.len())
    );
    each(out, shown);
    if shown.len() < rest.len() {
        let _ = write!(
            out,
            "<p class=\"soft\">And {} that are not listed here; report.json has more.</p>",
            number(rest.len() - shown.len())
        );
    }
    out.push_str("</details>");
}

fn note(out: &mut String, text: &str) {
    let _ = write!(out, "<p class=\"soft small\">{text}</p>");
}

/// A share that may not be there.
fn maybe(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), percent)
}
