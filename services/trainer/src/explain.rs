//! The report of a refit: what is read for it, and where that of a refusal goes.
//!
//! A report explains; it decides nothing. Whatever goes wrong here is logged, and a
//! version is published all the same, with a report that says what it lacks.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{SecondsFormat, Utc};
use tracer_explain::{Cost, Files, Previous, Report, Reporter, SCHEMA_VERSION, VersionPoint};
use tracer_learn::{FitConfig, Verdict};
use tracer_store::{Manifest, PipelineVersion, Registry, ReportFormat, StoreError};
use tracer_trace::TaskName;

use crate::{
    Teacher,
    earlier::{Base, read_base},
    refit::Fitted,
};

/// Versions of the past that a report shows, at the most: the newest.
const FLYWHEEL: usize = 60;

/// Writes up a refit, passed or refused.
pub(crate) async fn explain(
    registry: &Registry,
    task: &TaskName,
    fitted: &Arc<Fitted>,
    config: &FitConfig,
    teacher: &Teacher,
) -> Files {
    let (previous, flywheel) = match past(registry, task).await {
        Ok(past) => past,
        Err(error) => {
            tracing::warn!(%task, %error, "the report says nothing of earlier versions");
            (None, Vec::new())
        }
    };
    let cost = cost(fitted, teacher);
    let shown = cost.clone();
    let (name, of, plan) = (task.clone(), Arc::clone(fitted), config.clone());
    let written = tokio::task::spawn_blocking(move || {
        let previous = previous.as_ref().map(|earlier| Previous {
            version: earlier.version.get(),
            pipeline: &earlier.pipeline,
            other_embedder: !earlier.stands_on(of.rows.embedder.as_deref()),
        });
        reporter(&name, &of, &plan)
            .previous(previous)
            .flywheel(&flywheel)
            .cost(shown.as_ref())
            .files()
    });
    match written.await {
        Ok(files) => files,
        Err(panic) => {
            tracing::error!(%task, error = %panic, "the report's artifacts could not be made");
            reporter(task, fitted, config)
                .cost(cost.as_ref())
                .bare_files("it could not be made; the trainer's log has the error")
        }
    }
}

/// What the version saves. Of a refusal nothing is told: it makes no version.
fn cost(fitted: &Fitted, teacher: &Teacher) -> Option<Cost> {
    let outcome = fitted.result.as_ref().ok()?;
    let passed = matches!(outcome.verdict, Verdict::Passed);
    let cost = || fitted.told.report(teacher, outcome.shadow.coverage);
    passed.then(cost).flatten()
}

fn reporter<'a>(task: &'a TaskName, fitted: &'a Fitted, config: &'a FitConfig) -> Reporter<'a> {
    Reporter::new(
        task.as_str(),
        &fitted.rows.data,
        fitted.result.as_ref(),
        config,
    )
    .traces(&fitted.rows.traces)
}

/// Whether a version cannot be read however often one tries: it is damaged or too new, or
/// retention has deleted it since it was listed.
pub(crate) fn is_lost(error: &StoreError) -> bool {
    error.is_refusal() || matches!(error, StoreError::NotFound { .. })
}

type Past = (Option<Base>, Vec<VersionPoint>);

/// The version that serves, or would were it not suspended, and all versions before.
async fn past(registry: &Registry, task: &TaskName) -> Result<Past, StoreError> {
    let active = registry.active(task).await?.version;
    let mut previous = None;
    if let Some(version) = active {
        let read = match read_base(registry, task, version).await {
            Err(error) if is_lost(&error) => Err(error.to_string()),
            read => read?,
        };
        match read {
            Ok(earlier) => previous = Some(earlier),
            Err(error) => {
                tracing::warn!(%task, %version, error, "the report cannot compare with the active version");
            }
        }
    }
    Ok((previous, flywheel(registry, task).await?))
}

/// The versions of the past. The newest report that can be read tells of those before it,
/// even of such as are gone; manifests tell of the rest.
async fn flywheel(registry: &Registry, task: &TaskName) -> Result<Vec<VersionPoint>, StoreError> {
    let mut versions = registry.versions(task).await?;
    versions.drain(..versions.len().saturating_sub(FLYWHEEL));
    let mut points: Vec<VersionPoint> = Vec::new();
    if let Some(&last) = versions.last() {
        match registry.report(task, last, ReportFormat::Json).await {
            Ok(json) => {
                let report = serde_json::from_slice::<Report>(&json);
                let known = report.ok().filter(|r| r.schema_version == SCHEMA_VERSION);
                points = known.map(|report| report.flywheel).unwrap_or_default();
            }
            Err(error) if is_lost(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let known = |version: &PipelineVersion| points.iter().any(|p| p.version == version.get());
    versions.retain(|version| !known(version));
    // One, as a rule: the newest itself.
    for version in versions {
        match registry.manifest(task, version).await {
            Ok(manifest) => points.push(point(&manifest)),
            Err(error) if is_lost(&error) => {}
            Err(error) => return Err(error),
        }
    }
    points.sort_by_key(|point| point.version);
    points.drain(..points.len().saturating_sub(FLYWHEEL));
    Ok(points)
}

fn point(manifest: &Manifest) -> VersionPoint {
    VersionPoint {
        version: manifest.version.get(),
        created_at: manifest
            .created_at
            .to_rfc3339_opts(SecondsFormat::Secs, true),
        target_agreement: manifest.target_agreement,
        training_traces: manifest.training_traces,
        coverage: manifest.shadow.coverage,
        agreement: manifest.shadow.agreement,
        agreement_lower: manifest.shadow.agreement_lower,
    }
}

/// Keeps the report of a refusal. Nothing rests on it: where it cannot be kept, the refusal
/// stands all the same.
pub(crate) async fn keep_refusal(registry: &Registry, task: &TaskName, report: Files) {
    let (json, html) = (Bytes::from(report.json), Bytes::from(report.html));
    if let Err(error) = registry.keep_refusal(task, Utc::now(), json, html).await {
        tracing::warn!(%task, %error, "the report of the refusal could not be kept");
    }
}
