//! The page: the same story as the document, for everybody, whatever the inputs are.

use tracer_learn::{FitConfig, Outcome};

use super::{config, desk, push, shadow_ids, traces, written};
use crate::{
    ActualCost, Cost, InputsShown, ProjectedCost, Report, Reporter, VersionPoint, words::broken,
};

fn passed() -> (Outcome, Report, String) {
    written(&desk(1.0), &config(0.9))
}

#[test]
fn the_page_and_the_json_tell_the_same_story_and_escape_what_they_show() {
    let (outcome, report, html) = passed();
    assert_eq!(report.verdict, "passed");
    assert_eq!(
        report.labels.iter().map(|l| l.n).sum::<usize>(),
        report.shadow.n
    );
    assert_eq!(html.matches("(this pipeline)").count(), 1);
    assert!(html.contains("&lt;card&gt;") && !html.contains("<card>"));
    assert!(!html.contains("http://") && !html.contains("https://"));
    // Every candidate, with its score or the reason why it has none.
    assert_eq!(report.candidates.len(), outcome.candidates.len());
    for candidate in &report.candidates {
        assert!(html.contains(&broken(&candidate.name)), "{candidate:?}");
        if let Some(why) = &candidate.dropped {
            assert!(html.contains(why), "{why}");
        }
    }
    assert!(report.candidates.iter().any(|c| c.dropped.is_some()));
    assert_eq!(report.families.len(), outcome.families.len());
    assert_eq!(report.targets.len(), outcome.targets.len());
    let refused = report.targets.iter().filter(|t| !t.passed).count();
    assert!(refused > 0 && refused < report.targets.len());
    assert_eq!(html.matches(">refused</td>").count(), refused);
    assert_eq!(report.budgets.len(), outcome.budgets.len());
    assert!(!report.budgets.is_empty() && html.contains("Out-of-distribution guard"));
    // Rows of equal weight are worth their number: nothing is said of it.
    assert!(!report.weighted && !html.contains("worth"));
}

#[test]
fn without_a_guard_there_is_no_table_of_budgets() {
    let off = FitConfig {
        ood_budget: 0.0,
        ..config(0.9)
    };
    let (_, report, html) = written(&desk(1.0), &off);
    assert!(report.budgets.is_empty() && !html.contains("Out-of-distribution guard"));
}

#[test]
fn weighted_rows_count_as_what_they_stand_for() {
    let data = desk(3.0);
    let weighted = FitConfig {
        weight_cap: Some(3.0),
        ..config(0.9)
    };
    let (outcome, report, html) = written(&data, &weighted);
    assert_eq!(report.verdict, "passed");
    assert!(report.weighted && html.contains("worth"));
    assert_eq!(report.shadow.n_effective, outcome.shadow.n_effective);
    let share = report.labels.iter().map(|l| l.handled_share * l.weight);
    let all: f64 = report.labels.iter().map(|l| l.weight).sum();
    assert!((share.sum::<f64>() / all - report.shadow.coverage).abs() < 1e-9);
    // The exact interval is one of rows that all count the same.
    let slices = report.labels.iter().chain(&report.lengths);
    assert!(slices.clone().count() > 2);
    assert!(slices.clone().all(|l| l.agreement_interval.is_none()));
    assert!(
        report
            .reliability
            .iter()
            .all(|b| b.agreement_interval.is_none())
    );
}

/// What stands outside of tags: unescaped, as a reader sees it.
fn tags(html: &str) -> Vec<&str> {
    html.split('<')
        .skip(1)
        .filter_map(|rest| rest.split(['>', ' ']).next())
        .collect()
}

const HOSTILE: [&str; 6] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(2)>",
    "' onmouseover='alert(3)",
    "\u{202e}gnihtyna si siht\u{202c} \u{5e9}\u{5dc}\u{5d5}\u{5dd}",
    "</style></title></svg>]]>&lt;b&gt;&amp;",
    "a\u{0}b\u{1b}[31m\u{200b}\r\n\t`${1}`",
];

