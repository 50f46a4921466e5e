//! OpenTelemetry's spans as the Collector's Kafka exporter writes them. The protobuf
//! bytes in `golden` were encoded from the JSON beside them by OpenTelemetry's own
//! generated types for Python.

use proptest::{collection, prelude::*};
use tracer_trace::{
    DecodeError, Decoded, Decoder, Format, Limits, Origin, OtlpConfig, Rejected, SkipReason,
    TaskFallback, Trace,
};

const JSON: &[u8] = include_bytes!("golden/spans.json");
const PROTO: &[u8] = include_bytes!("golden/spans.binpb");

const ORIGIN: Origin<'static> = Origin {
    topic: "otlp_spans",
    partition: 3,
    offset: 17,
    timestamp_ms: Some(1_700_000_000_123),
};

fn read_with(config: OtlpConfig, payload: &[u8], format: Format) -> Result<Decoded, DecodeError> {
    config.check().expect("can work");
    let mut decoded = Decoded::default();
    let decoder = Decoder::new(Limits::default(), config);
    decoder.decode(payload, &ORIGIN, format, &mut decoded)?;
    Ok(decoded)
}

fn read(payload: &[u8], format: Format) -> Decoded {
    read_with(OtlpConfig::default(), payload, format).expect("well formed")
}

fn skipped(decoded: &Decoded, reason: SkipReason) -> u64 {
    let place = SkipReason::ALL.iter().position(|one| *one == reason);
    decoded.skipped[place.expect("one of all")]
}

fn framed(head: &[u8], payload: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0, 9][..], head, payload].concat()
}

#[test]
fn a_record_of_the_collector_is_many_traces() {
    let decoded = read(PROTO, Format::OtlpProto);
    let brief: Vec<_> = decoded
        .traces
        .iter()
        .map(|trace| {
            let input = trace.input.as_deref().expect("has text");
            (trace.task.as_str(), input, trace.teacher.as_str())
        })
        .collect();
    assert_eq!(
        brief,
        [
            ("triage", "where is my parcel?", "delivery_status"),
            ("urgency", "the server is on fire", "high"),
            ("unknown_service-node", "my card was declined", "declined"),
            ("unknown_service-node", "close my account", "closing"),
            ("unknown_service-node", "where do I pay?", "payment"),
        ]
    );
    let first = &decoded.traces[0];
    assert_eq!(
        first.id,
        "5b8efff798038103d269b633813fc60c-eee19b7ec3c1b174"
    );
    let time = first.timestamp.expect("has a time");
    assert_eq!(time.timestamp_millis(), 1_762_000_000_123);
    let metadata = |trace: &Trace| {
        let entries = trace.metadata.iter().map(|(k, v)| format!("{k}={v}"));
        entries.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        metadata(first),
        "input_tokens=412 model=gpt-4o-mini-2024-07-18 output_tokens=9 provider=openai"
    );
    assert_eq!(decoded.traces[1].ground_truth.as_deref(), Some("low"));
    assert_eq!(metadata(&decoded.traces[1]), "cost_dollars=0.000125");
    assert_eq!(metadata(&decoded.traces[2]), "input_tokens=17");
    assert_eq!(
        metadata(&decoded.traces[3]),
        "cost_dollars=0.5 input_tokens=25 model=llama-3 output_tokens=2"
    );
    assert_eq!(skipped(&decoded, SkipReason::NotACall), 2);
    assert_eq!(skipped(&decoded, SkipReason::FailedCall), 1);
    assert_eq!(skipped(&decoded, SkipReason::NoContent), 1);
    assert_eq!(skipped(&decoded, SkipReason::NotSelected), 0);

    let [Rejected { error, count, .. }] = &decoded.rejected[..] else {
        panic!("{:?}", decoded.rejected);
    };
    assert_eq!((error.reason(), *count), ("bad_label", 1));
    let text = error.to_string();
    assert!(
        text.starts_with("span bee19b7ec3c1b174: no label: the answer has nothing at"),
        "{text}"
    );
}

