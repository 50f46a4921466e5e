//! One day of the support desk.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use tokio::{
    sync::broadcast::Receiver,
    time::{Instant, sleep, timeout},
};
use tracer_learn::Family;
use tracer_proto::v1;
use tracer_source::{LogWriter, Message};
use tracer_trace::{Decision, Routing, TaskName, TopicName, Trace, to_json_line};
use tracer_trainer::{RefitEvent, RefitResult};

use super::table::Progress;
use crate::{
    commands::client::{Client, ClientArgs},
    config::Config,
    demo::data::Utterance,
    host::{Host, reachable},
};

/// How long a refit may take.
const REFIT_PATIENCE: Duration = Duration::from_mins(30);

/// How long a published version may take to serve.
const SERVE_PATIENCE: Duration = Duration::from_secs(30);

/// Messages routed in one call.
const BATCH: usize = 100;

/// Messages tried for an example.
const EXAMPLES: usize = 20;

/// What came of a day.
#[derive(Debug)]
pub(super) struct Day {
    pub(super) number: usize,
    /// Distinct traces in the refit, of all days so far.
    pub(super) traces: u64,
    pub(super) result: RefitResult,
    pub(super) refit_seconds: f64,
    /// The version that answered during the day; 0 for none.
    pub(super) served_by: u64,
    pub(super) messages: usize,
    pub(super) handled: usize,
    /// Of the handled, those the teacher was to be asked about as well.
    pub(super) audited: usize,
    /// Handled as the teacher would have.
    pub(super) agreed: usize,
}

impl Day {
    /// Calls of the teacher that the day needed: for the deferred messages, and
    /// for audits.
    pub(super) fn teacher_calls(&self) -> usize {
        self.messages - self.saved_calls()
    }

    /// Calls that it did not need, as `tracer_teacher_calls_saved_total` counts them.
    pub(super) fn saved_calls(&self) -> usize {
        self.handled - self.audited
    }

    /// Share of the handled messages answered as the teacher would have.
    pub(super) fn live_agreement(&self) -> Option<f64> {
        (self.handled > 0).then(|| self.agreed as f64 / self.handled as f64)
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        json!({
            "day": self.number,
            "traces": self.traces,
            "verdict": self.result.verdict(),
            "reason": self.result.reason(),
            "version": self.result.version(),
            "family": self.result.family().map(Family::as_str),
            "surrogate": self.result.surrogate(),
            "shadow": self.result.shadow().map(|s| json!({
                "coverage": s.coverage, "agreement": s.agreement, "agreement_lower": s.agreement_lower, "n": s.n,
            })),
            "refit_seconds": self.refit_seconds,
            "served_by": self.served_by,
            "messages": self.messages,
            "handled": self.handled,
            "audited": self.audited,
            "teacher_calls": self.teacher_calls(),
            "live_agreement": self.live_agreement(),
        })
    }
}

/// The desk: a client of the running services like any other.
pub(super) struct Desk {
    client: Client,
    writer: Arc<dyn LogWriter>,
    topic: TopicName,
    refits: Receiver<RefitEvent>,
    task: TaskName,
    seed: u64,
    /// When the first message came.
    opened: DateTime<Utc>,
    /// The accept scores of the latest day's messages.
    scores: Vec<f32>,
}

impl Desk {
    pub(super) async fn open(
        host: &Host,
        config: &Config,
        task: TaskName,
        seed: u64,
        asked_with: &ClientArgs,
    ) -> anyhow::Result<Self> {
        let address = host.grpc.context("the inference service does not run")?;
        let client = asked_with
            .connect(&reachable(address).to_string())
            .await
            .context("cannot reach the inference service")?;
        Ok(Self {
            client,
            writer: host
                .writer
                .clone()
                .context("the source has no writing end")?,
            topic: config.source.write_topic(),
            refits: host.events(),
            task,
            seed,
            opened: Utc::now() - TimeDelta::days(super::DAYS as i64),
            scores: Vec::new(),
        })
    }

    /// Routes the day's messages, sends their traces, and waits for the refit.
    pub(super) async fn live(
        &mut self,
        number: usize,
        messages: &[Utterance],
        progress: &Progress,
    ) -> anyhow::Result<Day> {
        progress.stage("routing");
        let mut routes = Vec::with_capacity(messages.len());
        for batch in messages.chunks(BATCH) {
            routes.extend(self.route(batch).await?);
            progress.advance(batch.len());
        }
        let mut day = Day {
            number,
            traces: 0,
            result: RefitResult::Failed {
                error: String::new(),
            },
            refit_seconds: 0.0,
            served_by: routes
                .iter()
                .map(|route| route.pipeline_version)
                .max()
                .unwrap_or(0),
            messages: messages.len(),
            handled: 0,
            audited: 0,
            agreed: 0,
        };
        for (message, route) in messages.iter().zip(&routes) {
            if route.decision() == v1::Decision::Handled {
                day.handled += 1;
                day.audited += usize::from(route.routing.as_ref().is_some_and(|echo| echo.audit));
                day.agreed += usize::from(route.label == message.teacher);
            }
        }
        self.scores = routes.iter().map(|route| route.score).collect();
        progress.stage("sending the traces");
        self.send(number, messages, &routes).await?;
        progress.stage("refitting");
        let event = self.refit().await?;
        (day.traces, day.refit_seconds, day.result) = (event.traces, event.seconds, event.result);
        match &day.result {
            RefitResult::Published { version, .. } => {
                progress.stage("taking over");
                self.serves(*version).await?;
            }
            RefitResult::Refused { .. } => {}
            RefitResult::Failed { error } => bail!("the refit of day {number} failed: {error}"),
        }
        Ok(day)
    }

