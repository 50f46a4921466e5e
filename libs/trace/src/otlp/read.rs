//! From a span to a trace.

use std::{borrow::Cow, collections::BTreeMap};

use chrono::DateTime;
use serde_json::Value;

use super::{
    Context, SERVICE_NAME, SkipReason,
    config::{OtlpConfig, TaskFallback},
    gen_ai::{Message, Side, messages},
    label::label,
    span::{Attributes, Span},
};
use crate::{DecodeError, TaskName, Trace, draft::Draft, error::excerpt, json::routing};

/// What a span turned out to be.
pub(super) enum Read {
    Trace(Box<Trace>),
    Skip(SkipReason),
}

/// The echo of the router's answer, as in a trace of JSON.
const ROUTING: &str = "tracer.routing";

/// Metadata by the attributes that say it; of several the first counts.
const METADATA: [(&str, &[&str]); 5] = [
    (
        "model",
        &[
            "gen_ai.response.model",
            "gen_ai.request.model",
            "llm.model_name",
        ],
    ),
    (
        "provider",
        &[
            "gen_ai.provider.name",
            "gen_ai.system",
            "llm.provider",
            "llm.system",
        ],
    ),
    (
        "input_tokens",
        &[
            "gen_ai.usage.input_tokens",
            "gen_ai.usage.prompt_tokens",
            "llm.token_count.prompt",
            "llm.usage.prompt_tokens",
        ],
    ),
    (
        "output_tokens",
        &[
            "gen_ai.usage.output_tokens",
            "gen_ai.usage.completion_tokens",
            "llm.token_count.completion",
            "llm.usage.completion_tokens",
        ],
    ),
    (
        "cost_dollars",
        &["gen_ai.usage.cost", "gen_ai.cost.usd", "llm.cost.total"],
    ),
];

pub(super) fn trace(
    span: &Span,
    resource: Result<&Attributes, &DecodeError>,
    context: &Context<'_>,
) -> Result<Read, DecodeError> {
    let resource = resource.map_err(Clone::clone)?;
    let config = context.config;
    let found = Found { span, resource };
    if !found.is_call(config) {
        return Ok(Read::Skip(SkipReason::NotACall));
    }
    if !config
        .select
        .iter()
        .all(|(key, value)| found.has(key, value))
    {
        return Ok(Read::Skip(SkipReason::NotSelected));
    }
    let answer = found.answer(config);
    if answer.is_none() && span.failed {
        return Ok(Read::Skip(SkipReason::FailedCall));
    }
    let input = found.input(config);
    if answer.is_none() && input.is_none() {
        return Ok(Read::Skip(SkipReason::NoContent));
    }
    span.check_ids()?;
    let answer = answer.ok_or(DecodeError::MissingLabel)?;
    let teacher = label(&answer, &config.label_pointer)?;
    let draft = Draft {
        id: Some(format!("{}-{}", span.trace_id, span.id).into()),
        task: found.task(config)?.map(Cow::Owned),
        input: input.map(Cow::Owned),
        teacher: Some(("label", teacher.into())),
        ground_truth: found.text(&config.ground_truth_attribute).map(Cow::Owned),
        timestamp: (span.start > 0)
            .then(|| DateTime::from_timestamp_nanos(i64::try_from(span.start).unwrap_or(i64::MAX))),
        metadata: found.metadata(config),
        routing: found.routing()?,
        ..Draft::default()
    };
    let trace = draft.finish(Some(context.origin), context.limits)?;
    Ok(Read::Trace(Box::new(trace.into())))
}

/// A span with its resource.
struct Found<'a> {
    span: &'a Span,
    resource: &'a Attributes,
}

