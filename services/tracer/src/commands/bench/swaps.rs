//! `tracer bench route --swaps`: versions published one after the other under full load.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::bail;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tonic::{Code, Status, transport::Channel};
use tracer_proto::v1::{self, Decision, router_client::RouterClient};

use super::{
    child::Server,
    fixture::{self, DENSE, DIMENSION, Parts, Twin, World},
    load::Client,
    report::percentile,
};
use crate::output;

/// Callers of `Route`, each with one request under way.
const CALLERS: usize = 64;
/// Callers of `RouteBatch` beside them.
const BATCH_CALLERS: usize = 2;
/// Inputs of their batches.
const ROWS: usize = 16;
/// How long a version may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// Publishes `swaps` versions one after the other, each once the one before answers, and
/// looks at every answer meanwhile: whether label, threshold and echo are of the version
/// it names. The same load for `seconds` before and after, without a swap, is what the
/// latencies stand beside. Fails where an answer was an error or mixed versions.
pub(super) async fn run(
    directory: &Path,
    connections: usize,
    swaps: u64,
    seconds: f64,
    as_json: bool,
) -> anyhow::Result<()> {
    let parts = Parts {
        text: false,
        dimension: DIMENSION,
    };
    let world = World::new(DIMENSION);
    let twins = Arc::new(fixture::twins(&world, parts).await?);
    let registry = fixture::registry(directory)?;
    let of = |version: u64| &twins[usize::from(version.is_multiple_of(2))];
    of(1).publish(&registry).await?;
    let server = Server::start(&[&directory.to_string_lossy()]).await?;
    let client = Client::connect(&server.addr, connections).await?;
    let requests = fixture::routes(&world, DENSE, parts);
    let requests: Result<Vec<_>, _> = requests.into_iter().map(v1::RouteRequest::decode).collect();
    let load = Load {
        twins: Arc::clone(&twins),
        requests: requests?.into(),
        channels: client.channels().to_vec(),
        latest: Arc::default(),
    };
    // A task whose version is not loaded yet defers, and names none.
    reached(
        &load,
        1,
        drive_until(&load, tokio::time::sleep(Duration::from_secs(1)))
            .await
            .0,
    )?;
    let quiet = || tokio::time::sleep(Duration::from_secs_f64(seconds));
    let (mut baseline, ()) = drive_until(&load, quiet()).await;
    output::say(format_args!(
        "{:.0} routes/s without a swap",
        baseline.rate()
    ));
    let (mut swapping, lags) = drive_until(&load, async {
        let mut lags = Vec::new();
        for version in 2..=swaps + 1 {
            of(version).publish(&registry).await?;
            let published = Instant::now();
            while load.latest.load(Relaxed) < version {
                if published.elapsed() > PATIENCE {
                    bail!("version {version} does not answer");
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            lags.push(
                published
                    .elapsed()
                    .as_millis()
                    .try_into()
                    .unwrap_or(u32::MAX),
            );
        }
        anyhow::Ok(lags)
    })
    .await;
    let mut lags: Vec<u32> = lags?;
    let (after, ()) = drive_until(&load, quiet()).await;
    baseline.join(after);
    let (p99, quiet_p99) = (swapping.percentile(0.99), baseline.percentile(0.99));
    let ratio = p99 / quiet_p99.max(f64::MIN_POSITIVE);
    let (errors, mixed) = (
        baseline.errors + swapping.errors,
        baseline.mixed + swapping.mixed,
    );
    let error = baseline.error.take().or(swapping.error.take());
    if as_json {
        output::json(&json!({
            "swaps": swaps,
            "baseline": baseline.json(),
            "swapping": swapping.json(),
            "p99_ratio": (ratio * 1000.0).round() / 1000.0,
            "errors": errors,
            "mixed": mixed,
            "answers_after_ms": {"p50": percentile(&mut lags, 0.5), "most": percentile(&mut lags, 1.0)},
        }));
    } else {
        output::line(format_args!(
            "{swaps} swaps in {:.0} s: {} answers, {errors} errors, {mixed} mixed; p99 {:.1} ms, {ratio:.2} × the {:.1} ms without swaps",
            swapping.seconds,
            swapping.answers,
            p99 / 1e3,
            quiet_p99 / 1e3,
        ));
    }
    match error {
        Some(error) => bail!("{errors} errors and {mixed} mixed answers, such as: {error}"),
        None => Ok(()),
    }
}

/// That the version answers at all.
fn reached(load: &Load, version: u64, seen: Seen) -> anyhow::Result<()> {
    if load.latest.load(Relaxed) >= version {
        return Ok(());
    }
    let error = seen.error.unwrap_or_else(|| "no answer of it".to_owned());
    bail!("version {version} does not answer: {error}")
}

/// What is asked, and what the answers must be like.
#[derive(Clone)]
struct Load {
    twins: Arc<[Twin; 2]>,
    requests: Arc<[v1::RouteRequest]>,
    channels: Vec<Channel>,
    /// The highest version that has answered.
    latest: Arc<AtomicU64>,
}

/// What callers saw.
#[derive(Default)]
struct Seen {
    seconds: f64,
    /// Microseconds of every `Route`.
    latencies: Vec<u32>,
    /// Answers, those of batches too.
    answers: u64,
    /// Requests turned away by `RESOURCE_EXHAUSTED`: a full load may.
    shed: u64,
    errors: u64,
    mixed: u64,
    /// The first error or mixed answer.
    error: Option<String>,
}

impl Seen {
    fn join(&mut self, other: Self) {
        self.seconds += other.seconds;
        self.latencies.extend(other.latencies);
        self.answers += other.answers;
        self.shed += other.shed;
        self.errors += other.errors;
        self.mixed += other.mixed;
        self.error = self.error.take().or(other.error);
    }

    fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }

    fn percentile(&mut self, share: f64) -> f64 {
        percentile(&mut self.latencies, share)
    }

    fn json(&mut self) -> Value {
        json!({
            "seconds": self.seconds,
            "rps": (self.rate() * 10.0).round() / 10.0,
            "p50_us": self.percentile(0.5),
            "p99_us": self.percentile(0.99),
            "answers": self.answers,
            "shed": self.shed,
            "errors": self.errors,
            "mixed": self.mixed,
        })
    }

    fn refused(&mut self, status: &Status) {
        if status.code() == Code::ResourceExhausted {
            self.shed += 1;
        } else {
            self.errors += 1;
            self.error.get_or_insert_with(|| status.to_string());
        }
    }

    fn mix(&mut self, problem: String) {
        self.mixed += 1;
        self.error.get_or_insert(problem);
    }
}

/// Loads the server until `until` has come, and says what callers saw and what that was.
async fn drive_until<T>(load: &Load, until: impl Future<Output = T>) -> (Seen, T) {
    let started = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS + BATCH_CALLERS {
        let (load, stop) = (load.clone(), Arc::clone(&stop));
        callers.spawn(async move {
            if caller < CALLERS {
                routes(&load, caller, &stop).await
            } else {
                batches(&load, caller, &stop).await
            }
        });
    }
    let came = until.await;
    stop.store(true, Relaxed);
    let mut seen = Seen::default();
    while let Some(part) = callers.join_next().await {
        match part {
            Ok(part) => seen.join(part),
            Err(panic) => {
                seen.errors += 1;
                seen.error.get_or_insert_with(|| panic.to_string());
            }
        }
    }
    seen.seconds = started.elapsed().as_secs_f64();
    (seen, came)
}

async fn routes(load: &Load, caller: usize, stop: &AtomicBool) -> Seen {
    let mut client = load.client(caller);
    let (mut seen, mut before) = (Seen::default(), 0);
    let mut next = caller * load.requests.len() / CALLERS;
    while !stop.load(Relaxed) {
        let request = load.requests[next % load.requests.len()].clone();
        next += 1;
        let sent = Instant::now();
        match client.route(request).await {
            Ok(answer) => {
                let micros = sent.elapsed().as_micros();
                seen.latencies.push(micros.try_into().unwrap_or(u32::MAX));
                load.look(&answer.into_inner(), &mut before, &mut seen);
            }
            Err(status) => seen.refused(&status),
        }
    }
    seen
}

async fn batches(load: &Load, caller: usize, stop: &AtomicBool) -> Seen {
    let mut client = load.client(caller);
    let (mut seen, mut before) = (Seen::default(), 0);
    let inputs = load.requests.iter().filter_map(|r| r.input.clone());
    let request = v1::RouteBatchRequest {
        task: DENSE.to_owned(),
        inputs: inputs.take(ROWS).collect(),
        ..v1::RouteBatchRequest::default()
    };
    while !stop.load(Relaxed) {
        match client.route_batch(request.clone()).await {
            Ok(answer) => {
                let answers = answer.into_inner().responses;
                let version = |answer: &v1::RouteResponse| answer.pipeline_version;
                let first = answers.first().map(version);
                if answers.len() != ROWS || answers.iter().any(|a| Some(version(a)) != first) {
                    seen.mix("a batch was answered by several versions".to_owned());
                }
                for answer in &answers {
                    load.look(answer, &mut before, &mut seen);
                }
            }
            Err(status) => seen.refused(&status),
        }
    }
    seen
}

impl Load {
    fn client(&self, caller: usize) -> RouterClient<Channel> {
        RouterClient::new(self.channels[caller % self.channels.len()].clone())
    }

    /// Counts an answer and says whether it is whole. `before` is the version that
    /// answered the caller before: none goes back.
    fn look(&self, answer: &v1::RouteResponse, before: &mut u64, seen: &mut Seen) {
        seen.answers += 1;
        let version = answer.pipeline_version;
        self.latest.fetch_max(version, Relaxed);
        let whole = whole(answer, &self.twins).and_then(|()| {
            if version < *before {
                return Err(format!("version {version} answers after {before}"));
            }
            Ok(())
        });
        *before = version;
        if let Err(problem) = whole {
            seen.mix(problem);
        }
    }
}

/// Whether everything in an answer is of the version it names.
fn whole(answer: &v1::RouteResponse, twins: &[Twin; 2]) -> Result<(), String> {
    let version = answer.pipeline_version;
    if version == 0 {
        // Before the first version is loaded.
        return Ok(());
    }
    let twin = &twins[usize::from(version.is_multiple_of(2))];
    let bad = |problem: &str| Err(format!("version {version}: {problem}: {answer:?}"));
    if answer.threshold.to_bits() != twin.threshold.to_bits() {
        return bad("the threshold is another version's");
    }
    let Some(echo) = &answer.routing else {
        return bad("there is no echo");
    };
    if echo.pipeline_version != version || echo.decision != answer.decision {
        return bad("the echo is another version's");
    }
    if echo
        .label
        .as_ref()
        .is_some_and(|label| !label.starts_with(twin.prefix))
    {
        return bad("the label is another version's");
    }
    if answer.decision() == Decision::Handled && echo.label.as_ref() != Some(&answer.label) {
        return bad("label and echo differ");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn twins() -> [Twin; 2] {
        [("a:", 0.5), ("b:", 0.75)].map(|(prefix, threshold)| Twin::of(prefix, threshold))
    }

    fn answer(version: u64, label: &str, threshold: f32) -> v1::RouteResponse {
        v1::RouteResponse {
            decision: Decision::Handled.into(),
            label: label.to_owned(),
            threshold,
            pipeline_version: version,
            routing: Some(v1::Routing {
                pipeline_version: version,
                decision: Decision::Handled.into(),
                label: Some(label.to_owned()),
                ..v1::Routing::default()
            }),
            ..v1::RouteResponse::default()
        }
    }

    #[test]
    fn what_is_of_two_versions_is_seen() {
        let twins = twins();
        assert_eq!(whole(&answer(1, "a:x", 0.5), &twins), Ok(()));
        assert_eq!(whole(&answer(2, "b:x", 0.75), &twins), Ok(()));
        assert!(whole(&answer(1, "b:x", 0.5), &twins).is_err());
        assert!(whole(&answer(2, "b:x", 0.5), &twins).is_err());
        let mut stale = answer(3, "a:x", 0.5);
        stale.routing.as_mut().unwrap().pipeline_version = 1;
        assert!(whole(&stale, &twins).is_err());
        let mut other = answer(3, "a:x", 0.5);
        other.label = "a:y".to_owned();
        assert!(whole(&other, &twins).is_err());
    }
}
