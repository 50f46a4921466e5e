//! The report, for people and for programs.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::{
    plan::{Form, Kind},
    verify::Found,
    world::{Fault, Recovery},
};

/// What became of a round.
pub(crate) struct Round {
    pub(crate) name: &'static str,
    pub(crate) planned: usize,
    /// Faults that nobody noticed; they were made again.
    pub(crate) missed: usize,
    pub(crate) seconds: Duration,
    pub(crate) faults_over: Duration,
    /// Until everything was in the shards, with all faults lifted.
    pub(crate) drained: Duration,
    /// Puts that lost: the range was in the store already.
    pub(crate) refused: usize,
    /// Steps that failed and were tried again.
    pub(crate) tried_again: usize,
    pub(crate) acknowledged: u64,
    /// Static members that the brokers fenced; they were started again.
    pub(crate) fenced: usize,
    /// Records in committed and in aborted transactions.
    pub(crate) transactions: (usize, usize),
    pub(crate) found: Found,
    pub(crate) faults: Vec<Fault>,
    pub(crate) wrong: Vec<String>,
}

impl Round {
    fn struck(&self) -> usize {
        let real = |fault: &&Fault| fault.kind != Kind::Nothing;
        self.faults.iter().filter(real).count()
    }

    pub(crate) fn line(&self) -> String {
        let found = &self.found;
        format!(
            "{}: {} faults in {:.0} s, drained in {:.1} s; {} traces, {} rows in {} shards, \
             lost {}, duplicated {}, foreign {}, breaks {}; {} other payloads, {} letters, \
             {} lost, {} foreign; {} gaps; checksums {}; troubles {}",
            self.name,
            self.struck(),
            self.faults_over.as_secs_f64(),
            self.drained.as_secs_f64(),
            found.traces,
            found.rows,
            found.shards,
            found.lost,
            found.duplicated,
            found.foreign,
            found.breaks,
            found.others,
            found.letters,
            found.letters_lost,
            found.letters_foreign,
            found.gaps,
            if found.log_checksum == found.shard_checksum {
                "equal"
            } else {
                "DIFFERENT"
            },
            self.wrong.len(),
        )
    }
}

pub(crate) struct Report {
    form: Form,
    seed: u64,
    pub(crate) rounds: Vec<Round>,
}

/// What is told of a kind of fault: how often it struck, and the seconds it took to
/// recover, sorted.
struct Row {
    kind: Kind,
    count: usize,
    alone: Seconds,
    among_others: Seconds,
}

#[derive(Default)]
struct Seconds {
    from_strike: Vec<f64>,
    from_end: Vec<f64>,
}

impl Seconds {
    fn of<'a>(faults: &(impl Iterator<Item = &'a Fault> + Clone)) -> Self {
        let sorted = |of: fn(&Fault) -> &Recovery| {
            let mut seconds: Vec<f64> = faults
                .clone()
                .filter_map(|fault| Some(of(fault).took?.as_secs_f64()))
                .collect();
            seconds.sort_by(f64::total_cmp);
            seconds
        };
        Self {
            from_strike: sorted(|fault| &fault.after_strike),
            from_end: sorted(|fault| &fault.after_lift),
        }
    }

    fn markdown(&self) -> String {
        let cells = [&self.from_strike, &self.from_end].map(|seconds| {
            let (median, worst) = (median(seconds), seconds.last().copied());
            format!("{} | {}", shown(median), shown(worst))
        });
        cells.join(" | ")
    }

    fn json(&self) -> Value {
        let of = |seconds: &[f64]| json!({"median": median(seconds), "worst": seconds.last()});
        json!({"from_strike": of(&self.from_strike), "from_end": of(&self.from_end)})
    }
}

impl Report {
    pub(crate) fn new(form: Form, seed: u64) -> Self {
        Self {
            form,
            seed,
            rounds: Vec::new(),
        }
    }