#[test]
fn nothing_that_traces_hold_becomes_markup() {
    let mut data = tracer_learn::Dataset::new();
    for i in 0..600 {
        let hostile = HOSTILE[i % HOSTILE.len()];
        match i % 5 {
            0 | 1 => push(
                &mut data,
                &format!("{hostile} card lost {i}"),
                "<script>card",
            ),
            2 | 3 => push(
                &mut data,
                &format!("{hostile} refund me {i}"),
                "\"refund\" 'x' <b>",
            ),
            _ => {
                let label = ["<script>card", "\"refund\" 'x' <b>"][i * i % 7 / 4];
                push(&mut data, &format!("{hostile} help {i}"), label);
            }
        }
    }
    let config = config(0.85);
    let outcome = super::fitted(&data, &config);
    let mut traces = traces(data.len());
    for (i, trace) in traces.iter_mut().enumerate() {
        trace.id = format!("{}{i}", HOSTILE[i % HOSTILE.len()]);
    }
    let task = "<script>t</script>\u{202e}\"'";
    let files = Reporter::new(task, &data, Ok(&outcome), &config)
        .traces(&traces)
        .files();
    let html = String::from_utf8(files.html).unwrap();
    assert!(html.contains("Typical inputs") && html.contains("&lt;script&gt;alert(1)"));
    let known = [
        "!doctype",
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "a",
        "header",
        "h1",
        "bdi",
        "span",
        "p",
        "strong",
        "div",
        "nav",
        "ul",
        "li",
        "main",
        "section",
        "h2",
        "h3",
        "figure",
        "figcaption",
        "svg",
        "rect",
        "line",
        "polyline",
        "circle",
        "text",
        "br",
        "i",
        "b",
        "details",
        "summary",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "article",
        "code",
        "mark",
        "wbr",
        "dl",
        "dt",
        "dd",
    ];
    for tag in tags(&html) {
        let name = tag.trim_start_matches('/').trim();
        assert!(known.contains(&name), "an element {name:?}");
    }
    for bad in ["onerror=alert", "onmouseover='"] {
        // Within text alone: its quotes are not those of an attribute.
        for (at, _) in html.match_indices(bad) {
            let before = &html[..at];
            assert!(
                before.rfind('>') > before.rfind('<'),
                "{}",
                &html[at - 80..at]
            );
        }
    }
    assert!(!html.contains(['\u{202e}', '\u{0}', '\u{1b}', '\u{200b}']));
    assert!(html.contains("dir=\"auto\""));
}

#[test]
fn the_page_is_for_the_keyboard_and_for_screen_readers() {
    let (_, report, html) = passed();
    assert!(
        html.contains("<html lang=\"en\">") && html.contains("<a class=\"skip\" href=\"#main\">")
    );
    assert!(html.contains("<main id=\"main\"") && html.contains(":focus-visible"));
    assert!(html.contains("prefers-color-scheme: dark") && html.contains("width=device-width"));
    assert_eq!(html.matches("<h1>").count(), 1);
    // Every link leads somewhere.
    for link in html.split("href=\"#").skip(1) {
        let id = link.split('"').next().unwrap();
        assert_eq!(html.matches(&format!(" id=\"{id}\"")).count(), 1, "{id}");
    }
    assert!(html.matches("<svg ").count() >= 2, "{}", report.verdict);
    assert_eq!(
        html.matches("<svg ").count(),
        html.matches("role=\"img\" aria-label=\"").count()
    );
    assert_eq!(
        html.matches("<details>").count(),
        html.matches("<summary>").count()
    );
}

#[test]
fn withheld_texts_are_not_shown_and_examples_keep_their_ids() {
    use tracer_features::{InputKey, LexiconConfig, Withholder};
    let plain = desk(1.0);
    let withholder = Withholder::new(&InputKey::new("secret"), &LexiconConfig::default());
    let mut data = tracer_learn::Dataset::new();
    data.split_by(&withholder.scheme());
    for row in 0..plain.len() {
        let kept = withholder.withhold(plain.text(row).unwrap());
        let label = &plain.label_names()[plain.label(row) as usize];
        data.push_withheld(kept, None, label).unwrap();
    }
    let (outcome, report, html) = written(&data, &config(0.9));
    assert_eq!(
        (report.verdict.as_str(), report.inputs),
        ("passed", InputsShown::Ids)
    );
    let examples = super::examples(&report);
    assert!(!report.cards.is_empty() && !report.pairs.is_empty());
    assert!(examples.iter().all(|one| one.text.is_none()));
    let ids = shadow_ids(&outcome);
    assert!(
        examples
            .iter()
            .all(|one| ids.contains(&one.id) && html.contains(&one.id))
    );
    assert!(report.cues.is_none() && report.absent["cues"].contains("withheld"));
    assert!(report.lengths.is_empty() && report.absent.contains_key("lengths"));
    for word in ["card lost", "refund me", "help "] {
        assert!(!html.contains(word), "{word}");
    }
}

