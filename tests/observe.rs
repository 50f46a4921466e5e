//! What an operator sees of the real binary: a teacher that changes is found by audits and
//! the task is suspended, and a stored trace leads to the caller's span.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod common;
#[path = "common/otlp.rs"]
mod otlp;

use std::{collections::BTreeMap, fs, path::Path};

use common::Up;
use otlp::{Receiver, attributes};
use tonic::{Request, transport::Channel};
use tracer_proto::v1::{self, router_client::RouterClient};
use tracer_store::{ShardLog, Store};
use tracer_telemetry::otlp_proto::Span;
use tracer_trace::{StoredTrace, TaskName};

const TASK: &str = "desk";

/// Traces of the first refit.
const FIRST: usize = 2_000;

/// Messages a day.
const DAY: usize = 300;

fn text(i: usize) -> (String, &'static str) {
    let phrases = [
        ("refund", "please refund the payment for order"),
        ("track", "where is my parcel with the number"),
        ("password", "I forgot the password of account"),
    ];
    let (label, phrase) = phrases[i % phrases.len()];
    (format!("{phrase} {i}"), label)
}

/// What the teacher says, and what it says once it has changed its mind.
fn teacher(i: usize, changed: bool) -> String {
    let label = text(i).1;
    match (changed, label) {
        (true, "refund") => "track".to_owned(),
        _ => label.to_owned(),
    }
}

fn trace(i: usize, teacher: String, routing: Option<v1::Routing>) -> v1::Trace {
    v1::Trace {
        task: TASK.into(),
        input: text(i).0,
        teacher,
        routing,
        ..v1::Trace::default()
    }
}

async fn record(client: &mut RouterClient<Channel>, trace: v1::Trace) {
    let request = v1::RecordRequest { trace: Some(trace) };
    client.record(request).await.unwrap();
}

/// A day of the closed loop: what is deferred or audited goes to the teacher, and its
/// answer comes back as a trace. Answers how many were handled.
async fn day(client: &mut RouterClient<Channel>, from: usize, changed: bool) -> usize {
    let inputs = (from..from + DAY).map(|i| v1::Input {
        text: text(i).0,
        ..v1::Input::default()
    });
    let request = v1::RouteBatchRequest {
        task: TASK.into(),
        inputs: inputs.collect(),
        top_k: 0,
    };
    let answers = client.route_batch(request).await.unwrap().into_inner();
    let mut handled = 0;
    for (i, answer) in (from..).zip(answers.responses) {
        let is_handled = answer.decision() == v1::Decision::Handled;
        handled += usize::from(is_handled);
        let routing = answer.routing.unwrap();
        if !is_handled || routing.audit {
            record(client, trace(i, teacher(i, changed), Some(routing))).await;
        }
    }
    handled
}

async fn shards(directory: &Path) -> Vec<StoredTrace> {
    let url = directory.join("data/store");
    let store = Store::open(url.to_str().unwrap(), &BTreeMap::new()).unwrap();
    let log = ShardLog::new(store);
    let mut rows = Vec::new();
    for partition in log.partitions().await.unwrap() {
        let shards = log.shards(&partition).await.unwrap();
        let task = TaskName::new(TASK).unwrap();
        rows.extend(log.read_all(&shards, Some(&task)).await.unwrap());
    }
    rows
}

