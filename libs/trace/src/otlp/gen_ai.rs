//! What was said to a model and by it, in the conventions there are.
//!
//! In this order, the first that is there counts:
//!
//! 1. OpenTelemetry's GenAI semantic conventions: `gen_ai.input.messages` and
//!    `gen_ai.output.messages`, structured or as JSON text, on the span or on the event
//!    `gen_ai.client.inference.operation.details`; messages have `parts`.
//! 2. Their predecessors: `gen_ai.prompt` and `gen_ai.completion`, on the span or on the
//!    events `gen_ai.content.prompt` and `gen_ai.content.completion`.
//! 3. Flattened (OpenLLMetry): `gen_ai.prompt.0.role`, `gen_ai.prompt.0.content`.
//! 4. OpenInference: `llm.input_messages.0.message.role`, `….message.content`,
//!    `….message.contents.0.message_content.text`.
//! 5. One event a message: `gen_ai.user.message`, `gen_ai.choice` and so on.
//! 6. OpenInference's `input.value` and `output.value`.

use serde_json::Value;

use super::span::{Attributes, Event, Span};

/// A message, as far as it is text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) role: String,
    /// The text of all its parts.
    pub(super) text: String,
    /// The arguments of its first tool call, as JSON: a classifier that answers by a
    /// function has its label there.
    pub(super) arguments: Option<String>,
}

/// Which half of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Input,
    Output,
}

impl Side {
    fn role(self) -> &'static str {
        match self {
            Self::Input => "user",
            Self::Output => "assistant",
        }
    }

    fn pick(self, input: &'static str, output: &'static str) -> &'static str {
        match self {
            Self::Input => input,
            Self::Output => output,
        }
    }
}

/// The messages of one side; none when nothing was recorded.
pub(super) fn messages(span: &Span, side: Side) -> Vec<Message> {
    let attribute = |key: &str| {
        let events = span.events.iter().map(|event| &event.attributes);
        std::iter::once(&span.attributes)
            .chain(events)
            .find_map(|attributes| attributes.get(key).filter(|value| !value.is_null()))
    };
    let whole = [
        side.pick("gen_ai.input.messages", "gen_ai.output.messages"),
        side.pick("gen_ai.prompt", "gen_ai.completion"),
    ];
    for key in whole {
        let found = attribute(key).map(|value| all_of(value, side));
        if let Some(found) = found.filter(|found| !found.is_empty()) {
            return found;
        }
    }
    let flattened = [
        flattened(
            &span.attributes,
            side.pick("gen_ai.prompt", "gen_ai.completion"),
            "",
            side,
        ),
        flattened(
            &span.attributes,
            side.pick("llm.input_messages", "llm.output_messages"),
            "message.",
            side,
        ),
        span.events
            .iter()
            .filter_map(|event| of_event(event, side))
            .collect(),
    ];
    if let Some(found) = flattened.into_iter().find(|found| !found.is_empty()) {
        return found;
    }
    attribute(side.pick("input.value", "output.value"))
        .map(|value| all_of(value, side))
        .unwrap_or_default()
}

/// Messages of a value: a list of them, one, a request or an answer that holds them, or
/// the bare text of one. Any of these may be JSON text.
fn all_of(value: &Value, side: Side) -> Vec<Message> {
    if let Value::String(text) = value {
        let parsed = structured(text).map(|value| known(&value, side));
        return match parsed.filter(|found| !found.is_empty()) {
            Some(found) => found,
            None if text.trim().is_empty() => Vec::new(),
            // Text that happens to be JSON is text.
            None => vec![said(side.role(), text.clone())],
        };
    }
    known(value, side)
}

fn structured(text: &str) -> Option<Value> {
    let begins = text.trim_start().as_bytes().first();
    if !matches!(begins, Some(b'[' | b'{')) {
        return None;
    }
    serde_json::from_str(text).ok()
}

