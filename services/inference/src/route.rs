//! The decision for one input: the hot path.

use std::{
    cell::RefCell,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Instant,
};

use tracer_learn::{DecideError, Decision, DeferReason as Why, Input, Scratch};
use tracer_proto::v1::{self, DeferReason};
use tracer_trace::{Limits, TaskName};

use crate::{
    catalog::{Serving, Task},
    metrics::{ServiceMetrics, Tally},
    validate::{self, Invalid, Place},
};

thread_local! {
    /// The buffers of `decide`, one set a thread, so that a route allocates
    /// nothing but its answer.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What a request asks for besides its inputs, and what they are checked against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms<'a> {
    pub(crate) limits: &'a Limits,
    /// Labels to list in every answer.
    pub(crate) top_k: usize,
}

/// Routes one input.
pub(crate) fn single(
    task: &Task,
    input: &v1::Input,
    terms: Terms<'_>,
    metrics: &ServiceMetrics,
) -> Result<v1::RouteResponse, Invalid> {
    let started = Instant::now();
    let mut tally = Tally::default();
    let place = Place::Single;
    validate::input(input, place, terms.limits)?;
    let response = match standing(task, input) {
        Standing::Deferred(serving, reason) => defer(task, serving, reason, None, 0.0, &mut tally),
        Standing::Decides(serving) => SCRATCH.with_borrow_mut(|scratch| {
            let decision = serving.pipeline.decide(parts(input), scratch);
            let decision =
                decision.map_err(|error| undecidable(&error, task, serving, input, place))?;
            let mut response = answer(task, serving, decision, &mut tally);
            if terms.top_k > 0 && was_scored(decision) {
                response.top = top(
                    serving,
                    serving.pipeline.probabilities(scratch),
                    terms.top_k,
                );
            }
            Ok::<_, Invalid>(response)
        })?,
    };
    task.metrics.count(&tally);
    metrics.observe(1, started.elapsed());
    Ok(response)
}

/// Inputs that are decided between two looks at whether anybody still waits.
const STRETCH: usize = 64;

/// Why a batch has no answers.
#[derive(Debug)]
pub(crate) enum Failed {
    Invalid(Invalid),
    /// Nobody waits for them any more.
    Abandoned,
}

