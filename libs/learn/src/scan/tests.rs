use super::*;
use crate::{dataset::Row, refit::refit};

/// Two labels told apart by a word, but for a share of noise that only a vague word tells.
fn data(n: usize, vague_every: usize) -> Dataset {
    let mut data = Dataset::new();
    for i in 0..n {
        let hash = stable_hash(&[&(i as u64).to_le_bytes()]);
        let lost = hash & 1 == 1;
        let vague = i % vague_every == 0;
        let text = match (vague, lost) {
            (true, _) => format!("help number {i}"),
            (false, true) => format!("card lost number {i}"),
            (false, false) => format!("refund wanted number {i}"),
        };
        data.push(Row {
            text: Some(&text),
            embedding: None,
            label: if lost { "lost" } else { "refund" },
        })
        .unwrap();
    }
    data
}

fn config(targets: &[f64]) -> FitConfig {
    FitConfig {
        targets: targets.to_vec(),
        ..scan_config()
    }
}

#[test]
fn expects_what_a_refit_then_certifies() {
    let data = data(2000, 5);
    let scan = scan("t", &data, &config(&[0.98, 0.9]), &mut |_| {}).unwrap();
    assert_eq!(
        scan.targets.iter().map(|t| t.target).collect::<Vec<_>>(),
        [0.9, 0.98]
    );
    let config = FitConfig {
        targets: vec![0.9, 0.98],
        ..scan_config()
    };
    let outcomes = refit("t", &data, &config, &mut |_| {}).unwrap();
    for (expected, outcome) in scan.targets.iter().zip(&outcomes) {
        assert_eq!(expected.verdict, Certifiable::Now);
        let [low, high] = expected.coverage_range;
        let seen = outcome.shadow.coverage;
        assert!(
            low - 0.05 <= seen && seen <= high + 0.05,
            "{seen}: {expected:?}"
        );
        assert!(
            low - 0.02 <= expected.expected_coverage && expected.expected_coverage <= high + 0.02
        );
    }
    // A fifth is vague, and half of that right by chance.
    assert!((scan.agreement - 0.9).abs() < 0.03, "{}", scan.agreement);
    assert_eq!(scan.rows.len(), 2000);
    let handled = scan.rows.iter().filter(|r| r.handled).count() as f64 / 2000.0;
    assert!((handled - scan.targets[1].expected_coverage).abs() < 1e-3);
    assert_eq!(
        scan.curve.iter().map(|p| p.traces).collect::<Vec<_>>(),
        [250, 500, 1000, 2000]
    );
    let again = super::scan("t", &data, &config, &mut |_| {}).unwrap();
    assert_eq!(scan, again);
}

#[test]
fn labels_that_the_input_does_not_tell_are_not_certifiable() {
    let data = data(1000, 1);
    let scan = scan("t", &data, &config(&[0.95]), &mut |_| {}).unwrap();
    let target = &scan.targets[0];
    assert_eq!(
        target.verdict,
        Certifiable::NotWithTheseFeatures,
        "{target:?}"
    );
    assert_eq!(target.to_handle_most.by_statistics, None);
    assert_eq!(scan.learning, Learning::Flat);
}

#[test]
fn few_traces_are_not_enough_yet() {
    let few = scan("t", &data(120, 10), &config(&[0.95]), &mut |_| {}).unwrap();
    let target = &few.targets[0];
    assert_eq!(target.verdict, Certifiable::NotYet, "{target:?}");
    assert_eq!((target.expected_coverage, target.passes), (0.0, 0.0));
    assert!(target.to_start.unwrap().by_statistics >= Some(scan_config().min_traces));
    assert_eq!(few.learning, Learning::TooShort);
    for n in [0, 1, 10] {
        let error = scan("t", &data(n, 10), &config(&[0.95]), &mut |_| {}).unwrap_err();
        assert_eq!(
            error,
            FitError::TooFewTraces {
                have: n,
                need: LEAST
            }
        );
    }
}

#[test]
fn odd_data_is_an_error_and_no_panic() {
    let of = |text: &dyn Fn(usize) -> String, label: &dyn Fn(usize) -> String| {
        let mut data = Dataset::new();
        for i in 0..60 {
            let (text, label) = (text(i), label(i));
            data.push(Row {
                text: Some(&text),
                embedding: None,
                label: &label,
            })
            .unwrap();
        }
        scan("t", &data, &config(&[0.95]), &mut |_| {})
    };
    let same = of(&|_| "same".into(), &|i| (i % 2).to_string());
    assert!(matches!(same, Err(FitError::NoCandidate(_))), "{same:?}");
    let one = of(&|i| i.to_string(), &|_| "only".into());
    assert!(matches!(one, Err(FitError::OneClass { .. })));
    // Every label once; texts without a word; two inputs: whatever comes of it, no panic.
    let distinct = of(&|i| i.to_string(), &|i| i.to_string()).unwrap();
    assert!(distinct.agreement < 0.1);
    let _ = of(&|i| "\u{1f600}".repeat(i + 1), &|i| (i % 3).to_string());
    let _ = of(&|i| (i % 2).to_string(), &|i| (i % 2).to_string());
    let _ = of(&|i| (i % 2).to_string(), &|i| (i % 7).to_string());
}

#[test]
fn large_files_are_sampled() {
    let config = FitConfig {
        max_fit_traces: 300,
        ..config(&[0.9])
    };
    let scan = scan("t", &data(2000, 5), &config, &mut |_| {}).unwrap();
    assert_eq!(scan.usable, 2000);
    assert!((200..400).contains(&scan.looked_at), "{}", scan.looked_at);
    assert_eq!(scan.rows.len(), scan.looked_at);
}
