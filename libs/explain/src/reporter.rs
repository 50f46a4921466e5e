//! From an outcome to the files of its report.

use tracer_learn::{Dataset, Family, FitConfig, FitError, GateStats, Outcome, Pipeline, Verdict};

use crate::{
    artifacts::{
        HeldOut, Previous, Space, TraceRef, boundary_pairs, changes, cues, diagnose,
        diagnose_error, disagreements, label_cards, label_slices, length_slices, reliability,
        weak_slices,
    },
    report::{
        BudgetReport, CandidateReport, Cost, FamilyReport, FrontierPoint, InputsShown, Report,
        SCHEMA_VERSION, ShadowReport, TargetReport, VersionPoint,
    },
};

/// A report as it is published.
#[derive(Clone, Debug)]
pub struct Files {
    /// `report.json`.
    pub json: Vec<u8>,
    /// `report.html`: one page that needs no network.
    pub html: Vec<u8>,
}

/// Writes up one refit at one target. It reads and changes nothing: a pipeline is the same
/// with and without.
#[derive(Clone, Copy)]
pub struct Reporter<'a> {
    task: &'a str,
    data: &'a Dataset,
    result: Result<&'a Outcome, &'a FitError>,
    config: &'a FitConfig,
    traces: &'a [TraceRef],
    previous: Option<Previous<'a>>,
    flywheel: &'a [VersionPoint],
    cost: Option<&'a Cost>,
}

impl<'a> Reporter<'a> {
    /// Of a refit of `data` under `config`.
    pub fn new(
        task: &'a str,
        data: &'a Dataset,
        result: Result<&'a Outcome, &'a FitError>,
        config: &'a FitConfig,
    ) -> Self {
        Self {
            task,
            data,
            result,
            config,
            traces: &[],
            previous: None,
            flywheel: &[],
            cost: None,
        }
    }

    /// Which trace each row of the dataset was. Without, examples are named by their rows.
    #[must_use]
    pub fn traces(self, traces: &'a [TraceRef]) -> Self {
        Self { traces, ..self }
    }

    /// The version that served before, to be asked the same rows.
    #[must_use]
    pub fn previous(self, previous: Option<Previous<'a>>) -> Self {
        Self { previous, ..self }
    }

    /// The versions before this one, the oldest first.
    #[must_use]
    pub fn flywheel(self, flywheel: &'a [VersionPoint]) -> Self {
        Self { flywheel, ..self }
    }

    /// What it saves.
    #[must_use]
    pub fn cost(self, cost: Option<&'a Cost>) -> Self {
        Self { cost, ..self }
    }

    /// The report, artifacts and all.
    pub fn report(&self) -> Report {
        let mut report = self.bare();
        match self.result {
            Ok(outcome) => self.artifacts(outcome, &mut report),
            Err(error) => {
                report.diagnosis = vec![diagnose_error(error, self.data)];
                for section in SECTIONS {
                    let why = "the refit came to no surrogate, so there is nothing to show";
                    report.absent.insert(section.into(), why.into());
                }
            }
        }
        report
    }

    /// The report's files.
    pub fn files(&self) -> Files {
        files(&self.report())
    }

    /// The report's files without the artifacts: the verdict, what it stands on, and `why`
    /// there is no more.
    pub fn bare_files(&self, why: &str) -> Files {
        let mut report = self.bare();
        for section in SECTIONS {
            report.absent.insert(section.into(), why.to_owned());
        }
        files(&report)
    }

    fn bare(&self) -> Report {
        let outcome = self.result.ok();
        let (verdict, reason) = match self.result {
            Ok(outcome) => match &outcome.verdict {
                Verdict::Passed => ("passed", None),
                Verdict::Refused { reason } => ("refused", Some(reason.clone())),
            },
            Err(error) => ("refused", Some(error.to_string())),
        };
        let target = match outcome {
            Some(outcome) => outcome.target,
            None => self.config.targets.first().copied().unwrap_or_default(),
        };
        Report {
            schema_version: SCHEMA_VERSION,
            task: self.task.to_owned(),
            verdict: verdict.to_owned(),
            reason,
            diagnosis: Vec::new(),
            target_agreement: target,
            delta: self.config.delta,
            family: outcome.map(|o| o.family.to_string()),
            surrogate: outcome.map(|o| o.surrogate.clone()),
            threshold: outcome.map(|o| f64::from(o.threshold)),
            training_traces: outcome.map_or(0, |o| o.training_traces),
            left_out: outcome.map_or(0, |o| o.left_out),
            not_sampled: outcome.map_or(0, |o| o.not_sampled),
            weighted: self.data.is_weighted(),
            inputs: InputsShown::Ids,
            shadow: shadow(&outcome.map(|o| o.shadow).unwrap_or_default()),
            candidates: outcome.map(candidates).unwrap_or_default(),
            families: outcome.map(families).unwrap_or_default(),
            frontier: outcome.map(frontier).unwrap_or_default(),
            targets: outcome.map(targets).unwrap_or_default(),
            budgets: outcome.map(budgets).unwrap_or_default(),
            labels: Vec::new(),
            lengths: Vec::new(),
            weak_slices: crate::WeakSlices::default(),
            cards: Vec::new(),
            pairs: Vec::new(),
            changes: None,
            disagreements: Vec::new(),
            reliability: Vec::new(),
            cues: None,
            flywheel: self.flywheel.to_vec(),
            cost: self.cost.cloned(),
            absent: std::collections::BTreeMap::new(),
        }
    }

