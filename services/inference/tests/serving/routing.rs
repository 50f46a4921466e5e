//! What a route answers, and what it refuses.

use std::collections::BTreeMap;

use tonic::{Code, Status};
use tracer_inference::{InferenceConfig, TaskPolicies, TaskPolicy};
use tracer_proto::v1::{self, Decision, DeferReason};
use tracer_store::Registry;
use tracer_trace::{Limits, TaskName, TeacherPrice};

use crate::support::{
    AMBIGUOUS, DIMENSION, Options, PLAIN, Server, TASK, embedding, pipeline_a, pipeline_dense,
    publish, publish_with_embedder, registry, task, text,
};

/// A server that audits its task at this rate, at half a dollar a call.
async fn audited(registry: Registry, audit_rate: f64) -> Server {
    let policy = TaskPolicy {
        audit_rate,
        teacher: TeacherPrice {
            call_dollars: 0.5,
            ..TeacherPrice::default()
        },
        ..TaskPolicy::default()
    };
    let policies = TaskPolicies {
        tasks: BTreeMap::from([(task(), policy)]),
        ..TaskPolicies::default()
    };
    let options = Options {
        policies,
        ..Options::default()
    };
    Server::start(registry, options).await
}

async fn registry_of_a() -> Registry {
    let registry = registry();
    publish(&registry, pipeline_a()).await;
    registry
}

fn refused(status: &Status, code: Code, message: &str) {
    assert_eq!(status.code(), code, "{status}");
    assert_eq!(status.message(), message);
}

