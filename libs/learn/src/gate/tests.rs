use super::*;

/// Small, seeded, good enough for simulation (`SplitMix64`).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn gate(target: f64, delta: f64) -> Gate {
    Gate {
        target,
        delta,
        coverage_floor: 0.05,
        mode: GateMode::Bound,
        weight_cap: None,
    }
}

fn fixed(thresholds: &[f32]) -> Sequence {
    Sequence {
        opening: None,
        thresholds: thresholds.to_vec(),
    }
}

fn rows(n: usize, score: f32, agrees: bool) -> Vec<Scored> {
    vec![Scored::new(score, agrees); n]
}

#[test]
fn refuses_with_the_reason() {
    let gate = gate(0.95, 0.05);
    let reason = |walk: Walk| walk.verdict.unwrap_err();
    assert!(reason(gate.walk(&fixed(&[0.0]), &[])).contains("empty"));
    assert!(
        reason(gate.walk(&fixed(&[0.9]), &rows(50, 0.5, true))).contains("nothing is accepted")
    );
    // 40 of 40 agree, but so few rows certify no 0.95.
    assert!(reason(gate.walk(&fixed(&[0.0]), &rows(40, 0.5, true))).contains("lower bound"));
    let walk = gate.walk(&fixed(&[0.0]), &rows(200, 0.5, true));
    assert_eq!((walk.verdict, walk.threshold), (Ok(()), ACCEPT_ALL));

    let floor = Gate {
        coverage_floor: 0.5,
        ..gate
    };
    let mut mixed = rows(100, 0.5, true);
    mixed.extend(rows(400, 0.1, false));
    assert!(reason(floor.walk(&fixed(&[0.3]), &mixed)).contains("floor"));
}

#[test]
fn the_walk_ends_in_global_when_everything_agrees() {
    let rows: Vec<Scored> = (0..1000)
        .map(|i| Scored::new(i as f32 / 1000.0, true))
        .collect();
    let gate = gate(0.95, 0.05);
    let walk = gate.walk(&gate.sequence(&gate.curve(&rows), 1000), &rows);
    assert_eq!((walk.verdict, walk.threshold), (Ok(()), ACCEPT_ALL));
}

#[test]
fn statistics_are_weighted() {
    let mut rows = vec![Scored::new(0.9, true); 30];
    rows.extend(vec![Scored::new(0.8, false); 10]);
    rows.extend(vec![Scored::new(0.1, false); 60]);
    for row in &mut rows[..30] {
        row.weight = 4.0;
    }
    let gate = Gate {
        weight_cap: Some(4.0),
        ..gate(0.5, 0.05)
    };
    let stats = gate.walk(&fixed(&[0.5]), &rows).stats;
    assert!((stats.coverage - 130.0 / 190.0).abs() < 1e-12);
    assert!((stats.agreement - 120.0 / 130.0).abs() < 1e-12);
    assert!((stats.n_effective - 130.0 * 130.0 / (30.0 * 16.0 + 10.0)).abs() < 1e-9);
    assert_eq!(stats.n, 100);
    assert!(stats.agreement_lower > 0.5 && stats.agreement_lower < stats.agreement);
}

/// Only ratios of weights matter, and weights that all equal the cap are no weights.
#[test]
fn equal_weights_are_as_none() {
    let mut random = Random(3);
    let plain: Vec<Scored> = (0..500)
        .map(|_| Scored::new(random.uniform() as f32, random.uniform() < 0.97))
        .collect();
    let heavy: Vec<Scored> = plain.iter().map(|r| Scored { weight: 7.0, ..*r }).collect();
    let unweighted = gate(0.9, 0.05);
    let capped = Gate {
        weight_cap: Some(7.0),
        ..unweighted
    };
    let expected = unweighted.walk(&fixed(&[0.5, 0.2]), &plain);
    assert!(expected.verdict.is_ok());
    for (gate, rows) in [(unweighted, &heavy), (capped, &heavy)] {
        let walk = gate.walk(&fixed(&[0.5, 0.2]), rows);
        assert_eq!(walk.verdict, expected.verdict);
        assert_eq!(walk.threshold, expected.threshold);
        assert!((walk.stats.agreement_lower - expected.stats.agreement_lower).abs() < 1e-12);
        assert!((walk.stats.n_effective - expected.stats.n_effective).abs() < 1e-6);
    }
}

