//! What an answer holds besides the decision, and that it is the pipeline's, bit by bit.

use tonic::Code;
use tonic_types::StatusExt as _;
use tracer_learn::{Decision, Input, Pipeline, Scratch};
use tracer_proto::v1;

use crate::support::{
    AMBIGUOUS, Options, PLAIN, Server, TASK, embedding, pipeline_a, pipeline_dense, publish,
    registry, text,
};

async fn serving(pipeline: &Pipeline) -> Server {
    let registry = registry();
    publish(&registry, pipeline).await;
    Server::start(registry, Options::default()).await
}

fn asking(top_k: u32, request: v1::RouteRequest) -> v1::RouteRequest {
    v1::RouteRequest { top_k, ..request }
}

fn batch(requests: &[v1::RouteRequest], top_k: u32) -> v1::RouteBatchRequest {
    v1::RouteBatchRequest {
        task: TASK.into(),
        inputs: requests.iter().filter_map(|r| r.input.clone()).collect(),
        top_k,
    }
}

#[tokio::test]
async fn the_most_probable_labels_are_listed_when_asked_for() {
    let server = serving(pipeline_a()).await;
    let mut client = server.client().await;
    let plain = client.route(text(PLAIN)).await.unwrap().into_inner();
    assert!(plain.top.is_empty());
    for (k, listed) in [(1, 1), (3, 3), (4, 4), (100, 4)] {
        for (input, handled) in [(PLAIN, true), (AMBIGUOUS, false)] {
            let answer = client.route(asking(k, text(input))).await.unwrap();
            let answer = answer.into_inner();
            assert_eq!(answer.top.len(), listed);
            assert!(
                answer
                    .top
                    .is_sorted_by(|a, b| a.probability >= b.probability)
            );
            let total: f32 = answer.top.iter().map(|entry| entry.probability).sum();
            assert!(total <= 1.0001 && (listed < 4 || total > 0.9999), "{total}");
            assert_eq!(answer.label.is_empty(), !handled);
            // The first one is what the surrogate says, handled or not.
            let said = answer.routing.unwrap().label.unwrap();
            assert_eq!(answer.top[0].label, said);
        }
    }
    let requests = [text(PLAIN), text(AMBIGUOUS)];
    let together = client.route_batch(batch(&requests, 2)).await.unwrap();
    for (request, answer) in requests.iter().zip(together.into_inner().responses) {
        let alone = client.route(asking(2, request.clone())).await.unwrap();
        assert_eq!(answer.top, alone.into_inner().top);
    }
    // Nothing is listed where nothing was scored.
    let unknown = v1::RouteRequest {
        task: "never-heard-of".into(),
        ..asking(3, text(PLAIN))
    };
    let answer = client.route(unknown).await.unwrap().into_inner();
    assert!(answer.top.is_empty());

    let single = client.route(asking(101, text(PLAIN))).await.unwrap_err();
    let many = client.route_batch(batch(&requests, 101)).await.unwrap_err();
    for status in [single, many] {
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "top_k is 101; at most 100 are allowed");
        assert_eq!(field(&status), "top_k");
    }
    server.stop().await;
}

/// The field that the standard details name.
fn field(status: &tonic::Status) -> String {
    let details = status.get_error_details();
    let bad = details.bad_request().expect("a BadRequest");
    assert_eq!(bad.field_violations.len(), 1);
    assert_eq!(bad.field_violations[0].description, status.message());
    assert!(!details.error_info().unwrap().reason.is_empty());
    bad.field_violations[0].field.clone()
}