impl From<Invalid> for Failed {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

/// Routes many inputs of one task with the one version it serves, in order.
///
/// The first input that is invalid refuses them all, and nothing is counted. So it
/// is when nobody waits for the answers any more.
pub(crate) fn batch(
    task: &Task,
    inputs: &[v1::Input],
    terms: Terms<'_>,
    metrics: &ServiceMetrics,
    abandoned: &AtomicBool,
) -> Result<Vec<v1::RouteResponse>, Failed> {
    let started = Instant::now();
    let mut tally = Tally::default();
    let mut responses = Vec::with_capacity(inputs.len());
    for (index, input) in inputs.iter().enumerate() {
        validate::input(input, Place::Batch(index), terms.limits)?;
    }
    for stretch in inputs.chunks(STRETCH) {
        if abandoned.load(Relaxed) {
            return Err(Failed::Abandoned);
        }
        decide_stretch(task, stretch, terms.top_k, &mut tally, &mut responses)?;
    }
    task.metrics.count(&tally);
    metrics.observe(responses.len(), started.elapsed());
    Ok(responses)
}

/// Decides inputs that were checked, and adds their answers to `responses`.
fn decide_stretch(
    task: &Task,
    inputs: &[v1::Input],
    top_k: usize,
    tally: &mut Tally,
    responses: &mut Vec<v1::RouteResponse>,
) -> Result<(), Invalid> {
    let first = responses.len();
    // Where the answers of those inputs belong that the pipeline decides.
    let mut places = Vec::with_capacity(inputs.len());
    for (at, input) in inputs.iter().enumerate() {
        responses.push(match standing(task, input) {
            Standing::Deferred(serving, reason) => defer(task, serving, reason, None, 0.0, tally),
            Standing::Decides(_) => {
                places.push(at);
                v1::RouteResponse::default()
            }
        });
    }
    let Some(serving) = task.serving.as_deref().filter(|_| !places.is_empty()) else {
        return Ok(());
    };
    let answers = &mut responses[first..];
    let decided = places.iter().map(|&at| parts(&inputs[at]));
    let mut next = places.iter();
    let mut wrong = None;
    let each = |decision: Result<Decision, DecideError>, probabilities: &[f32]| {
        let Some(&at) = next.next() else { return };
        match decision {
            Ok(decision) => {
                answers[at] = answer(task, serving, decision, tally);
                if top_k > 0 {
                    answers[at].top = top(serving, probabilities, top_k);
                }
            }
            Err(error) => {
                wrong.get_or_insert((at, error));
            }
        }
    };
    SCRATCH.with_borrow_mut(|scratch| serving.pipeline.decide_batch(decided, scratch, each));
    match wrong {
        None => Ok(()),
        Some((at, error)) => {
            let place = Place::Batch(first + at);
            Err(undecidable(&error, task, serving, &inputs[at], place))
        }
    }
}

/// The answer for a task that is not known: ask the teacher.
pub(crate) fn unknown(
    task: &TaskName,
    input: &v1::Input,
    place: Place,
    limits: &Limits,
) -> Result<v1::RouteResponse, Invalid> {
    validate::input(input, place, limits)?;
    Ok(deferred(
        task.as_str(),
        None,
        DeferReason::NoPipeline,
        None,
        0.0,
    ))
}

/// Whether the task's version decides an input at all.
enum Standing<'a> {
    Decides(&'a Serving),
    Deferred(Option<&'a Serving>, DeferReason),
}

fn standing<'a>(task: &'a Task, input: &v1::Input) -> Standing<'a> {
    let Some(serving) = task.serving.as_deref() else {
        return Standing::Deferred(None, DeferReason::NoPipeline);
    };
    // A suspended version decides nothing: the echo must say that no version
    // did, or the trainer would take this input for one the version deferred.
    if task.suspended {
        return Standing::Deferred(None, DeferReason::Suspended);
    }
    if comes_from_another_embedder(task, serving, input) {
        return Standing::Deferred(Some(serving), DeferReason::EmbedderMismatch);
    }
    Standing::Decides(serving)
}

/// What the pipeline sees of an input. Text of white space is no text to it.
fn parts(input: &v1::Input) -> Input<'_> {
    Input {
        text: Some(input.text.as_str()),
        embedding: Some(input.embedding.as_slice()).filter(|values| !values.is_empty()),
    }
}

fn defer(
    task: &Task,
    serving: Option<&Serving>,
    reason: DeferReason,
    label: Option<usize>,
    score: f32,
    tally: &mut Tally,
) -> v1::RouteResponse {
    tally.deferred(reason);
    deferred(task.name.as_str(), serving, reason, label, score)
}

fn answer(
    task: &Task,
    serving: &Serving,
    decision: Decision,
    tally: &mut Tally,
) -> v1::RouteResponse {
    match decision {
        Decision::Handled { label, score } => {
            let audit = task.audit.draw();
            tally.handled(audit);
            handled(task, serving, label, score, audit)
        }
        Decision::Deferred {
            reason,
            label,
            score,
        } => defer(
            task,
            Some(serving),
            defer_reason(reason),
            label,
            score,
            tally,
        ),
    }
}

/// Whether there are probabilities: the surrogate had a label.
fn was_scored(decision: Decision) -> bool {
    match decision {
        Decision::Handled { .. } => true,
        Decision::Deferred { label, .. } => label.is_some(),
    }
}