#[tokio::test]
async fn handles_what_is_plain_and_defers_what_is_not() {
    let server = audited(registry_of_a().await, 0.25).await;
    let mut client = server.client().await;

    let request = v1::RouteRequest {
        request_id: "r-1".into(),
        ..text(PLAIN)
    };
    let answer = client.route(request).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::Handled, "{answer:?}");
    assert_eq!(answer.label, "a:refund");
    assert_eq!(answer.reason(), DeferReason::Unspecified);
    assert_eq!(
        (answer.task.as_str(), answer.request_id.as_str()),
        (TASK, "r-1")
    );
    assert_eq!(answer.pipeline_version, 1);
    assert!(answer.score >= answer.threshold, "{answer:?}");
    assert_eq!(answer.threshold, pipeline_a().card().threshold);
    let echo = answer.routing.unwrap();
    assert_eq!(echo.decision(), Decision::Handled);
    assert_eq!(echo.pipeline_version, 1);
    assert_eq!(echo.label.as_deref(), Some("a:refund"));
    assert_eq!(echo.score, Some(answer.score));
    assert_eq!(echo.propensity, 0.25);

    let answer = client.route(text(AMBIGUOUS)).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::Deferred, "{answer:?}");
    assert_eq!(answer.reason(), DeferReason::LowScore);
    assert_eq!(answer.label, "");
    assert_eq!(answer.pipeline_version, 1);
    assert!(answer.score < answer.threshold, "{answer:?}");
    let echo = answer.routing.unwrap();
    assert_eq!(echo.decision(), Decision::Deferred);
    assert!(echo.label.is_some_and(|label| label.starts_with("a:")));
    assert_eq!((echo.audit, echo.propensity), (false, 1.0));

    let series = |rest: &str| server.metric(&format!("tracer_{rest}"));
    let handled = r#"routes_total{task="desk",decision="handled",reason=""}"#;
    let deferred = r#"routes_total{task="desk",decision="deferred",reason="low_score"}"#;
    assert_eq!(series(handled), Some(1.0));
    assert_eq!(series(deferred), Some(1.0));
    assert_eq!(series("route_seconds_count"), Some(2.0));
    assert_eq!(series(r#"coverage_ratio{task="desk"}"#), Some(0.5));
    assert_eq!(series(r#"pipeline_version{task="desk"}"#), Some(1.0));
    assert_eq!(series(r#"target_agreement_ratio{task="desk"}"#), Some(0.95));
    let lower = series(r#"teacher_agreement_lower{task="desk",kind="shadow"}"#).unwrap();
    assert!(lower >= 0.95, "{lower}");
    server.stop().await;
}

#[tokio::test]
async fn audits_at_the_rate_of_the_task_and_counts_what_was_saved() {
    let server = audited(registry_of_a().await, 0.25).await;
    let mut client = server.client().await;

    let inputs = vec![text(PLAIN).input.unwrap(); 1000];
    let request = v1::RouteBatchRequest {
        task: TASK.into(),
        inputs,
        top_k: 0,
    };
    let answers = client
        .route_batch(request)
        .await
        .unwrap()
        .into_inner()
        .responses;
    assert_eq!(answers.len(), 1000);
    let audits = answers
        .iter()
        .filter(|a| a.routing.as_ref().unwrap().audit)
        .count();
    // Five standard deviations of a binomial are 68.
    assert!((182..=318).contains(&audits), "{audits}");
    let saved = (1000 - audits) as f64;
    let series = |name: &str| {
        server
            .metric(&format!(r#"tracer_{name}{{task="desk"}}"#))
            .unwrap()
    };
    assert_eq!(series("teacher_calls_saved_total"), saved);
    assert_eq!(series("teacher_cost_saved_dollars_total"), saved * 0.5);
    server.stop().await;
}

#[tokio::test]
async fn the_ends_of_the_audit_rate_are_certain() {
    for rate in [0.0, 1.0] {
        let server = audited(registry_of_a().await, rate).await;
        let mut client = server.client().await;
        let inputs = vec![text(PLAIN).input.unwrap(); 100];
        let task = TASK.to_owned();
        let request = v1::RouteBatchRequest {
            task,
            inputs,
            top_k: 0,
        };
        let answers = client.route_batch(request).await.unwrap().into_inner();
        for answer in answers.responses {
            let echo = answer.routing.unwrap();
            assert_eq!((echo.audit, echo.propensity), (rate == 1.0, rate));
        }
        let saved = r#"tracer_teacher_calls_saved_total{task="desk"}"#;
        assert_eq!(server.metric(saved), Some(100.0 * (1.0 - rate)));
        server.stop().await;
    }
}

#[tokio::test]
async fn no_pipeline_is_a_deferral() {
    let server = audited(registry(), 0.02).await;
    let mut client = server.client().await;
    for name in [TASK, "", "never-heard-of"] {
        let request = v1::RouteRequest {
            task: name.into(),
            ..text(PLAIN)
        };
        let answer = client.route(request).await.unwrap().into_inner();
        assert_eq!(answer.decision(), Decision::Deferred);
        assert_eq!(answer.reason(), DeferReason::NoPipeline);
        assert_eq!(answer.task, if name.is_empty() { "default" } else { name });
        assert_eq!(answer.pipeline_version, 0);
        let echo = answer.routing.unwrap();
        assert_eq!((echo.pipeline_version, echo.propensity), (0, 1.0));
        assert_eq!((echo.label, echo.score), (None, None));
    }
    // A caller's word is never a label: the task nobody knows is "unknown".
    for task in [TASK, "default", "unknown"] {
        let series = format!(
            r#"tracer_routes_total{{task="{task}",decision="deferred",reason="no_pipeline"}}"#
        );
        assert_eq!(server.metric(&series), Some(1.0), "{task}");
    }
    assert!(!server.metrics.render().contains("never-heard-of"));

    let request = v1::GetPipelineRequest { task: TASK.into() };
    let status = client.get_pipeline(request).await.unwrap_err();
    refused(
        &status,
        Code::NotFound,
        "task desk has no published pipeline",
    );
    let request = v1::ListPipelinesRequest {};
    assert!(
        client
            .list_pipelines(request)
            .await
            .unwrap()
            .into_inner()
            .pipelines
            .is_empty()
    );
    server.stop().await;
}

#[tokio::test]
async fn embeddings_are_checked_against_the_pipeline() {
    let registry = registry();
    publish_with_embedder(&registry, pipeline_dense(), Some("mini-4")).await;
    let server = Server::start(registry, Options::default()).await;
    let mut client = server.client().await;
    let plain = [1.0, 0.0, 0.0, 0.0];

    for embedder in ["", "mini-4"] {
        let answer = client
            .route(embedding(&plain, embedder))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.decision(), Decision::Handled, "{answer:?}");
        assert_eq!(answer.label, "refund");
    }
    let answer = client
        .route(embedding(&plain, "other"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.reason(), DeferReason::EmbedderMismatch);
    assert_eq!(
        (answer.decision(), answer.pipeline_version),
        (Decision::Deferred, 1)
    );
    let answer = client.route(text(PLAIN)).await.unwrap().into_inner();
    assert_eq!(answer.reason(), DeferReason::NoEmbedding);

    let status = client.route(embedding(&plain[..3], "")).await.unwrap_err();
    refused(
        &status,
        Code::InvalidArgument,
        "input.embedding has 3 values; version 1 of task desk takes 4",
    );
    let status = client
        .route(embedding(&[0.0, f32::NAN, 0.0, 0.0], ""))
        .await
        .unwrap_err();
    refused(
        &status,
        Code::InvalidArgument,
        "input.embedding has NaN at index 1; every value must be finite",
    );
    for reason in ["wrong_dimension", "bad_embedding"] {
        let series = format!(r#"tracer_requests_rejected_total{{reason="{reason}"}}"#);
        assert_eq!(server.metric(&series), Some(1.0), "{reason}");
    }

    let request = v1::GetPipelineRequest { task: TASK.into() };
    let pipeline = client.get_pipeline(request).await.unwrap().into_inner();
    assert_eq!(pipeline.embedding_dimension as usize, DIMENSION);
    assert_eq!(pipeline.embedder, "mini-4");
    assert!(!pipeline.needs_text);
    assert!(pipeline.published_at.is_some());
    server.stop().await;
}

#[tokio::test]
async fn what_is_too_large_or_missing_is_named_and_the_server_goes_on() {
    let server = Server::start(
        registry_of_a().await,
        Options {
            config: InferenceConfig {
                max_batch: 3,
                max_message_bytes: 1 << 20,
                ..Options::default().config
            },
            limits: Limits {
                max_input_bytes: 1000,
                ..Limits::default()
            },
            ..Options::default()
        },
    )
    .await;
    let mut client = server.client().await;
    let invalid = Code::InvalidArgument;

    let status = client.route(text(&"x".repeat(1001))).await.unwrap_err();
    refused(
        &status,
        invalid,
        "input.text has 1001 bytes; at most 1000 are allowed",
    );
    let status = client.route(text("  ")).await.unwrap_err();
    refused(
        &status,
        invalid,
        "input: neither text nor an embedding was sent",
    );
    let nothing = v1::RouteRequest {
        task: TASK.into(),
        ..v1::RouteRequest::default()
    };
    let status = client.route(nothing).await.unwrap_err();
    refused(
        &status,
        invalid,
        "input: neither text nor an embedding was sent",
    );
    let request = v1::RouteRequest {
        task: "../x".into(),
        ..text(PLAIN)
    };
    let status = client.route(request).await.unwrap_err();
    assert_eq!(status.code(), invalid);
    assert!(
        status
            .message()
            .starts_with(r#"task: invalid task name "../x""#),
        "{status}"
    );
    let request = v1::RouteRequest {
        request_id: "r".repeat(257),
        ..text(PLAIN)
    };
    let status = client.route(request).await.unwrap_err();
    refused(
        &status,
        invalid,
        "request_id has 257 bytes; at most 256 are allowed",
    );

    let batch = |inputs: Vec<v1::Input>| v1::RouteBatchRequest {
        task: TASK.into(),
        inputs,
        top_k: 0,
    };
    let plain = text(PLAIN).input.unwrap();
    let status = client
        .route_batch(batch(vec![plain.clone(); 4]))
        .await
        .unwrap_err();
    refused(
        &status,
        invalid,
        "inputs has 4 entries; at most 3 are allowed",
    );
    let inputs = vec![plain.clone(), v1::Input::default(), plain];
    let status = client.route_batch(batch(inputs)).await.unwrap_err();
    refused(
        &status,
        invalid,
        "inputs[1]: neither text nor an embedding was sent",
    );
    let answers = client
        .route_batch(batch(Vec::new()))
        .await
        .unwrap()
        .into_inner();
    assert!(answers.responses.is_empty());

    let status = client.route(text(&"x".repeat(2 << 20))).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    assert!(status.message().contains("1048576"), "{status}");

    // None of it is held against the next caller.
    let answer = client.route(text(PLAIN)).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::Handled);
    server.stop().await;
}

#[tokio::test]
async fn a_heavy_batch_is_answered_as_a_light_one() {
    let server = Server::start(registry_of_a().await, Options::default()).await;
    let mut client = server.client().await;
    let light = client.route(text(PLAIN)).await.unwrap().into_inner();
    let long = format!("{PLAIN} {}", "and again ".repeat(4000));
    let mut inputs = vec![text(PLAIN).input.unwrap(); 5];
    inputs.push(text(&long).input.unwrap());
    let request = v1::RouteBatchRequest {
        task: TASK.into(),
        inputs,
        top_k: 0,
    };
    let answers = client
        .route_batch(request)
        .await
        .unwrap()
        .into_inner()
        .responses;
    assert_eq!(answers.len(), 6);
    for answer in &answers[..5] {
        assert_eq!((answer.score, &answer.label), (light.score, &light.label));
    }
    let alone = client.route(text(&long)).await.unwrap().into_inner();
    assert_eq!(alone.score, answers[5].score);
    server.stop().await;
}

#[tokio::test]
async fn pipelines_are_listed_by_name() {
    let server = Server::start(registry_of_a().await, Options::default()).await;
    let mut client = server.client().await;
    let list = client
        .list_pipelines(v1::ListPipelinesRequest {})
        .await
        .unwrap();
    let list = list.into_inner().pipelines;
    assert_eq!(list.len(), 1);
    let (pipeline, card) = (&list[0], pipeline_a().card());
    assert_eq!((pipeline.task.as_str(), pipeline.version), (TASK, 1));
    assert_eq!(pipeline.family, card.family.to_string());
    assert_eq!(pipeline.surrogate, card.surrogate);
    assert_eq!(pipeline.shadow_coverage, card.shadow.coverage);
    assert_eq!(pipeline.shadow_rows, card.shadow.n as u64);
    assert_eq!(pipeline.labels.len(), 4);
    assert!(pipeline.needs_text && !pipeline.suspended);
    assert_eq!(TaskName::new(&pipeline.task).unwrap(), task());
    server.stop().await;
}