    fn rows(&self) -> Vec<Row> {
        let mut kinds: BTreeMap<Kind, Vec<&Fault>> = BTreeMap::new();
        for fault in self.rounds.iter().flat_map(|round| &round.faults) {
            kinds.entry(fault.kind).or_default().push(fault);
        }
        kinds
            .into_iter()
            .map(|(kind, faults)| {
                let those = |alone| {
                    let faults = faults.iter().copied();
                    Seconds::of(&faults.filter(move |fault| fault.alone == alone))
                };
                Row {
                    kind,
                    count: faults.len(),
                    alone: those(true),
                    among_others: those(false),
                }
            })
            .collect()
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from(
            "\n| round | faults | traces | lost | duplicated | checksums | other payloads | dead letters | shards | puts refused | steps tried again | fenced | minutes | drained in s |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for round in &self.rounds {
            let found = &round.found;
            text.push_str(&format!(
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.1} | {:.1} |\n",
                round.name,
                round.struck(),
                found.traces,
                found.lost,
                found.duplicated,
                if found.log_checksum == found.shard_checksum {
                    "equal"
                } else {
                    "different"
                },
                found.others,
                found.letters,
                found.shards,
                round.refused,
                round.tried_again,
                round.fenced,
                round.seconds.as_secs_f64() / 60.0,
                round.drained.as_secs_f64(),
            ));
        }
        text.push_str(
            "\nSeconds until what stood in the log was durable, when the fault struck and when \
             it ended: median and worst, of faults by themselves and of faults among others.\n\n\
             | fault | times | alone: from the strike | worst | from its end | worst | \
             among others: from the strike | worst | from its end | worst |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for row in self.rows() {
            text.push_str(&format!(
                "| {} | {} | {} | {} |\n",
                row.kind.name(),
                row.count,
                row.alone.markdown(),
                row.among_others.markdown(),
            ));
        }
        text
    }

    /// With every single fault, or without.
    pub(crate) fn json(&self, each: bool) -> String {
        let rounds: Vec<Value> = self
            .rounds
            .iter()
            .map(|round| round_json(round, each))
            .collect();
        let kinds: Vec<Value> = self
            .rows()
            .iter()
            .map(|row| {
                json!({
                    "kind": row.kind.name(),
                    "times": row.count,
                    "seconds_alone": row.alone.json(),
                    "seconds_among_others": row.among_others.json(),
                })
            })
            .collect();
        let sum = |of: fn(&Round) -> usize| -> usize { self.rounds.iter().map(of).sum() };
        json!({
            "form": format!("{:?}", self.form).to_lowercase(),
            "seed": self.seed,
            "faults": sum(Round::struck),
            "traces": sum(|round| round.found.traces),
            "lost": sum(|round| round.found.lost),
            "duplicated": sum(|round| round.found.duplicated),
            "rounds": rounds,
            "kinds": kinds,
        })
        .to_string()
    }

    /// Fails when anything at all is not as it must be.
    pub(crate) fn check(&self, logs: &Path) {
        for round in &self.rounds {
            let told = round.line();
            assert!(
                round.wrong.is_empty(),
                "{told}\n{}\nlogs: {}",
                round.wrong.join("\n"),
                logs.display()
            );
            assert!(round.found.is_clean(), "{told}\nlogs: {}", logs.display());
            assert!(round.found.traces > 0 && round.found.others > 0, "{told}");
            assert!(round.found.gaps > 0, "no transaction left a gap: {told}");
            assert_eq!(round.struck(), round.planned, "{told}");
        }
    }
}

fn round_json(round: &Round, each: bool) -> Value {
    let found = &round.found;
    let faults: Vec<Value> = round
        .faults
        .iter()
        .filter(|_| each)
        .map(|fault| {
            json!({
                "kind": fault.kind.name(),
                "detail": fault.detail,
                "at": fault.at.as_secs_f64(),
                "lasted": fault.lasted.as_secs_f64(),
                "recovered_from_strike": fault.after_strike.took.map(|took| took.as_secs_f64()),
                "recovered_from_end": fault.after_lift.took.map(|took| took.as_secs_f64()),
            })
        })
        .collect();
    json!({
        "name": round.name,
        "seconds": round.seconds.as_secs_f64(),
        "drained_seconds": round.drained.as_secs_f64(),
        "faults": round.struck(),
        "faults_made_again": round.missed,
        "puts_refused": round.refused,
        "steps_tried_again": round.tried_again,
        "fenced": round.fenced,
        "acknowledged": round.acknowledged,
        "transactional": {"committed": round.transactions.0, "aborted": round.transactions.1},
        "traces": found.traces,
        "rows": found.rows,
        "shards": found.shards,
        "lost": found.lost,
        "duplicated": found.duplicated,
        "foreign": found.foreign,
        "breaks": found.breaks,
        "gaps": found.gaps,
        "checksums": {"log": found.log_checksum, "shards": found.shard_checksum},
        "other_payloads": found.others,
        "dead_letters": {"found": found.letters, "lost": found.letters_lost, "foreign": found.letters_foreign},
        "troubles": round.wrong,
        "each": faults,
    })
}

fn median(sorted: &[f64]) -> Option<f64> {
    sorted.get(sorted.len() / 2).copied()
}

fn shown(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "–".to_owned(), |seconds| format!("{seconds:.1}"))
}