impl<'a> Found<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        let here = self.span.attributes.get(key);
        here.or_else(|| self.resource.get(key))
            .filter(|value| !value.is_null())
    }

    /// An attribute as text, whatever its type.
    fn text(&self, key: &str) -> Option<String> {
        self.get(key).map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }

    fn has(&self, key: &str, value: &str) -> bool {
        let found = self.text(key);
        found.is_some_and(|found| value == "*" || found == value)
    }

    /// Whether the span is a call of a language model that answers by text.
    fn is_call(&self, config: &OtlpConfig) -> bool {
        let attributes = &self.span.attributes;
        let configured = |key: &str| !key.is_empty() && attributes.contains_key(key);
        if configured(&config.label_attribute) || configured(&config.input_attribute) {
            return true;
        }
        let says = |key: &str| attributes.get(key).and_then(Value::as_str);
        if let Some(operation) = says("gen_ai.operation.name") {
            return matches!(
                operation,
                "chat" | "text_completion" | "generate_content" | "completion"
            );
        }
        if let Some(kind) = says("openinference.span.kind") {
            return kind.eq_ignore_ascii_case("llm");
        }
        if let Some(kind) = says("llm.request.type") {
            return matches!(kind, "chat" | "completion");
        }
        self.spoke_of_models()
            && [Side::Output, Side::Input]
                .iter()
                .any(|side| !messages(self.span, *side).is_empty())
    }

    /// Any span may have an `output.value`; only one of a model has these.
    fn spoke_of_models(&self) -> bool {
        let of_model = |key: &String| key.starts_with("gen_ai.") || key.starts_with("llm.");
        let events = self.span.events.iter().map(|event| &event.attributes);
        self.span.attributes.keys().any(of_model)
            || events.flat_map(BTreeMap::keys).any(of_model)
            || self
                .span
                .events
                .iter()
                .any(|e| e.name.starts_with("gen_ai."))
    }

    fn input(&self, config: &OtlpConfig) -> Option<String> {
        if !config.input_attribute.is_empty() {
            return self.text(&config.input_attribute);
        }
        let said = messages(self.span, Side::Input);
        let last = said
            .into_iter()
            .rfind(|message| matches!(message.role.as_str(), "user" | "human"));
        last.map(|message| message.text)
    }

    fn answer(&self, config: &OtlpConfig) -> Option<String> {
        if !config.label_attribute.is_empty() {
            return self.text(&config.label_attribute);
        }
        let Message {
            text, arguments, ..
        } = messages(self.span, Side::Output).into_iter().next()?;
        // A classifier that answers by a function says nothing else.
        match arguments {
            Some(arguments) if text.trim().is_empty() => Some(arguments),
            _ => Some(text),
        }
    }

    fn task(&self, config: &OtlpConfig) -> Result<Option<String>, DecodeError> {
        if !config.task.is_empty() {
            return Ok(Some(config.task.clone()));
        }
        if let Some(task) = self.text(&config.task_attribute) {
            // Said on purpose: what is no name is a mistake, and not mended.
            return Ok(Some(TaskName::new(&task)?.as_str().to_owned()));
        }
        Ok(match config.task_fallback {
            TaskFallback::ServiceName => self.text(SERVICE_NAME).map(|name| plain(&name)),
            TaskFallback::SpanName => Some(plain(&self.span.name)),
            TaskFallback::Default => None,
        })
    }

    fn metadata(&self, config: &OtlpConfig) -> BTreeMap<String, String> {
        let mut metadata: BTreeMap<String, String> = METADATA
            .iter()
            .filter_map(|(name, keys)| {
                let value = keys.iter().find_map(|key| self.text(key))?;
                Some(((*name).to_owned(), value))
            })
            .collect();
        if !metadata.contains_key("cost_dollars") {
            let parts = ["gen_ai.usage.input_cost", "gen_ai.usage.output_cost"];
            let parts: Vec<f64> = parts
                .iter()
                .filter_map(|key| self.get(key)?.as_f64())
                .collect();
            if !parts.is_empty() {
                let sum: f64 = parts.iter().sum();
                metadata.insert("cost_dollars".to_owned(), sum.to_string());
            }
        }
        for key in &config.metadata_attributes {
            if let Some(value) = self.text(key) {
                metadata.insert(key.clone(), value);
            }
        }
        metadata
    }

    fn routing(&self) -> Result<Option<crate::Routing>, DecodeError> {
        let Some(value) = self.get(ROUTING) else {
            return Ok(None);
        };
        if let Value::String(text) = value {
            let parsed: Value =
                serde_json::from_str(text).map_err(|error| DecodeError::WrongType {
                    field: ROUTING.to_owned(),
                    expected: "an object or its JSON",
                    got: excerpt(&error),
                })?;
            return routing(ROUTING, &parsed).map(Some);
        }
        routing(ROUTING, value).map(Some)
    }
}

/// A name that was not meant to be a task's, made to be one; empty when nothing is left.
fn plain(name: &str) -> String {
    let name: String = name
        .chars()
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' => c,
            _ => '-',
        })
        .collect();
    let begins = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    begins[..begins.len().min(TaskName::MAX_LEN)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_tasks() {
        for (name, task) in [
            ("support", "support"),
            ("unknown_service:python", "unknown_service-python"),
            ("/v1/chat completions", "v1-chat-completions"),
            ("ünder", "nder"),
            ("___", ""),
            ("", ""),
        ] {
            assert_eq!(plain(name), task);
        }
        let long = plain(&"x".repeat(100));
        assert!(TaskName::new(&long).is_ok());
    }
}