#[test]
fn both_encodings_and_every_way_to_them_say_the_same() {
    let expected = read(PROTO, Format::OtlpProto);
    for (payload, format) in [
        (JSON.to_vec(), Format::OtlpJson),
        (JSON.to_vec(), Format::Auto),
        (PROTO.to_vec(), Format::Auto),
        (framed(&[], JSON), Format::Auto),
        (framed(&[], JSON), Format::Confluent),
        (framed(&[0], PROTO), Format::Auto),
        (framed(&[4, 2, 0], PROTO), Format::Confluent),
    ] {
        let decoded = read(&payload, format);
        assert_eq!(decoded.traces, expected.traces);
        assert_eq!(decoded.skipped, expected.skipped);
        assert_eq!(decoded.rejected[0].error, expected.rejected[0].error);
    }
}

/// What is rejected goes on alone, in the encoding it came in, and is a trace once the
/// configuration is mended.
#[test]
fn a_rejected_part_can_be_read_again() {
    let mended = OtlpConfig {
        label_pointer: "/class".to_owned(),
        ..OtlpConfig::default()
    };
    for (payload, format) in [
        (JSON.to_vec(), Format::OtlpJson),
        (PROTO.to_vec(), Format::OtlpProto),
        (framed(&[], JSON), Format::Confluent),
        (framed(&[4, 2, 0], PROTO), Format::Confluent),
    ] {
        let part = read(&payload, format).rejected.remove(0).payload;
        assert!(part.len() < payload.len() / 2);
        assert_eq!(part[0] == 0, format == Format::Confluent);
        assert_eq!(read(&part, format).rejected[0].payload, part);
        let again = read_with(mended.clone(), &part, format).expect("well formed");
        assert_eq!((again.traces.len(), again.rejected.len()), (1, 0));
        let trace = &again.traces[0];
        assert_eq!(
            trace.id,
            "7b8efff798038103d269b633813fc60c-bee19b7ec3c1b174"
        );
        assert_eq!(
            (trace.task.as_str(), trace.teacher.as_str()),
            ("triage", "greeting")
        );
    }
}