/// The most probable labels, the first one first; of equals the lower class first,
/// as in the decision. Probabilities that are no numbers are none.
fn top(serving: &Serving, probabilities: &[f32], k: usize) -> Vec<v1::LabelProbability> {
    let mut best: Vec<(usize, f32)> = probabilities
        .iter()
        .copied()
        .enumerate()
        .filter(|(_, p)| !p.is_nan())
        .collect();
    let order = |a: &(usize, f32), b: &(usize, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if k < best.len() {
        best.select_nth_unstable_by(k, order);
        best.truncate(k);
    }
    best.sort_unstable_by(order);
    best.into_iter()
        .map(|(label, probability)| v1::LabelProbability {
            label: label_text(serving, label),
            probability,
        })
        .collect()
}

/// Whether the embedding that was sent, or that would be made of the text, is another
/// model's than those the pipeline was fitted on.
fn comes_from_another_embedder(task: &Task, serving: &Serving, input: &v1::Input) -> bool {
    if input.embedding.is_empty() {
        return task.embeds_otherwise(serving) && !input.text.trim().is_empty();
    }
    let Some(embedder) = &serving.embedder else {
        return false;
    };
    serving.embedding_dimension.is_some()
        && !input.embedder.is_empty()
        && input.embedder != *embedder
}

fn defer_reason(why: Why) -> DeferReason {
    match why {
        Why::LowScore => DeferReason::LowScore,
        Why::OutOfDistribution => DeferReason::OutOfDistribution,
        Why::NoEmbedding => DeferReason::NoEmbedding,
        Why::NoText => DeferReason::NoText,
    }
}

fn undecidable(
    error: &DecideError,
    task: &Task,
    serving: &Serving,
    input: &v1::Input,
    place: Place,
) -> Invalid {
    match *error {
        DecideError::WrongDimension { expected, got } => Invalid::WrongDimension {
            field: place.field(),
            task: task.name.clone(),
            version: serving.version,
            got,
            expected,
        },
        DecideError::NotFinite { index } => Invalid::NotFinite {
            field: place.field(),
            index,
            value: input.embedding.get(index).copied().unwrap_or(f32::NAN),
        },
    }
}

fn label_text(serving: &Serving, label: usize) -> String {
    // A loaded pipeline's labels cover its decisions; an empty label would be
    // a wrong answer, so `load` checks the count before the pipeline serves.
    serving
        .pipeline
        .labels()
        .get(label)
        .cloned()
        .unwrap_or_default()
}

fn handled(
    task: &Task,
    serving: &Serving,
    label: usize,
    score: f32,
    audit: bool,
) -> v1::RouteResponse {
    let label = label_text(serving, label);
    v1::RouteResponse {
        decision: v1::Decision::Handled.into(),
        label: label.clone(),
        score,
        threshold: serving.threshold,
        reason: DeferReason::Unspecified.into(),
        pipeline_version: serving.version,
        routing: Some(v1::Routing {
            pipeline_version: serving.version,
            decision: v1::Decision::Handled.into(),
            label: Some(label),
            score: Some(score),
            audit,
            propensity: task.audit.rate(),
        }),
        task: task.name.as_str().to_owned(),
        ..v1::RouteResponse::default()
    }
}

fn deferred(
    task: &str,
    serving: Option<&Serving>,
    reason: DeferReason,
    label: Option<usize>,
    score: f32,
) -> v1::RouteResponse {
    let version = serving.map_or(0, |serving| serving.version);
    let label = serving
        .zip(label)
        .map(|(serving, label)| label_text(serving, label));
    v1::RouteResponse {
        decision: v1::Decision::Deferred.into(),
        label: String::new(),
        score,
        threshold: serving.map_or(0.0, |serving| serving.threshold),
        reason: reason.into(),
        pipeline_version: version,
        routing: Some(v1::Routing {
            pipeline_version: version,
            decision: v1::Decision::Deferred.into(),
            // Nothing was scored where no label was found.
            score: label.is_some().then_some(score),
            label,
            audit: false,
            propensity: 1.0,
        }),
        task: task.to_owned(),
        ..v1::RouteResponse::default()
    }
}