fn configure(directory: &Path) {
    let config = format!(
        "[aggregator]\nmax_age_ms = 200\n[trainer]\npoll_interval_ms = 50\n[inference]\npoll_interval_ms = 50\n\
         [tasks.{TASK}]\ntarget_agreement = 0.9\nrefit_every_minutes = 0\nrefit_after_traces = {FIRST}\n\
         full_refit_every = 1\naudit_rate = 0.5\ncandidates = {{ only = [\"lexical_logistic\"] }}\n"
    );
    fs::write(directory.join("tracer.toml"), config).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_teacher_that_changes_suspends_the_task_and_a_steady_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    configure(directory.path());
    let up = Up::start(directory.path());
    up.ready();
    let of = |name: &str| up.metric(&format!("{name}{{task=\"{TASK}\"}}"));
    let live = |name: &str| up.metric(&format!("{name}{{task=\"{TASK}\",kind=\"live\"}}"));
    // From the start, before there is a version.
    assert_eq!(of("tracer_target_agreement_ratio"), 0.9);
    let metrics = up.get("/metrics");
    for series in [
        "tracer_refits_total{task=\"desk\",verdict=\"passed\"} 0",
        "tracer_teacher_agreement_lower{task=\"desk\",kind=\"live\"} 0",
        "tracer_suspensions_total{task=\"desk\"} 0",
        "tracer_refit_last_timestamp_seconds{task=\"desk\"} 0",
    ] {
        assert!(
            metrics.lines().any(|line| line == series),
            "{series}: {metrics}"
        );
    }
    let build = format!(
        "tracer_build_info{{version=\"{}\"",
        env!("CARGO_PKG_VERSION")
    );
    assert!(metrics.contains(&build), "{metrics}");

    let mut client = RouterClient::connect(up.grpc.clone()).await.unwrap();
    for i in 0..FIRST {
        record(&mut client, trace(i, teacher(i, false), None)).await;
    }
    up.until("the first version serves", || {
        of("tracer_pipeline_version") == 1.0
    });
    up.until("the refit's end is known", || {
        of("tracer_refit_last_timestamp_seconds") > 1.6e9
    });

    let handled = day(&mut client, FIRST, false).await;
    assert!(handled > DAY / 2, "{handled}");
    let least = handled as f64 * 0.3;
    up.until("audits are seen", || of("tracer_live_audits") > least);
    assert!(live("tracer_teacher_agreement_ratio") > 0.9);
    assert!(live("tracer_teacher_agreement_lower") > 0.8);
    assert_eq!(of("tracer_pipeline_suspended"), 0.0);

    let mut next = FIRST + DAY;
    up.until("the task is suspended", || {
        // As long as it serves, more of the changed teacher's answers come: not so many that
        // another version is fitted on them.
        if of("tracer_pipeline_suspended") == 0.0 && next < FIRST + 10 * DAY {
            let handle = tokio::runtime::Handle::current();
            tokio::task::block_in_place(|| handle.block_on(day(&mut client, next, true)));
            next += DAY;
        }
        of("tracer_pipeline_suspended") == 1.0
    });
    assert_eq!(of("tracer_suspensions_total"), 1.0);
    assert!(of("tracer_live_evidence_ratio") >= 1.0);
    assert!(
        up.log().contains("suspended: everything is deferred"),
        "{}",
        up.log()
    );
    let request = v1::RouteRequest {
        task: TASK.into(),
        input: Some(v1::Input {
            text: text(0).0,
            ..v1::Input::default()
        }),
        ..v1::RouteRequest::default()
    };
    let answer = client.route(request).await.unwrap().into_inner();
    assert_eq!(answer.reason(), v1::DeferReason::Suspended);
    up.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_trace_leads_to_the_callers_span_and_the_log_to_the_request() {
    let directory = tempfile::tempdir().unwrap();
    let config = "[aggregator]\nmax_age_ms = 100\n[telemetry]\nlog_format = \"json\"\n\
                  log_filter = \"info,tracer_inference=debug\"\n";
    fs::write(directory.path().join("tracer.toml"), config).unwrap();
    let up = Up::start(directory.path());
    up.ready();
    let mut client = RouterClient::connect(up.grpc.clone()).await.unwrap();
    let mut request = Request::new(v1::RecordRequest {
        trace: Some(trace(1, "track".to_owned(), None)),
    });
    let headers = [
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
        ("tracestate", "vendor=1"),
        ("x-request-id", "order-17"),
    ];
    for (name, value) in headers {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    client.record(request).await.unwrap();
    let mut bad = Request::new(v1::RecordRequest { trace: None });
    bad.metadata_mut()
        .insert("x-request-id", "order-18".parse().unwrap());
    client.record(bad).await.unwrap_err();
    up.until("the trace is in a shard", || {
        up.metric("tracer_shards_written_total") >= 1.0
    });
    let rows = shards(directory.path()).await;
    let [row] = &rows[..] else {
        panic!("{rows:?}");
    };
    let of = |key: &str| row.trace.metadata.get(key).map(String::as_str);
    assert_eq!(of("trace_id"), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    assert_eq!(of("span_id"), Some("00f067aa0ba902b7"));
    assert_eq!(of("trace_flags"), Some("01"));
    assert_eq!(of("trace_state"), Some("vendor=1"));

    let log = up.log();
    let line = |id: &str| {
        let lines = log.lines().map(|line| serde_json::from_str(line).unwrap());
        let mut lines = lines.filter(|line: &serde_json::Value| line["request_id"] == id);
        lines
            .next()
            .unwrap_or_else(|| panic!("nothing of {id}: {log}"))
    };
    let answered = line("order-17");
    assert_eq!(
        (&answered["level"], &answered["method"]),
        (&"DEBUG".into(), &"Record".into())
    );
    let refused = line("order-18");
    assert_eq!(
        (&refused["level"], &refused["code"]),
        (&"WARN".into(), &"InvalidArgument".into())
    );
    up.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_of_our_own_go_to_a_receiver_under_the_callers_span() {
    let directory = tempfile::tempdir().unwrap();
    configure(directory.path());
    let (receiver, endpoint) = Receiver::start().await;
    let path = directory.path().join("tracer.toml");
    let config = fs::read_to_string(&path).unwrap();
    let telemetry = format!("[telemetry]\notlp_endpoint = \"{endpoint}\"\notlp_sample_ratio = 0\n");
    fs::write(&path, config + &telemetry).unwrap();
    let up = Up::start(directory.path());
    up.ready();
    let mut client = RouterClient::connect(up.grpc.clone()).await.unwrap();
    for i in 0..FIRST {
        // Of none of them a caller records a span.
        record(&mut client, trace(i, teacher(i, false), None)).await;
    }
    let version = format!("tracer_pipeline_version{{task=\"{TASK}\"}}");
    up.until("the first version serves", || up.metric(&version) == 1.0);
    let input = v1::Input {
        text: text(7).0,
        ..v1::Input::default()
    };
    let route = v1::RouteRequest {
        task: TASK.into(),
        input: Some(input),
        ..v1::RouteRequest::default()
    };
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let with = |name: &'static str| {
        let metadata = [
            ("traceparent", parent),
            ("tracestate", "v=1"),
            ("x-request-id", name),
        ];
        move |request: &mut tonic::metadata::MetadataMap| {
            for (name, value) in metadata {
                request.insert(name, value.parse().unwrap());
            }
        }
    };
    let mut request = Request::new(route);
    with("first")(request.metadata_mut());
    client.route(request).await.unwrap();
    let recorded = trace(FIRST, "track".to_owned(), None);
    let mut request = Request::new(v1::RecordRequest {
        trace: Some(recorded),
    });
    with("second")(request.metadata_mut());
    client.record(request).await.unwrap();
    let mut request = Request::new(v1::RecordRequest { trace: None });
    with("third")(request.metadata_mut());
    client.record(request).await.unwrap_err();

    let named = |name: &str| {
        let spans = receiver.spans().into_iter();
        spans
            .filter(|(_, span)| span.name == name)
            .collect::<Vec<_>>()
    };
    up.until("the spans have come", || {
        named("tracer.v1.Router/Record").len() == 2
            && named("tracer.v1.Router/Route").len() == 1
            && named("refit").len() == 1
    });
    let caller = |span: &Span| {
        let trace = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes();
        span.trace_id == trace && span.parent_span_id == 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes()
    };
    for (name, id, failed) in [
        ("tracer.v1.Router/Route", "first", false),
        ("tracer.v1.Router/Record", "second", false),
        ("tracer.v1.Router/Record", "third", true),
    ] {
        let found = named(name).into_iter().find(|(_, span)| {
            attributes(&span.attributes)
                .get("tracer.request_id")
                .map(String::as_str)
                == Some(id)
        });
        let (resource, span) = found.unwrap_or_else(|| panic!("no {name} {id}"));
        assert!(
            caller(&span) && span.kind == 2 && span.trace_state == "v=1",
            "{span:?}"
        );
        assert_eq!(span.status.is_some_and(|status| status.code == 2), failed);
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
        assert_eq!(resource["service.name"], "tracer");
        assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(resource["service.instance.id"].len(), 16);
    }
    let (_, refit) = named("refit").remove(0);
    assert!(refit.parent_span_id.is_empty());
    assert_eq!(attributes(&refit.attributes)["tracer.verdict"], "passed");
    for stage in ["refit reading", "refit fitting", "refit publishing"] {
        let stages = named(stage);
        let [(_, span)] = &stages[..] else {
            panic!("{stage}: {stages:?}");
        };
        assert_eq!(
            (&span.trace_id, &span.parent_span_id),
            (&refit.trace_id, &refit.span_id)
        );
    }
    assert!(!named("shard write").is_empty());
    assert!(up.metric("tracer_spans_exported_total") >= 7.0);
    assert_eq!(up.metric("tracer_spans_dropped_total"), 0.0);
    up.stop();
}
