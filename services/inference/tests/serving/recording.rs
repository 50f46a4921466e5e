//! `Record`: into a real spool.

use tonic::Code;
use tracer_inference::Recorder;
use tracer_proto::v1;
use tracer_source::{SourceConfig, SpoolConfig};
use tracer_trace::{Format, Limits, Origin, TopicName, decode};

use crate::support::{Options, PLAIN, Server, TASK, registry};

fn trace() -> v1::Trace {
    v1::Trace {
        task: TASK.into(),
        input: PLAIN.into(),
        teacher: " refund ".into(),
        routing: Some(v1::Routing {
            pipeline_version: 3,
            decision: v1::Decision::Handled.into(),
            label: Some("refund".into()),
            score: Some(0.5),
            audit: true,
            propensity: 0.02,
        }),
        ..v1::Trace::default()
    }
}

#[tokio::test]
async fn an_acknowledged_trace_is_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let source = SourceConfig::Spool(SpoolConfig {
        path: dir.path().to_owned(),
        ..SpoolConfig::default()
    });
    let topic = TopicName::default();
    let recorder = Recorder {
        writer: source.open_writer().unwrap(),
        topic: topic.clone(),
    };
    let server = Server::start(
        registry(),
        Options {
            recorder: Some(recorder),
            ..Options::default()
        },
    )
    .await;
    let mut client = server.client().await;
    let record = |trace| v1::RecordRequest { trace: Some(trace) };

    let first = client.record(record(trace())).await.unwrap().into_inner();
    assert_eq!(
        (first.topic.as_str(), first.partition, first.offset),
        ("traces", 0, 0)
    );
    assert_eq!(first.id, "traces-0-0");
    let named = v1::Trace {
        id: "mine".into(),
        ..trace()
    };
    let second = client.record(record(named)).await.unwrap().into_inner();
    assert_eq!(second.id, "mine");
    assert!(second.offset > first.offset);

    let log = std::fs::read(dir.path().join("traces/00000.jsonl")).unwrap();
    let lines: Vec<&[u8]> = log.split_inclusive(|byte| *byte == b'\n').collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0].len() as u64, second.offset);
    let origin = Origin {
        topic: "traces",
        partition: 0,
        offset: 0,
        timestamp_ms: None,
    };
    let stored = decode(lines[0], &origin, Format::Auto, &Limits::default()).unwrap();
    assert_eq!(
        (stored.id.as_str(), stored.teacher.as_str()),
        ("traces-0-0", "refund")
    );
    assert!(
        stored.timestamp.is_some(),
        "a trace without a time gets one"
    );
    let echo = stored.routing.unwrap();
    assert_eq!(
        (echo.pipeline_version, echo.audit, echo.propensity),
        (3, true, 0.02)
    );

    for (broken, message) in [
        (
            v1::Trace {
                teacher: "  ".into(),
                ..trace()
            },
            "trace: field \"teacher\" is blank",
        ),
        (
            v1::Trace {
                input: String::new(),
                ..trace()
            },
            "trace: ",
        ),
        (
            v1::Trace {
                embedding: vec![f32::NAN],
                ..trace()
            },
            "trace: field \"embedding\" has NaN at index 0",
        ),
        (
            v1::Trace {
                input: "x".repeat(10 << 20),
                ..trace()
            },
            "trace: field \"input\" has 10485760 bytes",
        ),
        (
            v1::Trace {
                task: "a b".into(),
                ..trace()
            },
            "trace: ",
        ),
    ] {
        let status = client.record(record(broken)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().starts_with(message), "{status}");
    }
    let status = client
        .record(v1::RecordRequest { trace: None })
        .await
        .unwrap_err();
    assert_eq!(status.message(), "trace is missing");
    assert_eq!(server.metric("tracer_traces_recorded_total"), Some(2.0));
    let rejected = r#"tracer_requests_rejected_total{reason="invalid_trace"}"#;
    assert_eq!(server.metric(rejected), Some(6.0));
    server.stop().await;
}

#[tokio::test]
async fn without_a_log_it_says_so() {
    let server = Server::start(registry(), Options::default()).await;
    let mut client = server.client().await;
    let request = v1::RecordRequest {
        trace: Some(trace()),
    };
    let status = client.record(request).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(
        status.message(),
        "no source is configured that traces could be recorded to"
    );
    server.stop().await;
}