#[tokio::test]
async fn the_details_name_the_field() {
    let server = serving(pipeline_dense()).await;
    let mut client = server.client().await;
    let good = [1.0, 0.0, 0.0, 0.0];
    for (request, expected) in [
        (embedding(&good[..3], ""), "input.embedding"),
        (embedding(&[f32::NAN; 4], ""), "input.embedding"),
        (embedding(&vec![1.0; 1 << 17], ""), "input.embedding"),
        (text(" "), "input"),
        (text(&"x".repeat(1 << 21)), "input.text"),
        (
            v1::RouteRequest {
                task: "a b".into(),
                ..text(PLAIN)
            },
            "task",
        ),
        (
            v1::RouteRequest {
                request_id: "r".repeat(1000),
                ..text(PLAIN)
            },
            "request_id",
        ),
    ] {
        let status = client.route(request).await.unwrap_err();
        assert_eq!(field(&status), expected);
    }
    let requests = [embedding(&good, ""), embedding(&good[..2], "")];
    let status = client.route_batch(batch(&requests, 0)).await.unwrap_err();
    assert_eq!(field(&status), "inputs[1].embedding");
    // Far enough behind to be decided in another stretch than the first.
    let mut many = vec![embedding(&good, ""); 200];
    many.push(embedding(&[1.0; 7], ""));
    let status = client.route_batch(batch(&many, 0)).await.unwrap_err();
    assert_eq!(field(&status), "inputs[200].embedding");
    let trace = v1::RecordRequest {
        trace: Some(v1::Trace {
            task: TASK.into(),
            input: PLAIN.into(),
            ..v1::Trace::default()
        }),
    };
    let status = client.record(trace).await.unwrap_err();
    assert_eq!(field(&status), "trace.teacher");
    let request = v1::GetPipelineRequest {
        task: "nobody".into(),
    };
    let status = client.get_pipeline(request).await.unwrap_err();
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "no_pipeline");
    server.stop().await;
}

/// What the pipeline itself says, as an answer would.
fn direct(pipeline: &Pipeline, request: &v1::RouteRequest, scratch: &mut Scratch) -> (String, u32) {
    let input = request.input.as_ref().unwrap();
    let input = Input {
        text: Some(input.text.as_str()),
        embedding: Some(input.embedding.as_slice()).filter(|x| !x.is_empty()),
    };
    match pipeline.decide(input, scratch).unwrap() {
        Decision::Handled { label, score } => (pipeline.labels()[label].clone(), score.to_bits()),
        Decision::Deferred { score, .. } => (String::new(), score.to_bits()),
    }
}

#[tokio::test]
async fn what_is_served_is_what_the_pipeline_says_bit_by_bit() {
    for (pipeline, requests) in [
        (
            pipeline_a(),
            (0..150)
                .map(|i| match i % 3 {
                    0 => text(&format!("where is my parcel number {i}")),
                    1 => text(&format!("it is about my thing number {i} again")),
                    _ => text(&format!("Réservé {i} \u{1f600} cancel")),
                })
                .collect::<Vec<_>>(),
        ),
        (
            pipeline_dense(),
            (0..150)
                .map(|i| {
                    // Near an axis, between two, and far from all.
                    let x = |axis: usize| {
                        let on = f32::from(u8::from(i % 4 == axis || i % 12 == axis + 6));
                        on + (i * (axis + 3) % 17) as f32 / if i % 3 == 0 { 17.0 } else { 200.0 }
                    };
                    embedding(&[x(0), x(1), x(2), x(3)], "")
                })
                .collect(),
        ),
    ] {
        let server = serving(pipeline).await;
        let mut client = server.client().await;
        let together = client.route_batch(batch(&requests, 0)).await.unwrap();
        let together = together.into_inner().responses;
        assert_eq!(together.len(), requests.len());
        let mut scratch = Scratch::default();
        let mut handled = 0;
        for (request, of_batch) in requests.iter().zip(together) {
            let alone = client.route(request.clone()).await.unwrap().into_inner();
            let expected = direct(pipeline, request, &mut scratch);
            for answer in [alone, of_batch] {
                assert_eq!((answer.label, answer.score.to_bits()), expected);
            }
            handled += usize::from(!expected.0.is_empty());
        }
        assert!((10..150).contains(&handled), "{handled}");
        server.stop().await;
    }
}
