//! Following the registry: publications, rollbacks, suspensions, damage.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use tracer_learn::Pipeline;
use tracer_proto::v1::{self, Decision, DeferReason, router_client::RouterClient};
use tracer_store::{LogEvent, PipelineVersion, Registry};

use crate::support::{
    Options, PLAIN, Server, TASK, append, disk, eventually, pipeline_a, pipeline_b, publish,
    publish_model, registry, task, text,
};

/// Even versions are `b`, odd ones are `a`.
fn pipeline_of(version: u64) -> &'static Pipeline {
    if version.is_multiple_of(2) {
        pipeline_b()
    } else {
        pipeline_a()
    }
}

/// An answer is whole when its label is of the version it names.
fn assert_whole(answer: &v1::RouteResponse) {
    assert_eq!(answer.decision(), Decision::Handled, "{answer:?}");
    let prefix = if answer.pipeline_version.is_multiple_of(2) {
        "b:"
    } else {
        "a:"
    };
    assert!(answer.label.starts_with(prefix), "{answer:?}");
    let echo = answer.routing.as_ref().unwrap();
    assert_eq!(echo.pipeline_version, answer.pipeline_version);
    assert_eq!(echo.label.as_ref(), Some(&answer.label));
    assert_eq!(
        answer.threshold,
        pipeline_of(answer.pipeline_version).card().threshold
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn versions_are_swapped_under_load_without_an_error_or_a_mixed_answer() {
    // A hundred in the long run: TRACER_SWAPS=100.
    let versions: u64 = std::env::var("TRACER_SWAPS").map_or(12, |n| n.parse().unwrap());
    let registry = registry();
    publish(&registry, pipeline_of(1)).await;
    let server = Server::start(registry.clone(), Options::default()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let routed = Arc::new(AtomicU64::new(0));

    let mut callers = Vec::new();
    for _ in 0..4 {
        let mut client = server.client().await;
        let (stop, routed) = (Arc::clone(&stop), Arc::clone(&routed));
        callers.push(tokio::spawn(async move {
            let mut latest = 0;
            loop {
                let last = stop.load(Relaxed);
                let answer = client.route(text(PLAIN)).await.unwrap().into_inner();
                assert_whole(&answer);
                assert!(answer.pipeline_version >= latest, "{answer:?}");
                latest = answer.pipeline_version;
                let inputs = vec![text(PLAIN).input.unwrap(); 16];
                let batch = v1::RouteBatchRequest {
                    task: TASK.into(),
                    inputs,
                    top_k: 0,
                };
                let answers = client
                    .route_batch(batch)
                    .await
                    .unwrap()
                    .into_inner()
                    .responses;
                answers.iter().for_each(assert_whole);
                let version = answers[0].pipeline_version;
                assert!(answers.iter().all(|a| a.pipeline_version == version));
                routed.fetch_add(17, Relaxed);
                if last {
                    return latest;
                }
            }
        }));
    }
    for version in 2..=versions {
        let before = routed.load(Relaxed);
        assert_eq!(publish(&registry, pipeline_of(version)).await, version);
        server.serves(version).await;
        eventually("requests reach the version", async || {
            (routed.load(Relaxed) > before + 50).then_some(())
        })
        .await;
    }
    stop.store(true, Relaxed);
    for caller in callers {
        assert_eq!(caller.await.unwrap(), versions);
    }
    let handled = r#"tracer_routes_total{task="desk",decision="handled",reason=""}"#;
    assert_eq!(server.metric(handled), Some(routed.load(Relaxed) as f64));
    server.stop().await;
}

#[tokio::test]
async fn suspensions_resumptions_and_rollbacks_are_followed() {
    let registry = registry();
    publish(&registry, pipeline_of(1)).await;
    publish(&registry, pipeline_of(2)).await;
    let server = Server::start(registry.clone(), Options::default()).await;
    let mut client = server.client().await;
    server.serves(2).await;
    let suspended = r#"tracer_pipeline_suspended{task="desk"}"#;
    assert_eq!(server.metric(suspended), Some(0.0));

    suspend(&registry).await;
    let answer = deferred(&mut client).await;
    assert_eq!(answer.reason(), DeferReason::Suspended);
    assert_eq!((answer.label.as_str(), answer.pipeline_version), ("", 0));
    let echo = answer.routing.unwrap();
    // No version decided, so the label is observed with certainty.
    assert_eq!((echo.pipeline_version, echo.propensity), (0, 1.0));
    assert_eq!(server.metric(suspended), Some(1.0));
    let pipeline = server.serves(2).await;
    assert!(pipeline.suspended);

    append(&registry, LogEvent::Resumed).await;
    eventually("the task is resumed", async || {
        handled(&mut client.clone()).await
    })
    .await;
    assert_eq!(server.metric(suspended), Some(0.0));

    append(
        &registry,
        LogEvent::RolledBack {
            to_version: PipelineVersion(1),
        },
    )
    .await;
    server.serves(1).await;
    assert_whole(&client.route(text(PLAIN)).await.unwrap().into_inner());
    assert_eq!(
        server.metric(r#"tracer_pipeline_version{task="desk"}"#),
        Some(1.0)
    );
    server.stop().await;
}

type Client = RouterClient<tonic::transport::Channel>;

async fn deferred(client: &mut Client) -> v1::RouteResponse {
    let client = client.clone();
    eventually("a plain text is deferred", async || {
        let answer = client
            .clone()
            .route(text(PLAIN))
            .await
            .unwrap()
            .into_inner();
        (answer.decision() == Decision::Deferred).then_some(answer)
    })
    .await
}

async fn handled(client: &mut Client) -> Option<v1::RouteResponse> {
    let answer = client.route(text(PLAIN)).await.unwrap().into_inner();
    (answer.decision() == Decision::Handled).then_some(answer)
}

const FAILURES: &str = r#"tracer_pipeline_load_failures_total{task="desk"}"#;

async fn fails_to_load(server: &Server) {
    let series = || {
        server
            .metric(FAILURES)
            .is_some_and(|failures| failures > 0.0)
    };
    eventually("a load fails", async || series().then_some(())).await;
}

#[tokio::test]
async fn a_model_that_cannot_be_read_leaves_the_old_version_serving() {
    let registry = registry();
    publish(&registry, pipeline_of(1)).await;
    let server = Server::start(registry.clone(), Options::default()).await;
    server.serves(1).await;
    let whole = pipeline_of(2).to_bytes();
    let half = whole[..whole.len() / 2].to_vec();
    assert_eq!(
        publish_model(&registry, pipeline_of(2), half, None).await,
        2
    );
    fails_to_load(&server).await;
    let mut client = server.client().await;
    let answer = handled(&mut client).await.unwrap();
    assert_eq!(answer.pipeline_version, 1);
    assert_whole(&answer);
    assert_eq!(server.health.ready(), Ok(()));
    // What the metric counts is told to whoever asks whether the server is ready.
    let notes = server.health.notes();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].starts_with("inference: task desk: version 2 cannot be loaded (")
            && notes[0].ends_with("); version 1 keeps serving"),
        "{notes:?}"
    );
    // The next good version takes over.
    publish(&registry, pipeline_of(3)).await;
    server.serves(3).await;
    assert!(server.health.notes().is_empty());
    assert_whole(&handled(&mut client).await.unwrap());
    server.stop().await;
}

async fn suspend(registry: &Registry) {
    let reason = "the live agreement fell".to_owned();
    append(registry, LogEvent::Suspended { reason }).await;
}

#[tokio::test]
async fn a_suspended_version_does_not_serve_in_place_of_a_damaged_successor() {
    let registry = registry();
    publish(&registry, pipeline_of(1)).await;
    let server = Server::start(registry.clone(), Options::default()).await;
    server.serves(1).await;
    suspend(&registry).await;
    let mut client = server.client().await;
    let answer = deferred(&mut client).await;
    assert_eq!(answer.reason(), DeferReason::Suspended);

    // The publication ends the suspension, but of the new version only.
    let whole = pipeline_of(2).to_bytes();
    let half = whole[..whole.len() / 2].to_vec();
    publish_model(&registry, pipeline_of(2), half, None).await;
    fails_to_load(&server).await;
    let answer = client.route(text(PLAIN)).await.unwrap().into_inner();
    assert_eq!(answer.reason(), DeferReason::Suspended);
    let suspended = r#"tracer_pipeline_suspended{task="desk"}"#;
    assert_eq!(server.metric(suspended), Some(1.0));

    // Nor does a replica that starts now fall back to it.
    let other = Server::start(registry.clone(), Options::default()).await;
    fails_to_load(&other).await;
    let mut newcomer = other.client().await;
    let answer = newcomer.route(text(PLAIN)).await.unwrap().into_inner();
    assert_eq!(answer.reason(), DeferReason::NoPipeline);

    publish(&registry, pipeline_of(3)).await;
    for server in [server, other] {
        assert!(!server.serves(3).await.suspended);
        let mut client = server.client().await;
        assert_whole(&handled(&mut client).await.unwrap());
        assert_eq!(server.metric(suspended), Some(0.0));
        server.stop().await;
    }
}

#[tokio::test]
async fn a_version_damaged_on_disk_leaves_the_old_one_serving_also_after_a_restart() {
    let (dir, registry) = disk();
    publish(&registry, pipeline_of(1)).await;
    let server = Server::start(registry.clone(), Options::default()).await;
    server.serves(1).await;

    // Version 2 is published elsewhere, damaged in transit, and its log entry
    // arrives last.
    let (elsewhere, other) = disk();
    publish(&other, pipeline_of(1)).await;
    publish(&other, pipeline_of(2)).await;
    let model = format!("pipelines/{TASK}/v000002/model.safetensors");
    let mut bytes = std::fs::read(elsewhere.path().join(&model)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    let version = format!("pipelines/{TASK}/v000002");
    std::fs::create_dir_all(dir.path().join(&version)).unwrap();
    for entry in std::fs::read_dir(elsewhere.path().join(&version)).unwrap() {
        let from = entry.unwrap().path();
        std::fs::copy(
            &from,
            dir.path().join(&version).join(from.file_name().unwrap()),
        )
        .unwrap();
    }
    std::fs::write(dir.path().join(&model), bytes).unwrap();
    let log = format!("pipelines/{TASK}/log");
    let mut entries: Vec<_> = std::fs::read_dir(elsewhere.path().join(&log))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    let last = entries.last().unwrap();
    std::fs::copy(last, dir.path().join(&log).join(last.file_name().unwrap())).unwrap();

    fails_to_load(&server).await;
    let mut client = server.client().await;
    assert_eq!(handled(&mut client).await.unwrap().pipeline_version, 1);
    server.stop().await;

    let server = Server::start(registry, Options::default()).await;
    let mut client = server.client().await;
    let answer = handled(&mut client).await.unwrap();
    assert_eq!(answer.pipeline_version, 1);
    assert_whole(&answer);
    assert!(server.metric(FAILURES).unwrap() > 0.0);
    server.stop().await;
}

#[tokio::test]
async fn an_outage_of_the_store_leaves_everything_serving() {
    let (dir, registry) = disk();
    publish(&registry, pipeline_of(1)).await;
    let server = Server::start(registry.clone(), Options::default()).await;
    server.serves(1).await;
    // A store whose directory is gone answers with errors, or as if empty.
    let away = dir.path().join("pipelines");
    let hidden = dir.path().join("hidden");
    std::fs::rename(&away, &hidden).unwrap();
    std::fs::write(&away, "not a directory").unwrap();
    let mut client = server.client().await;
    eventually("looks at the registry fail", async || {
        assert_whole(&handled(&mut client).await.unwrap());
        let failures = server.metric("tracer_registry_poll_failures_total");
        (failures >= Some(3.0)).then_some(())
    })
    .await;
    assert_eq!(server.health.ready(), Ok(()));
    let notes = server.health.notes();
    assert!(!notes.is_empty(), "the outage is told");
    std::fs::remove_file(&away).unwrap();
    std::fs::rename(&hidden, &away).unwrap();
    publish(&registry, pipeline_of(2)).await;
    server.serves(2).await;
    eventually("the outage is over", async || {
        server.health.notes().is_empty().then_some(())
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn a_task_that_appears_later_is_found() {
    let registry: Registry = registry();
    let server = Server::start(registry.clone(), Options::default()).await;
    assert_eq!(
        server.metric(r#"tracer_pipeline_version{task="desk"}"#),
        None
    );
    publish(&registry, pipeline_of(1)).await;
    server.serves(1).await;
    assert_eq!(
        server.metric(r#"tracer_pipeline_version{task="desk"}"#),
        Some(1.0)
    );
    assert_eq!(registry.tasks().await.unwrap(), [task()]);
    server.stop().await;
}