#[test]
fn weights_without_a_cap_and_senseless_weights_are_refused() {
    let mut uneven = rows(400, 0.5, true);
    uneven[7].weight = 3.0;
    let plain = gate(0.9, 0.05);
    let reason =
        |gate: &Gate, rows: &[Scored]| gate.walk(&fixed(&[0.0]), rows).verdict.unwrap_err();
    assert!(reason(&plain, &uneven).contains("no cap"));
    let capped = Gate {
        weight_cap: Some(3.0),
        ..plain
    };
    assert_eq!(capped.walk(&fixed(&[0.0]), &uneven).verdict, Ok(()));
    for weight in [f64::NAN, f64::INFINITY, -1.0] {
        uneven[7].weight = weight;
        assert!(reason(&capped, &uneven).contains("weight"));
    }
    for cap in [f64::NAN, 0.0, f64::INFINITY] {
        let gate = Gate {
            weight_cap: Some(cap),
            ..plain
        };
        assert!(reason(&gate, &rows(400, 0.5, true)).contains("cap"));
    }
}

#[test]
fn the_cap_follows_from_counts() {
    assert_eq!(weight_cap(0, 0, 0.02), 1.0);
    assert_eq!(weight_cap(500, 0, 0.02), 1.0);
    assert!((weight_cap(0, 500, 0.02) - 50.0).abs() < 1e-9);
    assert!((weight_cap(2001, 8002, 0.02) - 10_003.0 / 2161.04).abs() < 1e-9);
    assert_eq!(weight_cap(0, 5, 0.0), f64::INFINITY);
}

#[test]
fn the_policy_with_more_to_promise_is_walked() {
    let mut random = Random(5);
    let mut sample = |n: usize, sharp: bool| -> Vec<Scored> {
        (0..n)
            .map(|_| {
                let hard = random.uniform() < 0.2;
                let score = match (sharp, hard) {
                    (true, true) => 0.5 * random.uniform(),
                    (true, false) => 0.5 + 0.5 * random.uniform(),
                    (false, _) => random.uniform(),
                };
                Scored::new(
                    score as f32,
                    random.uniform() < if hard { 0.5 } else { 0.995 },
                )
            })
            .collect()
    };
    let (blunt, sharp) = (
        (sample(4000, false), sample(1000, false)),
        (sample(4000, true), sample(1000, true)),
    );
    let blunt = Policy {
        out_of_fold: &blunt.0,
        shadow: &blunt.1,
    };
    let sharp = Policy {
        out_of_fold: &sharp.0,
        shadow: &sharp.1,
    };
    let gate = gate(0.95, 0.05);
    let choice = gate.choose(&[blunt, sharp]);
    assert_eq!(choice.policy, 1);
    assert_eq!(choice.verdict, Ok(()));
    assert!(choice.stats.coverage > 0.7);
    // The same policies: the first one listed.
    assert_eq!(gate.choose(&[sharp, sharp]).policy, 0);
    // One policy: the walk along its own sequence.
    let sequence = gate.sequence(&gate.curve(sharp.out_of_fold), 1000);
    assert_eq!(
        choice.threshold,
        gate.walk(&sequence, sharp.shadow).threshold
    );
    let refused = gate.choose(&[blunt]);
    assert!(refused.verdict.is_err());
    assert!(gate.choose(&[]).verdict.is_err());
}

/// Records from before `n_effective` are still read.
#[test]
fn older_statistics_are_read() {
    let old = r#"{"coverage":0.5,"agreement":0.97,"agreement_lower":0.95,"n":100}"#;
    let stats: GateStats = serde_json::from_str(old).unwrap();
    assert_eq!((stats.n, stats.n_effective), (100, 0.0));
}

/// Rows that are deferred whatever the threshold stay deferred, and lower the coverage.
#[test]
fn a_row_with_a_negative_score_is_never_handled() {
    let rows: Vec<Scored> = (0..1000)
        .map(|i| {
            Scored::new(
                if i % 10 == 0 {
                    -1.0
                } else {
                    0.5 + i as f32 / 4000.0
                },
                true,
            )
        })
        .collect();
    let choice = gate(0.95, 0.05).choose(&[Policy {
        out_of_fold: &rows,
        shadow: &rows,
    }]);
    assert_eq!(choice.verdict, Ok(()));
    assert!(choice.threshold >= ACCEPT_ALL, "{}", choice.threshold);
    assert!(
        (choice.stats.coverage - 0.9).abs() < 1e-9,
        "{:?}",
        choice.stats
    );
}