fn known(value: &Value, side: Side) -> Vec<Message> {
    match value {
        Value::Array(list) => list.iter().filter_map(|one| message(one, side)).collect(),
        Value::Object(object) => {
            let held = ["messages", "choices"]
                .iter()
                .find_map(|key| object.get(*key));
            match held {
                Some(Value::Array(list)) => {
                    list.iter().filter_map(|one| message(one, side)).collect()
                }
                _ => message(value, side).into_iter().collect(),
            }
        }
        _ => Vec::new(),
    }
}

/// One message: with `parts`, with `content`, or within a choice.
fn message(value: &Value, side: Side) -> Option<Message> {
    if let Value::String(text) = value {
        return Some(said(side.role(), text.clone()));
    }
    let object = value.as_object()?;
    if let Some(inner @ Value::Object(_)) = object.get("message") {
        return message(inner, side);
    }
    let role = object.get("role").and_then(Value::as_str);
    let mut found = said(role.unwrap_or(side.role()), String::new());
    let content = object.get("parts").or_else(|| object.get("content"));
    match content {
        Some(Value::String(text)) => found.text.clone_from(text),
        Some(Value::Array(parts)) => {
            for part in parts {
                read_part(part, &mut found);
            }
        }
        _ => {}
    }
    let calls = object.get("tool_calls").and_then(Value::as_array);
    for call in calls.into_iter().flatten() {
        let function = call.get("function").unwrap_or(call);
        tool_call(function.get("arguments"), &mut found);
    }
    let empty = content.is_none() && found.arguments.is_none();
    (!empty).then_some(found)
}

/// A part of a message: `{"type": "text", "content": …}` in OpenTelemetry,
/// `{"type": "text", "text": …}` in the APIs themselves.
fn read_part(part: &Value, found: &mut Message) {
    let kind = part.get("type").and_then(Value::as_str).unwrap_or("text");
    match kind {
        "tool_call" => tool_call(part.get("arguments"), found),
        "tool_use" => tool_call(part.get("input"), found),
        // Such as "text", "input_text" and "output_text"; thoughts are no answer.
        kind if kind.ends_with("text") => {
            let text = ["content", "text"].iter().find_map(|key| part.get(*key));
            let text = text.or(Some(part)).and_then(Value::as_str);
            if let Some(text) = text {
                append(&mut found.text, text);
            }
        }
        _ => {}
    }
}

fn tool_call(arguments: Option<&Value>, found: &mut Message) {
    if found.arguments.is_none() {
        found.arguments = arguments
            .filter(|value| !value.is_null())
            .map(|value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            });
    }
}

fn append(text: &mut String, more: &str) {
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(more);
}

fn said(role: &str, text: String) -> Message {
    Message {
        role: role.to_owned(),
        text,
        arguments: None,
    }
}

/// Messages whose fields are attributes of their own, counted from 0.
fn flattened(attributes: &Attributes, prefix: &str, field: &str, side: Side) -> Vec<Message> {
    let text = |key: &str| attributes.get(key).and_then(Value::as_str);
    let mut found = Vec::new();
    for number in 0.. {
        let at = format!("{prefix}.{number}.");
        // Their keys begin alike: whether there is one is told by the next in order.
        let next = attributes.range(at.clone()..).next();
        if !next.is_some_and(|(key, _)| key.starts_with(&at)) {
            break;
        }
        let key = |name: &str| format!("{at}{field}{name}");
        let role = text(&key("role")).unwrap_or(side.role());
        let mut one = said(role, String::new());
        match attributes.get(&key("content")) {
            Some(Value::String(content)) => match structured(content) {
                Some(list @ Value::Array(_)) => {
                    let wrapped = serde_json::json!({"content": list});
                    let parts = message(&wrapped, side).filter(|parts| !parts.text.is_empty());
                    one.text = parts.map_or_else(|| content.clone(), |parts| parts.text);
                }
                _ => one.text.clone_from(content),
            },
            Some(list @ Value::Array(_)) => {
                let wrapped = serde_json::json!({"content": list});
                one.text = message(&wrapped, side).map_or_else(String::new, |parts| parts.text);
            }
            _ => {
                for part in 0.. {
                    let key = key(&format!("contents.{part}.message_content."));
                    if !attributes
                        .range(key.clone()..)
                        .next()
                        .is_some_and(|(k, _)| k.starts_with(&key))
                    {
                        break;
                    }
                    if let Some(more) = text(&format!("{key}text")) {
                        append(&mut one.text, more);
                    }
                }
            }
        }
        let arguments = [
            key("tool_calls.0.arguments"),
            key("tool_calls.0.tool_call.function.arguments"),
            key("function_call.arguments"),
        ];
        tool_call(
            arguments.iter().find_map(|key| attributes.get(key)),
            &mut one,
        );
        found.push(one);
    }
    found
}

