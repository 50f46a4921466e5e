use tracer_learn::{FitConfig, Row, scan, scan_config};

use super::*;

fn data(n: usize) -> Dataset {
    let mut data = Dataset::new();
    for i in 0..n {
        let (text, label) = match i % 11 {
            0 => (
                format!("please <help> \u{1b}[31mme {i}"),
                if i % 2 == 0 { "<a>" } else { "b" },
            ),
            k if k % 2 == 0 => (format!("card lost {i}"), "<a>"),
            _ => (format!("refund me {i}"), "b"),
        };
        data.push(Row {
            text: Some(&text),
            embedding: None,
            label,
        })
        .unwrap();
    }
    data
}

fn report(n: usize, prices: Prices) -> ScanReport {
    let data = data(n);
    let config = FitConfig {
        targets: vec![0.9, 0.99],
        ..scan_config()
    };
    let found = scan("desk", &data, &config, &mut |_| {});
    let file = FileFacts {
        file: "t.jsonl".into(),
        task: "desk".into(),
        lines: n,
        ..FileFacts::default()
    };
    let found = found.as_ref().map_err(ToString::to_string);
    ScanReport::new(file, &data, found, config.delta, prices)
}

#[test]
fn groups_add_up_and_confusions_have_both_directions() {
    let report = report(1100, Prices::default());
    let estimate = report.estimate.unwrap();
    assert_eq!(
        estimate.labels.iter().map(|l| l.traces).sum::<usize>(),
        1100
    );
    let wrong: f64 = estimate
        .labels
        .iter()
        .map(|l| l.traces as f64 * (1.0 - l.agreement))
        .sum();
    let [pair] = &estimate.confusions[..] else {
        panic!("two labels, one pair: {:?}", estimate.confusions);
    };
    assert!((wrong - (pair.first_for_second + pair.second_for_first) as f64).abs() < 1e-6);
    assert!(pair.first_for_second >= pair.second_for_first && wrong > 0.0);
    let example = pair.example.as_ref().unwrap();
    assert_ne!(example.teacher, example.surrogate);
    for label in &estimate.labels {
        let [low, high] = label.agreement_interval;
        assert!(low <= label.agreement && label.agreement <= high);
    }
}

#[test]
fn savings_follow_coverage_calls_and_price() {
    let prices = Prices {
        calls_per_day: Some(10_000.0),
        call_dollars: Some(0.002),
        audit_rate: 0.02,
    };
    let report = report(1100, prices);
    let coverage = report.estimate.as_ref().unwrap().targets[0].expected_coverage;
    let saving = report.savings[0];
    assert!(coverage > 0.5);
    assert!((saving.calls_a_day.unwrap() - 9800.0 * coverage).abs() < 1e-6);
    assert!((saving.dollars_a_month.unwrap() - 588.0 * coverage).abs() < 1e-6);
    assert!(report.text().contains(" calls a day"));
    let unknown = self::report(1100, Prices::default()).savings[0];
    assert_eq!((unknown.calls_a_day, unknown.dollars_a_day), (None, None));
}

#[test]
fn the_text_fits_and_the_page_escapes_what_it_shows() {
    for n in [0, 10, 150, 1100] {
        let report = report(n, Prices::default());
        let text = report.text();
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
        let html = report.html();
        for page in [&text, &html] {
            assert!(!page.contains('\u{1b}') && !page.contains("NaN") && !page.contains("inf "));
        }
        assert!(!html.contains("<help>") && !html.contains("<a>"));
        assert!(
            !html.contains("http://") && !html.contains("https://"),
            "no network"
        );
        assert_eq!(html.contains("<svg"), n >= 150, "{n}");
        assert_eq!(report.estimate.is_some(), n >= 30);
        serde_json::to_string(&report).unwrap();
    }
}
