//! The JSON contract: names, defaults, and what is refused with which message.

use tracer_trace::{Decision, DecodeError, Format, Limits, Origin, Trace, decode};

const ORIGIN: Origin<'static> = Origin {
    topic: "traces",
    partition: 3,
    offset: 17,
    timestamp_ms: Some(1_700_000_000_123),
};

fn read(payload: &str) -> Result<Trace, DecodeError> {
    decode(
        payload.as_bytes(),
        &ORIGIN,
        Format::Auto,
        &Limits::default(),
    )
}

#[test]
fn the_smallest_trace_gets_its_defaults() {
    let trace = read(r#" {"input": "where is my card", "teacher": " card_arrival "}"#).unwrap();
    assert_eq!(trace.id, "traces-3-17");
    assert_eq!(trace.task.as_str(), "default");
    assert_eq!(trace.teacher, "card_arrival");
    assert_eq!(
        trace.timestamp.unwrap().timestamp_millis(),
        1_700_000_000_123
    );
    assert!(trace.routing.is_none() && trace.metadata.is_empty() && trace.embedding.is_none());
}

#[test]
fn every_alias_is_read_and_the_first_of_several_counts() {
    for input in ["input", "query", "text", "prompt", "question"] {
        for teacher in [
            "teacher",
            "teacher_output",
            "label",
            "intent",
            "output",
            "answer",
        ] {
            let trace = read(&format!(r#"{{"{input}": "a", "{teacher}": "b"}}"#)).unwrap();
            assert_eq!(
                (trace.input.as_deref(), trace.teacher.as_str()),
                (Some("a"), "b")
            );
        }
    }
    let trace = read(r#"{"text": "2", "query": "1", "input": null, "answer": "b", "label": "a"}"#);
    let trace = trace.unwrap();
    assert_eq!(
        (trace.input.as_deref(), trace.teacher.as_str()),
        (Some("1"), "a")
    );
}

#[test]
fn times_are_rfc_3339_or_epoch_milliseconds() {
    for time in [
        "\"2023-11-14T22:13:20.123Z\"",
        "\"2023-11-14T23:13:20.123+01:00\"",
        "1700000000123",
        "1700000000123.4",
    ] {
        let trace = read(&format!(
            r#"{{"input": "a", "teacher": "b", "timestamp": {time}}}"#
        ));
        let ms = trace.unwrap().timestamp.unwrap().timestamp_millis();
        assert_eq!(ms, 1_700_000_000_123, "{time}");
    }
}

#[test]
fn labels_and_ids_may_be_numbers_and_metadata_anything() {
    let trace = read(
        r#"{"id": 7, "input": "a", "label": 3, "ground_truth": true, "metadata": {"n": 1, "s": "x", "o": {"k": [1]}}}"#,
    )
    .unwrap();
    assert_eq!((trace.id.as_str(), trace.teacher.as_str()), ("7", "3"));
    assert_eq!(trace.ground_truth.as_deref(), Some("true"));
    let metadata: Vec<_> = trace
        .metadata
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(metadata, ["n=1", r#"o={"k":[1]}"#, "s=x"]);
}

#[test]
fn the_echo_is_read_in_our_names_and_in_protobufs() {
    let ours = r#"{"pipeline_version": 4, "decision": "handled", "label": "b", "score": 0.5, "audit": true, "propensity": 0.02}"#;
    let theirs = r#"{"pipelineVersion": "4", "decision": "DECISION_HANDLED", "label": "b", "score": 0.5, "audit": true, "propensity": 0.02}"#;
    let routing = |echo: &str| {
        let payload = format!(r#"{{"input": "a", "teacher": "b", "routing": {echo}}}"#);
        read(&payload).unwrap().routing.unwrap()
    };
    assert_eq!(routing(ours), routing(theirs));
    assert_eq!(routing(ours).pipeline_version, 4);
    let deferred = routing(r#"{"decision": "DECISION_DEFERRED", "propensity": 1}"#);
    assert_eq!(deferred.decision, Decision::Deferred);
    assert!(!deferred.audit);
}

/// A task without audits echoes a propensity of 0 for what it handles, and
/// protobuf's JSON leaves it out. A caller that sends such a trace is not refused.
#[test]
fn the_echo_of_a_task_without_audits_is_a_valid_one() {
    for echo in [
        r#"{"pipeline_version": 4, "decision": "handled", "propensity": 0}"#,
        r#"{"pipelineVersion": "4", "decision": "DECISION_HANDLED"}"#,
    ] {
        let payload = format!(r#"{{"input": "a", "teacher": "b", "routing": {echo}}}"#);
        let trace = read(&payload).unwrap();
        let routing = trace.routing.as_ref().unwrap();
        assert_eq!((routing.propensity, routing.audit), (0.0, false), "{echo}");
        let again = decode(
            &tracer_trace::to_protobuf(&trace),
            &ORIGIN,
            Format::Auto,
            &Limits::default(),
        );
        assert_eq!(again.unwrap(), trace);
    }
}

#[test]
fn what_is_wrong_is_named() {
    let long = format!(r#"{{"input": "{}", "teacher": "b"}}"#, "x".repeat(70_000));
    let huge = format!(r#"{{"input": "{}", "teacher": "b"}}"#, "x".repeat(10 << 20));
    let label = format!(r#"{{"input": "a", "teacher": "{}"}}"#, "x".repeat(300));
    let id = format!(
        r#"{{"id": "{}", "input": "a", "teacher": "b"}}"#,
        "x".repeat(300)
    );
    let dimensions = format!(
        r#"{{"input": "a", "teacher": "b", "embedding": [{}0]}}"#,
        "0,".repeat(9000)
    );
    let metadata = format!(
        r#"{{"input": "a", "teacher": "b", "metadata": {{"k": "{}"}}}}"#,
        "x".repeat(20_000)
    );
    let cases = [
        ("", "empty_payload", "empty"),
        (" \n ", "empty_payload", "empty"),
        (r#"{"input": "a", "teacher""#, "malformed_json", "line 1"),
        ("not a trace", "malformed_json", "not a JSON object"),
        ("[1, 2]", "malformed_json", "not a JSON object"),
        ("\u{1}\u{2}\u{3}", "malformed_protobuf", "protobuf"),
        (
            r#"{"input": "a", "teacher": "b", "embedding": [NaN]}"#,
            "malformed_json",
            "column",
        ),
        (r#"{"teacher": "b"}"#, "missing_input", "\"input\""),
        (
            r#"{"input": " ", "teacher": "b"}"#,
            "missing_input",
            "\"input\"",
        ),
        (r#"{"input": "a"}"#, "missing_label", "\"teacher\""),
        (
            r#"{"input": "a", "label": " "}"#,
            "empty_label",
            "\"label\"",
        ),
        (
            r#"{"input": 5, "teacher": "b"}"#,
            "wrong_type",
            "\"input\" must be text, but is 5",
        ),
        (r#"{"input": "a", "teacher": 1.5}"#, "wrong_type", "1.5"),
        (
            r#"{"input": "a", "teacher": "b", "task": "a/b"}"#,
            "invalid_task",
            "a/b",
        ),
        (
            r#"{"input": "a", "teacher": "b", "embedding": []}"#,
            "bad_embedding",
            "no values",
        ),
        (
            r#"{"input": "a", "teacher": "b", "embedding": [0, "NaN"]}"#,
            "bad_embedding",
            "\"NaN\" at index 1",
        ),
        (
            r#"{"input": "a", "teacher": "b", "embedding": [1e39]}"#,
            "bad_embedding",
            "inf at index 0",
        ),
        (
            r#"{"input": "a", "teacher": "b", "timestamp": "yesterday"}"#,
            "bad_timestamp",
            "yesterday",
        ),
        (
            r#"{"input": "a", "teacher": "b", "timestamp": 1e300}"#,
            "bad_timestamp",
            "1e+300",
        ),
        (
            r#"{"input": "a", "teacher": "b", "metadata": 1}"#,
            "wrong_type",
            "\"metadata\"",
        ),
        (
            r#"{"input": "a", "teacher": "b", "routing": {"propensity": 1}}"#,
            "bad_routing",
            "\"routing.decision\" is missing",
        ),
        (
            r#"{"input": "a", "teacher": "b", "routing": {"decision": "deferred"}}"#,
            "bad_routing",
            "\"routing.propensity\" must lie in (0, 1]",
        ),
        (
            r#"{"input": "a", "teacher": "b", "routing": {"decision": "handled", "audit": true, "propensity": 0}}"#,
            "bad_routing",
            "(0, 1] for a deferred or audited input",
        ),
        (
            r#"{"input": "a", "teacher": "b", "routing": {"decision": "handled", "propensity": -0.1}}"#,
            "bad_routing",
            "[0, 1], but is -0.1",
        ),
        (
            r#"{"input": "a", "teacher": "b", "routing": {"decision": "handled", "propensity": 1.5}}"#,
            "bad_routing",
            "[0, 1], but is 1.5",
        ),
        (
            r#"{"input": "a", "teacher": "b", "routing": {"decision": "maybe", "propensity": 1}}"#,
            "bad_routing",
            "maybe",
        ),
        (
            long.as_str(),
            "input_too_large",
            "70000 bytes; at most 65536",
        ),
        (huge.as_str(), "payload_too_large", "at most 1048576"),
        (label.as_str(), "label_too_large", "300 bytes"),
        (id.as_str(), "id_too_large", "300 bytes"),
        (dimensions.as_str(), "bad_embedding", "9001 values"),
        (metadata.as_str(), "metadata_too_large", "20001 bytes"),
    ];
    for (payload, reason, message) in cases {
        let shown: String = payload.chars().take(100).collect();
        let error = read(payload).expect_err(&shown);
        assert_eq!(error.reason(), reason, "{shown}: {error}");
        assert!(error.to_string().contains(message), "{shown}: {error}");
        assert!(error.to_string().len() < 400, "{error}");
        assert!(DecodeError::REASONS.contains(&error.reason()));
    }
}