#[test]
fn a_page_has_a_bounded_size_whatever_the_traces() {
    let mut data = tracer_learn::Dataset::new();
    let long = "verbose ".repeat(500);
    for i in 0..900 {
        let label = format!("label-{}-{}", i % 150, "x".repeat(5000));
        push(
            &mut data,
            &format!("topic{} about{} {i} {long}", i % 150, i % 150),
            &label,
        );
    }
    let config = FitConfig {
        lexicon: tracer_features::LexiconConfig {
            max_chars: 64,
            ..tracer_features::LexiconConfig::default()
        },
        ..config(0.9)
    };
    let outcome = super::fitted(&data, &config);
    let files = Reporter::new("long", &data, Ok(&outcome), &config)
        .traces(&traces(data.len()))
        .files();
    assert!(files.html.len() < 2_000_000, "{}", files.html.len());
    assert!(files.json.len() < 4_000_000, "{}", files.json.len());
}

#[test]
fn the_past_and_the_cost_have_their_sections() {
    let (data, config) = (desk(1.0), config(0.9));
    let outcome = super::fitted(&data, &config);
    let point = |version: u64, coverage| VersionPoint {
        version,
        created_at: format!("2026-01-0{version}T00:00:00Z"),
        target_agreement: 0.9,
        training_traces: 100 * version,
        coverage,
        agreement: 0.96,
        agreement_lower: 0.93,
    };
    let past = [point(1, 0.4), point(2, 0.6)];
    let cost = Cost {
        call_dollars: 0.0021,
        saved_share: 0.78,
        projected: Some(ProjectedCost {
            calls_per_day: 50_000.0,
            dollars_per_day: 105.0,
            saved_dollars_per_day: 81.9,
        }),
        actual: Some(ActualCost {
            since: "2026-01-01T00:00:00Z".into(),
            calls_saved: 12_345,
            calls_made: 4321,
            saved_dollars: 25.92,
        }),
    };
    let reporter = Reporter::new("desk", &data, Ok(&outcome), &config);
    let bare = String::from_utf8(reporter.files().html).unwrap();
    assert!(bare.contains("This is the first version") && !bare.contains("What it saves"));
    let files = reporter.flywheel(&past).cost(Some(&cost)).files();
    let html = String::from_utf8(files.html).unwrap();
    let report: Report = serde_json::from_slice(&files.json).unwrap();
    assert_eq!(
        (report.flywheel.as_slice(), &report.cost),
        (&past[..], &Some(cost))
    );
    assert!(html.contains(">v1<") && html.contains(">v2<") && html.contains("this one"));
    assert!(html.contains("aria-label=\"Coverage and agreement by version\""));
    for said in [
        "$81.90 a day of $105.00",
        "12,345 calls",
        "$0.0021",
        "$25.92 saved",
    ] {
        assert!(html.contains(said), "{said}");
    }
}

#[test]
fn a_report_that_could_not_be_made_says_so() {
    let (data, config) = (desk(1.0), config(0.9));
    let outcome = super::fitted(&data, &config);
    let reporter = Reporter::new("desk", &data, Ok(&outcome), &config);
    let files = reporter.bare_files("it could not be made");
    let report: Report = serde_json::from_slice(&files.json).unwrap();
    assert_eq!(report.verdict, "passed");
    assert_eq!(report.shadow.n, outcome.shadow.n);
    assert!(report.labels.is_empty() && report.absent["pairs"].contains("could not be made"));
    let html = String::from_utf8(files.html).unwrap();
    assert!(html.contains("Nothing to show: it could not be made."));
}
