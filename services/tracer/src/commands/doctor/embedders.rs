//! The embedders of tasks: that they can be opened, and answer.

use std::time::{Duration, Instant};

use tracer_features::embed::{EmbedderConfig, EmbedderKind};
use tracer_store::Store;

use super::finding::{Finding, Report};
use crate::{config::Config, embedders::open_one};

const REMEDY: &str = "look at the keys of this embedder (docs/embedders.md), and whether its server, or the place its model is in, can be reached from here. Until it answers, texts without an embedding are deferred";

/// Opens each embedder that is configured, once, and lets it embed a text.
pub(super) async fn examine(
    report: &mut Report,
    config: &Config,
    store: Option<&Store>,
    limit: Duration,
) {
    let tasks = config.tasks.iter();
    let tasks = tasks.map(|(name, task)| (format!("tasks.{name}.embedder"), &task.embedder));
    let default = (
        "task_defaults.embedder".to_owned(),
        &config.task_defaults.embedder,
    );
    let mut seen: Vec<&EmbedderConfig> = Vec::new();
    for (place, embedder) in [default].into_iter().chain(tasks) {
        if embedder.kind == EmbedderKind::None || seen.contains(&embedder) {
            continue;
        }
        seen.push(embedder);
        if embedder.model.starts_with("store:") && store.is_none() {
            report.not_tried(format!("{place}: its model is in the store, which failed"));
            continue;
        }
        one(report, &place, embedder, store, limit).await;
    }
}

async fn one(
    report: &mut Report,
    place: &str,
    config: &EmbedderConfig,
    store: Option<&Store>,
    limit: Duration,
) {
    let check = format!("embedder: {place}");
    let run = async {
        let Some(embedder) = open_one(place, config, store).await? else {
            return Ok(None);
        };
        let begun = Instant::now();
        let text = "where is my parcel?".to_owned();
        let vectors = embedder.embed(vec![text]).await?;
        let identity = embedder.identity().to_string();
        Ok::<_, anyhow::Error>(Some((identity, vectors.len(), begun.elapsed())))
    };
    match report.within(&check, limit, REMEDY, run).await {
        Some(Ok(Some((identity, 1, took)))) => {
            let took = took.as_millis();
            let found = format!("{identity} embeds a text in {took} ms");
            report.add(Finding::ok(check, found));
        }
        Some(Ok(_)) => {
            let found = "answers without a vector for the text";
            report.add(Finding::failed(check, found, REMEDY));
        }
        Some(Err(error)) => {
            report.add(Finding::failed(check, format!("{error:#}"), REMEDY));
        }
        None => {}
    }
}
