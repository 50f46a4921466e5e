//! The decision for one input: the hot path.

use std::{cell::RefCell, time::Instant};

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

/// Routes one input.
pub(crate) fn single(
    task: &Task,
    input: &v1::Input,
    limits: &Limits,
    metrics: &ServiceMetrics,
) -> Result<v1::RouteResponse, Invalid> {
    let started = Instant::now();
    let mut tally = Tally::default();
    let response = SCRATCH
        .with_borrow_mut(|scratch| one(task, input, Place::Single, limits, scratch, &mut tally))?;
    task.metrics.count(&tally);
    metrics.observe(1, started.elapsed());
    Ok(response)
}

/// Routes many inputs of one task with the one version it serves, in order.
///
/// The first input that is invalid refuses them all, and nothing is counted.
pub(crate) fn batch(
    task: &Task,
    inputs: &[v1::Input],
    limits: &Limits,
    metrics: &ServiceMetrics,
) -> Result<Vec<v1::RouteResponse>, Invalid> {
    let started = Instant::now();
    let mut tally = Tally::default();
    let responses = SCRATCH.with_borrow_mut(|scratch| {
        inputs
            .iter()
            .enumerate()
            .map(|(index, input)| {
                one(
                    task,
                    input,
                    Place::Batch(index),
                    limits,
                    scratch,
                    &mut tally,
                )
            })
            .collect::<Result<Vec<_>, _>>()
    })?;
    task.metrics.count(&tally);
    metrics.observe(responses.len(), started.elapsed());
    Ok(responses)
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

fn one(
    task: &Task,
    input: &v1::Input,
    place: Place,
    limits: &Limits,
    scratch: &mut Scratch,
    tally: &mut Tally,
) -> Result<v1::RouteResponse, Invalid> {
    validate::input(input, place, limits)?;
    let name = task.name.as_str();
    let mut defer = |serving: Option<&Serving>, reason, label: Option<usize>, score| {
        tally.deferred(reason);
        deferred(name, serving, reason, label, score)
    };
    let Some(serving) = task.serving.as_deref() else {
        return Ok(defer(None, DeferReason::NoPipeline, None, 0.0));
    };
    // A suspended version decides nothing: the echo must say that no version
    // did, or the trainer would take this input for one the version deferred.
    if task.suspended {
        return Ok(defer(None, DeferReason::Suspended, None, 0.0));
    }
    if comes_from_another_embedder(task, serving, input) {
        return Ok(defer(
            Some(serving),
            DeferReason::EmbedderMismatch,
            None,
            0.0,
        ));
    }
    let text = Some(input.text.as_str()).filter(|text| !text.trim().is_empty());
    let embedding = Some(input.embedding.as_slice()).filter(|values| !values.is_empty());
    match serving.pipeline.decide(Input { text, embedding }, scratch) {
        Ok(Decision::Handled { label, score }) => {
            let audit = task.audit.draw();
            tally.handled(audit);
            Ok(handled(task, serving, label, score, audit))
        }
        Ok(Decision::Deferred {
            reason,
            label,
            score,
        }) => Ok(defer(Some(serving), defer_reason(reason), label, score)),
        Err(error) => Err(undecidable(&error, task, serving, input, place)),
    }
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
        && !input.embedding.is_empty()
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
        request_id: String::new(),
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
        request_id: String::new(),
    }
}