#[test]
fn a_span_is_read_as_the_configuration_says() {
    let tasks = |config| -> Vec<String> {
        let decoded = read_with(config, JSON, Format::Auto).expect("well formed");
        decoded.traces.iter().map(|t| t.task.to_string()).collect()
    };
    let constant = OtlpConfig {
        task: "all".to_owned(),
        ..OtlpConfig::default()
    };
    assert_eq!(tasks(constant), ["all"; 5]);
    let by_name = OtlpConfig {
        task_fallback: TaskFallback::SpanName,
        ..OtlpConfig::default()
    };
    assert_eq!(
        tasks(by_name),
        [
            "chat-gpt-4o-mini",
            "urgency",
            "openai.chat",
            "ChatCompletion",
            "azure.ai.inference"
        ]
    );
    let default = OtlpConfig {
        task_attribute: "no.such".to_owned(),
        task_fallback: TaskFallback::Default,
        ..OtlpConfig::default()
    };
    assert_eq!(tasks(default), ["default"; 5]);

    let selected = OtlpConfig {
        select: [("service.name", "triage"), ("gen_ai.request.model", "*")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        metadata_attributes: vec!["deployment.environment.name".to_owned()],
        ..OtlpConfig::default()
    };
    let decoded = read_with(selected, JSON, Format::Auto).expect("well formed");
    assert_eq!(decoded.traces.len(), 1);
    assert_eq!(skipped(&decoded, SkipReason::NotSelected), 7);
    assert_eq!(
        decoded.traces[0].metadata["deployment.environment.name"],
        "production"
    );

    let own = OtlpConfig {
        input_attribute: "app.question".to_owned(),
        label_attribute: "app.answer".to_owned(),
        label_pointer: "/intent/0".to_owned(),
        ..OtlpConfig::default()
    };
    let payload = one(
        r#"{"key": "app.question", "value": {"stringValue": "why?"}},
           {"key": "app.answer", "value": {"stringValue": "{\"intent\": [\"curious\"]}"}},
           {"key": "tracer.routing", "value": {"stringValue": "{\"pipeline_version\": 3, \"decision\": \"deferred\", \"propensity\": 1}"}}"#,
    );
    let decoded = read_with(own, payload.as_bytes(), Format::Auto).expect("well formed");
    let trace = &decoded.traces[0];
    assert_eq!(
        (
            trace.input.as_deref(),
            trace.teacher.as_str(),
            trace.task.as_str()
        ),
        (Some("why?"), "curious", "default")
    );
    assert_eq!(
        trace.routing.as_ref().map(|echo| echo.pipeline_version),
        Some(3)
    );
}

fn one(attributes: &str) -> String {
    span(&format!(
        r#"{{"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "attributes": [{attributes}]}}"#
    ))
}

fn span(span: &str) -> String {
    format!(r#"{{"resourceSpans": [{{"scopeSpans": [{{"spans": [{span}]}}]}}]}}"#)
}

const ASKED: &str = r#"{"key": "gen_ai.prompt", "value": {"stringValue": "why?"}}"#;
const ANSWERED: &str = r#"{"key": "gen_ai.completion", "value": {"stringValue": "because"}}"#;

#[test]
fn what_is_wrong_with_a_span_is_named_with_its_id() {
    let chat = r#"{"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}}"#;
    let task = r#"{"key": "tracer.task", "value": {"stringValue": "a/b"}}"#;
    let echo = r#"{"key": "tracer.routing", "value": {"stringValue": "{}"}}"#;
    let long = r#"{"key": "gen_ai.completion", "value": {"stringValue": "LONG"}}"#
        .replace("LONG", &"x".repeat(300));
    for (attributes, reason, named) in [
        (vec![chat, ASKED], "missing_label", "teacher"),
        (vec![chat, ANSWERED], "missing_input", "input"),
        (vec![ASKED, ANSWERED, task], "invalid_task", "a/b"),
        (vec![ASKED, ANSWERED, echo], "bad_routing", "decision"),
        (vec![ASKED, &long], "label_too_large", "300 bytes"),
    ] {
        let decoded = read(one(&attributes.join(",")).as_bytes(), Format::Auto);
        let error = &decoded.rejected[0].error;
        assert_eq!(error.reason(), reason, "{error}");
        assert!(error.to_string().contains(named), "{error}");
        assert!(
            error.to_string().starts_with("span eee19b7ec3c1b174: "),
            "{error}"
        );
        assert!(DecodeError::REASONS.contains(&error.reason()));
    }
    for (ids, named) in [
        (
            r#""traceId": "5b8efff798038103d269b633813fc60c""#,
            "span number 0 of resource 0: ",
        ),
        (r#""spanId": "eee19b7ec3c1b174""#, "its trace id is \"\""),
        (
            r#""traceId": "00000000000000000000000000000000", "spanId": "eee19b7ec3c1b174""#,
            "its trace id is \"0000",
        ),
        (
            r#""traceId": "W47/95gDgQPSabYzgT/GDA==", "spanId": "7uGbfsPBsXQ=""#,
            "hexadecimal",
        ),
        (r#""traceId": 5"#, "\"traceId\" is 5"),
    ] {
        let payload = span(&format!(
            r#"{{{ids}, "attributes": [{ASKED}, {ANSWERED}]}}"#
        ));
        let decoded = read(payload.as_bytes(), Format::Auto);
        let error = &decoded.rejected[0].error;
        assert_eq!(error.reason(), "malformed_otlp", "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[test]
fn spans_that_are_wrong_stop_no_others_and_are_named_up_to_a_bound() {
    let good = r#"{"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "attributes": [ASKED, ANSWERED]}"#
        .replace("ASKED", ASKED)
        .replace("ANSWERED", ANSWERED);
    let mut spans = vec![good.clone()];
    for number in 1..=20 {
        spans.push(
            good.replace("eee19b7ec3c1b174", &format!("{number:016x}"))
                .replace("\"because\"", "\"\""),
        );
        spans.push("7".to_owned());
    }
    spans.push(good);
    let decoded = read(span(&spans.join(",")).as_bytes(), Format::OtlpJson);
    assert_eq!(decoded.traces.len(), 2);
    let [malformed, blank] = &decoded.rejected[..] else {
        panic!("{:?}", decoded.rejected);
    };
    assert_eq!(
        (malformed.error.reason(), malformed.count),
        ("malformed_otlp", 20)
    );
    assert_eq!((blank.error.reason(), blank.count), ("missing_label", 20));
    let text = blank.error.to_string();
    assert!(
        text.contains("span 0000000000000008: ") && text.ends_with("and 12 more spans"),
        "{text}"
    );
}

#[test]
fn what_a_resource_adds_to_every_span_is_bounded() {
    let spans: Vec<_> = (1..=700)
        .map(|number| {
            format!(
                r#"{{"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "{number:016x}", "attributes": [{ASKED}, {ANSWERED}]}}"#
            )
        })
        .collect();
    let payload = format!(
        r#"{{"resourceSpans": [{{"resource": {{"attributes": [{{"key": "gen_ai.request.model", "value": {{"stringValue": "{}"}}}}]}}, "scopeSpans": [{{"spans": [{}]}}]}}]}}"#,
        "m".repeat(15_000),
        spans.join(",")
    );
    let decoded = read(payload.as_bytes(), Format::OtlpJson);
    // "model", its value and "why?" of each.
    let fit = 8 * Limits::default().max_payload_bytes / 15_009;
    assert_eq!(decoded.traces.len(), fit);
    let [rest] = &decoded.rejected[..] else {
        panic!("{:?}", decoded.rejected);
    };
    assert_eq!(
        (rest.error.reason(), rest.count),
        ("too_many_spans", 700 - fit as u64)
    );
    // What is left fits when it is sent back.
    let again = read(&rest.payload, Format::OtlpJson);
    assert_eq!(again.traces.len(), 700 - fit);
}

#[test]
fn a_record_that_is_broken_is_rejected_as_a_whole() {
    let many = span(&vec!["{}"; 10_001].join(","));
    let mut empty_spans = vec![];
    for _ in 0..10_001 {
        empty_spans.extend([0x12, 0]);
    }
    let scope = [&[0x12, 0xa2, 0x9c, 0x01][..], &empty_spans].concat();
    let many_proto = [&[0x0a, 0xa6, 0x9c, 0x01][..], &scope].concat();
    for (payload, format, reason) in [
        (
            &PROTO[..PROTO.len() - 1],
            Format::OtlpProto,
            "malformed_otlp",
        ),
        (b"\x08\x01", Format::OtlpJson, "malformed_json"),
        (b"{}", Format::OtlpJson, "malformed_otlp"),
        (b"{\"resourceSpans\": 1}", Format::Auto, "malformed_otlp"),
        (
            b"{\"resourceSpans\": [{\"scopeSpans\": [1]}]}",
            Format::Auto,
            "malformed_otlp",
        ),
        (b"\0\0\0\0", Format::Auto, "malformed_frame"),
        (b"{}", Format::Confluent, "malformed_frame"),
        (b"\0\0\0\0\x01\0", Format::Auto, "empty_payload"),
        (many.as_bytes(), Format::Auto, "too_many_spans"),
        (&many_proto, Format::Auto, "too_many_spans"),
        // A trace of nothing but an id lacks its label, whatever it looks like.
        (b"\x0a\x03abc", Format::Auto, "empty_label"),
    ] {
        let error = read_with(OtlpConfig::default(), payload, format).expect_err(reason);
        assert_eq!(error.reason(), reason, "{error}");
        assert!(DecodeError::REASONS.contains(&error.reason()));
    }
}

#[test]
fn a_value_nested_too_deep_is_one_bad_span() {
    let mut value = r#"{"stringValue": "x"}"#.to_owned();
    let mut bytes = vec![0x0a, 1, b'x'];
    let length = |bytes: &[u8]| {
        let mut out = vec![];
        let mut rest = bytes.len();
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
        out
    };
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2][..], &length(bytes), bytes].concat();
    for _ in 0..40 {
        value = format!(r#"{{"arrayValue": {{"values": [{value}]}}}}"#);
        bytes = field(5, &field(1, &bytes));
    }
    let deep = format!(r#"{{"key": "gen_ai.prompt", "value": {value}}}"#);
    let json = one(&[&deep, ANSWERED].join(","));
    let attribute = [field(1, b"gen_ai.prompt"), field(2, &bytes)].concat();
    let proto = field(1, &field(2, &field(2, &field(9, &attribute))));
    // serde_json itself stops at 128 levels, of which each of these takes four.
    let error = read_with(OtlpConfig::default(), json.as_bytes(), Format::OtlpJson);
    assert_eq!(error.expect_err("too deep").reason(), "malformed_json");
    let decoded = read(&proto, Format::OtlpProto);
    let error = decoded.rejected[0].error.to_string();
    assert!(error.contains("nested too deep"), "{error}");
}

#[test]
fn a_trace_in_a_frame_is_a_trace() {
    let json = br#"{"input": "a", "teacher": "b"}"#;
    let expected = &read(json, Format::Json).traces[0];
    let proto = tracer_trace::to_protobuf(expected);
    for (payload, format) in [
        (framed(&[], json), Format::Auto),
        (framed(&[], json), Format::Confluent),
        (framed(&[0], &proto), Format::Auto),
        (framed(&[2, 6], &proto), Format::Confluent),
    ] {
        assert_eq!(&read(&payload, format).traces[0], expected);
    }
}

fn formats() -> [Format; 6] {
    [
        Format::Auto,
        Format::Json,
        Format::Protobuf,
        Format::Confluent,
        Format::OtlpJson,
        Format::OtlpProto,
    ]
}

/// Whatever came in, what comes out is bounded by it.
fn bounded(payload: &[u8]) {
    for format in formats() {
        let Ok(decoded) = read_with(OtlpConfig::default(), payload, format) else {
            continue;
        };
        let spans = decoded.traces.len() as u64
            + decoded.rejected.iter().map(|part| part.count).sum::<u64>()
            + decoded.skipped.iter().sum::<u64>();
        assert!(spans <= payload.len() as u64);
        let reasons = decoded.rejected.len();
        assert!(reasons <= DecodeError::REASONS.len());
        for part in &decoded.rejected {
            // JSON may be written with escapes that it came without.
            assert!(part.payload.len() <= 6 * payload.len() + 100);
            assert!(part.error.to_string().len() < 8_000);
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_are_read_or_refused(payload in collection::vec(any::<u8>(), 0..300)) {
        bounded(&payload);
        bounded(&framed(&[0], &payload));
    }

    #[test]
    fn damaged_records_are_read_or_refused(
        flips in collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        for payload in [JSON, PROTO] {
            let mut payload = payload.to_vec();
            for (at, bits) in &flips {
                let at = at.index(payload.len());
                payload[at] ^= bits;
            }
            if !whole {
                payload.truncate(cut.index(payload.len() + 1));
            }
            bounded(&payload);
        }
    }

    #[test]
    fn odd_attributes_are_read_or_refused(
        entries in collection::vec((
            prop_oneof![
                Just("gen_ai.input.messages"), Just("gen_ai.output.messages"), Just("gen_ai.prompt"),
                Just("gen_ai.completion"), Just("gen_ai.prompt.0.content"), Just("gen_ai.completion.0.content"),
                Just("llm.input_messages.0.message.contents.0.message_content.text"),
                Just("gen_ai.operation.name"), Just("tracer.task"), Just("tracer.routing"), Just("output.value"),
            ],
            prop_oneof![
                Just("chat".to_owned()), Just("[]".to_owned()), Just("{}".to_owned()),
                Just(r#"[{"role": "user", "parts": [1, {"type": "text", "content": 2}]}]"#.to_owned()),
                Just(r#"{"messages": [[], null, {"message": {"message": {}}}]}"#.to_owned()),
                Just(r#"[{"role": "user", "content": [{"text": "a"}]}]"#.to_owned()),
                ".{0,20}",
            ],
        ), 0..8),
    ) {
        let attributes: Vec<_> = entries
            .iter()
            .map(|(key, value)| serde_json::json!({"key": key, "value": {"stringValue": value}}).to_string())
            .collect();
        bounded(one(&attributes.join(",")).as_bytes());
    }
}