/// The message an event is, when it is one of this side.
fn of_event(event: &Event, side: Side) -> Option<Message> {
    let role = event.name.strip_prefix("gen_ai.")?;
    let role = match role.strip_suffix(".message") {
        Some(role) if side == Side::Input => role,
        None if side == Side::Output && role == "choice" => side.role(),
        _ => return None,
    };
    let attributes = &event.attributes;
    let whole = ["gen_ai.event.content", "message"];
    if let Some(value) = whole.iter().find_map(|key| attributes.get(*key)) {
        let found = all_of(value, side).into_iter().next()?;
        return Some(Message {
            role: role.to_owned(),
            ..found
        });
    }
    let content = attributes.get("content")?.as_str()?;
    Some(said(role, content.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn span(attributes: Value) -> Span {
        let Value::Object(attributes) = attributes else {
            panic!("an object");
        };
        Span {
            attributes: attributes.into_iter().collect(),
            ..Span::default()
        }
    }

    fn both(attributes: Value) -> (Vec<(String, String)>, String) {
        let span = span(attributes);
        let input = messages(&span, Side::Input)
            .into_iter()
            .map(|message| (message.role, message.text));
        let output = messages(&span, Side::Output).remove(0);
        (input.collect(), output.arguments.unwrap_or(output.text))
    }

    #[test]
    fn every_convention_says_the_same() {
        let input = json!([
            {"role": "system", "parts": [{"type": "text", "content": "classify"}]},
            {"role": "user", "parts": [{"type": "text", "content": "hello"}, {"type": "text", "content": "there"}]},
        ]);
        let output = json!([{"role": "assistant", "finish_reason": "stop", "parts": [
            {"type": "reasoning", "content": "it greets"},
            {"type": "text", "content": "greeting"},
        ]}]);
        let openai = json!([
            {"role": "system", "content": "classify"},
            {"role": "user", "content": [{"type": "text", "text": "hello"}, {"type": "input_text", "text": "there"}]},
        ]);
        for (name, attributes) in [
            (
                "structured",
                json!({"gen_ai.input.messages": input, "gen_ai.output.messages": output}),
            ),
            (
                "as text",
                json!({"gen_ai.input.messages": input.to_string(), "gen_ai.output.messages": output.to_string()}),
            ),
            (
                "before",
                json!({"gen_ai.prompt": openai.to_string(), "gen_ai.completion": r#"[{"role": "assistant", "content": "greeting"}]"#}),
            ),
            (
                "flattened",
                json!({
                    "gen_ai.prompt.0.role": "system", "gen_ai.prompt.0.content": "classify",
                    "gen_ai.prompt.1.role": "user", "gen_ai.prompt.1.content": "hello\nthere",
                    "gen_ai.completion.0.content": "greeting", "gen_ai.completion.0.finish_reason": "stop",
                }),
            ),
            (
                "OpenInference",
                json!({
                    "llm.input_messages.0.message.role": "system", "llm.input_messages.0.message.content": "classify",
                    "llm.input_messages.1.message.role": "user",
                    "llm.input_messages.1.message.contents.0.message_content.text": "hello",
                    "llm.input_messages.1.message.contents.1.message_content.text": "there",
                    "llm.output_messages.0.message.role": "assistant", "llm.output_messages.0.message.content": "greeting",
                }),
            ),
            (
                "values",
                json!({
                    "input.value": json!({"model": "m", "messages": openai}).to_string(),
                    "output.value": r#"{"choices": [{"index": 0, "message": {"role": "assistant", "content": "greeting"}}]}"#,
                }),
            ),
        ] {
            let (input, output) = both(attributes);
            let input: Vec<_> = input
                .iter()
                .map(|(r, t)| (r.as_str(), t.as_str()))
                .collect();
            assert_eq!(
                input,
                [("system", "classify"), ("user", "hello\nthere")],
                "{name}"
            );
            assert_eq!(output, "greeting", "{name}");
        }
    }

    #[test]
    fn more_than_ten_messages_keep_their_order() {
        let mut attributes = serde_json::Map::new();
        for number in 0..12 {
            attributes.insert(
                format!("gen_ai.prompt.{number}.content"),
                number.to_string().into(),
            );
        }
        let found = messages(&span(Value::Object(attributes)), Side::Input);
        let texts: Vec<_> = found.iter().map(|message| message.text.as_str()).collect();
        assert_eq!(
            texts,
            ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"]
        );
    }

    #[test]
    fn text_that_happens_to_be_json_is_text() {
        let (input, output) = both(
            json!({"gen_ai.prompt": r#"{"ticket": 7}"#, "gen_ai.completion": r#"{"label": "a"}"#}),
        );
        assert_eq!(input, [("user".to_owned(), r#"{"ticket": 7}"#.to_owned())]);
        assert_eq!(output, r#"{"label": "a"}"#);
    }

    #[test]
    fn the_arguments_of_a_tool_call_are_an_answer() {
        for output in [
            json!({"gen_ai.output.messages": [{"role": "assistant", "parts": [{"type": "tool_call", "name": "f", "arguments": {"label": "a"}}]}]}),
            json!({"gen_ai.completion": [{"content": null, "tool_calls": [{"function": {"name": "f", "arguments": "{\"label\":\"a\"}"}}]}]}),
            json!({"gen_ai.completion.0.tool_calls.0.arguments": "{\"label\":\"a\"}"}),
            json!({"llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": "{\"label\":\"a\"}"}),
        ] {
            let found = messages(&span(output.clone()), Side::Output).remove(0);
            assert_eq!(
                found.arguments.as_deref(),
                Some(r#"{"label":"a"}"#),
                "{output}"
            );
            assert_eq!(found.text, "");
        }
    }

    #[test]
    fn events_are_messages() {
        let event = |name: &str, attributes: Value| Event {
            name: name.to_owned(),
            attributes: span(attributes).attributes,
        };
        let span = Span {
            events: vec![
                event("gen_ai.system.message", json!({"content": "classify"})),
                event(
                    "gen_ai.user.message",
                    json!({"gen_ai.event.content": r#"{"role": "user", "content": "hello"}"#}),
                ),
                event(
                    "gen_ai.choice",
                    json!({"message": r#"{"content": "greeting"}"#, "index": 0}),
                ),
                event("exception", json!({"content": "not a message"})),
            ],
            ..Span::default()
        };
        let roles: Vec<_> = messages(&span, Side::Input)
            .into_iter()
            .map(|m| (m.role, m.text))
            .collect();
        assert_eq!(
            roles,
            [
                ("system".to_owned(), "classify".to_owned()),
                ("user".to_owned(), "hello".to_owned())
            ]
        );
        assert_eq!(messages(&span, Side::Output)[0].text, "greeting");

        let span = Span {
            events: vec![
                event("gen_ai.content.prompt", json!({"gen_ai.prompt": "hello"})),
                event(
                    "gen_ai.content.completion",
                    json!({"gen_ai.completion": "greeting"}),
                ),
            ],
            ..Span::default()
        };
        assert_eq!(messages(&span, Side::Input)[0].text, "hello");
        assert_eq!(messages(&span, Side::Output)[0].text, "greeting");
    }
}