    /// A message that is handled now and one that is deferred, as clear ones as
    /// there are among the day's.
    pub(super) async fn examples(&mut self, messages: &[Utterance]) -> anyhow::Result<[String; 2]> {
        // Nothing that a shell would take for its own.
        let plain = |text: &str| {
            text.chars()
                .all(|c| c.is_ascii_alphanumeric() || " ,.".contains(c))
        };
        let mut ranked: Vec<(f32, &Utterance)> = self
            .scores
            .iter()
            .copied()
            .zip(messages)
            .filter(|(_, message)| plain(&message.text))
            .collect();
        ranked.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let ranked: Vec<Utterance> = ranked.into_iter().map(|(_, m)| m.clone()).collect();
        let handled = self
            .first(v1::Decision::Handled, ranked.iter().take(EXAMPLES))
            .await?;
        // What two intents share shows better why than a heap of typing errors.
        let unclear = ranked.iter().rev().filter(|message| message.ambiguous);
        let deferred = self
            .first(v1::Decision::Deferred, unclear.take(EXAMPLES))
            .await?;
        Ok([handled, deferred])
    }

    /// The first of some messages that is decided so; they were scored by the
    /// version before. Asked one by one, because every route is counted.
    async fn first(
        &mut self,
        decision: v1::Decision,
        messages: impl Iterator<Item = &Utterance>,
    ) -> anyhow::Result<String> {
        for message in messages {
            let routes = self.route(std::slice::from_ref(message)).await?;
            if routes.iter().all(|route| route.decision() == decision) {
                return Ok(message.text.clone());
            }
        }
        Ok("where is my plant".to_owned())
    }

    async fn route(&mut self, messages: &[Utterance]) -> anyhow::Result<Vec<v1::RouteResponse>> {
        let input = |message: &Utterance| v1::Input {
            text: message.text.clone(),
            ..v1::Input::default()
        };
        let request = v1::RouteBatchRequest {
            task: self.task.to_string(),
            inputs: messages.iter().map(input).collect(),
            top_k: 0,
        };
        let responses = self
            .client
            .route_batch(request)
            .await
            .context("a route failed")?
            .into_inner()
            .responses;
        if responses.len() == messages.len() {
            Ok(responses)
        } else {
            bail!("{} answers to {} messages", responses.len(), messages.len())
        }
    }

    async fn send(
        &self,
        number: usize,
        messages: &[Utterance],
        routes: &[v1::RouteResponse],
    ) -> anyhow::Result<()> {
        let day = self.opened + TimeDelta::days(number as i64 - 1);
        let gap = TimeDelta::days(1) / messages.len().max(1) as i32;
        let mut records = Vec::with_capacity(messages.len());
        for (i, (message, route)) in messages.iter().zip(routes).enumerate() {
            let trace = Trace {
                id: format!("demo-{}-{number}-{i}", self.seed),
                task: self.task.clone(),
                input: Some(message.text.clone()),
                withheld: None,
                embedding: None,
                embedder: None,
                teacher: message.teacher.to_owned(),
                ground_truth: Some(message.intent.to_owned()),
                timestamp: Some(day + gap * i as i32),
                metadata: BTreeMap::from([(
                    "register".to_owned(),
                    message.register.name().to_owned(),
                )]),
                routing: Some(echo(route)),
            };
            records.push(Message::new(to_json_line(&trace)));
        }
        self.writer
            .append_batch(&self.topic, records)
            .await
            .context("cannot send the traces")?;
        Ok(())
    }

    async fn refit(&mut self) -> anyhow::Result<RefitEvent> {
        loop {
            let event = timeout(REFIT_PATIENCE, self.refits.recv())
                .await
                .map_err(|_| anyhow!("no refit within {} seconds", REFIT_PATIENCE.as_secs()))??;
            if event.task == self.task {
                return Ok(event);
            }
        }
    }

    /// Waits until the version answers.
    async fn serves(&mut self, version: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + SERVE_PATIENCE;
        loop {
            let request = v1::GetPipelineRequest {
                task: self.task.to_string(),
            };
            if let Ok(pipeline) = self.client.get_pipeline(request).await
                && pipeline.get_ref().version >= version
            {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "version {version} does not serve after {} seconds",
                    SERVE_PATIENCE.as_secs()
                );
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The echo of a route. The teacher labels every message of the demo, so the
/// probability that a label is observed is 1 whatever was decided.
fn echo(route: &v1::RouteResponse) -> Routing {
    let handled = route.decision() == v1::Decision::Handled;
    let scored = route.routing.as_ref();
    Routing {
        pipeline_version: route.pipeline_version,
        decision: if handled {
            Decision::Handled
        } else {
            Decision::Deferred
        },
        label: scored.and_then(|routing| routing.label.clone()),
        score: scored.and_then(|routing| routing.score),
        audit: handled,
        propensity: 1.0,
    }
}