    fn artifacts(&self, outcome: &Outcome, report: &mut Report) {
        let held = HeldOut::new(self.data, outcome, self.traces);
        let space = Space::of(&held, &self.config.lexicon);
        let (target, delta) = (outcome.target, self.config.delta);
        if held.shows_texts() {
            report.inputs = InputsShown::Text;
        }
        report.labels = label_slices(&held, delta);
        report.lengths = length_slices(&held, delta);
        report.disagreements = disagreements(&held);
        report.reliability = reliability(&held, delta);
        if held.serves {
            report.weak_slices = weak_slices(&held, target, delta);
            report.cards = label_cards(&held, &space);
            report.pairs = boundary_pairs(&held, &space);
        } else {
            let reason = report.reason.as_deref().unwrap_or_default();
            report.diagnosis = diagnose(&held, &space, self.config, reason);
        }
        match self.changes(&held) {
            Ok(changes) => report.changes = Some(changes),
            Err(why) => {
                report.absent.insert("changes".into(), why);
            }
        }
        let pipeline = outcome.pipeline.as_ref().or(outcome.uncertified.as_ref());
        let told = pipeline.map(|pipeline| cues(&held, pipeline, &self.config.lexicon));
        match told.unwrap_or_else(|| Err("there is no surrogate to look into".into())) {
            Ok(cues) => report.cues = Some(cues),
            Err(why) => {
                report.absent.insert("cues".into(), why);
            }
        }
        say_what_is_absent(report, outcome, &held);
    }

    fn changes(&self, held: &HeldOut<'_>) -> Result<crate::Changes, String> {
        if !held.serves {
            return Err("nothing new is served, so nothing changes".into());
        }
        let previous = self
            .previous
            .ok_or("there is no version before this one that can be asked")?;
        if previous.other_embedder {
            return Err(format!(
                "version {} is not comparable: another embedder",
                previous.version
            ));
        }
        let share = held.outcome.shadow_share;
        let unseen = |pipeline: &Pipeline| {
            pipeline.has_not_seen(self.task, self.data, self.config.seed, share)
        };
        if !unseen(previous.pipeline) {
            return Err(format!(
                "version {} may have been trained on some of these shadow traces, so it cannot be asked them fairly",
                previous.version
            ));
        }
        changes(held, previous)
            .map_err(|error| format!("version {} cannot be asked: {error}", previous.version))
    }
}

/// What a report without artifacts lacks.
const SECTIONS: [&str; 9] = [
    "labels",
    "lengths",
    "weak_slices",
    "cards",
    "pairs",
    "changes",
    "disagreements",
    "reliability",
    "cues",
];

fn say_what_is_absent(report: &mut Report, outcome: &Outcome, held: &HeldOut<'_>) {
    let mut absent = |section: &str, why: &str| {
        report.absent.insert(section.to_owned(), why.to_owned());
    };
    let refused = "the gate refused: nothing is handled";
    if report.lengths.is_empty() {
        absent("lengths", "the lengths of the texts are not known");
    }
    if report.disagreements.is_empty() {
        absent(
            "disagreements",
            "surrogate and teacher agree on every shadow trace",
        );
    }
    if report.reliability.is_empty() {
        absent("reliability", "there are too few shadow traces");
    }
    if !held.serves {
        absent("weak_slices", refused);
        absent("cards", refused);
        absent(
            "pairs",
            "the gate refused: nothing is handled, so there is no boundary",
        );
        return;
    }
    if report.weak_slices.tested == 0 {
        absent(
            "weak_slices",
            "no part of the handled traffic is large enough to be tested",
        );
    }
    if report.cards.is_empty() {
        absent(
            "cards",
            "no shadow trace has an embedding or words in common with others",
        );
    }
    if report.pairs.is_empty() {
        absent(
            "pairs",
            match outcome.family {
                Family::Global => {
                    "the surrogate answers everything that looks like the traces, however sure it is (family global): there is no boundary between handled and deferred inputs of one label"
                }
                Family::L2d | Family::Rsb => {
                    "no label has both a handled trace and one deferred for its score"
                }
            },
        );
    }
}

fn files(report: &Report) -> Files {
    Files {
        json: serde_json::to_vec_pretty(report).expect("a report of plain values"),
        html: report.html().into_bytes(),
    }
}

fn shadow(stats: &GateStats) -> ShadowReport {
    ShadowReport {
        coverage: stats.coverage,
        agreement: stats.agreement,
        agreement_lower: stats.agreement_lower,
        n: stats.n,
        n_effective: stats.n_effective,
    }
}

fn candidates(outcome: &Outcome) -> Vec<CandidateReport> {
    let candidates = outcome.candidates.iter();
    candidates
        .map(|c| CandidateReport {
            name: c.name.clone(),
            macro_f1: c.macro_f1,
            dropped: c.dropped.clone(),
        })
        .collect()
}

fn families(outcome: &Outcome) -> Vec<FamilyReport> {
    let families = outcome.families.iter();
    families
        .map(|f| FamilyReport {
            family: f.family.to_string(),
            surrogate: f.surrogate.clone(),
            expected_coverage: f.expected_coverage,
        })
        .collect()
}

fn frontier(outcome: &Outcome) -> Vec<FrontierPoint> {
    let points = outcome.frontier.iter();
    points
        .map(|s| FrontierPoint {
            coverage: s.coverage,
            agreement: s.agreement,
            agreement_lower: s.agreement_lower,
        })
        .collect()
}

fn targets(outcome: &Outcome) -> Vec<TargetReport> {
    let points = outcome.targets.iter();
    points
        .map(|point| TargetReport {
            target_agreement: point.target,
            passed: point.passed,
            shadow: shadow(&point.shadow),
        })
        .collect()
}

fn budgets(outcome: &Outcome) -> Vec<BudgetReport> {
    let points = outcome.budgets.iter();
    points
        .map(|point| BudgetReport {
            budget: point.budget,
            foreign: point.foreign + 0.0, // an empty sum is -0
            shadow: shadow(&point.shadow),
        })
        .collect()
}
